//! Bad input of every kind: a clear error, exit status 2, nothing lost and nothing registered.

use std::fs;

use crate::support::{Place, Ran, copy_tree, have, peer, shared_cache};

/// A spec and what its errors must say.
#[test]
fn specs_with_errors_say_where_and_what_to_write() {
    let cases: &[(&str, &[&str])] = &[
        ("[package.a\n", &["layerize.toml:1:"]),
        ("[package.a]\nscript = 3\n", &["layerize.toml:2:10", "string"]),
        (
            "[package.a]\nscirpt = \"x\"\n",
            &["layerize.toml:2:1", "`scirpt`", "`script`"],
        ),
        (
            "[package.a]\nscript = \"x\"\ntools = [\"b\"]\n",
            &["layerize.toml:3:10", "`b`"],
        ),
        (
            "[package.aa]\nscript = \"x\"\ntools = [\"bb\"]\n[package.bb]\nscript = \"x\"\ntools = [\"aa\"]\n",
            &["aa", "bb", "→"],
        ),
        (
            "[package.a]\nsource = { url = \"file:x\", sha256 = \"12\" }\n",
            &["layerize.toml:2:", "sha256"],
        ),
        (
            "[image.a]\ncontents = [\"a\"]\nentrypoint = \"a\"\n",
            &["layerize.toml:3:14", "[\"a\"]"],
        ),
    ];
    for (spec, expected) in cases {
        let place = Place::new();
        place.write("layerize.toml", spec);
        place.run(&["build"]).exits(2).says(expected);
        assert!(
            !place.project.join("layerize.lock").exists(),
            "no lock is written for a wrong spec"
        );
    }
}

#[test]
fn all_errors_of_a_file_come_at_once() {
    let place = Place::new();
    place.write(
        "layerize.toml",
        "[package.a]\nscript = 3\nversoin = \"1\"\n[image.b]\ncontents = [\"nope\"]\n",
    );
    place
        .run(&["build"])
        .exits(2)
        .says(&["layerize.toml:2:", "layerize.toml:3:", "layerize.toml:5:"]);
}

#[test]
fn a_missing_spec_says_what_to_do() {
    Place::new()
        .run(&["build"])
        .exits(2)
        .says(&["no layerize.toml", "--file"]);
}

#[test]
fn wrong_arguments_are_status_2() {
    let place = Place::new();
    place.run(&["bild"]).exits(2).says(&["bild", "build"]);
    place
        .write("layerize.toml", "[package.hello]\nsource = \"src\"\n")
        .write("src/a", "");
    place.run(&["build", "helo"]).exits(2).says(&["`helo`", "`hello`"]);
    place
        .run(&["build", "-o", "teleport:x", "hello"])
        .exits(2)
        .says(&["teleport"]);
    place
        .run(&["build", "-o", "docker://x/Y", "hello"])
        .exits(2)
        .says(&["`x/Y`", "lower case"]);
    let listed = place.run(&["store", "ls"]).success().stdout;
    assert_eq!(listed, "", "nothing is built for a sink that cannot be written to");
}

#[test]
fn a_stale_lock_is_refused_when_locked() {
    let place = Place::new();
    place.write("layerize.toml", "[package.a]\nscript = \"x\"\n");
    place
        .run(&["build", "--locked"])
        .exits(2)
        .says(&["layerize.lock", "layerize lock"]);
}

#[test]
fn a_wrong_sha256_names_both() {
    let place = Place::new();
    place.write("data.txt", "content");
    let wrong = "0".repeat(64);
    let url = format!("file://{}", place.project.join("data.txt").display());
    let spec = format!("[package.a]\nsource = {{ url = \"{url}\", sha256 = \"{wrong}\", unpack = false }}\n");
    place.write("layerize.toml", &spec);
    // `printf content | sha256sum`
    let right = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73";
    place.run(&["build"]).exits(2).says(&[&wrong, right, "data.txt"]);
    place.run(&["store", "verify"]).success();
}

/// Archives that would write outside their directory, or hold what a store cannot.
#[test]
fn hostile_archives_are_refused_and_leave_nothing() {
    if !have("python3", &["--version"]) {
        return;
    }
    let make = "import io, sys, tarfile
kind, path = sys.argv[1:]
with tarfile.open(path, 'w:gz') as tar:
    def add(name, type=tarfile.REGTYPE, link='', data=b'x'):
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = type, link, len(data) if type == tarfile.REGTYPE else 0
        tar.addfile(info, io.BytesIO(data))
    add('top/fine')
    if kind == 'parent': add('top/../../escape')
    if kind == 'absolute': add('/../tmp/layerize-escape')
    if kind == 'symlink':
        add('top/out', tarfile.SYMTYPE, '/tmp')
        add('top/out/layerize-escape')
    if kind == 'device': add('top/null', tarfile.CHRTYPE)
    if kind == 'fifo': add('top/fifo', tarfile.FIFOTYPE)
";
    for (kind, named) in [
        ("parent", "escape"),
        // An absolute name loses its first slash, as GNU tar has it; what is left must still stay inside.
        ("absolute", "tmp/layerize-escape"),
        ("symlink", "top/out"),
        ("device", "top/null"),
        ("fifo", "top/fifo"),
    ] {
        let place = Place::new();
        let archive = place.project.join("a.tar.gz");
        peer(
            std::process::Command::new("python3")
                .args(["-c", make, kind])
                .arg(&archive),
        );
        let url = format!("file://{}", archive.display());
        place.write(
            "layerize.toml",
            &format!("[package.a]\nsource = {{ url = \"{url}\" }}\n"),
        );
        place.run(&["build"]).exits(2).says(&[named]);
        assert!(!fs::exists("/tmp/layerize-escape").unwrap());
        assert!(!place.project.parent().unwrap().join("escape").exists());
        place.run(&["store", "verify"]).success();
        assert_eq!(
            place.run(&["store", "ls"]).success().stdout,
            "",
            "nothing is registered"
        );
    }
}

