//! The directories that an init makes at *boot*, from packages' data: a container has no init that would.
//!
//! Invariant: pure but for reading the packages' files; what names an account that the image does not have, or holds a
//! specifier (`%i`), is left out. Read are lines of types `d` and `D` in tmpfiles.d(5), and `RuntimeDirectory=` and its kin in
//! units (systemd.exec(5)).

use std::collections::BTreeMap;
use std::path::Path;

use super::ConfigureError;
use super::record::{Entry, Maker};
use crate::fsio::{self, sorted_names};

/// Largest unit or list of directories, in bytes.
const TEXT_MAX: u64 = 1 << 20;

/// The mode of directories for which none is given.
const MODE: u32 = 0o755;

/// Directories of a unit: the key, what they are below, and the key of their mode.
const OF_UNITS: [(&str, &str, &str); 5] = [
    ("RuntimeDirectory", "run", "RuntimeDirectoryMode"),
    ("StateDirectory", "var/lib", "StateDirectoryMode"),
    ("CacheDirectory", "var/cache", "CacheDirectoryMode"),
    ("LogsDirectory", "var/log", "LogsDirectoryMode"),
    ("ConfigurationDirectory", "etc", "ConfigurationDirectoryMode"),
];

/// Numbers by names, of users (with their group's) and of groups.
pub struct SystemAccounts {
    users: BTreeMap<String, (u32, u32)>,
    groups: BTreeMap<String, u32>,
}

impl SystemAccounts {
    /// Those of these users, with their numbers and their groups', and of these groups.
    pub fn new(users: BTreeMap<String, (u32, u32)>, groups: BTreeMap<String, u32>) -> Self {
        Self { users, groups }
    }

    /// Those of `etc/passwd` and `etc/group`.
    pub(super) fn parse(passwd: &str, group: &str) -> Self {
        let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
        let user = |line| {
            let fields = fields(line);
            Some((
                fields.first()?.clone(),
                (fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?),
            ))
        };
        let group_of = |line| {
            let fields = fields(line);
            Some((fields.first()?.clone(), fields.get(2)?.parse().ok()?))
        };
        Self {
            users: passwd.lines().filter_map(user).collect(),
            groups: group.lines().filter_map(group_of).collect(),
        }
    }

    fn user(&self, name: &str) -> Option<(u32, u32)> {
        match name.parse() {
            Ok(number) => Some((number, 0)),
            Err(_) => self.users.get(name).copied(),
        }
    }

    fn group(&self, name: &str) -> Option<u32> {
        name.parse().ok().or_else(|| self.groups.get(name).copied())
    }
}

/// The directories that packages want at boot, by path relative to `/`. Of each package the name and where its tree is.
pub fn directories(
    packages: &[(&str, &Path)],
    accounts: &SystemAccounts,
) -> Result<BTreeMap<String, Entry>, ConfigureError> {
    let mut found = BTreeMap::new();
    for &(name, tree) in packages {
        let mut add = |(path, mode, (uid, gid)): (String, u32, (u32, u32))| {
            let entry = found.entry(path).or_insert_with(|| Entry {
                mode,
                uid,
                gid,
                maker: Maker::Init,
                ..Entry::default()
            });
            entry.by.insert(name.to_owned());
        };
        for text in texts(&tree.join("usr/lib/tmpfiles.d"), ".conf")? {
            text.lines()
                .filter_map(|line| of_line(line, accounts))
                .for_each(&mut add);
        }
        for text in texts(&tree.join("usr/lib/systemd/system"), ".service")? {
            of_unit(&text, accounts).into_iter().for_each(&mut add);
        }
    }
    Ok(found)
}

pub(super) fn texts(dir: &Path, ending: &str) -> Result<Vec<String>, ConfigureError> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut texts = Vec::new();
    for name in sorted_names(dir)? {
        let path = dir.join(&name);
        // A template (`x@.service`) is none of a service.
        let is_one = name
            .to_str()
            .is_some_and(|name| name.ends_with(ending) && !name.contains("@."));
        if is_one && path.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
            texts.push(String::from_utf8_lossy(&fsio::read_limited(&path, TEXT_MAX)?).into_owned());
        }
    }
    Ok(texts)
}

/// `d /run/haproxy 2775 haproxy haproxy -`.
fn of_line(line: &str, accounts: &SystemAccounts) -> Option<(String, u32, (u32, u32))> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (kind, path) = (words.first()?, words.get(1)?);
    if !matches!(kind.trim_end_matches(['!', '-', '=', '~', '^', '$']), "d" | "D") {
        return None;
    }
    let field = |index: usize| words.get(index).copied().filter(|word| *word != "-");
    let mode = match field(2) {
        None => MODE,
        Some(text) => mode(text.trim_start_matches(['~', ':']))?,
    };
    let uid = field(3).map_or(Some(0), |name| {
        accounts.user(name.trim_start_matches(':')).map(|(uid, _)| uid)
    })?;
    let gid = field(4).map_or(Some(0), |name| accounts.group(name.trim_start_matches(':')))?;
    Some((place(path)?, mode, (uid, gid)))
}

