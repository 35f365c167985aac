//! A *build cache*: directories below `/build` that a package declares, kept from one run of its script to the next.
//!
//! Invariant: no digest depends on it: it is in no derivation, and `layerize check` compares what is made with it and without
//! it. One run has it at a time; another that wants it meanwhile finds empty directories, as the first run of all did.

use std::path::Path;
use std::time::SystemTime;

use super::BuildError;
use crate::derive::Script;
use crate::digest::Digest;
use crate::fsio::{
    Disposable, FileLock, IoContext, LockKind, PathError, cached_names, create_dir_all, disposable_tree, last_use,
    remove_tree, sorted_names,
};
use crate::sandbox::Bind;
use crate::sandbox::tree::make_dir;
use crate::store::Store;

/// Where the caches of all projects are, below the store's directory.
const DIR: &str = "build-caches";

/// The file of a cache that is locked while a script has it; its time is that of the last use.
const LOCK: &str = "lock";

/// The file of a cache that says what it takes up.
const SIZE: &str = "size";

/// Characters of a hash in the names of directories.
const NAME_CHARS: usize = 32;

/// What a script finds in the directories that its package declares.
#[derive(Default)]
pub(super) struct BuildCache {
    /// The directories, by their places in the sandbox.
    pub binds: Vec<Bind>,
    /// Whether earlier runs left something in them.
    pub is_filled: bool,
    /// Held as long as the script may write.
    _lock: Option<FileLock>,
}

/// Whose cache it is.
pub(super) struct Owner<'a> {
    /// The project: two of them never share a cache, whatever their packages are called.
    pub project: &'a str,
    /// What the user calls the step.
    pub label: &'a str,
}

impl BuildCache {
    /// Makes the places of `script`'s directories in the build directory `build`, and gives what `owner` has in them;
    /// nothing without an owner, or where another run has it.
    ///
    /// # Errors
    ///
    /// A place at which the source has something; a directory that cannot be made.
    pub(super) fn open(
        store: &Store,
        script: &Script,
        owner: Option<&Owner<'_>>,
        build: &Path,
    ) -> Result<Self, BuildError> {
        for dir in &script.cache_dirs {
            let place = build.join(Path::new(dir).strip_prefix("/build").unwrap_or(Path::new(dir)));
            if place.symlink_metadata().is_ok() {
                return Err(BuildError::CacheInSource { dir: dir.clone() });
            }
            create_dir_all(&place)?;
        }
        let Some(owner) = owner.filter(|_| !script.cache_dirs.is_empty()) else {
            return Ok(Self::default());
        };
        let home = store.dir().join(DIR).join(owner.name());
        create_dir_all(&home)?;
        let lock = home.join(LOCK);
        let Some(lock) = FileLock::try_acquire(&lock, LockKind::Exclusive)? else {
            return Ok(Self::default());
        };
        touch(&lock, &home)?;
        let mut cache = Self::default();
        for dir in &script.cache_dirs {
            let source = home.join(hashed(dir));
            match source.is_dir() {
                true => cache.is_filled |= !sorted_names(&source)?.is_empty(),
                false => make_dir(&source, 0o755)?,
            }
            cache.binds.push(Bind {
                source,
                target: dir.into(),
                writable: true,
            });
        }
        cache._lock = Some(lock);
        Ok(cache)
    }
}

impl Owner<'_> {
    /// The name of its directory.
    fn name(&self) -> String {
        hashed(&format!("{}\0{}", self.project, self.label))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "when a cache was used last is told by the clock; nothing is made of it"
)]
fn touch(lock: &FileLock, home: &Path) -> Result<(), PathError> {
    lock.file()
        .set_modified(SystemTime::now())
        .context("write the time of", home.join(LOCK))
}

fn hashed(text: &str) -> String {
    Digest::of(text.as_bytes()).hex()[..NAME_CHARS].to_owned()
}

/// The build caches that are kept in a store; `go_on` ends the list.
///
/// # Errors
///
/// A directory that cannot be read.
pub fn stored_build_caches(store: &Store, go_on: &dyn Fn() -> bool) -> Result<Vec<Disposable>, PathError> {
    let dir = store.dir().join(DIR);
    let homes = cached_names(&dir)?.into_iter().map(|name| dir.join(name));
    let caches = homes.filter_map(|home| {
        let used = last_use(&home.join(LOCK))?;
        disposable_tree(&home, used, &home.join(SIZE), go_on)
    });
    Ok(caches.collect())
}

