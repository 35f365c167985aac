//! Tests of what Go projects come to, and of what in them is refused.

use crate::lang::tests::{plan_with, tree};
use crate::lang::{LanguageBuild, Part, SourceTree};
use crate::spec::{Lock, LockedDeb};

use super::project::GoProject;

const HASH: &str = "h1:Bs9G7ntMEWT+Eqzbmp96OpkKKuSUzzvyht2R+o5Grz4=";

fn plan(keys: &str, files: &[(&str, &str)]) -> Result<LanguageBuild, String> {
    plan_with(keys, files, &Lock::default())
}

/// Lines of a go.sum: a module's name with its version, and `+` where its zip has a hash too.
fn sum(modules: &[&str]) -> String {
    let line = |module: &&str| match module.strip_suffix('+') {
        Some(module) => format!("{module} {HASH}\n{module}/go.mod {HASH}\n"),
        None => format!("{module}/go.mod {HASH}\n"),
    };
    modules.iter().map(line).collect()
}

/// The files that are asked for.
fn files(build: &LanguageBuild) -> Vec<&str> {
    build.dependencies.iter().map(|file| file.file.as_str()).collect()
}

const OWN_GO_MOD: &str = "module own\ngo 1.19\nrequire (\n a.b/C v1.0.0\n a.b/tests v1.0.0 // indirect\n x.y/z v1.0.0\n l.m/n v0.0.0\n)\n\
                  replace x.y/z => x.y/fork v1.1.0\nreplace l.m/n => ./n\nreplace no.such => ../outside\n";

fn own_sum() -> String {
    sum(&[
        "a.b/C v1.0.0+",
        "a.b/tests v1.0.0",
        "a.b/old v0.9.0",
        "x.y/fork v1.1.0+",
        "own/old v1.0.0+",
    ])
}

/// A module that imports of others, of itself, and of one that stands for another.
fn own_source(go_sum: &str) -> [(&str, &str); 11] {
    [
        ("go.mod", OWN_GO_MOD),
        ("go.sum", go_sum),
        (
            "main.go",
            "package main\n\nimport (\n\t\"fmt\"\n\t\"a.b/C/d\"\n\t\"own/in\"\n)\n\nfunc main() { edited() }\n",
        ),
        ("main_test.go", "package main\n\nimport \"testing\"\n"),
        (
            "in/in_windows.go",
            "//go:build !cgo\n\npackage in\n\nimport \"C\"\nimport \"os\"\n",
        ),
        ("in/testdata/x.go", "package x\n\nimport \"net/http\"\n"),
        ("_off/x.go", "package x\n\nimport \"net/http\"\n"),
        ("other/go.mod", "module other\n"),
        ("other/x.go", "package x\n\nimport \"net/http\"\n"),
        ("n/go.mod", "module l.m/n\n"),
        ("n/n.go", "package n\n\nimport \"l.m/n/sub\"\nimport \"strings\"\n"),
    ]
}

#[test]
fn a_module_takes_what_its_go_mod_names() {
    let go_sum = own_sum();
    let source = own_source(&go_sum);
    let build = plan(
        "go = { packages = [\"./cmd/it\"], tags = [\"a\", \"b\"], ldflags = \"-X 'm.v=1'\" }",
        &source,
    )
    .unwrap();
    assert_eq!(
        files(&build),
        [
            "a.b-C-v1.0.0.zip",
            "x.y-fork-v1.1.0.zip",
            "a.b-C-v1.0.0.mod",
            "a.b-tests-v1.0.0.mod",
            "x.y-fork-v1.1.0.mod",
        ]
    );
    let mounts: Vec<(&str, Part)> = build.own.mounts.iter().map(|of| (of.at.as_str(), of.part)).collect();
    assert_eq!(
        mounts,
        [
            ("/build/modcache/a.b/!c@v1.0.0", Part::Dependency(0)),
            ("/build/modcache/x.y/fork@v1.1.0", Part::Dependency(1)),
        ]
    );
    assert_eq!(build.own.variables["LAYERIZE_GO_MOD_0"], Part::Dependency(2));
    for text in [
        "cd '/build/source' && exec go build -ldflags '-X '\\''m.v=1'\\''' \"$@\" './cmd/it'\n",
        "-tags=a,b",
        "-mod=readonly",
        "export GOWORK=off",
    ] {
        assert!(build.own.preamble.contains(text), "{text}: {}", build.own.preamble);
    }
}

