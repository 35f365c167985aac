//! A builder of others: BuildBox's `buildbox-casd`, which runs actions with bubblewrap, makes what is made here.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::builders::{project, walls};
use crate::support::{Place, have, in_ci, skipped};

/// The directory of BuildBox's programs, where it is installed.
#[expect(clippy::disallowed_methods, reason = "where scripts/setup keeps what tests need")]
fn buildbox() -> Option<PathBuf> {
    let of = |name| std::env::var_os(name).map(PathBuf::from);
    let venv = of("LAYERIZE_TEST_BUILDBOX").or_else(|| {
        let cache = of("XDG_CACHE_HOME").or_else(|| Some(of("HOME")?.join(".cache")))?;
        Some(cache.join("layerize-tests/buildbox"))
    })?;
    let lib = venv.join("lib");
    let pythons = layerize::fsio::sorted_names(&lib).unwrap_or_default();
    let mut dirs = pythons.iter().map(|python| {
        let packages = lib.join(python).join("site-packages");
        packages.join("buildstream/subprojects/buildbox")
    });
    let found = dirs.find(|dir| dir.join("buildbox-casd").exists());
    assert!(found.is_some() || !in_ci(), "CI needs BuildBox: run scripts/setup test");
    if found.is_none() {
        skipped("BuildBox is not installed; run scripts/setup test");
    }
    found
}

/// A server that ends with its test.
struct Casd {
    child: Child,
    port: u16,
    _cache: tempfile::TempDir,
}

impl Drop for Casd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Casd {
    fn start(programs: &std::path::Path) -> Self {
        let cache = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = fs::File::create(cache.path().join("log")).unwrap();
        let mut command = Command::new(programs.join("buildbox-casd"));
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .arg(format!("--bind=127.0.0.1:{port}"))
            .arg(format!("--buildbox-run={}", programs.join("buildbox-run").display()))
            .arg("--jobs=2")
            .arg(cache.path().join("cas"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        fs::create_dir(cache.path().join("cas")).unwrap();
        let child = command.spawn().unwrap();
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            let log = || fs::read_to_string(cache.path().join("log")).unwrap_or_default();
            assert!(begun.elapsed() < Duration::from_secs(30), "{}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
        Self {
            child,
            port,
            _cache: cache,
        }
    }
}

#[test]
fn buildbox_makes_what_is_made_here() {
    let Some(programs) = buildbox() else { return };
    if !have("bwrap", &["--version"]) {
        return;
    }
    let casd = Casd::start(&programs);
    // The user that scripts have here is a property there.
    let config = format!(
        "[build]\nbuilder = \"box\"\n[builders.box]\naddress = \"grpc://127.0.0.1:{}\"\n\
         properties = {{ unixUID = \"1000\", unixGID = \"100\" }}\n",
        casd.port
    );
    let compare = |here: &Place, names: &[&str]| {
        let there = here.elsewhere();
        there.lock_base();
        let dir = there.path().join("config/layerize");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("config.toml"), &config).unwrap();
        let built = here.run(&["build"]).success();
        let ran = there.run(&["build"]).success();
        assert!(ran.stderr.contains("at grpc://"), "{}", ran.stderr);
        assert_eq!(ran.stdout, built.stdout, "{}", ran.stderr);
        assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
        for name in names {
            assert_eq!(walls(&there, name), "builder");
        }
        there.run(&["store", "verify"]).success();
    };
    compare(&project(false), &["-thing", "-user"]);
    compare(&Place::with_spec("monorepo"), &["-worker"]);
}
