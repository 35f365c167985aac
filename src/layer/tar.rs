//! A *tar entry* as layers hold it: one header, written in one way only.
//!
//! Invariant: the bytes of an archive are a function of its entries (path, kind, permission bits, numeric
//! owner, content); two archives of equal entries are equal byte for byte.
//!
//! # The dialect (format 1)
//!
//! (Those of other tools: [`TarProfile`](super::TarProfile).)
//!
//! The archive is POSIX.1-2001 `pax` interchange, written so that it is plain `ustar` wherever `ustar` can say
//! it. Every rule below is part of [`FORMAT`](super::FORMAT).
//!
//! * **Order**: by path, with `/` sorting before every other byte: the order in which a walk meets them that takes
//!   the names of each directory in byte order. It is the order of the canonical archive (NAR) too, so that one
//!   read of a tree serves both. (Plain byte order would put `a-b` between `a` and `a/c`.)
//! * **Names**: relative, without `./`; a directory's ends in `/`. Every parent directory of an entry stands
//!   before it, once in a layer. There is no entry for the root itself.
//! * **Kinds**: `0` regular file, `5` directory, `2` symbolic link. Hard links are stored as separate files: a
//!   link target in another layer breaks every consumer, and which name is "the first" would be the file
//!   system's choice. Anything else (devices, sockets, pipes) cannot be said.
//! * **Times**: modification time 1 second after the epoch (0 is taken for "unknown" by some readers); no
//!   access or change time.
//! * **Owner**: numeric only, both name fields empty: a name would be looked up in the consumer's files.
//! * **Modes**: the twelve permission bits as given, and 0777 for symbolic links.
//! * **Long names**: a name of at most 100 bytes stands in `name`. A longer one is cut at the last `/` that
//!   leaves at most 155 bytes before it, into `prefix` and `name`, if that leaves 1 to 100 bytes after it.
//! * **PAX records** stand in one `x` header before the entry, for exactly what `ustar` cannot say: `path` and
//!   `linkpath` that do not fit or hold a byte outside ASCII, `size` of 8 GiB or more, `uid` and `gid` above
//!   2097151; with `hdrcharset=BINARY` where such a path is not UTF-8. Records are sorted by keyword. The `x` header is
//!   named `././@PaxHeader`, mode 0644, owner 0. The fields that a record replaces hold the first 100 bytes of
//!   the path, or zero.
//! * **Numbers** are octal digits with leading zeros and one NUL; device fields are zero in the same form; the
//!   checksum is six digits, NUL, space.
//! * **Content** is padded with NULs to 512 bytes. The archive ends with **exactly 1024** NULs, not with a record
//!   of 10 KiB: podman refuses more as an unsound `zstd:chunked` image.
//! * **Whiteouts**: a name that begins with `.wh.` would delete a file of a lower layer when the image is unpacked
//!   (OCI image-spec, layer.md#whiteouts); it is an error here, never written.

use std::fmt::Write as _;

/// Size of a tar block in bytes.
pub const BLOCK: usize = 512;

/// Number of NULs that end an archive.
pub const TRAILER: usize = 2 * BLOCK;

/// Modification time of every entry, in seconds since the epoch.
pub const MTIME: u64 = 1;

pub(super) const NAME_FIELD: usize = 100;
const PREFIX_FIELD: usize = 155;
pub(super) const MAX_OCTAL_SIZE: u64 = 0o77_777_777_777;
pub(super) const MAX_OCTAL_ID: u32 = 0o7_777_777;
pub(super) const PAX_NAME: &[u8] = b"././@PaxHeader";

/// An entry that cannot be said in a layer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TarError {
    /// A name would delete a file of a lower layer.
    #[error("`{path}` begins with `.wh.`, which deletes files of lower layers when an image is unpacked")]
    Whiteout {
        /// The entry's path.
        path: String,
    },
    /// A path that is not relative and normal.
    #[error("`{path}` cannot be a path in a layer: {reason}")]
    Path {
        /// The entry's path.
        path: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// More than the twelve permission bits.
    #[error("mode {mode:o} of `{path}` has more than the twelve permission bits")]
    Mode {
        /// The entry's path.
        path: String,
        /// The mode.
        mode: u32,
    },
    /// An empty link target, or one with a NUL.
    #[error("the target of the symbolic link `{path}` {reason}")]
    Target {
        /// The entry's path.
        path: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
}

/// One entry's header data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Path without leading or trailing slash.
    pub path: &'a [u8],
    /// What it is.
    pub kind: Kind<'a>,
    /// Permission bits; ignored for symbolic links.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
}

