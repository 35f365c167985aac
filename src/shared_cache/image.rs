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
            registries: oci.registries().clone(),
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
    /// layers, each with its registry's host: a registry takes them from there.
    pub fn publish_image(
        &self,
        key: &Digest,
        made: &MadeImage,
        signers: &Signers,
        now: Option<i64>,
        beside: &[(String, String)],
        reporter: &dyn Reporter,
    ) -> Result<(), SharedCacheError> {
        let MadeImage { image, walls } = made;
        // One that cannot be read is written anew.
        let held = self.held_image(key, made, signers).unwrap_or_default();
        let held = held.filter(|_| !self.is_damaged(key));
        if held.is_some_and(|held| !age::is_stale(&held.annotations, now)) {
            return Ok(());
        }
        let statement = Statement::Image {
            key,
            image: &image.digest(),
            walls: *walls,
        };
        let index = ImageIndex::new(vec![image.clone()], age::dated(statement.signed(&signers.keys), now));
        let index = index.map_err(|source| SharedCacheError::Index { source })?;
        self.sink(&image_tag(key), beside, reporter)?.put_index(&index, &[])?;
        Ok(())
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
        let held = self.held_image(key, made, signers)?;
        let Some(held) = held.filter(|held| age::is_stale(&held.annotations, Some(now))) else {
            return Ok(false);
        };
        if let PlaceKind::Oci(oci) = &self.kind {
            oci.put_document(&image_tag(key), &age::renewed(&Document::Index(held), now)?)?;
        }
        Ok(true)
    }

    /// The index of an image under its key, where there is one that these signers need not write again: one that was built
    /// behind stronger walls stays.
    fn held_image(
        &self,
        key: &Digest,
        made: &MadeImage,
        signers: &Signers,
    ) -> Result<Option<Raw<Index>>, SharedCacheError> {
        let PlaceKind::Oci(oci) = &self.kind else {
            return Ok(None);
        };
        let Some(Document::Index(index)) = oci.document(&image_tag(key))? else {
            return Ok(None);
        };
        let image = made.image.digest();
        let Ok(walls) = walls_in(&index.annotations) else {
            return Ok(None);
        };
        let is_alone = index.unknown.is_empty() && matches!(&index.manifests[..], [listed] if image == listed.digest);
        let statement = Statement::Image {
            key,
            image: &image,
            walls,
        };
        let is_believed = walls >= made.walls && signers.trust().check(&statement, &index.annotations).is_ok();
        Ok(Some(index).filter(|_| is_alone && is_believed))
    }
}
