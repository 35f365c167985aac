//! The ladder of walls: what is built is the same behind all of them, and what it was built behind is known; in containers of
//! a Docker engine, and on this machine.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::support::{LAYERIZE, Place, Ran, copy_tree, have, is_root, peer, script_spec, shared_cache, skipped};

/// Makes a file that says who made it and on what.
const SCRIPT: &str = "mkdir $out; { id -u; id -g; uname -n; umask; pwd; } >$out/who; cat /dev/null /proc/self/comm >>$out/who; \
                      echo x >/dev/null; cat <(echo y) >>$out/who; tar cf $out/made.tar --sort=name --mtime=@1 /build/source";

/// Whether we are root, who alone can change the root; says so where we are not.
fn can_chroot() -> bool {
    if !is_root() {
        skipped("walls of root alone");
    }
    is_root()
}

/// What the store says of the only path whose name ends so.
fn info(place: &Place, name: &str) -> Value {
    let ran = place.run(&["store", "info", "--json", &path_of(place, name)]).success();
    let all: Value = serde_json::from_str(&ran.stdout).unwrap();
    all.as_array().map_or(all.clone(), |all| all[0].clone())
}

fn path_of(place: &Place, name: &str) -> String {
    let all = place.run(&["store", "ls"]).success().stdout;
    let paths = all.lines().filter_map(|line| line.split_whitespace().next());
    paths.into_iter().find(|path| path.ends_with(name)).unwrap().to_owned()
}

#[test]
fn what_is_built_is_the_same_behind_all_walls_and_they_are_recorded() {
    if !can_chroot() {
        return;
    }
    let place = Place::with_script(SCRIPT);
    let walled = place.run(&["build", "thing"]).success().line().to_owned();
    assert_eq!(info(&place, "-thing")["walls"], "namespaces");
    for walls in ["chroot", "traced"] {
        let other = place.elsewhere();
        let flags = ["build", "thing", "--sandbox", walls, "--provenance"];
        let built = other.run(&flags).success();
        assert_eq!(built.line(), walled);
        assert!(!built.stderr.contains("warning"), "it was asked for: {}", built.stderr);
        assert_eq!(info(&other, "-thing")["walls"], walls);
        let path = path_of(&other, "-thing");
        let told = other.run(&["store", "info", &path]).success().stdout;
        assert!(told.contains(&format!("  walls       {walls}\n")), "{told}");
        let names = layerize::fsio::sorted_names(&other.project).unwrap();
        let name = names.iter().find(|name| name.to_string_lossy().contains("provenance"));
        let statement = fs::read(other.project.join(name.unwrap())).unwrap();
        let statement: Value = serde_json::from_slice(&statement).unwrap();
        let subjects = statement["subject"].as_array().unwrap();
        let subject = subjects
            .iter()
            .find(|subject| subject["name"] == path.as_str())
            .unwrap();
        assert_eq!(subject["annotations"]["walls"], walls);
        // What was built behind less is there for all who do not ask for more.
        other.run(&["build", "thing", "--offline"]).success();
    }
}

/// Runs a command of a place where namespaces are refused, as they are below any changed root.
fn without_namespaces(place: &Place, args: &[&str]) -> Ran {
    let root = place.path().join("world");
    fs::create_dir_all(&root).unwrap();
    let script = "mount --rbind / \"$1\" && shift && exec chroot \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
    command.args([&root, &root]);
    let chdir = "cd \"$1\" && shift && exec \"$@\"";
    command
        .args(["sh", "-c", chdir, "sh"])
        .arg(&place.project)
        .arg(LAYERIZE)
        .args(args);
    place.prepare(&mut command);
    command.current_dir("/");
    Ran::of(command.output().unwrap())
}

