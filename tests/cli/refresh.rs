//! Locks and what archives do to them: versions that went, that were replaced, archives that do not answer. The
//! archives are the tests' own, and so are the digests.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;

use crate::archive::Archive;
use crate::support::{Place, Ran, have};
use crate::web::{Reply, Server};

/// A place whose spec takes its packages from an archive of the test's own.
struct Project {
    place: Place,
    archive: Archive,
}

/// Digests of the images `data` and `thing`, as gzip, zstd and uncompressed, by format 1.
const GOLDEN: [&str; 3] = [
    "sha256:206bdcc24a5f67a21eb4b0f7b20b190de137e43aeb4048981f086deef56cbb0f sha256:353d2ce33bb1b2b718e8f1a8745af802bda4308b6a114f3e4da6718820ae3db2",
    "sha256:3e68fe9df7a2c243abbc1d440a4704876236325913d3b9ce5102b4907adc1585 sha256:010be33011e13645e6db41fcbf8f8ef272907e4e88da004c743c78c83afb3f66",
    "sha256:272eb7bc248378890f82f855d77aeb3b496b5107b43037686e8cbc342cb3c6d7 sha256:f9ba0b6eb16ed6005ae0f2668614a75d2503b1d84528f9ce6fa254c41fdd416e",
];

/// An address of this machine at which nobody listens.
const NOBODY: &str = "http://127.0.0.1:1/debian";

impl Project {
    /// `None` where apt is not on this machine.
    fn new() -> Option<Self> {
        Self::described("")
    }

    /// The same with an archive that has a Release file of these fields.
    fn described(release: &str) -> Option<Self> {
        if !have("apt-get", &["--version"]) {
            return None;
        }
        let place = Place::new();
        let mut archive = Archive::new(&place.path().join("archive"));
        archive.add("libx1", "1.0", "Source: src-x\n");
        archive.add_files(
            "prog",
            "1.0",
            "Depends: libx1\n",
            &[
                ("etc/prog.conf", 0o644, "key = value\n"),
                ("usr/bin/prog", 0o755, "#!/usr/bin/other\n"),
            ],
        );
        archive.add("other", "1.0", "");
        archive.describe(release);
        let project = Self { place, archive };
        project.write_spec(&project.archive.source_line());
        Some(project)
    }

    fn write_spec(&self, source_line: &str) {
        let debian = format!("[debian]\nsources = [\"{source_line}\"]\narchitecture = \"amd64\"\n\n");
        let image = "[image.thing]\nroot = [\"deb:prog\", \"deb:other\"]\nconfigure = false\nlabels = { a = \"b\" }\nenv = { KEY = \"value\" }\n\
             files = { \"/etc/motd\" = \"motd\" }\n";
        let package = "[package.data]\nsource = { path = \"data\" }\n\n[image.data]\ncontents = [\"data\"]\n\n";
        self.place.write("layerize.toml", &format!("{debian}{package}{image}"));
        self.place.write("motd", "hello\n").write("data/file", "data\n");
    }

    fn locked() -> Option<Self> {
        let project = Self::new()?;
        project.run(&["lock"]).success();
        Some(project)
    }

    /// Runs `layerize` with downloads of its own: what another test fetched is not to be had. apt's configuration is
    /// the machine's with the file `apt.conf` of this place.
    fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Ran {
        let place = self.place.path();
        let mut command = self.place.command(args);
        command.env("XDG_CACHE_HOME", place.join("cache"));
        if place.join("apt.conf").exists() {
            command.env("APT_CONFIG", place.join("apt.conf"));
        }
        Ran::of(command.output().unwrap())
    }

    /// As on a machine that has only the project.
    fn forget(&self) {
        for dir in ["cache", "data"] {
            layerize::fsio::remove_tree(&self.place.path().join(dir)).unwrap();
        }
    }

    fn lock_path(&self) -> PathBuf {
        self.place.project.join("layerize.lock")
    }

    fn lock(&self) -> String {
        fs::read_to_string(self.lock_path()).unwrap()
    }
}

#[test]
fn the_digest_of_own_inputs_is_what_it_was() {
    let Some(project) = Project::locked() else { return };
    let built = |compression: &str| {
        let args = ["build", "--locked", "--compression", compression];
        let built = project.run(&args).success();
        let digests: Vec<String> = built
            .stdout
            .lines()
            .map(|line| line.split(' ').next().unwrap().to_owned())
            .collect();
        digests.join(" ")
    };
    let digests = ["gzip", "zstd", "none"].map(built);
    assert_eq!(digests, GOLDEN);
    project.run(&["lock", "--golden"]).success();
    project.run(&["build", "--locked"]).success();
}

#[test]
fn a_refresh_of_what_can_be_had_writes_nothing() {
    let Some(mut project) = Project::locked() else { return };
    project.archive.add("other", "2.0", "");
    let (text, written) = (
        project.lock(),
        fs::metadata(project.lock_path()).unwrap().modified().unwrap(),
    );
    let ran = project.run(&["lock", "--refresh"]).success();
    ran.says(&["layerize.lock is current: everything in it is still available."]);
    assert_eq!(project.lock(), text);
    assert_eq!(fs::metadata(project.lock_path()).unwrap().modified().unwrap(), written);
}

