//! A *build cache*: directories below `/build` that a package declares, kept from one run of its script to the next.
//!
//! Invariant: no digest depends on it: it is in no derivation, and `layerize check` compares what is made with it and without
//! it. One run has it at a time; another that wants it meanwhile finds empty directories, as the first run of all did.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use super::BuildError;
use crate::derive::Script;
use crate::digest::Digest;
use crate::fsio::{FileLock, IoContext, LockKind, PathError, create_dir_all, remove_tree, sorted_names, walk};
use crate::sandbox::Bind;
use crate::sandbox::tree::make_dir;
use crate::store::Store;

/// Where the caches of all projects are, below the store's directory.
const DIR: &str = "build-caches";

/// The file of a cache that is locked while a script has it; its time is that of the last use.
const LOCK: &str = "lock";

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

/// Removes the build caches that no script had since `unused_since`; gives how many there are and their size in bytes, also
/// where `dry_run` leaves them.
///
/// # Errors
///
/// A directory that cannot be read or removed.
pub fn collect_build_caches(store: &Store, unused_since: SystemTime, dry_run: bool) -> Result<(u64, u64), PathError> {
    let dir = store.dir().join(DIR);
    let (mut count, mut bytes) = (0, 0);
    if !dir.is_dir() {
        return Ok((count, bytes));
    }
    for name in sorted_names(&dir)? {
        let home = dir.join(name);
        let lock = home.join(LOCK);
        let used = fs::metadata(&lock).and_then(|metadata| metadata.modified());
        if used.is_ok_and(|used| used > unused_since) {
            continue;
        }
        // A script may have begun to use it since.
        let Some(_held) = FileLock::try_acquire(&lock, LockKind::Exclusive)? else {
            continue;
        };
        count += 1;
        bytes += size_of(&home)?;
        if !dry_run {
            remove_tree(&home)?;
        }
    }
    Ok((count, bytes))
}

/// Size of the files in a tree, in bytes.
fn size_of(tree: &Path) -> Result<u64, PathError> {
    let mut bytes = 0;
    for entry in walk(tree) {
        let path = entry?.into_path();
        let metadata = path.symlink_metadata().context("read", &path)?;
        bytes += if metadata.is_file() { metadata.len() } else { 0 };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::PathBuf;
    use std::time::Duration;

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
    fn what_was_not_used_is_collected() {
        let fixture = Fixture::new();
        let held = fixture.open(&["/build/a"], Some(owner("p", "held")));
        for label in ["old", "new"] {
            let cache = fixture.open(&["/build/a"], Some(owner("p", label)));
            fs::write(cache.binds[0].source.join("object"), "four").unwrap();
        }
        let home = |label| fixture.store.dir().join(DIR).join(owner("p", label).name());
        let now = fs::metadata(home("new").join(LOCK)).unwrap().modified().unwrap();
        let lock = fs::File::options().write(true).open(home("old").join(LOCK)).unwrap();
        lock.set_modified(now - Duration::from_secs(1000)).unwrap();
        let since = now - Duration::from_secs(500);
        assert_eq!(collect_build_caches(&fixture.store, since, true).unwrap(), (1, 4));
        assert!(home("old").exists());
        assert_eq!(collect_build_caches(&fixture.store, since, false).unwrap(), (1, 4));
        assert!(!home("old").exists() && home("new").exists());
        // One that a script has stays, however old it is.
        let later = now + Duration::from_secs(500);
        assert_eq!(collect_build_caches(&fixture.store, later, false).unwrap(), (1, 4));
        assert!(held.binds[0].source.exists());
    }
}
