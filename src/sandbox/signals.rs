//! *Signals* for the program in the foreground: what is sent to us is meant for what we run.
//!
//! Invariant: a signal reaches the program itself and nobody beside it. What the terminal sends goes to all of its foreground,
//! the program among them, and is not passed on a second time.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

use crate::fsio::{IoContext, PathError};

/// Where signals for the program go.
enum Way {
    /// It is this process.
    Process(Pid),
    /// Its process 1 reads their numbers.
    Pipe(File),
}

static WAY: Mutex<Option<Way>> = Mutex::new(None);

/// Passes a signal on to the program in the foreground; `false` where there is none.
pub fn pass_on(signal: Signal) -> bool {
    let mut way = WAY.lock().unwrap_or_else(PoisonError::into_inner);
    match way.as_mut() {
        None => return false,
        // Either may have ended meanwhile, and then nobody needs the signal.
        Some(Way::Process(pid)) => drop(kill(*pid, signal)),
        Some(Way::Pipe(pipe)) => drop(pipe.write_all(&[signal as u8])),
    }
    true
}

/// Whether there is a program in the foreground.
pub fn has_foreground() -> bool {
    WAY.lock().unwrap_or_else(PoisonError::into_inner).is_some()
}

/// While it lives there is a program in the foreground.
pub(super) struct Foreground(());

impl Foreground {
    fn new(way: Way) -> Self {
        *WAY.lock().unwrap_or_else(PoisonError::into_inner) = Some(way);
        Self(())
    }

    pub(super) fn of_process(pid: u32) -> Self {
        Self::new(Way::Process(Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX))))
    }

    pub(super) fn of_pipe(path: &Path) -> Result<Self, PathError> {
        // For reading too: whoever opens it for writing alone waits for a reader.
        let pipe = File::options().read(true).write(true).open(path);
        Ok(Self::new(Way::Pipe(pipe.context("open", path)?)))
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        *WAY.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Makes the pipe in which signals are passed on.
pub(super) fn make_pipe(path: &Path) -> Result<PathBuf, PathError> {
    mkfifo(path, Mode::from_bits_truncate(0o600)).context("create the pipe", path)?;
    Ok(path.to_owned())
}
