//! `layerize diff`: targets of the spec, causes, what is not read, the page.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::support::{Place, have, peer, script_spec};

fn report(place: &Place, args: &[&str]) -> Value {
    let ran = place.run(&[&["diff", "--json"], args].concat()).exits(1);
    last_line(&ran.stdout)
}

/// The report: what is built for it is told in lines before it.
fn last_line(text: &str) -> Value {
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

fn classes(report: &Value) -> Vec<&str> {
    report["classes"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect()
}

const SCRIPT: &str = "mkdir -p $out/bin\nprintf '#!/bin/sh\\necho one\\n' > $out/bin/run\nchmod +x $out/bin/run";

/// An image of before against the spec of now: what was built differently is named down to the line of the script.
#[test]
fn a_target_is_compared_with_the_image_of_before_and_the_cause_is_named() {
    let place = Place::with_script(SCRIPT);
    place.run(&["build", "-o", "docker-archive:old.tar"]).success();
    let same = place.run(&["diff", "thing", "old.tar"]).success();
    assert!(same.stdout.contains("the images are equal"), "{}", same.stdout);

    place.write("layerize.toml", &script_spec(&SCRIPT.replace("echo one", "echo two")));
    let found = report(&place, &["old.tar", "thing"]);
    assert_eq!(classes(&found), ["store-path", "content", "store-hash"], "{found}");
    let differences = found["differences"].as_array().unwrap();
    let path = differences.iter().find(|one| one["level"] == "store-path").unwrap();
    let causes = path["causes"].as_array().unwrap();
    assert_eq!((causes.len(), &causes[0]["input"]), (1, &"script".into()), "{path}");
    let text = causes[0]["text"].as_str().unwrap();
    assert!(text.contains("-printf '#!/bin/sh\\necho one"), "{text}");
    let file = differences.iter().find(|one| one["level"] == "file").unwrap();
    assert!(file["path"].as_str().unwrap().ends_with("-thing/bin/run"), "{file}");
    assert!(file["store_path"].as_str().unwrap().ends_with("-thing"), "{file}");
    assert_eq!(
        file["content"]["text"],
        "@@ -1,2 +1,2 @@\n #!/bin/sh\n-echo one\n+echo two"
    );

    let env = format!(
        "{}\n",
        script_spec(SCRIPT).replace("[package.thing]", "[package.thing]\nenv = { K = \"v\" }")
    );
    place.write(
        "layerize.toml",
        &env.replace("printf '#!", "printf \"# $K\\n\" > $out/k; printf '#!"),
    );
    let text = place.run(&["diff", "old.tar", "thing"]).exits(1).stdout;
    assert!(text.contains("because of env K: absent → v"), "{text}");
    assert!(text.contains("because of script"), "{text}");
    assert!(text.contains("-thing/k added"), "{text}");
}

#[test]
fn store_paths_and_packages_are_compared_as_the_images_they_would_make() {
    let place = Place::new();
    place.write("app/data", "one\n").write(
        "layerize.toml",
        "[package.app]\nsource = \"app\"\n\n[image.app]\ncontents = [\"app\"]\n",
    );
    let one = place.run(&["store", "add", "app"]).success().line().to_owned();
    place.run(&["diff", &one, &one]).success();
    let spec = place.run(&["diff", &one, "app"]).success();
    assert!(spec.stdout.contains("the images are equal"), "{}", spec.stdout);
    place.write("app/data", "two\n");
    let two = place.run(&["store", "add", "app"]).success().line().to_owned();
    let found = report(&place, &[&one, &two]);
    assert_eq!(classes(&found), ["store-path", "content", "store-hash"], "{found}");
    assert_eq!(found["a"]["place"], one);
    place.run(&["diff", &two, &two]).success();
    place
        .run(&["diff", &one, "nothing-of-this-name"])
        .exits(2)
        .says(&["nothing-of-this-name"]);
}

/// The large layer that both have is in neither layout: whoever read it would fail.
#[test]
fn a_layer_that_both_images_have_is_not_even_looked_for() {
    let place = Place::new();
    place
        .write("big/data", &"big".repeat(9999))
        .write("a/x", "one\n")
        .write("b/x", "two\n");
    let add = |dir: &str| {
        place
            .run(&["store", "add", "--name", "p", dir])
            .success()
            .line()
            .to_owned()
    };
    let (big, a, b) = (add("big"), add("a"), add("b"));
    for (path, out) in [(&a, "oci:left"), (&b, "oci:right")] {
        place.run(&["build", &big, path, "--name", "x", "-o", out]).success();
    }
    let layers = |image: &str| -> Vec<String> {
        let digests = place.inspect_layers(image, "digest").into_iter();
        digests
            .map(|digest| digest.as_str().unwrap().replace("sha256:", ""))
            .collect()
    };
    let (left, right) = (layers("oci:left"), layers("oci:right"));
    let shared: Vec<&String> = left.iter().filter(|digest| right.contains(digest)).collect();
    assert!(!shared.is_empty());
    for digest in shared {
        for dir in ["left", "right"] {
            fs::remove_file(place.project.join(dir).join("blobs/sha256").join(digest)).unwrap();
        }
    }
    let found = report(&place, &["oci:left", "oci:right"]);
    assert_eq!(classes(&found), ["store-path", "content", "store-hash"], "{found}");
}

#[test]
fn classes_are_ignored_by_name_and_unknown_ones_refused() {
    let place = Place::new();
    place.write("app/data", "one\n");
    let path = place.run(&["store", "add", "app"]).success().line().to_owned();
    for (user, out) in [("1", "oci:a"), ("2", "oci:b")] {
        let env = format!("K={user}");
        place
            .run(&["build", &path, "--name", "x", "--user", user, "--env", &env, "-o", out])
            .success();
    }
    assert_eq!(classes(&report(&place, &["oci:a", "oci:b"])), ["env", "config"]);
    assert_eq!(
        classes(&report(&place, &["oci:a", "oci:b", "--ignore", "env"])),
        ["config"]
    );
    for all in [
        &["--ignore", "env,config"][..],
        &["--ignore", "env", "--ignore", "config"],
    ] {
        let ran = place.run(&[&["diff", "oci:a", "oci:b"], all].concat()).success();
        assert!(
            ran.stdout.contains("the images are equal, 2 differences ignored"),
            "{}",
            ran.stdout
        );
    }
    place
        .run(&["diff", "oci:a", "oci:b", "--ignore", "mtimes"])
        .exits(2)
        .says(&["`mtimes` is not a class of differences", "mtime, content"]);
}

/// A page of hostile names, in a real browser: every row is there, nothing is run, nothing is fetched.
#[test]
fn the_page_is_rendered_by_a_browser() {
    let place = Place::new();
    let hostile = "<img src=x onerror=document.title='run'>";
    place
        .write(&format!("app/{hostile}"), "<script>document.title='run'</script>\n")
        .write("app/n", "1\n");
    let a = place.run(&["store", "add", "app"]).success().line().to_owned();
    place.write(
        &format!("app/{hostile}"),
        "</pre></table><script>document.title='run'</script>\n",
    );
    place.write("app/new", "2\n");
    let b = place.run(&["store", "add", "app"]).success().line().to_owned();
    let ran = place.run(&["diff", &a, &b, "--html", "page.html", "--json"]).exits(1);
    let found = last_line(&ran.stdout);
    let page = fs::read(place.project.join("page.html")).unwrap();
    place.run(&["diff", &a, &b, "--html", "again.html"]).exits(1);
    assert_eq!(
        page,
        fs::read(place.project.join("again.html")).unwrap(),
        "the page is a function of the images"
    );
    if !have("chromium", &["--version"]) {
        return;
    }
    let mut browser = Command::new("chromium");
    place.prepare(&mut browser);
    browser.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--dump-dom",
    ]);
    let ran = peer(browser.arg(format!("file://{}", place.project.join("page.html").display())));
    let dom = ran.stdout;
    let rows = found["differences"].as_array().unwrap().len();
    assert!(rows >= 4, "{found}");
    assert_eq!(dom.matches("<tr class=\"row\">").count(), rows, "{dom}");
    assert!(
        dom.matches("<g class=\"layer ").count() >= 2 && dom.contains("class=\"band changed\""),
        "{dom}"
    );
    assert!(
        !dom.contains("<img") && !dom.contains("<script") && !dom.contains("<title>run"),
        "{dom}"
    );
    assert!(dom.contains("&lt;img src=x onerror="), "{dom}");
    assert!(!ran.stderr.contains("CONSOLE"), "{}", ran.stderr);
}

