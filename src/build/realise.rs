//! *Realising* a plan: worker threads that take jobs from the schedule until the targets are in the store.
//!
//! Invariant: the result does not depend on the number of threads or on which step ends first. After the first
//! failure nothing new is started; what runs is let run, and every failure is reported.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::mend::report_mended;
use super::schedule::{Job, Schedule};
use super::shared::{self, Asked, Offer};
use super::step::Step;
use super::tools::warn_of_tools;
use super::{BuildError, BuildOptions};
use crate::derive::{Action, BuildPlan, Download, Input, StepId};
use crate::event::{Event, Reporter};
use crate::fetch;
use crate::fsio::with_causes;
use crate::parallel;
use crate::sandbox;
use crate::store::Store;
use crate::store_path::{StoreDir, StorePath};

/// Bytes of stack that a worker has, as many as the main thread: trees may be a thousand directories deep, and some of what
/// walks them calls itself.
const STACK: usize = 8 << 20;

/// What all worker threads share.
struct RealiseWork<'a> {
    store: &'a Store,
    plan: &'a BuildPlan,
    options: &'a BuildOptions,
    reporter: &'a dyn Reporter,
    progress: Mutex<Progress<'a>>,
    changed: Condvar,
}

struct Progress<'a> {
    schedule: Schedule<'a>,
    failures: Vec<BuildError>,
}

/// Lets the others end where one worker panics; otherwise they would wait for what it was doing for ever.
struct WakeOnPanic<'a, 'b>(&'a RealiseWork<'b>);

impl Drop for WakeOnPanic<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().failures.push(BuildError::Cancelled);
            self.0.changed.notify_all();
        }
    }
}

/// Makes everything that `targets` need, in parallel where steps are independent.
///
/// Gives the store path of every target, and of every other step reached that is in the store. Steps made before
/// are looked up, and what only they needed is neither fetched nor made again.
pub fn realise(
    store: &Store,
    plan: &BuildPlan,
    targets: &[Input],
    options: &BuildOptions,
    reporter: &dyn Reporter,
) -> Result<BTreeMap<Input, StorePath>, BuildError> {
    let mut schedule = Schedule::new(store, plan, targets)?;
    if options.shared.is_some() {
        schedule = schedule.shared();
    }
    let wanted = schedule.wanted()?;
    let inputs = wanted.iter().flat_map(|&id| plan.steps[id].inputs());
    check_given(store, inputs.chain(targets))?;
    if options.shared.is_none() {
        // What others built needs no walls.
        options.check_walls(store, plan, &schedule.expected()?, reporter)?;
    }
    // What a build finds done is as much in use as what it does, and stays together with it.
    let found = schedule.valid_paths();
    store.note_use(found.values().chain(targets.iter().filter_map(path_of_given)))?;
    // What is in somebody else's store can be used; what has to be made is told before anything is fetched for it.
    if let (Err(error), Some(&last)) = (store.check_writable(), wanted.last()) {
        return Err(BuildError::Step {
            label: plan.steps[last].label.clone(),
            source: Box::new(error.into()),
        });
    }
    report_reused(store, plan, &schedule, reporter)?;
    let work = RealiseWork {
        store,
        plan,
        options,
        reporter,
        progress: Mutex::new(Progress {
            schedule,
            failures: Vec::new(),
        }),
        changed: Condvar::new(),
    };
    let jobs = match &options.remote {
        Some(remote) => remote.jobs(),
        None => parallel::threads(options.jobs),
    };
    std::thread::scope(|scope| {
        for _ in 1..jobs {
            let thread = std::thread::Builder::new().stack_size(STACK);
            // Where no more threads can be had, those that there are do all the work.
            if thread.spawn_scoped(scope, || work.run()).is_err() {
                break;
            }
        }
        work.run();
    });
    let mut progress = work.progress.into_inner().unwrap_or_else(PoisonError::into_inner);
    report_mended(store, reporter);
    match (progress.failures.pop(), progress.failures.is_empty()) {
        (None, _) => {
            let mut paths = progress.schedule.valid_paths();
            paths.extend(targets.iter().filter_map(given));
            Ok(paths)
        }
        (Some(failure), true) => Err(failure),
        (Some(last), false) => {
            progress.failures.push(last);
            Err(BuildError::Several {
                failures: progress.failures,
            })
        }
    }
}

fn path_of_given(input: &Input) -> Option<&StorePath> {
    match input {
        Input::Path(path) => Some(path),
        Input::Step(_) => None,
    }
}

fn given(input: &Input) -> Option<(Input, StorePath)> {
    path_of_given(input).map(|path| (input.clone(), path.clone()))
}

/// Paths that the plan takes for granted must be there where they are needed.
fn check_given<'a>(store: &Store, inputs: impl Iterator<Item = &'a Input>) -> Result<(), BuildError> {
    for (_, path) in inputs.filter_map(given) {
        if store.info(&path)?.is_none() {
            return Err(BuildError::MissingPath { path });
        }
    }
    Ok(())
}

/// Tells which packages had been built before; unpacked downloads are not worth a line each.
fn report_reused(
    store: &Store,
    plan: &BuildPlan,
    schedule: &Schedule<'_>,
    reporter: &dyn Reporter,
) -> Result<(), BuildError> {
    let paths = schedule.valid_paths();
    for (input, path) in &paths {
        let Input::Step(id) = input else { continue };
        let derivation = &plan.steps[*id];
        if matches!(derivation.action, Action::Script(_)) {
            reporter.report(Event::Reused {
                name: derivation.label.clone(),
                path: StoreDir::layerize().join(path),
            });
            // A tool that it refers to is there with it.
            warn_of_tools(store, derivation, path, |input| paths.get(input), reporter)?;
        }
    }
    Ok(())
}

