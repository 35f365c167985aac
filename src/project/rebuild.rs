//! A *rebuild* makes an image anew from what is kept beside it, or from a spec, and compares.
//!
//! Invariant: nothing of the old image gets into the new one but facts that it states about its making: format, platform,
//! time, compression, and which store paths share a layer; and the layers of its base, which are not ours to make.

use std::sync::Arc;

use serde::Serialize;

use crate::attest::{self, AttestError, PrivateKey, RebuildFacts};
use crate::audit::{self, AuditError, DiffOptions, DiffReport, InspectOptions, Report as Inspection};
use crate::digest::Digest;
use crate::escape::shown;
use crate::event::Event;
use crate::fetch;
use crate::image::{self, FORMAT_ANNOTATION, Format, Recipe};
use crate::inputs::{self, FoundInputs, InputsError};
use crate::layer;
use crate::oci::{Compression, ParseCompressionError, PlatformError};
use crate::spec::Inputs;
use crate::transport::Source;
use crate::walls::Walls;

use super::documents::build_facts;
use super::draft::{self, Draft};
use super::environment::{Environment, WorkOptions};
use super::error::ProjectError;
use super::files::{Project, SPEC_NAME};
use super::image::{NamedImage, assemble};
use super::options::ImageOptions;
use super::platforms::PlatformChoice;
use super::work::{self, Work};

/// What is said of the making of an image beyond what the image itself says.
#[derive(Debug, Clone)]
pub struct RebuildOptions {
    /// Which image of the spec; `None`: the one of the image's name, or the only one.
    pub image: Option<String>,
    /// The compression with its level; `None`: what was kept, else the spec's.
    pub compression: Option<Compression>,
    /// How inputs are made. A rebuild always uses the lock as it is.
    pub work: WorkOptions,
}

