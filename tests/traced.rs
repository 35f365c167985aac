//! The walls of a build where there are neither namespaces nor another root to be had: what it sees is what it sees in
//! namespaces, and what it was not given is not there. The whole file is run twice, as root and as an ordinary user.
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod machine;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use layerize::sandbox::{Isolation, Outcome};
use machine::{Sandboxed, helpers, marker, processes_with, wait_until};

#[test]
fn an_ordinary_user_has_the_same_walls() {
    machine::run_again_as_an_ordinary_user("an_ordinary_user_has_the_same_walls");
}

fn traced(script: &str) -> Sandboxed {
    let mut fixture = Sandboxed::new(script);
    fixture.sandbox.isolation = Isolation::Traced;
    fixture
}

/// What a script that must end well prints.
#[track_caller]
fn output(script: &str) -> String {
    let (outcome, text) = traced(script).run();
    assert_eq!(outcome.unwrap(), Outcome::Exited(0), "{text}");
    text
}

#[test]
fn a_script_sees_what_it_sees_in_namespaces() {
    let script = "id -u; id -g; id -G; uname -n; umask; ulimit -c; ulimit -n; ulimit -s; env; ls / /build /layerize; pwd; \
                  stat -c '%a %u %g %F' / /build /tmp /dev/null /bin; stat -c '%a %F' /usr/bin/bash; cat /proc/self/comm; \
                  readlink /proc/self/exe /proc/self/cwd /bin; cd /tmp; pwd; cd ..; pwd; ls -ld /../../usr >/dev/null; \
                  printf '#!/bin/bash -e\\necho $0 $@; cat /proc/$$/comm' >/build/script; chmod 755 /build/script; \
                  /build/script a b; cd /build; ./script; ../build/script; bash script; \
                  printf '#!/build/script x\\n' >/build/nested; chmod 755 /build/nested; /build/nested y; \
                  (exec -a other bash -c 'echo $0'); echo text >plain; chmod 755 plain; (./plain) 2>&1 || true";
    let text = output(script);
    let walled = machine::output(script);
    assert_eq!(text, walled);
}

#[test]
fn links_lead_within_the_root() {
    let script = "mkdir -p /tmp/a/b; echo x >/tmp/a/b/f; ln -s /tmp/a /build/absolute; ln -s ../../../../tmp/a /build/up; \
                  cat /build/absolute/b/f /build/up/b/f; cd /build/absolute; cat b/../b/f; cat ../a/b/f; \
                  ln -s missing /build/dangling; echo y >/build/dangling; cat /build/missing; \
                  ln -s loop /build/loop; (cat /build/loop) 2>&1 || true; (cat /tmp/a/b/f/) 2>&1 || true; \
                  for p in /root /home /work ../../../../../../../../etc/passwd /proc/1/root/etc /proc/self/root/home; do \
                  ls -d $p 2>/dev/null && echo \"$p is there\"; done; ls -d /proc/self/root/usr /proc/self/cwd/b";
    assert_eq!(
        output(script),
        "x\nx\nx\nx\ny\ncat: /build/loop: Too many levels of symbolic links\ncat: /tmp/a/b/f/: Not a directory\n\
         /proc/self/cwd/b\n/proc/self/root/usr\n"
    );
}

