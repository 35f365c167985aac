//! *Upkeep* holds the bounds of what is kept on this machine: store paths, downloads, packed layers and all other caches
//! together.
//!
//! Invariant: what roots need, what running processes use and what the command that is running used stays, whatever the
//! bounds; of the rest goes what was used longest ago, one before the other (`victims`). Each step is bounded, and whoever is
//! killed in one leaves nothing but work for the next. One process at a time is at it.

mod background;
mod caches;
#[cfg(test)]
mod tests;
mod victims;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

pub use background::{Background, LOCK, Orders};
use caches::count;
pub use caches::{CacheKind, Counted};
use victims::{Limits, Thing, Victim, choose, order};

use super::error::ProjectError;
use crate::digest::FileHash;
use crate::fetch::{self, FetchConfig};
use crate::fsio::{Disposable, free_bytes, on_one_disk};
use crate::store::Store;
use crate::store_path::{StoreDir, StorePath};

/// Most store paths that are removed before others get their turn at the store.
const AT_ONCE: usize = 100;

/// For how long a download may have been looked up before it is read.
const FETCH_GRACE: Duration = Duration::from_secs(60 * 60);

/// How often more room is looked for: what shares its blocks with others makes less than its size.
const ROUNDS_MAX: usize = 10;

/// Bounds of what is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Most bytes of all that is kept.
    pub max_size: Option<u64>,
    /// Fewest bytes that are free on the store's disk.
    pub min_free: Option<u64>,
    /// What was used before this moment goes, whatever room there is.
    pub unused_since: Option<SystemTime>,
    /// What was used at this moment or later stays, whatever room there is.
    pub floor: Option<SystemTime>,
}

impl Bounds {
    /// Whether room is to be held.
    pub fn hold_room(&self) -> bool {
        self.max_size.is_some() || self.min_free.is_some()
    }
}

/// How bounds are to be held.
pub struct How<'a> {
    /// Only tell what would go.
    pub dry_run: bool,
    /// Take a tenth more than has to go, so that the next builds have room.
    pub ahead: bool,
    /// Store paths that a dry run is to take for gone.
    pub doomed: &'a BTreeSet<StorePath>,
    /// Asked before each thing; ends it.
    pub go_on: &'a dyn Fn() -> bool,
}

/// What was done, or would be.
#[derive(Debug, Clone, Default)]
pub struct Upkeep {
    /// The store paths that went, and the bytes of their archives.
    pub paths: Vec<(StoreDir, StorePath, u64)>,
    /// What went of caches.
    pub caches: Counted,
    /// Bytes of all that is kept now.
    pub total: u64,
    /// Bytes of that which roots need, and processes and this command use.
    pub kept: u64,
    /// Bytes that are free on the store's disk.
    pub free: u64,
    /// Whether everything was looked at and done.
    pub is_complete: bool,
}

impl Upkeep {
    /// Bytes of all that went.
    pub fn removed_bytes(&self) -> u64 {
        let paths: u64 = self.paths.iter().map(|(.., bytes)| bytes).sum();
        paths + self.caches.values().map(|(_, bytes)| bytes).sum::<u64>()
    }

    /// Whether the bounds are not held although all was done that may be.
    pub fn falls_short(&self, bounds: &Bounds) -> bool {
        let is_over = bounds.max_size.is_some_and(|max| self.total > max);
        self.is_complete && (is_over || bounds.min_free.is_some_and(|min| self.free < min))
    }
}

/// What a thing is.
#[derive(Debug, Clone)]
enum What {
    Path { store: usize, path: StorePath },
    Cached { kind: CacheKind, thing: Disposable },
}

/// Everything that is kept on this machine.
struct Holdings {
    things: Vec<Thing>,
    what: Vec<What>,
    /// By path: where each store path's number is.
    paths: Vec<BTreeMap<StorePath, usize>>,
    downloads: BTreeMap<PathBuf, usize>,
    is_complete: bool,
}

/// Holds `bounds` in `stores`, of which the first is layerize's own, and in the caches around them.
pub fn hold(stores: &[Store], fetch: &FetchConfig, bounds: &Bounds, how: &How<'_>) -> Result<Upkeep, ProjectError> {
    let mut done = Upkeep::default();
    for round in 0..ROUNDS_MAX {
        let began = done.removed_bytes();
        one_round(stores, fetch, bounds, how, &mut done)?;
        let is_short = bounds.min_free.is_some_and(|min| done.free < min);
        let found_some = done.removed_bytes() > began;
        if how.dry_run || !is_short || !found_some || !done.is_complete || round + 1 == ROUNDS_MAX {
            break;
        }
    }
    done.paths.sort();
    Ok(done)
}

