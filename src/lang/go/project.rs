//! The *project*: the modules of the source, whether they are a workspace, and which modules of others they need.
//!
//! Invariant: it is what Go itself would find where it is run; what lies outside the source is told, never left out.

use std::collections::{BTreeMap, BTreeSet};

use super::go_mod::{GoFile, GoVersion, Module, ReplacedBy};
use super::go_sum::GoSum;
use super::imports::Head;
use super::vendor;
use crate::digest::GoHash;
use crate::lang::{FileKind, LangError, SourceTree, seen_from, within};

/// Since then a `go.mod` names all that the packages of its module need.
const PRUNED_SINCE: (u32, u32) = (1, 17);

/// The modules of a source.
pub(super) struct GoProject<'a> {
    source: &'a SourceTree,
    /// Where Go is run, relative to the source; empty: there.
    pub(super) dir: String,
    /// The `go.work` that counts.
    pub(super) work: Option<(String, GoFile)>,
    /// The modules that are built, by directory.
    main: BTreeMap<String, GoFile>,
    /// The directories of modules that stand for others.
    local: BTreeSet<String>,
}

/// The modules of others that a build takes.
#[derive(Debug, Default)]
pub(super) struct Needed {
    pub(super) zips: BTreeMap<Module, GoHash>,
    pub(super) mods: BTreeMap<Module, GoHash>,
}

/// The modules of others that a source holds.
#[derive(Debug, Default)]
pub(super) struct Vendored {
    pub(super) known: BTreeMap<Module, GoHash>,
    pub(super) unknown: Vec<Module>,
}

/// A Go file of the project's own.
pub(super) struct OwnFile {
    pub(super) path: String,
    pub(super) head: Head,
}

impl<'a> GoProject<'a> {
    /// Reads the manifests where Go is run in `dir`, relative to the source.
    pub(super) fn read(source: &'a SourceTree, dir: &str) -> Result<Self, LangError> {
        let mut project = Self {
            source,
            dir: dir.to_owned(),
            work: None,
            main: BTreeMap::new(),
            local: BTreeSet::new(),
        };
        let own = project.go_file(&within(dir, "go.mod"))?;
        let work = project.find_work()?;
        let used = |(path, work): &(String, GoFile)| {
            let uses = work.uses.iter().map(|of| seen_from(parent(path), of));
            uses.flatten().any(|of| of == dir) || own.is_none()
        };
        // Go would refuse a module that its workspace does not use; here the module alone is meant.
        project.work = work.filter(used);
        match (&project.work, own) {
            (Some((path, work)), _) => {
                for used in &work.uses {
                    let at = seen_from(parent(path), used).ok_or_else(|| outside(path, used))?;
                    let file = within(&at, "go.mod");
                    let found = project.go_file(&file)?.ok_or_else(|| no_go_mod(&file))?;
                    project.main.insert(at, found);
                }
            }
            (None, Some(own)) => {
                project.main.insert(dir.to_owned(), own);
            }
            (None, None) => return Err(no_go_mod(&within(dir, "go.mod"))),
        }
        project.local = project.local_modules()?;
        Ok(project)
    }

    fn go_file(&self, path: &str) -> Result<Option<GoFile>, LangError> {
        let text = self.source.text(path)?;
        text.map(|text| GoFile::parse(&text, path)).transpose()
    }

    /// The nearest `go.work` of the directory and of those above it.
    fn find_work(&self) -> Result<Option<(String, GoFile)>, LangError> {
        let mut dir = Some(self.dir.as_str());
        while let Some(at) = dir {
            let path = within(at, "go.work");
            if let Some(work) = self.go_file(&path)? {
                return Ok(Some((path, work)));
            }
            dir = (!at.is_empty()).then(|| parent(at));
        }
        Ok(None)
    }

    /// The files that say what replaces what, with what they say; the first that does counts.
    fn manifests(&self) -> impl Iterator<Item = (String, &GoFile)> {
        let work = self.work.iter().map(|(path, work)| (path.clone(), work));
        work.chain(self.main.iter().map(|(dir, file)| (within(dir, "go.mod"), file)))
    }

