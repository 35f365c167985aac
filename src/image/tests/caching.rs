//! What an image that was made before costs, and what makes it another image.

use super::*;
use crate::layer::LayerCache;
use crate::spec::PermissionPaths;

type Damage<'a> = &'a dyn Fn(&mut Vec<u8>);

/// What is changed, and how.
type Change<'a> = (&'a str, &'a dyn Fn(&mut Fixture));

struct Caches {
    layers: LayerCache,
    images: ImageCache,
    dir: tempfile::TempDir,
}

impl Caches {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            layers: LayerCache::open(&dir.path().join("layers")).unwrap(),
            images: ImageCache::open(&dir.path().join("images")).unwrap(),
            dir,
        }
    }

    fn assemble(&self, fixture: &Fixture) -> Result<Image, ImageError> {
        assemble(&fixture.recipe(), &self.resources(), &Silent)
    }

    fn resources(&self) -> Resources<'_> {
        Resources {
            threads: 0,
            layers: Some(&self.layers),
            images: Some(&self.images),
        }
    }

    /// The files that hold records of images.
    fn records(&self) -> Vec<std::path::PathBuf> {
        let dir = self.dir.path().join("images");
        let shards = crate::fsio::sorted_names(&dir)
            .unwrap()
            .into_iter()
            .map(|shard| dir.join(shard));
        let files = |dir: std::path::PathBuf| {
            let names = crate::fsio::sorted_names(&dir).unwrap();
            names.into_iter().map(move |name| dir.join(name))
        };
        shards.flat_map(files).collect()
    }
}

fn sample() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.member("lib", &[("lib/x", "1")], &[]);
    fixture.content("app", &[("bin/app", "#!/usr/bin/sh\n"), ("share/x/y", "1")]);
    fixture.package("sh", &[("usr/bin/sh", "#!"), ("usr/bin/rsh", "-> sh")]);
    write_tree(fixture.dir.path(), &[("conf", "text")]);
    fixture.file("/etc/conf", ImageFileKind::Source("conf".to_owned()));
    fixture.spec.entrypoint = vec!["app".to_owned()];
    fixture
}

#[test]
fn a_second_image_needs_no_store_path() {
    let (fixture, caches) = (sample(), Caches::new());
    let first = caches.assemble(&fixture).unwrap();
    assert_eq!(caches.records().len(), 1);
    fs::remove_dir_all(fixture.dir.path().join("store")).unwrap();
    let second = caches.assemble(&fixture).unwrap();
    assert_eq!(
        (second.manifest.bytes(), second.config.bytes()),
        (first.manifest.bytes(), first.config.bytes())
    );
    assert_sound(&second);
}

#[test]
fn caches_do_not_change_the_digest() {
    let (fixture, caches) = (sample(), Caches::new());
    let plain = fixture.assemble().unwrap();
    for _ in 0..2 {
        assert_eq!(
            caches.assemble(&fixture).unwrap().manifest.bytes(),
            plain.manifest.bytes()
        );
    }
}

#[test]
fn damaged_records_are_made_again() {
    let (fixture, caches) = (sample(), Caches::new());
    let first = caches.assemble(&fixture).unwrap();
    let path = caches.records().remove(0);
    let sound = fs::read(&path).unwrap();
    let damages: [Damage<'_>; 4] = [
        &|bytes| bytes.clear(),
        &|bytes| bytes.truncate(bytes.len() / 2),
        &|bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        },
        &|bytes| {
            // A checksum that holds, of something else.
            *bytes = format!("{}\n[]", Digest::of(b"{}").hex()).into_bytes();
        },
    ];
    for damage in damages {
        let mut bytes = sound.clone();
        damage(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(
            caches.assemble(&fixture).unwrap().manifest.bytes(),
            first.manifest.bytes()
        );
        assert_eq!(fs::read(&path).unwrap(), sound, "the record was written again");
    }
}

