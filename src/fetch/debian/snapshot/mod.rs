//! *Snapshots*: servers that keep the files which archives dropped.
//!
//! Invariant: servers are asked one request after the other, none before the wait is over that the last one asked for;
//! what they give is verified like everything else.
//!
//! A file is looked for by time and path first: an address with `@SNAPSHOTID@` in it has the archive as it was when the
//! package was locked. Then by name and version, for which the server of `…/archive/NAME/@SNAPSHOTID@/` has an interface
//! for programs at `…/mr/`: it tells under which hashes the server keeps the files of a package, in `…/file/`.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::io::Read;

use serde::Deserialize;

use super::sources::Kind;
use crate::derive::{Download, Origin};
use crate::digest::Digest;
use crate::event::{Event, Reporter};
use crate::fetch::error::{Answer, Asked};
use crate::fetch::transfer::{Address, Transfer};
use crate::fetch::{FetchConfig, FetchError};
use crate::spec::LockedArchive;

mod servers;

use servers::{Machine, Server};

pub(super) use servers::SNAPSHOT_ID;

/// Largest answer of an interface for programs that is read, in bytes.
const ANSWER_MAX: u64 = 16 << 20;

/// The snapshot servers that the spec, the user's configuration and this machine's apt name.
///
/// For a file that is in no cache, on no mirror and not with apt, [`Snapshots::find`] is what to call.
pub(in crate::fetch) struct Snapshots<'a> {
    config: &'a FetchConfig,
    transfer: &'a Transfer<'a>,
    reporter: &'a dyn Reporter,
    /// What apt knows, for binary and for source packages; asked for when it is first needed.
    machine: [OnceCell<Machine>; 2],
    /// Hosts that were silent or busy, and places that do not work, after several attempts: they are not asked for
    /// every file again.
    given_up: RefCell<BTreeMap<String, Answer>>,
}

/// A file of a Debian package as snapshot servers know it.
struct SnapshotRequest<'a> {
    kind: Kind,
    package: &'a str,
    version: &'a str,
    filename: &'a str,
    archive: Option<&'a LockedArchive>,
    sha256: Digest,
    size: Option<u64>,
}

impl<'a> SnapshotRequest<'a> {
    fn of(download: &'a Download) -> Option<Self> {
        let (kind, package, version, filename, archive) = match &download.origin {
            Origin::Deb {
                package,
                version,
                filename,
                archive,
                ..
            } => (Kind::Binary, package, version, filename, archive),
            Origin::DebSource {
                package,
                version,
                filename,
                archive,
            } => (Kind::Source, package, version, filename, archive),
            _ => return None,
        };
        Some(Self {
            kind,
            package,
            version,
            filename,
            archive: archive.as_ref(),
            sha256: download.hash.sha256()?,
            size: download.size,
        })
    }
}

impl<'a> Snapshots<'a> {
    /// Nothing is asked yet.
    pub(in crate::fetch) fn new(
        config: &'a FetchConfig,
        transfer: &'a Transfer<'a>,
        reporter: &'a dyn Reporter,
    ) -> Self {
        Self {
            config,
            transfer,
            reporter,
            machine: [OnceCell::new(), OnceCell::new()],
            given_up: RefCell::new(BTreeMap::new()),
        }
    }

    /// Offers `take` the addresses at which snapshot servers may have a file, one after the other until it succeeds.
    /// Where it never does, gives who was asked, in order. An error of `take` that says nothing of a place is given on.
    pub(in crate::fetch) fn find<T>(
        &self,
        download: &Download,
        take: impl FnMut(&Address) -> Result<T, FetchError>,
    ) -> Result<Result<T, Vec<Asked>>, FetchError> {
        let mut search = SnapshotSearch {
            snapshots: self,
            take,
            asked: Vec::new(),
        };
        let found = match SnapshotRequest::of(download) {
            Some(wanted) => search.run(&wanted, &self.servers(&wanted)?)?,
            None => None,
        };
        Ok(found.ok_or(search.asked))
    }

