//! Why a *tree could not be had from a repository*, and what to type next.

use std::path::PathBuf;

use crate::digest::Digest;

/// Most files that an error names.
const NAMED_MAX: usize = 10;

/// Why the tree of a commit could not be had. `repository` is its address without a login, `message` what git says.
#[expect(missing_docs, reason = "the fields are what the variant's message names")]
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// git is not on this machine.
    #[error("`git` is not installed; it is needed to fetch from `{repository}`")]
    NotInstalled { repository: String },
    /// The host gives no answer.
    #[error("cannot reach `{repository}`: {message}")]
    Unreachable { repository: String, message: String },
    /// The host wants a login, or refuses the one that git has.
    #[error("`{repository}` refuses access: {message}")]
    Denied { repository: String, message: String },
    /// ssh does not know the host.
    #[error("ssh does not know the host of `{repository}`: {message}")]
    UnknownHost { repository: String, message: String },
    /// There is no repository at the address.
    #[error("there is no git repository at `{repository}`")]
    NoRepository { repository: String },
    /// `.git` leads elsewhere.
    #[error("`{}` is a symlink: where it leads is not the repository that the spec names", path.display())]
    LinkedRepository { path: PathBuf },
    /// Another user owns the repository.
    #[error("git does not read `{repository}`: {message}")]
    Owner { repository: String, message: String },
    /// git fails for another reason.
    #[error("git cannot {action} `{repository}`: {message}")]
    Failed {
        action: &'static str,
        repository: String,
        message: String,
    },
    /// What was fetched cannot be read.
    #[error("what was fetched from `{repository}` cannot be read: {message}")]
    Damaged { repository: String, message: String },
    /// The repository has no commit yet.
    #[error("`{repository}` has no commit")]
    NoCommits { repository: String },
    /// The repository lacks a commit.
    #[error("`{repository}` has no commit {commit}")]
    NoCommit { repository: String, commit: String },
    /// The repository lacks a tag or branch.
    #[error("`{repository}` has no {reference}")]
    NoRef {
        repository: String,
        reference: String,
        /// The tag or branch whose name is most like it.
        similar: Option<String>,
    },
    /// A commit that is cut short.
    #[error("`{text}` is no tag or branch of `{repository}`, and a commit has all its 40 digits")]
    ShortCommit { repository: String, text: String },
    /// A tag and a branch have the same name.
    #[error("`{name}` is both a tag and a branch of `{repository}`")]
    Ambiguous { repository: String, name: String },
    /// Something that is no commit.
    #[error("`{name}` of `{repository}` is a {kind} and no commit")]
    NotACommit {
        repository: String,
        name: String,
        kind: String,
    },
    /// The commit's tree cannot be taken as it is.
    #[error("`{path}` of commit {commit} of `{repository}` cannot be taken: {reason}")]
    Entry {
        repository: String,
        commit: String,
        path: String,
        reason: String,
    },
    /// A submodule cannot be taken.
    #[error("the submodule `{path}` of `{repository}` cannot be taken: {reason}")]
    Submodule {
        repository: String,
        path: String,
        reason: String,
    },
    /// Files of Git LFS of which only the pointers are here.
    #[error(
        "{} of commit {commit} of `{repository}` {} in Git LFS: {}",
        count(files),
        are(files),
        list(files)
    )]
    Pointers {
        repository: String,
        commit: String,
        files: Vec<String>,
    },
    /// A file of Git LFS that is nowhere.
    #[error("`{path}` of `{repository}` is not in its Git LFS ({object}): {reason}")]
    LfsObject {
        repository: String,
        path: String,
        object: Digest,
        reason: String,
    },
    /// A commit without a file.
    #[error("the tree of commit {commit} of `{repository}` is empty")]
    Empty { repository: String, commit: String },
    /// More than anything may be.
    #[error("`{repository}` has more than {limit}")]
    TooLarge { repository: String, limit: String },
    /// The tree is another than the one that the lock pins.
    #[error(
        "commit {commit} of `{repository}` has other content than the lock says: expected {expected}, got {actual}"
    )]
    OtherTree {
        repository: String,
        commit: String,
        expected: Digest,
        actual: Digest,
    },
}

