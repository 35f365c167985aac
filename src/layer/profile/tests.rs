//! Tests of the tar profiles: the tools' own known answers, and Python's `tarfile` as the oracle.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::*;
use crate::archive::tar::BLOCK;
use crate::digest::Digest;
use crate::event::Silent;
use crate::layer::{LayerCache, LayerContent, LayerInput, PackOptions, PackedLayer, StoreEntry, pack};
use crate::oci::Compression;

/// The answers that nix2container's own tests know (`nix/layers_test.go`), of its fixture
/// `data/layer1`: an empty file, once with the mode it has and once with another.
#[test]
fn the_known_answers_of_nix2container() {
    for (mode, expected) in [
        (
            0o644,
            "cc45bd46eca903b0900ebb997dffd5778904dca9ec02e7375dd1e653dfb61e2e",
        ),
        (
            0o641,
            "adf74a52f9e1bcd7dab77193455fa06743b979cf5955148010e5becedba4f72d",
        ),
    ] {
        let mut tar = Vec::new();
        for above in ["..", "../data", "../data/layer1"] {
            as_go(&mut tar, above.as_bytes(), &ROOT);
        }
        let file = Entry {
            kind: Kind::File { size: 0 },
            mode,
            ..ROOT
        };
        as_go(&mut tar, b"../data/layer1/file1", &file);
        tar.resize(tar.len() + TarProfile::Nix2container.trailer(tar.len() as u64), 0);
        assert_eq!(
            (tar.len(), Digest::of(&tar).hex().as_str()),
            (3072, expected),
            "{mode:o}"
        );
    }
}

/// Names that a header cannot say, or only just.
fn names() -> Vec<Vec<u8>> {
    let deep = format!("deep/{}", "d".repeat(90));
    let mut names: Vec<Vec<u8>> = [
        "plain",
        "ünïcode",
        "日本/語",
        "with space",
        "new\nline",
        "a-b",
        "a.b",
        "a",
        "a0",
    ]
    .map(|name| name.as_bytes().to_vec())
    .to_vec();
    // The store path before it has 46 bytes: names of 90 to 110, and around where a prefix ends.
    names.extend((44..64).map(|length| "n".repeat(length).into_bytes()));
    names.extend([200, 255].map(|length| "l".repeat(length).into_bytes()));
    names.extend((40..60).map(|length| format!("{deep}/{}", "e".repeat(length)).into_bytes()));
    names.push(format!("{deep}/{}", "é".repeat(60)).into_bytes());
    names
}

