//! Mirrors of a registry, and a layer cache that is damaged while a push is under way.

use std::fs;
use std::path::{Path, PathBuf};

use crate::copy::build;
use crate::registry::registry_in;
use crate::served::{Demands, Registry};
use crate::support::Place;

/// A registry that has `team/app:1`, and a mirror of it that has the same as `hub/team/app:1` where it is to.
struct Mirrored {
    place: Place,
    registry: Option<Registry>,
    mirror: Option<Registry>,
    host: String,
    digest: String,
}

impl Mirrored {
    fn new(mirror_has_it: bool) -> Option<Self> {
        let place = Place::new();
        let registry = registry_in(&place, "one", Demands::default())?;
        let mirror = registry_in(&place, "mirror", Demands::default())?;
        let host = registry.host.clone();
        let digest = build(&place, "text", &["-o", &format!("docker://{host}/team/app:1")]);
        if mirror_has_it {
            let copy = format!("docker://{}/hub/team/app:1", mirror.host);
            place
                .run(&["copy", &format!("docker://{host}/team/app:1"), &copy])
                .success();
        }
        let config = format!("[registries.\"{host}\"]\nmirrors = [\"{}/hub\"]\n", mirror.host);
        let dir = place.path().join("config/layerize");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("config.toml"), config).unwrap();
        Some(Self {
            place,
            registry: Some(registry),
            mirror: Some(mirror),
            host,
            digest,
        })
    }

    fn name(&self, tag: &str) -> String {
        format!("docker://{}/team/app:{tag}", self.host)
    }

    /// Copies the image to a layout and checks that it is what was pushed.
    #[track_caller]
    fn is_read(&self, to: &str) {
        let copied = self.place.run(&["copy", &self.name("1"), to]).success();
        assert_eq!(copied.line().split(' ').next().unwrap(), self.digest);
        self.place.run(&["verify", to]).success();
    }
}

/// containers-registries.conf(5), "Remapping and mirroring registries": a mirror is asked first, its failures are not the
/// last word, and nothing is ever written to it.
#[test]
fn a_mirror_is_read_first_and_the_registry_where_it_fails() {
    let Some(mut there) = Mirrored::new(true) else { return };
    // The mirror has all: the registry is not needed.
    drop(there.registry.take());
    there.is_read("oci:from-mirror:v1");

    let Some(mut there) = Mirrored::new(true) else { return };
    // The mirror is down.
    drop(there.mirror.take());
    let started = std::time::Instant::now();
    there.is_read("oci:without-mirror:v1");
    // It is given up once, and not for each blob.
    assert!(
        started.elapsed() < std::time::Duration::from_secs(8),
        "{:?}",
        started.elapsed()
    );

    let Some(there) = Mirrored::new(false) else { return };
    // The mirror has nothing.
    there.is_read("oci:from-registry:v1");
    // A push goes to the registry alone, though the mirror is asked when it is read back.
    let two = build(&there.place, "two", &["-o", &there.name("2")]);
    assert_eq!(there.place.inspect(&there.name("2"))["digest"], two.as_str());
    let written = |registry: &Registry, repository: &str| {
        let dir = registry
            .storage
            .join("docker/registry/v2/repositories")
            .join(repository);
        dir.exists()
    };
    assert!(written(there.registry.as_ref().unwrap(), "team/app"));
    for repository in ["team/app", "hub/team/app"] {
        assert!(!written(there.mirror.as_ref().unwrap(), repository), "{repository}");
    }

    // The mirror has the manifest, and has lost the blobs.
    let Some(there) = Mirrored::new(true) else { return };
    let storage = &there.mirror.as_ref().unwrap().storage;
    fs::remove_dir_all(storage.join("docker/registry/v2/repositories/hub/team/app/_layers")).unwrap();
    there.is_read("oci:half-mirrored:v1");
}

/// The files of packed layers in a store's cache, at least `size` bytes long.
fn cached(place: &Place, size: u64) -> Vec<PathBuf> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for name in layerize::fsio::sorted_names(dir).unwrap() {
            let path = dir.join(name);
            match path.is_dir() {
                true => walk(&path, found),
                false => found.push(path),
            }
        }
    }
    let mut found = Vec::new();
    walk(&place.store().join("cache/layers"), &mut found);
    found.retain(|path| fs::metadata(path).unwrap().len() >= size);
    found
}

/// A layer's bytes are verified while they are sent, and what is damaged is packed anew: the registry never has a wrong
/// blob, and the push goes on.
#[test]
fn a_layer_that_is_damaged_in_the_cache_is_packed_anew_while_it_is_pushed() {
    let place = Place::new();
    let Some(registry) = registry_in(&place, "registry", Demands::default()) else {
        return;
    };
    let noise: String = (0..200_000_u32)
        .map(|n| format!("{:x}", n.wrapping_mul(2_654_435_761)))
        .collect();
    let digest = build(&place, &noise, &["-o", "oci:made:v1"]);
    let files = cached(&place, 100_000);
    assert!(!files.is_empty(), "the layer is in the cache");
    let sound: Vec<Vec<u8>> = files.iter().map(|path| fs::read(path).unwrap()).collect();
    for path in &files {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        layerize::fsio::remove_tree(path).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let location = format!("docker://{}/team/app:1", registry.host);
    let pushed = build(&place, &noise, &["-o", &location]);
    assert_eq!(pushed, digest);
    place.run(&["verify", &location]).success();
    let now: Vec<Vec<u8>> = files.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(now == sound, "the cache is sound again");
}

/// A mirror that gives other bytes is named: the registry itself has the right ones, and nobody would look elsewhere.
#[test]
fn a_wrong_blob_of_a_mirror_is_an_error_that_names_the_mirror() {
    let Some(there) = Mirrored::new(true) else { return };
    let mirror = there.mirror.as_ref().unwrap();
    let layer = there.place.inspect(&there.name("1"))["layers"][0]["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    let hex = layer.strip_prefix("sha256:").unwrap();
    let data = mirror
        .storage
        .join("docker/registry/v2/blobs/sha256")
        .join(&hex[..2])
        .join(hex)
        .join("data");
    let mut bytes = fs::read(&data).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&data, bytes).unwrap();
    let wrong = format!("the mirror `{}` gave something else", mirror.host);
    there
        .place
        .run(&["copy", &there.name("1"), "oci:wrong:v1"])
        .exits(2)
        .says(&[&wrong, &layer]);
    assert!(!there.place.project.join("wrong/index.json").exists());
}
