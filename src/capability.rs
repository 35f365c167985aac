//! *File capabilities*: privileges that a program has whoever runs it, in libcap's text and in the kernel's binary form.
//!
//! Invariant: a value that was parsed is one that the kernel can keep with a file; what is printed is what `getcap` prints
//! of it, and is read back as the same value. (capabilities(7), cap_text_formats(7), `linux/capability.h`.)

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// The extended attribute that holds the capabilities of a file.
pub const ATTRIBUTE: &str = "security.capability";

/// Linux's capabilities, each at its number (`linux/capability.h`; none was added since Linux 5.9).
const NAMES: [&str; 41] = [
    "cap_chown",
    "cap_dac_override",
    "cap_dac_read_search",
    "cap_fowner",
    "cap_fsetid",
    "cap_kill",
    "cap_setgid",
    "cap_setuid",
    "cap_setpcap",
    "cap_linux_immutable",
    "cap_net_bind_service",
    "cap_net_broadcast",
    "cap_net_admin",
    "cap_net_raw",
    "cap_ipc_lock",
    "cap_ipc_owner",
    "cap_sys_module",
    "cap_sys_rawio",
    "cap_sys_chroot",
    "cap_sys_ptrace",
    "cap_sys_pacct",
    "cap_sys_admin",
    "cap_sys_boot",
    "cap_sys_nice",
    "cap_sys_resource",
    "cap_sys_time",
    "cap_sys_tty_config",
    "cap_mknod",
    "cap_lease",
    "cap_audit_write",
    "cap_audit_control",
    "cap_setfcap",
    "cap_mac_override",
    "cap_mac_admin",
    "cap_syslog",
    "cap_wake_alarm",
    "cap_block_suspend",
    "cap_audit_read",
    "cap_perfmon",
    "cap_bpf",
    "cap_checkpoint_restore",
];

/// Shortest part of a name by which it is suggested.
const PART_MIN: usize = 3;

/// All capabilities that have a name.
const ALL: u64 = (1 << NAMES.len()) - 1;

/// Largest value of the attribute that is read, in bytes; the kernel's have 24 at most.
const VALUE_MAX: usize = 64;

/// Most files that a warning names.
const NAMES_SHOWN: usize = 4;

/// What the first word of the attribute's value says, in its highest byte.
const REVISION_1: u32 = 0x0100_0000;
const REVISION_2: u32 = 0x0200_0000;
const REVISION_3: u32 = 0x0300_0000;

/// And in its lowest bit.
const EFFECTIVE: u32 = 1;

/// The capabilities of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileCapabilities {
    /// Whether a program that knows nothing of capabilities has them at once.
    effective: bool,
    /// What whoever runs the file gets.
    permitted: u64,
    /// What stays of what whoever runs the file could hand down.
    inheritable: u64,
    /// The user of the initial namespace that is root where they count; `None`: they count everywhere.
    root_id: Option<u32>,
}

