//! What becomes of maintainer scripts: of packages made here, run with Debian's own tools, or not run at all.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::archive::Archive;
use crate::support::{Place, have, machine_sources, peer};

/// A service whose script must not run, with what an init makes of its data.
const SERVICE: &[(&str, u32, &str)] = &[
    (
        "usr/lib/tmpfiles.d/lz.conf",
        0o644,
        "d /run/lz 2750 www-data adm -\nd /var/lib/lz 0700 www-data - -\nd /run/other - nobody-here - -\n",
    ),
    (
        "usr/lib/systemd/system/lz.service",
        0o644,
        "[Service]\nUser=www-data\nCacheDirectory=lz/deep\n",
    ),
    ("var/lib/lz/shipped", 0o644, "data"),
    ("usr/share/lz", 0o644, "data"),
];

/// An archive of packages with scripts of every kind.
fn archive(place: &Place) -> Archive {
    let mut archive = Archive::new(&place.path().join("archive"));
    let mut add = |name: &str, files: &[(&str, u32, &str)], scripts: &[(&str, &str)]| {
        archive.add_package(name, "1.0", "", files, scripts);
    };
    add("lz-service", SERVICE, &[("postinst", "#!/bin/sh\nexit 1\n")]);
    add("lz-plain", &[("usr/share/lz-plain", 0o644, "1")], &[]);
    add(
        "lz-idle",
        &[("usr/share/lz-idle", 0o600, "1")],
        &[("postinst", "#!/bin/sh\nexit 0\n")],
    );
    let maker = "#!/bin/sh\nset -e\n[ \"$1\" = configure ] || exit 0\necho made > /etc/lz-made\n\
                 mkdir -p /etc/ssh\necho secret > /etc/ssh/ssh_host_lz_key\nchmod 0640 /usr/share/lz-maker\n";
    add(
        "lz-maker",
        &[("usr/share/lz-maker", 0o644, "1")],
        &[("postinst", maker)],
    );
    let broken = "#!/bin/sh\nfor i in $(seq 1 30); do echo \"line $i\"; done\necho 'it broke' >&2\nexit 3\n";
    add(
        "lz-broken",
        &[("usr/share/lz-broken", 0o644, "1")],
        &[("postinst", broken)],
    );
    add(
        "lz-early",
        &[("usr/share/lz-early", 0o644, "1")],
        &[("preinst", "#!/bin/sh\necho too early\nexit 4\n")],
    );
    let dice = "#!/bin/sh\nset -e\nhead -c 16 /dev/urandom | od -An -tx1 > /etc/lz-dice\nhostname > /etc/lz-host\n\
                date > /etc/lz-date\necho same > /etc/lz-same\n";
    add("lz-dice", &[("usr/share/lz-dice", 0o644, "1")], &[("postinst", dice)]);
    archive
}

fn told(place: &Place, archive: &str, path: &str) -> String {
    let ran = place.run(&["explain", archive, path]).success().stdout;
    let line = ran.lines().find(|line| line.starts_with("file ")).unwrap_or_default();
    line.trim_start_matches("file").trim().to_owned()
}

