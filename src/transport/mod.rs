//! A *transport* is where an image is read from ([`Source`]) or written to ([`Sink`]), named as skopeo names them.
//!
//! Invariant: what is read is verified against its digest before it is believed; what is written appears whole
//! or not at all.

use std::io::{self, Cursor, Read};
use std::sync::{Arc, Mutex, PoisonError};

use crate::digest::{ContentDigest, Digest, VerifyingReader};
use crate::image::{Image, ImageIndex};
use crate::oci::{self, CONFIG_SIZE_MAX, Config, Descriptor, Document, Manifest, Raw, parse_json};

mod companion;
pub mod daemon;
mod error;
mod location;
mod names;
mod nested;
mod open;
mod peek;
pub mod read;
mod referrers;
pub mod registry;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod write;

pub use companion::{Companion, Stored, Supply};
pub use daemon::{Daemon, Engine, Loaded};
pub use error::TransportError;
pub use location::Location;
pub use open::{Content, open, origin};
pub use peek::{Peeked, entries, read_files};
pub use read::{DockerList, ReadOptions};
pub use referrers::{ListedReferrer, REFERRERS_MAX, Referrer, Referrers};
pub use write::{Archive, Layout, Stream};

/// Somewhere images can be read from: one image in it, already chosen.
pub trait Source: Send + Sync {
    /// The place, as the user wrote it.
    fn place(&self) -> &str;

    /// What its name stands for: a manifest or, with [`ReadOptions::whole`], perhaps an index.
    fn document(&self) -> Result<Document, TransportError>;

    /// A blob, verified at end of file.
    fn blob(&self, digest: &ContentDigest, size: u64) -> Result<Box<dyn Read + Send>, TransportError>;

    /// The blob of a layer: see [`blob`](Self::blob). One that is not there because it is kept elsewhere is told apart.
    fn layer(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + Send>, TransportError> {
        match self.blob(&descriptor.digest, descriptor.size) {
            Err(TransportError::Missing { .. }) if descriptor.is_kept_elsewhere() => {
                Err(TransportError::elsewhere(self.place(), descriptor))
            }
            blob => blob,
        }
    }

    /// A manifest or index that an index lists.
    fn listed(&self, descriptor: &Descriptor) -> Result<Document, TransportError> {
        let bytes = read_blob(self, descriptor, descriptor.document_size_max(), "the manifest")?;
        read_document(bytes, &descriptor.media_type, Some(descriptor.digest), self.place())
    }

    /// The registry's host and the repository, where the place is one: see [`Origin::repository`].
    ///
    /// [`Origin::repository`]: crate::layer::Origin::repository
    fn repository(&self) -> Option<(&str, &str)> {
        None
    }

    /// The index that the image was chosen from, where there is one.
    fn index(&self) -> Option<&Raw<oci::Index>> {
        None
    }

    /// The image's names there, sorted.
    fn names(&self) -> &[String] {
        &[]
    }

    /// Whether the manifest was made up by the reader because the place holds none (old docker archives).
    fn synthesized(&self) -> bool {
        false
    }

    /// Second descriptions of the image that contradict the manifest, each as one sentence.
    fn contradictions(&self) -> Vec<String> {
        Vec::new()
    }

    /// What the place lists as being about the image.
    fn referrers(&self) -> Result<Referrers, TransportError> {
        Ok(Referrers::default())
    }

    /// The manifest that `name` stands for in the same layout or repository; `None` where nothing has that name, or the
    /// form has no names.
    fn tagged(&self, name: &str) -> Result<Option<Raw<Manifest>>, TransportError> {
        let _ = name;
        Ok(None)
    }

    /// Whether Docker's own list in an archive, `manifest.json`, names the image; `None`: it is no archive.
    fn docker_list(&self) -> Option<DockerList> {
        None
    }

    /// The image's manifest; an index is an error.
    fn manifest(&self) -> Result<Raw<Manifest>, TransportError> {
        manifest_of(self.document()?, self.place())
    }

    /// The image's config. An artifact has another document in its place: see [`read_blob`].
    fn config(&self) -> Result<Raw<Config>, TransportError> {
        let manifest = self.manifest()?;
        read_config(self, &manifest.config).map_err(|error| match error.is_damage() && !manifest.is_image() {
            true => TransportError::Artifact {
                place: self.place().to_owned(),
                kind: manifest.kind_of_artifact().to_owned(),
            },
            false => error,
        })
    }
}

/// Somewhere an image can be written to.
pub trait Sink {
    /// Writes the image whole and gives its manifest's digest.
    fn put(&self, image: &Image, names: &[String]) -> Result<Digest, TransportError>;

    /// Writes an index and all images that it lists, and gives the index's digest. Forms that hold one image alone
    /// refuse it.
    fn put_index(&self, index: &ImageIndex, names: &[String]) -> Result<Digest, TransportError> {
        let _ = (index, names);
        Err(TransportError::NoIndex)
    }

    /// Stores an artifact beside images, under its own name: its blobs, of which `supply` makes those readable that
    /// are not there, and its manifest. Forms that hold images alone refuse it.
    fn put_companion(&self, companion: &Companion, supply: &Supply<'_>) -> Result<Stored, TransportError> {
        let _ = (companion, supply);
        Err(TransportError::NoCompanion)
    }

