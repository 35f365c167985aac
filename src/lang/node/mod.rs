//! *Node*: the packages that a lock file pins, each a store path of its own, laid out as real files in the one `node_modules`
//! that npm would make, beside the project's own sources.
//!
//! Invariant: no link leads from one store path to another: Node resolves links before it looks for what a package needs. No
//! script of a package is run unless the spec names it.

mod git;
mod locked;
mod manifest;
mod package_lock;
mod platform;
mod pnpm_lock;
mod survey;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{
    FileKind, Form, Laid, LangError, LanguageBuild, LanguageStep, LockNeeds, LockedDependency, Part, Planner, Recipe,
    Registry, Renewal, Request, ShellRecipe, SourceTree, Surroundings, quoted, split, within,
};
use crate::digest::FileHash;
use crate::spec::{Language, NodeOmit, NodeOptions, Spanned};
use locked::{Content, Locked, Nodes, Published, Tarball};
use manifest::Manifest;
use platform::Platform;
pub(super) use survey::survey;

/// The lock files that are looked for, in this order; that of the first two is npm's own.
const LOCK_FILES: &[&str] = &["npm-shrinkwrap.json", "package-lock.json", PNPM_LOCK];

/// The lock file of pnpm.
const PNPM_LOCK: &str = "pnpm-lock.yaml";

/// Lays out, runs and installs.
const PROGRAM: &str = include_str!("node.cjs");

/// The variable that holds the store path of a package, before its number.
const PACKAGE_VARIABLE: &str = "LAYERIZE_NODE_";

/// The variable that holds what packages' install scripts made of them.
const SCRIPTS_VARIABLE: &str = "LAYERIZE_NODE_SCRIPTS";

/// What is done, as the program reads it.
#[derive(Serialize)]
struct Plan<'a> {
    /// What the package is called.
    name: &'a str,
    /// The directory of the source that the lock file is in.
    dir: &'a str,
    build: Option<&'a str>,
    packages: Vec<PackageOfPlan<'a>>,
}

/// A package at its place, as the program reads it.
#[derive(Serialize)]
struct PackageOfPlan<'a> {
    at: &'a str,
    /// The variable that holds its store path.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// Where it is in that store path.
    #[serde(skip_serializing_if = "Option::is_none")]
    below: Option<&'a str>,
    /// The directory of the project that it is a link to.
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<&'a str>,
    #[serde(skip_serializing_if = "is_empty")]
    bins: &'a BTreeMap<String, String>,
    /// Whether its own `package.json` says what its programs are.
    #[serde(rename = "readsBins", skip_serializing_if = "is_false")]
    reads_bins: bool,
    kept: bool,
    /// Whether its install scripts are run.
    #[serde(skip_serializing_if = "is_false")]
    scripts: bool,
    /// Whether it is a repository as it is, of which nothing was made yet.
    #[serde(skip_serializing_if = "is_false")]
    repository: bool,
}

