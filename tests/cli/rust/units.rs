//! Dependencies compiled crate by crate: what changed and what depends on it, and nothing else, with the same bytes.

use std::collections::BTreeSet;
use std::fs;

use super::{Crate, cargo_lock, project, put};
use crate::support::Place;

/// `one` needs `two`, which has a build script; `top` needs `leaf`, and has one that does not.
fn crates(leaf: &str, script: &str) -> Vec<Crate<'static>> {
    let text = |text: &str| -> &'static str { Box::leak(text.to_owned().into_boxed_str()) };
    let mut crates = super::good_crates();
    crates[1].files[0].1 = text(&format!("{script}{}", crates[1].files[0].1));
    crates.push(Crate {
        name: "leaf",
        manifest: "",
        files: vec![("src/lib.rs", text(&format!("pub fn leaf() -> u32 {{ {leaf} }}\n")))],
    });
    crates.push(Crate {
        name: "other",
        manifest: "",
        files: vec![("src/lib.rs", "pub fn other() -> u32 { 5 }\n")],
    });
    crates.push(Crate {
        name: "top",
        manifest: "build = \"build.rs\"\n[dependencies]\nleaf = \"1\"\n",
        files: vec![
            ("build.rs", "fn main() {}\n"),
            ("src/lib.rs", "pub fn top() -> u32 { leaf::leaf() }\n"),
        ],
    });
    crates
}

/// A project over these crates.
fn over(crates: &[Crate<'_>]) -> Place {
    let place = project();
    let manifest = super::MANIFEST.replace("one = \"1\"\n", "one = \"1\"\nother = \"1\"\ntop = \"1\"\n");
    place.write("Cargo.toml", &manifest).write(
        "src/main.rs",
        "fn main() { println!(\"{} {} {} {}\", one::one(), other::other(), top::top(), helper::number()); }\n",
    );
    renew(&place, crates);
    place
}

fn renew(place: &Place, crates: &[Crate<'_>]) {
    put(place, crates);
    place.write("Cargo.lock", &cargo_lock(crates, &["one", "other", "top"]));
}

/// Builds, and gives the crates that were compiled on the way, and where the outputs are.
pub(super) fn build(place: &Place, package: &str) -> (BTreeSet<String>, String, BTreeSet<String>) {
    let names = |dir: &str| -> BTreeSet<String> {
        let names = layerize::fsio::sorted_names(&place.store().join(dir)).unwrap_or_default();
        names.into_iter().map(|name| name.into_string().unwrap()).collect()
    };
    let (logs, paths) = (names("log"), names("store"));
    let path = place.run(&["build", package]).success().line().to_owned();
    let new_logs = names("log");
    let text: String = (new_logs.difference(&logs))
        .map(|name| fs::read_to_string(place.store().join("log").join(name)).unwrap())
        .collect();
    let compiled = text.lines().filter_map(|line| line.trim().strip_prefix("Compiling "));
    let compiled = compiled.map(|rest| rest.split(' ').next().unwrap().to_owned());
    let dependencies = names("store")
        .difference(&paths)
        .filter(|name| name.ends_with("-dependencies"))
        .cloned()
        .collect();
    (compiled.collect(), path, dependencies)
}

pub(super) fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_changed_crate_recompiles_itself_and_what_depends_on_it() {
    let place = over(&crates("3", ""));
    place.run(&["lock"]).success();
    let (compiled, first, _) = build(&place, "prog");
    assert_eq!(compiled, set(&["helper", "leaf", "one", "other", "prog", "top", "two"]));

    // Another leaf.
    let new = crates("4", "");
    renew(&place, &new);
    let (compiled, second, dependencies) = build(&place, "prog");
    assert_eq!(compiled, set(&["helper", "leaf", "prog", "top"]));
    assert_ne!(first, second);
    let elsewhere = over(&new);
    fs::copy(
        place.project.join("layerize.lock"),
        elsewhere.project.join("layerize.lock"),
    )
    .unwrap();
    let (compiled, cold, cold_dependencies) = build(&elsewhere, "prog");
    assert_eq!(compiled.len(), 7);
    assert_eq!(
        (second, dependencies),
        (cold, cold_dependencies),
        "as if nothing had been there"
    );
    // What is checked is compiled anew, whole.
    place.run(&["check", "prog"]).success();

    // The next project in this store.
    place.write(
        "layerize.toml",
        &super::SPEC
            .replace("[package.prog]", "[package.next]")
            .replace("\"prog\"]", "\"next\"]"),
    );
    let (compiled, _, _) = build(&place, "next");
    assert_eq!(compiled, set(&["helper", "prog"]));
    place.write("layerize.toml", super::SPEC);

    // Code that runs while others are compiled could have changed all of them.
    renew(&place, &crates("4", "// another script\n"));
    let (compiled, _, _) = build(&place, "prog");
    assert_eq!(compiled.len(), 7, "{compiled:?}");

    // What is damaged is not used.
    let units = place.store().join("cache/units");
    let mut damaged = 0;
    for scope in layerize::fsio::sorted_names(&units).unwrap() {
        for key in layerize::fsio::sorted_names(&units.join(&scope)).unwrap() {
            let dir = units.join(&scope).join(key);
            for name in layerize::fsio::sorted_names(&dir).unwrap() {
                let file = dir.join(name);
                if file.extension().is_some_and(|end| end == "nar") {
                    let mut bytes = fs::read(&file).unwrap();
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                    fs::write(&file, bytes).unwrap();
                    damaged += 1;
                }
            }
        }
    }
    assert!(damaged >= 5, "{damaged}");
    renew(&place, &crates("6", "// another script\n"));
    let (compiled, _, _) = build(&place, "prog");
    assert_eq!(compiled.len(), 7, "{compiled:?}");
}
