//! Requirements with hashes, and an index on loopback that answers as it should or does not.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex};

use layerize::digest::Digest;

use crate::python::{SPEC, Wheel, good_wheels, has};
use crate::support::{Place, Ran};
use crate::web::{Reply, Server};

/// What an index has: answers by path.
type Pages = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// An index of these files, in the simple API's HTML.
struct Index {
    server: Server,
    pages: Pages,
}

impl Index {
    fn new() -> Self {
        let pages = Pages::default();
        let known = Arc::clone(&pages);
        let server = Server::start(move |path| match known.lock().unwrap().get(path) {
            Some(content) => Reply::ok(content),
            None => Reply::status(404),
        });
        Self { server, pages }
    }

    /// Publishes a file; the page states the hash of `stated`.
    fn publish(&self, project: &str, file: &str, content: &[u8], stated: &[u8]) {
        let mut pages = self.pages.lock().unwrap();
        pages.insert(format!("/files/{file}"), content.to_owned());
        let page = pages.entry(format!("/simple/{project}/")).or_default();
        let hash = Digest::of(stated).hex();
        page.extend(format!("<a href=\"../../files/{file}#sha256={hash}\">{file}</a>\n").bytes());
    }

    /// Says of all files of a project that it has withdrawn them.
    fn yank(&self, project: &str, why: &str) {
        let mut pages = self.pages.lock().unwrap();
        let page = pages.get_mut(&format!("/simple/{project}/")).unwrap();
        let text = String::from_utf8(std::mem::take(page)).unwrap();
        *page = text.replace("<a ", &format!("<a data-yanked=\"{why}\" ")).into_bytes();
    }

    fn withdraw(&self, file: &str) {
        self.pages.lock().unwrap().remove(&format!("/files/{file}"));
    }

    fn run(&self, place: &Place, arguments: &[&str]) -> Ran {
        let mut command = place.command(arguments);
        command
            .env("PIP_CONFIG_FILE", "/dev/null")
            .env("PIP_INDEX_URL", self.server.url("/simple"))
            .env("XDG_CACHE_HOME", place.path().join("cache"));
        Ran::of(command.output().unwrap())
    }
}

/// A project whose requirements are the good wheels, on an index.
fn project() -> (Place, Index) {
    let place = Place::new();
    let spec = SPEC
        .replace("\"uv.lock\"]", "\"*.txt\"]")
        .replace("python = {}", "python = { lock = \"requirements.txt\" }");
    place.write("layerize.toml", &spec).write(
        "pyproject.toml",
        "[project]\nname = \"app\"\nversion = \"0.3\"\nscripts = { app = \"app:main\" }\n",
    );
    place.write("src/app/__init__.py", crate::python::MAIN);
    let index = Index::new();
    let mut requirements = "--index-url https://index.invalid/simple\n-r more.txt\n".to_owned();
    for wheel in good_wheels() {
        let bytes = wheel.bytes();
        index.publish(wheel.name, &wheel.file(), &bytes, &bytes);
        requirements += &line(wheel.name, &bytes);
    }
    place.write("requirements.txt", &requirements);
    let gone = Digest::of(b"gone").hex();
    place.write(
        "more.txt",
        &format!("gone==1 ; sys_platform == 'win32' \\\n  --hash=sha256:{gone}\n"),
    );
    // What Debian has is the same for all tests.
    crate::support::copy_tree(&crate::support::shared_cache(), &place.path().join("cache"));
    (place, index)
}

fn line(name: &str, bytes: &[u8]) -> String {
    let other = Digest::of(b"another platform").hex();
    format!(
        "{name}==1.0 \\\n    --hash=sha256:{other} \\\n    --hash=sha256:{}\n",
        Digest::of(bytes).hex()
    )
}

fn bad(files: &[(&'static str, &'static str)]) -> Wheel<'static> {
    Wheel {
        name: "bad",
        files: files.to_vec(),
        record: "",
    }
}

