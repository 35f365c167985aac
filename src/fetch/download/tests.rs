//! Tests of downloads: caches, mirrors, wrong bytes.

use std::fs;
use std::sync::Mutex;

use super::*;
use crate::digest::Digest;
use crate::event::Silent;
use crate::fetch::debian::testing_repo::Repo;
use crate::fetch::testing::{Reply, Server};
use crate::fetch::{Update, unpack_deb, unpack_deb_source};
use crate::spec::Lock;
use crate::testing::oracle;

fn url(address: &str, content: &[u8]) -> Download {
    Download {
        name: "x.tar".to_owned(),
        hash: Digest::of(content).into(),
        size: Some(content.len() as u64),
        origin: Origin::Url(address.to_owned()),
    }
}

fn config(dir: &std::path::Path) -> FetchConfig {
    FetchConfig {
        cache: dir.join("cache"),
        apt_state: dir.join("apt"),
        ..FetchConfig::default()
    }
}

/// The file of a download, as messages name it.
fn named(download: &Download) -> String {
    wanted(download).to_string()
}

#[test]
fn a_file_is_downloaded_once_and_verified_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(|_| Reply::ok("abc"));
    let (first, second) = (url(&server.url("/1"), b"abc"), url(&server.url("/2"), b"abc"));
    let config = config(dir.path());
    let files = fetch(&[&first, &second, &first], &config, &Silent).unwrap();
    assert_eq!(files.len(), 3);
    assert!(files.iter().all(|file| *file == files[0]));
    assert_eq!(fs::read(&files[0]).unwrap(), b"abc");
    assert_eq!(server.requests("/1") + server.requests("/2"), 1);

    // What is in the cache needs no network.
    let offline = FetchConfig {
        offline: true,
        ..config.clone()
    };
    fetch(&[&second], &offline, &Silent).unwrap();
    fs::write(&files[0], "abd").unwrap();
    let error = fetch(&[&second], &offline, &Silent).unwrap_err();
    let wanted = format!("`x.tar` (3 bytes, {})", Digest::of(b"abc"));
    assert_eq!(
        error.to_string(),
        format!(
            "{wanted} is neither in the cache nor in a place on this machine, and `--offline` forbids using the network"
        )
    );
    assert!(error.help().unwrap().contains("without `--offline`"));
    fetch(&[&second], &config, &Silent).unwrap();
    assert_eq!(server.requests("/1") + server.requests("/2"), 2);
}

#[test]
fn threads_that_want_one_file_download_it_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        Reply::ok("abc")
    });
    let download = url(&server.url("/x"), b"abc");
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| fetch(&[&download], &config(dir.path()), &Silent).unwrap());
        }
    });
    assert_eq!(server.requests("/x"), 1);
}

#[test]
fn wrong_content_says_what_to_type() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(|path| {
        if path == "/x" {
            Reply::ok("abc")
        } else {
            Reply::status(404)
        }
    });
    let wrong = Download {
        size: None,
        ..url(&server.url("/x"), b"other")
    };
    let error = fetch(&[&wrong], &config(dir.path()), &Silent).unwrap_err();
    let (expected, actual) = (Digest::of(b"other"), Digest::of(b"abc"));
    let place = server.url("/x");
    assert_eq!(
        one_line(&error),
        format!(
            "cannot get `x.tar` ({expected}); asked: {place}: other content: `{place}` served different content for `x.tar`: \
             expected {expected}, got {actual}"
        )
    );
    assert!(
        error
            .help()
            .unwrap()
            .contains(&format!("sha256 = \"{}\"", actual.hex()))
    );
    let short = Download {
        size: Some(7),
        ..url(&server.url("/x"), b"abc")
    };
    let error = fetch(&[&short], &config(dir.path()), &Silent).unwrap_err();
    assert!(
        one_line(&error).ends_with("served 3 bytes for `x.tar`, expected 7"),
        "{error}"
    );
    let gone = url(&server.url("/gone"), b"abc");
    let error = fetch(&[&gone], &config(dir.path()), &Silent).unwrap_err();
    assert!(one_line(&error).contains("/gone: not there"), "{error}");
    assert!(
        crate::fsio::sorted_names(&dir.path().join("cache/sha256"))
            .unwrap()
            .is_empty()
    );
}

