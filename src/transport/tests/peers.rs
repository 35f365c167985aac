//! The real programs: what we write they accept with our digests, what they write we read.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::super::testing::*;
use super::super::*;
use crate::event::Silent;
use crate::oci::Compression;
use crate::transport::registry::RegistryConfig;

const GZIP: Compression = Compression::Gzip(6);
const GREETING: &str = "hello from layerize";

/// A name that no other test or session uses.
fn unique(what: &str) -> String {
    format!("layerize-test-{what}-{}", std::process::id())
}

/// Removes an image from docker when the test ends, however it ends.
struct Removed(String);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = Command::new("docker")
            .args(["rmi", "-f", &self.0])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

fn source(text: &str) -> Box<dyn Source> {
    text.parse::<Location>()
        .unwrap()
        .source(&ReadOptions::default())
        .unwrap()
}

/// Reads every byte of an image and gives its diffIDs as the config has them.
fn read_whole(source: &dyn Source) -> Vec<String> {
    let manifest = source.manifest().unwrap();
    let config = source.config().unwrap();
    for layer in &manifest.layers {
        let mut reader = source.blob(&layer.digest, layer.size).unwrap();
        std::io::copy(&mut reader, &mut std::io::sink()).unwrap();
    }
    config.diff_ids.iter().map(ToString::to_string).collect()
}

fn diff_ids(image: &Image) -> Vec<String> {
    image
        .layers
        .iter()
        .map(|layer| layer.diff_id.unwrap().to_string())
        .collect()
}

#[test]
fn docker_loads_and_runs_the_archive() {
    for (label, compression) in [("none", Compression::None), ("gzip", GZIP)] {
        let (Some(image), true) = (runnable(compression, &unique(label)), oracle("docker")) else {
            return;
        };
        let name = unique(label);
        let _removed = Removed(name.clone());
        let loaded = daemon::load(&image, std::slice::from_ref(&name), Engine::Docker).unwrap();
        assert_eq!(loaded.id, image.config_digest().to_string());
        let output = stdout(Command::new("docker").args(["run", "--rm", "--network", "none", &name]));
        assert_eq!(output, GREETING, "{label}");
        // And back: through `docker save`, whose archive has no manifest on this engine.
        let saved = source(&format!("docker-daemon:{name}"));
        assert_eq!(saved.config().unwrap().bytes(), image.config.bytes());
        assert_eq!(read_whole(&*saved), diff_ids(&image));
    }
}

#[test]
fn docker_loads_an_archive_without_a_name() {
    let (Some(image), true) = (runnable(GZIP, &unique("nameless")), oracle("docker")) else {
        return;
    };
    let _removed = Removed(image.config_digest().to_string());
    let loaded = daemon::load(&image, &[], Engine::Docker).unwrap();
    assert_eq!(loaded.id, image.config_digest().to_string());
}

#[test]
fn podman_loads_and_runs_the_archive() {
    let dir = tempfile::tempdir().unwrap();
    for (label, compression) in [
        ("none", Compression::None),
        ("gzip", GZIP),
        ("zstd", Compression::Zstd(3)),
    ] {
        let (Some(image), true) = (runnable(compression, &unique(label)), oracle("podman")) else {
            return;
        };
        let name = format!("{}:v1", unique(label));
        let engine = Daemon::new(Engine::Podman).arguments(podman(dir.path()));
        let loaded = engine.load(&image, std::slice::from_ref(&name)).unwrap();
        assert_eq!(loaded.id, image.config_digest().hex());
        let mut run = Command::new("podman");
        run.args(podman(dir.path())).args([
            "run",
            "--rm",
            "--network",
            "none",
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1024:1024",
            &name,
        ]);
        assert_eq!(stdout(&mut run), GREETING, "{label}");
        let archive = dir.path().join("saved.tar");
        for form in ["docker-archive", "oci-archive"] {
            if (label, form) == ("zstd", "docker-archive") {
                continue; // podman says itself that docker images cannot be zstd
            }
            let mut save = Command::new("podman");
            super::super::testing::run(
                save.args(podman(dir.path()))
                    .args(["save", "--format", form, "-o"])
                    .arg(&archive)
                    .arg(&name),
            );
            let saved = source(&format!("{form}:{}", archive.display()));
            assert_eq!(read_whole(&*saved), diff_ids(&image), "{form}");
            fs::remove_file(&archive).unwrap();
        }
    }
    let mut rm = Command::new("podman");
    let _ = rm.args(podman(dir.path())).args(["rmi", "-a", "-f"]).output();
}

fn skopeo(arguments: &[&str]) -> String {
    stdout(Command::new("skopeo").arg("--insecure-policy").args(arguments))
}

