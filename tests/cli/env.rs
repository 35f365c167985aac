//! The environment of a shell as text: evaluated by shells and direnv, read by others, and what its paths lead to.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use crate::support::{Place, Ran, have, peer};

/// What quoting may get wrong.
const NASTY: &str = "a b\t\"c\" 'd' $HOME `e` \\n \\\nline two\n#x ";

const SPEC: &str = r#"
[package.tool]
script = '''
mkdir -p $out/bin $out/include $out/lib/pkgconfig
printf '#!/bin/sh\necho "the tool: $1, $(pwd), ${FLAVOUR-none}, ${LAYERIZE_ROOT-none}, $(command -v tool)"; exit 7\n' >$out/bin/tool
chmod +x $out/bin/tool
echo '#define TOOL 42' >$out/include/tool.h
printf 'prefix=%s\nName: tool\nVersion: 1\nDescription: x\nCflags: -I${prefix}/include\n' $out >$out/lib/pkgconfig/tool.pc
'''

[package.thing]
source = { path = "." }
tools = ["tool"]
libraries = ["tool"]
env = { FLAVOUR = "sweet", NASTY = NASTY_VALUE, PLACE = "/layerize/store/none" }
script = "mkdir $out; ls -A >$out/list"

[package.other]
env = { COLOUR = "blue" }
script = "mkdir $out"
"#;

fn place() -> Place {
    let place = Place::new();
    let nasty = serde_json::to_string(NASTY).unwrap();
    place.write("layerize.toml", &SPEC.replace("NASTY_VALUE", &nasty));
    place.write("main.c", "int main;\n");
    place.lock_base();
    place
}

fn in_bash(place: &Place, text: &str) -> Ran {
    let mut command = Command::new("bash");
    place.prepare(command.args(["-euc", text]));
    let path = format!(
        "{}:/usr/bin:/bin",
        std::path::Path::new(crate::support::LAYERIZE)
            .parent()
            .unwrap()
            .display()
    );
    Ran::of(command.env("PATH", path).output().unwrap())
}

fn view(place: &Place, name: &str) -> std::path::PathBuf {
    place.project.join(".layerize/env").join(name)
}

#[test]
fn a_shell_evaluates_the_environment_and_its_programs_run_in_it() {
    let place = place();
    let text = "eval \"$(layerize env -q thing)\"\n\
         eval \"$(layerize env -q thing)\"\n\
         mkdir -p below; cd below; tool one || echo status $?\n\
         printf '%s|%s|%s' \"$NASTY\" \"$FLAVOUR\" \"$PATH\"";
    let ran = in_bash(&place, text).success();
    let project = place.project.canonicalize().unwrap();
    let (first, rest) = ran.stdout.split_once('\n').unwrap();
    let start = format!(
        "the tool: one, {}/below, sweet, none, /layerize/store/",
        project.display()
    );
    assert!(
        first.starts_with(&start) && first.ends_with("-tool/bin/tool"),
        "{first}\n{start}"
    );
    let bin = view(&place, "thing").join("bin");
    let rest = rest.strip_prefix("status 7\n").unwrap();
    let (nasty, rest) = rest.split_once("|sweet|").unwrap();
    assert_eq!(nasty, NASTY);
    assert_eq!(rest.matches(&*bin.display().to_string()).count(), 1, "{rest}");
    assert!(rest.starts_with(&*bin.display().to_string()), "{rest}");
}

#[test]
fn a_view_is_made_anew_where_spec_or_lock_changed_and_only_there() {
    let place = place();
    let env = |arguments: &[&str]| {
        let arguments: Vec<&str> = ["env", "-q", "--offline"].iter().chain(arguments).copied().collect();
        place.run(&arguments).success().stdout
    };
    let made = || fs::metadata(view(&place, "thing")).unwrap().ino();
    let (text, first) = (env(&["thing"]), made());
    place.write("source.c", "int x;\n");
    assert_eq!((env(&["thing"]), made()), (text.clone(), first));
    let spec = fs::read_to_string(place.project.join("layerize.toml")).unwrap();
    place.write("layerize.toml", &spec.replace("sweet", "salty"));
    assert!(env(&["thing"]).contains("FLAVOUR='salty'"));
    let second = made();
    assert_ne!(second, first);
    env(&["thing", "--refresh"]);
    assert_ne!(made(), second);
    // Two at once are a view of their own; what they say otherwise is told.
    assert!(env(&["thing", "other"]).contains("COLOUR='blue'"));
    assert!(view(&place, "thing+other").join("bin/tool").exists());
    // What the store lost is made again, and told where only a launcher asks for it.
    fs::remove_dir_all(place.store()).unwrap();
    let launcher = view(&place, "thing").join("bin/tool");
    let mut lost = Command::new(&launcher);
    place.prepare(&mut lost);
    Ran::of(lost.output().unwrap())
        .exits(2)
        .says(&["is no environment any more", "layerize env"]);
    place.lock_base();
    env(&["thing"]);
    let mut again = Command::new(&launcher);
    place.prepare(&mut again);
    Ran::of(again.output().unwrap()).exits(7);
}

