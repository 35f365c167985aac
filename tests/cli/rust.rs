//! A Rust project from its lock file to an image: crates that the test writes, found in a registry of the machine's own.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use layerize::digest::Digest;

use crate::support::{Place, Ran, in_another_world};

mod git;

/// A published crate.
struct Crate<'a> {
    name: &'a str,
    manifest: &'a str,
    /// Its files beside the manifest.
    files: Vec<(&'a str, &'a str)>,
}

impl Crate<'_> {
    /// The gzipped tar, with everything in a directory of the crate's name and version.
    fn bytes(&self) -> Vec<u8> {
        let manifest = format!(
            "[package]\nname = \"{}\"\nversion = \"1.0.0\"\nedition = \"2021\"\n{}",
            self.name, self.manifest
        );
        let files = [("Cargo.toml", manifest.as_str())];
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (path, text) in files.into_iter().chain(self.files.iter().copied()) {
            let mut header = tar::Header::new_ustar();
            let name = format!("{}-1.0.0/{path}", self.name);
            // A name that leads out is written as it is.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            archive.append(&header, text.as_bytes()).unwrap();
        }
        let mut bytes = archive.into_inner().unwrap().finish().unwrap();
        bytes.flush().unwrap();
        bytes
    }
}

/// The registry that manifests mean, as every lock file names it: ours does.
pub fn default_registry() -> String {
    let lock = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).unwrap();
    let source = lock.lines().find_map(|line| line.strip_prefix("source = "));
    source.unwrap().trim_matches('"').to_owned()
}

const SPEC: &str = r#"[package.prog]
version = "1.0"
source = { path = ".", include = ["src/**", "helper/**", "Cargo.*"] }
rust = {}

[image.app]
contents = ["prog"]
entrypoint = ["prog"]

[image.app.tests.says]
run = ["prog"]
expect = { stdout = "one two generated 1" }
"#;

const MANIFEST: &str = "[package]\nname = \"prog\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n\
    [dependencies]\none = \"1\"\nhelper = { path = \"helper\" }\n\n[workspace]\nmembers = [\"helper\"]\n";

const MAIN: &str = "fn main() {\n    println!(\"{} {}\", one::one(), helper::number());\n}\n";

fn good_crates() -> Vec<Crate<'static>> {
    vec![
        Crate {
            name: "one",
            manifest: "[dependencies]\ntwo = \"1\"\n",
            files: vec![(
                "src/lib.rs",
                "pub fn one() -> String { format!(\"one {}\", two::two()) }\n",
            )],
        },
        Crate {
            name: "two",
            manifest: "build = \"build.rs\"\n",
            files: vec![
                (
                    "build.rs",
                    "fn main() {\n    let out = std::env::var(\"OUT_DIR\").unwrap();\n    \
                     std::fs::write(format!(\"{out}/made.rs\"), \"\\\"generated\\\"\").unwrap();\n}\n",
                ),
                (
                    "src/lib.rs",
                    "pub fn two() -> String { format!(\"two {}\", include!(concat!(env!(\"OUT_DIR\"), \"/made.rs\"))) }\n",
                ),
            ],
        },
    ]
}

