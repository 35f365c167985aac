//! The starter of a Go project.

use super::compiled;
use crate::lang::ProjectSurvey;

/// What is built of a lock file, and by what.
const GO: &str =
    "# The modules of go.sum, Debian's Go, and `go build`: `layerize help languages` says more.\ngo = {}\n";

/// The package's part of the spec.
pub(super) fn package(name: &str, found: &ProjectSurvey) -> String {
    compiled(name, GO, found)
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
}
