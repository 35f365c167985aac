//! What comes from outside cannot write to the terminal: escapes, forged lines and controls of direction are fed into every
//! field of every form that a verb reads, and none of them comes out.

use std::io::{Read, Write};
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::crafted::{Crafted, Entry, Parts, tar_of};
use crate::support::{Place, Ran};

/// Colours, a title, a clipboard, C1's CSI, an override of direction, separators of lines, and a line of its own.
const EVIL: &str =
    "x\u{1b}[31m\u{1b}]0;t\u{7}\u{1b}]52;c;aGk=\u{7}\u{9b}2J\u{202e}\u{2066}\u{2028}\u{feff}\u{7f}\r\nFORGED 1";

/// The same for a name in a tar, where bytes that are no UTF-8 may stand too.
const EVIL_NAME: &[u8] = b"n\x1b[2J\x1b]0;t\x07\xc2\x9b\xe2\x80\xae\xff\r\nFORGED 2";

fn is_harmful(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\t'))
        || matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Asserts that nothing of it came out, on either stream.
#[track_caller]
fn assert_clean(what: &str, ran: &Ran) {
    assert_harmless(what, ran);
    for text in [&ran.stdout, &ran.stderr] {
        let forged = text.lines().find(|line| line.trim_start().starts_with("FORGED"));
        assert_eq!(forged, None, "{what}: {text}");
    }
}

/// The same where lines of a log are shown, below the message that they belong to.
#[track_caller]
fn assert_harmless(what: &str, ran: &Ran) {
    for (stream, text) in [("standard output", &ran.stdout), ("standard error", &ran.stderr)] {
        let harmful = text.chars().find(|c| is_harmful(*c));
        assert_eq!(harmful, None, "{what}, {stream}: {text:?}");
        let forged = text.lines().find(|line| line.starts_with("FORGED"));
        assert_eq!(forged, None, "{what}, {stream}: {text}");
        assert!(!text.contains("panic"), "{what}: {text}");
    }
    assert!((0..=2).contains(&ran.status), "{what}: {}", ran.status);
}

/// A document that others read is data: it has the escapes that JSON must have, and on a terminal all of them.
#[track_caller]
fn assert_json(what: &str, ran: &Ran) {
    let c0 = ran.stdout.chars().find(|&c| c < ' ' && c != '\n');
    assert_eq!(c0, None, "{what}: {:?}", ran.stdout);
    assert_clean(
        what,
        &Ran {
            stdout: String::new(),
            stderr: ran.stderr.clone(),
            status: ran.status,
        },
    );
}

/// Every verb that reads an image, `@` for it; `+` for a sound one.
const VERBS: &[&[&str]] = &[
    &["inspect", "@"],
    &["inspect", "--layers", "@"],
    &["inspect", "--json", "@"],
    &["verify", "@"],
    &[
        "verify",
        "--profile",
        "strict",
        "--profile",
        "lambda",
        "--profile",
        "docker-20",
        "@",
    ],
    &["verify", "--json", "@"],
    &["diff", "@", "+"],
    &["diff", "+", "@"],
    &["diff", "--indexes", "@", "+"],
    &["diff", "--json", "@", "+"],
    &["diff", "@", "+", "--html", "-"],
    &["explain", "@", "/etc/conf"],
    &["explain", "@", "/link"],
    &["explain", "--json", "@", "/etc/conf"],
    &["copy", "@", "docker-archive:copied.tar"],
    &["copy", "@", "oci:copied:v1"],
    &["copy", "--all", "@", "oci-archive:copied.tar"],
    &["index", "create", "oci:index:v1", "@"],
    &["sign", "@", "--key", "own.key"],
    &["verify-signature", "@", "--key", "own.pub"],
    &["verify-signature", "@", "--key", "own.pub", "--json"],
    &["attach", "@", "conf", "--type", "text/plain"],
    &["rebuild", "@"],
    &["inspect", "--platform", "linux/none", "@"],
];

fn with_sound() -> Place {
    let place = Place::new();
    place
        .write("conf", "conf\n")
        .write("layerize.toml", "[image.app]\nfiles = { \"/etc/conf\" = \"conf\" }\n");
    place.run(&["key", "generate", "own"]).success();
    Parts::of(vec![tar_of(&[Entry::file(b"etc/conf", b"one\ntwo\n")])])
        .write(&Crafted::at(&place.project.join("sound")));
    place
}

fn all_verbs(place: &Place, what: &str, image: &str) {
    for verb in VERBS {
        let args: Vec<&str> = verb
            .iter()
            .map(|arg| match *arg {
                "@" => image,
                "+" => "oci:sound:v1",
                arg => arg,
            })
            .collect();
        assert_clean(&format!("{what}: {args:?}"), &place.run(&args));
    }
    for format in ["spdx", "cyclonedx"] {
        let args = ["sbom", image, "--format", format];
        assert_json(&format!("{what}: {args:?}"), &place.run(&args));
    }
}

/// A document with one of its fields made hostile, by JSON pointer; the last part is a new key where it is missing.
fn set(document: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = document.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}"));
    match parent {
        Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
        parent => parent[key.replace("~1", "/")] = value,
    }
}

