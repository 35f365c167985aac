//! What is kept stays within bounds, whatever is built, killed or collected beside it; nothing that is needed goes for that.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{LAYERIZE, Place, Ran, is_root, peer, skipped};

/// A toolchain of its own, to which what is made with it does not refer; two programs made with it.
const SPEC: &str = r##"
[package.toolchain]
script = """
mkdir -p $out/bin
head -c 300000 /dev/zero > $out/data
printf '#!/bin/sh\ncat word\n' > $out/bin/make-it
chmod +x $out/bin/make-it
"""

[package.app]
source = { path = "src" }
tools = ["toolchain"]
script = "mkdir -p $out; make-it > $out/app; head -c 100000 /dev/zero >> $out/app"

[package.other]
source = { path = "other" }
tools = ["toolchain"]
script = "mkdir -p $out; make-it > $out/other; head -c 50000 /dev/zero >> $out/other"

[image.app-image]
contents = ["app"]
"##;

/// A project with a store and downloads that no other test has: they are to go.
struct Bounded(Place);

impl Bounded {
    fn new() -> Self {
        let place = Place::new();
        place.write("layerize.toml", SPEC);
        place.lock_base();
        let bounded = Self(place);
        bounded.edit("src", 0).edit("other", 0);
        for target in ["app-image", "other"] {
            bounded.run(&["build", target]).success();
        }
        bounded
    }

    fn edit(&self, dir: &str, number: u32) -> &Self {
        self.0.write(&format!("{dir}/word"), &format!("word {number}\n"));
        self
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.0.command(args);
        command.env("XDG_CACHE_HOME", self.0.path().join("cache"));
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().unwrap())
    }

    fn configure(&self, text: &str) {
        self.0.write("../config/layerize/config.toml", text);
    }

    /// What a collection would say, did it not have to hold any bounds.
    fn state(&self) -> Value {
        let ran = self
            .run(&["store", "gc", "--dry-run", "--json", "--max-size", "1000TB"])
            .success();
        serde_json::from_str(ran.stdout.lines().last().unwrap()).unwrap()
    }

    fn total(&self) -> u64 {
        self.state()["totalBytes"].as_u64().unwrap()
    }

    /// How many store paths have this name.
    fn count(&self, name: &str) -> usize {
        let names = layerize::fsio::sorted_names(&self.0.store().join("store")).unwrap();
        let end = format!("-{name}");
        names
            .iter()
            .filter(|found| found.to_string_lossy().ends_with(&end))
            .count()
    }
}

/// Says that what is made is not made anew, and what was unpacked is not unpacked anew.
#[track_caller]
fn nothing_is_lost(ran: &Ran) {
    for text in ["built toolchain", "unpacked", "fetched"] {
        assert!(!ran.stderr.contains(text), "{}", ran.stderr);
    }
}

#[test]
fn two_hundred_edits_stay_within_a_bound() {
    const EDITS: u32 = 200;
    let bounded = Bounded::new();
    let bound = bounded.total() + 2_000_000;
    bounded.configure(&format!("[store]\nmax-size = {bound}\n"));
    // What one edit and one build beside it add at most: two sources, two packages, a layer and its image.
    let edit = 600_000;
    let mut usual = Duration::from_millis(100);
    let (mut killed, mut beside) = (0, 0);
    for number in 1..=EDITS {
        bounded.edit("src", number);
        let target = if number % 5 == 0 { "app-image" } else { "app" };
        let begun = Instant::now();
        let mut child = bounded.command(&["build", target]);
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        if number % 4 == 3 {
            // Repeatable moments, spread over a build and the collection after it.
            std::thread::sleep(usual.mul_f64((f64::from(number) * 0.618_034).fract() * 1.2));
            child.kill().unwrap();
            child.wait().unwrap();
            killed += 1;
            if killed % 5 == 0 {
                bounded.run(&["store", "verify", "--no-contents"]).success();
            }
            continue;
        }
        if number % 8 == 0 {
            bounded.edit("other", number);
            nothing_is_lost(&bounded.run(&["build", "other"]).success());
            beside += 1;
        }
        let ran = Ran::of(child.wait_with_output().unwrap()).success();
        nothing_is_lost(&ran);
        assert!(!ran.stderr.contains("cannot be held"), "{}", ran.stderr);
        usual = (usual * 3 + begun.elapsed()) / 4;
        if number % 20 == 0 {
            // What was not finished in time is when the next one begins.
            let total = bounded.total();
            assert!(total <= bound + 3 * edit, "{total} of {bound} after {number} edits");
        }
    }
    assert_eq!((killed, beside), (50, 25));
    for _ in 0..3 {
        nothing_is_lost(&bounded.run(&["build", "app-image"]).success());
    }
    let total = bounded.total();
    assert!(total <= bound, "{total} of {bound}");
    assert_eq!(bounded.count("toolchain"), 1);
    let apps = bounded.count("app");
    assert!((1..60).contains(&apps), "{apps} of {EDITS} are there");
    bounded.run(&["store", "verify"]).success();
    let trash = layerize::fsio::sorted_names(&bounded.0.store().join("trash")).unwrap();
    assert!(trash.is_empty(), "{trash:?}");
}

