//! Tests of resolving with apt, from archives made by the tests.

use std::sync::Mutex;

use super::*;
use crate::event::{Event, Silent};
use crate::fetch::debian::testing_repo::Repo;
use crate::testing::oracle;

fn set(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn try_resolve(repo: &Repo, sets: &[&[&str]], old: &Lock, update: &Update) -> Result<Lock, FetchError> {
    let config = repo.config();
    let request = Request {
        sources: &repo.apt_sources(),
        old,
        update,
        config: &config,
        reporter: &Silent,
    };
    let debs = resolve_sets(&sets.iter().map(|names| set(names)).collect(), &request)?;
    Ok(Lock {
        architecture: debs.architecture,
        debs: debs.debs,
        deb_sets: debs.deb_sets,
        ..Lock::default()
    })
}

fn resolve(repo: &Repo, sets: &[&[&str]], old: &Lock) -> Lock {
    try_resolve(repo, sets, old, &Update::Nothing).unwrap()
}

fn versions(lock: &Lock) -> Vec<String> {
    lock.debs
        .iter()
        .map(|(name, deb)| format!("{name} {}", deb.version))
        .collect()
}

/// A library with headers of the same version, two programs, and a choice of alternatives.
fn repo() -> Repo {
    let mut repo = Repo::new();
    repo.add("libx1", "1.0-1", "Source: x\nProvides: libx-abi (= 1)\n");
    repo.add("libx-dev", "1.0-1", "Source: x\nDepends: libx1 (= 1.0-1)\n");
    repo.add(
        "prog",
        "2:3.0+b1",
        "Source: prog-src (3.0)\nPre-Depends: libx-abi\nDepends: awk, libx1 (>= 0.9), nothing | sh:any\n",
    );
    repo.add("mawk", "1", "Provides: awk\n");
    repo.add("gawk", "2", "Provides: awk\nDepends: libx1\n");
    repo.add("sh", "1", "Multi-Arch: allowed\n");
    repo.add("loner", "1", "");
    repo
}

#[test]
fn a_lock_has_what_the_sets_need() {
    if !oracle("apt-get") {
        return;
    }
    let mut repo = repo();
    let lock = resolve(&repo, &[&["mawk", "prog"], &["gawk"], &["libx-dev"]], &Lock::default());
    assert_eq!(lock.architecture.as_deref(), Some("amd64"));
    assert_eq!(
        versions(&lock),
        [
            "gawk 2",
            "libx-dev 1.0-1",
            "libx1 1.0-1",
            "mawk 1",
            "prog 2:3.0+b1",
            "sh 1"
        ]
    );
    assert_eq!(lock.deb_sets[&set(&["gawk"])], ["gawk", "libx1"]);
    assert_eq!(lock.deb_sets[&set(&["mawk", "prog"])], ["libx1", "mawk", "prog", "sh"]);
    let prog = &lock.debs["prog"];
    assert_eq!(prog.depends, [set(&["libx1"]), set(&["gawk", "mawk"]), set(&["sh"])]);
    assert_eq!(prog.source, ("prog-src".to_owned(), "3.0".to_owned()));
    assert_eq!(
        (prog.architecture.as_str(), prog.filename.as_str()),
        ("all", "pool/prog_2%3a3.0+b1_all.deb")
    );
    assert_eq!(lock.debs["libx1"].source, ("x".to_owned(), "1.0-1".to_owned()));

    repo.reverse();
    let again = resolve(&repo, &[&["libx-dev"], &["gawk"], &["mawk", "prog"]], &Lock::default());
    assert_eq!(again, lock, "the order of the index and of the sets does not matter");
    let step = resolve(&repo, &[&["mawk", "prog"]], &Lock::default());
    assert_eq!(step.debs["prog"].depends[1], set(&["mawk"]));
    let grown = resolve(&repo, &[&["libx-dev"], &["gawk"], &["mawk", "prog"]], &step);
    assert_eq!(grown, lock, "nor does the way there");
    let shrunk = resolve(&repo, &[&["mawk", "prog"]], &lock);
    assert_eq!(shrunk, step, "what is no longer needed goes");
    assert_eq!(resolve(&repo, &[], &lock), Lock::default());
}

#[test]
fn locked_versions_stay_unless_they_are_to_be_updated() {
    if !oracle("apt-get") {
        return;
    }
    let mut repo = repo();
    let sets: &[&[&str]] = &[&["libx-dev"], &["loner", "mawk"]];
    let old = resolve(&repo, sets, &Lock::default());
    for (name, version, fields) in [
        ("libx1", "1.0-2", "Source: x\n"),
        ("libx-dev", "1.0-2", "Source: x\nDepends: libx1 (= 1.0-2)\n"),
        ("mawk", "2", "Provides: awk\n"),
        ("loner", "2", ""),
    ] {
        repo.add(name, version, fields);
    }
    assert_eq!(resolve(&repo, sets, &old), old);

    let grown = resolve(&repo, &[sets[0], sets[1], &["mawk", "prog"]], &old);
    assert_eq!(
        versions(&grown),
        [
            "libx-dev 1.0-1",
            "libx1 1.0-1",
            "loner 1",
            "mawk 1",
            "prog 2:3.0+b1",
            "sh 1"
        ]
    );
    let named = |name: &str| try_resolve(&repo, sets, &old, &Update::Names(vec![name.to_owned()])).unwrap();
    assert_eq!(
        versions(&named("mawk")),
        ["libx-dev 1.0-1", "libx1 1.0-1", "loner 1", "mawk 2"]
    );
    assert_eq!(
        versions(&named("libx1")),
        ["libx-dev 1.0-2", "libx1 1.0-2", "loner 1", "mawk 1"],
        "what is built from the same source moves with it"
    );
    let all = try_resolve(&repo, sets, &old, &Update::Everything).unwrap();
    assert_eq!(versions(&all), ["libx-dev 1.0-2", "libx1 1.0-2", "loner 2", "mawk 2"]);
    assert_eq!(all, resolve(&repo, sets, &Lock::default()));
}

#[test]
fn a_dropped_version_stays_where_nothing_new_needs_it() {
    if !oracle("apt-get") {
        return;
    }
    let mut repo = repo();
    let sets: &[&[&str]] = &[&["gawk"], &["loner"]];
    let old = resolve(&repo, sets, &Lock::default());
    repo.drop_from_index("libx1", "1.0-1");
    repo.add("libx1", "1.0-2", "Source: x\n");
    repo.add("libx-dev", "1.0-2", "Source: x\nDepends: libx1 (= 1.0-2)\n");
    assert_eq!(resolve(&repo, sets, &old), old);
    let unrelated = resolve(&repo, &[sets[0], sets[1], &["sh"]], &old);
    assert_eq!(versions(&unrelated), ["gawk 2", "libx1 1.0-1", "loner 1", "sh 1"]);
    assert_eq!(unrelated.debs["gawk"].depends, old.debs["gawk"].depends);

    // A set that needs the package anew moves it, in the sets that hold it as well.
    let notes = Notes::default();
    let config = repo.config();
    let request = Request {
        sources: &repo.apt_sources(),
        old: &old,
        update: &Update::Nothing,
        config: &config,
        reporter: &notes,
    };
    let sets = [set(&["gawk"]), set(&["loner"]), set(&["libx-dev"])];
    let debs = resolve_sets(&sets.into_iter().collect(), &request).unwrap();
    assert_eq!(debs.debs["libx1"].version, "1.0-2");
    assert_eq!(debs.deb_sets[&set(&["gawk"])], ["gawk", "libx1"]);
    let notes = notes.0.into_inner().unwrap();
    assert!(notes.contains(&"deb:libx1 1.0-1 -> 1.0-2".to_owned()), "{notes:?}");
}

#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Reporter for Notes {
    fn report(&self, event: Event) {
        if let Event::Note { text } = event {
            self.0.lock().unwrap().push(text);
        }
    }
}

