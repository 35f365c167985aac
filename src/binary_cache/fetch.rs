//! *Fetching* a closure: what the store lacks of it comes from the first cache that has it and is trusted.
//!
//! Invariant: a path is registered after all it refers to, and only when its archive is the one that a trusted key
//! signed or that its own name proves. Whatever stops it, what is registered by then is whole, and stays; the next
//! run goes on from there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::error::CacheError;
use super::narinfo::NarInfo;
use super::remote::{ArchiveFile, BinaryCache};
use super::trust::Trust;
use crate::archive::compression::Decompressor;
use crate::event::{Event, Reporter};
use crate::fsio::IoContext;
use crate::graph;
use crate::nar;
use crate::parallel;
use crate::store::{NewNar, StagedNar, Store};
use crate::store_path::{PathInfo, StoreDir, StorePath};

/// How many archives are on their way at once.
const THREADS: usize = 6;

/// Most paths of one closure.
const PATHS_MAX: usize = 1 << 20;

/// What the store lacks, and who has it.
struct FoundPath<'a> {
    cache: &'a BinaryCache,
    narinfo: NarInfo,
}

/// Makes `roots` and all they refer to valid in `store`; gives what was fetched, referenced paths first. `caches` are
/// asked in their order.
pub fn fetch_closure(
    store: &Store,
    roots: &BTreeSet<StorePath>,
    caches: &[BinaryCache],
    trust: &Trust,
    reporter: &dyn Reporter,
) -> Result<Vec<StorePath>, CacheError> {
    let found = survey(store, roots, caches, trust)?;
    let (order, needs) = in_topological_order(found)?;
    parallel::in_order(
        &order,
        &needs,
        THREADS,
        |found| stage(store, found, reporter),
        |found, staged| {
            let info = store.register_nar(staged)?;
            reporter.report(Event::Note {
                text: format!("{} from {}", store.store_dir().join(&info.path), found.cache.display()),
            });
            Ok(())
        },
    )?;
    Ok(order.into_iter().map(|found| found.narinfo.info.path).collect())
}

/// Finds everything of the closure that the store lacks, level by level.
fn survey<'a>(
    store: &Store,
    roots: &BTreeSet<StorePath>,
    caches: &'a [BinaryCache],
    trust: &Trust,
) -> Result<BTreeMap<StorePath, FoundPath<'a>>, CacheError> {
    let mut all = BTreeMap::new();
    let mut seen: BTreeSet<StorePath> = roots.clone();
    let mut level: Vec<(StorePath, Option<StorePath>)> = roots.iter().map(|root| (root.clone(), None)).collect();
    while !level.is_empty() {
        let answers = parallel::map(&level, THREADS, |(path, needed_by)| match store.info(path)? {
            Some(_) => Ok(None),
            None => locate(store, path, needed_by.as_ref(), caches, trust).map(Some),
        })?;
        level = Vec::new();
        for found in answers.into_iter().flatten() {
            let info = &found.narinfo.info;
            for reference in &info.references {
                if seen.insert(reference.clone()) {
                    level.push((reference.clone(), Some(info.path.clone())));
                }
            }
            all.insert(info.path.clone(), found);
        }
        if seen.len() > PATHS_MAX {
            return Err(CacheError::TooManyPaths { limit: PATHS_MAX });
        }
    }
    Ok(all)
}

/// The first cache that has a path and is trusted; where none is, why the first that has it is not.
fn locate<'a>(
    store: &Store,
    path: &StorePath,
    needed_by: Option<&StorePath>,
    caches: &'a [BinaryCache],
    trust: &Trust,
) -> Result<FoundPath<'a>, CacheError> {
    let mut refused = None;
    for cache in caches {
        let narinfo = match cache.narinfo(path, store.store_dir()) {
            Ok(Some(narinfo)) => narinfo,
            Ok(None) => continue,
            // A cache that is down or damaged is not the last word.
            Err(error) => {
                refused.get_or_insert(error);
                continue;
            }
        };
        match trust.check(&narinfo, store.store_dir()) {
            Ok(()) => return Ok(FoundPath { cache, narinfo }),
            Err(reason) => {
                refused.get_or_insert(CacheError::Untrusted {
                    path: path.clone(),
                    cache: cache.display(),
                    reason,
                });
            }
        }
    }
    Err(refused.unwrap_or_else(|| CacheError::Missing {
        path: path.clone(),
        needed_by: needed_by.cloned().map(Box::new),
        caches: caches.iter().map(BinaryCache::display).collect(),
    }))
}

