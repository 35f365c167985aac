//! The *files of Python projects* in a lock: `[[python]]`. Requirements have the hashes of a project's files and not their
//! names, so the one that is taken stands here.
//!
//! Invariant: a file's name can be part of a path, and its hash is one that its bytes are compared with.

use crate::digest::FileHash;
use crate::spec::checks::Check;
use crate::spec::keys::Shape::Text;
use crate::spec::keys::{Key, key, required};
use crate::spec::reader::{Field, Reader};
use crate::spec::{LockedPython, PackageName, normal_python_name};

use super::parse::{open, qualified_name, refuse};

/// An entry's keys.
pub(super) const PYTHON: &[Key] = &[
    required(key("package", Text, "Qualified name.")),
    required(key("name", Text, "The project, as names are compared.")),
    required(key("version", Text, "Its version.")),
    required(key("file", Text, "The name of its file.")),
    required(key("hash", Text, "`sha256:` or `sha512:` and hexadecimal digits.")),
];

pub(super) fn read(reader: &mut Reader<'_>, entry: &Field<'_>) -> Option<((PackageName, String), LockedPython)> {
    let table = open(reader, entry, PYTHON)?;
    let package = table.checked(reader, "package", qualified_name);
    let name = table.checked(reader, "name", |text| match normal_python_name(text) == text {
        true => plain(text),
        false => refuse("a project's name is in lower case, with single `-` in it"),
    });
    let version = table.checked(reader, "version", plain);
    let file = table.checked(reader, "file", plain);
    let hash = table.checked(reader, "hash", |text| {
        let (scheme, hex) = text.split_once(':').unwrap_or_default();
        let hash = FileHash::from_hex(scheme, hex).filter(|hash| hash.content().is_some());
        hash.map_or_else(|| refuse("not `sha256:` or `sha512:` and hexadecimal digits"), Ok)
    });
    Some((
        (package?.value, name?.value),
        LockedPython {
            version: version?.value,
            file: file?.value,
            hash: hash?.value,
        },
    ))
}

/// What names of projects, versions and files consist of.
fn plain(text: &str) -> Check<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+!".contains(&byte);
    match text {
        _ if text.len() > 255 => refuse("it is longer than 255 bytes"),
        _ if text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.bytes().all(allowed) => Ok(text.to_owned()),
        _ => refuse("letters, digits, `-`, `_`, `.`, `+` and `!`, with a letter or digit first"),
    }
}
