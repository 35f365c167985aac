//! A *workspace*: the packages of a source that Cargo reads when it builds one of them, and the files that decide how.
//!
//! Invariant: every directory that Cargo will look for is in the source; one that is not is named while planning.

use std::collections::{BTreeMap, BTreeSet};

use super::cargo_lock::CargoLock;
use super::manifest::{Manifest, NamedRegistry, TargetFile, TargetKind};
use crate::lang::{FileKind, LangError, SourceTree, seen_from};

/// Stands for a library: whatever lints a manifest denies, this passes.
const LIBRARY: &str = "//! Stands for the source.\n#![allow(warnings, missing_docs, unused_crate_dependencies)]\n";

/// Stands for a program.
const PROGRAM: &str =
    "//! Stands for the source.\n#![allow(warnings, missing_docs, unused_crate_dependencies)]\nfn main() {}\n";

/// How deep `**` is followed.
const DEPTH_MAX: usize = 12;

/// The packages of a source that Cargo reads, by their directories.
pub(super) struct CargoWorkspace<'a> {
    source: &'a SourceTree,
    /// The directory of its root, where the lock file is.
    root: String,
    /// The directories of its members, the root's own package among them.
    members: BTreeSet<String>,
    manifests: BTreeMap<String, (String, Manifest)>,
}

impl<'a> CargoWorkspace<'a> {
    /// Reads the manifests that a build in the directory `root` of `source` needs.
    pub(super) fn read(source: &'a SourceTree, root: &str) -> Result<Self, LangError> {
        let mut workspace = Self {
            source,
            root: root.to_owned(),
            members: BTreeSet::from([root.to_owned()]),
            manifests: BTreeMap::new(),
        };
        if !workspace.take(root)? {
            let help = "name the lock file that is beside the workspace's `Cargo.toml`: `rust = { lock = \"…\" }`";
            let place = format!("`{}`", manifest_path(root));
            return Err(LangError::at(place, "there is no manifest beside the lock file", help));
        }
        let mut waiting = vec![root.to_owned()];
        let members = workspace.take_members()?;
        waiting.extend(members.iter().cloned());
        workspace.members.extend(members);
        let mut seen = BTreeSet::new();
        while let Some(dir) = waiting.pop() {
            if seen.insert(dir.clone()) {
                waiting.extend(workspace.take_dependencies(&dir)?);
            }
        }
        Ok(workspace)
    }

    /// The dependencies from registries that only the configuration knows.
    pub(super) fn named_registries(&self) -> BTreeSet<NamedRegistry> {
        self.manifests
            .values()
            .flat_map(|(_, manifest)| manifest.named_registries())
            .collect()
    }

    /// The directories of all packages that Cargo may read, with their names.
    pub(super) fn packages(&self) -> BTreeMap<String, String> {
        let packages = self.manifests.iter();
        let named = packages.filter_map(|(dir, (_, manifest))| Some((dir.clone(), manifest.name()?.to_owned())));
        named.collect()
    }

    /// What workspaces say of how their members are compiled, but for what Cargo compares by itself.
    pub(super) fn shared_text(&self) -> String {
        let workspaces = self
            .manifests
            .iter()
            .filter(|(_, (_, manifest))| manifest.is_workspace());
        workspaces
            .map(|(dir, (_, manifest))| format!("{dir}\n{}\n", manifest.shared_text()))
            .collect()
    }

    /// What the members say of the compiler that they need at least, and where.
    pub(super) fn rust_versions(&self) -> Vec<(String, &str)> {
        let shared = self.manifest(&self.root);
        let of_members = self.members.iter().filter_map(|dir| {
            let version = self.manifest(dir)?.rust_version(shared)?;
            Some((manifest_path(dir), version))
        });
        of_members.collect()
    }

    /// Whether a lock file has all that the members depend on; else it is older than the manifests, and Cargo could only say
    /// that it does not find what is not there.
    pub(super) fn check_lock(&self, lock: &CargoLock, file: &str) -> Result<(), LangError> {
        let shared = self.manifest(&self.root);
        for dir in &self.members {
            let Some(manifest) = self.manifest(dir) else { continue };
            let mut names = manifest.package_names(shared).into_iter();
            if let Some(name) = names.find(|name| !lock.names.contains(*name)) {
                let message = format!("the lock file has no `{name}`, which `{}` names", manifest_path(dir));
                return Err(LangError::at(
                    format!("`{file}`"),
                    message,
                    "run `cargo update --workspace`",
                ));
            }
        }
        Ok(())
    }

