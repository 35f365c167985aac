//! What is *kept* of a project beside its images: the files that it takes from outside, its texts, and where that is
//! wanted its local files.
//!
//! Invariant: what a place lacks is fetched before it is sent, all of it at once; nothing is fetched that is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::derive::{BuildPlan, Download, Input};
use crate::digest::{ContentDigest, Digest};
use crate::event::{Event, Reporter, Silent};
use crate::fetch::{self, FetchConfig, FetchError};
use crate::inputs::{self, ArtifactContents, InputFile, LocalTree, MadeWith, Needed};
use crate::oci::{MediaType, Subject};
use crate::spec::{Image, PackageName};
use crate::store::Store;
use crate::store_path::StorePath;
use crate::transport::{self, Companion, Location, ReadOptions, Sink, Source, Stored};

use super::environment::{Environment, WorkOptions};
use super::error::ProjectError;
use super::files::Project;
use super::image::NamedImage;
use super::platforms::{self, PlatformChoice};
use super::request::SharedImage;
use super::target::Target;
use super::work::{Work, inputs_of};

/// What is kept of a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepExtent {
    /// Files from outside, specs, the lock and kept layer plans.
    Outside,
    /// Local files too.
    All,
}

/// Inputs on their way to a place.
pub struct KeptInputs<'a> {
    companion: Companion,
    needed: Needed,
    config: FetchConfig,
    /// Repositories that keep inputs, each with its registry's host.
    repositories: Vec<(String, String)>,
    reporter: &'a dyn Reporter,
}

/// The inputs of an image that was made of a project, for each of its platforms in [their order](NamedImage::each); none where
/// it was made of store paths.
pub fn of_image<'a>(
    named: &NamedImage,
    work: &Work,
    made_with: &MadeWith,
    extent: KeepExtent,
    environment: &Environment<'a>,
) -> Result<Vec<KeptInputs<'a>>, ProjectError> {
    let mut all = Vec::new();
    for part in named.each() {
        all.extend(of_part(
            part,
            work.of(&part.draft),
            made_with.clone(),
            extent,
            environment,
        )?);
    }
    Ok(all)
}

fn of_part<'a>(
    named: &NamedImage,
    work: &Work,
    made_with: MadeWith,
    extent: KeepExtent,
    environment: &Environment<'a>,
) -> Result<Option<KeptInputs<'a>>, ProjectError> {
    let (Some(project), true) = (&work.project, work.targets.contains(&Target::Image(named.name.clone()))) else {
        return Ok(None);
    };
    let subject = Subject {
        media_type: MediaType::MANIFEST.to_owned(),
        digest: named.image.digest(),
        size: named.image.manifest.size(),
    };
    let base = named.draft.recipe.base.iter();
    let targets = vec![Target::Image(named.name.clone())];
    let wanted = InputsRequest {
        project,
        needed: gathered(project, &work.plan, &targets)?,
        store: &work.store,
        sources: &work.sources,
        targets,
        made_with,
        subject: Some(subject),
        base: base
            .flat_map(|base| [base.image.manifest.bytes().to_vec(), base.image.config.bytes().to_vec()])
            .collect(),
        extent,
    };
    wanted.keep(&work.options, environment).map(Some)
}

/// The inputs of `targets`, nothing of which needs to be made.
pub fn of_targets<'a>(
    project: &Project,
    targets: Vec<Target>,
    extent: KeepExtent,
    options: &WorkOptions,
    environment: &Environment<'a>,
) -> Result<KeptInputs<'a>, ProjectError> {
    let store = environment.store()?;
    let sources = project.add_sources(&store, &Silent)?;
    let wanted = InputsRequest {
        project,
        needed: needed(project, &targets, environment)?,
        store: &store,
        sources: &sources,
        targets,
        made_with: MadeWith::default(),
        subject: None,
        base: Vec::new(),
        extent,
    };
    wanted.keep(options, environment)
}