#[test]
fn the_strongest_walls_that_can_be_had_are_chosen_and_less_can_be_refused() {
    if !can_chroot() {
        return;
    }
    let place = Place::with_script(SCRIPT);
    let spec = script_spec(SCRIPT);
    let cannot = ["cannot create a user namespace", "help: ", "layerize help sandbox"];
    let refused = |ran: Ran| {
        let ran = ran.exits(2).says(&cannot);
        assert!(!ran.stderr.contains("building"), "{}", ran.stderr);
    };
    // The command, the machine and the spec may each ask for more.
    refused(without_namespaces(
        &place,
        &["build", "thing", "--require-sandbox", "namespaces"],
    ));
    place.write("layerize.toml", &format!("[build]\nrequire = \"namespaces\"\n\n{spec}"));
    refused(without_namespaces(&place, &["build", "thing"]));
    refused(without_namespaces(
        &place,
        &["build", "thing", "--require-sandbox", "chroot"],
    ));
    place.run(&["build", "thing", "--sandbox", "chroot"]).exits(2).says(&[
        "scripts are to run behind `chroot`, and something requires `namespaces`",
        "help: leave `--sandbox chroot`, or the builder, out",
    ]);
    place.write("layerize.toml", &spec);
    let config = place.path().join("config/layerize");
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("config.toml"), "[build]\nrequire = \"namespaces\"\n").unwrap();
    refused(without_namespaces(&place, &["build", "thing"]));
    fs::write(config.join("config.toml"), "[build]\nrequire = \"chroot\"\n").unwrap();
    place
        .run(&["build", "thing", "--sandbox", "none"])
        .exits(2)
        .says(&["requires `chroot`"]);

    let built = without_namespaces(&place, &["build", "thing"]).success().says(&[
        "warning: scripts run behind weaker walls, `chroot` instead of `namespaces` (`layerize help sandbox`): cannot set up \
         the sandbox: cannot create a user namespace",
    ]);
    assert_eq!(built.stderr.matches("warning:").count(), 1, "{}", built.stderr);
    let line = built.line().to_owned();
    assert_eq!(info(&place, "-thing")["walls"], "chroot");
    let other = place.elsewhere();
    assert_eq!(other.run(&["build", "thing"]).success().line(), line);
    // Nothing runs, so nothing is told.
    let again = without_namespaces(&place, &["build", "thing"]).success();
    assert!(!again.stderr.contains("warning"), "{}", again.stderr);
    for (value, said) in [("moat", "`moat` names no walls"), ("", "names no walls")] {
        place.run(&["build", "--sandbox", value]).exits(2).says(&[said]);
        place.run(&["build", "--require-sandbox", value]).exits(2).says(&[said]);
    }
}

#[test]
fn what_needs_namespaces_is_refused_before_anything_is_done() {
    if !can_chroot() {
        return;
    }
    let place = Place::with_script("mkdir $out");
    place
        .run(&["check", "--sandbox", "chroot", "thing"])
        .exits(2)
        .says(&["behind `chroot`", "leave out"]);
    place.write("layerize.toml", "[image.app]\nroot = [\"deb:bash\", \"deb:passwd\"]\n");
    place.run(&["lock"]).success();
    let refused = place.run(&["build", "app", "--sandbox", "chroot"]).exits(2);
    let refused = refused.says(&[
        "maintainer scripts run in namespaces only, not behind `chroot`",
        "`configure = false`",
    ]);
    assert!(!refused.stderr.contains("\nunpacked"), "{}", refused.stderr);
}

/// An image of Debian's with layerize's needs and nothing else, in the engine; its name.
fn container_image(place: &Place) -> String {
    let name = format!("lz-ci-{}", std::process::id());
    let spec = format!(
        "[image.{name}]\nroot = [\"deb:bash\", \"deb:coreutils\", \"deb:libgcc-s1\", \"deb:gpgv\"]\nconfigure = false\n\
         entrypoint = [\"/bin/bash\", \"-c\"]\n"
    );
    let maker = Place::new();
    maker.write("layerize.toml", &spec);
    maker.run(&["load", &name]).success();
    // What the containers see: the program, the project and the downloads.
    let shared = place.path().join("shared");
    fs::create_dir_all(&shared).unwrap();
    fs::copy(LAYERIZE, shared.join("layerize")).unwrap();
    copy_tree(&place.project, &shared.join("project"));
    peer(Command::new("chmod").args(["-R", "a+rwX"]).arg(&shared));
    name
}

/// Runs a script in a container as the engine makes them, but for `flags`.
fn contained(place: &Place, image: &str, flags: &[&str], script: &str) -> Ran {
    let mut command = Command::new("docker");
    command.args([
        "run",
        "--rm",
        "--network",
        "none",
        "--tmpfs",
        "/tmp:exec",
        "-w",
        "/shared/project",
    ]);
    command
        .arg("-v")
        .arg(format!("{}:/shared", place.path().join("shared").display()));
    command.arg("-v").arg(format!("{}:/cache", shared_cache().display()));
    for variable in ["XDG_DATA_HOME=/tmp/data", "XDG_CACHE_HOME=/cache", "HOME=/tmp/home"] {
        command.args(["-e", variable]);
    }
    command.args(flags).arg(image).arg(script);
    Ran::of(command.output().unwrap())
}

/// Lines of an info, by their names.
fn field<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines()
        .find_map(|line| line.trim().strip_prefix(name))
        .unwrap_or_default()
        .trim()
}

const BUILD: &str = "layerize=/shared/layerize; $layerize build --locked --offline";

/// The project of a place, whose image is hello as `line` says, is built in containers of an engine to which no privilege is
/// added: to the same digest where it can be, and else that is said.
pub fn containers_build_the_same(place: &Place, line: &str) {
    if !have("docker", &["info"]) {
        return;
    }
    let _ = fs::remove_file(place.project.join("hello.tar"));
    let image = container_image(place);
    let script = format!(
        "set -e; {BUILD} hello; \
         $layerize store ls | while read path rest; do case $path in *-hello-2.10) $layerize store info $path;; esac; done"
    );
    let ran = contained(place, &image, &[], &script).success();
    assert_eq!(ran.stdout.lines().next().unwrap(), line, "{}", ran.stderr);
    assert_eq!(field(&ran.stdout, "walls"), "chroot");
    let ran = ran.says(&[
        "warning: scripts run behind weaker walls, `chroot`",
        "a container's system call filter",
    ]);
    assert_eq!(ran.stderr.matches("warning: scripts").count(), 1);
    containers_with_less(place, &image);
    peer(Command::new("docker").args(["image", "rm", "-f", &image]));
}

