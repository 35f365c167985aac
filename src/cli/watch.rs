//! `layerize watch`: what is built is built again when its files change, and what runs of it is started anew.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpgrp, getppid};

use crate::build::{self, StoreProgram};
use crate::child::RunningChild;
use crate::event::{Event, Reporter};
use crate::oci::Compression;
use crate::project::sight::{Alarm, Sight, Told};
use crate::project::{self, Environment, ImageOptions, PlatformChoice, Project, Target, Work, work};
use crate::sandbox::emulator::Emulator;
use crate::store_path::StoreDir;
use crate::transport::{Daemon, Engine};

use super::complete;
use super::context::{self, Context};
use super::error::{self, advised};
use super::flags::BuildFlags;
use super::interrupt;
use super::outcome::Outcome;
use super::places::Names;
use super::programs::{self, Started};

/// How long nothing must change before what changed is looked at: an editor writes several files.
const QUIET: Duration = Duration::from_millis(25);

/// How long a flood of changes is waited for at most.
const FLOOD: Duration = Duration::from_millis(500);

/// How often it is looked whether an interrupt came, or the program ended.
const TICK: Duration = Duration::from_millis(50);

/// How often files are looked at that the kernel does not tell of.
const ROUND: Duration = Duration::from_secs(2);

/// How many times as long as a look takes no further look is taken.
const REST: u32 = 20;

/// The same where looks are all there is, as the kernel tells nothing.
const DEAF_REST: u32 = 5;

/// How long a program has to end that is asked to.
const GRACE: Duration = Duration::from_secs(3);

/// Arguments of `layerize watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// A package or image of the spec
    #[arg(add = complete::targets_or_files())]
    name: String,
    /// A package's program [default: its only one, or the one with the package's name]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["load", "command"])]
    program: Option<String>,
    /// Load the image into Docker or podman instead of running its program
    #[arg(long, conflicts_with = "command")]
    load: bool,
    /// Build only
    #[arg(long, conflicts_with_all = ["load", "program", "command"])]
    no_run: bool,
    /// A program of the machine with its arguments, run instead of the package's or image's own; `$out` is what was built
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
    #[command(flatten)]
    flags: BuildFlags,
}

impl WatchArgs {
    /// The arguments that may name a spec elsewhere.
    pub fn names(&mut self) -> (Names<'_>, &mut BuildFlags) {
        (Names::Each(vec![&mut self.name]), &mut self.flags)
    }
}

/// Arguments of a program that is started in a process of its own.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// What runs it where it is for another processor
    #[arg(long, value_parser = emulator)]
    emulator: Option<Emulator>,
    /// The program, by its path, and its arguments
    #[arg(last = true, required = true)]
    argv: Vec<String>,
}

fn emulator(text: &str) -> Result<Emulator, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// Becomes a program on the machine's root with the store in its place; whoever asked for it takes it along when it ends.
pub fn start(args: &StartArgs, context: &Context) -> anyhow::Result<Outcome> {
    // Where that cannot be said, only a killed watch leaves a program behind.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    let parent = getppid();
    let store = context.environment.store()?;
    let cwd = context.environment.here.clone();
    let program = StoreProgram {
        argv: args.argv.clone(),
        env: context::all_variables(),
        cwd,
        emulator: args.emulator.clone(),
        helper: None,
    };
    let status = build::run_in_store(&store, program)?;
    if getppid() != parent {
        // Nobody is left to end what the program started: ours is a process group of our own.
        let _ = killpg(getpgrp(), Signal::SIGKILL);
    }
    Ok(Outcome::of_status(status))
}

/// What a build came to.
enum Made {
    /// A program is to run.
    Program(Started),
    /// An image is to be loaded.
    Image(Box<project::NamedImage>),
    /// Nothing is to be done with what is at this place.
    Built(String),
}

impl Made {
    /// By which it is the same as before.
    fn key(&self) -> String {
        match self {
            Self::Program(Started { argv, env, .. }) => format!("{argv:?} {env:?}"),
            Self::Image(named) => named.image.digest().to_string(),
            Self::Built(place) => place.clone(),
        }
    }
}

/// What runs, and what it was made of.
struct Watch<'a> {
    args: &'a WatchArgs,
    context: &'a Context<'a>,
    running: Option<RunningChild>,
    made: Option<String>,
}

