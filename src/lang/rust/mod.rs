//! *Rust*: the crates that a `Cargo.lock` pins, laid out as a directory source, and Cargo run over it without a network.
//!
//! Invariant: Cargo decides what is compiled; it sees the crates of the lock and no others, at places that do not vary, so
//! that no store path of a crate can get into what it makes.

mod cargo_lock;
mod git;
mod manifest;
mod members;
mod survey;
mod toolchain;
mod units;
mod workspace;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{
    Form, GeneratedTree, LangError, LanguageBuild, LanguageStep, LockNeeds, LockedDependency, Mount, Part, Planner,
    Recipe, Registry, Renewal, Request, ShellRecipe, Surroundings, quoted, split,
};
use crate::digest::Digest;
use crate::spec::{Language, Lock, RustOptions};
use cargo_lock::{CargoLock, CrateSource};
use git::GitRepository;
pub(super) use survey::survey;
use workspace::CargoWorkspace;

/// Where the crates of Rust's own registry are in the sandbox.
const VENDOR: &str = "/build/vendor";

/// What Cargo is told beside the project's own configuration, which this overrules.
const CONFIG: &str = "/build/layerize-cargo.toml";

/// What the lock file is called; Cargo reads no other.
const LOCK: &str = "Cargo.lock";

/// The variable that holds the compiled dependencies.
const DEPENDENCIES: &str = "LAYERIZE_RUST_DEPENDENCIES";

/// Builds and installs what the package makes.
const BUILD: &str = include_str!("build.sh");

/// Compiles what the package depends on.
const BUILD_DEPENDENCIES: &str = include_str!("dependencies.sh");

/// Has Cargo find its crates, and nothing else, in a shell.
const ACTIVATE: &str = include_str!("activate.sh");

/// Gives Cargo what was compiled by [`BUILD_DEPENDENCIES`].
const LAY: &str = include_str!("lay.sh");

impl Planner for RustOptions {
    fn renewal(&self, request: &Request<'_>, names: &[String], offline: bool) -> Result<Renewal, LangError> {
        let (dir, file) = split(lock_file(request.language));
        let mut arguments = vec!["update".to_owned()];
        arguments.extend(offline.then(|| "--offline".to_owned()));
        arguments.extend(names.iter().map(|name| format!("--package={name}")));
        Ok(Renewal {
            program: "cargo",
            commands: vec![arguments],
            dir: dir.to_owned(),
            files: vec![file.to_owned()],
            variables: Vec::new(),
        })
    }

    fn plan(&self, request: &Request<'_>) -> Result<LanguageBuild, LangError> {
        let LockFile {
            path: file,
            root,
            text,
            lock,
        } = LockFile::read(request)?;
        if lock.sources().into_iter().filter(|source| source.is_default()).count() > 1 {
            let message = "crates come from two registries of which each is named as Rust's own is";
            let help = "take all of them from one, and let `cargo` write the lock file anew";
            return Err(LangError::at(format!("`{file}`"), message, help));
        }
        let workspace = CargoWorkspace::read(request.source, root)?;
        workspace.check_lock(&lock, file)?;
        toolchain::check(&workspace, request.lock)?;
        let preamble = self.preamble(root, &lock, &workspace);
        let recipe = Recipe {
            preamble: preamble.clone(),
            mounts: mounts(&lock),
            ..Recipe::default()
        };
        let own = Recipe {
            script: BUILD.to_owned(),
            shell: ShellRecipe::of(format!("{}{ACTIVATE}", recipe.preamble), &recipe.variables),
            ..recipe.clone()
        };
        let mut build = LanguageBuild {
            dependencies: dependencies(&lock, request.lock, file)?,
            own,
            ..LanguageBuild::default()
        };
        if !self.incremental {
            return Ok(build);
        }
        let mut skeleton = workspace.skeleton()?;
        let units = units::units(&lock, request.lock, &skeleton);
        let members = members::members(request, (root, &lock), &workspace, &skeleton);
        build.own.units = members.map(|members| units::of_members(&units, members));
        // A crate that is compiled with a package of the source cannot be compiled before it.
        let has_any = !lock.crates.is_empty() || !lock.repositories.is_empty();
        if has_any && !lock.crates_need_source {
            skeleton.insert(file.to_owned(), text.into_bytes());
            let units = Some(units);
            build_dependencies(&mut build, request, skeleton, Recipe { units, ..recipe });
        }
        Ok(build)
    }

