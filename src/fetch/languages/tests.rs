//! Tests of languages' files against servers on loopback: where they are looked for, and who is told what.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;

use super::*;
use crate::digest::{ContentDigest, Digest, FileHash, GoHash};
use crate::event::{Event, Reporter};
use crate::fetch::unpack::tests::zips::zipped;
use crate::fetch::{FetchConfig, fetch, survey};

/// A web server that notes path and `Authorization` of each request; `answer` gives the status, what is to be added to the
/// head, and the body.
struct Noting {
    port: u16,
    seen: Arc<Mutex<Vec<String>>>,
}

type Said = (u16, String, Vec<u8>);

impl Noting {
    fn start(answer: impl Fn(&str) -> Said + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&seen);
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap_or(0) > 0 {}
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                let login = head.lines().find_map(|line| {
                    let (name, value) = line.split_once(": ")?;
                    name.eq_ignore_ascii_case("authorization").then(|| value.to_owned())
                });
                let note = format!("{path} {}", login.unwrap_or_default());
                notes.lock().unwrap().push(note.trim_end().to_owned());
                let (status, more, body) = answer(&path);
                let head = format!(
                    "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n{more}Connection: close\r\n\r\n",
                    body.len()
                );
                // A client that went away is no failure of the test.
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
            }
        });
        Self { port, seen }
    }

    /// A server that has these files and nothing else.
    fn with(files: &[(&str, &[u8])]) -> Self {
        let files: Vec<(String, Vec<u8>)> = (files.iter())
            .map(|(path, body)| ((*path).to_owned(), body.to_vec()))
            .collect();
        Self::start(move |path| {
            let found = files.iter().find(|(known, _)| known == path);
            found.map_or_else(missing, |(_, body)| ok(body))
        })
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

fn ok(body: impl AsRef<[u8]>) -> Said {
    (200, String::new(), body.as_ref().to_vec())
}

fn missing() -> Said {
    (404, String::new(), Vec::new())
}

/// A machine with a home, a project and these variables.
struct Machine {
    dir: tempfile::TempDir,
    variables: BTreeMap<String, String>,
    offline: bool,
    told: Told,
}

/// What places said.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Reporter for Told {
    fn report(&self, event: Event) {
        if let Event::FetchAsked { place, answer, .. } = event {
            self.0.lock().unwrap().push(format!("{place}: {answer}"));
        }
    }
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("home")).unwrap();
        fs::create_dir_all(dir.path().join("work/project")).unwrap();
        Self {
            dir,
            variables: BTreeMap::new(),
            offline: false,
            told: Told::default(),
        }
    }

    fn set(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    fn config(&self) -> FetchConfig {
        FetchConfig {
            cache: self.path("cache"),
            languages: LanguageTools {
                home: Some(self.path("home")),
                project: Some(self.path("work/project")),
                variables: self.variables.clone(),
                ask_programs: false,
            },
            offline: self.offline,
            ..FetchConfig::default()
        }
    }

    /// The bytes of a download, or the error's text.
    fn fetch(&self, download: &Download) -> Result<Vec<u8>, String> {
        let files = fetch(&[download], &self.config(), &self.told);
        let files = files.map_err(|error| format!("{error} [{}]", error.help().unwrap_or_default()))?;
        let bytes = fs::read(&files[0]).unwrap();
        fs::remove_dir_all(self.path("cache")).unwrap();
        Ok(bytes)
    }

    fn told(&self) -> Vec<String> {
        let root = self.dir.path().display().to_string();
        let told = std::mem::take(&mut *self.told.0.lock().unwrap());
        told.into_iter().map(|line| line.replace(&root, "")).collect()
    }

    /// How many places a survey finds.
    fn copies(&self, download: &Download) -> usize {
        let survey = survey(&[download], &self.config(), &self.told).unwrap();
        survey.copies(0)
    }
}

const REGISTRY: &str = "registry+https://git.invalid/rust/x.invalid-index";

