//! A *location* is the text by which a user names where an image is read from or written to, as skopeo has it.
//!
//! Invariant: parsing is pure (no file is looked at) and parsing what is printed gives the same location.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::daemon::{Daemon, Engine};
use super::read::{self, ReadOptions};
use super::registry::{RegistryConfig, RegistrySink, RemoteImage};
use super::write::{Archive, Layout, Stream};
use super::{Sink, Source, TransportError};
use crate::event::Reporter;
use crate::fsio;
use crate::oci::Reference;

/// Where an image is, or is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// `docker-archive:FILE[:NAME[:TAG]]`: a tar for `docker load`; `-` is standard input or output.
    DockerArchive {
        /// The file.
        path: PathBuf,
        /// Which image of it.
        name: Option<String>,
    },
    /// `oci-archive:FILE[:TAG]`: an OCI layout in a tar.
    OciArchive {
        /// The file.
        path: PathBuf,
        /// Which image of it.
        name: Option<String>,
    },
    /// `oci:DIR[:TAG]`: an OCI layout directory.
    Layout {
        /// The directory.
        path: PathBuf,
        /// Which image of it.
        name: Option<String>,
    },
    /// `docker://NAME`: a registry.
    Registry(String),
    /// `docker-daemon:NAME`: the images of a Docker engine.
    Daemon(String),
    /// `containers-storage:NAME`: the images of podman, by skopeo's name for them, reached through `podman`.
    Podman(String),
    /// `-`: standard input or output.
    Stdio,
    /// A file or directory of a form that is found by looking; written as a docker-archive.
    Path(PathBuf),
}

/// What `-` stands for as the file of an archive.
const STANDARD_INPUT: &str = "/dev/stdin";
const STANDARD_OUTPUT: &str = "/dev/stdout";

/// The file of an archive; `-` is `standard`, and a file of that name is written `./-`.
fn file_or<'a>(path: &'a Path, standard: &'static str) -> &'a Path {
    match path.as_os_str() == "-" {
        true => Path::new(standard),
        false => path,
    }
}

/// Transports that skopeo knows and layerize does not.
const FOREIGN: [&str; 5] = ["dir", "ostree", "sif", "tarball", "atomic"];

impl FromStr for Location {
    type Err = TransportError;

    fn from_str(text: &str) -> Result<Self, TransportError> {
        let error = |reason| TransportError::Location {
            text: text.to_owned(),
            reason,
        };
        if text.is_empty() {
            return Err(error("it is empty"));
        }
        if text == "-" {
            return Ok(Self::Stdio);
        }
        let Some((transport, rest)) = text.split_once(':').filter(|(before, _)| !before.contains('/')) else {
            return Ok(Self::Path(text.into()));
        };
        if rest.is_empty() {
            return Err(error("nothing follows the colon"));
        }
        let split = || {
            let (path, name) = rest
                .split_once(':')
                .map_or((rest, None), |(path, name)| (path, Some(name)));
            if path.is_empty() || name == Some("") {
                return Err(error("a path or a name is empty"));
            }
            Ok((PathBuf::from(path), name.map(str::to_owned)))
        };
        match transport {
            "docker-archive" => split().map(|(path, name)| Self::DockerArchive { path, name }),
            "oci-archive" => split().map(|(path, name)| Self::OciArchive { path, name }),
            "oci" => split().map(|(path, name)| Self::Layout { path, name }),
            "docker-daemon" => Ok(Self::Daemon(rest.to_owned())),
            "containers-storage" => Ok(Self::Podman(rest.to_owned())),
            "docker" => match rest.strip_prefix("//").filter(|name| !name.is_empty()) {
                Some(name) => Ok(Self::Registry(name.to_owned())),
                None => Err(error("a registry is written `docker://NAME`")),
            },
            _ if FOREIGN.contains(&transport) => Err(error("this transport is not one of layerize's")),
            _ => Err(error(
                "no such transport; a file whose name has a colon is written `./NAME`",
            )),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |f: &mut fmt::Formatter<'_>, transport, path: &Path, name: &Option<String>| {
            write!(f, "{transport}:{}", path.display())?;
            name.as_ref().map_or(Ok(()), |name| write!(f, ":{name}"))
        };
        match self {
            Self::DockerArchive { path, name } => named(f, "docker-archive", path, name),
            Self::OciArchive { path, name } => named(f, "oci-archive", path, name),
            Self::Layout { path, name } => named(f, "oci", path, name),
            Self::Registry(name) => write!(f, "docker://{name}"),
            Self::Daemon(name) => write!(f, "docker-daemon:{name}"),
            Self::Podman(name) => write!(f, "containers-storage:{name}"),
            Self::Stdio => f.write_str("-"),
            Self::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Location {
    /// The same place with another tag, where a place holds images by tags: layouts and registries.
    pub fn tagged(&self, tag: &str) -> Result<Option<Self>, TransportError> {
        Ok(match self {
            Self::Layout { path, .. } => Some(Self::Layout {
                path: path.clone(),
                name: Some(tag.to_owned()),
            }),
            Self::Registry(name) => {
                let reference: Reference = name.parse()?;
                Some(Self::Registry(reference.with_tag(tag)?.to_string()))
            }
            _ => None,
        })
    }

    /// The name that the location itself gives to what is written there.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::DockerArchive { name, .. } | Self::OciArchive { name, .. } | Self::Layout { name, .. } => {
                name.as_deref()
            }
            Self::Registry(name) | Self::Daemon(name) | Self::Podman(name) => Some(name),
            Self::Stdio | Self::Path(_) => None,
        }
    }

