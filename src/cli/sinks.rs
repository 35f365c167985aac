//! Where images go: parses `-o` and writes one image to all of them.
//!
//! Invariant: a line on standard output for each sink that has the image, unless standard output *is* the sink.

use anyhow::Context as _;

use crate::event::{Event, Reporter, Silent};
use crate::transport::registry::RegistryConfig;
use crate::transport::{self, Location};

use super::context::Context;
use super::error::advised;
use crate::project::git_ignore;
use crate::project::image::archive_name;
use crate::project::place;
use crate::project::{KeptInputs, NamedImage, PlatformChoice, Project, Target, Work};

/// The `-o` arguments; empty for the default.
pub fn parse(outputs: &[String]) -> anyhow::Result<Vec<Location>> {
    let locations = outputs
        .iter()
        .map(|output| Ok(output.parse()?))
        .collect::<anyhow::Result<Vec<Location>>>()?;
    // What cannot be written to is an error before anything is built for it.
    for location in &locations {
        location.sink(None, &RegistryConfig::default(), &Silent)?;
    }
    let pipes = locations
        .iter()
        .filter(|location| location.is_standard_output())
        .count();
    if pipes > 1 {
        return Err(advised(
            "standard output is given twice",
            "it can take one image: remove one `-o`",
        ));
    }
    Ok(locations)
}

/// Several images cannot share one place: to be asked before any is built.
pub fn check_count(images: usize, locations: &[Location]) -> anyhow::Result<()> {
    if images > 1 && !locations.is_empty() {
        return Err(advised(
            format!("`-o` is given, but {images} images are to be written"),
            "name the image to build, or leave out `-o` for NAME.tar each",
        ));
    }
    Ok(())
}

/// Refuses two images of the targets that would be written to one file, before anything is built for them.
pub fn check_names(targets: &[String], locations: &[Location], context: &Context) -> anyhow::Result<()> {
    // Without a spec there is one image, and mistakes in one are told where it is needed.
    match Project::load(&context.environment) {
        Ok(project) if locations.is_empty() => Ok(place::refuse_same_file(&project, targets)?),
        _ => Ok(()),
    }
}

/// Whether a place holds one image, whatever the number of platforms that it is made for.
fn holds_one(location: &Location) -> bool {
    match location {
        Location::DockerArchive { .. }
        | Location::Daemon(_)
        | Location::Podman(_)
        | Location::Stdio
        | Location::Path(_) => true,
        Location::OciArchive { .. } | Location::Layout { .. } | Location::Registry(_) => false,
    }
}

/// Which platforms are made for these places where nobody names some: all, unless each of them holds one image.
pub fn platforms(locations: &[Location]) -> PlatformChoice {
    match locations.iter().all(holds_one) {
        true => PlatformChoice::Own,
        false => PlatformChoice::All,
    }
}

/// Says what is not written of images for several platforms, of which the machine's own goes to the default places.
pub fn tell_of_others(work: &Work, choice: &PlatformChoice, context: &Context) {
    let Some(project) = work.project.as_ref().filter(|_| *choice == PlatformChoice::Own) else {
        return;
    };
    for (name, others) in project.elsewhere() {
        if work.targets.contains(&Target::Image(name.clone())) {
            let others: Vec<String> = others.iter().map(ToString::to_string).collect();
            context.ui.report(Event::Note {
                text: format!(
                    "image `{name}` is written for this machine alone, and not for {}: `-o oci:DIR`, `-o oci-archive:FILE` and \
                     `layerize push` take all of them",
                    others.join(", ")
                ),
            });
        }
    }
}

/// Writes an image to its sinks, with what is to be kept beside it, and prints a line for each. Of an image for several
/// platforms those that hold one get the machine's own.
pub fn write(
    named: &NamedImage,
    keep: &[KeptInputs<'_>],
    locations: &[Location],
    context: &Context,
) -> anyhow::Result<()> {
    if named.parts.is_empty() {
        return write_content(named, keep, locations, context);
    }
    let (one, all): (Vec<Location>, Vec<Location>) = locations.iter().cloned().partition(holds_one);
    if !all.is_empty() {
        write_content(named, keep, &all, context)?;
    }
    if one.is_empty() && !locations.is_empty() {
        return Ok(());
    }
    write_content(named.own()?, &[], &one, context)
}

fn write_content(
    named: &NamedImage,
    keep: &[KeptInputs<'_>],
    locations: &[Location],
    context: &Context,
) -> anyhow::Result<()> {
    let archive = archive_name(&named.name);
    let default = [Location::DockerArchive {
        path: archive.clone().into(),
        name: None,
    }];
    let is_default = locations.is_empty();
    let locations = if is_default { &default } else { locations };
    let sinks = place::open_sinks(named, locations, &context.environment)?;
    let mut failure = None;
    let results = transport::put_all(&sinks, &named.content(), &named.names);
    for ((location, sink), result) in locations.iter().zip(&sinks).zip(results) {
        let written = result
            .with_context(|| format!("cannot write image `{}` to `{location}`", named.name))
            .and_then(|digest| {
                told(named, &digest.to_string(), location, context)?;
                for keep in keep {
                    keep.put(sink.as_ref(), &location.to_string(), false)
                        .with_context(|| not_kept(location))?;
                }
                Ok(())
            });
        match written {
            Ok(()) => {}
            Err(error) => {
                if let Some(earlier) = failure.replace(error) {
                    super::error::show(&earlier, context.ui);
                }
            }
        }
    }
    match failure {
        Some(error) => return Err(error),
        None if is_default => tell_of_git(&archive, context),
        None => {}
    }
    Ok(())
}

/// An archive at the default place is there because nobody named another: in a repository it is in the way.
fn tell_of_git(archive: &str, context: &Context) {
    if git_ignore::would_take(&context.environment.here.join(archive)) {
        let text = format!(
            "`git add -A` would take {archive}: add `/*.tar` to .gitignore, or name another place with `-o docker-archive:FILE`"
        );
        context.ui.report(Event::Note { text });
    }
}

fn told(named: &NamedImage, digest: &str, location: &Location, context: &Context) -> anyhow::Result<()> {
    if location.is_standard_output() {
        return Ok(());
    }
    let id = named.image.config_digest();
    context.ui.report(Event::ImageWritten {
        name: named.name.clone(),
        digest: digest.to_owned(),
        id: id.to_string(),
        destination: location.to_string(),
    });
    context.ui.note(&match named.parts.is_empty() {
        true => format!(
            "{}: manifest {digest}, as registries name it; image ID {id}, as Docker and podman do",
            named.name
        ),
        false => format!("{}: index {digest} of images for {}", named.name, platforms_of(named)),
    });
    if !context.ui.json() {
        context
            .ui
            .data(&format!("{digest} {location}"))
            .context("cannot write to standard output")?;
    }
    Ok(())
}

/// The platforms of an image that is for several.
fn platforms_of(named: &NamedImage) -> String {
    let names: Vec<String> = named
        .each()
        .map(|part| part.draft.recipe.platform.to_string())
        .collect();
    names.join(", ")
}

/// What is said where an image was written and its inputs were not.
pub fn not_kept(place: &Location) -> String {
    format!("the image is at `{place}`, and what it was built from cannot be kept there; `--no-inputs` leaves it out")
}
