//! Builders that fail on the way: what can go on goes on, what cannot is an error that says so, and nothing is left of it.

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tonic::{Code, Status};

use crate::builders::{build, is_clean, renew, small, walls};
use crate::farm::{Answer, Farm, Job, Rules};
use crate::support::{Place, Ran};

/// Bytes of files that do not travel in one message.
const LARGE: usize = 5_000_000;

/// A result with this file in its output.
fn large(job: &Job, name: &str, bytes: &[u8]) -> Answer {
    let file = api::FileNode {
        name: name.to_owned(),
        digest: Some(job.state.put(bytes)),
        ..api::FileNode::default()
    };
    let root = api::Directory {
        files: vec![file],
        ..api::Directory::default()
    };
    Answer::Result(Box::new(job.tree(root, Vec::new())))
}

/// Starts a build at a farm.
fn start(place: &Place, farm: &Farm, flags: &[&str]) -> Child {
    let address = farm.address();
    let args = [&["build", "thing", "--builder", &address], flags].concat();
    let mut command = place.command(&args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn end(child: Child) -> Ran {
    Ran::of(child.wait_with_output().unwrap())
}

/// Text that does not compress and is not twice the same.
fn noise(length: usize) -> String {
    let mut state = 1_u64;
    let digits = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        char::from(b'a' + (state >> 60) as u8)
    });
    digits.take(length).collect()
}

#[test]
fn what_passes_is_asked_for_again() {
    // Each of these happens once.
    let once = |call: &'static str, status: fn() -> Status| Rules {
        faults: Box::new(move |name, before| (name == call && before == 0).then(status)),
        ..Rules::answering(Job::made)
    };
    let busy = || Status::unavailable("busy");
    let place = small();
    for (number, (call, asked)) in [
        ("capabilities", "capabilities"),
        ("find missing", "find missing"),
        ("update", "update"),
        ("execute", "execute"),
        ("read", "read"),
        // The stream of the operation breaks off after it began: it is followed where it was.
        ("follow", "wait"),
    ]
    .into_iter()
    .enumerate()
    {
        let farm = Farm::start(once(call, busy));
        renew(&place, number);
        let ran = build(&place, &farm, &[]).success();
        assert!(!ran.stderr.contains("warning"), "{call}: {}", ran.stderr);
        let least = if asked == "wait" { 1 } else { 2 };
        assert!(farm.state.counted(asked) >= least, "{call}");
        if asked == "wait" {
            assert_eq!(farm.state.counted("execute"), 1);
        }
    }
    // A worker whose lease was lost, or that found too much to do.
    for (number, code) in [
        Code::Unavailable,
        Code::Aborted,
        Code::Internal,
        Code::ResourceExhausted,
    ]
    .into_iter()
    .enumerate()
    {
        let farm = Farm::start(Rules::answering(move |job: &Job| match job.number {
            0 => Answer::status(code, "the lease was lost"),
            _ => job.made(),
        }));
        renew(&place, 10 + number);
        build(&place, &farm, &[]).success();
        assert_eq!(farm.state.counted("execute"), 2, "{code:?}");
    }
}

#[test]
fn what_does_not_pass_is_said_and_built_here_where_that_is_wanted() {
    let refusing = |call: &'static str, status: fn() -> Status| {
        Farm::start(Rules {
            faults: Box::new(move |name, _| (name == call).then(status)),
            ..Rules::answering(Job::made)
        })
    };
    let place = small();
    for (number, (farm, said)) in [
        (refusing("execute", || Status::permission_denied("not you")), "not you"),
        (
            refusing("update", || Status::permission_denied("read only")),
            "read only",
        ),
        (
            refusing("capabilities", || Status::unimplemented("a web server")),
            "a web server",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        renew(&place, number);
        build(&place, &farm, &[]).exits(2).says(&[said, "help: "]);
        let ran = build(&place, &farm, &["--builder-fallback"]).success();
        assert!(
            ran.stderr.contains("warning: `thing` is built here instead"),
            "{}",
            ran.stderr
        );
        assert!(ran.stderr.contains(said), "{}", ran.stderr);
        assert!(["namespaces", "chroot"].contains(&walls(&place, "-thing").as_str()));
    }
}

#[test]
fn blobs_that_a_builder_loses_are_sent_again() {
    // While it runs a step.
    let farm = Farm::start(Rules::answering(|job: &Job| match job.number {
        0 => {
            let root = job.action().input_root_digest.unwrap();
            job.state.lose(&root);
            Answer::missing(&root)
        }
        _ => job.made(),
    }));
    let place = small();
    build(&place, &farm, &[]).success();
    assert_eq!(farm.state.counted("execute"), 2);

    // Of what it remembers: the step runs again.
    let other = place.elsewhere();
    other.lock_base();
    farm.state.lose(&farm.state.put(b"made\n"));
    build(&other, &farm, &[]).success();
    assert_eq!(farm.state.counted("execute"), 3);
    assert_eq!(farm.state.counted("skips cache"), 1);

    // For good.
    let farm = Farm::start(Rules::answering(|job: &Job| Answer::missing(&job.digest)));
    let place = small();
    build(&place, &farm, &[])
        .exits(2)
        .says(&["has lost files that it was sent", "more room"]);
    is_clean(&place, "inputs that are lost");
    let farm = Farm::start(Rules::answering(|job: &Job| {
        let made = job.made();
        job.state.lose(&job.state.put(b"made\n"));
        made
    }));
    build(&place, &farm, &[])
        .exits(2)
        .says(&["has lost a file that it says was made", "more room"]);
    is_clean(&place, "outputs that are lost");
}

