//! Programs of images, run without an engine: what they see, are told and may do is what it is in Docker.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Place, Ran, have, peer};

/// A shell and some tools as Debian has them, files of several owners, a user.
const BOX: &str = r##"
[image.box]
root = ["deb:coreutils", "deb:dash"]
configure = false
user = "app"
workdir = "/srv/app"
env = { A = "1", B = "two words" }
entrypoint = ["/bin/dash", "-c"]
cmd = ["id"]
volumes = ["/data"]

[image.box.files]
"/etc/passwd" = { text = "root:x:0:0:root:/root:/bin/dash\napp:x:1000:1000::/home/app:/bin/dash\n" }
"/etc/group" = { text = "root:x:0:\nstaff:x:50:app\napp:x:1000:\n" }
"/secret" = { text = "s\n", mode = "0600" }
"/mine" = { text = "m\n", owner = 1000, mode = "0600" }
"/ours" = { text = "o\n", group = 50, mode = "0640" }
"/readable" = { text = "r\n", mode = "0644" }
"/data" = { directory = true, owner = 1000, group = 1000 }
"/drop" = { directory = true, mode = "1777" }
"/closed" = { directory = true, mode = "0700" }
"/link" = { symlink = "/readable" }
"/bin/unmarked" = { text = "#!/bin/dash\necho unmarked\n", mode = "0644" }
"/bin/script" = { text = "#!/bin/dash\necho script \"$@\"\n", mode = "0755" }
"##;

fn boxed() -> Place {
    let place = Place::new();
    place.write("layerize.toml", BOX);
    place.run(&["build", "box"]).success();
    place
}

/// What `layerize run` does with the image.
fn ours(place: &Place, flags: &[&str], arguments: &[&str]) -> Ran {
    let mut all = vec!["run", "--quiet", "--isolated", "box.tar", "--network", "none"];
    all.extend(flags);
    all.push("--");
    all.extend(arguments);
    place.run(&all)
}

/// What Docker does with it.
fn dockers(image: &str, flags: &[&str], arguments: &[&str]) -> Ran {
    let mut command = Command::new("docker");
    command.args(["run", "--rm", "--network", "none", "--hostname", "localhost"]);
    command.args(flags).arg(image).args(arguments).stdin(Stdio::null());
    Ran::of(command.output().unwrap())
}

/// The lines in the order of their bytes: an environment has none.
fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// What is run in both: flags, and arguments of the image's shell.
const CASES: &[(&[&str], &str)] = &[
    (&[], "id; id -u; id -g; id -G"),
    (&["--user", "0"], "id; id -G"),
    (&["--user", "root:staff"], "id; id -G"),
    (&["--user", "4242"], "id"),
    (&["--user", "app:7"], "id"),
    (&[], "env"),
    (
        &["--user", "0", "--env", "A=3", "--env", "C=x=y", "--env", "HOME=/h"],
        "env",
    ),
    (&[], "pwd"),
    (&["--workdir", "/new/one"], "pwd"),
    (
        &[],
        "stat -c '%A %u %g %n' /* /bin/dash /bin/sh /bin/unmarked /etc/passwd /etc/hosts /dev/null /proc /srv/app",
    ),
    (&["--user", "0"], "stat -c '%A %u %g %n' /* /etc /closed/.. /link"),
    (&[], "cat /etc/hostname; cat /mine /ours /readable /link; cat /secret"),
    (&[], "ls /closed"),
    (&[], "echo x > /readable"),
    (&[], "echo x > /etc/new"),
    (&[], "echo x > /mine; cat /mine; stat -c '%u %g %a' /mine"),
    (&[], "rm -f /readable"),
    (
        &[],
        "echo x > /drop/a && stat -c '%u %g' /drop/a && rm /drop/a; rmdir /drop",
    ),
    (
        &[],
        "echo x > /data/f && chmod 4750 /data/f && stat -c '%u %g %a' /data/f",
    ),
    (&[], "chmod 600 /readable"),
    (
        &[],
        "chmod 640 /mine && stat -c %a /mine && chgrp staff /mine && stat -c %g /mine",
    ),
    (&[], "chown 0 /mine"),
    (&[], "mkdir /srv/app/x"),
    (
        &[],
        "mkdir /data/x && ln -s y /data/x/z && stat -c '%A %u %g' /data/x /data/x/z",
    ),
    (
        &["--user", "0"],
        "chown 1000:50 /secret && chmod 400 /secret && stat -c '%a %u %g' /secret",
    ),
    (
        &["--user", "0"],
        "chown app /closed && stat -c '%a %u %g' /closed && cat /secret",
    ),
    (
        &["--user", "0"],
        "chroot --userspec=app:staff / id; chroot --userspec=1000 --groups=7,8 / id -G",
    ),
    (
        &["--user", "0"],
        "chroot --userspec=app / stat -c %u /readable; chroot --userspec=app / chown 5 /readable",
    ),
    (
        &["--user", "0"],
        "mkdir -p /a/b && touch /a/b/c && stat -c '%A %u' /a/b/c && rm -r /a",
    ),
    (
        &["--read-only", "--user", "0"],
        "echo x > /new; echo x > /data/f && cat /data/f; echo x > /mine",
    ),
    (&[], "exit 42"),
    (&[], "script a 'b c'"),
    (&[], "nosuch"),
    (&[], "unmarked"),
    (&["--entrypoint", "script"], "x"),
    (&["--entrypoint", "/bin/script"], "x"),
    (&["--entrypoint", "nosuch"], "x"),
    (&["--entrypoint", "/nosuch"], "x"),
    (&["--entrypoint", "/bin/unmarked"], "x"),
    (&["--entrypoint", "/etc"], "x"),
];

