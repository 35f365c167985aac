//! What a package's *language* asks for, as derivations: a step for each dependency that its lock file pins, the steps that
//! are done before the package's own, and what that takes from them.
//!
//! Invariant: pure; every part that the language names comes before the step that needs it.

use std::collections::{BTreeMap, BTreeSet};

use super::make::{Maker, store_name};
use super::script::{Purpose, resolve, unique};
use super::{Action, CrateName, Derivation, Download, Input, Origin, Script};
use crate::lang::{
    Form, Laid, LanguageBuild, LanguageStep, LockedDependency, Part, Recipe, Registry, Surroundings, Units,
};
use crate::spec::{Diagnostic, Image, Package};
use crate::store_path::StorePath;

/// What a package takes from its language, and where the trees are that were made for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LanguageSource {
    /// What the lock file and the source come to.
    pub build: LanguageBuild,
    /// The store path of each of its [trees](LanguageBuild::trees), in their order.
    pub trees: Vec<StorePath>,
}

/// What the script of a package takes from its language, for builds and shells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LanguageInputs {
    /// What the shell runs before the script.
    pub preamble: String,
    /// The script of a package that has none of its own.
    pub script: String,
    /// Variables; the package's own win.
    pub env: BTreeMap<String, String>,
    /// What the script finds at other places than in the store, by these.
    pub mounts: BTreeMap<String, Input>,
    /// What the output refers to.
    pub runtime: Vec<Input>,
    /// Variables that hold store paths.
    pub variables: BTreeMap<String, Input>,
    /// What of the script's work is kept crate by crate.
    pub units: Option<Units>,
    /// What a shell of the user's gets instead.
    pub shell: ShellInputs,
    /// Published files whose content the source holds, for what is stated of the output.
    pub vendored: Vec<Download>,
}

/// What a shell of the user's takes from a language.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ShellInputs {
    /// What it runs first.
    pub activate: String,
    /// Variables that hold store paths.
    pub variables: BTreeMap<String, Input>,
    /// Directories of the user's source, relative to it, in whose place it has others.
    pub views: Vec<String>,
}

impl LanguageInputs {
    /// The script as it is run: what the language puts before the user's own text, or before its own.
    pub(super) fn whole_script(&self, own: Option<&str>) -> String {
        format!("{}{}", self.preamble, own.unwrap_or(&self.script))
    }

    /// Gives all but the script's text to `script`.
    pub(super) fn apply(&self, script: &mut Script) {
        for (name, value) in &self.env {
            script.env.entry(name.clone()).or_insert_with(|| value.clone());
        }
        script.mounts.clone_from(&self.mounts);
        script.variables.clone_from(&self.variables);
        script.units.clone_from(&self.units);
        script.runtime.extend(self.runtime.iter().cloned());
        script.runtime = unique(std::mem::take(&mut script.runtime));
    }
}

/// The steps that the parts of a language's build became.
struct Parts<'a> {
    source: Option<&'a Input>,
    dependencies: Vec<Input>,
    trees: &'a [StorePath],
    steps: Vec<Input>,
}

impl Parts<'_> {
    fn input(&self, part: Part) -> Option<Input> {
        match part {
            Part::Source => self.source.cloned(),
            Part::Dependency(index) => self.dependencies.get(index).cloned(),
            Part::Tree(index) => self.trees.get(index).cloned().map(Input::Path),
            Part::Step(index) => self.steps.get(index).cloned(),
        }
    }

    fn variables(&self, parts: &BTreeMap<String, Part>) -> Option<BTreeMap<String, Input>> {
        let parts = parts.iter();
        parts
            .map(|(name, part)| Some((name.clone(), self.input(*part)?)))
            .collect()
    }

    /// What a recipe names; `None` where that comes later or is nowhere.
    fn inputs(&self, recipe: &Recipe) -> Option<LanguageInputs> {
        let mounts = recipe.mounts.iter();
        Some(LanguageInputs {
            preamble: recipe.preamble.clone(),
            script: recipe.script.clone(),
            env: recipe.env.clone(),
            units: recipe.units.clone(),
            shell: ShellInputs {
                activate: recipe.shell.activate.clone(),
                variables: self.variables(&recipe.shell.variables)?,
                views: recipe.shell.views.clone(),
            },
            vendored: Vec::new(),
            mounts: mounts
                .map(|mount| Some((mount.at.clone(), self.input(mount.part)?)))
                .collect::<Option<_>>()?,
            runtime: recipe
                .runtime
                .iter()
                .map(|part| self.input(*part))
                .collect::<Option<_>>()?,
            variables: self.variables(&recipe.variables)?,
        })
    }
}

