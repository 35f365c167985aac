//! The *registry sink*: a repository as a place that an image is written to.
//!
//! Invariant: the location alone says where the image goes; other names of the image are names in archives.

use std::sync::{Mutex, OnceLock};

use super::outcome::{IndexDocument, Planned, PushOptions, PushSummary};
use super::push::Pusher;
use super::{RegistryConfig, RemoteImage};
use crate::digest::Digest;
use crate::event::{Event, Reporter};
use crate::http::wire::lock;
use crate::image::{Image, ImageIndex};
use crate::oci::Reference;
use crate::transport::{Companion, ReadOptions, Sink, Source, Stored, Supply, Tally, Transferred, TransportError};

/// Pushes images to one reference.
pub struct RegistrySink<'a> {
    config: RegistryConfig,
    target: Reference,
    options: PushOptions,
    reporter: &'a dyn Reporter,
    tally: Tally,
    /// Made when it is first needed; what it has learned of the registry serves all that is written there.
    pusher: OnceLock<Pusher<'a>>,
    /// The image that was under the name before the last push.
    replaced: Mutex<Option<Digest>>,
}

impl<'a> RegistrySink<'a> {
    /// A sink for `name` (`REGISTRY/REPOSITORY[:TAG]`); nobody is asked yet.
    pub fn new(name: &str, config: &RegistryConfig, reporter: &'a dyn Reporter) -> Result<Self, TransportError> {
        let target: Reference = name.parse()?;
        let target = match (target.tag(), target.digest()) {
            (None, None) => target.with_tag(target.tag_or_default())?,
            _ => target,
        };
        Ok(Self {
            config: config.clone(),
            target,
            options: PushOptions::default(),
            reporter,
            tally: Tally::default(),
            pusher: OnceLock::new(),
            replaced: Mutex::default(),
        })
    }

    /// With other options. Of a dry run each request that would be made is reported.
    pub fn options(mut self, options: PushOptions) -> Self {
        self.options = options;
        self
    }

    fn push(&self, images: &[&Image], indexes: &[IndexDocument<'_>]) -> Result<(), TransportError> {
        let summary = self.pusher()?.push(&self.target, images, indexes, &[])?;
        *lock(&self.replaced) = summary.replaced;
        self.tell_plan(&summary);
        let planned: u64 = summary.plan.iter().map(|planned| planned.bytes).sum();
        let dry_run = self.options.dry_run;
        self.tally.wrote(if dry_run { planned } else { summary.bytes_sent });
        self.tally.skipped(summary.bytes_skipped + summary.bytes_mounted);
        if !dry_run {
            self.reporter.report(pushed(&summary));
        }
        Ok(())
    }

    fn pusher(&self) -> Result<&Pusher<'a>, TransportError> {
        if let Some(pusher) = self.pusher.get() {
            return Ok(pusher);
        }
        let pusher = Pusher::new(&self.config, &self.options, self.reporter)?;
        Ok(self.pusher.get_or_init(|| pusher))
    }

    /// Reports what a dry run would have done.
    fn tell_plan(&self, summary: &PushSummary) {
        for Planned { request, bytes } in &summary.plan {
            let text = match bytes {
                0 => request.clone(),
                bytes => format!("{request} ({bytes} bytes)"),
            };
            self.reporter.report(Event::Note { text });
        }
    }
}

impl Sink for RegistrySink<'_> {
    fn put(&self, image: &Image, _: &[String]) -> Result<Digest, TransportError> {
        self.push(&[image], &[])?;
        Ok(image.digest())
    }

    fn put_index(&self, index: &ImageIndex, _: &[String]) -> Result<Digest, TransportError> {
        let documents = index.indexes().into_iter().map(|index| IndexDocument {
            bytes: index.document.bytes(),
            media_type: index.document.media_type(),
        });
        self.push(&index.images(), &documents.collect::<Vec<_>>())?;
        Ok(index.digest())
    }

    fn put_companion(&self, companion: &Companion, supply: &Supply<'_>) -> Result<Stored, TransportError> {
        let replaced = *lock(&self.replaced);
        let pusher = self.pusher()?;
        let summary = pusher.put_companion(&self.target, companion, replaced.as_ref(), supply)?;
        self.tell_plan(&summary);
        Ok(Stored {
            requests: summary.requests,
            blobs_sent: summary.blobs_sent,
            bytes_sent: summary.blob_bytes_sent,
            blobs_there: summary.blobs_skipped + summary.blobs_mounted,
            bytes_there: summary.bytes_skipped + summary.bytes_mounted,
        })
    }

    fn current(&self, _: &[String]) -> Result<Vec<(String, Digest)>, TransportError> {
        let options = ReadOptions {
            whole: true,
            registries: self.config.clone(),
            ..ReadOptions::default()
        };
        let name = self.target.to_string();
        match RemoteImage::open(&name, &options) {
            Ok(image) => Ok(vec![(name, Digest::of(image.document()?.bytes()))]),
            Err(TransportError::Missing { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn transferred(&self) -> Transferred {
        self.tally.total()
    }
}

/// The event that tells of a push.
fn pushed(summary: &PushSummary) -> Event {
    Event::Pushed {
        references: summary.references.clone(),
        digest: summary.digest.map(|digest| digest.to_string()).unwrap_or_default(),
        requests: summary.requests,
        sent: summary.bytes_sent,
        skipped: summary.bytes_skipped,
        mounted: summary.bytes_mounted,
        milliseconds: summary.milliseconds,
    }
}
