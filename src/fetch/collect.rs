//! *Collecting* downloads: what interrupted ones left, and single files of the cache.
//!
//! Invariant: a file goes only under its lock, so that none goes that is on its way, and only if nobody has used it since it
//! was listed: other stores and projects share the cache, and a store does not know of them.

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use super::cache::{Cache, Stored};
use super::{FetchConfig, FetchError};
use crate::fsio::{Disposable, IoContext, last_use, remove_tree};

/// Removes what interrupted downloads left, and notes of hashes whose files are gone: how many interrupted downloads there
/// were, and their bytes. With `dry_run` nothing goes.
pub fn sweep(config: &FetchConfig, dry_run: bool) -> Result<(u64, u64), FetchError> {
    let (mut count, mut bytes) = (0, 0);
    let Some(cache) = Cache::existing(&config.cache) else {
        return Ok((count, bytes));
    };
    for stored in cache.stored()? {
        let Stored::Part { path, .. } = &stored else { continue };
        let Some(_held) = cache.hold(&stored)? else { continue };
        // Whoever had it locked may have renamed or removed it.
        let Ok(metadata) = fs::symlink_metadata(path) else {
            continue;
        };
        count += 1;
        bytes += metadata.len();
        if !dry_run {
            fs::remove_file(path).context("remove", path)?;
        }
    }
    if !dry_run {
        for known in cache.known()? {
            if known.sha256.is_none_or(|digest| !cache.has(&digest)) {
                cache.forget(&known)?;
            }
        }
    }
    Ok((count, bytes))
}

/// The files of the cache, as [`cached`](super::cached) names them.
pub fn stored_downloads(config: &FetchConfig) -> Result<Vec<Disposable>, FetchError> {
    let Some(cache) = Cache::existing(&config.cache) else {
        return Ok(Vec::new());
    };
    let file = |stored: Stored| match stored {
        Stored::File { path, .. } => of_file(path),
        Stored::Part { .. } => None,
    };
    Ok(cache.stored()?.into_iter().filter_map(file).collect())
}

fn of_file(path: PathBuf) -> Option<Disposable> {
    let metadata = path.symlink_metadata().ok()?;
    Some(Disposable {
        bytes: metadata.len(),
        used: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
        path,
    })
}

