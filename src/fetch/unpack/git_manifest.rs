//! A *manifest without its workspace*: what a `Cargo.toml` takes from the root of its workspace, written into it, as `cargo
//! package` does it.
//!
//! Invariant: what comes out says to Cargo what the manifest says beside its root; nothing in it has `workspace` any more.

use std::path::{Component, Path, PathBuf};

use toml::{Table, Value};

/// The tables of dependencies that a package has, as they are spelled.
const DEPENDENCIES: &[&str] = &[
    "dependencies",
    "dev-dependencies",
    "dev_dependencies",
    "build-dependencies",
    "build_dependencies",
];

/// Keys of a package that name a file beside the manifest that says them.
const FILES: &[&str] = &["readme", "license-file"];

/// The manifest of the directory `dir` with what it inherits from that of `root`, both as seen from one place.
///
/// # Errors
///
/// What is inherited and not there, as a text.
pub(super) fn without_workspace(
    manifest: &Table,
    dir: &Path,
    root_manifest: &Table,
    root: &Path,
) -> Result<Table, String> {
    let workspace = Workspace {
        table: root_manifest.get("workspace").and_then(Value::as_table),
        up: between(dir, root),
    };
    let mut own = manifest.clone();
    for key in ["package", "project"] {
        if let Some(package) = own.get_mut(key).and_then(Value::as_table_mut) {
            package.remove("workspace");
            workspace.complete_package(package)?;
        }
    }
    if own.get("lints").is_some_and(is_inherited) {
        own.insert("lints".to_owned(), workspace.get(&["lints"])?.clone());
    }
    workspace.complete_dependencies(&mut own)?;
    let targets = own.get_mut("target").and_then(Value::as_table_mut);
    for target in targets
        .into_iter()
        .flat_map(Table::iter_mut)
        .filter_map(|(_, of)| of.as_table_mut())
    {
        workspace.complete_dependencies(target)?;
    }
    Ok(own)
}

/// What the root of a workspace has for its members.
struct Workspace<'a> {
    table: Option<&'a Table>,
    /// The way to the root from the member's directory.
    up: PathBuf,
}

impl Workspace<'_> {
    fn get(&self, keys: &[&str]) -> Result<&Value, String> {
        let (last, tables) = keys.split_last().expect("there is a key");
        let mut table = self.table;
        for key in tables {
            table = table.and_then(|table| table.get(*key)?.as_table());
        }
        let found = table.and_then(|table| table.get(*last));
        found.ok_or_else(|| format!("`workspace.{}`, which it inherits, is not there", keys.join(".")))
    }

    fn complete_package(&self, package: &mut Table) -> Result<(), String> {
        for (key, value) in package.iter_mut().filter(|(_, value)| is_inherited(value)) {
            *value = match self.get(&["package", key])? {
                Value::String(file) if FILES.contains(&key.as_str()) => {
                    Value::String(self.up.join(file).to_string_lossy().into_owned())
                }
                other => other.clone(),
            };
        }
        Ok(())
    }

    fn complete_dependencies(&self, of: &mut Table) -> Result<(), String> {
        for key in DEPENDENCIES {
            let Some(table) = of.get_mut(*key).and_then(Value::as_table_mut) else {
                continue;
            };
            for (name, value) in table.iter_mut().filter(|(_, value)| is_inherited(value)) {
                let own = value.as_table().cloned().unwrap_or_default();
                *value = Value::Table(merged(self.get(&["dependencies", name])?, own));
            }
        }
        Ok(())
    }
}

/// Whether a value is that of the workspace: `workspace = true`.
fn is_inherited(value: &Value) -> bool {
    value.get("workspace").and_then(Value::as_bool) == Some(true)
}

/// A dependency of the workspace with what a member adds to it: features, that it is optional, and that the default features
/// are on where the workspace has them off (The Cargo Book, "Inheriting a dependency from a workspace"). Of its path only
/// the name of the key counts, as packages of a repository are found by their names.
fn merged(shared: &Value, own: Table) -> Table {
    let mut merged = match shared {
        Value::Table(table) => table.clone(),
        version => Table::from_iter([("version".to_owned(), version.clone())]),
    };
    for (key, value) in own {
        match (key.as_str(), value) {
            ("features", Value::Array(more)) => {
                let features = merged.entry("features").or_insert_with(|| Value::Array(Vec::new()));
                if let Some(features) = features.as_array_mut() {
                    features.extend(more);
                }
            }
            ("default-features" | "default_features", Value::Boolean(true)) => {
                merged.remove("default-features");
                merged.remove("default_features");
            }
            ("workspace" | "default-features" | "default_features", _) => {}
            (_, value) => drop(merged.insert(key, value)),
        }
    }
    merged
}

/// The way from one directory to another, both without dots.
fn between(from: &Path, to: &Path) -> PathBuf {
    let shared = from
        .components()
        .zip(to.components())
        .take_while(|(a, b)| a == b)
        .count();
    let up = from.components().skip(shared).map(|_| Component::ParentDir);
    up.chain(to.components().skip(shared)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "
        [workspace.package]
        version = \"1.2.0\"
        edition = \"2021\"
        readme = \"README.md\"
        [workspace.lints.rust]
        unused = \"allow\"
        [workspace.dependencies]
        plain = \"1\"
        lean = { version = \"2\", default-features = false, features = [\"a\"], package = \"other\" }
    ";

    fn complete(manifest: &str) -> Result<Table, String> {
        let table = |text: &str| -> Table { toml::from_str(text).unwrap() };
        without_workspace(&table(manifest), Path::new("a/x"), &table(ROOT), Path::new("a"))
    }

    #[test]
    fn what_is_inherited_is_written_out() {
        let own = complete(
            "
            package = { name = \"x\", version.workspace = true, edition.workspace = true, readme.workspace = true, workspace = \"..\" }
            lints.workspace = true
            dependencies.plain = { workspace = true, optional = true }
            dependencies.own = { version = \"3\", features = [\"f\"] }
            dev-dependencies.lean = { workspace = true, features = [\"b\"], default-features = false }
            target.'cfg(unix)'.build-dependencies.lean = { workspace = true, default-features = true }
            ",
        );
        let expected: Table = toml::from_str(
            "
            package = { name = \"x\", version = \"1.2.0\", edition = \"2021\", readme = \"../README.md\" }
            lints.rust.unused = \"allow\"
            dependencies.plain = { version = \"1\", optional = true }
            dependencies.own = { version = \"3\", features = [\"f\"] }
            dev-dependencies.lean = { version = \"2\", default-features = false, features = [\"a\", \"b\"], package = \"other\" }
            target.'cfg(unix)'.build-dependencies.lean = { version = \"2\", features = [\"a\"], package = \"other\" }
            ",
        )
        .unwrap();
        assert_eq!(own.unwrap(), expected);
    }

    #[test]
    fn what_the_root_does_not_have_is_told() {
        let error = complete("package = { name = \"x\", license.workspace = true }").unwrap_err();
        assert!(error.contains("`workspace.package.license`"), "{error}");
        let error = complete("dependencies.nope.workspace = true").unwrap_err();
        assert!(error.contains("`workspace.dependencies.nope`"), "{error}");
    }

    #[test]
    fn a_way_leads_from_one_directory_to_another() {
        for (from, to, way) in [
            ("a/x", "a", ".."),
            ("x", "", ".."),
            ("a/x/y", "b", "../../../b"),
            ("a", "a", ""),
        ] {
            assert_eq!(between(Path::new(from), Path::new(to)), Path::new(way), "{from} {to}");
        }
    }
}
