//! What tests of all modules share: real programs as *oracles*, and errors as text.
//!
//! Invariant: a test that lacks its oracle says so loudly, and fails where `CI` is `true`.

use std::process::{Command, Output, Stdio};

/// Says that a test was skipped; where `CI` is `true`, fails it.
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
#[expect(clippy::disallowed_methods, reason = "tests must tell CI from a desk")]
pub(crate) fn skip(why: &str) {
    let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!is_ci, "CI=true, but a test cannot run: {why}");
    eprintln!("SKIPPED: {why}");
}

/// Whether a program that a test compares with is here and works.
pub(crate) fn oracle(program: &str) -> bool {
    let probe = match program {
        "docker" => "info",
        "openssl" => "version",
        _ => "--version",
    };
    let mut command = Command::new(program);
    command.arg(probe).stdin(Stdio::null());
    let found = command.output().is_ok_and(|output| output.status.success());
    if !found {
        skip(&format!("`{program}` is missing, nothing was compared with it"));
    }
    found
}

/// Runs a program that must succeed.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Standard output of a program that must succeed with these arguments.
pub(crate) fn output(program: &str, arguments: &[&str]) -> String {
    String::from_utf8(run(Command::new(program).args(arguments)).stdout).unwrap()
}

/// Standard output of a program that must succeed, trimmed.
pub(crate) fn stdout(command: &mut Command) -> String {
    String::from_utf8(run(command).stdout).unwrap().trim().to_owned()
}

/// The text of an error with the texts of its sources.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(Some(error), |error| error.source());
    sources.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
