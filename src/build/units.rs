//! *Units*: what a step compiled for each crate or module, kept apart so that the next such step compiles only what changed.
//!
//! Invariant: units never decide how an output comes out, only how soon. A unit is laid where the crate and all crates below
//! it, the tools, the libraries, the variables and the rules are those with which it was compiled, **and** where all crates
//! whose code ran in the build that it is from (build scripts with what they depend on, procedural macros) are dependencies,
//! too: a unit is trusted no further than the build's own code. What is read back is checked against the hash that it is called by. A check builds
//! without units. Of Go's modules no code runs, and Go looks for each file by what it would make it of: of theirs any may be laid.
//!
//! In the store's cache, by the hash of what is the same for all crates (`SCOPE`):
//!
//! ```text
//! cache/units/SCOPE/sets/HASH            crates whose code ran in a build, a key a line
//! cache/units/SCOPE/KEY/HASH.nar         the units of a crate, as they are in Cargo's target directory or Go's cache
//! cache/units/SCOPE/KEY/HASH.ran         the sets with which they came out so, a hash a line
//! ```
//!
//! Packages of the source have a scope of their own ([`members`]); in their sets are also the files of the source that ran.

mod macros;
mod members;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::BuildError;
use crate::derive::{Script, Unit, UnitKind, Units, unit_scope};
use crate::digest::{Digest, HashingWriter};
use crate::fsio::{self, AtomicFile, Disposable, IoContext, PathError, create_dir_all};
use crate::nar;
use crate::parallel;
use crate::store::{Store, StoreError};
use crate::store_path::StorePath;
use members::MemberUnits;
pub(super) use members::NotKept;

/// Where all units are, below the store's directory.
const ALL: &str = "cache/units";

/// Where the script finds units, below its build directory: one directory a crate, each as a target directory.
const LAID: &str = "units";

/// Where the script says whose units it made, below its build directory: `HASH ID` a line.
const OWNERS: &str = "owners";

/// Largest list of owners that is read, in bytes.
const OWNERS_MAX: u64 = 16 << 20;

/// Largest manifest and list that is read, in bytes.
const TEXT_MAX: u64 = 4 << 20;

/// Digits of a unit's hash, as Cargo writes it.
const HASH_DIGITS: usize = 16;

/// Digits of the names in Go's cache.
const GO_DIGITS: usize = 64;

/// Most archives of one module that are laid: which of them Go has use for it finds out itself.
const LAID_OF_MODULE: usize = 3;

/// Most bytes of all units in a store; what was not used for the longest time goes first.
const KEPT_MAX: u64 = 8 << 30;

/// The units that a step can have.
pub(super) struct UnitCache<'a> {
    store: &'a Store,
    /// The directory of the scope.
    dir: PathBuf,
    units: &'a Units,
    /// Crates whose code a build may run, by their keys.
    runs: BTreeSet<String>,
    /// The packages of the source whose units they are, instead of the crates'.
    members: Option<MemberUnits<'a>>,
}

impl<'a> UnitCache<'a> {
    /// The units of `script`, if it has such; `path` gives an input's store path.
    pub(super) fn of(
        store: &'a Store,
        script: &'a Script,
        path: &dyn Fn(&crate::derive::Input) -> StorePath,
    ) -> Result<Option<Self>, BuildError> {
        let (Some(units), Some(scope)) = (script.units.as_ref(), unit_scope(script, path)) else {
            return Ok(None);
        };
        let all = store.dir().join(ALL);
        let mut runs = BTreeSet::new();
        let running = units.crates.iter().filter(|_| units.kind == UnitKind::Cargo);
        for (id, unit) in running {
            let tree = unit.at.as_ref().and_then(|at| script.mounts.get(at));
            let code = tree.map_or(Code::Library, |tree| code_of(&store.physical(&path(tree))));
            runs.extend(match code {
                Code::None => None,
                Code::Library => Some(key(id, unit.closure)),
                Code::Script(dependencies) => Some(key(id, script_closure(unit, &dependencies, units))),
            });
        }
        Ok(Some(Self {
            store,
            dir: all.join(scope.hex()),
            runs,
            units,
            members: MemberUnits::of(store, script, units, path)?,
        }))
    }

