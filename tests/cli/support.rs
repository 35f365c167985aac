//! A place of its own for each test: a cleared environment, own home and store, and the real peers.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use layerize::fsio::{FileLock, LockKind};

/// The program under test.
pub const LAYERIZE: &str = env!("CARGO_BIN_EXE_layerize");

/// Debian packages that many tests build with: a C compiler, Go, Rust, Node, Python.
pub const C: &[&str] = &["gcc", "make", "libc6-dev"];
pub const GO: &[&str] = &["golang-go", "gcc", "libc6-dev"];
pub const RUST: &[&str] = &["cargo-web", "rustc-web", "gcc", "libc6-dev", "pkg-config"];
pub const NODE: &[&str] = &["nodejs"];
pub const PYTHON: &[&str] = &["python3", "libstdc++6"];

/// A directory with a home, a store and a project in it, removed at the end.
pub struct Place {
    dir: tempfile::TempDir,
    /// Where commands run.
    pub project: PathBuf,
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub stdout: String,
    pub stderr: String,
    pub status: i32,
}

impl Ran {
    pub fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
        Self {
            stdout: text(output.stdout),
            stderr: text(output.stderr),
            status: output.status.code().unwrap_or(-1),
        }
    }

    #[track_caller]
    pub fn success(self) -> Self {
        self.exits(0)
    }

    #[track_caller]
    pub fn exits(self, status: i32) -> Self {
        assert_eq!(
            self.status, status,
            "stdout:\n{}\nstderr:\n{}",
            self.stdout, self.stderr
        );
        self
    }

    /// Asserts that standard error holds each of these texts.
    #[track_caller]
    pub fn says(self, texts: &[&str]) -> Self {
        for text in texts {
            assert!(self.stderr.contains(text), "`{text}` is missing in:\n{}", self.stderr);
        }
        self
    }

    /// The only line of standard output.
    #[track_caller]
    pub fn line(&self) -> &str {
        let mut lines = self.stdout.lines();
        let line = lines
            .next()
            .unwrap_or_else(|| panic!("no line on standard output; stderr:\n{}", self.stderr));
        assert_eq!(lines.next(), None, "one line was expected:\n{}", self.stdout);
        line
    }
}

impl Place {
    /// A new place with an empty project.
    pub fn new() -> Self {
        Self::in_dir(tempfile::tempdir().unwrap())
    }

    /// The same on a disk, wherever tests have their files else: in memory the order of a directory does not vary.
    pub fn on_disk() -> Self {
        Self::in_dir(tempfile::tempdir_in("/var/tmp").unwrap())
    }

    fn in_dir(dir: tempfile::TempDir) -> Self {
        // An ordinary user must be able to enter.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let project = dir.path().join("project");
        fs::create_dir(&project).unwrap();
        Self { dir, project }
    }

    /// A new place whose project is a copy of `specs/NAME`, its lock refreshed: what Debian replaced since it was
    /// committed fails no test.
    pub fn with_spec(name: &str) -> Self {
        let place = Self::new();
        match name {
            "hello" | "static" | "monorepo" => place.take_debs(C),
            "flask" | "python-api" => place.take_debs(PYTHON),
            _ => {}
        }
        place.holds_copy_of(&format!("specs/{name}"));
        place
    }

    /// As [`with_spec`](Self::with_spec), of any folder of the repository.
    pub fn with_copy_of(name: &str) -> Self {
        let place = Self::new();
        place.holds_copy_of(name);
        place
    }

    fn holds_copy_of(&self, name: &str) {
        copy_tree(&Path::new(env!("CARGO_MANIFEST_DIR")).join(name), &self.project);
        let refreshed = self.run(&["lock", "--refresh"]).success().stderr;
        #[expect(clippy::print_stderr, reason = "what is tested must be seen")]
        {
            eprintln!("a copy of {name}: {}", refreshed.lines().last().unwrap_or_default());
        }
    }

    /// Another place, with a store of its own, whose project is a copy of this one's.
    pub fn elsewhere(&self) -> Self {
        let other = Self::new();
        copy_tree(&self.project, &other.project);
        other
    }

    /// Writes a file of the project, with its directories.
    pub fn write(&self, path: &str, text: &str) -> &Self {
        let path = self.project.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The physical store.
    pub fn store(&self) -> PathBuf {
        self.dir.path().join("data/layerize")
    }

    /// `layerize` with the cleared environment of this place, not yet started.
    pub fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(LAYERIZE);
        self.prepare(command.args(args));
        command
    }

