//! The *decoder* reads an archive as the sequence of entries it holds.
//!
//! Invariant: it accepts exactly the bytes that the encoder writes; whatever else it is given (names out of
//! order, `..`, slashes, absurd lengths, an early end, bytes after the end) is an error, and its memory is
//! bounded by [`MAX_DEPTH`] times [`MAX_NAME`].

use std::io::{self, Read};

use super::encode::{MAGIC, padding};
use super::{Entry, EntryKind, MAX_DEPTH, MAX_NAME, MAX_TARGET, NarError, Visitor};

/// Longest of the format's own words.
const MAX_WORD: usize = 16;

/// Reads an archive to its end and hands every entry with its contents to `visitor`.
///
/// The archive is hostile until proven otherwise: entries reach the visitor before what follows them has been
/// checked, so a visitor that keeps anything must undo it when this fails.
pub fn read(source: &mut dyn Read, visitor: &mut Visitor<'_>) -> Result<(), NarError> {
    let mut decoder = NarDecoder { source, offset: 0 };
    decoder.expect(MAGIC)?;
    let mut open: Vec<Directory> = Vec::new();
    let mut path = Vec::new();
    loop {
        if decoder.node(&path, visitor)? {
            if open.len() >= MAX_DEPTH {
                return Err(decoder.malformed(format!("more than {MAX_DEPTH} directories lie in one another")));
            }
            open.push(Directory {
                length: path.len(),
                last: None,
            });
        } else if !open.is_empty() {
            decoder.expect(b")")?;
        }
        if !decoder.next_entry(&mut open, &mut path)? {
            return decoder.end();
        }
    }
}

/// A directory whose entries are being read.
struct Directory {
    /// Length of its path.
    length: usize,
    /// Name of the entry before.
    last: Option<Vec<u8>>,
}

struct NarDecoder<'a> {
    source: &'a mut dyn Read,
    offset: u64,
}

