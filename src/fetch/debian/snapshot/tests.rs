//! Tests of snapshots: which servers are asked for what, in which order, and how patiently. The server is a stand-in.

use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::super::archives::Repository;
use super::*;
use crate::event::Silent;
use crate::fetch::debian::testing_repo::Repo;
use crate::fetch::testing::{Reply, Server as Web};
use crate::fetch::{Update, fetch, gone};
use crate::spec::Lock;
use crate::testing::oracle;

const DATE: &str = "20260102T030405Z";
const RELEASE: &str =
    "Origin: Test\nLabel: Test-Label\nSuite: stable\nCodename: book\nDate: Fri, 02 Jan 2026 03:04:05 UTC\n";
const SHA1: &str = "0123456789abcdef0123456789abcdef01234567";
const OTHER_SHA1: &str = "1123456789abcdef0123456789abcdef01234567";

/// A repository that dropped the packages `aa` and `src`, which are locked; and what the server may still have of them.
struct Dropped {
    repo: Repo,
    lock: Lock,
}

impl Dropped {
    fn new() -> Self {
        let mut repo = Repo::new();
        repo.describe(RELEASE);
        repo.add("aa", "1:1.0+b1", "");
        repo.add_source("src", "1.0");
        let lock = repo.lock(&[&["aa"]], &["src"], &Lock::default(), &Update::Nothing);
        repo.drop_from_index("aa", "1:1.0+b1");
        repo.drop_from_index("src", "1.0");
        repo.add("aa", "2.0", "");
        Self { repo, lock }
    }

    /// The lock as it was made before archives were recorded.
    fn of_old(mut self) -> Self {
        self.lock.debs.values_mut().for_each(|deb| deb.archive = None);
        self.lock
            .deb_sources
            .values_mut()
            .for_each(|source| source.archive = None);
        self
    }

    fn deb(&self) -> Download {
        Download::deb("aa", &self.lock.debs["aa"])
    }

    fn content(&self, name: &str) -> Vec<u8> {
        fs::read(self.repo.archive().join("pool").join(name)).unwrap()
    }

    fn fetch_deb(&self, snapshots: &[String], reporter: &dyn Reporter) -> Result<Vec<PathBuf>, FetchError> {
        self.repo.forget_cache();
        let config = FetchConfig {
            snapshots: snapshots.to_vec(),
            ..self.repo.config()
        };
        fetch(&[&self.deb()], &config, reporter)
    }
}

/// What `binfiles` tells of the package: by hash, name and size.
fn files(entries: &[(&str, &str, usize)]) -> String {
    let infos: Vec<String> = entries
        .iter()
        .map(|(hash, name, size)| {
            format!(
                "\"{hash}\": [{{\"name\": \"{name}\", \"archive_name\": \"debian\", \"first_seen\": \"{DATE}\", \
                 \"path\": \"/pool\", \"size\": {size}}}]"
            )
        })
        .collect();
    format!(
        "{{\"_comment\": \"x\", \"result\": [], \"fileinfo\": {{{}}}}}",
        infos.join(", ")
    )
}

#[derive(Default)]
struct Heard(Mutex<Vec<Event>>);

