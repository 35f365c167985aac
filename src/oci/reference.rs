//! A *reference* names an image at a registry: `[registry/]repository[:tag][@digest]`.
//!
//! Invariant: normal form. A [`Reference`] always knows its registry and its whole repository (`nginx` is
//! `docker.io/library/nginx`, as every client reads it), and parsing what was printed gives the same value.
//!
//! The grammar is that of the distribution project, which the OCI distribution-spec's `<name>` and `<reference>` cut
//! down to path and tag:
//!
//! ```text
//! reference      ::= name [":" tag] ["@" digest]
//! name           ::= [registry "/"] component ("/" component)*
//! registry       ::= host [":" port]
//! host           ::= label ("." label)* | "[" IPv6 "]"
//! label          ::= [A-Za-z0-9] | [A-Za-z0-9] [A-Za-z0-9-]* [A-Za-z0-9]
//! port           ::= [0-9]+
//! component      ::= [a-z0-9]+ (separator [a-z0-9]+)*
//! separator      ::= "." | "_" | "__" | "-"+
//! tag            ::= [A-Za-z0-9_] [A-Za-z0-9_.-]{0,127}
//! ```

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;

/// The registry of a reference that names none.
pub const DEFAULT_REGISTRY: &str = "docker.io";

/// The tag of a reference that names neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";

/// Longest `registry/repository` in bytes, which many clients and registries refuse to exceed (distribution-spec).
pub const NAME_MAX: usize = 255;

const TAG_MAX: usize = 128;
const OFFICIAL: &str = "library/";

/// Where an image is at a registry. Ordered by registry, repository, tag, digest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A text that is no reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an image reference: {reason}")]
pub struct ReferenceError {
    /// What was to be parsed.
    pub text: String,
    /// Which rule it breaks.
    pub reason: &'static str,
}

impl ReferenceError {
    /// What to type instead, where that can be told.
    pub fn help(&self) -> Option<String> {
        let lower = self.text.to_lowercase();
        let (_, bare) = self.text.split_once("://").unwrap_or(("", &self.text));
        if bare != self.text && bare.parse::<Reference>().is_ok() {
            return Some(format!("leave the scheme out: `{bare}`"));
        }
        if lower != self.text && lower.parse::<Reference>().is_ok() {
            return Some(format!("write it in lower case: `{lower}`"));
        }
        Some("write `REGISTRY/REPOSITORY:TAG`, such as `registry.example/team/app:1.0`".to_owned())
    }
}

impl Reference {
    /// Host and port of the registry.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository at the registry, without its host: `library/nginx`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, where one was named.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, where one was named.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The tag named, else `latest`.
    pub fn tag_or_default(&self) -> &str {
        self.tag().unwrap_or(DEFAULT_TAG)
    }

    /// `registry/repository`, without tag and digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The same repository with this tag and no digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        check_tag(tag).map_err(|reason| ReferenceError {
            text: format!("{}:{tag}", self.familiar_name()),
            reason,
        })?;
        Ok(Self {
            tag: Some(tag.to_owned()),
            digest: None,
            ..self.clone()
        })
    }

    /// The same repository with this digest and no tag.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self {
            tag: None,
            digest: Some(digest),
            ..self.clone()
        }
    }

    /// The shortest text that parses to the same value: `nginx:1.25`.
    pub fn familiar(&self) -> String {
        let mut text = self.familiar_name().to_owned();
        self.push_tag_and_digest(&mut text);
        text
    }

    fn familiar_name(&self) -> String {
        match self.registry.as_str() {
            DEFAULT_REGISTRY => {
                let short = self
                    .repository
                    .strip_prefix(OFFICIAL)
                    .filter(|rest| !rest.contains('/'));
                let name = short.unwrap_or(&self.repository);
                // A repository whose first part looks like a host needs its registry, else it would become one.
                match name.split_once('/') {
                    Some((first, _)) if is_registry(first) => self.name(),
                    _ => name.to_owned(),
                }
            }
            _ => self.name(),
        }
    }

    fn push_tag_and_digest(&self, text: &mut String) {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        parse(text).map_err(|reason| ReferenceError {
            text: text.to_owned(),
            reason,
        })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.name();
        self.push_tag_and_digest(&mut text);
        f.write_str(&text)
    }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(parse_digest(digest)?)),
        None => (text, None),
    };
    let (name, tag) = split_tag(rest)?;
    if name.is_empty() {
        return Err("it has no repository");
    }
    if name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err("64 hexadecimal digits are an image ID, not a repository");
    }
    let (registry, path) = match name.split_once('/') {
        Some((first, path)) if is_registry(first) => (first, path),
        _ => (DEFAULT_REGISTRY, name),
    };
    check_registry(registry)?;
    check_path(path)?;
    let registry = if registry == "index.docker.io" {
        DEFAULT_REGISTRY
    } else {
        registry
    };
    let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
        format!("{OFFICIAL}{path}")
    } else {
        path.to_owned()
    };
    if registry.len() + 1 + repository.len() > NAME_MAX {
        return Err("registry and repository together are longer than 255 bytes");
    }
    Ok(Reference {
        registry: registry.to_owned(),
        repository,
        tag: tag.map(str::to_owned),
        digest,
    })
}

