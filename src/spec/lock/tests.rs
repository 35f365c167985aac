//! Tests of the lock's text: it is what it was, comes back as it went, and refuses harm.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::digest::{Digest, FileHash};
use crate::spec::git::{GitCommit, GitRef, GitWanted};
use crate::spec::tests::check_golden;
use crate::spec::{
    Golden, GoldenKey, Lock, LockedArchive, LockedBase, LockedDeb, LockedDebSource, LockedFile, LockedGit, LockedNix,
    LockedPlatform, LockedPython, LockedTree, LockedUrl, PackageName,
};

fn archive(label: &str) -> LockedArchive {
    LockedArchive {
        origin: "Debian".to_owned(),
        label: label.to_owned(),
        suite: "bookworm-security".to_owned(),
        component: "main".to_owned(),
        date: "20261126T210335Z".to_owned(),
    }
}

fn deb(version: &str, depends: &[&[&str]]) -> LockedDeb {
    LockedDeb {
        archive: version.starts_with('2').then(|| archive("Debian-Security")),
        version: version.to_owned(),
        architecture: "amd64".to_owned(),
        filename: format!("pool/main/x/x_{version}.deb"),
        size: 1234,
        sha256: Digest::of(version.as_bytes()),
        depends: (depends.iter())
            .map(|any| any.iter().map(|name| (*name).to_owned()).collect())
            .collect(),
        source: ("src-x".to_owned(), version.to_owned()),
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn commit() -> (GitCommit, LockedTree) {
    let tree = LockedTree {
        size: 96,
        nar_hash: Digest::of(b"tree"),
    };
    (GitCommit::parse(&"cd".repeat(20)).unwrap(), tree)
}

fn example() -> Lock {
    let file = |name: &str, size| LockedFile {
        name: name.to_owned(),
        size,
        sha256: Digest::of(name.as_bytes()),
    };
    Lock {
        architecture: Some("amd64".to_owned()),
        debs: [
            ("libc6".to_owned(), deb("2.36-9+deb12u9", &[&["libgcc-s1"]])),
            ("libgcc-s1".to_owned(), deb("12.2.0-14~exp1", &[])),
            ("hello".to_owned(), deb("1:2.10-3", &[&["libc6"], &["dash", "bash"]])),
        ]
        .into(),
        deb_sets: [
            (names(&["hello"]), names(&["hello", "libc6", "libgcc-s1"])),
            (names(&["libc6", "libgcc-s1"]), names(&["libc6", "libgcc-s1"])),
        ]
        .into(),
        deb_sources: [(
            "hello".to_owned(),
            LockedDebSource {
                archive: Some(archive("Another")),
                version: "2.10-3".to_owned(),
                directory: "pool/main/h/hello".to_owned(),
                files: vec![file("hello_2.10-3.dsc", 1), file("hello_2.10.orig.tar.gz", 725_946)],
            },
        )]
        .into(),
        urls: [(
            PackageName("base:zlib".to_owned()),
            LockedUrl {
                size: 0,
                sha256: Digest::of(b""),
            },
        )]
        .into(),
        git: [
            ("app", git("refs/tags/v1", true, false)),
            ("base:lib", git(&"ab".repeat(20), false, true)),
        ]
        .map(|(name, git)| (PackageName(name.to_owned()), git))
        .into(),
        commits: [commit()].into(),
        python: pythons(),
        nix: [(
            "../result".to_owned(),
            LockedNix {
                path: "/nix/store/0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-curl-8.9".parse().unwrap(),
                nar_hash: Digest::of(b"nar"),
                closure: Digest::of(b"closure"),
            },
        )]
        .into(),
        bases: [(
            "web".to_owned(),
            LockedBase {
                reference: "oci:images/base:v1".to_owned(),
                platform: "linux/amd64".parse().unwrap(),
                sha256: Digest::of(b"base"),
            },
        )]
        .into(),
        accounts: [("Debian-exim", 101), ("redis", 999)].map(account).into(),
        golden: ["gzip", "zstd:19"].map(golden).into(),
        elsewhere: [("arm64".to_owned(), further_platform())].into(),
        machines: [("amd64".to_owned(), machine())].into(),
    }
}

fn account((name, number): (&str, u32)) -> ((String, String), u32) {
    (("web".to_owned(), name.to_owned()), number)
}

fn machine() -> LockedPlatform {
    let emulators = "qemu-user-static".to_owned();
    LockedPlatform {
        debs: [(emulators.clone(), deb("1:7.2+dfsg-7", &[]))].into(),
        deb_sets: [(vec![emulators.clone()], vec![emulators])].into(),
        ..LockedPlatform::default()
    }
}

fn further_platform() -> LockedPlatform {
    let base = LockedBase {
        reference: "oci:images/base:v1".to_owned(),
        platform: "linux/arm64".parse().unwrap(),
        sha256: Digest::of(b"arm64 base"),
    };
    let deb = LockedDeb {
        architecture: "arm64".to_owned(),
        sha256: Digest::of(b"arm64"),
        ..deb("2.36-9+deb12u10", &[])
    };
    LockedPlatform {
        debs: [("libc6".to_owned(), deb)].into(),
        deb_sets: [(names(&["libc6"]), names(&["libc6"]))].into(),
        python: pythons(),
        bases: [("web".to_owned(), base)].into(),
    }
}

fn pythons() -> BTreeMap<(PackageName, String), LockedPython> {
    [("app", "numpy", "sha256"), ("base:app", "zope-interface", "sha512")]
        .map(|(package, name, scheme)| {
            let hex = Digest::of(name.as_bytes())
                .hex()
                .repeat(if scheme == "sha512" { 2 } else { 1 });
            let python = LockedPython {
                version: "2.4.6".to_owned(),
                file: format!("{}-2.4.6-cp311-cp311-manylinux_2_28_x86_64.whl", name.replace('-', "_")),
                hash: FileHash::from_hex(scheme, &hex).unwrap(),
            };
            ((PackageName(package.to_owned()), name.to_owned()), python)
        })
        .into()
}

fn git(reference: &str, submodules: bool, lfs: bool) -> LockedGit {
    LockedGit {
        wanted: GitWanted {
            reference: GitRef::parse(reference).unwrap(),
            submodules,
            lfs,
        },
        commit: GitCommit::parse(&"ab".repeat(20)).unwrap(),
        size: 304,
        nar_hash: Digest::of(reference.as_bytes()),
    }
}

fn golden(compression: &str) -> (GoldenKey, Golden) {
    let key = GoldenKey {
        image: "hello".to_owned(),
        platform: "linux/amd64".parse().unwrap(),
        compression: compression.parse().unwrap(),
        format: 1,
    };
    let golden = Golden {
        inputs: Digest::of(b"inputs"),
        digest: Digest::of(compression.as_bytes()),
    };
    (key, golden)
}

#[test]
fn the_text_is_what_it_was() {
    check_golden("lock.toml", &print(&example()));
    assert_eq!(
        print(&Lock::default()).lines().collect::<Vec<_>>()[1..],
        ["version = 1"]
    );
}

#[test]
fn the_text_comes_back() {
    for lock in [example(), Lock::default()] {
        assert_eq!(parse(&print(&lock)).unwrap(), lock);
    }
}

/// One more platform is one more piece of text at the end: a lock from before there were several is read, and what it has is
/// written as it was.
#[test]
fn a_further_platform_is_added_at_the_end() {
    let (one, two) = (example().alone(), example());
    let text = print(&one);
    assert!(!text.contains("platform."), "{text}");
    assert_eq!(parse(&text).unwrap(), one);
    let added = print(&two);
    let added = added.strip_prefix(&text).expect("all that was there is as it was");
    let tables = added.lines().filter(|line| line.starts_with('['));
    assert!(tables.clone().count() > 4, "{added}");
    assert!(
        tables.clone().all(|line| line.starts_with("[[platform.arm64.")),
        "{added}"
    );
    let mut three = two.clone();
    three.elsewhere.insert(
        "riscv64".to_owned(),
        LockedPlatform {
            debs: BTreeMap::new(),
            deb_sets: BTreeMap::new(),
            ..further_platform()
        },
    );
    assert!(print(&three).starts_with(&print(&two)));
    assert_eq!(parse(&print(&three)).unwrap(), three);
}

/// Seen from another platform and back, whatever is done there, a lock has for all others what it had.
#[test]
fn platforms_do_not_touch_each_other() {
    let lock = example();
    assert_eq!(lock.at("amd64", "amd64"), lock);
    let seen = lock.at("arm64", "amd64");
    assert_eq!(
        (&seen.debs, &seen.bases),
        (&further_platform().debs, &further_platform().bases)
    );
    assert_eq!(seen.elsewhere["amd64"].debs, lock.debs);
    assert_eq!(seen.at("amd64", "amd64"), lock);
    let new = lock.at("riscv64", "amd64");
    assert!(new.debs.is_empty() && new.python.is_empty());
    assert_eq!(new.at("amd64", "amd64"), lock, "what was only looked at leaves nothing");

    let mut changed = lock.clone();
    let mut seen = lock.at("arm64", "amd64");
    seen.debs.clear();
    seen.deb_sets.clear();
    changed.take_platform("arm64", seen.clone());
    assert_eq!(changed.alone(), lock.alone());
    assert_eq!(changed.elsewhere["arm64"].python, pythons());
    (seen.python, seen.bases) = Default::default();
    changed.take_platform("arm64", seen);
    assert_eq!(changed, lock.alone(), "a platform for which there is nothing is none");
}

/// A lock of nothing but a further platform's names its own, so that it is the same lock on every machine.
#[test]
fn a_lock_of_several_platforms_names_its_own() {
    let mut lock = Lock::default();
    lock.take_platform("arm64", example().at("arm64", "amd64"));
    lock.settle("amd64");
    assert_eq!(lock.architecture.as_deref(), Some("amd64"));
    assert_eq!(parse(&print(&lock)).unwrap(), lock);
    lock.elsewhere.clear();
    lock.settle("amd64");
    assert_eq!(lock, Lock::default());
}

/// Locks from before archives were recorded are read, and written as they were.
#[test]
fn a_lock_without_archives_comes_back() {
    let mut old = example().alone();
    for deb in old.debs.values_mut() {
        deb.archive = None;
    }
    for source in old.deb_sources.values_mut() {
        source.archive = None;
    }
    let text = print(&old);
    assert!(!text.contains("archive"), "{text}");
    assert_eq!(parse(&text).unwrap(), old);
}

#[test]
fn order_in_the_text_does_not_matter() {
    let text = print(&example());
    let mut entries: Vec<&str> = text.split("\n\n").collect();
    entries[1..].reverse();
    assert_eq!(parse(&entries.join("\n\n")).unwrap(), example());
}

#[test]
fn a_text_names_no_host_and_is_greppable() {
    let text = print(&example());
    assert!(text.starts_with("# Generated by `layerize lock`"));
    assert!(!text.contains("://"));
    assert!(text.lines().all(|line| line == line.trim_end() && line.len() < 200));
}

/// Each is the example's text with one thing changed, and what is said of it.
#[test]
fn wrong_locks_are_explained() {
    let text = print(&example());
    let changes: &[(&str, &str)] = &[
        ("version = 1\n", "version = 2\n"),
        ("version = 1\n", ""),
        ("version = 1\n", "version = \"1\"\n"),
        ("[[deb-set]]\n", "<<<<<<< ours\n[[deb-set]]\n"),
        ("architecture = \"amd64\"\n\n", "\n"),
        ("architecture = \"amd64\"\n\n", "architecture = \"arm64\"\n\n"),
        ("\"pool/main/x/x_2.36", "\"../../x_2.36"),
        ("\"pool/main/x/x_2.36", "\"/pool/main/x/x_2.36"),
        ("\"pool/main/x/x_2.36", "\"https://evil.invalid/x_2.36"),
        ("\"pool/main/x/x_2.36", "\"evil.invalid:80/x_2.36"),
        ("\"pool/main/x/x_2.36", "\"pool//x_2.36"),
        ("\"pool/main/x/x_2.36", "\"pool/\\u001b[31m/x_2.36"),
        ("size = 1234", "size = -1"),
        ("size = 1234", "size = 999999999999999999"),
        ("size = 1234\n", ""),
        ("name = \"libc6\"", "name = \"../libc6\""),
        ("name = \"libc6\"", "name = \"hello\""),
        ("\"hello_2.10-3.dsc\"", "\"../hello.dsc\""),
        ("\"hello_2.10-3.dsc\"", "\"hello.txt\""),
        ("\"hello_2.10.orig.tar.gz\"", "\"hello_2.10-3.dsc\""),
        ("\"dash | bash\"", "\"dash |bash\""),
        ("\"src-x=1:2.10-3\"", "\"src-x\""),
        ("\"2.36-9+deb12u9\"", "\"2.36 $(reboot)\""),
        ("\"base:zlib\"", "\"base:../zlib\""),
        ("wanted = [\n  \"hello\",", "wanted = [\n  \"other\","),
        (
            "resolved = [\n  \"hello\",\n  \"libc6\",",
            "resolved = [\n  \"hello\",\n  \"libc7\",",
        ),
        (
            "archive = \"bookworm-security/main@20261126T210335Z\"",
            "archive = \"other\"",
        ),
        ("name = \"numpy\"", "name = \"Num_Py\""),
        ("file = \"numpy-2", "file = \"../numpy-2"),
        ("hash = \"sha256:", "hash = \"md5:"),
        ("hash = \"sha256:", "hash = \"sha256:0"),
        ("origin = \"Debian\"", "origin = \"De\\u001bbian\""),
        ("origin = \"Debian\"\n", ""),
        ("suite = \"bookworm-security\"", "suite = \"../bookworm\""),
        ("suite = \"bookworm-security\"", "suite = \"bookworm security\""),
        ("date = \"20261126T210335Z\"", "date = \"2026-11-26T21:03:35Z\""),
        ("date = \"20261126T210335Z\"", "date = \"20261126T210335Z/..\""),
        ("main@20261126T210335Z#2\"\norigin", "main@20261126T210335Z\"\norigin"),
        ("[[url]]\n", "[[url]]\nhost = \"evil.invalid\"\n"),
        ("sha256 = \"", "sha256 = \"0"),
        ("\"oci:images/base:v1\"", "\"images and more\""),
        ("platform = \"linux/amd64\"", "platform = \"linux/vax\""),
        ("image = \"web\"", "image = \"We b\""),
        ("image = \"hello\"", "image = \"../hello\""),
        ("compression = \"zstd:19\"", "compression = \"gzip\""),
        ("format = 1\n", "format = 0\n"),
        ("digest = \"sha256:", "digest = \"sha512:"),
        ("inputs = \"", "inputs = \"0"),
    ];
    let mut said = String::new();
    for (from, to) in changes {
        assert!(text.contains(from), "{from:?} is not in the example");
        let diagnostics = parse(&text.replacen(from, to, 1)).expect_err(to);
        said.push_str(&format!("=== {from:?} → {to:?}\n{}\n", diagnostics.render(false)));
    }
    check_golden("lock-errors.txt", &said);
}

fn arb_name() -> impl Strategy<Value = String> {
    "[a-z0-9][a-z0-9+.-]{1,12}"
}

fn arb_version() -> impl Strategy<Value = String> {
    "[0-9][A-Za-z0-9.+~:-]{0,10}"
}

fn arb_digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest::from_bytes)
}

