//! The *artifact* in which inputs are kept: an OCI manifest whose layers are the files themselves, byte for byte.
//!
//! Invariant: its bytes are a function of what it holds and of the image that it is about; what is read of one has
//! passed every check that its use relies on.
//!
//! # The format (OCI image-spec v1.1, manifest.md, "Guidelines for Artifact Usage")
//! `artifactType` is [`ARTIFACT_TYPE`], `subject` the image. A layer's media type and annotations say what it is:
//!
//! | layer | media type | annotations |
//! |---|---|---|
//! | a file from outside | that of a `.deb`, else `application/octet-stream` | `dev.layerize.input.name`, `….version`, `….hash`, title |
//! | spec, lock, layer plan | `application/vnd.layerize.{spec.v1+toml,lock.v1+toml,plan.v1+json}` | `dev.layerize.path` |
//! | a package's local source | `application/vnd.layerize.source.v1.nar` | `dev.layerize.package` |
//! | a local file or tree of an image | `application/vnd.layerize.files.v1.nar` | `dev.layerize.path` |
//! | manifest or config of a base | `application/vnd.layerize.base.v1+json` | |
//!
//! `….hash` stands where the lock knows the file by another hash than its SHA-256, which is the blob's digest.
//!
//! Paths are relative to a common directory of all local files. The config says the rest: which image of which spec it
//! is, what was withheld, and the number of this format.
//!
//! # Its names
//! One artifact for each image, because an artifact lives and dies with its subject. It has the tag `sha256-HEX.inputs`
//! ([`tag_of`]) after its image, as cosign names what belongs to an image; and the first artifact of a lock has the tag
//! `inputs-HEX` ([`anchor_of`]) after the lock, where the next push with the same lock sees that all files are there.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::error::InputsError;
use crate::digest::{Digest, FileHash, ParseFileHashError};
use crate::image::{Image, ImageLayer};
use crate::layer::Blob;
use crate::oci::{self, Annotations, ConfigDocument, Descriptor, Manifest, Raw, Subject, canonical_json, parse_json};
use crate::spec::{self, Lock, PackageName};
use crate::transport::TransportError;

/// Type of the artifact.
pub const ARTIFACT_TYPE: &str = "application/vnd.layerize.inputs.v1";
/// Number of the rules above.
const FORMAT: u32 = 1;
/// Most blobs of an artifact: what a manifest of registries' size can list.
const PARTS_MAX: usize = 50_000;
/// Longest path or name in bytes.
const TEXT_MAX: usize = 4096;
/// Largest config in bytes.
pub(super) const CONFIG_MAX: u64 = 4 << 20;
/// How many hexadecimal digits of a lock's digest its tag has.
const ANCHOR_DIGITS: usize = 40;

const CONFIG_TYPE: &str = "application/vnd.layerize.inputs.config.v1+json";
const DEB_TYPE: &str = "application/vnd.debian.binary-package";
const FILE_TYPE: &str = "application/octet-stream";
const SPEC_TYPE: &str = "application/vnd.layerize.spec.v1+toml";
const LOCK_TYPE: &str = "application/vnd.layerize.lock.v1+toml";
const PLAN_TYPE: &str = "application/vnd.layerize.plan.v1+json";
const SOURCE_TYPE: &str = "application/vnd.layerize.source.v1.nar";
const FILES_TYPE: &str = "application/vnd.layerize.files.v1.nar";
const BASE_TYPE: &str = "application/vnd.layerize.base.v1+json";

const NAME: &str = "dev.layerize.input.name";
const VERSION: &str = "dev.layerize.input.version";
const HASH: &str = "dev.layerize.input.hash";
const TITLE: &str = "org.opencontainers.image.title";
const PATH: &str = "dev.layerize.path";
const PACKAGE: &str = "dev.layerize.package";

/// A file that a build takes from outside.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InputFile {
    /// What the user calls it: `deb:gcc-12`, `deb-source:hello`, or the package whose source it is.
    pub name: String,
    /// Version, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// File name without directory.
    pub file: String,
    /// What its bytes must be, as the lock or the spec has it.
    pub digest: FileHash,
    /// Size in bytes, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// A blob of an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What it is.
    pub kind: PartKind,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
}

