//! What the tests of unpacking share: tar archives made entry by entry, and trees shown as text.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A tar being made, every byte of a header as the test wants it.
#[derive(Default, Clone)]
pub(crate) struct Tar(pub Vec<u8>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.entry(path, b'0', 0o644, "", content.as_ref())
    }

    pub(crate) fn executable(self, path: &str, content: &str) -> Self {
        self.entry(path, b'0', 0o4755, "", content.as_bytes())
    }

    pub(crate) fn directory(self, path: &str) -> Self {
        self.entry(path, b'5', 0o755, "", b"")
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, b'2', 0o777, target, b"")
    }

    pub(crate) fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(path, b'1', 0o644, target, b"")
    }

    /// A pax header of these records for the next entry (`x`) or all (`g`).
    pub(crate) fn pax(self, flag: u8, records: &[(&str, &str)]) -> Self {
        let mut content = String::new();
        for (key, value) in records {
            let rest = format!(" {key}={value}\n");
            let mut length = rest.len() + 1;
            while length != rest.len() + length.to_string().len() {
                length = rest.len() + length.to_string().len();
            }
            content.push_str(&format!("{length}{rest}"));
        }
        self.entry("pax", flag, 0o644, "", content.as_bytes())
    }

    pub(crate) fn entry(self, path: &str, flag: u8, mode: u32, link: &str, content: &[u8]) -> Self {
        let size = content.len();
        self.header(path, flag, mode, link, size).content(content)
    }

    /// A header that announces `size` bytes.
    pub(crate) fn header(self, path: &str, flag: u8, mode: u32, link: &str, size: usize) -> Self {
        let mut header = [0; 512];
        header[..path.len()].copy_from_slice(path.as_bytes());
        header[100..108].copy_from_slice(format!("{mode:07o}\0").as_bytes());
        header[108..116].copy_from_slice(b"0000000\0");
        header[116..124].copy_from_slice(b"0000000\0");
        header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        header[136..148].copy_from_slice(b"00000000001\0");
        header[156] = flag;
        header[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header[257..265].copy_from_slice(b"ustar\x0000");
        self.block(header)
    }

    /// A header block with its checksum filled in.
    pub(crate) fn block(mut self, mut header: [u8; 512]) -> Self {
        header[148..156].copy_from_slice(b"        ");
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header);
        self
    }

    pub(crate) fn content(mut self, content: &[u8]) -> Self {
        self.0.extend_from_slice(content);
        let padded = self.0.len().next_multiple_of(512);
        self.0.resize(padded, 0);
        self
    }

    /// The archive with its end.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    liblzma::read::XzEncoder::new(bytes, 1).read_to_end(&mut out).unwrap();
    out
}

pub(crate) fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    bzip2::read::BzEncoder::new(bytes, bzip2::Compression::fast())
        .read_to_end(&mut out)
        .unwrap();
    out
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    // As the program does; the library leaves it out.
    encoder.include_checksum(true).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The tree below `root`, a line for each node: `dir/ 755`, `file 644 content`, `link -> target`.
pub(crate) fn show(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    show_below(root, Path::new(""), &mut lines);
    lines
}

fn show_below(root: &Path, dir: &Path, lines: &mut Vec<String>) {
    for name in crate::fsio::sorted_names(&root.join(dir)).unwrap() {
        let path = dir.join(name);
        let shown = path.display();
        let physical = root.join(&path);
        let metadata = fs::symlink_metadata(&physical).unwrap();
        let mode = metadata.permissions().mode() & 0o7777;
        if metadata.is_dir() {
            lines.push(format!("{shown}/ {mode:o}"));
            show_below(root, &path, lines);
        } else if metadata.is_symlink() {
            let target = fs::read_link(&physical).unwrap();
            lines.push(format!("{shown} -> {}", target.display()));
        } else {
            let content = fs::read(&physical).unwrap();
            lines.push(format!("{shown} {mode:o} {}", String::from_utf8_lossy(&content)));
        }
    }
}

/// The text of an error with the texts of its sources.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
