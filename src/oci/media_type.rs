//! A *media type* names what a blob is: OCI's own names for what is written, Docker's schema 2 names read alike.
//!
//! Invariant: each name that is known has one meaning; parameters (`; charset=…`) and letter case do not change it
//! (RFC 6838), and an unknown name is kept, not guessed at.

use std::fmt;

/// What a media type says its blob is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum MediaType {
    /// A manifest, index or config, in OCI's or Docker's form (the same fields).
    Document(DocumentKind),
    /// A layer's tar and how it is compressed.
    Layer(LayerCodec),
    /// A layer that may be had from its vendor alone: Docker's *foreign*, OCI's *non-distributable* one.
    ForeignLayer(LayerCodec),
    /// Something else: an artifact, an attestation.
    Other(String),
}

/// The three documents of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DocumentKind {
    /// One image for one platform.
    Manifest,
    /// A list of manifests.
    Index,
    /// What a container runs, and the diffIDs.
    Config,
}

/// How a layer's tar is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LayerCodec {
    /// Not at all.
    None,
    /// gzip, of one or many members.
    Gzip,
    /// zstd, of one or many frames.
    Zstd,
}

impl MediaType {
    /// `application/vnd.oci.image.manifest.v1+json`.
    pub const MANIFEST: &'static str = "application/vnd.oci.image.manifest.v1+json";
    /// `application/vnd.oci.image.index.v1+json`.
    pub const INDEX: &'static str = "application/vnd.oci.image.index.v1+json";
    /// `application/vnd.oci.image.config.v1+json`.
    pub const CONFIG: &'static str = "application/vnd.oci.image.config.v1+json";
    /// `application/vnd.oci.image.layer.v1.tar`; `+gzip` or `+zstd` may follow.
    pub const LAYER: &'static str = "application/vnd.oci.image.layer.v1.tar";
    /// Docker's manifest, schema 2.
    pub const DOCKER_MANIFEST: &'static str = "application/vnd.docker.distribution.manifest.v2+json";
    /// Docker's manifest list.
    pub const DOCKER_MANIFEST_LIST: &'static str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// Docker's image config.
    pub const DOCKER_CONFIG: &'static str = "application/vnd.docker.container.image.v1+json";

    /// Understands a media type as it stands in a descriptor or a `Content-Type` header.
    pub fn parse(text: &str) -> Self {
        let essence = text.split(';').next().unwrap_or(text).trim().to_ascii_lowercase();
        match essence.as_str() {
            Self::MANIFEST | Self::DOCKER_MANIFEST => Self::Document(DocumentKind::Manifest),
            Self::INDEX | Self::DOCKER_MANIFEST_LIST => Self::Document(DocumentKind::Index),
            Self::CONFIG | Self::DOCKER_CONFIG => Self::Document(DocumentKind::Config),
            _ => Self::layer(&essence).unwrap_or(Self::Other(essence)),
        }
    }

    fn layer(essence: &str) -> Option<Self> {
        let (foreign, suffix) = LAYERS
            .iter()
            .find_map(|(prefix, foreign)| Some((*foreign, essence.strip_prefix(prefix)?)))?;
        let codec = match suffix {
            "" => LayerCodec::None,
            "+gzip" | ".gzip" => LayerCodec::Gzip,
            "+zstd" | ".zstd" => LayerCodec::Zstd,
            _ => return None,
        };
        Some(match foreign {
            false => Self::Layer(codec),
            true => Self::ForeignLayer(codec),
        })
    }
}

/// How the names of layers begin, and whether these are foreign.
const LAYERS: &[(&str, bool)] = &[
    (MediaType::LAYER, false),
    ("application/vnd.docker.image.rootfs.diff.tar", false),
    ("application/vnd.oci.image.layer.nondistributable.v1.tar", true),
    ("application/vnd.docker.image.rootfs.foreign.diff.tar", true),
];

impl DocumentKind {
    /// OCI's name for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Manifest => MediaType::MANIFEST,
            Self::Index => MediaType::INDEX,
            Self::Config => MediaType::CONFIG,
        }
    }
}

impl fmt::Display for DocumentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Manifest => "manifest",
            Self::Index => "index",
            Self::Config => "config",
        })
    }
}

impl LayerCodec {
    /// OCI's name for a layer compressed in this way.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::None => MediaType::LAYER,
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// Prints OCI's name, also for what was read under Docker's.
impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Document(kind) => kind.as_str(),
            Self::Layer(codec) => codec.media_type(),
            Self::ForeignLayer(LayerCodec::None) => "application/vnd.oci.image.layer.nondistributable.v1.tar",
            Self::ForeignLayer(LayerCodec::Gzip) => "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
            Self::ForeignLayer(LayerCodec::Zstd) => "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
            Self::Other(text) => text,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oci_and_docker_names_mean_the_same() {
        let cases = [
            (MediaType::MANIFEST, MediaType::Document(DocumentKind::Manifest)),
            (MediaType::DOCKER_MANIFEST, MediaType::Document(DocumentKind::Manifest)),
            (MediaType::INDEX, MediaType::Document(DocumentKind::Index)),
            (
                MediaType::DOCKER_MANIFEST_LIST,
                MediaType::Document(DocumentKind::Index),
            ),
            (MediaType::CONFIG, MediaType::Document(DocumentKind::Config)),
            (MediaType::DOCKER_CONFIG, MediaType::Document(DocumentKind::Config)),
            (MediaType::LAYER, MediaType::Layer(LayerCodec::None)),
            (
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
                MediaType::Layer(LayerCodec::Gzip),
            ),
            (
                "Application/vnd.OCI.image.layer.v1.tar+zstd; a=b",
                MediaType::Layer(LayerCodec::Zstd),
            ),
            (
                "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                MediaType::ForeignLayer(LayerCodec::Gzip),
            ),
            (
                "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
                MediaType::ForeignLayer(LayerCodec::Zstd),
            ),
            (
                "application/vnd.oci.image.layer.v1.tar+xz",
                MediaType::Other("application/vnd.oci.image.layer.v1.tar+xz".to_owned()),
            ),
            ("", MediaType::Other(String::new())),
        ];
        for (text, expected) in cases {
            assert_eq!(MediaType::parse(text), expected, "{text}");
            assert_eq!(MediaType::parse(&expected.to_string()), expected, "printing {text}");
        }
    }
}
