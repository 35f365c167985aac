//! `layerize rebuild`: makes an image anew from what is kept beside it, or from a spec, and compares.
//!
//! Invariant: nothing of the old image gets into the new one but facts that it tells of its making: format, platform,
//! time, compression, and which store paths share a layer; and the layers of its base, which are not ours to make.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use crate::attest::{self, PrivateKey, RebuildFacts};
use crate::audit::{self, DiffOptions, DiffReport, InspectOptions, Report as Inspection};
use crate::digest::Digest;
use crate::escape::shown;
use crate::event::{Event, Reporter};
use crate::fetch;
use crate::image::{self, FORMAT_ANNOTATION, Format, Recipe};
use crate::inputs::{self, Found};
use crate::layer;
use crate::oci::Compression;
use crate::transport::Source;

use super::attest::{build_facts, can_hold_artifacts, deliver, subject_of};
use super::context::Context;
use super::error::advised;
use super::flags::{BuildFlags, ImageFlags, Sandbox};
use super::outcome::Outcome;
use super::output;
use crate::project::{self, Draft, NamedImage, Project, ProjectError, SPEC_NAME, Work, WorkOptions, work};
use crate::spec::Inputs;

/// Arguments of `layerize rebuild`.
#[derive(Debug, Args)]
pub struct RebuildArgs {
    /// An image of layerize's, named as for `inspect`
    source: String,
    /// The spec that it is said to be made from, or its directory [default: what is kept beside the image, else the nearest
    /// layerize.toml]
    #[arg(long, value_name = "PATH")]
    spec: Option<PathBuf>,
    /// Which image of the spec [default: the one of its name]
    #[arg(long, value_name = "NAME")]
    image: Option<String>,
    /// Which platform of a multi-platform image
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// The compression with its level, which no image tells [default: the spec's]
    #[arg(long, value_name = "HOW")]
    compression: Option<Compression>,
    /// Where the digest is the same, sign a statement of it (a SLSA verification summary) with `--key`, and attach it to
    /// the image, which needs oci:DIR[:TAG] or docker://NAME, or write it to `-o`
    #[arg(long, requires = "key")]
    attest: bool,
    /// Private key: Ed25519 or P-256, PKCS #8 in PEM
    #[arg(long, value_name = "FILE", requires = "attest")]
    key: Option<PathBuf>,
    /// Write the bundle to a file instead of attaching it
    #[arg(short, long, value_name = "FILE", requires = "attest")]
    output: Option<PathBuf>,
    #[command(flatten)]
    flags: BuildFlags,
}

/// What came out.
#[derive(Debug, Serialize)]
struct Report {
    same: bool,
    image: String,
    digest: Digest,
    rebuilt: Digest,
    facts: Facts,
    /// What else could be the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    remark: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    differences: Option<DiffReport>,
}

/// What the old image tells of its making.
#[derive(Debug, Serialize)]
struct Facts {
    #[serde(flatten)]
    format: Format,
    platform: String,
    created: String,
    compression: String,
    single_member: bool,
    /// Whether the layers are as the old image has them; else as the spec plans them now.
    layers_of_image: bool,
}

const REMARK_LEVEL: &str = "every layer's tar is the same and only its compression differs: an image does not tell at \
    which level it was compressed; try `--compression gzip:6`";

/// Rebuilds and compares; the answer is no if the digest is another.
pub fn run(args: &RebuildArgs, context: &Context) -> anyhow::Result<Outcome> {
    let signer = signer(args)?;
    let source: Arc<dyn Source> = Arc::from(context.environment.source(&args.source, args.platform.as_deref())?);
    let old = audit::inspect(source.as_ref(), InspectOptions::default())?;
    let format = format_of(&old)?;
    let digest = old.digest.ok_or_else(|| not_ours(&old))?;
    let mut context = context.clone();
    context.environment.file = args.spec.clone().or(context.environment.file);
    context.environment.base_layers = Some(source.clone());
    let context = &context;
    let Prepared { work, image, flags } = prepare(&source, &old, &digest, args, context)?;
    let drafts = project::drafts(&work, &flags.options()?, &context.environment)?;
    let mut draft = drafts.into_iter().next().expect("an image has a draft");
    let layers_of_image = follow(&mut draft, &old)?;
    draft.recipe.tar_profile = format.tar_profile;
    draft.recipe.compression = compression_of(&old, args.compression.or(flags.compression), &draft.recipe)?;
    let compression = draft.recipe.compression;
    let rebuilt = assemble(draft, &old, context)?;
    let mut report = Report {
        same: rebuilt.image.digest == digest,
        image,
        digest,
        rebuilt: rebuilt.image.digest,
        facts: Facts {
            format,
            platform: old.platform.clone(),
            created: old.created.clone().unwrap_or_default(),
            compression: compression.to_string(),
            single_member: rebuilt.draft.recipe.single_member,
            layers_of_image,
        },
        remark: None,
        differences: None,
    };
    if !report.same {
        report.remark = same_tars(&old, &rebuilt).then_some(REMARK_LEVEL);
        report.differences = Some(audit::diff(source.as_ref(), &rebuilt.image, &DiffOptions::default())?);
    }
    context.ui.clear();
    let text = match context.ui.json() {
        true => serde_json::to_string(&report)?,
        false => report.render(),
    };
    output::report(&text, args.output.as_deref(), context)?;
    if !report.same {
        return Ok(Outcome::No);
    }
    if let Some(key) = signer {
        attest_to(&report, source.as_ref(), &key, &work, args, context)?;
    }
    Ok(Outcome::Done)
}

