//! `layerize env`: the build environments of packages as text, for programs that stay outside of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::build::{self, ShellOptions, ShellPart, Task};
use crate::event::{Reporter, Silent};
use crate::fsio;
use crate::project::outside::{KeptView, Wanted};
use crate::project::shell::shell_parts;
use crate::project::{Environment, LOCK_NAME, Project, SPEC_NAME, dev_image};
use crate::shell_word::quoted;
use crate::spec::{LockScope, PackageName};

use super::complete;
use super::context::{self, Context};
use super::error::advised;
use super::flags::BuildFlags;
use super::outcome::Outcome;
use super::places::Names;
use super::programs;
use super::surroundings;

/// Arguments of `layerize env`.
#[derive(Debug, Args)]
pub struct EnvArgs {
    /// The packages, whose environments are one; of a spec elsewhere: git+https://…#NAME [default: the only one of each spec]
    #[arg(add = complete::packages())]
    packages: Vec<String>,
    /// Print what `.envrc` evaluates: the variables, and the files to watch
    #[arg(long, conflicts_with_all = ["dotenv", "fish"])]
    direnv: bool,
    /// Print lines of a `.env` file, `PATH` in full
    #[arg(long, conflicts_with = "fish")]
    dotenv: bool,
    /// Print what fish evaluates: `layerize env --fish | source`
    #[arg(long)]
    fish: bool,
    /// Print a devcontainer.json: an image of the environment, which `layerize load --dev` makes before the container starts
    #[arg(long, conflicts_with_all = ["direnv", "dotenv", "fish"])]
    devcontainer: bool,
    /// Make it anew, though neither spec nor lock changed: a package among its tools did
    #[arg(long)]
    refresh: bool,
    #[command(flatten)]
    flags: BuildFlags,
}

impl EnvArgs {
    /// The arguments that may name a spec elsewhere.
    pub fn names(&mut self) -> (Names<'_>, &mut BuildFlags) {
        (Names::Packages(&mut self.packages), &mut self.flags)
    }
}

/// Arguments of the launchers of a view.
#[derive(Debug, Args)]
pub struct EnterArgs {
    /// The view
    dir: PathBuf,
    /// A program with its arguments
    #[arg(last = true, required = true)]
    program: Vec<String>,
}

/// Makes the view where it does not hold any more, and prints what leads there.
pub fn run(args: &EnvArgs, context: &Context) -> anyhow::Result<Outcome> {
    if context.ui.json() && (args.direnv || args.dotenv || args.fish) {
        return Err(advised(
            "the environment is asked for as JSON and in another form at once",
            "leave out `--json`, or the other form",
        ));
    }
    if args.devcontainer {
        return devcontainer(args, context);
    }
    let done = print(args, context);
    if done.is_err() && args.direnv {
        // So that the environment is loaded again once they are mended.
        let specs = context.environments().into_iter();
        let specs = specs.filter_map(|environment| Project::spec_path(&environment).ok());
        let files: Vec<PathBuf> = specs.flat_map(|spec| [spec.with_file_name(LOCK_NAME), spec]).collect();
        context.ui.result(watched(&files).as_bytes())?;
    }
    done
}

fn print(args: &EnvArgs, context: &Context) -> anyhow::Result<Outcome> {
    // What is evaluated holds no events.
    let reporter: &dyn Reporter = match context.ui.json() {
        true => &Silent,
        false => context.ui,
    };
    let environments = context.environments().into_iter();
    let environments: Vec<Environment<'_>> = environments
        .map(|environment| Environment {
            reporter,
            ..environment
        })
        .collect();
    let mut projects = environments.iter().map(Project::load).collect::<Result<Vec<_>, _>>()?;
    surroundings::bring_imports(&args.packages, &mut projects, &args.flags.options(), &environments)?;
    let chosen = surroundings::choose(&args.packages, &projects)?;
    let kept = match args.refresh {
        true => None,
        false => kept(&wanted(&projects, &chosen, context)?, context)?,
    };
    let kept = match kept {
        Some(kept) => kept,
        None => make(args, &mut projects, &chosen, &environments, context)?,
    };
    context.ui.clear();
    let text = match args {
        _ if context.ui.json() => json(&kept, &wanted(&projects, &chosen, context)?),
        EnvArgs { direnv: true, .. } => direnv(&kept, &wanted(&projects, &chosen, context)?.files()),
        EnvArgs { dotenv: true, .. } => dotenv(&kept),
        EnvArgs { fish: true, .. } => fish(&kept),
        _ => exports(&kept),
    };
    context.ui.result(text.as_bytes())?;
    Ok(Outcome::Done)
}

