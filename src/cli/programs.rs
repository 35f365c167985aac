//! The *programs* of packages and images that are run on the machine's own root, or installed.
//!
//! Invariant: what is run was made, and is of the target that was named.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::project::{self, Environment, ImageOptions, Project, Target, Work, WorkOptions, dev_image};
use crate::sandbox::emulator::Emulator;
use crate::spec::PackageName;
use crate::store_path::{LogicalPath, StoreDir, StorePath};

use super::error::advised;

/// What is started on the machine's own root.
#[derive(Debug)]
pub struct Started {
    /// The program by its path there, and its arguments.
    pub argv: Vec<String>,
    /// Variables that it is given.
    pub env: BTreeMap<String, String>,
    /// What runs it where it is for another processor.
    pub emulator: Option<Emulator>,
}

/// The only package that names give, or that the spec has.
pub fn only_package(names: &[String], project: &Project) -> anyhow::Result<PackageName> {
    let own: Vec<&PackageName> = project.workspace.own_packages().collect();
    match (names, &own[..]) {
        ([name], _) => match project::target::package(name, project)? {
            Target::Package(package) => Ok(package),
            _ => Err(advised(
                format!("`{name}` is not a package of the spec"),
                "a package has an environment, and nothing else does",
            )),
        },
        ([], [only]) => Ok((*only).clone()),
        _ => Err(advised(
            "an environment is that of one package here",
            format!(
                "name one: {}",
                own.iter().map(|name| name.0.as_str()).collect::<Vec<_>>().join(", ")
            ),
        )),
    }
}

/// The work of the dev image of the only package that is meant.
pub fn dev_image(names: &[String], options: &WorkOptions, environment: &Environment<'_>) -> anyhow::Result<Work> {
    let package = only_package(names, &Project::load(environment)?)?;
    Ok(dev_image::prepare(&package, options, environment)?)
}

/// The program of an image of the spec, where it is one of the store: any other needs the image's own root. `arguments` are in
/// place of its `cmd`, where there are any.
pub fn of_image(
    name: &str,
    arguments: &[String],
    work: &Work,
    environment: &Environment<'_>,
) -> anyhow::Result<Started> {
    let draft = project::drafts(work, &ImageOptions::default(), environment)?.pop();
    let recipe = draft.with_context(|| format!("`{name}` is no image"))?.recipe;
    let spec = &recipe.spec;
    let cmd = match arguments.is_empty() {
        true => &spec.cmd,
        false => arguments,
    };
    let mut argv: Vec<String> = spec.entrypoint.iter().chain(cmd).cloned().collect();
    let program = argv.first().cloned().ok_or_else(|| {
        advised(
            format!("the image `{name}` has no program"),
            "give it an `entrypoint`, or name one with `--entrypoint`",
        )
    })?;
    let below = match program.strip_prefix('/') {
        Some(below) => below.to_owned(),
        None => format!("bin/{program}"),
    };
    let contents = recipe.contents.iter().map(|content| &content.logical);
    let found = contents
        .filter(|path| physical(path, work).join(&below).is_file())
        .map(|path| format!("{}/{below}", path.as_str()))
        .next();
    argv[0] = match found {
        Some(found) => found,
        None if program.starts_with(StoreDir::LAYERIZE) => program,
        None => {
            return Err(advised(
                format!("`{program}` of the image `{name}` is in the image's own root and not in a package's `bin`"),
                format!("run it there: `layerize run --isolated {name}`"),
            ));
        }
    };
    Ok(Started {
        argv,
        env: spec.env.clone(),
        emulator: work.emulator(name, environment)?,
    })
}

/// Where a store path's tree is on this machine.
fn physical(path: &LogicalPath, work: &Work) -> PathBuf {
    match path.dir() == StoreDir::LAYERIZE {
        true => work.store.physical(path.store_path()),
        false => PathBuf::from(path.as_str()),
    }
}

/// Whether the only target, a package, has a program of its own name.
pub fn has_own(work: &Work) -> anyhow::Result<bool> {
    let [Target::Package(name)] = &work.targets[..] else {
        return Ok(true);
    };
    let called = name.0.rsplit(':').next().unwrap_or_default();
    let programs = programs(&work.store.physical(&work.path(&work.plan.packages[name])))?;
    Ok(programs.iter().any(|program| program == called))
}

/// The absolute logical path of the only target's program of this name, or of the one that is meant without a name.
pub fn of_package(wanted: Option<&str>, work: &Work) -> anyhow::Result<String> {
    let (path, called) = match &work.targets[..] {
        [Target::Package(name)] => {
            let called = name.0.rsplit(':').next().unwrap_or_default().to_owned();
            (work.path(&work.plan.packages[name]), called)
        }
        [Target::Path(path)] => (path.clone(), path.name().to_owned()),
        _ => {
            return Err(advised(
                "one package was expected",
                "name a package of the spec, or a store path",
            ));
        }
    };
    let programs = programs(&work.store.physical(&path))?;
    let wanted = match wanted {
        Some(program) => program,
        None if programs.len() == 1 => &programs[0],
        None => &called,
    };
    if !programs.iter().any(|program| program == wanted) {
        let help = match programs.len() {
            0 => "it has no `bin`: it is not a program".to_owned(),
            _ => format!("choose with `--program`: {}", programs.join(", ")),
        };
        return Err(advised(
            format!("`{}` has no program `{wanted}`", StoreDir::layerize().join(&path)),
            help,
        ));
    }
    Ok(format!("{}/bin/{wanted}", StoreDir::layerize().join(&path)))
}

/// What is in the path's `bin`.
fn programs(physical: &Path) -> anyhow::Result<Vec<String>> {
    let bin = physical.join("bin");
    if !bin.is_dir() {
        return Ok(Vec::new());
    }
    Ok(crate::fsio::sorted_names(&bin)?
        .into_iter()
        .filter_map(|name| name.into_string().ok())
        .collect())
}

/// That no target is of a kind that is never installed, and would only be looked for in the spec.
pub fn check_installable(targets: &[String]) -> anyhow::Result<()> {
    for target in targets {
        if target.starts_with("deb:") {
            return Err(advised(
                format!("`{target}` is a package of Debian's, and those are not installed that way"),
                "make a package of the spec that is linked to what it needs of it, or an image: `root = [\"deb:…\"]` and \
                 `layerize run --isolated` (`layerize help profiles`)",
            ));
        }
        let below = target
            .strip_prefix(StoreDir::LAYERIZE)
            .and_then(|below| below.strip_prefix('/'));
        let Some((base, rest)) = below.and_then(|below| below.split_once('/')) else {
            continue;
        };
        if let (Ok(path), false) = (base.parse::<StorePath>(), rest.trim_matches('/').is_empty()) {
            let path = StoreDir::layerize().join(&path);
            return Err(advised(
                format!("`{target}` is a path within the store path `{path}`, and whole store paths are installed"),
                format!("name that: `layerize install {path}`"),
            ));
        }
    }
    Ok(())
}

/// That this machine itself starts what was made: what is installed has no sandbox around it, which an emulator of the lock
/// would take.
pub fn check_native(targets: &[String], work: &Work, environment: &Environment<'_>) -> anyhow::Result<()> {
    let names = targets.join("`, `");
    match work.emulator(&names, environment)? {
        None => Ok(()),
        Some(_) => Err(advised(
            format!(
                "`{names}` cannot be installed: it is for {}, and installed programs are started by the machine itself, which                  knows no emulator",
                work.plan.system
            ),
            "`layerize run` runs it through the emulator of the lock; a machine that was taught to run such programs installs              it (`layerize help emulation`)",
        )),
    }
}
