//! *Work* is targets with everything they need in the store: names → steps → realised store paths.
//!
//! Invariant: whatever a target needs was made or found when there is a [`Work`] of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::build::{self, BuildError};
use crate::derive::{self, BuildPlan, DebugInputs, ImageInputs, Input};
use crate::event::{Event, Reporter, Silent};
use crate::fsio::with_causes;
use crate::image;
use crate::oci::Platform;
use crate::sandbox::emulator::Emulator;
use crate::spec::{self, Dependency, LockScope, PackageName};
use crate::store::{RootOwner, Store};
use crate::store_path::StorePath;

use super::draft::Draft;
use super::environment::{Environment, WorkOptions};
use super::error::ProjectError;
use super::files::Project;
use super::nix::LazyNix;
use super::platforms;
use super::shared::Built;
use super::target::{self, Target};

/// Targets with everything they need in the store.
pub struct Work {
    /// The open store.
    pub store: Store,
    /// The Nix store, opened where a target takes something from it.
    pub nix: LazyNix,
    /// The project, where a target needed one.
    pub project: Option<Project>,
    /// Where the local sources of its packages are.
    pub sources: BTreeMap<PackageName, StorePath>,
    /// Its steps.
    pub plan: BuildPlan,
    /// What the arguments named, in their order.
    pub targets: Vec<Target>,
    /// Store paths of all inputs that the targets need.
    pub paths: BTreeMap<Input, StorePath>,
    /// How the targets' inputs were made.
    pub options: WorkOptions,
    /// What of the targets is for further platforms, each as if it were all; such a one has none of these.
    pub elsewhere: Vec<Work>,
}

impl Work {
    /// The emulator that runs programs of what was made, where that is for another processor and the machine does not run
    /// them itself; `label` is what the user calls what has them.
    ///
    /// # Errors
    ///
    /// Nothing runs them here.
    pub fn emulator(&self, label: &str, environment: &Environment<'_>) -> Result<Option<Emulator>, ProjectError> {
        let options = environment.build_options(&self.options, self.project.as_ref())?;
        Ok(build::emulator(
            label,
            &self.store,
            &self.plan,
            &options,
            environment.reporter,
        )?)
    }
}

/// As [`Work::emulator`], of an image that is no work of the project's: what its lock pins runs any programs.
pub fn emulator_of_project(
    label: &str,
    platform: &Platform,
    project: &Project,
    options: &WorkOptions,
    environment: &Environment<'_>,
) -> Result<Option<Emulator>, ProjectError> {
    let Some(architecture) = platform.debian_architecture() else {
        return Ok(None);
    };
    let plan = derive::emulator_alone(&project.lock, &spec::system(architecture));
    let (store, options) = (environment.store()?, environment.build_options(options, Some(project))?);
    Ok(build::emulator(label, &store, &plan, &options, environment.reporter)?)
}

/// Understands the arguments and realises what they name.
pub fn prepare(
    arguments: &[String],
    options: &WorkOptions,
    environment: &Environment<'_>,
) -> Result<Work, ProjectError> {
    prepare_named(
        arguments,
        |project, nix| target::named(arguments, project, nix),
        options,
        environment,
    )
}

/// How many images [`prepare`] would make of these arguments, before any of it is done.
pub fn image_count(arguments: &[String], environment: &Environment<'_>) -> Result<usize, ProjectError> {
    let nix = environment.nix();
    if let Some(targets) = target::store_paths(arguments, &nix, environment)? {
        return Ok(count(&targets));
    }
    let project = Project::load(environment)?;
    // Of what is imported there are packages alone, and which is known once it is there.
    let is_own = |name: &&String| project.workspace.imported(&PackageName((*name).clone())).is_none();
    let own: Vec<String> = arguments.iter().filter(is_own).cloned().collect();
    match own.is_empty() && !arguments.is_empty() {
        true => Ok(0),
        false => Ok(count(&target::named(&own, &project, &nix)?)),
    }
}

