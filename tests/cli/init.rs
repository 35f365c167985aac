//! The first image in an empty directory, and the manual.

use std::fs;
use std::process::Command;

use crate::support::{Place, have, peer};

#[test]
fn an_empty_directory_gets_an_image_that_runs() {
    let place = Place::new();
    let ran = place.run(&["init", "my first"]).success();
    assert_eq!(
        ran.stdout,
        "my first/layerize.toml\nmy first/hello.c\nmy first/.gitignore\n"
    );
    ran.says(&["Next: cd my first && layerize build"]);
    let dir = place.project.join("my first");
    assert_eq!(fs::read_to_string(dir.join(".gitignore")).unwrap(), "/*.tar\n");
    place
        .run(&["init", "my first"])
        .exits(2)
        .says(&["`my first/layerize.toml` exists already", "layerize build"]);
    let mut command = place.command(&["build"]);
    let built = crate::support::Ran::of(command.current_dir(&dir).output().unwrap()).success();
    assert!(
        built.line().ends_with(" docker-archive:my-first.tar"),
        "{}",
        built.stdout
    );
    let mut command = place.command(&["run", "my-first"]);
    let ran = crate::support::Ran::of(command.current_dir(&dir).output().unwrap()).success();
    assert_eq!(ran.stdout, "Hello from layerize.\n");
}

#[test]
fn what_is_there_is_built_by_its_own_rules() {
    let place = Place::new();
    place
        .write("say.c", "#include <stdio.h>\nint main(void) { puts(WORD); }\n")
        .write(
            "Makefile",
            "say: say.c\n\tgcc -DWORD='\"made\"' -o say say.c\ninstall: say\n\tmkdir -p $(PREFIX)/bin\n\tcp say $(PREFIX)/bin/\n",
        )
        .write(".gitignore", "/say\n");
    place
        .run(&["init", "--name", "Say"])
        .exits(2)
        .says(&["`Say` is not a valid name for a package and an image"]);
    assert!(!place.project.join("layerize.toml").exists(), "nothing is written");
    let ran = place.run(&["init", "--name", "say"]).success();
    assert_eq!(ran.stdout, "layerize.toml\n.gitignore\n");
    assert_eq!(
        fs::read_to_string(place.project.join(".gitignore")).unwrap(),
        "/say\n/*.tar\n"
    );
    place.run(&["build"]).success();
    assert_eq!(place.run(&["run", "say"]).success().stdout, "made\n");
}

/// What a first day leaves in a repository is the project alone: no archive of any image, and no private key.
#[test]
fn git_takes_neither_archives_nor_private_keys() {
    if !have("git", &["--version"]) {
        return;
    }
    let git = |place: &Place, args: &[&str]| {
        let mut command = Command::new("git");
        place.prepare(command.args(args));
        peer(&mut command).stdout
    };
    let taken = |place: &Place| {
        git(place, &["add", "-A"]);
        git(place, &["ls-files"]).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let place = Place::new();
    git(&place, &["init", "--quiet"]);
    place.write("say.sh", "echo hello\n");
    place.run(&["init", "--name", "say"]).success();
    // A spec as it is some days later: a second image, and a debug image.
    let files = "files = { \"/say.sh\" = \"say.sh\" }\n";
    place.write(
        "layerize.toml",
        &format!("[image.say]\n{files}\n[image.other]\n{files}"),
    );
    let built = place.run(&["build"]).success();
    assert!(!built.stderr.contains("git add"), "{}", built.stderr);
    place
        .run(&["key", "generate", "release"])
        .success()
        .says(&["`release.key` is in .gitignore: git leaves it alone"]);
    place.write("keys/README", "");
    place
        .run(&["store", "key", "generate", "ci-1", "--dir", "keys"])
        .success()
        .says(&["`keys/ci-1.secret` is in keys/.gitignore"]);
    assert!(place.project.join("other.tar").exists());
    assert_eq!(
        taken(&place),
        [
            ".gitignore",
            "keys/.gitignore",
            "keys/README",
            "keys/ci-1.public",
            "layerize.toml",
            "release.pub",
            "say.sh"
        ]
    );

    // Without `init` nothing was said of archives: the first one is told.
    let place = Place::new();
    place
        .write("say.sh", "echo hello\n")
        .write("layerize.toml", &format!("[image.say]\n{files}"));
    let told = "`git add -A` would take say.tar: add `/*.tar` to .gitignore";
    let built = place.run(&["build"]).success();
    assert!(
        !built.stderr.contains("git add"),
        "there is no repository: {}",
        built.stderr
    );
    git(&place, &["init", "--quiet"]);
    place.run(&["build"]).success().says(&[told]);
    let named = place.run(&["build", "-o", "docker-archive:say.tar"]).success();
    assert!(!named.stderr.contains("git add"), "the user named it: {}", named.stderr);
    place.write(".gitignore", "*.tar\n");
    let built = place.run(&["build"]).success();
    assert!(!built.stderr.contains("git add"), "{}", built.stderr);
}

#[test]
fn the_manual_is_shown_and_becomes_man_pages() {
    let place = Place::new();
    let overview = place.run(&["help"]).success().stdout;
    let topics = overview.lines().skip(1).take_while(|line| !line.is_empty());
    let topics: Vec<&str> = topics.map(|line| line.split_whitespace().next().unwrap()).collect();
    assert!(topics.len() >= 8, "{overview}");
    for topic in &topics {
        let text = place.run(&["help", topic]).success().stdout;
        let source = format!("{}/src/cli/help/{topic}.md", env!("CARGO_MANIFEST_DIR"));
        let source = fs::read_to_string(source).unwrap();
        assert_eq!(
            text.lines().next().unwrap(),
            source.lines().next().unwrap().trim_start_matches("# ")
        );
        assert!(!text.contains("```"), "{text}");
    }
    let help = place.run(&["help", "store", "gc"]).success().stdout;
    assert_eq!(help, place.run(&["store", "gc", "--help"]).success().stdout);
    place
        .run(&["help", "no such"])
        .exits(2)
        .says(&["there is no topic and no command `no such`", "exit-status"]);
    place.run(&["man", "pages"]).success();
    let pages = layerize::fsio::sorted_names(&place.project.join("pages")).unwrap();
    let pages: Vec<String> = pages.into_iter().map(|page| page.into_string().unwrap()).collect();
    for topic in topics {
        assert!(pages.contains(&format!("layerize-{topic}.7")), "{pages:?}");
    }
    for page in ["layerize.1", "layerize-build.1", "layerize-store-gc.1"] {
        assert!(pages.contains(&page.to_owned()), "{pages:?}");
    }
    if crate::support::have("man", &["--version"]) {
        let mut man = std::process::Command::new("man");
        man.args(["--warnings", "--encoding=utf8", "--local-file"])
            .arg(place.project.join("pages/layerize-spec.7"));
        let shown = crate::support::peer(man.env("MANWIDTH", "100"));
        assert!(
            shown.stdout.contains("[package.hello]") && shown.stderr.is_empty(),
            "{}",
            shown.stderr
        );
    }
}