#[test]
fn skopeo_sees_our_digest_in_every_form_and_copies_it_unchanged() {
    if !oracle("skopeo") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    for (label, compression) in [
        ("none", Compression::None),
        ("gzip", GZIP),
        ("zstd", Compression::Zstd(3)),
    ] {
        let image = sample(compression);
        let names = ["hello:1".to_owned()];
        let forms = [
            format!("oci:{}:1", at(&format!("{label}-layout"))),
            format!("oci-archive:{}", at(&format!("{label}.oci.tar"))),
        ];
        for form in &forms {
            form.parse::<Location>()
                .unwrap()
                .sink(None, &RegistryConfig::default(), &Silent)
                .unwrap()
                .put(&image, &names)
                .unwrap();
            let digest = skopeo(&["inspect", "--format", "{{.Digest}}", form]);
            assert_eq!(digest, image.digest().to_string(), "{form}");
            let copy = format!("oci:{}:copy", at(&format!("{label}-copy")));
            skopeo(&["copy", "--preserve-digests", form, &copy]);
            let read = source(&copy);
            assert_eq!(read.manifest().unwrap().digest(), image.digest());
            assert_eq!(read_whole(&*read), diff_ids(&image));
            fs::remove_dir_all(at(&format!("{label}-copy"))).unwrap();
        }
        // The union is a docker-archive and an OCI archive to skopeo, by whichever name it is called.
        let union = at(&format!("{label}.tar"));
        Archive::docker(Path::new(&union)).put(&image, &names).unwrap();
        assert_eq!(
            skopeo(&["inspect", "--format", "{{.Digest}}", &format!("oci-archive:{union}")]),
            image.digest().to_string()
        );
        let raw: Value = serde_json::from_str(&skopeo(&[
            "inspect",
            "--config",
            "--raw",
            &format!("docker-archive:{union}"),
        ]))
        .unwrap();
        assert_eq!(raw, serde_json::from_slice::<Value>(image.config.bytes()).unwrap());
    }
}

#[test]
fn archives_that_skopeo_makes_are_read() {
    if !oracle("skopeo") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let image = sample(GZIP);
    let ours = at("ours.tar");
    Archive::docker(Path::new(&ours))
        .put(&image, &["hello:1".to_owned()])
        .unwrap();
    for form in ["docker-archive:D:hello:1", "oci-archive:O:hello", "oci:L:hello"] {
        let place = form.replacen(":D", &format!(":{}", at("d.tar")), 1);
        let place = place
            .replacen(":O", &format!(":{}", at("o.tar")), 1)
            .replacen(":L", &format!(":{}", at("l")), 1);
        skopeo(&["copy", &format!("oci-archive:{ours}"), &place]);
        let read = source(&place);
        assert_eq!(read_whole(&*read), diff_ids(&image), "{place}");
        assert_eq!(read.config().unwrap().bytes(), image.config.bytes());
        if read.synthesized() {
            // skopeo makes the same manifest of the same archive: plain layers, Docker's schema 2.
            let raw: Value = serde_json::from_str(&skopeo(&["inspect", "--raw", &place])).unwrap();
            let ours = read.manifest().unwrap().json();
            for field in ["digest", "size"] {
                assert_eq!(raw["config"][field], ours["config"][field]);
                assert_eq!(raw["layers"][1][field], ours["layers"][1][field]);
            }
        }
    }
}

#[test]
fn umoci_unpacks_the_archive_and_we_read_what_it_makes() {
    if !oracle("umoci") || !oracle("tar") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = sample(GZIP);
    let union = dir.path().join("x.tar");
    Archive::docker(&union).put(&image, &["hello:v1".to_owned()]).unwrap();
    let layout = dir.path().join("layout");
    fs::create_dir(&layout).unwrap();
    run(Command::new("tar").arg("-xf").arg(&union).arg("-C").arg(&layout));
    let bundle = dir.path().join("bundle");
    let tagged = |tag: &str| format!("{}:{tag}", layout.display());
    run(Command::new("umoci")
        .args(["unpack", "--image", &tagged("v1")])
        .arg(&bundle));
    assert_eq!(fs::read_to_string(bundle.join("rootfs/etc/motd")).unwrap(), "welcome\n");
    fs::write(bundle.join("rootfs/new"), "new\n").unwrap();
    run(Command::new("umoci")
        .args(["repack", "--image", &tagged("v2")])
        .arg(&bundle));
    let read = source(&format!("oci:{}:v2", layout.display()));
    assert_eq!(read_whole(&*read).len(), 3);
}

