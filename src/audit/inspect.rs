//! An *inspection* says what an image is: its names, digests, config and layers with the store paths they hold.
//!
//! Invariant: without options nothing but the documents is read; with them, what was read is verified.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use super::budget::Budget;
use super::opened::{Opened, OpenedLayer};
use super::stream::{LayerStream, packing_of};
use super::{AuditError, KeptElsewhere, human_size, owner};
use crate::capability;
use crate::digest::{ContentDigest, DiffId};
use crate::escape::shown;
use crate::oci::Config;
use crate::transport::Source;

/// The annotation of a layer's descriptor that lists the store paths in it, separated by spaces.
const STORE_PATHS: &str = "dev.layerize.store-paths";

/// How deep to look.
#[derive(Debug, Clone, Copy, Default)]
pub struct InspectOptions {
    /// Read the layers: their uncompressed sizes, entries, and the store paths of those without an annotation.
    pub layers: bool,
}

/// What an image is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Where it is.
    pub place: String,
    /// Its names there.
    pub names: Vec<String>,
    /// Digest of the manifest; `None` where the place holds none (old docker archives).
    pub digest: Option<ContentDigest>,
    /// Media type of the manifest.
    pub media_type: String,
    /// Digest of the config: Docker's image ID.
    pub config_digest: ContentDigest,
    /// Media type of the config.
    pub config_media_type: String,
    /// `os/architecture[/variant]`.
    pub platform: String,
    /// When it was made, as the config says.
    pub created: Option<String>,
    /// The config's `config`: entrypoint, environment and the like, as it stands.
    pub config: Value,
    /// The manifest's annotations.
    pub annotations: BTreeMap<String, String>,
    /// The layers, lowest first.
    pub layers: Vec<LayerReport>,
    /// Bytes of all layers as stored.
    pub size: u64,
    /// Bytes of all layers' tars, where they were read.
    pub unpacked_size: Option<u64>,
}

/// What a layer is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerReport {
    /// Digest of the blob.
    pub digest: ContentDigest,
    /// Digest of its tar, as the config says.
    pub diff_id: Option<DiffId>,
    /// Media type.
    pub media_type: String,
    /// Bytes as stored.
    pub size: u64,
    /// How it is compressed, by its first bytes; `unread` where the place does without it.
    pub compression: &'static str,
    /// Bytes of its tar, where it was read.
    pub unpacked_size: Option<u64>,
    /// Number of its entries, where it was read.
    pub entries: Option<u64>,
    /// The store paths in it, sorted.
    pub store_paths: Vec<String>,
    /// The files in it that have capabilities, and which, as `getcap` prints them, where it was read.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub capabilities: BTreeMap<String, String>,
    /// What the history says of it.
    pub comment: Option<String>,
    /// Its descriptor's other annotations.
    pub annotations: BTreeMap<String, String>,
    /// Where else it may be had.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Whether the place does without it: see `urls`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub kept_elsewhere: bool,
}

/// Reads an image's documents, and its layers where the options say so.
pub fn inspect(source: &dyn Source, options: InspectOptions) -> Result<Report, AuditError> {
    let image = Opened::new(source)?;
    let history = image.layer_history();
    let (mut layers, mut budget) = (Vec::new(), Budget::default());
    for (index, layer) in image.layers.iter().enumerate() {
        let made = history
            .get(index)
            .and_then(|entry| entry.comment.clone().or_else(|| entry.created_by.clone()));
        layers.push(layer_report(source, layer, made, options, &mut budget)?);
    }
    Ok(Report {
        place: source.place().to_owned(),
        names: source.names().to_vec(),
        digest: (!source.synthesized()).then_some(image.manifest.digest()),
        media_type: image.manifest.media_type().to_owned(),
        config_digest: image.manifest.config.digest,
        config_media_type: image.manifest.config.media_type.clone(),
        platform: platform_text(&image.config),
        created: image.config_value["created"].as_str().map(str::to_owned),
        config: image.config_value["config"].clone(),
        annotations: image.manifest.annotations.clone(),
        size: layers.iter().map(|layer| layer.size).sum(),
        unpacked_size: unpacked_size(&layers),
        layers,
    })
}

/// What is known of the layers' tars, where any was read.
fn unpacked_size(layers: &[LayerReport]) -> Option<u64> {
    let here = layers.iter().filter(|layer| !layer.kept_elsewhere);
    here.map(|layer| layer.unpacked_size).sum()
}

/// The platform as the config writes it.
fn platform_text(config: &Config) -> String {
    let variant = config.variant.iter().filter(|variant| !variant.is_empty());
    let parts = [&config.os, &config.architecture];
    let parts: Vec<&str> = parts.into_iter().chain(variant).map(String::as_str).collect();
    parts.join("/")
}

