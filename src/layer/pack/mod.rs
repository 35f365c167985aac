//! *Packing* turns layer inputs into layers: one read of each file feeds its verification, the tar, the
//! compression and both digests.
//!
//! Invariant: a layer is a function of its input, the compression and the format; the cache, the number of
//! threads and the state of the page cache change how long it takes and nothing else.
//!
//! A layer of store paths is made of *pieces*: the directories above the paths, each path, and the end of the
//! archive. A piece begins a new block, so that its packed bytes are the same in whatever layer it stands: the
//! cache keeps them by store path. A layer all of whose pieces are known and whose record is kept costs
//! no read at all; where only the record is missing (another path of the layer changed), the kept pieces are
//! unpacked for the layer's diffID, which costs a fifth of packing them.

mod ahead;
mod collect;
mod links;
mod pipe;
mod pool;
mod recipe;
mod source;
mod stream;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use ahead::Ahead;
use collect::{Collected, Output, Piece};
pub(super) use pipe::PipeTarReader;
use pool::{Pool, Worker};
use recipe::{LayerPart, LayerParts, check_unique};
use stream::Stream;

use super::blob::{CachedLayer, Keep};
use super::cache::{LayerCache, LayerRecord, PartRecord};
use super::codec::Engine;
use super::tree::Tree;
use super::{Blob, LayerError, PackedLayer};
use crate::capability::FileCapabilities;
use crate::digest::Digest;
use crate::event::{Event, Reporter};
use crate::fsio::PathError;
use crate::oci::{Compression, TarProfile};
use crate::parallel;
use crate::store_path::LogicalPath;

/// A store path to be packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreEntry {
    /// Its place in the image, which is its name in the layer.
    pub logical: LogicalPath,
    /// Where it is on disk.
    pub physical: PathBuf,
    /// Hash of its canonical archive; verified while packing.
    pub nar_hash: Digest,
    /// Size of that archive in bytes.
    pub nar_size: u64,
    /// Modes and owners in it that are not the usual ones, sorted by path.
    pub attributes: Vec<Attribute>,
}

/// Mode, owner and capabilities of an entry of a store path, in place of 0444 or 0555, root and none.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attribute {
    /// The entry, relative to the store path; empty for the store path itself.
    pub path: Vec<u8>,
    /// Permission bits; `None`: the usual ones.
    pub mode: Option<u32>,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// The capabilities of a regular file.
    pub capabilities: Option<FileCapabilities>,
}

/// What a layer holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerContent {
    /// Store paths, in any order.
    StorePaths(Vec<StoreEntry>),
    /// Other entries.
    Tree(Tree),
}

/// A layer to be packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerInput {
    /// What it holds.
    pub content: LayerContent,
    /// One line for the image's history.
    pub comment: String,
}

impl LayerInput {
    /// Uncompressed size in bytes, near enough to tell large from small.
    fn size(&self) -> u64 {
        match &self.content {
            LayerContent::StorePaths(paths) => paths.iter().map(|path| path.nar_size).sum(),
            LayerContent::Tree(tree) => tree.content_size() + 512 * tree.len() as u64,
        }
    }
}

/// How layers are packed.
#[derive(Debug, Default)]
pub struct PackOptions<'c> {
    /// How they are compressed.
    pub compression: Compression,
    /// Number of threads; 0 is as many as the machine has.
    pub threads: usize,
    /// The dialect of their tars.
    pub profile: TarProfile,
    /// One gzip member for a whole layer, for consumers that read no more than the first.
    pub single_member: bool,
    /// Where packed pieces are kept.
    pub cache: Option<&'c LayerCache>,
    /// Directory for temporary files where there is no cache; `None`: the system's.
    pub scratch: Option<PathBuf>,
}

/// Packs layers; the result is in the order of `inputs`.
pub fn pack(
    inputs: &[LayerInput],
    options: &PackOptions<'_>,
    reporter: &dyn Reporter,
) -> Result<Vec<PackedLayer>, LayerError> {
    let engine = Engine::new(options.compression, options.single_member);
    let jobs = inputs
        .iter()
        .map(|input| LayerParts::new(input, engine, options.profile))
        .collect::<Result<Vec<_>, _>>()?;
    check_unique(&jobs)?;
    let mut order: Vec<usize> = (0..inputs.len()).collect();
    order.sort_by_key(|&index| (std::cmp::Reverse(inputs[index].size()), index));
    let results: Vec<Mutex<Option<Result<PackedLayer, LayerError>>>> =
        inputs.iter().map(|_| Mutex::new(None)).collect();
    let threads = parallel::threads(options.threads);
    let (ahead, cache_failed) = (Ahead::default(), AtomicBool::new(false));
    Pool::run(engine, threads, order, &|index, worker| {
        let packing = Packing {
            recipe: &jobs[index],
            input: &inputs[index],
            options,
            reporter,
            place: (index, inputs.len()),
            ahead: &ahead,
            cache_failed: &cache_failed,
        };
        let result = packing.run(worker);
        if result.is_err() {
            worker.stop();
        }
        if let (Ok(mut slot), Some(result)) = (results[index].lock(), result.transpose()) {
            *slot = Some(result);
        }
    });
    finished(results)
}