fn wanted<'a>(
    projects: &'a [Project],
    chosen: &'a [Vec<PackageName>],
    context: &Context,
) -> anyhow::Result<Wanted<'a>> {
    let all = projects.iter().zip(chosen.iter().map(Vec::as_slice));
    let launcher = std::env::current_exe().map_err(|error| {
        advised(
            format!("cannot tell where layerize itself is: {error}"),
            "start it by its path",
        )
    })?;
    let wanted = Wanted::new(
        all.filter(|(_, packages)| !packages.is_empty()).collect(),
        context.environment.store_dir.clone(),
        vec![
            launcher.display().to_string(),
            // Where neither this nor a home is set, too.
            format!("--store={}", context.environment.store_dir.display()),
            "__enter".to_owned(),
        ],
    );
    Ok(match &context.environment.elsewhere {
        Some(place) => wanted.of_place(place, &context.environment.here),
        None => wanted,
    })
}

/// The view that was made before, where nothing changed since.
fn kept(wanted: &Wanted<'_>, context: &Context) -> anyhow::Result<Option<KeptView>> {
    let Some(kept) = wanted.kept()? else {
        return Ok(None);
    };
    let store = context.environment.store()?;
    Ok(kept.check(&store, &wanted.dir()).is_ok().then_some(kept))
}

fn make(
    args: &EnvArgs,
    projects: &mut [Project],
    chosen: &[Vec<PackageName>],
    environments: &[Environment<'_>],
    context: &Context,
) -> anyhow::Result<KeptView> {
    let store = context.environment.store()?;
    let options = args.flags.options();
    let mut parts: Vec<ShellPart> = Vec::new();
    for ((project, packages), environment) in projects.iter_mut().zip(chosen).zip(environments) {
        project.make_lock_current(LockScope::Whole, &options, environment)?;
        parts.extend(shell_parts(project, packages, &store, &options, environment)?);
    }
    Ok(wanted(projects, chosen, context)?.make(&store, &parts)?)
}

/// Runs a program in the shell that a view is of, where the user is.
pub fn enter(args: &EnterArgs, context: &Context) -> anyhow::Result<Outcome> {
    let kept = KeptView::read(&args.dir)?;
    let store = Environment {
        store_dir: kept.store.clone(),
        ..context.environment.clone()
    }
    .store()?;
    kept.check(&store, &args.dir)?;
    let mut caller = context::all_variables();
    kept.view.taken_from(&mut caller);
    let here = context.environment.here.clone();
    let options = ShellOptions {
        task: Task::Program(args.program.clone()),
        pure: false,
        projects: kept.projects.iter().chain([&here]).cloned().collect(),
        cwd: here,
        user: surroundings::user(),
        caller,
        links: Some(context.environment.links_dir()),
        helper: None,
    };
    Ok(Outcome::of_status(build::recorded_shell(
        &store,
        &kept.record,
        &options,
    )?))
}

/// Prints what editors make a dev container of: the image, and how it is made.
fn devcontainer(args: &EnvArgs, context: &Context) -> anyhow::Result<Outcome> {
    if context.environment.elsewhere.is_some() || !context.further_files.is_empty() {
        return Err(advised(
            "a dev container is that of one spec of yours",
            "get the repository, and ask there",
        ));
    }
    let mut project = Project::load(&context.environment)?;
    let package = programs::only_package(&args.packages, &project)?;
    project.make_lock_current(LockScope::Whole, &args.flags.options(), &context.environment)?;
    let image = dev_image::name_of(&package);
    let mut load = vec!["layerize", "load", "--dev", package.0.as_str()];
    // The file is for whoever opens the folder that it is written in: no path of this machine helps them.
    let dir = folder_of(&project, context)?;
    let below = dir.display().to_string();
    let spec = Project::spec_path(&context.environment)?;
    let spec = match spec.file_name().and_then(|name| name.to_str()) {
        Some(name) if name != SPEC_NAME => dir.join(name).display().to_string(),
        _ => below.clone(),
    };
    if !spec.is_empty() {
        load.extend(["--file", &spec]);
    }
    let workspace = match below.as_str() {
        "" => "${containerWorkspaceFolder}".to_owned(),
        below => format!("${{containerWorkspaceFolder}}/{below}"),
    };
    // What is laid out for the container's programs is not the machine's.
    let mounts: Vec<String> = dev_image::views(&project, &package, &context.environment)?
        .iter()
        .map(|view| format!("type=volume,target={workspace}/{view}"))
        .collect();
    let document = json!({
        "name": package.0,
        "image": format!("{image}:latest"),
        // On the machine, before the container is made.
        "initializeCommand": load,
        "containerEnv": { "LAYERIZE_PROJECT": workspace },
        "mounts": mounts,
        "overrideCommand": true,
        "remoteUser": "root",
        "updateRemoteUserUID": false,
    });
    let lacks = dev_image::lacks(&project, &package);
    if !lacks.is_empty() {
        context.ui.note(&format!(
            "what VS Code runs in a container needs `deb:{}` beside the C library: add it to `dev` of `{package}`",
            lacks.join("`, `deb:")
        ));
    }
    context.ui.clear();
    context.ui.result(format!("{document:#}\n").as_bytes())?;
    Ok(Outcome::Done)
}

/// Where the project is in the folder that is opened: in the one where the user is, or that is the project's own.
fn folder_of(project: &Project, context: &Context) -> anyhow::Result<PathBuf> {
    let here = fsio::normalize(&context.environment.here);
    let dir = fsio::normalize(&here.join(&project.dir));
    match (dir.strip_prefix(&here), here.starts_with(&dir)) {
        (Ok(below), _) => Ok(below.to_owned()),
        (Err(_), true) => Ok(PathBuf::new()),
        (Err(_), false) => Err(advised(
            format!(
                "the spec is in `{}`, which is not below the directory that you are in",
                dir.display()
            ),
            "run this in the folder that editors are to open, which must hold the project",
        )),
    }
}

/// Lines that a shell evaluates.
fn exports(kept: &KeptView) -> String {
    let dir = quoted(kept.view.path.display().to_string());
    let path = format!("case \"$PATH:\" in {dir}:*) ;; *) export PATH={dir}\"${{PATH:+:$PATH}}\" ;; esac\n");
    variables(kept) + &path
}

fn variables(kept: &KeptView) -> String {
    let all = kept.view.variables.iter();
    all.map(|(name, value)| format!("export {name}={}\n", quoted(value)))
        .collect()
}

/// What direnv evaluates.
fn direnv(kept: &KeptView, files: &[PathBuf]) -> String {
    watched(files) + &variables(kept) + &format!("PATH_add {}\n", shown(&kept.view.path))
}

fn watched(files: &[PathBuf]) -> String {
    let lines = files.iter().map(|file| format!("watch_file {}\n", shown(file)));
    lines.collect()
}

/// What fish evaluates; its quotes know two escapes.
fn fish(kept: &KeptView) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"));
    let all = kept.view.variables.iter();
    let mut text: String = all
        .map(|(name, value)| format!("set -gx {name} {}\n", quoted(value)))
        .collect();
    let dir = quoted(&kept.view.path.display().to_string());
    text += &format!("test \"$PATH[1]\" = {dir}; or set -gx PATH {dir} $PATH\n");
    text
}

