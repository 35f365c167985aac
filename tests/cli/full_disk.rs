//! A full disk: what is there can be looked at and collected, what cannot be written is said, and nothing is lost.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::registry::registry;
use crate::served::Demands;
use crate::support::{Place, Ran, is_root, peer, skipped};

/// A file system of its own, of 32 MB; unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    /// Mounts one at `dir`: `ext4` in a file beside it, or `tmpfs`; `None` where that cannot be done here.
    fn mount(kind: &str, dir: &Path) -> Option<Self> {
        if !is_root() {
            skipped("only root can mount a disk");
            return None;
        }
        fs::create_dir_all(dir).unwrap();
        let mut mount = Command::new("mount");
        if kind == "ext4" {
            let image = dir.with_extension("img");
            fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
            peer(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image));
            mount.args(["-o", "loop"]).arg(&image).arg(dir);
        } else {
            mount.args(["-t", "tmpfs", "-o", "size=32M", "tmpfs"]).arg(dir);
        }
        if !mount.status().is_ok_and(|status| status.success()) {
            skipped(&format!("no {kind} can be mounted here"));
            return None;
        }
        Some(Self(dir.to_owned()))
    }

    /// Fills it up to the last block.
    fn fill(&self) {
        for block in [1 << 20, 4096, 1] {
            let mut file = fs::File::options()
                .create(true)
                .append(true)
                .open(self.0.join("fill"))
                .unwrap();
            while file.write_all(&vec![0; block]).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.0.join("fill")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A project without scripts, whose image is of a few hundred kB.
fn project() -> Place {
    let place = Place::new();
    place.write(
        "layerize.toml",
        "[package.a]\nsource = \"a\"\n\n[package.b]\nsource = \"b\"\n\n[image.a]\ncontents = [\"a\"]\n",
    );
    for name in ["a", "b"] {
        let dir = place.project.join(name);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("data"), noise(300_000)).unwrap();
    }
    place
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(next).collect()
}

/// That a command failed for want of space, naming a path on the disk and what to do.
#[track_caller]
fn is_told(ran: Ran, disk: &Disk) {
    let ran = ran.exits(2);
    let text = ran.stderr.to_lowercase();
    assert!(text.contains("no space"), "{}", ran.stderr);
    assert!(
        text.contains(&disk.0.display().to_string().to_lowercase()),
        "{}",
        ran.stderr
    );
    ran.says(&["help: ", "`layerize store gc`"]);
}

/// SQLite cannot open its database on a disk without a free block ("Error code 4874"): `store gc`, which is how one gets
/// room, must all the same.
#[test]
fn a_store_on_a_full_disk_can_be_looked_at_and_collected() {
    for kind in ["ext4", "tmpfs"] {
        let place = project();
        let Some(disk) = Disk::mount(kind, &place.path().join("disk")) else {
            continue;
        };
        let store = disk.0.join("s");
        let run = |args: &[&str]| place.run(&[&["--store", store.to_str().unwrap()], args].concat());
        let a = run(&["build", "a", "-o", "docker-archive:../a.tar"])
            .success()
            .line()
            .to_owned();
        let listed = run(&["store", "ls"]).success().stdout;
        disk.fill();
        for command in [&["store", "ls"][..], &["store", "verify"], &["store", "roots"]] {
            run(command).success();
        }
        assert_eq!(run(&["store", "ls"]).success().stdout, listed);
        // The sources that were there are in the store already.
        fs::write(place.project.join("b/data"), noise(300_001)).unwrap();
        is_told(run(&["build", "b"]), &disk);
        // Nothing of what was there is lost.
        run(&["store", "verify"]).success();
        for root in layerize::fsio::sorted_names(&store.join("roots")).unwrap() {
            fs::remove_file(store.join("roots").join(root)).unwrap();
        }
        // Of all that, builds had use just now.
        let kept = run(&["store", "gc"]).success();
        kept.says(&["0 paths deleted", "(`--all` deletes it)"]);
        let collected = run(&["store", "gc", "--all", "--verbose"]).success();
        assert!(!collected.stdout.is_empty(), "{}", collected.stderr);
        assert_eq!(run(&["store", "ls"]).success().stdout, "");
        // There is a reserve again, for the next collection on a full disk.
        disk.free();
        run(&["build", "b"]).success();
        disk.fill();
        run(&["store", "gc"]).success();
        disk.free();
        assert_eq!(
            run(&["build", "a", "-o", "docker-archive:../a.tar"]).success().line(),
            a
        );
        drop(disk);
    }
}

/// Every verb that writes where the user says, on a disk that is full: an error that names the place, and what stood there
/// before is as it was.
#[test]
fn every_verb_that_writes_tells_of_a_full_disk_and_loses_nothing() {
    let place = project();
    let Some(disk) = Disk::mount("tmpfs", &place.path().join("disk")) else {
        return;
    };
    let to = |name: &str| disk.0.join(name).display().to_string();
    place.run(&["build", "a", "-o", "docker-archive:a.tar"]).success();
    place
        .run(&["copy", "docker-archive:a.tar", &format!("oci:{}:kept", to("layout"))])
        .success();
    fs::write(disk.0.join("kept.json"), "kept").unwrap();
    let digest = || place.inspect(&format!("oci:{}:kept", to("layout")))["digest"].clone();
    let before = digest();
    disk.fill();
    let archive = format!("docker-archive:{}", to("b.tar"));
    let layout = format!("oci:{}:second", to("other"));
    let sbom = to("kept.json");
    for command in [
        &["build", "a", "-o", archive.as_str()][..],
        &["build", "a", "-o", layout.as_str()],
        &["copy", "docker-archive:a.tar", layout.as_str()],
        &["copy", "docker-archive:a.tar", archive.as_str()],
        &["sbom", "a", "-o", sbom.as_str()],
        &["provenance", "a", "-o", sbom.as_str()],
    ] {
        let ran = place.run(command);
        assert_eq!(ran.status, 2, "{command:?}: {}", ran.stderr);
        is_told(ran, &disk);
    }
    assert_eq!(fs::read_to_string(disk.0.join("kept.json")).unwrap(), "kept");
    assert!(!disk.0.join("b.tar").exists(), "half an archive is none");
    assert_eq!(digest(), before);
    place.run(&["verify", &format!("oci:{}:kept", to("layout"))]).success();
    disk.free();
    place.run(&["build", "a", "-o", &archive]).success();
    place.run(&["copy", "docker-archive:a.tar", &layout]).success();
}

/// What a command does, where it writes to, and what it prints where it fails for want of space there.
struct Row {
    /// The directory that is a disk of its own, below the test's place.
    full: &'static str,
    /// What makes things as they are when the disk is full.
    before: &'static [&'static str],
    command: &'static [&'static str],
    /// Whether it cannot do without that place; else it warns.
    fails: bool,
}

