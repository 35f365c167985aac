//! A *stored image* is one image of an archive or a layout, chosen and ready to be read.
//!
//! Invariant: index, manifest and config were verified against their descriptors when it was opened; layers are
//! verified while they are read; an archive is listed once and its blobs are read in place.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::registry::RegistryConfig;
use super::{Referrers, Source, TransportError, read_document};
use crate::archive::compression::Decompressor;
use crate::archive::tar::begins_with_entry;
use crate::digest::{ContentDigest, VerifyingReader};
use crate::fsio::IoContext;
use crate::oci::{CompressionFormat, Descriptor, Document, INDEX_SIZE_MAX, Index, Manifest, Platform, Raw};

mod blobs;
mod choose;
mod container;
mod docker;
mod faces;
mod referrers;

pub use blobs::LayoutBlobs;
use container::Container;
pub use faces::DockerList;

/// Largest archive that is unpacked to a temporary file before it is read, in bytes.
const SPOOL_MAX: u64 = 256 << 30;

/// How to read.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// Which platform of a multi-platform image; `None` takes the only one.
    pub platform: Option<Platform>,
    /// Where compressed archives and streams are spooled to; `None` is the system's directory for temporary files.
    pub temp_dir: Option<PathBuf>,
    /// Largest size in bytes that a spooled archive may unpack to.
    pub spool_max: u64,
    /// How registries are reached.
    pub registries: RegistryConfig,
    /// Whether a name that stands for an index gives the index itself, and not one image of it.
    pub whole: bool,
}

/// How much of a stream is read to see whether it is a tar, in bytes: an empty one has two blocks of zeros.
const BEGIN: u64 = 1024;

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            platform: None,
            temp_dir: None,
            spool_max: SPOOL_MAX,
            registries: RegistryConfig::default(),
            whole: false,
        }
    }
}

/// One image of an archive or a layout.
pub struct StoredImage {
    place: String,
    container: Container,
    index: Option<Raw<Index>>,
    document: Document,
    names: Vec<String>,
    synthesized: bool,
    /// Names of blobs that are not at `blobs/<algorithm>/<hex>`.
    elsewhere: BTreeMap<ContentDigest, String>,
    /// Whether Docker's list names it.
    docker: DockerList,
    contradictions: Vec<String>,
}

/// Which documents an archive must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `manifest.json`, with or without an OCI layout around it.
    Docker,
    /// `oci-layout` and `index.json`.
    Oci,
    /// Either.
    Any,
}

/// Opens an image of a `docker save` archive.
pub fn docker_archive(path: &Path, name: Option<&str>, options: &ReadOptions) -> Result<StoredImage, TransportError> {
    let place = format!("docker-archive:{}", path.display());
    archive(path, &place, name, Form::Docker, options)
}

/// Opens an image of an OCI layout in a tar.
pub fn oci_archive(path: &Path, name: Option<&str>, options: &ReadOptions) -> Result<StoredImage, TransportError> {
    let place = format!("oci-archive:{}", path.display());
    archive(path, &place, name, Form::Oci, options)
}

/// Opens an image of an OCI layout directory.
pub fn layout(path: &Path, name: Option<&str>, options: &ReadOptions) -> Result<StoredImage, TransportError> {
    let place = format!("oci:{}", path.display());
    if !path.is_dir() {
        let reason = "it is not a directory".to_owned();
        return Err(TransportError::NotAnImage { place, reason });
    }
    open(Container::dir(path, &place), &place, name, Form::Oci, options)
}

/// Opens an image of a file or directory whose form is found by looking.
pub fn any(path: &Path, name: Option<&str>, options: &ReadOptions) -> Result<StoredImage, TransportError> {
    if path.is_dir() {
        return layout(path, name, options);
    }
    archive(path, &path.display().to_string(), name, Form::Any, options)
}

/// Opens the image of an archive that arrives as a stream, which is spooled to a temporary file.
pub fn stream(input: &mut dyn Read, place: &str, options: &ReadOptions) -> Result<StoredImage, TransportError> {
    let file = spool(input, place, options)?;
    open(Container::tar(file, place)?, place, None, Form::Any, options)
}

fn archive(
    path: &Path,
    place: &str,
    name: Option<&str>,
    form: Form,
    options: &ReadOptions,
) -> Result<StoredImage, TransportError> {
    let mut file = File::open(path).context("open", path)?;
    if !file.metadata().context("read the attributes of", path)?.is_file() {
        let file = spool(&mut file, place, options)?;
        return open(Container::tar(file, place)?, place, name, form, options);
    }
    let mut head = Vec::new();
    (&file).take(6).read_to_end(&mut head).context("read", path)?;
    io::Seek::rewind(&mut file).context("read", path)?;
    if CompressionFormat::sniff(&head) != CompressionFormat::None {
        file = spool(&mut file, place, options)?;
    }
    open(Container::tar(file, place)?, place, name, form, options)
}

