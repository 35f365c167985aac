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
    let names = layerize::fsio::sorted_names(&place.project).unwrap();
    let is_temporary = |name: &&std::ffi::OsString| name.to_string_lossy().starts_with(".layerize-");
    let leftovers: Vec<_> = names.iter().filter(is_temporary).collect();
    assert!(leftovers.is_empty(), "the next writer sweeps: {leftovers:?}");
}

/// What a killed writer left beside an archive, in a layout, beside a lock and in a binary cache goes with the next write
/// there, also where that finds everything in place; what a living writer holds stays.
#[test]
fn the_next_writer_sweeps_what_a_killed_one_left() {
    let place = Place::new();
    place.write(
        "layerize.toml",
        "[package.a]\nsource = \"a\"\n\n[image.a]\ncontents = [\"a\"]\n",
    );
    place.write("a/file", "text");
    let path = place
        .run(&["build", "a", "-o", "out/a.tar", "-o", "oci:layout:v1"])
        .exits(2);
    path.says(&["out"]);
    fs::create_dir(place.project.join("out")).unwrap();
    let left = |dir: &str| place.project.join(dir).join(".layerize-Ab3dEf");
    let commands: [(&[&str], &[&str]); 3] = [
        (&["build", "a", "-o", "out/a.tar"], &["out"]),
        (
            &["build", "a", "-o", "oci:layout:v1"],
            &["layout", "layout/blobs/sha256"],
        ),
        (&["sbom", "a", "-o", "out/a.json"], &["out"]),
    ];
    for (command, dirs) in commands {
        // The second time nothing is missing any more.
        for _ in 0..2 {
            for dir in dirs {
                fs::create_dir_all(place.project.join(dir)).unwrap();
                fs::write(left(dir), "half").unwrap();
            }
            place.run(command).success();
            for dir in dirs {
                assert!(!left(dir).exists(), "{command:?}: {dir}");
            }
        }
    }
    fs::write(left("out"), "half").unwrap();
    place.run(&["copy", "out/a.tar", "oci-archive:out/b.tar"]).success();
    assert!(!left("out").exists());
    let held = fs::File::create(left("out")).unwrap();
    held.lock().unwrap();
    place.run(&["sbom", "a", "-o", "out/a.json"]).success();
    assert!(left("out").exists(), "somebody writes it");
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
    let same = ["-r", "whole", "cache"];
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

/// A program of the machine, and a command that starts it.
struct Started {
    program: &'static str,
    /// Whether it ignores the signals that ask it to end.
    is_stubborn: bool,
    command: &'static [&'static str],
    said: &'static str,
}

/// Every program of the machine that is run ends with the command, with all that it started, and also where it does not
/// want to: an apt that went on would hold the lock of its state, and fill its cache for nobody.
#[test]
fn an_interrupt_ends_every_program_that_was_started() {
    let apt = Started {
        program: "apt-get",
        is_stubborn: false,
        command: &["lock"],
        said: "`apt-get` was interrupted",
    };
    let docker = Started {
        program: "docker",
        command: &["copy", "a.tar", "docker-daemon:a:b"],
        said: "`docker` was interrupted",
        ..apt
    };
    let rows = [
        Started {
            is_stubborn: true,
            ..apt
        },
        Started {
            command: &["inspect", "docker-daemon:a:b"],
            ..docker
        },
        Started {
            program: "docker-credential-own",
            command: &["inspect", "docker://127.0.0.1:9/a:b"],
            said: "docker-credential-own",
            ..apt
        },
        apt,
        docker,
    ];
    let place = Place::new();
    place.write(
        "layerize.toml",
        "[package.b]\nsource = \"b\"\n\n[image.b]\ncontents = [\"b\"]\n",
    );
    place.write("b/file", "x");
    place.run(&["build", "b", "-o", "docker-archive:a.tar"]).success();
    place.write(
        "layerize.toml",
        "[package.a]\ntools = [\"deb:mawk\"]\nscript = 'true'\n",
    );
    let config = place.path().join(".docker");
    fs::create_dir(&config).unwrap();
    fs::write(config.join("config.json"), r#"{"credsStore":"own"}"#).unwrap();
    for (index, row) in rows.iter().enumerate() {
        is_ended(&place, index, row);
    }
}

/// Interrupts a command when a program of ours stands in for the machine's, and looks for what is left.
fn is_ended(place: &Place, index: usize, row: &Started) {
    let program = row.program;
    let mark = format!("sleep 95{index}7");
    let trap = if row.is_stubborn { "trap '' TERM INT; " } else { "" };
    place.write(
        &format!("bin-{index}/{program}"),
        &format!("#!/bin/sh\n{trap}{mark} & wait; {mark}; exit 1\n"),
    );
    let bin = place.project.join(format!("bin-{index}"));
    peer(Command::new("chmod").arg("+x").arg(bin.join(program)));
    let mut run = place.command(row.command);
    run.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()));
    run.env("XDG_CACHE_HOME", place.path().join("cache"));
    let child = run.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let is_running = || {
        let found = Command::new("pgrep").args(["-fx", &mark]).output();
        found.unwrap().status.success()
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    while !is_running() {
        assert!(Instant::now() < deadline, "{program} was never started");
        std::thread::sleep(Duration::from_millis(20));
    }
    let interrupted = Instant::now();
    peer(Command::new("kill").args(["-INT", &child.id().to_string()]));
    let ran = Ran::of(child.wait_with_output().unwrap());
    let took = interrupted.elapsed();
    assert_eq!(ran.status, 130, "{program}: {}", ran.stderr);
    assert!(took < Duration::from_millis(2000), "{program}: {took:?}");
    assert!(ran.stderr.contains(row.said), "{program}: {}", ran.stderr);
    // It was killed, which takes the kernel a moment.
    let deadline = Instant::now() + Duration::from_secs(2);
    while is_running() {
        assert!(Instant::now() < deadline, "{program} outlived the interrupt");
        std::thread::sleep(Duration::from_millis(20));
    }
}
