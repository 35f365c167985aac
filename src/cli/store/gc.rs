//! `layerize store gc`: an end to what nothing keeps.
//!
//! Invariant: what is rooted, in use or (without `--all`) was used of late stays; what went is counted for people, and named
//! one by one for programs and for who asks.

use std::time::SystemTime;

use clap::Args;
use serde_json::{Value, json};

use crate::build::collect_build_caches;
use crate::fetch::CollectedDownloads;
use crate::project::collect_downloads;
use crate::store::{GcOptions, GcReport, Kept, KeptBy, Store};
use crate::store_path::StoreDir;

use crate::cli::context::{Context, ago};
use crate::cli::outcome::Outcome;
use crate::cli::text::{duration, size, span};

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
}

/// What was collected in one store, and around it.
struct Collected {
    dir: StoreDir,
    report: GcReport,
    downloads: CollectedDownloads,
    /// Number of build caches, and their bytes.
    build_caches: (u64, u64),
}

/// Collects, and says what went and what keeps the rest.
pub fn run(args: &GcArgs, stores: &[Store], context: &Context) -> anyhow::Result<Outcome> {
    let keep = args.older_than.unwrap_or(context.config.keep_builds);
    let since = ago(keep);
    let mut all = Vec::new();
    for store in stores {
        let collected = collect(store, args, since, context)?;
        if !context.ui.json() {
            tell(&collected, args.dry_run, (!args.all).then_some(keep), context)?;
        }
        all.push(collected);
    }
    if context.ui.json() {
        context.ui.data(&value(&all, args.dry_run).to_string())?;
    }
    Ok(Outcome::Done)
}

fn collect(store: &Store, args: &GcArgs, since: SystemTime, context: &Context) -> anyhow::Result<Collected> {
    let report = store.gc(&GcOptions {
        dry_run: args.dry_run,
        keep_used_since: (!args.all).then_some(since),
        // A folder may be on a disk that is not there at the moment, whatever else is to go.
        expire_vanished_before: Some(ago(context.config.keep_builds)),
    })?;
    context.environment.tell_of_debris(store);
    let mut collected = Collected {
        dir: store.store_dir().clone(),
        report,
        downloads: CollectedDownloads::default(),
        build_caches: (0, 0),
    };
    // Only what is built is made from downloads.
    if collected.dir == StoreDir::layerize() {
        let doomed = collected.report.removed.iter().map(|(path, _)| path).collect();
        collected.downloads = collect_downloads(store, &doomed, since, args.dry_run, &context.environment)?;
        collected.build_caches = collect_build_caches(store, since, args.dry_run)?;
    }
    Ok(collected)
}

/// A summary for people; with `--verbose` everything.
fn tell(collected: &Collected, dry_run: bool, keep: Option<u64>, context: &Context) -> anyhow::Result<()> {
    let report = &collected.report;
    if context.ui.verbose() {
        for (path, _) in &report.removed {
            context.ui.data(&collected.dir.join(path))?;
        }
    }
    for line in kept_lines(report, keep, context.ui.verbose()) {
        context.ui.line(&line);
    }
    let verb = if dry_run { "would be deleted" } else { "deleted" };
    for root in &report.expired_roots {
        let verb = if dry_run { "would expire" } else { "expired" };
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
    if let Some(line) = downloads_line(collected.downloads, verb) {
        context.ui.line(&line);
    }
    let (count, bytes) = collected.build_caches;
    if count > 0 {
        context.ui.line(&format!(
            "Build caches {verb}: {count} not used of late ({}).",
            size(bytes)
        ));
    }
    Ok(())
}

/// What keeps how much: the targets that alone keep the most before others.
fn kept_lines(report: &GcReport, keep: Option<u64>, is_verbose: bool) -> Vec<String> {
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

fn kept_by(by: &KeptBy, keep: Option<u64>) -> String {
    match by {
        KeptBy::Target(owner) => {
            let folder = owner.folder.display();
            format!("kept by {} {} in {folder}", owner.kind, owner.target)
        }
        KeptBy::Root(name) => format!("kept by the root {name}"),
        KeptBy::Recent => match keep {
            Some(seconds) => format!(
                "kept because it was used in the last {} (`--all` deletes it)",
                span(seconds)
            ),
            None => "kept because it was used of late".to_owned(),
        },
        KeptBy::Processes => "kept by running processes".to_owned(),
    }
}

fn downloads_line(collected: CollectedDownloads, verb: &str) -> Option<String> {
    let parts: Vec<String> = [
        (collected.interrupted, "interrupted"),
        (collected.unused, "needed by nothing here and not used of late"),
    ]
    .into_iter()
    .filter(|((count, _), _)| *count > 0)
    .map(|((count, bytes), what)| format!("{count} {what} ({})", size(bytes)))
    .collect();
    (!parts.is_empty()).then(|| format!("Downloads {verb}: {}.", parts.join(", ")))
}

/// The same for programs.
fn value(all: &[Collected], dry_run: bool) -> Value {
    let paths = all.iter().flat_map(|collected| {
        let removed = collected.report.removed.iter();
        removed.map(|(path, size)| json!({ "path": collected.dir.join(path), "narSize": size }))
    });
    let kept = all.iter().flat_map(|collected| &collected.report.kept).map(kept_value);
    let expired = all.iter().flat_map(|collected| &collected.report.expired_roots);
    let sum = |of: fn(&Collected) -> u64| all.iter().map(of).sum::<u64>();
    let counted = |(count, bytes): (u64, u64)| json!({ "count": count, "bytes": bytes });
    let both = |of: fn(&Collected) -> (u64, u64)| {
        all.iter().fold((0, 0), |(count, bytes), collected| {
            let (more, more_bytes) = of(collected);
            (count + more, bytes + more_bytes)
        })
    };
    json!({
        "dryRun": dry_run,
        "removed": paths.collect::<Vec<_>>(),
        "removedBytes": sum(|collected| collected.report.removed_bytes()),
        "kept": kept.collect::<Vec<_>>(),
        "keptPaths": sum(|collected| collected.report.kept_paths),
        "keptBytes": sum(|collected| collected.report.kept_bytes),
        "expiredRoots": expired.collect::<Vec<_>>(),
        "interruptedDownloads": counted(both(|collected| collected.downloads.interrupted)),
        "unusedDownloads": counted(both(|collected| collected.downloads.unused)),
        "buildCaches": counted(both(|collected| collected.build_caches)),
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
