//! A *transport* is where an image is read from ([`Source`]) or written to ([`Sink`]), named as skopeo names them.
//!
//! Invariant: what is read is verified against its digest before it is believed; what is written appears whole
//! or not at all.

use std::io::{self, Cursor, Read};
use std::sync::{Arc, Mutex, PoisonError};

use crate::digest::{Digest, VerifyingReader};
use crate::image::{Image, Index};

mod companion;
pub mod daemon;
pub mod document;
mod error;
mod location;
mod names;
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
pub use peek::read_files;
pub use read::{DockerList, ReadOptions};
pub use referrers::{ListedReferrer, REFERRERS_MAX, Referrer, Referrers};
pub use write::{Archive, Layout, Stream};

/// Somewhere images can be read from: one image in it, already chosen.
pub trait Source: Send + Sync {
    /// The place, as the user wrote it.
    fn place(&self) -> &str;

    /// The manifest's bytes and media type.
    fn manifest(&self) -> Result<(Vec<u8>, String), TransportError>;

    /// A blob, verified at end of file.
    fn blob(&self, digest: &Digest, size: u64) -> Result<Box<dyn Read + Send>, TransportError>;

    /// A manifest that an index lists, verified.
    fn listed(&self, descriptor: &document::Descriptor) -> Result<Vec<u8>, TransportError> {
        read_blob(self, descriptor, document::MANIFEST_MAX, "the manifest")
    }

    /// The registry's host and the repository, where the place is one: see [`Origin::repository`].
    ///
    /// [`Origin::repository`]: crate::layer::Origin::repository
    fn repository(&self) -> Option<(&str, &str)> {
        None
    }

    /// The bytes of the index that the image was chosen from, where there is one.
    fn index(&self) -> Option<&[u8]> {
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
    fn tagged(&self, name: &str) -> Result<Option<Vec<u8>>, TransportError> {
        let _ = name;
        Ok(None)
    }

    /// Whether Docker's own list in an archive, `manifest.json`, names the image; `None`: it is no archive.
    fn docker_list(&self) -> Option<DockerList> {
        None
    }

    /// The config's bytes, verified.
    fn config(&self) -> Result<Vec<u8>, TransportError> {
        let (manifest, _) = self.manifest()?;
        let manifest: document::Manifest = document::parse(&manifest, self.place(), "the manifest")?;
        read_blob(self, &manifest.config, document::CONFIG_MAX, "the config")
    }
}

/// Somewhere an image can be written to.
pub trait Sink {
    /// Writes the image whole and gives its manifest's digest.
    fn put(&self, image: &Image, names: &[String]) -> Result<Digest, TransportError>;

    /// Writes an index and all images that it lists, and gives the index's digest. Forms that hold one image alone
    /// refuse it.
    fn put_index(&self, index: &Index, names: &[String]) -> Result<Digest, TransportError> {
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
    fn present(&self, blobs: &[(Digest, u64)]) -> Result<Vec<Digest>, TransportError> {
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

    fn manifest(&self) -> Result<(Vec<u8>, String), TransportError> {
        let manifest: document::Manifest = document::parse(&self.manifest, self.place(), "the manifest")?;
        Ok((
            self.manifest.clone(),
            manifest.media_type.unwrap_or_else(|| document::MANIFEST.to_owned()),
        ))
    }

    fn blob(&self, digest: &Digest, size: u64) -> Result<Box<dyn Read + Send>, TransportError> {
        if *digest == self.config_digest {
            let config = Cursor::new(self.config.clone());
            return Ok(Box::new(VerifyingReader::new(config, *digest, Some(size))));
        }
        let layer = self.layers.iter().find(|layer| layer.digest == *digest);
        let layer = layer.ok_or_else(|| TransportError::Missing {
            place: self.place().to_owned(),
            what: format!("the blob `{digest}`"),
        })?;
        Ok(Box::new(VerifyingReader::new(layer.blob.open(), *digest, Some(size))))
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
    descriptor: &document::Descriptor,
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
