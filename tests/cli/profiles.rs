//! `layerize install` and its like: programs on the `PATH`, in generations.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Place, is_root, peer};

/// Two packages that have a program of one name, and one that refers to the first.
const SPEC: &str = r#"
[package.data]
source = { path = "data" }
script = 'mkdir -p $out/share; cp word $out/share'

[package.hello]
runtime = ["data"]
script = '''
mkdir -p $out/bin $out/share/man/man1 $out/share/bash-completion/completions
printf '#!/bin/sh\ncat %s/share/word\n[ -z "$1" ] || printf "%%s\\n" "$@"; exit ${STATUS:-0}\n' $package_data > $out/bin/hello
printf '#!/bin/sh\nexec hello inner\n' > $out/bin/twice
echo $package_data >> $out/bin/twice
printf '#!/bin/sh\n: %s\nexec cat /proc/self/uid_map\n' $package_data > $out/bin/users
chmod +x $out/bin/*
echo hello > $out/share/man/man1/hello.1
echo 'complete -W x hello' > $out/share/bash-completion/completions/hello
'''

[package.other]
script = '''
mkdir -p $out/bin $out/share/man/man1
printf '#!/bin/sh\necho other\n' > $out/bin/hello
printf '#!/bin/sh\necho only\n' > $out/bin/only
chmod +x $out/bin/*
echo other > $out/share/man/man1/only.1
'''

[image.web]
contents = ["hello"]
"#;

fn project() -> Place {
    let place = Place::new();
    place.write("layerize.toml", SPEC).write("data/word", "first\n");
    place.lock_base();
    place
}

fn profile(place: &Place) -> PathBuf {
    place.path().join(".local/state/layerize/profile")
}

/// What a program of the profile prints, run from the profile's own directory on the `PATH`.
fn runs(place: &Place, program: &str, arguments: &[&str]) -> String {
    let bin = profile(place).join("bin");
    let mut command = Command::new(bin.join(program));
    place.prepare(&mut command);
    command.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
    peer(command.args(arguments)).stdout
}

#[test]
fn packages_are_installed_upgraded_and_taken_back() {
    let place = project();
    let ran = place.run(&["install", "hello"]).success();
    assert!(ran.line().ends_with("-hello"), "{}", ran.stdout);
    ran.says(&["Generation 1 of the profile is in use.", "export PATH="]);
    assert_eq!(runs(&place, "hello", &["a b", "--json"]), "first\na b\n--json\n");
    if is_root() {
        // Root is the root that it was, with all users.
        assert_eq!(
            runs(&place, "users", &[]),
            fs::read_to_string("/proc/self/uid_map").unwrap()
        );
    }
    // A program of the profile that starts another.
    assert_eq!(runs(&place, "twice", &[]), "first\ninner\n");
    let mut failing = Command::new(profile(&place).join("bin/hello"));
    place.prepare(&mut failing);
    assert_eq!(failing.env("STATUS", "7").status().unwrap().code(), Some(7));
    for (file, text) in [
        ("share/man/man1/hello.1", "hello\n"),
        ("share/bash-completion/completions/hello", "complete -W x hello\n"),
    ] {
        assert_eq!(fs::read_to_string(profile(&place).join(file)).unwrap(), text);
    }

    place.run(&["install", "other"]).exits(2).says(&[
        "`hello` and `other` both have `bin/hello`",
        "layerize install other --priority 4",
        "layerize uninstall hello",
    ]);
    assert_eq!(runs(&place, "hello", &[]), "first\n");
    place
        .run(&["install", "other", "--priority", "4"])
        .success()
        .says(&["Generation 2"]);
    assert_eq!(
        (runs(&place, "hello", &[]), runs(&place, "only", &[])),
        ("other\n".into(), "only\n".into())
    );
    assert!(profile(&place).join("share/man/man1/hello.1").exists());
    let listed = place.run(&["profile", "list"]).success().stdout;
    assert!(
        listed.starts_with("hello\t/layerize/store/") && listed.contains("\nother\t"),
        "{listed}"
    );
    place.run(&["uninstall", "other"]).success().says(&["Generation 3"]);
    assert!(!profile(&place).join("bin/only").exists());

    place.run(&["upgrade"]).success().says(&["Nothing has changed."]);
    place.write("data/word", "second\n");
    let upgraded = place.run(&["upgrade", "hello"]).success().stdout;
    assert!(upgraded.starts_with("~ hello "), "{upgraded}");
    assert_eq!(runs(&place, "hello", &[]), "second\n");
    place
        .run(&["rollback"])
        .success()
        .says(&["Generation 3", "(before: 4)"]);
    assert_eq!(runs(&place, "hello", &[]), "first\n");

    // What generations lead to stays; what only a removed one led to goes.
    place.run(&["store", "gc", "--all"]).success();
    place.run(&["rollback", "4"]).success();
    assert_eq!(runs(&place, "hello", &[]), "second\n");
    let history = place.run(&["profile", "history"]).success().stdout;
    assert!(history.contains("generation 4 (in use)\n  ~ hello "), "{history}");
    assert_eq!(place.run(&["profile", "wipe-history"]).success().stdout, "1\n2\n3\n");
    place.run(&["store", "gc", "--all"]).success();
    let left = place.run(&["store", "ls"]).success().stdout;
    assert_eq!(
        left.lines().filter(|path| path.ends_with("-hello")).count(),
        1,
        "{left}"
    );
    assert_eq!(runs(&place, "hello", &[]), "second\n");
    assert!(place.run(&["store", "roots"]).success().stdout.contains("profile"));
}

