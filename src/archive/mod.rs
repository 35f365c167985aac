//! *Archives*: tar, ar and zip read member by member, tar headers written, compression undone while streaming.
//!
//! Invariant: whatever an archive claims, memory is bounded, and damage, a cut or a broken rule is an error that says
//! where; nothing is taken for a path of this machine. What is done with a member is up to whoever reads; where they
//! want a reader to be stricter or more lenient than its format, that is an argument.

pub mod ar;
pub mod compression;
pub mod tar;
#[cfg(test)]
pub(crate) mod testing;
pub mod zip;

/// What kind of file a member makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A regular file.
    File,
    /// Another name of an earlier entry.
    HardLink,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
    /// Anything else, by its type flag in a tar.
    Other(u8),
}

impl Kind {
    /// A word for people.
    pub fn name(self) -> String {
        match self {
            Self::File => "file".to_owned(),
            Self::HardLink => "hard link".to_owned(),
            Self::Symlink => "symlink".to_owned(),
            Self::CharDevice => "character device".to_owned(),
            Self::BlockDevice => "block device".to_owned(),
            Self::Directory => "directory".to_owned(),
            Self::Fifo => "fifo".to_owned(),
            Self::Other(flag) => format!("type {:?}", char::from(flag)),
        }
    }

    /// Whether a body may follow the header in a tar; Go's and GNU's readers ignore the size of all others.
    fn has_body(self) -> bool {
        matches!(self, Self::File | Self::Other(_))
    }
}

/// `path` without leading `/`, empty and `.` components; `..` stays, to be refused by whoever resolves.
pub fn clean(path: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = path
        .split(|&byte| byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
        .collect();
    parts.join(&b'/')
}

#[cfg(test)]
mod fuzz {
    use std::io::{Cursor, Read};

    use super::ar::ArReader;
    use super::tar::{Streamed, TarPolicy, TarReader};
    use super::zip::ZipReader;

    /// Reads at most so much of a content.
    fn drain(content: impl Read) {
        let _ = std::io::copy(&mut content.take(1 << 20), &mut std::io::sink());
    }

    #[test]
    fn fuzz_tar() {
        crate::testing::fuzz("tar", |bytes| {
            for policy in [TarPolicy::IMAGE, TarPolicy::LAYER] {
                let mut reader = TarReader::new(Streamed(bytes), policy);
                while let Ok(Some(entry)) = reader.next_entry() {
                    let _ = entry.clean_path();
                    drain(&mut reader);
                }
            }
        });
    }

    #[test]
    fn fuzz_ar() {
        crate::testing::fuzz("ar", |bytes| {
            let Ok(mut reader) = ArReader::new(Cursor::new(bytes)) else {
                return;
            };
            while let Ok(Some(member)) = reader.next_member() {
                if let Ok(content) = reader.content(&member) {
                    drain(content);
                }
            }
        });
    }

    #[test]
    fn fuzz_zip() {
        crate::testing::fuzz("zip", |bytes| {
            let Ok(mut reader) = ZipReader::new(Cursor::new(bytes)) else {
                return;
            };
            for index in 0..reader.len().min(100) {
                let _ = reader.member(index);
                if let Ok(content) = reader.content(index) {
                    drain(content);
                }
            }
        });
    }
}