fn of_crate(registry: &str, content: &[u8]) -> Download {
    Download {
        name: "Some_crate-1.0.0.crate".to_owned(),
        hash: Digest::of(content).into(),
        size: None,
        origin: Origin::Crate {
            name: "Some_crate".to_owned(),
            version: "1.0.0".to_owned(),
            registry: registry.to_owned(),
        },
    }
}

#[test]
fn crates_come_from_cargo_s_cache_before_its_registry() {
    let machine = Machine::new()
        .write("home/.cargo/registry/cache/a-1/Some_crate-1.0.0.crate", "other")
        .write("home/.cargo/registry/cache/b-2/Some_crate-1.0.0.crate", "abc");
    assert_eq!(machine.fetch(&of_crate(REGISTRY, b"abc")).unwrap(), b"abc");
    assert_eq!(
        machine.told(),
        ["/home/.cargo/registry/cache/a-1/Some_crate-1.0.0.crate: other content"]
    );
    assert_eq!(machine.copies(&of_crate(REGISTRY, b"abc")), 1);
    let offline = Machine {
        offline: true,
        ..machine
    };
    assert_eq!(offline.fetch(&of_crate(REGISTRY, b"abc")).unwrap(), b"abc");
    let error = offline.fetch(&of_crate(REGISTRY, b"new")).unwrap_err();
    assert!(error.contains("`--offline` forbids using the network"), "{error}");
    assert!(error.contains("`cargo fetch`"), "{error}");
}

#[test]
fn crates_come_from_the_registry_that_cargo_is_told_of() {
    let templates = [
        ("", "/dl/Some_crate/1.0.0/download"),
        ("/{crate}-{version}", "/dl/Some_crate-1.0.0"),
        ("/{lowerprefix}/{prefix}/f", "/dl/so/me/So/me/f"),
    ];
    for (template, path) in templates {
        let (dl, wanted) = (template.to_owned(), path.to_owned());
        let server = Noting::start(move |path| match path {
            "/index/config.json" => ok(format!("{{\"dl\":\"/dl{dl}\",\"api\":null}}")),
            path if path == wanted => ok("abc"),
            _ => missing(),
        });
        let index = format!("sparse+{}", server.url("/index/"));
        let replaced = format!("[source.crates-io]\nreplace-with = \"near\"\n[source.near]\nregistry = \"{index}\"\n");
        let named = format!("[registries.near]\nindex = \"{index}\"\n[source.crates-io]\nreplace-with = \"near\"\n");
        for (machine, registry) in [
            (Machine::new().write("home/.cargo/config.toml", &replaced), REGISTRY),
            (Machine::new().write("work/.cargo/config.toml", &named), REGISTRY),
            (Machine::new(), index.as_str()),
        ] {
            let download = of_crate(registry, b"abc");
            assert_eq!(machine.fetch(&download).unwrap(), b"abc", "{template}");
            assert_eq!(server.seen(), ["/index/config.json", path]);
            assert_eq!(machine.copies(&download), 1);
            assert_eq!(machine.told(), Vec::<String>::new());
            server.seen();
            // Other bytes under the right name.
            let error = machine.fetch(&of_crate(registry, b"abd")).unwrap_err();
            assert!(error.contains("asked: ") && error.contains("other content"), "{error}");
            server.seen();
        }
    }
}

