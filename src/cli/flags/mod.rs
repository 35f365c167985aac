//! The *flags* that several commands share, as clap reads them.
//!
//! Invariant: each struct is turned into the engine's own options in one place, which names every field: a flag that is
//! added cannot be forgotten on the way.

mod attest;
mod platform;
mod transfer;

pub use attest::{AttestFlags, SbomForm};
pub use platform::PlatformOrAll;
pub use transfer::TransferFlags;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};

use crate::binary_cache::NixPublicKey;
use crate::build::Bounds;
use crate::oci::{Compression, LayerLimit, LayerStrategy, Platform, Port, PortError, TarProfile};
use crate::project::{
    BuilderChoice, CacheOptions, Description, ImageOptions, KeepExtent, PlatformChoice, WorkOptions, permissions,
};
use crate::spec::parse_size;
use crate::transport::registry::ConfigError;
use crate::transport::registry::config::check_host;

use crate::cli::error::{self, advised};
use crate::walls::Walls;

/// Options of every command.
#[derive(Debug, Args)]
pub struct Global {
    /// Physical store [default: $XDG_DATA_HOME/layerize]
    #[arg(long, global = true, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// Root directory of the Nix store, which contains `nix/store` [default: /]
    #[arg(long, global = true, value_name = "DIR")]
    pub nix_store: Option<PathBuf>,
    /// Closure graph to use in place of Nix's database: JSON of `nix path-info --json --recursive` or of
    /// exportReferencesGraph
    #[arg(long, global = true, value_name = "FILE")]
    pub closure_graph: Option<PathBuf>,
    /// The spec, or its directory; `shell` and `env` take several [default: the nearest layerize.toml]
    #[arg(short, long, global = true, value_name = "PATH")]
    pub file: Vec<PathBuf>,
    /// Print nothing but warnings and errors to standard error
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Print every line that builds write, and every file that differs
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// Print JSON to standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// When to use colours
    #[arg(long, global = true, value_enum, default_value = "auto", value_name = "WHEN")]
    pub color: Color,
    #[command(flatten)]
    pub registries: RegistryFlags,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

/// Flags of every command that speaks to a registry or downloads.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Network")]
pub struct RegistryFlags {
    /// Trust this authority's certificate too (PEM); repeatable
    #[arg(long, global = true, value_name = "FILE")]
    pub ca_file: Vec<PathBuf>,
    /// Speak to this registry without TLS; repeatable
    #[arg(long, global = true, value_name = "HOST[:PORT]", value_parser = host)]
    pub plain_http: Vec<String>,
    /// Let this host redirect to addresses of this machine and its network, as `private-network = true` does in the
    /// configuration's `[registries."HOST"]`; repeatable
    #[arg(long, global = true, value_name = "HOST[:PORT]", value_parser = host)]
    pub private_network: Vec<String>,
}

fn host(text: &str) -> Result<String, ConfigError> {
    check_host(text).map(|()| text.to_owned())
}

/// Options of every command that builds.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Build options")]
pub struct BuildFlags {
    /// Refuse a lock that is not current
    #[arg(long)]
    pub locked: bool,
    /// Do not use the network: use only what was fetched before
    #[arg(long)]
    pub offline: bool,
    /// Place that keeps inputs by digest, asked before all others: docker://NAME, oci:DIR or a directory; repeatable
    #[arg(long, value_name = "PLACE")]
    pub inputs_from: Vec<String>,
    /// Directory, file: or http: address with Debian packages, tried before the machine's apt; repeatable
    #[arg(long, value_name = "MIRROR")]
    pub mirror: Vec<String>,
    /// What scripts run behind: auto, namespaces, chroot, traced or none; auto is the strongest that can be had [default: auto]
    #[arg(long, value_parser = parse_sandbox, value_name = "WALLS")]
    pub sandbox: Option<SandboxFlag>,
    /// Fail where scripts would run behind less: namespaces, chroot, traced, builder or none; machine and spec may require more with
    /// `[build] require` [default: traced]
    #[arg(long, value_parser = value::<Walls>, value_name = "WALLS")]
    pub require_sandbox: Option<Walls>,
    /// Builder that runs scripts: grpc://HOST:PORT[/INSTANCE] or grpcs://… of the Remote Execution API, ssh://HOST with layerize, or
    /// a name of the configuration
    #[arg(long, value_name = "BUILDER", conflicts_with = "offline")]
    pub builder: Option<String>,
    /// Run scripts here that the builder does not run
    #[arg(long)]
    pub builder_fallback: bool,
    /// Run scripts here, whatever the configuration says
    #[arg(long, conflicts_with_all = ["builder", "builder_fallback"])]
    pub no_builder: bool,
    /// How many steps run at once [default: the number of cores; at a builder 200, over ssh 4]
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    pub jobs: usize,
    /// Cores that each script may use [default: all]
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    pub cores: usize,
    /// Most memory that each script may use, such as 2GiB [default: `[build] max-memory` of the configuration or the spec]
    #[arg(long, value_parser = parse_memory, value_name = "SIZE")]
    pub max_memory: Option<u64>,
    /// Most processes and threads of each script [default: `[build] max-processes`, as above]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..), value_name = "N")]
    pub max_processes: Option<u64>,
    /// Shared cache asked before anything is built: docker://HOST/NAME, oci:DIR, or a binary cache file:DIR or https://…;
    /// repeatable, before those of spec and machine
    #[arg(long, value_name = "PLACE")]
    pub cache_from: Vec<String>,
    /// Shared cache that what was built goes to: docker://HOST/NAME, oci:DIR or file:DIR; repeatable, besides those of spec and
    /// machine
    #[arg(long, value_name = "PLACE")]
    pub cache_to: Vec<String>,
    /// Public key whose entries in shared caches are believed, NAME:BASE64; repeatable
    #[arg(long, value_name = "KEY", value_parser = value::<NixPublicKey>)]
    pub cache_trusted_key: Vec<NixPublicKey>,
    /// File of the secret key that signs what goes to shared caches [default: the configuration's]
    #[arg(long, value_name = "FILE")]
    pub cache_sign_key: Option<PathBuf>,
    /// Believe entries of shared caches that nobody signed
    #[arg(long)]
    pub cache_unsigned: bool,
    /// Neither read nor write shared caches
    #[arg(long, conflicts_with_all = ["cache_from", "cache_to"])]
    pub no_shared_cache: bool,
    /// Keep the build directory of a script that fails
    #[arg(long)]
    pub keep_failed: bool,
    /// Run scripts without what earlier runs left in the `cache` of their packages
    #[arg(long)]
    pub no_build_cache: bool,
}

fn parse_memory(text: &str) -> Result<u64, String> {
    let bytes = parse_size(text).filter(|&bytes| bytes > 0);
    bytes.ok_or_else(|| "write a number with its unit, such as 512MiB or 8GB".to_owned())
}

/// What is kept beside an image that is written to a layout or a registry.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Inputs options")]
pub struct InputsFlags {
    /// Keep what the image was built from beside it: every file from outside, the spec and the lock; with `=all` also local files
    /// [push: default]
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "outside", value_name = "all")]
    pub inputs: Option<InputsExtent>,
    /// Keep no inputs beside the image
    #[arg(long, conflicts_with = "inputs")]
    pub no_inputs: bool,
}

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InputsExtent {
    /// Files from outside, spec and lock
    Outside,
    /// Local files too
    All,
}

