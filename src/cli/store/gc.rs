//! `layerize store gc`: an end to what nothing keeps.
//!
//! Invariant: what is rooted, in use or (without `--all`) was used of late stays; what went is counted for people, and named
//! one by one for programs and for who asks.

use clap::Args;
use serde_json::{Value, json};

use crate::event::{Event, Reporter};
use crate::fetch::{self, AptSources};
use crate::fsio::{FileLock, LockKind};
use crate::project::upkeep::{self, Bounds, How, Upkeep};
use crate::store::{GcOptions, GcReport, Kept, KeptBy, Store};
use crate::store_path::StoreDir;

use crate::cli::context::{Context, ago};
use crate::cli::interrupt;
use crate::cli::outcome::Outcome;
use crate::cli::text::{bytes, duration, size, span};
use crate::cli::upkeep::{removed_line, shortfall};

/// How many of the targets that keep something are named unless everything is.
const NAMED_MAX: usize = 5;

/// Arguments of `layerize store gc`.
#[derive(Debug, Args)]
pub struct GcArgs {
    /// Only show what would be deleted
    #[arg(long)]
    dry_run: bool,
    /// Keep what was used for so long: days, or a number with its unit, such as 12h or 8w [default: `[store] keep-builds` of the
    /// configuration, else 30d]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    older_than: Option<u64>,
    /// Delete every store path that no root needs, also what builds used just now; downloads and caches, of which it can be made
    /// again, go by their age all the same
    #[arg(long, conflicts_with = "older_than")]
    all: bool,
    /// Of what no root needs, delete what was used longest ago until all that layerize keeps, downloads and caches among it, has at
    /// most this size [default: `[store] max-size` of the configuration]
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    max_size: Option<u64>,
}

/// What was collected.
struct Collected {
    stores: Vec<(StoreDir, GcReport)>,
    /// Number of interrupted downloads, and their bytes.
    interrupted: (u64, u64),
    /// What went of caches, and to hold the bounds.
    upkeep: Upkeep,
}

/// Collects, and says what went and what keeps the rest.
pub fn run(args: &GcArgs, stores: &[Store], context: &Context) -> anyhow::Result<Outcome> {
    let keep = args.older_than.unwrap_or(context.config.keep_builds);
    let bounds = Bounds {
        max_size: args.max_size.or(context.config.max_size),
        min_free: context.config.min_free,
        unused_since: Some(ago(keep)),
        floor: None,
    };
    let collected = collect(args, stores, &bounds, context)?;
    match context.ui.json() {
        true => context.ui.data(&value(&collected, args.dry_run).to_string())?,
        false => tell(&collected, args, keep, context)?,
    }
    if let Some(text) = shortfall(&collected.upkeep, &bounds) {
        context.ui.report(Event::Warning { text });
    }
    Ok(Outcome::Done)
}

fn collect(args: &GcArgs, stores: &[Store], bounds: &Bounds, context: &Context) -> anyhow::Result<Collected> {
    let mut reports = Vec::new();
    for store in stores {
        let report = store.gc(&GcOptions {
            dry_run: args.dry_run,
            keep_used_since: bounds.unused_since.filter(|_| !args.all),
            // A folder may be on a disk that is not there at the moment, whatever else is to go.
            expire_vanished_before: Some(ago(context.config.keep_builds)),
        })?;
        reports.push((store.store_dir().clone(), report));
    }
    let fetch = context.environment.fetch_config(true, &[], AptSources::default());
    let interrupted = fetch::sweep(&fetch, args.dry_run)?;
    // Commands that do the same in their background leave it to this one.
    let _lock = match args.dry_run {
        true => None,
        false => Some(FileLock::acquire(
            &context.environment.store_dir.join(upkeep::LOCK),
            LockKind::Exclusive,
        )?),
    };
    let doomed = reports.iter().flat_map(|(_, report)| &report.removed);
    let upkeep = upkeep::hold(
        stores,
        &fetch,
        bounds,
        &How {
            dry_run: args.dry_run,
            ahead: false,
            doomed: &doomed.map(|(path, _)| path.clone()).collect(),
            go_on: &|| !interrupt::requested(),
        },
    )?;
    stores
        .iter()
        .for_each(|store| context.environment.tell_of_debris(store));
    Ok(Collected {
        stores: reports,
        interrupted,
        upkeep,
    })
}

/// A summary for people; with `--verbose` everything.
fn tell(collected: &Collected, args: &GcArgs, keep: u64, context: &Context) -> anyhow::Result<()> {
    let verb = if args.dry_run { "would be deleted" } else { "deleted" };
    if context.ui.verbose() {
        for path in collected.paths() {
            context.ui.data(&path.0)?;
        }
    }
    for (_, report) in &collected.stores {
        for line in kept_lines(report, keep, context.ui.verbose()) {
            context.ui.line(&line);
        }
        for root in &report.expired_roots {
            let verb = if args.dry_run { "would expire" } else { "expired" };
            context
                .ui
                .line(&format!("root {root} {verb}: the folder of its project is gone"));
        }
        context.ui.line(&format!(
            "{} paths {verb} ({}), {} paths kept ({}).",
            report.removed.len(),
            size(report.removed_bytes()),
            report.kept_paths,
            size(report.kept_bytes),
        ));
    }
    let (count, bytes) = collected.interrupted;
    if count > 0 {
        context
            .ui
            .line(&format!("Downloads {verb}: {count} interrupted ({}).", size(bytes)));
    }
    let upkeep = &collected.upkeep;
    let line = removed_line(upkeep.paths.len(), &upkeep.caches, upkeep.removed_bytes(), verb);
    if let Some(line) = line {
        context.ui.line(&line);
    }
    Ok(())
}

