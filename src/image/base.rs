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

use super::error::ImageError;
use super::settings::{RESERVED, Settings};
use super::value::{Image, Layer};
use super::{LISTS_SIZE_MAX, STORE_PATHS_ANNOTATION};
use crate::oci::{Annotations, Descriptor, Execution, History, MediaType, Platform, try_canonical_json};
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
    /// The base's layers as the image's manifest has them.
    pub layers: Vec<Layer>,
    /// The base's history, an entry for each of its layers among them.
    pub history: Vec<History>,
    annotations: Annotations,
}

impl BaseParts {
    /// Checks that an image for `platform` can stand on a base.
    pub fn new(base: &Base, platform: &Platform) -> Result<Self, ImageError> {
        let malformed = |reason: String| ImageError::BaseMalformed { reason };
        let Some(config) = base.image.config.image() else {
            let kind = &base.image.manifest.config.media_type;
            return Err(malformed(format!("it is an artifact (`{kind}`), not an image")));
        };
        let actual = config
            .platform()
            .ok_or_else(|| malformed("its config does not say which platform it is for".to_owned()))?;
        if actual != *platform {
            return Err(ImageError::BasePlatform {
                base: actual.to_string(),
                image: platform.to_string(),
            });
        }
        let layers = base.image.layers.iter().map(layer).collect::<Result<Vec<_>, _>>()?;
        let mut annotations = base.image.manifest.annotations.clone();
        annotations.retain(|key, _| !key.starts_with(OCI_IMAGE) && !key.starts_with(RESERVED));
        annotations.insert(BASE_DIGEST.to_owned(), base.image.digest().to_string());
        annotations.extend(base.name.clone().map(|name| (BASE_NAME.to_owned(), name)));
        Ok(Self {
            execution: config.execution.clone(),
            history: whole_history(config.history.clone(), layers.len()),
            layers,
            annotations,
        })
    }

    /// The settings of an image over this base; `spec` says what of them is its own.
    pub fn merge(&self, settings: Settings, spec: &spec::Image) -> Settings {
        let base = &self.execution;
        let mut env: BTreeMap<String, String> = base.env.iter().map(|text| variable(text)).collect();
        let own_path = spec.env.contains_key("PATH") || !env.contains_key("PATH");
        let own = settings.env.into_iter();
        env.extend(own.filter(|(name, _)| name != "PATH" || own_path));
        let (entrypoint, cmd) = match (settings.entrypoint.is_empty(), settings.cmd.is_empty()) {
            (false, _) => (settings.entrypoint, settings.cmd),
            (true, false) => (base.entrypoint.clone(), settings.cmd),
            (true, true) => (base.entrypoint.clone(), base.cmd.clone()),
        };
        let given =
            |own: Option<String>, base: &Option<String>| own.or_else(|| base.clone().filter(|text| !text.is_empty()));
        let both = |own: BTreeSet<String>, base: &BTreeSet<String>| base.iter().cloned().chain(own).collect();
        let over =
            |base: BTreeMap<String, String>, own: BTreeMap<String, String>| base.into_iter().chain(own).collect();
        let has_program = !spec.entrypoint.is_empty();
        let kept = |key: &&&str| !has_program || **key != "Healthcheck";
        let rest = KEPT.iter().filter(kept).filter_map(|key| {
            let value = base.others.get(*key).filter(|value| !value.is_null())?;
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
            labels: over(base.labels.clone(), settings.labels),
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
fn whole_history(mut history: Vec<History>, layers: usize) -> Vec<History> {
    let made = history.iter().filter(|entry| !entry.is_empty_layer()).count();
    history.extend((made..layers).map(|_| History::default()));
    history
}

/// A base's layer as the image's manifest has it: under OCI's media type, as a manifest of OCI's does not name Docker's;
/// of its annotations, with the store paths in it.
fn layer(layer: &Layer) -> Result<Layer, ImageError> {
    let kind = layer.descriptor.kind();
    if !matches!(kind, MediaType::Layer(_)) {
        return Err(ImageError::BaseMalformed {
            reason: format!("a layer of it has the media type `{}`", layer.descriptor.media_type),
        });
    }
    let paths = layer.descriptor.annotations.get_key_value(STORE_PATHS_ANNOTATION);
    let paths = paths.filter(|(_, list)| list.len() <= LISTS_SIZE_MAX);
    Ok(Layer {
        descriptor: Descriptor {
            annotations: paths
                .map(|(key, list)| (key.clone(), list.clone()))
                .into_iter()
                .collect(),
            ..Descriptor::new(kind.to_string(), layer.digest(), layer.size())
        },
        ..layer.clone()
    })
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
