//! A *verification* computes again every digest, size, diffID and link of an image.
//!
//! Invariant: a report without problems means that every byte of the image was read and is what the documents say, but
//! for the layers that it lists as kept elsewhere; a damaged layer does not keep the others from being checked.
//!
//! Rules come in two sorts: what the image specification demands and what no client could read are always asked for;
//! what single consumers want beyond that is in [`Profile`]s.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

mod artifact;
mod layer;
mod profile;

pub use profile::{ParseProfileError, Profile, Rule};

use super::artifact::is_artifact;
use super::stream::LayerEnd;
use super::{AuditError, KeptElsewhere};
use crate::digest::{ContentDigest, DiffId};
use crate::escape::shown;
use crate::fsio::with_causes;
use crate::oci::shape::{self, Shape};
use crate::oci::{
    ATTESTATION, Annotations, CONFIG_SIZE_MAX, CompressionFormat, Config, DocumentError, Fault, Index, Manifest,
    MediaType, NAME_MAX, Platform, Raw, Typed, parse_json,
};
use crate::transport::{Source, TransportError, read_blob};
use layer::{Files, LayerSeen};

/// Longest tag (distribution-spec, "Pulling manifests").
const TAG_MAX: usize = 128;

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// Where the image is.
    pub place: String,
    /// What it is for, where it is one of several that are told of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Digest of its manifest; `None` where it could not be read.
    pub digest: Option<ContentDigest>,
    /// Number of layers read.
    pub layers: usize,
    /// Bytes of layers read.
    pub bytes: u64,
    /// The profiles that were asked for.
    pub profiles: Vec<Profile>,
    /// What kind of artifact it is, where it is not an image: its blobs were read as such.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Layers that the place does without, of which nothing was read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kept_elsewhere: Vec<KeptElsewhere>,
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
    /// The byte of the layer's tar at which the entry begins, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// The rule of a profile (`lambda/parents`), where it is none of the specification's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What that rule rests on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fact: Option<&'static str>,
}

impl VerifyReport {
    /// The report on an image that could not even be opened.
    pub fn unreadable(place: &str, error: &TransportError) -> Self {
        let mut problems = Problems::default();
        match error {
            TransportError::Document { source, .. } => problems.refused(source),
            error => problems.add("archive", with_causes(error)),
        }
        Self {
            place: place.to_owned(),
            platform: None,
            digest: None,
            layers: 0,
            bytes: 0,
            profiles: Vec::new(),
            artifact_type: None,
            kept_elsewhere: Vec::new(),
            problems: problems.list,
        }
    }

    /// Whether nothing is wrong.
    pub fn ok(&self) -> bool {
        self.problems.is_empty()
    }

    /// The report for people.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if let Some(platform) = &self.platform {
            let _ = writeln!(text, "{platform}");
        }
        for problem in &self.problems {
            let _ = write!(text, "{}: {}", shown(&problem.subject), shown(&problem.text));
            if let Some(offset) = problem.offset {
                let _ = write!(text, ", at byte {offset} of the tar");
            }
            if let (Some(rule), Some(fact)) = (&problem.rule, problem.fact) {
                let _ = write!(text, " ({rule}: {fact})");
            }
            text.push('\n');
        }
        self.kept_elsewhere.iter().for_each(|layer| layer.render(&mut text));
        let count = match self.problems.len() {
            0 => "no problems".to_owned(),
            1 => "1 problem".to_owned(),
            count => format!("{count} problems"),
        };
        let size = super::human_size(self.bytes);
        let digest = self
            .digest
            .map_or_else(|| "no digest".to_owned(), |digest| digest.to_string());
        let what = match &self.artifact_type {
            Some(kind) => format!("artifact `{}`, {} blobs", shown(kind), self.layers),
            None => format!("{} layers", self.layers),
        };
        let place = shown(&self.place);
        let _ = writeln!(text, "{place}: {digest}, {what}, {size}: {count}");
        text
    }
}

/// Reads all of an image and says what is wrong with it by the specification. An image whose place cannot be asked is an
/// error.
pub fn verify(source: &dyn Source) -> Result<VerifyReport, AuditError> {
    verify_for(source, &[])
}

/// As [`verify`], with the rules of some profiles besides.
pub fn verify_for(source: &dyn Source, profiles: &[Profile]) -> Result<VerifyReport, AuditError> {
    check(source, profiles, 0)
}

