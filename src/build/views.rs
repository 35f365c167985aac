//! *Views*: directories of the user's own, in whose place a shell has others.
//!
//! Invariant: what is in the user's directories stays as it is; a directory that is empty because it was made to have a place is
//! removed once no shell has a view there.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::BuildError;
use crate::fsio::{IoContext, create_dir_all};

/// The views of a shell; they end with the value.
#[derive(Debug, Default)]
pub(super) struct Views {
    all: Vec<View>,
}

#[derive(Debug)]
struct View {
    /// Where it is seen.
    place: PathBuf,
    /// What is seen there.
    own: PathBuf,
    /// The directory that it hides, locked by each shell that has a view there.
    hidden: File,
}

impl Views {
    /// Empty directories below `dir` for the directories `named` of `source`, which are made where they are missing.
    ///
    /// # Errors
    ///
    /// Something else than a directory is at one of the places, or on the way to it.
    pub(super) fn make(source: &Path, named: &[String], dir: &Path) -> Result<Self, BuildError> {
        let source = source.canonicalize().context("resolve", source)?;
        let mut views = Self::default();
        for (number, name) in named.iter().enumerate() {
            let place = source.join(name);
            let parent = place.parent().unwrap_or(&source);
            // A link would have something hidden elsewhere.
            let is_plain = parent.canonicalize().is_ok_and(|found| found == parent);
            match fs::symlink_metadata(&place) {
                Ok(status) if is_plain && status.is_dir() => {}
                Err(_) if is_plain && !place.exists() => fs::create_dir(&place).context("create", &place)?,
                _ => return Err(BuildError::NoView { place }),
            }
            let own = dir.join(number.to_string());
            create_dir_all(&own)?;
            let hidden = File::open(&place).context("open", &place)?;
            hidden.lock_shared().context("lock", &place)?;
            views.all.push(View { place, own, hidden });
        }
        Ok(views)
    }

    /// What is seen, and where.
    pub(super) fn binds(&self) -> impl Iterator<Item = (&Path, &Path)> {
        self.all.iter().map(|view| (view.own.as_path(), view.place.as_path()))
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // Removing it would take the view of another shell away. What is not empty stays in any case.
        if self.hidden.try_lock().is_ok() {
            let _ = fs::remove_dir(&self.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_was_made_for_a_view_goes_with_the_last_one() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        fs::create_dir_all(source.join("kept/view")).unwrap();
        fs::write(source.join("kept/view/mine"), "").unwrap();
        let named = ["view".to_owned(), "kept/view".to_owned()];
        let make = |name: &str| Views::make(&source, &named, &dir.path().join(name)).unwrap();
        let (one, other) = (make("one"), make("other"));
        let places: Vec<&Path> = one.binds().map(|(_, place)| place).collect();
        assert!(places.iter().all(|place| place.is_dir()), "{places:?}");
        drop(one);
        assert!(source.join("view").is_dir());
        drop(other);
        assert!(!source.join("view").exists());
        assert!(source.join("kept/view/mine").is_file());
    }

    #[test]
    fn a_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        fs::create_dir_all(dir.path().join("outside/view")).unwrap();
        fs::create_dir(&source).unwrap();
        symlink("../outside", source.join("link")).unwrap();
        symlink("nowhere", source.join("dangling")).unwrap();
        fs::write(source.join("file"), "").unwrap();
        for name in ["link", "link/view", "link/new", "dangling", "file"] {
            let error = Views::make(&source, &[name.to_owned()], &dir.path().join("own")).unwrap_err();
            assert!(matches!(error, BuildError::NoView { .. }), "{name}: {error}");
        }
        assert!(!dir.path().join("outside/new").exists());
    }
}