/// The cases with those of equal flags as one script, each in a shell of its own: a container of Docker's takes its time.
fn together() -> Vec<(&'static [&'static str], String)> {
    let mut all: Vec<(&[&str], String)> = Vec::new();
    for (number, (flags, script)) in CASES.iter().enumerate() {
        let has_other_entrypoint = flags.contains(&"--entrypoint");
        let same = all
            .iter_mut()
            .find(|(other, _)| other == flags && !has_other_entrypoint);
        let script = match has_other_entrypoint {
            true => (*script).to_owned(),
            false => format!("({script}); echo case {number}: $?\n"),
        };
        match same {
            Some((_, scripts)) => scripts.push_str(&script),
            None => all.push((flags, script)),
        }
    }
    all
}

#[test]
fn a_program_sees_and_may_do_what_it_does_in_docker() {
    let place = boxed();
    for (flags, script) in [(&[][..], "id -u"), (&["--user", "0"], "cat /secret")] {
        ours(&place, flags, &[script]).success();
    }
    assert_eq!(
        ours(&place, &[], &[]).success().stdout,
        "uid=1000(app) gid=1000(app) groups=1000(app),50(staff)\n"
    );
    if !have("docker", &["info"]) {
        return;
    }
    let image = format!("layerize-test-{}", std::process::id());
    let loaded = peer(
        Command::new("docker")
            .args(["load", "-q", "-i"])
            .arg(place.project.join("box.tar")),
    );
    let loaded = loaded.stdout.trim().rsplit_once(": ").unwrap().1.to_owned();
    peer(Command::new("docker").args(["tag", &loaded, &image]));
    let mut differing = Vec::new();
    for (flags, script) in together() {
        let (own, docker) = (ours(&place, flags, &[&script]), dockers(&image, flags, &[&script]));
        if (own.status, sorted(&own.stdout)) != (docker.status, sorted(&docker.stdout)) {
            differing.push(format!("{flags:?} {script}\nours: {own:#?}\nDocker: {docker:#?}"));
        }
    }
    peer(Command::new("docker").args(["rmi", "-f", &image]));
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn what_is_written_is_thrown_away_and_volumes_stay() {
    let place = boxed();
    let root = |script: &str| ours(&place, &["--user", "0"], &[script]);
    root("echo changed > /readable; rm /mine; echo new > /etc/new").success();
    assert_eq!(root("cat /readable /mine; ls /etc/new").exits(2).stdout, "r\nm\n");
    place.write("shared/in", "from outside\n");
    let volume = format!("{}:/new/place", place.project.join("shared").display());
    let script = "cat /new/place/in; echo out > /new/place/out; stat -c '%u' /new/place/out";
    let ran = ours(&place, &["--volume", &volume], &[script]).success();
    assert_eq!(ran.stdout, "from outside\n1000\n");
    assert_eq!(
        std::fs::read_to_string(place.project.join("shared/out")).unwrap(),
        "out\n"
    );
    let ran = ours(
        &place,
        &["--volume", &format!("{volume}:ro")],
        &["echo x > /new/place/more"],
    );
    ran.exits(2).says(&["Read-only file system"]);
    let file = format!("{}:/etc/passwd:ro", place.project.join("shared/in").display());
    assert_eq!(
        ours(&place, &["--volume", &file], &["cat /etc/passwd"])
            .success()
            .stdout,
        "from outside\n"
    );
    let nowhere = ours(&place, &["--volume", "/no/such:/x"], &["true"]);
    nowhere.exits(2).says(&["cannot bind `/no/such`"]);
    ours(&place, &["--user", "nobody-here"], &["true"]).exits(2).says(&[
        "the image has no user `nobody-here` in `/etc/passwd`",
        "help: give a number",
    ]);
}

/// In whatever order they are given; their places are made on the machine, and never through a link.
#[test]
fn volumes_lie_in_volumes() {
    let place = boxed();
    place.write("outer/kept", "outer\n").write("inner/kept", "inner\n");
    let at = |name: &str, target: &str| format!("{}:{target}", place.project.join(name).display());
    let run = |volumes: &[&str], script: &str| {
        let flags: Vec<&str> = volumes.iter().flat_map(|volume| ["--volume", volume]).collect();
        ours(&place, &flags, &[script])
    };
    let (outer, inner, file) = (
        at("outer", "/data"),
        at("inner", "/data/deep/in"),
        at("inner/kept", "/data/file"),
    );
    for volumes in [[&*outer, &*inner, &*file], [&*file, &*inner, &*outer]] {
        let ran = run(
            &volumes,
            "cat /data/kept /data/deep/in/kept /data/file; echo new > /data/deep/in/new",
        );
        assert_eq!(ran.success().stdout, "outer\ninner\ninner\n");
        assert!(place.project.join("inner/new").is_file() && !place.project.join("outer/deep/in/new").exists());
        std::fs::remove_dir_all(place.project.join("outer/deep")).unwrap();
        std::fs::remove_file(place.project.join("outer/file")).unwrap();
    }
    let fails = |volumes: &[&str], said: &str| {
        run(volumes, "true").exits(2).says(&["cannot bind", said]);
        assert!(!place.project.join("outer/deep").exists());
    };
    fails(&[&format!("{outer}:ro"), &inner], "cannot be written to");
    fails(&[&outer, &at("inner", "/data")], "another volume at `/data`");
    fails(&[&outer, &at("inner", "/data/kept/x")], "cannot be made");
    std::os::unix::fs::symlink("/tmp", place.project.join("outer/link")).unwrap();
    fails(&[&outer, &at("inner", "/data/link/x")], "is a link");
}

/// A program that tells which signals reach it.
const LISTENER: &str = "trap 'echo TERM; exit 7' TERM; trap 'echo USR1' USR1; echo ready; while :; do sleep 0.05; done";

/// Starts a command, sends signals when it is ready, and gives its output and status.
fn signalled(command: &mut Command, signals: &[Signal]) -> (String, i32) {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut ready = [0; 6];
    stdout.read_exact(&mut ready).unwrap();
    assert_eq!(&ready, b"ready\n");
    for signal in signals {
        kill_process(Pid::from_child(&child), *signal).unwrap();
        std::thread::sleep(Duration::from_millis(300));
    }
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    (rest, child.wait().unwrap().code().unwrap())
}

#[test]
fn signals_reach_the_program_of_an_image() {
    let place = boxed();
    let started = Instant::now();
    let mut command = place.command(&["run", "-q", "--isolated", "box.tar", "--", LISTENER]);
    let told = signalled(&mut command, &[Signal::USR1, Signal::TERM]);
    assert_eq!(told, ("USR1\nTERM\n".to_owned(), 7));
    let mut command = place.command(&["run", "-q", "--isolated", "box.tar", "--", "echo ready; exec sleep 60"]);
    assert_eq!(signalled(&mut command, &[Signal::TERM]), (String::new(), 143));
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[test]
fn signals_reach_the_program_of_a_package_and_what_runs_in_a_shell() {
    let place = Place::with_script(&format!(
        "mkdir -p $out/bin; printf '#!/bin/sh\\n%s\\n' \"{LISTENER}\" > $out/bin/thing; chmod +x $out/bin/thing"
    ));
    for arguments in [
        &["run", "-q", "thing"][..],
        &["shell", "-q", "thing", "--", "sh", "-c", LISTENER],
    ] {
        let told = signalled(&mut place.command(arguments), &[Signal::USR1, Signal::TERM]);
        assert_eq!(told, ("USR1\nTERM\n".to_owned(), 7), "{arguments:?}");
    }
}

#[test]
fn input_is_passed_on_and_ports_are_the_machines() {
    let place = boxed();
    let mut child = place
        .command(&[
            "run",
            "-q",
            "--isolated",
            "box",
            "--",
            "cat; ls /sys/class/net /proc/sys/net/ipv4 > /dev/null; exit 3",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"hello\n").unwrap();
    let ran = Ran::of(child.wait_with_output().unwrap()).exits(3);
    assert_eq!(ran.stdout, "hello\n");
    let names = |network: &str| {
        let flags = [
            "run",
            "-q",
            "--isolated",
            "box",
            "--network",
            network,
            "--",
            "cat /proc/net/dev",
        ];
        place.run(&flags).success().stdout
    };
    assert_eq!(names("none").matches(':').count(), 1, "lo alone");
    assert_eq!(
        names("host").lines().count(),
        std::fs::read_to_string("/proc/net/dev").unwrap().lines().count()
    );
}

#[test]
fn what_is_no_image_of_this_machine_is_said() {
    let place = Place::new();
    place.write(
        "layerize.toml",
        "[image.far]\nplatform = \"linux/s390x\"\nentrypoint = [\"/x\"]\n[image.far.files]\n\"/etc/motd\" = { text = \"\" }\n",
    );
    let far = place.run(&["run", "--isolated", "far"]);
    assert_eq!(far.status, 2, "{}", far.stderr);
    place.run(&["run", "--isolated", "nowhere.tar"]).exits(2);
    place.run(&["run"]).exits(2).says(&["TARGET"]);
}

/// A package that says what it is, an image of it, and one whose program is in its own root.
const SAME: &str = r#"
[package.thing]
script = '''
mkdir -p $out/bin
printf '#!/bin/dash\necho "$0 ${FLAVOUR-none} $*"; exit 5\n' >$out/bin/thing
chmod +x $out/bin/thing
'''

[package.user]
tools = ["thing"]
script = "mkdir $out"

[image.web]
contents = ["thing"]
root = ["deb:dash"]
configure = false
entrypoint = ["thing"]
cmd = ["default"]
env = { FLAVOUR = "sweet" }

[image.own]
root = ["deb:dash"]
configure = false
entrypoint = ["/bin/dash"]
"#;

#[test]
fn a_program_is_the_same_in_a_shell_by_itself_and_in_its_image() {
    let place = Place::new();
    place.write("layerize.toml", SAME);
    let path = place.run(&["build", "thing"]).success().line().to_owned();
    let said = |arguments: &[&str]| place.run(&[&["run", "-q"], arguments].concat()).exits(5).stdout;
    let program = format!("{path}/bin/thing");
    assert_eq!(said(&["thing", "--", "a"]), format!("{program} none a\n"));
    assert_eq!(said(&["web"]), format!("{program} sweet default\n"));
    assert_eq!(said(&["web", "--", "a", "b"]), format!("{program} sweet a b\n"));
    for isolated in [&["--isolated", "web"][..], &["web", "--network", "none"]] {
        let said = said(isolated);
        assert!(said.ends_with("/bin/thing sweet default\n"), "{isolated:?}: {said}");
    }
    let shell = place.run(&["shell", "-q", "user", "--", "thing", "c"]).exits(5);
    assert_eq!(shell.stdout, format!("{program} none c\n"));
    let own = place.run(&["run", "own"]).exits(2);
    own.says(&["own root", "layerize run --isolated own"]);
    place
        .run(&["run", "web", "--program", "x"])
        .exits(2)
        .says(&["--entrypoint"]);
    let package = place.run(&["run", "--isolated", "user"]).exits(2);
    package.says(&["without `--isolated`"]);
}

#[test]
fn a_shell_is_opened_in_an_image() {
    let place = Place::new();
    let more = "\n[package.data]\nsource = \"data\"\n\n[image.none]\ncontents = [\"data\"]\n";
    place.write("layerize.toml", &(BOX.to_owned() + more));
    place.write("data/bin/tool", "#!/bin/sh\necho the tool $1\n");
    let tool = place.project.join("data/bin/tool");
    std::fs::set_permissions(tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    place.run(&["build", "box"]).success();
    for image in ["box", "docker-archive:box.tar"] {
        let ran = place
            .run(&["shell", "-q", image, "-c", "echo $A; pwd; exit 3"])
            .exits(3);
        assert_eq!(ran.stdout, "1\n/srv/app\n", "{image}");
        let ran = place.run(&["shell", "-q", image, "--", "id", "-u"]).success();
        assert_eq!(ran.stdout, "1000\n", "{image}");
    }
    place
        .run(&["shell", "-q", "box", "--", "nothing"])
        .exits(127)
        .says(&["nothing"]);
    place
        .run(&["shell", "none"])
        .exits(2)
        .says(&["the image `none` has no shell", "debug = true"]);
    place
        .run(&["shell", "--pure", "box"])
        .exits(2)
        .says(&["`box` is an image", "--pure"]);
    // A package without a script has no build whose environment there could be.
    let said = place.run(&[
        "shell",
        "-q",
        "data",
        "-c",
        "tool one; ls $package_data; echo $LAYERIZE_SHELL",
    ]);
    assert_eq!(said.success().stdout, "the tool one\nbin\ndata\n");
    assert_eq!(
        place
            .run(&["shell", "-q", "data", "--", "tool", "two"])
            .success()
            .stdout,
        "the tool two\n"
    );
    place
        .run(&["shell", "--pure", "data"])
        .exits(2)
        .says(&["has no script"]);
}