#[test]
fn pins_give_way_only_where_they_must() {
    if !oracle("apt-get") {
        return;
    }
    let mut repo = repo();
    let sets: &[&[&str]] = &[&["gawk", "libx-dev", "loner"]];
    let old = resolve(&repo, sets, &Lock::default());
    for (name, version, fields) in [
        ("libx1", "1.0-2", "Source: x\n"),
        ("libx-dev", "1.0-2", "Source: x\nDepends: libx1 (= 1.0-2)\n"),
        ("loner", "2", ""),
        ("new", "1", "Depends: libx1 (>= 1.0-2), loner\n"),
    ] {
        repo.add(name, version, fields);
    }
    let lock = resolve(&repo, &[sets[0], &["new"]], &old);
    assert_eq!(
        versions(&lock),
        ["gawk 2", "libx-dev 1.0-2", "libx1 1.0-2", "loner 1", "new 1"],
        "the library and its headers move, the rest does not"
    );
}

#[test]
fn an_unchanged_lock_asks_nobody() {
    let repo = repo();
    let deb = LockedDeb {
        archive: None,
        version: "1".to_owned(),
        architecture: "all".to_owned(),
        filename: "pool/x".to_owned(),
        size: 1,
        sha256: crate::digest::Digest::of(b""),
        depends: vec![],
        source: ("x".to_owned(), "1".to_owned()),
    };
    let old = Lock {
        architecture: Some("amd64".to_owned()),
        debs: BTreeMap::from([("x".to_owned(), deb)]),
        deb_sets: BTreeMap::from([(set(&["x"]), set(&["x"]))]),
        ..Lock::default()
    };
    assert_eq!(resolve(&repo, &[&["x"]], &old), old);
    assert!(!repo.path().join("apt").exists());
    let offline = FetchConfig {
        offline: true,
        ..repo.config()
    };
    let request = Request {
        sources: &repo.apt_sources(),
        old: &old,
        update: &Update::Nothing,
        config: &offline,
        reporter: &Silent,
    };
    let error = resolve_sets(&BTreeSet::from([set(&["y"])]), &request).unwrap_err();
    assert!(matches!(error, FetchError::Offline { .. }), "{error}");
}

