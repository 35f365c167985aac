//! The *files of Python projects* as the places list them that pip is configured with, each with its hashes: what
//! requirements leave open.
//!
//! Invariant: nothing is downloaded but pages; what a place says of a file is a claim, which the file's hash settles when it
//! is fetched.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

use serde::Deserialize;

use super::pip::{self, PipConfig};
use super::{Address, Languages, Lead};
use crate::digest::{ContentDigest, FileHash};
use crate::event::Reporter;
use crate::fetch::download::THREADS;
use crate::fetch::transfer::Transfer;
use crate::fetch::{FetchConfig, FetchError};
use crate::fsio::{self, IoContext as _};
use crate::parallel;

/// A file that a place lists.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListedFile {
    /// What it is called.
    pub name: String,
    /// Its hashes, as far as the place states them.
    pub hashes: BTreeSet<FileHash>,
    /// Why its project has withdrawn it (PEP 592); empty where no reason is given.
    pub withdrawn: Option<String>,
}

/// What is known of a project's files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// They, as all places together list them, sorted.
    pub files: Vec<ListedFile>,
    /// What was asked, each with what it answered where that was no list.
    pub asked: Vec<(String, Option<String>)>,
}

/// The files of each of these projects, which a lock file may name further indexes for.
///
/// # Errors
///
/// A configuration of pip that cannot be read. A place that does not answer is told in the listing.
pub fn list_python_files(
    projects: &[(String, Vec<String>)],
    config: &FetchConfig,
    reporter: &dyn Reporter,
) -> Result<Vec<Listing>, FetchError> {
    if projects.is_empty() {
        return Ok(Vec::new());
    }
    let transfer = Transfer::telling(&config.http, reporter);
    let languages = Languages::new(&config.languages, &transfer);
    let pip = languages.config(&languages.pip, PipConfig::read)?;
    parallel::map(projects, THREADS, |(project, indexes)| {
        let mut listing = Listing::default();
        // Of a directory the whole is looked at, and of a page what it lists: no file is meant yet.
        for candidate in pip.candidates(project, "", indexes, None) {
            let place = candidate.place.clone();
            let listed = match &candidate.lead {
                Lead::Unusable(why) => Err((*why).to_owned()),
                _ if config.offline && !candidate.is_local() => {
                    Err("not asked, as there is to be no network".to_owned())
                }
                Lead::At(Address::Local(dir)) => files_in(dir, project).map_err(|error| fsio::with_causes(&error)),
                Lead::Page(address) => match languages.page(address, pip::ACCEPT) {
                    Ok(Some(page)) => Ok(listed(&page)),
                    Ok(None) => Err("it does not have the project".to_owned()),
                    Err(error) => Err(fsio::with_causes(&error)),
                },
                Lead::At(_) | Lead::Crate(_) | Lead::Package(_) => continue,
            };
            let answer = listed.map(|files| listing.files.extend(files)).err();
            listing.asked.push((place, answer));
        }
        listing
            .files
            .sort_by(|a, b| (&a.name, &a.hashes).cmp(&(&b.name, &b.hashes)));
        listing.files.dedup_by(|a, b| a.name == b.name && a.hashes == b.hashes);
        Ok(listing)
    })
}

/// The files of a directory that are of this project by their names, hashed.
fn files_in(dir: &Path, project: &str) -> Result<Vec<ListedFile>, fsio::PathError> {
    let mut files = Vec::new();
    for name in fsio::sorted_names(dir)? {
        let Some(name) = name.to_str() else { continue };
        let path = dir.join(name);
        if !is_of(name, project) || !path.is_file() {
            continue;
        }
        let mut file = File::open(&path).context("open", &path)?;
        let digests = ContentDigest::all_of(&mut file).context("read", &path)?;
        files.push(ListedFile {
            name: name.to_owned(),
            hashes: digests.into_iter().map(FileHash::Content).collect(),
            withdrawn: None,
        });
    }
    Ok(files)
}

