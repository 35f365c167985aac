//! `layerize check`: whether builds are reproducible, by building again in other surroundings.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;

use super::complete;
use super::context::Context;
use super::flags::{BuildFlags, PlatformOrAll, value};
use super::outcome::Outcome;
use super::places::Names;
use crate::build::Compared;
use crate::execution::Execution;
use crate::project::check::{self, CheckOptions, CheckReport, CheckedOutput};
use crate::project::{PlatformChoice, work};
use crate::walls::Walls;

/// Most files of one output that are shown to people.
const FILES_SHOWN: usize = 10;

/// Arguments of `layerize check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Images or packages of the spec [default: all images]
    #[arg(add = complete::targets())]
    targets: Vec<String>,
    /// How often to build each again
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    times: u32,
    /// Copy outputs that differ, and what the store has, to this directory
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// If something differs, vary one aspect of the environment at a time to find out which one it depends on
    #[arg(long)]
    find_cause: bool,
    /// Check only what is for these platforms, separated by commas [default: all]
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',', value_parser = value::<PlatformOrAll>)]
    platform: Vec<PlatformOrAll>,
    #[command(flatten)]
    flags: BuildFlags,
}

impl CheckArgs {
    /// The arguments that may name a spec elsewhere.
    pub fn names(&mut self) -> (Names<'_>, &mut BuildFlags) {
        (Names::Several(&mut self.targets), &mut self.flags)
    }
}

/// Builds again what the targets need, compares, and reports.
pub fn run(args: &CheckArgs, context: &Context) -> anyhow::Result<Outcome> {
    let mut options = args
        .flags
        .options_for(PlatformOrAll::choice(&args.platform, PlatformChoice::All));
    check::check_sandbox(options.sandbox)?;
    options.sandbox = Some(Walls::Namespaces);
    let work = work::prepare(&args.targets, &options, &context.environment)?;
    let options = CheckOptions {
        times: args.times,
        find_cause: args.find_cause,
        keep: args.keep.clone(),
    };
    let report = check::check(&work, &options, &context.environment)?;
    let text = match context.ui.json() {
        true => serde_json::to_string(&report)?,
        false => render(&report),
    };
    context.ui.clear();
    context.ui.data(text.trim_end())?;
    Ok(match report.reproducible {
        true => Outcome::Done,
        false => Outcome::No,
    })
}

fn render(report: &CheckReport) -> String {
    let mut text = String::new();
    for output in &report.outputs {
        render_output(output, &mut text);
    }
    for image in &report.images {
        let _ = match image.other_digest {
            None => writeln!(text, "same     image {} {}", image.name, image.digest),
            Some(other) => writeln!(text, "DIFFERS  image {} {} and {other}", image.name, image.digest),
        };
    }
    let varied: Vec<&str> = report.varied.iter().map(|variation| variation.name()).collect();
    let _ = writeln!(text, "varied: {}", varied.join(", "));
    let _ = writeln!(text, "not varied: {}", report.not_varied);
    text
}

/// What was held against what, of programs for another processor.
fn described(compared: &Compared) -> String {
    let name = |execution: Execution| match execution {
        Execution::Native => "a native build",
        Execution::Emulated => "a build through the emulator of the lock",
        Execution::EmulatedByMachine => "a build through an emulator of this machine",
        Execution::Cross => "a build by cross compilers",
    };
    let (first, again) = (name(compared.first), name(compared.again));
    match &compared.builder {
        Some(builder) => format!("{first} with {again} at {builder}"),
        None if compared.first.is_emulated() && compared.again.is_emulated() => {
            format!(
                "{first} with {again}; with a native one where `--builder ssh://…` names a machine of that processor"
            )
        }
        None => format!("{first} with {again}"),
    }
}

fn render_output(output: &CheckedOutput, text: &mut String) {
    let word = if output.reproducible { "same   " } else { "DIFFERS" };
    let _ = writeln!(text, "{word}  {} {}", output.name, output.path);
    for compared in &output.compared {
        let _ = writeln!(text, "  compared: {}", described(compared));
    }
    if let Some(failure) = &output.failure {
        let _ = writeln!(text, "  in other surroundings it cannot be built: {failure}");
    }
    for change in output.files.iter().take(FILES_SHOWN) {
        let path = if change.path.is_empty() {
            "the output itself"
        } else {
            &change.path
        };
        let class = serde_json::to_value(change.class).unwrap_or_default();
        let class = class.as_str().unwrap_or_default();
        let _ = writeln!(text, "  {path}: {class}: {} / {}", change.a, change.b);
        let makers = output.made_by.get(&change.path).into_iter().flatten();
        let makers: Vec<String> = makers.map(|name| format!("`deb:{name}`")).collect();
        if !makers.is_empty() {
            let _ = writeln!(text, "    made by the maintainer scripts of {}", makers.join(", "));
        }
        if let Some(hint) = &change.hint {
            let _ = writeln!(text, "    {hint}");
        }
        for line in change.text.iter().flat_map(|text| text.lines()) {
            let _ = writeln!(text, "    {line}");
        }
    }
    if output.files.len() > FILES_SHOWN {
        let _ = writeln!(text, "  and {} more files", output.files.len() - FILES_SHOWN);
    }
    for cause in output.causes.iter().flatten() {
        let _ = writeln!(text, "  depends on: {cause}");
    }
    if output.causes.as_ref().is_some_and(Vec::is_empty) {
        let _ = writeln!(text, "  no single variation changes it alone");
    }
    if let Some(kept) = &output.kept {
        let _ = writeln!(text, "  kept in {}", kept.display());
    }
}
