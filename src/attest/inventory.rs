//! The *inventory* of an image: every store path and package in it, with what is known of each.
//!
//! Invariant: components are unique by their key and sorted by it; references lead to components of the inventory;
//! [`Extent::Whole`] is said only where the inventory comes from the closure itself and nothing lies below it.

use std::collections::{BTreeMap, BTreeSet};

use crate::digest::{ContentDigest, Digest, FileHash};
use crate::oci::Platform;

use super::licence::Licence;
use super::{cyclonedx, purl, spdx};

/// Name and version of the program, as documents name their maker. Golden documents outlive releases.
pub(super) const TOOL: (&str, &str) = ("layerize", if cfg!(test) { "TEST" } else { env!("CARGO_PKG_VERSION") });

/// The image that an inventory is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    /// What it is called, without tag: `hello`, `registry.example/team/hello`.
    pub name: String,
    /// Its tag.
    pub tag: Option<String>,
    /// Digest of its manifest.
    pub digest: Digest,
    /// What it is for.
    pub platform: Option<Platform>,
    /// When it was made, as its config says (RFC 3339, whole seconds).
    pub created: String,
    /// Its layers, lowest first.
    pub layers: Vec<InventoryLayer>,
    /// What it does not have although packages in it depend on it, and why: `deb:NAME=VERSION`, a sentence.
    pub left_out: BTreeMap<String, &'static str>,
    /// What packages' maintainer scripts made and it does not have, with the reason, a line each.
    pub not_kept: Vec<String>,
}

/// A layer of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InventoryLayer {
    /// Digest of its blob.
    pub digest: ContentDigest,
    /// Its size as stored, in bytes.
    pub size: u64,
}

/// A store path or package in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// What it is known by in the documents: its logical store path, or `deb:NAME=VERSION`.
    pub key: String,
    /// Name of the package.
    pub name: String,
    /// Its version.
    pub version: Option<String>,
    /// SHA-256 of its canonical archive (NAR).
    pub nar_hash: Option<Digest>,
    /// Where it comes from.
    pub origin: ComponentOrigin,
    /// The files from outside that it was made of, without those that only its build tools were made of.
    pub sources: BTreeSet<PinnedFile>,
    /// Whether its files are laid out at `/` and not at its store path.
    pub at_root: bool,
    /// What its own metadata says of its licence.
    pub licence: Option<Licence>,
    /// What became of a Debian package's maintainer scripts, in a word; `None` where that is not known.
    pub scripts: Option<&'static str>,
    /// The layers that hold it.
    pub layers: BTreeSet<ContentDigest>,
    /// Keys of the components that it needs at run time.
    pub references: BTreeSet<String>,
}

/// Where a component comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ComponentOrigin {
    /// A Debian binary package.
    Debian {
        /// `amd64`, `all`; where it is known.
        architecture: Option<String>,
        /// Source package and its version.
        source: Option<(String, String)>,
        /// Who maintains it: `NAME <EMAIL>`.
        maintainer: Option<String>,
    },
    /// Built by a script of the spec.
    Built,
    /// Taken as it is: a download, or files of the user's.
    Taken,
    /// A path of a Nix store.
    Nix,
    /// Nothing is known.
    Unknown,
}

/// A file from outside, pinned by its hash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PinnedFile {
    /// What its bytes are known by; of the tree of a commit, the digest of its canonical archive (NAR).
    pub hash: FileHash,
    /// The commit, of the tree of one.
    pub commit: Option<String>,
    /// File name.
    pub name: String,
    /// Address, or path below a Debian mirror; `None` where it is not known.
    pub location: Option<String>,
    /// Package URL.
    pub purl: String,
    /// Whether it is a binary package and no source.
    pub binary: bool,
    /// What the metadata of its content says of its licence, where that is in the image.
    pub licence: Option<Licence>,
}

impl PinnedFile {
    /// What tells it from others: its hash, and of a tree that several crates are of, which of them it is.
    pub(super) fn key(&self) -> (FileHash, Option<&str>) {
        let is_crate = self.commit.is_some() && self.purl.starts_with("pkg:cargo/");
        (self.hash, is_crate.then_some(&*self.name))
    }
}

/// All that is in an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inventory {
    /// The image.
    pub image: ImageFacts,
    /// What is in it, sorted by key.
    pub components: Vec<Component>,
    /// How much of the image that is.
    pub extent: Extent,
}

/// How much of an image an inventory lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// Everything: the closure and the packages at `/`.
    Whole,
    /// Everything but what the layers of a base hold.
    OverBase {
        /// The base's name, or the digest of its manifest where it has none.
        base: String,
    },
    /// What the annotations of a finished image name.
    Annotated,
}

/// A form in which an inventory is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SbomFormat {
    /// SPDX 2.3, as JSON.
    Spdx,
    /// CycloneDX 1.6, as JSON.
    CycloneDx,
}

/// The bill of materials of an inventory, as canonical JSON.
pub fn sbom(inventory: &Inventory, format: SbomFormat) -> Vec<u8> {
    match format {
        SbomFormat::Spdx => spdx::write(inventory),
        SbomFormat::CycloneDx => cyclonedx::write(inventory),
    }
}

