//! Tests of the audits as a whole.

mod differing;
mod inspecting;
mod large;
mod packing;
mod relayered;
mod verifying;

use serde_json::Value;

use super::{DiffOptions, DiffReport, Difference, diff};
use crate::image::Image;
use crate::oci::Compression;
use crate::transport::testing::{Node, image, tar};

pub(super) const GZIP: Compression = Compression::Gzip(6);

/// A tree with an entry of every kind.
fn tree() -> Vec<Node> {
    vec![
        Node::dir("bin"),
        Node::file("bin/tool", [0u8, 1, 2, 3, 250, 251].repeat(50)).mode(0o555),
        Node::dir("etc"),
        Node::file("etc/motd", "one\ntwo\nthree\n"),
        Node::symlink("etc/issue", "motd"),
        Node::hard_link("etc/same", "etc/motd"),
    ]
}

fn of(nodes: &[Node]) -> Image {
    image(&[(tar(&[Node::file("base", "base")]), GZIP), (tar(nodes), GZIP)])
}

fn report(a: &Image, b: &Image) -> DiffReport {
    diff(a, b, &DiffOptions::default()).unwrap()
}

/// What a report names, one short text a difference; the layer that holds the files is left out where files follow.
fn named(report: &DiffReport) -> Vec<String> {
    let word = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    report
        .differences
        .iter()
        .map(|difference| (difference, serde_json::to_value(difference).unwrap()))
        .map(|(difference, value)| match difference {
            Difference::Index(_) | Difference::Manifest(_) | Difference::Config(_) => {
                format!("{} {}", word(&value, "level"), word(&value, "field"))
            }
            Difference::Layer(_) => format!("layer {}", word(&value, "change")),
            Difference::StorePath(_) => word(&value, "class"),
            Difference::File(_) => format!("{} {}", word(&value, "path"), word(&value, "class")),
            Difference::Archive(_) => word(&value, "class"),
        })
        .collect()
}
