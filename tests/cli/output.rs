//! Where results go: every verb that takes an output, to every kind of thing that can stand at its name.
//!
//! A result used to be renamed over whatever was there: as root, `-o /dev/null` made a file of the machine's device.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Place, Ran, is_root};

/// A verb that writes a result to a file: its arguments, `@` for the file.
struct Verb {
    name: &'static str,
    args: &'static [&'static str],
    /// The exit status when all is well.
    status: i32,
}

const fn verb(name: &'static str, args: &'static [&'static str]) -> Verb {
    Verb { name, args, status: 0 }
}

/// All of them; what `--help` calls an output and is not here is a directory, a layout or a store.
const VERBS: &[Verb] = &[
    verb("sbom", &["sbom", "app", "-o", "@"]),
    verb("sbom-of-image", &["sbom", "app.tar", "-o", "@"]),
    verb("provenance", &["provenance", "app", "-o", "@"]),
    verb("sign", &["sign", "app.tar", "--key", "own.key", "-o", "@"]),
    verb(
        "verify-signature",
        &[
            "verify-signature",
            "app.tar",
            "--key",
            "own.pub",
            "--bundle",
            "own.json",
            "-o",
            "@",
        ],
    ),
    verb(
        "rebuild",
        &["rebuild", "app.tar", "--attest", "--key", "own.key", "-o", "@"],
    ),
    verb(
        "digest-file",
        &["copy", "app.tar", "oci:copied:v1", "--digest-file", "@"],
    ),
    verb(
        "index-digest-file",
        &["index", "create", "oci:index:v1", "app.tar", "--digest-file", "@"],
    ),
    Verb {
        name: "diff-html",
        args: &["diff", "app.tar", "other.tar", "--html", "@"],
        status: 1,
    },
    verb("build", &["build", "app", "-o", "@"]),
    verb("build-docker-archive", &["build", "app", "-o", "docker-archive:@"]),
    verb("build-oci-archive", &["build", "app", "-o", "oci-archive:@"]),
    verb("copy-docker-archive", &["copy", "app.tar", "docker-archive:@"]),
    verb("copy-oci-archive", &["copy", "oci:layout:v1", "oci-archive:@"]),
    verb("index-archive", &["index", "create", "oci-archive:@", "app.tar"]),
];

fn with_image() -> Place {
    let place = Place::new();
    place.write("conf", "conf\n").write("other", "other\n").write(
        "layerize.toml",
        "[image.app]\nfiles = { \"/etc/conf\" = \"conf\" }\n\n[image.other]\nfiles = { \"/etc/conf\" = \"other\" }\n",
    );
    place.run(&["build", "-q"]).success();
    place.run(&["build", "-q", "app", "-o", "oci:layout:v1"]).success();
    place.run(&["key", "generate", "own"]).success();
    place
        .run(&["sign", "app.tar", "--key", "own.key", "-o", "own.json"])
        .success();
    place
}

fn command(place: &Place, verb: &Verb, target: &str) -> Command {
    let args: Vec<String> = verb.args.iter().map(|arg| arg.replace('@', target)).collect();
    let mut command = place.command(&args);
    // A summary names a time.
    command.env("SOURCE_DATE_EPOCH", "1");
    command
}

#[track_caller]
fn run(place: &Place, verb: &Verb, target: &str) -> Ran {
    let ran = Ran::of(command(place, verb, target).output().unwrap());
    assert_eq!(
        ran.status, verb.status,
        "{} to {target}:\n{}\n{}",
        verb.name, ran.stdout, ran.stderr
    );
    ran
}

/// What stands at the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A link to a file, to nothing in another directory, or to another link.
    LinkToFile,
    LinkToNothing,
    LinkToLink,
    Fifo,
    LinkToFifo,
    /// A copy of the machine's `/dev/null`, and of `/dev/full`, where a write fails.
    Device,
    LinkToDevice,
    FullDevice,
    Directory,
    LinkToDirectory,
    LinkToItself,
    Socket,
}

