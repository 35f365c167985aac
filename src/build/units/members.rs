//! The units of *members*: what was compiled of a package of the source is kept, too, and laid where it would come out the same.
//!
//! Invariant: Cargo is not asked whether such a unit is fresh, as it goes by times, and all times are equal. A unit is laid only
//! where these are as they were: the files of the package's directory and of the packages that it needs, the crates that these
//! need, and whatever else of the source the compiler said that it read. A package is not kept where something ran that reads
//! files and does not say which: a build script, or a macro of a crate in whose text stands that it might.
//!
//! An archive holds, beside one unit, the list `reads`: the files outside the package's directory, `SHA256 PATH` a line.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::macros;
use super::source::SourceFiles;
use super::{Code, LAID, UnitCache, UnitFile, code_of, hash_of, lines, publish, restore, trim, unit_files};
use crate::build::BuildError;
use crate::derive::{Input, Members, Script, Units};
use crate::digest::Digest;
use crate::fsio::{self, IoContext, create_dir_all};
use crate::parallel;
use crate::sandbox::copy::SOURCE_DATE_EPOCH;
use crate::store::Store;
use crate::store_path::StorePath;

/// Where Cargo compiles, below the build directory.
const TARGET: &str = "target";

/// The list of files in an archive.
const READS: &str = "reads";

/// Most units of one package that are laid, those that were used last: it may have many programs, and several sets of features.
const LAID_OF_MEMBER: usize = 64;

/// Largest list of what a compiler read, in bytes.
const DEP_INFO_MAX: u64 = 16 << 20;

/// Errors that could come of what was laid, as far as they say so.
const OF_WHAT_IS_LAID: &[&str] = &[
    "Permission denied",
    "Read-only file system",
    "error[E0460]",
    "error[E0461]",
    "error[E0462]",
    "error[E0463]",
    "error[E0464]",
    "error[E0514]",
    "error[E0519]",
];

/// Something that is compiled anew by each build.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::build) struct NotKept {
    /// The package.
    pub package: String,
    /// Why.
    pub reason: String,
}

/// The units of a source's packages.
pub(super) struct MemberUnits<'a> {
    members: &'a Members,
    source: SourceFiles,
    /// Where each package's units are kept; those are missing of which not all files are known.
    keys: BTreeMap<&'a str, String>,
    /// Where the files of crates are, by their names; `None`: of no concern for who mounts them.
    trees: BTreeMap<String, BTreeSet<Option<PathBuf>>>,
}

/// A unit that Cargo compiled: the package and its files.
struct Made<'f> {
    package: &'f str,
    files: &'f [UnitFile],
}

impl<'a> MemberUnits<'a> {
    /// The units of the packages in the source of `script`, if it has such.
    pub(super) fn of(
        store: &Store,
        script: &Script,
        units: &'a Units,
        path: &dyn Fn(&Input) -> StorePath,
    ) -> Result<Option<Self>, BuildError> {
        let (Some(members), Some(source)) = (&units.members, &script.source) else {
            return Ok(None);
        };
        let source = SourceFiles::read(&store.physical(&path(source)), &members.dirs)?;
        let mut keys = BTreeMap::new();
        for (name, member) in &members.packages {
            let below = members.needs.get(name).into_iter().flatten();
            let mut text = format!("{name}\n{}\n", member.closure.hex());
            let is_known =
                below
                    .filter_map(|name| members.packages.get(name))
                    .all(|below| match source.of_dir(&below.dir) {
                        Some(files) => writeln!(text, "{} {}", files.hex(), below.dir).is_ok(),
                        None => false,
                    });
            if is_known {
                keys.insert(name.as_str(), Digest::of(text.as_bytes()).hex());
            }
        }
        let mut trees: BTreeMap<String, BTreeSet<Option<PathBuf>>> = BTreeMap::new();
        for (id, unit) in &units.crates {
            let mounted = unit.at.as_ref().and_then(|at| script.mounts.get(at));
            let tree = mounted.map(|tree| store.physical(&path(tree)));
            trees.entry(name_in(id).to_owned()).or_default().insert(tree);
        }
        Ok(Some(Self {
            members,
            source,
            keys,
            trees,
        }))
    }

