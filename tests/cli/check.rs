//! `layerize check`: planted non-determinism is found and explained, what is reproducible passes, nothing is registered.

use serde_json::Value;

use crate::support::Place;

/// Name of a package, its script, and what the report must say of its difference.
const PLANTED: &[(&str, &str, &str)] = &[
    ("clock", "date +%s >$out", "only numbers differ"),
    ("random", "echo $RANDOM$RANDOM >$out", "only numbers differ"),
    (
        "listing",
        "mkdir d; cd d; touch a b c d e f g h i j k l; ls -U >$out",
        "same lines in another order",
    ),
    ("processors", "nproc >$out", "only numbers differ"),
    ("cores", "echo $LAYERIZE_CORES >$out", "only numbers differ"),
    ("user", "id -u >$out", "only numbers differ"),
    ("host", "cat /proc/sys/kernel/hostname >$out", "+another-host"),
    ("mask", "umask >$out", "only numbers differ"),
    ("zone", "date -d @0 +%H:%M >$out", "+13:45"),
    ("words", "echo $LC_ALL >$out", "-C"),
    (
        "home",
        "mkdir $out; ln -s $HOME $out/home",
        "home: link: /homeless-shelter / /another-homeless-shelter",
    ),
    ("memory", "head -c 12 /proc/self/maps >$out", "content"),
    (
        "picky",
        "test $(id -u) = 1000; touch $out",
        "in other surroundings it cannot be built",
    ),
];

fn spec(packages: &[(&str, &str)]) -> String {
    packages
        .iter()
        .map(|(name, script)| format!("[package.{name}]\nscript = '''\n{script}\n'''\n"))
        .collect()
}

#[test]
fn planted_non_determinism_is_found() {
    let place = Place::on_disk();
    let mut packages: Vec<(&str, &str)> = PLANTED.iter().map(|(name, script, _)| (*name, *script)).collect();
    packages.push(("good", "mkdir $out; cat * >$out/all; echo $out >$out/self"));
    place.write(
        "layerize.toml",
        &spec(&packages).replace("[package.good]", "[package.good]\nsource = { path = \"src\" }"),
    );
    place.write("src/a", "a").write("src/b", "b");
    place.lock_base();
    let text = place.run(&["check"]).exits(1).stdout;
    let of = |name: &str| -> &str {
        let starts = [format!("DIFFERS  {name} "), format!("same     {name} ")];
        let at = starts.iter().find_map(|start| text.find(start));
        let rest = &text[at.unwrap_or_else(|| panic!("{name} is missing in {text}"))..];
        let end = ["\nDIFFERS", "\nsame", "\nvaried"]
            .iter()
            .filter_map(|next| rest.find(next))
            .min();
        &rest[..end.unwrap()]
    };
    for (name, _, said) in PLANTED {
        // One processor cannot be made fewer.
        let alone = std::thread::available_parallelism().unwrap().get() == 1;
        if *name == "processors" && alone {
            continue;
        }
        assert!(
            of(name).starts_with("DIFFERS") && of(name).contains(said),
            "{name}: {}",
            of(name)
        );
    }
    assert!(of("good").starts_with("same"), "{text}");
    assert!(text.contains("not varied: the date"), "{text}");
    place.run(&["store", "verify"]).success();
}

/// The order in which a source's files are listed is another one, whatever it is on this machine's file system.
#[test]
fn the_order_of_a_source_is_the_other_way_round() {
    let place = Place::new();
    let script = "ls -U >$out; find sub >>$out";
    place.write(
        "layerize.toml",
        &spec(&[("order", script)]).replace("\nscript", "\nsource = { path = \"src\" }\nscript"),
    );
    for name in ["a", "b", "sub/x", "sub/y"] {
        place.write(&format!("src/{name}"), name);
    }
    place.lock_base();
    let json = place
        .run(&["check", "--json", "--keep", "kept", "--find-cause", "order"])
        .exits(1)
        .stdout;
    let report: Value = serde_json::from_str(json.lines().last().unwrap()).unwrap();
    let output = &report["outputs"][0];
    assert_eq!(
        output["causes"],
        serde_json::json!(["file system and directory order"]),
        "{json}"
    );
    let kept = place.project.join(output["kept"].as_str().unwrap());
    let read = |side: &str| std::fs::read_to_string(kept.join(side)).unwrap();
    let lines = |text: &str| -> Vec<String> { text.lines().take(3).map(str::to_owned).collect() };
    let (a, mut b) = (lines(&read("a")), lines(&read("b")));
    b.reverse();
    assert_eq!(a, b);
}

#[test]
fn a_hash_seeded_order_is_found() {
    let place = Place::new();
    let script = "perl -e 'my %h = map { $_ => 1 } 1..50; print join(\" \", keys %h), \"\\n\"' >$out";
    let text = spec(&[("hash", script)]).replace("\nscript", "\ntools = [\"deb:perl-base\"]\nscript");
    place.write("layerize.toml", &text);
    let ran = place.run(&["check", "--find-cause"]).exits(1);
    assert!(ran.stdout.contains("the same words in another order"), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("depends on: nothing that was varied"),
        "{}",
        ran.stdout
    );
}

