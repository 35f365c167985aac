//! *Go*: the modules that a `go.sum` pins, laid out as Go's module cache has them, and Go run over it without a network.
//!
//! Invariant: Go decides what is compiled; it sees the modules of the lock and no others, at places that do not vary, so
//! that no store path of a module can get into what it makes.

mod go_mod;
mod go_sum;
mod imports;
mod project;
mod survey;

use std::fmt::Write as _;

use super::{
    Form, GeneratedTree, LangError, LanguageBuild, LanguageStep, LockedDependency, Mount, Part, Planner, Recipe,
    Registry, Renewal, Request, Surroundings, split,
};
use crate::digest::FileHash;
use crate::spec::{Dependency, GoOptions, Lock};
use go_mod::{GoVersion, Module};
use project::{GoProject, Needed, OwnFile};
pub(super) use survey::survey;

/// Go's module cache in the sandbox.
const MODULES: &str = "/build/modcache";

/// Lock files by name.
const LOCKS: &[&str] = &["go.sum", "go.work.sum"];

/// The variables that hold what was compiled before: of Go's own library, and of modules of others.
const LIBRARY: &str = "LAYERIZE_GO_LIBRARY";
const DEPENDENCIES: &str = "LAYERIZE_GO_DEPENDENCIES";

/// The variable that holds the `go.mod` of a module, before its number.
const GO_MOD: &str = "LAYERIZE_GO_MOD_";

/// Parts of scripts: what Go is told, the modules, what was compiled before, what is kept of what was compiled.
const PREAMBLE: &str = include_str!("preamble.sh");
const MODULES_SCRIPT: &str = include_str!("modules.sh");
const LAY: &str = include_str!("lay.sh");
const KEEP: &str = include_str!("keep.sh");
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

    fn plan(&self, request: &Request<'_>) -> Result<LanguageBuild, LangError> {
        let lock = request.language.lock.as_ref().map_or(LOCKS[0], |lock| &lock.value);
        let (dir, name) = lock.rsplit_once('/').unwrap_or(("", lock));
        if !LOCKS.contains(&name) {
            let message = "Go reads no lock file of another name than `go.sum` and `go.work.sum`";
            return Err(LangError::at(format!("`{lock}`"), message, "rename it"));
        }
        let project = GoProject::read(request.source, dir)?;
        self.check_go(&project, request.lock)?;
        let is_vendored = project.is_vendored();
        let needed = match is_vendored {
            true => Needed::default(),
            false => project.needed()?,
        };
        let mut build = LanguageBuild {
            dependencies: dependencies(&needed),
            ..LanguageBuild::default()
        };
        let files = project.own_files()?;
        let settings = self.settings(&project, is_vendored);
        build.own = Recipe {
            preamble: format!("{settings}{}", self.commands(&project)),
            script: BUILD.to_owned(),
            ..with_modules(&needed)
        };
        build.own.preamble.push_str(&modules_text(&needed));
        if self.incremental {
            build.steps.push(self.compile_library(&project, &files));
            build.own.variables.insert(LIBRARY.to_owned(), Part::Step(0));
            if !needed.zips.is_empty() {
                self.add_dependencies(request, &project, &files, &mut build)?;
            }
            build.own.preamble.push_str(LAY);
        }
        build.own.preamble.push_str(&self.cgo());
        build.own.activate = build.own.preamble.clone();
        Ok(build)
    }
}

impl GoOptions {
    /// Go is to be as new as the source asks: older releases read newer sources otherwise than they are meant.
    fn check_go(&self, project: &GoProject<'_>, lock: &Lock) -> Result<(), LangError> {
        let toolchain = self.toolchain();
        let Dependency::Debian(deb) = &toolchain else {
            return Ok(());
        };
        let there = lock.debs.get(deb).and_then(|locked| {
            let version = locked.version.as_str();
            GoVersion::parse(version.split_once(':').map_or(version, |(_, version)| version))
        });
        let (Some(there), Some((wanted, file))) = (there, project.go()) else {
            return Ok(());
        };
        // Debian's version of the package that brings the newest Go says nothing of the last part.
        if (wanted.major, wanted.minor) <= (there.major, there.minor) {
            return Ok(());
        }
        let message = format!("it is for Go {wanted}, and `{toolchain}` is Go {there}");
        let help = "make a package of a newer Go (`layerize help languages` shows one) and name it by `toolchain`";
        Err(LangError::at(format!("`{file}`"), message, help))
    }