/// All layers, or the error of the first layer that has one.
fn finished(results: Vec<Mutex<Option<Result<PackedLayer, LayerError>>>>) -> Result<Vec<PackedLayer>, LayerError> {
    let results: Vec<_> = results
        .into_iter()
        .map(|slot| slot.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
        .collect();
    let count = results.len();
    let layers = results.into_iter().flatten().collect::<Result<Vec<_>, _>>()?;
    assert_eq!(layers.len(), count, "a layer is left out only when another failed");
    Ok(layers)
}

/// Why a layer's packing ended early.
enum PackError {
    /// It cannot be packed.
    Layer(LayerError),
    /// The cache cannot be written.
    CacheWrite(PathError),
    /// This piece of the cache is not what its index says.
    Corrupt(Digest),
    /// Another layer failed, or the reader is gone.
    Cancelled,
}

impl From<LayerError> for PackError {
    fn from(error: LayerError) -> Self {
        Self::Layer(error)
    }
}

/// The packing of one layer.
struct Packing<'p> {
    recipe: &'p LayerParts<'p>,
    input: &'p LayerInput,
    options: &'p PackOptions<'p>,
    reporter: &'p dyn Reporter,
    /// Index and number of layers.
    place: (usize, usize),
    ahead: &'p Ahead,
    cache_failed: &'p AtomicBool,
}

