//! A tar *header* is 512 bytes of fixed fields, which pax records may overrule.
//!
//! Invariant: a number that is no number, or does not fit, is an error and never a zero. Formats: POSIX.1-1988 ustar,
//! POSIX.1-2001 pax ("pax Extended Header"), GNU tar ("Basic Tar Format").

use std::collections::{BTreeMap, BTreeSet};

use super::{BLOCK, Entry, Form, Kind, Magic, TarError, malformed};
use crate::digest::Digest;

pub(super) type Field = std::ops::Range<usize>;
const NAME: Field = 0..100;
const MODE: Field = 100..108;
pub(super) const UID: Field = 108..116;
const GID: Field = 116..124;
pub(super) const SIZE: Field = 124..136;
pub(super) const MTIME: Field = 136..148;
pub(super) const CHECKSUM: Field = 148..156;
pub(super) const FLAG: usize = 156;
const LINK: Field = 157..257;
const MAGIC: Field = 257..265;
const UNAME: Field = 265..297;
const GNAME: Field = 297..329;
const MAJOR: Field = 329..337;
const MINOR: Field = 337..345;
const PREFIX: Field = 345..500;

/// A header block whose checksum is right.
pub(super) struct RawHeader<'a>(pub(super) &'a [u8; BLOCK as usize]);

impl<'a> RawHeader<'a> {
    /// Takes a block whose checksum is right (summed as unsigned bytes, or signed as some old programs did).
    pub(super) fn check(block: &'a [u8; BLOCK as usize], offset: u64) -> Result<Self, TarError> {
        let header = Self(block);
        let stored = header.number(CHECKSUM, offset)?;
        let in_sum = |index: usize| if CHECKSUM.contains(&index) { b' ' } else { block[index] };
        let unsigned: u64 = (0..block.len()).map(|index| u64::from(in_sum(index))).sum();
        let signed: i64 = (0..block.len()).map(|index| i64::from(in_sum(index) as i8)).sum();
        if stored != unsigned && i64::try_from(stored) != Ok(signed) {
            return Err(malformed(offset, "not a tar header: its checksum is wrong"));
        }
        Ok(header)
    }

    pub(super) fn flag(&self) -> u8 {
        self.0[FLAG]
    }

    fn text(&self, field: Field) -> Vec<u8> {
        trim_nul(self.0[field].to_vec())
    }

    pub(super) fn number(&self, field: Field, offset: u64) -> Result<u64, TarError> {
        let value = number(&self.0[field]).ok_or_else(|| malformed(offset, "a header field that is no number"))?;
        u64::try_from(value).map_err(|_| malformed(offset, "a negative number in a header"))
    }

    fn magic(&self) -> Magic {
        match &self.0[MAGIC] {
            b"ustar  \0" => Magic::Gnu,
            magic if magic.starts_with(b"ustar") => Magic::Ustar,
            _ => Magic::V7,
        }
    }

    pub(super) fn entry(&self, offset: u64) -> Result<Entry, TarError> {
        let magic = self.magic();
        let mut path = self.text(NAME);
        let prefix = self.text(PREFIX);
        if magic == Magic::Ustar && !prefix.is_empty() {
            path = [&prefix[..], b"/", &path[..]].concat();
        }
        let kind = match self.flag() {
            b'0' | 0 | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            flag => Kind::Other(flag),
        };
        let device = match kind {
            Kind::CharDevice | Kind::BlockDevice => Some((self.number(MAJOR, offset)?, self.number(MINOR, offset)?)),
            _ => None,
        };
        let mtime = number(&self.0[MTIME]).ok_or_else(|| malformed(offset, "a time that is no number"))?;
        let named = magic != Magic::V7;
        Ok(Entry {
            path,
            kind,
            mode: (self.number(MODE, offset)? & 0o7777) as u32,
            uid: self.number(UID, offset)?,
            gid: self.number(GID, offset)?,
            uname: if named { self.text(UNAME) } else { Vec::new() },
            gname: if named { self.text(GNAME) } else { Vec::new() },
            mtime: (mtime, 0),
            size: self.number(SIZE, offset)?,
            link: self.text(LINK),
            device,
            xattrs: BTreeMap::new(),
            form: Form {
                magic,
                pax: BTreeSet::new(),
                pax_other: BTreeMap::new(),
                gnu_long_name: false,
                gnu_long_link: false,
                headers: Digest::from_bytes([0; 32]),
                header: Digest::of(self.0),
            },
            header_offset: offset,
            body_offset: offset + BLOCK,
        })
    }
}

