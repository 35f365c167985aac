//! The inventory as an *SPDX 2.3* document (JSON form of the SPDX specification, version 2.3, annex "JSON schema").
//!
//! Invariant: one package for the image, one for each layer, each component and each pinned file; all that is said
//! of how they belong together is a relationship:
//!
//! | from | relationship | to |
//! |---|---|---|
//! | the document | `DESCRIBES` | the image |
//! | the image | `CONTAINS` | its layers, and components that no layer is known to hold |
//! | a layer | `CONTAINS` | the components in it |
//! | a component | `DEPENDS_ON` | what it refers to |
//! | a component | `GENERATED_FROM` | the files from outside that it was made of |
//!
//! A component's checksum is that of its canonical archive (NAR), as its comment says: a tree has no bytes of its own.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::digest::{ContentDigest, Digest};
use crate::oci::canonical_json;

use super::inventory::{Component, ComponentOrigin, Extent, ImageFacts, Inventory, PinnedFile, TOOL, uuid};
use super::licence::Licence;
use super::purl;

const NOTHING: &str = "NOASSERTION";
const DOCUMENT: &str = "SPDXRef-DOCUMENT";

/// The document as canonical JSON.
pub(super) fn write(inventory: &Inventory) -> Vec<u8> {
    let image = &inventory.image;
    let mut document = json!({
        "SPDXID": DOCUMENT,
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "name": image.name,
        "creationInfo": {
            "created": image.created,
            "creators": [format!("Tool: {}-{}", TOOL.0, TOOL.1)],
        },
        "packages": packages(inventory),
        "relationships": relationships(inventory),
    });
    if let Some(comment) = comment(&inventory.extent) {
        document["comment"] = json!(comment);
    }
    let words = licences_of_no_list(inventory);
    if !words.is_empty() {
        document["hasExtractedLicensingInfos"] = json!(words);
    }
    let id = uuid(&canonical_json(&document));
    document["documentNamespace"] = json!(format!("urn:uuid:{id}"));
    canonical_json(&document)
}

/// The licences that SPDX has no name for, each with the words that declare it.
fn licences_of_no_list(inventory: &Inventory) -> Vec<Value> {
    let of_components = inventory.components.iter().map(|component| &component.licence);
    let of_files = inventory.files().into_values().map(|file| &file.licence);
    let licences: BTreeSet<&Licence> = of_components.chain(of_files).flatten().collect();
    let words = licences.into_iter().filter_map(|licence| match licence {
        Licence::Words(words) => Some(words),
        Licence::Expression(_) => None,
    });
    words
        .map(|words| {
            json!({
                "licenseId": Licence::spdx_reference(words),
                "extractedText": words,
                "comment": "as the package's metadata declares it",
            })
        })
        .collect()
}

/// What a reader must know of a document that does not list everything.
fn comment(extent: &Extent) -> Option<String> {
    match extent {
        Extent::Whole => None,
        Extent::OverBase { base } => Some(format!(
            "Partial: the image lies over the base image {base}, and what the base's layers hold is not listed."
        )),
        Extent::Annotated => Some(
            "Partial: made from the annotations of a finished image. It lists the store paths and packages that these \
             name; hashes, sources and dependencies are not known."
                .to_owned(),
        ),
    }
}

fn packages(inventory: &Inventory) -> Vec<Value> {
    let mut packages = vec![image_package(inventory)];
    packages.extend(inventory.layers().into_iter().map(|layer| {
        let mut package = package(
            &layer_id(&layer.digest),
            &format!("layer {}", layer.digest),
            None,
            "ARCHIVE",
        );
        package["checksums"] = checksums(layer.digest);
        package
    }));
    packages.extend(inventory.components.iter().map(|component| {
        let mut package = component_package(component);
        let scripts = component.scripts.iter().map(|scripts| format!("scripts: {scripts}"));
        annotate(&mut package, &inventory.image, scripts);
        package
    }));
    packages.extend(inventory.files().into_values().map(file_package));
    packages
}