#[test]
fn every_field_of_a_config() {
    let evil = || json!(EVIL);
    let place = with_sound();
    let layout = Crafted::at(&place.project.join("evil"));
    for (pointer, value) in [
        ("/os", evil()),
        ("/architecture", evil()),
        ("/variant", evil()),
        ("/os.version", evil()),
        ("/created", evil()),
        ("/author", evil()),
        ("/config/Entrypoint", json!([EVIL])),
        ("/config/Cmd", json!([EVIL, 7])),
        ("/config/Env", json!([format!("{EVIL}={EVIL}"), EVIL])),
        ("/config/User", evil()),
        ("/config/WorkingDir", evil()),
        ("/config/Labels", json!({ EVIL: EVIL })),
        ("/config/Volumes", json!({ EVIL: {} })),
        ("/config/ExposedPorts", json!({ EVIL: {} })),
        ("/config/StopSignal", evil()),
        ("/config/Shell", json!([EVIL])),
        ("/config/Healthcheck", json!({ "Test": [EVIL] })),
        ("/config", json!({ EVIL: EVIL })),
        (
            "/history",
            json!([{ "comment": EVIL, "created_by": EVIL, "created": EVIL, "author": EVIL }]),
        ),
        ("/history", json!([{ "created_by": EVIL }])),
        ("/evil", json!({ EVIL: [EVIL] })),
    ] {
        let mut parts = Parts::of(vec![tar_of(&[Entry::file(b"etc/conf", b"one\nthree\n")])]);
        set(&mut parts.config, pointer, value);
        parts.write(&layout);
        all_verbs(&place, pointer, "oci:evil:v1");
    }
}