    /// Lays what would come out the same into the target directory; how many packages that is something of.
    pub(super) fn lay(&self, cache: &UnitCache<'_>, build: &Path) -> Result<usize, BuildError> {
        let keys: Vec<&String> = self.keys.values().collect();
        let staged = build.join(LAID);
        let found = parallel::map(&keys, parallel::threads(0), |key| {
            let usable = cache.usable(&cache.dir.join(key));
            let mut current = Vec::new();
            for (number, archive) in usable.iter().rev().take(LAID_OF_MEMBER).enumerate() {
                let name = format!("{key}-{number}");
                let unit = staged.join(&name);
                if restore(archive, &staged, &name)? && lines(&unit.join(READS)).iter().all(|line| self.has(line)) {
                    current.push(unit);
                }
            }
            Ok::<_, BuildError>(current)
        })?;
        let mut laid = 0;
        for units in found {
            let mut is_laid = false;
            for unit in units {
                is_laid |= lay_unit(&unit, &build.join(TARGET))?;
            }
            laid += usize::from(is_laid);
        }
        fsio::remove_tree(&staged)?;
        Ok(laid)
    }

    /// Whether a line `SHA256 PATH` is true of the source.
    pub(super) fn has(&self, line: &str) -> bool {
        let file = line.split_once(' ');
        file.is_some_and(|(hash, path)| self.source.file(path).is_some_and(|file| file.hex() == hash))
    }

    /// Keeps what Cargo compiled in a build directory; what it would not do to keep, and why.
    pub(super) fn keep(&self, cache: &UnitCache<'_>, build: &Path) -> Result<BTreeSet<NotKept>, BuildError> {
        let target = build.join(TARGET);
        let mut not_kept = BTreeSet::new();
        if !fs::symlink_metadata(&target).is_ok_and(|metadata| metadata.is_dir()) {
            return Ok(not_kept);
        }
        let files = unit_files(&target)?;
        let made: BTreeMap<&str, Made<'_>> = (files.iter())
            .filter_map(|(hash, files)| Some((hash.as_str(), Made::of(files)?)))
            .collect();
        let new: Vec<&Made<'_>> = (made.values())
            .filter(|unit| self.members.packages.contains_key(unit.package) && unit.is_new())
            .collect();
        if new.is_empty() {
            return Ok(not_kept);
        }
        let ran = Ran::in_build(self, &files, &made);
        let mut told = |package: &str, reason: String| {
            let package = package.to_owned();
            not_kept.insert(NotKept { package, reason });
        };
        let code = match self.code_of_members(&ran, &made, build) {
            Ok(code) => code,
            Err(reason) => {
                new.iter().for_each(|unit| told(unit.package, reason.clone()));
                return Ok(not_kept);
            }
        };
        let code = cache.runs.iter().chain(&code);
        let text: String = code.map(|line| format!("{line}\n")).collect();
        let set = Digest::of(text.as_bytes()).hex();
        publish(&cache.dir.join("sets").join(&set), text.as_bytes())?;
        for unit in new {
            match self.reads_of(unit, &ran, build) {
                Ok(reads) => {
                    let key = &self.keys[unit.package];
                    let list = Some((READS, reads.as_bytes()));
                    cache.keep_crate(key, unit.files.iter(), list, &set)?;
                }
                Err(reason) => told(unit.package, reason),
            }
        }
        trim(cache.store)?;
        Ok(not_kept)
    }

    /// What a unit's compiler read outside the package's directory; or why the unit cannot be kept.
    fn reads_of(&self, unit: &Made<'_>, ran: &Ran, build: &Path) -> Result<String, String> {
        if !self.keys.contains_key(unit.package) {
            return Err("a link in it leads out of it".to_owned());
        }
        // Macros do not run while they themselves are compiled.
        let counts = |name: &str| name != unit.package || ran.scripts.contains(name);
        let mut needs = self.needs(unit.package).filter(|name| counts(name)).chain([""]);
        if let Some(reason) = needs.find_map(|name| ran.may_read_files.get(name)) {
            return Err(reason.clone());
        }
        let dir = &self.members.packages[unit.package].dir;
        let mut outside = BTreeMap::new();
        let mut is_inside = false;
        for path in self.read_files(unit.files, build)? {
            if self.source.is_below(&path.0, dir) {
                is_inside = true;
                continue;
            }
            if self.source.may_have_modules(&path.0) {
                return Err(format!(
                    "it is compiled from `{}`, which is not in its directory",
                    path.0
                ));
            }
            outside.insert(path.0, path.1);
        }
        if !is_inside {
            return Err("the compiler does not say what it is made of".to_owned());
        }
        Ok(outside
            .iter()
            .map(|(path, hash)| format!("{} {path}\n", hash.hex()))
            .collect())
    }

