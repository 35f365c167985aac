//! The *schedule*: which steps of a plan have to be carried out, which of them can be now.
//!
//! A step is *known* when its output's path is known, *valid* when that path is in the store. To resolve a step its
//! inputs must be known; to carry it out they must be valid. So a step whose output is valid needs nothing, its
//! inputs may even be gone from the store; and a step whose inputs came out as they were before is found valid
//! again instead of being carried out (early cutoff). What an output refers to must be there with it: where that is gone
//! from the store, the step that makes it is carried out too.
//!
//! Where others keep what they built, a step that would have to be built is asked for there first, by its plan key before
//! anything that it needs is fetched, and by its build key once that is known.
//!
//! Invariant: looking alone (no file is opened) until something has to be made.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::BuildError;
use super::shared::{Asked, Offer, Sharing};
use super::step::Resolved;
use crate::derive::{self, BuildPlan, Input, StepId};
use crate::digest::Digest;
use crate::graph;
use crate::store::{Store, StoreProblem};
use crate::store_path::StorePath;

/// What is known of a step.
#[derive(Debug, Clone)]
enum ScheduleState {
    /// The path of some input is not known.
    Unresolved,
    /// Nothing is known to have been made of it.
    Resolved(Resolved),
    /// Where its output would be, though it is not there.
    Known(Resolved, StorePath),
    /// Somebody else has built it.
    Offered(Box<Accepted>),
    /// Its output is in the store.
    Valid(StorePath),
}

/// An offer that fits what is known here.
#[derive(Debug, Clone)]
struct Accepted {
    offer: Offer,
    /// The steps that make what of its closure is not in it.
    needs: BTreeSet<StepId>,
}

/// What to do next.
pub(super) enum Job {
    /// Ask whether others have built these steps.
    Ask(Vec<(StepId, Asked)>),
    /// Take what somebody else has built of this step.
    Take(StepId, Box<Offer>),
    /// Fetch what these steps need, in one go.
    Fetch(Vec<StepId>),
    /// Carry this step out.
    Step(StepId, Resolved, BTreeMap<Input, StorePath>),
}

impl Job {
    /// The steps that it is about.
    pub(super) fn steps(&self) -> Vec<StepId> {
        match self {
            Self::Ask(asked) => asked.iter().map(|(id, _)| *id).collect(),
            Self::Fetch(ids) => ids.clone(),
            Self::Take(id, _) | Self::Step(id, ..) => vec![*id],
        }
    }
}

/// The steps that some targets need, and how far they are.
pub(super) struct Schedule<'a> {
    store: &'a Store,
    plan: &'a BuildPlan,
    targets: BTreeSet<StepId>,
    /// What each step that the targets may need takes in.
    inputs: BTreeMap<StepId, BTreeSet<&'a Input>>,
    states: BTreeMap<StepId, ScheduleState>,
    running: BTreeSet<StepId>,
    /// Downloaded files of steps; none for steps that need no download.
    files: BTreeMap<StepId, Vec<PathBuf>>,
    fetching: BTreeSet<StepId>,
    /// Paths that are there with all they refer to.
    whole: BTreeSet<StorePath>,
    /// The plan key of every step of the plan.
    plan_keys: Vec<Digest>,
    /// What was asked of others; `None` where there is nobody to ask.
    sharing: Option<Sharing>,
    /// Steps that are carried out unless it turns out, when their inputs are there, that this was done before.
    unresolved: BTreeSet<StepId>,
}

impl<'a> Schedule<'a> {
    /// Looks up everything that `targets` may need.
    pub(super) fn new(store: &'a Store, plan: &'a BuildPlan, targets: &[Input]) -> Result<Self, BuildError> {
        let steps = |input: &Input| match input {
            Input::Step(id) => Some(*id),
            Input::Path(_) => None,
        };
        let targets: BTreeSet<StepId> = targets.iter().filter_map(steps).collect();
        let mut inputs = BTreeMap::new();
        graph::closure(targets.iter().copied(), |&id| {
            let needed = plan.steps[id].inputs();
            let next: Vec<StepId> = needed.iter().filter_map(|input| steps(input)).collect();
            inputs.insert(id, needed);
            next
        });
        let states = inputs.keys().map(|&id| (id, ScheduleState::Unresolved)).collect();
        let mut schedule = Self {
            store,
            plan,
            targets,
            inputs,
            states,
            running: BTreeSet::new(),
            files: BTreeMap::new(),
            fetching: BTreeSet::new(),
            whole: BTreeSet::new(),
            plan_keys: derive::plan_keys(&plan.steps),
            sharing: None,
            unresolved: BTreeSet::new(),
        };
        schedule.resolve()?;
        Ok(schedule)
    }