/// The files that `targets` need from outside, for all of their platforms.
pub fn needed(project: &Project, targets: &[Target], environment: &Environment<'_>) -> Result<Needed, ProjectError> {
    let store = environment.store()?;
    let mut all = Needed::default();
    for (architecture, targets) in platforms::shared_out(project, targets, &PlatformChoice::All)? {
        let seen = project.at(&architecture);
        let plan = seen.plan(&store, &seen.add_sources(&store, &Silent)?)?;
        all = all.and(gathered(&seen, &plan, &targets)?);
    }
    Ok(all)
}

/// The files that targets of one plan need.
fn gathered(project: &Project, plan: &BuildPlan, targets: &[Target]) -> Result<Needed, ProjectError> {
    let named = targets.iter().flat_map(|target| inputs_of(target, plan));
    // What is made of an import's own files needs its tree.
    let imports = project.workspace.imports.keys();
    let trees = imports.filter_map(|alias| plan.packages.get(&PackageName(alias.clone())).cloned());
    let inputs: Vec<Input> = named.chain(trees).collect();
    Ok(inputs::gather(plan, &inputs, &project.all_specs())?)
}

/// Of what the inputs are wanted.
struct InputsRequest<'w> {
    project: &'w Project,
    needed: Needed,
    store: &'w Store,
    sources: &'w BTreeMap<PackageName, StorePath>,
    targets: Vec<Target>,
    made_with: MadeWith,
    subject: Option<Subject>,
    base: Vec<Vec<u8>>,
    extent: KeepExtent,
}

impl InputsRequest<'_> {
    fn keep<'a>(&self, options: &WorkOptions, environment: &Environment<'a>) -> Result<KeptInputs<'a>, ProjectError> {
        let Project { workspace, lock, .. } = self.project;
        let needed = self.needed.clone();
        let config = environment.build_options(options, Some(self.project))?.fetch;
        let all = self.extent == KeepExtent::All;
        let images: Vec<&Image> = self.images().filter_map(|name| workspace.images.get(name)).collect();
        // What is kept is what the folder has, from wherever it is seen.
        let portable = inputs::portable(workspace, &self.project.whole_lock(), &images, all);
        if let Err(why) = &portable {
            let text = format!("the spec is not kept with the inputs: {why}; a rebuild will need `--spec DIR`");
            environment.reporter.report(Event::Warning { text });
        }
        let contents = ArtifactContents {
            image: self.only_image(),
            made_with: self.made_with.clone(),
            subject: self.subject.clone(),
            lock,
            needed: &needed,
            portable,
            sources: all.then(|| self.local_trees()).transpose()?,
            base: self.base.clone(),
        };
        fetch_unknown(&needed, &config, environment.reporter)?;
        let companion = inputs::pack(&contents, &config)?;
        let places = environment.input_places(options, &workspace.inputs)?;
        let repositories = places.iter().filter_map(inputs::Place::repository);
        Ok(KeptInputs {
            companion,
            repositories: repositories
                .map(|(host, name)| (host.to_owned(), name.to_owned()))
                .collect(),
            needed,
            config,
            reporter: environment.reporter,
        })
    }

    fn images(&self) -> impl Iterator<Item = &String> {
        self.targets.iter().filter_map(|target| match target {
            Target::Image(name) => Some(name),
            _ => None,
        })
    }

    fn only_image(&self) -> Option<String> {
        match self.targets.as_slice() {
            [Target::Image(name)] => Some(name.clone()),
            _ => None,
        }
    }

    /// The local sources of all packages that the targets lead to.
    fn local_trees(&self) -> Result<Vec<LocalTree>, ProjectError> {
        let packages: BTreeSet<PackageName> = (self.targets.iter())
            .filter_map(|target| match target {
                Target::Package(name) => Some(name.clone()),
                _ => None,
            })
            .collect();
        let part = self
            .project
            .workspace
            .only(&packages, &self.images().cloned().collect());
        let mut trees = Vec::new();
        for (package, path) in self.sources.iter().filter(|(name, _)| part.packages.contains_key(name)) {
            let gone = || ProjectError::Gone { path: path.clone() };
            let info = self.store.info(path)?.ok_or_else(gone)?;
            trees.push(LocalTree {
                package: package.clone(),
                physical: self.store.physical(path),
                nar_hash: info.nar_hash,
                nar_size: info.nar_size,
            });
        }
        Ok(trees)
    }
}

