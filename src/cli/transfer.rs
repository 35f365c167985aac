//! A *transfer* writes what is at hand, an image or an index, to a place under its names.
//!
//! Invariant: a name that stands for the very thing already is left alone, whatever the flags say; what a flag forbids
//! to be replaced is not replaced. A line on standard output says where what is, unless that is where it goes.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context as _;
use clap::Args;

use crate::digest::Digest;
use crate::event::{Event, Reporter};
use crate::oci::Reference;
use crate::project::Keep;
use crate::transport::registry::{PushOptions, RegistrySink};
use crate::transport::{Content, Location, Sink, Transferred, TransportError};

use super::context::Context;
use super::error::advised;
use super::output;
use super::sinks::not_kept;

/// Options of every command that writes images to places.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Transfer options")]
pub struct TransferFlags {
    /// Further tag, or a whole NAME:TAG for archives and engines; repeatable
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Leave a name that exists as it is, whatever it stands for
    #[arg(long, conflicts_with = "immutable")]
    skip_existing: bool,
    /// Fail rather than move a name that stands for something else
    #[arg(long)]
    immutable: bool,
    /// Write nothing; say what would be written
    #[arg(long)]
    dry_run: bool,
    /// Write the digest to this file
    #[arg(long, value_name = "FILE")]
    digest_file: Option<PathBuf>,
}

/// One place to write to, with the names that the place itself does not say.
#[derive(Debug, PartialEq, Eq)]
struct Destination {
    location: Location,
    names: Vec<String>,
}

impl TransferFlags {
    /// Writes `content` to `location` and under all further tags; `names` are those it has by itself. What is to be kept
    /// beside it goes there once, whatever the number of tags.
    pub fn write(
        &self,
        content: &Content,
        mut keep: Option<&Keep<'_>>,
        location: &Location,
        names: &[String],
        context: &Context,
    ) -> anyhow::Result<()> {
        for destination in destinations(location, &self.tag, names)? {
            if self.write_one(content, keep, &destination, context)? {
                keep = None;
            }
        }
        if self.digest_file.is_some() {
            let digest = format!("{}\n", content.digest());
            output::write(digest.as_bytes(), self.digest_file.as_deref(), context)?;
        }
        Ok(())
    }

    /// Writes to one place; whether the content is there now.
    fn write_one(
        &self,
        content: &Content,
        keep: Option<&Keep<'_>>,
        to: &Destination,
        context: &Context,
    ) -> anyhow::Result<bool> {
        let place = &to.location;
        let sink = self.open_sink(place, keep, context)?;
        let is_there = self
            .put(content, sink.as_ref(), to, context)
            .with_context(|| format!("cannot write to `{place}`"))?;
        if let Some(keep) = keep.filter(|_| is_there) {
            keep.put(sink.as_ref(), &place.to_string(), self.dry_run)
                .with_context(|| not_kept(place))?;
        }
        Ok(is_there)
    }

    fn put(&self, content: &Content, sink: &dyn Sink, to: &Destination, context: &Context) -> anyhow::Result<bool> {
        let started = Instant::now();
        for text in content.images().iter().flat_map(|image| sink.warnings(image)) {
            context.ui.report(Event::Warning { text });
        }
        let digest = content.digest();
        let size = content.blobs().iter().map(|(_, size)| size).sum();
        let now = self.look(sink, digest, to, context)?;
        let is_there = !matches!(now, Now::Other);
        let transferred = match now {
            Now::There | Now::Other => Transferred {
                written: 0,
                skipped: size,
            },
            Now::Nothing if self.dry_run && !matches!(to.location, Location::Registry(_)) => expected(sink, content)?,
            Now::Nothing => {
                match content {
                    Content::Image(image) => sink.put(image, &to.names)?,
                    Content::Index(index) => sink.put_index(index, &to.names)?,
                };
                sink.transferred()
            }
        };
        context.ui.report(Event::Transferred {
            digest: digest.to_string(),
            destination: to.location.to_string(),
            written: transferred.written,
            skipped: transferred.skipped,
            milliseconds: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            dry_run: self.dry_run,
        });
        if !to.location.is_standard_output() && !context.ui.json() {
            let line = format!("{digest} {}", to.location);
            output::report(&line, self.digest_file.as_deref(), context)?;
        }
        Ok(is_there)
    }

    /// The one place where a sink is opened for a transfer: what registries need of the flags and the context is given
    /// to them here.
    fn open_sink<'a>(
        &self,
        location: &Location,
        keep: Option<&Keep<'_>>,
        context: &Context<'a>,
    ) -> anyhow::Result<Box<dyn Sink + 'a>> {
        if let Location::Registry(name) = location {
            let reference: Reference = name.parse()?;
            let options = PushOptions {
                mount_from: keep
                    .map(|keep| keep.repositories(reference.registry()))
                    .unwrap_or_default(),
                dry_run: self.dry_run,
                immutable_tags: self.immutable,
                ..PushOptions::default()
            };
            let sink = RegistrySink::new(name, &context.environment.registries, context.ui)?;
            return Ok(Box::new(sink.options(options)));
        }
        let records = context.environment.store_dir.join("cache/outputs");
        crate::fsio::create_dir_all(&records)?;
        Ok(location.sink(Some(&records), &context.environment.registries, context.ui)?)
    }

    /// What is under the names now, as far as the flags care.
    fn look(&self, sink: &dyn Sink, digest: Digest, to: &Destination, context: &Context) -> anyhow::Result<Now> {
        // A push looks for itself, with fewer requests.
        if matches!(to.location, Location::Registry(_)) && !self.skip_existing {
            return Ok(Now::Nothing);
        }
        let current = match sink.current(&to.names) {
            Ok(current) => current,
            // What cannot be read will be replaced, unless that is what must not happen.
            Err(_) if !self.immutable && !self.skip_existing => return Ok(Now::Nothing),
            Err(error) => return Err(error.into()),
        };
        if !current.is_empty() && current.iter().all(|(_, found)| *found == digest) {
            // Several names, of which some do not exist yet, are given again.
            return Ok(if current.len() >= to.names.len() {
                Now::There
            } else {
                Now::Nothing
            });
        }
        let Some((name, actual)) = current.into_iter().find(|(_, found)| *found != digest) else {
            return Ok(Now::Nothing);
        };
        if self.skip_existing {
            context
                .ui
                .note(&format!("note: `{name}` exists and is left as it is: {actual}"));
            return Ok(Now::Other);
        }
        if self.immutable {
            return Err(TransportError::Immutable {
                place: to.location.to_string(),
                name,
                actual,
            }
            .into());
        }
        Ok(Now::Nothing)
    }
}

/// What is under a name before it is written.
enum Now {
    /// Nothing, or something that may be replaced.
    Nothing,
    /// Exactly what is to be written.
    There,
    /// Something else, which is to stay.
    Other,
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

/// Where an image goes: by tag in layouts and registries, each tag a write of its own (of which the second finds
/// all blobs there); all names at once in archives and engines.
fn destinations(location: &Location, tags: &[String], names: &[String]) -> anyhow::Result<Vec<Destination>> {
    // A digest is no name that could be given.
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
                return Err(advised(
                    format!("`--tag {tag}` is no tag"),
                    format!("`{location}` holds images by their tags alone: write `--tag v1`"),
                ));
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
fn retagged(tag: &str, location: &Location, names: &[String]) -> anyhow::Result<String> {
    let Some(name) = location.name().or(names.first().map(String::as_str)) else {
        return Err(advised(
            format!("`--tag {tag}` has no name"),
            format!("write it in full, such as `--tag hello:{tag}`"),
        ));
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
