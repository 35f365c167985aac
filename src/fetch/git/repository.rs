//! The *repository of the cache* in which what was fetched of another one lies, bare and shallow.
//!
//! Invariant: one address has one such repository, written under its lock; whatever is wrong with it, it can be made anew.

use std::fs;
use std::path::PathBuf;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::command::{Git, NO_COMMIT, SHALLOW_REFUSED, local_git_dir, operands};
use super::{GitError, SIZE_MAX};
use crate::child::RunningChild;
use crate::digest::Digest;
use crate::fetch::{FetchConfig, FetchError};
use crate::fsio::{self, Disposable, FileLock, IoContext, LockKind, PathError, note_use};
use crate::spec::{GitAddress, GitCommit};

/// Directory of the repositories in a cache.
const REPOSITORIES: &str = "git";

/// What says, in a repository, that something of it could not be read.
const DAMAGED: &str = "damaged";

/// A repository of the cache. It is locked while something is fetched into it and not while it is read: git writes no file
/// that is there again, and two trees may need the same two repositories in different orders.
pub(super) struct Repository<'a> {
    pub git: Git<'a>,
    pub dir: PathBuf,
}

impl<'a> Repository<'a> {
    /// Fetches a commit of the repository at `address` with all its files, unless it is there.
    pub(super) fn fetch(address: GitAddress, commit: &GitCommit, config: &'a FetchConfig) -> Result<Self, FetchError> {
        if let GitAddress::Local(path) = &address {
            local_git_dir(path)?;
        }
        let format = if commit.is_sha256() { "sha256" } else { "sha1" };
        let name = Digest::of(format!("{format} {}", address.argument().display()).as_bytes());
        let all = config.cache.join(REPOSITORIES);
        fsio::create_dir_all(&all)?;
        let _lock = FileLock::acquire(&all.join(format!("{}.lock", name.hex())), LockKind::Exclusive)?;
        let repository = Self {
            git: Git { address, config },
            dir: all.join(format!("{}.git", name.hex())),
        };
        if !repository.dir.join("objects").is_dir() || repository.dir.join(DAMAGED).exists() {
            repository.make(format)?;
        }
        note_use(&repository.dir);
        repository.bring(commit)?;
        Ok(repository)
    }

    /// Makes an empty repository, whole or not at all.
    fn make(&self, format: &str) -> Result<(), FetchError> {
        fsio::remove_tree(&self.dir)?;
        let new = self.dir.with_extension("new");
        fsio::remove_tree(&new)?;
        let mut command = self.git.command(None);
        command
            .env_remove("GIT_DIR")
            .args(["init", "--quiet", "--bare", "--template="]);
        command.arg(format!("--object-format={format}")).arg(&new);
        self.git.run(&mut command, "make a repository for")?;
        fs::rename(&new, &self.dir).context("rename a repository to", &self.dir)?;
        Ok(())
    }

    /// Why something of it could not be read; who needs it next makes it anew.
    pub(super) fn damaged(&self, message: impl Into<String>) -> FetchError {
        // Without the mark the next one fails as this one does, and says so.
        let _ = fs::write(self.dir.join(DAMAGED), "");
        GitError::Damaged {
            repository: self.git.address.to_string(),
            message: message.into(),
        }
        .into()
    }

    /// Sees to it that a commit is there with all its files.
    fn bring(&self, commit: &GitCommit) -> Result<(), FetchError> {
        if self.kind(commit.as_str())?.is_some() {
            return self.check_commit(commit);
        }
        if self.git.config.offline && !self.git.address.is_local() {
            return Err(FetchError::Offline {
                name: format!("commit {} of {}", commit.short(), self.git.address),
            });
        }
        let own = format!("+{commit}:refs/layerize/{commit}");
        let Err(refused) = self.fetch_refs(&["--depth=1"], &[&own])? else {
            return self.check_commit(commit);
        };
        if refused.contains(NO_COMMIT) {
            return Err(self.no_commit(commit).into());
        }
        if refused.contains(&*self.dir.to_string_lossy()) {
            return Err(self.damaged(self.git.message(&refused)));
        }
        if !SHALLOW_REFUSED.iter().any(|word| refused.contains(word)) {
            return Err(self.git.fault("fetch from", refused.as_bytes()));
        }
        let all = [
            "+refs/heads/*:refs/layerize/heads/*",
            "+refs/tags/*:refs/layerize/tags/*",
        ];
        let unshallow: &[&str] = match self.dir.join("shallow").is_file() {
            true => &["--unshallow"],
            false => &[],
        };
        let fetched = self.fetch_refs(unshallow, &all)?;
        fetched.map_err(|message| self.git.fault("fetch from", message.as_bytes()))?;
        self.check_commit(commit)
    }

