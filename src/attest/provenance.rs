//! *Provenance* says how an image was made: from which spec, which pinned inputs, by which program (SLSA v1, as the
//! predicate of an in-toto statement).
//!
//! Invariant: no time, no machine and no run is named (SLSA leaves all of `runDetails.metadata` optional), so that
//! whoever builds the image again gets the same document. A store path that was built behind less than
//! namespaces is said to be: `walls` is `chroot`, `traced`, `builder` or `none` among its subject's annotations. So is one whose script's
//! programs did not run on the machine's own processor, or made programs for another one: `execution` is `emulated`,
//! `emulated-by-machine` or `cross`.
//!
//! - `buildType` is [`BUILD_TYPE`]. Its external parameters are `image`, `tag`, `platform`, `options` (what
//!   was asked for beyond the spec, or beyond an image of store paths that says nothing, by the spec's keys), `spec` (files, by digest) and `lock`; its internal ones the numbers of the formats, the date,
//!   `unresolved`, inputs of which the store knows no more, and where there are any `buildCaches`: the directories that steps
//!   may have found as earlier runs left them, by the step.
//! - `resolvedDependencies` are the files from outside by SHA-256 (by SHA-512, or Go's `dirHash`, where a lock knows
//!   them by that), those of build tools included; trees of commits by `gitCommit` and the hash of their canonical archive;
//!   local sources and
//!   store paths that were not built by the hash of their canonical archive (`narSha256`); the image's `files` by
//!   SHA-256, under their paths in the image; and its layer plan, if one was given or kept, as `layer-plan`.
//! - `byproducts` has the store path of what maintainer scripts made, with what became of those of each package (its place is
//!   in no image); and where the image's tests were run, `tests`: the digest of the image that was tested, and by each test's
//!   name among its annotations `passed` or `skipped`.
//! - Subjects are the image by the SHA-256 of its manifest, and the store paths in it by `narSha256`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::derive::{self, Action, ImageInputs, Input};
use crate::digest::{Digest, FileHash};
use crate::execution::Execution;
use crate::graph;
use crate::image::{self, Configured};
use crate::layer;
use crate::store::Store;
use crate::store_path::{StoreDir, StorePath};
use crate::walls::Walls;

use super::AttestError;
use super::gather::{Gathered, files_of, pinned_file};
use super::inventory::{Inventory, PinnedFile, TOOL};
use super::statement::statement_of;

/// Type of the predicate.
pub const PROVENANCE_TYPE: &str = "https://slsa.dev/provenance/v1";

/// What kind of build it was: the rules of this module's page. A name and no address.
const BUILD_TYPE: &str = "https://layerize.dev/build/v1";

/// Who built: any layerize, trusted as far as the machine that ran it. A name and no address.
const BUILDER: &str = "https://layerize.dev/builder/local/v1";

/// What a layer plan that was given or kept is called among the dependencies. Its digest is that of its canonical form, which
/// is the form of a kept plan's file.
const LAYER_PLAN: &str = "layer-plan";

/// What results of tests are called among the byproducts; their digest is that of the image that was tested.
const TESTS: &str = "tests";

/// What the user asked for.
#[derive(Debug, Clone, Default)]
pub struct BuildFacts {
    /// The spec's files by names relative to the project.
    pub spec: BTreeMap<String, Digest>,
    /// The lock's text.
    pub lock: Option<Digest>,
    /// What was asked for beyond the spec, by the spec's keys.
    pub options: Map<String, Value>,
    /// What came of the image's tests, by name, where they were run.
    pub tests: BTreeMap<String, &'static str>,
}

