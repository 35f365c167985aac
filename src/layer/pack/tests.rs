//! Tests of packing: digests, caches, threads, memory.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::archive::tar::TRAILER;
use crate::event::Silent;
use crate::layer::testing::{describe, noise, oracle, sample, store_layer};
use crate::layer::{FileContent, TreeEntry};

fn options(compression: Compression, threads: usize) -> PackOptions<'static> {
    PackOptions {
        compression,
        threads,
        ..PackOptions::default()
    }
}

fn bytes_of(layer: &PackedLayer) -> Vec<u8> {
    let mut bytes = Vec::new();
    layer.open().read_to_end(&mut bytes).unwrap();
    bytes
}

/// Three layers of store paths, one with a file of several blocks, and a tree.
fn inputs(dir: &Path) -> Vec<LayerInput> {
    let mut tree = Tree::new();
    let file = |content| TreeEntry::File {
        content,
        mode: 0o4755,
        uid: 1000,
        gid: 100,
        capabilities: None,
    };
    tree.insert(b"etc/passwd", file(FileContent::Bytes(b"root:x:0:0::/:\n"[..].into())))
        .unwrap();
    let physical = dir.join("on-disk");
    fs::write(&physical, noise("disk", 70_000)).unwrap();
    let content = FileContent::Path {
        physical,
        size: 70_000,
        identity: "disk".into(),
    };
    tree.insert(b"srv/data", file(content)).unwrap();
    vec![
        store_layer(vec![sample(dir, "b", 5_000_000), sample(dir, "aa", 10)]),
        store_layer(vec![sample(dir, "ccc", 700_000)]),
        store_layer(vec![sample(dir, "dddd", 1 << 20)]),
        LayerInput {
            content: LayerContent::Tree(tree),
            comment: "the rest".into(),
        },
    ]
}

fn digests(layers: &[PackedLayer]) -> Vec<String> {
    layers
        .iter()
        .map(|layer| format!("{} {}", layer.diff_id, layer.digest))
        .collect()
}

fn compressions() -> [Compression; 5] {
    ["gzip:1", "gzip", "gzip:6", "zstd", "none"].map(|text| text.parse().unwrap())
}

#[test]
fn digests_are_golden_and_the_same_for_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let inputs = inputs(dir.path());
    let mut found = String::new();
    for single in [false, true] {
        for compression in compressions() {
            let with = |threads| PackOptions {
                single_member: single,
                ..options(compression, threads)
            };
            let first = digests(&pack(&inputs, &with(1), &Silent).unwrap());
            for threads in [2, 3, 8] {
                assert_eq!(
                    digests(&pack(&inputs, &with(threads), &Silent).unwrap()),
                    first,
                    "{compression} {threads}"
                );
            }
            for line in first {
                found += &format!("{compression} single={single} {line}\n");
            }
        }
    }
    check_golden("layers.txt", &found);
}

/// Compares with a file of `fixtures/layer`.
fn check_golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/layer").join(name);
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(golden, found, "a change to {name} is a new format");
}

#[test]
fn a_hundred_times_in_a_row() {
    let dir = tempfile::tempdir().unwrap();
    let inputs = inputs(dir.path());
    let inputs = [inputs[1].clone(), inputs[3].clone()];
    for compression in [Compression::default(), Compression::Zstd(3)] {
        let first = digests(&pack(&inputs, &options(compression, 1), &Silent).unwrap());
        for _ in 0..100 {
            assert_eq!(
                digests(&pack(&inputs, &options(compression, 3), &Silent).unwrap()),
                first
            );
        }
    }
}

#[test]
fn every_compression_holds_the_same_tar() {
    let dir = tempfile::tempdir().unwrap();
    let inputs = inputs(dir.path());
    let plain = pack(&inputs, &options(Compression::None, 2), &Silent).unwrap();
    for single_member in [false, true] {
        for compression in compressions() {
            let packed = PackOptions {
                single_member,
                ..options(compression, 2)
            };
            let packed = pack(&inputs, &packed, &Silent).unwrap();
            for (layer, plain) in packed.iter().zip(&plain) {
                let tar = unpacked(layer, single_member);
                assert_eq!(tar, bytes_of(plain));
                assert_eq!((layer.diff_id, layer.tar_size), (plain.diff_id, tar.len() as u64));
                assert_eq!(Digest::of(&bytes_of(layer)), layer.digest);
            }
        }
    }
    for layer in &plain {
        assert_eq!(layer.diff_id.as_bytes(), layer.digest.as_bytes());
    }
}

/// The tar by engines other than ours; a single member must be all there is.
fn unpacked(layer: &PackedLayer, single_member: bool) -> Vec<u8> {
    let (stored, mut tar) = (bytes_of(layer), Vec::new());
    match layer.compression {
        Compression::Gzip(_) if single_member => {
            let mut reader = flate2::bufread::GzDecoder::new(&stored[..]);
            reader.read_to_end(&mut tar).unwrap();
            assert!(reader.into_inner().is_empty());
        }
        Compression::Gzip(_) => {
            flate2::read::MultiGzDecoder::new(&stored[..])
                .read_to_end(&mut tar)
                .unwrap();
        }
        Compression::Zstd(_) => tar = zstd::decode_all(&stored[..]).unwrap(),
        Compression::None => tar = stored,
    }
    tar
}

