//! A *report* is what a comparison found, top down: index, manifest, config, layers, store paths, files, tars.
//!
//! Invariant: the JSON shape is documented here and stable: keys in snake case, classes and levels in kebab case;
//! what is absent on a side is `null`.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use super::Class;
use crate::digest::{ContentDigest, DiffId};
use crate::store_path::LogicalPath;

/// How two images differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DiffReport {
    /// The first image.
    pub a: Side,
    /// The second image.
    pub b: Side,
    /// The platform of both, where they are two of several in indexes that are compared.
    pub platform: Option<String>,
    /// Whether the file systems that the layers make are the same; `None` where they were not compared as a whole.
    pub same_files: Option<bool>,
    /// The classes of the differences, sorted from the index down.
    pub classes: BTreeSet<Class>,
    /// The differences, top down.
    pub differences: Vec<Difference>,
    /// Number of file differences that are not in the list.
    pub omitted: usize,
    /// Number of differences that were to be ignored.
    pub ignored: usize,
    /// What became of each layer, in order.
    pub layers: Vec<LayerPlace>,
    /// Reports of the images of two indexes, by platform.
    pub images: Vec<DiffReport>,
}

impl DiffReport {
    /// A report in which nothing differs yet.
    pub(super) fn between(a: Side, b: Side) -> Self {
        Self {
            a,
            b,
            platform: None,
            same_files: None,
            classes: BTreeSet::new(),
            differences: Vec::new(),
            omitted: 0,
            ignored: 0,
            layers: Vec::new(),
            images: Vec::new(),
        }
    }
}

/// One of the two images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Side {
    /// Where it is.
    pub place: String,
    /// Digest of its manifest; `None` where the place holds none.
    pub digest: Option<ContentDigest>,
    /// Its layers, the lowest first.
    pub layers: Vec<SideLayer>,
}

/// A layer of one of the two images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SideLayer {
    /// Digest of the blob.
    pub digest: ContentDigest,
    /// Digest of the tar, where the config was read and has one.
    pub diff_id: Option<DiffId>,
    /// Size of the blob in bytes.
    pub size: u64,
    /// The store paths or packages it holds, as its annotations name them, or what its history says.
    pub holds: String,
}

/// One respect in which two images differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "level", rename_all = "kebab-case")]
pub enum Difference {
    /// A field of the index that lists the image, or its names.
    Index(FieldChange),
    /// A field of the manifest.
    Manifest(FieldChange),
    /// A field of the config.
    Config(FieldChange),
    /// A whole layer.
    Layer(LayerDifference),
    /// A store path or package that has another hash or version.
    StorePath(StorePathChange),
    /// A file.
    File(FileChange),
    /// How a layer's tar is written.
    Archive(ArchiveChange),
}

impl Difference {
    /// Its class; `None` for a layer whose differences follow one by one.
    pub fn class(&self) -> Option<Class> {
        match self {
            Self::Index(change) | Self::Manifest(change) | Self::Config(change) => Some(change.class),
            Self::Layer(change) => change.class,
            Self::StorePath(change) => Some(change.class),
            Self::File(change) => Some(change.class),
            Self::Archive(change) => Some(change.class),
        }
    }
}

/// A field of a JSON document.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldChange {
    /// The respect.
    pub class: Class,
    /// Its path in the document: `config.Env.PATH`.
    pub field: String,
    /// Its value in the first image.
    pub a: Option<Value>,
    /// Its value in the second image.
    pub b: Option<Value>,
}

/// A layer that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerDifference {
    /// The respect; `None` where it follows from the differences of files and tars that come after it.
    pub class: Option<Class>,
    /// What became of it.
    #[serde(flatten)]
    pub change: LayerChange,
}

/// What became of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the fields are what the variant's sentence names")]
pub enum LayerChange {
    /// Only in the second image.
    Added { b: usize, digest: ContentDigest, size: u64 },
    /// Only in the first image.
    Removed { a: usize, digest: ContentDigest, size: u64 },
    /// In both, at another place in the order.
    Moved { a: usize, b: usize, digest: ContentDigest },
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
        from: ContentDigest,
        to: ContentDigest,
    },
    /// Not read, because the place of the image does without it; the layer is in one of both.
    KeptElsewhere {
        a: Option<usize>,
        b: Option<usize>,
        digest: ContentDigest,
        urls: Vec<String>,
    },
}

/// A store path of one image that stands for one of the other, or a package of another version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StorePathChange {
    /// [`Class::Package`] or [`Class::StorePath`].
    pub class: Class,
    /// The package's name.
    pub name: String,
    /// In the first image: a store path, or a version where the package is no store path.
    pub a: String,
    /// In the second image.
    pub b: String,
    /// Why, where both sides' derivations are known: the inputs that changed.
    pub causes: Vec<Cause>,
}

/// An input of a build that changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Cause {
    /// Which input: `source hello-2.10-source`, `script`, `env CFLAGS`, `tool gcc`.
    pub input: String,
    /// Through which inputs it has its effect, the nearest first; empty for an input of the path itself.
    pub through: Vec<String>,
    /// What it was.
    pub a: Option<String>,
    /// What it is.
    pub b: Option<String>,
    /// A unified diff, if both are texts of several lines.
    pub text: Option<String>,
}

/// Which layers something is in, by index from the lowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LayerPlace {
    /// In the first image.
    pub a: Option<usize>,
    /// In the second image.
    pub b: Option<usize>,
}

/// A file that differs in one respect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// The respect.
    pub class: Class,
    /// Its path, as in the first image.
    pub path: String,
    /// The layers.
    pub layer: LayerPlace,
    /// What the first image has.
    pub a: Option<String>,
    /// What the second image has.
    pub b: Option<String>,
    /// The store path that owns it.
    pub store_path: Option<LogicalPath>,
    /// The package that owns it: the store path's, or the only one of its layer.
    pub package: Option<String>,
    /// Where the contents differ, if they were compared.
    pub content: Option<ContentChange>,
}

/// Where two contents differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ContentChange {
    /// What both are: `text`, `elf`, `zip`, `tar`, `ar`, `gzip` or `binary`.
    pub kind: &'static str,
    /// The first byte that differs, from 0.
    pub offset: u64,
    /// Number of bytes that differ, of those that both have.
    pub bytes: u64,
    /// A unified diff, if both are texts.
    pub text: Option<String>,
    /// What differs inside, if both are of one known form.
    pub inside: Vec<InsideChange>,
}

/// A part of a file that differs: a section of a program, a member of an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InsideChange {
    /// Which part: `section .text`, `member a/b.class`.
    pub part: String,
    /// What the first file has.
    pub a: Option<String>,
    /// What the second file has.
    pub b: Option<String>,
    /// What differs in the part itself, if it was compared.
    pub content: Option<Box<ContentChange>>,
}

/// Two tars that write the same differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ArchiveChange {
    /// The respect.
    pub class: Class,
    /// The layers.
    pub layer: LayerPlace,
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
    /// Whether the images are the same, what was to be ignored left out.
    pub fn equal(&self) -> bool {
        self.differences.is_empty() && self.images.iter().all(Self::equal)
    }

    /// Names the inputs whose change explains other store paths and packages; `derivation` gives the resolved
    /// derivation, as JSON, that made a store path, where it is known.
    pub fn explain(&mut self, derivation: &dyn Fn(&str) -> Option<String>) {
        for difference in &mut self.differences {
            if let Difference::StorePath(change) = difference {
                change.causes = super::cause::causes(&change.a, &change.b, derivation);
            }
        }
        for image in &mut self.images {
            image.explain(derivation);
        }
    }
}
