//! `layerize lock`: pins what comes from outside.

use std::collections::BTreeSet;

use anyhow::bail;
use clap::Args;

use crate::fetch::{self, AptSources, Gone, Update};
use crate::oci::Platform;
use crate::spec::{self, LockScope};

use super::complete;
use super::context::Context;
use super::error::advised;
use super::flags::{BuildFlags, PlatformOrAll, value};
use super::outcome::Outcome;
use crate::project::{Project, SPEC_NAME, listed};
use crate::project::{golden, languages};

/// Arguments of `layerize lock`.
#[derive(Debug, Args)]
pub struct LockArgs {
    /// Resolve these again (Debian packages, source packages, packages with a URL or a repository, Nix links), or everything if none is named
    #[arg(long, num_args = 0.., value_name = "NAME", add = complete::locked())]
    update: Option<Vec<String>>,
    /// Resolve again only the Debian packages and source packages that no source has any more, and what their new
    /// versions need; the sources are asked for all that is locked, whatever was downloaded before
    #[arg(long, conflicts_with_all = ["update", "check"])]
    refresh: bool,
    /// Build every image, and record its digest: `build --locked` then fails where the same inputs give another one
    #[arg(long, conflicts_with = "check")]
    golden: bool,
    /// Change nothing: exit status 1 if the lock is not current
    #[arg(long, conflicts_with = "update")]
    check: bool,
    /// Resolve again only what is for these platforms, separated by commas, of those that images are for [default: all]
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',', value_parser = value::<PlatformOrAll>, conflicts_with = "check")]
    platform: Vec<PlatformOrAll>,
    /// Do not use the network: use only what was fetched before
    #[arg(long)]
    offline: bool,
    /// Directory, file: or http: address with Debian packages, tried before the machine's apt; repeatable
    #[arg(long, value_name = "MIRROR")]
    mirror: Vec<String>,
}

/// Makes the lock current and says what changed.
pub fn run(args: &LockArgs, context: &Context) -> anyhow::Result<Outcome> {
    let mut project = Project::load(&context.environment)?;
    if args.check {
        let reasons = project.lock_reasons(LockScope::Whole, &context.environment)?;
        if reasons.is_empty() {
            return Ok(Outcome::Done);
        }
        for line in project.told(reasons, &args.mirror, &context.environment) {
            context.ui.line(&line);
        }
        return Ok(Outcome::No);
    }
    let update = update(args, &project, context)?;
    let before = project.lock.clone();
    project.update_lock(&update, args.offline, &args.mirror, &context.environment)?;
    if let Some(unknown) = update.names().iter().find(|name| !project.lock.names(name)) {
        bail!(
            "`{unknown}` is not in the lock: it is not a Debian package, source package, download or repository of this spec"
        );
    }
    if args.golden {
        let flags = BuildFlags {
            offline: args.offline,
            mirror: args.mirror.clone(),
            ..BuildFlags::default()
        };
        golden::record(&mut project, &flags.options(), &context.environment)?;
    }
    for line in languages::defaults(&project.workspace, &project.lock) {
        context.ui.line(&line);
    }
    let changes = spec::lock::changes(&before, &project.lock);
    let unchanged = if project.lock != before {
        "written."
    } else if args.refresh {
        "is current: everything in it is still available."
    } else {
        "is current."
    };
    context.tell_changes(&changes, &project.lock_path(), unchanged);
    Ok(Outcome::Done)
}

/// What the flags say is to be resolved anew.
fn update(args: &LockArgs, project: &Project, context: &Context) -> anyhow::Result<Update> {
    let architectures = architectures(args, project)?;
    let update = Box::new(update_of(args, &architectures, project, context)?);
    Ok(match architectures.len() == project.from_all().len() {
        true => *update,
        false => Update::Platforms { architectures, update },
    })
}

/// The Debian architectures of the platforms that the flags name; without any, all that the spec is for.
fn architectures(args: &LockArgs, project: &Project) -> anyhow::Result<BTreeSet<String>> {
    let all: BTreeSet<String> = project
        .from_all()
        .into_iter()
        .map(|(architecture, _)| architecture)
        .collect();
    let mut named = BTreeSet::new();
    for one in &args.platform {
        match one {
            PlatformOrAll::All => return Ok(all),
            PlatformOrAll::One(platform) => match platform.debian_architecture().filter(|name| all.contains(*name)) {
                Some(name) => drop(named.insert(name.to_owned())),
                None => {
                    let known: Vec<Platform> = all.iter().filter_map(|name| Platform::from_debian(name)).collect();
                    return Err(advised(
                        format!("nothing in {SPEC_NAME} is for {platform}: it is for {}", listed(&known)),
                        format!("add `\"{platform}\"` to `platform = […]` of an image"),
                    ));
                }
            },
        }
    }
    Ok(if named.is_empty() { all } else { named })
}

fn update_of(
    args: &LockArgs,
    architectures: &BTreeSet<String>,
    project: &Project,
    context: &Context,
) -> anyhow::Result<Update> {
    if args.refresh && args.offline {
        return Err(advised(
            "`--refresh` asks the sources what they still have, which `--offline` forbids",
            "leave out `--offline`; `layerize build --offline` builds from what was fetched before, gone or not",
        ));
    }
    if args.refresh {
        let mut all = Gone::default();
        for architecture in architectures {
            let seen = project.at(architecture);
            let sources = AptSources::of(&seen.workspace);
            let config = context.environment.fetch_config(args.offline, &args.mirror, sources);
            let gone = fetch::gone(&seen.lock, &config, context.ui)?;
            all.debs.extend(gone.debs);
            all.deb_sources.extend(gone.deb_sources);
        }
        for machine in project.lock.machines.keys() {
            let sources = AptSources {
                architecture: Some(machine.clone()),
                ..AptSources::of(&project.workspace)
            };
            let config = context.environment.fetch_config(args.offline, &args.mirror, sources);
            let gone = fetch::gone(&project.lock.of_machine(machine), &config, context.ui)?;
            all.debs.extend(gone.debs);
        }
        return Ok(Update::Gone(all));
    }
    Ok(match &args.update {
        None => Update::Nothing,
        Some(names) if names.is_empty() => Update::Everything,
        Some(names) => Update::Names(
            names
                .iter()
                .map(|name| name.trim_start_matches("deb:").to_owned())
                .collect(),
        ),
    })
}