fn count(files: &[String]) -> String {
    match files.len() {
        1 => "a file".to_owned(),
        count => format!("{count} files"),
    }
}

fn are(files: &[String]) -> &'static str {
    if files.len() == 1 { "is" } else { "are" }
}

fn list(files: &[String]) -> String {
    let named: Vec<String> = files.iter().take(NAMED_MAX).map(|file| format!("`{file}`")).collect();
    match files.len().saturating_sub(NAMED_MAX) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

impl GitError {
    /// What the user can do about it: what to type next.
    pub fn help(&self) -> Option<String> {
        let help = match self {
            Self::NotInstalled { .. } => "install it (`apt-get install git`)".to_owned(),
            Self::Unreachable { .. } => {
                "check the address, the network and the proxy, then run the same command again".to_owned()
            }
            Self::Denied { repository, .. } => format!(
                "`git ls-remote {repository}` must work without a question: with a credential helper (`git help \
                 credentials`), or a key in the ssh agent"
            ),
            Self::UnknownHost { .. } => "connect to it once with `ssh`, and accept its key".to_owned(),
            Self::NoRepository { repository } if looks_like_host(repository) => {
                format!("paths are relative to the spec; an address begins with `https://`: `https://{repository}`")
            }
            Self::NoRepository { .. } => "check the address; a path is relative to the spec".to_owned(),
            Self::LinkedRepository { .. } => "name the repository that it leads to".to_owned(),
            Self::Owner { .. } => "`git help config` tells of `safe.directory`".to_owned(),
            Self::NoCommits { .. } => "commit something to it, or name a branch".to_owned(),
            Self::NoCommit { .. } => {
                "check the address and `rev`; where a tag or branch was moved, `layerize lock --update \
                                      NAME` takes its new commit"
                    .to_owned()
            }
            Self::NoRef {
                similar: Some(similar), ..
            } => format!("did you mean `{similar}`?"),
            Self::NoRef { repository, .. } => format!("`git ls-remote {repository}` lists tags and branches"),
            Self::ShortCommit { text, .. } => {
                format!(
                    "`git rev-parse {text}` in a clone prints the whole commit; a server is not asked for a part of one"
                )
            }
            Self::Ambiguous { name, .. } => format!("write `tag = \"{name}\"` or `branch = \"{name}\"`"),
            Self::NotACommit { .. } => "name a commit, or a tag or branch that leads to one".to_owned(),
            Self::Submodule { .. } => {
                "with `submodules = false` in `source`, submodules are left out: empty directories".to_owned()
            }
            Self::Pointers { .. } => {
                "write `lfs = true` in `source` to fetch them, or `lfs = false` to keep the pointers \
                                      that stand for them in the repository"
                    .to_owned()
            }
            Self::LfsObject { .. } => {
                "check that the files were pushed (`git lfs push --all`); with `lfs = false` the pointers stay"
                    .to_owned()
            }
            Self::OtherTree { .. } => {
                "a commit's own files cannot change: its submodules, its files of Git LFS or the lock \
                                       did; where what is there is right, `layerize lock --update NAME` pins it"
                    .to_owned()
            }
            Self::Damaged { .. } => "run the same command again: it is fetched anew".to_owned(),
            Self::Failed { .. } | Self::Entry { .. } | Self::Empty { .. } | Self::TooLarge { .. } => return None,
        };
        Some(help)
    }
}

/// Whether a path looks as if it were meant as an address: `HOST.DOMAIN/PATH`.
fn looks_like_host(path: &str) -> bool {
    let first = path.split('/').next().unwrap_or_default();
    path.contains('/') && first.contains('.') && first.trim_matches('.').contains('.')
}