/// A target of this kind, `target` below the project, and the names that must stay what they are.
fn prepare(place: &Place, kind: Kind) -> Vec<PathBuf> {
    let path = |name: &str| place.project.join(name);
    let target = path("target");
    let run = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        crate::support::peer(command.args(args).current_dir(&place.project));
    };
    let file = |name: &str| fs::write(path(name), "before").unwrap();
    let link = |to: &str| symlink(to, &target).unwrap();
    match kind {
        Kind::LinkToFile => {
            file("real");
            link("real");
        }
        Kind::LinkToNothing => {
            fs::create_dir(path("dir")).unwrap();
            link("dir/real");
        }
        Kind::LinkToLink => {
            fs::create_dir(path("dir")).unwrap();
            file("dir/real");
            symlink("real", path("dir/second")).unwrap();
            link("./dir/second");
            return vec![target, path("dir/second")];
        }
        Kind::Fifo => run("mkfifo", &["target"]),
        Kind::LinkToFifo => {
            run("mkfifo", &["real"]);
            link("real");
            return vec![target, path("real")];
        }
        Kind::Device => run("mknod", &["target", "c", "1", "3"]),
        Kind::FullDevice => run("mknod", &["target", "c", "1", "7"]),
        Kind::LinkToDevice => {
            run("mknod", &["real", "c", "1", "3"]);
            link("real");
            return vec![target, path("real")];
        }
        Kind::Directory => fs::create_dir(&target).unwrap(),
        Kind::LinkToDirectory => {
            fs::create_dir(path("dir")).unwrap();
            link("dir");
            return vec![target, path("dir")];
        }
        Kind::LinkToItself => link("target"),
        Kind::Socket => drop(UnixListener::bind(&target).unwrap()),
    }
    vec![target]
}

fn clear(place: &Place) {
    for name in ["target", "real", "dir"] {
        layerize::fsio::remove_tree(&place.project.join(name)).unwrap();
    }
}

/// What must not change of a name that is not a regular file.
fn identity(path: &Path) -> (u64, u32, u64) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.ino(), metadata.mode(), metadata.rdev())
}

/// What each verb writes to a name where nothing is.
fn references(place: &Place) -> BTreeMap<&'static str, Vec<u8>> {
    let reference = |verb: &Verb| {
        run(place, verb, "reference");
        let path = place.project.join("reference");
        let bytes = fs::read(&path).unwrap();
        fs::remove_file(path).unwrap();
        assert!(!bytes.is_empty());
        (verb.name, bytes)
    };
    VERBS.iter().map(reference).collect()
}

/// Runs every verb with a target of this kind and hands on what it wrote, read by `read`.
fn each(kind: Kind, status: Option<i32>, check: impl Fn(&Place, &Verb, &Ran, &[u8])) {
    let place = with_image();
    let references = references(&place);
    for verb in VERBS {
        let stays = prepare(&place, kind);
        let before: Vec<_> = stays.iter().map(|path| identity(path)).collect();
        let ran = Ran::of(command(&place, verb, "target").output().unwrap());
        let status = status.unwrap_or(verb.status);
        let context = format!("{} to {kind:?}:\n{}\n{}", verb.name, ran.stdout, ran.stderr);
        assert_eq!(ran.status, status, "{context}");
        let after: Vec<_> = stays.iter().map(|path| identity(path)).collect();
        assert_eq!(before, after, "what was there was replaced: {context}");
        check(&place, verb, &ran, &references[verb.name]);
        let names = layerize::fsio::sorted_names(&place.project).unwrap();
        let left = names
            .iter()
            .any(|name| name.to_string_lossy().starts_with(".layerize-"));
        assert!(!left, "a temporary file is left: {context}");
        clear(&place);
    }
}

