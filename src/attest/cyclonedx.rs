//! The inventory as a *CycloneDX 1.6* document (JSON; ECMA-424).
//!
//! Invariant: the image is `metadata.component`, each component of the inventory is one of `components`, and nothing
//! else is; `dependencies` holds every component. The files that a component was made of are its external references,
//! with their hashes; the layer that holds it is a property. `compositions` says whether the list is complete.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::digest::ContentDigest;
use crate::oci::canonical_json;

use super::inventory::{Component, ComponentOrigin, Extent, Inventory, PinnedFile, TOOL, uuid};
use super::licence::Licence;
use super::purl;

/// The document as canonical JSON.
pub(super) fn write(inventory: &Inventory) -> Vec<u8> {
    let image = image_reference(inventory);
    let components: Vec<&str> = inventory
        .components
        .iter()
        .map(|component| component.key.as_str())
        .collect();
    let mut document = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": metadata(inventory, &image),
        "components": inventory.components.iter().map(component).collect::<Vec<_>>(),
        "dependencies": dependencies(inventory, &image),
        "compositions": compositions(&inventory.extent, &image, &components),
    });
    let id = uuid(&canonical_json(&document));
    document["serialNumber"] = json!(format!("urn:uuid:{id}"));
    canonical_json(&document)
}

/// Whether what the image holds is all listed, and whether what each component needs is.
fn compositions(extent: &Extent, image: &str, components: &[&str]) -> Value {
    match extent {
        Extent::Whole => json!([{ "aggregate": "complete", "assemblies": [image], "dependencies": components }]),
        Extent::OverBase { .. } => json!([
            { "aggregate": "incomplete", "assemblies": [image] },
            { "aggregate": "complete", "dependencies": components },
        ]),
        Extent::Annotated => json!([{ "aggregate": "incomplete", "assemblies": [image], "dependencies": components }]),
    }
}

fn image_reference(inventory: &Inventory) -> String {
    format!("image@{}", inventory.image.digest)
}

fn metadata(inventory: &Inventory, reference: &str) -> Value {
    let image = &inventory.image;
    let architecture = image.platform.as_ref().map(|platform| platform.architecture());
    let mut properties = Vec::new();
    if let Some(platform) = &image.platform {
        properties.push(property("platform", &platform.to_string()));
    }
    for layer in &image.layers {
        properties.push(property("layer", &layer.digest.to_string()));
    }
    for (package, why) in &image.left_out {
        properties.push(property("left-out", &format!("{package}: {why}")));
    }
    for line in &image.not_kept {
        properties.push(property("not-kept", line));
    }
    json!({
        "timestamp": image.created,
        "tools": { "components": [{ "type": "application", "name": TOOL.0, "version": TOOL.1 }] },
        "component": {
            "type": "container",
            "bom-ref": reference,
            "name": image.name,
            "version": image.digest.to_string(),
            "hashes": [{ "alg": "SHA-256", "content": image.digest.hex() }],
            "purl": purl::oci(&image.name, &image.digest, architecture, image.tag.as_deref()),
            "properties": properties,
        },
        // Known to CycloneDX's register of property names: the same input gives the same document.
        "properties": [{ "name": "cdx:reproducible", "value": "true" }],
    })
}

fn component(component: &Component) -> Value {
    let mut properties = Vec::new();
    if component.key.starts_with('/') {
        properties.push(property("store-path", &component.key));
    }
    if component.at_root {
        properties.push(property("laid-out-at", "/"));
    }
    if let Some(scripts) = component.scripts {
        properties.push(property("scripts", scripts));
    }
    for layer in &component.layers {
        properties.push(property("layer", &layer.to_string()));
    }
    let mut value = json!({
        // Whether it is a library or a program is not known of a tree that may be both.
        "type": "library",
        "bom-ref": component.key,
        "name": component.name,
        "purl": component.purl(),
    });
    if let Some(version) = &component.version {
        value["version"] = json!(version);
    }
    if let Some(hash) = &component.nar_hash {
        value["hashes"] = json!([{ "alg": "SHA-256", "content": hash.hex() }]);
        properties.push(property("hashed-as", "canonical archive (NAR)"));
    }
    if let ComponentOrigin::Debian { source, maintainer, .. } = &component.origin {
        if let Some((name, version)) = source {
            properties.push(property("debian-source", &format!("{name}={version}")));
        }
        if let Some(maintainer) = maintainer {
            let name = maintainer.split('<').next().unwrap_or_default().trim();
            value["supplier"] = json!({ "name": name });
        }
    }
    match &component.licence {
        Some(Licence::Expression(text)) => {
            value["licenses"] = json!([{ "expression": text, "acknowledgement": "declared" }]);
        }
        Some(Licence::Words(words)) => {
            value["licenses"] = json!([{ "license": { "name": words, "acknowledgement": "declared" } }]);
        }
        None => {}
    }
    value["properties"] = json!(properties);
    let references: Vec<Value> = component.sources.iter().map(external_reference).collect();
    if !references.is_empty() {
        value["externalReferences"] = json!(references);
    }
    value
}

/// A pool path without its mirror is an IRI reference, as is an address.
fn external_reference(file: &PinnedFile) -> Value {
    let url = match &file.location {
        Some(location) if !location.starts_with("file:") => location.as_str(),
        _ => file.name.as_str(),
    };
    let mut reference = json!({
        "type": match (&file.commit, file.binary) {
            (Some(_), _) => "vcs",
            (None, true) => "distribution",
            (None, false) => "source-distribution",
        },
        "url": iri_reference(url),
        "comment": file.purl,
    });
    match file.hash.content() {
        Some(digest) => {
            let algorithm = match digest {
                ContentDigest::Sha256(_) => "SHA-256",
                ContentDigest::Sha512(_) => "SHA-512",
            };
            reference["hashes"] = json!([{ "alg": algorithm, "content": digest.hex() }]);
        }
        // CycloneDX has no name for Go's hash.
        None => reference["comment"] = json!(format!("{} {}", file.purl, file.hash)),
    }
    reference
}

/// What cannot stand in an IRI reference, percent-encoded; `%` itself stays, as addresses are encoded already.
fn iri_reference(text: &str) -> String {
    const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'.')
        .remove(b'_')
        .remove(b'~')
        .remove(b':')
        .remove(b'/')
        .remove(b'?')
        .remove(b'#')
        .remove(b'[')
        .remove(b']')
        .remove(b'@')
        .remove(b'!')
        .remove(b'$')
        .remove(b'&')
        .remove(b'\'')
        .remove(b'(')
        .remove(b')')
        .remove(b'*')
        .remove(b'+')
        .remove(b',')
        .remove(b';')
        .remove(b'=')
        .remove(b'%');
    utf8_percent_encode(text, ENCODED).to_string()
}

fn dependencies(inventory: &Inventory, image: &str) -> Vec<Value> {
    let all: Vec<&String> = inventory.components.iter().map(|component| &component.key).collect();
    let of_image = json!({ "ref": image, "dependsOn": all });
    let of_components = inventory.components.iter().map(|component| {
        let mut value = json!({ "ref": component.key });
        if !component.references.is_empty() {
            value["dependsOn"] = json!(component.references);
        }
        value
    });
    std::iter::once(of_image).chain(of_components).collect()
}

/// A property in layerize's name space.
fn property(name: &str, value: &str) -> Value {
    json!({ "name": format!("dev.layerize:{name}"), "value": value })
}