/// What a blob of an artifact is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PartKind {
    /// A file from outside.
    Input {
        /// What the user calls it.
        name: String,
        /// Version, where it has one.
        version: Option<String>,
        /// File name without directory.
        file: String,
        /// What the lock knows it by, where that is not its SHA-256.
        hash: Option<FileHash>,
    },
    /// A text of the project.
    Text {
        /// Which.
        kind: TextKind,
        /// Where it is.
        path: String,
    },
    /// The canonical archive of a package's local source, filtered.
    Source {
        /// The package.
        package: PackageName,
    },
    /// The canonical archive of a local file or tree that an image takes in.
    Files {
        /// Where it is.
        path: String,
    },
    /// Manifest or config of the image that the image is laid over.
    Base,
}

/// Which text of a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TextKind {
    /// `layerize.toml`, or an imported spec.
    Spec,
    /// `layerize.lock`.
    Lock,
    /// A layer plan.
    Plan,
}

/// How an image was made beyond what its spec says: flags that neither the image nor its spec tells.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct MadeWith {
    /// `gzip:9`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<String>,
    /// `PATH=MODE`, in their order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chmod: Vec<String>,
    /// `PATH=OWNER[:GROUP]`, in their order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chown: Vec<String>,
    /// Whether a Nix database was asked for.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub nix_db: bool,
    /// Whether each layer is one gzip member.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub single_member: bool,
}

/// What an artifact is about.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct About {
    /// The image's name in the spec; `None` for a whole project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// How it was made beyond what the spec says.
    #[serde(default, skip_serializing_if = "is_default")]
    pub made_with: MadeWith,
    /// Where the spec is among the texts; `None` where no texts are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<String>,
    /// Why no texts are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unportable: Option<String>,
    /// Whether the local files are kept.
    #[serde(default)]
    pub local_files: bool,
    /// Files from outside that may not be copied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withheld: Vec<InputFile>,
}

fn is_default(made_with: &MadeWith) -> bool {
    *made_with == MadeWith::default()
}

/// An artifact as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Digest of its manifest.
    pub digest: Digest,
    /// The image that it is about.
    pub subject: Option<Digest>,
    /// What it is about.
    pub about: About,
    /// Its blobs.
    pub parts: Vec<Part>,
}

/// The tag of the artifact of an image.
pub fn tag_of(image: &Digest) -> String {
    format!("sha256-{}.inputs", image.hex())
}

/// The tag of the first artifact of a lock. Recorded digests of images and numbers of
/// accounts do not count: they are no inputs from outside.
pub fn anchor_of(lock: &Lock) -> String {
    let inputs = Lock {
        accounts: Default::default(),
        golden: Default::default(),
        ..lock.clone()
    };
    let digest = Digest::of(spec::lock::print(&inputs).as_bytes()).hex();
    format!("inputs-{}", &digest[..ANCHOR_DIGITS])
}

#[derive(Serialize, Deserialize)]
struct ArtifactConfig {
    format: u32,
    #[serde(flatten)]
    about: About,
}

/// An artifact of `parts`, each with where its bytes are, as the value that transports write.
pub fn write(about: &About, subject: Option<&Subject>, mut parts: Vec<(Part, Blob)>) -> Result<Image, InputsError> {
    parts.sort_by(|(a, _), (b, _)| (&a.kind, a.digest).cmp(&(&b.kind, b.digest)));
    let config = canonical_json(&ArtifactConfig {
        format: FORMAT,
        about: about.clone(),
    });
    let config = Raw::opaque(config.clone(), Digest::of(&config).into());
    let layers: Vec<ImageLayer> = parts.into_iter().map(|(part, blob)| layer(&part, blob)).collect();
    let mut manifest = oci::Manifest::new(
        oci::Descriptor::new(CONFIG_TYPE, config.digest(), config.size()),
        layers.iter().map(|layer| layer.descriptor.clone()).collect(),
        Annotations::new(),
    );
    manifest.artifact_type = Some(ARTIFACT_TYPE.to_owned());
    manifest.subject = subject.map(|subject| oci::Descriptor::new(&subject.media_type, subject.digest, subject.size));
    let count = layers.len();
    let manifest = Raw::write(manifest).map_err(|source| InputsError::TooMany { parts: count, source })?;
    Ok(Image {
        manifest,
        config: ConfigDocument::Artifact(config),
        layers,
    })
}

