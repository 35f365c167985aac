//! *Accounts* are the users and groups of an image: `etc/passwd` and `etc/group`.
//!
//! Invariant: a function of the spec (and of the `etc/passwd` that it brings, if it does): sorted by number, then name.
//! No password is ever set: every line has `x` and there is no `etc/shadow`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Serialize, Serializer};

use super::base::ID_MAX;
use super::error::ImageError;
use crate::configure::SystemAccounts;
use crate::spec::{self, Spanned};

/// What every image has: the administrator and the user without rights, as Debian numbers them.
const MINIMAL: &[Base] = &[
    ("root", 0, 0, "/root", "/bin/sh"),
    ("nobody", 65534, 65534, "/nonexistent", NOLOGIN),
];
const MINIMAL_GROUPS: &[(&str, u32)] = &[("root", 0), ("nogroup", 65534)];

/// Debian's static users (package base-passwd), which its packages take for granted; in images with a `root`.
const DEBIAN: &[Base] = &[
    ("daemon", 1, 1, "/usr/sbin", NOLOGIN),
    ("bin", 2, 2, "/bin", NOLOGIN),
    ("sys", 3, 3, "/dev", NOLOGIN),
    ("sync", 4, 65534, "/bin", "/bin/sync"),
    ("games", 5, 60, "/usr/games", NOLOGIN),
    ("man", 6, 12, "/var/cache/man", NOLOGIN),
    ("lp", 7, 7, "/var/spool/lpd", NOLOGIN),
    ("mail", 8, 8, "/var/mail", NOLOGIN),
    ("news", 9, 9, "/var/spool/news", NOLOGIN),
    ("uucp", 10, 10, "/var/spool/uucp", NOLOGIN),
    ("proxy", 13, 13, "/bin", NOLOGIN),
    ("www-data", 33, 33, "/var/www", NOLOGIN),
    ("backup", 34, 34, "/var/backups", NOLOGIN),
    ("list", 38, 38, "/var/list", NOLOGIN),
    ("irc", 39, 39, "/run/ircd", NOLOGIN),
    ("_apt", 42, 65534, "/nonexistent", NOLOGIN),
];
const DEBIAN_GROUPS: &[(&str, u32)] = &[
    ("daemon", 1),
    ("bin", 2),
    ("sys", 3),
    ("adm", 4),
    ("tty", 5),
    ("disk", 6),
    ("lp", 7),
    ("mail", 8),
    ("news", 9),
    ("uucp", 10),
    ("man", 12),
    ("proxy", 13),
    ("kmem", 15),
    ("dialout", 20),
    ("fax", 21),
    ("voice", 22),
    ("cdrom", 24),
    ("floppy", 25),
    ("tape", 26),
    ("sudo", 27),
    ("audio", 29),
    ("dip", 30),
    ("www-data", 33),
    ("backup", 34),
    ("operator", 37),
    ("list", 38),
    ("irc", 39),
    ("src", 40),
    ("shadow", 42),
    ("utmp", 43),
    ("video", 44),
    ("sasl", 45),
    ("plugdev", 46),
    ("staff", 50),
    ("games", 60),
    ("users", 100),
];

/// Why a number is no user or group ID.
pub(super) const ID_REASON: &str = "Docker starts no container with a user or group ID above 2147483647";

const NOLOGIN: &str = "/usr/sbin/nologin";

/// Name, user ID, group ID, home, shell.
type Base = (&'static str, u32, u32, &'static str, &'static str);

/// The image's users and groups by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Accounts {
    users: BTreeMap<String, PasswdEntry>,
    groups: BTreeMap<String, u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct PasswdEntry {
    uid: u32,
    gid: u32,
    home: String,
    shell: String,
}

/// `/etc/passwd` and `/etc/group` as they are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccountFiles {
    /// `/etc/passwd`; empty where there is none.
    pub passwd: AccountFile,
    /// `/etc/group`; empty where there is none.
    pub group: AccountFile,
}

/// A pair of texts.
impl Serialize for AccountFiles {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.passwd, &self.group).serialize(serializer)
    }
}

/// A file of lines, whose bytes stay what they are: old names and comments need not be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AccountFile(pub Vec<u8>);