impl Collected {
    /// All store paths that went, and the sizes of their archives in bytes.
    fn paths(&self) -> impl Iterator<Item = (String, u64)> {
        let by_age = self.stores.iter().flat_map(|(dir, report)| {
            let removed = report.removed.iter();
            removed.map(move |(path, size)| (dir.join(path), *size))
        });
        let by_bounds = self.upkeep.paths.iter();
        by_age.chain(by_bounds.map(|(dir, path, size)| (dir.join(path), *size)))
    }
}

/// What keeps how much: the targets that alone keep the most before others.
fn kept_lines(report: &GcReport, keep: u64, is_verbose: bool) -> Vec<String> {
    let is_target = |kept: &&Kept| matches!(kept.by, KeptBy::Target(_) | KeptBy::Root(_));
    let (mut targets, others): (Vec<&Kept>, Vec<&Kept>) = report.kept.iter().partition(is_target);
    targets.sort_by_key(|kept| std::cmp::Reverse((kept.own_bytes, kept.bytes)));
    let count = if is_verbose {
        targets.len()
    } else {
        NAMED_MAX.min(targets.len())
    };
    let (named, rest) = targets.split_at(count);
    let line = |kept: &Kept| {
        format!(
            "{}: {} paths, {}, {} of it by nothing else",
            kept_by(&kept.by, keep),
            kept.paths,
            size(kept.bytes),
            size(kept.own_bytes)
        )
    };
    let mut lines: Vec<String> = named.iter().map(|kept| line(kept)).collect();
    if !rest.is_empty() {
        lines.push(format!("kept by {} more (`--verbose` names them)", rest.len()));
    }
    lines.extend(others.into_iter().filter(|kept| kept.paths > 0).map(line));
    lines
}

fn kept_by(by: &KeptBy, keep: u64) -> String {
    match by {
        KeptBy::Target(owner) => {
            let folder = owner.folder.display();
            format!("kept by {} {} in {folder}", owner.kind, owner.target)
        }
        KeptBy::Root(name) => format!("kept by the root {name}"),
        KeptBy::Recent => format!(
            "kept because it was used in the last {} (`--all` deletes it)",
            span(keep)
        ),
        KeptBy::Processes => "kept by running processes".to_owned(),
    }
}

/// The same for programs.
fn value(collected: &Collected, dry_run: bool) -> Value {
    let reports = || collected.stores.iter().map(|(_, report)| report);
    let upkeep = &collected.upkeep;
    let paths: Vec<(String, u64)> = collected.paths().collect();
    let removed = paths
        .iter()
        .map(|(path, size)| json!({ "path": path, "narSize": size }));
    let counted = |(count, bytes): (u64, u64)| json!({ "count": count, "bytes": bytes });
    let by_bounds: u64 = upkeep.paths.iter().map(|(.., bytes)| bytes).sum();
    let caches = upkeep
        .caches
        .iter()
        .map(|(kind, sum)| (kind.name().to_owned(), counted(*sum)));
    json!({
        "dryRun": dry_run,
        "removed": removed.collect::<Vec<_>>(),
        "removedBytes": paths.iter().map(|(_, size)| size).sum::<u64>(),
        "kept": reports().flat_map(|report| &report.kept).map(kept_value).collect::<Vec<_>>(),
        "keptPaths": reports().map(|report| report.kept_paths).sum::<u64>() - upkeep.paths.len() as u64,
        "keptBytes": reports().map(|report| report.kept_bytes).sum::<u64>() - by_bounds,
        "expiredRoots": reports().flat_map(|report| &report.expired_roots).collect::<Vec<_>>(),
        "interruptedDownloads": counted(collected.interrupted),
        "caches": caches.collect::<serde_json::Map<_, _>>(),
        "totalBytes": upkeep.total,
        "freeBytes": upkeep.free,
    })
}

fn kept_value(kept: &Kept) -> Value {
    let mut value = match &kept.by {
        KeptBy::Target(owner) => {
            json!({ "by": owner.kind, "target": owner.target, "folder": owner.folder.display().to_string() })
        }
        KeptBy::Root(name) => json!({ "by": "root", "name": name }),
        KeptBy::Recent => json!({ "by": "recent-use" }),
        KeptBy::Processes => json!({ "by": "processes" }),
    };
    value["paths"] = kept.paths.into();
    value["bytes"] = kept.bytes.into();
    value["ownBytes"] = kept.own_bytes.into();
    value
}
