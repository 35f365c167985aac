//! The *resolved derivation*: a step with its inputs' actual store paths, as the text whose hash decides
//! whether it was done before.
//!
//! Invariant: two steps that would give the same output have the same text wherever and however they are
//! asked for; two that might not have different ones.
//!
//! # The text, format 1
//!
//! JSON in one line: keys sorted by bytes, no white space, integers only, strings escaped as RFC 8259 demands
//! and no further (`\"`, `\\`, `\b \t \n \f \r`, `\u00xx` in lower case for other control characters; all else
//! as UTF-8). An absent value is `null`. Store paths stand in full.
//!
//! ```json
//! {"action":{…},"format":1,"name":"hello-2.10","store":"/layerize/store"}
//! ```
//!
//! `action.kind` is one of
//!
//! | kind | further keys |
//! |---|---|
//! | `fetch` | *hash* |
//! | `unpack`, `unpack-or-keep` | *hash*, `strip` |
//! | `unpack-crate` | *hash* |
//! | `unpack-git-crates` | `crates` (name and version of each), `narSha256`, `rules` |
//! | `unpack-npm` | `at` where it is not the tree, *hash* |
//! | `unpack-npm-repository` | `at` likewise, `narSha256`, `rules` |
//! | `unpack-deb` | `package` (it names files in the output), `rules`, *hash* |
//! | `unpack-deb-control` | `package`, *hash* |
//! | `unpack-go-module` | `module`, `version` (both stand in the names of the zip's files), *hash* |
//! | `unpack-deb-source` | `files`: digest by file name, as the `.dsc` refers to names |
//! | `unpack-emulator` | `debs`: digests in the order in which they are looked into; `programs` |
//! | `deb-part` | `part`: `c.utf-8`, `authorities`, or the `zone`; `tree` |
//! | `configure` | `answers`, `certificates` where there are any, `groups`, `incomplete` where it is, `locales`, `rules`, `skip`, `system`, `tools` |
//! | `debug-tools` | `packages` (name and tree of each), `rules` |
//! | `debug-info` | `output`, `rules`, `source`, `sourceFile` |
//! | `script` | `debianPatches`, `declared`, `env`, `libraries`, `root`, `runtime`, `sandbox`, `script`, `source`, `system`, `tools` |
//!
//! *hash* is what the file from outside is verified against, in hexadecimal digits: `sha256`, or else `sha512`, `go-h1` (of
//! the files in a module's zip) or `go-mod-h1` (of a `go.mod`).
//!
//! **In** is all that can change the output: the name and the store's directory (both are part of the path
//! that a build may write into its output), what is unpacked by its digest, and of a script its text, its
//! variables, the machine, the rules of its sandbox ([`SANDBOX_FORMAT`]) and the store paths of its inputs.
//! `root`, `tools` and `libraries` keep their order, as it decides which of two files of one name is found;
//! `runtime`, `declared`, `noReferences` and `stripReferences` are sets and are sorted; the last two stand there only where
//! they are not empty, as do `mounts` and `variables`, which give a store path by where it is found too, and `target`, the machine that compilers are told to
//! compile for. `declared` is in because it becomes references of the
//! output, though it changes no byte of it.
//!
//! **Out** is what cannot: the emulator that runs a script for another processor, as the script is to make the same on that
//! processor itself; where a download comes from (URL, mirror, pool path, size: its digest says it all;
//! its file name only where a script sees it, as the name of a single file), a Debian package's version (it is in the package), labels, how long a script may run and on
//! how many cores. And inputs stand by their *content-addressed* paths: an input that was rebuilt to the same
//! content does not count as changed.
//!
//! Any change to this text or to what the actions do is a new [`FORMAT`]; `fixtures/derive/` holds texts and
//! hashes that may never change within one.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::digest::Digest;
use crate::oci::canonical_json;
use crate::store_path::{StoreDir, StorePath, content_addressed, fixed_file};

