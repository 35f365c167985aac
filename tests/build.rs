//! Steps realised through the real sandbox: what a script finds, what becomes of what it leaves, how failures read.
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod machine;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use layerize::build::{BuildError, Reason, WallsChoice, realise};
use layerize::derive::{Action, Derivation, Download, Input, Origin, Script};
use layerize::digest::Digest;
use layerize::event::Event;
use layerize::store::{GcOptions, Store};
use layerize::store_path::StorePath;
use layerize::walls::Walls;
use machine::{Fixture, logical};

#[test]
fn an_output_is_a_directory_a_file_or_a_link() {
    let fixture = Fixture::new();
    let directory = fixture
        .build(fixture.script("mkdir -p $out/bin; echo hi >$out/bin/x; chmod +x $out/bin/x"))
        .unwrap();
    assert_eq!(fixture.read(&directory, "bin/x"), "hi\n");
    let mode = fs::metadata(fixture.store.physical(&directory).join("bin/x"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o555);
    let file = fixture.build(fixture.script("echo hi >$out")).unwrap();
    assert_eq!(fs::read_to_string(fixture.store.physical(&file)).unwrap(), "hi\n");
    let target = logical(&directory);
    let script = Script {
        tools: vec![Input::Path(directory)],
        ..fixture.script(&format!("ln -s {target}/bin $out"))
    };
    let link = fixture.build(script).unwrap();
    assert_eq!(
        fs::read_link(fixture.store.physical(&link)).unwrap(),
        Path::new(&format!("{target}/bin"))
    );
    // In an image a link out of the store would lead to whatever is there.
    let failure = fixture.fails(fixture.script("ln -s /nowhere $out"));
    assert!(failure.to_string().contains("/nowhere"), "{failure}");
}

#[test]
fn the_environment_is_exactly_this() {
    let fixture = Fixture::new();
    let source = fixture.tree("src", &[("f", "")]);
    let Input::Path(source_path) = &source else {
        unreachable!()
    };
    let script = Script {
        source: Some(source.clone()),
        env: BTreeMap::from([("GREETING".to_owned(), "hi there".to_owned())]),
        ..fixture.script("env >env; mkdir $out; cp env $out")
    };
    let path = fixture.build(script).unwrap();
    let text = fixture.read(&path, "env");
    let mut lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.starts_with("out=") && !line.starts_with("_="))
        .collect();
    lines.sort_unstable();
    let src = format!("src={}", logical(source_path));
    assert_eq!(
        lines,
        [
            "CARGO_CACHE_RUSTC_INFO=0",
            "GREETING=hi there",
            "HOME=/homeless-shelter",
            "LAYERIZE_CORES=3",
            "LC_ALL=C",
            "PATH=/usr/bin:/usr/sbin",
            "PWD=/build/source",
            "SHLVL=1",
            "SOURCE_DATE_EPOCH=315532800",
            "TEMP=/build",
            "TEMPDIR=/build",
            "TERM=dumb",
            "TMP=/build",
            "TMPDIR=/build",
            "TZ=UTC",
            &src,
        ]
    );
}

#[test]
fn the_source_is_a_writable_copy_with_old_times() {
    let fixture = Fixture::new();
    let script = Script {
        source: Some(fixture.tree("src", &[("a/b", "content\n")])),
        ..fixture.script("pwd >>a/b; stat -c %Y a; cp a/b $out; touch $src/new 2>/dev/null && exit 1; true")
    };
    let path = fixture.build(script).unwrap();
    assert_eq!(
        fs::read_to_string(fixture.store.physical(&path)).unwrap(),
        "content\n/build/source\n"
    );
    assert_eq!(fixture.recorder.lines(), ["315532800"]);
}

#[test]
fn the_root_has_what_packages_expect() {
    let fixture = Fixture::new();
    let script =
        "id -un; id -gn; readlink /bin /lib64; ls -d /homeless-shelter /sys 2>&1 || true; cat /etc/hosts; touch $out";
    fixture.build(fixture.script(script)).unwrap();
    assert_eq!(
        fixture.recorder.lines(),
        [
            "builder",
            "users",
            "usr/bin",
            "usr/lib64",
            "ls: cannot access '/homeless-shelter': No such file or directory",
            "ls: cannot access '/sys': No such file or directory",
            "127.0.0.1 localhost",
            "::1 localhost",
        ]
    );
}