    /// Lays what is known of each crate into the build directory; how many crates that are.
    pub(super) fn lay(&self, build: &Path) -> Result<usize, BuildError> {
        if !self.dir.is_dir() {
            return Ok(0);
        }
        if let Some(members) = &self.members {
            return members.lay(self, build);
        }
        let crates: Vec<_> = self.units.crates.iter().enumerate().collect();
        let laid = build.join(LAID);
        let most = match self.units.kind {
            UnitKind::Cargo => 1,
            UnitKind::Go => LAID_OF_MODULE,
        };
        let found = parallel::map(&crates, parallel::threads(0), |(number, (id, unit))| {
            let usable = self.usable(&self.dir.join(key(id, unit.closure)));
            let last = usable.iter().rev().take(most).enumerate();
            let restored = last.map(|(of, archive)| restore(archive, &laid, &format!("{number}-{of}")));
            Ok::<_, BuildError>(restored.collect::<Result<Vec<_>, _>>()?.contains(&true))
        })?;
        Ok(found.into_iter().filter(|is_laid| *is_laid).count())
    }

    /// The archives of a crate that this build may use, those that were used last at the end.
    fn usable(&self, dir: &Path) -> Vec<PathBuf> {
        let names = fsio::sorted_names(dir).unwrap_or_default().into_iter();
        let archives = names
            .map(|name| dir.join(name))
            .filter(|path| path.extension().is_some_and(|end| end == "nar"));
        let usable = archives.filter(|archive| {
            let sets = lines(&archive.with_extension("ran"));
            sets.iter().any(|set| self.may_run(set))
        });
        let mut usable: Vec<_> = usable.map(|archive| (modified(&archive), archive)).collect();
        usable.sort();
        usable.into_iter().map(|(_, archive)| archive).collect()
    }

    /// Whether this build runs all code that ran in another one.
    fn may_run(&self, set: &str) -> bool {
        if Digest::from_hex(set).is_err() {
            return false;
        }
        let path = self.dir.join("sets").join(set);
        match fsio::read_limited(&path, TEXT_MAX) {
            Ok(text) if Digest::of(&text).hex() == set => String::from_utf8_lossy(&text)
                .lines()
                .all(|key| self.runs.contains(key) || self.members.as_ref().is_some_and(|members| members.has(key))),
            _ => false,
        }
    }

    /// Whether a build that failed over what was laid fails without, too, as its last lines have it.
    pub(super) fn fails_without(&self, tail: &[String]) -> bool {
        self.members.is_some() && members::is_of_source(tail)
    }

    /// Keeps what a step made of each crate: `output` is its output in the store, `build` its build directory. Gives what is not
    /// kept that might have been.
    pub(super) fn keep(&self, output: &StorePath, build: &Path) -> Result<BTreeSet<NotKept>, BuildError> {
        if let Some(members) = &self.members {
            return members.keep(self, build);
        }
        let Some(made) = owners(&build.join(OWNERS), self.units)? else {
            return Ok(BTreeSet::new());
        };
        // What was laid is of builds that ran no other code.
        let text: String = self.runs.iter().map(|key| format!("{key}\n")).collect();
        let set = Digest::of(text.as_bytes()).hex();
        publish(&self.dir.join("sets").join(&set), text.as_bytes())?;
        let output = self.store.physical(output);
        let files = match self.units.kind {
            UnitKind::Cargo => unit_files(&output)?,
            UnitKind::Go => go_files(&output)?,
        };
        let crates: Vec<(&String, &BTreeSet<String>)> = made.iter().collect();
        parallel::map(&crates, parallel::threads(0), |(id, hashes)| {
            let own = hashes.iter().filter_map(|hash| files.get(hash)).flatten();
            self.keep_crate(&key(id, self.units.crates[*id].closure), own, None, &set)
        })?;
        trim(self.store)?;
        Ok(BTreeSet::new())
    }

