//! The *context* of a command: what the arguments, the environment and the user's configuration say together.
//!
//! Invariant: the environment is read here and nowhere else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::build::{BuildOptions, SandboxMode};
use crate::fetch::{AptSources, FetchConfig};
use crate::image::ImageCache;
use crate::layer::LayerCache;
use crate::store::Store;
use crate::transport::{Location, ReadOptions, Source};

use super::Global;
use super::config::Config;
use super::error::advised;
use super::ui::Ui;

/// Seconds since 1970 of everything that has a date, unless `SOURCE_DATE_EPOCH` says otherwise. Not 0, which
/// some tools take for "no date".
pub const DEFAULT_EPOCH: i64 = 1;

/// What every command needs.
pub struct Context<'a> {
    /// Shows events.
    pub ui: &'a Ui,
    /// The user's configuration file.
    pub config: Config,
    /// Physical store.
    pub store_dir: PathBuf,
    /// Where downloads and apt's state are kept: shared by all stores of the user.
    pub cache_dir: PathBuf,
    /// `--file`.
    pub file: Option<PathBuf>,
    /// `SOURCE_DATE_EPOCH`, in seconds.
    pub epoch: i64,
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
        let cache_dir =
            xdg_dir("XDG_CACHE_HOME", ".cache").map_or_else(|| store_dir.join("cache"), |dir| dir.join("layerize"));
        Ok(Self {
            ui,
            config,
            store_dir,
            cache_dir,
            file: global.file.clone(),
            epoch: epoch()?,
        })
    }

    /// Opens the store.
    pub fn store(&self) -> anyhow::Result<Store> {
        Ok(Store::open(&self.store_dir)?)
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
            ..ReadOptions::default()
        })?)
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