    /// Fetches by refspecs; what git says where it fails.
    fn fetch_refs(&self, options: &[&str], refspecs: &[&str]) -> Result<Result<(), String>, FetchError> {
        let mut command = self.git.network_command(Some(&self.dir))?;
        command.args(["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-gc"]);
        command.args(options);
        operands(&mut command, [self.git.address.argument()]);
        command.args(refspecs);
        let output = bounded_output(&mut command).map_err(|error| self.git.not_started(&error))?;
        Ok(match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        })
    }

    /// What kind of object a name stands for; `None` where it is not there.
    fn kind(&self, name: &str) -> Result<Option<String>, FetchError> {
        let mut command = self.git.command(Some(&self.dir));
        command.args(["cat-file", "-t", name]);
        let output = self.git.output(&mut command)?;
        let kind = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(output.status.success().then_some(kind))
    }

    fn check_commit(&self, commit: &GitCommit) -> Result<(), FetchError> {
        let repository = self.git.address.to_string();
        match self.kind(commit.as_str())? {
            Some(kind) if kind == "commit" => Ok(()),
            Some(kind) => Err(GitError::NotACommit {
                repository,
                name: commit.to_string(),
                kind,
            }
            .into()),
            None => Err(self.no_commit(commit).into()),
        }
    }

    fn no_commit(&self, commit: &GitCommit) -> GitError {
        GitError::NoCommit {
            repository: self.git.address.to_string(),
            commit: commit.to_string(),
        }
    }
}

/// The repositories in the cache; `go_on` ends the list.
///
/// # Errors
///
/// A directory that cannot be read.
pub fn stored_repositories(config: &FetchConfig, go_on: &dyn Fn() -> bool) -> Result<Vec<Disposable>, PathError> {
    let all = config.cache.join(REPOSITORIES);
    let dirs = fsio::cached_names(&all)?.into_iter().map(|name| all.join(name));
    let dirs = dirs.filter(|dir| dir.extension().is_some_and(|extension| extension == "git"));
    let stored = dirs.filter_map(|dir| {
        let used = fsio::last_use(&dir)?;
        fsio::disposable_tree(&dir, used, &dir.with_extension("size"), go_on)
    });
    Ok(stored.collect())
}

/// Removes a repository, unless somebody fetches into it or has used it since it was listed; true where it is gone.
///
/// # Errors
///
/// A file that cannot be removed.
pub fn remove_repository(repository: &Disposable) -> Result<bool, PathError> {
    let dir = &repository.path;
    let lock = FileLock::try_acquire(&dir.with_extension("lock"), LockKind::Exclusive)?;
    if lock.is_none() || fsio::last_use(dir) != Some(repository.used) {
        return Ok(false);
    }
    fsio::remove_tree(&dir.with_extension("size"))?;
    fsio::remove_tree(dir)?;
    Ok(true)
}

/// Runs a command that fetches, none of whose files may become larger than a tree may be.
fn bounded_output(command: &mut std::process::Command) -> std::io::Result<std::process::Output> {
    use std::process::Stdio;

    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut running = RunningChild::spawn(command)?;
    let limit = Rlimit {
        current: Some(SIZE_MAX),
        maximum: Some(SIZE_MAX),
    };
    // Where it has ended already, or the limit is lower, there is nothing to be bounded.
    let _ = prlimit(
        i32::try_from(running.child.id()).ok().and_then(Pid::from_raw),
        Resource::Fsize,
        limit,
    );
    let mut stderr = Vec::new();
    if let Some(mut pipe) = running.child.stderr.take() {
        std::io::Read::read_to_end(&mut std::io::Read::take(&mut pipe, 1 << 20), &mut stderr)?;
        // What is more is read and dropped, so that git does not wait for ever.
        std::io::copy(&mut pipe, &mut std::io::sink())?;
    }
    Ok(std::process::Output {
        status: running.wait()?,
        stdout: Vec::new(),
        stderr,
    })
}