/// The key that the answer is to be signed with; what keeps it from being signed or kept is told before anything is built.
fn signer(args: &RebuildArgs) -> anyhow::Result<Option<PrivateKey>> {
    let Some(key) = &args.key else { return Ok(None) };
    if args.output.is_none() {
        can_hold_artifacts(&args.source.parse()?)?;
    }
    Ok(Some(PrivateKey::read(key)?))
}

/// Signs that the image was made again with its digest.
fn attest_to(
    report: &Report,
    source: &dyn Source,
    key: &PrivateKey,
    work: &Work,
    args: &RebuildArgs,
    context: &Context,
) -> anyhow::Result<()> {
    let name = match source.repository() {
        Some((host, repository)) => format!("{host}/{repository}"),
        None => report.image.clone(),
    };
    let statement = attest::summary(&RebuildFacts {
        digest: report.digest,
        name: &name,
        architecture: report.facts.platform.split('/').nth(1).unwrap_or_default(),
        time: context.now()?,
        build: &build_facts(work),
    })?;
    let bundle = attest::sign(&statement, key)?;
    let location = args.source.parse()?;
    deliver(bundle, subject_of(source)?, args.output.as_deref(), &location, context)
}

/// The number of the rules by which the image was made, which must be known here.
fn format_of(old: &Inspection) -> anyhow::Result<Format> {
    let Some(text) = old.annotations.get(FORMAT_ANNOTATION) else {
        return Err(not_ours(old));
    };
    text.parse().map_err(|_| {
        advised(
            format!(
                "`{}` was made with format `{}`, and this layerize makes format {}",
                old.place,
                shown(text),
                layer::FORMAT
            ),
            "use a release of layerize that has this format",
        )
    })
}

fn not_ours(old: &Inspection) -> anyhow::Error {
    advised(
        format!(
            "`{}` does not say that layerize made it: no `{FORMAT_ANNOTATION}` in its manifest",
            old.place
        ),
        "name the archive or layout that `layerize build` wrote: what went through Docker's own store has lost it",
    )
}

/// Everything that the image is made of, in the store.
struct Prepared {
    work: Work,
    /// Which image of the spec it is.
    image: String,
    /// How it was made beyond what the spec says.
    flags: ImageFlags,
}

/// Finds what the image is made of, and makes it.
fn prepare(
    source: &Arc<dyn Source>,
    old: &Inspection,
    digest: &Digest,
    args: &RebuildArgs,
    context: &Context,
) -> anyhow::Result<Prepared> {
    let found = find_inputs(source, digest, args, context)?;
    let (project, image) = project(old, found.as_ref(), args, context)?;
    let flags = match &found {
        Some(found) => ImageFlags::of_made_with(&found.artifact.about.made_with)?,
        None => ImageFlags::default(),
    };
    let options = WorkOptions {
        locked: true,
        places: found
            .into_iter()
            .map(|found| Arc::new(found) as Arc<dyn fetch::Place>)
            .collect(),
        ..args.flags.options()
    };
    let work = work::prepare_image(project, &image, &options, &context.environment)?;
    Ok(Prepared { work, image, flags })
}

/// What is kept of the image's making: beside it, else in the places that keep inputs.
fn find_inputs(
    source: &Arc<dyn Source>,
    digest: &Digest,
    args: &RebuildArgs,
    context: &Context,
) -> anyhow::Result<Option<Found>> {
    match inputs::beside(source, digest) {
        Ok(Some(found)) => return Ok(Some(found)),
        Ok(None) => {}
        // A spec that the user named does without.
        Err(error) if context.environment.file.is_some() => {
            let text = format!("what is kept beside the image is not used: {error}");
            context.ui.report(Event::Warning { text });
        }
        Err(error) => return Err(error.into()),
    }
    for place in context
        .environment
        .input_places(&args.flags.options(), &Inputs::default())?
    {
        match place.artifact(digest) {
            Ok(None) => {}
            Ok(found) => return Ok(found),
            Err(error) => context.ui.report(Event::Warning {
                text: format!("what is kept elsewhere is not used: {error}"),
            }),
        }
    }
    Ok(None)
}

