//! What a hostile builder says is refused, each with a reason; nothing of it is registered, and the store stays as it was.

use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};

use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use bazel_remote_apis::google::protobuf::UInt32Value;
use prost::Message;
use tonic::Code;

use crate::builders::{build, info, is_clean, small};
use crate::farm::{Answer, Farm, Job, Rules};

type Make = fn(&Job) -> Answer;

fn result(result: api::ActionResult) -> Answer {
    Answer::Result(Box::new(result))
}

/// A directory of one file.
fn named(job: &Job, name: &str) -> api::Directory {
    api::Directory {
        files: vec![file(job, name, b"bytes")],
        ..api::Directory::default()
    }
}

fn file(job: &Job, name: &str, bytes: &[u8]) -> api::FileNode {
    api::FileNode {
        name: name.to_owned(),
        digest: Some(job.state.put(bytes)),
        ..api::FileNode::default()
    }
}

fn link(name: &str, target: &str) -> api::SymlinkNode {
    api::SymlinkNode {
        name: name.to_owned(),
        target: target.to_owned(),
        ..api::SymlinkNode::default()
    }
}

fn links(links: Vec<api::SymlinkNode>) -> api::Directory {
    api::Directory {
        symlinks: links,
        ..api::Directory::default()
    }
}

fn below(job: &Job, name: &str, directory: &api::Directory) -> api::DirectoryNode {
    api::DirectoryNode {
        name: name.to_owned(),
        digest: Some(job.state.put_message(directory)),
    }
}

/// A good result with a file at another path besides.
fn beside(job: &Job, path: &str) -> Answer {
    let mut made = job.file(b"made\n");
    let mut more = job.file(b"more\n").output_files.remove(0);
    more.path = path.to_owned();
    made.output_files.push(more);
    result(made)
}

fn symlink(job: &Job, path: &str, target: &str) -> api::ActionResult {
    let link = api::OutputSymlink {
        path: path.to_owned(),
        target: target.to_owned(),
        ..api::OutputSymlink::default()
    };
    let mut made = job.file(b"made\n");
    made.output_files.retain(|file| file.path != path);
    made.output_symlinks.push(link);
    made
}

/// A chain of directories, each in the one before.
fn deep(job: &Job, depth: usize) -> Answer {
    let mut children = Vec::new();
    let mut directory = named(job, "f");
    for _ in 0..depth {
        let outer = api::Directory {
            directories: vec![below(job, "d", &directory)],
            ..api::Directory::default()
        };
        children.push(std::mem::replace(&mut directory, outer));
    }
    result(job.tree(directory, children))
}

/// Few bytes that stand for a million million files.
fn wide(job: &Job) -> Answer {
    let mut children = Vec::new();
    let mut directory = named(job, "f");
    for _ in 0..12 {
        let names = (0..10).map(|number| below(job, &format!("d{number}"), &directory));
        let outer = api::Directory {
            directories: names.collect(),
            ..api::Directory::default()
        };
        children.push(std::mem::replace(&mut directory, outer));
    }
    result(job.tree(directory, children))
}

/// A good result whose file is said to have this digest.
fn said(job: &Job, hash: &str, size: i64) -> Answer {
    let mut made = job.file(b"made\n");
    made.output_files[0].digest = Some(api::Digest {
        hash: hash.to_owned(),
        size_bytes: size,
    });
    result(made)
}

/// A good result with a list of what is in the store.
fn listing(job: &Job, list: &[u8]) -> Answer {
    let mut made = job.file(b"made\n");
    made.output_files.push(api::OutputFile {
        path: "build/.layerize-store".to_owned(),
        digest: Some(job.state.put(list)),
        ..api::OutputFile::default()
    });
    result(made)
}

const NO_NAME: &str = "is no name in";

