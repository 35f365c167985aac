//! Tests of what registries are configured with.

mod credentials;
mod helpers;
mod hostile;
mod peers;
pub(crate) mod served;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::thread;

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

/// A proxy for plain HTTP that hands every request to `upstream`, whatever host it is for; gives its address.
pub(in crate::transport::registry) fn relay(upstream: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, upstream) = (listener.local_addr().unwrap().to_string(), upstream.to_owned());
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(&upstream).unwrap();
            let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut from, &mut to));
            thread::spawn(move || relay_requests(BufReader::new(client), server));
        }
    });
    address
}

fn relay_requests(mut from: impl BufRead, mut to: TcpStream) {
    let mut line = String::new();
    let mut length = 0;
    while from.read_line(&mut line).is_ok_and(|count| count > 0) {
        // Of the line that begins a request the address's scheme and host go (RFC 9112, 3.2.2).
        let origin = line.find("http://").filter(|_| line.ends_with("HTTP/1.1\r\n"));
        if let Some(at) = origin {
            let end = line[at + 7..].find('/').unwrap() + at + 7;
            line.replace_range(at..end, "");
        }
        if let Some(bytes) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = bytes.trim().parse().unwrap();
        }
        if to.write_all(line.as_bytes()).is_err() {
            return;
        }
        if line == "\r\n" {
            let mut body = (&mut from).take(std::mem::take(&mut length));
            if std::io::copy(&mut body, &mut to).is_err() {
                return;
            }
        }
        line.clear();
    }
}
