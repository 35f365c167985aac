//! *Copying* closures to a peer and from it.
//!
//! Invariant: a path goes after all that it refers to, and only where the other side lacks it. What a peer offers was asked for,
//! or is needed by what was.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::error::PeerError;
use super::line::{PeerLine, Watched, WatchedWriter};
use super::message::{
    Activation, Answer, BuildOrder, CLOSURE_BYTES_MAX, CLOSURE_MAX, Installed, Member, PATHS_MAX, Request,
};
use crate::closure;
use crate::event::{BlobOutcome, Event, Reporter};
use crate::nar;
use crate::store::{Addressing, CopiedPath, NewNar, Store, StoreError, restore_announced};
use crate::store_path::{PathInfo, StoreDir, StorePath};

/// How many paths may be on their way without an answer.
const WINDOW: usize = 32;

/// Whether to believe what is said of a path that its content does not prove; if not, why.
pub type Judge<'a> = dyn Fn(&PathInfo, &BTreeSet<String>) -> Result<(), String> + Sync + 'a;

/// What a copy did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copied {
    /// What was asked for.
    pub roots: Vec<StorePath>,
    /// What was copied, referenced paths first.
    pub copied: Vec<StorePath>,
    /// Bytes of their archives.
    pub bytes: u64,
    /// How many paths of the closure were there before.
    pub there: usize,
}

/// What is said of a valid path to a peer.
pub(super) fn described(store: &Store, info: &PathInfo) -> Result<CopiedPath, StoreError> {
    let details = store.info_full(&info.path)?.ok_or_else(|| StoreError::NotValid {
        path: info.path.clone(),
        needed_by: None,
    })?;
    Ok(CopiedPath {
        nar: NewNar {
            info: details.info,
            addressing: details.addressing,
            attestation: store.attestation(&info.path)?,
        },
        walls: details.provenance.walls,
        execution: details.provenance.execution,
        declared: details
            .provenance
            .declared
            .into_iter()
            .filter(|(path, _)| *path != info.path)
            .collect(),
    })
}

impl PeerLine {
    /// Has everything that `roots` refer to be valid there, too.
    pub fn copy_to(
        &mut self,
        store: &Store,
        roots: &BTreeSet<StorePath>,
        reporter: &dyn Reporter,
    ) -> Result<Copied, PeerError> {
        let closure = closure::compute(store, roots)?;
        let members = closure.topological();
        let missing = self.missing(members.iter().map(|info| &info.path))?;
        let there = members.len() - missing.len();
        let to_send: Vec<&PathInfo> = members
            .into_iter()
            .filter(|info| missing.contains(&info.path))
            .collect();
        if !to_send.is_empty() {
            self.check_writable()?;
        }
        let mut open = 0;
        for info in &to_send {
            self.send(store, info, reporter)?;
            open += 1;
            if open == WINDOW {
                self.added()?;
                open -= 1;
            }
        }
        for _ in 0..open {
            self.added()?;
        }
        Ok(Copied {
            roots: roots.iter().cloned().collect(),
            bytes: to_send.iter().map(|info| info.nar_size).sum(),
            copied: to_send.into_iter().map(|info| info.path.clone()).collect(),
            there,
        })
    }

