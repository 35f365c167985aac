//! `layerize store`: add, info, ls, verify, gc, roots, and the verbs of binary caches ([`super::store_copy`]).

mod copy;
mod gc;
mod roots;
mod verify;

use std::io::BufRead as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;

use crate::digest::Hasher;
use crate::execution::Execution;
use crate::fsio::IoContext;
use crate::store::nix_store::NixPath;
use crate::store::{Evidence, Optimised, PathDetails, ReadStore, Store};
use crate::store_path::{StoreDir, StorePath};

use super::context::Context;
use super::error::advised;
use super::interrupt;
use super::outcome::Outcome;
use super::text::size;
use copy::{StoreCopyArgs, StoreKeyCommand, StoreSignArgs};
use gc::GcArgs;
use roots::RootsArgs;
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
    /// Delete what no root needs and nobody used of late
    Gc(GcArgs),
    /// Let identical files of store paths share their place on the disk
    #[command(visible_alias = "optimize")]
    Optimise,
    /// List what the garbage collector keeps, and for whom
    Roots(RootsArgs),
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
        StoreCommand::Gc(args) => gc::run(args, &stores(context)?, context),
        StoreCommand::Optimise => optimise(&stores(context)?, context),
        StoreCommand::Roots(args) => roots::run(args, &context.environment.store()?, context),
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
        "walls": details.provenance.walls,
        "execution": details.provenance.execution,
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
        lines.push(format!("  walls       {}", details.provenance.walls));
        if details.provenance.execution != Execution::Native {
            lines.push(format!("  execution   {}", details.provenance.execution));
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

fn optimise(stores: &[Store], context: &Context) -> anyhow::Result<Outcome> {
    let mut all = Optimised::default();
    for store in stores {
        let done = store.optimise(&|| !interrupt::requested())?;
        all.files += done.files;
        all.bytes += done.bytes;
    }
    let Optimised { files, bytes } = all;
    match context.ui.json() {
        true => context
            .ui
            .data(&json!({ "files": files, "bytes": bytes }).to_string())?,
        false => context.ui.line(&format!(
            "{files} more files share their place on the disk with others: {} saved.",
            size(bytes)
        )),
    }
    Ok(Outcome::Done)
}
