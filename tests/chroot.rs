//! The walls of a build where there are no namespaces to be had: what it sees is what it sees in namespaces, and there is no
//! way out to the store, to other processes, to the network or to more rights. As root alone can change the root, an ordinary
//! user's tests say that they were skipped.
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod machine;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use layerize::sandbox::{Isolation, Outcome};
use machine::{Sandboxed, helpers, marker, processes_with, wait_until};

/// A sandbox behind these walls; `None` where we are not root.
fn chrooted(script: &str) -> Option<Sandboxed> {
    if !rustix::process::geteuid().is_root() {
        #[expect(clippy::print_stderr, reason = "what is not tested must be seen")]
        {
            eprintln!("SKIPPED: only root can change the root");
        }
        return None;
    }
    let mut fixture = Sandboxed::new(script);
    fixture.sandbox.isolation = Isolation::Chroot;
    Some(fixture)
}

/// What a script that must end well prints; `None`: skipped.
#[track_caller]
fn output(script: &str) -> Option<String> {
    let (outcome, text) = chrooted(script)?.run();
    assert_eq!(outcome.unwrap(), Outcome::Exited(0), "{text}");
    Some(text)
}

/// A process of the user that builds are, outside; ended with the value.
struct Bystander(Child);

impl Bystander {
    fn start() -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "1000", "--regid", "100", "--clear-groups", "sleep", "300"]);
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    fn is_alive(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_script_sees_what_it_sees_in_namespaces() {
    let script = "id -u; id -g; uname -n; umask; ulimit -c; ulimit -n; ulimit -s; env; ls / /build /layerize; \
                  stat -c '%a %u %g %Y' /build; pwd; stat -c '%a %Y' /usr /usr/bin/bash; stat -c %a /layerize";
    let Some(fixture) = chrooted(script) else { return };
    let (outcome, text) = fixture.run();
    assert_eq!(outcome.unwrap(), Outcome::Exited(0), "{text}");
    let mut walled = Sandboxed::new(script);
    walled.sandbox.isolation = Isolation::Build;
    let without_times = |text: &str| -> Vec<String> {
        let own = |line: &str| line.starts_with("755 1000 100 ");
        text.lines().filter(|line| !own(line)).map(str::to_owned).collect()
    };
    assert_eq!(without_times(&text), without_times(&walled.run().1));
}

#[test]
fn what_is_made_is_ours_afterwards() {
    let script = "for d in /build /tmp /dev/shm /layerize/store; do echo x > $d/f; mkdir $d/sub; ln -s f $d/link; done; \
                  ls /layerize/store/in; \
                  chmod 0 /build/sub; mkdir -p /tmp/deep/er; chmod 500 /tmp/deep; echo x >/dev/null";
    let Some(mut fixture) = chrooted(script) else { return };
    fs::create_dir(fixture.path("inputs/in")).unwrap();
    fixture.bind_input("in");
    let (outcome, text) = fixture.run();
    assert_eq!(outcome.unwrap(), Outcome::Exited(0), "{text}");
    for name in ["build", "tmp", "store"] {
        for below in ["", "f", "sub", "link"] {
            let path = fixture.path("work").join(name).join(below);
            let metadata = path.symlink_metadata().unwrap();
            assert_eq!((metadata.uid(), metadata.gid()), (0, 0), "{}", path.display());
        }
        assert_eq!(
            fs::read_to_string(fixture.path("work").join(name).join("f")).unwrap(),
            "x\n"
        );
    }
}

#[test]
fn the_root_and_inputs_cannot_be_changed() {
    let script = "cat /layerize/store/in/f; \
        for p in /x /usr/x /usr/bin/x /etc/x /dev/x /proc/x /layerize/x /layerize/store/in/x; do \
            (echo x >$p) 2>&1 || true; done; \
        (echo x >>/usr/bin/bash) 2>&1 || true; \
        chmod u+w /usr/bin/bash 2>&1 || true; touch /usr/bin/bash 2>&1 || true; rm -f /usr/bin/bash 2>&1 || true; \
        mv /layerize/store/in /layerize/store/out 2>&1 || true; rm -rf /layerize/store/in 2>&1 || true; \
        chmod 777 /layerize/store/in/f 2>&1 || true; ln /layerize/store/in/f /build/f 2>&1 || true; \
        ln /usr/bin/bash /layerize/store/bash 2>&1 || true";
    let Some(mut fixture) = chrooted(script) else { return };
    let input = fixture.path("inputs/in");
    fs::create_dir(&input).unwrap();
    fs::write(input.join("f"), "content\n").unwrap();
    for (path, mode) in [(input.join("f"), 0o444), (input.clone(), 0o555)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    fixture.bind_input("in");
    let machine = machine::machine_root().join("usr/bin/bash");
    let state = |path: &Path| {
        let metadata = path.metadata().unwrap();
        (
            metadata.mode(),
            metadata.uid(),
            metadata.mtime(),
            metadata.size(),
            metadata.ino(),
        )
    };
    let before = [state(&machine), state(&input.join("f"))];
    let (outcome, text) = fixture.run();
    assert_eq!(outcome.unwrap(), Outcome::Exited(0), "{text}");
    assert!(text.starts_with("content\n"), "{text}");
    assert_eq!([state(&machine), state(&input.join("f"))], before);
    let kept = fixture.path("work/store/bash");
    let second = kept.metadata();
    assert!(second.is_err() || second.unwrap().ino() != before[0].4);
    assert_eq!(input.join("f").metadata().unwrap().nlink(), 1);
}

#[test]
fn files_of_the_builds_user_are_copied() {
    let script = "chmod u+w /layerize/store/in/f; echo changed >/layerize/store/in/f; cat /layerize/store/in/f";
    let Some(mut fixture) = chrooted(script) else { return };
    let input = fixture.path("inputs/in");
    fs::create_dir(&input).unwrap();
    fs::write(input.join("f"), "content\n").unwrap();
    for path in [input.join("f"), input.clone()] {
        std::os::unix::fs::chown(path, Some(1000), Some(100)).unwrap();
    }
    fixture.bind_input("in");
    let (outcome, text) = fixture.run();
    // Whether it may is nothing to the store.
    assert!(matches!(outcome, Ok(Outcome::Exited(_))), "{text}");
    assert_eq!(fs::read_to_string(input.join("f")).unwrap(), "content\n");
}

#[test]
fn no_privilege_is_left() {
    // `/proc` is not there to be asked.
    let Some(text) = output("probe set-id 2>&1; probe xattrs; probe unknown") else {
        return;
    };
    assert!(text.starts_with("plain "), "{text}");
    for call in ["fchmod", "chmod", "fchmodat", "open", "creat", "mknod"] {
        assert!(text.contains(&format!("{call} EPERM")), "{text}");
    }
    assert!(text.contains("set EOPNOTSUPP, get EOPNOTSUPP"), "{text}");
    assert!(
        text.contains("keyctl ENOSYS") && text.contains("io_uring ENOSYS"),
        "{text}"
    );
}

#[test]
fn no_address_family_but_that_of_processes_is_there() {
    // AF_UNIX alone: neither AF_INET, AF_NETLINK nor AF_VSOCK.
    assert!(output("probe families").is_none_or(|text| text == "1 \n"));
}

#[test]
fn other_processes_of_the_same_user_are_out_of_reach() {
    let mut bystander = chrooted("").map(|_| Bystander::start());
    let Some(bystander) = &mut bystander else { return };
    // Let it become that user first.
    std::thread::sleep(Duration::from_millis(300));
    let pid = bystander.0.id();
    let nice = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let before = nice().split(' ').nth(18).unwrap().to_owned();
    let text = output(&format!("probe reach {pid}")).unwrap();
    assert_eq!(
        text,
        "kill ESRCH, tkill ESRCH, tgkill ESRCH, group ESRCH, queue ESRCH, pidfd ESRCH, priority ESRCH, user ESRCH, \
         affinity ESRCH, scheduler ESRCH, limit EPERM, trace EPERM, memory EPERM, owner EPERM, shared ENOSYS, \
         semaphore ENOSYS, messages ENOSYS, all ok\n"
    );
    assert!(bystander.is_alive());
    assert_eq!(nice().split(' ').nth(18).unwrap(), before);
}

#[test]
fn own_processes_are_signalled_all_the_same() {
    let script = "sleep 300 & child=$!; kill $child; wait $child || echo $?; \
                  setsid sleep 300 & sleep 0.2; kill -9 -- -$! && echo group; \
                  (sleep 300 & echo $! >/tmp/orphan); kill -0 $(cat /tmp/orphan) && echo orphan; kill -TERM $$";
    let Some(fixture) = chrooted(script) else { return };
    let (outcome, text) = fixture.run();
    assert_eq!(outcome.unwrap(), Outcome::Signaled(15), "{text}");
    assert!(
        text.contains("143\n") && text.contains("group\n") && text.contains("orphan\n"),
        "{text}"
    );
}

/// The directory of the store may be on a file system without devices, and there is no `/proc` of the build's own.
#[test]
fn devices_and_files_of_processes_are_served() {
    let script = "echo x >/dev/null; echo x >/dev/zero; head -c 4 /dev/zero | tr '\\0' z; echo; \
        head -c 4 /dev/urandom >/tmp/r; stat -c %s /tmp/r; (echo x >/dev/full) 2>&1 | sed 's/.*: //'; \
        cat </dev/null; echo in | cat /dev/stdin; echo err >/dev/stderr; cat <(echo substituted); \
        readlink /proc/self/exe /proc/self/cwd /proc/$$/exe; read name </proc/self/comm; echo $name; \
        head -c 9 /proc/cpuinfo | tr '\\t' ' '; echo; \
        set +e; for p in root/etc/passwd cwd/x fd ../1/root environ/x task; do \
        (cat /proc/self/$p) >/dev/null 2>&1 && echo open $p; done; \
        cat /proc/1/environ /proc/1/status /proc/mounts /proc/kcore /proc/sys/kernel/hostname /dev/sda 2>/dev/null && echo seen; \
        (set -C; echo x >/dev/null) 2>/dev/null; ls /dev";
    let Some(text) = output(script) else { return };
    let processor = text.lines().nth(10).unwrap();
    assert!(
        processor.starts_with("processor") || cfg!(not(target_arch = "x86_64")),
        "{text}"
    );
    let lines: Vec<&str> = text.lines().filter(|line| *line != processor).collect();
    assert_eq!(
        lines,
        [
            "zzzz",
            "4",
            "No space left on device",
            "in",
            "err",
            "substituted",
            "/usr/bin/readlink",
            "/build",
            "/usr/bin/bash",
            "bash",
            "fd",
            "full",
            "null",
            "random",
            "shm",
            "stderr",
            "stdin",
            "stdout",
            "tty",
            "urandom",
            "zero"
        ],
        "{text}"
    );
}

#[test]
fn there_is_no_way_out_of_the_root() {
    let Some(text) = output("cd /build && probe escape") else {
        return;
    };
    assert_eq!(
        text,
        "chroot EPERM, user namespace EPERM, clone EPERM, clone3 ENOSYS, mount EPERM, root EPERM, group EPERM, \
         device EPERM, handle EPERM, directories, up ok\n"
    );
}

#[test]
fn nothing_is_left_behind_by_a_script_that_ended() {
    let marker = marker(91);
    let script = format!(
        "for i in 1 2 3; do (setsid sleep {marker} & ); done; setsid bash -c 'sleep {marker} & sleep {marker}' & sleep 0.3"
    );
    let started = Instant::now();
    if output(&script).is_some() {
        assert_eq!(processes_with(&marker), Vec::<u32>::new());
        assert!(started.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn nothing_is_left_behind_after_a_timeout() {
    let marker = marker(92);
    let script = format!("trap '' TERM HUP INT; setsid sleep {marker} & sleep {marker}");
    let Some(mut fixture) = chrooted(&script) else { return };
    fixture.sandbox.timeout = Some(Duration::from_secs(1));
    assert_eq!(fixture.run().0.unwrap(), Outcome::TimedOut);
    assert_eq!(processes_with(&marker), Vec::<u32>::new());
}

#[test]
fn nothing_is_left_behind_whichever_helper_is_killed() {
    for victim in 0..2 {
        let marker = marker(93 + victim);
        let script = format!("setsid bash -c 'setsid sleep {marker} & sleep {marker}' & sleep {marker}");
        let Some(fixture) = chrooted(&script) else { return };
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

#[test]
fn layers_lie_over_each_other_as_in_an_overlay() {
    let Some(mut fixture) =
        chrooted("cd /merged; for f in *; do echo $f $(cat $f/* 2>/dev/null || cat $f || true); done")
    else {
        return;
    };
    let [upper, lower] = ["upper", "lower"].map(|name| fixture.path(name));
    for (layer, path, text) in [
        (&upper, "merged/a/upper", "1"),
        (&lower, "merged/a/lower", "2"),
        (&upper, "merged/file", "3"),
        (&lower, "merged/file/hidden", "4"),
        (&lower, "merged/dir", "5"),
        (&upper, "merged/dir/shown", "6"),
    ] {
        fs::create_dir_all(layer.join(path).parent().unwrap()).unwrap();
        fs::write(layer.join(path), text).unwrap();
    }
    symlink("/merged/file", lower.join("merged/link")).unwrap();
    let both: Vec<PathBuf> = vec![upper, lower];
    fixture.sandbox.layers.splice(0..0, both);
    let (outcome, text) = fixture.run();
    assert_eq!(outcome.unwrap(), Outcome::Exited(0), "{text}");
    assert_eq!(text, "a 21\ndir 6\nfile 3\nlink 3\n");
}