/// Builds, runs and waits for changes until it is interrupted.
pub fn run(args: &WatchArgs, context: &Context) -> anyhow::Result<Outcome> {
    if let Some(elsewhere) = &context.environment.elsewhere {
        return Err(advised(
            format!(
                "nothing is edited in `{}`, so that there is nothing to watch",
                elsewhere.place
            ),
            format!(
                "`layerize run {}#{}` runs it",
                elsewhere.place.trim_end_matches('#'),
                args.name
            ),
        ));
    }
    let context = &context.with_spec_found()?;
    // What cannot be watched at all is told at once.
    let project = Project::load(&context.environment)?;
    project::target::name(&args.name, &project)?;
    let mut watch = Watch {
        args,
        context,
        running: None,
        made: None,
    };
    if !args.command.is_empty() {
        watch.command()?;
    }
    if args.load {
        Engine::find()?;
    }
    let mut alarm = Alarm::new();
    let mut seen = Sight::of(&project)?;
    drop(project);
    loop {
        // What was changed in a directory before it was attended to was not heard of.
        while alarm.attend(&seen) && !interrupt::requested() {
            seen = watch.look(&seen);
        }
        watch.round();
        if interrupt::requested() {
            break;
        }
        watch.tell_waiting(&seen);
        match watch.next(&alarm, &seen) {
            Some(new) => seen = new,
            None => break,
        }
    }
    watch.stop();
    Ok(Outcome::Ended)
}

