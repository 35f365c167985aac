//! What each check accepts and refuses.

use super::*;
use crate::oci::LayerStrategy;

/// The texts that `check` accepts.
fn accepted<'a, T>(check: impl Fn(&str) -> Check<T>, texts: &[&'a str]) -> Vec<&'a str> {
    texts.iter().copied().filter(|text| check(text).is_ok()).collect()
}

#[test]
fn package_names() {
    let texts = [
        "a", "A9", "gcc-12", "a+b.c_d", "9p", "", "-a", ".a", "a b", "a:b", "a/b", "ä", "a=b", "a?",
    ];
    assert_eq!(accepted(package_name, &texts), ["a", "A9", "gcc-12", "a+b.c_d", "9p"]);
    assert!(package_name(&"x".repeat(NAME_MAX)).is_ok());
    assert!(package_name(&"x".repeat(NAME_MAX + 1)).is_err());
    assert_eq!(accepted(alias, &["deb", "debian", "base"]), ["debian", "base"]);
    assert_eq!(package_name("a b/c").unwrap_err().help.unwrap(), "write `a-b-c`");
    assert_eq!(package_name("::").unwrap_err().help, None);
}

#[test]
fn versions() {
    let texts = ["1", "1.0-rc.1+x", "v2_0", "", "1:2", "1~2", "1 2", "1/2"];
    assert_eq!(accepted(version, &texts), ["1", "1.0-rc.1+x", "v2_0"]);
}

#[test]
fn debian_names() {
    let texts = [
        "g++", "libc6", "0ad", "a.b-c", "g", "G++", "-a", "+a", "a_b", "a:amd64", "a=1", "", "ä",
    ];
    assert_eq!(accepted(debian_name, &texts), ["g++", "libc6", "0ad", "a.b-c"]);
}

#[test]
fn architectures_and_platforms_go_together() {
    for debian in Platform::DEBIAN_ARCHITECTURES {
        assert!(architecture(debian).is_ok());
    }
    for (text, normal, debian) in [
        ("linux/amd64", "linux/amd64", "amd64"),
        ("linux/x86_64", "linux/amd64", "amd64"),
        ("linux/arm64", "linux/arm64", "arm64"),
        ("linux/arm64/v8", "linux/arm64", "arm64"),
        ("linux/aarch64", "linux/arm64", "arm64"),
        ("linux/arm/v7", "linux/arm/v7", "armhf"),
        ("linux/arm/v5", "linux/arm/v5", "armel"),
        ("linux/386", "linux/386", "i386"),
        ("linux/loong64", "linux/loong64", "loong64"),
    ] {
        let platform = platform(text).unwrap();
        assert_eq!(platform.to_string(), normal, "spellings of one platform are one value");
        assert_eq!(platform.debian_architecture(), Some(debian), "{text}");
    }
    for (text, help) in [
        ("amd64", "write `linux/amd64`"),
        ("aarch64", "write `linux/arm64`"),
        ("i686", "write `linux/386`"),
        ("armel", "write `linux/arm/v5`"),
        ("linux/armel", "write `linux/arm/v5`"),
        ("linux/amd46", "write `linux/amd64`"),
        ("linux/amd64/v3", "write `linux/amd64`"),
        ("darwin/arm64", "write `linux/amd64`"),
    ] {
        assert_eq!(platform(text).unwrap_err().help.unwrap(), help, "{text}");
    }
    for text in ["linux/wasm", "vax"] {
        let help = platform(text).unwrap_err().help.unwrap();
        assert!(help.starts_with("write one of `linux/amd64`, `linux/arm64`"), "{help}");
    }
}

#[test]
fn image_names_and_tags() {
    let texts = [
        "a", "a/b", "a.b", "a_b", "a__b", "a---b", "9/8/7", "", "A", "a_", "_a", "a___b", "a..b", "a._b", "a//b", "/a",
        "a:1", "a b", "ä",
    ];
    assert_eq!(accepted(image_name, &texts), texts[..7]);
    let texts = ["latest", "v1.0", "_x", "A-b", "", ".x", "-x", "a/b", "a:b", "ä"];
    assert_eq!(accepted(tag, &texts), texts[..4]);
    assert!(tag(&"x".repeat(128)).is_ok() && tag(&"x".repeat(129)).is_err());
}

