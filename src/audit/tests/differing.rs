//! Pairs of images that differ in exactly one respect: that respect is named, and nothing else.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::super::*;
use super::{GZIP, named, of, report, tree};
use crate::digest::{DiffId, Digest};
use crate::image::Image;
use crate::oci::{Compression, ConfigDocument, Document, Raw};
use crate::transport::testing::*;
use crate::transport::{Source, TransportError};

#[test]
fn one_changed_entry_is_named_with_its_respect_alone() {
    type Change = fn(&mut Vec<Node>);
    let cases: [(&str, Change); 16] = [
        ("etc/motd mode", |nodes| nodes[3].mode = 0o644),
        ("etc/motd owner", |nodes| nodes[3].owner = (1000, 0)),
        ("etc/motd mtime", |nodes| nodes[3].mtime = 1_700_000_000),
        ("etc/motd content", |nodes| {
            nodes[3].data = b"one\nTWO\nthree\n".to_vec()
        }),
        ("etc/motd content", |nodes| nodes[3].data = b"one\n".to_vec()),
        ("etc/issue link", |nodes| nodes[4].link = "other".into()),
        ("etc/same link", |nodes| nodes[5].link = "base".into()),
        ("etc/issue type", |nodes| nodes[4] = Node::file("etc/issue", "")),
        ("bin type", |nodes| {
            nodes[0] = Node::symlink("bin", "usr/bin");
            nodes.remove(1);
            nodes.insert(1, tree().remove(1));
        }),
        ("bin/tool xattr", |nodes| {
            nodes[1].xattrs = vec![("user.a".into(), b"v".to_vec())]
        }),
        ("etc/new added", |nodes| nodes.push(Node::file("etc/new", ""))),
        ("etc/same removed", |nodes| drop(nodes.pop())),
        ("order", |nodes| nodes.swap(3, 4)),
        ("tar-format", |nodes| nodes.iter_mut().for_each(|node| node.gnu = true)),
        ("tar-path", |nodes| {
            nodes.iter_mut().for_each(|node| node.path = format!("./{}", node.path))
        }),
        ("bin mode", |nodes| nodes[0].mode = 0o755),
    ];
    let a = of(&tree());
    for (expected, change) in cases {
        let mut nodes = tree();
        change(&mut nodes);
        let b = of(&nodes);
        for (x, y) in [(&a, &b), (&b, &a)] {
            let report = report(x, y);
            let expected = if std::ptr::eq(x, &raw const b) {
                swap(expected)
            } else {
                expected.to_owned()
            };
            assert_eq!(named(&report), ["layer changed", &expected], "{}", report.render());
            assert!(!report.equal() && report.same_files.is_none());
        }
    }
}

/// What is added seen from one side is removed seen from the other.
fn swap(text: &str) -> String {
    match text.rsplit_once(' ') {
        Some((path, "added")) => format!("{path} removed"),
        Some((path, "removed")) => format!("{path} added"),
        _ => text.to_owned(),
    }
}

/// The pax dialect: the same entry with a record that says nothing new, or one that only carries what differs.
#[test]
fn pax_records_are_the_dialect_unless_they_carry_the_difference() {
    let with_record = |key: &str, value: &str| {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions([(key, value.as_bytes())]).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_path("file").unwrap();
        header.set_mode(0o444);
        header.set_mtime(1);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header.set_cksum();
        builder.append(&header, &b""[..]).unwrap();
        builder.into_inner().unwrap()
    };
    let plain = image(&[(tar(&[Node::file("file", "")]), GZIP)]);
    for (key, value, expected) in [
        ("comment", "x", "tar-pax"),
        ("atime", "5", "tar-pax"),
        ("mtime", "1", "tar-pax"),
        ("mtime", "1.5", "file mtime"),
        ("uid", "7", "file owner"),
        ("SCHILY.xattr.user.x", "y", "file xattr"),
    ] {
        let other = image(&[(with_record(key, value), GZIP)]);
        assert_eq!(named(&report(&plain, &other)), ["layer changed", expected], "{key}");
    }
}

