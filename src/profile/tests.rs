//! Profiles of packages that tests lay out.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::store_path::StoreDir;

struct Scene {
    dir: tempfile::TempDir,
    store: Store,
    profile: Profile,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let profile = Profile::new(&dir.path().join("state"));
        Self { dir, store, profile }
    }

    /// A package with these files; those below `bin` can be run.
    fn package(&self, name: &str, files: &[(&str, &str)]) -> ProfilePackage {
        let tree = tempfile::tempdir_in(self.dir.path()).unwrap();
        for (file, text) in files {
            let place = tree.path().join(file);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(&place, text).unwrap();
            let mode = if file.contains("bin/") { 0o755 } else { 0o644 };
            fs::set_permissions(&place, fs::Permissions::from_mode(mode)).unwrap();
        }
        ProfilePackage {
            name: name.to_owned(),
            path: self.store.add_tree(name, tree.path()).unwrap().path,
            priority: DEFAULT_PRIORITY,
            origin: None,
        }
    }

    fn set(&self, packages: &[&ProfilePackage]) -> Result<Change, ProfileError> {
        let packages: Vec<ProfilePackage> = packages.iter().map(|&package| package.clone()).collect();
        self.profile.change(&self.store, Path::new("/bin/layerize"), |all| {
            *all = packages;
            Ok(())
        })
    }

    /// What is read at a place of the profile.
    fn read(&self, place: &str) -> Option<String> {
        fs::read_to_string(self.profile.link().join(place)).ok()
    }
}

#[test]
fn packages_are_joined_and_what_both_have_is_an_error_or_the_firsts() {
    let scene = Scene::new();
    let one = scene.package(
        "one",
        &[
            ("bin/one", "1"),
            ("bin/both", "1"),
            ("share/man/man1/one.1", "1"),
            ("share/one/data", "1"),
            ("bin/same", "="),
        ],
    );
    let mut two = scene.package(
        "two",
        &[
            ("sbin/two", "2"),
            ("bin/both", "2"),
            ("share/man/man1/two.1", "2"),
            ("bin/same", "="),
            ("lib/x", "2"),
        ],
    );
    let error = scene.set(&[&one, &two]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`one` and `two` both have `bin/both`, and neither goes first"
    );
    assert!(
        error.help().unwrap().contains("layerize install two --priority 4"),
        "{error:?}"
    );
    assert_eq!(scene.profile.current().unwrap(), None);
    two.priority = 4;
    let change = scene.set(&[&one, &two]).unwrap();
    assert_eq!((change.generation, change.previous), (1, None));
    for (place, text) in [
        ("bin/one", Some("1")),
        ("bin/two", Some("2")),
        ("bin/both", Some("2")),
        ("bin/same", Some("=")),
        ("share/man/man1/one.1", Some("1")),
        ("share/man/man1/two.1", Some("2")),
        ("share/one/data", Some("1")),
        ("lib/x", None),
    ] {
        assert_eq!(scene.read(place).as_deref(), text, "{place}");
    }
    // Again is nothing new.
    assert_eq!(scene.set(&[&one, &two]).unwrap(), change);
}

/// Two environments have a Python each, which is for their commands; one without commands is its Python.
#[test]
fn pythons_of_environments_are_not_linked() {
    let scene = Scene::new();
    let environment = |name: &str, programs: &[&str]| {
        let programs = programs
            .iter()
            .map(|program| (format!("bin/{program}"), format!("{program} of {name}")));
        let files: Vec<(String, String)> = programs
            .chain([("venv/pyvenv.cfg".to_owned(), String::new())])
            .collect();
        let files: Vec<(&str, &str)> = files
            .iter()
            .map(|(file, text)| (file.as_str(), text.as_str()))
            .collect();
        scene.package(name, &files)
    };
    let [one, two] = ["one", "two"].map(|name| environment(name, &["python", "python3", name]));
    scene.set(&[&one, &two]).unwrap();
    assert_eq!(scene.read("bin/one").as_deref(), Some("one of one"));
    assert_eq!((scene.read("bin/python"), scene.read("bin/python3")), (None, None));
    let bare = environment("bare", &["python"]);
    scene.set(&[&one, &bare]).unwrap();
    assert_eq!(scene.read("bin/python").as_deref(), Some("python of bare"));
}

