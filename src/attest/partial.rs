//! A *partial* inventory is what a finished image tells of itself in its annotations.
//!
//! Invariant: no layer is read; what the annotations do not say is not made up, and the inventory is never called
//! complete.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::digest::{ContentDigest, Digest};
use crate::image::{PACKAGES_ANNOTATION, STORE_PATHS_ANNOTATION};
use crate::oci::Reference;
use crate::store_path::StoreDir;
use crate::transport::Source;

use super::AttestError;
use super::inventory::{Component, ComponentOrigin, Extent, ImageFacts, Inventory, InventoryLayer, split_name};

/// What documents say where an image does not say when it was made, or not in whole seconds of UTC.
const NO_DATE: &str = "1970-01-01T00:00:01Z";

/// The inventory of an image by its annotations.
pub fn of_source(source: &dyn Source) -> Result<Inventory, AttestError> {
    let place = source.place();
    let manifest = source.manifest()?;
    if source.synthesized() {
        return Err(AttestError::NoManifest {
            place: place.to_owned(),
        });
    }
    let config = source.config()?;
    let (name, tag) = name_and_tag(source);
    let mut components: BTreeMap<String, Component> = BTreeMap::new();
    let mut layers = Vec::new();
    for layer in &manifest.layers {
        layers.push(InventoryLayer {
            digest: layer.digest,
            size: layer.size,
        });
        let listed = |key| layer.annotation(key).unwrap_or_default().split_whitespace();
        for path in listed(STORE_PATHS_ANNOTATION) {
            add(&mut components, store_path(path), layer.digest);
        }
        for package in listed(PACKAGES_ANNOTATION) {
            add(&mut components, debian(package), layer.digest);
        }
    }
    let image = ImageFacts {
        name,
        tag,
        digest: Digest::of(manifest.bytes()),
        platform: config.platform(),
        created: created(config.bytes()),
        layers,
        left_out: BTreeMap::new(),
        not_kept: Vec::new(),
    };
    Ok(Inventory::new(image, components.into_values(), Extent::Annotated))
}

fn add(components: &mut BTreeMap<String, Component>, component: Component, layer: ContentDigest) {
    let known = components.entry(component.key.clone()).or_insert(component);
    known.layers.insert(layer);
}

fn store_path(path: &str) -> Component {
    let base = path.rsplit('/').next().unwrap_or(path);
    let is_nix = StoreDir::nix().split(path).is_some();
    let name = match base.parse::<crate::store_path::StorePath>() {
        Ok(path) => path.name().to_owned(),
        Err(_) => base.to_owned(),
    };
    let mut component = Component::new(path.to_owned(), String::new());
    (component.name, component.version) = split_name(&name);
    if is_nix {
        component.origin = ComponentOrigin::Nix;
    }
    component
}

fn debian(package: &str) -> Component {
    let (name, version) = package.split_once('=').unwrap_or((package, ""));
    let mut component = Component::new(format!("deb:{package}"), name.to_owned());
    component.version = (!version.is_empty()).then(|| version.to_owned());
    component.at_root = true;
    component.origin = ComponentOrigin::Debian {
        architecture: None,
        source: None,
        maintainer: None,
    };
    component
}

/// The first of the image's names as people write it; without any, its config's digest would tell nobody more.
fn name_and_tag(source: &dyn Source) -> (String, Option<String>) {
    let Some(name) = source.names().first() else {
        return ("image".to_owned(), None);
    };
    match name.parse::<Reference>() {
        Ok(reference) => {
            let familiar = reference.familiar();
            let familiar = familiar.split('@').next().unwrap_or_default();
            let name = match familiar.rsplit_once(':') {
                Some((name, tag)) if !tag.contains('/') => name,
                _ => familiar,
            };
            (name.to_owned(), reference.tag().map(str::to_owned))
        }
        Err(_) => ("image".to_owned(), Some(name.clone())),
    }
}

/// When an image was made, as its config says, in whole seconds of UTC.
pub(super) fn created(config: &[u8]) -> String {
    let config: Value = serde_json::from_slice(config).unwrap_or_default();
    let text = config["created"].as_str().unwrap_or_default();
    let seconds = text.split(['.', 'Z']).next().unwrap_or_default();
    let pattern = b"0000-00-00T00:00:00";
    let fits = seconds.len() == pattern.len()
        && text.ends_with('Z')
        && seconds.bytes().zip(pattern).all(|(byte, &wanted)| match wanted {
            b'0' => byte.is_ascii_digit(),
            other => byte == other,
        });
    match fits {
        true => format!("{seconds}Z"),
        false => NO_DATE.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_whole_seconds_of_utc() {
        for (text, expected) in [
            ("2023-05-01T10:00:00Z", "2023-05-01T10:00:00Z"),
            ("2023-05-01T10:00:00.123456789Z", "2023-05-01T10:00:00Z"),
            ("2023-05-01T10:00:00+02:00", NO_DATE),
            ("2023-05-01T10:00:00", NO_DATE),
            ("yesterday\u{e9}Z", NO_DATE),
            ("", NO_DATE),
        ] {
            let config = serde_json::json!({ "created": text }).to_string();
            assert_eq!(created(config.as_bytes()), expected, "{text}");
        }
        assert_eq!(created(b"no JSON"), NO_DATE);
    }
}
