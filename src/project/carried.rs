//! A *carried spec* lies beside an image, among the inputs that were kept with it.
//!
//! Invariant: what is used is what was kept of the image that is pinned; where the network may be used, a name of an image
//! stands for what it names now, else for what it was when it was asked last.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::digest::Digest;
use crate::fetch;
use crate::fsio;
use crate::inputs::{self, FoundInputs, InputsError};
use crate::oci::Reference;
use crate::transport::{Location, Source};

use super::environment::Environment;
use super::error::ProjectError;
use super::spec_place::SpecPlaceError;

/// The file with the digest of the image that is pinned.
const PIN: &str = "image";

/// Largest such file in bytes.
const PIN_BYTES_MAX: u64 = 1000;

/// A spec that an image carries.
#[derive(Debug, Clone)]
pub struct CarriedSpec {
    /// What was kept beside the image, but for files from outside; it is on this machine.
    pub found: FoundInputs,
    /// The image's name in the spec.
    pub image: String,
    /// Where the image is, and with it the files from outside.
    place: inputs::Place,
}

impl CarriedSpec {
    /// What the files from outside are asked of.
    pub(super) fn inputs(&self, offline: bool) -> Option<Arc<dyn fetch::Place>> {
        let is_local = fetch::Place::is_local(&self.place);
        (is_local || !offline).then(|| Arc::new(self.place.clone()) as Arc<dyn fetch::Place>)
    }
}

/// Fetches the spec that the image at a location carries; what is pinned of it is kept in `dir`.
pub(super) fn fetch(
    location: &Location,
    dir: &Path,
    offline: bool,
    environment: &Environment<'_>,
) -> Result<CarriedSpec, ProjectError> {
    let pinned = pinned(dir);
    let text = location.to_string();
    let (asks_network, is_fixed) = match location {
        Location::Registry(name) => (true, name.parse::<Reference>()?.digest().is_some()),
        _ => (false, false),
    };
    let stays = pinned.filter(|_| asks_network && (offline || is_fixed));
    let (digest, source): (Digest, Option<Arc<dyn Source>>) = match stays {
        Some(digest) => (digest, None),
        None if asks_network && offline => return Err(ProjectError::Offline { place: text }),
        None => {
            let source: Arc<dyn Source> = Arc::from(environment.source(&text, None)?);
            (Digest::of(source.manifest()?.bytes()), Some(source))
        }
    };
    let kept = place_of(dir, &digest);
    let found = match inputs::open_carried(&kept, &text)? {
        Some(found) => found,
        None => {
            let source = match source {
                Some(source) => source,
                None if offline => return Err(ProjectError::Offline { place: text }),
                None => Arc::from(environment.source(&text, None)?),
            };
            let none = || SpecPlaceError::CarriesNone { place: text.clone() };
            let found = inputs::beside(&source, &digest)?.ok_or_else(none)?;
            inputs::carry(&found, &kept)?;
            inputs::open_carried(&kept, &text)?.ok_or_else(none)?
        }
    };
    if pinned != Some(digest) {
        fsio::write_atomic(&dir.join(PIN), format!("{}\n", digest.hex()).as_bytes())?;
        if let Some(before) = pinned
            .map(|before| place_of(dir, &before))
            .filter(|before| before.exists())
        {
            fsio::remove_tree(&before)?;
        }
    }
    Ok(CarriedSpec {
        image: image_of(&found)?,
        place: inputs::Place::parse(&text, dir, &environment.registries)?,
        found,
    })
}

fn place_of(dir: &Path, digest: &Digest) -> PathBuf {
    dir.join(digest.hex())
}

fn pinned(dir: &Path) -> Option<Digest> {
    let bytes = fsio::read_limited(&dir.join(PIN), PIN_BYTES_MAX).ok()?;
    Digest::from_hex(std::str::from_utf8(&bytes).ok()?.trim()).ok()
}

/// Which image of the spec it is that carries it.
fn image_of(found: &FoundInputs) -> Result<String, InputsError> {
    if let Some(name) = &found.artifact.about.image {
        return Ok(name.clone());
    }
    let names = inputs::image_names(found)?;
    let [name] = &names[..] else {
        return Err(InputsError::Malformed {
            place: found.place.clone(),
            reason: format!("they do not say which of {} images it is", names.len()),
        });
    };
    Ok(name.clone())
}
