//! The *context* of a command: what the arguments, the environment and the user's configuration say together.
//!
//! Invariant: the environment is read here and nowhere else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;

use crate::build::{BuildOptions, SandboxMode};
use crate::event::{Event, Reporter};
use crate::fetch::{AptSources, FetchConfig};
use crate::image::ImageCache;
use crate::layer::LayerCache;
use crate::store::Store;
use crate::transport::registry::RegistryConfig;
use crate::transport::registry::config::{AuthSource, FileKind, Helpers, ProxyVariable, ProxyVariables};
use crate::transport::{self, Content, Location, ReadOptions, Source};

use super::Global;
use super::auth::RegistryFlags;
use super::config::Config;
use super::error::advised;
use super::nix::LazyNix;
use super::ui::Ui;

/// Seconds since 1970 of everything that has a date, unless `SOURCE_DATE_EPOCH` says otherwise. Not 0, which
/// some tools take for "no date".
pub const DEFAULT_EPOCH: i64 = 1;

/// What every command needs.
#[derive(Clone)]
pub struct Context<'a> {
    /// Shows events.
    pub ui: &'a Ui,
    /// The user's configuration file.
    pub config: Config,
    /// Physical store.
    pub store_dir: PathBuf,
    /// Directory that `nix/store` is in.
    pub nix_root: PathBuf,
    /// What is known of the paths there, in place of Nix's database.
    pub closure_graph: Option<PathBuf>,
    /// Where downloads and apt's state are kept: shared by all stores of the user.
    pub cache_dir: PathBuf,
    /// `--file`.
    pub file: Option<PathBuf>,
    /// `SOURCE_DATE_EPOCH`, in seconds.
    pub epoch: i64,
    /// What the flags say about registries.
    pub registry_flags: RegistryFlags,
}

impl<'a> Context<'a> {
    /// Reads the environment and the user's configuration.
    pub fn new(global: &Global, ui: &'a Ui) -> anyhow::Result<Self> {
        let config = Config::load(xdg_dir("XDG_CONFIG_HOME", ".config").map(|dir| dir.join("layerize/config.toml")))?;
        let store_dir = match (&global.store, &config.store) {
            (Some(dir), _) | (None, Some(dir)) => dir.clone(),
            (None, None) => xdg_dir("XDG_DATA_HOME", ".local/share")
                .map(|dir| dir.join("layerize"))
                .ok_or_else(|| advised("no place for the store: HOME is not set", "give one with `--store DIR`"))?,
        };
        let store_dir = std::path::absolute(&store_dir)
            .with_context(|| format!("cannot make `{}` absolute", store_dir.display()))?;
        let nix_root = global.nix_store.as_ref().or(config.nix_store.as_ref());
        let nix_root = nix_root.cloned().unwrap_or_else(|| PathBuf::from("/"));
        let cache_dir =
            xdg_dir("XDG_CACHE_HOME", ".cache").map_or_else(|| store_dir.join("cache"), |dir| dir.join("layerize"));
        Ok(Self {
            ui,
            config,
            store_dir,
            nix_root,
            closure_graph: global.closure_graph.clone(),
            cache_dir,
            file: global.file.clone(),
            epoch: epoch()?,
            registry_flags: global.registries.clone(),
        })
    }

    /// Opens the store.
    pub fn store(&self) -> anyhow::Result<Store> {
        Ok(Store::open(&self.store_dir)?)
    }

    /// The Nix store, opened when it is needed.
    pub fn nix(&self) -> LazyNix {
        LazyNix::new(
            self.nix_root.clone(),
            self.closure_graph.clone(),
            self.store_dir.clone(),
        )
    }

    /// Where downloads come from.
    pub fn fetch_config(&self, offline: bool, mirrors: &[String], apt: AptSources) -> FetchConfig {
        FetchConfig {
            cache: self.cache_dir.join("fetch"),
            apt_state: self.cache_dir.join("apt"),
            apt,
            mirrors: mirrors.iter().chain(&self.config.debian_mirrors).cloned().collect(),
            snapshots: self.config.debian_snapshots.clone(),
            offline,
        }
    }

