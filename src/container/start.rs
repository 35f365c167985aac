//! What a container *starts*: the command, environment and directory that image and user say together.
//!
//! Invariant: as Docker puts them together, in the same order of precedence.

use std::path::PathBuf;

use super::{ContainerError, RunOptions};
use crate::fsio::normalize;
use crate::oci::Execution;
use crate::sandbox::session::Program;

/// Where programs are looked for where the image does not say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The program of an image as it is to be run.
pub(super) fn program(
    execution: &Execution,
    options: &RunOptions,
    host: &str,
    home: &str,
) -> Result<Program, ContainerError> {
    let argv = command(execution, options);
    if argv.is_empty() {
        return Err(ContainerError::NoProgram);
    }
    let cwd = options.workdir.as_ref().or(execution.working_dir.as_ref());
    let cwd = cwd.map_or("/", String::as_str);
    Ok(Program {
        argv,
        env: environment(execution, options, host, home),
        cwd: normalize(&PathBuf::from("/").join(cwd)),
        stdin: None,
    })
}

/// Arguments stand in place of `cmd`; another entrypoint leaves nothing of the image's `cmd` either.
fn command(execution: &Execution, options: &RunOptions) -> Vec<String> {
    let (entrypoint, cmd) = match &options.entrypoint {
        Some(entrypoint) => (entrypoint, &[][..]),
        None => (&execution.entrypoint, &execution.cmd[..]),
    };
    let arguments = match options.arguments.is_empty() {
        true => cmd,
        false => &options.arguments[..],
    };
    entrypoint.iter().chain(arguments).cloned().collect()
}

fn environment(execution: &Execution, options: &RunOptions, host: &str, home: &str) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: &str| match all.iter_mut().find(|(known, _)| known == name) {
        Some((_, old)) => value.clone_into(old),
        None => all.push((name.to_owned(), value.to_owned())),
    };
    set("PATH", PATH);
    set("HOSTNAME", host);
    if options.terminal {
        set("TERM", "xterm");
    }
    for pair in &execution.env {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        set(name, value);
    }
    for (name, value) in &options.env {
        set(name, value);
    }
    if !all.iter().any(|(name, _)| name == "HOME") {
        all.push(("HOME".to_owned(), home.to_owned()));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn arguments_and_entrypoints_replace_what_they_replace_in_docker() {
        let execution = |entrypoint: &[&str], cmd: &[&str]| Execution {
            entrypoint: texts(entrypoint),
            cmd: texts(cmd),
            ..Execution::default()
        };
        let both = execution(&["e", "f"], &["c"]);
        let alone = execution(&[], &["c", "d"]);
        for (execution, entrypoint, arguments, expected) in [
            (&both, None, &[][..], &["e", "f", "c"][..]),
            (&both, None, &["a"], &["e", "f", "a"]),
            (&both, Some("x"), &[], &["x"]),
            (&both, Some("x"), &["a"], &["x", "a"]),
            (&alone, None, &[], &["c", "d"]),
            (&alone, None, &["a"], &["a"]),
        ] {
            let options = RunOptions {
                entrypoint: entrypoint.map(|name| texts(&[name])),
                arguments: texts(arguments),
                ..RunOptions::default()
            };
            assert_eq!(command(execution, &options), expected);
        }
        let cleared = RunOptions {
            entrypoint: Some(Vec::new()),
            ..RunOptions::default()
        };
        let error = program(&both, &cleared, "host", "/").unwrap_err();
        assert!(matches!(error, ContainerError::NoProgram), "{error}");
    }

    #[test]
    fn the_users_variables_go_before_the_images_and_those_before_the_engines() {
        let execution = Execution {
            env: texts(&["PATH=/own", "A=1", "B=2", "EMPTY"]),
            working_dir: Some("srv/../app".to_owned()),
            cmd: texts(&["c"]),
            ..Execution::default()
        };
        let options = RunOptions {
            env: vec![("A".to_owned(), "3".to_owned())],
            ..RunOptions::default()
        };
        let program = program(&execution, &options, "box", "/root").unwrap();
        let shown: Vec<String> = program
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(
            shown,
            ["PATH=/own", "HOSTNAME=box", "A=3", "B=2", "EMPTY=", "HOME=/root"]
        );
        assert_eq!(program.cwd, PathBuf::from("/app"));
    }
}