impl Maker<'_> {
    /// Adds the steps of a package's language; gives what its own script takes from them.
    pub(super) fn language(
        &mut self,
        package: &Package,
        source: Option<&Input>,
    ) -> Result<Option<LanguageInputs>, Box<Diagnostic>> {
        let name = &package.name.value;
        let (Some(_), Some(planned)) = (&package.language, self.languages.get(name)) else {
            return Ok(None);
        };
        let mut parts = Parts {
            source,
            dependencies: Vec::new(),
            trees: &planned.trees,
            steps: Vec::new(),
        };
        for dependency in &planned.build.dependencies {
            let input = self.add(locked(dependency));
            parts.dependencies.push(input);
        }
        for step in &planned.build.steps {
            let input = self.language_step(package, step, &parts)?;
            parts.steps.push(input);
        }
        let own = parts.inputs(&planned.build.own).ok_or_else(|| misplaced(package))?;
        Ok(Some(LanguageInputs {
            vendored: planned.build.vendored.iter().map(download).collect(),
            ..own
        }))
    }

    /// What stands at `/` of an image that lays packages out.
    pub(super) fn laid(&mut self, image: &Image) -> Result<Vec<(Input, String, String)>, Box<Diagnostic>> {
        let mut laid = Vec::new();
        for (at, named) in &image.lay {
            let at = at.trim_start_matches('/');
            let package = self.workspace.packages.get(&named.value);
            let planned = self.languages.get(&named.value);
            let Some((package, planned, Laid { parts, rest })) = package
                .zip(planned)
                .and_then(|(package, planned)| Some((package, planned, planned.build.laid.as_ref()?)))
            else {
                let message = format!("package `{}` has no parts that an image could lay out", named.value);
                let diagnostic = Diagnostic::new(message).at(named.span.clone(), "not a Node project");
                return Err(Box::new(diagnostic.help("name it in `contents`")));
            };
            for (number, place) in parts {
                let Some(dependency) = planned.build.dependencies.get(*number) else {
                    return Err(misplaced(package));
                };
                let mut derivation = locked(dependency);
                if let Action::UnpackNpm { at: to, .. } = &mut derivation.action {
                    *to = Some(format!("{at}/{place}"));
                }
                let input = self.add(derivation);
                laid.push((input, format!("npm:{}", dependency.name), dependency.version.clone()));
            }
            let rest = self.rest(package, planned, rest, at)?;
            let version = package.version.as_ref().map(|version| version.value.clone());
            laid.push((rest, named.value.to_string(), version.unwrap_or_default()));
        }
        Ok(laid)
    }

    /// The step that makes what of a package is in none of its parts.
    fn rest(
        &mut self,
        package: &Package,
        planned: &LanguageSource,
        recipe: &Recipe,
        at: &str,
    ) -> Result<Input, Box<Diagnostic>> {
        let name = &package.name.value;
        let made = self
            .plan
            .packages
            .get(name)
            .cloned()
            .ok_or_else(|| misplaced(package))?;
        let dependencies = planned.build.dependencies.iter().map(locked).collect::<Vec<_>>();
        let mut parts = Parts {
            source: None,
            dependencies: dependencies.into_iter().map(|step| self.add(step)).collect(),
            trees: &planned.trees,
            steps: Vec::new(),
        };
        for step in &planned.build.steps {
            let input = self.language_step(package, step, &parts)?;
            parts.steps.push(input);
        }
        let inputs = parts.inputs(recipe).ok_or_else(|| misplaced(package))?;
        let mut script = Script {
            runtime: Vec::new(),
            // An image that lays it out does not have its store path.
            no_references: vec![made.clone()],
            strip_references: Vec::new(),
            source_file: None,
            ..self
                .scripts()
                .of_text(package, inputs.whole_script(None), None, Purpose::Build)?
        };
        inputs.apply(&mut script);
        script.variables.insert("LAYERIZE_PACKAGE".to_owned(), made);
        script.env.insert("LAYERIZE_AT".to_owned(), at.to_owned());
        Ok(self.add(Derivation {
            label: format!("{name} (laid out)"),
            name: store_name(&format!("{}-laid-out", name.0.replace(':', "-"))),
            action: Action::Script(Box::new(script)),
        }))
    }

    fn language_step(
        &mut self,
        package: &Package,
        step: &LanguageStep,
        parts: &Parts<'_>,
    ) -> Result<Input, Box<Diagnostic>> {
        let inputs = parts.inputs(&step.recipe).ok_or_else(|| misplaced(package))?;
        let source = step.source.and_then(|part| parts.input(part));
        let text = inputs.whole_script(None);
        let scripts = self.scripts();
        let mut script = match &step.surroundings {
            Surroundings::Package => Script {
                // What the package is to refer to says nothing of what is built before it.
                runtime: Vec::new(),
                no_references: Vec::new(),
                strip_references: Vec::new(),
                source_file: None,
                script: text.clone(),
                ..scripts.of_text(package, text, source, Purpose::Build)?
            },
            Surroundings::Debs(names) => {
                let resolution = resolve(self.lock, names, &step.label, &package.name.span)?;
                Script {
                    script: text,
                    system: scripts.system(),
                    emulator: scripts.plan.emulator.clone(),
                    source,
                    root: scripts.debs(resolution.ordered())?,
                    declared: scripts.declared(&resolution)?,
                    prebuilt: true,
                    timeout_seconds: package.timeout_seconds,
                    ..Script::default()
                }
            }
        };
        inputs.apply(&mut script);
        Ok(self.add(Derivation {
            label: step.label.clone(),
            name: store_name(&step.name),
            action: Action::Script(Box::new(script)),
        }))
    }
}