/// The project that the image is made of, and which of its images that is: the one that the user named, what is kept, or
/// the nearest.
fn project(
    old: &Inspection,
    found: Option<&Found>,
    args: &RebuildArgs,
    context: &Context,
) -> anyhow::Result<(Project, String)> {
    let environment = &context.environment;
    if let Some(found) = found.filter(|_| environment.file.is_none()) {
        if args.flags.sandbox == Sandbox::None {
            return Err(advised(
                "scripts that came with an image are run in the sandbox only",
                "leave out `--sandbox none`, or name a project that you trust with `--spec DIR`",
            ));
        }
        let name = match (&args.image, &found.artifact.about.image) {
            (None, Some(name)) => name.clone(),
            _ => image_of(old, args, &inputs::image_names(found)?)?,
        };
        context
            .ui
            .note(&format!("rebuilding from what is kept in {}", found.place));
        return Ok((Project::restore(found, &name, environment)?, name));
    }
    let project = Project::load(environment).map_err(|error| match error {
        ProjectError::NoSpec => advised(
            format!(
                "no inputs are kept beside `{}`, and there is no {SPEC_NAME} here",
                old.place
            ),
            "name the project with `--spec DIR`, or a place that keeps the inputs with `--inputs-from oci:DIR`",
        ),
        error => error.into(),
    })?;
    let known: Vec<String> = project.workspace.images.keys().cloned().collect();
    let name = image_of(old, args, &known)?;
    Ok((project, name))
}

/// The image of the spec that is meant: by its name there, else the only one.
fn image_of(old: &Inspection, args: &RebuildArgs, known: &[String]) -> anyhow::Result<String> {
    let unknown = |what: String| {
        let names: Vec<&str> = known.iter().map(|name| name.as_str()).collect();
        advised(
            what,
            format!("name one with `--image`; the spec has: {}", names.join(", ")),
        )
    };
    if let Some(name) = &args.image {
        return match known.contains(name) {
            true => Ok(name.clone()),
            false => Err(unknown(format!("the spec has no image `{name}`"))),
        };
    }
    let is_named = |known: &&String| {
        old.names.iter().any(|name| {
            let bare = name.rsplit_once(':').map_or(name.as_str(), |(bare, _)| bare);
            bare == known.as_str() || bare.ends_with(&format!("/{known}"))
        })
    };
    match (known.iter().find(is_named), known) {
        (Some(name), _) => Ok(name.clone()),
        (None, [only]) => Ok(only.clone()),
        (None, _) => Err(unknown(format!(
            "`{}` does not say which image of the spec it is",
            old.place
        ))),
    }
}

/// The engine that the layers show, at the level that is given, else the spec's, else the default.
fn compression_of(old: &Inspection, given: Option<Compression>, recipe: &Recipe) -> anyhow::Result<Compression> {
    if let Some(given) = given {
        return Ok(given);
    }
    // The layers of a base are as its maker compressed them.
    let below = recipe.base.as_ref().map_or(0, |base| base.image.layers.len());
    let own = || old.layers.iter().skip(below);
    let found = own().next().map_or("gzip", |layer| layer.compression);
    if let Some(other) = own().find(|layer| layer.compression != found) {
        let text = format!("`{}` has layers of {found} and of {}", old.place, other.compression);
        return Err(advised(
            text,
            "layerize compresses all layers alike: another tool has changed it",
        ));
    }
    let engine: Compression = found.parse()?;
    let of_spec = Some(recipe.compression).filter(|of_spec| of_spec.media_type() == engine.media_type());
    Ok(of_spec.unwrap_or(engine))
}

/// Assembles; where only the compression is another, once more with one gzip member a layer.
fn assemble(draft: Draft, old: &Inspection, context: &Context) -> anyhow::Result<NamedImage> {
    let mut single = draft.clone();
    single.recipe.single_member = true;
    let many = project::image::assemble(draft, &context.environment)?;
    if Some(many.image.digest) != old.digest && same_tars(old, &many) {
        let single = project::image::assemble(single, &context.environment)?;
        if Some(single.image.digest) == old.digest {
            return Ok(single);
        }
    }
    Ok(many)
}

fn same_tars(old: &Inspection, new: &NamedImage) -> bool {
    let new = new.image.layers.iter().map(|layer| Some(layer.diff_id));
    old.layers.iter().map(|layer| layer.diff_id).eq(new)
}

/// Takes over what an image tells of its making; whether that goes for its layers too, which it does only where they
/// hold exactly what is to be packed.
fn follow(draft: &mut Draft, old: &Inspection) -> anyhow::Result<bool> {
    let created = old.created.as_deref().unwrap_or_default();
    draft.recipe.created = image::parse_time(created).ok_or_else(|| {
        advised(
            format!("`{}` says `{}` of when it was made", old.place, created.escape_debug()),
            "layerize writes times as `1970-01-01T00:00:01Z`: another tool has changed it",
        )
    })?;
    draft.recipe.platform = old.platform.parse()?;
    Ok(draft.take_layers(old))
}

impl Report {
    fn render(&self) -> String {
        let Facts {
            format,
            platform,
            created,
            compression,
            ..
        } = &self.facts;
        let facts = format!("format {format}, {platform}, {created}, {compression}");
        let facts = shown(&facts);
        if self.same {
            return format!("same     image {} {} ({facts})\n", self.image, self.digest);
        }
        let mut text = format!(
            "DIFFERS  image {} {} and {} ({facts})\n",
            self.image, self.digest, self.rebuilt
        );
        text.extend(self.remark.map(|remark| format!("{remark}\n")));
        text.extend(self.differences.as_ref().map(DiffReport::render));
        text
    }
}