    /// How scripts are run.
    pub fn build_options(&self, flags: &super::build::BuildFlags, apt: AptSources) -> BuildOptions {
        BuildOptions {
            sandbox: if flags.sandbox == super::build::Sandbox::None {
                SandboxMode::None
            } else {
                SandboxMode::Namespaces
            },
            jobs: flags.jobs,
            cores: flags.cores,
            keep_failed: flags.keep_failed,
            fetch: self.fetch_config(flags.offline, &flags.mirror, apt),
            ..BuildOptions::default()
        }
    }

    /// Opens an image that an argument names.
    pub fn source(&self, location: &str, platform: Option<&str>) -> anyhow::Result<Box<dyn Source>> {
        let location: Location = location.parse()?;
        Ok(location.source(&ReadOptions {
            platform: platform.map(str::to_owned),
            registries: self.registries(),
            ..ReadOptions::default()
        })?)
    }

    /// How registries are reached and who the user is there: the environment, the configuration file and the flags.
    pub fn registries(&self) -> RegistryConfig {
        let flags = &self.registry_flags;
        RegistryConfig {
            plain_http: flags.plain_http.iter().cloned().collect(),
            ca_files: flags.ca_file.clone(),
            state_dir: Some(self.cache_dir.join("registries")),
            auth_files: auth_files(),
            helpers: Helpers::new(path_list("PATH")),
            certs_dirs: certs_dirs(),
            ssl_cert_file: path_variable("SSL_CERT_FILE"),
            ssl_cert_dirs: path_list("SSL_CERT_DIR"),
            proxies: proxies(),
            hosts: self.config.registries.clone(),
        }
    }

    /// Opens what an argument names, an image or with `whole` an index too; its layers are read when they are wanted.
    pub fn content(&self, location: &Location, platform: Option<&str>, whole: bool) -> anyhow::Result<Opened> {
        let source: Arc<dyn Source> = Arc::from(location.source(&ReadOptions {
            platform: platform.map(str::to_owned),
            whole,
            registries: self.registries(),
            ..ReadOptions::default()
        })?);
        for text in source.contradictions() {
            self.ui.report(Event::Warning { text });
        }
        Ok(Opened {
            content: transport::open(&source)?,
            names: source.names().to_vec(),
            synthesized: source.synthesized(),
        })
    }

    /// Seconds since 1970 of an act that must be dated: SOURCE_DATE_EPOCH where it is set, else what the clock shows.
    #[expect(
        clippy::disallowed_methods,
        reason = "a statement about an act names its time; no image does"
    )]
    pub fn now(&self) -> anyhow::Result<i64> {
        if is_set("SOURCE_DATE_EPOCH") {
            return Ok(self.epoch);
        }
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Ok(i64::try_from(
            since.context("the clock shows a time before 1970")?.as_secs(),
        )?)
    }

    /// Where packed layers are kept.
    pub fn layer_cache(&self) -> anyhow::Result<LayerCache> {
        Ok(LayerCache::open(&self.store_dir.join("cache/layers"))?)
    }

    /// Deletes the packed layers used longest ago where there are more bytes than may be, if any was added.
    pub fn trim_layer_cache(&self) -> anyhow::Result<()> {
        if self.ui.layers_packed() > 0 {
            self.layer_cache()?.trim(self.config.cache_max_size)?;
        }
        Ok(())
    }

    /// Where it is kept which layers made up an image.
    pub fn image_cache(&self) -> anyhow::Result<ImageCache> {
        Ok(ImageCache::open(&self.store_dir.join("cache/images"))?)
    }
}

/// What [`Context::content`] found.
pub struct Opened {
    /// An image or an index.
    pub content: Content,
    /// Its names there.
    pub names: Vec<String>,
    /// Whether the place has no manifest, so that one was made up.
    pub synthesized: bool,
}

/// Whether an environment variable is set and not empty.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

/// An environment variable as a path, if it is set and not empty.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub fn path_variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

/// An environment variable as text, if it is set, not empty and UTF-8.
pub fn text_variable(name: &str) -> Option<String> {
    path_variable(name)?.into_os_string().into_string().ok()
}

/// The whole environment, for a program that the user runs as their own; what is not UTF-8 is left out.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub fn all_variables() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// A directory of the XDG base directory specification: the variable if it is absolute, else below the home directory.
fn xdg_dir(variable: &str, below_home: &str) -> Option<PathBuf> {
    path_variable(variable)
        .filter(|dir| dir.is_absolute())
        .or_else(|| Some(path_variable("HOME")?.join(below_home)))
}

