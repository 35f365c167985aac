//! Tests of what lock files of Python come to, and of what in them is refused.

use super::super::{Form, Part, Registry, Surroundings};
use super::*;
use std::collections::BTreeSet;

use crate::digest::{Digest, FileHash};
use crate::spec::{LockedDeb, LockedPython, PackageName};

const SHA: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A lock of an interpreter and a C library, as Debian has them.
fn lock() -> Lock {
    let deb = |version: &str| LockedDeb {
        archive: None,
        version: version.to_owned(),
        architecture: "amd64".to_owned(),
        filename: "pool/x.deb".to_owned(),
        size: 1,
        sha256: Digest::of(b""),
        depends: Vec::new(),
        source: (String::new(), String::new()),
    };
    Lock {
        architecture: Some("amd64".to_owned()),
        debs: [("python3", "3.11.2-1+b1"), ("libc6", "2.36-9+deb12u14")]
            .map(|(name, version)| (name.to_owned(), deb(version)))
            .into(),
        ..Lock::default()
    }
}

/// What a package with this language comes to, over these files.
fn plan_of(python: &str, files: &[(&str, &str)]) -> Result<LanguageBuild, String> {
    plan_with(python, files, &lock())
}

fn plan_with(python: &str, files: &[(&str, &str)], lock: &Lock) -> Result<LanguageBuild, String> {
    crate::lang::tests::plan_with(&format!("python = {python}"), files, lock)
}

fn names(build: &LanguageBuild) -> Vec<String> {
    let dependencies = build.dependencies.iter();
    dependencies.map(|of| format!("{} {}", of.name, of.version)).collect()
}

fn wheel(file: &str) -> String {
    format!("{{ url = \"https://h.invalid/p/{file}\", hash = \"sha256:{SHA}\", size = 1 }}")
}

/// A package of a uv.lock from an index, with further lines.
fn entry(name: &str, version: &str, lines: &str) -> String {
    let file = format!("{name}-{version}-py3-none-any.whl");
    format!(
        "[[package]]\nname = \"{name}\"\nversion = \"{version}\"\nsource = {{ registry = \"https://h.invalid/simple\" }}\n\
         wheels = [{}]\n{lines}\n",
        wheel(&file)
    )
}

/// A uv.lock whose project has these lines.
fn uv(project: &str, entries: &[String]) -> String {
    format!(
        "version = 1\nrevision = 5\nrequires-python = \">=3.9\"\n\n[[package]]\nname = \"app\"\nversion = \"0.1\"\n\
         source = {{ editable = \".\" }}\n{project}\n\n{}",
        entries.join("\n")
    )
}

#[test]
fn a_uv_lock_is_followed_where_its_markers_hold() {
    let text = uv(
        "dependencies = [{ name = \"a\", extra = [\"fast\"] }, { name = \"old\", marker = \"python_full_version < '3.11'\" }, { name = \"forked\" }]\n\
         [package.optional-dependencies]\nextra = [{ name = \"e\" }]\n[package.dev-dependencies]\ndev_tools = [{ name = \"d\" }]",
        &[
            entry(
                "a",
                "1",
                "dependencies = [{ name = \"b\" }, { name = \"app\" }]\n[package.optional-dependencies]\nfast = [{ name = \"c\" }]",
            ),
            entry("b", "2", "dependencies = [{ name = \"a\" }]"),
            entry("c", "3", ""),
            entry("d", "4", ""),
            entry("e", "5", ""),
            entry("forked", "1", "resolution-markers = [\"python_full_version < '3.11'\"]"),
            entry(
                "forked",
                "2",
                "resolution-markers = [\"python_full_version >= '3.11'\"]",
            ),
            entry("old", "1", ""),
            entry("unneeded", "1", ""),
        ],
    );
    let files = [("uv.lock", text.as_str())];
    let build = plan_of("{}", &files).unwrap();
    assert_eq!(names(&build), ["a 1", "b 2", "c 3", "forked 2"]);
    assert_eq!(build.steps.len(), 4);
    assert_eq!(build.steps[0].name, "a-1");
    assert_eq!(
        build.steps[0].surroundings,
        Surroundings::Debs(vec!["dash".to_owned(), "python3".to_owned()])
    );
    // A wheel's step knows nothing of the others.
    assert_eq!(
        build.steps[0].recipe.variables,
        BTreeMap::from([("LAYERIZE_WHEEL".to_owned(), Part::Dependency(0))])
    );
    assert_eq!(build.own.variables["LAYERIZE_WHEEL_3"], Part::Step(3));
    let build = plan_of("{ groups = [\"Dev.Tools\"], extras = [\"extra\"] }", &files).unwrap();
    assert_eq!(names(&build), ["a 1", "b 2", "c 3", "d 4", "e 5", "forked 2"]);
    for (python, said) in [
        ("{ groups = [\"docs\"] }", "no group `docs`"),
        ("{ extras = [\"docs\"] }", "no extra `docs`"),
        ("{ project = \"other\" }", "no project `other`"),
        ("{ paths = [\"missing\"] }", "no directory `missing`"),
        ("{ paths = [\"../x\"] }", "not a path inside the source"),
        ("{ groups = [\"-x\"] }", "not a name"),
        ("{ lock = \"poetry.lock\" }", "no lock file"),
    ] {
        let error = plan_of(python, &files).unwrap_err();
        assert!(error.contains(said) && error.contains("help: "), "{python}: {error}");
    }
}