/// What roots need and what was used just now stays, and that is said in one line.
#[test]
fn a_bound_that_cannot_be_held_is_told() {
    let bounded = Bounded::new();
    for (text, what) in [
        (
            "max-size = \"1MB\"",
            "max-size (1.00 MB) cannot be held: roots need and commands use ",
        ),
        ("min-free = \"1000TB\"", "min-free (1.00 PB) cannot be held: "),
    ] {
        bounded.configure(&format!("[store]\n{text}\n"));
        let ran = bounded.run(&["build", "app"]).success();
        nothing_is_lost(&ran);
        let lines: Vec<&str> = ran
            .stderr
            .lines()
            .filter(|line| line.starts_with("warning: "))
            .collect();
        let [line] = &lines[..] else { panic!("{}", ran.stderr) };
        assert!(line.contains(what) && line.contains("`layerize store roots`"), "{line}");
    }
    // A collection by hand takes what no root needs, tools among it, tells the same, and a build makes it anew.
    bounded.configure("");
    let gc = ["store", "gc", "--max-size", "1MB", "--verbose"];
    let dry = bounded.run(&[&gc[..], &["--dry-run"]].concat()).success();
    assert!(dry.stdout.contains("-toolchain\n"), "{}", dry.stdout);
    assert_eq!(bounded.count("toolchain"), 1, "a dry run deletes nothing");
    let done = bounded.run(&gc).success();
    assert_eq!(done.stdout, dry.stdout);
    assert_eq!((bounded.count("toolchain"), bounded.count("app")), (0, 1));
    bounded.run(&["store", "verify"]).success();
}

/// Downloads, packed layers and the records of images go by their age, too, but no download of what stays.
#[test]
fn caches_go_by_their_age() {
    let bounded = Bounded::new();
    bounded.0.write("data", "some data").write(
        "layerize.toml",
        &format!("{SPEC}\n[package.data]\nversion = \"1\"\nsource = {{ url = \"file:data\", unpack = false }}\n"),
    );
    bounded.run(&["lock"]).success();
    bounded.run(&["build", "data"]).success();
    let downloads = bounded.0.path().join("cache/layerize/fetch/sha256");
    let count = || layerize::fsio::sorted_names(&downloads).unwrap().len();
    let before = count();
    std::thread::sleep(Duration::from_millis(1100));
    let collected = bounded.run(&["store", "gc", "--older-than", "1s"]).success();
    collected.says(&[
        "Used longest ago and deleted: ",
        " packed layers, ",
        " records of images, ",
        " records of sources (",
    ]);
    assert!(count() >= 1 && count() <= before, "the package is there");
    bounded.run(&["store", "roots", "remove", "."]).success();
    bounded.run(&["store", "gc", "--older-than", "1s"]).success();
    assert_eq!(count(), 0);
    assert_eq!(bounded.count("toolchain"), 0);
}

