//! The *command line*: the only code that prints, reads the environment or exits.
//!
//! Invariant: standard output holds data for programs, standard error everything for people; the exit status
//! is 0 for done, 1 where the answer is no, 2 for trouble.
//!
//! What verbs share, each importing only from those before it: `interrupt` `fault` `outcome` `text` `ui` `error` `config`
//! `flags` `context` `upkeep` `manual` `complete` `output` `documents` `sinks` `transfer` `trials`
//! `surroundings` `programs` `isolated` `places`. Every other file is a verb, which imports no other verb.

// Help texts are doc comments, and write what may be left out in brackets.
#![allow(rustdoc::broken_intra_doc_links)]

use std::ffi::OsString;
use std::io::{IsTerminal, Write as _};
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

mod attach;
mod auth;
mod build;
mod cache;
mod check;
mod closure;
mod complete;
mod completions;
mod config;
mod context;
mod copy;
mod copy_closure;
mod diff;
mod documents;
mod env;
mod error;
mod explain;
mod fault;
mod flags;
mod help;
mod index;
mod init;
mod inputs;
mod inspect;
mod interrupt;
mod isolated;
mod key;
mod load;
mod lock;
mod man;
mod manual;
mod outcome;
mod output;
mod places;
mod plan;
mod profile;
mod programs;
mod provenance;
mod push;
mod rebuild;
mod run;
mod sbom;
mod schema;
mod serve;
mod serve_store;
mod shell;
mod sign;
mod sinks;
mod store;
mod surroundings;
mod test;
mod text;
mod transfer;
mod trials;
mod ui;
mod update;
mod upkeep;
mod verify;
mod verify_signature;
mod watch;

use crate::escape::shown_colored;
use crate::event::Silent;
use context::Context;
use flags::{Color, Global};
use outcome::Outcome;
use ui::{Mode, Ui};

