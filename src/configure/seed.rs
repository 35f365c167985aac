//! The *seed*: the topmost of the layers that maintainer scripts find, which makes the packages' trees look as if the package
//! manager had just unpacked them.
//!
//! Invariant: a function of the packages and of what the tools left. It has the links of a merged `/usr`, mount points, the
//! package manager's database with each package unpacked and none configured, and configuration files under the names
//! that they have until then. Nothing of it gets into an image.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev, mknodat};

use super::diversions::Diversions;
use super::package::Package;
use super::record::TREE;
use super::{ConfigureError, Tools};
use crate::fsio::{self, IoContext, copy_file};
use crate::root::MERGED_DIRS;
use crate::sandbox::OWNER_ATTRIBUTE;
use crate::sandbox::tree::Tree;

/// The package manager's directory.
const DPKG: &str = "var/lib/dpkg";

/// Its list of files that stand elsewhere.
const DIVERSIONS: &str = "var/lib/dpkg/diversions";

/// Its list of modes and owners that were chosen.
const STATOVERRIDE: &str = "var/lib/dpkg/statoverride";

/// Directories on which the sandbox mounts something, and those that the package manager's scripts take for granted.
const DIRECTORIES: [&str; 10] = [
    "dev",
    "proc",
    "sys",
    "tmp",
    "run",
    "var/lib/dpkg/info",
    "var/lib/dpkg/updates",
    "var/lib/dpkg/triggers",
    "var/lib/dpkg/alternatives",
    "var/lib/dpkg/tmp.ci",
];

/// Files that keep scripts from doing what makes no sense here: starting services, waiting a second in a chroot.
const PROGRAMS: [(&str, &str); 2] = [
    ("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n"),
    ("usr/bin/ischroot", "#!/bin/sh\nexit 0\n"),
];

const FILES: [(&str, &str); 3] = [
    ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("etc/hostname", "localhost\n"),
    ("var/lib/dpkg/available", ""),
];

/// Largest status file that is read, in bytes.
const STATUS_MAX: u64 = 256 << 20;

/// Makes the seed for `packages` in `dir`, which must not exist.
pub(super) fn make(
    dir: PathBuf,
    packages: &[&Package],
    tools: Option<&Tools>,
    skipped: &BTreeMap<String, String>,
) -> Result<Tree, ConfigureError> {
    let seed = Tree::create(dir)?;
    for name in DIRECTORIES {
        seed.directory(name)?;
    }
    let all = || {
        packages
            .iter()
            .copied()
            .chain(tools.iter().flat_map(|tools| &tools.packages))
    };
    for name in MERGED_DIRS {
        if all().any(|package| package.tree.join("usr").join(name).is_dir()) {
            seed.link(name, &format!("usr/{name}"))?;
        }
    }
    for (path, text) in PROGRAMS {
        seed.file(path, text, 0o755)?;
    }
    for (path, text) in FILES {
        seed.file(path, text, 0o644)?;
    }
    if let Some(tools) = tools {
        restore_attributes(&seed, tools)?;
    }
    let diversions = Diversions::of(all());
    write_database(&seed, packages, tools, skipped)?;
    write_diversions(&seed, &diversions, tools)?;
    for package in packages.iter().filter(|package| !skipped.contains_key(&package.name)) {
        set_conffiles_aside(&seed, package, &diversions)?;
    }
    diversions.lay_out(&seed, &all().collect::<Vec<_>>())?;
    Ok(seed)
}

/// Gives what the tools' scripts made its modes and owners again: a store path has neither.
fn restore_attributes(seed: &Tree, tools: &Tools) -> Result<(), ConfigureError> {
    for (path, entry) in &tools.record.entries {
        let source = tools.output.join(TREE).join(path);
        let Ok(metadata) = fs::symlink_metadata(&source) else {
            continue;
        };
        let usual = super::harvest::usual_mode(&metadata);
        if metadata.is_symlink() || (entry.mode == usual && (entry.uid, entry.gid) == (0, 0)) {
            continue;
        }
        let place = match metadata.is_dir() {
            true => seed.directory(path)?,
            false => {
                seed.directory(path.rsplit_once('/').map_or("", |(parent, _)| parent))?;
                let place = seed.dir().join(path);
                copy_file(&source, &place)?;
                place
            }
        };
        // Before its mode, which may forbid it.
        if (entry.uid, entry.gid) != (0, 0) {
            let owner = format!("{}:{}", entry.uid, entry.gid);
            fs::set_permissions(&place, fs::Permissions::from_mode(0o700)).context("set the mode of", &place)?;
            rustix::fs::setxattr(&place, OWNER_ATTRIBUTE, owner.as_bytes(), XattrFlags::empty())
                .map_err(std::io::Error::from)
                .context("note the owner of", &place)?;
        }
        fs::set_permissions(&place, fs::Permissions::from_mode(entry.mode)).context("set the mode of", &place)?;
    }
    Ok(())
}

fn write_database(
    seed: &Tree,
    packages: &[&Package],
    tools: Option<&Tools>,
    skipped: &BTreeMap<String, String>,
) -> Result<(), ConfigureError> {
    let mut status = match tools {
        None => String::new(),
        Some(tools) => {
            let path = tools.output.join(TREE).join(DPKG).join("status");
            String::from_utf8_lossy(&fsio::read_limited(&path, STATUS_MAX)?).into_owned()
        }
    };
    for package in packages {
        status.push_str(&paragraph(package, skipped.contains_key(&package.name)));
    }
    let write = |name: &str, text: &str| seed.file(&format!("{DPKG}/{name}"), text, 0o644).map(drop);
    write("status", &status)?;
    write("info/format", "1\n")?;
    let own = seed.dir().join(STATOVERRIDE);
    let of_tools = tools.is_some_and(|tools| tools.output.join(TREE).join(STATOVERRIDE).exists());
    if !of_tools && !own.exists() {
        seed.file(STATOVERRIDE, "", 0o644)?;
    }
    for package in packages {
        write_info(seed, package)?;
    }
    write_triggers(seed, packages, tools)
}