#[test]
fn entries_stand_in_order_with_modes_of_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let layers = pack(&inputs(dir.path())[..1], &options(Compression::None, 1), &Silent).unwrap();
    let bytes = bytes_of(&layers[0]);
    assert!(bytes.ends_with(&[0; TRAILER]) && bytes[bytes.len() - TRAILER - 512..][..512] != [0; 512]);
    let mut archive = ::tar::Archive::new(&bytes[..]);
    let listed: Vec<String> = archive
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let mode = entry.header().mode().unwrap();
            format!(
                "{mode:o} {}",
                String::from_utf8(entry.path_bytes().into_owned()).unwrap()
            )
        })
        .collect();
    let first = "layerize/store/00000000000000000000000000000001-b";
    let below = |mode: &str, path: &str| format!("{mode} {first}/{path}");
    let expected = [
        "755 layerize/".to_owned(),
        "755 layerize/store/".to_owned(),
        below("555", ""),
        below("555", "bin/"),
        below("777", "bin/link"),
        below("555", "bin/tool"),
        below("555", "share/"),
        below("555", "share/empty/"),
        below("444", "share/größe.txt"),
        below("444", "share/nothing"),
        below("444", "share-file"),
        "555 layerize/store/00000000000000000000000000000002-aa/".to_owned(),
    ];
    assert_eq!(listed[..expected.len()], expected);
    assert_eq!(listed.len(), expected.len() + 8);
    let store_paths = &layers[0].store_paths;
    assert!(
        store_paths.len() == 2
            && store_paths[0].store_path().name() == "b"
            && store_paths[1].store_path().name() == "aa"
    );
}

#[test]
fn the_recorded_hash_is_that_of_real_nix() {
    if !oracle("nix-store") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for entry in [sample(dir.path(), "b", 100_000), {
        let file = dir.path().join("file");
        fs::write(&file, "a store path that is a file").unwrap();
        describe("/layerize/store/00000000000000000000000000000000-file", &file)
    }] {
        let dump = Command::new("nix-store")
            .arg("--dump")
            .arg(&entry.physical)
            .output()
            .unwrap();
        assert!(dump.status.success());
        assert_eq!(
            (entry.nar_hash, entry.nar_size),
            (Digest::of(&dump.stdout), dump.stdout.len() as u64)
        );
    }
}

#[test]
fn what_changed_or_cannot_be_packed_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let entry = sample(dir.path(), "b", 1000);
    let fails = |entries: Vec<StoreEntry>| {
        let error = pack(&[store_layer(entries)], &options(Compression::default(), 2), &Silent).unwrap_err();
        (error.to_string(), error.help())
    };
    assert!(
        fails(vec![entry.clone(), entry.clone()])
            .0
            .ends_with("-b` appears in more than one layer")
    );
    fs::write(entry.physical.join("share/nothing"), "now something").unwrap();
    let (text, help) = fails(vec![entry.clone()]);
    assert!(text.contains(entry.logical.as_str()) && text.contains("changed since it was registered"));
    assert!(help.unwrap().contains("layerize store verify"));
    fs::write(entry.physical.join(".wh.x"), "").unwrap();
    assert!(fails(vec![entry.clone()]).0.contains("/.wh.x` begins with `.wh.`"));
    fs::remove_file(entry.physical.join(".wh.x")).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(entry.physical.join("socket")).unwrap();
    assert!(fails(vec![entry.clone()]).0.contains("/socket` is a socket"));
    drop(socket);
    let gone = StoreEntry {
        physical: dir.path().join("gone"),
        ..entry
    };
    assert!(fails(vec![gone]).0.starts_with("cannot read the attributes of `"));
}

#[test]
fn an_error_in_one_layer_ends_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut inputs = inputs(dir.path());
    let LayerContent::StorePaths(paths) = &mut inputs[1].content else {
        unreachable!()
    };
    paths[0].nar_hash = Digest::of(b"other");
    for threads in [1, 4] {
        let error = pack(&inputs, &options(Compression::default(), threads), &Silent).unwrap_err();
        assert!(matches!(error, LayerError::Changed { .. }), "{error}");
    }
}

#[test]
fn a_spooled_layer_lives_as_long_as_its_blob() {
    let dir = tempfile::tempdir().unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let with = PackOptions {
        scratch: Some(scratch.path().to_owned()),
        ..options(Compression::default(), 2)
    };
    let layers = pack(&inputs(dir.path()), &with, &Silent).unwrap();
    let last = layers[3].clone();
    drop(layers);
    assert_eq!(crate::fsio::sorted_names(scratch.path()).unwrap().len(), 1);
    assert_eq!(bytes_of(&last).len() as u64, last.size);
    drop(last);
    assert_eq!(crate::fsio::sorted_names(scratch.path()).unwrap().len(), 0);
}