/// The files that podman and docker keep credentials in, in podman's order (`transport::registry::config` has it).
fn auth_files() -> Vec<AuthSource> {
    let source = |path: PathBuf, kind, origin| AuthSource { path, kind, origin };
    let docker = path_variable("DOCKER_CONFIG").map(|dir| dir.join("config.json"));
    let home = path_variable("HOME");
    let first = match (path_variable("REGISTRY_AUTH_FILE"), &docker) {
        (Some(path), _) => source(path, FileKind::Containers, "REGISTRY_AUTH_FILE"),
        (None, Some(path)) => source(path.clone(), FileKind::Docker, "DOCKER_CONFIG"),
        (None, None) => match path_variable("XDG_RUNTIME_DIR") {
            Some(dir) => source(
                dir.join("containers/auth.json"),
                FileKind::Containers,
                "XDG_RUNTIME_DIR",
            ),
            None => {
                let path = format!("/run/containers/{}/auth.json", rustix::process::getuid().as_raw());
                source(path.into(), FileKind::Containers, "the user's run directory")
            }
        },
    };
    let mut sources = vec![first];
    if let Some(dir) = xdg_dir("XDG_CONFIG_HOME", ".config") {
        sources.push(source(
            dir.join("containers/auth.json"),
            FileKind::Containers,
            "XDG_CONFIG_HOME",
        ));
    }
    match (docker, &home) {
        (Some(path), _) => sources.push(source(path, FileKind::Docker, "DOCKER_CONFIG")),
        (None, Some(home)) => sources.push(source(home.join(".docker/config.json"), FileKind::Docker, "HOME")),
        (None, None) => {}
    }
    if let Some(home) = home {
        sources.push(source(home.join(".dockercfg"), FileKind::Legacy, "HOME"));
    }
    // `DOCKER_CONFIG` is asked for twice by these rules.
    let mut seen = Vec::new();
    sources.retain(|source| {
        let is_new = !seen.contains(&source.path);
        seen.push(source.path.clone());
        is_new
    });
    sources
}

/// Directories of certificates by host: the user's before the machine's, podman's before docker's.
fn certs_dirs() -> Vec<PathBuf> {
    let config = xdg_dir("XDG_CONFIG_HOME", ".config");
    let below = |dir: &str| config.iter().map(|config| config.join(dir)).collect::<Vec<_>>();
    [
        below("containers/certs.d"),
        below("docker/certs.d"),
        vec!["/etc/containers/certs.d".into(), "/etc/docker/certs.d".into()],
    ]
    .concat()
}

/// The proxies that the environment names, in upper case before lower case.
fn proxies() -> ProxyVariables {
    let first = |names: [&'static str; 2]| {
        let found = names.into_iter().find_map(|name| Some((name, text_variable(name)?)));
        found.map(|(name, value)| ProxyVariable { name, value })
    };
    let no_proxy = first(["NO_PROXY", "no_proxy"]).map(|variable| variable.value);
    ProxyVariables {
        https: first(["HTTPS_PROXY", "https_proxy"]),
        http: first(["HTTP_PROXY", "http_proxy"]),
        all: first(["ALL_PROXY", "all_proxy"]),
        no_proxy: no_proxy.unwrap_or_default(),
    }
}

/// The directories in an environment variable that lists them.
fn path_list(name: &str) -> Vec<PathBuf> {
    let list = path_variable(name).unwrap_or_default();
    let dirs = std::env::split_paths(list.as_os_str());
    dirs.filter(|dir| !dir.as_os_str().is_empty()).collect()
}

fn epoch() -> anyhow::Result<i64> {
    match text_variable("SOURCE_DATE_EPOCH") {
        None => Ok(DEFAULT_EPOCH),
        Some(text) => text.parse().ok().filter(|&seconds: &i64| seconds >= 0).ok_or_else(|| {
            advised(
                format!("SOURCE_DATE_EPOCH is `{text}`, which is no number of seconds"),
                "unset it, or set it to seconds since 1970, as `git log -1 --format=%ct` prints them",
            )
        }),
    }
}

/// `path` relative to the current directory where it is below it: how people would type it.
pub fn shown(path: &Path) -> PathBuf {
    match std::env::current_dir() {
        Ok(here) => path
            .strip_prefix(&here)
            .map_or_else(|_| path.to_owned(), Path::to_owned),
        Err(_) => path.to_owned(),
    }
}
