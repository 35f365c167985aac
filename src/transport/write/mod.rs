//! An image is *written* as an archive file, an archive on a stream, or into a layout directory.
//!
//! Invariant: equal images and names give equal bytes on every machine; every blob is hashed while it is copied, and a
//! file gets its name only when all of them were right.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::names;
use super::read::{self, ReadOptions};
use super::{Sink, Source, Tally, Transferred, TransportError};
use crate::digest::{ContentDigest, Digest};
use crate::fsio::{self, AtomicFile, IoContext, Target};
use crate::image::ImageLayer;
use crate::image::{Image, ImageIndex};
use crate::layer::for_each_layer;
use crate::oci::{ConfigDocument, LayerCodec, LayerLimit, Reference};

mod bundle;
mod header;
mod layout;
mod prune;
mod record;

use bundle::{Bundle, Label};
pub use layout::Layout;
pub use prune::Freed;

const COPY_BUFFER: usize = 256 << 10;

/// An archive file: `docker-archive:F` or `oci-archive:F`.
#[derive(Debug, Clone)]
pub struct Archive {
    path: PathBuf,
    docker: bool,
    name: Option<String>,
    records: Option<PathBuf>,
    tally: Tally,
}

/// What a write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The manifest's digest.
    pub digest: Digest,
    /// Whether the file already held exactly this and was left alone.
    pub unchanged: bool,
}

impl Archive {
    /// A tar that is both a `docker save` archive and an OCI layout.
    pub fn docker(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            docker: true,
            name: None,
            records: None,
            tally: Tally::default(),
        }
    }

    /// A tar that is an OCI layout.
    pub fn oci(path: &Path) -> Self {
        Self {
            docker: false,
            ..Self::docker(path)
        }
    }

    /// With a name of its own: one more name in a docker-archive, the reference in an OCI archive.
    pub fn named(mut self, name: Option<&str>) -> Self {
        self.name = name.map(str::to_owned);
        self
    }

    /// With a directory for notes on what was written, so that an unchanged file is not written again.
    pub fn records(mut self, dir: Option<&Path>) -> Self {
        self.records = dir.map(Path::to_owned);
        self
    }

    /// Writes the archive, or finds that the file holds it already.
    pub fn write(&self, image: &Image, names: &[String]) -> Result<Written, TransportError> {
        let bundle = self.bundle(image, names, &self.place())?;
        let unchanged = self.write_bundle(&bundle)?;
        Ok(Written {
            digest: image.digest(),
            unchanged,
        })
    }

    /// Gives whether the file was left alone.
    fn write_bundle(&self, bundle: &Bundle<'_>) -> Result<bool, TransportError> {
        refuse_absent(bundle, &self.place())?;
        let path = match Target::of(&self.path)? {
            Target::File(path) => path,
            Target::Stream(mut file) => {
                bundle.write(&mut StreamOut::new(&mut file, &self.place()))?;
                self.tally.wrote(bundle.size());
                return Ok(false);
            }
        };
        path.parent().into_iter().for_each(fsio::sweep);
        let key = bundle.key();
        if self.records.as_ref().is_some_and(|dir| record::holds(dir, &path, key)) {
            self.tally.skipped(bundle.size());
            return Ok(true);
        }
        let mut file = AtomicFile::create(&path)?;
        bundle.write(&mut FileOut::new(file.file(), &path))?;
        self.tally.wrote(bundle.size());
        let open = file.file().try_clone().context("open", &path)?;
        file.publish()?;
        if let Some(dir) = &self.records {
            record::note(dir, &path, key, &open)?;
        }
        Ok(false)
    }

    fn bundle<'a>(&self, image: &'a Image, names: &[String], place: &str) -> Result<Bundle<'a>, TransportError> {
        let mut names = names::parse_all(names)?;
        if !self.docker {
            return Bundle::oci(image, &oci_labels(&names, self.name.as_deref())?, place);
        }
        refuse_artifact(image)?;
        if let Some(own) = &self.name {
            let own = names::parse(own)?;
            names.retain(|name| *name != own);
            names.push(own);
        }
        Bundle::docker(image, &names, place)
    }

    fn place(&self) -> String {
        let transport = if self.docker { "docker-archive" } else { "oci-archive" };
        format!("{transport}:{}", self.path.display())
    }
}

