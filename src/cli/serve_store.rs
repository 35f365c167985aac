//! `layerize serve-store --stdio`: the store, to another layerize that runs this over ssh.
//!
//! Invariant: whoever asks may do what the login may, and is believed no more than a stranger. Standard output is the
//! protocol's alone.

use std::io::{BufReader, BufWriter};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::binary_cache::Trust;
use crate::build::{self, BuildError};
use crate::derive::{self, Action, BuildPlan, Input};
use crate::event::{Event, Reporter};
use crate::peer::{Activation, BuildOrder, Failure, Installed, ScriptEnd, Services, serve};
use crate::profile::{DEFAULT_PRIORITY, ProfilePackage};
use crate::project::{BuilderChoice, CacheOptions, WorkOptions};
use crate::sandbox;
use crate::store::Store;
use crate::store_path::{StoreDir, StorePath};

use super::context::Context;
use super::error::{self, advised};
use super::outcome::Outcome;

/// How often it is looked whether somebody still waits for a build, in milliseconds.
const LOOK: u16 = 200;

/// Arguments of `layerize serve-store`.
#[derive(Debug, Args)]
pub struct ServeStoreArgs {
    /// Speak the protocol on standard input and output
    #[arg(long, required = true)]
    stdio: bool,
    /// Take paths that neither their content proves nor anybody signed, too
    #[arg(long)]
    no_check_sigs: bool,
}

/// Serves until standard input ends.
pub fn run(args: &ServeStoreArgs, context: &Context) -> anyhow::Result<Outcome> {
    let store = context.environment.store()?;
    let keys = context.config.nix_trusted_keys.iter().map(|key| key.parse());
    let trust = Trust {
        keys: keys.collect::<Result<_, _>>()?,
        unsigned: args.no_check_sigs,
    };
    let services = Services {
        store: &store,
        program: env!("CARGO_PKG_VERSION"),
        judge: &|info, signatures| trust.check_signed(info, signatures, &StoreDir::layerize()),
        find: &|name| find(name, &store, context).map_err(|error| failure(&error)),
        activate: &|activation| activate(activation, &store, context).map_err(|error| failure(&error)),
        build: &|order, print| build_order(order, print, &store, context),
    };
    let (from, to) = (BufReader::new(std::io::stdin()), BufWriter::new(std::io::stdout()));
    match serve(&services, from, to) {
        Ok(()) => Ok(Outcome::Done),
        // It was told where it is waited for.
        Err(failure) => Err(match failure.help.clone() {
            Some(help) => advised(failure.message, help),
            None => failure.into(),
        }),
    }
}

/// What failed, as it is told at the other end.
fn failure(error: &anyhow::Error) -> Failure {
    Failure {
        message: error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": "),
        help: error.chain().find_map(error::help),
        of_script: false,
        end: None,
    }
}

/// What a name means: what is installed under it, or the package of a project that was built here.
fn find(name: &str, store: &Store, context: &Context) -> anyhow::Result<StorePath> {
    let installed = context.profile()?.current()?;
    let installed = installed
        .map(|generation| generation.manifest.packages)
        .unwrap_or_default();
    if let Some(package) = installed.into_iter().find(|package| package.name == name) {
        return Ok(package.path);
    }
    let roots = store.roots()?.into_iter();
    let named: Vec<_> = roots
        .filter(|root| root.owner.as_ref().is_some_and(|owner| owner.target == name))
        .collect();
    let packages = named.iter().filter_map(|root| {
        let owner = root.owner.as_ref().filter(|owner| owner.kind == "package")?;
        Some((owner.folder.display().to_string(), root.target.clone()?))
    });
    match &packages.collect::<Vec<_>>()[..] {
        [(_, path)] => Ok(path.clone()),
        [] if named.is_empty() => Err(advised(
            format!("nothing called `{name}` is installed or kept"),
            "`layerize profile list` and `layerize store roots` say what is; or name a store path",
        )),
        [] => Err(advised(
            format!("`{name}` is an image, and packages are copied"),
            "copy images with `layerize copy`, or name a store path",
        )),
        several => {
            let lines = several
                .iter()
                .map(|(folder, path)| format!("{} of {folder}", StoreDir::layerize().join(path)));
            Err(advised(
                format!("`{name}` is a package of {} projects", several.len()),
                format!("name one by its path: {}", lines.collect::<Vec<_>>().join(", ")),
            ))
        }
    }
}