fn parse_digest(text: &str) -> Result<Digest, &'static str> {
    match text.split_once(':') {
        Some(("sha256", _)) => text
            .parse()
            .map_err(|_| "its digest must be `sha256:` and 64 lower-case hexadecimal digits"),
        Some(_) => Err("only sha256 digests are supported"),
        None => Err("what follows `@` must be a digest, `sha256:` and 64 hexadecimal digits"),
    }
}

/// A colon after the last slash begins the tag; one before it belongs to the registry's port.
fn split_tag(text: &str) -> Result<(&str, Option<&str>), &'static str> {
    let last = text.rfind('/').map_or(0, |slash| slash + 1);
    match text[last..].split_once(':') {
        None => Ok((text, None)),
        Some((component, tag)) => {
            check_tag(tag)?;
            Ok((&text[..last + component.len()], Some(tag)))
        }
    }
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    match tag.as_bytes() {
        [] => Err("its tag is empty"),
        bytes if bytes.len() > TAG_MAX => Err("its tag is longer than 128 bytes"),
        [first, rest @ ..] if word(*first) && rest.iter().all(|&byte| word(byte) || b".-".contains(&byte)) => Ok(()),
        _ => Err("its tag may hold letters, digits, `_`, `.` and `-`, and not start with `.` or `-`"),
    }
}

/// Docker's rule: the first part of a name is a registry if it could not be part of a repository on the default one.
fn is_registry(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn check_registry(registry: &str) -> Result<(), &'static str> {
    const MALFORMED: &str = "its registry is not a host name or address with an optional port";
    let (host, port) = match registry.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']').ok_or(MALFORMED)?;
            address.parse::<std::net::Ipv6Addr>().map_err(|_| MALFORMED)?;
            match after {
                "" => return Ok(()),
                _ => ("", Some(after.strip_prefix(':').ok_or(MALFORMED)?)),
            }
        }
        None => match registry.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (registry, None),
        },
    };
    let label = |label: &str| {
        let inner = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        !label.is_empty() && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    let host_is_fine = registry.starts_with('[') || host.split('.').all(label);
    let port_is_fine =
        port.is_none_or(|port| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok());
    if host_is_fine && port_is_fine {
        Ok(())
    } else {
        Err(MALFORMED)
    }
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err("a repository is in lower case");
    }
    if path.split('/').all(is_component) {
        return Ok(());
    }
    Err(
        "a repository's parts are made of `a-z0-9`, joined by `.`, `_`, `__` or dashes, and separated by single slashes",
    )
}