    /// Clears a command's environment and points it to this place; downloads are shared between tests.
    pub fn prepare(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.dir.path())
            .env("XDG_DATA_HOME", self.dir.path().join("data"))
            .env("XDG_CONFIG_HOME", self.dir.path().join("config"))
            .env("XDG_CACHE_HOME", shared_cache())
            .current_dir(&self.project)
            .stdin(Stdio::null());
    }

    /// Runs `layerize` to its end.
    pub fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Ran {
        Ran::of(self.command(args).output().unwrap())
    }

    /// What `layerize inspect --json` says of an image.
    #[track_caller]
    pub fn inspect(&self, image: &str) -> serde_json::Value {
        let ran = self.run(&["inspect", "--json", image]).success();
        serde_json::from_str(&ran.stdout).unwrap()
    }

    /// What it says of each of an image's layers under `key`, from the lowest up.
    #[track_caller]
    pub fn inspect_layers(&self, image: &str, key: &str) -> Vec<serde_json::Value> {
        let inspected = self.inspect(image);
        let layers = inspected["layers"].as_array().unwrap().iter();
        layers.map(|layer| layer[key].clone()).collect()
    }
}

/// Downloads that all tests of this target directory share.
pub fn shared_cache() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache");
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// Copies a tree to a place that does not exist yet, modes and times included.
fn copy_tree_to(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    peer(Command::new("cp").arg("-a").arg(from).arg(to));
}

/// Copies what is in a directory into another, which is created where it is missing.
pub fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let status = Command::new("cp")
        .arg("-r")
        .arg(from.join("."))
        .arg(to)
        .status()
        .unwrap();
    assert!(status.success(), "copying {} failed", from.display());
}

/// The machine's apt sources, to be named beside others.
pub fn machine_sources() -> Vec<String> {
    let parts = Path::new("/etc/apt/sources.list.d");
    let names = layerize::fsio::sorted_names(parts).unwrap_or_default();
    let files = names.iter().map(|name| parts.join(name));
    let files = std::iter::once(PathBuf::from("/etc/apt/sources.list")).chain(files);
    let texts = files.filter(|file| {
        let extension = file.extension().and_then(|extension| extension.to_str());
        matches!(extension, Some("list" | "sources"))
    });
    texts.filter_map(|file| fs::read_to_string(file).ok()).collect()
}

/// Runs another program and asserts that it ends well.
#[track_caller]
pub fn peer(command: &mut Command) -> Ran {
    let output = command.stdin(Stdio::null()).output();
    Ran::of(output.unwrap_or_else(|error| panic!("{command:?}: {error}"))).success()
}

/// Whether a peer is there; a missing one is a failure in CI and said loudly elsewhere.
pub fn have(program: &str, probe: &[&str]) -> bool {
    let works = Command::new(program)
        .args(probe)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    assert!(
        works || !in_ci(),
        "`{program} {}` does not work, and CI needs it",
        probe.join(" ")
    );
    if !works {
        let what = format!(
            "`{program} {}` does not work here; run scripts/setup test",
            probe.join(" ")
        );
        skipped(&what);
    }
    works
}

/// Whether this is CI, where nothing may be skipped.
#[expect(clippy::disallowed_methods, reason = "tests ask whether they run in CI")]
pub fn in_ci() -> bool {
    std::env::var_os("CI").is_some()
}