prop_compose! {
    fn arb_deb()(
        archive in arb_archive(),
        version in arb_version(),
        all in any::<bool>(),
        filename in "pool(/[a-z0-9+._~%-]{1,9}x){1,4}",
        size in 0..256u64 << 30,
        sha256 in arb_digest(),
        depends in prop::collection::vec(prop::collection::vec(arb_name(), 1..3), 0..4),
        source in (arb_name(), arb_version()),
    ) -> LockedDeb {
        let architecture = if all { "all" } else { "arm64" }.to_owned();
        LockedDeb { archive, version, architecture, filename, size, sha256, depends, source }
    }
}

fn arb_archive() -> impl Strategy<Value = Option<LockedArchive>> {
    let fields = (
        "[ -~ä\"]{0,2}",
        "[a-z#@ ]{0,1}",
        "[a-z-]{0,1}",
        "(main|a/b)?",
        "2026010[1-2]T000000Z",
    );
    let archive = fields.prop_map(|(origin, label, suite, component, date)| LockedArchive {
        origin,
        label,
        suite,
        component,
        date,
    });
    prop::option::of(archive)
}

prop_compose! {
    fn arb_source()(
        archive in arb_archive(),
        version in arb_version(),
        names in prop::collection::btree_set("[a-z0-9_.+~-]{1,12}x", 0..3),
        pins in prop::collection::vec((0..1u64 << 30, arb_digest()), 4),
    ) -> LockedDebSource {
        let files = std::iter::once("a.dsc".to_owned()).chain(names).zip(pins);
        LockedDebSource {
            archive,
            version,
            directory: "pool/main".to_owned(),
            files: files.map(|(name, (size, sha256))| LockedFile { name, size, sha256 }).collect(),
        }
    }
}

