//! An *explanation* of a path in an image: which layer it comes from, which layers hide it, and which store path owns it.
//!
//! Invariant: every layer is read and verified; a path is resolved as whoever runs the image would see it, links of the
//! image included, and never leads out of the image.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Serialize;

use super::budget::Budget;
use super::facts::shown;
use super::opened::Opened;
use super::stream::LayerStream;
use super::{AuditError, KeptElsewhere, owner};
use crate::archive::tar::Entry;
use crate::archive::{Kind, clean};
use crate::capability;
use crate::digest::ContentDigest;
use crate::escape;
use crate::store_path::LogicalPath;
use crate::transport::Source;

/// Most links that are followed.
const LINKS_MAX: usize = 40;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Where a path of an image comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The path that was asked for, absolute.
    pub asked: String,
    /// The links on the way to the file, in the order in which they were followed.
    pub links: Vec<Followed>,
    /// The file's own path, absolute.
    pub path: String,
    /// What it is; `None` where the image has no such file.
    pub file: Option<Seen>,
    /// Everything that the layers say of the file's path, lowest layer first.
    pub layers: Vec<Mention>,
    /// The store path that owns it, where one does.
    pub store_path: Option<LogicalPath>,
    /// Where it is in there.
    pub below: Option<String>,
    /// Layers that the place does without: what they say of the path is not known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kept_elsewhere: Vec<KeptElsewhere>,
    /// Links that layers have files below, which consumers read in two ways, as far as that matters to the path.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub readings: Vec<Reading>,
    /// The Debian packages in the layer that it comes from, `NAME=VERSION`, where the image says so.
    pub packages: Vec<String>,
    /// All store paths that links outside the store lead into: what the image is made for.
    pub roots: BTreeSet<LogicalPath>,
}

/// A layer has files below what is a link in the layers below. What is explained is what Docker, containerd and podman
/// see, which put a directory in its place; umoci and podman's `vfs` storage follow it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// The layer with the files.
    pub layer: usize,
    /// The link's path, absolute.
    pub link: String,
    /// Where it leads, absolute: there the files are for who follows it.
    pub leads: String,
}

/// A link that was followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Followed {
    /// Its path, absolute.
    pub path: String,
    /// Its target as written.
    pub target: String,
    /// The layer that it comes from.
    pub layer: usize,
}

/// A file as the image has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// `file`, `directory`, `symlink` and so on.
    pub kind: String,
    /// Permission bits in octal.
    pub mode: String,
    /// Owner and group.
    pub owner: String,
    /// Bytes.
    pub size: u64,
    /// Its capabilities, as `getcap` prints them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<String>,
    /// The layer that it comes from.
    pub layer: usize,
}

/// What one layer says of a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mention {
    /// Index of the layer, from 0, lowest first.
    pub layer: usize,
    /// Digest of its blob.
    pub digest: ContentDigest,
    /// What the history says of it.
    pub comment: Option<String>,
    /// `has it`, `deletes it (.wh.name)`, and so on.
    pub what: String,
    /// Whether this is what is seen in the end.
    pub counts: bool,
}

/// An entry as far as it is told.
#[derive(Debug, Clone)]
struct Brief {
    kind: Kind,
    mode: u32,
    owner: (u64, u64),
    size: u64,
    link: Vec<u8>,
    capabilities: Option<String>,
    /// Whether no entry says it: it is a directory because something is below it.
    is_implied: bool,
}

type Tree = BTreeMap<Vec<u8>, Brief>;

/// Reads an image and explains a path of it; a last link is followed too.
pub fn explain(source: &dyn Source, path: &str) -> Result<Explanation, AuditError> {
    let image = Opened::new(source)?;
    let mut budget = Budget::default();
    let mut stack = Stack {
        image: &image,
        trees: Vec::new(),
        kept_elsewhere: Vec::new(),
        replaced: Vec::new(),
    };
    for (index, layer) in image.layers.iter().enumerate() {
        let mut stream = match LayerStream::open(source, &layer.descriptor) {
            Ok(stream) => stream,
            Err(error) => {
                let kept = KeptElsewhere::of(&error, index, &layer.descriptor);
                stack.kept_elsewhere.push(kept.ok_or(error)?);
                stack.trees.push(Tree::new());
                continue;
            }
        };
        let mut tree = Tree::new();
        while let Some(entry) = stream.next_entry()? {
            let capability = entry.capability().map_or(0, |value| 2 * value.len() + 48);
            let size = size_of::<Brief>() + entry.path.len() + entry.link.len() + capability;
            stream.check(budget.take(size, 3))?;
            tree.insert(entry.clean_path(), Brief::of(entry));
        }
        stream.finish()?;
        let tree = stack.settle(tree);
        stack.trees.push(tree);
    }
    Ok(stack.explain(path))
}