    /// The same, where others can be asked for what they have built.
    pub(super) fn shared(self) -> Self {
        Self {
            sharing: Some(Sharing::default()),
            ..self
        }
    }

    /// The plan key of a step.
    pub(super) fn plan_key(&self, id: StepId) -> &Digest {
        &self.plan_keys[id]
    }

    /// The next thing to do that nobody does yet; `None`: nothing, or nothing before something else is done.
    pub(super) fn next(&mut self) -> Result<Option<Job>, BuildError> {
        let wanted = self.wanted()?;
        // What is needed depends on the answers.
        if self.sharing.as_ref().is_some_and(|sharing| !sharing.asking.is_empty()) {
            return Ok(None);
        }
        let asked = self.next_questions();
        if !asked.is_empty() {
            return Ok(Some(Job::Ask(asked)));
        }
        let unfetched = |id: &StepId| {
            let is_there = self.files.contains_key(id) || self.fetching.contains(id);
            let is_offered = matches!(self.states[id], ScheduleState::Offered(_));
            !is_there && !is_offered && !self.plan.steps[*id].downloads().is_empty()
        };
        let batch: Vec<StepId> = wanted.iter().copied().filter(unfetched).collect();
        if !batch.is_empty() {
            self.fetching.extend(&batch);
            return Ok(Some(Job::Fetch(batch)));
        }
        let Some(id) = wanted.into_iter().find(|&id| self.is_ready(id)) else {
            return Ok(None);
        };
        let job = match &self.states[&id] {
            ScheduleState::Resolved(resolved) | ScheduleState::Known(resolved, _) => {
                Job::Step(id, resolved.clone(), self.paths_of(id))
            }
            ScheduleState::Offered(accepted) => Job::Take(id, Box::new(accepted.offer.clone())),
            ScheduleState::Unresolved | ScheduleState::Valid(_) => return Ok(None),
        };
        self.running.insert(id);
        Ok(Some(job))
    }

    /// Whether something is being done.
    pub(super) fn is_busy(&self) -> bool {
        let is_asking = self.sharing.as_ref().is_some_and(|sharing| !sharing.asking.is_empty());
        !self.running.is_empty() || !self.fetching.is_empty() || is_asking
    }

    /// The files of a step's downloads.
    pub(super) fn files(&self, id: StepId) -> Vec<PathBuf> {
        self.files.get(&id).cloned().unwrap_or_default()
    }

    /// Takes note of a batch's files, in the order of the steps' downloads.
    pub(super) fn fetched(&mut self, batch: &[StepId], files: Vec<PathBuf>) {
        let mut files = files.into_iter();
        for &id in batch {
            let count = self.plan.steps[id].downloads().len();
            self.files.insert(id, files.by_ref().take(count).collect());
            self.fetching.remove(&id);
        }
    }

    /// Takes note that something could not be done.
    pub(super) fn failed(&mut self, steps: &[StepId]) {
        for id in steps {
            self.running.remove(id);
            self.fetching.remove(id);
            if let Some(sharing) = &mut self.sharing {
                sharing.asking.remove(id);
            }
        }
    }

    /// The steps that would have to be built as far as can be said by now and that nobody was asked for, marked as being
    /// asked for.
    fn next_questions(&mut self) -> Vec<(StepId, Asked)> {
        let Some(sharing) = &mut self.sharing else {
            return Vec::new();
        };
        let mut asked = Vec::new();
        for &id in &sharing.to_ask {
            let build_key = match &self.states[&id] {
                ScheduleState::Resolved(resolved) | ScheduleState::Known(resolved, _) => Some(resolved.digest),
                _ => None,
            };
            let question = Asked {
                label: self.plan.steps[id].label.clone(),
                name: self.plan.steps[id].name.clone(),
                plan_key: self.plan_keys[id],
                build_key,
            };
            sharing.asked.insert(id);
            sharing.asked_resolved.extend(build_key.map(|_| id));
            sharing.asking.insert(id);
            asked.push((id, question));
        }
        sharing.to_ask.clear();
        asked
    }