impl Inventory {
    /// Sorts and merges components; drops references that lead out of the inventory, and those to oneself.
    pub fn new(image: ImageFacts, components: impl IntoIterator<Item = Component>, extent: Extent) -> Self {
        let mut merged: BTreeMap<String, Component> = BTreeMap::new();
        for component in components {
            match merged.get_mut(&component.key) {
                // The same package both at its store path and at `/`.
                Some(known) => {
                    known.layers.extend(component.layers);
                    known.references.extend(component.references);
                    known.sources.extend(component.sources);
                    known.at_root |= component.at_root;
                }
                None => {
                    merged.insert(component.key.clone(), component);
                }
            }
        }
        let keys: BTreeSet<String> = merged.keys().cloned().collect();
        let mut components: Vec<Component> = merged.into_values().collect();
        for component in &mut components {
            component
                .references
                .retain(|key| keys.contains(key) && *key != component.key);
        }
        Self {
            image,
            components,
            extent,
        }
    }

    /// The pinned files of all components, each once, sorted by hash.
    pub(super) fn files(&self) -> BTreeMap<(FileHash, Option<&str>), &PinnedFile> {
        let mut files = BTreeMap::new();
        for file in self.components.iter().flat_map(|component| &component.sources) {
            // Of a file with two names the first in order counts, unless only another's content is there to tell its licence.
            let known = files.entry(file.key()).or_insert(file);
            if known.licence.is_none() && file.licence.is_some() {
                *known = file;
            }
        }
        files
    }

    /// The layers' digests, each once, in order of first appearance.
    pub(super) fn layers(&self) -> Vec<&InventoryLayer> {
        let mut seen = BTreeSet::new();
        let layers = self.image.layers.iter();
        layers.filter(|layer| seen.insert(layer.digest)).collect()
    }
}

impl Component {
    /// A component of which nothing but its key and name is known.
    pub(super) fn new(key: String, name: String) -> Self {
        Self {
            key,
            name,
            version: None,
            nar_hash: None,
            origin: ComponentOrigin::Unknown,
            sources: BTreeSet::new(),
            at_root: false,
            licence: None,
            scripts: None,
            layers: BTreeSet::new(),
            references: BTreeSet::new(),
        }
    }

    /// The file of a registry that it was taken from, or built from as it was published: the one of its name and version.
    pub(super) fn published(&self) -> Option<&PinnedFile> {
        let version = self.version.as_deref()?;
        let purl = purl::pypi(&self.name, version);
        self.sources.iter().find(|file| file.purl == purl)
    }

    /// Its package URL.
    pub fn purl(&self) -> String {
        let version = self.version.as_deref();
        match &self.origin {
            ComponentOrigin::Debian { architecture, .. } => purl::debian(&self.name, version, architecture.as_deref()),
            ComponentOrigin::Nix => purl::nix(&self.name, version),
            ComponentOrigin::Taken if self.published().is_some() => {
                self.published().map_or_else(String::new, |file| file.purl.clone())
            }
            ComponentOrigin::Taken if self.sources.len() == 1 => {
                let file = self.sources.first().expect("there is one");
                match &file.commit {
                    // What stands in an image by itself is what its registry calls it.
                    None if file.purl.starts_with("pkg:npm/") => file.purl.clone(),
                    Some(commit) => purl::git(&self.name, commit, file.location.as_deref()),
                    None => purl::download(&self.name, version, file.location.as_deref(), &file.hash),
                }
            }
            ComponentOrigin::Built | ComponentOrigin::Taken | ComponentOrigin::Unknown => {
                purl::generic(&self.name, version)
            }
        }
    }
}

/// Name and version of the name part of a store path: the version begins after the first `-` that a digit follows
/// (as Nix splits derivation names).
pub(super) fn split_name(text: &str) -> (String, Option<String>) {
    let bytes = text.as_bytes();
    let cut = (1..bytes.len().saturating_sub(1)).find(|&at| bytes[at] == b'-' && bytes[at + 1].is_ascii_digit());
    match cut {
        Some(at) => (text[..at].to_owned(), Some(text[at + 1..].to_owned())),
        None => (text.to_owned(), None),
    }
}

/// A UUID of RFC 9562, version 8 (made by rules of one's own): the first bits of a SHA-256 over `bytes`.
pub(super) fn uuid(bytes: &[u8]) -> String {
    let digest = Digest::of(bytes);
    let mut id = [0; 16];
    id.copy_from_slice(&digest.as_bytes()[..16]);
    id[6] = id[6] & 0x0f | 0x80;
    id[8] = id[8] & 0x3f | 0x80;
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_versions_are_split_as_nix_does() {
        for (text, name, version) in [
            ("hello-2.10", "hello", Some("2.10")),
            ("libc6-2.36-9+deb12u1", "libc6", Some("2.36-9+deb12u1")),
            ("python3.11-minimal", "python3.11-minimal", None),
            ("a-", "a-", None),
            ("-1", "-1", None),
            ("", "", None),
        ] {
            assert_eq!(
                split_name(text),
                (name.to_owned(), version.map(str::to_owned)),
                "{text}"
            );
        }
    }
}
