//! Manifest and config are compared *field by field*, whatever tool wrote them.
//!
//! Invariant: a field is reported where it differs and nowhere else: digests and sizes that only follow from a
//! difference below (config and layer descriptors, diffIDs) are not.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::opened::Opened;
use super::FieldChange;

/// Fields of the manifest that differ, layers left out.
pub(super) fn manifest(a: &Opened, b: &Opened) -> Vec<FieldChange> {
    // A manifest that the reader made up is compared with nothing: every field of it is the reader's.
    if a.source.synthesized() || b.source.synthesized() {
        return Vec::new();
    }
    let clean = |opened: &Opened| {
        let mut value = opened.manifest_value.clone();
        if let Some(object) = value.as_object_mut() {
            object.remove("layers");
            if let Some(config) = object.get_mut("config").and_then(Value::as_object_mut) {
                config.remove("digest");
                config.remove("size");
                config.remove("data");
            }
        }
        value
    };
    let mut changes = Vec::new();
    compare("", &clean(a), &clean(b), &mut changes);
    changes
}

/// Annotations and media type of two layers that stand for each other.
pub(super) fn layer(index: usize, a: &Value, b: &Value, same_blob: bool) -> Vec<FieldChange> {
    let clean = |value: &Value| {
        let mut value = value.clone();
        if let Some(object) = value.as_object_mut() {
            object.retain(|key, _| {
                !matches!(key.as_str(), "digest" | "size" | "data") && (same_blob || key != "mediaType")
            });
        }
        value
    };
    let mut changes = Vec::new();
    compare(&format!("layers[{index}]"), &clean(a), &clean(b), &mut changes);
    changes
}

/// Fields of the config that differ, diffIDs left out.
pub(super) fn config(a: &Opened, b: &Opened) -> Vec<FieldChange> {
    let clean = |opened: &Opened| {
        let mut value = opened.config_value.clone();
        if let Some(rootfs) = value.get_mut("rootfs").and_then(Value::as_object_mut) {
            rootfs.remove("diff_ids");
        }
        value
    };
    let mut changes = Vec::new();
    compare("", &clean(a), &clean(b), &mut changes);
    changes
}

/// A document whose values are equal and whose bytes are not: order of keys, white space, escapes.
pub(super) fn encoding(what: &str, a: &[u8], b: &[u8]) -> FieldChange {
    let at = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let note = |bytes: &[u8]| {
        let from = at.saturating_sub(10);
        Value::String(String::from_utf8_lossy(&bytes[from.min(bytes.len())..(at + 20).min(bytes.len())]).into_owned())
    };
    FieldChange {
        field: format!("{what} JSON encoding, from byte {at}"),
        a: Some(note(a)),
        b: Some(note(b)),
    }
}

fn compare(field: &str, a: &Value, b: &Value, changes: &mut Vec<FieldChange>) {
    let below = |key: &str| {
        if field.is_empty() {
            key.to_owned()
        } else {
            format!("{field}.{key}")
        }
    };
    match (a, b) {
        _ if a == b => {}
        (Value::Object(x), Value::Object(y)) => {
            let keys: BTreeSet<&String> = x.keys().chain(y.keys()).collect();
            for key in keys {
                pair(below(key), x.get(key), y.get(key), changes);
            }
        }
        (Value::Array(x), Value::Array(y)) if field.ends_with("Env") => environment(field, x, y, changes),
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() && x.iter().chain(y).all(Value::is_object) => {
            for (index, (x, y)) in x.iter().zip(y).enumerate() {
                compare(&format!("{field}[{index}]"), x, y, changes);
            }
        }
        _ => changes.push(FieldChange {
            field: field.to_owned(),
            a: Some(a.clone()),
            b: Some(b.clone()),
        }),
    }
}

fn pair(field: String, a: Option<&Value>, b: Option<&Value>, changes: &mut Vec<FieldChange>) {
    match (a, b) {
        (Some(a), Some(b)) => compare(&field, a, b, changes),
        (a, b) => changes.push(FieldChange {
            field,
            a: a.cloned(),
            b: b.cloned(),
        }),
    }
}

/// An environment is a map that is written as a list; its order is told only where nothing else differs.
fn environment(field: &str, a: &[Value], b: &[Value], changes: &mut Vec<FieldChange>) {
    fn map(list: &[Value]) -> BTreeMap<&str, &str> {
        list.iter()
            .filter_map(Value::as_str)
            .map(|text| text.split_once('=').unwrap_or((text, "")))
            .collect()
    }
    let (x, y) = (map(a), map(b));
    let keys: BTreeSet<&str> = x
        .keys()
        .chain(y.keys())
        .copied()
        .filter(|key| x.get(key) != y.get(key))
        .collect();
    if keys.is_empty() {
        let whole = |list: &[Value]| Some(Value::Array(list.to_vec()));
        changes.push(FieldChange {
            field: format!("{field} (order)"),
            a: whole(a),
            b: whole(b),
        });
    }
    for key in keys {
        let text = |map: &BTreeMap<&str, &str>| map.get(key).map(|&text| Value::String(text.to_owned()));
        changes.push(FieldChange {
            field: format!("{field}.{key}"),
            a: text(&x),
            b: text(&y),
        });
    }
}
