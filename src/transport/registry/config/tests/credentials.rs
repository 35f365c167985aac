//! Which file and which key credentials come from, each rule a row.

use serde_json::{Value, json};

use super::super::{ConfigError, FileOutcome, Login, LoginKind, RegistryConfig};
use super::{Home, auth};
use crate::transport::TransportError;

fn basic(username: &str, password: &str) -> Login {
    Login::Basic {
        username: username.to_owned(),
        password: password.to_owned(),
    }
}

fn user(config: &RegistryConfig, host: &str, repository: &str) -> String {
    match config.login(host, repository).unwrap() {
        Login::Anonymous => "-".to_owned(),
        Login::Basic { username, .. } => username,
        Login::IdentityToken(token) | Login::RegistryToken(token) => token,
    }
}

/// A rule: what is in the files, what is asked for, whose credentials are found (the user's name says it).
struct Row {
    rule: &'static str,
    containers: Value,
    docker: Value,
    legacy: Value,
    asked: (&'static str, &'static str),
    found: &'static str,
}

impl Default for Row {
    fn default() -> Self {
        Self {
            rule: "",
            containers: Value::Null,
            docker: Value::Null,
            legacy: Value::Null,
            asked: ("r.example", "a/b"),
            found: "-",
        }
    }
}

fn auths(pairs: &[(&str, &str)]) -> Value {
    let entries: serde_json::Map<String, Value> = pairs
        .iter()
        .map(|(key, user)| ((*key).to_owned(), auth(&format!("{user}:pass:word"))))
        .collect();
    json!({ "auths": entries })
}

fn check(rows: Vec<Row>) {
    for row in rows {
        let home = Home::new();
        for (path, value) in [
            ("run/auth.json", &row.containers),
            ("docker/config.json", &row.docker),
            (".dockercfg", &row.legacy),
        ] {
            if !value.is_null() {
                home.write(path, value.to_string());
            }
        }
        home.helper("knows", "echo '{\"Username\":\"helped\",\"Secret\":\"s\"}'");
        home.helper(
            "asked",
            "echo \"{\\\"Username\\\":\\\"$(cat)\\\",\\\"Secret\\\":\\\"s\\\"}\"",
        );
        home.helper("misses", "echo 'credentials not found in native keychain'; exit 1");
        let (host, repository) = row.asked;
        assert_eq!(user(&home.config(), host, repository), row.found, "{}", row.rule);
    }
}

#[test]
fn files_and_keys_are_looked_at_in_podmans_order() {
    check(vec![
        Row {
            rule: "nothing anywhere is anonymous",
            ..Row::default()
        },
        Row {
            rule: "podman's file before docker's",
            containers: auths(&[("r.example", "podman")]),
            docker: auths(&[("r.example", "docker")]),
            found: "podman",
            ..Row::default()
        },
        Row {
            rule: "docker's file where podman's has nothing",
            containers: auths(&[("other.example", "podman")]),
            docker: auths(&[("r.example", "docker")]),
            legacy: json!({ "r.example": auth("legacy:x") }),
            found: "docker",
            ..Row::default()
        },
        Row {
            rule: "the legacy file last, by a URL",
            docker: json!({}),
            legacy: json!({ "https://r.example/v1/": auth("legacy:x") }),
            found: "legacy",
            ..Row::default()
        },
    ]);
}