#[test]
fn every_field_of_a_manifest_and_of_an_index() {
    let place = with_sound();
    let layout = Crafted::at(&place.project.join("evil"));
    for (document, pointer, value) in [
        ("manifest", "/mediaType", json!(EVIL)),
        ("manifest", "/artifactType", json!(EVIL)),
        (
            "manifest",
            "/annotations",
            json!({ EVIL: EVIL, "dev.layerize.format": EVIL, "org.opencontainers.image.created": EVIL }),
        ),
        ("manifest", "/config/mediaType", json!(EVIL)),
        ("manifest", "/config/digest", json!(EVIL)),
        ("manifest", "/config/annotations", json!({ EVIL: EVIL })),
        ("manifest", "/layers/0/mediaType", json!(EVIL)),
        ("manifest", "/layers/0/digest", json!(EVIL)),
        ("manifest", "/layers/0/size", json!(EVIL)),
        ("manifest", "/layers/0/urls", json!([EVIL])),
        (
            "manifest",
            "/layers/0/annotations",
            json!({ EVIL: EVIL, "dev.layerize.store-paths": EVIL, "dev.layerize.packages": EVIL }),
        ),
        ("manifest", "/evil", json!({ EVIL: EVIL })),
        ("index", "/mediaType", json!(EVIL)),
        ("index", "/artifactType", json!(EVIL)),
        ("index", "/digest", json!(EVIL)),
        (
            "index",
            "/platform",
            json!({ "os": EVIL, "architecture": EVIL, "variant": EVIL, "os.version": EVIL }),
        ),
        (
            "index",
            "/annotations",
            json!({ "org.opencontainers.image.ref.name": EVIL }),
        ),
        (
            "index",
            "/annotations",
            json!({ "io.containerd.image.name": EVIL, EVIL: EVIL }),
        ),
        ("index", "/evil", json!({ EVIL: EVIL })),
    ] {
        let mut parts = Parts::of(vec![tar_of(&[Entry::file(b"etc/conf", b"one\nthree\n")])]);
        let change = move |document: &mut Value| set(document, pointer, value.clone());
        match document {
            "manifest" => parts.manifest = Box::new(change),
            _ => parts.entry = Box::new(change),
        }
        parts.write(&layout);
        for image in ["oci:evil:v1", "oci:evil"] {
            all_verbs(&place, &format!("{document} {pointer}"), image);
        }
    }
    let documents = [
        ("index.json", "{"),
        ("index.json", "[]"),
        ("oci-layout", "{\"imageLayoutVersion\":\"@\"}"),
    ];
    for (file, text) in documents {
        place.write(&format!("evil/{file}"), &text.replace('@', "x\\u001b[2J\\nFORGED"));
        all_verbs(&place, file, "oci:evil");
    }
}

#[test]
fn every_field_of_a_layers_tar() {
    let place = with_sound();
    let layout = Crafted::at(&place.project.join("evil"));
    let pax = |key: &[u8]| Entry::file(b"etc/conf", b"one\nthree\n").pax(key, EVIL_NAME);
    let mut owned = Entry::file(b"etc/conf", b"x");
    owned.owner = EVIL_NAME[..20].to_vec();
    let text = [b"one\n", EVIL_NAME, b"\n", EVIL.as_bytes()].concat();
    let utf8 = ["one\n", EVIL, "\n"].concat();
    for (what, entry) in [
        ("a path", Entry::file(EVIL_NAME, b"x")),
        (
            "a path of a directory",
            Entry::of(&[EVIL_NAME, b"/"].concat(), b'5', b""),
        ),
        ("a link", Entry::of(b"link", b'2', EVIL_NAME)),
        ("a hard link", Entry::of(b"link", b'1', EVIL_NAME)),
        ("a whiteout", Entry::file(&[b".wh.", EVIL_NAME].concat(), b"")),
        ("a fifo", Entry::of(EVIL_NAME, b'6', b"")),
        ("a type", Entry::of(b"etc/conf", 0x1b, EVIL_NAME)),
        ("an owner", owned),
        ("a path in pax", pax(b"path")),
        (
            "a link in pax",
            Entry::of(b"link", b'2', b"").pax(b"linkpath", EVIL_NAME),
        ),
        ("an owner in pax", pax(b"uname")),
        ("a time", pax(b"mtime")),
        ("a size", pax(b"size")),
        ("an attribute", pax(b"SCHILY.xattr.user.x")),
        (
            "an attribute's name",
            pax(&[b"SCHILY.xattr.", &EVIL_NAME[..8]].concat()),
        ),
        ("a comment", pax(b"comment")),
        ("a pax key", pax(&EVIL_NAME[..8])),
        ("a text", Entry::file(b"etc/conf", utf8.as_bytes())),
        ("a content", Entry::file(b"etc/conf", &text)),
        (
            "a content that is an archive",
            Entry::file(b"etc/conf", &tar_of(&[Entry::file(EVIL_NAME, EVIL.as_bytes())])),
        ),
    ] {
        Parts::of(vec![tar_of(&[entry])]).write(&layout);
        all_verbs(&place, what, "oci:evil:v1");
    }
    // Archives in files of both sides are compared by their members.
    let inner =
        |name: &[u8], text: &str| tar_of(&[Entry::file(b"etc/conf", &tar_of(&[Entry::file(name, text.as_bytes())]))]);
    Parts::of(vec![inner(EVIL_NAME, "1")]).write(&layout);
    Parts::of(vec![inner(b"m", EVIL)]).write(&Crafted::at(&place.project.join("sound")));
    all_verbs(&place, "members", "oci:evil:v1");
}