use super::{Action, Configure, ConfiguredDeb, Derivation, Download, Input, Part, Script};

/// Number of the rules by which derivations are hashed and built; part of every derivation's hash.
pub const FORMAT: u32 = 1;

/// Number of the rules of the sandbox that scripts can observe (mounts, variables, host name, IDs, clock); part
/// of every script's hash.
pub const SANDBOX_FORMAT: u32 = 1;

/// Number of the rules by which maintainer scripts are run and what they make is sifted; part of every such step's hash.
pub const CONFIGURE_FORMAT: u32 = 8;

/// Number of the rules by which tools are linked to each other and debug files and sources are found; part of the hash of
/// every step of a debug image.
pub const DEBUG_FORMAT: u32 = 1;

/// Number of the rules by which Debian packages become trees; part of every such step's hash.
const UNPACK_DEB_FORMAT: u32 = 3;

/// Number of the rules by which packages of a repository are laid out for Cargo; part of every such step's hash.
const UNPACK_GIT_CRATES_FORMAT: u32 = 1;

/// Number of the rules by which a repository becomes a package of npm's; part of every such step's hash.
const UNPACK_NPM_REPOSITORY_FORMAT: u32 = 1;

/// The text whose SHA-256 is the resolved derivation's hash; `path` gives an input's store path.
pub fn resolved_json(derivation: &Derivation, path: &dyn Fn(&Input) -> StorePath) -> String {
    let dir = StoreDir::layerize();
    hashed_text(derivation, &|input| dir.join(&path(input)))
}

/// The *plan key* of each step: the hash of its text with every input named by its own plan key.
///
/// It is known before anything was fetched or built, and equal for equal plans on all machines. Equal plan keys give equal
/// outputs only as far as builds are reproducible; equal hashes of [resolved](resolved_json) derivations say more.
pub fn plan_keys(steps: &[Derivation]) -> Vec<Digest> {
    let dir = StoreDir::layerize();
    let mut keys: Vec<Digest> = Vec::with_capacity(steps.len());
    for step in steps {
        // The inputs of a step are earlier ones.
        let text = hashed_text(step, &|input| match input {
            Input::Step(id) => keys[*id].to_string(),
            Input::Path(path) => dir.join(path),
        });
        keys.push(Digest::of(text.as_bytes()));
    }
    keys
}

/// The path of a fixed output, known before it is fetched (`nix-store --add-fixed sha256`); `None` for a step
/// whose output is not fixed, or is by another hash: one content has one path, whichever hash it was asked for by.
pub fn fixed_path(derivation: &Derivation) -> Option<StorePath> {
    match &derivation.action {
        Action::Fetch(download) => fixed_file(&StoreDir::layerize(), &derivation.name, &download.hash.sha256()?).ok(),
        Action::Restore(download) => content_addressed(
            &StoreDir::layerize(),
            &derivation.name,
            &download.hash.sha256()?,
            &BTreeSet::new(),
            false,
        )
        .ok(),
        Action::Unpack { .. }
        | Action::UnpackCrate { .. }
        | Action::UnpackGitCrates { .. }
        | Action::UnpackNpm { .. }
        | Action::UnpackDeb { .. }
        | Action::UnpackDebControl { .. }
        | Action::UnpackDebSource { .. }
        | Action::UnpackEmulator { .. }
        | Action::UnpackGoModule { .. }
        | Action::DebPart { .. }
        | Action::Script(_)
        | Action::Configure(_)
        | Action::DebugTools { .. }
        | Action::DebugInfo(_) => None,
    }
}

