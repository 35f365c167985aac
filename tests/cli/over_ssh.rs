//! `layerize copy-closure`: two machines, as two homes, over a real sshd on loopback; and machines that are not what they say.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{LAYERIZE, Place, Ran, have, is_root, peer, skipped};

/// A program of the store that shows what another package has.
const SPEC: &str = r#"
[package.data]
source = { path = "data" }
script = 'mkdir -p $out/share; cp word blob $out/share'

[package.hello]
runtime = ["data"]
script = '''
mkdir -p $out/bin $out/share/man/man1 $out/share/bash-completion/completions
printf '#!/bin/sh\ncat %s/share/word\n' $package_data > $out/bin/hello
chmod +x $out/bin/hello
echo hello > $out/share/man/man1/hello.1
echo hello > $out/share/bash-completion/completions/hello
'''
"#;

/// An sshd of its own, which ends when it is dropped.
pub struct Machine {
    /// The home there, with its store.
    pub home: Place,
    dir: PathBuf,
    sshd: Child,
    port: u16,
}

impl Machine {
    /// A machine that `ssh box` of `here` reaches; `None` where there is no sshd.
    pub fn start(here: &Place) -> Option<Self> {
        if !have("/usr/sbin/sshd", &["-V"]) && !have("ssh-keygen", &["-?"]) {
            return None;
        }
        let (home, dir) = (Place::new(), here.path().join("ssh"));
        fs::create_dir(&dir).unwrap();
        for key in ["host", "id"] {
            let mut generate = Command::new("ssh-keygen");
            peer(
                generate
                    .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                    .arg(dir.join(key)),
            );
        }
        if is_root() {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // The programs of the machine that is called are those of a login there.
        let programs = home.path().join("programs");
        fs::create_dir(&programs).unwrap();
        std::os::unix::fs::symlink(LAYERIZE, programs.join("layerize")).unwrap();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {0}/host\nAuthorizedKeysFile {0}/id.pub\nPidFile none\nUsePAM no\n\
             StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n\
             SetEnv HOME={1} XDG_DATA_HOME={1}/data XDG_CONFIG_HOME={1}/config PATH={2}:/usr/bin:/bin\n",
            dir.display(),
            home.path().display(),
            programs.display()
        );
        fs::write(dir.join("sshd_config"), config).unwrap();
        let key = fs::read_to_string(dir.join("host.pub")).unwrap();
        fs::write(dir.join("known"), format!("[127.0.0.1]:{port} {key}")).unwrap();
        let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
        let config = format!(
            "Host box\n  HostName 127.0.0.1\n  Port {port}\n  User {user}Host *\n  IdentityFile {0}/id\n  IdentitiesOnly yes\n  \
             UserKnownHostsFile {0}/known\n  StrictHostKeyChecking yes\n  BatchMode yes\n",
            dir.display()
        );
        fs::write(dir.join("config"), config).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        let mut sshd = Command::new("/usr/sbin/sshd");
        let sshd = sshd
            .args(["-D", "-e", "-f"])
            .arg(dir.join("sshd_config"))
            .stderr(log)
            .spawn()
            .unwrap();
        let machine = Self { home, dir, sshd, port };
        machine.have_ssh("exec /usr/bin/ssh -F \"$config\" \"$@\"");
        let started = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", machine.port)).is_err() {
            let log = || fs::read_to_string(machine.dir.join("log")).unwrap();
            assert!(
                started.elapsed() < Duration::from_secs(20),
                "sshd does not listen: {}",
                log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(machine)
    }

    /// Has `ssh` be this script, in which `$config` is the configuration.
    fn have_ssh(&self, script: &str) {
        fake_ssh(
            &self.dir.join("bin"),
            &format!("config={}/config\n{script}", self.dir.display()),
        );
    }

    /// `layerize` of the machine that calls.
    pub fn command(&self, here: &Place, arguments: &[&str]) -> Command {
        let mut command = here.command(arguments);
        let bin = self.dir.join("bin");
        command.env(
            "PATH",
            format!("{}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()),
        );
        command
    }

    pub fn run(&self, here: &Place, arguments: &[&str]) -> Ran {
        Ran::of(self.command(here, arguments).output().unwrap())
    }

    /// What a program of the profile there prints.
    fn profile_runs(&self, program: &str) -> String {
        let mut command = Command::new(self.home.path().join(".local/state/layerize/profile/bin").join(program));
        self.home.prepare(&mut command);
        peer(&mut command).stdout
    }

    fn paths(&self) -> usize {
        self.home.run(&["store", "ls"]).success().stdout.lines().count()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
    }
}

pub fn fake_ssh(bin: &Path, script: &str) {
    fs::create_dir_all(bin).unwrap();
    let ssh = bin.join("ssh");
    fs::write(&ssh, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&ssh, fs::Permissions::from_mode(0o755)).unwrap();
}

fn project() -> Place {
    let place = Place::new();
    // What no compression makes small.
    let mut state = 1_u64;
    let blob: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    })
    .take(3_000_000)
    .collect();
    place.write("layerize.toml", SPEC).write("data/word", "first\n");
    fs::write(place.project.join("data/blob"), blob).unwrap();
    place.lock_base();
    place
}