/// A tree with everything that a store path may hold.
fn make_tree(tree: &Path) {
    for (index, name) in names().iter().enumerate() {
        let path = tree.join(std::ffi::OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match index % 4 {
            _ if path.exists() => {}
            0 => fs::create_dir(&path).unwrap(),
            1 => symlink(format!("../{}", "t".repeat(90 + index)), &path).unwrap(),
            _ => {
                fs::write(&path, vec![b'x'; index * 300]).unwrap();
                let mode = if index % 4 == 2 { 0o755 } else { 0o644 };
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            }
        }
    }
    symlink("ünïcode", tree.join("link")).unwrap();
    fs::write(tree.join("block"), vec![7; 3 * BLOCK]).unwrap();
    make_canonical(tree);
}

/// Modes as in a store.
fn make_canonical(path: &Path) {
    let metadata = fs::symlink_metadata(path).unwrap();
    if metadata.is_symlink() {
        return;
    }
    if metadata.is_dir() {
        for name in crate::fsio::sorted_names(path).unwrap() {
            make_canonical(&path.join(name));
        }
    }
    let mode = if metadata.permissions().mode() & 0o100 == 0 {
        0o444
    } else {
        0o555
    };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Three store paths below a directory: a tree, a file and a symlink.
struct Paths {
    dir: tempfile::TempDir,
    entries: Vec<StoreEntry>,
}

impl Drop for Paths {
    fn drop(&mut self) {
        for entry in &self.entries {
            // The directory's own removal tells of what is left.
            let _ = crate::fsio::remove_tree(&entry.physical);
        }
    }
}

impl Paths {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("nix/store");
        fs::create_dir_all(&store).unwrap();
        let names = [
            "2mdqa9w1p6cmli6976v4wi0sw9r4p5pr-link",
            "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-tree",
            "1mdqa9w1p6cmli6976v4wi0sw9r4p5pr-file",
        ];
        let [link, tree, file] = names.map(|name| store.join(name));
        symlink("/nix/store/elsewhere", &link).unwrap();
        fs::create_dir(&tree).unwrap();
        make_tree(&tree);
        fs::write(&file, "content\n").unwrap();
        make_canonical(&file);
        let entries = names.iter().zip([link, tree, file]).map(|(name, physical)| {
            let (nar_hash, nar_size) = crate::nar::hash(&physical).unwrap();
            StoreEntry {
                attributes: Vec::new(),
                logical: format!("/nix/store/{name}").parse().unwrap(),
                physical,
                nar_hash,
                nar_size,
            }
        });
        let entries = entries.collect();
        Self { dir, entries }
    }

    fn pack(&self, profile: TarProfile, compression: Compression, cache: Option<&LayerCache>) -> PackedLayer {
        let input = LayerInput {
            content: LayerContent::StorePaths(self.entries.clone()),
            comment: String::new(),
        };
        let options = PackOptions {
            compression,
            profile,
            cache,
            ..PackOptions::default()
        };
        pack(&[input], &options, &Silent).unwrap().remove(0)
    }

    fn tar(&self, profile: TarProfile) -> Vec<u8> {
        let layer = self.pack(profile, Compression::None, None);
        let mut tar = Vec::new();
        layer.open().read_to_end(&mut tar).unwrap();
        assert_eq!(layer.diff_id.as_bytes(), Digest::of(&tar).as_bytes());
        tar
    }

    /// Sorted, as layers have them.
    fn logical(&self) -> Vec<String> {
        let mut names: Vec<String> = self.entries.iter().map(|entry| entry.logical.to_string()).collect();
        names.sort();
        names
    }
}

/// What dockerTools does with the paths of a layer, in our own words: `ROOT` stands for where `/nix/store` really is.
const PYTHON: &str = r#"
import io, os, pathlib, sys, tarfile

root, paths = sys.argv[1], sys.argv[2:]
out = io.BytesIO()

def normal(info):
    info.mtime, info.uid, info.gid, info.uname, info.gname = 1, 0, 0, "root", "root"
    return info

with tarfile.open(fileobj=out, mode="w|") as archive:
    for above in ("/nix", "/nix/store"):
        info = normal(tarfile.TarInfo(above))
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(info)
    for path in paths:
        top = pathlib.Path(root + path)
        below = [] if top.is_symlink() else list(top.rglob("*"))
        for file in sorted([top] + below):
            info = normal(archive.gettarinfo(file))
            info.name = str(file)[len(root):]
            if info.isreg():
                with open(file, "rb") as content:
                    archive.addfile(info, content)
            else:
                archive.addfile(info)
sys.stdout.buffer.write(out.getvalue())
"#;

#[test]
fn dockertools_layers_are_those_of_python() {
    let paths = Paths::new();
    let mut python = Command::new("python3");
    python
        .args(["-", paths.dir.path().to_str().unwrap()])
        .args(paths.logical());
    let mut python = match python
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
    {
        Ok(python) => python,
        Err(error) => return crate::testing::skip(&format!("python3 does not run: {error}")),
    };
    python.stdin.take().unwrap().write_all(PYTHON.as_bytes()).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    let ours = paths.tar(TarProfile::Dockertools);
    first_difference(&ours, &output.stdout);
    assert_eq!(ours.len() % 10240, 0);
}

#[track_caller]
fn first_difference(ours: &[u8], theirs: &[u8]) {
    let blocks = ours.chunks(BLOCK).zip(theirs.chunks(BLOCK)).enumerate();
    for (index, (our, their)) in blocks {
        assert!(
            our == their,
            "block {index}:\n{}\n{}",
            our.escape_ascii(),
            their.escape_ascii()
        );
    }
    assert_eq!(ours.len(), theirs.len());
}

/// The layer that Go 1.27 makes of the same tree by nix2container's rules: `fixtures/layer/nix2container.go`, run on
/// it, gives this SHA-256.
const GO: &str = "56854c1ceb746a2b3506227ac1f5050ecfe2ec8372fbf940bb1a1ba46fcccf71";

#[test]
fn nix2container_layers_are_those_of_go() {
    let tar = Paths::new().tar(TarProfile::Nix2container);
    assert_eq!(Digest::of(&tar).hex(), GO);
}

#[test]
fn other_programs_read_what_the_profiles_write() {
    let paths = Paths::new();
    let sorted = |mut names: Vec<PathBuf>| {
        names.sort();
        names
    };
    let read = |profile: TarProfile| {
        let tar = paths.tar(profile);
        let mut archive = ::tar::Archive::new(tar.as_slice());
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            assert_eq!((entry.header().mtime().unwrap(), entry.header().uid().unwrap()), (1, 0));
            let name = entry.path().unwrap().into_owned();
            let name = name
                .to_str()
                .unwrap()
                .trim_start_matches('/')
                .trim_end_matches('/')
                .to_owned();
            let link = entry.link_name().unwrap().map(|link| link.into_owned());
            PathBuf::from(format!(
                "{name} {:?} {link:?} {}",
                entry.header().entry_type(),
                entry.size()
            ))
        });
        sorted(
            entries
                .filter(|entry| !entry.starts_with(" Directory None 0"))
                .collect(),
        )
    };
    let own = read(TarProfile::Layerize);
    assert!(own.len() > 60);
    assert_eq!(read(TarProfile::Nix2container), own);
    assert_eq!(read(TarProfile::Dockertools), own);
}

