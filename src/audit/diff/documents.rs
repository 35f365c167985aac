//! Manifest and config are compared *field by field*, whatever tool wrote them.
//!
//! Invariant: a field is reported where it differs and nowhere else: digests and sizes that only follow from a
//! difference below (config and layer descriptors, diffIDs) are not.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::opened::Opened;
use super::layers::LayerMatch;
use super::{Class, FieldChange, LayerPlace};
use crate::image::{PACKAGES_ANNOTATION, STORE_PATHS_ANNOTATION};

/// Keys of labels and annotations by which tools name themselves.
const TOOL_KEYS: [&str; 3] = ["io.buildah.version", "com.docker.", "moby.buildkit."];

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
    DocumentComparison::of(manifest_class).run("", &clean(a), &clean(b))
}

/// Annotations and media type of two layers that stand for each other. Where the compression differs, the media type
/// differs only as far as it says something else; what layerize notes of a layer's contents follows from them.
pub(super) fn layer(index: usize, a: &Value, b: &Value, recompressed: bool) -> Vec<FieldChange> {
    let clean = |value: &Value| {
        let mut value = value.clone();
        let Some(object) = value.as_object_mut() else {
            return value;
        };
        object.retain(|key, _| !matches!(key.as_str(), "digest" | "size" | "data"));
        if recompressed && let Some(Value::String(media_type)) = object.get_mut("mediaType") {
            for suffix in [".gzip", "+gzip", "+zstd", ".zstd"] {
                if let Some(plain) = media_type.strip_suffix(suffix) {
                    *media_type = plain.to_owned();
                }
            }
        }
        if let Some(annotations) = object.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.retain(|key, _| key != STORE_PATHS_ANNOTATION && key != PACKAGES_ANNOTATION);
            if annotations.is_empty() {
                object.remove("annotations");
            }
        }
        value
    };
    DocumentComparison::of(manifest_class).run(&format!("layers[{index}]"), &clean(a), &clean(b))
}

fn manifest_class(field: &str) -> Class {
    let last = field.rsplit('.').next().unwrap_or(field);
    if last == "mediaType" || last == "schemaVersion" {
        Class::MediaType
    } else if field.contains("annotations") {
        Class::Annotation
    } else {
        Class::Manifest
    }
}

/// The class of a field of the config (image-spec, config.md; Docker's further fields are those of its image
/// specification 1.2).
fn config_class(field: &str) -> Class {
    let first = field.split(['.', '[']).next().unwrap_or(field);
    let is_tool = |prefix: &str| {
        TOOL_KEYS
            .iter()
            .any(|key| field.starts_with(&format!("{prefix}.{key}")))
    };
    match first {
        "created" => Class::Created,
        "history" if field.ends_with(".created") => Class::Created,
        "history" if field.ends_with(".author") => Class::Builder,
        "history" => Class::History,
        "os" | "architecture" | "variant" => Class::Platform,
        "os_features" | "os_version" => Class::Platform,
        "author" | "container" | "container_config" | "docker_version" | "id" | "parent" => Class::Builder,
        "config" if field.starts_with("config.Env") && field.ends_with("(order)") => Class::EnvOrder,
        "config" if field.starts_with("config.Env") => Class::Env,
        "config" if is_tool("config.Labels") => Class::Builder,
        "config" if field.starts_with("config.Labels") => Class::Label,
        "config" if matches!(field, "config.Hostname" | "config.Domainname" | "config.Image") => Class::Builder,
        "rootfs" => Class::Manifest,
        _ if field.starts_with("os.") => Class::Platform,
        _ => Class::Config,
    }
}

/// Fields of the config that differ, diffIDs left out, and what the history says of layers that are on one side only.
pub(super) fn config(a: &Opened, b: &Opened, matches: &[LayerMatch]) -> Vec<FieldChange> {
    let lone = |of: fn(LayerPlace) -> (Option<usize>, Option<usize>)| -> BTreeSet<usize> {
        let places = matches.iter().map(|layer_match| of(layer_match.place()));
        places
            .filter_map(|(own, other)| own.filter(|_| other.is_none()))
            .collect()
    };
    let lone = (lone(|place| (place.a, place.b)), lone(|place| (place.b, place.a)));
    let changed = |of: fn(LayerPlace) -> Option<usize>| -> BTreeSet<usize> {
        let changed = matches
            .iter()
            .filter(|layer_match| matches!(layer_match, LayerMatch::Changed(..)));
        changed.filter_map(|layer_match| of(layer_match.place())).collect()
    };
    let changed = (changed(|place| place.a), changed(|place| place.b));
    let clean = |opened: &Opened, lone: &BTreeSet<usize>, changed: &BTreeSet<usize>| {
        let mut value = opened.config_value.clone();
        if let Some(Value::Array(history)) = value.get_mut("history") {
            let mut layer = 0;
            history.retain_mut(|entry| {
                let own = entry.get("empty_layer") != Some(&Value::Bool(true));
                layer += usize::from(own);
                // What layerize says of a layer follows from what is in it.
                if own && changed.contains(&(layer - 1)) && entry["created_by"] == "layerize" {
                    entry.as_object_mut().map(|entry| entry.remove("comment"));
                }
                !own || !lone.contains(&(layer - 1))
            });
        }
        if let Some(rootfs) = value.get_mut("rootfs").and_then(Value::as_object_mut) {
            rootfs.remove("diff_ids");
        }
        value
    };
    DocumentComparison::of(config_class).run("", &clean(a, &lone.0, &changed.0), &clean(b, &lone.1, &changed.1))
}

