//! *Git dependencies*: the repositories that a `Cargo.lock` names, each with the commit and the packages that are taken.
//!
//! Invariant: an address that comes back is one that git may be given; what a repository is replaced by is told to Cargo in
//! the words of the lock file.

use std::collections::BTreeSet;

use toml::Value;
use url::Url;

use crate::digest::Digest;
use crate::lang::LangError;
use crate::spec::{GitAddress, GitCommit, GitTree, LfsPointers, NamedTree};

/// A repository of a lock file, as the manifests that name it do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GitRepository {
    /// All that stands there before the commit, `git+` first.
    source: String,
    /// The address as it stands there.
    url: String,
    /// `branch`, `tag` or `rev`, and which.
    reference: Option<(&'static str, String)>,
    pub(super) tree: GitTree,
    /// The packages that are taken from it: name and version.
    pub(super) packages: BTreeSet<(String, String)>,
}

impl GitRepository {
    /// Reads what stands behind `git+`: `URL[?branch=…|tag=…|rev=…]#COMMIT`. Lock files `encode` references since version 4.
    pub(super) fn parse(text: &str, encoded: bool) -> Result<Self, String> {
        let (source, commit) = text.split_once('#').ok_or("it names no commit")?;
        let commit = GitCommit::parse(commit).ok_or("its commit has not all its digits")?;
        let (url, query) = source.split_once('?').unwrap_or((source, ""));
        let reference = match query {
            "" => None,
            query => Some(
                reference(query, encoded).ok_or("what is wanted of it is neither a branch, a tag nor a revision")?,
            ),
        };
        let address = GitAddress::of_lock_file(url)?.ok_or("its address is relative")?;
        Ok(Self {
            source: format!("git+{source}"),
            url: url.to_owned(),
            reference,
            tree: GitTree {
                address,
                commit,
                // As Cargo has it: it fetches submodules, and knows nothing of Git LFS.
                submodules: true,
                lfs: LfsPointers::Kept,
            },
            packages: BTreeSet::new(),
        })
    }

    /// What the repository is called.
    pub(super) fn name(&self) -> &str {
        let path = self.url.trim_end_matches('/');
        let last = path.rsplit(['/', ':']).next().unwrap_or_default();
        let name = last.strip_suffix(".git").unwrap_or(last);
        if name.is_empty() { "repository" } else { name }
    }

    /// As Cargo names it, without the commit.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// Whether a name is the last part of the address.
    pub(super) fn ends_in(&self, name: &str) -> bool {
        self.url.rsplit('/').next() == Some(name)
    }

    /// The tree that `layerize.lock` pins.
    pub(super) fn named_tree(&self) -> NamedTree {
        NamedTree {
            name: format!("git-crates:{}", self.name()),
            tree: self.tree.clone(),
        }
    }

    /// Where its packages are in the sandbox: two references to one repository are two sources.
    pub(super) fn directory(&self) -> String {
        let (key, value) = self.reference.as_ref().map_or(("", ""), |(key, value)| (*key, value));
        let source = format!("{}?{key}={value}#{}", self.url, self.tree.commit);
        format!("/build/git-{}", &Digest::of(source.as_bytes()).hex()[..8])
    }

    /// What Cargo is told: that the repository is the directory.
    pub(super) fn replaced(&self) -> String {
        let quoted = |text: &str| Value::String(text.to_owned()).to_string();
        let directory = quoted(&self.directory());
        let reference = self.reference.as_ref();
        let reference = reference.map(|(key, value)| format!("{key} = {}\n", quoted(value)));
        format!(
            "[source.{}]\ngit = {}\n{}replace-with = {directory}\n[source.{directory}]\ndirectory = {directory}\n",
            quoted(&format!("layerize {}", self.directory())),
            quoted(&self.url),
            reference.unwrap_or_default()
        )
    }

    /// Why a lock that does not pin its content cannot be used.
    pub(super) fn not_locked(&self, file: &str) -> LangError {
        let message = format!(
            "the git dependency `{}` (commit {}) is not in the lock",
            self.tree.address,
            self.tree.commit.short()
        );
        LangError::at(format!("`{file}`"), message, "run `layerize lock`")
    }
}

fn reference(query: &str, encoded: bool) -> Option<(&'static str, String)> {
    let (key, value) = query.split_once('=')?;
    let key = ["branch", "tag", "rev"].into_iter().find(|known| *known == key)?;
    let value = match encoded {
        true => {
            let url = Url::parse(&format!("x:/?{query}")).ok()?;
            url.query_pairs().next()?.1.into_owned()
        }
        false => value.to_owned(),
    };
    let is_plain = !value.is_empty() && !value.contains(|c: char| c.is_control());
    is_plain.then_some((key, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "5a03d13c097e4c0eeec952a900bd79e1c43a629d";

    #[test]
    fn repositories_are_named_as_the_lock_file_names_them() {
        for (text, encoded, name, told) in [
            (
                "https://h.invalid/a/b.git",
                true,
                "b",
                "git = \"https://h.invalid/a/b.git\"\nreplace",
            ),
            ("https://h.invalid/a/b?branch=x%2Fy", true, "b", "branch = \"x/y\""),
            ("https://h.invalid/a/b?branch=x%2Fy", false, "b", "branch = \"x%2Fy\""),
            ("https://h.invalid/a/b?tag=v1+2", false, "b", "tag = \"v1+2\""),
            ("ssh://git@h.invalid/a/b/?rev=abc", true, "b", "rev = \"abc\""),
            ("file:///srv/x.git?rev=a\"b", false, "x", "rev = 'a\"b'"),
        ] {
            let repository = GitRepository::parse(&format!("{text}#{COMMIT}"), encoded).unwrap();
            assert_eq!(repository.name(), name);
            assert!(repository.replaced().contains(told), "{}", repository.replaced());
            assert!(toml::from_str::<toml::Table>(&repository.replaced()).is_ok());
            assert_eq!(repository.tree.commit.as_str(), COMMIT);
        }
    }

    #[test]
    fn what_is_no_repository_is_refused() {
        for (text, said) in [
            ("https://h.invalid/a", "no commit"),
            ("https://h.invalid/a#abc", "digits"),
            (&*format!("https://h.invalid/a?x=y#{COMMIT}"), "neither a branch"),
            (&*format!("a/b#{COMMIT}"), "relative"),
            (&*format!("ext::sh -c x#{COMMIT}"), ""),
            (&*format!("-uhttps://h.invalid/a#{COMMIT}"), ""),
        ] {
            let error = GitRepository::parse(text, true).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
