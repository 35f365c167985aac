//! Logins and tokens: rows 4 to 9 of the checklist.

use super::faulty::{Act, Answer, Faulty, Ways, basic};
use super::*;

fn tokens() -> Ways {
    Ways {
        tokens: true,
        ..Ways::default()
    }
}

fn user() -> Login {
    Login::Basic {
        username: "me".to_owned(),
        password: "secret".to_owned(),
    }
}

#[test]
fn row_04_pull_and_push_are_asked_for_first_and_the_source_of_a_mount_too() {
    let registry = Faulty::start(tokens());
    let image = small();
    to(&registry, &image).unwrap();
    let asked = registry.seen("GET", "/token");
    assert_eq!(asked.len(), 1, "one token serves all");
    assert_eq!(
        asked[0].path,
        "/token?static=1&service=test&scope=repository%3Aapp%3Apull%2Cpush"
    );
    let options = PushOptions {
        mount_from: vec!["app".to_owned()],
        ..PushOptions::default()
    };
    let name = format!("{}/other:1", registry.host);
    let summary = push_with(&RegistryConfig::default(), &name, &image, &options).unwrap();
    assert_eq!(summary.blobs_mounted, 3);
    let last = registry.seen("GET", "/token").pop().unwrap();
    assert!(
        last.path
            .ends_with("&scope=repository%3Aother%3Apull%2Cpush&scope=repository%3Aapp%3Apull"),
        "{}",
        last.path
    );
}

#[test]
fn row_04_a_scope_that_is_missing_is_added_once() {
    let registry = Faulty::start(tokens());
    let more = Answer::error(401, "DENIED", "more").with(
        "WWW-Authenticate",
        format!(
            "Bearer realm=\"http://{}/token\",service=\"test\",scope=\"registry:extra:*\",error=\"insufficient_scope\"",
            registry.host
        ),
    );
    registry.rule("PUT", "/manifests/", 0, 1, Act::Reply(more.clone()));
    to(&registry, &small()).unwrap();
    assert!(
        registry
            .seen("GET", "/token")
            .pop()
            .unwrap()
            .path
            .ends_with("&scope=registry%3Aextra%3A*")
    );
    // The same demand again is a refusal, not a loop.
    let registry = Faulty::start(tokens());
    registry.rule("PUT", "/manifests/", 0, 99, Act::Reply(more));
    let error = to(&registry, &small()).unwrap_err();
    assert!(text(&error).contains("DENIED (more)"), "{}", text(&error));
    assert!(registry.seen("PUT", "/manifests/").len() <= 3);
}

#[test]
fn row_05_a_token_that_ends_in_the_middle_of_a_push_is_got_anew() {
    for method in ["POST", "PUT", "PATCH", "HEAD"] {
        let registry = Faulty::start(tokens());
        if method == "PATCH" {
            registry.once("PUT", "/blobs/uploads/", Act::CutRequest(1 << 19));
        }
        registry.rule(method, "/blobs/", 0, 1, Act::First(Box::new(|shared| shared.revoke())));
        registry.rule(
            "PUT",
            "/manifests/",
            0,
            1,
            Act::First(Box::new(|shared| shared.revoke())),
        );
        let image = sized(&[(3, 2 << 20)]);
        to(&registry, &image).unwrap();
        let total = image.layers[0].size() as usize + image.config.size() as usize;
        assert_eq!(registry.arrived(), total, "{method}");
        assert_eq!(registry.manifest("app", "1").unwrap(), image.manifest.bytes());
    }
}

#[test]
fn row_05_a_token_is_renewed_before_it_ends() {
    let registry = Faulty::start(Ways {
        expires_in: Some(1),
        ..tokens()
    });
    // Longer than the token lives.
    let slow = |_: &super::faulty::Shared| std::thread::sleep(Duration::from_millis(1100));
    registry.once("PUT", "/blobs/uploads/", Act::First(Box::new(slow)));
    to(&registry, &sized(&[(1, 1000)])).unwrap();
    let refused: Vec<_> = registry.log().into_iter().filter(|seen| seen.status == 401).collect();
    assert_eq!(
        refused.len(),
        1,
        "only the first request was without a token: {refused:?}"
    );
    assert!(registry.seen("GET", "/token").len() >= 2);
}

