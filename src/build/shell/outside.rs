//! A shell's environment *outside* of it: a view of its files, launchers for its programs, and variables that name both.
//!
//! Editors, language servers and direnv stay on the machine's own root, where nothing of the environment is at its place. So
//! the view has
//! * `bin`: a launcher for each program that the packages asked for, which runs it in the shell, where all is as it expects;
//! * `root`: headers, libraries and data of the shell's root as links to the store: a sysroot;
//! * where there is a Python, `pyvenv.cfg` and `lib/pythonX.Y/site-packages`: a virtual environment to those that look for one.
//!
//! Invariant: every path in the variables and in the view exists on the machine for as long as the store has what it leads to; a
//! view appears whole, in place of the one before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::merge::Merged;
use super::record::ShellRecord;
use super::{BuildError, machine, own_programs};
use crate::build::link::Linkage;
use crate::fsio::{IoContext, PathError, create_dir_all, read_limited, remove_tree, sorted_names, walk};
use crate::root::{self, MERGED_DIRS};
use crate::shell_word::quoted;
use crate::store::Store;
use crate::store_path::StoreDir;

/// Directory of launchers in a view.
const PROGRAMS: &str = "bin";

/// The sysroot in a view.
const ROOT: &str = "root";

/// The text that all launchers are.
const LAUNCHER: &str = "launch";

/// Largest list of a wheel's entry points, in bytes.
const ENTRY_POINTS_MAX: u64 = 4 << 20;

/// What the variables begin with in which scripts find packages of the spec.
const PLACE_PREFIX: &str = "package_";

/// Variables of a script that are meant for the root in which it runs: outside they would be those of every program.
const OF_THE_ROOT: [&str; 11] = [
    "BASH_ENV",
    "ENV",
    "HOME",
    "IFS",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "PATH",
    "SHELL",
    "TMPDIR",
    "UID",
    "USER",
];

/// What of the packages' trees is of no use outside.
const LEFT_OUT: [&str; 10] = [
    "etc",
    "usr/bin",
    "usr/libexec",
    "usr/sbin",
    "usr/share/bug",
    "usr/share/doc",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "var",
];

/// Where a view is made, and what its launchers start.
#[derive(Debug, Clone)]
pub struct ViewPlace {
    /// The view's directory.
    pub dir: PathBuf,
    /// The words of a command that is given a program's name and arguments, and runs it in the shell.
    pub launcher: Vec<String>,
}

/// What a view has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutsideView {
    /// The directory that is to come first on `PATH`.
    pub path: PathBuf,
    /// The sysroot.
    pub root: PathBuf,
    /// Variables beside `PATH`.
    pub variables: BTreeMap<String, String>,
    /// The programs that have launchers.
    pub programs: BTreeSet<String>,
}

impl OutsideView {
    /// Makes the view of a shell that was recorded, in place of what is there; all of it must be in the store. `complete` adds
    /// to its directory before it is at its place.
    pub fn make(
        store: &Store,
        record: &ShellRecord,
        place: &ViewPlace,
        complete: impl FnOnce(&Self, &Path) -> Result<(), PathError>,
    ) -> Result<Self, BuildError> {
        let parent = place.dir.parent().unwrap_or(&place.dir);
        create_dir_all(parent)?;
        let staged = tempfile::Builder::new()
            .prefix(crate::fsio::TEMPORARY_PREFIX)
            .tempdir_in(parent)
            .context("create a directory in", parent)?;
        let new = staged.path().join("view");
        let maker = Maker {
            store,
            merged: &record.merged(),
            packages: record.root.iter().rev().map(|path| store.physical(path)).collect(),
            new: &new,
            dir: &place.dir,
        };
        let view = maker.make(&place.launcher)?;
        complete(&view, &new)?;
        publish(&new, &place.dir, staged.path())?;
        Ok(view)
    }

    /// The variables of whoever starts a program by a launcher, without what the view has put among them.
    pub fn taken_from(&self, caller: &mut BTreeMap<String, String>) {
        caller.retain(|name, value| self.variables.get(name) != Some(value));
        if let Some(path) = caller.get_mut("PATH") {
            let own = self.path.display().to_string();
            let others = path.split(':').filter(|dir| *dir != own);
            *path = others.collect::<Vec<_>>().join(":");
        }
    }
}

/// Puts a view at its place, and removes what was there. There is one at any moment: programs are started by it meanwhile.
fn publish(new: &Path, dir: &Path, staged: &Path) -> Result<(), PathError> {
    match rustix::fs::renameat_with(CWD, new, CWD, dir, RenameFlags::EXCHANGE) {
        Ok(()) => return remove_tree(new),
        Err(Errno::NOENT) => {}
        // Not every file system exchanges.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            let old = staged.join("old");
            fs::rename(dir, &old).context("replace", dir)?;
            fs::rename(new, dir).context("create", dir)?;
            return remove_tree(&old);
        }
        Err(error) => return Err(io::Error::from(error)).context("replace", dir),
    }
    fs::rename(new, dir).context("create", dir)
}

