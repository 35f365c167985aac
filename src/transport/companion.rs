//! A *companion* is an artifact that stands beside an image under a name of its own: a manifest that shares most of its
//! blobs with those of other images.
//!
//! Invariant: a companion never changes what an image's name stands for.

use std::error::Error;

use crate::digest::{ContentDigest, Digest};
use crate::image::Image;
use crate::oci::Subject;

/// An artifact to be stored beside an image.
#[derive(Debug, Clone)]
pub struct Companion {
    /// Its manifest, config and blobs, in the form that transports write.
    pub artifact: Image,
    /// What kind of artifact it is: a media type.
    pub artifact_type: &'static str,
    /// What it is about; `None` where it stands for itself.
    pub subject: Option<Subject>,
    /// Its own name in the layout or repository: a tag.
    pub tag: String,
    /// The name that all with the same blobs share. It stands for the first of them and is not moved; what that one
    /// names is known to be there.
    pub anchor: String,
    /// The name that the companion of an image has in the same place, for an image that another replaces.
    pub tag_of: fn(&Digest) -> String,
}

/// What storing a companion took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Stored {
    /// HTTP requests, those to token servers among them.
    pub requests: u64,
    /// Blobs that were sent or copied, in a dry run those that would be.
    pub blobs_sent: u64,
    /// Bytes of these blobs.
    pub bytes_sent: u64,
    /// Blobs that were there, or that the registry took from another of its repositories.
    pub blobs_there: u64,
    /// Bytes of these blobs.
    pub bytes_there: u64,
}

/// Makes the bytes of these blobs readable where the companion says that they are. Called once, with what a place lacks.
pub type Supply<'a> = dyn Fn(&[ContentDigest]) -> Result<(), Box<dyn Error + Send + Sync>> + 'a;
