//! `pnpm-lock.yaml` of versions 6 and 9: who depends on which package, from which the one tree is made that pnpm makes.
//!
//! Invariant: every package is at a place of its own below `node_modules/.pnpm`, with links beside it to what it needs, so that
//! it finds that and nothing else of the same name; all links are relative and lead to within the project.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::git;
use super::locked::{Flags, MODULES, Node, NodeKind, Nodes};
use super::package_lock::{OneOrMany, Unique, is_inside, is_version};
use super::platform::Wanted;
use crate::digest::Digest;
use crate::lang::LangError;
use crate::spec::is_npm_name;

/// Where packages are.
const VIRTUAL_STORE: &str = "node_modules/.pnpm";

/// Longest name of a directory there, in bytes: a file system's bound is 255.
const NAME_MAX: usize = 120;

/// The versions that are read.
const VERSIONS: &[&str] = &["6.0", "6.1", "9.0"];

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct LockFile {
    lockfile_version: Option<Version>,
    importers: Unique<Importer>,
    packages: Unique<Package>,
    snapshots: Unique<Snapshot>,
    overrides: BTreeMap<String, String>,
    dependencies: BTreeMap<String, Wish>,
    dev_dependencies: BTreeMap<String, Wish>,
    optional_dependencies: BTreeMap<String, Wish>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Version {
    Text(String),
    Number(f64),
}

/// A project of the workspace.
#[derive(Deserialize, Default, Clone)]
#[serde(rename_all = "camelCase", default)]
struct Importer {
    dependencies: BTreeMap<String, Wish>,
    dev_dependencies: BTreeMap<String, Wish>,
    optional_dependencies: BTreeMap<String, Wish>,
}

/// What a project wants, and what it gets.
#[derive(Deserialize, Clone)]
struct Wish {
    specifier: String,
    version: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Package {
    name: Option<String>,
    version: Option<String>,
    resolution: Resolution,
    os: OneOrMany,
    cpu: OneOrMany,
    libc: OneOrMany,
    has_bin: bool,
    requires_build: Option<bool>,
    dependencies: BTreeMap<String, String>,
    optional_dependencies: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Resolution {
    integrity: Option<String>,
    tarball: Option<String>,
    repo: Option<String>,
    commit: Option<String>,
    /// A directory in the repository.
    path: Option<String>,
    directory: Option<String>,
}

impl Resolution {
    /// Where the package is, if that is neither by its name in a registry nor in a directory, as `package-lock.json` has it.
    fn address(&self) -> Option<String> {
        match (&self.repo, &self.commit, &self.tarball) {
            (Some(repo), Some(commit), _) => Some(git::address(repo, commit)),
            (Some(repo), None, _) => Some(format!("git+{repo}")),
            (None, _, Some(tarball)) if self.integrity.is_none() => {
                Some(git::of_hosts_tarball(tarball).unwrap_or_else(|| tarball.clone()))
            }
            (None, _, tarball) => tarball.clone(),
        }
    }

    /// Whether it is a commit of a repository.
    fn is_git(&self) -> bool {
        self.address().is_some_and(|address| git::is_git(&address))
    }
}

/// A package with what it gets, peers among it.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Snapshot {
    dependencies: BTreeMap<String, String>,
    optional_dependencies: BTreeMap<String, String>,
}

/// What the lock file says; `wanted` is what `package.json` depends on.
pub(super) fn parse(text: &str, file: &str, wanted: &BTreeMap<String, String>) -> Result<Nodes, LangError> {
    let again = "run `pnpm install --lockfile-only`";
    let mut read: LockFile = serde_yaml_ng::from_str(text).map_err(|error| {
        let place = match error.location() {
            Some(location) => format!("`{file}`, line {}", location.line()),
            None => format!("`{file}`"),
        };
        LangError::at(place, format!("`{file}` cannot be read: {error}"), again)
    })?;
    let version = match &read.lockfile_version {
        Some(Version::Text(text)) => text.clone(),
        Some(Version::Number(number)) => format!("{number:.1}"),
        None => "none".to_owned(),
    };
    if !VERSIONS.contains(&version.as_str()) {
        let message = format!("it is of version {version}, and versions 6.0 and 9.0 are read");
        let help =
            "run `pnpm install --lockfile-only` with pnpm 8 or newer, which writes it anew with the same versions";
        return Err(LangError::at(format!("`{file}`"), message, help));
    }
    if read.importers.0.is_empty() {
        let importer = Importer {
            dependencies: std::mem::take(&mut read.dependencies),
            dev_dependencies: std::mem::take(&mut read.dev_dependencies),
            optional_dependencies: std::mem::take(&mut read.optional_dependencies),
        };
        read.importers.0.insert(".".to_owned(), importer);
    }
    let reader = Reader { read: &read, file };
    reader.check_manifest(wanted)?;
    reader.nodes()
}

struct Reader<'a> {
    read: &'a LockFile,
    file: &'a str,
}

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    /// A package, by its key.
    Package(String),
    /// A directory of the project.
    Dir(String),
}

