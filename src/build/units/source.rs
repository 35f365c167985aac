//! The *files of a source*, shared out among the packages that are in it.
//!
//! Invariant: two sources in which a package's digest is equal have the same files in its directory, whatever links there lead
//! to; a package has no digest where a link leads to what may change without it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::build::BuildError;
use crate::digest::Digest;
use crate::fsio::{self, IoContext};
use crate::parallel;

/// Largest file that a compiler may read, in bytes.
const FILE_MAX: u64 = 1 << 30;

/// A source, and what is in its packages.
pub(super) struct SourceFiles {
    /// Without links.
    root: PathBuf,
    dirs: BTreeSet<String>,
    packages: BTreeMap<String, Option<Digest>>,
}

impl SourceFiles {
    /// Reads the source at `root`, with packages in `dirs`.
    pub(super) fn read(root: &Path, dirs: &BTreeSet<String>) -> Result<Self, BuildError> {
        let mut source = Self {
            root: root.canonicalize().context("read", root)?,
            dirs: dirs.clone(),
            packages: dirs.iter().map(|dir| (dir.clone(), None)).collect(),
        };
        let mut files = Vec::new();
        for entry in fsio::walk(&source.root) {
            let entry = entry?;
            if !entry.file_type().is_dir() {
                files.push(entry.into_path());
            }
        }
        let digests = parallel::map(&files, parallel::threads(0), |path| {
            Ok::<_, BuildError>(source.entry(path))
        })?;
        let mut texts: BTreeMap<&str, Option<Vec<u8>>> = BTreeMap::new();
        for (path, line) in files.iter().zip(digests) {
            let below = path.strip_prefix(&source.root).unwrap_or(path);
            let Some(owner) = source.owner(below) else { continue };
            let text = texts.entry(owner).or_insert_with(|| Some(Vec::new()));
            match (text.as_mut(), line) {
                (Some(text), Some(line)) => {
                    text.extend(below.as_os_str().as_bytes());
                    text.extend(line.as_bytes());
                }
                _ => *text = None,
            }
        }
        let texts: Vec<(String, Option<Digest>)> = texts
            .into_iter()
            .map(|(dir, text)| (dir.to_owned(), text.map(|text| Digest::of(&text))))
            .collect();
        source.packages.extend(texts);
        Ok(source)
    }

    /// What a file, or what a link leads to, is in a package's digest; `None` where that is not known.
    fn entry(&self, path: &Path) -> Option<String> {
        let metadata = fs::symlink_metadata(path).ok()?;
        if metadata.is_file() {
            return Some(format!("\0{}\n", digest_of(path)?.hex()));
        }
        let target = fs::read_link(path).ok()?;
        let place = path.canonicalize().ok()?;
        let below = place.strip_prefix(&self.root).ok()?;
        let own = path.strip_prefix(&self.root).ok()?;
        if target.is_absolute() {
            return None;
        }
        // Of a directory that is in the same package all is in the digest already.
        let content = match place.is_dir() {
            true if self.owner(&below.join("x")) == self.owner(own) => String::new(),
            true => return None,
            false => digest_of(&place)?.hex(),
        };
        Some(format!("\0link {}\0{content}\n", target.to_str()?))
    }

    /// The directory of the package that a file belongs to.
    fn owner(&self, file: &Path) -> Option<&str> {
        file.ancestors().skip(1).find_map(|dir| {
            let dir = self.dirs.get(dir.to_str()?)?;
            Some(dir.as_str())
        })
    }

    /// What the files of a package are.
    pub(super) fn of_dir(&self, dir: &str) -> Option<Digest> {
        self.packages.get(dir).copied().flatten()
    }

    /// A place in the source.
    pub(super) fn path(&self, place: &str) -> PathBuf {
        self.root.join(place)
    }

    /// What is in a file of the source.
    pub(super) fn file(&self, place: &str) -> Option<Digest> {
        digest_of(&self.inside(place)?)
    }

    /// Where a file of the source is, without links.
    fn inside(&self, place: &str) -> Option<PathBuf> {
        let path = self.root.join(place).canonicalize().ok()?;
        path.starts_with(&self.root).then_some(path)
    }

    /// Whether a file is of the package in `dir`, and no link leads to it.
    pub(super) fn is_below(&self, place: &str, dir: &str) -> bool {
        let plain = fsio::normalize(Path::new(place));
        self.inside(place) == Some(self.root.join(&plain)) && self.owner(&plain) == Some(dir)
    }

    /// Whether a file may name others in which the compiler would find modules: where there are two of a name it complains.
    pub(super) fn may_have_modules(&self, place: &str) -> bool {
        let is_rust = Path::new(place).extension().is_some_and(|end| end == "rs");
        let text = self
            .inside(place)
            .and_then(|path| fsio::read_limited(&path, FILE_MAX).ok());
        is_rust || text.is_none_or(|text| memchr::memmem::find(&text, b"mod ").is_some())
    }
}

/// What is in a file; `None` where it cannot be read, or is none.
pub(super) fn digest_of(path: &Path) -> Option<Digest> {
    let is_file = fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    let bytes = is_file.then(|| fsio::read_limited(path, FILE_MAX).ok())?;
    Some(Digest::of(&bytes?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_package_is_its_files_and_what_links_lead_to() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for path in ["a/src", "a/nested", "b", "c"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        for path in ["a/src/lib.rs", "a/nested/x", "b/x", "top"] {
            fs::write(at(path), "1").unwrap();
        }
        symlink("../../top", at("a/src/link")).unwrap();
        let dirs: BTreeSet<String> = ["", "a", "a/nested", "b", "c"].map(str::to_owned).into();
        let read = || SourceFiles::read(dir.path(), &dirs).unwrap();
        let digests = |source: SourceFiles| ["a", "b"].map(|dir| source.of_dir(dir));
        let [a, b] = digests(read());
        assert!(a.is_some() && b.is_some());
        // What is in another package is of no concern.
        fs::write(at("a/nested/x"), "2").unwrap();
        assert_eq!(digests(read()), [a, b]);
        // What a link leads to is.
        fs::write(at("top"), "2").unwrap();
        let [changed, same] = digests(read());
        assert!(changed.is_some() && changed != a && same == b);
        let source = read();
        assert!(source.is_below("a/src/../src/lib.rs", "a"));
        for place in ["a/src/link", "a/nested/x", "b/x", "../x", "/etc/passwd"] {
            assert!(!source.is_below(place, "a"), "{place}");
        }
        for (place, leads) in [
            ("../../b", "to a directory"),
            ("/etc/hosts", "out"),
            ("nothing", "nowhere"),
        ] {
            symlink(place, at("a/src/far")).unwrap();
            assert_eq!(digests(read()), [None, b], "{leads}");
            fs::remove_file(at("a/src/far")).unwrap();
        }
    }
}
