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
    // Some tools added the bytes up as signed numbers, each of which is less by 256 where its first bit is set.
    let ((all, negative), (own, own_negative)) = (sums(block), sums(&block[FIELD]));
    let unsigned = all - own + 8 * i64::from(b' ');
    let signed = unsigned - 256 * (negative - own_negative);
    stored == unsigned || stored == signed
}

/// The sum of the bytes of a block, at most as long as a header, and how many have their first bit set. Eight are added at a time:
/// byte by byte this took most of what it takes to read a tar of small files.
fn sums(bytes: &[u8]) -> (i64, i64) {
    const LANES: u64 = 0x00ff_00ff_00ff_00ff;
    let (words, rest) = bytes.as_chunks();
    let (mut lanes, mut negative) = (0, 0);
    for word in words {
        let word = u64::from_ne_bytes(*word);
        lanes += (word & LANES) + (word >> 8 & LANES);
        negative += i64::from((word & 0x8080_8080_8080_8080).count_ones());
    }
    let mut sum: i64 = (0..4).map(|lane| (lanes >> (16 * lane) & 0xffff).cast_signed()).sum();
    for byte in rest {
        sum += i64::from(*byte);
        negative += i64::from(byte >> 7);
    }
    (sum, negative)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_added_up_in_both_ways() {
        let mut block: Vec<u8> = (0..512u32).map(|n| (n * n / 7 % 256) as u8).collect();
        for len in [0, 7, 8, 100, 512] {
            let naive: i64 = block[..len].iter().map(|&byte| i64::from(byte)).sum();
            let signed: i64 = block[..len].iter().map(|&byte| i64::from(byte.cast_signed())).sum();
            let (sum, negative) = sums(&block[..len]);
            assert_eq!((sum, sum - 256 * negative), (naive, signed), "{len}");
        }
        block.fill(255);
        assert_eq!(sums(&block), (512 * 255, 512));
    }
}