impl Sink for Archive {
    fn put(&self, image: &Image, names: &[String]) -> Result<Digest, TransportError> {
        self.write(image, names).map(|written| written.digest)
    }

    fn put_index(&self, index: &ImageIndex, names: &[String]) -> Result<Digest, TransportError> {
        if self.docker {
            return Err(TransportError::NoIndex);
        }
        let labels = oci_labels(&names::parse_all(names)?, self.name.as_deref())?;
        self.write_bundle(&Bundle::of_index(index, &labels, &self.place())?)?;
        Ok(index.digest())
    }

    /// An archive is written whole, so that it stands as one thing under its own name.
    fn current(&self, _names: &[String]) -> Result<Vec<(String, Digest)>, TransportError> {
        if !self.path.is_file() {
            return Ok(Vec::new());
        }
        let options = ReadOptions {
            whole: true,
            ..ReadOptions::default()
        };
        let document = read::any(&self.path, None, &options)?.document()?;
        Ok(vec![(self.path.display().to_string(), Digest::of(document.bytes()))])
    }

    fn transferred(&self) -> Transferred {
        self.tally.total()
    }

    fn warnings(&self, image: &Image) -> Vec<String> {
        let mut warnings = docker_warnings(image);
        if !self.docker {
            warnings.extend(docker_manifest_warning(image));
        }
        warnings
    }
}

/// A docker-archive on a stream: standard output, or an engine's input.
pub struct Stream<W> {
    writer: Mutex<W>,
    place: String,
    tally: Tally,
}

impl<W: Write> Stream<W> {
    /// Writes to `writer`, which messages call `place`.
    pub fn new(writer: W, place: &str) -> Self {
        Self {
            writer: Mutex::new(writer),
            place: place.to_owned(),
            tally: Tally::default(),
        }
    }

    /// Writes a docker-archive without the files of the layers `present`, which its reader has.
    pub(super) fn put_without(
        &self,
        image: &Image,
        names: &[String],
        present: &BTreeSet<ContentDigest>,
    ) -> Result<(), TransportError> {
        refuse_artifact(image)?;
        let bundle = Bundle::docker(image, &names::parse_all(names)?, &self.place)?;
        let whole = bundle.size();
        let bundle = bundle.without(present);
        refuse_absent(&bundle, &self.place)?;
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        bundle.write(&mut StreamOut::new(&mut *writer, &self.place))?;
        self.tally.wrote(bundle.size());
        self.tally.skipped(whole - bundle.size());
        Ok(())
    }

    /// Gives back the writer.
    pub fn into_inner(self) -> W {
        self.writer.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Write> Sink for Stream<W> {
    fn put(&self, image: &Image, names: &[String]) -> Result<Digest, TransportError> {
        self.put_without(image, names, &BTreeSet::new())?;
        Ok(image.digest())
    }

    fn transferred(&self) -> Transferred {
        self.tally.total()
    }

    fn warnings(&self, image: &Image) -> Vec<String> {
        docker_warnings(image)
    }
}

/// Docker and podman load images to run alone ("invalid image JSON").
pub(super) fn refuse_artifact(image: &Image) -> Result<(), TransportError> {
    match image.config {
        ConfigDocument::Image(_) => Ok(()),
        ConfigDocument::Artifact(_) => Err(TransportError::NoArtifact {
            kind: image.manifest.kind_of_artifact().to_owned(),
        }),
    }
}

/// Readers of Docker's archives want every layer.
fn refuse_absent(bundle: &Bundle<'_>, place: &str) -> Result<(), TransportError> {
    bundle.absent().map_or(Ok(()), |layer| {
        Err(TransportError::needs_layer(place, &layer.descriptor))
    })
}

/// Where a bundle is written to, whose layers live for `'l`.
trait Out<'l> {
    /// Writes bytes.
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), TransportError>;
    /// Writes a layer's stored bytes, verified, at the latest when the bundle is finished.
    fn layer(&mut self, layer: &'l ImageLayer) -> Result<(), TransportError>;
    /// Hands everything on to the system.
    fn finish(&mut self) -> Result<(), TransportError>;
}

/// A file. Its layers get their places at once and their bytes in the end, several layers at a time; one whose cache
/// turns out to be damaged can be written again.
struct FileOut<'f, 'l> {
    file: BufWriter<&'f mut File>,
    path: &'f Path,
    layers: Vec<(&'l ImageLayer, u64)>,
}

impl<'f> FileOut<'f, '_> {
    fn new(file: &'f mut File, path: &'f Path) -> Self {
        Self {
            file: BufWriter::with_capacity(64 << 10, file),
            path,
            layers: Vec::new(),
        }
    }
}

impl<'l> Out<'l> for FileOut<'_, 'l> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), TransportError> {
        Ok(self.file.write_all(bytes).context("write", self.path)?)
    }

    fn layer(&mut self, layer: &'l ImageLayer) -> Result<(), TransportError> {
        let at = self.file.stream_position().context("seek in", self.path)?;
        self.layers.push((layer, at));
        // A size that no file can have, as a foreign manifest may claim it, is the system's error.
        let after = SeekFrom::Start(at.saturating_add(layer.size()));
        self.file.seek(after).context("seek in", self.path)?;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), TransportError> {
        self.file.flush().context("write", self.path)?;
        let (file, path) = (&**self.file.get_ref(), self.path);
        let layers = std::mem::take(&mut self.layers);
        let copied = for_each_layer(
            &layers,
            |(layer, _)| layer.size(),
            |(layer, at)| layer.copy_to(file, *at, path),
        );
        Ok(copied?)
    }
}