/// A source with an archive to be unpacked, a package of Debian's kind, and files; `file:` addresses are downloads like others.
const MATRIX_SPEC: &str = r#"
[package.packed]
version = "1"
source = { url = "file:packed.tar" }

[package.plain]
source = "plain"

[image.thing]
contents = ["packed", "plain"]
"#;

const ROWS: &[Row] = &[
    // The lock itself, and the download that has to be hashed for it.
    Row {
        full: "project",
        before: &[],
        command: &["lock"],
        fails: true,
    },
    Row {
        full: "cache",
        before: &[],
        command: &["lock"],
        fails: true,
    },
    Row {
        full: "data",
        before: &["lock", "store ls"],
        command: &["build", "packed"],
        fails: true,
    },
    // Fetched for a build: what the lock's run had downloaded is gone.
    Row {
        full: "cache",
        before: &["lock", "forget"],
        command: &["build", "packed"],
        fails: true,
    },
    Row {
        full: "data/layerize/cache",
        before: &["lock", "build packed", "build plain"],
        command: &["build", "thing", "-o", "oci:../out:v1"],
        fails: false,
    },
    Row {
        full: "data/layerize/cache",
        before: &["lock", "build packed", "build plain"],
        command: &["push", "thing", "NAME"],
        fails: false,
    },
    Row {
        full: "data",
        before: &["lock", "store ls"],
        command: &["push", "thing", "NAME"],
        fails: true,
    },
    Row {
        full: "usb",
        before: &["build thing -o oci:../out:v1"],
        command: &["inputs", "export", "USB"],
        fails: true,
    },
    Row {
        full: "cache",
        before: &["build thing -o oci:../out:v1", "forget"],
        command: &["inputs", "export", "USB"],
        fails: true,
    },
];

