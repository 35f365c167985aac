//! Which Debian package has what an image lacks.
//!
//! Invariant: no package is named that the lock does not have, but for those that every release of Debian has
//! (which `image` names by itself).

use crate::image::{ImageError, Lack};
use crate::spec::Lock;

use super::error::ProjectError;
use super::work::Work;

/// Directories of a package's tree in which programs and libraries are.
const DIRS: &[&str] = &[
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib",
    "usr/lib64",
    "usr/bin",
    "usr/sbin",
];

/// The error with the packages named that bring what is missing.
pub(super) fn name_packages(mut error: ProjectError, work: &Work) -> ProjectError {
    let source = match &mut error {
        ProjectError::Image(source) => source,
        ProjectError::Making { source, .. } => source.as_mut(),
        _ => return error,
    };
    if let (ImageError::CannotLoad { faults }, Some(project)) = (source, &work.project) {
        for fault in faults.iter_mut().filter(|fault| fault.package.is_none()) {
            fault.package = fault
                .lack
                .name()
                .and_then(|name| unpacked(name, work).or_else(|| named_by_policy(&fault.lack, &project.lock)));
        }
    }
    error
}

/// The package among those in the store that has a file of this name.
fn unpacked(name: &str, work: &Work) -> Option<String> {
    let name = name.rsplit('/').next()?;
    let mut packages = work.plan.debs.iter();
    let found = packages.find(|(_, input)| {
        let tree = work.paths.get(input).map(|path| work.store.physical(path));
        tree.is_some_and(|tree| {
            DIRS.iter()
                .any(|dir| tree.join(dir).join(name).symlink_metadata().is_ok())
        })
    });
    found.map(|(package, _)| package.clone())
}

/// The package of the lock that Debian's policy (8.1) calls after a library: `libfoo.so.1` is in `libfoo1`, and in
/// `libfoo2-1` where the name ends in a digit.
fn named_by_policy(lack: &Lack, lock: &Lock) -> Option<String> {
    let Lack::Library { name, .. } = lack else { return None };
    let (stem, version) = name.split_once(".so.")?;
    let stem = stem.to_ascii_lowercase().replace('_', "-");
    let dash = if stem.ends_with(|last: char| last.is_ascii_digit()) {
        "-"
    } else {
        ""
    };
    let package = format!("{stem}{dash}{version}");
    let names = [format!("{package}t64"), package];
    names.into_iter().find(|name| lock.debs.contains_key(name))
}