#[test]
fn what_cannot_be_installed_is_told() {
    let place = project();
    place
        .run(&["rollback"])
        .exits(2)
        .says(&["nothing was ever installed", "layerize install NAME"]);
    place.run(&["upgrade"]).exits(2).says(&["nothing was ever installed"]);
    place
        .run(&["uninstall", "x"])
        .exits(2)
        .says(&["nothing called `x` is installed"]);
    assert_eq!(place.run(&["profile", "list"]).success().stdout, "");
    assert_eq!(place.run(&["profile", "history"]).success().stdout, "");
    place
        .run(&["install", "web"])
        .exits(2)
        .says(&["`web` is an image", "layerize run web"]);
    for argument in ["deb:jq", "/layerize/store/0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-jq-1/bin/jq"] {
        let told = match argument.starts_with("deb:") {
            true => ["a package of Debian's", "layerize help profiles"],
            false => [
                "a path within the store path",
                "layerize install /layerize/store/0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-jq-1",
            ],
        };
        place.run(&["install", argument]).exits(2).says(&told);
    }
    place
        .run(&["install", "helo"])
        .exits(2)
        .says(&["did you mean `hello`?"]);
    place.write("tree/usr/bin/x", "x");
    let path = place.run(&["store", "add", "tree"]).success().line().to_owned();
    place
        .run(&["install", &path])
        .exits(2)
        .says(&["has nothing to install", "laid out for the root of a system"]);
    assert!(!profile(&place).exists());
    place.write("good/bin/x", "x");
    peer(
        Command::new("chmod")
            .args(["-R", "755"])
            .arg(place.project.join("good")),
    );
    let path = place.run(&["store", "add", "good"]).success().line().to_owned();
    place.run(&["install", &path]).success();
    place
        .run(&["upgrade", "good"])
        .exits(2)
        .says(&["was installed as a store path"]);
    place
        .run(&["rollback", "9"])
        .exits(2)
        .says(&["there is no generation 9", "there are: 1"]);
    place
        .run(&["--store", "other", "uninstall", "good"])
        .exits(2)
        .says(&["are in the store", "--store "]);
}

