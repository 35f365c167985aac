//! To *peek* is to read a few small files of an image out of its layers, and to say what stands at a few paths.
//!
//! Invariant: what is given is what a container would see at that path. The uppermost layer that speaks of a path decides,
//! a whiteout says that nothing is there, and symlinks and hard links are followed through all layers, as a runtime does
//! that opens the path in the container's root. What cannot be read so (a link that leads nowhere or in a circle, a device)
//! is an error and never as good as missing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use super::TransportError;
use crate::archive::compression::Decompressor;
use crate::archive::tar::{Streamed, TarError, TarPolicy, TarReader};
use crate::archive::{Kind, clean};
use crate::image::ImageLayer;

/// Most symlinks and hard links that are followed for one path (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// What stands at a path, links not followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peeked {
    /// A file with its bytes; one that is larger than the limit has none.
    File(Option<Vec<u8>>),
    /// A directory.
    Directory,
    /// A symlink with its target.
    Symlink(String),
    /// Another name of what stands at this path in the same layer.
    HardLink(String),
    /// A device or pipe.
    Special,
}

/// Reads files of at most `limit` bytes by their paths without leading slash; one that is not there is left out.
/// Layers are read from the uppermost down, only as far as needed.
pub fn read_files(
    layers: &[ImageLayer],
    paths: &[&str],
    limit: u64,
) -> Result<BTreeMap<String, Vec<u8>>, TransportError> {
    let mut view = LayeredView::new(layers, limit, LINKS_MAX);
    view.learn(paths.iter().flat_map(|path| prefixes(path)))?;
    let mut files = BTreeMap::new();
    for path in paths {
        if let Some(bytes) = view.file(path)? {
            files.insert((*path).to_owned(), bytes);
        }
    }
    Ok(files)
}

/// What stands at each of these paths, without leading slash and links not followed; one where nothing is is left out.
/// What is below a directory says that it is one where no entry of its own does.
pub fn entries(layers: &[ImageLayer], paths: &[&str]) -> Result<BTreeMap<String, Peeked>, TransportError> {
    let found = look(layers, paths.iter().map(|path| (*path).to_owned()).collect(), 0)?;
    Ok(found.into_iter().map(|(path, (_, peeked))| (path, peeked)).collect())
}

/// What is known so far of an image's paths: the layer that decides and what is there, or that nothing is.
struct LayeredView<'a> {
    layers: &'a [ImageLayer],
    limit: u64,
    /// How many links may be followed for one path.
    links: usize,
    known: BTreeMap<String, Option<(usize, Peeked)>>,
}

impl<'a> LayeredView<'a> {
    fn new(layers: &'a [ImageLayer], limit: u64, links: usize) -> Self {
        Self {
            layers,
            limit,
            links,
            known: BTreeMap::new(),
        }
    }

    fn learn(&mut self, paths: impl Iterator<Item = String>) -> Result<(), TransportError> {
        let new: BTreeSet<String> = paths.filter(|path| !self.known.contains_key(path)).collect();
        let mut found = look(self.layers, new.clone(), self.limit)?;
        let told = new.into_iter().map(|path| (path.clone(), found.remove(&path)));
        self.known.extend(told);
        Ok(())
    }

    /// The bytes of the file that a path leads to; `None` where nothing is at the path itself.
    fn file(&mut self, wanted: &str) -> Result<Option<Vec<u8>>, TransportError> {
        let unreadable = |reason: String| TransportError::NoFile {
            path: format!("/{wanted}"),
            reason,
        };
        let (mut path, mut is_link) = (wanted.to_owned(), false);
        for followed in 0..=self.links {
            self.learn(prefixes(&path).into_iter())?;
            let Some((at, found)) = self.first_that_is_no_directory(&path) else {
                // A directory that is a link may well lack the file; a file that is one promises it.
                return match is_link {
                    false => Ok(None),
                    true => Err(unreadable(format!("it is a link to `/{path}`, where nothing is"))),
                };
            };
            let rest = path[at.len()..].to_owned();
            match found {
                (_, Peeked::File(bytes)) if rest.is_empty() => {
                    let too_large = || TransportError::TooLarge {
                        place: "the image".to_owned(),
                        what: format!("`/{wanted}`"),
                        limit: self.limit,
                    };
                    return bytes.ok_or_else(too_large).map(Some);
                }
                (_, Peeked::Symlink(target)) => {
                    is_link |= rest.is_empty();
                    path = joined(&at, &target, &rest);
                }
                (layer, Peeked::HardLink(target)) if rest.is_empty() => {
                    let layers = self.layers.get(..=layer).unwrap_or_default();
                    let Some(links) = self.links.checked_sub(followed + 1) else {
                        break;
                    };
                    let bytes = LayeredView::new(layers, self.limit, links).file(&target)?;
                    let missing = || unreadable(format!("it is a hard link to `/{target}`, where no file is"));
                    return bytes.ok_or_else(missing).map(Some);
                }
                _ => return Err(unreadable(format!("`/{at}` is neither a file nor a link to one"))),
            }
        }
        Err(unreadable(format!(
            "it leads through more than {LINKS_MAX} links, or in a circle"
        )))
    }

