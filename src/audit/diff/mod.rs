//! A *difference* is one respect in which two images are not the same, told top down: manifest, config, layers, files.
//!
//! Invariant: images of one manifest digest are equal and nothing else of them is read; layers of one blob digest
//! are never read; a report without differences means that config and layers are the same.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use super::AuditError;
use super::facts::{LayerFacts, scan};
use super::opened::{Opened, OpenedLayer};
use super::stream::LayerStream;
use crate::digest::{DiffId, Digest};
use crate::transport::Source;

mod content;
mod documents;
mod files;
mod flatten;
mod layers;
mod render;
mod sequence;

use content::Wanted;
use files::{Files, Matched};
use layers::Fate;

/// How much to look at and to tell.
#[derive(Debug, Clone)]
pub struct DiffOptions {
    /// Most file differences in the report; the others are counted.
    pub files: usize,
    /// Most files whose contents are read a second time, to say where they differ.
    pub contents: usize,
    /// Most lines of a text's unified diff.
    pub lines: usize,
    /// Where contents are kept meanwhile; `None` is the system's directory for temporary files.
    pub temp_dir: Option<PathBuf>,
}

impl Default for DiffOptions {
    fn default() -> Self {
        Self {
            files: 1000,
            contents: 20,
            lines: 40,
            temp_dir: None,
        }
    }
}

/// How two images differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DiffReport {
    /// The first image.
    pub a: Side,
    /// The second image.
    pub b: Side,
    /// Whether the file systems that the layers make are the same; `None` where they were not compared as a whole.
    pub same_files: Option<bool>,
    /// The differences, top down.
    pub differences: Vec<Difference>,
    /// Number of file differences that are not in the list.
    pub omitted: usize,
}

/// One of the two images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Side {
    /// Where it is.
    pub place: String,
    /// Digest of its manifest; `None` where the place holds none.
    pub digest: Option<Digest>,
}

/// One respect in which two images differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "level", rename_all = "kebab-case")]
pub enum Difference {
    /// A field of the manifest.
    Manifest(FieldChange),
    /// A field of the config.
    Config(FieldChange),
    /// A whole layer.
    Layer(LayerChange),
    /// A store path that has another hash.
    StorePath(StorePathChange),
    /// A file.
    File(FileChange),
    /// How a layer's tar is written.
    Archive(ArchiveChange),
}

/// A field of a JSON document.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldChange {
    /// Its path in the document: `config.Env.PATH`.
    pub field: String,
    /// Its value in the first image.
    pub a: Option<Value>,
    /// Its value in the second image.
    pub b: Option<Value>,
}

/// What became of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the fields are what the variant's sentence names")]
pub enum LayerChange {
    /// Only in the second image.
    Added { b: usize, digest: Digest, size: u64 },
    /// Only in the first image.
    Removed { a: usize, digest: Digest, size: u64 },
    /// In both, at another place in the order.
    Moved { a: usize, b: usize, digest: Digest },
    /// The same tar, stored in other bytes.
    Compression {
        a: usize,
        b: usize,
        from: String,
        to: String,
    },
    /// Another tar at the same place; its files follow.
    Changed {
        a: usize,
        b: usize,
        from: Digest,
        to: Digest,
    },
}

/// A store path of one image that stands for one of the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StorePathChange {
    /// In the first image.
    pub a: String,
    /// In the second image.
    pub b: String,
}

/// Which layers something is in, by index from the lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LayerPlace {
    /// In the first image.
    pub a: Option<usize>,
    /// In the second image.
    pub b: Option<usize>,
}

/// The respect in which files or archives differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aspect {
    /// Only in the second image.
    Added,
    /// Only in the first image.
    Removed,
    /// File, directory, link and so on.
    Type,
    /// Permission bits.
    Mode,
    /// Owner or group, by number or name.
    Owner,
    /// Modification time.
    Mtime,
    /// Size, and with it the content.
    Size,
    /// Content of the same size.
    Content,
    /// Target of a link.
    Link,
    /// Numbers of a device.
    Device,
    /// Extended attributes.
    Xattr,
    /// Order of the entries.
    Order,
    /// How the tar says the same.
    Dialect,
}

/// A file that differs in one respect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// Its path, as in the first image.
    pub path: String,
    /// The respect.
    pub aspect: Aspect,
    /// The layers.
    pub layer: LayerPlace,
    /// What the first image has.
    pub a: Option<String>,
    /// What the second image has.
    pub b: Option<String>,
    /// The store path that owns it.
    pub store_path: Option<String>,
    /// Where the contents differ, if they were compared.
    pub content: Option<ContentChange>,
}

/// Where two contents differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContentChange {
    /// The first byte that differs, from 0.
    pub offset: u64,
    /// A unified diff, if both are small texts.
    pub text: Option<String>,
}

