//! The *configure step*: Debian's maintainer scripts, run in the sandbox over packages' trees as the store has them.
//!
//! Invariant: an output depends on the packages and on the rules here alone. It holds what the scripts made or changed and
//! nothing else: `tree/`, and a [`Record`] of modes, owners and capabilities, which a store path cannot hold. Secrets and
//! state that is to be one machine's are never in it.
//!
//! There are two kinds of it. The *tools* are Debian's Essential packages, all there before any script runs, as the package
//! manager's users take for granted. An *image's* packages are configured over what came of them: their trees lie over
//! theirs, and their scripts run with their programs, none of which gets into the image.
//!
//! Packages are configured in the order of their dependencies, those with scripts one at a time, so that what a script made
//! is known to be its package's, and a script that fails is named.

mod alternatives;
mod answers;
mod boot;
mod diversions;
mod error;
mod harvest;
mod locales;
mod normalise;
mod package;
mod record;
mod rules;
mod run;
mod seed;
mod sysusers;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

pub use boot::{SystemAccounts, directories as boot_directories};
pub use error::ConfigureError;
pub use package::{Source, has_scripts};
pub use record::{ChosenAccounts, Dropped, Entry, Maker, RECORD, Record, ScriptsOutcome, TREE};

use crate::fsio::{self, IoContext};
use crate::sandbox::RuntimeSettings;
use diversions::Diversions;
use harvest::{Change, copy_into};
use locales::Locale;
use package::Package;
use rules::Verdict;
use run::Scripts;

/// Packages that are never configured, and why.
const NEVER_RUN: [(&str, &str); 1] = [(
    "usrmerge",
    "it moves the files of a running system; those of packages are where it moves them",
)];

/// Largest file of accounts that is read, in bytes.
const ACCOUNTS_MAX: u64 = 1 << 20;

/// What is to be configured.
pub struct Request {
    /// What came of the tools, and their packages; `None`: these are the tools.
    pub tools: Option<(PathBuf, Vec<Source>)>,
    /// The packages in the order of their dependencies; those that depend on each other together. Those of the tools may
    /// be among them.
    pub groups: Vec<Vec<Source>>,
    /// Answers to what the scripts ask, by the question's name.
    pub answers: BTreeMap<String, String>,
    /// The tree of the package that locales are made of, and those to make.
    pub locales: Option<(PathBuf, Vec<String>)>,
    /// Certificates that are to be trusted beside Debian's, in PEM form, by name.
    pub certificates: BTreeMap<String, String>,
    /// Packages whose scripts are not to run.
    pub skip: BTreeSet<String>,
    /// Whether packages are missing that these depend on, which is no reason not to configure them.
    pub incomplete: bool,
    /// The program that becomes the sandbox's helper; `None`: this one.
    pub helper: Option<PathBuf>,
    /// What is fixed of the surroundings.
    pub settings: RuntimeSettings,
    /// The environment of every script: [`environment`].
    pub env: Vec<(String, String)>,
}