    /// Which of these paths are not there.
    fn missing<'a>(&mut self, paths: impl Iterator<Item = &'a StorePath>) -> Result<BTreeSet<StorePath>, PeerError> {
        let what = "say what it has";
        let paths: Vec<StorePath> = paths.cloned().collect();
        let mut all = BTreeSet::new();
        for some in paths.chunks(PATHS_MAX) {
            self.ask(&Request::Missing { paths: some.to_vec() }, what)?;
            let Answer::Missing { paths } = self.answer(what)? else {
                return Err(self.wrong("it answers something else than it was asked"));
            };
            let asked: BTreeSet<&StorePath> = some.iter().collect();
            if let Some(other) = paths.iter().find(|path| !asked.contains(path)) {
                return Err(self.wrong(format!("it lacks `{other}`, for which it was not asked")));
            }
            all.extend(paths);
        }
        Ok(all)
    }

    fn added(&mut self) -> Result<(), PeerError> {
        match self.answer("take what is sent")? {
            Answer::Added => Ok(()),
            _ => Err(self.wrong("it answers something else than it was asked")),
        }
    }

    fn send(&mut self, store: &Store, info: &PathInfo, reporter: &dyn Reporter) -> Result<(), PeerError> {
        let what = "take what is sent";
        let member = Box::new(Member::of(&described(store, info)?));
        let (name, peer) = (info.path.name().to_owned(), self.name());
        reporter.report(Event::BlobStarted {
            name: name.clone(),
            size: info.nar_size,
            repository: peer,
        });
        self.ask(&Request::Add { member }, what)?;
        let Some(to) = &mut self.to else {
            return Err(self.lost("while it was to take what is sent"));
        };
        let mut tell = |bytes| {
            let name = name.clone();
            reporter.report(Event::BlobProgress { name, bytes });
        };
        let sent = to.archive(|to| {
            let mut watched = WatchedWriter {
                to,
                at: 0,
                told: 0,
                tell: &mut tell,
            };
            nar::write(&store.physical(&info.path), &mut watched).map(drop)
        });
        match sent {
            Ok(written) => written?,
            Err(_) => return Err(self.refused("while it was to take what is sent")),
        }
        reporter.report(Event::BlobFinished {
            name,
            size: info.nar_size,
            outcome: BlobOutcome::Sent,
        });
        Ok(())
    }

    /// Makes what the peer calls `names`, paths or names of what it keeps, valid here with all that they refer to.
    pub fn copy_from(
        &mut self,
        store: &Store,
        names: &[String],
        judge: &Judge<'_>,
        reporter: &dyn Reporter,
    ) -> Result<Copied, PeerError> {
        let (roots, members) = self.closure(names)?;
        self.check_closure(&roots, &members, store)?;
        let mut wanted = Vec::new();
        for member in &members {
            if store.info(&member.nar.info.path)?.is_none() {
                wanted.push(member);
            }
        }
        let bytes = (wanted.iter()).fold(0_u64, |sum, member| sum.saturating_add(member.nar.info.nar_size));
        store.check_room(bytes)?;
        for member in &wanted {
            check(member, judge).map_err(|reason| PeerError::Untrusted {
                peer: self.name(),
                path: member.nar.info.path.clone(),
                reason,
            })?;
        }
        for member in &wanted {
            self.take(store, member, reporter)?;
        }
        Ok(Copied {
            roots,
            there: members.len() - wanted.len(),
            copied: wanted.into_iter().map(|member| member.nar.info.path.clone()).collect(),
            bytes,
        })
    }

    /// What the peer says of the closure of `names`.
    fn closure(&mut self, names: &[String]) -> Result<(Vec<StorePath>, Vec<CopiedPath>), PeerError> {
        let what = "say what it has";
        let names = names.to_vec();
        self.ask(&Request::Closure { names: names.clone() }, what)?;
        let (mut all, mut bytes) = (Vec::new(), 0);
        let roots = loop {
            let Answer::Closure { members, roots } = self.answer(what)? else {
                return Err(self.wrong("it answers something else than it was asked"));
            };
            for member in members {
                bytes += member.weight();
                all.push(member.copied().map_err(|reason| self.wrong(reason))?);
            }
            if all.len() > CLOSURE_MAX || bytes > CLOSURE_BYTES_MAX {
                return Err(self.wrong(format!(
                    "a closure of more than {CLOSURE_MAX} paths, or of more than {CLOSURE_BYTES_MAX} bytes of what is said of them"
                )));
            }
            if let Some(roots) = roots {
                break roots;
            }
        };
        if roots.len() != names.len() {
            return Err(self.wrong("it gives another number of paths than was asked for"));
        }
        for (name, root) in names.iter().zip(&roots) {
            if let Some((asked, _)) = StoreDir::layerize().split(name)
                && asked != *root
            {
                return Err(self.wrong(format!("it gives `{root}` for `{asked}`")));
            }
        }
        Ok((roots, all))
    }

    /// That it is a closure: what is not needed was not asked for, and what is needed is there before it is.
    fn check_closure(&self, roots: &[StorePath], members: &[CopiedPath], store: &Store) -> Result<(), PeerError> {
        let mut known: BTreeMap<&StorePath, &PathInfo> = BTreeMap::new();
        for CopiedPath { nar, .. } in members {
            let info = &nar.info;
            for reference in &info.references {
                if !known.contains_key(reference) && store.info(reference)?.is_none() {
                    let path = &info.path;
                    return Err(self.wrong(format!("`{path}` refers to `{reference}`, which it does not give")));
                }
            }
            if known.insert(&info.path, info).is_some() {
                return Err(self.wrong(format!("it gives `{}` twice", info.path)));
            }
        }
        let mut needed: BTreeSet<&StorePath> = BTreeSet::new();
        let mut open: Vec<&StorePath> = roots.iter().collect();
        while let Some(path) = open.pop() {
            if needed.insert(path) {
                open.extend(known.get(path).into_iter().flat_map(|info| &info.references));
            }
        }
        if let Some(root) = roots.iter().find(|root| !known.contains_key(root)) {
            return Err(self.wrong(format!("it does not give `{root}`, which was asked for")));
        }
        match known.keys().find(|path| !needed.contains(*path)) {
            Some(other) => Err(self.wrong(format!("it gives `{other}`, for which it was not asked"))),
            None => Ok(()),
        }
    }

    fn take(&mut self, store: &Store, member: &CopiedPath, reporter: &dyn Reporter) -> Result<(), PeerError> {
        let info = &member.nar.info;
        let peer = self.name();
        self.receive(info, reporter, |archive| match store.add_copied(member, archive) {
            Ok(_) => Ok(()),
            Err(source) => Err(PeerError::Refused {
                peer,
                path: info.path.clone(),
                source: Box::new(source),
            }),
        })
    }

    /// Writes the tree of a path to `dest`, which is not there yet.
    pub fn restore(&mut self, info: &PathInfo, dest: &Path, reporter: &dyn Reporter) -> Result<(), PeerError> {
        let peer = self.name();
        self.receive(info, reporter, |archive| match restore_announced(info, archive, dest) {
            Ok(()) => Ok(()),
            Err(source) => Err(PeerError::Refused {
                peer,
                path: info.path.clone(),
                source: Box::new(source),
            }),
        })
    }

    fn receive(
        &mut self,
        info: &PathInfo,
        reporter: &dyn Reporter,
        take: impl FnOnce(&mut dyn std::io::Read) -> Result<(), PeerError>,
    ) -> Result<(), PeerError> {
        let what = "send what it has";
        self.ask(
            &Request::Send {
                path: info.path.clone(),
            },
            what,
        )?;
        let Answer::Archive = self.answer(what)? else {
            return Err(self.wrong("it answers something else than it was asked"));
        };
        let name = info.path.name().to_owned();
        reporter.report(Event::FetchStarted {
            name: name.clone(),
            size: Some(info.nar_size),
        });
        let mut tell = |bytes| {
            let name = name.clone();
            reporter.report(Event::FetchProgress { name, bytes });
        };
        let mut watched = Watched {
            from: self.from.archive(),
            at: 0,
            told: 0,
            tell: &mut tell,
        };
        let taken = take(&mut watched);
        // Where the wire broke in the middle, that is why.
        let has_broken = watched.from.has_broken;
        match taken {
            Err(_) if has_broken => return Err(self.lost(&format!("while it was to send `{name}`"))),
            taken => taken?,
        }
        let finished = watched.from.finish();
        finished.map_err(|error| self.broken(error, "while it was to send what it has"))?;
        reporter.report(Event::FetchFinished {
            name,
            bytes: info.nar_size,
            from: self.name(),
        });
        Ok(())
    }

    /// Puts packages that are there into the profile there.
    pub fn activate(&mut self, activation: Activation) -> Result<Installed, PeerError> {
        let what = "put it into the profile";
        self.check_writable()?;
        self.ask(&Request::Activate { activation }, what)?;
        match self.answer(what)? {
            Answer::Activated { installed } => Ok(installed),
            _ => Err(self.wrong("it answers something else than it was asked")),
        }
    }

    /// Runs a script all of whose inputs are there; what it prints goes to `print` line by line. Gives what is said of what it
    /// made.
    pub fn build(&mut self, order: BuildOrder, print: &mut dyn FnMut(&str)) -> Result<CopiedPath, PeerError> {
        let what = "build it";
        self.check_writable()?;
        self.ask(&Request::Build { order }, what)?;
        let path = loop {
            match self.answer(what)? {
                Answer::Printed { line } => print(&line),
                Answer::Built { path } => break path,
                _ => return Err(self.wrong("it answers something else than it was asked")),
            }
        };
        let (_, members) = self.closure(&[StoreDir::layerize().join(&path)])?;
        let made = members.into_iter().find(|member| member.nar.info.path == path);
        made.ok_or_else(|| self.wrong(format!("it does not know `{path}`, which it built")))
    }
}

/// Whether to take a path: its content proves it, which is seen when it comes, or somebody vouches for it.
pub(super) fn check(member: &CopiedPath, judge: &Judge<'_>) -> Result<(), String> {
    match member.nar.addressing {
        Addressing::Tree(_) | Addressing::File(_) => Ok(()),
        Addressing::Derivation => judge(&member.nar.info, &member.nar.attestation.signatures),
    }
}
