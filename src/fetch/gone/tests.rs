//! Tests of what counts as gone, and of the lock that is made without it.

use std::fs;
use std::sync::Arc;

use super::*;
use crate::digest::Digest;
use crate::event::Silent;
use crate::fetch::debian::testing_repo::Repo;
use crate::fetch::place::{LocalCopy, Place};
use crate::fetch::testing::{Reply, Server};
use crate::fetch::{Update, fetch};
use crate::testing::oracle;

fn resolve(repo: &Repo, old: &Lock, update: &Update) -> Lock {
    repo.lock(&[&["libx-dev", "loner"], &["prog"]], &["src"], old, update)
}

fn repo() -> (Repo, Lock) {
    let mut repo = Repo::new();
    repo.add("libx1", "1", "Source: x\n");
    repo.add("libx-dev", "1", "Source: x\nDepends: libx1 (= 1)\n");
    repo.add("prog", "1", "Depends: libx1\n");
    repo.add("loner", "1", "");
    repo.add_source("src", "1");
    let lock = resolve(&repo, &Lock::default(), &Update::Nothing);
    (repo, lock)
}

fn versions(lock: &Lock) -> Vec<String> {
    let debs = lock.debs.iter().map(|(name, deb)| format!("{name} {}", deb.version));
    let sources = lock.deb_sources.iter();
    debs.chain(sources.map(|(name, source)| format!("{name} {}", source.version)))
        .collect()
}

fn names(gone: &Gone) -> Vec<&str> {
    gone.debs.iter().chain(&gone.deb_sources).map(String::as_str).collect()
}

#[test]
fn what_is_carried_is_not_gone_and_the_lock_stays() {
    if !oracle("apt-get") {
        return;
    }
    let (mut repo, lock) = repo();
    repo.add("loner", "2", "");
    repo.add_source("src", "2");
    let gone = gone(&lock, &repo.config(), &Silent).unwrap();
    assert_eq!(gone, Gone::default());
    assert_eq!(resolve(&repo, &lock, &Update::Gone(gone)), lock);
}

#[test]
fn what_is_gone_moves_with_what_it_needs_and_nothing_else() {
    if !oracle("apt-get") {
        return;
    }
    let (mut repo, lock) = repo();
    // Everything has a newer version; one package and the source package lost the old one.
    for (name, fields) in [
        ("loner", "Depends: new\n"),
        ("new", ""),
        ("libx1", "Source: x\n"),
        ("prog", ""),
    ] {
        repo.add(name, "2", fields);
    }
    repo.add("libx-dev", "2", "Source: x\nDepends: libx1 (= 2)\n");
    repo.add_source("src", "2");
    repo.drop_from_index("loner", "1");
    repo.drop_from_index("src", "1");
    // That this machine downloaded them is no proof that another can.
    let all: Vec<Download> = lock.debs.iter().map(|(name, deb)| Download::deb(name, deb)).collect();
    let mirror = FetchConfig {
        mirrors: vec![repo.archive().display().to_string()],
        ..repo.config()
    };
    fetch(&all.iter().collect::<Vec<_>>(), &mirror, &Silent).unwrap();
    let gone = gone(&lock, &repo.config(), &Silent).unwrap();
    assert_eq!(names(&gone), ["loner", "src"]);
    let refreshed = resolve(&repo, &lock, &Update::Gone(gone));
    assert_eq!(
        versions(&refreshed),
        ["libx-dev 1", "libx1 1", "loner 2", "new 2", "prog 1", "src 2"]
    );
    assert_eq!(refreshed.debs["prog"], lock.debs["prog"]);
}

#[test]
fn a_library_takes_its_headers_with_it_in_every_set() {
    if !oracle("apt-get") {
        return;
    }
    let (mut repo, lock) = repo();
    repo.drop_from_index("libx1", "1");
    repo.add("libx1", "2", "Source: x\n");
    repo.add("libx-dev", "2", "Source: x\nDepends: libx1 (= 2)\n");
    repo.add("prog", "2", "Depends: libx1\n");
    let gone = gone(&lock, &repo.config(), &Silent).unwrap();
    assert_eq!(names(&gone), ["libx1"]);
    let refreshed = resolve(&repo, &lock, &Update::Gone(gone));
    assert_eq!(
        versions(&refreshed),
        ["libx-dev 2", "libx1 2", "loner 1", "prog 1", "src 1"]
    );
}

