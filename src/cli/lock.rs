//! `layerize lock`: pins what comes from outside.

use anyhow::bail;
use clap::Args;

use crate::fetch::{self, AptSources, Update};
use crate::spec::{self, LockScope};

use super::complete;
use super::context::Context;
use super::error::advised;
use super::flags::BuildFlags;
use super::outcome::Outcome;
use crate::project::Project;
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
    if let Update::Names(names) = &update
        && let Some(unknown) = names.iter().find(|name| !project.lock.names(name))
    {
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
    if args.refresh && args.offline {
        return Err(advised(
            "`--refresh` asks the sources what they still have, which `--offline` forbids",
            "leave out `--offline`; `layerize build --offline` builds from what was fetched before, gone or not",
        ));
    }
    if args.refresh {
        let sources = AptSources::of(&project.workspace);
        let config = context.environment.fetch_config(args.offline, &args.mirror, sources);
        return Ok(Update::Gone(fetch::gone(&project.lock, &config, context.ui)?));
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