/// A stream, which cannot be taken back: a damaged layer ends it.
struct StreamOut<'a> {
    writer: BufWriter<&'a mut dyn Write>,
    place: &'a str,
}

impl<'a> StreamOut<'a> {
    fn new(writer: &'a mut dyn Write, place: &'a str) -> Self {
        Self {
            writer: BufWriter::with_capacity(64 << 10, writer),
            place,
        }
    }

    /// The reader's end is told apart, because it is not the writer's failure.
    fn error(&self, source: io::Error) -> TransportError {
        let place = self.place.to_owned();
        match source.kind() {
            io::ErrorKind::BrokenPipe => TransportError::ReaderGone { place },
            _ => TransportError::Stream { place, source },
        }
    }
}

impl<'l> Out<'l> for StreamOut<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), TransportError> {
        self.writer.write_all(bytes).map_err(|source| self.error(source))
    }

    fn layer(&mut self, layer: &'l ImageLayer) -> Result<(), TransportError> {
        let mut reader = layer.open();
        let mut buffer = vec![0; COPY_BUFFER];
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => self.bytes(&buffer[..count])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(layer.read_error(error).into()),
            }
        }
    }

    fn finish(&mut self) -> Result<(), TransportError> {
        self.writer.flush().map_err(|source| self.error(source))
    }
}

/// The labels of an OCI archive or layout; a reference follows the grammar of the image-spec's annotation.
fn oci_labels(names: &[Reference], reference: Option<&str>) -> Result<Vec<Label>, TransportError> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:@/+".contains(&byte);
    match reference {
        Some(text) if text.is_empty() || !text.bytes().all(legal) => Err(TransportError::Name {
            text: text.to_owned(),
            reason: "a reference has letters, digits and `-._:@/+`",
        }),
        _ => Ok(bundle::labels(names, reference)),
    }
}

/// What readers of docker-archives refuse.
pub(super) fn docker_warnings(image: &Image) -> Vec<String> {
    let mut warnings = Vec::new();
    if image.layers.iter().any(|layer| layer.codec() == Some(LayerCodec::Zstd)) {
        warnings.push(
            "layers compressed with zstd cannot be loaded by Docker before 23 nor read by umoci; gzip works everywhere"
                .to_owned(),
        );
    }
    let layers = image.layers.len();
    if layers > LayerLimit::DOCKER.get() {
        warnings.push(format!(
            "Docker loads at most {} layers with its classic storage, this image has {layers}",
            LayerLimit::DOCKER
        ));
    }
    warnings
}

/// A manifest of Docker's form keeps its bytes in a layout, where some readers only look for OCI's.
fn docker_manifest_warning(image: &Image) -> Option<String> {
    let text = "the manifest has Docker's media type, which skopeo does not find in an OCI layout; a docker-archive or \
                a registry can hold it";
    image.manifest.is_docker().then(|| text.to_owned())
}
