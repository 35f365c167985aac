//! *Shared caches* of a command: the command line's, the spec's and the machine's together.
//!
//! Invariant: a shared cache that cannot be written is told and fails nothing; what cannot be understood of the settings is
//! an error before anything is built.

mod pass;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::binary_cache::{NixPublicKey, SecretKey};
use crate::build::SharedBuilds;
use crate::closure;
use crate::derive::{self, BuildPlan, Input, StepId};
use crate::digest::Digest;
use crate::event::{Event, Reporter};
use crate::fsio::{read_limited, with_causes};
use crate::graph;
use crate::inputs::{self, LockPlace};
use crate::layer::LayerCache;
use crate::parallel;
use crate::shared_cache::{
    CachePlace, CacheTrust, Held, MadeImage, Published, PublishedPath, SharedCache, SharedCacheError, Signers,
};
use crate::spec::{SharedCaches, Workspace};
use crate::store::{Store, StoreError};
use crate::store_path::StorePath;
use crate::transport::registry::RegistryConfig;

use super::environment::{Environment, WorkOptions};
use super::error::ProjectError;
use super::files::Project;
use super::kept::KeptInputs;
use super::request::SharedImage;

/// Largest file of a key that is read, in bytes.
const KEY_SIZE_MAX: u64 = 4096;

/// How many entries are dated at once.
const RENEWED_AT_ONCE: usize = 4;

/// What the command line says of shared caches.
#[derive(Debug, Clone, Default)]
pub struct CacheOptions {
    /// Places that are asked before others.
    pub from: Vec<String>,
    /// Places that what was built goes to.
    pub to: Vec<String>,
    /// Whose entries are believed.
    pub trusted_keys: Vec<NixPublicKey>,
    /// File of the key that signs.
    pub sign_key: Option<PathBuf>,
    /// Believe what nobody signed.
    pub unsigned: bool,
    /// Write none.
    pub read_only: bool,
    /// Neither read nor write any.
    pub none: bool,
}

/// What the machine's configuration says of shared caches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MachineCaches {
    /// Directory to which places are relative.
    pub dir: PathBuf,
    /// Places that are asked after the spec's.
    pub from: Vec<String>,
    /// Places that what was built goes to.
    pub to: Vec<String>,
    /// Whose entries are believed.
    pub trusted_keys: Vec<NixPublicKey>,
    /// File of the key that signs.
    pub sign_key: Option<PathBuf>,
    /// Believe what nobody signed.
    pub unsigned: bool,
}

/// The shared caches of a command.
pub struct Caches {
    from: Vec<CachePlace>,
    to: Vec<CachePlace>,
    trust: CacheTrust,
    signers: Signers,
    /// With which entries are dated.
    now: Option<i64>,
}

