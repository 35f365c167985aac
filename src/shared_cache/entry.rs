//! An *entry* says what a step made: the config of a manifest, or the larger part of a file beside narinfos.
//!
//! Invariant: what was read is closed under references, names its output and belongs to the step that was asked for;
//! everything in it that is not proved by a hash stands under the signature.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::build::{Asked, BuiltPath, Offer, OfferedPath};
use crate::digest::Digest;
use crate::execution::Execution;
use crate::oci::{Manifest, canonical_json, parse_json};
use crate::store_path::{PathInfo, StorePath};
use crate::walls::Walls;

/// Media type of an entry, and kind of its manifest.
pub const ENTRY_TYPE: &str = "application/vnd.layerize.build.v1+json";

/// The rules of entries: those that are written, which are the newest that are read.
const FORMAT: u32 = 2;

/// Largest config of an entry that is read, in bytes.
pub(super) const ENTRY_SIZE_MAX: u64 = 32 << 20;

/// Most paths of a closure.
const MEMBERS_MAX: usize = 20_000;

/// What a step made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Entry {
    /// The rules that it follows.
    pub format: u32,
    /// The plan key of the step.
    pub plan_key: Digest,
    /// What it made.
    pub output: StorePath,
    /// The closure of that, itself included, sorted by path.
    pub members: Vec<Member>,
}

/// A path of a closure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Member {
    pub path: StorePath,
    pub nar_hash: Digest,
    pub nar_size: u64,
    /// Without itself.
    pub references: BTreeSet<StorePath>,
    pub self_reference: bool,
    /// The plan key of the step that makes it, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_key: Option<Digest>,
    /// Of a path that the entry holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built: Option<BuiltMember>,
}

/// A path that an entry holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct BuiltMember {
    /// The resolved derivation that made it, as canonical JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derivation: Option<String>,
    /// What it was built behind. Format 1 had `sandboxed`.
    #[serde(alias = "sandboxed", deserialize_with = "Walls::deserialize_record")]
    pub walls: Walls,
    /// How the programs of its script ran; where nothing is said, natively.
    #[serde(default, skip_serializing_if = "is_native")]
    pub execution: Execution,
    /// References that the scan did not find, each with the path through which it was declared.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub declared: BTreeMap<StorePath, StorePath>,
    /// The layer that holds it; `None` where the archive of its path does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<Digest>,
}

fn is_native(execution: &Execution) -> bool {
    *execution == Execution::Native
}

/// Where the bytes of the paths that an entry holds are.
pub(super) enum Holding<'a> {
    /// In layers of the entry's manifest.
    Layers(&'a Manifest),
    /// In archives of their own, which their paths name.
    Archives,
}

impl Holding<'_> {
    /// What the bytes of a path are known by, and how many they are.
    fn of(&self, member: &Member, built: &BuiltMember) -> Result<(Digest, u64), String> {
        match (self, built.layer) {
            (Self::Layers(manifest), Some(digest)) => {
                let layer = manifest
                    .layers
                    .iter()
                    .find(|layer| layer.digest.sha256() == Some(digest));
                let layer = layer.ok_or_else(|| format!("it has no layer of `{}`", member.path))?;
                Ok((digest, layer.size))
            }
            (Self::Layers(_), None) => Err(format!("it names no layer of `{}`", member.path)),
            (Self::Archives, None) => Ok((member.nar_hash, member.nar_size)),
            (Self::Archives, Some(_)) => Err(format!("it names a layer of `{}`, where there are none", member.path)),
        }
    }
}

impl Entry {
    /// An entry as it is written.
    pub(super) fn new(plan_key: Digest, output: StorePath, members: Vec<Member>) -> Self {
        Self {
            format: FORMAT,
            plan_key,
            output,
            members,
        }
    }

    /// Its canonical bytes.
    pub(super) fn bytes(&self) -> Vec<u8> {
        canonical_json(self)
    }

    /// The entry in `config`; or why it is none.
    pub(super) fn parse(config: &[u8]) -> Result<Self, String> {
        parse_json(config).map_err(|error| crate::fsio::with_causes(&error))
    }

