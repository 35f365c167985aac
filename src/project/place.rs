//! A *transfer* writes an image or an index to a place under its names, with what is kept beside it.
//!
//! Invariant: a name that already has the same digest is left alone, whatever the options say; what an option forbids to
//! replace is not replaced.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::digest::Digest;
use crate::event::Event;
use crate::fsio;
use crate::oci::{Reference, ReferenceError};
use crate::transport::registry::{PushOptions, RegistrySink};
use crate::transport::{Content, Location, Sink, Transferred, TransportError};

use super::environment::Environment;
use super::error::ProjectError;
use super::files::Project;
use super::image::{NamedImage, archive_name};
use super::kept::KeptInputs;

/// How a transfer treats names and what is there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TransferOptions {
    /// Further tags, or whole names for archives and engines.
    pub tags: Vec<String>,
    /// Leave a name that exists as it is.
    pub skip_existing: bool,
    /// Fail rather than replace what a name has.
    pub immutable: bool,
    /// Write nothing; only find out what would be written.
    pub dry_run: bool,
    /// Send layers to registries that only their vendor hands out.
    pub non_distributable: bool,
    /// Repositories from which blobs may be taken, each with its registry's host.
    pub beside: Vec<(String, String)>,
}

/// Why a transfer failed.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// A place failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The project, the cache of records or the inputs failed.
    #[error(transparent)]
    Project(Box<ProjectError>),
    /// A text is not a name or no tag.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A whole name was given for a place that keeps images by tag.
    #[error("`--tag {name}` is not a tag")]
    NoTag {
        /// What the user wrote.
        name: String,
        /// The place.
        place: String,
    },
    /// A tag was given for a place that keeps images by name, and there is no name to put it on.
    #[error("`--tag {tag}` needs an image name")]
    NoName {
        /// What the user wrote.
        tag: String,
    },
    /// Two images have the same default file.
    #[error("images `{first}` and `{second}` would both be written to `{file}`")]
    SameFile {
        /// An image.
        first: String,
        /// Another image.
        second: String,
        /// The file.
        file: String,
    },
}

impl From<ProjectError> for TransferError {
    fn from(error: ProjectError) -> Self {
        Self::Project(Box::new(error))
    }
}

impl TransferError {
    /// What to type next.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Transport(error) => error.help(),
            Self::Project(error) => error.help(),
            Self::Reference(error) => error.help(),
            Self::NoTag { place, .. } => Some(format!("`{place}` stores images by tag only: write `--tag v1`")),
            Self::NoName { tag } => Some(format!("write it in full, such as `--tag hello:{tag}`")),
            Self::SameFile { second, .. } => Some(format!(
                "build them one at a time, each to its own file: `layerize build {second} -o FILE`"
            )),
        }
    }
}

/// One place to write to, with the names that the place itself does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// The place.
    pub location: Location,
    /// Names for the image there.
    pub names: Vec<String>,
}

/// Writes content to places.
pub struct Transfer<'a> {
    options: &'a TransferOptions,
    environment: &'a Environment<'a>,
}

impl<'a> Transfer<'a> {
    /// A transfer with these options.
    pub fn new(options: &'a TransferOptions, environment: &'a Environment<'a>) -> Self {
        Self { options, environment }
    }

    /// Writes to a place that was [opened](Self::open); whether the content is there now.
    pub fn put(&self, content: &Content, sink: &dyn Sink, to: &Destination) -> Result<bool, TransferError> {
        let started = Instant::now();
        for text in content.images().into_iter().flat_map(|image| sink.warnings(image)) {
            self.environment.reporter.report(Event::Warning { text });
        }
        self.tell_kept_elsewhere(content, to);
        let digest = content.digest();
        let existing = self.existing(sink, digest, to)?;
        let transferred = match existing {
            NameState::Same | NameState::Kept => Transferred {
                written: 0,
                skipped: content.blobs().iter().map(|(_, size)| size).sum(),
            },
            NameState::Replaceable if self.options.dry_run && !matches!(to.location, Location::Registry(_)) => {
                expected(sink, content)?
            }
            NameState::Replaceable => {
                match content {
                    Content::Image(image) => sink.put(image, &to.names)?,
                    Content::Index(index) => sink.put_index(index, &to.names)?,
                };
                sink.transferred()
            }
        };
        self.environment.reporter.report(Event::Transferred {
            digest: digest.to_string(),
            destination: to.location.to_string(),
            written: transferred.written,
            skipped: transferred.skipped,
            milliseconds: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            dry_run: self.options.dry_run,
        });
        Ok(existing != NameState::Kept)
    }

