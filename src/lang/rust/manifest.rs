//! A *manifest*: what one `Cargo.toml` says of targets, members and dependencies that are directories.
//!
//! Invariant: read leniently, as Cargo is the judge of it: what has another type than it should counts as not there.

use std::collections::BTreeMap;

use toml::{Table, Value};

use crate::lang::{LangError, read_toml};

/// The tables of dependencies that a package has, as they are spelled.
const DEPENDENCIES: &[&str] = &[
    "dependencies",
    "dev-dependencies",
    "dev_dependencies",
    "build-dependencies",
    "build_dependencies",
];

/// A `Cargo.toml`.
#[derive(Debug)]
pub(super) struct Manifest {
    table: Table,
}

/// A file that a manifest makes a target of.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TargetFile {
    /// What it is compiled to.
    pub(super) kind: TargetKind,
    /// Where it may be, relative to the manifest: the first that exists.
    pub(super) candidates: Vec<String>,
}

/// What becomes of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TargetKind {
    /// A library: needs no function.
    Library,
    /// A program, a build script among them: needs `main`.
    Program,
}

/// A dependency that is a directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PathDependency {
    pub(super) name: String,
    /// Relative to the manifest that says so.
    pub(super) path: String,
    /// Whether that is the workspace's manifest.
    pub(super) inherited: bool,
}

/// A dependency from a registry with a name of its own.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NamedRegistry {
    /// The dependency.
    pub(super) package: String,
    /// The registry.
    pub(super) registry: String,
}

impl Manifest {
    /// Reads the text of `file`.
    pub(super) fn parse(text: &str, file: &str) -> Result<Self, LangError> {
        let table = read_toml(text, file, "`cargo metadata` says what is wrong with it")?;
        Ok(Self { table })
    }

    /// Whether it is that of a package, and not of a workspace alone.
    pub(super) fn is_package(&self) -> bool {
        self.package().is_some()
    }

    /// What the package is called.
    pub(super) fn name(&self) -> Option<&str> {
        self.package()?.get("name")?.as_str()
    }

    /// The oldest compiler that it is for.
    pub(super) fn rust_version<'a>(&'a self, workspace: Option<&'a Self>) -> Option<&'a str> {
        let own = self.package()?.get("rust-version")?;
        match own.as_table() {
            Some(_) => workspace?.workspace()?.get("package")?.get("rust-version")?.as_str(),
            None => own.as_str(),
        }
    }

    /// The program that `cargo run` means, and those that the manifest names.
    pub(super) fn named_programs(&self) -> Vec<&str> {
        let default = self.package().and_then(|package| package.get("default-run")?.as_str());
        let named = self.table.get("bin").and_then(Value::as_array).into_iter().flatten();
        let named = named.filter_map(|program| program.get("name")?.as_str());
        default.into_iter().chain(named).collect()
    }

    /// Whether a program that the manifest names is `src/main.rs`.
    pub(super) fn has_own_main(&self) -> bool {
        let named = self.table.get("bin").and_then(Value::as_array).into_iter().flatten();
        let mut paths = named.filter_map(|program| program.get("path")?.as_str());
        paths.any(|path| path == "src/main.rs")
    }

    /// Whether it is the root of a workspace.
    pub(super) fn is_workspace(&self) -> bool {
        self.workspace().is_some()
    }

    /// The directory of the workspace's root, where the package names it.
    pub(super) fn workspace_path(&self) -> Option<&str> {
        self.package()?.get("workspace")?.as_str()
    }

    /// Patterns of the workspace's members.
    pub(super) fn members(&self) -> Vec<&str> {
        self.workspace()
            .map(|table| texts(table, "members"))
            .unwrap_or_default()
    }

    /// Directories that are no members.
    pub(super) fn excluded(&self) -> Vec<&str> {
        self.workspace()
            .map(|table| texts(table, "exclude"))
            .unwrap_or_default()
    }

