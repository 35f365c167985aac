//! A *part* of a Debian package: the few files of it that an image is to have where it does not have the package.
//!
//! Invariant: a function of the package's tree and of what is asked for; what it holds lies where the package has it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::BuildError;
use crate::derive::Part;
use crate::fsio::{self, IoContext, PathError, copy_file, sorted_names};
use crate::spec::did_you_mean;

/// Where locales are, and the names under which releases of Debian have `C.UTF-8`.
const LOCALES: &str = "usr/lib/locale";
const UTF8: [&str; 2] = ["C.utf8", "C.UTF-8"];

/// Where time zones are.
const ZONES: &str = "usr/share/zoneinfo";

/// The bundle of authorities, which is made when their package is unpacked.
const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";

/// How the file of a time zone begins (RFC 8536, 3.1).
const ZONE_MAGIC: &[u8] = b"TZif";

/// Largest file of a time zone, in bytes. The largest that there is has 4 kB.
const ZONE_MAX: u64 = 1 << 20;

/// Deepest directory below that of the zones: `America/Argentina/Ushuaia`, `posix/America/…`.
const ZONES_DEPTH: usize = 8;

/// Makes the part of a package, whose tree is `tree`, as `dest`, a new directory.
pub(super) fn make(tree: &Path, part: &Part, dest: &Path) -> Result<(), BuildError> {
    match part {
        Part::Utf8Locale => {
            // A release that has none has nothing to give.
            fs::create_dir_all(dest.join(LOCALES)).context("create", dest)?;
            for name in UTF8 {
                let from = tree.join(LOCALES).join(name);
                if from.is_dir() {
                    copy_files(&from, &dest.join(LOCALES).join(name))?;
                }
            }
        }
        Part::Authorities => {
            let to = dest.join(BUNDLE);
            let parent = to.parent().expect("it is below a directory");
            fs::create_dir_all(parent).context("create", parent)?;
            copy_file(&tree.join(BUNDLE), &to)?;
        }
        Part::Zone(zone) => {
            let zones = tree.join(ZONES);
            let from = zones.join(zone);
            if !is_zone(&from)? {
                let mut known = BTreeSet::new();
                list_zones(&zones, "", ZONES_DEPTH, &mut known)?;
                return Err(BuildError::UnknownZone {
                    similar: similar(zone, &known),
                    zone: zone.clone(),
                });
            }
            let to = dest.join(ZONES).join(zone);
            let parent = to.parent().expect("it is below a directory");
            fs::create_dir_all(parent).context("create", parent)?;
            // A former name is a link to the present one, of which the bytes are wanted.
            copy_file(&from.canonicalize().context("follow", &from)?, &to)?;
        }
    }
    Ok(())
}

/// Whether the file of a time zone is at `path`.
fn is_zone(path: &Path) -> Result<bool, PathError> {
    match path.metadata().is_ok_and(|metadata| metadata.is_file()) {
        true => Ok(fsio::read_limited(path, ZONE_MAX)?.starts_with(ZONE_MAGIC)),
        false => Ok(false),
    }
}

fn list_zones(dir: &Path, below: &str, depth: usize, known: &mut BTreeSet<String>) -> Result<(), PathError> {
    if depth == 0 || !dir.is_dir() {
        return Ok(());
    }
    for name in sorted_names(dir)? {
        let Some(name) = name.to_str() else { continue };
        let (place, zone) = (dir.join(name), format!("{below}{name}"));
        if place.is_dir() {
            list_zones(&place, &format!("{zone}/"), depth - 1, known)?;
        } else if is_zone(&place).unwrap_or(false) {
            known.insert(zone);
        }
    }
    Ok(())
}

/// The zone that was meant: one of that city, else one that is written alike.
fn similar(zone: &str, known: &BTreeSet<String>) -> Option<String> {
    let last = |zone: &str| zone.rsplit('/').next().unwrap_or_default().to_lowercase();
    let wanted = last(&zone.replace(' ', "_"));
    let mut of_city = known.iter().filter(|zone| last(zone) == wanted);
    let found = of_city.next().map(String::as_str);
    found
        .or_else(|| did_you_mean(zone, known.iter().map(String::as_str)))
        .map(str::to_owned)
}

/// Copies a tree of plain files and directories.
fn copy_files(from: &Path, to: &Path) -> Result<(), PathError> {
    fs::create_dir_all(to).context("create", to)?;
    for name in sorted_names(from)? {
        let (from, to): (PathBuf, PathBuf) = (from.join(&name), to.join(&name));
        match from.is_dir() {
            true => copy_files(&from, &to)?,
            false => drop(copy_file(&from, &to)?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A tree with these files, by path.
    fn tree(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for path in files {
            let place = dir.path().join(path);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::write(place, format!("TZif2 of {path}")).unwrap();
        }
        dir
    }

    #[test]
    fn a_zone_is_its_file_or_an_error_with_the_one_that_was_meant() {
        let tree = tree(&[
            "usr/share/zoneinfo/Europe/Berlin",
            "usr/share/zoneinfo/America/New_York",
        ]);
        let zones = tree.path().join(ZONES);
        symlink("Europe/Berlin", zones.join("Germany")).unwrap();
        fs::write(zones.join("zone.tab"), "# no zone").unwrap();
        let make = |zone: &str| {
            let dest = tempfile::tempdir().unwrap();
            make(tree.path(), &Part::Zone(zone.to_owned()), dest.path())?;
            Ok::<_, BuildError>(fs::read_to_string(dest.path().join(ZONES).join(zone)).unwrap())
        };
        for zone in ["Europe/Berlin", "Germany"] {
            assert_eq!(make(zone).unwrap(), "TZif2 of usr/share/zoneinfo/Europe/Berlin");
        }
        for (zone, expected) in [
            ("Berlin", Some("Europe/Berlin")),
            ("America/Berlin", Some("Europe/Berlin")),
            ("europe/berlin", Some("Europe/Berlin")),
            ("Europe/Berlim", Some("Europe/Berlin")),
            ("new york", Some("America/New_York")),
            ("zone.tab", None),
            ("Europe", None),
            ("Mars/Olympus", None),
        ] {
            match make(zone).unwrap_err() {
                BuildError::UnknownZone { similar, .. } => assert_eq!(similar.as_deref(), expected, "{zone}"),
                other => panic!("{zone}: {other}"),
            }
        }
    }

    #[test]
    fn a_locale_is_its_directory_under_either_name() {
        for name in UTF8 {
            let path = format!("{LOCALES}/{name}/LC_MESSAGES/SYS_LC_MESSAGES");
            let tree = tree(&[&path, "usr/bin/locale", "usr/lib/locale/de_DE/LC_TIME"]);
            let dest = tempfile::tempdir().unwrap();
            make(tree.path(), &Part::Utf8Locale, dest.path()).unwrap();
            assert!(dest.path().join(path).is_file());
            assert!(!dest.path().join("usr/bin").exists() && !dest.path().join("usr/lib/locale/de_DE").exists());
        }
    }

    #[test]
    fn authorities_are_the_bundle_alone() {
        let tree = tree(&[
            BUNDLE,
            "usr/share/ca-certificates/mozilla/A.crt",
            "usr/sbin/update-ca-certificates",
        ]);
        let dest = tempfile::tempdir().unwrap();
        make(tree.path(), &Part::Authorities, dest.path()).unwrap();
        assert!(dest.path().join(BUNDLE).is_file());
        assert!(!dest.path().join("usr").exists());
        let empty = tempfile::tempdir().unwrap();
        assert!(make(empty.path(), &Part::Authorities, &dest.path().join("x")).is_err());
    }
}
