//! A *binary cache* as it is read: a directory or an address with `nix-cache-info`, `HASH.narinfo` and archives.
//!
//! Invariant: what is read is bounded, and an archive's file is given out only when it is what its narinfo announces.
//! A download that broke off stays as `NAME.part` and is taken up where it ended.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use url::Url;

use super::error::CacheError;
use super::narinfo::NarInfo;
use crate::digest::{Digest, VerifyError, VerifyingReader};
use crate::event::{Event, Reporter};
use crate::fetch::FetchError;
use crate::fetch::transfer::{Address, Transfer};
use crate::fsio::{self, FileLock, IoContext, LockKind};
use crate::http::HttpConfig;
use crate::store_path::{StoreDir, StorePath};

/// Largest `nix-cache-info` or narinfo in bytes.
const TEXT_MAX: u64 = 4 << 20;

/// How much larger than its content a compressed file may be, in bytes, and a sixteenth of the content.
const OVERHEAD_MAX: u64 = 1 << 20;

/// How many bytes arrive between two reports of progress.
const PROGRESS_STEP: u64 = 1 << 20;

/// An open binary cache.
pub struct BinaryCache {
    place: CacheAddress,
    transfer: Transfer<'static>,
}

enum CacheAddress {
    Dir(PathBuf),
    /// Its path ends in a slash.
    Http(Url),
}

/// A compressed archive on disk that is what its narinfo announces.
pub(super) struct ArchiveFile {
    pub path: PathBuf,
    /// Held while a download lies in the store; the file is removed when dropped.
    download: Option<FileLock>,
}