impl Watch<'_> {
    /// Builds and does what is to be done with it; a failure is shown, and what ran goes on.
    fn round(&mut self) {
        let begun = Instant::now();
        let made = self.make();
        self.context.ui.clear();
        let done = made.and_then(|made| match self.made.as_ref() == Some(&made.key()) {
            true => {
                self.note("nothing of it changed");
                Ok(())
            }
            false => self.take(made, begun),
        });
        if let Err(error) = done
            && !interrupt::requested()
        {
            error::show(&error, self.context.ui);
            if self.running.is_some() {
                self.note("what ran before goes on");
            }
        }
    }

    fn make(&self) -> anyhow::Result<Made> {
        let (args, environment) = (self.args, &self.context.environment);
        let named = std::slice::from_ref(&args.name);
        let work = work::prepare(named, &args.flags.options_for(PlatformChoice::Own), environment)?;
        if args.load {
            let options = ImageOptions {
                // Faster than any compressor, and the engine would only decompress again.
                compression: Some(Compression::None),
                ..ImageOptions::default()
            };
            let image = project::images(&work, &options, environment)?.pop();
            let image = image.with_context(|| format!("`{}` is no image", args.name))?;
            return Ok(Made::Image(Box::new(image)));
        }
        for target in &work.targets {
            work.add_root(target)?;
        }
        let out = built(&work);
        if args.no_run {
            return Ok(Made::Built(out));
        }
        Ok(Made::Program(match (args.command.is_empty(), &work.targets[..]) {
            (false, _) => Started {
                argv: self.command()?,
                env: [("out".to_owned(), out)].into(),
                emulator: None,
            },
            (true, [Target::Image(_)]) => programs::of_image(&args.name, &[], &work, environment)?,
            (true, _) => Started {
                argv: vec![programs::of_package(args.program.as_deref(), &work)?],
                env: Default::default(),
                emulator: work.emulator(&args.name, environment)?,
            },
        }))
    }

    /// The program of the machine that is meant, by its path.
    fn command(&self) -> anyhow::Result<Vec<String>> {
        let mut argv = self.args.command.clone();
        let name = &argv[0];
        let path = match name.contains('/') {
            true => Some(self.context.environment.here.join(name)),
            false => {
                let path = context::text_variable("PATH").unwrap_or_default();
                let dirs = path.split(':').filter(|dir| dir.starts_with('/'));
                dirs.map(|dir| Path::new(dir).join(name)).find(|path| path.is_file())
            }
        };
        let path = path.filter(|path| path.is_file()).ok_or_else(|| {
            advised(
                format!("there is no program `{name}` on this machine"),
                "a shell's line is run by `-- sh -c 'LINE'`",
            )
        })?;
        argv[0] = path.display().to_string();
        Ok(argv)
    }

    fn take(&mut self, made: Made, begun: Instant) -> anyhow::Result<()> {
        let key = made.key();
        match made {
            Made::Built(place) => self.note(&format!("built in {}: {place}", after(begun))),
            Made::Image(named) => {
                let loaded = Daemon::new(Engine::find()?).load(&named.image, &named.names)?;
                let names = named.names.join(", ");
                self.note(&format!("loaded in {}: {names} ({})", after(begun), loaded.id));
            }
            Made::Program(started) => {
                let was_running = self.running.is_some();
                self.stop();
                self.running = Some(self.spawn(&started)?);
                let verb = if was_running { "restarted" } else { "started" };
                let program = started.argv.first().map_or("", String::as_str);
                self.note(&format!("{verb} in {}: {program}", after(begun)));
            }
        }
        self.made = Some(key);
        Ok(())
    }

    fn spawn(&self, started: &Started) -> anyhow::Result<RunningChild> {
        let layerize = std::env::current_exe().context("cannot tell where layerize itself is")?;
        let mut command = Command::new(layerize);
        command
            .arg("--store")
            .arg(&self.context.environment.store_dir)
            .arg("__start");
        if let Some(emulator) = &started.emulator {
            command.arg("--emulator").arg(serde_json::to_string(emulator)?);
        }
        command
            .arg("--")
            .args(&started.argv)
            .envs(&started.env)
            .current_dir(&self.context.environment.here)
            // What is typed is for us: the interrupt.
            .stdin(Stdio::null());
        RunningChild::spawn(&mut command).with_context(|| format!("cannot start `{}`", started.argv[0]))
    }

    /// Waits for files that are other than `seen`, while what runs may end; `None`: it is interrupted.
    fn next(&mut self, alarm: &Alarm, seen: &Sight) -> Option<Sight> {
        let mut looked = Instant::now();
        let mut cost = Duration::ZERO;
        while !interrupt::requested() {
            self.tell_end();
            let mut told = seen.filter(alarm.wait(TICK));
            let rest = if alarm.is_deaf() { DEAF_REST } else { REST };
            if told == Told::Nothing && looked.elapsed() < ROUND.max(cost * rest) {
                continue;
            }
            let flood = Instant::now();
            while told != Told::Nothing && flood.elapsed() < FLOOD {
                match alarm.wait(QUIET) {
                    Told::Nothing => break,
                    more => told = told.and(seen.filter(more)),
                }
            }
            let again = match told {
                Told::At(paths) => seen.again(&paths),
                Told::Nothing | Told::Anywhere => None,
            };
            let new = again.unwrap_or_else(|| {
                let begun = Instant::now();
                let new = self.look(seen);
                cost = begun.elapsed();
                looked = Instant::now();
                new
            });
            let changes = seen.changes(&new);
            if let Some(first) = changes.first() {
                let more = match changes.len() {
                    1 => String::new(),
                    count => format!(" and {} more", count - 1),
                };
                self.note(&format!("{} changed{more}", self.context.shown(first).display()));
                return Some(new);
            }
        }
        None
    }

    /// The files as they are now; of a spec that cannot be read, those that were seen before.
    fn look(&self, seen: &Sight) -> Sight {
        let environment: &Environment<'_> = &self.context.environment;
        let looked = Project::load(environment).and_then(|project| Sight::of(&project));
        looked
            .or_else(|_| Sight::of_spec(environment).map(|sight| sight.with_those_of(seen)))
            .unwrap_or_else(|_| Sight::default().with_those_of(seen))
    }

    /// Says that the program has ended by itself.
    fn tell_end(&mut self) {
        let Some(running) = &mut self.running else { return };
        if matches!(running.is_running(), Ok(true)) {
            return;
        }
        if let Ok(status) = running.end() {
            self.running = None;
            self.note(&match status.code() {
                Some(code) => format!("it ended with status {code}; it is started again when a file changes"),
                None => "it was killed; it is started again when a file changes".to_owned(),
            });
            // It is to be started again even where it comes out the same.
            self.made = None;
        }
    }

    /// Ends the program, and whoever is left of what it started.
    fn stop(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        let pid = Pid::from_raw(i32::try_from(running.child.id()).unwrap_or(i32::MAX));
        // An interrupt has asked it already.
        if !interrupt::requested() {
            let _ = kill(pid, Signal::SIGTERM);
        }
        let asked = Instant::now();
        while asked.elapsed() < GRACE && matches!(running.is_running(), Ok(true)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        // It has ended or will not: neither it nor what it started is left.
        let _ = running.end();
    }

    fn tell_waiting(&self, seen: &Sight) {
        if self.context.ui.verbose() || self.made.is_none() || self.running.is_none() {
            self.note(&format!("waiting for changes in {} files; Ctrl-C ends", seen.count()));
        }
    }

    fn note(&self, text: &str) {
        self.context.ui.report(Event::Note { text: text.to_owned() });
    }
}

/// What was built, by a name of its own.
fn built(work: &Work) -> String {
    let roots = work.targets.iter().flat_map(|target| work.roots(target));
    let paths: Vec<String> = roots.map(|path| StoreDir::layerize().join(&path)).collect();
    paths.join(" ")
}

fn after(begun: Instant) -> String {
    format!("{:.2} s", begun.elapsed().as_secs_f64())
}