/// Removes a file of the cache, unless somebody is at it or has used it since it was listed; true where it is gone.
pub fn remove_download(config: &FetchConfig, file: &Disposable) -> Result<bool, FetchError> {
    let Some(cache) = Cache::existing(&config.cache) else {
        return Ok(false);
    };
    let Some(stored) = cache.file_at(&file.path) else {
        return Ok(false);
    };
    let Some(_held) = cache.hold(&stored)? else {
        return Ok(false);
    };
    let is_unused = last_use(&file.path) == Some(file.used);
    if is_unused {
        remove_tree(&file.path)?;
    }
    Ok(is_unused)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::digest::{ContentDigest, Digest, FileHash};
    use crate::fetch::cache::{Expected, Labels};

    fn config() -> (tempfile::TempDir, FetchConfig) {
        let dir = tempfile::tempdir().unwrap();
        let config = FetchConfig {
            cache: dir.path().join("fetch"),
            ..FetchConfig::default()
        };
        (dir, config)
    }

    #[test]
    fn what_was_interrupted_goes_and_what_is_on_its_way_stays() {
        let (_dir, config) = config();
        assert_eq!(sweep(&config, false).unwrap(), (0, 0), "there is no cache yet");
        assert!(!config.cache.exists(), "and none is made");

        let cache = Cache::open(&config.cache).unwrap();
        let files = config.cache.join("sha256");
        let whole = Digest::of(b"whole").hex();
        fs::write(files.join(&whole), "whole").unwrap();
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
        let before = crate::fsio::sorted_names(&files).unwrap();
        assert_eq!(sweep(&config, true).unwrap(), (2, 320));
        assert_eq!(
            crate::fsio::sorted_names(&files).unwrap(),
            before,
            "a dry run removes nothing"
        );
        assert_eq!(sweep(&config, false).unwrap(), (2, 320));
        assert_eq!(sweep(&config, false).unwrap(), (0, 0));
        let mut left = vec![whole, format!("{}.part", on_its_way.hex()), "notes".to_owned()];
        left.sort();
        let names = crate::fsio::sorted_names(&files).unwrap();
        assert_eq!(
            names.iter().map(|name| name.to_str().unwrap()).collect::<Vec<_>>(),
            left
        );
        drop(lock);
        assert_eq!(sweep(&config, false).unwrap(), (1, 1));
    }

    #[test]
    fn a_file_goes_unless_it_is_held_or_was_used_since() {
        let (_dir, config) = config();
        let cache = Cache::open(&config.cache).unwrap();
        let digests = ["unused", "used", "held"].map(|text| Digest::of(text.as_bytes()));
        for digest in &digests {
            let file = File::create(super::super::cache::path_in(&config.cache, digest)).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(10)).unwrap();
        }
        let stored = stored_downloads(&config).unwrap();
        assert_eq!(stored.len(), 3);
        assert!(
            stored
                .iter()
                .all(|file| file.used == UNIX_EPOCH + Duration::from_secs(10))
        );
        let of = |digest: &Digest| {
            let path = super::super::cache::path_in(&config.cache, digest);
            stored.iter().find(|file| file.path == path).unwrap()
        };
        let _held = cache.lock(&digests[2].into()).unwrap();
        assert!(crate::fsio::note_use(&of(&digests[1]).path));
        let gone = digests
            .each_ref()
            .map(|digest| remove_download(&config, of(digest)).unwrap());
        assert_eq!(gone, [true, false, false]);
        assert_eq!(digests.each_ref().map(|digest| cache.has(digest)), [false, true, true]);
        let stranger = Disposable {
            path: config.cache.join("sha256/notes"),
            ..of(&digests[0]).clone()
        };
        assert!(!remove_download(&config, &stranger).unwrap());
    }

    /// What a hash knows is forgotten when the file is gone.
    #[test]
    fn notes_without_a_file_go() {
        let (_dir, config) = config();
        let cache = Cache::open(&config.cache).unwrap();
        let hash = |text: &[u8]| FileHash::from(ContentDigest::Sha512([0; 64]).same_algorithm(text));
        for text in [&b"kept"[..], b"lost"] {
            let expected = Expected {
                hash: hash(text),
                size: None,
            };
            let labels = Labels {
                name: "x",
                origin: "somewhere",
            };
            cache
                .insert(expected, &mut { text }, labels, &crate::event::Silent)
                .unwrap();
        }
        fs::remove_file(super::super::cache::path_in(&config.cache, &Digest::of(b"lost"))).unwrap();
        for dry_run in [true, false] {
            assert_eq!(cache.known().unwrap().len(), 2);
            sweep(&config, dry_run).unwrap();
        }
        let known: Vec<FileHash> = cache.known().unwrap().iter().map(|known| known.hash).collect();
        assert_eq!(known, [hash(b"kept")]);
    }

    /// A file that was found was used, whatever its age.
    #[test]
    fn a_lookup_is_a_use() {
        let (_dir, config) = config();
        let cache = Cache::open(&config.cache).unwrap();
        let digest = Digest::of(b"x");
        fs::write(super::super::cache::path_in(&config.cache, &digest), "x").unwrap();
        let long_ago = UNIX_EPOCH + Duration::from_secs(10);
        let file = File::options()
            .write(true)
            .open(super::super::cache::path_in(&config.cache, &digest));
        file.unwrap().set_modified(long_ago).unwrap();
        let listed = stored_downloads(&config).unwrap();
        assert_eq!(listed[0].used, long_ago);
        let expected = Expected {
            hash: digest.into(),
            size: None,
        };
        cache.lookup(expected, &crate::event::Silent).unwrap().unwrap();
        assert!(!remove_download(&config, &listed[0]).unwrap());
    }
}
