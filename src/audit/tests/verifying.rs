//! Verification: sound images pass, each lie is named.

use std::process::Command;

use proptest::prelude::*;

use serde_json::Value;

use super::super::*;
use super::{GZIP, of, tree};
use crate::digest::{DiffId, Digest};
use crate::oci::{Compression, Descriptor};
use crate::transport::testing::*;
use crate::transport::{Location, ReadOptions, Sink, Source};

fn problems(image: &dyn Source) -> Vec<String> {
    let report = verify(image).unwrap();
    report
        .problems
        .iter()
        .map(|problem| format!("{}: {}", problem.subject, problem.text))
        .collect()
}

/// An image with a changed config and manifest, its digests made right again.
fn changed(config_change: impl Fn(&mut Value), manifest_change: impl Fn(&mut Value)) -> Loose {
    let base = Loose::of(&of(&tree()));
    let mut config: Value = serde_json::from_slice(&base.config).unwrap();
    config_change(&mut config);
    let config = config.to_string().into_bytes();
    let mut manifest: Value = serde_json::from_slice(&base.manifest).unwrap();
    manifest["config"]["digest"] = Digest::of(&config).to_string().into();
    manifest["config"]["size"] = config.len().into();
    manifest_change(&mut manifest);
    Loose {
        manifest: manifest.to_string().into_bytes(),
        config,
        ..base
    }
}

#[test]
fn sound_images_have_no_problems() {
    for compression in [Compression::None, GZIP, Compression::Zstd(3)] {
        let report = verify(&sample(compression)).unwrap();
        assert!(report.ok(), "{}", report.render());
        assert!(report.render().ends_with(": no problems\n"));
    }
}

#[test]
fn each_lie_of_the_documents_is_named() {
    type Change = fn(&mut Value);
    let none: Change = |_| {};
    let cases: [(Change, Change, &str); 11] = [
        (
            |config| config["rootfs"]["type"] = "other".into(),
            none,
            "config, rootfs.type: it is `other`",
        ),
        (
            |config| drop(config["rootfs"]["diff_ids"].as_array_mut().unwrap().pop()),
            none,
            "config, rootfs.diff_ids: it has 1, and the manifest has 2",
        ),
        (
            |config| config["rootfs"]["diff_ids"].as_array_mut().unwrap().swap(0, 1),
            none,
            "layer 0: its diffID is sha256:",
        ),
        (
            |config| drop(config["history"].as_array_mut().unwrap().pop()),
            none,
            "config, history: it tells of 1 layers",
        ),
        (|config| config["os"] = "".into(), none, "config, os: it is missing"),
        (
            none,
            |manifest| manifest["schemaVersion"] = 1.into(),
            "manifest, schemaVersion: it is 1",
        ),
        (
            none,
            |manifest| manifest["config"]["mediaType"] = "text/plain".into(),
            "manifest, config.mediaType: it is `text/plain`",
        ),
        (
            none,
            |manifest| manifest["layers"][1]["mediaType"] = "text/plain".into(),
            "layer 1: its media type `text/plain` is not a layer's",
        ),
        (
            none,
            |manifest| manifest["layers"][1]["mediaType"] = "application/vnd.oci.image.layer.v1.tar+zstd".into(),
            "layer 1: its media type says zstd, and its bytes are gzip",
        ),
        (
            none,
            |manifest| manifest["layers"][1]["size"] = 7.into(),
            "layer 1: cannot read",
        ),
        (
            none,
            |manifest| manifest["layers"].as_array_mut().unwrap().swap(0, 1),
            "layer 0: its diffID is",
        ),
    ];
    for (config, manifest, expected) in cases {
        let found = problems(&changed(config, manifest));
        assert!(
            found.first().is_some_and(|first| first.starts_with(expected)),
            "{expected}: {found:?}"
        );
    }
}

#[test]
fn each_lie_of_a_layer_is_named() {
    let of_tar = |bytes: Vec<u8>| image(&[(bytes, Compression::None)]);
    let dirty_end = [tar(&tree()), b"garbage".to_vec()].concat();
    let twice = tar(&[Node::file("x", "1"), Node::file("./x", "2")]);
    let dangling = tar(&[Node::hard_link("x", "nowhere")]);
    let outside = tar(&[Node::file("../x", "")]);
    let sparse = tar(&[Node {
        flag: b'S',
        gnu: true,
        ..Node::file("x", "")
    }]);
    let cut = tar(&tree())[..1000].to_vec();
    for (bytes, expected) in [
        (dirty_end, "layer 0: bytes other than zero follow its last entry"),
        (twice, "layer 0, `x`: it appears twice"),
        (
            dangling,
            "layer 0, `x`: it is a hard link to `nowhere`, which is not before it",
        ),
        (outside, "layer 0, `../x`: its path has a component `..`"),
        (sparse, "layer 0, `x`: it is a type 'S', which layers must not have"),
        (cut, "layer 0: cannot read"),
        (
            b"no tar at all, but long enough to be taken for a header".repeat(20),
            "layer 0: cannot read the tar",
        ),
    ] {
        let found = problems(&of_tar(bytes));
        assert!(
            found.first().is_some_and(|first| first.starts_with(expected)),
            "{expected}: {found:?}"
        );
    }
}

#[test]
fn a_damaged_layer_does_not_hide_the_next() {
    let mut image = of(&tree());
    for layer in &mut image.layers {
        let crate::layer::Blob::Bytes(bytes) = &layer.content else {
            unreachable!()
        };
        let mut bytes = bytes.to_vec();
        bytes[15] ^= 1;
        layer.content = crate::layer::Blob::Bytes(bytes.into());
    }
    let found = problems(&image);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("layer 0: ") && found[1].starts_with("layer 1: "));
}

