//! What the tests of Debian packages share: small packages and archives made by hand, real programs as oracles.

use super::testing_archive::ar;
pub(crate) use super::testing_archive::control;
use crate::archive::testing::{Tar, gzip, xz};

/// A `.deb` being made; [`Tar`] makes its parts.
pub(crate) struct Deb {
    members: Vec<(String, Vec<u8>)>,
}

impl Deb {
    /// A package of this control paragraph, `control` and `data` uncompressed tars.
    pub(crate) fn new(control: Tar, data: Tar) -> Self {
        Self {
            members: vec![
                ("debian-binary".to_owned(), b"2.0\n".to_vec()),
                ("control.tar.gz".to_owned(), gzip(&control.finish())),
                ("data.tar.xz".to_owned(), xz(&data.finish())),
            ],
        }
    }

    pub(crate) fn member(mut self, index: usize, name: &str, content: Vec<u8>) -> Self {
        self.members[index] = (name.to_owned(), content);
        self
    }

    pub(crate) fn insert(mut self, index: usize, name: &str, content: &[u8]) -> Self {
        self.members.insert(index, (name.to_owned(), content.to_vec()));
        self
    }

    pub(crate) fn without(mut self, index: usize) -> Self {
        self.members.remove(index);
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        ar(&self.members)
    }
}
