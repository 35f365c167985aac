//! What sinks write: its bytes, its atomicity, what is left alone.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use super::super::testing::*;
use super::super::*;
use crate::archive::Kind;
use crate::archive::tar::{Streamed, TarPolicy, TarReader};
use crate::event::Silent;
use crate::fsio::sorted_names;
use crate::layer::{Blob, LayerError};
use crate::oci::Compression;
use crate::transport::registry::RegistryConfig;

const GZIP: Compression = Compression::Gzip(6);

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|&name| name.to_owned()).collect()
}

fn bytes_of(image: &Image, list: &[&str]) -> Vec<u8> {
    let stream = Stream::new(Vec::new(), "memory");
    assert_eq!(stream.put(image, &names(list)).unwrap(), image.digest());
    stream.into_inner()
}

#[test]
fn a_docker_archive_has_the_golden_bytes() {
    let golden = include_str!("../../../fixtures/transport/docker-archive.digests");
    let mut seen = String::new();
    for (label, compression) in [
        ("none", Compression::None),
        ("gzip:6", GZIP),
        ("zstd:3", Compression::Zstd(3)),
    ] {
        let image = sample(compression);
        let bytes = bytes_of(&image, &["hello:1.0", "registry.example/me/hello"]);
        seen += &format!("{label} {} {} {}\n", bytes.len(), Digest::of(&bytes), image.digest());
    }
    assert_eq!(seen, golden);
}

#[test]
fn entries_come_in_the_fixed_order_with_canonical_headers() {
    let image = sample(GZIP);
    let bytes = bytes_of(&image, &["hello"]);
    let mut reader = TarReader::new(Streamed(&bytes[..]), TarPolicy::IMAGE);
    let mut seen = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        assert_eq!((entry.uid, entry.gid, entry.mtime), (0, 0, (1, 0)));
        let mode = if entry.kind == Kind::Directory { 0o755 } else { 0o444 };
        assert_eq!((entry.mode, entry.uname.len() + entry.gname.len()), (mode, 0));
        seen.push(String::from_utf8(entry.path).unwrap());
    }
    let blob = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    let mut expected = names(&["oci-layout", "index.json", "manifest.json", "blobs/", "blobs/sha256/"]);
    expected.extend([blob(&image.digest()), blob(&image.config_digest())]);
    expected.extend(image.layers.iter().map(|layer| blob(&sha256(layer))));
    assert_eq!(seen, expected);
    assert_eq!(reader.finish().unwrap().1.bytes, 1024);
}

#[test]
fn a_layer_that_comes_twice_is_stored_once() {
    let tar = tar(&[Node::file("x", "x")]);
    let image = image(&[(tar.clone(), GZIP), (tar, GZIP)]);
    let bytes = bytes_of(&image, &[]);
    let mut reader = TarReader::new(Streamed(&bytes[..]), TarPolicy::IMAGE);
    let mut count = 0;
    while reader.next_entry().unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, 8);
}

#[test]
fn an_archive_is_published_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tar");
    let good = sample(GZIP);
    Archive::docker(&path).put(&good, &names(&["x"])).unwrap();
    let before = fs::read(&path).unwrap();
    for damage in [&b"too short"[..], &[0u8; 100_000][..]] {
        let mut bad = sample(Compression::None);
        bad.layers[1].content = Blob::Bytes(Arc::from(damage.to_vec()));
        let error = Archive::docker(&path).put(&bad, &names(&["x"])).unwrap_err();
        assert!(
            matches!(error, TransportError::Layer(LayerError::Damaged { .. })),
            "{error}"
        );
        assert!(error.to_string().contains(&bad.layers[1].digest().to_string()));
    }
    let mut flipped = sample(Compression::None);
    let Blob::Bytes(bytes) = &flipped.layers[0].content else {
        unreachable!()
    };
    let mut bytes = bytes.to_vec();
    bytes[600] ^= 1;
    flipped.layers[0].content = Blob::Bytes(Arc::from(bytes));
    let error = Archive::oci(&path).put(&flipped, &[]).unwrap_err();
    assert!(matches!(error, TransportError::Layer(LayerError::Damaged { .. })));
    let mut torn = sample(GZIP);
    torn.layers.pop();
    assert!(matches!(
        Archive::docker(&path).put(&torn, &[]),
        Err(TransportError::Malformed { .. })
    ));
    assert_eq!(fs::read(&path).unwrap(), before);
    assert_eq!(sorted_names(dir.path()).unwrap(), ["x.tar"]);
}

#[test]
fn blobs_in_files_and_parts_are_read_where_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let whole = sample(GZIP);
    let mut image = whole.clone();
    let Blob::Bytes(bytes) = whole.layers[0].content.clone() else {
        unreachable!()
    };
    let path = dir.path().join("cache");
    fs::write(&path, [b"before", &bytes[20..], b"after"].concat()).unwrap();
    let file = Blob::File {
        path,
        offset: 6,
        len: bytes.len() as u64 - 20,
    };
    image.layers[0].content = Blob::Parts(vec![Blob::Bytes(Arc::from(bytes[..20].to_vec())), file]);
    assert_eq!(bytes_of(&image, &["x"]), bytes_of(&whole, &["x"]));
}