/// Hashed closures into OCI images: hermetic builds, reproducible digests, no daemon, no root, no Dockerfile.
#[derive(Debug, Parser)]
#[command(name = "layerize", version, max_term_width = 100, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a layerize.toml for the contents of a directory
    Init(init::InitArgs),
    /// Build images or packages, and write each image to a sink
    Build(build::BuildArgs),
    /// Build images and load them into Docker or podman
    Load(load::LoadArgs),
    /// Build an image and push it to a registry
    Push(push::PushArgs),
    /// Serve the images of the spec as a registry: pulled from this machine, each is built when it is asked for
    Serve(serve::ServeArgs),
    /// Copy an image, or all of an index, from one place to another, byte for byte
    Copy(copy::CopyArgs),
    /// Create or extend an index of images for several platforms
    Index(index::IndexArgs),
    /// Show which store paths share a layer, why, and what an update would re-send
    Plan(plan::PlanArgs),
    /// Show the runtime closure of packages, images or store paths
    Closure(closure::ClosureArgs),
    /// Show what is in an image
    Inspect(inspect::InspectArgs),
    /// Compare two images: exit status 0 if their digests are equal, else 1
    Diff(diff::DiffArgs),
    /// Recompute every digest of an image: exit status 0 if all are right, else 1
    Verify(verify::VerifyArgs),
    /// Build again in a different environment: exit status 0 if the results are identical, else 1
    Check(check::CheckArgs),
    /// Rebuild an image from its inputs or its spec: exit status 0 if the digest is the same, else 1
    Rebuild(rebuild::RebuildArgs),
    /// Show which layer and store path hold a file of an image, why, and what made it
    Explain(explain::ExplainArgs),
    /// Print the bill of materials of an image: SPDX or CycloneDX
    Sbom(sbom::SbomArgs),
    /// Print how an image was made: SLSA v1 provenance
    Provenance(provenance::ProvenanceArgs),
    /// Attach a document to an image in an OCI layout or a registry, as a referrer
    Attach(attach::AttachArgs),
    /// Sign an image, or a document about it, with a key: a sigstore bundle, made offline
    Sign(sign::SignArgs),
    /// Check who signed an image: exit status 0 if the keys vouch for it, else 1
    VerifySignature(verify_signature::VerifySignatureArgs),
    /// Generate signing keys
    Key(key::KeyArgs),
    /// Pin every input that comes from outside in layerize.lock
    Lock(lock::LockArgs),
    /// Take newer versions: by the languages' own tools in their lock files, and in layerize.lock
    Update(update::UpdateArgs),
    /// List, check and export the files that come from outside
    Inputs(inputs::InputsArgs),
    /// Enter the build environment of a package
    Shell(shell::ShellArgs),
    /// Print the build environment of a package as text: for direnv, editors and language servers
    Env(env::EnvArgs),
    /// Run a program of a package, or of an image
    Run(run::RunArgs),
    /// Build again whenever files change, and start what was built anew
    Watch(watch::WatchArgs),
    /// Build images and run their tests: exit status 0 if all pass, else 1
    Test(test::TestArgs),
    /// Install packages into the profile: their programs on the PATH, with manual pages and completions
    Install(profile::InstallArgs),
    /// Take packages out of the profile
    Uninstall(profile::UninstallArgs),
    /// Build what the profile has anew, as the specs are now
    Upgrade(profile::UpgradeArgs),
    /// Go back to the profile as it was before, or to a generation
    Rollback(profile::RollbackArgs),
    /// Show what is installed, and the profile's generations
    Profile(profile::ProfileArgs),
    /// Copy packages, with all they refer to, to another machine over ssh, or from it
    CopyClosure(copy_closure::CopyClosureArgs),
    /// Serve the store to another layerize, on standard input and output: what `copy-closure` runs over ssh
    ServeStore(serve_store::ServeStoreArgs),
    /// Start a program of the store with the store at its place
    #[command(name = "__launch", hide = true)]
    Launch(profile::LaunchArgs),
    /// Manage the store
    Store(store::StoreArgs),
    /// List what shared caches keep, and remove what nobody uses
    Cache(cache::CacheArgs),
    /// Show the login and the connection settings for a registry
    Auth(auth::AuthArgs),
    /// Show a chapter of the manual, or the help of a command
    Help(help::HelpArgs),
    /// Write the manual as man pages
    Man(man::ManArgs),
    /// Print the JSON Schema of layerize.toml
    Schema,
    /// Print completions for a shell
    Completions(completions::CompletionsArgs),
    /// Run a program in the environment of a view
    #[command(name = "__enter", hide = true)]
    Enter(env::EnterArgs),
    /// Run a program on the machine's root with the store in its place
    #[command(name = "__start", hide = true)]
    Start(watch::StartArgs),
    /// Panic, for the test of what becomes of a panic
    #[cfg(debug_assertions)]
    #[command(name = "__fault", hide = true)]
    InternalError {
        /// Where: here, thread, stuck
        kind: String,
    },
}

impl Command {
    /// The arguments that may name a spec elsewhere, if it has any.
    fn names(&mut self) -> Option<(places::Names<'_>, &mut flags::BuildFlags)> {
        match self {
            Self::Build(args) => Some(args.names()),
            Self::Check(args) => Some(args.names()),
            Self::Closure(args) => Some(args.names()),
            Self::CopyClosure(args) => Some(args.names()),
            Self::Diff(args) => Some(args.names()),
            Self::Env(args) => Some(args.names()),
            Self::Explain(args) => Some(args.names()),
            Self::Inputs(args) => Some(args.names()),
            Self::Install(args) => Some(args.names()),
            Self::Load(args) => Some(args.names()),
            Self::Plan(args) => Some(args.names()),
            Self::Provenance(args) => Some(args.names()),
            Self::Push(args) => Some(args.names()),
            Self::Run(args) => Some(args.names()),
            Self::Sbom(args) => Some(args.names()),
            Self::Serve(args) => Some(args.names()),
            Self::Shell(args) => Some(args.names()),
            Self::Test(args) => Some(args.names()),
            Self::Watch(args) => Some(args.names()),
            _ => None,
        }
    }

