//! Independent tools read the image as it is meant.

use std::process::Command;

use super::filesystem::NodeKind;
use super::golden::everything;
use super::*;
use crate::oci::canonical_json;

/// Whether a program that judges our output is installed. Where `CI` is set it must be.
fn oracle(program: &str) -> bool {
    #[expect(clippy::disallowed_methods, reason = "tests look for programs, and for CI")]
    let (path, ci) = (
        std::env::var_os("PATH").unwrap_or_default(),
        std::env::var_os("CI").is_some(),
    );
    let found = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    assert!(found || !ci, "`{program}` is needed where CI is set");
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    if !found {
        eprintln!("SKIPPED: `{program}` is not installed, its judgement is missing");
    }
    found
}

/// Writes an OCI layout of one image named `latest`, by the letter of image-layout.md.
fn write_layout(image: &Image, dir: &Path) {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": image.digest,
        "size": image.manifest.len(),
        "annotations": {"org.opencontainers.image.ref.name": "latest"},
    }]});
    fs::write(dir.join("index.json"), canonical_json(&index)).unwrap();
    fs::write(blobs.join(image.digest.hex()), &image.manifest).unwrap();
    fs::write(blobs.join(image.config_digest.hex()), &image.config).unwrap();
    for layer in &image.layers {
        let mut bytes = Vec::new();
        layer.open().read_to_end(&mut bytes).unwrap();
        fs::write(blobs.join(layer.digest.hex()), bytes).unwrap();
    }
}

fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

#[test]
fn umoci_unpacks_what_was_laid_out() {
    if !oracle("umoci") {
        return;
    }
    let fixture = everything(false, 0o644);
    let (dir, bundle) = (fixture.dir.path().join("layout"), fixture.dir.path().join("bundle"));
    write_layout(&fixture.assemble().unwrap(), &dir);
    let name = format!("{}:latest", dir.display());
    run(
        "umoci",
        &["unpack", "--rootless", "--image", &name, bundle.to_str().unwrap()],
    );
    let rootfs = bundle.join("rootfs");
    let recipe = fixture.recipe();
    let settings = Settings::new(&fixture.spec).unwrap();
    let layout = layout::lay_out(&recipe, &settings).unwrap();
    let mut count = 0;
    for (path, node) in layout.files.nodes() {
        let path = rootfs.join(std::str::from_utf8(path).unwrap());
        let metadata = fs::symlink_metadata(&path).unwrap();
        let mode = metadata.permissions().mode() & 0o7777;
        count += 1;
        match &node.kind {
            NodeKind::Directory => assert!(metadata.is_dir() && mode == node.mode, "{path:?} {mode:o}"),
            NodeKind::File(_) => assert!(metadata.is_file() && mode == node.mode, "{path:?} {mode:o}"),
            NodeKind::Symlink(target) => {
                assert_eq!(fs::read_link(&path).unwrap().as_os_str().as_encoded_bytes(), target);
            }
        }
    }
    assert!(count > 40, "{count}");
    for member in &fixture.members {
        let unpacked = rootfs.join(&member.logical[1..]);
        assert_eq!(describe(&member.logical, &unpacked), (member.nar_hash, member.nar_size));
    }
}

#[test]
fn skopeo_reads_the_config() {
    if !oracle("skopeo") {
        return;
    }
    let fixture = everything(false, 0o644);
    let dir = fixture.dir.path().join("layout");
    let image = fixture.assemble().unwrap();
    write_layout(&image, &dir);
    let name = format!("oci:{}:latest", dir.display());
    let inspected: serde_json::Value = serde_json::from_slice(&run("skopeo", &["inspect", &name])).unwrap();
    assert_eq!(inspected["Digest"], image.digest.to_string());
    assert_eq!(inspected["Created"], "1970-01-01T00:00:01Z");
    assert_eq!(inspected["Labels"]["org.example.a"], "1");
    assert_eq!(inspected["Architecture"], "amd64");
    assert_eq!(inspected["Env"][0], "A=1");
    assert_eq!(run("skopeo", &["inspect", "--raw", &name]), image.manifest);
    let copy = format!("dir:{}", fixture.dir.path().join("copy").display());
    run("skopeo", &["copy", "--quiet", &name, &copy]);
}
