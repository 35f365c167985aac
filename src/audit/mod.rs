//! An *audit* reads images back and explains them: inspect, diff, verify, explain; and compares trees.
//!
//! Invariant: a report is a function of the two images' bytes; equal digests are never opened; layers are streamed and
//! no file's content is held in memory beyond a bound.

mod artifact;
mod budget;
mod diff;
mod explain;
mod facts;
mod inspect;
mod kept;
mod opened;
mod stream;
#[cfg(test)]
mod tests;
mod trees;
mod verify;

pub use artifact::{ArtifactReport, BlobReport, inspect_artifact};
pub use diff::{
    ArchiveChange, Cause, Child, Class, ContentChange, DiffOptions, DiffReport, Difference, FieldChange, FileChange,
    InsideChange, LayerChange, LayerDifference, LayerPlace, Side, SideLayer, StorePathChange, UnknownClass, diff,
    diff_indexes,
};
pub use explain::{Explanation, Followed, Mention, Reading, Seen, explain};
pub use inspect::{InspectOptions, LayerReport, Report, inspect};
pub use kept::KeptElsewhere;
pub use trees::{TreeChange, TreeClass, compare_trees};
pub use verify::{ParseProfileError, Problem, Profile, Rule, VerifyReport, verify, verify_above, verify_for};

use crate::digest::{ContentDigest, DiffId};
use crate::store_path::{LogicalPath, StoreDir};
use crate::transport::TransportError;

/// Why an image could not be audited.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The image could not be read.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A layer could not be read to its end, or is not what its digest says.
    #[error("cannot read the layer `{digest}` of `{place}`")]
    Layer {
        /// Where the image is.
        place: String,
        /// The layer.
        digest: ContentDigest,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A layer's tar is broken.
    #[error("cannot read the tar of the layer `{digest}` of `{place}`")]
    Tar {
        /// Where the image is.
        place: String,
        /// The layer.
        digest: ContentDigest,
        /// Where and why.
        #[source]
        source: crate::archive::tar::TarError,
    },
    /// A layer's tar is another than the config claims, so that nothing can be said by the claim.
    #[error("the layer `{digest}` of `{place}` unpacks to {actual}, and the config claims {claimed}")]
    Claim {
        /// Where the image is.
        place: String,
        /// The layer.
        digest: Box<ContentDigest>,
        /// The diffID in the config.
        claimed: DiffId,
        /// The diffID of the tar.
        actual: DiffId,
    },
    /// A temporary file could not be used.
    #[error(transparent)]
    Io(#[from] crate::fsio::PathError),
}

impl AuditError {
    /// What the user can do about it, where anything can be said.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Transport(error) => error.help(),
            Self::Layer { .. } | Self::Tar { .. } | Self::Claim { .. } => {
                Some("`layerize verify` says what is wrong with the image".to_owned())
            }
            Self::Io(_) => None,
        }
    }
}

/// The store path that owns a file and what follows it, by the file's path in the image.
fn owner(path: &str) -> Option<(LogicalPath, String)> {
    let absolute = format!("/{}", path.trim_start_matches('/'));
    [StoreDir::layerize(), StoreDir::nix()].iter().find_map(|dir| {
        let (path, below) = dir.split(&absolute)?;
        Some((dir.logical(&path), below.to_owned()))
    })
}

/// A size as people read it.
fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod fuzz {
    use crate::transport::ReadOptions;
    use crate::transport::read;

    #[test]
    fn fuzz_image() {
        crate::testing::fuzz("image", |bytes| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("image.tar");
            std::fs::write(&path, bytes).unwrap();
            let Ok(image) = read::any(&path, None, &ReadOptions::default()) else {
                return;
            };
            for layers in [false, true] {
                if let Ok(report) = super::inspect(&image, super::InspectOptions { layers }) {
                    let _ = report.render();
                }
            }
            if let Ok(report) = super::verify(&image) {
                let _ = report.render();
            }
            let _ = super::explain(&image, "/hello").map(drop);
            let _ = super::diff(&image, &image, &super::DiffOptions::default()).map(drop);
        });
    }
}