#[test]
fn an_unchanged_archive_is_left_alone_and_any_doubt_rewrites_it() {
    let dir = tempfile::tempdir().unwrap();
    let (path, records) = (dir.path().join("x.tar"), dir.path().join("records"));
    let archive = Archive::docker(&path).records(Some(&records));
    let (one, two) = (sample(GZIP), sample(Compression::None));
    let write = |image: &Image, list: &[&str]| archive.write(image, &names(list)).unwrap().unchanged;
    assert!(!write(&one, &["x"]));
    let inode = fs::metadata(&path).unwrap().ino();
    assert!(write(&one, &["x"]));
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    assert!(!write(&one, &["y"]), "another name is another archive");
    assert!(!write(&two, &["y"]), "another image is another archive");
    assert!(write(&two, &["y"]));
    let times = fs::FileTimes::new().set_modified(fs::metadata(&path).unwrap().modified().unwrap());
    let mut file = fs::File::options().write(true).open(&path).unwrap();
    file.write_all(b"X").unwrap();
    file.set_times(times).unwrap();
    drop(file);
    assert!(
        !write(&two, &["y"]),
        "a change that keeps size and mtime is seen by the ctime"
    );
    assert!(write(&two, &["y"]));
    fs::remove_file(&path).unwrap();
    assert!(!write(&two, &["y"]));
    let record = records.join(&sorted_names(&records).unwrap()[0]);
    fs::write(&record, "garbage").unwrap();
    assert!(!write(&two, &["y"]));
    let file = fs::File::options().write(true).open(&record).unwrap();
    file.set_modified(fs::metadata(&path).unwrap().modified().unwrap() - std::time::Duration::from_secs(1))
        .unwrap();
    assert!(
        !write(&two, &["y"]),
        "a record that is not younger than its file is not believed"
    );
    let other = Archive::docker(&path).write(&two, &names(&["y"])).unwrap();
    assert!(!other.unchanged, "without records every write writes");
}

#[test]
fn a_link_is_written_through_and_a_pipe_is_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let image = sample(GZIP);
    let expected = bytes_of(&image, &["x"]);
    let (real, link) = (dir.path().join("real.tar"), dir.path().join("link.tar"));
    fs::write(&real, "old").unwrap();
    std::os::unix::fs::symlink("real.tar", &link).unwrap();
    Archive::docker(&link).put(&image, &names(&["x"])).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read(&real).unwrap(), expected);
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let reader = std::thread::spawn({
        let fifo = fifo.clone();
        move || fs::read(fifo).unwrap()
    });
    Archive::docker(&fifo).put(&image, &names(&["x"])).unwrap();
    assert_eq!(reader.join().unwrap(), expected);
    assert!(fs::symlink_metadata(&fifo).unwrap().file_type().is_fifo());
    assert!(Archive::docker(dir.path()).put(&image, &[]).is_err());
    assert!(
        Archive::docker(Path::new("/nonexistent/dir/x.tar"))
            .put(&image, &[])
            .is_err()
    );
}

#[test]
fn a_closed_pipe_ends_the_writer_with_a_clean_error() {
    let image = image(&[(tar(&[Node::file("big", vec![7; 1 << 20])]), Compression::None)]);
    let (mut reader, writer) = io::pipe().unwrap();
    let thread = std::thread::spawn(move || {
        let mut some = [0; 1000];
        reader.read_exact(&mut some).unwrap();
    });
    let error = Stream::new(writer, "standard output").put(&image, &[]).unwrap_err();
    thread.join().unwrap();
    assert!(matches!(error, TransportError::ReaderGone { .. }));
    assert_eq!(
        error.to_string(),
        "the reader of `standard output` went away before the whole archive was written"
    );
}

