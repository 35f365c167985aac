//! To *cross* is to go on as a program in the other of two roots: the shell's own, and the machine's, which is seen in it.
//!
//! A program of the machine needs the machine's loader, libraries and files at their own places, and one of the shell needs
//! the shell's; so neither runs in the other's root. A name on the `PATH` of either root that stands for a program of the
//! other is a link to a script that starts layerize, which changes the root in namespaces of its own and becomes the program.
//! Terminal, process group and working directory stay what they are.
//!
//! Invariant: whoever crosses may do no more than before, and finds the root that was left at a known place of the other.
//! A variable that has another value in each root is changed on the way, unless somebody has changed it since.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use std::collections::BTreeMap;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{AccessFlags, access, getegid, geteuid, pivot_root};
use serde::{Deserialize, Serialize};

use super::limits;
use crate::fsio::{IoContext, read_limited};

/// Where the machine's root is in the shell's.
pub const MACHINE: &str = "/layerize/machine";

/// Where the shell's root is in the machine's.
pub const ENVIRONMENT: &str = "/layerize/environment";

/// Where both roots have what crossing needs: see [`Crossing`].
pub const CROSSING: &str = "/layerize/crossing";

/// Name of the file below [`CROSSING`] that holds a [`Crossing`] as JSON.
pub const SIDES: &str = "sides.json";

/// Largest file of a [`Crossing`], in bytes.
const SIDES_MAX: u64 = 16 << 20;

/// What differs from root to root for those who cross.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crossing {
    /// In the shell's root.
    pub environment: Side,
    /// In the machine's.
    pub machine: Side,
}

/// What is so in one of the roots.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Side {
    /// `PATH` of whoever comes here for the first time.
    pub path: String,
    /// Variables that have another value here than there; `None`: they are not set.
    pub variables: BTreeMap<String, Option<String>>,
}

/// Which root is crossed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    Environment,
    Machine,
}

impl To {
    /// By the name of the directory of links below [`CROSSING`].
    fn named(name: &str) -> Option<Self> {
        match name {
            "environment" => Some(Self::Environment),
            "machine" => Some(Self::Machine),
            _ => None,
        }
    }

    /// Where it is, and where the other will be.
    fn places(self) -> (&'static str, &'static str) {
        match self {
            Self::Environment => (ENVIRONMENT, MACHINE),
            Self::Machine => (MACHINE, ENVIRONMENT),
        }
    }

    /// What is so there and here.
    fn sides(self, crossing: &Crossing) -> (&Side, &Side) {
        match self {
            Self::Environment => (&crossing.environment, &crossing.machine),
            Self::Machine => (&crossing.machine, &crossing.environment),
        }
    }

    /// The variables that keep `PATH` of the root that was left: there and here.
    fn path_variables(self) -> (&'static str, &'static str) {
        const VARIABLES: (&str, &str) = ("__LAYERIZE_ENVIRONMENT_PATH", "__LAYERIZE_MACHINE_PATH");
        match self {
            Self::Environment => VARIABLES,
            Self::Machine => (VARIABLES.1, VARIABLES.0),
        }
    }
}

/// Why a program of the other root was not started.
#[derive(Debug, thiserror::Error)]
pub enum CrossError {
    /// This is no shell in which one can cross.
    #[error("there is no other root here to run a program in")]
    NoOtherRoot,
    /// What crossing needs cannot be read.
    #[error(transparent)]
    Io(#[from] crate::fsio::PathError),
    /// The other root has no such program.
    #[error("`{0}` is no program there any more")]
    NoProgram(String),
    /// The kernel refused.
    #[error("cannot {step} to run `{program}`")]
    Refused {
        /// What was being done.
        step: &'static str,
        /// The program.
        program: String,
        /// The system's error.
        source: io::Error,
    },
}

impl CrossError {
    /// The status that shells give: a program that is not there, or cannot be started.
    pub fn status(&self) -> u8 {
        match self {
            Self::NoProgram(_) => 127,
            _ => 126,
        }
    }
}

/// Becomes a program of the other root. `arguments`: the path of the link that stands for it, and what it is given; `variables`:
/// the environment. To be called before any thread is started; returns where it could not be done.
pub fn cross(arguments: &[OsString], variables: &BTreeMap<String, String>) -> CrossError {
    match become_program(arguments, variables) {
        Ok(never) => match never {},
        Err(error) => error,
    }
}

fn become_program(arguments: &[OsString], variables: &BTreeMap<String, String>) -> Result<Infallible, CrossError> {
    let (link, rest) = arguments.split_first().ok_or(CrossError::NoOtherRoot)?;
    let link = Path::new(link);
    let name = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
    let program = name(link).ok_or(CrossError::NoOtherRoot)?;
    let to = link.parent().and_then(name).and_then(|dir| To::named(&dir));
    let to = to.ok_or(CrossError::NoOtherRoot)?;
    let bytes = read_limited(&Path::new(CROSSING).join(SIDES), SIDES_MAX).map_err(|_| CrossError::NoOtherRoot)?;
    let crossing: Crossing = serde_json::from_slice(&bytes).map_err(|_| CrossError::NoOtherRoot)?;
    if let (To::Environment, Some(own)) = (to, own_interpreter(&program, rest, variables)) {
        let mut command = Command::new(own);
        return Err(CrossError::Refused {
            step: "start it",
            source: command.arg0(&program).args(rest).exec(),
            program,
        });
    }
    let cwd = std::env::current_dir().context("find", Path::new("."))?;
    change_root(to, &program)?;
    // A place that only the root that was left has is where that is now.
    if std::env::set_current_dir(&cwd).is_err() {
        let (_, left) = to.places();
        let place = Path::new(left).join(cwd.strip_prefix("/").unwrap_or(&cwd));
        std::env::set_current_dir(&place).context("enter", &place)?;
    }
    let changes = changes(to, &crossing, variables);
    let path = changes.get("PATH").cloned().flatten().unwrap_or_default();
    let found = find(&program, &path).ok_or_else(|| CrossError::NoProgram(program.clone()))?;
    let mut command = Command::new(found);
    command.arg0(&program).args(rest);
    for (name, value) in changes {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Err(CrossError::Refused {
        step: "start it",
        program,
        source: command.exec(),
    })
}

/// The machine's own program of a name that the environment's has taken, where it is to interpret a script that only the machine
/// has (`#!/usr/bin/env NAME`).
fn own_interpreter(program: &str, arguments: &[OsString], variables: &BTreeMap<String, String>) -> Option<PathBuf> {
    let script = Path::new(arguments.first()?);
    let below = script.strip_prefix("/").ok()?;
    let is_machines = script.is_file() && !Path::new(ENVIRONMENT).join(below).exists();
    is_machines.then(|| find(program, variables.get("PATH")?)).flatten()
}

/// Makes the other root the root, in a user and a mount namespace of this process alone.
fn change_root(to: To, program: &str) -> Result<(), CrossError> {
    let refused = |step: &'static str| {
        let program = program.to_owned();
        move |source: io::Error| CrossError::Refused { step, program, source }
    };
    let (there, here) = to.places();
    let (user, group) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
        .map_err(|errno| refused("create user and mount namespaces")(errno.into()))?;
    for (file, text) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("{user} {user} 1")),
        ("/proc/self/gid_map", format!("{group} {group} 1")),
    ] {
        fs::write(file, text).map_err(refused("map the user"))?;
    }
    let mounted = |source: Option<&str>, target: &str, flags: MsFlags| {
        mount(source, target, None::<&str>, flags, None::<&str>)
            .map_err(|errno| refused("bind the other root")(errno.into()))
    };
    mounted(None, "/", MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    // What was mounted in another user namespace cannot become the root; a bind of it can.
    mounted(Some(there), there, MsFlags::MS_BIND | MsFlags::MS_REC)?;
    std::env::set_current_dir(there).map_err(refused("enter the other root"))?;
    pivot_root(".", here.trim_start_matches('/')).map_err(|errno| refused("change the root")(errno.into()))?;
    std::env::set_current_dir("/").map_err(refused("enter the other root"))?;
    limits::keep_right_to_nest().map_err(|failed| refused("give up privileges")(failed.error))
}