#[test]
fn buildah_makes_layouts_that_are_read() {
    if !oracle("buildah") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let storage = podman(dir.path());
    let buildah = |arguments: &[&str]| stdout(Command::new("buildah").args(&storage[..6]).args(arguments));
    let container = buildah(&["from", "scratch"]);
    fs::write(dir.path().join("file"), "content").unwrap();
    buildah(&[
        "add",
        &container,
        &dir.path().join("file").display().to_string(),
        "/file",
    ]);
    for form in ["oci:L:t", "oci-archive:O:t", "docker-archive:D:t:1"] {
        let place = form.replacen(":L", &format!(":{}", dir.path().join("l").display()), 1);
        let place = place.replacen(":O", &format!(":{}", dir.path().join("o.tar").display()), 1);
        let place = place.replacen(":D", &format!(":{}", dir.path().join("d.tar").display()), 1);
        buildah(&["commit", &container, &place]);
        assert_eq!(read_whole(&*source(&place)).len(), 1, "{place}");
    }
    buildah(&["rm", &container]);
}

#[test]
fn an_engine_that_is_missing_or_fails_is_an_error_that_says_so() {
    let image = sample(GZIP);
    let names = ["x".to_owned()];
    let error = Daemon::new(Engine::Docker)
        .program("/nonexistent/docker")
        .load(&image, &names)
        .unwrap_err();
    assert!(matches!(error, TransportError::EngineMissing { .. }), "{error}");
    let fake = |script: &str| {
        Daemon::new(Engine::Docker)
            .program("/bin/sh")
            .arguments(["-c", script, "docker"])
    };
    let error = fake("echo boom >&2; exit 3").load(&image, &names).unwrap_err();
    assert_eq!(error.to_string(), "`/bin/sh load` failed with exit status: 3: boom");
    let error = fake("cat >/dev/null; echo 'Cannot connect to the Docker daemon at x' >&2; exit 1")
        .load(&image, &names)
        .unwrap_err();
    assert!(matches!(error, TransportError::EngineUnreachable { .. }), "{error}");
    let other = fake("case $1 in load) cat >/dev/null;; *) echo sha256:00;; esac");
    let error = other.load(&image, &names).unwrap_err();
    assert!(matches!(error, TransportError::EngineDiffers { .. }), "{error}");
    let id = image.config_digest();
    let dir = tempfile::tempdir().unwrap();
    let there = dir.path().join("there").display().to_string();
    let good = fake(&format!(
        "case $1 in load) cat >/dev/null; touch {there}; echo loaded;; *) [ -e {there} ] && echo {id};; esac"
    ));
    let loaded = good.load(&image, &names).unwrap();
    assert_eq!((loaded.id, loaded.output.as_str()), (id.to_string(), "loaded\n"));
    assert!(loaded.transferred.written > 0 && loaded.transferred.skipped == 0);
    // An engine that has the image gets its names and nothing else.
    let knows = fake(&format!(
        "case $1 in load) exit 7;; tag) [ $2 = {id} ];; *) echo {id};; esac"
    ));
    let loaded = knows.load(&image, &names).unwrap();
    assert_eq!((loaded.id, loaded.transferred.written), (id.to_string(), 0));
    assert!(loaded.transferred.skipped > 0);
    // The engine leaves while a large image is on its way, without any complaint.
    let large = super::super::testing::image(&[(tar(&[Node::file("big", vec![7; 1 << 20])]), Compression::None)]);
    let error = fake("exit 0").load(&large, &names).unwrap_err();
    assert!(matches!(error, TransportError::ReaderGone { .. }), "{error}");
}

#[test]
fn docker_without_a_daemon_is_told_apart() {
    if !oracle("docker") {
        return;
    }
    let lost = Daemon::new(Engine::Docker).arguments(["--host", "unix:///nonexistent/docker.sock"]);
    let error = lost.load(&sample(GZIP), &["x".to_owned()]).unwrap_err();
    assert!(matches!(error, TransportError::EngineUnreachable { .. }), "{error}");
    assert!(error.help().unwrap().contains("start the daemon"));
}

#[test]
fn every_name_of_an_archive_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let (Some(image), true, true) = (runnable(GZIP, &unique("names")), oracle("docker"), oracle("podman")) else {
        return;
    };
    let names = [
        unique("first"),
        format!("registry.example/layerize/{}:v2", unique("second")),
    ];
    let _removed = names.clone().map(Removed);
    // `load` itself asks the engine for each of the names.
    daemon::load(&image, &names, Engine::Docker).unwrap();
    Daemon::new(Engine::Podman)
        .arguments(podman(dir.path()))
        .load(&image, &names)
        .unwrap();
}
