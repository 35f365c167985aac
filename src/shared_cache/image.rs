//! *Images* of a shared cache: found by all that they are asked for, before anything of them is built.
//!
//! Invariant: the index under a key's tag lists one image; that this is the key's image is what is signed.

use std::sync::Arc;

use super::error::SharedCacheError;
use super::place::{CachePlace, PlaceKind};
use super::trust::{CacheTrust, Statement, walls_in};
use super::write::Signers;
use super::{SharedCache, age, image_tag};
use crate::digest::Digest;
use crate::event::Reporter;
use crate::image::{Image, ImageIndex, Listed};
use crate::oci::{Document, Index, Raw};
use crate::transport::{self, Content, ReadOptions, Source};
use crate::walls::Walls;

/// An image that was made of what somebody asks for.
pub struct MadeImage {
    /// The image.
    pub image: Image,
    /// What the weakest of what it is made of was built behind.
    pub walls: Walls,
}

impl SharedCache {
    /// The image that was made of what `key` is the hash of, with the place that has it; what is not believed is told.
    pub fn image(&self, key: &Digest, reporter: &dyn Reporter) -> Option<(MadeImage, &CachePlace)> {
        for place in self.places.iter().filter(|place| place.answers()) {
            match place.image(key, &self.trust) {
                Ok(Some(image)) => return Some((image, place)),
                Ok(None) => {}
                Err(error) => {
                    place.note(&error);
                    place.warn("the image is made here:", &error, reporter);
                }
            }
        }
        None
    }
}

impl CachePlace {
    fn image(&self, key: &Digest, trust: &CacheTrust) -> Result<Option<MadeImage>, SharedCacheError> {
        let tag = image_tag(key);
        let refused = |reason: String| self.refused(&tag, reason);
        let PlaceKind::Oci(oci) = &self.kind else {
            return Ok(None);
        };
        let options = ReadOptions {
            whole: true,
            registries: oci.asked().clone(),
            ..ReadOptions::default()
        };
        if !oci.exists() {
            return Ok(None);
        }
        let source: Arc<dyn Source> = match oci.tagged(&tag)?.source(&options) {
            Ok(source) => Arc::from(source),
            Err(error) if error.is_absence() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Content::Index(index) = transport::open(&source)? else {
            return Err(refused("it is not an index".to_owned()));
        };
        let [Listed::Image(image)] = index.entries.as_slice() else {
            return Err(refused("it does not list one image".to_owned()));
        };
        let annotations = &index.document.annotations;
        let walls = walls_in(annotations).map_err(refused)?;
        let statement = Statement::Image {
            key,
            image: &image.digest(),
            walls,
        };
        trust.check(&statement, annotations).map_err(refused)?;
        trust.check_walls(walls).map_err(refused)?;
        Ok(Some(MadeImage {
            image: image.clone(),
            walls,
        }))
    }

    /// Keeps an image under the hash of all that it was asked for, dated `now`. `beside` are repositories that have its
    /// layers, each with its registry's host: a registry takes them from there. False where it is there already.
    pub fn publish_image(
        &self,
        key: &Digest,
        made: &MadeImage,
        signers: &Signers,
        now: Option<i64>,
        beside: &[(String, String)],
        reporter: &dyn Reporter,
    ) -> Result<bool, SharedCacheError> {
        let MadeImage { image, walls } = made;
        // One that cannot be read is written anew.
        let held = self.listed_image(key, image).unwrap_or_default();
        let held = held.filter(|_| !self.is_damaged(key));
        if held.as_ref().is_some_and(|(held, at)| {
            is_enough(held, *at, key, made, signers) && !age::is_stale(&held.annotations, now)
        }) {
            return Ok(false);
        }
        // What others signed stays, where it is the same.
        let same = held.as_ref().filter(|(_, at)| at == walls);
        let same = same.map(|(held, _)| &held.annotations);
        let statement = Statement::Image {
            key,
            image: &image.digest(),
            walls: *walls,
        };
        let index = ImageIndex::new(
            vec![image.clone()],
            age::dated(statement.signed(&signers.keys, same), now),
        );
        let index = index.map_err(|source| SharedCacheError::Index { source })?;
        self.sink(&image_tag(key), beside, reporter)?.put_index(&index, &[])?;
        Ok(true)
    }

    /// Writes an image's index that is there and whose date is of another day again, with the date of `now`; false where
    /// there is none, or its date is young: then its steps were in use on the same day.
    pub fn renew_image(
        &self,
        key: &Digest,
        made: &MadeImage,
        signers: &Signers,
        now: i64,
    ) -> Result<bool, SharedCacheError> {
        if !self.keeps_images() {
            // There is nothing that would tell when its steps were last in use.
            return Ok(true);
        }
        let held = self.listed_image(key, &made.image)?;
        let held = held.filter(|(held, at)| is_enough(held, *at, key, made, signers));
        let Some((held, _)) = held.filter(|(held, _)| age::is_stale(&held.annotations, Some(now))) else {
            return Ok(false);
        };
        if let PlaceKind::Oci(oci) = &self.kind {
            oci.put_document(&image_tag(key), &age::renewed(&Document::Index(held), now)?)?;
        }
        Ok(true)
    }

    /// The index under an image's key, where it lists that image and nothing else, with what it says that this was built behind.
    fn listed_image(&self, key: &Digest, image: &Image) -> Result<Option<(Raw<Index>, Walls)>, SharedCacheError> {
        let PlaceKind::Oci(oci) = &self.kind else {
            return Ok(None);
        };
        let Some(Document::Index(index)) = oci.document(&image_tag(key))? else {
            return Ok(None);
        };
        let Ok(walls) = walls_in(&index.annotations) else {
            return Ok(None);
        };
        let image = image.digest();
        let is_alone = index.unknown.is_empty() && matches!(&index.manifests[..], [listed] if image == listed.digest);
        Ok(is_alone.then_some((index, walls)))
    }
}

/// Whether these signers need not write an image's index again: one that was built behind stronger walls stays.
fn is_enough(index: &Raw<Index>, walls: Walls, key: &Digest, made: &MadeImage, signers: &Signers) -> bool {
    let statement = Statement::Image {
        key,
        image: &made.image.digest(),
        walls,
    };
    walls >= made.walls && signers.trust().check(&statement, &index.annotations).is_ok()
}