    /// Keeps these files, with a `list` beside them.
    fn keep_crate<'f>(
        &self,
        key: &str,
        files: impl Iterator<Item = &'f UnitFile>,
        list: Option<(&str, &[u8])>,
        set: &str,
    ) -> Result<(), BuildError> {
        let staging = self.store.stage()?;
        let tree = staging.path().join("tree");
        create_dir_all(&tree)?;
        for file in files {
            link_tree(&file.physical, &tree.join(&file.place))?;
        }
        if let Some((name, text)) = list {
            let list = tree.join(name);
            fs::write(&list, text).context("write", &list)?;
        }
        let dir = self.dir.join(key);
        create_dir_all(&dir)?;
        let new = staging.path().join("nar");
        let mut sink = HashingWriter::new(BufWriter::new(File::create(&new).context("create", &new)?));
        nar::write(&tree, &mut sink).map_err(StoreError::from)?;
        let (mut file, hasher, _) = sink.finish();
        file.flush().context("write", &new)?;
        let archive = dir.join(format!("{}.nar", hasher.digest().hex()));
        match archive.exists() {
            true => drop(fsio::note_use(&archive)),
            false => fs::rename(&new, &archive).context("rename a file to", &archive)?,
        }
        let list = archive.with_extension("ran");
        let mut sets = lines(&list);
        if sets.insert(set.to_owned()) {
            let text: String = sets.iter().map(|set| format!("{set}\n")).collect();
            publish(&list, text.as_bytes())?;
        }
        Ok(())
    }
}

/// Hashes of units by their crates, as a script lists them; `None` where there is no list that can be believed. Builds can
/// write what they like to it: a crate that is not among the dependencies makes it worthless, and whose units are whose
/// decides only where they are kept.
fn owners(file: &Path, units: &Units) -> Result<Option<BTreeMap<String, BTreeSet<String>>>, BuildError> {
    let is_file = fs::symlink_metadata(file).is_ok_and(|metadata| metadata.is_file());
    if !is_file {
        return Ok(None);
    }
    let text = fsio::read_limited(file, OWNERS_MAX)?;
    let mut owners: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in String::from_utf8_lossy(&text).lines() {
        match line.split_once(' ') {
            Some((hash, id)) if is_hash(hash, units.kind.digits()) && units.crates.contains_key(id) => {
                owners.entry(id.to_owned()).or_default().insert(hash.to_owned());
            }
            _ => return Ok(None),
        }
    }
    Ok(Some(owners))
}

/// A file or directory of a unit.
struct UnitFile {
    physical: PathBuf,
    /// Where it is in the target directory.
    place: PathBuf,
}

/// All that is of a unit in a target directory, by the unit's hash.
fn unit_files(target: &Path) -> Result<BTreeMap<String, Vec<UnitFile>>, BuildError> {
    let mut files: BTreeMap<String, Vec<UnitFile>> = BTreeMap::new();
    // The profile's directory is at the top, or below the target's triple.
    for top in directories(target)? {
        for profile in directories(&target.join(&top))?
            .into_iter()
            .map(|below| top.join(below))
            .chain([top.clone()])
        {
            for kind in [".fingerprint", "deps", "build"] {
                let dir = profile.join(kind);
                let is_dir = fs::symlink_metadata(target.join(&dir)).is_ok_and(|metadata| metadata.is_dir());
                if !profile.ends_with(kind) && is_dir {
                    for name in fsio::sorted_names(&target.join(&dir))? {
                        let hash = name.to_str().and_then(hash_of);
                        let place = dir.join(&name);
                        let file = UnitFile {
                            physical: target.join(&place),
                            place,
                        };
                        if let Some(hash) = hash {
                            files.entry(hash.to_owned()).or_default().push(file);
                        }
                    }
                }
            }
        }
    }
    Ok(files)
}