#[test]
fn a_failed_build_shows_command_status_log_and_where_the_rest_is() {
    let place = Place::with_script("for i in $(seq 100); do echo line $i; done\nmkdir /build/marker\nfalse");
    let failed = place
        .run(&["build", "thing"])
        .exits(2)
        .says(&["thing", "false", "status 1", "line 100", "line 80", ".log"]);
    assert!(!failed.stderr.contains("line 70\n"), "only the last 25 lines are shown");
    let kept = place.run(&["build", "--keep-failed", "thing"]).exits(2);
    let dir = kept
        .stderr
        .split(['`', ' ', '\n'])
        .map(std::path::Path::new)
        .find(|path| path.is_absolute() && path.is_dir() && !path.starts_with("/layerize"))
        .unwrap_or_else(|| panic!("the kept directory is named:\n{}", kept.stderr));
    assert!(
        dir.join("marker").is_dir() || dir.join("build/marker").is_dir(),
        "{}",
        dir.display()
    );
}

#[test]
fn builds_that_break_the_rules_fail_and_say_why() {
    let cases: &[(&str, &[&str])] = &[
        ("true", &["$out"]),
        ("echo x > /usr/file", &["Read-only file system"]),
        ("mkdir $out; echo x > /layerize/store/other", &["`other`", "$out"]),
        ("exec 3<>/dev/tcp/192.0.2.1/80", &["unreachable"]),
        ("mkfifo $out", &["fifo"]),
        ("mkdir $out; mkfifo $out/pipe", &["pipe"]),
    ];
    for (script, expected) in cases {
        let place = Place::with_script(script);
        place.run(&["build", "thing"]).exits(2).says(expected);
        let listed = place.run(&["store", "ls"]).success().stdout;
        assert!(!listed.contains("-thing"), "{script}: nothing is registered:\n{listed}");
    }
}

#[test]
fn a_build_that_never_ends_is_ended() {
    let place = Place::new();
    place.write(
        "layerize.toml",
        "[package.thing]\ntimeout = \"2s\"\nscript = \"sleep 1000 & sleep 1000\"\n",
    );
    place.lock_base();
    place
        .run(&["build", "thing"])
        .exits(2)
        .says(&["thing", "2 s", "timeout"]);
}

#[test]
fn a_truncated_deb_is_refused() {
    let place = Place::with_script("mkdir $out");
    // The first package of the lock stands for any: a mirror has half of it, and nobody else has any of it.
    place.run(&["build", "thing"]).success();
    let lock = fs::read_to_string(place.project.join("layerize.lock")).unwrap();
    let sha256 = lock
        .lines()
        .find_map(|line| line.strip_prefix("sha256 = \"")?.strip_suffix('"'))
        .expect("a locked package")
        .trim_start_matches("sha256:")
        .to_owned();
    let mirror = place.path().join("mirror");
    let filename = lock
        .lines()
        .find_map(|line| line.strip_prefix("filename = \"")?.strip_suffix('"'))
        .unwrap();
    let deb = mirror.join(filename);
    fs::create_dir_all(deb.parent().unwrap()).unwrap();
    fs::write(&deb, "!<arch>\ndebian-binary").unwrap();
    let cache = place.path().join("own-cache");
    copy_tree(&shared_cache().join("layerize/fetch"), &cache.join("layerize/fetch"));
    fs::remove_file(cache.join("layerize/fetch/sha256").join(&sha256)).unwrap();
    place.write(
        "../config/layerize/config.toml",
        &format!("[debian]\nmirrors = [\"{}\"]\n", mirror.display()),
    );
    let mut command = place.command(&["build", "--offline", "--store", "fresh-store", "thing"]);
    let ran = Ran::of(command.env("XDG_CACHE_HOME", &cache).output().unwrap());
    ran.exits(2)
        .says(&["21 bytes", deb.file_name().unwrap().to_str().unwrap()]);
}