#[test]
fn what_is_compiled_before_knows_of_imports_and_of_nothing_else() {
    let go_sum = own_sum();
    let source = own_source(&go_sum);
    let build = plan("go = {}", &source).unwrap();
    let tree: Vec<&str> = build.trees[0].files.keys().map(String::as_str).collect();
    assert_eq!(
        tree,
        ["go.mod", "go.sum", "in/in_windows.go", "main.go", "n/go.mod", "n/n.go"]
    );
    let library = &build.steps[0].recipe.script;
    assert!(
        library.contains("\nlayerize_imports='fmt os runtime strings'\n"),
        "{library}"
    );
    let edited = source.map(|(path, text)| match path {
        "main.go" => (path, text.replace("edited()", "again()")),
        _ => (path, text.to_owned()),
    });
    let edited: Vec<(&str, &str)> = edited.iter().map(|(path, text)| (*path, text.as_str())).collect();
    assert_eq!(plan("go = {}", &edited).unwrap(), build);
    let whole = plan("go = { incremental = false }", &source).unwrap();
    assert!(whole.steps.is_empty() && whole.trees.is_empty());
}

#[test]
fn before_go_1_17_and_in_workspaces_all_that_is_pinned_is_taken() {
    let go_sum = sum(&["a.b/c v1.0.0+", "d.e/f v1.0.0+", "d.e/f v0.9.0"]);
    let all = [
        "a.b-c-v1.0.0.zip",
        "d.e-f-v1.0.0.zip",
        "a.b-c-v1.0.0.mod",
        "d.e-f-v0.9.0.mod",
        "d.e-f-v1.0.0.mod",
    ];
    for go in ["go 1.16\n", ""] {
        let go_mod = format!("module own\n{go}require a.b/c v1.0.0\n");
        let build = plan("go = {}", &[("go.mod", &go_mod), ("go.sum", &go_sum)]).unwrap();
        assert_eq!(files(&build), all, "{go}");
    }
    let work_sum = sum(&["w.x/y v1.0.0"]);
    let source = [
        ("go.work", "go 1.19\nuse ./svc\nuse ./lib\n"),
        ("go.work.sum", &work_sum),
        (
            "svc/go.mod",
            "module m/svc\ngo 1.19\nrequire (\n a.b/c v1.0.0\n m/lib v1.0.0\n)\n",
        ),
        ("svc/go.sum", &go_sum),
        ("svc/cmd/main.go", "package main\nimport \"m/lib\"\nimport \"io\"\n"),
        ("lib/go.mod", "module m/lib\ngo 1.19\n"),
        ("lib/lib.go", "package lib\nimport \"os\"\n"),
    ];
    for (keys, dir, packages) in [
        ("go = {}", "/build/source", "'./lib/...' './svc/...'"),
        (
            "go = { lock = \"go.work.sum\" }",
            "/build/source",
            "'./lib/...' './svc/...'",
        ),
        ("go = { lock = \"svc/go.sum\" }", "/build/source/svc", "'./...'"),
    ] {
        let build = plan(keys, &source).unwrap();
        assert_eq!(
            files(&build)[2..],
            [
                "a.b-c-v1.0.0.mod",
                "d.e-f-v0.9.0.mod",
                "d.e-f-v1.0.0.mod",
                "w.x-y-v1.0.0.mod"
            ]
        );
        let command = format!("cd '{dir}' && exec go build \"$@\" {packages}\n");
        let preamble = &build.own.preamble;
        assert!(
            preamble.contains(&command) && preamble.contains("GOWORK='/build/source/go.work'"),
            "{preamble}"
        );
        assert!(build.steps[0].recipe.script.contains("'io os runtime'"));
    }
    // A module beside the workspace is built by itself.
    let mut beside = source.to_vec();
    beside.extend([
        ("tool/go.mod", "module m/tool\ngo 1.19\n"),
        ("tool/main.go", "package main\n"),
    ]);
    let build = plan("go = { lock = \"tool/go.sum\" }", &beside).unwrap();
    assert!(build.dependencies.is_empty() && build.own.preamble.contains("GOWORK=off"));
}

