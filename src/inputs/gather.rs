//! What a plan takes from *outside*: the files of all steps that some targets need, build tools included.
//!
//! Invariant: a file is named once, by its hash; what may not be copied is among the withheld, whoever else names it.

use std::collections::{BTreeMap, BTreeSet};

use super::artifact::InputFile;
use super::error::InputsError;
use crate::derive::{BuildPlan, Download, Input, Origin};
use crate::digest::FileHash;
use crate::spec::{Lock, Package, Source, Withheld, Workspace};

/// The files that a build takes from outside, sorted by name.
#[derive(Debug, Clone, Default)]
pub struct Needed {
    /// What may be copied, each with how to fetch it.
    pub files: Vec<(InputFile, Download)>,
    /// What may not.
    pub withheld: Vec<(InputFile, Download)>,
}

impl Needed {
    /// These files and those, each once; what may not be copied of one may not be copied of both.
    pub fn and(self, other: Self) -> Self {
        let withheld: BTreeSet<FileHash> = (self.withheld.iter().chain(&other.withheld))
            .map(|(file, _)| file.digest)
            .collect();
        let mut files = BTreeMap::new();
        for (file, download) in [self.files, self.withheld, other.files, other.withheld].concat() {
            files.entry(file.digest).or_insert((file, download));
        }
        sorted(files, &withheld)
    }
}

/// What `targets` need, with everything that they are built with.
///
/// `projects` are those that say something of files: the one whose plan it is, and those that it imports.
pub fn gather(plan: &BuildPlan, targets: &[Input], projects: &[(&Workspace, &Lock)]) -> Result<Needed, InputsError> {
    let mut rules = CopyRules::default();
    for (workspace, lock) in projects {
        rules.add(workspace, lock)?;
    }
    let mut files: BTreeMap<FileHash, (InputFile, Download)> = BTreeMap::new();
    for download in downloads(plan, targets) {
        let file = rules.describe(download);
        files.entry(file.digest).or_insert_with(|| (file, download.clone()));
    }
    Ok(sorted(files, &rules.withheld))
}

fn sorted(files: BTreeMap<FileHash, (InputFile, Download)>, withheld: &BTreeSet<FileHash>) -> Needed {
    let mut files: Vec<(InputFile, Download)> = files.into_values().collect();
    files.sort_by(|(a, _), (b, _)| a.cmp(b));
    let (withheld, files) = files.into_iter().partition(|(file, _)| withheld.contains(&file.digest));
    Needed { files, withheld }
}

/// The downloads of the steps that `targets` lead to.
fn downloads<'p>(plan: &'p BuildPlan, targets: &[Input]) -> Vec<&'p Download> {
    let mut reached = BTreeSet::new();
    let mut pending: Vec<&Input> = targets.iter().collect();
    while let Some(input) = pending.pop() {
        if let Input::Step(id) = input
            && reached.insert(*id)
        {
            pending.extend(plan.steps[*id].inputs());
        }
    }
    reached.into_iter().flat_map(|id| plan.steps[id].downloads()).collect()
}

/// What specs and locks say of files.
#[derive(Default)]
struct CopyRules<'a> {
    /// The packages that have a file as their source.
    packages: BTreeMap<FileHash, &'a Package>,
    /// Files that may not be copied.
    withheld: BTreeSet<FileHash>,
}

impl<'a> CopyRules<'a> {
    fn add(&mut self, workspace: &'a Workspace, lock: &Lock) -> Result<(), InputsError> {
        let rules = self;
        for (name, package) in &workspace.packages {
            let (digest, redistribute) = match package.source.as_ref().map(|source| &source.value) {
                Some(Source::Url {
                    sha256, redistribute, ..
                }) => {
                    let locked = || lock.urls.get(name).map(|locked| locked.sha256);
                    (sha256.or_else(locked), *redistribute)
                }
                Some(Source::Git(git)) => (lock.git.get(name).map(|locked| locked.nar_hash), git.redistribute),
                _ => continue,
            };
            let Some(digest) = digest.map(FileHash::from) else {
                continue;
            };
            rules.packages.entry(digest).or_insert(package);
            if !redistribute {
                rules.withheld.insert(digest);
            }
        }
        for withheld in &workspace.inputs.withhold {
            let files: Option<Vec<FileHash>> = match &withheld.value {
                Withheld::Deb(name) => {
                    let elsewhere = lock.elsewhere.values().filter_map(|platform| platform.debs.get(name));
                    let all: Vec<FileHash> = (lock.debs.get(name).into_iter().chain(elsewhere))
                        .map(|deb| deb.sha256.into())
                        .collect();
                    (!all.is_empty()).then_some(all)
                }
                Withheld::DebSource(name) => {
                    let source = lock.deb_sources.get(name);
                    source.map(|source| source.files.iter().map(|file| file.sha256.into()).collect())
                }
            };
            rules.withheld.extend(files.ok_or_else(|| InputsError::UnknownWithheld {
                name: withheld.value.to_string(),
            })?);
        }
        Ok(())
    }

    fn describe(&self, download: &Download) -> InputFile {
        let (name, version) = match &download.origin {
            Origin::Deb { package, version, .. } => (format!("deb:{package}"), Some(version.clone())),
            Origin::DebSource { package, version, .. } => (format!("deb-source:{package}"), Some(version.clone())),
            Origin::Crate { name, version, .. } => (format!("crate:{name}"), Some(version.clone())),
            Origin::Python { project, version, .. } => (format!("pypi:{project}"), Some(version.clone())),
            Origin::Npm { name, version, .. } => (format!("npm:{name}"), Some(version.clone())),
            Origin::Go { module, version } => (format!("go:{module}"), Some(version.clone())),
            Origin::Url(_) | Origin::Git { .. } => match self.packages.get(&download.hash) {
                Some(package) => {
                    let version = package.version.as_ref().map(|version| version.value.clone());
                    (package.name.value.to_string(), version)
                }
                None => (download.name.clone(), None),
            },
        };
        InputFile {
            name,
            version,
            file: download.name.clone(),
            digest: download.hash,
            size: download.size,
        }
    }
}