impl FileCapabilities {
    /// Reads the attribute's value; `None` where the kernel would not take it.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let word = |index: usize| -> Option<u32> {
            let word = bytes.get(4 * index..)?.first_chunk()?;
            Some(u32::from_le_bytes(*word))
        };
        let magic = word(0)?;
        let words = match (magic & 0xff00_0000, bytes.len()) {
            (REVISION_1, 12) => 1,
            (REVISION_2, 20) | (REVISION_3, 24) => 2,
            _ => return None,
        };
        let set = |first: usize| -> Option<u64> {
            let high = if words == 2 { word(first + 2)? } else { 0 };
            Some(u64::from(high) << 32 | u64::from(word(first)?))
        };
        Some(Self {
            effective: magic & EFFECTIVE != 0,
            permitted: set(1)?,
            inheritable: set(2)?,
            root_id: word(5).filter(|&id| id != 0),
        })
    }

    /// The attribute's value: of revision 2 where they count everywhere, else of revision 3.
    pub fn to_bytes(self) -> Vec<u8> {
        let revision = if self.root_id.is_some() { REVISION_3 } else { REVISION_2 };
        let low = |set: u64| (set & u64::from(u32::MAX)) as u32;
        let high = |set: u64| (set >> 32) as u32;
        let words = [
            revision | if self.effective { EFFECTIVE } else { 0 },
            low(self.permitted),
            low(self.inheritable),
            high(self.permitted),
            high(self.inheritable),
        ];
        let words = words.into_iter().chain(self.root_id);
        words.flat_map(u32::to_le_bytes).collect()
    }

    /// Reads the attribute's value from hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let bytes = text.as_bytes().chunks(2).map(|pair| match pair {
            &[high, low] => Some((digit(high)? << 4 | digit(low)?) as u8),
            _ => None,
        });
        Self::from_bytes(&bytes.collect::<Option<Vec<u8>>>()?)
    }

    /// The attribute's value in hexadecimal digits.
    pub fn to_hex(self) -> String {
        hex(&self.to_bytes())
    }

    /// Whether they allow nothing.
    pub fn is_empty(&self) -> bool {
        (self.permitted | self.inheritable) == 0
    }

    /// Without the bound to a user namespace: what a file of an image has.
    pub fn everywhere(self) -> Self {
        Self { root_id: None, ..self }
    }

    /// The user of the initial namespace that is root where they count, where that is not everywhere.
    pub fn root_id(&self) -> Option<u32> {
        self.root_id
    }

    /// The flags of a capability, as libcap numbers them.
    fn flags(&self, number: usize) -> usize {
        let is_in = |set: u64| set >> number & 1 != 0;
        let (permitted, inheritable) = (is_in(self.permitted), is_in(self.inheritable));
        let effective = self.effective && (permitted || inheritable);
        usize::from(effective) | usize::from(permitted) << 1 | usize::from(inheritable) << 2
    }
}

/// The attribute's value for people: what `getcap` prints of it, or what it holds.
pub fn shown(value: &[u8]) -> String {
    match FileCapabilities::from_bytes(value) {
        Some(capabilities) => capabilities.to_string(),
        None => format!("unreadable ({})", hex(value)),
    }
}

/// The capabilities of a file on disk; `None` where it has none, or where its file system knows of no such thing.
pub fn of_file(path: &Path) -> Option<Vec<u8>> {
    let mut value = [0; VALUE_MAX];
    let size = rustix::fs::lgetxattr(path, ATTRIBUTE, &mut value[..]).ok()?;
    Some(value[..size].to_vec())
}