/// Two tars that write the same differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ArchiveChange {
    /// The layers.
    pub layer: LayerPlace,
    /// [`Aspect::Order`] or [`Aspect::Dialect`].
    pub aspect: Aspect,
    /// What exactly.
    pub what: String,
    /// Number of entries it concerns.
    pub entries: u64,
    /// The first of them.
    pub first: String,
    /// How the first image has it.
    pub a: String,
    /// How the second image has it.
    pub b: String,
}

impl DiffReport {
    /// Whether the images are the same.
    pub fn equal(&self) -> bool {
        self.differences.is_empty()
    }
}

/// Compares two images.
pub fn diff(a: &dyn Source, b: &dyn Source, options: &DiffOptions) -> Result<DiffReport, AuditError> {
    let side = |source: &dyn Source| -> Result<(Side, Digest), AuditError> {
        let digest = Digest::of(&source.manifest()?.0);
        let known = (!source.synthesized()).then_some(digest);
        Ok((
            Side {
                place: source.place().to_owned(),
                digest: known,
            },
            digest,
        ))
    };
    let ((side_a, digest_a), (side_b, digest_b)) = (side(a)?, side(b)?);
    let report = DiffReport {
        a: side_a,
        b: side_b,
        same_files: None,
        differences: Vec::new(),
        omitted: 0,
    };
    if digest_a == digest_b {
        return Ok(report);
    }
    let (a, b) = (Opened::new(a)?, Opened::new(b)?);
    let mut comparison = Comparison {
        a: &a,
        b: &b,
        options,
        report,
        files: Vec::new(),
        wanted: Vec::new(),
    };
    comparison.documents();
    comparison.layers()?;
    comparison.contents()?;
    Ok(comparison.finish())
}

/// A comparison under way.
struct Comparison<'a> {
    a: &'a Opened<'a>,
    b: &'a Opened<'a>,
    options: &'a DiffOptions,
    report: DiffReport,
    /// File differences, before they are cut to the wanted number.
    files: Vec<FileChange>,
    wanted: Vec<Wanted>,
}

