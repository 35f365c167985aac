//! The *wire*: frames of JSON and archives in pieces, each way.
//!
//! Invariant: nothing is read into memory whose length was not found small enough first, and an archive is read to its end
//! mark or not at all.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest frame, in bytes.
pub(super) const FRAME_MAX: usize = 16 << 20;

/// Largest piece of an archive, in bytes.
const PIECE_MAX: u32 = 1 << 20;

/// Bytes of a piece that is written.
const PIECE: usize = 256 << 10;

/// In place of a length: the archive could not be read to its end.
const BROKEN: u32 = u32::MAX;

/// Why nothing could be read from a wire.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// It ended, or broke.
    #[error("the connection ended")]
    Ended(#[source] io::Error),
    /// What came is not the protocol.
    #[error("{0}")]
    Malformed(String),
}

fn ended(error: io::Error) -> WireError {
    WireError::Ended(error)
}

/// What comes in.
pub(super) struct Incoming<R>(pub R);

impl<R: Read> Incoming<R> {
    /// A frame.
    pub(super) fn frame<T: DeserializeOwned>(&mut self) -> Result<T, WireError> {
        match self.next()? {
            Some(frame) => Ok(frame),
            None => Err(ended(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// A frame; `None` where the other side closed between two.
    pub(super) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, WireError> {
        let mut length = [0; 4];
        if !read_all_or_none(&mut self.0, &mut length).map_err(ended)? {
            return Ok(None);
        }
        let length = u32::from_le_bytes(length) as usize;
        if length > FRAME_MAX {
            return Err(WireError::Malformed(format!(
                "a message of {length} bytes, where there may be {FRAME_MAX}"
            )));
        }
        // Grows with what comes, not with what was announced.
        let mut bytes = Vec::new();
        (&mut self.0)
            .take(length as u64)
            .read_to_end(&mut bytes)
            .map_err(ended)?;
        if bytes.len() < length {
            return Err(ended(io::ErrorKind::UnexpectedEof.into()));
        }
        let parsed = serde_json::from_slice(&bytes);
        parsed
            .map(Some)
            .map_err(|error| WireError::Malformed(format!("a message that makes no sense: {error}")))
    }

    /// An archive, to be read to its end.
    pub(super) fn archive(&mut self) -> Archive<'_, R> {
        Archive {
            from: &mut self.0,
            left: 0,
            is_over: false,
            has_broken: false,
        }
    }
}

/// False where it ended before the first byte.
fn read_all_or_none(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// An archive on its way in.
pub(super) struct Archive<'a, R> {
    from: &'a mut R,
    /// Bytes of the piece that are to come.
    left: u32,
    is_over: bool,
    /// Whether the wire ended before the archive did.
    pub(super) has_broken: bool,
}

impl<R: Read> Archive<'_, R> {
    /// That it ended where its reader did.
    pub(super) fn finish(mut self) -> Result<(), WireError> {
        match self.read(&mut [0; 1]).map_err(ended)? {
            0 => Ok(()),
            _ => Err(WireError::Malformed("an archive goes on behind its end".to_owned())),
        }
    }
}

impl<R: Read> Read for Archive<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_over || buffer.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            let mut length = [0; 4];
            let read = self.from.read_exact(&mut length);
            self.has_broken |= read.is_err();
            read?;
            self.left = match u32::from_le_bytes(length) {
                0 => {
                    self.is_over = true;
                    return Ok(0);
                }
                BROKEN => return Err(io::Error::other("the other side could not read it to its end")),
                length if length > PIECE_MAX => {
                    let message = format!("a piece of {length} bytes, where there may be {PIECE_MAX}");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, message));
                }
                length => length,
            };
        }
        let most = buffer.len().min(self.left as usize);
        let count = match self.from.read(&mut buffer[..most]) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            other => other,
        };
        self.has_broken |= count.is_err();
        let count = count?;
        self.left -= u32::try_from(count).unwrap_or(self.left);
        Ok(count)
    }
}

/// What goes out.
pub(super) struct Outgoing<W>(pub W);

