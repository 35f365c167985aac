//! *Writing*: what was built here, as entries for others.
//!
//! Invariant: an entry is complete before it has a tag; one that is there and believed stays as it is.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::entry::{BuiltMember, ENTRY_TYPE, Entry, Member};
use super::error::SharedCacheError;
use super::nix_place::Record;
use super::place::{CachePlace, OciKind, OciPlace, PlaceKind};
use super::read::{believed, read_config};
use super::trust::{CacheTrust, Statement};
use super::{age, build_tag, plan_tag};
use crate::binary_cache::SecretKey;
use crate::digest::Digest;
use crate::event::{Event, Reporter};
use crate::image::{Image, ImageLayer};
use crate::layer::{self, LayerCache, LayerContent, LayerInput, PackOptions, StoreEntry};
use crate::oci::{self, Annotations, ConfigDocument, Descriptor, Document, Manifest, Raw};
use crate::store::PathDetails;
use crate::store_path::{StoreDir, StorePath};
use crate::transport::{Companion, Layout};
use crate::walls::Walls;

/// Whose names stand under what is published.
#[derive(Debug, Default)]
pub struct Signers {
    /// The keys that sign.
    pub keys: Vec<SecretKey>,
}

impl Signers {
    /// Whose entries, found in place of one's own, are left as they are.
    pub(super) fn trust(&self) -> CacheTrust {
        CacheTrust {
            keys: self.keys.iter().map(SecretKey::public).collect(),
            unsigned: self.keys.is_empty(),
            least: Walls::None,
        }
    }
}

/// What a place has of a step.
#[derive(Debug, Clone)]
pub enum Held {
    /// Nothing that is believed.
    Lacking,
    /// An entry that others have signed, and none of one's own keys.
    Others(HeldEntry),
    /// An entry.
    Current,
    /// An entry whose date is of another day: who uses it writes it again.
    Stale(HeldEntry),
}

/// An entry as its place has it.
#[derive(Debug, Clone)]
pub struct HeldEntry(Box<HeldForm>);

#[derive(Debug, Clone)]
enum HeldForm {
    Manifest(Raw<Manifest>),
    Record(Record),
}

impl HeldEntry {
    /// Its annotations, if what it says is the entry in these bytes.
    pub(super) fn says(&self, entry: &[u8]) -> Option<&Annotations> {
        let is_same = match &*self.0 {
            HeldForm::Manifest(manifest) => manifest.config.digest == Digest::of(entry),
            HeldForm::Record(record) => record.entry.bytes() == entry,
        };
        is_same.then(|| self.0.annotations())
    }
}

impl HeldForm {
    fn annotations(&self) -> &Annotations {
        match self {
            Self::Manifest(manifest) => &manifest.annotations,
            Self::Record(record) => &record.annotations,
        }
    }
}

/// What a step made, to be published.
#[derive(Debug, Clone)]
pub struct Published {
    /// What the user calls the step.
    pub label: String,
    /// Its plan key.
    pub plan_key: Digest,
    /// What it made.
    pub output: StorePath,
    /// The closure of that, itself included.
    pub closure: Vec<PublishedPath>,
}

/// A path of a closure.
#[derive(Debug, Clone)]
pub struct PublishedPath {
    /// What is known of it.
    pub details: PathDetails,
    /// Where it is on disk.
    pub physical: PathBuf,
    /// The plan key of the step that makes it, where one does.
    pub plan_key: Option<Digest>,
    /// Whether everybody makes it of a download: then it is not held.
    pub is_unpacked: bool,
}

impl CachePlace {
    /// Whether there is an entry of a step that need not be written again.
    pub fn has(&self, plan_key: &Digest, signers: &Signers, now: Option<i64>) -> Result<Held, SharedCacheError> {
        let tag = plan_tag(plan_key);
        let trust = signers.trust();
        let found = match &self.kind {
            PlaceKind::Oci(oci) => {
                let found = match oci.manifest(&tag) {
                    Ok(found) => found,
                    // What a layout has lost is written anew.
                    Err(_) if !self.is_remote() => None,
                    Err(error) => return Err(error.into()),
                };
                found.map(|manifest| (believed(&manifest, &trust).is_ok(), HeldForm::Manifest(manifest)))
            }
            PlaceKind::Nix(nix) => {
                let found = nix.record(&tag)?.and_then(Result::ok);
                found.map(|record| (record.check(&trust).is_ok(), HeldForm::Record(record)))
            }
        };
        Ok(match found.filter(|_| !self.is_damaged(plan_key)) {
            None => Held::Lacking,
            Some((false, held)) => Held::Others(HeldEntry(Box::new(held))),
            Some((true, held)) if age::is_stale(held.annotations(), now) => Held::Stale(HeldEntry(Box::new(held))),
            Some((true, _)) => Held::Current,
        })
    }

