//! A *verification* computes again every digest, size, diffID and link of an image.
//!
//! Invariant: a report without problems means that every byte of the image was read and is what the documents say; a
//! damaged layer does not keep the others from being checked.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Serialize;

use super::AuditError;
use super::facts::shown;
use super::opened::{Opened, OpenedLayer};
use super::stream::{LayerEnd, LayerStream};
use crate::digest::Digest;
use crate::transport::Source;
use crate::transport::decompress::Packing;
use crate::transport::document;
use crate::transport::tar_read::Kind;

/// Most problems that one layer is given: a broken tar may have one an entry.
const PROBLEMS_MAX: usize = 20;

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Where the image is.
    pub place: String,
    /// Digest of its manifest.
    pub digest: Digest,
    /// Number of layers read.
    pub layers: usize,
    /// Bytes of layers read.
    pub bytes: u64,
    /// What is wrong, top down.
    pub problems: Vec<Problem>,
}

/// Something wrong with an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where: `manifest`, `config`, `layer 3`, or a field or path in one of them.
    pub subject: String,
    /// What is wrong.
    pub text: String,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    pub fn ok(&self) -> bool {
        self.problems.is_empty()
    }

    /// The report for people.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for Problem { subject, text: problem } in &self.problems {
            let _ = writeln!(text, "{subject}: {problem}");
        }
        let count = match self.problems.len() {
            0 => "no problems".to_owned(),
            1 => "1 problem".to_owned(),
            count => format!("{count} problems"),
        };
        let size = super::human_size(self.bytes);
        let _ = writeln!(
            text,
            "{}: {}, {} layers, {size}: {count}",
            self.place, self.digest, self.layers
        );
        text
    }
}

/// Reads all of an image and says what is wrong with it. An image whose documents cannot be read is an error.
pub fn verify(source: &dyn Source) -> Result<VerifyReport, AuditError> {
    let image = Opened::new(source)?;
    let mut problems = Problems::default();
    problems.manifest(&image);
    problems.config(&image);
    for text in source.contradictions() {
        problems.add("archive", text);
    }
    let mut bytes = 0;
    for (index, layer) in image.layers.iter().enumerate() {
        bytes += layer.descriptor.size;
        let subject = format!("layer {index}");
        match read_layer(source, layer, &subject, &mut problems) {
            Ok(end) => problems.layer_end(&subject, layer, &end),
            Err(error) => problems.add(&subject, with_causes(&error)),
        }
    }
    Ok(VerifyReport {
        place: source.place().to_owned(),
        digest: image.manifest_digest,
        layers: image.layers.len(),
        bytes,
        problems: problems.0,
    })
}

/// Reads a layer to its end and notes what is wrong with its entries.
fn read_layer(
    source: &dyn Source,
    layer: &OpenedLayer,
    subject: &str,
    problems: &mut Problems,
) -> Result<LayerEnd, AuditError> {
    let mut stream = LayerStream::open(source, &layer.descriptor)?;
    let mut seen = BTreeSet::new();
    let start = problems.0.len();
    while let Some(entry) = stream.next_entry()? {
        let path = entry.clean_path();
        if problems.0.len() - start >= PROBLEMS_MAX {
            continue;
        }
        let at = format!("{subject}, `{}`", shown(&path));
        if path.split(|&byte| byte == b'/').any(|part| part == b"..") {
            problems.add(&at, "its path has a component `..`");
        }
        if entry.kind == Kind::HardLink && !seen.contains(&crate::transport::tar_read::clean(&entry.link)) {
            problems.add(
                &at,
                format!(
                    "it is a hard link to `{}`, which is not before it in the layer",
                    shown(&entry.link)
                ),
            );
        }
        if matches!(entry.kind, Kind::Other(_)) {
            problems.add(
                &at,
                format!("it is a {}, which layers must not have", entry.kind.name()),
            );
        }
        if !seen.insert(path) {
            problems.add(&at, "it is there twice");
        }
    }
    stream.finish()
}

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn add(&mut self, subject: &str, text: impl Into<String>) {
        self.0.push(Problem {
            subject: subject.to_owned(),
            text: text.into(),
        });
    }

    fn manifest(&mut self, image: &Opened) {
        let manifest = &image.manifest;
        if manifest.schema_version != 2 {
            self.add(
                "manifest, schemaVersion",
                format!("it is {}, and must be 2", manifest.schema_version),
            );
        }
        let oci = image.media_type == document::MANIFEST;
        let config_type = match oci {
            true => "application/vnd.oci.image.config.v1+json",
            false => "application/vnd.docker.container.image.v1+json",
        };
        if manifest.config.media_type != config_type {
            let text = format!(
                "it is `{}`, and an image's is `{config_type}`",
                manifest.config.media_type
            );
            self.add("manifest, config.mediaType", text);
        }
    }

    fn config(&mut self, image: &Opened) {
        let config = &image.config;
        if config.rootfs.kind != "layers" {
            self.add(
                "config, rootfs.type",
                format!("it is `{}`, and must be `layers`", config.rootfs.kind),
            );
        }
        for (field, value) in [("os", &config.os), ("architecture", &config.architecture)] {
            if value.is_empty() {
                self.add(&format!("config, {field}"), "it is missing");
            }
        }
        let layers = image.layers.len();
        let diff_ids = config.rootfs.diff_ids.as_ref().map_or(0, Vec::len);
        if diff_ids != layers {
            self.add(
                "config, rootfs.diff_ids",
                format!("it has {diff_ids}, and the manifest has {layers} layers"),
            );
        }
        let history = image.layer_history().len();
        if config.history.as_ref().is_some_and(|all| !all.is_empty()) && history != layers {
            self.add(
                "config, history",
                format!("it tells of {history} layers, and the manifest has {layers}"),
            );
        }
    }

    fn layer_end(&mut self, subject: &str, layer: &OpenedLayer, end: &LayerEnd) {
        if let Some(claimed) = layer.diff_id.filter(|&claimed| claimed != end.diff_id) {
            self.add(
                subject,
                format!("its diffID is {}, and the config says {claimed}", end.diff_id),
            );
        }
        let media_type = &layer.descriptor.media_type;
        match packing_of_type(media_type) {
            None => self.add(subject, format!("its media type `{media_type}` is not a layer's")),
            Some(claimed) if claimed != end.packing => {
                let text = format!(
                    "its media type says {}, and its bytes are {}",
                    claimed.name(),
                    end.packing.name()
                );
                self.add(subject, text);
            }
            Some(_) => {}
        }
        if end.left_over > 0 {
            self.add(subject, format!("{} bytes follow its compressed stream", end.left_over));
        }
        if !end.trailer.zero {
            self.add(subject, "bytes other than zero follow its last entry");
        }
    }
}

/// The packing that a layer's media type stands for.
fn packing_of_type(media_type: &str) -> Option<Packing> {
    let suffix = [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
    ]
    .iter()
    .find_map(|prefix| media_type.strip_prefix(prefix))
    .or_else(|| media_type.strip_prefix("application/vnd.docker.image.rootfs.diff.tar"))
    .or_else(|| media_type.strip_prefix("application/vnd.docker.image.rootfs.foreign.diff.tar"))?;
    match suffix {
        "" => Some(Packing::None),
        "+gzip" | ".gzip" => Some(Packing::Gzip),
        "+zstd" | ".zstd" => Some(Packing::Zstd),
        _ => None,
    }
}

fn with_causes(error: &AuditError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
