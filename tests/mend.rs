//! A store that lost something: whoever needs it makes it again, and says so.
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod machine;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use layerize::build::{BuildError, make_recorded};
use layerize::derive::{BuildPlan, Input, Script};
use layerize::store_path::StorePath;
use machine::{Fixture, logical};

impl Fixture {
    /// `library`, and `user`, which refers to it.
    fn chain(&self, library: &str) -> BuildPlan {
        let user = Script {
            libraries: vec![Input::Step(0)],
            ..self.script("echo /layerize/store/*-library-1 >$out")
        };
        self.plan(vec![("library", self.script(library)), ("user", user)])
    }

    fn paths(&self, plan: &BuildPlan) -> Vec<StorePath> {
        let paths = self.realise(plan).unwrap();
        (0..plan.steps.len())
            .filter_map(|step| paths.get(&Input::Step(step)).cloned())
            .collect()
    }

    fn lose(&mut self, path: &StorePath) {
        layerize::fsio::remove_tree(&self.store.physical(path)).unwrap();
        self.reopen();
    }

    #[track_caller]
    fn assert_whole(&self, mended: &[&StorePath]) {
        assert_eq!(self.store.verify(true).unwrap(), []);
        let text = |path: &&StorePath| {
            let path = logical(path);
            format!("`{path}` was missing from the store or changed, and has been rebuilt")
        };
        assert_eq!(self.recorder.warnings(), mended.iter().map(text).collect::<Vec<_>>());
    }
}

#[test]
fn a_target_that_is_gone_is_made_again() {
    let mut fixture = Fixture::new();
    let plan = fixture.plan(vec![("pkg", fixture.script("echo made >$out"))]);
    let paths = fixture.paths(&plan);
    fixture.lose(&paths[0]);
    assert_eq!(fixture.paths(&plan), paths);
    assert_eq!(fixture.recorder.started(), ["pkg", "pkg"]);
    fixture.assert_whole(&[&paths[0]]);
}

#[test]
fn what_a_target_refers_to_is_made_again_and_the_target_is_not() {
    let mut fixture = Fixture::new();
    let plan = fixture.chain("echo library >$out");
    let paths = fixture.paths(&plan);
    fixture.lose(&paths[0]);
    assert_eq!(fixture.paths(&plan), paths);
    assert_eq!(fixture.recorder.started(), ["library", "user", "library"]);
    fixture.assert_whole(&[&paths[0]]);
    assert!(fixture.store.info(&paths[1]).unwrap().is_some());
}

#[test]
fn what_a_tool_refers_to_is_made_again_before_the_tool_is_used() {
    let mut fixture = Fixture::new();
    let mut plan = fixture.chain("echo library >$out");
    let paths = fixture.paths(&plan);
    fixture.lose(&paths[0]);
    let new = fixture.plan(vec![(
        "new",
        Script {
            tools: vec![Input::Step(1)],
            ..fixture.script("cat $(cat /layerize/store/*-user-1) >$out")
        },
    )]);
    plan.steps.extend(new.steps);
    let made = fixture.realise(&plan).unwrap()[&Input::Step(2)].clone();
    assert_eq!(fs::read_to_string(fixture.store.physical(&made)).unwrap(), "library\n");
    fixture.assert_whole(&[&paths[0]]);
}

#[test]
fn what_is_known_to_have_changed_is_made_again_in_place() {
    let fixture = Fixture::new();
    let plan = fixture.chain("mkdir $out; echo library >$out/f");
    let paths = fixture.paths(&plan);
    let file = fixture.store.physical(&paths[0]).join("f");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&file, "changed\n").unwrap();
    fixture.store.note_damage(&paths[0]);
    assert!(fixture.store.info(&paths[0]).unwrap().is_none(), "nobody is given it");
    assert_eq!(fixture.paths(&plan), paths);
    assert_eq!(fixture.read(&paths[0], "f"), "library\n");
    fixture.assert_whole(&[&paths[0]]);
}

#[test]
fn an_output_that_holds_its_path_for_good_is_made_again_at_it() {
    let mut fixture = Fixture::new();
    let plan = fixture.chain("mkdir $out; touch $out/${out##*/}");
    let paths = fixture.paths(&plan);
    fixture.lose(&paths[0]);
    assert_eq!(fixture.paths(&plan), paths);
    fixture.assert_whole(&[&paths[0]]);
    assert!(fixture.store.physical(&paths[0]).join(paths[0].to_string()).exists());
}

#[test]
fn what_comes_out_otherwise_has_its_users_made_anew() {
    let mut fixture = Fixture::new();
    let plan = fixture.chain("echo $RANDOM$RANDOM$RANDOM >$out");
    let before = fixture.paths(&plan);
    fixture.lose(&before[0]);
    let after = fixture.paths(&plan);
    assert!(before.iter().all(|path| !after.contains(path)), "{before:?} {after:?}");
    assert_eq!(fixture.recorder.started(), ["library", "user", "library", "user"]);
    fixture.assert_whole(&[]);
    let info = fixture.store.info(&after[1]).unwrap().unwrap();
    assert_eq!(info.references, BTreeSet::from([after[0].clone()]));
}

#[test]
fn what_nothing_makes_is_named_with_what_to_type() {
    let mut fixture = Fixture::new();
    let given = fixture.tree("given", &[("f", "x")]);
    let Input::Path(path) = &given else { unreachable!() };
    let user = Script {
        runtime: vec![given.clone()],
        ..fixture.script("touch $out")
    };
    let plan = fixture.plan(vec![("user", user)]);
    fixture.realise(&plan).unwrap();
    fixture.lose(path);
    let error = fixture.realise(&plan).unwrap_err();
    assert!(
        matches!(&error, BuildError::Lost { path: lost } if lost == path),
        "{error:?}"
    );
    assert!(
        error
            .help()
            .unwrap()
            .starts_with(&format!("`layerize store verify --repair {path}`"))
    );
}

#[test]
fn a_store_knows_by_itself_how_to_run_a_script_again() {
    let mut fixture = Fixture::new();
    let plan = fixture.chain("mkdir $out; echo prefix=$out >$out/f");
    let paths = fixture.paths(&plan);
    fixture.lose(&paths[0]);
    layerize::fsio::remove_tree(&fixture.store.physical(&paths[1])).unwrap();
    let make = |path: &StorePath| make_recorded(&fixture.store, path, &fixture.options, &fixture.recorder).unwrap();
    fixture.store.note_damage(&paths[0]);
    assert!(!make(&paths[1]), "its input comes first");
    assert!(make(&paths[0]) && make(&paths[1]));
    fixture.assert_whole(&[&paths[0], &paths[1]]);
    let Input::Path(root) = &fixture.root else {
        unreachable!()
    };
    fixture.store.note_damage(root);
    assert!(!make(root), "a tree that was added comes from no script");
    assert_eq!(
        fs::read_to_string(fixture.store.physical(&paths[0]).join("f")).unwrap(),
        format!("prefix={}\n", logical(&paths[0]))
    );
    assert!(Path::new(&fixture.store.physical(&paths[1])).exists());
}