/// Removes a build cache, unless a script has it or had it since it was listed; true where it is gone.
///
/// # Errors
///
/// A directory that cannot be removed.
pub fn remove_build_cache(cache: &Disposable) -> Result<bool, PathError> {
    let lock = cache.path.join(LOCK);
    if last_use(&lock) != Some(cache.used) {
        return Ok(false);
    }
    let Some(_held) = FileLock::try_acquire(&lock, LockKind::Exclusive)? else {
        return Ok(false);
    };
    let is_unused = last_use(&lock) == Some(cache.used);
    if is_unused {
        remove_tree(&cache.path)?;
    }
    Ok(is_unused)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    fn script(dirs: &[&str]) -> Script {
        Script {
            cache_dirs: dirs.iter().map(|dir| (*dir).to_owned()).collect(),
            ..Script::default()
        }
    }

    fn owner<'a>(project: &'a str, label: &'a str) -> Owner<'a> {
        Owner { project, label }
    }

    /// A store, and how many build directories were made in it.
    struct Fixture {
        dir: tempfile::TempDir,
        store: Store,
        builds: std::cell::Cell<u32>,
    }

    impl Fixture {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(&dir.path().join("store")).unwrap();
            Self {
                dir,
                store,
                builds: 0.into(),
            }
        }

        fn open(&self, dirs: &[&str], owner: Option<Owner<'_>>) -> BuildCache {
            self.builds.set(self.builds.get() + 1);
            let build = self.dir.path().join(format!("build{}", self.builds.get()));
            let cache = BuildCache::open(&self.store, &script(dirs), owner.as_ref(), &build).unwrap();
            for dir in dirs {
                assert!(build.join(dir.strip_prefix("/build/").unwrap()).is_dir());
            }
            cache
        }
    }

    #[test]
    fn a_cache_belongs_to_a_step_of_a_project() {
        let fixture = Fixture::new();
        let dirs = ["/build/a", "/build/source/b"];
        let first = fixture.open(&dirs, Some(owner("p", "x")));
        let sources: BTreeSet<PathBuf> = first.binds.iter().map(|bind| bind.source.clone()).collect();
        assert_eq!((sources.len(), first.is_filled), (2, false));
        fs::write(first.binds[0].source.join("object"), "o").unwrap();
        drop(first);
        assert!(fixture.open(&dirs, Some(owner("p", "x"))).is_filled);
        assert!(fixture.open(&["/build/a"], Some(owner("p", "x"))).is_filled);
        for other in [owner("p", "y"), owner("q", "x"), owner("p\0x", "")] {
            assert!(!fixture.open(&dirs, Some(other)).is_filled);
        }
        assert!(fixture.open(&dirs, None).binds.is_empty());
        assert!(fixture.open(&[], Some(owner("p", "x"))).binds.is_empty());
    }

    #[test]
    fn of_two_runs_at_once_the_second_has_none() {
        let fixture = Fixture::new();
        let first = fixture.open(&["/build/a"], Some(owner("p", "x")));
        assert!(fixture.open(&["/build/a"], Some(owner("p", "x"))).binds.is_empty());
        drop(first);
        assert_eq!(fixture.open(&["/build/a"], Some(owner("p", "x"))).binds.len(), 1);
    }

    #[test]
    fn a_source_is_not_hidden() {
        let fixture = Fixture::new();
        let build = fixture.dir.path().join("build");
        fs::create_dir_all(build.join("source/target")).unwrap();
        let opened = BuildCache::open(&fixture.store, &script(&["/build/source/target"]), None, &build);
        let error = opened.err().unwrap().to_string();
        assert!(error.contains("`/build/source/target`"), "{error}");
    }

    #[test]
    fn what_nobody_has_or_had_since_can_be_removed() {
        let fixture = Fixture::new();
        let held = fixture.open(&["/build/a"], Some(owner("p", "held")));
        for label in ["old", "new"] {
            let cache = fixture.open(&["/build/a"], Some(owner("p", label)));
            fs::write(cache.binds[0].source.join("object"), "four").unwrap();
        }
        let home = |label| fixture.store.dir().join(DIR).join(owner("p", label).name());
        let listed = || stored_build_caches(&fixture.store, &|| true).unwrap();
        let of = |label| listed().into_iter().find(|cache| cache.path == home(label)).unwrap();
        assert_eq!(listed().len(), 3);
        let (old, new) = (of("old"), of("new"));
        assert!(old.bytes >= 4 && old.used <= new.used);
        drop(fixture.open(&["/build/a"], Some(owner("p", "new"))));
        assert!(remove_build_cache(&old).unwrap() && !home("old").exists());
        assert!(!remove_build_cache(&old).unwrap(), "it is gone");
        assert!(!remove_build_cache(&new).unwrap(), "it was used since");
        // One that a script has stays, however old it is.
        assert!(!remove_build_cache(&of("held")).unwrap());
        assert!(held.binds[0].source.exists());
        assert!(remove_build_cache(&of("new")).unwrap());
        // What has nothing to tell when it was used is not ours.
        fs::create_dir(home("stranger")).unwrap();
        assert_eq!(listed().len(), 1);
    }
}
