//! *Collecting* downloads: the cache's files that nothing needs, and what interrupted downloads left.
//!
//! Invariant: a file goes only under its lock, so that none goes that is on its way, and only when nobody has used it for
//! as long as the user says: other stores and projects share the cache, and a store does not know of them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use super::cache::{Cache, Stored};
use super::{FetchConfig, FetchError, git};
use crate::digest::{Digest, FileHash};
use crate::fsio::IoContext;

/// What a collection of downloads takes away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CollectedDownloads {
    /// Number of interrupted downloads, and their bytes.
    pub interrupted: (u64, u64),
    /// Number of downloads that nothing needs, and their bytes.
    pub unused: (u64, u64),
}

/// Removes interrupted downloads, and those that were used last before `unused_since` unless they `are_needed`. With
/// `dry_run` nothing goes, and what would is told.
pub fn collect(
    config: &FetchConfig,
    are_needed: &dyn Fn(&FileHash) -> bool,
    unused_since: SystemTime,
    dry_run: bool,
) -> Result<CollectedDownloads, FetchError> {
    let mut collected = CollectedDownloads::default();
    let Some(cache) = Cache::existing(&config.cache) else {
        return Ok(collected);
    };
    // A file may be needed by another hash than the one that it is kept by.
    let known = cache.known()?;
    let needed = known.iter().filter(|known| are_needed(&known.hash));
    let needed: BTreeSet<Digest> = needed.filter_map(|known| known.sha256).collect();
    let are_needed = |digest: &Digest| needed.contains(digest) || are_needed(&(*digest).into());
    for stored in cache.stored()? {
        let path = stored.path().to_owned();
        let (count, bytes) = match &stored {
            Stored::Part { .. } => &mut collected.interrupted,
            Stored::File { digest, .. } if !are_needed(digest) && was_used_before(&path, unused_since)? => {
                &mut collected.unused
            }
            Stored::File { .. } => continue,
        };
        let Some(_held) = cache.hold(&stored)? else { continue };
        // Whoever had it locked may have renamed or removed it.
        let Ok(metadata) = fs::symlink_metadata(&path) else {
            continue;
        };
        *count += 1;
        *bytes += metadata.len();
        if !dry_run {
            fs::remove_file(&path).context("remove", &path)?;
        }
    }
    if !dry_run {
        for known in &known {
            if known.sha256.is_none_or(|digest| !cache.has(&digest)) {
                cache.forget(known)?;
            }
        }
    }
    let (count, bytes) = git::collect(config, unused_since, dry_run)?;
    collected.unused.0 += count;
    collected.unused.1 += bytes;
    Ok(collected)
}

pub(super) fn was_used_before(path: &Path, moment: SystemTime) -> Result<bool, FetchError> {
    match fs::symlink_metadata(path).and_then(|metadata| metadata.modified()) {
        Ok(used) => Ok(used < moment),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).context("read the attributes of", path)?,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::digest::ContentDigest;

    #[test]
    fn what_is_interrupted_or_unused_goes_and_what_is_needed_or_on_its_way_stays() {
        let dir = tempfile::tempdir().unwrap();
        let config = FetchConfig {
            cache: dir.path().join("fetch"),
            ..FetchConfig::default()
        };
        let everything = UNIX_EPOCH + Duration::from_secs(1 << 40);
        let nothing = CollectedDownloads::default();
        let run = |since, dry_run| collect(&config, &|hash| *hash == Digest::of(b"needed"), since, dry_run).unwrap();
        assert_eq!(run(everything, false), nothing, "there is no cache yet");
        assert!(!config.cache.exists(), "and none is made");

        let cache = Cache::open(&config.cache).unwrap();
        let files = config.cache.join("sha256");
        for text in ["needed", "unused", "new"] {
            let file = File::create(files.join(Digest::of(text.as_bytes()).hex())).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(if text == "new" { 100 } else { 10 }))
                .unwrap();
        }
        let on_its_way = Digest::of(b"on its way");
        let lock = cache.lock(&on_its_way.into()).unwrap();
        for (name, size) in [
            (on_its_way.hex(), 1),
            (Digest::of(b"killed").hex(), 20),
            ("unpinned-x".to_owned(), 300),
        ] {
            fs::write(files.join(format!("{name}.part")), vec![0; size]).unwrap();
        }
        fs::write(files.join("notes"), "").unwrap();

        let since = UNIX_EPOCH + Duration::from_secs(50);
        let expected = CollectedDownloads {
            interrupted: (2, 320),
            unused: (1, 0),
        };
        let before = crate::fsio::sorted_names(&files).unwrap();
        assert_eq!(run(since, true), expected);
        assert_eq!(
            crate::fsio::sorted_names(&files).unwrap(),
            before,
            "a dry run removes nothing"
        );
        assert_eq!(run(since, false), expected);
        assert_eq!(run(since, false), nothing);
        let mut left = vec![
            Digest::of(b"needed").hex(),
            Digest::of(b"new").hex(),
            format!("{}.part", on_its_way.hex()),
            "notes".to_owned(),
        ];
        left.sort();
        let names = crate::fsio::sorted_names(&files).unwrap();
        assert_eq!(
            names.iter().map(|name| name.to_str().unwrap()).collect::<Vec<_>>(),
            left
        );
        drop(lock);
        assert_eq!(run(since, false).interrupted, (1, 1));
    }

    /// A lock that knows a file by its SHA-512 needs it as much as one that knows it by its SHA-256.
    #[test]
    fn a_file_is_needed_by_whatever_it_is_known_by() {
        let dir = tempfile::tempdir().unwrap();
        let config = FetchConfig {
            cache: dir.path().to_owned(),
            ..FetchConfig::default()
        };
        let cache = Cache::open(dir.path()).unwrap();
        let hash = |text: &[u8]| FileHash::from(ContentDigest::Sha512([0; 64]).same_algorithm(text));
        for text in [&b"needed"[..], b"unused"] {
            let expected = super::super::cache::Expected {
                hash: hash(text),
                size: None,
            };
            let labels = super::super::cache::Labels {
                name: "x",
                origin: "somewhere",
            };
            cache
                .insert(expected, &mut { text }, labels, &crate::event::Silent)
                .unwrap();
        }
        let later = UNIX_EPOCH + Duration::from_secs(1 << 40);
        let needed = |wanted: &FileHash| *wanted == hash(b"needed");
        for dry_run in [true, false] {
            assert_eq!(cache.known().unwrap().len(), 2);
            assert_eq!(collect(&config, &needed, later, dry_run).unwrap().unused, (1, 6));
        }
        let known: Vec<FileHash> = cache.known().unwrap().iter().map(|known| known.hash).collect();
        assert_eq!(known, [hash(b"needed")]);
        assert!(cache.has(&Digest::of(b"needed")));
    }

    /// A file that was found was used, whatever its age.
    #[test]
    fn a_lookup_is_a_use() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path()).unwrap();
        let digest = Digest::of(b"x");
        let path = dir.path().join("sha256").join(digest.hex());
        fs::write(&path, "x").unwrap();
        let long_ago = UNIX_EPOCH + Duration::from_secs(10);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
        let expected = super::super::cache::Expected {
            hash: digest.into(),
            size: None,
        };
        cache.lookup(expected, &crate::event::Silent).unwrap().unwrap();
        assert!(!was_used_before(&path, long_ago + Duration::from_secs(1_000_000)).unwrap());
    }
}