    /// The same place with its path, if it has one and that is relative, taken from `dir`.
    pub fn below(&self, dir: &Path) -> Self {
        let mut location = self.clone();
        match &mut location {
            Self::DockerArchive { path, .. }
            | Self::OciArchive { path, .. }
            | Self::Layout { path, .. }
            | Self::Path(path) => *path = dir.join(&path),
            Self::Registry(_) | Self::Daemon(_) | Self::Podman(_) | Self::Stdio => {}
        }
        location
    }

    /// Whether what is written there comes out at this process's standard output, however it is called.
    pub fn is_standard_output(&self) -> bool {
        match self {
            Self::Stdio => true,
            Self::DockerArchive { path, .. } | Self::OciArchive { path, .. } | Self::Path(path) => {
                fsio::is_standard_output(file_or(path, STANDARD_OUTPUT))
            }
            Self::Layout { .. } | Self::Registry(_) | Self::Daemon(_) | Self::Podman(_) => false,
        }
    }

    /// Opens the image that is there; `-` reads standard input.
    pub fn source(&self, options: &ReadOptions) -> Result<Box<dyn Source>, TransportError> {
        let place = self.to_string();
        let image = match self {
            Self::DockerArchive { path, name } => {
                read::docker_archive(file_or(path, STANDARD_INPUT), name.as_deref(), options)?
            }
            Self::OciArchive { path, name } => {
                read::oci_archive(file_or(path, STANDARD_INPUT), name.as_deref(), options)?
            }
            Self::Layout { path, name } => read::layout(path, name.as_deref(), options)?,
            Self::Path(path) => read::any(path, None, options)?,
            Self::Stdio => read::stream(&mut std::io::stdin().lock(), &place, options)?,
            Self::Daemon(name) => return Daemon::new(Engine::Docker).open(name, &place, options),
            Self::Podman(name) => return Daemon::new(Engine::Podman).open(name, &place, options),
            Self::Registry(name) => return Ok(Box::new(RemoteImage::open(name, options)?)),
        };
        Ok(Box::new(image))
    }