/// How many images targets make: one each, and one of all store paths together.
fn count<'a>(targets: impl IntoIterator<Item = &'a Target>) -> usize {
    let (mut images, mut has_paths) = (BTreeSet::new(), false);
    for target in targets {
        match target {
            Target::Image(name) => drop(images.insert(name)),
            target => has_paths |= target.is_path(),
        }
    }
    images.len() + usize::from(has_paths)
}

/// As [`prepare`] for a package or a store path: an image of the same name is not meant.
pub fn prepare_package(
    argument: &String,
    options: &WorkOptions,
    environment: &Environment<'_>,
) -> Result<Work, ProjectError> {
    let choose = |project: &Project, _: &LazyNix| Ok(vec![target::package(argument, project)?]);
    prepare_named(std::slice::from_ref(argument), choose, options, environment)
}

/// As [`prepare`], where a package goes before an image of its name.
pub fn prepare_packages_first(
    arguments: &[String],
    options: &WorkOptions,
    environment: &Environment<'_>,
) -> Result<Work, ProjectError> {
    let choose = |project: &Project, _: &LazyNix| {
        let target = |argument: &String| match target::package(argument, project) {
            Err(ProjectError::NoPackage { .. }) => target::name(argument, project),
            other => other,
        };
        arguments.iter().map(target).collect()
    };
    prepare_named(arguments, choose, options, environment)
}

/// As [`prepare`] for images of a project that is loaded, its lock current.
pub fn prepare_images(
    project: Project,
    options: &WorkOptions,
    environment: &Environment<'_>,
) -> Result<Work, ProjectError> {
    let targets: Vec<Target> = project.workspace.images.keys().cloned().map(Target::Image).collect();
    realise_everywhere(project, &targets, options, environment)
}

/// As [`prepare`] for one image of a project that is loaded, which must have a lock that is current.
pub fn prepare_image(
    mut project: Project,
    image: &str,
    options: &WorkOptions,
    environment: &Environment<'_>,
) -> Result<Work, ProjectError> {
    project.make_lock_current(LockScope::Builds, options, environment)?;
    let targets = [Target::Image(image.to_owned())];
    realise_everywhere(project, &targets, options, environment)
}

/// Makes all that the targets need, for one platform after the other.
fn realise_everywhere(
    mut project: Project,
    targets: &[Target],
    options: &WorkOptions,
    environment: &Environment<'_>,
) -> Result<Work, ProjectError> {
    project.bring_imports(options, environment)?;
    let mut all = Vec::new();
    for (architecture, targets) in platforms::shared_out(&project, targets, &options.platforms)? {
        let seen = project.at(&architecture);
        let work = realise(
            environment.store()?,
            environment.nix(),
            seen,
            targets,
            options,
            environment,
        )?;
        // What was recorded for one platform goes for the others.
        if let Some(seen) = &work.project {
            project.lock.accounts = seen.lock.accounts.clone();
        }
        all.push(work);
    }
    for seen in all.iter_mut().filter_map(|work| work.project.as_mut()) {
        seen.lock.accounts = project.lock.accounts.clone();
    }
    let mut all = all.into_iter();
    let mut work = all.next().expect("there is a share for home where there is none else");
    work.elsewhere = all.collect();
    Ok(work)
}

fn prepare_named(
    arguments: &[String],
    choose: impl FnOnce(&Project, &LazyNix) -> Result<Vec<Target>, ProjectError>,
    options: &WorkOptions,
    environment: &Environment<'_>,
) -> Result<Work, ProjectError> {
    let nix = environment.nix();
    if let Some(targets) = target::store_paths(arguments, &nix, environment)? {
        let work = Work {
            store: environment.store()?,
            nix,
            project: None,
            sources: BTreeMap::new(),
            plan: BuildPlan::default(),
            targets,
            paths: BTreeMap::new(),
            options: options.clone(),
            elsewhere: Vec::new(),
        };
        return work.check_paths();
    }
    let mut project = Project::load(environment)?;
    if !project.workspace.imports.is_empty() {
        // What they have is known once they are there.
        project.make_lock_current(LockScope::Builds, options, environment)?;
    }
    let targets = choose(&project, &nix)?;
    project.make_lock_current(LockScope::Builds, options, environment)?;
    realise_everywhere(project, &targets, options, environment)
}

