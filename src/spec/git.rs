//! A *git source*: where a repository is, and what of it is wanted.
//!
//! Invariant: no address, reference or commit that passed its check can be taken for an option, makes git run a program
//! (`ext::…`), or names another file of this machine than the user did.

use std::fmt;
use std::path::{Path, PathBuf};

use url::Url;

use super::checks::{self, Check, Complaint, advise, refuse};
use super::reader::{Reader, Table};

/// `source = { git = "…", … }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitSource {
    /// `git`.
    pub address: GitAddress,
    /// `rev`, `tag` or `branch`; the repository's `HEAD` where none is given.
    pub reference: GitRef,
    /// `submodules`: whether they are part of the tree (default true).
    pub submodules: bool,
    /// `lfs`.
    pub lfs: LfsPointers,
    /// `redistribute`: whether the tree may be copied to where inputs are kept (default true).
    pub redistribute: bool,
}

/// What decides which tree a lock pins for a [`GitSource`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GitWanted {
    /// What names the commit.
    pub reference: GitRef,
    /// Whether submodules are part of the tree.
    pub submodules: bool,
    /// Whether files of Git LFS stand in place of their pointers.
    pub lfs: bool,
}

impl GitSource {
    /// What decides which tree is pinned. The address does not: a commit is the same wherever it is kept.
    pub fn wanted(&self) -> GitWanted {
        GitWanted {
            reference: self.reference.clone(),
            submodules: self.submodules,
            lfs: self.lfs == LfsPointers::Resolved,
        }
    }
}

/// The tree of a commit: what a [`GitSource`] comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GitTree {
    /// Where the repository is.
    pub address: GitAddress,
    /// Which commit.
    pub commit: GitCommit,
    /// Whether submodules are part of it, or empty directories.
    pub submodules: bool,
    /// What becomes of pointers.
    pub lfs: LfsPointers,
}

/// A tree that a lock file of a language names by its commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedTree {
    /// What the lock file's own tool calls what is taken from it, for messages.
    pub name: String,
    /// The tree.
    pub tree: GitTree,
}

/// What becomes of files that Git LFS keeps elsewhere, of which the repository has pointers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LfsPointers {
    /// They are an error: nobody wants them without knowing.
    #[default]
    Refused,
    /// `lfs = true`: the files stand in their place.
    Resolved,
    /// `lfs = false`: they stay as they are.
    Kept,
}

/// Where a repository is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum GitAddress {
    /// On this machine.
    Local(PathBuf),
    /// `https:`, `http:`, `ssh:`, `git:`, or `USER@HOST:PATH`.
    Remote(String),
}

/// How to write an address, for advice.
const ADDRESSES: &str =
    "write `https://HOST/PATH`, `ssh://USER@HOST/PATH`, `USER@HOST:PATH`, or a path relative to this file";

impl GitAddress {
    /// Parses what a spec says; paths are relative to `dir`.
    pub(super) fn parse(text: &str, dir: &Path) -> Check<Self> {
        let local = |path: PathBuf| Ok(Self::Local(dir.join(path)));
        check_characters(text)?;
        if let Some(path) = text.strip_prefix("file:").filter(|path| !path.starts_with('/')) {
            return match path {
                "" => refuse("the path is missing"),
                path => local(path.into()),
            };
        }
        match Self::absolute(text)? {
            Some(address) => Ok(address),
            None => local(checks::local_path(text)?.into()),
        }
    }

    /// The address that a lock file of a language gives; `None` where it could only be meant relative to something.
    ///
    /// # Errors
    ///
    /// Why it is none.
    pub fn of_lock_file(url: &str) -> Result<Option<Self>, String> {
        let complaint = |complaint: Complaint| complaint.label;
        check_characters(url).map_err(complaint)?;
        Self::absolute(url).map_err(complaint)
    }

    /// An address that is no path relative to something.
    fn absolute(text: &str) -> Check<Option<Self>> {
        if let Some((scheme, rest)) = text.split_once("://") {
            return Self::of_scheme(scheme, rest, text).map(Some);
        }
        if let Some(path) = text.strip_prefix("file:") {
            return Ok(Some(Self::Local(path.into())));
        }
        // As git tells `HOST:PATH` from a path with a colon in it: no slash comes before it.
        match text.split_once(':').filter(|(host, _)| !host.contains('/')) {
            Some((host, path)) => {
                check_host(host, "`USER@HOST:PATH`")?;
                match path.is_empty() || path.starts_with('-') {
                    true => refuse("the path is missing"),
                    false => Ok(Some(Self::Remote(text.to_owned()))),
                }
            }
            None if text.starts_with('/') => Ok(Some(Self::Local(text.into()))),
            None => Ok(None),
        }
    }