    fn local_modules(&self) -> Result<BTreeSet<String>, LangError> {
        let required: BTreeSet<&str> = self.required().map(|(_, module)| module.path.as_str()).collect();
        let mut local = BTreeSet::new();
        for (path, file) in self.manifests() {
            for replace in &file.replace {
                let ReplacedBy::Directory(dir) = &replace.by else {
                    continue;
                };
                let place = || format!("`{path}`, line {}", replace.line);
                match seen_from(parent(&path), dir) {
                    Some(at) if self.source.is_file(&within(&at, "go.mod")) => {
                        local.insert(at);
                    }
                    // Go does not look at what is not needed.
                    _ if !required.contains(replace.path.as_str()) => {}
                    None => {
                        let message = format!("`{}` is replaced by `{dir}`, which is outside the source", replace.path);
                        let help =
                            "let `source` be a directory that holds both, and name this module's `go.sum` by `lock`";
                        return Err(LangError::at(place(), message, help));
                    }
                    Some(_) => {
                        let message = format!("`{}` is replaced by `{dir}`, where there is no `go.mod`", replace.path);
                        let help = "see that `include`, `exclude` and `.gitignore` let it through";
                        return Err(LangError::at(place(), message, help));
                    }
                }
            }
        }
        Ok(local)
    }

    /// What the modules that are built require, each with the directory of who does.
    fn required(&self) -> impl Iterator<Item = (&str, &Module)> {
        let all = self.main.iter();
        all.flat_map(|(dir, file)| file.require.iter().map(move |module| (dir.as_str(), module)))
    }

    /// The oldest Go that all of it is for, and the file that says so.
    pub(super) fn go(&self) -> Option<(GoVersion, String)> {
        let all = self.manifests().filter_map(|(path, file)| Some((file.go?, path)));
        all.max_by_key(|(go, _)| *go)
    }

    /// The directory of the source in which what others wrote is, where Go takes it from there.
    pub(super) fn vendor_dir(&self) -> Option<String> {
        let (dir, go, since) = match &self.work {
            Some((path, work)) => (parent(path), work.go, GoVersion::new(1, 22)),
            None => (
                self.dir.as_str(),
                self.main.values().next().and_then(|file| file.go),
                GoVersion::new(1, 14),
            ),
        };
        let dir = within(dir, "vendor");
        let is_taken = self.source.kind(&dir) == Some(FileKind::Directory) && go.is_some_and(|go| go >= since);
        is_taken.then_some(dir)
    }

    /// The modules of others that are in the source itself; those that `go.sum` has no hash of are apart.
    pub(super) fn vendored(&self) -> Result<Vendored, LangError> {
        let mut found = Vendored::default();
        let Some(dir) = self.vendor_dir() else {
            return Ok(found);
        };
        let text = self.source.text(&within(&dir, "modules.txt"))?.unwrap_or_default();
        let sum = self.sum()?;
        for module in vendor::modules(&text) {
            match sum.zips.get(&module) {
                Some(zip) => drop(found.known.insert(module, *zip)),
                None => found.unknown.push(module),
            }
        }
        Ok(found)
    }

    /// The files with hashes that Go would read, where they are.
    fn sum_files(&self) -> Vec<String> {
        let work = self.work.iter().map(|(path, _)| within(parent(path), "go.work.sum"));
        let own = self.main.keys().map(|dir| within(dir, "go.sum"));
        work.chain(own).filter(|file| self.source.is_file(file)).collect()
    }

    /// The hashes that they have.
    fn sum(&self) -> Result<GoSum, LangError> {
        let mut sum = GoSum::default();
        for file in self.sum_files() {
            sum.read(&self.source.text(&file)?.unwrap_or_default(), &file)?;
        }
        Ok(sum)
    }

    /// The modules of others that a build takes from outside.
    pub(super) fn needed(&self) -> Result<Needed, LangError> {
        if self.vendor_dir().is_some() {
            return Ok(Needed::default());
        }
        let sum = self.sum()?;
        let mut needed = Needed::default();
        let own: BTreeSet<&str> = self.main.values().filter_map(|file| file.module.as_deref()).collect();
        for (dir, module) in self.required() {
            let Some(module) = self
                .taken_for(module)
                .filter(|taken| !own.contains(taken.path.as_str()))
            else {
                continue;
            };
            let Some(go_mod) = sum.mods.get(module) else {
                return Err(self.no_sum(dir, module));
            };
            needed.mods.insert(module.clone(), *go_mod);
            if let Some(zip) = sum.zips.get(module) {
                needed.zips.insert(module.clone(), *zip);
            }
        }
        if self.takes_all_pinned() {
            needed.mods.extend(sum.mods);
            let zips = sum.zips.into_iter();
            needed
                .zips
                .extend(zips.filter(|(module, _)| !own.contains(module.path.as_str())));
        }
        Ok(needed)
    }

