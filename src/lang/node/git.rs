//! *Git dependencies*: the repositories that a lock file names, each with its commit.
//!
//! Invariant: an address that comes back is one that git may be given; the commit is a whole one.

use crate::lang::LangError;
use crate::spec::{GitAddress, GitCommit, GitTree, LfsPointers, Lock, NamedTree};

use super::locked::{Node, NodeKind, Nodes};

/// Hosts whose repositories npm asks for by `https` whatever the lock file says, since it writes `ssh` for public ones too.
const BY_HTTPS: &[&str] = &["github.com", "gitlab.com", "bitbucket.org"];

/// Whether a lock file means a repository.
pub(super) fn is_git(resolved: &str) -> bool {
    let schemes = ["git+", "git:", "git@", "github:", "gitlab:", "bitbucket:"];
    schemes.iter().any(|scheme| resolved.starts_with(scheme))
}

/// The tree of `git+ssh://git@HOST/PATH.git#COMMIT`, and of other ways to say it.
pub(super) fn parse(resolved: &str) -> Result<GitTree, String> {
    let (url, commit) = resolved.split_once('#').ok_or("it names no commit")?;
    let commit = GitCommit::parse(commit).ok_or("its commit has not all its digits")?;
    let url = url.strip_prefix("git+").unwrap_or(url);
    let address = GitAddress::of_lock_file(&spelt_out(url))?.ok_or("its address is relative")?;
    Ok(GitTree {
        address,
        commit,
        // As npm has it: it fetches submodules, and knows nothing of Git LFS.
        submodules: true,
        lfs: LfsPointers::Kept,
    })
}

/// The address of a commit of `repo`, which may be any that git takes.
pub(super) fn address(repo: &str, commit: &str) -> String {
    match repo.starts_with("git+") {
        true => format!("{repo}#{commit}"),
        false => format!("git+{repo}#{commit}"),
    }
}

/// The repository and the commit of which a host makes a tarball: whose bytes are not always the same, so that pnpm locks none.
pub(super) fn of_hosts_tarball(url: &str) -> Option<String> {
    let (host, path) = url.strip_prefix("https://")?.split_once('/')?;
    let named = |host: &str, repository: &str, commit: &str| {
        let (owner, name) = repository.split_once('/')?;
        let is_plain = !owner.is_empty() && !name.is_empty() && GitCommit::parse(commit).is_some();
        is_plain.then(|| address(&format!("https://{host}/{repository}.git"), commit))
    };
    match host {
        "codeload.github.com" => {
            let (repository, commit) = path.split_once("/tar.gz/")?;
            named("github.com", repository, commit)
        }
        "gitlab.com" => {
            let (repository, commit) = path.split_once("/repository/archive.tar.gz?ref=")?;
            let repository = repository.strip_prefix("api/v4/projects/").unwrap_or(repository);
            named(host, &repository.replace("%2F", "/").replace("%2f", "/"), commit)
        }
        "bitbucket.org" => {
            let (repository, commit) = path.split_once("/get/")?;
            named(host, repository, commit.strip_suffix(".tar.gz")?)
        }
        _ => None,
    }
}

/// An address as git takes it.
fn spelt_out(url: &str) -> String {
    for (short, host) in [
        ("github:", "github.com"),
        ("gitlab:", "gitlab.com"),
        ("bitbucket:", "bitbucket.org"),
    ] {
        if let Some(path) = url.strip_prefix(short) {
            return format!("https://{host}/{path}");
        }
    }
    let of_host = |prefix: &str, end: char| {
        let rest = url.strip_prefix(prefix)?;
        let (host, path) = rest.split_once(end)?;
        BY_HTTPS.contains(&host).then(|| format!("https://{host}/{path}"))
    };
    of_host("ssh://git@", '/')
        .or_else(|| of_host("git@", ':'))
        .unwrap_or_else(|| url.to_owned())
}