fn shown(path: &Path) -> String {
    quoted(path.display().to_string())
}

/// Lines of a `.env` file: nothing in them is computed by whoever reads it.
fn dotenv(kept: &KeptView) -> String {
    let mut all: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in &kept.view.variables {
        all.insert(name, value.clone());
    }
    let mut caller = context::all_variables();
    kept.view.taken_from(&mut caller);
    let own = kept.view.path.display().to_string();
    let path = match caller.get("PATH").filter(|path| !path.is_empty()) {
        Some(path) => format!("{own}:{path}"),
        None => own,
    };
    all.insert("PATH", path);
    let lines = all.into_iter().map(|(name, value)| match value.contains('\'') {
        false => format!("{name}='{value}'\n"),
        true => {
            let mut escaped = String::new();
            for c in value.chars() {
                if matches!(c, '"' | '\\' | '$' | '`') {
                    escaped.push('\\');
                }
                escaped.push(c);
            }
            format!("{name}=\"{escaped}\"\n")
        }
    });
    lines.collect()
}

fn json(kept: &KeptView, wanted: &Wanted<'_>) -> String {
    let view = &kept.view;
    let text = |path: &Path| path.display().to_string();
    json!({
        "name": kept.record.name,
        "path": [text(&view.path)],
        "variables": view.variables,
        "root": text(&view.root),
        "programs": view.programs,
        "files": wanted.files().iter().map(|file| text(file)).collect::<Vec<_>>(),
    })
    .to_string()
}