impl Environment<'_> {
    /// The shared caches of a command, for a project as its spec says.
    pub fn shared_caches(&self, options: &WorkOptions, workspace: Option<&Workspace>) -> Result<Caches, ProjectError> {
        let given = &options.cache;
        let mut caches = Caches {
            from: Vec::new(),
            to: Vec::new(),
            trust: CacheTrust::default(),
            signers: Signers::default(),
            now: self.now,
        };
        if given.none {
            return Ok(caches);
        }
        let spec = workspace.map(|workspace| workspace.cache.clone()).unwrap_or_default();
        let (machine, SharedCaches { dir, .. }) = (&self.cache, &spec);
        let of_spec = |texts: &[crate::spec::Spanned<String>]| -> Vec<String> {
            texts.iter().map(|text| text.value.clone()).collect()
        };
        caches.from = self.places([
            (&given.from, &self.here),
            (&of_spec(&spec.from), dir),
            (&machine.from, &machine.dir),
        ])?;
        caches.to = self.places([
            (&given.to, &self.here),
            (&of_spec(&spec.to), dir),
            (&machine.to, &machine.dir),
        ])?;
        caches.to.iter().try_for_each(CachePlace::check_writable)?;
        if given.read_only {
            caches.to.clear();
        }
        if options.offline {
            caches.from.retain(|place| !place.is_remote());
            caches.to.retain(|place| !place.is_remote());
        }
        if let Some(file) = given.sign_key.as_ref().or(machine.sign_key.as_ref()) {
            caches.signers.keys.push(read_key(file)?);
        }
        let mut keys = [given.trusted_keys.clone(), machine.trusted_keys.clone()].concat();
        for text in &spec.trusted_keys {
            keys.push(text.value.parse().map_err(ProjectError::Key)?);
        }
        // Whoever signs here is believed here.
        keys.extend(caches.signers.keys.iter().map(SecretKey::public));
        let unsigned = given.unsigned || machine.unsigned;
        if unsigned && !caches.signers.keys.is_empty() && !caches.from.is_empty() && !caches.to.is_empty() {
            return Err(ProjectError::SignsUnsigned);
        }
        caches.trust = CacheTrust {
            keys,
            unsigned,
            least: options.least_walls(self.required_walls(options, workspace), self.has_farm(options)),
        };
        if let (Some(place), true) = (
            caches.from.first(),
            caches.trust.keys.is_empty() && !caches.trust.unsigned,
        ) {
            return Err(ProjectError::NobodyTrusted {
                place: place.name().to_owned(),
            });
        }
        Ok(caches)
    }

    /// The repositories of the shared caches of a command, each with its registry's host: what was built is there in the layers
    /// that it has in an image.
    pub fn cache_repositories(
        &self,
        options: &WorkOptions,
        workspace: Option<&Workspace>,
    ) -> Result<Vec<(String, String)>, ProjectError> {
        let caches = self.shared_caches(options, workspace)?;
        let all = caches.to.iter().chain(&caches.from).filter(|place| place.answers());
        Ok(all.filter_map(CachePlace::repository).collect())
    }

    /// The places that `texts` name; where they name none, those that the spec of the project, if there is one, and the
    /// machine's configuration write to.
    pub fn written_caches(&self, texts: &[String]) -> Result<Vec<CachePlace>, ProjectError> {
        let mut spec = SharedCaches::default();
        if texts.is_empty() {
            match Project::load(self) {
                Ok(project) => spec = project.workspace.cache,
                Err(ProjectError::NoSpec) => {}
                Err(error) => return Err(error),
            }
        }
        let machine: &[String] = if texts.is_empty() { &self.cache.to } else { &[] };
        let of_spec = spec.to.iter().map(|text| text.value.clone()).collect();
        let places = self.places([
            (&texts.to_vec(), &self.here),
            (&of_spec, &spec.dir),
            (&machine.to_vec(), &self.cache.dir),
        ])?;
        places.iter().try_for_each(CachePlace::check_writable)?;
        Ok(places)
    }

    fn places(&self, lists: [(&Vec<String>, &PathBuf); 3]) -> Result<Vec<CachePlace>, ProjectError> {
        let mut places: Vec<CachePlace> = Vec::new();
        for (texts, dir) in lists {
            for text in texts {
                let mut place = CachePlace::parse(text, dir, &self.registries, &self.cache_notes)?;
                if places.iter().any(|other| other.is_same(&place)) {
                    continue;
                }
                if places.iter().any(|other| other.name() == place.name()) {
                    place.name_in_full();
                }
                places.push(place);
            }
        }
        Ok(places)
    }
}

fn read_key(file: &Path) -> Result<SecretKey, ProjectError> {
    let bytes = read_limited(file, KEY_SIZE_MAX)?;
    SecretKey::parse(&String::from_utf8_lossy(&bytes)).map_err(ProjectError::Key)
}

impl Caches {
    /// What is asked before anything is built; `None` where there is nobody to ask.
    pub fn reader(&self) -> Option<Arc<dyn SharedBuilds>> {
        let is_some = !self.from.is_empty();
        is_some.then(|| Arc::new(SharedCache::new(self.from.clone(), self.trust.clone())) as Arc<dyn SharedBuilds>)
    }

