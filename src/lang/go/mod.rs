//! *Go*: the modules that a `go.sum` pins, laid out as Go's module cache has them, and Go run over it without a network.
//!
//! Invariant: Go decides what is compiled; it sees the modules of the lock and no others, at places that do not vary, so
//! that no store path of a module can get into what it makes.

mod go_mod;
mod go_sum;
mod imports;
mod project;
mod survey;
mod vendor;

use std::fmt::Write as _;

use super::{
    Form, GeneratedTree, LangError, LanguageBuild, LanguageStep, LockNeeds, LockedDependency, Mount, Part, Planner,
    Recipe, Registry, Renewal, Request, ShellRecipe, Surroundings, Unit, UnitKind, Units, quoted, seen_from, split,
    within,
};
use crate::digest::{Digest, FileHash};
use crate::spec::{Dependency, GoOptions, Lock, escaped_go_path};
use go_mod::{GoVersion, Module};
use project::{GoProject, Needed, OwnFile};
pub(super) use survey::survey;

/// Go's module cache in the sandbox.
const MODULES: &str = "/build/modcache";

/// Lock files by name.
const LOCKS: &[&str] = &["go.sum", "go.work.sum"];

/// Flags of builds: nothing that is made names a place, and they use what processors they are given.
const PUBLISHED: &str = "-trimpath -p=$LAYERIZE_CORES ";

/// The variables that hold what was compiled before: of Go's own library, and of modules of others.
const LIBRARY: &str = "LAYERIZE_GO_LIBRARY";
const DEPENDENCIES: &str = "LAYERIZE_GO_DEPENDENCIES";

/// The variable that holds the `go.mod` of a module, before its number.
const GO_MOD: &str = "LAYERIZE_GO_MOD_";

/// What Go's own library is called among units.
const LIBRARY_UNIT: &str = "std";

/// Number of the rules by which units are kept.
const UNITS_FORMAT: u32 = 1;

/// Parts of scripts: what Go is told, the modules, what was compiled before, what is kept of what was compiled.
const PREAMBLE: &str = include_str!("preamble.sh");
const MODULES_SCRIPT: &str = include_str!("modules.sh");
const LAY: &str = include_str!("lay.sh");
const UNITS: &str = include_str!("units.sh");
const KEEP: &str = include_str!("keep.sh");
const ACTIVATE: &str = include_str!("activate.sh");
/// Whole scripts: Go's library, what is depended on, the package itself.
const BUILD_LIBRARY: &str = include_str!("library.sh");
const BUILD_DEPENDENCIES: &str = include_str!("dependencies.sh");
const BUILD: &str = include_str!("build.sh");

impl Planner for GoOptions {
    fn renewal(&self, request: &Request<'_>, names: &[String], offline: bool) -> Result<Renewal, LangError> {
        let lock = request.language.lock.as_ref().map_or(LOCKS[0], |lock| &lock.value);
        let (dir, file) = split(lock);
        if file != LOCKS[0] || !request.source.is_file(lock) {
            let message = "the modules of a workspace are updated each by itself";
            let help =
                "run `go get -u ./...` and `go mod tidy` in each of them, then `go work sync` and `layerize lock`";
            return Err(LangError::at(format!("`{lock}`"), message, help));
        }
        let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let mut get = own(&["get"]);
        match names.is_empty() {
            true => get.extend(own(&["-u", "./..."])),
            false => get.extend(names.iter().map(|name| format!("{name}@upgrade"))),
        }
        Ok(Renewal {
            program: "go",
            commands: vec![get, own(&["mod", "tidy"])],
            dir: dir.to_owned(),
            files: own(&["go.sum", "go.mod"]),
            variables: if offline { vec![("GOPROXY", "off")] } else { Vec::new() },
        })
    }

    fn needs(&self, request: &Request<'_>) -> Result<LockNeeds, LangError> {
        let project = project(request)?;
        self.check_go(&project, request.lock)?;
        project.needed()?;
        let unknown = project.vendored()?.unknown.into_iter();
        let remark = |Module { path, version }| {
            format!("`vendor` has `{path} {version}`, of which `go.sum` has no hash: no bill of materials names it")
        };
        Ok(LockNeeds {
            remarks: unknown.map(remark).collect(),
            ..LockNeeds::default()
        })
    }

