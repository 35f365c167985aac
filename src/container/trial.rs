//! *Trying an image*: a test is run in a container of its own, and what came of it compared with what was to come.
//!
//! Invariant: a test sees nothing of the machine and of no other test, and has a network to itself. What did not come as it was
//! to come is said with what was expected and what was found.

use std::path::Path;

use super::{Container, ContainerError, RunOptions, RunnableImage, Workshop};
use crate::sandbox::session::{Probe, Program, ProgramEnd, ProgramReport, Session, SessionReport};
use crate::spec::{HttpExpectation, ImageTest, Pattern};

/// How long a service may take to end when it is told to, in milliseconds: as long as Docker gives it.
const GRACE: u64 = 10_000;

/// Longest text of which an expectation that was not met is shown, in bytes.
const SHOWN_MAX: usize = 2000;

/// Runs a test; gives what did not come as it was to come. What programs print goes to `log`.
pub fn try_image(
    image: RunnableImage<'_>,
    test: &ImageTest,
    workshop: Workshop<'_>,
    staging: &Path,
    log: &mut dyn FnMut(&[u8]),
) -> Result<Vec<String>, ContainerError> {
    let options = RunOptions {
        arguments: test.args.clone(),
        entrypoint: test.run.clone(),
        env: test.env.clone().into_iter().collect(),
        user: test.user.clone(),
        no_network: true,
        ..RunOptions::default()
    };
    let container = Container::make(image, &options, workshop, staging)?;
    let stop_signal = image.config.execution.stop_signal.as_deref();
    let session = session(test, &container, stop_signal.and_then(signal_number));
    let report = container.conduct(session, log)?;
    Ok(compare(test, &report))
}

fn session(test: &ImageTest, container: &Container, stop_signal: Option<i32>) -> Session {
    let beside = test.exec.iter().map(|argv| Program {
        argv: argv.clone(),
        ..container.program().clone()
    });
    Session {
        stdin: test.stdin.clone(),
        is_service: test.is_service(),
        probe: probe(test),
        beside: beside.collect(),
        files: test.expect.files.keys().map(Into::into).collect(),
        stop_signal: stop_signal.unwrap_or(SIGTERM),
        timeout: test.timeout.saturating_mul(1000),
        grace: GRACE,
    }
}

/// What is asked: HTTP where it is, else whether anybody answers at all.
fn probe(test: &ImageTest) -> Option<Probe> {
    let of_http = |http: &HttpExpectation| Probe {
        port: http.port,
        path: Some(http.path.clone()),
        status: Some(http.status),
    };
    let of_port = |port: u16| Probe {
        port,
        path: None,
        status: None,
    };
    test.expect
        .http
        .as_ref()
        .map(of_http)
        .or_else(|| test.expect.port.map(of_port))
}

const SIGTERM: i32 = 15;

/// The number of `SIGTERM`, `SIGRTMIN+3` or `15`; `None` of what is no signal.
fn signal_number(text: &str) -> Option<i32> {
    /// First and last of the real-time signals, as C libraries on Linux count them.
    const REAL_TIME: (i32, i32) = (34, 64);
    let name = text.strip_prefix("SIG").unwrap_or(text);
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let offset = |prefix: &str| name.strip_prefix(prefix).map(|rest| rest.parse::<i32>().unwrap_or(0));
    if let Some(offset) = offset("RTMIN") {
        return Some(REAL_TIME.0 + offset);
    }
    if let Some(offset) = offset("RTMAX") {
        return Some(REAL_TIME.1 + offset);
    }
    let signal: nix::sys::signal::Signal = format!("SIG{name}").parse().ok()?;
    Some(signal as i32)
}

/// What did not come as it was to come.
fn compare(test: &ImageTest, report: &SessionReport) -> Vec<String> {
    let mut failures = Vec::new();
    if test.is_service() {
        compare_service(test, report, &mut failures);
    }
    let judged = report.beside.last().unwrap_or(&report.first);
    let is_own = report.beside.is_empty();
    if !test.is_service() || test.expect.status.is_some() {
        compare_status(test, judged, &mut failures);
    }
    // What was not run printed nothing, which is not what is wrong with it.
    if !matches!(judged.end, ProgramEnd::NotRun | ProgramEnd::NotStarted(_)) && (is_own == test.exec.is_empty()) {
        for (what, pattern, text) in [
            ("standard output", &test.expect.stdout, &judged.stdout),
            ("standard error", &test.expect.stderr, &judged.stderr),
        ] {
            failures.extend(pattern.as_ref().and_then(|pattern| mismatch(what, pattern, text)));
        }
    }
    for ((path, pattern), text) in test.expect.files.iter().zip(&report.files) {
        match text {
            None => failures.push(format!("there is no file `{path}`")),
            Some(text) => failures.extend(mismatch(&format!("`{path}`"), pattern, text)),
        }
    }
    failures
}