/// Why an image could not be rebuilt.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The project, a build or the assembling failed.
    #[error(transparent)]
    Project(Box<ProjectError>),
    /// An image could not be read.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// What is kept of the image's making could not be read.
    #[error(transparent)]
    Inputs(#[from] InputsError),
    /// The image states a platform that is none.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// The image's layers have a compression that is not known.
    #[error(transparent)]
    Compression(#[from] ParseCompressionError),
    /// The statement about the rebuild could not be made.
    #[error(transparent)]
    Attest(#[from] AttestError),
    /// The image is not layerize's.
    #[error("`{place}` does not say that layerize made it: no `{FORMAT_ANNOTATION}` in its manifest")]
    NotOurs {
        /// Where it is.
        place: String,
    },
    /// The image was made by rules that this release does not have.
    #[error(
        "`{place}` was made with format `{}`, and this layerize makes format {}",
        shown(format),
        layer::FORMAT
    )]
    Format {
        /// Where it is.
        place: String,
        /// What it says.
        format: String,
    },
    /// Scripts of a project that came with an image would run without a sandbox.
    #[error("scripts that came with an image run in the sandbox only")]
    Sandbox,
    /// Neither kept inputs nor a spec.
    #[error("no inputs are kept beside `{place}`, and there is no {SPEC_NAME} here")]
    NoSpec {
        /// Where the image is.
        place: String,
    },
    /// The user named an image that the spec does not have.
    #[error("the spec has no image `{name}`")]
    NoImage {
        /// The name.
        name: String,
        /// The images of the spec.
        known: Vec<String>,
    },
    /// Which image of the spec is meant cannot be told.
    #[error("`{place}` does not say which image of the spec it is")]
    WhichImage {
        /// Where it is.
        place: String,
        /// The images of the spec.
        known: Vec<String>,
    },
    /// The layers are not all compressed alike.
    #[error("`{place}` has layers compressed with {} and with {}", found[0], found[1])]
    Mixed {
        /// Where the image is.
        place: String,
        /// Two compressions.
        found: [&'static str; 2],
    },
    /// The image's time is none.
    #[error("`{place}` gives `{created}` as the time when it was made")]
    Time {
        /// Where the image is.
        place: String,
        /// What it says, escaped.
        created: String,
    },
}

impl From<ProjectError> for RebuildError {
    fn from(error: ProjectError) -> Self {
        Self::Project(Box::new(error))
    }
}

impl RebuildError {
    /// What to type next.
    pub fn help(&self) -> Option<String> {
        let text = match self {
            Self::Project(error) => return error.help(),
            Self::Audit(error) => return error.help(),
            Self::Inputs(error) => return error.help(),
            Self::Compression(error) => return error.help(),
            Self::Attest(error) => return error.help(),
            Self::Platform(_) => return None,
            Self::NotOurs { .. } => {
                "name the archive or layout that `layerize build` wrote: images that went through Docker's own store lose it"
            }
            Self::Format { .. } => "use a release of layerize that has this format",
            Self::Sandbox => {
                "leave out `--sandbox none` and `require = \"none\"`, or name a project that you trust with `--spec DIR`"
            }
            Self::NoSpec { .. } => {
                "name the project with `--spec DIR`, or a place that keeps the inputs with `--inputs-from oci:DIR`"
            }
            Self::NoImage { known, .. } | Self::WhichImage { known, .. } => {
                return Some(format!("name one with `--image`; the spec has: {}", known.join(", ")));
            }
            Self::Mixed { .. } => "layerize compresses all layers alike: another tool has changed it",
            Self::Time { .. } => "layerize writes times as `1970-01-01T00:00:01Z`: another tool has changed it",
        };
        Some(text.to_owned())
    }
}

/// What came out.
#[derive(Debug, Serialize)]
pub struct RebuildReport {
    /// Whether the digest is the same.
    pub same: bool,
    /// The image's name in the spec.
    pub image: String,
    /// The digest that it had.
    pub digest: Digest,
    /// The digest that came out.
    pub rebuilt: Digest,
    /// What the old image states of its making.
    pub facts: MakingFacts,
    /// What else could be the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remark: Option<&'static str>,
    /// In what the new image differs, where it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differences: Option<DiffReport>,
}

/// What an image states of its making.
#[derive(Debug, Serialize)]
pub struct MakingFacts {
    /// The rules by which it was made.
    #[serde(flatten)]
    pub format: Format,
    /// `OS/ARCH[/VARIANT]`.
    pub platform: String,
    /// When, as RFC 3339 has it.
    pub created: String,
    /// How its layers were compressed again.
    pub compression: String,
    /// Whether each layer is one gzip member.
    pub single_member: bool,
    /// Whether the layers are as the old image has them; else as the spec plans them now.
    pub layers_of_image: bool,
}

const REMARK_LEVEL: &str = "every layer's tar is the same and only its compression differs: an image does not record \
    its compression level; try `--compression gzip:6`";

/// An image that was made anew.
pub struct Rebuilt {
    /// How it compares.
    pub report: RebuildReport,
    /// What it was made of.
    pub work: Work,
}

/// Makes the image in `source` anew and compares. The spec is what is kept beside it, unless the environment names one.
pub fn rebuild(
    source: &Arc<dyn Source>,
    options: &RebuildOptions,
    environment: &Environment<'_>,
) -> Result<Rebuilt, RebuildError> {
    let old = audit::inspect(source.as_ref(), InspectOptions::default())?;
    let format = format_of(&old)?;
    let digest = old.digest.and_then(|digest| digest.sha256());
    let digest = digest.ok_or_else(|| not_ours(&old))?;
    let environment = &Environment {
        base_layers: Some(source.clone()),
        ..environment.clone()
    };
    let Prepared { work, image, made_with } = prepare(source, &old, &digest, options, environment)?;
    let drafts = draft::drafts(&work, &made_with, environment)?;
    let mut draft = drafts.into_iter().next().expect("an image has a draft");
    let layers_of_image = follow(&mut draft, &old)?;
    draft.recipe.tar_profile = format.tar_profile;
    draft.recipe.compression = compression_of(&old, options.compression.or(made_with.compression), &draft.recipe)?;
    let compression = draft.recipe.compression;
    let rebuilt = assemble_like(draft, &old, environment)?;
    let same = rebuilt.image.digest() == digest;
    let (mut remark, mut differences) = (None, None);
    if !same {
        remark = same_tars(&old, &rebuilt).then_some(REMARK_LEVEL);
        differences = Some(audit::diff(source.as_ref(), &rebuilt.image, &DiffOptions::default())?);
    }
    let report = RebuildReport {
        same,
        image,
        digest,
        rebuilt: rebuilt.image.digest(),
        facts: MakingFacts {
            format,
            platform: old.platform.clone(),
            created: old.created.clone().unwrap_or_default(),
            compression: compression.to_string(),
            single_member: rebuilt.draft.recipe.single_member,
            layers_of_image,
        },
        remark,
        differences,
    };
    Ok(Rebuilt { report, work })
}

impl Rebuilt {
    /// A signed statement that the image was made again with its digest, at `time` in seconds since 1970.
    pub fn summary(&self, source: &dyn Source, key: &PrivateKey, time: i64) -> Result<Vec<u8>, RebuildError> {
        let name = match source.repository() {
            Some((host, repository)) => format!("{host}/{repository}"),
            None => self.report.image.clone(),
        };
        let statement = attest::summary(&RebuildFacts {
            digest: self.report.digest,
            name: &name,
            architecture: self.report.facts.platform.split('/').nth(1).unwrap_or_default(),
            time,
            build: &build_facts(&self.work),
        })?;
        Ok(attest::sign(&statement, key)?)
    }
}

/// The rules by which the image was made, which must be known here.
fn format_of(old: &Inspection) -> Result<Format, RebuildError> {
    let text = old.annotations.get(FORMAT_ANNOTATION).ok_or_else(|| not_ours(old))?;
    text.parse().map_err(|_| RebuildError::Format {
        place: old.place.clone(),
        format: text.clone(),
    })
}

fn not_ours(old: &Inspection) -> RebuildError {
    RebuildError::NotOurs {
        place: old.place.clone(),
    }
}

/// Everything that the image is made of, in the store.
struct Prepared {
    work: Work,
    /// Which image of the spec it is.
    image: String,
    /// How it was made beyond what the spec says.
    made_with: ImageOptions,
}

/// Finds what the image is made of, and makes it.
fn prepare(
    source: &Arc<dyn Source>,
    old: &Inspection,
    digest: &Digest,
    options: &RebuildOptions,
    environment: &Environment<'_>,
) -> Result<Prepared, RebuildError> {
    let found = find_inputs(source, digest, options, environment)?;
    let (project, image) = project(old, found.as_ref(), options, environment)?;
    let made_with = match &found {
        Some(found) => ImageOptions::from_made_with(&found.artifact.about.made_with)?,
        None => ImageOptions::default(),
    };
    let places = found.into_iter().map(|found| Arc::new(found) as Arc<dyn fetch::Place>);
    let options = WorkOptions {
        locked: true,
        places: places.collect(),
        platforms: PlatformChoice::These(vec![old.platform.parse()?]),
        ..options.work.clone()
    };
    let work = work::prepare_image(project, &image, &options, environment)?;
    Ok(Prepared { work, image, made_with })
}

/// What is kept of the image's making: beside it, else in the places that keep inputs.
fn find_inputs(
    source: &Arc<dyn Source>,
    digest: &Digest,
    options: &RebuildOptions,
    environment: &Environment<'_>,
) -> Result<Option<FoundInputs>, RebuildError> {
    let warn = |text: String| environment.reporter.report(Event::Warning { text });
    match inputs::beside(source, digest) {
        Ok(Some(found)) => return Ok(Some(found)),
        Ok(None) => {}
        // A spec that the user named does without.
        Err(error) if environment.file.is_some() => {
            warn(format!("the inputs kept beside the image are not used: {error}"));
        }
        Err(error) => return Err(error.into()),
    }
    for place in environment.input_places(&options.work, &Inputs::default())? {
        match place.artifact(digest) {
            Ok(None) => {}
            Ok(found) => return Ok(found),
            Err(error) => warn(format!("inputs kept elsewhere are not used: {error}")),
        }
    }
    Ok(None)
}

/// The project that the image is made of, and which of its images that is: the one that the user named, what is kept, or
/// the nearest.
fn project(
    old: &Inspection,
    found: Option<&FoundInputs>,
    options: &RebuildOptions,
    environment: &Environment<'_>,
) -> Result<(Project, String), RebuildError> {
    if let Some(found) = found.filter(|_| environment.file.is_none()) {
        let require = environment.required_walls(&options.work, None);
        if [options.work.sandbox, require].contains(&Some(Walls::None)) {
            return Err(RebuildError::Sandbox);
        }
        let name = match (&options.image, &found.artifact.about.image) {
            (None, Some(name)) => name.clone(),
            _ => image_of(old, options.image.as_deref(), inputs::image_names(found)?)?,
        };
        let text = format!("rebuilding from what is kept in {}", found.place);
        environment.reporter.report(Event::Note { text });
        return Ok((Project::restore(found, &name, environment)?, name));
    }
    let project = Project::load(environment).map_err(|error| match error {
        ProjectError::NoSpec => RebuildError::NoSpec {
            place: old.place.clone(),
        },
        error => error.into(),
    })?;
    let known = project.workspace.images.keys().cloned().collect();
    let name = image_of(old, options.image.as_deref(), known)?;
    Ok((project, name))
}

/// The image of the spec that is meant: the one that the user named, else the one of the old image's name, else the only
/// one.
fn image_of(old: &Inspection, named: Option<&str>, known: Vec<String>) -> Result<String, RebuildError> {
    if let Some(name) = named {
        let name = name.to_owned();
        return match known.contains(&name) {
            true => Ok(name),
            false => Err(RebuildError::NoImage { name, known }),
        };
    }
    let is_named = |known: &&String| {
        old.names.iter().any(|name| {
            let bare = name.rsplit_once(':').map_or(name.as_str(), |(bare, _)| bare);
            bare == known.as_str() || bare.ends_with(&format!("/{known}"))
        })
    };
    match (known.iter().find(is_named), known.as_slice()) {
        (Some(name), _) => Ok(name.clone()),
        (None, [only]) => Ok(only.clone()),
        (None, _) => Err(RebuildError::WhichImage {
            place: old.place.clone(),
            known,
        }),
    }
}

/// The engine that the layers show, at the level that is given, else the spec's, else the default.
fn compression_of(old: &Inspection, given: Option<Compression>, recipe: &Recipe) -> Result<Compression, RebuildError> {
    if let Some(given) = given {
        return Ok(given);
    }
    // The layers of a base are as its maker compressed them.
    let below = recipe.base.as_ref().map_or(0, |base| base.image.layers.len());
    let own = || old.layers.iter().skip(below);
    let found = own().next().map_or("gzip", |layer| layer.compression);
    if let Some(other) = own().find(|layer| layer.compression != found) {
        return Err(RebuildError::Mixed {
            place: old.place.clone(),
            found: [found, other.compression],
        });
    }
    let engine: Compression = found.parse()?;
    let of_spec = Some(recipe.compression).filter(|of_spec| of_spec.media_type() == engine.media_type());
    Ok(of_spec.unwrap_or(engine))
}

/// Assembles; where only the compression is another, once more with one gzip member a layer.
fn assemble_like(draft: Draft, old: &Inspection, environment: &Environment<'_>) -> Result<NamedImage, ProjectError> {
    let mut single = draft.clone();
    single.recipe.single_member = true;
    let many = assemble(draft, environment)?;
    if old.digest.is_none_or(|digest| digest != many.image.digest()) && same_tars(old, &many) {
        let single = assemble(single, environment)?;
        if old.digest.is_some_and(|digest| digest == single.image.digest()) {
            return Ok(single);
        }
    }
    Ok(many)
}

fn same_tars(old: &Inspection, new: &NamedImage) -> bool {
    let new = new.image.layers.iter().map(|layer| layer.diff_id);
    old.layers.iter().map(|layer| layer.diff_id).eq(new)
}

/// Takes over what an image states of its making; whether that goes for its layers too, which it does only where they
/// hold exactly what is to be packed.
fn follow(draft: &mut Draft, old: &Inspection) -> Result<bool, RebuildError> {
    let created = old.created.as_deref().unwrap_or_default();
    draft.recipe.created = image::parse_time(created).ok_or_else(|| RebuildError::Time {
        place: old.place.clone(),
        created: created.escape_debug().to_string(),
    })?;
    draft.recipe.platform = old.platform.parse()?;
    Ok(draft.take_layers(old))
}
