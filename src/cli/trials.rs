//! *Trials* as they are shown: a line for each test, and what went wrong with it.
//!
//! Invariant: every verb that runs tests shows them in one way.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::escape::shown;
use crate::project::trials::{self, Trial, TrialResult};
use crate::project::{NamedImage, Work};

use super::context::Context;

/// Where the lines go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// They are what was asked for: to standard output.
    AsResult,
    /// They are beside it: to standard error.
    Aside,
}

/// Runs the tests of these images and shows each as it ends.
pub fn run(
    images: &[NamedImage],
    filter: Option<&str>,
    jobs: usize,
    work: &Work,
    where_to: Shown,
    context: &Context,
) -> anyhow::Result<Vec<Trial>> {
    let ui = context.ui;
    ui.clear();
    let tell = |trial: &Trial| match (ui.json(), where_to) {
        // A reader that went away must not stop the tests; the exit status tells what became of them.
        (true, _) => drop(ui.data(&event(trial))),
        (false, Shown::AsResult) => drop(ui.data(render(trial, context).trim_end())),
        (false, Shown::Aside) => ui.lines(render(trial, context).trim_end()),
    };
    Ok(trials::run(images, filter, jobs, work, &context.environment, &tell)?)
}

fn event(trial: &Trial) -> String {
    let mut value = json!({ "event": "test-finished" });
    if let (Some(all), Ok(Value::Object(own))) = (value.as_object_mut(), serde_json::to_value(trial)) {
        all.extend(own);
    }
    value.to_string()
}

fn render(trial: &Trial, context: &Context) -> String {
    let ui = context.ui;
    let seconds = trial.milliseconds as f64 / 1000.0;
    let platform = trial.platform.iter().map(|platform| format!(" ({platform})"));
    let name = format!("{}/{}{}", trial.image, trial.test, platform.collect::<String>());
    match &trial.result {
        TrialResult::Passed => format!("{}    {name} {seconds:.2} s\n", ui.paint_out("ok", "32")),
        TrialResult::Skipped { reason } => format!("{}  {name}: {}\n", ui.paint_out("SKIP", "1;33"), shown(reason)),
        TrialResult::Failed { failures } => {
            let mut text = format!("{}  {name} {seconds:.2} s\n", ui.paint_out("FAIL", "1;31"));
            for failure in failures {
                for line in failure.lines() {
                    let _ = writeln!(text, "  {}", shown(line));
                }
            }
            if !trial.tail.is_empty() {
                text.push_str("  the last lines that were printed:\n");
                for line in &trial.tail {
                    let _ = writeln!(text, "    {line}");
                }
            }
            if let Some(log) = &trial.log {
                let _ = writeln!(text, "  the whole log: {}", shown(&log.display().to_string()));
            }
            text
        }
    }
}

/// `3 passed, 1 failed, 1 skipped`.
pub fn summary(trials: &[Trial]) -> String {
    let count = |is: fn(&TrialResult) -> bool| trials.iter().filter(|trial| is(&trial.result)).count();
    let mut parts = vec![format!(
        "{} passed",
        count(|result| matches!(result, TrialResult::Passed))
    )];
    for (count, word) in [
        (count(|result| matches!(result, TrialResult::Failed { .. })), "failed"),
        (count(|result| matches!(result, TrialResult::Skipped { .. })), "skipped"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {word}"));
        }
    }
    parts.join(", ")
}
