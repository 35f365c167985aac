//! Registries that say nothing to `HEAD`, or nothing to who may only write, and registries whose answers lead to another
//! name of this machine.

use std::sync::Arc;

use super::faulty::{Act, Answer, Faulty, Ways};
use super::*;
use crate::http::HttpConfig;
use crate::http::client::SAYS_NOTHING;
use crate::transport::registry::RemoteImage;
use crate::transport::testing::sha256;
use crate::transport::{ReadOptions, Source};

fn pulled(config: &RegistryConfig, name: &str) -> Result<Vec<u8>, TransportError> {
    let options = ReadOptions {
        registries: config.clone(),
        ..ReadOptions::default()
    };
    let image = RemoteImage::tuned(name, &options, hasty())?;
    Ok(image.manifest()?.bytes().to_vec())
}

/// `HEAD` is a shortcut, as docker, podman and containerd take it: they do without. What it does not say is asked for with
/// `GET`, so that nothing is sent twice and no tag moves that must not.
#[test]
fn a_registry_that_says_nothing_to_head_is_pushed_to_as_any_other() {
    for status in SAYS_NOTHING {
        for path in ["/manifests/", "/blobs/", "/v2/"] {
            let case = format!("{status} {path}");
            let registry = Faulty::start(Ways::default());
            registry.rule("HEAD", path, 0, usize::MAX, Act::Reply(Answer::new(status)));
            let image = small();
            assert_eq!(to(&registry, &image).unwrap().blobs_sent, 3, "{case}");
            assert_eq!(registry.manifest("app", "1").unwrap(), image.manifest.bytes(), "{case}");
            // The manifest is there, which `GET` says.
            let again = to(&registry, &image).unwrap();
            assert_eq!((again.blobs_sent, again.bytes_sent), (0, 0), "{case}");
            let options = PushOptions {
                immutable_tags: true,
                ..PushOptions::default()
            };
            let name = format!("{}/app:1", registry.host);
            let config = RegistryConfig::default();
            push_with(&config, &name, &image, &options).unwrap();
            let error = push_with(&config, &name, &sized(&[(9, 10)]), &options).unwrap_err();
            assert!(text(&error).contains("exists and names"), "{case}: {}", text(&error));
            assert_eq!(pulled(&config, &name).unwrap(), image.manifest.bytes(), "{case}");
        }
    }
}

/// Who may write and not read has nothing to ask: all is sent. What asks in earnest is told so.
#[test]
fn who_may_write_and_not_read_sends_all() {
    for status in [401, 403] {
        let registry = Faulty::start(Ways::default());
        for method in ["HEAD", "GET"] {
            let denied = Answer::error(status, "DENIED", "write only");
            registry.rule(method, "/v2/app/", 0, usize::MAX, Act::Reply(denied));
        }
        let image = small();
        for _ in 0..2 {
            assert_eq!(to(&registry, &image).unwrap().blobs_sent, 3, "{status}");
            assert_eq!(
                registry.manifest("app", "1").unwrap(),
                image.manifest.bytes(),
                "{status}"
            );
        }
        let options = PushOptions {
            immutable_tags: true,
            ..PushOptions::default()
        };
        let name = format!("{}/app:1", registry.host);
        let config = RegistryConfig::default();
        let refused = push_with(&config, &name, &image, &options).unwrap_err();
        assert!(text(&refused).contains("write only"), "{}", text(&refused));
        let refused = pulled(&config, &name).unwrap_err();
        assert!(text(&refused).contains("write only"), "{}", text(&refused));
    }
}

/// The names of loopback that this machine has.
fn names() -> Vec<&'static str> {
    let has = |name: &&str| std::net::TcpListener::bind((name.trim_matches(['[', ']']), 0)).is_ok();
    ["localhost", "127.0.0.1", "[::1]"].into_iter().filter(has).collect()
}