#[test]
fn a_record_without_its_layers_is_no_error() {
    let (fixture, caches) = (sample(), Caches::new());
    let first = caches.assemble(&fixture).unwrap();
    let other = Caches::new();
    let resources = Resources {
        layers: Some(&other.layers),
        ..caches.resources()
    };
    let image = assemble(&fixture.recipe(), &resources, &Silent).unwrap();
    assert_eq!(image.manifest.bytes(), first.manifest.bytes());
    fs::remove_dir_all(fixture.dir.path().join("store")).unwrap();
    let empty = Caches::new();
    let resources = Resources {
        layers: Some(&empty.layers),
        ..caches.resources()
    };
    let error = assemble(&fixture.recipe(), &resources, &Silent).unwrap_err();
    assert!(!error.to_string().is_empty());
}

#[test]
fn whatever_changes_the_image_or_its_checks_changes_the_key() {
    let changes: &[Change<'_>] = &[
        ("a content's hash", &|fixture| {
            fixture.members[1].nar_hash = Digest::of(b"x")
        }),
        ("a content's path", &|fixture| {
            fixture.members[1].logical = format!("{}x", fixture.members[1].logical).parse().unwrap()
        }),
        ("a reference", &|fixture| {
            let lib = fixture.logical("lib");
            fixture.members[1].references.insert(lib);
        }),
        ("a member", &|fixture| drop(fixture.members.remove(0))),
        ("a package's version", &|fixture| fixture.root[0].version.push('1')),
        ("a package's hash", &|fixture| {
            fixture.root[0].nar_hash = Digest::of(b"x")
        }),
        ("a file's bytes", &|fixture| {
            fs::write(fixture.dir.path().join("conf"), "TEXT").unwrap()
        }),
        ("a file's executable bit", &|fixture| {
            fs::set_permissions(fixture.dir.path().join("conf"), fs::Permissions::from_mode(0o755)).unwrap();
        }),
        ("a file's mode", &|fixture| {
            fixture.file("/etc/conf", ImageFileKind::Source("conf".to_owned())).mode = Some(0o600);
        }),
        ("a file's owner", &|fixture| {
            fixture
                .file("/etc/conf", ImageFileKind::Source("conf".to_owned()))
                .owner = Some("1".to_owned());
        }),
        ("a user", &|fixture| fixture.user("app", 5, "/")),
        ("the entrypoint", &|fixture| {
            fixture.spec.entrypoint.push("x".to_owned())
        }),
        ("the environment", &|fixture| {
            drop(fixture.spec.env.insert("A".to_owned(), "B".to_owned()))
        }),
        ("the user", &|fixture| fixture.spec.user = Some("0".to_owned())),
        ("a volume", &|fixture| fixture.spec.volumes.push("/v".to_owned())),
        ("a mode by path", &|fixture| {
            fixture.permission(PermissionPaths::Path("/tmp".to_owned()), 0o700)
        }),
        ("a mode by pattern", &|fixture| {
            fixture.permission(PermissionPaths::Pattern("/tmp".to_owned()), 0o700)
        }),
        ("something generated", &|fixture| {
            fixture.generate("/made", GeneratedKind::File([0xff].as_slice().into()))
        }),
        ("other bytes generated", &|fixture| {
            fixture.generate("/made", GeneratedKind::File([0xfe].as_slice().into()))
        }),
        ("the layers", &|fixture| fixture.spec.layers.max = Some(limit(5))),
        ("the platform", &|fixture| fixture.platform = "linux/arm64"),
    ];
    let key = |fixture: &Fixture| fixture.recipe().layout_key(0);
    let plain = key(&sample());
    assert_eq!(key(&sample()), plain, "where things are on disk does not matter");
    let mut keys = vec![plain];
    for (what, change) in changes {
        let mut fixture = sample();
        change(&mut fixture);
        let key = key(&fixture);
        assert!(!keys.contains(&key), "{what}");
        keys.push(key);
    }
}

