//! Registries as users meet them: Debian's `docker-registry` on loopback as a sink and as a source.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::served::{Demands, PASSWORD, Registry, USER, start};
use crate::support::{Place, Ran, have, peer};

/// A registry whose files are in a place's own directory; `None` where there is no `docker-registry`.
pub fn registry(place: &Place, demands: Demands) -> Option<Registry> {
    registry_in(place, "registry", demands)
}

/// The same in a directory of this name, so that a place can have several.
pub fn registry_in(place: &Place, name: &str, demands: Demands) -> Option<Registry> {
    have("docker-registry", &["--version"]).then(|| start(&place.path().join(name), demands))
}

#[test]
fn a_registry_is_a_sink_and_a_source_like_any_other() {
    let place = Place::new();
    let Some(registry) = registry(&place, Demands::default()) else {
        return;
    };
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

/// The event `pushed` of a push of `layout` to `name`.
fn push(place: &Place, ca: &str, layout: &str, name: &str) -> Value {
    let pushed = place.run(&["push", "--json", "--ca-file", ca, layout, name]).success();
    self::pushed(&pushed)
}

/// The event that says what a push did.
fn pushed(ran: &Ran) -> Value {
    let events = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let found = events.into_iter().find(|event| event["event"] == "pushed");
    found.unwrap_or_else(|| panic!("{}", ran.stdout))
}

/// Two images in `oci:layout`, `v1` and `v2`, of three store paths of which one is another in the second; with digests.
fn two_images(place: &Place) -> [String; 2] {
    let add = |name: &str, text: &str| {
        place.write(&format!("{name}/share/{name}"), &text.repeat(10_000));
        place.run(&["store", "add", name]).success().line().to_owned()
    };
    let (one, two, leaf) = (add("one", "1\n"), add("two", "2\n"), add("leaf", "old"));
    let changed = add("leaf", "new");
    [("v1", &leaf), ("v2", &changed)].map(|(tag, leaf)| {
        let sink = format!("oci:layout:{tag}");
        let name = format!("app:{tag}");
        let built = place.run(&[
            "build",
            &one,
            &two,
            leaf,
            "--name",
            &name,
            "--strategy",
            "per-path",
            "-o",
            &sink,
        ]);
        built.success().stdout.split(' ').next().unwrap().to_owned()
    })
}

#[test]
fn a_push_over_tls_with_a_login_sends_what_changed_and_others_pull_it_by_digest() {
    let place = Place::new();
    let demands = Demands {
        tls: true,
        user: true,
        ..Demands::default()
    };
    let Some(registry) = registry(&place, demands).filter(|_| have("skopeo", &["--version"])) else {
        return;
    };
    let [first, second] = two_images(&place);
    let ca_file = registry.ca_file.as_ref().unwrap();
    let (ca, certs) = (ca_file.to_str().unwrap(), ca_file.parent().unwrap());
    let name = |tag: &str| format!("{}/team/app{tag}", registry.host);

    // Without a login it says what is missing.
    place
        .run(&["push", "--ca-file", ca, "oci:layout:v1", &name(":1")])
        .exits(2)
        .says(&["login"]);
    let auth = place.path().join(".docker/config.json");
    fs::create_dir_all(auth.parent().unwrap()).unwrap();
    let mut login = Command::new("skopeo");
    login
        .args(["login", "-u", USER, "-p", PASSWORD, "--authfile"])
        .arg(&auth)
        .arg("--cert-dir")
        .arg(certs);
    peer(login.arg(&registry.host));

    let all = push(&place, ca, "oci:layout:v1", &name(":1"));
    assert_eq!(all["digest"], first.as_str());
    assert_eq!(push(&place, ca, "oci:layout:v1", &name(":1"))["sent"], 0);
    let update = push(&place, ca, "oci:layout:v2", &name(":1"));
    assert_eq!(update["digest"], second.as_str());
    let (sent, before) = (update["sent"].as_u64().unwrap(), all["sent"].as_u64().unwrap());
    let layers = |tag: &str| layers(&place, tag);
    let leaf: u64 = layers("v2")
        .iter()
        .filter(|layer| !layers("v1").contains(layer))
        .map(|(_, size)| size)
        .sum();
    let documents = documents(&place, &second);
    assert_eq!(
        sent,
        leaf + documents,
        "the leaf's layer, the config and the manifest; first {before}"
    );
    // Another repository of the registry has the layers by then.
    let (from, to) = (
        format!("docker://{}", name(":1")),
        format!("docker://{}/other/app:1", registry.host),
    );
    let copied = place.run(&["copy", "--json", "--ca-file", ca, &from, &to]).success();
    let mounted = pushed(&copied);
    assert!(mounted["mounted"].as_u64() > Some(0), "{mounted}");

    for (digest, to) in [(&first, "pulled:1"), (&second, "pulled:2")] {
        let mut pull = Command::new("skopeo");
        pull.args(["copy", "-q", "--insecure-policy", "--src-authfile"])
            .arg(&auth)
            .arg("--src-cert-dir")
            .arg(certs);
        pull.arg(format!("docker://{}", name(&format!("@{digest}"))))
            .arg(format!("oci:{to}"));
        peer(pull.current_dir(&place.project));
        let seen = place.run(&["inspect", "--json", &format!("oci:{to}")]).success().stdout;
        assert!(seen.contains(digest.as_str()), "{seen}");
    }
    podman_pulls(&place, &auth, certs, &name(&format!("@{second}")), &second);
}

/// Digests and sizes of the layers of an image of `oci:layout`.
fn layers(place: &Place, tag: &str) -> Vec<(String, u64)> {
    let seen = place
        .run(&["inspect", "--json", &format!("oci:layout:{tag}")])
        .success()
        .stdout;
    let seen: Value = serde_json::from_str(&seen).unwrap();
    let layer = |layer: &Value| {
        (
            layer["digest"].as_str().unwrap().to_owned(),
            layer["size"].as_u64().unwrap(),
        )
    };
    seen["layers"].as_array().unwrap().iter().map(layer).collect()
}

/// The sizes of an image's manifest and config in `oci:layout`.
fn documents(place: &Place, digest: &str) -> u64 {
    let blob = |digest: &str| {
        let hex = digest.strip_prefix("sha256:").unwrap();
        fs::read(place.project.join("layout/blobs/sha256").join(hex)).unwrap()
    };
    let manifest = blob(digest);
    let parsed: Value = serde_json::from_slice(&manifest).unwrap();
    manifest.len() as u64 + parsed["config"]["size"].as_u64().unwrap()
}

fn podman_pulls(place: &Place, auth: &Path, certs: &Path, reference: &str, digest: &str) {
    if !have("podman", &["--version"]) {
        return;
    }
    let podman = |args: &[&str]| {
        let mut command = Command::new("podman");
        for (flag, dir) in [("--root", "podman-root"), ("--runroot", "podman-run")] {
            command.arg(flag).arg(place.path().join(dir));
        }
        command
            .args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"])
            .args(args);
        command
    };
    peer(
        podman(&["pull", "-q", "--authfile"])
            .arg(auth)
            .arg("--cert-dir")
            .arg(certs)
            .arg(reference),
    );
    let seen = peer(podman(&["image", "inspect", "--format", "{{.Digest}}"]).arg(reference));
    assert_eq!(seen.stdout.trim(), digest);
}
