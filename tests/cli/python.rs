//! A Python project from its lock file to an image: wheels that the test writes, found in a directory of the machine's own.

use std::fs;
use std::io::Write;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use layerize::digest::Digest;

use crate::support::{DEV_IMAGE, PYTHON, Place, Ran};

/// A wheel as its publisher made it.
pub struct Wheel<'a> {
    pub name: &'a str,
    pub files: Vec<(&'a str, &'a str)>,
    /// What its RECORD says beside what is right.
    pub record: &'a str,
}

impl Wheel<'_> {
    pub fn file(&self) -> String {
        format!("{}-1.0-py3-none-any.whl", self.name)
    }

    /// The zip, with metadata and the record of all files.
    pub fn bytes(&self) -> Vec<u8> {
        let info = format!("{}-1.0.dist-info", self.name);
        let metadata = format!("Metadata-Version: 2.1\nName: {}\nVersion: 1.0\n", self.name);
        let mut files: Vec<(String, String)> = vec![
            (
                format!("{info}/WHEEL"),
                "Wheel-Version: 1.0\nTag: py3-none-any\n".to_owned(),
            ),
            (format!("{info}/METADATA"), metadata),
        ];
        let own = self.files.iter();
        files.extend(own.map(|(path, text)| (path.replace("INFO", &info), (*text).to_owned())));
        let mut record = self.record.to_owned();
        for (path, text) in &files {
            let digest = URL_SAFE_NO_PAD.encode(Digest::of(text.as_bytes()).as_bytes());
            if !self.record.contains(path.as_str()) {
                record += &format!("{path},sha256={digest},{}\n", text.len());
            }
        }
        record += &format!("{info}/RECORD,,\n");
        files.push((format!("{info}/RECORD"), record));
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        for (path, text) in &files {
            writer.start_file(path.as_str(), options).unwrap();
            writer.write_all(text.as_bytes()).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }
}

/// A uv.lock of a project that needs these wheels.
fn uv_lock(wheels: &[(&str, String, String)]) -> String {
    let needed: Vec<String> = wheels
        .iter()
        .map(|(name, ..)| format!("{{ name = \"{name}\" }}"))
        .collect();
    let mut text = format!(
        "version = 1\nrevision = 3\nrequires-python = \">=3.9\"\n\n[[package]]\nname = \"app\"\nversion = \"0.3\"\n\
         source = {{ editable = \".\" }}\ndependencies = [{}]\n",
        needed.join(", ")
    );
    for (name, file, sha256) in wheels {
        text += &format!(
            "\n[[package]]\nname = \"{name}\"\nversion = \"1.0\"\nsource = {{ registry = \"https://index.invalid/simple\" }}\n\
             wheels = [{{ url = \"https://files.invalid/{file}\", hash = \"sha256:{sha256}\" }}]\n"
        );
    }
    text
}

pub const SPEC: &str = r#"[package.app]
source = { path = ".", include = ["src/**", "pyproject.toml", "uv.lock"] }
python = {}

[image.app]
root = ["deb:python3"]
configure = false
contents = ["app"]
entrypoint = ["app"]

[image.app.tests.says]
run = ["app"]
expect = { stdout = "1.0 0.3 1 2 one.txt" }

[image.app.tests.runs-modules]
run = ["python", "-c", "import ns.one, os, sys; print(os.path.exists(ns.one.__cached__), sys.prefix != sys.base_prefix)"]
expect = { stdout = "True True" }

[image.app.tests.commands]
run = ["one-command"]
expect = { stdout = "called" }

[image.app.tests.scripts]
run = ["two-script"]
expect = { stdout = "script" }
"#;

pub const MAIN: &str = "import sys
from importlib.metadata import version
from pathlib import Path
from ns import one, two


def main():
    data = next(Path(sys.prefix, 'share').iterdir()).name
    print(version('one'), version('app'), one.VALUE, two.VALUE, data)
";

pub fn layerize(place: &Place, arguments: &[&str]) -> Ran {
    let mut command = place.command(arguments);
    command.env("PIP_FIND_LINKS", place.project.join("wheels"));
    Ran::of(command.output().unwrap())
}

