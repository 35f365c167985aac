//! What the tests of this module share.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::{LayerContent, LayerError, LayerInput, PackOptions, StoreEntry, pack};
use crate::digest::Digest;
use crate::event::Silent;
pub(super) use crate::testing::oracle;

/// Makes a small store path of every kind of entry below `dir` and describes it.
pub(crate) fn sample(dir: &Path, name: &str, size: usize) -> StoreEntry {
    let base = format!("{:0>32}-{name}", name.len());
    let physical = dir.join(&base);
    crate::fsio::remove_tree(&physical).unwrap();
    fs::create_dir_all(physical.join("share/empty")).unwrap();
    fs::create_dir_all(physical.join("bin")).unwrap();
    fs::write(physical.join("bin/tool"), noise(name, size)).unwrap();
    fs::set_permissions(physical.join("bin/tool"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(physical.join("share/größe.txt"), name.repeat(100)).unwrap();
    fs::write(physical.join("share/nothing"), "").unwrap();
    fs::write(physical.join("share-file"), "sorts after share/").unwrap();
    symlink("../share/nothing", physical.join("bin/link")).unwrap();
    describe(&format!("/layerize/store/{base}"), &physical)
}

/// A store path as it is on disk.
pub(super) fn describe(logical: &str, physical: &Path) -> StoreEntry {
    let mut entry = StoreEntry {
        logical: logical.parse().unwrap(),
        physical: physical.to_owned(),
        nar_hash: Digest::of(b""),
        nar_size: 0,
        attributes: Vec::new(),
    };
    let options = PackOptions {
        compression: super::Compression::None,
        threads: 1,
        ..PackOptions::default()
    };
    // Packing verifies the archive's hash, and says what it is.
    match pack(&[store_layer(vec![entry.clone()])], &options, &Silent) {
        Err(LayerError::Changed {
            actual, actual_size, ..
        }) => {
            entry.nar_hash = actual;
            entry.nar_size = actual_size;
            entry
        }
        other => panic!("{other:?}"),
    }
}

pub(super) fn store_layer(paths: Vec<StoreEntry>) -> LayerInput {
    LayerInput {
        content: LayerContent::StorePaths(paths),
        comment: "test".to_owned(),
    }
}

/// Bytes that compress by about half, the same for the same seed.
pub(super) fn noise(seed: &str, size: usize) -> Vec<u8> {
    let mut state = seed.bytes().fold(2_166_136_261u32, |state, byte| {
        (state ^ u32::from(byte)).wrapping_mul(16_777_619)
    });
    let mut bytes = Vec::with_capacity(size);
    while bytes.len() < size {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bytes.push(b"etaoin shrdlu\n01"[(state >> 28) as usize]);
    }
    bytes
}