/// What is said, and what of it is told.
#[expect(deprecated, reason = "a builder may still use it")]
const CASES: &[(&str, Make, &str)] = &[
    (
        "a path above",
        |job| beside(job, "../../../etc/cron.d/evil"),
        "which nobody asked for",
    ),
    (
        "a full path",
        |job| beside(job, "/etc/passwd"),
        "which nobody asked for",
    ),
    (
        "another path of the store",
        |job| beside(job, "layerize/store/other"),
        "which nobody asked for",
    ),
    (
        "a path with escapes",
        |job| beside(job, "\u{1b}[31mred\n"),
        "which nobody asked for",
    ),
    ("an output twice", |job| beside(job, &job.out()), "it says twice what"),
    (
        "file and link",
        |job| {
            let mut made = symlink(job, &job.out(), "x");
            made.output_files = job.file(b"made\n").output_files;
            result(made)
        },
        "it says twice what",
    ),
    ("no output", |_| result(Job::nothing()), "$out"),
    (
        "lists of before version 2.1",
        |job| {
            let mut made = symlink(job, &job.out(), "x");
            made.output_file_symlinks = std::mem::take(&mut made.output_symlinks);
            result(made)
        },
        "$out",
    ),
    (
        "the name ..",
        |job| result(job.tree(named(job, ".."), Vec::new())),
        NO_NAME,
    ),
    (
        "the name .",
        |job| result(job.tree(named(job, "."), Vec::new())),
        NO_NAME,
    ),
    ("no name", |job| result(job.tree(named(job, ""), Vec::new())), NO_NAME),
    (
        "a path as a name",
        |job| result(job.tree(named(job, "a/b"), Vec::new())),
        NO_NAME,
    ),
    (
        "a zero in a name",
        |job| result(job.tree(named(job, "a\0b"), Vec::new())),
        NO_NAME,
    ),
    (
        "a long name",
        |job| result(job.tree(named(job, &"n".repeat(256)), Vec::new())),
        NO_NAME,
    ),
    (
        "a name twice",
        |job| {
            let mut directory = named(job, "f");
            directory.files.push(file(job, "f", b"other"));
            result(job.tree(directory, Vec::new()))
        },
        "stands twice in",
    ),
    (
        "a link in the way of a directory",
        |job| {
            let inner = named(job, "f");
            let mut directory = links(vec![link("d", "/tmp")]);
            directory.directories.push(below(job, "d", &inner));
            result(job.tree(directory, vec![inner]))
        },
        "stands twice in",
    ),
    (
        "an output that leads out",
        |job| result(symlink(job, &job.out(), "/etc/shadow")),
        "/etc/shadow",
    ),
    (
        "an output that leads up",
        |job| result(symlink(job, &job.out(), "../../etc/shadow")),
        "leads out of the store",
    ),
    (
        "a link that leads up",
        |job| result(job.tree(links(vec![link("l", "../../../../etc/shadow")]), Vec::new())),
        "leads out of the store",
    ),
    (
        "a link that leads up and down",
        |job| result(job.tree(links(vec![link("l", "a/../../../../layerize/store/x")]), Vec::new())),
        "leads out of the store",
    ),
    (
        "a link to nothing",
        |job| result(job.tree(links(vec![link("l", "")]), Vec::new())),
        "leads nowhere",
    ),
    (
        "a link to a zero",
        |job| result(job.tree(links(vec![link("l", "a\0")]), Vec::new())),
        "leads nowhere",
    ),
    (
        "a long link",
        |job| result(job.tree(links(vec![link("l", &"x".repeat(5000))]), Vec::new())),
        "leads nowhere",
    ),
    (
        "a list that is a link",
        |job| result(symlink(job, "build/.layerize-store", "/etc/passwd")),
        "is a link and no file",
    ),
    (
        "a failure that is a link",
        |job| {
            let mut made = symlink(job, "build/.layerize-failed", "/etc/passwd");
            made.exit_code = 0;
            result(made)
        },
        "is a link and no file",
    ),
    (
        "a list of paths",
        |job| listing(job, b"../../x\n"),
        "is no name of what is in the store",
    ),
    (
        "a list of long names",
        |job| listing(job, &[b'x'; 1000]),
        "is no name of what is in the store",
    ),
    ("a list of another output", |job| listing(job, b"other\n"), "other"),
    (
        "a long list",
        |job| listing(job, &[b'\n'; 2 << 20]),
        "a list of 2097152 bytes",
    ),
    ("no size", |job| said(job, &"0".repeat(64), -1), "is no hash and size"),
    ("no hash", |job| said(job, "..", 5), "is no hash and size"),
    (
        "more than a disk holds",
        |job| said(job, &"0".repeat(64), i64::MAX),
        "where there is room for",
    ),
    (
        "a wrong size",
        |job| {
            let hash = job.state.put(b"made\n").hash;
            said(job, &hash, 4)
        },
        "are others",
    ),
    (
        "a wrong size of a large file",
        |job| {
            let hash = job.state.put(&[b'x'; 3_000_000]).hash;
            said(job, &hash, 2_000_000)
        },
        "are others",
    ),
    ("a deep tree", |job| deep(job, 5000), "directories deep"),
    ("a wide tree", wide, "files"),
    (
        "a directory that is not told",
        |job| {
            let inner = named(job, "f");
            let outer = api::Directory {
                directories: vec![below(job, "d", &inner)],
                ..api::Directory::default()
            };
            result(job.tree(outer, Vec::new()))
        },
        "it does not say what is in",
    ),
    (
        "a tree of other bytes",
        |job| result(job.raw_tree(b"\xff\xff\xff")),
        "cannot be read",
    ),
    (
        "names that are no text",
        |job| {
            let mut bytes = named(job, "name").encode_to_vec();
            let at = bytes.windows(4).position(|window| window == b"name").unwrap();
            bytes[at] = 0xff;
            let mut tree = vec![10, bytes.len() as u8];
            tree.extend(bytes);
            result(job.raw_tree(&tree))
        },
        "cannot be read",
    ),
    (
        "a tree and no digest of it",
        |job| {
            let mut made = job.tree(named(job, "f"), Vec::new());
            made.output_directories[0].tree_digest = None;
            result(made)
        },
        "is no hash and size",
    ),
    (
        "a tree that is too large",
        |job| {
            let mut made = job.tree(named(job, "f"), Vec::new());
            made.output_directories[0].tree_digest.as_mut().unwrap().size_bytes = 1 << 40;
            result(made)
        },
        "a message of 1099511627776 bytes",
    ),
    (
        "another status than it ended with",
        |job| {
            let mut made = job.file(b"made\n");
            made.exit_code = 3;
            result(made)
        },
        "3",
    ),
    (
        "a log and no greeting",
        |job| {
            let mut made = job.file(b"made\n");
            made.stdout_raw = b"all is well\n".to_vec();
            result(made)
        },
        "does not make what it is sent the root",
    ),
    (
        "a log as long as all disks",
        |job| {
            let mut made = job.file(b"made\n");
            made.stdout_raw.clear();
            made.stdout_digest = Some(api::Digest {
                hash: "0".repeat(64),
                size_bytes: 1 << 40,
            });
            result(made)
        },
        "does not make what it is sent the root",
    ),
    (
        "an answer with escapes",
        |_| Answer::status(Code::InvalidArgument, "\u{1b}[31mred\u{7}"),
        "red",
    ),
    (
        "an answer without a result",
        |_| Answer::Response(Box::default()),
        "has no result",
    ),
];

