//! A *request* is all that an image of a spec is asked for: known before anything of it is fetched or built.
//!
//! Invariant: equal requests give equal images, as far as builds are reproducible. What a request cannot say (paths of a
//! Nix store, an image of before) has none, and is built.

use serde::Serialize;
use serde_json::{Value, json};

use crate::derive::{self, BuildPlan, DebugInputs, ImageInputs, Input};
use crate::digest::Digest;
use crate::image::Recipe;
use crate::inputs;
use crate::layer::partition::LayerPlan;
use crate::oci::canonical_json;
use crate::shared_cache::{CachePlace, MadeImage};
use crate::spec::{self, Dependency, LockScope};
use crate::store_path::StoreDir;
use crate::walls::Walls;

use super::draft::{Draft, plain_recipe, platform_of_spec};
use super::environment::{Environment, WorkOptions};
use super::error::ProjectError;
use super::files::Project;
use super::image::NamedImage;
use super::kept::KeptInputs;
use super::layer_plan;
use super::options::ImageOptions;
use super::platforms;
use super::shared::{self, Built, Caches};
use super::target::{self, Target};
use super::work::{Work, inputs_of};

/// An image that somebody else made of the same request.
pub struct SharedImage {
    /// The image, its layers where they are.
    pub made: MadeImage,
    /// The shared cache that has it.
    pub place: CachePlace,
    /// The hash of its request.
    pub key: Digest,
    /// The tag under which the inputs of its lock are kept (see [`inputs::anchor_of`]).
    pub anchor: String,
    /// The plan keys of the steps that lead to it.
    pub steps: Vec<Digest>,
}

/// Looks for the image that `argument` names, or the only one of the project, in the shared caches, for each of its
/// platforms; none where one is missing, or what is named is no image of a spec.
pub fn find(
    arguments: &[String],
    options: &WorkOptions,
    image: &ImageOptions,
    environment: &Environment<'_>,
) -> Result<Vec<SharedImage>, ProjectError> {
    let none = Vec::new();
    if options.cache.none || arguments.iter().any(|argument| argument.starts_with('/')) {
        return Ok(none);
    }
    let mut project = Project::load(environment)?;
    let caches = environment.shared_caches(options, Some(&project.workspace))?;
    if !caches.is_read() {
        return Ok(none);
    }
    if !project.workspace.imports.is_empty() {
        project.make_lock_current(LockScope::Builds, options, environment)?;
    }
    let targets = target::named(arguments, &project, &environment.nix())?;
    let [Target::Image(name)] = targets.as_slice() else {
        return Ok(none);
    };
    project.make_lock_current(LockScope::Builds, options, environment)?;
    let mut all = Vec::new();
    for (architecture, _) in platforms::shared_out(&project, &targets, &options.platforms)? {
        match find_here(name, &project.at(&architecture), &caches, image, environment)? {
            Some(found) => all.push(found),
            None => return Ok(none),
        }
    }
    Ok(all)
}

/// Looks for an image as it is seen from one platform.
fn find_here(
    name: &str,
    project: &Project,
    caches: &Caches,
    image: &ImageOptions,
    environment: &Environment<'_>,
) -> Result<Option<SharedImage>, ProjectError> {
    let store = environment.store()?;
    let sources = project.add_sources(&store, environment.reporter)?;
    let plan = project.plan(&store, &sources)?;
    let spec = &project.workspace.images[name];
    if !has_request(spec, image) {
        return Ok(None);
    }
    let mut recipe = plain_recipe(spec.clone(), platform_of_spec(spec, &project.lock)?)?;
    recipe.created = recipe.spec.created.unwrap_or(environment.epoch);
    image.apply(&mut recipe);
    let kept;
    (recipe.plan, kept) = layer_plan::of_spec(&recipe.spec, image)?;
    let key = key(name, project, &plan, &recipe, kept.and_then(|kept| kept.plan).as_ref());
    let anchor = inputs::anchor_of(&project.lock);
    let mut found = caches.image(&key, anchor, environment.reporter);
    if let Some(found) = &mut found {
        let inputs = inputs_of(&Target::Image(name.to_owned()), &plan);
        found.steps = shared::built_keys(&plan, &inputs);
        caches.renew(&key, &found.made, &plan, &inputs, environment.reporter);
    }
    Ok(found)
}

/// Keeps an image that was made in the shared caches that are written. `beside` are repositories that have its layers,
/// each with its registry's host, and `keep` is what is kept beside the image.
///
/// It is kept for what it was made of: what was edited meanwhile is another request.
pub fn publish(
    named: &NamedImage,
    work: &Work,
    options: &ImageOptions,
    beside: &[(String, String)],
    keep: Option<&KeptInputs<'_>>,
    environment: &Environment<'_>,
) -> Result<(), ProjectError> {
    let Some(project) = &work.project else { return Ok(()) };
    let caches = environment.shared_caches(&work.options, Some(&project.workspace))?;
    let name = &named.name;
    let is_one = named.index.is_none() && work.targets.contains(&Target::Image(name.clone()));
    if !caches.is_written() || !is_one {
        return Ok(());
    }
    let Draft { recipe, kept, .. } = &named.draft;
    let walls = weakest_walls(work)?;
    // Readers refuse it otherwise.
    if !has_request(&project.workspace.images[name], options) || walls == Walls::None {
        return Ok(());
    }
    if caches.signs() {
        let inputs = inputs_of(&Target::Image(name.clone()), &work.plan);
        // Who reads the output has been told of the steps.
        if !Built::new(&work.store, &work.plan, &inputs, &work.paths)?
            .unvouched()?
            .is_empty()
        {
            return Ok(());
        }
    }
    let mut recipe = recipe.clone();
    // A kept plan is found in its file, which has the new one by now.
    let plan = match kept {
        Some(kept) if kept.overridden => kept.plan.clone(),
        Some(_) => recipe.plan.clone(),
        None => None,
    };
    if kept.is_some() {
        (recipe.plan, recipe.previous) = (None, None);
    }
    let key = key(name, project, &work.plan, &recipe, plan.as_ref());
    let made = MadeImage {
        image: named.image.clone(),
        walls,
    };
    caches.publish_image(&key, name, &made, beside, keep, environment.reporter);
    Ok(())
}