/// As [`verify`], but of the lowest `below` layers, which are another image's, nothing is read: what lies where they lie
/// is not this image's to answer for.
pub fn verify_above(source: &dyn Source, below: usize) -> Result<VerifyReport, AuditError> {
    check(source, &[], below)
}

fn check(source: &dyn Source, profiles: &[Profile], below: usize) -> Result<VerifyReport, AuditError> {
    let mut problems = Problems {
        profiles: profiles.to_vec(),
        list: Vec::new(),
    };
    problems.profiles.sort();
    problems.profiles.dedup();
    let manifest = match source.manifest() {
        Err(error) if error.is_damage() => return Ok(VerifyReport::unreadable(source.place(), &error)),
        manifest => manifest?,
    };
    let mut report = VerifyReport {
        platform: None,
        place: source.place().to_owned(),
        digest: Some(manifest.digest()),
        layers: 0,
        bytes: 0,
        profiles: problems.profiles.clone(),
        artifact_type: None,
        kept_elsewhere: Vec::new(),
        problems: Vec::new(),
    };
    report.layers = manifest.layers.len();
    report.bytes = manifest.layers.iter().map(|layer| layer.size).sum();
    if is_artifact(source, &manifest) {
        report.artifact_type = Some(manifest.kind_of_artifact().to_owned());
        report.kept_elsewhere = artifact::check(source, &manifest, &mut problems);
    } else {
        let found = documents(source, manifest, &mut problems);
        let (seen, kept) = layers(source, &found, below, &mut problems);
        report.kept_elsewhere = kept;
        profile::check(source, &found, &seen, &mut problems);
    }
    report.bytes -= report.kept_elsewhere.iter().map(|layer| layer.size).sum::<u64>();
    report.problems = problems.list;
    Ok(report)
}

/// The documents of an image as far as they can be understood.
struct ReadDocuments<'a> {
    manifest: Raw<Manifest>,
    config: Option<Raw<Config>>,
    place: &'a str,
}

/// Checks manifest, config, index and names.
fn documents<'a>(source: &'a dyn Source, manifest: Raw<Manifest>, problems: &mut Problems) -> ReadDocuments<'a> {
    let docker = manifest.is_docker();
    let shape = if docker {
        shape::DOCKER_MANIFEST
    } else {
        shape::MANIFEST
    };
    problems.shape("manifest", manifest.bytes(), shape, docker);
    let mut found = ReadDocuments {
        manifest,
        config: None,
        place: source.place(),
    };
    problems.manifest(&found);
    match read_blob(source, &found.manifest.config, 2 * CONFIG_SIZE_MAX, "the config") {
        Ok(bytes) => {
            let digest = found.manifest.config.digest;
            found.config = problems.document("config", bytes, digest, shape::CONFIG, docker);
        }
        Err(error) => problems.add("config", with_causes(&error)),
    }
    problems.config(&found);
    if let Some(index) = source.index() {
        problems.index(index, &found);
    }
    for name in source.names() {
        problems.name(name);
    }
    for text in source.contradictions() {
        problems.add("archive", text);
    }
    found
}

/// Reads every layer but the lowest `below`.
fn layers(
    source: &dyn Source,
    found: &ReadDocuments<'_>,
    below: usize,
    problems: &mut Problems,
) -> (BTreeMap<usize, LayerSeen>, Vec<KeptElsewhere>) {
    let mut kept = Vec::new();
    let claimed = found
        .config
        .as_ref()
        .map_or_else(Vec::new, |config| config.diff_ids.clone());
    let (mut files, mut seen, mut actual) = (Files::default(), BTreeMap::new(), Vec::new());
    for (index, descriptor) in found.manifest.layers.iter().enumerate().skip(below) {
        let subject = format!("layer {index}");
        match layer::read(source, descriptor, &subject, &mut files, problems) {
            Ok(end) => {
                problems.layer_end(&subject, &descriptor.media_type, claimed.get(index), &end);
                actual.push(end.diff_id);
                seen.insert(
                    index,
                    LayerSeen {
                        packing: end.packing,
                        tar_size: end.tar_size,
                        trailer: end.trailer,
                        begins_with_skippable_frame: end.begins_with_skippable_frame,
                    },
                );
            }
            Err(error) => match KeptElsewhere::of(&error, index, descriptor) {
                Some(layer) => {
                    files.is_partial = true;
                    kept.push(layer);
                }
                None => problems.add(&subject, with_causes(&error)),
            },
        }
    }
    let sorted = |ids: &[DiffId]| {
        let mut ids = ids.to_vec();
        ids.sort();
        ids
    };
    let claimed = claimed.get(below..).unwrap_or_default();
    if actual != claimed && sorted(&actual) == sorted(claimed) {
        let text = format!("those of `{}` are the config's in another order", found.place);
        problems.add("manifest, layers", text);
    }
    (seen, kept)
}

