//! Real Nix computes the same store paths.

use std::fs;

use super::*;
use crate::digest::HashingWriter;
use crate::nar::oracle::{Nix, TREES};
use crate::store_path::{StoreDir, placeholder};

/// What `nix-store --add` (and `--add-fixed --recursive sha256`) of Nix 2.8 print for [`TREES`], and
/// `--add-fixed sha256` for those that are one file.
const GOLDEN: &str = include_str!("../../../fixtures/store/nix-paths.txt");

fn add_tree(scene: &Scene, path: &Path) -> String {
    let name = path.file_name().unwrap().to_str().unwrap();
    let info = scene.store.add_tree(name, path).unwrap();
    StoreDir::layerize().join(&info.path)
}

/// `None` where it is not one file.
fn add_file(scene: &Scene, path: &Path) -> Option<String> {
    let is_file = fs::symlink_metadata(path).unwrap().is_file();
    let bytes = is_file.then(|| fs::read(path).unwrap())?;
    let name = path.file_name().unwrap().to_str().unwrap();
    let info = scene.store.add_file_flat(name, path, &Digest::of(&bytes)).unwrap();
    Some(StoreDir::layerize().join(&info.path))
}

#[test]
fn addresses_are_the_golden_ones() {
    let scene = Scene::new();
    let mut lines = String::new();
    for (name, make) in TREES {
        let path = scene.dir.path().join(name);
        make(&path);
        lines.push_str(&format!("tree {}\n", add_tree(&scene, &path)));
        lines.extend(add_file(&scene, &path).map(|file| format!("file {file}\n")));
    }
    assert_eq!(lines, GOLDEN);
}

#[test]
fn addresses_are_those_of_nix() {
    let Some(nix) = Nix::find() else { return };
    let scene = Scene::new();
    for (name, make) in TREES {
        let path = scene.dir.path().join(name);
        make(&path);
        let text = path.to_str().unwrap();
        assert_eq!(
            nix.line("nix-store", &["--add", text]),
            add_tree(&scene, &path),
            "{name}"
        );
        let recursive = nix.line("nix-store", &["--add-fixed", "--recursive", "sha256", text]);
        assert_eq!(recursive, add_tree(&scene, &path), "{name}");
        if let Some(file) = add_file(&scene, &path) {
            assert_eq!(nix.line("nix-store", &["--add-fixed", "sha256", text]), file, "{name}");
        }
    }
}

/// A path in the format of `nix-store --export`.
fn export(tree: &Path, path: &str, references: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let number = |bytes: &mut Vec<u8>, number: u64| bytes.extend_from_slice(&number.to_le_bytes());
    let string = |bytes: &mut Vec<u8>, text: &str| {
        bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    };
    number(&mut bytes, 1);
    crate::nar::write(tree, &mut bytes).unwrap();
    number(&mut bytes, 0x4558_494e);
    string(&mut bytes, path);
    number(&mut bytes, references.len() as u64);
    for reference in references {
        string(&mut bytes, reference);
    }
    // No deriver, no signature, no further path.
    string(&mut bytes, "");
    number(&mut bytes, 0);
    number(&mut bytes, 0);
    bytes
}

#[test]
fn nix_makes_the_same_path_of_an_output_that_refers_to_itself() {
    let Some(nix) = Nix::find() else { return };
    let scene = Scene::new();
    let source = scene.dir.path().join("library");
    sample(&source);
    let library = scene.store.add_tree("library", &source).unwrap().path;
    let logical = |path: &StorePath| StoreDir::layerize().join(path);
    assert_eq!(
        nix.line("nix-store", &["--add", source.to_str().unwrap()]),
        logical(&library)
    );

    let scratch = placeholder(&StoreDir::layerize(), "program-1.0").unwrap();
    let build = |tree: &Path| {
        sample(tree);
        let text = format!(
            "prefix={0}\nagain {0}\nlib={1}/bin",
            logical(&scratch),
            logical(&library)
        );
        fs::write(tree.join("etc"), text).unwrap();
        symlink(format!("{}/etc", logical(&scratch)), tree.join("absolute")).unwrap();
    };
    let tree = scene.dir.path().join("program");
    build(&tree);
    let file = scene.dir.path().join("export");
    fs::write(
        &file,
        export(&tree, &logical(&scratch), &[&logical(&library), &logical(&scratch)]),
    )
    .unwrap();
    nix.run(
        "nix-store",
        &["--import", "--option", "require-sigs", "false"],
        Some(&file),
    );
    let command = [
        "--extra-experimental-features",
        "nix-command",
        "store",
        "make-content-addressed",
        "--json",
    ];
    let answer = nix.line("nix", &[&command[..], &[&logical(&scratch)]].concat());
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let theirs = answer["rewrites"][logical(&scratch)].as_str().unwrap();

    let ours = scene.output("program-1.0", Some(&scratch), &[&library], build);
    assert_eq!(logical(&ours.path), theirs);
    assert_eq!(ours.references, BTreeSet::from([library]));
    let mut sink = HashingWriter::new(std::io::sink());
    crate::nar::write(&nix.physical(theirs), &mut sink).unwrap();
    assert_eq!(
        sink.finish().1.digest(),
        ours.nar_hash,
        "the rewritten tree is the same too"
    );
}