#[test]
fn the_members_of_a_workspace_are_installed_as_they_are() {
    let member = "[[package]]\nname = \"lib\"\nversion = \"1\"\nsource = { editable = \"packages/lib\" }\ndependencies = [{ name = \"a\" }]\n";
    let text = uv(
        "dependencies = [{ name = \"lib\" }]",
        &[member.to_owned(), entry("a", "1", "")],
    );
    let files = [
        ("uv.lock", text.as_str()),
        ("src/app/__init__.py", ""),
        (
            "pyproject.toml",
            "[project]\nname = \"app\"\nversion = \"0.1\"\nscripts = { serve = \"app:main\" }\n",
        ),
        ("packages/lib/src/lib/__init__.py", ""),
        (
            "packages/lib/pyproject.toml",
            "[project]\nname = \"lib\"\nversion = \"1\"\n",
        ),
    ];
    let build = plan_of("{}", &files).unwrap();
    assert_eq!(names(&build), ["a 1"]);
    for text in [
        "\"paths\":[\"src\"]",
        "\"paths\":[\"packages/lib/src\"]",
        "\"commands\":{\"serve\":\"app:main\"}",
    ] {
        assert!(build.own.preamble.contains(text), "{text}: {}", build.own.preamble);
    }
    let below = files.map(|(path, text)| (format!("backend/{path}"), text));
    let below: Vec<(&str, &str)> = below.iter().map(|(path, text)| (path.as_str(), *text)).collect();
    let build = plan_of("{ lock = \"backend/uv.lock\" }", &below).unwrap();
    assert!(build.own.preamble.contains("\"paths\":[\"backend/src\"]"));
    let outside = uv(
        "dependencies = [{ name = \"lib\" }]",
        &[member.replace("packages/lib", "../lib"), entry("a", "1", "")],
    );
    let error = plan_of("{}", &[("uv.lock", &outside)]).unwrap_err();
    assert!(error.contains("outside the source"), "{error}");
}

