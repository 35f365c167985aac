//! *Accounts as data*: users and groups that packages declare in sysusers.d(5), made where no script made them. systemd's own
//! program for it is there in few images.
//!
//! Invariant: pure but for reading the packages' files. An account that is there stays as it is; a number that a line asks for
//! is given where it is free, any other is the image's to choose.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::boot::texts;
use super::package::Package;
use super::record::{Entry, Record, TREE};
use super::{ACCOUNTS_MAX, ConfigureError, Tools};
use crate::fsio::{self, IoContext};

/// Where packages have their lines.
const DIRECTORY: &str = "usr/lib/sysusers.d";

/// Files of accounts in `etc`, with the mode and group that they have where nothing else is known.
const FILES: [(&str, u32, u32); 4] = [
    ("passwd", 0o644, 0),
    ("group", 0o644, 0),
    ("shadow", 0o640, SHADOW_GROUP),
    ("gshadow", 0o640, SHADOW_GROUP),
];

/// Debian's group that may read passwords (base-passwd).
const SHADOW_GROUP: u32 = 42;

/// Numbers to choose from, as adduser(8) has them.
const FREE: std::ops::RangeInclusive<u32> = 100..=999;

const NOLOGIN: &str = "/usr/sbin/nologin";

/// The texts of accounts, a line each.
#[derive(Debug, Default, PartialEq, Eq)]
struct Accounts {
    passwd: Vec<String>,
    group: Vec<String>,
    shadow: Vec<String>,
    gshadow: Vec<String>,
}

/// Adds the accounts that packages declare to those in the output, or to the tools' where it has none. Gives the names of those
/// whose number a line asked for.
pub(super) fn add(
    tools: &Tools,
    packages: &[&Package],
    output: &Path,
    record: &mut Record,
) -> Result<BTreeSet<String>, ConfigureError> {
    let (mut lines, mut by) = (Vec::new(), BTreeSet::new());
    for package in packages {
        for text in texts(&package.tree.join(DIRECTORY), ".conf")? {
            by.insert(package.name.clone());
            lines.extend(text.lines().map(words).filter(|words| !words.is_empty()));
        }
    }
    let read = |name: &str| -> Result<Vec<String>, ConfigureError> {
        let mut places = [output, &tools.output]
            .into_iter()
            .map(|dir| dir.join(TREE).join("etc").join(name));
        let Some(place) = places.find(|place| place.is_file()) else {
            return Ok(Vec::new());
        };
        let text = fsio::read_limited(&place, ACCOUNTS_MAX)?;
        Ok(String::from_utf8_lossy(&text).lines().map(str::to_owned).collect())
    };
    let mut accounts = Accounts {
        passwd: read("passwd")?,
        group: read("group")?,
        shadow: read("shadow")?,
        gshadow: read("gshadow")?,
    };
    let fixed = accounts.apply(&lines);
    for (name, mode, gid) in FILES {
        let now = accounts.lines(name);
        if *now == read(name)? || now.is_empty() {
            continue;
        }
        let path = format!("etc/{name}");
        let place = output.join(TREE).join(&path);
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent).context("create", parent)?;
        }
        let text: String = now.iter().flat_map(|line| [line.as_str(), "\n"]).collect();
        fs::write(&place, text).context("write", &place)?;
        let usual = Entry {
            mode,
            gid,
            ..Entry::default()
        };
        let known = tools.record.entries.get(&path).cloned().unwrap_or(usual);
        record
            .entries
            .entry(path)
            .or_insert(known)
            .by
            .extend(by.iter().cloned());
    }
    Ok(fixed)
}

impl Accounts {
    fn lines(&self, name: &str) -> &Vec<String> {
        match name {
            "passwd" => &self.passwd,
            "group" => &self.group,
            "shadow" => &self.shadow,
            _ => &self.gshadow,
        }
    }