#[test]
fn a_package_goes_to_a_machine_is_used_there_and_taken_back() {
    let here = project();
    let Some(machine) = Machine::start(&here) else { return };
    let ran = machine
        .run(&here, &["copy-closure", "--to", "ssh://box", "hello", "--profile"])
        .success();
    let path = ran.line().to_owned();
    assert!(path.ends_with("-hello"), "{path}");
    ran.says(&[
        "2 store paths (3.00 MB) copied to ssh://box; 0 were there before.",
        "Generation 1 of the profile is in use",
    ]);
    assert_eq!(machine.profile_runs("hello"), "first\n");
    // Why it refers to what it does is known there.
    let why = machine.home.run(&["closure", "--why", "data", &path]).success();
    assert!(why.stdout.contains("bin/hello"), "{}", why.stdout);
    assert_eq!(machine.home.run(&["store", "verify"]).success().status, 0);

    here.write("data/word", "second\n");
    machine
        .run(&here, &["copy-closure", "--to", "ssh://box", "hello", "--profile"])
        .success()
        .says(&[
            "Generation 2 of the profile is in use at ssh://box (before: 1)",
            "`ssh box layerize rollback 1`",
        ]);
    assert_eq!(machine.profile_runs("hello"), "second\n");
    let back = Command::new(machine.dir.join("bin/ssh"))
        .args(["box", "layerize", "rollback"])
        .output()
        .unwrap();
    Ran::of(back).success();
    assert_eq!(machine.profile_runs("hello"), "first\n");
    machine.home.run(&["store", "gc", "--all"]).success();
    assert_eq!(machine.paths(), 4, "both generations stay");

    // A third machine takes it from there, by its name and by its path.
    let third = Place::new();
    let ran = machine
        .run(&third, &["copy-closure", "--from", "ssh://box", "hello"])
        .success();
    assert_eq!(ran.line(), path);
    ran.says(&["2 store paths (3.00 MB) copied from ssh://box"]);
    machine
        .run(&third, &["copy-closure", "--from", "ssh://box", &path])
        .success()
        .says(&["2 were there before"]);
    assert_eq!(third.run(&["run", &path]).success().stdout, "first\n");
    machine
        .run(&third, &["copy-closure", "--from", "ssh://box", "helo"])
        .exits(2)
        .says(&["nothing called `helo`"]);
    // For programs: one object, of the copy and of what is in use there.
    let ran = machine
        .run(
            &here,
            &["--json", "copy-closure", "--to", "ssh://box", "hello", "--profile"],
        )
        .success();
    let value: Value = serde_json::from_str(ran.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&value["generation"], &value["previous"]),
        (&json!(3), &json!(1)),
        "{value}"
    );
    let from = ["copy-closure", "--from", "ssh://box", "hello", "--priority", "4"];
    machine.run(&here, &from).exits(2).says(&["--priority"]);
}