/// The trees that a lock file names, by which `layerize.lock` pins their content.
pub(super) fn trees(nodes: &Nodes, file: &str) -> Result<Vec<NamedTree>, LangError> {
    let mut trees: Vec<NamedTree> = Vec::new();
    for (place, node) in nodes {
        let resolved = node.resolved.as_deref().filter(|resolved| is_git(resolved));
        let Some(resolved) = resolved.filter(|_| node.kind == NodeKind::Package) else {
            continue;
        };
        let tree = tree(node, resolved, file, place)?;
        if trees.iter().all(|known| known.tree != tree) {
            let name = format!("npm:{}", node.name);
            trees.push(NamedTree { name, tree });
        }
    }
    Ok(trees)
}

/// The tree that a package is.
pub(super) fn tree(node: &Node, resolved: &str, file: &str, place: &str) -> Result<GitTree, LangError> {
    parse(resolved).map_err(|reason| {
        let message = format!("the repository of `{}` cannot be taken: {reason}", node.name);
        let help = "let `npm install --package-lock-only` or `pnpm install --lockfile-only` write the lock file anew, or depend on \
                    a published version";
        LangError::at(format!("`{file}`, `{place}`"), message, help)
    })
}

/// The hash of a tree's archive, as `layerize.lock` has it.
pub(super) fn pinned(
    tree: &GitTree,
    name: &str,
    lock: &Lock,
    file: &str,
    place: &str,
) -> Result<crate::digest::FileHash, LangError> {
    match lock.commits.get(&tree.commit) {
        Some(pin) => Ok(pin.nar_hash.into()),
        None => {
            let message = format!(
                "the git dependency `{name}` (`{}`, commit {}) is not in the lock",
                tree.address,
                tree.commit.short()
            );
            Err(LangError::at(
                format!("`{file}`, `{place}`"),
                message,
                "run `layerize lock`",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "5a03d13c097e4c0eeec952a900bd79e1c43a629d";

    #[test]
    fn repositories_are_found_where_npm_finds_them() {
        for (text, address) in [
            ("git+ssh://git@github.com/a/b.git", "https://github.com/a/b.git"),
            ("git+https://github.com/a/b.git", "https://github.com/a/b.git"),
            ("git@gitlab.com:a/b/c.git", "https://gitlab.com/a/b/c.git"),
            ("github:a/b", "https://github.com/a/b"),
            ("git+ssh://git@h.invalid/a/b.git", "ssh://git@h.invalid/a/b.git"),
            ("git@h.invalid:a/b.git", "git@h.invalid:a/b.git"),
            ("git://h.invalid/a/b", "git://h.invalid/a/b"),
            ("git+file:///srv/b", "/srv/b"),
        ] {
            assert!(is_git(text), "{text}");
            let tree = parse(&format!("{text}#{COMMIT}")).unwrap();
            assert_eq!(
                (
                    tree.address.to_string().trim_start_matches("file://"),
                    tree.commit.as_str()
                ),
                (address, COMMIT)
            );
        }
    }

    #[test]
    fn tarballs_that_hosts_make_are_their_repositories() {
        let of = |url: &str| of_hosts_tarball(&url.replace("COMMIT", COMMIT));
        for (url, address) in [
            (
                "https://codeload.github.com/a/b/tar.gz/COMMIT",
                "https://github.com/a/b.git",
            ),
            (
                "https://gitlab.com/api/v4/projects/a%2Fb/repository/archive.tar.gz?ref=COMMIT",
                "https://gitlab.com/a/b.git",
            ),
            (
                "https://bitbucket.org/a/b/get/COMMIT.tar.gz",
                "https://bitbucket.org/a/b.git",
            ),
        ] {
            let tree = parse(&of(url).unwrap()).unwrap();
            assert_eq!((&*tree.address.to_string(), tree.commit.as_str()), (address, COMMIT));
        }
        for url in [
            "https://codeload.github.com/a/b/tar.gz/main",
            "https://codeload.github.com/a/tar.gz/COMMIT",
            "https://h.invalid/a/b/tar.gz/COMMIT",
            "http://codeload.github.com/a/b/tar.gz/COMMIT",
        ] {
            assert_eq!(of(url), None, "{url}");
        }
    }

    #[test]
    fn what_is_no_repository_is_refused() {
        for (text, said) in [
            ("git+https://h.invalid/a", "no commit"),
            ("git+https://h.invalid/a#main", "digits"),
            (&*format!("git+ext::sh -c x#{COMMIT}"), ""),
            (&*format!("git+-uhttps://h.invalid/a#{COMMIT}"), ""),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
