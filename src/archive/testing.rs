//! Archives made by hand for tests: tars entry by entry, ar archives, compressed bytes.

use std::io::{Read, Write};

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

/// An ar archive of these members, as GNU's `ar` and dpkg-deb write it.
pub(crate) fn ar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = b"!<arch>\n".to_vec();
    for (name, content) in members {
        let (owner, size) = (0, content.len());
        let header = format!("{name:<16}{:<12}{owner:<6}{owner:<6}{:<8}{size:<10}`\n", 0, "100644");
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(2), b'\n');
    }
    bytes
}

/// A node of a well-formed tar.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) path: String,
    pub(crate) flag: u8,
    pub(crate) mode: u32,
    pub(crate) owner: (u64, u64),
    pub(crate) mtime: u64,
    pub(crate) data: Vec<u8>,
    pub(crate) link: String,
    pub(crate) xattrs: Vec<(String, Vec<u8>)>,
    pub(crate) gnu: bool,
}

impl Node {
    fn new(path: &str, flag: u8, mode: u32) -> Self {
        Self {
            path: path.to_owned(),
            flag,
            mode,
            owner: (0, 0),
            mtime: 1,
            data: Vec::new(),
            link: String::new(),
            xattrs: Vec::new(),
            gnu: false,
        }
    }

    pub(crate) fn file(path: &str, data: impl AsRef<[u8]>) -> Self {
        Self {
            data: data.as_ref().to_vec(),
            ..Self::new(path, b'0', 0o444)
        }
    }

    pub(crate) fn dir(path: &str) -> Self {
        Self::new(&format!("{path}/"), b'5', 0o555)
    }

    pub(crate) fn symlink(path: &str, target: &str) -> Self {
        Self {
            link: target.to_owned(),
            ..Self::new(path, b'2', 0o777)
        }
    }

    pub(crate) fn hard_link(path: &str, target: &str) -> Self {
        Self {
            link: target.to_owned(),
            ..Self::new(path, b'1', 0o444)
        }
    }

    pub(crate) fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }
}

/// The tar of these files, ending in 1024 zero bytes.
pub(crate) fn tar(nodes: &[Node]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for node in nodes {
        let xattrs = node
            .xattrs
            .iter()
            .map(|(name, value)| (format!("SCHILY.xattr.{name}"), value.as_slice()));
        let xattrs: Vec<(String, &[u8])> = xattrs.collect();
        if !xattrs.is_empty() {
            builder
                .append_pax_extensions(xattrs.iter().map(|(key, value)| (key.as_str(), *value)))
                .unwrap();
        }
        let mut header = if node.gnu {
            ::tar::Header::new_gnu()
        } else {
            ::tar::Header::new_ustar()
        };
        let name = &mut header.as_old_mut().name;
        name[..node.path.len()].copy_from_slice(node.path.as_bytes());
        let link = &mut header.as_old_mut().linkname;
        link[..node.link.len()].copy_from_slice(node.link.as_bytes());
        header.set_entry_type(::tar::EntryType::new(node.flag));
        header.set_mode(node.mode);
        header.set_uid(node.owner.0);
        header.set_gid(node.owner.1);
        header.set_mtime(node.mtime);
        header.set_size(node.data.len() as u64);
        header.set_cksum();
        builder.append(&header, &node.data[..]).unwrap();
    }
    builder.into_inner().unwrap()
}
