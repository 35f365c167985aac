//! Which Debian package has what an image lacks.
//!
//! Invariant: no package is named that the lock does not have, but for those that every release of Debian has
//! (which `image` names by itself).

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::derive::LeftOut;
use crate::image::{ImageError, Lack, LoadFault};
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
    let (source, image) = match &mut error {
        ProjectError::Image(source) => (source, None),
        ProjectError::Making { source, image } => (source.as_mut(), work.plan.images.get(image.as_str())),
        _ => return error,
    };
    if let (ImageError::CannotLoad { faults }, Some(project)) = (source, &work.project) {
        let debs = work.plan.debs.iter();
        let trees = debs.filter_map(|(package, input)| Some((&**package, work.store.physical(work.paths.get(input)?))));
        name_each(faults, &trees.collect::<Vec<_>>(), &project.lock);
        if let Some(image) = image {
            tell_of_exclusions(faults, &image.left_out);
        }
    }
    error
}

/// Says in each fault what the image leaves out that may be to blame.
fn tell_of_exclusions(faults: &mut [LoadFault], left_out: &BTreeMap<String, LeftOut>) {
    for fault in faults {
        fault.left_out = match &fault.package {
            Some(package) => left_out.keys().filter(|name| *name == package).cloned().collect(),
            None => left_out.keys().cloned().collect(),
        };
    }
}

/// Names the package in each fault that names none: `trees` are those of packages, `lock` knows of more.
fn name_each(faults: &mut [LoadFault], trees: &[(&str, PathBuf)], lock: &Lock) {
    for fault in faults.iter_mut().filter(|fault| fault.package.is_none()) {
        let name = fault.lack.name();
        fault.package = name.and_then(|name| unpacked(name, trees).or_else(|| named_by_policy(&fault.lack, lock)));
    }
}

/// The package among those in the store that has a file of this name.
fn unpacked(name: &str, trees: &[(&str, PathBuf)]) -> Option<String> {
    let name = name.rsplit('/').next()?;
    let has = |tree: &PathBuf| {
        let mut places = DIRS.iter().map(|dir| tree.join(dir).join(name));
        places.any(|place| place.symlink_metadata().is_ok())
    };
    let found = trees.iter().find(|(_, tree)| has(tree));
    found.map(|(package, _)| (*package).to_owned())
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::image::Owner;
    use crate::spec::LockedDeb;

    fn library(name: &str) -> Lack {
        Lack::Library {
            name: name.to_owned(),
            needed_by: None,
            searched: Vec::new(),
            elsewhere: None,
            for_library: false,
        }
    }

    /// The package that is named for a lack, where the store has these trees and the lock these packages.
    fn named(lack: Lack, trees: &[(&str, PathBuf)], locked: &[&str]) -> Option<String> {
        let deb = LockedDeb {
            archive: None,
            version: "1".to_owned(),
            architecture: "amd64".to_owned(),
            filename: "pool/x.deb".to_owned(),
            size: 1,
            sha256: crate::digest::Digest::of(b""),
            depends: Vec::new(),
            source: (String::new(), String::new()),
        };
        let lock = Lock {
            debs: locked.iter().map(|name| ((*name).to_owned(), deb.clone())).collect(),
            ..Lock::default()
        };
        let mut faults = [LoadFault {
            file: "/bin/app".to_owned(),
            owner: Owner::Root,
            lack,
            dangling: None,
            package: None,
            left_out: Vec::new(),
        }];
        name_each(&mut faults, trees, &lock);
        let [fault] = faults;
        fault.package
    }

    /// Debian's policy, 8.1, and the packages of the transition to 64-bit times, which end in `t64`.
    #[test]
    fn a_library_s_package_is_called_after_it() {
        for (name, locked, expected) in [
            ("libfoo.so.1", &["libfoo1"][..], Some("libfoo1")),
            ("libfoo.so.1", &["libfoo1", "libfoo1t64"], Some("libfoo1t64")),
            ("libpng16.so.16", &["libpng16-16"], Some("libpng16-16")),
            ("libpng16.so.16", &["libpng1616"], None),
            ("libFoo_bar.so.2", &["libfoo-bar2"], Some("libfoo-bar2")),
            ("libssl.so.1.1", &["libssl1.1"], Some("libssl1.1")),
            ("libfoo.so", &["libfoo"], None),
            ("libfoo.so.1", &[], None),
            ("libfoo.so.1", &["libfoo2", "foo1"], None),
        ] {
            assert_eq!(
                named(library(name), &[], locked).as_deref(),
                expected,
                "{name} {locked:?}"
            );
        }
        // Only libraries are named so.
        assert_eq!(named(Lack::Command("foo.so.1".to_owned()), &[], &["foo1"]), None);
    }

    #[test]
    fn a_package_in_the_store_that_has_the_file_is_named_first() {
        let dir = tempfile::tempdir().unwrap();
        let trees = ["first", "second"].map(|name| (name, dir.path().join(name)));
        for place in [
            "first/usr/bin",
            "second/usr/bin",
            "second/usr/lib/x86_64-linux-gnu",
            "second/usr/share",
        ] {
            fs::create_dir_all(dir.path().join(place)).unwrap();
        }
        for file in [
            "first/usr/bin/python3",
            "second/usr/bin/python3",
            "second/usr/share/libdata.so.1",
        ] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        // Libraries are links to files of longer names; where they lead does not matter.
        let link = dir.path().join("second/usr/lib/x86_64-linux-gnu/libfoo.so.1");
        symlink("libfoo.so.1.2.3", link).unwrap();
        for (lack, expected) in [
            (library("libfoo.so.1"), Some("second")),
            (library("libdata.so.1"), None),
            (Lack::Command("python3".to_owned()), Some("first")),
            (Lack::Interpreter("/opt/own/bin/python3".to_owned()), Some("first")),
            (Lack::Interpreter("/usr/bin/ruby".to_owned()), None),
            (
                Lack::Malformed {
                    reason: "why".to_owned(),
                    help: "what".to_owned(),
                },
                None,
            ),
        ] {
            let text = format!("{lack:?}");
            assert_eq!(named(lack, &trees, &["libfoo1"]).as_deref(), expected, "{text}");
        }
    }
}