/// Makes all that the targets need.
fn realise(
    store: Store,
    nix: LazyNix,
    project: Project,
    targets: Vec<Target>,
    options: &WorkOptions,
    environment: &Environment<'_>,
) -> Result<Work, ProjectError> {
    let sources = project.add_sources(&store, environment.reporter)?;
    let plan = project.plan(&store, &sources)?;
    let build_options = environment.build_options(options, Some(&project))?;
    let inputs = all_inputs(&targets, &plan);
    let realised = build::realise(&store, &plan, &inputs, &build_options, environment.reporter);
    if !matches!(realised, Err(BuildError::Cancelled)) {
        let none = BTreeMap::new();
        let made = realised.as_ref().unwrap_or(&none);
        // What cannot be shared takes nothing from what was built, and hides no failure of that.
        if let Err(error) = share(&store, &plan, &inputs, made, &project, options, environment) {
            let text = format!("what was built is not kept in shared caches: {}", with_causes(&error));
            environment.reporter.report(Event::Warning { text });
        }
    }
    let paths = realised?;
    let mut work = Work {
        store,
        nix,
        project: Some(project),
        sources,
        plan,
        targets,
        paths,
        options: options.clone(),
        elsewhere: Vec::new(),
    }
    .check_paths()?;
    work.record_numbers(environment.reporter)?;
    Ok(work)
}

/// Keeps what was built in the shared caches that are written.
fn share(
    store: &Store,
    plan: &BuildPlan,
    inputs: &[Input],
    made: &BTreeMap<Input, StorePath>,
    project: &Project,
    options: &WorkOptions,
    environment: &Environment<'_>,
) -> Result<(), ProjectError> {
    let caches = environment.shared_caches(options, Some(&project.workspace))?;
    if !caches.is_written() {
        return Ok(());
    }
    let built = Built::new(store, plan, inputs, made)?;
    caches.publish(&built, &environment.layer_cache()?, environment.reporter)
}

impl Work {
    /// This work, and that for further platforms.
    pub fn everywhere(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(&self.elsewhere)
    }

