//! From recipes to *named images*, assembled and ready to be written.
//!
//! Invariant: an image depends on its recipe and its options alone; what was kept from earlier builds only saves time.

use std::collections::BTreeMap;

use crate::digest::Digest;
use crate::image::{self, Image, Index};
use crate::layer::{PackOptions, TarProfile};
use crate::spec::GoldenKey;
use crate::transport::Content;

use super::environment::Environment;
use super::error::ProjectError;
use super::options::ImageOptions;
use super::recipe::{Recipe, recipes};
use super::target::Target;
use super::work::Work;

/// An assembled image with its names.
pub struct NamedImage {
    /// What the user calls it; names the default archive.
    pub name: String,
    /// `NAME:TAG`, for the sinks.
    pub names: Vec<String>,
    /// The image; the first of them where it is made for several platforms.
    pub image: Image,
    /// The images for all platforms, where there are several.
    pub index: Option<Index>,
    /// What its digest is recorded under; `None` where flags make it another image than the spec's.
    pub golden: Option<GoldenKey>,
}

impl NamedImage {
    /// What is to be written: the image, or all of them.
    pub fn content(&self) -> Content {
        match &self.index {
            Some(index) => Content::Index(index.clone()),
            None => Content::Image(self.image.clone()),
        }
    }
}

/// Assembles all images among the targets; all store paths among them make up one.
pub fn of_targets(
    work: &Work,
    options: &ImageOptions,
    environment: &Environment<'_>,
) -> Result<Vec<NamedImage>, ProjectError> {
    if options.platforms.len() > 1 {
        return for_platforms(work, options, environment);
    }
    let mut images = Vec::new();
    for recipe in recipes(work, options, environment)? {
        if let Some(kept) = recipe.kept.as_ref().filter(|_| work.locked) {
            kept.refuse_other(recipe.plan.as_ref())?;
        }
        work.nix.note_missing_records(environment.reporter);
        images.push(assemble(&recipe, options, environment).map_err(|error| work.nix.explained(error))?);
        if let (Some(kept), Some(plan)) = (&recipe.kept, &recipe.plan)
            && !kept.aside
        {
            kept.keep(plan, environment.reporter)?;
        }
    }
    for target in &work.targets {
        if let Target::Image(_) = target {
            work.add_root(target)?;
        }
    }
    Ok(images)
}

/// The image of store paths for several platforms. What only runs on one of them is found by the check of its program.
fn for_platforms(
    work: &Work,
    options: &ImageOptions,
    environment: &Environment<'_>,
) -> Result<Vec<NamedImage>, ProjectError> {
    let mut all: Vec<NamedImage> = Vec::new();
    for platform in &options.platforms {
        let options = ImageOptions {
            platforms: vec![platform.clone()],
            ..options.clone()
        };
        all.extend(of_targets(work, &options, environment)?);
    }
    let images = all.iter().map(|named| named.image.clone()).collect();
    let index = Index::new(images, &BTreeMap::new())?;
    let first = all.into_iter().next();
    Ok(first
        .map(|named| NamedImage {
            index: Some(index),
            ..named
        })
        .into_iter()
        .collect())
}

/// Assembles an image once more, with one thread and without anything that was kept; gives its digest.
pub fn digest_from_scratch(
    recipe: &Recipe,
    options: &ImageOptions,
    environment: &Environment<'_>,
) -> Result<Digest, ProjectError> {
    let pack = PackOptions {
        compression: options.compression.or(recipe.compression()?).unwrap_or_default(),
        single_member: options.single_member,
        threads: 1,
        ..PackOptions::default()
    };
    Ok(image::assemble(&recipe.request(environment), &pack, None, environment.reporter)?.digest)
}

/// Assembles the image of a recipe.
pub fn assemble(
    recipe: &Recipe,
    options: &ImageOptions,
    environment: &Environment<'_>,
) -> Result<NamedImage, ProjectError> {
    let name = recipe.spec.name.value.clone();
    let of_spec = recipe.compression()?;
    let tar_profile = recipe.spec.layers.tar_profile.as_ref();
    let tar_profile = tar_profile.map(|text| text.value.parse::<TarProfile>()).transpose()?;
    let cache = environment.layer_cache()?;
    let pack = PackOptions {
        profile: options.tar_profile.or(tar_profile).unwrap_or_default(),
        compression: options.compression.or(of_spec).unwrap_or_default(),
        single_member: options.single_member,
        threads: options.pack_threads,
        cache: Some(&cache),
        ..PackOptions::default()
    };
    let request = recipe.request(environment);
    let kept = environment.image_cache()?;
    let image = image::assemble(&request, &pack, Some(&kept), environment.reporter).map_err(|source| {
        let image = name.clone();
        ProjectError::Making {
            image,
            source: Box::new(source),
        }
    })?;
    Ok(NamedImage {
        golden: recipe.golden_key(options, pack.compression, environment),
        names: vec![format!("{name}:{}", recipe.spec.tag)],
        name,
        image,
        index: None,
    })
}

/// The file that an image is written to where nothing else is asked for.
pub fn archive_name(image: &str) -> String {
    format!("{}.tar", image.rsplit('/').next().unwrap_or(image))
}
