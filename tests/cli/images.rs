//! Images from store paths and from a spec without any build: sinks, reading back, comparing.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::{Place, Ran, have, peer};

/// A place with a store path that holds a static program and data.
fn with_path() -> (Place, String) {
    let place = Place::new();
    place
        .write("app.c", "int main(void) { return 0; }\n")
        .write("app/share/data", "data\n")
        .write("app/bin/.keep", "");
    peer(
        Command::new("gcc")
            .args(["-static", "-o", "app/bin/app", "app.c"])
            .current_dir(&place.project),
    );
    let path = place.run(&["store", "add", "app"]).success().line().to_owned();
    (place, path)
}

#[test]
fn a_store_path_becomes_an_image_in_several_sinks() {
    let (place, path) = with_path();
    let built = place
        .run(&[
            "build",
            &path,
            "--name",
            "app",
            "--entrypoint",
            "app",
            "--cmd",
            "one",
            "--env",
            "KEY=value",
            "--workdir",
            "/data",
            "--user",
            "1000",
            "-o",
            "docker-archive:app.tar",
            "-o",
            "oci:layout:v1",
            "-o",
            "oci-archive:app-oci.tar",
        ])
        .success();
    let digests: Vec<&str> = built
        .stdout
        .lines()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(digests.len(), 3, "{}", built.stdout);
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{}", built.stdout);

    let inspected = place.inspect("docker-archive:app.tar");
    assert_eq!(inspected["digest"], digests[0]);
    let text = inspected.to_string();
    for part in ["KEY=value", "\"/data\"", "\"one\"", path.as_str()] {
        assert!(text.contains(part), "`{part}` is missing in {text}");
    }
    place
        .run(&["diff", "docker-archive:app.tar", "oci:layout:v1"])
        .success();
    place.run(&["diff", "app.tar", "oci-archive:app-oci.tar"]).success();
    for source in ["docker-archive:app.tar", "oci-archive:app-oci.tar", "oci:layout:v1"] {
        place.run(&["verify", source]).success();
    }
    if have("skopeo", &["--version"]) {
        for source in ["oci:layout:v1", "oci-archive:app-oci.tar"] {
            let seen = peer(
                Command::new("skopeo")
                    .args(["inspect", "--format", "{{.Digest}}", source])
                    .current_dir(&place.project),
            );
            assert_eq!(seen.stdout.trim(), digests[0]);
        }
    }
}

