//! *Archives* in a lock's text: a table for each, and a name by which packages refer to it.
//!
//! Invariant: a name is a function of all archives that are listed together, so that one lock has one text; what was read
//! holds nothing that could do harm in the address of a snapshot.

use std::collections::{BTreeMap, BTreeSet};

use crate::spec::LockedArchive;
use crate::spec::checks::Check;
use crate::spec::diagnostics::Diagnostic;
use crate::spec::keys::Shape::Text;
use crate::spec::keys::{Key, key, required};
use crate::spec::reader::{Field, Reader, Table};

use super::parse::{open, refuse};

pub(super) const ARCHIVE: &[Key] = &[
    required(key("name", Text, "What packages call it here.")),
    required(key("origin", Text, "`Origin` of its Release file.")),
    required(key("label", Text, "`Label` of its Release file.")),
    required(key("suite", Text, "Codename of its suite.")),
    required(key("component", Text, "`main`, or empty.")),
    required(key("date", Text, "`Date` of its Release file: `20261126T210335Z`.")),
];

/// Longest text of a field, in bytes.
const TEXT_MAX: usize = 128;

/// A name for each archive, in order: `SUITE/COMPONENT@DATE`, with `#2` and so on after it where several have that.
pub(super) fn names(archives: BTreeSet<&LockedArchive>) -> Vec<(&LockedArchive, String)> {
    let mut taken: BTreeMap<String, usize> = BTreeMap::new();
    let mut names = Vec::new();
    for archive in archives {
        let separator = if archive.component.is_empty() { "" } else { "/" };
        let name = format!("{}{separator}{}@{}", archive.suite, archive.component, archive.date);
        let count = taken.entry(name.clone()).or_default();
        *count += 1;
        match count {
            1 => names.push((archive, name)),
            count => names.push((archive, format!("{name}#{count}"))),
        }
    }
    names
}

/// Reads an archive's table.
pub(super) fn read(reader: &mut Reader<'_>, entry: &Field<'_>) -> Option<(String, LockedArchive)> {
    let table = open(reader, entry, ARCHIVE)?;
    let name = table.checked(reader, "name", plain);
    let origin = table.checked(reader, "origin", plain);
    let label = table.checked(reader, "label", plain);
    let suite = table.checked(reader, "suite", path);
    let component = table.checked(reader, "component", path);
    let date = table.checked(reader, "date", date);
    Some((
        name?.value,
        LockedArchive {
            origin: origin?.value,
            label: label?.value,
            suite: suite?.value,
            component: component?.value,
            date: date?.value,
        },
    ))
}

/// The archive that an entry's optional key `archive` names.
pub(super) fn of_entry(
    reader: &mut Reader<'_>,
    table: &Table<'_>,
    archives: &BTreeMap<String, LockedArchive>,
) -> Option<LockedArchive> {
    let name = table.checked(reader, "archive", plain)?;
    let archive = archives.get(&name.value);
    if archive.is_none() {
        let diagnostic = Diagnostic::new(format!("`{}` is not among the archives of the lock", name.value))
            .at(name.span, "not there")
            .help("run `layerize lock --update` to regenerate the lock");
        reader.error(diagnostic);
    }
    archive.cloned()
}

fn plain(text: &str) -> Check<String> {
    match text {
        _ if text.len() > TEXT_MAX => refuse("it is longer than 128 bytes"),
        _ if text.chars().any(char::is_control) => refuse("it contains a control character"),
        _ => Ok(text.to_owned()),
    }
}

fn path(text: &str) -> Check<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._~/".contains(&byte);
    match text.bytes().all(allowed) {
        true if text.split('/').any(|part| part == "..") => refuse("`..` is not allowed"),
        true => plain(text),
        false => refuse("only letters, digits and `+ - . _ ~ /` are allowed"),
    }
}

fn date(text: &str) -> Check<String> {
    match LockedArchive::is_date(text) {
        true => Ok(text.to_owned()),
        false => refuse("it must be a time like `20261126T210335Z`"),
    }
}
