//! Projects elsewhere that a spec imports: pinned, cached, moved, and built as they are in their own project.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Place, Ran, copy_tree, have, peer};

/// A project `lib`, committed to a repository, and one that imports it, in places of their own.
struct Importing {
    place: Place,
    lib: PathBuf,
}

const LIB: &str = r#"
[package.word]
source = { path = "word" }
script = "mkdir -p $out/share; cp word.txt $out/share"

[package.speak]
runtime = ["word"]
script = '''
mkdir -p $out/bin
printf '#!/bin/sh\ncat %s/share/word.txt\n' $package_word >$out/bin/speak
chmod +x $out/bin/speak
'''

[image.words]
contents = ["word"]
"#;

const APP: &str = r#"
[package.app]
tools = ["lib:speak"]
runtime = ["lib:word"]
script = '''
mkdir -p $out/share
speak >$out/share/said
echo $package_lib_word >>$out/share/said
'''

[image.all]
contents = ["app", "lib:speak"]
"#;

impl Importing {
    fn new() -> Option<Self> {
        if !have("git", &["--version"]) {
            return None;
        }
        let place = Place::new();
        let lib = place.path().join("lib");
        fs::create_dir(&lib).unwrap();
        let new = Self { place, lib };
        new.write("layerize.toml", LIB);
        new.write("word/word.txt", "first\n");
        // The tests' own base, as `lock_base` has it, and the lock that goes with it.
        new.place.write("layerize.toml", LIB).write("word/word.txt", "first\n");
        new.place.lock_base();
        new.place.run(&["lock", "-q"]).success();
        fs::copy(new.place.project.join("layerize.lock"), new.lib.join("layerize.lock")).unwrap();
        fs::remove_dir_all(new.place.project.join("word")).unwrap();
        git(&new.place, &new.lib, &["init", "-q", "-b", "main"]);
        new.commit("first");
        new.import("git = \"../lib\"");
        Some(new)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.lib.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn commit(&self, message: &str) -> String {
        git(&self.place, &self.lib, &["add", "-A"]);
        git(
            &self.place,
            &self.lib,
            &["commit", "-q", "--allow-empty", "-m", message],
        );
        git(&self.place, &self.lib, &["rev-parse", "HEAD"])
    }

    /// Writes the spec that imports it by these keys.
    fn import(&self, keys: &str) {
        let text = format!("[imports]\nlib = {{ {keys} }}\n{APP}");
        self.place.write("layerize.toml", &text);
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.place.run(arguments)
    }

    /// The store path that one command builds, and what `app` said.
    fn build(&self, name: &str, more: &[&str]) -> String {
        let arguments: Vec<&str> = ["build", "-q", name].iter().chain(more).copied().collect();
        self.run(&arguments).success().line().to_owned()
    }

    fn said(&self, path: &str) -> String {
        let below = path.strip_prefix("/layerize/store/").unwrap();
        fs::read_to_string(self.place.store().join("store").join(below).join("share/said")).unwrap()
    }

    /// The line of the lock that pins the commit.
    fn pinned(&self) -> String {
        let lock = fs::read_to_string(self.place.project.join("layerize.lock")).unwrap();
        let line = lock.lines().find_map(|line| line.strip_prefix("commit = \""));
        line.unwrap_or_default().trim_end_matches('"').to_owned()
    }
}

fn git(place: &Place, dir: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    place.prepare(
        command
            .args(["-c", "user.name=me", "-c", "user.email=me@host.example"])
            .args(arguments),
    );
    peer(command.current_dir(dir)).stdout.trim().to_owned()
}

#[test]
fn a_project_elsewhere_is_pinned_and_built_as_it_is_there() {
    let Some(importing) = Importing::new() else { return };
    let first = importing.commit("nothing");
    let app = importing.build("app", &[]);
    assert_eq!(importing.pinned(), first);
    let word = importing.build("lib:word", &[]);
    assert_eq!(importing.said(&app), format!("first\n{word}\n"));
    // What it makes of it is what the project makes of it itself.
    let mut own = importing.place.command(&["build", "-q", "speak", "word"]);
    let own = Ran::of(own.current_dir(&importing.lib).output().unwrap())
        .success()
        .stdout;
    let speak = importing.build("lib:speak", &[]);
    assert_eq!(own, format!("{speak}\n{word}\n"));
    assert_eq!(importing.run(&["run", "-q", "lib:speak"]).success().stdout, "first\n");
    importing.run(&["build", "-q", "all", "-o", "oci:out:v1"]).success();
    let closure = importing.run(&["closure", "-q", "all"]).success().stdout;
    for path in [&app, &speak, &word] {
        assert!(closure.contains(path.as_str()), "{closure}");
    }
    let shell = importing.run(&["shell", "-q", "lib:speak", "-c", "cat $package_word/share/word.txt"]);
    assert_eq!(shell.success().stdout, "first\n");
    assert!(importing.run(&["sbom", "all"]).success().stdout.contains("speak"));

    // A later commit is taken when it is asked for; what was fetched needs nobody.
    importing.write("word/word.txt", "second\n");
    let second = importing.commit("second");
    assert_eq!(importing.build("app", &[]), app);
    importing.run(&["update", "lib"]).success().says(&["lib"]);
    assert_eq!(importing.pinned(), second);
    fs::rename(importing.lib.join(".git"), importing.place.path().join("gone")).unwrap();
    let newer = importing.build("app", &["--offline", "--locked"]);
    assert!(
        importing.said(&newer).starts_with("second\n/layerize/store/"),
        "{newer}"
    );
}

/// A C library that only an import has pinned has no locale in this lock: that is told, with what gives it one.
#[test]
fn an_imported_c_library_without_a_locale_is_told() {
    let Some(importing) = Importing::new() else { return };
    let linked = "[package.linked]\nruntime = [\"deb:libc6\"]\nscript = \"mkdir $out; echo $LAYERIZE_CORES >$out/x\"\n";
    importing.write("layerize.toml", &format!("{LIB}{linked}"));
    let mut lock = importing.place.command(&["lock", "-q"]);
    Ran::of(lock.current_dir(&importing.lib).output().unwrap()).success();
    importing.commit("linked");
    let build = |more: &str| {
        let image = format!("[image.it]\ncontents = [\"lib:linked\"]\n{more}");
        let imports = "[imports]\nlib = { git = \"../lib\" }\n";
        importing.place.write("layerize.toml", &format!("{imports}{image}"));
        importing.run(&["build", "it", "-o", "oci:out:v1"]).success()
    };
    let help = [
        "has no UTF-8 locale",
        "add \"deb:libc6\" to its `contents`, or write `utf-8 = false`",
    ];
    build("").says(&help);
    assert!(!build("utf-8 = false\n").stderr.contains(help[0]));
    build("");
    let spec = fs::read_to_string(importing.place.project.join("layerize.toml")).unwrap();
    importing.place.write(
        "layerize.toml",
        &spec.replace("\"lib:linked\"", "\"lib:linked\", \"deb:libc6\""),
    );
    let ran = importing.run(&["build", "it", "-o", "oci:out:v1"]).success();
    assert!(!ran.stderr.contains(help[0]), "{}", ran.stderr);
    let config = importing.run(&["inspect", "--json", "oci:out:v1"]).success().stdout;
    assert!(config.contains("LANG=C.UTF-8"), "{config}");
}

#[test]
fn what_is_wrong_with_an_import_is_told() {
    let Some(importing) = Importing::new() else { return };
    importing.run(&["lock", "-q"]).success();
    let fails = |says: &[&str]| {
        importing.run(&["build", "app"]).exits(2).says(says);
    };
    let spec = |text: &str| {
        importing.place.write("layerize.toml", text);
    };
    let imports = "[imports]\nlib = { git = \"../lib\" }\n";
    spec(&(imports.to_owned() + &APP.replace("lib:speak", "lib:speek")));
    fails(&[
        "unknown package `lib:speek`",
        "did you mean `lib:speak`?",
        "layerize.toml:",
    ]);
    spec(&(imports.to_owned() + &APP.replace("\"lib:speak\"", "\"lib\"")));
    fails(&["`lib` is an import: write `lib:NAME`"]);
    spec(&(imports.to_owned() + APP));
    importing.run(&["build", "lib"]).exits(2).says(&["lib"]);
    spec(&format!("{imports}{APP}[package.lib]\nsource = \"x\"\n"));
    fails(&["`lib` is an import and a package"]);
    spec(&format!(
        "[imports]\nlib = {{ git = \"../lib\", path = \"../lib\" }}\n{APP}"
    ));
    fails(&["`path`", "`git`"]);
    spec(&format!("[imports]\nlib = {{ rev = \"x\" }}\n{APP}"));
    fails(&["does not say where from"]);
    spec(&format!(
        "[imports]\nlib = {{ git = \"../lib\", dir = \"nowhere\" }}\n{APP}"
    ));
    fails(&["has no layerize.toml in `nowhere`"]);
    importing.import("git = \"../other\"");
    importing.run(&["lock", "--update", "lib"]).exits(2).says(&["other"]);

    importing.import("git = \"../lib\", branch = \"main\"");
    importing
        .run(&["build", "app", "--locked"])
        .exits(2)
        .says(&["missing", "lib"]);
    let lock = importing.lib.join("layerize.lock");
    let kept = fs::read_to_string(&lock).unwrap();
    fs::remove_file(&lock).unwrap();
    importing.commit("no lock");
    importing.run(&["lock", "-q", "--update", "lib"]).success();
    fails(&[
        "the lock of the import `lib` is missing",
        "layerize lock",
        "layerize update lib",
    ]);
    fs::write(&lock, kept).unwrap();
    importing.write(
        "layerize.toml",
        &LIB.replace("script = \"mkdir", "tools = [\"deb:make\"]\nscript = \"mkdir"),
    );
    importing.commit("stale");
    importing.run(&["lock", "-q", "--update", "lib"]).success();
    fails(&["the lock of the import `lib` is not current", "deb:make"]);
    importing.write("layerize.toml", &LIB.replace("path = \"word\"", "path = \"/etc\""));
    importing.commit("outside");
    importing.run(&["lock", "-q", "--update", "lib"]).success();
    fails(&["cannot import `lib`", "leads out of its own tree"]);
}

#[test]
fn an_import_of_an_import_and_two_revisions_of_one() {
    let Some(importing) = Importing::new() else { return };
    let first = importing.commit("nothing");
    // `middle` imports `lib` by a lock of its own, and makes nothing itself.
    let middle = importing.place.elsewhere();
    let (place, lib) = (&importing.place, importing.lib.display().to_string());
    let spec = format!("[imports]\ndeep = {{ git = \"{lib}\" }}\n[package.own]\nsource = \"own\"\n");
    middle.write("layerize.toml", &spec).write("own/file", "own\n");
    middle.run(&["lock", "-q"]).success();
    let at = place.path().join("middle");
    copy_tree(&middle.project, &at);
    git(place, &at, &["init", "-q", "-b", "main"]);
    git(place, &at, &["add", "-A"]);
    git(place, &at, &["commit", "-q", "-m", "middle"]);
    importing.write("word/word.txt", "second\n");
    importing.commit("second");
    let text = format!(
        "[imports]\nm = {{ git = \"../middle\" }}\nnew = {{ git = \"../lib\" }}\nold = {{ git = \"../lib\", rev = \"{first}\" }}\n\
         [package.app]\nruntime = [\"m:deep:word\", \"new:word\", \"old:word\", \"m:own\"]\n\
         script = 'mkdir -p $out/share; cat $package_m_deep_word/share/* $package_new_word/share/* \
         $package_old_word/share/* $package_m_own/file >$out/share/said'\n"
    );
    place.write("layerize.toml", &text);
    let app = importing.build("app", &[]);
    assert_eq!(importing.said(&app), "first\nsecond\nfirst\nown\n");
    assert_eq!(importing.build("m:deep:word", &[]), importing.build("old:word", &[]));
}

#[test]
fn an_archive_is_imported_too_and_kept_with_the_inputs() {
    let Some(importing) = Importing::new() else { return };
    let place = &importing.place;
    let mut tar = Command::new("tar");
    place.prepare(tar.args(["-czf", "lib.tar.gz", "--exclude=.git", "-C", "..", "lib"]));
    peer(&mut tar);
    let sum = peer(Command::new("sha256sum").arg("lib.tar.gz").current_dir(&place.project)).stdout;
    let sum = &sum[..64];
    importing.import(&format!("url = \"file:lib.tar.gz\", sha256 = \"{sum}\""));
    let app = importing.build("app", &[]);
    importing.import("url = \"file:lib.tar.gz\"");
    assert_eq!(importing.build("app", &[]), app);
    let lock = fs::read_to_string(place.project.join("layerize.lock")).unwrap();
    assert!(lock.contains(sum), "{lock}");
    let listed = importing.run(&["inputs", "list"]).success().stdout;
    assert!(listed.contains("lib.tar.gz"), "{listed}");
    let built = importing
        .run(&["build", "-q", "all", "--inputs=all", "-o", "oci:out:v1"])
        .success();
    // Somebody who has the image alone makes it again.
    let other = Place::new();
    let image = format!("oci:{}:v1", place.project.join("out").display());
    fs::remove_file(place.project.join("lib.tar.gz")).unwrap();
    let mut rebuild = other.command(&["rebuild", &image]);
    rebuild.env("XDG_CACHE_HOME", other.path().join("cache"));
    let rebuilt = Ran::of(rebuild.output().unwrap()).success();
    assert!(
        built.stdout.contains(
            rebuilt
                .stdout
                .split(' ')
                .rev()
                .find(|word| word.starts_with("sha256:"))
                .unwrap()
        )
    );
}