fn is_empty(bins: &&BTreeMap<String, String>) -> bool {
    bins.is_empty()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Planner for NodeOptions {
    fn renewal(&self, request: &Request<'_>, names: &[String], offline: bool) -> Result<Renewal, LangError> {
        let path = lock_file(request.language, request.source)?;
        let (dir, file) = split(&path);
        let (program, flags): (_, &[&str]) = match file {
            PNPM_LOCK => ("pnpm", &["update", "--lockfile-only"]),
            // Nothing is laid out, nothing of what was downloaded is run.
            _ => (
                "npm",
                &[
                    "update",
                    "--package-lock-only",
                    "--ignore-scripts",
                    "--no-audit",
                    "--no-fund",
                ],
            ),
        };
        let mut arguments: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        arguments.extend(offline.then(|| "--offline".to_owned()));
        arguments.extend(names.iter().cloned());
        Ok(Renewal {
            program,
            commands: vec![arguments],
            dir: dir.to_owned(),
            files: vec![file.to_owned(), "package.json".to_owned()],
            variables: Vec::new(),
        })
    }

    fn plan(&self, request: &Request<'_>) -> Result<LanguageBuild, LangError> {
        let file = lock_file(request.language, request.source)?;
        let dir = file.rsplit_once('/').map_or("", |(dir, _)| dir);
        let manifest = Manifest::read(request.source, &within(dir, "package.json"))?;
        self.check_build(&manifest, &within(dir, "package.json"))?;
        let nodes = nodes(request.source, &file, &manifest)?;
        let platform = Platform::of(request.lock);
        let choose = |options: &NodeOptions| {
            let locked = locked::choose(&nodes, &file, options, &platform, request.lock)?;
            check_links(&locked, request.source, dir, &file)?;
            check_tarballs(&locked, request.source, dir, &file)?;
            Ok::<_, LangError>(locked)
        };
        let locked = choose(self)?;
        // A shell is for development; what it lacks is no reason not to build.
        let (in_shell, lacking) = match choose(&self.with_dev()) {
            Ok(all) => (all, None),
            Err(error) => (locked.clone(), Some(error.to_string())),
        };
        let scripted = scripted(&locked, &self.scripts, &file)?;

        let tarballs = Tarballs::of([&locked, &in_shell]);
        let of_dependency = |tarball: &&Tarball| dependency(tarball, request.source, dir);
        let mut build = LanguageBuild {
            dependencies: tarballs.all.iter().map(of_dependency).collect(),
            ..LanguageBuild::default()
        };
        let number = |tarball: &Tarball| tarballs.numbers[&Tarballs::key(tarball)];
        let name = &request.package.name.value.0;
        let planned = Planned {
            name,
            dir,
            build: self.build.as_deref(),
            locked: &locked,
            scripted: &scripted,
            number: &number,
        };
        let shell = Planned {
            locked: &in_shell,
            ..planned
        };
        let shell = shell.recipe(true);
        if !scripted.is_empty() {
            build.steps.push(LanguageStep {
                label: format!("{name} (install scripts)"),
                name: format!("{}-install-scripts", name.replace(':', "-")),
                surroundings: Surroundings::Package,
                source: None,
                recipe: Recipe {
                    script: "layerize_node scripts \"$out\"\n".to_owned(),
                    ..planned.recipe(false)
                },
            });
        }
        build.own = Recipe {
            script: match self.build {
                Some(_) => "layerize_node_modules\nlayerize_node_build\nlayerize_node_install\n".to_owned(),
                None => "layerize_node_install\n".to_owned(),
            },
            shell: ShellRecipe {
                activate: activate(&shell, dir, lacking.as_deref()),
                variables: shell.variables,
                views: views(&in_shell, dir),
            },
            ..planned.recipe(true)
        };
        build.laid = Some(planned.laid());
        Ok(build)
    }

    fn needs(&self, request: &Request<'_>) -> Result<LockNeeds, LangError> {
        let file = lock_file(request.language, request.source)?;
        let (dir, _) = split(&file);
        let manifest = Manifest::read(request.source, &within(dir, "package.json"))?;
        Ok(LockNeeds {
            commits: git::trees(&nodes(request.source, &file, &manifest)?, &file)?,
            ..LockNeeds::default()
        })
    }
}

/// The packages of a lock file, by their places.
fn nodes(source: &SourceTree, file: &str, manifest: &Manifest) -> Result<Nodes, LangError> {
    let text = source.text(file)?.ok_or_else(|| no_lock_file(file))?;
    match file.ends_with(PNPM_LOCK) {
        true => pnpm_lock::parse(&text, file, &manifest.wanted_apart_from_peers()),
        false => package_lock::parse(&text, file, &manifest.wanted()),
    }
}

/// Tarballs, each once.
#[derive(Default)]
struct Tarballs<'a> {
    all: Vec<&'a Tarball>,
    numbers: BTreeMap<(&'a str, &'a str, FileHash), usize>,
}