#[test]
fn a_view_is_no_part_of_the_source_and_nothing_for_git() {
    let place = place();
    let built = |place: &Place| place.run(&["build", "-q", "thing"]).success().stdout;
    let before = built(&place);
    place.run(&["env", "-q", "thing"]).success();
    assert_eq!(built(&place), before);
    if have("git", &["--version"]) {
        let git = |arguments: &[&str]| {
            let mut command = Command::new("git");
            place.prepare(command.args(arguments));
            peer(&mut command).stdout
        };
        git(&["init", "-q"]);
        git(&["add", "-A"]);
        assert_eq!(git(&["ls-files"]), "layerize.lock\nlayerize.toml\nmain.c\n");
    }
    // The store keeps what the view leads to.
    let roots = place.run(&["store", "roots"]).success().stdout;
    assert!(roots.contains("environment thing"), "{roots}");
    place.run(&["store", "gc", "--all"]).success();
    let mut again = Command::new(view(&place, "thing").join("bin/tool"));
    place.prepare(&mut again);
    Ran::of(again.output().unwrap()).exits(7);
}

#[test]
fn the_environment_is_json() {
    let place = place();
    let ran = place.run(&["env", "--json", "thing"]).success();
    let value: serde_json::Value = serde_json::from_str(ran.line()).unwrap();
    assert_eq!(value["variables"]["NASTY"], NASTY);
    assert_eq!(value["name"], "thing");
    let root = value["root"].as_str().unwrap();
    assert_eq!(value["programs"], serde_json::json!(["tool"]));
    for path in [
        &value["path"][0],
        &value["root"],
        &value["files"][0],
        &value["files"][1],
    ] {
        assert!(fs::metadata(path.as_str().unwrap()).is_ok(), "{path}");
    }
    // What names the store names it as it is on this machine.
    let physical = place.store().join("store");
    assert_eq!(value["variables"]["PLACE"], format!("{}/none", physical.display()));
    let include = value["variables"]["CPATH"].as_str().unwrap();
    assert!(fs::read_to_string(format!("{include}/tool.h")).unwrap().contains("42"));
    // A `.pc` file says its own prefix; the sysroot before it makes that a path of the machine.
    if have("pkg-config", &["--version"]) {
        let mut command = Command::new("pkg-config");
        place.prepare(command.args(["--cflags", "tool"]));
        for name in ["PKG_CONFIG_PATH", "PKG_CONFIG_SYSROOT_DIR"] {
            command.env(name, value["variables"][name].as_str().unwrap());
        }
        let flags = peer(&mut command).stdout;
        assert!(flags.starts_with(&format!("-I{root}/layerize/store/")), "{flags}");
        assert!(fs::metadata(format!("{}/tool.h", flags.trim().trim_start_matches("-I"))).is_ok());
    }
}

/// The variables that a program prints as JSON.
fn parsed(ran: &Ran) -> BTreeMap<String, String> {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.stdout))
}

#[test]
fn a_dotenv_file_is_read_as_it_is_meant() {
    let place = place();
    let text = place.run(&["env", "-q", "--dotenv", "thing"]).success().stdout;
    place.write("env.txt", &text);
    let ran = in_bash(
        &place,
        "set -a; . ./env.txt; printf '%s|' \"$NASTY\" \"$FLAVOUR\"; echo \"$PATH\"",
    )
    .success();
    let rest = ran
        .stdout
        .strip_prefix(NASTY)
        .unwrap_or_else(|| panic!("{}", ran.stdout));
    let bin = view(&place, "thing").join("bin");
    assert!(rest.starts_with(&format!("|sweet|{}:", bin.display())), "{rest}");
    assert!(rest.contains(":/usr/bin:"), "{rest}");
    // An interpreter other than a shell, for all that needs no escape.
    if have("/usr/bin/python3", &["-c", "import dotenv"]) {
        let mut command = Command::new("/usr/bin/python3");
        let script = "import dotenv, json; print(json.dumps(dotenv.dotenv_values('env.txt')))";
        place.prepare(command.args(["-c", script]));
        let read = parsed(&peer(&mut command));
        assert_eq!(read["FLAVOUR"], "sweet");
        assert!(read["PATH"].starts_with(&*bin.display().to_string()));
        assert!(read.contains_key("CPATH") && read.contains_key("NASTY"));
    }
}