impl Brief {
    fn of(entry: Entry) -> Self {
        Self {
            kind: entry.kind,
            mode: entry.mode,
            owner: (entry.uid, entry.gid),
            size: entry.size,
            capabilities: entry.capability().map(capability::shown),
            link: entry.link,
            is_implied: false,
        }
    }

    fn implied() -> Self {
        Self {
            kind: Kind::Directory,
            mode: 0o755,
            owner: (0, 0),
            size: 0,
            link: Vec::new(),
            capabilities: None,
            is_implied: true,
        }
    }
}

/// A link that a layer hides by what it has below it.
struct Replaced {
    layer: usize,
    link: Vec<u8>,
    /// Where the link leads.
    leads: Vec<u8>,
}

/// The layers of an image, lowest first.
struct Stack<'a> {
    image: &'a Opened<'a>,
    trees: Vec<Tree>,
    kept_elsewhere: Vec<KeptElsewhere>,
    replaced: Vec<Replaced>,
}

/// How a layer stands to a path that it has no entry of.
enum Hiding {
    /// It does not.
    No,
    /// Nothing of the layers below is seen there; the reason.
    Yes(String),
}

impl Stack<'_> {
    fn explain(&self, path: &str) -> Explanation {
        let (resolved, links) = self.resolve(path.as_bytes());
        let found = self.find(&resolved);
        let text = absolute(&resolved);
        let owned = owner(&text);
        let packages = found.map(|(layer, _)| self.packages(layer)).unwrap_or_default();
        Explanation {
            asked: absolute(&clean(path.as_bytes())),
            links,
            file: found.map(|(layer, brief)| self.seen(layer, brief)),
            layers: self.mentions(&resolved, found.map(|(layer, _)| layer)),
            store_path: owned.as_ref().map(|(store_path, _)| store_path.clone()),
            below: owned.map(|(_, below)| below),
            kept_elsewhere: self.kept_elsewhere.clone(),
            readings: self.readings(&clean(path.as_bytes()), &resolved),
            packages,
            roots: self.roots(),
            path: text,
        }
    }

    /// A layer's entries with a directory for each that stands in place of a link of the layers below. The layer has files
    /// below the link and does not replace it: engines that unpack each layer by itself make a directory for them, which
    /// hides the link (Docker 20.10, containerd 1.6 and podman 4.3 with overlay, as measured).
    fn settle(&mut self, mut tree: Tree) -> Tree {
        if self.trees.is_empty() {
            return tree;
        }
        let mut seen: BTreeSet<&[u8]> = BTreeSet::new();
        let mut links: Vec<Vec<u8>> = Vec::new();
        for path in tree.keys() {
            for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
                let dir = &path[..at];
                let is_link = |(_, brief): (usize, &Brief)| brief.kind == Kind::Symlink;
                if seen.insert(dir) && !tree.contains_key(dir) && self.find(dir).is_some_and(is_link) {
                    links.push(dir.to_vec());
                }
            }
        }
        for link in links {
            let leads = self.resolve(&link).0;
            let layer = self.trees.len();
            tree.insert(link.clone(), Brief::implied());
            self.replaced.push(Replaced { layer, link, leads });
        }
        tree
    }

    /// The links that a layer hides, as far as they matter to a path.
    fn readings(&self, asked: &[u8], resolved: &[u8]) -> Vec<Reading> {
        let is_in =
            |path: &[u8], dir: &[u8]| path == dir || path.strip_prefix(dir).is_some_and(|rest| rest.starts_with(b"/"));
        let matters = |replaced: &&Replaced| {
            let Replaced { layer, link, leads } = replaced;
            let has_it = |rest: &[u8]| self.trees[*layer].contains_key(&[link.as_slice(), rest].concat());
            is_in(asked, link) || is_in(resolved, link) || resolved.strip_prefix(leads.as_slice()).is_some_and(has_it)
        };
        let of = |replaced: &Replaced| Reading {
            layer: replaced.layer,
            link: absolute(&replaced.link),
            leads: absolute(&replaced.leads),
        };
        self.replaced.iter().filter(matters).map(of).collect()
    }

    /// The entry that is seen at a path, and its layer.
    fn find(&self, path: &[u8]) -> Option<(usize, &Brief)> {
        for (index, tree) in self.trees.iter().enumerate().rev() {
            if let Some(brief) = tree.get(path) {
                return Some((index, brief));
            }
            if let Hiding::Yes(_) = hiding(tree, path) {
                return None;
            }
        }
        None
    }

    /// A hard link is what it links to, in its own layer.
    fn seen(&self, layer: usize, brief: &Brief) -> Seen {
        let target = (brief.kind == Kind::HardLink)
            .then(|| self.trees[layer].get(&clean(&brief.link)))
            .flatten();
        let size = target.map_or(brief.size, |target| target.size);
        Seen {
            kind: brief.kind.name(),
            mode: format!("{:04o}", brief.mode),
            owner: format!("{}:{}", brief.owner.0, brief.owner.1),
            size,
            capabilities: target.unwrap_or(brief).capabilities.clone(),
            layer,
        }
    }

    /// The path without links, as far as it leads, and the links that were followed.
    fn resolve(&self, path: &[u8]) -> (Vec<u8>, Vec<Followed>) {
        let parts = |path: &[u8]| -> VecDeque<Vec<u8>> {
            let parts = path.split(|&byte| byte == b'/');
            let parts = parts.filter(|part| !part.is_empty() && *part != b".");
            parts.map(<[u8]>::to_vec).collect()
        };
        let mut left = parts(path);
        let mut done: Vec<Vec<u8>> = Vec::new();
        let mut links = Vec::new();
        while let Some(part) = left.pop_front() {
            if part == b".." {
                done.pop();
                continue;
            }
            done.push(part);
            let here = done.join(&b'/');
            let Some((layer, brief)) = self.find(&here) else {
                continue;
            };
            if brief.kind != Kind::Symlink || links.len() >= LINKS_MAX {
                continue;
            }
            links.push(Followed {
                path: absolute(&here),
                target: shown(&brief.link),
                layer,
            });
            done.pop();
            if brief.link.starts_with(b"/") {
                done.clear();
            }
            let mut target = parts(&brief.link);
            target.append(&mut left);
            left = target;
        }
        (done.join(&b'/'), links)
    }

    fn mentions(&self, path: &[u8], counting: Option<usize>) -> Vec<Mention> {
        let history = self.image.layer_history();
        let mut mentions = Vec::new();
        for (index, tree) in self.trees.iter().enumerate() {
            let unread = self.kept_elsewhere.iter().find(|kept| kept.layer == index);
            let what = match (unread, tree.get(path), hiding(tree, path)) {
                (Some(kept), ..) => format!(
                    "is kept elsewhere and was not read: {}",
                    escape::shown(&kept.urls.join(", "))
                ),
                (_, Some(brief), _) if brief.is_implied => {
                    "has files in it: a directory in place of the link below".to_owned()
                }
                (_, Some(brief), _) => format!("has it: {}, {} bytes", brief.kind.name(), brief.size),
                (_, None, Hiding::Yes(reason)) => reason,
                (_, None, Hiding::No) => continue,
            };
            let comment = history.get(index);
            mentions.push(Mention {
                layer: index,
                digest: self.image.layers[index].descriptor.digest,
                comment: comment.and_then(|entry| entry.comment.clone().or_else(|| entry.created_by.clone())),
                what,
                counts: counting == Some(index),
            });
        }
        mentions
    }

    fn packages(&self, layer: usize) -> Vec<String> {
        let listed = self.image.layers[layer].descriptor.annotation("dev.layerize.packages");
        let listed = listed.unwrap_or_default().split_whitespace();
        listed.map(str::to_owned).collect()
    }

    fn roots(&self) -> BTreeSet<LogicalPath> {
        let mut roots = BTreeSet::new();
        for tree in &self.trees {
            for (path, brief) in tree.iter().filter(|(_, brief)| brief.kind == Kind::Symlink) {
                let is_outside = owner(&absolute(path)).is_none();
                let target = std::str::from_utf8(&brief.link).ok().filter(|_| is_outside);
                roots.extend(target.and_then(owner).map(|(store_path, _)| store_path));
            }
        }
        roots
    }
}

