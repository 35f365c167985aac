//! Trees deeper than any path can tell, and names near that limit: whoever makes them, the store stays usable.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::{Place, is_root, peer, skipped};

/// A package whose script makes directories in one another, 5000 bytes of path in all, in `dir`, and ends with `last`.
fn deep(name: &str, dir: &str, last: &str) -> String {
    format!(
        "[package.{name}]\nscript = '''\nmkdir -p {dir}; cd {dir}\nname=$(printf '%0100d' 0)\n\
         for i in $(seq 50); do mkdir $name; cd $name; done\n{last}\n'''\n\n"
    )
}

/// What lies in the store's directory `tmp`.
fn debris(place: &Place) -> Vec<std::ffi::OsString> {
    layerize::fsio::sorted_names(&place.store().join("tmp")).unwrap()
}

const LS: &[&str] = &["store", "ls"];
const VERIFY: &[&str] = &["store", "verify"];
const GC: &[&str] = &["store", "gc"];

/// That commands on a store work, and leave no debris.
#[track_caller]
fn works(place: &Place, commands: &[&[&str]]) {
    for command in commands {
        let ran = place.run(command).success();
        assert!(!ran.stderr.contains("warning"), "{command:?}: {}", ran.stderr);
    }
    assert_eq!(debris(place), Vec::<std::ffi::OsString>::new());
}

/// Linux takes paths of 4095 bytes (`PATH_MAX`), but directories may lie in one another as deep as one likes: whoever makes
/// one after the other by relative names gets there. `rm -rf` removes such trees, and so must the store.
#[test]
fn trees_deeper_than_any_path_leave_the_store_usable() {
    let place = Place::with_script("true");
    let mut spec = "[package.plain]\nscript = 'echo > $out'\n\n".to_owned();
    for (dir, where_) in [("/tmp", "tmp"), ("/build", "build"), ("$out", "out")] {
        spec += &deep(&format!("{where_}-ok"), dir, "[ -e $out ] || echo > $out");
        spec += &deep(&format!("{where_}-fails"), dir, "exit 3");
    }
    place.write("layerize.toml", &spec);
    for where_ in ["tmp", "build"] {
        place.run(&["build", &format!("{where_}-ok")]).success();
        works(&place, &[LS]);
    }
    // What nobody could open by its path is no store path.
    place.run(&["build", "out-ok"]).exits(2).says(&[
        "cannot build `out-ok`",
        "bytes long with the directories above it, and the system takes 4095",
        "fewer directories",
    ]);
    works(&place, &[LS]);
    for where_ in ["tmp", "build", "out"] {
        for keep in [&[][..], &["--keep-failed"]] {
            let name = format!("{where_}-fails");
            let command = [&["build", name.as_str()], keep].concat();
            place.run(&command).exits(2).says(&["failed with exit status 3"]);
            works(&place, &[LS]);
        }
        // What was kept goes when something is kept again.
        let again = ["build", &format!("{where_}-fails"), "--keep-failed"];
        place.run(&again).exits(2).says(&["failed with exit status 3"]);
    }
    works(&place, &[&["build", "plain"], VERIFY, GC, LS]);
    layerize::fsio::remove_tree(&place.store()).unwrap();
}

/// A path that fits where it is made and not where it would be kept is refused when it is to be registered: nothing could
/// open it afterwards, not `store verify` and not what packs a layer.
#[test]
fn a_path_that_is_too_long_in_the_store_alone_is_refused() {
    let place = Place::with_script("true");
    // In the sandbox `$out` is below `/layerize/store`, 15 bytes; on disk it is below the store's directory.
    let room = |store: usize| 4095 - store - "/".len() - 32 - "-fits".len();
    let on_disk = room(place.store().join("store").as_os_str().len());
    let inside = room("/layerize/store".len());
    assert!(on_disk < inside, "{}", place.store().display());
    let make = |name: &str, length: usize| {
        format!(
            "[package.{name}]\nscript = '''\nleft={length}\npath=$out; mkdir $out\n\
             while [ $left -gt 200 ]; do path=$path/$(printf '%0149d' 0); left=$((left - 150)); mkdir $path; done\n\
             echo text > $path/$(printf \"%0$((left - 1))d\" 0)\n'''\n\n"
        )
    };
    place.write(
        "layerize.toml",
        &[make("fits", on_disk), make("long", on_disk + 1), make("most", inside)].concat(),
    );
    place.run(&["build", "fits"]).success();
    place.run(&["store", "verify"]).success();
    for name in ["long", "most"] {
        place.run(&["build", name]).exits(2).says(&[
            "bytes long with the directories above it",
            "help: make fewer directories",
        ]);
    }
    place.run(&["store", "gc"]).success();
    assert_eq!(debris(&place), Vec::<std::ffi::OsString>::new());
}

