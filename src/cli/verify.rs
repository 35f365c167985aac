//! `layerize verify`: whether every digest of an image is right, and whether its consumers can read it.

use clap::{Args, ValueHint};

use crate::audit::{self, Profile, VerifyReport};
use crate::project::{PlatformChoice, PlatformSource};

use super::context::Context;
use super::flags::{PlatformOrAll, value};
use super::outcome::Outcome;

/// Arguments of `layerize verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// An image, named as for `inspect`
    #[arg(required_unless_present = "rules", value_hint = ValueHint::AnyPath)]
    source: Option<String>,
    /// Which platforms of a multi-platform image, separated by commas [default: all]
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',', value_parser = value::<PlatformOrAll>)]
    platform: Vec<PlatformOrAll>,
    /// Also check what a consumer requires beyond the specification: docker-20, lambda, or strict; repeatable
    #[arg(long, value_name = "NAME")]
    profile: Vec<Profile>,
    /// List the rules of the profiles, each with the fact it rests on
    #[arg(long, conflicts_with = "source")]
    rules: bool,
}

/// Prints what is wrong; the answer is no if anything is.
pub fn run(args: &VerifyArgs, context: &Context) -> anyhow::Result<Outcome> {
    let Some(source) = args.source.as_deref().filter(|_| !args.rules) else {
        return list_rules(&args.profile, context);
    };
    let reports = reports(source, args, context)?;
    for (number, report) in reports.iter().enumerate() {
        let text = match context.ui.json() {
            true => serde_json::to_string(report)?,
            false => report.render(),
        };
        if number > 0 && !context.ui.json() {
            context.ui.data("")?;
        }
        context.ui.data(text.trim_end())?;
    }
    match reports.iter().all(VerifyReport::ok) {
        true => Ok(Outcome::Done),
        false => Ok(Outcome::No),
    }
}

/// An image so damaged that it cannot be opened has a report too; where there is none, that is trouble.
fn reports(source: &str, args: &VerifyArgs, context: &Context) -> anyhow::Result<Vec<VerifyReport>> {
    let choice = PlatformOrAll::choice(&args.platform, PlatformChoice::All);
    let is_one = choice.names_one();
    let sources = match context.environment.sources(source, &choice) {
        Err(damage) if damage.is_damage() => return Ok(vec![VerifyReport::unreadable(source, &damage)]),
        sources => sources?,
    };
    let report = |(platform, source): &PlatformSource| {
        let report = audit::verify_for(source.as_ref(), &args.profile)?;
        let platform = platform.clone().filter(|_| !is_one);
        Ok(VerifyReport { platform, ..report })
    };
    sources.iter().map(report).collect()
}

fn list_rules(profiles: &[Profile], context: &Context) -> anyhow::Result<Outcome> {
    let chosen = if profiles.is_empty() { &Profile::ALL } else { profiles };
    if context.ui.json() {
        let all: std::collections::BTreeMap<&str, _> =
            chosen.iter().map(|profile| (profile.name(), profile.rules())).collect();
        context.ui.data(&serde_json::to_string(&all)?)?;
        return Ok(Outcome::Done);
    }
    for profile in chosen {
        for rule in profile.rules() {
            context.ui.data(&format!(
                "{}/{}: {} ({})",
                profile.name(),
                rule.name,
                rule.rule,
                rule.fact
            ))?;
        }
    }
    Ok(Outcome::Done)
}