#[test]
fn what_is_generated_and_other_modes_come_back_from_the_cache() {
    let (mut fixture, caches) = (sample(), Caches::new());
    fixture.generate("/var/db", GeneratedKind::Directory(0o1777));
    fixture.generate("/var/db/bytes", GeneratedKind::File([0, 0xff, b'x'].as_slice().into()));
    fixture.generate("/var/db/link", GeneratedKind::Symlink("bytes".to_owned()));
    fixture.permission(PermissionPaths::Pattern("/layerize/store/**".to_owned()), 0o640);
    let first = caches.assemble(&fixture).unwrap();
    let plain = caches.assemble(&sample()).unwrap();
    assert_ne!(
        first.layers[1].digest(),
        plain.layers[1].digest(),
        "store paths have other modes"
    );
    fs::remove_dir_all(fixture.dir.path().join("store")).unwrap();
    assert_eq!(caches.assemble(&fixture).unwrap().digest(), first.digest());
}

#[test]
fn labels_do_not_lay_an_image_out_again() {
    let (mut fixture, caches) = (sample(), Caches::new());
    let first = caches.assemble(&fixture).unwrap();
    fs::remove_dir_all(fixture.dir.path().join("store")).unwrap();
    fixture.spec.labels.insert("version".to_owned(), "2".to_owned());
    let second = caches.assemble(&fixture).unwrap();
    assert_ne!(second.digest(), first.digest());
    assert!(String::from_utf8_lossy(second.config.bytes()).contains("\"Labels\":{\"version\":\"2\"}"));
}

#[test]
fn a_cache_that_cannot_be_written_is_a_warning() {
    struct Warnings(std::sync::Mutex<Vec<String>>);
    impl crate::event::Reporter for Warnings {
        fn report(&self, event: crate::event::Event) {
            if let crate::event::Event::Warning { text } = event {
                self.0.lock().unwrap().push(text);
            }
        }
    }
    let (fixture, caches) = (sample(), Caches::new());
    fs::remove_dir_all(caches.dir.path().join("images")).unwrap();
    fs::write(caches.dir.path().join("images"), "a file").unwrap();
    let warnings = Warnings(std::sync::Mutex::default());
    let resources = Resources {
        images: Some(&caches.images),
        ..Resources::default()
    };
    let image = assemble(&fixture.recipe(), &resources, &warnings).unwrap();
    assert_eq!(image.manifest.bytes(), fixture.assemble().unwrap().manifest.bytes());
    let warnings = warnings.0.into_inner().unwrap();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(
        warnings[0].starts_with("the image cache is left out: cannot create directory `"),
        "{warnings:?}"
    );
}

#[test]
fn files_that_change_meanwhile_are_an_error() {
    /// Edits a file when a layer is begun: by a rename, so that another thread sees one text or the other.
    struct Edit(std::path::PathBuf);
    impl crate::event::Reporter for Edit {
        fn report(&self, event: crate::event::Event) {
            if matches!(event, crate::event::Event::LayerStarted { .. }) {
                let new = tempfile::NamedTempFile::new_in(self.0.parent().unwrap()).unwrap();
                fs::write(new.path(), "TEXT").unwrap();
                new.persist(&self.0).unwrap();
            }
        }
    }
    let (fixture, caches) = (sample(), Caches::new());
    let edit = Edit(fixture.dir.path().join("conf"));
    let resources = Resources {
        layers: Some(&caches.layers),
        ..caches.resources()
    };
    let error = assemble(&fixture.recipe(), &resources, &edit).unwrap_err();
    assert_eq!(error.to_string(), "`files` changed on disk while the image was made");
    assert!(caches.records().is_empty());
    let edited = caches.assemble(&fixture).unwrap();
    fs::write(&edit.0, "text").unwrap();
    assert_ne!(caches.assemble(&fixture).unwrap().digest(), edited.digest());
    assert_eq!(
        caches.assemble(&fixture).unwrap().manifest.bytes(),
        sample().assemble().unwrap().manifest.bytes()
    );
}
