//! *Bases*: the images that others are laid over, pinned in the lock and opened by what is pinned.
//!
//! Invariant: a build uses exactly the manifest that the lock pins. Its manifest and config are kept once they were
//! read; the place is not asked again until somebody wants a layer's bytes.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::digest::{ContentDigest, Digest, VerifyingReader};
use crate::fetch::{LockEntry, Update};
use crate::fsio;
use crate::image::{self, AccountFile, AccountFiles, Base, BaseEntry, Image};
use crate::oci::{CONFIG_SIZE_MAX, Document, MANIFEST_SIZE_MAX, Platform, Raw, Reference, canonical_json};
use crate::spec::{self, Lock, LockedBase, Workspace};
use crate::transport::registry::RegistryConfig;
use crate::transport::{self, Content, Location, Peeked, ReadOptions, Source, TransportError};

use super::draft::platform_of_spec;
use super::environment::Environment;
use super::error::ProjectError;

/// Largest `/etc/passwd` or `/etc/group` of a base that is read.
const ACCOUNTS_SIZE_MAX: u64 = 1 << 20;

/// What the lock says of a base that the spec no longer does, a line each: its platform. (What is missing or too much,
/// [`spec::lock_is_current`] says.)
pub fn stale(workspace: &Workspace, lock: &Lock) -> Vec<String> {
    let bases = lock.bases.iter().filter_map(|(name, base)| {
        let platform = platform_of_spec(workspace.images.get(name)?, lock).ok()?;
        let text = format!(
            "the base of image `{name}` is pinned for `{}`, not `{platform}`",
            base.platform
        );
        (platform != base.platform).then_some(text)
    });
    bases.collect()
}

/// Brings the bases in `lock` up to date: what is pinned stays, but for what `update` says.
pub fn resolve(
    workspace: &Workspace,
    lock: &mut Lock,
    update: &Update,
    offline: bool,
    environment: &Environment<'_>,
) -> Result<(), ProjectError> {
    let mut bases = std::collections::BTreeMap::new();
    for (name, image) in &workspace.images {
        let Some(reference) = image.base.as_ref().filter(|_| image.debug.is_none()) else {
            continue;
        };
        let platform = platform_of_spec(image, lock)?;
        let wanted = update.takes(LockEntry::Other(name)) || update.takes(LockEntry::Other(&reference.value));
        let fits = |base: &&LockedBase| base.reference == reference.value && base.platform == platform;
        let base = match lock.bases.get(name).filter(fits).filter(|_| !wanted) {
            Some(pinned) => pinned.clone(),
            None => LockedBase {
                sha256: digest_of(&reference.value, &image.dir, &platform, offline, environment).map_err(|source| {
                    ProjectError::PinBase {
                        image: name.clone(),
                        source: Box::new(source),
                    }
                })?,
                reference: reference.value.clone(),
                platform,
            },
        };
        bases.insert(name.clone(), base);
    }
    lock.bases = bases;
    Ok(())
}

/// The digest that a reference stands for now.
fn digest_of(
    reference: &str,
    dir: &Path,
    platform: &Platform,
    offline: bool,
    environment: &Environment<'_>,
) -> Result<Digest, ProjectError> {
    let location = reference.parse::<Location>()?.below(dir);
    refuse_offline(&location, offline)?;
    let source = environment.source(&location.to_string(), Some(platform))?;
    let manifest = source.manifest()?;
    keep(manifest.bytes(), environment)?;
    keep(source.config()?.bytes(), environment)?;
    Ok(Digest::of(manifest.bytes()))
}

fn refuse_offline(location: &Location, offline: bool) -> Result<(), ProjectError> {
    match location {
        Location::Registry(_) if offline => Err(ProjectError::Offline {
            place: location.to_string(),
        }),
        _ => Ok(()),
    }
}