#[test]
fn what_cannot_be_installed_says_what_to_do() {
    let with = |entry: &str| uv("dependencies = [{ name = \"a\" }]", &[entry.to_owned()]);
    let of = |source: &str, files: &str| {
        with(&format!(
            "[[package]]\nname = \"a\"\nversion = \"1\"\nsource = {source}\n{files}\n"
        ))
    };
    let index = "{ registry = \"https://h.invalid/simple\" }";
    let sdist = format!("sdist = {{ url = \"https://h.invalid/a-1.tar.gz\", hash = \"sha256:{SHA}\" }}");
    let windows = format!("wheels = [{}]", wheel("a-1-cp311-cp311-win_amd64.whl"));
    for (text, said) in [
        (of(index, &sdist), "published as source alone"),
        (
            of(index, &windows),
            "none of the files of `a 1` is a wheel that runs here: `a-1-cp311-cp311-win_amd64.whl`",
        ),
        (
            of(index, "wheels = [{ url = \"https://h.invalid/a-1-py3-none-any.whl\" }]"),
            "has no hash",
        ),
        (
            of(
                index,
                "wheels = [{ url = \"https://h.invalid/a-1-py3-none-any.whl\", hash = \"md5:00\" }]",
            ),
            "neither a SHA-256 nor a SHA-512 (but `md5:00`)",
        ),
        (
            of(
                index,
                "wheels = [{ url = \"https://h.invalid/a-1-py3-none-any.whl\", hash = \"sha256:00\" }]",
            ),
            "the sha256 of `a-1-py3-none-any.whl` is none",
        ),
        (
            of(index, "wheels = [{ path = \"a-1-py3-none-any.whl\" }]"),
            "the machine that locked it",
        ),
        (
            of(index, "wheels = [{ url = \"https://h.invalid/..\" }]"),
            "does not end in the file's name",
        ),
        (of("{ git = \"https://h.invalid/a\" }", ""), "from git"),
        (of("{ url = \"https://h.invalid/a.whl\" }", ""), "an address of its own"),
        (of("{ path = \"a.whl\" }", ""), "a file of this machine"),
        (with(&entry("a", "1/../..", "")), "name or version holds"),
        (with(&entry("b", "1", "")), "`a` is needed and not locked"),
        (
            with(&format!("{}{}", entry("a", "1", ""), entry("a", "2", ""))),
            "in several versions",
        ),
        (
            uv(
                "dependencies = [{ name = \"a\", marker = \"python_version ~ '3'\" }]",
                &[entry("a", "1", "")],
            ),
            "the marker `python_version ~ '3'` cannot be understood",
        ),
    ] {
        let error = plan_of("{}", &[("uv.lock", &text)]).unwrap_err();
        assert!(error.contains(said) && error.contains("help: "), "{said}\n{error}");
    }
}

#[test]
fn a_lock_file_for_something_else_says_so() {
    for (text, said) in [
        ("version = 2\n".to_owned(), "version 2 of the lock file's format"),
        ("version = ".to_owned(), "cannot be read"),
        ("version = 1\n".to_owned(), "no project of its own"),
        (
            "version = 1\nrequires-python = \">=3.12\"\n".to_owned(),
            "for Python >=3.12",
        ),
        (
            "version = 1\nrequires-python = \"new\"\n".to_owned(),
            "no set of versions",
        ),
    ] {
        let error = plan_of("{}", &[("uv.lock", &text)]).unwrap_err();
        assert!(error.contains(said) && error.contains("help: "), "{said}\n{error}");
    }
    let error = plan_with("{}", &[("uv.lock", &uv("", &[]))], &Lock::default()).unwrap_err();
    assert!(error.contains("`deb:python3` is not in the lock"), "{error}");
}

#[test]
fn a_pylock_says_itself_what_is_installed() {
    let package = |name: &str, lines: &str| {
        format!(
            "[[packages]]\nname = \"{name}\"\nversion = \"1\"\n{lines}\nwheels = [{{ url = \"https://h.invalid/{name}-1-py3-none-any.whl\", hashes = {{ sha256 = \"{SHA}\" }} }}]\n"
        )
    };
    let head = "lock-version = \"1.0\"\ncreated-by = \"test\"\nrequires-python = \">=3.9\"\nextras = [\"fast\"]\ndependency-groups = [\"dev\", \"main\"]\ndefault-groups = [\"main\"]\n";
    let text = [
        head.to_owned(),
        package("a", ""),
        package("b", "marker = \"sys_platform == 'win32'\""),
        package("c", "marker = \"'fast' in extras\""),
        package("d", "marker = \"'dev' in dependency_groups\""),
        package("m", "marker = \"'main' in dependency_groups\""),
        "[[packages]]\nname = \"app\"\ndirectory = { path = \".\", editable = true }\n".to_owned(),
    ]
    .concat();
    let files = [("pylock.toml", text.as_str())];
    assert_eq!(names(&plan_of("{}", &files).unwrap()), ["a 1", "m 1"]);
    let all = plan_of("{ groups = [\"dev\"], extras = [\"fast\"] }", &files).unwrap();
    assert_eq!(names(&all), ["a 1", "c 1", "d 1", "m 1"]);
    for (text, said) in [
        ("lock-version = \"2.0\"\n".to_owned(), "version 2.0"),
        ("lock-version = \"1.0\"\n".to_owned(), "cannot be read"),
        (
            format!(
                "{head}environments = [\"sys_platform == 'win32'\"]\n{}",
                package("a", "")
            ),
            "for other environments",
        ),
        (
            format!("{head}{}{}", package("a", ""), package("a", "")),
            "in several versions",
        ),
        (
            format!("{head}{}", package("a", "requires-python = \">=3.13\"")),
            "for Python >=3.13",
        ),
        (
            format!("{head}[[packages]]\nname = \"a\"\nvcs = {{ type = \"git\", url = \"u\", commit-id = \"0\" }}\n"),
            "from a repository",
        ),
        (
            format!("{head}[[packages]]\nname = \"a\"\nversion = \"1\"\n"),
            "source alone",
        ),
        (format!("{head}[[packages]]\nname = \"a\"\n"), "has no version"),
    ] {
        let error = plan_of("{}", &[("pylock.toml", &text)]).unwrap_err();
        assert!(error.contains(said) && error.contains("help: "), "{said}\n{error}");
    }
    let error = plan_of("{ groups = [\"x\"] }", &files).unwrap_err();
    assert!(error.contains("without the group `x`"), "{error}");
}

