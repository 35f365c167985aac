//! Completions, as shells ask for them.

use std::process::Command;

use crate::support::{LAYERIZE, Place, have, peer};

const SPEC: &str = "[imports]\nbase = { path = \"base\" }\n\n[package.tool]\nscript = \"x\"\n\n[package.web]\nsource = \"web\"\n\n\
                    [image.web-site]\ncontents = [\"web\"]\ndebug = true\n";

fn place() -> Place {
    let place = Place::new();
    place
        .write("layerize.toml", SPEC)
        .write("base/layerize.toml", "[package.zlib]\nsource = \"x\"\n")
        .write("below/web.tar", "")
        .write("other/layerize.toml", "[package.elsewhere]\nsource = \"x\"\n");
    // The name by which a shell's script calls us.
    place.write("bin/.keep", "");
    std::os::unix::fs::symlink(LAYERIZE, place.project.join("bin/layerize")).unwrap();
    place
}

/// A shell that has the completions, at a script.
fn shell(place: &Place, program: &str, script: &str) -> String {
    let mut command = Command::new(program);
    place.prepare(command.args(["-c", script]));
    let own = place.project.join("bin");
    command.env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", own.display()));
    peer(&mut command).stdout
}

/// What bash offers for the last of these words.
fn bash(place: &Place, words: &[&str]) -> Vec<String> {
    let list = words
        .iter()
        .map(|word| format!("'{word}'"))
        .collect::<Vec<_>>()
        .join(" ");
    let last = words.len() - 1;
    let script = format!(
        "source <(layerize completions bash)\nCOMP_WORDS=({list}); COMP_CWORD={last}\n\
         $(complete -p layerize | sed 's/.*-F \\([^ ]*\\).*/\\1/') layerize '{}' '' 2>/dev/null\n\
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        words[last]
    );
    let mut found: Vec<String> = shell(place, "bash", &script).lines().map(str::to_owned).collect();
    found.sort();
    found
}

#[test]
fn names_of_the_spec_are_offered_where_they_can_stand() {
    let place = place();
    let images = ["web-site", "web-site-debug"];
    let packages = ["base:zlib", "tool", "web"];
    let targets = ["base:zlib", "tool", "web", "web-site", "web-site-debug"];
    // Every argument that takes names, by what it takes.
    for (words, expected) in [
        (&["layerize", "build", ""][..], &targets[..]),
        (&["layerize", "build", "tool", "web-"], &images),
        (&["layerize", "check", "t"], &["tool"]),
        (&["layerize", "closure", "--tree", "t"], &["tool"]),
        (&["layerize", "inputs", "list", "t"], &["tool"]),
        (&["layerize", "load", ""], &images),
        (&["layerize", "plan", ""], &images),
        (&["layerize", "test", ""], &images),
        (&["layerize", "provenance", ""], &images),
        (&["layerize", "shell", ""], &packages),
        (&["layerize", "run", "too"], &["tool"]),
        (&["layerize", "run", "web-"], &images),
        (&["layerize", "diff", "too"], &["tool"]),
        (&["layerize", "diff", "x.tar", "web-site-"], &["web-site-debug"]),
        (&["layerize", "sbom", "web-site-"], &["web-site-debug"]),
        (&["layerize", "push", "web-site-"], &["web-site-debug"]),
        (&["layerize", "explain", "web-site-"], &["web-site-debug"]),
        (&["layerize", "rebuild", "--image", "web-site-"], &["web-site-debug"]),
        // Files, where an image may be one.
        (&["layerize", "inspect", "below/w"], &["below/web.tar"]),
        (&["layerize", "diff", "below/w"], &["below/web.tar"]),
        // What is no name.
        (&["layerize", "verify-s"], &["verify-signature"]),
        (&["layerize", "help", "langu"], &["languages"]),
        (&["layerize", "help", "prov"], &["provenance"]),
        (&["layerize", "load", "--engine", "p"], &["podman"]),
        // Another spec than the nearest.
        (&["layerize", "-f", "other", "shell", ""], &["elsewhere"]),
        (&["layerize", "shell", "--file=other/layerize.toml", ""], &["elsewhere"]),
    ] {
        assert_eq!(bash(&place, words), expected, "{words:?}");
    }
    place.write(
        "layerize.lock",
        &std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/specs/hello/layerize.lock")).unwrap(),
    );
    assert_eq!(bash(&place, &["layerize", "update", "linux-libc"]), ["linux-libc-dev"]);
    assert_eq!(
        bash(&place, &["layerize", "lock", "--update", "linux-libc"]),
        ["linux-libc-dev"]
    );
}

/// A spec that cannot be read, or none, is no reason to print anything; and no word is taken for a command.
#[test]
fn what_is_wrong_is_not_told_while_one_types() {
    let place = place();
    for spec in ["[image", "[image.a]\n", ""] {
        place.write("layerize.toml", spec);
        place.write("layerize.lock", "nonsense");
        let mut command = place.command(&["--", "layerize", "build", ""]);
        command
            .env("LAYERIZE_COMPLETE", "bash")
            .env("_CLAP_COMPLETE_INDEX", "2");
        let output = command.output().unwrap();
        let names = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{:?}",
            output.stderr
        );
        assert!(!names.contains("web"), "{names}");
    }
    let mut command = place.command(&["build"]);
    let output = command.env("LAYERIZE_COMPLETE", "nu").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("unknown shell `nu`"));
    assert!(!place.store().exists(), "nothing was built");
    place.run(&["completions", "tcsh"]).exits(2).says(&["possible values"]);
}

#[test]
fn fish_and_zsh_offer_names_with_what_they_are() {
    let place = place();
    if have("fish", &["--version"]) {
        let found = shell(
            &place,
            "fish",
            "layerize completions fish | source; complete --do-complete 'layerize shell '",
        );
        let mut lines: Vec<&str> = found.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["base:zlib\tpackage", "tool\tpackage", "web\tpackage"]);
    }
    if have("zsh", &["--version"]) {
        // A terminal of its own, in which somebody types and presses the tabulator.
        let script = "zmodload zsh/zpty; zpty -b z zsh -f; sleep 0.3\n\
             zpty -w z 'PS1=; autoload -Uz compinit; compinit -u -D; source <(layerize completions zsh); print RE\"\"ADY'\n\
             zpty -r -m z seen '*READY*'; zpty -w -n z $'layerize load web-\\t'; zpty -r -m z seen '*web-site*'\n\
             print -r -- \"$seen\"; zpty -d z";
        let seen = shell(&place, "zsh", script);
        assert!(seen.contains("layerize load web-site"), "{seen:?}");
    }
}