#[test]
fn a_package_that_was_replaced_is_refreshed_with_what_it_needs() {
    let Some(mut project) = Project::locked() else { return };
    let old = project.lock();
    project.archive.drop_from_index("prog", "1.0");
    project.archive.add("prog", "2.0", "Depends: libx1, new\n");
    project.archive.add("new", "1.0", "");
    project.archive.add("other", "2.0", "");
    let ran = project.run(&["build", "--locked", "thing"]).exits(2);
    ran.says(&[
        "no source carries `deb:prog` 1.0 (prog_1.0_all.deb, ",
        ") any more; it was replaced by 2.0",
        "`layerize lock --refresh` takes the new version and what that needs",
    ]);
    let ran = project.run(&["lock", "--refresh"]).success();
    let ran = ran.says(&[
        "~ deb:prog 1.0 → 2.0\n",
        "+ deb:new 1.0\n",
        "layerize.lock written, 2 changed.",
    ]);
    assert!(!ran.stderr.contains("deb:other"), "{}", ran.stderr);
    let new = project.lock();
    assert_ne!(new, old);
    project.run(&["build", "--locked", "thing"]).success();
    project.run(&["lock", "--refresh"]).success().says(&["is current"]);
    assert_eq!(project.lock(), new);
}

#[test]
fn a_package_that_was_dropped_is_named() {
    let Some(mut project) = Project::locked() else { return };
    let old = project.lock();
    project.archive.drop_from_index("other", "1.0");
    let ran = project.run(&["build", "--locked", "thing"]).exits(2);
    ran.says(&[
        "no source carries `deb:other` 1.0 (other_1.0_all.deb, ",
        "), nor any other version of it",
        "name another package in the spec, or a place that has this one: `--mirror DIR`",
        "apt: not there",
    ]);
    let ran = project.run(&["lock", "--refresh"]).exits(2);
    ran.says(&["there is no Debian package `other`"]);
    assert_eq!(project.lock(), old, "a lock that cannot be refreshed is left as it is");
    // A directory that still has it will do.
    let mirror = project.place.path().join("archive").display().to_string();
    let ran = project.run(&["lock", "--refresh", "--mirror", &mirror]).success();
    ran.says(&["is current"]);
    project
        .run(&["build", "--locked", "--mirror", &mirror, "thing"])
        .success();
}

#[test]
fn an_archive_that_does_not_answer_is_not_one_that_dropped_a_package() {
    let Some(mut project) = Project::locked() else { return };
    project.archive.drop_from_index("other", "1.0");
    project.archive.add("other", "2.0", "");
    let old = project.lock();
    for command in [&["build", "--locked", "thing"][..], &["lock", "--refresh"]] {
        let ran = project.run(&[command, &["--mirror", NOBODY]].concat()).exits(2);
        ran.says(&[
            "cannot tell whether `deb:other` 1.0 (other_1.0_all.deb, ",
            &format!(") is still available: {NOBODY}: no answer"),
            "check the network and the proxy (`HTTPS_PROXY`) and run the same command again",
        ]);
        assert_eq!(project.lock(), old);
    }
    fs::write(project.place.path().join("apt.conf"), "Acquire::Retries \"0\";\n").unwrap();
    project.write_spec(&format!("deb [trusted=yes] {NOBODY} ./"));
    for command in [&["build", "--locked", "thing"][..], &["lock", "--refresh"]] {
        let ran = project.run(command).exits(2);
        ran.says(&[
            "apt could not update its package lists:",
            "nothing is known to be gone: check the network",
        ]);
        assert_eq!(project.lock(), old);
    }
}

#[test]
fn a_refresh_excludes_what_contradicts_it() {
    let Some(project) = Project::locked() else { return };
    let ran = project.run(&["lock", "--refresh", "--offline"]).exits(2);
    ran.says(&["`--refresh` asks the sources what they still have, which `--offline` forbids"]);
    for other in ["--update", "--check"] {
        let ran = project.run(&["lock", "--refresh", other]).exits(2);
        ran.says(&["cannot be used with"]);
    }
}

const RELEASE: &str = "Origin: Test\nLabel: Test\nSuite: stable\nCodename: book\nDate: Fri, 02 Jan 2026 03:04:05 UTC\n";

