//! *Documents*: the config and manifest of an image, from its settings and packed layers.
//!
//! Invariant: written by [`canonical_json`] from the types below and from nothing else, so that their bytes change with
//! no release of a dependency. What is empty is left out, never `null`. The shape, part of the numbered format:
//!
//! - config (OCI image-spec, config.md): `architecture`, `os`, `variant` where the platform has one, `created`,
//!   `config` with what the spec gives (`Env` sorted by name and always with `PATH`), `rootfs.diff_ids`, and one
//!   `history` entry a layer, whose `created_by` is `layerize` and whose `comment` says what the layer holds;
//! - manifest (manifest.md): schema 2, OCI's media types, the user's annotations and `dev.layerize.format`;
//! - a layer's descriptor says in `dev.layerize.store-paths` which store paths it holds and in `dev.layerize.packages`
//!   which Debian packages (`NAME=VERSION`), in both separated by single spaces. Registries refuse manifests above
//!   4 MiB, so that where all lists together are longer than [`LISTS_SIZE_MAX`], no layer has one.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Image;
use super::base::{Base, BaseHistory, BaseParts};
use super::format::Format;
use super::settings::Settings;
use crate::digest::{DiffId, Digest};
use crate::layer::Layer;
use crate::oci::{MediaType, Platform, canonical_json};

/// Annotation of the manifest: the [`Format`] by which the image was made.
pub const FORMAT_ANNOTATION: &str = "dev.layerize.format";
/// Annotation of a layer's descriptor: the store paths in it.
pub const STORE_PATHS_ANNOTATION: &str = "dev.layerize.store-paths";
/// Annotation of a layer's descriptor: the Debian packages in it.
pub const PACKAGES_ANNOTATION: &str = "dev.layerize.packages";

/// Most bytes that the lists of all layers may have together.
pub const LISTS_SIZE_MAX: usize = 512 << 10;

const AUTHOR: &str = "layerize";

/// Makes the image of a base's layers, if there is one, and packed layers over them; `packages` are each packed layer's
/// Debian packages.
pub(super) fn write(
    settings: &Settings,
    platform: &Platform,
    created: &str,
    base: Option<(&Base, &BaseParts)>,
    layers: Vec<Layer>,
    packages: &[Vec<String>],
    format: Format,
) -> Image {
    let below = base.map_or(&[][..], |(base, _)| &base.image.layers);
    let packages: Vec<Vec<String>> = below
        .iter()
        .map(|_| Vec::new())
        .chain(packages.iter().cloned())
        .collect();
    let history = base.map_or(&[][..], |(_, parts)| &parts.history);
    let layers: Vec<Layer> = below.iter().cloned().chain(layers).collect();
    let config = canonical_json(&config(settings, platform, created, (history, below.len()), &layers));
    let config_digest = Digest::of(&config);
    let mut annotations = settings.annotations.clone();
    annotations.insert(FORMAT_ANNOTATION.to_owned(), format.to_string());
    let manifest = canonical_json(&Manifest {
        schema_version: 2,
        media_type: MediaType::MANIFEST,
        config: Descriptor {
            media_type: MediaType::CONFIG,
            digest: config_digest,
            size: config.len() as u64,
            annotations: BTreeMap::new(),
        },
        layers: descriptors(&layers, &packages),
        annotations,
    });
    Image {
        digest: Digest::of(&manifest),
        manifest,
        config,
        config_digest,
        layers,
    }
}

fn descriptors(layers: &[Layer], packages: &[Vec<String>]) -> Vec<Descriptor> {
    let lists: Vec<_> = layers
        .iter()
        .enumerate()
        .map(|(index, layer)| {
            let packages = packages.get(index).map_or(&[][..], Vec::as_slice);
            [
                (STORE_PATHS_ANNOTATION, layer.store_paths.join(" ")),
                (PACKAGES_ANNOTATION, packages.join(" ")),
            ]
        })
        .collect();
    let lists_size: usize = lists.iter().flatten().map(|(_, list)| list.len()).sum();
    let annotations = |lists: [(&str, String); 2]| {
        lists
            .into_iter()
            .filter(|(_, list)| !list.is_empty() && lists_size <= LISTS_SIZE_MAX)
            .map(|(key, list)| (key.to_owned(), list))
            .collect()
    };
    layers
        .iter()
        .zip(lists)
        .map(|(layer, lists)| Descriptor {
            media_type: layer.compression.media_type(),
            digest: layer.digest,
            size: layer.size,
            annotations: annotations(lists),
        })
        .collect()
}

/// `below` is the history of a base and the number of its layers, which come first among `layers`.
fn config<'a>(
    settings: &'a Settings,
    platform: &'a Platform,
    created: &'a str,
    below: (&'a [BaseHistory], usize),
    layers: &'a [Layer],
) -> Config<'a> {
    let (history, count) = below;
    let own = layers.iter().skip(count).map(|layer| {
        HistoryEntry::Own(History {
            created,
            created_by: AUTHOR,
            comment: &layer.comment,
        })
    });
    let empty_objects =
        |keys: &'a std::collections::BTreeSet<String>| keys.iter().map(|key| (key.as_str(), BTreeMap::new())).collect();
    Config {
        architecture: platform.architecture(),
        os: platform.os(),
        variant: platform.variant(),
        created,
        config: Execution {
            user: settings.user.as_deref(),
            exposed_ports: empty_objects(&settings.ports),
            env: settings
                .env
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
            entrypoint: &settings.entrypoint,
            cmd: &settings.cmd,
            volumes: empty_objects(&settings.volumes),
            working_dir: settings.workdir.as_deref(),
            labels: &settings.labels,
            stop_signal: settings.stop_signal.as_deref(),
            rest: &settings.rest,
        },
        rootfs: RootFs {
            kind: "layers",
            diff_ids: layers.iter().map(|layer| layer.diff_id).collect(),
        },
        history: history.iter().map(HistoryEntry::Base).chain(own).collect(),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: &'static str,
    config: Descriptor,
    layers: Vec<Descriptor>,
    annotations: BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: &'static str,
    digest: Digest,
    size: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Config<'a> {
    architecture: &'a str,
    os: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<&'a str>,
    created: &'a str,
    config: Execution<'a>,
    rootfs: RootFs,
    history: Vec<HistoryEntry<'a>>,
}

/// The keys of an object whose values are all `{}`, as Go writes a set.
type Set<'a> = BTreeMap<&'a str, BTreeMap<(), ()>>;

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Execution<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    exposed_ports: Set<'a>,
    env: Vec<String>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    entrypoint: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    cmd: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    volumes: Set<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    working_dir: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_signal: Option<&'a str>,
    #[serde(flatten)]
    rest: &'a BTreeMap<String, serde_json::Value>,
}

#[derive(Serialize)]
struct RootFs {
    #[serde(rename = "type")]
    kind: &'static str,
    diff_ids: Vec<DiffId>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum HistoryEntry<'a> {
    Base(&'a BaseHistory),
    Own(History<'a>),
}

#[derive(Serialize)]
struct History<'a> {
    created: &'a str,
    created_by: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    comment: &'a str,
}
