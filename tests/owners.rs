//! What maintainer scripts are told of owners, modes and capabilities, and what is left of it beside their files; with the
//! machine's own shell and core utilities as the root.
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod machine;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use layerize::sandbox::{Isolation, OWNER_ATTRIBUTE, Outcome};
use machine::Sandboxed;

/// Runs a script as the administrator of a root that can be written to; gives what it printed.
fn configured(script: &str) -> (Sandboxed, String) {
    let mut fixture = Sandboxed::new(script);
    let upper = fixture.path("upper");
    fs::create_dir(&upper).unwrap();
    fixture.sandbox.isolation = Isolation::Configure;
    fixture.sandbox.upper = Some(upper);
    fixture.sandbox.ids = (0, 0);
    fixture.sandbox.cwd = "/".into();
    let (outcome, text) = fixture.run();
    assert_eq!(outcome.unwrap(), Outcome::Exited(0), "{text}");
    (fixture, text)
}

fn owner(path: &Path) -> Option<String> {
    let mut value = [0; 32];
    let size = rustix::fs::getxattr(path, OWNER_ATTRIBUTE, &mut value[..]).ok()?;
    Some(String::from_utf8_lossy(&value[..size]).into_owned())
}

#[test]
fn an_owner_is_told_as_it_was_said_and_goes_where_the_file_goes() {
    let (fixture, text) = configured(
        "cd /etc; id -u; echo x > a; chown 33:42 a; mv a b; cp -p b c; ln b d; chgrp 7 c; mkdir e; chown 5 e; \
         stat -c '%n %u:%g' b c d e; chown 0:0 e; stat -c '%n %u:%g' e",
    );
    // What an administrator with all IDs is told (chown(2), cp(1), link(2)).
    assert_eq!(text, "0\nb 33:42\nc 33:7\nd 33:42\ne 5:0\ne 0:0\n");
    for (name, expected) in [("b", "33:42"), ("c", "33:7"), ("d", "33:42"), ("e", "0:0")] {
        assert_eq!(
            owner(&fixture.path("upper/etc").join(name)).as_deref(),
            Some(expected),
            "{name}"
        );
    }
}

#[test]
fn a_change_of_owner_drops_the_bits_that_the_kernel_drops() {
    let (fixture, text) = configured(
        "cd /etc; echo x > a; chmod 6755 a; stat -c %a a; chown 1:1 a; stat -c %a a; chmod 4711 a; mkdir d; chmod 2755 d; \
         chown 1:1 d; stat -c %a d",
    );
    assert_eq!(text, "6755\n755\n2755\n");
    let mode = fs::metadata(fixture.path("upper/etc/a")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o4711);
}

#[test]
fn whoever_a_script_becomes_it_stays_the_administrator() {
    let (_, text) = configured(
        "echo x > /etc/a; chown 33 /etc/a; chmod 0 /etc/a; cat /etc/a; ln -s a /etc/l; chown -h 33 /etc/l; \
         stat -c %u /etc/l; chown 1 /missing 2>&1 | sed 's/.*: //'; sync",
    );
    assert_eq!(text, "x\n0\nNo such file or directory\n");
}

/// `postgresql-common` gives its directory to `postgres` unless that user, asked as itself, owns it.
#[test]
fn a_script_that_becomes_another_is_told_who_it_is() {
    let (fixture, text) = configured(
        "cd /etc; mkdir own other; chown 33:42 own; \
         setpriv --reuid 33 --regid 42 --clear-groups sh -c 'id; [ -O own ] && [ -G own ] && echo own; [ -O other ] || echo other; \
         setpriv --reuid 0 true 2>/dev/null || echo stays'; id -u; touch other/a; stat -c %u other/a",
    );
    assert_eq!(text, "uid=33 gid=42 groups=42\nown\nother\nstays\n0\n0\n");
    assert_eq!(owner(&fixture.path("upper/etc/other")), None);
}

#[test]
fn an_ordinary_user_is_told_the_same() {
    machine::run_again_as_an_ordinary_user("an_ordinary_user_is_told_the_same");
}
