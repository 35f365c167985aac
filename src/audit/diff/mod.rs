//! A *difference* is one respect in which two images are not the same, told top down: manifest, config, layers, files.
//!
//! Invariant: images of one manifest digest are equal and nothing else of them is read; layers of one blob digest
//! are never read; a report without differences means that config and layers are the same, what was to be ignored
//! aside.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::budget::Budget;
use super::facts::scan;
use super::opened::{Opened, OpenedLayer};
use super::{AuditError, KeptElsewhere};
use crate::digest::ContentDigest;
use crate::transport::Source;

mod artifact;
mod cause;
mod class;
mod content;
mod dialect;
mod documents;
mod files;
mod flatten;
mod groups;
mod html;
mod index;
mod inside;
mod layers;
mod packages;
mod packing;
mod render;
mod report;
mod sequence;

pub use class::{Class, UnknownClass};
pub use index::{Child, diff_indexes};
pub(super) use packages::holds;
pub use report::{
    ArchiveChange, Cause, ContentChange, DiffReport, Difference, FieldChange, FileChange, InsideChange, LayerChange,
    LayerDifference, LayerPlace, Side, SideLayer, StorePathChange,
};

use content::Wanted;
use files::{Files, Matched};
use layers::LayerMatch;

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
    /// Classes of differences that count as none.
    pub ignore: BTreeSet<Class>,
    /// Whether names and indexes are compared too: what the places say of the images, and not the images themselves.
    pub indexes: bool,
}

impl Default for DiffOptions {
    fn default() -> Self {
        Self {
            files: 1000,
            contents: 100,
            lines: 40,
            temp_dir: None,
            ignore: BTreeSet::new(),
            indexes: false,
        }
    }
}

/// Compares two images.
pub fn diff(a: &dyn Source, b: &dyn Source, options: &DiffOptions) -> Result<DiffReport, AuditError> {
    let ((side_a, digest_a), (side_b, digest_b)) = (side(a)?, side(b)?);
    let both = side_a.layers.len().min(side_b.layers.len());
    let mut report = DiffReport::between(side_a, side_b);
    report.layers = (0..both).map(|index| place(index, index)).collect();
    if options.indexes {
        report.differences = index::places(a, b);
    }
    if digest_a == digest_b {
        let differences = std::mem::take(&mut report.differences);
        return Ok(finished(report, differences, Vec::new(), Told::default(), options));
    }
    if let Some(differences) = artifact::differences(a, b)? {
        report.differences.extend(differences);
        let differences = std::mem::take(&mut report.differences);
        return Ok(finished(report, differences, Vec::new(), Told::default(), options));
    }
    let (a, b) = (Opened::new(a)?, Opened::new(b)?);
    let mut comparison = Comparison {
        a: &a,
        b: &b,
        options,
        report,
        files: Vec::new(),
        told: Told::default(),
        wanted: Vec::new(),
    };
    let matches = layers::match_layers(&a.layers, &b.layers);
    comparison.documents(&matches);
    comparison.layers(&matches)?;
    comparison.contents()?;
    Ok(comparison.finish())
}

fn side(source: &dyn Source) -> Result<(Side, ContentDigest), AuditError> {
    let manifest = source.manifest()?;
    let digest = manifest.digest();
    let layers = manifest.layers.iter().map(|layer| SideLayer {
        digest: layer.digest,
        diff_id: None,
        size: layer.size,
        holds: packages::holds(layer, None),
    });
    let side = Side {
        place: source.place().to_owned(),
        digest: (!source.synthesized()).then_some(digest),
        layers: layers.collect(),
    };
    Ok((side, digest))
}

fn place(a: usize, b: usize) -> LayerPlace {
    LayerPlace { a: Some(a), b: Some(b) }
}

/// What is known of all file differences, those that are not kept included.
#[derive(Default)]
struct Told {
    changes: usize,
    /// Whether one of them is a whiteout.
    whiteout: bool,
    /// Classes and layers of those that are counted alone.
    classes: BTreeSet<Class>,
    layers: BTreeSet<(Option<usize>, Option<usize>)>,
}