/// A hash of these digits.
fn sha(digit: char) -> String {
    format!("--hash=sha256:{}", digit.to_string().repeat(64))
}

/// A lock that names files of projects.
fn pinning(files: &[(&str, &str, char)]) -> Lock {
    let pins = files.iter().map(|(name, file, digit)| {
        let pin = LockedPython {
            version: file.split('-').nth(1).unwrap().to_owned(),
            file: (*file).to_owned(),
            hash: FileHash::from_hex("sha256", &digit.to_string().repeat(64)).unwrap(),
        };
        ((PackageName("x".to_owned()), (*name).to_owned()), pin)
    });
    Lock {
        python: pins.collect(),
        ..lock()
    }
}

#[test]
fn requirements_are_read_as_pip_reads_them() {
    let main = format!(
        "\u{feff}# made by a tool\r\n-i https://index.invalid/simple # ours\n--require-hashes\n-r sub/more.txt\n-e .\n\
         A.b[fast] == 1.0 \\\n    {} \\\n    {} # two files\n    # via c\n\
         old==1 ; python_version < '3.11' {}\nc===2;sys_platform=='linux' --hash sha256:{}\n",
        sha('a'),
        sha('b'),
        sha('0'),
        "c".repeat(64)
    );
    let more = format!(
        "--requirement=../requirements.txt\n--extra-index-url https://more.invalid/simple\n-i https://index.invalid/simple\na-b==1 {} {}\n./libs/own\n",
        sha('b'),
        sha('d')
    );
    let files = [
        ("requirements.txt", main.as_str()),
        ("sub/more.txt", more.as_str()),
        ("libs/own/own.py", ""),
    ];
    let lock = pinning(&[
        ("a-b", "a_b-1.0-py3-none-any.whl", 'b'),
        ("c", "c-2-py3-none-any.whl", 'c'),
    ]);
    let build = plan_with("{}", &files, &lock).unwrap();
    assert_eq!(names(&build), ["a-b 1.0", "c 2"]);
    assert_eq!(build.dependencies[0].file, "a_b-1.0-py3-none-any.whl");
    let registry = Registry::Python {
        indexes: ["index", "more"]
            .map(|name| format!("https://{name}.invalid/simple"))
            .to_vec(),
        url: None,
    };
    assert_eq!(build.dependencies[0].registry, registry);
    assert!(
        build.own.preamble.contains("\"paths\":[\"libs/own\"]"),
        "{}",
        build.own.preamble
    );
    for (lock, what) in [
        (pinning(&[("c", "c-2-py3-none-any.whl", 'c')]), "none"),
        (
            pinning(&[("a-b", "a_b-1.0-py3-none-any.whl", 'a')]),
            "a hash that one of two lines has",
        ),
        (pinning(&[("a-b", "a_b-1.1-py3-none-any.whl", 'b')]), "another version"),
    ] {
        let error = plan_with("{}", &files, &lock).unwrap_err();
        assert!(error.contains("names no file of `a-b 1.0`"), "{what}: {error}");
        assert!(
            error.contains("`requirements.txt`, line 6") && error.contains("`layerize lock`"),
            "{what}: {error}"
        );
    }
}

