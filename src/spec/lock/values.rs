//! The *values* of a lock that Debian's rules or a mirror's paths decide.
//!
//! Invariant: what passes can be part of a path below a mirror, and leads nowhere else.

use crate::spec::checks::{self, Check};

use super::parse::refuse;

/// A Debian version (Debian policy §5.6.12): `[epoch:]upstream[-revision]`.
pub(super) fn debian_version(text: &str) -> Check<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".+~:-".contains(&byte);
    match text.as_bytes() {
        [] => refuse("it is empty"),
        bytes if bytes.len() > 128 => refuse("it is longer than 128 bytes"),
        bytes if !bytes.iter().all(|&byte| allowed(byte)) => refuse("not a Debian version"),
        [first, ..] if !first.is_ascii_alphanumeric() => refuse("not a Debian version"),
        _ => Ok(text.to_owned()),
    }
}

/// A path below a mirror: relative, without `..`, without a host.
pub(super) fn pool_path(text: &str) -> Check<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+-._~%:/".contains(&byte);
    // A `:` may come with an epoch in a file's name; before the first `/` it would make the path an address.
    let (first, below) = text.split_once('/').unwrap_or(("", text));
    match text {
        _ if first.contains(':') || below.contains("://") => refuse("a lock names no host"),
        _ if text.len() > 1024 => refuse("it is longer than 1024 bytes"),
        _ if !text.bytes().all(allowed) => refuse("only letters, digits and `+ - . _ ~ % : /` are allowed"),
        _ if text.split('/').any(|component| component.is_empty()) => {
            refuse("it must be relative, without empty components")
        }
        _ if text.split('/').any(|component| component == "..") => refuse("`..` is not allowed"),
        _ => Ok(text.to_owned()),
    }
}

/// A single component of such a path.
pub(super) fn file_name(text: &str) -> Check<String> {
    match text {
        "." | ".." => refuse("not a file's name"),
        _ if text.contains('/') => refuse("a file's name has no `/`"),
        _ if text.len() > 255 => refuse("it is longer than 255 bytes"),
        _ => pool_path(text),
    }
}

/// `NAME=VERSION`.
pub(super) fn source_and_version(text: &str) -> Check<(String, String)> {
    let Some((name, version)) = text.split_once('=') else {
        return refuse("it must be `NAME=VERSION`");
    };
    checks::debian_name(name)?;
    Ok((name.to_owned(), debian_version(version)?))
}

/// `NAME | NAME | …`.
pub(super) fn alternatives(text: &str) -> Check<Vec<String>> {
    let names: Vec<String> = text.split(" | ").map(str::to_owned).collect();
    names.iter().try_for_each(|name| checks::debian_name(name))?;
    Ok(names)
}
