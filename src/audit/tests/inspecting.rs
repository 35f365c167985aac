//! Inspection: the report of a fixed image, for programs and for people.

use serde_json::json;

use super::super::*;
use super::{GZIP, tree};
use crate::digest::DiffId;
use crate::image::Image;
use crate::oci::Compression;
use crate::transport::testing::*;
use crate::transport::{Archive, Location, ReadOptions, Sink};

fn fixed() -> Image {
    let store = format!("layerize/store/{}-hello-2.10", "0".repeat(32));
    let layers = vec![
        layer(&tar(&tree()), GZIP),
        layer(&tar(&[Node::file(&store, "x")]), Compression::None),
    ];
    let diff_ids: Vec<DiffId> = layers.iter().filter_map(|layer| layer.diff_id).collect();
    let mut config = config(&diff_ids);
    config["config"]["ExposedPorts"] = json!({ "80/tcp": {} });
    config["config"]["User"] = "nobody".into();
    image_of(
        layers,
        &config,
        Some(json!({ "org.opencontainers.image.title": "hello" })),
    )
}

#[test]
fn the_report_of_a_fixed_image_is_golden() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tar");
    Archive::docker(&path).put(&fixed(), &["hello:1".to_owned()]).unwrap();
    let source = Location::Path(path.clone()).source(&ReadOptions::default()).unwrap();
    let mut report = inspect(&*source, InspectOptions { layers: true }).unwrap();
    assert_eq!(report.place, path.display().to_string());
    report.place = "hello.tar".to_owned();
    assert_eq!(report.render(), include_str!("../../../fixtures/audit/inspect.txt"));
    let json = serde_json::to_string_pretty(&report).unwrap() + "\n";
    assert_eq!(json, include_str!("../../../fixtures/audit/inspect.json"));
}

#[test]
fn without_options_only_documents_are_read() {
    let mut image = fixed();
    image.layers[0].content = crate::layer::Blob::Bytes(vec![0; 10].into());
    let report = inspect(&image, InspectOptions::default()).unwrap();
    assert_eq!((report.layers[0].entries, report.unpacked_size), (None, None));
    assert!(inspect(&image, InspectOptions { layers: true }).is_err());
}

#[test]
fn store_paths_come_from_the_annotation_or_from_the_layer() {
    let image = fixed();
    let listed = inspect(&image, InspectOptions { layers: true }).unwrap();
    assert_eq!(
        listed.layers[1].store_paths,
        [format!("/layerize/store/{}-hello-2.10", "0".repeat(32))]
    );
    assert!(
        inspect(&image, InspectOptions::default()).unwrap().layers[1]
            .store_paths
            .is_empty()
    );
    let image = changed_manifest(&image, |manifest| {
        manifest["layers"][1]["annotations"] = json!({ "dev.layerize.store-paths": "/a/x /a/y", "other": "z" });
    });
    let noted = inspect(&image, InspectOptions::default()).unwrap();
    assert_eq!(noted.layers[1].store_paths, ["/a/x", "/a/y"]);
    assert_eq!(noted.layers[1].annotations.len(), 1);
}

#[test]
fn sizes_read_as_people_write_them() {
    for (bytes, text) in [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (12_345_678, "12.3 MB"),
    ] {
        assert_eq!(human_size(bytes), text);
    }
}
