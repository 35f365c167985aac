//! What the *headers* of a request say of the answer that is wanted (RFC 9110).
//!
//! Invariant: what cannot be understood is as if it were not there, as the RFC has it. Pure.

use hyper::HeaderMap;
use hyper::header::{ACCEPT, HeaderName, IF_NONE_MATCH, IF_RANGE, RANGE};

use crate::digest::ContentDigest;

/// A part of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// `len` bytes, at least one, from byte `at` on.
    Range { at: u64, len: u64 },
    /// There are no such bytes.
    Nowhere,
}

/// Whether a client takes a media type; one that does not say takes anything.
pub(super) fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    let mut said = false;
    for range in elements(headers, &ACCEPT) {
        said = true;
        let range = range.split(';').next().unwrap_or_default().trim();
        let above = range.strip_suffix("/*");
        let is_above = above.is_some_and(|kind| kind == "*" || media_type.split('/').next() == Some(kind));
        if is_above || range.eq_ignore_ascii_case(media_type) {
            return true;
        }
    }
    !said
}

/// Whether a client has the content of that digest already.
pub(super) fn has(headers: &HeaderMap, digest: &ContentDigest) -> bool {
    elements(headers, &IF_NONE_MATCH).any(|tag| tag == "*" || is_tag_of(tag, digest))
}

/// The part of a blob of `size` bytes that a client wants. Of several parts none is taken: they would be an answer of another
/// type, which no client of registries reads.
pub(super) fn part(headers: &HeaderMap, digest: &ContentDigest, size: u64) -> Part {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let is_other = text(IF_RANGE).is_some_and(|tag| !is_tag_of(tag, digest));
    let range = text(RANGE)
        .filter(|_| !is_other)
        .and_then(|range| range.trim().strip_prefix("bytes="));
    let Some((first, last)) = range.and_then(|range| range.split_once('-')) else {
        return Part::Whole;
    };
    let (first, last) = (first.trim(), last.trim());
    let number = |text: &str| match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that is too large is beyond every end.
        true => Some(text.parse().unwrap_or(u64::MAX)),
        false => None,
    };
    let (first, last) = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => (first, last),
        (Some(first), None) if last.is_empty() => (first, u64::MAX),
        (None, Some(count)) if first.is_empty() => match count.min(size) {
            0 => return Part::Nowhere,
            count => (size - count, u64::MAX),
        },
        _ => return Part::Whole,
    };
    match first < size {
        true => Part::Range {
            at: first,
            len: last.min(size - 1) - first + 1,
        },
        false => Part::Nowhere,
    }
}

fn is_tag_of(tag: &str, digest: &ContentDigest) -> bool {
    let tag = tag.trim();
    tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"') == digest.to_string()
}

/// What stands between the commas of all headers of that name.
fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;
    use crate::digest::Digest;
    use crate::oci::MediaType;

    fn with(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_part_is_where_the_rfc_has_it() {
        let digest = Digest::of(b"blob").into();
        let part = |range: &str| part(&with(&[(RANGE, range)]), &digest, 10);
        let range = |at, len| Part::Range { at, len };
        for (text, expected) in [
            ("bytes=0-0", range(0, 1)),
            ("bytes=0-", range(0, 10)),
            ("bytes=3-5", range(3, 3)),
            ("bytes=3-99", range(3, 7)),
            ("bytes=9-99999999999999999999999", range(9, 1)),
            ("bytes=-3", range(7, 3)),
            ("bytes=-99", range(0, 10)),
            ("bytes=10-", Part::Nowhere),
            ("bytes=10-12", Part::Nowhere),
            ("bytes=99999999999999999999999-", Part::Nowhere),
            ("bytes=-0", Part::Nowhere),
            ("bytes=5-3", Part::Whole),
            ("bytes=1-2,4-5", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("bytes=1-b", Part::Whole),
            ("bytes=--1", Part::Whole),
            ("bytes=-", Part::Whole),
            ("lines=1-2", Part::Whole),
            ("1-2", Part::Whole),
        ] {
            assert_eq!(part(text), expected, "{text}");
        }
        assert_eq!(super::part(&HeaderMap::new(), &digest, 10), Part::Whole);
        assert_eq!(super::part(&with(&[(RANGE, "bytes=0-")]), &digest, 0), Part::Nowhere);
    }

    #[test]
    fn a_part_is_of_the_content_that_the_client_began_with() {
        let digest: ContentDigest = Digest::of(b"blob").into();
        let part = |tag: &str| part(&with(&[(RANGE, "bytes=5-"), (IF_RANGE, tag)]), &digest, 10);
        assert_eq!(part(&format!("\"{digest}\"")), Part::Range { at: 5, len: 5 });
        assert_eq!(part("\"another\""), Part::Whole);
    }

    #[test]
    fn types_are_taken_as_clients_write_them() {
        let of = |accept: &[&str]| {
            let pairs: Vec<_> = accept.iter().map(|&value| (ACCEPT, value)).collect();
            accepts(&with(&pairs), MediaType::MANIFEST)
        };
        assert!(of(&[]) && of(&["*/*"]) && of(&["application/*"]));
        assert!(of(&[
            "application/json, application/vnd.oci.image.manifest.v1+json;q=0.5"
        ]));
        assert!(of(&["text/html", "application/vnd.oci.image.manifest.v1+json"]));
        assert!(!of(&["application/vnd.docker.distribution.manifest.v2+json, text/*"]) && !of(&["image/*"]));
    }

    #[test]
    fn what_a_client_has_is_told_by_its_digest() {
        let digest: ContentDigest = Digest::of(b"blob").into();
        let has = |tags: &str| has(&with(&[(IF_NONE_MATCH, tags)]), &digest);
        assert!(has("*") && has(&format!("\"{digest}\"")) && has(&format!("\"x\", W/\"{digest}\"")));
        assert!(!has("\"x\"") && !has(""));
    }
}