/// Opens the base of an image of the spec as the lock pins it.
pub fn of_spec(
    spec: &spec::Image,
    lock: &Lock,
    offline: bool,
    environment: &Environment<'_>,
) -> Result<Option<Base>, ProjectError> {
    if spec.base.is_none() {
        return Ok(None);
    }
    let name = spec.spec_name();
    let unpinned = || ProjectError::BaseUnpinned { image: name.to_owned() };
    let pinned = lock.bases.get(name).ok_or_else(unpinned)?;
    let location = pinned.reference.parse::<Location>()?.below(&spec.dir);
    let pin = BasePin {
        digest: pinned.sha256,
        platform: pinned.platform.clone(),
    };
    open(location, pin, spec, offline, environment)
        .map_err(|source| unusable(format!("of image `{name}`"), source))
        .map(Some)
}

/// Opens the base of an image of store paths, as it is now.
pub fn of_option(
    text: &str,
    spec: &spec::Image,
    platform: &Platform,
    offline: bool,
    environment: &Environment<'_>,
) -> Result<Base, ProjectError> {
    let platform = platform.clone();
    digest_of(text, Path::new(""), &platform, offline, environment)
        .and_then(|digest| open(text.parse()?, BasePin { digest, platform }, spec, offline, environment))
        .map_err(|source| unusable(format!("`{text}`"), source))
}

fn unusable(what: String, source: ProjectError) -> ProjectError {
    let source = Box::new(source);
    ProjectError::UseBase { what, source }
}

/// Which manifest is meant.
struct BasePin {
    digest: Digest,
    platform: Platform,
}

fn open(
    location: Location,
    pin: BasePin,
    spec: &spec::Image,
    offline: bool,
    environment: &Environment<'_>,
) -> Result<Base, ProjectError> {
    let BasePin { digest, platform } = pin;
    let (location, name, repository) = match &location {
        Location::Registry(text) => {
            let reference: Reference = text.parse()?;
            let name = reference.name();
            let tagged = reference.tag().map_or(name.clone(), |tag| format!("{name}:{tag}"));
            let repository = (reference.registry().to_owned(), reference.repository().to_owned());
            let exact = Location::Registry(format!("{name}@{digest}"));
            (exact, Some(tagged), Some(repository))
        }
        _ => (location, None, None),
    };
    let source = Pinned {
        place: location.to_string(),
        location,
        digest,
        platform,
        repository,
        offline,
        dir: documents_dir(environment),
        registries: environment.registries.clone(),
        layers: environment.base_layers.clone(),
        opened: OnceLock::new(),
    };
    let source: Arc<dyn Source> = Arc::new(source);
    let Content::Image(image) = transport::open(&source)? else {
        return Err(TransportError::NoIndex.into());
    };
    let accounts = match image::needs_accounts(spec) {
        false => None,
        true => {
            let paths = ["etc/passwd", "etc/group"];
            let mut files = transport::read_files(&image.layers, &paths, ACCOUNTS_SIZE_MAX)?;
            let mut file = |path| AccountFile(files.remove(path).unwrap_or_default());
            Some(AccountFiles {
                passwd: file(paths[0]),
                group: file(paths[1]),
            })
        }
    };
    let links = image::needs_links(spec)
        .then(|| links(&image, environment))
        .transpose()?;
    Ok(Base {
        name,
        image,
        accounts,
        links,
    })
}

/// What the base has where directories may be links. All layers are read for it once: what was found is kept.
fn links(image: &Image, environment: &Environment<'_>) -> Result<BTreeMap<String, BaseEntry>, ProjectError> {
    let path = documents_dir(environment).join(format!("{}.links", image.digest().hex()));
    if let Some(kept) = kept_links(&path) {
        return Ok(kept);
    }
    let paths: Vec<&str> = image::looked_up().collect();
    let found = transport::entries(&image.layers, &paths)?;
    let links: BTreeMap<String, BaseEntry> = found
        .into_iter()
        .filter_map(|(path, peeked)| match peeked {
            Peeked::Directory => Some((path, BaseEntry::Directory)),
            Peeked::Symlink(target) => Some((path, BaseEntry::Symlink(target))),
            _ => None,
        })
        .collect();
    let json = canonical_json(&links);
    let line = format!("{}\n", Digest::of(&json).hex());
    fsio::create_dir_all(&documents_dir(environment))?;
    fsio::write_atomic(&path, &[line.as_bytes(), &json].concat())?;
    Ok(links)
}

