//! A *base* is the image that another one is laid over.
//!
//! Invariant: the base's layers keep their digests and are not read here; its config decides, by the rules below, what
//! the spec does not say. The rules, part of the numbered format:
//!
//! - `Env`, `Labels`: by name, the spec's over the base's. `PATH` is the spec's, else the base's, else the default.
//! - `Entrypoint` and `Cmd`: a spec with an `entrypoint` drops the base's `Cmd` (it was written for another program); a
//!   spec with a `cmd` alone keeps the base's `Entrypoint`.
//! - `User`, `WorkingDir`, `StopSignal`: the spec's, else the base's. `ExposedPorts`, `Volumes`: both.
//! - `Healthcheck`: the spec's, else the base's, but with an `entrypoint` of the spec's, or `healthcheck = false`, none.
//! - `Shell` and `StopTimeout`, which a spec cannot say: the base's. Everything else in the base's config is left out
//!   (`OnBuild`, `Hostname`, …).
//! - Annotations of the manifest: by key, the spec's over the base's, without `org.opencontainers.image.*` and
//!   `dev.layerize.*` of the base, which speak of the base itself.
//!   `org.opencontainers.image.base.digest` is the base's manifest, and `….base.name` its name where it has one.
//! - `history`: the base's as it is, then one entry for each layer of ours. Where the base's tells of fewer layers than
//!   there are, an entry without a word stands for each of the others; where it tells of more, nobody can say which are
//!   meant, and such an entry stands for each layer instead of it. So counts agree, as engines demand.
//! - `ExposedPorts`: a range (`8000-8010/tcp`), which config.md does not know, is each of its ports.
//! - `os`, `architecture` and `variant` must be the image's own.
//!
//! Where both have a file, the image's own is seen. What the base has is looked up only as far as the spec makes it
//! matter: accounts ([`needs_accounts`]), and whether directories at the top are links ([`needs_links`]). Where they were
//! not looked up a base is taken to be a system with a merged `/usr`, as most distributions make them now, with `/var/run`
//! and `/var/lock` leading to `/run`: what would go to `/bin` goes to `/usr/bin`, where any base's `PATH` finds it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::accounts::AccountFiles;
use super::error::ImageError;
use super::settings::{HEALTHCHECK, RESERVED, Settings};
use super::value::{Image, ImageLayer};
use super::{LISTS_SIZE_MAX, STORE_PATHS_ANNOTATION};
use crate::oci::{Annotations, Descriptor, Execution, History, MediaType, Platform, Port, try_canonical_json};
use crate::spec;

const OCI_IMAGE: &str = "org.opencontainers.image.";
const BASE_NAME: &str = "org.opencontainers.image.base.name";
const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

/// Fields of a config that a spec cannot say.
const KEPT: &[&str] = &[HEALTHCHECK, "Shell", "StopTimeout"];

/// What a base is known to have before anybody looks into its layers.
const LINKS: &[(&str, &str)] = &[("var/lock", "/run/lock"), ("var/run", "/run")];

/// Directories that are links in some system or other: those of a merged `/usr`, those of the run time, and those that
/// systems with an immutable `/usr` keep below `/var`.
const OFTEN_LINKS: &[&str] = &[
    "etc",
    "home",
    "media",
    "mnt",
    "opt",
    "root",
    "run",
    "srv",
    "tmp",
    "usr",
    "usr/bin",
    "usr/lib",
    "usr/lib64",
    "usr/local",
    "usr/sbin",
    "var",
    "var/lock",
    "var/mail",
    "var/run",
    "var/tmp",
];

/// Largest user or group ID that a container can run with: runc and Docker refuse those above 2^31 − 1 ("uids and gids
/// must be in range 0-2147483647").
pub(super) const ID_MAX: u32 = i32::MAX as u32;

/// An image to be laid under another one.
#[derive(Debug, Clone)]
pub struct Base {
    /// Its name in full, where a registry has it.
    pub name: Option<String>,
    /// The image; the blobs of its layers may lie anywhere.
    pub image: Image,
    /// Its accounts; `None` where [`needs_accounts`] says no.
    pub accounts: Option<AccountFiles>,
    /// What stands at [`looked_up`]'s paths, by path; `None` where [`needs_links`] says no.
    pub links: Option<BTreeMap<String, BaseEntry>>,
}

/// What a base has at the path of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BaseEntry {
    /// A directory.
    Directory,
    /// A symlink with its target.
    Symlink(String),
}

/// The paths at which a base may have a link for a directory, without leading slash.
pub fn looked_up() -> impl Iterator<Item = &'static str> {
    crate::root::MERGED_DIRS.iter().chain(OFTEN_LINKS).copied()
}

/// Whether it matters to a spec which directories of its base are links: it names a path below one of those that are
/// taken to be, adds accounts, or lays out packages that bring such links themselves.
pub fn needs_links(spec: &spec::Image) -> bool {
    let is_below = |path: &str| {
        let path = path.trim_start_matches('/');
        links().any(|(link, _)| path.strip_prefix(&link).is_some_and(|rest| rest.starts_with('/')))
    };
    let names = |text: &str| {
        let is_end = |c: char| !(c.is_alphanumeric() || "/._-+".contains(c));
        text.split(is_end).any(|word| word.starts_with('/') && is_below(word))
    };
    let words = spec.entrypoint.iter().chain(&spec.cmd).chain(spec.env.values());
    let words = words.chain(spec.health_command());
    let paths = spec.files.keys().chain(&spec.volumes).chain(&spec.workdir);
    // Accounts go to `/etc`, which is read for them anyway, and may be a link.
    let has_accounts = !spec.users.is_empty();
    !spec.root.is_empty()
        || has_accounts
        || words.into_iter().any(|text| names(text))
        || paths.into_iter().any(|path| is_below(path))
}