#[test]
fn a_file_replaced_under_its_version_is_gone() {
    if !oracle("apt-get") {
        return;
    }
    let (mut repo, lock) = repo();
    repo.drop_from_index("loner", "1");
    repo.add("loner", "1", "Section: other\n");
    let gone = gone(&lock, &repo.config(), &Silent).unwrap();
    assert_eq!(names(&gone), ["loner"]);
    let refreshed = resolve(&repo, &lock, &Update::Gone(gone));
    assert_eq!(versions(&refreshed), versions(&lock));
    assert_ne!(refreshed.debs["loner"].sha256, lock.debs["loner"].sha256);
    let again = super::gone(&refreshed, &repo.config(), &Silent).unwrap();
    assert_eq!(again, Gone::default());
}

#[test]
fn each_place_counts_and_silence_is_no_answer() {
    if !oracle("apt-get") {
        return;
    }
    let (repo, lock) = repo();
    let archive = repo.archive();
    let served = archive.clone();
    let server = Server::start(
        move |path| match fs::read(served.join(path.trim_start_matches("/debian/"))) {
            Ok(content) => Reply::ok(content),
            Err(_) => Reply::status(404),
        },
    );
    let broken = Server::start(|_| Reply::status(500));
    let empty = Server::start(|_| Reply::status(404));
    let (http, broken, empty) = (server.url("/debian"), broken.url("/debian"), empty.url(""));
    let directory = archive.display().to_string();
    let nobody = "http://127.0.0.1:1/".to_owned();
    let ask = |mirrors: &[&String], snapshots: &[&String]| {
        let config = FetchConfig {
            mirrors: mirrors.iter().map(|place| (*place).clone()).collect(),
            snapshots: snapshots.iter().map(|place| (*place).clone()).collect(),
            ..repo.config_without_apt()
        };
        gone_by(&Transfer::impatient(), &lock, &config, &Silent)
    };
    for place in [&directory, &http] {
        assert_eq!(ask(&[place], &[]).unwrap(), Gone::default(), "{place}");
        assert_eq!(ask(&[], &[place]).unwrap(), Gone::default(), "{place}");
        assert_eq!(ask(&[&broken, place], &[]).unwrap(), Gone::default(), "{place}");
    }
    let all = ["libx-dev", "libx1", "loner", "prog", "src"];
    assert_eq!(names(&ask(&[&empty], &[]).unwrap()), all);
    for (mirrors, snapshots, unclear) in [
        (vec![&broken, &empty], vec![], format!("{broken}: an error")),
        (vec![], vec![&nobody], format!("{nobody}: no answer")),
    ] {
        let error = ask(&mirrors, &snapshots).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "cannot tell whether {} is still available: {unclear}",
                crate::fetch::download::wanted(&Download::deb("libx-dev", &lock.debs["libx-dev"]))
            )
        );
    }
    // Another file in its place.
    let size = usize::try_from(lock.debs["loner"].size).unwrap();
    fs::write(archive.join("pool/loner_1_all.deb"), "x".repeat(size)).unwrap();
    assert_eq!(names(&ask(&[&directory], &[]).unwrap()), ["loner"]);
    fs::write(archive.join("pool/loner_1_all.deb"), "x").unwrap();
    assert_eq!(names(&ask(&[&http], &[]).unwrap()), ["loner"]);
}

/// A place that keeps one file.
#[derive(Debug)]
struct Keeper(Digest);

impl Place for Keeper {
    fn name(&self) -> &'static str {
        "oci:kept"
    }

    fn is_local(&self) -> bool {
        true
    }

    fn open(&self, _: &Request<'_>) -> Result<LocalCopy, FetchError> {
        panic!("nothing is to be read")
    }

    fn has(&self, request: &Request<'_>) -> Result<bool, FetchError> {
        Ok(*request.hash == self.0)
    }
}

#[test]
fn what_a_place_keeps_by_digest_is_not_gone() {
    if !oracle("apt-get") {
        return;
    }
    let (repo, lock) = repo();
    let config = FetchConfig {
        places: vec![Arc::new(Keeper(lock.debs["loner"].sha256))],
        ..repo.config_without_apt()
    };
    let gone = gone(&lock, &config, &Silent).unwrap();
    assert_eq!(names(&gone), ["libx-dev", "libx1", "prog", "src"]);
}
