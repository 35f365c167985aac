//! Tests of what a lock holds and what an update changes.

use std::path::{Path, PathBuf};

use super::*;
use crate::digest::Digest;
use crate::event::Silent;
use crate::fetch::testing::{Reply, Server};
use crate::spec::{Debian, Inputs, Package, Source, Span, Spanned};

fn spanned<T>(value: T) -> Spanned<T> {
    let span = Span { file: 0, range: 0..0 };
    Spanned { value, span }
}

/// A workspace of packages that have a source and nothing else.
fn workspace(sources: &[(&str, String, Option<Digest>)]) -> Workspace {
    let package = |(name, url, sha256): &(&str, String, Option<Digest>)| {
        let name = PackageName((*name).to_owned());
        let source = Source::Url {
            url: url.clone(),
            sha256: *sha256,
            unpack: None,
            strip: None,
            redistribute: true,
        };
        let package = Package {
            name: spanned(name.clone()),
            dir: PathBuf::new(),
            version: None,
            source: Some(spanned(source)),
            language: None,
            tools: vec![],
            libraries: vec![],
            runtime: vec![],
            dev: vec![],
            no_references: vec![],
            strip_references: vec![],
            env: BTreeMap::new(),
            script: None,
            timeout_seconds: None,
            cache_dirs: vec![],
            base: true,
            cross: None,
        };
        (name, package)
    };
    Workspace {
        cache: Default::default(),
        files: vec![],
        packages: sources.iter().map(package).collect(),
        imports: BTreeMap::new(),
        images: BTreeMap::new(),
        debian: Debian::default(),
        inputs: Inputs::default(),
        build: crate::spec::BuildSettings::default(),
    }
}

fn config(dir: &Path) -> FetchConfig {
    FetchConfig {
        cache: dir.join("cache"),
        apt_state: dir.join("apt"),
        ..FetchConfig::default()
    }
}

fn names(lock: &Lock) -> Vec<(String, u64)> {
    lock.urls
        .iter()
        .map(|(name, url)| (name.to_string(), url.size))
        .collect()
}

#[test]
fn addresses_are_pinned_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_counting(|path, count| Reply::ok(format!("{path}{}", "+".repeat(count))));
    let workspace = workspace(&[
        ("a", server.url("/a"), None),
        ("b", server.url("/bb"), None),
        ("given", server.url("/given"), Some(Digest::of(b"x"))),
    ]);
    let config = config(dir.path());
    let run = |old: &Lock, update: Update| resolve(&workspace, old, &update, &config, &Silent);
    let first = run(&Lock::default(), Update::Nothing).unwrap();
    assert_eq!(names(&first), [("a".to_owned(), 2), ("b".to_owned(), 3)]);
    assert_eq!(first.urls[&PackageName("a".to_owned())].sha256, Digest::of(b"/a"));
    assert_eq!(run(&first, Update::Nothing).unwrap(), first);
    let named = run(&first, Update::Names(vec!["b".to_owned()])).unwrap();
    assert_eq!(names(&named), [("a".to_owned(), 2), ("b".to_owned(), 4)]);
    let all = run(&named, Update::Everything).unwrap();
    assert_eq!(names(&all), [("a".to_owned(), 3), ("b".to_owned(), 5)]);
    assert_eq!(["/a", "/bb", "/given"].map(|path| server.requests(path)), [2, 3, 0]);
    assert!(
        !config.apt_state.exists(),
        "apt is not asked where no Debian package is wanted"
    );

    let offline = FetchConfig {
        offline: true,
        ..config
    };
    let error = resolve(&workspace, &Lock::default(), &Update::Nothing, &offline, &Silent).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`a` is not in the cache and `--offline` forbids using the network"
    );
    assert_eq!(
        resolve(&workspace, &all, &Update::Nothing, &offline, &Silent).unwrap(),
        all
    );
}

#[test]
fn an_update_of_nothing_known_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let workspace = workspace(&[("hello", "https://localhost/x".to_owned(), Some(Digest::of(b"")))]);
    for (name, help) in [
        ("helo", "did you mean `hello`?"),
        (
            "zzz",
            "name Debian packages, Debian source packages or packages with a `url` or a `git`",
        ),
    ] {
        let update = Update::Names(vec![name.to_owned()]);
        let error = resolve(&workspace, &Lock::default(), &update, &config(dir.path()), &Silent).unwrap_err();
        assert_eq!(error.to_string(), format!("the lock has no entry named `{name}`"));
        assert_eq!(error.help().unwrap(), help);
    }
}
