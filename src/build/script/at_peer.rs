//! A script *at a peer*: layerize on another machine runs it, over the same inputs, and gives what it made.
//!
//! Invariant: what comes back is judged as what a script left here: canonicalised, searched, and the path that its content gives;
//! only of an output that had to be built at its own path the peer is believed what that is.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::{Remade, ScriptStep};
use crate::build::error::{Reason, ScriptFailure};
use crate::build::log::BuildLog;
use crate::build::runner::FailedCommand;
use crate::build::{BuildError, RemoteBuilds};
use crate::derive::{self, Input};
use crate::event::{Event, Silent};
use crate::execution::Execution;
use crate::peer::{BuildOrder, PeerBuilder, PeerError, PeerLine, ScriptEnd};
use crate::store::{CopiedPath, NewOutput};
use crate::store_path::{StoreDir, StorePath};

impl ScriptStep<'_> {
    /// Runs the script at a peer, if that is where scripts run; `None`: it is to run elsewhere.
    pub(super) fn run_at_peer(&self) -> Result<Option<StorePath>, BuildError> {
        let remote = self.options.remote.as_deref().filter(|_| self.variations.is_empty());
        let Some((remote, peer)) = remote.and_then(|remote| Some((remote, remote.peer()?))) else {
            return Ok(None);
        };
        match self.build_at(peer) {
            Ok(path) => Ok(Some(path)),
            Err(BuildError::Peer { label, source }) if self.falls_back(remote, &label, &source) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn falls_back(&self, remote: &RemoteBuilds, label: &str, error: &PeerError) -> bool {
        error.is_peers() && remote.goes_on_here(label, error, error.is_known(), self.reporter)
    }

    fn build_at(&self, peer: &PeerBuilder) -> Result<StorePath, BuildError> {
        self.order(peer, &|line, made| self.take_from_peer(line, made))
    }

    /// Runs the script at a peer and registers nothing: what it made there, and how its programs ran.
    pub(in crate::build) fn run_again_at(&self, peer: &PeerBuilder) -> Result<(Remade, Execution), BuildError> {
        self.order(peer, &|line, made| self.look_at(line, made))
    }

    /// Has a peer run the script; what it made is for `take`.
    fn order<T>(&self, peer: &PeerBuilder, take: &Take<'_, T>) -> Result<T, BuildError> {
        let label = &self.derivation.label;
        let failed = |source| match source {
            PeerError::Cancelled => BuildError::Cancelled,
            source => BuildError::Peer {
                label: label.clone(),
                source: Box::new(source),
            },
        };
        let path_of = |input: &Input| self.paths[input].clone();
        let order = BuildOrder {
            label: label.clone(),
            derivation: derive::resolved_json(self.derivation, &path_of),
            timeout_seconds: self.script.timeout_seconds,
            cache_dirs: self.script.cache_dirs.clone(),
            cores: self.options.cores,
            require: self.options.walls.least().map(|walls| walls.name().to_owned()),
        };
        let mut log = BuildLog::create(self.log_path())?;
        let mut tell = |line: &str| {
            self.reporter.report(Event::BuildOutput {
                name: label.clone(),
                line: line.to_owned(),
            });
        };
        let inputs: BTreeSet<StorePath> = self.paths.values().cloned().collect();
        let waiting = || {
            let text = format!("waiting for {} to answer", peer.name());
            self.reporter.report(Event::Note { text });
        };
        let built = peer.with(waiting, |line| {
            let copied = line.copy_to(self.store, &inputs, &Silent)?;
            if !copied.copied.is_empty() {
                let (count, megabytes) = (copied.copied.len(), copied.bytes.div_ceil(1_000_000));
                self.reporter.report(Event::Note {
                    text: format!(
                        "{count} store paths ({megabytes} MB) copied to {} for `{label}`",
                        peer.name()
                    ),
                });
            }
            self.reporter.report(Event::BuildStarted {
                name: label.clone(),
                at: Some(peer.name()),
            });
            let made = line.build(order, &mut |text| log.take(format!("{text}\n").as_bytes(), &mut tell))?;
            Ok((take(line, &made), made))
        });
        let log_path = log.path().to_owned();
        let tail = log.finish(&mut tell)?;
        match built {
            Ok((taken, made)) => taken.map_err(|error| match error {
                Refused::Peer(source) => failed(*source),
                Refused::Build(BuildError::Store(source)) => failed(PeerError::Refused {
                    peer: peer.name(),
                    path: made.nar.info.path,
                    source: Box::new(source),
                }),
                Refused::Build(error) => error,
            }),
            Err(PeerError::Said { failure, .. }) if failure.end.is_some() => {
                Err(self.failed_at_peer(failure.end.unwrap_or_default(), tail, log_path))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// A script that ran at a peer and did not end well, as if it had run here.
    fn failed_at_peer(&self, end: ScriptEnd, tail: Vec<String>, log: PathBuf) -> BuildError {
        let ScriptEnd {
            status,
            signal,
            command,
            line,
        } = end;
        BuildError::Script(Box::new(ScriptFailure {
            label: self.derivation.label.clone(),
            reason: match signal {
                Some(signal) => Reason::Signal(signal),
                None => Reason::Status(status),
            },
            command: command.map(|text| FailedCommand { text, line }),
            had_cache: false,
            bounds: self.options.bounds,
            tail,
            log,
            kept: None,
        }))
    }

    /// What a peer made, put aside.
    fn look_at(&self, line: &mut PeerLine, made: &CopiedPath) -> Result<(Remade, Execution), Refused> {
        let info = &made.nar.info;
        let staging = self.store.stage().map_err(BuildError::from)?;
        let tree = staging.path().join("tree");
        self.store.check_room(info.nar_size).map_err(BuildError::from)?;
        let restored = line.restore(info, &tree, &Silent);
        restored.map_err(|error| Refused::Peer(Box::new(error)))?;
        let remade = Remade::new(tree, (info.nar_hash, info.nar_size), staging);
        Ok((remade, made.execution))
    }

    /// Takes what a peer made.
    fn take_from_peer(&self, line: &mut PeerLine, made: &CopiedPath) -> Result<StorePath, Refused> {
        let info = &made.nar.info;
        let wrong = |reason: String| {
            Refused::Peer(Box::new(PeerError::Wrong {
                peer: line.name(),
                reason,
            }))
        };
        if info.path.name() != self.derivation.name {
            let (path, name) = (&info.path, &self.derivation.name);
            return Err(wrong(format!("it built `{path}`, which is not called `{name}`")));
        }
        if let Some(least) = self.options.walls.least().filter(|&least| made.walls < least) {
            let walls = made.walls;
            return Err(wrong(format!("it built behind `{walls}`, and `{least}` is required")));
        }
        let visible = self.visible()?;
        if let Some(other) = info.references.iter().find(|path| !self.may_refer(path, &visible)) {
            return Err(wrong(format!(
                "what it built refers to `{other}`, which it was not given"
            )));
        }
        if self.store.info(&info.path).map_err(BuildError::from)?.is_some() {
            return Ok(info.path.clone());
        }
        let staging = self.store.stage().map_err(BuildError::from)?;
        let tree = staging.path().join("tree");
        self.store.check_room(info.nar_size).map_err(BuildError::from)?;
        let restored = line.restore(info, &tree, &Silent);
        restored.map_err(|error| Refused::Peer(Box::new(error)))?;
        let policy = self.policy(&visible)?;
        let declare = |found: &BTreeSet<StorePath>| self.declare(found);
        let output = NewOutput {
            name: &self.derivation.name,
            tree: &tree,
            candidates: &visible,
            declare: &declare,
            derivation: Some(self.digest),
            policy: &policy,
            walls: made.walls,
            execution: made.execution,
        };
        let added = self.store.add_offered(&output, info);
        let added = added.map_err(|error| Refused::Build(self.explain(error)))?;
        let path = StoreDir::layerize().join(&added.path);
        let from = line.name();
        let text = format!("{path} from {from}");
        self.reporter.report(Event::Note { text });
        Ok(added.path)
    }

    /// Whether an output may refer to a path: it was seen by the script, or is declared by something that was.
    fn may_refer(&self, path: &StorePath, visible: &BTreeSet<StorePath>) -> bool {
        visible.contains(path) || self.declare(visible).iter().any(|(declared, _)| declared == path)
    }
}

/// What is done with what a peer made.
type Take<'a, T> = dyn Fn(&mut PeerLine, &CopiedPath) -> Result<T, Refused> + 'a;

/// Why what a peer made is not taken.
enum Refused {
    Peer(Box<PeerError>),
    Build(BuildError),
}

impl From<BuildError> for Refused {
    fn from(error: BuildError) -> Self {
        Self::Build(error)
    }
}