/// A comparison under way.
struct Comparison<'a> {
    a: &'a Opened<'a>,
    b: &'a Opened<'a>,
    options: &'a DiffOptions,
    report: DiffReport,
    /// File differences, before they are cut to the wanted number.
    files: Vec<FileChange>,
    told: Told,
    wanted: Vec<Wanted>,
}

impl Comparison<'_> {
    fn documents(&mut self, matches: &[LayerMatch]) {
        let manifest = documents::manifest(self.a, self.b);
        let config = documents::config(self.a, self.b, matches);
        let differences = &mut self.report.differences;
        differences.extend(manifest.into_iter().map(Difference::Manifest));
        if self.comparable() && self.a.manifest_value == self.b.manifest_value {
            let change = documents::encoding("manifest's", self.a.manifest.bytes(), self.b.manifest.bytes());
            self.report.differences.push(Difference::Manifest(change));
        }
        let differences = &mut self.report.differences;
        differences.extend(config.into_iter().map(Difference::Config));
        if self.a.config_value == self.b.config_value && self.a.config.bytes() != self.b.config.bytes() {
            let change = documents::encoding("config's", self.a.config.bytes(), self.b.config.bytes());
            self.report.differences.push(Difference::Config(change));
        }
        let packages = packages::changes(self.a, self.b);
        self.report
            .differences
            .extend(packages.into_iter().map(Difference::StorePath));
    }

    /// Whether both manifests are the places' own: one that the reader made up is compared with nothing.
    fn comparable(&self) -> bool {
        !self.a.source.synthesized() && !self.b.source.synthesized()
    }

    fn layers(&mut self, matches: &[LayerMatch]) -> Result<(), AuditError> {
        self.report.layers = matches.iter().map(|layer_match| layer_match.place()).collect();
        for (side, image) in [(&mut self.report.a, self.a), (&mut self.report.b, self.b)] {
            side.layers = image.side_layers();
        }
        let (mut changed, mut relayered) = (Vec::new(), false);
        for &layer_match in matches {
            if let LayerMatch::Same(x, y) = layer_match {
                self.same_layer(x, y)?;
                continue;
            }
            if let LayerMatch::Changed(x, y) = layer_match {
                changed.push((x, y));
            }
            relayered |= !matches!(layer_match, LayerMatch::Changed(..));
            let change = self.layer_difference(layer_match);
            self.report.differences.push(Difference::Layer(change));
        }
        if self.kept_elsewhere(matches) {
            return Ok(());
        }
        if relayered {
            return self.flattened(matches);
        }
        changed.into_iter().try_for_each(|(x, y)| self.changed_layer(x, y))
    }

    /// Tells of layers that would have to be read and are not there; whether there are any. What the others make is not
    /// known without them.
    fn kept_elsewhere(&mut self, matches: &[LayerMatch]) -> bool {
        let wanted = |layer_match: &&LayerMatch| !matches!(layer_match, LayerMatch::Same(..) | LayerMatch::Moved(..));
        let places: Vec<LayerPlace> = matches
            .iter()
            .filter(wanted)
            .map(|layer_match| layer_match.place())
            .collect();
        let kept = |image: &Opened, layer: Option<usize>| {
            let layer = layer?;
            KeptElsewhere::in_place(image.source, layer, &image.layers[layer].descriptor)
        };
        let of = |kept: KeptElsewhere, is_first: bool| {
            let KeptElsewhere {
                layer, digest, urls, ..
            } = kept;
            let (a, b) = if is_first {
                (Some(layer), None)
            } else {
                (None, Some(layer))
            };
            Difference::Layer(LayerDifference {
                class: Some(Class::KeptElsewhere),
                change: LayerChange::KeptElsewhere { a, b, digest, urls },
            })
        };
        let mut found = Vec::new();
        for LayerPlace { a, b } in places {
            found.extend(kept(self.a, a).map(|kept| of(kept, true)));
            found.extend(kept(self.b, b).map(|kept| of(kept, false)));
        }
        let any = !found.is_empty();
        self.report.differences.extend(found);
        any
    }

    fn layer_difference(&self, layer_match: LayerMatch) -> LayerDifference {
        let from = |x: usize| &self.a.layers[x].descriptor;
        let to = |y: usize| &self.b.layers[y].descriptor;
        let (class, change) = match layer_match {
            LayerMatch::Same(a, b) | LayerMatch::Changed(a, b) => {
                let (from, to) = (from(a).digest, to(b).digest);
                (None, LayerChange::Changed { a, b, from, to })
            }
            LayerMatch::Moved(a, b) => {
                let digest = from(a).digest;
                (Some(Class::LayerOrder), LayerChange::Moved { a, b, digest })
            }
            LayerMatch::Removed(a) => {
                let (digest, size) = (from(a).digest, from(a).size);
                (Some(Class::LayerRemoved), LayerChange::Removed { a, digest, size })
            }
            LayerMatch::Added(b) => {
                let (digest, size) = (to(b).digest, to(b).size);
                (Some(Class::LayerAdded), LayerChange::Added { b, digest, size })
            }
        };
        LayerDifference { class, change }
    }

    /// Two layers of one tar: their descriptors may differ, and their compression.
    fn same_layer(&mut self, x: usize, y: usize) -> Result<(), AuditError> {
        let (p, q) = (&self.a.layers[x].descriptor, &self.b.layers[y].descriptor);
        let mut found = Vec::new();
        let is_here = |image: &Opened, layer: usize| {
            KeptElsewhere::in_place(image.source, layer, &image.layers[layer].descriptor).is_none()
        };
        // By the diffIDs the tars are the same: how they are compressed is all that could be told.
        if p.digest != q.digest && is_here(self.a, x) && is_here(self.b, y) {
            let (from, to) = (packed(self.a, x)?, packed(self.b, y)?);
            found = packing::compare(&from, &to);
        }
        let recompressed = found.iter().any(|(class, ..)| *class == Class::Compression);
        if self.comparable() {
            let (values_a, values_b) = (&self.a.manifest_value["layers"][x], &self.b.manifest_value["layers"][y]);
            let changes = documents::layer(x, values_a, values_b, recompressed);
            self.report
                .differences
                .extend(changes.into_iter().map(Difference::Manifest));
        }
        let differences = found.into_iter().map(|(class, from, to)| {
            Difference::Layer(LayerDifference {
                class: Some(class),
                change: LayerChange::Compression { a: x, b: y, from, to },
            })
        });
        self.report.differences.extend(differences);
        Ok(())
    }

    /// Two layers of which one stands for the other: file by file.
    fn changed_layer(&mut self, x: usize, y: usize) -> Result<(), AuditError> {
        let mut budget = Budget::default();
        let a = scan(self.a.source, &self.a.layers[x].descriptor, &mut budget)?;
        let b = scan(self.b.source, &self.b.layers[y].descriptor, &mut budget)?;
        let in_a: Files = a.by_path().into_iter().map(|(path, fact)| (path, (x, fact))).collect();
        let in_b: Files = b.by_path().into_iter().map(|(path, fact)| (path, (y, fact))).collect();
        let matched = files::matched(&in_a, &in_b);
        let before = self.told.changes;
        self.file_changes(&matched);
        let quiet = self.told.changes == before && matched.store_paths.is_empty();
        let mut changes = dialect::archive(place(x, y), &a, &b, &matched, quiet);
        if self.comparable() {
            let (values_a, values_b) = (&self.a.manifest_value["layers"][x], &self.b.manifest_value["layers"][y]);
            let fields = documents::layer(x, values_a, values_b, a.end.packing != b.end.packing);
            self.report
                .differences
                .extend(fields.into_iter().map(Difference::Manifest));
        }
        changes.extend(dialect::packing(place(x, y), &a, &b));
        self.report
            .differences
            .extend(changes.into_iter().map(Difference::Archive));
        Ok(())
    }

    /// Images whose layers were cut differently: what the layers make that are not in both. Those that are in both are
    /// not read, so that the two file systems as a whole are known to be the same only where the others lie together.
    fn flattened(&mut self, matches: &[LayerMatch]) -> Result<(), AuditError> {
        let own_a = |x: usize| {
            matches
                .iter()
                .any(|layer_match| matches!(layer_match, LayerMatch::Removed(p) | LayerMatch::Changed(p, _) if *p == x))
        };
        let own_b = |y: usize| {
            matches
                .iter()
                .any(|layer_match| matches!(layer_match, LayerMatch::Added(q) | LayerMatch::Changed(_, q) if *q == y))
        };
        let above = matches
            .iter()
            .any(|layer_match| matches!(layer_match, LayerMatch::Same(..) | LayerMatch::Moved(..)));
        let mut budget = Budget::default();
        let mut read = |image: &Opened, own: &dyn Fn(usize) -> bool| -> Result<flatten::Flat, AuditError> {
            let mut flat = flatten::Flat::new();
            for (index, layer) in image.layers.iter().enumerate().filter(|(index, _)| own(*index)) {
                let facts = scan(image.source, &layer.descriptor, &mut budget)?;
                let applied = flatten::apply(&mut flat, index, facts.facts, above, &mut budget);
                applied.map_err(|source| AuditError::Layer {
                    place: image.source.place().to_owned(),
                    digest: layer.descriptor.digest,
                    source,
                })?;
            }
            Ok(flat)
        };
        let (flat_a, flat_b) = (read(self.a, &own_a)?, read(self.b, &own_b)?);
        let (in_a, in_b) = (borrowed(&flat_a), borrowed(&flat_b));
        let matched = files::matched(&in_a, &in_b);
        let before = self.told.changes;
        self.file_changes(&matched);
        let same = self.told.changes == before && matched.store_paths.is_empty();
        let together = layers::together(matches);
        // What a whiteout hides is in a layer that was not read.
        let hidden = self.told.whiteout;
        self.report.same_files = if same {
            together.then_some(true)
        } else {
            (!hidden).then_some(false)
        };
        if same && together {
            for difference in &mut self.report.differences {
                if let Difference::Layer(layer) = difference
                    && !matches!(layer.change, LayerChange::Compression { .. })
                {
                    layer.class = Some(Class::Layering);
                }
            }
        }
        Ok(())
    }

    fn file_changes(&mut self, matched: &Matched) {
        let known = &self.report.differences;
        let new: Vec<Difference> = matched
            .store_paths
            .iter()
            .cloned()
            .map(Difference::StorePath)
            .filter(|change| !known.contains(change))
            .collect();
        self.report.differences.extend(new);
        for pair in &matched.pairs {
            for mut change in files::aspects(pair) {
                if change.class == Class::Link && matched.follows(pair) {
                    change.class = Class::StoreHash;
                }
                let wanted = change.class == Class::Content && self.wanted.len() < self.options.contents;
                if wanted {
                    let ((layer_a, a), (layer_b, b)) = pair;
                    self.wanted.push(Wanted {
                        change: self.files.len(),
                        a: (*layer_a, a.body_path().to_vec()),
                        b: (*layer_b, b.body_path().to_vec()),
                    });
                }
                self.tell(change, wanted);
            }
        }
        for change in files::lone(matched) {
            self.tell(change, false);
        }
    }

    /// Keeps a change for the report, or counts it where it is to be ignored or too many are kept already. One whose
    /// contents are looked into may turn out to be of another class, and is kept.
    fn tell(&mut self, change: FileChange, wanted: bool) {
        self.told.changes += 1;
        self.told.whiteout |= flatten::is_whiteout(change.path.as_bytes());
        if wanted {
            return self.files.push(change);
        }
        if self.options.ignore.contains(&change.class) {
            self.report.ignored += 1;
        } else if self.files.len() < self.options.files.saturating_add(self.options.contents) {
            self.files.push(change);
        } else {
            self.report.omitted += 1;
            self.told.classes.insert(change.class);
            self.told.layers.insert((change.layer.a, change.layer.b));
        }
    }

    fn contents(&mut self) -> Result<(), AuditError> {
        let found = content::explain(self.a, self.b, &self.wanted, self.options)?;
        for (wanted, content) in self.wanted.iter().zip(found) {
            let change = &mut self.files[wanted.change];
            if let Some((content, hashes_only)) = content {
                if hashes_only {
                    change.class = Class::StoreHash;
                }
                change.content = Some(content);
            }
        }
        Ok(())
    }

    fn finish(mut self) -> DiffReport {
        for change in self.files.iter_mut().filter(|change| change.package.is_none()) {
            let layer = |image: &Opened, index: Option<usize>| packages::only(&image.layers[index?].descriptor);
            change.package = layer(self.a, change.layer.a).or_else(|| layer(self.b, change.layer.b));
        }
        let differences = std::mem::take(&mut self.report.differences);
        finished(self.report, differences, self.files, self.told, self.options)
    }
}