    /// Whether Go finds what is needed by all `go.mod`s that are named anywhere, of which `go.sum` is the list.
    fn takes_all_pinned(&self) -> bool {
        let pruned = GoVersion::new(PRUNED_SINCE.0, PRUNED_SINCE.1);
        let is_pruned = |file: &GoFile| file.go.is_some_and(|go| go >= pruned);
        self.work.is_some() || !self.main.values().all(is_pruned)
    }

    /// Whether there is a module with a hash for what the own files import, as far as they are built anywhere.
    ///
    /// Go says it itself where it is run, but only there; and of files for other systems nothing need be there.
    pub(super) fn check_imports(&self, files: &[&OwnFile], needed: &Needed) -> Result<(), LangError> {
        let is_built = |file: &&&OwnFile| {
            let is_in = |dir: &String| is_below(&file.path, dir);
            let is_own = self.dir.is_empty() || !self.main.contains_key(&self.dir) || is_in(&self.dir);
            is_own && !self.local.iter().any(is_in) && file.is_built_anywhere()
        };
        let all_pinned = || needed.zips.keys().filter(|_| self.takes_all_pinned());
        for file in files.iter().filter(is_built) {
            let of_others = file.head.imports.iter().filter(|path| is_of_others(path));
            for path in of_others.filter(|path| self.main_module(path).is_none()) {
                let having: Vec<_> = self
                    .required()
                    .filter(|(_, module)| is_below(path, &module.path))
                    .collect();
                if all_pinned().any(|module| is_below(path, &module.path)) {
                    continue;
                }
                let [(dir, _), ..] = having.as_slice() else {
                    let dir = self.main_of(&file.path).unwrap_or(&self.dir);
                    let message = format!("`{}` imports `{path}`, which no module of its `go.mod` has", file.path);
                    return Err(self.untidy(dir, "go.mod", message));
                };
                let is_missing = |module: &Module| match self.taken_for(module) {
                    Some(taken) => !needed.zips.contains_key(taken),
                    None => false,
                };
                if let Some((_, Module { path: module, version })) = having.iter().find(|(_, of)| is_missing(of)) {
                    let message = format!(
                        "`{}` imports `{path}`, and `go.sum` has no hash of `{module} {version}`",
                        file.path
                    );
                    return Err(self.untidy(dir, "go.sum", message));
                }
            }
        }
        Ok(())
    }

    /// The module of others that is taken for one that is required; `None`: a directory of the source.
    fn taken_for<'m>(&'m self, module: &'m Module) -> Option<&'m Module> {
        let replaced = self.manifests().find_map(|(_, file)| file.replacement(module));
        match replaced.map(|replace| &replace.by) {
            Some(ReplacedBy::Directory(_)) => None,
            Some(ReplacedBy::Module(by)) => Some(by),
            None => Some(module),
        }
    }

    /// The path of the module of the source that an import path is in.
    fn main_module(&self, path: &str) -> Option<&str> {
        let mut own = self.main.values().filter_map(|file| file.module.as_deref());
        own.find(|module| is_below(path, module))
    }

    /// The directory of the module of the source that a file is in.
    fn main_of(&self, file: &str) -> Option<&str> {
        let mut dirs = self.main.keys().rev();
        dirs.find(|dir| is_below(file, dir)).map(String::as_str)
    }

    fn untidy(&self, dir: &str, file: &str, message: String) -> LangError {
        let help = match self.work.is_some() {
            true => "run `go mod tidy` in each module, and `go work sync`",
            false => "run `go mod tidy`",
        };
        LangError::at(format!("`{}`", within(dir, file)), message, help)
    }

    fn no_sum(&self, dir: &str, module: &Module) -> LangError {
        let file = within(dir, "go.sum");
        let help = match self.work.is_some() {
            true => "run `go work sync` and `go mod tidy`",
            false => "run `go mod tidy`",
        };
        let Module { path, version } = module;
        let (message, help) = match self.source.is_file(&file) {
            true => (format!("`{file}` has no hashes of `{path} {version}`"), help.to_owned()),
            false => (
                "the source has no `go.sum`, and its `go.mod` requires modules".to_owned(),
                format!("{help}, and see that `include`, `exclude` and `.gitignore` let it through"),
            ),
        };
        LangError::at(format!("`{file}`"), message, help)
    }

    /// What `go build` is told to build where nothing else is said.
    pub(super) fn all_packages(&self) -> Vec<String> {
        if self.main.contains_key(&self.dir) {
            return vec!["./...".to_owned()];
        }
        let below = self.main.keys().map(|dir| match self.dir.is_empty() {
            true => Some(dir.as_str()),
            false => dir.strip_prefix(&self.dir).and_then(|rest| rest.strip_prefix('/')),
        });
        below.flatten().map(|dir| format!("./{dir}/...")).collect()
    }

