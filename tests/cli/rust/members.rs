//! A workspace of which an edit compiles what it changes, and what is compiled of what may read any file; with the same bytes.

use std::collections::BTreeSet;
use std::fs;

use super::units::{build, set};
use crate::support::{Place, RUST};

const SPEC: &str = r#"[package.prog]
version = "1.0"
source = { path = ".", include = ["src/**", "crates/**", "Cargo.*", "motto.txt"] }
rust = { profile = "dev", features = [] }

[image.app]
contents = ["prog"]
entrypoint = ["prog"]
"#;

/// `mid` needs `leaf`, `calm` the macro `mac`, `uses` the macro `loud`, which reads a file, as the build script of `made` does:
/// both a file of `mac`. `side` is compiled from a file that is in no member.
const FILES: &[(&str, &str)] = &[
    ("layerize.toml", SPEC),
    ("motto.txt", "first motto"),
    (
        "Cargo.toml",
        "[package]\nname = \"prog\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[features]\nmore = [\"leaf/more\"]\n\
         [dependencies]\n\
         leaf = { path = \"crates/leaf\" }\nmid = { path = \"crates/mid\" }\nside = { path = \"crates/side\" }\n\
         made = { path = \"crates/made\" }\nuses = { path = \"crates/uses\" }\ncalm = { path = \"crates/calm\" }\n\
         [workspace]\nmembers = [\"crates/*\"]\n",
    ),
    (
        "src/main.rs",
        "fn main() {\n    println!(\"{} {} {} {} {}\", mid::mid(), side::side(), made::made(), uses::uses(), calm::calm());\n}\n",
    ),
    (
        "crates/leaf/src/lib.rs",
        "pub fn leaf() -> &'static str { include_str!(\"word\") }\n",
    ),
    ("crates/leaf/src/word", "word of leaf"),
    (
        "crates/mid/src/lib.rs",
        "pub fn mid() -> String { format!(\"<{}>\", leaf::leaf()) }\n",
    ),
    (
        "crates/side/src/lib.rs",
        "pub fn side() -> &'static str { concat!(include_str!(\"../../../motto.txt\"), include_str!(\"word\")) }\n",
    ),
    ("crates/side/src/word", "word of side"),
    (
        "crates/made/src/lib.rs",
        "pub fn made() -> &'static str { env!(\"DATA\") }\n",
    ),
    (
        "crates/made/build.rs",
        "fn main() {\n    println!(\"cargo:rustc-env=DATA={}\", std::fs::read_to_string(\"../mac/data\").unwrap());\n}\n",
    ),
    ("crates/mac/data", "first data"),
    ("crates/mac/table", "first table"),
    (
        "crates/mac/src/lib.rs",
        "use proc_macro::TokenStream;\n#[proc_macro]\npub fn five(_: TokenStream) -> TokenStream { \"5\".parse().unwrap() }\n",
    ),
    ("crates/calm/src/lib.rs", "pub fn calm() -> u32 { mac::five!() }\n"),
    (
        "crates/loud/src/lib.rs",
        "use proc_macro::TokenStream;\n#[proc_macro]\npub fn table(_: TokenStream) -> TokenStream {\n    \
         let path = format!(\"{}/../mac/table\", std::env::var(\"CARGO_MANIFEST_DIR\").unwrap());\n    \
         format!(\"{:?}\", std::fs::read_to_string(path).unwrap()).parse().unwrap()\n}\n",
    ),
    (
        "crates/uses/src/lib.rs",
        "pub fn uses() -> &'static str { loud::table!() }\n",
    ),
];

/// The members with what else their manifests say, and what they need.
const MEMBERS: &[(&str, &str, &[&str])] = &[
    ("calm", "", &["mac"]),
    ("leaf", "[features]\nmore = []\n", &[]),
    ("loud", "[lib]\nproc-macro = true\n", &[]),
    ("mac", "[lib]\nproc-macro = true\n", &[]),
    ("made", "", &[]),
    ("mid", "", &["leaf"]),
    ("prog", "", &["calm", "leaf", "made", "mid", "side", "uses"]),
    ("side", "", &[]),
    ("uses", "", &["loud"]),
];