impl NarDecoder<'_> {
    /// Reads a node up to its `)`, or up to a directory's first entry: true where it is a directory.
    fn node(&mut self, path: &[u8], visitor: &mut Visitor<'_>) -> Result<bool, NarError> {
        self.expect(b"(")?;
        self.expect(b"type")?;
        let start = self.offset;
        let mut entry = Entry {
            path: path.to_owned(),
            kind: EntryKind::Directory,
        };
        match self.word()?.as_slice() {
            b"directory" => {
                visitor(&entry, &mut io::empty())?;
                return Ok(true);
            }
            b"symlink" => {
                self.expect(b"target")?;
                let at = self.offset;
                let target = self.string(MAX_TARGET, "the target of a symlink")?;
                if target.is_empty() || target.contains(&0) {
                    return Err(malformed(at, "the target of a symlink is empty or holds a zero byte"));
                }
                entry.kind = EntryKind::Symlink { target };
                visitor(&entry, &mut io::empty())?;
            }
            b"regular" => self.file(&mut entry, visitor)?,
            _ => {
                return Err(malformed(
                    start,
                    "it is neither `regular` nor `directory` nor `symlink`",
                ));
            }
        }
        self.expect(b")")?;
        Ok(false)
    }

    fn file(&mut self, entry: &mut Entry, visitor: &mut Visitor<'_>) -> Result<(), NarError> {
        let start = self.offset;
        let mut executable = false;
        let mut word = self.word()?;
        if word == b"executable" {
            executable = true;
            self.expect(b"")?;
            word = self.word()?;
        }
        if word != b"contents" {
            return Err(malformed(start, "`contents` was expected"));
        }
        let size = self.number()?;
        entry.kind = EntryKind::File { executable, size };
        let mut contents = Contents {
            decoder: self,
            left: size,
            failure: None,
        };
        let result = visitor(entry, &mut contents);
        if let Some(failure) = contents.failure.take() {
            return Err(failure);
        }
        result?;
        contents.skip()?;
        self.padding(size)
    }

    /// Goes on to the next entry, leaving directories that end; false where the root has ended.
    fn next_entry(&mut self, open: &mut Vec<Directory>, path: &mut Vec<u8>) -> Result<bool, NarError> {
        loop {
            let Some(directory) = open.last_mut() else {
                return Ok(false);
            };
            path.truncate(directory.length);
            let start = self.offset;
            match self.word()?.as_slice() {
                b"entry" => {
                    self.expect(b"(")?;
                    self.expect(b"name")?;
                    let name = self.name(directory.last.as_deref())?;
                    self.expect(b"node")?;
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(&name);
                    directory.last = Some(name);
                    return Ok(true);
                }
                b")" => {
                    open.pop();
                    if !open.is_empty() {
                        self.expect(b")")?;
                    }
                }
                _ => return Err(malformed(start, "`entry` or `)` was expected")),
            }
        }
    }

    fn name(&mut self, last: Option<&[u8]>) -> Result<Vec<u8>, NarError> {
        let start = self.offset;
        let name = self.string(MAX_NAME, "a name")?;
        let shown = String::from_utf8_lossy(&name).into_owned();
        match name.as_slice() {
            b"" | b"." | b".." => Err(malformed(start, &format!("`{shown}` cannot be a name"))),
            bytes if bytes.contains(&b'/') || bytes.contains(&0) => {
                let reason = format!("the name `{}` holds a slash or a zero byte", shown.escape_debug());
                Err(malformed(start, &reason))
            }
            bytes if last.is_some_and(|last| last >= bytes) => Err(malformed(
                start,
                &format!("`{shown}` does not come after the name before it"),
            )),
            _ => Ok(name),
        }
    }

    /// Nothing may follow.
    fn end(&mut self) -> Result<(), NarError> {
        let mut byte = [0];
        match self.fill_some(&mut byte)? {
            0 => Ok(()),
            _ => Err(malformed(self.offset - 1, "bytes follow the end of the archive")),
        }
    }

    fn expect(&mut self, word: &[u8]) -> Result<(), NarError> {
        let start = self.offset;
        if self.word()? == word {
            return Ok(());
        }
        Err(malformed(
            start,
            &format!("`{}` was expected", String::from_utf8_lossy(word)),
        ))
    }

    fn word(&mut self) -> Result<Vec<u8>, NarError> {
        self.string(MAX_WORD, "a word")
    }

    fn string(&mut self, most: usize, what: &str) -> Result<Vec<u8>, NarError> {
        let start = self.offset;
        let length = self.number()?;
        let Some(fitting) = usize::try_from(length).ok().filter(|&length| length <= most) else {
            return Err(malformed(
                start,
                &format!("{what} of {length} bytes is longer than {most}"),
            ));
        };
        let mut bytes = vec![0; fitting];
        self.fill(&mut bytes)?;
        self.padding(length)?;
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u64, NarError> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn padding(&mut self, length: u64) -> Result<(), NarError> {
        let start = self.offset;
        let mut bytes = [0; 8];
        let zeros = padding(length);
        self.fill(&mut bytes[..zeros])?;
        match bytes {
            [0, 0, 0, 0, 0, 0, 0, 0] => Ok(()),
            _ => Err(malformed(start, "the padding is not zero")),
        }
    }

    fn fill(&mut self, mut buffer: &mut [u8]) -> Result<(), NarError> {
        while !buffer.is_empty() {
            match self.fill_some(buffer)? {
                0 => return Err(self.malformed("the archive ends early".to_owned())),
                count => buffer = &mut buffer[count..],
            }
        }
        Ok(())
    }

    fn fill_some(&mut self, buffer: &mut [u8]) -> Result<usize, NarError> {
        loop {
            match self.source.read(buffer) {
                Ok(count) => {
                    self.offset += count as u64;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    let offset = self.offset;
                    return Err(NarError::Source { offset, source });
                }
            }
        }
    }

    fn malformed(&self, reason: String) -> NarError {
        malformed(self.offset, &reason)
    }
}

fn malformed(offset: u64, reason: &str) -> NarError {
    NarError::Malformed {
        offset,
        reason: reason.to_owned(),
    }
}

/// A file's contents in the archive.
struct Contents<'a, 'b> {
    decoder: &'a mut NarDecoder<'b>,
    left: u64,
    /// Why reading failed; whoever was reading has seen no more than its kind.
    failure: Option<NarError>,
}

impl Contents<'_, '_> {
    /// Reads what the visitor left.
    fn skip(&mut self) -> Result<(), NarError> {
        let mut block = [0; 4096];
        while self.left > 0 {
            self.read_some(&mut block)?;
        }
        Ok(())
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, NarError> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        match self.decoder.fill_some(&mut buffer[..most])? {
            0 => Err(self.decoder.malformed("the archive ends early".to_owned())),
            count => {
                self.left -= count as u64;
                Ok(count)
            }
        }
    }
}

impl Read for Contents<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_some(buffer).map_err(|failure| {
            self.failure = Some(failure);
            io::Error::from(io::ErrorKind::InvalidData)
        })
    }
}