impl<W: Write> Outgoing<W> {
    /// Sends a frame.
    pub(super) fn frame(&mut self, message: &impl Serialize) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let length = u32::try_from(bytes.len())
            .ok()
            .filter(|&length| length as usize <= FRAME_MAX);
        let length = length.ok_or_else(|| io::Error::other("a message is too long to be sent"))?;
        self.0.write_all(&length.to_le_bytes())?;
        self.0.write_all(&bytes)?;
        self.0.flush()
    }

    /// Sends an archive that `write` writes; its own failure is told apart from that of the wire.
    pub(super) fn archive<E>(
        &mut self,
        write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> io::Result<Result<(), E>> {
        let mut pieces = Pieces {
            to: &mut self.0,
            buffer: Vec::with_capacity(PIECE),
            broken: None,
        };
        let written = write(&mut pieces);
        if let Some(error) = pieces.broken.take() {
            return Err(error);
        }
        let end = match &written {
            Ok(()) => {
                pieces.send()?;
                0
            }
            Err(_) => BROKEN,
        };
        self.0.write_all(&end.to_le_bytes())?;
        self.0.flush()?;
        Ok(written)
    }
}

/// Writes an archive piece by piece.
struct Pieces<'a, W> {
    to: &'a mut W,
    buffer: Vec<u8>,
    broken: Option<io::Error>,
}

impl<W: Write> Pieces<'_, W> {
    fn send(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let length = u32::try_from(self.buffer.len()).map_err(io::Error::other)?;
        self.to.write_all(&length.to_le_bytes())?;
        self.to.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}

impl<W: Write> Write for Pieces<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        if self.buffer.len() == PIECE
            && let Err(error) = self.send()
        {
            let again = io::Error::new(error.kind(), error.to_string());
            self.broken = Some(error);
            return Err(again);
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_archives_are_read_back() {
        let mut wire = Outgoing(Vec::new());
        wire.frame(&"hello").unwrap();
        let bytes: Vec<u8> = (0..700_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        wire.archive(|to| to.write_all(&bytes)).unwrap().unwrap();
        wire.frame(&7).unwrap();
        let mut wire = Incoming(wire.0.as_slice());
        assert_eq!(wire.frame::<String>().unwrap(), "hello");
        let mut archive = wire.archive();
        let mut read = Vec::new();
        archive.read_to_end(&mut read).unwrap();
        archive.finish().unwrap();
        assert!(read == bytes);
        assert_eq!(wire.frame::<u8>().unwrap(), 7);
        assert!(wire.next::<u8>().unwrap().is_none());
    }

    #[test]
    fn what_is_too_long_or_too_short_is_refused() {
        let huge = u32::MAX.to_le_bytes();
        assert!(matches!(
            Incoming(&huge[..]).frame::<u8>(),
            Err(WireError::Malformed(_))
        ));
        for short in [&[1, 0][..], &[9, 0, 0, 0, b'1']] {
            assert!(matches!(Incoming(short).frame::<u8>(), Err(WireError::Ended(_))));
        }
        let bad = [3, 0, 0, 0, b'{', b'{', b'{'];
        assert!(matches!(Incoming(&bad[..]).frame::<u8>(), Err(WireError::Malformed(_))));
        for (bytes, text) in [
            (&[0, 0, 0x20, 0][..], "a piece of"),
            (&[0xff; 4], "could not read"),
            (&[2, 0, 0, 0, 1], "end"),
        ] {
            let error = Incoming(bytes).archive().read_to_end(&mut Vec::new()).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
        let more = [1, 0, 0, 0, 1, 0, 0, 0, 0];
        assert!(matches!(
            Incoming(&more[..]).archive().finish(),
            Err(WireError::Malformed(_))
        ));
    }

    #[test]
    fn an_archive_that_cannot_be_read_is_marked() {
        let mut wire = Outgoing(Vec::new());
        let failed = wire.archive(|to| {
            to.write_all(b"some").unwrap();
            Err("gone")
        });
        assert_eq!(failed.unwrap(), Err("gone"));
        assert_eq!(wire.0, [0xff; 4]);
    }
}