/// What each verb did is one object for programs; a project that is gone keeps no other from being upgraded.
#[test]
fn results_are_objects_and_one_dead_project_stops_no_other() {
    let place = Place::new();
    let spec = |name: &str, word: &str| {
        format!("[package.{name}]\nscript = 'mkdir -p $out/bin; echo {word} > $out/bin/{name}; chmod +x $out/bin/*'\n")
    };
    place
        .write("a/layerize.toml", &spec("alive", "1"))
        .write("d/layerize.toml", &spec("dead", "1"));
    place.lock_base();
    let run = |arguments: &[&str]| -> Value {
        let ran = place.run(&[&["--json"], arguments].concat()).success();
        serde_json::from_str(ran.stdout.lines().last().unwrap()).unwrap()
    };
    for (name, dir) in [("alive", "a"), ("dead", "d")] {
        fs::copy(
            place.project.join("layerize.lock"),
            place.project.join(dir).join("layerize.lock"),
        )
        .unwrap();
        let file = format!("{dir}/layerize.toml");
        let value = run(&["install", name, "-f", &file]);
        assert_eq!(value["packages"][0]["name"], json!(name), "{value}");
    }
    fs::remove_dir_all(place.project.join("d")).unwrap();
    place.write("a/layerize.toml", &spec("alive", "2"));
    let ran = place.run(&["--json", "upgrade"]).exits(2).says(&[
        "cannot upgrade `dead` of the project",
        "layerize install dead -f NEW/layerize.toml",
        "layerize uninstall dead",
    ]);
    let value: Value = serde_json::from_str(ran.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&value["generation"], &value["previous"]),
        (&json!(3), &json!(2)),
        "{value}"
    );
    assert_eq!(value["failed"], json!(["dead"]), "{value}");
    assert!(value["changes"][0].as_str().unwrap().starts_with("~ alive "), "{value}");
    let value = run(&["uninstall", "dead"]);
    assert_eq!(
        (&value["generation"], &value["previous"]),
        (&json!(4), &json!(3)),
        "{value}"
    );
    let value = run(&["rollback"]);
    assert_eq!(
        (&value["generation"], &value["previous"]),
        (&json!(3), &json!(4)),
        "{value}"
    );
    let value = run(&["profile", "wipe-history"]);
    assert_eq!(
        (&value["generation"], &value["removed"]),
        (&json!(3), &json!([1, 2, 4])),
        "{value}"
    );
}

/// Whenever it is killed, the profile is one generation or the other, whole.
#[test]
fn a_killed_install_leaves_the_old_or_the_new() {
    let place = Place::new();
    let add = |word: &str| {
        for number in 0..40 {
            place.write(&format!("tree/share/x{number}/{word}"), word);
            place.write(&format!("tree/bin/x{number}"), word);
        }
        peer(
            Command::new("chmod")
                .args(["-R", "755"])
                .arg(place.project.join("tree")),
        );
        place.run(&["store", "add", "tree"]).success().line().to_owned()
    };
    let paths = [add("one"), add("two")];
    place.run(&["install", &paths[0]]).success();
    let mut seen = [0, 0];
    for round in 0..40_u64 {
        let mut child = place.command(&["install", &paths[usize::try_from((round + 1) % 2).unwrap()]]);
        let mut child = child.stderr(std::process::Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(2 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let words: Vec<String> = (0..40)
            .map(|number| fs::read_to_string(profile(&place).join(format!("bin/x{number}"))).unwrap())
            .collect();
        assert!(words.iter().all(|word| *word == words[0]), "{words:?}");
        seen[usize::from(words[0] == "two")] += 1;
    }
    place.run(&["install", &paths[1]]).success();
    place.run(&["profile", "wipe-history"]).success();
    let names = layerize::fsio::sorted_names(profile(&place).parent().unwrap()).unwrap();
    assert_eq!(
        names.len(),
        3,
        "the link, its generation and the lock: {names:?}, {seen:?}"
    );
    place.run(&["store", "gc", "--all"]).success();
    assert_eq!(place.run(&["store", "verify"]).success().status, 0);
}

#[test]
fn completions_offer_what_is_installed() {
    let place = project();
    place.run(&["install", "-q", "hello", "data"]).success();
    for verb in ["uninstall", "upgrade"] {
        let mut completed = place.command(&["--", "layerize", verb, ""]);
        completed
            .env("LAYERIZE_COMPLETE", "bash")
            .env("_CLAP_COMPLETE_INDEX", "2");
        let found = peer(&mut completed).stdout;
        let mut names: Vec<&str> = found.lines().map(str::trim).collect();
        names.sort_unstable();
        assert_eq!(names, ["data", "hello"], "{verb}");
    }
}
