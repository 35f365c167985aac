//! *Indexes* are compared image by image, and as the documents they are: order, annotations, attestations.
//!
//! Invariant: images are matched by platform; one whose digest is the same on both sides is not opened.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::super::AuditError;
use super::documents;
use super::{Class, DiffOptions, DiffReport, Difference, FieldChange, Side, diff};
use crate::oci::{CONTAINERD_NAME, Index, REF_NAME, Raw};
use crate::transport::Source;

/// An image of an index.
pub struct Child {
    /// Its platform, as the index has it.
    pub platform: String,
    /// The image.
    pub source: Box<dyn Source>,
}

/// Compares all images of two places, of which at least one holds several.
pub fn diff_indexes(a: &[Child], b: &[Child], options: &DiffOptions) -> Result<DiffReport, AuditError> {
    let side = |children: &[Child]| Side {
        place: children
            .first()
            .map(|child| child.source.place().to_owned())
            .unwrap_or_default(),
        digest: children.first().and_then(|child| child.source.index()).map(Raw::digest),
        layers: Vec::new(),
    };
    let mut differences = match (a.first(), b.first()) {
        (Some(x), Some(y)) => {
            let only = |children: &[Child]| match children {
                [one] => Some(one.platform.clone()),
                _ => None,
            };
            places_of(x.source.as_ref(), y.source.as_ref(), [only(a), only(b)])
        }
        _ => Vec::new(),
    };
    let (in_a, in_b) = (by_platform(a), by_platform(b));
    let platforms: BTreeSet<&str> = in_a.keys().chain(in_b.keys()).copied().collect();
    let mut images = Vec::new();
    for platform in platforms {
        match (in_a.get(platform), in_b.get(platform)) {
            (Some(x), Some(y)) => {
                let one = DiffOptions {
                    indexes: false,
                    ..options.clone()
                };
                let mut report = diff(x.source.as_ref(), y.source.as_ref(), &one)?;
                report.platform = Some(platform.to_owned());
                images.push(report);
            }
            (x, y) => {
                let field = entry(platform);
                let said = |known: &Difference| matches!(known, Difference::Index(change) if change.field == field);
                if !differences.iter().any(said) {
                    let digest = |child: Option<&&Child>| -> Result<Option<Value>, AuditError> {
                        let manifest = child.map(|child| child.source.manifest()).transpose()?;
                        Ok(manifest.map(|manifest| json!(manifest.digest())))
                    };
                    let (a, b) = (digest(x)?, digest(y)?);
                    let class = Class::IndexEntry;
                    differences.push(Difference::Index(FieldChange { class, field, a, b }));
                }
            }
        }
    }
    let report = DiffReport::between(side(a), side(b));
    let mut report = super::finished(report, differences, Vec::new(), super::Told::default(), options);
    report
        .classes
        .extend(images.iter().flat_map(|image| image.classes.iter().copied()));
    report.images = images;
    Ok(report)
}

fn by_platform(children: &[Child]) -> BTreeMap<&str, &Child> {
    children.iter().map(|child| (child.platform.as_str(), child)).collect()
}

fn entry(key: &str) -> String {
    format!("manifests[{key}]")
}

/// What two places say of an image beside the image itself: its names, and the index that lists it.
pub(super) fn places(a: &dyn Source, b: &dyn Source) -> Vec<Difference> {
    places_of(a, b, [None, None])
}

/// As [`places`], with the platform of each side's image where it has only one: its index need not say it.
fn places_of(a: &dyn Source, b: &dyn Source, platforms: [Option<String>; 2]) -> Vec<Difference> {
    let mut changes = Vec::new();
    if a.names() != b.names() {
        changes.push(FieldChange {
            class: Class::Names,
            field: "names".to_owned(),
            a: Some(json!(a.names())),
            b: Some(json!(b.names())),
        });
    }
    if let (Some(x), Some(y)) = (a.index(), b.index())
        && x.bytes() != y.bytes()
    {
        if x.json() == y.json() {
            changes.push(documents::encoding("index's", x.bytes(), y.bytes()));
        } else {
            changes.extend(indexes(x, y, &platforms));
        }
    }
    changes.into_iter().map(Difference::Index).collect()
}

