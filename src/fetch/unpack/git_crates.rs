//! *Crates of a repository*: the packages of a commit's tree, laid out as Cargo wants them in a directory source.
//!
//! Invariant: a package is where it was in its repository, with all that is around it, so that what it takes from there is
//! found; Cargo finds it, and no other package of the tree, by a link. The tree is hostile: no symlink of it is followed.
//!
//! The output, for packages `foo` and `bar` of a workspace:
//!
//! ```text
//! .tree/                                the commit's tree; Cargo passes over names that begin with a dot
//! .tree/crates/foo/.cargo-checksum.json as directory sources must have it
//! foo-1.2.0 -> .tree/crates/foo
//! bar-0.1.0 -> .tree/crates/bar
//! Cargo.toml                            what packages inherit from: the tables of the workspace's root that say it
//! ```
//!
//! Cargo looks for the root above a package's link, where there is room for one. The manifests of packages that inherit from
//! another root, or that name theirs by a path, are written anew with what they inherit.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use toml::{Table, Value};

use super::git_manifest::without_workspace;
use super::{UnpackError, named};
use crate::derive::CrateName;
use crate::fetch::FetchError;
use crate::fetch::git::restore_archive;
use crate::fsio::{self, IoContext};

/// What a manifest is called.
const MANIFEST: &str = "Cargo.toml";

/// Where the tree is in the output.
const TREE: &str = ".tree";

/// Largest manifest that is read, in bytes; larger ones are none.
const MANIFEST_MAX: u64 = 4 << 20;

/// How deep manifests are looked for.
const DEPTH_MAX: usize = 32;

/// What of a workspace's root its members can inherit, and what decides how they are read.
const INHERITABLE: &[&str] = &["package", "dependencies", "lints", "resolver"];

/// What stands in the place of the checksums of a crate's files: there are none.
const NO_CHECKSUMS: &str = "{\"files\":{},\"package\":null}";

/// Restores the archive of a commit's tree to `dest`, a new directory, with a link for each of `wanted`; `name` is what
/// messages call the archive.
///
/// # Errors
///
/// An archive that is none, a package that the tree does not have, or that inherits what is not there.
pub fn unpack_git_crates(archive: &Path, name: &str, wanted: &[CrateName], dest: &Path) -> Result<(), FetchError> {
    fs::create_dir(dest).context("create directory", dest)?;
    restore_archive(archive, name, &dest.join(TREE))?;
    lay_out(wanted, dest).map_err(|error| named(name, error))
}

fn lay_out(wanted: &[CrateName], dest: &Path) -> Result<(), UnpackError> {
    let tree = dest.join(TREE);
    let manifests = Manifests::find(&tree)?;
    let mut above: Option<&Path> = None;
    for of in wanted {
        let dir = manifests.package(of)?;
        if let Some(root) = manifests.inherited_root(of, dir)? {
            let is_found = manifests.looks_above(dir) && *above.get_or_insert(root) == root;
            if !is_found {
                write(&tree.join(dir).join(MANIFEST), &manifests.complete(of, dir, root)?)?;
            }
        }
        let checksum = tree.join(dir).join(".cargo-checksum.json");
        fsio::remove_tree(&checksum)?;
        write(&checksum, NO_CHECKSUMS)?;
        let link = dest.join(format!("{}-{}", of.name, of.version));
        let target: PathBuf = Path::new(TREE).components().chain(dir.components()).collect();
        symlink(&target, &link).context("create the symlink", &link)?;
    }
    match above.and_then(|root| manifests.inheritable(root)) {
        Some(text) => write(&dest.join(MANIFEST), &text),
        None => Ok(()),
    }
}

/// The manifests of a tree, by their directories.
struct Manifests(BTreeMap<PathBuf, Table>);

