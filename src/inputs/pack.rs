//! *Packing* inputs: what is kept of a build, as the artifact that transports write.
//!
//! Invariant: no file is read before somebody lacks it; a file's bytes are in the download cache by then.

use std::path::PathBuf;

use super::artifact::{About, MadeWith, Part, PartKind, anchor_of, tag_of, write};
use super::error::InputsError;
use super::gather::Needed;
use super::portable::Portable;
use super::tree;
use crate::digest::Digest;
use crate::fetch::{self, FetchConfig};
use crate::layer::Blob;
use crate::oci::Subject;
use crate::spec::{Lock, PackageName};
use crate::transport::Companion;

use super::ARTIFACT_TYPE;

/// A package's local source in the store.
#[derive(Debug, Clone)]
pub struct LocalTree {
    /// The package.
    pub package: PackageName,
    /// Where the tree is on disk.
    pub physical: PathBuf,
    /// Hash of its canonical archive.
    pub nar_hash: Digest,
    /// Size of that archive in bytes.
    pub nar_size: u64,
}

/// What is kept of a build.
#[derive(Debug, Clone)]
pub struct ArtifactContents<'a> {
    /// The image's name in the spec; `None` for a whole project.
    pub image: Option<String>,
    /// How it was made beyond what the spec says.
    pub made_with: MadeWith,
    /// The image that it is about.
    pub subject: Option<Subject>,
    /// What pins the files.
    pub lock: &'a Lock,
    /// Files from outside.
    pub needed: &'a Needed,
    /// Texts and local files of the project; or why they cannot be carried.
    pub portable: Result<Portable, String>,
    /// Local sources; `None` where local files are not kept.
    pub sources: Option<Vec<LocalTree>>,
    /// Manifest and config of the image's base.
    pub base: Vec<Vec<u8>>,
}

/// The artifact of `contents`, with the names that it gets; files are read from the download cache of `config`.
pub fn pack(contents: &ArtifactContents<'_>, config: &FetchConfig) -> Result<Companion, InputsError> {
    let mut parts = Vec::new();
    for (file, _) in &contents.needed.files {
        let unknown = || InputsError::Size {
            name: file.name.clone(),
            file: file.file.clone(),
        };
        let (digest, path) = fetch::cached(config, &file.digest).ok_or_else(unknown)?;
        let on_disk = || path.metadata().ok().map(|metadata| metadata.len());
        let size = file.size.or_else(on_disk).ok_or_else(unknown)?;
        let kind = PartKind::Input {
            name: file.name.clone(),
            version: file.version.clone(),
            file: file.file.clone(),
            hash: Some(file.digest).filter(|hash| hash.sha256().is_none()),
        };
        let blob = Blob::File {
            path,
            offset: 0,
            len: size,
        };
        parts.push((Part { kind, digest, size }, blob));
    }
    let mut about = About {
        image: contents.image.clone(),
        made_with: contents.made_with.clone(),
        local_files: contents.sources.is_some(),
        withheld: contents.needed.withheld.iter().map(|(file, _)| file.clone()).collect(),
        ..About::default()
    };
    match &contents.portable {
        Ok(portable) => {
            about.spec = Some(portable.spec.clone());
            add_project(portable, &mut parts)?;
        }
        Err(why) => about.unportable = Some(why.clone()),
    }
    for source in contents.sources.iter().flatten() {
        let part = Part {
            kind: PartKind::Source {
                package: source.package.clone(),
            },
            digest: source.nar_hash,
            size: source.nar_size,
        };
        parts.push((part, tree::blob(&source.physical, source.nar_hash, source.nar_size)));
    }
    for document in &contents.base {
        parts.push(in_memory(PartKind::Base, document));
    }
    let artifact = write(&about, contents.subject.as_ref(), parts)?;
    let anchor = anchor_of(contents.lock);
    Ok(Companion {
        artifact,
        artifact_type: ARTIFACT_TYPE,
        tag: contents
            .subject
            .as_ref()
            .map_or_else(|| anchor.clone(), |subject| tag_of(&subject.digest)),
        anchor,
        subject: contents.subject.clone(),
        tag_of,
    })
}

fn add_project(portable: &Portable, parts: &mut Vec<(Part, Blob)>) -> Result<(), InputsError> {
    for (path, (kind, bytes)) in &portable.texts {
        let (kind, path) = (*kind, path.clone());
        parts.push(in_memory(PartKind::Text { kind, path }, bytes));
    }
    for (path, physical) in &portable.files {
        let (digest, size, blob) = tree::archive(physical)?;
        let kind = PartKind::Files { path: path.clone() };
        parts.push((Part { kind, digest, size }, blob));
    }
    Ok(())
}

fn in_memory(kind: PartKind, bytes: &[u8]) -> (Part, Blob) {
    let part = Part {
        kind,
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
    };
    (part, Blob::Bytes(bytes.into()))
}