#[test]
fn row_06_an_identity_token_is_exchanged_and_never_shown_to_the_registry() {
    let login = Some(("<token>".to_owned(), "identity".to_owned()));
    let registry = Faulty::start(Ways {
        login: login.clone(),
        ..tokens()
    });
    let identity = Login::IdentityToken("identity".to_owned());
    as_user(&registry, identity.clone(), &small()).unwrap();
    let post = &registry.seen("POST", "/token")[0];
    assert_eq!(
        post.text,
        "grant_type=refresh_token&service=test&client_id=layerize&scope=repository%3Aapp%3Apull%2Cpush&refresh_token=identity"
    );
    assert!(!post.headers.contains_key("authorization"));
    for refused in [404, 405] {
        let registry = Faulty::start(Ways {
            login: login.clone(),
            ..tokens()
        });
        registry.once("POST", "/token", Act::Reply(Answer::new(refused)));
        as_user(&registry, identity.clone(), &small()).unwrap();
        let get = &registry.seen("GET", "/token")[0];
        assert_eq!(get.headers["authorization"], basic("<token>", "identity"));
    }
    for seen in registry.seen("*", "/v2/") {
        assert!(
            !seen
                .headers
                .get("authorization")
                .is_some_and(|shown| shown.contains("identity"))
        );
    }
}

#[test]
fn row_06_a_login_goes_to_the_token_server_and_tokens_do_not() {
    let registry = Faulty::start(Ways {
        login: Some(("me".into(), "secret".into())),
        ..tokens()
    });
    registry.rule(
        "PUT",
        "/manifests/",
        0,
        1,
        Act::First(Box::new(|shared| shared.revoke())),
    );
    as_user(&registry, user(), &small()).unwrap();
    let asked = registry.seen("GET", "/token");
    assert!(
        asked.len() >= 2
            && asked
                .iter()
                .all(|seen| seen.headers["authorization"] == basic("me", "secret"))
    );
    let wrong = Login::Basic {
        username: "me".into(),
        password: "wrong".into(),
    };
    let error = as_user(&registry, wrong, &sized(&[(5, 10)])).unwrap_err();
    assert!(
        text(&error).contains("incorrect username or password"),
        "{}",
        text(&error)
    );
    assert!(!format!("{error:?}").contains("wrong"));
}

#[test]
fn row_06_a_password_is_shown_where_it_is_asked_for() {
    let registry = Faulty::start(Ways {
        basic: Some(("me".into(), "secret".into())),
        ..Ways::default()
    });
    as_user(&registry, user(), &small()).unwrap();
    let error = to(&registry, &small()).unwrap_err();
    assert!(
        text(&error).contains("does not allow it to an anonymous user: 401"),
        "{}",
        text(&error)
    );
    assert!(text(&error).contains("UNAUTHORIZED (who are you)"));
    assert!(error.help().unwrap().contains("docker login"));
}

#[test]
fn row_08_a_login_does_not_follow_a_redirect_to_another_host() {
    let storage = Faulty::start(Ways::default());
    for status in [307, 308] {
        let registry = Faulty::start(tokens());
        let away = Answer::new(status).with("Location", format!("http://{}/elsewhere?sig=x", storage.host));
        registry.once("PUT", "/blobs/uploads/", Act::Reply(away));
        storage.once("PUT", "/elsewhere", Act::Reply(Answer::new(201)));
        // The registry does not have what went elsewhere, and says so at the manifest: it is brought again.
        to(&registry, &sized(&[(9, 5000)])).unwrap();
        let seen = storage.seen("PUT", "/elsewhere").pop().unwrap();
        assert!(!seen.headers.contains_key("authorization"));
        assert!(seen.body > 0, "the body goes there");
    }
}

#[test]
fn row_09_a_token_server_inside_the_machine_is_not_asked() {
    let registry = Faulty::start(Ways::default());
    let challenge = Answer::new(401).with("WWW-Authenticate", "Bearer realm=\"http://169.254.169.254/token\"");
    registry.rule("*", "/v2/", 0, 99, Act::Reply(challenge));
    let error = as_user(&registry, user(), &small()).unwrap_err();
    assert!(text(&error).contains("169.254.169.254"), "{}", text(&error));
}
