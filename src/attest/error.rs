//! Why a document could not be made, attached, signed or read.

use std::path::PathBuf;

use crate::digest::Digest;

/// Why something could not be attested.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] crate::fsio::PathError),
    /// What maintainer scripts did cannot be read.
    #[error(transparent)]
    Configure(#[from] crate::configure::ConfigureError),
    /// The image could not be read.
    #[error(transparent)]
    Transport(#[from] crate::transport::TransportError),
    /// The image's own files could not be read.
    #[error(transparent)]
    Image(#[from] crate::image::ImageError),
    /// The store could not be asked.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// The archive holds no manifest whose digest could be named.
    #[error("`{place}` contains no manifest, so there is no digest to refer to")]
    NoManifest {
        /// Where the image is.
        place: String,
    },
    /// A file is not a document of a kind that is known.
    #[error("`{}` is not a document that can be attached: {reason}", path.display())]
    Document {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// What the user says that a document is, is neither a known kind nor a media type.
    #[error("`--type {kind}` is not a media type")]
    Kind {
        /// What the user wrote.
        kind: String,
    },
    /// A statement is about something else.
    #[error("`{}` is not about {digest}", path.display())]
    OtherSubject {
        /// The file.
        path: PathBuf,
        /// The image.
        digest: Digest,
    },
    /// A file holds no key that is understood.
    #[error("`{}` contains no {wanted}: {reason}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// "private key" or "public key".
        wanted: &'static str,
        /// What is there instead.
        reason: &'static str,
        /// What to type.
        advice: Option<&'static str>,
    },
    /// The system gave no random numbers, or the key cannot sign.
    #[error("cannot {action}")]
    Crypto {
        /// "make a key" or "sign".
        action: &'static str,
    },
    /// More signers are wanted than there are keys.
    #[error("`--threshold {threshold}` cannot be met by {keys}{} keys", if *repeated { " different" } else { "" })]
    Threshold {
        /// How many are wanted.
        threshold: usize,
        /// How many different keys there are.
        keys: usize,
        /// Whether a key was given more than once.
        repeated: bool,
    },
    /// What is to be signed is a bundle.
    #[error("`{}` is signed already", path.display())]
    Signed {
        /// The file.
        path: PathBuf,
    },
    /// A policy for a kind of statement that names none.
    #[error("`--policy` does not apply to `--type {kind}`")]
    PolicyOfOther {
        /// The kind.
        kind: String,
    },
    /// A time that cannot be written.
    #[error("{seconds} seconds since 1970 cannot be written as an RFC 3339 time")]
    Time {
        /// The seconds.
        seconds: i64,
    },
    /// A file that would be overwritten.
    #[error("`{}` is there already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
}

impl AttestError {
    /// What the user can do about it, where anything can be said.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Configure(error) => error.help(),
            Self::Transport(error) => error.help(),
            Self::NoManifest { .. } => {
                Some("copy it to a form with a manifest: `skopeo copy docker-archive:FILE oci:DIR:TAG`".to_owned())
            }
            Self::Document { .. } => Some(
                "SPDX, CycloneDX and in-toto statements are recognised; name another kind by `--type MEDIA/TYPE`"
                    .to_owned(),
            ),
            Self::Kind { .. } => {
                Some("write spdx, cyclonedx or MEDIA/TYPE; what layerize itself writes needs no `--type`".to_owned())
            }
            Self::OtherSubject { .. } => {
                Some("make the statement for this image: `layerize provenance TARGET -o FILE`".to_owned())
            }
            Self::Key { advice, .. } => advice.map(str::to_owned),
            Self::Exists { .. } => Some("a key is never overwritten: name another file, or move this one".to_owned()),
            Self::Store(error) => error.help(),
            Self::Image(error) => error.help(),
            Self::Time { .. } => {
                Some("set the clock, or SOURCE_DATE_EPOCH, to a time before the year 10000".to_owned())
            }
            Self::Threshold { .. } => Some("name the key of every signer with a `--key FILE` of its own".to_owned()),
            Self::Signed { .. } => Some("attach it with `layerize attach`".to_owned()),
            Self::PolicyOfOther { .. } => Some("only summaries name a policy: add `--type vsa`".to_owned()),
            Self::Io(_) | Self::Crypto { .. } => None,
        }
    }
}