#[test]
fn only_the_closure_of_the_inputs_is_visible() {
    let fixture = Fixture::new();
    let inner = fixture.tree("inner", &[("f", "inner")]);
    let stranger = fixture.tree("stranger", &[("f", "other")]);
    let Input::Path(inner_path) = &inner else {
        unreachable!()
    };
    let middle = Script {
        libraries: vec![inner.clone()],
        ..fixture.script(&format!("echo {} >$out", logical(inner_path)))
    };
    let user = Script {
        tools: vec![Input::Step(0)],
        ..fixture.script("ls /layerize/store; touch $out")
    };
    let plan = fixture.plan(vec![("middle", middle), ("user", user)]);
    let paths = fixture.realise(&plan).unwrap();
    let mut expected = vec![inner_path.to_string(), paths[&Input::Step(0)].to_string()];
    expected.sort();
    assert_eq!(fixture.recorder.lines(), expected);
    assert!(!expected.contains(&format!("{stranger:?}")));
}

#[test]
fn references_are_found_and_declared() {
    let fixture = Fixture::new();
    let [library, dependency, unused, runtime] =
        ["library", "dependency", "unused", "runtime"].map(|name| fixture.tree(name, &[("f", name)]));
    let path = |input: &Input| match input {
        Input::Path(path) => path.clone(),
        Input::Step(_) => unreachable!(),
    };
    let script = Script {
        libraries: vec![library.clone(), dependency.clone(), unused.clone()],
        runtime: vec![runtime.clone()],
        declared: BTreeMap::from([
            (library.clone(), BTreeSet::from([dependency.clone()])),
            (unused.clone(), BTreeSet::from([fixture.root.clone()])),
        ]),
        ..fixture.script(&format!("echo {} >$out", logical(&path(&library))))
    };
    let built = fixture.build(script).unwrap();
    let info = fixture.store.info(&built).unwrap().unwrap();
    assert_eq!(
        info.references,
        BTreeSet::from([path(&library), path(&dependency), path(&runtime)])
    );
}

#[test]
fn a_second_run_builds_nothing() {
    let fixture = Fixture::new();
    let plan = fixture.plan(vec![("pkg", fixture.script("echo $RANDOM >$out"))]);
    let first = fixture.realise(&plan).unwrap();
    let second = fixture.realise(&plan).unwrap();
    assert_eq!(first, second);
    assert_eq!(fixture.recorder.started(), ["pkg"]);
    let events = fixture.recorder.events();
    assert_eq!(
        events.last().unwrap(),
        &Event::Reused {
            name: "pkg".to_owned(),
            path: logical(&first[&Input::Step(0)])
        }
    );
}

#[test]
fn an_input_rebuilt_to_the_same_content_rebuilds_no_user() {
    let fixture = Fixture::new();
    let plan = |comment: &str| {
        let library = fixture.script(&format!("# {comment}\necho library >$out"));
        let user = Script {
            libraries: vec![Input::Step(0)],
            ..fixture.script("echo user >$out")
        };
        fixture.plan(vec![("library", library), ("user", user)])
    };
    let first = fixture.realise(&plan("one")).unwrap();
    let second = fixture.realise(&plan("two")).unwrap();
    assert_eq!(first, second);
    assert_eq!(fixture.recorder.started(), ["library", "user", "library"]);
}

#[test]
fn independent_steps_run_at_once_and_failures_are_all_told() {
    let mut fixture = Fixture::new();
    fixture.options.jobs = 2;
    let fail = |status: u8| fixture.script(&format!("sleep 1; exit {status}"));
    let user = Script {
        libraries: vec![Input::Step(0), Input::Step(1)],
        ..fixture.script("touch $out")
    };
    let plan = fixture.plan(vec![("a", fail(3)), ("b", fail(4)), ("user", user)]);
    let error = fixture.realise(&plan).unwrap_err();
    let told = error.to_string();
    for line in [
        "2 builds failed:",
        "  cannot build `a`: its script failed with exit status 3",
        "  cannot build `b`: its script failed with exit status 4",
    ] {
        assert!(told.lines().any(|told| told == line), "{line} is missing in:\n{told}");
    }
    let BuildError::Several { failures } = error else {
        panic!()
    };
    let mut texts: Vec<String> = failures
        .iter()
        .map(|failure| failure.to_string().lines().next().unwrap().to_owned())
        .collect();
    texts.sort();
    assert_eq!(
        texts,
        [
            "cannot build `a`: its script failed with exit status 3",
            "cannot build `b`: its script failed with exit status 4",
        ]
    );
    assert!(!fixture.recorder.started().contains(&"user".to_owned()));
}

