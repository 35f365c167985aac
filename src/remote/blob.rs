//! A *blob* is a sequence of bytes as the Remote Execution API names it: by its SHA-256 and its size.
//!
//! Invariant: what was read from a message is well-formed; whether bytes are the blob that they are said to be is
//! decided by hashing them here.

use bazel_remote_apis::build::bazel::remote::execution::v2 as api;
use prost::Message;

use crate::digest::Digest;

/// Name of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Blob {
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// How many there are.
    pub size: u64,
}

impl Blob {
    /// The name of these bytes.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self {
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
        }
    }

    /// A message as the bytes that travel, and their name.
    pub(super) fn of_message(message: &impl Message) -> (Self, Vec<u8>) {
        let bytes = message.encode_to_vec();
        (Self::of(&bytes), bytes)
    }

    /// As in a message; `None` for what names no blob.
    pub(super) fn from_api(digest: Option<&api::Digest>) -> Option<Self> {
        let digest = digest?;
        Some(Self {
            digest: Digest::from_hex(&digest.hash).ok()?,
            size: u64::try_from(digest.size_bytes).ok()?,
        })
    }

    /// For a message.
    pub(super) fn to_api(self) -> api::Digest {
        api::Digest {
            hash: self.digest.hex(),
            size_bytes: i64::try_from(self.size).unwrap_or(i64::MAX),
        }
    }

    /// The name by which a byte stream gives it.
    pub(super) fn resource(self, instance: &str) -> String {
        let slash = if instance.is_empty() { "" } else { "/" };
        format!("{instance}{slash}blobs/{}/{}", self.digest.hex(), self.size)
    }

    /// The name by which a byte stream takes it; `id` is the upload's own.
    pub(super) fn upload_resource(self, instance: &str, id: &str) -> String {
        let slash = if instance.is_empty() { "" } else { "/" };
        format!(
            "{instance}{slash}uploads/{id}/blobs/{}/{}",
            self.digest.hex(),
            self.size
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_api() {
        let blob = Blob::of(b"hello");
        let hash = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        assert_eq!(blob.resource(""), format!("blobs/{hash}/5"));
        assert_eq!(
            blob.upload_resource("main/x", "u"),
            format!("main/x/uploads/u/blobs/{hash}/5")
        );
        assert_eq!(Blob::from_api(Some(&blob.to_api())), Some(blob));
        for (hash, size) in [("", 0), (hash, -1), ("2cf2", 5), (&hash.replace('2', "g"), 5)] {
            let digest = api::Digest {
                hash: hash.to_owned(),
                size_bytes: size,
            };
            assert_eq!(Blob::from_api(Some(&digest)), None, "{hash} {size}");
        }
        assert_eq!(Blob::from_api(None), None);
    }
}
