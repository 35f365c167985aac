//! A *request* says what an image is made of, as plain data: nothing in it is looked up again.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::base::Base;
use crate::digest::Digest;
use crate::layer::partition::{History, LayerPlan};
use crate::oci::Platform;
use crate::spec;
use crate::store_path::{PathInfo, StoreDir};

/// Everything that an image is made of.
pub struct ImageRequest<'a> {
    /// The spec's image, or an equivalent made from command-line flags. Its `contents`, `root`, `platform` and
    /// `compression` are not read: they are resolved in the fields below and in the pack options.
    pub spec: &'a spec::Image,
    /// What is joined under `/`, in the order of the spec's `contents`; each a member of `closure`.
    pub contents: Vec<ContentRoot>,
    /// All store paths that go in at their own place, in any order.
    pub closure: Vec<ClosureMember>,
    /// Debian packages laid out at `/`, in order.
    pub root: Vec<RootPackage>,
    /// What was made for this image by something else than its spec: a Nix database. Nothing may stand in its place.
    pub generated: Vec<Generated>,
    /// The image that this one is laid over.
    pub base: Option<Base>,
    /// What the image is for.
    pub platform: Platform,
    /// Seconds since 1970 that the config's `created` says: `SOURCE_DATE_EPOCH`, else 1.
    pub created: i64,
    /// The layer plan to be used as it is (the spec's `layers.plan`, read and parsed); `None`: one is made.
    pub plan: Option<LayerPlan>,
    /// The layer plan of the release before, from which a new one starts.
    pub previous: Option<LayerPlan>,
    /// What was seen to change, from elsewhere than `previous`.
    pub history: History,
}

/// An entry of an image that was made for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// Absolute path in the image.
    pub path: String,
    /// What it is.
    pub kind: GeneratedKind,
}

/// What a [`Generated`] entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GeneratedKind {
    /// A directory with these permission bits.
    Directory(u32),
    /// A file, 0644.
    File(Arc<[u8]>),
    /// A symlink.
    Symlink(String),
}

/// A store path that is joined under `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentRoot {
    /// What the user calls it, for messages: `hello`, `deb:curl`.
    pub name: String,
    /// Absolute logical path.
    pub logical: String,
}

/// A store path that goes into the image at its own place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosureMember {
    /// Name part of the store path, for messages and for the groups and weights of the spec: `hello-2.10`.
    pub name: String,
    /// Absolute logical path.
    pub logical: String,
    /// Where its tree is on disk.
    pub physical: PathBuf,
    /// SHA-256 of its canonical archive.
    pub nar_hash: Digest,
    /// Size of that archive in bytes.
    pub nar_size: u64,
    /// Absolute logical paths of the members it refers to, itself left out.
    pub references: BTreeSet<String>,
}

impl ClosureMember {
    /// The member that a store's record describes, its tree being at `physical`.
    pub fn new(info: &PathInfo, dir: &StoreDir, physical: PathBuf) -> Self {
        Self {
            name: info.path.name().to_owned(),
            logical: dir.join(&info.path),
            physical,
            nar_hash: info.nar_hash,
            nar_size: info.nar_size,
            references: info.references.iter().map(|reference| dir.join(reference)).collect(),
        }
    }
}

/// A Debian package whose tree is laid out at `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootPackage {
    /// Package name.
    pub name: String,
    /// Debian version.
    pub version: String,
    /// Absolute logical path of its store path, by which layer plans name it; the image has its files at `/` instead.
    pub logical: String,
    /// Where its tree is on disk.
    pub physical: PathBuf,
    /// SHA-256 of the tree's canonical archive.
    pub nar_hash: Digest,
    /// Size of that archive in bytes.
    pub nar_size: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_names_everything_by_logical_paths() {
        let path = |text: &str| text.parse().unwrap();
        let info = PathInfo {
            path: path("1mdqa9w1p6cmli6976v4wi0sw9r4p5pr-hello-2.10"),
            nar_hash: Digest::of(b"x"),
            nar_size: 7,
            references: BTreeSet::from([path("0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-libc6-2.36")]),
            self_reference: true,
        };
        let member = ClosureMember::new(&info, &StoreDir::nix(), PathBuf::from("/physical"));
        assert_eq!(member.name, "hello-2.10");
        assert_eq!(member.logical, "/nix/store/1mdqa9w1p6cmli6976v4wi0sw9r4p5pr-hello-2.10");
        let references: Vec<_> = member.references.into_iter().collect();
        assert_eq!(references, ["/nix/store/0mdqa9w1p6cmli6976v4wi0sw9r4p5pr-libc6-2.36"]);
    }
}