/// The variables that are to be other than they are.
fn changes(to: To, crossing: &Crossing, variables: &BTreeMap<String, String>) -> BTreeMap<String, Option<String>> {
    let (there, here) = to.sides(crossing);
    let (kept_there, kept_here) = to.path_variables();
    let mut changes: BTreeMap<String, Option<String>> = (there.variables.iter())
        .filter(|(name, _)| variables.get(*name) == here.variables.get(*name).and_then(Option::as_ref))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let path = variables.get(kept_there).unwrap_or(&there.path);
    changes.insert("PATH".to_owned(), Some(path.clone()));
    changes.insert(kept_there.to_owned(), None);
    changes.insert(kept_here.to_owned(), variables.get("PATH").cloned());
    changes
}

/// The first program of this name in the directories of `path`; the links that lead to the other root are none.
fn find(name: &str, path: &str) -> Option<PathBuf> {
    let dirs = path
        .split(':')
        .filter(|dir| dir.starts_with('/') && !dir.starts_with(CROSSING));
    dirs.map(|dir| Path::new(dir).join(name))
        .find(|path| path.is_file() && access(path, AccessFlags::X_OK).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(path: &str, variables: &[(&str, Option<&str>)]) -> Side {
        let owned = |(name, value): &(&str, Option<&str>)| ((*name).to_owned(), value.map(str::to_owned));
        Side {
            path: path.to_owned(),
            variables: variables.iter().map(owned).collect(),
        }
    }

    #[test]
    fn variables_change_with_the_root_unless_somebody_has_changed_them() {
        let crossing = Crossing {
            environment: side("/e", &[("CC", Some("gcc")), ("TZ", Some("UTC")), ("LD_PRELOAD", None)]),
            machine: side(
                "/m",
                &[("CC", None), ("TZ", Some("Asia/Tokyo")), ("LD_PRELOAD", Some("x.so"))],
            ),
        };
        let texts = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        let mut variables = texts(&[
            ("PATH", "/mine:/e"),
            ("CC", "gcc"),
            ("TZ", "Europe/Oslo"),
            ("OTHER", "1"),
        ]);
        for (name, value) in changes(To::Machine, &crossing, &variables) {
            match value {
                Some(value) => variables.insert(name, value),
                None => variables.remove(&name),
            };
        }
        let there = texts(&[
            ("PATH", "/m"),
            ("TZ", "Europe/Oslo"),
            ("OTHER", "1"),
            ("LD_PRELOAD", "x.so"),
            ("__LAYERIZE_ENVIRONMENT_PATH", "/mine:/e"),
        ]);
        assert_eq!(variables, there);
        let back = changes(To::Environment, &crossing, &variables);
        assert_eq!(back["PATH"].as_deref(), Some("/mine:/e"));
        assert_eq!(back["CC"].as_deref(), Some("gcc"));
        assert_eq!(back["LD_PRELOAD"], None);
        assert_eq!(back["__LAYERIZE_ENVIRONMENT_PATH"], None);
        assert_eq!(back["__LAYERIZE_MACHINE_PATH"].as_deref(), Some("/m"));
        assert!(!back.contains_key("TZ"));
    }
}