#[test]
fn a_cargo_token_goes_to_its_registry_alone() {
    let files = Noting::with(&[("/Some_crate/1.0.0/download", b"abc")]);
    let elsewhere = files.url("");
    let server = Noting::start(move |path| match path {
        "/private/config.json" => ok(format!("{{\"dl\":\"{elsewhere}\"}}")),
        "/own/config.json" => ok("{\"dl\":\"/own/dl\"}"),
        "/own/dl/Some_crate/1.0.0/download" => ok("abc"),
        _ => missing(),
    });
    for (index, expected, of_files) in [
        (
            "/own/",
            ["/own/config.json secret", "/own/dl/Some_crate/1.0.0/download secret"].as_slice(),
            vec![],
        ),
        (
            "/private/",
            ["/private/config.json secret"].as_slice(),
            vec!["/Some_crate/1.0.0/download".to_owned()],
        ),
    ] {
        let source = format!("sparse+{}", server.url(index));
        let config = format!("[registries.mine]\nindex = \"{source}\"\n");
        for machine in [
            Machine::new().write("home/.cargo/config.toml", &config).write(
                "home/.cargo/credentials.toml",
                "[registries.mine]\ntoken = \"secret\"\n",
            ),
            Machine::new()
                .set("CARGO_REGISTRIES_MINE_INDEX", &source)
                .set("CARGO_REGISTRIES_MINE_TOKEN", "secret"),
        ] {
            assert_eq!(machine.fetch(&of_crate(&source, b"abc")).unwrap(), b"abc");
            assert_eq!(server.seen(), expected);
            assert_eq!(files.seen(), of_files);
        }
    }
}

#[test]
fn what_cargo_cannot_say_is_told() {
    let unused = "[source.crates-io]\nreplace-with = \"a\"\n[source.a]\n";
    for (config, registry, message) in [
        (
            "",
            "registry+https://git.invalid/index",
            "its index is a git repository",
        ),
        (
            "[source.crates-io]\nreplace-with = \"x\"\n",
            REGISTRY,
            "does not say where it is",
        ),
        (
            &format!("{unused}replace-with = \"crates-io\"\n"),
            REGISTRY,
            "in a circle",
        ),
        (&format!("{unused}directory = \"vendor\"\n"), REGISTRY, "unpacked"),
    ] {
        let machine = Machine::new().write("home/.cargo/config.toml", config);
        let error = machine.fetch(&of_crate(registry, b"abc")).unwrap_err();
        assert!(error.contains(message) && error.contains("cargo fetch"), "{error}");
    }
    let machine = Machine::new()
        .write(
            "home/.cargo/config.toml",
            "[source.crates-io]\nreplace-with = \"a\"\n[source.a]\nlocal-registry = \"local\"\n",
        )
        .write("work/project/local/Some_crate-1.0.0.crate", "abc");
    assert_eq!(machine.fetch(&of_crate(REGISTRY, b"abc")).unwrap(), b"abc");
    let machine = Machine::new().write("home/.cargo/config.toml", "[source\n");
    let error = machine.fetch(&of_crate(REGISTRY, b"abc")).unwrap_err();
    assert!(error.contains("config.toml` cannot be read"), "{error}");
    let server = Noting::with(&[("/config.json", b"<html>")]);
    let error = Machine::new()
        .fetch(&of_crate(&format!("sparse+{}", server.url("/")), b"abc"))
        .unwrap_err();
    assert!(error.contains(": an error"), "{error}");
}

fn of_python(content: &[u8], indexes: Vec<String>, url: Option<String>) -> Download {
    Download {
        name: "my_pkg-1.0-py3-none-any.whl".to_owned(),
        hash: Digest::of(content).into(),
        size: None,
        origin: Origin::Python {
            project: "My.Pkg".to_owned(),
            version: "1.0".to_owned(),
            indexes,
            url,
        },
    }
}

