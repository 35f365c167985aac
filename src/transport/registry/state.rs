//! The *state* is what outlives a run: uploads that were begun, and what was learned of each registry.
//!
//! Invariant: it is a help and no truth: what cannot be read is as good as not there, what cannot be written is left
//! out, and a registry is asked before anything here is believed.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::digest::{ContentDigest, Digest};
use crate::fsio::{self, FileLock, LockKind};
use crate::oci::canonical_json;

/// Largest file here.
const FILE_MAX: u64 = 64 << 10;

/// An upload that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    /// The registry's host.
    pub(super) registry: String,
    /// The repository.
    pub(super) repository: String,
    /// The blob.
    pub(super) digest: ContentDigest,
    /// Where the rest goes to.
    pub(super) location: String,
    /// How many bytes had arrived when this was written, at least.
    pub(super) offset: u64,
}

/// The place of one upload's record, locked for this process.
pub(super) struct Place {
    path: PathBuf,
    _lock: FileLock,
}

impl Place {
    /// The place for a blob's upload; `None` where another process has it, or nothing can be kept.
    pub(super) fn open(state_dir: &Path, registry: &str, repository: &str, digest: &ContentDigest) -> Option<Self> {
        let dir = state_dir.join("uploads");
        fsio::create_dir_all(&dir).ok()?;
        let key = Digest::of(format!("{registry}\n{repository}\n{digest}").as_bytes()).hex();
        let lock = FileLock::try_acquire(&dir.join(format!("{key}.lock")), LockKind::Exclusive).ok()??;
        Some(Self {
            path: dir.join(format!("{key}.json")),
            _lock: lock,
        })
    }

    /// What was begun here.
    pub(super) fn read(&self, registry: &str, repository: &str, digest: &ContentDigest) -> Option<Begun> {
        let bytes = fsio::read_limited(&self.path, FILE_MAX).ok()?;
        let begun: Begun = serde_json::from_slice(&bytes).ok()?;
        let ours = begun.registry == registry && begun.repository == repository && begun.digest == *digest;
        ours.then_some(begun)
    }

    /// Remembers an upload.
    pub(super) fn write(&self, begun: &Begun) {
        let _ = fsio::write_atomic(&self.path, &canonical_json(begun));
    }

    /// Forgets it.
    pub(super) fn remove(&self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A finished upload leaves nothing behind. The lock's file goes while the lock is held: who opened it before
        // locks a file without a name, which at worst costs a resumption.
        if !self.path.exists() {
            let _ = std::fs::remove_file(self.path.with_extension("lock"));
        }
    }
}

/// What is known of a registry's uploads.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Limits {
    /// Largest chunk that it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) chunk_max: Option<u64>,
    /// Largest body at all that it, or what is before it, takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) body_max: Option<u64>,
    /// It takes no chunks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) whole_only: bool,
}

impl Limits {
    /// What is known beforehand: GitHub takes chunks of 4 MiB at most, Google's registries take none.
    pub(super) fn of_host(host: &str) -> Self {
        let name = host.split(':').next().unwrap_or(host);
        let google = name == "gcr.io" || name.ends_with(".gcr.io") || name.ends_with(".pkg.dev");
        Self {
            chunk_max: (name == "ghcr.io").then_some(4 << 20),
            body_max: None,
            whole_only: google,
        }
    }

    /// With what runs before this one learned.
    pub(super) fn load(state_dir: Option<&Path>, host: &str) -> Self {
        let read = || {
            let bytes = fsio::read_limited(&limits_path(state_dir?, host), FILE_MAX).ok()?;
            serde_json::from_slice::<Self>(&bytes).ok()
        };
        let known = Self::of_host(host);
        let Some(read) = read() else { return known };
        let least = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        Self {
            chunk_max: least(known.chunk_max, read.chunk_max.map(|max| max.max(1))),
            body_max: read.body_max.map(|max| max.max(1)),
            whole_only: known.whole_only || read.whole_only,
        }
    }

    /// Remembers what was learned.
    pub(super) fn save(&self, state_dir: Option<&Path>, host: &str) {
        if let Some(path) = state_dir.map(|dir| limits_path(dir, host)) {
            let made = path.parent().is_some_and(|dir| fsio::create_dir_all(dir).is_ok());
            if made {
                let _ = fsio::write_atomic(&path, &canonical_json(self));
            }
        }
    }
}

fn limits_path(state_dir: &Path, host: &str) -> PathBuf {
    // Hosts come from references, whose grammar has no `/`; a colon is fine in a file name here.
    state_dir
        .join("limits")
        .join(format!("{}.json", host.replace('/', "_")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_is_remembered_for_one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let digest = ContentDigest::from(Digest::of(b"x"));
        let place = Place::open(dir.path(), "r", "a", &digest).unwrap();
        assert!(Place::open(dir.path(), "r", "a", &digest).is_none());
        assert!(Place::open(dir.path(), "r", "b", &digest).is_some());
        let begun = Begun {
            registry: "r".into(),
            repository: "a".into(),
            digest,
            location: "https://r/x".into(),
            offset: 7,
        };
        assert_eq!(place.read("r", "a", &digest), None);
        place.write(&begun);
        drop(place);
        let place = Place::open(dir.path(), "r", "a", &digest).unwrap();
        assert_eq!(place.read("r", "a", &digest), Some(begun));
        assert_eq!(place.read("other", "a", &digest), None);
        place.remove();
        drop(place);
        assert!(fsio::sorted_names(&dir.path().join("uploads")).unwrap().is_empty());
    }

    #[test]
    fn limits_known_beforehand_and_learned_ones_are_joined() {
        assert_eq!(Limits::of_host("ghcr.io").chunk_max, Some(4 << 20));
        for host in ["gcr.io", "eu.gcr.io", "europe-docker.pkg.dev"] {
            assert!(Limits::of_host(host).whole_only, "{host}");
        }
        assert_eq!(Limits::of_host("notgcr.io"), Limits::default());
        let dir = tempfile::tempdir().unwrap();
        let learned = Limits {
            chunk_max: Some(1 << 20),
            body_max: Some(9),
            whole_only: false,
        };
        learned.save(Some(dir.path()), "ghcr.io");
        learned.save(Some(dir.path()), "r.example:5000");
        assert_eq!(Limits::load(Some(dir.path()), "ghcr.io"), learned);
        assert_eq!(Limits::load(Some(dir.path()), "r.example:5000"), learned);
        assert_eq!(Limits::load(None, "r.example:5000"), Limits::default());
        std::fs::write(limits_path(dir.path(), "x"), "no json").unwrap();
        assert_eq!(Limits::load(Some(dir.path()), "x"), Limits::default());
    }
}