/// A server named in apt's own table keeps what the archive replaced: nothing is configured, and nothing has to be
/// locked anew.
#[test]
fn what_an_archive_replaced_comes_from_a_snapshot_that_apt_knows() {
    let Some(mut project) = Project::described(RELEASE) else {
        return;
    };
    project.run(&["lock"]).success();
    let lock = project.lock();
    for line in [
        "[[archive]]\nname = \"book@20260102T030405Z\"\norigin = \"Test\"\n",
        "\nname = \"prog\"\narchive = \"book@20260102T030405Z\"\nversion = \"1.0\"\n",
    ] {
        assert!(lock.contains(line), "{line} is missing in:\n{lock}");
    }
    assert!(!lock.contains("://"), "{lock}");
    let built = project.run(&["build", "--locked", "thing"]).success();

    project.archive.drop_from_index("prog", "1.0");
    project.archive.add("prog", "2.0", "Depends: libx1\n");
    project.forget();
    project.run(&["build", "--locked", "thing"]).exits(2);

    let pool = project.place.path().join("archive");
    let server = Server::start(move |path| {
        let file = path.strip_prefix("/archive/test/20260102T030405Z/").unwrap_or("none");
        fs::read(pool.join(file)).map_or_else(|_| Reply::status(404), Reply::ok)
    });
    let table = format!(
        "Acquire::Snapshots::URI::Origin::Test \"{}\";\n",
        server.url("/archive/test/@SNAPSHOTID@/")
    );
    fs::write(project.place.path().join("apt.conf"), table).unwrap();
    let again = project.run(&["build", "--locked", "thing"]).success();
    assert_eq!(again.line(), built.line());
    assert_eq!(
        server.requests("/archive/test/20260102T030405Z/pool/prog_1.0_all.deb"),
        1
    );
    assert_eq!(
        server.requests("/archive/test/20260102T030405Z/pool/other_1.0_all.deb"),
        0
    );
    project.run(&["lock", "--refresh"]).success().says(&["is current"]);
    assert_eq!(project.lock(), lock);

    // The server is gone, too: that it does not answer is said, with all that was asked.
    fs::write(
        project.place.path().join("apt.conf"),
        format!("Acquire::Snapshots::URI::Origin::Test \"{NOBODY}/@SNAPSHOTID@/\";\n"),
    )
    .unwrap();
    project.forget();
    let refused = project.run(&["build", "--locked", "thing"]).exits(2);
    refused.says(&[
        "cannot tell whether `deb:prog` 1.0 (prog_1.0_all.deb, ",
        &format!("is still available: {NOBODY}/20260102T030405Z/: no answer"),
        &format!("apt: not there, {NOBODY}/20260102T030405Z/: no answer"),
    ]);
}

/// A package with a script, and more keys.
fn write_thing(place: &Place, more: &str) {
    let script = "script = \"mkdir $out; echo hello > $out/hello\"\n";
    place.write(
        "layerize.toml",
        &format!("[package.thing]\n{script}{more}\n[image.thing]\ncontents = [\"thing\"]\n"),
    );
}

/// A stale lock is told by `--locked` and by `lock --check` as `lock` itself then tells it.
#[test]
fn a_stale_lock_is_told_as_lock_tells_it() {
    if !have("apt-get", &["--version"]) {
        return;
    }
    let place = Place::new();
    write_thing(&place, "dev = [\"deb:time\"]");
    place.run(&["lock"]).success();
    write_thing(&place, "tools = [\"deb:libzstd-dev\"]\ndev = [\"deb:time\"]");
    let refused = place.run(&["build", "--locked"]).exits(2);
    let checked = place.run(&["lock", "--check"]).exits(1);
    let before = fs::read_to_string(place.project.join("layerize.lock")).unwrap();
    assert!(!before.contains("libzstd-dev"), "nothing is written");
    // On a machine that fetched nothing the names alone are known.
    let mut command = place.command(&["build", "--locked"]);
    command.env("XDG_CACHE_HOME", place.path().join("empty"));
    let elsewhere = Ran::of(command.output().unwrap()).exits(2);
    elsewhere.says(&[
        "layerize.lock is stale:\n  package `thing`: + deb:libzstd-dev\n",
        "run `layerize lock`",
    ]);
    let locked = place.run(&["lock"]).success();
    let changes: Vec<&str> = locked.stderr.lines().filter(|line| line.starts_with("+ ")).collect();
    assert!(changes[0].starts_with("+ deb:libzstd-dev 1."), "{}", locked.stderr);
    for ran in [refused, checked] {
        let text = &ran.stderr;
        assert!(text.contains("package `thing`: + deb:libzstd-dev\n"), "{text}");
        assert!(!text.contains("coreutils"), "what every build has is no news: {text}");
        ran.says(&changes);
    }
}

/// What a shell alone has makes no locked build stale; `lock --check` and a shell ask for it.
#[test]
fn what_shells_have_makes_no_build_stale() {
    if !have("apt-get", &["--version"]) {
        return;
    }
    let place = Place::new();
    write_thing(&place, "");
    place.run(&["lock"]).success();
    let built = || {
        let built = place.run(&["build", "--locked"]).success();
        built.line().split(' ').next().unwrap().to_owned()
    };
    let plain = built();
    let told = "the shell of package `thing`: + deb:t";
    for dev in ["time", "tree"] {
        write_thing(&place, &format!("dev = [\"deb:{dev}\"]"));
        assert_eq!(built(), plain);
        place.run(&["shell", "--locked", "--", "true"]).exits(2).says(&[told]);
        place.run(&["inputs", "list", "--locked"]).exits(2).says(&[told]);
        place.run(&["lock", "--check"]).exits(1).says(&[told]);
        place.run(&["lock"]).success();
        assert_eq!(built(), plain);
    }
    write_thing(&place, "");
    assert_eq!(built(), plain);
    place.run(&["lock", "--check"]).exits(1).says(&["- deb:tree"]);
}