#[test]
fn every_name_in_an_archive_of_an_image() {
    let place = with_sound();
    let config =
        json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [] } }).to_string();
    let list = |item: Value| json!([item]).to_string();
    let item = |key: &str, value: Value| {
        let mut item = json!({ "Config": "c.json", "RepoTags": ["a:1"], "Layers": [] });
        item[key] = value;
        list(item)
    };
    let sound = item("Layers", json!([]));
    for (what, list, more) in [
        ("a tag", item("RepoTags", json!([EVIL])), None),
        (
            "two tags",
            json!([{ "Config": "c.json", "RepoTags": [EVIL] }, { "Config": "c.json", "RepoTags": [EVIL] }]).to_string(),
            None,
        ),
        ("a config", item("Config", json!(EVIL)), None),
        ("a layer", item("Layers", json!([EVIL])), None),
        ("no JSON", EVIL.to_owned(), None),
        (
            "a name",
            sound.clone(),
            Some(vec![Entry::file(EVIL_NAME, b""), Entry::file(EVIL_NAME, b"")]),
        ),
        (
            "a name that leads out",
            sound.clone(),
            Some(vec![Entry::file(&[b"../", EVIL_NAME].concat(), b"")]),
        ),
        (
            "a link that leads out",
            item("Config", json!("l")),
            Some(vec![Entry::of(b"l", b'2', &[b"/", EVIL_NAME].concat())]),
        ),
    ] {
        let entries = [
            Entry::file(b"manifest.json", list.as_bytes()),
            Entry::file(b"c.json", config.as_bytes()),
        ];
        let entries: Vec<Entry> = entries.into_iter().chain(more.unwrap_or_default()).collect();
        std::fs::write(place.project.join("evil.tar"), tar_of(&entries)).unwrap();
        for image in ["evil.tar", "docker-archive:evil.tar", "docker-archive:evil.tar:b:1"] {
            all_verbs(&place, what, image);
        }
    }
    std::fs::write(place.project.join("evil.tar"), EVIL).unwrap();
    all_verbs(&place, "no tar", "evil.tar");
}