#[derive(Default)]
struct Problems {
    profiles: Vec<Profile>,
    list: Vec<Problem>,
}

impl Problems {
    fn add(&mut self, subject: &str, text: impl Into<String>) {
        self.list.push(Problem {
            subject: subject.to_owned(),
            text: text.into(),
            offset: None,
            rule: None,
            fact: None,
        });
    }

    fn at(&mut self, subject: &str, offset: u64, text: impl Into<String>) {
        self.add(subject, text);
        if let Some(problem) = self.list.last_mut() {
            problem.offset = Some(offset);
        }
    }

    fn rule(&mut self, profile: Profile, rule: &'static str, subject: &str, text: String) {
        self.add(subject, text);
        if let Some(problem) = self.list.last_mut() {
            problem.rule = Some(format!("{}/{rule}", profile.name()));
            problem.fact = profile.fact(rule);
        }
    }

    /// Compares a document with its shape; gives whether nothing is wrong with it.
    fn shape(&mut self, what: &str, bytes: &[u8], shape: Shape, null_is_absent: bool) -> bool {
        let value: Value = match parse_json(bytes) {
            Ok(value) => value,
            Err(error) => {
                self.add(what, with_causes(&error));
                return false;
            }
        };
        let before = self.list.len();
        shape::check(&value, shape, null_is_absent, &mut |field, text| {
            let subject = if field.is_empty() {
                what.to_owned()
            } else {
                format!("{what}, {field}")
            };
            self.add(&subject, text);
        });
        self.list.len() == before
    }

    /// Compares a document with its shape and reads it; `None` where its fields cannot be followed.
    fn document<T: Typed>(
        &mut self,
        what: &str,
        bytes: Vec<u8>,
        digest: ContentDigest,
        shape: Shape,
        null_is_absent: bool,
    ) -> Option<Raw<T>> {
        let sound = self.shape(what, &bytes, shape, null_is_absent);
        match Raw::read_named(bytes, digest) {
            Ok(document) => Some(document),
            // A field that cannot be read was told with its place.
            Err(DocumentError::Shape { .. } | DocumentError::Field { .. } | DocumentError::Json { .. }) if !sound => {
                None
            }
            Err(error) => {
                self.refused(&error);
                None
            }
        }
    }