    /// The work of an image that was made of it.
    pub fn of(&self, draft: &Draft) -> &Self {
        let platform = &draft.recipe.platform;
        let is_it = |work: &&Self| {
            let project = work.project.as_ref();
            let architecture = project.and_then(|project| project.seen_from());
            let has_it = work.targets.contains(&Target::Image(draft.name().to_owned()));
            has_it && architecture.is_some() && architecture == platform.debian_architecture()
        };
        self.everywhere().find(is_it).unwrap_or(self)
    }

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
    pub fn nix_roots(&self, target: &Target) -> Result<BTreeSet<StorePath>, ProjectError> {
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
    pub fn add_root(&self, target: &Target) -> Result<(), ProjectError> {
        let Some(project) = &self.project else { return Ok(()) };
        let (kind, name) = match target {
            Target::Image(name) => ("image", name.as_str()),
            Target::Package(name) => ("package", name.0.as_str()),
            Target::Path(_) | Target::Nix(_) => return Ok(()),
        };
        // What stays in somebody else's store is theirs to say.
        if self.store.is_read_only() {
            return Ok(());
        }
        let owner = RootOwner {
            folder: project.dir.clone(),
            kind: kind.to_owned(),
            target: name.to_owned(),
        };
        let all = self.everywhere().filter(|work| work.targets.contains(target));
        let kept = all.flat_map(|work| work.kept_for(target)).collect();
        Ok(self.store.keep(&owner, &kept)?)
    }

    /// What is kept of a target that is for this work's platform.
    fn kept_for(&self, target: &Target) -> BTreeSet<StorePath> {
        let mut kept = self.roots(target);
        if let Target::Image(name) = target {
            let inputs = &self.plan.images[name];
            kept.extend(
                inputs
                    .root
                    .iter()
                    .chain(inputs.laid.iter().map(|(input, ..)| input))
                    .chain(&inputs.configured)
                    .chain(&inputs.utf8)
                    .chain(&inputs.zone)
                    .chain(&inputs.authorities)
                    .chain(inputs.debug.iter().flat_map(DebugInputs::all))
                    .map(|input| self.path(input)),
            );
        }
        kept
    }

    /// Makes again a path that was found to be other than it was registered; false where nothing says how.
    pub fn mend(&self, path: &StorePath, environment: &Environment<'_>) -> Result<bool, ProjectError> {
        let Some(project) = &self.project else { return Ok(false) };
        self.store.note_damage(path);
        let options = environment.build_options(&self.options, Some(project))?;
        // A local source is not a step's output.
        project.add_sources(&self.store, &Silent)?;
        let inputs = all_inputs(&self.targets, &self.plan);
        build::realise(&self.store, &self.plan, &inputs, &options, environment.reporter)?;
        Ok(!self.store.is_damaged(path))
    }

    /// Records the numbers of the accounts that scripts made in the lock, so that they stay theirs. They are the same where
    /// they are not recorded: with `--locked`, and where the lock cannot be written.
    fn record_numbers(&mut self, reporter: &dyn Reporter) -> Result<(), ProjectError> {
        let mut accounts = BTreeMap::new();
        let Some(project) = self.project.as_ref().filter(|_| !self.options.locked) else {
            return Ok(());
        };
        for target in &self.targets {
            let Target::Image(name) = target else { continue };
            let Some(input) = &self.plan.images[name].configured else {
                continue;
            };
            let (physical, users) = (
                self.store.physical(&self.path(input)),
                &project.workspace.images[name].users,
            );
            let spec_name = project.workspace.images[name].spec_name();
            let numbers = image::numbers(&physical, users, &project.lock.numbers_of(spec_name));
            for (account, number) in numbers.map_err(|source| ProjectError::making(name, source))? {
                accounts.insert((spec_name.to_owned(), account), number);
            }
        }
        if let Some(project) = &mut self.project
            && let Err(error) = project.record_accounts(accounts)
        {
            let text = format!("the numbers of accounts that scripts made are not recorded: {error}");
            reporter.report(Event::Warning { text });
        }
        Ok(())
    }

    fn check_paths(self) -> Result<Self, ProjectError> {
        let given = self.targets.iter().filter_map(|target| match target {
            Target::Path(path) => Some(path),
            _ => None,
        });
        self.store.note_use(given)?;
        for target in &self.targets {
            if let Target::Path(path) = target
                && self.store.info(path)?.is_none()
            {
                if self.store.is_damaged(path) {
                    return Err(ProjectError::Missing { path: path.clone() });
                }
                return Err(ProjectError::NotInStore {
                    path: path.clone(),
                    store: self.store.dir().to_owned(),
                });
            }
        }
        Ok(self)
    }
}

/// The steps that targets need, each once.
fn all_inputs(targets: &[Target], plan: &BuildPlan) -> Vec<Input> {
    let inputs = targets.iter().flat_map(|target| inputs_of(target, plan));
    inputs.collect::<BTreeSet<_>>().into_iter().collect()
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
                laid,
                configured,
                utf8,
                zone,
                authorities,
                left_out: _,
                unrun,
                debug,
            } = &plan.images[name];
            let laid = laid.iter().map(|(input, ..)| input);
            let layers = contents.iter().chain(declared).chain(root).chain(laid);
            let layers = layers.chain(configured).chain(utf8).chain(zone).chain(authorities);
            let debug = debug.iter().flat_map(DebugInputs::all);
            layers.chain(unrun.values()).chain(debug).cloned().collect()
        }
    }
}
