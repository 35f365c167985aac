//! Images laid over others: merged configs, layers that stay where they are, and real engines that run the result.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Place, have, peer};

/// Compiles a static program that prints `text` and its arguments' number.
fn program(place: &Place, path: &str, text: &str) {
    place.write(
        "program.c",
        &format!("#include <stdio.h>\nint main(void) {{ puts(\"{text}\"); return 0; }}\n"),
    );
    let path = place.project.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut gcc = Command::new("gcc");
    peer(
        gcc.args(["-static", "-Os", "-s", "-o"])
            .arg(path)
            .arg("program.c")
            .current_dir(&place.project),
    );
}

/// A place with a system in `rootfs` (merged `/usr`, a shell that says `base shell`, two accounts), the archive
/// `base.tar` that umoci made of it, and a package `app` whose program says `app`.
fn with_base() -> Option<Place> {
    if !have("umoci", &["--version"]) || !have("gcc", &["--version"]) {
        return None;
    }
    let place = Place::new();
    program(&place, "rootfs/usr/bin/sh", "base shell");
    for dir in ["etc", "var", "run", "tmp"] {
        fs::create_dir_all(place.project.join("rootfs").join(dir)).unwrap();
    }
    for (link, target) in [("bin", "usr/bin"), ("var/run", "/run")] {
        std::os::unix::fs::symlink(target, place.project.join("rootfs").join(link)).unwrap();
    }
    place
        .write(
            "rootfs/etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/:/bin/sh\n",
        )
        .write("rootfs/etc/group", "root:x:0:\nweb:x:33:\n");
    let umoci = |args: &[&str]| peer(Command::new("umoci").args(args).current_dir(&place.project));
    umoci(&["init", "--layout", "base"]);
    umoci(&["new", "--image", "base:v1"]);
    // GNU tar ends an archive as POSIX has it, which umoci's own `insert` does not.
    let mut tar = Command::new("tar");
    tar.args(["-b2", "--owner=0", "--group=0", "--numeric-owner", "--sort=name"]);
    peer(
        tar.args(["-C", "rootfs", "-cf", "layer.tar", "."])
            .current_dir(&place.project),
    );
    umoci(&["raw", "add-layer", "--image", "base:v1", "layer.tar"]);
    umoci(&[
        "config",
        "--image",
        "base:v1",
        "--architecture",
        "amd64",
        "--os",
        "linux",
        "--config.env",
        "A=base",
        "--config.env",
        "B=base",
        "--config.entrypoint",
        "/bin/sh",
        "--config.cmd",
        "-l",
        "--config.label",
        "a=base",
        "--config.label",
        "b=base",
        "--config.user",
        "33",
        "--config.exposedports",
        "80/tcp",
        "--config.workingdir",
        "/tmp",
        "--manifest.annotation",
        "team=base",
        "--manifest.annotation",
        "org.opencontainers.image.title=base",
    ]);
    program(&place, "app/bin/app", "app");
    place.write("app/etc/app.conf", "conf\n");
    Some(place)
}

fn spec(place: &Place, more: &str) {
    place.write(
        "layerize.toml",
        &format!(
            "[package.app]\nsource = \"app\"\n\n[image.web]\nbase = \"oci:base:v1\"\ncontents = [\"app\"]\n\
             platform = \"linux/amd64\"\n{more}"
        ),
    );
}

/// Manifest and config of an image in a layout with one image.
fn documents(place: &Place, layout: &str) -> (Value, Value) {
    let read = |path: &Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let dir = place.project.join(layout);
    let blob = |value: &Value| dir.join("blobs/sha256").join(&value["digest"].as_str().unwrap()[7..]);
    let index = read(&dir.join("index.json"));
    let manifest = read(&blob(&index["manifests"][0]));
    let config = read(&blob(&manifest["config"]));
    (manifest, config)
}

