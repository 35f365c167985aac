//! The *numbers* of the users and groups that maintainer scripts make.
//!
//! Scripts take the first number that is free, so that each depends on what else is installed, and files in volumes would
//! change hands when a package is added. Here an account's number follows from its name, and it keeps the one that the lock
//! has for it.
//!
//! Invariant: pure; a function of the accounts' names, of those that have a number that nobody chose here, of the lock and of
//! the spec's `users`, which win. Two accounts of one name, a user and its group, have one number where both are made.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::Path;

use super::configured;
use super::error::ImageError;
use crate::configure::{ChosenAccounts, Record};
use crate::digest::Digest;
use crate::spec::{ACCOUNT_NUMBERS, Spanned, User};

/// The users that a spec declares.
type Declared = BTreeMap<String, Spanned<User>>;

/// The number of each account that scripts made in what came of a configure step; `locked` has those of before.
pub fn numbers(
    configured: &Path,
    declared: &Declared,
    locked: &BTreeMap<String, u32>,
) -> Result<BTreeMap<String, u32>, ImageError> {
    let chosen = Record::read(configured)?.accounts;
    if chosen == ChosenAccounts::default() {
        return Ok(BTreeMap::new());
    }
    let files = configured::made_accounts(configured)?;
    let mut taken: BTreeSet<u32> = declared
        .values()
        .flat_map(|user| [user.value.uid, user.value.gid])
        .collect();
    let (passwd, group) = (files.passwd.to_string_lossy(), files.group.to_string_lossy());
    taken.extend(fixed(&passwd, &chosen.users));
    taken.extend(fixed(&group, &chosen.groups));
    let groups: BTreeMap<&str, u32> = accounts(&group).collect();
    let users = chosen.users.keys().filter(|name| !declared.contains_key(*name));
    let own_groups = chosen
        .groups
        .keys()
        .filter(|name| gid_of_spec(name, declared, &groups).is_none());
    let names: BTreeSet<&str> = users.chain(own_groups).map(String::as_str).collect();
    Ok(assign(&names, locked, taken))
}

/// The numbers in a file of accounts that no script chose.
fn fixed(text: &str, chosen: &BTreeMap<String, u32>) -> BTreeSet<u32> {
    let others = accounts(text).filter(|(name, _)| !chosen.contains_key(*name));
    others.map(|(_, number)| number).collect()
}

/// The number of the group that has the name of one of the spec's users: the user's, unless that is another group's.
fn gid_of_spec(name: &str, declared: &Declared, groups: &BTreeMap<&str, u32>) -> Option<u32> {
    let gid = declared.get(name)?.value.gid;
    let is_own = groups.iter().all(|(other, number)| *other == name || *number != gid);
    is_own.then_some(gid)
}

/// A number for each name: the locked one, else the one of its name, else the next that is free.
fn assign(names: &BTreeSet<&str>, locked: &BTreeMap<String, u32>, mut taken: BTreeSet<u32>) -> BTreeMap<String, u32> {
    let mut numbers = BTreeMap::new();
    for name in names {
        if let Some(number) = locked.get(*name)
            && taken.insert(*number)
        {
            numbers.insert((*name).to_owned(), *number);
        }
    }
    for name in names {
        if numbers.contains_key(*name) {
            continue;
        }
        let own = of_name(name);
        let mut candidates = (own..=*ACCOUNT_NUMBERS.end()).chain(*ACCOUNT_NUMBERS.start()..own);
        if let Some(number) = candidates.find(|number| taken.insert(*number)) {
            numbers.insert((*name).to_owned(), number);
        }
    }
    numbers
}

/// The number that a name has where nothing is in its way.
fn of_name(name: &str) -> u32 {
    let range: RangeInclusive<u32> = ACCOUNT_NUMBERS;
    let digest = Digest::of(name.as_bytes());
    let word = u32::from_str_radix(&digest.hex()[..8], 16).expect("a digest begins with eight hexadecimal digits");
    range.start() + word % (range.end() - range.start() + 1)
}

/// What becomes of the numbers that scripts saw.
#[derive(Debug, Default)]
pub(super) struct Renumbering<'a> {
    users: BTreeMap<&'a str, (u32, Option<u32>)>,
    groups: BTreeMap<&'a str, u32>,
    uids: BTreeMap<u32, u32>,
    gids: BTreeMap<u32, u32>,
}

