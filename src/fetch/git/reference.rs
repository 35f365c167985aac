//! What a *reference* means: the commit that a tag, a branch or `HEAD` of a repository leads to now.
//!
//! Invariant: a name that could mean two things is an error.

use std::collections::BTreeMap;

use super::GitError;
use super::command::{Git, local_git_dir, operands};
use crate::fetch::resolve::most_similar;
use crate::fetch::{FetchConfig, FetchError};
use crate::spec::{GitAddress, GitCommit, GitRef};

/// Largest part of a list of references that is read, in bytes.
const LIST_MAX: usize = 256 << 20;

/// What a commit that is cut short has at least.
const SHORT_MIN: usize = 4;

/// The commit that a reference leads to.
pub(super) fn commit_of(
    address: &GitAddress,
    reference: &GitRef,
    config: &FetchConfig,
) -> Result<GitCommit, FetchError> {
    let name = match reference {
        GitRef::Commit(commit) => return Ok(commit.clone()),
        GitRef::Name(name) => name,
    };
    let remote = Remote::new(address, config)?;
    let candidates: Vec<String> = match name.as_str() {
        full if full == "HEAD" || full.starts_with("refs/") => vec![name.clone()],
        short => vec![format!("refs/tags/{short}"), format!("refs/heads/{short}")],
    };
    let listed = remote.list(&candidates)?;
    let mut found = candidates.iter().filter_map(|full| {
        // An annotated tag is an object of its own; what it leads to is listed after it.
        let peeled = listed.get(&format!("{full}^{{}}"));
        peeled.or_else(|| listed.get(full))
    });
    let repository = address.to_string();
    match (found.next(), found.next()) {
        (Some(one), Some(other)) if one != other => Err(GitError::Ambiguous {
            repository,
            name: name.clone(),
        }
        .into()),
        (Some(commit), _) => Ok(commit.clone()),
        (None, _) if name == "HEAD" => Err(GitError::NoCommits { repository }.into()),
        (None, _) if is_short_commit(name) => Err(GitError::ShortCommit {
            repository,
            text: name.clone(),
        }
        .into()),
        (None, _) => Err(remote.unknown(name, reference)?.into()),
    }
}

fn is_short_commit(name: &str) -> bool {
    name.len() >= SHORT_MIN && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a tag or branch leads to a commit now.
pub(super) fn names(address: &GitAddress, commit: &GitCommit, config: &FetchConfig) -> Result<bool, FetchError> {
    Ok(Remote::new(address, config)?
        .list(&[])?
        .values()
        .any(|named| named == commit))
}

/// A repository that is asked for its references.
struct Remote<'a>(Git<'a>);

impl<'a> Remote<'a> {
    fn new(address: &GitAddress, config: &'a FetchConfig) -> Result<Self, FetchError> {
        if let GitAddress::Local(path) = address {
            local_git_dir(path)?;
        }
        let address = address.clone();
        Ok(Self(Git { address, config }))
    }

    /// The references of these names and what they lead to; all tags and branches where none is named.
    fn list(&self, names: &[String]) -> Result<BTreeMap<String, GitCommit>, FetchError> {
        let mut command = self.0.network_command(None)?;
        command.args(["ls-remote", "--quiet"]);
        operands(&mut command, [self.0.address.argument()]);
        for name in names {
            command.arg(name);
            command.arg(format!("{name}^{{}}"));
        }
        let mut listed = self.0.run(&mut command, "list the references of")?;
        listed.truncate(LIST_MAX);
        let text = String::from_utf8_lossy(&listed);
        let references = text.lines().filter_map(|line| {
            let (commit, name) = line.split_once('\t')?;
            Some((name.to_owned(), GitCommit::parse(commit)?))
        });
        Ok(references.collect())
    }

    fn unknown(&self, name: &str, reference: &GitRef) -> Result<GitError, FetchError> {
        let all = self.list(&[])?;
        let short = |full: &str| {
            let short = full
                .strip_prefix("refs/tags/")
                .or_else(|| full.strip_prefix("refs/heads/"));
            short.map(str::to_owned)
        };
        let known: Vec<String> = all
            .keys()
            .filter(|full| !full.ends_with("^{}"))
            .filter_map(|full| short(full))
            .collect();
        Ok(GitError::NoRef {
            repository: self.0.address.to_string(),
            reference: match reference.text() == name && !name.starts_with("refs/") {
                true => format!("tag or branch `{name}`"),
                false => reference.to_string(),
            },
            similar: most_similar(
                &short(name).unwrap_or_else(|| name.to_owned()),
                known.iter().map(String::as_str),
            ),
        })
    }
}
