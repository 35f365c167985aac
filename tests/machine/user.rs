//! *Another user*: the same tests once more as one who is not root.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::root::machine_root;

/// Names the directory, to a test program that runs as another user, where copies are of what only root may read.
const COPIES: &str = "LAYERIZE_TEST_COPIES";

/// Some user and group that nobody has.
const USER: &str = "4242";

/// The program under test.
pub fn program() -> PathBuf {
    copies().map_or_else(
        || env!("CARGO_BIN_EXE_layerize").into(),
        |copies| copies.join("layerize"),
    )
}

/// The directory with copies, for whom there is one.
#[expect(clippy::disallowed_methods, reason = "a test program is told where its copies are")]
pub fn copies() -> Option<PathBuf> {
    env::var_os(COPIES).map(PathBuf::from)
}

/// Runs all tests of this program again as an ordinary user, but for those whose name holds `skipped`; says so where
/// that is not possible.
pub fn run_again_as_an_ordinary_user(skipped: &str) {
    if !rustix::process::geteuid().is_root() {
        // Then they have been.
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (from, name) in [
        (env!("CARGO_BIN_EXE_layerize").into(), "layerize"),
        (env::current_exe().unwrap(), "tests"),
        (machine_root(), "machine-root"),
    ] {
        let status = Command::new("cp")
            .arg("-r")
            .arg(from)
            .arg(dir.path().join(name))
            .status();
        assert!(status.unwrap().success());
    }
    let own = dir.path().join("tmp");
    fs::create_dir(&own).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&own, fs::Permissions::from_mode(0o1777)).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid", USER, "--regid", USER, "--clear-groups"])
        .arg(dir.path().join("tests"))
        .args(["--skip", skipped])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("TMPDIR", &own)
        .env(COPIES, dir.path())
        .current_dir(&own)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && !text.contains(" 0 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// `below` in the directory with copies, or where it is for all.
pub fn copied_or(below: &str, else_at: impl FnOnce() -> PathBuf) -> PathBuf {
    copies().map_or_else(else_at, |copies: PathBuf| Path::new(&copies).join(below))
}