/// What every build compiles: what is made with files of which no compiler tells.
const ALWAYS: &[&str] = &["made", "prog", "uses"];

fn workspace() -> Place {
    let place = Place::new();
    place.take_debs(RUST);
    for (path, text) in FILES {
        place.write(path, text);
    }
    for (name, text, needs) in MEMBERS.iter().filter(|(name, _, _)| *name != "prog") {
        let needs = needs
            .iter()
            .map(|name| format!("{name} = {{ path = \"../{name}\" }}\n"));
        let manifest = format!(
            "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n{text}[dependencies]\n{}",
            needs.collect::<String>()
        );
        place.write(&format!("crates/{name}/Cargo.toml"), &manifest);
    }
    place.write("Cargo.lock", &lock("side"));
    place
}

/// The lock file, with `side` by this name.
fn lock(side: &str) -> String {
    let mut entries: Vec<String> = (MEMBERS.iter())
        .map(|(name, _, needs)| {
            let named = |name: &str| {
                if name == "side" {
                    side.to_owned()
                } else {
                    name.to_owned()
                }
            };
            let mut needs: Vec<String> = needs.iter().map(|name| format!(" \"{}\",\n", named(name))).collect();
            needs.sort();
            let needs = match needs.is_empty() {
                true => String::new(),
                false => format!("dependencies = [\n{}]\n", needs.concat()),
            };
            format!(
                "\n[[package]]\nname = \"{}\"\nversion = \"0.1.0\"\n{needs}",
                named(name)
            )
        })
        .collect();
    entries.sort();
    format!("version = 4\n{}", entries.concat())
}

/// Those that every build compiles, and these.
fn and(names: &[&str]) -> BTreeSet<String> {
    &set(ALWAYS) | &set(names)
}

/// Builds; gives what was compiled, where it is, and whether it says each of `texts`.
fn built(place: &Place, texts: &[&str]) -> (BTreeSet<String>, String) {
    let (compiled, path, _) = build(place, "prog");
    let name = path.rsplit('/').next().unwrap();
    let program = fs::read(place.store().join("store").join(name).join("bin/prog")).unwrap();
    let program = String::from_utf8_lossy(&program);
    for text in texts {
        assert!(program.contains(text), "{text}");
    }
    (compiled, path)
}

#[test]
fn an_edit_compiles_what_it_changes() {
    let place = workspace();
    place.run(&["lock"]).success();
    let cold = place.run(&["build", "prog", "--verbose"]).success();
    for (name, reason) in [
        ("made", "the build script of `made` may read any file"),
        ("uses", "macros of `loud` may read any file"),
    ] {
        let told = format!("`{name}` is compiled anew after each edit: {reason}");
        assert!(cold.stderr.contains(&told), "{}", cold.stderr);
    }
    assert!(!cold.stderr.contains("`calm` is compiled anew"), "{}", cold.stderr);

    // New times are no edit.
    place.write("src/main.rs", FILES[3].1);
    assert_eq!(built(&place, &[]).0, set(&[]));
    place.write(
        "src/main.rs",
        &FILES[3].1.replace("main() {", "main() {\n    // edited"),
    );
    assert_eq!(built(&place, &["first motto"]).0, and(&[]));

    // What a member is compiled from, wherever it is; and the same bytes as where nothing was there before.
    place
        .write("crates/leaf/src/word", "other word")
        .write("motto.txt", "second motto");
    let (compiled, path) = built(&place, &["other word", "second motto"]);
    assert_eq!(compiled, and(&["leaf", "mid", "side"]));
    let elsewhere = workspace();
    for path in ["src/main.rs", "crates/leaf/src/word", "motto.txt", "layerize.lock"] {
        fs::copy(place.project.join(path), elsewhere.project.join(path)).unwrap();
    }
    let (compiled, cold) = built(&elsewhere, &[]);
    assert_eq!(compiled.len(), MEMBERS.len());
    assert_eq!(path, cold);
    place.run(&["check", "prog"]).success();

    // What only a build script and a macro read. What was compiled once is known still.
    place
        .write("crates/mac/data", "second data")
        .write("crates/mac/table", "second table")
        .write("motto.txt", "first motto");
    let (compiled, _) = built(&place, &["second data", "second table", "first motto"]);
    assert_eq!(compiled, and(&["calm", "mac"]));
}

