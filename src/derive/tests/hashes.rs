//! Tests of what is hashed: nothing that matters is left out, nothing else is in, and it is what it was.

use super::*;
use crate::digest::{ContentDigest, GoHash};

/// These texts and hashes are format 1: a change here rebuilds everything that was ever built.
#[test]
fn resolved_texts_and_hashes_are_what_they_were() {
    let workspace = workspace();
    let plan = plan_of(&workspace, &lock_for(&workspace));
    let paths = paths(&plan);
    let mut text = String::new();
    for step in &plan.steps {
        let json = resolved_json(step, &|input| path_of(&paths, input));
        let fixed = fixed_path(step).map_or("not fixed".to_owned(), |path| path.to_string());
        let _ = writeln!(
            text,
            "{} ({fixed})\n{}\n{json}\n",
            step.label,
            Digest::of(json.as_bytes())
        );
    }
    check_golden("resolved.txt", &text);
}

#[test]
fn a_script_is_read_back_from_its_text_and_a_download_is_not() {
    let workspace = workspace();
    let plan = plan_of(&workspace, &lock_for(&workspace));
    let paths = paths(&plan);
    let own = |input: &Input| match input {
        Input::Path(path) => path.clone(),
        Input::Step(_) => unreachable!("what is read back has paths alone"),
    };
    let mut scripts = 0;
    for step in &plan.steps {
        let json = resolved_json(step, &|input| path_of(&paths, input));
        let read = recorded(&json);
        assert_eq!(
            read.is_some(),
            matches!(step.action, Action::Script(_)),
            "{}",
            step.label
        );
        let Some(read) = read else { continue };
        assert_eq!(resolved_json(&read, &own), json);
        // Of other rules nothing is guessed.
        assert_eq!(recorded(&json.replace("\"format\":1", "\"format\":2")), None);
        assert_eq!(recorded(&json.replace("\"tools\":", "\"further\":1,\"tools\":")), None);
        scripts += 1;
    }
    assert!(scripts > 0);
}

#[test]
fn where_things_come_from_changes_nothing() {
    let spec = workspace();
    let lock = lock_for(&spec);
    let before = texts(&plan_of(&spec, &lock));
    let moved = load(&|text| text.replace("files.invalid/data-7.tar.gz?mirror=1", "other.invalid/x/y.tgz"));
    assert_eq!(texts(&plan_of(&moved, &lock)), before);
    let patient = load(&|text| text.replace("5m", "6m"));
    assert_eq!(texts(&plan_of(&patient, &lock)), before);
    let mut mirrored = lock;
    for deb in mirrored.debs.values_mut() {
        deb.filename = format!("elsewhere/{}", deb.filename);
        deb.size += 1;
        deb.source.1.push_str("+x");
    }
    for source in mirrored.deb_sources.values_mut() {
        source.directory.push_str("/moved");
        source.version.push_str("+x");
    }
    mirrored.urls.values_mut().for_each(|url| url.size += 1);
    assert_eq!(texts(&plan_of(&spec, &mirrored)), before);
}

/// A path for each number.
fn numbered(n: u8) -> Input {
    Input::Path(StorePath::new(StoreHash::from_bytes([n; 20]), "x").unwrap())
}

/// A script in which no field is empty that decides anything.
fn full_script() -> Script {
    let path = numbered;
    Script {
        script: "make".to_owned(),
        env: [("A".to_owned(), "1".to_owned())].into(),
        system: "x86_64-linux".to_owned(),
        target: None,
        source: Some(path(1)),
        source_file: None,
        debian_patches: false,
        root: vec![path(2), path(3)],
        tools: vec![path(4), path(5)],
        libraries: vec![path(6), path(7)],
        runtime: vec![path(8), path(9)],
        declared: [(path(2), [path(3)].into())].into(),
        no_references: vec![path(4)],
        strip_references: vec![path(5)],
        mounts: [("/build/m".to_owned(), path(1))].into(),
        variables: [("V".to_owned(), path(1))].into(),
        emulator: None,
        prebuilt: false,
        names: [(path(4), "tool".to_owned())].into(),
        timeout_seconds: None,
        units: Some(Units {
            kind: UnitKind::Cargo,
            scope: Digest::of(b""),
            crates: BTreeMap::new(),
            members: None,
        }),
        cache_dirs: BTreeSet::new(),
    }
}