    /// Makes what lines ask for: groups, users, then who is in which group. Gives the names that have the number asked for.
    fn apply(&mut self, lines: &[Vec<String>]) -> BTreeSet<String> {
        let mut fixed = BTreeSet::new();
        for wanted in ["g", "u", "m"] {
            for line in lines.iter().filter(|line| line[0].trim_end_matches('!') == wanted) {
                let field = |index: usize| line.get(index).map(String::as_str).filter(|word| *word != "-");
                let Some(name) = field(1).filter(|name| is_name(name)) else {
                    continue;
                };
                match wanted {
                    "g" => {
                        self.add_group(name, field(2).and_then(|id| id.parse().ok()), &mut fixed);
                    }
                    "u" => self.add_user(name, [field(2), field(3), field(4), field(5)], &mut fixed),
                    _ => self.add_member(name, field(2).filter(|group| is_name(group)), &mut fixed),
                }
            }
        }
        fixed
    }

    /// The number of a group, which is made where it is not there; none where no number is free.
    fn add_group(&mut self, name: &str, wanted: Option<u32>, fixed: &mut BTreeSet<String>) -> Option<u32> {
        if let Some(number) = number_of(&self.group, name) {
            return Some(number);
        }
        let number = self.number(name, wanted, fixed)?;
        self.group.push(format!("{name}:x:{number}:"));
        if !self.gshadow.is_empty() {
            self.gshadow.push(format!("{name}:!::"));
        }
        Some(number)
    }

    fn add_user(&mut self, name: &str, [id, gecos, home, shell]: [Option<&str>; 4], fixed: &mut BTreeSet<String>) {
        if number_of(&self.passwd, name).is_some() {
            return;
        }
        let (id, group) = match id.and_then(|id| id.split_once(':')) {
            Some((id, group)) => (Some(id), Some(group)),
            None => (id, None),
        };
        let wanted = id.and_then(|id| id.parse().ok());
        let gid = match group {
            None => self.add_group(name, wanted, fixed),
            Some(group) => group.parse().ok().or_else(|| number_of(&self.group, group)),
        };
        // A user and its group have one number where it is free.
        let same = gid.filter(|gid| group.is_none() && self.passwd.iter().all(|line| third(line) != Some(*gid)));
        let Some((gid, uid)) = gid.zip(same.or_else(|| self.number(name, wanted, fixed))) else {
            return;
        };
        let plain = |text: Option<&str>, default: &str| match text {
            Some(text) if !text.contains([':', '%']) && !text.chars().any(char::is_control) => text.to_owned(),
            _ => default.to_owned(),
        };
        let (gecos, home, shell) = (plain(gecos, ""), plain(home, "/"), plain(shell, NOLOGIN));
        self.passwd.push(format!("{name}:x:{uid}:{gid}:{gecos}:{home}:{shell}"));
        if !self.shadow.is_empty() {
            // Without a day: day 0 would ask for a new password.
            self.shadow.push(format!("{name}:!*:::::::"));
        }
    }

    fn add_member(&mut self, user: &str, group: Option<&str>, fixed: &mut BTreeSet<String>) {
        let Some(group) = group else { return };
        self.add_user(user, [None; 4], fixed);
        self.add_group(group, None, fixed);
        for lines in [&mut self.group, &mut self.gshadow] {
            let Some(line) = lines.iter_mut().find(|line| line.split(':').next() == Some(group)) else {
                continue;
            };
            let members = line.rsplit(':').next().unwrap_or_default();
            if members.split(',').all(|member| member != user) {
                let comma = if members.is_empty() { "" } else { "," };
                line.push_str(comma);
                line.push_str(user);
            }
        }
    }

    /// The number that is asked for where nobody has it, else the first that is free.
    fn number(&self, name: &str, wanted: Option<u32>, fixed: &mut BTreeSet<String>) -> Option<u32> {
        let taken: BTreeSet<u32> = self
            .passwd
            .iter()
            .chain(&self.group)
            .filter_map(|line| third(line))
            .collect();
        match wanted.filter(|number| !taken.contains(number)) {
            Some(number) => {
                fixed.insert(name.to_owned());
                Some(number)
            }
            None => FREE.into_iter().find(|number| !taken.contains(number)),
        }
    }
}

