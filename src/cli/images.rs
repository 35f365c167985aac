//! From targets to *images*: gathers what an image is made of and has it assembled.
//!
//! Invariant: an image of store paths and an image of a spec take the same way; flags only fill in a spec.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;

use crate::audit;
use crate::digest::Digest;
use crate::image::{self, ClosureMember, ContentRoot, Generated, Image, ImageRequest, Index, RootPackage};
use crate::layer::partition::{History, LayerPlan};
use crate::layer::{PackOptions, TarProfile};
use crate::oci::{Compression, Platform};
use crate::plan::Input;
use crate::spec::{self, Dependency, GoldenKey};
use crate::store_path::StoreDir;
use crate::transport::Content;

use super::bases;
use super::context::{Context, DEFAULT_EPOCH};
pub use super::image_flags::ImageFlags;
use super::layer_plans::{self, Kept};
use super::pipeline::{Target, Work};
use super::roots::Roots;

/// The platform of images without anything that says otherwise. Not the machine's: a digest may not depend on it.
const DEFAULT_PLATFORM: &str = "linux/amd64";

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
    plan: Option<LayerPlan>,
    previous: Option<LayerPlan>,
    /// What was seen to change in earlier releases.
    pub history: History,
    /// Where the plan is kept, for an image whose spec says so.
    pub kept: Option<Kept>,
    /// Whether `spec` is a file's, not made of flags.
    is_of_spec: bool,
    /// Seconds since 1970 that the config says, where it is not the context's.
    created: Option<i64>,
}

impl Recipe {
    /// The recipe as the `image` module takes it.
    pub fn request(&self, context: &Context) -> ImageRequest<'_> {
        ImageRequest {
            spec: &self.spec,
            contents: self.contents.clone(),
            closure: self.closure.clone(),
            root: self.root.clone(),
            generated: self.generated.clone(),
            base: self.base.clone(),
            platform: self.platform.clone(),
            created: self.created.or(self.spec.created).unwrap_or(context.epoch),
            plan: self.plan.clone(),
            previous: self.previous.clone(),
            history: self.history.clone(),
        }
    }

    /// Takes the kept plan where it is this image's; else makes the one that is to be kept, starting from it.
    fn settle_plan(&mut self, context: &Context) -> anyhow::Result<()> {
        let Some(kept) = self.kept.as_ref().filter(|kept| !kept.aside) else {
            return Ok(());
        };
        let request = self.request(context);
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
    pub fn compression(&self) -> anyhow::Result<Option<Compression>> {
        let text = self.spec.compression.as_ref();
        Ok(text.map(|text| text.value.parse::<Compression>()).transpose()?)
    }

    /// Makes it an image of another time and platform.
    pub fn made_at(&mut self, seconds: i64, platform: Platform) {
        (self.created, self.platform) = (Some(seconds), platform);
    }

    /// Takes over which store paths and packages share a layer in an image, where that has exactly this recipe's.
    pub fn take_layers(&mut self, image: &audit::Report) -> bool {
        let layers = layer_plans::layers_of(image, &self.root);
        let in_image: BTreeSet<&String> = layers.iter().flat_map(|layer| &layer.paths).collect();
        let packages: Vec<String> = self.root.iter().map(image::root_path).collect();
        let members = self.closure.iter().map(|member| &member.logical);
        if in_image != members.chain(&packages).collect() {
            return false;
        }
        self.plan = Some(layer_plans::from_layers(layers));
        true
    }

    /// Of an image of the spec as the spec has it: what its digest is recorded under.
    fn golden_key(&self, flags: &ImageFlags, compression: Compression, context: &Context) -> Option<GoldenKey> {
        let changed = flags.max_layers.is_some()
            || flags.strategy.is_some()
            || flags.plan.is_some()
            || flags.previous.is_some()
            || flags.single_member;
        (self.is_of_spec && !changed && context.epoch == DEFAULT_EPOCH).then(|| GoldenKey {
            image: self.spec.name.value.clone(),
            platform: self.platform.to_string(),
            compression: compression.to_string(),
            format: crate::layer::FORMAT,
        })
    }
}