/// A language whose plan names a part before it is there; the plan is ours, so this is a fault of layerize.
fn misplaced(package: &Package) -> Box<Diagnostic> {
    let message = format!(
        "the plan of package `{}` needs a step that comes later",
        package.name.value
    );
    Box::new(Diagnostic::new(message).help("this is a fault of layerize: please report it"))
}

/// Unpacks an archive without its first `strip` directories.
fn unpacked(archive: Download, strip: u32) -> Action {
    Action::Unpack {
        archive,
        strip: Some(strip),
        or_keep: false,
    }
}

/// Where a locked dependency is published.
fn origin(dependency: &LockedDependency) -> Origin {
    let LockedDependency { name, version, .. } = dependency;
    match &dependency.registry {
        Registry::Crates { source } => Origin::Crate {
            name: name.clone(),
            version: version.clone(),
            registry: source.clone(),
        },
        Registry::Python { indexes, url } => Origin::Python {
            project: name.clone(),
            version: version.clone(),
            indexes: indexes.clone(),
            url: url.clone(),
        },
        Registry::Go => Origin::Go {
            module: name.clone(),
            version: version.clone(),
        },
        Registry::Git(tree) => Origin::Git {
            package: name.clone(),
            tree: tree.as_ref().clone(),
        },
        Registry::Npm { url } => Origin::Npm {
            name: name.clone(),
            version: version.clone(),
            url: url.clone(),
        },
    }
}

/// The file of a locked dependency.
fn download(dependency: &LockedDependency) -> Download {
    Download {
        name: dependency.file.clone(),
        hash: dependency.hash,
        size: None,
        origin: origin(dependency),
    }
}

/// The step that takes a locked dependency.
fn locked(dependency: &LockedDependency) -> Derivation {
    let LockedDependency { name, version, .. } = dependency;
    let download = download(dependency);
    let (prefix, action) = match &dependency.form {
        Form::GitCrates(crates) => {
            let crates = crates.iter().map(|(name, version)| CrateName {
                name: name.clone(),
                version: version.clone(),
            });
            let crates = crates.collect();
            (
                "git-crates",
                Action::UnpackGitCrates {
                    archive: download,
                    crates,
                },
            )
        }
        Form::Crate => ("crate", Action::UnpackCrate { archive: download }),
        Form::Wheel => ("wheel", unpacked(download, 0)),
        Form::Sdist => ("sdist", unpacked(download, 1)),
        Form::GoModule => (
            "go",
            Action::UnpackGoModule {
                zip: download,
                module: name.clone(),
                version: version.clone(),
            },
        ),
        Form::GoMod => ("go.mod", Action::Fetch(download)),
        Form::NpmPackage => (
            "node",
            Action::UnpackNpm {
                repository: matches!(dependency.registry, Registry::Git(_)).then(|| version.clone()),
                archive: download,
                at: None,
            },
        ),
    };
    Derivation {
        label: format!("{prefix}:{name} {version}"),
        name: store_name(&format!(
            "{prefix}-{}-{version}",
            name.trim_start_matches('@').replace('/', "-")
        )),
        action,
    }
}

/// The store paths that scripts find by variables or at other places.
pub(super) fn further_inputs(script: &Script) -> BTreeSet<&Input> {
    script.mounts.values().chain(script.variables.values()).collect()
}