/// All that is in a cache of Go's, by the name that Go gives it.
fn go_files(cache: &Path) -> Result<BTreeMap<String, Vec<UnitFile>>, BuildError> {
    let mut files: BTreeMap<String, Vec<UnitFile>> = BTreeMap::new();
    for dir in directories(cache)? {
        for name in fsio::sorted_names(&cache.join(&dir))? {
            let hash = name
                .to_str()
                .and_then(|name| name.rsplit_once('-'))
                .map(|(hash, _)| hash);
            let Some(hash) = hash.filter(|hash| is_hash(hash, GO_DIGITS)) else {
                continue;
            };
            let place = dir.join(&name);
            files.entry(hash.to_owned()).or_default().push(UnitFile {
                physical: cache.join(&place),
                place,
            });
        }
    }
    Ok(files)
}

impl UnitKind {
    /// Digits of the hashes by which units are told from each other.
    fn digits(self) -> usize {
        match self {
            Self::Cargo => HASH_DIGITS,
            Self::Go => GO_DIGITS,
        }
    }
}

fn directories(dir: &Path) -> Result<Vec<PathBuf>, BuildError> {
    let names = fsio::sorted_names(dir)?.into_iter().map(PathBuf::from);
    let is_dir = |name: &PathBuf| fs::symlink_metadata(dir.join(name)).is_ok_and(|metadata| metadata.is_dir());
    Ok(names.filter(is_dir).collect())
}

/// The hash at the end of a unit's name: of `itoa-0123456789abcdef`, of `libitoa-0123456789abcdef.rlib`.
fn hash_of(name: &str) -> Option<&str> {
    let base = name.split_once('.').map_or(name, |(base, _)| base);
    let hash = base.rsplit_once('-').map(|(_, hash)| hash);
    hash.filter(|hash| is_hash(hash, HASH_DIGITS))
}

