//! *Git LFS* keeps files beside a repository, which has pointers in their place.
//!
//! Invariant: a pointer names its file's SHA-256, so that the file is verified as any download is; none stands in a tree
//! that did not ask for it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::GitError;
use super::command::local_git_dir;
use super::lfs_server::{self, LfsServer};
use super::repository::Repository;
use crate::digest::Digest;
use crate::escape::shown_bytes;
use crate::event::Reporter;
use crate::fetch::FetchError;
use crate::fetch::cache::{Cache, Expected, Labels};
use crate::fetch::download::THREADS;
use crate::fsio::IoContext;
use crate::parallel;
use crate::spec::GitAddress;

/// A pointer has fewer bytes than this (Git LFS specification).
pub(super) const POINTER_MAX: u64 = 1024;

/// A pointer: what stands for a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pointer {
    pub digest: Digest,
    pub size: u64,
}

impl Pointer {
    fn expected(self) -> Expected {
        Expected {
            hash: self.digest.into(),
            size: Some(self.size),
        }
    }

    /// Reads a pointer; `None` where the bytes are none.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines = text.lines();
        let version = lines.next()?.strip_prefix("version ")?;
        if !VERSIONS.contains(&version) {
            return None;
        }
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        Some(Self {
            digest: Digest::from_hex(value("oid")?.strip_prefix("sha256:")?).ok()?,
            size: value("size")?.parse().ok()?,
        })
    }
}

/// Where files of Git LFS come from.
pub(super) struct Storage<'a> {
    pub cache: &'a Cache,
    pub reporter: &'a dyn Reporter,
}

impl Storage<'_> {
    /// The files that pointers of a repository stand for, in the download cache by their digests; `server` is the address
    /// of where they are, if the repository says one.
    pub(super) fn bring(
        &self,
        repository: &Repository<'_>,
        pointers: &BTreeMap<Vec<u8>, Pointer>,
        server: Option<&str>,
    ) -> Result<BTreeMap<Digest, PathBuf>, FetchError> {
        let wanted: BTreeMap<Digest, (&[u8], Pointer)> = (pointers.iter())
            .map(|(place, pointer)| (pointer.digest, (place.as_slice(), *pointer)))
            .collect();
        let (mut found, mut missing) = (BTreeMap::new(), Vec::new());
        for (digest, (place, pointer)) in wanted {
            match self.find(repository, pointer)? {
                Some(file) => drop(found.insert(digest, file)),
                None => missing.push((place, pointer)),
            }
        }
        let Some((first, pointer)) = missing.first() else {
            return Ok(found);
        };
        let git = &repository.git;
        if git.config.offline && !git.address.is_local() {
            let name = format!("files of Git LFS of {}", git.address);
            return Err(FetchError::Offline { name });
        }
        let mut server = LfsServer::of(git, server).map_err(|reason| absent(repository, first, pointer, reason))?;
        for batch in missing.chunks(lfs_server::BATCH) {
            let asked: Vec<Pointer> = batch.iter().map(|(_, pointer)| *pointer).collect();
            let objects = server.ask(&asked)?;
            let files = parallel::map(batch, THREADS, |(place, pointer)| {
                let hex = pointer.digest.hex();
                let object = objects.iter().find(|object| object.oid == hex);
                let opened = match object {
                    Some(object) => server.open(object)?,
                    None => Err("the server does not know of it".to_owned()),
                };
                let mut reply = opened.map_err(|reason| absent(repository, place, pointer, reason))?;
                let _lock = self.cache.lock(&pointer.digest.into())?;
                let origin = reply.url.to_string();
                self.insert(pointer, &mut reply.answer, &origin)
            })?;
            found.extend(batch.iter().map(|(_, pointer)| pointer.digest).zip(files));
        }
        Ok(found)
    }

    /// The file in the download cache, or in a repository of this machine.
    fn find(&self, repository: &Repository<'_>, pointer: Pointer) -> Result<Option<PathBuf>, FetchError> {
        let _lock = self.cache.lock(&pointer.digest.into())?;
        if let Some(file) = self.cache.lookup(pointer.expected(), self.reporter)? {
            return Ok(Some(file));
        }
        match &repository.git.address {
            GitAddress::Local(dir) => self.take(dir, &pointer),
            GitAddress::Remote(_) => Ok(None),
        }
    }

    /// The file from a repository of this machine.
    fn take(&self, repository: &Path, pointer: &Pointer) -> Result<Option<PathBuf>, FetchError> {
        let hex = pointer.digest.hex();
        let objects = local_git_dir(repository)?.join("lfs/objects");
        let path = objects.join(&hex[..2]).join(&hex[2..4]).join(&hex);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).context("open", &path)?,
        };
        let origin = path.display().to_string();
        self.insert(pointer, &mut file, &origin).map(Some)
    }

    fn insert(&self, pointer: &Pointer, content: &mut dyn io::Read, origin: &str) -> Result<PathBuf, FetchError> {
        let name = format!("{}.lfs", &pointer.digest.hex()[..12]);
        let labels = Labels { name: &name, origin };
        self.cache.insert(pointer.expected(), content, labels, self.reporter)
    }
}

fn absent(repository: &Repository<'_>, place: &[u8], pointer: &Pointer, reason: String) -> FetchError {
    let path: Vec<u8> = place.iter().map(|&byte| if byte == 0 { b'/' } else { byte }).collect();
    GitError::LfsObject {
        repository: repository.git.address.to_string(),
        path: shown_bytes(&path),
        object: pointer.digest,
        reason,
    }
    .into()
}

/// The address of the server that a repository names in `.lfsconfig`, whose object this is.
pub(super) fn server_of(repository: &Repository<'_>, config: &str) -> Result<Option<String>, FetchError> {
    let mut command = repository.git.command(Some(&repository.dir));
    command.args(["config", "--blob", config, "--no-includes", "--get", "lfs.url"]);
    let output = repository.git.output(&mut command)?;
    let url = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(output.status.success().then_some(url))
}

/// How pointers say that they are some.
const VERSIONS: &[&str] = &[
    "https://git-lfs.github.com/spec/v1",
    "https://hawser.github.com/spec/v1",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_told_from_files() {
        let digest = Digest::of(b"x");
        let text = format!(
            "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 1\n",
            digest.hex()
        );
        assert_eq!(Pointer::parse(text.as_bytes()), Some(Pointer { digest, size: 1 }));
        for other in [
            "",
            "version https://git-lfs.github.com/spec/v1\n",
            &text.replace("v1", "v2"),
            &text.replace("sha256", "sha512"),
            &text.replace("size 1", "size -1"),
            &format!(" {text}"),
        ] {
            assert_eq!(Pointer::parse(other.as_bytes()), None, "{other}");
        }
    }
}