impl Reporter for Heard {
    fn report(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

impl Heard {
    fn warnings(&self) -> Vec<String> {
        let events = self.0.lock().unwrap();
        let warnings = events.iter().filter_map(|event| match event {
            Event::Warning { text } => Some(text.clone()),
            _ => None,
        });
        warnings.collect()
    }
}

const FILE: &str = "aa_1%253a1.0+b1_all.deb";
const BINFILES: &str = "/mr/binary/aa/1:1.0+b1/binfiles?fileinfo=1";

#[test]
fn a_lock_says_where_its_packages_are_from() {
    if !oracle("apt-get") {
        return;
    }
    let lock = Dropped::new().lock;
    let archive = LockedArchive {
        origin: "Test".to_owned(),
        label: "Test-Label".to_owned(),
        suite: "book".to_owned(),
        component: String::new(),
        date: DATE.to_owned(),
    };
    assert_eq!(lock.debs["aa"].archive.as_ref(), Some(&archive));
    assert_eq!(lock.deb_sources["src"].archive.as_ref(), Some(&archive));
}

#[test]
fn an_archive_without_a_release_file_cannot_be_found_again() {
    if !oracle("apt-get") {
        return;
    }
    let mut repo = Repo::new();
    repo.add("aa", "1", "");
    let lock = repo.lock(&[&["aa"]], &[], &Lock::default(), &Update::Nothing);
    assert_eq!(lock.debs["aa"].archive, None);
    // One that gets a Release file later says so at the next occasion, and no sooner.
    repo.describe(RELEASE);
    repo.add("bb", "1", "");
    assert_eq!(repo.lock(&[&["aa"]], &[], &lock, &Update::Nothing), lock);
    let grown = repo.lock(&[&["aa"], &["bb"]], &[], &lock, &Update::Nothing);
    assert_eq!(grown.debs["aa"].archive.as_ref().unwrap().date, DATE);
    assert_eq!(grown.debs["bb"].archive, grown.debs["aa"].archive);
    // What was found at one time stays found then.
    repo.describe(&RELEASE.replace("02 Jan", "03 Jan"));
    repo.add("cc", "1", "");
    let later = repo.lock(&[&["aa"], &["bb"], &["cc"]], &[], &grown, &Update::Nothing);
    assert_eq!(later.debs["aa"], grown.debs["aa"]);
    assert_eq!(later.debs["cc"].archive.as_ref().unwrap().date, "20260103T030405Z");
}

#[test]
fn a_file_comes_from_the_time_at_which_it_was_locked() {
    if !oracle("apt-get") {
        return;
    }
    let dropped = Dropped::new();
    let content = dropped.content("aa_1%3a1.0+b1_all.deb");
    let path = format!("/archive/test/{DATE}/pool/{FILE}");
    let served = path.clone();
    let server = Web::start(move |asked| match asked == served {
        true => Reply::ok(&content),
        false => Reply::status(404),
    });
    let template = server.url("/archive/test/@SNAPSHOTID@/");
    dropped.fetch_deb(std::slice::from_ref(&template), &Silent).unwrap();
    assert_eq!((server.requests(&path), server.requests(BINFILES)), (1, 0));

    // A fixed time in the address is used as it is, for a lock of any age.
    let old = Dropped::new().of_old();
    old.fetch_deb(&[server.url(&format!("/archive/test/{DATE}"))], &Silent)
        .unwrap();
    assert_eq!(server.requests(&path), 2);

    // What a server has is not gone.
    let mut config = dropped.repo.config();
    let none = gone(&dropped.lock, &config, &Silent).unwrap();
    assert_eq!((none.debs.len(), none.deb_sources.len()), (1, 1));
    config.snapshots = vec![template];
    let some = gone(&dropped.lock, &config, &Silent).unwrap();
    assert_eq!((some.debs.len(), some.deb_sources.len()), (0, 1));
}

#[test]
fn a_file_is_found_by_name_and_version() {
    if !oracle("apt-get") {
        return;
    }
    for dropped in [Dropped::new(), Dropped::new().of_old()] {
        let deb = dropped.content("aa_1%3a1.0+b1_all.deb");
        let (dsc, tar) = (dropped.content("src_1.0.dsc"), dropped.content("src_1.0.tar.gz"));
        let binaries = files(&[
            (OTHER_SHA1, "aa_1%3a1.0+b1_arm64.deb", deb.len()),
            (SHA1, "aa_1%3a1.0+b1_all.deb", deb.len()),
            ("../../etc", "aa_1%3a1.0+b1_all.deb", deb.len()),
            (&"0".repeat(64), "aa_1%3a1.0+b1_all.deb", deb.len()),
        ]);
        let dsc_hash = Digest::of(&dsc).hex();
        let sources = files(&[
            (&dsc_hash, "src_1.0.dsc", dsc.len()),
            (OTHER_SHA1, "src_1.0.tar.gz", tar.len()),
        ]);
        let dsc_path = format!("/base/file/{dsc_hash}");
        let server = Web::start(move |asked| match asked {
            "/base/mr/binary/aa/1:1.0+b1/binfiles?fileinfo=1" => Reply::ok(&binaries),
            "/base/mr/package/src/1.0/srcfiles?fileinfo=1" => Reply::ok(&sources),
            path if path == format!("/base/file/{SHA1}") => Reply::ok(&deb),
            path if path == format!("/base/file/{OTHER_SHA1}") => Reply::ok(&tar),
            path if path == dsc_path => Reply::ok(&dsc),
            _ => Reply::status(404),
        });
        let template = server.url("/base/archive/test/@SNAPSHOTID@/");
        dropped.fetch_deb(std::slice::from_ref(&template), &Silent).unwrap();
        let config = FetchConfig {
            snapshots: vec![template],
            ..dropped.repo.config()
        };
        let source = Download::deb_source("src", &dropped.lock.deb_sources["src"]);
        assert_eq!(
            fetch(&source.iter().collect::<Vec<_>>(), &config, &Silent)
                .unwrap()
                .len(),
            2
        );
        assert_eq!(
            gone(&dropped.lock, &config, &Silent).unwrap(),
            crate::fetch::Gone::default()
        );
        let unasked = [format!("/base/file/{}", "0".repeat(64)), "/etc".to_owned()];
        assert!(unasked.iter().all(|path| server.requests(path) == 0));
    }
}

#[test]
fn a_wait_that_is_asked_for_is_kept() {
    if !oracle("apt-get") {
        return;
    }
    let dropped = Dropped::new();
    let deb = dropped.content("aa_1%3a1.0+b1_all.deb");
    let binaries = files(&[(SHA1, "aa_1%3a1.0+b1_all.deb", deb.len())]);
    let server = Web::start_counting(move |path, count| match (path, count) {
        (BINFILES, 0) => Reply::throttled(429, 1),
        (BINFILES, 1) => Reply::throttled(503, 1),
        (BINFILES, _) => Reply::ok(&binaries),
        (path, _) if path == format!("/file/{SHA1}") => Reply::ok(&deb),
        _ => Reply::status(404),
    });
    let heard = Heard::default();
    let started = Instant::now();
    dropped
        .fetch_deb(&[server.url("/archive/test/@SNAPSHOTID@/")], &heard)
        .unwrap();
    assert!(started.elapsed() >= Duration::from_secs(2));
    assert_eq!(server.requests(BINFILES), 3);
    let events = heard.0.into_inner().unwrap();
    let waits = events.iter().filter(
        |event| matches!(event, Event::Waiting { milliseconds: 1000, host, .. } if host.starts_with("127.0.0.1")),
    );
    assert_eq!(waits.count(), 2);

    // A wait beyond all patience is not begun.
    let busy = Web::start(|_| Reply::throttled(429, 86_400));
    let started = Instant::now();
    let error = dropped
        .fetch_deb(&[busy.url("/archive/test/@SNAPSHOTID@/")], &Silent)
        .unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(60));
    assert!(matches!(error, FetchError::Unanswered { .. }), "{error}");
}

#[test]
fn wrong_bytes_are_told_of_and_the_next_place_is_tried() {
    if !oracle("apt-get") {
        return;
    }
    let dropped = Dropped::new();
    let deb = dropped.content("aa_1%3a1.0+b1_all.deb");
    let wrong = "x".repeat(deb.len());
    let binaries = files(&[
        (SHA1, "aa_1%3a1.0+b1_all.deb", deb.len()),
        (OTHER_SHA1, "aa_1%3a1.0+b1_all.deb", deb.len()),
    ]);
    let server = Web::start(move |path| match path {
        BINFILES => Reply::ok(&binaries),
        path if path == format!("/file/{OTHER_SHA1}") => Reply::ok(&deb),
        path if path.starts_with("/archive/") || path.starts_with("/file/") => Reply::ok(&wrong),
        _ => Reply::status(404),
    });
    let heard = Heard::default();
    let template = server.url("/archive/test/@SNAPSHOTID@/");
    dropped.fetch_deb(&[template], &heard).unwrap();
    let warnings = heard.warnings();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings
            .iter()
            .all(|text| text.contains("served different content for `deb:aa`"))
    );
}