    /// The servers for a file: those of the spec and the configuration, then those of apt.
    fn servers(&self, wanted: &SnapshotRequest<'_>) -> Result<Vec<Server>, FetchError> {
        let machine = self.machine(wanted.kind)?;
        let configured = self.config.apt.snapshots.iter().chain(&self.config.snapshots);
        let mut servers: Vec<Server> = configured
            .map(|address| Server::new(address, machine.paths(wanted.archive)))
            .collect();
        for server in machine.servers(wanted.archive) {
            if !servers.contains(&server) {
                servers.push(server);
            }
        }
        Ok(servers)
    }

    fn machine(&self, kind: Kind) -> Result<&Machine, FetchError> {
        let cell = &self.machine[usize::from(kind == Kind::Source)];
        if let Some(machine) = cell.get() {
            return Ok(machine);
        }
        let machine = match self.config.offline {
            // All that apt could name is behind the network.
            true => Machine::default(),
            false => Machine::read(self.config, kind)?,
        };
        Ok(cell.get_or_init(|| machine))
    }
}

/// One file being looked for.
struct SnapshotSearch<'s, 'a, F> {
    snapshots: &'s Snapshots<'a>,
    take: F,
    asked: Vec<Asked>,
}

impl<T, F: FnMut(&Address) -> Result<T, FetchError>> SnapshotSearch<'_, '_, F> {
    fn run(&mut self, wanted: &SnapshotRequest<'_>, servers: &[Server]) -> Result<Option<T>, FetchError> {
        for base in servers.iter().flat_map(|server| server.bases(wanted.archive)) {
            let address = Address::below(&base, wanted.filename)?;
            if let Some(taken) = self.ask(&base, &address)? {
                return Ok(Some(taken));
            }
        }
        let mut roots: Vec<&str> = Vec::new();
        for root in servers.iter().filter_map(Server::root) {
            if !roots.contains(&root) && !self.snapshots.config.offline {
                roots.push(root);
                if let Some(taken) = self.ask_by_version(root, wanted)? {
                    return Ok(Some(taken));
                }
            }
        }
        Ok(None)
    }

    /// Takes the file from one address; what the place says instead is noted.
    fn ask(&mut self, place: &str, address: &Address) -> Result<Option<T>, FetchError> {
        if (self.snapshots.config.offline && !address.is_local()) || self.is_given_up(place, address) {
            return Ok(None);
        }
        match (self.take)(address) {
            Ok(taken) => Ok(Some(taken)),
            Err(error) => self.note(place, address, error).map(|()| None),
        }
    }

    fn note(&mut self, place: &str, address: &Address, error: FetchError) -> Result<(), FetchError> {
        let (text, is_of_host) = (error.to_string(), !address.is_local() && is_of_host(&error));
        let answer = Answer::of(error)?;
        if answer == Answer::OtherContent {
            self.snapshots.reporter.report(Event::Warning { text });
        }
        if !answer.is_clear() {
            let key = match is_of_host {
                true => address.host(),
                false => place.to_owned(),
            };
            self.snapshots.given_up.borrow_mut().insert(key, answer);
        }
        self.push(place, answer);
        Ok(())
    }

    fn push(&mut self, place: &str, answer: Answer) {
        self.asked.push(Asked {
            place: place.to_owned(),
            answer,
        });
    }

    /// Whether a place or its host gave no clear answer before, which then counts again.
    fn is_given_up(&mut self, place: &str, address: &Address) -> bool {
        let given_up = self.snapshots.given_up.borrow();
        let answer = given_up.get(place).or_else(|| given_up.get(&address.host())).copied();
        drop(given_up);
        if let Some(answer) = answer {
            self.push(place, answer);
        }
        answer.is_some()
    }

