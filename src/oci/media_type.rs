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
    /// Something else: an artifact, an attestation, a foreign layer.
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
            Self::LAYER | "application/vnd.docker.image.rootfs.diff.tar" => Self::Layer(LayerCodec::None),
            "application/vnd.oci.image.layer.v1.tar+gzip" | "application/vnd.docker.image.rootfs.diff.tar.gzip" => {
                Self::Layer(LayerCodec::Gzip)
            }
            "application/vnd.oci.image.layer.v1.tar+zstd" | "application/vnd.docker.image.rootfs.diff.tar.zstd" => {
                Self::Layer(LayerCodec::Zstd)
            }
            _ => Self::Other(essence),
        }
    }
}

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
                MediaType::Other("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip".to_owned()),
            ),
            ("", MediaType::Other(String::new())),
        ];
        for (text, expected) in cases {
            assert_eq!(MediaType::parse(text), expected, "{text}");
            assert_eq!(MediaType::parse(&expected.to_string()), expected, "printing {text}");
        }
    }
}
