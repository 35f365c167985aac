//! *Places of specs* that are not on this machine's own ground: repositories and archives, whose tree holds a spec.
//!
//! A place is fetched as the source of a package is: by a spec of our own with one package, whose lock pins what was fetched. So
//! a tag that moved is told, and what was fetched once needs no network.
//!
//! Invariant: a spec of a place reads nothing outside of its tree, and nothing of it is written to: its lock must be current.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::digest::{Digest, HashingWriter};
use crate::fetch::Update;
use crate::fsio::{self, FileLock, IoContext, LockKind, PathError, create_dir_all, walk};
use crate::spec::{ImageFileKind, PackageName, Source, Workspace};

use super::environment::{Environment, WorkOptions};
use super::error::ProjectError;
use super::files::{Project, SPEC_NAME};
use super::target::Target;
use super::work;

/// The package of our own spec.
const PACKAGE: &str = "spec";

/// Characters of a digest in the name of a place's directory.
const KEY_CHARS: usize = 32;

/// Beginnings of addresses of repositories, and what git calls them.
const REPOSITORIES: [(&str, &str); 5] = [
    ("git+https://", "https://"),
    ("git+http://", "http://"),
    ("git+ssh://", "ssh://"),
    ("git+file://", "file://"),
    ("git+file:", "file:"),
];

/// Where a spec is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecPlace {
    /// As the user writes it.
    text: String,
    source: PlaceSource,
    /// Directory of the spec in the tree; empty: the tree itself.
    dir: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum PlaceSource {
    /// A repository, and what names the commit: a key of specs and its value.
    Git {
        address: String,
        reference: Option<(&'static str, String)>,
    },
    /// An archive on this machine.
    Archive(PathBuf),
}

/// Why a text is no place, or a place has no spec that can be used.
#[derive(Debug, thiserror::Error)]
pub enum SpecPlaceError {
    /// A text is no place.
    #[error("`{text}` is no place of a spec: {reason}")]
    Malformed {
        /// The text.
        text: String,
        /// Why.
        reason: &'static str,
    },
    /// A tree has no spec.
    #[error("`{place}` has no {SPEC_NAME}{}", if dir.is_empty() { String::new() } else { format!(" in `{dir}`") })]
    NoSpec {
        /// The place.
        place: String,
        /// Where in its tree.
        dir: String,
    },
    /// A spec names something outside of its tree.
    #[error("a spec from elsewhere, or a link beside it, leads out of its own tree: `{path}`")]
    Outside {
        /// What it names, or the link.
        path: String,
    },
}

impl SpecPlaceError {
    /// What to type next.
    pub fn help(&self) -> String {
        match self {
            Self::Malformed { .. } => {
                "write `github:OWNER/REPOSITORY[/REF]`, `git+https://HOST/PATH[?rev=|tag=|branch=…&dir=…]`, \
                                       `git+ssh://…`, `git+file:PATH` or `file:ARCHIVE`, and `#NAME` behind it"
                    .to_owned()
            }
            Self::NoSpec { .. } => "name its directory: `?dir=PATH` behind the address".to_owned(),
            Self::Outside { .. } => "get the repository with git, look at it, and use it from there".to_owned(),
        }
    }
}

/// A place that was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedPlace {
    /// The tree, in the store.
    pub tree: PathBuf,
    /// The spec in it.
    pub spec: PathBuf,
}

impl SpecPlace {
    /// Splits `PLACE#NAME`; `None` where a text is none, but a name of a spec, a path or an image.
    pub fn parse(text: &str, here: &Path) -> Option<Result<(Self, Option<String>), SpecPlaceError>> {
        let (place, name) = match text.split_once('#') {
            Some((place, name)) => (place, Some(name.to_owned())),
            None => (text, None),
        };
        let source = Self::source(place, here)?;
        let malformed = |reason| SpecPlaceError::Malformed {
            text: text.to_owned(),
            reason,
        };
        let named = name.filter(|name| !name.is_empty());
        Some(source.map_err(malformed).map(|(source, dir)| {
            let place = Self {
                text: place.to_owned(),
                source,
                dir,
            };
            (place, named)
        }))
    }