#[test]
fn direnv_loads_the_environment_and_knows_what_it_depends_on() {
    if !have("direnv", &["version"]) {
        return;
    }
    let place = place();
    place.write(".envrc", "eval \"$(layerize env -q --direnv thing)\"\n");
    let text = "direnv allow . 2>/dev/null\n\
         direnv exec . bash -c 'tool two; printf %s \"$NASTY\"' || true\n\
         direnv export json 2>/dev/null | tr -d '\\n' >exported.json";
    let ran = in_bash(&place, text).success();
    assert!(ran.stdout.starts_with("the tool: two, "), "{}", ran.stdout);
    assert!(ran.stdout.ends_with(NASTY), "{}", ran.stdout);
    let exported: serde_json::Value =
        serde_json::from_slice(&fs::read(place.project.join("exported.json")).unwrap()).unwrap();
    assert!(exported["DIRENV_WATCHES"].is_string(), "{exported}");
    let text = place.run(&["env", "-q", "--direnv", "thing"]).success().stdout;
    for name in ["layerize.toml", "layerize.lock"] {
        let line = format!("watch_file '{}'\n", place.project.join(name).display());
        assert!(text.contains(&line), "{text}");
    }
}

#[test]
fn compilers_and_language_servers_outside_find_headers() {
    let place = Place::with_spec("hello");
    place.write(
        "include.c",
        "#include <stdio.h>\nint main(void) { puts(\"from outside\"); return 0; }\n",
    );
    let text = "eval \"$(layerize env -q hello)\"\n\
         gcc -o program include.c && layerize shell -q -- ./program\n\
         cc --version >/dev/null\n\
         /usr/bin/cc -E -H include.c 2>&1 >/dev/null | head -n 1";
    let ran = in_bash(&place, text).success();
    let header = view(&place, "hello").join("root/usr/include/stdio.h");
    assert_eq!(ran.stdout, format!("from outside\n. {}\n", header.display()));
    // The view is of links, and no link leads elsewhere than it does in the shell.
    let root = view(&place, "hello").join("root");
    for below in [
        "usr/include/stdio.h",
        "usr/lib/x86_64-linux-gnu/libc.so.6",
        "lib/x86_64-linux-gnu/libc.so",
    ] {
        let path = root.join(below);
        let real = path
            .canonicalize()
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(
            real.starts_with(place.store().canonicalize().unwrap()),
            "{}",
            real.display()
        );
    }
    if have("clangd", &["--version"]) {
        let text = "eval \"$(layerize env -q hello)\"; clangd --check=include.c 2>&1 | grep -c \"$LAYERIZE_ROOT\"";
        let lines: u32 = in_bash(&place, text).success().line().parse().unwrap();
        assert!(lines > 0);
    }
}

#[test]
fn launchers_start_while_the_view_is_made_anew() {
    let place = place();
    place.run(&["env", "-q", "thing"]).success();
    let text = "for i in 1 2 3 4; do layerize env -q --refresh thing >made; done & maker=$!\n\
         while kill -0 $maker 2>/dev/null; do\n\
         .layerize/env/thing/bin/tool one >said 2>>errors || [ $? = 7 ] || echo failed\ndone\n\
         wait $maker; cat errors";
    assert_eq!(in_bash(&place, text).success().stdout, "");
    // What a killed one left is removed by the next.
    fs::create_dir(place.project.join(".layerize/env/.layerize-left")).unwrap();
    place.run(&["env", "-q", "thing", "--refresh"]).success();
    let names = layerize::fsio::sorted_names(&place.project.join(".layerize/env")).unwrap();
    assert_eq!(names, [".lock", "thing"]);
}

#[test]
fn launchers_start_in_shells_and_without_a_home() {
    let place = place();
    place.run(&["env", "-q", "thing"]).success();
    let text = "layerize shell other -c '.layerize/env/thing/bin/tool inside' || echo status $?\n\
         env -i .layerize/env/thing/bin/tool alone || echo status $?";
    let ran = in_bash(&place, text).success();
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert!(lines[0].starts_with("the tool: inside, "), "{ran:?}");
    assert!(lines[2].starts_with("the tool: alone, "), "{ran:?}");
    assert_eq!((lines[1], lines[3]), ("status 7", "status 7"));
}

#[test]
fn the_environment_that_was_evaluated_last_is_first() {
    let place = place();
    let text = "for name in thing other thing; do eval \"$(layerize env -q $name)\"; done; printf %s \"$PATH\"";
    let ran = in_bash(&place, text).success();
    let bin = view(&place, "thing").join("bin").display().to_string();
    assert!(ran.stdout.starts_with(&bin), "{}", ran.stdout);
    // Another spec beside it has another view.
    place.write("other.toml", "[package.thing]\nscript = \"mkdir $out\"\n");
    let other = place.run(&["env", "-q", "--file", "other.toml", "--json"]).success();
    assert!(other.stdout.contains("/.layerize/env/thing-"), "{}", other.stdout);
    assert!(view(&place, "thing").join("bin/tool").exists());
}

