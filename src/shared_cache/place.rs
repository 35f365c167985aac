//! A *place* of a shared cache: a repository of a registry, or an OCI layout.
//!
//! Invariant: looking changes nothing there, and what it gives is unverified unless its name says what it is.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::SharedCacheError;
use crate::digest::Digest;
use crate::event::{Event, Reporter};
use crate::oci::{Document, Manifest, Raw, Reference};
use crate::transport::read::LayoutBlobs;
use crate::transport::registry::{PushOptions, RegistryConfig, RegistrySink, Remote};
use crate::transport::{Layout, Location, Sink, TransportError};

/// A repository or a layout.
#[derive(Debug, Clone)]
pub struct CachePlace {
    name: String,
    location: Location,
    pub(super) kind: PlaceKind,
    registries: RegistryConfig,
    notes: PlaceNotes,
}

/// What a command has found out about places, by their names.
#[derive(Debug, Clone, Default)]
pub struct PlaceNotes(Arc<Mutex<Notes>>);

#[derive(Debug, Default)]
struct Notes {
    /// Places that failed: they are not asked again, as each question would take as long as the first one did.
    failed: BTreeSet<String>,
    /// Entries whose content is not what they say, by their keys: who writes them writes them anew.
    damaged: BTreeSet<(String, Digest)>,
    /// What was told: of one entry that two tags have, for instance, once.
    told: BTreeSet<String>,
}

#[derive(Debug, Clone)]
pub(super) enum PlaceKind {
    Registry(Box<Remote>, Reference),
    Layout(PathBuf),
}

impl CachePlace {
    /// The place that a text names: `docker://HOST/NAME` or `oci:DIR`, a path relative to `dir`. Nobody is asked yet.
    pub fn parse(
        text: &str,
        dir: &Path,
        registries: &RegistryConfig,
        notes: &PlaceNotes,
    ) -> Result<Self, SharedCacheError> {
        let wrong = |reason: &str| SharedCacheError::Place {
            text: text.to_owned(),
            reason: reason.to_owned(),
        };
        let location: Location = text.parse().map_err(SharedCacheError::Transport)?;
        let location = location.below(dir);
        let kind = match &location {
            Location::Registry(name) => {
                let reference: Reference = name.parse().map_err(TransportError::from)?;
                if reference.tag().is_some() || reference.digest().is_some() {
                    return Err(wrong("it names one image; entries have tags of their own"));
                }
                PlaceKind::Registry(Box::new(Remote::new(registries, &reference)?), reference)
            }
            Location::Layout { path, name: None } => PlaceKind::Layout(path.clone()),
            Location::Layout { name: Some(_), .. } => {
                return Err(wrong("it names one image; entries have names of their own"));
            }
            _ => return Err(wrong("it is neither a registry nor a layout")),
        };
        Ok(Self {
            name: text.to_owned(),
            location,
            kind,
            registries: registries.clone(),
            notes: notes.clone(),
        })
    }

    /// As the user wrote it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The registry's host and the repository, where the place is one.
    pub fn repository(&self) -> Option<(&str, &str)> {
        match &self.kind {
            PlaceKind::Registry(_, reference) => Some((reference.registry(), reference.repository())),
            PlaceKind::Layout(_) => None,
        }
    }

    /// Whether it has not failed so far.
    pub fn answers(&self) -> bool {
        !self.notes().failed.contains(&self.name)
    }

    /// Takes note of a failure: a registry that failed is not asked again.
    pub fn note(&self, error: &SharedCacheError) {
        if matches!(error, SharedCacheError::Transport(TransportError::Registry(_))) {
            self.notes().failed.insert(self.name.clone());
        }
    }

    /// Takes note that what is under a key is not what it says.
    pub fn note_damage(&self, key: &Digest) {
        self.notes().damaged.insert((self.name.clone(), *key));
    }

    /// Whether that was found.
    pub(super) fn is_damaged(&self, key: &Digest) -> bool {
        self.notes().damaged.contains(&(self.name.clone(), *key))
    }

    /// Warns, of the same thing once.
    pub(super) fn warn(&self, text: String, reporter: &dyn Reporter) {
        let is_new = self.notes().told.insert(text.clone());
        if is_new {
            reporter.report(Event::Warning { text });
        }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How registries are reached.
    pub(super) fn registries(&self) -> &RegistryConfig {
        &self.registries
    }

    /// The place of what has this tag.
    pub fn tagged(&self, tag: &str) -> Result<Location, TransportError> {
        let tagged = self.location.tagged(tag)?;
        Ok(tagged.expect("registries and layouts have tags"))
    }

    /// False for a layout that nobody has written yet.
    pub(super) fn exists(&self) -> bool {
        match &self.kind {
            PlaceKind::Registry(..) => true,
            PlaceKind::Layout(path) => path.join("oci-layout").exists(),
        }
    }

    /// The manifest under a tag; `None` where there is none.
    pub(super) fn manifest(&self, tag: &str) -> Result<Option<Raw<Manifest>>, TransportError> {
        match &self.kind {
            PlaceKind::Registry(remote, _) => remote.manifest(tag),
            PlaceKind::Layout(_) if !self.exists() => Ok(None),
            PlaceKind::Layout(path) => LayoutBlobs::open(path)?.tagged(tag),
        }
    }

    /// The manifest or index under a tag, as the place itself has it; `None` where there is none.
    pub(super) fn document(&self, tag: &str) -> Result<Option<Document>, TransportError> {
        match &self.kind {
            PlaceKind::Registry(remote, _) => remote.document(tag),
            PlaceKind::Layout(_) if !self.exists() => Ok(None),
            PlaceKind::Layout(path) => {
                let blobs = LayoutBlobs::open(path)?;
                let named = blobs.named()?;
                let found = named.iter().find(|(name, _)| name == tag);
                found.map(|(_, listed)| blobs.document(listed)).transpose()
            }
        }
    }

    /// Writes a manifest or an index, whose blobs are there, under a tag.
    pub(super) fn put_document(&self, tag: &str, document: &Document) -> Result<(), TransportError> {
        match &self.kind {
            PlaceKind::Registry(remote, _) => remote.put_document(tag, document),
            PlaceKind::Layout(path) => Layout::new(path, None).put_document(tag, document),
        }
    }

    /// A blob, **unverified**; `None` where it is not there.
    pub(super) fn blob(&self, digest: &Digest, size: u64) -> Result<Option<Box<dyn Read + Send>>, TransportError> {
        match &self.kind {
            PlaceKind::Registry(remote, _) => remote.blob(digest, Some(size)),
            PlaceKind::Layout(path) => LayoutBlobs::open(path)?.blob(digest),
        }
    }

    /// Opens it for writing under a tag; `beside` are repositories that blobs may be taken from, each with its registry's
    /// host.
    pub fn sink<'a>(
        &self,
        tag: &str,
        beside: &[(String, String)],
        reporter: &'a dyn Reporter,
    ) -> Result<Box<dyn Sink + 'a>, TransportError> {
        let (location, host) = (self.tagged(tag)?, self.repository().map(|(host, _)| host));
        let Location::Registry(name) = &location else {
            return location.sink(None, &self.registries, reporter);
        };
        let here = beside.iter().filter(|(other, _)| Some(other.as_str()) == host);
        let options = PushOptions {
            mount_from: here.map(|(_, repository)| repository.clone()).collect(),
            ..PushOptions::default()
        };
        Ok(Box::new(
            RegistrySink::new(name, &self.registries, reporter)?.options(options),
        ))
    }
}