/// What decides, beside a crate and those below it, how its units come out; `None` where none are kept.
pub fn unit_scope(script: &Script, path: &dyn Fn(&Input) -> StorePath) -> Option<Digest> {
    // What a language hands to its own part of the script is in the keys of units, as what is mounted is.
    let is_users = |(name, _): &(String, Input)| !name.starts_with("LAYERIZE_");
    let surroundings = Script {
        script: script.units.as_ref()?.scope.hex(),
        source: None,
        mounts: BTreeMap::new(),
        variables: script.variables.clone().into_iter().filter(is_users).collect(),
        ..script.clone()
    };
    let step = Derivation {
        label: String::new(),
        name: "units".to_owned(),
        action: Action::Script(Box::new(surroundings)),
    };
    Some(Digest::of(resolved_json(&step, path).as_bytes()))
}

/// The same text within one plan, inputs by their steps: equal for equal steps.
pub(super) fn step_key(derivation: &Derivation) -> String {
    hashed_text(derivation, &|input| match input {
        Input::Step(step) => format!("step {step}"),
        Input::Path(path) => path.to_string(),
    })
}

fn hashed_text(derivation: &Derivation, name: &dyn Fn(&Input) -> String) -> String {
    let document = json!({
        "action": action(&derivation.action, name),
        "format": FORMAT,
        "name": derivation.name,
        "store": StoreDir::LAYERIZE,
    });
    String::from_utf8(canonical_json(&document)).expect("JSON is UTF-8")
}

fn action(action: &Action, name: &dyn Fn(&Input) -> String) -> Value {
    match action {
        Action::Fetch(download) => of_file(json!({ "kind": "fetch" }), download),
        Action::Restore(download) => json!({ "kind": "restore", "narSha256": download.hash.hex() }),
        Action::Unpack {
            archive,
            strip,
            or_keep,
        } => {
            let kind = if *or_keep { "unpack-or-keep" } else { "unpack" };
            of_file(json!({ "kind": kind, "strip": strip }), archive)
        }
        Action::UnpackCrate { archive } => of_file(json!({ "kind": "unpack-crate" }), archive),
        Action::UnpackGitCrates { archive, crates } => {
            let crates: Vec<[&str; 2]> = crates.iter().map(|of| [&*of.name, &*of.version]).collect();
            let rules = UNPACK_GIT_CRATES_FORMAT;
            json!({ "kind": "unpack-git-crates", "crates": crates, "narSha256": archive.hash.hex(), "rules": rules })
        }
        Action::UnpackNpm {
            archive,
            repository,
            at,
        } => npm_action(archive, repository.is_some(), at.as_deref()),
        Action::UnpackDeb { deb, package } => {
            let action = json!({ "kind": "unpack-deb", "package": package, "rules": UNPACK_DEB_FORMAT });
            of_file(action, deb)
        }
        Action::UnpackDebControl { deb, package } => {
            of_file(json!({ "kind": "unpack-deb-control", "package": package }), deb)
        }
        Action::UnpackGoModule { zip, module, version } => {
            let action = json!({ "kind": "unpack-go-module", "module": module, "version": version });
            of_file(action, zip)
        }
        Action::UnpackDebSource { files, package: _ } => {
            let files: BTreeMap<&str, String> = (files.iter())
                .map(|file| (file.name.as_str(), file.hash.hex()))
                .collect();
            json!({ "kind": "unpack-deb-source", "files": files })
        }
        Action::UnpackEmulator { debs, programs } => {
            let debs: Vec<String> = debs.iter().map(|(_, deb)| deb.hash.hex()).collect();
            json!({ "kind": "unpack-emulator", "debs": debs, "programs": programs })
        }
        Action::DebPart { package: _, tree, part } => {
            let part = match part {
                Part::Utf8Locale => json!("c.utf-8"),
                Part::Zone(zone) => json!({ "zone": zone }),
                Part::Authorities => json!("authorities"),
            };
            json!({ "kind": "deb-part", "part": part, "tree": name(tree) })
        }
        Action::Script(script) => script_action(script, name),
        Action::Configure(configure) => configure_action(configure, name),
        Action::DebugTools { packages } => {
            let packages: Vec<Value> = packages
                .iter()
                .map(|(package, tree)| json!([package, name(tree)]))
                .collect();
            json!({ "kind": "debug-tools", "packages": packages, "rules": DEBUG_FORMAT })
        }
        Action::DebugInfo(info) => json!({
            "kind": "debug-info",
            "output": name(&info.output),
            "rules": DEBUG_FORMAT,
            "source": info.source.as_ref().map(name),
            "sourceFile": info.source_file,
        }),
    }
}

