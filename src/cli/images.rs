//! From targets to *images*: gathers what an image is made of and has it assembled.
//!
//! Invariant: an image of store paths and an image of a spec take the same way; flags only fill in a spec.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};

use crate::audit::{self, InspectOptions};
use crate::digest::Digest;
use crate::image::{self, ClosureMember, ContentRoot, Generated, Image, ImageRequest, Index, RootPackage};
use crate::layer::partition::{History, LayerPlan, PLAN_FORMAT, PlannedLayer, Strategy};
use crate::layer::{Compression, PackOptions, TarProfile};
use crate::oci::Platform;
use crate::plan::Input;
use crate::spec::{self, Dependency, GoldenKey, Spanned};
use crate::store_path::StoreDir;
use crate::transport::Content;

use super::bases;
use super::context::{Context, DEFAULT_EPOCH};
use super::error::advised;
use super::permissions::permissions;
use super::pipeline::{Target, Work};
use super::roots::{Roots, image_name};

/// The platform of images without anything that says otherwise. Not the machine's: a digest may not depend on it.
const DEFAULT_PLATFORM: &str = "linux/amd64";

/// Largest plan file that is read.
const PLAN_BYTES_MAX: u64 = 256 << 20;

/// Options that make up an image of store paths, or change one of the spec.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Image options")]
pub struct ImageFlags {
    /// Name of an image of store paths, with its tag if it has one [default: the first path's name]
    #[arg(long, value_name = "NAME[:TAG]")]
    name: Option<String>,
    /// Program of an image of store paths; repeat for its fixed arguments
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    entrypoint: Vec<String>,
    /// Default argument of an image of store paths; repeatable
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    cmd: Vec<String>,
    /// Variable of an image of store paths; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// Working directory of an image of store paths
    #[arg(long, value_name = "DIR")]
    workdir: Option<String>,
    /// User of an image of store paths
    #[arg(long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Label of an image of store paths; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    label: Vec<String>,
    /// Port of an image of store paths; repeatable
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    port: Vec<String>,
    /// Image that an image of store paths is laid over: docker://NAME, oci:DIR:TAG, docker-archive:FILE, …
    #[arg(long, value_name = "IMAGE")]
    base: Option<String>,
    /// Platform of an image of store paths; several, separated by commas, make an index [default: linux/amd64]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// gzip[:LEVEL], zstd[:LEVEL] or none [default: the spec's, else gzip]
    #[arg(long, value_name = "HOW")]
    pub compression: Option<Compression>,
    /// Most layers [default: the spec's, else 100]
    #[arg(long, value_name = "N")]
    pub max_layers: Option<u32>,
    /// How store paths are grouped into layers [default: the spec's, else churn]
    #[arg(long, value_name = "NAME")]
    pub strategy: Option<String>,
    /// Take the layers from a plan file: one of `layerize plan --json`, or written by hand
    #[arg(long, value_name = "FILE", conflicts_with = "previous")]
    pub plan: Option<PathBuf>,
    /// Start from the release before, a plan file or an image, and keep what did not change as it is
    #[arg(long, value_name = "PLAN|IMAGE")]
    pub previous: Option<String>,
    /// Put a Nix database into the image that knows its /nix/store paths, so that Nix works in it
    #[arg(long)]
    pub nix_db: bool,
    /// Whose dialect the layers' tars are written in: layerize, nix2container or dockertools [default: the spec's, else layerize]
    #[arg(long, value_name = "TOOL")]
    pub tar_profile: Option<TarProfile>,
    /// Give permission bits to a path in the image, or to all that a pattern of *, ** and ? fits; repeatable
    #[arg(long, value_name = "PATH=MODE")]
    pub chmod: Vec<String>,
    /// Give an owner to a path in the image, or to all that a pattern fits; repeatable
    #[arg(long, value_name = "PATH=OWNER[:GROUP]")]
    pub chown: Vec<String>,
    /// One gzip member a layer, for consumers that read no more than the first
    #[arg(long)]
    pub single_member: bool,
    /// Number of threads that pack [default: the number of cores]
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "N")]
    pub pack_threads: usize,
}

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
    /// Whether `spec` is a file's, not made of flags.
    is_of_spec: bool,
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
            created: self.spec.created.unwrap_or(context.epoch),
            plan: self.plan.clone(),
            previous: self.previous.clone(),
        }
    }
}

