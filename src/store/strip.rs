//! *Stripping* takes the hashes of store paths out of a tree that is to forget them.
//!
//! Invariant: nothing moves. A hash gives way to as many letters `e`, which no hash holds (the alphabet of base 32 lacks it),
//! so that sizes, offsets and tables of contents stay as they are, and the same tree gives the same bytes everywhere.
//! What is compressed, and what an entry is called, stays too: where that names a path, the path is still referred to.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use super::canonical::seal;
use super::error::StoreError;
use super::modulo::replace_symlink;
use super::scan::{Finder, Hit, Needles, Spelling};
use crate::fsio::IoContext;
use crate::nar::{self, EntryKind};
use crate::store_path::{HASH_CHARS, StorePath};

/// What stands in place of each character.
const FILLER: u8 = b'e';

/// What an output may refer to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReferencePolicy {
    /// Paths that it may not refer to.
    pub forbidden: BTreeSet<StorePath>,
    /// Paths whose hashes are taken out of it, as far as they stand there uncompressed; it may not refer to them then.
    pub stripped: BTreeSet<StorePath>,
}

/// It may refer to whatever it is given.
pub static ANY_REFERENCE: ReferencePolicy = ReferencePolicy {
    forbidden: BTreeSet::new(),
    stripped: BTreeSet::new(),
};

/// Takes the hashes of `paths` out of the files and links of the canonical tree at `root`.
pub(super) fn strip(root: &Path, paths: &BTreeSet<StorePath>) -> Result<(), StoreError> {
    if paths.is_empty() {
        return Ok(());
    }
    let needles = Needles::new(paths);
    // Links are replaced, which changes the directory that is being walked.
    let mut links = Vec::new();
    nar::visit(root, &mut |entry, contents| {
        match &entry.kind {
            EntryKind::Directory => {}
            EntryKind::Symlink { target } => links.extend(blanked(&needles, target).map(|new| (entry.clone(), new))),
            EntryKind::File { .. } => {
                let path = entry.below(root);
                let hits = hits(&needles, contents, &path)?;
                if !hits.is_empty() {
                    blank(&path, &hits)?;
                    seal(&path, &entry.kind).map_err(in_walk)?;
                }
            }
        }
        Ok(())
    })?;
    for (entry, target) in links {
        replace_symlink(&entry.below(root), target)?;
    }
    Ok(())
}

/// The walk has its own error; sealing fails by reading or writing a file alone.
fn in_walk(error: StoreError) -> nar::NarError {
    match error {
        StoreError::Io(source) | StoreError::NoSpace { source } => source.into(),
        other => nar::NarError::Sink(std::io::Error::other(other)),
    }
}

fn hits(needles: &Needles, contents: &mut dyn std::io::Read, path: &Path) -> Result<Vec<Hit>, crate::fsio::PathError> {
    let (mut finder, mut hits) = (Finder::default(), Vec::new());
    let mut block = vec![0; 128 << 10];
    loop {
        match contents.read(&mut block).context("read", path)? {
            0 => return Ok(hits),
            count => finder.feed(needles, &block[..count], &mut |hit| hits.push(hit)),
        }
    }
}

/// Where the characters of a hash stand, the first at `hit.offset`.
fn characters(hit: &Hit) -> impl Iterator<Item = u64> {
    let (offset, step) = match hit.spelling {
        Spelling::Bytes => (hit.offset, 1),
        Spelling::Utf16 => (hit.offset, 2),
    };
    (0..HASH_CHARS as u64).map(move |index| offset + index * step)
}

fn blank(path: &Path, hits: &[Hit]) -> Result<(), crate::fsio::PathError> {
    fs::set_permissions(path, Permissions::from_mode(0o600)).context("make writable", path)?;
    let file = File::options().write(true).open(path).context("open", path)?;
    for at in hits.iter().flat_map(characters) {
        file.write_all_at(&[FILLER], at).context("write", path)?;
    }
    Ok(())
}

/// The text without the hashes; `None` where it holds none.
fn blanked(needles: &Needles, text: &[u8]) -> Option<Vec<u8>> {
    let mut new = text.to_owned();
    Finder::default().feed(needles, text, &mut |hit| {
        for at in characters(&hit) {
            if let Some(byte) = usize::try_from(at).ok().and_then(|at| new.get_mut(at)) {
                *byte = FILLER;
            }
        }
    });
    (new != text).then_some(new)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::fsio::sorted_names;

    const A: &str = "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-a";
    const B: &str = "1mdqa9w1p6cmli6976v4wi0sw9r4p5pr-b";

    #[test]
    fn hashes_give_way_to_letters_wherever_they_can() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("tree");
        fs::create_dir_all(root.join("sub")).unwrap();
        let text = format!("x /layerize/store/{A}/bin {B} /layerize/store/{A}");
        // Across the blocks in which files are read.
        let long = [vec![b'/'; (128 << 10) - 16], A.as_bytes().to_vec()].concat();
        let wide: Vec<u8> = A.bytes().flat_map(|byte| [0, byte]).collect();
        fs::write(root.join("text"), &text).unwrap();
        fs::write(root.join("sub/long"), &long).unwrap();
        fs::write(root.join("wide"), &wide).unwrap();
        symlink(format!("../{A}/file"), root.join("sub/link")).unwrap();
        symlink(format!("../{B}/file"), root.join("sub/other")).unwrap();
        fs::write(root.join(A), "").unwrap();
        super::super::canonical::canonicalise(&root, 0).unwrap();
        strip(&root, &BTreeSet::from([A.parse().unwrap()])).unwrap();

        let e = "e".repeat(HASH_CHARS);
        let expected = format!("x /layerize/store/{e}-a/bin {B} /layerize/store/{e}-a");
        assert_eq!(fs::read_to_string(root.join("text")).unwrap(), expected);
        assert!(
            fs::read(root.join("sub/long"))
                .unwrap()
                .ends_with(format!("/{e}-a").as_bytes())
        );
        let expected: Vec<u8> = format!("{e}-a").bytes().flat_map(|byte| [0, byte]).collect();
        assert_eq!(fs::read(root.join("wide")).unwrap(), expected);
        let link = |name: &str| {
            fs::read_link(root.join("sub").join(name))
                .unwrap()
                .display()
                .to_string()
        };
        assert_eq!(link("link"), format!("../{e}-a/file"));
        assert_eq!(link("other"), format!("../{B}/file"));
        assert!(sorted_names(&root).unwrap().contains(&A.into()), "names stay");
        // It is as canonical as it was.
        for entry in nar::walk(&root) {
            let entry = entry.unwrap();
            let found = super::super::canonical::deviation(&entry.below(&root), &entry.kind).unwrap();
            assert_eq!(found, None, "{:?}", entry.path);
        }
    }
}
