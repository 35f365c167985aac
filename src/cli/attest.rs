//! What the verbs that *attest* share: from a target or a finished image to its inventory and documents.
//!
//! Invariant: a document of a target speaks of the very image that `build` with the same flags writes.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;

use crate::attest::{self, BuildFacts, Gathered, Inventory, SbomFormat};
use crate::digest::Digest;
use crate::image::{Image, ImageRequest};
use crate::plan::{Input, StepId};
use crate::spec;
use crate::store_path::StorePath;
use crate::transport::Location;

use super::build::BuildFlags;
use super::context::Context;
use super::error::advised;
use super::images::{self, ImageFlags, Recipe};
use super::pipeline::{self, Work};

/// An image that was just assembled, with all that it was made of.
pub struct Subject<'a> {
    work: &'a Work,
    request: ImageRequest<'a>,
    image: &'a Image,
    flags: &'a ImageFlags,
}

impl<'a> Subject<'a> {
    /// The image of a recipe.
    pub fn new(recipe: &'a Recipe, image: &'a Image, work: &'a Work, flags: &'a ImageFlags, context: &Context) -> Self {
        Self {
            work,
            request: recipe.request(context),
            image,
            flags,
        }
    }

    /// Its bill of materials.
    pub fn sbom(&self, format: SbomFormat) -> anyhow::Result<Vec<u8>> {
        Ok(attest::sbom(&attest::gather(&self.gathered())?, format))
    }

    /// Its provenance.
    pub fn provenance(&self) -> anyhow::Result<Vec<u8>> {
        let built = self.gathered();
        let inventory = attest::gather(&built)?;
        Ok(attest::provenance(&built, &inventory, &self.facts())?)
    }

    fn gathered(&self) -> Gathered<'_> {
        let mut steps: BTreeMap<StorePath, StepId> = BTreeMap::new();
        for (input, path) in &self.work.paths {
            // Of steps that made the same path the first in the plan counts: the inputs come in its order.
            if let Input::Step(step) = input {
                steps.entry(path.clone()).or_insert(*step);
            }
        }
        Gathered {
            request: &self.request,
            image: self.image,
            store: &self.work.store,
            plan: &self.work.plan,
            steps,
            packages: self.packages(),
        }
    }

    /// What the spec calls the packages at store paths.
    fn packages(&self) -> BTreeMap<StorePath, (String, Option<String>)> {
        let Some(project) = &self.work.project else {
            return BTreeMap::new();
        };
        let packages = self.work.plan.packages.iter().filter_map(|(name, input)| {
            let path = match input {
                Input::Path(path) => path,
                Input::Step(_) => self.work.paths.get(input)?,
            };
            let version = project.workspace.packages.get(name)?.version.as_ref();
            let own = name.0.rsplit(':').next().unwrap_or(&name.0);
            Some((
                path.clone(),
                (own.to_owned(), version.map(|version| version.value.clone())),
            ))
        });
        packages.collect()
    }

    fn facts(&self) -> BuildFacts {
        let mut facts = BuildFacts {
            options: self.flags.options(),
            ..BuildFacts::default()
        };
        if let Some(project) = &self.work.project {
            let files = project.workspace.files.iter();
            facts.spec = files
                .map(|file| (relative(&file.path, &project.dir), Digest::of(file.text.as_bytes())))
                .collect();
            facts.lock = Some(Digest::of(spec::lock::print(&project.lock).as_bytes()));
        }
        facts
    }
}

/// A spec file's name as it is in every checkout: no path of this machine.
fn relative(file: &Path, project: &Path) -> String {
    let below = file.strip_prefix(project).ok();
    let name = below.or_else(|| file.file_name().map(Path::new)).unwrap_or(file);
    name.display().to_string()
}

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
pub fn partial(source: &str, platform: Option<&str>, context: &Context) -> anyhow::Result<Inventory> {
    let image = context.source(source, platform)?;
    Ok(attest::of_source(image.as_ref())?)
}

/// Assembles the one image that the targets name and hands it on.
pub fn of_one_image<T>(
    targets: &[String],
    image_flags: &ImageFlags,
    flags: &BuildFlags,
    context: &Context,
    then: impl FnOnce(&Subject<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let work = pipeline::prepare(targets, flags, context)?;
    let mut recipes = images::recipes(&work, image_flags, context)?;
    let recipe = match (recipes.pop(), recipes.len()) {
        (Some(recipe), 0) => recipe,
        (None, _) => {
            return Err(advised(
                "the targets make no image",
                "name an image of the spec, or store paths with `--name NAME`",
            ));
        }
        (Some(_), more) => {
            return Err(advised(
                format!("the targets make {} images, and a document speaks of one", more + 1),
                "name the image",
            ));
        }
    };
    let named = images::assemble(&recipe, image_flags, context)?;
    let subject = Subject::new(&recipe, &named.image, &work, image_flags, context);
    let result = then(&subject)?;
    context.trim_layer_cache()?;
    Ok(result)
}

/// Prints a document, or writes it to a file.
pub fn output(document: &[u8], file: Option<&Path>, context: &Context) -> anyhow::Result<()> {
    context.ui.clear();
    match file.filter(|file| *file != Path::new("-")) {
        Some(file) => Ok(crate::fsio::write_atomic(file, document)?),
        None => {
            let text = std::str::from_utf8(document).context("a document is not UTF-8")?;
            Ok(context.ui.data(text.trim_end())?)
        }
    }
}