impl Manifests {
    /// Finds them as Cargo does: not in hidden directories, and not where it builds.
    fn find(tree: &Path) -> Result<Self, UnpackError> {
        let mut found = Self(BTreeMap::new());
        let mut waiting = vec![PathBuf::new()];
        while let Some(dir) = waiting.pop() {
            let physical = tree.join(&dir);
            let manifest = physical.join(MANIFEST);
            let metadata = fs::symlink_metadata(&manifest).ok();
            let is_read = metadata.is_some_and(|metadata| metadata.is_file() && metadata.len() <= MANIFEST_MAX);
            if is_read {
                let text = fs::read(&manifest).context("read", &manifest)?;
                // One that is not well-formed is that of a test, or Cargo will say what is wrong with it.
                let table = std::str::from_utf8(&text)
                    .ok()
                    .and_then(|text| toml::from_str(text).ok());
                found.0.extend(table.map(|table| (dir.clone(), table)));
            }
            if dir.components().count() >= DEPTH_MAX {
                continue;
            }
            for name in fsio::sorted_names(&physical)? {
                let hidden = name.as_encoded_bytes().starts_with(b".");
                let place = physical.join(&name);
                let metadata = fs::symlink_metadata(&place).context("read", &place)?;
                if metadata.is_dir() && !hidden && !(is_read && name == "target") {
                    waiting.push(dir.join(name));
                }
            }
        }
        Ok(found)
    }

    /// The directory of a package: of two that are called the same, the one that is less deep.
    fn package(&self, wanted: &CrateName) -> Result<&Path, UnpackError> {
        let named = self
            .0
            .iter()
            .filter(|(_, manifest)| text(manifest, "name") == Some(&wanted.name));
        let mut found: Vec<&PathBuf> = named.map(|(dir, _)| dir).collect();
        found.sort_by_key(|dir| (dir.components().count(), *dir));
        let version = |dir: &PathBuf| self.version(dir);
        match found
            .iter()
            .find(|dir| version(dir).as_deref() == Some(&*wanted.version))
        {
            Some(dir) => Ok(dir),
            None => {
                let other = found.first().and_then(|dir| version(dir));
                let other = other.map_or_else(String::new, |version| format!(" (it has version {version})"));
                let (name, version) = (&wanted.name, &wanted.version);
                Err(refused(format!(
                    "the repository has no package `{name} {version}`, which the lock file names{other}"
                )))
            }
        }
    }

    /// The version of a package, which it may inherit.
    fn version(&self, dir: &Path) -> Option<String> {
        match package(self.0.get(dir)?)?.get("version") {
            Some(Value::String(version)) => Some(version.clone()),
            Some(Value::Table(_)) => {
                let root = self.root(dir)?;
                let workspace = self.0.get(root)?.get("workspace")?;
                Some(workspace.get("package")?.get("version")?.as_str()?.to_owned())
            }
            _ => Some("0.0.0".to_owned()),
        }
    }

    /// The root of the workspace that a package belongs to, found as Cargo does.
    fn root(&self, dir: &Path) -> Option<&Path> {
        let named = package(self.0.get(dir)?).and_then(|package| package.get("workspace")?.as_str());
        let is_root = |dir: &Path| {
            self.0
                .get(dir)
                .is_some_and(|manifest| manifest.contains_key("workspace"))
        };
        let root = match named {
            Some(path) => normal(&dir.join(path)).filter(|dir| is_root(dir))?,
            None => dir.ancestors().find(|dir| is_root(dir))?.to_owned(),
        };
        self.0.get_key_value(&root).map(|(root, _)| root.as_path())
    }

    /// The root that a package inherits from, where that is another manifest than its own.
    fn inherited_root(&self, of: &CrateName, dir: &Path) -> Result<Option<&Path>, UnpackError> {
        if !self.0.get(dir).is_some_and(inherits) {
            return Ok(None);
        }
        match self.root(dir) {
            Some(root) => Ok((root != dir).then_some(root)),
            None => Err(refused(format!(
                "`{}` inherits from a workspace, and there is none around `{}`",
                of.name,
                shown(dir)
            ))),
        }
    }

    /// Whether Cargo finds a package's root above the link to the package.
    fn looks_above(&self, dir: &Path) -> bool {
        let named = self
            .0
            .get(dir)
            .and_then(package)
            .and_then(|package| package.get("workspace")?.as_str());
        named.is_none_or(|path| normal(&Path::new("x").join(path)) == Some(PathBuf::new()))
    }

    /// The text of a package's manifest with what it inherits from a root.
    fn complete(&self, of: &CrateName, dir: &Path, root: &Path) -> Result<String, UnpackError> {
        let told = |reason: String| refused(format!("`{}` cannot be read from `{}`: {reason}", of.name, shown(dir)));
        let complete = without_workspace(&self.0[dir], dir, &self.0[root], root).map_err(told)?;
        toml::to_string(&complete).map_err(|error| told(error.to_string()))
    }