#[test]
fn a_regular_file_is_replaced_whole_and_keeps_its_permissions() {
    let place = with_image();
    let references = references(&place);
    let (path, other) = (place.project.join("target"), place.project.join("hard"));
    for verb in VERBS {
        fs::write(&path, vec![b'x'; 1 << 20]).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        fs::hard_link(&path, &other).unwrap();
        run(&place, verb, "target");
        let name = verb.name;
        assert!(fs::read(&path).unwrap() == references[name], "{name} wrote other bytes");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640, "{name}");
        // Written in place, a reader could have seen half of it.
        assert_eq!(fs::read(&other).unwrap().len(), 1 << 20, "{name} wrote into the file");
        fs::remove_file(&other).unwrap();
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_link_is_followed_and_stays() {
    for kind in [Kind::LinkToFile, Kind::LinkToNothing, Kind::LinkToLink] {
        each(kind, None, |place, verb, _, expected| {
            let target = place.project.join("target");
            assert!(fs::symlink_metadata(&target).unwrap().is_symlink());
            assert!(
                fs::read(&target).unwrap() == *expected,
                "{} wrote other bytes",
                verb.name
            );
        });
    }
}

#[test]
fn what_cannot_hold_a_result_is_refused_and_left_as_it_is() {
    for (kind, reason) in [
        (Kind::Directory, "it is a directory"),
        (Kind::LinkToDirectory, "it is a directory"),
        (Kind::LinkToItself, "too many symbolic links"),
        (Kind::Socket, "it is a socket"),
    ] {
        each(kind, Some(2), |place, verb, ran, _| {
            assert!(ran.stderr.contains(reason), "{}: {}", verb.name, ran.stderr);
            assert!(ran.stderr.contains("target"), "{}: {}", verb.name, ran.stderr);
            let dir = place.project.join("target");
            if dir.is_dir() {
                assert_eq!(layerize::fsio::sorted_names(&dir).unwrap().len(), 0, "{}", verb.name);
            }
        });
    }
    let place = with_image();
    for verb in VERBS {
        for (target, reason) in [
            ("absent/", "the name of a directory"),
            ("absent/file", "absent"),
            ("conf/file", "conf"),
        ] {
            let ran = Ran::of(command(&place, verb, target).output().unwrap());
            assert_eq!(ran.status, 2, "{} to {target}: {}", verb.name, ran.stderr);
            assert!(ran.stderr.contains(reason), "{} to {target}: {}", verb.name, ran.stderr);
        }
        assert!(!place.project.join("absent").exists(), "{}", verb.name);
    }
}

#[test]
fn a_pipe_takes_the_bytes_and_stays() {
    for kind in [Kind::Fifo, Kind::LinkToFifo] {
        let place = with_image();
        let references = references(&place);
        for verb in VERBS {
            let stays = prepare(&place, kind);
            let read = place.project.join("read");
            let mut reader = Command::new("cat");
            let reader = reader.arg("target").current_dir(&place.project);
            let mut reader = reader.stdout(fs::File::create(&read).unwrap()).spawn().unwrap();
            let ran = Ran::of(command(&place, verb, "target").output().unwrap());
            if ran.status != verb.status {
                // It may never have been opened, and the reader still wait.
                reader.kill().unwrap();
            }
            reader.wait().unwrap();
            assert_eq!(ran.status, verb.status, "{} to {kind:?}: {}", verb.name, ran.stderr);
            assert!(
                fs::read(&read).unwrap() == references[verb.name],
                "{} to {kind:?}",
                verb.name
            );
            let last = fs::symlink_metadata(stays.last().unwrap()).unwrap();
            assert!(last.file_type().is_fifo(), "{} replaced a pipe", verb.name);
            clear(&place);
        }
    }
}

/// Nodes are made in a directory of the test's own: the machine's are never named.
#[test]
fn a_device_takes_the_bytes_and_stays_a_device() {
    let probe = Place::new();
    let made = Command::new("mknod")
        .args(["null", "c", "1", "3"])
        .current_dir(&probe.project)
        .status();
    let usable = made.is_ok_and(|status| status.success()) && fs::write(probe.project.join("null"), "x").is_ok();
    if !usable {
        assert!(!is_root() || !crate::support::in_ci(), "root makes devices in CI");
        crate::support::skipped("making and opening devices (root, and a directory that is not mounted `nodev`)");
        return;
    }
    for kind in [Kind::Device, Kind::LinkToDevice] {
        each(kind, None, |_, _, _, _| {});
    }
    each(Kind::FullDevice, Some(2), |_, verb, ran, _| {
        assert!(
            ran.stderr.contains("No space left on device"),
            "{}: {}",
            verb.name,
            ran.stderr
        );
    });
}

#[test]
fn standard_output_holds_the_result_alone_however_it_is_called() {
    let place = with_image();
    let references = references(&place);
    for verb in VERBS {
        for target in ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"] {
            let _ = fs::remove_file(place.project.join("link"));
            symlink("/dev/stdout", place.project.join("link")).unwrap();
            let output = command(&place, verb, target).output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(
                output.status.code(),
                Some(verb.status),
                "{} to {target}: {errors}",
                verb.name
            );
            let mut expected = references[verb.name].clone();
            // A text ends with a newline on standard output.
            if target == "-"
                && verb.args.last() == Some(&"@")
                && !expected.ends_with(b"\n")
                && !expected.ends_with(b"\0")
            {
                expected.push(b'\n');
            }
            assert!(output.stdout == expected, "{} to {target}: {errors}", verb.name);
        }
    }
    for args in [
        &["build", "app", "-o", "-", "-o", "docker-archive:-"][..],
        &[
            "build",
            "app",
            "-o",
            "docker-archive:/dev/stdout",
            "-o",
            "oci-archive:-",
        ],
    ] {
        place.run(args).exits(2).says(&["standard output is given twice"]);
    }
}