    fn of_scheme(scheme: &str, rest: &str, text: &str) -> Check<Self> {
        match scheme {
            "https" | "http" | "ssh" | "git" => {}
            "file" => {
                let path = Url::parse(text).ok().and_then(|url| url.to_file_path().ok());
                return path.map(Self::Local).ok_or_else(|| Complaint {
                    label: "it is no file of this machine".to_owned(),
                    help: Some("write `file:///PATH`, a space as `%20`".to_owned()),
                });
            }
            "git+https" | "git+ssh" | "git+http" | "git+file" => {
                let plain = text.trim_start_matches("git+");
                return advise("that is how documents name it", format!("write `{plain}`"));
            }
            _ => return advise(format!("`{scheme}:` is not fetched from"), ADDRESSES),
        }
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        check_host(host, &format!("`{scheme}://HOST/PATH`"))?;
        if path.trim_matches('/').is_empty() {
            return refuse("the path is missing");
        }
        if text.contains(['#', '?']) {
            return advise(
                "an address of a repository has no `#` and no `?`",
                "what is wanted of it is said by `rev`, `tag` or `branch`",
            );
        }
        match Url::parse(text) {
            Ok(_) => Ok(Self::Remote(text.to_owned())),
            Err(error) => advise(error.to_string(), ADDRESSES),
        }
    }

    /// The address that `.gitmodules` gives for a submodule of the repository that is here; relative ones begin with `./`
    /// or `../` (gitmodules(5)). What was fetched from elsewhere names no file of this machine.
    pub fn of_submodule(&self, url: &str) -> Result<Self, String> {
        let complaint = |complaint: Complaint| complaint.label;
        check_characters(url).map_err(complaint)?;
        let is_relative = url.starts_with("./") || url.starts_with("../");
        let address = match is_relative {
            true => self.relative(url)?,
            false => Self::absolute(url)
                .map_err(complaint)?
                .ok_or("it is neither an address nor begins with `./` or `../`")?,
        };
        match (self.is_local(), address.is_local()) {
            (false, true) => Err("it names a file of this machine".to_owned()),
            _ => Ok(address),
        }
    }

    fn relative(&self, url: &str) -> Result<Self, String> {
        let mut rest = url;
        let mut up = 0;
        loop {
            rest = match (rest.strip_prefix("./"), rest.strip_prefix("../")) {
                (Some(below), _) => below,
                (_, Some(above)) => {
                    up += 1;
                    above
                }
                _ => break,
            }
        }
        if rest.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err("its path is not in its shortest form".to_owned());
        }
        let above = || "it leads above where repositories are".to_owned();
        match self {
            Self::Local(path) => {
                let mut path = path.as_path();
                for _ in 0..up {
                    path = path.parent().ok_or_else(above)?;
                }
                Ok(Self::Local(path.join(rest)))
            }
            Self::Remote(text) => {
                // What stands before the path: `https://HOST/`, or `USER@HOST:`.
                let start = match text.find("://") {
                    Some(at) => at + 3 + text[at + 3..].find('/').ok_or_else(above)? + 1,
                    None => text.find(':').ok_or_else(above)? + 1,
                };
                let (host, path) = text.split_at(start);
                let mut parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
                let kept = parts.len().checked_sub(up).ok_or_else(above)?;
                parts.truncate(kept);
                parts.push(rest);
                let root = if path.starts_with('/') { "/" } else { "" };
                Ok(Self::Remote(format!("{host}{root}{}", parts.join("/"))))
            }
        }
    }

    /// Whether no network is needed.
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Local(_))
    }

    /// What a program is told.
    pub fn argument(&self) -> std::ffi::OsString {
        match self {
            Self::Local(path) => std::path::absolute(path).unwrap_or_else(|_| path.clone()).into(),
            Self::Remote(text) => text.into(),
        }
    }
}

