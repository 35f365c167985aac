//! Upkeep in the *background* of a command: a step while it works and a short one when it is done.
//!
//! Invariant: no command waits for it longer than it is told to, and none fails because of it. A step that is not done by
//! then is ended with the process, as if it were killed, and gone on with by the next.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::{Bounds, How, Upkeep, hold};
use crate::fetch::FetchConfig;
use crate::fsio::{self, FileLock, LockKind, last_use, note_use};
use crate::project::error::ProjectError;
use crate::store::Store;

/// The file in the store's directory whose lock is held by who is at it; its time is that of the last time that all was done.
pub const LOCK: &str = "locks/upkeep";

/// The file whose time is that of the last time that identical files were looked for.
const OPTIMISED: &str = "locks/optimised";

/// How often what was not used for long is looked for where no bounds ask for more.
const EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// How much longer than its patience a command waits for a step to notice that its time is over.
const GRACE: Duration = Duration::from_millis(50);

/// How much kinder than others the thread is to those who want the processor.
const NICE: i32 = 10;

/// What is to be held, and where.
#[derive(Debug, Clone)]
pub struct Orders {
    /// The store's directory.
    pub store_dir: PathBuf,
    /// Where downloads are.
    pub fetch: FetchConfig,
    /// What is to be held.
    pub bounds: Bounds,
    /// Whether identical files are to share their content.
    pub optimise: bool,
}

/// When the thread has to end what it is at; `None`: it has time.
type Deadline = Arc<Mutex<Option<Instant>>>;

/// A thread that does upkeep beside a command.
pub struct Background {
    deadline: Deadline,
    finish: Sender<()>,
    result: Receiver<Option<Result<Upkeep, ProjectError>>>,
}

impl Background {
    /// Begins, where there is a store and something may have to be done.
    pub fn begin(orders: Orders) -> Option<Self> {
        if !orders.store_dir.join("db/db.sqlite").exists() || !(orders.bounds.hold_room() || has_due(&orders)) {
            return None;
        }
        let deadline = Deadline::default();
        let (finish, finishing) = channel();
        let (sender, result) = channel();
        let until = Arc::clone(&deadline);
        std::thread::spawn(move || {
            // Where that is refused it is as kind as others.
            let _ = rustix::process::setpriority_process(None, NICE);
            let go_on = || {
                let deadline = *until.lock().unwrap_or_else(PoisonError::into_inner);
                deadline.is_none_or(|deadline| now() < deadline)
            };
            let first = step(&orders, &go_on);
            // Where the command ended without waiting for it there is nothing to be done.
            if finishing.recv().is_ok() {
                // What the command added counts now.
                let last = match orders.bounds.hold_room() {
                    true => step(&orders, &go_on),
                    false => first,
                };
                let _ = sender.send(last.transpose());
            }
        });
        Some(Self {
            deadline,
            finish,
            result,
        })
    }

    /// Waits for a last step, at most for `patience`; what it did, if it came to its end.
    pub fn finish(self, patience: Duration) -> Option<Result<Upkeep, ProjectError>> {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner) = Some(now() + patience);
        self.finish.send(()).ok()?;
        self.result.recv_timeout(patience + GRACE).ok()?
    }
}

fn now() -> Instant {
    Instant::now()
}

fn has_due(orders: &Orders) -> bool {
    is_due(orders, LOCK) || (orders.optimise && is_due(orders, OPTIMISED))
}

/// Whether what leaves this mark was not done for long.
fn is_due(orders: &Orders, mark: &str) -> bool {
    let last = last_use(&orders.store_dir.join(mark));
    #[expect(clippy::disallowed_methods, reason = "how long ago it was done is told by the clock")]
    let now = SystemTime::now();
    // A time to come is of a clock that was wrong.
    last.is_none_or(|last| now.duration_since(last).is_ok_and(|age| age > EVERY))
}

/// Does what has to be done; nothing where somebody else is at it, or where it belongs to somebody else.
fn step(orders: &Orders, go_on: &dyn Fn() -> bool) -> Result<Option<Upkeep>, ProjectError> {
    let own = Store::open(&orders.store_dir)?;
    let lock_file = orders.store_dir.join(LOCK);
    if own.is_read_only() {
        return Ok(None);
    }
    let Some(_lock) = FileLock::try_acquire(&lock_file, LockKind::Exclusive)? else {
        return Ok(None);
    };
    let mut stores = vec![own];
    if orders.store_dir.join("nix/db").is_dir() {
        stores.push(Store::open_nix(&orders.store_dir)?);
    }
    for store in &stores {
        store.expire_roots(orders.bounds.unused_since)?;
    }
    let how = How {
        dry_run: false,
        ahead: true,
        doomed: &std::collections::BTreeSet::new(),
        go_on,
    };
    let done = hold(&stores, &orders.fetch, &orders.bounds, &how)?;
    if done.is_complete {
        note_use(&lock_file);
    }
    if orders.optimise && is_due(orders, OPTIMISED) {
        for store in &stores {
            store.optimise(go_on)?;
        }
        let mark = orders.store_dir.join(OPTIMISED);
        if go_on() {
            fsio::write_atomic(&mark, b"")?;
            note_use(&mark);
        }
    }
    Ok(Some(done))
}