/// Says loudly that something was not tried.
#[expect(clippy::print_stderr, reason = "a skipped oracle must be seen")]
pub fn skipped(what: &str) {
    eprintln!("SKIPPED: {what}");
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A package whose script is `script`, with nothing but the base tools, and an image of it.
pub fn script_spec(script: &str) -> String {
    format!("[package.thing]\nscript = '''\n{script}\n'''\n\n[image.thing]\ncontents = [\"thing\"]\n")
}

impl Place {
    /// A project whose one package runs `script` with the base tools, locked.
    pub fn with_script(script: &str) -> Self {
        let place = Self::new();
        place.write("layerize.toml", &script_spec(script));
        place.lock_base();
        place
    }

    /// Puts the lock of the base tools into the project, and the tools into the store; both are made once for all
    /// tests.
    pub fn lock_base(&self) {
        let base = made_once("base", &script_spec("mkdir $out").replace("thing", "probe"));
        fs::copy(base.join("layerize.lock"), self.project.join("layerize.lock")).unwrap();
        copy_tree_to(&base.join("store"), &self.store());
    }

    /// What a container of the dev image in the layout `dev` says, with the project at `/project` and these volumes.
    pub fn in_dev_container(&self, volumes: &[String], program: &[&str]) -> Ran {
        let project = format!("{}:/project", self.project.display());
        let mut all = vec![
            "run",
            "-q",
            "--isolated",
            "oci:dev:v1",
            "--workdir",
            "/project",
            "--volume",
            &project,
        ];
        all.extend(volumes.iter().flat_map(|volume| ["--volume", volume]));
        all.push("--");
        all.extend(program);
        self.run(&all)
    }

    /// Puts these Debian packages and those that they need, unpacked, into the store, which must be new. To unpack a compiler takes
    /// as long as many a test: it is done once for all of them.
    pub fn take_debs(&self, debs: &[&str]) {
        let tools: Vec<String> = debs.iter().map(|deb| format!("\"deb:{deb}\"")).collect();
        let spec = format!(
            "[package.probe]\ntools = [{}]\nscript = \"mkdir $out\"\n",
            tools.join(", ")
        );
        let made = made_once(&debs.join("+"), &spec);
        copy_tree_to(&made.join("store"), &self.store());
    }
}

/// The store in which the package `probe` of `spec` was built, and its lock, as the test that came first made them.
fn made_once(name: &str, spec: &str) -> PathBuf {
    let made = shared_cache().join(name);
    let guard = FileLock::acquire(&made.with_extension("making"), LockKind::Exclusive).unwrap();
    // A store of another build of the program may have another schema.
    let program = format!("{:?}", fs::metadata(LAYERIZE).unwrap().modified().unwrap());
    if fs::read_to_string(made.join("program")).unwrap_or_default() != program {
        layerize::fsio::remove_tree(&made).unwrap();
        let maker = Place::new();
        maker.write("layerize.toml", spec);
        maker.run(&["build", "probe"]).success();
        let new = made.with_extension("new");
        layerize::fsio::remove_tree(&new).unwrap();
        fs::create_dir(&new).unwrap();
        fs::copy(maker.project.join("layerize.lock"), new.join("layerize.lock")).unwrap();
        copy_tree_to(&maker.store(), &new.join("store"));
        fs::write(new.join("program"), program).unwrap();
        fs::rename(&new, &made).unwrap();
    }
    drop(guard);
    made
}

/// Runs `layerize` where all that must not matter is another: another user (an ordinary one where the tests are root),
/// store, home, directory, umask, time zone and language. Gives the place, whose project is a copy, and what came out.
pub fn in_another_world(place: &Place, arguments: &[&str]) -> (Place, Ran) {
    in_a_world(place, arguments, true)
}

/// Rebuilds an image of the layout `kept` in the project from what is kept beside it and from nothing else, where all that
/// must not matter is another; fails where its digest comes out otherwise.
pub fn rebuilt_from_what_is_kept(place: &Place, kept: &str) {
    in_a_world(place, &["rebuild", "--offline", &format!("oci:{kept}")], false);
}

fn in_a_world(place: &Place, arguments: &[&str], has_downloads: bool) -> (Place, Ran) {
    let mut other = Place::new();
    let project = other.path().join("elsewhere/deeper");
    fs::create_dir_all(&project).unwrap();
    copy_tree(&place.project, &project);
    other.project = project;
    for name in layerize::fsio::sorted_names(&other.project).unwrap() {
        let built = other.project.join(name);
        if built.extension().is_some_and(|extension| extension == "tar") {
            fs::remove_file(built).unwrap();
        }
    }
    let program = other.path().join("layerize");
    fs::copy(LAYERIZE, &program).unwrap();
    match has_downloads {
        true => copy_tree(&shared_cache().join("layerize"), &other.path().join("cache/layerize")),
        false => fs::create_dir(other.path().join("cache")).unwrap(),
    }
    peer(Command::new("chmod").args(["-R", "a+rwX"]).arg(other.path()));

    let shell = format!("umask 077; exec {} \"$@\"", program.display());
    let mut command = match is_root() {
        true => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", "4242", "--regid", "4242", "--clear-groups", "sh"]);
            command
        }
        false => Command::new("sh"),
    };
    other.prepare(command.args(["-c", &shell, "sh"]).args(arguments));
    command
        .current_dir(&other.project)
        .env("XDG_CACHE_HOME", other.path().join("cache"))
        .env("TZ", "Pacific/Kiritimati")
        .env("LC_ALL", "tr_TR.UTF-8")
        .env("USER", "someone");
    let ran = Ran::of(command.output().unwrap());
    (other, ran.success())
}

/// What an archive's image prints when podman runs it with these arguments, without a network.
pub fn podman_run(place: &Place, archive: &Path, image: &[&str]) -> String {
    peer(podman(place).args(["load", "-i"]).arg(archive));
    // Limits of its own: where root lacks CAP_SYS_RESOURCE, podman's defaults cannot be set.
    let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
    let mut run = podman(place);
    run.args(["run", "--rm", "--network", "none"]).args(limits).args(image);
    peer(&mut run).stdout
}

/// podman with a storage of its own, so that nothing of the machine's is touched.
pub fn podman(place: &Place) -> Command {
    let mut command = Command::new("podman");
    command
        .arg("--root")
        .arg(place.path().join("podman"))
        .arg("--runroot")
        .arg(place.path().join("podman-run"))
        .args([
            "--storage-driver",
            "vfs",
            "--cgroup-manager",
            "cgroupfs",
            "--runtime",
            "runc",
        ]);
    command
}

/// The arguments that write a dev image into the layout `dev`.
pub const DEV_IMAGE: [&str; 7] = ["build", "-q", "--dev", "--compression", "none", "-o", "oci:dev:v1"];
