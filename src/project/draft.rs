//! A *draft* is an image that is ready to be assembled: its recipe, and the file that its plan is kept in.
//!
//! Invariant: an image of store paths and an image of a spec take the same way; options only fill in a spec.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::audit;
use crate::derive::{Action, ImageInputs, Input};
use crate::event::{Event, Reporter};
use crate::image::{self, ImageError, Recipe, RootPackage};
use crate::layer::partition::Origin;
use crate::oci::Platform;
use crate::spec::{self, Dependency, GoldenKey};
use crate::store_path::{LogicalPath, StoreDir};

use super::base;
use super::certificates;
use super::debug;
use super::environment::{DEFAULT_EPOCH, Environment};
use super::error::ProjectError;
use super::layer_plan::{self, PlanFile};
use super::options::ImageOptions;
use super::origins::Origins;
use super::roots::Roots;
use super::scripts;
use super::target::Target;
use super::work::Work;

/// The platform of images without anything that says otherwise. Not the machine's: a digest may not depend on it.
const DEFAULT_PLATFORM: &str = "linux/amd64";

/// An image that is ready to be assembled.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Everything that decides its digest.
    pub recipe: Recipe,
    /// Where its plan is kept, for an image whose spec says so.
    pub kept: Option<PlanFile>,
    /// What was asked for beyond the spec, or for an image of store paths beyond an image of its name.
    pub options: Map<String, Value>,
    /// Whether it is an image of the spec, not one of store paths.
    is_of_spec: bool,
    /// Number of threads that pack; 0: the number of cores.
    pub(super) threads: usize,
}

impl Draft {
    /// What the user calls the image.
    pub fn name(&self) -> &str {
        &self.recipe.spec.name.value
    }

    /// What the image's digest is recorded under; `None` for an image that is not as the spec alone has it. A compression
    /// of the user's choice is part of the key.
    pub fn golden_key(&self) -> Option<GoldenKey> {
        let is_plain = self.options.keys().all(|key| key == "compression");
        (self.is_of_spec && is_plain).then(|| GoldenKey {
            image: self.name().to_owned(),
            platform: self.recipe.platform.clone(),
            compression: self.recipe.compression,
            format: self.recipe.format().number,
        })
    }

    /// Takes the kept plan where it is this image's; else makes the one that is to be kept, starting from it.
    fn settle_plan(&mut self) -> Result<(), ImageError> {
        let Some(kept) = self.kept.as_ref().filter(|kept| !kept.overridden) else {
            return Ok(());
        };
        let fits = match &kept.plan {
            Some(plan) => image::fits(&self.recipe, plan)?,
            None => false,
        };
        self.recipe.plan = if fits {
            kept.plan.clone()
        } else {
            let given = std::mem::replace(&mut self.recipe.previous, kept.plan.clone());
            let plan = image::plan(&self.recipe);
            self.recipe.previous = given;
            Some(plan?)
        };
        Ok(())
    }

    /// Forgets the plan that was settled, so that one is made anew: from what options say was before, else from the kept one.
    pub fn plan_anew(&mut self) {
        if let Some(kept) = &self.kept {
            self.recipe.plan = None;
            let previous = &mut self.recipe.previous;
            *previous = previous.take().or_else(|| kept.plan.clone());
        }
    }

    /// Takes over which store paths and packages share a layer in an image, where that has exactly this recipe's.
    pub fn take_layers(&mut self, image: &audit::Report) -> bool {
        let Recipe {
            root, closure, debug, ..
        } = &self.recipe;
        let mut layers = layer_plan::layers_of(image, root);
        if let Some(debug) = debug {
            layers.retain(|layer| !debug.is_layer_of(&layer.paths));
        }
        let in_image: BTreeSet<&str> = layers
            .iter()
            .flat_map(|layer| &layer.paths)
            .map(String::as_str)
            .collect();
        let packages: Vec<String> = root.iter().map(image::root_path).collect();
        let members = closure.iter().map(|member| member.logical.as_str());
        if in_image != members.chain(packages.iter().map(String::as_str)).collect() {
            return false;
        }
        self.recipe.plan = Some(layer_plan::from_layers(layers));
        true
    }
}