#[test]
fn whatever_can_change_an_output_changes_the_hash() {
    let path = numbered;
    let script = full_script();
    let step = |name: &str, script: Script| Derivation {
        label: "x".to_owned(),
        name: name.to_owned(),
        action: Action::Script(Box::new(script)),
    };
    let text = |step: &Derivation| {
        resolved_json(step, &|input| match input {
            Input::Path(path) => path.clone(),
            Input::Step(_) => unreachable!(),
        })
    };
    let changed = |change: &dyn Fn(&mut Script)| {
        let mut script = script.clone();
        change(&mut script);
        text(&step("x", script))
    };
    let original = text(&step("x", script.clone()));
    let all = [
        original.clone(),
        text(&step("y", script.clone())),
        changed(&|script| script.script.push(' ')),
        changed(&|script| drop(script.env.insert("B".to_owned(), String::new()))),
        changed(&|script| drop(script.env.insert("A".to_owned(), "2".to_owned()))),
        changed(&|script| script.env.clear()),
        changed(&|script| script.system = "aarch64-linux".to_owned()),
        changed(&|script| script.target = Some("aarch64-linux".to_owned())),
        changed(&|script| script.source = None),
        changed(&|script| script.source = Some(path(2))),
        changed(&|script| script.source_file = Some("a b".to_owned())),
        changed(&|script| script.debian_patches = true),
        changed(&|script| script.root.reverse()),
        changed(&|script| drop(script.root.pop())),
        changed(&|script| script.tools.reverse()),
        changed(&|script| drop(script.tools.pop())),
        changed(&|script| script.libraries.reverse()),
        changed(&|script| drop(script.libraries.pop())),
        changed(&|script| drop(script.runtime.pop())),
        changed(&|script| script.no_references.push(path(5))),
        changed(&|script| script.strip_references.push(path(4))),
        changed(&|script| script.mounts.clear()),
        changed(&|script| drop(script.mounts.insert("/build/m".to_owned(), path(2)))),
        changed(&|script| drop(script.mounts.insert("/build/n".to_owned(), path(1)))),
        changed(&|script| script.variables.clear()),
        changed(&|script| drop(script.variables.insert("V".to_owned(), path(2)))),
        changed(&|script| drop(script.variables.insert("W".to_owned(), path(1)))),
        changed(&|script| script.declared.clear()),
        changed(&|script| drop(script.declared.insert(path(3), [path(2)].into()))),
        changed(&|script| drop(script.declared.insert(path(2), [path(3), path(4)].into()))),
    ];
    let distinct: BTreeSet<&String> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
    assert_eq!(
        changed(&|script| script.runtime.reverse()),
        original,
        "a set has no order"
    );
    assert_eq!(changed(&|script| script.timeout_seconds = Some(1)), original);
    assert_eq!(
        changed(&|script| script.cache_dirs = BTreeSet::from(["/build/c".to_owned()])),
        original
    );
    assert_eq!(changed(&|script| script.emulator = Some(path(1))), original);
    assert_eq!(changed(&|script| script.prebuilt = true), original);
    assert_eq!(changed(&|script| script.units = None), original);
    assert_eq!(changed(&|script| script.names.clear()), original);
}

fn crates(archive: Download, name: &str) -> Action {
    Action::UnpackGitCrates {
        archive,
        crates: vec![CrateName {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
        }],
    }
}

#[test]
fn every_kind_of_download_is_known_by_its_digest() {
    let download = |name: &str, seed: &str| Download {
        name: name.to_owned(),
        hash: Digest::of(seed.as_bytes()).into(),
        size: Some(seed.len() as u64),
        origin: Origin::Url(format!("https://{seed}.invalid")),
    };
    let deb = |package: &str, download| Action::UnpackDeb {
        deb: download,
        package: package.to_owned(),
    };
    let unpack = |archive, strip| Action::Unpack {
        archive,
        strip,
        or_keep: false,
    };
    let source = |files| Action::UnpackDebSource {
        files,
        package: "x".to_owned(),
    };
    let text = |action: Action| {
        let step = Derivation {
            label: "x".to_owned(),
            name: "x".to_owned(),
            action,
        };
        resolved_json(&step, &|_| unreachable!())
    };
    let a = || download("a", "a");
    let all = [
        text(Action::Fetch(a())),
        text(Action::Fetch(download("a", "b"))),
        text(unpack(a(), None)),
        text(unpack(a(), Some(0))),
        text(unpack(a(), Some(1))),
        text(unpack(download("a", "b"), None)),
        text(deb("x", a())),
        text(deb("y", a())),
        text(deb("x", download("a", "b"))),
        text(source(vec![a()])),
        text(source(vec![download("b", "a")])),
        text(source(vec![a(), download("b", "b")])),
        text(Action::Restore(a())),
        text(Action::Restore(download("a", "b"))),
        text(crates(a(), "x")),
        text(crates(a(), "y")),
        text(crates(download("a", "b"), "x")),
    ];
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    let kept = Action::Unpack {
        archive: a(),
        strip: None,
        or_keep: true,
    };
    assert!(
        !all.contains(&text(kept)),
        "another output, where the file is not an archive"
    );
    let elsewhere = || Download {
        origin: Origin::Url("file:///x".to_owned()),
        size: None,
        ..a()
    };
    assert_eq!(text(Action::Fetch(elsewhere())), all[0]);
    assert_eq!(text(unpack(elsewhere(), None)), all[2]);
    assert_eq!(text(deb("x", elsewhere())), all[6]);
    assert_eq!(text(source(vec![elsewhere()])), all[9]);
    assert_eq!(text(Action::Restore(elsewhere())), all[12]);
    assert_eq!(text(crates(elsewhere(), "x")), all[14]);
}

/// Files that locks of languages know by other hashes than SHA-256.
#[test]
fn every_kind_of_hash_has_a_key_of_its_own() {
    let go = GoHash::of_files([]).unwrap();
    let download = |hash: FileHash| Download {
        name: "a".to_owned(),
        hash,
        size: None,
        origin: Origin::Url("file:///x".to_owned()),
    };
    let module = |module: &str, version: &str| Action::UnpackGoModule {
        zip: download(FileHash::GoModule(go)),
        module: module.to_owned(),
        version: version.to_owned(),
    };
    let text = |action: Action| {
        let step = Derivation {
            label: "x".to_owned(),
            name: "x".to_owned(),
            action,
        };
        assert_eq!(
            fixed_path(&step),
            None,
            "one content has one path, whatever it is known by"
        );
        resolved_json(&step, &|_| unreachable!())
    };
    let all = [
        text(Action::Fetch(download(ContentDigest::Sha512([7; 64]).into()))),
        text(Action::Fetch(download(FileHash::GoMod(go)))),
        text(module("m", "v1")),
        text(module("m", "v2")),
        text(module("n", "v1")),
    ];
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    for (index, key) in [
        (0, format!("\"sha512\":\"{}\"", "07".repeat(64))),
        (1, "\"go-mod-h1\":\"e3b0c442".to_owned()),
        (2, "\"go-h1\":\"e3b0c442".to_owned()),
    ] {
        assert!(all[index].contains(&key), "{}", all[index]);
    }
}
