//! The walls of a build: nothing of the machine that is bound into a sandbox can be changed from inside, whoever builds.
//! The whole file is run twice, as root and as an ordinary user.
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod machine;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use layerize::build::sandbox::{Bind, Outcome};
use machine::{Sandboxed, output};

#[test]
fn an_ordinary_user_has_the_same_walls() {
    machine::run_again_as_an_ordinary_user("an_ordinary_user_has_the_same_walls");
}

/// The device nodes that a build sees, all of them the machine's own.
const DEVICES: [&str; 6] = ["full", "null", "random", "tty", "urandom", "zero"];

/// What of a node of the machine a build could have changed; times change by use.
fn state(path: &Path) -> (u32, u32, u32, u64) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.mode(), metadata.uid(), metadata.gid(), metadata.rdev())
}

#[test]
fn no_mount_and_no_device_of_the_machine_can_be_changed() {
    let mut fixture = Sandboxed::new("probe change");
    // An input of the build, and a file of the machine's that its builder owns.
    fs::create_dir_all(fixture.path("input/sub")).unwrap();
    fs::write(fixture.path("file"), "content").unwrap();
    for (source, target) in [("input", "in"), ("file", "file")] {
        match source {
            "input" => fs::create_dir(fixture.path("store/in")).unwrap(),
            _ => fs::write(fixture.path("store/file"), "").unwrap(),
        }
        fixture.sandbox.binds.push(Bind {
            source: fixture.path(source),
            target: Path::new("/layerize/store").join(target),
            writable: false,
        });
    }
    let before = DEVICES.map(|name| state(&Path::new("/dev").join(name)));
    let (outcome, text) = fixture.run();
    assert_eq!(outcome.unwrap(), Outcome::Exited(0), "{text}");
    // The build's own memory and pseudo terminals.
    let is_own = |line: &str| line.ends_with(" /dev/shm") || line.contains(" /dev/pts");
    let mut changed: Vec<&str> = text.lines().filter(|line| !is_own(line)).collect();
    changed.sort_unstable();
    // The build's own directories; nothing has extended attributes.
    let own = ["/build", "/layerize/store", "/tmp"];
    let expected: Vec<String> = ["entry", "mode", "owner", "time"]
        .iter()
        .flat_map(|what| own.map(|path| format!("{what} {path}")))
        .collect();
    assert_eq!(changed, expected);
    let after = DEVICES.map(|name| state(&Path::new("/dev").join(name)));
    assert_eq!(before, after);
}

#[test]
fn devices_are_used_all_the_same() {
    let script = "echo x >/dev/null; echo x >/dev/zero; head -c 4 /dev/zero | tr '\\0' z; echo; \
                  head -c 4 /dev/urandom >/tmp/r; stat -c %s /tmp/r; (echo x >/dev/full) 2>&1 | sed 's/.*: //'";
    assert_eq!(output(script), "zzzz\n4\nNo space left on device\n");
}

#[test]
fn nothing_of_the_machine_in_proc_can_be_opened_for_writing() {
    assert_eq!(output("probe change-proc"), "");
}