    /// Writes an entry that is there again, with the date of `now` and nothing else changed.
    pub fn renew(&self, held: &HeldEntry, plan_key: &Digest, now: i64) -> Result<(), SharedCacheError> {
        match (&self.kind, &*held.0) {
            (PlaceKind::Oci(oci), HeldForm::Manifest(manifest)) => self.renew_manifest(oci, manifest, plan_key, now),
            (PlaceKind::Nix(nix), HeldForm::Record(record)) => nix.put(&record.dated(Some(now)), Some(now)),
            // What one kind of place has is never given to the other.
            _ => Ok(()),
        }
    }

    fn renew_manifest(
        &self,
        oci: &OciPlace,
        entry: &Raw<Manifest>,
        plan_key: &Digest,
        now: i64,
    ) -> Result<(), SharedCacheError> {
        let unreadable = |reason: String| self.refused(&plan_tag(plan_key), reason);
        let digest = entry.config.digest.sha256();
        let digest = digest.ok_or_else(|| unreadable("its config is not named by a SHA-256".to_owned()))?;
        let config = read_config(oci, &digest, entry.config.size)?;
        let build_key = Entry::parse(&config).map_err(unreadable)?.build_key();
        let renewed = age::renewed(&Document::Manifest(entry.clone()), now)?;
        oci.put_document(&plan_tag(plan_key), &renewed)?;
        let Some(tag) = build_key.as_ref().map(build_tag) else {
            return Ok(());
        };
        // Another plan's entry of the same build that is still young stays.
        let other = oci.manifest(&tag)?;
        if other.is_none_or(|other| age::is_stale(&other.annotations, Some(now))) {
            oci.put_document(&tag, &renewed)?;
        }
        Ok(())
    }

    /// Writes an entry, dated `now`, that others may be writing, too: what each of them signs is to stay.
    pub fn publish(
        &self,
        step: &Published,
        signers: &Signers,
        now: Option<i64>,
        cache: &LayerCache,
        reporter: &dyn Reporter,
    ) -> Result<(), SharedCacheError> {
        /// How many times an entry is written that somebody writes over.
        const TRIES: usize = 4;
        let _lock = self.lock()?;
        let mut held = self.has(&step.plan_key, signers, now)?;
        for _ in 0..TRIES {
            let others = match &held {
                Held::Others(entry) => Some(entry),
                Held::Lacking => None,
                Held::Current | Held::Stale(_) => break,
            };
            self.write(step, others, signers, now, cache, reporter)?;
            if !self.is_remote() {
                break;
            }
            held = match self.has(&step.plan_key, signers, now)? {
                Held::Others(entry) => Held::Others(entry),
                _ => break,
            };
        }
        Ok(())
    }

    /// Writes an entry once, and tells how many bytes of layers or archives were sent. The signatures of `held`, an entry of others
    /// that says the same, stay.
    fn write(
        &self,
        step: &Published,
        held: Option<&HeldEntry>,
        signers: &Signers,
        now: Option<i64>,
        cache: &LayerCache,
        reporter: &dyn Reporter,
    ) -> Result<(), SharedCacheError> {
        let sent = match &self.kind {
            PlaceKind::Oci(oci) => {
                let companion = companion(step, held, signers, now, cache, reporter)?;
                if let (OciKind::Layout(path), true) = (&oci.kind, self.is_damaged(&step.plan_key)) {
                    let layers = companion
                        .artifact
                        .layers
                        .iter()
                        .map(|layer| (layer.digest(), layer.descriptor.size));
                    Layout::new(path, None).remove_damaged(&layers.collect::<Vec<_>>())?;
                }
                let sink = oci.sink(&companion.tag, &[], reporter)?;
                sink.put_companion(&companion, &|_| Ok(()))?.bytes_sent
            }
            PlaceKind::Nix(nix) => {
                if self.is_damaged(&step.plan_key) {
                    nix.forget_damaged(&step.closure)?;
                }
                let sent = nix.put_archives(&step.closure, &signers.keys)?;
                let entry = step.entry(&|_| None);
                let held = held.and_then(|held| held.says(&entry.bytes()));
                nix.put(&Record::new(entry, &signers.keys, held).dated(now), now)?;
                sent
            }
        };
        if sent == 0 && self.is_remote() && self.is_damaged(&step.plan_key) {
            let text = format!(
                "`{}` stays damaged in `{}`: a registry keeps the blob that it has of a name; `layerize cache prune` and the \
                 registry's own garbage collection remove it, and then it is written again",
                step.label,
                self.name()
            );
            reporter.report(Event::Warning { text });
            return Ok(());
        }
        reporter.report(Event::BuildPublished {
            name: step.label.clone(),
            to: self.name().to_owned(),
            sent,
        });
        Ok(())
    }
}

