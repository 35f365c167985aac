//! What the tests of Debian packages share: small packages and archives made by hand, real programs as oracles.

use std::process::Command;

use super::testing_archive::ar;
pub(crate) use super::testing_archive::control;
use crate::fetch::unpack::testing::{Tar, gzip, xz};

/// Whether `program` is on this machine; says so loudly where it is not, and fails on CI.
pub(crate) fn require(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    #[expect(clippy::disallowed_methods, reason = "CI must have every oracle")]
    let is_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(found || !is_ci, "`{program}` is not on this machine, which is CI");
    if !found {
        #[expect(clippy::print_stderr, reason = "a skipped test must not pass in silence")]
        {
            eprintln!("SKIPPED: `{program}` is not on this machine");
        }
    }
    found
}

/// Runs a real program and gives what it printed; its failure fails the test.
pub(crate) fn oracle(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// A `.deb` being made; [`crate::fetch::unpack::testing::Tar`] makes its parts.
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