/// Fetches the files whose size or SHA-256 nothing says, so that they are known.
fn fetch_unknown(needed: &Needed, config: &FetchConfig, reporter: &dyn Reporter) -> Result<(), FetchError> {
    let is_unknown = |(file, _): &&(InputFile, Download)| match fetch::cached(config, &file.digest) {
        Some((_, path)) => file.size.is_none() && !path.is_file(),
        None => true,
    };
    let wanted: Vec<&Download> = needed
        .files
        .iter()
        .filter(is_unknown)
        .map(|(_, download)| download)
        .collect();
    fetch::fetch(&wanted, config, reporter).map(drop)
}

/// Copies the inputs that are kept beside a shared image to each of `places`, where they are not there already.
pub fn copy(shared: &SharedImage, places: &[Location], environment: &Environment<'_>) -> Result<(), ProjectError> {
    let (from, tag) = (&shared.place, inputs::tag_of(&shared.made.image.digest()));
    let options = ReadOptions {
        registries: environment.registries.clone(),
        ..ReadOptions::default()
    };
    let open = |location: &Location| match location.source(&options) {
        Ok(source) => Ok(Some(Arc::from(source))),
        Err(error) if error.is_absence() => Ok(None),
        Err(error) => Err(error),
    };
    for place in places {
        let Some(to) = place.tagged(&tag)? else { continue };
        let there: Option<Arc<dyn Source>> = open(&to)?;
        if there.is_some() {
            continue;
        }
        let Some(source) = open(&from.tagged(&tag)?)? else {
            let text = format!(
                "`{}` does not have the inputs of the image: they are not kept",
                from.name()
            );
            environment.reporter.report(Event::Note { text });
            return Ok(());
        };
        let artifact = transport::open(&source)?;
        let anchor = place.tagged(&shared.anchor)?;
        let anchor = anchor.map(|anchor| open(&anchor).map(|there| there.is_none().then_some(anchor)));
        for to in [Some(to), anchor.transpose()?.flatten()].into_iter().flatten() {
            let sink = to.sink(None, &environment.registries, environment.reporter)?;
            for image in artifact.images() {
                sink.put(image, &[])?;
            }
        }
    }
    Ok(())
}

impl KeptInputs<'_> {
    /// Stores the inputs in a place. What it lacks and the download cache does not have is fetched again.
    pub fn put(&self, sink: &dyn Sink, destination: &str, dry_run: bool) -> Result<Stored, ProjectError> {
        let downloads: BTreeMap<ContentDigest, &Download> = self
            .needed
            .files
            .iter()
            .filter_map(|(file, download)| Some((fetch::cached(&self.config, &file.digest)?.0.into(), download)))
            .collect();
        let supply = |lacking: &[ContentDigest]| {
            let wanted: Vec<&Download> = lacking
                .iter()
                .filter_map(|digest| downloads.get(digest).copied())
                .collect();
            fetch::fetch(&wanted, &self.config, self.reporter)
                .map(drop)
                .map_err(Into::into)
        };
        let stored = sink.put_companion(&self.companion, &supply)?;
        self.reporter.report(Event::InputsKept {
            digest: self.companion.artifact.digest().to_string(),
            destination: destination.to_owned(),
            inputs: self.needed.files.len(),
            withheld: self.needed.withheld.len(),
            requests: stored.requests,
            blobs_sent: stored.blobs_sent,
            bytes_sent: stored.bytes_sent,
            blobs_there: stored.blobs_there,
            dry_run,
        });
        Ok(stored)
    }

    /// Under a name of the user's choice.
    pub fn named(mut self, tag: Option<&str>) -> Self {
        if let Some(tag) = tag {
            tag.clone_into(&mut self.companion.tag);
        }
        self
    }

    /// Digest of the artifact.
    pub fn digest(&self) -> Digest {
        self.companion.artifact.digest()
    }

    /// Repositories of a registry that keep inputs, from which it may take blobs.
    pub fn repositories(&self, host: &str) -> Vec<String> {
        let here = self.repositories.iter().filter(|(registry, _)| registry == host);
        here.map(|(_, name)| name.clone()).collect()
    }
}
