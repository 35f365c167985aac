//! A *pax header* is a list of records that overrule fields of the entry after it (POSIX.1-2001, "pax Extended Header").
//!
//! Invariant: of two records of one key the last counts, and one without a value says nothing, as Go's reader has it,
//! which container engines use.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::{Entry, TarError, malformed};

/// Records by their keys.
#[derive(Debug, Default)]
pub(super) struct Records(BTreeMap<String, Vec<u8>>);

impl Records {
    /// Splits `LENGTH KEY=VALUE\n` records.
    pub(super) fn parse(mut bytes: &[u8], offset: u64) -> Result<Self, TarError> {
        let mut records = BTreeMap::new();
        while !bytes.is_empty() {
            let (key, value, length) = split_record(bytes).ok_or_else(|| malformed(offset, "a broken pax record"))?;
            let holds_text = matches!(
                key.as_str(),
                "path" | "linkpath" | "uname" | "gname" | "GNU.sparse.name"
            );
            if holds_text && value.contains(&0) {
                return Err(malformed(offset, "a pax record with a NUL in a name"));
            }
            match key.as_str() {
                // Format 0.0 of sparse files has a record for each number of the map, 0.1 has them in one.
                "GNU.sparse.offset" | "GNU.sparse.numbytes" => {
                    let map: &mut Vec<u8> = records.entry("GNU.sparse.map".to_owned()).or_default();
                    map.extend_from_slice(value);
                    map.push(b',');
                }
                _ => {
                    records.insert(key, value.to_vec());
                }
            }
            bytes = &bytes[length..];
        }
        Ok(Self(records))
    }

    /// The value of a record, unless it is empty.
    pub(super) fn get(&self, key: &str) -> Option<&[u8]> {
        self.0.get(key).map(Vec::as_slice).filter(|value| !value.is_empty())
    }

    /// Whether a record changes which bytes belong to which name.
    pub(super) fn decides_what_entries_are(&self) -> bool {
        let keys = self.0.keys();
        keys.into_iter()
            .any(|key| matches!(key.as_str(), "path" | "linkpath" | "size") || key.starts_with("GNU.sparse."))
    }

    /// A record's decimal number.
    pub(super) fn number(&self, key: &str, offset: u64) -> Result<Option<u64>, TarError> {
        let number = |value| decimal(value).ok_or_else(|| malformed(offset, "a pax number that is not a number"));
        self.get(key).map(number).transpose()
    }

    /// Overrules what the entry's own header says, but for its size.
    pub(super) fn apply(self, entry: &mut Entry, offset: u64) -> Result<(), TarError> {
        if let Some(uid) = self.number("uid", offset)? {
            entry.uid = uid;
        }
        if let Some(gid) = self.number("gid", offset)? {
            entry.gid = gid;
        }
        if let Some(time) = self.get("mtime") {
            entry.mtime = parse_time(time).ok_or_else(|| malformed(offset, "a pax time that is not a number"))?;
        }
        for (key, field) in [
            ("path", &mut entry.path),
            ("linkpath", &mut entry.link),
            ("uname", &mut entry.uname),
            ("gname", &mut entry.gname),
        ] {
            if let Some(value) = self.get(key) {
                field.clear();
                field.extend_from_slice(value);
            }
        }
        entry.form.pax = self.0.keys().cloned().collect();
        for (key, value) in self.0 {
            if let Some(name) = xattr(&key) {
                entry.xattrs.insert(name.as_bytes().to_vec(), value);
            } else if !is_read(&key) {
                entry.form.pax_other.insert(key, value);
            }
        }
        Ok(())
    }
}

/// The name of the extended attribute that records of this key hold. Readers of images know none of libarchive's own
/// (`LIBARCHIVE.xattr.`), which stand beside these where they stand at all.
fn xattr(key: &str) -> Option<&str> {
    key.strip_prefix("SCHILY.xattr.")
}

/// The value of a record in which libarchive keeps an extended attribute: in base64, often without padding.
pub(super) fn of_libarchive(value: &[u8]) -> Option<Vec<u8>> {
    let end = value.iter().rposition(|&byte| byte != b'=').map_or(0, |last| last + 1);
    STANDARD_NO_PAD.decode(&value[..end]).ok()
}

/// Whether records of this key say something that an [`Entry`] tells.
fn is_read(key: &str) -> bool {
    let known = ["path", "linkpath", "size", "uid", "gid", "uname", "gname", "mtime"];
    known.contains(&key) || key.starts_with("GNU.sparse.")
}

fn split_record(bytes: &[u8]) -> Option<(String, &[u8], usize)> {
    let space = bytes.iter().take(20).position(|&byte| byte == b' ')?;
    let length = usize::try_from(decimal(&bytes[..space])?).ok()?;
    let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    let key = String::from_utf8_lossy(&record[..equals]).into_owned();
    Some((key, &record[equals + 1..], length))
}

/// A number in digits alone.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Seconds with an optional fraction, rounded towards the past, as (seconds, nanoseconds).
fn parse_time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{:0<9}", fraction.get(..9).unwrap_or(fraction)).parse().ok()?;
    if whole.starts_with('-') && nanos > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((seconds, nanos))
}
