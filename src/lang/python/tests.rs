//! Tests of what lock files of Python come to, and of what in them is refused.

use super::*;
use crate::digest::Digest;
use crate::spec::LockedDeb;

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
    let error = plan_of("{}", &[("requirements.txt", "a==1 --hash=sha256:00\n")]).unwrap_err();
    assert!(error.contains("pylock.toml"), "{error}");
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