/// Whether a layer without an entry of a path hides what lower layers have there (image-spec, layer.md, "Whiteouts").
fn hiding(tree: &Tree, path: &[u8]) -> Hiding {
    let mut end = path.len();
    let mut is_itself = true;
    loop {
        let here = &path[..end];
        let slash = here.iter().rposition(|&byte| byte == b'/');
        let (parent, name) = match slash {
            Some(at) => (&here[..at], &here[at + 1..]),
            None => (&b""[..], here),
        };
        let join = |name: &[u8]| match parent {
            b"" => name.to_vec(),
            parent => [parent, b"/", name].concat(),
        };
        if !is_itself && tree.get(here).is_some_and(|brief| brief.kind != Kind::Directory) {
            return Hiding::Yes(format!("hides it: `{}` is not a directory there", absolute(here)));
        }
        let whiteout = join(&[WHITEOUT, name].concat());
        if !name.is_empty() && tree.contains_key(&whiteout) {
            return Hiding::Yes(format!("deletes it: `{}`", absolute(&whiteout)));
        }
        let opaque = join(OPAQUE);
        if tree.contains_key(&opaque) {
            return Hiding::Yes(format!("deletes it: `{}`", absolute(&opaque)));
        }
        match slash {
            Some(at) => (end, is_itself) = (at, false),
            None => return Hiding::No,
        }
    }
}