impl<'a> Renumbering<'a> {
    /// For the accounts of `passwd` and `group`, of which scripts made the `chosen` ones.
    pub(super) fn new(
        (passwd, group): (&'a str, &'a str),
        chosen: &ChosenAccounts,
        numbers: &BTreeMap<String, u32>,
        declared: &Declared,
    ) -> Self {
        let mut own = Self::default();
        let all_groups: BTreeMap<&str, u32> = accounts(group).collect();
        for (name, before) in accounts(passwd) {
            let user = declared.get(name).map(|user| &user.value);
            let made = chosen.users.get(name).and_then(|_| numbers.get(name).copied());
            if let Some(now) = user.map(|user| user.uid).or(made) {
                own.users.insert(name, (now, user.map(|user| user.gid)));
                own.uids.entry(before).or_insert(now);
            }
        }
        for (name, before) in &all_groups {
            let made = chosen.groups.get(*name).and_then(|_| numbers.get(*name).copied());
            if let Some(now) = gid_of_spec(name, declared, &all_groups).or(made) {
                own.groups.insert(name, now);
                own.gids.entry(*before).or_insert(now);
            }
        }
        own
    }

    /// Who owns what scripts gave to `uid`.
    pub(super) fn uid(&self, uid: u32) -> u32 {
        self.uids.get(&uid).copied().unwrap_or(uid)
    }

    /// Which group owns what scripts gave to `gid`.
    pub(super) fn gid(&self, gid: u32) -> u32 {
        self.gids.get(&gid).copied().unwrap_or(gid)
    }

    /// `etc/passwd` with the numbers of now, in their order.
    pub(super) fn passwd(&self, text: &str) -> String {
        by_number(text, |fields| {
            let known = self.users.get(fields[0].as_str());
            let gid = fields.get(3).and_then(|field| field.parse().ok());
            if let (Some((uid, _)), Some(field)) = (known, fields.get_mut(2)) {
                *field = uid.to_string();
            }
            let declared = known.and_then(|(_, gid)| *gid);
            if let (Some(gid), Some(field)) = (declared.or(gid.map(|gid| self.gid(gid))), fields.get_mut(3)) {
                *field = gid.to_string();
            }
        })
    }

    /// `etc/group` with the numbers of now, in their order.
    pub(super) fn group(&self, text: &str) -> String {
        by_number(text, |fields| {
            if let (Some(gid), Some(field)) = (self.groups.get(fields[0].as_str()), fields.get_mut(2)) {
                *field = gid.to_string();
            }
        })
    }
}

/// The lines of `etc/shadow` or `etc/gshadow` in the order of those of `etc/passwd` or `etc/group`.
pub(super) fn as_in(accounts: &str, shadow: &str) -> String {
    let places: BTreeMap<&str, usize> = (accounts.lines().enumerate())
        .filter_map(|(index, line)| Some((line.split(':').next()?, index)))
        .collect();
    let mut lines: Vec<&str> = shadow.lines().collect();
    lines.sort_by_key(|line| {
        (
            places
                .get(line.split(':').next().unwrap_or_default())
                .copied()
                .unwrap_or(usize::MAX),
            *line,
        )
    });
    lines.iter().flat_map(|line| [*line, "\n"]).collect()
}

/// Names and numbers of a file of accounts.
fn accounts(text: &str) -> impl Iterator<Item = (&str, u32)> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        Some((fields.next()?, fields.nth(1)?.parse().ok()?))
    })
}