impl Drop for ArchiveFile {
    fn drop(&mut self) {
        if self.download.is_some() {
            // What stays is verified again before it is used.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl BinaryCache {
    /// Opens the cache at `file:DIR`, an absolute directory, or `http(s)://…`; settings after a `?` are Nix's own.
    ///
    /// A cache of another store than `dir` is an error.
    pub fn open(text: &str, dir: &StoreDir, http: &HttpConfig) -> Result<Self, CacheError> {
        let bare = text.split('?').next().unwrap_or(text);
        let address = match bare.starts_with('/') {
            true => Address::Local(bare.into()),
            false => Address::parse(bare)?,
        };
        let place = match address {
            Address::Local(path) => CacheAddress::Dir(path),
            Address::Http(mut url) => {
                if let Ok(mut segments) = url.path_segments_mut() {
                    segments.pop_if_empty().push("");
                }
                CacheAddress::Http(*url)
            }
        };
        let cache = Self {
            place,
            transfer: Transfer::new(http),
        };
        cache.check_info(dir)?;
        Ok(cache)
    }

    /// Does not wait long between attempts any more.
    #[cfg(test)]
    pub(super) fn make_impatient(&mut self) {
        self.transfer = Transfer::impatient();
    }

    /// As the user would write it.
    pub fn display(&self) -> String {
        match &self.place {
            CacheAddress::Dir(dir) => format!("file://{}", dir.display()),
            CacheAddress::Http(url) => Address::Http(Box::new(url.clone())).display(),
        }
    }

    fn check_info(&self, dir: &StoreDir) -> Result<(), CacheError> {
        let Some(text) = self.text(&self.below(&["nix-cache-info"]))? else {
            return Err(CacheError::NotACache { cache: self.display() });
        };
        let found = store_dir_of(&text).unwrap_or(StoreDir::NIX);
        if found != dir.as_str() {
            return Err(CacheError::StoreDir {
                cache: self.display(),
                found: found.chars().take(200).collect::<String>().escape_debug().to_string(),
                wanted: dir.as_str().to_owned(),
            });
        }
        Ok(())
    }

    /// What the cache has of `path`; `None` where it has nothing.
    pub(super) fn narinfo(&self, path: &StorePath, dir: &StoreDir) -> Result<Option<NarInfo>, CacheError> {
        let address = self.below(&[&format!("{}.narinfo", path.hash())]);
        let Some(text) = self.text(&address)? else {
            return Ok(None);
        };
        let url = address.display();
        let narinfo = NarInfo::parse(&text, dir).map_err(|source| CacheError::NarInfo {
            url: url.clone(),
            source,
        })?;
        if narinfo.info.path != *path {
            return Err(CacheError::WrongPath {
                url,
                path: path.clone(),
                found: Box::new(narinfo.info.path),
            });
        }
        Ok(Some(narinfo))
    }

    /// How many bytes the compressed archive of a path has, where the cache has one and says so.
    pub fn archive_size(&self, path: &StorePath, dir: &StoreDir) -> Result<Option<u64>, CacheError> {
        Ok(self.narinfo(path, dir)?.and_then(|narinfo| narinfo.file_size))
    }

    /// The compressed archive of a narinfo, verified; one that comes over the network passes through `downloads`.
    pub(super) fn archive(
        &self,
        narinfo: &NarInfo,
        downloads: &Path,
        reporter: &dyn Reporter,
    ) -> Result<ArchiveFile, CacheError> {
        let address = self.place_of(narinfo)?;
        let url = address.display();
        if let Address::Local(path) = address {
            if !path.is_file() {
                return Err(FetchError::NotFound { url }.into());
            }
            verify(&path, narinfo, &url)?;
            return Ok(ArchiveFile { path, download: None });
        }
        fsio::create_dir_all(downloads)?;
        let key = match &narinfo.file_hash {
            Some(hash) => *hash,
            None => Digest::of(url.as_bytes()),
        };
        let path = downloads.join(format!("{}.part", key.hex()));
        // One lock for many files: there are never more lock files than these. Whoever holds one waits for no other.
        let lock = downloads.join(format!("{}.lock", &key.hex()[..2]));
        let lock = FileLock::acquire(&lock, LockKind::Exclusive)?;
        let resumed = size_of(&path) > 0;
        self.download(&address, narinfo, &path, reporter)?;
        match verify(&path, narinfo, &url) {
            // What an earlier run left may have been of something else.
            Err(CacheError::File { .. }) if resumed => {
                fsio::remove_tree(&path)?;
                self.download(&address, narinfo, &path, reporter)?;
                verify(&path, narinfo, &url)
            }
            result => result,
        }
        .inspect_err(|_| drop(fs::remove_file(&path)))?;
        Ok(ArchiveFile {
            path,
            download: Some(lock),
        })
    }

    fn download(
        &self,
        address: &Address,
        narinfo: &NarInfo,
        part: &Path,
        reporter: &dyn Reporter,
    ) -> Result<(), CacheError> {
        let name = narinfo.info.path.name().to_owned();
        let size = narinfo.file_size;
        if size.is_some_and(|size| size_of(part) == size) {
            return Ok(());
        }
        reporter.report(Event::FetchStarted {
            name: name.clone(),
            size,
        });
        let url = address.display();
        let position = || match size {
            // More than there is: begin again.
            Some(size) if size_of(part) > size => 0,
            _ => size_of(part),
        };
        self.transfer.resume(address, position, |start, content| {
            let mut file = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(part)
                .context("open", part)?;
            file.set_len(start).context("truncate", part)?;
            file.seek(SeekFrom::Start(start)).context("write", part)?;
            let mut receiver = Receiver {
                file: &mut file,
                part,
                at: start,
                most: most_bytes(narinfo),
                expected: size,
                url: &url,
            };
            receiver.receive(content, &mut |bytes| {
                reporter.report(Event::FetchProgress {
                    name: name.clone(),
                    bytes,
                });
            })
        })?;
        let bytes = size_of(part);
        let from = url.clone();
        reporter.report(Event::FetchFinished { name, bytes, from });
        Ok(())
    }

    fn below(&self, names: &[&str]) -> Address {
        match &self.place {
            CacheAddress::Dir(dir) => Address::Local(names.iter().fold(dir.clone(), |path, name| path.join(name))),
            CacheAddress::Http(url) => {
                let mut url = url.clone();
                if let Ok(mut segments) = url.path_segments_mut() {
                    segments.pop_if_empty().extend(names);
                }
                Address::Http(Box::new(url))
            }
        }
    }

    /// Where a narinfo says that its archive is: a path below the cache, with a query where the cache wants one.
    fn place_of(&self, narinfo: &NarInfo) -> Result<Address, CacheError> {
        let place = &narinfo.url;
        let outside = || CacheError::Place {
            url: self
                .below(&[&format!("{}.narinfo", narinfo.info.path.hash())])
                .display(),
            place: place.chars().take(200).collect::<String>().escape_debug().to_string(),
        };
        let (path, query) = match place.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (place.as_str(), None),
        };
        let sound = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', '%', '#', ':']);
        if !path.split('/').all(sound) {
            return Err(outside());
        }
        Ok(match &self.place {
            CacheAddress::Dir(dir) => Address::Local(dir.join(path)),
            CacheAddress::Http(url) => {
                let mut url = url.clone();
                if let Ok(mut segments) = url.path_segments_mut() {
                    segments.pop_if_empty().extend(path.split('/'));
                }
                url.set_query(query);
                Address::Http(Box::new(url))
            }
        })
    }

    /// A small file that the cache has beside its narinfos, by the names on its path; `None` where it is not there. One of
    /// more than `limit` bytes is an error.
    pub fn file(&self, names: &[&str], limit: u64) -> Result<Option<Vec<u8>>, CacheError> {
        self.bytes(&self.below(names), limit)
    }

    /// A small text file; `None` where it is not there.
    fn text(&self, address: &Address) -> Result<Option<String>, CacheError> {
        let Some(bytes) = self.bytes(address, TEXT_MAX)? else {
            return Ok(None);
        };
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(CacheError::NarInfo {
                url: address.display(),
                source: super::narinfo::NarInfoError {
                    line: 0,
                    reason: "it is not UTF-8".to_owned(),
                },
            }),
        }
    }