    fn source(place: &str, here: &Path) -> Option<Result<(PlaceSource, String), &'static str>> {
        if let Some(path) = place.strip_prefix("github:") {
            let parts: Vec<&str> = path.splitn(3, '/').collect();
            return Some(match parts[..] {
                [owner, name, ..] if !owner.is_empty() && !name.is_empty() => {
                    let reference = parts.get(2).filter(|reference| !reference.is_empty());
                    let address = format!("https://github.com/{owner}/{name}");
                    let reference = reference.map(|reference| ("rev", (*reference).to_owned()));
                    Ok((PlaceSource::Git { address, reference }, String::new()))
                }
                _ => Err("the owner or the repository is missing"),
            });
        }
        for (prefix, address) in REPOSITORIES {
            if let Some(rest) = place.strip_prefix(prefix) {
                let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
                return Some(Self::with_query(address, path, query, here));
            }
        }
        if place.starts_with("git+") {
            return Some(Err("git does not fetch from there"));
        }
        let path = place.strip_prefix("file:")?;
        Some(match path.trim_start_matches("//") {
            "" => Err("the path is missing"),
            path => Ok((PlaceSource::Archive(here.join(path)), String::new())),
        })
    }

    fn with_query(scheme: &str, path: &str, query: &str, here: &Path) -> Result<(PlaceSource, String), &'static str> {
        if path.is_empty() {
            return Err("the path is missing");
        }
        let (mut reference, mut dir) = (None, String::new());
        for (key, value) in query
            .split('&')
            .filter(|part| !part.is_empty())
            .map(|part| part.split_once('=').unwrap_or((part, "")))
        {
            match key {
                "rev" | "ref" if reference.is_none() => reference = Some(("rev", value.to_owned())),
                "tag" if reference.is_none() => reference = Some(("tag", value.to_owned())),
                "branch" if reference.is_none() => reference = Some(("branch", value.to_owned())),
                "rev" | "ref" | "tag" | "branch" => return Err("it names more than one of rev, tag and branch"),
                "dir" => value.clone_into(&mut dir),
                _ => return Err("of what stands behind `?` only rev, tag, branch and dir are known"),
            }
        }
        let address = match scheme.starts_with("file") {
            true => format!("file://{}", here.join(path).display()),
            false => format!("{scheme}{path}"),
        };
        Ok((PlaceSource::Git { address, reference }, dir))
    }

    /// Fetches its tree, and gives where the spec is. What names no fixed commit is asked anew where the network may be used.
    pub fn fetch(&self, options: &WorkOptions, environment: &Environment<'_>) -> Result<FetchedPlace, ProjectError> {
        let text = self.own_spec()?;
        let key = &Digest::of(self.text.as_bytes()).hex()[..KEY_CHARS];
        let dir = environment.caches_dir().join("places").join(key);
        create_dir_all(&dir)?;
        let _one_at_a_time = FileLock::acquire(&dir.join("lock"), LockKind::Exclusive)?;
        fsio::write_atomic(&dir.join(SPEC_NAME), text.as_bytes())?;
        let environment = Environment {
            file: Some(dir.clone()),
            here: dir.clone(),
            within: None,
            ..environment.clone()
        };
        let options = WorkOptions {
            locked: false,
            ..options.clone()
        };
        if self.may_move() && !options.offline {
            let mut project = Project::load(&environment)?;
            project.update_lock(&Update::Everything, false, &options.mirrors, &environment)?;
        }
        let work = work::prepare_package(&PACKAGE.to_owned(), &options, &environment)?;
        let target = Target::Package(PackageName(PACKAGE.to_owned()));
        work.add_root(&target)?;
        let path = work.path(&work.plan.packages[&PackageName(PACKAGE.to_owned())]);
        let tree = work.store.physical(&path);
        let tree = tree.canonicalize().context("resolve", &tree)?;
        if let Some(link) = link_outside(&tree)? {
            let path = link.strip_prefix(&tree).unwrap_or(&link).display().to_string();
            return Err(SpecPlaceError::Outside { path }.into());
        }
        let spec = fsio::normalize(&tree.join(&self.dir)).join(SPEC_NAME);
        if !is_within(&spec, &tree) || !spec.is_file() {
            return Err(SpecPlaceError::NoSpec {
                place: self.text.clone(),
                dir: self.dir.clone(),
            }
            .into());
        }
        Ok(FetchedPlace { tree, spec })
    }

    /// Whether what it names may be another commit tomorrow, and nobody need be told.
    fn may_move(&self) -> bool {
        let PlaceSource::Git { reference, .. } = &self.source else {
            return false;
        };
        let fixed = |value: &String| value.len() >= 40 && value.bytes().all(|byte| byte.is_ascii_hexdigit());
        match reference {
            Some(("tag", _)) => false,
            Some((_, value)) => !fixed(value),
            None => true,
        }
    }

    /// The spec by which the tree is fetched.
    fn own_spec(&self) -> Result<String, ProjectError> {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let source = match &self.source {
            PlaceSource::Git { address, reference } => {
                let reference = reference.as_ref();
                let reference = reference.map(|(key, value)| format!(", {key} = {}", quoted(value)));
                format!("git = {}{}", quoted(address), reference.unwrap_or_default())
            }
            PlaceSource::Archive(path) => {
                let mut file = File::open(path).context("open", path)?;
                let mut hashed = HashingWriter::new(io::sink());
                io::copy(&mut file, &mut hashed).context("read", path)?;
                let digest = hashed.finish().1.digest();
                let address = format!("file://{}", path.display());
                format!("url = {}, sha256 = {}", quoted(&address), quoted(&digest.hex()))
            }
        };
        Ok(format!("[package.{PACKAGE}]\nsource = {{ {source} }}\n"))
    }
}

