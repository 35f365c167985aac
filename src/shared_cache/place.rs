//! A *place* of a shared cache: a repository of a registry, an OCI layout, or a binary cache in Nix's format.
//!
//! Invariant: looking changes nothing there, and what it gives is unverified unless its name says what it is.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::SharedCacheError;
use super::nix_place::NixPlace;
use crate::digest::Digest;
use crate::event::{Event, Reporter};
use crate::fsio::with_causes;
use crate::oci::{Document, Manifest, Raw, Reference};
use crate::transport::read::LayoutBlobs;
use crate::transport::registry::{PushOptions, RegistryConfig, RegistrySink, Remote};
use crate::transport::{Layout, Location, Sink, TransportError};

/// A repository, a layout or a binary cache.
#[derive(Debug, Clone)]
pub struct CachePlace {
    name: String,
    /// Where it is, however it is written.
    key: String,
    pub(super) kind: PlaceKind,
    notes: PlaceNotes,
}

/// What a command has found out about places, by where they are.
#[derive(Debug, Clone, Default)]
pub struct PlaceNotes(Arc<Mutex<Notes>>);

#[derive(Debug, Default)]
struct Notes {
    /// Places that failed, and hosts of registries: they are not asked again, as each question would take as long as the
    /// first one did.
    failed: BTreeSet<String>,
    /// Entries whose content is not what they say, by their keys: who writes them writes them anew.
    damaged: BTreeSet<(String, Digest)>,
    /// What was told: of one entry that two tags have, for instance, once.
    told: BTreeSet<String>,
}

#[derive(Debug, Clone)]
pub(super) enum PlaceKind {
    /// Keeps layers, and images.
    Oci(Box<OciPlace>),
    /// Keeps archives, and no images.
    Nix(Box<NixPlace>),
}

/// A repository or a layout.
#[derive(Debug, Clone)]
pub(super) struct OciPlace {
    /// As the user wrote it.
    pub name: String,
    location: Location,
    pub kind: OciKind,
    registries: RegistryConfig,
    /// The same for what is asked for, which is built where nobody answers.
    asked: RegistryConfig,
}

#[derive(Debug, Clone)]
pub(super) enum OciKind {
    Registry(Box<Remote>, Reference),
    Layout(PathBuf),
}

impl CachePlace {
    /// The place that a text names: `docker://HOST/NAME`, `oci:DIR`, `file:DIR` or `https://…`, a path relative to `dir`.
    /// Nobody is asked yet.
    pub fn parse(
        text: &str,
        dir: &Path,
        registries: &RegistryConfig,
        notes: &PlaceNotes,
    ) -> Result<Self, SharedCacheError> {
        let kind = match NixPlace::parse(text, dir, registries) {
            Some(place) => PlaceKind::Nix(Box::new(place)),
            None => PlaceKind::Oci(Box::new(OciPlace::parse(text, dir, registries)?)),
        };
        let key = match &kind {
            PlaceKind::Oci(oci) => oci.location.to_string(),
            PlaceKind::Nix(nix) => nix
                .dir()
                .map_or(text.to_owned(), |dir| format!("file:{}", dir.display())),
        };
        Ok(Self {
            name: text.to_owned(),
            key,
            kind,
            notes: notes.clone(),
        })
    }

    /// As the user wrote it, unless that names two places.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is the same repository, directory or address.
    pub fn is_same(&self, other: &Self) -> bool {
        self.key == other.key
    }

    /// Calls it by where it is, as another place is written like it: the same relative path, taken from elsewhere.
    pub fn name_in_full(&mut self) {
        self.name.clone_from(&self.key);
    }

    /// False for a layout that nobody has written yet.
    pub fn exists(&self) -> bool {
        match &self.kind {
            PlaceKind::Oci(oci) => oci.exists(),
            // What cannot be looked at is there, and says why when it is read.
            PlaceKind::Nix(nix) => nix.dir().is_none_or(|dir| dir.try_exists().unwrap_or(true)),
        }
    }

    /// Whether a network lies before it.
    pub fn is_remote(&self) -> bool {
        match &self.kind {
            PlaceKind::Oci(oci) => oci.repository().is_some(),
            PlaceKind::Nix(nix) => nix.dir().is_none(),
        }
    }

