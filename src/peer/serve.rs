//! To *serve* is to do what a peer asks for, on standard input and output.
//!
//! Invariant: whoever asks is believed no more than a stranger; what cannot be done is said, and is the last thing that is.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::sync::{Mutex, PoisonError};

use super::copy::{Judge, check, described};
use super::message::{
    Activation, Answer, BuildOrder, Choice, Failure, Hello, Installed, MAGIC, Member, PATHS_MAX, Request, VERSION,
};
use super::wire::{Incoming, Outgoing, WireError};
use crate::closure;
use crate::escape::shown;
use crate::fsio::with_causes;
use crate::nar;
use crate::store::{Store, StoreError};
use crate::store_path::{StoreDir, StorePath};

/// Bytes of the text of members in one answer, about.
const ANSWER_BYTES: usize = 1 << 20;

/// Runs a script; lines that it prints go to the second argument.
type Build<'a> = dyn Fn(&BuildOrder, &(dyn Fn(&str) + Sync)) -> Result<StorePath, Failure> + 'a;

/// What is served, and by whom.
pub struct Services<'a> {
    /// The store.
    pub store: &'a Store,
    /// This program's version.
    pub program: &'a str,
    /// Whom to believe.
    pub judge: &'a Judge<'a>,
    /// What a name means that is no path.
    pub find: &'a dyn Fn(&str) -> Result<StorePath, Failure>,
    /// Puts packages into the profile.
    pub activate: &'a dyn Fn(&Activation) -> Result<Installed, Failure>,
    /// Runs a script.
    pub build: &'a Build<'a>,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self {
            message: with_causes(&error),
            help: error.help(),
            of_script: false,
            end: None,
        }
    }
}

fn failure(message: impl Into<String>) -> Failure {
    Failure {
        message: message.into(),
        help: None,
        of_script: false,
        end: None,
    }
}

/// Why serving ended before the other side closed.
enum Stopped {
    /// Something could not be done, which is to be said.
    Failed(Failure),
    /// There is nobody to say anything to.
    Gone,
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<StoreError> for Stopped {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.into())
    }
}

fn of_wire(error: WireError) -> Stopped {
    match error {
        WireError::Malformed(reason) => Stopped::Failed(failure(format!("it was sent {reason}"))),
        WireError::Ended(_) => Stopped::Gone,
    }
}

/// Serves until the other side closes, or something cannot be done; gives what that was.
pub fn serve(services: &Services<'_>, from: impl Read, to: impl Write + Send) -> Result<(), Failure> {
    let to = Mutex::new(Outgoing(to));
    let mut server = Server {
        services,
        from: Incoming(from),
        to: &to,
    };
    match server.run() {
        Ok(()) | Err(Stopped::Gone) => Ok(()),
        Err(Stopped::Failed(failure)) => {
            // Whoever does not listen any more is not told.
            let _ = server.say(&Answer::Failed {
                failure: failure.clone(),
            });
            Err(failure)
        }
    }
}

fn say<W: Write>(to: &Mutex<Outgoing<W>>, answer: &Answer) -> Result<(), Stopped> {
    let mut to = to.lock().unwrap_or_else(PoisonError::into_inner);
    to.frame(answer).map_err(|_| Stopped::Gone)
}

struct Server<'a, R, W> {
    services: &'a Services<'a>,
    from: Incoming<R>,
    to: &'a Mutex<Outgoing<W>>,
}