/// What was written to a descriptor before stays where it is, and what is behind it is never cut or replaced.
#[test]
fn an_open_descriptor_is_written_into() {
    let place = with_image();
    let references = references(&place);
    for verb in VERBS {
        for target in ["/dev/fd/3", "/proc/self/fd/3"] {
            let mut shell = Command::new("sh");
            place.prepare(&mut shell);
            let script = "exec 3>behind; printf before >&3; \"$@\"; status=$?; printf after >&3; exit $status";
            let args: Vec<String> = verb.args.iter().map(|arg| arg.replace('@', target)).collect();
            shell.args(["-c", script, "sh", crate::support::LAYERIZE]).args(args);
            let ran = Ran::of(shell.env("SOURCE_DATE_EPOCH", "1").output().unwrap());
            assert_eq!(ran.status, verb.status, "{} to {target}: {}", verb.name, ran.stderr);
            let behind = fs::read(place.project.join("behind")).unwrap();
            let own = behind.strip_prefix(b"before".as_slice());
            // The shell's own place in the file did not move, so that what it adds goes over the first bytes.
            let expected = &references[verb.name];
            let expected = [&b"after"[..], expected.get(5..).unwrap_or_default()].concat();
            assert!(own == Some(expected.as_slice()), "{} to {target}", verb.name);
        }
    }
}

/// Images are read from standard input by the same names.
#[test]
fn an_archive_is_read_from_standard_input() {
    let place = with_image();
    let digest = place.inspect("app.tar")["digest"].clone();
    for source in ["-", "docker-archive:-", "docker-archive:/dev/stdin"] {
        let mut command = place.command(&["inspect", "--json", source]);
        command.stdin(fs::File::open(place.project.join("app.tar")).unwrap());
        let ran = Ran::of(command.output().unwrap()).success();
        let inspected: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(inspected["digest"], digest, "{source}");
    }
}

/// The lock and a kept plan may be links too, as where a project is checked out in pieces.
#[test]
fn files_of_the_project_that_are_links_stay_links() {
    let place = Place::new();
    place.write("data/conf", "conf\n").write(
        "layerize.toml",
        "[package.data]\nsource = \"data\"\n\n[image.app]\ncontents = [\"data\"]\nlayers = { plan = \"app.plan.json\" }\n",
    );
    for name in ["layerize.lock", "app.plan.json", "app.spdx.json"] {
        fs::create_dir_all(place.project.join("elsewhere")).unwrap();
        symlink(Path::new("elsewhere").join(name), place.project.join(name)).unwrap();
    }
    place.run(&["lock"]).success();
    place.run(&["build", "--sbom", "spdx", "--beside"]).success();
    for name in ["layerize.lock", "app.plan.json", "app.spdx.json"] {
        let link = place.project.join(name);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink(), "{name} was replaced");
        assert!(
            place.project.join("elsewhere").join(name).is_file(),
            "{name} was not followed"
        );
    }
}
