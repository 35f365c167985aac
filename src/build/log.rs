//! The *log* of a build: what its script wrote, kept whole in a file, told line by line as it comes.
//!
//! Invariant: memory is bounded whatever the script writes; the file holds the bytes as they were written, up to
//! [`LOG_MAX`].

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::fsio::{IoContext, PathError, give};

/// How many of the last lines an error shows.
pub(super) const TAIL: usize = 25;

/// Most bytes of one log that are kept in its file.
const LOG_MAX: u64 = 256 << 20;

/// A line longer than about this many bytes is told in pieces.
const LINE_MAX: usize = 8 << 10;

/// A log being written.
pub(super) struct BuildLog {
    file: File,
    path: PathBuf,
    size: u64,
    partial: Vec<u8>,
    tail: VecDeque<String>,
    failure: Option<PathError>,
}

impl BuildLog {
    /// Starts the log in a new file at `path`; an older one is replaced.
    pub(super) fn create(path: PathBuf) -> Result<Self, PathError> {
        Ok(Self {
            file: create(&path)?,
            path,
            size: 0,
            partial: Vec::new(),
            tail: VecDeque::with_capacity(TAIL),
            failure: None,
        })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the next bytes in, and gives each line that they complete to `tell`.
    pub(super) fn take(&mut self, bytes: &[u8], tell: &mut dyn FnMut(&str)) {
        self.keep(bytes);
        let lines = bytes.split_inclusive(|&byte| byte == b'\n');
        for piece in lines.flat_map(|line| line.chunks(LINE_MAX)) {
            self.partial.extend_from_slice(piece);
            if self.partial.ends_with(b"\n") || self.partial.len() >= LINE_MAX {
                self.end_line(tell);
            }
        }
    }

    /// Ends a last line that has no line feed; gives the last lines.
    pub(super) fn finish(mut self, tell: &mut dyn FnMut(&str)) -> Result<Vec<String>, PathError> {
        if !self.partial.is_empty() {
            self.end_line(tell);
        }
        match self.failure {
            Some(failure) => Err(failure),
            None => Ok(self.tail.into()),
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = usize::try_from(LOG_MAX - self.size).unwrap_or(usize::MAX);
        let kept = &bytes[..bytes.len().min(room)];
        self.size += kept.len() as u64;
        let result = self
            .file
            .write_all(kept)
            .and_then(|()| match kept.len() < bytes.len() && !kept.is_empty() {
                true => self.file.write_all(b"\n[layerize: the rest is not kept]\n"),
                false => Ok(()),
            });
        // The build goes on: what it makes does not depend on its log. The failure is told at the end.
        if let (Err(failure), None) = (result.context("write", &self.path), &self.failure) {
            self.failure = Some(failure);
        }
    }

    fn end_line(&mut self, tell: &mut dyn FnMut(&str)) {
        let text = String::from_utf8_lossy(&self.partial);
        let line = text.trim_end_matches(['\n', '\r']);
        tell(line);
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line.to_owned());
        self.partial.clear();
    }
}

fn create(path: &Path) -> Result<File, PathError> {
    let file = File::create(path).context("create", path)?;
    give(path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(pieces: &[&[u8]]) -> (Vec<String>, Vec<String>, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let mut log = BuildLog::create(dir.path().join("log")).unwrap();
        let mut lines = Vec::new();
        for piece in pieces {
            log.take(piece, &mut |line| lines.push(line.to_owned()));
        }
        let tail = log.finish(&mut |line| lines.push(line.to_owned())).unwrap();
        (lines, tail, std::fs::read(dir.path().join("log")).unwrap())
    }

    #[test]
    fn lines_are_joined_over_pieces() {
        let (lines, tail, bytes) = run(&[b"a", b"b\nc\r\n", b"\nlast \xff"]);
        assert_eq!(lines, ["ab", "c", "", "last \u{fffd}"]);
        assert_eq!(tail, lines);
        assert_eq!(bytes, b"ab\nc\r\n\nlast \xff");
    }

    #[test]
    fn the_tail_holds_the_last_lines() {
        let text: String = (0..100).map(|i| format!("{i}\n")).collect();
        let (lines, tail, _) = run(&[text.as_bytes()]);
        assert_eq!(lines.len(), 100);
        assert_eq!((tail.len(), tail[0].as_str(), tail[24].as_str()), (25, "75", "99"));
    }

    #[test]
    fn endless_lines_are_cut() {
        let (lines, _, bytes) = run(&[&[b'x'; LINE_MAX], &[b'y'; 3]]);
        assert_eq!((lines.len(), lines[1].as_str(), bytes.len()), (2, "yyy", LINE_MAX + 3));
    }
}
