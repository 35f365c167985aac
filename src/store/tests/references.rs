//! Which references an output gets, where they were found, and when its path stays the one it was built at.

use std::io::Write;

use super::*;
use crate::walls::Walls;

const SCRATCH: &str = "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-self";

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn each_reference_is_recorded_where_it_was_found_first() {
    let scene = Scene::new();
    let names = ["in-file", "in-gzip", "in-link", "in-name", "in-utf16", "nowhere"];
    let paths = names.map(|name| {
        scene
            .output(name, None, &[], |tree| fs::write(tree, name).unwrap())
            .path
    });
    let [file, packed, link, name, wide, _] = &paths;
    let info = scene.output("user", None, &paths.iter().collect::<Vec<_>>(), |tree| {
        fs::create_dir_all(tree.join("bin")).unwrap();
        fs::write(tree.join("bin/b"), format!("see {file}, {file}")).unwrap();
        fs::write(tree.join("man.gz"), gzip(&format!("{}{packed}", "x y ".repeat(100)))).unwrap();
        symlink(format!("/layerize/store/{link}/x"), tree.join("link")).unwrap();
        fs::write(tree.join(format!("of-{name}")), "").unwrap();
        let units: Vec<u8> = wide.to_string().encode_utf16().flat_map(u16::to_le_bytes).collect();
        fs::write(tree.join("wide"), units).unwrap();
        fs::write(tree.join("zzz"), format!("{file} {packed}")).unwrap();
    });
    assert_eq!(info.references, paths[..5].iter().cloned().collect());
    assert!(!info.self_reference);
    let details = scene.store.info_full(&info.path).unwrap().unwrap();
    let text = |path| details.evidence[path].to_string();
    assert_eq!(text(file), "bin/b, byte 4");
    assert_eq!(text(packed), "man.gz, in its gzip, byte 400");
    assert_eq!(text(link), "link: target of the symlink");
    assert_eq!(text(name), format!("of-{name}: its name"));
    assert_eq!(text(wide), "wide, byte 0 (UTF-16)");
    assert_eq!(
        scene.store.evidence(&info.path, file).unwrap(),
        Some(details.evidence[file].clone())
    );
}

#[test]
fn declared_references_are_part_of_the_path() {
    let scene = Scene::new();
    let found = scene
        .output("found", None, &[], |tree| fs::write(tree, "found").unwrap())
        .path;
    let declared = scene
        .output("declared", None, &[], |tree| fs::write(tree, "declared").unwrap())
        .path;
    let add = |declare: &Declare<'_>| {
        let staging = scene.store.stage().unwrap();
        let tree = staging.path().join("out");
        fs::write(&tree, found.to_string()).unwrap();
        let output = NewOutput {
            name: "user",
            tree: &tree,
            candidates: &BTreeSet::from([found.clone()]),
            declare,
            derivation: Some(Digest::of(b"d")),
            policy: &crate::store::ANY_REFERENCE,
            walls: Walls::None,
            execution: crate::execution::Execution::Native,
        };
        scene.store.add_output(&output)
    };
    let plain = add(&|_| Vec::new()).unwrap();
    let more = add(&|seen| {
        assert_eq!(*seen, BTreeSet::from([found.clone()]));
        vec![(declared.clone(), found.clone()), (found.clone(), declared.clone())]
    })
    .unwrap();
    assert_ne!(plain.path, more.path);
    assert_eq!(more.references, BTreeSet::from([found.clone(), declared.clone()]));
    let details = scene.store.info_full(&more.path).unwrap().unwrap();
    let expected = Provenance {
        derivation: Some(Digest::of(b"d")),
        walls: Walls::None,
        execution: crate::execution::Execution::Native,
        declared: vec![(declared.clone(), found.clone())],
    };
    assert_eq!(details.provenance, expected, "what was found stays found");
    let stranger: StorePath = SCRATCH.parse().unwrap();
    let error = add(&|_| vec![(stranger.clone(), found.clone())]).unwrap_err();
    assert!(matches!(&error, StoreError::NotValid { path, needed_by: Some(_) } if *path == stranger));
    assert_eq!(
        scene.store.verify(true).unwrap(),
        [],
        "what could not be registered is gone again"
    );
}

/// What a script leaves that writes `$out` (`path`) where it cannot be rewritten: by what it does so.
type Build = fn(&Path, &str);

const UNREWRITABLE: [(&str, Build, &str); 3] = [
    ("name", |tree, path| fs::write(tree.join(path), "").unwrap(), "its name"),
    (
        "gzip",
        |tree, path| fs::write(tree.join("f.gz"), gzip(&format!("{}{path}", "- ".repeat(200)))).unwrap(),
        "f.gz, in its gzip, byte 400",
    ),
    (
        "utf-16",
        |tree, path| fs::write(tree.join("f"), wide(path)).unwrap(),
        "f, byte 1 (UTF-16)",
    ),
];

