//! The *lock file*: every input from outside, pinned by hash, as text that people review and merge.
//!
//! Invariant: one lock has one text ([`print()`]), and reading that text gives the lock back ([`parse()`]); it
//! names no host but in an image's name; what was read holds no name, path or size that could do harm, and every package that a
//! resolution names is there.
//!
//! # The text, version 1
//!
//! TOML; first a comment, `version = 1` and the Debian `architecture`, then an array of tables for each kind of
//! input, sorted by name: `[[archive]]` (where Debian packages were found, as it was then), `[[deb]]`, `[[deb-set]]`, `[[deb-source]]`, `[[url]]`, `[[git]]`, `[[commit]]` (trees that a
//! language's lock file names by their commits), `[[python]]`, `[[nix]]`, `[[base]]`, `[[account]]` (numbers of users and groups that
//! maintainer scripts made, which builds add); a `[[golden]]` for each image whose digest is recorded. What is for a further
//! platform comes last, in tables of its own: `[[platform.arm64.archive]]`, then `deb`, `deb-set`, `python` and `base` alike, so
//! that one more platform is one more piece of text, and all else is as it was. Before these stands what
//! machines need to build for others, by what the machine is: `[[machine.amd64.deb]]`. An entry has the same keys
//! always (but for `archive`, which entries of older locks and of archives without a Release file lack), each on a line of its own, and lists have an element a line: a review shows what changed and no more, and
//! changes of two branches merge unless they are next to each other. Where they are, either side will do, as
//! `layerize lock` adds what is missing.

mod accounts;
mod archives;
mod changes;
mod git;
mod parse;
mod platforms;
mod print;
mod python;
mod types;
mod values;

pub use accounts::ACCOUNT_NUMBERS;
pub use changes::{LockChange, changes};
pub use parse::parse;
pub use print::print;
pub use types::*;

/// Name of a lock beside its spec.
pub const FILE_NAME: &str = "layerize.lock";

/// Version of the text.
const VERSION: i64 = 1;

impl Lock {
    /// Whether an entry has this name: a Debian package or source package without its prefix, a package with a URL or a
    /// repository, a path of a Nix store as the spec writes it, an image with a base, a Python project of requirements.
    pub fn names(&self, name: &str) -> bool {
        self.all_names().any(|known| known == name)
    }

    /// The names of all entries, as [`names`](Self::names) takes them; one may come twice.
    pub fn all_names(&self) -> impl Iterator<Item = &str> {
        let packages = self.urls.keys().chain(self.git.keys()).map(|name| name.0.as_str());
        let texts = self.debs.keys().chain(self.nix.keys()).chain(self.deb_sources.keys());
        let projects = self.python.keys().map(|(_, project)| project);
        let elsewhere = self
            .elsewhere
            .values()
            .chain(self.machines.values())
            .flat_map(|platform| {
                let projects = platform.python.keys().map(|(_, project)| project);
                platform.debs.keys().chain(platform.bases.keys()).chain(projects)
            });
        texts
            .chain(self.bases.keys())
            .chain(projects)
            .chain(elsewhere)
            .map(String::as_str)
            .chain(packages)
    }
}

#[cfg(test)]
mod tests;