    /// What its programs are called: those of the root before those of other packages.
    pub(super) fn program_names(&self) -> Result<Vec<String>, LangError> {
        let mut names: Vec<String> = Vec::new();
        let root = self.manifests.get_key_value(&self.root);
        for (dir, (_, manifest)) in root.into_iter().chain(&self.manifests) {
            let is_there = |path: &str| self.source.is_file(&below(dir, path));
            let mut own: Vec<String> = manifest.named_programs().into_iter().map(str::to_owned).collect();
            if is_there("src/main.rs") && !manifest.has_own_main() {
                own.extend(manifest.name().map(str::to_owned));
            }
            for program in self.programs(dir)? {
                let path = program
                    .candidates
                    .first()
                    .map_or("", |path| path.trim_start_matches("src/bin/"));
                own.extend(
                    path.split(['/', '.'])
                        .next()
                        .filter(|_| is_there(&format!("src/bin/{path}")))
                        .map(str::to_owned),
                );
            }
            for name in own {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        Ok(names)
    }

    /// What decides how the dependencies are compiled, and nothing else: manifests and Cargo's configuration as they are, an
    /// empty file for each target.
    pub(super) fn skeleton(&self) -> Result<BTreeMap<String, Vec<u8>>, LangError> {
        let mut files = BTreeMap::new();
        for (dir, (text, manifest)) in &self.manifests {
            files.insert(manifest_path(dir), text.clone().into_bytes());
            let mut targets = manifest.targets();
            if manifest.is_package() {
                targets.extend(self.programs(dir)?);
            }
            for target in targets {
                let places = target.candidates.iter().filter_map(|path| seen_from(dir, path));
                for place in places.filter(|place| self.source.kind(place) == Some(FileKind::File)) {
                    let stub = match target.kind {
                        TargetKind::Library => LIBRARY,
                        TargetKind::Program => PROGRAM,
                    };
                    let file = files.entry(place).or_default();
                    if file.len() < stub.len() {
                        *file = stub.as_bytes().to_vec();
                    }
                }
            }
        }
        for dir in ancestors(&self.root) {
            self.take_configuration(&below(dir, ".cargo"), &mut files)?;
        }
        Ok(files)
    }

    /// Reads the manifest of a directory, unless that was done before; whether there is one.
    fn take(&mut self, dir: &str) -> Result<bool, LangError> {
        if self.manifests.contains_key(dir) {
            return Ok(true);
        }
        let path = manifest_path(dir);
        let Some(text) = self.source.text(&path)? else {
            return Ok(false);
        };
        let manifest = Manifest::parse(&text, &path)?;
        self.manifests.insert(dir.to_owned(), (text, manifest));
        Ok(true)
    }

    fn manifest(&self, dir: &str) -> Option<&Manifest> {
        self.manifests.get(dir).map(|(_, manifest)| manifest)
    }

    /// The directories of the members.
    fn take_members(&mut self) -> Result<Vec<String>, LangError> {
        let root = self.root.clone();
        let Some(manifest) = self.manifest(&root) else {
            return Ok(Vec::new());
        };
        let place = format!("`{}`, `members`", manifest_path(&root));
        let excluded: Vec<String> = manifest
            .excluded()
            .into_iter()
            .filter_map(|dir| seen_from(&root, dir))
            .collect();
        let patterns: Vec<String> = manifest.members().into_iter().map(str::to_owned).collect();
        let mut members = Vec::new();
        for pattern in patterns {
            let full = seen_from(&root, &pattern).ok_or_else(|| outside(&place, &format!("the member `{pattern}`")))?;
            let is_pattern = pattern.contains(['*', '?', '[']);
            for dir in self.matching(&full)? {
                let is_excluded = excluded.iter().any(|of| is_below(&dir, of));
                if is_excluded || self.take(&dir)? {
                    members.extend((!is_excluded).then_some(dir));
                } else if !is_pattern {
                    return Err(absent(&place, &format!("the member `{pattern}`")));
                }
            }
        }
        Ok(members)
    }

    /// The directories that a pattern means; what is no pattern means itself.
    fn matching(&self, pattern: &str) -> Result<Vec<String>, LangError> {
        let mut found = vec![String::new()];
        for part in pattern.split('/').filter(|part| !part.is_empty()) {
            let mut next = Vec::new();
            for dir in found {
                if part == "**" {
                    next.extend(self.all_below(&dir)?);
                } else if part.contains(['*', '?', '[']) {
                    let names = self.directories(&dir)?.into_iter();
                    next.extend(names.filter(|name| matches(part, name)).map(|name| below(&dir, &name)));
                } else {
                    next.push(below(&dir, part));
                }
            }
            found = next;
        }
        Ok(found)
    }

    fn directories(&self, dir: &str) -> Result<Vec<String>, LangError> {
        let entries = self.source.entries(dir)?.into_iter();
        Ok(entries
            .filter(|(_, kind)| *kind == FileKind::Directory)
            .map(|(name, _)| name)
            .collect())
    }

    fn all_below(&self, dir: &str) -> Result<Vec<String>, LangError> {
        let mut all = vec![dir.to_owned()];
        // Links may lead in circles.
        if dir.split('/').count() > DEPTH_MAX {
            return Ok(all);
        }
        for name in self.directories(dir)? {
            all.extend(self.all_below(&below(dir, &name))?);
        }
        Ok(all)
    }

    /// The directories that a package depends on, and the manifest that it inherits from.
    fn take_dependencies(&mut self, dir: &str) -> Result<Vec<String>, LangError> {
        let workspace = self.take_workspace_of(dir)?;
        let shared = workspace.as_ref().and_then(|dir| self.manifest(dir));
        let dependencies = self
            .manifest(dir)
            .map(|manifest| manifest.path_dependencies(shared))
            .unwrap_or_default();
        let mut found = Vec::new();
        for dependency in dependencies {
            let base = match &workspace {
                Some(workspace) if dependency.inherited => workspace,
                _ => dir,
            };
            let place = format!("`{}`, dependency `{}`", manifest_path(base), dependency.name);
            let what = format!("the dependency `{}` in `{}`", dependency.name, dependency.path);
            let target = seen_from(base, &dependency.path).ok_or_else(|| outside(&place, &what))?;
            if !self.take(&target)? {
                return Err(absent(&place, &what));
            }
            found.push(target);
        }
        Ok(found)
    }

    /// The directory of the workspace that a package belongs to, found as Cargo does.
    fn take_workspace_of(&mut self, dir: &str) -> Result<Option<String>, LangError> {
        let Some(manifest) = self.manifest(dir) else {
            return Ok(None);
        };
        if manifest.is_workspace() {
            return Ok(Some(dir.to_owned()));
        }
        if let Some(named) = manifest.workspace_path().and_then(|path| seen_from(dir, path)) {
            return Ok(self.take(&named)?.then_some(named));
        }
        for above in ancestors(dir).skip(1) {
            if self.take(above)? && self.manifest(above).is_some_and(Manifest::is_workspace) {
                return Ok(Some(above.to_owned()));
            }
        }
        Ok(None)
    }

    /// The programs that Cargo finds by itself.
    fn programs(&self, dir: &str) -> Result<Vec<TargetFile>, LangError> {
        let entries = self.source.entries(&below(dir, "src/bin"))?.into_iter();
        let path = entries.map(|(name, kind)| match kind {
            FileKind::File => format!("src/bin/{name}"),
            FileKind::Directory => format!("src/bin/{name}/main.rs"),
        });
        Ok(path
            .filter(|path| path.ends_with(".rs"))
            .map(|path| TargetFile {
                kind: TargetKind::Program,
                candidates: vec![path],
            })
            .collect())
    }

    /// Cargo's configuration, which may name further files beside it.
    fn take_configuration(&self, dir: &str, files: &mut BTreeMap<String, Vec<u8>>) -> Result<(), LangError> {
        for (name, kind) in self.source.entries(dir)? {
            let path = below(dir, &name);
            match kind {
                FileKind::Directory => self.take_configuration(&path, files)?,
                FileKind::File => {
                    files.extend(self.source.bytes(&path)?.map(|bytes| (path, bytes)));
                }
            }
        }
        Ok(())
    }
}

fn manifest_path(dir: &str) -> String {
    below(dir, "Cargo.toml")
}

fn below(dir: &str, name: &str) -> String {
    match dir {
        "" => name.to_owned(),
        dir => format!("{dir}/{name}"),
    }
}

fn is_below(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `dir` itself and those that it is in, up to the source.
fn ancestors(dir: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(dir), |dir| match dir.rsplit_once('/') {
        Some((above, _)) => Some(above),
        None => (!dir.is_empty()).then_some(""),
    })
}

/// Whether a name fits a pattern of one part. A class of characters stands for any one of them: what is taken beside the
/// members does no harm.
fn matches(pattern: &str, name: &str) -> bool {
    let mut rest = pattern.chars();
    match rest.next() {
        None => name.is_empty(),
        Some('*') => {
            let places = name.char_indices().map(|(at, _)| at).chain([name.len()]);
            places.into_iter().any(|at| matches(rest.as_str(), &name[at..]))
        }
        Some(first) => {
            let mut characters = name.chars();
            let Some(character) = characters.next() else {
                return false;
            };
            let rest = match (first, rest.as_str().split_once(']')) {
                ('[', Some((_, rest))) => rest,
                _ if first == '?' || first == character => rest.as_str(),
                _ => return false,
            };
            matches(rest, characters.as_str())
        }
    }
}

fn outside(place: &str, what: &str) -> LangError {
    let help = "let `source` be a directory that holds both, and name the lock file in it: \
                `rust = { lock = \"DIRECTORY/Cargo.lock\" }`";
    LangError::at(place, format!("{what} lies outside the source"), help)
}

fn absent(place: &str, what: &str) -> LangError {
    let help = "see that it is there, and that `include`, `exclude` and `.gitignore` let its `Cargo.toml` through";
    LangError::at(place, format!("{what} is not in the source"), help)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn skeleton(root: &str, files: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let file = dir.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let source = SourceTree::new(dir.path().to_owned());
        let workspace = CargoWorkspace::read(&source, root).map_err(|error| format!("{error:?}"))?;
        Ok(workspace.skeleton().unwrap().into_keys().collect())
    }

    #[test]
    fn what_cargo_reads_is_taken_and_no_more() {
        let files = [
            (
                "Cargo.toml",
                "[workspace]\nmembers = [\"crates/*\", \"tool\"]\nexclude = [\"crates/old\"]\n[workspace.dependencies]\nlib = { path = \"crates/lib\" }",
            ),
            (
                "crates/lib/Cargo.toml",
                "[package]\nname = \"lib\"\n[dependencies]\nfar = { path = \"../../vendor/far\" }",
            ),
            ("crates/lib/src/lib.rs", "mod deep;"),
            ("crates/lib/src/deep.rs", ""),
            ("crates/lib/tests/t.rs", ""),
            ("crates/old/Cargo.toml", "broken"),
            ("crates/readme/README.md", ""),
            (
                "tool/Cargo.toml",
                "[package]\nname = \"tool\"\n[dependencies]\nlib.workspace = true",
            ),
            ("tool/src/main.rs", ""),
            ("tool/src/bin/a.rs", ""),
            ("tool/src/bin/b/main.rs", ""),
            ("tool/src/bin/b/part.rs", ""),
            ("tool/build.rs", ""),
            ("vendor/far/Cargo.toml", "[package]\nname = \"far\""),
            ("vendor/far/src/lib.rs", ""),
            (".cargo/config.toml", ""),
        ];
        let expected = [
            ".cargo/config.toml",
            "Cargo.toml",
            "crates/lib/Cargo.toml",
            "crates/lib/src/lib.rs",
            "tool/Cargo.toml",
            "tool/build.rs",
            "tool/src/bin/a.rs",
            "tool/src/bin/b/main.rs",
            "tool/src/main.rs",
            "vendor/far/Cargo.toml",
            "vendor/far/src/lib.rs",
        ];
        assert_eq!(skeleton("", &files).unwrap(), expected);
    }

    #[test]
    fn a_root_below_the_source_sees_what_is_beside_it() {
        let files = [
            (
                "api/Cargo.toml",
                "[package]\nname = \"api\"\n[dependencies]\ncommon = { path = \"../common\" }",
            ),
            ("api/src/main.rs", ""),
            ("common/Cargo.toml", "[package]\nname = \"common\""),
            ("common/src/lib.rs", ""),
            (".cargo/config.toml", ""),
        ];
        let found = skeleton("api", &files).unwrap();
        assert!(found.contains(&"common/src/lib.rs".to_owned()), "{found:?}");
        assert!(found.contains(&".cargo/config.toml".to_owned()), "{found:?}");
    }

    #[test]
    fn what_is_not_in_the_source_is_named() {
        let package = |dependency: &str| format!("[package]\nname = \"x\"\n[dependencies]\n{dependency}");
        for (text, said) in [
            (package("y = { path = \"../y\" }"), "`../y` lies outside"),
            (package("y = { path = \"/y\" }"), "lies outside"),
            (package("y = { path = \"y\" }"), "`y` is not in the source"),
            (
                "[workspace]\nmembers = [\"../y\"]".to_owned(),
                "the member `../y` lies outside",
            ),
            (
                "[workspace]\nmembers = [\"y\"]".to_owned(),
                "the member `y` is not in the source",
            ),
            ("[workspace".to_owned(), "cannot be read"),
        ] {
            let error = skeleton("", &[("Cargo.toml", &text)]).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        assert!(skeleton("", &[]).unwrap_err().contains("no manifest beside"));
    }

    #[test]
    fn patterns_are_of_one_part() {
        for (pattern, name, expected) in [
            ("*", "a", true),
            ("a*c", "abc", true),
            ("a*c", "abd", false),
            ("a?", "ab", true),
            ("a?", "a", false),
            ("[ab]c", "bc", true),
            ("é*", "éa", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
