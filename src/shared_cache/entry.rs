//! An *entry* says what a step made, as the config of its manifest.
//!
//! Invariant: what was read is closed under references, names its output and belongs to the step that was asked for;
//! everything in it that is not proved by a hash stands under the signature.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::build::{Asked, BuiltPath, Offer, OfferedPath};
use crate::digest::Digest;
use crate::oci::{Manifest, canonical_json, parse_json};
use crate::store_path::{PathInfo, StorePath};

/// Media type of an entry, and kind of its manifest.
pub const ENTRY_TYPE: &str = "application/vnd.layerize.build.v1+json";

/// The rules of entries.
const FORMAT: u32 = 1;

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
    /// False where it was built with `--sandbox=none`.
    pub sandboxed: bool,
    /// References that the scan did not find, each with the path through which it was declared.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub declared: BTreeMap<StorePath, StorePath>,
    /// The layer that holds it.
    pub layer: Digest,
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

    /// The build key in the config of an entry, where a derivation made its output.
    pub(super) fn build_key_in(config: &[u8]) -> Result<Option<Digest>, String> {
        let entry: Self = parse_json(config).map_err(|error| crate::fsio::with_causes(&error))?;
        Ok(entry.build_key())
    }

    /// The build key of its output, where a derivation made it.
    fn build_key(&self) -> Option<Digest> {
        let output = self.members.iter().find(|member| member.path == self.output)?;
        let derivation = output.built.as_ref()?.derivation.as_ref()?;
        Some(Digest::of(derivation.as_bytes()))
    }

    /// The entry in `config`, as what it offers for the step `asked`; or why it cannot be used.
    pub(super) fn offer(config: &[u8], manifest: &Manifest, asked: &Asked, place: &str) -> Result<Offer, String> {
        let entry: Self = parse_json(config).map_err(|error| crate::fsio::with_causes(&error))?;
        if entry.format != FORMAT {
            return Err(format!("it follows format {}, not {FORMAT}", entry.format));
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
            let offered = member.offered(manifest)?;
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
            output: entry.output,
            members,
        })
    }
}

impl Member {
    /// What it offers, with the size of its layer in `manifest`.
    fn offered(self, manifest: &Manifest) -> Result<OfferedPath, String> {
        let path = self.path;
        let built = match self.built {
            None if self.plan_key.is_none() => return Err(format!("nothing makes `{path}`, and it does not hold it")),
            None => None,
            Some(built) => {
                let mut layers = manifest.layers.iter();
                let layer = layers.find(|layer| layer.digest.sha256() == Some(built.layer));
                let layer = layer.ok_or_else(|| format!("it has no layer of `{path}`"))?;
                if let Some(other) = built.declared.keys().find(|key| !self.references.contains(key)) {
                    return Err(format!(
                        "`{path}` is said to declare `{other}`, to which it does not refer"
                    ));
                }
                Some(BuiltPath {
                    derivation: built.derivation,
                    sandboxed: built.sandboxed,
                    declared: built.declared,
                    blob: built.layer,
                    size: layer.size,
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
            let _ = Entry::offer(bytes, &manifest, &asked, "fuzz");
        });
    }
}