#[test]
fn keys_are_matched_from_the_repository_to_the_host() {
    check(vec![
        Row {
            rule: "the longest namespace",
            containers: auths(&[("r.example", "host"), ("r.example/a", "ns"), ("r.example/a/b", "repo")]),
            found: "repo",
            ..Row::default()
        },
        Row {
            rule: "a namespace before the host",
            containers: auths(&[("r.example", "host"), ("r.example/a", "ns"), ("r.example/a/c", "repo")]),
            found: "ns",
            ..Row::default()
        },
        Row {
            rule: "a namespace is whole parts of a name",
            containers: auths(&[("r.example/a", "ns")]),
            asked: ("r.example", "ab/c"),
            ..Row::default()
        },
        Row {
            rule: "the host for other namespaces",
            containers: auths(&[("r.example", "host"), ("r.example/x", "ns")]),
            found: "host",
            ..Row::default()
        },
        Row {
            rule: "another namespace's credentials are nobody's",
            containers: auths(&[("r.example/x", "ns")]),
            docker: auths(&[("r.example/x", "ns")]),
            ..Row::default()
        },
        Row {
            rule: "a port is part of the host",
            containers: auths(&[("r.example", "host"), ("r.example:5000", "port")]),
            asked: ("r.example:5000", "a"),
            found: "port",
            ..Row::default()
        },
        Row {
            rule: "another port is another host",
            containers: auths(&[("r.example:5001", "port")]),
            asked: ("r.example:5000", "a"),
            ..Row::default()
        },
        Row {
            rule: "a URL as a key",
            containers: auths(&[("https://r.example/v2/", "url")]),
            found: "url",
            ..Row::default()
        },
        Row {
            rule: "the bare host before a URL",
            docker: auths(&[("http://r.example", "url"), ("r.example", "host")]),
            found: "host",
            ..Row::default()
        },
    ]);
}

#[test]
fn entries_that_say_nothing_are_passed_over() {
    check(vec![
        Row {
            rule: "an empty entry says nothing",
            containers: json!({ "auths": { "r.example": {} } }),
            docker: auths(&[("r.example", "docker")]),
            found: "docker",
            ..Row::default()
        },
        Row {
            rule: "no password says nothing",
            containers: json!({ "auths": { "r.example": auth("name:") } }),
            docker: auths(&[("r.example", "docker")]),
            found: "docker",
            ..Row::default()
        },
        Row {
            rule: "the legacy file knows no namespaces",
            legacy: json!({ "r.example/a": auth("legacy:x"), "r.example": auth("host:x") }),
            found: "host",
            ..Row::default()
        },
    ]);
}

#[test]
fn docker_hub_has_many_names() {
    let asked = ("docker.io", "library/hello");
    for key in [
        "docker.io",
        "https://index.docker.io/v1/",
        "index.docker.io",
        "registry-1.docker.io",
        "https://registry-1.docker.io/v2/",
        "docker.io/library",
        "docker.io/library/hello",
    ] {
        for docker in [false, true] {
            let file = auths(&[(key, "hub")]);
            let (containers, docker) = if docker {
                (Value::Null, file)
            } else {
                (file, Value::Null)
            };
            check(vec![Row {
                rule: key,
                containers,
                docker,
                asked,
                found: "hub",
                ..Row::default()
            }]);
        }
    }
    let both = auths(&[("docker.io", "podman"), ("https://index.docker.io/v1/", "docker")]);
    check(vec![
        Row {
            rule: "podman's name in podman's file",
            containers: both.clone(),
            asked,
            found: "podman",
            ..Row::default()
        },
        Row {
            rule: "docker's name in docker's file",
            docker: both,
            asked,
            found: "docker",
            ..Row::default()
        },
        Row {
            rule: "the legacy file",
            legacy: json!({ "https://index.docker.io/v1/": auth("legacy:x") }),
            asked,
            found: "legacy",
            ..Row::default()
        },
    ]);
}

