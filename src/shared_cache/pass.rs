//! *Passing on*: an entry of one place written to another, without what it holds being made or unpacked here.
//!
//! Invariant: what is passed on is believed here, says what it said, and keeps the signatures that it had; one's own stand
//! under what somebody trusted has signed, and under nothing else.

use std::sync::Arc;

use super::entry::{ENTRY_TYPE, Entry};
use super::error::SharedCacheError;
use super::place::{CachePlace, PlaceKind};
use super::read::{believed, read_config};
use super::trust::{CacheTrust, Statement};
use super::write::{Held, Signers};
use super::{age, build_tag, plan_tag};
use crate::digest::Digest;
use crate::event::Reporter;
use crate::image::Image;
use crate::oci::Raw;
use crate::transport::{self, Companion, Content, ReadOptions, Source};

impl CachePlace {
    /// Writes the entry that another place has of a step, dated `now`; false where there is nothing to be written, or it is not
    /// believed. Binary caches neither give entries so nor take them: they hold other bytes.
    pub fn take_over(
        &self,
        from: &Self,
        plan_key: &Digest,
        trust: &CacheTrust,
        (signers, now): (&Signers, Option<i64>),
        reporter: &dyn Reporter,
    ) -> Result<bool, SharedCacheError> {
        let (PlaceKind::Oci(_), PlaceKind::Oci(source)) = (&self.kind, &from.kind) else {
            return Ok(false);
        };
        let held = match self.has(plan_key, signers, now)? {
            Held::Current | Held::Stale(_) => return Ok(false),
            Held::Others(held) => Some(held),
            Held::Lacking => None,
        };
        let tag = plan_tag(plan_key);
        let options = ReadOptions {
            whole: true,
            registries: source.asked().clone(),
            ..ReadOptions::default()
        };
        let opened: Arc<dyn Source> = match source.tagged(&tag)?.source(&options) {
            Ok(opened) => Arc::from(opened),
            Err(error) if error.is_absence() => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let Content::Image(image) = transport::open(&opened)? else {
            return Ok(false);
        };
        let Some(manifest) = source
            .manifest(&tag)?
            .filter(|found| found.digest() == image.manifest.digest())
        else {
            return Ok(false);
        };
        let Ok(config) = believed(&manifest, trust) else {
            return Ok(false);
        };
        let statement = Statement::Build(&config);
        if !signers.keys.is_empty() && trust.check_signed(&statement, &manifest.annotations).is_err() {
            return Ok(false);
        }
        let bytes = read_config(source, &config, manifest.config.size)?;
        let entry = Entry::parse(&bytes).map_err(|reason| from.refused(&tag, reason))?;
        let mut passed = (*manifest).clone();
        let there = held.as_ref().and_then(|held| held.says(&bytes));
        let others = [Some(&passed.annotations), there].into_iter().flatten();
        passed.annotations = age::dated(statement.signed(&signers.keys, others), now);
        let manifest = Raw::write(passed).map_err(|source| SharedCacheError::TooLarge {
            output: entry.output.clone(),
            source,
        })?;
        let companion = Companion {
            artifact: Image { manifest, ..image },
            artifact_type: ENTRY_TYPE,
            subject: None,
            anchor: entry.build_key().as_ref().map_or_else(|| tag.clone(), build_tag),
            tag,
            // An entry takes nobody's place.
            tag_of: plan_tag,
        };
        let sink = self.sink(&companion.tag, &[], reporter)?;
        sink.put_companion(&companion, &|_| Ok(()))?;
        Ok(true)
    }
}
