//! *Places of specs* that are not on this machine's own ground: repositories and archives, whose tree holds a spec, and images
//! that carry theirs.
//!
//! A tree is fetched as the source of a package is: by a spec of our own with one package, whose lock pins what was fetched. So
//! a tag that moved is told, and what was fetched once needs no network.
//!
//! Invariant: a spec of a place reads nothing outside of its tree, and nothing of it is written to: its lock must be current.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::digest::{Digest, HashingWriter};
use crate::fetch::Update;
use crate::fsio::{self, FileLock, IoContext, LockKind, PathError, create_dir_all, walk};
use crate::spec::lock::LockChange;
use crate::spec::{self, ImageFileKind, PackageName, Source, Workspace};
use crate::transport::Location;

use super::carried::{self, CarriedSpec};
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
    /// An archive at an address.
    Download(String),
    /// An image that carries its spec.
    Image(Location),
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
    /// An image does not carry its spec.
    #[error("`{place}` carries no spec: no inputs are kept beside it")]
    CarriesNone {
        /// The image.
        place: String,
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
                 `git+ssh://…`, `git+file:PATH`, `https://HOST/ARCHIVE` or `file:ARCHIVE`, and `#NAME` behind it; of an \
                 image that carries its spec `docker://REF#NAME` or `oci:DIR:TAG#NAME`"
                    .to_owned()
            }
            Self::NoSpec { .. } => "name its directory: `?dir=PATH` behind the address".to_owned(),
            Self::CarriesNone { .. } => "`layerize push --inputs=all` and `layerize build --inputs=all -o oci:DIR` keep the \
                                         spec, the lock and the local files beside an image; the image itself is named \
                                         without `#`"
                .to_owned(),
            Self::Outside { .. } => "get the repository with git, look at it, and use it from there".to_owned(),
        }
    }
}

/// A place that was fetched.
#[derive(Debug, Clone)]
pub struct FetchedPlace {
    /// The place, by a text that means the same from anywhere on this machine.
    pub place: String,
    /// What the spec is in.
    pub form: PlaceForm,
}

/// What a spec from elsewhere is in.
#[derive(Debug, Clone)]
pub enum PlaceForm {
    /// A tree, which the spec reads nothing outside of.
    Tree {
        /// The tree, in the store.
        tree: PathBuf,
        /// The spec in it.
        spec: PathBuf,
    },
    /// What is kept beside an image.
    Image(Arc<CarriedSpec>),
}

impl SpecPlace {
    /// Splits `PLACE#NAME`; `None` where a text is none, but a name of a spec, a path or an image.
    pub fn parse(text: &str, here: &Path) -> Option<Result<(Self, Option<String>), SpecPlaceError>> {
        if let Some((location, name)) = Self::image(text, here) {
            let place = Self {
                text: format!("{location}#"),
                source: PlaceSource::Image(location),
                dir: String::new(),
            };
            return Some(Ok((place, Some(name).filter(|name| !name.is_empty()))));
        }
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
        if place.starts_with("https://") || place.starts_with("http://") {
            let (address, dir) = without_dir(place);
            let host = address.split_once("://").map_or("", |(_, rest)| rest);
            return Some(match host.split_once('/') {
                Some((host, path)) if !host.is_empty() && !path.is_empty() => Ok((PlaceSource::Download(address), dir)),
                _ => Err("an address of an archive has a host and a path"),
            });
        }
        let (path, dir) = without_dir(place.strip_prefix("file:")?);
        Some(match path.trim_start_matches("//") {
            "" => Err("the path is missing"),
            path => Ok((PlaceSource::Archive(here.join(path)), dir)),
        })
    }

