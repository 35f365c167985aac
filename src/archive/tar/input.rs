//! An *input* is what a tar is read from: a stream, or a file in which bodies can be skipped by seeking.
//!
//! Invariant: skipping past the end is an error in both, so that a cut archive never passes for a whole one.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};

/// A reader that can pass over bytes.
pub trait Skip: Read {
    /// Passes over exactly `count` bytes; fewer are [`io::ErrorKind::UnexpectedEof`].
    fn skip(&mut self, count: u64) -> io::Result<()>;
}

/// Any reader: skipping reads and drops.
pub struct Streamed<R>(pub R);

impl<R: Read> Read for Streamed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read> Skip for Streamed<R> {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        let passed = io::copy(&mut (&mut self.0).take(count), &mut io::sink())?;
        if passed == count {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}

/// A file: skipping seeks, never past its end.
pub struct Seekable {
    file: BufReader<File>,
    position: u64,
    len: u64,
}

impl Seekable {
    /// Reads `file` from its start.
    pub fn new(mut file: File) -> io::Result<Self> {
        let len = file.seek(io::SeekFrom::End(0))?;
        file.rewind()?;
        Ok(Self {
            file: BufReader::new(file),
            position: 0,
            len,
        })
    }
}

impl Read for Seekable {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.position += count as u64;
        Ok(count)
    }
}

impl Skip for Seekable {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        let target = self.position.checked_add(count).filter(|&target| target <= self.len);
        let (Some(target), Ok(step)) = (target, i64::try_from(count)) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        self.file.seek_relative(step)?;
        self.position = target;
        Ok(())
    }
}
