//! What a spec puts into an image besides packages: files, accounts, modes and owners.
//!
//! Invariant: plain values; what comes of them is `image`'s to say.

use std::fmt;

use serde::Serialize;

use crate::capability::FileCapabilities;

/// A file, directory or symlink that the spec puts into an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImageFile {
    /// What it is.
    pub kind: ImageFileKind,
    /// Permission bits; default 0644 for files (0755 where executable on disk), 0755 for directories.
    pub mode: Option<u32>,
    /// Numeric or named owner; default 0.
    pub owner: Option<String>,
    /// Numeric or named group; default 0.
    pub group: Option<String>,
}

/// Mode, owner and capabilities of something in an image, wherever it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Permission {
    /// Of what.
    pub paths: PermissionPaths,
    /// Permission bits; not those of symlinks.
    pub mode: Option<u32>,
    /// Numeric or named owner.
    pub owner: Option<String>,
    /// Numeric or named group.
    pub group: Option<String>,
    /// Capabilities of regular files; none of them: that they have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<FileCapabilities>,
}

/// What a [`Permission`] is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PermissionPaths {
    /// One absolute path.
    Path(String),
    /// All absolute paths that a pattern of `*`, `**` and `?` fits.
    Pattern(String),
}

impl fmt::Display for PermissionPaths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(text) | Self::Pattern(text) => f.write_str(text),
        }
    }
}

/// What kind of entry an [`ImageFile`] makes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageFileKind {
    /// `"path"` or `{ source = "path" }`: a file or tree relative to the spec.
    Source(String),
    /// `{ text = "…" }`: content given in the spec.
    Text(String),
    /// `{ symlink = "target" }`.
    Symlink(String),
    /// `{ directory = true }`: an empty directory.
    Directory,
}

/// A line of `etc/passwd` and its group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct User {
    /// Numeric user ID.
    pub uid: u32,
    /// Numeric group ID (default: the same as `uid`).
    pub gid: u32,
    /// Home directory (default `/`).
    pub home: String,
    /// Login shell (default `/sbin/nologin`).
    pub shell: String,
}
