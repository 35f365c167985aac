//! To *peek* is to read a few small files of an image out of its layers.
//!
//! Invariant: what is given is what a container would see at that path, as far as it is a plain file there: the
//! uppermost layer that speaks of the path decides, and a whiteout says that nothing is there. Symlinks are not followed.

use std::collections::BTreeMap;
use std::io::{self, Read};

use super::TransportError;
use crate::archive::compression::Decompressor;
use crate::archive::tar::{Streamed, TarError, TarPolicy, TarReader};
use crate::archive::{Kind, clean};
use crate::image::Layer;

/// Reads files of at most `limit` bytes by their paths without leading slash; one that is not there is left out.
/// Layers are read from the uppermost down, only as far as needed.
pub fn read_files(layers: &[Layer], paths: &[&str], limit: u64) -> Result<BTreeMap<String, Vec<u8>>, TransportError> {
    let mut found = BTreeMap::new();
    let mut wanted: Vec<&str> = paths.to_vec();
    for layer in layers.iter().rev() {
        if wanted.is_empty() {
            break;
        }
        let said = read_layer(layer, &wanted, limit)?;
        wanted.retain(|path| !said.contains_key(*path));
        found.extend(said.into_iter().filter_map(|(path, bytes)| Some((path, bytes?))));
    }
    Ok(found)
}

/// What one layer says of each path: a file's bytes, or that nothing is there. Of a path that it does not speak of there
/// is no entry.
fn read_layer(layer: &Layer, wanted: &[&str], limit: u64) -> Result<BTreeMap<String, Option<Vec<u8>>>, TransportError> {
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
    let (mut files, mut gone) = (BTreeMap::new(), Vec::new());
    while let Some(entry) = reader.next_entry().map_err(tar)? {
        let path = String::from_utf8_lossy(&clean(&entry.path)).into_owned();
        if wanted.contains(&path.as_str()) {
            let mut bytes = Vec::new();
            if entry.kind == Kind::File {
                let read: io::Result<usize> = (&mut reader).take(limit + 1).read_to_end(&mut bytes);
                read.map_err(|source| TransportError::Read {
                    place: place.clone(),
                    what: format!("`/{path}`"),
                    source,
                })?;
            }
            if bytes.len() as u64 > limit {
                let what = format!("`/{path}`");
                return Err(TransportError::TooLarge { place, what, limit });
            }
            files.insert(path, (entry.kind == Kind::File).then_some(bytes));
        } else {
            gone.extend(
                wanted
                    .iter()
                    .filter(|wanted| hides(&path, entry.kind, wanted))
                    .map(|path| (*path).to_owned()),
            );
        }
    }
    // A layer may remove what is below it and bring its own, in whatever order.
    for path in gone {
        files.entry(path).or_insert(None);
    }
    Ok(files)
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
        assert_eq!(read(&[Node::symlink("etc/passwd", "x")]), (None, some("group")));
    }

    #[test]
    fn a_large_file_is_refused() {
        let layers = [layer(&tar(&[Node::file("etc/passwd", [b'x'; 200])]), Compression::None)];
        let error = read_files(&layers, &["etc/passwd"], 100).unwrap_err();
        assert!(matches!(error, TransportError::TooLarge { limit: 100, .. }), "{error}");
    }
}