    /// The files that say what is built of what, with their texts.
    pub(super) fn manifest_files(&self) -> Result<BTreeMap<String, Vec<u8>>, LangError> {
        let work = self.work.iter().map(|(path, _)| path.clone());
        let dirs = self.main.keys().chain(&self.local);
        let paths = work
            .chain(self.sum_files())
            .chain(dirs.map(|dir| within(dir, "go.mod")));
        let mut files = BTreeMap::new();
        for path in paths {
            files.extend(self.source.bytes(&path)?.map(|bytes| (path, bytes)));
        }
        Ok(files)
    }

    /// The Go files of the modules that are in the source, without tests.
    pub(super) fn own_files(&self) -> Result<Vec<OwnFile>, LangError> {
        let mut files = Vec::new();
        for dir in self.main.keys().chain(&self.local) {
            self.walk(dir, &mut files)?;
        }
        Ok(files)
    }

    /// The Go files of a directory of a module and below, where Go looks for packages.
    fn walk(&self, dir: &str, files: &mut Vec<OwnFile>) -> Result<(), LangError> {
        for (name, kind) in self.source.entries(dir)? {
            let path = within(dir, &name);
            if name.starts_with(['.', '_']) {
                continue;
            }
            let is_own = || !self.source.is_link(&path) && !self.source.is_file(&within(&path, "go.mod"));
            match kind {
                FileKind::Directory if name != "testdata" && name != "vendor" && is_own() => self.walk(&path, files)?,
                FileKind::File if name.ends_with(".go") && !name.ends_with("_test.go") => {
                    let text = self.source.bytes(&path)?.unwrap_or_default();
                    let head = Head::parse(&String::from_utf8_lossy(&text));
                    files.extend(head.map(|head| OwnFile { path, head }));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The import path of the package in a directory of the source.
    pub(super) fn import_path(&self, dir: &str) -> Option<String> {
        let mut at = Some(dir);
        while let Some(root) = at {
            if let Some(file) = self.main.get(root) {
                let module = file.module.as_deref()?;
                let below = dir[root.len()..].trim_start_matches('/');
                return Some(within(module, below));
            }
            at = (!root.is_empty()).then(|| parent(root));
        }
        None
    }

    /// What the own files import of Go's library, and whatever cannot be told from it by its name.
    pub(super) fn std_imports(&self, files: &[OwnFile]) -> BTreeSet<String> {
        let own: Vec<&str> = self.main.values().filter_map(|file| file.module.as_deref()).collect();
        let replaced = self.manifests().flat_map(|(_, file)| &file.replace);
        let own: Vec<&str> = replaced.map(|replace| replace.path.as_str()).chain(own).collect();
        let imports = files.iter().flat_map(|file| &file.head.imports);
        let library = imports.filter(|path| {
            let first = path.split('/').next().unwrap_or_default();
            let plain = |c: char| c.is_ascii_alphanumeric() || "_/".contains(c);
            *path != "C" && !first.is_empty() && path.chars().all(plain) && !own.iter().any(|own| is_below(path, own))
        });
        library.cloned().chain(["runtime".to_owned()]).collect()
    }
}

impl OwnFile {
    /// Whether it is part of its package on every system: neither a line nor its name says where, and it has no C.
    fn is_built_anywhere(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        !name.contains('_') && !self.head.is_conditional() && !self.head.imports.contains("C")
    }
}

/// Whether an import path is of a module that is neither Go's library nor beside this one: its first part names a host.
fn is_of_others(path: &str) -> bool {
    path.split('/').next().is_some_and(|first| first.contains('.'))
}

/// Whether a path is `of` or lies below it.
pub(super) fn is_below(path: &str, of: &str) -> bool {
    let rest = path.strip_prefix(of);
    rest.is_some_and(|rest| of.is_empty() || rest.is_empty() || rest.starts_with('/'))
}

fn no_go_mod(file: &str) -> LangError {
    let help = "run `go mod init`, or name the module's `go.sum` by `lock`; see that `include`, `exclude` and `.gitignore` let it through";
    LangError::at(format!("`{file}`"), format!("the source has no `{file}`"), help)
}

fn outside(path: &str, used: &str) -> LangError {
    let message = format!("the workspace uses `{used}`, which is outside the source");
    LangError::at(
        format!("`{path}`"),
        message,
        "let `source` be a directory that holds all of it",
    )
}

/// The directory in which a path is.
pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}