fn number_of(lines: &[String], name: &str) -> Option<u32> {
    let line = lines.iter().find(|line| line.split(':').next() == Some(name))?;
    third(line)
}

fn third(line: &str) -> Option<u32> {
    line.split(':').nth(2)?.parse().ok()
}

/// What systemd takes for a name.
fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    text.len() <= 31 && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && text.chars().all(allowed)
}

/// The words of a line; those in quotes are one. None of a comment.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for character in line.trim().chars() {
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, space) if space.is_whitespace() => words.extend(word.take()),
            (_, other) => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    match line.trim_start().starts_with('#') {
        true => Vec::new(),
        false => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        let lines = |text: &str| text.lines().map(str::to_owned).collect();
        Accounts {
            passwd: lines("root:x:0:0:root:/root:/bin/bash\nredis:x:100:101::/:/x"),
            group: lines("root:x:0:\nadm:x:4:\nredis:x:101:"),
            shadow: lines("root:*:::::::"),
            gshadow: lines("root:*::\nadm:*::"),
        }
    }

    fn applied(text: &str) -> (Accounts, BTreeSet<String>) {
        let mut accounts = accounts();
        let lines: Vec<Vec<String>> = text.lines().map(words).filter(|words| !words.is_empty()).collect();
        let fixed = accounts.apply(&lines);
        (accounts, fixed)
    }

    #[test]
    fn users_groups_and_members_are_made() {
        let (made, fixed) = applied(
            "# a comment\nu tomcat - \"Apache Tomcat\" / /sbin/nologin\nm tomcat adm\nm other adm\nu! fix 321 - /var/lib/fix\n\
             u in -:adm\ng alone 500\nr - 500-900\nu redis 7\n",
        );
        assert_eq!(
            made.passwd[2..],
            [
                "tomcat:x:102:102:Apache Tomcat:/:/sbin/nologin",
                "fix:x:321:321::/var/lib/fix:/usr/sbin/nologin",
                "in:x:103:4::/:/usr/sbin/nologin",
                "other:x:104:104::/:/usr/sbin/nologin",
            ]
        );
        assert_eq!(
            made.group[1..],
            [
                "adm:x:4:tomcat,other",
                "redis:x:101:",
                "alone:x:500:",
                "tomcat:x:102:",
                "fix:x:321:",
                "other:x:104:"
            ]
        );
        assert_eq!(made.shadow[1], "tomcat:!*:::::::");
        assert_eq!(made.gshadow[1], "adm:*::tomcat,other");
        assert_eq!(fixed.into_iter().collect::<Vec<_>>(), ["alone", "fix"]);
    }

    #[test]
    fn what_is_there_and_what_makes_no_sense_changes_nothing() {
        for text in [
            "u redis - -",
            "g adm 4",
            "u a:b - -",
            "u %u -",
            "u",
            "m redis",
            "x y z",
            "u -",
            "m redis a/b",
        ] {
            assert_eq!(applied(text).0, accounts(), "{text}");
        }
        // A number that somebody has is not given again.
        let (made, fixed) = applied("u one 100\ng two 4");
        assert_eq!(made.passwd[2], "one:x:103:103::/:/usr/sbin/nologin");
        assert_eq!(made.group[3..], ["two:x:102:", "one:x:103:"]);
        assert!(fixed.is_empty(), "{fixed:?}");
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_sysusers() {
        crate::testing::fuzz("sysusers", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let lines: Vec<Vec<String>> = text
                .lines()
                .map(super::words)
                .filter(|words| !words.is_empty())
                .collect();
            let mut accounts = super::Accounts::default();
            accounts.apply(&lines);
            for line in accounts.passwd.iter().chain(&accounts.group) {
                assert!(!line.contains('\n') && line.matches(':').count() >= 3, "{line:?}");
            }
        });
    }
}
