//! The *objects* of a repository as they are stored: the list of a tree, and files' bytes.
//!
//! Invariant: git is asked for objects by their names alone, so that no attribute, filter or configuration changes one; what
//! is listed is bounded.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, Take, Write};
use std::process::{ChildStderr, ChildStdout, Stdio};

use super::GitError;
use super::repository::Repository;
use crate::child::{self, RunningChild};
use crate::escape::shown_bytes;
use crate::fetch::FetchError;
use crate::nar;
use crate::spec::GitCommit;

/// An entry of a tree, directories left out: git knows of those only by what is in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TreeEntry {
    /// From the tree's root.
    pub path: Vec<u8>,
    pub kind: EntryKind,
    /// Name of the object.
    pub object: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryKind {
    File { executable: bool },
    Symlink,
    Submodule,
}

/// Longest line of a list: mode, kind and object before the path.
const LINE_MAX: u64 = nar::MAX_PATH as u64 + 256;

impl Repository<'_> {
    /// What is in the tree of a commit, in git's order; at most `limit` entries.
    pub(super) fn list(&self, commit: &GitCommit, limit: usize) -> Result<Vec<TreeEntry>, FetchError> {
        let mut command = self.git.command(Some(&self.dir));
        command.args(["ls-tree", "-r", "-z", "--full-tree", commit.as_str()]);
        let mut lines = Output::start(&mut command).map_err(|error| self.git.not_started(&error))?;
        let mut entries = Vec::new();
        loop {
            let mut line = Vec::new();
            let read = lines.stdout.by_ref().take(LINE_MAX).read_until(0, &mut line);
            if read.map_err(|error| self.damaged(error.to_string()))? == 0 {
                break;
            }
            if line.pop() != Some(0) {
                return Err(self.entry_error(commit, &line, "its path is longer than the system takes"));
            }
            entries.push(self.parse(commit, &line)?);
            if entries.len() > limit {
                return Err(GitError::TooLarge {
                    repository: self.git.address.to_string(),
                    limit: format!("{} files", super::ENTRIES_MAX),
                }
                .into());
            }
        }
        self.finish(lines)?;
        Ok(entries)
    }

    /// `MODE KIND OBJECT\tPATH`.
    fn parse(&self, commit: &GitCommit, line: &[u8]) -> Result<TreeEntry, FetchError> {
        let tab = line.iter().position(|&byte| byte == b'\t').unwrap_or(line.len());
        let (head, path) = (
            String::from_utf8_lossy(&line[..tab]),
            line.get(tab + 1..).unwrap_or_default(),
        );
        let mut words = head.split(' ');
        let (mode, object) = (words.next().unwrap_or_default(), words.nth(1).unwrap_or_default());
        let kind = match mode {
            // Old repositories have files that a group may write.
            "100644" | "100664" => EntryKind::File { executable: false },
            "100755" => EntryKind::File { executable: true },
            "120000" => EntryKind::Symlink,
            "160000" => EntryKind::Submodule,
            _ => return Err(self.entry_error(commit, path, &format!("its mode is {mode}"))),
        };
        if GitCommit::parse(object).is_none() {
            return Err(self.entry_error(commit, path, "its object has no name"));
        }
        Ok(TreeEntry {
            path: path.to_vec(),
            kind,
            object: object.to_owned(),
        })
    }

    /// Opens these objects to be read in this order.
    pub(super) fn read<'o>(&self, objects: impl Iterator<Item = &'o str>) -> Result<ObjectReader, FetchError> {
        self.ask("--batch", objects).map(ObjectReader)
    }

    /// The sizes of these objects in bytes, in their order.
    pub(super) fn sizes<'o>(&self, objects: impl Iterator<Item = &'o str>) -> Result<Vec<u64>, FetchError> {
        let mut answers = self.ask("--batch-check=%(objectsize)", objects)?;
        let mut sizes = Vec::new();
        for line in answers.stdout.by_ref().lines() {
            let size = line.ok().and_then(|line| line.parse().ok());
            sizes.push(size.ok_or_else(|| self.damaged("an object is missing"))?);
        }
        self.finish(answers)?;
        Ok(sizes)
    }

    fn ask<'o>(&self, what: &str, objects: impl Iterator<Item = &'o str>) -> Result<Output, FetchError> {
        let list = || -> io::Result<File> {
            let mut list = io::BufWriter::new(tempfile::tempfile()?);
            for object in objects {
                writeln!(list, "{object}")?;
            }
            let mut list = list.into_inner().map_err(io::IntoInnerError::into_error)?;
            list.rewind()?;
            Ok(list)
        };
        let mut command = self.git.command(Some(&self.dir));
        command.args(["cat-file", what, "--buffer"]);
        let started = list().and_then(|list| {
            command.stdin(list);
            Output::start(&mut command)
        });
        started.map_err(|error| self.git.not_started(&error))
    }

    /// Waits for a program that printed all it had to.
    pub(super) fn finish(&self, output: Output) -> Result<(), FetchError> {
        let (succeeded, stderr) = output.finish().map_err(|error| self.git.not_started(&error))?;
        match succeeded {
            true => Ok(()),
            false if child::is_ended() => Err(FetchError::Stopped { program: "git" }),
            false => Err(self.damaged(self.git.message(&String::from_utf8_lossy(&stderr)))),
        }
    }

    pub(super) fn entry_error(&self, commit: &GitCommit, path: &[u8], reason: &str) -> FetchError {
        GitError::Entry {
            repository: self.git.address.to_string(),
            commit: commit.short().to_owned(),
            path: shown_bytes(path),
            reason: reason.to_owned(),
        }
        .into()
    }
}

