//! The *surroundings of builds* that verbs for people are about: which packages are meant, who uses them, and where.
//!
//! Invariant: a package that is meant is named, or is the only one of its spec.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::build::ShellUser;
use crate::project::{Environment, Project, Target, WorkOptions, target};
use crate::spec::{LockScope, PackageName};

use super::context;
use super::error::advised;

/// Who uses a shell.
pub fn user() -> ShellUser {
    ShellUser {
        name: context::text_variable("USER").unwrap_or_else(|| "user".to_owned()),
        home: context::path_variable("HOME").unwrap_or_else(|| "/".into()),
        shell: context::path_variable("SHELL"),
    }
}

/// A shell starts where the user is; where that is not seen, at the project.
pub fn start(here: &Path, projects: &[PathBuf], home: Option<&Path>) -> PathBuf {
    let is_seen = |dir: &Path| dir != Path::new("/") && here.starts_with(dir);
    match projects.first() {
        Some(first) if !projects.iter().any(|dir| is_seen(dir)) && !home.is_some_and(is_seen) => first.clone(),
        _ => here.to_owned(),
    }
}

/// Has projects fetch what they import where names may be of that.
pub fn bring_imports(
    names: &[String],
    projects: &mut [Project],
    options: &WorkOptions,
    environments: &[Environment<'_>],
) -> anyhow::Result<()> {
    if names.iter().any(|name| name.contains(':')) {
        for (project, environment) in projects.iter_mut().zip(environments) {
            if !project.workspace.imports.is_empty() {
                project.make_lock_current(LockScope::Whole, options, environment)?;
            }
        }
    }
    Ok(())
}

/// The packages of each project that are meant: those named, or the only one of each.
pub fn choose(names: &[String], projects: &[Project]) -> anyhow::Result<Vec<Vec<PackageName>>> {
    if names.is_empty() {
        return projects.iter().map(|project| Ok(vec![only(project)?])).collect();
    }
    let mut chosen = vec![Vec::new(); projects.len()];
    for name in names {
        let mut found = projects.iter().map(|project| package(name, project));
        let index = (0..projects.len()).find_map(|index| Some((index, found.next()?.ok()?)));
        match index {
            Some((index, package)) => chosen[index].push(package),
            None => return Err(package(name, &projects[0]).expect_err("no project has it")),
        }
    }
    Ok(chosen)
}

fn package(name: &str, project: &Project) -> anyhow::Result<PackageName> {
    match target::package(name, project).map_err(anyhow::Error::from)? {
        Target::Package(package) => Ok(package),
        _ => Err(advised(
            format!("`{name}` is not a package"),
            "a shell is the build environment of a package",
        )),
    }
}

/// The only package of a spec.
fn only(project: &Project) -> anyhow::Result<PackageName> {
    let own: BTreeSet<&PackageName> = project.workspace.own_packages().collect();
    match own.len() {
        0 => Err(advised(
            "this spec has no package, and so no build environment",
            match project.workspace.images.keys().next() {
                Some(image) => {
                    format!("a shell in an image that has one: `layerize run --isolated --entrypoint sh {image}`")
                }
                None => "`layerize help spec` says how one is written".to_owned(),
            },
        )),
        1 => Ok(own.into_iter().next().cloned().expect("there is one")),
        _ => Err(advised(
            format!("this spec has {} packages", own.len()),
            format!(
                "name one: {}",
                own.iter().map(|name| name.0.as_str()).collect::<Vec<_>>().join(", ")
            ),
        )),
    }
}
