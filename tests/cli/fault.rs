//! A panic, in whatever thread: an error with a request to report it, and exit status 2.

use std::time::{Duration, Instant};

use crate::support::Place;

/// Only builds with debug assertions can be told to panic.
#[cfg(debug_assertions)]
#[test]
fn a_panic_in_any_thread_is_an_error_that_asks_to_be_reported() {
    for kind in ["here", "thread", "stuck"] {
        let place = Place::new();
        let started = Instant::now();
        let ran = place.run(&["__fault", kind]).exits(2);
        assert!(started.elapsed() < Duration::from_secs(20), "{kind}");
        assert_eq!(ran.stdout, "");
        let ran = ran.says(&[
            "error: internal error: provoked\\u{1b}[2J\n",
            "src/cli/fault.rs:",
            "help: this is a bug of layerize and not your mistake: please report it",
        ]);
        assert_eq!(
            ran.stderr.matches("internal error").count(),
            1,
            "{kind}: {}",
            ran.stderr
        );
        assert!(!ran.stderr.contains("panicked"), "{kind}: {}", ran.stderr);
        let thread = if kind == "here" { "`main`" } else { "`worker`" };
        assert!(ran.stderr.contains(thread), "{kind}: {}", ran.stderr);
    }
}
