//! `layerize auth explain`: the environment's part of finding credentials, beside podman's own answer, and no secret.

use std::fs;
use std::process::Command;

use crate::served::{self, Demands, PASSWORD, USER};
use crate::support::{Place, Ran, have, peer};

/// `base64(NAME:SECRET-password)`
fn auth(name: &str) -> String {
    let encoded = match name {
        "runtime" => "cnVudGltZTpTRUNSRVQtcGFzc3dvcmQ=",
        "config" => "Y29uZmlnOlNFQ1JFVC1wYXNzd29yZA==",
        "docker" => "ZG9ja2VyOlNFQ1JFVC1wYXNzd29yZA==",
        "moved" => "bW92ZWQ6U0VDUkVULXBhc3N3b3Jk",
        "named" => "bmFtZWQ6U0VDUkVULXBhc3N3b3Jk",
        "legacy" => "bGVnYWN5OlNFQ1JFVC1wYXNzd29yZA==",
        _ => panic!("{name}"),
    };
    format!("{{\"auth\": \"{encoded}\"}}")
}

fn auths(name: &str, host: &str) -> String {
    format!("{{\"auths\": {{\"{host}\": {}}}}}", auth(name))
}

/// An environment variable and its value.
type Variable = (&'static str, String);

fn explain(place: &Place, variables: &[Variable], args: &[&str]) -> Ran {
    let mut command = place.command(&[&["auth", "explain", "--json"], args].concat());
    Ran::of(command.envs(variables.iter().cloned()).output().unwrap())
}

fn json(ran: &Ran) -> serde_json::Value {
    assert!(
        !ran.stdout.contains("SECRET") && !ran.stderr.contains("SECRET"),
        "{ran:?}"
    );
    serde_json::from_str(ran.line()).unwrap()
}

/// Each row: a variable set or not, a host; the user's name, which podman and skopeo must find too.
#[test]
fn the_environment_chooses_the_files_as_podman_does() {
    let place = Place::new();
    let at = |path: &str| place.path().join(path).display().to_string();
    let write = |path: &str, text: String| {
        let path = place.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("run/containers/auth.json", auths("runtime", "r.example"));
    write("config/containers/auth.json", auths("config", "c.example"));
    write(".docker/config.json", auths("docker", "d.example"));
    write("moved/config.json", auths("moved", "m.example"));
    write("named.json", auths("named", "n.example"));
    write(
        ".dockercfg",
        format!("{{\"https://l.example/v1/\": {}}}", auth("legacy")),
    );
    let run = ("XDG_RUNTIME_DIR", at("run"));
    let moved = ("DOCKER_CONFIG", at("moved"));
    let named = ("REGISTRY_AUTH_FILE", at("named.json"));
    let absent = ("REGISTRY_AUTH_FILE", at("absent.json"));
    let rows: [(Vec<&Variable>, &str, &str); 17] = [
        (vec![&run], "r.example", "runtime"),
        (vec![], "r.example", ""),
        (vec![&run], "c.example", "config"),
        (vec![&run], "d.example", "docker"),
        (vec![&run], "l.example", "legacy"),
        (vec![&run], "m.example", ""),
        (vec![&run, &moved], "m.example", "moved"),
        (vec![&run, &moved], "d.example", ""),
        (vec![&run, &moved], "r.example", ""),
        (vec![&run, &moved], "c.example", "config"),
        (vec![&run, &named], "n.example", "named"),
        (vec![&run, &named], "r.example", ""),
        (vec![&run, &named], "c.example", "config"),
        (vec![&run, &named], "d.example", "docker"),
        (vec![&run, &named, &moved], "m.example", "moved"),
        (vec![&run, &absent], "r.example", ""),
        (vec![&run, &absent], "c.example", "config"),
    ];
    let oracles = ["skopeo", "podman"].map(|tool| have(tool, &["--version"]).then_some(tool));
    for (variables, host, user) in rows {
        let variables: Vec<Variable> = variables.into_iter().cloned().collect();
        let ran = explain(&place, &variables, &[&format!("{host}/a")]).success();
        let found = &json(&ran)["endpoints"][0];
        assert_eq!(found["username"].as_str().unwrap_or(""), user, "{host} {variables:?}");
        for tool in oracles.iter().flatten() {
            let mut command = Command::new(tool);
            place.prepare(&mut command);
            command
                .envs(variables.iter().cloned())
                .args(["login", "--get-login", host]);
            let theirs = String::from_utf8(command.output().unwrap().stdout).unwrap();
            assert_eq!(theirs.trim(), user, "{tool} {host} {variables:?}");
        }
    }
}

#[test]
fn an_explanation_for_people_names_everything_but_the_secret() {
    let place = Place::new();
    let write = |path: &str, text: &str| {
        let path = place.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write(".docker/config.json", &auths("docker", "https://index.docker.io/v1/"));
    write(
        "config/layerize/config.toml",
        "[registries.\"docker.io\"]\nmirrors = [\"mirror.example:5000/hub\"]\n",
    );
    let mut command = place.command(&["auth", "explain", "docker://hello:1"]);
    command.env("HTTPS_PROXY", "http://me:SECRET@proxy.example:3128");
    command.env("NO_PROXY", "mirror.example");
    let ran = Ran::of(command.output().unwrap()).success();
    for part in [
        "docker.io/library/hello:1",
        "https://mirror.example:5000/ (mirror, for reading only), repository hub/library/hello",
        "credentials: none, anonymous",
        "https://registry-1.docker.io/ (registry), repository library/hello",
        "credentials: password of docker",
        "used, key `https://index.docker.io/v1/`",
        "proxy: none",
        "proxy: http://proxy.example:3128",
        "repository:library/hello:pull,push",
    ] {
        assert!(ran.stdout.contains(part), "`{part}` is missing in:\n{}", ran.stdout);
    }
    assert!(!ran.stdout.contains("SECRET") && !ran.stdout.contains("ZG9ja2Vy"));
}

#[test]
fn helpers_are_found_on_path_and_may_read_the_environment() {
    let place = Place::new();
    let bin = place.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let script = "#!/bin/sh\necho '{\"Username\":\"'$WHO'\",\"Secret\":\"SECRET\"}'\n";
    place.write("script", script);
    // Another process writes it: a file that a thread of this one has open for writing cannot be run.
    let mut install = Command::new("install");
    install.arg("-m755").arg(place.project.join("script"));
    peer(install.arg(bin.join("docker-credential-test")));
    let docker = place.path().join(".docker");
    fs::create_dir(&docker).unwrap();
    fs::write(docker.join("config.json"), "{\"credsStore\": \"test\"}").unwrap();
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let variables = [("PATH", path), ("WHO", "me".to_owned())];
    let found = json(&explain(&place, &variables, &["r.example/a"]).success());
    let endpoint = &found["endpoints"][0];
    assert_eq!(endpoint["username"], "me");
    let file = &endpoint["files"].as_array().unwrap()[2];
    assert_eq!(
        (&file["outcome"], &file["helper"]),
        (&"used".into(), &"docker-credential-test".into())
    );
    explain(&place, &[], &["r.example/a"]).exits(2).says(&[
        "docker-credential-test",
        "is in no directory of PATH",
        "help: install",
    ]);
}

#[test]
fn what_is_wrong_is_said_with_advice() {
    let place = Place::new();
    explain(&place, &[], &["r.example/UPPER"])
        .exits(2)
        .says(&["lower case"]);
    explain(&place, &[], &["r.example/a", "--plain-http", "http://r.example"])
        .exits(2)
        .says(&["is not a registry's host"]);
    explain(&place, &[], &["r.example/a", "--ca-file", "absent.crt"])
        .exits(2)
        .says(&["absent.crt"]);
    explain(
        &place,
        &[("HTTPS_PROXY", "ftp://me:SECRET@p.example".to_owned())],
        &["r.example/a"],
    )
    .exits(2)
    .says(&["HTTPS_PROXY", "help: write HTTPS_PROXY=http://proxy.example:3128"]);
    let docker = place.path().join(".docker");
    fs::create_dir(&docker).unwrap();
    fs::write(
        docker.join("config.json"),
        "{\"auths\": {\"r.example\": {\"auth\": \"SECRET\"}}}",
    )
    .unwrap();
    let ran = explain(&place, &[], &["r.example/a"]).exits(2).says(&[
        ".docker/config.json",
        "`auths` \u{2192} `r.example` \u{2192} `auth`",
        "help: repair or remove",
    ]);
    assert!(!ran.stderr.contains("SECRET"));
    let config = place.path().join("config/layerize");
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("config.toml"), "[registries.\"a/b\"]\n").unwrap();
    explain(&place, &[], &["r.example/a"]).exits(2).says(&[
        "config.toml",
        "[registries.\"a/b\"]",
        "is not a registry's host",
    ]);
}

#[test]
fn a_login_of_skopeo_under_a_private_authority_is_explained() {
    if !have("docker-registry", &["--version"]) || !have("skopeo", &["--version"]) {
        return;
    }
    let place = Place::new();
    let demands = Demands {
        tls: true,
        user: true,
        ..Demands::default()
    };
    let registry = served::start(&place.path().join("registry"), demands);
    let ca_file = registry.ca_file.as_deref().unwrap();
    let mut login = Command::new("skopeo");
    place.prepare(&mut login);
    login.args(["login", "--username", USER, "--password", PASSWORD, "--cert-dir"]);
    login.arg(ca_file.parent().unwrap()).arg(&registry.host);
    let run = place.path().join("run");
    fs::create_dir(&run).unwrap();
    peer(login.env("XDG_RUNTIME_DIR", &run));
    let variables = [("XDG_RUNTIME_DIR", run.display().to_string())];
    let reference = format!("{}/a/b:1", registry.host);
    let found = json(
        &explain(
            &place,
            &variables,
            &[&reference, "--ca-file", ca_file.to_str().unwrap()],
        )
        .success(),
    );
    let endpoint = &found["endpoints"][0];
    assert_eq!(endpoint["username"], USER);
    assert_eq!(endpoint["url"], format!("https://{}/", registry.host));
    assert_eq!(endpoint["tls"]["authorities"][0], ca_file.to_str().unwrap());
    assert_eq!(endpoint["files"][0]["outcome"], "used");
    assert_eq!(endpoint["files"][0]["key"], registry.host);
    assert_eq!(endpoint["proxy"], serde_json::Value::Null);
    let plain = json(&explain(&place, &variables, &[&reference]).success());
    assert_eq!(plain["endpoints"][0]["plain-http"], true);
}