#[test]
fn trailing_bytes_after_a_plain_frame_are_noticed() {
    let bytes = [compress(&tar(&tree()), Compression::Gzip(6)), b"tail".to_vec()].concat();
    let mut layer = layer(&tar(&tree()), GZIP);
    layer.descriptor = Descriptor::new(&layer.descriptor.media_type, Digest::of(&bytes), bytes.len() as u64);
    layer.content = crate::layer::Blob::Bytes(bytes.into());
    let diff_ids: Vec<DiffId> = vec![layer.diff_id.unwrap()];
    let found = problems(&image_of(vec![layer], &config(&diff_ids), None));
    assert_eq!(found.len(), 1, "{found:?}");
}

/// An archive whose two descriptions name different images is found out.
#[test]
fn an_archive_with_two_faces_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tar");
    let image = sample(GZIP);
    let stream = crate::transport::Stream::new(Vec::new(), "memory");
    stream.put(&image, &[]).unwrap();
    let mut bytes = stream.into_inner();
    let at = bytes.windows(9).position(|window| window == b"{\"Config\"").unwrap();
    let hex = bytes[at..].windows(7).position(|window| window == b"sha256/").unwrap() + at + 7;
    bytes[hex] = if bytes[hex] == b'0' { b'1' } else { b'0' };
    std::fs::write(&path, bytes).unwrap();
    let report = verify(&*Location::Path(path).source(&ReadOptions::default()).unwrap()).unwrap();
    assert_eq!(report.problems[0].subject, "archive", "{}", report.render());
}

proptest! {
    /// Whatever the bytes of a tar or a document are, and however they lie, there is a report.
    #[test]
    fn changed_bytes_are_reported_and_never_a_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        what in 0..3,
    ) {
        let mut base = Loose::of(&of(&tree()));
        let change = |bytes: &mut Vec<u8>| {
            for (at, byte) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
        };
        match what {
            0 => {
                let mut bytes = tar(&tree());
                change(&mut bytes);
                base = Loose::of(&image(&[(bytes, Compression::None)]));
            }
            1 => {
                let mut config = base.config.clone();
                change(&mut config);
                let text = String::from_utf8_lossy(&base.manifest).replace(
                    &Digest::of(&base.config).to_string(),
                    &Digest::of(&config).to_string(),
                );
                (base.config, base.manifest) = (config, text.into_bytes());
            }
            _ => change(&mut base.manifest),
        }
        if let Ok(report) = verify_for(&base, &Profile::ALL) {
            prop_assert!(report.render().ends_with('\n'));
        }
        let _ = explain(&base, "/etc/issue");
    }
}

/// Images that other tools made have no problems, and differ from ours in what is known to differ.
#[test]
fn images_of_other_tools_are_sound() {
    if !oracle("skopeo") || !oracle("umoci") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let ours = sample(GZIP);
    crate::transport::Layout::new(dir.path().join("ours").as_path(), Some("t"))
        .put(&ours, &[])
        .unwrap();
    let from = format!("oci:{}:t", at("ours"));
    for to in [
        format!("oci-archive:{}:t", at("o.tar")),
        format!("docker-archive:{}:t:1", at("d.tar")),
        format!("oci:{}:t", at("layout")),
    ] {
        run(Command::new("skopeo").args(["--insecure-policy", "copy", &from, &to]));
        let source = to.parse::<Location>().unwrap().source(&ReadOptions::default()).unwrap();
        assert!(verify(&*source).unwrap().ok(), "{}", verify(&*source).unwrap().render());
        let report = diff(&ours, &*source, &DiffOptions::default()).unwrap();
        let only_compression = report
            .differences
            .iter()
            .all(|found| found.class() == Some(Class::Compression));
        assert!(only_compression, "{}", report.render());
        assert_eq!(report.equal(), to.starts_with("oci"));
    }
    run(Command::new("umoci").args([
        "config",
        "--config.workingdir",
        "/tmp",
        "--image",
        &format!("{}:t", at("layout")),
        "--tag",
        "u",
    ]));
    let source = format!("oci:{}:u", at("layout"))
        .parse::<Location>()
        .unwrap()
        .source(&ReadOptions::default())
        .unwrap();
    assert!(verify(&*source).unwrap().ok(), "{}", verify(&*source).unwrap().render());
    let names = super::named(&diff(&ours, &*source, &DiffOptions::default()).unwrap());
    assert!(names.contains(&"config config.WorkingDir".to_owned()), "{names:?}");
    assert!(!names.iter().any(|name| name.starts_with("layer")), "{names:?}");
}

/// What Docker saves of a plain image has the same config and layers: no difference, though it holds no manifest.
#[test]
fn an_image_that_went_through_docker_is_equal() {
    if !oracle("docker") {
        return;
    }
    let name = format!("layerize-test-audit-{}", std::process::id());
    let mark = tar(&[Node::file("mark", &name)]);
    let image = image(&[(tar(&tree()), Compression::None), (mark, Compression::None)]);
    crate::transport::daemon::load(&image, std::slice::from_ref(&name), crate::transport::Engine::Docker).unwrap();
    let source = format!("docker-daemon:{name}")
        .parse::<Location>()
        .unwrap()
        .source(&ReadOptions::default());
    run(Command::new("docker").args(["rmi", "-f", &name]));
    let source = source.unwrap();
    let report = verify(&*source).unwrap();
    assert!(report.ok(), "{}", report.render());
    let report = diff(&image, &*source, &DiffOptions::default()).unwrap();
    assert!(report.equal() && report.b.digest.is_none(), "{}", report.render());
}
