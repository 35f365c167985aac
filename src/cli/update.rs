//! `layerize update`: newer versions, by the languages' own tools and in `layerize.lock`.

use std::path::Path;

use clap::Args;

use crate::fetch::Update;
use crate::project::spec_place::SpecPlace;
use crate::project::{Project, WorkOptions, update};
use crate::spec;

use super::complete;
use super::context::Context;
use super::outcome::Outcome;

/// Arguments of `layerize update`.
#[derive(Debug, Args)]
pub struct UpdateArgs {
    /// Dependencies in lock files of languages (`serde`, `rust:serde`), Debian packages, and other entries of layerize.lock; or
    /// places of specs (https://…, git+https://…?tag=…), of which what is there now is pinned [default: everything]
    #[arg(add = complete::locked())]
    names: Vec<String>,
    /// Do not use the network: use only what was fetched before
    #[arg(long)]
    offline: bool,
    /// Directory, file: or http: address with Debian packages, tried before the machine's apt; repeatable
    #[arg(long, value_name = "MIRROR")]
    mirror: Vec<String>,
}

/// Updates lock files, pins anew, and says what changed.
pub fn run(args: &UpdateArgs, context: &Context) -> anyhow::Result<Outcome> {
    let environment = &context.environment;
    let places = args.names.iter().map(|name| SpecPlace::parse(name, &environment.here));
    if let Some(places) = places.collect::<Option<Vec<_>>>().filter(|places| !places.is_empty()) {
        let options = WorkOptions {
            offline: args.offline,
            mirrors: args.mirror.clone(),
            ..WorkOptions::default()
        };
        for place in places {
            let (place, _) = place?;
            let changes = place.update(&options, environment)?;
            context.tell_changes(&changes, Path::new(&place.to_string()), "is as it was.");
        }
        return Ok(Outcome::Done);
    }
    let mut project = Project::load(environment)?;
    let (updated, left) = update::update(&project, &args.names, args.offline, environment)?;
    let wanted = match (args.names.is_empty(), left.is_empty()) {
        (true, _) => Update::Everything,
        (_, true) => Update::Nothing,
        (_, false) => Update::Names(left.into_iter().collect()),
    };
    let before = project.lock.clone();
    project.update_lock(&wanted, args.offline, &args.mirror, environment)?;
    for lock in &updated {
        context.tell_changes(&lock.changes(&project)?, &lock.file, "is current.");
    }
    let changes = spec::lock::changes(&before, &project.lock);
    context.tell_changes(&changes, &project.lock_path(), "is current.");
    Ok(Outcome::Done)
}
