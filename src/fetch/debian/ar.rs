//! The *ar* archive that a `.deb` is (deb(5), ar(5)): 60-byte headers, members padded to even length.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use crate::fetch::unpack::UnpackError;

const MAGIC: &[u8; 8] = b"!<arch>\n";
const HEADER: usize = 60;

/// Reads the members of an ar archive in order.
pub(super) struct ArReader<'a> {
    file: &'a File,
    size: u64,
    next: u64,
}

/// A member: its name, and where its content is.
pub(super) struct Member<'a> {
    pub name: String,
    pub content: io::Take<&'a File>,
}

impl<'a> ArReader<'a> {
    /// Checks the magic.
    pub(super) fn new(mut file: &'a File) -> Result<Self, UnpackError> {
        let size = file.seek(SeekFrom::End(0)).map_err(damaged)?;
        file.rewind().map_err(damaged)?;
        let mut magic = [0; MAGIC.len()];
        match file.read_exact(&mut magic) {
            Ok(()) if &magic == MAGIC => Ok(Self {
                file,
                size,
                next: MAGIC.len() as u64,
            }),
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(damaged(error)),
            _ => Err(UnpackError::malformed(
                "it is not a Debian package: it does not start as an ar archive",
            )),
        }
    }

    /// The next member; `None` at the end. The content of the last one need not have been read.
    pub(super) fn next_member(&mut self) -> Result<Option<Member<'a>>, UnpackError> {
        if self.next >= self.size {
            return Ok(None);
        }
        let mut file = self.file;
        file.seek(SeekFrom::Start(self.next)).map_err(damaged)?;
        let mut header = [0; HEADER];
        file.read_exact(&mut header).map_err(damaged)?;
        if !header.ends_with(b"`\n") {
            return Err(UnpackError::malformed("a header of the ar archive is malformed"));
        }
        let text = |range: std::ops::Range<usize>| {
            std::str::from_utf8(&header[range])
                .map(|text| text.trim_end_matches(' '))
                .map_err(|_| UnpackError::malformed("a header of the ar archive is not text"))
        };
        let name = text(0..16)?.trim_end_matches('/').to_owned();
        let size = text(48..58)?;
        let size = size
            .parse::<u64>()
            .map_err(|_| UnpackError::malformed(format!("the size of its member `{name}` is `{size}`")))?;
        let start = self.next + HEADER as u64;
        if size > self.size - start {
            return Err(UnpackError::malformed(format!(
                "it is cut off within its member `{name}`"
            )));
        }
        self.next = start + size + size % 2;
        let content = self.file.take(size);
        Ok(Some(Member { name, content }))
    }
}

fn damaged(source: io::Error) -> UnpackError {
    UnpackError::Damaged { source }
}