/// How something is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Needed,
    Dev,
    Optional,
}

impl Reader<'_> {
    fn error(&self, place: &str, message: impl Into<String>, help: impl Into<String>) -> LangError {
        LangError::at(format!("`{}`, `{}`", self.file, place.escape_debug()), message, help)
    }

    fn refused(&self, place: &str, message: impl Into<String>) -> LangError {
        self.error(place, message, "let `pnpm install --lockfile-only` write the lock file")
    }

    /// The lock file is of these dependencies, as pnpm has it with `--frozen-lockfile`.
    fn check_manifest(&self, wanted: &BTreeMap<String, String>) -> Result<(), LangError> {
        let stale = |message: String| {
            let help = "run `pnpm install --lockfile-only`, and commit the lock file with the manifest";
            Err(LangError::at(format!("`{}`", self.file), message, help))
        };
        let Some(root) = self.read.importers.0.get(".") else {
            return stale("it does not say which project it is of".to_owned());
        };
        for (name, range) in wanted {
            let locked = root.all().find(|(locked, ..)| *locked == name);
            match locked {
                Some((_, wish, _)) if wish.specifier == *range || !self.read.overrides.is_empty() => {}
                Some((_, wish, _)) => {
                    let specifier = &wish.specifier;
                    return stale(format!(
                        "`package.json` wants `{name}` {range}, and it is locked for {specifier}"
                    ));
                }
                None => return stale(format!("`package.json` wants `{name}` {range}, which is not locked")),
            }
        }
        Ok(())
    }

    fn nodes(&self) -> Result<Nodes, LangError> {
        let mut nodes = Nodes::new();
        let reach = Reach::of(self)?;
        for key in &reach.ordered {
            self.add_package(key, reach.flags(key), &mut nodes)?;
        }
        for (dir, importer) in &self.read.importers.0 {
            self.add_importer(dir, importer, &mut nodes)?;
        }
        // What a package needs and does not name is found here, as with pnpm's `hoist`: the nearest to the projects of a name.
        for key in &reach.ordered {
            let (name, _) = self.parts(key)?;
            let place = format!("{VIRTUAL_STORE}/{MODULES}/{name}");
            let target = self.place(key)?;
            let flags = reach.flags(key);
            nodes.entry(place).or_insert_with(|| link(&name, target, flags, false));
        }
        Ok(nodes)
    }

    fn add_package(&self, key: &str, flags: Flags, nodes: &mut Nodes) -> Result<(), LangError> {
        let (name, version) = self.parts(key)?;
        let package = self.package(key)?;
        let place = self.place(key)?;
        let around = place.strip_suffix(&name).unwrap_or(&place);
        let mut needs = BTreeMap::new();
        for (alias, target, kind) in self.needs(key)? {
            if alias == name {
                continue;
            }
            let is_optional = kind == Kind::Optional;
            let flags = Flags {
                optional: flags.optional || is_optional,
                ..flags
            };
            let target = match &target {
                Target::Package(key) => self.place(key)?,
                Target::Dir(dir) => dir.clone(),
            };
            nodes.insert(format!("{around}{alias}"), link(&alias, target, flags, false));
            needs.insert(alias, is_optional);
        }
        let resolution = &package.resolution;
        if resolution.is_git() && resolution.path.as_deref().is_some_and(|path| !path.is_empty()) {
            let message = format!("`{name}` is a directory of a repository");
            return Err(self.error(key, message, "depend on a published version"));
        }
        let resolved = match (resolution.address(), &resolution.directory) {
            (None, Some(directory)) => Some(format!("file:{directory}")),
            (address, _) => address,
        };
        let node = Node {
            name,
            version,
            kind: NodeKind::Package,
            integrity: resolution.integrity.clone(),
            resolved,
            reads_bins: package.has_bin,
            // Version 6 says of all that have some that they have, version 9 of none.
            has_scripts: match key.starts_with('/') {
                true => Some(package.requires_build.unwrap_or(false)),
                false => None,
            },
            wanted: Wanted {
                os: package.os.list(),
                cpu: package.cpu.list(),
                libc: package.libc.list(),
            },
            flags,
            needs,
            ..Node::default()
        };
        nodes.insert(place, node);
        Ok(())
    }

    fn add_importer(&self, dir: &str, importer: &Importer, nodes: &mut Nodes) -> Result<(), LangError> {
        let own = self.own_dir(dir, "")?;
        let mut needs = BTreeMap::new();
        for (alias, wish, kind) in importer.all() {
            let (target, has_bin) = match self.target(alias, &wish.version, &own)? {
                Target::Package(key) => (self.place(&key)?, self.package(&key)?.has_bin),
                Target::Dir(dir) => (dir, true),
            };
            let place = match own.as_str() {
                "" => format!("{MODULES}/{alias}"),
                own => format!("{own}/{MODULES}/{alias}"),
            };
            let flags = Flags {
                dev: kind == Kind::Dev,
                optional: kind == Kind::Optional,
                ..Flags::default()
            };
            nodes.insert(place, link(alias, target, flags, has_bin));
            needs.insert(alias.clone(), kind == Kind::Optional);
        }
        let node = Node {
            kind: NodeKind::Own,
            needs,
            ..Node::default()
        };
        nodes.insert(own, node);
        Ok(())
    }

    /// A directory of the project, by its path relative to another one.
    fn own_dir(&self, path: &str, base: &str) -> Result<String, LangError> {
        let mut parts: Vec<&str> = base.split('/').filter(|part| !part.is_empty()).collect();
        for part in path.split('/') {
            match part {
                "." => {}
                ".." if parts.pop().is_some() => {}
                part => parts.push(part),
            }
        }
        let dir = parts.join("/");
        if dir.is_empty() || is_inside(&dir) {
            return Ok(dir);
        }
        let help = "make the directory that holds both the `source`, and name the lock file in it";
        Err(self.error(path, format!("`{}` is outside the project", path.escape_debug()), help))
    }

    /// What a name leads to, in the project's directory `base`.
    fn target(&self, alias: &str, reference: &str, base: &str) -> Result<Target, LangError> {
        if !is_npm_name(alias) {
            return Err(self.refused(alias, format!("`{}` is no name of npm's", alias.escape_debug())));
        }
        if let Some(path) = reference.strip_prefix("link:") {
            return Ok(Target::Dir(self.own_dir(path, base)?));
        }
        let keys = [
            format!("{alias}@{reference}"),
            format!("/{alias}@{reference}"),
            reference.to_owned(),
        ];
        let known = |key: &String| self.read.snapshots.0.contains_key(key) || self.read.packages.0.contains_key(key);
        let missing = || {
            self.refused(
                alias,
                format!("`{}` is not among the packages", reference.escape_debug()),
            )
        };
        keys.into_iter().find(known).map(Target::Package).ok_or_else(missing)
    }

    /// What the package of a key gets.
    fn needs(&self, key: &str) -> Result<Vec<(String, Target, Kind)>, LangError> {
        let (dependencies, optional) = match self.read.snapshots.0.get(key) {
            Some(snapshot) => (&snapshot.dependencies, &snapshot.optional_dependencies),
            None => {
                let package = self.package(key)?;
                (&package.dependencies, &package.optional_dependencies)
            }
        };
        let needed = dependencies.iter().map(|pair| (pair, Kind::Needed));
        let all = needed.chain(optional.iter().map(|pair| (pair, Kind::Optional)));
        all.map(|((alias, reference), kind)| Ok((alias.clone(), self.target(alias, reference, "")?, kind)))
            .collect()
    }

    /// The package of a key, whose peers are no part of what it is.
    fn package(&self, key: &str) -> Result<&Package, LangError> {
        let plain = key.split('(').next().unwrap_or(key);
        let found = self
            .read
            .packages
            .0
            .get(key)
            .or_else(|| self.read.packages.0.get(plain));
        found.ok_or_else(|| self.refused(key, "it is not among `packages`"))
    }

    /// Name and version of the package of a key.
    fn parts(&self, key: &str) -> Result<(String, String), LangError> {
        let package = self.package(key)?;
        let plain = key.trim_start_matches('/').split('(').next().unwrap_or_default();
        let (name, version) = match plain.get(1..).and_then(|rest| rest.find('@')) {
            Some(at) => (&plain[..=at], &plain[at + 2..]),
            None => (plain, ""),
        };
        let name = package.name.as_deref().unwrap_or(name);
        let version = package.version.as_deref().unwrap_or(version);
        if key.contains("(patch_hash=") {
            let help = "take it out of `patchedDependencies`, or publish what is patched";
            return Err(self.error(key, format!("`{name}` is patched by the project"), help));
        }
        if !is_npm_name(name) {
            return Err(self.refused(key, format!("`{}` is no name of npm's", name.escape_debug())));
        }
        let resolution = &package.resolution;
        // What is wrong with these is told of the package as a whole.
        let is_judged_later =
            !resolution.is_git() && (resolution.directory.is_some() || resolution.integrity.is_none());
        if !is_version(version) && !is_judged_later {
            return Err(self.refused(key, format!("`{}` is no version of `{name}`", version.escape_debug())));
        }
        Ok((name.to_owned(), version.to_owned()))
    }

    /// Where the package of a key is.
    fn place(&self, key: &str) -> Result<String, LangError> {
        let (name, _) = self.parts(key)?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || "@+._~-".contains(c);
        let text = key.trim_start_matches('/').replace(")(", "_").replace(')', "");
        let mut dir: String = text
            .chars()
            .map(|c| match c {
                '(' => '_',
                c if allowed(c) => c,
                _ => '+',
            })
            .collect();
        if dir.len() > NAME_MAX {
            let hash = Digest::of(key.as_bytes()).hex();
            dir = format!("{}_{}", &dir[..NAME_MAX - 33], &hash[..32]);
        }
        Ok(format!("{VIRTUAL_STORE}/{dir}/{MODULES}/{name}"))
    }
}

