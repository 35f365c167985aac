//! A *target* is what an argument names: an image, a package or a store path.
//!
//! Invariant: what a name means is decided here alone.

use std::collections::BTreeSet;

use crate::spec::PackageName;
use crate::store_path::{StoreDir, StorePath};

use super::environment::Environment;
use super::error::ProjectError;
use super::files::{Project, find_spec};
use super::nix::LazyNix;

/// What an argument names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// `[image.NAME]`.
    Image(String),
    /// `[package.NAME]`, or `alias:NAME`.
    Package(PackageName),
    /// `/layerize/store/HASH-NAME`.
    Path(StorePath),
    /// `/nix/store/HASH-NAME`, or a link that leads there.
    Nix(StorePath),
}

impl Target {
    /// Whether it is a store path: all of them together make one image.
    pub fn is_path(&self) -> bool {
        matches!(self, Self::Path(_) | Self::Nix(_))
    }
}

/// The arguments as store paths, if there are any and all of them are.
pub(super) fn store_paths(
    arguments: &[String],
    nix: &LazyNix,
    environment: &Environment<'_>,
) -> Result<Option<Vec<Target>>, ProjectError> {
    // Where there is a spec, what is called `result` there is meant before a link of that name.
    let bare = find_spec(environment.file.as_deref(), &environment.here).is_err();
    let targets = arguments.iter().map(|argument| parse_path(argument, nix, bare));
    let targets: Option<Vec<Target>> = targets.collect::<Result<_, ProjectError>>()?;
    Ok(targets.filter(|targets| !targets.is_empty()))
}

fn parse_path(argument: &str, nix: &LazyNix, bare: bool) -> Result<Option<Target>, ProjectError> {
    match parse_own_path(argument) {
        Some(path) => Ok(Some(path)),
        None => Ok(nix.argument(argument, bare)?.map(Target::Nix)),
    }
}

fn parse_own_path(argument: &str) -> Option<Target> {
    let (path, below) = StoreDir::layerize().split(argument.trim_end_matches('/'))?;
    below.is_empty().then_some(Target::Path(path))
}

/// Images and packages by name; without any name all images, or all of the file's own packages if it has no image.
pub(super) fn named(arguments: &[String], project: &Project, nix: &LazyNix) -> Result<Vec<Target>, ProjectError> {
    let workspace = &project.workspace;
    if arguments.is_empty() && !workspace.images.is_empty() {
        return Ok(workspace.images.keys().cloned().map(Target::Image).collect());
    }
    if arguments.is_empty() {
        return Ok(workspace.own_packages().cloned().map(Target::Package).collect());
    }
    let target = |argument: &String| match name(argument, project) {
        Ok(target) => Ok(target),
        Err(error) => nix.argument(argument, true)?.map(Target::Nix).ok_or(error),
    };
    arguments.iter().map(target).collect()
}

/// One name of a package.
pub fn package(argument: &str, project: &Project) -> Result<Target, ProjectError> {
    let package = PackageName(argument.to_owned());
    if project.package(&package).is_some() {
        return Ok(Target::Package(package));
    }
    match name(argument, project)? {
        Target::Image(image) => Err(ProjectError::NoPackage { image }),
        target => Ok(target),
    }
}

/// One name: an image before a package of the same name.
pub fn name(argument: &str, project: &Project) -> Result<Target, ProjectError> {
    let workspace = &project.workspace;
    if let Some(path) = parse_own_path(argument) {
        return Ok(path);
    }
    if workspace.images.contains_key(argument) {
        return Ok(Target::Image(argument.to_owned()));
    }
    let package = PackageName(argument.to_owned());
    if project.package(&package).is_some() {
        return Ok(Target::Package(package));
    }
    let names = project.names();
    let known: Vec<&str> = (workspace.images.keys().chain(&names).map(String::as_str)).collect();
    let closest = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(known, argument), *known))
        .min()
        .filter(|(distance, known)| *distance <= known.len().div_ceil(3));
    let help = match closest {
        Some((_, closest)) => format!("did you mean `{closest}`?"),
        None => format!(
            "known names: {}",
            known
                .into_iter()
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>()
                .join(", ")
        ),
    };
    Err(ProjectError::Unknown {
        argument: argument.to_owned(),
        help,
    })
}
