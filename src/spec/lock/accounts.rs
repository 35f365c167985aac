//! The *numbers of accounts* in a lock: those of users and groups that maintainer scripts made, `[[account]]`.
//!
//! Names are known when the scripts have run, which is after a lock is written, so a build adds what is missing; `--locked`
//! adds nothing and needs nothing, as a number follows from the name (see `image::numbers`). What is recorded stays: two names
//! of which one has to give way keep their numbers, whichever is removed or added.
//!
//! Invariant: no number is that of a user whom somebody may rely on: root's or another of Debian's own.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::spec::checks::{self, Check};
use crate::spec::keys::Shape::{Count, Text};
use crate::spec::keys::{Key, key, required};
use crate::spec::reader::{Field, Reader};

use super::Lock;
use super::parse::{named, open, refuse};

/// The numbers that accounts of maintainer scripts have: Debian's for users of the system, but for 100, which its group
/// `users` has.
pub const ACCOUNT_NUMBERS: RangeInclusive<u32> = 101..=999;

/// The longest name of an account, in bytes (useradd(8)).
const NAME_SIZE_MAX: usize = 32;

/// An entry's keys.
pub(super) const ACCOUNT: &[Key] = &[
    required(key("image", Text, "The image that has it.")),
    required(key("name", Text, "Name of the user, the group or both.")),
    required(key(
        "number",
        Count(*ACCOUNT_NUMBERS.start() as i64, *ACCOUNT_NUMBERS.end() as i64),
        "User and group ID.",
    )),
];

pub(super) fn read(reader: &mut Reader<'_>, entry: &Field<'_>) -> Option<((String, String), u32)> {
    let table = open(reader, entry, ACCOUNT)?;
    let image = table.checked(reader, "image", named(checks::image_name));
    let name = table.checked(reader, "name", account_name);
    let (start, end) = (*ACCOUNT_NUMBERS.start(), *ACCOUNT_NUMBERS.end());
    let number = reader.integer(&table.get("number")?, start.into(), end.into());
    Some(((image?.value, name?.value), u32::try_from(number?).ok()?))
}

/// What can stand in a line of passwd(5): packages have names (`Debian-exim`) that no spec's user may have.
fn account_name(text: &str) -> Check<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-$".contains(&byte);
    match text {
        _ if text.is_empty() || text.starts_with('-') || !text.bytes().all(allowed) => refuse("not an account's name"),
        _ if text.len() > NAME_SIZE_MAX => refuse("it is longer than 32 bytes"),
        _ => Ok(text.to_owned()),
    }
}

impl Lock {
    /// The numbers of an image's accounts by their names.
    pub fn numbers_of(&self, image: &str) -> BTreeMap<String, u32> {
        let entries = self.accounts.iter().filter(|((of, _), _)| of == image);
        entries.map(|((_, name), number)| (name.clone(), *number)).collect()
    }
}