/// The disk of each place that a verb writes to is full: the store, the layer cache in it, the downloads, the project, and
/// what the user named. The error names what could not be written, nothing is lost, a collection works, and with room
/// the same command does.
#[test]
fn every_verb_names_the_place_that_is_full_and_works_when_there_is_room() {
    ROWS.iter().for_each(fill_and_try);
}

/// Makes things as a row needs them, fills the disk, and tries.
fn fill_and_try(row: &Row) {
    let place = Place::new();
    let Some(disk) = Disk::mount("tmpfs", &place.path().join(row.full)) else {
        return;
    };
    let needs_registry = row.command.contains(&"NAME");
    let registry = needs_registry.then(|| registry(&place, Demands::default()));
    let name = match &registry {
        Some(None) => return,
        Some(Some(registry)) => format!("{}/team/thing:1", registry.host),
        None => String::new(),
    };
    let usb = place.path().join("usb/inputs").display().to_string();
    let run = |args: &[&str]| {
        let args: Vec<&str> = args
            .iter()
            .map(|arg| match *arg {
                "NAME" => name.as_str(),
                "USB" => usb.as_str(),
                arg => arg,
            })
            .collect();
        let mut command = place.command(&args);
        command.env("XDG_CACHE_HOME", place.path().join("cache"));
        Ran::of(command.output().unwrap())
    };
    write_project(&place);
    for step in row.before {
        match *step {
            "forget" => layerize::fsio::remove_tree(&place.path().join("cache/layerize/fetch/sha256")).unwrap(),
            step => drop(run(&step.split(' ').collect::<Vec<_>>()).success()),
        }
    }
    disk.fill();
    let what = format!("{:?} with a full {}", row.command, row.full);
    let ran = run(row.command);
    assert_eq!(ran.status, if row.fails { 2 } else { 0 }, "{what}: {}", ran.stderr);
    is_told_of(&ran, &disk, row, &what);
    for command in [&["store", "verify"][..], &["store", "ls"], &["store", "gc"]] {
        let ran = run(command);
        assert_eq!(ran.status, 0, "{what}, {command:?}: {}", ran.stderr);
    }
    disk.free();
    let ran = run(row.command);
    assert_eq!(ran.status, 0, "{what}, with room: {}", ran.stderr);
    run(&["store", "verify"]).success();
}

/// The sources and the archive of the matrix.
fn write_project(place: &Place) {
    place.write("layerize.toml", MATRIX_SPEC);
    for dir in ["packed", "plain"] {
        fs::create_dir(place.project.join(dir)).unwrap();
        fs::write(place.project.join(dir).join("data"), noise(400_000)).unwrap();
    }
    peer(
        Command::new("tar")
            .args(["-cf", "packed.tar", "packed"])
            .current_dir(&place.project),
    );
}

/// That a command named the place, and what to do where it failed.
fn is_told_of(ran: &Ran, disk: &Disk, row: &Row, what: &str) {
    let names = ran.stderr.to_lowercase().contains("no space") && ran.stderr.contains(&disk.0.display().to_string());
    assert!(names, "{what}: {}", ran.stderr);
    let advises = ran.stderr.contains("help: ") && ran.stderr.contains("`layerize store gc`");
    assert_eq!(advises, row.fails, "{what}: {}", ran.stderr);
}