    fn plan(&self, request: &Request<'_>) -> Result<LanguageBuild, LangError> {
        let project = project(request)?;
        self.check_go(&project, request.lock)?;
        let is_vendored = project.vendor_dir().is_some();
        let needed = project.needed()?;
        let vendored = Needed {
            zips: project.vendored()?.known,
            ..Needed::default()
        };
        let mut build = LanguageBuild {
            dependencies: dependencies(&needed),
            vendored: dependencies(&vendored),
            ..LanguageBuild::default()
        };
        let files = project.own_files()?;
        // What else is built, the user knows.
        if request.package.script.is_none() && !is_vendored {
            let is_named = |file: &OwnFile| self.packages.is_empty() || self.names(&project.dir, &file.path);
            let named: Vec<&OwnFile> = files.iter().filter(|file| is_named(file)).collect();
            project.check_imports(&named, &needed)?;
        }
        let modules = modules_text(&needed);
        let text = |at: RunAt| {
            let settings = self.settings(at, &project, is_vendored);
            format!("{settings}{}{modules}", self.commands(at, &project))
        };
        let laid = with_modules(&needed);
        let activate = format!("{}{ACTIVATE}{}", text(RunAt::Shell), self.cgo());
        build.own = Recipe {
            preamble: text(RunAt::Build),
            script: BUILD.to_owned(),
            // What was compiled before is for the build.
            shell: ShellRecipe::of(activate, &laid.variables),
            ..laid
        };
        if self.incremental {
            build.steps.push(self.compile_library(&project, &files));
            build.own.variables.insert(LIBRARY.to_owned(), Part::Step(0));
            if !needed.zips.is_empty() {
                self.add_dependencies(request, &project, &files, &needed, &mut build)?;
            }
            build.own.preamble.push_str(LAY);
        }
        build.own.preamble.push_str(&self.cgo());
        Ok(build)
    }
}

/// Where Go is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RunAt {
    /// In the copy of the source that is built.
    Build,
    /// In the files that the user edits.
    Shell,
}

impl RunAt {
    /// A path of the source, as a word of a shell.
    fn place(self, path: &str) -> String {
        match self {
            Self::Build => quoted(within("/build/source", path)),
            Self::Shell if path.is_empty() => "\"$LAYERIZE_SOURCE\"".to_owned(),
            Self::Shell => format!("\"$LAYERIZE_SOURCE\"{}", quoted(format!("/{path}"))),
        }
    }
}

/// The project whose lock file the spec names.
fn project<'a>(request: &Request<'a>) -> Result<GoProject<'a>, LangError> {
    let lock = request.language.lock.as_ref().map_or(LOCKS[0], |lock| &lock.value);
    let (dir, name) = split(lock);
    if !LOCKS.contains(&name) {
        let message = "Go reads no lock file of another name than `go.sum` and `go.work.sum`";
        return Err(LangError::at(format!("`{lock}`"), message, "rename it"));
    }
    GoProject::read(request.source, dir)
}

impl GoOptions {
    /// Go is to be as new as the source asks: older releases read newer sources otherwise than they are meant.
    fn check_go(&self, project: &GoProject<'_>, lock: &Lock) -> Result<(), LangError> {
        let toolchain = self.toolchain();
        let Dependency::Debian(deb) = &toolchain else {
            return Ok(());
        };
        let Some(locked) = lock.debs.get(deb) else {
            return Ok(());
        };
        let version = locked.version.as_str();
        let there = GoVersion::parse(version.split_once(':').map_or(version, |(_, version)| version));
        let (Some(there), Some((wanted, file))) = (there, project.go()) else {
            return Ok(());
        };
        // Debian's version of the package that brings the newest Go says nothing of the last part.
        if (wanted.major, wanted.minor) <= (there.major, there.minor) {
            return Ok(());
        }
        let message = format!("it is for Go {wanted}, and `{toolchain}` is Go {there}");
        let (major, minor) = (wanted.major, wanted.minor);
        let help = format!(
            "name a newer Go by `toolchain`: `\"deb:golang-{major}.{minor}-go\"` where a source of apt has it (Debian's \
             backports), or \"NAME\" of a package of yours, as `[package.go]` with `source = {{ url = \
             \"https://…/go{release}.linux-{architecture}.tar.gz\" }}`",
            release = wanted.release(),
            architecture = locked.architecture,
        );
        Err(LangError::at(format!("`{file}`"), message, help))
    }

    /// Whether one of `packages` is the directory that a file is in, or one above it with `/...`.
    fn names(&self, dir: &str, file: &str) -> bool {
        let (own, _) = split(file);
        self.packages.iter().any(|package| {
            let (of, is_all) = match package.strip_suffix("...") {
                Some(of) => (of.trim_end_matches('/'), true),
                None => (package.as_str(), false),
            };
            // Others are import paths.
            let is_directory = of == "." || of.starts_with("./");
            let of = seen_from(dir, of).filter(|_| is_directory);
            of.is_some_and(|of| own == of || (is_all && project::is_below(own, &of)))
        })
    }

