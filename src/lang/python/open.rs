//! What requirements leave *open*: which file of a project is taken. An index says when the lock is made what files there
//! are, and `layerize.lock` pins the one.
//!
//! Invariant: a file is taken only for one of the hashes that its requirement allows.

use std::collections::BTreeSet;

use super::locked::{Locked, LockedFile, LockedProject};
use super::requirements::{self, Requirements};
use super::tags::Target;
use crate::digest::FileHash;
use crate::lang::{LangError, Request};
use crate::spec::{LanguageOptions, LockedPython, PythonOptions};

/// A project of which `layerize.lock` must name a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenProject {
    /// Its name, as names are compared.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The indexes that the requirements name, asked after those of pip's configuration.
    pub indexes: Vec<String>,
    hashes: BTreeSet<FileHash>,
    place: String,
    target: Target,
    /// Whether it is taken as a source distribution.
    built: bool,
}

/// What the lock file of a package leaves open, sorted by name: nothing, where that names its files.
///
/// # Errors
///
/// A line that is not followed or that pins nothing; a lock without the interpreter that files are chosen for.
pub fn open_projects(request: &Request<'_>) -> Result<Vec<OpenProject>, LangError> {
    let LanguageOptions::Python(options) = &request.language.options else {
        return Ok(Vec::new());
    };
    let file = super::lock_file(request.language, request.source)?;
    if !requirements::is_one(&file) {
        return Ok(Vec::new());
    }
    let target = super::target(request.lock)?;
    let requirements = read(options, &file, request, &target)?;
    Ok(projects(options, requirements, &target))
}

fn read(
    options: &PythonOptions,
    file: &str,
    request: &Request<'_>,
    target: &Target,
) -> Result<Requirements, LangError> {
    let chosen = [
        ("groups", !options.groups.is_empty()),
        ("extras", !options.extras.is_empty()),
        ("project", options.project.is_some()),
    ];
    if let Some((key, _)) = chosen.iter().find(|(_, given)| *given) {
        let message = format!("requirements have no `{key}` to choose from");
        let help = format!("leave `{key}` out, and name a file in `lock` that has what is to be installed");
        return Err(LangError::at(format!("`{file}`"), message, help));
    }
    requirements::read(request.source, file, &super::markers_of(target))
}

fn projects(options: &PythonOptions, requirements: Requirements, target: &Target) -> Vec<OpenProject> {
    let indexes = requirements.indexes;
    let projects = requirements.projects.into_iter();
    let open = projects.map(|(name, requirement)| OpenProject {
        built: options.build.contains_key(&name),
        name,
        version: requirement.version,
        indexes: indexes.clone(),
        hashes: requirement.hashes,
        place: requirement.place,
        target: target.clone(),
    });
    open.collect()
}

/// What requirements come to with the files that the lock pins.
pub(super) fn locked(
    options: &PythonOptions,
    file: &str,
    request: &Request<'_>,
    target: &Target,
) -> Result<Locked, LangError> {
    let mut requirements = read(options, file, request, target)?;
    let mut own = vec![".".to_owned()];
    own.extend(
        std::mem::take(&mut requirements.own)
            .into_iter()
            .filter(|dir| dir != "."),
    );
    let package = &request.package.name.value;
    let projects = projects(options, requirements, target).into_iter().map(|open| {
        let pin = request.lock.python.get(&(package.clone(), open.name.clone()));
        match pin.filter(|pin| open.allows(pin)) {
            Some(pin) => open.locked([(pin.file.as_str(), &BTreeSet::from([pin.hash]))].into_iter()),
            None => {
                let message = format!("`layerize.lock` names no file of `{} {}`", open.name, open.version);
                Err(LangError::at(&open.place, message, "run `layerize lock`"))
            }
        }
    });
    Ok(Locked {
        projects: projects.collect::<Result<_, _>>()?,
        own,
        ..Locked::default()
    })
}

impl OpenProject {
    /// Whether a pin is one of a file that is allowed, and fit for the interpreter and the platform of the lock.
    pub fn is_settled_by(&self, pin: &LockedPython) -> bool {
        self.allows(pin)
            && self
                .pin([(pin.file.as_str(), &BTreeSet::from([pin.hash]))].into_iter())
                .is_ok()
    }

    fn allows(&self, pin: &LockedPython) -> bool {
        pin.version == self.version && self.hashes.contains(&pin.hash)
    }

    /// The project with those of these files that are allowed.
    fn locked<'a>(
        &self,
        files: impl Iterator<Item = (&'a str, &'a BTreeSet<FileHash>)>,
    ) -> Result<LockedProject, LangError> {
        let mut project = LockedProject::new(&self.name, Some(&self.version), &self.place)?;
        project.place.clone_from(&self.place);
        project.indexes.clone_from(&self.indexes);
        project.files = files
            .map(|(name, hashes)| LockedFile {
                name: name.to_owned(),
                url: None,
                hashes: (hashes.intersection(&self.hashes))
                    .map(|hash| format!("{}:{}", hash.scheme(), hash.hex()))
                    .collect(),
            })
            .filter(|file| !file.hashes.is_empty())
            .collect();
        Ok(project)
    }

    /// The best of the files that there are; `asked` says where these are from, for the message where none will do.
    ///
    /// # Errors
    ///
    /// No file of an allowed hash, or none that runs here.
    pub fn choose(&self, files: &[(&str, &BTreeSet<FileHash>)], asked: &str) -> Result<LockedPython, LangError> {
        let project = self.locked(files.iter().copied())?;
        if !project.files.is_empty() {
            return self.pin(files.iter().copied());
        }
        let (name, version) = (&self.name, &self.version);
        let message = match files.iter().any(|(_, hashes)| hashes.is_empty()) {
            true => {
                format!("no file of `{name} {version}` is found by its hashes, as not all that are listed have one")
            }
            false => format!("no file of `{name} {version}` with one of its hashes is listed anywhere"),
        };
        let help = format!(
            "asked: {asked}; see that `PIP_INDEX_URL`, `PIP_FIND_LINKS` or `pip.conf` names an index that has it, or \
             write the requirements anew"
        );
        Err(LangError::at(&self.place, message, help))
    }

    fn pin<'a>(
        &self,
        files: impl Iterator<Item = (&'a str, &'a BTreeSet<FileHash>)>,
    ) -> Result<LockedPython, LangError> {
        let project = self.locked(files)?;
        let chosen = match self.built {
            true => project.sdist()?,
            false => project.choose(&self.target)?,
        };
        Ok(LockedPython {
            version: self.version.clone(),
            file: chosen.file,
            hash: chosen.hash,
        })
    }
}