#[test]
fn generations_keep_what_they_lead_to_and_are_gone_back_to() {
    let scene = Scene::new();
    let old = scene.package("tool", &[("bin/tool", "old")]);
    let new = scene.package("tool", &[("bin/tool", "new")]);
    scene.set(&[&old]).unwrap();
    scene.set(&[&new]).unwrap();
    assert_eq!(scene.read("bin/tool").as_deref(), Some("new"));
    let back = scene.profile.roll_back(&scene.store, None).unwrap();
    assert_eq!((back.generation, back.previous), (1, Some(2)));
    assert_eq!(scene.read("bin/tool").as_deref(), Some("old"));
    assert!(matches!(
        scene.profile.roll_back(&scene.store, None),
        Err(ProfileError::NothingEarlier { current: 1 })
    ));
    let error = scene.profile.roll_back(&scene.store, Some(9)).unwrap_err();
    assert_eq!(error.help().unwrap(), "there are: 1, 2");
    scene.profile.roll_back(&scene.store, Some(2)).unwrap();
    let roots = |scene: &Scene| {
        let roots = scene.store.roots().unwrap().into_iter();
        roots.filter_map(|root| root.target).collect::<Vec<_>>()
    };
    assert_eq!(roots(&scene), [old.path.clone(), new.path.clone()]);
    assert_eq!(scene.profile.wipe(&scene.store, |_| true).unwrap(), [1]);
    assert_eq!(roots(&scene), [new.path]);
    assert_eq!(scene.read("bin/tool").as_deref(), Some("new"));
    // The number of one that is gone is not used again while a later one is there.
    assert_eq!(scene.set(&[&old]).unwrap().generation, 3);
}

/// One that was made after going back is taken back to what it was made from, not to what was undone before.
#[test]
fn the_way_back_is_the_way_there() {
    let scene = Scene::new();
    let tools: Vec<ProfilePackage> = ["one", "two", "three"]
        .iter()
        .map(|word| scene.package("tool", &[("bin/tool", word)]))
        .collect();
    scene.set(&[&tools[0]]).unwrap();
    scene.set(&[&tools[1]]).unwrap();
    scene.profile.roll_back(&scene.store, None).unwrap();
    scene.set(&[&tools[2]]).unwrap();
    let back = scene.profile.roll_back(&scene.store, None).unwrap();
    assert_eq!((back.generation, back.previous), (1, Some(3)));
    scene.profile.roll_back(&scene.store, Some(3)).unwrap();
    scene.profile.wipe(&scene.store, |_| true).unwrap();
    let error = scene.profile.roll_back(&scene.store, None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "generation 3 was made from generation 1, which is gone"
    );
}

/// Whatever of the profile is damaged, there is a way on, and nothing is removed before.
#[test]
fn damaged_generations_are_no_dead_end() {
    let scene = Scene::new();
    let one = scene.package("tool", &[("bin/tool", "one")]);
    let two = scene.package("tool", &[("bin/tool", "two")]);
    for tool in [&one, &two, &one] {
        scene.set(&[tool]).unwrap();
    }
    let damage = |number: u64| fs::write(scene.profile.place(number).join(manifest::FILE), "{").unwrap();
    damage(2);
    let told = scene.profile.generations().unwrap();
    let damaged = told.iter().filter(|(_, generation)| generation.is_err());
    assert_eq!(damaged.map(|(number, _)| *number).collect::<Vec<_>>(), [2]);
    damage(3);
    for error in [
        scene.set(&[&two]).unwrap_err(),
        scene.profile.wipe(&scene.store, |_| true).unwrap_err(),
        scene.profile.roll_back(&scene.store, None).unwrap_err(),
    ] {
        let help = error.help().unwrap();
        assert!(matches!(error, ProfileError::Damaged { number: 3, .. }), "{error}");
        assert!(
            help.contains("rollback N` (there are: 1, 2)") && help.contains("`rm "),
            "{help}"
        );
    }
    assert_eq!(scene.profile.numbers().unwrap(), [1, 2, 3]);
    scene.profile.roll_back(&scene.store, Some(1)).unwrap();
    assert_eq!(scene.read("bin/tool").as_deref(), Some("one"));
    assert_eq!(scene.profile.wipe(&scene.store, |_| true).unwrap(), [2, 3]);
    // All are gone, and the link is left.
    remove_tree(&scene.profile.place(1)).unwrap();
    let error = scene.profile.current().unwrap_err();
    assert!(error.help().unwrap().starts_with("begin anew"), "{error}");
    let error = scene.profile.roll_back(&scene.store, Some(1)).unwrap_err();
    assert!(error.help().unwrap().starts_with("there are none"), "{error}");
    scene.set(&[&two]).unwrap();
    assert_eq!(scene.read("bin/tool").as_deref(), Some("two"));
}

