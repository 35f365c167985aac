//! Properties: secrets are in no message, and no file makes the lookup panic.

use base64::Engine as _;
use proptest::prelude::*;
use serde_json::json;

use super::super::Login;
use super::Home;
use crate::http::ProxyVariable;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn secrets_are_in_no_message(
        secret in "[A-Z0-9]{24}",
        noise in "[a-z:/@ ]{0,12}",
        shape in 0..12_usize,
    ) {
        let password = format!("{noise}{secret}{noise}");
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("me:{password}"));
        let bare = base64::engine::general_purpose::STANDARD.encode(&secret);
        let entry = match shape {
            0 => json!({ "auth": encoded }),
            1 => json!({ "username": "me", "password": password }),
            2 => json!({ "identitytoken": password }),
            3 => json!({ "registrytoken": password }),
            4 => json!({ "auth": format!("!{secret}") }),
            5 => json!({ "auth": bare }),
            6 => json!([secret]),
            7 => json!({ "auth": { "x": secret } }),
            8 => json!(secret),
            _ => json!({ "auth": encoded, "identitytoken": [password] }),
        };
        let home = Home::new();
        let key = if shape == 9 { format!("https://me:{secret}@r.example") } else { "r.example".to_owned() };
        let mut text = json!({ "auths": { key: entry } }).to_string();
        if shape == 10 {
            text.truncate(text.len() - 2);
        }
        home.write("run/auth.json", text);
        let mut config = home.config();
        let value = if shape == 11 { format!("ftp://me:{secret}@p.example") } else { format!("http://me:{secret}@p.example:3128/") };
        config.http.proxies.https = Some(ProxyVariable { name: "HTTPS_PROXY", value });
        let mut shown = format!("{config:?}");
        match config.login("r.example", "a") {
            Ok(login) => shown += &format!("{login:?}"),
            Err(error) => shown += &format!("{error} {error:?} {:?}", error.help()),
        }
        match config.explain(&"r.example/a".parse().unwrap()) {
            Ok(explanation) => {
                shown += &explanation.to_string();
                shown += &serde_json::to_string(&explanation).unwrap();
                shown += &format!("{explanation:?}");
            }
            Err(error) => shown += &format!("{error} {error:?} {:?}", error.help()),
        }
        prop_assert!(!shown.contains(&secret), "{}", shown);
        prop_assert!(!shown.contains(encoded.trim_end_matches('=')), "{}", shown);
        prop_assert!(!shown.contains(bare.trim_end_matches('=')), "{}", shown);
    }

    #[test]
    fn what_is_written_is_found(username in "[^:\0]{1,20}", password in "[^\0]{1,40}") {
        let home = Home::new();
        let auth = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
        home.write("run/auth.json", json!({ "auths": { "r.example": { "auth": auth } } }).to_string());
        let login = home.config().login("r.example", "a").unwrap();
        let expected = Login::Basic { username, password };
        prop_assert!(login == expected);
    }

    #[test]
    fn no_file_makes_the_lookup_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let home = Home::new();
        home.write("run/auth.json", bytes);
        let _ = home.config().login("r.example", "a");
    }
}