    /// The files of a project's lock, where those that are asked keep them. They are hashes' content: no key is needed.
    pub fn lock_files(&self, anchor: &str, registries: &RegistryConfig) -> Result<Vec<LockPlace>, ProjectError> {
        let asked = self.from.iter().filter(|place| place.exists());
        let places = asked.filter_map(CachePlace::location).map(|location| {
            let place = inputs::Place::parse(&location.to_string(), Path::new("/"), registries)?;
            Ok(LockPlace::new(place.anchored(Some(anchor.to_owned()))))
        });
        places.collect()
    }

    /// Whether anybody is asked.
    pub fn is_read(&self) -> bool {
        !self.from.is_empty()
    }

    /// The image that was made of what `key` is the hash of; `anchor` is where the inputs of its lock are kept.
    pub fn image(&self, key: &Digest, anchor: String, reporter: &dyn Reporter) -> Option<SharedImage> {
        let cache = SharedCache::new(self.from.clone(), self.trust.clone());
        let (made, place) = cache.image(key, reporter)?;
        Some(SharedImage {
            made,
            place: place.clone(),
            key: *key,
            anchor,
            steps: Vec::new(),
        })
    }

    /// Keeps an image under what `key` is the hash of; `beside` has its layers: repositories with their registries' hosts.
    pub fn publish_image(
        &self,
        key: &Digest,
        name: &str,
        made: &MadeImage,
        beside: &[(String, String)],
        keep: Option<&KeptInputs<'_>>,
        reporter: &dyn Reporter,
    ) {
        for place in self.to.iter().filter(|place| place.keeps_images() && place.answers()) {
            let published = place.publish_image(key, made, &self.signers, self.now, beside, reporter);
            let kept = published.map_err(ProjectError::from).and_then(|_| match keep {
                Some(keep) => {
                    let tag = inputs::tag_of(&made.image.digest());
                    let sink = place.sink(&tag, beside, reporter)?;
                    keep.put(sink.as_ref(), place.name(), false).map(drop)
                }
                None => Ok(()),
            });
            if let Err(error) = kept {
                if let ProjectError::SharedCache(error) = &error {
                    place.note(error);
                }
                let text = format!(
                    "image `{name}` is not kept in `{}`: {}",
                    place.name(),
                    with_causes(&error)
                );
                reporter.report(Event::Warning { text });
            }
        }
    }

    /// Whether what is kept is signed.
    pub fn signs(&self) -> bool {
        !self.signers.keys.is_empty()
    }

    /// Whether what was built goes anywhere.
    pub fn is_written(&self) -> bool {
        !self.to.is_empty()
    }

    /// Keeps what was built of `targets` for others. `paths` are those that are known of the plan's steps; where the build
    /// failed what it made before is kept all the same.
    pub fn publish(&self, built: &Built<'_>, layers: &LayerCache, reporter: &dyn Reporter) -> Result<(), ProjectError> {
        if self.to.is_empty() {
            return Ok(());
        }
        let mut steps = built.steps()?;
        if self.signs() {
            let unvouched = built.unvouched()?;
            steps.retain(|step| !unvouched.contains(&step.id));
            if let Some(first) = unvouched.first() {
                reporter.report(Event::Warning {
                    text: unvouched_text(&built.plan.steps[*first].label, unvouched.len()),
                });
            }
        }
        for place in &self.to {
            if !place.answers() {
                let text = format!(
                    "what was built is not kept in `{}`, which does not answer",
                    place.name()
                );
                reporter.report(Event::Warning { text });
                continue;
            }
            let mut renews = true;
            let mut has_written = false;
            for step in &steps {
                let written = self.publish_step(place, step, built, layers, &mut renews, reporter);
                has_written |= matches!(written, Ok(true));
                if let Err(error) = written {
                    place.note(&error);
                    let text = format!(
                        "`{}` and what follows it is not kept in `{}`: {}",
                        built.plan.steps[step.id].label,
                        place.name(),
                        with_causes(&error)
                    );
                    reporter.report(Event::Warning { text });
                    // A place that does not work once is not asked for each step.
                    break;
                }
            }
            if has_written && self.signers.keys.is_empty() {
                let text = format!(
                    "nobody has signed what is kept in `{}`: it is believed where `--cache-unsigned` is said; \
                     `--cache-sign-key FILE` signs it (`layerize store key generate NAME`)",
                    place.name()
                );
                reporter.report(Event::Note { text });
            }
        }
        Ok(())
    }