    /// Takes note of what others have of the steps that were asked for.
    pub(super) fn answered(&mut self, steps: &[StepId], offers: Vec<Option<Offer>>) -> Result<(), BuildError> {
        if let Some(sharing) = &mut self.sharing {
            sharing.asking.retain(|id| !steps.contains(id));
        }
        for (&id, offer) in steps.iter().zip(offers) {
            if let Some(offer) = offer
                && let Some(accepted) = self.accepted(id, offer)?
            {
                self.states.insert(id, ScheduleState::Offered(Box::new(accepted)));
            }
        }
        self.resolve()
    }

    /// An offer with what it needs; `None` where it does not fit what is known here. What it says of downloads is what
    /// they will turn out to be, or else it is not taken.
    fn accepted(&mut self, id: StepId, offer: Offer) -> Result<Option<Accepted>, BuildError> {
        if let ScheduleState::Known(_, path) = &self.states[&id]
            && *path != offer.output
        {
            return Ok(None);
        }
        let makers: BTreeMap<&Digest, StepId> = self.inputs.keys().map(|&id| (&self.plan_keys[id], id)).collect();
        let (mut needs, mut told) = (BTreeSet::new(), Vec::new());
        for (path, member) in &offer.members {
            let maker = member.plan_key.as_ref().and_then(|key| makers.get(key).copied());
            match maker.map(|maker| (maker, &self.states[&maker])) {
                Some((_, ScheduleState::Valid(known))) if known == path => {}
                Some((_, ScheduleState::Valid(_))) => return Ok(None),
                _ if member.built.is_some() => {}
                Some((maker, ScheduleState::Known(_, known))) if known == path => drop(needs.insert(maker)),
                Some((maker, ScheduleState::Resolved(resolved))) => {
                    needs.insert(maker);
                    told.push((maker, ScheduleState::Known(resolved.clone(), path.clone())));
                }
                Some(_) => return Ok(None),
                None if self.store.info(path)?.is_some() => {}
                None => return Ok(None),
            }
        }
        self.states.extend(told);
        Ok(Some(Accepted { offer, needs }))
    }

    /// Takes note that an offer could not be taken: the step is built here.
    pub(super) fn refused(&mut self, id: StepId) -> Result<(), BuildError> {
        self.running.remove(&id);
        self.states.insert(id, ScheduleState::Unresolved);
        if let Some(sharing) = &mut self.sharing {
            sharing.asked_resolved.insert(id);
        }
        // Its users may have been resolved with what it was said to make.
        self.forget_users_of(id);
        self.resolve()
    }

    /// Takes note of a step's output, and looks up what can be looked up now.
    pub(super) fn made(&mut self, id: StepId, path: StorePath) -> Result<(), BuildError> {
        self.running.remove(&id);
        let was = self.states.insert(id, ScheduleState::Valid(path.clone()));
        // Made anew it came out otherwise: what was resolved with the old path has to be resolved anew.
        if let Some(ScheduleState::Known(_, known)) = was
            && known != path
        {
            self.forget_users_of(id);
            self.forget_offers_with(&known);
            if self.store.is_damaged(&known) {
                self.forget_outputs_with(known)?;
            }
        }
        self.resolve()
    }

    /// No step makes `path`: what was offered with it does not fit.
    fn forget_offers_with(&mut self, path: &StorePath) {
        let with = |(id, state): (&StepId, &ScheduleState)| match state {
            ScheduleState::Offered(accepted) if !self.running.contains(id) => {
                accepted.offer.members.contains_key(path).then_some(*id)
            }
            _ => None,
        };
        let offered: Vec<StepId> = self.states.iter().filter_map(with).collect();
        for id in offered {
            self.states.insert(id, ScheduleState::Unresolved);
            self.forget_users_of(id);
        }
    }

    /// Nothing makes `damaged` any more: what refers to it has to be made anew too.
    fn forget_outputs_with(&mut self, damaged: StorePath) -> Result<(), BuildError> {
        let forgotten = self.store.repair(&[StoreProblem::Missing { path: damaged }])?;
        self.whole.retain(|path| !forgotten.contains(path));
        for state in self.states.values_mut() {
            if matches!(state, ScheduleState::Valid(path) if forgotten.contains(path)) {
                *state = ScheduleState::Unresolved;
            }
        }
        Ok(())
    }

