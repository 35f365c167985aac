//! A *place* keeps files by digest: a repository of a registry, an OCI layout, or a directory.
//!
//! Invariant: asking a place changes nothing there, and what it gives is unverified. A blob has a SHA-256 alone: of a file
//! that is known by another hash an artifact that lies in the same place says which blob it is.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::artifact::{ARTIFACT_TYPE, tag_of};
use super::error::InputsError;
use super::find::{FoundInputs, open};
use crate::digest::{ContentDigest, Digest, FileHash};
use crate::fetch::{self, FetchError, LocalCopy, Request};
use crate::fsio::IoContext;
use crate::layer::Origin;
use crate::oci::{Manifest, Raw, Reference};
use crate::transport::read::LayoutBlobs;
use crate::transport::registry::{RegistryConfig, Remote};
use crate::transport::{Location, TransportError};

/// A place that keeps files by digest.
#[derive(Debug, Clone)]
pub struct Place {
    name: String,
    kind: InputsPlaceKind,
    /// Tag of the artifact in which a repository keeps the files of a lock.
    anchor: Option<String>,
    /// The blobs of files that are known by other hashes than SHA-256, once one of them was asked for.
    known: Arc<Mutex<Option<BTreeMap<FileHash, Digest>>>>,
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
            anchor: None,
            known: Arc::default(),
        })
    }

    /// The layout in a directory, under a name of its own.
    pub(super) fn of_layout(name: &str, dir: &Path) -> Self {
        Self {
            name: name.to_owned(),
            kind: InputsPlaceKind::Layout(dir.to_owned(), None),
            anchor: None,
            known: Arc::default(),
        }
    }

    /// The same, where the files of a lock are looked for: see [`anchor_of`](super::anchor_of).
    pub fn anchored(self, anchor: Option<String>) -> Self {
        Self {
            anchor,
            known: Arc::default(),
            ..self
        }
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
        let found = self.artifacts(Some(tag_of(image)))?;
        let own = found.iter().find(|found| found.artifact.subject == Some(*image));
        let mut free = found.iter().filter(|found| found.artifact.subject.is_none());
        Ok(match (own, free.next(), free.next()) {
            (Some(own), _, _) | (None, Some(own), None) => Some(own.clone()),
            _ => None,
        })
    }

    /// The artifacts of the lock that the place is anchored to, or all that a layout has.
    pub(super) fn of_lock(&self) -> Result<Vec<FoundInputs>, InputsError> {
        self.artifacts(self.anchor.clone())
    }

    /// The artifacts that are kept here under names that are known: those of a repository by `tag` and the one that the
    /// place has, those of a layout by the latter, or all.
    fn artifacts(&self, tag: Option<String>) -> Result<Vec<FoundInputs>, InputsError> {
        let origin: Arc<dyn Origin> = Arc::new(self.clone());
        let manifests: Vec<Raw<Manifest>> = match &self.kind {
            InputsPlaceKind::Registry(remote, reference) => {
                let names = [tag, reference.tag().map(str::to_owned)];
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
        found.filter_map(Result::transpose).collect()
    }

    /// The blob that a file is, as far as the place knows.
    fn blob_of(&self, hash: &FileHash) -> Result<Option<Digest>, InputsError> {
        if let Some(digest) = hash.sha256() {
            return Ok(Some(digest));
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = match &mut *known {
            Some(known) => known,
            none => {
                let artifacts = self.of_lock()?;
                let blobs = artifacts.iter().flat_map(|found| found.artifact.known_by());
                none.insert(blobs.collect())
            }
        };
        Ok(known.get(hash).copied())
    }

    /// Opens a blob; `None` where it is not there.
    fn open_blob(&self, digest: &Digest, size: Option<u64>) -> Result<Option<PlaceReader>, TransportError> {
        match &self.kind {
            InputsPlaceKind::Registry(remote, _) => Ok(remote.blob(digest, size)?),
            InputsPlaceKind::Layout(path, _) => Ok(LayoutBlobs::open(path)?.blob(digest)?),
            InputsPlaceKind::Directory(dir) => open_first(&candidates(dir, &(*digest).into(), None)),
        }
    }

    /// Opens a file; `None` where it is not there.
    fn open_file(&self, request: &Request<'_>) -> Result<Option<PlaceReader>, InputsError> {
        if let InputsPlaceKind::Directory(dir) = &self.kind {
            return Ok(open_first(&candidates(dir, request.hash, Some(request.file)))?);
        }
        match self.blob_of(request.hash)? {
            Some(digest) => Ok(self.open_blob(&digest, request.size)?),
            None => Ok(None),
        }
    }

    /// Whether a file is there, as far as can be told without reading it.
    fn has_file(&self, request: &Request<'_>) -> Result<bool, InputsError> {
        let fits = |size: u64| request.size.is_none_or(|wanted| wanted == size);
        if let InputsPlaceKind::Directory(dir) = &self.kind {
            let files = candidates(dir, request.hash, Some(request.file));
            let mut files = files.iter().filter_map(|path| path.metadata().ok());
            return Ok(files.any(|metadata| metadata.is_file() && fits(metadata.len())));
        }
        let Some(digest) = self.blob_of(request.hash)? else {
            return Ok(false);
        };
        Ok(match &self.kind {
            InputsPlaceKind::Registry(remote, _) => remote.has(&digest, request.size)?,
            InputsPlaceKind::Layout(path, _) => LayoutBlobs::open(path)?.size(&digest)?.is_some_and(fits),
            InputsPlaceKind::Directory(_) => false,
        })
    }
}

/// The first of `paths` that is a file.
fn open_first(paths: &[PathBuf]) -> Result<Option<PlaceReader>, TransportError> {
    for path in paths {
        match File::open(path) {
            Ok(file) if file.metadata().is_ok_and(|metadata| metadata.is_file()) => {
                return Ok(Some(Box::new(file)));
            }
            Err(error) if !is_absence(&error) => Err(error).context("open", path)?,
            _ => {}
        }
    }
    Ok(None)
}

type PlaceReader = Box<dyn Read + Send>;

/// Where a file may be in a directory.
fn candidates(dir: &Path, hash: &FileHash, name: Option<&str>) -> Vec<PathBuf> {
    let mut paths = vec![dir.join(hash.scheme()).join(hash.hex())];
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
            .map_or(Ok(None), |digest| self.open_blob(&digest, Some(len)));
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
        let opened = self.open_file(request).map_err(|error| failure(&self.name, error))?;
        Ok(opened.map_or(LocalCopy::Nothing, LocalCopy::File))
    }

    fn has(&self, request: &Request<'_>) -> Result<bool, FetchError> {
        self.has_file(request).map_err(|error| failure(&self.name, error))
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
        let Some(part) = self.artifact.input(request.hash) else {
            let mut withheld = self.artifact.about.withheld.iter();
            let withheld = withheld.any(|file| file.digest == *request.hash);
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
                Ok(error) => Err(failure(&self.place, error.into())),
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
pub(super) fn failure(place: &str, error: InputsError) -> FetchError {
    let silent = match &error {
        InputsError::Transport(TransportError::Registry(error)) => error.is_silence(),
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

#[cfg(test)]
mod tests {
    use std::sync::Arc as Shared;

    use super::*;
    use crate::digest::GoHash;
    use crate::event::Silent;
    use crate::inputs::artifact::{About, Part, PartKind, write};
    use crate::layer::Blob;
    use crate::transport::Companion;

    /// An artifact in a layout with a file that a lock knows by each of `hashes`; all have the content of its index.
    fn layout(dir: &Path, hashes: &[FileHash]) -> Digest {
        let part = |(index, hash): (usize, &FileHash)| {
            let content = index.to_string().into_bytes();
            let kind = PartKind::Input {
                name: format!("file{index}"),
                version: None,
                file: format!("file{index}.tgz"),
                hash: Some(*hash).filter(|hash| hash.sha256().is_none()),
            };
            let part = Part {
                kind,
                digest: Digest::of(&content),
                size: content.len() as u64,
            };
            (part, Blob::Bytes(Shared::from(content.as_slice())))
        };
        let artifact = write(&About::default(), None, hashes.iter().enumerate().map(part).collect()).unwrap();
        let digest = artifact.digest();
        let companion = Companion {
            artifact,
            artifact_type: ARTIFACT_TYPE,
            subject: None,
            tag: "kept".to_owned(),
            anchor: "inputs-0".to_owned(),
            tag_of,
        };
        let location: Location = format!("oci:{}", dir.display()).parse().unwrap();
        let sink = location.sink(None, &RegistryConfig::default(), &Silent).unwrap();
        sink.put_companion(&companion, &|_| Ok(())).unwrap();
        digest
    }

    fn given(place: &dyn fetch::Place, hash: &FileHash) -> Option<String> {
        let request = Request {
            hash,
            size: Some(1),
            file: "unheard-of",
        };
        let opened = place.open(&request).unwrap();
        let LocalCopy::File(mut content) = opened else {
            assert!(!place.has(&request).unwrap());
            return None;
        };
        assert!(place.has(&request).unwrap());
        let mut text = String::new();
        content.read_to_string(&mut text).unwrap();
        Some(text)
    }

    #[test]
    fn a_kept_file_is_found_by_what_its_lock_knows_it_by() {
        let dir = tempfile::tempdir().unwrap();
        let layout_dir = dir.path().join("layout");
        let go: GoHash = "h1:NqM8EUOU14njkJ3fqMW+pc6Ldnwhi/IjpwHt7yyuwOQ=".parse().unwrap();
        let hashes = [
            FileHash::from(Digest::of(b"0")),
            ContentDigest::Sha512([0; 64]).same_algorithm(b"1").into(),
            FileHash::GoModule(go),
            FileHash::GoMod(go),
        ];
        let artifact = layout(&layout_dir, &hashes);
        for text in ["oci:layout", "oci:layout:kept", "oci:layout:inputs-0", "layout"] {
            let place = Place::parse(text, dir.path(), &RegistryConfig::default()).unwrap();
            for (index, hash) in hashes.iter().enumerate() {
                assert_eq!(given(&place, hash), Some(index.to_string()), "{hash} in {text}");
                let blob = Digest::of(index.to_string().as_bytes());
                assert_eq!(given(&place, &blob.into()), Some(index.to_string()));
            }
            let unknown = ContentDigest::Sha512([1; 64]).into();
            assert_eq!(given(&place, &unknown), None);
        }
        let place = Place::parse("oci:layout", dir.path(), &RegistryConfig::default()).unwrap();
        let found = place.artifact(&Digest::of(b"image")).unwrap().unwrap();
        assert_eq!(found.artifact.digest, artifact);
        let files: BTreeMap<FileHash, String> =
            (found.artifact.inputs()).map(|file| (file.digest, file.file)).collect();
        for (index, hash) in hashes.iter().enumerate() {
            assert_eq!(files[hash], format!("file{index}.tgz"));
            assert_eq!(given(&found, hash), Some(index.to_string()));
        }
    }

    #[test]
    fn a_directory_has_files_by_any_hash_and_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let sha512 = FileHash::from(ContentDigest::Sha512([0; 64]).same_algorithm(b"1"));
        std::fs::create_dir(dir.path().join("sha512")).unwrap();
        std::fs::write(dir.path().join("sha512").join(sha512.hex()), "1").unwrap();
        std::fs::write(dir.path().join("unheard-of"), "2").unwrap();
        let place = Place::parse(".", dir.path(), &RegistryConfig::default()).unwrap();
        assert_eq!(given(&place, &sha512).as_deref(), Some("1"));
        // By its name alone another file is found, which whoever asked will not believe.
        assert_eq!(given(&place, &Digest::of(b"1").into()).as_deref(), Some("2"));
    }
}