#[test]
fn what_is_reproducible_passes_and_nothing_is_registered() {
    let place = Place::with_script(
        "mkdir -p $out/bin; printf '#!/bin/sh\\n' >$out/bin/x; chmod +x $out/bin/x; echo $out >$out/self",
    );
    place.run(&["build", "thing"]).success();
    let before = place.run(&["store", "ls"]).success().stdout;
    let ran = place.run(&["check", "--times", "2", "thing"]).success();
    assert!(
        ran.stdout.starts_with("same     thing /layerize/store/"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.contains("\nsame     image thing sha256:"), "{}", ran.stdout);
    assert_eq!(place.run(&["store", "ls"]).success().stdout, before);
    let path = before
        .lines()
        .find(|line| line.contains("-thing"))
        .unwrap()
        .split_whitespace()
        .next()
        .unwrap();
    place
        .run(&["check", path])
        .exits(2)
        .says(&["name the image or package"]);
    place.run(&["check", "--sandbox", "none", "thing"]).exits(2);
}

/// What files of the store look like besides their content is no part of a build: cargo's `.rustc_info.json` is one of those
/// that put it in. Times of modification are constant; inodes, times of change and access, and the order of directories are
/// others in a check.
#[test]
fn what_the_stores_files_look_like_is_varied_or_constant() {
    let tool = "tools = [\"tool\"]\nscript = '''\ncd /layerize/store/*-tool\n";
    let varied = [
        ("inode", "stat -c %i file >$out"),
        ("change", "stat -c %Z sub >$out"),
        ("access", "stat -c %X file >$out"),
        ("order", "ls -U | cat >$out"),
        ("walk", "find . -type f | cat >$out"),
        ("device", "stat -c %d file >$out"),
    ];
    let constant = [
        ("times", "stat -c '%n %Y' . sub file link >$out"),
        (
            "modes",
            "stat -c '%n %a %h %s %F' file link >$out; stat -c '%a' . sub >>$out",
        ),
        ("root", "stat -c '%n %Y' / /etc /etc/passwd /usr/bin/sh /layerize >$out"),
        ("copied", "cp -rp . $out"),
    ];
    let place = Place::new();
    let mut text =
        "[package.tool]\nscript = '''\nmkdir -p $out/sub; cd $out\nfor i in $(seq 40); do echo $i >f$i; done\n\
        echo >file; ln -s file link; echo >sub/x; echo >sub/y\n'''\n"
            .to_owned();
    for (name, script) in varied.iter().chain(&constant) {
        text += &format!("[package.{name}]\n{tool}{script}\n'''\n");
    }
    place.write("layerize.toml", &text);
    place.lock_base();
    for (name, _) in varied {
        let ran = place.run(&["check", name]).exits(1);
        assert!(
            ran.stdout.contains(&format!("DIFFERS  {name} ")),
            "{name}: {}",
            ran.stdout
        );
    }
    for (name, _) in constant {
        let ran = place.run(&["check", name]);
        assert!(
            ran.stdout.contains(&format!("same     {name} ")),
            "{name}: {}",
            ran.stdout
        );
    }
}

/// Real cargo keeps in its target directory what it knows of the compiler (`.rustc_info.json`), in the order of a hash table,
/// which was a coin tossed for each build. Builds have it leave that out; two stores make the same bytes of the rest, or a
/// check says that they do not.
#[test]
fn a_target_directory_of_cargo_is_the_same_in_two_stores_or_a_check_tells() {
    let place = Place::new();
    place.write(
        "layerize.toml",
        r#"
[package.app]
source = { path = "src" }
tools = ["deb:cargo"]
script = "export CARGO_HOME=$TMPDIR/cargo; cargo build --offline --release --target-dir $out"
"#,
    );
    place.write(
        "src/Cargo.toml",
        "[package]\nname = \"app\"\nversion = \"1.0.0\"\nedition = \"2021\"\n",
    );
    place.write("src/src/main.rs", "fn main() { println!(\"hello\"); }\n");
    let locked = place.run(&["lock"]);
    if locked.status != 0 {
        return crate::support::skipped(&format!("the packages cannot be resolved here: {}", locked.stderr));
    }
    let other = place.elsewhere();
    let outputs = [&place, &other].map(|place| {
        let path = place.run(&["build", "--locked", "app"]).success().line().to_owned();
        place.store().join("store").join(path.rsplit('/').next().unwrap())
    });
    assert!(!outputs[0].join(".rustc_info.json").exists());
    assert!(outputs[0].join("release/app").is_file());
    let are_equal = outputs[0].file_name() == outputs[1].file_name();
    let checked = place.run(&["check", "--locked", "app"]);
    match checked.status {
        0 => {
            assert!(checked.stdout.contains("same     app "), "{}", checked.stdout);
            assert!(are_equal, "`check` says same, and two stores differ: {outputs:?}");
            let [first, second] = &outputs;
            crate::support::peer(std::process::Command::new("diff").arg("-r").args([first, second]));
        }
        1 => assert!(checked.stdout.contains("DIFFERS  app "), "{}", checked.stdout),
        _ => panic!("{}", checked.stderr),
    }
}