fn layer_report(
    source: &dyn Source,
    layer: &OpenedLayer,
    comment: Option<String>,
    options: InspectOptions,
    budget: &mut Budget,
) -> Result<LayerReport, AuditError> {
    let descriptor = &layer.descriptor;
    let mut annotations = descriptor.annotations.clone();
    let listed = annotations.remove(STORE_PATHS);
    let kept_elsewhere = KeptElsewhere::in_place(source, 0, descriptor).is_some();
    let mut report = LayerReport {
        digest: descriptor.digest,
        diff_id: layer.diff_id,
        media_type: descriptor.media_type.clone(),
        size: descriptor.size,
        compression: match kept_elsewhere {
            true => "unread",
            false => packing_of(source, descriptor)?.name(),
        },
        unpacked_size: None,
        entries: None,
        store_paths: listed
            .iter()
            .flat_map(|text| text.split(' ').filter(|path| !path.is_empty()))
            .map(str::to_owned)
            .collect(),
        capabilities: BTreeMap::new(),
        comment,
        annotations,
        urls: descriptor.urls.clone(),
        kept_elsewhere,
    };
    if options.layers && !kept_elsewhere {
        let mut stream = LayerStream::open(source, descriptor)?;
        let mut found = BTreeSet::new();
        let mut entries = 0;
        while let Some(entry) = stream.next_entry()? {
            entries += 1;
            if let Some(value) = entry.capability() {
                stream.check(budget.take(entry.path.len() + 2 * value.len() + 64, 3))?;
                let path = format!("/{}", String::from_utf8_lossy(&entry.clean_path()));
                report.capabilities.insert(path, capability::shown(value));
            }
            if let Some((path, _)) = owner(&String::from_utf8_lossy(&entry.clean_path())) {
                let path = path.to_string();
                stream.check(budget.take(path.len(), 2))?;
                if let Some(again) = found.replace(path) {
                    budget.give_back(again.len(), 2);
                }
            }
        }
        report.unpacked_size = Some(stream.finish()?.tar_size);
        report.entries = Some(entries);
        report.store_paths = found.into_iter().collect();
    }
    Ok(report)
}

impl Report {
    /// The report for people.
    pub fn render(&self) -> String {
        let mut text = String::new();
        let mut line = |label: &str, value: &str| {
            let _ = writeln!(text, "{label:<13}{}", shown(value));
        };
        line("image", &self.place);
        self.names.iter().for_each(|name| line("name", name));
        match &self.digest {
            Some(digest) => line("digest", &digest.to_string()),
            None => line("digest", "none: the archive holds no manifest"),
        }
        line("config", &self.config_digest.to_string());
        line("media type", &self.media_type);
        line("platform", &self.platform);
        line("created", self.created.as_deref().unwrap_or("unknown"));
        for (label, field) in FIELDS {
            for value in values(&self.config[field]) {
                line(label, &value);
            }
        }
        for (key, value) in &self.annotations {
            line("annotation", &format!("{key}={value}"));
        }
        let unpacked = self
            .unpacked_size
            .map(|size| format!(", {} unpacked", human_size(size)))
            .unwrap_or_default();
        line(
            "layers",
            &format!("{}, {}{unpacked}", self.layers.len(), human_size(self.size)),
        );
        for (index, layer) in self.layers.iter().enumerate() {
            layer.render(index, &mut text);
        }
        text
    }
}

/// The config's fields in the order people expect them.
const FIELDS: [(&str, &str); 10] = [
    ("entrypoint", "Entrypoint"),
    ("cmd", "Cmd"),
    ("env", "Env"),
    ("user", "User"),
    ("workdir", "WorkingDir"),
    ("port", "ExposedPorts"),
    ("volume", "Volumes"),
    ("label", "Labels"),
    ("stop signal", "StopSignal"),
    ("health check", "Healthcheck"),
];

/// The lines of a config field: a command on one line, a map or an environment on one line for each member.
fn values(value: &Value) -> Vec<String> {
    match value {
        Value::Null => Vec::new(),
        Value::String(text) if text.is_empty() => Vec::new(),
        Value::String(text) => vec![text.clone()],
        Value::Array(items)
            if items
                .iter()
                .all(|item| item.as_str().is_some_and(|text| text.contains('='))) =>
        {
            items.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| match value {
                Value::String(text) => format!("{key}={text}"),
                // Go's sets are objects of empty objects.
                Value::Object(empty) if empty.is_empty() => key.clone(),
                Value::Null => key.clone(),
                other => format!("{key}={other}"),
            })
            .collect(),
        other => vec![other.to_string()],
    }
}

impl LayerReport {
    fn render(&self, index: usize, text: &mut String) {
        let unpacked = self
            .unpacked_size
            .map(|size| format!(" of {}", human_size(size)))
            .unwrap_or_default();
        let entries = self
            .entries
            .map(|count| format!(", {count} entries"))
            .unwrap_or_default();
        let size = human_size(self.size);
        let _ = writeln!(
            text,
            "  {index:>3}  {}  {size}{unpacked}, {}{entries}",
            self.digest, self.compression
        );
        if let Some(diff_id) = self.diff_id.filter(|diff_id| {
            self.digest
                .sha256()
                .is_none_or(|digest| digest.as_bytes() != diff_id.as_bytes())
        }) {
            let _ = writeln!(text, "       diffID {diff_id}");
        }
        if let Some(comment) = self.comment.as_ref().filter(|comment| !comment.is_empty()) {
            let _ = writeln!(text, "       {}", shown(comment));
        }
        for path in &self.store_paths {
            let _ = writeln!(text, "       {}", shown(path));
        }
        for (path, capabilities) in &self.capabilities {
            let _ = writeln!(text, "       {} {capabilities}", shown(path));
        }
        for url in &self.urls {
            let where_it_is = if self.kept_elsewhere { "kept elsewhere" } else { "also" };
            let _ = writeln!(text, "       {where_it_is}: {}", shown(url));
        }
    }
}
