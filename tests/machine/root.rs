//! A root for builds made of the machine's own shell, core utilities and their libraries, as a Debian package's
//! store path would have them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use layerize::digest::Digest;

const PROGRAMS: &[&str] = &[
    "bash", "cat", "chgrp", "chmod", "chown", "cp", "env", "find", "head", "id", "install", "ln", "ls", "mkdir", "mv",
    "nproc", "patch", "ps", "readlink", "rm", "rmdir", "sed", "setpriv", "setsid", "sleep", "stat", "sync", "touch",
    "tr", "uname",
];

/// A tree with the machine's shell, core utilities and their libraries below `usr`; made once and kept in the build
/// directory.
pub fn machine_root() -> PathBuf {
    super::user::copied_or("machine-root", make_once)
}

fn make_once() -> PathBuf {
    let probe = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/build/probe.c");
    let version = Digest::of(format!("{PROGRAMS:?} {:?}", fs::read(&probe).unwrap()).as_bytes()).hex();
    let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("machine-root-{}", &version[..12]));
    if !kept.is_dir() {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        make_root(dir.path(), &probe);
        // Another test may have been faster: then this one's goes.
        let _ = fs::rename(dir.path(), &kept);
    }
    kept
}

fn make_root(dir: &Path, probe: &Path) {
    let mut files = BTreeSet::new();
    for program in PROGRAMS {
        let places = ["/usr/bin", "/bin"].map(|dir| Path::new(dir).join(program));
        let found = places.into_iter().find(|path| path.exists());
        let path = found.unwrap_or_else(|| panic!("this machine has no `{program}`"));
        files.extend(libraries(&path));
        files.insert(path);
    }
    for file in files {
        let below = file.strip_prefix("/").unwrap();
        let in_usr = match below.starts_with("usr") {
            true => dir.join(below),
            false => dir.join("usr").join(below),
        };
        fs::create_dir_all(in_usr.parent().unwrap()).unwrap();
        fs::copy(fs::canonicalize(&file).unwrap(), in_usr).unwrap();
    }
    let mut compiler = Command::new("cc");
    compiler
        .arg("-static")
        .arg(probe)
        .arg("-o")
        .arg(dir.join("usr/bin/probe"));
    assert!(compiler.status().unwrap().success());
    symlink("bash", dir.join("usr/bin/sh")).unwrap();
}

/// The loader and the libraries of a program.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let words = text.split_whitespace().filter(|word| word.starts_with('/'));
    words.map(PathBuf::from).collect()
}