#[test]
fn wheels_come_from_the_indexes_that_pip_is_told_of() {
    const HTML: &str = "<!DOCTYPE html><html><body>\n<a href=\"../other-1.0.whl\">other</a>\n\
        <A class=x HREF='../../files/my_pkg-1.0-py3-none-any.whl?a=1&amp;b=2#sha256=00'>my_pkg</A></body></html>";
    let file = "/files/my_pkg-1.0-py3-none-any.whl?a=1&b=2";
    let json = "{\"meta\":{\"api-version\":\"1.0\"},\"files\":[{\"filename\":\"x\",\"url\":\"y\"},\
        {\"filename\":\"my_pkg-1.0-py3-none-any.whl\",\"url\":\"../../files/my_pkg-1.0-py3-none-any.whl?a=1&b=2\",\"hashes\":{}}]}";
    let server = Noting::with(&[
        ("/html/my-pkg/", HTML.as_bytes()),
        ("/json/my-pkg/", json.as_bytes()),
        ("/empty/my-pkg/", b"<html></html>"),
        (file, b"abc"),
    ]);
    let (html, json) = (server.url("/html"), server.url("/json/"));
    let download = of_python(b"abc", Vec::new(), None);
    for machine in [
        Machine::new().set("PIP_INDEX_URL", &html),
        Machine::new().set("PIP_INDEX_URL", &json),
        Machine::new().set("UV_DEFAULT_INDEX", &format!("own={json}")),
        Machine::new().write("home/.config/pip/pip.conf", format!("[global]\nindex-url = {html}\n")),
        Machine::new().write(
            "conf",
            format!(
                "[install]\nindex_url = {}\nextra-index-url =\n   {}\n   {html}\n",
                server.url("/none"),
                server.url("/empty")
            ),
        ),
    ] {
        let machine = match machine.path("conf").exists() {
            true => {
                let conf = machine.path("conf").display().to_string();
                machine.set("PIP_CONFIG_FILE", &conf)
            }
            false => machine,
        };
        assert_eq!(machine.fetch(&download).unwrap(), b"abc");
        assert_eq!(server.seen().last().unwrap(), file);
        assert_eq!(machine.copies(&download), 1);
        server.seen();
    }
    // Where nothing is configured, the lock says where.
    // Of several indexes each is asked.
    let indexes = vec![server.url("/nothing"), server.url("/json")];
    let url = Some(server.url(file));
    assert_eq!(Machine::new().fetch(&of_python(b"abc", indexes, None)).unwrap(), b"abc");
    assert_eq!(
        Machine::new().fetch(&of_python(b"abc", Vec::new(), url)).unwrap(),
        b"abc"
    );
    let error = Machine::new().fetch(&download).unwrap_err();
    assert!(
        error.contains("cannot get `pypi:My.Pkg` 1.0") && error.contains("pip download"),
        "{error}"
    );
}

#[test]
fn an_index_that_answers_other_bytes_is_passed_over_and_told() {
    let listing = |path: &str| format!("<a href=\"{path}\">x</a>");
    let squatter = Noting::with(&[
        ("/simple/my-pkg/", listing("/my_pkg-1.0-py3-none-any.whl").as_bytes()),
        ("/my_pkg-1.0-py3-none-any.whl", b"evil"),
    ]);
    let right = Noting::with(&[
        ("/simple/my-pkg/", listing("/my_pkg-1.0-py3-none-any.whl").as_bytes()),
        ("/my_pkg-1.0-py3-none-any.whl", b"abc"),
    ]);
    let machine = Machine::new()
        .set("PIP_INDEX_URL", &squatter.url("/simple"))
        .set("PIP_EXTRA_INDEX_URL", &right.url("/simple"));
    assert_eq!(machine.fetch(&of_python(b"abc", Vec::new(), None)).unwrap(), b"abc");
    assert_eq!(machine.told(), [format!("{}: other content", squatter.url("/simple"))]);
    let error = machine.fetch(&of_python(b"neither", Vec::new(), None)).unwrap_err();
    assert!(
        error.contains(&squatter.url("/simple")) && error.contains(&right.url("/simple")),
        "{error}"
    );
}