    /// Says which layers stay where they are.
    fn tell_kept_elsewhere(&self, content: &Content, to: &Destination) {
        let is_registry = matches!(to.location, Location::Registry(_)) && !self.options.non_distributable;
        for layer in content.images().into_iter().flat_map(|image| &image.layers) {
            let why = match layer.is_absent() {
                true => "is not in the source",
                false if is_registry && layer.descriptor.is_non_distributable() => {
                    "is not sent without `--non-distributable`"
                }
                false => continue,
            };
            let (digest, urls) = (layer.digest(), layer.descriptor.urls.join(", "));
            let text = format!("the layer `{digest}` is kept elsewhere and {why}: {urls}");
            self.environment.reporter.report(Event::Note { text });
        }
    }

    /// Opens a place. Of `keep` only the repositories are used, from which a registry may take blobs.
    pub fn open(&self, location: &Location, keep: &[KeptInputs<'_>]) -> Result<Box<dyn Sink + 'a>, TransferError> {
        let environment = self.environment;
        if let Location::Registry(name) = location {
            let reference: Reference = name.parse()?;
            // Those of one platform are those of all.
            let kept = keep.first().map(|keep| keep.repositories(reference.registry()));
            let here = |(host, _): &&(String, String)| host == reference.registry();
            let beside = self.options.beside.iter().filter(here);
            let options = PushOptions {
                mount_from: (kept.unwrap_or_default().into_iter())
                    .chain(beside.map(|(_, repository)| repository.clone()))
                    .collect(),
                dry_run: self.options.dry_run,
                immutable_tags: self.options.immutable,
                non_distributable: self.options.non_distributable,
                ..PushOptions::default()
            };
            let sink = RegistrySink::new(name, &environment.registries, environment.reporter)?;
            return Ok(Box::new(sink.options(options)));
        }
        let records = records(environment)?;
        Ok(location.sink(Some(&records), &environment.registries, environment.reporter)?)
    }

    /// What is under the names now, as far as the options care.
    fn existing(&self, sink: &dyn Sink, digest: Digest, to: &Destination) -> Result<NameState, TransferError> {
        let TransferOptions {
            skip_existing,
            immutable,
            ..
        } = *self.options;
        // A push looks for itself, with fewer requests.
        if matches!(to.location, Location::Registry(_)) && !skip_existing {
            return Ok(NameState::Replaceable);
        }
        let current = match sink.current(&to.names) {
            Ok(current) => current,
            // What cannot be read will be replaced, unless that is what must not happen.
            Err(_) if !immutable && !skip_existing => return Ok(NameState::Replaceable),
            Err(error) => return Err(error.into()),
        };
        if !current.is_empty() && current.iter().all(|(_, found)| *found == digest) {
            // Several names, of which some do not exist yet, are given again.
            return Ok(match current.len() >= to.names.len() {
                true => NameState::Same,
                false => NameState::Replaceable,
            });
        }
        let Some((name, actual)) = current.into_iter().find(|(_, found)| *found != digest) else {
            return Ok(NameState::Replaceable);
        };
        if skip_existing {
            let text = format!("`{name}` exists and is left as it is: {actual}");
            self.environment.reporter.report(Event::Note { text });
            return Ok(NameState::Kept);
        }
        if immutable {
            return Err(TransferError::Transport(TransportError::Immutable {
                place: to.location.to_string(),
                name,
                actual,
            }));
        }
        Ok(NameState::Replaceable)
    }
}

/// What is under a name before it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NameState {
    /// Nothing, or something that may be replaced.
    Replaceable,
    /// Exactly what is to be written.
    Same,
    /// Something else, which is to stay.
    Kept,
}

/// What a write would do.
fn expected(sink: &dyn Sink, content: &Content) -> Result<Transferred, TransportError> {
    let blobs = content.blobs();
    let present = sink.present(&blobs)?;
    let mut expected = Transferred::default();
    for (digest, size) in blobs {
        match present.contains(&digest) {
            true => expected.skipped += size,
            false => expected.written += size,
        }
    }
    Ok(expected)
}

/// Where it is kept what was written to which place; made if need be.
fn records(environment: &Environment<'_>) -> Result<std::path::PathBuf, ProjectError> {
    let records = environment.records_dir();
    fsio::create_dir_all(&records)?;
    Ok(records)
}

/// Opens the places that an image that was built goes to.
pub fn open_sinks<'a>(
    named: &NamedImage,
    locations: &[Location],
    environment: &'a Environment<'a>,
) -> Result<Vec<Box<dyn Sink + 'a>>, ProjectError> {
    let records = records(environment)?;
    let sinks = locations
        .iter()
        .map(|location| location.sink(Some(&records), &environment.registries, environment.reporter))
        .collect::<Result<Vec<_>, _>>()?;
    for text in sinks.iter().flat_map(|sink| sink.warnings(&named.image)) {
        environment.reporter.report(Event::Warning { text });
    }
    Ok(sinks)
}

