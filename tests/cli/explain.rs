//! `layerize explain`: a file of an image is traced to its layer, its store path, why that is there and what made it.

use serde_json::Value;

use crate::support::{Place, have, peer};

const SPEC: &str = r#"
[package.words]
script = "mkdir $out; echo hello > $out/words"

[package.tool]
libraries = []
runtime = ["words"]
env = { GREETING = "hi" }
script = '''
mkdir -p $out/bin
printf '#!/bin/sh\n' > $out/bin/tool
chmod +x $out/bin/tool
'''

[image.app]
contents = ["tool"]

[image.app.files]
"/etc/motd" = { text = "welcome" }
"#;

#[test]
fn a_file_is_traced_to_what_made_it() {
    let place = Place::new();
    place.write("layerize.toml", SPEC);
    place.lock_base();
    place.run(&["build", "app"]).success();
    let told = place.run(&["explain", "app.tar", "/bin/tool"]).success().stdout;
    for part in [
        "path         /bin/tool\n",
        " → /layerize/store/",
        "file         file, mode 0555, owner 0:0, 10 B\n",
        "  ← seen\n",
        "-tool\n  as         bin/tool\n",
        "made by      derivation sha256:",
        "  env        GREETING=hi\n",
        "  runtime    /layerize/store/",
        "  script     mkdir -p $out/bin\n",
    ] {
        assert!(told.contains(part), "`{part}` is missing in\n{told}");
    }
    let json = place
        .run(&["explain", "--json", "app.tar", "bin/tool"])
        .success()
        .stdout;
    let report: Value = serde_json::from_str(json.trim()).unwrap();
    let words = report["made"]["resolved"]["action"]["runtime"][0]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(report["why"][0]["steps"].as_array().unwrap().len(), 0);

    // What is there because something else needs it has a chain that says so.
    let told = place
        .run(&["explain", "app.tar", &format!("{words}/words")])
        .success()
        .stdout;
    assert!(
        told.contains("because      /layerize/store/") && told.contains("└─ "),
        "{told}"
    );
    // A file of the image's own has a layer and no store path; without a store the rest is still told.
    let told = place.run(&["explain", "app.tar", "/etc/motd"]).success().stdout;
    assert!(told.contains("  ← seen\n") && !told.contains("store path"), "{told}");
    place.run(&["explain", "app.tar", "/etc/none"]).exits(1);
    let elsewhere = place.path().join("no-store");
    let told = place
        .run(&[
            "explain",
            "--store",
            elsewhere.to_str().unwrap(),
            "app.tar",
            "/bin/tool",
        ])
        .success();
    assert!(told.stdout.contains("made by      unknown"), "{}", told.stdout);
    assert!(!elsewhere.exists());
}

/// Images of other tools: what a layer deletes or replaces is told from what is seen.
#[test]
fn a_deleted_file_is_told() {
    if !crate::support::is_root() || !have("umoci", &["--version"]) {
        return;
    }
    let place = Place::new();
    place.write("layerize.toml", SPEC);
    place.lock_base();
    place.run(&["build", "app", "-o", "oci:layout:v1"]).success();
    let bundle = place.path().join("bundle");
    let umoci = |args: &[&str]| {
        peer(
            std::process::Command::new("umoci")
                .args(args)
                .arg(&bundle)
                .current_dir(&place.project),
        );
    };
    umoci(&["unpack", "--image", "layout:v1"]);
    std::fs::remove_file(bundle.join("rootfs/etc/motd")).unwrap();
    umoci(&["repack", "--image", "layout:v2"]);
    let told = place.run(&["explain", "oci:layout:v2", "/etc/motd"]).exits(1).stdout;
    assert!(told.contains("has it: file, 7 bytes\n"), "{told}");
    assert!(told.contains("deletes it: `/etc/.wh.motd`"), "{told}");
}