/// Where not even the root can be changed the calls are traced; who requires more is told all that was tried, before anything is
/// unpacked.
fn containers_with_less(place: &Place, image: &str) {
    let small = Place::with_script(SCRIPT);
    let line = small.run(&["build", "thing"]).success().line().to_owned();
    let _ = fs::remove_file(small.project.join("thing.tar"));
    let shared = place.path().join("shared");
    copy_tree(&small.project, &shared.join("small"));
    small
        .run(&["inputs", "export", &format!("oci:{}", shared.join("inputs").display())])
        .success();
    peer(Command::new("chmod").args(["-R", "a+rwX"]).arg(&shared));
    let build = format!("cd ../small; {BUILD} thing --inputs-from oci:/shared/inputs");
    let script = format!(
        "set -e; {build}; \
         $layerize store ls | while read path rest; do case $path in *-thing) $layerize store info $path;; esac; done"
    );
    let ordinary = ["--user", "1234", "-e", "XDG_CACHE_HOME=/tmp/cache"];
    let dropped = ["--cap-drop", "SYS_CHROOT"];
    let unable = ["--cap-drop", "SETUID"];
    for flags in [&ordinary[..], &dropped] {
        let ran = contained(place, image, flags, &script).success();
        assert_eq!(ran.stdout.lines().next().unwrap(), line, "{}", ran.stderr);
        assert_eq!(field(&ran.stdout, "walls"), "traced");
        let ran = ran.says(&["warning: scripts run behind weaker walls, `traced` instead of `namespaces`"]);
        assert_eq!(ran.stderr.matches("warning: scripts").count(), 1);
    }
    for (flags, said) in [
        (&ordinary[..], "only root can do that"),
        (&dropped, "this is root without the capability `SYS_CHROOT`"),
        (&unable, "this is root without the capability `SETUID` and `SETGID`"),
    ] {
        let script = format!("{build} --require-sandbox chroot");
        let ran = contained(place, image, flags, &script).exits(2);
        let ran = ran.says(&[
            "  namespaces: cannot set up",
            "  chroot: cannot set up",
            said,
            "help: for `namespaces`: ",
        ]);
        assert!(!ran.stderr.contains("unpacked"), "{}", ran.stderr);
    }
    // Whoever says that nothing is enough gets it, with the machine's programs, where the store is at its place.
    let bare = Place::with_script("mkdir $out; id -u >$out/who; (setsid sleep 300 &)");
    copy_tree(&bare.project, &place.path().join("shared/bare"));
    peer(
        Command::new("chmod")
            .args(["-R", "a+rwX"])
            .arg(place.path().join("shared/bare")),
    );
    let at_place = place.path().join("shared/at-place");
    copy_tree(&bare.store(), &at_place);
    peer(Command::new("chown").args(["-R", "1234"]).arg(&at_place));
    let volume = format!("{}:/layerize", at_place.display());
    // A filter that lets nobody trace anything either.
    let profile = place.path().join("profile.json");
    let filter = r#"{"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["ptrace", "unshare"], "action": "SCMP_ACT_ERRNO"}]}"#;
    fs::write(&profile, filter).unwrap();
    let filter = format!("seccomp={}", profile.display());
    let flags = [&ordinary[..], &["-v", &volume, "--security-opt", &filter]].concat();
    let script = format!("cd ../bare; {BUILD} --store /layerize thing");
    let refused = contained(place, image, &flags, &script).exits(2);
    refused.says(&[
        "  chroot: cannot set up",
        "  traced: cannot set up the sandbox: cannot trace the build's processes",
        "`kernel.yama.ptrace_scope`",
    ]);
    let script = format!(
        "set -e; cd ../bare; {BUILD} --store /layerize --require-sandbox none thing; cat /layerize/store/*-thing/who; \
         for p in /proc/[0-9]*; do read name <$p/comm || true; echo \"process $name\"; done"
    );
    let ran = contained(place, image, &flags, &script).success();
    assert!(
        ran.stdout.contains("\n1234\n") && !ran.stdout.contains("process sleep"),
        "{}",
        ran.stdout
    );
    let ran = ran.says(&["warning: scripts run behind weaker walls, `none` instead of `namespaces`"]);
    assert_eq!(ran.stderr.matches("warning: scripts").count(), 1);
    // Without the right to make nodes, devices are served.
    let script = format!("cd ../small; {BUILD} thing");
    let ran = contained(place, image, &["--cap-drop", "MKNOD"], &script).success();
    assert_eq!(ran.stdout.trim_end(), line, "{}", ran.stderr);
}