    /// Whether it may build, fetch or pack something.
    fn adds_to_the_store(&self) -> bool {
        use Command::{
            Build, Check, CopyClosure, Env, Install, Load, Lock, Plan, Push, Rebuild, Run, Serve, ServeStore, Shell,
            Test, Update, Upgrade, Watch,
        };
        matches!(
            self,
            Build(_)
                | Check(_)
                | CopyClosure(_)
                | Env(_)
                | Install(_)
                | Load(_)
                | Lock(_)
                | Plan(_)
                | Push(_)
                | Rebuild(_)
                | Run(_)
                | Serve(_)
                | ServeStore(_)
                | Shell(_)
                | Test(_)
                | Update(_)
                | Upgrade(_)
                | Watch(_)
        )
    }
}

/// Runs the program: parses the arguments, does what they say, shows errors, gives the exit status.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if arguments.get(1).is_some_and(|argument| argument == "__sandbox") {
        crate::sandbox::sandbox_main();
    }
    if arguments
        .get(1)
        .is_some_and(|argument| argument == crate::remote::WORKER)
    {
        return work_for_farm();
    }
    if let Some(answered) = complete::answer(&arguments, Cli::command) {
        return answered;
    }
    if arguments.get(1).is_some_and(|argument| argument == "__cross") {
        return cross(&arguments[2..]);
    }
    if arguments.get(1).is_some_and(|argument| argument == "__launch")
        && let Some(error) = profile::become_program(&arguments[2..])
    {
        error::show(&error, &Ui::new(Mode::Plain, wants_color(Color::Auto), false));
        return ExitCode::from(126);
    }
    fault::watch();
    fault::catch(|| Ok(parse_and_run(arguments))).unwrap_or_else(|error| {
        // Before there is a printer, or when it is gone.
        let ui = Ui::new(Mode::Plain, wants_color(Color::Auto), false);
        error::show(&error, &ui);
        ExitCode::from(2)
    })
}

/// Runs the step that was sent to the working directory, as the helper that was sent with it.
fn work_for_farm() -> ExitCode {
    use std::io::Write;
    let Ok(dir) = std::env::current_dir() else {
        return ExitCode::from(2);
    };
    let status = crate::remote::work(&dir, &mut |bytes| {
        let mut out = std::io::stdout().lock();
        // Where nobody reads it there is nobody to tell.
        let _ = out.write_all(bytes).and_then(|()| out.flush());
    });
    ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX))
}

/// Becomes a program of the other root of a shell.
fn cross(arguments: &[OsString]) -> ExitCode {
    let error = crate::sandbox::cross::cross(arguments, &context::all_variables());
    let status = error.status();
    error::show(&error.into(), &Ui::new(Mode::Plain, wants_color(Color::Auto), false));
    ExitCode::from(status)
}

fn parse_and_run(arguments: Vec<OsString>) -> ExitCode {
    match Cli::try_parse_from(arguments) {
        Ok(cli) => run(cli),
        Err(error) => {
            let trouble = error.use_stderr();
            // If nobody reads it there is nobody to tell.
            let _ = match trouble {
                true => complain(&error),
                // Help and version go to standard output.
                false => error.print(),
            };
            ExitCode::from(if trouble { 2 } else { 0 })
        }
    }
}

/// Prints what is wrong with the arguments, which may be texts from outside that a script passes on.
fn complain(error: &clap::Error) -> std::io::Result<()> {
    let rendered = error.render();
    let text = match wants_color(Color::Auto) {
        true => rendered.ansi().to_string(),
        false => rendered.to_string(),
    };
    std::io::stderr().write_all(shown_colored(&text).as_bytes())
}

fn run(cli: Cli) -> ExitCode {
    let mode = Mode::choose(cli.global.quiet, cli.global.json);
    let ui = Ui::new(mode, wants_color(cli.global.color), cli.global.verbose);
    interrupt::watch();
    match fault::catch(|| dispatch(cli, &ui)) {
        Ok(Outcome::Ended) => ExitCode::SUCCESS,
        Ok(_) if interrupt::requested() => interrupt::exit_code(),
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::No) => ExitCode::from(1),
        Ok(Outcome::Status(status)) => ExitCode::from(status),
        Err(error) if error::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            error::show(&error, &ui);
            if interrupt::requested() && !error.is::<fault::InternalError>() {
                interrupt::exit_code()
            } else {
                ExitCode::from(2)
            }
        }
    }
}