#[test]
fn variables() {
    assert_eq!(
        accepted(env_name, &["A", "a.b", "ä ö", "", "A=B", "A\0"]),
        ["A", "a.b", "ä ö"]
    );
    assert_eq!(
        accepted(
            build_env_name,
            &[
                "A",
                "_1",
                "out",
                "LAYERIZE_X",
                "output",
                "1A",
                "A-B",
                "A B",
                "A;x",
                "ä",
                ""
            ]
        ),
        ["A", "_1", "output"]
    );
}

#[test]
fn paths() {
    let texts = [
        "/", "/a", "/a/b.c", "/ä", "", "a", "./a", "/a/", "//a", "/a/./b", "/a/../b", "/..", "/a\0",
    ];
    assert_eq!(accepted(absolute_path, &texts), texts[..4]);
    assert_eq!(absolute_path("//a/./b/").unwrap_err().help.unwrap(), "write `/a/b`");
    let texts = [
        "/",
        "/etc/x",
        "/layerizer",
        "/layerize",
        "/layerize/store",
        "/layerize/store/x",
        "/a/.wh.b",
        "/.wh.x/a",
    ];
    assert_eq!(accepted(file_path, &texts), texts[..3]);
    assert!(file_path(&format!("/{}", "x".repeat(256))).is_err());
    assert!(file_path(&"/xx".repeat(2000)).is_err());
    let texts = ["a", "../a", "/a", "a b", "", " ", "http://a", "~/a"];
    assert_eq!(accepted(local_path, &texts), texts[..4]);
}

#[test]
fn ports() {
    for (text, expected) in [
        ("80", "80/tcp"),
        ("53/udp", "53/udp"),
        ("0080/tcp", "80/tcp"),
        ("65535", "65535/tcp"),
        ("9/sctp", "9/sctp"),
        ("80/TCP", "80/tcp"),
        ("8000-8002/udp", "8000/udp 8001/udp 8002/udp"),
    ] {
        let range = super::ports(text).unwrap();
        let range: Vec<String> = range.iter().map(ToString::to_string).collect();
        assert_eq!(range.join(" "), expected, "{text}");
    }
    let texts = [
        "", "0", "65536", "+80", "-1", "80/", "/tcp", "80:80", "http", "8 0", "9-8", "1-70000",
    ];
    for text in texts {
        assert!(super::ports(text).unwrap_err().help.is_some(), "{text}");
    }
}

#[test]
fn compressions() {
    let texts = [
        "gzip", "gzip:1", "gzip:12", "zstd", "zstd:19", "none", "gzip:0", "gzip:13", "zstd:0", "zstd:20", "none:0",
        "gzip:", "gzip:+1", "gz", "", "GZIP", "gzip:6:7",
    ];
    assert_eq!(accepted(compression, &texts), texts[..6]);
}

#[test]
fn durations() {
    for (text, seconds) in [
        ("1s", 1),
        ("90s", 90),
        ("30m", 1800),
        ("1h30m", 5400),
        ("2d1h1m1s", 176_461),
        ("365d", 31_536_000),
    ] {
        assert_eq!(duration(text).unwrap(), seconds, "{text}");
    }
    let texts = [
        "",
        "s",
        "30",
        "0s",
        "0d0s",
        "1.5h",
        "-1s",
        "1m1h",
        "1s1s",
        "366d",
        "18446744073709551615d",
        "99999999999999999999s",
        "1 h",
        "1ü",
        "1h ",
    ];
    assert_eq!(accepted(duration, &texts), [""; 0]);
}

#[test]
fn digests() {
    let hex = Digest::of(b"").hex();
    assert_eq!(sha256(&hex).unwrap(), Digest::of(b""));
    assert_eq!(sha256(&format!("sha256:{hex}")).unwrap(), Digest::of(b""));
    // `openssl dgst -sha256 -binary < /dev/null | base64`, which npm, Nix and browsers write so.
    let sri = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
    assert_eq!(sha256(sri).unwrap(), Digest::of(b""));
    let upper = hex.to_uppercase();
    let long = format!("{hex}0");
    assert_eq!(
        accepted(
            sha256,
            &[
                "",
                &upper,
                &long,
                &hex[1..],
                "sha256:",
                "sha256-x",
                "md5:x",
                &sri[7..],
                &sri[..50],
                &format!("{sri} {sri}"),
                &sri.replace("256", "512")
            ]
        ),
        [""; 0]
    );
}