/// What was kept, if it is sound: a line with the SHA-256 of what follows.
fn kept_links(path: &Path) -> Option<BTreeMap<String, BaseEntry>> {
    let bytes = fsio::read_limited(path, CONFIG_SIZE_MAX).ok()?;
    let newline = bytes.iter().position(|&byte| byte == b'\n')?;
    let (line, json) = (std::str::from_utf8(&bytes[..newline]).ok()?, &bytes[newline + 1..]);
    let sound = Digest::from_hex(line).ok()? == Digest::of(json);
    sound.then(|| serde_json::from_slice(json).ok())?
}

fn documents_dir(environment: &Environment<'_>) -> PathBuf {
    environment.caches_dir().join("bases")
}

/// Keeps a manifest or config by its digest.
pub(super) fn keep(bytes: &[u8], environment: &Environment<'_>) -> Result<(), ProjectError> {
    let dir = documents_dir(environment);
    fsio::create_dir_all(&dir)?;
    Ok(fsio::write_atomic(&dir.join(Digest::of(bytes).hex()), bytes)?)
}

/// One manifest of a place, which is asked only for what is not kept.
struct Pinned {
    place: String,
    location: Location,
    digest: Digest,
    platform: Platform,
    repository: Option<(String, String)>,
    offline: bool,
    dir: PathBuf,
    registries: RegistryConfig,
    /// An image that has the layers too.
    layers: Option<Arc<dyn Source>>,
    opened: OnceLock<Arc<dyn Source>>,
}

impl Pinned {
    /// The place itself; it must have what is pinned.
    fn source(&self) -> Result<&Arc<dyn Source>, TransportError> {
        if let Some(source) = self.opened.get() {
            return Ok(source);
        }
        if self.offline && self.repository.is_some() {
            return Err(TransportError::Unsupported {
                action: "ask offline for",
                place: self.place.clone(),
                instead: "leave out `--offline` once".to_owned(),
            });
        }
        let source: Arc<dyn Source> = Arc::from(self.location.source(&ReadOptions {
            platform: Some(self.platform.clone()),
            registries: self.registries.clone(),
            ..ReadOptions::default()
        })?);
        let actual = Digest::of(source.manifest()?.bytes());
        if actual != self.digest {
            return Err(TransportError::Unpinned {
                place: self.place.clone(),
                expected: self.digest,
                actual,
            });
        }
        Ok(self.opened.get_or_init(|| source))
    }

    fn kept(&self, digest: &Digest, limit: u64) -> Option<Vec<u8>> {
        let bytes = fsio::read_limited(&self.dir.join(digest.hex()), limit).ok()?;
        (Digest::of(&bytes) == *digest).then_some(bytes)
    }
}

impl Source for Pinned {
    fn place(&self) -> &str {
        &self.place
    }

    fn document(&self) -> Result<Document, TransportError> {
        // What is kept was read before; where it no longer can be, the place's own answer counts.
        let kept = self.kept(&self.digest, MANIFEST_SIZE_MAX);
        match kept.and_then(|bytes| Raw::read(bytes).ok()) {
            Some(manifest) => Ok(Document::Manifest(manifest)),
            None => self.source()?.document(),
        }
    }

    fn blob(&self, digest: &ContentDigest, size: u64) -> Result<Box<dyn Read + Send>, TransportError> {
        if size <= CONFIG_SIZE_MAX
            && let Some(bytes) = digest.sha256().and_then(|digest| self.kept(&digest, CONFIG_SIZE_MAX))
        {
            let reader = VerifyingReader::new(io::Cursor::new(bytes), *digest, Some(size));
            return Ok(Box::new(reader));
        }
        let of_image = self.layers.as_ref().and_then(|image| image.blob(digest, size).ok());
        of_image.map_or_else(|| self.source()?.blob(digest, size), Ok)
    }

    fn repository(&self) -> Option<(&str, &str)> {
        let (host, repository) = self.repository.as_ref()?;
        Some((host, repository))
    }
}