    /// Writes the entry of a step where that is not there; true where it was written.
    fn publish_step(
        &self,
        place: &CachePlace,
        step: &BuiltStep,
        built: &Built<'_>,
        layers: &LayerCache,
        renews: &mut bool,
        reporter: &dyn Reporter,
    ) -> Result<bool, SharedCacheError> {
        let held = place.has(&step.plan_key, &self.signers, self.now)?;
        match &held {
            Held::Current => {}
            Held::Stale(entry) => {
                if let (Some(now), true) = (self.now, *renews)
                    && let Err(error) = place.renew(entry, &step.plan_key, now)
                {
                    // The entry is there all the same. Where tags cannot be moved, none can be renewed.
                    tell_not_renewed(place, &error, reporter);
                    *renews = false;
                }
            }
            Held::Lacking | Held::Others(_) => {
                if let Some(published) = built.published(step)? {
                    place.publish(&published, &self.signers, self.now, layers, reporter)?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Dates an image that was found instead of made, and what was built for it, where that was last done on another day:
    /// they are in use, although nothing is built.
    pub fn renew(&self, key: &Digest, made: &MadeImage, plan: &BuildPlan, targets: &[Input], reporter: &dyn Reporter) {
        let Some(now) = self.now else { return };
        for place in self.to.iter().filter(|place| place.answers()) {
            let renewed = place.renew_image(key, made, &self.signers, now);
            let renewed = renewed.and_then(|is_renewed| match is_renewed {
                true => self.renew_steps(place, plan, targets, now),
                false => Ok(()),
            });
            if let Err(error) = renewed {
                place.note(&error);
                tell_not_renewed(place, &error, reporter);
            }
        }
    }

    fn renew_steps(
        &self,
        place: &CachePlace,
        plan: &BuildPlan,
        targets: &[Input],
        now: i64,
    ) -> Result<(), SharedCacheError> {
        let keys = built_keys(plan, targets);
        let renewed = parallel::map(&keys, RENEWED_AT_ONCE, |key| {
            match place.has(key, &self.signers, self.now)? {
                Held::Stale(entry) => place.renew(&entry, key, now),
                Held::Current | Held::Lacking | Held::Others(_) => Ok(()),
            }
        });
        renewed.map(drop)
    }
}

/// The plan keys of the built steps that `targets` may need.
pub fn built_keys(plan: &BuildPlan, targets: &[Input]) -> Vec<Digest> {
    let plan_keys = derive::plan_keys(&plan.steps);
    let built = reached(plan, targets)
        .into_iter()
        .filter(|&id| plan.steps[id].is_built());
    built.map(|id| plan_keys[id]).collect()
}

/// Why steps are not kept although there is a key to sign them with.
fn unvouched_text(label: &str, count: usize) -> String {
    let others = match count {
        1 => String::new(),
        count => format!(" and {} more", count - 1),
    };
    format!(
        "`{label}`{others} cannot be signed and is not kept: it was taken from a shared cache that nobody signed, or built of \
         that (build it in a store that never read with `--cache-unsigned`)"
    )
}

fn tell_not_renewed(place: &CachePlace, error: &SharedCacheError, reporter: &dyn Reporter) {
    let text = format!(
        "entries of `{}` that are in use keep their old dates: {}",
        place.name(),
        with_causes(error)
    );
    reporter.report(Event::Warning { text });
}

/// The steps that `targets` may need.
fn reached(plan: &BuildPlan, targets: &[Input]) -> BTreeSet<StepId> {
    let steps = |inputs: &mut dyn Iterator<Item = &Input>| -> Vec<StepId> {
        let steps = inputs.filter_map(|input| match input {
            Input::Step(id) => Some(*id),
            Input::Path(_) => None,
        });
        steps.collect()
    };
    graph::closure(steps(&mut targets.iter()), |&id| {
        steps(&mut plan.steps[id].inputs().into_iter())
    })
}

/// What was built.
pub struct Built<'a> {
    store: &'a Store,
    plan: &'a BuildPlan,
    plan_keys: Vec<Digest>,
    /// Every step that the targets may need.
    reached: BTreeSet<StepId>,
    /// Who makes a path: the plan key of the step, and whether it only unpacks.
    makers: BTreeMap<StorePath, (Digest, bool)>,
}

/// A built step whose output is in the store.
struct BuiltStep {
    id: StepId,
    plan_key: Digest,
    output: StorePath,
}

impl<'a> Built<'a> {
    /// What is known of the steps that lead to `targets`.
    pub fn new(
        store: &'a Store,
        plan: &'a BuildPlan,
        targets: &[Input],
        paths: &BTreeMap<Input, StorePath>,
    ) -> Result<Self, ProjectError> {
        let reached = reached(plan, targets);
        let plan_keys = derive::plan_keys(&plan.steps);
        let mut makers = BTreeMap::new();
        for &id in &reached {
            let is_unpacked = !plan.steps[id].is_built();
            let known = match paths.get(&Input::Step(id)) {
                Some(path) => {
                    store.record_planned(&plan_keys[id], path)?;
                    Some(path.clone())
                }
                None => store.known_output(&plan_keys[id])?,
            };
            if let Some(path) = known {
                let maker = makers.entry(path).or_insert((plan_keys[id], is_unpacked));
                if is_unpacked {
                    *maker = (plan_keys[id], true);
                }
            }
        }
        Ok(Self {
            store,
            plan,
            plan_keys,
            reached,
            makers,
        })
    }

    /// The built steps whose outputs are in the store.
    fn steps(&self) -> Result<Vec<BuiltStep>, ProjectError> {
        let mut steps = Vec::new();
        for &id in self.reached.iter().filter(|&&id| self.plan.steps[id].is_built()) {
            let plan_key = self.plan_keys[id];
            if let Some(output) = self.store.known_output(&plan_key)?
                && self.store.info(&output)?.is_some()
            {
                steps.push(BuiltStep { id, plan_key, output });
            }
        }
        Ok(steps)
    }

    /// The steps whose outputs rest on what was taken on nobody's word: their own, or one that they were built of.
    pub fn unvouched(&self) -> Result<BTreeSet<StepId>, ProjectError> {
        let mut found = BTreeSet::new();
        // A step comes after those that it needs.
        for &id in &self.reached {
            let step = &self.plan.steps[id];
            let is_input = |input: &&Input| matches!(input, Input::Step(id) if found.contains(id));
            if step.inputs().iter().any(is_input) || (step.is_built() && self.is_unvouched(id)?) {
                found.insert(id);
            }
        }
        Ok(found)
    }

    fn is_unvouched(&self, id: StepId) -> Result<bool, ProjectError> {
        let Some(output) = self.store.known_output(&self.plan_keys[id])? else {
            return Ok(false);
        };
        let details = self.store.info_full(&output)?;
        let derivation = details.and_then(|details| details.derivation_json);
        match derivation {
            Some(json) => Ok(self.store.is_unvouched(&Digest::of(json.as_bytes()))?),
            None => Ok(false),
        }
    }

    /// A step's output with all that it refers to; `None` where something of that is gone.
    fn published(&self, step: &BuiltStep) -> Result<Option<Published>, SharedCacheError> {
        let roots = BTreeSet::from([step.output.clone()]);
        let closure = match closure::compute(self.store, &roots) {
            Err(StoreError::NotValid { .. }) => return Ok(None),
            closure => closure?,
        };
        let mut paths = Vec::new();
        for info in closure.topological() {
            let Some(details) = self.store.info_full(&info.path)? else {
                return Ok(None);
            };
            let maker = self.makers.get(&info.path);
            paths.push(PublishedPath {
                details,
                physical: self.store.physical(&info.path),
                plan_key: maker.map(|(key, _)| *key),
                is_unpacked: info.path != step.output && maker.is_some_and(|(_, is_unpacked)| *is_unpacked),
            });
        }
        Ok(Some(Published {
            label: self.plan.steps[step.id].label.clone(),
            plan_key: step.plan_key,
            output: step.output.clone(),
            closure: paths,
        }))
    }
}
