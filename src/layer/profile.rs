//! A *tar profile* is the dialect that a layer's tar is written in: layerize's own, or that of another tool.
//!
//! Invariant: a layer of store paths has the bytes that the named tool gives it, and so its diffID; whoever comes from
//! that tool keeps the layers that a registry has already. Everything else (order, times, contents, what cannot stand
//! in a layer) is the same in all of them: see [`tar`], which is the default and the better dialect.
//!
//! | | `layerize` | `nix2container` | `dockertools` |
//! |---|---|---|---|
//! | written there by | [`tar`] | Go's `archive/tar` | Python's `tarfile` |
//! | names | relative, `/` after directories | absolute, none after directories | absolute, `/` after directories |
//! | an entry of the root | no | yes, `/` | no |
//! | mode of directories above a store path | 0755 | 0755 | 0755 |
//! | names of owner and group | none | `root` | `root` |
//! | a name over 100 bytes | `prefix`, else PAX | `prefix`, else PAX | PAX |
//! | the PAX header's name | `././@PaxHeader` | `DIR/PaxHeaders.0/NAME` | `././@PaxHeader` |
//! | its mode and time | 0644 and 1 | 0 and 0 | 0 and 0 |
//! | order of PAX records | sorted | sorted | path, linkpath, size, capabilities |
//! | the field that a PAX record replaces | its beginning | its ASCII, then its beginning | `?` for what is not ASCII |
//! | device fields | zeros | zeros, NULs in a PAX header | NULs |
//! | files alike in a store path | hard links | copies | copies |
//! | NULs at the end | 1024 | 1024 | up to a multiple of 10240 |
//!
//! podman refuses the NULs of `dockertools` as an unsound `zstd:chunked` image: compress such layers with gzip.
//!
//! Facts from nix2container (`nix/tar.go`, `nix/graph.go`) with Go 1.27, and from nixpkgs
//! (`docker/stream_layered_image.py`, with its defaults: owner 0, modification time 1) with Python 3.11. Those two
//! put the store paths of a layer in the order they are given; here they are sorted, as nix2container sorts them.

use super::tar::{self, Entry, Kind, PAX_NAME, TarError};
use crate::archive::tar::{HeaderFields, ID_MAX, NAME_MAX, SIZE_MAX, TRAILER, append_record, append_with_content};
use crate::oci::TarProfile;

/// Size of the records that Python's `tarfile` fills.
const RECORD: u64 = 10240;

/// The name that both tools give to owner and group 0.
const OWNER: &[u8] = b"root";

impl TarProfile {
    /// Appends the header of `entry`, with its PAX header where it needs one.
    pub fn append_header(self, out: &mut Vec<u8>, entry: &Entry<'_>) -> Result<(), TarError> {
        if self == Self::Layerize {
            return tar::append_header(out, entry);
        }
        tar::check(entry)?;
        let name = [b"/", entry.path].concat();
        match self {
            Self::Nix2container => as_go(out, &name, entry),
            _ => as_python(out, name, entry),
        }
        Ok(())
    }

    /// What stands before every other entry: the root's own.
    pub(super) fn beginning(self) -> Vec<u8> {
        let mut out = Vec::new();
        if self == Self::Nix2container {
            as_go(&mut out, b"/", &ROOT);
        }
        out
    }

    /// Number of NULs that end an archive of `size` bytes.
    pub(super) fn trailer(self, size: u64) -> usize {
        match self {
            Self::Layerize | Self::Nix2container => TRAILER,
            Self::Dockertools => ((size + TRAILER as u64).next_multiple_of(RECORD) - size) as usize,
        }
    }
}

/// The root directory, which no path can say.
const ROOT: Entry<'static> = Entry {
    path: b"",
    kind: Kind::Directory,
    mode: super::PARENT_MODE,
    uid: 0,
    gid: 0,
    capabilities: None,
};

/// The fields that both tools fill alike.
fn fields<'a>(entry: &Entry<'a>) -> HeaderFields<'a> {
    let (size, flag, mode) = match entry.kind {
        Kind::Directory => (0, b'5', entry.mode),
        Kind::File { size } => (size, b'0', entry.mode),
        Kind::Symlink { .. } => (0, b'2', 0o777),
        Kind::HardLink { .. } => (0, b'1', entry.mode),
    };
    HeaderFields {
        size: if size > SIZE_MAX { 0 } else { size },
        mode,
        uid: if entry.uid > ID_MAX { 0 } else { entry.uid },
        gid: if entry.gid > ID_MAX { 0 } else { entry.gid },
        flag,
        owner: OWNER,
        ..HeaderFields::default()
    }
}

/// What no field can hold: owner, group and size.
fn large_numbers(entry: &Entry<'_>) -> [(&'static str, Option<u64>); 3] {
    let id = |id: u32| (id > ID_MAX).then(|| id.into());
    let size = match entry.kind {
        Kind::File { size } => Some(size).filter(|&size| size > SIZE_MAX),
        _ => None,
    };
    [("gid", id(entry.gid)), ("size", size), ("uid", id(entry.uid))]
}

