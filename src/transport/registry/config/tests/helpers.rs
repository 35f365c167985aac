//! The protocol of credential helpers, spoken with shell scripts.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::{ConfigError, Login, RegistryConfig};
use super::Home;
use crate::transport::TransportError;

/// A place whose docker file names the helper `h`, which is this script.
fn with_script(script: &str) -> (Home, RegistryConfig) {
    let home = Home::new();
    home.write("docker/config.json", json!({ "credsStore": "h" }).to_string());
    home.helper("h", script);
    let config = home.config();
    (home, config)
}

fn failure(config: &RegistryConfig) -> (ConfigError, String) {
    match config.login("r.example", "a").unwrap_err() {
        TransportError::Config(error) => {
            let shown = format!("{error} {error:?}");
            (error, shown)
        }
        error => panic!("{error:?}"),
    }
}

#[test]
fn answers_are_read() {
    let basic = |username: &str, password: &str| Login::Basic {
        username: username.into(),
        password: password.into(),
    };
    for (script, login) in [
        (
            r#"cat >/dev/null; echo '{"ServerURL":"x","Username":"me","Secret":"p:w"}'"#,
            basic("me", "p:w"),
        ),
        (
            r#"echo '{"Username":"<token>","Secret":"t"}'"#,
            Login::IdentityToken("t".into()),
        ),
        (r#"echo '{"Username":"","Secret":""}'"#, Login::Anonymous),
        (
            "echo credentials not found in native keychain; exit 1",
            Login::Anonymous,
        ),
        ("echo 'error: Credentials not found' >&2; exit 2", Login::Anonymous),
        (
            r#"[ "$1" = get ] && [ $# = 1 ] && printf '{"Username":"%s","Secret":"x"}' "$(cat)""#,
            basic("r.example", "x"),
        ),
    ] {
        let (_home, config) = with_script(script);
        assert_eq!(config.login("r.example", "a").unwrap(), login, "{script}");
    }
}

#[test]
fn each_server_is_asked_about_once() {
    let (home, config) =
        with_script("echo x >> \"$(dirname \"$0\")/asked\"; echo '{\"Username\":\"me\",\"Secret\":\"s\"}'");
    thread::scope(|scope| {
        for _ in 0..4 {
            let config = config.clone();
            scope.spawn(move || config.login("r.example", "a").unwrap());
        }
    });
    config.login("other.example", "a").unwrap();
    assert_eq!(fs::read_to_string(home.at("bin/asked")).unwrap(), "x\nx\n");
}

#[test]
fn a_failure_is_told_in_the_helpers_own_words_and_bounded() {
    let (_home, config) = with_script("echo 'gpg: no key'; echo 'second line' >&2; exit 3");
    let (error, shown) = failure(&config);
    assert!(matches!(error, ConfigError::HelperFailed { .. }));
    for part in [
        "docker-credential-h",
        "r.example",
        "exit status: 3",
        "gpg: no key second line",
    ] {
        assert!(shown.contains(part), "{shown}");
    }
    assert!(
        error
            .help()
            .unwrap()
            .contains("echo r.example | docker-credential-h get")
    );

    let (_home, config) = with_script("yes words | head -c 300000; exit 1");
    let (_, shown) = failure(&config);
    assert!(shown.len() < 2000 && shown.contains('…'), "{}", shown.len());

    let (_home, config) = with_script("kill -9 $$");
    assert!(failure(&config).1.contains("signal: 9"), "{}", failure(&config).1);
}

#[test]
fn what_could_be_a_secret_is_not_repeated() {
    for (script, expected) in [
        (
            r#"echo '{"Username":"me","Secret":"SECRET"}'; exit 1"#,
            "it said nothing",
        ),
        (r#"echo '{"Username":"me","Secret":"SECRET"'"#, "it is not JSON"),
        (
            r#"echo '{"Username":"me","Secret":["SECRET"]}'"#,
            "`Secret` is not text",
        ),
        (r#"echo '{"Secret":"SECRET"}'"#, "`Username` is empty"),
        (r#"echo '"SECRET"'"#, "it is not a JSON object"),
        ("echo SECRET", "it is not JSON"),
        ("true", "it is not JSON"),
        ("head -c 3000000 /dev/zero", "larger than a megabyte"),
    ] {
        let (_home, config) = with_script(script);
        let (_, shown) = failure(&config);
        assert!(
            shown.contains(expected) && !shown.contains("SECRET"),
            "{script}: {shown}"
        );
    }
}

#[test]
fn a_helper_that_hangs_is_given_up() {
    for script in [
        "exec sleep 60",
        "sleep 3 & echo '{\"Username\":\"me\",\"Secret\":\"s\"}'",
    ] {
        let (_home, mut config) = with_script(script);
        config.helpers.timeout = Some(Duration::from_millis(300));
        let started = Instant::now();
        let (error, _) = failure(&config);
        assert!(
            matches!(error, ConfigError::HelperTimeout { .. }),
            "{script}: {error:?}"
        );
        assert!(started.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn helpers_are_found_on_the_search_path_and_nowhere_else() {
    let home = Home::new();
    home.write("docker/config.json", json!({ "credsStore": "absent" }).to_string());
    let (error, shown) = failure(&home.config());
    assert!(matches!(error, ConfigError::HelperMissing { .. }));
    assert!(
        shown.contains("docker-credential-absent") && shown.contains("docker/config.json"),
        "{shown}"
    );
    // A file that may not be executed is no program.
    home.write("bin/docker-credential-absent", "");
    assert!(matches!(failure(&home.config()).0, ConfigError::HelperMissing { .. }));
    home.helper("absent", "echo '{\"Username\":\"me\",\"Secret\":\"s\"}'");
    let mut config = home.config();
    config.helpers.search_path.insert(0, "relative".into());
    assert!(config.login("r.example", "a").is_ok());

    for name in ["../evil", "/bin/sh", "a/b", "a b", "a\nb", "ü", &"x".repeat(65)] {
        home.write("docker/config.json", json!({ "credsStore": name }).to_string());
        let (error, shown) = failure(&home.config());
        assert!(matches!(error, ConfigError::HelperName { .. }), "{name}: {shown}");
        assert!(!shown.contains('\n') && error.help().is_some());
    }
}