prop_compose! {
    fn arb_lock()(
        debs in prop::collection::btree_map(arb_name(), arb_deb(), 1..6),
        picks in prop::collection::vec(prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..5), 0..4),
        deb_sources in prop::collection::btree_map(arb_name(), arb_source(), 0..3),
        compressions in prop::collection::btree_set(prop::sample::select(vec!["gzip", "gzip:6", "zstd", "none"]), 0..3),
        urls in prop::collection::btree_map("([a-z]{1,5}:){0,2}[a-zA-Z0-9][a-zA-Z0-9+._-]{0,8}", (0..1u64 << 30, arb_digest()), 0..3),
        gits in prop::collection::btree_map("[a-z]{1,9}", ("[a-z]{1,5}(/[a-z0-9]{1,5}x)?|[0-9a-f]{40}", any::<bool>(), any::<bool>()), 0..3),
        commits in prop::collection::btree_map("[0-9a-f]{40}|[0-9a-f]{64}", (0..1u64 << 30, arb_digest()), 0..3),
        python in prop::collection::btree_map(("[a-z]{1,5}", "[a-z][a-z0-9]{0,5}(-[a-z0-9]{1,5})?"), ("[0-9][0-9.a-z+!]{0,8}", any::<bool>(), arb_digest()), 0..3),
        nix in prop::collection::btree_map("[a-z/.]{1,9}", (arb_digest(), arb_digest()), 0..3),
        accounts in prop::collection::btree_map(("[a-z]{1,5}", "[a-zA-Z_][a-z0-9_.-]{0,8}"), 101..=999u32, 0..4),
    ) -> Lock {
        let nix = nix.into_iter().map(|(name, (nar_hash, closure))| {
            (name, LockedNix { path: format!("/nix/store/{}-x", "0".repeat(32)).parse().unwrap(), nar_hash, closure })
        }).collect();
        let names: Vec<&String> = debs.keys().collect();
        let deb_sets = picks.iter().map(|picks| {
            let resolved: std::collections::BTreeSet<String> = picks.iter().map(|(index, _)| index.get(&names).to_string()).collect();
            let wanted: std::collections::BTreeSet<String> =
                picks.iter().filter(|(_, wanted)| *wanted).map(|(index, _)| index.get(&names).to_string()).collect();
            (wanted.into_iter().collect(), resolved.into_iter().collect())
        }).collect();
        let urls = urls.into_iter().map(|(name, (size, sha256))| (PackageName(name), LockedUrl { size, sha256 })).collect();
        let base = LockedBase {
            reference: "docker://registry.example/a:1".to_owned(),
            platform: "linux/arm64".parse().unwrap(),
            sha256: Digest::of(b"a"),
        };
        let bases = picks.iter().enumerate().map(|(index, _)| (format!("image-{index}"), base.clone())).collect();
        let git = gits.into_iter().map(|(name, (reference, submodules, lfs))| {
            let mut locked = git(&reference, submodules, lfs);
            if let GitRef::Commit(commit) = &locked.wanted.reference {
                locked.commit = commit.clone();
            }
            (PackageName(name), locked)
        }).collect();
        let commits = commits.into_iter().map(|(commit, (size, nar_hash))| {
            (GitCommit::parse(&commit).unwrap(), LockedTree { size, nar_hash })
        }).collect();
        let python = python.into_iter().map(|((package, name), (version, long, digest))| {
            let (scheme, times) = if long { ("sha512", 2) } else { ("sha256", 1) };
            let hash = FileHash::from_hex(scheme, &digest.hex().repeat(times)).unwrap();
            let file = format!("{name}-{version}-py3-none-any.whl");
            ((PackageName(package), name), LockedPython { version, file, hash })
        }).collect();
        Lock { architecture: Some("arm64".to_owned()), deb_sets, deb_sources, urls, git, commits, python, debs, nix, bases, accounts, golden: compressions.into_iter().map(golden).collect(), elsewhere: BTreeMap::new(), machines: BTreeMap::new() }
    }
}

