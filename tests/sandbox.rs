//! What a build sees, may do and leaves behind in the sandbox; run through the real program, whose helper
//! process is the sandbox. The root is made of the machine's own shell and core utilities.
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod machine;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use layerize::sandbox::{Bind, Outcome, SandboxError};
use machine::{Sandboxed, output};

#[test]
fn no_variable_but_those_given_is_set() {
    let text = output("env");
    let mut names: Vec<&str> = text.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    // Those that bash itself sets.
    assert_eq!(names, ["PATH", "PWD", "SHLVL", "_"]);
}

#[test]
fn network_is_off_but_for_loopback() {
    assert_eq!(output("probe network"), "loopback ok, outside ENETUNREACH\n");
}

#[test]
fn root_is_read_only() {
    for path in [
        "/x",
        "/usr/x",
        "/usr/bin/x",
        "/etc/x",
        "/dev/x",
        "/proc/x",
        "/layerize/x",
    ] {
        let text = output(&format!("touch {path} 2>&1 || true"));
        assert!(
            text.contains("Read-only file system") || text.contains("No such file"),
            "{path}: {text}"
        );
    }
}

#[test]
fn of_proc_a_process_writes_to_what_is_its_own() {
    let text = output(
        "(echo x >/proc/sys/kernel/core_pattern) 2>&1 || true; echo renamed >/proc/self/comm; cat /proc/$$/comm; \
         ls /sys 2>&1 || true",
    );
    assert_eq!(text.matches("Read-only file system").count(), 1, "{text}");
    assert!(
        text.contains("\nrenamed\n") && text.contains("/sys': No such file"),
        "{text}"
    );
    assert_eq!(output("probe thread"), "ok, worker\n");
}

#[test]
fn build_tmp_shm_and_out_can_be_written() {
    let fixture =
        Sandboxed::new("for d in /build /tmp /dev/shm /layerize/store; do echo x > $d/f; done; echo x > /dev/null");
    assert_eq!(fixture.run().0.unwrap(), Outcome::Exited(0));
    for name in ["work/build/f", "work/tmp/f", "work/store/f"] {
        assert_eq!(fs::read_to_string(fixture.path(name)).unwrap(), "x\n");
    }
}

#[test]
fn read_only_binds_stay_so() {
    let mut fixture = Sandboxed::new(
        "cat /layerize/store/in/f; touch /layerize/store/in/f 2>&1 || rm -r /layerize/store/in 2>&1 || true",
    );
    fs::create_dir(fixture.path("inputs/in")).unwrap();
    fs::write(fixture.path("inputs/in/f"), "content\n").unwrap();
    fixture.bind_input("in");
    let (outcome, text) = fixture.run();
    assert_eq!(outcome.unwrap(), Outcome::Exited(0));
    assert!(
        text.starts_with("content\n") && text.contains("Read-only file system"),
        "{text}"
    );
    assert_eq!(fs::read_to_string(fixture.path("inputs/in/f")).unwrap(), "content\n");
}

#[test]
fn devices_are_the_harmless_ones() {
    assert_eq!(
        output("cd /dev; ls; cat null; head -c 4 zero | stat -c %F - >/dev/null; (echo x > full) 2>&1 || true")
            .replace("\n", " ")
            .split("/usr/bin/bash")
            .next()
            .unwrap()
            .trim(),
        "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero"
    );
}

#[test]
fn user_group_and_host_are_fixed() {
    let script = "id -u; id -g; uname -n; cat /proc/sys/kernel/domainname; umask; ulimit -c; ulimit -n; ulimit -s";
    assert_eq!(output(script), "1000\n100\nlocalhost\n(none)\n0022\n0\n1024\n8192\n");
}

#[test]
fn no_privilege_is_left() {
    let text = output("cat /proc/self/status");
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
    for name in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(name), "0000000000000000", "{name}");
    }
    assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1", "2"));
}

#[test]
fn setuid_is_refused() {
    let text = output(
        "cd /build; touch f; for m in u+s g+s 4755; do chmod $m f 2>&1 || true; done; chmod 0755 f; stat -c %a f",
    );
    assert_eq!(text.matches("Operation not permitted").count(), 3, "{text}");
    assert!(text.ends_with("\n755\n"), "{text}");
    assert_eq!(
        output("probe set-id"),
        "plain ok, fchmod EPERM, chmod EPERM, fchmodat EPERM, open EPERM, creat EPERM, mknod EPERM\n"
    );
}

#[test]
fn xattrs_are_refused() {
    assert_eq!(
        output("probe xattrs"),
        "set EOPNOTSUPP, get EOPNOTSUPP, list EOPNOTSUPP, remove EOPNOTSUPP\n"
    );
}

#[test]
fn addresses_do_not_vary() {
    let stack = || {
        output("cat /proc/self/maps")
            .lines()
            .find(|line| line.ends_with("[stack]"))
            .unwrap()
            .to_owned()
    };
    assert_eq!(stack(), stack());
}