impl Comparison<'_> {
    fn documents(&mut self) {
        let manifest = documents::manifest(self.a, self.b);
        let config = documents::config(self.a, self.b);
        let comparable = !self.a.source.synthesized() && !self.b.source.synthesized();
        self.report
            .differences
            .extend(manifest.into_iter().map(Difference::Manifest));
        if comparable && self.a.manifest_value == self.b.manifest_value {
            let change = documents::encoding("manifest's", &self.a.manifest_bytes, &self.b.manifest_bytes);
            self.report.differences.push(Difference::Manifest(change));
        }
        self.report
            .differences
            .extend(config.into_iter().map(Difference::Config));
        if self.a.config_value == self.b.config_value && self.a.config_bytes != self.b.config_bytes {
            let change = documents::encoding("config's", &self.a.config_bytes, &self.b.config_bytes);
            self.report.differences.push(Difference::Config(change));
        }
    }

    fn layers(&mut self) -> Result<(), AuditError> {
        let fates = layers::fates(&self.a.layers, &self.b.layers);
        let mut changed = Vec::new();
        let mut relayered = false;
        for fate in fates {
            let (from, to) = (
                |x: usize| &self.a.layers[x].descriptor,
                |y: usize| &self.b.layers[y].descriptor,
            );
            let change = match fate {
                Fate::Same(x, y) => {
                    self.same_layer(x, y)?;
                    continue;
                }
                Fate::Changed(x, y) => {
                    changed.push((x, y));
                    LayerChange::Changed {
                        a: x,
                        b: y,
                        from: from(x).digest,
                        to: to(y).digest,
                    }
                }
                Fate::Moved(x, y) => LayerChange::Moved {
                    a: x,
                    b: y,
                    digest: from(x).digest,
                },
                Fate::Removed(x) => LayerChange::Removed {
                    a: x,
                    digest: from(x).digest,
                    size: from(x).size,
                },
                Fate::Added(y) => LayerChange::Added {
                    b: y,
                    digest: to(y).digest,
                    size: to(y).size,
                },
            };
            relayered |= !matches!(fate, Fate::Changed(..));
            self.report.differences.push(Difference::Layer(change));
        }
        if relayered {
            return self.flattened();
        }
        changed.into_iter().try_for_each(|(x, y)| self.changed_layer(x, y))
    }

    /// Two layers of one tar: their descriptors may differ, and their compression.
    fn same_layer(&mut self, x: usize, y: usize) -> Result<(), AuditError> {
        let (p, q) = (&self.a.layers[x].descriptor, &self.b.layers[y].descriptor);
        let comparable = !self.a.source.synthesized() && !self.b.source.synthesized();
        if comparable {
            let (values_a, values_b) = (&self.a.manifest_value["layers"][x], &self.b.manifest_value["layers"][y]);
            let changes = documents::layer(x, values_a, values_b, p.digest == q.digest);
            self.report
                .differences
                .extend(changes.into_iter().map(Difference::Manifest));
        }
        if p.digest != q.digest {
            let from = self.stored(self.a, x)?;
            let to = self.stored(self.b, y)?;
            let change = LayerChange::Compression { a: x, b: y, from, to };
            self.report.differences.push(Difference::Layer(change));
        }
        Ok(())
    }

    /// How a layer is stored; it is read, because that two blobs hold one tar is only the configs' claim so far.
    fn stored(&self, image: &Opened, index: usize) -> Result<String, AuditError> {
        let OpenedLayer { descriptor, diff_id } = &image.layers[index];
        let end = LayerStream::open(image.source, descriptor)?.finish()?;
        match *diff_id {
            Some(claimed) if claimed != end.diff_id => Err(AuditError::Claim {
                place: image.source.place().to_owned(),
                digest: descriptor.digest,
                claimed,
                actual: end.diff_id,
            }),
            _ => Ok(format!("{}, {} bytes", end.packing.name(), descriptor.size)),
        }
    }

    /// Two layers of which one stands for the other: file by file.
    fn changed_layer(&mut self, x: usize, y: usize) -> Result<(), AuditError> {
        let a = scan(self.a.source, &self.a.layers[x].descriptor)?;
        let b = scan(self.b.source, &self.b.layers[y].descriptor)?;
        let in_a: Files = a.by_path().into_iter().map(|(path, fact)| (path, (x, fact))).collect();
        let in_b: Files = b.by_path().into_iter().map(|(path, fact)| (path, (y, fact))).collect();
        let matched = files::matched(&in_a, &in_b);
        let before = self.files.len();
        self.file_changes(&matched);
        let quiet = self.files.len() == before && matched.store_paths.is_empty();
        let place = LayerPlace { a: Some(x), b: Some(y) };
        let changes = files::archive(place, &a, &b, &matched, quiet);
        self.report
            .differences
            .extend(changes.into_iter().map(Difference::Archive));
        Ok(())
    }

    /// Images whose layers were cut differently: the file systems that they make.
    fn flattened(&mut self) -> Result<(), AuditError> {
        let mut cache: BTreeMap<(Option<DiffId>, Digest), LayerFacts> = BTreeMap::new();
        for image in [self.a, self.b] {
            for layer in &image.layers {
                let key = (layer.diff_id, layer.descriptor.digest);
                if let std::collections::btree_map::Entry::Vacant(slot) = cache.entry(key) {
                    slot.insert(scan(image.source, &layer.descriptor)?);
                }
            }
        }
        let flat = |image: &Opened| {
            let keys = image
                .layers
                .iter()
                .map(|layer| (layer.diff_id, layer.descriptor.digest));
            flatten::flatten(keys.filter_map(|key| cache.get(&key)))
        };
        let (flat_a, flat_b) = (flat(self.a), flat(self.b));
        let (in_a, in_b) = (borrowed(&flat_a), borrowed(&flat_b));
        let matched = files::matched(&in_a, &in_b);
        self.file_changes(&matched);
        self.report.same_files = Some(self.files.is_empty() && matched.store_paths.is_empty());
        Ok(())
    }

    fn file_changes(&mut self, matched: &Matched) {
        self.report
            .differences
            .extend(matched.store_paths.iter().cloned().map(Difference::StorePath));
        for pair in &matched.pairs {
            for change in files::aspects(pair) {
                if matches!(change.aspect, Aspect::Size | Aspect::Content) && self.wanted.len() < self.options.contents
                {
                    let ((layer_a, a), (layer_b, b)) = pair;
                    self.wanted.push(Wanted {
                        change: self.files.len(),
                        a: (*layer_a, a.path.clone()),
                        b: (*layer_b, b.path.clone()),
                    });
                }
                self.files.push(change);
            }
        }
        self.files
            .extend(matched.removed.iter().map(|&place| files::lone(Aspect::Removed, place)));
        self.files
            .extend(matched.added.iter().map(|&place| files::lone(Aspect::Added, place)));
    }

    fn contents(&mut self) -> Result<(), AuditError> {
        let found = content::explain(self.a, self.b, &self.wanted, self.options)?;
        for (wanted, content) in self.wanted.iter().zip(found) {
            self.files[wanted.change].content = content;
        }
        Ok(())
    }

    fn finish(mut self) -> DiffReport {
        self.report.omitted = self.files.len().saturating_sub(self.options.files);
        self.files.truncate(self.options.files);
        // Files before archives: what the layers say before how they say it.
        let (archives, mut rest): (Vec<_>, Vec<_>) = self
            .report
            .differences
            .into_iter()
            .partition(|difference| matches!(difference, Difference::Archive(_)));
        rest.extend(self.files.into_iter().map(Difference::File));
        rest.extend(archives);
        self.report.differences = rest;
        self.report
    }
}

fn borrowed(flat: &flatten::Flat) -> Files<'_> {
    flat.iter()
        .map(|(path, (layer, fact))| (path.as_slice(), (*layer, fact)))
        .collect()
}