/// How a layer is packed, its claimed diffID checked.
fn packed(image: &Opened, index: usize) -> Result<packing::Packed, AuditError> {
    let OpenedLayer { descriptor, diff_id } = &image.layers[index];
    let place = || image.source.place().to_owned();
    let blob = image.source.blob(&descriptor.digest, descriptor.size)?;
    let packed = packing::read(blob, descriptor.size).map_err(|source| AuditError::Layer {
        place: place(),
        digest: descriptor.digest,
        source,
    })?;
    match *diff_id {
        Some(claimed) if claimed != packed.diff_id => Err(AuditError::Claim {
            place: place(),
            digest: Box::new(descriptor.digest),
            claimed,
            actual: packed.diff_id,
        }),
        _ => Ok(packed),
    }
}

/// Leaves out what is to be ignored and orders the rest: files before archives, what the layers say before how.
fn finished(
    mut report: DiffReport,
    differences: Vec<Difference>,
    files: Vec<FileChange>,
    told: Told,
    options: &DiffOptions,
) -> DiffReport {
    let ignored_before = report.ignored;
    let (archives, rest): (Vec<_>, Vec<_>) = differences
        .into_iter()
        .partition(|difference| matches!(difference, Difference::Archive(_)));
    let all = rest
        .into_iter()
        .chain(files.into_iter().map(Difference::File))
        .chain(archives);
    let (ignored, kept): (Vec<_>, Vec<_>) =
        all.partition(|difference| difference.class().is_some_and(|class| options.ignore.contains(&class)));
    report.ignored += ignored.len();
    report.classes = kept.iter().filter_map(Difference::class).chain(told.classes).collect();
    // A layer that differs only in what is ignored does not differ.
    let explained: BTreeSet<(Option<usize>, Option<usize>)> =
        kept.iter().filter_map(explains).chain(told.layers).collect();
    let mut room = options.files;
    for difference in kept {
        match &difference {
            Difference::Layer(LayerDifference {
                class: None,
                change: LayerChange::Changed { a, b, .. },
            }) if ignored_before + ignored.len() > 0
                && !explained.iter().any(|(x, y)| *x == Some(*a) || *y == Some(*b)) =>
            {
                continue;
            }
            Difference::File(_) if room == 0 => {
                report.omitted += 1;
                continue;
            }
            Difference::File(_) => room -= 1,
            _ => {}
        }
        report.differences.push(difference);
    }
    report
}

/// The layers whose change a difference explains.
fn explains(difference: &Difference) -> Option<(Option<usize>, Option<usize>)> {
    let place = match difference {
        Difference::File(change) => change.layer,
        Difference::Archive(change) => change.layer,
        _ => return None,
    };
    Some((place.a, place.b))
}

fn borrowed(flat: &flatten::Flat) -> Files<'_> {
    flat.iter()
        .map(|(path, (layer, fact))| (path.as_slice(), (*layer, fact)))
        .collect()
}