/// A repository whose packages are locked.
fn locked() -> (Repo, Vec<Download>) {
    let mut repo = Repo::new();
    repo.add("aa", "1:1.0", "Depends: bb\n");
    repo.add("bb", "2.0", "");
    repo.add_source("src", "1.0");
    let lock = repo.lock(&[&["aa"]], &["src"], &Lock::default(), &Update::Nothing);
    let debs = lock.debs.iter().map(|(name, deb)| Download::deb(name, deb));
    let downloads = debs
        .chain(Download::deb_source("src", &lock.deb_sources["src"]))
        .collect();
    (repo, downloads)
}

fn fetch_all(downloads: &[Download], config: &FetchConfig) -> Result<Vec<PathBuf>, FetchError> {
    fetch(&downloads.iter().collect::<Vec<_>>(), config, &Silent)
}

#[test]
fn locked_packages_come_from_apt_and_unpack() {
    if !oracle("apt-get") {
        return;
    }
    let (repo, downloads) = locked();
    let files = fetch_all(&downloads, &repo.config()).unwrap();
    assert_eq!(files.len(), 4);
    let tree = repo.path().join("tree");
    unpack_deb(&files[0], "aa", &tree).unwrap();
    assert_eq!(fs::read(tree.join("usr/share/aa/version")).unwrap(), b"1:1.0");
    let named = |index: usize| (downloads[index].name.clone(), files[index].clone());
    let source = repo.path().join("source");
    unpack_deb_source(&[named(2), named(3)], &source).unwrap();
    assert_eq!(fs::read(source.join("debian/rules")).unwrap(), b"r");
    // A state without lists, as on a machine that only has the lock.
    let fresh = FetchConfig {
        cache: repo.path().join("cache-2"),
        apt_state: repo.path().join("apt-2"),
        ..repo.config()
    };
    assert_eq!(fetch_all(&downloads, &fresh).unwrap().len(), 4);
}

#[test]
fn mirrors_and_snapshots_carry_locked_packages() {
    if !oracle("apt-get") {
        return;
    }
    let (repo, downloads) = locked();
    let archive = repo.archive();
    let served = archive.clone();
    let server = Server::start(move |path| {
        match fs::read(served.join(path.trim_start_matches("/debian/").replace("%25", "%"))) {
            Ok(content) => Reply::ok(content),
            Err(_) => Reply::status(404),
        }
    });
    let directory = archive.display().to_string();
    for mirror in [directory.clone(), format!("file:{directory}"), server.url("/debian")] {
        for (mirrors, snapshots) in [(vec![mirror.clone()], vec![]), (vec![], vec![mirror.clone()])] {
            repo.forget_cache();
            let config = FetchConfig {
                mirrors,
                snapshots,
                ..repo.config_without_apt()
            };
            assert_eq!(fetch_all(&downloads, &config).unwrap().len(), 4, "{mirror}");
        }
    }
    // A local mirror needs no network.
    repo.forget_cache();
    let offline = FetchConfig {
        offline: true,
        mirrors: vec![server.url("/none"), directory],
        ..repo.config_without_apt()
    };
    assert_eq!(fetch_all(&downloads, &offline).unwrap().len(), 4);
    assert_eq!(server.requests("/none/pool/bb_2.0_all.deb"), 0);
}

#[derive(Default)]
struct Warnings(Mutex<Vec<String>>);

impl Reporter for Warnings {
    fn report(&self, event: Event) {
        if let Event::Warning { text } = event {
            self.0.lock().unwrap().push(text);
        }
    }
}

