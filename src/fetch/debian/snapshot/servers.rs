//! Which snapshot *servers* there are, and where they have what.
//!
//! Invariant: no host is known here; every address comes from the spec, the configuration, apt's own table or the Release
//! files of apt's sources.

use super::super::apt::{self, Apt};
use super::super::archives::{Archives, Repository};
use super::super::sources::Kind;
use crate::fetch::{FetchConfig, FetchError};
use crate::spec::LockedArchive;

/// What stands for the time in the address of a server, as apt has it.
pub(in crate::fetch::debian) const SNAPSHOT_ID: &str = "@SNAPSHOTID@";

/// What stands there for the path of an archive on its mirrors.
const PATH: &str = "@PATH@";

/// What comes before an archive's name at a server that has an interface for programs.
const ARCHIVE_DIR: &str = "/archive/";

/// A server of snapshots.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Server {
    /// A directory or an address; may hold [`SNAPSHOT_ID`] and [`PATH`].
    address: String,
    /// What [`PATH`] may stand for.
    paths: Vec<String>,
}

impl Server {
    pub(super) fn new(address: &str, paths: Vec<String>) -> Self {
        Self {
            paths: if address.contains(PATH) { paths } else { Vec::new() },
            address: address.to_owned(),
        }
    }

    /// Where the archive stands in which a file was found. Of an archive of which nothing is known, the time is not
    /// known either.
    pub(super) fn bases(&self, archive: Option<&LockedArchive>) -> Vec<String> {
        let address = match archive {
            Some(archive) => self.address.replace(SNAPSHOT_ID, &archive.date),
            None => self.address.clone(),
        };
        match address {
            address if address.contains(SNAPSHOT_ID) => Vec::new(),
            address if address.contains(PATH) => self.paths.iter().map(|path| address.replace(PATH, path)).collect(),
            address => vec![address],
        }
    }

    /// Where its interface for programs begins, if it may have one; ends in a slash.
    pub(super) fn root(&self) -> Option<&str> {
        let is_web = ["http://", "https://"]
            .iter()
            .any(|scheme| self.address.starts_with(scheme));
        let end = self.address.find(ARCHIVE_DIR)? + 1;
        is_web.then_some(&self.address[..end])
    }
}

/// What this machine's apt knows of snapshots.
#[derive(Debug, Default)]
pub(super) struct Machine {
    /// Its table: the end of a setting's name (`Origin::Debian`), and an address.
    pub(super) table: Vec<(String, String)>,
    /// Its sources.
    pub(super) repositories: Vec<Repository>,
}

impl Machine {
    /// Asks apt; where it is not installed, there is nothing that it could know.
    pub(super) fn read(config: &FetchConfig, kind: Kind) -> Result<Self, FetchError> {
        let read = || {
            let apt = Apt::open(&config.apt_state, &config.apt, kind)?;
            Ok(Self {
                table: apt::snapshot_table()?,
                repositories: Archives::read(&apt)?.repositories().cloned().collect(),
            })
        };
        match read() {
            Err(FetchError::AptMissing { .. }) => Ok(Self::default()),
            machine => machine,
        }
    }

    /// The servers for an archive; where it is not known in which archive something was found, those for all of apt's
    /// sources.
    pub(super) fn servers(&self, archive: Option<&LockedArchive>) -> Vec<Server> {
        match archive {
            Some(archive) => self.servers_of(archive),
            None => {
                let archives = self.repositories.iter().map(|repository| &repository.archive);
                archives.flat_map(|archive| self.servers_of(archive)).collect()
            }
        }
    }

    /// The servers for an archive, in apt's order: what its table puts above a Release file, that file, then the rest.
    fn servers_of(&self, archive: &LockedArchive) -> Vec<Server> {
        let repositories: Vec<&Repository> = self.repositories_of(archive).collect();
        if repositories
            .iter()
            .any(|known| known.snapshots.as_deref() == Some("no"))
        {
            return Vec::new();
        }
        let paths = self.paths(Some(archive));
        let of_release = repositories.iter().filter_map(|known| known.snapshots.as_deref());
        let hosts: Vec<&str> = repositories.iter().map(|known| host(&known.uri)).collect();
        let (label, origin) = (&archive.label, &archive.origin);
        let mut addresses = self.named("Override::Label", label);
        addresses.extend(self.named("Override::Origin", origin));
        addresses.extend(of_release.filter(|address| address.contains(SNAPSHOT_ID)));
        addresses.extend(self.of_hosts(&hosts));
        addresses.extend(self.named("Label", label));
        addresses.extend(self.named("Origin", origin));
        let servers = addresses.into_iter().map(|address| Server::new(address, paths.clone()));
        servers.collect()
    }

    /// The table's addresses for one label or origin; apt's settings do not tell cases apart.
    fn named(&self, kind: &str, name: &str) -> Vec<&str> {
        let key = format!("{kind}::{name}");
        let entries = self
            .table
            .iter()
            .filter(|(known, _)| !name.is_empty() && known.eq_ignore_ascii_case(&key));
        entries.map(|(_, address)| address.as_str()).collect()
    }

    /// The table's addresses for hosts: `Host::NAME`, or `Host::.DOMAIN` for all hosts in it.
    fn of_hosts(&self, hosts: &[&str]) -> Vec<&str> {
        let is_meant = |name: &str| match name.starts_with('.') {
            true => hosts.iter().any(|host| host.ends_with(name)),
            false => hosts.contains(&name),
        };
        let entries = self.table.iter();
        entries
            .filter(|(key, _)| key.strip_prefix("Host::").is_some_and(is_meant))
            .map(|(_, address)| address.as_str())
            .collect()
    }

    /// The paths at which the machine's mirrors have an archive: `debian-security`.
    pub(super) fn paths(&self, archive: Option<&LockedArchive>) -> Vec<String> {
        let mut paths: Vec<String> = Vec::new();
        for known in archive.into_iter().flat_map(|archive| self.repositories_of(archive)) {
            let path = path(&known.uri).to_owned();
            if !path.is_empty() && !paths.contains(&path) {
                paths.push(path);
            }
        }
        paths
    }

    /// The machine's sources that are the same suite of the same archive, of whatever time.
    fn repositories_of<'m>(&'m self, archive: &'m LockedArchive) -> impl Iterator<Item = &'m Repository> {
        self.repositories.iter().filter(|known| {
            let known = &known.archive;
            (&known.origin, &known.label, &known.suite) == (&archive.origin, &archive.label, &archive.suite)
        })
    }
}

fn host(uri: &str) -> &str {
    let rest = uri.split_once("://").map_or("", |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    host.split(':').next().unwrap_or_default()
}

fn path(uri: &str) -> &str {
    let rest = uri.split_once("://").map_or("", |(_, rest)| rest);
    rest.split_once('/').map_or("", |(_, path)| path.trim_matches('/'))
}