#[test]
fn requirements_that_pin_nothing_are_refused_with_their_line() {
    let good = sha('a');
    let cases = [
        (format!("a>=1 {good}"), "not pinned to one version"),
        (format!("a {good}"), "not pinned to one version"),
        (format!("a==1.* {good}"), "not pinned to one version"),
        (format!("a==1,<2 {good}"), "not pinned to one version"),
        (format!("a=={} {good}", "$VERSION"), "not pinned to one version"),
        ("a==1".to_owned(), "it has no hash"),
        (
            format!("a==1 --hash=md5:{}", "0".repeat(32)),
            "neither a SHA-256 nor a SHA-512 (but `md5`)",
        ),
        ("a==1 --hash=sha256:00".to_owned(), "is not a hash"),
        (format!("a==1 --hash=go-h1:{}", "0".repeat(64)), "is not a hash"),
        (
            format!("a==1 {good} --global-option=x"),
            "`--global-option=x` is not followed",
        ),
        (format!("a==1 ; nothing == 'x' {good}"), "cannot be understood"),
        (
            format!("a @ https://h.invalid/a.whl {good}"),
            "not a project and its version",
        ),
        (
            format!("git+https://h.invalid/a {good}"),
            "not a directory of the source",
        ),
        (format!("../a {good}"), "not a directory of the source"),
        ("-e ../a".to_owned(), "not a directory of the source"),
        (
            "-e git+https://h.invalid/a#egg=a".to_owned(),
            "not a directory of the source",
        ),
        ("./a-1-py3-none-any.whl".to_owned(), "not a directory of the source"),
        ("-r https://h.invalid/r.txt".to_owned(), "on another machine"),
        ("-r ../r.txt".to_owned(), "the source has no file `../r.txt`"),
        ("-r /etc/passwd".to_owned(), "the source has no file `/etc/passwd`"),
        ("-c c.txt".to_owned(), "constraints are not followed"),
        ("-f wheels".to_owned(), "`-f` says where files are"),
        ("--no-index".to_owned(), "`--no-index` says where files are"),
        ("--no-binary=:all:".to_owned(), "`--no-binary` does not say"),
        ("--unheard-of".to_owned(), "`--unheard-of` is not known"),
        (format!("a==${{V}} {good}"), "`${V}` is a variable"),
        (
            format!("a==1 {good}\nA==2 {good}"),
            "version 2 here and 1 at `requirements.txt`, line 2",
        ),
        (
            format!("a==1 {good}\na==1.0 {}", sha('b')),
            "other hashes here than at `requirements.txt`, line 2",
        ),
    ];
    for (text, said) in cases {
        let line = 2 + text.matches('\n').count();
        let error = plan_of("{}", &[("requirements.txt", &format!("# first\n{text}\n"))]).unwrap_err();
        assert!(error.contains(said) && error.contains("help: "), "{text}\n{error}");
        assert!(
            error.contains(&format!("`requirements.txt`, line {line}")),
            "{text}\n{error}"
        );
    }
    for key in ["groups", "extras"] {
        let error = plan_of(&format!("{{ {key} = [\"x\"] }}"), &[("requirements.txt", "")]).unwrap_err();
        assert!(error.contains(&format!("have no `{key}`")), "{error}");
    }
    let error = plan_of("{ lock = \"poetry.lock\" }", &[("poetry.lock", "")]).unwrap_err();
    assert!(error.contains("no lock file of a known kind"), "{error}");
}