/// What is to be told of files whose capabilities are not taken over: which they are, and how an image gets them. They are
/// given by their paths below `what`, with what [`shown`] says of them.
pub fn not_kept(what: &str, files: &BTreeMap<String, String>) -> Option<String> {
    let (first, first_text) = files.first_key_value()?;
    let named: Vec<String> = (files.iter().take(NAMES_SHOWN))
        .map(|(path, text)| format!("`{path}` ({text})"))
        .collect();
    let more = match files.len().saturating_sub(NAMES_SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let pattern = match first.strip_prefix('/') {
        Some(_) if first.contains('*') => format!("pattern = \"{first}\""),
        Some(_) => format!("path = \"{first}\""),
        None => format!("pattern = \"/**/{first}\""),
    };
    Some(format!(
        "`{what}` brings file capabilities, which are not kept: {}{more}; where an image is to have them, write \
         `permissions = [{{ {pattern}, capabilities = [\"{first_text}\"] }}]`",
        named.join(", ")
    ))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn letters(flags: usize) -> String {
    let letters = [('e', 1), ('i', 4), ('p', 2)].into_iter();
    letters
        .filter(|(_, flag)| flags & flag != 0)
        .map(|(letter, _)| letter)
        .collect()
}

impl fmt::Display for FileCapabilities {
    /// As libcap's `cap_to_text` has it: what most capabilities have comes first, as `=FLAGS`, which is left out where it
    /// is nothing; then one clause for all that have the same other flags.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with = |flags: usize, numbers: std::ops::Range<usize>| -> Vec<usize> {
            numbers.filter(|&number| self.flags(number) == flags).collect()
        };
        let mut usual = 7;
        for flags in (0..7).rev() {
            if with(flags, 0..NAMES.len()).len() >= with(usual, 0..NAMES.len()).len() {
                usual = flags;
            }
        }
        let mut text = format!("={}", letters(usual));
        for flags in (0..8).rev().filter(|&flags| flags != usual) {
            let numbers = with(flags, 0..NAMES.len());
            if numbers.is_empty() {
                continue;
            }
            let names: Vec<&str> = numbers.iter().map(|&number| NAMES[number]).collect();
            let mut raise = "+";
            if text == "=" {
                (text, raise) = (String::new(), "=");
            } else {
                text.push(' ');
            }
            text.push_str(&names.join(","));
            for (operator, flags) in [(raise, flags & !usual), ("-", usual & !flags)] {
                if flags != 0 {
                    text.push_str(operator);
                    text.push_str(&letters(flags));
                }
            }
        }
        for flags in (1..8).rev() {
            let numbers: Vec<String> = with(flags, NAMES.len()..64).iter().map(usize::to_string).collect();
            if !numbers.is_empty() {
                text.push_str(&format!(" {}+{}", numbers.join(","), letters(flags)));
            }
        }
        f.write_str(&text)?;
        match self.root_id {
            Some(id) => write!(f, " [rootid={id}]"),
            None => Ok(()),
        }
    }
}

impl Serialize for FileCapabilities {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Why a text does not say which capabilities a file has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseCapabilitiesError {
    /// A clause without `=`, `+` or `-`.
    #[error("`{clause}` does not say how they are given")]
    NoOperator {
        /// The clause.
        clause: String,
    },
    /// A name that Linux does not know.
    #[error("Linux has no capability `{name}`")]
    Name {
        /// The name.
        name: String,
        /// Names that are like it, the most similar first.
        similar: Vec<&'static str>,
    },
    /// A number that stands for no capability.
    #[error("Linux has no capability with the number {number}")]
    Number {
        /// The number.
        number: String,
    },
    /// A clause that begins with `+` or `-`.
    #[error("`{clause}` names no capability")]
    NoNames {
        /// The clause.
        clause: String,
    },
    /// A letter that is not a flag.
    #[error("`{flag}` in `{clause}` is not one of `e`, `i` and `p`")]
    Flag {
        /// The letter.
        flag: char,
        /// The clause.
        clause: String,
    },
    /// `+` or `-` without a flag.
    #[error("`{clause}` ends without `e`, `i` or `p`")]
    NoFlags {
        /// The clause.
        clause: String,
    },
    /// `=` after another operator.
    #[error("`=` in `{clause}` can only be the first sign after the names")]
    SecondEquals {
        /// The clause.
        clause: String,
    },
    /// Flags that the attribute cannot keep.
    #[error("`e` is given to some capabilities and not to all: a file has one such flag for all that it has")]
    Effective,
    /// `e` for a capability that nobody gets.
    #[error("`e` does nothing without `p` or `i`")]
    OnlyEffective,
    /// Nothing is given.
    #[error("nothing is given")]
    Nothing,
}

impl ParseCapabilitiesError {
    /// What to write instead.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::NoOperator { clause } => Some(format!(
                "write `{clause}=ep`: `p` for whoever runs the program, `e` so that it has them at once"
            )),
            Self::Name { similar, .. } => match similar.as_slice() {
                [] => Some("`man 7 capabilities` lists them: `cap_net_bind_service`, `cap_net_raw`, …".to_owned()),
                [one] => Some(format!("did you mean `{one}`?")),
                [others @ .., last] => Some(format!("did you mean `{}` or `{last}`?", others.join("`, `"))),
            },
            Self::Number { .. } => Some(format!("they have the numbers 0 to {}", NAMES.len() - 1)),
            Self::NoNames { clause } => Some(format!("write `all{clause}`, or the names that are meant")),
            Self::Flag { .. } | Self::NoFlags { .. } => {
                Some("`e` is effective, `i` inheritable, `p` permitted: most programs need `=ep`".to_owned())
            }
            Self::SecondEquals { .. } => {
                Some("write `+` for flags that are added, `-` for those taken away".to_owned())
            }
            Self::Effective => Some("give `e` to all of them, or to none".to_owned()),
            Self::OnlyEffective => Some("write `ep`".to_owned()),
            Self::Nothing => Some("write `[]` where the file is to have none".to_owned()),
        }
    }
}