/// What people read first is a summary; the files of a package stand below it, and a package that only one image has takes a
/// line, unless all is asked for.
#[test]
fn a_summary_comes_first_and_files_stand_by_their_packages() {
    let place = Place::new();
    for n in 0..20 {
        place.write(&format!("lib/share/{n:02}"), "library\n");
    }
    place
        .write("app/one", "1\n")
        .write("app/two", "2\n")
        .write("conf", "a\n")
        .write(
            "layerize.toml",
            "[package.app]\nsource = \"app\"\n\n[package.lib]\nsource = \"lib\"\n\n\
             [image.old]\ncontents = [\"app\"]\nfiles = { \"/etc/conf\" = \"conf\" }\n\n\
             [image.new]\ncontents = [\"app\", \"lib\"]\nfiles = { \"/etc/conf\" = \"conf\" }\nenv = { A = \"b\" }\n",
        );
    place.run(&["build", "old"]).success();
    place
        .write("app/one", "one\n")
        .write("app/two", "two\n")
        .write("conf", "b\n");
    let text = place.run(&["diff", "old.tar", "new"]).exits(1).stdout;
    let lines: Vec<&str> = text.lines().collect();
    let at = |start: &str| {
        let found = lines.iter().position(|line| line.starts_with(start));
        found.unwrap_or_else(|| panic!("`{start}` is missing in:\n{text}"))
    };
    assert!(lines[0].starts_with("- ") && lines[1].starts_with("+ "), "{text}");
    assert_eq!(
        lines[2],
        "summary   1 field of the config, 3 of 3 layers, 1 package, 48 differences of files (43 added, 3 content, 2 store-hash)"
    );
    // The package, its files and the links to it, then the next.
    let package = at("store ");
    let library = at("package   +/layerize/store/");
    let below = lines[package..library]
        .iter()
        .filter(|line| line.starts_with("  file "));
    let parts = [
        "-app/one content",
        "-app/two content",
        "one link target",
        "two link target",
    ];
    assert_eq!(below.clone().count(), parts.len(), "{text}");
    for (line, part) in below.zip(parts) {
        assert!(line.contains(part), "{line}: {part}");
    }
    assert!(
        lines[library].ends_with("-lib added: 22 files (--verbose lists them)"),
        "{text}"
    );
    assert!(library < at("file      etc/conf content"), "{text}");
    assert!(!text.contains("-lib/share/07"), "{text}");
    let whole = place.run(&["diff", "old.tar", "new", "--verbose"]).exits(1).stdout;
    assert_eq!(whole.matches("-lib/share/").count(), 20, "{whole}");
    assert!(!whole.contains("--verbose"), "{whole}");
    let same = place.run(&["diff", "new", "new"]).success().stdout;
    assert!(
        same.contains("the images are equal") && !same.contains("summary"),
        "{same}"
    );
}