impl Importer {
    fn all(&self) -> impl Iterator<Item = (&String, &Wish, Kind)> {
        let needed = self.dependencies.iter().map(|(name, wish)| (name, wish, Kind::Needed));
        let dev = self.dev_dependencies.iter().map(|(name, wish)| (name, wish, Kind::Dev));
        let optional = self
            .optional_dependencies
            .iter()
            .map(|(name, wish)| (name, wish, Kind::Optional));
        needed.chain(dev).chain(optional)
    }
}

fn link(name: &str, target: String, flags: Flags, reads_bins: bool) -> Node {
    Node {
        name: name.to_owned(),
        kind: NodeKind::Link(target),
        flags,
        reads_bins,
        ..Node::default()
    }
}

/// Which packages are needed by whom.
struct Reach {
    /// All, the nearest to the projects first.
    ordered: Vec<String>,
    /// By what is needed at run time, with what can be done without.
    run: BTreeSet<String>,
    /// By what is needed at run time and cannot be done without.
    run_needed: BTreeSet<String>,
    /// By what cannot be done without, by development either.
    all_needed: BTreeSet<String>,
}

impl Reach {
    fn of(reader: &Reader<'_>) -> Result<Self, LangError> {
        let from = |kinds: &[Kind]| -> Result<Vec<String>, LangError> {
            let mut keys = Vec::new();
            for (dir, importer) in &reader.read.importers.0 {
                let own = reader.own_dir(dir, "")?;
                for (alias, wish, _) in importer.all().filter(|(_, _, kind)| kinds.contains(kind)) {
                    if let Target::Package(key) = reader.target(alias, &wish.version, &own)? {
                        keys.push(key);
                    }
                }
            }
            Ok(keys)
        };
        let reached = |roots: Vec<String>, kinds: &[Kind]| -> Result<Vec<String>, LangError> {
            let mut seen = BTreeSet::new();
            let mut ordered = Vec::new();
            let mut level = roots;
            while !level.is_empty() {
                level.sort();
                let mut next = Vec::new();
                for key in level {
                    if !seen.insert(key.clone()) {
                        continue;
                    }
                    for (_, target, kind) in reader.needs(&key)? {
                        match target {
                            Target::Package(key) if kinds.contains(&kind) => next.push(key),
                            _ => {}
                        }
                    }
                    ordered.push(key);
                }
                level = next;
            }
            Ok(ordered)
        };
        use Kind::{Dev, Needed, Optional};
        let all = [Needed, Dev, Optional];
        let set = |keys: Vec<String>| keys.into_iter().collect::<BTreeSet<_>>();
        Ok(Self {
            ordered: reached(from(&all)?, &all)?,
            run: set(reached(from(&[Needed, Optional])?, &all)?),
            run_needed: set(reached(from(&[Needed])?, &[Needed])?),
            all_needed: set(reached(from(&[Needed, Dev])?, &[Needed])?),
        })
    }

    fn flags(&self, key: &str) -> Flags {
        let (run, all_needed) = (self.run.contains(key), self.all_needed.contains(key));
        Flags {
            dev: !run,
            optional: !all_needed,
            dev_optional: run && all_needed && !self.run_needed.contains(key),
            peer: false,
        }
    }
}
