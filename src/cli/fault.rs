//! A *fault* is a panic: a mistake in this program and none of the user's. It ends the command as an error does.
//!
//! Invariant: in whatever thread it happens, the first fault is shown once with a request to report it, and the exit
//! status is 2. What runs has a grace period to clean up after itself; then the process ends with its temporary files
//! removed.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::interrupt;

/// The exit status of trouble.
const STATUS: u8 = 2;

/// The first fault that was not shown yet.
static FIRST: Mutex<FirstError> = Mutex::new(FirstError::None);

enum FirstError {
    None,
    Happened(InternalError),
    Shown,
}

/// Where a panic happened, and what it said.
#[derive(Debug)]
pub struct InternalError {
    message: String,
    place: String,
    thread: String,
    /// Where `RUST_BACKTRACE` asks for it.
    backtrace: Option<Backtrace>,
}

impl InternalError {
    fn of(info: &PanicHookInfo<'_>) -> Self {
        let backtrace = Backtrace::capture();
        let payload = info.payload();
        let message = payload.downcast_ref::<&str>().copied();
        let message = message.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self {
            message: message.unwrap_or("no message").escape_debug().to_string(),
            place: info.location().map(ToString::to_string).unwrap_or_default(),
            thread: std::thread::current().name().unwrap_or("unnamed").to_owned(),
            backtrace: (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace),
        }
    }

    /// What the user can do about it.
    #[expect(clippy::unused_self, reason = "as the errors of all modules have it")]
    pub fn help(&self) -> Option<String> {
        Some(
            "this is a bug of layerize and not your mistake: please report it, with this message and the command \
             that you ran (with `RUST_BACKTRACE=1` set the message says more)"
                .to_owned(),
        )
    }
}

impl fmt::Display for InternalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            message, place, thread, ..
        } = self;
        let version = env!("CARGO_PKG_VERSION");
        write!(
            f,
            "internal error: {message}\n  at {place} in the thread `{thread}`, layerize {version}"
        )?;
        match &self.backtrace {
            Some(backtrace) => write!(f, "\n{backtrace}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for InternalError {}

/// From now on panics are kept for [`catch`] in place of being printed, and the process ends soon after the first.
pub fn watch() {
    set_hook(Box::new(|info| {
        let fault = InternalError::of(info);
        let mut first = first();
        if !matches!(*first, FirstError::None) {
            // What follows from the first says nothing new.
            return;
        }
        *first = FirstError::Happened(fault);
        drop(first);
        crate::sandbox::cancel();
        crate::http::cancel();
        let watchdog = std::thread::Builder::new().spawn(|| {
            std::thread::sleep(interrupt::GRACE);
            if let Some(fault) = take() {
                let help = fault.help().unwrap_or_default();
                let _ = writeln!(io::stderr(), "error: {fault}\nhelp: {help}");
            }
            interrupt::exit_now(STATUS);
        });
        if watchdog.is_err() {
            interrupt::exit_now(STATUS);
        }
    }));
}

/// Does `work`; a fault in it, or meanwhile in another thread, is its error.
pub fn catch<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let result = catch_unwind(AssertUnwindSafe(work));
    match (take(), result) {
        (Some(fault), _) => Err(fault.into()),
        (None, Ok(result)) => result,
        (None, Err(_)) => Err(anyhow::anyhow!("internal error")),
    }
}

/// The fault, if one happened and was not taken before.
fn take() -> Option<InternalError> {
    let mut first = first();
    match std::mem::replace(&mut *first, FirstError::None) {
        FirstError::Happened(fault) => {
            *first = FirstError::Shown;
            Some(fault)
        }
        before => {
            *first = before;
            None
        }
    }
}

fn first() -> MutexGuard<'static, FirstError> {
    FIRST.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Panics as the second argument of `layerize __fault` says, for the test of what becomes of it.
#[cfg(debug_assertions)]
#[expect(clippy::panic, reason = "that is what it is for")]
pub fn provoke(kind: &str) {
    let panicking = |wait: bool| {
        let thread = std::thread::Builder::new().name("worker".to_owned());
        let thread = thread.spawn(|| panic!("provoked\x1b[2J")).expect("a thread starts");
        if wait {
            let _ = thread.join();
        }
    };
    match kind {
        "here" => panic!("provoked\x1b[2J"),
        // Its end is seen by nobody who looks at the result.
        "thread" => panicking(true),
        // Somebody waits for what the thread would have done.
        "stuck" => {
            panicking(false);
            std::thread::sleep(interrupt::GRACE * 20);
        }
        _ => {}
    }
}
