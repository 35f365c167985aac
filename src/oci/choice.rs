//! A *choice* among the entries of an index by platform, the same wherever an index is read.
//!
//! Invariant: never a guess. The best entry for the wanted platform is taken ([`Platform::rank`]); of several versions of
//! an operating system that was asked for without a version, the highest, as containerd does
//! (`platforms/platform_windows_compat.go`). Where two different images are left, all are named and none is taken.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::manifest::{Descriptor, UnknownEntry};
use super::platform::Platform;
use crate::digest::ContentDigest;

/// Why no entry could be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoChoice {
    /// There is no image among the entries.
    Empty,
    /// There are only things that stand beside images, and more than one.
    Artifacts {
        /// Their digests, in the order of the index.
        digests: Vec<ContentDigest>,
    },
    /// None is for the wanted platform.
    Platform {
        /// The platforms that there are.
        available: Vec<Platform>,
    },
    /// There are images for several platforms, and none was asked for.
    Platforms {
        /// The platforms.
        available: Vec<Platform>,
    },
    /// The one for the wanted platform has a digest that cannot be checked.
    Unknown {
        /// The digest's text.
        digest: String,
    },
    /// Several images that no platform tells apart.
    Alike {
        /// Their digests, in the order of the index.
        digests: Vec<ContentDigest>,
    },
}

/// The entry for `wanted`, or the only one. What stands beside images is passed over
/// ([`Descriptor::is_attestation`]) unless nothing else is there; an entry without a platform is taken where no other one
/// fits.
pub fn choose<'a>(
    entries: impl IntoIterator<Item = &'a Descriptor>,
    unknown: &[UnknownEntry],
    wanted: Option<&Platform>,
) -> Result<&'a Descriptor, NoChoice> {
    let (beside, images): (Vec<&Descriptor>, Vec<&Descriptor>) =
        entries.into_iter().partition(|entry| entry.is_attestation());
    if images.is_empty() && unknown.is_empty() && !beside.is_empty() {
        return one(&beside).ok_or_else(|| NoChoice::Artifacts {
            digests: distinct(&beside),
        });
    }
    let platforms: BTreeSet<&Platform> = images.iter().filter_map(|entry| entry.platform.as_ref()).collect();
    let all: BTreeSet<&Platform> = unknown.iter().filter_map(|entry| entry.platform.as_ref()).collect();
    let all = || {
        platforms
            .iter()
            .chain(&all)
            .map(|platform| (*platform).clone())
            .collect()
    };
    match wanted.filter(|_| !platforms.is_empty()) {
        None => match one(&images) {
            Some(only) => Ok(only),
            None if images.is_empty() => Err(unreadable(unknown.first())),
            None if platforms.len() > 1 && wanted.is_none() => Err(NoChoice::Platforms { available: all() }),
            None => Err(alike(&images)),
        },
        Some(wanted) => {
            let best = best(&images, wanted);
            let fits = |entry: &&UnknownEntry| entry.platform.as_ref().is_some_and(|it| wanted.rank(it).is_some());
            match (one(&best), unknown.iter().find(fits)) {
                (Some(only), _) => Ok(only),
                (None, Some(entry)) if best.is_empty() => Err(unreadable(Some(entry))),
                (None, _) if best.is_empty() => Err(NoChoice::Platform { available: all() }),
                (None, _) => Err(alike(&best)),
            }
        }
    }
}

/// The entries that serve the wanted platform best; those that name none where no other does.
fn best<'a>(images: &[&'a Descriptor], wanted: &Platform) -> Vec<&'a Descriptor> {
    let key = |entry: &Descriptor| {
        let platform = entry.platform.as_ref()?;
        Some((wanted.rank(platform)?, Reverse(version(platform))))
    };
    let Some(best) = images.iter().filter_map(|entry| key(entry)).min() else {
        let unsaid = images.iter().filter(|entry| entry.platform.is_none());
        return unsaid.copied().collect();
    };
    let fitting = images.iter().filter(|entry| key(entry).as_ref() == Some(&best));
    fitting.copied().collect()
}

/// A version of an operating system as numbers, so that build 9999 is below build 17763.
fn version(platform: &Platform) -> Vec<u64> {
    let parts = platform.os_version().unwrap_or_default().split('.');
    parts.map(|part| part.parse().unwrap_or_default()).collect()
}

/// The entry, if all are of one content.
fn one<'a>(entries: &[&'a Descriptor]) -> Option<&'a Descriptor> {
    let first = *entries.first()?;
    entries
        .iter()
        .all(|other| other.digest == first.digest)
        .then_some(first)
}

fn alike(entries: &[&Descriptor]) -> NoChoice {
    NoChoice::Alike {
        digests: distinct(entries),
    }
}

fn distinct(entries: &[&Descriptor]) -> Vec<ContentDigest> {
    let mut seen = BTreeSet::new();
    let digests = entries.iter().map(|entry| entry.digest);
    digests.filter(|digest| seen.insert(*digest)).collect()
}

