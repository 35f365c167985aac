//! Processes that are killed, and processes of ordinary users.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::*;
use crate::walls::Walls;

const STORE: &str = "LAYERIZE_TEST_STORE";
const TASK: &str = "LAYERIZE_TEST_TASK";

/// Runs [`child`] in a process of its own.
fn spawn(store: &Path, task: &str, user: Option<u32>) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", "store::tests::processes::child"])
        .env(STORE, store)
        .env(TASK, task)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(user) = user {
        command.uid(user).gid(user).current_dir("/");
    }
    command.spawn()
}

#[test]
#[ignore = "run by the other tests of this file"]
#[expect(clippy::disallowed_methods, reason = "how the other tests tell what to do")]
fn child() {
    let (store, task) = (std::env::var_os(STORE).unwrap(), std::env::var(TASK).unwrap());
    let store = Path::new(&store);
    match task.as_str() {
        // Bounded, should nobody come to kill it.
        "long" => (0..10_000).for_each(|round| work(store, round)),
        "ten times" => (0..10).for_each(|round| work(store, round)),
        "thrice" => (0..3).for_each(|round| work(store, round)),
        "optimise" => (0..10_000).for_each(|round| {
            work(store, round);
            Store::open(store).unwrap().optimise(&|| true).unwrap();
        }),
        "read" => {
            let store = Store::open(store).unwrap();
            let all = store.list().unwrap();
            assert_eq!(all.len(), 1);
            assert_eq!(store.info(&all[0].path).unwrap().as_ref(), Some(&all[0]));
            assert!(matches!(store.stage(), Err(StoreError::ReadOnly { .. })));
        }
        other => panic!("{other}"),
    }
}

/// Adds a library and a program that refers to it and to itself, and collects what the rounds before left.
fn work(dir: &Path, round: u64) {
    let store = Store::open(dir).unwrap();
    let add = |name: &str, candidates: &BTreeSet<StorePath>, text: &str| {
        let scratch = format!("0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-{name}").parse().unwrap();
        let staging = store.stage().unwrap();
        let tree = staging.path().join("out");
        sample(&tree);
        fs::write(tree.join("data"), format!("{round} {text} {scratch}")).unwrap();
        symlink(format!("/layerize/store/{scratch}"), tree.join("bin/self")).unwrap();
        let output = NewOutput {
            name,
            tree: &tree,
            candidates,
            declare: &|_| Vec::new(),
            derivation: None,
            policy: &crate::store::ANY_REFERENCE,
            walls: Walls::Namespaces,
            execution: crate::execution::Execution::Native,
        };
        match store.add_rewritten(&output, &scratch).unwrap() {
            Rewritten::Registered(info) => info.path,
            Rewritten::NamesItself { .. } => unreachable!("a text and a symlink can be rewritten"),
        }
    };
    let library = add("library", &BTreeSet::new(), "");
    let program = add("program", &BTreeSet::from([library.clone()]), &library.to_string());
    store
        .record_realisation(&Digest::of(&round.to_le_bytes()), "{}", &program)
        .unwrap();
    store.add_root("program", &program).unwrap();
    store.gc(&GcOptions::default()).unwrap();
}

#[test]
fn a_process_killed_at_any_moment_leaves_a_sound_store() {
    killed_at_any_moment("long", 12);
}

#[test]
fn a_process_killed_while_files_become_links_leaves_a_sound_store() {
    killed_at_any_moment("optimise", 12);
}

fn killed_at_any_moment(task: &str, rounds: u64) {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("s");
    let mut seen = 0;
    for round in 0..rounds {
        let mut child = spawn(&dir, task, None).unwrap();
        std::thread::sleep(Duration::from_millis(60 + 23 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let store = Store::open(&dir).unwrap();
        assert_eq!(store.verify(true).unwrap(), [], "round {round}");
        assert_eq!(
            crate::fsio::sorted_names(&dir.join("tmp")).unwrap(),
            Vec::<std::ffi::OsString>::new()
        );
        seen += store.list().unwrap().len();
    }
    assert!(seen > 0, "the child never came to register anything");
}

#[test]
fn processes_that_add_and_collect_at_once_do_not_hurt_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("s");
    let children: Vec<_> = (0..5).map(|_| spawn(&dir, "ten times", None)).collect();
    let mut optimising = spawn(&dir, "optimise", None).unwrap();
    children.into_iter().for_each(finish);
    optimising.kill().unwrap();
    optimising.wait().unwrap();
    let store = Store::open(&dir).unwrap();
    assert_eq!(store.verify(true).unwrap(), []);
    let names: Vec<String> = store
        .list()
        .unwrap()
        .iter()
        .map(|info| info.path.name().to_owned())
        .collect();
    assert!(names.iter().filter(|name| *name == "program").count() >= 1, "{names:?}");
}

/// Hands a directory to a user who is nobody.
fn ordinary_user() -> Option<(tempfile::TempDir, u32)> {
    const NOBODY: u32 = 65534;
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    if !nix::unistd::geteuid().is_root() {
        crate::testing::skip("only root can become an ordinary user");
        return None;
    }
    std::os::unix::fs::chown(dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    Some((dir, NOBODY))
}

fn finish(child: std::io::Result<Child>) {
    match child {
        Ok(child) => {
            let output = child.wait_with_output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && text.contains("1 passed"), "{text}");
        }
        // The test program lies where only root may go.
        Err(error) => crate::testing::skip(&format!("an ordinary user cannot run this program: {error}")),
    }
}

#[test]
fn an_ordinary_user_can_do_everything() {
    let Some((dir, user)) = ordinary_user() else { return };
    let dir = dir.path().join("s");
    finish(spawn(&dir, "thrice", Some(user)));
    if dir.exists() {
        let store = Store::open(&dir).unwrap();
        assert_eq!(store.verify(true).unwrap(), []);
        assert_eq!(store.list().unwrap().len(), 2);
    }
}

#[test]
fn an_ordinary_user_can_ask_roots_store() {
    let Some((dir, user)) = ordinary_user() else { return };
    let dir = dir.path().join("s");
    let store = Store::open(&dir).unwrap();
    let source = dir.join("cache/source");
    sample(&source);
    store.add_tree("x", &source).unwrap();
    // While root has it open and a log that is not empty, and after.
    finish(spawn(&dir, "read", Some(user)));
    drop(store);
    finish(spawn(&dir, "read", Some(user)));
}