    /// The files that a compiler read, relative to the source, if all of them are there as they were when it read them.
    fn read_files(&self, files: &[UnitFile], build: &Path) -> Result<BTreeSet<(String, Digest)>, String> {
        let mut read = BTreeSet::new();
        for list in dep_infos(files) {
            let text = fsio::read_limited(&list, DEP_INFO_MAX).map_err(|error| error.to_string())?;
            for path in paths_in(&String::from_utf8_lossy(&text)) {
                let place = match path.strip_prefix("/build/source/") {
                    Some(place) => place.to_owned(),
                    None if path.starts_with('/') => return Err(format!("it is compiled from `{path}`")),
                    None if self.members.root.is_empty() => path,
                    None => format!("{}/{path}", self.members.root),
                };
                let was = self.source.file(&place);
                let was = was.ok_or_else(|| format!("it is compiled from `{place}`, which is not in the source"))?;
                if super::source::digest_of(&build.join("source").join(&place)) != Some(was) {
                    return Err(format!("it is compiled from `{place}`, which the build changes"));
                }
                read.insert((place, was));
            }
        }
        Ok(read)
    }

    /// The files of the members whose code ran in a build, `SHA256 PATH` each; or why they are not known.
    fn code_of_members(
        &self,
        ran: &Ran,
        made: &BTreeMap<&str, Made<'_>>,
        build: &Path,
    ) -> Result<BTreeSet<String>, String> {
        let mut whole: BTreeSet<&str> = BTreeSet::new();
        for name in ran
            .macros
            .iter()
            .filter(|name| self.members.packages.contains_key(*name))
        {
            whole.extend(self.needs(name));
        }
        for name in ran
            .scripts
            .iter()
            .filter_map(|name| self.members.packages.get_key_value(name))
        {
            let tree = self.source.path(&name.1.dir);
            let known = |below: &String| self.members.needs.contains_key(below);
            match code_of(&tree) {
                Code::Script(below) if below.iter().all(known) => {
                    whole.extend(below.iter().flat_map(|name| self.needs(name)));
                }
                _ => whole.extend(self.needs(name.0)),
            }
        }
        let mut code = BTreeSet::new();
        let mut unknown = ran.scripts.clone();
        for unit in made.values() {
            let is_script = unit.files.iter().any(is_script);
            if whole.contains(unit.package) && self.members.packages.contains_key(unit.package)
                || is_script && ran.scripts.contains(unit.package)
            {
                let read = self.read_files(unit.files, build);
                let read = read.map_err(|reason| format!("code of `{}` runs: {reason}", unit.package))?;
                if is_script && !read.is_empty() {
                    unknown.remove(unit.package);
                }
                code.extend(read.into_iter().map(|(path, hash)| format!("{} {path}", hash.hex())));
            }
        }
        match unknown.first() {
            None => Ok(code),
            Some(name) => Err(format!(
                "the compiler does not say what the build script of `{name}` is made of"
            )),
        }
    }

    /// The names of all that a package may need, its own among them.
    fn needs(&self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let members: &'a Members = self.members;
        members.needs.get(name).into_iter().flatten().map(String::as_str)
    }
}

/// Whose code ran in a build.
struct Ran {
    /// Members with build scripts.
    scripts: BTreeSet<String>,
    /// Packages and crates with macros.
    macros: BTreeSet<String>,
    /// Those that may have read files, and what is told of it.
    may_read_files: BTreeMap<String, String>,
}

impl Ran {
    fn in_build(
        of: &MemberUnits<'_>,
        files: &BTreeMap<String, Vec<UnitFile>>,
        made: &BTreeMap<&str, Made<'_>>,
    ) -> Self {
        let mut ran = Self {
            scripts: BTreeSet::new(),
            macros: BTreeSet::new(),
            may_read_files: BTreeMap::new(),
        };
        for (hash, files) in files {
            if files.iter().any(is_macro) {
                // One of which nothing is known has no name: it may be anybody's.
                let name = made.get(hash.as_str()).map_or("", |unit| unit.package);
                ran.macros.insert(name.to_owned());
            }
        }
        for unit in made
            .values()
            .filter(|unit| of.members.packages.contains_key(unit.package))
        {
            if unit.files.iter().any(is_script) {
                ran.scripts.insert(unit.package.to_owned());
                let reason = format!("the build script of `{}` may read any file", unit.package);
                ran.may_read_files.insert(unit.package.to_owned(), reason);
            }
        }
        for name in ran.macros.iter().filter(|name| !of.reads_no_files(name)) {
            let reason = format!("macros of `{name}` may read any file");
            ran.may_read_files.entry(name.clone()).or_insert(reason);
        }
        ran
    }
}