/// Over a base no script runs: one warning with the packages that have some, and what an init makes of data, with owners and
/// modes. The lock has no tools, as nobody could use them.
#[test]
fn scripts_that_cannot_run_are_warned_of_and_data_is_laid_out() {
    if !have("apt-get", &["--version"]) {
        return;
    }
    let place = Place::new();
    let source = archive(&place).source_line();
    place.write(
        "layerize.toml",
        "[image.base]\nusers = { www-data = 33, adm = 4 }\n\
         files = { \"/etc/motd\" = { text = \"base\" }, \"/var/lib/lz\" = { directory = true } }\n",
    );
    place.run(&["build", "base", "-o", "oci:base:v1"]).success();
    let root = "root = [\"deb:lz-service\", \"deb:lz-plain\"]\n";
    let reason = "what the package manager of its base knows is not known";
    let spec =
        |more: &str| format!("[debian]\nsources = [\"{source}\"]\n[image.app]\n{root}base = \"oci:base:v1\"\n{more}");
    place.write("layerize.toml", &spec(""));
    let built = place.run(&["build", "app"]).success();
    assert_eq!(built.stderr.matches("did not run").count(), 1, "{}", built.stderr);
    let built = built.says(&[
        "the maintainer scripts of `deb:lz-service` did not run",
        reason,
        "`configure = false`",
    ]);
    let lock = fs::read_to_string(place.project.join("layerize.lock")).unwrap();
    assert!(!lock.contains("coreutils"), "the lock has tools:\n{lock}");
    assert!(told(&place, "app.tar", "/run/lz").starts_with("directory, mode 2750, owner 33:4"));
    assert!(told(&place, "app.tar", "/var/lib/lz").starts_with("directory, mode 0700, owner 33:0"));
    assert!(told(&place, "app.tar", "/var/cache/lz/deep").starts_with("directory, mode 0755, owner 33:33"));
    place.run(&["explain", "app.tar", "/run/other"]).exits(1);
    place.run(&["verify", "app.tar"]).success();
    // Again from the store and the caches, the warning included.
    let again = place
        .run(&["build", "--locked", "app"])
        .success()
        .says(&["did not run"]);
    assert_eq!(again.stdout, built.stdout);
    let scripts = place.run(&["explain", "app", "--scripts"]).success().stdout;
    assert!(scripts.contains("lz-plain    none\n"), "{scripts}");
    assert!(scripts.contains("lz-service  skipped: "), "{scripts}");

    place.write("layerize.toml", &spec("configure = false\n"));
    let quiet = place.run(&["build", "--locked", "app"]).success();
    assert!(!quiet.stderr.contains("did not run"), "{}", quiet.stderr);
    place.run(&["explain", "app.tar", "/run/lz"]).exits(1);
    let scripts = place.run(&["explain", "app", "--scripts"]).success().stdout;
    assert!(scripts.contains("`configure = false`"), "{scripts}");
}

/// A third-party archive alone has no tools: said with what to write. A lock from before is stale.
#[test]
fn a_lock_without_tools_is_told() {
    if !have("apt-get", &["--version"]) {
        return;
    }
    let place = Place::new();
    let source = archive(&place).source_line();
    let spec = format!("[debian]\nsources = [\"{source}\"]\n\n[image.app]\nroot = [\"deb:lz-plain\"]\n");
    place.write("layerize.toml", &spec);
    place.run(&["lock"]).exits(2).says(&[
        "there is no Debian package `adduser`, which is among the tools that maintainer scripts need",
        "`configure = false`",
    ]);
    place.write("layerize.toml", &format!("{spec}configure = false\n"));
    place.run(&["build", "app"]).success();
    place.write("layerize.toml", &spec);
    place
        .run(&["build", "--locked", "app"])
        .exits(2)
        .says(&["missing: the tools that maintainer scripts need"]);
}