#[test]
fn what_has_nothing_and_what_is_in_the_way_is_told() {
    let scene = Scene::new();
    let debian = scene.package("jq", &[("usr/bin/jq", "x")]);
    let error = scene.set(&[&debian]).unwrap_err();
    assert!(error.help().unwrap().contains("run --isolated"), "{error}");
    let tool = scene.package("tool", &[("bin/tool", "x")]);
    fs::create_dir_all(scene.profile.link()).unwrap();
    assert!(matches!(scene.set(&[&tool]), Err(ProfileError::NotALink { .. })));
    fs::remove_dir(scene.profile.link()).unwrap();
    scene.set(&[&tool]).unwrap();
    let other = Store::open(&scene.dir.path().join("other")).unwrap();
    let error = scene.profile.roll_back(&other, Some(1)).unwrap_err();
    assert!(error.help().unwrap().starts_with("use that store"), "{error}");
    let file = scene.profile.link().join(manifest::FILE);
    let text = fs::read_to_string(&file).unwrap();
    for (broken, reason) in [
        ("{", "EOF"),
        (&text.replace("\"version\": 1", "\"version\": 2"), "version 2"),
    ] {
        fs::write(&file, broken).unwrap();
        let error = scene.profile.current().unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

/// A program that needs the store at its place is started with it there; a package that refers to nothing is linked to.
#[test]
fn programs_are_linked_or_started() {
    let scene = Scene::new();
    let base = scene.package("base", &[("bin/base", "#!/bin/sh\n")]);
    let tree = tempfile::tempdir_in(scene.dir.path()).unwrap();
    let dir = StoreDir::layerize();
    fs::create_dir_all(tree.path().join("bin")).unwrap();
    fs::create_dir_all(tree.path().join("share")).unwrap();
    let program = tree.path().join("bin/user");
    fs::write(&program, format!("#!{}/bin/base\n", dir.join(&base.path))).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    symlink(
        format!("{}/bin/base", dir.join(&base.path)),
        tree.path().join("share/linked"),
    )
    .unwrap();
    let user = scene
        .store
        .add_output(&crate::store::NewOutput {
            name: "user",
            tree: tree.path(),
            candidates: &BTreeSet::from([base.path.clone()]),
            declare: &|_| Vec::new(),
            derivation: None,
            policy: &crate::store::ANY_REFERENCE,
            walls: crate::walls::Walls::Namespaces,
            execution: crate::execution::Execution::Native,
        })
        .unwrap();
    let user = ProfilePackage {
        name: "user".to_owned(),
        path: user.path,
        ..base.clone()
    };
    scene.set(&[&base, &user]).unwrap();
    let bin = scene.profile.bin();
    assert_eq!(
        fs::read_link(bin.join("base")).unwrap(),
        scene.store.physical(&base.path).join("bin/base")
    );
    let script = fs::read_to_string(bin.join("user")).unwrap();
    let place = format!(
        "__launch '{}' '{}/bin/user' \"$@\"",
        scene.store.dir().display(),
        dir.join(&user.path)
    );
    assert!(script.starts_with("#!/bin/sh\n") && script.contains(&place), "{script}");
    // A link through the store leads to where that is on disk.
    assert_eq!(scene.read("share/linked").as_deref(), Some("#!/bin/sh\n"));
}

#[test]
fn what_a_killed_process_left_is_removed() {
    let scene = Scene::new();
    let tool = scene.package("tool", &[("bin/tool", "x")]);
    scene.set(&[&tool]).unwrap();
    let debris = scene.dir.path().join("state").join(format!("{TEMPORARY_PREFIX}dead"));
    fs::create_dir_all(debris.join("tree/bin")).unwrap();
    scene
        .store
        .keep(&scene.profile.owner(7), &BTreeSet::from([tool.path.clone()]))
        .unwrap();
    let other = scene.package("other", &[("bin/other", "x")]);
    scene.set(&[&other]).unwrap();
    assert!(!debris.exists());
    let owners = scene.store.roots().unwrap().into_iter().filter_map(|root| root.owner);
    assert_eq!(owners.map(|owner| owner.target).collect::<Vec<_>>(), ["1", "2"]);
}

#[test]
fn a_path_is_called_by_its_name_without_version() {
    for (path, name) in [
        ("hello-2.10", "hello"),
        ("gcc-12-base-12.2", "gcc"),
        ("tool", "tool"),
        ("-1", "-1"),
    ] {
        let path: StorePath = format!("0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-{path}").parse().unwrap();
        assert_eq!(name_of(&path), name);
    }
    for (name, number) in [
        ("profile-1", Some(1)),
        ("profile-01", None),
        ("profile-", None),
        ("profile", None),
    ] {
        assert_eq!(number_of(name), number, "{name}");
    }
}