/// Refuses two images of the targets (all of the spec's if there are none) with the same [default file](archive_name).
pub fn refuse_same_file(project: &Project, targets: &[String]) -> Result<(), TransferError> {
    let mut written: BTreeMap<String, &String> = BTreeMap::new();
    let wanted = |name: &&String| targets.is_empty() || targets.contains(name);
    for name in project.workspace.images.keys().filter(wanted) {
        let file = archive_name(name);
        if let Some(first) = written.insert(file.clone(), name) {
            return Err(TransferError::SameFile {
                first: first.clone(),
                second: name.clone(),
                file,
            });
        }
    }
    Ok(())
}

/// Where an image goes that is written to `location` under its own `names` and further `tags`: by tag in layouts and registries, each tag a write of its own (of which the second finds
/// all blobs there); all names at once in archives and engines.
pub fn destinations(location: &Location, tags: &[String], names: &[String]) -> Result<Vec<Destination>, TransferError> {
    // A digest is not a name that could be given.
    let names: Vec<String> = names.iter().filter(|name| !name.contains('@')).cloned().collect();
    let plain = |location: Location| Destination {
        location,
        names: Vec::new(),
    };
    if location.tagged("latest")?.is_some() {
        let mut all = Vec::new();
        let own = location.name().is_some();
        let (full, bare): (Vec<_>, Vec<_>) = names.iter().cloned().partition(|name| is_name(name));
        if own || (bare.is_empty() && tags.is_empty()) {
            all.push(Destination {
                location: location.clone(),
                names: if own { Vec::new() } else { full },
            });
        } else if tags.is_empty() {
            for tag in bare {
                all.extend(location.tagged(&tag)?.map(plain));
            }
        }
        for tag in tags {
            if is_name(tag) {
                return Err(TransferError::NoTag {
                    name: tag.clone(),
                    place: location.to_string(),
                });
            }
            all.extend(location.tagged(tag)?.map(plain));
        }
        return Ok(all);
    }
    // A name in the location stands for those that the image brings.
    let mut given: Vec<String> = match location.name() {
        Some(_) => Vec::new(),
        None => names.iter().filter(|name| is_name(name)).cloned().collect(),
    };
    for tag in tags {
        given.push(if is_name(tag) {
            tag.clone()
        } else {
            retagged(tag, location, &given)?
        });
    }
    Ok(vec![Destination {
        location: location.clone(),
        names: given,
    }])
}

/// Whether a text is a name and not a tag alone.
fn is_name(text: &str) -> bool {
    text.contains(['/', ':'])
}

/// The image's name with another tag.
fn retagged(tag: &str, location: &Location, names: &[String]) -> Result<String, TransferError> {
    let Some(name) = location.name().or(names.first().map(String::as_str)) else {
        return Err(TransferError::NoName { tag: tag.to_owned() });
    };
    Ok(name.parse::<Reference>()?.with_tag(tag)?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(location: &str, tags: &[&str], names: &[&str]) -> Vec<String> {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let found = destinations(&location.parse().unwrap(), &owned(tags), &owned(names)).unwrap();
        let shown = |to: &Destination| format!("{} {}", to.location, to.names.join(","));
        found.iter().map(|to| shown(to).trim_end().to_owned()).collect()
    }

    #[test]
    fn tags_go_where_a_place_keeps_them() {
        for (location, tags, names, expected) in [
            (
                "oci:d:v1",
                &["v2", "v3"][..],
                &[][..],
                &["oci:d:v1", "oci:d:v2", "oci:d:v3"][..],
            ),
            ("oci:d", &[], &["v1"], &["oci:d:v1"]),
            (
                "oci:d",
                &[],
                &["docker.io/library/a:1"],
                &["oci:d docker.io/library/a:1"],
            ),
            ("oci:d", &["v2"], &["v1"], &["oci:d:v2"]),
            ("oci:d", &[], &[], &["oci:d"]),
            (
                "docker://r.example/a:1",
                &["2"],
                &["x:1"],
                &["docker://r.example/a:1", "docker://r.example/a:2"],
            ),
            ("docker-archive:f", &[], &["a:1", "v1"], &["docker-archive:f a:1"]),
            (
                "docker-archive:f",
                &["2"],
                &["r.example/a:1"],
                &["docker-archive:f r.example/a:1,r.example/a:2"],
            ),
            (
                "docker-archive:f:r.example/b:1",
                &["2"],
                &["a:1"],
                &["docker-archive:f:r.example/b:1 r.example/b:2"],
            ),
            (
                "docker-daemon:r.example/a:1",
                &["b:2"],
                &[],
                &["docker-daemon:r.example/a:1 b:2"],
            ),
        ] {
            assert_eq!(
                written(location, tags, names),
                expected,
                "{location} {tags:?} {names:?}"
            );
        }
        let location: Location = "oci-archive:f".parse().unwrap();
        assert!(destinations(&location, &["v1".to_owned()], &[]).is_err());
        let location: Location = "oci:d:v1".parse().unwrap();
        assert!(destinations(&location, &["a:v1".to_owned()], &[]).is_err());
    }
}