/// Unpacks a stream to an unnamed temporary file, which can be read at any position. Of what does not begin as a tar no more
/// than that is read: a stream may be endless.
fn spool(input: &mut dyn Read, place: &str, options: &ReadOptions) -> Result<File, TransportError> {
    let read = |source| TransportError::Read {
        place: place.to_owned(),
        what: "the archive".to_owned(),
        source,
    };
    let dir = options.temp_dir.clone().unwrap_or_else(std::env::temp_dir);
    let mut file = tempfile::tempfile_in(&dir).context("create a temporary file in", &dir)?;
    let mut unpacker = Decompressor::new(input).map_err(read)?;
    let mut begin = Vec::new();
    (&mut unpacker).take(BEGIN).read_to_end(&mut begin).map_err(read)?;
    file.write_all(&begin).context("write a temporary file in", &dir)?;
    let mut buffer = vec![0; 256 << 10];
    let mut total = begin.len() as u64;
    while begins_with_entry(&begin) {
        let count = match unpacker.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(read(error)),
        };
        total += count as u64;
        if total > options.spool_max {
            let what = "the unpacked archive".to_owned();
            return Err(TransportError::TooLarge {
                place: place.to_owned(),
                what,
                limit: options.spool_max,
            });
        }
        file.write_all(&buffer[..count])
            .context("write a temporary file in", &dir)?;
    }
    Ok(file)
}

fn open(
    container: Container,
    place: &str,
    name: Option<&str>,
    form: Form,
    options: &ReadOptions,
) -> Result<StoredImage, TransportError> {
    let (oci, docker) = (container.has("index.json"), container.has("manifest.json"));
    let reason = match form {
        Form::Any if !oci && !docker => "there is neither `index.json` nor `manifest.json` in it",
        Form::Oci if !oci => "there is no `index.json` in it",
        Form::Docker if !docker && container.has("repositories") => {
            "there is no `manifest.json` in it; Docker before 1.10 made such archives: load and save it again"
        }
        Form::Docker if !docker => "there is no `manifest.json` in it",
        _ if oci => return choose::open(container, place, name, options),
        _ => return docker::open(container, place, name),
    };
    Err(TransportError::NotAnImage {
        place: place.to_owned(),
        reason: reason.to_owned(),
    })
}

impl Source for StoredImage {
    fn place(&self) -> &str {
        &self.place
    }

    fn document(&self) -> Result<Document, TransportError> {
        Ok(self.document.clone())
    }

    fn blob(&self, digest: &ContentDigest, size: u64) -> Result<Box<dyn Read + Send>, TransportError> {
        blob(&self.container, &self.place, &self.elsewhere, digest, size)
    }

    fn listed(&self, descriptor: &Descriptor) -> Result<Document, TransportError> {
        let is_here = |entry: &&Descriptor| self.container.has(&blob_path(&entry.digest));
        if let Document::Index(index) = &self.document
            && !is_here(&descriptor)
            && index.manifests.contains(descriptor)
        {
            let images = index.manifests.iter().filter(|entry| !entry.is_attestation());
            let (here, absent): (Vec<&Descriptor>, Vec<&Descriptor>) = images.partition(is_here);
            return Err(choose::absent_error(&self.place, absent, &here));
        }
        document(&self.container, &self.place, descriptor, "the manifest")
    }

    fn tagged(&self, name: &str) -> Result<Option<Raw<Manifest>>, TransportError> {
        referrers::tagged(&self.container, &self.place, name)
    }

    fn index(&self) -> Option<&Raw<Index>> {
        self.index.as_ref()
    }

    fn names(&self) -> &[String] {
        &self.names
    }

    fn synthesized(&self) -> bool {
        self.synthesized
    }

    fn referrers(&self) -> Result<Referrers, TransportError> {
        referrers::of(&self.container, &self.place, &self.document.digest())
    }

    fn contradictions(&self) -> Vec<String> {
        self.contradictions.clone()
    }

    fn docker_list(&self) -> Option<DockerList> {
        (!self.container.is_dir()).then_some(self.docker)
    }
}

fn blob(
    container: &Container,
    place: &str,
    elsewhere: &BTreeMap<ContentDigest, String>,
    digest: &ContentDigest,
    size: u64,
) -> Result<Box<dyn Read + Send>, TransportError> {
    let usual = blob_path(digest);
    let name = elsewhere.get(digest).unwrap_or(&usual);
    let Some((reader, _)) = container.open(name)? else {
        let what = format!("the blob `{digest}`");
        return Err(TransportError::Missing {
            place: place.to_owned(),
            what,
        });
    };
    Ok(Box::new(VerifyingReader::new(reader, *digest, Some(size))))
}

/// Where a layout has a blob (image-spec, image-layout.md).
fn blob_path(digest: &ContentDigest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

/// A verified document of a container.
fn blob_bytes(
    container: &Container,
    place: &str,
    descriptor: &Descriptor,
    what: &str,
) -> Result<Vec<u8>, TransportError> {
    let limit = descriptor.document_size_max();
    if descriptor.size > limit {
        return Err(TransportError::TooLarge {
            place: place.to_owned(),
            what: what.to_owned(),
            limit,
        });
    }
    let mut bytes = Vec::new();
    let mut reader = blob(container, place, &BTreeMap::new(), &descriptor.digest, descriptor.size)?;
    match reader.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(source) => Err(TransportError::Read {
            place: place.to_owned(),
            what: format!("{what} `{}`", descriptor.digest),
            source,
        }),
    }
}

/// The manifest or index that a descriptor names.
fn document(
    container: &Container,
    place: &str,
    descriptor: &Descriptor,
    what: &str,
) -> Result<Document, TransportError> {
    let bytes = blob_bytes(container, place, descriptor, what)?;
    read_document(bytes, &descriptor.media_type, Some(descriptor.digest), place)
}

/// The `index.json` of a layout, where there is one.
fn top_index(container: &Container, place: &str) -> Result<Option<Raw<Index>>, TransportError> {
    let Some(bytes) = container.read("index.json", INDEX_SIZE_MAX)? else {
        return Ok(None);
    };
    let read = Raw::read(bytes);
    read.map(Some).map_err(TransportError::document(place, "`index.json`"))
}
