//! Pairs of images that differ in exactly one respect, made by the tools that people use: `diff` names the class of that
//! respect, and no other.
//!
//! A row's numbers are those of the 43 sources of differences between images of the same input that are known from other
//! tools. Not among the rows are those that no finished image can show: names that begin with `.wh.` (17), hosts that
//! ignore case (19), the choice of a program by its presence (24), host facts that end in other rows' classes (37), an
//! archive of several images (38), caches (41).

mod rows;

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;

use layerize::archive::compression::Decompressor;
use layerize::digest::{Digest, Hasher};
use layerize::oci::CompressionFormat;
use serde_json::{Value, json};

use rows::{BUILDAH, COMPRESSORS, DAEMON, DOCKER, GNU_TAR, OWN, PYTHON_ROWS, SKOPEO, UMOCI};

use crate::support::{LAYERIZE, Place, Ran, have, peer};

/// What a row's script leaves behind.
enum Made {
    /// `a.tar` and `b.tar`: the one layer of each image, stored as it is.
    Tars,
    /// `a.blob` and `b.blob`: the one layer of each image, packed.
    Blobs,
    /// `a.json` and `b.json`: configs of the same layer.
    Configs,
    /// `a.json` and `b.json`: indexes beside the same image.
    Indexes,
    /// Images in these places.
    Images(&'static str, &'static str),
}

struct Row {
    /// Numbers of the sources of differences that the row stands for.
    sources: &'static [u8],
    classes: &'static [&'static str],
    made: Made,
    arguments: &'static [&'static str],
    script: &'static str,
}

const fn row(sources: &'static [u8], classes: &'static [&'static str], made: Made, script: &'static str) -> Row {
    Row {
        sources,
        classes,
        made,
        arguments: &[],
        script,
    }
}

/// What all scripts begin with: a tree `t` with fixed times, and tars of it.
const SHELL: &str = r#"set -eu; umask 022
mkdir t; printf 'one\ntwo\n' > t/a; printf 'b\n' > t/b; mkdir t/d; printf 'in d\n' > t/d/f
find t -exec touch -h -d @1 {} +
gtar() { tar -C t --format=ustar --owner=0 --group=0 --numeric-owner --mtime=@1 --no-recursion -b1 "$@"; }
"#;

/// What Python rows begin with: `tar(NAME, FORMAT, ENTRIES)`, an entry being a path and the fields that are its own.
const PYTHON: &str = r#"
import io, json, tarfile
U, G, P = tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT
def tar(name, form, entries):
    with tarfile.open(name, 'w', format=form) as out:
        for path, fields in entries:
            info = tarfile.TarInfo(path)
            info.mtime = 1
            data = fields.pop('data', b'')
            for key, value in fields.items(): setattr(info, key, value)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
def configs(a, b): open('a.json', 'w').write(a); open('b.json', 'w').write(b)
BASE = {'architecture': 'amd64', 'os': 'linux', 'created': '2020-01-01T00:00:00Z', 'author': 'me',
        'config': {'Env': ['A=1', 'B=2'], 'Labels': {'a': '<&>', 'b': '2'}, 'Cmd': ['x']},
        'rootfs': {'type': 'layers', 'diff_ids': ['DIFF_ID']},
        'history': [{'created': '2020-01-01T00:00:00Z', 'comment': 'c'}]}
def changed(**fields): return json.dumps({**BASE, **fields})
"#;

fn run(rows: &[Row]) {
    for (number, row) in rows.iter().enumerate() {
        let place = Place::new();
        let name = format!("lz-{}-{number}", std::process::id());
        let removed = Removed(name.clone());
        let script = match row.script.contains("gtar") || !PYTHON_ROWS.iter().any(|other| std::ptr::eq(other, row)) {
            true => format!("{SHELL}{}", row.script),
            false => String::new(),
        };
        let mut command = if script.is_empty() {
            let mut python = Command::new("python3");
            python.args(["-c", &format!("{PYTHON}{}", row.script)]);
            python
        } else {
            let buildah = "B() { buildah --root $PWD/root --runroot $PWD/runroot --storage-driver vfs \"$@\"; }\n";
            let mut bash = Command::new("bash");
            bash.args(["-c", &format!("{buildah}{script}")]);
            bash
        };
        place.prepare(&mut command);
        peer(
            command
                .env("L", LAYERIZE)
                .env("NAME", &name)
                .env("TMPDIR", place.path()),
        );
        let (a, b) = places(&row.made, &place.project);
        let (a, b) = (a.replace("NAME", &name), b.replace("NAME", &name));
        let indexes: &[&str] = if matches!(row.made, Made::Indexes) {
            &["--indexes"]
        } else {
            &[]
        };
        let arguments = [&["diff", "--json", &a, &b], row.arguments, indexes].concat();
        let ran = place.run(&arguments);
        told(row, &ran, &place.run(&["diff", &a, &b]).stdout);
        if [&a, &b].iter().all(|place| !place.starts_with("docker-daemon:")) {
            std::mem::forget(removed);
        }
    }
}

/// Removes an image from docker when a row ends, however it ends.
struct Removed(String);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "-f", &self.0]).output();
    }
}

