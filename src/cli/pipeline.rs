//! The *pipeline* that most verbs share: names → plan → realised store paths.
//!
//! Invariant: what a name means is decided here alone: an image, a package or a store path.

use std::collections::{BTreeMap, BTreeSet};

use crate::build;
use crate::derive::{BuildPlan, ImageInputs, Input};
use crate::fetch::AptSources;
use crate::spec::Dependency;
use crate::spec::PackageName;
use crate::store::Store;
use crate::store_path::{StoreDir, StorePath};

use super::build::BuildFlags;
use super::context::Context;
use super::error::advised;
use super::nix::LazyNix;
use super::project::{Project, find_spec};

/// What an argument names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// `[image.NAME]`.
    Image(String),
    /// `[package.NAME]`, or `alias:NAME`.
    Package(PackageName),
    /// `/layerize/store/HASH-NAME`.
    Path(StorePath),
    /// `/nix/store/HASH-NAME`, or a link that leads there.
    Nix(StorePath),
}

impl Target {
    /// Whether it is a store path: all of them together make one image.
    pub fn is_path(&self) -> bool {
        matches!(self, Self::Path(_) | Self::Nix(_))
    }
}

/// Targets with everything they need in the store.
pub struct Work {
    /// The open store.
    pub store: Store,
    /// The Nix store, opened where a target takes something from it.
    pub nix: LazyNix,
    /// The project, where a target needed one.
    pub project: Option<Project>,
    /// Its steps.
    pub plan: BuildPlan,
    /// What the arguments named, in their order.
    pub targets: Vec<Target>,
    /// Store paths of all inputs that the targets need.
    pub paths: BTreeMap<Input, StorePath>,
    /// Whether nothing may be asked of other machines.
    pub offline: bool,
    /// Whether what is pinned must be current.
    pub locked: bool,
}

/// Understands the arguments and realises what they name.
pub fn prepare(arguments: &[String], flags: &BuildFlags, context: &Context) -> anyhow::Result<Work> {
    prepare_named(
        arguments,
        &|project, nix| named(arguments, project, nix),
        flags,
        context,
    )
}

/// As [`prepare`] for a package or a store path: an image of the same name is not meant.
pub fn prepare_package(argument: &String, flags: &BuildFlags, context: &Context) -> anyhow::Result<Work> {
    let choose = |project: &Project, _: &LazyNix| Ok(vec![package(argument, project)?]);
    prepare_named(std::slice::from_ref(argument), &choose, flags, context)
}

/// As [`prepare`] for images of a project that is loaded, its lock current.
pub fn prepare_images(project: Project, flags: &BuildFlags, context: &Context) -> anyhow::Result<Work> {
    let targets = project.workspace.images.keys().cloned().map(Target::Image).collect();
    realise(context.store()?, context.nix(), project, targets, flags, context)
}

fn prepare_named(
    arguments: &[String],
    choose: &dyn Fn(&Project, &LazyNix) -> anyhow::Result<Vec<Target>>,
    flags: &BuildFlags,
    context: &Context,
) -> anyhow::Result<Work> {
    let store = context.store()?;
    let nix = context.nix();
    if let Some(targets) = store_paths(arguments, &nix, context)? {
        let work = Work {
            store,
            nix,
            project: None,
            plan: BuildPlan::default(),
            targets,
            paths: BTreeMap::new(),
            offline: flags.offline,
            locked: flags.locked,
        };
        return work.check_paths();
    }
    let mut project = Project::load(context)?;
    let targets = choose(&project, &nix)?;
    project.make_lock_current(flags, context)?;
    realise(store, nix, project, targets, flags, context)
}