#[test]
fn standard_output_is_a_sink_and_a_closed_pipe_is_no_trouble() {
    let (place, path) = with_path();
    let build = ["build", &path, "--name", "app", "--entrypoint", "app"];
    place
        .run(&[&build[..], &["-o", "docker-archive:app.tar"]].concat())
        .success();
    let piped = place.command(&[&build[..], &["-o", "-"]].concat()).output().unwrap();
    assert!(piped.status.success());
    assert_eq!(piped.stdout, fs::read(place.project.join("app.tar")).unwrap());
    let mut child = place
        .command(&[&build[..], &["-o", "-"]].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
}

#[test]
fn every_compression_round_trips_and_has_the_same_diff_ids() {
    let (place, path) = with_path();
    let mut diff_ids = Vec::new();
    for compression in ["gzip", "gzip:1", "zstd", "none"] {
        let output = format!("oci-archive:{}.tar", compression.replace(':', "-"));
        place
            .run(&[
                "build",
                &path,
                "--name",
                "app",
                "--entrypoint",
                "app",
                "--compression",
                compression,
                "-o",
                &output,
            ])
            .success();
        place.run(&["verify", &output]).success();
        let inspected = place.inspect(&output);
        let ids: Vec<String> = inspected["layers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|layer| layer["diff_id"].as_str().unwrap().to_owned())
            .collect();
        assert!(!ids.is_empty());
        diff_ids.push(ids);
    }
    assert!(diff_ids.iter().all(|ids| *ids == diff_ids[0]), "{diff_ids:?}");
}

#[test]
fn diff_names_what_differs_and_exits_1() {
    let (place, path) = with_path();
    let build = |user: &str, output: &str| {
        place
            .run(&[
                "build",
                &path,
                "--name",
                "app",
                "--entrypoint",
                "app",
                "--user",
                user,
                "-o",
                output,
            ])
            .success()
    };
    let _ = build("1", "docker-archive:a.tar");
    let _ = build("2", "docker-archive:b.tar");
    let differs = place.run(&["diff", "a.tar", "b.tar"]).exits(1);
    assert!(differs.stdout.to_lowercase().contains("user"), "{}", differs.stdout);

    place.write("app/share/data", "other\n");
    let other = place.run(&["store", "add", "app"]).success().line().to_owned();
    place
        .run(&[
            "build",
            &other,
            "--name",
            "app",
            "--entrypoint",
            "app",
            "--user",
            "1",
            "-o",
            "docker-archive:c.tar",
        ])
        .success();
    place.run(&["diff", "a.tar", "c.tar"]).exits(1);
    place
        .run(&["diff", "a.tar", "missing.tar"])
        .exits(2)
        .says(&["missing.tar"]);
    fs::write(place.project.join("broken.tar"), "no tar").unwrap();
    place
        .run(&["diff", "a.tar", "broken.tar"])
        .exits(2)
        .says(&["broken.tar"]);
}

#[test]
fn files_users_and_modes_need_no_root() {
    let place = Place::new();
    place.write("conf/app.conf", "conf\n").write(
        "layerize.toml",
        r#"
[package.data]
source = "conf"

[image.app]
contents = ["data"]
users = { web = 33 }
user = "web"
labels = { team = "core" }
volumes = ["/var/data"]
ports = [80, "53/udp"]

[image.app.files]
"/etc/app.conf" = { source = "conf/app.conf", mode = "0640", owner = "root", group = "web" }
"/etc/motd" = { text = "hi\n" }
"/usr/bin/tool" = { symlink = "/app.conf" }
"/var/cache/app" = { directory = true, owner = "web", group = "web", mode = "0700" }
"#,
    );
    place.run(&["build", "--quiet"]).success();
    let list = "import sys, tarfile, io, json, gzip
outer = tarfile.open(sys.argv[1])
manifest = json.load(outer.extractfile('manifest.json'))[0]
for name in manifest['Layers']:
    data = outer.extractfile(name).read()
    for e in tarfile.open(fileobj=io.BytesIO(data)):
        print(e.name, oct(e.mode), e.uid, e.gid, e.mtime, e.linkname)
config = json.load(outer.extractfile(manifest['Config']))
print(sorted(config['config']['ExposedPorts']), config['config']['User'], config['config']['Labels'])
";
    if !have("python3", &["--version"]) {
        return;
    }
    let listed = peer(
        Command::new("python3")
            .args(["-c", list])
            .arg(place.project.join("app.tar")),
    )
    .stdout;
    for line in [
        "etc/app.conf 0o640 0 33 1 ",
        "etc/motd 0o644 0 0 1 ",
        "usr/bin/tool 0o777 0 0 1 /app.conf",
        "var/cache/app 0o700 33 33 1 ",
        "etc/passwd 0o644 0 0 1 ",
        "['53/udp', '80/tcp'] web {'team': 'core'}",
    ] {
        assert!(
            listed.lines().any(|found| found.trim_end() == line.trim_end()),
            "`{line}` is missing in:\n{listed}"
        );
    }
}

/// The same store path, packed by this machine's processor and by one of 2008.
#[test]
fn another_processor_packs_the_same_bytes() {
    let (place, path) = with_path();
    if !have("qemu-x86_64", &["--version"]) {
        return;
    }
    for compression in ["gzip", "zstd"] {
        let build = [
            "build",
            &path,
            "--name",
            "app",
            "--entrypoint",
            "app",
            "--compression",
            compression,
            "-o",
        ];
        let here = place.run(&[&build[..], &["oci-archive:here.tar"]].concat()).success();
        // Nothing may come from what the first run kept.
        layerize::fsio::remove_tree(&place.store().join("cache")).unwrap();
        let mut command = Command::new("qemu-x86_64");
        command
            .args(["-cpu", "Nehalem", crate::support::LAYERIZE])
            .args(build)
            .arg("oci-archive:there.tar");
        place.prepare(&mut command);
        let there = Ran::of(command.output().unwrap()).success();
        assert!(there.stderr.contains("0 from cache"), "{}", there.stderr);
        assert_eq!(here.line().split(' ').next(), there.line().split(' ').next());
        peer(
            Command::new("cmp")
                .args(["here.tar", "there.tar"])
                .current_dir(&place.project),
        );
    }
}

/// The second image used to be written over the first, with both digests told.
#[test]
fn two_images_that_go_to_one_file_are_refused_before_anything_is_built() {
    let place = Place::new();
    place.write("x", "x").write(
        "layerize.toml",
        "[image.\"a/b\"]\nfiles = { \"/a\" = \"x\" }\n\n[image.b]\nfiles = { \"/b\" = \"x\" }\n\n[image.c]\nfiles = { \"/c\" = \"x\" }\n",
    );
    for args in [&["build"][..], &["build", "a/b", "b"], &["build", "c", "b", "a/b"]] {
        place
            .run(args)
            .exits(2)
            .says(&["images `a/b` and `b` would both be written to `b.tar`", "-o FILE"]);
        assert!(!place.project.join("c.tar").exists() && !place.project.join("b.tar").exists());
    }
    place.run(&["build", "a/b", "c"]).success();
    place.run(&["build", "b", "-o", "other.tar"]).success();
}

/// `build` wrote an image that `inspect`, and every registry, refused.
#[test]
fn documents_that_nobody_takes_are_refused() {
    let place = Place::new();
    place.write("x", "x");
    let spec = |field: &str, size: usize| {
        let text = "y".repeat(size);
        format!("[image.a]\nfiles = {{ \"/a\" = \"x\" }}\n{field} = {{ z = \"{text}\" }}\n")
    };
    for (field, document) in [("annotations", "manifest"), ("labels", "config")] {
        place.write("layerize.toml", &spec(field, 5 << 20));
        place
            .run(&["build"])
            .exits(2)
            .says(&[&format!("the image {document} has"), "4194304"]);
        assert!(!place.project.join("a.tar").exists());
        place.write("layerize.toml", &spec(field, 3 << 20));
        place.run(&["build"]).success();
        place.run(&["inspect", "a.tar"]).success();
        place.run(&["verify", "a.tar"]).success();
        std::fs::remove_file(place.project.join("a.tar")).unwrap();
    }
}

/// A writer that was killed before its first file was whole left a directory that no later one took for a layout.
#[test]
fn a_layout_whose_first_write_was_killed_is_usable() {
    let place = Place::new();
    place
        .write("x", "x")
        .write("layerize.toml", "[image.a]\nfiles = { \"/a\" = \"x\" }\n");
    for left in [
        &[".layerize-AbCdEf"][..],
        &[".layerize-1", ".layerize-2"],
        &["oci-layout"],
        &["oci-layout", "blobs/sha256/.layerize-x"],
    ] {
        for name in left {
            let text = if *name == "oci-layout" {
                "{\"imageLayoutVersion\":\"1.0.0\"}"
            } else {
                "half"
            };
            place.write(&format!("layout/{name}"), text);
        }
        place.run(&["build", "-o", "oci:layout:v1"]).success();
        place.run(&["verify", "oci:layout:v1"]).success();
        assert!(!place.project.join("layout").join(left[0]).exists() || left[0] == "oci-layout");
        layerize::fsio::remove_tree(&place.project.join("layout")).unwrap();
    }
    place.write("layout/mine", "text");
    place
        .run(&["build", "-o", "oci:layout:v1"])
        .exits(2)
        .says(&["holds other things"]);
}