    /// The first part of a path that is known to be something else than a directory; `None` where nothing is at the path.
    fn first_that_is_no_directory(&self, path: &str) -> Option<(String, (usize, Peeked))> {
        for part in prefixes(path) {
            match self.known.get(&part)? {
                Some((_, Peeked::Directory)) => {}
                Some(found) => return Some((part, found.clone())),
                // What is below a directory need not be said of the directory.
                None if part != path => {}
                None => return None,
            }
        }
        Some((path.to_owned(), (0, Peeked::Directory)))
    }
}

/// `etc`, `etc/passwd` of `etc/passwd`.
fn prefixes(path: &str) -> Vec<String> {
    let slashes = path.match_indices('/').map(|(at, _)| path[..at].to_owned());
    slashes.chain([path.to_owned()]).collect()
}

/// Where the symlink `at` with `target` leads to, and what follows it in the path; `..` at the root stays there.
fn joined(at: &str, target: &str, rest: &str) -> String {
    let parent = at.rsplit_once('/').map_or("", |(parent, _)| parent);
    let from = if target.starts_with('/') { "" } else { parent };
    let mut path: Vec<&str> = Vec::new();
    for name in [from, target, rest].iter().flat_map(|part| part.split('/')) {
        match name {
            "" | "." => {}
            ".." => drop(path.pop()),
            name => path.push(name),
        }
    }
    path.join("/")
}

/// What stands at each of these paths by the uppermost layer that speaks of it, with that layer's index. Layers are read
/// from the uppermost down, only as far as needed.
fn look(
    layers: &[ImageLayer],
    mut wanted: BTreeSet<String>,
    limit: u64,
) -> Result<BTreeMap<String, (usize, Peeked)>, TransportError> {
    let (mut found, mut implied) = (BTreeMap::new(), BTreeMap::new());
    for (index, layer) in layers.iter().enumerate().rev() {
        if wanted.is_empty() {
            break;
        }
        let Said { said, parents } = read_layer(layer, &wanted, limit)?;
        wanted.retain(|path| !said.contains_key(path));
        for path in parents {
            implied.entry(path).or_insert((index, Peeked::Directory));
        }
        // Below what is removed here there may be something from further up.
        found.extend(
            said.into_iter()
                .filter_map(|(path, peeked)| Some((path, (index, peeked?)))),
        );
    }
    implied.extend(found);
    Ok(implied)
}

/// What one layer says of some paths.
struct Said {
    /// What is there, or that nothing is; of a path that it does not speak of there is not an entry.
    said: BTreeMap<String, Option<Peeked>>,
    /// Those that have something below them.
    parents: BTreeSet<String>,
}

