//! The starter of a Go project.

use super::compiled;
use crate::lang::ProjectSurvey;

/// What is built of a lock file, and by what.
const GO: &str =
    "# The modules of go.sum, Debian's Go, and `go build`: `layerize help languages` says more.\ngo = {}\n";

/// The package's part of the spec.
pub(super) fn package(name: &str, found: &ProjectSurvey) -> String {
    match &found.compiler {
        Some(release) => with_compiler(name, found, release),
        None => compiled(name, GO, found),
    }
}

/// The same with a release of Go's own, where Debian's may be too old.
fn with_compiler(name: &str, found: &ProjectSurvey, release: &str) -> String {
    let go = if name == "go" { "golang" } else { "go" };
    let architecture = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "amd64",
    };
    let language = format!(
        "# The modules of go.sum, and `go build`: `layerize help languages` says more. go.mod is for Go {release}; Debian's own is\n\
         # 1.19 in Debian 12 and 1.24 in Debian 13: where that is new enough, `go = {{}}` is all, and [package.{go}] can go.\n\
         go = {{ toolchain = \"{go}\" }}\n"
    );
    format!(
        "{}\n\
         # Go as it is released; `layerize lock` pins what is there. A mirror of yours will do as well.\n\
         [package.{go}]\n\
         source = {{ url = \"https://go.dev/dl/go{release}.linux-{architecture}.tar.gz\" }}\n",
        compiled(name, &language, found)
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::Starter;

    #[test]
    fn a_go_project_starts_the_program_of_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let c = "package main\n\n// #cgo linux LDFLAGS: -lm -lsqlite3\n// #cgo pkg-config: zlib\nimport \"C\"\n";
        for (path, text) in [
            ("go.mod", "module a.b/api/v2\n"),
            ("cmd/admin/main.go", "package main\n"),
            ("cmd/api/main.go", c),
            ("examples/one/one.go", "package main\n"),
            ("gen.go", "//go:build ignore\n\npackage main\n"),
            ("api.go", "package api\n"),
        ] {
            let file = dir.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let spec = Starter::of(dir.path(), Some("thing")).unwrap().spec();
        for part in [
            "go = {}",
            "libraries = [\"deb:libc6-dev\", \"deb:libsqlite3-dev\", \"deb:zlib1g-dev\"]",
            "# The others: admin, one.",
            "entrypoint = [\"api\"]",
        ] {
            assert!(spec.contains(part), "{part}: {spec}");
        }
        crate::spec::parse(&spec).unwrap_or_else(|error| panic!("{}", error.render(false)));
    }

    #[test]
    fn a_go_that_debian_may_not_have_is_pinned() {
        for (line, name, release) in [
            ("go 1.19", "thing", None),
            ("go 1.20", "thing", Some("go1.20.linux-")),
            ("go 1.22", "thing", Some("go1.22.0.linux-")),
            ("go 1.23.4", "go", Some("go1.23.4.linux-")),
        ] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("go.mod"), format!("module a.b/api\n\n{line}\n")).unwrap();
            fs::write(dir.path().join("main.go"), "package main\n").unwrap();
            let spec = Starter::of(dir.path(), Some(name)).unwrap().spec();
            let parsed = crate::spec::parse(&spec).unwrap_or_else(|error| panic!("{}", error.render(false)));
            assert_eq!(parsed.packages.len(), 1 + usize::from(release.is_some()), "{spec}");
            assert_eq!(spec.contains("toolchain = "), release.is_some(), "{spec}");
            assert!(release.is_none_or(|release| spec.contains(release)), "{spec}");
        }
    }
}
