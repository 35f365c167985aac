//! Real Nix as an *oracle* for tests, and the trees that it is asked about.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::testing::skip;

/// A Nix with a store and a home of its own.
pub(crate) struct Nix {
    dir: tempfile::TempDir,
}

impl Nix {
    /// `None` (after saying so) where Nix is not installed.
    pub(crate) fn find() -> Option<Self> {
        let found = Command::new("nix-store")
            .arg("--version")
            .stderr(Stdio::null())
            .output();
        if !found.is_ok_and(|output| output.status.success()) {
            skip("`nix-store` is not installed");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        Some(Self { dir })
    }

    /// Runs `program` with `args` on a store whose logical directory is layerize's.
    pub(crate) fn run(&self, program: &str, args: &[&str], input: Option<&Path>) -> Output {
        let store = format!(
            "local?root={}&store=/layerize/store",
            self.dir.path().join("root").display()
        );
        let stdin = input.map_or_else(Stdio::null, |path| fs::File::open(path).unwrap().into());
        let mut command = Command::new(program);
        // Settings of the machine must not matter.
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.dir.path());
        command.args(["--store", &store]).args(args).stdin(stdin);
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {args:?}: {errors}");
        output
    }

    /// As [`run`](Self::run), for one line of text.
    pub(crate) fn line(&self, program: &str, args: &[&str]) -> String {
        let output = self.run(program, args, None);
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Where a logical path of its store is on disk.
    pub(crate) fn physical(&self, path: &str) -> std::path::PathBuf {
        let name = path.strip_prefix("/layerize/store").unwrap().trim_start_matches('/');
        self.dir.path().join("root/nix/store").join(name)
    }
}

/// A function that makes a tree at a path.
type Make = fn(&Path);

/// Trees with all that an archive can hold, by name.
pub(crate) const TREES: [(&str, Make); 8] = [
    ("empty-file", |path| fs::write(path, "").unwrap()),
    ("file", |path| fs::write(path, "seven..").unwrap()),
    ("executable", |path| {
        fs::write(path, "#!/bin/sh\nexit 0\n").unwrap();
        mode(path, 0o755);
    }),
    ("symlink", |path| symlink("/nowhere/in particular", path).unwrap()),
    ("empty-directory", |path| fs::create_dir(path).unwrap()),
    ("order", order),
    ("modes", modes),
    ("large", |path| {
        fs::create_dir(path).unwrap();
        fs::write(path.join("aligned"), pattern(1 << 20)).unwrap();
        fs::write(path.join("large"), pattern((5 << 20) + 3)).unwrap();
    }),
];

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Names whose order depends on whether whole paths or names are compared, and as what.
fn order(path: &Path) {
    fs::create_dir(path).unwrap();
    for name in ["a.b", "a-b", "B", "b", "ä", "z", "日本", " ", "~", "a\nb"] {
        fs::write(path.join(name), name).unwrap();
    }
    fs::write(path.join(std::ffi::OsStr::from_bytes(b"\xff\xfe")), "no UTF-8").unwrap();
    fs::create_dir_all(path.join("a/empty")).unwrap();
    fs::create_dir_all(path.join("a/b/c")).unwrap();
    fs::write(path.join("a/b/c/d"), "deep").unwrap();
    fs::write(path.join("a/b.c"), "beside").unwrap();
    symlink("../a", path.join("a/link")).unwrap();
}

/// Of a mode, only the owner's right to execute counts.
fn modes(path: &Path) {
    fs::create_dir(path).unwrap();
    for bits in [0o400, 0o444, 0o644, 0o655, 0o700, 0o744, 0o755, 0o4755, 0o666] {
        let file = path.join(format!("{bits:o}"));
        fs::write(&file, "").unwrap();
        mode(&file, bits);
    }
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}