#[test]
fn unreadable_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let entry = sample(dir.path(), "b", 1000);
    let file = entry.physical.join("bin/tool");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(&file).is_ok() {
        return; // root reads everything
    }
    let error = pack(&[store_layer(vec![entry])], &options(Compression::None, 1), &Silent).unwrap_err();
    assert!(error.to_string().contains("bin/tool"));
}

#[test]
fn a_plain_layer_that_changed_is_not_read_as_sound() {
    let dir = tempfile::tempdir().unwrap();
    let entry = sample(dir.path(), "b", 2_000_000);
    let layer = pack(
        &[store_layer(vec![entry.clone()])],
        &options(Compression::None, 1),
        &Silent,
    )
    .unwrap()
    .remove(0);
    assert_eq!(bytes_of(&layer).len() as u64, layer.size);
    // A reader that goes away ends the thread that writes.
    layer.open().read_exact(&mut [0; 10]).unwrap();
    let tool = entry.physical.join("bin/tool");
    let mut content = fs::read(&tool).unwrap();
    content[1_000_000] ^= 1;
    fs::remove_file(&tool).unwrap();
    fs::write(&tool, content).unwrap();
    let error = layer.open().read_to_end(&mut Vec::new()).unwrap_err();
    assert!(matches!(
        layer.blob.read_error(layer.digest, error),
        LayerError::Damaged { .. }
    ));
    fs::remove_file(&tool).unwrap();
    let error = layer.open().read_to_end(&mut Vec::new()).unwrap_err();
    assert!(!error.to_string().is_empty());
    let dest = dir.path().join("dest");
    layer
        .blob
        .copy_to(layer.digest, layer.size, &fs::File::create(&dest).unwrap(), 0, &dest)
        .unwrap_err();
}

mod cached;
mod processes;

/// A store path with files that are alike, by hard links or not, at a new place below `dir`; one has a mode of its own.
fn files_alike(dir: &Path, linked: bool) -> StoreEntry {
    let place = tempfile::tempdir_in(dir).unwrap().keep();
    let physical = place.join("0".repeat(32) + "-perl");
    fs::create_dir_all(physical.join("bin")).unwrap();
    fs::write(physical.join("bin/perl"), "perl").unwrap();
    fs::set_permissions(physical.join("bin/perl"), fs::Permissions::from_mode(0o555)).unwrap();
    for (name, text, mode) in [
        ("bin/perl5", "perl", 0o555),
        ("bin/other", "lrep", 0o555),
        ("bin-data", "perl", 0o444),
        ("bin/zero", "", 0o555),
        ("bin/zero2", "", 0o555),
        ("again", "perl", 0o555),
        ("moded", "perl", 0o555),
    ] {
        let place = physical.join(name);
        match linked && (text, mode) == ("perl", 0o555) {
            true => fs::hard_link(physical.join("bin/perl"), &place).unwrap(),
            false => fs::write(&place, text).unwrap(),
        }
        fs::set_permissions(&place, fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut entry = describe(&format!("/layerize/store/{}-perl", "0".repeat(32)), &physical);
    entry.attributes.push(Attribute {
        path: b"moded".to_vec(),
        mode: Some(0o4755),
        ..Attribute::default()
    });
    entry
}

/// The entries of a tar below the store path, and what they are links to.
fn entries_below(tar: &[u8]) -> Vec<String> {
    let short = |path: &Path| {
        let text = path.display().to_string();
        text.split_once("-perl")
            .map_or(String::new(), |(_, path)| path.to_owned())
    };
    let mut archive = ::tar::Archive::new(tar);
    let entries = archive.entries().unwrap().map(|entry| {
        let entry = entry.unwrap();
        let link = entry.link_name().unwrap().map(|link| format!(" = {}", short(&link)));
        format!("{}{}", short(&entry.path().unwrap()), link.unwrap_or_default())
    });
    entries.filter(|line| line.len() > 1).collect()
}

/// Files of a store path that are the same file are in its layer once; what the store path's hash and the image's rules do
/// not tell apart is not told apart, and inodes are not asked.
#[test]
fn files_alike_in_a_store_path_are_hard_links() {
    let dir = tempfile::tempdir().unwrap();
    let pack_one = |linked: bool, profile| {
        let options = PackOptions {
            profile,
            ..options(Compression::None, 1)
        };
        let layers = pack(&[store_layer(vec![files_alike(dir.path(), linked)])], &options, &Silent).unwrap();
        bytes_of(&layers[0])
    };
    let tar = pack_one(false, TarProfile::Layerize);
    assert_eq!(tar, pack_one(true, TarProfile::Layerize), "inodes must not count");
    assert_eq!(
        entries_below(&tar),
        [
            "/again",
            "/bin/",
            "/bin/other",
            "/bin/perl = /again",
            "/bin/perl5 = /again",
            "/bin/zero",
            "/bin/zero2",
            "/bin-data",
            "/moded",
        ]
    );
    // The tools of the other dialects write copies.
    let copies = pack_one(true, TarProfile::Nix2container);
    assert!(!entries_below(&copies).iter().any(|line| line.contains('=')));
}
