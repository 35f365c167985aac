//! A *layer's check*: every entry of its tar against the others, and against the layers below.
//!
//! Invariant: an entry's problem names the byte of the tar at which its header begins; memory grows with the entries'
//! paths, up to a bound beyond which the layer is refused.

use std::collections::BTreeMap;

use super::super::AuditError;
use super::super::facts::shown;
use super::super::stream::{LayerEnd, LayerStream};
use super::{Problems, Profile};
use crate::archive::tar::{Entry, Trailer};
use crate::archive::{Kind, clean};
use crate::oci::CompressionFormat;
use crate::oci::Descriptor;
use crate::transport::Source;

/// Most problems that one layer is given: a broken tar may have one an entry.
const PROBLEMS_MAX: usize = 20;

/// Most bytes of paths that are remembered of one image.
const PATHS_MAX: usize = 256 << 20;

/// What a path costs besides its bytes: its share of a node, and the allocator's.
const ENTRY_COST: usize = 96;

/// Longest path and longest link target in bytes (Linux, PATH_MAX without its NUL), and longest component.
const PATH_MAX: usize = 4095;
const NAME_MAX: usize = 255;

/// Largest user or group ID: all ones means "do not change" to chown(2).
const ID_MAX: u64 = u32::MAX as u64 - 1;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What a layer turned out to be.
#[derive(Debug, Clone, Copy)]
pub(super) struct LayerSeen {
    pub(super) packing: CompressionFormat,
    pub(super) tar_size: u64,
    pub(super) trailer: Trailer,
    pub(super) begins_with_skippable_frame: bool,
}

/// The file system as far as it was read: every path with what it is.
#[derive(Debug, Default)]
pub(super) struct Files {
    paths: BTreeMap<Vec<u8>, Kind>,
    bytes: usize,
    /// Whether there are layers that could not be read, so that there may be more.
    pub(super) is_partial: bool,
}

impl Files {
    fn insert(&mut self, path: Vec<u8>, kind: Kind) {
        self.bytes += path.len() + ENTRY_COST;
        self.paths.insert(path, kind);
    }

    /// Whether something is there, or below it.
    fn holds(&self, path: &[u8]) -> bool {
        self.paths.contains_key(path) || self.below(path).is_some()
    }

    fn below(&self, path: &[u8]) -> Option<&Vec<u8>> {
        let prefix = [path, b"/"].concat();
        let next = self.paths.range(prefix.clone()..).next().map(|(path, _)| path);
        next.filter(|next| next.starts_with(&prefix))
    }

    /// Takes away what is below a path, and with `itself` the path too.
    fn remove(&mut self, path: &[u8], itself: bool) {
        if itself && self.paths.remove(path).is_some() {
            self.bytes = self.bytes.saturating_sub(path.len() + ENTRY_COST);
        }
        while let Some(found) = self.below(path).cloned() {
            self.bytes = self.bytes.saturating_sub(found.len() + ENTRY_COST);
            self.paths.remove(&found);
        }
    }
}

/// Reads a layer to its end and notes what is wrong with its entries; `lower` becomes the files with this layer on it.
pub(super) fn read(
    source: &dyn Source,
    descriptor: &Descriptor,
    subject: &str,
    lower: &mut Files,
    problems: &mut Problems,
) -> Result<LayerEnd, AuditError> {
    let mut stream = LayerStream::open(source, descriptor)?;
    let mut check = LayerCheck {
        subject,
        lower,
        own: Files::default(),
        whiteouts: Vec::new(),
        left: PROBLEMS_MAX,
        problems,
    };
    while let Some(entry) = stream.next_entry()? {
        check.entry(&entry);
        if check.own.bytes + check.lower.bytes > PATHS_MAX {
            let text = format!("its entries' paths have more than {PATHS_MAX} bytes: this is not an image to run");
            check.problems.add(subject, text);
            check.own = Files::default();
            check.left = 0;
            break;
        }
    }
    check.stack();
    stream.finish()
}

struct LayerCheck<'a> {
    subject: &'a str,
    lower: &'a mut Files,
    own: Files,
    /// What is deleted of the layers below, and whether only what is in it.
    whiteouts: Vec<(Vec<u8>, bool)>,
    /// Problems that may still be told.
    left: usize,
    problems: &'a mut Problems,
}