#[test]
fn what_is_said_of_an_output_is_judged_before_it_is_taken() {
    let current = Arc::new(Mutex::new(CASES[0].1));
    let making = current.clone();
    let farm = Farm::start(Rules::answering(move |job: &Job| {
        let make = *making.lock().unwrap();
        make(job)
    }));
    let place = small();
    for (what, make, told) in CASES {
        *current.lock().unwrap() = *make;
        farm.state.forget();
        let ran = build(&place, &farm, &[]);
        assert_eq!(ran.status, 2, "{what}:\n{}", ran.stderr);
        assert!(ran.stderr.contains(told), "{what}:\n{}", ran.stderr);
        assert!(!ran.stderr.contains(['\u{1b}', '\u{7}']), "{what}:\n{}", ran.stderr);
        assert!(!ran.stderr.contains("root:x:0"), "{what}:\n{}", ran.stderr);
        assert!(!ran.stderr.contains("panicked"), "{what}:\n{}", ran.stderr);
        is_clean(&place, what);
    }
    place.run(&["store", "verify"]).success();
    // The same machine builds it when the builder is honest.
    *current.lock().unwrap() = Job::made;
    farm.state.forget();
    build(&place, &farm, &[]).success();
}

/// What is remembered of an action is judged as what comes of one.
#[test]
fn results_of_other_actions_are_not_taken_from_the_cache() {
    let farm = Farm::start(Rules::answering(|job: &Job| {
        let mut other = job.file(b"made\n");
        other.output_files[0].path.push_str("-of-another");
        // It is remembered, and the stream breaks before it is told.
        job.state.remember(&job.digest, other);
        Answer::status(Code::InvalidArgument, "not now")
    }));
    let place = small();
    build(&place, &farm, &[]).exits(2).says(&["not now"]);
    build(&place, &farm, &[]).exits(2).says(&["which nobody asked for"]);
    assert_eq!(farm.state.counted("cache hit"), 1);
    is_clean(&place, "another action's result");
}