    fn needs(&self, request: &Request<'_>) -> Result<LockNeeds, LangError> {
        let LockFile { path, root, lock, .. } = LockFile::read(request)?;
        let workspace = CargoWorkspace::read(request.source, root)?;
        workspace.check_lock(&lock, path)?;
        toolchain::check(&workspace, request.lock)?;
        Ok(LockNeeds {
            commits: lock.repositories.iter().map(GitRepository::named_tree).collect(),
            remarks: toolchain::told(request.source, root, request.lock)?
                .into_iter()
                .collect(),
        })
    }
}

/// Has what a package depends on compiled in a step of its own.
fn build_dependencies(
    build: &mut LanguageBuild,
    request: &Request<'_>,
    skeleton: BTreeMap<String, Vec<u8>>,
    recipe: Recipe,
) {
    let package = &request.package.name.value;
    let name = package.0.replace(':', "-");
    build.trees.push(GeneratedTree {
        name: format!("{name}-manifests"),
        files: skeleton,
    });
    build.steps.push(LanguageStep {
        label: format!("{package} (dependencies)"),
        name: format!("{name}-dependencies"),
        surroundings: Surroundings::Package,
        source: Some(Part::Tree(0)),
        recipe: Recipe {
            script: BUILD_DEPENDENCIES.to_owned(),
            ..recipe
        },
    });
    build.own.preamble.push_str(LAY);
    build.own.variables = BTreeMap::from([(DEPENDENCIES.to_owned(), Part::Step(0))]);
}

/// The lock file of a package.
struct LockFile<'a> {
    path: &'a str,
    /// The directory in which it is.
    root: &'a str,
    text: String,
    lock: CargoLock,
}

impl<'a> LockFile<'a> {
    fn read(request: &Request<'a>) -> Result<Self, LangError> {
        let path = lock_file(request.language);
        let Some(root) = path
            .strip_suffix(LOCK)
            .filter(|root| root.is_empty() || root.ends_with('/'))
        else {
            let message = "Cargo reads no lock file of another name than `Cargo.lock`";
            return Err(LangError::at(format!("`{path}`"), message, "rename it"));
        };
        let text = request.source.text(path)?.ok_or_else(|| {
            let help =
                "run `cargo generate-lockfile`, and see that `include`, `exclude` and `.gitignore` let it through";
            LangError::at(format!("`{path}`"), "the source has no lock file", help)
        })?;
        Ok(Self {
            path,
            root: root.trim_end_matches('/'),
            lock: CargoLock::parse(&text, path)?,
            text,
        })
    }
}

impl RustOptions {
    /// What makes Cargo find the crates, and nothing else. It is called through another program, so that scripts and
    /// makefiles of the user's own get the same.
    fn preamble(&self, root: &str, lock: &CargoLock, workspace: &CargoWorkspace<'_>) -> String {
        let mut text = format!("cat > {CONFIG} <<'LAYERIZE'\n");
        for source in lock.sources() {
            text.push_str(&replaced(source));
        }
        for repository in &lock.repositories {
            text.push_str(&repository.replaced());
        }
        for (name, source) in registries(lock, workspace) {
            let index = source.strip_prefix("registry+").unwrap_or(&source);
            let _ = writeln!(text, "[registries.\"{name}\"]\nindex = \"{index}\"");
        }
        text.push_str("[net]\noffline = true\n[build]\ntarget-dir = \"/build/target\"\nLAYERIZE\n");
        text.push_str("mkdir -p /build/vendor /build/cargo-home /build/bin\n");
        text.push_str("export CARGO_HOME=/build/cargo-home CARGO_INCREMENTAL=0 CARGO_BUILD_RUSTC_WRAPPER=\n");
        let _ = write!(
            text,
            "cat > /build/bin/cargo <<LAYERIZE\n#!/bin/sh\nexec $(command -v cargo) --config {CONFIG} \"\\$@\"\nLAYERIZE\n"
        );
        let profile = self.profile.as_deref().unwrap_or("release");
        let dir = format!("/build/source/{root}");
        let dir = quoted(dir.trim_end_matches('/'));
        let _ = write!(
            text,
            "cat > /build/bin/layerize-cargo-build <<'LAYERIZE'\n#!/bin/sh\ncd {dir} &&\n\
             exec cargo build --locked --profile '{profile}' -j \"$LAYERIZE_CORES\"{} \"$@\"\nLAYERIZE\n",
            flags(self)
        );
        text.push_str("chmod +x /build/bin/*\nexport PATH=/build/bin:$PATH\n");
        let _ = writeln!(text, "LAYERIZE_CARGO_PROFILE='{profile}'");
        text
    }
}