#[test]
fn an_answer_that_is_none_does_no_harm() {
    if !oracle("apt-get") {
        return;
    }
    let dropped = Dropped::new();
    let endless = "x".repeat(17 << 20);
    for answer in [
        endless.as_str(),
        "",
        "{}",
        "[]",
        "{\"fileinfo\": {\"x\": 1}}",
        "<html>",
        "{\"fileinfo\": {}}",
    ] {
        let served = answer.to_owned();
        let server = Web::start(move |path| match path {
            BINFILES => Reply::ok(&served),
            _ => Reply::status(404),
        });
        let error = dropped
            .fetch_deb(&[server.url("/archive/test/@SNAPSHOTID@/")], &Silent)
            .unwrap_err();
        match answer {
            "{\"fileinfo\": {}}" => assert!(matches!(error, FetchError::Gone { .. }), "{error}"),
            _ => assert!(matches!(error, FetchError::Unanswered { .. }), "{answer}: {error}"),
        }
    }
}

/// A host that is silent is not asked again for every file, at whatever time its archive is wanted; one that only lacks
/// a path is.
#[test]
fn a_silent_host_is_given_up() {
    if !oracle("apt-get") {
        return;
    }
    let dropped = Dropped::new();
    let config = FetchConfig {
        snapshots: ["silent", "busy"]
            .map(|host| format!("http://{host}/@SNAPSHOTID@/"))
            .into(),
        ..dropped.repo.config()
    };
    let transfer = Transfer::impatient();
    let snapshots = Snapshots::new(&config, &transfer, &Silent);
    let ask = |date: &str| {
        let mut deb = dropped.lock.debs["aa"].clone();
        deb.archive.as_mut().unwrap().date = date.to_owned();
        let mut asked = Vec::new();
        let answers = snapshots.find(&Download::deb("aa", &deb), |address| {
            asked.push(address.host());
            let url = address.display();
            Err::<(), _>(match address.host().as_str() {
                "silent" => FetchError::Unreachable {
                    url,
                    source: "nobody".into(),
                },
                _ => FetchError::NotFound { url },
            })
        });
        (asked, answers.unwrap().unwrap_err())
    };
    let (asked, first) = ask("20260101T000000Z");
    assert_eq!(asked, ["silent", "busy"]);
    let (asked, second) = ask("20260202T000000Z");
    assert_eq!(asked, ["busy"]);
    for answers in [first, second] {
        let answers: Vec<Answer> = answers.iter().map(|asked| asked.answer).collect();
        assert_eq!(answers[..2], [Answer::Silence, Answer::NotThere]);
    }
}