#[test]
fn a_mirror_with_other_content_is_passed_over_with_a_warning() {
    if !oracle("apt-get") {
        return;
    }
    let (repo, downloads) = locked();
    let wrong = repo.path().join("wrong");
    fs::create_dir_all(wrong.join("pool")).unwrap();
    fs::write(
        wrong.join("pool/bb_2.0_all.deb"),
        "x".repeat(downloads[1].size.unwrap() as usize),
    )
    .unwrap();
    let config = FetchConfig {
        mirrors: vec![wrong.display().to_string(), repo.archive().display().to_string()],
        ..repo.config_without_apt()
    };
    let warnings = Warnings::default();
    fetch(&[&downloads[1]], &config, &warnings).unwrap();
    let warnings = warnings.0.into_inner().unwrap();
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].contains("served different content for `deb:bb`"),
        "{warnings:?}"
    );
}

#[test]
fn a_package_that_nobody_carries_names_its_successor() {
    if !oracle("apt-get") {
        return;
    }
    let (mut repo, downloads) = locked();
    repo.drop_from_index("bb", "2.0");
    repo.add("bb", "2.1", "");
    let mirror = repo.path().join("nothing").display().to_string();
    let config = FetchConfig {
        mirrors: vec![mirror.clone()],
        ..repo.config()
    };
    let error = fetch_all(&downloads, &config).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "no source carries {} any more; it was replaced by 2.1",
            named(&downloads[1])
        )
    );
    assert_eq!(
        error.help().unwrap(),
        format!(
            "`layerize lock --refresh` takes the new version and what that needs; a snapshot server (`snapshots` \
             of `[debian]`, in the spec or the configuration) still has the old (asked: {mirror}: not there, apt: not there)"
        )
    );
    let error = fetch_all(
        &downloads,
        &FetchConfig {
            cache: repo.path().join("c"),
            ..repo.config_without_apt()
        },
    )
    .unwrap_err();
    let FetchError::Several { errors } = error else {
        panic!("{error}");
    };
    assert_eq!(errors.len(), 4);
    assert_eq!(
        errors[0].to_string(),
        format!(
            "no source carries {}, nor any other version of it",
            named(&downloads[0])
        )
    );
    let offline = FetchConfig {
        offline: true,
        cache: repo.path().join("c"),
        ..config
    };
    let error = fetch_all(&downloads[1..2], &offline).unwrap_err();
    assert!(matches!(error, FetchError::OfflineFile { .. }), "{error}");
}

#[test]
fn a_download_that_fails_is_told_in_apts_words() {
    if !oracle("apt-get") {
        return;
    }
    let (repo, downloads) = locked();
    fs::remove_file(repo.archive().join("pool/bb_2.0_all.deb")).unwrap();
    let error = fetch_all(&downloads, &repo.config()).unwrap_err();
    assert!(
        one_line(&error).starts_with(&format!(
            "cannot get {}; asked: apt: an error: apt cannot download bb_2.0_all.deb:   E: Failed to fetch",
            named(&downloads[1])
        )),
        "{}",
        one_line(&error)
    );
}

#[test]
fn a_hostile_lock_entry_reaches_no_program() {
    let dir = tempfile::tempdir().unwrap();
    let origin = |package: &str, version: &str, filename: &str| Origin::Deb {
        package: package.to_owned(),
        version: version.to_owned(),
        architecture: "all".to_owned(),
        filename: filename.to_owned(),
        archive: None,
    };
    for origin in [origin("-o=x", "1", "pool/x"), origin("aa", "1 /etc/passwd", "pool/x")] {
        let download = Download {
            origin,
            ..url("", b"abc")
        };
        let error = fetch(&[&download], &config(dir.path()), &Silent).unwrap_err();
        assert!(matches!(error, FetchError::MalformedEntry { .. }), "{error}");
    }
    let download = Download {
        origin: origin("aa", "1", "../../etc/passwd"),
        ..url("", b"abc")
    };
    let config = FetchConfig {
        mirrors: vec!["/srv".to_owned()],
        ..config(dir.path())
    };
    let error = fetch(&[&download], &config, &Silent).unwrap_err();
    assert!(matches!(error, FetchError::Address { .. }), "{error}");
}