/// Assembles all images among the targets; all store paths among them make up one.
pub fn of_targets(work: &Work, flags: &ImageFlags, context: &Context) -> anyhow::Result<Vec<NamedImage>> {
    if flags.platform.as_ref().is_some_and(|platforms| platforms.contains(',')) {
        return for_platforms(work, flags, context);
    }
    let mut images = Vec::new();
    for recipe in recipes(work, flags, context)? {
        if let Some(kept) = recipe.kept.as_ref().filter(|_| work.locked) {
            kept.refuse_other(recipe.plan.as_ref())?;
        }
        work.nix.warn_of_missing_records(context.ui);
        images.push(assemble(&recipe, flags, context).map_err(|error| work.nix.explained(error))?);
        if let (Some(kept), Some(plan)) = (&recipe.kept, &recipe.plan)
            && !kept.aside
        {
            kept.keep(plan, context)?;
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
fn for_platforms(work: &Work, flags: &ImageFlags, context: &Context) -> anyhow::Result<Vec<NamedImage>> {
    let mut all: Vec<NamedImage> = Vec::new();
    for platform in flags.platform.iter().flat_map(|platforms| platforms.split(',')) {
        let flags = ImageFlags {
            platform: Some(platform.trim().to_owned()),
            ..flags.clone()
        };
        all.extend(of_targets(work, &flags, context)?);
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

/// What each image among the targets is made of.
pub fn recipes(work: &Work, flags: &ImageFlags, context: &Context) -> anyhow::Result<Vec<Recipe>> {
    let paths: Vec<&Target> = work.targets.iter().filter(|target| target.is_path()).collect();
    let mut recipes = Vec::new();
    for target in &work.targets {
        if let Target::Image(name) = target {
            recipes.push(of_spec(name, work, flags, context)?);
        }
    }
    match paths.is_empty() {
        true => flags.refuse_path_flags()?,
        false => recipes.push(of_paths(&paths, work, flags, context)?),
    }
    Ok(recipes)
}

fn of_paths(paths: &[&Target], work: &Work, flags: &ImageFlags, context: &Context) -> anyhow::Result<Recipe> {
    let (mut roots, mut contents) = (Roots::default(), Vec::new());
    for target in paths {
        match target {
            Target::Path(path) => contents.push(roots.add_own(path.name(), path)),
            Target::Nix(path) => contents.push(roots.add_nix(path.name(), path)),
            Target::Image(_) | Target::Package(_) => {}
        }
    }
    let spec = flags.to_spec(&contents)?;
    roots.add_mentions(&spec, work)?;
    let platform: Platform = flags.platform.as_deref().unwrap_or(DEFAULT_PLATFORM).parse()?;
    let base = match &flags.base {
        Some(text) => Some(bases::of_flag(text, &spec, &platform, work.offline, context)?),
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
        plan: flags.plan.as_deref().map(layer_plans::read_plan).transpose()?,
        previous: layer_plans::read_previous(flags.previous.as_deref(), &[], context)?,
        history: History::default(),
        kept: None,
        is_of_spec: false,
        created: None,
    })
}

fn of_spec(name: &str, work: &Work, flags: &ImageFlags, context: &Context) -> anyhow::Result<Recipe> {
    let project = work.project.as_ref().expect("an image of a spec has a project");
    let mut spec = project.workspace.images[name].clone();
    flags.change(&mut spec)?;
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
    let (plan, kept) = layer_plans::of_spec(&spec, flags)?;
    let mut recipe = Recipe {
        contents,
        closure: roots.members(work)?,
        generated: roots.database(&spec, work)?,
        base: bases::of_spec(&spec, &project.lock, work.offline, context)?,
        platform,
        plan,
        previous: layer_plans::read_previous(flags.previous.as_deref(), &root, context)?,
        history: History::default(),
        kept,
        root,
        spec,
        is_of_spec: true,
        created: None,
    };
    let settled = recipe.settle_plan(context);
    settled.with_context(|| format!("cannot make image `{name}`"))?;
    Ok(recipe)
}

/// What an image of a spec is for.
pub fn platform_of_spec(spec: &spec::Image, lock: &spec::Lock) -> anyhow::Result<Platform> {
    Ok(match (&spec.platform, &lock.architecture) {
        (Some(platform), _) => platform.value.parse()?,
        (None, Some(architecture)) => Platform::from_debian(architecture)
            .with_context(|| format!("no OCI platform is known for Debian's architecture `{architecture}`"))?,
        (None, None) => DEFAULT_PLATFORM.parse()?,
    })
}

/// Assembles an image once more, with one thread and without anything that was kept; gives its digest.
pub fn digest_from_scratch(recipe: &Recipe, flags: &ImageFlags, context: &Context) -> anyhow::Result<Digest> {
    let options = PackOptions {
        compression: flags.compression.or(recipe.compression()?).unwrap_or_default(),
        single_member: flags.single_member,
        threads: 1,
        ..PackOptions::default()
    };
    Ok(image::assemble(&recipe.request(context), &options, None, context.ui)?.digest)
}

/// Assembles the image of a recipe.
pub fn assemble(recipe: &Recipe, flags: &ImageFlags, context: &Context) -> anyhow::Result<NamedImage> {
    let name = recipe.spec.name.value.clone();
    let of_spec = recipe.compression()?;
    let tar_profile = recipe.spec.layers.tar_profile.as_ref();
    let tar_profile = tar_profile.map(|text| text.value.parse::<TarProfile>()).transpose()?;
    let cache = context.layer_cache()?;
    let options = PackOptions {
        profile: flags.tar_profile.or(tar_profile).unwrap_or_default(),
        compression: flags.compression.or(of_spec).unwrap_or_default(),
        single_member: flags.single_member,
        threads: flags.pack_threads,
        cache: Some(&cache),
        ..PackOptions::default()
    };
    let image = image::assemble(
        &recipe.request(context),
        &options,
        Some(&context.image_cache()?),
        context.ui,
    )
    .with_context(|| format!("cannot make image `{name}`"))?;
    Ok(NamedImage {
        golden: recipe.golden_key(flags, options.compression, context),
        names: vec![format!("{name}:{}", recipe.spec.tag)],
        name,
        image,
        index: None,
    })
}

fn root_packages(inputs: &[Input], work: &Work) -> anyhow::Result<Vec<RootPackage>> {
    let names: BTreeMap<&Input, &String> = work.plan.debs.iter().map(|(name, input)| (input, name)).collect();
    let lock = &work.project.as_ref().expect("Debian packages come from a spec").lock;
    inputs
        .iter()
        .map(|input| {
            let path = work.path(input);
            let info = work
                .store
                .info(&path)?
                .with_context(|| format!("store path `{path}` is gone"))?;
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