impl MemberUnits<'_> {
    /// Whether neither a crate's text nor that of what it needs has a word of files.
    fn reads_no_files(&self, name: &str) -> bool {
        let Some(needs) = self.members.needs.get(name) else {
            return false;
        };
        needs.iter().all(|name| {
            let own = self.members.packages.get(name);
            let own = own.map(|member| Some(self.source.path(&member.dir)));
            let mut trees = self
                .trees
                .get(name)
                .into_iter()
                .flatten()
                .cloned()
                .chain(own)
                .peekable();
            trees.peek().is_some() && trees.all(|tree| tree.is_some_and(|tree| macros::reads_no_files(&tree)))
        })
    }
}

impl<'f> Made<'f> {
    /// The unit that has these files, if Cargo takes note of it.
    fn of(files: &'f [UnitFile]) -> Option<Self> {
        let note = files.iter().find(|file| is_note(file))?;
        let package = note.place.file_name()?.to_str()?.rsplit_once('-')?.0;
        Some(Self { package, files })
    }

    /// Whether it was not laid.
    fn is_new(&self) -> bool {
        let note = self.files.iter().find(|file| is_note(file));
        let time = note.and_then(|note| fs::symlink_metadata(note.physical.join("invoked.timestamp")).ok());
        time.is_some_and(|time| time.mtime() != SOURCE_DATE_EPOCH)
    }
}

/// Whether this is the directory in which Cargo notes what a unit was made of.
fn is_note(file: &UnitFile) -> bool {
    file.place.parent().is_some_and(|dir| dir.ends_with(".fingerprint"))
}

/// Whether this is of a build script, or of one that ran.
fn is_script(file: &UnitFile) -> bool {
    file.place.parent().is_some_and(|dir| dir.ends_with("build"))
}

/// Whether this is a library that the compiler loads.
fn is_macro(file: &UnitFile) -> bool {
    let name = file.place.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with("lib") && name.ends_with(".so") && hash_of(name).is_some())
}

/// What a package is called by its ID; an address that ends in it may stand for it.
fn name_in(id: &str) -> &str {
    let (address, last) = id.rsplit_once('#').unwrap_or(("", id));
    match last.split_once('@') {
        Some((name, _)) => name,
        None => {
            let address = address.split(['?', '#']).next().unwrap_or_default();
            let name = address.rsplit('/').next().unwrap_or_default();
            name.strip_suffix(".git").unwrap_or(name)
        }
    }
}

/// Moves a unit into a target directory, with the time of all that is in a source; false where it is there already.
fn lay_unit(unit: &Path, target: &Path) -> Result<bool, BuildError> {
    let files: Vec<UnitFile> = unit_files(unit)?.into_values().flatten().collect();
    if files
        .iter()
        .any(|file| target.join(&file.place).symlink_metadata().is_ok())
    {
        return Ok(false);
    }
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(SOURCE_DATE_EPOCH.unsigned_abs());
    for file in files {
        let place = target.join(&file.place);
        if let Some(parent) = place.parent() {
            create_dir_all(parent)?;
        }
        fs::rename(&file.physical, &place).context("rename a file to", &place)?;
        for entry in fsio::walk(&place) {
            let entry = entry?;
            if entry.file_type().is_file() {
                let path = entry.path();
                let file = File::open(path).context("open", path)?;
                file.set_modified(time).context("set the time of", path)?;
            }
        }
    }
    Ok(true)
}

/// The files in which a unit's compiler says what it read.
fn dep_infos(files: &[UnitFile]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for file in files {
        match is_script(file) {
            true => {
                let names = fsio::sorted_names(&file.physical).unwrap_or_default();
                found.extend(names.into_iter().map(|name| file.physical.join(name)));
            }
            false => found.push(file.physical.clone()),
        }
    }
    let is_list = |path: &PathBuf| {
        let is_file = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file());
        is_file && path.extension().is_some_and(|end| end == "d")
    };
    found.retain(is_list);
    found
}

/// The files that a list of a compiler's names: each has a rule of its own that says nothing.
fn paths_in(text: &str) -> impl Iterator<Item = String> {
    let rules = text.lines().filter(|line| !line.starts_with('#'));
    rules
        .filter_map(|line| line.strip_suffix(':'))
        .map(|path| path.replace("\\ ", " "))
}

/// Whether the last lines of a failed build say that the source is at fault, and not what was laid.
pub(super) fn is_of_source(tail: &[String]) -> bool {
    let says = |text: &str| tail.iter().any(|line| line.contains(text));
    says("could not compile `") && !OF_WHAT_IS_LAID.iter().any(|text| says(text))
}