/// The environment of every maintainer script.
pub fn environment() -> Vec<(String, String)> {
    let pairs = run::ENVIRONMENT.iter();
    pairs
        .map(|&(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// The tools, configured.
struct Tools {
    output: PathBuf,
    record: Record,
    packages: Vec<Package>,
}

/// Configures packages; `staging` is an existing directory for this alone, `output` becomes the store path. What scripts
/// print goes to `log`.
pub fn configure(
    request: &Request,
    staging: &Path,
    output: &Path,
    log: &mut dyn FnMut(&[u8]),
) -> Result<Record, ConfigureError> {
    let tools = match &request.tools {
        None => None,
        Some((output, packages)) => Some(Tools {
            record: Record::read(output)?,
            output: output.clone(),
            packages: packages.iter().map(Package::read).collect::<Result<_, _>>()?,
        }),
    };
    let of_tools: BTreeSet<&str> = (tools.iter())
        .flat_map(|tools| tools.packages.iter().map(|package| package.name.as_str()))
        .collect();
    let groups = (request.groups.iter())
        .map(|group| group.iter().map(Package::read).collect::<Result<Vec<_>, _>>())
        .collect::<Result<Vec<_>, _>>()?;
    let new = groups.iter().map(|group| {
        let new = group.iter().filter(|package| !of_tools.contains(package.name.as_str()));
        new.collect::<Vec<_>>()
    });
    let new: Vec<Vec<&Package>> = new.filter(|group| !group.is_empty()).collect();
    let skipped = skipped(request, &new);
    let ran = ran(&new, &skipped);
    let mut scripts = Scripts::prepare(request, staging, &new.concat(), tools.as_ref(), &skipped)?;
    let selections = answers::selections(&request.answers, &new.concat())?;
    let locales = request.locales.as_ref();
    let locales = locales.map(|(sources, names)| Locale::find_all(names, sources));
    // Without a script nobody waits for a trigger either.
    if !ran.is_empty() {
        scripts.answer(&selections, log)?;
        scripts.add_certificates(&request.certificates, log)?;
        scripts.configure(&new, &skipped, log)?;
    }
    for locale in locales.transpose()?.into_iter().flatten() {
        scripts.make_locale(&locale, log)?;
    }
    let changes = scripts.changes(tools.as_ref())?;
    fs::create_dir_all(output.join(TREE)).context("create", output)?;
    let mut record = Record {
        ran,
        skipped,
        ..Record::default()
    };
    match &tools {
        None => keep_all(changes, output, &mut record)?,
        Some(tools) => {
            let all: Vec<&Package> = groups.iter().flatten().collect();
            keep_for_image(changes, tools, &all, output, &mut record)?;
            add_alternatives(&[scripts.upper(), &tools.output.join(TREE)], &all, output, &mut record)?;
            add_boot_directories(tools, &all, output, &mut record)?;
        }
    }
    let path = output.join(RECORD);
    fs::write(&path, record.print()).context("write", &path)?;
    Ok(record)
}

fn skipped(request: &Request, groups: &[Vec<&Package>]) -> BTreeMap<String, String> {
    let reason = |name: &str| {
        let never = NEVER_RUN.iter().find(|(own, _)| *own == name);
        match never {
            Some((_, reason)) => Some((*reason).to_owned()),
            None => request
                .skip
                .contains(name)
                .then(|| "the image's `configure` says so".to_owned()),
        }
    };
    let packages = groups.iter().flatten();
    packages
        .filter_map(|package| Some((package.name.clone(), reason(&package.name)?)))
        .collect()
}

fn ran(groups: &[Vec<&Package>], skipped: &BTreeMap<String, String>) -> BTreeSet<String> {
    let packages = groups.iter().flatten();
    packages
        .filter(|package| package.has_scripts() && !skipped.contains_key(&package.name))
        .map(|package| package.name.clone())
        .collect()
}

/// Of the tools everything is kept that later steps may need.
fn keep_all(changes: BTreeMap<String, Change>, output: &Path, record: &mut Record) -> Result<(), ConfigureError> {
    for (path, change) in changes {
        let Change::Made { entry, is_new, place } = change else {
            continue;
        };
        if !rules::tools_keep(&path) {
            continue;
        }
        if is_new {
            put(&path, &place, output)?;
        }
        record.entries.insert(path, entry);
    }
    Ok(())
}

/// Puts a file of scripts into the output, without what says when it was made.
fn put(path: &str, place: &Path, output: &Path) -> Result<(), ConfigureError> {
    copy_into(output, path, place)?;
    let dest = output.join(TREE).join(path);
    if let Some(rewrite) = normalise::rewrite(path)
        && dest.symlink_metadata().is_ok_and(|metadata| metadata.is_file())
    {
        let bytes = fsio::read_limited(&dest, normalise::SIZE_MAX)?;
        if let Some(bytes) = rewrite(&bytes) {
            fs::write(&dest, bytes).context("write", &dest)?;
        }
    }
    Ok(())
}

/// Of an image's packages what the image is to have: what their scripts made now, and when the tools were made.
fn keep_for_image(
    mut changes: BTreeMap<String, Change>,
    tools: &Tools,
    packages: &[&Package],
    output: &Path,
    record: &mut Record,
) -> Result<(), ConfigureError> {
    let names: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    for (path, entry) in &tools.record.entries {
        if entry.by.iter().any(|name| names.contains(name.as_str())) && !changes.contains_key(path) {
            let place = tools.output.join(TREE).join(path);
            let is_new = place.symlink_metadata().is_ok();
            let entry = entry.clone();
            changes.insert(path.clone(), Change::Made { entry, is_new, place });
        }
    }
    // The scripts of those that are tools, too, ran when the tools were made.
    let of_tools = |name: &&String| names.contains(name.as_str());
    record.ran.extend(tools.record.ran.iter().filter(of_tools).cloned());
    let skipped = tools.record.skipped.iter();
    let skipped = skipped.filter(|(name, _)| of_tools(name));
    record
        .skipped
        .extend(skipped.map(|(name, reason)| (name.clone(), reason.clone())));
    let mut gone = BTreeSet::new();
    changes.retain(|path, change| match rules::judge(path) {
        Verdict::Kept => true,
        verdict => {
            if let (Verdict::Told(reason), Change::Made { place, entry, .. }) = (verdict, &*change)
                && !place.is_dir()
            {
                record.drop(path, reason, &entry.by);
            }
            gone.insert(path.clone());
            false
        }
    });
    // Which program wins is decided anew, among those of the image.
    changes.retain(|path, change| !matches!(change, Change::Made { place, .. } if is_alternative(path, place)));
    drop_links_to_nothing(&mut changes, &mut gone)?;
    record.entries = shipped_attributes(packages);
    for (path, change) in changes {
        match change {
            Change::Removed { by }
                if packages
                    .iter()
                    .any(|package| package.tree.join(&path).symlink_metadata().is_ok()) =>
            {
                record.drop(
                    &path,
                    "a script removed what a package ships; the image still has it",
                    &by,
                );
            }
            Change::Removed { .. } => {}
            Change::Made { entry, is_new, place } => {
                if is_new {
                    put(&path, &place, output)?;
                }
                record.entries.insert(path, entry);
            }
        }
    }
    Ok(())
}

/// Whether a link is one of alternatives.
fn is_alternative(path: &str, place: &Path) -> bool {
    let target = fs::read_link(place);
    target.is_ok_and(|target| path.starts_with("etc/alternatives/") || target.starts_with("/etc/alternatives"))
}

/// Adds the links of alternatives, of what the image has alone.
fn add_alternatives(
    states: &[&Path],
    packages: &[&Package],
    output: &Path,
    record: &mut Record,
) -> Result<(), ConfigureError> {
    let owners = |path: &str| -> BTreeSet<String> {
        let path = path.trim_start_matches('/');
        let owners = packages.iter().filter(|package| in_tree(&package.tree, path));
        owners.map(|package| package.name.clone()).collect()
    };
    let made: BTreeSet<String> = record.entries.keys().cloned().collect();
    let is_there = |path: &str| made.contains(&merged(path.trim_start_matches('/'))) || !owners(path).is_empty();
    let links = alternatives::links(states, &is_there)?;
    for (link, target) in &links {
        let path = merged(link.trim_start_matches('/'));
        let place = output.join(TREE).join(&path);
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent).context("create", parent)?;
        }
        symlink(target, &place).context("create the link", &place)?;
        let entry = Entry {
            mode: 0o777,
            by: owners(links.get(target).unwrap_or(target)),
            ..Entry::default()
        };
        record.entries.insert(path, entry);
    }
    Ok(())
}

/// Adds the accounts that packages declare and the directories that an init would make, where no script and no package has
/// them.
fn add_boot_directories(
    tools: &Tools,
    packages: &[&Package],
    output: &Path,
    record: &mut Record,
) -> Result<(), ConfigureError> {
    let fixed = sysusers::add(tools, packages, output, record)?;
    let text = |name: &str| -> Result<String, ConfigureError> {
        let places = [output, &tools.output].map(|dir| dir.join(TREE).join("etc").join(name));
        match places.iter().find(|place| place.is_file()) {
            Some(place) => Ok(String::from_utf8_lossy(&fsio::read_limited(place, ACCOUNTS_MAX)?).into_owned()),
            None => Ok(String::new()),
        }
    };
    let (passwd, group) = (text("passwd")?, text("group")?);
    if output.join(TREE).join("etc/passwd").is_file() {
        record.accounts = ChosenAccounts::of(&passwd, &group, &fixed);
    }
    let accounts = SystemAccounts::parse(&passwd, &group);
    let trees: Vec<(&str, &Path)> = (packages.iter())
        .map(|package| (package.name.as_str(), package.tree.as_path()))
        .collect();
    for (path, entry) in boot_directories(&trees, &accounts)? {
        if record.entries.contains_key(&path) {
            continue;
        }
        let place = output.join(TREE).join(&path);
        fs::create_dir_all(&place).context("create", &place)?;
        record.entries.insert(path, entry);
    }
    Ok(())
}

/// Links to what no image gets go, too, and links to these.
fn drop_links_to_nothing(
    changes: &mut BTreeMap<String, Change>,
    gone: &mut BTreeSet<String>,
) -> Result<(), ConfigureError> {
    loop {
        let mut dead = Vec::new();
        for (path, change) in changes.iter() {
            let Change::Made { place, .. } = change else { continue };
            if !place.is_symlink() {
                continue;
            }
            let target = fs::read_link(place).context("read the link", place)?;
            let parent = crate::root::parent(path.as_bytes());
            let bytes = std::os::unix::ffi::OsStrExt::as_bytes(target.as_os_str());
            let target = String::from_utf8_lossy(&crate::root::resolve(parent, bytes)).into_owned();
            if gone.contains(&target) {
                dead.push(path.clone());
            }
        }
        if dead.is_empty() {
            return Ok(());
        }
        for path in dead {
            changes.remove(&path);
            gone.insert(path);
        }
    }
}

/// Whether a package's tree has something at `path`, before or after the merge of `/usr`.
fn in_tree(tree: &Path, path: &str) -> bool {
    [tree.join(path), tree.join("usr").join(path)]
        .iter()
        .any(|place| place.symlink_metadata().is_ok())
}

/// The entries that packages ship with other modes and owners than a store path's usual ones.
fn shipped_attributes(packages: &[&Package]) -> BTreeMap<String, Entry> {
    let mut entries = BTreeMap::new();
    let diversions = Diversions::of(packages.iter().copied());
    for package in packages {
        for shipped in package
            .files
            .iter()
            .filter(|shipped| shipped.kind != 'l' && !shipped.path.is_empty())
        {
            let is_directory = shipped.kind == 'd';
            let usual = if is_directory || shipped.mode & 0o111 != 0 {
                0o755
            } else {
                0o644
            };
            if (shipped.mode, shipped.uid, shipped.gid) == (usual, 0, 0) {
                continue;
            }
            let path = merged(shipped.path.trim_start_matches('/'));
            let path = diversions.place(&package.name, &path).to_owned();
            let entry = entries.entry(path).or_insert_with(|| Entry {
                mode: shipped.mode,
                uid: shipped.uid,
                gid: shipped.gid,
                maker: Maker::Packages,
                ..Entry::default()
            });
            entry.by.insert(package.name.clone());
        }
    }
    entries
}

/// Where something is after the merge of `/usr`.
fn merged(path: &str) -> String {
    match path.split('/').next() {
        Some(top) if crate::root::MERGED_DIRS.contains(&top) && path != top => format!("usr/{path}"),
        _ => path.to_owned(),
    }
}