impl InputsFlags {
    /// What is to be kept, by a command that keeps `default` unless it is told otherwise.
    pub fn extent(&self, default: Option<KeepExtent>) -> Option<KeepExtent> {
        match (self.inputs, self.no_inputs) {
            (_, true) => None,
            (None, _) => default,
            (Some(InputsExtent::Outside), _) => Some(KeepExtent::Outside),
            (Some(InputsExtent::All), _) => Some(KeepExtent::All),
        }
    }
}

/// What scripts run behind; `None`: the strongest walls that can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SandboxFlag(Option<Walls>);

fn parse_sandbox(text: &str) -> Result<SandboxFlag, String> {
    match text {
        "auto" => Ok(SandboxFlag(None)),
        text => match value::<Walls>(text)? {
            walls if walls.is_of_this_machine() => Ok(SandboxFlag(Some(walls))),
            walls => Err(format!(
                "no sandbox of this machine is `{walls}`: write `namespaces`, `chroot`, `traced` or `none`\nhelp: `--builder` runs \
                 scripts at a builder"
            )),
        },
    }
}

impl BuildFlags {
    /// The same for some platforms of images that are for several.
    pub fn options_for(&self, platforms: PlatformChoice) -> WorkOptions {
        WorkOptions {
            platforms,
            ..self.options()
        }
    }

