//! What a crash leaves: after kill -9 at any moment, or a full disk, the next run succeeds and the store is clean.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Place, Ran, is_root, peer};

const SCRIPT: &str = "mkdir -p $out/bin
for i in $(seq 200); do echo \"file $i of $out\" > $out/file-$i; done
sleep 0.3
head -c 3000000 /dev/zero > $out/big
ln -s $out/file-1 $out/bin/link";

/// Random-looking but repeatable moments: multiples of the golden ratio, spread over a run.
fn moments(count: u32, span: Duration) -> impl Iterator<Item = Duration> {
    (1..=count).map(move |i| span.mul_f64((f64::from(i) * 0.618_034).fract()))
}

#[test]
fn kill_9_at_any_moment_leaves_nothing_that_the_next_run_does_not_mend() {
    let place = Place::with_script(SCRIPT);
    let begun = Instant::now();
    let line = place.run(&["build", "thing"]).success().line().to_owned();
    let whole = begun.elapsed();

    for (round, moment) in moments(12, whole).enumerate() {
        let store = format!("store-{}", round % 4);
        let mut child = place
            .command(&["build", "--store", &store, "thing"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(moment);
        child.kill().unwrap();
        child.wait().unwrap();
        place.run(&["store", "verify", "--store", &store]).success();
    }
    for round in 0..4 {
        let store = format!("store-{round}");
        assert_eq!(place.run(&["build", "--store", &store, "thing"]).success().line(), line);
        place.run(&["store", "verify", "--store", &store]).success();
        let staged = layerize::fsio::sorted_names(&place.project.join(&store).join("tmp")).unwrap();
        assert!(staged.is_empty(), "left behind: {staged:?}");
    }
    let leftovers: Vec<_> = layerize::fsio::sorted_names(&place.project)
        .unwrap()
        .into_iter()
        .filter(|name| name.to_string_lossy().starts_with(".layerize-"))
        .collect();
    assert!(
        leftovers.len() <= 12,
        "a killed writer can leave its temporary file, nothing more: {leftovers:?}"
    );
}

/// Six store paths of fifty files.
fn six_paths(place: &Place) -> Vec<String> {
    let add = |index| {
        for file in 0..50 {
            let text = format!("{index} {file}\n").repeat(3000);
            place.write(&format!("tree-{index}/{file}"), &text);
        }
        let tree = format!("tree-{index}");
        place.run(&["store", "add", &tree]).success().line().to_owned()
    };
    (0..6).map(add).collect()
}

/// How long a command takes.
fn span(mut command: Command) -> Duration {
    let begun = Instant::now();
    Ran::of(command.output().unwrap()).success();
    begun.elapsed()
}

/// Kills a command a moment after it began.
fn kill(mut command: Command, moment: Duration) {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(moment);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_copy_from_a_binary_cache_or_to_one_can_be_killed_at_any_moment() {
    let place = Place::new();
    let paths = six_paths(&place);
    let copy = |options: &[&str]| {
        let mut command = place.command(&["store", "copy"]);
        command.args(options).args(&paths);
        command
    };
    let to = |cache| copy(&["--compression", "zstd", "--to", cache]);
    for moment in moments(8, span(to("file:whole"))) {
        kill(to("file:cache"), moment);
    }
    span(to("file:cache"));
    let same = ["-r", "--exclude=.layerize-*", "whole", "cache"];
    peer(Command::new("diff").args(same).current_dir(&place.project));

    let cache = format!("file:{}", place.project.join("cache").display());
    let from = |store: &str| copy(&["--store", store, "--from", &cache]);
    for (round, moment) in moments(12, span(from("taker"))).enumerate() {
        let store = format!("taker-{}", round % 4);
        kill(from(&store), moment);
        place.run(&["store", "verify", "--store", &store]).success();
    }
    for round in 0..4 {
        let store = format!("taker-{round}");
        span(from(&store));
        place.run(&["store", "verify", "--store", &store]).success();
        let listed = place.run(&["store", "ls", "--store", &store]).success();
        assert_eq!(listed.stdout.lines().count(), paths.len());
    }
}

#[test]
fn the_sandbox_dies_with_its_parent() {
    let place = Place::with_script("echo started; exec -a layerize-orphan-probe sleep 987");
    let mut child = place
        .command(&["build", "thing"])
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let probe = || {
        Command::new("pgrep")
            .args(["-f", "layerize-orphan-probe"])
            .output()
            .unwrap()
            .status
            .success()
    };
    let deadline = Instant::now() + Duration::from_secs(120);
    while !probe() {
        assert!(
            Instant::now() < deadline && child.try_wait().unwrap().is_none(),
            "the build never started"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while probe() {
        assert!(Instant::now() < deadline, "the build outlived its parent");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn an_interrupt_ends_the_build_and_leaves_nothing() {
    let place = Place::with_script("echo started; sleep 986");
    place.run(&["store", "ls"]).success();
    let mut child = place
        .command(&["build", "thing"])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let sleeping = || {
        Command::new("pgrep")
            .args(["-fx", "sleep 986"])
            .output()
            .unwrap()
            .status
            .success()
    };
    let deadline = Instant::now() + Duration::from_secs(120);
    while !sleeping() {
        assert!(
            Instant::now() < deadline && child.try_wait().unwrap().is_none(),
            "the build never started"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    peer(Command::new("kill").args(["-INT", &child.id().to_string()]));
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.status, 130, "{}", ran.stderr);
    assert!(!sleeping(), "the build outlived the interrupt");
    let staged = layerize::fsio::sorted_names(&place.store().join("tmp")).unwrap();
    assert!(staged.is_empty(), "left behind: {staged:?}");
}

#[test]
fn two_processes_build_one_thing_once() {
    let place = Place::with_script(&format!("echo built >> /build/log; {SCRIPT}"));
    // What the build needs first, so that both reach the script at the same time.
    let children: Vec<_> = (0..2)
        .map(|i| {
            let output = format!("docker-archive:thing-{i}.tar");
            place
                .command(&["build", "--json", "-o", &output, "thing"])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let events: Vec<String> = children
        .into_iter()
        .map(|child| Ran::of(child.wait_with_output().unwrap()).success().stdout)
        .collect();
    let started = events.iter().flat_map(|events| events.lines());
    let started = started
        .filter(|line| line.contains("\"build-started\"") && line.contains("\"thing\""))
        .count();
    assert_eq!(started, 1, "{events:?}");
    peer(
        Command::new("cmp")
            .args(["thing-0.tar", "thing-1.tar"])
            .current_dir(&place.project),
    );
}

#[test]
fn a_full_disk_is_an_error_that_loses_nothing() {
    if !is_root() {
        #[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
        {
            eprintln!("SKIPPED: only root can mount the small file system of this test");
        }
        return;
    }
    let place = Place::with_script("mkdir $out; head -c 400000000 /dev/urandom > $out/big");
    let store = place.path().join("small");
    fs::create_dir(&store).unwrap();
    peer(
        Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=300M", "tmpfs"])
            .arg(&store),
    );
    let unmount = Unmount(store.clone());
    let store = store.to_str().unwrap();
    place
        .run(&["build", "--store", store, "thing"])
        .exits(2)
        .says(&["No space left on device"]);
    place.run(&["store", "verify", "--store", store]).success();
    place.write(
        "layerize.toml",
        &crate::support::script_spec("mkdir $out; echo small > $out/small"),
    );
    place.run(&["build", "--store", store, "thing"]).success();
    place.run(&["store", "verify", "--store", store]).success();
    drop(unmount);
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