#[test]
fn every_field_of_a_bundle() {
    let place = with_sound();
    Parts::of(vec![tar_of(&[Entry::file(b"x", b"")])]).write(&Crafted::at(&place.project.join("evil")));
    place
        .run(&["sign", "oci:evil:v1", "--key", "own.key", "-o", "own.json"])
        .success();
    let own: Value = serde_json::from_slice(&std::fs::read(place.project.join("own.json")).unwrap()).unwrap();
    for pointer in [
        "/mediaType",
        "/verificationMaterial/publicKey/hint",
        "/verificationMaterial",
        "/dsseEnvelope/payloadType",
        "/dsseEnvelope/payload",
        "/dsseEnvelope/signatures/0/sig",
        "/dsseEnvelope",
    ] {
        let mut bundle = own.clone();
        *bundle.pointer_mut(pointer).unwrap() = json!(EVIL);
        place.write("evil.json", &bundle.to_string());
        for args in [
            &[
                "verify-signature",
                "oci:evil:v1",
                "--key",
                "own.pub",
                "--bundle",
                "evil.json",
            ][..],
            &["sign", "oci:evil:v1", "--key", "own.key", "--predicate", "evil.json"],
            &["attach", "oci:evil:v1", "evil.json"],
        ] {
            assert_clean(&format!("{pointer}: {args:?}"), &place.run(args));
        }
    }
    // What the right key signed is shown where it is refused, too.
    let statement = |predicate: &str| {
        let image = place.inspect("oci:evil:v1")["digest"].as_str().unwrap()[7..].to_owned();
        json!({ "_type": "https://in-toto.io/Statement/v1", "subject": [{ "digest": { "sha256": image } }],
                "predicateType": predicate, "predicate": { "policy": { "uri": EVIL }, "verificationResult": EVIL } })
    };
    for predicate in [EVIL, "https://slsa.dev/verification_summary/v1"] {
        place.write("statement.json", &statement(predicate).to_string());
        let sign = [
            "sign",
            "oci:evil:v1",
            "--key",
            "own.key",
            "--predicate",
            "statement.json",
            "-o",
            "evil.json",
        ];
        place.run(&sign).success();
        for kind in ["signature", "vsa", EVIL] {
            let args = [
                "verify-signature",
                "oci:evil:v1",
                "--key",
                "own.pub",
                "--bundle",
                "evil.json",
                "--type",
                kind,
            ];
            assert_clean(&format!("{predicate:?} as {kind:?}"), &place.run(&args));
        }
    }
}

/// A server that gives the same answer to every request.
fn serve(answer: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    host
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn every_answer_of_a_registry() {
    let place = with_sound();
    // A header holds no newline and no NUL; all else may stand in it.
    let header = EVIL.replace(['\r', '\n'], "");
    let body = json!({ "errors": [{ "code": EVIL, "message": EVIL, "detail": { "x": EVIL } }] }).to_string();
    let answer = |status: &str, headers: &str, body: &str| {
        format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}",
            body.len()
        )
    };
    let json_type = "Content-Type: application/json\r\n";
    for (what, answer) in [
        ("an error", answer("404 Not Found", json_type, &body)),
        ("a refusal", answer("403 Forbidden", json_type, &body)),
        ("a failure", answer("400 Bad", json_type, &body)),
        ("a reason", answer(&format!("400 {header}"), "", EVIL)),
        (
            "a challenge",
            answer(
                "401 X",
                &format!("WWW-Authenticate: Bearer realm=\"{header}\",service=\"{header}\"\r\n"),
                &body,
            ),
        ),
        (
            "a realm",
            answer("401 X", "WWW-Authenticate: Basic realm=\"x\"\r\n", &body),
        ),
        ("a redirect", answer("307 X", &format!("Location: /{header}\r\n"), "")),
        (
            "a host",
            answer("307 X", &format!("Location: http://{header}/\r\n"), ""),
        ),
        (
            "a media type",
            answer("200 OK", &format!("Content-Type: {header}\r\n"), "{}"),
        ),
        (
            "a digest",
            answer(
                "200 OK",
                &format!("Docker-Content-Digest: {header}\r\n{json_type}"),
                "{}",
            ),
        ),
        (
            "a warning",
            answer("200 OK", &format!("Warning: 299 - \"{header}\"\r\n{json_type}"), "{}"),
        ),
        (
            "a document",
            answer(
                "200 OK",
                "Content-Type: application/vnd.oci.image.manifest.v1+json\r\n",
                &json!({ EVIL: EVIL }).to_string(),
            ),
        ),
        ("a text", answer("200 OK", "Content-Type: text/plain\r\n", EVIL)),
        (
            "a page",
            answer("400 X", "Content-Type: text/html\r\n", &format!("<h1>{EVIL}")),
        ),
    ] {
        let host = serve(answer);
        let name = format!("docker://{host}/app:1");
        for args in [
            &["inspect", &name][..],
            &["verify", &name],
            &["verify-signature", &name, "--key", "own.pub"],
            &["copy", "oci:sound:v1", &name],
            &["copy", "--json", "oci:sound:v1", &name],
        ] {
            assert_clean(&format!("{what}: {args:?}"), &place.run(args));
        }
    }
}