#[track_caller]
fn told(row: &Row, ran: &Ran, text: &str) {
    let at = format!("sources {:?}: {}\n{text}\n{}", row.sources, row.script, ran.stderr);
    assert_eq!(ran.status, i32::from(!row.classes.is_empty()), "{at}");
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let classes: BTreeSet<&str> = report["classes"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(classes, row.classes.iter().copied().collect(), "{at}");
}

/// The images that a script left, or that are made of what it left.
fn places(made: &Made, dir: &Path) -> (String, String) {
    let read = |name: &str| fs::read(dir.join(name)).unwrap();
    let make = |name: &str| match made {
        Made::Tars => layout(dir, name, &read(&format!("{name}.tar")), None, None),
        Made::Blobs => layout(dir, name, &read(&format!("{name}.blob")), None, None),
        Made::Configs => layout(dir, name, &[0; 1024], Some(read(&format!("{name}.json"))), None),
        Made::Indexes => layout(dir, name, &[0; 1024], None, Some(read(&format!("{name}.json")))),
        Made::Images(..) => String::new(),
    };
    match made {
        Made::Images(a, b) => ((*a).to_owned(), (*b).to_owned()),
        _ => (make("a"), make("b")),
    }
}

/// An OCI layout of one layer.
fn layout(dir: &Path, name: &str, layer: &[u8], config: Option<Vec<u8>>, index: Option<Vec<u8>>) -> String {
    let dir = dir.join(format!("layout-{name}"));
    fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
    fs::write(dir.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
    let blob = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(dir.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        (digest.to_string(), bytes.len())
    };
    let suffix = match CompressionFormat::sniff(layer) {
        CompressionFormat::Gzip => "+gzip",
        CompressionFormat::Zstd => "+zstd",
        _ => "",
    };
    let (mut tar, mut hasher) = (Vec::new(), Hasher::new());
    Decompressor::new(layer).unwrap().read_to_end(&mut tar).unwrap();
    hasher.update(&tar);
    let diff_id = hasher.diff_id().to_string();
    let config = match config {
        Some(text) => String::from_utf8(text)
            .unwrap()
            .replace("DIFF_ID", &diff_id)
            .into_bytes(),
        None => {
            json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [diff_id] } })
                .to_string()
                .into_bytes()
        }
    };
    let descriptor = |media_type: &str, (digest, size): (String, usize)| json!({ "mediaType": format!("application/vnd.oci.image.{media_type}"), "digest": digest, "size": size });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", blob(&config)),
        "layers": [descriptor(&format!("layer.v1.tar{suffix}"), blob(layer))],
    });
    let (digest, size) = blob(manifest.to_string().as_bytes());
    let index = match index {
        Some(text) => String::from_utf8(text)
            .unwrap()
            .replace("IMAGE", "application/vnd.oci.image.manifest.v1+json")
            .replace("DIGEST", &digest)
            .replace("\"SIZE\"", &size.to_string()),
        None => {
            json!({ "schemaVersion": 2, "manifests": [descriptor("manifest.v1+json", (digest, size))] }).to_string()
        }
    };
    fs::write(dir.join("index.json"), index).unwrap();
    format!("oci:{}", dir.display())
}

macro_rules! tools {
    ($($name:ident: $rows:expr, needs $($program:literal $probe:literal),+;)+) => {
        $(#[test]
        fn $name() {
            if [$(have($program, &[$probe])),+].iter().all(|found| *found) {
                run($rows);
            }
        })+

        /// The rows stand for at least 25 of the sources, and for every class that a pair can show alone.
        #[test]
        fn the_rows_cover_the_sources() {
            let rows: Vec<&Row> = [$($rows),+].into_iter().flatten().collect();
            let sources: BTreeSet<u8> = rows.iter().flat_map(|row| row.sources.iter().copied()).collect();
            let classes: BTreeSet<&str> = rows.iter().flat_map(|row| row.classes.iter().copied()).collect();
            assert!(rows.len() >= 60 && sources.len() >= 33, "{} rows, sources {sources:?}", rows.len());
            // Shown in the library's own tests, where nothing else would make such an image, and in `kept_elsewhere`.
            let elsewhere = [
                "manifest",
                "layer-added",
                "layer-removed",
                "layer-order",
                "blob-trailer",
                "kept-elsewhere",
            ];
            let missing: Vec<&str> = layerize::audit::Class::ALL
                .iter()
                .map(|class| class.name())
                .filter(|name| !classes.contains(name) && !elsewhere.contains(name))
                .collect();
            assert_eq!(missing, [""; 0]);
        }
    };
}

tools! {
    pairs_of_gnu_tar: GNU_TAR, needs "tar" "--version";
    pairs_of_python: PYTHON_ROWS, needs "python3" "--version";
    pairs_of_gzip_and_zstd: COMPRESSORS, needs "gzip" "--version", "zstd" "--version";
    pairs_of_umoci: UMOCI, needs "umoci" "--version";
    pairs_of_buildah: BUILDAH, needs "buildah" "--version";
    pairs_of_docker: DOCKER, needs "docker" "info";
    pairs_of_a_daemon: DAEMON, needs "docker" "info";
    pairs_of_skopeo: SKOPEO, needs "skopeo" "--version";
    pairs_of_layerize: OWN, needs "bash" "--version";
}