/// Puts wheels where pip looks, and the lock that pins them into the project.
fn publish(place: &Place, wheels: &[Wheel<'_>]) {
    let dir = place.project.join("wheels");
    fs::create_dir_all(&dir).unwrap();
    let mut locked = Vec::new();
    for wheel in wheels {
        let bytes = wheel.bytes();
        fs::write(dir.join(wheel.file()), &bytes).unwrap();
        locked.push((wheel.name, wheel.file(), Digest::of(&bytes).hex()));
    }
    place.write("uv.lock", &uv_lock(&locked));
}

pub fn good_wheels() -> Vec<Wheel<'static>> {
    vec![
        Wheel {
            name: "one",
            files: vec![
                ("ns/one.py", "VALUE = 1\n\n\ndef main():\n    print('called')\n"),
                ("one-1.0.data/data/share/one.txt", "data\n"),
                (
                    "INFO/entry_points.txt",
                    "[console_scripts]\none-command = ns.one:main\n",
                ),
            ],
            record: "",
        },
        Wheel {
            name: "two",
            files: vec![
                ("ns/two.py", "VALUE = 2\n"),
                ("two-1.0.data/scripts/two-script", "#!python\nprint('script')\n"),
            ],
            record: "",
        },
    ]
}

fn project() -> Place {
    let place = Place::new();
    place.take_debs(PYTHON);
    place
        .write("layerize.toml", SPEC)
        .write(
            "pyproject.toml",
            "[project]\nname = \"app\"\nversion = \"0.3\"\nscripts = { app = \"app:main\" }\n",
        )
        .write("src/app/__init__.py", MAIN);
    publish(&place, &good_wheels());
    place
}

/// Whether the store has a path of this name.
pub fn has(store: &Path, name: &str) -> bool {
    let paths = layerize::fsio::sorted_names(&store.join("store")).unwrap();
    let name = format!("-{name}");
    paths.iter().any(|path| path.to_string_lossy().get(32..) == Some(&name))
}

#[test]
fn wheels_become_an_environment_that_runs() {
    let place = project();
    layerize(&place, &["lock"]).success();
    let built = layerize(&place, &["build"]).success();
    layerize(&place, &["test"]).success();
    let other = place.elsewhere();
    assert_eq!(layerize(&other, &["build"]).success().stdout, built.stdout);

    let sbom = layerize(&place, &["sbom", "app"]).success().stdout;
    for text in ["pkg:pypi/one@1.0", "pkg:pypi/two@1.0"] {
        assert!(sbom.contains(text), "{text}: {sbom}");
    }
    // An edit builds the package and nothing that it needs.
    place.write("src/app/__init__.py", &MAIN.replace("two.VALUE", "two.VALUE + 1"));
    let again = layerize(&place, &["build"]).success();
    assert!(
        again.stderr.lines().any(|line| line.starts_with("1 built, ")),
        "{}",
        again.stderr
    );
}

#[test]
fn a_shell_has_the_wheels_and_the_modules_as_they_are_edited() {
    let place = project();
    layerize(&place, &["lock"]).success();
    let program = "import app, ns.one, sys; print(app.__file__, ns.one.VALUE, sys.prefix)";
    let expected = format!("{} 1 /build/venv", place.project.join("src/app/__init__.py").display());
    for flags in [&[][..], &["--pure"]] {
        let args = [&["shell", "app"][..], flags, &["--", "python", "-c", program]].concat();
        assert_eq!(layerize(&place, &args).success().line(), expected);
    }
    let ran = layerize(&place, &["shell", "app", "--", "one-command"]).success();
    assert_eq!(ran.line(), "called");
    place.write("src/app/__init__.py", "EDITED = 5\n");
    let edited = ["shell", "app", "--", "python", "-c", "import app; print(app.EDITED)"];
    assert_eq!(layerize(&place, &edited).success().line(), "5");
    assert!(!place.project.join("venv").exists());
}