#[test]
fn nothing_of_the_machine_is_read() {
    let fixture = traced("");
    // A file that any user of the machine may read.
    fs::set_permissions(fixture.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let secret = fixture.path("secret");
    fs::write(&secret, "secret\n").unwrap();
    let path = secret.display().to_string();
    let script = format!(
        "set +e; cat {path}; cat ../../../../../../../..{path}; cat /proc/self/root{path}; ln -s {path} l; cat l; cd {path}/..; \
         bash {path}; {path}; cat </proc/$$/cwd/../../../..{path}; cp {path} /build/x; exec 3<{path}; find / -name secret; \
         cat /proc/1/environ /proc/{}/environ /proc/mounts /proc/kcore /proc/sys/kernel/hostname /dev/sda; pwd",
        std::process::id()
    );
    let text = output(&format!("({script}) 2>/dev/null"));
    assert_eq!(text, "/build\n");
}

#[test]
fn what_is_told_of_places_is_told_as_the_build_sees_them() {
    let fixture = traced(
        "cat /proc/self/maps; readlink /proc/self/exe /proc/$$/cwd; bash -c 'pwd -P'; cat /proc/$$/cmdline | tr '\\0' '\\n'",
    );
    let own = fixture.dir.path().file_name().unwrap().to_str().unwrap().to_owned();
    let (outcome, text) = fixture.run();
    assert_eq!(outcome.unwrap(), Outcome::Exited(0), "{text}");
    assert!(text.contains(" /usr/bin/cat\n"), "{text}");
    assert!(!text.contains(&own), "{text}");
}

#[test]
fn the_root_and_inputs_cannot_be_changed() {
    let script = "cat /layerize/store/in/f; \
        for p in /x /usr/x /usr/bin/x /etc/x /dev/x /layerize/store/in/x /usr/bin/bash /layerize/store/in/f; do \
            (echo x >$p) 2>/dev/null && echo $p; done; \
        (set +e; mkdir /usr/d; chmod u+w /usr/bin/bash; touch /usr/bin/bash; rm -f /usr/bin/bash; rmdir /etc; ln -s x /usr/l; \
        mv /layerize/store/in /layerize/store/out; rm -rf /layerize/store/in; chmod 777 /layerize/store/in/f; \
        ln /layerize/store/in/f /build/f; ln /usr/bin/bash /layerize/store/bash; chmod 0 /dev/null; chown 1000 /usr/bin/bash; \
        mv /usr/bin/bash /build/bash) 2>&1 | sed 's/.*: //'; ls /layerize/store; \
        exec 3</layerize/store/in/f; touch /proc/self/fd/3 2>/dev/null && echo touched; test -w /usr/bin/bash || echo not writable";
    let mut fixture = traced(script);
    let input = fixture.path("inputs/in");
    fs::create_dir(&input).unwrap();
    fs::write(input.join("f"), "content\n").unwrap();
    fixture.bind_input("in");
    let machine = machine::machine_root().join("usr/bin/bash");
    let state = |path: &Path| {
        let metadata = path.metadata().unwrap();
        (metadata.mode(), metadata.mtime(), metadata.size(), metadata.ino())
    };
    let before = [state(&machine), state(&input.join("f"))];
    let (outcome, text) = fixture.run();
    assert_eq!(outcome.unwrap(), Outcome::Exited(0), "{text}");
    let (busy, device, system) = (
        "Device or resource busy",
        "Invalid cross-device link",
        "Read-only file system",
    );
    let expected = [
        "content",
        system,
        system,
        system,
        system,
        system,
        system,
        busy,
        system,
        system,
        device,
        device,
        system,
        system,
        system,
        "in",
        "not writable",
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected, "{text}");
    assert_eq!([state(&machine), state(&input.join("f"))], before);
}

#[test]
fn what_is_made_is_ours_afterwards() {
    let script = "for d in /build /tmp /dev/shm /layerize/store; do echo x > $d/f; mkdir $d/sub; ln -s f $d/link; ln $d/f $d/g; done; \
                  chown 1000:100 /build/f; (chown 0 /build/f) 2>&1 | sed 's/.*: //'; stat -c '%u %g %h' /build/f; \
                  chmod 0 /build/sub; mkdir -p /tmp/deep/er; chmod 500 /tmp/deep; chmod 555 /build";
    let fixture = traced(script);
    let (outcome, text) = fixture.run();
    assert_eq!(outcome.unwrap(), Outcome::Exited(0), "{text}");
    assert_eq!(text, "Invalid argument\n1000 100 2\n");
    let own = rustix::process::geteuid().as_raw();
    for name in ["build", "tmp", "store"] {
        for below in ["", "f", "sub", "link"] {
            let path = fixture.path("work").join(name).join(below);
            assert_eq!(path.symlink_metadata().unwrap().uid(), own, "{}", path.display());
        }
    }
    // So that it can be removed.
    for path in ["work/build", "work/build/sub", "work/tmp/deep"] {
        fs::set_permissions(fixture.path(path), fs::Permissions::from_mode(0o700)).unwrap();
    }
}

#[test]
fn no_privilege_and_no_network_is_left() {
    let text = output("probe set-id 2>&1; probe xattrs; probe unknown; probe families; probe escape");
    for call in ["fchmod", "chmod", "fchmodat", "open", "creat", "mknod"] {
        assert!(text.contains(&format!("{call} EPERM")) || call.len() > 8, "{text}");
    }
    for said in [
        "set EOPNOTSUPP, get EOPNOTSUPP",
        "keyctl ENOSYS",
        "io_uring ENOSYS",
        "\n1 \nchroot EPERM, user namespace EPERM, clone EPERM, clone3 ENOSYS, mount EPERM, root EPERM, group EPERM, \
         device EPERM, handle EPERM, directories, up ok\n",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
}

#[test]
fn programs_are_started_in_every_way_and_none_is_traced_by_another() {
    assert_eq!(
        output("probe processes"),
        "spawn ok, vfork 0, descriptor 0, directory 0, of many 0, stopped 1, continued 1, ended by 0 of its own, trace EPERM\n\
         in a thread\n"
    );
}

#[test]
fn calls_about_paths_come_to_what_they_come_to_elsewhere() {
    let script = "probe paths";
    let text = output(script);
    assert_eq!(
        text,
        "made 500, bind ok, again EADDRINUSE, name ok, /tmp/socket, connect ok, got x, none ENOENT, elsewhere EROFS\n\
         held ok, up ok, watch ok, nameless ok, watched 1, exclusive EEXIST, masked 600, gone ENOENT, small ERANGE, directory \
         EISDIR, long ENAMETOOLONG\n"
    );
    assert_eq!(machine::output(script), text);
}

#[test]
fn directories_may_be_deeper_than_a_path_is_long() {
    let script = "name=$(printf 'x%.0s' {1..200}); for i in {1..25}; do mkdir $name; cd $name 2>/dev/null; done; \
                  echo x >f; cat f; ls; cd .. ; cd ..; ls | tr -d x; cd /build; rm -rf $name; ls; \
                  (ls $(printf 'y%.0s' {1..300})) 2>&1 | sed 's/.*: //'";
    assert_eq!(output(script), "x\nf\n\nFile name too long\n");
}

#[test]
fn programs_of_other_kinds_are_refused() {
    // The head of a program for 32 bits, and then of one of another processor.
    let script = "for head in '\\177ELF\\1\\1\\1\\0\\0\\0\\0\\0\\0\\0\\0\\0\\2\\0\\3\\0' '\\177ELF\\2\\1\\1\\0\\0\\0\\0\\0\\0\\0\\0\\0\\2\\0\\53\\0'; do \
                  { printf $head; head -c 200 /dev/zero; } >program; chmod 755 program; ./program 2>&1 || echo $?; rm program; done; \
                  printf '#!/none\\n' >none; chmod 755 none; ./none 2>/dev/null || echo $?; ./missing 2>/dev/null || echo $?; \
                  mkdir directory; ./directory 2>/dev/null || echo $?; chmod 644 none; ./none 2>/dev/null || echo $?";
    let text = output(script);
    let statuses: Vec<&str> = text.lines().filter(|line| line.parse::<u32>().is_ok()).collect();
    assert_eq!(statuses, ["126", "126", "127", "127", "126", "126"], "{text}");
    assert_eq!(text.matches("Exec format error").count(), 2, "{text}");
}

#[test]
fn devices_pipes_and_files_of_processes_are_there() {
    let script = "echo x >/dev/null; echo x >/dev/zero; head -c 4 /dev/zero | tr '\\0' z; echo; \
        head -c 4 /dev/urandom >/tmp/r; stat -c %s /tmp/r; (echo x >/dev/full) 2>&1 | sed 's/.*: //'; \
        cat </dev/null; echo in | cat /dev/stdin; echo err >/dev/stderr; cat <(echo substituted); \
        read name </proc/self/comm; echo $name; head -c 4 /proc/version; echo; ls /proc/self/fd | head -1; \
        (sleep 0.1; echo piped >pipe) & mknod pipe p 2>/dev/null || true; wait; rm -f pipe";
    assert_eq!(
        output(script),
        "zzzz\n4\nNo space left on device\nin\nerr\nsubstituted\nbash\nLinu\n0\n"
    );
}

#[test]
fn how_it_ended_is_told() {
    for (script, outcome) in [
        ("exit 7", Outcome::Exited(7)),
        ("kill -TERM $$", Outcome::Signaled(15)),
        ("sleep 300 & child=$!; kill $child; wait $child", Outcome::Exited(143)),
        (
            "(sleep 300 & echo $! >/tmp/orphan); kill -0 $(cat /tmp/orphan)",
            Outcome::Exited(0),
        ),
        ("kill -KILL $$", Outcome::Signaled(9)),
    ] {
        assert_eq!(traced(script).run().0.unwrap(), outcome, "{script}");
    }
}

#[test]
fn nothing_is_left_behind_by_a_script_that_ended_or_takes_too_long() {
    let marker = marker(81);
    let script = format!(
        "for i in 1 2 3; do (setsid sleep {marker} & ); done; setsid bash -c 'sleep {marker} & sleep {marker}' & sleep 0.3"
    );
    output(&script);
    assert_eq!(processes_with(&marker), Vec::<u32>::new());
    let mut fixture = traced(&format!("trap '' TERM HUP INT; setsid sleep {marker} & sleep {marker}"));
    fixture.sandbox.timeout = Some(Duration::from_secs(1));
    assert_eq!(fixture.run().0.unwrap(), Outcome::TimedOut);
    assert_eq!(processes_with(&marker), Vec::<u32>::new());
}

#[test]
fn nothing_is_left_behind_whichever_helper_is_killed() {
    for victim in 0..2 {
        let marker = marker(83 + victim);
        let fixture = traced(&format!(
            "setsid bash -c 'setsid sleep {marker} & sleep {marker}' & sleep {marker}"
        ));
        std::thread::scope(|scope| {
            let run = scope.spawn(|| fixture.run().0);
            wait_until("it runs", || processes_with(&marker).len() >= 4);
            let helpers = helpers(&marker);
            assert_eq!(helpers.len(), 2, "{helpers:?}");
            let pid = helpers[usize::try_from(victim).unwrap()].to_string();
            assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
            let _ = run.join().unwrap();
        });
        wait_until("all have ended", || processes_with(&marker).is_empty());
    }
}
