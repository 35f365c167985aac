//! The *filters* of a local source, and the walk that follows them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::LocalSource;
use super::archive::{Entry, EntryKind};
use crate::fetch::FetchError;
use crate::fsio::{self, IoContext, Stamp};
use crate::nar::{self, NarError};

/// Largest `.gitignore` that is read, in bytes.
const GITIGNORE_MAX: u64 = 4 << 20;

/// What the filters leave of the tree at `root`, directories before what is in them, names in byte order, each with its stamp.
pub(super) fn walk(source: &LocalSource<'_>, root: &Path) -> Result<Vec<(Entry, Stamp)>, FetchError> {
    let stamp = Stamp::of(&fs::metadata(root).context("read", root)?);
    let top = Entry {
        path: Vec::new(),
        kind: EntryKind::Directory,
    };
    let mut walker = Walker {
        source,
        root,
        include: patterns(source, root, source.include)?,
        exclude: patterns(source, root, source.exclude)?,
        gitignores: Vec::new(),
        entries: vec![(top, stamp)],
    };
    let only_included = !source.include.is_empty();
    let on_disk = walker.directory(&[], !only_included)?;
    if walker.entries.len() == 1 && on_disk > 0 {
        return Err(FetchError::LocalEmpty {
            package: source.package.to_owned(),
            path: source.path.to_owned(),
        });
    }
    Ok(walker.entries)
}

/// Compiles the user's patterns.
fn patterns(source: &LocalSource<'_>, root: &Path, patterns: &[String]) -> Result<Gitignore, FetchError> {
    let mut builder = GitignoreBuilder::new(root);
    // In a file of git's an unclosed bracket is itself; in a spec it is a mistake.
    builder.allow_unclosed_class(false);
    let wrong = |pattern: &str, error: ignore::Error| FetchError::Pattern {
        package: source.package.to_owned(),
        pattern: pattern.to_owned(),
        source: Box::new(error),
    };
    for pattern in patterns {
        builder.add_line(None, pattern).map_err(|error| wrong(pattern, error))?;
    }
    builder.build().map_err(|error| wrong(&patterns.join("`, `"), error))
}

struct Walker<'a> {
    source: &'a LocalSource<'a>,
    root: &'a Path,
    include: Gitignore,
    exclude: Gitignore,
    /// Those of the directories above what is being looked at, the root's first.
    gitignores: Vec<Gitignore>,
    entries: Vec<(Entry, Stamp)>,
}

impl Walker<'_> {
    /// Adds what is in `dir`; `included` says whether `include` asks for all of it. Gives the number of names in
    /// it on disk, `.git` left out.
    fn directory(&mut self, dir: &[u8], included: bool) -> Result<usize, FetchError> {
        let physical = self.root.join(OsStr::from_bytes(dir));
        let names = fsio::sorted_names(&physical)?;
        let had = self.gitignores.len();
        if self.source.gitignore && names.iter().any(|name| name == ".gitignore") {
            self.gitignores.extend(read_gitignore(&physical)?);
        }
        let mut count = 0;
        for name in names.iter().filter(|name| *name != ".git") {
            count += 1;
            let mut path = dir.to_vec();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            self.entry(path, included)?;
        }
        self.gitignores.truncate(had);
        Ok(count)
    }

    fn entry(&mut self, path: Vec<u8>, included: bool) -> Result<(), FetchError> {
        let physical = self.root.join(OsStr::from_bytes(&path));
        if path.iter().filter(|&&byte| byte == b'/').count() >= nar::MAX_DEPTH {
            return Err(NarError::TooDeep { path: physical }.into());
        }
        nar::check_length(&physical, 0)?;
        let metadata = fs::symlink_metadata(&physical).context("read", &physical)?;
        let (kind, stamp) = (metadata.file_type(), Stamp::of(&metadata));
        if self.is_excluded(&physical, kind.is_dir()) {
            return Ok(());
        }
        let included = match self.include.matched(&physical, kind.is_dir()) {
            Match::Ignore(_) => true,
            Match::Whitelist(_) => false,
            Match::None => included,
        };
        if kind.is_dir() {
            let before = self.entries.len();
            let kind = EntryKind::Directory;
            self.entries.push((
                Entry {
                    path: path.clone(),
                    kind,
                },
                stamp,
            ));
            let on_disk = self.directory(&path, included)?;
            let nothing_left = self.entries.len() == before + 1;
            if nothing_left && (on_disk > 0 || !included) {
                self.entries.truncate(before);
            }
            return Ok(());
        }
        if !included {
            return Ok(());
        }
        let kind = if kind.is_symlink() {
            let target = fs::read_link(&physical).context("read the symlink", &physical)?;
            EntryKind::Symlink {
                target: target.as_os_str().as_bytes().to_vec(),
            }
        } else if kind.is_file() {
            EntryKind::File {
                executable: metadata.permissions().mode() & 0o100 != 0,
                size: metadata.len(),
            }
        } else {
            return Err(self.source.special(&path, kind));
        };
        self.entries.push((Entry { path, kind }, stamp));
        Ok(())
    }

    /// The spec's `exclude` decides first, then the nearest `.gitignore` that says anything.
    fn is_excluded(&self, physical: &Path, is_dir: bool) -> bool {
        match self.exclude.matched(physical, is_dir) {
            Match::Ignore(_) => return true,
            Match::Whitelist(_) => return false,
            Match::None => {}
        }
        let mut decisions = self
            .gitignores
            .iter()
            .rev()
            .map(|gitignore| gitignore.matched(physical, is_dir));
        decisions
            .find(|decision| !decision.is_none())
            .is_some_and(|decision| decision.is_ignore())
    }
}

/// The `.gitignore` of `dir`. As git does, one that is a symlink does not count, nor does a line that is not a pattern.
fn read_gitignore(dir: &Path) -> Result<Option<Gitignore>, FetchError> {
    let path = dir.join(".gitignore");
    if !fs::symlink_metadata(&path).context("read", &path)?.is_file() {
        return Ok(None);
    }
    let text = fsio::read_limited(&path, GITIGNORE_MAX)?;
    let mut builder = GitignoreBuilder::new(dir);
    for line in String::from_utf8_lossy(&text).trim_start_matches('\u{feff}').lines() {
        // An error is that of one line, which is then no pattern.
        let _ = builder.add_line(None, line);
    }
    Ok(builder.build().ok())
}
