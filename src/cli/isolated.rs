//! Programs of images *isolated*: in the image's own root and without an engine, for `layerize run` and `layerize shell`.
//!
//! Invariant: the root of an image is what the image says; nothing of the machine is in it but what was asked for.

use std::io::IsTerminal;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::context::{self, Context};
use super::documents;
use super::error::{self, advised};
use super::flags::{BuildFlags, value};
use super::outcome::Outcome;
use crate::container::{Container, ContainerError, RunOptions, RunnableImage, Volume, Workshop, foreign};
use crate::image::Image;
use crate::oci::Platform;
use crate::project::{self, ImageOptions, PlatformChoice, Project, work};
use crate::sandbox::{self, emulator::Emulator};
use crate::transport::{Content, Location};

/// Flags of `layerize run` that are about an image.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Image options")]
pub struct ContainerFlags {
    /// Run an image in its own root, as its user, in namespaces; so is every image that is not one of the spec
    #[arg(long)]
    isolated: bool,
    /// Which platform of a multi-platform image
    #[arg(long, value_name = "OS/ARCH", value_parser = value::<Platform>)]
    platform: Option<Platform>,
    /// Program in place of the image's entrypoint and `cmd`; empty: none
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Variable, or the name of one of yours; repeatable
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// File or directory of the machine, and where it is in the container; repeatable
    #[arg(long, value_name = "PATH:PLACE[:ro]")]
    volume: Vec<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// User, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Let nothing be written but in volumes
    #[arg(long)]
    read_only: bool,
    /// Whose network the program has [default: host]
    #[arg(long, value_enum, value_name = "WHOSE")]
    network: Option<NetworkFlag>,
}

impl ContainerFlags {
    /// Which platform is meant of what the spec has: the machine's own, unless one is named.
    pub fn platforms(&self) -> PlatformChoice {
        match &self.platform {
            Some(platform) => PlatformChoice::These(vec![platform.clone()]),
            None => PlatformChoice::Own,
        }
    }

    /// Whether an image is to have its own root: what these flags are about is not to be had on the machine's. A package is
    /// made for a platform, too.
    pub fn isolate(&self, is_package: bool) -> bool {
        let Self {
            isolated,
            platform,
            entrypoint,
            env,
            volume,
            workdir,
            user,
            read_only,
            network,
        } = self;
        let named = platform.is_some() && !is_package
            || entrypoint.is_some()
            || workdir.is_some()
            || user.is_some()
            || network.is_some();
        let listed = !env.is_empty() || !volume.is_empty();
        *isolated || *read_only || named || listed
    }
}

/// Whose network a program has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum NetworkFlag {
    /// The machine's: its ports are the machine's ports
    Host,
    /// One with nobody else in it
    None,
}

/// Makes or opens the image and runs its program.
pub fn run(
    name: &str,
    flags: &ContainerFlags,
    arguments: &[String],
    build: &BuildFlags,
    context: &Context,
) -> anyhow::Result<Outcome> {
    let options = options(flags, arguments)?;
    let (image, emulator) = find(name, flags, build, context)?;
    context.ui.clear();
    ended(start(&image, emulator.as_ref(), &options, context)?, context)
}

/// Shells that images may have, those that people like better first.
const SHELLS: [&str; 5] = ["bash", "ash", "sh", "/busybox/sh", "fish"];