#[test]
fn what_cannot_be_resolved_is_told_in_apts_words() {
    if !oracle("apt-get") {
        return;
    }
    let mut repo = repo();
    repo.add("broken", "1", "Depends: libx1 (>= 5), gone\n");
    let error = |names: &[&str]| try_resolve(&repo, &[names], &Lock::default(), &Update::Nothing).unwrap_err();

    let unmet = error(&["broken"]).to_string();
    assert!(
        unmet.starts_with("apt cannot find versions that go together for broken:\n"),
        "{unmet}"
    );
    assert!(unmet.contains("broken : Depends: libx1 (>= 5) but"), "{unmet}");
    assert!(unmet.contains("gone but it is not installable"), "{unmet}");

    let unknown = error(&["mwak"]);
    assert_eq!(unknown.to_string(), "there is no Debian package `mwak`");
    assert_eq!(unknown.help().unwrap(), "did you mean `deb:mawk`?");
    let virtual_name = error(&["awk"]);
    assert_eq!(
        virtual_name.help().unwrap(),
        "the name is virtual; take one that provides it: gawk, mawk"
    );
    for pattern in ["libx.*", "pro", "-o=Debug", "prog-", "A/b"] {
        assert!(matches!(error(&[pattern]), FetchError::UnknownDeb { .. }), "{pattern}");
    }
}

#[test]
fn an_unreadable_source_is_told_in_apts_words() {
    if !oracle("apt-get") {
        return;
    }
    let repo = repo();
    std::fs::remove_file(repo.archive().join("Packages")).unwrap();
    let error = try_resolve(&repo, &[&["prog"]], &Lock::default(), &Update::Nothing).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("apt could not update its package lists:\n  E:"),
        "{error}"
    );
    // Without `trusted`, apt refuses what is not signed.
    let repo = self::repo();
    let mut sources = repo.apt_sources();
    sources.sources[0] = sources.sources[0].replace("[trusted=yes] ", "");
    let config = repo.config();
    let request = Request {
        sources: &sources,
        old: &Lock::default(),
        update: &Update::Nothing,
        config: &config,
        reporter: &Silent,
    };
    let error = resolve_sets(&BTreeSet::from([set(&["prog"])]), &request).unwrap_err();
    assert!(error.to_string().contains("does not have a Release file"), "{error}");
}