fn of_unit(text: &str, accounts: &SystemAccounts) -> Vec<(String, u32, (u32, u32))> {
    let value = |key: &str| {
        let lines = text.lines().filter_map(|line| line.split_once('='));
        lines
            .filter(|(name, _)| name.trim() == key)
            .map(|(_, value)| value.trim())
            .next_back()
    };
    let user = value("User").map_or(Some((0, 0)), |name| accounts.user(name));
    let Some((uid, of_user)) = user else { return Vec::new() };
    let Some(gid) = value("Group").map_or(Some(of_user), |name| accounts.group(name)) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (key, below, mode_key) in OF_UNITS {
        let mode = value(mode_key).and_then(mode);
        // The configuration is the administrator's whoever the service is.
        let owner = if below == "etc" { (0, 0) } else { (uid, gid) };
        for name in value(key).unwrap_or_default().split_whitespace() {
            let name = name.split(':').next().unwrap_or_default();
            found.extend(place(&format!("/{below}/{name}")).map(|path| (path, mode.unwrap_or(MODE), owner)));
        }
    }
    found
}

/// A mode in octal digits; systemd takes none above 7777.
fn mode(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777)
}

/// A path relative to `/` that is normal and holds no specifier; what is below `/var/run` is below `/run`.
fn place(path: &str) -> Option<String> {
    let below = path.strip_prefix('/')?.trim_end_matches('/');
    let below = below
        .strip_prefix("var/")
        .filter(|rest| rest.starts_with("run/"))
        .unwrap_or(below);
    let is_normal = below.split('/').all(|part| !matches!(part, "" | "." | ".."));
    // Nothing is made where a container's engine mounts something.
    let is_mounted = ["dev", "proc", "sys", "tmp"].contains(&below.split('/').next().unwrap_or_default());
    (is_normal && !is_mounted && !below.contains('%')).then(|| below.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> SystemAccounts {
        SystemAccounts::parse(
            "root:x:0:0::/:\nhaproxy:x:100:101::/:\n",
            "root:x:0:\nhaproxy:x:101:\nadm:x:4:\n",
        )
    }

    #[test]
    fn lines_of_directories_are_read_and_others_are_not() {
        for (line, expected) in [
            (
                "d /run/haproxy 2775 haproxy haproxy -",
                Some(("run/haproxy", 0o2775, (100, 101))),
            ),
            ("D! /var/run/x/ - - adm", Some(("run/x", 0o755, (0, 4)))),
            ("d /run/user/%U 0700", None),
            ("d /run/other 0755 nobody-here root", None),
            ("d /dev/net 0755", None),
            ("d /run/../etc 0755", None),
            ("f /run/utmp 0664 root utmp", None),
            ("# d /run/x", None),
            ("", None),
        ] {
            let expected = expected.map(|(path, mode, owner): (&str, _, _)| (path.to_owned(), mode, owner));
            assert_eq!(of_line(line, &accounts()), expected, "{line}");
        }
    }

    #[test]
    fn directories_of_a_unit_are_its_users() {
        let unit = "[Service]\nUser=haproxy\nRuntimeDirectory=a b/c\nRuntimeDirectoryMode=0750\nStateDirectory=d:link\n\
                    ConfigurationDirectory=e\n";
        assert_eq!(
            of_unit(unit, &accounts()),
            [
                ("run/a".to_owned(), 0o750, (100, 101)),
                ("run/b/c".to_owned(), 0o750, (100, 101)),
                ("var/lib/d".to_owned(), 0o755, (100, 101)),
                ("etc/e".to_owned(), 0o755, (0, 0)),
            ]
        );
        assert_eq!(
            of_unit("[Service]\nUser=nobody-here\nRuntimeDirectory=a\n", &accounts()),
            []
        );
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_boot() {
        crate::testing::fuzz("boot", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let accounts = super::SystemAccounts::parse(&text, &text);
            let found = text.lines().filter_map(|line| super::of_line(line, &accounts));
            for (path, mode, _) in found.chain(super::of_unit(&text, &accounts)) {
                let is_normal = |part: &str| !matches!(part, "" | "." | "..");
                assert!(path.split('/').all(is_normal) && mode <= 0o7777, "{path} {mode:o}");
            }
        });
    }
}