#[test]
fn padding_and_bytes_of_no_entry_are_the_dialect() {
    let plain = tar(&tree());
    let longer = [&plain[..], &[0; 9216]].concat();
    let mut dirty = plain.clone();
    let at = dirty.len() - 1024 - 512 * 2 - 1;
    assert_eq!(dirty[at], 0);
    dirty[at] = 1; // the unused end of the last header but one: only its checksum knows
    let a = image(&[(plain.clone(), GZIP)]);
    assert_eq!(
        named(&report(&a, &image(&[(longer, GZIP)]))),
        ["layer changed", "tar-padding"]
    );
    // A file's last block is filled with something else than zeros.
    let motd = plain
        .windows(14)
        .position(|window| window == b"one\ntwo\nthree\n")
        .unwrap();
    let mut filled = plain.clone();
    filled[motd + 100] = b'x';
    let expected = "tar-bytes";
    assert_eq!(
        named(&report(&a, &image(&[(filled, GZIP)]))),
        ["layer changed", expected]
    );
    // A header that says the same in other bytes: the size with a space instead of a leading zero.
    let mut spaced = plain;
    spaced[124] = b' ';
    let sum: u32 = (0..512)
        .map(|index| {
            if (148..156).contains(&index) {
                32
            } else {
                u32::from(spaced[index])
            }
        })
        .sum();
    spaced[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert_eq!(
        named(&report(&a, &image(&[(spaced, GZIP)]))),
        ["layer changed", "tar-header"]
    );
}

#[test]
fn contents_are_explained_down_to_the_byte_and_the_line() {
    let mut nodes = tree();
    nodes[3].data = b"one\nTWO\nthree\n".to_vec();
    nodes[1].data[100] ^= 1;
    let report = report(&of(&tree()), &of(&nodes));
    let files: Vec<&FileChange> = report
        .differences
        .iter()
        .filter_map(|found| {
            if let Difference::File(file) = found {
                Some(file)
            } else {
                None
            }
        })
        .collect();
    let tool = files[0].content.as_ref().unwrap();
    assert_eq!((tool.offset, &tool.text), (100, &None));
    let motd = files[1].content.as_ref().unwrap();
    assert_eq!(
        (motd.offset, motd.text.as_deref()),
        (4, Some("@@ -1,3 +1,3 @@\n one\n-two\n+TWO\n three"))
    );
}

#[test]
fn compression_alone_is_told_apart() {
    let tars = [tar(&tree())];
    let with = |compression| image(&[(tars[0].clone(), compression)]);
    for (x, y) in [
        (GZIP, Compression::None),
        (GZIP, Compression::Gzip(1)),
        (Compression::None, Compression::Zstd(3)),
    ] {
        let report = report(&with(x), &with(y));
        assert_eq!(named(&report), ["layer compression"], "{}", report.render());
    }
}

fn configured(change: impl Fn(&mut Value), annotations: Option<Value>) -> Image {
    let layers = vec![layer(&tar(&tree()), GZIP)];
    let diff_ids: Vec<DiffId> = layers.iter().filter_map(|layer| layer.diff_id).collect();
    let mut config = config(&diff_ids);
    change(&mut config);
    image_of(layers, &config, annotations)
}

#[test]
fn one_changed_field_is_named_alone() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 12] = [
        ("config config.Entrypoint", |config| {
            config["config"]["Entrypoint"] = json!(["/bye"])
        }),
        ("config config.Cmd", |config| config["config"]["Cmd"] = json!(["x"])),
        ("config config.Env.A", |config| {
            config["config"]["Env"] = json!(["A=2", "PATH=/bin"])
        }),
        ("config config.Env.NEW", |config| {
            config["config"]["Env"] = json!(["A=1", "PATH=/bin", "NEW="])
        }),
        ("config config.Env (order)", |config| {
            config["config"]["Env"] = json!(["PATH=/bin", "A=1"])
        }),
        ("config config.Labels.a", |config| {
            config["config"]["Labels"]["a"] = "c".into()
        }),
        ("config config.WorkingDir", |config| {
            config["config"]["WorkingDir"] = "/tmp".into()
        }),
        ("config config.User", |config| {
            config["config"]["User"] = "nobody".into()
        }),
        ("config created", |config| {
            config["created"] = "2026-01-01T00:00:00Z".into()
        }),
        ("config architecture", |config| config["architecture"] = "arm64".into()),
        ("config history[0].comment", |config| {
            config["history"][0]["comment"] = "other".into()
        }),
        ("config author", |config| config["author"] = "me".into()),
    ];
    let a = configured(|_| {}, None);
    for (expected, change) in cases {
        assert_eq!(named(&report(&a, &configured(change, None))), [expected]);
    }
    let b = configured(|_| {}, Some(json!({ "k": "v" })));
    assert_eq!(named(&report(&a, &b)), ["manifest annotations"]);
    let c = configured(|_| {}, Some(json!({ "k": "w" })));
    assert_eq!(named(&report(&b, &c)), ["manifest annotations.k"]);
}

/// The same documents in other bytes, as another tool would write them.
#[test]
fn other_json_of_the_same_values_is_named_as_such() {
    let a = configured(|_| {}, None);
    let b = with_manifest(&a, [a.manifest.bytes(), b"\n"].concat());
    assert_eq!(
        named(&report(&a, &b)),
        [format!(
            "manifest manifest's JSON encoding, from byte {}",
            a.manifest.size()
        )]
    );
    let config = serde_json::to_vec_pretty(&a.config.image().unwrap().json()).unwrap();
    let mut c = changed_manifest(&a, |manifest| {
        manifest["config"]["digest"] = Digest::of(&config).to_string().into();
        manifest["config"]["size"] = config.len().into();
    });
    c.config = ConfigDocument::Image(Raw::read(config).unwrap());
    assert_eq!(named(&report(&a, &c)), ["config config's JSON encoding, from byte 1"]);
}