    /// The build key of its output, where a derivation made it.
    pub(super) fn build_key(&self) -> Option<Digest> {
        let output = self.members.iter().find(|member| member.path == self.output)?;
        let derivation = output.built.as_ref()?.derivation.as_ref()?;
        Some(Digest::of(derivation.as_bytes()))
    }

    /// What it offers for the step `asked`; or why it cannot be used.
    pub(super) fn offer(self, holding: &Holding<'_>, asked: &Asked, place: &str) -> Result<Offer, String> {
        let entry = self;
        if !(1..=FORMAT).contains(&entry.format) {
            return Err(format!(
                "it follows format {}, and the newest known is {FORMAT}",
                entry.format
            ));
        }
        let is_asked =
            entry.plan_key == asked.plan_key || asked.build_key.is_some_and(|key| entry.build_key() == Some(key));
        if !is_asked {
            return Err("it is the entry of another step".to_owned());
        }
        if entry.output.name() != asked.name {
            return Err(format!("it holds `{}`, not a path of this step", entry.output));
        }
        if entry.members.len() > MEMBERS_MAX {
            return Err(format!("it has more than {MEMBERS_MAX} paths"));
        }
        let mut members = BTreeMap::new();
        for member in entry.members {
            let offered = member.offered(holding)?;
            if let Some(twice) = members.insert(offered.info.path.clone(), offered) {
                return Err(format!("it names `{}` twice", twice.info.path));
            }
        }
        let output = members.get(&entry.output);
        if output.is_none_or(|output| output.built.is_none()) {
            return Err(format!("it does not hold its output `{}`", entry.output));
        }
        let lost = |member: &OfferedPath| {
            let mut references = member.info.references.iter();
            references.find(|reference| !members.contains_key(reference)).cloned()
        };
        if let Some(lost) = members.values().find_map(lost) {
            return Err(format!("it says nothing of `{lost}`, to which one of its paths refers"));
        }
        Ok(Offer {
            place: place.to_owned(),
            vouched: false,
            output: entry.output,
            members,
        })
    }
}

impl Member {
    /// What it offers.
    fn offered(self, holding: &Holding<'_>) -> Result<OfferedPath, String> {
        let bytes = self.built.as_ref().map(|built| holding.of(&self, built)).transpose()?;
        let path = self.path;
        let built = match self.built.zip(bytes) {
            None if self.plan_key.is_none() => return Err(format!("nothing makes `{path}`, and it does not hold it")),
            None => None,
            Some((built, (blob, size))) => {
                if let Some(other) = built.declared.keys().find(|key| !self.references.contains(key)) {
                    return Err(format!(
                        "`{path}` is said to declare `{other}`, to which it does not refer"
                    ));
                }
                Some(BuiltPath {
                    derivation: built.derivation,
                    walls: built.walls,
                    execution: built.execution,
                    declared: built.declared,
                    blob,
                    size,
                })
            }
        };
        Ok(OfferedPath {
            plan_key: self.plan_key,
            built,
            info: PathInfo {
                path,
                nar_hash: self.nar_hash,
                nar_size: self.nar_size,
                references: self.references,
                self_reference: self.self_reference,
            },
        })
    }
}

#[cfg(test)]
mod fuzz {
    use super::*;
    use crate::oci::{Annotations, Descriptor, Raw};

    #[test]
    fn fuzz_shared_cache_entry() {
        let asked = Asked {
            label: "hello".to_owned(),
            name: "hello".to_owned(),
            plan_key: Digest::of(b"plan"),
            build_key: None,
        };
        let config = Descriptor::new(ENTRY_TYPE, Digest::of(b""), 0);
        let manifest = Raw::write(Manifest::new(config, Vec::new(), Annotations::new())).unwrap();
        crate::testing::fuzz("shared-cache-entry", |bytes| {
            if let Ok(entry) = Entry::parse(bytes) {
                assert_eq!(Entry::parse(&entry.bytes()).as_ref(), Ok(&entry));
                let _ = entry.clone().offer(&Holding::Layers(&manifest), &asked, "fuzz");
                let _ = entry.offer(&Holding::Archives, &asked, "fuzz");
            }
        });
    }
}