impl<R: Read, W: Write + Send> Server<'_, R, W> {
    fn run(&mut self) -> Result<(), Stopped> {
        let hello = Hello {
            oldest: VERSION,
            newest: VERSION,
            program: self.services.program.to_owned(),
            store_dir: StoreDir::LAYERIZE.to_owned(),
            writable: !self.services.store.is_read_only(),
        };
        let greeted = {
            let mut to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
            to.0.write_all(MAGIC).and_then(|()| to.frame(&hello))
        };
        greeted.map_err(|_| Stopped::Gone)?;
        let Choice { version } = self.from.frame().map_err(of_wire)?;
        if version != VERSION {
            return Err(failure(format!(
                "version {version} of the protocol is not spoken here, but {VERSION} is"
            ))
            .into());
        }
        while let Some(request) = self.from.next().map_err(of_wire)? {
            self.answer(request)?;
        }
        Ok(())
    }

    fn say(&self, answer: &Answer) -> Result<(), Stopped> {
        say(self.to, answer)
    }

    fn answer(&mut self, request: Request) -> Result<(), Stopped> {
        let store = self.services.store;
        match request {
            Request::Missing { paths } if paths.len() > PATHS_MAX => {
                Err(failure(format!("more than {PATHS_MAX} paths are asked for at once")).into())
            }
            Request::Missing { paths } => {
                let mut missing = Vec::new();
                for path in paths {
                    if store.info(&path)?.is_none() {
                        missing.push(path);
                    }
                }
                self.say(&Answer::Missing { paths: missing })
            }
            Request::Closure { names } => self.closure(&names),
            Request::Send { path } => self.send(&path),
            Request::Add { member } => self.add(*member),
            Request::Activate { activation } => {
                let installed = (self.services.activate)(&activation)?;
                self.say(&Answer::Activated { installed })
            }
            Request::Build { order } => {
                let to = self.to;
                let print = |line: &str| {
                    // One that is gone ends the build otherwise.
                    let _ = say(to, &Answer::Printed { line: line.to_owned() });
                };
                let path = (self.services.build)(&order, &print)?;
                self.say(&Answer::Built { path })
            }
        }
    }

    fn closure(&mut self, names: &[String]) -> Result<(), Stopped> {
        let store = self.services.store;
        let root = |name: &String| match StoreDir::layerize().split(name.trim_end_matches('/')) {
            Some((path, "")) => Ok(path),
            Some(_) => Err(failure(format!("`{}` goes on behind a store path", shown(name)))),
            None => (self.services.find)(name),
        };
        let roots: Vec<StorePath> = names.iter().map(root).collect::<Result<_, _>>()?;
        let closure = closure::compute(store, &roots.iter().cloned().collect::<BTreeSet<_>>())?;
        let (mut members, mut bytes) = (Vec::new(), 0);
        for info in closure.topological() {
            let member = Member::of(&described(store, info)?);
            bytes += member.weight();
            members.push(member);
            if bytes > ANSWER_BYTES {
                let members = std::mem::take(&mut members);
                self.say(&Answer::Closure { members, roots: None })?;
                bytes = 0;
            }
        }
        self.say(&Answer::Closure {
            members,
            roots: Some(roots),
        })
    }

    fn send(&mut self, path: &StorePath) -> Result<(), Stopped> {
        let store = self.services.store;
        if store.info(path)?.is_none() {
            return Err(StoreError::NotValid {
                path: path.clone(),
                needed_by: None,
            }
            .into());
        }
        self.say(&Answer::Archive)?;
        let tree = store.physical(path);
        let mut to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = to.archive(|to| nar::write(&tree, to).map(drop));
        drop(to);
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure::from(StoreError::from(error)).into()),
            Err(_) => Err(Stopped::Gone),
        }
    }

    fn add(&mut self, member: Member) -> Result<(), Stopped> {
        let store = self.services.store;
        store.check_writable()?;
        let member = member.copied().map_err(failure)?;
        let path = &member.nar.info.path;
        check(&member, self.services.judge).map_err(|reason| Failure {
            message: format!("`{path}` is not trusted: {reason}"),
            help: Some(
                "name the key that signed it in `[nix] trusted-keys` of the configuration there, or take it on the sender's word \
                 with `--no-check-sigs`"
                    .to_owned(),
            ),
            of_script: false,
            end: None,
        })?;
        let mut archive = self.from.archive();
        let added = store.add_copied(&member, &mut archive);
        match added {
            Err(_) if archive.has_broken => return Err(Stopped::Gone),
            added => drop(added?),
        }
        archive.finish().map_err(of_wire)?;
        self.say(&Answer::Added)
    }
}
