//! *Archives*: which of apt's sources carry a version of a package, and what their Release files say.
//!
//! Invariant: apt has verified what is read here; a source without a Release file, or without a date in it, is none that
//! could be found again and is left out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::apt::Apt;
use super::control::{self, Paragraph};
use crate::fetch::FetchError;
use crate::fsio;
use crate::spec::LockedArchive;

/// Largest Release file that is read, in bytes.
const RELEASE_MAX: u64 = 64 << 20;

/// A component of one of apt's sources.
#[derive(Debug, Clone)]
pub(super) struct Repository {
    /// What can be said of it without naming a host.
    pub archive: LockedArchive,
    /// Its address.
    pub uri: String,
    /// `Snapshots` of its Release file: a snapshot server's address, or `no`.
    pub snapshots: Option<String>,
}

/// apt's sources by what apt calls them (`http://HOST/debian bookworm/main amd64 Packages`).
#[derive(Debug, Default)]
pub(super) struct Archives(BTreeMap<String, Repository>);

impl Archives {
    /// Asks apt for its sources, as its lists have them now.
    pub(super) fn read(apt: &Apt) -> Result<Self, FetchError> {
        Self::parse(&apt.succeed("apt-get", "tell its sources", ["indextargets"])?)
    }

    /// Reads what `apt-get indextargets` prints, and the Release files that it leads to.
    pub(super) fn parse(targets: &str) -> Result<Self, FetchError> {
        let targets = control::parse(targets).map_err(|line| FetchError::AptAnswer {
            subject: "its sources".to_owned(),
            reason: format!("line {line} is not a field"),
        })?;
        let mut repositories = BTreeMap::new();
        for target in &targets {
            let Some(description) = target.get("description") else {
                continue;
            };
            if let Some(repository) = repository(target)? {
                repositories.insert(description.to_owned(), repository);
            }
        }
        Ok(Self(repositories))
    }

    /// All that could be found again.
    pub(super) fn repositories(&self) -> impl Iterator<Item = &Repository> {
        self.0.values()
    }

    /// Where each version (by package name) comes from: the first of apt's sources that carries it.
    pub(super) fn carrying(
        &self,
        apt: &Apt,
        versions: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, LockedArchive>, FetchError> {
        let mut found = BTreeMap::new();
        if self.0.is_empty() || versions.is_empty() {
            return Ok(found);
        }
        let arguments = ["madison"].into_iter().chain(versions.keys().map(String::as_str));
        // Names that apt does not know any more make it fail, and it tells of the others.
        let output = apt.run("apt-cache", arguments, None)?;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let [name, version, description] = line.splitn(3, " | ").map(str::trim).collect::<Vec<_>>()[..] else {
                continue;
            };
            let repository = self.0.get(description);
            if let Some(repository) = repository.filter(|_| versions.get(name).is_some_and(|wanted| wanted == version))
            {
                found
                    .entry(name.to_owned())
                    .or_insert_with(|| repository.archive.clone());
            }
        }
        Ok(found)
    }
}

fn repository(target: &Paragraph) -> Result<Option<Repository>, FetchError> {
    let Some((release, uri)) = release_file(target).zip(target.get("repo-uri")) else {
        return Ok(None);
    };
    let text = fsio::read_limited(&release, RELEASE_MAX)?;
    let paragraphs = control::parse(&String::from_utf8_lossy(&text)).unwrap_or_default();
    let Some(release) = paragraphs.first() else {
        return Ok(None);
    };
    let field = |name| release.get(name).unwrap_or_default().to_owned();
    let Some(date) = release.get("date").and_then(snapshot_date) else {
        return Ok(None);
    };
    let suite = match field("codename") {
        codename if codename.is_empty() => field("suite"),
        codename => codename,
    };
    Ok(Some(Repository {
        archive: LockedArchive {
            origin: field("origin"),
            label: field("label"),
            suite,
            component: target.get("component").unwrap_or_default().to_owned(),
            date,
        },
        uri: uri.trim_end_matches('/').to_owned(),
        snapshots: release.get("snapshots").map(str::to_owned),
    }))
}

/// The Release file that covers an index, signed within itself or beside: apt keeps it next to the index, each named
/// after its address.
fn release_file(target: &Paragraph) -> Option<PathBuf> {
    let (index, key) = (target.get("filename")?, target.get("metakey")?.replace('/', "_"));
    let start = &index[..index.rfind(&key)?];
    let names = ["InRelease", "Release"].map(|name| format!("{start}{name}"));
    names
        .iter()
        .map(Path::new)
        .find(|path| path.is_file())
        .map(Path::to_owned)
}

/// A Release file's date (RFC 5322, in UTC) as snapshot servers write it.
fn snapshot_date(text: &str) -> Option<String> {
    const MONTHS: &[&str] = &[
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (_, date) = text.split_once(", ")?;
    let [day, month, year, time, zone] = date.split_whitespace().collect::<Vec<_>>()[..] else {
        return None;
    };
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let day: u8 = day.parse().ok()?;
    let text = format!("{year}{month:02}{day:02}T{}Z", time.replace(':', ""));
    (matches!(zone, "UTC" | "GMT" | "+0000" | "Z") && LockedArchive::is_date(&text)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_release_files_are_read() {
        for (text, expected) in [
            ("Thu, 26 Nov 2026 21:03:35 UTC", Some("20261126T210335Z")),
            ("Sat,  1 Jan 2022 00:00:00 +0000", Some("20220101T000000Z")),
            ("Sat, 01 Jan 2022 9:00:00 UTC", None),
            ("Sat, 01 Jan 2022 09:00:00 CET", None),
            ("Sat, 01 Foo 2022 09:00:00 UTC", None),
            ("Sat, 01 Jan ../. 09:00:00 UTC", None),
            ("2022-01-01", None),
            ("", None),
        ] {
            assert_eq!(snapshot_date(text).as_deref(), expected, "{text}");
        }
    }
}
