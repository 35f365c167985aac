//! The *user of a container*: who an image's `user` is, by the image's own accounts.
//!
//! Invariant: names and numbers mean what they mean to Docker, which reads the image's own `/etc/passwd` and `/etc/group`.

use super::ContainerError;
use crate::sandbox::Identity;

/// A user with what follows from that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) identity: Identity,
    pub(super) home: String,
}

/// One line of `/etc/passwd`.
struct User<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// One line of `/etc/group`.
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn users(passwd: &str) -> impl Iterator<Item = User<'_>> {
    passwd.lines().filter_map(|line| {
        let fields: Vec<&str> = line.trim().split(':').collect();
        let [name, _, uid, gid, ..] = fields[..] else {
            return None;
        };
        Some(User {
            name,
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            home: fields.get(5).copied().unwrap_or_default(),
        })
    })
}

fn groups(group: &str) -> impl Iterator<Item = Group<'_>> {
    group.lines().filter_map(|line| {
        let fields: Vec<&str> = line.trim().split(':').collect();
        let [name, _, gid, ..] = fields[..] else { return None };
        Some(Group {
            name,
            gid: gid.parse().ok()?,
            members: fields.get(3).copied().unwrap_or_default(),
        })
    })
}

impl Account {
    /// Who `user[:group]` is; an empty text is root.
    pub(super) fn find(text: &str, passwd: &str, group: &str) -> Result<Self, ContainerError> {
        let (user, own_group) = match text.split_once(':') {
            Some((user, own_group)) => (user, own_group),
            None => (text, ""),
        };
        let number: Option<u32> = if user.is_empty() { Some(0) } else { user.parse().ok() };
        let entry = users(passwd).find(|entry| entry.name == user || Some(entry.uid) == number);
        let no_account = |what, name: &str, file| ContainerError::NoAccount {
            what,
            name: name.to_owned(),
            file,
        };
        let (name, uid, mut gid, home) = match (&entry, number) {
            (Some(entry), _) => (entry.name, entry.uid, entry.gid, entry.home),
            (None, Some(uid)) => ("", uid, 0, ""),
            (None, None) => return Err(no_account("user", user, "/etc/passwd")),
        };
        let mut members = Vec::new();
        if own_group.is_empty() {
            let is_member =
                |entry: &Group<'_>| !name.is_empty() && entry.members.split(',').any(|member| member == name);
            members.extend(groups(group).filter(is_member).map(|entry| entry.gid));
        } else {
            let number = own_group.parse().ok();
            let entry = groups(group).find(|entry| entry.name == own_group || Some(entry.gid) == number);
            let found = entry.map(|entry| entry.gid).or(number);
            gid = found.ok_or_else(|| no_account("group", own_group, "/etc/group"))?;
        }
        members.retain(|member| *member != gid);
        members.insert(0, gid);
        Ok(Self {
            identity: Identity {
                uid,
                gid,
                groups: members,
            },
            home: if home.is_empty() { "/" } else { home }.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\n# no account\nweb:x:33:33::/var/www:\napp:x:1000:1000::/app:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nadm:x:4:app,web\nweb:x:33:app\napp:x:1000:app\n";

    #[test]
    fn users_and_groups_are_found_by_name_and_number() {
        for (text, uid, groups, home) in [
            ("", 0, &[0][..], "/root"),
            ("root", 0, &[0], "/root"),
            ("app", 1000, &[1000, 4, 33], "/app"),
            ("1000", 1000, &[1000, 4, 33], "/app"),
            ("app:web", 1000, &[33], "/app"),
            ("app:7", 1000, &[7], "/app"),
            ("4242", 4242, &[0], "/"),
            ("4242:4", 4242, &[4], "/"),
        ] {
            let account = Account::find(text, PASSWD, GROUP).unwrap();
            let found = (
                account.identity.uid,
                &account.identity.groups[..],
                account.home.as_str(),
            );
            assert_eq!(found, (uid, groups, home), "{text}");
            assert_eq!(account.identity.gid, groups[0], "{text}");
        }
        for text in ["nobody", "app:nobody", ":nobody"] {
            assert!(Account::find(text, PASSWD, GROUP).is_err(), "{text}");
        }
    }
}
