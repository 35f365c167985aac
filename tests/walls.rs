//! The walls of a build: nothing of the machine that is bound into a sandbox can be changed from inside, whoever builds.
//! The whole file is run twice, as root and as an ordinary user.
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod machine;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use layerize::sandbox::Outcome;
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
    // Inputs of the build, of which its builder is the owner outside.
    fs::create_dir_all(fixture.path("inputs/in/sub")).unwrap();
    fs::write(fixture.path("inputs/file"), "content").unwrap();
    fixture.bind_input("in");
    fixture.bind_input("file");
    let before = DEVICES.map(|name| state(&Path::new("/dev").join(name)));
    let (outcome, text) = fixture.run();
    assert_eq!(outcome.unwrap(), Outcome::Exited(0), "{text}");
    // The build's own memory and pseudo terminals, and the top of its own /proc.
    let is_own = |line: &str| line.contains(" /dev/pts") || line.ends_with(" /dev/shm") || line.ends_with(" /proc");
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
fn nothing_of_the_machine_in_proc_can_be_changed() {
    let text = output("probe change-proc");
    // Root's builder owns these links, and can make itself the owner again: a link has no mode, and there is nobody
    // else inside.
    let is_link = |line: &&str| {
        ["net", "mounts", "self", "thread-self"]
            .iter()
            .any(|link| line.ends_with(&format!(" /proc/{link}")))
    };
    let changed: Vec<&str> = text.lines().filter(|line| !is_link(line)).collect();
    assert_eq!(changed, Vec::<&str>::new());
    assert!(!text.contains("mode"), "{text}");
}

#[test]
fn no_address_family_leads_out_of_the_sandbox() {
    // AF_UNIX, AF_INET, AF_INET6: the last two reach the loopback interface of a network namespace of the build's own.
    assert_eq!(output("probe families"), "1 2 10 \n");
}

#[test]
fn calls_that_reach_around_the_walls_do_not_exist() {
    let x32 = if cfg!(target_arch = "x86_64") {
        "second ENOSYS, "
    } else {
        ""
    };
    assert_eq!(
        output("probe unknown"),
        format!("add_key ENOSYS, keyctl ENOSYS, request_key ENOSYS, io_uring ENOSYS, statx ENOSYS, {x32}stat ok\n")
    );
}

#[test]
fn keys_of_the_user_are_not_seen() {
    let text = output("for file in keys key-users; do (cat /proc/$file) 2>&1 || true; done");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines.iter().all(|line| line.ends_with(": Permission denied")), "{text}");
}

#[test]
fn a_user_namespace_works_and_changes_no_wall() {
    let may = fs::read_to_string("/proc/sys/user/max_user_namespaces").unwrap();
    assert_ne!(may.trim(), "0", "then there would be not a sandbox either");
    assert_eq!(
        output("probe nested"),
        "user ok, map ok, uid 0, mounts ok, tmpfs ok; device EPERM, uncover EINVAL, root EPERM, cgroups ENOSPC, \
         mount cgroups EPERM, proc ok\nfresh proc EPERM\n"
    );
}

#[test]
fn nothing_tells_where_on_the_machine_the_build_is() {
    let mut fixture = Sandboxed::new(
        "cat /proc/1/cmdline /proc/1/comm /proc/1/stat /proc/$$/cmdline | tr '\\0' '\\n'; \
         cat /proc/*/mountinfo /proc/mounts /proc/self/mountstats; \
         for link in /proc/1/exe /proc/1/cwd /proc/1/root; do readlink $link || true; done; \
         (cat /proc/1/environ /proc/1/maps) 2>&1 || true",
    );
    fs::create_dir(fixture.path("inputs/in")).unwrap();
    fs::write(fixture.path("inputs/file"), "content").unwrap();
    fixture.bind_input("in");
    fixture.bind_input("file");
    let (outcome, text) = fixture.run();
    assert_eq!(outcome.unwrap(), Outcome::Exited(0), "{text}");
    assert!(
        text.starts_with("layerize\n__sandbox\nlayerize\n1 (layerize) "),
        "{text}"
    );
    let own = fixture.path("");
    let random = own.file_name().unwrap().to_str().unwrap().to_owned();
    let machine = [machine::machine_root(), machine::program()].map(|path| path.display().to_string());
    for place in [&random, &machine[0], &machine[1]] {
        assert_eq!(text.lines().find(|line| line.contains(place)), None, "{place}");
    }
}
