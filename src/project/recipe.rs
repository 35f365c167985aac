//! A *recipe* is everything that an image is made of, found and in the store.
//!
//! Invariant: an image of store paths and an image of a spec take the same way; options only fill in a spec.

use std::collections::{BTreeMap, BTreeSet};

use crate::audit;
use crate::derive::Input;
use crate::image::{self, ClosureMember, ContentRoot, Generated, ImageError, ImageRequest, RootPackage};
use crate::layer::partition::{History, LayerPlan};
use crate::oci::{Compression, Platform};
use crate::spec::{self, Dependency, GoldenKey};
use crate::store_path::StoreDir;

use super::base;
use super::environment::{DEFAULT_EPOCH, Environment};
use super::error::ProjectError;
use super::layer_plan::{self, Kept};
use super::options::ImageOptions;
use super::roots::Roots;
use super::target::Target;
use super::work::Work;

/// The platform of images without anything that says otherwise. Not the machine's: a digest may not depend on it.
const DEFAULT_PLATFORM: &str = "linux/amd64";

/// Everything that an image is made of, found and in the store.
pub struct Recipe {
    /// What the spec or the flags say.
    pub spec: spec::Image,
    contents: Vec<ContentRoot>,
    closure: Vec<ClosureMember>,
    root: Vec<RootPackage>,
    generated: Vec<Generated>,
    base: Option<image::Base>,
    platform: Platform,
    pub(super) plan: Option<LayerPlan>,
    previous: Option<LayerPlan>,
    /// What was seen to change in earlier releases.
    pub history: History,
    /// Where the plan is kept, for an image whose spec says so.
    pub kept: Option<Kept>,
    /// Whether `spec` is a file's, not made of options.
    is_of_spec: bool,
    /// Seconds since 1970 that the config says, where it is not the context's.
    created: Option<i64>,
}