#[test]
fn the_spec_and_release_files_name_servers() {
    if !oracle("apt-get") {
        return;
    }
    let mut dropped = Dropped::new();
    let content = dropped.content("aa_1%3a1.0+b1_all.deb");
    let server = Web::start(move |path| match path.ends_with(&format!("/{DATE}/pool/{FILE}")) {
        true => Reply::ok(&content),
        false => Reply::status(404),
    });
    assert!(matches!(dropped.fetch_deb(&[], &Silent), Err(FetchError::Gone { .. })));
    let of_release = server.url("/of-release/@SNAPSHOTID@/");
    dropped.repo.describe(&format!("{RELEASE}Snapshots: {of_release}\n"));
    dropped.fetch_deb(&[], &Silent).unwrap();
    assert_eq!(server.requests(&format!("/of-release/{DATE}/pool/{FILE}")), 1);

    dropped.repo.describe(&format!("{RELEASE}Snapshots: no\n"));
    assert!(matches!(dropped.fetch_deb(&[], &Silent), Err(FetchError::Gone { .. })));
    dropped.repo.forget_cache();
    let mut config = dropped.repo.config();
    config.apt.snapshots = vec![server.url("/of-spec/@SNAPSHOTID@")];
    fetch(&[&dropped.deb()], &config, &Silent).unwrap();
    assert_eq!(server.requests(&format!("/of-spec/{DATE}/pool/{FILE}")), 1);
}

fn archive(origin: &str, label: &str, suite: &str) -> LockedArchive {
    LockedArchive {
        origin: origin.to_owned(),
        label: label.to_owned(),
        suite: suite.to_owned(),
        component: "main".to_owned(),
        date: DATE.to_owned(),
    }
}

