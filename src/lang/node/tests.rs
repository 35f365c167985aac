//! Tests of lock files: what is laid out, and what of them is refused.

use std::collections::BTreeMap;

use crate::digest::Digest;
use crate::lang::tests::plan_with;
use crate::lang::{LanguageBuild, Registry};
use crate::spec::{GitCommit, Lock, LockedTree};

const SHA512: &str = "sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==";

/// A lock file with these entries beside the project's own, which depends on `a`.
fn lock(entries: &str) -> String {
    format!(
        "{{\"lockfileVersion\": 3, \"packages\": {{\n\"\": {{\"dependencies\": {{\"a\": \"1\"}}}},\n{}\n}}}}",
        entries.replace("HASH", &format!("\"integrity\": \"{SHA512}\""))
    )
}

const MANIFEST: &str = "{\"dependencies\": {\"a\": \"1\"}, \"scripts\": {\"build\": \"b\"}}";
const A: &str = "\"node_modules/a\": {\"version\": \"1.0.0\", \"resolved\": \"https://h.invalid/a.tgz\", HASH}";

fn plan(keys: &str, lock: &str) -> Result<LanguageBuild, String> {
    let pinned = Lock {
        architecture: Some("amd64".to_owned()),
        ..Lock::default()
    };
    let files = [
        ("package-lock.json", lock),
        ("package.json", MANIFEST),
        ("member/package.json", "{}"),
    ];
    plan_with(&format!("node = {{ {keys} }}"), &files, &pinned)
}

