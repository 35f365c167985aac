//! The *registry sink*: a repository as a place that an image is written to.
//!
//! Invariant: the location alone says where the image goes; other names of the image are names in archives.

use super::outcome::{IndexDocument, Planned, PushOptions, PushSummary};
use super::push::push;
use super::{RegistryConfig, RemoteImage};
use crate::digest::Digest;
use crate::event::{Event, Reporter};
use crate::image::{Image, Index};
use crate::oci::Reference;
use crate::transport::{ReadOptions, Sink, Source, Tally, Transferred, TransportError};

/// Pushes images to one reference.
pub struct RegistrySink<'a> {
    config: RegistryConfig,
    target: Reference,
    options: PushOptions,
    reporter: &'a dyn Reporter,
    tally: Tally,
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
        })
    }

    /// With other options. Of a dry run each request that would be made is reported.
    pub fn options(mut self, options: PushOptions) -> Self {
        self.options = options;
        self
    }

    fn push(&self, images: &[&Image], index: Option<IndexDocument<'_>>) -> Result<(), TransportError> {
        let (config, options) = (&self.config, &self.options);
        let summary = push(config, &self.target, images, index, &[], options, self.reporter)?;
        for Planned { request, bytes } in &summary.plan {
            let text = match bytes {
                0 => request.clone(),
                bytes => format!("{request} ({bytes} bytes)"),
            };
            self.reporter.report(Event::Note { text });
        }
        let planned: u64 = summary.plan.iter().map(|planned| planned.bytes).sum();
        self.tally
            .wrote(if options.dry_run { planned } else { summary.bytes_sent });
        self.tally.skipped(summary.bytes_skipped + summary.bytes_mounted);
        if !options.dry_run {
            self.reporter.report(pushed(&summary));
        }
        Ok(())
    }
}

impl Sink for RegistrySink<'_> {
    fn put(&self, image: &Image, _: &[String]) -> Result<Digest, TransportError> {
        self.push(&[image], None)?;
        Ok(image.digest)
    }

    fn put_index(&self, index: &Index, _: &[String]) -> Result<Digest, TransportError> {
        let images: Vec<&Image> = index.images.iter().collect();
        let document = IndexDocument {
            bytes: &index.bytes,
            media_type: &index.media_type,
        };
        self.push(&images, Some(document))?;
        Ok(index.digest)
    }

    fn current(&self, _: &[String]) -> Result<Vec<(String, Digest)>, TransportError> {
        let options = ReadOptions {
            whole: true,
            registries: self.config.clone(),
            ..ReadOptions::default()
        };
        let name = self.target.to_string();
        match RemoteImage::open(&name, &options) {
            Ok(image) => Ok(vec![(name, Digest::of(&image.manifest()?.0))]),
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