/// The user's own files may be as deep as they like; what cannot be a source is an error that says so.
#[test]
fn a_source_that_is_too_deep_is_an_error() {
    let place = Place::with_script("true");
    place.write(
        "layerize.toml",
        "[package.plain]\nscript = 'echo > $out'\n\n[package.x]\nsource = \"src\"\n",
    );
    let make = "mkdir src; cd src; n=$(printf '%0100d' 0); for i in $(seq 50); do mkdir $n; cd $n; done; echo > file";
    peer(Command::new("bash").args(["-c", make]).current_dir(&place.project));
    place
        .run(&["build", "x"])
        .exits(2)
        .says(&["help:", "fewer directories in one another"]);
    works(&place, &[LS]);
    let shallow = "rm -rf src; mkdir src; cd src; mkdir -p $(printf 'd/%.0s' $(seq 1100))";
    peer(Command::new("bash").args(["-c", shallow]).current_dir(&place.project));
    place
        .run(&["build", "x"])
        .exits(2)
        .says(&["is more than 1024 directories deep", "help: make fewer directories"]);
    works(&place, &[LS, VERIFY, GC]);
    layerize::fsio::remove_tree(&place.project).unwrap();
}

/// Debris that cannot be removed (here: files that root made immutable) is told, and ends no command.
#[test]
fn debris_that_cannot_be_removed_is_a_warning() {
    if !is_root() {
        return skipped("only root can make files immutable");
    }
    let place = Place::new();
    place.write("file", "x");
    place.run(&["store", "add", "file"]).success();
    let kept = place.store().join("tmp/session-dead.1/dir");
    fs::create_dir_all(&kept).unwrap();
    fs::write(kept.join("file"), "").unwrap();
    fs::write(kept.join("other"), "").unwrap();
    let file = kept.join("file");
    let immutable = Immutable::make(&file);
    if immutable.is_none() {
        return skipped("this file system has no immutable files");
    }
    for command in [&["store", "ls"][..], &["store", "verify"], &["store", "gc"]] {
        let text = "session-dead.1/dir/file` (Operation not permitted";
        place.run(command).success().says(&["warning:", text]);
    }
    assert!(!kept.join("other").exists(), "the rest is removed");
    drop(immutable);
    let listed = place.run(&["store", "ls"]).success();
    assert!(!listed.stderr.contains("warning"), "{}", listed.stderr);
    assert_eq!(debris(&place), Vec::<std::ffi::OsString>::new());
}

/// A file that nobody can remove as long as this lives.
struct Immutable<'a>(&'a Path);

impl<'a> Immutable<'a> {
    fn make(path: &'a Path) -> Option<Self> {
        let status = Command::new("chattr").arg("+i").arg(path).status();
        status.is_ok_and(|status| status.success()).then_some(Self(path))
    }
}

impl Drop for Immutable<'_> {
    fn drop(&mut self) {
        peer(Command::new("chattr").arg("-i").arg(self.0));
    }
}

/// `$out` may be a link into what the build was given, as an alias of a package is; one that leads elsewhere would dangle
/// in every image, or show a file of whatever machine it is on.
#[test]
fn an_output_that_leads_out_of_the_store_is_an_error() {
    let place = Place::with_script("true");
    let mut spec = "[package.tool]\nscript = 'mkdir $out; echo > $out/file'\n\n".to_owned();
    let links = [
        ("absolute", "/etc/passwd", "/etc/passwd"),
        ("build", "/build/source", "/build/source"),
        ("relative", "../../etc/passwd", "../../etc/passwd"),
        ("inside", "$tool/missing", "/missing"),
        ("beside", "nothing", "nothing"),
        ("through", "$tool/../../../etc", "/../../../etc"),
        ("itself", "$out", "-itself"),
        ("store", "/layerize/store", "/layerize/store"),
    ];
    let tool = "tools = [\"tool\"]\nscript = '''\ntool=$(echo /layerize/store/*-tool)\n";
    for (name, target, _) in links {
        spec += &format!("[package.{name}]\n{tool}ln -s {target} $out\n'''\n\n");
    }
    for (name, target) in [
        ("alias", "$tool"),
        ("part", "$tool/file"),
        ("short", "$(basename $tool)"),
    ] {
        spec += &format!("[package.{name}]\n{tool}ln -s {target} $out\n'''\n\n");
    }
    place.write("layerize.toml", &spec);
    for (name, _, shown) in links {
        let text = format!("{shown}`, which leads out of it and will not be there");
        place
            .run(&["build", name])
            .exits(2)
            .says(&["made `$out` a link to", &text, "help: copy"]);
    }
    for name in ["alias", "part", "short"] {
        place.run(&["build", name]).success();
    }
}