/// A registry that is asked under one name and whose token server, storage, or uploads are under another: all are this
/// machine. Docker's and podman's own registries are run so in every tutorial.
#[test]
fn tokens_redirects_and_uploads_lead_from_one_name_of_loopback_to_another() {
    let names = names();
    assert!(names.len() >= 2, "{names:?}");
    for here in &names {
        for there in &names {
            let case = format!("{here} → {there}");
            // Its token server is elsewhere, and gives tokens that it takes.
            let registry = Faulty::start_as(here, Ways::default());
            let other = Arc::new(Faulty::start_as(there, Ways::default()));
            {
                let mut ways = lock(&registry.shared.ways);
                (ways.tokens, ways.realm) = (true, Some(other.host.clone()));
            }
            let known = registry.shared.clone();
            *lock(&other.shared.mint) = Some(Box::new(move |scopes| {
                lock(&known.store).tokens.insert("minted".to_owned(), scopes.to_vec());
                "minted".to_owned()
            }));
            let image = small();
            to(&registry, &image).unwrap_or_else(|error| panic!("{case}: {}", text(&error)));
            assert_eq!(other.seen("GET", "/token").len(), 1, "{case}");

            // Uploads go elsewhere, and blobs come from there.
            let registry = Faulty::start_as(here, Ways::default());
            let port = registry.host.rsplit(':').next().unwrap();
            let same = format!("{there}:{port}");
            let reachable = std::net::TcpStream::connect(&same).is_ok();
            if reachable {
                let to_there = move |answer: &mut Answer| {
                    let path = answer.headers.iter().find(|(name, _)| name == "Location");
                    let path = path.map(|(_, path)| path.clone()).unwrap();
                    answer.set("Location", format!("http://{same}{path}"));
                };
                registry.rule("POST", "/blobs/uploads/", 0, 99, Act::Edit(Box::new(to_there)));
            }
            to(&registry, &image).unwrap_or_else(|error| panic!("{case}: {}", text(&error)));
            let storage = Faulty::start_as(there, Ways::default());
            for layer in &image.layers {
                let bytes = lock(&registry.shared.store).blobs[&("app".to_owned(), sha256(layer))].clone();
                lock(&storage.shared.store)
                    .blobs
                    .insert(("app".to_owned(), sha256(layer)), bytes);
            }
            let moved = format!("http://{}/v2/app/blobs/{}", storage.host, image.layers[0].digest());
            registry.rule(
                "GET",
                "/blobs/",
                0,
                1,
                Act::Reply(Answer::new(307).with("Location", moved)),
            );
            let options = ReadOptions::default();
            let remote = RemoteImage::tuned(&format!("{}/app:1", registry.host), &options, hasty()).unwrap();
            let mut blob = remote.blob(&image.layers[0].digest(), image.layers[0].size()).unwrap();
            std::io::copy(&mut blob, &mut std::io::sink()).unwrap_or_else(|error| panic!("{case}: {error}"));
            assert_eq!(storage.seen("GET", "/blobs/").len(), 1, "{case}");
        }
    }
}

/// A registry that is asked by a name, through a proxy as the test has no such name, and whose token server is at an
/// address of the network, or of this machine.
#[test]
fn private_addresses_are_led_to_where_that_is_allowed_by_name() {
    let registry = Faulty::start(Ways::default());
    let token = Faulty::start(Ways::default());
    {
        let mut ways = lock(&registry.shared.ways);
        (ways.tokens, ways.realm) = (true, Some(token.host.clone()));
    }
    let known = registry.shared.clone();
    *lock(&token.shared.mint) = Some(Box::new(move |scopes| {
        lock(&known.store).tokens.insert("minted".to_owned(), scopes.to_vec());
        "minted".to_owned()
    }));
    let proxy = super::super::config::tests::relay(&registry.host);
    let mut config = RegistryConfig {
        http: HttpConfig {
            proxies: crate::http::ProxyVariables {
                http: Some(crate::http::ProxyVariable {
                    name: "HTTP_PROXY",
                    value: proxy,
                }),
                ..Default::default()
            },
            ..HttpConfig::default()
        },
        ..RegistryConfig::default()
    };
    config.plain_http.insert("registry.example".to_owned());
    let image = small();
    let error = push(&config, "registry.example/app:1", &image).unwrap_err();
    assert!(
        text(&error).contains(&format!("it names a token server, but it leads to `{}`", token.host)),
        "{}",
        text(&error)
    );
    let help = error.help().unwrap();
    assert!(help.contains("--private-network registry.example"), "{help}");
    assert!(token.seen("*", "").is_empty());

    config.http.private_network.insert("registry.example".to_owned());
    push(&config, "registry.example/app:1", &image).unwrap();
    assert_eq!(token.seen("GET", "/token").len(), 1);
}

/// What an anonymous user may not do is said so, with the registry to log in at, whoever refuses it: the registry, or its
/// token server at another host. Who has logged in is named.
#[test]
fn a_refusal_names_who_was_refused_and_where_to_log_in() {
    for by_token_server in [false, true] {
        let registry = Faulty::start(Ways::default());
        let token = Faulty::start(Ways::default());
        let denied = || Act::Reply(Answer::error(403, "DENIED", "not you"));
        if by_token_server {
            let mut ways = lock(&registry.shared.ways);
            (ways.tokens, ways.realm) = (true, Some(token.host.clone()));
            token.rule("GET", "/token", 0, usize::MAX, denied());
        } else {
            registry.rule("*", "/v2/", 0, usize::MAX, denied());
        }
        let refuses = if by_token_server { &token.host } else { &registry.host };
        let name = format!("{}/app:1", registry.host);
        let asked = pulled(&RegistryConfig::default(), &name).unwrap_err();
        let shown = text(&asked);
        assert!(
            shown.contains(&format!(
                "`{refuses}` does not allow it to an anonymous user: 403 Forbidden: DENIED (not you)"
            )),
            "{shown}"
        );
        let help = asked.help().unwrap();
        assert!(
            help.contains(&format!("log in with `docker login {}`", registry.host)),
            "{help}"
        );
        let login = Login::Basic {
            username: "me".to_owned(),
            password: "secret".to_owned(),
        };
        let refused = as_user(&registry, login, &small()).unwrap_err();
        assert!(text(&refused).contains("to the user `me`"), "{}", text(&refused));
        assert!(
            !refused.help().unwrap().contains("docker login"),
            "{:?}",
            refused.help()
        );
    }
}