#[test]
fn what_is_vendored_is_taken_as_it_is() {
    let source = |go: &'static str| {
        [
            ("go.mod", go),
            ("main.go", "package main\nimport \"a.b/c\"\n"),
            ("vendor/modules.txt", "# a.b/c v1.0.0\n## explicit\na.b/c\n"),
            ("vendor/a.b/c/c.go", "package c\n"),
        ]
    };
    let go_mod = "module own\ngo 1.14\nrequire a.b/c v1.0.0\n";
    let build = plan("go = {}", &source(go_mod)).unwrap();
    assert!(build.dependencies.is_empty() && build.own.preamble.contains("-mod=vendor"));
    assert!(build.vendored.is_empty());
    // What it is of is known by `go.sum`.
    let go_sum = sum(&["a.b/c v1.0.0+", "d.e/f v1.0.0+"]);
    let mut files = source(go_mod).to_vec();
    files.push(("go.sum", &go_sum));
    let build = plan("go = {}", &files).unwrap();
    let names: Vec<&str> = build.vendored.iter().map(|of| of.name.as_str()).collect();
    assert_eq!((names, build.dependencies.len()), (vec!["a.b/c"], 0));
    let error = plan("go = {}", &source("module own\ngo 1.13\nrequire a.b/c v1.0.0\n")).unwrap_err();
    assert!(error.contains("has no `go.sum`"), "{error}");
}

#[test]
fn what_cannot_be_built_is_told_before_anything_is_fetched() {
    let good = sum(&["a.b/c v1.0.0+"]);
    let require = "module own\ngo 1.19\nrequire a.b/c v1.0.0\n";
    for (keys, go_mod, go_sum, said) in [
        ("go = {}", require, None, "the source has no `go.sum`"),
        ("go = {}", require, Some(""), "`go.sum` has no hashes of `a.b/c v1.0.0`"),
        ("go = {}", require, Some("a.b/c v1.0.0 h1:x\n"), "line 1"),
        (
            "go = {}",
            "module own\nrequire a.b/c v1.0.0 x\n",
            Some(&good[..]),
            "`go.mod`, line 2",
        ),
        (
            "go = {}",
            "module own\ngo 1.19\nrequire a.b/c v1.0.0\nreplace a.b/c => ../c\n",
            Some(&good[..]),
            "replaced by `../c`, which is outside the source",
        ),
        (
            "go = {}",
            "module own\ngo 1.19\nrequire a.b/c v1.0.0\nreplace a.b/c => ./c\n",
            Some(&good[..]),
            "replaced by `./c`, where there is no `go.mod`",
        ),
        (
            "go = { lock = \"x/go.sum\" }",
            require,
            None,
            "the source has no `x/go.mod`",
        ),
        (
            "go = { lock = \"lock.sum\" }",
            require,
            None,
            "no lock file of another name",
        ),
        (
            "go = { packages = [\"../x\"] }",
            require,
            None,
            "not a package of the module",
        ),
        ("go = { tags = [\"a b\"] }", require, None, "not a build tag"),
    ] {
        let mut files = vec![("go.mod", go_mod)];
        files.extend(go_sum.map(|text| ("go.sum", text)));
        let error = plan(keys, &files).unwrap_err();
        assert!(error.contains(said), "{said}: {error}");
    }
    let work = [("go.work", "go 1.19\nuse ../lib\n"), ("x.go", "package x\n")];
    let error = plan("go = {}", &work).unwrap_err();
    assert!(error.contains("uses `../lib`, which is outside the source"), "{error}");
}