fn indexes(a: &Raw<Index>, b: &Raw<Index>, platforms: &[Option<String>; 2]) -> Vec<FieldChange> {
    let said = platforms.iter().all(Option::is_none);
    let ((a, entries_a), (b, entries_b)) = (entries(a, platforms[0].as_ref()), entries(b, platforms[1].as_ref()));
    let mut changes = documents::index("", &a, &b);
    let keys = |entries: &[(String, Value)]| entries.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>();
    let (keys_a, keys_b) = (keys(&entries_a), keys(&entries_b));
    let (in_a, in_b): (BTreeMap<String, Value>, BTreeMap<String, Value>) =
        (entries_a.into_iter().collect(), entries_b.into_iter().collect());
    for key in in_a.keys().chain(in_b.keys()).collect::<BTreeSet<_>>() {
        let attestation = key.starts_with("attestation");
        let class = if attestation {
            Class::Attestation
        } else {
            Class::IndexEntry
        };
        match (in_a.get(key), in_b.get(key)) {
            (Some(x), Some(y)) if attestation && x["digest"] != y["digest"] => changes.push(FieldChange {
                class,
                field: entry(key),
                a: Some(x["digest"].clone()),
                b: Some(y["digest"].clone()),
            }),
            (Some(x), Some(y)) => changes.extend(documents::index(
                &entry(key),
                &without_content(x, said),
                &without_content(y, said),
            )),
            (x, y) => changes.push(FieldChange {
                class,
                field: entry(key),
                a: x.map(|value| value["digest"].clone()),
                b: y.map(|value| value["digest"].clone()),
            }),
        }
    }
    let common = |keys: &[String], other: &BTreeMap<String, Value>| {
        keys.iter()
            .filter(|key| other.contains_key(*key))
            .cloned()
            .collect::<Vec<_>>()
    };
    let (order_a, order_b) = (common(&keys_a, &in_b), common(&keys_b, &in_a));
    if order_a != order_b {
        changes.push(FieldChange {
            class: Class::IndexOrder,
            field: "manifests (order)".to_owned(),
            a: Some(json!(order_a)),
            b: Some(json!(order_b)),
        });
    }
    changes
}

/// An index without its descriptors, and these, each with a key of its own: platform, attestation, or media type; `only`
/// is the platform of the only image.
fn entries(index: &Raw<Index>, only: Option<&String>) -> (Value, Vec<(String, Value)>) {
    let mut document = index.json();
    let taken = document.get_mut("manifests").map(Value::take);
    let list = taken.and_then(|list| list.as_array().cloned()).unwrap_or_default();
    let mut read = index.manifests.iter().peekable();
    let mut entries: Vec<(String, Value)> = Vec::new();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for value in list {
        // Entries whose digest cannot be checked are not among those that were read.
        let descriptor = read.next_if(|next| value["digest"] == next.digest.to_string());
        let base = match descriptor {
            Some(descriptor) if descriptor.is_attestation() => "attestation".to_owned(),
            Some(descriptor) => match &descriptor.platform {
                Some(platform) => platform.to_string(),
                None => only.unwrap_or(&descriptor.media_type).clone(),
            },
            None => "unreadable".to_owned(),
        };
        let count = counts.entry(base.clone()).or_default();
        *count += 1;
        let key = match count {
            1 => base,
            number => format!("{base} {number}"),
        };
        entries.push((key, value));
    }
    (document, entries)
}

/// A descriptor without what follows from the image, without its names, which are told by themselves, and
/// without its platform where not both sides have to say it.
fn without_content(descriptor: &Value, platform: bool) -> Value {
    let mut value = descriptor.clone();
    if let Some(object) = value.as_object_mut() {
        object.retain(|key, _| !matches!(key.as_str(), "digest" | "size" | "data") && (platform || key != "platform"));
        if let Some(annotations) = object.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.retain(|key, _| key != REF_NAME && key != CONTAINERD_NAME);
            if annotations.is_empty() {
                object.remove("annotations");
            }
        }
    }
    value
}
