//! A *base* is the image that another one is laid over.
//!
//! Invariant: the base's layers keep their digests and are not read here; its config decides, by the rules below, what
//! the spec does not say. The rules, part of the numbered format:
//!
//! - `Env`, `Labels`: by name, the spec's over the base's. `PATH` is the spec's, else the base's, else the default.
//! - `Entrypoint` and `Cmd`: a spec with an `entrypoint` drops the base's `Cmd` (it was written for another program); a
//!   spec with a `cmd` alone keeps the base's `Entrypoint`.
//! - `User`, `WorkingDir`, `StopSignal`: the spec's, else the base's. `ExposedPorts`, `Volumes`: both.
//! - `Healthcheck`, `Shell` and `StopTimeout`, which a spec cannot say: the base's, but with an `entrypoint` of the
//!   spec's no `Healthcheck`. Everything else in the base's config is left out (`OnBuild`, `Hostname`, …).
//! - Annotations of the manifest: by key, the spec's over the base's, without `org.opencontainers.image.*` and
//!   `dev.layerize.*` of the base, which speak of the base itself.
//!   `org.opencontainers.image.base.digest` is the base's manifest, and `….base.name` its name where it has one.
//! - `history`: the base's as it is, then one entry for each layer of ours. Where the base's does not fit its layers, an
//!   entry without a word stands for each that has none, so that counts agree.
//! - `os`, `architecture` and `variant` must be the image's own.
//!
//! A base is taken to be a system with a merged `/usr`, as all distributions make them now, with `/var/run` and
//! `/var/lock` leading to `/run`: what would go to `/bin` goes to `/usr/bin`. Nothing of it is looked up (but the accounts, where the spec asks
//! for them): where both have a file, the image's own is seen.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Image;
use super::error::ImageError;
use super::index::platform_of;
use super::settings::{RESERVED, Settings};
use crate::oci::{MediaType, Platform, try_canonical_json};
use crate::spec;

const OCI_IMAGE: &str = "org.opencontainers.image.";
const BASE_NAME: &str = "org.opencontainers.image.base.name";
const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

/// Fields of a config that a spec cannot say.
const KEPT: &[&str] = &["Healthcheck", "Shell", "StopTimeout"];

/// What a base is known to have before anybody looks into its layers.
const LINKS: &[(&str, &str)] = &[("var/lock", "/run/lock"), ("var/run", "/run")];

/// An image to be laid under another one.
#[derive(Debug, Clone)]
pub struct Base {
    /// Its name in full, where a registry has it.
    pub name: Option<String>,
    /// The image; the blobs of its layers may lie anywhere.
    pub image: Image,
    /// Its `/etc/passwd` and `/etc/group`, empty where it has none; `None` where [`needs_accounts`] says no.
    pub accounts: Option<(String, String)>,
}

/// Whether a spec can only be understood with the accounts of its base: it declares users, or names some.
pub fn needs_accounts(spec: &spec::Image) -> bool {
    let is_name = |name: &str| name != "root" && !name.bytes().all(|byte| byte.is_ascii_digit());
    let user = spec.user.iter().flat_map(|user| user.split(':'));
    let files = spec.files.values().map(|file| &file.value);
    let owners = files.flat_map(|file| file.owner.iter().chain(&file.group));
    !spec.users.is_empty() || user.chain(owners.map(String::as_str)).any(is_name)
}

/// What a base's documents say, as far as it matters to the image over it.
#[derive(Debug, Clone)]
pub(super) struct BaseParts {
    execution: Execution,
    /// The base's history, an entry for each of its layers among them.
    pub history: Vec<BaseHistory>,
    annotations: BTreeMap<String, String>,
}

/// An entry of a base's history, kept as it is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct BaseHistory {
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    empty_layer: Option<bool>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    config: Option<Execution>,
    #[serde(default)]
    history: Option<Vec<BaseHistory>>,
}

/// The keys of a Go set: what stands under them is `{}`.
type Set = Option<BTreeMap<String, Value>>;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Execution {
    user: Option<String>,
    exposed_ports: Set,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    volumes: Set,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    stop_signal: Option<String>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    layers: Vec<Layer>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    #[serde(default)]
    media_type: String,
}