proptest! {
    #[test]
    fn every_lock_comes_back(lock in arb_lock()) {
        let text = print(&lock);
        let read = parse(&text).map_err(|errors| TestCaseError::fail(errors.to_string()))?;
        prop_assert_eq!(&read, &lock);
        prop_assert_eq!(print(&read), text);
    }

    /// Any lock, with what any other one has for its platform added: nothing of the first one's text moves, and both are found
    /// again.
    #[test]
    fn a_further_platform_moves_nothing(lock in arb_lock(), other in arb_lock(), architecture in prop::sample::select(vec!["amd64", "armhf", "s390x"])) {
        let before = print(&lock);
        let mut other = other;
        other.debs.values_mut().filter(|deb| deb.architecture == "arm64").for_each(|deb| deb.architecture = architecture.to_owned());
        let mut both = lock.clone();
        both.take_platform(architecture, other.clone());
        both.settle("arm64");
        let text = print(&both);
        prop_assert!(text.starts_with(&before));
        let read = parse(&text).map_err(|errors| TestCaseError::fail(errors.to_string()))?;
        prop_assert_eq!(&read, &both);
        let seen = read.at(architecture, "arm64");
        prop_assert_eq!((&seen.debs, &seen.deb_sets, &seen.python), (&other.debs, &other.deb_sets, &other.python));
        prop_assert_eq!(seen.at("arm64", "arm64"), both);
    }

    /// Bytes of a lock swapped for others: read or refused, never a panic.
    #[test]
    fn damaged_locks_do_no_harm(position in 0..3000usize, length in 0..40usize, insert in "\\PC{0,6}") {
        let mut text = print(&example());
        let floor = |index: usize| (0..=index.min(text.len())).rev().find(|&i| text.is_char_boundary(i)).unwrap();
        let (start, end) = (floor(position), floor(position + length));
        text.replace_range(start..end, &insert);
        if let Err(diagnostics) = parse(&text) {
            prop_assert!(diagnostics.render(false).starts_with("error: "));
        }
    }
}