#[test]
fn helpers_speak_for_their_file() {
    let with = |extra: Value| {
        let mut file = auths(&[("r.example", "inline")]);
        file.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        file
    };
    check(vec![
        Row {
            rule: "credHelpers before auths, in podman's file",
            containers: with(json!({ "credHelpers": { "r.example": "knows" } })),
            found: "helped",
            ..Row::default()
        },
        Row {
            rule: "credHelpers before credsStore and auths, in docker's file",
            docker: with(json!({ "credHelpers": { "r.example": "knows" }, "credsStore": "misses" })),
            found: "helped",
            ..Row::default()
        },
        Row {
            rule: "a helper that misses: the next file",
            containers: with(json!({ "credHelpers": { "r.example": "misses" } })),
            docker: auths(&[("r.example", "docker")]),
            found: "docker",
            ..Row::default()
        },
        Row {
            rule: "credHelpers of another host are not asked",
            containers: with(json!({ "credHelpers": { "r.example:5000": "knows" } })),
            found: "inline",
            ..Row::default()
        },
        Row {
            rule: "docker's credsStore before auths",
            docker: with(json!({ "credsStore": "knows" })),
            found: "helped",
            ..Row::default()
        },
        Row {
            rule: "a store that misses: auths",
            docker: with(json!({ "credsStore": "misses" })),
            found: "inline",
            ..Row::default()
        },
        Row {
            rule: "podman passes over credsStore",
            containers: with(json!({ "credsStore": "knows" })),
            found: "inline",
            ..Row::default()
        },
        Row {
            rule: "a store is asked by docker's name of the hub",
            docker: json!({ "credsStore": "asked" }),
            asked: ("docker.io", "a/b"),
            found: "https://index.docker.io/v1/",
            ..Row::default()
        },
        Row {
            rule: "podman's helper is asked by podman's",
            containers: json!({ "credHelpers": { "docker.io": "asked" } }),
            asked: ("docker.io", "a/b"),
            found: "docker.io",
            ..Row::default()
        },
        Row {
            rule: "a helper is asked for the host, not the repository",
            docker: json!({ "credHelpers": { "r.example": "asked" } }),
            found: "r.example",
            ..Row::default()
        },
    ]);
}

#[test]
fn entries_hold_passwords_and_tokens() {
    for (entry, login) in [
        (auth("me:a:b:c"), basic("me", "a:b:c")),
        (auth("me:pw\0\0"), basic("me", "pw")),
        (json!({ "auth": "bWU6cHc" }), basic("me", "pw")),
        (json!({ "auth": "bWU6\ncHc=\n" }), basic("me", "pw")),
        (json!({ "username": "me", "password": "pw" }), basic("me", "pw")),
        (
            json!({ "auth": "bWU6cHc=", "username": "x", "password": "y" }),
            basic("me", "pw"),
        ),
        (
            json!({ "auth": "", "identitytoken": "t" }),
            Login::IdentityToken("t".into()),
        ),
        (
            json!({ "auth": "bWU6cHc=", "identitytoken": "t" }),
            Login::IdentityToken("t".into()),
        ),
        (
            json!({ "identitytoken": "t", "registrytoken": "r" }),
            Login::RegistryToken("r".into()),
        ),
        (json!({ "username": "me" }), Login::Anonymous),
        (Value::Null, Login::Anonymous),
    ] {
        let home = Home::new();
        home.write("run/auth.json", json!({ "auths": { "r.example": entry } }).to_string());
        assert_eq!(home.config().login("r.example", "a").unwrap(), login, "{entry}");
    }
}

#[test]
fn malformed_files_are_named_with_their_key_and_without_their_secret() {
    let with = |entry: &str| format!("{{\"auths\": {{\"r.example\": {entry}}}}}");
    for (text, expected) in [
        (String::new(), "it is not JSON from line 1, column 0"),
        (
            "{\"auths\": {\"r.example\": {\"auth\": \"SECRET\"".to_owned(),
            "it is not JSON from line 1",
        ),
        ("[\"SECRET\"]".to_owned(), "it is not an object"),
        ("{\"auths\": \"SECRET\"}".to_owned(), "`auths` is not an object"),
        (with("\"SECRET\""), "`auths` → `r.example` is not an object"),
        (
            with("{\"auth\": \"SECRET!\"}"),
            "`auths` → `r.example` → `auth` is not base64",
        ),
        (
            with("{\"auth\": \"U0VDUkVU\"}"),
            "holds base64 of text that is not `NAME:PASSWORD`",
        ),
        (with("{\"auth\": \"/////w==\"}"), "not UTF-8"),
        (with("{\"auth\": [\"SECRET\"]}"), "`auth` is not text"),
        (
            with("{\"password\": 5, \"username\": \"SECRET\"}"),
            "`password` is not text",
        ),
        (
            "{\"credHelpers\": {\"r.example\": 5}}".to_owned(),
            "`credHelpers` → `r.example` is not text",
        ),
    ] {
        let home = Home::new();
        let path = home.write("run/auth.json", &text);
        let error = home.config().login("r.example", "a").unwrap_err();
        let shown = format!("{error} {error:?} {}", error.help().unwrap());
        assert!(shown.contains(expected), "{text}: {shown}");
        assert!(shown.contains(path.to_str().unwrap()), "{shown}");
        assert!(!shown.contains("SECRET") && !shown.contains("U0VDUkVU"), "{shown}");
    }
}