/// Whether a directory of programs is that of a view.
pub(super) fn has_launchers(dir: &Path) -> bool {
    dir.ends_with(PROGRAMS) && dir.parent().is_some_and(|view| view.join(LAUNCHER).is_file())
}

struct Maker<'a> {
    store: &'a Store,
    merged: &'a Merged,
    /// The trees of the root's packages, the topmost first.
    packages: Vec<PathBuf>,
    /// Where the view is made.
    new: &'a Path,
    /// Where it will be.
    dir: &'a Path,
}

impl Maker<'_> {
    fn make(&self, launcher: &[String]) -> Result<OutsideView, BuildError> {
        create_dir_all(self.new)?;
        self.link_root()?;
        let programs = self.write_launchers(launcher)?;
        let mut variables = self.variables()?;
        if let Some(python) = self.python()?.filter(|_| programs.contains("python3")) {
            self.write_python(&python)?;
            variables.insert("VIRTUAL_ENV".to_owned(), self.dir.display().to_string());
        }
        Ok(OutsideView {
            path: self.dir.join(PROGRAMS),
            root: self.dir.join(ROOT),
            variables,
            programs,
        })
    }

    fn link_root(&self) -> Result<(), BuildError> {
        let root = self.new.join(ROOT);
        create_dir_all(&root.join("layerize"))?;
        let store = root.join(StoreDir::LAYERIZE.trim_start_matches('/'));
        link(&self.store.dir().join("store"), &store)?;
        self.link_below(&self.packages, "")?;
        for name in MERGED_DIRS.iter().filter(|name| root.join("usr").join(name).is_dir()) {
            link(&Path::new("usr").join(name), &root.join(name))?;
        }
        let packages: Vec<&Path> = self.packages.iter().map(PathBuf::as_path).collect();
        for (at, target) in root::alternatives(&packages)? {
            let below = at.trim_start_matches('/');
            let place = root.join(below);
            // Whole directories are links to the store, in which nothing is added.
            let parent = place.parent().unwrap_or(&root);
            let is_ours = parent.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
            if is_ours && !is_left_out(below) && place.symlink_metadata().is_err() {
                link(&self.outside(Path::new(&target)), &place)?;
            }
        }
        Ok(())
    }

    /// Links what `trees` have at `below` into the sysroot. What one of them has alone and without links is one link.
    fn link_below(&self, trees: &[PathBuf], below: &str) -> Result<(), PathError> {
        let mut names: BTreeMap<_, Vec<&PathBuf>> = BTreeMap::new();
        for tree in trees {
            for name in sorted_names(&tree.join(below))? {
                names.entry(name).or_default().push(tree);
            }
        }
        for (name, having) in names {
            let Some(name) = name.to_str() else { continue };
            let below = match below.is_empty() {
                true => name.to_owned(),
                false => format!("{below}/{name}"),
            };
            if is_left_out(&below) {
                continue;
            }
            let (found, place) = (having[0].join(&below), self.new.join(ROOT).join(&below));
            let kind = fs::symlink_metadata(&found).context("read", &found)?.file_type();
            if kind.is_symlink() {
                let target = fs::read_link(&found).context("read the link", &found)?;
                link(&self.outside(&target), &place)?;
            } else if !kind.is_dir() || (having.len() == 1 && !has_links(&found)?) {
                link(&found, &place)?;
            } else {
                create_dir_all(&place)?;
                let is_dir = |tree: &&PathBuf| {
                    let metadata = tree.join(&below).symlink_metadata();
                    metadata.is_ok_and(|metadata| metadata.is_dir())
                };
                let trees: Vec<PathBuf> = having.into_iter().filter(is_dir).cloned().collect();
                self.link_below(&trees, &below)?;
            }
        }
        Ok(())
    }

    /// What a link of the root leads to, outside of it.
    fn outside(&self, target: &Path) -> PathBuf {
        match target.strip_prefix("/") {
            Ok(below) => self.dir.join(ROOT).join(below),
            Err(_) => target.to_owned(),
        }
    }

    fn write_launchers(&self, launcher: &[String]) -> Result<BTreeSet<String>, BuildError> {
        let words: Vec<String> = launcher.iter().map(quoted).collect();
        // What is not at its place any more may be found by its name.
        let text = format!(
            "#!/bin/sh\nset -- {} \"${{0##*/}}\" \"$@\"\n[ -x \"$1\" ] || {{ shift; set -- layerize \"$@\"; }}\nexec \"$@\"\n",
            words.join(" ")
        );
        machine::write_program(&self.new.join(LAUNCHER), &text)?;
        let dir = self.new.join(PROGRAMS);
        create_dir_all(&dir)?;
        let mut programs = own_programs(self.store, self.merged)?;
        programs.extend(machine::programs_in(&self.of_languages(PROGRAMS)));
        if let Some(python) = self.python()?.filter(|_| programs.contains("python3")) {
            for site in self.of_languages(&site_packages(&python)) {
                // The shell has it active, where it is called so too.
                programs.insert("python".to_owned());
                programs.extend(commands_of_wheel(&site)?);
            }
        }
        for program in &programs {
            link(&Path::new("..").join(LAUNCHER), &dir.join(program))?;
        }
        Ok(programs)
    }

    /// The directories of this name in what languages bring.
    fn of_languages(&self, name: &str) -> Vec<PathBuf> {
        let all = self.merged.script.variables.values();
        let paths = all.filter_map(|input| self.merged.paths.get(input));
        let dirs = paths.map(|path| self.store.physical(path).join(name));
        dirs.filter(|dir| dir.is_dir()).collect()
    }

    fn variables(&self) -> Result<BTreeMap<String, String>, BuildError> {
        let Merged {
            script, paths, name, ..
        } = self.merged;
        let physical = self.store.dir().join("store").display().to_string();
        let in_store = |text: &str| text.replace(StoreDir::LAYERIZE, &physical);
        let root = self.dir.join(ROOT).display().to_string();
        let mut all = BTreeMap::new();
        for (name, value) in Linkage::of_script(self.store, script, paths)?.variables() {
            let value = match name {
                // Below the sysroot, which is put before what they say.
                "PKG_CONFIG_PATH" => value.replace(StoreDir::LAYERIZE, &format!("{root}{}", StoreDir::LAYERIZE)),
                _ => in_store(&value),
            };
            all.insert(name.to_owned(), value);
        }
        // What languages find their parts by is theirs.
        let places = script
            .variables
            .iter()
            .filter(|(name, _)| name.starts_with(PLACE_PREFIX));
        for (name, input) in places {
            let path = paths.get(input).map(|path| self.store.physical(path));
            all.extend(path.map(|path| (name.clone(), path.display().to_string())));
        }
        let own = script
            .env
            .iter()
            .filter(|(name, _)| !OF_THE_ROOT.contains(&name.as_str()));
        all.extend(own.map(|(name, value)| (name.clone(), in_store(value))));
        for (name, dirs) in self.searched()? {
            let dirs: Vec<String> = dirs.iter().map(|dir| format!("{root}/{dir}")).collect();
            if !dirs.is_empty() {
                all.entry(name.to_owned()).or_insert_with(|| dirs.join(":"));
            }
        }
        if all.contains_key("PKG_CONFIG_PATH") || all.contains_key("PKG_CONFIG_LIBDIR") {
            all.entry("PKG_CONFIG_SYSROOT_DIR".to_owned())
                .or_insert_with(|| root.clone());
        }
        all.insert("LAYERIZE_ROOT".to_owned(), root);
        all.insert("LAYERIZE_SHELL".to_owned(), name.clone());
        Ok(all)
    }

    /// Variables that name directories of the root, and which of these there are.
    fn searched(&self) -> Result<Vec<(&'static str, Vec<String>)>, PathError> {
        let has = |below: &String| self.packages.iter().any(|package| package.join(below).is_dir());
        let triplet = format!("{}-linux-gnu", self.merged.script.target().trim_end_matches("-linux"));
        let (include, multi) = ("usr/include".to_owned(), format!("usr/include/{triplet}"));
        // A C++ header asks for the C header of its name in a directory that comes after its own.
        let cpp = self.newest("usr/include/c++", "")?.into_iter().flat_map(|version| {
            [
                format!("usr/include/c++/{version}"),
                format!("{multi}/c++/{version}"),
                format!("usr/include/c++/{version}/backward"),
            ]
        });
        let cpp = cpp.chain([multi.clone(), include.clone()]).filter(has).collect();
        let c = [multi, include].into_iter().filter(has).collect();
        let pkg_config = [&format!("usr/lib/{triplet}"), "usr/lib", "usr/share"].map(|dir| format!("{dir}/pkgconfig"));
        let rust = self
            .newest("usr/src", "rustc-")?
            .map(|name| format!("usr/src/{name}/library"));
        let rust = rust.into_iter().chain(["usr/lib/rustlib/src/rust/library".to_owned()]);
        Ok(vec![
            ("C_INCLUDE_PATH", c),
            ("CPLUS_INCLUDE_PATH", cpp),
            ("PKG_CONFIG_LIBDIR", pkg_config.into_iter().filter(has).collect()),
            ("RUST_SRC_PATH", rust.filter(has).take(1).collect()),
        ])
    }

    /// The name that begins so with the highest number behind it, of what the packages have at `below`.
    fn newest(&self, below: &str, prefix: &str) -> Result<Option<String>, PathError> {
        let mut best: Option<(Vec<u32>, String)> = None;
        for dir in self.packages.iter().map(|package| package.join(below)) {
            let names = match dir.is_dir() {
                true => sorted_names(&dir)?,
                false => Vec::new(),
            };
            for name in names.into_iter().filter_map(|name| name.into_string().ok()) {
                let numbers = name
                    .strip_prefix(prefix)
                    .map(|rest| rest.split('.').map(str::parse).collect());
                let Some(Ok(numbers)) = numbers else { continue };
                best = best.max(Some((numbers, name)));
            }
        }
        Ok(best.map(|(_, name)| name))
    }

    /// The name of the root's directory of Python's own modules: `python3.11`.
    fn python(&self) -> Result<Option<String>, PathError> {
        let newest = self.newest("usr/lib", "python")?;
        Ok(newest.filter(|name| name.contains('.')))
    }

    /// What has the view taken for a virtual environment, which leads to the modules of packages and of wheels.
    fn write_python(&self, python: &str) -> Result<(), PathError> {
        let home = self.dir.join(PROGRAMS).display().to_string();
        let version = python.trim_start_matches("python");
        let text = format!("home = {home}\nversion = {version}\ninclude-system-site-packages = false\n");
        let file = self.new.join("pyvenv.cfg");
        fs::write(&file, text).context("write", &file)?;
        let site = site_packages(python);
        let mut dirs = self.of_languages(&site);
        let of_debian = "usr/lib/python3/dist-packages";
        if self.packages.iter().any(|package| package.join(of_debian).is_dir()) {
            dirs.push(self.dir.join(ROOT).join(of_debian));
        }
        let lines: String = dirs.iter().map(|dir| format!("{}\n", dir.display())).collect();
        let site = self.new.join(site);
        create_dir_all(&site)?;
        let file = site.join("layerize.pth");
        fs::write(&file, lines).context("write", &file)
    }
}