impl Recipe {
    /// The recipe as the `image` module takes it.
    pub fn request(&self, environment: &Environment<'_>) -> ImageRequest<'_> {
        ImageRequest {
            spec: &self.spec,
            contents: self.contents.clone(),
            closure: self.closure.clone(),
            root: self.root.clone(),
            generated: self.generated.clone(),
            base: self.base.clone(),
            platform: self.platform.clone(),
            created: self.created.or(self.spec.created).unwrap_or(environment.epoch),
            plan: self.plan.clone(),
            previous: self.previous.clone(),
            history: self.history.clone(),
        }
    }

    /// Takes the kept plan where it is this image's; else makes the one that is to be kept, starting from it.
    fn settle_plan(&mut self, environment: &Environment<'_>) -> Result<(), ImageError> {
        let Some(kept) = self.kept.as_ref().filter(|kept| !kept.aside) else {
            return Ok(());
        };
        let request = self.request(environment);
        let fits = match &kept.plan {
            Some(plan) => image::fits(&request, plan)?,
            None => false,
        };
        self.plan = if fits {
            kept.plan.clone()
        } else {
            let previous = kept.plan.clone();
            Some(image::plan(&ImageRequest { previous, ..request })?)
        };
        Ok(())
    }

    /// Forgets the plan that was settled, so that one is made anew: from what flags say was before, else from the kept one.
    pub fn plan_anew(&mut self) {
        if let Some(kept) = &self.kept {
            self.plan = None;
            self.previous = self.previous.take().or_else(|| kept.plan.clone());
        }
    }

    /// What the spec says of compression.
    pub fn compression(&self) -> Result<Option<Compression>, ProjectError> {
        let text = self.spec.compression.as_ref();
        Ok(text.map(|text| text.value.parse::<Compression>()).transpose()?)
    }

    /// Makes it an image of another time and platform.
    pub fn made_at(&mut self, seconds: i64, platform: Platform) {
        (self.created, self.platform) = (Some(seconds), platform);
    }

    /// Takes over which store paths and packages share a layer in an image, where that has exactly this recipe's.
    pub fn take_layers(&mut self, image: &audit::Report) -> bool {
        let layers = layer_plan::layers_of(image, &self.root);
        let in_image: BTreeSet<&String> = layers.iter().flat_map(|layer| &layer.paths).collect();
        let packages: Vec<String> = self.root.iter().map(image::root_path).collect();
        let members = self.closure.iter().map(|member| &member.logical);
        if in_image != members.chain(&packages).collect() {
            return false;
        }
        self.plan = Some(layer_plan::from_layers(layers));
        true
    }

    /// Of an image of the spec as the spec has it: what its digest is recorded under.
    pub(super) fn golden_key(
        &self,
        options: &ImageOptions,
        compression: Compression,
        environment: &Environment<'_>,
    ) -> Option<GoldenKey> {
        let changed = options.max_layers.is_some()
            || options.strategy.is_some()
            || options.plan.is_some()
            || options.previous.is_some()
            || options.single_member;
        (self.is_of_spec && !changed && environment.epoch == DEFAULT_EPOCH).then(|| GoldenKey {
            image: self.spec.name.value.clone(),
            platform: self.platform.to_string(),
            compression: compression.to_string(),
            format: crate::layer::FORMAT,
        })
    }
}

/// What each image among the targets is made of.
pub fn recipes(
    work: &Work,
    options: &ImageOptions,
    environment: &Environment<'_>,
) -> Result<Vec<Recipe>, ProjectError> {
    let paths: Vec<&Target> = work.targets.iter().filter(|target| target.is_path()).collect();
    let mut recipes = Vec::new();
    for target in &work.targets {
        if let Target::Image(name) = target {
            recipes.push(of_spec(name, work, options, environment)?);
        }
    }
    match paths.is_empty() {
        true => options.refuse_description()?,
        false => recipes.push(of_paths(&paths, work, options, environment)?),
    }
    Ok(recipes)
}

fn of_paths(
    paths: &[&Target],
    work: &Work,
    options: &ImageOptions,
    environment: &Environment<'_>,
) -> Result<Recipe, ProjectError> {
    let (mut roots, mut contents) = (Roots::default(), Vec::new());
    for target in paths {
        match target {
            Target::Path(path) => contents.push(roots.add_own(path.name(), path)),
            Target::Nix(path) => contents.push(roots.add_nix(path.name(), path)),
            Target::Image(_) | Target::Package(_) => {}
        }
    }
    let spec = options.to_spec(&contents)?;
    roots.add_mentions(&spec, work)?;
    let platform = options.platforms.first().map_or(DEFAULT_PLATFORM, String::as_str);
    let platform: Platform = platform.parse()?;
    let base = match &spec.base {
        Some(text) => Some(base::of_option(
            &text.value,
            &spec,
            &platform,
            work.offline,
            environment,
        )?),
        None => None,
    };
    Ok(Recipe {
        closure: roots.members(work)?,
        generated: roots.database(&spec, work)?,
        spec,
        contents,
        root: Vec::new(),
        base,
        platform,
        plan: options.plan.as_deref().map(layer_plan::read_plan).transpose()?,
        previous: layer_plan::read_previous(options.previous.as_deref(), &[], environment)?,
        history: History::default(),
        kept: None,
        is_of_spec: false,
        created: None,
    })
}

fn of_spec(
    name: &str,
    work: &Work,
    options: &ImageOptions,
    environment: &Environment<'_>,
) -> Result<Recipe, ProjectError> {
    let project = work.project.as_ref().expect("an image of a spec has a project");
    let mut spec = project.workspace.images[name].clone();
    options.change(&mut spec);
    let inputs = &work.plan.images[name];
    let mut roots = Roots {
        own: work.roots(&Target::Image(name.to_owned())),
        ..Roots::default()
    };
    let (mut contents, mut own) = (Vec::new(), inputs.contents.iter());
    for dependency in &spec.contents {
        let name = dependency.value.to_string();
        if let Dependency::Nix(text) = &dependency.value {
            let path = work.nix.locked(text, &project.lock)?;
            contents.push(roots.add_nix(&name, &path));
        } else if let Some(input) = own.next() {
            contents.push(roots.add_own(&name, &work.path(input)));
        }
    }
    roots.add_mentions(&spec, work)?;
    let platform = platform_of_spec(&spec, &project.lock)?;
    let root = root_packages(&inputs.root, work)?;
    let (plan, kept) = layer_plan::of_spec(&spec, options)?;
    let mut recipe = Recipe {
        contents,
        closure: roots.members(work)?,
        generated: roots.database(&spec, work)?,
        base: base::of_spec(&spec, &project.lock, work.offline, environment)?,
        platform,
        plan,
        previous: layer_plan::read_previous(options.previous.as_deref(), &root, environment)?,
        history: History::default(),
        kept,
        root,
        spec,
        is_of_spec: true,
        created: None,
    };
    recipe.settle_plan(environment).map_err(|source| ProjectError::Making {
        image: name.to_owned(),
        source: Box::new(source),
    })?;
    Ok(recipe)
}

/// What an image of a spec is for.
pub fn platform_of_spec(spec: &spec::Image, lock: &spec::Lock) -> Result<Platform, ProjectError> {
    Ok(match (&spec.platform, &lock.architecture) {
        (Some(platform), _) => platform.value.parse()?,
        (None, Some(architecture)) => {
            Platform::from_debian(architecture).ok_or_else(|| ProjectError::Architecture {
                architecture: architecture.clone(),
            })?
        }
        (None, None) => DEFAULT_PLATFORM.parse()?,
    })
}

fn root_packages(inputs: &[Input], work: &Work) -> Result<Vec<RootPackage>, ProjectError> {
    let names: BTreeMap<&Input, &String> = work.plan.debs.iter().map(|(name, input)| (input, name)).collect();
    let lock = &work.project.as_ref().expect("Debian packages come from a spec").lock;
    inputs
        .iter()
        .map(|input| {
            let path = work.path(input);
            let info = work.store.info(&path)?;
            let info = info.ok_or_else(|| ProjectError::Gone { path: path.clone() })?;
            let name = names.get(input).map_or(path.name(), |name| name.as_str()).to_owned();
            let version = lock.debs.get(&name).map(|deb| deb.version.clone()).unwrap_or_default();
            let physical = work.store.physical(&path);
            let logical = StoreDir::layerize().join(&path);
            Ok(RootPackage {
                name,
                version,
                logical,
                physical,
                nar_hash: info.nar_hash,
                nar_size: info.nar_size,
            })
        })
        .collect()
}
