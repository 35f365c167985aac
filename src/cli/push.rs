//! `layerize push`: an image into registries.

use std::collections::BTreeMap;

use clap::Args;

use crate::event::{Event, Reporter};
use crate::image::ImageIndex;
use crate::transport::{Content, Location};

use super::complete;
use super::context::Context;
use super::error::advised;
use super::flags::{BuildFlags, ImageFlags, InputsFlags, TransferFlags};
use super::outcome::Outcome;
use super::places::Names;
use super::transfer;
use super::trials::{self, Shown};
use crate::oci::Reference;
use crate::project::request::{self, SharedImage};
use crate::project::trials::Trial;
use crate::project::{self, ImageOptions, KeepExtent, KeptInputs, PlatformChoice, WorkOptions, kept, work};

/// Arguments of `layerize push`.
#[derive(Debug, Args)]
pub struct PushArgs {
    /// What to push (an image of the spec, store paths that together make one image, or a place such as oci:DIR:TAG or
    /// FILE.tar) and then where to: NAME[:TAG] with a host, or docker://NAME[:TAG], repeatable
    #[arg(required = true, value_name = "[NAME…] REF…", add = complete::images_or_files())]
    arguments: Vec<String>,
    /// Push the whole index of a place with the images for all platforms
    #[arg(long)]
    all: bool,
    /// Run the image's tests first; where one fails nothing is pushed
    #[arg(long)]
    test: bool,
    #[command(flatten)]
    transfer: TransferFlags,
    #[command(flatten)]
    inputs: InputsFlags,
    #[command(flatten)]
    image: ImageFlags,
    #[command(flatten)]
    flags: BuildFlags,
}

impl PushArgs {
    /// The arguments that may name a spec elsewhere.
    pub fn names(&mut self) -> (Names<'_>, &mut BuildFlags) {
        (Names::Several(&mut self.arguments), &mut self.flags)
    }
}

/// Builds what is to be built and pushes it.
pub fn run(args: &PushArgs, context: &Context) -> anyhow::Result<Outcome> {
    let (what, registries) = split(&args.arguments)?;
    // What cannot be pushed to is an error before anything is built for it.
    for registry in &registries {
        registry.sink(None, &context.environment.registries, context.ui)?;
    }
    if let [place] = what.as_slice()
        && let Some(location) = place_of(place)
    {
        if args.test {
            return Err(advised(
                format!("the tests of `{place}` are not known here"),
                "push the image by its name in the spec",
            ));
        }
        if args.inputs.inputs.is_some() {
            return Err(advised(
                format!("the inputs of `{place}` are not known here"),
                "push the image by its name in the spec; what another place keeps stays there",
            ));
        }
        let opened = context.content(&location, None, args.all)?;
        return push(&opened.content, &[], &registries, (args, &[]), context);
    }
    // Nothing is looked for or built for what has no one name.
    let count = work::image_count(&what, &context.environment)?;
    if count != 1 {
        return Err(advised(
            format!("{count} images are to be pushed to one name"),
            "name the one to push: `layerize push IMAGE REF`",
        ));
    }
    let options = args.image.options()?;
    let mut work_options = args.flags.options_for(args.image.platforms(PlatformChoice::All));
    work_options.cache.read_only = args.transfer.is_dry_run();
    if !args.test
        && args.inputs.inputs.is_none()
        && push_found(&what, &work_options, &options, &registries, args, context)?
    {
        return Ok(Outcome::Done);
    }
    let work = work::prepare(&what, &work_options, &context.environment)?;
    let images = project::images(&work, &options, &context.environment)?;
    if args.test {
        let trials = trials::run(&images, None, args.flags.jobs, &work, Shown::Aside, context)?;
        if trials.iter().any(Trial::has_failed) {
            context.ui.note("a test failed: nothing is pushed.");
            return Ok(Outcome::No);
        }
    }
    for named in images {
        let keep = match args.inputs.extent(Some(KeepExtent::Outside)) {
            Some(extent) => kept::of_image(&named, &work, &options.made_with(), extent, &context.environment)?,
            None => Vec::new(),
        };
        let workspace = work.project.as_ref().map(|project| &project.workspace);
        let caches = context.environment.cache_repositories(&work_options, workspace)?;
        push(&named.content(), &keep, &registries, (args, &caches), context)?;
        let beside = repositories(&registries)?;
        for (index, part) in named.each().enumerate() {
            let work = work.of(&part.draft);
            request::publish(part, work, &options, &beside, keep.get(index), &context.environment)?;
        }
    }
    context.ui.summary();
    Ok(Outcome::Done)
}