/// The flags that clauses gave so far, each a set of capabilities.
#[derive(Debug, Clone, Copy, Default)]
pub struct CapabilityClauses {
    effective: u64,
    inheritable: u64,
    permitted: u64,
}

impl CapabilityClauses {
    /// Does what the clauses of a text say (cap_text_formats(7)).
    pub fn add(&mut self, text: &str) -> Result<(), ParseCapabilitiesError> {
        text.split_whitespace().try_for_each(|clause| self.add_clause(clause))
    }

    fn add_clause(&mut self, clause: &str) -> Result<(), ParseCapabilitiesError> {
        let owned = || clause.to_owned();
        let start = clause.find(['=', '+', '-']);
        let (names, mut actions) = clause.split_at(start.unwrap_or(clause.len()));
        let names = match names {
            "" if actions.starts_with('=') => ALL,
            "" => return Err(ParseCapabilitiesError::NoNames { clause: owned() }),
            names => names
                .split(',')
                .map(capability)
                .try_fold(0, |set, one| one.map(|one| set | one))?,
        };
        if actions.is_empty() {
            return Err(ParseCapabilitiesError::NoOperator { clause: owned() });
        }
        let mut is_first = true;
        while let Some(operator) = actions.chars().next() {
            let rest = &actions[operator.len_utf8()..];
            let (flags, rest) = rest.split_at(rest.find(['=', '+', '-']).unwrap_or(rest.len()));
            match operator {
                '=' if is_first => self.each(|set| *set &= !names),
                '=' => return Err(ParseCapabilitiesError::SecondEquals { clause: owned() }),
                _ if flags.is_empty() => return Err(ParseCapabilitiesError::NoFlags { clause: owned() }),
                _ => {}
            }
            for flag in flags.chars() {
                let set = match flag {
                    'e' => &mut self.effective,
                    'i' => &mut self.inheritable,
                    'p' => &mut self.permitted,
                    flag => return Err(ParseCapabilitiesError::Flag { flag, clause: owned() }),
                };
                *set = if operator == '-' { *set & !names } else { *set | names };
            }
            (actions, is_first) = (rest, false);
        }
        Ok(())
    }

    fn each(&mut self, change: impl Fn(&mut u64)) {
        [&mut self.effective, &mut self.inheritable, &mut self.permitted]
            .into_iter()
            .for_each(change);
    }

    /// What a file has of it.
    pub fn finish(self) -> Result<FileCapabilities, ParseCapabilitiesError> {
        let given = self.permitted | self.inheritable;
        match (given, self.effective) {
            (0, 0) => Err(ParseCapabilitiesError::Nothing),
            (given, effective) if effective & !given != 0 => Err(ParseCapabilitiesError::OnlyEffective),
            (given, effective) if effective != 0 && effective != given => Err(ParseCapabilitiesError::Effective),
            (_, effective) => Ok(FileCapabilities {
                effective: effective != 0,
                permitted: self.permitted,
                inheritable: self.inheritable,
                root_id: None,
            }),
        }
    }
}

impl FromStr for FileCapabilities {
    type Err = ParseCapabilitiesError;

    fn from_str(text: &str) -> Result<Self, ParseCapabilitiesError> {
        let mut clauses = CapabilityClauses::default();
        clauses.add(text)?;
        clauses.finish()
    }
}