/// As the user would write it; a login in it is left out, as whoever writes one does not mean to publish it.
impl fmt::Display for GitAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Local(path) => return write!(f, "{}", path.display()),
            Self::Remote(text) => text,
        };
        match Url::parse(text) {
            Ok(mut url) if url.password().is_some() || (url.scheme() != "ssh" && !url.username().is_empty()) => {
                // Neither fails for an address that has them.
                let _ = url.set_password(None);
                if url.scheme() != "ssh" {
                    let _ = url.set_username("");
                }
                f.write_str(url.as_str())
            }
            _ => f.write_str(text),
        }
    }
}

/// What no address may hold, whatever its kind.
fn check_characters(text: &str) -> Check {
    let helper = text.split("::").next().filter(|before| before.len() < text.len());
    let is_name = |name: &str| {
        name.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    };
    match text {
        _ if text.trim().is_empty() => advise("it is empty", ADDRESSES),
        _ if text.starts_with('-') => advise("it begins with `-`, as an option does", ADDRESSES),
        _ if text.chars().any(char::is_control) => refuse("it holds a control character"),
        _ if helper.is_some_and(is_name) => advise("`…::` is for programs that git is to run", ADDRESSES),
        _ => Ok(()),
    }
}

/// `[USER[:PASSWORD]@]HOST[:PORT]`, of which nothing can be taken for an option of ssh.
fn check_host(host: &str, form: &str) -> Check {
    let name = host.rsplit('@').next().unwrap_or_default();
    let allowed = |byte: u8| byte.is_ascii_graphic() && !b"\"'`\\<>|;&$(){}^".contains(&byte);
    match host {
        _ if name.is_empty() || name.starts_with(':') => advise("the host is missing", format!("write {form}")),
        _ if name.starts_with('-') || host.starts_with('-') => refuse("a host begins with no `-`"),
        _ if !host.bytes().all(allowed) => refuse("that is no host"),
        _ => Ok(()),
    }
}

/// What names a commit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum GitRef {
    /// The commit itself.
    Commit(GitCommit),
    /// `HEAD`, `refs/tags/…`, `refs/heads/…`, or the short name of a tag or a branch.
    Name(String),
}

impl GitRef {
    /// A lock's text, or `rev` of a spec.
    pub(super) fn parse(text: &str) -> Check<Self> {
        match GitCommit::parse(text) {
            Some(commit) => Ok(Self::Commit(commit)),
            None if matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit()) => advise(
                "a commit is written in lower case",
                format!("write `{}`", text.to_ascii_lowercase()),
            ),
            None => ref_name(text).map(|()| Self::Name(text.to_owned())),
        }
    }

    /// The reference that means `HEAD`.
    pub(super) fn head() -> Self {
        Self::Name("HEAD".to_owned())
    }

    /// Whether it names what should never change: a tag, or what may be one.
    pub fn is_tag(&self) -> bool {
        matches!(self, Self::Name(name) if name.starts_with("refs/tags/") || (!name.starts_with("refs/") && name != "HEAD"))
    }
}

/// As people call it: `tag v1`, `branch main`, `HEAD`, a commit.
impl fmt::Display for GitRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Commit(commit) => return write!(f, "commit {commit}"),
            Self::Name(name) => name,
        };
        match (name.strip_prefix("refs/tags/"), name.strip_prefix("refs/heads/")) {
            (Some(tag), _) => write!(f, "tag {tag}"),
            (_, Some(branch)) => write!(f, "branch {branch}"),
            _ => f.write_str(name),
        }
    }
}

impl GitRef {
    /// The text that a lock has for it.
    pub fn text(&self) -> &str {
        match self {
            Self::Commit(commit) => commit.as_str(),
            Self::Name(name) => name,
        }
    }
}

/// Longest name of a reference in bytes.
const REF_MAX: usize = 240;

/// The name of a reference (git-check-ref-format(1)).
fn ref_name(text: &str) -> Check {
    let forbidden = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
    let bad_part = |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with(".lock");
    match text {
        "" => refuse("it is empty"),
        _ if text.starts_with('-') => refuse("it begins with `-`, as an option does"),
        _ if text.len() > REF_MAX => refuse(format!("it is longer than {REF_MAX} bytes")),
        _ if text.contains(['~', '^', ':']) || text.contains("@{") => advise(
            "an expression is not fetched",
            "write the name of a tag or branch, or a whole commit",
        ),
        _ if text.contains(forbidden) || text.contains("..") || text.ends_with('.') || text == "@" => {
            refuse("no tag or branch has such a name")
        }
        _ if text.split('/').any(bad_part) => refuse("no tag or branch has such a name"),
        _ => Ok(()),
    }
}