impl LayerCheck<'_> {
    fn entry(&mut self, entry: &Entry) {
        let path = entry.clean_path();
        self.plain_facts(entry, &path);
        if path.len() > PATH_MAX {
            return self.tell(entry, &path, format!("its path has more than {PATH_MAX} bytes"));
        }
        if path.is_empty() {
            if entry.kind != Kind::Directory {
                self.tell(entry, &path, format!("the root is a {}", entry.kind.name()));
            }
            return self.remember(entry, path);
        }
        let (parent, name) = split(&path);
        if name.starts_with(WHITEOUT) {
            return self.whiteout(entry, &path, parent, name);
        }
        self.place(entry, &path);
        if entry.kind == Kind::HardLink {
            self.hard_link(entry, &path);
        }
        self.remember(entry, path);
    }

    /// What can be said of an entry by itself.
    fn plain_facts(&mut self, entry: &Entry, path: &[u8]) {
        if entry.path.split(|&byte| byte == b'/').any(|part| part == b"..") {
            self.tell(entry, path, "its path has a component `..`".to_owned());
        }
        if path.split(|&byte| byte == b'/').any(|part| part.len() > NAME_MAX) {
            let text = format!("a component of its path has more than {NAME_MAX} bytes");
            self.tell(entry, path, text);
        }
        if matches!(entry.kind, Kind::Other(_)) {
            let text = format!("it is a {}, which layers must not have", entry.kind.name());
            self.tell(entry, path, text);
        }
        if entry.kind == Kind::Symlink && (entry.link.is_empty() || entry.link.len() > PATH_MAX) {
            let text = format!("its target has {} bytes, and 1 to {PATH_MAX} can be", entry.link.len());
            self.tell(entry, path, text);
        }
        for (what, id) in [("user", entry.uid), ("group", entry.gid)] {
            if id > ID_MAX {
                self.tell(entry, path, format!("its {what} ID {id} does not fit 32 bits"));
            }
        }
        if self.asked(Profile::Strict) && std::str::from_utf8(&entry.path).is_err() {
            self.rule(Profile::Strict, "utf-8", entry, path, "its path is not UTF-8");
        }
    }

    /// An entry among the others: what is at its path already, and what its parents are.
    fn place(&mut self, entry: &Entry, path: &[u8]) {
        if self.own.paths.contains_key(path) {
            self.tell(entry, path, "it appears twice".to_owned());
        } else if entry.kind != Kind::Directory && self.own.below(path).is_some() {
            let text = format!("it is a {}, and the layer has files in it", entry.kind.name());
            self.tell(entry, path, text);
        } else if self.asked(Profile::Strict) && self.own.below(path).is_some() {
            self.rule(
                Profile::Strict,
                "parents-first",
                entry,
                path,
                "the directory comes after what is in it",
            );
        }
        self.parents(entry, path, false);
    }

    /// What the directories of an entry are, whiteouts included: in its own layer, or else in those below.
    fn parents(&mut self, entry: &Entry, path: &[u8], is_whiteout: bool) {
        for parent in ancestors(path) {
            match (self.own.paths.get(parent), self.lower.paths.get(parent)) {
                (Some(Kind::Directory), _) => continue,
                (Some(kind), _) => {
                    let text = format!("it is in `{}`, which is a {}", shown(parent), kind.name());
                    self.tell(entry, path, text);
                }
                (None, Some(kind)) if *kind != Kind::Directory => {
                    let text = format!("`{}` is a {} in a layer below", shown(parent), kind.name());
                    if self.asked(Profile::Strict) {
                        self.rule(Profile::Strict, "below-link", entry, path, &text);
                    }
                }
                (None, None) if !is_whiteout && !self.lower.is_partial && self.asked(Profile::Lambda) => {
                    let text = format!("its directory `{}` is not an entry", shown(parent));
                    self.rule(Profile::Lambda, "parents", entry, path, &text);
                }
                (None, _) => continue,
            }
            break;
        }
    }

    fn hard_link(&mut self, entry: &Entry, path: &[u8]) {
        let target = clean(&entry.link);
        let text = match self.own.paths.get(&target) {
            Some(Kind::Directory) => "which is a directory",
            Some(_) if target == path => "itself",
            Some(_) => return,
            None => "which is not before it in the layer",
        };
        self.tell(
            entry,
            path,
            format!("it is a hard link to `{}`, {text}", shown(&entry.link)),
        );
    }

    fn whiteout(&mut self, entry: &Entry, path: &[u8], parent: &[u8], name: &[u8]) {
        let opaque = name == OPAQUE;
        let hidden = &name[WHITEOUT.len()..];
        if !opaque && hidden.starts_with(WHITEOUT) {
            let text = "names that begin with `.wh..wh.` are reserved: only `.wh..wh..opq` means something";
            self.tell(entry, path, text.to_owned());
        } else if matches!(hidden, b"" | b"." | b"..") {
            self.tell(entry, path, "it is a whiteout that names nothing".to_owned());
        }
        if entry.kind != Kind::File && entry.kind != Kind::HardLink {
            let text = format!("it is a {}, and a whiteout is an empty file", entry.kind.name());
            self.tell(entry, path, text);
        } else if entry.size > 0 {
            let text = format!("it has {} bytes, and a whiteout is an empty file", entry.size);
            self.tell(entry, path, text);
        }
        if self.own.paths.contains_key(path) {
            self.tell(entry, path, "it appears twice".to_owned());
        }
        let target = match opaque {
            true => parent.to_vec(),
            false => join(parent, hidden),
        };
        self.parents(entry, path, true);
        self.strict_whiteout(entry, path, parent, &target, opaque);
        self.own.bytes += target.len() + ENTRY_COST;
        self.whiteouts.push((target, opaque));
        self.remember(entry, path.to_vec());
    }

    fn strict_whiteout(&mut self, entry: &Entry, path: &[u8], parent: &[u8], target: &[u8], opaque: bool) {
        if !self.asked(Profile::Strict) {
            return;
        }
        let root = opaque && target.is_empty();
        if !root && !self.lower.is_partial && !self.lower.holds(target) {
            let text = format!("no lower layer has `{}`", shown(target));
            self.rule(Profile::Strict, "whiteout-target", entry, path, &text);
        }
        let prefix = if parent.is_empty() {
            Vec::new()
        } else {
            [parent, b"/"].concat()
        };
        let before = self.own.paths.range(prefix.clone()..);
        let before = before.take_while(|(other, _)| other.starts_with(&prefix) && !other.is_empty());
        // A few siblings suffice: whiteouts themselves sort before most names.
        let mut others = before.take(1000).filter(|(other, _)| {
            let (dir, name) = split(other);
            dir == parent && !name.starts_with(WHITEOUT)
        });
        if let Some((other, _)) = others.next() {
            let text = format!("`{}` comes before it", shown(other));
            self.rule(Profile::Strict, "whiteout-order", entry, path, &text);
        }
    }

    fn remember(&mut self, entry: &Entry, path: Vec<u8>) {
        self.own.insert(path, entry.kind);
    }

    /// Lays this layer's files on those below.
    fn stack(&mut self) {
        for (path, opaque) in std::mem::take(&mut self.whiteouts) {
            self.lower.remove(&path, !opaque);
        }
        for (path, kind) in std::mem::take(&mut self.own.paths) {
            let is_whiteout = split(&path).1.starts_with(WHITEOUT);
            if is_whiteout {
                continue;
            }
            if kind != Kind::Directory {
                self.lower.remove(&path, true);
            }
            self.lower.insert(path, kind);
        }
    }

    fn asked(&self, profile: Profile) -> bool {
        self.problems.profiles.contains(&profile)
    }

    fn tell(&mut self, entry: &Entry, path: &[u8], text: String) {
        if self.left > 0 {
            self.left -= 1;
            let subject = format!("{}, `{}`", self.subject, shown(path));
            self.problems.at(&subject, entry.header_offset, text);
        }
    }

    fn rule(&mut self, profile: Profile, rule: &'static str, entry: &Entry, path: &[u8], text: &str) {
        if self.left > 0 {
            self.left -= 1;
            let subject = format!("{}, `{}`", self.subject, shown(path));
            self.problems.rule(profile, rule, &subject, text.to_owned());
            if let Some(problem) = self.problems.list.last_mut() {
                problem.offset = Some(entry.header_offset);
            }
        }
    }
}

/// The directory and the last component of a clean path.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() {
        name.to_vec()
    } else {
        [parent, b"/", name].concat()
    }
}

/// The directories that a clean path is in, the innermost first, without the root.
fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(split(path).0), |dir| Some(split(dir).0)).take_while(|dir| !dir.is_empty())
}
