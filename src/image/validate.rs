//! To *validate* an image is to recompute every link from its bytes: the oracle of everything that writes images.
//!
//! Invariant: an image that passes has a manifest, config and layers that any client accepts as one; nothing that the
//! image says of itself is believed.

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;

use super::Image;
use crate::digest::{DiffId, Digest, Hasher};
use crate::layer::Layer;
use crate::oci::{Compression, Config, Descriptor, DocumentError, DocumentKind, LayerCodec, Manifest, MediaType, Raw};

/// A link of an image that does not hold.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The manifest or config cannot be read.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// A document's bytes have another digest than the image says.
    #[error("the {kind}'s digest is said to be {expected} and is {actual}")]
    DocumentDigest {
        /// `manifest`, `config`.
        kind: &'static str,
        /// What is said of it.
        expected: Digest,
        /// What it is.
        actual: Digest,
    },
    /// A descriptor of the manifest says something else than the image's value.
    #[error("the manifest says of {subject} that its {what} is {expected}, and it is {actual}")]
    Descriptor {
        /// `the config`, `layer 3`.
        subject: String,
        /// `digest`, `size`, `media type`.
        what: &'static str,
        /// What the manifest says.
        expected: String,
        /// What it is.
        actual: String,
    },
    /// Manifest, config and image do not have the same number of layers.
    #[error("there are {layers} layers, and {count} in the {place}")]
    Count {
        /// `manifest`, `config's diffIDs`, `config's history`.
        place: &'static str,
        /// Layers of the image.
        layers: usize,
        /// Entries there.
        count: usize,
    },
    /// A layer's tar has another digest than the config or the layer says.
    #[error("the {place} says of layer {index} that its diffID is {expected}, and it is {actual}")]
    DiffId {
        /// Index from 0, lowest first.
        index: usize,
        /// `config`, `layer`.
        place: &'static str,
        /// What is said.
        expected: String,
        /// What it is.
        actual: DiffId,
    },
    /// A layer's tar has another size than the layer says.
    #[error("the tar of layer {index} is said to have {expected} bytes and has {actual}")]
    TarSize {
        /// Index from 0, lowest first.
        index: usize,
        /// What is said.
        expected: u64,
        /// What it is, or at least one byte more than said.
        actual: u64,
    },
    /// A layer's blob cannot be read, is not what its digest says, or cannot be decompressed.
    #[error("cannot read layer {index}")]
    Blob {
        /// Index from 0, lowest first.
        index: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Recomputes every link of an image and reads every layer; gives all that do not hold, in the image's order.
pub fn validate(image: &Image) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (kind, bytes, expected) in [
        ("manifest", &image.manifest, image.digest),
        ("config", &image.config, image.config_digest),
    ] {
        let actual = Digest::of(bytes);
        if actual != expected {
            faults.push(Fault::DocumentDigest { kind, expected, actual });
        }
    }
    match Raw::<Manifest>::read(image.manifest.clone()) {
        Ok(manifest) => check_manifest(image, &manifest, &mut faults),
        Err(error) => faults.push(error.into()),
    }
    let diff_ids = match Raw::<Config>::read(image.config.clone()) {
        Ok(config) => check_config(image, &config, &mut faults),
        Err(error) => {
            faults.push(error.into());
            Vec::new()
        }
    };
    for (index, layer) in image.layers.iter().enumerate() {
        check_layer(index, layer, diff_ids.get(index), &mut faults);
    }
    faults
}