    /// What it says as a workspace of how members are compiled. Which there are and what they depend on is left out: Cargo
    /// compares what came of that with what a unit was compiled with.
    pub(super) fn shared_text(&self) -> String {
        let kept = |table: &Table, keys: &[&str]| -> Table {
            let found = keys
                .iter()
                .filter_map(|key| Some(((*key).to_owned(), table.get(*key)?.clone())));
            found.collect()
        };
        let mut shared = kept(&self.table, &["cargo-features", "patch", "profile", "replace"]);
        if let Some(workspace) = self.workspace() {
            let keys = ["package", "lints", "resolver"];
            shared.insert("workspace".to_owned(), Value::Table(kept(workspace, &keys)));
        }
        shared.to_string()
    }

    /// The files that the package's targets need; those that Cargo would find by itself are all optional.
    pub(super) fn targets(&self) -> Vec<TargetFile> {
        let Some(package) = self.package() else {
            return Vec::new();
        };
        let name = self.name().unwrap_or_default();
        let mut targets = vec![
            library(self.table.get("lib").and_then(Value::as_table), name),
            program(vec!["src/main.rs".to_owned()]),
            program(vec![build_script(package)]),
        ];
        for (key, dir) in [
            ("bin", "src/bin"),
            ("example", "examples"),
            ("test", "tests"),
            ("bench", "benches"),
        ] {
            let declared = self.table.get(key).and_then(Value::as_array);
            let declared = declared.into_iter().flatten().filter_map(Value::as_table);
            targets.extend(declared.map(|target| declared_target(target, dir)));
        }
        targets
    }

    /// The dependencies that are directories, and those that replace others.
    pub(super) fn path_dependencies(&self, workspace: Option<&Self>) -> Vec<PathDependency> {
        let shared = workspace.map(Self::shared_paths).unwrap_or_default();
        let mut found = Vec::new();
        for (name, value) in self.dependencies() {
            let Some(dependency) = value.as_table() else { continue };
            let own = dependency.get("path").and_then(Value::as_str);
            let inherits = dependency.get("workspace").and_then(Value::as_bool) == Some(true);
            let inherited = shared.get(name.as_str()).copied().filter(|_| inherits);
            if let Some(path) = own.or(inherited) {
                found.push(PathDependency {
                    name: name.clone(),
                    path: path.to_owned(),
                    inherited: own.is_none(),
                });
            }
        }
        found
    }

    /// What the packages are called that this one depends on, and it itself.
    pub(super) fn package_names<'a>(&'a self, workspace: Option<&'a Self>) -> Vec<&'a str> {
        let shared = workspace.and_then(|root| root.workspace()?.get("dependencies")?.as_table());
        let dependencies = self.own_dependencies().into_iter().map(|(name, value)| {
            let shared = || shared?.get(name)?.get("package");
            let package = value.get("package").or_else(shared).and_then(Value::as_str);
            package.unwrap_or(name)
        });
        self.name().into_iter().chain(dependencies).collect()
    }

    /// The dependencies from registries that only the configuration knows.
    pub(super) fn named_registries(&self) -> Vec<NamedRegistry> {
        let workspace = self.workspace().and_then(|table| table.get("dependencies")?.as_table());
        let all = self.dependencies().into_iter().chain(workspace.into_iter().flatten());
        let named = all.filter_map(|(name, value)| {
            let package = value.get("package").and_then(Value::as_str).unwrap_or(name);
            Some(NamedRegistry {
                package: package.to_owned(),
                registry: value.get("registry")?.as_str()?.to_owned(),
            })
        });
        named.collect()
    }

    fn package(&self) -> Option<&Table> {
        let package = self.table.get("package").or_else(|| self.table.get("project"));
        package.and_then(Value::as_table)
    }

    fn workspace(&self) -> Option<&Table> {
        self.table.get("workspace").and_then(Value::as_table)
    }

    /// Paths of `workspace.dependencies`, by name.
    fn shared_paths(&self) -> BTreeMap<&str, &str> {
        let table = self.workspace().and_then(|table| table.get("dependencies")?.as_table());
        let paths = table.into_iter().flatten();
        paths
            .filter_map(|(name, value)| Some((name.as_str(), value.get("path")?.as_str()?)))
            .collect()
    }