    /// The sink that writes there; a name in the location is given to the image beside the names of the call.
    /// `records` is a directory for notes on what was written, so that nothing is written twice; `registries` says how
    /// registries are reached, and `reporter` is told how far a push is.
    pub fn sink<'a>(
        &self,
        records: Option<&Path>,
        registries: &RegistryConfig,
        reporter: &'a dyn Reporter,
    ) -> Result<Box<dyn Sink + 'a>, TransportError> {
        let archive = |archive: Archive, name: &Option<String>| archive.named(name.as_deref()).records(records);
        match self {
            Self::DockerArchive { path, name } => {
                let path = file_or(path, STANDARD_OUTPUT);
                Ok(Box::new(archive(Archive::docker(path), name)))
            }
            Self::Path(path) => Ok(Box::new(archive(Archive::docker(path), &None))),
            Self::OciArchive { path, name } => {
                let path = file_or(path, STANDARD_OUTPUT);
                Ok(Box::new(archive(Archive::oci(path), name)))
            }
            Self::Layout { path, name } => Ok(Box::new(Layout::new(path, name.as_deref()))),
            Self::Stdio => Ok(Box::new(Stream::new(std::io::stdout(), "standard output"))),
            Self::Daemon(name) => Ok(Box::new(Daemon::new(Engine::Docker).named(name))),
            Self::Podman(name) => Ok(Box::new(Daemon::new(Engine::Podman).named(name))),
            Self::Registry(name) => Ok(Box::new(RegistrySink::new(name, registries, reporter)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Silent;

    #[test]
    fn locations_print_as_they_are_written() {
        let path = |text: &str| PathBuf::from(text);
        let name = |text: &str| Some(text.to_owned());
        for (text, location) in [
            ("-", Location::Stdio),
            ("hello.tar", Location::Path(path("hello.tar"))),
            ("./a:b.tar", Location::Path(path("./a:b.tar"))),
            ("/abs/x", Location::Path(path("/abs/x"))),
            (
                "docker-archive:x.tar",
                Location::DockerArchive {
                    path: path("x.tar"),
                    name: None,
                },
            ),
            (
                "docker-archive:x.tar:a:b",
                Location::DockerArchive {
                    path: path("x.tar"),
                    name: name("a:b"),
                },
            ),
            (
                "oci-archive:d/x.tar:v1",
                Location::OciArchive {
                    path: path("d/x.tar"),
                    name: name("v1"),
                },
            ),
            (
                "oci:dir",
                Location::Layout {
                    path: path("dir"),
                    name: None,
                },
            ),
            (
                "oci:/d/e:latest",
                Location::Layout {
                    path: path("/d/e"),
                    name: name("latest"),
                },
            ),
            (
                "docker://registry.example/a/b:1",
                Location::Registry("registry.example/a/b:1".into()),
            ),
            ("docker-daemon:a:1", Location::Daemon("a:1".into())),
            ("containers-storage:a:1", Location::Podman("a:1".into())),
        ] {
            assert_eq!(text.parse::<Location>().unwrap(), location);
            assert_eq!(location.to_string(), text);
        }
    }

    #[test]
    fn what_names_no_place_is_refused_with_advice() {
        for text in [
            "",
            "oci:",
            "docker:x",
            "docker://",
            "dir:x",
            "C:x",
            "hello:latest",
            "oci::x",
            "oci:x:",
        ] {
            let error = text.parse::<Location>().unwrap_err();
            assert!(matches!(&error, TransportError::Location { .. }), "{text}");
            assert!(error.help().is_some_and(|help| help.contains("oci-archive:FILE")));
        }
    }

    #[test]
    fn a_registry_is_a_place_whose_name_must_be_a_reference() {
        let sink = |text: &str| {
            let location: Location = text.parse().unwrap();
            location.sink(None, &RegistryConfig::default(), &Silent).err()
        };
        assert!(sink("docker://registry.example/a/b:1").is_none());
        let error = sink("docker://registry.example/A").unwrap();
        assert!(matches!(error, TransportError::Reference(_)) && error.help().is_some());
    }

    #[test]
    fn a_place_takes_other_tags_and_other_directories() {
        let location = |text: &str| text.parse::<Location>().unwrap();
        for (text, tagged) in [
            ("oci:d:v1", Some("oci:d:v2")),
            ("oci:d", Some("oci:d:v2")),
            ("docker://registry.example/a:1", Some("docker://registry.example/a:v2")),
            ("oci-archive:x.tar", None),
            ("docker-daemon:a", None),
        ] {
            let found = location(text).tagged("v2").unwrap();
            assert_eq!(found.map(|found| found.to_string()).as_deref(), tagged, "{text}");
        }
        for (text, below) in [
            ("oci:d:v1", "oci:/base/d:v1"),
            ("oci:/d:v1", "oci:/d:v1"),
            ("x.tar", "/base/x.tar"),
            ("docker-daemon:a", "docker-daemon:a"),
        ] {
            assert_eq!(location(text).below(Path::new("/base")).to_string(), below);
        }
    }
}

#[cfg(test)]
mod fuzz {
    #[test]
    fn fuzz_location() {
        crate::testing::fuzz("location", |bytes| {
            let text = String::from_utf8_lossy(bytes);
            if let Ok(location) = text.parse::<super::Location>() {
                let shown = location.to_string();
                assert_eq!(shown.parse::<super::Location>().unwrap().to_string(), shown);
            }
        });
    }
}
