//! Registries as users meet them: Debian's `docker-registry` on loopback as a sink and as a source.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Place, have};

/// A registry that ends when dropped.
struct Registry {
    child: Child,
    host: String,
    _dir: tempfile::TempDir,
}

impl Registry {
    fn start() -> Option<Self> {
        if !have("docker-registry", &["--version"]) {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (config, at) = (dir.path().join("config.yml"), dir.path().display());
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {at}/data}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(config);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let registry = Self {
            child: command.spawn().unwrap(),
            host: format!("127.0.0.1:{port}"),
            _dir: dir,
        };
        let began = Instant::now();
        while TcpStream::connect(&registry.host).is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "the registry does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_registry_is_a_sink_and_a_source_like_any_other() {
    let Some(registry) = Registry::start() else { return };
    let place = Place::new();
    place.write("app/share/data", "data\n");
    let path = place.run(&["store", "add", "app"]).success().line().to_owned();
    let location = format!("docker://{}/team/app:1", registry.host);
    let build = ["build", &path, "--name", "app", "-o", &location, "-o", "oci:layout"];
    let built = place.run(&build).success().says(&["pushed"]);
    let digest = built.stdout.split(' ').next().unwrap().to_owned();
    assert!(built.stdout.contains(&location), "{}", built.stdout);
    // Nothing goes there again.
    let again = place.run(&build[..6]).success().says(&["2 requests, 0 B sent"]);
    assert!(again.stdout.starts_with(&digest));
    let by_digest = format!("docker://{}/team/app@{digest}", registry.host);
    place.run(&["verify", &by_digest]).success();
    place.run(&["diff", &location, "oci:layout"]).success();
    let seen = place.run(&["inspect", "--json", &location]).success().stdout;
    assert!(seen.contains(&digest), "{seen}");
    let missing = format!("docker://{}/team/app:2", registry.host);
    place
        .run(&["inspect", &missing])
        .exits(2)
        .says(&["the manifest `2`", "team/app"]);
}

#[test]
fn a_registry_that_is_not_there_is_trouble_with_advice() {
    let place = Place::new();
    place.write("app/share/data", "data\n");
    let path = place.run(&["store", "add", "app"]).success().line().to_owned();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let location = format!("docker://127.0.0.1:{port}/app:1");
    place
        .run(&["build", &path, "--name", "app", "-o", &location])
        .exits(2)
        .says(&["cannot be reached", "help:", "check the name"]);
}
