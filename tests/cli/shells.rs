//! Shells as people use them: in a terminal, with start files of their own that want to have the last word on `PATH`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::support::{Place, Ran, have};
use crate::terminal::Terminal;

/// `tool` says whose it is, and a package whose shell has it.
const SPEC: &str = r#"
[package.tool]
script = '''
mkdir -p $out/bin
printf '#!/bin/sh\necho "the tool of the environment, $1"\n' >$out/bin/tool
chmod +x $out/bin/tool
'''

[package.thing]
tools = ["tool"]
env = { FLAVOUR = "sweet" }
script = "mkdir $out"

[package.other]
env = { COLOUR = "blue" }
script = "mkdir $out"

[package.salty]
env = { FLAVOUR = "salty" }
script = "mkdir $out"
"#;

/// A project, a home whose programs want to be first, and a program that only the machine has.
fn place() -> Place {
    let place = Place::new();
    place.write("layerize.toml", SPEC);
    place.lock_base();
    for (dir, name, text) in [
        ("fight", "tool", "echo the wrong one"),
        ("fight", "fighter", "echo behind"),
        ("handy", "handy", HANDY),
    ] {
        program(&place, &format!("{dir}/{name}"), text);
    }
    place
}

/// Tells in which root it runs, and what it finds there.
const HANDY: &str =
    "echo handy: $(test -d /layerize/environment && echo on the machine) $LD_LIBRARY_PATH ${FLAVOUR-none}; tool back";

