//! What other tools make is accepted.

use super::*;

/// A small root file system as a plain tar, with a mark that makes it no other test's.
fn root_tar(place: &Place) -> PathBuf {
    let path = place.path().join("root.tar");
    let mark = format!("{}\n", std::process::id());
    let nodes: Vec<Node> = [LOWER, &[("mark", b'0', 0o644, mark.as_str(), "")]].concat();
    fs::write(&path, tar(&nodes)).unwrap();
    path
}

/// Asserts that a source has no problems, and that what it says of itself passes the schemas where it is a layout.
fn accepted(place: &Place, source: &str) {
    let ran = place.run(&["verify", source]);
    assert_eq!(ran.status, 0, "{source}\n{}{}", ran.stdout, ran.stderr);
}

#[test]
fn what_docker_saves_is_sound() {
    if !have("docker", &["info"]) {
        return;
    }
    let place = Place::new();
    let name = format!("layerize-test-verify-{}", std::process::id());
    let root = root_tar(&place);
    peer(
        Command::new("docker")
            .args(["import", "--change", "ENV A=b", "--change", "EXPOSE 80"])
            .arg(&root)
            .arg(&name),
    );
    let saved = place.project.join("docker.tar");
    let ran = Command::new("docker")
        .args(["save", "-o"])
        .arg(&saved)
        .arg(&name)
        .status()
        .unwrap();
    peer(Command::new("docker").args(["rmi", "-f", &name]));
    assert!(ran.success());
    accepted(&place, "docker-archive:docker.tar");
    place.run(&["verify", "--profile", "docker-20", "docker.tar"]).success();
}

#[test]
fn what_podman_and_buildah_save_is_sound() {
    if !is_root() || !have("podman", &["--version"]) || !have("buildah", &["--version"]) {
        return;
    }
    let place = Place::new();
    let storage = |program: &str| {
        let mut command = Command::new(program);
        command
            .arg("--root")
            .arg(place.path().join("storage"))
            .arg("--runroot")
            .arg(place.path().join("run"));
        command.args(["--storage-driver", "vfs"]);
        command
    };
    let root = root_tar(&place);
    peer(
        storage("podman")
            .args(["import", "--change", "ENV A=b"])
            .arg(&root)
            .arg("localhost/verify:1"),
    );
    for (format, file) in [
        ("docker-archive", "podman-docker.tar"),
        ("oci-archive", "podman-oci.tar"),
    ] {
        let path = place.project.join(file);
        peer(
            storage("podman")
                .args(["save", "--format", format, "-o"])
                .arg(&path)
                .arg("localhost/verify:1"),
        );
        accepted(&place, &format!("{format}:{file}"));
    }
    let pushed = place.project.join("buildah");
    peer(
        storage("buildah")
            .args(["push", "localhost/verify:1"])
            .arg(format!("oci:{}:1", pushed.display())),
    );
    accepted(&place, "oci:buildah:1");
    if let Some(answers) = schemas(&documents_of(&pushed)) {
        assert_eq!(answers, [true; 4]);
    }
}

#[test]
fn what_umoci_and_skopeo_make_is_sound() {
    if !is_root() || !have("umoci", &["--version"]) || !have("skopeo", &["--version"]) {
        return;
    }
    let place = Place::new();
    let layout_dir = place.project.join("umoci");
    let image = format!("{}:v1", layout_dir.display());
    layout(&layout_dir, Damage::None);
    let bundle = place.path().join("bundle");
    peer(Command::new("umoci").args(["unpack", "--image", &image]).arg(&bundle));
    fs::write(bundle.join("rootfs/added"), "new").unwrap();
    fs::remove_file(bundle.join("rootfs/etc/motd")).unwrap();
    let repacked = format!("{}:v2", layout_dir.display());
    peer(
        Command::new("umoci")
            .args(["repack", "--image", &repacked])
            .arg(&bundle),
    );
    accepted(&place, "oci:umoci:v2");
    let inserted = place.project.join("inserted");
    fs::write(&inserted, "inserted").unwrap();
    peer(
        Command::new("umoci")
            .args(["insert", "--image", &image, "--tag", "v3"])
            .arg(&inserted)
            .arg("/inserted"),
    );
    accepted(&place, "oci:umoci:v3");
    let from = format!("oci:{repacked}");
    for (to, flags) in [
        ("oci:skopeo:1", &[][..]),
        ("oci:zstd:1", &["--dest-compress", "--dest-compress-format", "zstd"]),
        ("oci-archive:skopeo-oci.tar:1", &[]),
        ("docker-archive:skopeo-docker.tar:x:1", &[]),
        ("dir:skopeo-dir", &["--format", "v2s2"]),
    ] {
        peer(
            Command::new("skopeo")
                .args(["--insecure-policy", "copy"])
                .args(flags)
                .args([from.as_str(), to])
                .current_dir(&place.project),
        );
        if !to.starts_with("dir:") {
            accepted(&place, to);
        }
    }
    // Docker's own documents in a layout: a registry's v2s2 image, as a mirror keeps it.
    v2s2_layout(&place.project.join("skopeo-dir"), &place.project.join("v2s2"));
    accepted(&place, "oci:v2s2");
    for made in ["skopeo", "zstd"] {
        if let Some(answers) = schemas(&documents_of(&place.project.join(made))) {
            assert_eq!(answers, [true; 4], "{made}");
        }
    }
}

