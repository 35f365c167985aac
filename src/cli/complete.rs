//! *Completions* are what a word of the command line may become: names of the nearest spec beside commands and flags.
//!
//! Invariant: whatever is wrong with a spec or a lock, nothing is printed but candidates; nothing is built, fetched or written.
//!
//! A shell's script (`layerize completions SHELL`) runs layerize with [`VARIABLE`] set, which then answers instead of doing
//! what the words say.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Command, CommandFactory as _};
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter as _};

use super::context::{state_dir, text_variable};
use super::manual::TOPICS;
use crate::profile::Profile;
use crate::project::Project;

/// The variable by which a shell's script asks.
pub const VARIABLE: &str = "LAYERIZE_COMPLETE";

/// Which names of a spec or its lock a word may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    Images,
    Packages,
    Targets,
    Locked,
    Installed,
}

/// Images of the spec.
pub fn images() -> ArgValueCompleter {
    completer(Names::Images, false)
}

/// Packages of the spec.
pub fn packages() -> ArgValueCompleter {
    completer(Names::Packages, false)
}

/// Images and packages of the spec.
pub fn targets() -> ArgValueCompleter {
    completer(Names::Targets, false)
}

/// Images of the spec, and files.
pub fn images_or_files() -> ArgValueCompleter {
    completer(Names::Images, true)
}

/// Images and packages of the spec, and files.
pub fn targets_or_files() -> ArgValueCompleter {
    completer(Names::Targets, true)
}

/// Entries of the lock.
pub fn locked() -> ArgValueCompleter {
    completer(Names::Locked, false)
}

/// What is installed in the profile.
pub fn installed() -> ArgValueCompleter {
    completer(Names::Installed, false)
}

/// Chapters of the manual, and commands.
pub fn topics() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let topics = TOPICS.iter().map(|topic| (topic.name.to_owned(), topic.title()));
        let program = super::Cli::command();
        let commands = program.get_subcommands().filter(|command| !command.is_hide_set());
        let commands = commands.map(|command| (command.get_name().to_owned(), "command"));
        beginning_with(current, topics.chain(commands)).collect()
    })
}

/// Answers a shell's script, if it is one that runs us.
pub fn answer(arguments: &[OsString], program: fn() -> Command) -> Option<ExitCode> {
    let here = std::env::current_dir().ok();
    let of_flag = current(arguments).is_some_and(|word| word.to_string_lossy().starts_with('-'));
    let engine = CompleteEnv::with_factory(|| match of_flag {
        true => program(),
        false => without_flags(program()),
    });
    let engine = engine.var(VARIABLE);
    match engine.try_complete(arguments.to_vec(), here.as_deref()) {
        Ok(false) => None,
        Ok(true) => Some(ExitCode::SUCCESS),
        Err(error) => {
            // If nobody reads it there is nobody to tell.
            let _ = error.print();
            Some(ExitCode::from(2))
        }
    }
}

/// The word that is to be completed: that of the number which the shell's script gives, else the last.
fn current(arguments: &[OsString]) -> Option<&OsString> {
    let first = arguments.iter().position(|word| word == "--")? + 1;
    let words = arguments.get(first..)?;
    let number = text_variable("_CLAP_COMPLETE_INDEX").and_then(|text| text.parse().ok());
    words.get(number.unwrap_or(words.len().saturating_sub(1)))
}

/// The program, with flags offered only where nothing else can stand: sixty of them would bury two names.
fn without_flags(command: Command) -> Command {
    let command = command.mut_args(|argument| match argument.is_positional() {
        true => argument,
        false => argument.hide(true),
    });
    // clap's own would come later.
    let command = command.disable_help_flag(true).disable_version_flag(true);
    command.mut_subcommands(without_flags)
}

fn completer(names: Names, files: bool) -> ArgValueCompleter {
    ArgValueCompleter::new(move |current: &OsStr| {
        let all = match names {
            Names::Installed => of_profile(),
            names => of_project(names),
        };
        let mut found: Vec<_> = beginning_with(current, all).collect();
        if files {
            found.extend(PathCompleter::any().complete(current));
        }
        found
    })
}

fn beginning_with(
    current: &OsStr,
    names: impl IntoIterator<Item = (String, &'static str)>,
) -> impl Iterator<Item = CompletionCandidate> {
    let current = current.to_string_lossy().into_owned();
    let names = names.into_iter().filter(move |(name, _)| name.starts_with(&current));
    names.map(|(name, what)| CompletionCandidate::new(name).help(Some(what.into())))
}

/// The names in the spec that is meant, each with what it is; none where that cannot be read.
fn of_project(names: Names) -> Vec<(String, &'static str)> {
    let here = std::env::current_dir().unwrap_or_default();
    let Ok(project) = Project::load_from(named_file().as_deref(), &here) else {
        return Vec::new();
    };
    let images = project.workspace.images.keys().map(|name| (name.clone(), "image"));
    let packages = project
        .workspace
        .packages
        .keys()
        .map(|name| (name.0.clone(), "package"));
    match names {
        Names::Images => images.collect(),
        Names::Packages => packages.collect(),
        Names::Targets => images.chain(packages).collect(),
        Names::Locked => project
            .lock
            .all_names()
            .map(|name| (name.to_owned(), "locked"))
            .collect(),
        Names::Installed => Vec::new(),
    }
}

/// The packages of the profile's generation that is in use; none where there is none that can be read.
fn of_profile() -> Vec<(String, &'static str)> {
    let current = state_dir().and_then(|dir| Profile::new(&dir).current().ok()?);
    let packages = current.map(|current| current.manifest.packages).unwrap_or_default();
    packages
        .into_iter()
        .map(|package| (package.name, "installed"))
        .collect()
}

/// The spec that the words before the one in question name.
fn named_file() -> Option<PathBuf> {
    let mut words = std::env::args_os().skip_while(|word| word != "--").skip(1);
    while let Some(word) = words.next() {
        if word == "-f" || word == "--file" {
            return words.next().map(PathBuf::from);
        }
        if let Some(file) = word.to_str().and_then(|word| word.strip_prefix("--file=")) {
            return Some(file.into());
        }
    }
    None
}
