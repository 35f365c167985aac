//! A *tar entry* as layers hold it: one header, written in one way only.
//!
//! Invariant: the bytes of an archive are a function of its entries (path, kind, permission bits, numeric
//! owner, content); two archives of equal entries are equal byte for byte.
//!
//! # The dialect (format 1)
//!
//! (Those of other tools: [`TarProfile`](crate::oci::TarProfile).)
//!
//! The archive is POSIX.1-2001 `pax` interchange, written so that it is plain `ustar` wherever `ustar` can say
//! it. Every rule below is part of [`FORMAT`](super::FORMAT).
//!
//! * **Order**: by path, with `/` sorting before every other byte: the order in which a walk meets them that takes
//!   the names of each directory in byte order. It is the order of the canonical archive (NAR) too, so that one
//!   read of a tree serves both. (Plain byte order would put `a-b` between `a` and `a/c`.)
//! * **Names**: relative, without `./`; a directory's ends in `/`. Every parent directory of an entry stands
//!   before it, once in a layer. There is not an entry for the root itself.
//! * **Kinds**: `0` regular file, `5` directory, `2` symbolic link, `1` hard link. A hard link's target stands before it
//!   in the same layer (one in another layer breaks every consumer); mode, owner and capabilities are the target's, since
//!   consumers set them anew through the link. Which names are one file is told by content-addressed facts alone, never
//!   by inodes of a disk: in a store path, files with the same bytes, executable bit, mode and owner; of a Debian package
//!   at `/`, what is a hard link in the `.deb`. Anything else (devices, sockets, pipes) cannot be said.
//! * **Times**: modification time 1 second after the epoch (0 is taken for "unknown" by some readers); no
//!   access or change time.
//! * **Owner**: numeric only, both name fields empty: a name would be looked up in the consumer's files.
//! * **Modes**: the twelve permission bits as given, and 0777 for symbolic links.
//! * **Long names**: a name of at most 100 bytes stands in `name`. A longer one is cut at the last `/` that
//!   leaves at most 155 bytes before it, into `prefix` and `name`, if that leaves 1 to 100 bytes after it.
//! * **PAX records** stand in one `x` header before the entry, for exactly what `ustar` cannot say: `path` and
//!   `linkpath` that do not fit or hold a byte outside ASCII, `size` of 8 GiB or more, `uid` and `gid` above
//!   2097151, a file's capabilities (`SCHILY.xattr.security.capability`, the attribute's own bytes); with `hdrcharset=BINARY` where such a path is not UTF-8. Records are sorted by keyword. The `x` header is
//!   named `././@PaxHeader`, mode 0644, owner 0. The fields that a record replaces hold the first 100 bytes of
//!   the path, or zero.
//! * **Numbers** are octal digits with leading zeros and one NUL; device fields are zero in the same form; the
//!   checksum is six digits, NUL, space.
//! * **Content** is padded with NULs to 512 bytes. The archive ends with **exactly 1024** NULs, not with a record
//!   of 10 KiB: podman refuses more as an unsound `zstd:chunked` image.
//! * **Whiteouts**: a name that begins with `.wh.` would delete a file of a lower layer when the image is unpacked
//!   (OCI image-spec, layer.md#whiteouts); it is an error here, never written.

pub(super) use crate::escape::shown_bytes as shown;

use crate::archive::tar::{HeaderFields, ID_MAX, NAME_MAX, PREFIX_MAX, SIZE_MAX, append_record, append_with_content};
use crate::capability::{self, FileCapabilities};

/// Modification time of every entry, in seconds since the epoch.
pub const MTIME: u64 = 1;

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
    /// The capabilities of a regular file.
    pub capabilities: Option<FileCapabilities>,
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
    /// Another name of a regular file.
    HardLink {
        /// The path of the file, which stands before it.
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
        Kind::HardLink { target } => (target, 0, b'1', entry.mode),
    };
    let records = pax_records(entry, split.is_none().then_some(&name), target, size);
    if !records.is_empty() {
        append_pax(out, &records);
    }
    let (prefix, short) = split.unwrap_or((b"", &name[..name.len().min(NAME_MAX)]));
    let field = HeaderFields {
        prefix,
        name: short,
        target: &target[..target.len().min(NAME_MAX)],
        size: if size > SIZE_MAX { 0 } else { size },
        mode,
        uid: if entry.uid > ID_MAX { 0 } else { entry.uid },
        gid: if entry.gid > ID_MAX { 0 } else { entry.gid },
        flag,
        mtime: MTIME,
        ..HeaderFields::default()
    };
    out.extend_from_slice(&field.encode());
    Ok(())
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
    if let Kind::HardLink { target } = entry.kind {
        // It is the path of an entry.
        let file = Entry {
            path: target,
            kind: Kind::File { size: 0 },
            ..*entry
        };
        return check(&file);
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
    if name.len() <= NAME_MAX {
        return Some((b"", name));
    }
    // The slash that ends a directory's name belongs to `name`, never between the fields.
    let searched = &name[..(PREFIX_MAX + 1).min(name.len() - 1)];
    let slash = searched.iter().rposition(|&byte| byte == b'/')?;
    let rest = &name[slash + 1..];
    (slash > 0 && rest.len() <= NAME_MAX).then_some((&name[..slash], rest))
}

/// PAX records of what the header's fields cannot say, sorted by keyword.
fn pax_records(entry: &Entry<'_>, long_name: Option<&Vec<u8>>, target: &[u8], size: u64) -> Vec<u8> {
    let link = Some(target).filter(|target| target.len() > NAME_MAX || !target.is_ascii());
    let name = long_name.map(Vec::as_slice);
    let mut out = Vec::new();
    if let Some(capabilities) = entry.capabilities {
        append_capabilities(&mut out, capabilities);
    }
    if entry.gid > ID_MAX {
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
    if size > SIZE_MAX {
        append_record(&mut out, "size", size.to_string().as_bytes());
    }
    if entry.uid > ID_MAX {
        append_record(&mut out, "uid", entry.uid.to_string().as_bytes());
    }
    out
}

/// The record that consumers read extended attributes from: Docker, containerd, podman and umoci know this key alone.
pub(super) fn append_capabilities(out: &mut Vec<u8>, capabilities: FileCapabilities) {
    let key = format!("SCHILY.xattr.{}", capability::ATTRIBUTE);
    append_record(out, &key, &capabilities.to_bytes());
}

fn append_pax(out: &mut Vec<u8>, records: &[u8]) {
    let size = records.len() as u64;
    let header = HeaderFields {
        name: PAX_NAME,
        size,
        mode: 0o644,
        flag: b'x',
        mtime: MTIME,
        ..HeaderFields::default()
    };
    append_with_content(out, &header, records);
}

#[cfg(test)]
#[path = "tar_tests.rs"]
mod tests;
