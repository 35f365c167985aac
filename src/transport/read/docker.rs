//! A *docker archive* without an OCI layout: `manifest.json` names a config and layers, and no manifest exists.
//!
//! Invariant: the manifest that is made up is a function of the config and the layers' bytes alone (Docker schema 2,
//! canonical JSON), so equal archives give equal digests; a plain layer's digest is its diffID, which its config
//! claims and reading verifies.

use std::collections::BTreeMap;
use std::io::{self, Read};

use serde::Deserialize;
use serde_json::json;

use super::super::TransportError;
use super::super::decompress::Packing;
use super::super::document::{self, CONFIG_MAX, ConfigLinks, DOCKER_MANIFEST, MANIFEST_MAX, Manifest};
use super::super::names;
use super::{Container, StoredImage};
use crate::digest::{DiffId, Digest, Hasher, VerifyError};
use crate::oci::canonical_json;

const CONFIG_TYPE: &str = "application/vnd.docker.container.image.v1+json";
const LAYER_TYPE: &str = "application/vnd.docker.image.rootfs.diff.tar";
const LAYERS_MAX: usize = 10_000;

/// An element of `manifest.json` (Moby image specification v1.2, "Combined Image JSON + Filesystem Changeset Format").
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

pub(super) fn open(container: Container, place: &str, name: Option<&str>) -> Result<StoredImage, TransportError> {
    let items = items(&container, place)?;
    let item = choose(items, place, name)?;
    let config = container
        .read(&item.config, CONFIG_MAX)?
        .ok_or_else(|| TransportError::Missing {
            place: place.to_owned(),
            what: format!("the config `{}`", item.config),
        })?;
    let config_digest = Digest::of(&config);
    check_config_name(&item.config, config_digest, place)?;
    let links: ConfigLinks = document::parse(&config, place, format!("the config `{}`", item.config))?;
    let diff_ids = links.rootfs.diff_ids.unwrap_or_default();
    let paths = item.layers.unwrap_or_default();
    if diff_ids.len() != paths.len() || paths.len() > LAYERS_MAX {
        return Err(TransportError::Malformed {
            place: place.to_owned(),
            what: "`manifest.json`".to_owned(),
            reason: format!("it names {} layers, and its config {}", paths.len(), diff_ids.len()),
        });
    }
    let mut elsewhere = BTreeMap::from([(config_digest, item.config.clone())]);
    let mut layers = Vec::new();
    for (path, diff_id) in paths.iter().zip(&diff_ids) {
        let (digest, size, packing) = layer(&container, place, path, diff_id)?;
        let suffix = if packing == Packing::None {
            String::new()
        } else {
            format!(".{}", packing.name())
        };
        layers.push(json!({ "mediaType": format!("{LAYER_TYPE}{suffix}"), "digest": digest, "size": size }));
        elsewhere.insert(digest, path.clone());
    }
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": { "mediaType": CONFIG_TYPE, "digest": config_digest, "size": config.len() },
        "layers": layers,
    });
    let mut names = item.repo_tags.unwrap_or_default();
    names.sort();
    Ok(StoredImage {
        place: place.to_owned(),
        container,
        index: None,
        manifest: canonical_json(&manifest),
        media_type: DOCKER_MANIFEST.to_owned(),
        names,
        synthesized: true,
        elsewhere,
        contradictions: Vec::new(),
    })
}

/// What `manifest.json` of an archive that is both says against the manifest of its OCI layout. Docker follows the
/// one, podman the other: an archive with two faces must be found out. Where the layout holds more images than this
/// one (`alone` is false), `manifest.json` may leave it out, as Docker does with platforms other than its own.
pub(super) fn contradictions(
    container: &Container,
    place: &str,
    manifest: &[u8],
    alone: bool,
) -> Result<Vec<String>, TransportError> {
    if !container.has("manifest.json") {
        return Ok(Vec::new());
    }
    let manifest: Manifest = document::parse(manifest, place, "the manifest")?;
    let config = &manifest.config.digest;
    let Some(item) = items(container, place)?
        .into_iter()
        .find(|item| is_blob(&item.config, config))
    else {
        let text = format!("`manifest.json` does not name the config `{config}`");
        return Ok(alone.then_some(text).into_iter().collect());
    };
    let layers = item.layers.unwrap_or_default();
    let same = layers.len() == manifest.layers.len()
        && layers
            .iter()
            .zip(&manifest.layers)
            .all(|(name, layer)| is_blob(name, &layer.digest));
    let text = "`manifest.json` names other layers than the manifest of the layout";
    Ok((!same).then(|| text.to_owned()).into_iter().collect())
}

