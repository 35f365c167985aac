//! *Python*: the wheels that a lock file pins, each a store path of its own with byte code, and an environment of links to
//! them beside the source's own modules.
//!
//! Invariant: a wheel's store path is a function of the wheel and the interpreter alone, so that another version of a
//! project moves that project and the links; nothing is built but what the spec says how to build, and no file is taken that its
//! wheel does not vouch for.

mod locked;
mod marker;
mod open;
mod project;
mod pylock;
mod requirements;
mod steps;
mod tags;
mod uv_lock;
mod version;

use std::collections::{BTreeMap, BTreeSet};

use super::{LangError, LanguageBuild, Planner, Renewal, Request, SourceTree, split};
use crate::spec::{GLIBC_DEB, Language, Lock, PythonBuildTool, PythonOptions, machine};
use locked::{Locked, LockedProject};
use marker::Environment;
use project::OwnProject;
use steps::Steps;
use tags::Target;
use version::Version;

pub use open::{OpenProject, open_projects};

/// The lock files that are looked for, in this order.
const LOCK_FILES: &[&str] = &["uv.lock", "pylock.toml", "requirements.txt"];

/// The Debian package of the interpreter.
const INTERPRETER: &str = "python3";

/// What is chosen of what a lock file pins; names as they are compared.
struct Selection<'a> {
    groups: &'a [String],
    extras: &'a [String],
    project: Option<&'a str>,
    /// What source distributions are built with.
    tools: BTreeSet<&'a str>,
}

impl Planner for PythonOptions {
    fn renewal(&self, request: &Request<'_>, names: &[String], offline: bool) -> Result<Renewal, LangError> {
        let path = lock_file(request.language, request.source)?;
        let (dir, file) = split(&path);
        if file != "uv.lock" {
            let message = format!("`{file}` does not say from what it was made, so that no tool can write it anew");
            let help = "make it anew as it was made before (`pip lock`, `pip-compile`, `uv pip compile`), then `layerize lock`";
            return Err(LangError::at(format!("`{path}`"), message, help));
        }
        let mut arguments = vec!["lock".to_owned()];
        arguments.extend(offline.then(|| "--offline".to_owned()));
        match names.is_empty() {
            true => arguments.push("--upgrade".to_owned()),
            false => arguments.extend(names.iter().map(|name| format!("--upgrade-package={name}"))),
        }
        Ok(Renewal {
            program: "uv",
            commands: vec![arguments],
            dir: dir.to_owned(),
            files: vec![file.to_owned()],
            variables: Vec::new(),
        })
    }

    fn plan(&self, request: &Request<'_>) -> Result<LanguageBuild, LangError> {
        let file = lock_file(request.language, request.source)?;
        let target = target(request.lock)?;
        let locked = self.locked(&file, request, &target)?;
        let base = match file.rsplit_once('/') {
            Some((dir, _)) if !requirements::is_one(&file) => dir,
            _ => "",
        };
        let projects = locked.own.iter().enumerate().map(|(index, dir)| {
            // `paths` is said of the project that is installed; the others are members that it needs.
            let paths: &[String] = if index == 0 { &self.paths } else { &[] };
            OwnProject::read(request.source, &within(base, dir), paths)
        });
        let projects = projects.collect::<Result<Vec<_>, _>>()?;
        let mut steps = Steps::new(self, &target, &locked.tools);
        let installed = locked.projects.iter().filter(|project| {
            let own = |own| project::is_named(own, &project.name);
            !projects.iter().any(own)
        });
        let installed = installed.map(|project| steps.install(project));
        let installed = installed.collect::<Result<Vec<_>, _>>()?;
        steps.build.own = steps.environment(&installed, &projects, &file);
        Ok(steps.build)
    }
}

impl PythonOptions {
    /// What the lock file pins of what is installed and of what that is built with.
    fn locked(&self, file: &str, request: &Request<'_>, target: &Target) -> Result<Locked, LangError> {
        let mut locked = self.parsed(file, request, target)?;
        locked.projects.sort_by(|a, b| a.name.cmp(&b.name));
        for name in self.build_tools() {
            if !locked.tools.contains_key(name) {
                let found = locked.projects.iter().find(|project| project.name == name);
                let project = found.ok_or_else(|| {
                    let message = format!("`{name}`, which `build` names, is not locked");
                    let help =
                        "lock it with the project's dependencies, or write `deb:` before the name of a Debian package";
                    LangError::at(format!("`{file}`"), message, help)
                })?;
                locked.tools.insert(name.to_owned(), vec![project.clone()]);
            }
        }
        for tool in self.build.values().flatten() {
            if let PythonBuildTool::Project {
                name,
                wanted: Some(wanted),
            } = tool
            {
                let pinned = locked
                    .tools
                    .get(name)
                    .into_iter()
                    .flatten()
                    .find(|project| project.name == *name);
                pinned.map_or(Ok(()), |project| check_version(project, wanted))?;
            }
        }
        let known = |name: &String| {
            let tools = locked.tools.values().flatten();
            locked.projects.iter().chain(tools).any(|project| project.name == *name)
        };
        match self.build.keys().find(|name| !known(name)) {
            None => Ok(locked),
            Some(name) => {
                let message = format!("`{name}`, which `build` says how to build, is not installed");
                Err(LangError::at(
                    format!("`{file}`"),
                    message,
                    "leave it out, or see that its name is right",
                ))
            }
        }
    }

    /// The projects that source distributions are built with.
    fn build_tools(&self) -> BTreeSet<&str> {
        let tools = self.build.values().flatten();
        let names = tools.filter_map(|tool| match tool {
            PythonBuildTool::Project { name, .. } => Some(name.as_str()),
            PythonBuildTool::Debian(_) => None,
        });
        names.collect()
    }

