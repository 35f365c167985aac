//! A *route* is what the path and the query of a request ask for (OCI distribution-spec, "Endpoints").
//!
//! Invariant: names, digests and numbers in a route are such as the specification allows; what is none of its endpoints has
//! no route. Pure.

use percent_encoding::percent_decode_str;
use url::form_urlencoded;

use crate::digest::ContentDigest;
use crate::oci::{DEFAULT_TAG, Reference};
use crate::store_path::StoreDir;

use super::ServedName;
use super::fault::{Code, Fault};

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// Whether this is a registry.
    Base,
    /// The names of all repositories.
    Catalog(Page),
    /// The tags of a repository.
    Tags { repository: String, page: Page },
    /// A manifest, or an index.
    Manifest { repository: String, name: ManifestName },
    /// A blob.
    Blob { repository: String, digest: ContentDigest },
    /// What refers to a manifest, of one kind alone where one is named.
    Referrers {
        repository: String,
        digest: ContentDigest,
        artifact_type: Option<String>,
    },
    /// An upload, which no read-only registry takes.
    Upload,
}

/// What a manifest is asked for by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ManifestName {
    Tag(String),
    Digest(ContentDigest),
}

/// Which part of a list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Page {
    /// At most so many entries.
    pub count: Option<usize>,
    /// Those that come after this one.
    pub last: Option<String>,
}

impl Route {
    /// Understands a path and a query, both as they stand in the request.
    pub(super) fn parse(path: &str, query: &str) -> Result<Self, Fault> {
        let decoded = percent_decode_str(path).decode_utf8();
        let path = decoded.map_err(|_| nothing(path))?.into_owned();
        let below = path.strip_prefix("/v2");
        let Some(rest) = below.filter(|rest| rest.is_empty() || rest.starts_with('/')) else {
            return Err(nothing(&path));
        };
        if matches!(rest, "" | "/") {
            return Ok(Self::Base);
        }
        if rest == "/_catalog" {
            return Ok(Self::Catalog(page(query)?));
        }
        let parts: Vec<&str> = rest.trim_start_matches('/').split('/').collect();
        let repository = |parts: &[&str]| repository(&parts.join("/"));
        match parts.as_slice() {
            [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", _] => {
                repository(name)?;
                Ok(Self::Upload)
            }
            [name @ .., "tags", "list"] => Ok(Self::Tags {
                repository: repository(name)?,
                page: page(query)?,
            }),
            [name @ .., "manifests", reference] => Ok(Self::Manifest {
                repository: repository(name)?,
                name: match reference.contains(':') {
                    true => ManifestName::Digest(digest(reference)?),
                    false => ManifestName::Tag(tag(reference)?),
                },
            }),
            [name @ .., "blobs", text] => Ok(Self::Blob {
                repository: repository(name)?,
                digest: digest(text)?,
            }),
            [name @ .., "referrers", text] => Ok(Self::Referrers {
                repository: repository(name)?,
                digest: digest(text)?,
                artifact_type: value(query, "artifactType").filter(|kind| !kind.is_empty()),
            }),
            _ => Err(nothing(&path)),
        }
    }
}

impl Page {
    /// The part of `all`, which are sorted (see [`order`]), and the query of the next part where there is one.
    pub(super) fn of(&self, all: &[String]) -> (Vec<String>, Option<String>) {
        let after = self.last.as_deref().map(order);
        let rest = all
            .iter()
            .filter(|entry| after.as_ref().is_none_or(|last| order(entry) > *last));
        let rest: Vec<&String> = rest.collect();
        let count = self.count.unwrap_or(rest.len()).min(rest.len());
        let part: Vec<String> = rest[..count].iter().map(|&entry| entry.clone()).collect();
        let next = part.last().filter(|_| count < rest.len()).map(|last| {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair("n", &count.to_string()).append_pair("last", last);
            query.finish()
        });
        (part, next)
    }
}

/// What lists are sorted by: letters without their case first (distribution-spec, "Listing Tags").
pub(super) fn order(entry: &str) -> (String, String) {
    (entry.to_lowercase(), entry.to_owned())
}

fn page(query: &str) -> Result<Page, Fault> {
    let count = match value(query, "n") {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| {
            let message = format!("`n` is `{text}`, which is not a number of entries");
            Fault::new(Code::PaginationNumberInvalid, message)
        })?),
    };
    Ok(Page {
        count,
        last: value(query, "last"),
    })
}

/// The name of a repository that is a store path without its first slash: it stands for an image of the path's closure.
pub(super) fn store_path(repository: &str) -> Option<ServedName> {
    let image = format!("/{repository}");
    let is_path = [StoreDir::layerize(), StoreDir::nix()]
        .iter()
        .any(|dir| matches!(dir.split(&image), Some((_, ""))));
    is_path.then(|| ServedName {
        repository: repository.to_owned(),
        tag: DEFAULT_TAG.to_owned(),
        image,
    })
}

fn value(query: &str, key: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find(|(name, _)| name == key).map(|(_, value)| value.into_owned())
}

fn repository(name: &str) -> Result<String, Fault> {
    match named(name) {
        Ok(_) => Ok(name.to_owned()),
        Err(reason) => Err(Fault::new(
            Code::NameInvalid,
            format!("`{name}` is not the name of a repository: {reason}"),
        )),
    }
}

