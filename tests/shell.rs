//! Shells in a build's surroundings, and programs of the store on the machine's root.
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod machine;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use layerize::build::{ShellOptions, ShellPart, ShellUser, StoreProgram, Task, realise, run_in_store, shell};
use layerize::derive::{BuildPlan, Input};
use machine::{Fixture, logical};

/// A project directory outside `/tmp`, and what a shell in it writes to `seen`.
struct Project {
    fixture: Fixture,
    dir: PathBuf,
    home: PathBuf,
}

impl Project {
    fn new() -> Self {
        let fixture = Fixture::new();
        let [dir, home] = ["project", "home"].map(|name| fixture.dir.path().join(name));
        for path in [&dir, &home] {
            fs::create_dir(path).unwrap();
        }
        fs::write(home.join("mine"), "").unwrap();
        Self { fixture, dir, home }
    }

    fn options(&self, pure: bool, command: &str) -> ShellOptions {
        ShellOptions {
            task: Task::Program(["sh", "-euc", command].map(str::to_owned).to_vec()),
            pure,
            projects: vec![self.dir.clone()],
            cwd: self.dir.clone(),
            user: ShellUser {
                name: "me".to_owned(),
                home: self.home.clone(),
                shell: None,
            },
            caller: BTreeMap::from([("TERM".to_owned(), "xterm".to_owned())]),
            links: None,
            helper: self.fixture.options.helper.clone(),
        }
    }

    fn run(&self, pure: bool, command: &str) -> (i32, String) {
        let script = self.fixture.script("");
        let all: Vec<Input> = script.inputs().into_iter().cloned().collect();
        let options = &self.fixture.options;
        let paths = realise(
            &self.fixture.store,
            &BuildPlan::default(),
            &all,
            options,
            &self.fixture.recorder,
        )
        .unwrap();
        let part = ShellPart {
            name: "thing".to_owned(),
            script,
            own: Vec::new(),
            debs: BTreeMap::new(),
            paths,
            activate: None,
        };
        let status = shell(&self.fixture.store, &[part], &self.options(pure, command)).unwrap();
        (status, fs::read_to_string(self.dir.join("seen")).unwrap_or_default())
    }
}

#[test]
fn a_shell_is_the_user_in_the_builds_root() {
    let project = Project::new();
    let (status, seen) = project.run(
        false,
        "{ id -un; pwd; ls $HOME; echo $TERM $TZ; ls -d /usr/include 2>&1 || true; } >seen; exit 3",
    );
    assert_eq!(status, 3);
    let expected = format!(
        "me\n{}\nmine\nxterm UTC\nls: cannot access '/usr/include': No such file or directory\n",
        project.dir.display()
    );
    assert_eq!(seen, expected);
}

#[test]
fn a_pure_shell_has_no_home() {
    let project = Project::new();
    // The project may itself be below the machine's /tmp: what else is there must not be seen.
    let outside = tempfile::NamedTempFile::new_in("/tmp").unwrap();
    let name = outside.path().display();
    let command = format!("{{ echo $HOME; test -e {name} || echo hidden; echo x >/tmp/x; touch /build/y; }} >seen");
    let (status, seen) = project.run(true, &command);
    assert_eq!((status, seen.as_str()), (0, "/homeless-shelter\nhidden\n"));
    assert!(!project.dir.parent().unwrap().join("x").exists());
}

#[test]
fn a_shell_cannot_write_to_store_or_root() {
    let project = Project::new();
    let (_, seen) = project.run(
        false,
        "for d in / /usr/bin /layerize/store; do touch $d/x 2>&1 || true; done >seen",
    );
    assert_eq!(seen.matches("Read-only file system").count(), 3, "{seen}");
}

#[test]
fn a_program_of_the_store_runs_on_the_machines_root() {
    let project = Project::new();
    let fixture = &project.fixture;
    let script = "mkdir -p $out/bin; printf '#!/bin/sh\\ncat \"$0\" >seen; echo $GREETING >>seen; id -u >>seen; exit 4\\n' >$out/bin/x; chmod +x $out/bin/x";
    let path = fixture.build(fixture.script(script)).unwrap();
    let program = format!("{}/bin/x", logical(&path));
    let env = BTreeMap::from([
        ("GREETING".to_owned(), "hi".to_owned()),
        ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
    ]);
    let helper = fixture.options.helper.clone();
    let started = StoreProgram {
        argv: vec![program.clone()],
        env,
        cwd: project.dir.clone(),
        emulator: None,
        helper,
    };
    let status = run_in_store(&fixture.store, started.clone()).unwrap();
    assert_eq!(status, 4);
    let seen = fs::read_to_string(project.dir.join("seen")).unwrap();
    assert!(seen.ends_with(&format!("\nhi\n{}\n", nix::unistd::geteuid())), "{seen}");
    let missing = format!("{program}-missing");
    let started = StoreProgram {
        argv: vec![missing.clone()],
        env: BTreeMap::new(),
        cwd: "/".into(),
        ..started
    };
    let error = run_in_store(&fixture.store, started).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot run `{missing}`"));
}