/// Every kind of entry, added, removed and changed: a line for each, and none where nothing changed.
#[test]
fn changes_are_told_by_kind() {
    let (empty, full) = (Lock::default(), example());
    let count = full.debs.len()
        + full.deb_sources.len()
        + full.urls.len()
        + full.git.len()
        + full.commits.len()
        + full.python.len()
        + full.nix.len()
        + full.bases.len()
        + full.accounts.len()
        + full.golden.len()
        + 1
        + pythons().len()
        + 1
        + machine().debs.len();
    let added = changes(&empty, &full);
    assert_eq!(added.len(), count);
    assert!(added.iter().all(|change| matches!(change, LockChange::Added { .. })));
    assert!(added[0].to_string().starts_with("+ "), "{}", added[0]);
    let removed = changes(&full, &empty);
    assert_eq!(removed.len(), count);
    assert!(
        removed
            .iter()
            .all(|change| matches!(change, LockChange::Removed { .. }))
    );
    assert_eq!(changes(&full, &full), []);

    let mut other = full.clone();
    other.debs.get_mut("libc6").unwrap().version = "2.37-1".to_owned();
    other.debs.get_mut("hello").unwrap().sha256 = Digest::of(b"rebuilt");
    let elsewhere = other.elsewhere.get_mut("arm64").unwrap();
    elsewhere.debs.get_mut("libc6").unwrap().version = "2.38-1".to_owned();
    let texts: Vec<String> = changes(&full, &other).iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "~ deb:hello 1:2.10-3: other files",
            "~ deb:libc6 2.36-9+deb12u9 → 2.37-1",
            "~ deb:libc6 (arm64) 2.36-9+deb12u10 → 2.38-1"
        ]
    );
}
