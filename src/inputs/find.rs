//! *Finding* the inputs of an image: by their own tag beside it, else among its referrers.
//!
//! Invariant: what is found says that it is about the image, or about none.

use std::sync::Arc;

use super::artifact::{self, ARTIFACT_TYPE, Artifact, CONFIG_MAX, Part, tag_of};
use super::error::InputsError;
use crate::digest::{Digest, VerifyingReader};
use crate::layer::Origin;
use crate::oci::{Document, Manifest, Raw};
use crate::transport::{self, Source, TransportError};

/// Most artifacts of an image that are looked at.
const MANIFESTS_MAX: usize = 20;

/// An artifact and where its blobs can be read.
#[derive(Debug, Clone)]
pub struct FoundInputs {
    /// The artifact.
    pub artifact: Artifact,
    /// The place, as the user wrote it.
    pub place: String,
    /// Its manifest.
    pub(super) manifest: Vec<u8>,
    /// Its config.
    pub(super) config: Vec<u8>,
    /// The place's blobs, unverified.
    pub(super) origin: Arc<dyn Origin>,
}

/// The inputs that are kept beside an image, if any are.
pub fn beside(source: &Arc<dyn Source>, image: &Digest) -> Result<Option<FoundInputs>, InputsError> {
    let place = source.place();
    let mut manifests: Vec<Raw<Manifest>> = source.tagged(&tag_of(image))?.into_iter().collect();
    if manifests.is_empty() {
        manifests = referring(source.as_ref())?;
    }
    let origin = transport::origin(source);
    for manifest in manifests {
        let found = open(&manifest, &origin, place)?;
        if found
            .as_ref()
            .is_some_and(|found| found.artifact.subject == Some(*image))
        {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Manifests of inputs among what refers to an image: those that were copied without their tags.
fn referring(source: &dyn Source) -> Result<Vec<Raw<Manifest>>, InputsError> {
    let listed = source.referrers()?.listed.into_iter();
    let inputs = listed.filter(|listed| listed.artifact_type.as_deref() == Some(ARTIFACT_TYPE));
    let mut manifests = Vec::new();
    for listed in inputs.take(MANIFESTS_MAX) {
        if let Document::Manifest(manifest) = source.listed(&listed.descriptor())? {
            manifests.push(manifest);
        }
    }
    Ok(manifests)
}

/// The artifact of a manifest, its config read from where it lies; `None` where it is something else.
pub(super) fn open(
    manifest: &Raw<Manifest>,
    origin: &Arc<dyn Origin>,
    place: &str,
) -> Result<Option<FoundInputs>, InputsError> {
    if manifest.artifact_type.as_deref() != Some(ARTIFACT_TYPE) {
        return Ok(None);
    }
    let (what, descriptor) = ("the config of the inputs", &manifest.config);
    let digest = descriptor.digest.sha256().ok_or_else(|| InputsError::Malformed {
        place: place.to_owned(),
        reason: format!("its config `{}` is not named by a SHA-256", descriptor.digest),
    })?;
    let config = read(origin.as_ref(), &digest, descriptor.size, CONFIG_MAX, what, place)?;
    Ok(Some(FoundInputs {
        artifact: artifact::read(manifest, &config, place)?,
        place: place.to_owned(),
        manifest: manifest.bytes().to_vec(),
        config,
        origin: origin.clone(),
    }))
}

impl FoundInputs {
    /// Opens a part; verified at its end.
    pub(super) fn part(&self, part: &Part) -> Result<impl std::io::Read + use<>, InputsError> {
        let opened = self.origin.open(&part.digest.into(), part.size);
        let reader = opened.map_err(|source| self.unreadable(part, source))?;
        Ok(VerifyingReader::new(reader, part.digest, Some(part.size)))
    }

    /// A whole part of at most `limit` bytes.
    pub(super) fn bytes(&self, part: &Part, limit: u64, what: &str) -> Result<Vec<u8>, InputsError> {
        read(self.origin.as_ref(), &part.digest, part.size, limit, what, &self.place)
    }

    fn unreadable(&self, part: &Part, source: std::io::Error) -> InputsError {
        let what = format!("the blob `{}`", part.digest);
        let place = self.place.clone();
        TransportError::Read { place, what, source }.into()
    }
}

fn read(
    origin: &dyn Origin,
    digest: &Digest,
    size: u64,
    limit: u64,
    what: &str,
    place: &str,
) -> Result<Vec<u8>, InputsError> {
    let (place, what) = (place.to_owned(), format!("{what} `{digest}`"));
    if size > limit {
        return Err(TransportError::TooLarge { place, what, limit }.into());
    }
    let mut bytes = Vec::new();
    let read = origin.open(&(*digest).into(), size).and_then(|reader| {
        std::io::Read::read_to_end(&mut VerifyingReader::new(reader, *digest, Some(size)), &mut bytes)
    });
    match read {
        Ok(_) => Ok(bytes),
        Err(source) => Err(TransportError::Read { place, what, source }.into()),
    }
}
