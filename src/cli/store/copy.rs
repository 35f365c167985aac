//! `layerize store copy`, `sign` and `key`: store paths from binary caches and to them.
//!
//! Invariant: unsigned paths are taken only with `--no-check-sigs`; a secret key is printed nowhere, and its file can
//! be read by its owner alone.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};

use crate::binary_cache::{self, BinaryCache, ExportOptions, NixPublicKey, SecretKey, Trust};
use crate::fsio::{IoContext, read_limited};
use crate::oci::{CompressionFormat, UnknownCompressionFormat};
use crate::store::Store;
use crate::store_path::{StoreDir, StorePath};

use crate::cli::context::Context;
use crate::cli::error::advised;
use crate::cli::outcome::Outcome;
use crate::cli::output;

/// Largest file of a key that is read.
const KEY_BYTES_MAX: u64 = 4096;

/// Arguments of `layerize store copy`.
#[derive(Debug, Args)]
pub struct StoreCopyArgs {
    /// Store paths: `/nix/store/…` or `/layerize/store/…`, with all they refer to
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
    /// Binary cache to take them from: file:DIR or http(s)://…; repeatable, in order [default: the configuration's]
    #[arg(long, value_name = "CACHE", conflicts_with = "to")]
    from: Vec<String>,
    /// Directory to write them to as a binary cache: file:DIR
    #[arg(long, value_name = "CACHE")]
    to: Option<String>,
    /// Trusted key, NAME:BASE64; repeatable, besides the configuration's
    #[arg(long, value_name = "KEY", conflicts_with = "to")]
    trusted_key: Vec<String>,
    /// Accept unsigned paths too
    #[arg(long, conflicts_with = "to")]
    no_check_sigs: bool,
    /// Secret key that signs what is written; repeatable
    #[arg(long, value_name = "FILE", requires = "to")]
    sign_key: Vec<PathBuf>,
    /// How archives are compressed: xz, zstd or none
    #[arg(long, value_name = "HOW", default_value = "xz", value_parser = parse_compression)]
    compression: CompressionFormat,
}

/// Arguments of `layerize store sign`.
#[derive(Debug, Args)]
pub struct StoreSignArgs {
    /// Store paths
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
    /// File of the secret key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Sign everything they refer to, too
    #[arg(long)]
    closure: bool,
}

/// Subcommands of `layerize store key`.
#[derive(Debug, Subcommand)]
pub enum StoreKeyCommand {
    /// Make a pair of keys, NAME.secret and NAME.public, and print the public one
    Generate {
        /// Name of the key in signatures: by convention the cache's host and a number
        name: String,
        /// Where to write the two files
        #[arg(long, value_name = "DIR", default_value = ".")]
        dir: PathBuf,
    },
    /// Print the public half of a secret key
    Public {
        /// File of the secret key
        file: PathBuf,
    },
}

fn parse_compression(text: &str) -> Result<CompressionFormat, String> {
    match text
        .parse()
        .map_err(|error: UnknownCompressionFormat| error.to_string())?
    {
        CompressionFormat::Bzip2 | CompressionFormat::Gzip => {
            Err(format!("`{text}` is only read; write xz, zstd or none"))
        }
        compression => Ok(compression),
    }
}

/// `layerize store copy`.
pub fn copy(args: &StoreCopyArgs, context: &Context) -> anyhow::Result<Outcome> {
    let (store_dir, paths) = parse_paths(&args.paths)?;
    let store = open(&store_dir, context)?;
    let copied = match &args.to {
        Some(to) => export(args, to, &store, &paths, context)?,
        None => fetch(args, &store, &paths, context)?,
    };
    for path in &copied {
        context.ui.data(&store_dir.join(path))?;
    }
    context.ui.note(&format!("{} copied.", count(copied.len())));
    Ok(Outcome::Done)
}

fn fetch(
    args: &StoreCopyArgs,
    store: &Store,
    paths: &BTreeSet<StorePath>,
    context: &Context,
) -> anyhow::Result<Vec<StorePath>> {
    let caches = open_caches(&args.from, store.store_dir(), context)?;
    let keys = args.trusted_key.iter().chain(&context.config.nix_trusted_keys);
    let trust = Trust {
        keys: keys.map(|key| key.parse::<NixPublicKey>()).collect::<Result<_, _>>()?,
        unsigned: args.no_check_sigs,
    };
    Ok(binary_cache::fetch_closure(store, paths, &caches, &trust, context.ui)?)
}

/// The caches that arguments name, or else those of the configuration.
fn open_caches(named: &[String], store_dir: &StoreDir, context: &Context) -> anyhow::Result<Vec<BinaryCache>> {
    let names = match named {
        [] => &context.config.nix_caches,
        named => named,
    };
    if names.is_empty() {
        return Err(advised(
            "there is no binary cache to copy from",
            "name one with `--from CACHE`, or in the configuration: `[nix] caches = [\"https://…\"]`; \
             `--to file:DIR` copies the other way",
        ));
    }
    let http = context.environment.registries.http.clone();
    let open = |name: &String| BinaryCache::open(name, store_dir, &http);
    Ok(names.iter().map(open).collect::<Result<_, _>>()?)
}

