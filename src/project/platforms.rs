//! Which *platforms* are made of images that are for several, and what of the targets is for which.
//!
//! Invariant: what is for one platform is made as if there were no other.

use std::collections::BTreeMap;

use crate::oci::Platform;
use crate::spec::{PackageName, machine_architecture};

use super::draft::platform_of_spec;
use super::error::ProjectError;
use super::files::Project;
use super::target::Target;

/// Which platforms are made of an image of a spec that is for several. An image for one is always for that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PlatformChoice {
    /// All of them.
    #[default]
    All,
    /// That of this machine.
    Own,
    /// Those that the user names, which the image must be for.
    These(Vec<Platform>),
}

impl PlatformChoice {
    /// Whether it can mean one platform only.
    pub fn names_one(&self) -> bool {
        match self {
            Self::All => false,
            Self::Own => true,
            Self::These(platforms) => platforms.len() == 1,
        }
    }
}

/// The targets by the Debian architecture of what they are for: first those at home, else as they are named.
///
/// # Errors
///
/// A target that is not for the platform that is wanted.
pub(super) fn shared_out(
    project: &Project,
    targets: &[Target],
    choice: &PlatformChoice,
) -> Result<Vec<(String, Vec<Target>)>, ProjectError> {
    let home = project.home();
    let mut shares: BTreeMap<(bool, usize), (String, Vec<Target>)> = BTreeMap::new();
    let mut known: Vec<String> = vec![home.clone()];
    for target in targets {
        for architecture in architectures_of(target, project, &home, choice)? {
            let place = known.iter().position(|one| *one == architecture).unwrap_or_else(|| {
                known.push(architecture.clone());
                known.len() - 1
            });
            let share = shares.entry((architecture != home, place));
            share
                .or_insert_with(|| (architecture, Vec::new()))
                .1
                .push(target.clone());
        }
    }
    if shares.is_empty() {
        return Ok(vec![(home, Vec::new())]);
    }
    Ok(shares.into_values().collect())
}

/// The project as seen from the platform for which packages are wanted: one that has them, at home if that does.
///
/// # Errors
///
/// A package that is not for the platform that is wanted.
pub(super) fn seen_with(
    project: &Project,
    packages: &[PackageName],
    choice: &PlatformChoice,
) -> Result<Project, ProjectError> {
    let PlatformChoice::These(_) = choice else {
        return Ok(project.with_packages(packages));
    };
    let targets: Vec<Target> = packages.iter().cloned().map(Target::Package).collect();
    let shares = shared_out(project, &targets, choice)?;
    let architecture = shares.into_iter().next().map(|(architecture, _)| architecture);
    Ok(project.at(&architecture.unwrap_or_else(|| project.home())))
}

/// Whether a target is an image without a platform of its own, and that which it has by default is wanted.
fn is_for_default(target: &Target, project: &Project, wanted: &[Platform]) -> Result<bool, ProjectError> {
    let Target::Image(name) = target else { return Ok(false) };
    let image = &project.workspace.images[name];
    Ok(image.platforms.is_empty() && wanted == [platform_of_spec(image, &project.lock)?])
}

/// What a target is made for.
fn architectures_of(
    target: &Target,
    project: &Project,
    home: &str,
    choice: &PlatformChoice,
) -> Result<Vec<String>, ProjectError> {
    let (name, mut known) = match target {
        Target::Path(_) | Target::Nix(_) => return Ok(vec![home.to_owned()]),
        Target::Package(name) => {
            let seen = project.from_all().into_iter();
            let has_it = seen.filter(|(_, seen)| seen.package(name).is_some());
            let mut all: Vec<String> = has_it.map(|(architecture, _)| architecture).collect();
            all.sort_by_key(|architecture| architecture != home);
            (format!("package `{name}`"), all)
        }
        Target::Image(name) => {
            let image = &project.workspace.images[name];
            let all = image.architectures(home).map(str::to_owned).collect();
            (format!("image `{name}`"), all)
        }
    };
    let platforms =
        |known: &[String]| -> Vec<Platform> { known.iter().filter_map(|name| Platform::from_debian(name)).collect() };
    match choice {
        // What names no platform is for the one that its recipe has, and made at home.
        PlatformChoice::These(wanted) if is_for_default(target, project, wanted)? => {}
        PlatformChoice::These(wanted) => {
            let all = platforms(&known);
            let foreign = wanted.iter().find(|platform| !all.contains(platform));
            if let Some(platform) = foreign {
                return Err(ProjectError::NotForPlatform {
                    name,
                    platform: Box::new(platform.clone()),
                    platforms: all,
                });
            }
            known.retain(|architecture| {
                platforms(std::slice::from_ref(architecture))
                    .iter()
                    .all(|one| wanted.contains(one))
            });
        }
        // A package is made for one platform, unless others are named.
        _ if matches!(target, Target::Package(_)) => known.truncate(1),
        PlatformChoice::Own if known.len() > 1 => {
            let machine = machine_architecture();
            if !known.iter().any(|architecture| architecture == machine) {
                return Err(ProjectError::NotForMachine {
                    name,
                    machine: Platform::from_debian(machine).map(Box::new),
                    platforms: platforms(&known),
                });
            }
            known = vec![machine.to_owned()];
        }
        PlatformChoice::All | PlatformChoice::Own => {}
    }
    Ok(known)
}