#[test]
fn what_was_cut_goes_on_from_where_it_was() {
    let here = project();
    let Some(machine) = Machine::start(&here) else { return };
    let small: Vec<String> = (0..4)
        .map(|number| {
            here.write(&format!("tree{number}/file"), &format!("{number}"));
            here.run(&["store", "add", &format!("tree{number}")])
                .success()
                .line()
                .to_owned()
        })
        .collect();
    let big = here.run(&["store", "add", "data"]).success().line().to_owned();
    let paths: Vec<&str> = small.iter().chain([&big]).map(String::as_str).collect();
    let arguments = [&["copy-closure", "--to", "ssh://box"][..], &paths].concat();
    // The connection takes so many bytes, and is gone.
    machine.have_ssh("dd bs=64k count=1500000 iflag=count_bytes status=none | /usr/bin/ssh -F \"$config\" \"$@\"");
    machine.run(&here, &arguments).exits(2).says(&[
        "the connection to `ssh://box` was lost while it was to take what is sent",
        "run the same command again",
    ]);
    let arrived = machine.paths();
    assert!(arrived < 5, "{arrived}");
    machine.have_ssh("exec /usr/bin/ssh -F \"$config\" \"$@\"");
    let summary = format!("{} store paths", 5 - arrived);
    machine.run(&here, &arguments).success().says(&[
        &summary.replace("1 store paths", "1 store path"),
        &format!("{arrived} were there before"),
    ]);
    assert_eq!(machine.paths(), 5);
    assert_eq!(machine.home.run(&["store", "verify"]).success().status, 0);

    // ssh is killed in the middle of what comes from there.
    let third = Place::new();
    // (Without the kill it would wait where all has been sent: a pipe that is closed is seen by whoever writes to it.)
    let here_it_ends = "dd bs=64k count=1500000 iflag=count_bytes status=none; kill -9 $(cat \"$config.pid\")";
    machine.have_ssh(&format!(
        "{{ {{ /usr/bin/ssh -F \"$config\" \"$@\" <&3 & echo $! > \"$config.pid\"; wait; }} | {{ {here_it_ends}; }}; }} 3<&0"
    ));
    let arguments = [&["copy-closure", "--from", "ssh://box"][..], &paths].concat();
    machine
        .run(&third, &arguments)
        .exits(2)
        .says(&["was lost while it was to send"]);
    machine.have_ssh("exec /usr/bin/ssh -F \"$config\" \"$@\"");
    machine.run(&third, &arguments).success();
    assert_eq!(third.run(&["store", "ls"]).success().stdout.lines().count(), 5);
}

#[test]
fn what_is_wrong_with_a_machine_is_told() {
    let here = Place::new();
    let Some(machine) = Machine::start(&here) else { return };
    here.write("tree/bin/tool", "#!/bin/sh\n");
    let path = here.run(&["store", "add", "tree"]).success().line().to_owned();
    let to = |address: &str| machine.run(&here, &["copy-closure", "--to", address, &path]).exits(2);
    to("ssh://nowhere.invalid").says(&[
        "Could not resolve",
        "see that the host's name is right",
        "ssh nowhere.invalid",
    ]);
    to("ssh://127.0.0.1:1").says(&["Connection refused", "sshd listens"]);
    to("ssh://box?program=/opt/nothing").says(&["`ssh://box` has no `/opt/nothing`", "?program="]);
    to("ssh://box?program=/bin/echo").says(&["does not begin as layerize does, but with `serve-store"]);
    to("ssh://box?program=/bin/false").says(&["ended with status 1 before it said anything"]);
    to("box").says(&["it does not begin with `ssh://`"]);
    to("ssh://-oProxyCommand=id").says(&["begins with `-`"]);
    machine.run(&here, &["copy-closure", &path]).exits(2).says(&["--to"]);
    machine
        .run(&here, &["copy-closure", "--to", "ssh://box", "--profile", &path])
        .exits(2)
        .says(&["has nothing to install"]);

    // A store that is somebody else's, and a disk that is full.
    let store = machine.home.path().join("foreign");
    let foreign = format!("ssh://box?store={}", store.display());
    machine
        .home
        .run(&["--store", &store.display().to_string(), "store", "ls"])
        .success();
    if is_root() {
        // Root may write anywhere but to a disk that nobody may write to.
        let dir = store.display().to_string();
        let bound = Command::new("mount").args(["--bind", "-o", "ro", &dir, &dir]).status();
        if bound.is_ok_and(|status| status.success()) {
            to(&foreign).says(&["the store at `ssh://box` cannot be written to", "?store=/DIR"]);
            peer(Command::new("umount").arg("-l").arg(&dir));
        } else {
            skipped("nothing can be mounted here");
        }
        let full = machine.home.path().join("full");
        fs::create_dir(&full).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=3M", "tmpfs"])
            .arg(&full)
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            fs::write(here.project.join("tree/blob"), vec![7; 4_000_000]).unwrap();
            let big = here.run(&["store", "add", "tree"]).success().line().to_owned();
            let address = format!("ssh://box?store={}/s", full.display());
            let ran = machine.run(&here, &["copy-closure", "--to", &address, &big]).exits(2);
            peer(Command::new("umount").arg("-l").arg(&full));
            ran.says(&["cannot take what is sent", "has room for", "there: free some space"]);
        } else {
            skipped("nothing can be mounted here");
        }
    } else {
        skipped("only root can mount a disk");
    }
}

