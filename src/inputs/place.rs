//! A *place* keeps files by digest: a repository of a registry, an OCI layout, or a directory.
//!
//! Invariant: asking a place changes nothing there, and what it gives is unverified.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::artifact::{ARTIFACT_TYPE, PartKind, tag_of};
use super::error::InputsError;
use super::find::{FoundInputs, open};
use crate::digest::{ContentDigest, Digest};
use crate::fetch::{self, FetchError, LocalCopy, Request};
use crate::fsio::IoContext;
use crate::layer::Origin;
use crate::oci::{Manifest, Raw, Reference};
use crate::transport::read::LayoutBlobs;
use crate::transport::registry::{RegistryConfig, RegistryError, Remote};
use crate::transport::{Location, TransportError};

/// A place that keeps files by digest.
#[derive(Debug, Clone)]
pub struct Place {
    name: String,
    kind: InputsPlaceKind,
}

#[derive(Debug, Clone)]
enum InputsPlaceKind {
    /// Blobs of a repository; the tag, if there is one, names an artifact.
    Registry(Box<Remote>, Reference),
    /// Blobs of a layout, and the name of an artifact in it if one was given.
    Layout(PathBuf, Option<String>),
    /// Files under their own names, or named by their digests in `sha256/`.
    Directory(PathBuf),
}

impl Place {
    /// The place that a text names: `docker://NAME`, `oci:DIR[:NAME]`, or a directory; paths relative to `dir`.
    pub fn parse(text: &str, dir: &Path, registries: &RegistryConfig) -> Result<Self, InputsError> {
        let wrong = |reason: &str| InputsError::Place {
            text: text.to_owned(),
            reason: reason.to_owned(),
        };
        let location: Location = text.parse()?;
        let kind = match location.below(dir) {
            Location::Registry(name) => {
                let reference: Reference = name.parse().map_err(TransportError::from)?;
                InputsPlaceKind::Registry(Box::new(Remote::new(registries, &reference)?), reference)
            }
            Location::Layout { path, name } => InputsPlaceKind::Layout(path, name),
            Location::Path(path) if path.join("oci-layout").is_file() => InputsPlaceKind::Layout(path, None),
            Location::Path(path) => InputsPlaceKind::Directory(path),
            _ => return Err(wrong("images are read from it, not single files")),
        };
        Ok(Self {
            name: text.to_owned(),
            kind,
        })
    }

    /// The repository on a registry's host, where the place is one: blobs can be mounted from there.
    pub fn repository(&self) -> Option<(&str, &str)> {
        match &self.kind {
            InputsPlaceKind::Registry(_, reference) => Some((reference.registry(), reference.repository())),
            InputsPlaceKind::Layout(..) | InputsPlaceKind::Directory(_) => None,
        }
    }

    /// The artifact about an image that is kept here: by the image's digest, by the name that the place has, or because
    /// a layout has no other.
    pub fn artifact(&self, image: &Digest) -> Result<Option<FoundInputs>, InputsError> {
        let origin: Arc<dyn Origin> = Arc::new(self.clone());
        let manifests: Vec<Raw<Manifest>> = match &self.kind {
            InputsPlaceKind::Registry(remote, reference) => {
                let names = [Some(tag_of(image)), reference.tag().map(str::to_owned)];
                let found = names.iter().flatten().map(|name| remote.manifest(name));
                found.filter_map(Result::transpose).collect::<Result<_, _>>()?
            }
            InputsPlaceKind::Layout(path, name) => {
                let layout = LayoutBlobs::open(path)?;
                match name {
                    Some(name) => layout.tagged(name)?.into_iter().collect(),
                    None => layout.artifacts(ARTIFACT_TYPE)?,
                }
            }
            InputsPlaceKind::Directory(_) => Vec::new(),
        };
        let found = manifests.iter().map(|manifest| open(manifest, &origin, &self.name));
        let found: Vec<FoundInputs> = found.filter_map(Result::transpose).collect::<Result<_, _>>()?;
        let own = found.iter().find(|found| found.artifact.subject == Some(*image));
        let mut free = found.iter().filter(|found| found.artifact.subject.is_none());
        Ok(match (own, free.next(), free.next()) {
            (Some(own), _, _) | (None, Some(own), None) => Some(own.clone()),
            _ => None,
        })
    }

    /// Opens a file; `None` where it is not there.
    fn open_file(
        &self,
        digest: &Digest,
        size: Option<u64>,
        name: Option<&str>,
    ) -> Result<Option<PlaceReader>, TransportError> {
        match &self.kind {
            InputsPlaceKind::Registry(remote, _) => Ok(remote.blob(digest, size)?),
            InputsPlaceKind::Layout(path, _) => Ok(LayoutBlobs::open(path)?.blob(digest)?),
            InputsPlaceKind::Directory(dir) => {
                for path in candidates(dir, digest, name) {
                    match File::open(&path) {
                        Ok(file) if file.metadata().is_ok_and(|metadata| metadata.is_file()) => {
                            return Ok(Some(Box::new(file)));
                        }
                        Err(error) if !is_absence(&error) => Err(error).context("open", &path)?,
                        _ => {}
                    }
                }
                Ok(None)
            }
        }
    }
}