/// What an [`Entry`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A directory.
    Directory,
    /// A regular file whose content of this many bytes follows.
    File {
        /// Size in bytes.
        size: u64,
    },
    /// A symbolic link.
    Symlink {
        /// Its target, as it is.
        target: &'a [u8],
    },
}

/// Appends the header of `entry`, with its PAX header where it needs one.
pub fn append_header(out: &mut Vec<u8>, entry: &Entry<'_>) -> Result<(), TarError> {
    check(entry)?;
    let mut name = entry.path.to_vec();
    if entry.kind == Kind::Directory {
        name.push(b'/');
    }
    let split = if name.is_ascii() { split_name(&name) } else { None };
    let (target, size, flag, mode) = match entry.kind {
        Kind::Directory => (&b""[..], 0, b'5', entry.mode),
        Kind::File { size } => (&b""[..], size, b'0', entry.mode),
        Kind::Symlink { target } => (target, 0, b'2', 0o777),
    };
    let records = pax_records(entry, split.is_none().then_some(&name), target, size);
    if !records.is_empty() {
        append_pax(out, &records);
    }
    let (prefix, short) = split.unwrap_or((b"", &name[..name.len().min(NAME_FIELD)]));
    let field = Fields {
        prefix,
        name: short,
        target: &target[..target.len().min(NAME_FIELD)],
        size: if size > MAX_OCTAL_SIZE { 0 } else { size },
        mode,
        uid: if entry.uid > MAX_OCTAL_ID { 0 } else { entry.uid },
        gid: if entry.gid > MAX_OCTAL_ID { 0 } else { entry.gid },
        flag,
        ..Fields::default()
    };
    out.extend_from_slice(&field.encode());
    Ok(())
}

/// Number of NULs that follow content of `size` bytes.
pub fn padding(size: u64) -> usize {
    let over = (size % BLOCK as u64) as usize;
    if over == 0 { 0 } else { BLOCK - over }
}

/// That an entry can stand in a layer.
pub(super) fn check(entry: &Entry<'_>) -> Result<(), TarError> {
    let path = || shown(entry.path);
    for component in entry.path.split(|&byte| byte == b'/') {
        let reason = match component {
            b"" => "it is empty, absolute, or has an empty component",
            b"." | b".." => "it has a component `.` or `..`",
            name if name.contains(&0) => "it holds a NUL",
            name if name.starts_with(b".wh.") => return Err(TarError::Whiteout { path: path() }),
            _ => continue,
        };
        return Err(TarError::Path { path: path(), reason });
    }
    if let Kind::Symlink { target } = entry.kind {
        let reason = match target {
            b"" => "is empty",
            target if target.contains(&0) => "holds a NUL",
            _ => return Ok(()),
        };
        return Err(TarError::Target { path: path(), reason });
    }
    if entry.mode > 0o7777 {
        return Err(TarError::Mode {
            path: path(),
            mode: entry.mode,
        });
    }
    Ok(())
}

/// `prefix` and `name` fields of a name, or `None` where they cannot hold it.
pub(super) fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= NAME_FIELD {
        return Some((b"", name));
    }
    // The slash that ends a directory's name belongs to `name`, never between the fields.
    let searched = &name[..(PREFIX_FIELD + 1).min(name.len() - 1)];
    let slash = searched.iter().rposition(|&byte| byte == b'/')?;
    let rest = &name[slash + 1..];
    (slash > 0 && rest.len() <= NAME_FIELD).then_some((&name[..slash], rest))
}