/// The drafts of all images among the targets, for each of their platforms.
pub fn all_drafts(
    work: &Work,
    options: &ImageOptions,
    environment: &Environment<'_>,
) -> Result<Vec<Draft>, ProjectError> {
    let all = work.everywhere().map(|work| drafts(work, options, environment));
    Ok(all.collect::<Result<Vec<_>, _>>()?.concat())
}

/// The drafts of all images among the targets that are for one platform; all store paths among them make up one.
pub fn drafts(work: &Work, options: &ImageOptions, environment: &Environment<'_>) -> Result<Vec<Draft>, ProjectError> {
    let paths: Vec<&Target> = work.targets.iter().filter(|target| target.is_path()).collect();
    let mut drafts = Vec::new();
    for target in &work.targets {
        if let Target::Image(name) = target {
            drafts.push(of_spec(name, work, options, environment)?);
        }
    }
    match paths.is_empty() {
        true => options.refuse_description()?,
        false => drafts.push(of_paths(&paths, work, options, environment)?),
    }
    Ok(drafts)
}

fn of_paths(
    paths: &[&Target],
    work: &Work,
    options: &ImageOptions,
    environment: &Environment<'_>,
) -> Result<Draft, ProjectError> {
    let (mut roots, mut contents) = (Roots::default(), Vec::new());
    for target in paths {
        match target {
            Target::Path(path) => contents.push(roots.add_own(path.name(), path)),
            Target::Nix(path) => contents.push(roots.add_nix(path.name(), path)),
            Target::Image(_) | Target::Package(_) => {}
        }
    }
    let spec = options.to_spec(&contents)?;
    let plain = spec::Image::new(&spec.name.value);
    let plain = plain_recipe(plain, DEFAULT_PLATFORM.parse()?)?;
    let platform = options.platforms.first().cloned();
    let platform = platform.map_or_else(|| DEFAULT_PLATFORM.parse(), Ok)?;
    let mut recipe = plain_recipe(spec, platform)?;
    recipe.created = environment.epoch;
    options.apply(&mut recipe);
    recipe.plan = options.plan.as_deref().map(layer_plan::read_plan).transpose()?;
    recipe.previous = layer_plan::read_previous(options.previous.as_deref(), &[], environment)?;
    let beyond = recipe.asked_beyond(&plain);
    roots.add_mentions(&recipe.spec, work)?;
    recipe.contents = contents;
    recipe.closure = roots.members(work, &Origins::default())?;
    recipe.generated = roots.database(&recipe.spec, work)?;
    if let Some(text) = &recipe.spec.base {
        let base = base::of_option(
            &text.value,
            &recipe.spec,
            &recipe.platform,
            work.options.offline,
            environment,
        )?;
        recipe.base = Some(base);
    }
    Ok(Draft {
        recipe,
        kept: None,
        options: beyond,
        is_of_spec: false,
        threads: options.pack_threads,
    })
}