impl Packing<'_> {
    /// `None` where another layer's failure ended it.
    fn run(&self, worker: &mut Worker<'_>) -> Result<Option<PackedLayer>, LayerError> {
        let (layer, layers) = self.place;
        self.reporter.report(Event::LayerStarted {
            layer,
            layers,
            size: self.input.size(),
        });
        let mut cache = self.options.cache.filter(|_| !self.cache_failed.load(Relaxed));
        let mut damaged = None;
        loop {
            if let Some(found) = cache.and_then(|cache| self.recorded(cache)) {
                return Ok(Some(self.report(found, true)));
            }
            match self.assemble(worker, cache) {
                Ok(collected) => return Ok(Some(self.report(self.finish(cache, collected), false))),
                Err(PackError::Layer(error)) => return Err(error),
                Err(PackError::Cancelled) => return Ok(None),
                // The damaged piece is made anew; one that cannot even be removed ends the cache's use.
                Err(PackError::Corrupt(key)) if damaged != Some(key) => {
                    cache.inspect(|cache| cache.remove_piece(&key));
                    damaged = Some(key);
                }
                Err(PackError::Corrupt(_)) => cache = None,
                Err(PackError::CacheWrite(error)) => {
                    self.warn(&error);
                    cache = None;
                }
            }
        }
    }

    fn report(&self, layer: PackedLayer, cached: bool) -> PackedLayer {
        self.reporter.report(Event::LayerFinished {
            layer: self.place.0,
            layers: self.place.1,
            size: layer.tar_size,
            compressed: layer.size,
            cached,
        });
        layer
    }

    /// Tells once that the cache cannot be used; layers begun later do without it.
    fn warn(&self, error: &PathError) {
        if self.cache_failed.swap(true, Relaxed) {
            return;
        }
        self.reporter.report(Event::Warning {
            text: format!("the layer cache is not used: {error}: {}", error.source),
        });
    }

    fn recorded(&self, cache: &LayerCache) -> Option<PackedLayer> {
        let record = cache.layer(&self.recipe.key)?;
        let blob = match self.options.compression {
            Compression::None => self.plain_blob(&record),
            _ => self.cached_blob(cache, &record)?,
        };
        (blob.size() == record.size).then(|| self.layer(&record, blob))
    }

    /// The layer's parts in the cache; `None` for a record that makes no sense.
    fn cached_blob(&self, cache: &LayerCache, record: &LayerRecord) -> Option<Blob> {
        let keep = Arc::new(Keep::Cached(Box::new(CachedLayer {
            cache: cache.clone(),
            key: self.recipe.key,
            record: record.clone(),
            input: self.input.clone(),
            compression: self.options.compression,
            single_member: self.options.single_member,
            profile: self.options.profile,
        })));
        let blobs = record.parts.iter().map(|part| match part {
            PartRecord::Piece { key, size, .. } => Some(Blob::Kept {
                path: cache.piece_path(key),
                offset: 0,
                len: *size,
                keep: keep.clone(),
            }),
            PartRecord::Bytes(hex) => Some(Blob::Bytes(from_hex(hex)?.into())),
        });
        Some(Blob::Parts(blobs.collect::<Option<_>>()?))
    }

    fn plain_blob(&self, record: &LayerRecord) -> Blob {
        Blob::Tar {
            input: Arc::new(self.input.clone()),
            profile: self.options.profile,
            len: record.size,
        }
    }

    fn finish(&self, cache: Option<&LayerCache>, collected: Collected) -> PackedLayer {
        let Collected { record, spool } = collected;
        if let Some(Err(error)) = cache.map(|cache| cache.put_layer(&self.recipe.key, &record)) {
            self.warn(&error);
        }
        let blob = match (spool, cache) {
            _ if self.options.compression == Compression::None => self.plain_blob(&record),
            (Some(path), _) => Blob::Kept {
                path: path.to_path_buf(),
                offset: 0,
                len: record.size,
                keep: Arc::new(Keep::Temporary(path)),
            },
            (None, Some(cache)) => self
                .cached_blob(cache, &record)
                .expect("a record just made makes sense"),
            (None, None) => unreachable!("without a cache a layer is spooled"),
        };
        self.layer(&record, blob)
    }

    fn layer(&self, record: &LayerRecord, blob: Blob) -> PackedLayer {
        PackedLayer {
            diff_id: record.diff_id,
            digest: record.digest,
            size: record.size,
            tar_size: record.tar_size,
            compression: self.options.compression,
            store_paths: self.recipe.store_paths.iter().map(|&path| path.clone()).collect(),
            comment: self.input.comment.clone(),
            blob,
        }
    }

    fn assemble(&self, worker: &mut Worker<'_>, cache: Option<&LayerCache>) -> Result<Collected, PackError> {
        // An uncompressed layer is made anew from the store when it is read.
        let plain = worker.engine().is_identity();
        let cache = cache.filter(|_| !plain);
        let output = match cache {
            _ if plain => Output::Nowhere,
            Some(cache) => Output::Cache(cache),
            None => Output::Spool(self.spool()?),
        };
        let coming = self.recipe.pieces.iter().filter_map(|part| match part {
            LayerPart::StorePath(key, entry) => {
                let kept = cache.is_some_and(|cache| cache.piece_path(key).exists());
                (!kept).then(|| entry.physical.clone())
            }
            _ => None,
        });
        let mut stream = Stream::new(worker, output, self.ahead, coming.collect())?;
        for part in &self.recipe.pieces {
            if let LayerPart::StorePath(key, _) | LayerPart::Tree(key, _) = part
                && let Some((file, index)) = cache.and_then(|cache| cache.open_piece(key))
            {
                stream.cached(*key, file, index)?;
                continue;
            }
            stream.begin(match part {
                LayerPart::StorePath(key, _) | LayerPart::Tree(key, _) => Piece::Fresh(*key),
                LayerPart::Beginning | LayerPart::Parents(_) | LayerPart::Trailer => Piece::Inline,
            })?;
            source::write_part(&mut stream, part, self.options.profile, true)?;
            stream.end()?;
        }
        stream.finish()
    }

    fn spool(&self) -> Result<tempfile::NamedTempFile, LayerError> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(".layerize-layer-");
        let made = match &self.options.scratch {
            Some(dir) => builder.tempfile_in(dir),
            None => builder.tempfile(),
        };
        made.map_err(|source| {
            LayerError::Io(PathError {
                action: "create a temporary file in",
                path: self.options.scratch.clone().unwrap_or_else(std::env::temp_dir),
                source,
            })
        })
    }
}

fn from_hex(hex: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| (byte as char).to_digit(16);
    let pairs = hex.as_bytes().chunks(2).map(|pair| match pair {
        &[high, low] => Some((digit(high)? << 4 | digit(low)?) as u8),
        _ => None,
    });
    pairs.collect()
}

#[cfg(test)]
mod tests;