#[test]
fn two_processes_build_one_thing_once() {
    let fixture = Fixture::new();
    let plan = fixture.plan(vec![("pkg", fixture.script("sleep 1; echo $RANDOM >$out"))]);
    let other = Store::open(fixture.store.dir()).unwrap();
    let results = std::thread::scope(|scope| {
        let runs = [&fixture.store, &other].map(|store| {
            let (plan, options, recorder) = (&plan, &fixture.options, &fixture.recorder);
            scope.spawn(move || realise(store, plan, &[Input::Step(0)], options, recorder).unwrap())
        });
        runs.map(|run| run.join().unwrap())
    });
    assert_eq!(results[0], results[1]);
    assert_eq!(fixture.recorder.started(), ["pkg"]);
}

#[test]
fn a_failing_command_is_named_with_its_line() {
    let mut fixture = Fixture::new();
    fixture.options.keep_failed = true;
    let failure = fixture
        .fails(fixture.script("echo first\nfor i in 1 2; do echo line $i; done\n(cd /tmp; ls /missing)\ntouch $out\n"));
    assert_eq!(failure.reason, Reason::Status(2));
    let command = failure.command.as_ref().unwrap();
    assert_eq!((command.text.as_str(), command.line), ("ls /missing", Some(3)));
    assert_eq!(failure.tail.len(), 4);
    assert_eq!(
        failure.to_string().lines().next().unwrap(),
        "cannot build `pkg`: `ls /missing` (line 3 of its script) failed with exit status 2"
    );
    assert_eq!(fs::read_to_string(&failure.log).unwrap().lines().count(), 4);
    assert!(failure.kept.unwrap().join("source").is_dir());
}

#[test]
fn failures_say_what_to_do() {
    let fixture = Fixture::new();
    let cases = [
        (
            "true",
            Reason::NoOutput,
            "the script must make a file or directory `$out`",
        ),
        (
            "touch $out /layerize/store/other",
            Reason::OutsideOutput(vec!["other".to_owned()]),
            "write to `$out`",
        ),
        (
            "cmake .",
            Reason::Status(127),
            "add `\"deb:cmake\"`, which has `cmake`, to `tools`",
        ),
        (
            "echo 'curl: (6) Could not resolve host: x'; exit 6",
            Reason::Status(6),
            "a build has no network",
        ),
        ("kill -SEGV $$", Reason::Signal(11), "`layerize build --keep-failed`"),
        ("echo $UNSET_NAME", Reason::Status(1), "`layerize build --keep-failed`"),
        (
            "false | true; touch $out",
            Reason::Status(1),
            "`layerize build --keep-failed`",
        ),
    ];
    for (script, reason, help) in cases {
        let failure = fixture.fails(fixture.script(script));
        assert_eq!(failure.reason, reason, "{script}");
        let text = failure.help().unwrap();
        assert!(text.starts_with(help), "{script}: {text}");
    }
}

#[test]
fn a_script_that_never_ends_is_ended() {
    let fixture = Fixture::new();
    let script = Script {
        timeout_seconds: Some(1),
        ..fixture.script("echo waiting; sleep 1000")
    };
    let failure = fixture.fails(script);
    assert_eq!(
        (failure.reason, failure.tail),
        (Reason::TimedOut(1), vec!["waiting".to_owned()])
    );
}

#[test]
fn nothing_is_left_of_a_failed_build() {
    let fixture = Fixture::new();
    fixture.fails(fixture.script("mkdir $out; touch $out/f; mkdir -m 0 closed; exit 1"));
    let staged = layerize::fsio::sorted_names(&fixture.store.dir().join("tmp")).unwrap();
    assert!(
        staged.iter().all(|name| name.to_string_lossy().ends_with(".lock")),
        "{staged:?}"
    );
    let paths = layerize::fsio::sorted_names(&fixture.store.dir().join("store")).unwrap();
    assert_eq!(paths.len(), 1);
}

#[test]
fn an_unreadable_output_is_made_readable() {
    let fixture = Fixture::new();
    let path = fixture
        .build(fixture.script("mkdir -p $out/d; echo x >$out/d/f; chmod 0 $out/d/f $out/d $out"))
        .unwrap();
    assert_eq!(fixture.read(&path, "d/f"), "x\n");
}

#[test]
fn outputs_that_name_themselves_move_with_their_path() {
    let fixture = Fixture::new();
    let path = fixture
        .build(fixture.script("mkdir $out; echo $out/bin >$out/f; ln -s $out/f $out/link"))
        .unwrap();
    assert_eq!(fixture.read(&path, "f"), format!("{}/bin\n", logical(&path)));
    assert!(fixture.store.info(&path).unwrap().unwrap().self_reference);
}

#[test]
fn a_missing_path_is_an_error_that_names_it() {
    let fixture = Fixture::new();
    let path: StorePath = "00000000000000000000000000000000-gone".parse().unwrap();
    let script = Script {
        tools: vec![Input::Path(path)],
        ..fixture.script("true")
    };
    let error = fixture.build(script).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`00000000000000000000000000000000-gone` is not in the store"
    );
}