fn dispatch(mut cli: Cli, ui: &Ui) -> anyhow::Result<Outcome> {
    // Help is for those whose machine is not set up, too.
    if let Command::Help(args) = &cli.command {
        return help::run(args, Cli::command(), ui);
    }
    let mut context = Context::new(&cli.global, ui)?;
    let takes_several = matches!(cli.command, Command::Shell(_) | Command::Env(_));
    if let ([_, ..], false) = (&context.further_files[..], takes_several) {
        return Err(error::advised(
            "several specs are named",
            "name one with `--file`; `layerize shell` and `layerize env` alone take several",
        ));
    }
    if matches!(cli.command, Command::Env(_)) && ui.json() {
        // What is evaluated holds no events, those of fetching a spec neither.
        context.environment.reporter = &Silent;
    }
    if let Some((names, flags)) = cli.command.names() {
        places::take(names, flags, &mut context)?;
    }
    let background = (cli.command.adds_to_the_store())
        .then(|| upkeep::begin(&context))
        .flatten();
    // Whatever it has open is closed when it comes back, and counts as used no more.
    let outcome = dispatch_in(&cli.command, &context);
    upkeep::finish(background, &context);
    outcome
}

fn dispatch_in(command: &Command, context: &Context) -> anyhow::Result<Outcome> {
    match command {
        Command::Init(args) => init::run(args, context),
        Command::Build(args) => build::run(args, context),
        Command::Load(args) => load::run(args, context),
        Command::Push(args) => push::run(args, context),
        Command::Serve(args) => serve::run(args, context),
        Command::Copy(args) => copy::run(args, context),
        Command::Index(args) => index::run(args, context),
        Command::Plan(args) => plan::run(args, context),
        Command::Closure(args) => closure::run(args, context),
        Command::Inspect(args) => inspect::run(args, context),
        Command::Diff(args) => diff::run(args, context),
        Command::Verify(args) => verify::run(args, context),
        Command::Check(args) => check::run(args, context),
        Command::Rebuild(args) => rebuild::run(args, context),
        Command::Explain(args) => explain::run(args, context),
        Command::Sbom(args) => sbom::run(args, context),
        Command::Provenance(args) => provenance::run(args, context),
        Command::Attach(args) => attach::run(args, context),
        Command::Sign(args) => sign::run(args, context),
        Command::VerifySignature(args) => verify_signature::run(args, context),
        Command::Key(args) => key::run(args, context),
        Command::Lock(args) => lock::run(args, context),
        Command::Update(args) => update::run(args, context),
        Command::Inputs(args) => inputs::run(args, context),
        Command::Shell(args) => shell::run(args, context),
        Command::Env(args) => env::run(args, context),
        Command::Enter(args) => env::enter(args, context),
        Command::Run(args) => run::run(args, context),
        Command::Watch(args) => watch::run(args, context),
        Command::Start(args) => watch::start(args, context),
        Command::Test(args) => test::run(args, context),
        Command::Install(args) => profile::install(args, context),
        Command::Uninstall(args) => profile::uninstall(args, context),
        Command::Upgrade(args) => profile::upgrade(args, context),
        Command::Rollback(args) => profile::rollback(args, context),
        Command::Profile(args) => profile::run(args, context),
        Command::CopyClosure(args) => copy_closure::run(args, context),
        Command::ServeStore(args) => serve_store::run(args, context),
        Command::Launch(args) => profile::launch(args, context),
        Command::Store(args) => store::run(args, context),
        Command::Cache(args) => cache::run(args, context),
        Command::Auth(args) => auth::run(args, context),
        Command::Help(args) => help::run(args, Cli::command(), context.ui),
        Command::Man(args) => man::run(args, Cli::command(), context),
        Command::Schema => schema::run(context),
        Command::Completions(args) => completions::run(args),
        #[cfg(debug_assertions)]
        Command::InternalError { kind } => {
            fault::provoke(kind);
            Ok(Outcome::Done)
        }
    }
}

fn wants_color(color: Color) -> bool {
    match color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => std::io::stderr().is_terminal() && !context::is_set("NO_COLOR"),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_well_formed() {
        super::Cli::command().debug_assert();
    }
}