fn absolute(path: &[u8]) -> String {
    match path {
        b"" => "/".to_owned(),
        path => format!("/{}", shown(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::GZIP;
    use super::*;
    use crate::transport::testing::{Node, image, tar};

    fn ask(path: &str) -> Explanation {
        let store = format!("layerize/store/{}-tool-1", "0".repeat(32));
        let lower = tar(&[
            Node::dir("etc"),
            Node::file("etc/gone", "x"),
            Node::file("etc/kept", "x"),
            Node::file("opaque/file", "x"),
            Node::file("dir/file", "x"),
            Node::file(&format!("{store}/bin/tool"), "tool"),
            Node::symlink("bin", "usr/bin"),
            Node::symlink("usr/bin/tool", &format!("/{store}/bin/tool")),
            Node::symlink("loop", "loop"),
        ]);
        let upper = tar(&[
            Node::file("etc/.wh.gone", ""),
            Node::file("opaque/.wh..wh..opq", ""),
            Node::file("dir", "now a file"),
            Node::file("etc/kept", "newer"),
        ]);
        explain(&image(&[(lower, GZIP), (upper, GZIP)]), path).unwrap()
    }

    #[test]
    fn what_is_seen_is_told_apart_from_what_was() {
        for (path, layer, last) in [
            ("/etc/kept", Some(1), "has it: file, 5 bytes"),
            ("etc/gone", None, "deletes it: `/etc/.wh.gone`"),
            ("/opaque/file", None, "deletes it: `/opaque/.wh..wh..opq`"),
            ("/dir/file", None, "hides it: `/dir` is not a directory there"),
            ("/etc", Some(0), "has it: directory, 0 bytes"),
            ("/etc/../../etc/kept", Some(1), "has it: file, 5 bytes"),
        ] {
            let told = ask(path);
            assert_eq!(told.file.as_ref().map(|file| file.layer), layer, "{path}");
            assert_eq!(
                told.layers.last().map(|mention| mention.what.as_str()),
                Some(last),
                "{path}"
            );
        }
        assert!(ask("/missing").layers.is_empty());
        assert!(ask("/loop").links.len() == LINKS_MAX);
    }

    /// Case 09 of the field. Measured: Docker 20.10, containerd 1.6 and podman 4.3 with overlay make a directory `lib`;
    /// umoci 0.4 and podman with vfs follow the link.
    #[test]
    fn a_file_below_a_link_of_a_lower_layer_is_read_as_engines_do_and_the_other_reading_is_told() {
        let lower = tar(&[
            Node::dir("usr"),
            Node::dir("usr/lib"),
            Node::file("usr/lib/a", "1"),
            Node::symlink("lib", "usr/lib"),
            Node::symlink("own", "usr"),
        ]);
        let upper = tar(&[Node::file("lib/b", "2"), Node::dir("own"), Node::file("own/c", "3")]);
        let image = image(&[(lower, GZIP), (upper, GZIP)]);
        let differs = [Reading {
            layer: 1,
            link: "/lib".to_owned(),
            leads: "/usr/lib".to_owned(),
        }];
        for (path, layer, readings) in [
            ("/lib/b", Some(1), &differs[..]),
            ("/usr/lib/b", None, &differs),
            ("/lib", Some(1), &differs),
            ("/lib/a", None, &differs),
            ("/usr/lib/a", Some(0), &[]),
            ("/own/c", Some(1), &[]),
            ("/usr/c", None, &[]),
        ] {
            let told = explain(&image, path).unwrap();
            assert_eq!(told.path, path);
            assert_eq!(told.file.map(|file| file.layer), layer, "{path}");
            assert_eq!(told.readings, readings, "{path}");
        }
        let layers = explain(&image, "/lib").unwrap().layers;
        assert_eq!(
            layers[1].what,
            "has files in it: a directory in place of the link below"
        );
    }

    #[test]
    fn links_lead_to_the_store_path_that_owns_the_file() {
        let told = ask("/bin/tool");
        let links: Vec<&str> = told.links.iter().map(|link| link.path.as_str()).collect();
        assert_eq!(links, ["/bin", "/usr/bin/tool"]);
        let store_path = format!("/layerize/store/{}-tool-1", "0".repeat(32));
        let store_path: LogicalPath = store_path.parse().unwrap();
        assert_eq!(told.store_path.as_ref(), Some(&store_path));
        assert_eq!(told.below.as_deref(), Some("bin/tool"));
        assert_eq!(told.roots, BTreeSet::from([store_path]));
        assert_eq!(told.file.unwrap().size, 4);
    }
}