fn compare_service(test: &ImageTest, report: &SessionReport, failures: &mut Vec<String>) {
    let ended_early = match &report.first.end {
        ProgramEnd::Exited(status) => Some(format!("it ended with exit status {status}")),
        ProgramEnd::Signaled(signal) => Some(format!("it was ended by signal {signal}")),
        ProgramEnd::NotStarted(reason) => Some(reason.clone()),
        ProgramEnd::NotRun | ProgramEnd::TimedOut | ProgramEnd::Stopped(_) => None,
    };
    if let Some(reason) = &ended_early {
        failures.push(format!("the program does not serve: {reason}"));
    }
    match (probe(test), &report.answer, &ended_early) {
        (Some(probe), None, None) => {
            let seconds = test.timeout;
            failures.push(format!("nothing answered at port {} within {seconds} s", probe.port));
        }
        (_, Some(answer), _) => {
            if let Some(http) = &test.expect.http {
                let what = format!("`{}` at port {}", http.path, http.port);
                if answer.status != http.status {
                    failures.push(format!("{what}: status {} and not {}", answer.status, http.status));
                }
                failures.extend(http.body.as_ref().and_then(|body| mismatch(&what, body, &answer.body)));
            }
        }
        _ => {}
    }
    let last = report.beside.len().saturating_sub(1);
    for (index, (argv, ran)) in test.exec.iter().zip(&report.beside).enumerate() {
        // The status of the last is what is expected of the test.
        let is_judged = index == last && test.expect.status.is_some();
        if ran.end != ProgramEnd::Exited(0) && !is_judged {
            let name = argv.first().map_or("", String::as_str);
            failures.push(format!("`{name}` beside it: {}", told(&ran.end, test.timeout)));
        }
    }
}

fn compare_status(test: &ImageTest, ran: &ProgramReport, failures: &mut Vec<String>) {
    let expected = test.expect.status.unwrap_or(0);
    let status = match ran.end {
        ProgramEnd::Exited(status) | ProgramEnd::Stopped(status) => Some(status),
        ProgramEnd::Signaled(signal) => Some(128 + signal),
        ProgramEnd::NotRun | ProgramEnd::NotStarted(_) | ProgramEnd::TimedOut => None,
    };
    if status != Some(expected) && ran.end != ProgramEnd::NotRun {
        failures.push(match (status, expected) {
            (Some(_), 1..) => format!("{} and not {expected}", told(&ran.end, test.timeout)),
            _ => told(&ran.end, test.timeout),
        });
    }
}

fn told(end: &ProgramEnd, timeout: u64) -> String {
    match end {
        ProgramEnd::NotRun => "it was not run".to_owned(),
        ProgramEnd::NotStarted(reason) => reason.clone(),
        ProgramEnd::Exited(status) | ProgramEnd::Stopped(status) => format!("exit status {status}"),
        ProgramEnd::Signaled(signal) => format!("ended by signal {signal}, status {}", 128 + signal),
        ProgramEnd::TimedOut => format!("it did not end within {timeout} s and was killed"),
    }
}

fn mismatch(what: &str, pattern: &Pattern, text: &str) -> Option<String> {
    if pattern.fits(text) {
        return None;
    }
    let cut = |text: &str| -> String {
        let end = (0..=SHOWN_MAX.min(text.len()))
            .rev()
            .find(|&at| text.is_char_boundary(at));
        match end.filter(|&end| end < text.len()) {
            Some(end) => format!("{}…", &text[..end]),
            None => text.to_owned(),
        }
    };
    let indented = |text: &str| -> String { text.lines().map(|line| format!("\n    {line}")).collect() };
    let found = match text.trim_end().is_empty() {
        true => " nothing".to_owned(),
        false => indented(&cut(text)),
    };
    Some(match pattern {
        Pattern::Matching(_) => format!("{what}: nothing matches {pattern} in:{found}"),
        Pattern::Text(expected) => format!("{what}: expected:{}\n  found:{found}", indented(&cut(expected))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_signals_are_numbers_of_linux() {
        for (text, number) in [
            ("SIGTERM", Some(15)),
            ("SIGQUIT", Some(3)),
            ("WINCH", Some(28)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("SIGRTMAX-1", Some(63)),
            ("nonsense", None),
        ] {
            assert_eq!(signal_number(text), number, "{text}");
        }
    }
}