    /// Where it is, if it keeps images: the inputs of theirs are kept there too.
    pub fn location(&self) -> Option<&Location> {
        match &self.kind {
            PlaceKind::Oci(oci) => Some(&oci.location),
            PlaceKind::Nix(_) => None,
        }
    }

    /// Whether it keeps images, and what belongs to them.
    pub fn keeps_images(&self) -> bool {
        matches!(self.kind, PlaceKind::Oci(_))
    }

    /// What can be read alone is an error.
    pub fn check_writable(&self) -> Result<(), SharedCacheError> {
        match &self.kind {
            PlaceKind::Nix(nix) => nix.writable().map(drop),
            PlaceKind::Oci(_) => Ok(()),
        }
    }

    /// Whether it has not failed so far.
    pub fn answers(&self) -> bool {
        let notes = self.notes();
        !notes.failed.contains(&self.key) && !self.host().is_some_and(|host| notes.failed.contains(host))
    }

    /// The repository that it is, where it is one, after its registry's host.
    pub fn repository(&self) -> Option<(String, String)> {
        match &self.kind {
            PlaceKind::Oci(oci) => {
                let (host, repository) = oci.repository()?;
                Some((host.to_owned(), repository.to_owned()))
            }
            PlaceKind::Nix(_) => None,
        }
    }

    /// The registry's host, where it is in one.
    fn host(&self) -> Option<&str> {
        match &self.kind {
            PlaceKind::Oci(oci) => oci.repository().map(|(host, _)| host),
            PlaceKind::Nix(_) => None,
        }
    }

    /// Takes note of a failure: a registry or a binary cache that failed is not asked again, and nothing at a host that
    /// does not answer.
    pub fn note(&self, error: &SharedCacheError) {
        let failed = match (error, self.host()) {
            (SharedCacheError::Transport(TransportError::Registry(error)), Some(host)) if !error.is_of_repository() => {
                host.to_owned()
            }
            (SharedCacheError::Transport(TransportError::Registry(_)) | SharedCacheError::Nix(_), _) => {
                self.key.clone()
            }
            _ => return,
        };
        self.notes().failed.insert(failed);
    }

    /// Takes note that what is under a key is not what it says.
    pub fn note_damage(&self, key: &Digest) {
        self.notes().damaged.insert((self.key.clone(), *key));
    }

    /// Whether that was found.
    pub(super) fn is_damaged(&self, key: &Digest) -> bool {
        self.notes().damaged.contains(&(self.key.clone(), *key))
    }

    /// Warns of what happens because of an error, of the same error once: one mistake may concern many steps.
    pub(super) fn warn(&self, what: &str, error: &SharedCacheError, reporter: &dyn Reporter) {
        let reason = match error {
            SharedCacheError::Refused { place, reason, .. } => format!("its entry in `{place}` is refused: {reason}"),
            error => with_causes(error),
        };
        if !self.notes().told.insert(format!("{} {reason}", self.key)) {
            return;
        }
        let mut text = format!("{what} {reason}");
        if !self.answers() {
            text.push_str("; it is not asked again");
        }
        if let Some(help) = error.help() {
            text.push_str(&format!(" ({help})"));
        }
        reporter.report(Event::Warning { text });
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why an entry cannot be used.
    pub(super) fn refused(&self, tag: &str, reason: String) -> SharedCacheError {
        SharedCacheError::Refused {
            place: self.name.clone(),
            tag: tag.to_owned(),
            reason,
        }
    }

    /// The place of what has this tag.
    pub fn tagged(&self, tag: &str) -> Result<Location, SharedCacheError> {
        Ok(self.oci()?.tagged(tag)?)
    }

    /// Opens it for writing under a tag; `beside` are repositories that blobs may be taken from, each with its registry's
    /// host.
    pub fn sink<'a>(
        &self,
        tag: &str,
        beside: &[(String, String)],
        reporter: &'a dyn Reporter,
    ) -> Result<Box<dyn Sink + 'a>, SharedCacheError> {
        Ok(self.oci()?.sink(tag, beside, reporter)?)
    }

    /// Locks out others on this machine who add to what is there: none of them loses what the other has signed. Registries have
    /// no locks.
    pub(super) fn lock(&self) -> Result<Option<File>, SharedCacheError> {
        match &self.kind {
            PlaceKind::Nix(nix) => nix.lock().map(Some),
            PlaceKind::Oci(oci) => match &oci.kind {
                OciKind::Registry(..) => Ok(None),
                OciKind::Layout(path) => Ok(Some(Layout::new(path, None).lock_updates()?)),
            },
        }
    }

    fn oci(&self) -> Result<&OciPlace, SharedCacheError> {
        match &self.kind {
            PlaceKind::Oci(oci) => Ok(oci),
            PlaceKind::Nix(_) => Err(SharedCacheError::NoImages {
                place: self.name.clone(),
            }),
        }
    }
}