/// Where packages are laid, as the program is told.
fn places(build: &LanguageBuild) -> Vec<String> {
    let text = &build.own.preamble;
    let plan = text.lines().find(|line| line.starts_with("{\"name\"")).unwrap();
    let plan: serde_json::Value = serde_json::from_str(plan).unwrap();
    let packages = plan["packages"].as_array().unwrap().iter();
    packages
        .map(|package| package["at"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn every_tarball_is_a_file_from_outside_of_its_own() {
    let entries = format!(
        "{A},\n\"node_modules/@s/b\": {{\"version\": \"2.0.0-x.1\", HASH}},\n\
         \"node_modules/alias\": {{\"name\": \"a\", \"version\": \"1.0.0\", HASH}},\n\
         \"node_modules/a/node_modules/in\": {{\"version\": \"1.0.0\", \"inBundle\": true}},\n\
         \"member\": {{\"bin\": \"m.js\", \"name\": \"member\"}},\n\
         \"node_modules/member\": {{\"resolved\": \"member\", \"link\": true}}"
    );
    let build = plan("", &lock(&entries)).unwrap();
    let files: BTreeMap<_, _> = build
        .dependencies
        .iter()
        .map(|of| (of.name.as_str(), of.file.as_str()))
        .collect();
    assert_eq!(
        files,
        BTreeMap::from([("@s/b", "b-2.0.0-x.1.tgz"), ("a", "a-1.0.0.tgz")])
    );
    let expected = [
        "node_modules/@s/b",
        "node_modules/a",
        "node_modules/a/node_modules/in",
        "node_modules/alias",
        "node_modules/member",
    ];
    assert_eq!(places(&build), expected);
    assert!(build.steps.is_empty());
    assert_eq!(build.own.variables.len(), 2);
}

#[test]
fn what_is_not_wanted_is_left_out_with_what_nothing_else_needs() {
    let entries = format!(
        "{A},\n\"node_modules/dev\": {{\"version\": \"1.0.0\", \"dev\": true, HASH}},\n\
         \"node_modules/mac\": {{\"version\": \"1.0.0\", \"optional\": true, \"os\": [\"darwin\"], HASH,\n\
         \"dependencies\": {{\"deep\": \"1\", \"shared\": \"1\"}}}},\n\
         \"node_modules/deep\": {{\"version\": \"1.0.0\", \"optional\": true, HASH}},\n\
         \"node_modules/shared\": {{\"version\": \"1.0.0\", \"optional\": true, HASH}},\n\
         \"node_modules/musl\": {{\"version\": \"1.0.0\", \"optional\": true, \"libc\": \"musl\", HASH}},\n\
         \"node_modules/here\": {{\"version\": \"1.0.0\", \"optional\": true, \"cpu\": [\"x64\"], HASH,\n\
         \"dependencies\": {{\"shared\": \"1\"}}}}"
    );
    let text = lock(&entries);
    let names = |keys: &str| {
        let build = plan(keys, &text).unwrap();
        let names = places(&build)
            .into_iter()
            .map(|place| place.replace("node_modules/", ""));
        names.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(""), "a here shared");
    assert_eq!(names("omit = []"), "a dev here shared");
    assert_eq!(names("omit = [\"optional\"]"), "a dev");
    assert_eq!(names("build = \"build\""), "a dev here shared");
}

#[test]
fn install_scripts_are_a_step_for_those_that_are_named() {
    let entries = format!("{A},\n\"node_modules/made\": {{\"version\": \"1.0.0\", \"hasInstallScript\": true, HASH}}");
    let build = plan("scripts = [\"made\"]", &lock(&entries)).unwrap();
    assert_eq!(build.steps.len(), 1);
    assert!(
        build
            .own
            .preamble
            .contains("\"LAYERIZE_NODE_SCRIPTS\",\"below\":\"node_modules/made\"")
    );
    let unnamed = plan("", &lock(&entries)).unwrap();
    assert!(unnamed.steps.is_empty());
    for (keys, said) in [
        ("scripts = [\"gone\"]", "which is not among the packages"),
        ("scripts = [\"a\"]", "which has no install scripts"),
    ] {
        let error = plan(keys, &lock(&entries)).unwrap_err();
        assert!(
            error.contains(said) && error.contains("those that have some: made"),
            "{error}"
        );
    }
}

/// What `plan` says of a lock file is this, and what to do.
#[track_caller]
fn assert_refused(lock: &str, said: &str) {
    let error = plan("", lock).err().unwrap_or_else(|| panic!("{said}: taken"));
    assert!(error.contains(said) && error.contains("help:"), "{said}: {error}");
}

#[test]
fn what_cannot_be_used_is_told_with_what_to_do() {
    let with = |entry: &str| lock(&format!("{A},\n{entry}"));
    let package = |fields: &str| with(&format!("\"node_modules/b\": {{\"version\": \"1.0.0\", {fields}}}"));
    for (text, said) in [
        (
            "{\"lockfileVersion\": 1, \"dependencies\": {}}".to_owned(),
            "it is of version 1",
        ),
        ("{\"dependencies\": {}}".to_owned(), "npm 7 or newer"),
        (
            "{\"lockfileVersion\": 4, \"packages\": {}}".to_owned(),
            "it is of version 4",
        ),
        ("{".to_owned(), "`package-lock.json` cannot be read"),
        (with(A), "`node_modules/a` stands there twice"),
        (
            package("\"resolved\": \"https://h.invalid/b.tgz\""),
            "has no `integrity`",
        ),
        (
            package("\"integrity\": \"sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk=\""),
            "too weak to be one",
        ),
        (
            package("\"integrity\": \"sha512-AAAA\""),
            "the `integrity` of `b` 1.0.0 is none",
        ),
        (
            package("\"resolved\": \"git+ssh://git@h.invalid/b.git#0123\""),
            "the repository of `b` cannot be taken: its commit has not all its digits",
        ),
        (
            package(&format!(
                "\"resolved\": \"git+ssh://git@h.invalid/b.git#{}\"",
                "0123456789".repeat(4)
            )),
            "the git dependency `b` (`ssh://git@h.invalid/b.git`, commit 0123456",
        ),
        (
            package("\"resolved\": \"file:b.tgz\", HASH"),
            "`b` is the tarball `b.tgz`, and the source has no such file",
        ),
        (
            package("\"resolved\": \"file:../b.tgz\", HASH"),
            "is `file:../b.tgz`, which is no tarball in the project",
        ),
        (
            package("\"resolved\": \"file:member\", HASH"),
            "is `file:member`, which is no tarball in the project",
        ),
        (package("\"resolved\": \"s3://b\", HASH"), "comes from `s3://b`"),
        (
            package("\"cpu\": [\"arm64\"], HASH"),
            "is not for this platform (cpu = arm64)",
        ),
        (
            package("\"link\": true, \"resolved\": \"../outside\""),
            "which is outside the project",
        ),
        (
            package("\"link\": true, \"resolved\": \"gone\""),
            "the source has no such directory",
        ),
        (package("\"link\": true"), "leads nowhere"),
    ] {
        assert_refused(&text, said);
    }
}

#[test]
fn places_that_lead_elsewhere_and_stale_lock_files_are_told() {
    let with = |entry: &str| lock(&format!("{A},\n{entry}"));
    for (text, said) in [
        (
            with("\"node_modules/../../x\": {\"version\": \"1.0.0\", HASH}"),
            "this is no place in the project",
        ),
        (
            with("\"/etc/node_modules/x\": {\"version\": \"1.0.0\", HASH}"),
            "this is no place in the project",
        ),
        (
            with("\"node_modules/.bin\": {\"version\": \"1.0.0\", HASH}"),
            "`.bin` is no name of npm's",
        ),
        (
            with("\"node_modules/x/y\": {\"version\": \"1.0.0\", HASH}"),
            "`x/y` is no name of npm's",
        ),
        (
            with("\"node_modules/q/node_modules/x\": {\"version\": \"1.0.0\", HASH}"),
            "lies below `node_modules/q`",
        ),
        (
            with(
                "\"member\": {}, \"node_modules/m\": {\"link\": true, \"resolved\": \"member\"},\n\
                 \"node_modules/m/node_modules/x\": {\"version\": \"1.0.0\", HASH}",
            ),
            "it lies below a link",
        ),
        (
            with("\"node_modules/x\": {\"version\": \"1/../2\", HASH}"),
            "`1/../2` is no version",
        ),
        (
            lock(A).replace("\"1\"", "\"2\""),
            "`package.json` wants `a` 1, and it is locked for 2",
        ),
        (
            lock(A).replace("{\"a\": \"1\"}", "{}"),
            "`package.json` wants `a` 1, which is not locked",
        ),
        (
            lock(A).replace("{\"a\": \"1\"}", "{\"a\": \"1\", \"z\": \"1\"}"),
            "locked for `z`",
        ),
    ] {
        assert_refused(&text, said);
    }
}

#[test]
fn other_lock_files_and_scripts_that_are_not_there_are_told() {
    let error = plan("build = \"gone\"", &lock(A)).unwrap_err();
    assert!(
        error.contains("there is no script `gone`") && error.contains("its scripts are build"),
        "{error}"
    );
    for (file, said) in [
        ("yarn.lock", "lock files of yarn"),
        ("bun.lock", "no lock file that is known"),
    ] {
        let files = [(file, ""), ("package.json", MANIFEST)];
        let error = plan_with("node = {}", &files, &Lock::default()).unwrap_err();
        assert!(
            error.contains(said) && error.contains("npm install --package-lock-only"),
            "{error}"
        );
    }
    let error = plan_with("node = {}", &[("package.json", MANIFEST)], &Lock::default()).unwrap_err();
    assert!(error.contains("the source has no lock file"), "{error}");
}

const PNPM_MANIFEST: &str = r#"{"dependencies":{"web":"^1","member":"workspace:*"},"devDependencies":{"tool":"1"},
    "optionalDependencies":{"mac":"1"}}"#;

/// A lock file of pnpm's of version 9, with the entries of `packages` and `snapshots` that are given further.
fn pnpm_lock(packages: &str, snapshots: &str) -> String {
    let text = format!(
        "lockfileVersion: '9.0'\n\nsettings:\n  autoInstallPeers: true\n\nimporters:\n\n  .:\n    dependencies:\n\
        \x20     web:\n        specifier: ^1\n        version: 1.0.0(@s/peer@2.0.0)\n\
        \x20     member:\n        specifier: workspace:*\n        version: link:member\n\
        \x20   devDependencies:\n      tool:\n        specifier: '1'\n        version: 1.0.0\n\
        \x20   optionalDependencies:\n      mac:\n        specifier: '1'\n        version: 1.0.0\n\n\
        \x20 member:\n    dependencies:\n      alias:\n        specifier: npm:@s/peer@2\n        version: '@s/peer@2.0.0'\n\n\
        packages:\n\n  web@1.0.0:\n    resolution: {{HASH}}\n    hasBin: true\n    peerDependencies:\n      '@s/peer': '*'\n\
        \x20 '@s/peer@2.0.0':\n    resolution: {{HASH}}\n  tool@1.0.0:\n    resolution: {{HASH}}\n\
        \x20 mac@1.0.0:\n    resolution: {{HASH}}\n    os: [darwin]\n  only-mac@1.0.0:\n    resolution: {{HASH}}\n{packages}\n\
        snapshots:\n\n  web@1.0.0(@s/peer@2.0.0):\n    dependencies:\n      '@s/peer': 2.0.0\n  '@s/peer@2.0.0': {{}}\n\
        \x20 tool@1.0.0:\n    dependencies:\n      '@s/peer': 2.0.0\n  mac@1.0.0:\n    dependencies:\n      only-mac: 1.0.0\n\
        \x20   optional: true\n  only-mac@1.0.0:\n    optional: true\n{snapshots}"
    );
    text.replace("HASH", &format!("integrity: {SHA512}"))
}

fn plan_pnpm(keys: &str, lock: &str) -> Result<LanguageBuild, String> {
    let pinned = Lock {
        architecture: Some("amd64".to_owned()),
        ..Lock::default()
    };
    let files = [
        ("pnpm-lock.yaml", lock),
        ("package.json", PNPM_MANIFEST),
        ("member/package.json", "{}"),
    ];
    plan_with(&format!("node = {{ {keys} }}"), &files, &pinned)
}

#[test]
fn packages_of_pnpm_see_what_they_need_and_nothing_else() {
    let build = plan_pnpm("", &pnpm_lock("", "")).unwrap();
    let expected = [
        "member/node_modules/alias",
        "node_modules/.pnpm/@s+peer@2.0.0/node_modules/@s/peer",
        "node_modules/.pnpm/node_modules/@s/peer",
        "node_modules/.pnpm/node_modules/web",
        "node_modules/.pnpm/web@1.0.0_@s+peer@2.0.0/node_modules/@s/peer",
        "node_modules/.pnpm/web@1.0.0_@s+peer@2.0.0/node_modules/web",
        "node_modules/member",
        "node_modules/web",
    ];
    assert_eq!(places(&build), expected);
    let link = "\"at\":\"node_modules/web\",\"link\":\"node_modules/.pnpm/web@1.0.0_@s+peer@2.0.0/node_modules/web\"";
    assert!(build.own.preamble.contains(link), "{}", build.own.preamble);
    let with_dev = plan_pnpm("omit = []", &pnpm_lock("", "")).unwrap();
    let more: Vec<_> = places(&with_dev)
        .into_iter()
        .filter(|place| !expected.contains(&place.as_str()))
        .collect();
    assert_eq!(
        more,
        [
            "node_modules/.pnpm/node_modules/tool",
            "node_modules/.pnpm/tool@1.0.0/node_modules/@s/peer",
            "node_modules/.pnpm/tool@1.0.0/node_modules/tool",
            "node_modules/tool",
        ]
    );
}

#[test]
fn lock_files_of_pnpm_of_version_6_are_read_too() {
    let lock = format!(
        "lockfileVersion: '6.0'\n\ndependencies:\n  web:\n    specifier: ^1\n    version: 1.0.0(@s/peer@2.0.0)\n\
         \x20 member:\n    specifier: workspace:*\n    version: link:member\n\
         devDependencies:\n  tool:\n    specifier: '1'\n    version: 1.0.0\n\
         optionalDependencies:\n  mac:\n    specifier: '1'\n    version: /tool@1.0.0\n\n\
         packages:\n\n  /@s/peer@2.0.0:\n    resolution: {{integrity: {SHA512}}}\n    dev: false\n\n\
         \x20 /web@1.0.0(@s/peer@2.0.0):\n    resolution: {{integrity: {SHA512}}}\n    dependencies:\n      '@s/peer': 2.0.0\n\n\
         \x20 /tool@1.0.0:\n    resolution: {{integrity: {SHA512}}}\n    requiresBuild: true\n"
    );
    let build = plan_pnpm("scripts = [\"tool\"]", &lock).unwrap();
    assert!(places(&build).contains(&"node_modules/.pnpm/tool@1.0.0/node_modules/tool".to_owned()));
    assert_eq!((build.dependencies.len(), build.steps.len()), (3, 1));
    let error = plan_pnpm("scripts = [\"web\"]", &lock).unwrap_err();
    assert!(error.contains("`scripts` names"), "{error}");
}

const COMMIT: &str = "5a03d13c097e4c0eeec952a900bd79e1c43a629d";

/// Versions 9 and 6 name repositories otherwise, and hosts' tarballs as if they were published.
#[test]
fn packages_of_pnpm_may_be_of_repositories() {
    let url = format!("https://codeload.github.com/o/b/tar.gz/{COMMIT}");
    let (of_9, of_6) = (format!("b@{url}"), format!("github.com/o/b/{COMMIT}"));
    for (key, wanted) in [(&of_9, &url), (&of_6, &of_6)] {
        for resolution in [
            format!("tarball: '{url}'"),
            format!("type: git, repo: 'https://github.com/o/b.git', commit: {COMMIT}"),
            format!("type: git, repo: 'git+ssh://git@github.com/o/b.git', commit: {COMMIT}"),
        ] {
            let entry = format!("  {key}:\n    name: b\n    version: 1.2.3\n    resolution: {{{resolution}}}\n");
            let lock = pnpm_lock(&entry, &format!("  {key}: {{}}\n"));
            let lock = lock.replace("'@s/peer': 2.0.0\n  '@s", &format!("b: {wanted}\n  '@s"));
            let files = [
                ("pnpm-lock.yaml", &*lock),
                ("package.json", PNPM_MANIFEST),
                ("member/package.json", "{}"),
            ];
            let mut pins = Lock {
                architecture: Some("amd64".to_owned()),
                ..Lock::default()
            };
            let error = plan_with("node = {}", &files, &pins).unwrap_err();
            assert!(
                error.contains("`b` (`https://github.com/o/b.git`, commit 5a03d13c"),
                "{error}"
            );
            let tree = LockedTree {
                size: 1,
                nar_hash: Digest::of(b""),
            };
            pins.commits.insert(GitCommit::parse(COMMIT).unwrap(), tree);
            let build = plan_with("node = {}", &files, &pins).unwrap();
            let of_repository = build
                .dependencies
                .iter()
                .find(|dependency| dependency.name == "b")
                .unwrap();
            assert_eq!(of_repository.version, "1.2.3");
            assert!(matches!(&of_repository.registry, Registry::Git(tree) if tree.commit.as_str() == COMMIT));
        }
    }
}

/// A lock file with one more package, which `web` depends on.
fn with_package(key: &str, resolution: &str) -> String {
    let text = pnpm_lock(&format!("  {key}:\n    resolution: {{{resolution}}}\n"), "");
    text.replace(
        "'@s/peer': 2.0.0\n  '@s",
        &format!("b: {}\n  '@s", key.trim_start_matches("b@")),
    )
}

#[track_caller]
fn refuses_of_pnpm(text: &str, said: &str) {
    let error = plan_pnpm("", text)
        .err()
        .unwrap_or_else(|| panic!("{said}: taken:\n{text}"));
    assert!(error.contains(said) && error.contains("help:"), "{said}: {error}");
}

#[test]
fn what_cannot_be_used_of_pnpm_is_told_with_what_to_do() {
    let good = pnpm_lock("", "");
    for (text, said) in [
        (good.replace("'9.0'", "5.4"), "it is of version 5.4"),
        ("a: [".to_owned(), "`pnpm-lock.yaml` cannot be read"),
        (
            good.replace("specifier: ^1", "specifier: ^2"),
            "`package.json` wants `web` ^1, and it is locked for ^2",
        ),
        (good.replace("      web:\n", "      other:\n"), "which is not locked"),
        (
            good.replace("version: link:member", "version: link:../member"),
            "`../member` is outside the project",
        ),
        (
            good.replace("version: link:member", "version: link:gone"),
            "the source has no such directory",
        ),
        (
            good.replace("      '@s/peer': 2.0.0\n", "      '../x': 2.0.0\n"),
            "no name of npm's",
        ),
        (
            good.replace("      '@s/peer': 2.0.0\n", "      '@s/peer': 3.0.0\n"),
            "`3.0.0` is not among the packages",
        ),
        (
            with_package("b@1.0.0", "tarball: 'https://h.invalid/b.tgz'"),
            "has no `integrity`",
        ),
        (
            with_package("b@1.0.0", "integrity: sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk="),
            "too weak",
        ),
        (
            with_package("b@1.0.0", "directory: b, type: directory"),
            "is `file:b`, which is no tarball in the project",
        ),
        (
            good.replace(
                "  tool@1.0.0:\n    resolution",
                "  tool@1.0.0:\n    resolution: {}\n  tool@1.0.0:\n    resolution",
            ),
            "cannot be read",
        ),
    ] {
        refuses_of_pnpm(&text, said);
    }
}

#[test]
fn what_cannot_be_used_of_repositories_in_pnpm_s_lock_file_is_told() {
    for (text, said) in [
        (
            with_package("b@1.0.0", "type: git, repo: 'https://h.invalid/b.git', commit: 01"),
            "its commit has not all its digits",
        ),
        (
            with_package("b@1.0.0", &format!("type: git, repo: 'ext::sh -c x', commit: {COMMIT}")),
            "the repository of `b` cannot be taken",
        ),
        (
            with_package("b@1.0.0", "type: git, repo: 'https://h.invalid/b.git'"),
            "it names no commit",
        ),
        (
            with_package(
                "b@1.0.0",
                &format!("type: git, repo: 'https://h.invalid/b.git', commit: {COMMIT}, path: /b"),
            ),
            "is a directory of a repository",
        ),
        (
            with_package(
                "b@1.0.0",
                &format!("type: git, repo: 'https://h.invalid/b.git', commit: {COMMIT}"),
            ),
            "is not in the lock",
        ),
        (
            with_package(
                "b@https://h.invalid/b.git",
                &format!("type: git, repo: 'https://h.invalid/b.git', commit: {COMMIT}"),
            ),
            "is no version of `b`",
        ),
    ] {
        refuses_of_pnpm(&text, said);
    }
}