/// PAX records of what the header's fields cannot say, sorted by keyword.
fn pax_records(entry: &Entry<'_>, long_name: Option<&Vec<u8>>, target: &[u8], size: u64) -> Vec<u8> {
    let link = Some(target).filter(|target| target.len() > NAME_FIELD || !target.is_ascii());
    let name = long_name.map(Vec::as_slice);
    let mut out = Vec::new();
    if entry.gid > MAX_OCTAL_ID {
        append_record(&mut out, "gid", entry.gid.to_string().as_bytes());
    }
    if [link, name]
        .into_iter()
        .flatten()
        .any(|text| std::str::from_utf8(text).is_err())
    {
        append_record(&mut out, "hdrcharset", b"BINARY");
    }
    if let Some(link) = link {
        append_record(&mut out, "linkpath", link);
    }
    if let Some(name) = name {
        append_record(&mut out, "path", name);
    }
    if size > MAX_OCTAL_SIZE {
        append_record(&mut out, "size", size.to_string().as_bytes());
    }
    if entry.uid > MAX_OCTAL_ID {
        append_record(&mut out, "uid", entry.uid.to_string().as_bytes());
    }
    out
}

/// `<length> <keyword>=<value>\n`, where the length counts its own digits.
pub(super) fn append_record(out: &mut Vec<u8>, keyword: &str, value: &[u8]) {
    let rest = keyword.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + digits(length) {
        length = rest + digits(length);
    }
    out.extend_from_slice(format!("{length} {keyword}=").as_bytes());
    out.extend_from_slice(value);
    out.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

fn append_pax(out: &mut Vec<u8>, records: &[u8]) {
    let size = records.len() as u64;
    let header = Fields {
        name: PAX_NAME,
        size,
        mode: 0o644,
        flag: b'x',
        ..Fields::default()
    };
    append_with_content(out, &header, records);
}

/// Appends a header and the content that belongs to it.
pub(super) fn append_with_content(out: &mut Vec<u8>, header: &Fields<'_>, content: &[u8]) {
    out.extend_from_slice(&header.encode());
    out.extend_from_slice(content);
    out.resize(out.len() + padding(content.len() as u64), 0);
}

/// What the fields of one 512-byte header hold, already known to fit.
pub(super) struct Fields<'a> {
    pub prefix: &'a [u8],
    pub name: &'a [u8],
    pub target: &'a [u8],
    pub size: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub flag: u8,
    pub mtime: u64,
    /// Name of both the owner and the group.
    pub owner: &'a [u8],
    /// Whether the device fields hold zeros in octal; else NULs.
    pub devices: bool,
}

impl Default for Fields<'_> {
    fn default() -> Self {
        Self {
            prefix: b"",
            name: b"",
            target: b"",
            size: 0,
            mode: 0,
            uid: 0,
            gid: 0,
            flag: b'0',
            mtime: MTIME,
            owner: b"",
            devices: true,
        }
    }
}

impl Fields<'_> {
    /// The header (POSIX.1-2017, pax, "ustar Interchange Format").
    pub fn encode(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        put(&mut block, 0, self.name);
        put_octal(&mut block, 100, 7, u64::from(self.mode));
        put_octal(&mut block, 108, 7, u64::from(self.uid));
        put_octal(&mut block, 116, 7, u64::from(self.gid));
        put_octal(&mut block, 124, 11, self.size);
        put_octal(&mut block, 136, 11, self.mtime);
        put(&mut block, 148, b"        ");
        block[156] = self.flag;
        put(&mut block, 157, self.target);
        put(&mut block, 257, b"ustar\x0000");
        put(&mut block, 265, self.owner);
        put(&mut block, 297, self.owner);
        if self.devices {
            put_octal(&mut block, 329, 7, 0);
            put_octal(&mut block, 337, 7, 0);
        }
        put(&mut block, 345, self.prefix);
        let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
        put_octal(&mut block, 148, 6, sum);
        block[154] = 0;
        block
    }
}

fn put(block: &mut [u8; BLOCK], offset: usize, bytes: &[u8]) {
    block[offset..offset + bytes.len()].copy_from_slice(bytes);
}

fn put_octal(block: &mut [u8; BLOCK], offset: usize, digits: usize, mut value: u64) {
    for digit in block[offset..offset + digits].iter_mut().rev() {
        *digit = b'0' + (value & 7) as u8;
        value >>= 3;
    }
}

/// A path for a message: its text, with what is not UTF-8 replaced.
pub(super) fn shown(path: &[u8]) -> String {
    let mut text = String::new();
    for chunk in path.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
#[path = "tar_tests.rs"]
mod tests;