/// Whether a path, its links followed, is in a tree; one that is not there is where it would be.
pub(super) fn is_within(path: &Path, tree: &Path) -> bool {
    let existing = path.ancestors().find_map(|path| path.canonicalize().ok());
    existing.is_some_and(|path| path.starts_with(tree))
}

/// Refuses a spec whose local files are not all in the tree that it comes from.
pub(super) fn check_within(workspace: &Workspace, tree: &Path) -> Result<(), ProjectError> {
    let sources = workspace.packages.values().filter_map(|package| {
        let source = &package.source.as_ref()?.value;
        let path = match source {
            Source::Path { path, .. } => path.clone(),
            _ => return None,
        };
        Some(package.dir.join(path))
    });
    let files = workspace.images.values().flat_map(|image| {
        let files = image.files.values();
        files.filter_map(|file| match &file.value.kind {
            ImageFileKind::Source(path) => Some(image.dir.join(path)),
            _ => None,
        })
    });
    let read = workspace.files.iter().map(|file| tree.join(&file.path));
    for path in sources.chain(files).chain(read) {
        if !is_within(&path, tree) {
            return Err(SpecPlaceError::Outside {
                path: path.display().to_string(),
            }
            .into());
        }
    }
    Ok(())
}

/// The first link of a tree that leads out of it: whoever reads through it reads something else than was fetched.
fn link_outside(tree: &Path) -> Result<Option<PathBuf>, PathError> {
    for entry in walk(tree) {
        let entry = entry?;
        if entry.file_type().is_symlink() {
            let target = fs::read_link(entry.path()).context("read the link", entry.path())?;
            let parent = entry.path().parent().unwrap_or(tree);
            if target.is_absolute()
                || !fsio::normalize(&parent.join(target)).starts_with(tree)
                || !is_within(entry.path(), tree)
            {
                return Ok(Some(entry.into_path()));
            }
        }
    }
    Ok(None)
}

/// As the user writes it.
impl std::fmt::Display for SpecPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_from_names() {
        let here = Path::new("/here");
        for name in [
            "hello",
            "./x",
            "docker://registry.example/x",
            "oci:dir",
            "docker-archive:x.tar",
            "base:openssl",
            "deb:gcc",
        ] {
            assert!(SpecPlace::parse(name, here).is_none(), "{name}");
        }
        let git = |address: &str, reference: Option<(&'static str, &str)>| PlaceSource::Git {
            address: address.to_owned(),
            reference: reference.map(|(key, value)| (key, value.to_owned())),
        };
        for (text, source, dir, name) in [
            ("github:a/b", git("https://github.com/a/b", None), "", None),
            (
                "github:a/b/v1/x#app",
                git("https://github.com/a/b", Some(("rev", "v1/x"))),
                "",
                Some("app"),
            ),
            (
                "git+https://h/p?tag=v1&dir=sub/dir#x",
                git("https://h/p", Some(("tag", "v1"))),
                "sub/dir",
                Some("x"),
            ),
            (
                "git+ssh://g@h/p?ref=main#",
                git("ssh://g@h/p", Some(("rev", "main"))),
                "",
                None,
            ),
            ("git+file:repo", git("file:///here/repo", None), "", None),
            (
                "git+file:///repo?branch=b",
                git("file:///repo", Some(("branch", "b"))),
                "",
                None,
            ),
            (
                "file:x.tar.gz#y",
                PlaceSource::Archive("/here/x.tar.gz".into()),
                "",
                Some("y"),
            ),
            ("file:///x.tar", PlaceSource::Archive("/x.tar".into()), "", None),
        ] {
            let (place, named) = SpecPlace::parse(text, here).unwrap().unwrap();
            assert_eq!(
                (place.source, place.dir.as_str(), named.as_deref()),
                (source, dir, name),
                "{text}"
            );
        }
        for text in [
            "github:a",
            "github:/b",
            "git+https://",
            "git+ftp://x",
            "git+https://h/p?x=1",
            "git+file:r?rev=a&tag=b",
            "file:",
        ] {
            assert!(SpecPlace::parse(text, here).unwrap().is_err(), "{text}");
        }
    }

    #[test]
    fn links_that_lead_out_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().canonicalize().unwrap().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("file"), "").unwrap();
        let link = |target: &str| {
            let at = tree.join("a/b/link");
            let _ = fs::remove_file(&at);
            std::os::unix::fs::symlink(target, &at).unwrap();
            link_outside(&tree).unwrap().is_some()
        };
        for inside in ["../../file", "nowhere", "../.."] {
            assert!(!link(inside), "{inside}");
        }
        for outside in ["/etc/passwd", "../../../x", "/nowhere", "../../../../../../../../etc"] {
            assert!(link(outside), "{outside}");
        }
    }
}