impl<'a> Tarballs<'a> {
    /// Those of all, in the order of the first, then of the second that the first lacks.
    fn of(all: [&'a Locked; 2]) -> Self {
        let mut found = Self::default();
        for placed in all.into_iter().flat_map(|locked| locked.packages.values()) {
            if let Content::Tarball(tarball) = &placed.content {
                found.numbers.entry(Self::key(tarball)).or_insert_with(|| {
                    found.all.push(tarball);
                    found.all.len() - 1
                });
            }
        }
        found
    }

    fn key(tarball: &Tarball) -> (&str, &str, FileHash) {
        (&tarball.name, &tarball.version, tarball.hash)
    }
}

/// What lays packages out where the user's own sources are, and has their programs found.
fn activate(shell: &Recipe, dir: &str, lacking: Option<&str>) -> String {
    let lacking = lacking.map(|why| {
        let note = format!("note: packages that only development needs are not here: {why}");
        format!("echo {} >&2\n", quoted(&note))
    });
    let programs = quoted(within(dir, "node_modules/.bin"));
    format!(
        "{}{}layerize_node shell && export PATH=\"$LAYERIZE_SOURCE\"/{programs}:$PATH:/build/node/bin\n",
        shell.preamble,
        lacking.unwrap_or_default(),
    )
}

/// The outermost directories of packages, relative to the source.
fn views(locked: &Locked, dir: &str) -> Vec<String> {
    let outermost = |at: &String| Some(within(dir, &at[..at.find(locked::MODULES)? + locked::MODULES.len()]));
    let all: BTreeSet<String> = locked.packages.keys().filter_map(outermost).collect();
    all.into_iter().collect()
}

impl NodeOptions {
    /// With what development needs.
    fn with_dev(&self) -> Self {
        let omit = NodeOmit {
            dev: false,
            ..self.omit
        };
        Self { omit, ..self.clone() }
    }

    /// The script that builds the project is there.
    fn check_build(&self, manifest: &Manifest, file: &str) -> Result<(), LangError> {
        match &self.build {
            Some(build) if !manifest.scripts.contains_key(build) => {
                let names: Vec<&str> = manifest.scripts.keys().map(String::as_str).collect();
                let help = match names.as_slice() {
                    [] => "it has none: leave `build` out".to_owned(),
                    names => format!("its scripts are {}", names.join(", ")),
                };
                Err(LangError::at(
                    format!("`{file}`"),
                    format!("there is no script `{build}`"),
                    help,
                ))
            }
            _ => Ok(()),
        }
    }
}

/// All that the program's plan is made of.
struct Planned<'a> {
    name: &'a str,
    dir: &'a str,
    build: Option<&'a str>,
    locked: &'a Locked,
    /// The places of packages whose install scripts are run.
    scripted: &'a [&'a str],
    number: &'a dyn Fn(&Tarball) -> usize,
}