fn check_manifest(image: &Image, manifest: &Manifest, faults: &mut Vec<Fault>) {
    let config = MediaType::Document(DocumentKind::Config);
    check_descriptor(
        "the config".to_owned(),
        &manifest.config,
        (&config, Digest::of(&image.config), image.config.len() as u64),
        faults,
    );
    if manifest.layers.len() != image.layers.len() {
        faults.push(Fault::Count {
            place: "manifest",
            layers: image.layers.len(),
            count: manifest.layers.len(),
        });
    }
    for (index, (descriptor, layer)) in manifest.layers.iter().zip(&image.layers).enumerate() {
        let codec = MediaType::Layer(match layer.compression {
            Compression::Gzip(_) => LayerCodec::Gzip,
            Compression::Zstd(_) => LayerCodec::Zstd,
            Compression::None => LayerCodec::None,
        });
        check_descriptor(
            format!("layer {index}"),
            descriptor,
            (&codec, layer.digest, layer.size),
            faults,
        );
    }
}

fn check_descriptor(
    subject: String,
    descriptor: &Descriptor,
    (media_type, digest, size): (&MediaType, Digest, u64),
    faults: &mut Vec<Fault>,
) {
    let said = &descriptor.media_type;
    let links = [
        (
            "media type",
            MediaType::parse(said) == *media_type,
            said.clone(),
            media_type.to_string(),
        ),
        (
            "digest",
            descriptor.digest == digest,
            descriptor.digest.to_string(),
            digest.to_string(),
        ),
        (
            "size",
            descriptor.size == size,
            descriptor.size.to_string(),
            size.to_string(),
        ),
    ];
    for (what, holds, expected, actual) in links {
        if !holds {
            faults.push(Fault::Descriptor {
                subject: subject.clone(),
                what,
                expected,
                actual,
            });
        }
    }
}

/// Checks the config's numbers of layers, and gives the diffIDs that it names.
fn check_config(image: &Image, config: &Config, faults: &mut Vec<Fault>) -> Vec<DiffId> {
    let diff_ids = config.diff_ids.clone();
    let entries = config.layer_history().count();
    let counts = [("config's diffIDs", diff_ids.len()), ("config's history", entries)];
    for (place, count) in counts {
        if count != image.layers.len() {
            faults.push(Fault::Count {
                place,
                layers: image.layers.len(),
                count,
            });
        }
    }
    diff_ids
}

fn check_layer(index: usize, layer: &Layer, in_config: Option<&DiffId>, faults: &mut Vec<Fault>) {
    let (actual, size) = match read_tar(layer) {
        Ok(read) => read,
        Err(source) => {
            faults.push(Fault::Blob { index, source });
            return;
        }
    };
    if layer.tar_size != 0 && size != layer.tar_size {
        faults.push(Fault::TarSize {
            index,
            expected: layer.tar_size,
            actual: size,
        });
        return;
    }
    let said = [("layer", Some(layer.diff_id)), ("config", in_config.copied())];
    for (place, expected) in said {
        if let Some(expected) = expected.filter(|expected| *expected != actual) {
            faults.push(Fault::DiffId {
                index,
                place,
                expected: expected.to_string(),
                actual,
            });
        }
    }
}

/// The diffID and size of a layer's tar, its blob verified. Stops one byte after the size that the layer says.
fn read_tar(layer: &Layer) -> io::Result<(DiffId, u64)> {
    let mut blob = layer.open();
    let result = {
        let tar: Box<dyn Read + '_> = match layer.compression {
            Compression::Gzip(_) => Box::new(MultiGzDecoder::new(&mut blob)),
            Compression::Zstd(_) => Box::new(zstd::stream::read::Decoder::new(&mut blob)?),
            Compression::None => Box::new(&mut blob),
        };
        let limit = match layer.tar_size {
            0 => u64::MAX,
            size => size.saturating_add(1),
        };
        hash(tar.take(limit))?
    };
    // The end of the blob is where its digest is checked.
    io::copy(&mut blob, &mut io::sink())?;
    Ok(result)
}

fn hash(mut source: impl Read) -> io::Result<(DiffId, u64)> {
    let (mut hasher, mut size, mut buffer) = (Hasher::new(), 0, vec![0; 128 << 10]);
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok((hasher.diff_id(), size)),
            Ok(count) => {
                hasher.update(&buffer[..count]);
                size += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
