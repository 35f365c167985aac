//! A tar *header* is 512 bytes of fixed fields.
//!
//! Invariant: a number that is not a number, or does not fit, is an error and never a zero (the `tar` crate, whose layout
//! of the fields is used, cuts a number of more than 64 bits). Formats: POSIX.1-1988 ustar, GNU tar ("Basic Tar
//! Format"), star's ustar with a shorter prefix.

use std::collections::{BTreeMap, BTreeSet};

use ::tar::Header;

use super::{BLOCK, Entry, Form, Kind, Magic, TarError, malformed};
use crate::digest::Digest;

/// A header block whose checksum is right.
pub(super) struct RawHeader<'a>(&'a Header);

impl<'a> RawHeader<'a> {
    /// Takes a block whose checksum is right (summed as unsigned bytes, or signed as some old programs did).
    pub(super) fn check(block: &'a [u8; BLOCK], offset: u64) -> Result<Self, TarError> {
        let header = Header::from_byte_slice(block);
        if !checksum_is_right(header) {
            return Err(malformed(offset, "not a tar header: its checksum is wrong"));
        }
        // Go's reader takes the prefix of a ustar header of any version, others do not.
        if block[257..].starts_with(b"ustar\0") && header.as_ustar().is_none() {
            return Err(malformed(offset, "a ustar header of an unknown version"));
        }
        Ok(Self(header))
    }

    pub(super) fn flag(&self) -> u8 {
        self.0.as_old().linkflag[0]
    }

    /// The header of old GNU sparse files.
    pub(super) fn gnu(&self) -> Option<&'a ::tar::GnuHeader> {
        self.0.as_gnu()
    }

    pub(super) fn size(&self, offset: u64) -> Result<u64, TarError> {
        number(&self.0.as_old().size, offset)
    }

    /// Where this is the header of an entry: what it says of it, but for its size.
    pub(super) fn entry(&self, offset: u64) -> Result<Entry, TarError> {
        let (old, flag) = (self.0.as_old(), self.flag());
        let kind = match flag {
            b'0' | 0 | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            flag => Kind::Other(flag),
        };
        let names = self.names(offset)?;
        let device = match (kind, &names.device) {
            (Kind::CharDevice | Kind::BlockDevice, Some((major, minor))) => {
                Some((number(major, offset)?, number(minor, offset)?))
            }
            _ => None,
        };
        Ok(Entry {
            path: names.path,
            kind,
            mode: (number(&old.mode, offset)? & 0o7777) as u32,
            uid: number(&old.uid, offset)?,
            gid: number(&old.gid, offset)?,
            uname: names.uname,
            gname: names.gname,
            mtime: (signed_number(&old.mtime, offset)?, 0),
            size: 0,
            link: until_nul(&old.linkname).to_vec(),
            device,
            xattrs: BTreeMap::new(),
            form: Form {
                magic: names.magic,
                pax: BTreeSet::new(),
                pax_other: BTreeMap::new(),
                gnu_long_name: false,
                gnu_long_link: false,
                sparse: false,
                headers: Digest::from_bytes([0; 32]),
                header: Digest::of(self.0.as_bytes()),
            },
            header_offset: offset,
            body_offset: offset + BLOCK as u64,
        })
    }

    /// What stands where the three formats differ.
    fn names(&self, offset: u64) -> Result<Names, TarError> {
        let name = until_nul(&self.0.as_old().name);
        if let Some(ustar) = self.0.as_ustar() {
            // star has times behind a shorter prefix (star(5)).
            let is_star = ustar.pad.ends_with(b"tar\0");
            let prefix = until_nul(&ustar.prefix[..if is_star { 131 } else { 155 }]);
            return Ok(Names {
                magic: Magic::Ustar,
                path: match prefix {
                    b"" => name.to_vec(),
                    prefix => [prefix, b"/", name].concat(),
                },
                uname: until_nul(&ustar.uname).to_vec(),
                gname: until_nul(&ustar.gname).to_vec(),
                device: Some((ustar.dev_major, ustar.dev_minor)),
            });
        }
        let Some(gnu) = self.0.as_gnu() else {
            return Ok(Names {
                magic: Magic::V7,
                path: name.to_vec(),
                uname: Vec::new(),
                gname: Vec::new(),
                device: None,
            });
        };
        // Where the times are none, Go's reader takes them for a prefix.
        for time in [&gnu.atime, &gnu.ctime] {
            signed_number(time, offset)?;
        }
        Ok(Names {
            magic: Magic::Gnu,
            path: name.to_vec(),
            uname: until_nul(&gnu.uname).to_vec(),
            gname: until_nul(&gnu.gname).to_vec(),
            device: Some((gnu.dev_major, gnu.dev_minor)),
        })
    }
}

/// The part of a header in which the formats differ.
struct Names {
    magic: Magic,
    path: Vec<u8>,
    uname: Vec<u8>,
    gname: Vec<u8>,
    /// The fields of a device's major and minor number.
    device: Option<([u8; 8], [u8; 8])>,
}

/// The sum of all bytes, the checksum itself taken as spaces.
pub(super) fn checksum_is_right(header: &Header) -> bool {
    const FIELD: std::ops::Range<usize> = 148..156;
    let block = header.as_bytes();
    let Some(stored) = parse_number(&block[FIELD]) else {
        return false;
    };
    let in_sum = |index: usize| if FIELD.contains(&index) { b' ' } else { block[index] };
    let unsigned: i64 = (0..block.len()).map(|index| i64::from(in_sum(index))).sum();
    let signed: i64 = (0..block.len())
        .map(|index| i64::from(in_sum(index).cast_signed()))
        .sum();
    stored == unsigned || stored == signed
}

pub(super) fn number(field: &[u8], offset: u64) -> Result<u64, TarError> {
    u64::try_from(signed_number(field, offset)?).map_err(|_| malformed(offset, "a negative number in a header"))
}

fn signed_number(field: &[u8], offset: u64) -> Result<i64, TarError> {
    parse_number(field).ok_or_else(|| malformed(offset, "a header field that is not a number"))
}

/// A numeric field: octal with spaces or NULs around it, or GNU's base-256 where the first bit is set.
fn parse_number(field: &[u8]) -> Option<i64> {
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
    until_nul(field)
        .trim_ascii()
        .iter()
        .try_fold(0i64, |value, &digit| match digit {
            b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
            _ => None,
        })
}

pub(super) fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}