    /// What is there now under the names that a [`put`](Self::put) with `names` would give: each name with the digest
    /// of the manifest or index that it stands for. Nothing where the form cannot say.
    fn current(&self, names: &[String]) -> Result<Vec<(String, Digest)>, TransportError> {
        let _ = names;
        Ok(Vec::new())
    }

    /// Which of these blobs are there already and would not be written. Nothing where the form cannot say.
    fn present(&self, blobs: &[(ContentDigest, u64)]) -> Result<Vec<ContentDigest>, TransportError> {
        let _ = blobs;
        Ok(Vec::new())
    }

    /// Bytes of blobs and documents that this sink has written, and has found to be there, so far.
    fn transferred(&self) -> Transferred {
        Transferred::default()
    }

    /// What consumers of this sink's form will not like about the image, one sentence each.
    fn warnings(&self, image: &Image) -> Vec<String> {
        let _ = image;
        Vec::new()
    }
}

/// What sinks count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Transferred {
    /// Bytes that were written.
    pub written: u64,
    /// Bytes that were there already.
    pub skipped: u64,
}

/// A count that the clones of a sink share.
#[derive(Debug, Clone, Default)]
struct Tally(Arc<Mutex<Transferred>>);

impl Tally {
    fn wrote(&self, bytes: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).written += bytes;
    }

    fn skipped(&self, bytes: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).skipped += bytes;
    }

    fn total(&self) -> Transferred {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A built image is read from its own memory and layer files.
impl Source for Image {
    fn place(&self) -> &str {
        "the built image"
    }

    fn document(&self) -> Result<Document, TransportError> {
        Ok(Document::Manifest(self.manifest.clone()))
    }

    fn blob(&self, digest: &ContentDigest, size: u64) -> Result<Box<dyn Read + Send>, TransportError> {
        if self.config.digest() == *digest {
            let config = Cursor::new(self.config.bytes().to_vec());
            return Ok(Box::new(VerifyingReader::new(config, *digest, Some(size))));
        }
        let layers = self.layers.iter().filter(|layer| !layer.is_absent());
        let layer = layers.into_iter().find(|layer| layer.digest() == *digest);
        let layer = layer.ok_or_else(|| TransportError::Missing {
            place: self.place().to_owned(),
            what: format!("the blob `{digest}`"),
        })?;
        Ok(Box::new(layer.content.open_verified(*digest, size)))
    }
}

/// Writes one image or index to several sinks, one after the other; a failure of one does not keep the others from
/// being written. The results are in the sinks' order.
pub fn put_all(
    sinks: &[Box<dyn Sink + '_>],
    content: &Content,
    names: &[String],
) -> Vec<Result<Digest, TransportError>> {
    let put = |sink: &dyn Sink| match content {
        Content::Image(image) => sink.put(image, names),
        Content::Index(index) => sink.put_index(index, names),
    };
    sinks.iter().map(|sink| put(sink.as_ref())).collect()
}

/// A whole small blob in memory, verified; one that claims more than `limit` bytes is not read.
pub fn read_blob(
    source: &(impl Source + ?Sized),
    descriptor: &Descriptor,
    limit: u64,
    what: &str,
) -> Result<Vec<u8>, TransportError> {
    let place = source.place().to_owned();
    if descriptor.size > limit {
        return Err(TransportError::TooLarge {
            place,
            what: what.to_owned(),
            limit,
        });
    }
    let mut bytes = Vec::new();
    let read: io::Result<usize> = source
        .blob(&descriptor.digest, descriptor.size)?
        .read_to_end(&mut bytes);
    match read {
        Ok(_) => Ok(bytes),
        Err(error) => Err(TransportError::Read {
            place,
            what: format!("{what} `{}`", descriptor.digest),
            source: error,
        }),
    }
}

/// The config that a descriptor of an image's manifest names.
pub fn read_config(source: &(impl Source + ?Sized), descriptor: &Descriptor) -> Result<Raw<Config>, TransportError> {
    let bytes = read_blob(source, descriptor, CONFIG_SIZE_MAX, "the config")?;
    let read = Raw::read_named(bytes, descriptor.digest);
    read.map_err(TransportError::document(source.place(), "the config"))
}

/// Reads a manifest or an index, whichever it is: see [`Document::read`].
fn read_document(
    bytes: Vec<u8>,
    said: &str,
    digest: Option<ContentDigest>,
    place: &str,
) -> Result<Document, TransportError> {
    let what = digest.map_or_else(
        || "the manifest".to_owned(),
        |digest| format!("the manifest `{digest}`"),
    );
    Document::read(bytes, said, digest).map_err(TransportError::document(place, what))
}

/// The manifest where one is needed.
fn manifest_of(document: Document, place: &str) -> Result<Raw<Manifest>, TransportError> {
    match document {
        Document::Manifest(manifest) => Ok(manifest),
        Document::Index(index) => Err(TransportError::Malformed {
            place: place.to_owned(),
            what: format!("the manifest `{}`", index.digest()),
            reason: "it is an index of several".to_owned(),
        }),
    }
}

/// Parses a JSON document that is none of an image; the error names it.
fn parse<T: serde::de::DeserializeOwned>(
    bytes: &[u8],
    place: &str,
    what: impl Into<String>,
) -> Result<T, TransportError> {
    parse_json(bytes).map_err(|source| TransportError::Json {
        place: place.to_owned(),
        what: what.into(),
        source,
    })
}