    /// The store path of every step that is in the store.
    pub(super) fn valid_paths(&self) -> BTreeMap<Input, StorePath> {
        let valid = self.states.iter().filter_map(|(&id, state)| match state {
            ScheduleState::Valid(path) => Some((Input::Step(id), path.clone())),
            _ => None,
        });
        let given = self.inputs.values().flatten().filter_map(|input| match input {
            Input::Path(path) => Some((Input::Path(path.clone()), path.clone())),
            Input::Step(_) => None,
        });
        given.chain(valid).collect()
    }

    /// The steps whose outputs are known and not in the store, with what these would be.
    pub(super) fn known_paths(self) -> Vec<(StepId, StorePath)> {
        let states = self.states.into_iter();
        states
            .filter_map(|(id, state)| match state {
                ScheduleState::Known(_, path) => Some((id, path)),
                _ => None,
            })
            .collect()
    }

    /// Resolves what can be, in plan order, and looks it up.
    fn resolve(&mut self) -> Result<(), BuildError> {
        let ids: Vec<StepId> = self.inputs.keys().copied().collect();
        for id in ids {
            if !matches!(self.states[&id], ScheduleState::Unresolved) {
                continue;
            }
            let is_resolved = self.inputs[&id].iter().all(|input| self.path_of(input).is_some());
            let state = match is_resolved {
                true => self.look_up(id)?,
                false => self.look_up_planned(id)?,
            };
            self.states.insert(id, state);
        }
        Ok(())
    }

    /// What is known of a step by its plan alone: an output that is in the store, where it was made or taken from others
    /// without what it is made of.
    fn look_up_planned(&self, id: StepId) -> Result<ScheduleState, BuildError> {
        if self.plan.steps[id].is_built()
            && let Some(path) = self.store.known_output(&self.plan_keys[id])?
            && self.store.info(&path)?.is_some()
        {
            return Ok(ScheduleState::Valid(path));
        }
        Ok(ScheduleState::Unresolved)
    }

    fn look_up(&self, id: StepId) -> Result<ScheduleState, BuildError> {
        let derivation = &self.plan.steps[id];
        let resolved = Resolved::new(derivation, &|input| {
            self.path_of(input)
                .cloned()
                .expect("only steps whose inputs are all known are resolved")
        });
        if let Some(path) = derive::fixed_path(derivation) {
            return Ok(match self.store.info(&path)? {
                Some(_) => ScheduleState::Valid(path),
                None => ScheduleState::Known(resolved, path),
            });
        }
        Ok(match self.store.known_output(&resolved.digest)? {
            Some(path) if self.store.info(&path)?.is_some() => ScheduleState::Valid(path),
            Some(path) => ScheduleState::Known(resolved, path),
            None => ScheduleState::Resolved(resolved),
        })
    }

    fn path_of(&self, input: &'a Input) -> Option<&StorePath> {
        match input {
            Input::Path(path) => Some(path),
            Input::Step(id) => match self.states.get(id)? {
                ScheduleState::Valid(path) | ScheduleState::Known(_, path) => Some(path),
                ScheduleState::Offered(accepted) => Some(&accepted.offer.output),
                ScheduleState::Unresolved | ScheduleState::Resolved(_) => None,
            },
        }
    }

    fn paths_of(&self, id: StepId) -> BTreeMap<Input, StorePath> {
        let inputs = self.inputs[&id].iter();
        inputs
            .filter_map(|&input| Some((input.clone(), self.path_of(input)?.clone())))
            .collect()
    }

    /// The steps that have to be carried out as far as can be said by now, in plan order.
    pub(super) fn wanted(&mut self) -> Result<BTreeSet<StepId>, BuildError> {
        let mut wanted = BTreeSet::new();
        let mut needed_valid: BTreeSet<StepId> = self.targets.clone();
        let mut needed_known = BTreeSet::new();
        let mut to_ask = Vec::new();
        self.unresolved.clear();
        // Users come after what they use: each step is reached when all that need it have been.
        let ids: Vec<StepId> = self.inputs.keys().rev().copied().collect();
        for id in ids {
            let (valid, known) = (needed_valid.contains(&id), needed_known.contains(&id));
            if let (true, ScheduleState::Valid(path)) = (valid, &self.states[&id]) {
                needed_valid.extend(self.makers_of_lost(&path.clone())?);
            }
            let steps = self.inputs[&id].iter().filter_map(|input| match input {
                Input::Step(id) => Some(*id),
                Input::Path(_) => None,
            });
            if (valid || known) && self.may_be_asked(id, valid) {
                to_ask.push(id);
                continue;
            }
            match &self.states[&id] {
                ScheduleState::Offered(accepted) if valid => {
                    wanted.insert(id);
                    needed_valid.extend(&accepted.needs);
                }
                ScheduleState::Unresolved if valid || known => {
                    self.unresolved.insert(id);
                    needed_known.extend(steps);
                }
                ScheduleState::Resolved(_) if valid || known => {
                    wanted.insert(id);
                    needed_valid.extend(steps);
                }
                ScheduleState::Known(..) if valid => {
                    wanted.insert(id);
                    needed_valid.extend(steps);
                }
                _ => {}
            }
        }
        if let Some(sharing) = &mut self.sharing {
            sharing.to_ask = to_ask;
        }
        Ok(wanted)
    }