fn layers(manifest: &Value) -> Vec<String> {
    let layers = manifest["layers"].as_array().unwrap().iter();
    layers
        .map(|layer| layer["digest"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn config_layers_and_history_are_merged_by_the_rules() {
    let Some(place) = with_base() else { return };
    spec(
        &place,
        "env = { B = \"own\", C = \"own\" }\nlabels = { b = \"own\" }\nports = [\"443\"]\nentrypoint = [\"app\"]\n",
    );
    place.run(&["build", "-o", "oci:out:v1"]).success();
    let (base, base_config) = documents(&place, "base");
    let (manifest, config) = documents(&place, "out");
    let count = layers(&base).len();
    assert!(layers(&manifest).starts_with(&layers(&base)));
    assert_eq!(layers(&manifest).len(), count + 2);
    let diff_ids = |config: &Value| config["rootfs"]["diff_ids"].as_array().unwrap().clone();
    assert!(diff_ids(&config).starts_with(&diff_ids(&base_config)));
    let history = |config: &Value| config["history"].as_array().unwrap().clone();
    assert!(history(&config).starts_with(&history(&base_config)));
    let run = &config["config"];
    let path = base_config["config"]["Env"]
        .as_array()
        .unwrap()
        .iter()
        .find(|text| text.as_str().unwrap().starts_with("PATH="));
    assert_eq!(
        run["Env"],
        json!([
            "A=base",
            "B=own",
            "C=own",
            path.cloned()
                .unwrap_or_else(|| json!(format!("PATH={}", layerize::image::DEFAULT_PATH)))
        ])
    );
    assert_eq!(run["Entrypoint"], json!(["app"]));
    assert_eq!(run.get("Cmd"), None, "the base's was written for its own program");
    assert_eq!(run["Labels"], json!({ "a": "base", "b": "own" }));
    assert_eq!((&run["User"], &run["WorkingDir"]), (&json!("33"), &json!("/tmp")));
    assert_eq!(run["ExposedPorts"], json!({ "443/tcp": {}, "80/tcp": {} }));
    let annotations = manifest["annotations"].as_object().unwrap();
    let digest = fs::read(place.project.join("base/index.json")).unwrap();
    let digest: Value = serde_json::from_slice(&digest).unwrap();
    assert_eq!(
        annotations["org.opencontainers.image.base.digest"],
        digest["manifests"][0]["digest"]
    );
    assert_eq!(annotations["team"], "base");
    assert!(!annotations.contains_key("org.opencontainers.image.title"));
    for layer in manifest["layers"].as_array().unwrap() {
        assert!(
            layer["mediaType"]
                .as_str()
                .unwrap()
                .starts_with("application/vnd.oci.image.layer.v1.tar")
        );
    }
    place.run(&["verify", "oci:out:v1"]).success();
    // The same again comes from the caches, and is the same.
    let again = place.run(&["build", "-o", "oci:again:v1"]).success();
    assert_eq!(documents(&place, "again").0, manifest);
    assert!(again.stderr.contains("0 layers packed"), "{}", again.stderr);

    spec(&place, "cmd = [\"-x\"]\n");
    place.run(&["build", "-o", "oci:cmd:v1"]).success();
    let (_, config) = documents(&place, "cmd");
    assert_eq!(
        (&config["config"]["Entrypoint"], &config["config"]["Cmd"]),
        (&json!(["/bin/sh"]), &json!(["-x"]))
    );
}

/// `/bin` of the base is a symlink, its `/etc` has files: neither may be hidden.
#[test]
fn what_is_laid_over_hides_nothing_of_the_base() {
    let Some(place) = with_base() else { return };
    spec(&place, "users = { own = 1000 }\nuser = \"own\"\n");
    place.run(&["build", "-o", "oci:out:v1"]).success();
    let mut umoci = Command::new("umoci");
    umoci.args(["unpack", "--rootless", "--image", "out:v1", "bundle"]);
    peer(umoci.current_dir(&place.project));
    let root = place.project.join("bundle/rootfs");
    assert_eq!(fs::read_link(root.join("bin")).unwrap(), Path::new("usr/bin"));
    assert!(root.join("usr/bin/sh").is_file() && root.join("usr/bin/app").is_symlink());
    assert!(root.join("etc/app.conf").is_symlink() && fs::symlink_metadata(root.join("etc")).unwrap().is_dir());
    assert_eq!(fs::read_link(root.join("var/run")).unwrap(), Path::new("/run"));
    let passwd = fs::read_to_string(root.join("etc/passwd")).unwrap();
    assert_eq!(
        passwd,
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/:/bin/sh\nown:x:1000:1000:own:/:/sbin/nologin\n"
    );
    let group = fs::read_to_string(root.join("etc/group")).unwrap();
    assert_eq!(group, "root:x:0:\nweb:x:33:\nown:x:1000:\n");

    spec(&place, "user = \"web\"\n");
    place.run(&["build", "-o", "oci:web:v1"]).success();
    spec(&place, "user = \"nobody-there\"\n");
    place.run(&["build", "-o", "oci:x:v1"]).exits(2).says(&["nobody-there"]);
    spec(&place, "users = { web = 1000 }\n");
    place
        .run(&["build", "-o", "oci:x:v1"])
        .exits(2)
        .says(&["user `web` is in the base", "33"]);
}

#[test]
fn a_base_is_pinned_and_moves_when_asked() {
    let Some(place) = with_base() else { return };
    spec(&place, "");
    place.run(&["lock"]).success().says(&["+ base of web sha256:"]);
    let lock = fs::read_to_string(place.project.join("layerize.lock")).unwrap();
    assert!(
        lock.contains("reference = \"oci:base:v1\"\nplatform = \"linux/amd64\"\nsha256 = \""),
        "{lock}"
    );
    place.run(&["lock", "--check"]).success();
    let first = place.run(&["build", "-o", "oci:out:v1"]).success().line().to_owned();
    let mut umoci = Command::new("umoci");
    umoci.args(["config", "--image", "base:v1", "--config.env", "NEW=1"]);
    peer(umoci.current_dir(&place.project));
    // The documents are kept and the layers are in the sink: the place is not even asked.
    assert_eq!(place.run(&["build", "-o", "oci:out:v1"]).success().line(), first);
    // Elsewhere the layers are wanted, and the place has another image now.
    place
        .run(&["build", "-o", "oci:other:v1"])
        .exits(2)
        .says(&["oci:", "is pinned", "layerize lock --update"]);
    place
        .run(&["lock", "--update", "web"])
        .success()
        .says(&["~ base of web sha256:"]);
    let second = place.run(&["build", "--locked", "-o", "oci:other:v1"]).success();
    assert_ne!(second.line().split(' ').next(), first.split(' ').next());
    // Another platform or place is another base.
    spec(&place, "");
    let text = fs::read_to_string(place.project.join("layerize.toml")).unwrap();
    place.write("layerize.toml", &text.replace("linux/amd64", "linux/arm64"));
    place
        .run(&["lock", "--check"])
        .exits(1)
        .says(&["arm64: missing: the base `oci:base:v1` of image `web`"]);
    place
        .run(&["build"])
        .exits(2)
        .says(&["the base is for `linux/amd64`, the image for `linux/arm64`"]);
    place.write("layerize.toml", &text.replace("oci:base:v1", "oci:base:v2"));
    place
        .run(&["build", "--locked"])
        .exits(2)
        .says(&["stale", "oci:base:v2"]);
}

#[test]
fn store_paths_take_a_base_by_a_flag() {
    let Some(place) = with_base() else { return };
    let path = place.run(&["store", "add", "app"]).success().line().to_owned();
    let build = |base: &str, sink: &str| {
        place.run(&[
            "build",
            &path,
            "--name",
            "web",
            "--base",
            base,
            "--entrypoint",
            "app",
            "-o",
            sink,
        ])
    };
    let one = build("oci:base:v1", "oci:one:v1")
        .success()
        .line()
        .split(' ')
        .next()
        .unwrap()
        .to_owned();
    // The same base in another form is the same base.
    place.run(&["copy", "oci:base:v1", "docker-archive:base.tar"]).success();
    let two = build("docker-archive:base.tar", "docker-archive:two.tar").success();
    assert_eq!(two.line().split(' ').next().unwrap(), one);
    place.run(&["verify", "two.tar"]).success();
    build("oci:nothing:v1", "oci:x:v1")
        .exits(2)
        .says(&["cannot use the base `oci:nothing:v1`"]);
    build("docker://", "oci:x:v1").exits(2).says(&["docker://NAME"]);
}

#[test]
fn a_base_of_many_layers_leaves_fewer_for_us() {
    let Some(place) = with_base() else { return };
    spec(&place, "layers = { max = 3 }\n");
    place.run(&["build", "-o", "oci:out:v1"]).success();
    assert_eq!(layers(&documents(&place, "out").0).len(), 3);
    spec(&place, "layers = { max = 2 }\n");
    place
        .run(&["build"])
        .exits(2)
        .says(&["the base has 1 layers, and 2 more do not fit into 2"]);
}

/// A base as `docker import` makes it, run by Docker; and one that podman runs.
#[test]
fn engines_run_programs_of_the_base_and_of_ours() {
    let Some(place) = with_base() else { return };
    spec(&place, "entrypoint = [\"app\"]\n");
    if have("docker", &["info"]) {
        let name = "layerize-test/imported:v1";
        let mut tar = Command::new("tar");
        peer(
            tar.args(["-C", "rootfs", "-cf", "rootfs.tar", "."])
                .current_dir(&place.project),
        );
        let docker = |args: &[&str]| peer(Command::new("docker").args(args).current_dir(&place.project)).stdout;
        docker(&["import", "--change", "CMD [\"/bin/sh\"]", "rootfs.tar", name]);
        let text = fs::read_to_string(place.project.join("layerize.toml")).unwrap();
        place.write(
            "layerize.toml",
            &text.replace("oci:base:v1", &format!("docker-daemon:{name}")),
        );
        place.run(&["load", "--engine", "docker"]).success();
        let run = |entrypoint: &[&str]| {
            docker(&[&["run", "--rm", "--network", "none"], entrypoint, &["web:latest"]].concat())
        };
        assert_eq!(run(&[]), "app\n");
        assert_eq!(run(&["--entrypoint", "/bin/sh"]), "base shell\n");
        docker(&["rmi", "-f", "web:latest", name]);
    }
    if have("podman", &["--version"]) {
        spec(&place, "entrypoint = [\"app\"]\nuser = \"0\"\n");
        place.run(&["build", "-o", "docker-archive:web.tar"]).success();
        let at = |name: &str| place.path().join(name).display().to_string();
        let podman = |args: &[&str]| {
            let mut podman = Command::new("podman");
            podman.args([
                "--root",
                &at("podman"),
                "--runroot",
                &at("podman-run"),
                "--storage-driver",
                "vfs",
            ]);
            podman
                .args(["--cgroup-manager", "cgroupfs", "--runtime", "runc"])
                .args(args);
            peer(podman.current_dir(&place.project)).stdout
        };
        podman(&["load", "-i", "web.tar"]);
        let limits = [
            "run",
            "--rm",
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1024:1024",
            "--network",
            "none",
        ];
        assert_eq!(podman(&[&limits[..], &["web"]].concat()), "app\n");
        assert_eq!(
            podman(&[&limits[..], &["--entrypoint", "/bin/sh", "web"]].concat()),
            "base shell\n"
        );
    }
}