/// What apt 2.7 and newer carry, with other hosts.
fn machine() -> Machine {
    let table = [
        ("Host::.deb.test", "http://domain/@PATH@/@SNAPSHOTID@/"),
        ("Host::deb.test", "http://host/archive/@PATH@/@SNAPSHOTID@/"),
        ("Host::other.test", "http://other/@PATH@/@SNAPSHOTID@/"),
        ("Origin::Debian", "http://origin/archive/debian/@SNAPSHOTID@/"),
        (
            "Override::Label::debian-security",
            "http://override/archive/debian-security/@SNAPSHOTID@/",
        ),
    ];
    let repository = |uri: &str, archive, snapshots: Option<&str>| Repository {
        archive,
        uri: uri.to_owned(),
        snapshots: snapshots.map(str::to_owned),
    };
    Machine {
        table: table.map(|(key, address)| (key.to_owned(), address.to_owned())).into(),
        repositories: vec![
            repository("http://deb.test/debian", archive("Debian", "Debian", "book"), None),
            repository(
                "http://user@deb.test:80/debian-security/",
                archive("Debian", "Debian-Security", "book-security"),
                Some("http://release/@SNAPSHOTID@"),
            ),
            repository("https://eu.deb.test/ubuntu", archive("Ubuntu", "Ubuntu", "book"), None),
            repository("https://deb.test/none", archive("None", "None", "book"), Some("no")),
            repository("file:/srv/mirror", archive("Local", "", "book"), Some("yes")),
        ],
    }
}

#[test]
fn servers_come_in_the_order_in_which_apt_prefers_them() {
    let machine = machine();
    let bases = |archive: &LockedArchive| -> Vec<String> {
        let servers = machine.servers(Some(archive));
        servers.iter().flat_map(|server| server.bases(Some(archive))).collect()
    };
    let dated = |texts: &[&str]| texts.iter().map(|text| text.replace("DATE", DATE)).collect::<Vec<_>>();
    for (archive, expected) in [
        (
            archive("Debian", "Debian", "book"),
            &["http://host/archive/debian/DATE/", "http://origin/archive/debian/DATE/"][..],
        ),
        (
            archive("Debian", "Debian-Security", "book-security"),
            &[
                "http://override/archive/debian-security/DATE/",
                "http://release/DATE",
                "http://host/archive/debian-security/DATE/",
                "http://origin/archive/debian/DATE/",
            ],
        ),
        // No source of this machine is that suite: what is known of label and origin holds all the same.
        (
            archive("Debian", "Debian", "trix"),
            &["http://origin/archive/debian/DATE/"],
        ),
        (archive("Ubuntu", "Ubuntu", "book"), &["http://domain/ubuntu/DATE/"]),
        (archive("None", "None", "book"), &[]),
        (archive("Local", "", "book"), &[]),
        (archive("", "", ""), &[]),
    ] {
        assert_eq!(bases(&archive), dated(expected), "{archive:?}");
    }
    // Where it is not known where a file was found, no time can be asked for, but its version can.
    let servers = machine.servers(None);
    assert!(servers.iter().all(|server| server.bases(None).is_empty()));
    let mut roots: Vec<&str> = servers.iter().filter_map(Server::root).collect();
    roots.sort_unstable();
    roots.dedup();
    assert_eq!(roots, ["http://host/", "http://origin/", "http://override/"]);
}

#[test]
fn an_address_without_a_time_is_a_mirror() {
    let archive = archive("Debian", "Debian", "book");
    for address in [
        "/srv/old",
        "file:/srv/archive/old",
        "http://host/archive/debian/20200101T000000Z",
    ] {
        let server = Server::new(address, vec!["debian".to_owned()]);
        assert_eq!(server.bases(Some(&archive)), [address]);
        assert_eq!(server.bases(None), [address]);
        let root = server.root();
        assert_eq!(root, address.starts_with("http").then_some("http://host/"));
    }
    // Nothing of this machine says what the path would be.
    let server = Server::new("http://host/@PATH@/@SNAPSHOTID@/", Vec::new());
    assert!(server.bases(Some(&archive)).is_empty());
}