/// Scripts that run: what they made is told, by package and path, and so are failures and what differs from run to run.
#[test]
fn scripts_are_told_of_one_by_one() {
    if !have("apt-get", &["--version"]) {
        return;
    }
    let place = Place::new();
    let mut sources = vec![archive(&place).source_line()];
    sources.extend(machine_sources());
    let image = |name: &str, root: &str, skip: &str| {
        format!("[image.{name}]\nroot = [{root}]\nconfigure = {{ skip = [{skip}] }}\n\n")
    };
    let root = "\"deb:lz-maker\", \"deb:lz-idle\", \"deb:lz-plain\", \"deb:lz-broken\"";
    let spec = [
        format!("[debian]\nsources = {}\n\n", serde_json::to_string(&sources).unwrap()),
        image("told", root, "\"deb:lz-broken\""),
        image("ping", "\"deb:iputils-ping\", \"deb:libcap2-bin\"", ""),
        image("broken", "\"deb:lz-broken\", \"deb:lz-idle\"", ""),
        image("early", "\"deb:lz-early\"", ""),
        image("dice", "\"deb:lz-dice\", \"deb:lz-maker\"", ""),
    ];
    place.write("layerize.toml", &spec.concat());
    place.run(&["lock"]).success();
    let unwalled = place.run(&["build", "told", "--sandbox=none"]).exits(2);
    unwalled.says(&[
        "maintainer scripts run in namespaces only, not behind `none`",
        "`configure = false`",
    ]);
    let documents = ["--sbom", "spdx,cyclonedx", "--provenance"];
    let build = [&["build", "--locked", "told"][..], &documents].concat();
    place
        .run(&build)
        .success()
        .says(&["`/etc/ssh/ssh_host_lz_key` left out"]);
    assert!(told(&place, "told.tar", "/usr/share/lz-maker").contains("mode 0640"));
    assert!(told(&place, "told.tar", "/usr/share/lz-idle").contains("mode 0600"));
    place.run(&["explain", "told.tar", "/etc/ssh/ssh_host_lz_key"]).exits(1);
    capabilities_are_kept(&place);
    a_story_is_told(&place);
    documents_tell_it(&place);
    failures_are_told(&place);

    let differing = place.run(&["check", "dice"]).exits(1).stdout;
    let lines: Vec<&str> = differing.lines().collect();
    for name in ["dice", "host", "date"] {
        let at = lines
            .iter()
            .position(|line| line.starts_with(&format!("  tree/etc/lz-{name}: ")));
        let at = at.unwrap_or_else(|| panic!("/etc/lz-{name} is not told:\n{differing}"));
        assert_eq!(
            lines[at + 1].trim(),
            "made by the maintainer scripts of `deb:lz-dice`",
            "{differing}"
        );
    }
    assert!(
        !differing.contains("lz-same") && !differing.contains("`deb:lz-maker`"),
        "{differing}"
    );
}

/// What a script asks `setcap` for is in the layer, and not warned of as lost.
fn capabilities_are_kept(place: &Place) {
    let built = place.run(&["build", "--locked", "ping"]).success();
    assert!(!built.stderr.contains("file capabilities"), "{}", built.stderr);
    let told = place.run(&["explain", "ping.tar", "/bin/ping"]).success().stdout;
    assert!(told.contains("  can        cap_net_raw=ep\n"), "{told}");
    assert!(told.contains("what maintainer scripts made"), "{told}");
    let inspected = place.run(&["inspect", "--layers", "ping.tar"]).success().stdout;
    assert!(inspected.contains("/usr/bin/ping cap_net_raw=ep"), "{inspected}");
    place.run(&["verify", "ping.tar"]).success();
    if have("docker", &["info"]) {
        peer(
            Command::new("docker")
                .args(["load", "-i"])
                .arg(place.project.join("ping.tar")),
        );
        let mut command = Command::new("docker");
        command.args([
            "run",
            "--rm",
            "--network",
            "none",
            "ping:latest",
            "getcap",
            "/usr/bin/ping",
        ]);
        assert_eq!(peer(&mut command).stdout, "/usr/bin/ping cap_net_raw=ep\n");
        peer(Command::new("docker").args(["rmi", "ping:latest"]));
    }
}

/// `explain --scripts`, for people and programs.
fn a_story_is_told(place: &Place) {
    let text = place.run(&["explain", "told", "--scripts"]).success().stdout;
    assert_eq!(
        text,
        "lz-broken  skipped: the image's `configure` says so\n\
         lz-idle    no effect\n\
         lz-maker   ran\n  made      /etc/lz-made\n  made      /etc/ssh\n  made      /usr/share/lz-maker\n  left out  /etc/ssh/ssh_host_lz_key: a host \
         key is a secret, and all containers of the image would share it: run `ssh-keygen -A` when one starts\n\
         lz-plain   none\n"
    );
    let ran = place.run(&["explain", "told", "--scripts", "--json"]).success().stdout;
    let story: Value = serde_json::from_str(&ran).unwrap();
    let word = |name: &str| story["packages"][name]["scripts"].as_str().unwrap().to_owned();
    assert_eq!(
        ["lz-broken", "lz-idle", "lz-plain"].map(word),
        ["skipped", "ran", "none"]
    );
    assert_eq!(story["packages"]["lz-maker"]["made"][0], "etc/lz-made");
    place
        .run(&["explain", "told.tar", "--scripts"])
        .exits(2)
        .says(&["`told.tar` is a finished image", "layerize explain NAME --scripts"]);
    place.run(&["explain", "told.tar"]).exits(2);
}