fn lock_file(language: &Language) -> &str {
    language.lock.as_ref().map_or(LOCK, |lock| &lock.value)
}

/// What the lock file pins: the crates of registries, then the repositories.
fn dependencies(lock: &CargoLock, pins: &Lock, file: &str) -> Result<Vec<LockedDependency>, LangError> {
    let mut all: Vec<LockedDependency> = lock.crates.iter().map(dependency).collect();
    for repository in &lock.repositories {
        let commit = &repository.tree.commit;
        let pin = pins.commits.get(commit).ok_or_else(|| repository.not_locked(file))?;
        let name = repository.name();
        all.push(LockedDependency {
            name: name.to_owned(),
            version: commit.short().to_owned(),
            file: format!("{name}-{}.nar", commit.short()),
            hash: pin.nar_hash.into(),
            registry: Registry::Git(Box::new(repository.tree.clone())),
            form: Form::GitCrates(repository.packages.iter().cloned().collect()),
        });
    }
    Ok(all)
}

/// Each crate in the directory of its registry, and the directories of repositories.
fn mounts(lock: &CargoLock) -> Vec<Mount> {
    let crates = lock.crates.iter().enumerate();
    let mount = crates.map(|(index, of)| Mount {
        part: Part::Dependency(index),
        at: format!("{}/{}-{}", directory(&of.source), of.name, of.version),
    });
    let repositories = lock.repositories.iter().zip(lock.crates.len()..);
    let repositories = repositories.map(|(repository, index)| Mount {
        part: Part::Dependency(index),
        at: repository.directory(),
    });
    mount.chain(repositories).collect()
}

/// Where the crates of a registry are: two may have crates of one name and version.
fn directory(source: &CrateSource) -> String {
    match source.is_default() {
        true => VENDOR.to_owned(),
        false => format!("{VENDOR}-{}", &Digest::of(source.0.as_bytes()).hex()[..8]),
    }
}

fn dependency(of: &cargo_lock::LockedCrate) -> LockedDependency {
    LockedDependency {
        name: of.name.clone(),
        version: of.version.clone(),
        file: format!("{}-{}.crate", of.name, of.version),
        hash: of.checksum.into(),
        registry: Registry::Crates {
            source: of.source.0.clone(),
        },
        form: Form::Crate,
    }
}

/// The registries that manifests name, as far as the lock file tells which they are: who names them has them in a
/// configuration outside the source.
fn registries(lock: &CargoLock, workspace: &CargoWorkspace<'_>) -> BTreeMap<String, String> {
    let mut registries = BTreeMap::new();
    for named in workspace.named_registries() {
        let others = lock
            .crates
            .iter()
            .filter(|of| of.name == named.package && !of.source.is_default());
        if let Some(of) = others.into_iter().next() {
            registries.entry(named.registry).or_insert_with(|| of.source.0.clone());
        }
    }
    registries
}

/// A source of the lock replaced by a directory of crates.
fn replaced(source: &CrateSource) -> String {
    let directory = directory(source);
    let registry = source.0.strip_prefix("registry+").unwrap_or(&source.0);
    let (name, address) = match source.is_default() {
        true => ("crates-io".to_owned(), String::new()),
        false => (
            format!("\"layerize {registry}\""),
            format!("registry = \"{registry}\"\n"),
        ),
    };
    format!(
        "[source.{name}]\n{address}replace-with = \"{directory}\"\n[source.\"{directory}\"]\ndirectory = \"{directory}\"\n"
    )
}

fn flags(options: &RustOptions) -> String {
    let mut flags = Vec::new();
    if !options.default_features {
        flags.push("--no-default-features".to_owned());
    }
    if !options.features.is_empty() {
        flags.push(format!("--features={}", options.features.join(",")));
    }
    flags.extend(options.packages.iter().map(|package| format!("--package={package}")));
    flags.extend(options.bins.iter().map(|bin| format!("--bin={bin}")));
    flags.iter().map(|flag| format!(" '{flag}'")).collect()
}