    /// The flags as the options they stand for.
    pub fn options(&self) -> WorkOptions {
        let Self {
            locked,
            offline,
            inputs_from,
            mirror,
            sandbox,
            builder,
            builder_fallback,
            no_builder,
            require_sandbox,
            jobs,
            cores,
            max_memory,
            max_processes,
            cache_from,
            cache_to,
            cache_trusted_key,
            cache_sign_key,
            cache_unsigned,
            no_shared_cache,
            keep_failed,
            no_build_cache,
        } = self.clone();
        WorkOptions {
            locked,
            offline,
            inputs_from,
            places: Vec::new(),
            mirrors: mirror,
            sandbox: sandbox.and_then(|SandboxFlag(walls)| walls),
            require: require_sandbox,
            builder: BuilderChoice {
                at: builder,
                falls_back: builder_fallback,
                none: no_builder,
            },
            jobs,
            cores,
            platforms: PlatformChoice::All,
            bounds: Bounds {
                memory: max_memory,
                processes: max_processes,
            },
            cache: CacheOptions {
                from: cache_from,
                to: cache_to,
                trusted_keys: cache_trusted_key,
                sign_key: cache_sign_key,
                unsigned: cache_unsigned,
                read_only: false,
                none: no_shared_cache,
            },
            keep_failed,
            no_build_cache,
        }
    }
}

/// Options that make up an image of store paths, or change one of the spec.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Image options")]
pub struct ImageFlags {
    /// Name of an image of store paths, with its tag if it has one [default: the first path's name]
    #[arg(long, value_name = "NAME[:TAG]")]
    pub name: Option<String>,
    /// Program of an image of store paths; repeat for its fixed arguments
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub entrypoint: Vec<String>,
    /// Default argument of an image of store paths; repeatable
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    pub cmd: Vec<String>,
    /// Variable of an image of store paths; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    pub env: Vec<String>,
    /// Working directory of an image of store paths
    #[arg(long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// User of an image of store paths
    #[arg(long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Label of an image of store paths; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// Port of an image of store paths; repeatable
    #[arg(long, value_name = "PORT[/PROTOCOL]", value_parser = value::<Ports>)]
    pub port: Vec<Ports>,
    /// Base image of an image of store paths: docker://NAME, oci:DIR:TAG, docker-archive:FILE, …
    #[arg(long, value_name = "IMAGE")]
    pub base: Option<String>,
    /// Platforms to make of an image of the spec [default: all that it is for], or platform of an image of store paths
    /// [default: linux/amd64]; several, separated by commas, make an index
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',', value_parser = value::<Platform>)]
    pub platform: Vec<Platform>,
    /// gzip[:LEVEL], zstd[:LEVEL] or none [default: the spec's, else gzip]
    #[arg(long, value_name = "HOW", value_parser = value::<Compression>)]
    pub compression: Option<Compression>,
    /// Maximum number of layers [default: the spec's, else 100]
    #[arg(long, value_name = "N", value_parser = value::<LayerLimit>)]
    pub max_layers: Option<LayerLimit>,
    /// Allow more layers than Docker loads
    #[arg(long)]
    pub beyond_docker: bool,
    /// How store paths are grouped into layers [default: the spec's, else churn]
    #[arg(long, value_name = "NAME", value_parser = value::<LayerStrategy>)]
    pub strategy: Option<LayerStrategy>,
    /// Take the layers from a plan file: one of `layerize plan --json`, or written by hand
    #[arg(long, value_name = "FILE", conflicts_with = "previous")]
    pub plan: Option<PathBuf>,
    /// Start from the release before, a plan file or an image, and keep what did not change as it is
    #[arg(long, value_name = "PLAN|IMAGE")]
    pub previous: Option<String>,
    /// Include a Nix database of the image's /nix/store paths, so that Nix works in it
    #[arg(long)]
    pub nix_db: bool,
    /// Match another tool's tar bytes: layerize, nix2container or dockertools [default: the spec's, else layerize]
    #[arg(long, value_name = "TOOL", value_parser = value::<TarProfile>)]
    pub tar_profile: Option<TarProfile>,
    /// Set the mode of a path in the image, or of every path that a pattern of *, ** and ? matches; repeatable
    #[arg(long, value_name = "PATH=MODE")]
    pub chmod: Vec<String>,
    /// Set the owner of a path in the image, or of every path that a pattern matches; repeatable
    #[arg(long, value_name = "PATH=OWNER[:GROUP]")]
    pub chown: Vec<String>,
    /// Write each layer as a single gzip member, for consumers that read only the first
    #[arg(long)]
    pub single_member: bool,
    /// Number of threads that pack [default: the number of cores]
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    pub pack_threads: usize,
}