impl BaseParts {
    /// Reads a base's documents and checks that an image for `platform` can stand on it.
    pub fn new(base: &Base, platform: &Platform) -> Result<Self, ImageError> {
        let malformed = |what: &str, error: serde_json::Error| ImageError::BaseMalformed {
            reason: format!("its {what} cannot be read: {error}"),
        };
        let config: Config = serde_json::from_slice(&base.image.config).map_err(|error| malformed("config", error))?;
        let manifest: Manifest =
            serde_json::from_slice(&base.image.manifest).map_err(|error| malformed("manifest", error))?;
        let actual = platform_of(&base.image).map_err(|error| ImageError::BaseMalformed {
            reason: error.to_string(),
        })?;
        if actual != *platform {
            return Err(ImageError::BasePlatform {
                base: actual.to_string(),
                image: platform.to_string(),
            });
        }
        let foreign = |layer: &&Layer| !matches!(MediaType::parse(&layer.media_type), MediaType::Layer(_));
        if let Some(layer) = manifest.layers.iter().find(foreign) {
            return Err(ImageError::BaseMalformed {
                reason: format!("a layer of it has the media type `{}`", layer.media_type),
            });
        }
        let mut annotations = manifest.annotations.unwrap_or_default();
        annotations.retain(|key, _| !key.starts_with(OCI_IMAGE) && !key.starts_with(RESERVED));
        annotations.insert(BASE_DIGEST.to_owned(), base.image.digest.to_string());
        annotations.extend(base.name.clone().map(|name| (BASE_NAME.to_owned(), name)));
        Ok(Self {
            execution: config.config.unwrap_or_default(),
            history: whole_history(config.history.unwrap_or_default(), base.image.layers.len()),
            annotations,
        })
    }

    /// The settings of an image over this base; `spec` says what of them is its own.
    pub fn merge(&self, settings: Settings, spec: &spec::Image) -> Settings {
        let base = &self.execution;
        let mut env: BTreeMap<String, String> = base.env.iter().flatten().map(|text| variable(text)).collect();
        let own_path = spec.env.contains_key("PATH") || !env.contains_key("PATH");
        let own = settings.env.into_iter();
        env.extend(own.filter(|(name, _)| name != "PATH" || own_path));
        let (entrypoint, cmd) = match (settings.entrypoint.is_empty(), settings.cmd.is_empty()) {
            (false, _) => (settings.entrypoint, settings.cmd),
            (true, false) => (base.entrypoint.clone().unwrap_or_default(), settings.cmd),
            (true, true) => (
                base.entrypoint.clone().unwrap_or_default(),
                base.cmd.clone().unwrap_or_default(),
            ),
        };
        let given =
            |own: Option<String>, base: &Option<String>| own.or_else(|| base.clone().filter(|text| !text.is_empty()));
        let both = |own: BTreeSet<String>, base: &Set| {
            let base = base.iter().flat_map(BTreeMap::keys).cloned();
            base.chain(own).collect()
        };
        let over =
            |base: BTreeMap<String, String>, own: BTreeMap<String, String>| base.into_iter().chain(own).collect();
        let has_program = !spec.entrypoint.is_empty();
        let kept = |key: &&&str| !has_program || **key != "Healthcheck";
        let rest = KEPT.iter().filter(kept).filter_map(|key| {
            let value = base.rest.get(*key).filter(|value| !value.is_null())?;
            // Numbers that no canonical document can hold are in no sane health check.
            try_canonical_json(value).ok()?;
            Some(((*key).to_owned(), value.clone()))
        });
        Settings {
            entrypoint,
            cmd,
            env,
            workdir: given(settings.workdir, &base.working_dir),
            user: given(settings.user, &base.user),
            ports: both(settings.ports, &base.exposed_ports),
            volumes: both(settings.volumes, &base.volumes),
            labels: over(base.labels.clone().unwrap_or_default(), settings.labels),
            annotations: over(self.annotations.clone(), settings.annotations),
            stop_signal: given(settings.stop_signal, &base.stop_signal),
            rest: rest.collect(),
        }
    }
}

fn variable(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (name.to_owned(), value.to_owned())
}

/// A history in which as many entries made layers as there are layers.
fn whole_history(mut history: Vec<BaseHistory>, layers: usize) -> Vec<BaseHistory> {
    let made = history.iter().filter(|entry| entry.empty_layer != Some(true)).count();
    history.extend((made..layers).map(|_| BaseHistory::default()));
    history
}

/// Symlinks that a base is taken to have: path and target.
pub(super) fn links() -> impl Iterator<Item = (String, String)> {
    let merged = crate::root::MERGED_DIRS.iter();
    let merged = merged.map(|name| ((*name).to_owned(), format!("usr/{name}")));
    merged.chain(
        LINKS
            .iter()
            .map(|(link, target)| ((*link).to_owned(), (*target).to_owned())),
    )
}