/// A store that belongs to somebody else serves what is in it: finished builds and images of them.
#[test]
fn somebody_else_s_store_serves_what_was_built() {
    if !is_root() {
        return skipped("only root can have a store that others may not write to");
    }
    let bounded = Bounded::new();
    let digest = bounded
        .run(&["build", "app-image"])
        .success()
        .line()
        .split(' ')
        .next()
        .unwrap()
        .to_owned();
    let place = Place::new();
    crate::support::copy_tree(&bounded.0.project, &place.project);
    let program = place.path().join("layerize");
    fs::copy(LAYERIZE, &program).unwrap();
    peer(Command::new("chown").args(["-R", "4242:4242"]).arg(place.path()));
    let store = bounded.0.store();
    let user = |args: &[&str]| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", "4242", "--regid", "4242", "--clear-groups"])
            .arg(&program)
            .arg("--store")
            .arg(&store)
            .args(args);
        place.prepare(&mut command);
        command.env("XDG_CACHE_HOME", place.path().join("cache"));
        Ran::of(command.output().unwrap())
    };
    let image = user(&["build", "app-image"]).success();
    assert!(image.stdout.starts_with(&digest), "{}", image.stdout);
    for command in [
        &["build", "app"][..],
        &["store", "ls"],
        &["store", "roots"],
        &["store", "gc", "--dry-run"],
        &["store", "verify"],
        &["closure", "app"],
        &["plan", "app-image"],
        &["inspect", "app-image.tar"],
    ] {
        let ran = user(command);
        assert_eq!(ran.status, 0, "{command:?}: {}", ran.stderr);
    }
    let shell = user(&["shell", "app", "--", "sh", "-c", "ls $(dirname $(command -v make-it))"]).success();
    assert!(shell.stdout.contains("make-it"), "{}", shell.stdout);
    // What is new cannot be built there, and what one can do is told.
    place.write("src/word", "new\n");
    peer(Command::new("chown").args(["-R", "4242:4242"]).arg(&place.project));
    for command in [&["build", "app"][..], &["store", "gc"], &["store", "optimise"]] {
        user(command).exits(2).says(&[
            "cannot be written to",
            "help: what was built there can be used",
            "`--store DIR`",
        ]);
    }
    let spec = SPEC.replace("100000", "100001");
    place.write("src/word", "word 0\n").write("layerize.toml", &spec);
    peer(Command::new("chown").args(["-R", "4242:4242"]).arg(&place.project));
    user(&["build", "app"]).exits(2).says(&["app", "cannot be written to"]);
}

/// Identical files become one beside a command, and the room that a small disk is to have free is made.
#[test]
fn identical_files_share_their_content_by_themselves() {
    let place = Place::new();
    let text = "x".repeat(100_000);
    place.write("a/one", &text).write("b/two", &text);
    place.write(
        "layerize.toml",
        "[package.a]\nsource = \"a\"\n[package.b]\nsource = \"b\"\n",
    );
    let config = place.path().join("config/layerize");
    fs::create_dir_all(&config).unwrap();
    place.run(&["build"]).success();
    let inodes = || {
        let built = place.run(&["build", "-q"]).success().stdout;
        let inode = |path: &str, file: &str| {
            let below = path.trim_start_matches("/layerize/store/");
            fs::metadata(place.store().join("store").join(below).join(file))
                .unwrap()
                .ino()
        };
        let paths: Vec<&str> = built.lines().collect();
        (inode(paths[0], "one"), inode(paths[1], "two"))
    };
    let (one, two) = inodes();
    assert_ne!(one, two);
    fs::write(config.join("config.toml"), "[store]\nauto-optimise = true\n").unwrap();
    // A command that has ended waits for nothing.
    let shared = (0..20).map(|_| inodes()).any(|(one, two)| one == two);
    assert!(shared, "what is the same is there twice");
    place.run(&["store", "verify"]).success();
}

/// A disk of 40 MB of which 20 are to be free: what was built long ago goes, the last build stays.
#[test]
fn room_is_made_on_a_small_disk() {
    let disk = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=40m", "tmpfs"])
        .arg(disk.path())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        skipped("a small disk needs the right to mount");
        return;
    }
    let place = Place::new();
    let config = place.path().join("config/layerize");
    fs::create_dir_all(&config).unwrap();
    let store = disk.path().join("store");
    let text = format!("[store]\ndir = \"{}\"\nmin-free = \"20MB\"\n", store.display());
    fs::write(config.join("config.toml"), text).unwrap();
    place.write("layerize.toml", "[package.a]\nsource = \"a\"\n");
    let mut last = String::new();
    for number in 0..6 {
        place.write("a/data", &format!("{number} ").repeat(2_500_000));
        place.run(&["build", "-q"]).success();
    }
    let free = || {
        let free = rustix::fs::statvfs(disk.path()).unwrap();
        free.f_bavail * free.f_frsize
    };
    // What was used a moment ago stays for that long, and what was being deleted when a command ended is gone on with.
    for _ in 0..40 {
        std::thread::sleep(Duration::from_millis(250));
        last = place.run(&["build", "-q"]).success().stdout;
        if free() >= 20_000_000 {
            break;
        }
    }
    let free = free();
    let left = layerize::fsio::sorted_names(&store.join("store")).unwrap();
    let unmounted = Command::new("umount").arg(disk.path()).status().unwrap();
    assert!(unmounted.success());
    assert!(free >= 20_000_000, "{free}: {left:?}");
    let stays = left
        .iter()
        .any(|name| last.trim_end().ends_with(name.to_str().unwrap()));
    assert!(stays && left.len() < 6, "{left:?} and {last}");
}