    /// What Go is told.
    fn settings(&self, project: &GoProject<'_>, is_vendored: bool) -> String {
        let mut text = PREAMBLE.to_owned();
        let work = match &project.work {
            Some((path, _)) => quoted(&format!("/build/source/{path}")),
            None => "off".to_owned(),
        };
        let modules = if is_vendored { "vendor" } else { "readonly" };
        let _ = writeln!(text, "export GOWORK={work}");
        text.push_str(&self.flags(&format!("-mod={modules} ")));
        text
    }

    fn flags(&self, first: &str) -> String {
        let tags = match self.tags.as_slice() {
            [] => String::new(),
            tags => format!(" -tags={}", tags.join(",")),
        };
        format!("export GOFLAGS=\"{first}-trimpath -buildvcs=false -p=$LAYERIZE_CORES{tags}${{GOFLAGS:+ $GOFLAGS}}\"\n")
    }

    /// Commands for scripts, which run Go where the package is with what the package is.
    fn commands(&self, project: &GoProject<'_>) -> String {
        let packages = match self.packages.is_empty() {
            true => project.all_packages(),
            false => self.packages.clone(),
        };
        let packages: Vec<String> = packages.iter().map(|package| quoted(package)).collect();
        let packages = packages.join(" ");
        let dir = quoted(format!("/build/source/{}", project.dir).trim_end_matches('/'));
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
        let script = format!("{}{BUILD_LIBRARY}{KEEP}", imports(project, files));
        // What other modules have is not known yet; what they change of the library is compiled with them.
        let has_c = files.iter().any(|file| file.head.imports.contains("C"));
        let default = format!("export CGO_ENABLED=${{CGO_ENABLED:-{}}}\n", u8::from(has_c));
        let cgo = self.cgo.map_or(default, |_| self.cgo());
        let preamble = format!("{PREAMBLE}export GOWORK=off\n{}{cgo}", self.flags(""));
        LanguageStep {
            label: "go (library)".to_owned(),
            name: "go-library".to_owned(),
            surroundings: Surroundings::Package,
            source: None,
            recipe: Recipe {
                preamble,
                script,
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
        recipe.script = format!("{}{BUILD_DEPENDENCIES}{KEEP}", imports(project, files));
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
                at: format!("{MODULES}/{}@{}", escaped(&module.path), escaped(&module.version)),
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
    let place = |module: &Module| format!("{}/@v/{}", escaped(&module.path), escaped(&module.version));
    let mut text = "xargs mkdir -p <<'LAYERIZE'\n".to_owned();
    for module in needed.mods.keys() {
        let _ = writeln!(text, "{MODULES}/cache/download/{}/@v", escaped(&module.path));
    }
    text.push_str("LAYERIZE\ncat > /build/go-mods <<'LAYERIZE'\n");
    for (index, module) in needed.mods.keys().enumerate() {
        let _ = writeln!(text, "{index} {}", place(module));
    }
    text.push_str("LAYERIZE\ncat > /build/go-zips <<'LAYERIZE'\n");
    for (module, hash) in &needed.zips {
        let _ = writeln!(text, "{hash} {}", place(module));
    }
    text.push_str("LAYERIZE\n");
    text.push_str(MODULES_SCRIPT);
    text
}

/// A path or version as Go's cache has it: `!x` for `X` (golang.org/x/mod/module, `EscapePath`).
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c.is_ascii_uppercase() {
            out.push('!');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// A word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests;
