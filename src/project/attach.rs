//! To *attach* a document is to store it beside an image as an OCI artifact whose subject is the image.
//!
//! Invariant: this is the one module that tells places with referrers from places without.

use crate::attest;
use crate::digest::Digest;
use crate::oci::{Artifact, Reference, ReferenceError, Subject};
use crate::transport::registry::{self, PushOptions};
use crate::transport::{Layout, Location, TransportError};

use super::environment::Environment;

/// Why something could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The place failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A text is not a name.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The place keeps images alone.
    #[error("nothing can be attached to an image in `{place}`")]
    NoReferrers {
        /// The place.
        place: String,
    },
}

impl AttachError {
    /// What to type next.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Transport(error) => error.help(),
            Self::Reference(error) => error.help(),
            Self::NoReferrers { .. } => Some(
                "name a layout (`oci:DIR[:TAG]`) or a registry (`docker://NAME`), or write the document to a file with \
                 `-o FILE`"
                    .to_owned(),
            ),
        }
    }
}

/// Whether [`attach`] can store anything there.
pub fn check_place(location: &Location) -> Result<(), AttachError> {
    match location {
        Location::Layout { .. } | Location::Registry(_) => Ok(()),
        Location::Path(path) if path.is_dir() => Ok(()),
        _ => Err(AttachError::NoReferrers {
            place: location.to_string(),
        }),
    }
}

/// Stores an artifact beside its subject.
pub fn attach(artifact: &Artifact, location: &Location, environment: &Environment<'_>) -> Result<(), AttachError> {
    check_place(location)?;
    match location {
        Location::Layout { path, .. } | Location::Path(path) => Layout::new(path, None).attach(artifact)?,
        Location::Registry(name) => {
            let blobs: Vec<Vec<u8>> = artifact.blobs.iter().map(|(_, bytes)| bytes.clone()).collect();
            let target: Reference = name.parse()?;
            let (registries, reporter) = (&environment.registries, environment.reporter);
            let options = PushOptions::default();
            registry::attach(registries, &target, &artifact.manifest, &blobs, &options, reporter)?;
        }
        // Refused above.
        Location::DockerArchive { .. }
        | Location::OciArchive { .. }
        | Location::Daemon(_)
        | Location::Podman(_)
        | Location::Stdio => {}
    }
    Ok(())
}

/// A signed bundle as the artifact that is attached to `subject`.
pub fn bundle_artifact(bundle: Vec<u8>, subject: Subject) -> Artifact {
    let kind = attest::kind_of(&bundle).expect("our own bundles are known");
    let file_name = format!("sha256-{}.sigstore.json", Digest::of(&bundle).hex());
    attest::artifact(&kind, bundle, subject, &file_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Referrers are an API of registries and of layouts (an `index.json` may list any manifest); archives and engines
    /// keep images alone.
    #[test]
    fn documents_are_attached_in_layouts_and_registries_only() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().to_str().unwrap();
        for place in ["oci:d:v1", "docker://r.example/a:1", dir] {
            assert!(check_place(&place.parse().unwrap()).is_ok(), "{place}");
        }
        for place in ["docker-archive:f", "oci-archive:f", "docker-daemon:a:1", "f.tar", "-"] {
            let error = check_place(&place.parse().unwrap()).unwrap_err();
            assert!(error.help().unwrap().contains("oci:DIR"), "{place}");
        }
    }
}