#[test]
fn own_processes_alone_are_seen() {
    let text = output("cd /proc; echo [0-9]*");
    assert_eq!(text, "1 2\n");
}

#[test]
fn the_status_and_signal_are_told() {
    assert_eq!(Sandboxed::new("exit 7").run().0.unwrap(), Outcome::Exited(7));
    assert_eq!(Sandboxed::new("kill -SEGV $$").run().0.unwrap(), Outcome::Signaled(11));
}

#[test]
fn output_and_errors_come_in_order() {
    let script = "for i in 1 2 3 4 5; do echo out$i; echo err$i >&2; done";
    let expected: String = (1..=5).map(|i| format!("out{i}\nerr{i}\n")).collect();
    assert_eq!(output(script), expected);
}

#[test]
fn orphans_are_reaped_and_do_not_hold_the_build_up() {
    let started = Instant::now();
    output("for i in 1 2 3; do (setsid sleep 300 & ); done; sleep 0.1");
    assert!(started.elapsed() < Duration::from_secs(20));
}

/// Processes of this machine whose arguments hold `marker`.
fn processes_with(marker: &str) -> Vec<u32> {
    let names = layerize::fsio::sorted_names(Path::new("/proc")).unwrap();
    let pids = names.iter().filter_map(|name| name.to_str()?.parse::<u32>().ok());
    let arguments = |pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let holds = |bytes: &[u8]| bytes.windows(marker.len()).any(|window| window == marker.as_bytes());
    pids.filter(|pid| holds(&arguments(pid))).collect()
}

/// Kills our one child, which is the helper.
fn kill_helper() {
    let ours = format!("\nPPid:\t{}\n", std::process::id());
    let is_ours = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|text| text.contains(&ours));
    let children: Vec<u32> = processes_with("__sandbox").into_iter().filter(is_ours).collect();
    assert_eq!(children.len(), 1);
    let status = Command::new("kill")
        .args(["-KILL", &children[0].to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(20), "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn timeout_kills_everything() {
    let marker = format!("86{}.25", std::process::id());
    let mut fixture = Sandboxed::new(&format!("trap '' TERM HUP INT; setsid sleep {marker} & sleep {marker}"));
    fixture.sandbox.timeout = Some(Duration::from_secs(1));
    assert_eq!(fixture.run().0.unwrap(), Outcome::TimedOut);
    assert_eq!(processes_with(&marker), Vec::<u32>::new());
}

#[test]
fn nothing_is_left_after_the_helper_is_killed() {
    let marker = format!("87{}.25", std::process::id());
    let fixture = Sandboxed::new(&format!("setsid sleep {marker} & sleep {marker}"));
    std::thread::scope(|scope| {
        let run = scope.spawn(|| fixture.run().0);
        wait_until("it runs", || processes_with(&marker).len() >= 2);
        kill_helper();
        assert!(matches!(
            run.join().unwrap(),
            Err(SandboxError::NoReply) | Ok(Outcome::Signaled(9))
        ));
    });
    wait_until("all have ended", || processes_with(&marker).is_empty());
}

#[test]
fn many_packages_are_composed_in_groups() {
    let mut fixture = Sandboxed::new("cd /many; set -- *; echo $#; cat /first/who");
    let many = fixture.path("many");
    for index in 0..1001 {
        let layer = many.join(index.to_string());
        fs::create_dir_all(layer.join("many")).unwrap();
        fs::create_dir_all(layer.join("first")).unwrap();
        fs::write(layer.join(format!("many/{index}")), "").unwrap();
        fs::write(layer.join("first/who"), index.to_string()).unwrap();
        fixture.sandbox.layers.push(layer);
    }
    let (outcome, text) = fixture.run();
    assert_eq!((outcome.unwrap(), text.as_str()), (Outcome::Exited(0), "1001\n0"));
}

#[test]
fn modes_of_the_staging_directory_close_it_to_others() {
    let fixture = Sandboxed::new("true");
    fs::set_permissions(fixture.path("staging"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(fixture.run().0.unwrap(), Outcome::Exited(0));
    let mode = fs::metadata(fixture.path("staging")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_missing_program_is_an_error_that_names_it() {
    let mut fixture = Sandboxed::new("");
    fixture.sandbox.argv = vec!["/usr/bin/missing".to_owned()];
    let error = fixture.run().0.unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot set up the sandbox: cannot start `/usr/bin/missing`"
    );
}

#[test]
fn a_missing_bind_source_is_an_error_that_names_it() {
    let mut fixture = Sandboxed::new("true");
    let source = fixture.path("missing");
    fixture.sandbox.binds.push(Bind {
        source: source.clone(),
        target: "/etc".into(),
        writable: false,
    });
    let error = fixture.run().0.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot set up the sandbox: cannot bind `{}`", source.display())
    );
}