fn image_package(inventory: &Inventory) -> Value {
    let image = &inventory.image;
    let version = image.digest.to_string();
    let mut package = package(&image_id(&image.digest), &image.name, Some(&version), "CONTAINER");
    let architecture = image.platform.as_ref().map(|platform| platform.architecture());
    let purl = purl::oci(&image.name, &image.digest, architecture, image.tag.as_deref());
    package["checksums"] = checksums(image.digest);
    package["externalRefs"] = references(&purl);
    if !image.left_out.is_empty() {
        let left_out = image.left_out.iter().map(|(package, why)| format!("{package} ({why})"));
        let left_out = left_out.collect::<Vec<_>>().join(", ");
        package["comment"] = json!(format!("Left out, although packages depend on it: {left_out}"));
    }
    let not_kept = image.not_kept.iter().map(|line| format!("not kept: {line}"));
    annotate(&mut package, image, not_kept);
    package
}

fn component_package(component: &Component) -> Value {
    let version = component.version.as_deref();
    let mut package = package(&component_id(component), &component.name, version, "INSTALL");
    package["externalRefs"] = references(&component.purl());
    let place = match component.at_root {
        true => format!("{}, laid out at /", component.key),
        false => component.key.clone(),
    };
    package["comment"] = json!(match component.nar_hash {
        Some(_) => format!("{place}; the checksum is that of its canonical archive (NAR)"),
        None => place,
    });
    if let Some(hash) = &component.nar_hash {
        package["checksums"] = checksums(*hash);
    }
    declare(&mut package, component.licence.as_ref());
    match &component.origin {
        ComponentOrigin::Debian { source, maintainer, .. } => {
            if let Some((name, version)) = source {
                package["sourceInfo"] = json!(format!("built from the Debian source package {name} {version}"));
            }
            if let Some((name, mail)) = maintainer.as_deref().and_then(person) {
                package["supplier"] = json!(match mail {
                    Some(mail) => format!("Organization: {name} ({mail})"),
                    None => format!("Organization: {name}"),
                });
            }
        }
        ComponentOrigin::Built => package["sourceInfo"] = json!("built by a script of the spec"),
        ComponentOrigin::Taken | ComponentOrigin::Nix | ComponentOrigin::Unknown => {}
    }
    package
}

fn file_package(file: &PinnedFile) -> Value {
    let purpose = if file.binary { "ARCHIVE" } else { "SOURCE" };
    let mut package = package(&file_id(file), &file.name, None, purpose);
    let mut comments = Vec::new();
    match file.hash.content() {
        Some(digest) => package["checksums"] = checksums(digest),
        // SPDX has no name for Go's hash.
        None => comments.push(file.hash.to_string()),
    }
    package["packageFileName"] = json!(file.name);
    package["externalRefs"] = references(&file.purl);
    if let Some(location) = &file.location {
        match is_download_location(location) {
            true => package["downloadLocation"] = json!(location),
            // A lock names no mirror: the path below any of them.
            false if file.purl.starts_with("pkg:deb/") => {
                comments.push(format!("{location} of a Debian mirror"));
            }
            false => {}
        }
    }
    if !comments.is_empty() {
        package["comment"] = json!(comments.join("; "));
    }
    declare(&mut package, file.licence.as_ref());
    package
}

/// Says of a package what its own metadata says of its licence.
fn declare(package: &mut Value, licence: Option<&Licence>) {
    match licence {
        Some(Licence::Expression(text)) => package["licenseDeclared"] = json!(text),
        Some(Licence::Words(words)) => package["licenseDeclared"] = json!(Licence::spdx_reference(words)),
        None => {}
    }
}

/// Adds what SPDX has no field for, as annotations (SPDX 2.3, clause 12) of the time at which the image was made.
fn annotate(package: &mut Value, image: &ImageFacts, lines: impl Iterator<Item = String>) {
    let annotation = |line: String| {
        json!({
            "annotationDate": image.created,
            "annotationType": "OTHER",
            "annotator": format!("Tool: {}-{}", TOOL.0, TOOL.1),
            "comment": format!("dev.layerize:{line}"),
        })
    };
    let annotations: Vec<Value> = lines.map(annotation).collect();
    if !annotations.is_empty() {
        package["annotations"] = json!(annotations);
    }
}