fn export(
    args: &StoreCopyArgs,
    to: &str,
    store: &Store,
    paths: &BTreeSet<StorePath>,
    context: &Context,
) -> anyhow::Result<Vec<StorePath>> {
    let keys = args
        .sign_key
        .iter()
        .map(|file| read_key(file))
        .collect::<Result<Vec<_>, _>>()?;
    let options = ExportOptions {
        compression: args.compression,
        keys: &keys,
    };
    let members = binary_cache::members(store, paths)?;
    let dir = cache_dir(to)?;
    Ok(binary_cache::export(
        &dir,
        store.store_dir(),
        &members,
        &options,
        context.ui,
    )?)
}

/// The directory that `file:DIR`, `file:///DIR` or a plain path names.
fn cache_dir(to: &str) -> anyhow::Result<PathBuf> {
    let path = match to.split_once(':') {
        Some(("file", rest)) => rest.strip_prefix("//").unwrap_or(rest),
        Some(_) => {
            let cache = to.to_owned();
            return Err(binary_cache::CacheError::NotWritable { cache }.into());
        }
        None => to,
    };
    std::path::absolute(path).with_context(|| format!("cannot make `{path}` absolute"))
}

/// `layerize store sign`.
pub fn sign(args: &StoreSignArgs, context: &Context) -> anyhow::Result<Outcome> {
    let (store_dir, paths) = parse_paths(&args.paths)?;
    let store = open(&store_dir, context)?;
    let key = read_key(&args.key)?;
    let paths = match args.closure {
        true => binary_cache::members(&store, &paths)?
            .into_iter()
            .map(|member| member.info.path)
            .collect(),
        false => paths,
    };
    binary_cache::sign(&store, &paths, &key)?;
    context
        .ui
        .note(&format!("{} signed by {}.", count(paths.len()), key.public().name()));
    Ok(Outcome::Done)
}

/// `layerize store key`.
pub fn key(command: &StoreKeyCommand, context: &Context) -> anyhow::Result<Outcome> {
    let key = match command {
        StoreKeyCommand::Generate { name, dir } => {
            let key = SecretKey::generate(name)?;
            let secret = dir.join(format!("{name}.secret"));
            write_new(&secret, &key.to_text(), 0o600)?;
            output::keep_private(&secret, context)?;
            write_new(
                &dir.join(format!("{name}.public")),
                &format!("{}\n", key.public()),
                0o644,
            )?;
            key
        }
        StoreKeyCommand::Public { file } => read_key(file)?,
    };
    context.ui.data(&key.public().to_string())?;
    Ok(Outcome::Done)
}

fn write_new(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let mut options = std::fs::File::options();
    let file = options.write(true).create_new(true).mode(mode).open(path);
    let mut file = match file {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(advised(
                format!("`{}` exists already", path.display()),
                "a lost key cannot be made again: choose another name, or another place with `--dir`",
            ));
        }
        other => IoContext::context(other, "create", path)?,
    };
    Ok(IoContext::context(
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()),
        "write",
        path,
    )?)
}

fn read_key(file: &Path) -> anyhow::Result<SecretKey> {
    let text = String::from_utf8(read_limited(file, KEY_BYTES_MAX)?)
        .map_err(|_| anyhow::anyhow!("`{}` is not a secret key: it is not UTF-8", file.display()))?;
    SecretKey::parse(&text).with_context(|| format!("cannot use the key in `{}`", file.display()))
}

fn count(paths: usize) -> String {
    match paths {
        1 => "1 store path".to_owned(),
        paths => format!("{paths} store paths"),
    }
}

/// Opens the store whose paths are named below `dir`.
fn open(dir: &StoreDir, context: &Context) -> anyhow::Result<Store> {
    match dir.as_str() {
        StoreDir::NIX => Ok(Store::open_nix(&context.environment.store_dir)?),
        _ => Ok(context.environment.store()?),
    }
}

/// Absolute store paths, all of one store.
fn parse_paths(texts: &[String]) -> anyhow::Result<(StoreDir, BTreeSet<StorePath>)> {
    let mut dirs = BTreeSet::new();
    let mut paths = BTreeSet::new();
    for text in texts {
        let (dir, path) = parse_path(text)?;
        dirs.insert(dir);
        paths.insert(path);
    }
    match (dirs.pop_first(), dirs.is_empty()) {
        (Some(dir), true) => Ok((dir, paths)),
        _ => Err(advised(
            "the paths are of two stores",
            "copy those of /nix/store and those of /layerize/store one after the other",
        )),
    }
}

fn parse_path(text: &str) -> anyhow::Result<(StoreDir, StorePath)> {
    for dir in [StoreDir::nix(), StoreDir::layerize()] {
        if let Some((path, "")) = dir.split(text.trim_end_matches('/')) {
            return Ok((dir, path));
        }
    }
    Err(advised(
        format!("`{text}` is not a store path"),
        "store paths look like /nix/store/HASH-NAME or /layerize/store/HASH-NAME",
    ))
}