/// The lock file, with the checksums of these crates.
fn cargo_lock(crates: &[Crate<'_>]) -> String {
    let registry = default_registry();
    let mut text = "version = 4\n\n[[package]]\nname = \"helper\"\nversion = \"0.1.0\"\n".to_owned();
    for of in crates {
        let depends = if of.manifest.contains("two = ") {
            "dependencies = [\n \"two\",\n]\n"
        } else {
            ""
        };
        text += &format!(
            "\n[[package]]\nname = \"{}\"\nversion = \"1.0.0\"\nsource = \"{registry}\"\nchecksum = \"{}\"\n{depends}",
            of.name,
            Digest::of(&of.bytes()).hex()
        );
        if of.name == "one" {
            text +=
                "\n[[package]]\nname = \"prog\"\nversion = \"0.1.0\"\ndependencies = [\n \"helper\",\n \"one\",\n]\n";
        }
    }
    text
}

/// Puts crates where Cargo's configuration says that they are, and the lock that pins them into the project.
fn publish(place: &Place, crates: &[Crate<'_>]) {
    let dir = place.path().join("crates");
    fs::create_dir_all(&dir).unwrap();
    for of in crates {
        fs::write(dir.join(format!("{}-1.0.0.crate", of.name)), of.bytes()).unwrap();
    }
    let config = format!(
        "[source.crates-io]\nreplace-with = \"local\"\n[source.local]\nlocal-registry = \"{}\"\n",
        dir.display()
    );
    let home = place.path().join(".cargo");
    fs::create_dir_all(&home).unwrap();
    fs::write(home.join("config.toml"), config).unwrap();
    place.write("Cargo.lock", &cargo_lock(crates));
}

fn project() -> Place {
    let place = Place::new();
    place
        .write("layerize.toml", SPEC)
        .write("Cargo.toml", MANIFEST)
        .write("src/main.rs", MAIN)
        .write(
            "helper/Cargo.toml",
            "[package]\nname = \"helper\"\nversion = \"0.1.0\"\nedition = \"2021\"\n",
        )
        .write("helper/src/lib.rs", "pub fn number() -> u32 { 1 }\n");
    publish(&place, &good_crates());
    place
}

fn built(ran: &Ran) -> Vec<&str> {
    let lines = ran.stderr.lines();
    lines.filter_map(|line| line.strip_prefix("building ")).collect()
}

#[test]
fn crates_are_compiled_once_and_a_program_starts() {
    let place = project();
    place.run(&["lock"]).success();
    let cold = place.run(&["build", "app"]).success();
    assert_eq!(built(&cold), ["prog (dependencies)", "prog"], "{}", cold.stderr);
    place.run(&["test"]).success();

    let (_other, elsewhere) = in_another_world(&place, &["build", "app", "--offline"]);
    let digest = |ran: &Ran| ran.stdout.split(' ').next().unwrap().to_owned();
    assert_eq!(digest(&elsewhere), digest(&cold));

    let closure = place.run(&["closure", "prog"]).success().stdout;
    assert!(!closure.contains("-crate-") && !closure.contains("rustc"), "{closure}");
    let sbom = place.run(&["sbom", "app"]).success().stdout;
    for text in ["pkg:cargo/one@1.0.0", "pkg:cargo/two@1.0.0"] {
        assert!(sbom.contains(text), "{text}: {sbom}");
    }

    // An edit of a source file leaves what was compiled before it, and comes out as if there were nothing.
    place.write("src/main.rs", &MAIN.replace("{} {}", "edited {} {}"));
    let edited = place.run(&["build", "prog"]).success();
    assert_eq!(built(&edited), ["prog"], "{}", edited.stderr);
    place.write(
        "layerize.toml",
        &SPEC.replace("rust = {}", "rust = { incremental = false }"),
    );
    let whole = place.run(&["build", "prog"]).success();
    assert_eq!(built(&whole), ["prog"], "{}", whole.stderr);
    assert_eq!(whole.stdout, edited.stdout);
}

#[test]
fn what_is_wrong_with_a_crate_is_told_and_nothing_is_registered() {
    let place = project();
    place.run(&["lock"]).success();
    // Bytes that no other run has left in the download cache.
    let unseen = format!("// {}\n", place.path().display());
    let mut crates = good_crates();
    crates[1].files.push(("src/unseen.rs", &unseen));
    publish(&place, &crates);
    let text = fs::read_to_string(place.project.join("Cargo.lock")).unwrap();

    // The registry answers other bytes than were locked.
    let file = place.path().join("crates/two-1.0.0.crate");
    let bytes = fs::read(&file).unwrap();
    fs::write(
        &file,
        Crate {
            name: "two",
            manifest: "",
            files: vec![("src/lib.rs", "")],
        }
        .bytes(),
    )
    .unwrap();
    place
        .run(&["build", "prog"])
        .exits(2)
        .says(&["crate:two", "two-1.0.0.crate"]);
    fs::remove_file(&file).unwrap();
    place
        .run(&["build", "prog"])
        .exits(2)
        .says(&["crate:two", "two-1.0.0.crate"]);
    fs::write(&file, bytes).unwrap();

    // An entry lost its checksum.
    let checksum = text.lines().rfind(|line| line.starts_with("checksum")).unwrap();
    place.write("Cargo.lock", &text.replace(checksum, ""));
    place
        .run(&["build", "prog"])
        .exits(2)
        .says(&["`two 1.0.0` has no checksum", "Cargo.lock"]);

    let mut crates = good_crates();
    crates[1].files.push(("../../escape", "x"));
    publish(&place, &crates);
    place
        .run(&["build", "prog"])
        .exits(2)
        .says(&["two-1.0.0.crate", "leads out of the archive"]);
    assert!(!place.path().join("data/escape").exists());
    let names = layerize::fsio::sorted_names(&place.store().join("store")).unwrap();
    assert!(
        !names
            .iter()
            .any(|name| name.to_string_lossy().ends_with("-crate-two-1.0.0")),
        "{names:?}"
    );

    // A script of a crate fails: its own words are shown.
    let mut crates = good_crates();
    crates[1].files[0].1 = "fn main() { panic!(\"no such luck\") }\n";
    publish(&place, &crates);
    place
        .run(&["build", "prog"])
        .exits(2)
        .says(&["prog (dependencies)", "no such luck"]);

    // The manifest moved on and the lock did not.
    publish(&place, &good_crates());
    place.write(
        "Cargo.toml",
        &MANIFEST.replace("one = \"1\"", "one = \"1\"\nthree = \"1\""),
    );
    place.run(&["build", "prog"]).exits(2).says(&["three"]);
    place.write("Cargo.toml", MANIFEST);
    place.run(&["build", "prog"]).success();
}