fn layer(part: &Part, content: Blob) -> ImageLayer {
    let annotations = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned()));
        pairs.collect::<Annotations>()
    };
    let (media_type, annotations) = match &part.kind {
        PartKind::Input {
            name,
            version,
            file,
            hash,
        } => {
            let media_type = if file.ends_with(".deb") { DEB_TYPE } else { FILE_TYPE };
            let mut said = annotations(&[(NAME, name), (TITLE, file)]);
            said.extend(version.clone().map(|version| (VERSION.to_owned(), version)));
            said.extend(hash.map(|hash| (HASH.to_owned(), hash.to_string())));
            (media_type, said)
        }
        PartKind::Text { kind, path } => (kind.media_type(), annotations(&[(PATH, path)])),
        PartKind::Source { package } => (SOURCE_TYPE, annotations(&[(PACKAGE, &package.0)])),
        PartKind::Files { path } => (FILES_TYPE, annotations(&[(PATH, path)])),
        PartKind::Base => (BASE_TYPE, Annotations::new()),
    };
    ImageLayer {
        descriptor: oci::Descriptor {
            annotations,
            ..oci::Descriptor::new(media_type, part.digest, part.size)
        },
        diff_id: None,
        content,
    }
}

impl TextKind {
    fn media_type(self) -> &'static str {
        match self {
            Self::Spec => SPEC_TYPE,
            Self::Lock => LOCK_TYPE,
            Self::Plan => PLAN_TYPE,
        }
    }
}

/// The artifact of a manifest, with the config that the manifest names.
pub(super) fn read(manifest: &Raw<Manifest>, config: &[u8], place: &str) -> Result<Artifact, InputsError> {
    let malformed = |reason: String| InputsError::Malformed {
        place: place.to_owned(),
        reason,
    };
    let ArtifactConfig { format, about } = parse_json(config).map_err(|source| TransportError::Json {
        place: place.to_owned(),
        what: "the config of the inputs".to_owned(),
        source,
    })?;
    if format != FORMAT {
        return Err(InputsError::Format {
            place: place.to_owned(),
            format,
            known: FORMAT,
        });
    }
    if manifest.layers.len() > PARTS_MAX {
        return Err(malformed(format!("there are more than {PARTS_MAX} of them")));
    }
    let parts = manifest.layers.iter().map(part).collect::<Result<Vec<_>, _>>();
    let artifact = Artifact {
        digest: Digest::of(manifest.bytes()),
        subject: manifest.subject.as_ref().and_then(|subject| subject.digest.sha256()),
        about,
        parts: parts.map_err(malformed)?,
    };
    artifact.check().map_err(malformed)?;
    Ok(artifact)
}

fn part(descriptor: &Descriptor) -> Result<Part, String> {
    let text = |key: &str| match descriptor.annotation(key) {
        Some(text) if !text.is_empty() && text.len() <= TEXT_MAX && !text.contains(char::is_control) => {
            Ok(text.to_owned())
        }
        Some(_) => Err(format!(
            "the annotation `{key}` of `{}` cannot be used",
            descriptor.digest
        )),
        None => Err(format!("`{}` has no annotation `{key}`", descriptor.digest)),
    };
    let path = || text(PATH).and_then(relative_path);
    let kind = match descriptor.media_type.as_str() {
        DEB_TYPE | FILE_TYPE => PartKind::Input {
            name: text(NAME)?,
            version: descriptor.annotation(VERSION).map(|_| text(VERSION)).transpose()?,
            file: text(TITLE)?,
            hash: descriptor.annotation(HASH).map(|_| hash(&text(HASH)?)).transpose()?,
        },
        SPEC_TYPE => PartKind::text(TextKind::Spec, path()?),
        LOCK_TYPE => PartKind::text(TextKind::Lock, path()?),
        PLAN_TYPE => PartKind::text(TextKind::Plan, path()?),
        SOURCE_TYPE => PartKind::Source {
            package: PackageName(text(PACKAGE)?),
        },
        FILES_TYPE => PartKind::Files { path: path()? },
        BASE_TYPE => PartKind::Base,
        other => {
            return Err(format!(
                "`{}` is of the unknown type `{}`",
                descriptor.digest,
                other.escape_debug()
            ));
        }
    };
    let digest = descriptor.digest.sha256();
    Ok(Part {
        kind,
        digest: digest.ok_or_else(|| format!("`{}` is not a SHA-256, as a lock has", descriptor.digest))?,
        size: descriptor.size,
    })
}

/// What a file is known by beside its SHA-256.
fn hash(text: &str) -> Result<FileHash, String> {
    let hash: FileHash = text.parse().map_err(|error: ParseFileHashError| error.to_string())?;
    match hash.sha256() {
        None => Ok(hash),
        Some(_) => Err(format!(
            "the annotation `{HASH}` names a SHA-256, as the blob's digest does"
        )),
    }
}

