//! An *artifact* is a document stored beside an image, in a manifest that names the image as its `subject`
//! (OCI image-spec v1.1, manifest.md, "Guidelines for Artifact Usage").
//!
//! Invariant: a value without any transport: canonical manifest bytes and the blobs they name, so that layouts and
//! registries store the same bytes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::digest::Digest;

use super::canonical_json;
use super::media_type::MediaType;

/// Media type of the empty config.
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// The empty config.
const EMPTY: &[u8] = b"{}";
/// Annotation of a layer: the file name for whoever downloads it.
const TITLE: &str = "org.opencontainers.image.title";

/// The manifest that an artifact is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Its media type.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// A document, ready to be stored beside its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Canonical bytes of the manifest.
    pub manifest: Vec<u8>,
    /// Digest of `manifest`.
    pub digest: Digest,
    /// What kind of artifact it is: a media type.
    pub artifact_type: String,
    /// The manifest's annotations, which lists of referrers repeat.
    pub annotations: BTreeMap<String, String>,
    /// What it is about.
    pub subject: Subject,
    /// The blobs that the manifest names: the empty config and the document.
    pub blobs: Vec<(Digest, Vec<u8>)>,
}

impl Artifact {
    /// A document as an artifact; its media type is the artifact's type.
    pub fn new(
        subject: Subject,
        artifact_type: &str,
        annotations: BTreeMap<String, String>,
        document: Vec<u8>,
        file_name: &str,
    ) -> Self {
        let digest = Digest::of(&document);
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::MANIFEST,
            "artifactType": artifact_type,
            "config": { "mediaType": EMPTY_TYPE, "digest": Digest::of(EMPTY), "size": EMPTY.len(), "data": "e30=" },
            "layers": [{
                "mediaType": artifact_type,
                "digest": digest,
                "size": document.len(),
                "annotations": { TITLE: file_name },
            }],
            "subject": { "mediaType": subject.media_type, "digest": subject.digest, "size": subject.size },
        });
        if !annotations.is_empty() {
            manifest["annotations"] = json!(annotations);
        }
        let manifest = canonical_json(&manifest);
        Self {
            digest: Digest::of(&manifest),
            manifest,
            artifact_type: artifact_type.to_owned(),
            annotations,
            subject,
            blobs: vec![(Digest::of(EMPTY), EMPTY.to_vec()), (digest, document)],
        }
    }

    /// Its descriptor as lists of referrers have it (distribution-spec, "Listing Referrers").
    pub fn descriptor(&self) -> Value {
        let mut descriptor = json!({
            "mediaType": MediaType::MANIFEST,
            "digest": self.digest,
            "size": self.manifest.len(),
            "artifactType": self.artifact_type,
        });
        if !self.annotations.is_empty() {
            descriptor["annotations"] = json!(self.annotations);
        }
        descriptor
    }
}

impl Subject {
    /// The tag under which places without a list of referrers keep one (distribution-spec, "Referrers Tag Schema").
    pub fn fallback_tag(&self) -> String {
        format!("sha256-{}", self.digest.hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_artifact_has_one_text() {
        let subject = Subject {
            media_type: MediaType::MANIFEST.to_owned(),
            digest: Digest::of(b"image"),
            size: 5,
        };
        assert_eq!(
            subject.fallback_tag(),
            "sha256-6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d"
        );
        let annotations = BTreeMap::from([("b".to_owned(), "2".to_owned()), ("a".to_owned(), "1".to_owned())]);
        let artifact = Artifact::new(subject, "text/x", annotations, b"hi".to_vec(), "hi.txt");
        assert_eq!(
            String::from_utf8(artifact.manifest.clone()).unwrap(),
            concat!(
                r#"{"annotations":{"a":"1","b":"2"},"artifactType":"text/x","config":{"data":"e30=","digest":"#,
                r#""sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","mediaType":"#,
                r#""application/vnd.oci.empty.v1+json","size":2},"layers":[{"annotations":{"org.opencontainers.image.title":"#,
                r#""hi.txt"},"digest":"sha256:8f434346648f6b96df89dda901c5176b10a6d83961dd3c1ac88b59b2dc327aa4","#,
                r#""mediaType":"text/x","size":2}],"mediaType":"application/vnd.oci.image.manifest.v1+json","#,
                r#""schemaVersion":2,"subject":{"digest":"#,
                r#""sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d","#,
                r#""mediaType":"application/vnd.oci.image.manifest.v1+json","size":5}}"#
            )
        );
        assert_eq!(artifact.descriptor()["artifactType"], "text/x");
        assert_eq!(artifact.descriptor()["annotations"]["a"], "1");
    }
}