/// Makes all that the targets need.
fn realise(
    store: Store,
    nix: LazyNix,
    project: Project,
    targets: Vec<Target>,
    flags: &BuildFlags,
    context: &Context,
) -> anyhow::Result<Work> {
    let plan = project.plan(&store)?;
    let inputs: Vec<Input> = targets
        .iter()
        .flat_map(|target| inputs_of(target, &plan))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let options = context.build_options(flags, AptSources::of(&project.workspace));
    let paths = build::realise(&store, &plan, &inputs, &options, context.ui)?;
    Work {
        store,
        nix,
        project: Some(project),
        plan,
        targets,
        paths,
        offline: flags.offline,
        locked: flags.locked,
    }
    .check_paths()
}

impl Work {
    /// The store path of an input that was realised.
    pub fn path(&self, input: &Input) -> StorePath {
        match input {
            Input::Path(path) => path.clone(),
            Input::Step(_) => self
                .paths
                .get(input)
                .cloned()
                .expect("every input of a target was realised"),
        }
    }

    /// The roots of a target's closure in layerize's store.
    pub fn roots(&self, target: &Target) -> BTreeSet<StorePath> {
        match target {
            Target::Path(path) => BTreeSet::from([path.clone()]),
            Target::Nix(_) => BTreeSet::new(),
            Target::Package(name) => BTreeSet::from([self.path(&self.plan.packages[name])]),
            Target::Image(name) => {
                let inputs = &self.plan.images[name];
                inputs
                    .contents
                    .iter()
                    .chain(&inputs.declared)
                    .map(|input| self.path(input))
                    .collect()
            }
        }
    }

    /// The roots of a target's closure in the Nix store.
    pub fn nix_roots(&self, target: &Target) -> anyhow::Result<BTreeSet<StorePath>> {
        match target {
            Target::Nix(path) => Ok(BTreeSet::from([path.clone()])),
            Target::Path(_) | Target::Package(_) => Ok(BTreeSet::new()),
            Target::Image(name) => {
                let project = self.project.as_ref().expect("an image of a spec has a project");
                let contents = &project.workspace.images[name].contents;
                let names = contents.iter().filter_map(|content| match &content.value {
                    Dependency::Nix(name) => Some(name),
                    _ => None,
                });
                names.map(|name| self.nix.locked(name, &project.lock)).collect()
            }
        }
    }

    /// Keeps a target from the garbage collector, in place of what the same target was before.
    pub fn add_root(&self, target: &Target) -> anyhow::Result<()> {
        let Some(project) = &self.project else { return Ok(()) };
        let (kind, name) = match target {
            Target::Image(name) => ("image", name.as_str()),
            Target::Package(name) => ("package", name.0.as_str()),
            Target::Path(_) | Target::Nix(_) => return Ok(()),
        };
        let project = crate::digest::Digest::of(project.dir.as_os_str().as_encoded_bytes()).hex();
        let root = |index: usize| format!("{}-{kind}-{}-{index}", &project[..12], name.replace([':', '/'], "-"));
        let mut kept = self.roots(target);
        if let Target::Image(name) = target {
            kept.extend(self.plan.images[name].root.iter().map(|input| self.path(input)));
        }
        let mut index = 0;
        for path in kept {
            self.store.add_root(&root(index), &path)?;
            index += 1;
        }
        while self.store.remove_root(&root(index))? {
            index += 1;
        }
        Ok(())
    }

    /// How many images the targets make: one each, and one of all store paths together.
    pub fn image_count(&self) -> usize {
        let images = self
            .targets
            .iter()
            .filter(|target| matches!(target, Target::Image(_)))
            .count();
        images + usize::from(self.targets.iter().any(Target::is_path))
    }

    fn check_paths(self) -> anyhow::Result<Self> {
        for target in &self.targets {
            if let Target::Path(path) = target
                && self.store.info(path)?.is_none()
            {
                return Err(advised(
                    format!(
                        "`{}` is not in the store {}",
                        StoreDir::layerize().join(path),
                        self.store.dir().display()
                    ),
                    "`layerize store ls` lists what is; `--store DIR` names another store",
                ));
            }
        }
        Ok(self)
    }
}