#[test]
fn a_broken_entry_of_another_registry_does_no_harm() {
    let home = Home::new();
    let file = json!({ "auths": { "broken.example": { "auth": "!" }, "r.example": auth("me:pw") } });
    home.write("run/auth.json", file.to_string());
    assert_eq!(user(&home.config(), "r.example", "a"), "me");
    assert!(home.config().login("broken.example", "a").is_err());
}

#[test]
fn an_unreadable_file_is_an_error_that_names_it() {
    let home = Home::new();
    std::fs::create_dir_all(home.at("run/auth.json")).unwrap();
    let error = home.config().login("r.example", "a").unwrap_err();
    assert!(matches!(error, TransportError::Config(ConfigError::Io(_))), "{error:?}");
    assert!(error.to_string().contains("auth.json"), "{error}");
}

#[test]
fn credentials_go_over_plain_http_only_where_that_was_said() {
    let home = Home::new();
    let file = auths(&[("r.example", "me"), ("localhost:5000", "me"), ("[::1]:5000", "me")]);
    home.write("run/auth.json", file.to_string());
    let mut config = home.config();
    assert_eq!(user(&config, "localhost:5000", "a"), "me");
    assert_eq!(user(&config, "[::1]:5000", "a"), "me");
    assert_eq!(user(&config, "r.example", "a"), "me");
    config.plain_http.insert("r.example".to_owned());
    config.plain_http.insert("anonymous.example".to_owned());
    assert_eq!(user(&config, "anonymous.example", "a"), "-");
    let error = config.login("r.example", "a").unwrap_err();
    assert!(error.to_string().contains("are not sent"), "{error}");
    assert!(error.help().unwrap().contains("credentials-over-http"));
    let reference = "r.example/a".parse().unwrap();
    assert!(config.explain(&reference).unwrap().endpoints[0].withheld);
    config
        .hosts
        .entry("r.example".to_owned())
        .or_default()
        .credentials_over_http = true;
    assert_eq!(user(&config, "r.example", "a"), "me");
    assert!(!config.explain(&reference).unwrap().endpoints[0].withheld);
}