/// A message as the protocol has it.
pub fn frame(message: &Value) -> Vec<u8> {
    let text = message.to_string();
    [&u32::try_from(text.len()).unwrap().to_le_bytes()[..], text.as_bytes()].concat()
}

pub fn hello(oldest: u32, newest: u32) -> Vec<u8> {
    let hello = json!({
        "oldest": oldest, "newest": newest, "program": "9.9", "store_dir": "/layerize/store", "writable": true,
    });
    [b"layerize-store\n".to_vec(), frame(&hello)].concat()
}

/// A path, what is said of it, and its archive.
pub fn described(place: &Place, name: &str) -> (String, Value, Vec<u8>) {
    let path = place.run(&["store", "add", name]).success().line().to_owned();
    let info = place.run(&["--json", "store", "info", &path]).success().stdout;
    let info: Value = serde_json::from_str(&info).unwrap();
    let base = path.strip_prefix("/layerize/store/").unwrap();
    let member = json!({
        "path": base, "nar-hash": info["narHash"], "nar-size": info["narSize"], "references": [],
        "self-reference": false, "address": {"by": "tree", "hash": info["narHash"]}, "walls": "namespaces",
    });
    let mut archive = Vec::new();
    layerize::nar::write(&place.store().join("store").join(base), &mut archive).unwrap();
    (path, member, archive)
}

pub fn closure(members: &[&Value], root: &Value) -> Vec<u8> {
    frame(&json!({"answer": "closure", "members": members, "roots": [root]}))
}

pub fn sent(archive: &[u8]) -> Vec<u8> {
    let mut all = frame(&json!({"answer": "archive"}));
    for piece in archive.chunks(1 << 20) {
        all.extend(u32::try_from(piece.len()).unwrap().to_le_bytes());
        all.extend(piece);
    }
    all.extend([0; 4]);
    all
}

/// What a machine says that is asked for `member`, and why it is refused.
fn lies(member: &Value, other: &Value, archive: &[u8]) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let root = &member["path"];
    let changed = |key: &str, value: Value| {
        let mut changed = member.clone();
        changed[key] = value;
        closure(&[&changed], root)
    };
    let mut wrong = archive.to_vec();
    let place = archive.windows(8).position(|bytes| bytes == b"text\0\0\0\0").unwrap();
    wrong[place..place + 4].copy_from_slice(b"TEXT");
    let longer = [archive, &[0; 8]].concat();
    let failed = json!({"answer": "failed", "failure": {"message": "\u{1b}[31mno", "help": null}});
    let then = |archive: &[u8]| [closure(&[member], root), sent(archive)].concat();
    vec![
        ("another", closure(&[other], &other["path"]), "it gives `"),
        (
            "one too many",
            closure(&[other, member], root),
            "for which it was not asked",
        ),
        ("twice", closure(&[member, member], root), "twice"),
        ("nothing", closure(&[], root), "does not give"),
        ("not sent", changed("references", json!([other["path"]])), "refers to"),
        (
            "unsigned",
            changed("address", json!({"by": "derivation"})),
            "nobody signed it",
        ),
        ("huge", changed("nar-size", json!(1_u64 << 60)), "has room for"),
        ("escapes", changed("path", json!("../../x")), "not a store path"),
        ("other bytes", then(&wrong), "does not match"),
        ("more bytes", then(&longer), "cannot take"),
        ("something else", frame(&json!({"answer": "added"})), "something else"),
        ("garbage", vec![4, 0, 0, 0, 1, 2, 3, 4], "makes no sense"),
        ("a huge message", vec![0xff; 64], "where there may be"),
        ("its end", Vec::new(), "was lost"),
        ("colours", frame(&failed), "no"),
    ]
}

