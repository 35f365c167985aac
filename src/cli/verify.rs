//! `layerize verify`: whether every digest of an image is right, and whether its consumers can read it.

use clap::{Args, ValueHint};

use crate::audit::{self, Profile, VerifyReport};
use crate::oci::Platform;

use super::context::Context;
use super::flags::value;
use super::outcome::Outcome;

/// Arguments of `layerize verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// An image, named as for `inspect`
    #[arg(required_unless_present = "rules", value_hint = ValueHint::AnyPath)]
    source: Option<String>,
    /// Which platform of a multi-platform image
    #[arg(long, value_name = "OS/ARCH", value_parser = value::<Platform>)]
    platform: Option<Platform>,
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
    let report = report(source, args, context)?;
    let text = if context.ui.json() {
        serde_json::to_string(&report)?
    } else {
        report.render()
    };
    context.ui.data(text.trim_end())?;
    Ok(if report.ok() { Outcome::Done } else { Outcome::No })
}

/// An image so damaged that it cannot be opened has a report too; where there is none, that is trouble.
fn report(source: &str, args: &VerifyArgs, context: &Context) -> anyhow::Result<VerifyReport> {
    match context.environment.source(source, args.platform.as_ref()) {
        Ok(source) => Ok(audit::verify_for(source.as_ref(), &args.profile)?),
        Err(damage) if damage.is_damage() => Ok(VerifyReport::unreadable(source, &damage)),
        Err(error) => Err(error.into()),
    }
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