/// A tag that none can have names nothing.
fn tag(text: &str) -> Result<String, Fault> {
    let named = named("x").and_then(|reference| reference.with_tag(text).map_err(|error| error.reason));
    match named {
        Ok(_) => Ok(text.to_owned()),
        Err(reason) => Err(Fault::new(
            Code::ManifestUnknown,
            format!("`{text}` is not a tag: {reason}"),
        )),
    }
}

fn named(repository: &str) -> Result<Reference, &'static str> {
    let parsed = format!("localhost/{repository}").parse::<Reference>();
    let reference = parsed.map_err(|error| error.reason)?;
    match reference.tag().is_some() || reference.digest().is_some() {
        true => Err("it has a tag or a digest"),
        false => Ok(reference),
    }
}

fn digest(text: &str) -> Result<ContentDigest, Fault> {
    text.parse().map_err(|error| {
        Fault::new(
            Code::DigestInvalid,
            format!("`{text}` is not a digest that is known here: {error}"),
        )
    })
}

fn nothing(path: &str) -> Fault {
    Fault::new(
        Code::NotFound,
        format!("`{path}` is not part of a registry: everything is below `/v2/`"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d";

    fn code(path: &str, query: &str) -> Code {
        Route::parse(path, query).unwrap_err().code
    }

    #[test]
    fn repositories_may_be_called_as_endpoints_are() {
        for name in [
            "hello",
            "team/app",
            "tags/list",
            "a/manifests/b",
            "a/blobs",
            "v2/v2",
            "a/referrers/x",
        ] {
            let manifest = Route::parse(&format!("/v2/{name}/manifests/1.0"), "").unwrap();
            assert_eq!(
                manifest,
                Route::Manifest {
                    repository: name.to_owned(),
                    name: ManifestName::Tag("1.0".to_owned()),
                }
            );
            for place in ["blobs", "manifests", "referrers"] {
                let encoded = DIGEST.replace(':', "%3A");
                let plain = Route::parse(&format!("/v2/{name}/{place}/{DIGEST}"), "").unwrap();
                assert_eq!(
                    Route::parse(&format!("/v2/{name}/{place}/{encoded}"), "").unwrap(),
                    plain
                );
            }
        }
    }

    #[test]
    fn what_the_specification_does_not_allow_has_no_route() {
        for name in [
            "Hello", "a//b", "-a", "a_", "a..b", "", "a b", "a@b", "a%00", "../etc", "%2e%2e/x", "a:1",
        ] {
            assert_eq!(
                code(&format!("/v2/{name}/manifests/latest"), ""),
                Code::NameInvalid,
                "{name}"
            );
        }
        let long = "a".repeat(300);
        assert_eq!(code(&format!("/v2/{long}/tags/list"), ""), Code::NameInvalid);
        for digest in ["sha256:totallywrong", "sha256:", "md5:00", &DIGEST.to_uppercase()] {
            assert_eq!(
                code(&format!("/v2/a/blobs/{digest}"), ""),
                Code::DigestInvalid,
                "{digest}"
            );
            assert_eq!(code(&format!("/v2/a/manifests/{digest}"), ""), Code::DigestInvalid);
        }
        for tag in [".INVALID", "-a", &"x".repeat(129), "a%2fb"] {
            let code = code(&format!("/v2/a/manifests/{tag}"), "");
            assert!(matches!(code, Code::ManifestUnknown | Code::NotFound), "{tag}");
        }
        for path in ["/", "/v1/", "/v2/a", "/v2/a/manifests", "/v22/a/tags/list", "/%ff"] {
            assert!(matches!(code(path, ""), Code::NotFound), "{path}");
        }
        assert_eq!(code("/v2/_catalog", "n=many"), Code::PaginationNumberInvalid);
        assert_eq!(code("/v2/a/tags/list", "n=-1"), Code::PaginationNumberInvalid);
    }

    #[test]
    fn a_store_path_is_a_repository() {
        let name = format!("layerize/store/{}-hello-2.10", "0".repeat(32));
        let served = store_path(&name).unwrap();
        assert_eq!((served.tag.as_str(), served.image), ("latest", format!("/{name}")));
        assert!(store_path(&format!("nix/store/{}-hello", "a".repeat(32))).is_some());
        for other in [
            "hello",
            "layerize/store",
            "layerize/store/hello",
            &format!("{name}/bin"),
            &format!("x/{name}"),
        ] {
            assert_eq!(store_path(other), None, "{other}");
        }
    }

    #[test]
    fn a_list_is_given_in_parts() {
        let all = ["1.0", "a", "B", "c"].map(str::to_owned);
        let part = |query: &str| page(query).unwrap().of(&all);
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        assert_eq!(part(""), (all.to_vec(), None));
        assert_eq!(part("n=9"), (all.to_vec(), None));
        assert_eq!(part("n=0"), (Vec::new(), None));
        assert_eq!(part("n=2"), (texts(&["1.0", "a"]), Some("n=2&last=a".to_owned())));
        assert_eq!(part("n=2&last=a"), (texts(&["B", "c"]), None));
        assert_eq!(part("last=b"), (texts(&["c"]), None));
        assert_eq!(part("last=zzz"), (Vec::new(), None));
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_serve_route() {
        crate::testing::fuzz("serve-route", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let (path, query) = text.split_once('?').unwrap_or((&text, ""));
            let _ = super::Route::parse(path, query);
        });
    }
}