fn one_round(
    stores: &[Store],
    fetch: &FetchConfig,
    bounds: &Bounds,
    how: &How<'_>,
    done: &mut Upkeep,
) -> Result<(), ProjectError> {
    let Some(own) = stores.first() else { return Ok(()) };
    if !how.dry_run {
        for store in stores {
            store.empty_trash(how.go_on);
        }
    }
    let mut holdings = Holdings::look(stores, fetch, bounds, how)?;
    done.is_complete = holdings.is_complete;
    done.total = holdings.things.iter().map(|thing| thing.bytes).sum();
    done.free = free_bytes(own.dir())?;
    if !done.is_complete {
        return Ok(());
    }
    let limits = limits(bounds, done, how.ahead);
    let nothing_is_old = || {
        let moment = limits.unused_since;
        moment.is_none_or(|moment| holdings.things.iter().all(|thing| thing.used >= moment))
    };
    if limits.surplus == 0 && limits.room == 0 && nothing_is_old() {
        return Ok(());
    }
    // Which download was needed for what takes longer to find out than all else.
    holdings.add_needs_of_downloads(own, fetch)?;
    let victims = order(&holdings.things);
    let may_go: u64 = victims.iter().map(|victim| victim.bytes).sum();
    done.kept = done.total - may_go;
    let chosen = choose(victims, limits);
    match how.dry_run {
        true => holdings.pretend(&chosen, stores, done),
        false => holdings.remove(&chosen, stores, fetch, how.go_on, done)?,
    }
    if !how.dry_run {
        for store in stores {
            done.is_complete &= store.empty_trash(how.go_on);
        }
        done.free = free_bytes(own.dir())?;
    }
    Ok(())
}

/// What has to go, of what there is.
fn limits(bounds: &Bounds, now: &Upkeep, ahead: bool) -> Limits {
    let more = |bytes: u64| if ahead { bytes / 10 } else { 0 };
    let over = bounds.max_size.filter(|&max| now.total > max);
    let under = bounds.min_free.filter(|&min| now.free < min);
    Limits {
        unused_since: bounds.unused_since,
        surplus: over.map_or(0, |max| now.total - (max - more(max))),
        room: under.map_or(0, |min| min.saturating_add(more(min)) - now.free),
    }
}

impl Holdings {
    /// Finds out what there is.
    fn look(stores: &[Store], fetch: &FetchConfig, bounds: &Bounds, how: &How<'_>) -> Result<Self, ProjectError> {
        let mut all = Self {
            things: Vec::new(),
            what: Vec::new(),
            paths: Vec::new(),
            downloads: BTreeMap::new(),
            is_complete: true,
        };
        for (number, store) in stores.iter().enumerate() {
            all.add_paths(number, store, bounds, how.doomed)?;
        }
        for kind in CacheKind::ALL {
            let Some(own) = stores.first() else { break };
            // Of what is not locked while it is read, a time tells whether somebody may be at it.
            let grace = if kind.is_of_store() {
                Duration::ZERO
            } else {
                FETCH_GRACE
            };
            let floor = bounds.floor.map(|floor| floor.checked_sub(grace).unwrap_or(floor));
            let makes_room = kind.is_of_store() || on_one_disk(own.dir(), &fetch.cache);
            for thing in kind.list(own, fetch, how.go_on)? {
                if kind == CacheKind::Downloads {
                    all.downloads.insert(thing.path.clone(), all.things.len());
                }
                all.things.push(Thing {
                    bytes: thing.bytes,
                    used: thing.used,
                    needs: Vec::new(),
                    is_kept: floor.is_some_and(|floor| thing.used >= floor),
                    makes_room,
                });
                all.what.push(What::Cached { kind, thing });
            }
        }
        all.is_complete = (how.go_on)();
        Ok(all)
    }

