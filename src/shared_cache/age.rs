//! *Dates* of entries: when a writer last had use for one, so that what nobody uses can be told from what is used.
//!
//! Invariant: nothing that is signed has a date in it, and what an entry says is the same whatever its date.

use crate::digest::Digest;
use crate::image;
use crate::oci::{Annotations, Document, canonical_json};

use super::error::SharedCacheError;

/// The annotation of the date: RFC 3339, UTC, whole seconds.
const CREATED: &str = "org.opencontainers.image.created";

/// Seconds after which a date is written anew.
const RENEWED_AFTER: i64 = 24 * 60 * 60;

/// Seconds since 1970 of the date in these annotations.
pub(super) fn date_of(annotations: &Annotations) -> Option<i64> {
    image::parse_time(annotations.get(CREATED)?)
}

/// With the date of `now`, where that is known.
pub(super) fn dated(mut annotations: Annotations, now: Option<i64>) -> Annotations {
    if let Some(date) = now.and_then(image::format_time) {
        annotations.insert(CREATED.to_owned(), date);
    }
    annotations
}

/// Whether a date is to be written anew.
pub(super) fn is_stale(annotations: &Annotations, now: Option<i64>) -> bool {
    now.is_some_and(|now| date_of(annotations).is_none_or(|date| now.saturating_sub(date) > RENEWED_AFTER))
}

/// The same document with the date of `now`.
pub(super) fn renewed(document: &Document, now: i64) -> Result<Document, SharedCacheError> {
    let mut value = match document {
        Document::Manifest(manifest) => manifest.json(),
        Document::Index(index) => index.json(),
    };
    if let Some(date) = image::format_time(now) {
        value["annotations"][CREATED] = date.into();
    }
    let bytes = canonical_json(&value);
    let digest = Digest::of(&bytes);
    let read = Document::read(bytes, document.media_type(), Some(digest.into()));
    read.map_err(|source| SharedCacheError::Date { source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Descriptor, Manifest, Raw};

    #[test]
    fn a_day_is_how_long_a_date_lasts_and_what_has_none_gets_one() {
        let (day, now) = (RENEWED_AFTER, 1_700_000_000);
        let at = |seconds| dated(Annotations::new(), Some(seconds));
        assert!(!is_stale(&at(now - day), Some(now)));
        assert!(is_stale(&at(now - day - 1), Some(now)));
        assert!(!is_stale(&at(now + 100 * day), Some(now)), "it would go back");
        assert!(is_stale(&Annotations::new(), Some(now)));
        assert!(!is_stale(&Annotations::new(), None), "there is nothing to write");
        let odd = Annotations::from([(CREATED.to_owned(), "yesterday".to_owned())]);
        assert_eq!(date_of(&odd), None);
    }

    #[test]
    fn a_new_date_changes_nothing_else() {
        let config = Descriptor::new("application/vnd.example", Digest::of(b"config"), 6);
        let annotations = Annotations::from([("dev.layerize.signatures".to_owned(), "a:b".to_owned())]);
        let manifest = Manifest::new(config, Vec::new(), dated(annotations, Some(1)));
        let old = Document::Manifest(Raw::write(manifest.clone()).unwrap());
        let Document::Manifest(new) = renewed(&old, 86_400).unwrap() else {
            panic!("it is a manifest");
        };
        assert_eq!(date_of(&new.annotations), Some(86_400));
        assert_eq!(new.annotations["dev.layerize.signatures"], "a:b");
        assert_eq!(new.config, manifest.config);
    }
}