#[test]
fn the_best_file_that_requirements_allow_is_pinned() {
    let text = format!("a==1 {} {} {}\n", sha('a'), sha('b'), sha('c'));
    let workspace = crate::spec::parse("[package.x]\nsource = { path = \".\" }\npython = {}\n").unwrap();
    let package = workspace.packages.values().next().unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("requirements.txt"), text).unwrap();
    let (lock, source) = (lock(), SourceTree::new(dir.path().to_owned()));
    let request = Request {
        package,
        language: &package.language.as_ref().unwrap().value,
        lock: &lock,
        source: &source,
    };
    let [open] = open_projects(&request).unwrap().try_into().unwrap();
    let of = |digit: char| BTreeSet::from([FileHash::from_hex("sha256", &digit.to_string().repeat(64)).unwrap()]);
    let (a, b, c, other) = (of('a'), of('b'), of('c'), of('d'));
    let native = "a-1-cp311-cp311-manylinux_2_17_x86_64.whl";
    let listed = [
        ("a-1-py3-none-any.whl", &a),
        (native, &b),
        ("a-1-cp312-cp312-manylinux_2_17_x86_64.whl", &c),
        ("a-1-cp311-cp311-manylinux_2_36_x86_64.whl", &other),
    ];
    let pin = open.choose(&listed, "x").unwrap();
    assert_eq!((pin.file.as_str(), pin.version.as_str()), (native, "1"));
    assert!(open.is_settled_by(&pin));
    for wrong in [
        LockedPython {
            version: "2".to_owned(),
            ..pin.clone()
        },
        LockedPython {
            hash: *other.first().unwrap(),
            ..pin.clone()
        },
        LockedPython {
            file: listed[2].0.to_owned(),
            ..pin.clone()
        },
        LockedPython {
            file: "b-1-py3-none-any.whl".to_owned(),
            ..pin
        },
    ] {
        assert!(!open.is_settled_by(&wrong), "{wrong:?}");
    }
    let none = BTreeSet::new();
    for (files, said) in [
        (&listed[3..], "no file of `a 1` with one of its hashes"),
        (
            &[("a-1-py3-none-any.whl", &none)][..],
            "not all that are listed have one",
        ),
        (&listed[2..3], "none of the files of `a 1` is a wheel that runs here"),
        (&[("a-1.tar.gz", &a)][..], "published as source alone"),
    ] {
        let error = open.choose(files, "somewhere").unwrap_err();
        let shown = error.diagnostic(package);
        let shown = crate::spec::Diagnostics::new(vec![shown], workspace.files.clone()).render(false);
        assert!(
            shown.contains(said) && shown.contains("`requirements.txt`, line 1"),
            "{shown}"
        );
    }
}

#[test]
fn hostile_names_of_a_project_are_refused() {
    let text = uv("", &[]);
    for (toml, said) in [
        ("[project]\nname = \"a b\"\n", "the name `a b`"),
        ("[project]\nname = \"a\"\nversion = \"1\\n2\"\n", "the version"),
        (
            "[project]\nname = \"a\"\nscripts = { \"../x\" = \"a:b\" }\n",
            "the command `../x`",
        ),
        (
            "[project]\nname = \"a\"\nscripts = { x = \"os; os.exit\" }\n",
            "the object",
        ),
        ("[project]\nname = \"a\"\nscripts = { x = \"a\" }\n", "the object"),
        (
            "[project]\nname = \"a\"\n[project.entry-points.\"x]\\n[console_scripts\"]\na = \"b:c\"\n",
            "the entry point",
        ),
        ("[project\n", "cannot be read"),
    ] {
        let error = plan_of("{}", &[("uv.lock", &text), ("pyproject.toml", toml)]).unwrap_err();
        assert!(error.contains(said) && error.contains("help: "), "{toml}\n{error}");
    }
}

/// An entry of a uv.lock that has a source distribution, and wheels besides.
fn sdist_entry(name: &str, wheels: &str, lines: &str) -> String {
    format!(
        "[[package]]\nname = \"{name}\"\nversion = \"1\"\nsource = {{ registry = \"https://h.invalid/simple\" }}\n\
         sdist = {{ url = \"https://h.invalid/p/{}-1.tar.gz\", hash = \"sha256:{SHA}\" }}\nwheels = [{wheels}]\n{lines}\n",
        name.replace('-', "_")
    )
}

/// A uv.lock of a project that needs one project with a source distribution alone, and one with a wheel too.
fn lock_with_sdists() -> String {
    uv(
        "dependencies = [{ name = \"my-native\" }, { name = \"both\" }]\n[package.dev-dependencies]\nbuild = [{ name = \"backend\" }]",
        &[
            sdist_entry("my-native", "", ""),
            sdist_entry("both", &wheel("both-1-py3-none-any.whl"), ""),
            entry("backend", "2", "dependencies = [{ name = \"plugin\" }]"),
            entry("plugin", "3", ""),
        ],
    )
}