/// A path that leads nowhere but downwards, or `.`.
fn relative_path(text: String) -> Result<String, String> {
    let is_name = |part: &str| !matches!(part, "" | "." | "..");
    match text == "." || text.split('/').all(is_name) {
        true => Ok(text),
        false => Err(format!("the path `{}` does not lead downwards", text.escape_debug())),
    }
}

impl PartKind {
    fn text(kind: TextKind, path: String) -> Self {
        Self::Text { kind, path }
    }

    /// Where it is to be written to, of what is written to a directory.
    fn place(&self) -> Option<&str> {
        match self {
            Self::Files { path }
            | Self::Text {
                path,
                kind: TextKind::Plan,
            } => Some(path),
            Self::Text { .. } | Self::Input { .. } | Self::Source { .. } | Self::Base => None,
        }
    }
}

impl Artifact {
    /// What holds of all parts together.
    fn check(&self) -> Result<(), String> {
        let texts = self
            .parts
            .iter()
            .filter(|part| matches!(part.kind, PartKind::Text { .. }));
        let sources = self
            .parts
            .iter()
            .filter(|part| matches!(part.kind, PartKind::Source { .. }));
        let mut seen = BTreeSet::new();
        if let Some(again) = texts.chain(sources).find(|part| !seen.insert(&part.kind)) {
            return Err(format!("{:?} appears twice", again.kind));
        }
        let places: Vec<&str> = self.parts.iter().filter_map(|part| part.kind.place()).collect();
        let mut sorted = places.clone();
        sorted.sort_unstable();
        // Nothing may be written into what another part has written.
        let overlaps = |inner: &str| {
            let above = inner.match_indices('/').map(|(end, _)| &inner[..end]);
            above
                .chain(["."])
                .any(|above| sorted.binary_search(&above).is_ok() && inner != above)
        };
        let twice = sorted.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
        if let Some(path) = twice.or_else(|| places.iter().copied().find(|path| overlaps(path))) {
            return Err(format!("`{}` lies where another part is", path.escape_debug()));
        }
        let Some(spec) = &self.about.spec else { return Ok(()) };
        if self.text(TextKind::Spec, spec).is_none() {
            return Err(format!("the spec `{}` is missing", spec.escape_debug()));
        }
        match self.texts(TextKind::Lock).count() {
            1 => Ok(()),
            count => Err(format!("there are {count} locks, not one")),
        }
    }

    /// The texts of a kind, each with its path.
    pub fn texts(&self, kind: TextKind) -> impl Iterator<Item = (&str, &Part)> {
        self.parts.iter().filter_map(move |part| match &part.kind {
            PartKind::Text { kind: found, path } if *found == kind => Some((path.as_str(), part)),
            _ => None,
        })
    }

    fn text(&self, kind: TextKind, wanted: &str) -> Option<&Part> {
        self.texts(kind).find(|(path, _)| *path == wanted).map(|(_, part)| part)
    }

    /// The file from outside that a hash knows, verified by nothing yet.
    pub(super) fn input(&self, wanted: &FileHash) -> Option<&Part> {
        self.parts.iter().find(|part| match &part.kind {
            PartKind::Input { hash, .. } => *wanted == part.digest || hash.as_ref() == Some(wanted),
            _ => false,
        })
    }

    /// The blobs of files that locks know by other hashes than SHA-256.
    pub(super) fn known_by(&self) -> impl Iterator<Item = (FileHash, Digest)> {
        self.parts.iter().filter_map(|part| match &part.kind {
            PartKind::Input { hash, .. } => Some(((*hash)?, part.digest)),
            _ => None,
        })
    }

    /// The files from outside that it holds.
    pub fn inputs(&self) -> impl Iterator<Item = InputFile> {
        self.parts.iter().filter_map(|part| match &part.kind {
            PartKind::Input {
                name,
                version,
                file,
                hash,
            } => Some(InputFile {
                name: name.clone(),
                version: version.clone(),
                file: file.clone(),
                digest: hash.unwrap_or(part.digest.into()),
                size: Some(part.size),
            }),
            _ => None,
        })
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_inputs_artifact() {
        crate::testing::fuzz("inputs-artifact", |bytes| {
            let zero = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
            let (manifest, config) = (&bytes[..zero], bytes.get(zero + 1..).unwrap_or_default());
            if let Ok(manifest) = super::Raw::<super::Manifest>::read(manifest.to_vec()) {
                let _ = super::read(&manifest, config, "fuzz");
            }
        });
    }
}
