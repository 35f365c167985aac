//! Independent tools read the image as it is meant.

use super::filesystem::NodeKind;
use super::golden::everything;
use super::*;
use crate::oci::canonical_json;
use crate::testing::{oracle, output};

/// Writes an OCI layout of one image named `latest`, by the letter of image-layout.md.
fn write_layout(image: &Image, dir: &Path) {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": image.digest(),
        "size": image.manifest.size(),
        "annotations": {"org.opencontainers.image.ref.name": "latest"},
    }]});
    fs::write(dir.join("index.json"), canonical_json(&index)).unwrap();
    fs::write(blobs.join(image.digest().hex()), image.manifest.bytes()).unwrap();
    fs::write(blobs.join(image.config_digest().hex()), image.config.bytes()).unwrap();
    for layer in &image.layers {
        let mut bytes = Vec::new();
        layer.open().read_to_end(&mut bytes).unwrap();
        fs::write(blobs.join(layer.digest().hex()), bytes).unwrap();
    }
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
    output(
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
        let unpacked = rootfs.join(member.logical.relative());
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
    let inspected: serde_json::Value = serde_json::from_str(&output("skopeo", &["inspect", &name])).unwrap();
    assert_eq!(inspected["Digest"], image.digest().to_string());
    assert_eq!(inspected["Created"], "1970-01-01T00:00:01Z");
    assert_eq!(inspected["Labels"]["org.example.a"], "1");
    assert_eq!(inspected["Architecture"], "amd64");
    assert_eq!(inspected["Env"][0], "A=1");
    assert_eq!(
        output("skopeo", &["inspect", "--raw", &name]).as_bytes(),
        image.manifest.bytes()
    );
    let copy = format!("dir:{}", fixture.dir.path().join("copy").display());
    output("skopeo", &["copy", "--quiet", &name, &copy]);
}