    /// What Go is told.
    fn settings(&self, at: RunAt, project: &GoProject<'_>, is_vendored: bool) -> String {
        let mut text = PREAMBLE.to_owned();
        let work = match &project.work {
            Some((path, _)) => at.place(path),
            None => "off".to_owned(),
        };
        let modules = if is_vendored { "vendor" } else { "readonly" };
        let _ = writeln!(text, "export GOWORK={work}");
        text.push_str(&match at {
            RunAt::Build => self.flags(&format!("-mod={modules} {PUBLISHED}")),
            RunAt::Shell => self.flags(&format!("-mod={modules} ")),
        });
        text
    }

    fn flags(&self, first: &str) -> String {
        let tags = match self.tags.as_slice() {
            [] => String::new(),
            tags => format!(" -tags={}", tags.join(",")),
        };
        format!("export GOFLAGS=\"{first}-buildvcs=false{tags}${{GOFLAGS:+ $GOFLAGS}}\"\n")
    }

    /// Commands for scripts, which run Go where the package is with what the package is.
    fn commands(&self, at: RunAt, project: &GoProject<'_>) -> String {
        let packages = match self.packages.is_empty() {
            true => project.all_packages(),
            false => self.packages.clone(),
        };
        let packages: Vec<String> = packages.iter().map(quoted).collect();
        let packages = packages.join(" ");
        let dir = at.place(&project.dir);
        let linked = self.ldflags.iter().map(|flags| format!(" -ldflags {}", quoted(flags)));
        let linked: String = linked.collect();
        format!(
            "layerize_dir={dir}\n\
             layerize_go() {{ (cd \"$layerize_dir\" && exec go \"$@\" {packages}); }}\n\
             cat > /build/bin/layerize-go-build <<'LAYERIZE'\n#!/bin/sh\n\
             cd {dir} && exec go build{linked} \"$@\" {packages}\nLAYERIZE\n\
             chmod +x /build/bin/layerize-go-build\n"
        )
    }

    /// Whether C is compiled and linked with.
    fn cgo(&self) -> String {
        match self.cgo {
            Some(true) => "export CGO_ENABLED=1\n".to_owned(),
            Some(false) => "export CGO_ENABLED=0\n".to_owned(),
            None => "if [ -z \"${CGO_ENABLED:-}\" ]; then\n  \
                 CGO_ENABLED=0\n  \
                 layerize_c=$(CGO_ENABLED=1 layerize_go list -e -deps -f '{{if and .CgoFiles (not .Standard)}}C{{end}}')\n  \
                 case $layerize_c in *C*) CGO_ENABLED=1 ;; esac\nfi\nexport CGO_ENABLED\n"
                .to_owned(),
        }
    }

    /// Compiles what the package imports of Go's own library, with all that this needs.
    fn compile_library(&self, project: &GoProject<'_>, files: &[OwnFile]) -> LanguageStep {
        let script = format!("{UNITS}{}{BUILD_LIBRARY}{KEEP}", imports(project, files));
        // What other modules have is not known yet; what they change of the library is compiled with them.
        let has_c = files.iter().any(|file| file.head.imports.contains("C"));
        let default = format!("export CGO_ENABLED=${{CGO_ENABLED:-{}}}\n", u8::from(has_c));
        let cgo = self.cgo.map_or(default, |_| self.cgo());
        let preamble = format!("{PREAMBLE}export GOWORK=off\n{}{cgo}", self.flags(PUBLISHED));
        LanguageStep {
            label: "go (library)".to_owned(),
            name: "go-library".to_owned(),
            surroundings: Surroundings::Package,
            source: None,
            recipe: Recipe {
                preamble,
                script,
                units: Some(units("library", &Needed::default())),
                ..Recipe::default()
            },
        }
    }

