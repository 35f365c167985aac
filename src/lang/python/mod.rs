//! *Python*: the wheels that a lock file pins, each a store path of its own with byte code, and an environment of links to
//! them beside the source's own modules.
//!
//! Invariant: a wheel's store path is a function of the wheel and the interpreter alone, so that another version of a
//! project moves that project and the links; nothing is built, and no file is taken that its wheel does not vouch for.

mod locked;
mod marker;
mod project;
mod pylock;
mod tags;
mod uv_lock;
mod version;

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    Form, LangError, LanguageBuild, LanguageStep, LockedDependency, Part, Planner, Recipe, Registry, Renewal, Request,
    SourceTree, Surroundings, split,
};
use crate::spec::{GLIBC_DEB, Language, Lock, PYTHON_STEP_DEBS, PythonOptions, machine};
use locked::{Locked, LockedProject, Wheel};
use marker::Environment;
use project::OwnProject;
use tags::Target;
use version::Version;

/// The lock files that are looked for, in this order.
const LOCK_FILES: &[&str] = &["uv.lock", "pylock.toml", "requirements.txt"];

/// The Debian package of the interpreter.
const INTERPRETER: &str = "python3";

/// Brings an unpacked wheel to its places.
const INSTALL_WHEEL: &str = include_str!("wheel.py");

/// Makes the environment.
const INSTALL_ENVIRONMENT: &str = include_str!("environment.py");

/// The variable that holds the store path of a wheel, before its number.
const WHEEL_VARIABLE: &str = "LAYERIZE_WHEEL_";

/// What is chosen of what a lock file pins; names as they are compared.
struct Selection<'a> {
    groups: &'a [String],
    extras: &'a [String],
    project: Option<&'a str>,
}

/// What makes the environment, as the script reads it.
#[derive(Serialize)]
struct Plan<'a> {
    python: String,
    /// The lock file, which says nothing at run time.
    lock: &'a str,
    wheels: Vec<WheelOfPlan<'a>>,
    projects: &'a [OwnProject],
}

/// An installed wheel, as the script reads it.
#[derive(Serialize)]
struct WheelOfPlan<'a> {
    name: &'a str,
    version: &'a str,
    variable: String,
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
        let locked = self.locked(&file, request.source, &target)?;
        let base = file.rsplit_once('/').map_or("", |(dir, _)| dir);
        let projects = locked.own.iter().enumerate().map(|(index, dir)| {
            // `paths` is said of the project that is installed; the others are members that it needs.
            let paths: &[String] = if index == 0 { &self.paths } else { &[] };
            OwnProject::read(request.source, &within(base, dir), paths)
        });
        let projects = projects.collect::<Result<Vec<_>, _>>()?;
        let mut build = LanguageBuild::default();
        for project in &locked.projects {
            if projects.iter().any(|own| project::is_named(own, &project.name)) {
                continue;
            }
            let wheel = project.choose(&target)?;
            build.dependencies.push(dependency(project, wheel));
            let part = Part::Dependency(build.dependencies.len() - 1);
            build.steps.push(installed(project, part, &target));
        }
        build.own = environment(&build, &projects, &target, &file);
        Ok(build)
    }
}