    /// A small file; `None` where it is not there. Some object stores say 403 of what is not there.
    fn bytes(&self, address: &Address, limit: u64) -> Result<Option<Vec<u8>>, CacheError> {
        let url = address.display();
        let read = self.transfer.with(address, |content| {
            let mut bytes = Vec::new();
            let mut content = content.take(limit + 1);
            content
                .read_to_end(&mut bytes)
                .map_err(|error| interrupted(&url, error))?;
            Ok(bytes)
        });
        let bytes = match read {
            Err(FetchError::NotFound { .. }) => return Ok(None),
            Err(FetchError::Status { status, .. }) if status == 403 => return Ok(None),
            other => other?,
        };
        if bytes.len() as u64 > limit {
            return Err(FetchError::TooLarge { url, limit }.into());
        }
        Ok(Some(bytes))
    }
}

/// The value of `StoreDir` in a `nix-cache-info`.
pub(super) fn store_dir_of(text: &str) -> Option<&str> {
    text.lines()
        .find_map(|line| line.strip_prefix("StoreDir:"))
        .map(str::trim)
}

fn size_of(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Most bytes that a compressed archive may have.
fn most_bytes(narinfo: &NarInfo) -> u64 {
    let plain = narinfo.info.nar_size;
    narinfo
        .file_size
        .unwrap_or(plain.saturating_add(plain / 16).saturating_add(OVERHEAD_MAX))
}

/// Writes what arrives to the end of a file.
struct Receiver<'a> {
    file: &'a mut File,
    part: &'a Path,
    at: u64,
    most: u64,
    expected: Option<u64>,
    url: &'a str,
}

impl Receiver<'_> {
    fn receive(&mut self, content: &mut dyn Read, progress: &mut dyn FnMut(u64)) -> Result<(), FetchError> {
        let mut buffer = vec![0; 1 << 17];
        let mut reported = self.at;
        loop {
            let count = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(interrupted(self.url, error)),
            };
            self.at += count as u64;
            if self.at > self.most {
                let (url, limit) = (self.url.to_owned(), self.most);
                return Err(FetchError::TooLarge { url, limit });
            }
            self.file.write_all(&buffer[..count]).context("write", self.part)?;
            if self.at - reported >= PROGRESS_STEP {
                reported = self.at;
                progress(self.at);
            }
        }
        match self.expected {
            Some(expected) if self.at < expected => {
                let ended = io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("it ended after {} of {expected} bytes", self.at),
                );
                Err(interrupted(self.url, ended))
            }
            _ => Ok(()),
        }
    }
}

fn interrupted(url: &str, error: io::Error) -> FetchError {
    FetchError::Interrupted {
        url: url.to_owned(),
        source: Box::new(error),
    }
}

/// Reads a compressed archive and compares it with what its narinfo announces, as far as it does.
fn verify(path: &Path, narinfo: &NarInfo, url: &str) -> Result<(), CacheError> {
    let file = |source| CacheError::File {
        url: url.to_owned(),
        source: Box::new(source),
    };
    let actual = size_of(path);
    if let Some(expected) = narinfo.file_size.filter(|&expected| expected != actual) {
        return Err(file(VerifyError::Size { expected, actual }));
    }
    let Some(hash) = narinfo.file_hash else { return Ok(()) };
    let content = File::open(path).context("open", path)?;
    let mut reader = VerifyingReader::new(content, hash, None);
    match io::copy(&mut reader, &mut io::sink()) {
        Ok(_) => Ok(()),
        Err(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<VerifyError>()) {
            Some(source) => Err(file(source.clone())),
            None => Ok(Err(error).context("read", path)?),
        },
    }
}