#[test]
fn a_login_in_an_index_s_address_stays_at_its_origin_and_is_not_shown() {
    let files = Noting::with(&[("/my_pkg-1.0-py3-none-any.whl", b"abc")]);
    let there = files.url("/my_pkg-1.0-py3-none-any.whl");
    let server = Noting::start(move |path| match path {
        "/away/my-pkg/" => ok(format!("<a href=\"{there}\">x</a>")),
        "/moved/my-pkg/" => ok("<a href=\"/go/my_pkg-1.0-py3-none-any.whl\">x</a>"),
        "/go/my_pkg-1.0-py3-none-any.whl" => (302, format!("Location: {there}\r\n"), Vec::new()),
        "/here/my-pkg/" => ok("<a href=\"/f/my_pkg-1.0-py3-none-any.whl\">x</a>"),
        "/f/my_pkg-1.0-py3-none-any.whl" => ok("abc"),
        _ => missing(),
    });
    let basic = "Basic bWU6cDp3";
    for (index, at_files) in [("away", 1), ("moved", 1), ("here", 0)] {
        let url = server.url(&format!("/{index}")).replace("http://", "http://me:p%3Aw@");
        let machine = Machine::new().set("PIP_INDEX_URL", &url);
        assert_eq!(machine.fetch(&of_python(b"abc", Vec::new(), None)).unwrap(), b"abc");
        let seen = server.seen();
        assert!(
            !seen.is_empty() && seen.iter().all(|line| line.ends_with(basic)),
            "{seen:?}"
        );
        assert_eq!(files.seen(), vec!["/my_pkg-1.0-py3-none-any.whl"; at_files]);
        let error = machine.fetch(&of_python(b"other", Vec::new(), None)).unwrap_err();
        assert!(!error.contains("p%3Aw") && !error.contains("p:w"), "{error}");
        drop((server.seen(), files.seen()));
    }
}

#[test]
fn directories_of_wheels_are_read() {
    let machine = Machine::new().write("wheels/my_pkg-1.0-py3-none-any.whl", "abc");
    let wheels = machine.path("wheels").display().to_string();
    for link in [wheels.clone(), format!("file://{wheels}"), format!("/none {wheels}")] {
        let machine = Machine {
            variables: [
                ("PIP_FIND_LINKS".to_owned(), link),
                ("PIP_NO_INDEX".to_owned(), "1".to_owned()),
            ]
            .into(),
            offline: true,
            ..Machine::new()
        };
        assert_eq!(machine.fetch(&of_python(b"abc", Vec::new(), None)).unwrap(), b"abc");
    }
}

fn of_npm(name: &str, content: &[u8], url: Option<String>) -> Download {
    Download {
        name: "pkg-1.0.0.tgz".to_owned(),
        hash: ContentDigest::Sha512([0; 64]).same_algorithm(content).into(),
        size: None,
        origin: Origin::Npm {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            url,
        },
    }
}