/// The statement as canonical JSON.
pub fn provenance(built: &Gathered<'_>, inventory: &Inventory, facts: &BuildFacts) -> Result<Vec<u8>, AttestError> {
    let mut materials = match built.plan.images.get(&built.recipe.spec.name.value) {
        Some(inputs) => Materials::of_plan(built, inputs)?,
        None => Materials::of_store(built)?,
    };
    materials.local = image::local_files(built.recipe);
    if let Some(plan) = &built.recipe.plan {
        let digest = Digest::of(plan.print().as_bytes());
        materials.local.insert(LAYER_PLAN.to_owned(), digest);
    }
    let mut predicate = json!({
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": external_parameters(built, facts),
            "internalParameters": {
                "layerFormat": layer::FORMAT,
                "planFormat": derive::FORMAT,
                "sandboxFormat": derive::SANDBOX_FORMAT,
                "sourceDateEpoch": built.recipe.created,
                "unresolved": materials.unresolved,
            },
            "resolvedDependencies": materials.descriptors(),
        },
        "runDetails": {
            "builder": {
                "id": BUILDER,
                "version": { TOOL.0: TOOL.1, "layerFormat": layer::FORMAT.to_string() },
            },
        },
    });
    let byproducts = byproducts(built, inventory, facts);
    if !materials.caches.is_empty() {
        predicate["buildDefinition"]["internalParameters"]["buildCaches"] = json!(materials.caches);
    }
    if !byproducts.is_empty() {
        predicate["runDetails"]["byproducts"] = json!(byproducts);
    }
    Ok(statement_of(&subjects(built, inventory)?, PROVENANCE_TYPE, &predicate))
}

/// What came of the build besides the image.
fn byproducts(built: &Gathered<'_>, inventory: &Inventory, facts: &BuildFacts) -> Vec<Value> {
    let mut all = Vec::new();
    if let Some(Configured { logical, nar_hash, .. }) = &built.recipe.configured {
        let mut made = nar_descriptor(logical.as_str(), nar_hash);
        let words = built.scripts.iter().map(|(name, outcome)| (name, outcome.word()));
        made["annotations"] = json!({ "scripts": words.collect::<BTreeMap<_, _>>() });
        all.push(made);
    }
    if !facts.tests.is_empty() {
        all.push(json!({
            "name": TESTS,
            "digest": { "sha256": inventory.image.digest.hex() },
            "annotations": facts.tests,
        }));
    }
    all
}

fn external_parameters(built: &Gathered<'_>, facts: &BuildFacts) -> Value {
    let spec = file_descriptors(&facts.spec);
    let mut parameters = json!({
        "image": built.recipe.spec.name.value,
        "tag": built.recipe.spec.tag,
        "platform": built.recipe.platform.to_string(),
    });
    if !spec.is_empty() {
        parameters["spec"] = json!(spec);
    }
    if let Some(lock) = &facts.lock {
        parameters["lock"] = json!({ "digest": { "sha256": lock.hex() } });
    }
    if !facts.options.is_empty() {
        parameters["options"] = json!(facts.options);
    }
    if spec.is_empty() {
        let contents: Vec<&str> = built
            .recipe
            .contents
            .iter()
            .map(|content| content.logical.as_str())
            .collect();
        parameters["contents"] = json!(contents);
    }
    parameters
}

fn subjects(built: &Gathered<'_>, inventory: &Inventory) -> Result<Vec<Value>, AttestError> {
    let image = &inventory.image;
    let name = match &image.tag {
        Some(tag) => format!("{}:{tag}", image.name),
        None => image.name.clone(),
    };
    let mut subjects = vec![json!({ "name": name, "digest": { "sha256": image.digest.hex() } })];
    for component in &inventory.components {
        let Some(hash) = &component.nar_hash else { continue };
        let mut subject = nar_descriptor(&component.key, hash);
        if let Some((path, _)) = StoreDir::layerize().split(&component.key)
            && let Some(details) = built.store.info_full(&path)?
            && details.provenance.derivation.is_some()
        {
            let (walls, execution) = (details.provenance.walls, details.provenance.execution);
            if walls != Walls::Namespaces {
                subject["annotations"]["walls"] = json!(walls);
            }
            if execution != Execution::Native {
                subject["annotations"]["execution"] = json!(execution);
            }
        }
        subjects.push(subject);
    }
    Ok(subjects)
}

fn nar_descriptor(name: &str, hash: &Digest) -> Value {
    json!({ "name": name, "digest": { "narSha256": hash.hex() } })
}