#[test]
fn modes() {
    for (text, expected) in [
        ("0644", 0o644),
        ("644", 0o644),
        ("0o755", 0o755),
        ("7777", 0o7777),
        ("0", 0),
    ] {
        assert_eq!(mode(text).unwrap(), expected);
    }
    assert_eq!(
        accepted(mode, &["", "0o", "888", "+644", "10000", "rw", "0x1ff", "6 4"]),
        [""; 0]
    );
}

#[test]
fn addresses() {
    let texts = [
        "https://x.invalid/a",
        "http://x.invalid:80/a?b#c",
        "file:///a",
        "file:a/b",
        "file:/a",
        "",
        "x",
        "ftp://x/a",
        "https:///a",
        "https://",
        "https:a",
        "file:",
        "file:///",
        "https://x.invalid/a b",
        "https://x.invalid/\n",
        "ssh://x/a",
    ];
    assert_eq!(accepted(url, &texts), texts[..5]);
}

#[test]
fn users_and_signals() {
    let texts = [
        "web", "_x", "a-b", "www-data", "", "Web", "9a", "-a", "a b", "a:b", "a.b",
    ];
    assert_eq!(accepted(user_name, &texts), texts[..4]);
    let texts = [
        "SIGTERM",
        "SIGRTMIN",
        "SIGRTMIN+3",
        "SIGRTMAX-1",
        "9",
        "",
        "TERM",
        "SIG",
        "SIGX",
        "SIGRTMIN+",
        "0",
        "65",
        "sigterm",
    ];
    let signals: Vec<_> = texts.iter().filter(|text| signal(text).is_ok()).collect();
    assert_eq!(signals, texts[..5].iter().collect::<Vec<_>>());
}

#[test]
fn times_are_those_of_date() {
    // `date --utc --date=… +%s`
    let good = [
        ("1970-01-01T00:00:00Z", 0),
        ("1999-12-31T23:59:59Z", 946_684_799),
        ("2000-02-29T12:00:00Z", 951_825_600),
        ("2024-03-01T00:00:00Z", 1_709_251_200),
        ("9999-12-31T23:59:59Z", 253_402_300_799),
    ];
    for (text, seconds) in good {
        assert_eq!(image::timestamp(text).ok(), Some(seconds), "{text}");
    }
    for text in [
        "",
        "2024-03-01",
        "2023-02-29T00:00:00Z",
        "2024-00-01T00:00:00Z",
        "2024-13-01T00:00:00Z",
        "2024-01-01T24:00:00Z",
        "2024-01-01T00:00:00+0",
        "1969-12-31T23:59:59Z",
        "2024-01-0äT00:00:0Z",
    ] {
        assert!(image::timestamp(text).is_err(), "{text}");
    }
}

#[test]
fn store_paths() {
    let hash = "0mdqa9w1p6cmli6976v4wi0sw9r4p5pr";
    let good = format!("/layerize/store/{hash}-hello-2.10");
    let texts = [
        good.clone(),
        format!("/layerize/store/{hash}-"),
        format!("/layerize/store/{hash}-.x"),
        format!("/layerize/store/{hash}-x/bin"),
        format!("/layerize/store/{hash}"),
        format!("/layerize/store/{}-x", hash.replace('m', "e")),
        format!("/nix/store/{hash}-x"),
        "/layerize/store/".to_owned(),
        "/layerize/store/äääääääääääääääää-x".to_owned(),
    ];
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    assert_eq!(accepted(store_path, &texts), [good]);
}

#[test]
fn strategies() {
    assert_eq!(accepted(strategy, &LayerStrategy::NAMES), LayerStrategy::NAMES);
    assert_eq!(accepted(strategy, &["", "Churn", "churn "]), [""; 0]);
}

#[test]
fn meant_words_are_found() {
    let known = ["version", "source", "tools", "a"];
    for (word, expected) in [
        ("versoin", Some("version")),
        ("Version", Some("version")),
        ("sorce", Some("source")),
        ("tool", Some("tools")),
        ("libraries", None),
        ("b", None),
        ("", None),
        ("source", None),
    ] {
        assert_eq!(did_you_mean(word, known), expected, "{word}");
    }
}