impl AccountFile {
    pub(super) fn to_string_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    fn whole_lines(&self) -> Vec<u8> {
        let mut bytes = self.0.clone();
        if bytes.last().is_some_and(|&last| last != b'\n') {
            bytes.push(b'\n');
        }
        bytes
    }
}

/// A text where it is one, else its bytes.
impl Serialize for AccountFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.collect_seq(&self.0),
        }
    }
}

impl Accounts {
    /// The base accounts, Debian's too where `debian`, and the spec's, which replace base ones of the same name.
    ///
    /// A user's group is the one that has its group ID; where none has, one of the user's name is made.
    pub fn new(declared: &BTreeMap<String, Spanned<spec::User>>, debian: bool) -> Result<Self, ImageError> {
        let mut accounts = Self {
            users: MINIMAL.iter().map(from_base).collect(),
            groups: MINIMAL_GROUPS.iter().map(own_name).collect(),
        };
        if debian {
            accounts.users.extend(DEBIAN.iter().map(from_base));
            accounts.groups.extend(DEBIAN_GROUPS.iter().map(own_name));
        }
        let mut uids = BTreeMap::new();
        for (name, user) in declared.iter().map(|(name, user)| (name, &user.value)) {
            check_user(name, user)?;
            if let Some(first) = uids.insert(user.uid, name) {
                return Err(ImageError::SameUid {
                    first: first.clone(),
                    second: name.clone(),
                    uid: user.uid,
                });
            }
            accounts.add(name, user);
        }
        Ok(accounts)
    }

    fn add(&mut self, name: &str, user: &spec::User) {
        self.users.insert(
            name.to_owned(),
            PasswdEntry {
                uid: user.uid,
                gid: user.gid,
                home: user.home.clone(),
                shell: user.shell.clone(),
            },
        );
        if !self.groups.values().any(|&gid| gid == user.gid) {
            self.groups.insert(name.to_owned(), user.gid);
        }
    }

    /// Reads the accounts of an image that brings its own `etc/passwd` and `etc/group`; malformed lines are skipped,
    /// as the C library does, and so are bytes that are not UTF-8, which no name in a spec has.
    pub fn read(files: &AccountFiles) -> Self {
        let (passwd, group) = (files.passwd.to_string_lossy(), files.group.to_string_lossy());
        Self::from_text(&passwd, &group)
    }

    fn from_text(passwd: &str, group: &str) -> Self {
        let users = passwd.lines().filter_map(|line| {
            let fields: Vec<_> = line.split(':').collect();
            let [name, _, uid, gid, _, home, shell] = fields[..] else {
                return None;
            };
            let user = PasswdEntry {
                uid: uid.parse().ok()?,
                gid: gid.parse().ok()?,
                home: home.to_owned(),
                shell: shell.to_owned(),
            };
            Some((name.to_owned(), user))
        });
        let groups = group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            Some((fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?))
        });
        Self {
            users: users.collect(),
            groups: groups.collect(),
        }
    }

    /// User ID of a name or number.
    pub fn uid(&self, owner: &str) -> Option<u32> {
        id(owner).or_else(|| self.users.get(owner).map(|user| user.uid))
    }

    /// Group ID of a name or number.
    pub fn gid(&self, group: &str) -> Option<u32> {
        id(group).or_else(|| self.groups.get(group).copied())
    }

    /// Their numbers, for what packages say of directories.
    pub fn system(&self) -> SystemAccounts {
        let users = self.users.iter();
        SystemAccounts::new(
            users.map(|(name, user)| (name.clone(), (user.uid, user.gid))).collect(),
            self.groups.clone(),
        )
    }

    /// The users' names, for advice.
    pub fn user_names(&self) -> impl Iterator<Item = &str> {
        self.users.keys().map(String::as_str)
    }

    /// The groups' names, for advice.
    pub fn group_names(&self) -> impl Iterator<Item = &str> {
        self.groups.keys().map(String::as_str)
    }

    /// Both files.
    pub fn files(&self) -> AccountFiles {
        AccountFiles {
            passwd: AccountFile(self.passwd().into_bytes()),
            group: AccountFile(self.group().into_bytes()),
        }
    }

    /// The text of `etc/passwd` (passwd(5)).
    pub fn passwd(&self) -> String {
        let lines: BTreeSet<_> = self
            .users
            .iter()
            .map(|(name, user)| (user.uid, name, user))
            .map(sortable)
            .collect();
        lines
            .into_iter()
            .map(|(uid, name, gid, home, shell)| format!("{name}:x:{uid}:{gid}:{name}:{home}:{shell}\n"))
            .collect()
    }

    /// The text of `etc/group` (group(5)).
    pub fn group(&self) -> String {
        let lines: BTreeSet<_> = self.groups.iter().map(|(name, gid)| (*gid, name)).collect();
        lines
            .into_iter()
            .map(|(gid, name)| format!("{name}:x:{gid}:\n"))
            .collect()
    }
}

