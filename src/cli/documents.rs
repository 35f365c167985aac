//! What the verbs that make documents about images share: from a target or a finished image to a document and its place.

use std::path::Path;

use serde_json::json;

use crate::attest::{self, AttestError, Inventory};
use crate::oci::{self, Artifact, Platform};
use crate::project::attach;
use crate::project::documents::{DocumentOptions, Documents, dirs_beside};
use crate::project::trials::Trial;
use crate::project::{self, NamedImage, PlatformChoice, Work, work};
use crate::transport::Location;

use super::context::Context;
use super::error::advised;
use super::flags::{BuildFlags, ImageFlags};
use super::output;

/// The finished image that the only argument names: a transport, or a file or layout that is there and no target.
pub fn finished(arguments: &[String]) -> Option<&str> {
    let [argument] = arguments else { return None };
    let path = Path::new(argument);
    match argument.parse::<Location>() {
        Ok(Location::Path(_)) => (path.is_file() || path.join("oci-layout").is_file()).then_some(argument.as_str()),
        Ok(_) => Some(argument),
        Err(_) => None,
    }
}

/// The inventory of a finished image, as far as its annotations tell.
pub fn partial(source: &str, platform: Option<&Platform>, context: &Context) -> anyhow::Result<Inventory> {
    let image = context.environment.source(source, platform)?;
    Ok(attest::of_source(image.as_ref())?)
}

/// Assembles the one image that the targets name and hands it on.
pub fn of_one_image(
    targets: &[String],
    image_flags: &ImageFlags,
    flags: &BuildFlags,
    context: &Context,
    then: impl FnOnce(&Documents<'_>) -> Result<Vec<u8>, AttestError>,
) -> anyhow::Result<Vec<u8>> {
    let options = flags.options_for(image_flags.platforms(PlatformChoice::Own));
    let work = work::prepare(targets, &options, &context.environment)?;
    if !work.elsewhere.is_empty() {
        return Err(advised(
            "a document is about one image, and several platforms are named",
            "name one of them",
        ));
    }
    let mut drafts = project::drafts(&work, &image_flags.options()?, &context.environment)?;
    let draft = match (drafts.pop(), drafts.len()) {
        (Some(draft), 0) => draft,
        (None, _) => {
            return Err(advised(
                "the targets make no image",
                "name an image of the spec, or store paths with `--name NAME`",
            ));
        }
        (Some(_), more) => {
            return Err(advised(
                format!("the targets make {} images, but a document is about one", more + 1),
                "name the image",
            ));
        }
    };
    let named = project::image::assemble(draft, &context.environment)?;
    let result = then(&Documents::new(&named, &work))?;
    Ok(result)
}

/// Makes the documents of images that have just been written to `locations`.
pub fn write(
    options: &DocumentOptions,
    work: &Work,
    images: &[NamedImage],
    trials: &[Trial],
    locations: &[Location],
    context: &Context,
) -> anyhow::Result<()> {
    for named in images.iter().flat_map(NamedImage::each) {
        for document in Documents::new(named, work.of(&named.draft))
            .tried(trials)
            .all(options)?
        {
            if options.attach {
                let artifact = document.artifact(named);
                for location in locations {
                    attach(&artifact, location, context)?;
                }
            }
            for dir in dirs_beside(locations).iter().filter(|_| options.beside) {
                let path = dir.join(&document.file_name);
                output::write(&document.bytes, Some(&path), context)?;
                context.ui.note(&format!("Wrote {}.", path.display()));
            }
        }
    }
    Ok(())
}

/// Stores an artifact beside its subject, and prints its digest, its type and the place.
pub fn attach(artifact: &Artifact, location: &Location, context: &Context) -> anyhow::Result<()> {
    attach::attach(artifact, location, &context.environment)?;
    let (digest, kind) = (&artifact.digest, &artifact.artifact_type);
    let line = match context.ui.json() {
        true => json!({
            "event": "artifact-attached",
            "digest": digest,
            "artifact_type": kind,
            "subject": artifact.subject.digest,
            "destination": location.to_string(),
        })
        .to_string(),
        false => format!("{digest} {kind} {location}"),
    };
    Ok(context.ui.data(&line)?)
}

/// Writes a bundle about `subject` to a file, or attaches it to the image at `location`.
pub fn deliver(
    bundle: Vec<u8>,
    subject: oci::Subject,
    file: Option<&Path>,
    location: &Location,
    context: &Context,
) -> anyhow::Result<()> {
    if file.is_some() {
        return output::write(&bundle, file, context);
    }
    attach(&attach::bundle_artifact(bundle, subject), location, context)
}