    fn add_paths(
        &mut self,
        number: usize,
        store: &Store,
        bounds: &Bounds,
        doomed: &BTreeSet<StorePath>,
    ) -> Result<(), ProjectError> {
        let surveyed = store.survey()?;
        // The numbers of those that count.
        let mut numbers = Vec::new();
        let mut next = self.things.len();
        for path in &surveyed {
            let counts = !doomed.contains(&path.path);
            numbers.push(counts.then_some(next));
            next += usize::from(counts);
        }
        let mut paths = BTreeMap::new();
        for (path, own) in surveyed.into_iter().zip(&numbers) {
            let Some(own) = *own else { continue };
            paths.insert(path.path.clone(), own);
            self.things.push(Thing {
                bytes: path.bytes,
                used: path.used,
                needs: path.references.iter().filter_map(|&at| numbers[at]).collect(),
                is_kept: path.is_kept || bounds.floor.is_some_and(|floor| path.used >= floor),
                makes_room: true,
            });
            self.what.push(What::Path {
                store: number,
                path: path.path,
            });
        }
        self.paths.push(paths);
        Ok(())
    }

    /// A download is needed by what was made from it: it is there for as long, and used whenever that is.
    fn add_needs_of_downloads(&mut self, own: &Store, fetch: &FetchConfig) -> Result<(), ProjectError> {
        for (path, json) in own.derivation_texts()? {
            let Some(&maker) = self.paths.first().and_then(|paths| paths.get(&path)) else {
                continue;
            };
            for hash in hashes(&json) {
                let file = fetch::cached(fetch, &hash).map(|(_, file)| file);
                let needed = file.and_then(|file| self.downloads.get(&file));
                self.things[maker].needs.extend(needed);
            }
        }
        Ok(())
    }

    fn chosen<'a>(&'a self, chosen: &'a [Victim]) -> impl Iterator<Item = (u64, &'a What)> {
        let things = chosen.iter().flat_map(|victim| &victim.things);
        things.map(|&at| (self.things[at].bytes, &self.what[at]))
    }

    fn pretend(&self, chosen: &[Victim], stores: &[Store], done: &mut Upkeep) {
        for (bytes, what) in self.chosen(chosen) {
            match what {
                What::Path { store, path } => {
                    let dir = stores[*store].store_dir().clone();
                    done.paths.push((dir, path.clone(), bytes));
                }
                What::Cached { kind, .. } => count(&mut done.caches, *kind, bytes),
            }
            done.total -= bytes;
        }
        let room = chosen.iter().filter(|victim| victim.makes_room);
        done.free += room.map(|victim| victim.bytes).sum::<u64>();
    }

    /// Removes what was chosen: store paths in their order, a few at a time, then what lies in caches.
    fn remove(
        &self,
        chosen: &[Victim],
        stores: &[Store],
        fetch: &FetchConfig,
        go_on: &dyn Fn() -> bool,
        done: &mut Upkeep,
    ) -> Result<(), ProjectError> {
        let mut paths: Vec<Vec<(StorePath, SystemTime)>> = vec![Vec::new(); stores.len()];
        let mut cached: BTreeMap<CacheKind, Vec<Disposable>> = BTreeMap::new();
        for at in chosen.iter().flat_map(|victim| &victim.things) {
            match &self.what[*at] {
                What::Path { store, path } => paths[*store].push((path.clone(), self.things[*at].used)),
                What::Cached { kind, thing } => cached.entry(*kind).or_default().push(thing.clone()),
            }
        }
        for (store, paths) in stores.iter().zip(paths) {
            for some in paths.chunks(AT_ONCE) {
                if !go_on() {
                    done.is_complete = false;
                    return Ok(());
                }
                for (path, bytes) in store.remove_unkept(some)? {
                    done.paths.push((store.store_dir().clone(), path, bytes));
                    done.total -= bytes;
                }
                store.empty_trash(go_on);
            }
        }
        let Some(own) = stores.first() else { return Ok(()) };
        for (kind, things) in cached {
            let wanted = things.len();
            let gone = kind.remove(things, own, fetch, go_on)?;
            // What is in use goes another time.
            done.is_complete &= gone.len() == wanted;
            for thing in gone {
                count(&mut done.caches, kind, thing.bytes);
                done.total -= thing.bytes;
            }
        }
        Ok(())
    }
}

/// The hashes that stand in a derivation: those of downloads are among them.
fn hashes(json: &str) -> impl Iterator<Item = FileHash> + '_ {
    const SCHEMES: [&str; 4] = ["sha256", "sha512", "go-h1", "go-mod-h1"];
    let words = json.split('"');
    words.flat_map(|word| {
        SCHEMES
            .into_iter()
            .filter_map(|scheme| FileHash::from_hex(scheme, word))
    })
}