    /// Asks a server's interface for programs under which hashes it has the file, then for that.
    fn ask_by_version(&mut self, root: &str, wanted: &SnapshotRequest<'_>) -> Result<Option<T>, FetchError> {
        let question = match wanted.kind {
            Kind::Binary => format!("mr/binary/{}/{}/binfiles", wanted.package, wanted.version),
            Kind::Source => format!("mr/package/{}/{}/srcfiles", wanted.package, wanted.version),
        };
        let address = Address::below(root, &question)?.with_query("fileinfo=1");
        let place = format!("{root}mr/");
        if self.is_given_up(&place, &address) {
            return Ok(None);
        }
        let text = match self
            .snapshots
            .transfer
            .with(&address, |content| read(content, &address))
        {
            Ok(text) => text,
            Err(error) => return self.note(&place, &address, error).map(|()| None),
        };
        let hashes = match serde_json::from_slice::<SnapshotFiles>(&text) {
            Ok(files) => files.hashes(wanted),
            Err(error) => {
                let text = format!("`{}` gave no usable answer: {error}", address.display());
                self.snapshots.reporter.report(Event::Warning { text });
                self.push(&place, Answer::Error);
                return Ok(None);
            }
        };
        for hash in &hashes {
            let address = Address::below(root, &format!("file/{hash}"))?;
            if let Some(taken) = self.ask(&format!("{root}file/"), &address)? {
                return Ok(Some(taken));
            }
        }
        if hashes.is_empty() {
            self.push(&place, Answer::NotThere);
        }
        Ok(None)
    }
}

/// Whether an error is about a host, whatever it was asked for.
fn is_of_host(error: &FetchError) -> bool {
    match error {
        FetchError::Unreachable { .. } | FetchError::Interrupted { .. } => true,
        FetchError::Status { retry_after, .. } => retry_after.is_some(),
        _ => false,
    }
}

fn read(content: &mut dyn Read, address: &Address) -> Result<Vec<u8>, FetchError> {
    let mut bytes = Vec::new();
    let read = content.take(ANSWER_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| FetchError::Interrupted {
        url: address.display(),
        source: Box::new(error),
    })?;
    match bytes.len() as u64 > ANSWER_MAX {
        true => Err(FetchError::TooLarge {
            url: address.display(),
            limit: ANSWER_MAX,
        }),
        false => Ok(bytes),
    }
}

/// What `binfiles` and `srcfiles` answer with `fileinfo=1`: by hash, the files of a version that have it.
#[derive(Deserialize)]
struct SnapshotFiles {
    fileinfo: BTreeMap<String, Vec<FileInfo>>,
}

#[derive(Deserialize)]
struct FileInfo {
    name: String,
    size: u64,
}

impl SnapshotFiles {
    /// The hashes (SHA-1 in hexadecimal; at some servers SHA-256) that may be those of a file: name and size are its.
    fn hashes(self, wanted: &SnapshotRequest<'_>) -> Vec<String> {
        let name = wanted.filename.rsplit('/').next().unwrap_or_default();
        let is_it = |info: &FileInfo| info.name == name && wanted.size.is_none_or(|size| size == info.size);
        let is_hash = |hash: &str| match hash.len() {
            40 => hash.bytes().all(|byte| byte.is_ascii_hexdigit()),
            64 => hash == wanted.sha256.hex(),
            _ => false,
        };
        let files = self.fileinfo.into_iter();
        files
            .filter(|(hash, infos)| is_hash(hash) && infos.iter().any(is_it))
            .map(|(hash, _)| hash)
            .collect()
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_snapshot() {
        crate::testing::fuzz("snapshot", |bytes| {
            let wanted = super::SnapshotRequest {
                kind: super::Kind::Binary,
                package: "hello",
                version: "2.10-3",
                filename: "pool/main/h/hello/hello_2.10-3_amd64.deb",
                archive: None,
                sha256: crate::digest::Digest::of(b""),
                size: Some(52_932),
            };
            if let Ok(files) = serde_json::from_slice::<super::SnapshotFiles>(bytes) {
                for hash in files.hashes(&wanted) {
                    assert!(hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{hash}");
                }
            }
        });
    }
}