/// Turns what `skopeo copy … dir:` wrote into a layout.
fn v2s2_layout(dir: &Path, layout: &Path) {
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    for name in layerize::fsio::sorted_names(dir).unwrap() {
        if name.len() == 64 {
            fs::copy(dir.join(&name), blobs.join(&name)).unwrap();
        }
    }
    let manifest = fs::read(dir.join("manifest.json")).unwrap();
    let digest = Digest::of(&manifest);
    fs::write(blobs.join(digest.hex()), &manifest).unwrap();
    let media_type = "application/vnd.docker.distribution.manifest.v2+json";
    let listed = json!({ "mediaType": media_type, "digest": digest, "size": manifest.len() });
    let index = json!({ "schemaVersion": 2, "manifests": [listed] });
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// Links between layers, where consumers differ or a whiteout deletes nothing (case 09 of the field).
#[test]
fn entries_and_whiteouts_below_links_are_told() {
    use crate::crafted::{Crafted, Entry, Parts, tar_of};
    let place = Place::new();
    let layout = Crafted::at(&place.project.join("layout"));
    let dir = |path: &str| Entry::of(path.as_bytes(), b'5', b"");
    let link = |path: &str, to: &str| Entry::of(path.as_bytes(), b'2', to.as_bytes());
    let file = |path: &str| Entry::file(path.as_bytes(), b"");
    for (layers, told, strict) in [
        (
            vec![
                vec![dir("a"), file("a/x"), dir("b")],
                vec![link("a", "b"), file("a/.wh.x")],
            ],
            Some("it is in `a`, which is a symlink"),
            None,
        ),
        (
            vec![vec![dir("a"), dir("b")], vec![link("a", "b"), file("a/.wh..wh..opq")]],
            Some("it is in `a`, which is a symlink"),
            None,
        ),
        (
            vec![
                vec![dir("usr"), dir("usr/lib"), link("lib", "usr/lib")],
                vec![file("lib/b")],
            ],
            None,
            Some("`lib` is a symlink in a layer below"),
        ),
        (
            vec![vec![dir("usr"), link("lib", "usr")], vec![file("lib/.wh.b")]],
            None,
            Some("`lib` is a symlink in a layer below"),
        ),
        (
            vec![vec![dir("usr"), link("lib", "usr")], vec![dir("lib"), file("lib/b")]],
            None,
            None,
        ),
    ] {
        let tars = layers.iter().map(|entries| tar_of(entries)).collect();
        Parts::of(tars).write(&layout);
        let ran = place.run(&["verify", "oci:layout"]);
        match told {
            Some(told) => assert!(ran.stdout.contains(told), "{}", ran.stdout),
            None => assert_eq!(ran.status, 0, "{}", ran.stdout),
        }
        let ran = place.run(&["verify", "oci:layout", "--profile", "strict"]);
        let below_link = ran.stdout.contains("strict/below-link");
        assert_eq!(below_link, strict.is_some(), "{}", ran.stdout);
        assert!(strict.is_none_or(|text| ran.stdout.contains(text)), "{}", ran.stdout);
    }
}