fn program(place: &Place, path: &str, text: &str) {
    let path = place.path().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// `layerize` with the variables of a person.
fn layerize(place: &Place, shell: &str, arguments: &[&str]) -> Command {
    let mut command = place.command(arguments);
    let handy = place.path().join("handy");
    command
        .env("SHELL", format!("/usr/bin/{shell}"))
        .env("TERM", "xterm")
        .env(
            "PATH",
            format!("{}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", handy.display()),
        )
        .env("OWN", "kept");
    command
}

/// The start file of a shell, what it does to PATH, and a prompt that shows the shell by itself.
fn start_file(shell: &str) -> (&'static str, &'static str, &'static str) {
    match shell {
        "bash" => (
            ".bashrc",
            "export PATH=\"$HOME/fight:$PATH\"\nPROMPT_COMMAND='PATH=$HOME/fight:$PATH; '\nPS1='mine> '\n",
            "PS1='<$LAYERIZE_SHELL> '\n",
        ),
        "zsh" => (
            ".zshrc",
            "export PATH=$HOME/fight:$PATH\nprecmd() { path=($HOME/fight $path) }\nPROMPT='mine> '\n",
            "setopt prompt_subst\nPROMPT='<$LAYERIZE_SHELL> '\n",
        ),
        _ => (
            ".config/fish/config.fish",
            "fish_add_path $HOME/fight\nfunction hook --on-event fish_prompt; set -gx PATH $HOME/fight $PATH; end\n\
             function fish_prompt; echo 'mine> '; end\n",
            "function fish_prompt; echo \"<$LAYERIZE_SHELL> \"; end\n",
        ),
    }
}

fn write_start_file(place: &Place, path: &str, text: &str) {
    // fish looks where XDG says.
    let path = match path.strip_prefix(".config/") {
        Some(below) => place.path().join("config").join(below),
        None => place.path().join(path),
    };
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn wins_in(shell: &str) {
    if !have(shell, &["--version"]) || !have("setsid", &["--version"]) {
        return;
    }
    let place = place();
    let (file, fights, shows) = start_file(shell);
    write_start_file(&place, file, fights);
    let mut terminal = Terminal::start(&layerize(&place, shell, &["shell", "thing"]));
    terminal.expect("(layerize:thing) ").expect("mine> ");
    terminal.line("tool one").expect("the tool of the environment, one");
    terminal.expect("mine> ").line("fighter").expect("behind");
    terminal
        .expect("mine> ")
        .line("echo $OWN-$FLAVOUR-$LAYERIZE_SHELL")
        .expect("kept-sweet-thing");
    terminal.expect("mine> ").line("handy");
    terminal
        .expect("handy: on the machine")
        .expect("the tool of the environment, back");
    // What the user does is meant.
    terminal.expect("mine> ").line(match shell {
        "fish" => "set -gx PATH $HOME/fight $PATH",
        _ => "export PATH=$HOME/fight:$PATH",
    });
    terminal.expect("mine> ").line("tool two").expect("the wrong one");
    terminal.expect("mine> ").line("exit 7");
    assert_eq!(terminal.end(), 7, "{}", terminal.seen);

    write_start_file(&place, file, &format!("{fights}{shows}"));
    let mut terminal = Terminal::start(&layerize(&place, shell, &["shell", "thing"]));
    terminal.expect("<thing> ").line("exit");
    assert_eq!(terminal.end(), 0, "{}", terminal.seen);
    assert!(!terminal.seen.contains("(layerize:"), "{}", terminal.seen);
}

#[test]
fn the_environment_wins_in_bash() {
    wins_in("bash");
}

#[test]
fn the_environment_wins_in_zsh() {
    wins_in("zsh");
}

#[test]
fn the_environment_wins_in_fish() {
    wins_in("fish");
}

#[test]
fn the_machines_programs_are_behind_the_environments_unless_the_shell_is_pure() {
    let place = place();
    let run = |arguments: &[&str]| {
        let mut command = layerize(&place, "bash", arguments);
        command.env("LD_LIBRARY_PATH", "/nowhere");
        Ran::of(command.output().unwrap())
    };
    let text =
        "handy; echo here: ${LD_LIBRARY_PATH-none} $FLAVOUR $OWN; cd /layerize/crossing && handy >/dev/null; exit 3";
    let ran = run(&["shell", "-q", "thing", "-c", text]).exits(3);
    let expected = "handy: on the machine /nowhere none\nthe tool of the environment, back\nhere: none sweet kept\n";
    assert_eq!(ran.stdout, expected, "{}", ran.stderr);
    // A name that is only a link to what has gone meanwhile is no program.
    let gone = format!("rm {}/handy/handy; handy", place.path().display());
    let ran = run(&["shell", "-q", "thing", "-c", &gone]).exits(127);
    assert!(ran.stderr.contains("handy"), "{}", ran.stderr);
    // A script that only the machine has runs with the machine's own interpreter, whatever its name is.
    let machine = tempfile::tempdir_in("/var/tmp").unwrap();
    for (name, text) in [
        ("scripted", "#!/usr/bin/env tool\n"),
        ("tool", "#!/bin/sh\necho the machine has it run ${1##*/}\n"),
    ] {
        let path = machine.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = layerize(&place, "bash", &["shell", "-q", "thing", "-c", "tool four; scripted"]);
    command.env("PATH", format!("{}:/usr/bin:/bin", machine.path().display()));
    let ran = Ran::of(command.output().unwrap()).success();
    let expected = "the tool of the environment, four\nthe machine has it run scripted\n";
    assert_eq!(ran.stdout, expected, "{}", ran.stderr);
    let text = "command -v fighter handy git; echo ${OWN-none} $FLAVOUR; tool two; ls /layerize";
    let ran = run(&["shell", "-q", "--pure", "thing", "-c", text]).success();
    assert_eq!(
        ran.stdout, "none sweet\nthe tool of the environment, two\nstore\n",
        "{}",
        ran.stderr
    );
}

#[test]
fn environments_are_had_together_where_they_agree() {
    let place = place();
    let text = "tool three; echo $FLAVOUR $COLOUR $LAYERIZE_SHELL";
    let ran = place.run(&["shell", "-q", "thing", "other", "-c", text]).success();
    assert_eq!(
        ran.stdout,
        "the tool of the environment, three\nsweet blue thing+other\n"
    );
    let ran = place.run(&["shell", "-q", "thing", "salty", "-c", text]).exits(2);
    ran.says(&[
        "the variable `FLAVOUR` is `sweet` for `thing` and `salty` for `salty`",
        "one at a time",
    ]);

    let second = place.path().join("second");
    fs::create_dir(&second).unwrap();
    fs::write(
        second.join("layerize.toml"),
        "[package.second]\nenv = { SIDE = \"dish\" }\nscript = \"mkdir $out\"\n",
    )
    .unwrap();
    fs::copy(place.project.join("layerize.lock"), second.join("layerize.lock")).unwrap();
    let both = [
        "--file",
        ".",
        "--file",
        "../second",
        "shell",
        "-q",
        "thing",
        "second",
        "-c",
    ];
    let ran = place
        .run(&[&both[..], &["echo $FLAVOUR $SIDE; pwd"]].concat())
        .success();
    assert_eq!(ran.stdout, format!("sweet dish\n{}\n", place.project.display()));
    place
        .run(&["--file", ".", "--file", "../second", "build"])
        .exits(2)
        .says(&["several specs are named"]);
}

#[test]
fn the_status_of_what_runs_comes_back() {
    let place = place();
    for (text, status) in [("exit 0", 0), ("exit 41", 41), ("kill -KILL $$", 128 + 9)] {
        assert_eq!(
            place.run(&["shell", "-q", "thing", "-c", text]).status,
            status,
            "{text}"
        );
    }
}

/// A package whose script fails at its third line until somebody helps.
const FAILING: &str = r#"[package.thing]
source = { path = "src" }
env = { FLAVOUR = "sweet" }
script = '''
echo one >first
cp greeting second
test -e help
mkdir $out; cp second $out/
'''
"#;

#[test]
fn one_stands_before_a_script_and_where_it_failed() {
    let place = Place::new();
    place.write("layerize.toml", FAILING).write("src/greeting", "hello\n");
    place.lock_base();
    let text = "pwd; ls; id -u; echo $FLAVOUR; test -d $src && echo source; test -e $out || echo nothing; run_lines 1 2; ls; \
                touch help; run_script; cat $out/second; grep -c : /proc/net/dev";
    let ran = place.run(&["shell", "-q", "--build", "thing", "-c", text]).success();
    let expected = "/build/source\ngreeting\n1000\nsweet\nsource\nnothing\nfirst\ngreeting\nsecond\nhello\n1\n";
    assert_eq!(ran.stdout, expected, "{}", ran.stderr);
    // The user's own files are as they were.
    assert_eq!(
        layerize::fsio::sorted_names(&place.project.join("src")).unwrap(),
        ["greeting"]
    );

    let failed = ["shell", "-q", "--build", "--failed", "thing"];
    let none = place.run(&failed).exits(2);
    none.says(&["no failed build of `thing` is kept", "--keep-failed"]);
    let ran = place.run(&["build", "--keep-failed", "thing"]).exits(2);
    ran.says(&["`layerize shell --build thing --failed` enters it"]);
    let ran = place.run(&[&failed[..], &["-c", "ls; show_script"]].concat()).success();
    assert!(
        ran.stdout.starts_with("first\ngreeting\nsecond\n1\techo one"),
        "{}",
        ran.stdout
    );
    if !have("setsid", &["--version"]) {
        return;
    }
    let mut terminal = Terminal::start(&place.command(&failed));
    terminal
        .expect("it failed at line 3: test -e help")
        .expect("(build of thing) ");
    terminal
        .line("touch help; run_lines 3 4; cat $out/second; exit 6")
        .expect("hello\r");
    assert_eq!(terminal.end(), 6, "{}", terminal.seen);
    place.run(&["build", "thing"]).exits(2);
}

/// Says where it is, and where each library is that it was loaded with.
const WHERE: &str = r#"#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
  char path[4096];
  ssize_t size = readlink("/proc/self/exe", path, sizeof path - 1);
  printf("program %.*s %s\n", (int)size, path, argc > 1 ? argv[1] : "");
  FILE *maps = fopen("/proc/self/maps", "r");
  for (char line[4096]; fgets(line, sizeof line, maps);) {
    char *place = strchr(line, '/');
    if (place && strstr(place, ".so") && strstr(line, "r-xp")) printf("library %s", place);
  }
  return 5;
}
"#;

#[test]
fn a_program_is_the_same_in_a_shell_on_the_machine_in_its_image_and_in_docker() {
    let place = Place::with_spec("hello");
    let name = format!("layerize-test-same-{}", std::process::id());
    let spec = format!(
        "[package.where]\nsource = {{ path = \".\", include = [\"where.c\"] }}\ntools = [\"deb:gcc\", \"deb:make\"]\n\
         libraries = [\"deb:libc6-dev\"]\nscript = \"mkdir -p $out/bin; gcc -o $out/bin/where where.c\"\n\n\
         [image.{name}]\ncontents = [\"where\"]\nentrypoint = [\"where\"]\n"
    );
    place.write("where.c", WHERE).write("layerize.toml", &spec);
    let built = place.run(&["build", "-q", "where"]).success().stdout;
    let program = format!("{}/bin/where", built.trim());
    let run = |arguments: &[&str]| place.run(arguments).exits(5).stdout;
    let said = run(&["run", "-q", "where", "--", "it"]);
    assert!(
        said.starts_with(&format!("program {program} it\nlibrary /layerize/store/")),
        "{said}"
    );
    let in_store = |line: &str| {
        line.split(' ')
            .nth(1)
            .is_some_and(|place| place.starts_with("/layerize/store/"))
    };
    assert!(said.lines().count() >= 3 && said.lines().all(in_store), "{said}");
    assert_eq!(run(&["shell", "-q", "where", "-c", &format!("{program} it")]), said);
    assert_eq!(run(&["run", "-q", &name, "--", "it"]), said);
    assert_eq!(run(&["run", "-q", "--isolated", &name, "--", "it"]), said);
    if have("docker", &["info"]) {
        place.run(&["load", "-q", "--engine", "docker"]).success();
        let output = Command::new("docker")
            .args(["run", "--rm", "--network", "none", &name, "it"])
            .output();
        let ran = Ran::of(output.unwrap());
        let _ = Command::new("docker").args(["rmi", "-f", &name]).output();
        assert_eq!(ran.exits(5).stdout, said);
    }
}