#[test]
fn bytes_that_are_others_than_announced_are_not_taken() {
    let place = small();
    for size in [5, 3_000_000] {
        let honest = vec![b'h'; size];
        for (what, forged, told) in [
            ("other bytes", vec![b'e'; size], "are others"),
            ("more bytes", vec![b'h'; size + 1], "are others"),
        ] {
            let hash = layerize::digest::Digest::of(&honest).hex();
            let bytes = honest.clone();
            let farm = Farm::start(Rules {
                forged: [(hash, forged)].into(),
                ..Rules::answering(move |job: &Job| result(job.file(&bytes)))
            });
            build(&place, &farm, &[]).exits(2).says(&[told]);
            is_clean(&place, what);
        }
    }
}

#[test]
fn what_builders_may_say_in_several_ways_is_one_output() {
    let orders: [Make; 2] = [
        |job| {
            let names = ["a", "b", "c"].map(|name| file(job, name, name.as_bytes()));
            let mut directory = links(vec![link("l", "/etc/shadow")]);
            directory.files = names.into();
            result(job.tree(directory, Vec::new()))
        },
        // Neither order, modes and times nor what is said besides is anything to us.
        |job| {
            let mut names = ["c", "a", "b"].map(|name| file(job, name, name.as_bytes()));
            for file in &mut names {
                file.node_properties = Some(api::NodeProperties {
                    unix_mode: Some(UInt32Value { value: 0o6777 }),
                    ..api::NodeProperties::default()
                });
            }
            let mut directory = links(vec![link("l", "/etc/shadow")]);
            directory.files = names.into();
            let mut made = job.tree(directory, vec![api::Directory::default()]);
            made.stderr_digest = Some(api::Digest {
                hash: "0".repeat(64),
                size_bytes: 1 << 40,
            });
            result(made)
        },
    ];
    let lines = orders.map(|make| {
        let farm = Farm::start(Rules::answering(make));
        let place = small();
        let ran = build(&place, &farm, &[]).success();
        let path = info(&place, "-thing").unwrap()["path"].as_str().unwrap().to_owned();
        let made = place.store().join("store").join(path.rsplit('/').next().unwrap());
        let mode = made.join("a").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o444);
        place.run(&["store", "verify"]).success();
        (ran.line().to_owned(), path)
    });
    assert_eq!(lines[0], lines[1]);
}