/// `etc/passwd` and `etc/group` of an image over a base: the base's as they are, and a line for each declared user and
/// group that they do not have. A base without accounts is taken to have those of every image.
pub(super) fn over_base(
    declared: &BTreeMap<String, Spanned<spec::User>>,
    base: &AccountFiles,
) -> Result<AccountFiles, ImageError> {
    let new = Accounts::new(declared, false)?;
    if *base == AccountFiles::default() {
        return Ok(new.files());
    }
    let present = Accounts::read(base);
    let mut added_groups = BTreeSet::new();
    let (mut passwd, mut group) = (base.passwd.whole_lines(), base.group.whole_lines());
    for (name, user) in declared.iter().map(|(name, user)| (name, &user.value)) {
        match present.users.get(name) {
            Some(found) if (found.uid, found.gid) == (user.uid, user.gid) => continue,
            Some(found) => {
                return Err(ImageError::BaseAccount {
                    name: name.clone(),
                    uid: found.uid,
                });
            }
            None => {}
        }
        if let Some((first, _)) = present.users.iter().find(|(_, found)| found.uid == user.uid) {
            return Err(ImageError::SameUid {
                first: first.clone(),
                second: name.clone(),
                uid: user.uid,
            });
        }
        let spec::User { uid, gid, home, shell } = user;
        passwd.extend(format!("{name}:x:{uid}:{gid}:{name}:{home}:{shell}\n").into_bytes());
        let has_group = |groups: &BTreeMap<String, u32>| groups.values().any(|found| found == gid);
        if !has_group(&present.groups) && added_groups.insert(*gid) {
            group.extend(format!("{name}:x:{gid}:\n").into_bytes());
        }
    }
    Ok(AccountFiles {
        passwd: AccountFile(passwd),
        group: AccountFile(group),
    })
}

fn sortable<'a>((uid, name, user): (u32, &'a String, &'a PasswdEntry)) -> (u32, &'a str, u32, &'a str, &'a str) {
    (uid, name, user.gid, &user.home, &user.shell)
}

fn from_base(&(name, uid, gid, home, shell): &Base) -> (String, PasswdEntry) {
    let user = PasswdEntry {
        uid,
        gid,
        home: home.to_owned(),
        shell: shell.to_owned(),
    };
    (name.to_owned(), user)
}

fn own_name(&(name, gid): &(&str, u32)) -> (String, u32) {
    (name.to_owned(), gid)
}

/// A user or group ID in decimal digits that a container can have.
fn id(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?.filter(|&id| id <= ID_MAX)
}