/// Whether a file is named by this digest: `blobs/sha256/<hex>`, `<hex>.json`, `<hex>.tar.gz`.
fn is_blob(name: &str, digest: &Digest) -> bool {
    let base = name.rsplit('/').next().unwrap_or(name);
    base.split('.').next() == Some(&digest.hex())
}

fn items(container: &Container, place: &str) -> Result<Vec<Item>, TransportError> {
    let bytes = container.read("manifest.json", MANIFEST_MAX)?.unwrap_or_default();
    document::parse(&bytes, place, "`manifest.json`")
}

fn choose(mut items: Vec<Item>, place: &str, name: Option<&str>) -> Result<Item, TransportError> {
    let choices: Vec<String> = items
        .iter()
        .flat_map(|item| item.repo_tags.clone().unwrap_or_default())
        .collect();
    let number = name
        .and_then(|name| name.strip_prefix('@'))
        .and_then(|number| number.parse::<usize>().ok());
    let found = match (name, number) {
        (None, _) if items.is_empty() => {
            let reason = "its `manifest.json` lists no image".to_owned();
            return Err(TransportError::NotAnImage {
                place: place.to_owned(),
                reason,
            });
        }
        (None, _) => (items.len() == 1).then_some(0),
        (Some(_), Some(number)) => (number < items.len()).then_some(number),
        (Some(name), None) => {
            let named = |item: &Item| item.repo_tags.iter().flatten().any(|tag| names::same(tag, name));
            items.iter().position(named)
        }
    };
    found
        .map(|index| items.swap_remove(index))
        .ok_or_else(|| TransportError::Choose {
            place: place.to_owned(),
            asked: name.map(str::to_owned),
            choices,
        })
}

/// A config is named by its digest, which is the image ID: `<hex>.json` or `blobs/sha256/<hex>`.
fn check_config_name(name: &str, actual: Digest, place: &str) -> Result<(), TransportError> {
    let stem = name.rsplit('/').next().unwrap_or(name).trim_end_matches(".json");
    match Digest::from_hex(stem) {
        Ok(expected) if expected != actual => Err(TransportError::Read {
            place: place.to_owned(),
            what: format!("the config `{name}`"),
            source: io::Error::new(io::ErrorKind::InvalidData, VerifyError::digest(expected, actual)),
        }),
        _ => Ok(()),
    }
}

/// Digest, size and packing of a layer; only a compressed one has to be read for it.
fn layer(
    container: &Container,
    place: &str,
    path: &str,
    diff_id: &DiffId,
) -> Result<(Digest, u64, Packing), TransportError> {
    let what = || format!("the layer `{path}`");
    let read = |source| TransportError::Read {
        place: place.to_owned(),
        what: what(),
        source,
    };
    let (mut reader, size) = container.open(path)?.ok_or_else(|| TransportError::Missing {
        place: place.to_owned(),
        what: what(),
    })?;
    let mut head = Vec::new();
    (&mut reader).take(6).read_to_end(&mut head).map_err(read)?;
    let packing = Packing::sniff(&head);
    if packing == Packing::None {
        return Ok((Digest::from_bytes(*diff_id.as_bytes()), size, packing));
    }
    let mut hasher = Hasher::new();
    hasher.update(&head);
    let mut buffer = vec![0; 128 << 10];
    loop {
        match reader.read(&mut buffer).map_err(read)? {
            0 => return Ok((hasher.digest(), size, packing)),
            count => hasher.update(&buffer[..count]),
        }
    }
}