fn of_spec(
    name: &str,
    work: &Work,
    options: &ImageOptions,
    environment: &Environment<'_>,
) -> Result<Draft, ProjectError> {
    let project = work.project.as_ref().expect("an image of a spec has a project");
    let spec = project.workspace.images[name].clone();
    let inputs = &work.plan.images[name];
    let platform = platform_of_spec(&spec, &project.lock)?;
    let mut plain = plain_recipe(spec, platform)?;
    let mut recipe = plain.clone();
    recipe.created = recipe.spec.created.unwrap_or(environment.epoch);
    options.apply(&mut recipe);
    recipe.root = root_packages(&inputs.root, work)?;
    recipe.configured = inputs
        .configured
        .as_ref()
        .map(|input| configured(input, &recipe.spec, work))
        .transpose()?;
    (plain.plan, _) = layer_plan::of_spec(&plain.spec, &ImageOptions::default())?;
    let kept;
    (recipe.plan, kept) = layer_plan::of_spec(&recipe.spec, options)?;
    let mut roots = Roots {
        own: work.roots(&Target::Image(name.to_owned())),
        ..Roots::default()
    };
    let origins = Origins::of_image(&work.plan, inputs);
    let mut own = inputs.contents.iter();
    for dependency in &recipe.spec.contents {
        let name = dependency.value.to_string();
        if let Dependency::Nix(text) = &dependency.value {
            let path = work.nix.locked(text, &project.lock)?;
            recipe.contents.push(roots.add_nix(&name, &path));
        } else if let Some(input) = own.next() {
            recipe.contents.push(roots.add_own(&name, &work.path(input)));
        }
    }
    for (input, name, version) in &inputs.laid {
        let package = root_package(name.clone(), input, work)?;
        recipe.root.push(RootPackage {
            version: version.clone(),
            is_part: true,
            origin: origins.of(package.logical.store_path().name()),
            ..package
        });
    }
    roots.add_mentions(&recipe.spec, work)?;
    recipe.closure = roots.members(work, &origins)?;
    add_parts(&mut recipe, inputs, work, environment.reporter)?;
    recipe.previous = layer_plan::read_previous(options.previous.as_deref(), &recipe.root, environment)?;
    let beyond = recipe.asked_beyond(&plain);
    recipe.generated = roots.database(&recipe.spec, work)?;
    recipe.base = base::of_spec(&recipe.spec, &project.lock, work.options.offline, environment)?;
    recipe.debug = debug::of_spec(&recipe, inputs, work, environment)?;
    scripts::warn(&recipe.spec, inputs, work, environment.reporter);
    certificates::warn(&recipe.spec, environment.reporter);
    let mut draft = Draft {
        recipe,
        kept,
        options: beyond,
        is_of_spec: true,
        threads: options.pack_threads,
    };
    draft
        .settle_plan()
        .map_err(|source| ProjectError::making(name, source))?;
    Ok(draft)
}

/// What a spec's image is by itself, at the date that images have by default, before anything of it is looked up.
pub(super) fn plain_recipe(spec: spec::Image, platform: Platform) -> Result<Recipe, ProjectError> {
    let compression = spec.compression.as_ref().map(|compression| compression.value);
    let tar_profile = spec.layers.tar_profile.as_ref().map(|profile| profile.value);
    let name = spec.name.value.clone();
    let created = spec.created.unwrap_or(DEFAULT_EPOCH);
    let mut recipe = Recipe::new(spec, platform, created).map_err(|source| ProjectError::making(&name, source))?;
    recipe.compression = compression.unwrap_or_default();
    recipe.tar_profile = tar_profile.unwrap_or_default();
    Ok(recipe)
}

/// What an image of a spec is for.
pub fn platform_of_spec(spec: &spec::Image, lock: &spec::Lock) -> Result<Platform, ProjectError> {
    Ok(match (spec.platforms.first(), &lock.architecture) {
        (Some(platform), _) => platform.value.clone(),
        (None, Some(architecture)) => {
            Platform::from_debian(architecture).ok_or_else(|| ProjectError::Architecture {
                architecture: architecture.clone(),
            })?
        }
        (None, None) => DEFAULT_PLATFORM.parse()?,
    })
}