#[test]
fn a_layer_annotation_is_a_field_of_the_manifest() {
    let a = configured(|_| {}, None);
    let b = changed_manifest(&a, |manifest| {
        manifest["layers"][0]["annotations"] = json!({ "k": "v" })
    });
    assert_eq!(named(&report(&a, &b)), ["manifest layers[0].annotations"]);
}

/// Counts the blobs that are opened.
struct Counting<'a> {
    image: &'a Image,
    opened: AtomicUsize,
}

impl Source for Counting<'_> {
    fn place(&self) -> &str {
        "counting"
    }

    fn document(&self) -> Result<Document, TransportError> {
        self.image.document()
    }

    fn blob(&self, digest: &ContentDigest, size: u64) -> Result<Box<dyn Read + Send>, TransportError> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.image.blob(digest, size)
    }
}

#[test]
fn what_is_equal_is_never_opened() {
    let (a, mut nodes) = (of(&tree()), tree());
    nodes[3].mode = 0o600;
    let b = of(&nodes);
    let count = |x: &Image, y: &Image| {
        let (x, y) = (
            Counting {
                image: x,
                opened: 0.into(),
            },
            Counting {
                image: y,
                opened: 0.into(),
            },
        );
        let equal = diff(&x, &y, &DiffOptions::default()).unwrap().equal();
        (equal, x.opened.into_inner(), y.opened.into_inner())
    };
    assert_eq!(count(&a, &a), (true, 0, 0));
    // Config and the one layer that differs; never the base.
    assert_eq!(count(&a, &b), (false, 2, 2));
}

#[test]
fn long_reports_are_cut_and_say_so() {
    let nodes: Vec<Node> = (0..50).map(|n| Node::file(&format!("f{n:02}"), "x")).collect();
    let other: Vec<Node> = nodes.iter().cloned().map(|node| node.mode(0o600)).collect();
    let options = DiffOptions {
        files: 10,
        ..DiffOptions::default()
    };
    let report = diff(&of(&nodes), &of(&other), &options).unwrap();
    assert_eq!((report.differences.len(), report.omitted), (11, 40));
    assert!(report.render().contains("\n… and 40 more files\n"));
}

#[test]
fn a_damaged_layer_is_an_error_and_never_a_difference() {
    let (a, mut nodes) = (of(&tree()), tree());
    nodes[3].mode = 0o600;
    let mut b = of(&nodes);
    let crate::layer::Blob::Bytes(bytes) = &b.layers[1].content else {
        unreachable!()
    };
    let mut bytes = bytes.to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    b.layers[1].content = crate::layer::Blob::Bytes(bytes.into());
    let error = diff(&a, &b, &DiffOptions::default()).unwrap_err();
    assert!(
        matches!(error, AuditError::Layer { .. } | AuditError::Tar { .. }),
        "{error}"
    );
}

/// Compares with a file of `fixtures/audit`, or writes it where `GOLDEN=write` is set.
fn golden(name: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/audit")
        .join(name);
    #[expect(clippy::disallowed_methods, reason = "a golden file is written on request")]
    if std::env::var("GOLDEN").is_ok_and(|value| value == "write") {
        std::fs::write(&path, text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{name}");
}

/// The report of a pair that differs in many respects, for people and for programs.
#[test]
fn the_report_of_a_fixed_pair_is_golden() {
    let mut nodes = tree();
    nodes[1].mode = 0o4755;
    nodes[1].data[100] ^= 1;
    nodes[3].data = b"one\nTWO\nthree\n".to_vec();
    nodes[4].link = "elsewhere".to_owned();
    nodes.push(Node::file("etc/new", "new"));
    nodes.swap(3, 4);
    let with = |nodes: &[Node], compression, user: &str| {
        let layers = vec![
            layer(&tar(&[Node::file("base", "base")]), compression),
            layer(&tar(nodes), GZIP),
        ];
        let diff_ids: Vec<DiffId> = layers.iter().filter_map(|layer| layer.diff_id).collect();
        let mut config = config(&diff_ids);
        config["config"]["User"] = user.into();
        image_of(layers, &config, None)
    };
    let report = report(&with(&tree(), GZIP, ""), &with(&nodes, Compression::None, "nobody"));
    golden("diff.txt", &report.render());
    golden("diff.json", &(serde_json::to_string_pretty(&report).unwrap() + "\n"));
    golden("diff.html", &report.render_html());
}

/// An image that claims another's diffID for a layer of its own is no "compression only".
#[test]
fn a_claimed_diff_id_is_not_believed() {
    let honest = image(&[(tar(&tree()), GZIP)]);
    let other = layer(&tar(&[Node::file("evil", "")]), GZIP);
    let liar = image_of(vec![other], &config(&[honest.layers[0].diff_id.unwrap()]), None);
    let error = diff(&honest, &liar, &DiffOptions::default()).unwrap_err();
    assert!(matches!(error, AuditError::Claim { .. }), "{error}");
    assert!(error.help().unwrap().contains("verify"));
}