impl OciPlace {
    fn parse(text: &str, dir: &Path, registries: &RegistryConfig) -> Result<Self, SharedCacheError> {
        let wrong = |reason: &str| SharedCacheError::Place {
            text: text.to_owned(),
            reason: reason.to_owned(),
        };
        let location: Location = match text.parse() {
            Ok(location) => location,
            Err(TransportError::Location { reason, .. }) => return Err(wrong(reason)),
            Err(error) => return Err(error.into()),
        };
        let location = location.below(dir);
        let asked = optional(registries);
        let kind = match &location {
            Location::Registry(name) => {
                let reference: Reference = name.parse().map_err(TransportError::from)?;
                if reference.tag().is_some() || reference.digest().is_some() {
                    return Err(wrong("it names one image; entries have tags of their own"));
                }
                OciKind::Registry(Box::new(Remote::new(&asked, &reference)?), reference)
            }
            Location::Layout { path, name: None } => OciKind::Layout(path.clone()),
            Location::Layout { name: Some(_), .. } => {
                return Err(wrong("it names one image; entries have names of their own"));
            }
            _ => return Err(wrong("it is neither a registry nor a layout nor a binary cache")),
        };
        Ok(Self {
            name: text.to_owned(),
            location,
            kind,
            registries: registries.clone(),
            asked,
        })
    }

    /// The registry's host and the repository, where the place is one.
    fn repository(&self) -> Option<(&str, &str)> {
        match &self.kind {
            OciKind::Registry(_, reference) => Some((reference.registry(), reference.repository())),
            OciKind::Layout(_) => None,
        }
    }

    /// How registries are asked.
    pub(super) fn asked(&self) -> &RegistryConfig {
        &self.asked
    }

    /// The place of what has this tag.
    pub(super) fn tagged(&self, tag: &str) -> Result<Location, TransportError> {
        let tagged = self.location.tagged(tag)?;
        Ok(tagged.expect("registries and layouts have tags"))
    }

    /// False for a layout that nobody has written yet.
    pub(super) fn exists(&self) -> bool {
        match &self.kind {
            OciKind::Registry(..) => true,
            // What cannot be looked at is there, and says why when it is read.
            OciKind::Layout(path) => path.join("oci-layout").try_exists().unwrap_or(true),
        }
    }

    /// The manifest under a tag; `None` where there is none.
    pub(super) fn manifest(&self, tag: &str) -> Result<Option<Raw<Manifest>>, TransportError> {
        match &self.kind {
            OciKind::Registry(remote, _) => remote.manifest(tag),
            OciKind::Layout(_) if !self.exists() => Ok(None),
            OciKind::Layout(path) => LayoutBlobs::open(path)?.tagged(tag),
        }
    }

    /// The manifest or index under a tag, as the place itself has it; `None` where there is none.
    pub(super) fn document(&self, tag: &str) -> Result<Option<Document>, TransportError> {
        match &self.kind {
            OciKind::Registry(remote, _) => remote.document(tag),
            OciKind::Layout(_) if !self.exists() => Ok(None),
            OciKind::Layout(path) => {
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
            OciKind::Registry(remote, _) => remote.put_document(tag, document),
            OciKind::Layout(path) => Layout::new(path, None).put_document(tag, document),
        }
    }

    /// A blob, **unverified**; `None` where it is not there.
    pub(super) fn blob(&self, digest: &Digest, size: u64) -> Result<Option<Box<dyn Read + Send>>, TransportError> {
        match &self.kind {
            OciKind::Registry(remote, _) => remote.blob(digest, Some(size)),
            OciKind::Layout(path) => LayoutBlobs::open(path)?.blob(digest),
        }
    }

    /// Opens it for writing under a tag: see [`CachePlace::sink`].
    pub(super) fn sink<'a>(
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

/// The same, for hosts that can be done without.
pub(super) fn optional(registries: &RegistryConfig) -> RegistryConfig {
    let mut registries = registries.clone();
    registries.http.is_optional = true;
    registries
}