/// A link's target; that of a hard link is named as entries are.
fn target(entry: &Entry<'_>) -> Vec<u8> {
    match entry.kind {
        Kind::Symlink { target } => target.to_vec(),
        Kind::HardLink { target } => [b"/", target].concat(),
        Kind::Directory | Kind::File { .. } => Vec::new(),
    }
}

/// Whether a field of 100 bytes cannot say a text.
fn is_long(text: &[u8]) -> bool {
    text.len() > NAME_MAX || !text.is_ascii()
}

/// As Go's `archive/tar` writes an entry whose format nobody chose: `ustar` if that can say it, else PAX.
fn as_go(out: &mut Vec<u8>, name: &[u8], entry: &Entry<'_>) {
    let target = target(entry);
    let target = target.as_slice();
    let split = tar::split_name(name).filter(|_| name.is_ascii());
    let [gid, size, uid] = large_numbers(entry);
    let numbers = [gid, size, uid].iter().any(|(_, number)| number.is_some());
    if let Some((prefix, short)) = split.filter(|_| !is_long(target) && !numbers && entry.capabilities.is_none()) {
        let header = HeaderFields {
            prefix,
            name: short,
            target,
            ..fields(entry)
        };
        return out.extend_from_slice(&header.encode());
    }
    let text = |key, text: &[u8]| (key, is_long(text).then(|| text.to_vec()));
    let number = |(key, number): (_, Option<u64>)| (key, number.map(|number| number.to_string().into_bytes()));
    let records = [
        number(gid),
        text("linkpath", target),
        text("path", name),
        number(size),
        number(uid),
    ];
    let mut content = Vec::new();
    if let Some(capabilities) = entry.capabilities {
        tar::append_capabilities(&mut content, capabilities);
    }
    for (key, value) in &records {
        if let Some(value) = value {
            append_record(&mut content, key, value);
        }
    }
    let slash = name.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
    let pax_name = only_ascii(&[&name[..slash], b"PaxHeaders.0/", &name[slash..]].concat());
    let pax_name = &pax_name[..pax_name.len().min(NAME_MAX)];
    let header = HeaderFields {
        name: without_slashes(pax_name),
        size: content.len() as u64,
        flag: b'x',
        mtime: 0,
        devices: false,
        ..HeaderFields::default()
    };
    append_with_content(out, &header, &content);
    let (name, target) = (only_ascii(name), only_ascii(target));
    let header = HeaderFields {
        name: beginning(&name),
        target: beginning(&target),
        ..fields(entry)
    };
    out.extend_from_slice(&header.encode());
}

/// A text without what is not ASCII.
fn only_ascii(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(u8::is_ascii).collect()
}

/// What fits a field; not with a slash at its very end, which readers of old take for a directory's.
fn beginning(text: &[u8]) -> &[u8] {
    match text.get(..NAME_MAX) {
        Some(cut) if text.len() > NAME_MAX => without_slashes(cut),
        _ => text,
    }
}

/// A text without slashes at its end.
fn without_slashes(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
    &text[..end]
}

/// As Python's `tarfile` writes an entry in its default format.
fn as_python(out: &mut Vec<u8>, mut name: Vec<u8>, entry: &Entry<'_>) {
    let target = target(entry);
    let target = target.as_slice();
    if entry.kind == Kind::Directory {
        name.push(b'/');
    }
    let mut content = Vec::new();
    let texts = [("path", name.as_slice()), ("linkpath", target)]
        .into_iter()
        .filter(|(_, text)| is_long(text));
    if texts.clone().any(|(_, text)| std::str::from_utf8(text).is_err()) {
        append_record(&mut content, "hdrcharset", b"BINARY");
    }
    for (key, text) in texts {
        append_record(&mut content, key, text);
    }
    let [gid, size, uid] = large_numbers(entry);
    for (key, number) in [uid, gid, size] {
        if let Some(number) = number {
            append_record(&mut content, key, number.to_string().as_bytes());
        }
    }
    if let Some(capabilities) = entry.capabilities {
        tar::append_capabilities(&mut content, capabilities);
    }
    if !content.is_empty() {
        let header = HeaderFields {
            name: PAX_NAME,
            size: content.len() as u64,
            flag: b'x',
            mtime: 0,
            devices: false,
            ..HeaderFields::default()
        };
        append_with_content(out, &header, &content);
    }
    let (name, target) = (question_marks(&name), question_marks(target));
    let header = HeaderFields {
        name: &name[..name.len().min(NAME_MAX)],
        target: &target[..target.len().min(NAME_MAX)],
        devices: false,
        ..fields(entry)
    };
    out.extend_from_slice(&header.encode());
}

/// A text in which each character outside ASCII, and each byte that is none, is a question mark.
fn question_marks(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in text.utf8_chunks() {
        out.extend(
            chunk
                .valid()
                .chars()
                .map(|char| if char.is_ascii() { char as u8 } else { b'?' }),
        );
        out.extend(chunk.invalid().iter().map(|_| b'?'));
    }
    out
}

#[cfg(test)]
mod tests;