#[test]
fn what_is_imported_is_in_the_module_files_where_it_is_built_anywhere() {
    let good = sum(&["a.b/c v1.0.0+", "r.s/fork v1.0.0"]);
    let go_mod = "module own\ngo 1.19\nrequire (\n a.b/c v1.0.0\n r.s/t v1.0.0\n l.m/n v1.0.0\n)\n\
                  replace r.s/t => r.s/fork v1.0.0\nreplace l.m/n => ./n\n";
    let none = "which no module of its `go.mod` has";
    for (keys, file, head, said) in [
        ("", "main.go", "import \"a.b/c/d\"", ""),
        ("", "main.go", "import (\n\"own/x\"\n\"l.m/n/o\"\n\"fmt\"\n)", ""),
        ("", "main.go", "import \"a.b/cc\"", none),
        (
            "",
            "x/y.go",
            "import \"x.y/z\"",
            "`x/y.go` imports `x.y/z`, which no module",
        ),
        (
            "",
            "main.go",
            "import \"r.s/t/u\"",
            "imports `r.s/t/u`, and `go.sum` has no hash of `r.s/t v1.0.0`",
        ),
        // Nothing of it may be built here.
        ("", "x_windows.go", "import \"x.y/z\"", ""),
        ("", "main.go", "// #include <x.h>\nimport \"C\"\nimport \"x.y/z\"", ""),
        ("", "n/n.go", "import \"x.y/z\"", ""),
        ("packages = [\"./cmd\"]", "main.go", "import \"x.y/z\"", ""),
        ("packages = [\".\"]", "main.go", "import \"x.y/z\"", none),
        ("packages = [\"./cmd/...\"]", "cmd/a/main.go", "import \"x.y/z\"", none),
        ("packages = [\"own/cmd\"]", "cmd/main.go", "import \"x.y/z\"", ""),
    ] {
        let text = format!("package x\n\n{head}\n");
        let files = [
            ("go.mod", go_mod),
            ("go.sum", &good),
            ("n/go.mod", "module l.m/n\n"),
            (file, &text),
        ];
        match plan(&format!("go = {{ {keys} }}"), &files) {
            Ok(_) => assert_eq!(said, "", "{head}"),
            Err(error) => assert!(
                !said.is_empty() && error.contains(said) && error.contains("go mod tidy"),
                "{head}: {error}"
            ),
        }
    }
    let tagged = "//go:build tools\n\npackage x\n\nimport \"x.y/z\"\n";
    let files = [("go.mod", "module own\ngo 1.19\n"), ("main.go", tagged)];
    plan("go = {}", &files).unwrap();
    // Before Go 1.17, what others require need not be named.
    let files = [
        ("go.mod", "module own\ngo 1.16\n"),
        ("go.sum", &good),
        ("main.go", "package main\nimport \"a.b/c\"\n"),
    ];
    plan("go = {}", &files).unwrap();
}

#[test]
fn go_is_as_new_as_the_source_asks() {
    let locked = LockedDeb {
        version: "2:1.19~1".to_owned(),
        architecture: "amd64".to_owned(),
        filename: "pool/g.deb".to_owned(),
        size: 1,
        sha256: crate::digest::Digest::of(b""),
        archive: None,
        depends: Vec::new(),
        source: ("golang-defaults".to_owned(), "2:1.19~1".to_owned()),
    };
    let lock = Lock {
        debs: [("golang-go".to_owned(), locked)].into(),
        ..Lock::default()
    };
    for (keys, go, is_wrong) in [
        ("go = {}", "1.19", false),
        ("go = {}", "1.19.8", false),
        ("go = {}", "1.20", true),
        ("go = {}", "1.21.0", true),
        ("go = { toolchain = \"deb:newer\" }", "1.21.0", false),
    ] {
        let go_mod = format!("module own\ngo {go}\n");
        let planned = plan_with(keys, &[("go.mod", &go_mod)], &lock);
        match planned {
            Ok(_) => assert!(!is_wrong, "{go}"),
            Err(error) => assert!(
                is_wrong && error.contains("`deb:golang-go` is Go 1.19") && error.contains("toolchain"),
                "{error}"
            ),
        }
    }
    let go_mod = ("go.mod", "module own\ngo 1.21\n");
    let error = plan_with("go = {}", &[go_mod], &lock).unwrap_err();
    for part in ["`\"deb:golang-1.21-go\"`", "/go1.21.0.linux-amd64.tar.gz"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn a_directory_of_links_does_not_lead_in_circles() {
    let (dir, source) = tree(&[("go.mod", "module own\n"), ("a/a.go", "package a\n")]);
    std::os::unix::fs::symlink("..", dir.path().join("a/up")).unwrap();
    let source: &SourceTree = &source;
    let project = GoProject::read(source, "").unwrap();
    let files = project.own_files().unwrap();
    assert_eq!(files.len(), 1);
    assert_eq!(project.import_path("a").as_deref(), Some("own/a"));
}
