//! Health checks of images: in the config as Docker has it, checked before they run, and run by Docker.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Place, have, is_root, peer};

/// A shell, and what is healthy once a file is there.
fn spec(name: &str, check: &str) -> String {
    format!(
        "[image.{name}]\nroot = [\"deb:busybox-static\"]\nconfigure = false\nutf-8 = false\n\
         entrypoint = [\"/bin/busybox\", \"sleep\", \"60\"]\nenv = {{ PATH = \"/bin\" }}\n{check}\n\n"
    )
}

fn health(place: &Place, image: &str) -> Value {
    place.inspect(image)["config"]["Healthcheck"].clone()
}

#[test]
fn docker_runs_the_check_and_says_so() {
    let place = Place::new();
    let name = format!("layerize-test-health-{}", std::process::id());
    let check = "healthcheck = { run = [\"busybox\", \"test\", \"-e\", \"/tmp/ready\"], interval = \"1s\", timeout = \"1m30s\", \
                 start-period = \"1s\", start-interval = \"1s\", retries = 2 }";
    place.write("layerize.toml", &spec(&name, check));
    place.run(&["build", "-o", "oci:out:v1"]).success();
    let expected = json!({
        "Test": ["CMD", "busybox", "test", "-e", "/tmp/ready"],
        "Interval": 1_000_000_000,
        "Timeout": 90_000_000_000_u64,
        "StartPeriod": 1_000_000_000,
        "StartInterval": 1_000_000_000,
        "Retries": 2,
    });
    assert_eq!(health(&place, "oci:out:v1"), expected);
    let shown = place.run(&["inspect", "oci:out:v1"]).success().stdout;
    assert!(shown.contains("Test=[\"CMD\",\"busybox\",\"test\""), "{shown}");
    place.run(&["verify", "oci:out:v1"]).success();
    if !have("docker", &["info"]) || !is_root() {
        return;
    }
    let docker = |args: &[&str]| peer(Command::new("docker").args(args)).stdout.trim().to_owned();
    place.run(&["load", "--engine", "docker"]).success();
    let seen = docker(&["image", "inspect", "--format", "{{json .Config.Healthcheck}}", &name]);
    let seen: Value = serde_json::from_str(&seen).unwrap();
    for key in ["Test", "Interval", "Timeout", "StartPeriod", "Retries"] {
        assert_eq!(seen[key], expected[key], "{seen}");
    }
    docker(&["run", "-d", "--rm", "--network", "none", "--name", &name, &name]);
    let becomes = |wanted: &str| {
        let started = Instant::now();
        loop {
            let status = docker(&["inspect", "--format", "{{.State.Health.Status}}", &name]);
            if status == wanted || started.elapsed() > Duration::from_secs(30) {
                return status;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    let before = becomes("unhealthy");
    docker(&["exec", &name, "busybox", "touch", "/tmp/ready"]);
    let after = becomes("healthy");
    docker(&["rm", "-f", &name]);
    docker(&["rmi", "-f", &name]);
    assert_eq!([before, after], ["unhealthy", "healthy"]);
}

#[test]
fn a_check_that_could_not_run_is_an_error() {
    let place = Place::new();
    let image = |run: &str| spec("app", &format!("healthcheck = {{ run = [{run}] }}"));
    for (run, texts) in [
        (
            "\"busybx\"",
            [
                "the healthcheck `busybx` is not in the image",
                "did you mean `busybox`?",
            ],
        ),
        (
            "\"curl\", \"-f\"",
            [
                "the healthcheck `curl` is not in the image",
                "it was looked for in `/bin`",
            ],
        ),
        (
            "\"/usr/share/doc\"",
            ["the healthcheck `/usr/share/doc`", "in the image"],
        ),
    ] {
        place.write("layerize.toml", &image(run));
        place.run(&["build"]).exits(2).says(&texts);
    }
    // A script whose interpreter is not there.
    let script = "[image.app.files]\n\"/bin/check\" = { mode = \"0755\", text = \"#!/bin/bash\\n\" }\n";
    place.write("layerize.toml", &(image("\"check\"") + script));
    place
        .run(&["build"])
        .exits(2)
        .says(&["`/usr/bin/check` cannot start: its interpreter `/bin/bash` is not in the image"]);
    // An empty word.
    place.write("layerize.toml", &image("\"\""));
    place
        .run(&["build"])
        .exits(2)
        .says(&["cannot be used in `healthcheck`"]);
}

/// The base's check is for the base's program.
#[test]
fn over_a_base_the_check_is_the_specs_or_the_bases() {
    let place = Place::new();
    let check = "healthcheck = { run = [\"/bin/busybox\", \"true\"], interval = \"7s\" }";
    place.write("layerize.toml", &spec("base", check));
    place.run(&["build", "-o", "oci:base:v1"]).success();
    let of_base = json!({ "Test": ["CMD", "/bin/busybox", "true"], "Interval": 7_000_000_000_u64 });
    let own = json!({ "Test": ["CMD", "/bin/busybox", "false"] });
    for (more, expected) in [
        ("", of_base),
        (
            "cmd = [\"x\"]",
            json!({ "Test": ["CMD", "/bin/busybox", "true"], "Interval": 7_000_000_000_u64 }),
        ),
        ("entrypoint = [\"/bin/busybox\"]", Value::Null),
        ("healthcheck = false", Value::Null),
        ("healthcheck = { run = [\"/bin/busybox\", \"false\"] }", own.clone()),
        (
            "entrypoint = [\"/bin/busybox\"]\nhealthcheck = { run = [\"/bin/busybox\", \"false\"] }",
            own,
        ),
    ] {
        let spec = format!("[image.app]\nbase = \"oci:base:v1\"\nfiles = {{ \"/x\" = {{ text = \"x\" }} }}\n{more}\n");
        place.write("layerize.toml", &spec);
        place.run(&["build", "-o", "docker-archive:app.tar"]).success();
        assert_eq!(health(&place, "app.tar"), expected, "{more}");
    }
}
