//! Tests of binary caches as a whole: hostile ones, ones that break off, and real Nix as the oracle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::*;
use crate::digest::Digest;
use crate::event::Silent;
use crate::fetch::testing::{Reply, Server};
use crate::http::HttpConfig;
use crate::oci::CompressionFormat;
use crate::store::{Addressing, Attestation, NewNar, Store};
use crate::store_path::{PathInfo, StoreDir, StoreHash, StorePath};

mod hostile;
mod interrupted;
mod peers;

/// Three paths, of which `app` refers to `lib`, to itself and to nothing else, and `lib` to `data`; none of them is
/// addressed by its content.
struct Scene {
    dir: tempfile::TempDir,
    key: SecretKey,
    paths: [StorePath; 3],
}

const NAMES: [&str; 3] = ["data-1", "lib-1", "app-1"];

impl Scene {
    /// A cache in `DIR/cache`, written by the code under test from a store in `DIR/maker`.
    fn new() -> Self {
        Self::compressed(CompressionFormat::Xz)
    }

    fn compressed(compression: CompressionFormat) -> Self {
        let scene = Self {
            dir: tempfile::tempdir().unwrap(),
            key: SecretKey::generate("test-1").unwrap(),
            paths: NAMES.map(|name| {
                let hash = Digest::of(name.as_bytes());
                let hash = StoreHash::from_bytes(*hash.as_bytes().first_chunk().unwrap());
                StorePath::new(hash, name).unwrap()
            }),
        };
        let store = Store::open_nix(&scene.dir.path().join("maker")).unwrap();
        for (index, path) in scene.paths.iter().enumerate() {
            let tree = scene.dir.path().join(path.to_string());
            make_tree(&tree, index);
            let mut archive = Vec::new();
            crate::nar::write(&tree, &mut archive).unwrap();
            let new = NewNar {
                info: PathInfo {
                    path: path.clone(),
                    nar_hash: Digest::of(&archive),
                    nar_size: archive.len() as u64,
                    references: index
                        .checked_sub(1)
                        .map(|below| scene.paths[below].clone())
                        .into_iter()
                        .collect(),
                    self_reference: index == 2,
                },
                addressing: Addressing::Derivation,
                attestation: Attestation::default(),
            };
            let staged = store.stage_nar(&new, &mut archive.as_slice()).unwrap();
            store.register_nar(staged).unwrap();
        }
        let keys = [SecretKey::parse(&scene.key.to_text()).unwrap()];
        let options = ExportOptions {
            compression,
            keys: &keys,
        };
        let members = members(&store, &scene.roots()).unwrap();
        let written = export(&scene.cache(), &StoreDir::nix(), &members, &options, &Silent).unwrap();
        assert_eq!(written.len(), 3);
        scene
    }

    fn roots(&self) -> BTreeSet<StorePath> {
        BTreeSet::from([self.paths[2].clone()])
    }

    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }

    fn url(&self) -> String {
        format!("file://{}", self.cache().display())
    }

    fn trust(&self) -> Trust {
        Trust {
            keys: vec![self.key.public()],
            unsigned: false,
        }
    }

    fn narinfo_file(&self, index: usize) -> PathBuf {
        self.cache().join(format!("{}.narinfo", self.paths[index].hash()))
    }

    fn narinfo(&self, index: usize) -> NarInfo {
        let text = fs::read_to_string(self.narinfo_file(index)).unwrap();
        NarInfo::parse(&text, &StoreDir::nix()).unwrap()
    }

    /// Replaces a narinfo by a changed one that is signed anew.
    fn change(&self, index: usize, change: impl FnOnce(&mut NarInfo)) {
        let mut narinfo = self.narinfo(index);
        change(&mut narinfo);
        let message = fingerprint(&narinfo.info, &StoreDir::nix());
        narinfo.attestation.signatures = BTreeSet::from([self.key.sign(&message)]);
        fs::write(self.narinfo_file(index), narinfo.print(&StoreDir::nix())).unwrap();
    }

    /// Gives a path another archive, announced and signed as it is.
    fn replace_archive(&self, index: usize, archive: &[u8]) {
        fs::write(self.cache().join("nar/replaced"), archive).unwrap();
        self.change(index, |narinfo| {
            narinfo.url = "nar/replaced".to_owned();
            narinfo.compression = CompressionFormat::None;
            narinfo.file_hash = Some(Digest::of(archive));
            narinfo.file_size = Some(archive.len() as u64);
            narinfo.info.nar_hash = Digest::of(archive);
            narinfo.info.nar_size = archive.len() as u64;
        });
    }

    fn store(&self) -> Store {
        Store::open_nix(&self.dir.path().join("taker")).unwrap()
    }

    /// Fetches the closure of `app` into the taker's store.
    fn fetch(&self, cache: &str, trust: &Trust) -> Result<Vec<StorePath>, CacheError> {
        let store = self.store();
        let mut cache = BinaryCache::open(cache, store.store_dir(), &HttpConfig::default())?;
        cache.make_impatient();
        fetch_closure(&store, &self.roots(), &[cache], trust, &Silent)
    }

    /// The names of the paths that the taker's store has, all of them right.
    #[track_caller]
    fn fetched(&self) -> Vec<String> {
        let store = self.store();
        assert_eq!(store.verify(true).unwrap(), []);
        let debris = crate::fsio::sorted_names(&store.dir().join("tmp")).unwrap();
        assert!(
            debris.iter().all(|name| name.to_string_lossy().ends_with(".lock")),
            "{debris:?}"
        );
        store
            .list()
            .unwrap()
            .into_iter()
            .map(|info| info.path.name().to_owned())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }
}

