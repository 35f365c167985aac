//! What a *lock holds*: each input as it was pinned.
//!
//! Invariant: values alone; [`parse()`](super::parse()) lets in what could do no harm.

use std::collections::BTreeMap;

use crate::digest::{Digest, FileHash};
use crate::oci::{Compression, Platform};
use crate::spec::{GitCommit, GitWanted, PackageName};
use crate::store_path::LogicalPath;

/// `layerize.lock`: every input that comes from outside, pinned by hash. Names no host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lock {
    /// Debian architecture of `debs` (`amd64`), by which the platform is known that `debs`, `deb_sets`, `python` and `bases`
    /// are for; `None` while there are neither packages nor other platforms.
    pub architecture: Option<String>,
    /// Debian binary packages by name; one version each.
    pub debs: BTreeMap<String, LockedDeb>,
    /// What each set of wanted packages resolves to, by the sorted names wanted.
    pub deb_sets: BTreeMap<Vec<String>, Vec<String>>,
    /// Debian source packages by name.
    pub deb_sources: BTreeMap<String, LockedDebSource>,
    /// Downloads of `source = { url = … }`, by package name.
    pub urls: BTreeMap<PackageName, LockedUrl>,
    /// Trees of `source = { git = … }`, by package name.
    pub git: BTreeMap<PackageName, LockedGit>,
    /// Trees of commits that lock files of languages name without a hash of their content.
    pub commits: BTreeMap<GitCommit, LockedTree>,
    /// Files of Python projects that requirements leave open, by package and project.
    pub python: BTreeMap<(PackageName, String), LockedPython>,
    /// Paths of Nix stores, by the text in `contents = [{ nix = "…" }]`.
    pub nix: BTreeMap<String, LockedNix>,
    /// Bases of images, by the image's name. The one thing in a lock that may name a host: a registry's is part of an
    /// image's name.
    pub bases: BTreeMap<String, LockedBase>,
    /// Numbers of the users and groups that maintainer scripts made, by the image's name and theirs.
    pub accounts: BTreeMap<(String, String), u32>,
    /// Digests that images had when they were last recorded.
    pub golden: BTreeMap<GoldenKey, Golden>,
    /// What is for further platforms, by their Debian architecture; none of them is empty, and none is `architecture`.
    pub elsewhere: BTreeMap<String, LockedPlatform>,
    /// What machines need to build for other ones, by the Debian architecture of the machine that builds: Debian packages
    /// alone.
    pub machines: BTreeMap<String, LockedPlatform>,
}

/// What a lock holds for one platform alone; all else in it is the same for all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LockedPlatform {
    /// As [`Lock::debs`].
    pub debs: BTreeMap<String, LockedDeb>,
    /// As [`Lock::deb_sets`].
    pub deb_sets: BTreeMap<Vec<String>, Vec<String>>,
    /// As [`Lock::python`].
    pub python: BTreeMap<(PackageName, String), LockedPython>,
    /// As [`Lock::bases`].
    pub bases: BTreeMap<String, LockedBase>,
}

/// A base as pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedBase {
    /// `base` as the spec has it.
    pub reference: String,
    /// Which platform was chosen of it.
    pub platform: Platform,
    /// Digest of the manifest for that platform.
    pub sha256: Digest,
}

/// Of which image, made how, a digest is recorded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoldenKey {
    /// `[image.NAME]`.
    pub image: String,
    /// What it is for.
    pub platform: Platform,
    /// How its layers are compressed.
    pub compression: Compression,
    /// Number of the rules by which it was made.
    pub format: u32,
}

/// The digest of an image, and of what it was made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Golden {
    /// Digest of specs, lock and local sources: where these are the same, so must `digest` be.
    pub inputs: Digest,
    /// Digest of the image's manifest.
    pub digest: Digest,
}

/// A Debian binary package as pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedDeb {
    /// Where it was found; `None` in locks from before this was recorded, and for archives without a Release file.
    pub archive: Option<LockedArchive>,
    /// Debian version, with epoch if it has one.
    pub version: String,
    /// `amd64`, or `all`.
    pub architecture: String,
    /// Path in the archive's pool, without host.
    pub filename: String,
    /// Size of the `.deb` in bytes.
    pub size: u64,
    /// Digest of the `.deb`.
    pub sha256: Digest,
    /// `Depends` and `Pre-Depends`: each an alternative of locked package names (virtual ones resolved to
    /// their locked providers); versions dropped, as the solver has dealt with them.
    pub depends: Vec<Vec<String>>,
    /// Source package and its version, for the bill of materials.
    pub source: (String, String),
}

/// A part of a Debian archive as it was at one time. It names no host: mirrors and snapshot servers have the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockedArchive {
    /// `Origin` of its Release file: `Debian`. As the label, empty where the file does not say.
    pub origin: String,
    /// `Label` of its Release file: `Debian-Security`.
    pub label: String,
    /// `Codename` of its Release file (`bookworm`), which does not change as `Suite` does (`stable`, `oldstable`).
    pub suite: String,
    /// `main`; empty where the archive has none.
    pub component: String,
    /// `Date` of its Release file in UTC, as snapshot servers write it: `20261126T210335Z`.
    pub date: String,
}

impl LockedArchive {
    /// Whether `text` is a time as snapshot servers write it: `20261126T210335Z`.
    pub fn is_date(text: &str) -> bool {
        let is_digits = |range| {
            text.get(range)
                .is_some_and(|part: &str| part.bytes().all(|byte| byte.is_ascii_digit()))
        };
        text.len() == 16 && is_digits(0..8) && is_digits(9..15) && text.get(8..9) == Some("T") && text.ends_with('Z')
    }
}

/// A Debian source package as pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedDebSource {
    /// Where it was found; `None` in locks from before this was recorded, and for archives without a Release file.
    pub archive: Option<LockedArchive>,
    /// Debian version.
    pub version: String,
    /// Directory in the archive's pool, without host.
    pub directory: String,
    /// The `.dsc` and what it lists.
    pub files: Vec<LockedFile>,
}

/// A file as pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedFile {
    /// File name without directory.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// Digest.
    pub sha256: Digest,
}

/// A download as pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedUrl {
    /// Size in bytes.
    pub size: u64,
    /// Digest.
    pub sha256: Digest,
}

/// The tree of a commit as pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedGit {
    /// What it was pinned for.
    pub wanted: GitWanted,
    /// The commit.
    pub commit: GitCommit,
    /// Size of the tree's canonical archive (NAR) in bytes.
    pub size: u64,
    /// Digest of that archive.
    pub nar_hash: Digest,
}

/// The tree of a commit that a language's lock file names, with its submodules, as pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedTree {
    /// Size of the tree's canonical archive (NAR) in bytes.
    pub size: u64,
    /// Digest of that archive.
    pub nar_hash: Digest,
}

/// The file of a Python project as pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedPython {
    /// The project's version.
    pub version: String,
    /// The file's name, which says what the file is for.
    pub file: String,
    /// Which of the hashes that the project may have it has.
    pub hash: FileHash,
}

/// A path of a Nix store as pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedNix {
    /// `/nix/store/HASH-NAME`.
    pub path: LogicalPath,
    /// Digest of its canonical archive (NAR).
    pub nar_hash: Digest,
    /// Digest of what its closure consists of: of `HASH-NAME NAR-HASH`, a line for each member, sorted.
    pub closure: Digest,
}