impl Recipe {
    /// What the spec says of compression.
    pub fn compression(&self) -> anyhow::Result<Option<Compression>> {
        let text = self.spec.compression.as_ref();
        Ok(text.map(|text| text.value.parse::<Compression>()).transpose()?)
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
        work.nix.warn_of_missing_records(context.ui);
        images.push(assemble(&recipe, flags, context).map_err(|error| work.nix.explained(error))?);
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
        plan: read_plan(flags.plan.as_deref())?,
        previous: read_previous(flags.previous.as_deref(), context)?,
        is_of_spec: false,
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
    let of_spec = spec.layers.plan.as_ref().map(|file| spec.dir.join(&file.value));
    Ok(Recipe {
        contents,
        closure: roots.members(work)?,
        generated: roots.database(&spec, work)?,
        root: root_packages(&inputs.root, work)?,
        base: bases::of_spec(&spec, &project.lock, work.offline, context)?,
        platform,
        plan: read_plan(flags.plan.as_deref().or(of_spec.as_deref()))?,
        previous: read_previous(flags.previous.as_deref(), context)?,
        spec,
        is_of_spec: true,
    })
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

/// Reads a layer plan, if one is given.
pub fn read_plan(path: Option<&Path>) -> anyhow::Result<Option<LayerPlan>> {
    let Some(path) = path else { return Ok(None) };
    let bytes = crate::fsio::read_limited(path, PLAN_BYTES_MAX)?;
    let text = String::from_utf8(bytes).with_context(|| format!("`{}` is not UTF-8", path.display()))?;
    let plan = LayerPlan::parse(&text).with_context(|| format!("`{}` is no layer plan", path.display()))?;
    Ok(Some(plan))
}

/// Reads the plan of the release before: its plan file, or what its image says of its layers.
pub fn read_previous(text: Option<&str>, context: &Context) -> anyhow::Result<Option<LayerPlan>> {
    let Some(text) = text else { return Ok(None) };
    let file = Path::new(text);
    if file.is_file()
        && let Ok(Some(plan)) = read_plan(Some(file))
    {
        return Ok(Some(plan));
    }
    let image = context
        .source(text, None)
        .with_context(|| format!("`{text}` is neither a layer plan nor an image"))?;
    let report = audit::inspect(image.as_ref(), InspectOptions::default())?;
    let layers = report.layers.into_iter().filter(|layer| !layer.store_paths.is_empty());
    let layers: Vec<PlannedLayer> = layers
        .map(|layer| PlannedLayer {
            paths: layer.store_paths,
            reason: String::new(),
            size: 0,
        })
        .collect();
    if layers.is_empty() {
        let help = "name an image of layerize's, or a plan of `layerize plan --json`";
        return Err(advised(
            format!("the layers of `{text}` do not say which store paths they hold"),
            help,
        ));
    }
    Ok(Some(LayerPlan {
        format: PLAN_FORMAT,
        history: History::default(),
        layers,
        strategy: Strategy::default().to_string(),
    }))
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

impl ImageFlags {
    /// The flags of an image of store paths that has this name and says nothing else.
    pub fn named(name: &str) -> Self {
        Self {
            name: Some(name.to_owned()),
            ..Self::default()
        }
    }

    /// The flags as the spec of an image of store paths.
    fn to_spec(&self, contents: &[ContentRoot]) -> anyhow::Result<spec::Image> {
        let of_content = || contents.first().and_then(|content| image_name(&content.name));
        let name = self.name.clone().or_else(of_content).ok_or_else(|| {
            advised(
                "an image of store paths needs a name",
                "add for example `--name app --entrypoint app`",
            )
        })?;
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (name.as_str(), "latest"),
        };
        let mut image = spec::Image {
            tag: tag.to_owned(),
            entrypoint: self.entrypoint.clone(),
            cmd: self.cmd.clone(),
            env: pairs("--env", &self.env)?,
            workdir: self.workdir.clone(),
            user: self.user.clone(),
            ports: self.port.clone(),
            labels: pairs("--label", &self.label)?,
            ..spec::Image::new(name)
        };
        self.change(&mut image)?;
        Ok(image)
    }

    /// Which platform of a finished image, or for an image of store paths.
    pub fn platform(&self) -> Option<&str> {
        self.platform.as_deref()
    }

    /// The flags that were given and change the image, by name, for its provenance.
    pub fn options(&self) -> BTreeMap<String, Value> {
        let given = |list: &[String]| (!list.is_empty()).then(|| json!(list));
        let file = |path: &Path| json!(path.file_name().map(|name| name.to_string_lossy()));
        let options = [
            ("name", self.name.as_ref().map(|name| json!(name))),
            ("entrypoint", given(&self.entrypoint)),
            ("cmd", given(&self.cmd)),
            ("env", given(&self.env)),
            ("workdir", self.workdir.as_ref().map(|dir| json!(dir))),
            ("user", self.user.as_ref().map(|user| json!(user))),
            ("label", given(&self.label)),
            ("port", given(&self.port)),
            ("compression", self.compression.map(|how| json!(how.to_string()))),
            ("max-layers", self.max_layers.map(|max| json!(max))),
            ("strategy", self.strategy.as_ref().map(|name| json!(name))),
            ("plan", self.plan.as_deref().map(file)),
            ("previous", self.previous.as_deref().map(|text| file(Path::new(text)))),
            ("single-member", self.single_member.then_some(Value::Bool(true))),
        ];
        let options = options.into_iter();
        options
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect()
    }

    /// Applies the flags that any image takes.
    fn change(&self, image: &mut spec::Image) -> anyhow::Result<()> {
        image.permissions.extend(permissions(&self.chmod, &self.chown)?);
        image.nix_db |= self.nix_db;
        if let Some(max) = self.max_layers {
            image.layers.max = Some(Spanned::nowhere(max));
        }
        if let Some(strategy) = &self.strategy {
            image.layers.strategy = Some(Spanned::nowhere(strategy.clone()));
        }
        Ok(())
    }

    /// An image of the spec says these things in the spec.
    fn refuse_path_flags(&self) -> anyhow::Result<()> {
        let given = [
            ("--name", self.name.is_some()),
            ("--entrypoint", !self.entrypoint.is_empty()),
            ("--cmd", !self.cmd.is_empty()),
            ("--env", !self.env.is_empty()),
            ("--workdir", self.workdir.is_some()),
            ("--user", self.user.is_some()),
            ("--label", !self.label.is_empty()),
            ("--port", !self.port.is_empty()),
            ("--platform", self.platform.is_some()),
            ("--base", self.base.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((flag, _)) => Err(advised(
                format!("`{flag}` is for images of store paths; this image is described by the spec"),
                match *flag {
                    "--platform" => {
                        "say it in layerize.toml; a lock is for one architecture: build on each, and join the images with \
                         `layerize index create`"
                    }
                    _ => "say it in layerize.toml",
                },
            )),
        }
    }
}

/// `KEY=VALUE` arguments.
pub fn pairs(flag: &str, arguments: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    arguments
        .iter()
        .map(|argument| match argument.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(advised(
                format!("`{flag} {argument}` has no value"),
                format!("write `{flag} KEY=VALUE`"),
            )),
        })
        .collect()
}
