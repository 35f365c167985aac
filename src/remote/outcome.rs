//! The *outcome* of an action: what a builder says that it made, judged, fetched and written to this disk.
//!
//! Invariant: nothing is written but at the places that were asked for, every directory on the way is made here, and each
//! byte is proved by the hash under which it was announced. What is announced otherwise than it may be is refused as a whole,
//! before anything of it is fetched.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use prost::Message;

use super::blob::Blob;
use super::error::{RemoteError, shortened};
use super::line::Line;
use super::transfer::{Transfers, fetch_stream};
use crate::fsio::IoContext;
use crate::nar;
use crate::store_path::StoreDir;

/// Largest description of an output that is read, in bytes: some hundred thousand files.
const TREE_MAX: u64 = 64 << 20;

/// Most files, directories and links of an output. A small description can stand for more than any disk, or this program's
/// memory, holds, since directories that are the same are described once.
const ENTRIES_MAX: usize = 1 << 20;

/// Largest log that is fetched, in bytes.
const LOG_MAX: u64 = 256 << 20;

/// Where an output is written to.
pub(super) struct Wanted<'a> {
    /// Its path as the command named it.
    pub path: &'a str,
    /// Where it goes; nothing is there yet.
    pub dest: &'a Path,
    /// Where it is for those inside: links that lead out of the store from there are refused.
    pub inside: PathBuf,
    /// Whether it is read here, and so must be a regular file.
    pub is_read: bool,
}

/// An entry to be made, below the directory that holds it.
#[derive(Debug, PartialEq, Eq)]
enum Made {
    Dir,
    Link(String),
    File(Blob, bool),
}

/// What is to be made of an output, directories before what is in them.
#[derive(Debug, Default)]
struct Draft {
    entries: Vec<(PathBuf, Made)>,
    bytes: u64,
}

/// Writes what was asked for, where it was made; what was not asked for is an error.
pub(super) fn take(
    line: &Line,
    transfers: &Transfers,
    result: &api::ActionResult,
    wanted: &[Wanted<'_>],
) -> Result<(), RemoteError> {
    let judge = Judge { line, transfers };
    let mut draft = Draft::default();
    let mut seen = BTreeSet::new();
    let mut place = |path: &str| {
        let found = wanted.iter().find(|wanted| wanted.path == path);
        let found =
            found.ok_or_else(|| line.wrong(format!("it made `{}`, which nobody asked for", shortened(path))))?;
        match seen.insert(path.to_owned()) {
            true => Ok(found),
            false => Err(line.wrong(format!("it says twice what `{}` is", shortened(path)))),
        }
    };
    for file in &result.output_files {
        let wanted = place(&file.path)?;
        let blob = judge.blob(file.digest.as_ref(), &file.path)?;
        draft.add(line, wanted.dest.to_owned(), Made::File(blob, file.is_executable))?;
    }
    // The lists by kind, of which builders said links before, say the same again.
    for api::OutputSymlink { path, target, .. } in &result.output_symlinks {
        let wanted = place(path)?;
        judge.kind(wanted, "link")?;
        judge.link(&wanted.inside, target)?;
        draft.add(line, wanted.dest.to_owned(), Made::Link(target.to_owned()))?;
    }
    for directory in &result.output_directories {
        let wanted = place(&directory.path)?;
        judge.kind(wanted, "directory")?;
        judge.tree(directory, wanted, &mut draft)?;
    }
    draft.check_room(line, wanted)?;
    draft.make(line, transfers)
}

/// Gives what the action wrote to its standard output and error to `output`.
pub(super) fn take_log(
    line: &Line,
    result: &api::ActionResult,
    output: &mut dyn FnMut(&[u8]),
) -> Result<(), RemoteError> {
    for (raw, digest) in [
        (&result.stdout_raw, &result.stdout_digest),
        (&result.stderr_raw, &result.stderr_digest),
    ] {
        match Blob::from_api(digest.as_ref()) {
            _ if !raw.is_empty() => output(raw),
            Some(blob) if blob.size > LOG_MAX => {
                output(format!("[layerize: a log of {} bytes is left at the builder]\n", blob.size).as_bytes())
            }
            Some(blob) if blob.size > 0 => fetch_stream(line, blob, &mut Told(output), Path::new("the log"))?,
            _ => {}
        }
    }
    Ok(())
}

/// A writer that tells.
struct Told<'a>(&'a mut dyn FnMut(&[u8]));