fn sorted(mut members: Vec<Member>) -> Vec<Member> {
    members.sort_by(|a, b| a.path.cmp(&b.path));
    members
}

impl Published {
    /// The paths that the entry holds.
    fn held(&self) -> impl Iterator<Item = &PublishedPath> {
        self.closure.iter().filter(|path| !path.is_unpacked)
    }

    /// What is said of it, where `layer_of` knows the layer of a path that is held.
    fn entry(&self, layer_of: &dyn Fn(&StorePath) -> Option<Digest>) -> Entry {
        let members = self.closure.iter().map(|path| path.member(layer_of));
        Entry::new(self.plan_key, self.output.clone(), sorted(members.collect()))
    }

    /// The build key, where a derivation made the output.
    fn build_key(&self) -> Option<Digest> {
        let output = self.closure.iter().find(|path| path.details.info.path == self.output)?;
        let derivation = output.details.derivation_json.as_ref()?;
        Some(Digest::of(derivation.as_bytes()))
    }
}

impl PublishedPath {
    fn member(&self, layer_of: &dyn Fn(&StorePath) -> Option<Digest>) -> Member {
        let info = &self.details.info;
        let provenance = &self.details.provenance;
        let built = || BuiltMember {
            derivation: self.details.derivation_json.clone(),
            walls: provenance.walls,
            execution: provenance.execution,
            declared: provenance.declared.iter().cloned().collect(),
            layer: layer_of(&info.path),
        };
        Member {
            path: info.path.clone(),
            nar_hash: info.nar_hash,
            nar_size: info.nar_size,
            references: info.references.clone(),
            self_reference: info.self_reference,
            plan_key: self.plan_key,
            built: (!self.is_unpacked).then(built),
        }
    }
}

/// The layers of the paths that an entry holds, each as in an image whose layer it is alone.
fn pack(step: &Published, cache: &LayerCache, reporter: &dyn Reporter) -> Result<Vec<ImageLayer>, SharedCacheError> {
    let input = |held: &PublishedPath| LayerInput {
        content: LayerContent::StorePaths(vec![StoreEntry {
            logical: StoreDir::layerize().logical(&held.details.info.path),
            physical: held.physical.clone(),
            nar_hash: held.details.info.nar_hash,
            nar_size: held.details.info.nar_size,
            attributes: Vec::new(),
        }]),
        comment: String::new(),
    };
    let inputs: Vec<LayerInput> = step.held().map(input).collect();
    let options = PackOptions {
        cache: Some(cache),
        ..PackOptions::default()
    };
    let packed = layer::pack(&inputs, &options, reporter)?;
    let of_image = |layer: layer::PackedLayer| ImageLayer {
        descriptor: Descriptor::new(layer.compression.media_type(), layer.digest, layer.size),
        diff_id: Some(layer.diff_id),
        content: layer.blob,
    };
    Ok(packed.into_iter().map(of_image).collect())
}

/// The entry of a step with its layers.
fn companion(
    step: &Published,
    held: Option<&HeldEntry>,
    signers: &Signers,
    now: Option<i64>,
    cache: &LayerCache,
    reporter: &dyn Reporter,
) -> Result<Companion, SharedCacheError> {
    let layers = pack(step, cache, reporter)?;
    let by_path: BTreeMap<&StorePath, &ImageLayer> =
        (step.held().map(|held| &held.details.info.path)).zip(&layers).collect();
    let entry = step.entry(&|path| by_path.get(path).and_then(|layer| layer.digest().sha256()));
    let config = entry.bytes();
    let digest = Digest::of(&config);
    let held = held.and_then(|held| held.says(&config));
    let config = Raw::opaque(config, digest.into());
    let mut seen = std::collections::BTreeSet::new();
    let layers: Vec<ImageLayer> = layers.into_iter().filter(|layer| seen.insert(layer.digest())).collect();
    let mut manifest = oci::Manifest::new(
        Descriptor::new(ENTRY_TYPE, config.digest(), config.size()),
        layers.iter().map(|layer| layer.descriptor.clone()).collect(),
        age::dated(Statement::Build(&digest).signed(&signers.keys, held), now),
    );
    manifest.artifact_type = Some(ENTRY_TYPE.to_owned());
    let manifest = Raw::write(manifest).map_err(|source| SharedCacheError::TooLarge {
        output: step.output.clone(),
        source,
    })?;
    let tag = plan_tag(&step.plan_key);
    Ok(Companion {
        artifact: Image {
            manifest,
            config: ConfigDocument::Artifact(config),
            layers,
        },
        artifact_type: ENTRY_TYPE,
        subject: None,
        anchor: step.build_key().as_ref().map_or_else(|| tag.clone(), build_tag),
        tag,
        // An entry takes nobody's place.
        tag_of: plan_tag,
    })
}