#[test]
fn the_cache_keeps_profiles_apart() {
    let paths = Paths::new();
    let cache = LayerCache::open(&paths.dir.path().join("cache")).unwrap();
    let profiles = TarProfile::ALL;
    let pack = |profile| paths.pack(profile, Compression::Gzip(6), Some(&cache)).diff_id;
    let first = profiles.map(pack);
    assert_eq!(profiles.map(pack), first, "from the cache");
    for (profile, diff_id) in profiles.iter().zip(first) {
        let tar = paths.tar(*profile);
        assert_eq!(Digest::of(&tar).as_bytes(), diff_id.as_bytes(), "{profile}");
        // Where a layer's record is gone its kept pieces are joined anew.
        fs::remove_dir_all(paths.dir.path().join("cache/layers")).unwrap();
        fs::create_dir(paths.dir.path().join("cache/layers")).unwrap();
        assert_eq!(pack(*profile), diff_id);
    }
    assert_ne!(first[0], first[1]);
    assert_ne!(first[1], first[2]);
}

#[test]
fn large_numbers_and_odd_bytes_are_said() {
    for (profile, records) in [
        (
            TarProfile::Nix2container,
            &[
                "SCHILY.xattr.security.capability=\\x00\\x00\\x00\\x02",
                "gid=3000000",
                "path=/x\\xff",
                "size=8589934592",
                "uid=3000001",
            ][..],
        ),
        (
            TarProfile::Dockertools,
            &[
                "hdrcharset=BINARY",
                "path=/x\\xff",
                "uid=3000001",
                "gid=3000000",
                "size=8589934592",
                "SCHILY.xattr.security.capability=\\x00\\x00\\x00\\x02",
            ],
        ),
    ] {
        let mut out = Vec::new();
        let entry = Entry {
            path: b"x\xff",
            kind: Kind::File { size: 1 << 33 },
            mode: 0o644,
            uid: 3_000_001,
            gid: 3_000_000,
            capabilities: "cap_net_raw=p".parse().ok(),
        };
        profile.append_header(&mut out, &entry).unwrap();
        let text = out.escape_ascii().to_string();
        let found: Vec<usize> = records
            .iter()
            .map(|record| text.find(record).unwrap_or_else(|| panic!("{record}: {text}")))
            .collect();
        assert!(found.is_sorted(), "{profile}: {text}");
    }
}

#[test]
fn what_cannot_stand_in_a_layer_can_in_none() {
    for profile in [TarProfile::Nix2container, TarProfile::Dockertools] {
        for path in ["", "/x", "a/../b", ".wh.x"] {
            let entry = Entry {
                path: path.as_bytes(),
                ..ROOT
            };
            assert!(profile.append_header(&mut Vec::new(), &entry).is_err(), "{path}");
        }
    }
}