fn wide(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

/// Such a tree, which also holds `$out` where it could be rewritten.
fn names_itself(tree: &Path, path: &StorePath, build: Build) {
    fs::create_dir(tree).unwrap();
    fs::write(tree.join("plain"), path.to_string()).unwrap();
    build(tree, &path.to_string());
}

#[test]
fn an_output_that_cannot_be_rewritten_is_built_at_its_own_path() {
    let placeholder: StorePath = SCRATCH.parse().unwrap();
    for (what, build, place) in UNREWRITABLE {
        let scene = Scene::new();
        let first = || {
            scene.added(
                "self",
                &[],
                |tree| names_itself(tree, &placeholder, build),
                |output| scene.store.add_rewritten(output, &placeholder).unwrap(),
            )
        };
        let Rewritten::NamesItself { path, place: found } = first() else {
            panic!("{what}: it was registered")
        };
        assert!(found.unwrap().to_string().ends_with(place), "{what}");
        assert_ne!(path, placeholder);
        assert_eq!(scene.store.list().unwrap(), [], "{what}: nothing is registered by half");
        let info = scene.added(
            "self",
            &[],
            |tree| names_itself(tree, &path, build),
            |output| scene.store.add_in_place(output, &path).unwrap(),
        );
        assert_eq!((&info.path, info.self_reference), (&path, true), "{what}");
        let plain = scene.store.physical(&path).join("plain");
        assert_eq!(fs::read_to_string(plain).unwrap(), path.to_string());
        let details = scene.store.info_full(&path).unwrap().unwrap();
        assert_eq!(details.addressing, Addressing::Derivation);
        assert_eq!(scene.store.verify(true).unwrap(), []);
        let Rewritten::Registered(again) = first() else {
            panic!("{what}: it would be built in place again")
        };
        assert_eq!(
            again, info,
            "{what}: equal first outputs are one path, however they came to be"
        );
    }
}

#[test]
fn outputs_of_one_name_that_cannot_be_rewritten_have_a_path_each() {
    let placeholder: StorePath = SCRATCH.parse().unwrap();
    let scene = Scene::new();
    let library = scene.output("library", None, &[], sample).path;
    let path = |content: &str, candidates: &[&StorePath]| {
        let build = |tree: &Path| {
            names_itself(tree, &placeholder, UNREWRITABLE[1].1);
            fs::write(tree.join("content"), content).unwrap();
        };
        let rewritten = scene.added("self", candidates, build, |output| {
            scene.store.add_rewritten(output, &placeholder).unwrap()
        });
        match rewritten {
            Rewritten::NamesItself { path, .. } => path,
            Rewritten::Registered(info) => panic!("{} was registered", info.path),
        }
    };
    let with_reference = library.to_string();
    let paths = [
        path("one", &[]),
        path("two", &[]),
        path(&with_reference, &[]),
        // The same bytes, in which something is found that was not looked for before.
        path(&with_reference, &[&library]),
    ];
    assert_eq!(paths.iter().collect::<BTreeSet<_>>().len(), paths.len(), "{paths:?}");
    assert_eq!(path("one", &[]), paths[0], "and always the same one");
}

#[test]
fn an_output_without_references_to_itself_has_one_path_wherever_it_was_built() {
    let scene = Scene::new();
    let build = |tree: &Path| sample(tree);
    let scratch: StorePath = SCRATCH.parse().unwrap();
    let one = scene.output("same", Some(&scratch), &[], build);
    let two = scene.output("same", None, &[], build);
    let source = scene.dir.path().join("source");
    sample(&source);
    assert_eq!((&one, &one), (&two, &scene.store.add_tree("same", &source).unwrap()));
}

#[test]
fn a_self_reference_across_block_boundaries_is_rewritten() {
    let scene = Scene::new();
    let scratch: StorePath = SCRATCH.parse().unwrap();
    for at in [128 * 1024 - 5, (1 << 20) - 31, (1 << 20) - 1, 1 << 20] {
        let info = scene.output("self", Some(&scratch), &[], |tree| {
            let mut bytes = vec![b'.'; at];
            bytes.extend_from_slice(SCRATCH.as_bytes());
            bytes.resize(2 << 20, b'.');
            bytes.extend_from_slice(SCRATCH.as_bytes());
            fs::write(tree, bytes).unwrap();
        });
        let bytes = fs::read(scene.store.physical(&info.path)).unwrap();
        let hash = info.path.hash().to_string();
        assert_eq!(&bytes[at..at + 32], hash.as_bytes(), "{at}");
        assert_eq!(&bytes[2 << 20..][..32], hash.as_bytes(), "{at}");
    }
    assert_eq!(scene.store.verify(true).unwrap(), []);
}

#[test]
fn files_that_are_packed_too_deep_are_listed() {
    let scene = Scene::new();
    let library = scene.output("library", None, &[], sample).path;
    let info = scene.output("user", None, &[&library], |tree| {
        let mut bytes = library.to_string().into_bytes();
        for _ in 0..5 {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(&bytes).unwrap();
            bytes = encoder.finish().unwrap();
        }
        fs::create_dir(tree).unwrap();
        fs::write(tree.join("deep.gz"), bytes).unwrap();
        fs::write(tree.join("fine.gz"), gzip("nothing")).unwrap();
    });
    let details = scene.store.info_full(&info.path).unwrap().unwrap();
    assert_eq!(
        (details.info.references.len(), details.unscanned),
        (0, vec!["deep.gz".to_owned()])
    );
}

#[test]
fn evidence_has_a_stable_form_for_programs() {
    let place = Place {
        file: "a.gz".to_owned(),
        inside: vec!["gzip".to_owned()],
        offset: 7,
        kind: PlaceKind::Utf16,
    };
    let found = serde_json::to_string(&Evidence::Found(place)).unwrap();
    assert_eq!(
        found,
        r#"{"because":"found","file":"a.gz","inside":["gzip"],"offset":7,"kind":"utf-16"}"#
    );
    let via = SCRATCH.parse().unwrap();
    let declared = serde_json::to_string(&Evidence::Declared { via }).unwrap();
    assert_eq!(declared, format!(r#"{{"because":"declared","via":"{SCRATCH}"}}"#));
}
