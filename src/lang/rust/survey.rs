//! What a *survey* of a Rust project finds: enough for a first spec.
//!
//! Invariant: nothing here is needed for a build; what cannot be read is left to the build to explain.

use super::cargo_lock::CargoLock;
use super::workspace::CargoWorkspace;
use super::{LOCK, LangError};
use crate::lang::{ProjectSurvey, SourceTree};

/// Crates that link with a library of the system unless one that brings its sources is in the lock file with them, and the
/// Debian packages to link against.
const SYSTEM_LIBRARIES: &[(&str, Option<&str>, &str)] = &[
    ("alsa-sys", None, "libasound2-dev"),
    ("glib-sys", None, "libglib2.0-dev"),
    ("libdbus-sys", None, "libdbus-1-dev"),
    ("libudev-sys", None, "libudev-dev"),
    ("mysqlclient-sys", None, "libmariadb-dev"),
    ("openssl-sys", Some("openssl-src"), "libssl-dev"),
    ("pq-sys", Some("pq-src"), "libpq-dev"),
    ("yeslogic-fontconfig-sys", None, "libfontconfig-dev"),
];

/// Looks at the project in `source`.
pub(in crate::lang) fn survey(source: &SourceTree) -> Result<ProjectSurvey, LangError> {
    let workspace = CargoWorkspace::read(source, "")?;
    let lock = match source.text(LOCK)? {
        Some(text) => Some(CargoLock::parse(&text, LOCK)?),
        None => None,
    };
    let crates = lock.iter().flat_map(|lock| &lock.crates);
    let has = |name: &str| crates.clone().any(|of| of.name == name);
    let wanted = SYSTEM_LIBRARIES.iter();
    let wanted = wanted.filter(|(name, own, _)| has(name) && !own.is_some_and(has));
    Ok(ProjectSurvey {
        programs: workspace.program_names()?,
        libraries: wanted.map(|(_, _, deb)| *deb).collect(),
        compiler: None,
    })
}
