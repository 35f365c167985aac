//! A *health check* as the user wrote it: `healthcheck` of an image.
//!
//! Invariant: one that comes back without a diagnostic has a command, and times that Docker takes. Its form in an image is
//! Docker's (`docs.docker.com/reference/dockerfile`, HEALTHCHECK): OCI's config has no field for it.

use serde::Serialize;
use toml::de::DeValue;

use super::diagnostics::Diagnostic;
use super::image::command;
use super::keys::Shape::{Any, Count, Flag, Many, Table as Keys, Text};
use super::keys::{Key, also, key, required};
use super::package::read_duration;
use super::reader::{Field, Reader, Table};

/// Most failures in a row that a container may have before it is unhealthy.
const RETRIES_MAX: i64 = 1000;

/// `healthcheck` among an image's keys.
pub(super) const HEALTHCHECK: Key = also(
    key(
        "healthcheck",
        Any(&[Flag, Keys(HEALTH)]),
        "How an engine finds out whether a container works; `false`: not at all, whatever the base says.",
    ),
    &["health", "health-check"],
);

/// `healthcheck = { … }`.
const HEALTH: &[Key] = &[
    required(also(
        key(
            "run",
            Many(&Text),
            "The command, run in the container: exit status 0 is healthy, 1 is not.",
        ),
        &["test", "cmd", "command"],
    )),
    key(
        "interval",
        Text,
        "Time from the end of a check to the next (default `30s`).",
    ),
    key(
        "timeout",
        Text,
        "Most time that a check may take before it counts as failed (default `30s`).",
    ),
    key(
        "start-period",
        Text,
        "Time after the start in which failures do not count (default none).",
    ),
    key(
        "start-interval",
        Text,
        "Time between checks within `start-period` (default `5s`; Docker 25 and newer).",
    ),
    key(
        "retries",
        Count(1, RETRIES_MAX),
        "Failures in a row that make a container unhealthy (default 3).",
    ),
];

/// `healthcheck`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HealthCheck {
    /// `false`: there is none, even where a base has one.
    Off,
    /// A command that is run again and again.
    Run(HealthProbe),
}

/// `healthcheck = { run = ["PROGRAM", …], … }`; what is `None` is left to the engine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct HealthProbe {
    /// `run`: program and arguments.
    pub run: Vec<String>,
    /// `interval`, in seconds.
    pub interval: Option<u64>,
    /// `timeout`, in seconds.
    pub timeout: Option<u64>,
    /// `start-period`, in seconds.
    pub start_period: Option<u64>,
    /// `start-interval`, in seconds.
    pub start_interval: Option<u64>,
    /// `retries`.
    pub retries: Option<u32>,
}

/// Reads `healthcheck` of an image.
pub(super) fn read(reader: &mut Reader<'_>, image: &Table<'_>) -> Option<HealthCheck> {
    let field = image.get("healthcheck")?;
    if matches!(field.value, DeValue::Boolean(_)) {
        return read_flag(reader, image, &field);
    }
    if matches!(field.value, DeValue::Array(_) | DeValue::String(_)) {
        let help = "write `healthcheck = { run = [\"PROGRAM\", \"ARGUMENT\"] }`".to_owned();
        reader.wrong_type(&field, "a table or `false`", Some(help));
        return None;
    }
    let table = reader.table(&field, field.title(), HEALTH.iter().collect())?;
    let run = command(reader, &table, "run");
    match table.get("run") {
        Some(field) if matches!(field.value, DeValue::Array(words) if words.is_empty()) => {
            let diagnostic = Diagnostic::new(format!("{} is empty", field.title()));
            reader.error(diagnostic.at(field.span, "names no program"));
        }
        Some(_) => {}
        None => {
            let diagnostic = Diagnostic::new(format!("{} has no `run`", table.what));
            let diagnostic = diagnostic.at(table.span.clone(), "nothing is run");
            reader.error(diagnostic.help("add `run = [\"PROGRAM\", \"ARGUMENT\"]`"));
        }
    }
    let mut time = |key| read_duration(reader, &table, key);
    let (interval, timeout) = (time("interval"), time("timeout"));
    let (start_period, start_interval) = (time("start-period"), time("start-interval"));
    if let (None, Some(field)) = (
        start_period,
        table.get("start-interval").filter(|_| start_interval.is_some()),
    ) {
        let diagnostic = Diagnostic::new(format!("{} has no effect without `start-period`", field.title()));
        let diagnostic = diagnostic.at(field.key_span, "there is no time at the start that it could be for");
        reader.error(diagnostic.help("add `start-period = \"30s\"`, or leave it out"));
    }
    let retries = table.get("retries");
    let retries = retries.and_then(|field| reader.integer(&field, 1, RETRIES_MAX));
    Some(HealthCheck::Run(HealthProbe {
        run,
        interval,
        timeout,
        start_period,
        start_interval,
        retries: retries.and_then(|count| u32::try_from(count).ok()),
    }))
}

/// `false`, which only a base gives a meaning; `true` says nothing of what is to be run.
fn read_flag(reader: &mut Reader<'_>, image: &Table<'_>, field: &Field<'_>) -> Option<HealthCheck> {
    let diagnostic = match (reader.flag(field)?, image.get("base")) {
        (false, Some(_)) => return Some(HealthCheck::Off),
        (false, None) => Diagnostic::new(format!("{} has no effect without `base`", field.title()))
            .at(field.key_span.clone(), "there is none to be left out")
            .help("leave it out"),
        (true, _) => Diagnostic::new(format!("{} does not say what is run", field.title()))
            .at(field.span.clone(), "a check is a command")
            .help("write `healthcheck = { run = [\"PROGRAM\", \"ARGUMENT\"] }`"),
    };
    reader.error(diagnostic);
    None
}