/// Where the modules of an environment are in it.
fn site_packages(python: &str) -> String {
    format!("lib/{python}/site-packages")
}

/// The commands that a wheel declares, by the entry points of its metadata.
fn commands_of_wheel(site: &Path) -> Result<BTreeSet<String>, PathError> {
    let mut commands = BTreeSet::new();
    for name in sorted_names(site)? {
        let file = site.join(&name).join("entry_points.txt");
        if !name.to_string_lossy().ends_with(".dist-info") || !file.is_file() {
            continue;
        }
        let text = read_limited(&file, ENTRY_POINTS_MAX)?;
        let text = String::from_utf8_lossy(&text);
        let section = text
            .lines()
            .map(str::trim)
            .skip_while(|line| *line != "[console_scripts]")
            .skip(1);
        let lines = section.take_while(|line| !line.starts_with('['));
        let names = lines.filter_map(|line| Some(line.split_once('=')?.0.trim().to_owned()));
        commands.extend(names.filter(|name| !name.is_empty() && !name.contains('/')));
    }
    Ok(commands)
}

fn is_left_out(below: &str) -> bool {
    LEFT_OUT.contains(&below)
        || LEFT_OUT
            .iter()
            .any(|dir| below.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/')))
}

/// Whether a link is in a tree: it may lead to what another package has.
fn has_links(dir: &Path) -> Result<bool, PathError> {
    for entry in walk(dir) {
        if entry?.file_type().is_symlink() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn link(target: &Path, place: &Path) -> Result<(), PathError> {
    symlink(target, place).context("create the link", place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_those_of_entry_points() {
        let dir = tempfile::tempdir().unwrap();
        let info = dir.path().join("thing-1.dist-info");
        create_dir_all(&info).unwrap();
        create_dir_all(&dir.path().join("thing")).unwrap();
        assert_eq!(commands_of_wheel(dir.path()).unwrap(), BTreeSet::new());
        let text = "[console_scripts]\nthing = thing:main\n other=thing.x:y [extra]\nbad/name = a:b\n\n[gui_scripts]\nno = a:b\n";
        fs::write(info.join("entry_points.txt"), text).unwrap();
        let commands = ["other", "thing"].map(str::to_owned);
        assert_eq!(commands_of_wheel(dir.path()).unwrap(), BTreeSet::from(commands));
    }

    #[test]
    fn what_is_left_out_is_left_out_whole() {
        for (below, expected) in [
            ("etc", true),
            ("etc/x", true),
            ("etcetera", false),
            ("usr/share", false),
            ("usr/share/man/x", true),
        ] {
            assert_eq!(is_left_out(below), expected, "{below}");
        }
    }
}
