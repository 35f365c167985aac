//! *Reading*: entries looked up by their keys, and paths taken out of layers.
//!
//! Invariant: a place that is down, or an entry that is damaged or not believed, is told and passed over.

use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::entry::{ENTRY_SIZE_MAX, ENTRY_TYPE, Entry, Holding};
use super::error::SharedCacheError;
use super::place::{CachePlace, OciPlace, PlaceKind};
use super::trust::{CacheTrust, Statement};
use super::{SharedCache, build_tag, plan_tag};
use crate::build::{Asked, Offer, SharedBuilds};
use crate::digest::{Digest, VerifyingReader};
use crate::event::Reporter;
use crate::fetch;
use crate::fsio::IoContext;
use crate::oci::{Manifest, Raw};
use crate::parallel;
use crate::store_path::StorePath;
use crate::transport::TransportError;

/// How many entries are asked for at once.
const THREADS: usize = 8;

/// Directories above a store path in a layer: `layerize/store`.
const ABOVE: u32 = 2;

impl SharedBuilds for SharedCache {
    fn look_up(&self, steps: &[Asked], reporter: &dyn Reporter) -> Vec<Option<Offer>> {
        let found = parallel::map(steps, THREADS, |asked| {
            Ok::<_, std::convert::Infallible>(self.look_up_one(asked, reporter))
        });
        match found {
            Ok(offers) => offers,
            Err(never) => match never {},
        }
    }

    fn fetch(&self, offer: &Offer, path: &StorePath, dest: &Path) -> Result<(), Box<dyn Error + Send + Sync>> {
        let place = self.places.iter().find(|place| place.name() == offer.place);
        let member = offer.members.get(path);
        let built = member.and_then(|member| Some((&member.info, member.built.as_ref()?)));
        let (Some(place), Some((info, built))) = (place, built) else {
            unreachable!("what is offered comes from one of the places, and only what was built is fetched");
        };
        let fetched = match &place.kind {
            PlaceKind::Oci(oci) => unpack(oci, &built.blob, built.size, path, dest),
            PlaceKind::Nix(nix) => nix.restore(info, dest),
        };
        Ok(fetched?)
    }

    fn note_damage(&self, offer: &Offer) {
        let place = self.places.iter().find(|place| place.name() == offer.place);
        let output = offer.members.get(&offer.output);
        if let (Some(place), Some(key)) = (place, output.and_then(|output| output.plan_key)) {
            place.note_damage(&key);
        }
    }
}

impl SharedCache {
    fn look_up_one(&self, asked: &Asked, reporter: &dyn Reporter) -> Option<Offer> {
        let tags = [Some(plan_tag(&asked.plan_key)), asked.build_key.as_ref().map(build_tag)];
        for place in self.places.iter().filter(|place| place.answers()) {
            for tag in tags.iter().flatten() {
                match read_entry(place, tag, asked, &self.trust) {
                    Ok(Some(offer)) => return Some(offer),
                    Ok(None) => {}
                    // Somebody else has told meanwhile.
                    Err(_) if !place.answers() => break,
                    Err(error) => {
                        place.note(&error);
                        place.warn(&format!("`{}` is built here:", asked.label), &error, reporter);
                        break;
                    }
                }
            }
        }
        None
    }
}

