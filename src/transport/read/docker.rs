//! A *docker archive* without an OCI layout: `manifest.json` names a config and layers, and no manifest exists.
//!
//! Invariant: the manifest that is made up is a function of the config and the layers' bytes alone (Docker schema 2,
//! canonical JSON), so equal archives give equal digests; a plain layer's digest is its diffID, which its config
//! claims and reading verifies.

use std::collections::BTreeMap;
use std::io::{self, Read};

use serde::Deserialize;
use serde_json::json;

use super::super::{TransportError, names, parse};
use super::{Container, DockerList, StoredImage};
use crate::digest::{DiffId, Digest, Hasher, VerifyError};
use crate::oci::{
    CONFIG_SIZE_MAX, CompressionFormat, Config, Document, MANIFEST_SIZE_MAX, MediaType, Raw, canonical_json,
};

const LAYER_TYPE: &str = "application/vnd.docker.image.rootfs.diff.tar";
const LAYERS_MAX: usize = 10_000;

/// An element of `manifest.json` (Moby image specification v1.2, "Combined Image JSON + Filesystem Changeset Format").
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Item {
    pub(super) config: String,
    #[serde(default)]
    pub(super) repo_tags: Option<Vec<String>>,
    #[serde(default)]
    pub(super) layers: Option<Vec<String>>,
}

pub(super) fn open(container: Container, place: &str, name: Option<&str>) -> Result<StoredImage, TransportError> {
    let items = items(&container, place)?;
    let item = choose(items, &container, place, name)?;
    let config = container
        .read(&item.config, CONFIG_SIZE_MAX)?
        .ok_or_else(|| TransportError::Missing {
            place: place.to_owned(),
            what: format!("the config `{}`", item.config),
        })?;
    let config_digest = Digest::of(&config);
    check_config_name(&item.config, config_digest, place)?;
    let read = Raw::<Config>::read(config);
    let config = read.map_err(TransportError::document(place, format!("the config `{}`", item.config)))?;
    let diff_ids = &config.diff_ids;
    let paths = item.layers.unwrap_or_default();
    if diff_ids.len() != paths.len() || paths.len() > LAYERS_MAX {
        return Err(TransportError::Malformed {
            place: place.to_owned(),
            what: "`manifest.json`".to_owned(),
            reason: format!("it names {} layers, and its config {}", paths.len(), diff_ids.len()),
        });
    }
    let mut elsewhere = BTreeMap::from([(config.digest(), item.config.clone())]);
    let mut layers = Vec::new();
    for (path, diff_id) in paths.iter().zip(diff_ids) {
        let (digest, size, packing) = layer(&container, place, path, diff_id)?;
        let suffix = if packing == CompressionFormat::None {
            String::new()
        } else {
            format!(".{}", packing.name())
        };
        layers.push(json!({ "mediaType": format!("{LAYER_TYPE}{suffix}"), "digest": digest, "size": size }));
        elsewhere.insert(digest.into(), path.clone());
    }
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::DOCKER_MANIFEST,
        "config": { "mediaType": MediaType::DOCKER_CONFIG, "digest": config_digest, "size": config.size() },
        "layers": layers,
    });
    let manifest = Raw::read(canonical_json(&manifest));
    let manifest = manifest.map_err(TransportError::document(place, "`manifest.json`"))?;
    let mut names = item.repo_tags.unwrap_or_default();
    names.sort();
    Ok(StoredImage {
        place: place.to_owned(),
        container,
        index: None,
        document: Document::Manifest(manifest),
        names,
        synthesized: true,
        elsewhere,
        docker: DockerList::Names,
        contradictions: Vec::new(),
    })
}

/// The list's items.
pub(super) fn items(container: &Container, place: &str) -> Result<Vec<Item>, TransportError> {
    let bytes = container.read("manifest.json", MANIFEST_SIZE_MAX)?.unwrap_or_default();
    parse(&bytes, place, "`manifest.json`")
}

fn choose(
    mut items: Vec<Item>,
    container: &Container,
    place: &str,
    name: Option<&str>,
) -> Result<Item, TransportError> {
    let tags = items.iter().flat_map(|item| item.repo_tags.clone().unwrap_or_default());
    let mut choices: Vec<String> = tags.collect();
    if choices.is_empty() {
        choices = (0..items.len()).map(|number| format!("@{number}")).collect();
    }
    if let Some(address) = super::choose::address(container, place) {
        choices
            .iter_mut()
            .for_each(|name| name.insert_str(0, &format!("{address}:")));
    }
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
            let named = |item: &&Item| item.repo_tags.iter().flatten().any(|tag| names::same(tag, name));
            // Of two the first would be read here, and the last keep the name in Docker.
            if items.iter().filter(named).count() > 1 {
                return Err(TransportError::Malformed {
                    place: place.to_owned(),
                    what: "`manifest.json`".to_owned(),
                    reason: format!("it gives the name `{}` to two images", name.escape_debug()),
                });
            }
            items.iter().position(|item| named(&item))
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
) -> Result<(Digest, u64, CompressionFormat), TransportError> {
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
    let packing = CompressionFormat::sniff(&head);
    if packing == CompressionFormat::None {
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