/// What an image was made of.
#[derive(Default)]
struct Materials {
    files: BTreeSet<PinnedFile>,
    /// Trees that no derivation made: local sources, store paths that were added.
    trees: BTreeMap<String, Digest>,
    /// The spec's `files`, by their paths in the image, and the layer plan.
    local: BTreeMap<String, Digest>,
    /// Store paths that are gone.
    unresolved: BTreeSet<String>,
    /// The directories that steps keep from one run of their script to the next, by what the user calls the step.
    caches: BTreeMap<String, BTreeSet<String>>,
}

impl Materials {
    /// Everything that the steps of the image take in, build tools included.
    fn of_plan(built: &Gathered<'_>, inputs: &ImageInputs) -> Result<Self, AttestError> {
        let mut materials = Self::default();
        graph::try_closure(inputs.all(), |input| match input {
            Input::Path(path) => materials.tree(path, built.store).map(|()| BTreeSet::new()),
            Input::Step(step) => {
                let derivation = &built.plan.steps[*step];
                let files = derivation.downloads().into_iter().map(pinned_file);
                materials.files.extend(files);
                if let Action::Script(script) = &derivation.action
                    && !script.cache_dirs.is_empty()
                {
                    let dirs = script.cache_dirs.clone();
                    materials.caches.insert(derivation.label.clone(), dirs);
                }
                Ok(derivation.inputs())
            }
        })?;
        Ok(materials)
    }

    /// Everything that the store's derivations name, from the image's store paths down.
    fn of_store(built: &Gathered<'_>) -> Result<Self, AttestError> {
        let mut materials = Self::default();
        let dir = StoreDir::layerize();
        let members = built.recipe.closure.iter().map(|member| &member.logical);
        let paths = members.filter_map(|logical| logical.in_store(StoreDir::LAYERIZE).cloned());
        graph::try_closure(paths, |path| {
            let derivation = built.derivation(path)?;
            if derivation.is_null() {
                materials.tree(path, built.store)?;
                return Ok(Vec::new());
            }
            materials.files.extend(files_of(&derivation));
            let action = &derivation["action"];
            let lists = ["root", "tools", "libraries", "runtime"].map(|key| action[key].as_array());
            let maps = ["mounts", "variables"].map(|key| action[key].as_object());
            let inputs = lists.into_iter().flatten().flatten().chain([&action["source"]]);
            let inputs = inputs.chain(maps.into_iter().flatten().flat_map(Map::values));
            let inputs = inputs.filter_map(|input| Some(dir.split(input.as_str()?)?.0));
            Ok::<_, AttestError>(inputs.collect())
        })?;
        Ok(materials)
    }

    fn tree(&mut self, path: &StorePath, store: &Store) -> Result<(), AttestError> {
        let logical = StoreDir::layerize().join(path);
        match store.info(path)? {
            Some(info) => {
                self.trees.insert(logical, info.nar_hash);
            }
            None => {
                self.unresolved.insert(logical);
            }
        }
        Ok(())
    }

    /// Resource descriptors (in-toto Attestation Framework): downloads by digest, then trees and files by name.
    fn descriptors(&self) -> Vec<Value> {
        let files = self.files.iter().map(|file| {
            let uri = match &file.location {
                Some(location) if location.contains("://") => location,
                _ => &file.purl,
            };
            let digest = match &file.commit {
                Some(commit) => json!({ "gitCommit": commit, "narSha256": file.hash.hex() }),
                None => json!({ algorithm(&file.hash): file.hash.hex() }),
            };
            json!({ "name": file.name, "uri": uri, "digest": digest })
        });
        let trees = self.trees.iter().map(|(name, hash)| nar_descriptor(name, hash));
        files.chain(trees).chain(file_descriptors(&self.local)).collect()
    }
}

/// The name of a hash in a digest set (in-toto Attestation Framework, DigestSet).
fn algorithm(hash: &FileHash) -> &'static str {
    match hash {
        FileHash::Content(digest) => digest.algorithm(),
        FileHash::GoModule(_) | FileHash::GoMod(_) => "dirHash",
    }
}

/// Resource descriptors of files, by name.
pub(super) fn file_descriptors(files: &BTreeMap<String, Digest>) -> Vec<Value> {
    let files = files.iter();
    files
        .map(|(name, digest)| json!({ "name": name, "digest": { "sha256": digest.hex() } }))
        .collect()
}
