//! An *artifact's check*: its manifest, and every blob against its digest and size.
//!
//! Invariant: nothing is asked of an artifact that only images have: no diffIDs, no tars, no platform.

use std::io::{self, Read};

use super::super::{AuditError, KeptElsewhere};
use super::{Problems, with_causes};
use crate::oci::{Descriptor, Manifest, Raw, shape};
use crate::transport::{Source, TransportError};

/// Reads all of an artifact; gives the blobs that the place does without.
pub(super) fn check(source: &dyn Source, manifest: &Raw<Manifest>, problems: &mut Problems) -> Vec<KeptElsewhere> {
    let docker = manifest.is_docker();
    let shape = match docker {
        true => shape::DOCKER_MANIFEST,
        false => shape::MANIFEST,
    };
    problems.shape("manifest", manifest.bytes(), shape, docker);
    problems.times("manifest", &manifest.annotations);
    source.names().iter().for_each(|name| problems.name(name));
    if let Err(error) = read(source, &manifest.config) {
        problems.add("config", with_causes(&error));
    }
    let mut kept = Vec::new();
    for (index, descriptor) in manifest.layers.iter().enumerate() {
        let Err(error) = read(source, descriptor) else {
            continue;
        };
        match KeptElsewhere::of(&error, index, descriptor) {
            Some(blob) => kept.push(blob),
            None => problems.add(&format!("blob {index}"), with_causes(&error)),
        }
    }
    kept
}

/// Reads a blob to its end, where it is verified.
fn read(source: &dyn Source, descriptor: &Descriptor) -> Result<(), AuditError> {
    let mut blob = source.layer(descriptor)?;
    let mut buffer = [0; 32 << 10];
    loop {
        match blob.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(TransportError::Read {
                    place: source.place().to_owned(),
                    what: format!("the blob `{}`", descriptor.digest),
                    source: error,
                }
                .into());
            }
        }
    }
}