#[test]
fn a_dev_container_has_the_wheels_and_the_modules_as_they_are_edited() {
    let place = project();
    layerize(&place, &DEV_IMAGE).success();
    let program = "import app, ns.one, sys; print(app.__file__, ns.one.VALUE, sys.prefix)";
    let expected = "/project/src/app/__init__.py 1 /build/venv";
    let said = |program: &[&str]| place.in_dev_container(&[], program).success().stdout;
    assert_eq!(said(&["python", "-c", program]), format!("{expected}\n"));
    // What the first shell brought is what all that follow find, whatever starts them.
    let shells = "one-command; PATH=/usr/bin:/bin LAYERIZE_ACTIVATED= bash -c one-command; env -i PATH=/bin bash -lc one-command";
    assert_eq!(said(&["bash", "-c", shells]), "called\ncalled\ncalled\n");
    let at_once = "unset LAYERIZE_ACTIVATED; rm -r /build/* /build/.[!.]* 2>/dev/null; for i in 1 2 3; do bash -c one-command & done; wait";
    assert_eq!(said(&["bash", "-c", at_once]), "called\ncalled\ncalled\n");
    // A shell that was stopped while it brought them, a process that only has its number, and one that nobody waited for.
    for holder in ["99999 1", "1 1", ""] {
        let stopped = format!(
            "unset LAYERIZE_ACTIVATED; rm -r /build/*; mkdir /build/activating /build/venv; echo '{holder}' > \
             /build/activating/process; bash -c one-command"
        );
        assert_eq!(said(&["bash", "-c", &stopped]), "called\n", "{holder}");
    }
    place.write("src/app/__init__.py", "EDITED = 5\n");
    assert_eq!(said(&["python", "-c", "import app; print(app.EDITED)"]), "5\n");
    let read_only = [
        "run",
        "-q",
        "--isolated",
        "oci:dev:v1",
        "--read-only",
        "--",
        "python",
        "-V",
    ];
    place
        .run(&read_only)
        .says(&["/build cannot be written to", "--tmpfs /build:exec"]);

    // A spec in a directory of the folder that editors open.
    let outside = place
        .command(&["env", "--devcontainer", "--file", "project"])
        .current_dir(place.path())
        .output();
    let file = Ran::of(outside.unwrap()).success().stdout;
    for text in ["${containerWorkspaceFolder}/project\"", "\"--file\"", "\"project\""] {
        assert!(file.contains(text), "{file}");
    }
}

#[test]
fn what_is_wrong_with_a_wheel_is_told_and_nothing_is_registered() {
    let place = project();
    layerize(&place, &["lock"]).success();
    let bad = |files: &[(&'static str, &'static str)], record| Wheel {
        name: "bad",
        files: files.to_vec(),
        record,
    };
    for (wheel, said) in [
        (
            bad(&[("bad.py", "")], "bad.py,sha256=AAAA,0\n"),
            "`bad.py` is not what its RECORD says",
        ),
        (bad(&[("bad.py", "")], "bad.py,,\n"), "no usable hash of `bad.py`"),
        (
            bad(&[("bad.py", "")], "gone.py,sha256=AAAA,0\n"),
            "`gone.py`, which it does not hold",
        ),
        (bad(&[("../../bad.py", "")], ""), "leads out of the archive"),
        (
            bad(&[("bad-1.0.data/else/x", "")], ""),
            "has no place in an environment",
        ),
    ] {
        publish(&place, &[wheel]);
        layerize(&place, &["build", "app"]).exits(2).says(&[said]);
        assert!(!has(&place.store(), "bad-1.0"), "{said}");
    }
    let point = "[console_scripts]\n../../x = bad:main\n";
    for (wheel, said) in [
        (bad(&[("ns/one.py", "other\n")], ""), "both have `lib/python3."),
        (
            bad(&[("bad.py", ""), ("INFO/entry_points.txt", point)], ""),
            "`../../x = bad:main`, which is none",
        ),
    ] {
        let mut wheels = good_wheels();
        wheels.push(wheel);
        publish(&place, &wheels);
        layerize(&place, &["build", "app"]).exits(2).says(&[said]);
    }
    // The index answers other bytes than were locked.
    publish(&place, &good_wheels());
    let other = Place::new();
    publish(
        &other,
        &[Wheel {
            name: "one",
            files: vec![("evil.py", "")],
            record: "",
        }],
    );
    let file = "wheels/one-1.0-py3-none-any.whl";
    fs::copy(other.project.join(file), place.project.join(file)).unwrap();
    let text = fs::read_to_string(place.project.join("uv.lock")).unwrap();
    let unseen = text.replacen("sha256:", "sha256:0", 1);
    let end = unseen.find("sha256:0").unwrap() + "sha256:".len() + 64;
    place.write("uv.lock", &format!("{}{}", &unseen[..end], &unseen[end + 1..]));
    layerize(&place, &["build", "app"]).exits(2).says(&["one"]);
}