/// A numeric field: octal with spaces or NULs around it, or GNU's base-256 where the first bit is set.
fn number(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        let negative = first & 0x40 != 0;
        let head = if negative {
            i128::from(first | 0x80) - 256
        } else {
            i128::from(first & 0x7f)
        };
        let value = rest.iter().fold(head, |value, &byte| {
            (value << 8 | i128::from(byte)).clamp(i128::MIN >> 16, i128::MAX >> 16)
        });
        return i64::try_from(value).ok();
    }
    let digits = field.split(|&byte| byte == 0).next().unwrap_or_default().trim_ascii();
    digits.iter().try_fold(0i64, |value, &digit| match digit {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
        _ => None,
    })
}

/// Splits `LENGTH KEY=VALUE\n` records (POSIX.1-2001 pax, "pax Extended Header"); the last of a key wins.
pub(super) fn pax_records(mut bytes: &[u8], offset: u64, into: &mut BTreeMap<String, Vec<u8>>) -> Result<(), TarError> {
    while !bytes.is_empty() {
        let record = pax_record(bytes).ok_or_else(|| malformed(offset, "a broken pax record"))?;
        let (key, value, length) = record;
        into.insert(key, value.to_vec());
        bytes = &bytes[length..];
    }
    Ok(())
}

fn pax_record(bytes: &[u8]) -> Option<(String, &[u8], usize)> {
    let space = bytes.iter().take(20).position(|&byte| byte == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    let key = String::from_utf8_lossy(&record[..equals]).into_owned();
    Some((key, &record[equals + 1..], length))
}

pub(super) fn apply_pax(entry: &mut Entry, key: &str, value: &[u8], offset: u64) -> Result<(), TarError> {
    let decimal = |reason| {
        let text = std::str::from_utf8(value).ok();
        text.and_then(|text| text.parse::<u64>().ok())
            .ok_or_else(|| malformed(offset, reason))
    };
    match key {
        // GNU tar puts the real name of a file that is stored as sparse here (GNU tar, "PAX Format, Version 1.0").
        "path" | "GNU.sparse.name" => entry.path = value.to_vec(),
        "linkpath" => entry.link = value.to_vec(),
        "size" => entry.size = decimal("a pax size that is no number")?,
        "uid" => entry.uid = decimal("a pax uid that is no number")?,
        "gid" => entry.gid = decimal("a pax gid that is no number")?,
        "uname" => entry.uname = value.to_vec(),
        "gname" => entry.gname = value.to_vec(),
        "mtime" => entry.mtime = pax_time(value).ok_or_else(|| malformed(offset, "a pax time that is no number"))?,
        _ => {
            let name = key
                .strip_prefix("SCHILY.xattr.")
                .or_else(|| key.strip_prefix("LIBARCHIVE.xattr."));
            if let Some(name) = name {
                entry.xattrs.insert(name.as_bytes().to_vec(), value.to_vec());
            }
        }
    }
    Ok(())
}

/// Whether [`apply_pax`] does something with records of this key.
pub(super) fn is_known(key: &str) -> bool {
    let known = ["path", "linkpath", "size", "uid", "gid", "uname", "gname", "mtime"];
    known.contains(&key) || key.starts_with("SCHILY.xattr.") || key.starts_with("LIBARCHIVE.xattr.")
}

/// Seconds with an optional fraction, rounded towards the past, as (seconds, nanoseconds).
fn pax_time(value: &[u8]) -> Option<(i64, u32)> {
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

pub(super) fn trim_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|&byte| byte == 0) {
        bytes.truncate(end);
    }
    bytes
}
