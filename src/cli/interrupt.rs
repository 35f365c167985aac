//! An *interrupt* is a signal that asks us to end: running sandboxes and other programs are ended, then the process ends.
//!
//! Invariant: nothing is left behind: the first signal lets the work fail and clean up after itself, and a
//! second one, or three seconds, ends the process with its temporary files removed.

use std::process::ExitCode;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The signal that came, 0 while none has.
static SIGNAL: AtomicI32 = AtomicI32::new(0);

/// What is waited for: what ends a program unless it listens, and can be sent to it on purpose.
const SIGNALS: [Signal; 6] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// `si_code` of what the kernel sent and no process: the keys of a terminal.
const SI_KERNEL: i32 = 0x80;

/// How long the work has to clean up after itself.
pub const GRACE: Duration = Duration::from_secs(3);

/// How long other programs have.
const CHILD_GRACE: Duration = Duration::from_millis(500);

/// Takes the signals out of the hands of all threads started from now on and waits for them in one of its own.
/// Child processes inherit that: the sandbox takes it back, and for others see [`crate::child`].
pub fn watch() {
    let signals: SigSet = SIGNALS.into_iter().collect();
    if signals.thread_block().is_err() {
        return;
    }
    std::thread::spawn(move || {
        let Some(first) = next_for_us(&signals) else { return };
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

/// Waits for a signal that is for us. What is sent while a program runs in the foreground is for the program; the terminal
/// has sent it to that itself.
fn next_for_us(signals: &SigSet) -> Option<Signal> {
    let waiting = SignalFd::with_flags(signals, SfdFlags::SFD_CLOEXEC).ok()?;
    loop {
        let Ok(told) = waiting.read_signal() else { continue };
        let told = told?;
        let signal = Signal::try_from(i32::try_from(told.ssi_signo).ok()?).ok()?;
        let is_from_terminal = told.ssi_code == SI_KERNEL;
        let is_passed_on = match is_from_terminal {
            true => crate::sandbox::has_foreground(),
            false => crate::sandbox::pass_on(signal),
        };
        if !is_passed_on {
            return Some(signal);
        }
    }
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