fn npm_action(archive: &Download, is_repository: bool, at: Option<&str>) -> Value {
    let mut action = match is_repository {
        false => of_file(json!({ "kind": "unpack-npm" }), archive),
        true => json!({
            "kind": "unpack-npm-repository",
            "narSha256": archive.hash.hex(),
            "rules": UNPACK_NPM_REPOSITORY_FORMAT,
        }),
    };
    if let Some(at) = at {
        action["at"] = json!(at);
    }
    action
}

/// `action` with the hash of the file from outside that it takes.
fn of_file(mut action: Value, file: &Download) -> Value {
    action[file.hash.scheme()] = json!(file.hash.hex());
    action
}

fn configure_action(configure: &Configure, name: &dyn Fn(&Input) -> String) -> Value {
    let packages = |packages: &[ConfiguredDeb]| -> Vec<Value> {
        let package = |deb: &ConfiguredDeb| json!([deb.name, name(&deb.tree), name(&deb.control)]);
        packages.iter().map(package).collect()
    };
    let tools = configure.tools.as_ref();
    let mut action = json!({
        "kind": "configure",
        "groups": configure.groups.iter().map(|group| packages(group)).collect::<Vec<_>>(),
        "rules": CONFIGURE_FORMAT,
        "skip": configure.skip,
        "answers": configure.answers,
        "locales": configure.locales.as_ref().map(|(package, names)| json!([name(package), names])),
        "system": configure.system,
        "tools": tools.map(|(output, of_tools)| json!({ "output": name(output), "packages": packages(of_tools) })),
    });
    if !configure.certificates.is_empty() {
        action["certificates"] = json!(configure.certificates);
    }
    if configure.incomplete {
        action["incomplete"] = json!(true);
    }
    action
}

fn script_action(script: &Script, name: &dyn Fn(&Input) -> String) -> Value {
    let list = |inputs: &[Input]| inputs.iter().map(name).collect::<Vec<_>>();
    let set = |inputs: &mut dyn Iterator<Item = &Input>| inputs.map(name).collect::<BTreeSet<_>>();
    // Two inputs may have one path: their declarations are those of that path.
    let mut declared: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (input, needed) in &script.declared {
        declared.entry(name(input)).or_default().extend(set(&mut needed.iter()));
    }
    let mut action = json!({
        "kind": "script",
        "debianPatches": script.debian_patches,
        "declared": declared,
        "env": script.env,
        "libraries": list(&script.libraries),
        "root": list(&script.root),
        "runtime": set(&mut script.runtime.iter()),
        "sandbox": SANDBOX_FORMAT,
        "script": script.script,
        "source": script.source.as_ref().map(name),
        "sourceFile": script.source_file,
        "system": script.system,
        "tools": list(&script.tools),
    });
    for (key, inputs) in [
        ("noReferences", &script.no_references),
        ("stripReferences", &script.strip_references),
    ] {
        if !inputs.is_empty() {
            action[key] = json!(set(&mut inputs.iter()));
        }
    }
    if let Some(target) = &script.target {
        action["target"] = json!(target);
    }
    for (key, inputs) in [("mounts", &script.mounts), ("variables", &script.variables)] {
        if !inputs.is_empty() {
            let named = inputs.iter().map(|(place, input)| (place, name(input)));
            action[key] = json!(named.collect::<BTreeMap<_, _>>());
        }
    }
    action
}
