//! The *names* an image is given: references with a tag and without a digest.
//!
//! Invariant: every name that reaches a sink is in normal form with its tag written out, and each is there once.

use super::TransportError;
use crate::oci::Reference;

/// A name with its tag, `latest` where none is written; a digest cannot be given to an image.
pub fn parse(text: &str) -> Result<Reference, TransportError> {
    let reference: Reference = text.parse()?;
    if reference.digest().is_some() {
        let reason = "a digest cannot be given to an image, it follows from its bytes";
        return Err(TransportError::Name {
            text: text.to_owned(),
            reason,
        });
    }
    let tag = reference.tag_or_default().to_owned();
    Ok(reference.with_tag(&tag)?)
}

/// Parses all names, or fails at the first that is none.
pub fn parse_all(names: &[String]) -> Result<Vec<Reference>, TransportError> {
    let mut parsed: Vec<Reference> = Vec::new();
    for name in names {
        let name = parse(name)?;
        if !parsed.contains(&name) {
            parsed.push(name);
        }
    }
    Ok(parsed)
}

/// Whether two texts are one name, short or in full.
pub fn same(a: &str, b: &str) -> bool {
    a == b || matches!((parse(a), parse(b)), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_tag_and_stand_once() {
        let names = [
            "hello",
            "hello:latest",
            "docker.io/library/hello",
            "registry.example/me/x:1",
        ]
        .map(str::to_owned);
        let parsed: Vec<String> = parse_all(&names).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(parsed, ["docker.io/library/hello:latest", "registry.example/me/x:1"]);
        assert_eq!(parse("hello").unwrap().familiar(), "hello:latest");
        assert!(same("hello", "docker.io/library/hello:latest") && !same("hello", "hello:1"));
    }

    #[test]
    fn what_cannot_name_an_image_is_refused() {
        let digest = format!("hello@sha256:{}", "0".repeat(64));
        assert!(matches!(parse(&digest), Err(TransportError::Name { .. })));
        for text in ["", "Hello", "a b", "a:b:c", "-a", "docker://a"] {
            assert!(matches!(parse(text), Err(TransportError::Reference(_))), "{text}");
        }
    }
}
