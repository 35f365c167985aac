//! An *interrupt* is SIGINT, SIGTERM or SIGHUP: running sandboxes and other programs are ended, then the process ends.
//!
//! Invariant: nothing is left behind: the first signal lets the work fail and clean up after itself, and a
//! second one, or three seconds, ends the process with its temporary files removed.

use std::process::ExitCode;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};

/// The signal that came, 0 while none has.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// How long the work has to clean up after itself.
pub const GRACE: Duration = Duration::from_secs(3);

/// How long other programs have.
const CHILD_GRACE: Duration = Duration::from_millis(500);

/// Takes the signals out of the hands of all threads started from now on and waits for them in one of its own.
/// Child processes inherit that: the sandbox takes it back, and for others see [`crate::child`].
pub fn watch() {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    if signals.thread_block().is_err() {
        return;
    }
    std::thread::spawn(move || {
        let Ok(first) = signals.wait() else { return };
        SIGNAL.store(first as i32, Ordering::SeqCst);
        crate::sandbox::cancel();
        crate::http::cancel();
        crate::child::end_all();
        std::thread::spawn(|| {
            std::thread::sleep(CHILD_GRACE);
            crate::child::kill_all();
            std::thread::sleep(GRACE - CHILD_GRACE);
            exit_now(status());
        });
        let _ = signals.wait();
        exit_now(status());
    });
}

/// Whether a signal has come.
pub fn requested() -> bool {
    SIGNAL.load(Ordering::SeqCst) != 0
}

/// 128 and the signal's number, as shells have it.
pub fn exit_code() -> ExitCode {
    ExitCode::from(status())
}

fn status() -> u8 {
    u8::try_from(128 + SIGNAL.load(Ordering::SeqCst)).unwrap_or(2)
}

/// Ends the process as it is, but for its temporary files.
pub fn exit_now(status: u8) -> ! {
    crate::child::kill_all();
    crate::fsio::remove_temporaries();
    std::process::exit(i32::from(status));
}