/// The steps that a target needs.
pub fn inputs_of(target: &Target, plan: &BuildPlan) -> Vec<Input> {
    match target {
        Target::Path(_) | Target::Nix(_) => Vec::new(),
        Target::Package(name) => vec![plan.packages[name].clone()],
        Target::Image(name) => {
            let ImageInputs {
                contents,
                declared,
                root,
            } = &plan.images[name];
            contents.iter().chain(declared).chain(root).cloned().collect()
        }
    }
}

/// The arguments as store paths, if there are any and all of them are.
fn store_paths(arguments: &[String], nix: &LazyNix, context: &Context) -> anyhow::Result<Option<Vec<Target>>> {
    // Where there is a spec, what is called `result` there is meant before a link of that name.
    let bare = find_spec(context.file.as_deref()).is_err();
    let targets = arguments.iter().map(|argument| parse_path(argument, nix, bare));
    let targets: Option<Vec<Target>> = targets.collect::<anyhow::Result<_>>()?;
    Ok(targets.filter(|targets| !targets.is_empty()))
}

fn parse_path(argument: &str, nix: &LazyNix, bare: bool) -> anyhow::Result<Option<Target>> {
    match parse_own_path(argument) {
        Some(path) => Ok(Some(path)),
        None => Ok(nix.argument(argument, bare)?.map(Target::Nix)),
    }
}

fn parse_own_path(argument: &str) -> Option<Target> {
    let (path, below) = StoreDir::layerize().split(argument.trim_end_matches('/'))?;
    below.is_empty().then_some(Target::Path(path))
}

/// Images and packages by name; without any name all images, or all of the file's own packages if it has no image.
fn named(arguments: &[String], project: &Project, nix: &LazyNix) -> anyhow::Result<Vec<Target>> {
    let workspace = &project.workspace;
    if arguments.is_empty() && !workspace.images.is_empty() {
        return Ok(workspace.images.keys().cloned().map(Target::Image).collect());
    }
    if arguments.is_empty() {
        let own = workspace.packages.keys().filter(|name| !name.0.contains(':'));
        return Ok(own.cloned().map(Target::Package).collect());
    }
    let target = |argument: &String| match name(argument, project) {
        Ok(target) => Ok(target),
        Err(error) => nix.argument(argument, true)?.map(Target::Nix).ok_or(error),
    };
    arguments.iter().map(target).collect()
}

/// One name of a package.
pub fn package(argument: &str, project: &Project) -> anyhow::Result<Target> {
    let package = PackageName(argument.to_owned());
    if project.workspace.packages.contains_key(&package) {
        return Ok(Target::Package(package));
    }
    match name(argument, project)? {
        Target::Image(image) => Err(advised(
            format!("`{image}` is an image, and a package is wanted"),
            "`layerize load` loads an image into an engine",
        )),
        target => Ok(target),
    }
}

/// One name: an image before a package of the same name.
pub fn name(argument: &str, project: &Project) -> anyhow::Result<Target> {
    let workspace = &project.workspace;
    if let Some(path) = parse_own_path(argument) {
        return Ok(path);
    }
    if workspace.images.contains_key(argument) {
        return Ok(Target::Image(argument.to_owned()));
    }
    let package = PackageName(argument.to_owned());
    if workspace.packages.contains_key(&package) {
        return Ok(Target::Package(package));
    }
    let known: Vec<&str> = workspace
        .images
        .keys()
        .map(String::as_str)
        .chain(workspace.packages.keys().map(|name| name.0.as_str()))
        .collect();
    let closest = known
        .iter()
        .map(|known| (strsim::damerau_levenshtein(known, argument), *known))
        .min()
        .filter(|(distance, known)| *distance <= known.len().div_ceil(3));
    let help = match closest {
        Some((_, closest)) => format!("did you mean `{closest}`?"),
        None => format!(
            "known are: {}",
            known
                .into_iter()
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>()
                .join(", ")
        ),
    };
    Err(advised(
        format!("`{argument}` is neither an image nor a package of this spec, nor a store path"),
        help,
    ))
}
