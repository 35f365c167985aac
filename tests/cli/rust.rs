//! A Rust project from its lock file to an image: crates that the test writes, found in a registry of the machine's own.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use layerize::digest::Digest;

use crate::support::{DEV_IMAGE, Place, RUST, Ran, in_another_world};

mod git;
mod members;
mod units;

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
fn default_registry() -> String {
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

/// The lock file of a project that depends on `direct` and its `helper`, with the checksums of these crates.
fn cargo_lock(crates: &[Crate<'_>], direct: &[&str]) -> String {
    let registry = default_registry();
    let list =
        |names: &mut dyn Iterator<Item = &str>| match names.map(|name| format!(" \"{name}\",\n")).collect::<String>() {
            none if none.is_empty() => none,
            names => format!("dependencies = [\n{names}]\n"),
        };
    let mut entries: Vec<String> = (crates.iter())
        .map(|of| {
            let below = crates.iter().map(|other| other.name);
            let mut below = below.filter(|name| of.manifest.contains(&format!("{name} = \"1\"")));
            format!(
                "name = \"{}\"\nversion = \"1.0.0\"\nsource = \"{registry}\"\nchecksum = \"{}\"\n{}",
                of.name,
                Digest::of(&of.bytes()).hex(),
                list(&mut below)
            )
        })
        .collect();
    let mut own: Vec<&str> = direct.iter().copied().chain(["helper"]).collect();
    own.sort_unstable();
    entries.push("name = \"helper\"\nversion = \"0.1.0\"\n".to_owned());
    entries.push(format!(
        "name = \"prog\"\nversion = \"0.1.0\"\n{}",
        list(&mut own.into_iter())
    ));
    entries.sort();
    let entries = entries.iter().map(|entry| format!("\n[[package]]\n{entry}"));
    format!("version = 4\n{}", entries.collect::<String>())
}

/// Puts crates where Cargo's configuration says that they are, and the lock that pins them into the project.
fn publish(place: &Place, crates: &[Crate<'_>]) {
    put(place, crates);
    place.write("Cargo.lock", &cargo_lock(crates, &["one"]));
}

/// Puts crates where Cargo's configuration says that they are.
fn put(place: &Place, crates: &[Crate<'_>]) {
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
}

fn project() -> Place {
    let place = Place::new();
    place.take_debs(RUST);
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
    // What was yanked after it was locked is built as any other, and not spoken of, as Cargo has it.
    let index = place.path().join("crates/index/3/t");
    fs::create_dir_all(&index).unwrap();
    let hash = Digest::of(&good_crates()[1].bytes()).hex();
    let yanked = format!(
        "{{\"name\":\"two\",\"vers\":\"1.0.0\",\"deps\":[],\"cksum\":\"{hash}\",\"features\":{{}},\"yanked\":true}}\n"
    );
    fs::write(index.join("two"), yanked).unwrap();
    let locked = place.run(&["lock"]).success();
    let cold = place.run(&["build", "app"]).success();
    assert!(!format!("{}{}", locked.stderr, cold.stderr).contains("yanked"));
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

/// What crates run while they are compiled is compiled for the machine that compiles, and the program for the other one.
#[test]
fn a_project_is_cross_compiled_with_what_its_crates_run() {
    let (other, machine) = match cfg!(target_arch = "aarch64") {
        true => ("amd64", 62),
        false => ("arm64", 183),
    };
    let place = project();
    let mut crates = good_crates();
    crates.push(Crate {
        name: "three",
        manifest: "[lib]\nproc-macro = true\n",
        files: vec![(
            "src/lib.rs",
            "use proc_macro::TokenStream;\n#[proc_macro]\npub fn three(_: TokenStream) -> TokenStream { \"3\".parse().unwrap() }\n",
        )],
    });
    put(&place, &crates);
    let manifest = MANIFEST.replace("one = \"1\"\n", "one = \"1\"\nthree = \"1\"\n");
    let home = format!("[debian]\narchitecture = \"{other}\"\n\n");
    place
        .write("Cargo.lock", &cargo_lock(&crates, &["one", "three"]))
        .write("Cargo.toml", &manifest)
        .write(
            "src/main.rs",
            &MAIN.replace("helper::number()", "helper::number() + three::three!()"),
        )
        .write(
            "layerize.toml",
            &format!("{home}{}", SPEC.replace("rust = {}", "rust = {}\ncross = true")),
        );
    let ran = place.run(&["build", "prog"]).success();
    assert_eq!(built(&ran), ["prog (dependencies)", "prog"], "{}", ran.stderr);
    assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
    let tree = place.store().join("store").join(ran.line().rsplit('/').next().unwrap());
    assert_eq!(fs::read(tree.join("bin/prog")).unwrap()[18], machine);
    place.write("src/main.rs", &MAIN.replace("{} {}", "edited {} {}"));
    let edited = place.run(&["build", "prog"]).success();
    assert_eq!(built(&edited), ["prog"], "{}", edited.stderr);
}

#[test]
fn a_shell_has_cargo_find_the_crates_and_builds_in_the_project() {
    let place = project();
    place.run(&["lock"]).success();
    let cargo = ["shell", "prog", "--", "cargo"];
    let built = place.run(&[&cargo[..], &["build"]].concat()).success();
    // Nothing was compiled before it: that is for the build.
    assert!(!built.stderr.contains("(dependencies)"), "{}", built.stderr);
    let ran = place
        .run(&[&cargo[..], &["run", "--quiet", "--locked"]].concat())
        .success();
    assert_eq!(ran.line(), "one two generated 1");
    assert!(place.project.join("target/debug/prog").is_file());
    place.write("src/main.rs", &MAIN.replace("{} {}", "edited {} {}"));
    let edited = place.run(&[&cargo[..], &["run"]].concat()).success();
    assert_eq!(edited.line(), "edited one two generated 1");
    assert_eq!(edited.stderr.matches("Compiling ").count(), 1, "{}", edited.stderr);

    // What the shell linked names libraries at the shell's places.
    fs::remove_dir_all(place.project.join("target")).unwrap();
    place.run(&DEV_IMAGE).success();
    let program = "cargo run --quiet --locked && bash -c 'cargo run --quiet'";
    let ran = place.in_dev_container(&[], &["bash", "-c", program]).success();
    assert_eq!(ran.stdout, "edited one two generated 1\n".repeat(2));
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

    let mut crates = good_crates();
    crates[1].files.push(("../../escape", "x"));
    publish(&place, &crates);
    place
        .run(&["build", "prog"])
        .exits(2)
        .says(&["two-1.0.0.crate", "leads out of the archive"]);
    assert!(!place.path().join("data/escape").exists());
    let names = layerize::fsio::sorted_names(&place.store().join("store")).unwrap();
    let is_new = |name: &std::ffi::OsString| {
        let name = name.to_string_lossy();
        name.ends_with("-crate-two-1.0.0") || name.ends_with("-prog-1.0") || name.ends_with("-prog-dependencies")
    };
    assert!(!names.iter().any(is_new), "{names:?}");

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

#[test]
fn a_checksum_that_is_no_hash_of_the_file_is_told() {
    let place = project();
    place.run(&["lock"]).success();
    let text = fs::read_to_string(place.project.join("Cargo.lock")).unwrap();

    // The lock has another checksum than the file of that name; it is nowhere.
    let checksum = text.lines().rfind(|line| line.starts_with("checksum")).unwrap();
    place.write(
        "Cargo.lock",
        &text.replace(checksum, &format!("checksum = \"{}\"", "1".repeat(64))),
    );
    place
        .run(&["build", "prog"])
        .exits(2)
        .says(&["crate:two", "two-1.0.0.crate", "1111111111"]);
    place.write("Cargo.lock", &text.replace(checksum, "checksum = \"abc\""));
    place
        .run(&["build", "prog"])
        .exits(2)
        .says(&["the checksum of `two 1.0.0` is no SHA-256"]);

    // An entry lost its checksum.
    place.write("Cargo.lock", &text.replace(checksum, ""));
    place
        .run(&["build", "prog"])
        .exits(2)
        .says(&["`two 1.0.0` has no checksum", "Cargo.lock"]);
    let names = layerize::fsio::sorted_names(&place.store().join("store")).unwrap();
    let is_new = |name: &std::ffi::OsString| name.to_string_lossy().contains("-crate-two-");
    assert!(!names.iter().any(is_new), "{names:?}");
}

/// Before anything is compiled: told by `lock`, and by a build whose lock is older.
#[test]
fn what_the_compiler_or_the_source_lacks_is_told_when_it_is_locked() {
    let place = project();
    place.write("rust-toolchain.toml", "[toolchain]\nchannel = \"1.999.0\"\n");
    let locked = place.run(&["lock"]).success();
    locked.says(&[
        "prog (rust), by default: tools deb:cargo-web",
        "libraries deb:libc6-dev",
        "script: `cargo build --locked`",
        "`rust-toolchain.toml` asks for Rust 1.999.0; it is compiled with the lock's `rustc-web`",
    ]);
    let lock = fs::read_to_string(place.project.join("layerize.lock")).unwrap();
    let package = |keys: &str| MANIFEST.replace("[dependencies]\n", &format!("{keys}\n"));
    for (manifest, said) in [
        (
            MANIFEST.replace("edition = \"2021\"\n", "edition = \"2021\"\nrust-version = \"1.999\"\n"),
            [
                "it needs Rust 1.999, and the lock's `rustc-web` is 1.",
                "layerize lock --update rustc-web",
            ],
        ),
        (
            package("[dependencies]\nfar = { path = \"../far\" }"),
            [
                "`../far` lies outside the source",
                "let `source` be a directory that holds both",
            ],
        ),
        (
            package("[dependencies]\nnear = { path = \"near\" }"),
            ["`near` is not in the source", "Cargo.toml"],
        ),
    ] {
        place.write("Cargo.toml", &manifest);
        for verb in ["lock", "build"] {
            place.run(&[verb]).exits(2).says(&said);
        }
        assert_eq!(fs::read_to_string(place.project.join("layerize.lock")).unwrap(), lock);
    }
}