#[test]
fn a_source_distribution_is_built_with_what_is_declared() {
    let text = lock_with_sdists();
    let files = [("uv.lock", text.as_str())];
    let error = plan_of("{}", &files).unwrap_err();
    for said in [
        "`my-native 1` is published as source alone",
        "build = { \"my-native\" = ",
        "deb:python3-setuptools",
    ] {
        assert!(error.contains(said), "{said}: {error}");
    }
    let build = plan_of(
        "{ build = { My_Native = [\"pypi:Backend >= 2, <3\", \"deb:gcc\"] } }",
        &files,
    )
    .unwrap();
    let of: Vec<(&str, Form)> = build
        .dependencies
        .iter()
        .map(|of| (of.file.as_str(), of.form.clone()))
        .collect();
    let expected = [
        ("both-1-py3-none-any.whl", Form::Wheel),
        ("my_native-1.tar.gz", Form::Sdist),
        ("backend-2-py3-none-any.whl", Form::Wheel),
        ("plugin-3-py3-none-any.whl", Form::Wheel),
    ];
    assert_eq!(of, expected);
    let labels: Vec<&str> = build.steps.iter().map(|step| step.label.as_str()).collect();
    assert_eq!(
        labels,
        [
            "both 1",
            "backend 2",
            "plugin 3",
            "the wheel of my-native 1",
            "my-native 1"
        ]
    );
    let step = &build.steps[3];
    assert_eq!(step.source, Some(Part::Dependency(1)));
    let tools = [("LAYERIZE_WHEEL_0", Part::Step(1)), ("LAYERIZE_WHEEL_1", Part::Step(2))];
    assert_eq!(
        step.recipe.variables,
        tools.map(|(name, part)| (name.to_owned(), part)).into()
    );
    let Surroundings::Debs(debs) = &step.surroundings else {
        panic!()
    };
    assert!(
        ["dash", "gcc", "python3", "sed"]
            .iter()
            .all(|name| debs.iter().any(|deb| deb == name)),
        "{debs:?}"
    );
    assert_eq!(build.steps[4].recipe.variables["LAYERIZE_WHEEL"], Part::Step(3));
    // What builds is not part of what runs.
    let environment = &build.own.variables;
    assert_eq!(
        environment.values().copied().collect::<Vec<_>>(),
        [Part::Step(0), Part::Step(4)]
    );
}

#[test]
fn a_wheel_is_not_looked_at_where_the_project_is_to_be_built() {
    let text = lock_with_sdists();
    let files = [("uv.lock", text.as_str())];
    let build = plan_of(
        "{ build = { my-native = [], both = [\"deb:python3-setuptools\"] } }",
        &files,
    )
    .unwrap();
    assert!(build.dependencies.iter().all(|of| of.form == Form::Sdist), "{build:?}");
}

#[test]
fn what_cannot_be_built_so_is_told() {
    let text = lock_with_sdists();
    let files = [("uv.lock", text.as_str())];
    for (python, said) in [
        (
            "{ build = { my-native = [\"unknown\"] } }",
            "`unknown`, which `build` names, is not locked",
        ),
        ("{ build = { my-native = [\"my-native\"] } }", "built with itself"),
        (
            "{ build = { my-native = [\"both\"], both = [\"my-native\"] } }",
            "built with itself: for `both",
        ),
        (
            "{ build = { my-native = [], other = [] } }",
            "`other`, which `build` says how to build, is not installed",
        ),
        ("{ build = { my-native = [\"app\"] } }", "part of the source"),
        (
            "{ build = { my-native = [\"backend==69\"] } }",
            "`build` wants `backend==69`, and 2 is locked",
        ),
        (
            "{ build = { my-native = [\"backend==a\"] } }",
            "`==a`, which `build` wants of `backend`, is no set of versions",
        ),
        (
            "{ build = { my-native = [], backend = [\"deb:python3-setuptools\"] } }",
            "is not installed",
        ),
        (
            "{ build = { my-native = [\"plugin\"], plugin = [] } }",
            "`plugin 3` has no source distribution",
        ),
        (
            "{ build = { my-native = [\"setuptools==80; x\"] } }",
            "not a set of versions",
        ),
        ("{ build = { my-native = [\"deb:x=1\"] } }", "a version cannot be given"),
        ("{ build = { my-native = [], My_Native = [] } }", "named twice"),
        ("{ build = { \"../x\" = [] } }", "not a name"),
    ] {
        let error = plan_of(python, &files).unwrap_err();
        assert!(error.contains(said) && error.contains("help: "), "{python}: {error}");
    }
}
