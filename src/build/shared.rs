//! *Shared builds*: what others have built of the steps of a plan, taken instead of being built here.
//!
//! Invariant: who said what a step makes is somebody whom the user trusts (whoever implements [`SharedBuilds`] sees to
//! that); what a path holds is proved by its name, or else by what they said. What does not fit what is known here, or
//! turns out to be something else, is told and built here instead: sharing can save time and change nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use super::BuildError;
use crate::derive::StepId;
use crate::digest::Digest;
use crate::event::{Event, Reporter};
use crate::execution::Execution;
use crate::graph;
use crate::store::{NewOutput, ReferencePolicy, Store};
use crate::store_path::{PathInfo, StoreDir, StorePath};
use crate::walls::Walls;

/// A step to be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// What the user calls it.
    pub label: String,
    /// Name part of its output's path.
    pub name: String,
    /// Its plan key.
    pub plan_key: Digest,
    /// Hash of its resolved derivation, the build key, where the paths of its inputs are known.
    pub build_key: Option<Digest>,
}

/// What somebody else made of a step, and all that refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Where it is, for messages.
    pub place: String,
    /// Whether somebody whom the user trusts has signed it; else it is taken on nobody's word.
    pub vouched: bool,
    /// What the step made.
    pub output: StorePath,
    /// The output's closure, itself included.
    pub members: BTreeMap<StorePath, OfferedPath>,
}

/// A path of an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferedPath {
    /// What it is.
    pub info: PathInfo,
    /// The plan key of the step that makes it, where one does.
    pub plan_key: Option<Digest>,
    /// What is needed to take it over; `None` where it is made here like any download.
    pub built: Option<BuiltPath>,
}

/// What is known of a path that was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltPath {
    /// The canonical JSON of the resolved derivation that made it, where one did.
    pub derivation: Option<String>,
    /// What it was built behind.
    pub walls: Walls,
    /// How the programs of its script ran.
    pub execution: Execution,
    /// References that were declared rather than found, each with the path through which.
    pub declared: BTreeMap<StorePath, StorePath>,
    /// What its place knows the bytes by that hold it.
    pub blob: Digest,
    /// How many these are.
    pub size: u64,
}

/// Somewhere built steps are kept for others.
pub trait SharedBuilds: Debug + Send + Sync {
    /// What there is of each of these steps, believed; what cannot be read or is not believed is told, and is not there.
    fn look_up(&self, steps: &[Asked], reporter: &dyn Reporter) -> Vec<Option<Offer>>;

    /// Writes the tree of a built path of an offer to `dest`, which is not there yet.
    fn fetch(&self, offer: &Offer, path: &StorePath, dest: &Path) -> Result<(), Box<dyn Error + Send + Sync>>;

    /// Takes note that an offer is not what it says, so that it is written anew by who writes there.
    fn note_damage(&self, offer: &Offer);
}

/// Makes an offer's output valid, with all built paths that it refers to; all others are valid already.
pub(super) fn take(
    store: &Store,
    shared: &Arc<dyn SharedBuilds>,
    offer: &Offer,
    label: &str,
    reporter: &dyn Reporter,
) -> Result<(), BuildError> {
    let members: Vec<&OfferedPath> = offer.members.values().collect();
    let index_of = |path: &StorePath| members.binary_search_by(|member| member.info.path.cmp(path)).ok();
    let references: Vec<Vec<usize>> = (members.iter())
        .map(|member| member.info.references.iter().filter_map(index_of).collect())
        .collect();
    // Components come after those they refer to; paths never refer to each other in a circle.
    for index in graph::components(&references).into_iter().flatten() {
        let member = members[index];
        if let Some(built) = &member.built {
            let taking = Taking {
                store,
                shared,
                offer,
                label,
                reporter,
            };
            taking.member(member, built)?;
        }
    }
    Ok(())
}

/// An offer on its way into the store.
struct Taking<'a> {
    store: &'a Store,
    shared: &'a Arc<dyn SharedBuilds>,
    offer: &'a Offer,
    label: &'a str,
    reporter: &'a dyn Reporter,
}

impl Taking<'_> {
    fn member(&self, member: &OfferedPath, built: &BuiltPath) -> Result<(), BuildError> {
        let path = &member.info.path;
        let derivation = built.derivation.as_ref().map(|json| Digest::of(json.as_bytes()));
        // Two offers may need one path.
        let lock_key = derivation.unwrap_or_else(|| Digest::of(path.to_string().as_bytes()));
        let _lock = self.store.lock_build(&lock_key)?;
        if self.store.info(path)?.is_none() {
            self.fetch(member, built, derivation)?;
        }
        if let (Some(digest), Some(json)) = (&derivation, &built.derivation) {
            let known = self.store.known_output(digest)?.is_some() && !self.store.is_unvouched(digest)?;
            self.store.record_realisation(digest, json, path)?;
            if !self.offer.vouched && !known {
                self.store.note_unvouched(digest, path)?;
            }
        }
        if let Some(plan_key) = &member.plan_key {
            self.store.record_planned(plan_key, path)?;
        }
        Ok(())
    }

    fn fetch(&self, member: &OfferedPath, built: &BuiltPath, derivation: Option<Digest>) -> Result<(), BuildError> {
        let path = &member.info.path;
        let name = match *path == self.offer.output {
            true => self.label.to_owned(),
            false => path.name().to_owned(),
        };
        self.reporter.report(Event::FetchStarted {
            name: name.clone(),
            size: Some(built.size),
        });
        let staging = self.store.stage()?;
        let tree = staging.path().join("tree");
        let fetched = self.shared.fetch(self.offer, path, &tree);
        fetched.map_err(|source| self.failed(source))?;
        let policy = ReferencePolicy::default();
        let via = |reference: &StorePath| built.declared.get(reference).unwrap_or(path).clone();
        let output = NewOutput {
            name: path.name(),
            tree: &tree,
            candidates: &member.info.references,
            declare: &|found| {
                let missing = member.info.references.difference(found);
                missing.map(|reference| (reference.clone(), via(reference))).collect()
            },
            derivation,
            policy: &policy,
            walls: built.walls,
            execution: built.execution,
        };
        self.store
            .add_offered(&output, &member.info)
            .map_err(|error| self.failed(Box::new(error)))?;
        self.reporter.report(Event::FetchFinished {
            name: name.clone(),
            bytes: built.size,
            from: self.offer.place.clone(),
        });
        self.reporter.report(Event::BuildShared {
            name,
            path: StoreDir::layerize().join(path),
            from: self.offer.place.clone(),
        });
        Ok(())
    }

    fn failed(&self, source: Box<dyn Error + Send + Sync>) -> BuildError {
        BuildError::Shared {
            label: self.label.to_owned(),
            place: self.offer.place.clone(),
            source,
        }
    }
}

/// What a plan's steps have to do with what others built.
#[derive(Debug, Default)]
pub(super) struct Sharing {
    /// Steps whose plan key was asked for.
    pub asked: BTreeSet<StepId>,
    /// Steps whose build key was asked for.
    pub asked_resolved: BTreeSet<StepId>,
    /// Steps to be asked for next.
    pub to_ask: Vec<StepId>,
    /// Steps that are being asked for.
    pub asking: BTreeSet<StepId>,
}