/// What a shell of an image does: what its user types, a text, or a program instead of it.
pub enum ShellTask<'a> {
    /// What is typed.
    Interactive,
    /// A text of the shell's language.
    Text(&'a str),
    /// A program with its arguments.
    Program(&'a [String]),
}

/// Makes or opens the image and runs a shell of its own in it.
pub fn shell(
    name: &str,
    platform: Option<&Platform>,
    task: &ShellTask<'_>,
    build: &BuildFlags,
    context: &Context,
) -> anyhow::Result<Outcome> {
    let flags = ContainerFlags {
        platform: platform.cloned(),
        ..ContainerFlags::default()
    };
    let (image, emulator) = find(name, &flags, build, context)?;
    context.ui.clear();
    let with = |entrypoint: Vec<String>| -> anyhow::Result<RunOptions> {
        Ok(RunOptions {
            entrypoint: Some(entrypoint),
            ..options(&ContainerFlags::default(), &[])?
        })
    };
    if let ShellTask::Program(argv) = task {
        return ended(
            start(&image, emulator.as_ref(), &with(argv.to_vec())?, context)?,
            context,
        );
    }
    for shell in SHELLS {
        let mut argv = vec![shell.to_owned()];
        if let ShellTask::Text(text) = task {
            argv.extend(["-c".to_owned(), (*text).to_owned()]);
        }
        match start(&image, emulator.as_ref(), &with(argv)?, context)? {
            Err(error) if error.status() == Some(127) => {}
            other => return ended(other, context),
        }
    }
    Err(advised(
        format!("the image `{name}` has no shell"),
        format!(
            "run a program of it: `layerize run --isolated --entrypoint PROGRAM {name}`; an image of a spec has a second one \
             with a shell by `debug = true`"
        ),
    ))
}

/// Runs a program of an image, unless it cannot be started.
fn start(
    image: &Image,
    emulator: Option<&Emulator>,
    options: &RunOptions,
    context: &Context,
) -> anyhow::Result<Result<Outcome, ContainerError>> {
    let config = image.config.image().ok_or(ContainerError::Artifact)?;
    let runnable = RunnableImage {
        layers: &image.layers,
        config,
    };
    let (store, roots) = (context.environment.store()?, context.environment.roots()?);
    let staging = store.scratch()?;
    let workshop = Workshop {
        roots: &roots,
        helper: None,
        emulator,
        reporter: context.ui,
    };
    let container = match Container::make(runnable, options, workshop, staging.path()) {
        Ok(container) => container,
        Err(error) if error.status().is_some() => return Ok(Err(error)),
        Err(error) => return Err(error.into()),
    };
    match container.run() {
        Ok(sandbox::Outcome::Exited(status)) => Ok(Ok(Outcome::of_status(status))),
        // As shells tell it.
        Ok(sandbox::Outcome::Signaled(signal)) => Ok(Ok(Outcome::of_status(128 + signal))),
        Ok(_) => Err(ContainerError::Cancelled.into()),
        Err(failure) => Ok(Err(failure)),
    }
}

/// How it ended; why it did not start is told with the status that container engines have for it.
fn ended(started: Result<Outcome, ContainerError>, context: &Context) -> anyhow::Result<Outcome> {
    match started {
        Ok(outcome) => Ok(outcome),
        Err(failure) => match failure.status() {
            Some(status) => {
                error::show(&failure.into(), context.ui);
                Ok(Outcome::Status(status))
            }
            None => Err(failure.into()),
        },
    }
}

/// The image that is meant, and what runs its programs where they are for another processor: one of the spec goes before a
/// file of the same name.
fn find(
    name: &str,
    flags: &ContainerFlags,
    build: &BuildFlags,
    context: &Context,
) -> anyhow::Result<(Image, Option<Emulator>)> {
    let project = Project::load(&context.environment).ok();
    let is_of_spec = (project.as_ref()).is_some_and(|project| project.workspace.images.contains_key(name));
    let arguments = [name.to_owned()];
    if !is_of_spec && let Some(place) = documents::finished(&arguments) {
        let location: Location = place.parse()?;
        let opened = context.content(&location, flags.platform.as_ref(), false)?;
        return match opened.content {
            Content::Image(image) => {
                let emulator = emulator_of(name, &image, project.as_ref(), build, context)?;
                Ok((image, emulator))
            }
            Content::Index(_) => Err(advised(
                format!("`{name}` holds images for several platforms"),
                "choose one with `--platform`",
            )),
        };
    }
    let work = work::prepare(&arguments, &build.options_for(flags.platforms()), &context.environment)?;
    let options = ImageOptions {
        platforms: flags.platform.iter().cloned().collect(),
        ..ImageOptions::default()
    };
    let named = project::images(&work, &options, &context.environment)?.pop();
    let named = named.ok_or_else(|| {
        advised(
            format!("`{name}` is no image"),
            format!("run a package's program without `--isolated`: `layerize run {name}`"),
        )
    })?;
    let emulator = work.emulator(name, &context.environment)?;
    Ok((named.image, emulator))
}

/// What runs the programs of an image from elsewhere, where they are for another processor and the project here has that.
fn emulator_of(
    name: &str,
    image: &Image,
    project: Option<&Project>,
    build: &BuildFlags,
    context: &Context,
) -> anyhow::Result<Option<Emulator>> {
    let config = image.config.image().filter(|config| foreign(config).is_some());
    let platform = config.and_then(|config| config.platform());
    let (Some(project), Some(platform)) = (project, platform) else {
        return Ok(None);
    };
    let options = build.options();
    let found = work::emulator_of_project(name, &platform, project, &options, &context.environment);
    Ok(found?)
}

fn options(flags: &ContainerFlags, arguments: &[String]) -> anyhow::Result<RunOptions> {
    let entrypoint = flags.entrypoint.as_ref().map(|program| match program.is_empty() {
        true => Vec::new(),
        false => vec![program.clone()],
    });
    Ok(RunOptions {
        arguments: arguments.to_vec(),
        entrypoint,
        env: flags
            .env
            .iter()
            .map(|text| variable(text))
            .collect::<Result<Vec<_>, _>>()?
            .concat(),
        volumes: flags.volume.iter().map(|text| volume(text)).collect::<Result<_, _>>()?,
        workdir: flags.workdir.clone(),
        user: flags.user.clone(),
        read_only: flags.read_only,
        no_network: flags.network == Some(NetworkFlag::None),
        terminal: std::io::stdin().is_terminal() && std::io::stdout().is_terminal(),
    })
}

/// `KEY=VALUE`, or `KEY` with the value that it has here; nothing where it has none.
fn variable(text: &str) -> anyhow::Result<Vec<(String, String)>> {
    match text.split_once('=') {
        Some(("", _)) => Err(advised(
            format!("`--env {text}` names no variable"),
            "write `--env KEY=VALUE`, or `--env KEY` for one of yours",
        )),
        Some((name, value)) => Ok(vec![(name.to_owned(), value.to_owned())]),
        None => {
            let mut all = context::all_variables();
            Ok(all
                .remove(text)
                .map(|value| (text.to_owned(), value))
                .into_iter()
                .collect())
        }
    }
}

/// `PATH:PLACE[:ro]`.
fn volume(text: &str) -> anyhow::Result<Volume> {
    let (rest, read_only) = match text.strip_suffix(":ro") {
        Some(rest) => (rest, true),
        None => (text.strip_suffix(":rw").unwrap_or(text), false),
    };
    match rest.rsplit_once(':') {
        Some((source, target)) if !source.is_empty() && target.starts_with('/') => Ok(Volume {
            source: PathBuf::from(source),
            target: target.to_owned(),
            read_only,
        }),
        _ => Err(advised(
            format!("`--volume {text}` does not say what goes where"),
            "write `--volume PATH:/PLACE`, with `:ro` at the end for one that cannot be written to",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_parsed() {
        for (text, source, target, read_only) in [
            ("a:/b", "a", "/b", false),
            ("/a:/b:ro", "/a", "/b", true),
            ("/a:b:/c:rw", "/a:b", "/c", false),
        ] {
            let volume = volume(text).unwrap();
            let found = (
                volume.source.to_str().unwrap(),
                volume.target.as_str(),
                volume.read_only,
            );
            assert_eq!(found, (source, target, read_only), "{text}");
        }
        for text in ["", "a", "a:b", ":/b", "/a:ro"] {
            assert!(volume(text).is_err(), "{text}");
        }
    }
}
