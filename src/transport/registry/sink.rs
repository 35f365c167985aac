//! The *registry sink*: a repository as a place that an image is written to.
//!
//! Invariant: the location alone says where the image goes; other names of the image are names in archives.

use super::RegistryConfig;
use super::outcome::{PushOptions, PushSummary};
use super::push::push;
use crate::digest::Digest;
use crate::event::{Event, Reporter};
use crate::image::Image;
use crate::oci::Reference;
use crate::transport::{Sink, TransportError};

/// Pushes images to one reference.
pub struct RegistrySink<'a> {
    config: RegistryConfig,
    target: Reference,
    reporter: &'a dyn Reporter,
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
            reporter,
        })
    }
}

impl Sink for RegistrySink<'_> {
    fn put(&self, image: &Image, _: &[String]) -> Result<Digest, TransportError> {
        let options = PushOptions::default();
        let summary = push(&self.config, &self.target, &[image], None, &[], &options, self.reporter)?;
        self.reporter.report(pushed(&summary));
        Ok(image.digest)
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