    /// An image is itself wherever images may be named, so that the `#` behind it says that its spec is meant.
    fn image(text: &str, here: &Path) -> Option<(Location, String)> {
        let (place, name) = text.split_once('#')?;
        match place.parse::<Location>() {
            Ok(location @ (Location::Registry(_) | Location::Layout { .. })) => {
                Some((location.below(here), name.to_owned()))
            }
            _ => None,
        }
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

    /// Fetches it. What names no fixed commit is asked anew where the network may be used; an address is asked once.
    pub fn fetch(&self, options: &WorkOptions, environment: &Environment<'_>) -> Result<FetchedPlace, ProjectError> {
        let dir = self.own_dir(environment);
        create_dir_all(&dir)?;
        let _one_at_a_time = FileLock::acquire(&dir.join("lock"), LockKind::Exclusive)?;
        let form = match &self.source {
            PlaceSource::Image(location) => {
                let carried = carried::fetch(location, &dir, options.offline, environment)?;
                PlaceForm::Image(Arc::new(carried))
            }
            _ => self.fetch_tree(&dir, options, environment)?,
        };
        Ok(FetchedPlace {
            place: self.absolute(),
            form,
        })
    }

    /// Pins what is there now, and gives what changed by that: of tags and addresses, too.
    pub fn update(
        &self,
        options: &WorkOptions,
        environment: &Environment<'_>,
    ) -> Result<Vec<LockChange>, ProjectError> {
        let dir = self.own_dir(environment);
        create_dir_all(&dir)?;
        let _one_at_a_time = FileLock::acquire(&dir.join("lock"), LockKind::Exclusive)?;
        if let PlaceSource::Image(location) = &self.source {
            carried::fetch(location, &dir, options.offline, environment)?;
            return Ok(Vec::new());
        }
        let environment = self.own_environment(&dir, environment)?;
        let mut project = Project::load(&environment)?;
        let before = project.lock.clone();
        project.update_lock(&Update::Everything, options.offline, &options.mirrors, &environment)?;
        Ok(spec::lock::changes(&before, &project.lock))
    }

    /// Where what is pinned of it is kept.
    fn own_dir(&self, environment: &Environment<'_>) -> PathBuf {
        let key = &Digest::of(self.absolute().as_bytes()).hex()[..KEY_CHARS];
        environment.caches_dir().join("places").join(key)
    }

    /// By a text that means the same wherever one is.
    fn absolute(&self) -> String {
        let dir = match self.dir.is_empty() {
            true => String::new(),
            false => format!("?dir={}", self.dir),
        };
        match &self.source {
            PlaceSource::Archive(path) => format!("file:{}{dir}", path.display()),
            PlaceSource::Git { address, .. } if address.starts_with("file://") => {
                let query = self.text.split_once('?').map(|(_, query)| format!("?{query}"));
                format!("git+{address}{}", query.unwrap_or_default())
            }
            PlaceSource::Git { .. } | PlaceSource::Download(_) | PlaceSource::Image(_) => self.text.clone(),
        }
    }

    /// The environment of the spec by which the tree is fetched.
    fn own_environment<'e>(&self, dir: &Path, environment: &Environment<'e>) -> Result<Environment<'e>, ProjectError> {
        fsio::write_atomic(&dir.join(SPEC_NAME), self.own_spec()?.as_bytes())?;
        Ok(Environment {
            file: Some(dir.to_owned()),
            here: dir.to_owned(),
            elsewhere: None,
            ..environment.clone()
        })
    }

    fn fetch_tree(
        &self,
        dir: &Path,
        options: &WorkOptions,
        environment: &Environment<'_>,
    ) -> Result<PlaceForm, ProjectError> {
        let environment = self.own_environment(dir, environment)?;
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
        let spec = spec_in(&tree, &self.dir, &self.text)?;
        Ok(PlaceForm::Tree { tree, spec })
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

    /// The spec by which a tree is fetched.
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
            PlaceSource::Download(address) => format!("url = {}, unpack = true", quoted(address)),
            PlaceSource::Image(location) => unreachable!("`{location}` is no tree"),
        };
        Ok(format!("[package.{PACKAGE}]\nsource = {{ {source} }}\n"))
    }
}

/// The spec in a directory of a tree that came from `place`; nothing in the tree may lead out of it.
pub(super) fn spec_in(tree: &Path, dir: &str, place: &str) -> Result<PathBuf, ProjectError> {
    if let Some(link) = link_outside(tree)? {
        let path = link.strip_prefix(tree).unwrap_or(&link).display().to_string();
        return Err(SpecPlaceError::Outside { path }.into());
    }
    let spec = fsio::normalize(&tree.join(dir)).join(SPEC_NAME);
    match is_within(&spec, tree) && spec.is_file() {
        true => Ok(spec),
        false => Err(SpecPlaceError::NoSpec {
            place: place.to_owned(),
            dir: dir.to_owned(),
        }
        .into()),
    }
}

/// An address without `dir=…` behind its `?`, which is ours and not the server's, and that directory.
fn without_dir(address: &str) -> (String, String) {
    let Some((path, query)) = address.split_once('?') else {
        return (address.to_owned(), String::new());
    };
    let (ours, theirs): (Vec<&str>, Vec<&str>) = query.split('&').partition(|part| part.starts_with("dir="));
    let dir = ours
        .last()
        .and_then(|part| part.strip_prefix("dir="))
        .unwrap_or_default();
    let rest = match theirs.is_empty() {
        true => String::new(),
        false => format!("?{}", theirs.join("&")),
    };
    (format!("{path}{rest}"), dir.to_owned())
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
    }

    fn check(text: &str, source: PlaceSource, dir: &str, name: Option<&str>) {
        let (place, named) = SpecPlace::parse(text, Path::new("/here")).unwrap().unwrap();
        assert_eq!(
            (place.source, place.dir.as_str(), named.as_deref()),
            (source, dir, name),
            "{text}"
        );
    }

    #[test]
    fn repositories_are_places() {
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
        ] {
            check(text, source, dir, name);
        }
    }

    #[test]
    fn archives_and_images_are_places() {
        for (text, source, dir, name) in [
            (
                "file:x.tar.gz#y",
                PlaceSource::Archive("/here/x.tar.gz".into()),
                "",
                Some("y"),
            ),
            ("file:///x.tar", PlaceSource::Archive("/x.tar".into()), "", None),
            (
                "file:x.tar?dir=sub",
                PlaceSource::Archive("/here/x.tar".into()),
                "sub",
                None,
            ),
            (
                "https://h/x.tar.gz?token=1&dir=sub#y",
                PlaceSource::Download("https://h/x.tar.gz?token=1".to_owned()),
                "sub",
                Some("y"),
            ),
            (
                "docker://h/x:1#y",
                PlaceSource::Image("docker://h/x:1".parse().unwrap()),
                "",
                Some("y"),
            ),
            (
                "oci:d:v1#",
                PlaceSource::Image("oci:/here/d:v1".parse().unwrap()),
                "",
                None,
            ),
        ] {
            check(text, source, dir, name);
        }
    }

    #[test]
    fn what_is_no_place_is_told() {
        let here = Path::new("/here");
        for text in [
            "github:a",
            "github:/b",
            "git+https://",
            "git+ftp://x",
            "git+https://h/p?x=1",
            "git+file:r?rev=a&tag=b",
            "file:",
            "https://",
            "https://h",
            "http://h/",
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