/// Whether a spec can only be understood with the accounts of its base: it declares users, or names some, or its packages may,
/// in what an init would make of their data.
pub fn needs_accounts(spec: &spec::Image) -> bool {
    let is_name = |name: &str| name != "root" && !name.bytes().all(|byte| byte.is_ascii_digit());
    let user = spec.user.iter().flat_map(|user| user.split(':'));
    let files = spec.files.values().map(|file| &file.value);
    let owners = files.flat_map(|file| file.owner.iter().chain(&file.group));
    let has_data = spec.configure.is_some() && !spec.root.is_empty();
    !spec.users.is_empty() || has_data || user.chain(owners.map(String::as_str)).any(is_name)
}

/// What a base's documents say, as far as it matters to the image over it.
#[derive(Debug, Clone)]
pub(super) struct BaseParts {
    execution: Execution,
    ports: BTreeSet<Port>,
    /// The base's layers as the image's manifest has them.
    pub layers: Vec<ImageLayer>,
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
        if actual.os() != "linux" {
            return Err(malformed(format!(
                "it is for `{actual}`, and layerize makes images for Linux"
            )));
        }
        let same = |a: &Platform, b: &Platform| (a.architecture(), a.variant()) == (b.architecture(), b.variant());
        if !same(&actual, platform) {
            return Err(ImageError::BasePlatform {
                base: actual.to_string(),
                image: platform.to_string(),
            });
        }
        let user = config.execution.user.as_deref().unwrap_or_default();
        let out_of_range = |id: &&str| id.bytes().all(|byte| byte.is_ascii_digit()) && too_large(id);
        if let Some(id) = user.split(':').find(out_of_range) {
            return Err(malformed(format!(
                "its user has the ID {id}, and Docker starts no container with one above {ID_MAX}"
            )));
        }
        let layers = base.image.layers.iter().map(layer).collect::<Result<Vec<_>, _>>()?;
        let mut annotations = base.image.manifest.annotations.clone();
        annotations.retain(|key, _| !key.starts_with(OCI_IMAGE) && !key.starts_with(RESERVED));
        annotations.insert(BASE_DIGEST.to_owned(), base.image.digest().to_string());
        annotations.extend(base.name.clone().map(|name| (BASE_NAME.to_owned(), name)));
        Ok(Self {
            ports: ports(&config.execution.exposed_ports)?,
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
        let over =
            |base: BTreeMap<String, String>, own: BTreeMap<String, String>| base.into_iter().chain(own).collect();
        let is_other = !spec.entrypoint.is_empty() || spec.healthcheck.is_some();
        let kept = |key: &&&str| !is_other || **key != HEALTHCHECK;
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
            ports: &settings.ports | &self.ports,
            volumes: &settings.volumes | &base.volumes,
            labels: over(base.labels.clone(), settings.labels),
            annotations: over(self.annotations.clone(), settings.annotations),
            stop_signal: given(settings.stop_signal, &base.stop_signal),
            rest: rest.chain(settings.rest).collect(),
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
    if made > layers {
        return vec![History::default(); layers];
    }
    history.extend((made..layers).map(|_| History::default()));
    history
}

/// The ports that a base exposes, each of a range.
fn ports(texts: &BTreeSet<String>) -> Result<BTreeSet<Port>, ImageError> {
    let ports = texts.iter().map(|text| Port::parse_range(text));
    let ports = ports
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| ImageError::BaseMalformed {
            reason: format!("{error}, and it is among its exposed ports"),
        })?;
    Ok(ports.into_iter().flatten().collect())
}

/// Whether digits are a number that no container's user or group can have.
pub(super) fn too_large(digits: &str) -> bool {
    !digits.is_empty() && digits.parse::<u32>().map_or(true, |id| id > ID_MAX)
}

/// A base's layer as the image's manifest has it: under OCI's media type, as a manifest of OCI's does not name Docker's;
/// of its annotations, with the store paths in it.
fn layer(layer: &ImageLayer) -> Result<ImageLayer, ImageError> {
    let kind = layer.descriptor.kind();
    // A layer that its vendor alone may hand out stays one, with where it is to be had.
    if !matches!(kind, MediaType::Layer(_) | MediaType::ForeignLayer(_)) {
        return Err(ImageError::BaseMalformed {
            reason: format!("a layer of it has the media type `{}`", layer.descriptor.media_type),
        });
    }
    let paths = layer.descriptor.annotations.get_key_value(STORE_PATHS_ANNOTATION);
    let paths = paths.filter(|(_, list)| list.len() <= LISTS_SIZE_MAX);
    Ok(ImageLayer {
        descriptor: Descriptor {
            annotations: paths
                .map(|(key, list)| (key.clone(), list.clone()))
                .into_iter()
                .collect(),
            urls: layer.descriptor.urls.clone(),
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