/// Machines that say what they like: nothing of it is taken.
#[test]
fn what_a_hostile_machine_says_is_refused() {
    let (honest, victim) = (Place::new(), Place::new());
    honest.write("tree/file", "text").write("other/file", "other");
    let (path, member, archive) = described(&honest, "tree");
    let (_, other, _) = described(&honest, "other");
    let (bin, said) = (victim.path().join("bin"), victim.path().join("said"));
    fake_ssh(&bin, &format!("cat {}; timeout 1 cat >/dev/null", said.display()));
    let ask = |answer: &[u8]| {
        fs::write(&said, answer).unwrap();
        let mut command = victim.command(&["copy-closure", "--from", "ssh://x", &path]);
        command.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
        Ran::of(command.output().unwrap())
    };
    for (name, answer, expected) in lies(&member, &other, &archive) {
        let ran = ask(&[hello(1, 1), answer].concat()).exits(2);
        assert!(ran.stderr.contains(expected), "{name}: {}", ran.stderr);
        assert!(!ran.stderr.contains('\u{1b}'), "{name}: {}", ran.stderr);
        assert_eq!(victim.run(&["store", "ls"]).success().stdout, "", "{name}");
    }
    let newer = "speaks versions 2 to 3 of the protocol, this one 1\nhelp: update the layerize here";
    let noise = "but with `Welcome to x!`\nhelp: a start file";
    for (answer, expected) in [
        (hello(2, 3), newer),
        (hello(0, 0), "update the layerize there"),
        (b"Welcome to x!\nlayerize-store\n".to_vec(), noise),
    ] {
        let ran = ask(&answer).exits(2);
        assert!(ran.stderr.contains(expected), "{}", ran.stderr);
    }
    // The same machine, honest.
    let good = [hello(1, 1), closure(&[&member], &member["path"]), sent(&archive)].concat();
    ask(&good).success();
    assert_eq!(victim.run(&["store", "ls"]).success().line(), path);
}

#[test]
fn scripts_run_at_a_machine_and_what_they_make_is_the_same() {
    let here = project();
    let Some(machine) = Machine::start(&here) else { return };
    here.write(
        "layerize.toml",
        &format!("{SPEC}\n[package.bad]\nscript = '''\necho about to fail\nsh -c 'exit 7'\n'''\n\n[image.hello]\ncontents = [\"hello\"]\n"),
    );
    let build = ["build", "hello", "-o", "oci:out"];
    let local = {
        let other = here.elsewhere();
        other.lock_base();
        other.run(&build).success().stdout
    };
    let ran = machine
        .run(&here, &[&build[..], &["--builder", "ssh://box"]].concat())
        .success();
    assert_eq!(ran.stdout, local);
    let made = here.run(&["closure", "hello"]).success().stdout;
    let made: Vec<&str> = made.lines().filter_map(|line| line.split('\t').next()).collect();
    assert_eq!(made.len(), 2, "{made:?}");
    for path in &made {
        let [mine, theirs] = [&here, &machine.home].map(|place| {
            let info = place.run(&["--json", "store", "info", path]).success().stdout;
            serde_json::from_str::<Value>(&info).unwrap()
        });
        assert_eq!(mine, theirs, "its evidence, its derivation and its walls");
        assert!(mine["derivation"].is_string(), "{mine}");
    }
    // Again nothing is to be done, and nobody is called.
    let mut again = here.command(&[&build[..], &["--builder", "ssh://nowhere.invalid"]].concat());
    assert_eq!(Ran::of(again.output().unwrap()).success().stdout, local);

    let bad = |builder: &str| machine.run(&here, &["build", "bad", "--builder", builder]).exits(2);
    let ran = bad("ssh://box");
    assert!(
        ran.stderr
            .contains("cannot build `bad`: `sh -c 'exit 7'` (line 2 of its script) failed with exit status 7"),
        "{}",
        ran.stderr
    );
    ran.says(&[
        "about to fail",
        &format!("the whole log: {}", here.store().join("log").display()),
    ]);
    bad("ssh://nowhere.invalid").says(&["cannot reach `ssh://nowhere.invalid`"]);
    bad("ssh://").says(&["it names no host"]);
    here.write("data/word", "other\n");
    machine
        .run(
            &here,
            &[
                "build",
                "hello",
                "--builder",
                "ssh://nowhere.invalid",
                "--builder-fallback",
            ],
        )
        .success()
        .says(&["`data` is built here instead: cannot reach `ssh://nowhere.invalid`"]);
}