/// Reads what one layer says of these paths.
fn read_layer(layer: &ImageLayer, wanted: &BTreeSet<String>, limit: u64) -> Result<Said, TransportError> {
    if layer.is_absent() {
        return Err(TransportError::elsewhere("the image's place", &layer.descriptor));
    }
    let place = format!("layer {}", layer.digest());
    let unpacker = Decompressor::new(layer.open()).map_err(|source| TransportError::Read {
        place: place.clone(),
        what: "the layer".to_owned(),
        source,
    })?;
    let tar = |source: TarError| TransportError::Tar {
        place: place.clone(),
        source,
    };
    let mut reader = TarReader::new(Streamed(unpacker), TarPolicy::LAYER);
    let (mut said, mut gone, mut parents) = (BTreeMap::new(), Vec::new(), BTreeSet::new());
    while let Some(entry) = reader.next_entry().map_err(tar)? {
        let path = String::from_utf8_lossy(&clean(&entry.path)).into_owned();
        let is_whiteout = path.rsplit('/').next().is_some_and(|name| name.starts_with(".wh."));
        if !is_whiteout {
            let above = prefixes(&path)
                .into_iter()
                .filter(|above| *above != path && wanted.contains(above));
            parents.extend(above);
        }
        if !wanted.contains(&path) {
            let hidden = wanted.iter().filter(|wanted| hides(&path, entry.kind, wanted));
            gone.extend(hidden.cloned());
            continue;
        }
        let target = || String::from_utf8_lossy(&entry.link).into_owned();
        let peeked = match entry.kind {
            Kind::File => {
                let mut bytes = Vec::new();
                let read: io::Result<usize> = (&mut reader).take(limit + 1).read_to_end(&mut bytes);
                read.map_err(|source| TransportError::Read {
                    place: place.clone(),
                    what: format!("`/{path}`"),
                    source,
                })?;
                Peeked::File(Some(bytes).filter(|bytes| bytes.len() as u64 <= limit))
            }
            Kind::Directory => Peeked::Directory,
            Kind::Symlink => Peeked::Symlink(target()),
            Kind::HardLink => Peeked::HardLink(String::from_utf8_lossy(&clean(&entry.link)).into_owned()),
            _ => Peeked::Special,
        };
        gone.extend(wanted.iter().filter(|wanted| hides(&path, entry.kind, wanted)).cloned());
        said.insert(path, Some(peeked));
    }
    // A layer may remove what is below it and bring its own, in whatever order.
    for path in gone {
        said.entry(path).or_insert(None);
    }
    Ok(Said { said, parents })
}