/// What every package must have (SPDX 2.3, clause 7).
fn package(id: &str, name: &str, version: Option<&str>, purpose: &str) -> Value {
    let mut package = json!({
        "SPDXID": id,
        "name": name,
        "downloadLocation": NOTHING,
        "filesAnalyzed": false,
        "licenseConcluded": NOTHING,
        "licenseDeclared": NOTHING,
        "copyrightText": NOTHING,
        "supplier": NOTHING,
        "primaryPackagePurpose": purpose,
    });
    if let Some(version) = version {
        package["versionInfo"] = json!(version);
    }
    package
}

fn checksums(digest: impl Into<ContentDigest>) -> Value {
    let digest = digest.into();
    json!([{ "algorithm": digest.algorithm().to_ascii_uppercase(), "checksumValue": digest.hex() }])
}

fn references(purl: &str) -> Value {
    json!([{
        "referenceCategory": "PACKAGE-MANAGER",
        "referenceType": "purl",
        "referenceLocator": purl,
    }])
}

fn relationships(inventory: &Inventory) -> Vec<Value> {
    let image = image_id(&inventory.image.digest);
    let mut relationships = vec![relationship(DOCUMENT, "DESCRIBES", &image)];
    let layers = inventory.layers();
    for layer in &layers {
        relationships.push(relationship(&image, "CONTAINS", &layer_id(&layer.digest)));
    }
    for component in &inventory.components {
        let id = component_id(component);
        if component.layers.is_empty() {
            relationships.push(relationship(&image, "CONTAINS", &id));
        }
        for layer in &component.layers {
            relationships.push(relationship(&layer_id(layer), "CONTAINS", &id));
        }
    }
    let by_key = |key: &String| {
        let components = &inventory.components;
        let index = components.binary_search_by(|component| component.key.cmp(key)).ok()?;
        Some(component_id(&components[index]))
    };
    for component in &inventory.components {
        let id = component_id(component);
        let needed = component.references.iter().filter_map(by_key);
        relationships.extend(needed.map(|needed| relationship(&id, "DEPENDS_ON", &needed)));
        let files = component.sources.iter().map(file_id);
        relationships.extend(files.map(|file| relationship(&id, "GENERATED_FROM", &file)));
    }
    relationships
}

fn relationship(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}

fn image_id(digest: &Digest) -> String {
    format!("SPDXRef-Image-{}", digest.hex())
}

fn layer_id(digest: &ContentDigest) -> String {
    format!("SPDXRef-Layer-{}", digest.hex())
}

fn file_id(file: &PinnedFile) -> String {
    match (file.hash.sha256(), file.key().1) {
        (Some(digest), Some(of)) => {
            let of = Digest::of(of.as_bytes()).hex();
            format!("SPDXRef-File-{}-{}", digest.hex(), &of[..8])
        }
        (Some(digest), None) => format!("SPDXRef-File-{}", digest.hex()),
        (None, _) => format!("SPDXRef-File-{}-{}", file.hash.scheme(), file.hash.hex()),
    }
}

/// Letters, digits, `.` and `-` alone are allowed: the key's own hash keeps apart what else would read alike.
fn component_id(component: &Component) -> String {
    let base = component.key.rsplit('/').next().unwrap_or(&component.key);
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    let base: String = base.chars().map(|c| if allowed(c) { c } else { '-' }).collect();
    let hash = Digest::of(component.key.as_bytes()).hex();
    format!("SPDXRef-{base}-{}", &hash[..8])
}

/// `NAME <MAIL>` as its two parts; parentheses would end the name in SPDX.
fn person(text: &str) -> Option<(String, Option<&str>)> {
    let (name, mail) = match text.split_once('<') {
        Some((name, mail)) => (name, Some(mail.trim_end_matches('>').trim())),
        None => (text, None),
    };
    let name: String = name.trim().chars().filter(|c| !"()".contains(*c)).collect();
    (!name.is_empty()).then_some((name, mail.filter(|mail| !mail.is_empty())))
}

/// Whether SPDX takes the address for a download location: http or https at a host that has a domain name.
fn is_download_location(location: &str) -> bool {
    let Ok(url) = url::Url::parse(location) else {
        return false;
    };
    let has_domain = url.domain().and_then(|domain| domain.rsplit_once('.')).is_some();
    let scheme = url.scheme();
    matches!(scheme.strip_prefix("git+").unwrap_or(scheme), "http" | "https" | "ssh") && has_domain
}