#[test]
fn a_root_without_shell_is_an_error() {
    let fixture = Fixture::new();
    let script = Script {
        root: vec![fixture.tree("empty", &[("usr/share/x", "")])],
        ..fixture.script("true")
    };
    let error = fixture.build(script).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot run the script of `pkg`: none of its packages has a shell"
    );
}

#[test]
fn without_a_sandbox_the_store_must_be_where_its_paths_say() {
    let mut fixture = Fixture::new();
    fixture.options.walls = WallsChoice::new(Some(Walls::None), None);
    let error = fixture.build(fixture.script("touch $out")).unwrap_err();
    let store = fixture.store.dir().join("store");
    assert_eq!(
        error.to_string(),
        format!(
            "cannot build without a sandbox: `/layerize/store` is not a link to `{}`",
            store.display()
        )
    );
    assert!(
        error
            .help()
            .unwrap()
            .ends_with(&format!("sudo ln -sfn '{}' /layerize/store", store.display()))
    );
}

/// A local file as a download, and its step.
fn fetch_step(path: &Path) -> Derivation {
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    let bytes = fs::read(path).unwrap();
    Derivation {
        label: name.clone(),
        name: name.clone(),
        action: Action::Fetch(Download {
            name,
            hash: Digest::of(&bytes).into(),
            size: Some(bytes.len() as u64),
            origin: Origin::Url(format!("file:{}", path.display())),
        }),
    }
}

#[test]
fn what_was_built_needs_no_inputs_any_more() {
    let mut fixture = Fixture::new();
    fixture.options.fetch.cache = fixture.dir.path().join("cache");
    let file = fixture.dir.path().join("input.txt");
    fs::write(&file, "fetched\n").unwrap();
    let user = Script {
        source: Some(Input::Step(0)),
        ..fixture.script("cp input.txt $out")
    };
    let mut plan = fixture.plan(vec![("unused", fixture.script("true")), ("user", user)]);
    plan.steps[0] = fetch_step(&file);
    let first = fixture.realise(&plan).unwrap();
    let path = &first[&Input::Step(1)];
    assert_eq!(fs::read_to_string(fixture.store.physical(path)).unwrap(), "fetched\n");
    // Neither in the store nor in the cache nor where it came from; nor is the root.
    fixture.store.add_root("user", path).unwrap();
    fixture.reopen();
    assert_eq!(fixture.store.gc(&GcOptions::default()).unwrap().removed.len(), 2);
    fs::remove_file(&file).unwrap();
    fs::remove_dir_all(fixture.dir.path().join("cache")).unwrap();
    let second = fixture.realise(&plan).unwrap();
    assert_eq!(second[&Input::Step(1)], *path);
    assert!(!second.contains_key(&Input::Step(0)));
}

#[test]
fn a_download_that_fails_is_an_error() {
    let mut fixture = Fixture::new();
    fixture.options.fetch.cache = fixture.dir.path().join("cache");
    let file = fixture.dir.path().join("input.txt");
    fs::write(&file, "one\n").unwrap();
    let mut plan = fixture.plan(vec![("x", fixture.script("true"))]);
    plan.steps[0] = fetch_step(&file);
    fs::write(&file, "two\n").unwrap();
    assert!(matches!(fixture.realise(&plan).unwrap_err(), BuildError::Fetch(_)));
}

#[test]
fn tools_are_found_by_their_names() {
    let fixture = Fixture::new();
    let tool = fixture
        .script("mkdir -p $out/bin; printf '#!/bin/sh\\necho tool runs\\n' >$out/bin/tool; chmod +x $out/bin/tool");
    let user = Script {
        tools: vec![Input::Step(0)],
        ..fixture.script("tool >$out")
    };
    let plan = fixture.plan(vec![("tool", tool), ("user", user)]);
    let path = fixture.realise(&plan).unwrap()[&Input::Step(1)].clone();
    assert_eq!(
        fs::read_to_string(fixture.store.physical(&path)).unwrap(),
        "tool runs\n"
    );
}

#[test]
fn programs_linked_outside_the_store_are_warned_of() {
    let fixture = Fixture::new();
    fixture
        .build(fixture.script("mkdir -p $out/bin; cp /usr/bin/cat $out/bin/cat"))
        .unwrap();
    let warnings = fixture.recorder.warnings();
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].starts_with("`pkg` needs `/lib64/ld-linux-x86-64.so.2` (for `bin/cat`)"),
        "{warnings:?}"
    );
    assert!(
        warnings[0].ends_with("`libraries = [\"deb:libc6-dev\"]` links it to the store"),
        "{warnings:?}"
    );
}