#[test]
fn requirements_are_locked_by_the_index_and_built_elsewhere() {
    let (place, index) = project();
    let locked = index.run(&place, &["lock"]).success();
    assert!(
        locked.stderr.contains("+ python:one of app 1.0 sha256:"),
        "{}",
        locked.stderr
    );
    let lock = fs::read_to_string(place.project.join("layerize.lock")).unwrap();
    assert!(
        lock.contains("file = \"one-1.0-py3-none-any.whl\"") && !lock.contains("127.0.0.1"),
        "{lock}"
    );
    index.run(&place, &["lock", "--check"]).success();
    let built = index.run(&place, &["build", "--locked"]).success();
    index.run(&place, &["test", "--locked"]).success();
    let other = place.elsewhere();
    crate::support::copy_tree(&place.path().join("cache"), &other.path().join("cache"));
    assert_eq!(
        index.run(&other, &["build", "--locked", "--offline"]).success().stdout,
        built.stdout
    );

    // From what is kept beside an image, where nothing else is left of it.
    index
        .run(&place, &["build", "--locked", "--inputs=all", "-o", "oci:kept"])
        .success();
    let empty = Place::new();
    crate::support::copy_tree(&place.project.join("kept"), &empty.project.join("kept"));
    Index::new()
        .run(&empty, &["rebuild", "--offline", "oci:kept"])
        .success();

    // One that the lock does not have is asked for, and one that is gone is no longer in it.
    let text = fs::read_to_string(place.project.join("requirements.txt")).unwrap();
    let bytes = bad(&[("bad.py", "")]).bytes();
    index.publish("bad", "bad-1.0-py3-none-any.whl", &bytes, &bytes);
    index.yank("bad", "it breaks");
    let (kept, _) = text.split_once("two==").unwrap();
    place.write("requirements.txt", &format!("{kept}{}", line("bad", &bytes)));
    let reasons = index.run(&place, &["lock", "--check"]).exits(1).stderr;
    assert!(reasons.contains("missing: the file of Python's `bad 1.0`"), "{reasons}");
    assert!(
        reasons.contains("no longer needed: the file of Python's `two`"),
        "{reasons}"
    );
    index
        .run(&place, &["build", "--locked"])
        .exits(2)
        .says(&["`bad 1.0`", "layerize lock"]);
    let locked = index.run(&place, &["lock"]).success().stderr;
    assert!(
        locked.contains("+ python:bad of app") && locked.contains("- python:two of app"),
        "{locked}"
    );
    assert!(
        locked.contains("`bad 1.0` was withdrawn by its project: it breaks; lock another version"),
        "{locked}"
    );
    // What was locked stays though the index is gone.
    let lock = fs::read(place.project.join("layerize.lock")).unwrap();
    index.pages.lock().unwrap().clear();
    index.run(&place, &["lock"]).success();
    assert_eq!(fs::read(place.project.join("layerize.lock")).unwrap(), lock);
    index.run(&place, &["lock", "--update", "bad"]).exits(2).says(&[
        "no file of `bad 1.0` with one of its hashes is listed anywhere",
        "`requirements.txt`, line",
        "PIP_INDEX_URL",
    ]);
}

#[test]
fn an_index_that_misleads_is_told_and_nothing_is_registered() {
    let (place, index) = project();
    index.run(&place, &["lock"]).success();
    let good = fs::read_to_string(place.project.join("requirements.txt")).unwrap();
    let wheel = bad(&[("bad.py", "")]);
    let (file, bytes) = (wheel.file(), wheel.bytes());
    let add = |bytes: &[u8]| place.write("requirements.txt", &format!("{good}{}", line("bad", bytes)));
    let refuse = |arguments: &[&str], said: &[&str]| {
        index.run(&place, arguments).exits(2).says(said);
        for name in ["wheel-bad-1.0", "bad-1.0"] {
            assert!(!has(&place.store(), name), "{name}: {said:?}");
        }
    };
    // Other bytes than the index itself says, as a typosquatter's; the next place is the requirements' own index.
    add(&bytes);
    let evil = bad(&[("evil.py", "")]).bytes();
    index.publish("bad", &file, &evil, &bytes);
    refuse(&["build", "app"], &["pypi:bad", "127.0.0.1", &file]);
    // A file that vanished after it was locked.
    index.withdraw(&file);
    refuse(&["build", "app"], &["pypi:bad", "not there", "PIP_FIND_LINKS"]);
    // Only a wheel for another platform has a hash that is allowed.
    for (other, said) in [
        ("bad-1.0-cp311-cp311-win_amd64.whl", "is a wheel that runs here"),
        ("bad-1.0.tar.gz", "nothing says what it is built with"),
    ] {
        index.pages.lock().unwrap().remove("/simple/bad/");
        index.publish("bad", other, &bytes, &bytes);
        refuse(&["lock", "--update", "bad"], &[said, "`requirements.txt`, line"]);
    }
    // A path that leads out, and a file too large for what it is packed in, in wheels that are as they were locked.
    let leading_out = bad(&[("../../bad.py", "")]).bytes();
    for (bytes, said) in [(leading_out, "leads out of the archive"), (bomb(), "2048 MiB")] {
        index.pages.lock().unwrap().remove("/simple/bad/");
        index.publish("bad", &file, &bytes, &bytes);
        add(&bytes);
        refuse(&["build", "app"], &[said, "bad"]);
    }
    // Nothing of it is left behind where the requirements are as before.
    place.write("requirements.txt", &good);
    index.run(&place, &["build", "app"]).success();
}

/// A wheel whose first file is said to unpack to nearly 4 GiB.
fn bomb() -> Vec<u8> {
    let mut bytes = bad(&[("bad.py", "")]).bytes();
    for (signature, size_at) in [(b"PK\x03\x04", 22), (b"PK\x01\x02", 24)] {
        let header = bytes.windows(4).position(|window| window == signature).unwrap();
        bytes[header + size_at..header + size_at + 4].copy_from_slice(&0xffff_fff0_u32.to_le_bytes());
    }
    bytes
}