    /// Compiles the packages of other modules, from files that import what those of the source import.
    fn add_dependencies(
        &self,
        request: &Request<'_>,
        project: &GoProject<'_>,
        files: &[OwnFile],
        needed: &Needed,
        build: &mut LanguageBuild,
    ) -> Result<(), LangError> {
        let package = request.package.name.value.0.replace(':', "-");
        let mut skeleton = project.manifest_files()?;
        skeleton.extend(
            files
                .iter()
                .map(|file| (file.path.clone(), file.head.stub().into_bytes())),
        );
        build.trees.push(GeneratedTree {
            name: format!("{package}-imports"),
            files: skeleton,
        });
        let mut recipe = build.own.clone();
        recipe.preamble.push_str(LAY);
        recipe.preamble.push_str(&self.cgo());
        recipe.script = format!("{UNITS}{}{BUILD_DEPENDENCIES}{KEEP}", imports(project, files));
        recipe.units = Some(units("dependencies", needed));
        build.steps.push(LanguageStep {
            label: format!("{} (dependencies)", request.package.name.value),
            name: format!("{package}-dependencies"),
            surroundings: Surroundings::Package,
            source: Some(Part::Tree(0)),
            recipe,
        });
        build.own.variables.insert(DEPENDENCIES.to_owned(), Part::Step(1));
        Ok(())
    }
}

/// What of Go's library is compiled before the package.
fn imports(project: &GoProject<'_>, files: &[OwnFile]) -> String {
    let imports: Vec<String> = project.std_imports(files).into_iter().collect();
    format!("layerize_imports='{}'\n", imports.join(" "))
}

/// What of a step is kept module by module, Go's own library as one of them. Go finds by itself what of it is still right.
fn units(step: &str, needed: &Needed) -> Units {
    let unit = |content: Digest| Unit {
        own: content,
        closure: content,
        at: None,
    };
    let modules = needed.zips.iter().map(|(module, hash)| {
        let id = format!("{}@{}", module.path, module.version);
        (id, unit(Digest::of(hash.to_string().as_bytes())))
    });
    let library = (LIBRARY_UNIT.to_owned(), unit(Digest::of(LIBRARY_UNIT.as_bytes())));
    Units {
        kind: UnitKind::Go,
        scope: Digest::of(format!("go {UNITS_FORMAT} {step}").as_bytes()),
        crates: modules.chain([library]).collect(),
        members: None,
    }
}

/// Files from outside: the zips, then the `go.mod`s.
fn dependencies(needed: &Needed) -> Vec<LockedDependency> {
    let file = |module: &Module, ending: &str| format!("{}-{}.{ending}", module.path.replace('/', "-"), module.version);
    let locked = |module: &Module, hash: FileHash, ending: &str, form: Form| LockedDependency {
        name: module.path.clone(),
        version: module.version.clone(),
        file: file(module, ending),
        hash,
        registry: Registry::Go,
        form,
    };
    let zips = needed.zips.iter();
    let zips = zips.map(|(module, hash)| locked(module, FileHash::GoModule(*hash), "zip", Form::GoModule));
    let mods = needed.mods.iter();
    zips.chain(mods.map(|(module, hash)| locked(module, FileHash::GoMod(*hash), "mod", Form::GoMod)))
        .collect()
}

/// The trees of modules where Go's cache has them, and their `go.mod`s in variables.
fn with_modules(needed: &Needed) -> Recipe {
    let zips = needed.zips.keys().enumerate();
    let mods = 0..needed.mods.len();
    Recipe {
        mounts: zips
            .map(|(index, module)| Mount {
                part: Part::Dependency(index),
                at: format!(
                    "{MODULES}/{}@{}",
                    escaped_go_path(&module.path),
                    escaped_go_path(&module.version)
                ),
            })
            .collect(),
        variables: mods
            .map(|index| (format!("{GO_MOD}{index}"), Part::Dependency(needed.zips.len() + index)))
            .collect(),
        ..Recipe::default()
    }
}

/// What lays the rest of Go's cache out.
fn modules_text(needed: &Needed) -> String {
    if needed.mods.is_empty() {
        return String::new();
    }
    let place = |module: &Module| {
        format!(
            "{}/@v/{}",
            escaped_go_path(&module.path),
            escaped_go_path(&module.version)
        )
    };
    let mut text = "xargs mkdir -p <<'LAYERIZE'\n".to_owned();
    for module in needed.mods.keys() {
        let _ = writeln!(text, "{MODULES}/cache/download/{}/@v", escaped_go_path(&module.path));
    }
    text.push_str("LAYERIZE\ncat > /build/go-mods <<'LAYERIZE'\n");
    for (index, module) in needed.mods.keys().enumerate() {
        let _ = writeln!(text, "{GO_MOD}{index} {}", place(module));
    }
    text.push_str("LAYERIZE\ncat > /build/go-zips <<'LAYERIZE'\n");
    for (module, hash) in &needed.zips {
        let _ = writeln!(text, "{hash} {}", place(module));
    }
    text.push_str("LAYERIZE\n");
    text.push_str(MODULES_SCRIPT);
    text
}

#[cfg(test)]
mod tests;