fn is_hash(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Name of a crate's directory in the cache.
fn key(id: &str, closure: Digest) -> String {
    Digest::of(format!("{id}\n{}", closure.hex()).as_bytes()).hex()
}

/// What of a crate runs when it, or what depends on it, is compiled.
#[derive(Debug, PartialEq, Eq)]
enum Code {
    /// Nothing.
    None,
    /// Its build script, over these of its dependencies.
    Script(BTreeSet<String>),
    /// Itself, with all that is below it.
    Library,
}

/// What of the crate in `tree` runs. Of what cannot be read everything might.
fn code_of(tree: &Path) -> Code {
    let manifest = tree.join("Cargo.toml");
    if !fs::symlink_metadata(&manifest).is_ok_and(|metadata| metadata.is_file()) {
        return Code::Library;
    }
    let text = fsio::read_limited(&manifest, TEXT_MAX).ok();
    let table: Option<toml::Table> = text.and_then(|text| toml::from_str(std::str::from_utf8(&text).ok()?).ok());
    let Some(table) = table else { return Code::Library };
    let lib = table.get("lib");
    let is_macro = ["proc-macro", "proc_macro"]
        .iter()
        .any(|key| lib.is_some_and(|lib| lib.get(key).is_some()));
    let mut kinds = ["crate-type", "crate_type"]
        .iter()
        .filter_map(|key| lib?.get(key)?.as_array())
        .flatten();
    if is_macro || kinds.any(|kind| kind.as_str() == Some("proc-macro")) {
        return Code::Library;
    }
    let package = table.get("package").or_else(|| table.get("project"));
    let has_script = match package.and_then(|package| package.get("build")) {
        Some(toml::Value::Boolean(is_found)) => *is_found,
        Some(_) => true,
        None => tree.join("build.rs").symlink_metadata().is_ok(),
    };
    match has_script {
        true => Code::Script(build_dependencies(&table)),
        false => Code::None,
    }
}

/// The packages that a build script is compiled with.
fn build_dependencies(manifest: &toml::Table) -> BTreeSet<String> {
    let targets = manifest.get("target").and_then(toml::Value::as_table);
    let targets = targets.into_iter().flatten().filter_map(|(_, of)| of.as_table());
    let tables = std::iter::once(manifest).chain(targets);
    let keys = ["build-dependencies", "build_dependencies"];
    let named = tables.flat_map(|table| keys.iter().filter_map(|key| table.get(*key)?.as_table()));
    let names = named.flatten().map(|(name, value)| {
        let package = value.get("package").and_then(toml::Value::as_str);
        package.unwrap_or(name).to_owned()
    });
    names.collect()
}

/// What a build script is made of: its crate's files, and all crates of the names that it depends on, with those below them.
fn script_closure(unit: &Unit, dependencies: &BTreeSet<String>, units: &Units) -> Digest {
    let named = units.crates.iter().filter(|(id, _)| {
        // What has no name there might be any.
        let name = id.rsplit_once('#').and_then(|(_, id)| Some(id.split_once('@')?.0));
        name.is_none_or(|name| dependencies.contains(name))
    });
    let below: String = named
        .map(|(id, unit)| format!("{id} {}\n", unit.closure.hex()))
        .collect();
    Digest::of(format!("{}\n{below}", unit.own.hex()).as_bytes())
}

/// Restores an archive below `laid`; false where it is damaged: then it is removed.
fn restore(archive: &Path, laid: &Path, name: &str) -> Result<bool, BuildError> {
    create_dir_all(laid)?;
    let dest = laid.join(name);
    let expected = archive
        .file_stem()
        .and_then(|stem| Digest::from_hex(stem.to_str()?).ok());
    let is_sound = expected.is_some_and(|expected| is_restored(archive, &dest, &expected));
    match is_sound {
        true => drop(fsio::note_use(archive)),
        false => {
            fsio::remove_tree(&dest)?;
            fsio::remove_tree(archive)?;
        }
    }
    Ok(is_sound)
}

fn is_restored(archive: &Path, dest: &Path, expected: &Digest) -> bool {
    let Ok(file) = File::open(archive) else { return false };
    let mut source = BufReader::with_capacity(1 << 17, file);
    if nar::restore(&mut source, dest).is_err() {
        return false;
    }
    nar::hash(dest).is_ok_and(|(actual, _)| actual == *expected)
}

/// A tree of links to the files of another: they are in a store, and nothing is written to them.
fn link_tree(from: &Path, to: &Path) -> Result<(), BuildError> {
    if let Some(parent) = to.parent() {
        create_dir_all(parent)?;
    }
    let metadata = fs::symlink_metadata(from).context("read", from)?;
    if metadata.is_dir() {
        create_dir_all(to)?;
        for name in fsio::sorted_names(from)? {
            link_tree(&from.join(&name), &to.join(&name))?;
        }
        return Ok(());
    }
    if fs::hard_link(from, to).is_err() {
        match metadata.is_symlink() {
            true => {
                let target = fs::read_link(from).context("read the link", from)?;
                std::os::unix::fs::symlink(target, to).context("create the link", to)?;
            }
            false => fsio::copy_file(from, to)?,
        }
    }
    Ok(())
}

fn lines(file: &Path) -> BTreeSet<String> {
    let text = fsio::read_limited(file, TEXT_MAX).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
}

fn publish(path: &Path, bytes: &[u8]) -> Result<(), BuildError> {
    if let Some(parent) = path.parent() {
        create_dir_all(parent)?;
    }
    let mut file = AtomicFile::create(path)?;
    file.file().write_all(bytes).context("write", path)?;
    Ok(file.publish_unsynced()?)
}

fn modified(path: &Path) -> (i64, i64) {
    fs::symlink_metadata(path).map_or((0, 0), |metadata| (metadata.mtime(), metadata.mtime_nsec()))
}

/// Removes the archives that were not used for the longest time, until few enough are left.
fn trim(store: &Store) -> Result<(), BuildError> {
    let mut archives = stored_units(store)?;
    archives.sort_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
    let mut size: u64 = archives.iter().map(|archive| archive.bytes).sum();
    for archive in archives {
        if size <= KEPT_MAX {
            break;
        }
        size -= archive.bytes;
        remove_unit(&archive)?;
    }
    Ok(())
}

/// The compiled crates that are kept in a store.
///
/// # Errors
///
/// A directory that cannot be read.
pub fn stored_units(store: &Store) -> Result<Vec<Disposable>, BuildError> {
    let all = store.dir().join(ALL);
    let mut archives = Vec::new();
    if !all.is_dir() {
        return Ok(archives);
    }
    for scope in directories(&all)? {
        for key in directories(&all.join(&scope))? {
            let dir = all.join(&scope).join(key);
            for path in fsio::sorted_names(&dir)?.into_iter().map(|name| dir.join(name)) {
                if path.extension().is_some_and(|end| end == "nar")
                    && let Ok(metadata) = fs::symlink_metadata(&path)
                {
                    archives.push(Disposable {
                        bytes: metadata.len(),
                        used: metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                        path,
                    });
                }
            }
        }
    }
    Ok(archives)
}

/// Removes the archive of a compiled crate, unless somebody used it since it was listed; true where it is gone.
///
/// # Errors
///
/// A file that cannot be removed.
pub fn remove_unit(archive: &Disposable) -> Result<bool, PathError> {
    let is_unused = fsio::last_use(&archive.path) == Some(archive.used);
    if is_unused {
        fsio::remove_tree(&archive.path.with_extension("ran"))?;
        fsio::remove_tree(&archive.path)?;
    }
    Ok(is_unused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_known_by_the_end_of_its_name() {
        for (name, hash) in [
            ("itoa-0123456789abcdef", Some("0123456789abcdef")),
            ("libserde_json-0123456789abcdef.rlib", Some("0123456789abcdef")),
            ("x-0123456789abcdef.x.0-cgu.0.rcgu.o", Some("0123456789abcdef")),
            ("libitoa.rlib", None),
            ("itoa-0123", None),
            ("itoa-0123456789ABCDEF", None),
        ] {
            assert_eq!(hash_of(name), hash, "{name}");
        }
    }

    #[test]
    fn code_runs_by_scripts_and_macros() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = dir.path().join("Cargo.toml");
        assert_eq!(code_of(dir.path()), Code::Library, "nothing is known of it");
        let script = |names: &[&str]| Code::Script(names.iter().map(|name| (*name).to_owned()).collect());
        for (text, code) in [
            ("[package]\nname = \"x\"\n", Code::None),
            ("[package]\nname = \"x\"\nbuild = false\n", Code::None),
            (
                "[package]\nname = \"x\"\nbuild = \"b.rs\"\n[dependencies]\na = \"1\"\n",
                script(&[]),
            ),
            (
                "[package]\nname = \"x\"\nbuild = \"b.rs\"\n[build-dependencies]\na = \"1\"\n\
                 [target.'cfg(unix)'.build-dependencies]\nb = { package = \"c\", version = \"1\" }\n",
                script(&["a", "c"]),
            ),
            (
                "[package]\nname = \"x\"\nbuild = \"b.rs\"\n[lib]\nproc-macro = true\n",
                Code::Library,
            ),
            (
                "[package]\nname = \"x\"\n[lib]\ncrate-type = [\"proc-macro\"]\n",
                Code::Library,
            ),
            ("[package\n", Code::Library),
        ] {
            fs::write(&manifest, text).unwrap();
            assert_eq!(code_of(dir.path()), code, "{text}");
        }
        fs::write(&manifest, "[package]\nname = \"x\"\n").unwrap();
        fs::write(dir.path().join("build.rs"), "").unwrap();
        assert_eq!(code_of(dir.path()), script(&[]));
    }

    #[test]
    fn a_list_with_a_stranger_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(OWNERS);
        let unit = crate::derive::Unit {
            own: Digest::of(b""),
            closure: Digest::of(b""),
            at: None,
        };
        let units = Units {
            kind: UnitKind::Cargo,
            scope: Digest::of(b""),
            crates: BTreeMap::from([("registry+x#a@1.0.0".to_owned(), unit)]),
            members: None,
        };
        let read = |text: &str| {
            fs::write(&file, text).unwrap();
            owners(&file, &units).unwrap()
        };
        let made = read("0123456789abcdef registry+x#a@1.0.0\n").unwrap();
        assert_eq!(made["registry+x#a@1.0.0"].len(), 1);
        for text in [
            "0123456789abcdef registry+x#b@1.0.0\n",
            "../../etc registry+x#a@1.0.0\n",
            "nonsense\n",
        ] {
            assert!(read(text).is_none(), "{text}");
        }
    }
}