    /// A document that the strict reader refuses.
    fn refused(&mut self, error: &DocumentError) {
        match error {
            DocumentError::Shape { kind, faults } => {
                for Fault { field, text } in faults {
                    self.add(&format!("{kind}, {field}"), text);
                }
            }
            DocumentError::SchemaVersion { kind, version } => {
                let version = match version.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
                    Some(text) => format!("the string `{text}`"),
                    None => version.clone(),
                };
                let text = format!("it is {version}, and must be 2");
                self.add(&format!("{kind}, schemaVersion"), text);
            }
            DocumentError::Ambiguous { kind, other } => {
                let text = format!("it also has {other}: it could be read as two different documents");
                self.add(&kind.to_string(), text);
            }
            DocumentError::Size { kind, size, limit } => {
                let text = format!("it has {size} bytes, and clients and registries take at most {limit}");
                self.add(&kind.to_string(), text);
            }
            DocumentError::Json { kind, source } => self.add(&kind.to_string(), with_causes(source)),
            error => self.add("archive", with_causes(error)),
        }
    }

    fn manifest(&mut self, found: &ReadDocuments<'_>) {
        let manifest = &found.manifest;
        let config_type = match manifest.is_docker() {
            true => MediaType::DOCKER_CONFIG,
            false => MediaType::CONFIG,
        };
        if manifest.config.media_type != config_type {
            let text = format!(
                "it is `{}`, and an image's is `{config_type}`",
                manifest.config.media_type
            );
            self.add("manifest, config.mediaType", text);
        }
        self.times("manifest", &manifest.annotations);
        for (index, layer) in manifest.layers.iter().enumerate() {
            let media_type = &layer.media_type;
            if packing_of_type(media_type).is_none() {
                let text = format!("its media type `{media_type}` is not a layer's");
                self.add(&format!("layer {index}"), text);
            }
        }
    }

    /// Annotations that the specification gives a form.
    fn times(&mut self, what: &str, annotations: &Annotations) {
        const CREATED: &str = "org.opencontainers.image.created";
        if let Some(time) = annotations.get(CREATED)
            && !shape::is_rfc3339(time)
        {
            let text = format!("it is `{}`, which is not a time of RFC 3339", time.escape_debug());
            self.add(&format!("{what}, annotations[{CREATED:?}]"), text);
        }
        if annotations.contains_key("") {
            self.add(&format!("{what}, annotations"), "a key is empty");
        }
    }

    fn config(&mut self, found: &ReadDocuments<'_>) {
        let Some(config) = &found.config else { return };
        let layers = found.manifest.layers.len();
        let diff_ids = config.diff_ids.len();
        if diff_ids != layers {
            self.add(
                "config, rootfs.diff_ids",
                format!("it has {diff_ids}, and the manifest has {layers} layers"),
            );
        }
        let all = &config.history;
        let history = all.iter().filter(|entry| !entry.is_empty_layer()).count();
        if !all.is_empty() && history != layers {
            self.add(
                "config, history",
                format!("it tells of {history} layers, and the manifest has {layers}"),
            );
        }
    }

    /// The index that lists the image: what it says of the manifest must be so.
    fn index(&mut self, index: &Raw<Index>, found: &ReadDocuments<'_>) {
        self.shape("index", index.bytes(), shape::INDEX, false);
        let manifest = &found.manifest;
        for (number, listed) in index.manifests.iter().enumerate() {
            let subject = |field: &str| format!("index, manifests[{number}].{field}");
            self.times(&format!("index, manifests[{number}]"), &listed.annotations);
            if listed.digest != manifest.digest() {
                continue;
            }
            if listed.size != manifest.size() {
                let text = format!("it is {}, and the manifest has {} bytes", listed.size, manifest.size());
                self.add(&subject("size"), text);
            }
            if listed.media_type != manifest.media_type() && manifest.says_media_type() {
                let text = format!(
                    "it is `{}`, and the manifest's is `{}`",
                    listed.media_type,
                    manifest.media_type()
                );
                self.add(&subject("mediaType"), text);
            }
            let own = found.config.as_ref().and_then(|config| config.platform());
            let (Some(said), Some(own)) = (&listed.platform, own) else {
                continue;
            };
            if (said.os(), said.architecture()) != (own.os(), own.architecture()) {
                self.add(&subject("platform"), format!("it is {said}, and the config says {own}"));
            }
        }
    }

    /// Lengths that no client and no registry exceeds.
    fn name(&mut self, name: &str) {
        let (repository, tag) = match name.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, tag),
            _ => (name, ""),
        };
        for (what, length, most) in [("its tag", tag.len(), TAG_MAX), ("it", repository.len(), NAME_MAX)] {
            if length > most {
                let text = format!("{what} has {length} bytes, and at most {most} can be");
                self.add(&format!("name `{}`", name.escape_debug()), text);
            }
        }
    }

    fn layer_end(&mut self, subject: &str, media_type: &str, claimed: Option<&DiffId>, end: &LayerEnd) {
        if let Some(claimed) = claimed.filter(|&&claimed| claimed != end.diff_id) {
            self.add(
                subject,
                format!("its diffID is {}, and the config says {claimed}", end.diff_id),
            );
        }
        if let Some(claimed) = packing_of_type(media_type).filter(|&claimed| claimed != end.packing) {
            let text = format!(
                "its media type says {}, and its bytes are {}",
                claimed.name(),
                end.packing.name()
            );
            self.add(subject, text);
        }
        if end.left_over > 0 {
            self.add(subject, format!("{} bytes follow its compressed stream", end.left_over));
        }
        let position = end.tar_size - end.trailer.bytes;
        // Fewer than the 1024 that POSIX wants are read by every engine, and `umoci insert` writes none: see `strict`.
        if !end.trailer.zero {
            self.at(subject, position, "bytes other than zero follow its last entry");
        }
    }
}

/// The packing that a layer's media type stands for.
fn packing_of_type(media_type: &str) -> Option<CompressionFormat> {
    let suffix = [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    ]
    .iter()
    .find_map(|prefix| media_type.strip_prefix(prefix))?;
    match suffix {
        "" => Some(CompressionFormat::None),
        "+gzip" | ".gzip" => Some(CompressionFormat::Gzip),
        "+zstd" | ".zstd" => Some(CompressionFormat::Zstd),
        _ => None,
    }
}
