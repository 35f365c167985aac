//! Images whose layers were cut, ordered or named differently.

use super::super::*;
use super::{GZIP, named, report, tree};
use crate::oci::Compression;
use crate::store_path::LogicalPath;
use crate::transport::testing::*;

fn layered(layers: &[&[Node]]) -> crate::image::Image {
    let tars: Vec<(Vec<u8>, Compression)> = layers.iter().map(|nodes| (tar(nodes), GZIP)).collect();
    image(&tars)
}

#[test]
fn the_same_files_in_other_layers_are_the_same_files() {
    let nodes = tree();
    let one = layered(&[&nodes]);
    let two = layered(&[&nodes[..2], &nodes[2..]]);
    let report = report(&one, &two);
    assert_eq!(report.same_files, Some(true), "{}", report.render());
    assert_eq!(named(&report), ["layer removed", "layer added", "layer added"]);
    assert!(report.render().contains("\nsame files, other layering\n"));
}

#[test]
fn other_files_in_other_layers_are_named() {
    let nodes = tree();
    let mut changed = nodes.clone();
    changed[3].mode = 0o600;
    let report = report(&layered(&[&nodes]), &layered(&[&changed[..2], &changed[2..]]));
    assert_eq!(report.same_files, Some(false));
    // The hard link is another name of the file, and changes with it.
    assert_eq!(named(&report)[3..], ["etc/motd mode", "etc/same mode"]);
}

#[test]
fn a_layer_that_is_added_removed_or_moved_is_named() {
    let (a, b, c) = ([Node::file("a", "a")], [Node::file("b", "b")], [Node::file("c", "c")]);
    let base = layered(&[&a, &b]);
    let more = report(&base, &layered(&[&a, &c, &b]));
    assert_eq!(named(&more), ["layer added", "c added"]);
    let fewer = report(&base, &layered(&[&b]));
    assert_eq!(named(&fewer), ["layer removed", "a removed"]);
    let moved = report(&base, &layered(&[&b, &a]));
    // Nothing of a layer that is in both is read, so nobody can say which of two files of one name wins.
    assert_eq!(
        (named(&moved), moved.same_files),
        (vec!["layer moved".to_owned()], None)
    );
}

#[test]
fn whiteouts_and_replacements_count_as_what_they_leave() {
    let plain = layered(&[&[Node::dir("d"), Node::file("d/keep", "k"), Node::file("x", "new")]]);
    let lower = [
        Node::dir("d"),
        Node::file("d/gone", ""),
        Node::file("d/keep", "k"),
        Node::dir("x"),
        Node::file("x/old", ""),
    ];
    let upper = [Node::file("d/.wh.gone", ""), Node::file("x", "new")];
    assert_eq!(report(&plain, &layered(&[&lower, &upper])).same_files, Some(true));
    let opaque = [
        Node::dir("d"),
        Node::file("d/.wh..wh..opq", ""),
        Node::file("d/keep", "k"),
        Node::file("x", "new"),
    ];
    assert_eq!(report(&plain, &layered(&[&lower, &opaque])).same_files, Some(true));
    let kept = [Node::file("x", "new")];
    let report = report(&plain, &layered(&[&lower, &kept]));
    assert_eq!(
        (report.same_files, named(&report).last().cloned()),
        (Some(false), Some("d/gone added".to_owned()))
    );
}

#[test]
fn a_rebuilt_store_path_is_matched_by_its_name() {
    let tree = |hash: char, text: &str| {
        let store = format!("layerize/store/{}-hello-2.10", hash.to_string().repeat(32));
        vec![
            Node::dir("layerize"),
            Node::dir("layerize/store"),
            Node::dir(&store),
            Node::file(&format!("{store}/readme"), text),
            Node::file(&format!("{store}/same"), "same"),
        ]
    };
    let report = report(&layered(&[&tree('0', "one\n")]), &layered(&[&tree('1', "two\n")]));
    assert_eq!(
        named(&report),
        [
            "layer changed",
            "store-path",
            "layerize/store/00000000000000000000000000000000-hello-2.10/readme content"
        ]
    );
    let Difference::File(file) = &report.differences[2] else {
        unreachable!()
    };
    assert_eq!(
        file.store_path.as_ref().map(LogicalPath::as_str),
        Some("/layerize/store/00000000000000000000000000000000-hello-2.10")
    );
    assert_eq!(
        file.content.as_ref().unwrap().text.as_deref(),
        Some("@@ -1 +1 @@\n-one\n+two")
    );
}

#[test]
fn a_nix_store_path_owns_its_files() {
    let path = format!("nix/store/{}-x-1/bin/x", "a".repeat(32));
    assert_eq!(
        super::super::owner(&path),
        Some((
            format!("/nix/store/{}-x-1", "a".repeat(32)).parse().unwrap(),
            "bin/x".to_owned()
        ))
    );
    assert_eq!(super::super::owner("nix/store/short/x"), None);
    assert_eq!(super::super::owner("etc/passwd"), None);
}