fn is_component(component: &str) -> bool {
    let mut rest = component;
    loop {
        let word = rest
            .bytes()
            .take_while(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9'))
            .count();
        if word == 0 {
            return false;
        }
        rest = &rest[word..];
        if rest.is_empty() {
            return true;
        }
        let separator = rest
            .bytes()
            .take_while(|byte| matches!(byte, b'.' | b'_' | b'-'))
            .count();
        let text = &rest[..separator];
        if !(matches!(text, "." | "_" | "__") || (separator > 0 && text.bytes().all(|byte| byte == b'-'))) {
            return false;
        }
        rest = &rest[separator..];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHA: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn references_are_normalised() {
        let with_digest = format!("nginx:1@{SHA}");
        let cases = [
            ("nginx", "docker.io/library/nginx", "nginx"),
            ("docker.io/nginx", "docker.io/library/nginx", "nginx"),
            (
                "index.docker.io/library/nginx:1",
                "docker.io/library/nginx:1",
                "nginx:1",
            ),
            ("team/app", "docker.io/team/app", "team/app"),
            ("localhost/app", "localhost/app", "localhost/app"),
            (
                "localhost:5000/app:v1",
                "localhost:5000/app:v1",
                "localhost:5000/app:v1",
            ),
            (
                "registry.example/a/b__c.d-e---f",
                "registry.example/a/b__c.d-e---f",
                "registry.example/a/b__c.d-e---f",
            ),
            ("REGISTRY/app", "REGISTRY/app", "REGISTRY/app"),
            ("[::1]:5000/app", "[::1]:5000/app", "[::1]:5000/app"),
            ("[2001:db8::1]/app", "[2001:db8::1]/app", "[2001:db8::1]/app"),
            ("127.0.0.1/app:_x", "127.0.0.1/app:_x", "127.0.0.1/app:_x"),
            ("app:5000", "docker.io/library/app:5000", "app:5000"),
            ("docker.io/library/a/b", "docker.io/library/a/b", "library/a/b"),
            ("docker.io/a.b/c", "docker.io/a.b/c", "docker.io/a.b/c"),
            (&with_digest, &format!("docker.io/library/{with_digest}"), &with_digest),
        ];
        for (text, full, familiar) in cases {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), full, "{text}");
            assert_eq!(reference.familiar(), familiar, "{text}");
        }
    }

    #[test]
    fn malformed_references_are_refused() {
        let long = format!("registry.example/{}", "a".repeat(239));
        let long_tag = format!("a:{}", "t".repeat(129));
        let id = &SHA[7..];
        let cases = [
            ("", "no repository"),
            (":tag", "no repository"),
            ("nginx:", "tag is empty"),
            ("nginx:-x", "not start with"),
            ("nginx:a b", "its tag may hold"),
            (&long_tag, "longer than 128"),
            ("Nginx", "lower case"),
            ("registry.example/Team/app", "lower case"),
            ("a//b", "single slashes"),
            ("/a", "single slashes"),
            ("a/", "single slashes"),
            ("a___b", "separated by"),
            ("a.-b", "separated by"),
            ("-a", "separated by"),
            ("a_", "separated by"),
            ("ä", "separated by"),
            ("regi_stry.example/a", "host name"),
            ("-registry.example/a", "host name"),
            ("registry.example:/a", "host name"),
            ("registry.example:99999/a", "host name"),
            ("registry..example/a", "host name"),
            ("[::1/a", "host name"),
            ("[fe80::1%eth0]/a", "host name"),
            ("nginx@latest", "must be a digest"),
            ("nginx@sha512:00", "only sha256"),
            ("nginx@sha256:00", "64 lower-case"),
            (id, "image ID"),
            (&long, "255 bytes"),
        ];
        for (text, expected) in cases {
            let error = text.parse::<Reference>().unwrap_err();
            assert!(error.reason.contains(expected), "{text}: {error}");
        }
        assert!(long[..255].parse::<Reference>().is_ok(), "255 bytes are allowed");
    }

    #[test]
    fn advice_is_something_that_works() {
        let cases = [
            (
                "https://registry.example/a:1",
                "leave the scheme out: `registry.example/a:1`",
            ),
            ("registry.example/App", "write it in lower case: `registry.example/app`"),
            (
                "a b",
                "write `REGISTRY/REPOSITORY:TAG`, such as `registry.example/team/app:1.0`",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Reference>().unwrap_err().help().unwrap(), expected);
        }
    }

    #[test]
    fn tag_and_digest_are_replaced() {
        let reference: Reference = "registry.example/a:1".parse().unwrap();
        let pinned = reference.with_digest(Digest::of(b""));
        assert_eq!(pinned.to_string(), format!("registry.example/a@{SHA}"));
        assert_eq!(pinned.tag_or_default(), "latest");
        assert_eq!(pinned.with_tag("2").unwrap().to_string(), "registry.example/a:2");
        assert_eq!(pinned.with_tag("").unwrap_err().text, "registry.example/a:");
        assert!("a/b".parse::<Reference>().unwrap() < "a/c".parse().unwrap());
    }

    proptest! {
        #[test]
        fn printing_and_parsing_are_inverse(
            registry in "([a-z0-9]{1,8}\\.[a-z]{2,3}(:[1-9][0-9]{0,3})?/)?",
            path in "[a-z0-9]{1,6}((_|__|-{1,3})[a-z0-9]{1,6}){0,2}(/[a-z0-9]{1,6}((\\.|_)[a-z0-9]{1,6}){0,2}){0,3}",
            tag in "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,20})?",
            pinned in any::<bool>(),
        ) {
            let text = format!("{registry}{path}{tag}{}", if pinned { format!("@{SHA}") } else { String::new() });
            let reference: Reference = text.parse().unwrap();
            prop_assert_eq!(&reference.to_string().parse::<Reference>().unwrap(), &reference);
            prop_assert_eq!(&reference.familiar().parse::<Reference>().unwrap(), &reference);
        }

        #[test]
        fn any_text_is_parsed_or_refused_without_panic(text in "\\PC{0,80}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
            }
        }
    }
}