    fn parsed(&self, file: &str, request: &Request<'_>, target: &Target) -> Result<Locked, LangError> {
        if requirements::is_one(file) {
            return open::locked(self, file, request, target);
        }
        let text = request.source.text(file)?.ok_or_else(|| no_lock_file(file))?;
        let selection = Selection {
            groups: &self.groups,
            extras: &self.extras,
            project: self.project.as_deref(),
            tools: self.build_tools(),
        };
        let environment = markers_of(target);
        let name = file.rsplit('/').next().unwrap_or(file);
        match name {
            "uv.lock" => uv_lock::parse(&text, file, &selection, &environment),
            name if name.starts_with("pylock.") && name.ends_with(".toml") => {
                pylock::parse(&text, file, &selection, &environment)
            }
            _ => Err(unknown_lock_file(file)),
        }
    }
}

/// The lock file that the spec names, or the first that is there.
fn lock_file(language: &Language, source: &SourceTree) -> Result<String, LangError> {
    if let Some(lock) = &language.lock {
        return Ok(lock.value.clone());
    }
    let found = LOCK_FILES.iter().find(|name| source.is_file(name));
    found
        .map(|name| (*name).to_owned())
        .ok_or_else(|| no_lock_file(LOCK_FILES[0]))
}

fn no_lock_file(file: &str) -> LangError {
    let help =
        "run `uv lock`, or name the file by `lock`; see that `include`, `exclude` and `.gitignore` let it through";
    LangError::at(format!("`{file}`"), "the source has no lock file", help)
}

fn unknown_lock_file(file: &str) -> LangError {
    let help = "name a `uv.lock`, a `pylock.toml` or `pylock.NAME.toml`, or requirements with hashes (`.txt`)";
    LangError::at(format!("`{file}`"), "no lock file of a known kind is called so", help)
}

/// What wheels are chosen for, by the packages of `layerize.lock`.
fn target(lock: &Lock) -> Result<Target, LangError> {
    let version = |package: &str| {
        let unlocked = || {
            let message = format!("`deb:{package}` is not in the lock, which wheels are chosen by");
            LangError::at("`layerize.lock`", message, "run `layerize lock`")
        };
        let text = &lock.debs.get(package).ok_or_else(unlocked)?.version;
        let text = text.split_once(':').map_or(text.as_str(), |(_, text)| text);
        let numbers = text
            .split(|c: char| !c.is_ascii_digit() && c != '.')
            .next()
            .unwrap_or_default();
        let mut parts = numbers.split('.').map(|number| number.parse::<u32>().ok());
        match (parts.next().flatten(), parts.next().flatten()) {
            (Some(major), Some(minor)) => Ok(((major, minor), numbers.trim_end_matches('.').to_owned())),
            _ => {
                let message = format!("`{text}` of `deb:{package}` is no version that wheels can be chosen by");
                Err(LangError::at(
                    "`layerize.lock`",
                    message,
                    "name a release of Debian that has one",
                ))
            }
        }
    };
    let (python, full) = version(INTERPRETER)?;
    let (glibc, _) = version(GLIBC_DEB)?;
    let machine = lock.architecture.as_deref().map_or(std::env::consts::ARCH, machine);
    Ok(Target {
        python,
        full,
        glibc,
        machine: machine.to_owned(),
    })
}

/// What markers are told of the environment.
fn markers_of(target: &Target) -> Environment {
    let (major, minor) = target.python;
    let variables = BTreeMap::from([
        ("os_name", "posix".to_owned()),
        ("sys_platform", "linux".to_owned()),
        ("platform_machine", target.machine.clone()),
        ("platform_system", "Linux".to_owned()),
        ("platform_python_implementation", "CPython".to_owned()),
        ("implementation_name", "cpython".to_owned()),
        ("implementation_version", target.full.clone()),
        ("python_version", format!("{major}.{minor}")),
        ("python_full_version", target.full.clone()),
    ]);
    Environment {
        variables,
        ..Environment::default()
    }
}

/// Whether what is locked to build with is one of the versions that `build` wants.
fn check_version(project: &LockedProject, wanted: &str) -> Result<(), LangError> {
    let (name, version) = (&project.name, &project.version);
    match Version::parse(version).and_then(|version| version::satisfies(&version, wanted)) {
        Some(true) => Ok(()),
        Some(false) => Err(project.error(
            format!("`build` wants `{name}{wanted}`, and {version} is locked"),
            format!("lock another version (`uv add --group build '{name}{wanted}'`), or write `{name}` alone"),
        )),
        None => Err(project.error(
            format!("`{wanted}`, which `build` wants of `{name}`, is no set of versions"),
            "write it as requirements have it: `==69.5.1`, `>=61,<70`",
        )),
    }
}

/// Whether the interpreter is one that `wanted` allows.
fn check_python(wanted: &str, environment: &Environment, file: &str) -> Result<(), LangError> {
    let full = environment
        .variables
        .get("python_full_version")
        .map_or("", String::as_str);
    let fits = Version::parse(full).and_then(|version| version::satisfies(&version, wanted));
    let message = match fits {
        Some(true) => return Ok(()),
        Some(false) => format!("it is for Python {wanted}, and `deb:{INTERPRETER}` is {full}"),
        None => format!("`{wanted}` is no set of versions"),
    };
    let help = "allow this version by `requires-python` and lock again, or name a release of Debian that has another";
    Err(LangError::at(format!("`{file}`"), message, help))
}

fn within(base: &str, dir: &str) -> String {
    match (base, dir) {
        ("", dir) => dir.to_owned(),
        (base, ".") => base.to_owned(),
        (base, dir) => format!("{base}/{dir}"),
    }
}

#[cfg(test)]
mod tests;