/// A tree that differs with `index`.
fn make_tree(tree: &Path, index: usize) {
    fs::create_dir(tree).unwrap();
    let mut file = fs::File::create(tree.join("pattern")).unwrap();
    let pattern = (0..1000u32).flat_map(|n| *Digest::of(&[n, index as u32].map(u32::to_le_bytes).concat()).as_bytes());
    let pattern: Vec<u8> = pattern.collect();
    file.write_all(&pattern).unwrap();
    fs::create_dir(tree.join("bin")).unwrap();
    fs::write(tree.join("bin/run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(tree.join("bin/run"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("bin/run", tree.join("link")).unwrap();
}

#[test]
fn a_closure_is_fetched_once() {
    for compression in [CompressionFormat::None, CompressionFormat::Xz, CompressionFormat::Zstd] {
        let scene = Scene::compressed(compression);
        let fetched = scene.fetch(&scene.url(), &scene.trust()).unwrap();
        assert_eq!(fetched, scene.paths, "{compression}: referenced paths come first");
        assert_eq!(scene.fetched(), ["app-1", "data-1", "lib-1"]);
        assert_eq!(scene.fetch(&scene.url(), &scene.trust()).unwrap(), []);
        let store = scene.store();
        for (index, path) in scene.paths.iter().enumerate() {
            let narinfo = scene.narinfo(index);
            assert_eq!(store.info(path).unwrap(), Some(narinfo.info));
            assert_eq!(store.attestation(path).unwrap(), narinfo.attestation);
        }
    }
}

#[test]
fn an_export_is_the_same_each_time_and_adds_what_is_missing() {
    let scene = Scene::new();
    let store = Store::open_nix(&scene.dir.path().join("maker")).unwrap();
    let members = members(&store, &scene.roots()).unwrap();
    let read = |dir: &Path| -> BTreeMap<PathBuf, Vec<u8>> {
        let names = crate::fsio::sorted_names(dir).unwrap().into_iter().map(PathBuf::from);
        let nars = crate::fsio::sorted_names(&dir.join("nar")).unwrap().into_iter();
        let all = names
            .filter(|name| name != Path::new("nar"))
            .chain(nars.map(|name| Path::new("nar").join(name)));
        all.map(|name| (name.clone(), fs::read(dir.join(name)).unwrap()))
            .collect()
    };
    let options = ExportOptions {
        keys: &[SecretKey::parse(&scene.key.to_text()).unwrap()],
        ..ExportOptions::default()
    };
    let again = scene.dir.path().join("again");
    export(&again, &StoreDir::nix(), &members, &options, &Silent).unwrap();
    assert_eq!(read(&again), read(&scene.cache()));
    let before = read(&again);
    assert_eq!(
        export(&again, &StoreDir::nix(), &members, &options, &Silent).unwrap(),
        []
    );
    // A second key signs beside the first; an archive that is gone is written anew.
    let second = [SecretKey::generate("second").unwrap()];
    let options = ExportOptions {
        keys: &second,
        ..ExportOptions::default()
    };
    assert_eq!(
        export(&again, &StoreDir::nix(), &members, &options, &Silent)
            .unwrap()
            .len(),
        3
    );
    let trust = Trust {
        keys: vec![second[0].public()],
        unsigned: false,
    };
    assert_eq!(
        scene
            .fetch(&format!("file://{}", again.display()), &trust)
            .unwrap()
            .len(),
        3
    );
    fs::remove_file(again.join(scene.narinfo(0).url)).unwrap();
    assert_eq!(
        export(&again, &StoreDir::nix(), &members, &options, &Silent)
            .unwrap()
            .len(),
        1
    );
    assert_eq!(read(&again).len(), before.len());
}

#[test]
fn a_changed_path_is_not_exported() {
    let scene = Scene::new();
    let store = Store::open_nix(&scene.dir.path().join("maker")).unwrap();
    let file = store.physical(&scene.paths[1]).join("bin/run");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&file, "changed").unwrap();
    let members = members(&store, &scene.roots()).unwrap();
    let dir = scene.dir.path().join("new");
    let error = export(&dir, &StoreDir::nix(), &members, &ExportOptions::default(), &Silent).unwrap_err();
    assert!(
        error.to_string().contains("lib-1` changed since it was registered"),
        "{error}"
    );
    let names = crate::fsio::sorted_names(&dir).unwrap();
    assert!(
        names
            .iter()
            .all(|name| !name.to_string_lossy().contains(&scene.paths[2].hash().to_string())),
        "{names:?}"
    );
}