fn activate(activation: &Activation, store: &Store, context: &Context) -> anyhow::Result<Installed> {
    let profile = context.profile()?;
    let launcher = std::env::current_exe()?;
    let change = profile.change(store, &launcher, |packages| {
        for named in &activation.packages {
            let before = packages.iter().find(|package| package.name == named.name);
            let before = before.map_or(DEFAULT_PRIORITY, |package| package.priority);
            let priority = activation.priority.unwrap_or(before);
            packages.retain(|package| package.name != named.name);
            packages.push(ProfilePackage {
                name: named.name.clone(),
                path: named.path.clone(),
                priority,
                origin: None,
            });
        }
        Ok(())
    })?;
    Ok(Installed {
        generation: change.generation,
        previous: change.previous,
        bin: profile.bin().display().to_string(),
    })
}

/// Tells lines that scripts print.
struct Printer<'a>(&'a (dyn Fn(&str) + Sync));

impl Reporter for Printer<'_> {
    fn report(&self, event: Event) {
        match event {
            Event::BuildOutput { line, .. } => (self.0)(&line),
            Event::Warning { text } => (self.0)(&format!("warning: {text}")),
            _ => {}
        }
    }
}

fn build_order(
    order: &BuildOrder,
    print: &(dyn Fn(&str) + Sync),
    store: &Store,
    context: &Context,
) -> Result<StorePath, Failure> {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| cancel_when_alone(&is_over));
        let built = build_step(order, print, store, context);
        is_over.store(true, Ordering::SeqCst);
        built.map_err(|error| failure_of_build(&error))
    })
}

/// What became of a script, as it is told at the other end: its log is there, line by line.
fn failure_of_build(error: &anyhow::Error) -> Failure {
    let told = failure(error);
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<BuildError>());
    let found = causes.find(|cause| matches!(cause, BuildError::RefusedReference(_)) || cause.is_of_a_script());
    let end = match found {
        Some(BuildError::Script(script)) => {
            let (command, line) = script
                .command
                .as_ref()
                .map_or((None, None), |command| (Some(command.text.clone()), command.line));
            let end = |status, signal| ScriptEnd {
                status,
                signal,
                command,
                line,
            };
            match script.reason {
                build::Reason::Status(status) => Some(end(status, None)),
                build::Reason::Signal(signal) => Some(end(0, Some(signal))),
                _ => None,
            }
        }
        _ => None,
    };
    Failure {
        message: told.message.lines().next().unwrap_or_default().to_owned(),
        of_script: found.is_some(),
        end,
        ..told
    }
}

fn build_step(
    order: &BuildOrder,
    print: &(dyn Fn(&str) + Sync),
    store: &Store,
    context: &Context,
) -> anyhow::Result<StorePath> {
    let derivation = derive::recorded(&order.derivation);
    let mut derivation = derivation.ok_or_else(|| {
        advised(
            "the step is written by other rules than this layerize has",
            "use the same version on both machines",
        )
    })?;
    derivation.label.clone_from(&order.label);
    if let Action::Script(script) = &mut derivation.action {
        let here = format!("{}-linux", std::env::consts::ARCH);
        if script.system != here {
            return Err(advised(
                format!(
                    "`{}` is built on {}, and this machine is {here}",
                    order.label, script.system
                ),
                "name a builder of that kind",
            ));
        }
        script.timeout_seconds = order.timeout_seconds;
        script.cache_dirs.clone_from(&order.cache_dirs);
    }
    let options = WorkOptions {
        cores: order.cores,
        require: order.require.as_deref().map(str::parse).transpose()?,
        builder: BuilderChoice {
            none: true,
            ..BuilderChoice::default()
        },
        cache: CacheOptions {
            none: true,
            ..CacheOptions::default()
        },
        ..WorkOptions::default()
    };
    let options = context.environment.build_options(&options, None)?;
    let plan = BuildPlan {
        steps: vec![derivation],
        ..BuildPlan::default()
    };
    let step = Input::Step(0);
    let mut made = build::realise(store, &plan, std::slice::from_ref(&step), &options, &Printer(print))?;
    made.remove(&step).ok_or_else(|| anyhow::anyhow!("it made nothing"))
}

/// Ends the build when nobody waits for it any more: while one runs, nothing is to be read but the end.
fn cancel_when_alone(is_over: &AtomicBool) {
    let stdin = std::io::stdin();
    while !is_over.load(Ordering::SeqCst) {
        let mut waited = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        if poll(&mut waited, PollTimeout::from(LOOK)).is_ok_and(|ready| ready > 0) {
            return sandbox::cancel();
        }
    }
}