/// A program whose output is read while it runs.
pub(super) struct Output {
    running: RunningChild,
    pub stdout: BufReader<ChildStdout>,
    stderr: Option<ChildStderr>,
}

impl Output {
    pub(super) fn start(command: &mut std::process::Command) -> io::Result<Self> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = RunningChild::spawn(command)?;
        let stdout = running
            .child
            .stdout
            .take()
            .ok_or_else(|| io::Error::other("there is no pipe"))?;
        Ok(Self {
            stdout: BufReader::with_capacity(1 << 17, stdout),
            stderr: running.child.stderr.take(),
            running,
        })
    }

    /// Whether it succeeded, and what it complained of.
    pub(super) fn finish(mut self) -> io::Result<(bool, Vec<u8>)> {
        io::copy(&mut self.stdout, &mut io::sink())?;
        let mut stderr = Vec::new();
        if let Some(pipe) = &mut self.stderr {
            pipe.take(1 << 20).read_to_end(&mut stderr)?;
        }
        Ok((self.running.wait()?.success(), stderr))
    }
}

/// Objects being read, one after the other.
pub(super) struct ObjectReader(Output);

impl ObjectReader {
    /// The next object, which is `object`: its size in bytes, and its bytes, which are to be read to their end.
    pub(super) fn next(&mut self, object: &str) -> io::Result<(u64, ObjectContent<'_>)> {
        let mut line = String::new();
        self.0.stdout.by_ref().take(LINE_MAX).read_line(&mut line)?;
        let mut words = line.trim_end().split(' ');
        let (name, kind, size) = (words.next(), words.next(), words.next());
        let size = size.and_then(|size| size.parse().ok());
        match (name, kind, size) {
            (Some(name), Some("blob"), Some(size)) if name == object => {
                let content = self.0.stdout.by_ref().take(size + 1);
                Ok((size, ObjectContent { content, size, read: 0 }))
            }
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                match line.trim_end() {
                    "" => format!("object {object} cannot be read"),
                    line => format!("object {object} cannot be read: {line}"),
                },
            )),
        }
    }

    pub(super) fn into_output(self) -> Output {
        self.0
    }
}

/// The bytes of an object; a line break follows them, which is read at their end.
pub(super) struct ObjectContent<'a> {
    content: Take<&'a mut BufReader<ChildStdout>>,
    size: u64,
    read: u64,
}

impl Read for ObjectContent<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.size - self.read;
        if left == 0 {
            io::copy(&mut self.content, &mut io::sink())?;
            return Ok(0);
        }
        let room = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = self.content.read(&mut buffer[..room])?;
        if count == 0 && room > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "an object breaks off"));
        }
        self.read += count as u64;
        Ok(count)
    }
}