    /// A manifest of what can be inherited from that of a root.
    fn inheritable(&self, root: &Path) -> Option<String> {
        let workspace = self.0.get(root)?.get("workspace")?.as_table()?;
        let kept = workspace.iter().filter(|(key, _)| INHERITABLE.contains(&key.as_str()));
        let kept: Table = kept.map(|(key, value)| (key.clone(), value.clone())).collect();
        let document = Table::from_iter([("workspace".to_owned(), Value::Table(kept))]);
        toml::to_string(&document).ok()
    }
}

fn package(manifest: &Table) -> Option<&Table> {
    let package = manifest.get("package").or_else(|| manifest.get("project"));
    package.and_then(Value::as_table)
}

fn text<'a>(manifest: &'a Table, key: &str) -> Option<&'a str> {
    package(manifest)?.get(key)?.as_str()
}

/// Whether a manifest takes something from that of its workspace: `workspace = true`, wherever it stands.
fn inherits(manifest: &Table) -> bool {
    fn says_so(value: &Value) -> bool {
        match value {
            Value::Table(table) => {
                table.get("workspace").and_then(Value::as_bool) == Some(true) || table.values().any(says_so)
            }
            _ => false,
        }
    }
    let parts = manifest.iter().filter(|(key, _)| *key != "workspace");
    parts.into_iter().any(|(_, value)| says_so(value))
}

