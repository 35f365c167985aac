//! A sandbox with nothing in it but the machine's own shell and core utilities, and a script to run there.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use layerize::sandbox::{Bind, Isolation, Outcome, RuntimeSettings, Sandbox, SandboxError, Veil};

use super::root::machine_root;
use super::user::program;

/// The topmost layer: what is mounted on, and the links of a merged `/usr`.
fn mount_points(dir: &Path) -> PathBuf {
    let layer = dir.join("mount-points");
    for name in ["dev", "proc", "tmp", "build", "layerize/store", "etc"] {
        fs::create_dir_all(layer.join(name)).unwrap();
    }
    for name in ["bin", "lib", "lib64"] {
        symlink(Path::new("usr").join(name), layer.join(name)).unwrap();
    }
    layer
}

/// A sandbox in a directory of its own, and what it printed.
pub struct Sandboxed {
    pub dir: tempfile::TempDir,
    pub sandbox: Sandbox,
}

impl Sandboxed {
    pub fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut binds = Vec::new();
        for (name, target) in [("build", "/build"), ("tmp", "/tmp"), ("store", "/layerize/store")] {
            let source = dir.path().join("work").join(name);
            fs::create_dir_all(&source).unwrap();
            binds.push(Bind {
                source,
                target: target.into(),
                writable: true,
            });
        }
        let staging = dir.path().join("staging");
        for dir in [&staging, &dir.path().join("inputs")] {
            fs::create_dir(dir).unwrap();
        }
        let sandbox = Sandbox {
            helper: Some(program()),
            isolation: Isolation::Build,
            staging,
            layers: vec![mount_points(dir.path()), machine_root()],
            upper: None,
            veils: ["work", "inputs"]
                .map(|name| Veil {
                    dir: dir.path().join(name),
                    writable: name == "work",
                })
                .into(),
            binds,
            ids: (1000, 100),
            argv: ["/usr/bin/bash", "-euc", script].map(str::to_owned).to_vec(),
            env: vec![("PATH".to_owned(), "/usr/bin".to_owned())],
            cwd: "/build".into(),
            timeout: Some(Duration::from_secs(60)),
            settings: RuntimeSettings::default(),
        };
        Self { dir, sandbox }
    }

    pub fn run(&self) -> (Result<Outcome, SandboxError>, String) {
        let mut text = Vec::new();
        let outcome = self.sandbox.run(&mut |bytes| text.extend_from_slice(bytes));
        (outcome, String::from_utf8_lossy(&text).into_owned())
    }

    /// Binds a file or directory of `inputs` at its place in the store, read-only.
    pub fn bind_input(&mut self, name: &str) {
        let (source, place) = (self.path("inputs").join(name), self.path("work/store").join(name));
        match source.is_dir() {
            true => fs::create_dir(place).unwrap(),
            false => fs::write(place, "").unwrap(),
        }
        self.sandbox.binds.push(Bind {
            source,
            target: Path::new("/layerize/store").join(name),
            writable: false,
        });
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }
}

/// What a script that must end well prints.
#[track_caller]
pub fn output(script: &str) -> String {
    let (outcome, text) = Sandboxed::new(script).run();
    assert_eq!(outcome.unwrap(), Outcome::Exited(0), "{text}");
    text
}