/// Whether a file's name begins with that of a project, `-` and a version.
fn is_of(name: &str, project: &str) -> bool {
    name.match_indices('-').any(|(at, _)| {
        let after = &name[at + 1..];
        after.starts_with(|c: char| c.is_ascii_digit() || c == 'v') && pip::normalized(&name[..at]) == project
    })
}

#[derive(Deserialize)]
struct Page {
    files: Vec<PageFile>,
}

#[derive(Deserialize)]
struct PageFile {
    filename: String,
    #[serde(default)]
    hashes: BTreeMap<String, String>,
    #[serde(default)]
    yanked: Yanked,
}

/// `false`, `true`, or why.
#[derive(Deserialize)]
#[serde(untagged)]
enum Yanked {
    Flag(bool),
    Reason(String),
}

impl Default for Yanked {
    fn default() -> Self {
        Self::Flag(false)
    }
}

/// The files that a page lists, in either form of the simple API.
fn listed(page: &[u8]) -> Vec<ListedFile> {
    let hash = |algorithm: &str, hex: &str| FileHash::from_hex(algorithm, hex).filter(|hash| hash.content().is_some());
    if let Ok(Page { files }) = serde_json::from_slice(page) {
        let listed = files.into_iter().map(|file| ListedFile {
            name: file.filename,
            hashes: (file.hashes.iter())
                .filter_map(|(algorithm, hex)| hash(algorithm, hex))
                .collect(),
            withdrawn: match file.yanked {
                Yanked::Flag(false) => None,
                Yanked::Flag(true) => Some(String::new()),
                Yanked::Reason(why) => Some(why),
            },
        });
        return listed.collect();
    }
    let text = String::from_utf8_lossy(page);
    let links = pip::anchors(&text).filter_map(|(link, attributes)| {
        let (path, fragment) = link.split_once('#').unwrap_or((&link, ""));
        let name = pip::file_of(path)?;
        let hashes = fragment.split('&').filter_map(|pair| pair.split_once('='));
        Some(ListedFile {
            name,
            hashes: hashes.filter_map(|(algorithm, hex)| hash(algorithm, hex)).collect(),
            withdrawn: pip::attribute(attributes, "data-yanked"),
        })
    });
    links.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn both_forms_of_a_page_list_files_with_their_hashes() {
        let json = format!(
            r#"{{"meta": {{"api-version": "1.0"}}, "files": [
                {{"filename": "a-1.tar.gz", "url": "a", "hashes": {{"sha256": "{SHA}", "md5": "00"}}, "yanked": "broken"}},
                {{"filename": "a-2.tar.gz", "url": "b", "hashes": {{}}}}]}}"#
        );
        let html = format!(
            "<!DOCTYPE html><a data-yanked=\"br&amp;oken\" href=\"../x/a-1.tar.gz#sha256={SHA}\">a</a><A HREF='a-2.tar.gz?x=1'>b</A>"
        );
        for (page, why) in [(json, "broken"), (html, "br&oken")] {
            let files = listed(page.as_bytes());
            assert_eq!(files.len(), 2, "{page}");
            assert_eq!(files[0].name, "a-1.tar.gz");
            assert_eq!(
                files[0].hashes,
                BTreeSet::from([FileHash::from_hex("sha256", SHA).unwrap()])
            );
            assert_eq!(files[0].withdrawn.as_deref(), Some(why));
            assert_eq!((files[1].name.as_str(), files[1].hashes.len()), ("a-2.tar.gz", 0));
            assert_eq!(files[1].withdrawn, None);
        }
    }

    #[test]
    fn a_directory_s_files_are_told_apart_by_their_names() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "My_a-1.tar.gz",
            "my.a-1-py3-none-any.whl",
            "my-a-b-1.tar.gz",
            "other-1.tar.gz",
        ] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let files = files_in(dir.path(), "my-a").unwrap();
        let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["My_a-1.tar.gz", "my.a-1-py3-none-any.whl"]);
        // Requirements may have either.
        let hashes: Vec<&str> = files[0].hashes.iter().map(FileHash::scheme).collect();
        assert_eq!(hashes, ["sha256", "sha512"]);
        assert!(files[0].hashes.contains(&FileHash::from_hex("sha256", SHA).unwrap()));
    }
}
