//! A place in *Nix's format*: a binary cache whose archives hold the paths, and beside its narinfos, in a folder that Nix does
//! not look at, what steps made.
//!
//! Invariant: an entry is there after the narinfos and archives of all that it names. Nothing that is read is believed here.
//!
//! ```text
//! nix-cache-info            StoreDir: /layerize/store
//! HASH.narinfo, nar/…       a path and its archive, as `layerize store copy --to` writes them
//! layerize-builds/p-HEX     a record of the step with that plan key
//! layerize-builds/b-HEX     the same, by the build key
//! ```
//!
//! Nix's own `realisations/` answers another question: what an output of a derivation *of Nix* is, without its closure.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use super::entry::{ENTRY_SIZE_MAX, Entry};
use super::error::SharedCacheError;
use super::place::optional;
use super::prune::{CachedEntry, Pruned, is_entry_tag, joined};
use super::trust::{CacheTrust, Statement};
use super::write::PublishedPath;
use super::{age, build_tag, plan_tag};
use crate::binary_cache::{self, BinaryCache, CacheError, ExportMember, ExportOptions, SecretKey};
use crate::digest::Digest;
use crate::event::Silent;
use crate::fsio::{IoContext, create_dir_all, read_limited, sorted_names, write_atomic};
use crate::oci::{Annotations, CompressionFormat, canonical_json, parse_json};
use crate::store_path::{PathInfo, StoreDir};
use crate::transport::registry::RegistryConfig;

/// The folder of records.
const FOLDER: &str = "layerize-builds";

/// Largest record that is read, in bytes: an entry, its signatures and its date.
const RECORD_MAX: u64 = ENTRY_SIZE_MAX + (64 << 10);

/// An entry with what is said of it, as it stands in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// Signatures of the entry's canonical bytes, and the date.
    pub annotations: Annotations,
    /// What a step made.
    pub entry: Entry,
}

impl Record {
    /// An entry that is signed by all keys, and by those that signed the same in a record with the annotations `held`.
    pub(super) fn new(entry: Entry, keys: &[SecretKey], held: Option<&Annotations>) -> Self {
        let digest = Digest::of(&entry.bytes());
        Self {
            annotations: Statement::Build(&digest).signed(keys, held),
            entry,
        }
    }

    /// The same with the date of `now`.
    pub(super) fn dated(&self, now: Option<i64>) -> Self {
        Self {
            annotations: age::dated(self.annotations.clone(), now),
            entry: self.entry.clone(),
        }
    }

    /// Whether it is believed; if not, why.
    pub(super) fn check(&self, trust: &CacheTrust) -> Result<(), String> {
        let digest = Digest::of(&self.entry.bytes());
        trust.check(&Statement::Build(&digest), &self.annotations)
    }

    /// Whether one of the trusted keys has signed it.
    pub(super) fn check_signed(&self, trust: &CacheTrust) -> Result<(), String> {
        let digest = Digest::of(&self.entry.bytes());
        trust.check_signed(&Statement::Build(&digest), &self.annotations)
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        parse_json(text).map_err(|error| crate::fsio::with_causes(&error))
    }

    fn bytes(&self) -> Vec<u8> {
        canonical_json(self)
    }
}

/// A binary cache, opened when it is asked first.
#[derive(Clone)]
pub(super) struct NixPlace {
    /// As the user wrote it.
    name: String,
    dir: Option<PathBuf>,
    registries: RegistryConfig,
    opened: Arc<OnceLock<BinaryCache>>,
}

impl fmt::Debug for NixPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the binary cache `{}`", self.name)
    }
}

impl NixPlace {
    /// The binary cache that a text names, `file:DIR` (relative to `dir`) or `https://…`; `None` where it names none.
    pub(super) fn parse(text: &str, dir: &Path, registries: &RegistryConfig) -> Option<Self> {
        let dir = match text.split_once(':')? {
            ("file", rest) => Some(dir.join(rest.strip_prefix("//").unwrap_or(rest))),
            ("http" | "https", _) => None,
            _ => return None,
        };
        Some(Self {
            name: text.to_owned(),
            dir,
            registries: optional(registries),
            opened: Arc::default(),
        })
    }