    /// The dependencies, and what replaces others.
    fn dependencies(&self) -> Vec<(&String, &Value)> {
        let patches = self.table.get("patch").and_then(Value::as_table);
        let patches = patches.into_iter().flatten().filter_map(|(_, value)| value.as_table());
        let replaced = self.table.get("replace").and_then(Value::as_table);
        let own = self.own_dependencies().into_iter();
        own.chain(patches.chain(replaced).flatten()).collect()
    }

    fn own_dependencies(&self) -> Vec<(&String, &Value)> {
        let for_targets = self.table.get("target").and_then(Value::as_table);
        let for_targets = for_targets
            .into_iter()
            .flatten()
            .filter_map(|(_, value)| value.as_table());
        let tables = std::iter::once(&self.table).chain(for_targets);
        let tables = tables.flat_map(|table| DEPENDENCIES.iter().filter_map(|key| table.get(*key)?.as_table()));
        tables.flatten().collect()
    }
}

fn texts<'a>(table: &'a Table, key: &str) -> Vec<&'a str> {
    let list = table.get(key).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

fn program(candidates: Vec<String>) -> TargetFile {
    TargetFile {
        kind: TargetKind::Program,
        candidates,
    }
}

fn library(lib: Option<&Table>, package: &str) -> TargetFile {
    let own = lib.and_then(|lib| lib.get("path")?.as_str());
    let name = lib.and_then(|lib| lib.get("name")?.as_str()).unwrap_or(package);
    TargetFile {
        kind: TargetKind::Library,
        candidates: match own {
            Some(path) => vec![path.to_owned()],
            // The second is the edition of 2015's.
            None => vec!["src/lib.rs".to_owned(), format!("src/{name}.rs")],
        },
    }
}

fn build_script(package: &Table) -> String {
    let named = package.get("build").and_then(Value::as_str);
    named.unwrap_or("build.rs").to_owned()
}

fn declared_target(target: &Table, dir: &str) -> TargetFile {
    if let Some(path) = target.get("path").and_then(Value::as_str) {
        return program(vec![path.to_owned()]);
    }
    let name = target.get("name").and_then(Value::as_str).unwrap_or_default();
    let mut candidates = vec![format!("{dir}/{name}.rs"), format!("{dir}/{name}/main.rs")];
    if dir == "src/bin" {
        // The edition of 2015's.
        candidates.extend([format!("src/{name}.rs"), "src/bin/main.rs".to_owned()]);
    }
    program(candidates)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(text: &str) -> Manifest {
        Manifest::parse(text, "Cargo.toml").unwrap()
    }

    #[test]
    fn targets_are_where_the_manifest_says() {
        let text = r#"
            [package]
            name = "x"
            build = "make/build.rs"
            [lib]
            path = "lib/x.rs"
            [[bin]]
            name = "y"
            [[bench]]
            name = "z"
            path = "z.rs"
        "#;
        let targets = manifest(text).targets();
        let first = |index: usize| targets[index].candidates[0].as_str();
        assert_eq!(first(0), "lib/x.rs");
        assert_eq!(targets[0].kind, TargetKind::Library);
        assert_eq!(first(2), "make/build.rs");
        assert_eq!(targets[3].candidates[1], "src/bin/y/main.rs");
        assert_eq!(first(4), "z.rs");
        assert!(manifest("[workspace]\nmembers = [\"a\"]").targets().is_empty());
    }

    #[test]
    fn directories_are_found_in_every_table() {
        let root = manifest("[workspace.dependencies]\nshared = { path = \"shared\" }\nother = \"1\"");
        let text = r#"
            [package]
            name = "x"
            [dependencies]
            a = { path = "../a" }
            shared.workspace = true
            other.workspace = true
            wrong = 1
            [target.'cfg(unix)'.build-dependencies]
            b = { path = "b", version = "1" }
            [patch.crates-io]
            c = { path = "c" }
        "#;
        let found = manifest(text).path_dependencies(Some(&root));
        let paths: Vec<(&str, &str, bool)> = (found.iter())
            .map(|of| (of.name.as_str(), of.path.as_str(), of.inherited))
            .collect();
        assert_eq!(
            paths,
            [
                ("a", "../a", false),
                ("shared", "shared", true),
                ("b", "b", false),
                ("c", "c", false)
            ]
        );
    }
}
