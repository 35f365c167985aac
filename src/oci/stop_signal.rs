//! A *stop signal* is what a container is sent to end it (OCI image-spec, config.md, `StopSignal`).
//!
//! Invariant: a signal that Linux has, by name or by number; its text stays as it was written.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A signal: `SIGTERM`, `SIGRTMIN+3`, or its number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StopSignal(String);

/// A text that is no signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a signal")]
pub struct StopSignalError {
    /// What was to be parsed.
    pub text: String,
}

/// Linux's signals without `SIG` (signal(7)).
const NAMES: &[&str] = &[
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS", "RTMIN", "RTMAX",
];

/// Largest number of a signal.
const NUMBER_MAX: u8 = 64;

impl StopSignal {
    /// The signals' names without `SIG`, for advice.
    pub fn names() -> &'static [&'static str] {
        NAMES
    }

    /// The signal of a number.
    pub fn from_number(number: u8) -> Option<Self> {
        (1..=NUMBER_MAX).contains(&number).then(|| Self(number.to_string()))
    }
}

impl StopSignalError {
    /// What to write instead, where another case or a missing `SIG` is all that is wrong.
    pub fn help(&self) -> Option<String> {
        let upper = self.text.to_ascii_uppercase();
        let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
        NAMES.contains(&bare).then(|| format!("write `SIG{bare}`"))
    }
}

impl FromStr for StopSignal {
    type Err = StopSignalError;

    fn from_str(text: &str) -> Result<Self, StopSignalError> {
        let is_number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits && text.parse().is_ok_and(|number: u8| (1..=NUMBER_MAX).contains(&number))
        };
        let name = text.strip_prefix("SIG").unwrap_or("");
        let realtime = |prefix| name.strip_prefix(prefix).is_some_and(is_number);
        if NAMES.contains(&name) || is_number(text) || realtime("RTMIN+") || realtime("RTMAX-") {
            return Ok(Self(text.to_owned()));
        }
        Err(StopSignalError { text: text.to_owned() })
    }
}

impl Serialize for StopSignal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for StopSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_signals() {
        for text in ["SIGTERM", "SIGRTMIN+3", "SIGRTMAX-1", "9", "64"] {
            assert_eq!(text.parse::<StopSignal>().unwrap().to_string(), text);
        }
        assert_eq!(StopSignal::from_number(9), "9".parse().ok());
        assert_eq!(StopSignal::from_number(65), None);
    }

    #[test]
    fn other_texts_are_refused() {
        for (text, help) in [
            ("", None),
            ("0", None),
            ("65", None),
            ("+9", None),
            ("SIG", None),
            ("SIGNOPE", None),
            ("SIG TERM", None),
            ("TERM", Some("write `SIGTERM`")),
            ("sigterm", Some("write `SIGTERM`")),
        ] {
            assert_eq!(
                text.parse::<StopSignal>().unwrap_err().help().as_deref(),
                help,
                "{text}"
            );
        }
    }
}