impl Write for Told<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        (self.0)(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What decides whether something is taken.
struct Judge<'a> {
    line: &'a Line,
    transfers: &'a Transfers,
}

impl Judge<'_> {
    fn blob(&self, digest: Option<&api::Digest>, path: &str) -> Result<Blob, RemoteError> {
        let reason = || format!("what it says that `{}` holds is no hash and size", shortened(path));
        Blob::from_api(digest).ok_or_else(|| self.line.wrong(reason()))
    }

    /// What is read here is read where it is, and nowhere else.
    fn kind(&self, wanted: &Wanted<'_>, kind: &str) -> Result<(), RemoteError> {
        match wanted.is_read {
            true => Err(self.line.wrong(format!("`{}` is a {kind} and no file", wanted.path))),
            false => Ok(()),
        }
    }

    /// A link may lead anywhere by its full path, as one of a script that ran here may: it is a text. A relative one that
    /// leads out of the store would lead elsewhere on this disk than it did there.
    fn link(&self, inside: &Path, target: &str) -> Result<(), RemoteError> {
        let place = shortened(&inside.display().to_string());
        if target.is_empty() || target.len() > nar::MAX_TARGET || target.contains('\0') {
            return Err(self
                .line
                .wrong(format!("the link `{place}` leads nowhere that a link can")));
        }
        if target.starts_with('/') {
            return Ok(());
        }
        let mut place_of = inside.to_owned();
        for part in std::iter::once("..").chain(target.split('/')) {
            match part {
                "" | "." => {}
                ".." => drop(place_of.pop()),
                part => place_of.push(part),
            }
            if !place_of.starts_with(StoreDir::LAYERIZE) {
                let target = shortened(target);
                return Err(self
                    .line
                    .wrong(format!("the link `{place}` leads out of the store: `{target}`")));
            }
        }
        Ok(())
    }

    fn tree(
        &self,
        directory: &api::OutputDirectory,
        wanted: &Wanted<'_>,
        draft: &mut Draft,
    ) -> Result<(), RemoteError> {
        let blob = self.blob(directory.tree_digest.as_ref(), &directory.path)?;
        let bytes = self.transfers.fetch_whole(self.line, blob, TREE_MAX)?;
        let unreadable = |error: prost::DecodeError| {
            self.line.wrong(format!(
                "what it says of `{}` cannot be read: {error}",
                shortened(&directory.path)
            ))
        };
        let tree = RawTree::decode(bytes.as_slice()).map_err(unreadable)?;
        let children: BTreeMap<Blob, &[u8]> = tree
            .children
            .iter()
            .map(|child| (Blob::of(child), child.as_slice()))
            .collect();
        draft.add(self.line, wanted.dest.to_owned(), Made::Dir)?;
        // What is still to be looked into. A builder decides how deep that is, so nothing here calls itself.
        let mut open = vec![OpenDir {
            bytes: &tree.root,
            dest: wanted.dest.to_owned(),
            inside: wanted.inside.clone(),
            depth: 1,
        }];
        while let Some(dir) = open.pop() {
            self.directory(&dir, &children, draft, &mut open)?;
        }
        Ok(())
    }

    /// Takes what is in a directory; those below it are added to `open`.
    fn directory<'t>(
        &self,
        dir: &OpenDir<'t>,
        children: &BTreeMap<Blob, &'t [u8]>,
        draft: &mut Draft,
        open: &mut Vec<OpenDir<'t>>,
    ) -> Result<(), RemoteError> {
        let shown = || shortened(&dir.inside.display().to_string());
        if dir.depth > nar::MAX_DEPTH {
            let most = nar::MAX_DEPTH;
            return Err(self
                .line
                .wrong(format!("`{}` is more than {most} directories deep", shown())));
        }
        let directory = api::Directory::decode(dir.bytes);
        let directory = directory.map_err(|error| {
            self.line
                .wrong(format!("what it says of `{}` cannot be read: {error}", shown()))
        })?;
        let mut names = BTreeSet::new();
        let mut name_of = |name: &str| {
            let is_name = !name.is_empty() && name.len() <= nar::MAX_NAME && !name.contains(['/', '\0']);
            if !is_name || matches!(name, "." | "..") {
                return Err(self
                    .line
                    .wrong(format!("`{}` is no name in `{}`", shortened(name), shown())));
            }
            match names.insert(name.to_owned()) {
                true => Ok(()),
                false => Err(self
                    .line
                    .wrong(format!("`{}` stands twice in `{}`", shortened(name), shown()))),
            }
        };
        for file in &directory.files {
            name_of(&file.name)?;
            let blob = self.blob(file.digest.as_ref(), &file.name)?;
            draft.add(
                self.line,
                dir.dest.join(&file.name),
                Made::File(blob, file.is_executable),
            )?;
        }
        for link in &directory.symlinks {
            name_of(&link.name)?;
            self.link(&dir.inside.join(&link.name), &link.target)?;
            draft.add(self.line, dir.dest.join(&link.name), Made::Link(link.target.clone()))?;
        }
        for below in &directory.directories {
            name_of(&below.name)?;
            let blob = self.blob(below.digest.as_ref(), &below.name)?;
            let missing = || {
                format!(
                    "it does not say what is in `{}` of `{}`",
                    shortened(&below.name),
                    shown()
                )
            };
            let bytes = children.get(&blob).ok_or_else(|| self.line.wrong(missing()))?;
            let dest = dir.dest.join(&below.name);
            draft.add(self.line, dest.clone(), Made::Dir)?;
            open.push(OpenDir {
                bytes,
                dest,
                inside: dir.inside.join(&below.name),
                depth: dir.depth + 1,
            });
        }
        Ok(())
    }
}