fn unreadable(entry: Option<&UnknownEntry>) -> NoChoice {
    match entry {
        Some(entry) => NoChoice::Unknown {
            digest: entry.digest.clone(),
        },
        None => NoChoice::Empty,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::oci::MediaType;

    fn entry(platform: &str, content: &str) -> Descriptor {
        Descriptor {
            platform: platform.parse().ok(),
            ..Descriptor::new(MediaType::MANIFEST, Digest::of(content.as_bytes()), 1)
        }
    }

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    /// What is chosen of entries, each named by its platform.
    fn chosen(entries: &[&str], wanted: Option<&str>) -> Result<String, NoChoice> {
        let entries: Vec<Descriptor> = entries.iter().map(|text| entry(text, text)).collect();
        let wanted = wanted.map(platform);
        let found = choose(&entries, &[], wanted.as_ref())?;
        Ok(found.platform.as_ref().map_or("none".to_owned(), ToString::to_string))
    }

    #[test]
    fn the_plain_platform_is_not_its_variant() {
        let entries = ["linux/amd64", "linux/amd64/v2", "linux/arm64", "linux/arm"];
        for (wanted, expected) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/amd64/v2", "linux/amd64/v2"),
            ("linux/amd64/v3", "linux/amd64/v2"),
            ("linux/arm64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm/v7", "linux/arm/v7"),
            ("linux/arm/v8", "linux/arm/v7"),
        ] {
            assert_eq!(chosen(&entries, Some(wanted)).as_deref(), Ok(expected), "{wanted}");
        }
        assert!(matches!(
            chosen(&entries, Some("linux/arm/v6")),
            Err(NoChoice::Platform { available }) if available.len() == 4
        ));
        assert!(matches!(chosen(&entries, None), Err(NoChoice::Platforms { .. })));
    }

    /// containerd sorts versions that match downwards; a build is a number, so that the order of texts would not do.
    #[test]
    fn of_several_versions_the_highest_is_taken() {
        let entries = [
            "windows(10.0.9999.1)/amd64",
            "windows(10.0.20348.3091)/amd64",
            "windows(10.0.17763.6054)/amd64",
            "windows(10.0.17763.6893)/amd64",
            "linux/amd64",
        ];
        for (wanted, expected) in [
            ("windows/amd64", Some("windows(10.0.20348.3091)/amd64")),
            ("windows(10.0.17763)/amd64", Some("windows(10.0.17763.6893)/amd64")),
            ("windows(10.0.17763.6054)/amd64", Some("windows(10.0.17763.6054)/amd64")),
            ("windows(10.0.26100)/amd64", None),
            ("windows/arm64", None),
        ] {
            assert_eq!(chosen(&entries, Some(wanted)).ok().as_deref(), expected, "{wanted}");
        }
    }

    #[test]
    fn what_no_platform_tells_apart_is_not_guessed() {
        let (x, y) = (entry("linux/amd64", "x"), entry("linux/amd64", "y"));
        let digests = vec![x.digest, y.digest];
        let wanted = platform("linux/amd64");
        for wanted in [None, Some(&wanted)] {
            assert_eq!(
                choose([&x, &y, &x], &[], wanted),
                Err(NoChoice::Alike {
                    digests: digests.clone()
                })
            );
            assert_eq!(choose([&x, &x], &[], wanted), Ok(&x));
        }
        assert_eq!(choose([], &[], Some(&wanted)), Err(NoChoice::Empty));
    }

    #[test]
    fn what_names_no_platform_is_taken_where_nothing_else_fits() {
        assert_eq!(
            chosen(&["", "linux/amd64"], Some("linux/amd64")).unwrap(),
            "linux/amd64"
        );
        assert_eq!(chosen(&["", "linux/amd64"], Some("linux/arm64")).unwrap(), "none");
        assert_eq!(chosen(&[""], Some("linux/arm64")).unwrap(), "none");
        // Docker's attestations name the platform `unknown/unknown`.
        assert_eq!(
            chosen(&["unknown/unknown", "linux/amd64"], None).unwrap(),
            "linux/amd64"
        );
    }

    #[test]
    fn an_unknown_digest_fails_whoever_asks_for_it() {
        let unknown = [UnknownEntry {
            digest: "blake3:00".to_owned(),
            platform: Some(platform("linux/arm64")),
        }];
        let amd64 = entry("linux/amd64", "x");
        let choose = |wanted: Option<&str>| choose([&amd64], &unknown, wanted.map(platform).as_ref());
        assert_eq!(choose(Some("linux/amd64")), Ok(&amd64));
        assert_eq!(choose(None), Ok(&amd64));
        assert!(matches!(choose(Some("linux/arm64")), Err(NoChoice::Unknown { digest }) if digest == "blake3:00"));
        assert!(matches!(choose(Some("linux/s390x")), Err(NoChoice::Platform { available }) if available.len() == 2));
    }
}
