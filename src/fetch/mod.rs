//! A *fetch* brings a file from outside in, verified against its hash while it streams.
//!
//! Invariant: nothing is used before its digest has been checked; what was fetched is kept by digest, so
//! that two addresses of one content are one download.

use std::path::PathBuf;
use std::sync::Arc;

use crate::digest::{Digest, FileHash};
use crate::http::HttpConfig;

mod cache;
mod collect;
pub mod debian;
mod download;
mod error;
mod git;
mod gone;
mod languages;
pub mod local;
mod place;
mod resolve;
mod survey;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod transfer;
mod unpack;

pub use collect::{remove_download, stored_downloads, sweep};
pub use debian::{AptSources, EMULATOR, unpack_deb, unpack_deb_control, unpack_deb_source, unpack_emulator};
pub use download::fetch;
pub use error::{Answer, Asked, FetchError, Wanted};
pub use git::{GitError, pin_commits, remove_repository, restore_archive, stored_repositories};
pub use gone::gone;
pub use languages::{LanguageTools, ListedFile, Listing, list_python_files};
pub use place::{LocalCopy, Place, Request};
pub use resolve::{Gone, LockEntry, Update, resolve};
pub use survey::{Availability, Survey, survey};
pub use unpack::{
    Remarks, UnpackError, unpack_archive, unpack_crate, unpack_git_crates, unpack_go_module, unpack_npm,
    unpack_npm_repository, unpack_or_keep,
};

/// What the machine's user configured for downloads. The environment is read by `cli` alone.
#[derive(Debug, Clone, Default)]
pub struct FetchConfig {
    /// Where fetched files are kept, by hash (`CACHE/sha256/<hex>`).
    pub cache: PathBuf,
    /// Where apt's isolated state is kept.
    pub apt_state: PathBuf,
    /// Where apt gets packages from; default: the machine's own sources. Those of a spec: [`AptSources::of`].
    pub apt: AptSources,
    /// Places that keep files by digest, asked before addresses and mirrors.
    pub places: Vec<Arc<dyn Place>>,
    /// Debian mirrors tried before the machine's apt: directories, `file:` or `http(s):` URLs.
    pub mirrors: Vec<String>,
    /// Snapshot mirrors asked for versions that the mirrors no longer carry.
    pub snapshots: Vec<String>,
    /// What languages' own tools are configured with.
    pub languages: LanguageTools,
    /// How hosts are reached.
    pub http: HttpConfig,
    /// Whether the user says by a variable how ssh is run (`GIT_SSH_COMMAND`, `GIT_SSH`).
    pub ssh_is_chosen: bool,
    /// Use no network: what is neither in the cache nor in a local file is an error.
    pub offline: bool,
    /// Resolve Debian packages by the lists that were fetched before, where no network may be used.
    pub known_lists: bool,
}

/// Where the file of a hash is in the download cache, or would be, and its SHA-256; unverified. `None` where that is not
/// known, as nobody has fetched the file.
pub fn cached(config: &FetchConfig, hash: &FileHash) -> Option<(Digest, PathBuf)> {
    let digest = cache::sha256_in(&config.cache, hash)?;
    Some((digest, cache::path_in(&config.cache, &digest)))
}