/// What cannot stand in a line of passwd(5).
fn check_user(name: &str, user: &spec::User) -> Result<(), ImageError> {
    let first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let rest = |byte: u8| first(byte) || byte.is_ascii_digit() || b".-".contains(&byte);
    let bytes = name.as_bytes();
    let name_is_fine =
        bytes.first().is_some_and(|&byte| first(byte)) && bytes.iter().all(|&byte| rest(byte)) && bytes.len() <= 32;
    let path_is_fine = |path: &str| path.starts_with('/') && !path.contains([':', '\n', '\0']);
    let reason = if !name_is_fine {
        "a user's name is 1 to 32 of letters, digits, `_`, `.` and `-`, and starts with a letter or `_`"
    } else if !path_is_fine(&user.home) {
        "its home must be an absolute path without `:`"
    } else if !path_is_fine(&user.shell) {
        "its shell must be an absolute path without `:`"
    } else if user.uid > ID_MAX || user.gid > ID_MAX {
        ID_REASON
    } else {
        return Ok(());
    };
    Err(ImageError::User {
        name: name.to_owned(),
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(uid: u32, gid: u32) -> Spanned<spec::User> {
        let value = spec::User {
            uid,
            gid,
            home: "/home/x".to_owned(),
            shell: "/bin/sh".to_owned(),
        };
        let span = spec::Span { file: 0, range: 0..0 };
        Spanned { value, span }
    }

    fn declared(users: &[(&str, u32, u32)]) -> BTreeMap<String, Spanned<spec::User>> {
        users
            .iter()
            .map(|&(name, uid, gid)| (name.to_owned(), user(uid, gid)))
            .collect()
    }

    #[test]
    fn the_base_is_small_without_debian_packages() {
        let accounts = Accounts::new(&BTreeMap::new(), false).unwrap();
        assert_eq!(
            accounts.passwd(),
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
        );
        assert_eq!(accounts.group(), "root:x:0:\nnogroup:x:65534:\n");
    }

    #[test]
    fn declared_users_come_in_order_of_their_numbers_and_get_a_group() {
        let accounts = Accounts::new(&declared(&[("zed", 7, 7), ("app", 1000, 1000), ("www", 999, 33)]), true).unwrap();
        let passwd = accounts.passwd();
        let names: Vec<_> = passwd.lines().map(|line| line.split(':').next().unwrap()).collect();
        assert_eq!(names[7..9], ["lp", "zed"]);
        assert_eq!(names[names.len() - 3..], ["www", "app", "nobody"]);
        assert_eq!(accounts.gid("app"), Some(1000));
        assert_eq!(accounts.gid("www"), None, "group 33 is www-data's");
        assert_eq!(accounts.uid("www-data"), Some(33));
        assert_eq!(accounts.uid("4242"), Some(4242));
        assert_eq!(accounts.uid("2147483647"), Some(2_147_483_647));
        assert_eq!(accounts.uid("2147483648"), None, "Docker's limit");
        assert_eq!(Accounts::from_text(&passwd, &accounts.group()), accounts);
    }

    #[test]
    fn bad_users_are_refused() {
        for name in ["", "a:b", "a b", "1a", "-a", "a\n", &"a".repeat(33)] {
            assert!(matches!(
                Accounts::new(&declared(&[(name, 1, 1)]), false),
                Err(ImageError::User { .. })
            ));
        }
        let mut users = declared(&[("a", 1, 1)]);
        users.get_mut("a").unwrap().value.home = "/a:b".to_owned();
        assert!(matches!(Accounts::new(&users, false), Err(ImageError::User { .. })));
        let error = Accounts::new(&declared(&[("a", 5, 5), ("b", 5, 6)]), false).unwrap_err();
        assert_eq!(error.to_string(), "users `a` and `b` both have the user ID 5");
    }

    #[test]
    fn malformed_lines_of_foreign_files_are_skipped() {
        let accounts = Accounts::from_text("root:x:0:0:r:/:/bin/sh\nbad\na:x:x:0:::\n", "g:x:5:\nbad\n:\n");
        assert_eq!(accounts.user_names().collect::<Vec<_>>(), ["root"]);
        assert_eq!(accounts.group_names().collect::<Vec<_>>(), ["g"]);
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_accounts() {
        crate::testing::fuzz("accounts", |bytes| {
            let at = bytes.windows(2).position(|two| two == b"\n\n").unwrap_or(bytes.len());
            let (passwd, group) = bytes.split_at(at);
            let files = super::AccountFiles {
                passwd: super::AccountFile(passwd.to_vec()),
                group: super::AccountFile(group.to_vec()),
            };
            let accounts = super::Accounts::read(&files);
            let _ = (
                accounts.passwd(),
                accounts.group(),
                accounts.uid("root"),
                accounts.gid("0"),
            );
            let _ = super::over_base(&super::BTreeMap::new(), &files);
        });
    }
}
