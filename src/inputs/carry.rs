//! To *carry* inputs home is to keep a copy of an artifact on this machine: a layout with all of its blobs but the files from
//! outside, which are asked for where the artifact was.
//!
//! Invariant: the copy is whole or not there; each blob was verified.

use std::io;
use std::path::Path;

use serde_json::json;

use super::artifact::{ARTIFACT_TYPE, PartKind};
use super::error::InputsError;
use super::find::FoundInputs;
use super::place::Place;
use crate::digest::Digest;
use crate::fsio::{self, AtomicFile, IoContext as _};
use crate::oci::{MediaType, canonical_json};

/// What says that a directory is a layout.
const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// Copies an artifact to the directory `to`.
pub fn carry(found: &FoundInputs, to: &Path) -> Result<(), InputsError> {
    let blobs = to.join("blobs/sha256");
    fsio::create_dir_all(&blobs)?;
    let parts = found.artifact.parts.iter();
    for part in parts.filter(|part| !matches!(part.kind, PartKind::Input { .. })) {
        let path = blobs.join(part.digest.hex());
        let mut file = AtomicFile::create(&path)?;
        io::copy(&mut found.part(part)?, file.file()).context("write", &path)?;
        file.publish_unsynced()?;
    }
    for document in [&found.config, &found.manifest] {
        fsio::write_atomic(&blobs.join(Digest::of(document).hex()), document)?;
    }
    fsio::write_atomic(&to.join("oci-layout"), LAYOUT)?;
    // The last, without which there is nothing.
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": MediaType::MANIFEST,
            "artifactType": ARTIFACT_TYPE,
            "digest": Digest::of(&found.manifest).to_string(),
            "size": found.manifest.len(),
        }],
    });
    Ok(fsio::write_atomic(&to.join("index.json"), &canonical_json(&index))?)
}

/// The artifact that was copied to a directory from `place`, if one was.
pub fn open_carried(dir: &Path, place: &str) -> Result<Option<FoundInputs>, InputsError> {
    match dir.join("index.json").is_file() {
        true => Ok(Place::of_layout(place, dir).of_lock()?.into_iter().next()),
        false => Ok(None),
    }
}