#[test]
fn a_mirror_is_asked_for_reading_only_and_gets_its_own_credentials() {
    let home = Home::new();
    let file = auths(&[
        ("docker.io", "hub"),
        ("m.example:5000/hub", "mirror"),
        ("r.example", "me"),
    ]);
    home.write("run/auth.json", file.to_string());
    let mut config = home.config();
    let of_hub = config.hosts.entry("docker.io".to_owned()).or_default();
    of_hub.mirrors = vec!["m.example:5000/hub".parse().unwrap(), "bare.example".parse().unwrap()];
    let reading = config.endpoints("docker.io", true).unwrap();
    let shown: Vec<_> = reading
        .iter()
        .map(|e| {
            (
                e.host.as_str(),
                e.base.as_str(),
                e.mirror,
                e.repository("library/hello"),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            (
                "m.example:5000",
                "https://m.example:5000/",
                true,
                "hub/library/hello".to_owned()
            ),
            (
                "bare.example",
                "https://bare.example/",
                true,
                "library/hello".to_owned()
            ),
            (
                "docker.io",
                "https://registry-1.docker.io/",
                false,
                "library/hello".to_owned()
            ),
        ]
    );
    let users: Vec<_> = reading
        .iter()
        .map(|endpoint| user(&config, &endpoint.host, &endpoint.repository("library/hello")))
        .collect();
    assert_eq!(users, ["mirror", "-", "hub"]);
    let writing = config.endpoints("docker.io", false).unwrap();
    assert_eq!(writing, reading[2..]);
    let explanation = config.explain(&"hello".parse().unwrap()).unwrap();
    assert_eq!(explanation.endpoints[0].scopes, ["repository:hub/library/hello:pull"]);
    assert_eq!(explanation.endpoints[1].login, LoginKind::Anonymous);
    assert_eq!(explanation.endpoints[2].scopes.len(), 2);
}

#[test]
fn an_explanation_tells_the_way_to_the_answer() {
    let home = Home::new();
    home.write("run/auth.json", auths(&[("other.example", "x")]).to_string());
    home.helper("knows", "echo '{\"Username\":\"<token>\",\"Secret\":\"SECRET\"}'");
    home.write(
        "docker/config.json",
        json!({ "credHelpers": { "r.example": "knows" } }).to_string(),
    );
    let explanation = home.config().explain(&"r.example/a/b:1".parse().unwrap()).unwrap();
    let endpoint = &explanation.endpoints[0];
    assert_eq!((endpoint.login, &endpoint.username), (LoginKind::IdentityToken, &None));
    let outcomes: Vec<_> = endpoint.files.iter().map(|file| file.outcome).collect();
    assert_eq!(
        outcomes,
        [FileOutcome::NoMatch, FileOutcome::Used, FileOutcome::NotRead]
    );
    assert_eq!(endpoint.files[1].helper.as_deref(), Some("docker-credential-knows"));
    let text = explanation.to_string();
    for part in [
        "r.example/a/b:1",
        "https://r.example/ (registry)",
        "identity token",
        "key `r.example`, helper `docker-credential-knows`",
        "not looked at",
        "repository:a/b:pull,push",
        "proxy: none",
    ] {
        assert!(text.contains(part), "`{part}` is missing in:\n{text}");
    }
    assert!(!text.contains("SECRET"));
}

#[test]
fn plain_http_is_for_this_machine_and_for_hosts_that_were_named() {
    let home = Home::new();
    let scheme = |config: &RegistryConfig, host: &str| {
        let endpoints = config.endpoints(host, true).unwrap();
        endpoints[0].base.scheme().to_owned()
    };
    let mut config = home.config();
    for host in ["localhost:5000", "127.0.0.1:5000", "[::1]:5000"] {
        assert_eq!(scheme(&config, host), "http", "{host}");
    }
    for host in ["r.example", "127.0.0.1.example", "10.0.0.1:5000", "docker.io"] {
        assert_eq!(scheme(&config, host), "https", "{host}");
    }
    config.plain_http.insert("r.example:80".to_owned());
    assert_eq!(scheme(&config, "r.example:80"), "http");
    assert_eq!(scheme(&config, "r.example"), "https", "another port is another host");
    // What is configured about TLS for this machine is meant.
    config.hosts.entry("localhost:5000".to_owned()).or_default().plain_http = Some(false);
    assert_eq!(scheme(&config, "localhost:5000"), "https");
    config.http.certs_dirs = vec![home.at("certs.d")];
    std::fs::create_dir_all(home.at("certs.d/127.0.0.1:5000")).unwrap();
    assert_eq!(scheme(&config, "127.0.0.1:5000"), "https");
    assert_eq!(scheme(&config, "127.0.0.1:5001"), "http");
    config.http.ca_files = vec![home.at("ca.crt")];
    assert_eq!(scheme(&config, "127.0.0.1:5001"), "https");
    config.plain_http.insert("127.0.0.1:5001".to_owned());
    assert_eq!(scheme(&config, "127.0.0.1:5001"), "http");
    for host in ["..", "a/b.example", "u:p@r.example"] {
        assert!(config.endpoints(host, true).is_err(), "{host}");
    }
}