#[test]
fn a_signed_source_is_believed_with_its_keyring_only() {
    if !oracle("apt-get") || !oracle("gpg") {
        return;
    }
    for armor in [false, true] {
        let (repo, other) = (self::repo(), self::repo());
        let (keyring, wrong) = (repo.sign(armor), other.sign(armor));
        let config = repo.config();
        let solve = |keyring: std::path::PathBuf| {
            let mut sources = repo.apt_sources();
            sources.sources[0] = sources.sources[0].replace("[trusted=yes] ", "");
            sources.keyring = Some(keyring);
            let request = Request {
                sources: &sources,
                old: &Lock::default(),
                update: &Update::Nothing,
                config: &config,
                reporter: &Silent,
            };
            resolve_sets(&BTreeSet::from([set(&["sh"])]), &request)
        };
        assert_eq!(solve(keyring).unwrap().debs["sh"].version, "1");
        let error = solve(wrong).unwrap_err();
        assert!(error.to_string().contains("NO_PUBKEY"), "{error}");
        let error = solve("/nonexistent/keyring".into()).unwrap_err();
        assert_eq!(error.to_string(), "cannot open `/nonexistent/keyring`");
    }
}

#[test]
fn source_packages_are_locked_at_their_newest_version() {
    if !oracle("apt-get") {
        return;
    }
    let mut repo = repo();
    for version in ["1.9", "1.10", "1.10~rc1"] {
        repo.add_source("hello", version);
    }
    let config = repo.config();
    let mut old = Lock::default();
    let resolve = |name: &str, old: &Lock, update: &Update| {
        let request = Request {
            sources: &repo.apt_sources(),
            old,
            update,
            config: &config,
            reporter: &Silent,
        };
        resolve_sources(&BTreeSet::from([name.to_owned()]), &request)
    };
    let locked = resolve("hello", &old, &Update::Nothing).unwrap();
    let hello = &locked["hello"];
    assert_eq!((hello.version.as_str(), hello.directory.as_str()), ("1.10", "pool"));
    assert_eq!(hello.files[0].name, "hello_1.10.dsc");
    old.deb_sources = locked.clone();
    old.deb_sources.get_mut("hello").unwrap().version = "1.0".to_owned();
    assert_eq!(resolve("hello", &old, &Update::Nothing).unwrap(), old.deb_sources);
    let names = Update::Names(vec!["hello".to_owned()]);
    assert_eq!(resolve("hello", &old, &names).unwrap(), locked);
    let error = resolve("goodbye", &old, &Update::Nothing).unwrap_err();
    assert_eq!(error.to_string(), "there is no Debian source package `goodbye`");
}

/// `init-system-helpers` depends on `usrmerge | usr-is-merged`: apt took the first, and with it perl.
#[test]
fn of_real_alternatives_the_smaller_whole_is_taken() {
    if !oracle("apt-get") {
        return;
    }
    let mut repo = Repo::new();
    repo.add("init", "1", "Depends: usrmerge | usr-is-merged\n");
    repo.add("usrmerge", "1", "Depends: perl\nProvides: usr-is-merged\n");
    repo.add("usr-is-merged", "1", "");
    repo.add("perl", "1", "Depends: perl-modules\n");
    repo.add("perl-modules", "1", "");
    repo.add("tool", "1", "Depends: usrmerge\n");
    // A virtual package is provided by another program: apt's choice stands.
    repo.add("dialog", "1", "Depends: big | asker\n");
    repo.add("big", "1", "Depends: perl\nProvides: asker\n");
    repo.add("small", "1", "Provides: asker\n");
    let nothing = Lock::default();
    let lock = |wanted: &[&str]| versions(&resolve(&repo, &[wanted], &nothing));
    assert_eq!(lock(&["init"]), ["init 1", "usr-is-merged 1"]);
    assert_eq!(lock(&["dialog"]), ["big 1", "dialog 1", "perl 1", "perl-modules 1"]);
    let with_usrmerge = ["init 1", "perl 1", "perl-modules 1", "usrmerge 1"];
    assert_eq!(lock(&["init", "usrmerge"]), with_usrmerge, "it was asked for");
    assert_eq!(
        lock(&["init", "tool"]),
        ["init 1", "perl 1", "perl-modules 1", "tool 1", "usrmerge 1"],
        "another package needs it"
    );
    // What is locked stays.
    let first = resolve(&repo, &[&["init", "usrmerge"]], &nothing);
    assert_eq!(versions(&resolve(&repo, &[&["init"]], &first)), with_usrmerge);
}