/// The entry under a tag, checked and believed; `None` where there is none.
fn read_entry(
    place: &CachePlace,
    tag: &str,
    asked: &Asked,
    trust: &CacheTrust,
) -> Result<Option<Offer>, SharedCacheError> {
    let refused = |reason: String| place.refused(tag, reason);
    let (offer, vouched) = match &place.kind {
        PlaceKind::Oci(oci) => {
            let Some(manifest) = oci.manifest(tag)? else {
                return Ok(None);
            };
            let digest = believed(&manifest, trust).map_err(refused)?;
            let config = read_config(oci, &digest, manifest.config.size)?;
            let entry = Entry::parse(&config).map_err(refused)?;
            let vouched = trust.check_signed(&Statement::Build(&digest), &manifest.annotations);
            (entry.offer(&Holding::Layers(&manifest), asked, place.name()), vouched)
        }
        PlaceKind::Nix(nix) => {
            let Some(record) = nix.record(tag)? else {
                return Ok(None);
            };
            let record = record.map_err(refused)?;
            record.check(trust).map_err(refused)?;
            let vouched = record.check_signed(trust);
            (record.entry.offer(&Holding::Archives, asked, place.name()), vouched)
        }
    };
    let offer = Offer {
        vouched: vouched.is_ok(),
        ..offer.map_err(refused)?
    };
    let built = offer.members.values().filter_map(|member| member.built.as_ref());
    if let Some(weakest) = built.map(|built| built.walls).min() {
        trust.check_walls(weakest).map_err(refused)?;
    }
    Ok(Some(offer))
}

/// The digest of the config of an entry that is believed; or why it is not.
pub(super) fn believed(manifest: &Raw<Manifest>, trust: &CacheTrust) -> Result<Digest, String> {
    if manifest.artifact_type.as_deref() != Some(ENTRY_TYPE) || manifest.config.media_type != ENTRY_TYPE {
        return Err(format!("it is not of the type `{ENTRY_TYPE}`"));
    }
    if manifest.config.size > ENTRY_SIZE_MAX {
        return Err(format!("it is larger than {ENTRY_SIZE_MAX} bytes"));
    }
    let digest = manifest.config.digest.sha256();
    let digest = digest.ok_or_else(|| format!("its config `{}` is not named by a SHA-256", manifest.config.digest))?;
    trust.check(&Statement::Build(&digest), &manifest.annotations)?;
    Ok(digest)
}

pub(super) fn read_config(place: &OciPlace, digest: &Digest, size: u64) -> Result<Vec<u8>, SharedCacheError> {
    let mut config = Vec::new();
    let opened = open(place, digest, size)?;
    let read = io::Read::read_to_end(&mut VerifyingReader::new(opened, *digest, Some(size)), &mut config);
    read.map_err(|source| unreadable(place, digest, source))?;
    Ok(config)
}

fn open(place: &OciPlace, digest: &Digest, size: u64) -> Result<Box<dyn io::Read + Send>, SharedCacheError> {
    let missing = || SharedCacheError::Missing {
        place: place.name.clone(),
        digest: *digest,
    };
    place.blob(digest, size)?.ok_or_else(missing)
}

fn unreadable(place: &OciPlace, digest: &Digest, source: io::Error) -> SharedCacheError {
    SharedCacheError::Transport(TransportError::Read {
        place: place.name.clone(),
        what: format!("the blob `{digest}`"),
        source,
    })
}

/// Writes the tree of `path` that a layer holds to `dest`.
fn unpack(place: &OciPlace, digest: &Digest, size: u64, path: &StorePath, dest: &Path) -> Result<(), SharedCacheError> {
    let (blob, unpacked) = (dest.with_extension("layer"), dest.with_extension("unpacked"));
    let mut file = File::create_new(&blob).context("create", &blob)?;
    let opened = open(place, digest, size)?;
    let mut reader = VerifyingReader::new(opened, *digest, Some(size));
    io::copy(&mut reader, &mut file).map_err(|source| unreadable(place, digest, source))?;
    fetch::unpack_archive(&blob, &format!("the layer {digest}"), Some(ABOVE), &unpacked)?;
    fs::remove_file(&blob).context("remove", &blob)?;
    let name = path.to_string();
    let names = crate::fsio::sorted_names(&unpacked)?;
    if names.len() != 1 || names[0].to_str() != Some(&name) {
        return Err(SharedCacheError::OtherContent {
            digest: *digest,
            path: path.clone(),
        });
    }
    let tree = unpacked.join(&name);
    Ok(fs::rename(&tree, dest).context("rename", &tree)?)
}