#[test]
fn a_layout_gains_images_and_keeps_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("layout");
    let (one, two) = (sample(GZIP), sample(Compression::None));
    Layout::new(&path, Some("v1")).put(&one, &names(&["hello"])).unwrap();
    let index = path.join("index.json");
    let mut value: serde_json::Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    value["manifests"][0]["annotations"]["mine"] = "kept".into();
    value["annotations"] = serde_json::json!({ "also": "kept" });
    fs::write(&index, value.to_string()).unwrap();
    fs::write(path.join("extra"), "kept").unwrap();
    Layout::new(&path, Some("v2")).put(&two, &[]).unwrap();
    let merged: serde_json::Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    assert_eq!(merged["manifests"].as_array().unwrap().len(), 2);
    assert_eq!(merged["manifests"][0], value["manifests"][0]);
    assert_eq!(merged["annotations"], value["annotations"]);
    assert!(path.join("extra").exists());
    let inode = |digest: &Digest| {
        fs::metadata(path.join("blobs/sha256").join(digest.hex()))
            .unwrap()
            .ino()
    };
    let before = inode(&sha256(&one.layers[0]));
    // The reference moves; blobs that are there stay.
    Layout::new(&path, Some("v2")).put(&one, &[]).unwrap();
    let moved: serde_json::Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    assert_eq!(moved["manifests"].as_array().unwrap().len(), 2);
    assert_eq!(moved["manifests"][1]["digest"], one.digest().to_string());
    assert_eq!(inode(&sha256(&one.layers[0])), before);
    // A torn blob is repaired.
    let blob = path.join("blobs/sha256").join(one.layers[1].digest().hex());
    fs::write(&blob, "torn").unwrap();
    Layout::new(&path, Some("v2")).put(&one, &[]).unwrap();
    assert_eq!(Digest::of(&fs::read(&blob).unwrap()), one.layers[1].digest());
    assert_eq!(
        sorted_names(&path).unwrap(),
        ["blobs", "extra", "index.json", "oci-layout"]
    );
}

#[test]
fn images_put_at_once_into_one_layout_are_all_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("layout");
    std::thread::scope(|scope| {
        for tag in 0..8 {
            let path = path.clone();
            scope.spawn(move || {
                Layout::new(&path, Some(&format!("t{tag}")))
                    .put(&sample(GZIP), &[])
                    .unwrap()
            });
        }
    });
    for tag in 0..8 {
        let location: Location = format!("oci:{}:t{tag}", path.display()).parse().unwrap();
        let source = location.source(&ReadOptions::default()).unwrap();
        assert_eq!(source.manifest().unwrap().digest(), sample(GZIP).digest());
    }
}

#[test]
fn a_directory_of_other_things_and_a_broken_index_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let error = Layout::new(dir.path(), None).put(&sample(GZIP), &[]).unwrap_err();
    assert!(matches!(&error, TransportError::Unsupported { .. }), "{error}");
    assert!(error.help().unwrap().contains("name an empty or a new one"));
    let layout = dir.path().join("layout");
    Layout::new(&layout, None).put(&sample(GZIP), &[]).unwrap();
    for broken in ["[]", "{}", "{\"manifests\":{}}", "nonsense"] {
        fs::write(layout.join("index.json"), broken).unwrap();
        assert!(Layout::new(&layout, None).put(&sample(GZIP), &[]).is_err(), "{broken}");
        assert_eq!(fs::read_to_string(layout.join("index.json")).unwrap(), broken);
    }
}

#[test]
fn illegal_names_are_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    for sink in [
        Box::new(Archive::docker(&path)) as Box<dyn Sink>,
        Box::new(Archive::oci(&path)),
        Box::new(Layout::new(&path, None)),
    ] {
        assert!(matches!(
            sink.put(&sample(GZIP), &names(&["Not A Name"])),
            Err(TransportError::Reference(_))
        ));
    }
    assert!(Layout::new(&path, Some("a\nb")).put(&sample(GZIP), &[]).is_err());
    assert!(!path.exists());
}

#[test]
fn several_sinks_take_one_image_and_one_failure_spares_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let sinks: Vec<Box<dyn Sink>> = [
        "docker-archive:A",
        "oci-archive:/nonexistent/x",
        "oci:B:tag",
        "oci-archive:C:tag",
    ]
    .iter()
    .map(|text| text.replace(":A", &format!(":{}/a.tar", dir.path().display())))
    .map(|text| text.replace(":B", &format!(":{}/b", dir.path().display())))
    .map(|text| text.replace(":C", &format!(":{}/c.tar", dir.path().display())))
    .map(|text| {
        text.parse::<Location>()
            .unwrap()
            .sink(None, &RegistryConfig::default(), &Silent)
            .unwrap()
    })
    .collect();
    let results = put_all(&sinks, &Content::Image(sample(GZIP)), &names(&["x"]));
    let good: Vec<bool> = results.iter().map(Result::is_ok).collect();
    assert_eq!(good, [true, false, true, true]);
    assert_eq!(sorted_names(dir.path()).unwrap(), ["a.tar", "b", "c.tar"]);
}

#[test]
fn what_old_consumers_refuse_is_warned_of() {
    let sink = Archive::docker(Path::new("x.tar"));
    assert_eq!(sink.warnings(&sample(GZIP)), Vec::<String>::new());
    assert!(sink.warnings(&sample(Compression::Zstd(3)))[0].contains("Docker before 23"));
    let tars: Vec<_> = (0..126)
        .map(|n| (tar(&[Node::file(&format!("f{n}"), "")]), Compression::None))
        .collect();
    assert!(sink.warnings(&image(&tars))[0].contains("at most 125 layers"));
    assert!(sink.warnings(&image(&tars[..125])).is_empty());
}