/// A path without dots; `None` where it leads out.
fn normal(path: &Path) -> Option<PathBuf> {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => {
                if !normal.pop() {
                    return None;
                }
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(normal)
}

fn shown(dir: &Path) -> String {
    dir.join(MANIFEST).display().to_string()
}

fn refused(reason: String) -> UnpackError {
    UnpackError::Package { reason }
}

fn write(file: &Path, text: &str) -> Result<(), UnpackError> {
    fs::write(file, text).context("write", file)?;
    Ok(fs::set_permissions(file, Permissions::from_mode(0o644)).context("set the mode of", file)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is laid out of these files for these packages, by path: a link's target, or a file's text.
    fn laid_out(files: &[(&str, &str)], wanted: &[(&str, &str)]) -> Result<BTreeMap<String, String>, String> {
        let dir = tempfile::tempdir().unwrap();
        laid_out_in(dir.path(), files, wanted)
    }

    fn laid_out_in(
        dir: &Path,
        files: &[(&str, &str)],
        wanted: &[(&str, &str)],
    ) -> Result<BTreeMap<String, String>, String> {
        for (path, text) in files {
            let file = dir.join(TREE).join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let wanted: Vec<CrateName> = (wanted.iter())
            .map(|(name, version)| CrateName {
                name: (*name).to_owned(),
                version: (*version).to_owned(),
            })
            .collect();
        lay_out(&wanted, dir).map_err(|error| error.to_string())?;
        let names = fsio::sorted_names(dir).unwrap().into_iter();
        let made = names.filter(|name| name != TREE).map(|name| {
            let place = dir.join(&name);
            let content = match fs::read_link(&place) {
                Ok(target) => {
                    assert!(place.join(".cargo-checksum.json").is_file(), "{name:?}");
                    target.display().to_string()
                }
                Err(_) => fs::read_to_string(&place).unwrap(),
            };
            (name.into_string().unwrap(), content)
        });
        Ok(made.collect())
    }

    const ROOT: (&str, &str) = (
        "Cargo.toml",
        "[package]\nname = \"root\"\nversion.workspace = true\n[workspace]\nmembers = [\"crates/*\"]\n\
         exclude = [\"crates/foo\"]\n[workspace.package]\nversion = \"1.2.0\"\n",
    );

    const FOO: (&str, &str) = (
        "crates/foo/Cargo.toml",
        "[package]\nname = \"foo\"\nversion = { workspace = true }\n",
    );

    #[test]
    fn packages_are_found_wherever_they_are() {
        let files = [
            ROOT,
            FOO,
            ("crates/bar/Cargo.toml", "[project]\nname = \"bar\"\n"),
            ("fixtures/broken/Cargo.toml", "[package"),
            (
                "a/deep/copy/foo/Cargo.toml",
                "[package]\nname = \"foo\"\nversion = \"1.2.0\"\n",
            ),
            (
                ".hidden/foo/Cargo.toml",
                "[package]\nname = \"foo\"\nversion = \"1.2.0\"\n",
            ),
            ("old/foo/Cargo.toml", "[package]\nname = \"foo\"\nversion = \"1.1.0\"\n"),
        ];
        let made = laid_out(
            &files,
            &[("root", "1.2.0"), ("foo", "1.2.0"), ("foo", "1.1.0"), ("bar", "0.0.0")],
        );
        let made = made.unwrap();
        assert_eq!(made["foo-1.2.0"], ".tree/crates/foo");
        assert_eq!(made["foo-1.1.0"], ".tree/old/foo");
        assert_eq!(made["bar-0.0.0"], ".tree/crates/bar");
        assert_eq!(made["root-1.2.0"], ".tree");
        assert_eq!(made["Cargo.toml"], "[workspace.package]\nversion = \"1.2.0\"\n");
        assert_eq!(made.len(), 5);
    }

    #[test]
    fn what_inherits_nothing_gets_no_root() {
        let made = laid_out(&[ROOT], &[("root", "1.2.0")]).unwrap();
        assert_eq!(made.len(), 1, "{made:?}");
    }

    /// The manifests of what Cargo would look for another root of are complete by themselves.
    #[test]
    fn two_workspaces_and_roots_that_are_named_are_laid_out() {
        let other = ("x/Cargo.toml", "[workspace.package]\nversion = \"3.0.0\"\n");
        let of_other = ("x/y/Cargo.toml", "[package]\nname = \"y\"\nversion.workspace = true\n");
        let named = (
            "crates/z/Cargo.toml",
            "[package]\nname = \"z\"\nversion.workspace = true\nworkspace = \"../..\"\n",
        );
        let dir = tempfile::tempdir().unwrap();
        let wanted = [("foo", "1.2.0"), ("y", "3.0.0"), ("z", "1.2.0")];
        let made = laid_out_in(dir.path(), &[ROOT, FOO, other, of_other, named], &wanted).unwrap();
        assert_eq!(made["Cargo.toml"], "[workspace.package]\nversion = \"1.2.0\"\n");
        let manifest = |of: &str| fs::read_to_string(dir.path().join(of).join(MANIFEST)).unwrap();
        assert_eq!(manifest("foo-1.2.0"), FOO.1);
        assert_eq!(manifest("y-3.0.0"), "[package]\nname = \"y\"\nversion = \"3.0.0\"\n");
        assert_eq!(manifest("z-1.2.0"), "[package]\nname = \"z\"\nversion = \"1.2.0\"\n");
    }

    #[test]
    fn what_cannot_be_laid_out_is_told() {
        let lacking = (
            "crates/foo/Cargo.toml",
            "[package]\nname = \"foo\"\nworkspace = \"../..\"\nedition.workspace = true\n",
        );
        let lone = ("y/Cargo.toml", "[package]\nname = \"y\"\nedition.workspace = true\n");
        for (files, wanted, said) in [
            (vec![ROOT, FOO], ("nope", "1.0.0"), "no package `nope 1.0.0`"),
            (vec![ROOT, FOO], ("foo", "2.0.0"), "(it has version 1.2.0)"),
            (vec![ROOT, lacking], ("foo", "0.0.0"), "`workspace.package.edition`"),
            (vec![lone], ("y", "0.0.0"), "there is none around"),
        ] {
            let error = laid_out(&files, &[wanted]).unwrap_err();
            assert!(error.contains(said), "{said}: {error}");
        }
    }

    #[test]
    fn links_of_the_tree_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join(MANIFEST), "[package]\nname = \"foo\"\n").unwrap();
        let dest = dir.path().join("dest");
        fs::create_dir_all(dest.join(TREE).join("bar")).unwrap();
        symlink(&outside, dest.join(TREE).join("foo")).unwrap();
        let bar = dest.join(TREE).join("bar");
        fs::write(bar.join(MANIFEST), "[package]\nname = \"bar\"\n").unwrap();
        symlink(outside.join("checksum"), bar.join(".cargo-checksum.json")).unwrap();
        let wanted = |name: &str| CrateName {
            name: name.to_owned(),
            version: "0.0.0".to_owned(),
        };
        assert!(lay_out(&[wanted("foo")], &dest).is_err());
        lay_out(&[wanted("bar")], &dest).unwrap();
        assert!(!outside.join("checksum").exists());
    }
}