impl Planned<'_> {
    /// What a script finds; once install scripts were run, what they made of packages stands in place of these.
    fn recipe(&self, is_after_scripts: bool) -> Recipe {
        let mut variables = BTreeMap::new();
        let mut packages = Vec::new();
        for (at, placed) in &self.locked.packages {
            let is_scripted = self.scripted.contains(&at.as_str());
            let (from, below) = match &placed.content {
                Content::Tarball(_) if is_scripted && is_after_scripts => {
                    variables.insert(SCRIPTS_VARIABLE.to_owned(), Part::Step(0));
                    (Some(SCRIPTS_VARIABLE.to_owned()), Some(at.as_str()))
                }
                Content::Tarball(tarball) => {
                    let number = (self.number)(tarball);
                    let variable = format!("{PACKAGE_VARIABLE}{number}");
                    variables.insert(variable.clone(), Part::Dependency(number));
                    (Some(variable), None)
                }
                Content::Link(_) | Content::Bundled => (None, None),
            };
            let link = match &placed.content {
                // Install scripts are run before the project's own directories are there.
                Content::Link(target) if !is_after_scripts && !is_of_packages(target) => continue,
                Content::Link(target) => Some(target.as_str()),
                _ => None,
            };
            packages.push(PackageOfPlan {
                at,
                from,
                below,
                link,
                bins: &placed.bins,
                reads_bins: placed.reads_bins,
                kept: placed.kept,
                scripts: is_scripted && !is_after_scripts,
                repository: placed.content.is_repository() && !(is_scripted && is_after_scripts),
            });
        }
        let plan = Plan {
            name: self.name,
            dir: self.dir,
            build: self.build,
            packages,
        };
        let plan = serde_json::to_string(&plan).expect("strings and maps of strings are JSON");
        let preamble = format!(
            "mkdir -p /build/node\ncat > /build/node/plan.json <<'LAYERIZE'\n{plan}\nLAYERIZE\n\
             cat > /build/node/node.cjs <<'LAYERIZE'\n{PROGRAM}LAYERIZE\n{FUNCTIONS}"
        );
        Recipe {
            preamble,
            variables,
            ..Recipe::default()
        }
    }
}

impl Planned<'_> {
    /// What the package's store path is taken apart into: the packages as their tarballs have them, and the rest.
    fn laid(&self) -> Laid {
        let plain = self.locked.packages.iter().filter(|(at, placed)| {
            let is_changed = self.scripted.contains(&at.as_str());
            placed.kept && !is_changed
        });
        let parts = plain.filter_map(|(at, placed)| match &placed.content {
            Content::Tarball(tarball) => Some(((self.number)(tarball), within(self.dir, at))),
            Content::Link(_) | Content::Bundled => None,
        });
        Laid {
            parts: parts.collect(),
            rest: Recipe {
                script: "layerize_node rest \"$LAYERIZE_PACKAGE\" \"$out\" \"$LAYERIZE_AT\"\n".to_owned(),
                ..self.recipe(true)
            },
        }
    }
}

/// What stands for the program in scripts, the user's own among them.
const FUNCTIONS: &str = "layerize_node() {\n  node /build/node/node.cjs \"$@\"\n}\n\
                         layerize_node_modules() {\n  layerize_node lay\n}\n\
                         layerize_node_build() {\n  layerize_node build\n}\n\
                         layerize_node_install() {\n  layerize_node install \"$out\"\n}\n";

/// The lock file that the spec names, or the first that is there.
fn lock_file(language: &Language, source: &SourceTree) -> Result<String, LangError> {
    let file = match &language.lock {
        Some(lock) => lock.value.clone(),
        None => {
            let known = ["yarn.lock", "bun.lock", "bun.lockb"];
            let found = LOCK_FILES.iter().chain(&known).find(|name| source.is_file(name));
            (*found.ok_or_else(|| no_lock_file("package-lock.json"))?).to_owned()
        }
    };
    let name = file.rsplit('/').next().unwrap_or(&file);
    if LOCK_FILES.contains(&name) {
        return Ok(file);
    }
    let message = match name {
        "yarn.lock" => {
            "lock files of yarn say nothing of where packages are laid, and new ones have hashes of yarn's own archives"
        }
        _ => "this is no lock file that is known",
    };
    let help = "`npm install --package-lock-only` writes a `package-lock.json`, from `yarn.lock` with the same versions; \
                name it by `lock` where both stay";
    Err(LangError::at(format!("`{file}`"), message, help))
}

fn no_lock_file(file: &str) -> LangError {
    let help = "run `npm install --package-lock-only`, or name the file by `lock`; see that `include`, `exclude` and \
                `.gitignore` let it through";
    LangError::at(format!("`{file}`"), "the source has no lock file", help)
}

/// Whether a link leads to a package, and not to a directory of the project's own.
fn is_of_packages(target: &str) -> bool {
    target.starts_with("node_modules/")
}