type PlaceReader = Box<dyn Read + Send>;

/// Where a file may be in a directory.
fn candidates(dir: &Path, digest: &Digest, name: Option<&str>) -> Vec<PathBuf> {
    let mut paths = vec![dir.join("sha256").join(digest.hex())];
    paths.extend(
        name.filter(|name| !name.contains('/') && !matches!(*name, "" | "." | ".."))
            .map(|name| dir.join(name)),
    );
    paths
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

impl Origin for Place {
    fn open(&self, digest: &ContentDigest, len: u64) -> io::Result<PlaceReader> {
        // Inputs are named by their SHA-256, as the lock has it.
        let found = digest
            .sha256()
            .map_or(Ok(None), |digest| self.open_file(&digest, Some(len), None));
        match found {
            Ok(Some(reader)) => Ok(reader),
            Ok(None) => {
                let text = format!("`{digest}` is not in `{}`", self.name);
                Err(io::Error::new(io::ErrorKind::NotFound, text))
            }
            Err(error) => Err(io::Error::other(error)),
        }
    }

    fn repository(&self) -> Option<(&str, &str)> {
        Place::repository(self)
    }
}

impl fetch::Place for Place {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_local(&self) -> bool {
        !matches!(self.kind, InputsPlaceKind::Registry(..))
    }

    fn open(&self, request: &Request<'_>) -> Result<LocalCopy, FetchError> {
        let opened = self.open_file(request.digest, request.size, Some(request.file));
        let opened = opened.map_err(|error| failure(&self.name, error))?;
        Ok(opened.map_or(LocalCopy::Nothing, LocalCopy::File))
    }

    fn has(&self, request: &Request<'_>) -> Result<bool, FetchError> {
        let fits = |size: u64| request.size.is_none_or(|wanted| wanted == size);
        let has = match &self.kind {
            InputsPlaceKind::Registry(remote, _) => remote.has(request.digest, request.size),
            InputsPlaceKind::Layout(path, _) => {
                LayoutBlobs::open(path).and_then(|layout| Ok(layout.size(request.digest)?.is_some_and(fits)))
            }
            InputsPlaceKind::Directory(dir) => Ok(candidates(dir, request.digest, Some(request.file))
                .iter()
                .filter_map(|path| path.metadata().ok())
                .any(|metadata| metadata.is_file() && fits(metadata.len()))),
        };
        has.map_err(|error| failure(&self.name, error))
    }
}

/// The files that an artifact holds.
impl fetch::Place for FoundInputs {
    fn name(&self) -> &str {
        &self.place
    }

    fn is_local(&self) -> bool {
        self.origin.repository().is_none()
    }

    fn open(&self, request: &Request<'_>) -> Result<LocalCopy, FetchError> {
        let is_wanted = |digest: &Digest| digest == request.digest;
        let parts = &self.artifact.parts;
        let Some(part) = parts
            .iter()
            .find(|part| is_wanted(&part.digest) && matches!(part.kind, PartKind::Input { .. }))
        else {
            let withheld = self.artifact.about.withheld.iter().any(|file| is_wanted(&file.digest));
            return Ok(if withheld {
                LocalCopy::Withheld
            } else {
                LocalCopy::Nothing
            });
        };
        match self.origin.open(&part.digest.into(), part.size) {
            Ok(reader) => Ok(LocalCopy::File(reader)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(LocalCopy::Nothing),
            Err(error) => match error.downcast::<TransportError>() {
                Ok(TransportError::Missing { .. }) => Ok(LocalCopy::Nothing),
                Ok(error) => Err(failure(&self.place, error)),
                Err(error) => Err(FetchError::Place {
                    place: self.place.clone(),
                    source: Box::new(error),
                }),
            },
        }
    }

    fn has(&self, request: &Request<'_>) -> Result<bool, FetchError> {
        // An artifact names what is there; only reading tells whether it still is.
        fetch::Place::open(self, request).map(|held| matches!(held, LocalCopy::File(_)))
    }
}

/// What a failure says of a place: that it does not answer, or that it cannot be used.
fn failure(place: &str, error: TransportError) -> FetchError {
    let silent = match &error {
        TransportError::Registry(error) => matches!(
            **error,
            RegistryError::Unreachable { .. }
                | RegistryError::Broken { .. }
                | RegistryError::Stalled { .. }
                | RegistryError::Busy { .. }
        ),
        _ => false,
    };
    let url = place.to_owned();
    match silent {
        true => FetchError::Unreachable {
            url,
            source: Box::new(error),
        },
        false => FetchError::Place {
            place: url,
            source: Box::new(error),
        },
    }
}