/// What maintainer scripts made, as a recipe has it.
fn configured(input: &Input, spec: &spec::Image, work: &Work) -> Result<image::Configured, ProjectError> {
    let name = &spec.name.value;
    let lock = &work.project.as_ref().expect("Debian packages come from a spec").lock;
    let path = work.path(input);
    let info = work.store.info(&path)?;
    let info = info.ok_or_else(|| ProjectError::Gone { path: path.clone() })?;
    let physical = work.store.physical(&path);
    let numbers = image::numbers(&physical, &spec.users, &lock.numbers_of(spec.spec_name()));
    Ok(image::Configured {
        logical: StoreDir::layerize().logical(&path),
        nar_hash: info.nar_hash,
        numbers: numbers.map_err(|source| ProjectError::making(name, source))?,
        physical,
    })
}

/// Adds what the image gets of packages that it does not have: its time zone, authorities, and a UTF-8 locale for its C
/// library.
fn add_parts(
    recipe: &mut Recipe,
    inputs: &ImageInputs,
    work: &Work,
    reporter: &dyn Reporter,
) -> Result<(), ProjectError> {
    let at_root = |recipe: &Recipe, name: &str| recipe.root.iter().any(|package| package.name == name);
    let libcs = c_libraries(work);
    let has_libc =
        at_root(recipe, spec::GLIBC_DEB) || recipe.closure.iter().any(|member| libcs.contains(&member.logical));
    let utf8 = inputs.utf8.as_ref().filter(|_| has_libc);
    if has_libc && utf8.is_none() && recipe.spec.utf8 && recipe.spec.base.is_none() && !at_root(recipe, spec::UTF8_DEB)
    {
        let text = format!(
            "image `{}` has no UTF-8 locale: its C library is of a project that is imported, for which this lock has none; add \
             \"deb:{}\" to its `contents`, or write `utf-8 = false`",
            recipe.spec.name.value,
            spec::GLIBC_DEB
        );
        reporter.report(Event::Warning { text });
    }
    let parts = [
        (spec::UTF8_DEB, utf8),
        (spec::ZONE_DEB, inputs.zone.as_ref()),
        (spec::CERTIFICATES_DEB, inputs.authorities.as_ref()),
    ];
    for (name, input) in parts {
        if let Some(input) = input.filter(|_| !at_root(recipe, name)) {
            let package = root_package(name.to_owned(), input, work)?;
            recipe.root.push(RootPackage {
                is_part: true,
                ..package
            });
        }
    }
    Ok(())
}

/// Debian's C library as the project and those that it imports pin it.
fn c_libraries(work: &Work) -> BTreeSet<LogicalPath> {
    let steps = work.plan.steps.iter().enumerate();
    let libcs = steps
        .filter(|(_, step)| matches!(&step.action, Action::UnpackDeb { package, .. } if package == spec::GLIBC_DEB));
    let paths = libcs.filter_map(|(id, _)| work.paths.get(&Input::Step(id)));
    paths.map(|path| StoreDir::layerize().logical(path)).collect()
}

fn root_packages(inputs: &[Input], work: &Work) -> Result<Vec<RootPackage>, ProjectError> {
    let names: BTreeMap<&Input, &String> = work.plan.debs.iter().map(|(name, input)| (input, name)).collect();
    let package = |input| {
        let path = work.path(input);
        let name = names.get(input).map_or(path.name(), |name| name.as_str());
        root_package(name.to_owned(), input, work)
    };
    inputs.iter().map(package).collect()
}

/// What a step makes, as the Debian package `name`.
fn root_package(name: String, input: &Input, work: &Work) -> Result<RootPackage, ProjectError> {
    let lock = &work.project.as_ref().expect("Debian packages come from a spec").lock;
    let path = work.path(input);
    let info = work.store.info(&path)?;
    let info = info.ok_or_else(|| ProjectError::Gone { path: path.clone() })?;
    Ok(RootPackage {
        version: lock.debs.get(&name).map(|deb| deb.version.clone()).unwrap_or_default(),
        name,
        physical: work.store.physical(&path),
        logical: StoreDir::layerize().logical(&path),
        nar_hash: info.nar_hash,
        nar_size: info.nar_size,
        is_part: false,
        origin: Origin::Distribution,
    })
}
