//! `layerize cache`: what shared caches keep, and an end to what nobody uses.
//!
//! Invariant: what is listed or removed goes to standard output, a line an entry; nothing but entries is removed.

use std::sync::Mutex;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueHint};
use serde_json::{Value, json};

use crate::escape::shown;
use crate::image;
use crate::inputs;
use crate::shared_cache::{CachePlace, CachedEntry};

use super::context::Context;
use super::error::advised;
use super::outcome::Outcome;
use super::text::{duration, size};

/// Arguments of `layerize cache`.
#[derive(Debug, Args)]
pub struct CacheArgs {
    #[command(subcommand)]
    command: CacheCommand,
}

#[derive(Debug, Subcommand)]
enum CacheCommand {
    /// List the entries of shared caches: tag, size, and when a writer last had use for it
    Ls {
        /// Shared caches: docker://HOST/NAME, oci:DIR or file:DIR [default: `[cache] to` of spec and configuration]
        #[arg(value_hint = ValueHint::AnyPath)]
        places: Vec<String>,
    },
    /// Remove the entries of shared caches that no writer has had use for
    Prune(PruneArgs),
}

#[derive(Debug, Args)]
struct PruneArgs {
    /// Shared caches: docker://HOST/NAME, oci:DIR or file:DIR [default: `[cache] to` of spec and configuration]
    #[arg(value_hint = ValueHint::AnyPath)]
    places: Vec<String>,
    /// For how long nobody had use for what goes: days, or a number with its unit, such as 12h or 8w
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    older_than: u64,
    /// Remove entries without a date, too: those of before entries had one
    #[arg(long)]
    undated: bool,
    /// Only show what would be removed
    #[arg(long)]
    dry_run: bool,
}

/// Does what the subcommand says.
pub fn run(args: &CacheArgs, context: &Context) -> anyhow::Result<Outcome> {
    match &args.command {
        CacheCommand::Ls { places } => ls(&named(places, context)?, context),
        CacheCommand::Prune(args) => prune(args, context),
    }
}

fn named(texts: &[String], context: &Context) -> anyhow::Result<Vec<CachePlace>> {
    let places = context.environment.written_caches(texts)?;
    if places.is_empty() {
        return Err(advised(
            "no shared cache is named, and neither spec nor configuration has `[cache] to`",
            "name one: `docker://HOST/NAME`, `oci:DIR` or `file:DIR`",
        ));
    }
    Ok(places)
}

/// The entries of a place that is there.
fn entries(place: &CachePlace) -> anyhow::Result<Vec<CachedEntry>> {
    if !place.exists() {
        return Err(advised(
            format!("there is no shared cache at `{}`", shown(place.name())),
            "check how the place is written; `--cache-to` makes one with the first build",
        ));
    }
    Ok(place.entries()?)
}

fn ls(places: &[CachePlace], context: &Context) -> anyhow::Result<Outcome> {
    let mut all = Vec::new();
    for place in places {
        let entries = entries(place)?;
        for entry in &entries {
            tell(entry, context)?;
        }
        context
            .ui
            .note(&format!("{}: {}", shown(place.name()), count(entries.len())));
        all.extend(entries.iter().map(|entry| value(entry, place)));
    }
    if context.ui.json() {
        context.ui.data(&json!({ "entries": all }).to_string())?;
    }
    Ok(Outcome::Done)
}

fn prune(args: &PruneArgs, context: &Context) -> anyhow::Result<Outcome> {
    let places = named(&args.places, context)?;
    let before = context.now()?.saturating_sub_unsigned(args.older_than);
    let removed: Mutex<Vec<Value>> = Mutex::default();
    let mut kept = 0;
    for place in &places {
        let entries = entries(place)?;
        let is_old = |entry: &CachedEntry| entry.is_unused_since(before, args.undated);
        let (old, young): (Vec<CachedEntry>, Vec<CachedEntry>) = entries.into_iter().partition(is_old);
        let told = |entry: &CachedEntry| {
            // Who does not read what goes has it removed all the same.
            let _ = tell(entry, context);
            let mut removed = removed.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            removed.push(value(entry, place));
        };
        let summary = match args.dry_run {
            true => {
                old.iter().for_each(told);
                format!("{} would be removed", count(old.len()))
            }
            false => remove(place, &old, &told, context)?,
        };
        kept += young.len();
        let undated = young.iter().filter(|entry| entry.used.is_none()).count();
        let undated = match undated {
            0 => String::new(),
            undated => format!(", of which {undated} without a date (`--undated` removes them)"),
        };
        let text = format!("{}: {summary}, {} kept{undated}", shown(place.name()), young.len());
        context.ui.note(&text);
    }
    if context.ui.json() {
        let removed = removed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let result = json!({ "removed": removed, "kept": kept, "dryRun": args.dry_run });
        context.ui.data(&result.to_string())?;
    }
    Ok(Outcome::Done)
}

/// Removes entries; says how that went.
fn remove(
    place: &CachePlace,
    old: &[CachedEntry],
    told: &(dyn Fn(&CachedEntry) + Sync),
    context: &Context,
) -> anyhow::Result<String> {
    let pruned = place.prune(old, &inputs::tag_of, told);
    let pruned = pruned.with_context(|| format!("cannot remove what is old from `{}`", place.name()))?;
    for spared in &pruned.spared {
        let text = format!("note: {} stays: it has another name, too", spared.tag());
        context.ui.note(&text);
    }
    let freed = pruned
        .freed
        .map_or_else(String::new, |freed| format!(" ({} freed)", size(freed.bytes)));
    Ok(format!("{} removed{freed}", count(old.len() - pruned.spared.len())))
}

fn tell(entry: &CachedEntry, context: &Context) -> anyhow::Result<()> {
    if !context.ui.json() {
        let used = date(entry).unwrap_or_else(|| "no date".to_owned());
        let line = format!("{}  {}  {used}", entry.tag(), size(entry.size));
        context.ui.data(&line)?;
    }
    Ok(())
}

fn date(entry: &CachedEntry) -> Option<String> {
    entry.used.and_then(image::format_time)
}

fn value(entry: &CachedEntry, place: &CachePlace) -> Value {
    json!({
        "place": place.name(),
        "tags": entry.tags,
        "digest": entry.digest,
        "size": entry.size,
        "used": date(entry),
    })
}

fn count(entries: usize) -> String {
    match entries {
        1 => "1 entry".to_owned(),
        entries => format!("{entries} entries"),
    }
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_are_days_or_have_a_unit() {
        for (text, seconds) in [
            ("30", Some(30 * 86_400)),
            ("30d", Some(30 * 86_400)),
            ("2w", Some(14 * 86_400)),
            ("12 h", Some(43_200)),
            ("90s", Some(90)),
            ("0", Some(0)),
            ("", None),
            ("d", None),
            ("-1d", None),
            ("3y", None),
            ("9223372036854775807w", None),
        ] {
            assert_eq!(duration(text).ok(), seconds, "{text}");
        }
    }
}
