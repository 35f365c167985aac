//! `layerize store`: add, info, ls, verify, gc, roots, and the verbs of binary caches ([`super::store_copy`]).

mod copy;
mod verify;

use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::build::collect_build_caches;
use crate::digest::Hasher;
use crate::fetch::CollectedDownloads;
use crate::fsio::IoContext;
use crate::project::collect_downloads;
use crate::store::nix_store::NixPath;
use crate::store::{Evidence, GcOptions, GcReport, PathDetails, ReadStore, Store};
use crate::store_path::{StoreDir, StorePath};

use super::context::Context;
use super::error::advised;
use super::outcome::Outcome;
use super::text::size;
use copy::{StoreCopyArgs, StoreKeyCommand, StoreSignArgs};
use verify::StoreVerifyArgs;

/// Arguments of `layerize store`.
#[derive(Debug, Args)]
pub struct StoreArgs {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Copy files or trees into the store and print their store paths
    Add {
        /// Files or directories to add
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Name in the store path [default: the file's]
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Address a single file by the SHA-256 of its bytes, as a download is
        #[arg(long)]
        flat: bool,
    },
    /// Show information about store paths
    Info {
        /// Store paths
        #[arg(required = true)]
        paths: Vec<String>,
    },
    /// List all valid store paths
    Ls,
    /// Read store paths and compare them with the store's records: exit status 1 if anything is wrong
    Verify(StoreVerifyArgs),
    /// Delete what no root needs
    Gc {
        /// Only show what would be deleted
        #[arg(long)]
        dry_run: bool,
        /// Delete downloads that no path in the store was made from and that nobody has used for so many days
        #[arg(long, value_name = "DAYS", default_value_t = 30)]
        downloads_unused_for: u32,
        /// Delete what scripts left in the `cache` of their packages and did not use for so many days
        #[arg(long, value_name = "DAYS", default_value_t = 30)]
        build_caches_unused_for: u32,
    },
    /// List what the garbage collector keeps, and why
    Roots,
    /// Copy closures from a binary cache into the store, or from the store to a binary cache
    Copy(StoreCopyArgs),
    /// Sign store paths; the signatures go with every copy
    Sign(StoreSignArgs),
    /// Generate keys that sign store paths
    #[command(subcommand)]
    Key(StoreKeyCommand),
}

/// Does what the subcommand says.
pub fn run(args: &StoreArgs, context: &Context) -> anyhow::Result<Outcome> {
    match &args.command {
        StoreCommand::Add { paths, name, flat } => {
            add(&context.environment.store()?, paths, name.as_deref(), *flat, context)
        }
        StoreCommand::Info { paths } => info(&context.environment.store()?, paths, context),
        StoreCommand::Ls => ls(&stores(context)?, context),
        StoreCommand::Verify(args) => verify::run(args, &stores(context)?, context),
        StoreCommand::Gc {
            dry_run,
            downloads_unused_for,
            build_caches_unused_for,
        } => {
            let days = UnusedFor {
                downloads: *downloads_unused_for,
                build_caches: *build_caches_unused_for,
            };
            gc(&stores(context)?, *dry_run, &days, context)
        }
        StoreCommand::Roots => roots(&context.environment.store()?, context),
        StoreCommand::Copy(args) => copy::copy(args, context),
        StoreCommand::Sign(args) => copy::sign(args, context),
        StoreCommand::Key(command) => copy::key(command, context),
    }
}

fn add(store: &Store, paths: &[PathBuf], name: Option<&str>, flat: bool, context: &Context) -> anyhow::Result<Outcome> {
    if name.is_some() && paths.len() > 1 {
        return Err(advised("`--name` can name one path only", "add the paths one by one"));
    }
    for path in paths {
        let name = match name {
            Some(name) => name.to_owned(),
            None => file_name(path)?,
        };
        let info = if flat {
            store.add_file_flat(&name, path, &hash_file(path)?)?
        } else {
            store.add_tree(&name, path)?
        };
        let logical = StoreDir::layerize().join(&info.path);
        let line = if context.ui.json() {
            json!({ "path": logical, "narHash": info.nar_hash }).to_string()
        } else {
            logical
        };
        context.ui.data(&line)?;
    }
    Ok(Outcome::Done)
}

fn file_name(path: &Path) -> anyhow::Result<String> {
    let absolute = IoContext::context(path.canonicalize(), "find", path)?;
    let name = absolute.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    name.ok_or_else(|| {
        advised(
            format!("`{}` has no usable name", path.display()),
            "give one with `--name NAME`",
        )
    })
}

fn hash_file(path: &Path) -> anyhow::Result<crate::digest::Digest> {
    let file = IoContext::context(std::fs::File::open(path), "open", path)?;
    let mut reader = std::io::BufReader::with_capacity(1 << 16, file);
    let mut hasher = Hasher::new();
    loop {
        let bytes = IoContext::context(reader.fill_buf(), "read", path)?;
        if bytes.is_empty() {
            return Ok(hasher.digest());
        }
        hasher.update(bytes);
        let count = bytes.len();
        reader.consume(count);
    }
}

fn info(store: &Store, paths: &[String], context: &Context) -> anyhow::Result<Outcome> {
    for text in paths {
        if let Some(info) = nix_info(text, context)? {
            context.ui.data(&info)?;
            continue;
        }
        let path = parse(text)?;
        let details = store.info_full(&path)?.ok_or_else(|| {
            advised(
                format!("`{text}` is not in the store {}", store.dir().display()),
                "`layerize store ls` lists what is",
            )
        })?;
        let line = if context.ui.json() {
            info_json(&details).to_string()
        } else {
            info_text(store, &details)
        };
        context.ui.data(&line)?;
    }
    Ok(Outcome::Done)
}

/// What is known of a path of a Nix store; `None` where the text names none.
pub fn nix_info(text: &str, context: &Context) -> anyhow::Result<Option<String>> {
    let nix = context.environment.nix();
    let Some(path) = nix.argument(text, false)? else {
        return Ok(None);
    };
    let path = &path;
    let store = nix.get()?;
    let (dir, logical) = (store.store_dir(), store.store_dir().join(path));
    let details = store.details(path)?;
    let NixPath {
        info,
        deriver,
        content_address,
        signatures,
    } = details.with_context(|| format!("`{logical}` is not in the Nix store"))?;
    let references: Vec<String> = info.references.iter().map(|path| dir.join(path)).collect();
    if context.ui.json() {
        let value = json!({
            "path": logical,
            "narHash": info.nar_hash,
            "narSize": info.nar_size,
            "references": references,
            "selfReference": info.self_reference,
            "deriver": deriver,
            "ca": content_address,
            "signatures": signatures,
        });
        return Ok(Some(value.to_string()));
    }
    let mut lines = vec![
        logical,
        format!("  on disk     {}", store.physical(path).display()),
        format!("  known from  {}", store.source()),
        format!("  NAR hash    {}", info.nar_hash),
        format!("  NAR size    {} ({} bytes)", size(info.nar_size), info.nar_size),
    ];
    lines.extend(deriver.map(|deriver| format!("  deriver     {deriver}")));
    lines.extend(content_address.map(|address| format!("  address     {address}")));
    lines.extend(signatures.iter().map(|signature| format!("  signed      {signature}")));
    lines.extend(references.iter().map(|reference| format!("  refers to   {reference}")));
    if info.self_reference {
        lines.push("  refers to   itself".to_owned());
    }
    Ok(Some(lines.join("\n")))
}

/// A store path with or without its directory.
fn parse(text: &str) -> anyhow::Result<StorePath> {
    let base = text
        .trim_end_matches('/')
        .strip_prefix(&format!("{}/", StoreDir::LAYERIZE))
        .unwrap_or(text);
    Ok(base.parse()?)
}

fn info_json(details: &PathDetails) -> serde_json::Value {
    let dir = StoreDir::layerize();
    let references: Vec<String> = details.info.references.iter().map(|path| dir.join(path)).collect();
    let evidence: serde_json::Map<String, serde_json::Value> = details
        .evidence
        .iter()
        .map(|(path, evidence)| (dir.join(path), json!(evidence)))
        .collect();
    json!({
        "path": dir.join(&details.info.path),
        "narHash": details.info.nar_hash,
        "narSize": details.info.nar_size,
        "references": references,
        "selfReference": details.info.self_reference,
        "evidence": evidence,
        "derivation": details.provenance.derivation,
        "sandboxed": details.provenance.sandboxed,
    })
}

fn info_text(store: &Store, details: &PathDetails) -> String {
    let dir = StoreDir::layerize();
    let info = &details.info;
    let mut lines = vec![
        dir.join(&info.path),
        format!("  on disk     {}", store.physical(&info.path).display()),
        format!("  NAR hash    {}", info.nar_hash),
        format!("  NAR size    {} ({} bytes)", size(info.nar_size), info.nar_size),
    ];
    if let Some(derivation) = &details.provenance.derivation {
        lines.push(format!("  derivation  {derivation}"));
        if !details.provenance.sandboxed {
            lines.push("  sandbox     none: built with --sandbox=none".to_owned());
        }
    }
    for (path, evidence) in &details.evidence {
        let because = match evidence {
            Evidence::Found(place) => format!("found in {place}"),
            Evidence::Declared { via } => format!("declared by {via}"),
        };
        lines.push(format!("  refers to   {path} ({because})"));
    }
    lines.join("\n")
}

/// The store, and the one of paths that were fetched from Nix's caches, if there ever were any.
fn stores(context: &Context) -> anyhow::Result<Vec<Store>> {
    let mut stores = vec![context.environment.store()?];
    if context.environment.store_dir.join("nix/db").is_dir() {
        stores.push(Store::open_nix(&context.environment.store_dir)?);
    }
    Ok(stores)
}

fn ls(stores: &[Store], context: &Context) -> anyhow::Result<Outcome> {
    for store in stores {
        for info in store.list()? {
            let path = store.store_dir().join(&info.path);
            let line = if context.ui.json() {
                json!({ "path": path, "narHash": info.nar_hash, "narSize": info.nar_size }).to_string()
            } else {
                path
            };
            context.ui.data(&line)?;
        }
    }
    Ok(Outcome::Done)
}

/// After how many days without use something is deleted.
struct UnusedFor {
    downloads: u32,
    build_caches: u32,
}

fn gc(stores: &[Store], dry_run: bool, days: &UnusedFor, context: &Context) -> anyhow::Result<Outcome> {
    for store in stores {
        let report = collect(store, dry_run, context)?;
        // Only what is built is made from downloads.
        if *store.store_dir() == StoreDir::layerize() {
            let doomed = report.removed.iter().map(|(path, _)| path).collect();
            let since = days_ago(days.downloads);
            let collected = collect_downloads(store, &doomed, since, dry_run, &context.environment)?;
            if let Some(line) = downloads_summary(collected, days.downloads, dry_run) {
                context.ui.line(&line);
            }
            let (count, bytes) = collect_build_caches(store, days_ago(days.build_caches), dry_run)?;
            if count > 0 {
                let verb = if dry_run { "would be deleted" } else { "deleted" };
                let line = format!(
                    "Build caches {verb}: {count} unused for {} days ({}).",
                    days.build_caches,
                    size(bytes)
                );
                context.ui.line(&line);
            }
        }
    }
    Ok(Outcome::Done)
}

#[expect(
    clippy::disallowed_methods,
    reason = "how long something was not used is told by the clock; nothing is made of it"
)]
fn days_ago(days: u32) -> SystemTime {
    let now = SystemTime::now();
    let span = Duration::from_secs(u64::from(days) * 24 * 60 * 60);
    now.checked_sub(span).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn downloads_summary(collected: CollectedDownloads, days: u32, dry_run: bool) -> Option<String> {
    let verb = if dry_run { "would be deleted" } else { "deleted" };
    let parts: Vec<String> = [
        (collected.interrupted, "interrupted".to_owned()),
        (
            collected.unused,
            format!("needed by nothing here and unused for {days} days"),
        ),
    ]
    .into_iter()
    .filter(|((count, _), _)| *count > 0)
    .map(|((count, bytes), what)| format!("{count} {what} ({})", size(bytes)))
    .collect();
    (!parts.is_empty()).then(|| format!("Downloads {verb}: {}.", parts.join(", ")))
}

fn collect(store: &Store, dry_run: bool, context: &Context) -> anyhow::Result<GcReport> {
    let report = store.gc(&GcOptions {
        dry_run,
        ..GcOptions::default()
    })?;
    context.environment.tell_of_debris(store);
    for (path, nar_size) in &report.removed {
        let path = store.store_dir().join(path);
        let line = if context.ui.json() {
            json!({ "path": path, "narSize": nar_size }).to_string()
        } else {
            path
        };
        context.ui.data(&line)?;
    }
    context.ui.line(&gc_summary(&report, dry_run));
    Ok(report)
}

fn gc_summary(report: &GcReport, dry_run: bool) -> String {
    let verb = if dry_run { "would be deleted" } else { "deleted" };
    let mut lines: Vec<String> = report
        .kept
        .iter()
        .map(|kept| {
            let name = kept.root.as_ref().map_or("running processes", |root| &root.name);
            format!(
                "kept by {name}: {} paths, {}, {} of it by nothing else",
                kept.paths,
                size(kept.bytes),
                size(kept.own_bytes)
            )
        })
        .collect();
    lines.push(format!(
        "{} paths {verb} ({}), {} paths kept ({}).",
        report.removed.len(),
        size(report.removed_bytes()),
        report.kept_paths,
        size(report.kept_bytes),
    ));
    lines.join("\n")
}

fn roots(store: &Store, context: &Context) -> anyhow::Result<Outcome> {
    for root in store.roots()? {
        let target = root.target.as_ref().map(|path| StoreDir::layerize().join(path));
        let line = if context.ui.json() {
            json!({ "name": root.name, "link": root.link, "target": target }).to_string()
        } else {
            format!("{} → {}", root.name, target.as_deref().unwrap_or("nothing (stale)"))
        };
        context.ui.data(&line)?;
    }
    Ok(Outcome::Done)
}