/// What the tools' packages divert, and these.
fn write_diversions(seed: &Tree, diversions: &Diversions<'_>, tools: Option<&Tools>) -> Result<(), ConfigureError> {
    let of_tools = tools.map(|tools| tools.output.join(TREE).join(DIVERSIONS));
    let known = match of_tools.filter(|path| path.exists()) {
        Some(path) => String::from_utf8_lossy(&fsio::read_limited(&path, STATUS_MAX)?).into_owned(),
        None => String::new(),
    };
    seed.file(DIVERSIONS, &diversions.database(&known), 0o644)?;
    Ok(())
}

/// A package's paragraph in the status file: unpacked, or for one that is skipped, installed.
fn paragraph(package: &Package, is_installed: bool) -> String {
    let state = if is_installed { "installed" } else { "unpacked" };
    let mut text = String::new();
    for line in package.paragraph.lines().filter(|line| !line.trim().is_empty()) {
        text.push_str(line);
        text.push('\n');
        if line.to_ascii_lowercase().starts_with("package:") {
            let _ = writeln!(text, "Status: install ok {state}");
        }
    }
    if !package.conffiles.is_empty() {
        text.push_str("Conffiles:\n");
        for path in &package.conffiles {
            // In the place of a hash: it was not there before.
            let _ = writeln!(text, " {path} newconffile");
        }
    }
    text.push('\n');
    text
}

fn write_info(seed: &Tree, package: &Package) -> Result<(), ConfigureError> {
    let name = package.info_name();
    let info = seed.directory(&format!("{DPKG}/info"))?;
    for member in package.info() {
        let (from, to) = (package.control.join(member), info.join(format!("{name}.{member}")));
        copy_file(&from, &to)?;
    }
    let mut list = String::new();
    for shipped in &package.files {
        list.push_str(if shipped.path.is_empty() { "/." } else { &shipped.path });
        list.push('\n');
    }
    seed.file(&format!("{DPKG}/info/{name}.list"), &list, 0o644)?;
    Ok(())
}

/// Who waits for which trigger, and what the files of `packages` have set off already.
fn write_triggers(seed: &Tree, packages: &[&Package], tools: Option<&Tools>) -> Result<(), ConfigureError> {
    let all = packages
        .iter()
        .copied()
        .chain(tools.iter().flat_map(|tools| &tools.packages));
    let (mut of_paths, mut named) = (BTreeSet::new(), BTreeMap::<&str, BTreeSet<String>>::new());
    let mut set_off = BTreeSet::new();
    for package in all {
        for (trigger, awaits) in package.interests() {
            let waiting = format!("{}{}", package.name, if awaits { "" } else { "/noawait" });
            match trigger.starts_with('/') {
                true => {
                    of_paths.insert(format!("{trigger} {waiting}\n"));
                    if packages.iter().any(|package| package.ships_below(trigger)) {
                        // Nobody waits for what no package's script has asked for.
                        set_off.insert(format!("{trigger} -\n"));
                    }
                }
                false => drop(named.entry(trigger).or_default().insert(format!("{waiting}\n"))),
            }
        }
    }
    let write = |name: &str, text: String| seed.file(&format!("{DPKG}/triggers/{name}"), &text, 0o644).map(drop);
    write("File", of_paths.into_iter().collect())?;
    write("Unincorp", set_off.into_iter().collect())?;
    for (trigger, waiting) in named {
        write(trigger, waiting.into_iter().collect())?;
    }
    Ok(())
}

impl Package {
    fn ships_below(&self, dir: &str) -> bool {
        self.files.iter().any(|file| {
            file.path
                .strip_prefix(dir)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}

/// Gives a package's configuration files the names under which the package manager unpacks them; it renames them when it
/// configures the package. Until then they must not be seen by others' scripts: PAM would be half configured.
fn set_conffiles_aside(seed: &Tree, package: &Package, diversions: &Diversions<'_>) -> Result<(), ConfigureError> {
    for path in &package.conffiles {
        let path = path.trim_start_matches('/');
        let source = package.tree.join(path);
        let below = diversions.place(&package.name, path);
        if !source.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
            continue;
        }
        let place = seed.file(&format!("{below}.dpkg-new"), "", 0o644)?;
        copy_file(&source, &place)?;
        let executable = source
            .metadata()
            .is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0);
        let mode = if executable { 0o755 } else { 0o644 };
        fs::set_permissions(&place, fs::Permissions::from_mode(mode)).context("set the mode of", &place)?;
        hide(&seed.dir().join(below))?;
    }
    Ok(())
}

/// Makes an overlay's mark that there is nothing at `path` in lower layers; any user may (Linux 5.8).
pub(super) fn hide(path: &Path) -> Result<(), ConfigureError> {
    if path.symlink_metadata().is_ok() {
        return Ok(());
    }
    mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), makedev(0, 0))
        .map_err(std::io::Error::from)
        .context("hide", path)?;
    Ok(())
}