/// Fields of two manifests that differ, all of them.
pub(super) fn whole_manifest(a: &Value, b: &Value) -> Vec<FieldChange> {
    DocumentComparison::of(manifest_class).run("", a, b)
}

/// Fields of the configs of two artifacts that differ.
pub(super) fn whole_config(a: &Value, b: &Value) -> Vec<FieldChange> {
    DocumentComparison::of(|_| Class::Config).run("", a, b)
}

/// Fields of two index descriptors or indexes that differ.
pub(super) fn index(field: &str, a: &Value, b: &Value) -> Vec<FieldChange> {
    let class = |field: &str| match manifest_class(field) {
        Class::Manifest => Class::IndexEntry,
        class => class,
    };
    DocumentComparison::of(class).run(field, a, b)
}

/// A document whose values are equal and whose bytes are not: order of keys, white space, escapes.
pub(super) fn encoding(what: &str, a: &[u8], b: &[u8]) -> FieldChange {
    let at = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let note = |bytes: &[u8]| {
        let from = at.saturating_sub(10);
        Value::String(String::from_utf8_lossy(&bytes[from.min(bytes.len())..(at + 20).min(bytes.len())]).into_owned())
    };
    FieldChange {
        class: Class::Json,
        field: format!("{what} JSON encoding, from byte {at}"),
        a: Some(note(a)),
        b: Some(note(b)),
    }
}

/// A walk through two documents at once.
struct DocumentComparison {
    class: fn(&str) -> Class,
    changes: Vec<FieldChange>,
}

impl DocumentComparison {
    fn of(class: fn(&str) -> Class) -> Self {
        Self {
            class,
            changes: Vec::new(),
        }
    }

    fn run(mut self, field: &str, a: &Value, b: &Value) -> Vec<FieldChange> {
        self.compare(field, a, b);
        self.changes
    }

    fn push(&mut self, field: String, a: Option<Value>, b: Option<Value>) {
        let empty = |value: &Option<Value>| match value {
            None | Some(Value::Null | Value::Bool(false)) => true,
            Some(Value::String(text)) => text.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::Object(object)) => object.is_empty(),
            Some(Value::Bool(true) | Value::Number(_)) => false,
        };
        let class = match empty(&a) && empty(&b) {
            true => Class::EmptyField,
            false => (self.class)(&field),
        };
        self.changes.push(FieldChange { class, field, a, b });
    }

    fn compare(&mut self, field: &str, a: &Value, b: &Value) {
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
                    self.pair(below(key), x.get(key), y.get(key));
                }
            }
            (Value::Array(x), Value::Array(y)) if field.ends_with("Env") => self.environment(field, x, y),
            (Value::Array(x), Value::Array(y)) if x.len() == y.len() && x.iter().chain(y).all(Value::is_object) => {
                for (index, (x, y)) in x.iter().zip(y).enumerate() {
                    self.compare(&format!("{field}[{index}]"), x, y);
                }
            }
            _ => self.push(field.to_owned(), Some(a.clone()), Some(b.clone())),
        }
    }

    fn pair(&mut self, field: String, a: Option<&Value>, b: Option<&Value>) {
        match (a, b) {
            (Some(a), Some(b)) => self.compare(&field, a, b),
            (a, b) => self.push(field, a.cloned(), b.cloned()),
        }
    }

    /// An environment is a map that is written as a list; its order is told only where nothing else differs.
    fn environment(&mut self, field: &str, a: &[Value], b: &[Value]) {
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
            self.push(format!("{field} (order)"), whole(a), whole(b));
        }
        for key in keys {
            let text = |map: &BTreeMap<&str, &str>| map.get(key).map(|&text| Value::String(text.to_owned()));
            self.push(format!("{field}.{key}"), text(&x), text(&y));
        }
    }
}