    /// The steps that have to be carried out, with those of which it cannot be said before their inputs are there.
    pub(super) fn expected(&mut self) -> Result<BTreeSet<StepId>, BuildError> {
        let wanted = self.wanted()?;
        Ok(wanted.union(&self.unresolved).copied().collect())
    }

    /// Whether somebody else may have built what would have to be built here; `valid`: what a step makes is needed.
    fn may_be_asked(&self, id: StepId, valid: bool) -> bool {
        let Some(sharing) = &self.sharing else { return false };
        self.plan.steps[id].is_built()
            && !self.running.contains(&id)
            && match &self.states[&id] {
                ScheduleState::Unresolved => !sharing.asked.contains(&id),
                ScheduleState::Resolved(_) => !sharing.asked_resolved.contains(&id),
                ScheduleState::Known(..) => valid && !sharing.asked_resolved.contains(&id),
                ScheduleState::Offered(_) | ScheduleState::Valid(_) => false,
            }
    }

    /// The steps that make what a valid path refers to and what is gone from the store.
    fn makers_of_lost(&mut self, path: &StorePath) -> Result<BTreeSet<StepId>, BuildError> {
        let mut lost = Vec::new();
        let mut reached = graph::try_closure([path.clone()], |path| {
            if self.whole.contains(path) {
                return Ok(BTreeSet::new());
            }
            let info = self.store.info(path)?;
            if info.is_none() {
                lost.push(path.clone());
            }
            Ok::<_, BuildError>(info.map(|info| info.references).unwrap_or_default())
        })?;
        if lost.is_empty() {
            self.whole.append(&mut reached);
        }
        lost.into_iter().map(|path| self.maker_of(path)).collect()
    }

    /// The step that makes a path that is gone, as far as it is known: also of one that was taken from others, whose inputs
    /// are not.
    fn maker_of(&self, path: StorePath) -> Result<StepId, BuildError> {
        for (&id, state) in &self.states {
            let makes_it = match state {
                ScheduleState::Known(_, known) => *known == path,
                ScheduleState::Offered(accepted) => accepted.offer.output == path,
                ScheduleState::Unresolved | ScheduleState::Resolved(_) => {
                    self.plan.steps[id].name == path.name()
                        && self.store.known_output(&self.plan_keys[id])?.as_ref() == Some(&path)
                }
                ScheduleState::Valid(_) => false,
            };
            if makes_it {
                return Ok(id);
            }
        }
        Err(BuildError::Lost { path })
    }

    fn is_ready(&self, id: StepId) -> bool {
        let is_valid = |input: &&Input| match input {
            Input::Path(_) => true,
            Input::Step(id) => {
                matches!(self.states.get(id), Some(ScheduleState::Valid(path)) if self.whole.contains(path))
            }
        };
        if self.running.contains(&id) || self.fetching.contains(&id) {
            return false;
        }
        match &self.states[&id] {
            ScheduleState::Offered(accepted) => accepted.needs.iter().all(|&id| is_valid(&&Input::Step(id))),
            _ => self.inputs[&id].iter().all(is_valid),
        }
    }

    fn forget_users_of(&mut self, id: StepId) {
        let mut changed = BTreeSet::from([id]);
        for (&user, inputs) in &self.inputs {
            let uses = inputs
                .iter()
                .any(|input| matches!(input, Input::Step(id) if changed.contains(id)));
            let is_settled = matches!(self.states[&user], ScheduleState::Valid(_) | ScheduleState::Offered(_))
                || self.running.contains(&user);
            if uses && !is_settled {
                self.states.insert(user, ScheduleState::Unresolved);
                changed.insert(user);
            }
        }
    }
}