/// Bills of materials in both forms, and the provenance.
fn documents_tell_it(place: &Place) {
    let read = |name: &str| -> Value {
        serde_json::from_slice(&fs::read(place.project.join(format!("told.{name}.json"))).unwrap()).unwrap()
    };
    let expected = [
        ("lz-broken", "skipped"),
        ("lz-idle", "no effect"),
        ("lz-maker", "ran"),
        ("lz-plain", "none"),
    ];
    let expected: BTreeMap<String, String> = expected.map(|(name, word)| (name.to_owned(), word.to_owned())).into();
    let cyclonedx = read("cdx");
    let value = |of: &Value, name: &str| -> Option<String> {
        let properties = of["properties"].as_array()?;
        let found = properties.iter().find(|property| property["name"] == name)?;
        Some(found["value"].as_str()?.to_owned())
    };
    let told = cyclonedx["components"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|component| {
            let name = component["name"].as_str()?.to_owned();
            Some((name, value(component, "dev.layerize:scripts")?))
        });
    assert_eq!(told.collect::<BTreeMap<_, _>>(), expected);
    let left_out = value(&cyclonedx["metadata"]["component"], "dev.layerize:not-kept").unwrap();
    assert!(
        left_out.starts_with("/etc/ssh/ssh_host_lz_key: a host key is a secret"),
        "{left_out}"
    );

    let spdx = read("spdx");
    let told = spdx["packages"].as_array().unwrap().iter().filter_map(|package| {
        let comment = package["annotations"][0]["comment"].as_str()?;
        let word = comment.strip_prefix("dev.layerize:scripts: ")?;
        Some((package["name"].as_str()?.to_owned(), word.to_owned()))
    });
    assert_eq!(told.collect::<BTreeMap<_, _>>(), expected);
    assert!(
        spdx.to_string()
            .contains("dev.layerize:not kept: /etc/ssh/ssh_host_lz_key")
    );

    let provenance = read("provenance");
    let byproduct = &provenance["predicate"]["runDetails"]["byproducts"][0];
    assert!(
        byproduct["name"].as_str().unwrap().ends_with("-configured"),
        "{byproduct}"
    );
    assert_eq!(byproduct["annotations"]["scripts"]["lz-maker"], "ran");
    let dependencies = provenance["predicate"]["buildDefinition"]["resolvedDependencies"].to_string();
    assert!(
        dependencies.contains("/coreutils@"),
        "the tools are what it was made with"
    );
}

/// A script that fails names its package, the script, the last lines and what to type, which then works.
fn failures_are_told(place: &Place) {
    let failed = place.run(&["build", "--locked", "broken"]).exits(2).says(&[
        "the postinst script of `deb:lz-broken` failed with exit status 3",
        "\n    it broke\n",
        "\n    line 30\n",
        "\n    line 12\n",
        "configure = { skip = [\"deb:lz-broken\"] }",
    ]);
    let shown = failed.stderr.rsplit("the last lines that it printed").next().unwrap();
    assert!(
        !shown.contains("line 11\n") && !shown.contains("Errors were"),
        "{}",
        failed.stderr
    );
    place.run(&["build", "--locked", "early"]).exits(2).says(&[
        "the preinst script of `deb:lz-early` failed with exit status 4",
        "too early",
        "configure = { skip = [\"deb:lz-early\"] }",
    ]);
    let path = place.project.join("layerize.toml");
    let spec = fs::read_to_string(&path).unwrap();
    let mended = spec.replace(
        "[image.broken]\nroot = [\"deb:lz-broken\", \"deb:lz-idle\"]\nconfigure = { skip = [] }",
        "[image.broken]\nroot = [\"deb:lz-broken\", \"deb:lz-idle\"]\nconfigure = { skip = [\"deb:lz-broken\"] }",
    );
    assert_ne!(spec, mended);
    fs::write(&path, mended).unwrap();
    place.run(&["build", "--locked", "broken"]).success();
}