/// A directory as it came, which is to be looked into.
struct OpenDir<'a> {
    bytes: &'a [u8],
    dest: PathBuf,
    inside: PathBuf,
    depth: usize,
}

/// `Tree` of the API with its directories as they came: they are known by the hash of these very bytes.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RawTree {
    /// The root.
    #[prost(bytes = "vec", tag = "1")]
    pub root: Vec<u8>,
    /// All directories below it.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub children: Vec<Vec<u8>>,
}

impl Draft {
    fn add(&mut self, line: &Line, path: PathBuf, made: Made) -> Result<(), RemoteError> {
        nar::check_length(&path, 0)?;
        if self.entries.len() >= ENTRIES_MAX {
            return Err(line.wrong(format!("an output of more than {ENTRIES_MAX} files")));
        }
        if let Made::File(blob, _) = &made {
            self.bytes = self.bytes.saturating_add(blob.size);
        }
        self.entries.push((path, made));
        Ok(())
    }

    /// That there is room for it: a builder may announce what no disk holds.
    fn check_room(&self, line: &Line, wanted: &[Wanted<'_>]) -> Result<(), RemoteError> {
        let Some(parent) = wanted.first().and_then(|wanted| wanted.dest.parent()) else {
            return Ok(());
        };
        let room = rustix::fs::statvfs(parent)
            .map_err(std::io::Error::from)
            .context("look for room in", parent)?;
        let room = room.f_bavail.saturating_mul(room.f_frsize);
        match self.bytes <= room {
            true => Ok(()),
            false => {
                let needed = self.bytes;
                Err(line.wrong(format!("an output of {needed} bytes, where there is room for {room}")))
            }
        }
    }

    /// Makes everything; large files one after the other, of small ones several in a message.
    fn make(self, line: &Line, transfers: &Transfers) -> Result<(), RemoteError> {
        let mut small: BTreeMap<Blob, Vec<(PathBuf, bool)>> = BTreeMap::new();
        for (path, made) in self.entries {
            match made {
                Made::Dir => fs::create_dir(&path).context("create directory", &path)?,
                Made::Link(target) => symlink(target, &path).context("create the symlink", &path)?,
                Made::File(blob, executable) if transfers.is_large(blob) => {
                    let mut file = create(&path, executable)?;
                    fetch_stream(line, blob, &mut file, &path)?;
                }
                Made::File(blob, executable) => small.entry(blob).or_default().push((path, executable)),
            }
        }
        let blobs: Vec<Blob> = small.keys().copied().collect();
        transfers.fetch(line, &blobs, &mut |blob, bytes| {
            for (path, executable) in small.get(&blob).into_iter().flatten() {
                create(path, *executable)?.write_all(bytes).context("write", path)?;
            }
            Ok(())
        })
    }
}

fn create(path: &Path, executable: bool) -> Result<File, RemoteError> {
    let file = File::create_new(path).context("create", path)?;
    let mode = if executable { 0o755 } else { 0o644 };
    file.set_permissions(Permissions::from_mode(mode))
        .context("set the mode of", path)?;
    Ok(file)
}