    /// The directory, where it is one of this machine.
    pub(super) fn dir(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// The directory that can be written.
    pub(super) fn writable(&self) -> Result<&Path, SharedCacheError> {
        let cannot = || CacheError::NotWritable {
            cache: self.name.clone(),
        };
        Ok(self.dir().ok_or_else(cannot)?)
    }

    /// The cache; `None` for a directory that nobody has written yet.
    fn cache(&self) -> Result<Option<&BinaryCache>, SharedCacheError> {
        let is_there = |dir: &Path| dir.join("nix-cache-info").try_exists();
        // What cannot be looked at is not empty: reading it says why.
        if self.dir().is_some_and(|dir| matches!(is_there(dir), Ok(false))) {
            return Ok(None);
        }
        if let Some(cache) = self.opened.get() {
            return Ok(Some(cache));
        }
        let address = match self.dir() {
            Some(dir) => dir.display().to_string(),
            None => self.name.clone(),
        };
        let cache = BinaryCache::open(&address, &StoreDir::layerize(), &self.registries.http)?;
        Ok(Some(self.opened.get_or_init(|| cache)))
    }

    /// What stands under a tag, or why that is no record; `None` where nothing does.
    pub(super) fn record(&self, tag: &str) -> Result<Option<Result<Record, String>>, SharedCacheError> {
        let Some(cache) = self.cache()? else { return Ok(None) };
        let text = cache.file(&[FOLDER, tag], RECORD_MAX)?;
        Ok(text.map(|text| Record::parse(&text)))
    }

    /// Writes the tree of a path to `dest`, **unverified** but for its size.
    pub(super) fn restore(&self, info: &PathInfo, dest: &Path) -> Result<(), SharedCacheError> {
        let gone = || CacheError::NotACache {
            cache: self.name.clone(),
        };
        let cache = self.cache()?.ok_or_else(gone)?;
        let downloads = dest.with_extension("downloads");
        cache.restore(info, &StoreDir::layerize(), dest, &downloads, &Silent)?;
        Ok(crate::fsio::remove_tree(&downloads)?)
    }

    /// Writes the archives and narinfos of a closure, referenced paths first; gives how many bytes of archives were written.
    pub(super) fn put_archives(&self, closure: &[PublishedPath], keys: &[SecretKey]) -> Result<u64, SharedCacheError> {
        let dir = self.writable()?;
        let members: Vec<ExportMember> = (closure.iter())
            .map(|path| ExportMember::of(&path.details, path.physical.clone()))
            .collect();
        let options = ExportOptions {
            compression: CompressionFormat::Zstd,
            keys,
        };
        let written = binary_cache::export(dir, &StoreDir::layerize(), &members, &options, &Silent)?;
        let mut sent = 0;
        for path in &written {
            let size = self
                .cache()?
                .map(|cache| cache.archive_size(path, &StoreDir::layerize()));
            sent += size.transpose()?.flatten().unwrap_or_default();
        }
        Ok(sent)
    }

    /// Locks out others who sign what is there.
    pub(super) fn lock(&self) -> Result<fs::File, SharedCacheError> {
        let folder = self.writable()?.join(FOLDER);
        create_dir_all(&folder)?;
        let file = fs::File::open(&folder).context("open", &folder)?;
        file.lock().context("lock", &folder)?;
        Ok(file)
    }

    /// Forgets the paths of a closure whose archives are not what is said of them.
    pub(super) fn forget_damaged(&self, closure: &[PublishedPath]) -> Result<(), SharedCacheError> {
        let paths: Vec<_> = closure.iter().map(|path| path.details.info.path.clone()).collect();
        Ok(binary_cache::forget_damaged(
            self.writable()?,
            &StoreDir::layerize(),
            &paths,
        )?)
    }

    /// Writes a record under its tags. Another plan's record of the same build that is still young stays.
    pub(super) fn put(&self, record: &Record, now: Option<i64>) -> Result<(), SharedCacheError> {
        let folder = self.writable()?.join(FOLDER);
        create_dir_all(&folder)?;
        let bytes = record.bytes();
        if let Some(tag) = record.entry.build_key().as_ref().map(build_tag) {
            let other = self.record(&tag)?.and_then(Result::ok);
            let stays = other.is_some_and(|other| {
                other.entry.plan_key != record.entry.plan_key && !age::is_stale(&other.annotations, now)
            });
            if !stays {
                write_atomic(&folder.join(tag), &bytes)?;
            }
        }
        Ok(write_atomic(&folder.join(plan_tag(&record.entry.plan_key)), &bytes)?)
    }

    /// All entries, by their tags.
    pub(super) fn entries(&self) -> Result<Vec<CachedEntry>, SharedCacheError> {
        let folder = self.writable()?.join(FOLDER);
        if !folder.exists() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for name in sorted_names(&folder)? {
            let Some(tag) = name.to_str().filter(|tag| is_entry_tag(tag)) else {
                continue;
            };
            let bytes = read_limited(&folder.join(tag), RECORD_MAX)?;
            if let Ok(record) = Record::parse(&bytes) {
                let held = record.entry.members.iter().filter(|member| member.built.is_some());
                let entry = CachedEntry {
                    tags: Vec::new(),
                    digest: Digest::of(&bytes).into(),
                    size: held.fold(bytes.len() as u64, |sum, member| sum.saturating_add(member.nar_size)),
                    used: age::date_of(&record.annotations),
                };
                found.push((entry, tag.to_owned()));
            }
        }
        Ok(joined(found.into_iter()))
    }

    /// Takes entries out, and tells each that is gone.
    pub(super) fn prune(
        &self,
        entries: &[CachedEntry],
        told: &(dyn Fn(&CachedEntry) + Sync),
    ) -> Result<Pruned, SharedCacheError> {
        let folder = self.writable()?.join(FOLDER);
        for entry in entries {
            for tag in &entry.tags {
                let file = folder.join(tag);
                fs::remove_file(&file).context("remove", &file)?;
            }
            told(entry);
        }
        Ok(Pruned::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_caches_are_told_from_other_places() {
        let parse = |text: &str| NixPlace::parse(text, Path::new("/here"), &RegistryConfig::default());
        for (text, dir) in [
            ("file:/srv/cache", Some("/srv/cache")),
            ("file:///srv/cache", Some("/srv/cache")),
            ("file:../cache", Some("/here/../cache")),
            ("https://cache.example", None),
            ("http://127.0.0.1:8080/a", None),
        ] {
            let place = parse(text).unwrap();
            assert_eq!(place.dir(), dir.map(Path::new), "{text}");
            assert_eq!(place.writable().is_ok(), dir.is_some(), "{text}");
        }
        for text in ["docker://r.example/a", "oci:file:x", "/srv/cache", "ssh://host", ""] {
            assert!(parse(text).is_none(), "{text}");
        }
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;

    #[test]
    fn fuzz_shared_cache_record() {
        crate::testing::fuzz("shared-cache-record", |bytes| {
            if let Ok(record) = Record::parse(bytes) {
                assert_eq!(Record::parse(&record.bytes()), Ok(record.clone()));
                let _ = record.check(&CacheTrust::default());
                let _ = record.dated(Some(0));
            }
        });
    }
}