/// What links lead to is in the source.
fn check_links(locked: &Locked, source: &SourceTree, dir: &str, file: &str) -> Result<(), LangError> {
    for (at, placed) in &locked.packages {
        let Content::Link(target) = &placed.content else {
            continue;
        };
        let path = within(dir, target);
        let is_there = path.is_empty() || is_of_packages(target) || source.kind(&path) == Some(FileKind::Directory);
        if !is_there {
            let message = format!("`{at}` is a link to `{target}`, and the source has no such directory");
            let help = "see that `include`, `exclude` and `.gitignore` let it through";
            return Err(LangError::at(format!("`{file}`, `{at}`"), message, help));
        }
    }
    Ok(())
}

/// The places of the packages whose install scripts are run.
fn scripted<'a>(locked: &'a Locked, names: &[Spanned<String>], file: &str) -> Result<Vec<&'a str>, LangError> {
    let mut places = Vec::new();
    for Spanned { value: name, .. } in names {
        let called = locked.packages.iter().filter(|(_, placed)| match &placed.content {
            Content::Tarball(tarball) => tarball.name == *name,
            Content::Link(_) | Content::Bundled => false,
        });
        let called: Vec<_> = called.collect();
        let message = match called.as_slice() {
            [] => format!("`scripts` names `{name}`, which is not among the packages that are laid out"),
            called
                if called
                    .iter()
                    .all(|(_, placed)| placed.has_scripts == Some(false) && !placed.content.is_repository()) =>
            {
                format!("`scripts` names `{name}`, which has no install scripts")
            }
            called => {
                places.extend(called.iter().map(|(place, _)| place.as_str()));
                continue;
            }
        };
        let with = locked
            .packages
            .values()
            .filter(|placed| placed.has_scripts == Some(true));
        let with: Vec<&str> = with
            .filter_map(|placed| match &placed.content {
                Content::Tarball(tarball) => Some(tarball.name.as_str()),
                _ => None,
            })
            .collect();
        let help = match with.as_slice() {
            [] => "leave it out: no package has any".to_owned(),
            with => format!("those that have some: {}", with.join(", ")),
        };
        return Err(LangError::at(format!("`{file}`"), message, help));
    }
    Ok(places)
}

/// Tarballs that are files of the project are in the source.
fn check_tarballs(locked: &Locked, source: &SourceTree, dir: &str, file: &str) -> Result<(), LangError> {
    for (at, placed) in &locked.packages {
        if let Content::Tarball(Tarball {
            name,
            from: Published::InSource(path),
            ..
        }) = &placed.content
            && !source.is_file(&within(dir, path))
        {
            let message = format!("`{name}` is the tarball `{path}`, and the source has no such file");
            let help = "see that `include`, `exclude` and `.gitignore` let it through";
            return Err(LangError::at(format!("`{file}`, `{at}`"), message, help));
        }
    }
    Ok(())
}

fn dependency(tarball: &Tarball, source: &SourceTree, dir: &str) -> LockedDependency {
    let Tarball {
        name,
        version,
        hash,
        from,
    } = tarball;
    let url = match from {
        Published::InRegistry => None,
        Published::At(url) => Some(url.clone()),
        Published::InSource(path) => source.address(&within(dir, path)),
        Published::InRepository(_) => None,
    };
    let short = name.rsplit('/').next().unwrap_or(name);
    let (file, registry) = match from {
        Published::InRepository(tree) => (
            format!("{short}-{}.nar", tree.commit.short()),
            Registry::Git(tree.clone()),
        ),
        _ => (format!("{short}-{version}.tgz"), Registry::Npm { url }),
    };
    LockedDependency {
        name: name.clone(),
        version: version.clone(),
        file,
        hash: *hash,
        registry,
        form: Form::NpmPackage,
    }
}

#[cfg(test)]
mod tests;