/// A macro's text counts in whatever file it is.
#[test]
fn what_a_macro_reads_is_read_again_though_no_file_of_rust_s_says_so() {
    let place = workspace();
    let reads = "fn read() -> String {\n    std::fs::read_to_string(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/../mac/table\")).unwrap()\n}\n";
    let text = |elsewhere: &str, call: &str| {
        format!(
            "use proc_macro::TokenStream;\n{elsewhere}\n#[proc_macro]\npub fn table(_: TokenStream) -> TokenStream {{\n    \
             format!(\"{{:?}}\", {call}()).parse().unwrap()\n}}\n"
        )
    };
    place
        .write("crates/loud/src/code.inc", reads)
        .write("crates/loud/src/module.tmpl", &format!("pub {reads}"));
    for (number, (elsewhere, call)) in [
        ("include!(\"code.inc\");", "read"),
        ("#[path = \"module.tmpl\"]\nmod module;", "module::read"),
    ]
    .into_iter()
    .enumerate()
    {
        place.write("crates/loud/src/lib.rs", &text(elsewhere, call));
        for time in ["first", "second"] {
            let table = format!("{time} table of {number}");
            place.write("crates/mac/table", &table);
            built(&place, &[&table]);
        }
    }
}

#[test]
fn members_change_their_places_and_features() {
    let place = workspace();
    place.run(&["lock"]).success();
    assert_eq!(built(&place, &["word of leaf", "word of side"]).0.len(), MEMBERS.len());

    // Two files change places, and a mistake is told once.
    let at = |path: &str| place.project.join(path);
    fs::rename(at("crates/leaf/src/word"), at("word")).unwrap();
    fs::rename(at("crates/side/src/word"), at("crates/leaf/src/word")).unwrap();
    fs::rename(at("word"), at("crates/side/src/word")).unwrap();
    place.write("src/main.rs", "fn main() { mistake }\n");
    let failed = place.run(&["build", "prog"]).exits(2);
    assert!(failed.stderr.contains("mistake"), "{}", failed.stderr);
    assert!(!failed.stderr.contains("it is run again without"), "{}", failed.stderr);
    place.write("src/main.rs", FILES[3].1);
    let (compiled, _) = built(&place, &["first mottoword of leaf"]);
    assert_eq!(compiled, and(&["leaf", "mid", "side"]));

    // Another feature, and back.
    place.write("layerize.toml", &SPEC.replace("[] }", "[\"more\"] }"));
    assert_eq!(built(&place, &[]).0, and(&["leaf", "mid"]));
    place.write("layerize.toml", SPEC);
    place.write(
        "src/main.rs",
        &FILES[3].1.replace("main() {", "main() {\n    // edited"),
    );
    assert_eq!(built(&place, &[]).0, and(&[]));

    // Another name and place.
    fs::rename(at("crates/side"), at("crates/apart")).unwrap();
    let rename = |path: &str, from: &str, to: &str| {
        place.write(path, &fs::read_to_string(at(path)).unwrap().replace(from, to));
    };
    rename("crates/apart/Cargo.toml", "\"side\"", "\"apart\"");
    rename(
        "Cargo.toml",
        "side = { path = \"crates/side\" }",
        "apart = { path = \"crates/apart\" }",
    );
    rename("src/main.rs", "side::side()", "apart::side()");
    place.write("Cargo.lock", &lock("apart"));
    assert_eq!(built(&place, &[]).0, and(&["apart"]));

    // Code that runs while others are compiled could have changed all of them.
    rename("crates/made/build.rs", "fn main", "// edited\nfn main");
    assert_eq!(built(&place, &[]).0.len(), MEMBERS.len());
}