fn by_number(text: &str, mut change: impl FnMut(&mut Vec<String>)) -> String {
    let mut lines: Vec<(u32, String)> = (text.lines())
        .map(|line| {
            let mut fields: Vec<String> = line.split(':').map(str::to_owned).collect();
            change(&mut fields);
            let number = fields.get(2).and_then(|field| field.parse().ok());
            (number.unwrap_or(u32::MAX), fields.join(":"))
        })
        .collect();
    lines.sort();
    lines.into_iter().map(|(_, line)| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0::/root:/bin/sh\nredis:x:100:102::/:/x\nhaproxy:x:101:103::/:/x\nman:x:6:12::/:/x\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:\nssl-cert:x:101:redis\nredis:x:102:\nhaproxy:x:103:\n";

    fn map<const N: usize>(pairs: [(&str, u32); N]) -> BTreeMap<String, u32> {
        pairs.map(|(name, number)| (name.to_owned(), number)).into()
    }

    fn chosen() -> ChosenAccounts {
        ChosenAccounts {
            users: map([("redis", 100), ("haproxy", 101)]),
            groups: map([("redis", 102), ("haproxy", 103), ("ssl-cert", 101)]),
        }
    }

    fn declared(name: &str, uid: u32, gid: u32) -> Declared {
        let (home, shell) = ("/".to_owned(), "/x".to_owned());
        [(name.to_owned(), Spanned::nowhere(User { uid, gid, home, shell }))].into()
    }

    /// The rule by which names have numbers: another would give every file in a volume to somebody else.
    #[test]
    fn a_name_has_its_number() {
        assert_eq!(
            ["redis", "haproxy", "postgres", "ssl-cert"].map(of_name),
            [335, 762, 184, 136]
        );
    }

    #[test]
    fn a_number_stays_whoever_comes() {
        let own = of_name("redis");
        // Two names of which neither has its own number.
        let (first, second) = two_of_one_number();
        let assigned = |names: &[&str], locked: &BTreeMap<String, u32>, taken: &[u32]| {
            assign(
                &names.iter().copied().collect(),
                locked,
                taken.iter().copied().collect(),
            )
        };
        let none = BTreeMap::new();
        assert_eq!(assigned(&["redis"], &none, &[])["redis"], own);
        assert_eq!(assigned(&["redis"], &none, &[own])["redis"], own + 1);
        let alone = assigned(&[&second], &none, &[]);
        let both = assigned(&[&first, &second], &alone, &[]);
        assert_eq!(both[&second], alone[&second], "the lock's stays");
        assert_eq!(both[&first], both[&second] + 1);
        assert_eq!(assigned(&[&first, &second], &both, &[]), both);
        // Nothing that the lock says gives two accounts one number.
        let doubled = map([("a", 500), ("b", 500)]);
        let numbers: BTreeSet<u32> = assigned(&["a", "b"], &doubled, &[]).into_values().collect();
        assert_eq!(numbers.len(), 2);
        let full: Vec<u32> = ACCOUNT_NUMBERS.collect();
        assert_eq!(assigned(&["a"], &none, &full), none);
    }

    /// Two names, in their order, of one number.
    fn two_of_one_number() -> (String, String) {
        let mut seen = BTreeMap::new();
        for index in 0.. {
            let name = format!("user{index:04}");
            let number = of_name(&name);
            if number == *ACCOUNT_NUMBERS.end() {
                continue;
            }
            if let Some(first) = seen.insert(number, name.clone()) {
                return (first, name);
            }
        }
        unreachable!()
    }

    #[test]
    fn files_and_owners_follow() {
        let numbers = map([("redis", 700), ("haproxy", 300), ("ssl-cert", 200)]);
        let renumbering = Renumbering::new((PASSWD, GROUP), &chosen(), &numbers, &BTreeMap::new());
        let passwd = renumbering.passwd(PASSWD);
        assert_eq!(
            passwd,
            "root:x:0:0::/root:/bin/sh\nman:x:6:12::/:/x\nhaproxy:x:300:300::/:/x\nredis:x:700:700::/:/x\n"
        );
        assert_eq!(
            renumbering.group(GROUP),
            "root:x:0:\nusers:x:100:\nssl-cert:x:200:redis\nhaproxy:x:300:\nredis:x:700:\n"
        );
        assert_eq!([0, 100, 101, 33].map(|uid| renumbering.uid(uid)), [0, 700, 300, 33]);
        assert_eq!([100, 101, 102].map(|gid| renumbering.gid(gid)), [100, 200, 700]);
        assert_eq!(
            as_in(&passwd, "haproxy:!::\nredis:!::\nroot:*::\nodd\n"),
            "root:*::\nhaproxy:!::\nredis:!::\nodd\n"
        );
    }

    #[test]
    fn the_users_of_the_spec_win() {
        let numbers = map([("haproxy", 300), ("redis", 700), ("ssl-cert", 200)]);
        let renumber = |declared: &Declared| {
            let renumbering = Renumbering::new((PASSWD, GROUP), &chosen(), &numbers, declared);
            (
                renumbering.passwd(PASSWD),
                renumbering.group(GROUP),
                renumbering.uid(100),
                renumbering.gid(102),
            )
        };
        let (passwd, group, uid, gid) = renumber(&declared("redis", 1000, 1001));
        assert!(passwd.contains("redis:x:1000:1001:"), "{passwd}");
        assert!(group.contains("redis:x:1001:"), "{group}");
        assert_eq!((uid, gid), (1000, 1001));
        // A group that is there already: the user is in it, and its own group stays.
        let (passwd, group, uid, gid) = renumber(&declared("redis", 1000, 0));
        assert!(passwd.contains("redis:x:1000:0:"), "{passwd}");
        assert!(group.contains("redis:x:700:"), "{group}");
        assert_eq!((uid, gid), (1000, 700));
        // One of Debian's own, whom no script made.
        let (passwd, ..) = renumber(&declared("man", 60, 12));
        assert!(passwd.contains("man:x:60:12:"), "{passwd}");
    }
}