impl ImageFlags {
    /// The flags as the options they stand for.
    pub fn options(&self) -> anyhow::Result<ImageOptions> {
        let Self {
            name,
            entrypoint,
            cmd,
            env,
            workdir,
            user,
            label,
            port,
            base,
            platform,
            compression,
            max_layers,
            beyond_docker,
            strategy,
            plan,
            previous,
            nix_db,
            tar_profile,
            chmod,
            chown,
            single_member,
            pack_threads,
        } = self.clone();
        Ok(ImageOptions {
            described: Description {
                name,
                entrypoint,
                cmd,
                env: pairs("--env", &env)?,
                workdir,
                user,
                labels: pairs("--label", &label)?,
                ports: port.into_iter().flat_map(|Ports(ports)| ports).collect(),
                base,
            },
            platforms: platform,
            compression,
            max_layers,
            beyond_docker,
            strategy,
            plan,
            previous,
            nix_db,
            tar_profile,
            permissions: permissions(&chmod, &chown)?,
            single_member,
            pack_threads,
        })
    }

    /// Which platforms are made of images of the spec that are for several: those that are named, else `other`.
    pub fn platforms(&self, other: PlatformChoice) -> PlatformChoice {
        match self.platform.is_empty() {
            true => other,
            false => PlatformChoice::These(self.platform.clone()),
        }
    }

    /// Which platform of a finished image, or for an image of store paths.
    pub fn platform(&self) -> anyhow::Result<Option<&Platform>> {
        match &self.platform[..] {
            [] => Ok(None),
            [platform] => Ok(Some(platform)),
            several => Err(advised(
                format!(
                    "`--platform` names {} platforms, and one image is for one",
                    several.len()
                ),
                "name one of them",
            )),
        }
    }
}

/// The ports of an argument: `80`, `53/udp`, `8000-8010/tcp`.
#[derive(Debug, Clone)]
pub struct Ports(Vec<Port>);

impl FromStr for Ports {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        Port::parse_range(text).map(Self)
    }
}

/// Parses an argument. What its error advises is told with it, as it is where the value stands in a spec.
pub fn value<T: FromStr<Err: std::error::Error + 'static>>(text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|error: T::Err| match error::help(&error) {
        Some(help) => format!("{error}\nhelp: {help}"),
        None => error.to_string(),
    })
}

/// `KEY=VALUE` arguments.
pub fn pairs(flag: &str, arguments: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    arguments
        .iter()
        .map(|argument| match argument.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(advised(
                format!("`{flag} {argument}` has no value"),
                format!("write `{flag} KEY=VALUE`"),
            )),
        })
        .collect()
}