/// Whether an entry of a layer takes away what the layers below have at `wanted` (image-spec, layer.md, "Whiteouts").
fn hides(path: &str, kind: Kind, wanted: &str) -> bool {
    let (parent, name) = path
        .rsplit_once('/')
        .map_or(("", path), |(parent, name)| (parent, name));
    let below = |dir: &str| dir.is_empty() || wanted == dir || wanted.starts_with(&format!("{dir}/"));
    match name.strip_prefix(".wh.") {
        Some(".wh..opq") => below(parent) && wanted != parent,
        Some(removed) if parent.is_empty() => below(removed),
        Some(removed) => below(&format!("{parent}/{removed}")),
        // Where a directory was, something else is.
        None => kind != Kind::Directory && wanted.starts_with(&format!("{path}/")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Node, layer, tar};
    use super::*;
    use crate::oci::Compression;

    #[test]
    fn the_uppermost_layer_decides() {
        let bottom = tar(&[
            Node::dir("etc"),
            Node::file("etc/passwd", "old"),
            Node::file("etc/group", "group"),
            Node::file("etc/kept", "kept"),
        ]);
        let read = |upper: &[Node]| {
            let layers = [
                layer(&bottom, Compression::Gzip(6)),
                layer(&tar(upper), Compression::Zstd(3)),
            ];
            let found = read_files(&layers, &["etc/passwd", "etc/group", "etc/none"], 100).unwrap();
            let text = |path: &str| found.get(path).map(|bytes| String::from_utf8(bytes.clone()).unwrap());
            (text("etc/passwd"), text("etc/group"))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read(&[Node::dir("var")]), (some("old"), some("group")));
        assert_eq!(read(&[Node::file("./etc/passwd", "new")]), (some("new"), some("group")));
        assert_eq!(read(&[Node::file("etc/.wh.passwd", "")]), (None, some("group")));
        assert_eq!(read(&[Node::file(".wh.etc", "")]), (None, None));
        let opaque = [Node::file("etc/group", "mine"), Node::file("etc/.wh..wh..opq", "")];
        assert_eq!(read(&opaque), (None, some("mine")));
        assert_eq!(read(&[Node::symlink("etc", "usr/etc")]), (None, None));
    }

    /// As a runtime reads them that opens the path in the container's root, whatever layers the links lead through.
    #[test]
    fn links_are_followed_through_all_layers() {
        let at = |path: &str, text: &str| Node::file(path, text);
        let read = |layers: &[&[Node]]| {
            let layers: Vec<_> = layers
                .iter()
                .map(|nodes| layer(&tar(nodes), Compression::None))
                .collect();
            let found = read_files(&layers, &["etc/passwd"], 100);
            found.map(|mut found| {
                found
                    .remove("etc/passwd")
                    .map(|bytes| String::from_utf8(bytes).unwrap())
            })
        };
        let links = |target: &str| Node::symlink("etc/passwd", target);
        let cases: &[(&[&[Node]], &str)] = &[
            (&[&[at("usr/passwd", "1"), links("../usr/passwd")]], "1"),
            (&[&[at("usr/passwd", "2")], &[links("/usr/passwd")]], "2"),
            (&[&[links("/usr/passwd")], &[at("usr/passwd", "3")]], "3"),
            (&[&[links("../../../../x")], &[at("x", "4")]], "4"),
            (&[&[links("/a/x"), Node::symlink("a", "b")], &[at("b/x", "5")]], "5"),
            (&[&[Node::symlink("etc", "usr/etc")], &[at("usr/etc/passwd", "6")]], "6"),
            (&[&[at("p", "7"), Node::hard_link("etc/passwd", "p")]], "7"),
            (
                &[
                    &[at("p", "8"), Node::hard_link("etc/passwd", "p")],
                    &[at("p", "new"), at(".wh.p", "")],
                ],
                "8",
            ),
            (
                &[&[
                    at("p", "9"),
                    Node::hard_link("q", "p"),
                    Node::hard_link("etc/passwd", "q"),
                ]],
                "9",
            ),
            (&[&[at("p", "10")], &[Node::hard_link("etc/passwd", "p")]], "10"),
        ];
        for (layers, expected) in cases {
            assert_eq!(read(layers).unwrap().as_deref(), Some(*expected));
        }
        assert_eq!(
            read(&[&[Node::symlink("etc", "usr/etc")]]).unwrap(),
            None,
            "no file is promised"
        );
        let refused: &[(&[Node], &str)] = &[
            (&[links("/nowhere")], "a link to `/nowhere`, where nothing is"),
            (&[links("passwd")], "in a circle"),
            (&[links("a"), Node::symlink("etc/a", "passwd")], "in a circle"),
            (
                &[Node::hard_link("etc/passwd", "p"), Node::hard_link("p", "etc/passwd")],
                "in a circle",
            ),
            (
                &[Node::hard_link("etc/passwd", "gone")],
                "a hard link to `/gone`, where no file is",
            ),
            (&[Node::dir("etc/passwd")], "neither a file nor a link to one"),
            (&[links("/d"), Node::dir("d")], "neither a file nor a link to one"),
        ];
        for (layer, expected) in refused {
            let error = read(&[layer]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn entries_are_what_stands_there() {
        let lower = tar(&[
            Node::symlink("bin", "usr/bin"),
            Node::dir("lib"),
            Node::file("sbin/x", ""),
        ]);
        let upper = tar(&[Node::file(".wh.bin", "")]);
        let lower = layer(&lower, Compression::None);
        let both = [lower.clone(), layer(&upper, Compression::None)];
        let paths = ["bin", "lib", "lib64", "sbin"];
        let found = entries(&[lower], &paths).unwrap();
        assert_eq!(found["bin"], Peeked::Symlink("usr/bin".to_owned()));
        assert_eq!(
            (&found["lib"], &found["sbin"]),
            (&Peeked::Directory, &Peeked::Directory)
        );
        assert!(!found.contains_key("lib64"));
        assert!(!entries(&both, &paths).unwrap().contains_key("bin"));
    }

    #[test]
    fn a_large_file_is_refused() {
        let layers = [layer(&tar(&[Node::file("etc/passwd", [b'x'; 200])]), Compression::None)];
        let error = read_files(&layers, &["etc/passwd"], 100).unwrap_err();
        assert!(matches!(error, TransportError::TooLarge { limit: 100, .. }), "{error}");
    }
}

#[cfg(test)]
mod fuzz {
    use crate::oci::Compression;
    use crate::transport::testing::layer;

    #[test]
    fn fuzz_peek() {
        crate::testing::fuzz("peek", |bytes| {
            let lower = layer(bytes, Compression::None);
            let upper = layer(&bytes[bytes.len() / 2..], Compression::None);
            let paths = ["etc/passwd", "bin/sh", "a/b/c"];
            for layers in [&[lower.clone()][..], &[lower.clone(), lower.clone()], &[lower, upper]] {
                let _ = super::read_files(layers, &paths, 1000);
                let _ = super::entries(layers, &paths);
            }
        });
    }
}