/// The paths found, each after those it refers to, and for each the indices of those.
fn in_topological_order(
    found: BTreeMap<StorePath, FoundPath<'_>>,
) -> Result<(Vec<FoundPath<'_>>, Vec<Vec<usize>>), CacheError> {
    let paths: Vec<StorePath> = found.keys().cloned().collect();
    let among_found = |item: &FoundPath<'_>| -> Vec<usize> {
        let references = item.narinfo.info.references.iter();
        references.filter_map(|path| paths.binary_search(path).ok()).collect()
    };
    let references: Vec<Vec<usize>> = found.values().map(among_found).collect();
    let mut found: Vec<Option<FoundPath<'_>>> = found.into_values().map(Some).collect();
    let mut place = vec![0; found.len()];
    let (mut order, mut needs) = (Vec::new(), Vec::new());
    for component in graph::components(&references) {
        let item = component
            .first()
            .and_then(|&first| found[first].take().map(|item| (first, item)));
        let Some((index, item)) = item else { continue };
        if component.len() > 1 {
            return Err(CacheError::Circle {
                path: item.narinfo.info.path,
                cache: item.cache.display(),
            });
        }
        place[index] = order.len();
        needs.push(references[index].iter().map(|&reference| place[reference]).collect());
        order.push(item);
    }
    Ok((order, needs))
}

impl BinaryCache {
    /// Writes the tree of a path of the store at `dir` to `dest`, which is not there yet. The narinfo's word is not taken for
    /// anything: what is there must be announced as `info` has it, and whether it is that is for the caller to see.
    pub fn restore(
        &self,
        info: &PathInfo,
        dir: &StoreDir,
        dest: &Path,
        downloads: &Path,
        reporter: &dyn Reporter,
    ) -> Result<(), CacheError> {
        let path = &info.path;
        let narinfo = self.narinfo(path, dir)?.ok_or_else(|| CacheError::Missing {
            path: path.clone(),
            needed_by: None,
            caches: vec![self.display()],
        })?;
        if (narinfo.info.nar_hash, narinfo.info.nar_size) != (info.nar_hash, info.nar_size) {
            return Err(CacheError::OtherContent {
                cache: self.display(),
                path: path.clone(),
            });
        }
        let file = self.archive(&narinfo, downloads, reporter)?;
        let mut archive = decoder(&file, &narinfo)?.take(info.nar_size);
        nar::restore(&mut archive, dest).map_err(|source| CacheError::Unpack {
            url: narinfo.url,
            source: io::Error::other(source),
        })
    }
}

/// The archive in a compressed file.
fn decoder(file: &ArchiveFile, narinfo: &NarInfo) -> Result<Decompressor<File>, CacheError> {
    let opened = File::open(&file.path).context("open", &file.path)?;
    Decompressor::with_format(narinfo.compression, opened).map_err(|source| CacheError::Unpack {
        url: narinfo.url.clone(),
        source,
    })
}

/// Brings one path's archive and unpacks it beside the store's paths.
fn stage(store: &Store, found: &FoundPath<'_>, reporter: &dyn Reporter) -> Result<StagedNar, CacheError> {
    let FoundPath { cache, narinfo } = found;
    let path = &narinfo.info.path;
    let file = cache.archive(narinfo, &store.dir().join("cache/nar"), reporter)?;
    let mut decoder = decoder(&file, narinfo)?;
    let new = NewNar {
        info: narinfo.info.clone(),
        addressing: narinfo.addressing(store.store_dir()),
        attestation: narinfo.attestation.clone(),
    };
    let staged = store
        .stage_nar(&new, &mut decoder)
        .map_err(|source| CacheError::Archive {
            path: path.clone(),
            url: format!("{}/{}", cache.display().trim_end_matches('/'), narinfo.url),
            source: Box::new(source),
        })?;
    Ok(staged)
}