/// The set of the capabilities that a word means: a name in any case, a number, or `all`.
fn capability(word: &str) -> Result<u64, ParseCapabilitiesError> {
    let lower = word.to_ascii_lowercase();
    if lower == "all" {
        return Ok(ALL);
    }
    let number = match !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit()) {
        true => word.parse().ok().filter(|&number: &usize| number < NAMES.len()),
        false => NAMES.iter().position(|name| *name == lower),
    };
    match number {
        Some(number) => Ok(1 << number),
        None if word.starts_with(|first: char| first.is_ascii_digit()) => Err(ParseCapabilitiesError::Number {
            number: word.to_owned(),
        }),
        None => Err(ParseCapabilitiesError::Name {
            name: word.to_owned(),
            similar: similar(&lower),
        }),
    }
}

/// The names that are most like a word, with or without `cap_` before it.
fn similar(word: &str) -> Vec<&'static str> {
    let word = word.strip_prefix("cap_").unwrap_or(word);
    let near = (word.len() / 3).clamp(1, 3);
    let distance = |name: &str| strsim::damerau_levenshtein(word, name.strip_prefix("cap_").unwrap_or(name));
    let all = NAMES.iter().map(|name| (distance(name), *name));
    let least = all
        .clone()
        .map(|(distance, _)| distance)
        .min()
        .filter(|&least| least <= near);
    let nearest: Vec<&str> = all
        .filter(|(distance, _)| Some(*distance) == least)
        .map(|(_, name)| name)
        .collect();
    if !nearest.is_empty() || word.len() < PART_MIN {
        return nearest;
    }
    NAMES.into_iter().filter(|name| name.contains(word)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> FileCapabilities {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// What `setcap TEXT FILE; getcap FILE` prints with libcap 2.66 on Linux 6.1.
    #[test]
    fn texts_are_printed_as_getcap_prints_them() {
        for (text, printed) in [
            ("cap_net_bind_service=+ep", "cap_net_bind_service=ep"),
            ("cap_net_bind_service+ep", "cap_net_bind_service=ep"),
            ("=ep", "=ep"),
            ("all=p", "=p"),
            ("cap_chown=p+i", "cap_chown=ip"),
            ("0,5=ep", "cap_chown,cap_kill=ep"),
            ("CAP_CHOWN=p", "cap_chown=p"),
            ("40=p", "cap_checkpoint_restore=p"),
            ("cap_chown=ie cap_kill=pe", "cap_chown=ei cap_kill+ep"),
            ("all=p cap_kill-p", "=p cap_kill-p"),
            ("cap_chown=pp", "cap_chown=p"),
            ("  cap_chown=p\tcap_kill=p ", "cap_chown,cap_kill=p"),
            ("cap_chown=ep cap_chown-e", "cap_chown=p"),
        ] {
            assert_eq!(parse(text).to_string(), printed, "{text}");
        }
        let unnamed = FileCapabilities {
            permitted: 1 << 45,
            ..FileCapabilities::default()
        };
        assert_eq!(unnamed.to_string(), "= 45+p");
        assert_eq!(FileCapabilities::default().to_string(), "=");
    }

    #[test]
    fn what_is_wrong_is_told_with_what_to_write() {
        for (text, message, help) in [
            (
                "cap_net_bind_service",
                "does not say how they are given",
                "write `cap_net_bind_service=ep`",
            ),
            (
                "cap_net_bind_servce=ep",
                "Linux has no capability `cap_net_bind_servce`",
                "did you mean `cap_net_bind_service`?",
            ),
            (
                "net_admn=p",
                "Linux has no capability `net_admn`",
                "did you mean `cap_net_admin`?",
            ),
            (
                "cap_net_bind=ep",
                "Linux has no capability `cap_net_bind`",
                "did you mean `cap_net_bind_service`?",
            ),
            (
                "audit=p",
                "no capability `audit`",
                "did you mean `cap_audit_write`, `cap_audit_control` or `cap_audit_read`?",
            ),
            (
                "cap_frobnicate=p",
                "no capability `cap_frobnicate`",
                "man 7 capabilities",
            ),
            ("41=p", "no capability with the number 41", "0 to 40"),
            ("99999999999999999999=p", "no capability with the number", "0 to 40"),
            ("cap_chown=x", "`x` in `cap_chown=x` is not one of", "effective"),
            (
                "cap_chown=p,cap_kill=p",
                "`,` in `cap_chown=p,cap_kill=p` is not one of",
                "effective",
            ),
            ("cap_chown+", "ends without", "effective"),
            ("+p", "`+p` names no capability", "write `all+p`"),
            ("cap_chown+p=i", "`=` in `cap_chown+p=i`", "write `+`"),
            ("cap_chown=ep cap_kill=i", "one such flag for all", "give `e` to all"),
            ("cap_chown=e", "`e` does nothing without", "write `ep`"),
            ("cap_chown=", "nothing is given", "write `[]`"),
            ("", "nothing is given", "write `[]`"),
            (",=p", "no capability ``", "man 7"),
        ] {
            let error = text.parse::<FileCapabilities>().unwrap_err();
            assert!(error.to_string().contains(message), "{text}: {error}");
            assert!(
                error.help().is_some_and(|text| text.contains(help)),
                "{text}: {:?}",
                error.help()
            );
        }
    }

    /// `struct vfs_cap_data` and `vfs_ns_cap_data` of `linux/capability.h`, all words little-endian.
    #[test]
    fn values_of_every_revision_are_read() {
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let bind = 1 << 10;
        for (value, printed) in [
            (words(&[0x0100_0001, bind, 0]), "cap_net_bind_service=ep"),
            (words(&[0x0200_0001, bind, 0, 0, 0]), "cap_net_bind_service=ep"),
            (
                words(&[0x0200_0000, 0, bind, 1 << 8, 0]),
                "cap_net_bind_service=i cap_checkpoint_restore+p",
            ),
            (
                words(&[0x0300_0001, bind, 0, 0, 0, 1000]),
                "cap_net_bind_service=ep [rootid=1000]",
            ),
            (words(&[0x0200_0001, 0, 0, 0, 0]), "="),
        ] {
            assert_eq!(shown(&value), printed);
        }
        for (value, printed) in [
            (words(&[0x0200_0001, bind, 0]), "unreadable (010000020004000000000000)"),
            (
                words(&[0x0400_0001, bind, 0, 0, 0]),
                "unreadable (0100000400040000000000000000000000000000)",
            ),
            (Vec::new(), "unreadable ()"),
            (vec![1, 2], "unreadable (0102)"),
        ] {
            assert_eq!(shown(&value), printed);
        }
        let bound = FileCapabilities::from_bytes(&words(&[0x0300_0001, bind, 0, 0, 0, 1000])).unwrap();
        assert_eq!(
            (bound.root_id(), bound.everywhere().to_string().as_str()),
            (Some(1000), "cap_net_bind_service=ep")
        );
    }

    proptest! {
        #[test]
        fn any_value_comes_back(effective: bool, permitted: u64, inheritable: u64, root_id: Option<u32>) {
            let root_id = root_id.filter(|&id| id != 0);
            let value = FileCapabilities { effective, permitted, inheritable, root_id };
            prop_assert_eq!(FileCapabilities::from_bytes(&value.to_bytes()), Some(value));
            prop_assert_eq!(FileCapabilities::from_hex(&value.to_hex()), Some(value));
        }

        #[test]
        fn what_is_printed_is_read(effective: bool, permitted in 0..=ALL, inheritable in 0..=ALL) {
            prop_assume!(permitted | inheritable != 0);
            let value = FileCapabilities { effective, permitted, inheritable, root_id: None };
            prop_assert_eq!(value.to_string().parse::<FileCapabilities>(), Ok(value));
        }

        #[test]
        fn no_text_panics(text in "([a-z_,=+-]|cap_chown|all|[0-9]| ){0,12}") {
            let _ = text.parse::<FileCapabilities>();
        }
    }
}