/// A value that a flag takes is checked while the arguments are parsed, by the check that a spec's value has, and what
/// that advises is told here too.
#[test]
fn wrong_values_of_flags_say_what_is_right() {
    let place = Place::new();
    let cases: &[(&[&str], &[&str])] = &[
        (
            &["--platform", "amd64"],
            &["`amd64` is not a platform", "`linux/amd64`"],
        ),
        (
            &["--platform", "linux/amd64,arm64"],
            &["`arm64` is not a platform", "OS/ARCHITECTURE"],
        ),
        (
            &["--compression", "gzip:99"],
            &[
                "`gzip:99` is not a compression: gzip's levels are 1 to 12",
                "help: write `gzip`",
            ],
        ),
        (
            &["--max-layers", "0"],
            &["`0` is not a limit of layers: it must be a number from 1 to 500"],
        ),
        (
            &["--strategy", "chrun"],
            &["`chrun` is not a layer strategy", "help: the strategies are `churn`"],
        ),
        (
            &["--tar-profile", "n2c"],
            &["`n2c` is not a tar profile", "help: the profiles are `layerize`"],
        ),
        (
            &["--port", "8080:80"],
            &["`8080:80` is not a port", "help: write `\"80/tcp\"`"],
        ),
    ];
    for (flags, expected) in cases {
        let args = [&["build", "x"], *flags].concat();
        place.run(&args).exits(2).says(expected);
        assert!(!place.project.join("layerize.lock").exists(), "{flags:?}");
    }
    for verb in [
        &["inspect", "a.tar"][..],
        &["verify", "a.tar"],
        &["explain", "a.tar", "/x"],
        &["diff", "a.tar", "b.tar"],
        &["copy", "a.tar", "b.tar"],
        &["rebuild", "a.tar"],
    ] {
        let args = [verb, &["--platform", "arm"]].concat();
        place.run(&args).exits(2).says(&["`arm` is not a platform"]);
    }
    place
        .run(&["sbom", "oci:x", "--platform", "linux/amd64,linux/arm64"])
        .exits(2)
        .says(&["names 2 platforms", "name one of them"]);
}

/// A stream may have no end: what does not begin as an archive is refused after its first bytes, by every verb that reads
/// images, and nothing is spooled for it.
#[test]
fn endless_streams_are_refused_at_once() {
    let place = Place::new();
    place.write(
        "layerize.toml",
        "[package.a]\nsource = \"a\"\n\n[image.a]\ncontents = [\"a\"]\n",
    );
    place.write("a/file", "x");
    place.run(&["build", "a", "-o", "docker-archive:a.tar"]).success();
    place.run(&["key", "generate", "own"]).success();
    for stream in ["/dev/zero", "/dev/full", "/dev/urandom"] {
        for verb in [
            &["inspect", "@"][..],
            &["inspect", "--layers", "@"],
            &["verify", "@"],
            &["explain", "@", "/f"],
            &["diff", "@", "a.tar"],
            &["diff", "a.tar", "@"],
            &["sbom", "@"],
            &["copy", "@", "oci:copied:v1"],
            &["verify-signature", "@", "--key", "own.pub"],
            &["build", "a", "--base", "@", "-o", "b.tar"],
        ] {
            let args: Vec<&str> = verb.iter().map(|arg| if *arg == "@" { stream } else { arg }).collect();
            let started = std::time::Instant::now();
            let ran = place.run(&args);
            assert!(matches!(ran.status, 1 | 2), "{args:?}: {} {}", ran.status, ran.stderr);
            assert!(started.elapsed().as_secs() < 10, "{args:?}: {:?}", started.elapsed());
        }
    }
}

/// What a script passes on from outside as an argument, and what a file is called, are texts from outside as well.
#[test]
fn arguments_and_names_of_files_are_escaped() {
    let place = Place::new();
    place.write(
        "layerize.toml",
        "[package.a]\nsource = \"a\"\n\n[image.a]\ncontents = [\"a\"]\n",
    );
    place.write("a/file", "x");
    place.run(&["build", "a", "-o", "docker-archive:a.tar"]).success();
    place.run(&["key", "generate", "own"]).success();
    let controls = "b\u{1b}[2J\u{7}\u{202e}\u{9b}";
    let forged = format!("{controls}\nerror: forged");
    let sign = ["sign", "a.tar", "--key", "own.key", "-o", &forged];
    place.run(&sign).success();
    for verb in [
        &["verify-signature", "a.tar", "--key", "own.pub", "--bundle", &forged][..],
        &["key", "generate", &forged],
        &["inspect", &forged],
        &["build", &forged],
        &["--store", &forged, "store", "roots"],
        &["store", "add", &forged],
        &["completions", controls],
        &["auth", controls],
        &["help", controls],
        &["build", "--jobs", controls],
    ] {
        let ran = place.run(verb);
        for text in [&ran.stdout, &ran.stderr] {
            let is_raw = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
            assert!(!text.contains(is_raw), "{verb:?}: {text:?}");
            assert!(
                !text.lines().any(|line| line.starts_with("error: forged")),
                "{verb:?}: {text}"
            );
        }
    }
}