impl PythonOptions {
    fn locked(&self, file: &str, source: &SourceTree, target: &Target) -> Result<Locked, LangError> {
        let text = source.text(file)?.ok_or_else(|| no_lock_file(file))?;
        let selection = Selection {
            groups: &self.groups,
            extras: &self.extras,
            project: self.project.as_deref(),
        };
        let environment = markers_of(target);
        let name = file.rsplit('/').next().unwrap_or(file);
        let mut locked = match name {
            "uv.lock" => uv_lock::parse(&text, file, &selection, &environment)?,
            name if name.starts_with("pylock.") && name.ends_with(".toml") => {
                pylock::parse(&text, file, &selection, &environment)?
            }
            _ => return Err(unnamed_files(file, name)),
        };
        locked.projects.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(locked)
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

/// Requirements say which hashes a file may have, and not what the files are called, so no wheel can be chosen.
fn unnamed_files(file: &str, name: &str) -> LangError {
    let message = match name.ends_with(".txt") || name.ends_with(".in") {
        true => {
            "requirements do not name the files that their hashes are of, so that no wheel can be chosen".to_owned()
        }
        false => format!("`{name}` is no lock file that is known"),
    };
    let help = format!(
        "write a lock file that does: `uv pip compile {file} --format pylock.toml -o pylock.toml`, or `pip lock -r {file}`"
    );
    LangError::at(format!("`{file}`"), message, help)
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

fn dependency(project: &LockedProject, wheel: Wheel) -> LockedDependency {
    LockedDependency {
        name: project.name.clone(),
        version: project.version.clone(),
        file: wheel.file,
        hash: wheel.hash,
        registry: Registry::Python {
            index: project.index.clone(),
            url: wheel.url,
        },
        form: Form::Wheel,
    }
}

/// The step that brings a wheel's files to their places.
fn installed(project: &LockedProject, wheel: Part, target: &Target) -> LanguageStep {
    let (major, minor) = target.python;
    let name = &project.name;
    let script = format!(
        "PYTHONHASHSEED=0 python3 -s -S -B - \"$LAYERIZE_WHEEL\" \"$out\" {name} {major}.{minor} <<'LAYERIZE'\n\
         {INSTALL_WHEEL}LAYERIZE\n"
    );
    LanguageStep {
        label: format!("{name} {}", project.version),
        name: format!("{name}-{}", project.version),
        surroundings: Surroundings::Debs(PYTHON_STEP_DEBS.iter().map(|deb| (*deb).to_owned()).collect()),
        source: None,
        recipe: Recipe {
            script,
            variables: BTreeMap::from([("LAYERIZE_WHEEL".to_owned(), wheel)]),
            ..Recipe::default()
        },
    }
}

/// How the environment is made. A function stands for it, so that scripts of the user's own can call it.
fn environment(build: &LanguageBuild, projects: &[OwnProject], target: &Target, lock: &str) -> Recipe {
    let (major, minor) = target.python;
    let variable = |index: usize| format!("{WHEEL_VARIABLE}{index}");
    let wheels = build.dependencies.iter().enumerate();
    let plan = Plan {
        python: format!("{major}.{minor}"),
        lock,
        wheels: wheels
            .map(|(index, wheel)| WheelOfPlan {
                name: &wheel.name,
                version: &wheel.version,
                variable: variable(index),
            })
            .collect(),
        projects,
    };
    let text = |plan: &Plan<'_>| serde_json::to_string(plan).expect("strings and maps of strings are JSON");
    let whole = text(&plan);
    let others = Plan { projects: &[], ..plan };
    let activate = activation(&text(&others), projects);
    let plan = whole;
    let preamble = format!(
        "cat > /build/environment.json <<'LAYERIZE'\n{plan}\nLAYERIZE\n\
         cat > /build/environment.py <<'LAYERIZE'\n{INSTALL_ENVIRONMENT}LAYERIZE\n\
         layerize_python() {{\n  PYTHONHASHSEED=0 python3 -s -S -B /build/environment.py /build/environment.json \"$out\"\n}}\n"
    );
    Recipe {
        preamble,
        script: "layerize_python\n".to_owned(),
        activate,
        variables: (0..build.steps.len())
            .map(|index| (variable(index), Part::Step(index)))
            .collect(),
        ..Recipe::default()
    }
}

/// The environment of the wheels alone, and the modules where the user edits them.
fn activation(plan: &str, projects: &[OwnProject]) -> String {
    let paths = projects.iter().flat_map(|project| &project.paths);
    let paths = paths.map(|path| match path.as_str() {
        "." => "$LAYERIZE_SOURCE".to_owned(),
        path => format!("$LAYERIZE_SOURCE/{path}"),
    });
    let paths: Vec<String> = paths.collect();
    format!(
        "cat > /build/environment.json <<'LAYERIZE'\n{plan}\nLAYERIZE\n\
         cat > /build/environment.py <<'LAYERIZE'\n{INSTALL_ENVIRONMENT}LAYERIZE\n\
         mkdir /build/nothing\n\
         (cd /build/nothing && PYTHONHASHSEED=0 python3 -s -S -B /build/environment.py /build/environment.json /build) || exit\n\
         export VIRTUAL_ENV=/build/venv PATH=/build/venv/bin:$PATH PYTHONPATH=\"{}\"\n",
        paths.join(":")
    )
}

#[cfg(test)]
mod tests;