#[test]
fn tarballs_come_from_npm_s_cache_its_registry_and_the_lock() {
    let hex = of_npm("pkg", b"abc", None).hash.hex();
    let cached = format!(
        "home/.npm/_cacache/content-v2/sha512/{}/{}/{}",
        &hex[..2],
        &hex[2..4],
        &hex[4..]
    );
    let machine = Machine {
        offline: true,
        ..Machine::new().write(&cached, "abc")
    };
    assert_eq!(machine.fetch(&of_npm("pkg", b"abc", None)).unwrap(), b"abc");

    let server = Noting::with(&[
        ("/r/pkg/-/pkg-1.0.0.tgz", b"abc"),
        ("/s/@own/pkg/-/pkg-1.0.0.tgz", b"own"),
        ("/odd/pkg/1.0.0", br#"{"name":"pkg","dist":{"tarball":"/files/p.tgz"}}"#),
        (
            "/old/pkg",
            br#"{"versions":{"0.1.0":{},"1.0.0":{"dist":{"tarball":"/files/p.tgz"}}}}"#,
        ),
        ("/old/%40own%2Fpkg", b"{}"),
        ("/files/p.tgz", b"abc"),
    ]);
    let rc = |text: &str| Machine::new().write("home/.npmrc", text.replace("URL", &server.url("")));
    for (machine, name, content, last) in [
        (rc("registry=URL/r/\n"), "pkg", &b"abc"[..], "/r/pkg/-/pkg-1.0.0.tgz"),
        (
            rc("; comment\n@own:registry = \"URL/s\"\nregistry=URL/r\n"),
            "@own/pkg",
            b"own",
            "/s/@own/pkg/-/pkg-1.0.0.tgz",
        ),
        (
            rc("registry=${HOST}/odd").set("HOST", &server.url("")),
            "pkg",
            b"abc",
            "/files/p.tgz",
        ),
        (
            Machine::new().set("npm_config_registry", &server.url("/old/")),
            "pkg",
            b"abc",
            "/files/p.tgz",
        ),
        (
            rc("registry=URL/none").write("work/project/.npmrc", format!("registry={}", server.url("/r"))),
            "pkg",
            b"abc",
            "/r/pkg/-/pkg-1.0.0.tgz",
        ),
    ] {
        assert_eq!(machine.fetch(&of_npm(name, content, None)).unwrap(), content, "{last}");
        assert_eq!(server.seen().last().unwrap(), last);
    }
    let of_lock = of_npm("pkg", b"abc", Some(server.url("/files/p.tgz")));
    assert_eq!(rc("registry=URL/none/").fetch(&of_lock).unwrap(), b"abc");
    let error = rc("registry=URL/old/")
        .fetch(&of_npm("@own/pkg", b"abc", None))
        .unwrap_err();
    assert!(
        error.contains("cannot get `npm:@own/pkg` 1.0.0") && error.contains("npm ci"),
        "{error}"
    );
}

/// A registry that has the same name is not asked.
#[test]
fn a_tarball_of_the_project_is_taken_from_there() {
    let server = Noting::start(|_| ok("abc"));
    let machine = Machine::new()
        .set("npm_config_registry", &server.url("/r/"))
        .write("work/project/p.tgz", "abc");
    let path = url::Url::from_file_path(machine.path("work/project/p.tgz")).unwrap();
    let of_project = of_npm("pkg", b"abc", Some(path.into()));
    assert_eq!(machine.fetch(&of_project).unwrap(), b"abc");
    assert!(server.seen().is_empty());
}

#[test]
fn a_login_of_npm_goes_where_it_is_configured_for() {
    let server = Noting::with(&[
        ("/team/pkg/-/pkg-1.0.0.tgz", b"abc"),
        ("/open/pkg/-/pkg-1.0.0.tgz", b"abc"),
    ]);
    let host = format!("//127.0.0.1:{}/team/", server.port);
    for (auth, expected) in [
        (":_authToken=${NPM_TOKEN}", "Bearer t0k"),
        (":_auth=bWU6cHc=", "Basic bWU6cHc="),
        (":username=me\nHOST:_password=cHc=", "Basic bWU6cHc="),
    ] {
        let text = format!("HOST{auth}\n").replace("HOST", &host);
        for (place, login) in [("team", expected), ("open", "")] {
            let registry = format!("registry={}\n{text}", server.url(&format!("/{place}/")));
            let machine = Machine::new().set("NPM_TOKEN", "t0k").write("home/.npmrc", registry);
            assert_eq!(machine.fetch(&of_npm("pkg", b"abc", None)).unwrap(), b"abc");
            let wanted = format!("/{place}/pkg/-/pkg-1.0.0.tgz {login}");
            assert_eq!(server.seen(), [wanted.trim_end()]);
        }
    }
}

const GO_MOD: &str = "module example.com/M\n";

fn of_go(hash: FileHash) -> Download {
    Download {
        name: "m".to_owned(),
        hash,
        size: None,
        origin: Origin::Go {
            module: "example.com/M".to_owned(),
            version: "v1.0.0".to_owned(),
        },
    }
}

fn module_zip(mode: u32) -> Vec<u8> {
    zipped(&[("example.com/M@v1.0.0/go.mod", mode, GO_MOD)])
}

fn h1() -> FileHash {
    let files = [("example.com/M@v1.0.0/go.mod".to_owned(), Digest::of(GO_MOD.as_bytes()))];
    FileHash::GoModule(GoHash::of_files(files).unwrap())
}

#[test]
fn modules_come_from_go_s_cache_and_its_proxies() {
    let cached = "home/go/pkg/mod/cache/download/example.com/!m/@v/v1.0.0.zip";
    let machine = Machine {
        offline: true,
        ..Machine::new().write(cached, module_zip(0o100_644))
    };
    assert_eq!(machine.fetch(&of_go(h1())).unwrap(), module_zip(0o100_644));

    let path = "/example.com/!m/@v/v1.0.0";
    let right = Noting::with(&[
        (&format!("{path}.zip"), &module_zip(0o100_755)),
        (&format!("{path}.mod"), GO_MOD.as_bytes()),
    ]);
    let broken = Noting::start(|_| (403, String::new(), Vec::new()));
    let wrong = Noting::with(&[(
        &format!("{path}.zip"),
        &zipped(&[("example.com/M@v1.0.0/x", 0o100_644, "")]),
    )]);
    let (none, right, broken, wrong) = (Noting::with(&[]).url(""), right.url("/"), broken.url(""), wrong.url(""));
    let go_mod = FileHash::GoMod(GoHash::of_go_mod(Digest::of(GO_MOD.as_bytes())));
    for (proxies, is_found) in [
        (right.clone(), true),
        (format!("{none},{right},direct"), true),
        (format!("{broken}|{right}"), true),
        (format!("{broken},{right}"), false),
        (format!("{none},off,{right}"), false),
        (format!("direct,{right}"), false),
        ("off".to_owned(), false),
    ] {
        for machine in [
            Machine::new().set("GOPROXY", &proxies),
            Machine::new().write("home/.config/go/env", format!("GOFLAGS=\nGOPROXY={proxies}\n")),
        ] {
            for hash in [h1(), go_mod] {
                let found = machine.fetch(&of_go(hash));
                assert_eq!(found.is_ok(), is_found, "{proxies}: {found:?}");
            }
        }
    }
    // A zip of other files is refused, and the next proxy is asked where Go would ask it.
    let machine = Machine::new().set("GOPROXY", &format!("{wrong}|{right}"));
    assert_eq!(machine.fetch(&of_go(h1())).unwrap(), module_zip(0o100_755));
    assert_eq!(machine.told()[1..], [format!("{wrong}/: other content")]);
    let machine = Machine::new().set("GOPROXY", &right).set("GOPRIVATE", "example.com");
    let error = machine.fetch(&of_go(h1())).unwrap_err();
    assert!(
        error.contains("it is private") && error.contains("go mod download"),
        "{error}"
    );
    let error = Machine::new().fetch(&of_go(h1())).unwrap_err();
    assert!(error.contains("no proxy is known: set `GOPROXY`"), "{error}");
}

#[test]
fn a_proxy_may_be_a_directory_and_may_want_a_login() {
    let path = "example.com/!m/@v/v1.0.0.zip";
    let machine = Machine::new().write(&format!("proxy/{path}"), module_zip(0o100_644));
    let proxy = format!("file://{}", machine.path("proxy").display());
    let machine = Machine {
        offline: true,
        ..machine.set("GOPROXY", &proxy)
    };
    assert_eq!(machine.fetch(&of_go(h1())).unwrap(), module_zip(0o100_644));

    let server = Noting::with(&[(&format!("/{path}"), &module_zip(0o100_644))]);
    let machine = Machine::new().set("GOPROXY", &server.url("").replace("http://", "http://me:pw@"));
    machine.fetch(&of_go(h1())).unwrap();
    assert_eq!(server.seen(), [format!("/{path} Basic bWU6cHc=")]);
}

#[test]
fn configurations_show_no_secret() {
    let tools = LanguageTools {
        variables: [("NPM_TOKEN".to_owned(), "s3cret".to_owned())].into(),
        ..LanguageTools::default()
    };
    let config = FetchConfig {
        languages: tools,
        ..FetchConfig::default()
    };
    assert!(!format!("{config:?}").contains("s3cret"));
}
