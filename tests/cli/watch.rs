//! What is watched: built again and started anew while a person edits, at a terminal.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::{Place, have};
use crate::terminal::Terminal;

const SPEC: &str = r#"
[package.app]
source = { path = ".", exclude = ["ignored"] }
script = """
test ! -e bad || { echo this is bad >&2; exit 1; }
mkdir -p $out/bin
cp app.sh $out/bin/app
chmod +x $out/bin/app
"""

[image.app]
contents = ["app"]
entrypoint = ["app"]
env = { WORD = "of the image" }
"#;

/// A program that says which version it is and its number, and what becomes of it.
fn program(version: &str) -> String {
    format!(
        "#!/bin/sh\ntrap 'echo {version} asked to end; exit' TERM\necho {version} runs as $$ ${{WORD-}}\nsleep 1000 &\n\
         while :; do sleep 0.05; done\n"
    )
}

fn place() -> Place {
    let place = Place::new();
    place.write("layerize.toml", SPEC).write("app.sh", &program("one"));
    place.lock_base();
    place
}

/// The number of the process that `VERSION runs as` was shown with last.
fn pid(terminal: &Terminal, version: &str) -> u32 {
    let said = format!("{version} runs as ");
    let (_, rest) = terminal.seen.rsplit_once(&said).unwrap();
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

fn lives(pid: u32) -> bool {
    // A zombie is none that lives, and nothing that should be left.
    Path::new("/proc").join(pid.to_string()).exists()
}

#[track_caller]
fn is_gone(pid: u32) {
    let until = Instant::now() + Duration::from_secs(10);
    while lives(pid) {
        assert!(Instant::now() < until, "{pid} is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Saves as editors do: beside the file, and then in its place.
fn save(place: &Place, name: &str, text: &str) {
    let new = place.project.join(format!("{name}.new"));
    fs::write(&new, text).unwrap();
    fs::rename(new, place.project.join(name)).unwrap();
}

#[test]
fn what_is_edited_is_built_and_started_anew() {
    if !have("setsid", &["--version"]) {
        return;
    }
    let place = place();
    let mut terminal = Terminal::start(&place.command(&["watch", "app"]));
    terminal.expect("one runs as ").expect(" of the image");
    let first = pid(&terminal, "one");
    save(&place, "app.sh", &program("two"));
    terminal
        .expect("app.sh changed")
        .expect("one asked to end")
        .expect("two runs as ")
        .expect(" of the image");
    is_gone(first);
    let second = pid(&terminal, "two");

    // What is left out is nothing to it, nor is what a build writes; the next change is.
    place.write("ignored/file", "x").write(".layerize/x", "");
    std::thread::sleep(Duration::from_millis(400));
    let before = terminal.seen.len();
    place.write("new/file", "x");
    terminal.expect("new changed");
    assert!(!terminal.seen[before..].contains("ignored"), "{}", terminal.seen);
    // A new file leaves the program as it is, which goes on.
    terminal.expect("nothing of it changed");

    place.write("bad", "");
    terminal
        .expect("bad changed")
        .expect("this is bad")
        .expect("what ran before goes on");
    assert!(lives(second));
    fs::remove_file(place.project.join("bad")).unwrap();
    terminal.expect("bad changed").expect("nothing of it changed");
    save(&place, "layerize.toml", "[package.app\n");
    terminal.expect("error").expect("what ran before goes on");
    save(&place, "layerize.toml", &SPEC.replace("of the image", "of another"));
    terminal.expect("two runs as ").expect(" of another");
    is_gone(second);

    let third = pid(&terminal, "two");
    terminal.interrupt();
    assert_eq!(terminal.end(), 0, "{}", terminal.seen);
    is_gone(third);
    // The children of what ran are gone as well.
    let left = std::process::Command::new("pgrep")
        .args(["-g", &third.to_string()])
        .output();
    assert!(left.is_ok_and(|left| left.stdout.is_empty()));
}

#[test]
fn a_program_of_the_machine_is_given_what_was_built() {
    if !have("setsid", &["--version"]) {
        return;
    }
    let place = place();
    let command = [
        "watch",
        "app",
        "--",
        "sh",
        "-c",
        "echo it is $out; sed -n s/trap/found/p $out/bin/app; exit 3",
    ];
    let mut terminal = Terminal::start(&place.command(&command));
    terminal.expect("it is /layerize/store/").expect("found 'echo one");
    terminal.expect("it ended with status 3");
    save(&place, "app.sh", &program("two"));
    terminal.expect("found 'echo two").expect("it ended with status 3");
    terminal.interrupt();
    assert_eq!(terminal.end(), 0, "{}", terminal.seen);

    let mut terminal = Terminal::start(&place.command(&["watch", "app", "--no-run"]));
    terminal.expect("built in ").expect("waiting for changes in ");
    terminal.interrupt();
    assert_eq!(terminal.end(), 0, "{}", terminal.seen);

    place.run(&["watch", "apps"]).exits(2).says(&["apps", "app"]);
    place
        .run(&["watch", "app", "--", "no-such-program"])
        .exits(2)
        .says(&["there is no program `no-such-program`"]);
}

/// What `watch` started ends with it, in whatever way that does.
#[test]
fn a_killed_watch_leaves_no_program_behind() {
    if !have("setsid", &["--version"]) {
        return;
    }
    let place = place();
    let mut child = place
        .command(&["watch", "-q", "app"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    let pid: u32 = line.split(' ').nth(3).unwrap().parse().unwrap();
    assert!(lives(pid), "{line}");
    child.kill().unwrap();
    child.wait().unwrap();
    is_gone(pid);
}

/// What the engine has is what was edited last.
#[test]
fn an_image_is_loaded_anew_when_its_files_change() {
    if !have("setsid", &["--version"]) || !have("docker", &["info"]) {
        return;
    }
    let place = Place::new();
    let name = "layerize-test-watched";
    let spec = format!("[package.data]\nsource = \"data\"\n[image.{name}]\ncontents = [\"data\"]\n");
    place.write("layerize.toml", &spec).write("data/word", "one\n");
    let id = || {
        let inspect = ["image", "inspect", "--format", "{{.Id}}", name];
        let output = std::process::Command::new("docker").args(inspect).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let mut terminal = Terminal::start(&place.command(&["watch", "--load", name]));
    terminal.expect("loaded in ").expect("waiting for changes");
    let first = id();
    save(&place, "data/word", "two\n");
    terminal.expect("word changed").expect("loaded in ");
    terminal.expect("waiting for changes");
    let second = id();
    terminal.interrupt();
    let status = terminal.end();
    let _ = std::process::Command::new("docker")
        .args(["rmi", "-f", name, &first])
        .output();
    assert_eq!(status, 0, "{}", terminal.seen);
    assert!(
        first.starts_with("sha256:") && second.starts_with("sha256:") && first != second,
        "{first} {second}"
    );
}