/// A commit: 40 hexadecimal digits, or 64 in a repository that uses SHA-256.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct GitCommit(String);

impl GitCommit {
    /// Reads the digits, in lower case and all of them.
    pub fn parse(text: &str) -> Option<Self> {
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (matches!(text.len(), 40 | 64) && text.bytes().all(is_hex)).then(|| Self(text.to_owned()))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As many digits as people compare.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }

    /// Whether its repository uses SHA-256.
    pub fn is_sha256(&self) -> bool {
        self.0.len() == 64
    }
}

impl fmt::Display for GitCommit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Reads `source = { git = … }`.
pub(super) fn read(reader: &mut Reader<'_>, table: &Table<'_>, dir: &Path) -> Option<GitSource> {
    let given: Vec<&'static str> = ["rev", "tag", "branch"]
        .into_iter()
        .filter(|key| table.get(key).is_some())
        .collect();
    if let [first, second, ..] = given[..] {
        let field = table.get(second)?;
        let diagnostic = super::Diagnostic::new(format!("{} has both `{first}` and `{second}`", table.what))
            .at(field.key_span, "a tree is that of one commit")
            .help(format!("keep `{first}` or `{second}`"));
        reader.error(diagnostic);
    }
    let name = |prefix: &'static str| {
        move |text: &str| {
            let bare = text.strip_prefix(prefix).unwrap_or(text);
            ref_name(bare).map(|()| GitRef::Name(format!("{prefix}{bare}")))
        }
    };
    let rev = table.checked(reader, "rev", GitRef::parse);
    let tag = table.checked(reader, "tag", name("refs/tags/"));
    let branch = table.checked(reader, "branch", name("refs/heads/"));
    let reference = rev.or(tag).or(branch).map(|reference| reference.value);
    let submodules = table.flag(reader, "submodules");
    let lfs = table.flag(reader, "lfs").map(|lfs| match lfs {
        true => LfsPointers::Resolved,
        false => LfsPointers::Kept,
    });
    let redistribute = table.flag(reader, "redistribute");
    let address = table.checked(reader, "git", |text| GitAddress::parse(text, dir))?;
    Some(GitSource {
        address: address.value,
        reference: reference.unwrap_or_else(GitRef::head),
        submodules: submodules.unwrap_or(true),
        lfs: lfs.unwrap_or_default(),
        redistribute: redistribute.unwrap_or(true),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<String, String> {
        let address = GitAddress::parse(text, Path::new("/p"));
        address
            .map(|address| format!("{address:?}"))
            .map_err(|complaint| complaint.label)
    }

    #[test]
    fn addresses_are_those_that_git_fetches_from() {
        let remote = |text: &str| Ok(format!("Remote({text:?})"));
        let local = |text: &str| Ok(format!("Local({text:?})"));
        for (text, expected) in [
            ("https://x.invalid/a.git", remote("https://x.invalid/a.git")),
            ("http://x.invalid:3000/a", remote("http://x.invalid:3000/a")),
            ("ssh://git@x.invalid:22/a", remote("ssh://git@x.invalid:22/a")),
            ("git://x.invalid/a", remote("git://x.invalid/a")),
            ("git@x.invalid:a/b.git", remote("git@x.invalid:a/b.git")),
            ("../a.git", local("/p/../a.git")),
            ("vendor/a:b.git", local("/p/vendor/a:b.git")),
            ("./a b", local("/p/./a b")),
            ("/srv/a.git", local("/srv/a.git")),
            ("file:../a.git", local("/p/../a.git")),
            ("file:/srv/a.git", local("/srv/a.git")),
            ("file:///srv/a%20b.git", local("/srv/a b.git")),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    #[test]
    fn addresses_that_could_do_harm_are_refused() {
        for (text, part) in [
            ("", "empty"),
            (" ", "empty"),
            ("--upload-pack=touch /tmp/x", "option"),
            ("-x", "option"),
            ("ext::sh -c true", "programs that git is to run"),
            ("fd::17", "programs that git is to run"),
            ("foo::bar", "programs that git is to run"),
            ("https://x.invalid/a\nb", "control"),
            ("ssh://-oProxyCommand=x/a", "no `-`"),
            ("ssh://-x@h/a", "no `-`"),
            ("ssh://u@-oProxyCommand=x/a", "no `-`"),
            ("-oProxyCommand=x:a", "option"),
            ("u@-x:a", "no `-`"),
            ("u@h:-a", "missing"),
            ("u@h:", "missing"),
            (":a", "host is missing"),
            ("https:///a", "host is missing"),
            ("https://x.invalid", "path is missing"),
            ("https://x.invalid/", "path is missing"),
            ("https://x.invalid/a#v1", "`#`"),
            ("https://x.invalid/a?b", "`#`"),
            ("git+https://x.invalid/a", "documents"),
            ("ftp://x.invalid/a", "not fetched from"),
            ("file://host/a", "no file of this machine"),
            ("ssh://a;b/c", "no host"),
            ("~/a", "shell"),
        ] {
            let label = parse(text).expect_err(text);
            assert!(label.contains(part), "{text:?}: {label}");
        }
    }

    #[test]
    fn submodules_are_found_from_where_they_are_named() {
        let remote = |text: &str| GitAddress::Remote(text.to_owned());
        let local = |text: &str| GitAddress::Local(text.into());
        for (parent, url, expected) in [
            (remote("https://h/g/a.git"), "../b.git", Ok(remote("https://h/g/b.git"))),
            (remote("https://h/g/a/"), "../../b", Ok(remote("https://h/b"))),
            (remote("https://h/g/a"), "../../../b", Err("above")),
            (remote("https://h/g/a"), "./b", Ok(remote("https://h/g/a/b"))),
            (remote("u@h:g/a"), "../b", Ok(remote("u@h:g/b"))),
            (remote("u@h:/g/a"), "../b", Ok(remote("u@h:/g/b"))),
            (remote("u@h:a"), "../../b", Err("above")),
            (remote("https://h/a"), "https://i/b", Ok(remote("https://i/b"))),
            (remote("https://h/a"), "u@i:b", Ok(remote("u@i:b"))),
            (remote("https://h/a"), "/srv/b", Err("file of this machine")),
            (remote("https://h/a"), "file:///srv/b", Err("file of this machine")),
            (remote("https://h/a"), "b", Err("neither")),
            (remote("https://h/a"), "--upload-pack=x", Err("option")),
            (remote("https://h/a"), "ext::x", Err("programs")),
            (remote("https://h/a"), "../b/../../c", Err("shortest")),
            (remote("https://h/a"), "ssh://-oProxyCommand=x/b", Err("no `-`")),
            (local("/srv/a.git"), "../b.git", Ok(local("/srv/b.git"))),
            (local("/srv/a.git"), "../../../../b.git", Err("above")),
            (local("/srv/a.git"), "/srv/b", Ok(local("/srv/b"))),
            (local("/srv/a.git"), "https://h/b", Ok(remote("https://h/b"))),
        ] {
            match (parent.of_submodule(url), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{url}"),
                (Err(found), Err(part)) => assert!(found.contains(part), "{url}: {found}"),
                (found, expected) => panic!("{url}: {found:?}, not {expected:?}"),
            }
        }
    }

    #[test]
    fn references_are_names_or_whole_commits() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        for good in [
            commit,
            &commit.repeat(2)[..64],
            "HEAD",
            "v1.2.3",
            "refs/tags/v1",
            "feature/x",
            "a@b",
        ] {
            assert_eq!(GitRef::parse(good).unwrap().text(), good);
        }
        for bad in [
            "",
            "-x",
            "--all",
            "a..b",
            "a b",
            "a\nb",
            "HEAD~1",
            "v1^{}",
            "a:b",
            "@",
            "a@{1}",
            "a//b",
            "/a",
            "a/",
            ".a",
            "a/.b",
            "a.lock",
            "a.",
            "a*",
            "a?",
            "[a",
            "a\\b",
            &commit.to_uppercase(),
            &"a".repeat(300),
        ] {
            assert!(GitRef::parse(bad).is_err(), "{bad}");
        }
        assert!(GitRef::parse("v1").unwrap().is_tag() && !GitRef::head().is_tag());
        assert_eq!(GitRef::Name("refs/heads/main".to_owned()).to_string(), "branch main");
    }

    #[test]
    fn logins_are_not_shown() {
        for (text, shown) in [
            ("https://me:secret@h/a", "https://h/a"),
            ("https://token@h/a", "https://h/a"),
            ("ssh://git:secret@h/a", "ssh://git@h/a"),
            ("ssh://git@h/a", "ssh://git@h/a"),
            ("git@h:a", "git@h:a"),
        ] {
            assert_eq!(GitAddress::Remote(text.to_owned()).to_string(), shown);
        }
    }
}