#[test]
fn a_large_file_goes_on_where_the_connection_broke() {
    let text = noise(LARGE);
    let place = small();
    place.write(
        "layerize.toml",
        "[package.thing]\nsource = \"big\"\nscript = \"mkdir $out\"\n\n[image.thing]\ncontents = [\"thing\"]\n",
    );
    place.write("big", &text);
    let output = text.clone().into_bytes();
    let farm = Farm::start(Rules {
        upload_breaks_at: Some(2_000_000),
        read_breaks_at: Some(2_000_000),
        pretends: false,
        ..Rules::answering(move |job: &Job| large(job, "large", &output))
    });
    build(&place, &farm, &[]).success();
    assert!(farm.state.counted("query write") >= 1);
    for offset in ["read at 0", "read at 2000000", "read at 4000000"] {
        assert_eq!(farm.state.counted(offset), 1, "{offset}");
    }
    // What had come was not sent again: all that was sent is what it has, and what was on its way when it broke.
    let kept = farm.state.kept_bytes();
    let sent = farm.state.counted("bytes sent");
    assert!(sent <= kept + 300_000, "{sent} bytes were sent, {kept} are there");
}

#[test]
fn a_large_file_that_ends_early_is_not_taken() {
    let text = noise(LARGE).into_bytes();
    let hash = layerize::digest::Digest::of(&text).hex();
    let cut = text[..3_000_000].to_vec();
    let farm = Farm::start(Rules {
        forged: [(hash, cut)].into(),
        ..Rules::answering(move |job: &Job| large(job, "large", &text))
    });
    let place = small();
    build(&place, &farm, &[]).exits(2).says(&["the file ended early"]);
    is_clean(&place, "a short file");
}

#[test]
fn a_builder_that_dies_in_the_middle_is_an_error_or_this_machines_work() {
    let mut farm = Farm::start(Rules::answering(|_| Answer::Never));
    let place = small();
    let child = start(&place, &farm, &[]);
    farm.state.wait_for("never", 1);
    farm.kill();
    let begun = Instant::now();
    end(child)
        .exits(2)
        .says(&["does not answer (running a step)", "--builder-fallback"]);
    assert!(begun.elapsed() < Duration::from_secs(30));
    is_clean(&place, "a builder that died");
    place.run(&["store", "verify"]).success();

    farm.revive();
    let child = start(&place, &farm, &["--builder-fallback"]);
    farm.state.wait_for("never", 2);
    farm.kill();
    let ran = end(child).success();
    assert!(
        ran.stderr.contains("warning: `thing` is built here instead"),
        "{}",
        ran.stderr
    );
    assert_ne!(walls(&place, "-thing"), "builder");
    place.run(&["store", "verify"]).success();
}

#[test]
fn a_builder_that_is_started_again_goes_on() {
    let mut farm = Farm::start(Rules::answering(|job: &Job| match job.number {
        0 => Answer::Never,
        _ => job.made(),
    }));
    let place = small();
    let child = start(&place, &farm, &[]);
    farm.state.wait_for("never", 1);
    farm.revive();
    end(child).success();
    assert_eq!(farm.state.counted("execute"), 2);
}

#[test]
fn an_interrupt_cancels_what_runs_there() {
    let farm = Farm::start(Rules::answering(|_| Answer::Never));
    let place = small();
    let child = start(&place, &farm, &[]);
    farm.state.wait_for("never", 1);
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    let begun = Instant::now();
    let ran = end(child);
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_ne!(ran.status, 0);
    farm.state.wait_for("cancel operations/0", 1);
    is_clean(&place, "an interrupt");
}

/// The most memory that a process had, in bytes, while it is there.
fn peak(child: &Child) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes << 10)
}

#[test]
fn two_hundred_steps_are_under_way_in_little_memory() {
    const STEPS: usize = 200;
    const MOST: u64 = 200_000_000;
    let place = small();
    let mut spec = String::new();
    let names: Vec<String> = (0..STEPS).map(|number| format!("p{number}")).collect();
    for name in &names {
        spec.push_str(&format!(
            "[package.{name}]\nscript = \"mkdir $out; echo {name} >$out/{name}\"\n\n"
        ));
    }
    spec.push_str(&format!("[image.thing]\ncontents = {names:?}\n"));
    place.write("layerize.toml", &spec);
    let farm = Farm::start(Rules::answering(|job: &Job| {
        // None ends before all are there.
        job.state.count("running", 1);
        job.state.wait_for("running", STEPS);
        large(job, job.out().rsplit('-').next().unwrap(), b"")
    }));
    let mut child = start(&place, &farm, &[]);
    let drain = |pipe: Box<dyn std::io::Read + Send>| {
        let mut pipe = pipe;
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = pipe.read_to_string(&mut text);
            text
        })
    };
    let stderr = drain(Box::new(child.stderr.take().unwrap()));
    let stdout = drain(Box::new(child.stdout.take().unwrap()));
    let mut most = 0;
    let status = loop {
        most = most.max(peak(&child).unwrap_or_default());
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let (stderr, _) = (stderr.join().unwrap(), stdout.join().unwrap());
    assert!(status.success(), "{stderr}");
    assert_eq!(farm.state.counted("running"), STEPS);
    assert!(most > 0 && most < MOST, "{most} bytes of memory");
    place.run(&["store", "verify"]).success();
}