/// Pushes to all registries; `caches` are repositories from which those may take blobs.
fn push(
    content: &Content,
    keep: &[KeptInputs<'_>],
    registries: &[Location],
    (args, caches): (&PushArgs, &[(String, String)]),
    context: &Context,
) -> anyhow::Result<Outcome> {
    for registry in registries {
        transfer::write_beside(content, keep, registry, &[], (&args.transfer, caches), context)?;
    }
    Ok(Outcome::Done)
}

/// Pushes the image that somebody else has made, where there is one; false where it is to be made here.
fn push_found(
    what: &[String],
    work_options: &WorkOptions,
    options: &ImageOptions,
    registries: &[Location],
    args: &PushArgs,
    context: &Context,
) -> anyhow::Result<bool> {
    let all = request::find(what, work_options, options, &context.environment)?;
    let Some(first) = all.first() else {
        return Ok(false);
    };
    if let Err(error) = push_shared(&all, registries, args, context) {
        // Where the registry is at fault, making the image ends in the same error.
        all.iter().for_each(|shared| shared.place.note_damage(&shared.key));
        let place = first.place.name();
        let text = format!("the image in {place} is not taken, and made here instead: {error:#}");
        context.ui.report(Event::Warning { text });
        return Ok(false);
    }
    for shared in &all {
        let keeps = args.inputs.extent(Some(KeepExtent::Outside)).is_some();
        request::pass_on(
            shared,
            work_options,
            &repositories(registries)?,
            keeps,
            &context.environment,
        )?;
    }
    context.ui.summary();
    Ok(true)
}

/// Pushes what somebody else has made of the same request. Its layers go from the shared cache to the registry, which takes
/// them itself where it is the same one.
fn push_shared(all: &[SharedImage], registries: &[Location], args: &PushArgs, context: &Context) -> anyhow::Result<()> {
    for shared in all {
        context.ui.note(&format!(
            "note: {} was made before, and is in {}: nothing is built",
            shared.made.image.digest(),
            shared.place.name()
        ));
    }
    let images = all.iter().map(|shared| shared.made.image.clone());
    let content = match all {
        [only] => Content::Image(only.made.image.clone()),
        _ => Content::Index(ImageIndex::new(images.collect(), BTreeMap::new())?),
    };
    push(&content, &[], registries, (args, &[]), context)?;
    if args.inputs.extent(Some(KeepExtent::Outside)).is_some() && !args.transfer.is_dry_run() {
        for shared in all {
            kept::copy(shared, registries, &context.environment)?;
        }
    }
    Ok(())
}

/// The repositories that were pushed to, each with its registry's host.
fn repositories(registries: &[Location]) -> anyhow::Result<Vec<(String, String)>> {
    let mut repositories = Vec::new();
    for location in registries {
        if let Location::Registry(name) = location {
            let reference: Reference = name.parse()?;
            repositories.push((reference.registry().to_owned(), reference.repository().to_owned()));
        }
    }
    Ok(repositories)
}

/// What to push, and where: every `docker://…`, or else the last argument.
fn split(arguments: &[String]) -> anyhow::Result<(Vec<String>, Vec<Location>)> {
    let is_registry = |argument: &&String| argument.starts_with("docker://");
    let (registries, mut what): (Vec<&String>, Vec<&String>) = arguments.iter().partition(is_registry);
    let mut locations = registries
        .into_iter()
        .map(|registry| Ok(registry.parse()?))
        .collect::<anyhow::Result<Vec<Location>>>()?;
    if locations.is_empty()
        && let Some(last) = what.pop()
    {
        if !last.contains('/') || place_of(last).is_some() {
            return Err(advised(
                format!("`{last}` does not say which registry to push to"),
                "end with a name that has a host, such as `registry.example/me/hello:1`, or `docker://NAME`",
            ));
        }
        locations.push(format!("docker://{last}").parse()?);
    }
    Ok((what.into_iter().cloned().collect(), locations))
}

/// An argument that names a place where an image is, and neither an image of the spec nor a store path.
fn place_of(argument: &str) -> Option<Location> {
    let location: Location = argument.parse().ok()?;
    match &location {
        Location::Registry(_) => None,
        Location::Path(path) => (argument.ends_with(".tar") && path.is_file()).then_some(location),
        _ => Some(location),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_first_and_registries_last() {
        let split = |arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
            split(&arguments).map(|(what, where_to)| {
                let where_to: Vec<String> = where_to.iter().map(ToString::to_string).collect();
                (what.join(" "), where_to.join(" "))
            })
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(split(&["r.example/a:1"]).unwrap(), pair("", "docker://r.example/a:1"));
        assert_eq!(
            split(&["hello", "r.example/a"]).unwrap(),
            pair("hello", "docker://r.example/a")
        );
        assert_eq!(
            split(&["oci:d:v1", "docker://a", "docker://b"]).unwrap(),
            pair("oci:d:v1", "docker://a docker://b")
        );
        for wrong in [&["hello"][..], &["hello", "oci:d"], &["hello", "hello:1"]] {
            assert!(split(wrong).is_err(), "{wrong:?}");
        }
    }
}
