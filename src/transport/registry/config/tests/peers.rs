//! What the real tools write when they log in is what is found, and the real registry accepts it.

use std::path::Path;
use std::process::Command;

use reqwest::Method;
use reqwest::header::{AUTHORIZATION, HeaderMap};

use super::super::{AuthSource, FileKind, Login, RegistryConfig};
use super::Home;
use super::served::{self, Demands, PASSWORD, USER};
use crate::http::HttpConfig;
use crate::http::client::{Client, Tuning, basic};
use crate::transport::testing::{oracle, run};

/// The status that the registry gives to a request with the credentials that are found for it.
fn status(config: &RegistryConfig, host: &str) -> u16 {
    let endpoint = config.endpoints(host, false).unwrap().remove(0);
    let url = endpoint.base.join("v2/").unwrap();
    let client = Client::new(&config.http, Tuning::default());
    let login = match config.login(&endpoint.host, "a/b").unwrap() {
        Login::Basic { username, password } => {
            assert_eq!((username.as_str(), password.as_str()), (USER, PASSWORD));
            basic(USER, PASSWORD)
        }
        Login::Anonymous => None,
        login => panic!("{login:?}"),
    };
    let mut headers = HeaderMap::new();
    headers.extend(login.map(|login| (AUTHORIZATION, login)));
    client.fetch(Method::GET, &url, &headers, None).unwrap().status()
}

fn config(file: &Path, kind: FileKind, ca_file: Option<&Path>) -> RegistryConfig {
    RegistryConfig {
        auth_files: vec![AuthSource {
            path: file.to_owned(),
            kind,
            origin: "test",
        }],
        http: HttpConfig {
            ca_files: ca_file.map(Path::to_owned).into_iter().collect(),
            ..HttpConfig::default()
        },
        ..RegistryConfig::default()
    }
}

#[test]
fn skopeo_and_podman_log_in_over_tls_and_their_file_is_read() {
    if !oracle("docker-registry") {
        return;
    }
    let home = Home::new();
    let registry = served::start(
        &home.at("registry"),
        Demands {
            tls: true,
            user: true,
            ..Demands::default()
        },
    );
    let ca_file = registry.ca_file.as_deref().unwrap();
    let without = config(&home.at("absent.json"), FileKind::Containers, Some(ca_file));
    assert_eq!(status(&without, &registry.host), 401);
    for tool in ["skopeo", "podman"] {
        if !oracle(tool) {
            continue;
        }
        let file = home.at(&format!("{tool}.json"));
        let mut login = Command::new(tool);
        login
            .args(["login", "--username", USER, "--password", PASSWORD, "--authfile"])
            .arg(&file);
        login
            .arg("--cert-dir")
            .arg(ca_file.parent().unwrap())
            .arg(&registry.host);
        run(login.env("HOME", home.at("home")));
        let with = config(&file, FileKind::Containers, Some(ca_file));
        assert_eq!(status(&with, &registry.host), 200, "{tool}");
    }
}

#[test]
fn docker_logs_in_and_its_file_is_read() {
    if !oracle("docker-registry") || !oracle("docker") {
        return;
    }
    let home = Home::new();
    let demands = Demands {
        user: true,
        ..Demands::default()
    };
    let registry = served::start(&home.at("registry"), demands);
    let mut login = Command::new("docker");
    login.args(["login", "--username", USER, "--password", PASSWORD, &registry.host]);
    run(login.env("DOCKER_CONFIG", home.at("docker")));
    let with = config(&home.at("docker/config.json"), FileKind::Docker, None);
    assert_eq!(status(&with, &registry.host), 200);
}