/// Specs of others, and what builds write.
#[test]
fn every_name_in_a_spec_and_every_line_of_a_build() {
    let place = Place::new();
    let quoted = serde_json::to_string(EVIL).unwrap();
    for text in [
        format!("[package.{quoted}]\nscript = \"\"\n"),
        format!("[package.a]\n{quoted} = 1\n"),
        format!("[package.a]\nsource = {quoted}\n"),
        format!("[package.a]\nscript = \"\"\ntools = [{quoted}]\n"),
        format!("[image.a]\ncontents = [{quoted}]\n"),
        format!("[image.a]\nfiles = {{ {quoted} = {quoted} }}\n"),
        format!("[image.a]\nbase = {quoted}\n"),
        format!("imports = {{ x = {quoted} }}\n"),
        format!("[image.a]\n# {}\nentrypoint = 7\n", EVIL.replace(['\r', '\n'], "")),
        EVIL.to_owned(),
    ] {
        place.write("layerize.toml", &text);
        for args in [
            &["build"][..],
            &["lock"],
            &["lock", "--check"],
            &["plan"],
            &["closure"],
            &["build", "--json"],
        ] {
            assert_clean(&format!("{text:?}: {args:?}"), &place.run(args));
        }
    }
    place.write("layerize.toml", "").write("layerize.lock", EVIL);
    assert_clean("a lock", &place.run(&["build"]));
}

#[test]
fn every_line_and_file_of_a_build() {
    let escape = r"\033[31m\033]0;t\007\302\2332J\342\200\256\r";
    for script in [
        format!("printf '{escape}\\nFORGED 1\\n'; exit 3"),
        format!(
            "mkdir $out; printf '{escape}\\n'; touch \"$out/$(printf 'n{escape}\\nFORGED')\"; mkfifo \"$out/$(printf 'f{escape}\\nFORGED')\""
        ),
        format!("mkdir $out; touch \"$(dirname $out)/$(printf 'n{escape}\\nFORGED')\""),
        format!("mkdir $out; printf '{escape}\\n' > $out/f; ln -s \"$(printf '{escape}\\nFORGED')\" $out/l"),
    ] {
        let place = Place::with_script(&script);
        for args in [
            &["build", "--locked"][..],
            &["build", "--locked", "--verbose"],
            &["build", "--json", "--locked"],
        ] {
            assert_harmless(&format!("{script}: {args:?}"), &place.run(args));
        }
        assert_harmless(&script, &place.run(&["check", "--locked"]));
    }
}

/// On a terminal a document is escaped as JSON has it, and stays the same document.
#[test]
fn a_document_on_a_terminal_is_escaped() {
    if !crate::support::have("script", &["--version"]) {
        return;
    }
    let place = with_sound();
    let mut parts = Parts::of(vec![tar_of(&[Entry::file(b"x", b"")])]);
    parts.manifest = Box::new(|manifest| {
        set(
            manifest,
            "/layers/0/annotations",
            json!({ "dev.layerize.packages": "a\u{9b}\u{202e}=1" }),
        );
    });
    parts.write(&Crafted::at(&place.project.join("evil")));
    let plain = place.run(&["sbom", "oci:evil:v1", "-q"]).success();
    let line = format!("{} sbom oci:evil:v1 -q", crate::support::LAYERIZE);
    let mut script = std::process::Command::new("script");
    place.prepare(script.args(["-qec", &line, "/dev/null"]));
    let typed = Ran::of(script.output().unwrap()).success();
    let typed = typed.stdout.replace("\r\n", "\n");
    assert_eq!(typed.chars().find(|c| is_harmful(*c)), None);
    let parsed = |text: &str| serde_json::from_str::<Value>(text.trim()).unwrap();
    assert_eq!(parsed(&typed), parsed(&plain.stdout));
    assert!(plain.stdout.contains('\u{202e}'), "the document itself keeps its bytes");
}