#[test]
fn fish_evaluates_the_environment() {
    if !have("fish", &["--version"]) {
        return;
    }
    let place = place();
    let mut fish = Command::new("fish");
    let text = "layerize env -q --fish thing | source; tool three; printf '%s|%s' \"$NASTY\" \"$FLAVOUR\"";
    place.prepare(fish.args(["--no-config", "-c", text]));
    let bin = std::path::Path::new(crate::support::LAYERIZE).parent().unwrap();
    let ran = Ran::of(
        fish.env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
            .output()
            .unwrap(),
    );
    assert!(ran.stdout.starts_with("the tool: three, "), "{ran:?}");
    assert!(ran.stdout.ends_with(&format!("{NASTY}|sweet")), "{ran:?}");
}

#[test]
fn what_is_broken_is_watched_and_what_would_run_on_its_own_is_refused() {
    let place = place();
    place.write(
        "layerize.toml",
        "[package.thing]\nenv = { \"A;touch pwned\" = \"x\" }\n",
    );
    let broken = place.run(&["env", "-q", "--direnv", "thing"]).exits(2);
    for name in ["layerize.toml", "layerize.lock"] {
        let line = format!("watch_file '{}'\n", place.project.join(name).display());
        assert!(broken.stdout.contains(&line), "{}", broken.stdout);
    }
    broken.says(&["letters, digits and `_` alone"]);
    place
        .run(&["env", "-q", "--direnv", "--json", "thing"])
        .exits(2)
        .says(&["leave out `--json`"]);
}

#[test]
fn a_spec_without_packages_says_what_there_is_instead() {
    let place = Place::new();
    place.write("layerize.toml", "[image.web]\nroot = [\"deb:nginx\"]\n");
    let says = ["has no package", "layerize run --isolated --entrypoint sh web"];
    place.run(&["shell"]).exits(2).says(&says);
    place.run(&["env"]).exits(2).says(&says);
}

#[test]
fn variables_that_are_meant_for_the_root_stay_in_it() {
    let place = place();
    let names = [
        "BASH_ENV",
        "ENV",
        "HOME",
        "IFS",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "PATH",
        "SHELL",
        "TMPDIR",
        "UID",
        "USER",
    ];
    let env = names.map(|name| format!("{name} = \"/wrong\"")).join(", ");
    let spec = format!("[package.thing]\nenv = {{ OWN = \"/right\", {env} }}\nscript = \"mkdir $out\"\n");
    place.write("layerize.toml", &spec);
    for form in ["", "--fish", "--direnv", "--dotenv", "--json"] {
        let arguments = ["env", "-q", "thing", form].into_iter().filter(|word| !word.is_empty());
        let text = place.run(&arguments.collect::<Vec<_>>()).success().stdout;
        assert!(text.contains("/right") && !text.contains("/wrong"), "{form}: {text}");
    }
}

/// The file has what the format of containers.dev has, and its image the environment.
#[test]
fn a_dev_container_is_the_environment_as_an_image() {
    let place = place();
    let ran = place.run(&["env", "--devcontainer", "thing"]).success();
    let file: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(file["name"], "thing");
    assert_eq!(file["image"], "thing-dev:latest");
    let load = serde_json::json!(["layerize", "load", "--dev", "thing"]);
    assert_eq!(file["initializeCommand"], load);
    assert!(file["overrideCommand"].is_boolean() && file["updateRemoteUserUID"].is_boolean());
    ran.says(&["libstdc++6", "add it to `dev`"]);
    let build = [
        "build",
        "-q",
        "--dev",
        "thing",
        "--compression",
        "none",
        "-o",
        "dev.tar",
    ];
    place.run(&build).success();
    let text = "tool one || echo $?; echo $FLAVOUR; command -v sed; cat $package_tool/include/tool.h; echo $CPATH";
    let ran = place.run(&["shell", "-q", "dev.tar", "-c", text]).success();
    assert!(ran.stdout.starts_with("the tool: one, /, sweet,"), "{}", ran.stdout);
    assert!(ran.stdout.contains("\n7\nsweet\n"), "{}", ran.stdout);
    assert!(
        ran.stdout.contains("/bin/sed\n#define TOOL 42\n/layerize/store/"),
        "{}",
        ran.stdout
    );
    place.run(&["build", "--dev", "nothing"]).exits(2).says(&["nothing"]);
    place.run(&["build", "--dev"]).exits(2).says(&["name one", "thing"]);
    place
        .run(&["env", "--devcontainer", "--fish", "thing"])
        .exits(2)
        .says(&["cannot be used with"]);
}
