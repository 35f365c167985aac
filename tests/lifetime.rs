//! How a build ends before its time: killed with its parent, cancelled; nothing may be left of it.
//!
//! What is killed or cancelled as a whole is this test program itself, started anew as a child.
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]
#![allow(clippy::disallowed_methods, reason = "the child is told its part by variables")]

mod machine;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use layerize::build::BuildError;
use layerize::sandbox::cancel;
use layerize::store::Store;
use machine::{Fixture, STORE};

/// Names the child's part and what marks its processes.
const MARKER: &str = "LAYERIZE_TEST_MARKER";
const CANCEL: &str = "LAYERIZE_TEST_CANCEL";
const PARENT: &str = "LAYERIZE_TEST_PARENT";

/// The child: builds what never ends, below the directory that it is told of.
#[test]
fn child() {
    let Ok(marker) = std::env::var(MARKER) else { return };
    let fixture = Fixture::below(Path::new(&std::env::var(PARENT).unwrap()));
    let cancelling = std::env::var(CANCEL).is_ok();
    std::thread::scope(|scope| {
        if cancelling {
            scope.spawn(|| {
                wait_until("it runs", || processes_with(&marker).len() >= 2);
                cancel();
            });
        }
        let script = format!("trap '' TERM INT HUP; setsid sleep {marker} & mkdir $out; sleep {marker}");
        let error = fixture.build(fixture.script(&script)).unwrap_err();
        assert!(matches!(error, BuildError::Cancelled), "{error:?}");
    });
}

fn start_child(marker: &str, parent: &Path, cancelling: bool) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child"])
        .env(MARKER, marker)
        .env(PARENT, parent);
    if cancelling {
        command.env(CANCEL, "1");
    }
    command.stdout(Stdio::null()).spawn().unwrap()
}

/// Processes of this machine whose arguments hold `marker`.
fn processes_with(marker: &str) -> Vec<u32> {
    let names = layerize::fsio::sorted_names(Path::new("/proc")).unwrap();
    let pids = names.iter().filter_map(|name| name.to_str()?.parse::<u32>().ok());
    let arguments = |pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let holds = |bytes: &[u8]| bytes.windows(marker.len()).any(|window| window == marker.as_bytes());
    pids.filter(|pid| holds(&arguments(pid))).collect()
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(30), "not within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn staged(store: &Path) -> Vec<String> {
    let names = layerize::fsio::sorted_names(&store.join("tmp")).unwrap();
    let texts = names.iter().map(|name| name.to_string_lossy().into_owned());
    texts.filter(|name| !name.ends_with(".lock")).collect()
}

#[test]
fn nothing_is_left_after_kill() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let marker = format!("88{}.25", std::process::id());
    let mut child = start_child(&marker, dir.path(), false);
    wait_until("it runs", || processes_with(&marker).len() >= 2);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("all have ended", || processes_with(&marker).is_empty());
    let made = layerize::fsio::sorted_names(dir.path()).unwrap();
    let store = dir.path().join(&made[0]).join(STORE);
    let left = staged(&store);
    assert_eq!(left.len(), 1);
    // It was closed to other users all the time.
    let mode = fs::metadata(store.join("tmp").join(&left[0]))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    // The next run sweeps up.
    let opened = Store::open(&store).unwrap();
    assert_eq!(staged(&store), Vec::<String>::new());
    assert_eq!(opened.list().unwrap().len(), 1);
    drop(opened);
    layerize::fsio::remove_tree(dir.path()).unwrap();
}

#[test]
fn a_cancelled_build_ends_with_all_its_processes() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let marker = format!("89{}.25", std::process::id());
    let mut child = start_child(&marker, dir.path(), true);
    assert!(child.wait().unwrap().success());
    assert_eq!(processes_with(&marker), Vec::<u32>::new());
    // It ended as usual and has cleaned up.
    assert!(layerize::fsio::sorted_names(dir.path()).unwrap().is_empty());
}
