//! Tests of what registries are configured with.

mod credentials;
mod helpers;
mod hostile;
mod peers;
pub(crate) mod served;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use base64::Engine as _;
use serde_json::{Value, json};

use super::{AuthSource, FileKind, Helpers, RegistryConfig};
use crate::transport::testing::run;

/// A directory with files of credentials and programs.
struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// A helper that is a shell script.
    fn helper(&self, name: &str, script: &str) {
        let script = self.write("script", format!("#!/bin/sh\n{script}\n"));
        let path = self.write(&format!("bin/docker-credential-{name}"), "");
        fs::remove_file(&path).unwrap();
        // Another process writes it: a file that a thread of this one has open for writing cannot be run.
        run(Command::new("install").arg("-m755").arg(script).arg(path));
    }

    /// A configuration with podman's file, docker's file and the legacy file of this place, in podman's order.
    fn config(&self) -> RegistryConfig {
        let source = |path: &str, kind, origin| AuthSource {
            path: self.at(path),
            kind,
            origin,
        };
        RegistryConfig {
            auth_files: vec![
                source("run/auth.json", FileKind::Containers, "XDG_RUNTIME_DIR"),
                source("docker/config.json", FileKind::Docker, "HOME"),
                source(".dockercfg", FileKind::Legacy, "HOME"),
            ],
            helpers: Helpers::new(vec![self.at("bin")]),
            ..RegistryConfig::default()
        }
    }
}

/// `{"auth": base64(text)}`
fn auth(text: &str) -> Value {
    json!({ "auth": base64::engine::general_purpose::STANDARD.encode(text) })
}