/// Keeps an image that was found in one shared cache in those that are written, too, with the steps that lead to it and, if
/// `keeps_inputs`, what it was built from.
pub fn pass_on(
    shared: &SharedImage,
    options: &WorkOptions,
    beside: &[(String, String)],
    keeps_inputs: bool,
    environment: &Environment<'_>,
) -> Result<(), ProjectError> {
    let project = Project::load(environment)?;
    let caches = environment.shared_caches(options, Some(&project.workspace))?;
    caches.pass_on(shared, beside, keeps_inputs, environment);
    Ok(())
}

/// What the weakest of what an image was made of was built behind.
fn weakest_walls(work: &Work) -> Result<Walls, ProjectError> {
    let mut weakest = Walls::Namespaces;
    for path in work.paths.values() {
        let details = work.store.info_full(path)?;
        weakest = details.map_or(weakest, |details| weakest.min(details.provenance.walls));
    }
    Ok(weakest)
}

/// Whether all that an image is asked for can be said before it is built.
fn has_request(spec: &spec::Image, options: &ImageOptions) -> bool {
    let from_nix = |content: &spec::Spanned<Dependency>| matches!(content.value, Dependency::Nix(_));
    let has_nix = options.nix_db || spec.nix_db || spec.contents.iter().any(from_nix);
    options.previous.is_none() && !has_nix && !super::mentions(spec).iter().any(|mention| mention.nix)
}

/// The hash of an image's request. `kept` is the plan in the file that its spec names.
fn key(name: &str, project: &Project, plan: &BuildPlan, recipe: &Recipe, kept: Option<&LayerPlan>) -> Digest {
    let spec = &project.workspace.images[name];
    let base = project.lock.bases.get(spec.spec_name()).map(|base| base.sha256);
    let keys = Keys::new(plan);
    let asked = json!({
        "base": base,
        "inputs": keys.of_image(&plan.images[name]),
        "kept-plan": kept.map(|plan| Digest::of(plan.print().as_bytes())),
        "layerize": env!("CARGO_PKG_VERSION"),
        "numbers": project.lock.numbers_of(spec.spec_name()),
        "packages": packages(&plan.images[name], plan, project),
    });
    Digest::of(&canonical_json(&(recipe.request(), asked)))
}

/// Names and versions of the Debian packages that an image tells of.
fn packages(inputs: &ImageInputs, plan: &BuildPlan, project: &Project) -> Value {
    let at_root = |input: &Input| inputs.root.contains(input);
    let debs = plan.debs.iter().filter(|(_, input)| at_root(input));
    let version = |name: &String| project.lock.debs.get(name).map(|deb| deb.version.clone());
    debs.map(|(name, _)| json!([name, version(name)])).collect()
}

/// What inputs are, before they are made.
struct Keys(Vec<Digest>);

impl Keys {
    fn new(plan: &BuildPlan) -> Self {
        Self(derive::plan_keys(&plan.steps))
    }

    fn of(&self, input: &Input) -> String {
        match input {
            Input::Step(id) => self.0[*id].to_string(),
            Input::Path(path) => StoreDir::layerize().join(path),
        }
    }

    fn all<'a>(&self, inputs: impl IntoIterator<Item = &'a Input>) -> Vec<String> {
        inputs.into_iter().map(|input| self.of(input)).collect()
    }

    fn of_image(&self, inputs: &ImageInputs) -> Value {
        let ImageInputs {
            contents,
            declared,
            root,
            laid,
            configured,
            utf8,
            zone,
            authorities,
            left_out,
            // These are told of and are not in the image.
            unrun: _,
            debug,
        } = inputs;
        let laid: Vec<_> = laid
            .iter()
            .map(|(input, name, version)| (self.of(input), name, version))
            .collect();
        let one = |input: &Option<Input>| input.as_ref().map(|input| self.of(input));
        json!({
            "authorities": one(authorities),
            "configured": one(configured),
            "contents": self.all(contents),
            "debug": debug.as_ref().map(|debug| self.of_debug(debug)),
            "declared": self.all(declared),
            "laid": laid,
            "left-out": left_out.keys().collect::<Vec<_>>(),
            "root": self.all(root),
            "utf-8": one(utf8),
            "zone": one(zone),
        })
    }

    fn of_debug(&self, debug: &DebugInputs) -> impl Serialize {
        let DebugInputs { tools, built, debs } = debug;
        let built: Vec<_> = built
            .iter()
            .map(|(name, input)| (name.clone(), self.of(input)))
            .collect();
        let debs = debs.iter().map(|(name, files)| {
            let files = files.as_ref().map(|(package, input)| (package.clone(), self.of(input)));
            (name.clone(), files)
        });
        (self.of(tools), built, debs.collect::<Vec<_>>())
    }
}
