//! What is needed of a workspace, and what of it a lock lacks.

use super::*;
use crate::spec::{GitCommit, LockScope, LockedGit, LockedPlatform, LockedUrl, lock_is_current, parse};

const SPEC: &str = r#"
        debian.base = ["dash"]

        [package.app]
        source = "."
        tools = ["deb:gcc", "lib", "plain"]
        libraries = ["deb:libc6-dev"]
        runtime = ["deb:tzdata"]
        dev = ["deb:gdb"]
        script = "make"

        [package.lib]
        source = { url = "https://x.invalid/lib.tar.gz" }
        tools = ["deb:make"]
        dev = ["deb:dash", "helper"]
        script = "make"

        [package.bare]
        source = { deb-source = "hello" }
        base = false
        script = "make"

        [package.helper]
        source = { deb-source = "hello" }
        script = "make"

        [package.plain]
        source = { url = "https://x.invalid/plain.tar.gz" }

        [package.tree]
        source = { git = "https://x.invalid/tree", tag = "v1" }

        [package.pinned]
        source = { url = "https://x.invalid/x", sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" }

        [image.one]
        contents = ["app", "deb:zlib1g", "deb:bash"]
        root = ["deb:nginx"]

        [image.two]
        contents = ["deb:bash", "deb:zlib1g"]
    "#;

fn workspace() -> Workspace {
    parse(SPEC).unwrap_or_else(|errors| panic!("{errors}"))
}

fn current_lock() -> Lock {
    lock_for(&workspace())
}

/// A lock of a workspace in which nothing depends on anything.
fn lock_for(workspace: &Workspace) -> Lock {
    let sets = deb_sets(workspace);
    let deb = |name: &String| {
        let deb = crate::spec::LockedDeb {
            archive: None,
            version: "1".to_owned(),
            architecture: "amd64".to_owned(),
            filename: "pool/x.deb".to_owned(),
            size: 1,
            sha256: crate::digest::Digest::of(b""),
            depends: Vec::new(),
            source: (name.clone(), "1".to_owned()),
        };
        (name.clone(), deb)
    };
    let url = LockedUrl {
        size: 0,
        sha256: crate::digest::Digest::of(b""),
    };
    let source = crate::spec::LockedDebSource {
        archive: None,
        version: "1".to_owned(),
        directory: "pool".to_owned(),
        files: Vec::new(),
    };
    Lock {
        architecture: Some("amd64".to_owned()),
        debs: sets.iter().flatten().map(deb).collect(),
        deb_sets: sets.iter().map(|set| (set.clone(), set.clone())).collect(),
        deb_sources: [("hello".to_owned(), source)].into(),
        urls: (unpinned_urls(workspace).into_keys())
            .map(|name| (name, url.clone()))
            .collect(),
        git: git_sources(workspace)
            .into_iter()
            .map(|(name, source)| (name, locked_git(source)))
            .collect(),
        commits: BTreeMap::new(),
        python: BTreeMap::new(),
        nix: BTreeMap::new(),
        bases: BTreeMap::new(),
        elsewhere: BTreeMap::new(),
        machines: BTreeMap::new(),
        accounts: BTreeMap::new(),
        golden: Default::default(),
    }
}

fn locked_git(source: &GitSource) -> LockedGit {
    LockedGit {
        wanted: source.wanted(),
        commit: GitCommit::parse(&"0".repeat(40)).unwrap(),
        size: 0,
        nar_hash: crate::digest::Digest::of(b""),
    }
}

#[test]
fn each_way_of_laying_out_has_its_set() {
    let sets: Vec<String> = deb_sets(&workspace()).iter().map(|set| set.join(" ")).collect();
    assert_eq!(
        sets,
        [
            &*tool_debs().join(" "),
            "bash zlib1g",
            "dash",
            "dash gcc gdb libc6-dev tzdata",
            "dash gcc libc6-dev tzdata",
            "dash make",
            "nginx",
        ]
    );
}

/// The tools are there for scripts that run, whatever machine it is and whatever may emulate: not without packages, where the
/// spec says no, or over a base.
#[test]
fn tools_are_needed_where_scripts_run() {
    let native = if std::env::consts::ARCH == "x86_64" {
        "amd64"
    } else {
        "arm64"
    };
    let foreign = if native == "amd64" { "arm64" } else { "amd64" };
    for (debian, image, expected) in [
        ("", "root = [\"deb:ab\"]", true),
        ("", "root = [\"deb:ab\"]\nconfigure = true", true),
        ("", "root = [\"deb:ab\"]\nconfigure = { skip = [\"deb:ab\"] }", true),
        ("", "root = [\"deb:ab\"]\nconfigure = false", false),
        ("", "root = [\"deb:ab\"]\nbase = \"oci:base\"", false),
        ("", "contents = [\"deb:ab\"]", false),
        (native, "root = [\"deb:ab\"]", true),
        (foreign, "root = [\"deb:ab\"]", true),
        ("never", "root = [\"deb:ab\"]", true),
    ] {
        let head = match debian {
            "" => String::new(),
            "never" => format!("[debian]\narchitecture = \"{foreign}\"\n[build]\nemulate = \"never\"\n"),
            architecture => format!("[debian]\narchitecture = \"{architecture}\"\n"),
        };
        let text = format!("{head}[image.x]\n{image}\n");
        let workspace = parse(&text).unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(deb_sets(&workspace).contains(&tool_debs()), expected, "{text}");
        let mut lock = Lock::default();
        assert_eq!(wants_scripts(&workspace.images["x"]), expected, "{text}");
        lock.deb_sets.insert(tool_debs(), Vec::new());
        let superfluous = lock_is_current(&workspace, &lock, LockScope::Whole)
            .err()
            .unwrap_or_default();
        let told = "no longer needed: the tools that maintainer scripts need".to_owned();
        assert_eq!(superfluous.contains(&told), !expected, "{text}: {superfluous:?}");
    }
}

#[test]
fn the_base_is_the_machine_independent_default() {
    let text = SPEC.replace("debian.base = [\"dash\"]", "");
    let workspace = parse(&text).unwrap();
    let helper = &workspace.packages[&PackageName("helper".to_owned())];
    assert_eq!(build_debs(&workspace, helper), DEBIAN_BASE);
}

#[test]
fn downloads_without_a_digest_are_to_be_pinned() {
    let urls: Vec<(String, String)> = (unpinned_urls(&workspace()).into_iter())
        .map(|(name, url)| (name.0, url))
        .collect();
    let expected = [
        ("lib", "https://x.invalid/lib.tar.gz"),
        ("plain", "https://x.invalid/plain.tar.gz"),
    ];
    assert_eq!(urls, expected.map(|(name, url)| (name.to_owned(), url.to_owned())));
    assert_eq!(deb_sources(&workspace()), ["hello".to_owned()].into());
}

/// Where a repository is decides nothing; what is wanted of it does.
#[test]
fn a_tree_is_locked_for_what_is_wanted() {
    let lock = current_lock();
    for (source, wrong) in [
        ("git = \"../tree\", tag = \"v1\"", None),
        ("git = \"../tree\", tag = \"v1\", lfs = false", None),
        ("git = \"../tree\", rev = \"refs/tags/v1\"", None),
        ("git = \"../tree\", tag = \"v2\"", Some("tag v2")),
        ("git = \"../tree\", branch = \"v1\"", Some("branch v1")),
        ("git = \"../tree\"", Some("HEAD")),
        (
            "git = \"../tree\", tag = \"v1\", submodules = false",
            Some("tag v1, without submodules"),
        ),
        (
            "git = \"../tree\", tag = \"v1\", lfs = true",
            Some("tag v1, with files of Git LFS"),
        ),
    ] {
        let text = SPEC.replace("git = \"https://x.invalid/tree\", tag = \"v1\"", source);
        let found = lock_is_current(&parse(&text).unwrap(), &lock, LockScope::Whole);
        let expected = wrong.map(|wrong| {
            let what = "the git source of package `tree`";
            vec![
                format!("missing: {what} ({wrong})"),
                format!("no longer needed: {what} (tag v1)"),
            ]
        });
        assert_eq!(found.err(), expected, "{source}");
    }
}

#[test]
fn a_lock_is_current_or_says_why_not() {
    assert_eq!(lock_is_current(&workspace(), &current_lock(), LockScope::Whole), Ok(()));
    let mut lock = current_lock();
    lock.deb_sets.remove(&vec!["nginx".to_owned()]);
    lock.deb_sets.insert(vec!["old".to_owned()], Vec::new());
    lock.deb_sources.clear();
    let url = lock.urls.remove(&PackageName("lib".to_owned())).unwrap();
    lock.urls.insert(PackageName("gone".to_owned()), url);
    lock.elsewhere.insert("s390x".to_owned(), LockedPlatform::default());
    let mut workspace = workspace();
    assert_eq!(
        lock_is_current(&workspace, &lock, LockScope::Whole).unwrap_err(),
        [
            "missing: the resolution of `deb:nginx`",
            "no longer needed: the resolution of `deb:old`",
            "no longer needed: the Debian package `nginx`",
            "no longer needed: all that is for `s390x`",
            "missing: the Debian source package `hello`",
            "missing: the download for package `lib`",
            "no longer needed: the download for package `gone`",
        ]
    );
    let mut lock = current_lock();
    lock.architecture = Some("arm64".to_owned());
    workspace.debian.architecture = Some("amd64".to_owned());
    assert_eq!(
        lock_is_current(&workspace, &lock, LockScope::Whole).unwrap_err(),
        ["the lock is for architecture `arm64`, the spec for `amd64`"]
    );
}

/// A set that takes the place of another one is told by what is new in it, and by what it is for.
#[test]
fn a_set_that_changed_is_told_by_its_difference() {
    let stale = |from: &str, to: &str| {
        let workspace = parse(&SPEC.replace(from, to)).unwrap_or_else(|errors| panic!("{errors}"));
        let mut lock = current_lock();
        // Implied by what is not resolved yet.
        lock.deb_sets.insert(utf8_debs(), Vec::new());
        lock_is_current(&workspace, &lock, LockScope::Whole).unwrap_err()
    };
    let tool = stale("tools = [\"deb:gcc\",", "tools = [\"deb:clang\", \"deb:gcc\",");
    assert_eq!(
        tool,
        ["the shell of package `app`: + deb:clang", "package `app`: + deb:clang"]
    );
    let instead = stale("libraries = [\"deb:libc6-dev\"]", "libraries = [\"deb:musl-dev\"]");
    assert_eq!(
        instead,
        [
            "the shell of package `app`: + deb:musl-dev, - deb:libc6-dev",
            "package `app`: + deb:musl-dev, - deb:libc6-dev"
        ]
    );
}

/// A build needs what shells have no more than what they are not to have any longer.
#[test]
fn what_is_for_shells_alone_makes_no_lock_stale_for_builds() {
    let builds = |lock: &Lock, from: &str, to: &str| {
        let workspace = parse(&SPEC.replace(from, to)).unwrap_or_else(|errors| panic!("{errors}"));
        let whole = lock_is_current(&workspace, lock, LockScope::Whole);
        (whole.is_ok(), lock_is_current(&workspace, lock, LockScope::Builds))
    };
    let dev = "dev = [\"deb:gdb\"]";
    let mut lock = current_lock();
    let shell = lock
        .deb_sets
        .keys()
        .find(|set| set.contains(&"gdb".to_owned()))
        .cloned()
        .unwrap();
    let members = [&shell[..], &["libpython3".to_owned()]].concat();
    lock.debs.insert("libpython3".to_owned(), lock.debs["gdb"].clone());
    lock.deb_sets.insert(shell, members);
    assert_eq!(builds(&lock, dev, dev), (true, Ok(())));
    for other in [
        "",
        "dev = [\"deb:strace\"]",
        "dev = [\"deb:gdb\", \"deb:strace\"]",
        "dev = [\"plain\"]",
    ] {
        assert_eq!(builds(&lock, dev, other), (false, Ok(())), "{other}");
    }
    // What a build has is another matter.
    let (_, tool) = builds(
        &lock,
        dev,
        "dev = [\"deb:gdb\"]\n        env = {}\n        no-references = []",
    );
    assert_eq!(tool, Ok(()));
    let (_, tool) = builds(&lock, "tools = [\"deb:gcc\",", "tools = [\"deb:clang\", \"deb:gcc\",");
    assert_eq!(tool.unwrap_err(), ["package `app`: + deb:clang"]);
    let (_, tool) = builds(&lock, "tools = [\"deb:gcc\",", "tools = [");
    assert_eq!(tool.unwrap_err(), ["package `app`: - deb:gcc"]);
    // Nor may there be what nothing of the spec explains.
    lock.deb_sets.insert(vec!["old".to_owned()], Vec::new());
    let (_, old) = builds(&lock, dev, dev);
    assert_eq!(old.unwrap_err(), ["no longer needed: the resolution of `deb:old`"]);
}

/// The C library's locale is in a package on which nothing depends: that it is needed shows once the library is locked.
#[test]
fn the_locale_comes_with_the_library() {
    let mut lock = current_lock();
    let libc = |lock: &mut Lock, set: &[&str], more: &[&str]| {
        let set: Vec<String> = set.iter().map(|name| (*name).to_owned()).collect();
        let members = set.iter().cloned().chain(more.iter().map(|name| (*name).to_owned()));
        lock.deb_sets.insert(set.clone(), members.collect());
    };
    let needed = |text: &str, lock: &Lock| {
        let workspace = parse(text).unwrap_or_else(|errors| panic!("{errors}"));
        locked_sets(&workspace, lock).contains(&utf8_debs())
    };
    assert!(!needed(SPEC, &lock), "no image has the library");
    libc(&mut lock, &["nginx"], &["libc6"]);
    assert!(needed(SPEC, &lock));
    assert!(!needed(
        &SPEC.replace("[image.one]", "[image.one]\nutf-8 = false"),
        &lock
    ));
    assert!(!needed(
        &SPEC.replace("[image.one]", "[image.one]\nbase = 'oci:x'"),
        &lock
    ));
    libc(&mut lock, &["nginx"], &["libc6", "libc-bin"]);
    assert!(!needed(SPEC, &lock), "it is there");
    libc(&mut lock, &["nginx"], &[]);
    // What `lib` is built with may be in the image, what `bare` is may not.
    libc(&mut lock, &["dash", "make"], &["libc6"]);
    assert!(needed(SPEC, &lock));
    assert!(!needed(
        &SPEC.replace("contents = [\"app\"", "contents = [\"bare\""),
        &lock
    ));
}

#[test]
fn a_part_holds_what_it_needs_and_no_more() {
    let workspace = workspace();
    let names = |packages: &[&str], images: &[&str]| {
        let packages = packages.iter().map(|name| PackageName((*name).to_owned())).collect();
        let images = images.iter().map(|name| (*name).to_owned()).collect();
        let part = workspace.only(&packages, &images);
        let names = part
            .packages
            .keys()
            .map(ToString::to_string)
            .chain(part.images.into_keys());
        names.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(&[], &[]), "");
    assert_eq!(names(&["plain", "nope"], &[]), "plain");
    assert_eq!(names(&["lib"], &[]), "helper lib");
    assert_eq!(names(&[], &["one"]), "app helper lib plain one");
    assert_eq!(names(&["bare"], &["two"]), "bare two");
}

/// Wheels are installed alike whatever the package that asks for them has as tools.
#[test]
fn the_steps_of_a_language_have_a_set_of_their_own() {
    let text = "debian.base = [\"bash\"]\n[package.x]\nsource = { path = \".\" }\ntools = [\"deb:git\"]\npython = {}\n";
    let sets = deb_sets(&parse(text).unwrap_or_else(|errors| panic!("{errors}")));
    let sets: Vec<String> = sets.iter().map(|set| set.join(" ")).collect();
    assert_eq!(sets, ["bash git python3", "dash python3"]);
}

/// Debug files are locked where an archive has them, and that it has none makes no lock stale.
#[test]
fn debug_files_are_for_debug_images_and_needed_by_none() {
    let text = format!("{SPEC}\n        debug = true\n");
    let workspace = parse(&text).unwrap_or_else(|errors| panic!("{errors}"));
    let mut lock = lock_for(&workspace);
    let image = &workspace.images["two-debug"];
    let files: Vec<(String, String)> = debug_files(&workspace, &lock, image).into_iter().collect();
    let expected = [("bash", "bash-dbgsym"), ("zlib1g", "zlib1g-dbgsym")];
    assert_eq!(files, expected.map(|(name, files)| (name.to_owned(), files.to_owned())));
    assert!(debug_files(&workspace, &lock, &workspace.images["two"]).is_empty());
    let stale = |workspace: &Workspace, lock: &Lock| {
        lock_is_current(workspace, lock, LockScope::Whole)
            .err()
            .unwrap_or_default()
    };
    let about_debug = |workspace: &Workspace, lock: &Lock| {
        let lines = stale(workspace, lock).into_iter();
        lines.filter(|line| line.contains("dbgsym")).collect::<Vec<_>>()
    };
    assert_eq!(about_debug(&workspace, &lock), Vec::<String>::new());
    let deb = lock.debs["bash"].clone();
    lock.debs.insert("bash-dbgsym".to_owned(), deb);
    let set = vec!["bash-dbgsym".to_owned()];
    lock.deb_sets.insert(set.clone(), set);
    assert_eq!(about_debug(&workspace, &lock), Vec::<String>::new());
    // Who wants no debug image any more does not keep its files.
    assert!(!about_debug(&self::workspace(), &lock).is_empty());
}