impl<'a> RealiseWork<'a> {
    fn lock(&self) -> MutexGuard<'_, Progress<'a>> {
        // A thread that panics takes the whole run with it: the scope passes the panic on.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One worker: takes jobs until there are none.
    fn run(&self) {
        let _guard = WakeOnPanic(self);
        while let Some(job) = self.take() {
            // With a builder there are more threads than may work here at once.
            let _seat = self
                .options
                .remote
                .as_ref()
                .filter(|_| !self.is_remote(&job))
                .map(|remote| remote.seat_here());
            if self.is_stopped() {
                self.lock().schedule.failed(&job.steps());
                return;
            }
            match job {
                Job::Ask(questions) => self.ask(&questions),
                Job::Take(id, offer) => self.take_offer(id, &offer),
                Job::Fetch(batch) => self.fetch(&batch),
                Job::Step(id, resolved, paths) => {
                    let progress = self.lock();
                    let (files, plan_key) = (progress.schedule.files(id), *progress.schedule.plan_key(id));
                    drop(progress);
                    let step = Step {
                        store: self.store,
                        plan: self.plan,
                        options: self.options,
                        reporter: self.reporter,
                        id,
                        plan_key,
                        resolved,
                        paths,
                        files,
                    };
                    let result = step.realise();
                    self.settle(&[id], result, |schedule, path| schedule.made(id, path));
                }
            }
        }
    }

    /// Whether a job is done at the builder, if there is one.
    fn is_remote(&self, job: &Job) -> bool {
        matches!(job, Job::Step(id, ..) if matches!(self.plan.steps[*id].action, Action::Script(_)))
    }

    /// Whether nothing new is to be started.
    fn is_stopped(&self) -> bool {
        sandbox::is_cancelled() || !self.lock().failures.is_empty()
    }

    /// The next job; waits while others may still lead to one.
    fn take(&self) -> Option<Job> {
        let mut progress = self.lock();
        loop {
            if !progress.failures.is_empty() || sandbox::is_cancelled() {
                if progress.failures.is_empty() {
                    progress.failures.push(BuildError::Cancelled);
                }
                return None;
            }
            match progress.schedule.next() {
                Ok(Some(job)) => {
                    // There may be another one for somebody who waits.
                    self.changed.notify_one();
                    return Some(job);
                }
                Ok(None) => {}
                Err(error) => {
                    progress.failures.push(error);
                    self.changed.notify_all();
                    return None;
                }
            }
            if !progress.schedule.is_busy() {
                self.changed.notify_all();
                return None;
            }
            progress = self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn fetch(&self, batch: &[StepId]) {
        let downloads: Vec<&Download> = batch.iter().flat_map(|&id| self.plan.steps[id].downloads()).collect();
        let result = fetch::fetch(&downloads, &self.options.fetch, self.reporter).map_err(BuildError::from);
        self.settle(batch, result, |schedule, files: Vec<PathBuf>| {
            schedule.fetched(batch, files);
            Ok(())
        });
    }

    /// Asks others for what they have built.
    fn ask(&self, questions: &[(StepId, Asked)]) {
        let ids: Vec<StepId> = questions.iter().map(|(id, _)| *id).collect();
        let asked: Vec<Asked> = questions.iter().map(|(_, asked)| asked.clone()).collect();
        let offers = match &self.options.shared {
            Some(shared) => shared.look_up(&asked, self.reporter),
            None => vec![None; asked.len()],
        };
        self.settle(&ids, Ok(offers), |schedule, offers| schedule.answered(&ids, offers));
    }

    /// Takes what somebody else has built; what cannot be taken is told, and built here.
    fn take_offer(&self, id: StepId, offer: &Offer) {
        let label = &self.plan.steps[id].label;
        let taken = match &self.options.shared {
            Some(shared) => shared::take(self.store, shared, offer, label, self.reporter).map(|()| true),
            None => Ok(false),
        };
        match taken {
            Ok(true) => {
                let path = offer.output.clone();
                self.settle(&[id], Ok(path), |schedule, path| schedule.made(id, path));
            }
            Err(BuildError::Shared { label, place, source }) => {
                if let Some(shared) = &self.options.shared {
                    shared.note_damage(offer);
                }
                let text = format!(
                    "`{label}` of `{place}` is not taken, and built here instead: {}",
                    with_causes(source.as_ref())
                );
                self.reporter.report(Event::Warning { text });
                self.settle(&[id], Ok(()), |schedule, ()| schedule.refused(id));
            }
            Ok(false) => self.settle(&[id], Ok(()), |schedule, ()| schedule.refused(id)),
            Err(error) => self.settle(&[id], Err(error), |_, ()| Ok(())),
        }
    }

    /// Takes note of how a job ended and wakes those who wait for it.
    fn settle<T>(
        &self,
        steps: &[StepId],
        result: Result<T, BuildError>,
        note: impl FnOnce(&mut Schedule<'a>, T) -> Result<(), BuildError>,
    ) {
        let mut progress = self.lock();
        let result = result.and_then(|value| note(&mut progress.schedule, value));
        if let Err(error) = result {
            progress.schedule.failed(steps);
            // That a builder is gone need not be said of each of hundreds of steps.
            if !error.is_known() || progress.failures.is_empty() {
                progress.failures.push(error);
            }
        }
        drop(progress);
        self.changed.notify_all();
    }
}
