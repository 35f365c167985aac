//! *Upkeep* beside commands that add to what is kept on this machine, as the configuration bounds it.
//!
//! Invariant: it neither fails a command nor holds up what it says: it is done beside the work, and for a moment after.

use std::time::{Duration, SystemTime};

use crate::event::{Event, Reporter};
use crate::fetch::AptSources;
use crate::fsio::with_causes;
use crate::project::upkeep::{Background, Bounds, Counted, Orders, Upkeep};

use super::context::{Context, ago};
use super::interrupt;
use super::text::size;

/// How long a command that has said everything goes on for what is left to be done.
const PATIENCE: Duration = Duration::from_millis(100);

/// What counts as used by the command itself, so many seconds before it began: clocks of file systems lag behind.
const LAG: u64 = 1;

/// Begins upkeep beside a command.
pub fn begin(context: &Context) -> Option<Background> {
    Background::begin(orders(context, ago(LAG)))
}

fn orders(context: &Context, floor: SystemTime) -> Orders {
    Orders {
        store_dir: context.environment.store_dir.clone(),
        fetch: context.environment.fetch_config(true, &[], AptSources::default()),
        bounds: Bounds {
            max_size: context.config.max_size,
            min_free: context.config.min_free,
            unused_since: Some(ago(context.config.keep_builds)),
            floor: Some(floor),
        },
        optimise: context.config.auto_optimise,
    }
}

/// Ends it, when all that the command had open is closed.
pub fn finish(background: Option<Background>, context: &Context) {
    if interrupt::requested() {
        return;
    }
    let warn = |text| context.ui.report(Event::Warning { text });
    if let Err(error) = context.trim_layer_cache() {
        warn(format!("packed layers are not looked through: {error:#}"));
    }
    let bounds = orders(context, SystemTime::UNIX_EPOCH).bounds;
    match background.and_then(|background| background.finish(PATIENCE)) {
        None => {}
        Some(Ok(done)) => {
            if let Some(line) = removed_line(done.paths.len(), &done.caches, done.removed_bytes(), "deleted")
                && context.ui.verbose()
            {
                context.ui.note(&line);
            }
            if let Some(text) = shortfall(&done, &bounds) {
                warn(text);
            }
        }
        Some(Err(error)) => warn(format!("what is kept is not looked through: {}", with_causes(&error))),
    }
}

/// What went, in one line; `None` where nothing did.
pub fn removed_line(paths: usize, caches: &Counted, bytes: u64, verb: &str) -> Option<String> {
    let paths = (paths > 0).then(|| format!("{paths} store paths"));
    let caches = caches
        .iter()
        .map(|(kind, (count, _))| format!("{count} {}", kind.name()));
    let parts: Vec<String> = paths.into_iter().chain(caches).collect();
    (!parts.is_empty()).then(|| format!("Used longest ago and {verb}: {} ({}).", parts.join(", "), size(bytes)))
}

/// Why bounds are not held, and what can be done about it; `None` where they are.
pub fn shortfall(done: &Upkeep, bounds: &Bounds) -> Option<String> {
    if !done.falls_short(bounds) {
        return None;
    }
    let kept = size(done.kept);
    let advice = "`layerize store roots` lists for which projects";
    Some(match bounds.max_size.filter(|&max| done.total > max) {
        Some(max) => format!(
            "max-size ({}) cannot be held: roots need and commands use {kept} of {}; raise it, or remove roots: {advice}",
            size(max),
            size(done.total)
        ),
        None => format!(
            "min-free ({}) cannot be held: {} are free, and of what layerize keeps roots need and commands use {kept}; free \
             room elsewhere, or remove roots: {advice}",
            size(bounds.min_free.unwrap_or(0)),
            size(done.free)
        ),
    })
}