/// What a machine says that was to build, with which flags, and why it is refused.
type BuilderLie = (&'static str, Vec<u8>, &'static [&'static str], &'static str);

fn lies_of_builders(thing: &Value, other: &Value, archive: &[u8]) -> Vec<BuilderLie> {
    let root = &thing["path"];
    let changed = |key: &str, value: Value| {
        let mut changed = thing.clone();
        changed[key] = value;
        made(root, closure(&[&changed], root))
    };
    let mut wrong = archive.to_vec();
    let place = archive.windows(8).position(|bytes| bytes == b"text\0\0\0\0").unwrap();
    wrong[place..place + 4].copy_from_slice(b"TEXT");
    let bytes = made(root, [closure(&[thing], root), sent(&wrong)].concat());
    let another = made(&other["path"], closure(&[other], &other["path"]));
    let weak: &[&str] = &["--require-sandbox", "namespaces"];
    vec![
        ("another", another, &[], "not called `thing`"),
        ("unknown", made(root, closure(&[other], root)), &[], "which it built"),
        (
            "a reference",
            changed("references", json!([other["path"]])),
            &[],
            "which it was not given",
        ),
        (
            "weak walls",
            changed("walls", json!("chroot")),
            weak,
            "it built behind `chroot`",
        ),
        ("huge", changed("nar-size", json!(1_u64 << 60)), &[], "has room for"),
        ("bytes", bytes, &[], "does not match"),
        ("no answer", frame(&json!({"answer": "added"})), &[], "something else"),
    ]
}

pub fn made(path: &Value, rest: Vec<u8>) -> Vec<u8> {
    [frame(&json!({"answer": "built", "path": path})), rest].concat()
}

/// A machine that builds can say what a script made, and nothing else.
#[test]
fn what_a_hostile_builder_gives_is_refused() {
    let honest = Place::new();
    honest.write("thing/file", "text").write("other/file", "other");
    let (_, thing, archive) = described(&honest, "thing");
    let (_, other, _) = described(&honest, "other");
    let victim = Place::with_script("mkdir $out; echo built here > $out/word");
    let (bin, said) = (victim.path().join("bin"), victim.path().join("said"));
    fake_ssh(&bin, &format!("cat {}; timeout 5 cat >/dev/null", said.display()));
    let missing = frame(&json!({"answer": "missing", "paths": []}));
    let line = frame(&json!({"answer": "printed", "line": "\u{1b}[2Jhello"}));
    let build = |place: &Place, answer: &[u8], more: &[&str]| {
        fs::write(&said, [&hello(1, 1)[..], &missing, &line, answer].concat()).unwrap();
        let mut command = place.command(&[&["build", "-v", "-o", "oci:out", "--builder", "ssh://x"], more].concat());
        command.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
        let ran = Ran::of(command.output().unwrap());
        assert!(!ran.stderr.contains('\u{1b}'), "{}", ran.stderr);
        ran
    };
    for (name, answer, more, expected) in lies_of_builders(&thing, &other, &archive) {
        let ran = build(&victim, &answer, more).exits(2);
        assert!(ran.stderr.contains(expected), "{name}: {}", ran.stderr);
        let listed = victim.run(&["store", "ls"]).success().stdout;
        assert!(
            !listed.contains("-thing") && !listed.contains("-other"),
            "{name}: {listed}"
        );
    }
    // What it may say, and what is done here where it lies.
    let fresh = Place::with_script("exit 9");
    let root = &thing["path"];
    let good = made(root, [closure(&[&thing], root), sent(&archive)].concat());
    build(&fresh, &good, &[]).success().says(&["-thing from ssh://x"]);
    let lie = made(root, closure(&[&other], root));
    let ran = build(&victim, &lie, &["--builder-fallback"]).success();
    ran.says(&["`thing` is built here instead", "built thing"]);
}

/// Whoever is interrupted here has nothing go on there.
#[test]
fn an_interrupt_ends_the_script_there() {
    let here = Place::with_script("echo begun; sleep 97531");
    let Some(machine) = Machine::start(&here) else { return };
    // One that is busy or far away is waited for, and that is said.
    machine.have_ssh("sleep 6; exec /usr/bin/ssh -F \"$config\" \"$@\"");
    let log = here.path().join("err");
    let mut command = machine.command(&here, &["build", "-v", "--builder", "ssh://box"]);
    let mut child = command.stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
    let sleeps = || {
        Command::new("pgrep")
            .args(["-f", "^sleep 97531"])
            .output()
            .unwrap()
            .status
            .success()
    };
    let wait = |what: &str, done: &dyn Fn() -> bool| {
        let started = Instant::now();
        while !done() {
            let text = fs::read_to_string(&log).unwrap();
            assert!(started.elapsed() < Duration::from_secs(90), "{what}: {text}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    wait("it does not begin", &sleeps);
    let text = fs::read_to_string(&log).unwrap();
    let waited = text.find("waiting for ssh://box to answer");
    assert!(waited.is_some() && waited < text.find("building"), "{text}");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    wait("it goes on", &|| !sleeps());
    assert_eq!(machine.home.run(&["store", "verify"]).success().status, 0);
}
