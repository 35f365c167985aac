//! A package's *script* with its inputs, for a build or for a shell.
//!
//! Invariant: a shell differs from the build by the `dev` dependencies, and by what only the steps of a language use.

use std::collections::{BTreeMap, BTreeSet};

use crate::spec::{
    self, Dependency, Diagnostic, Diagnostics, Lock, Package, PackageName, Source, SourceFile, Span, Spanned, Workspace,
};

use super::cross::{Crossing, ToolsOfShell};
use super::debs::Resolution;
use super::make::{source_file_name, store_name};
use super::{BuildPlan, Input, Script};

/// What `layerize shell PACKAGE` is made of.
#[derive(Debug, Clone)]
pub struct Shell {
    /// The package's build with its `dev` dependencies.
    pub script: Script,
    /// The packages of the script's root that are there for the package and not as everybody's base.
    pub own: Vec<Input>,
    /// The Debian packages of the script's root by name.
    pub debs: BTreeMap<String, Input>,
}

/// The environment of `layerize shell PACKAGE`.
///
/// `plan` must have been made from the same workspace and lock.
pub fn shell(
    workspace: &Workspace,
    lock: &Lock,
    plan: &BuildPlan,
    package: &PackageName,
) -> Result<Shell, Diagnostics> {
    let scripts = Scripts { workspace, lock, plan };
    let found = workspace.packages.get(package);
    let unknown = || Box::new(Diagnostic::new(format!("unknown package `{package}`")));
    let shell = found.ok_or_else(unknown).and_then(|found| {
        let source = match &plan.packages.get(package) {
            Some(Input::Step(step)) => plan.steps.get(*step).and_then(|step| match &step.action {
                super::Action::Script(script) => script.source.clone(),
                _ => None,
            }),
            _ => None,
        };
        scripts.shell(found, source)
    });
    shell.map_err(|diagnostic| in_files(vec![*diagnostic], &workspace.files))
}

/// Diagnostics about a workspace's files.
pub(super) fn in_files(items: Vec<Diagnostic>, files: &[SourceFile]) -> Diagnostics {
    Diagnostics::new(items, files.to_vec())
}

/// What a script is for.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Purpose {
    Build,
    Shell,
}

/// Makes scripts from packages whose inputs the plan holds.
pub(super) struct Scripts<'a> {
    pub(super) workspace: &'a Workspace,
    pub(super) lock: &'a Lock,
    pub(super) plan: &'a BuildPlan,
}

impl Scripts<'_> {
    /// The script of `package`, which must have one, or a language whose script it is.
    pub(super) fn of(
        &self,
        package: &Package,
        source: Option<Input>,
        purpose: Purpose,
    ) -> Result<Script, Box<Diagnostic>> {
        let name = &package.name.value;
        let language = self.plan.languages.get(name);
        let own = package.script.as_ref().map(|script| script.value.as_str());
        let text = match (language, own) {
            (Some(language), own) => Some(language.whole_script(own)),
            (None, own) => own.map(str::to_owned),
        };
        let Some(text) = text else {
            let diagnostic = Diagnostic::new(format!("package `{name}` has no script"))
                .at(package.name.span.clone(), "nothing is run for it")
                .help("add `script = \"…\"`");
            return Err(Box::new(diagnostic));
        };
        let mut script = self.of_text(package, text, source, purpose)?;
        if let Some(language) = language {
            language.apply(&mut script);
            if purpose == Purpose::Shell {
                script.variables.clone_from(&language.shell.variables);
            }
        }
        for (name, input) in self.places(package, purpose)? {
            script.variables.entry(name).or_insert(input);
        }
        Ok(script)
    }

    /// The packages of the spec that a script is given, by the variables in which it finds where each is.
    fn places(&self, package: &Package, purpose: Purpose) -> Result<BTreeMap<String, Input>, Box<Diagnostic>> {
        let dev = package.dev.iter().filter(|_| purpose == Purpose::Shell);
        let given = package.tools.iter().chain(&package.libraries).chain(&package.runtime);
        let mut places: BTreeMap<String, (&PackageName, Input)> = BTreeMap::new();
        let crossing = self.crossing(package, purpose)?;
        for dependency in given.chain(dev) {
            let Dependency::Package(name) = &dependency.value else {
                continue;
            };
            let variable = place_variable(name, &package.name.value);
            if let Some((other, _)) = places.get(&variable).filter(|(other, _)| *other != name) {
                let message = format!("the places of `{other}` and `{name}` would both be in `${variable}`");
                let diagnostic = Diagnostic::new(message)
                    .at(dependency.span.clone(), format!("`{other}` is given too"))
                    .help("rename one of them");
                return Err(Box::new(diagnostic));
            }
            places.insert(
                variable,
                (name, self.given(package, crossing.as_ref(), &dependency.value)?),
            );
        }
        Ok(places
            .into_iter()
            .map(|(variable, (_, input))| (variable, input))
            .collect())
    }

    /// A script of this text in the surroundings of `package`, without what its language adds.
    pub(super) fn of_text(
        &self,
        package: &Package,
        text: String,
        source: Option<Input>,
        purpose: Purpose,
    ) -> Result<Script, Box<Diagnostic>> {
        let resolution = self.resolution(package, purpose)?;
        let crossing = self.crossing(package, purpose)?;
        let given = |dependency: &Dependency| self.given(package, crossing.as_ref(), dependency);
        let all = |dependencies: &[Spanned<Dependency>]| -> Result<Vec<Input>, Box<Diagnostic>> {
            let given = dependencies.iter().map(|dependency| given(&dependency.value));
            Ok(unique(given.collect::<Result<_, _>>()?))
        };
        let dev = package.dev.iter().filter(|_| purpose == Purpose::Shell);
        let tools = package.tools.iter().chain(dev).cloned();
        let tools: Vec<_> = tools
            .filter(|tool| !matches!(tool.value, Dependency::Debian(_)))
            .collect();
        let root = self.debs(resolution.ordered())?;
        Ok(Script {
            script: text,
            env: (package.env.iter())
                .map(|(name, value)| (name.clone(), value.value.clone()))
                .collect(),
            system: match crossing {
                Some(_) => format!("{}-linux", spec::own_machine()),
                None => self.system(),
            },
            target: spec::wants_cross(self.workspace, package).then(|| self.system()),
            emulator: self.plan.emulator.clone().filter(|_| crossing.is_none()),
            source,
            source_file: (package.source.as_ref())
                .and_then(|source| source_file_name(&source.value))
                .filter(|name| store_name(name) != *name),
            debian_patches: matches!(
                package.source.as_ref().map(|source| &source.value),
                Some(Source::DebianSource { .. })
            ),
            root: match &crossing {
                Some(crossing) => crossing.root(root, &resolution)?,
                None => root,
            },
            tools: all(&tools)?,
            libraries: self.libraries(package, &resolution)?,
            runtime: unique(self.all(&package.runtime)?),
            declared: self.declared(&resolution)?,
            no_references: all(&package.no_references)?,
            strip_references: all(&package.strip_references)?,
            mounts: BTreeMap::new(),
            variables: BTreeMap::new(),
            prebuilt: false,
            units: None,
            names: self.names(package, crossing.as_ref())?,
            timeout_seconds: package.timeout_seconds,
            cache_dirs: package.cache_dirs.iter().map(|dir| dir.value.clone()).collect(),
        })
    }

    fn resolution(&self, package: &Package, purpose: Purpose) -> Result<Resolution<'_>, Box<Diagnostic>> {
        let name = &package.name.value;
        let build = || spec::build_debs(self.workspace, package);
        let wanted = match purpose {
            Purpose::Build => build(),
            Purpose::Shell => spec::shell_debs(self.workspace, package).unwrap_or_else(build),
        };
        resolve(self.lock, &wanted, &format!("package `{name}`"), &package.name.span)
    }

    fn shell(&self, package: &Package, source: Option<Input>) -> Result<Shell, Box<Diagnostic>> {
        let resolution = self.resolution(package, Purpose::Shell)?;
        let with_needs = |name: &str| -> BTreeSet<String> {
            let needed = resolution.needed_by(name).into_iter().chain([name]);
            needed.map(str::to_owned).collect()
        };
        let base = spec::base_debs(self.workspace, package);
        let base: BTreeSet<String> = base.iter().flat_map(|name| with_needs(name)).collect();
        let lists = [&package.tools, &package.libraries, &package.runtime, &package.dev];
        let named = lists
            .into_iter()
            .flatten()
            .filter_map(|dependency| match &dependency.value {
                Dependency::Debian(name) => Some(name.as_str()),
                _ => None,
            });
        let mut own: BTreeSet<String> = BTreeSet::new();
        for name in named.filter(|name| resolution.contains(name)) {
            own.extend(with_needs(name).into_iter().filter(|needed| !base.contains(needed)));
            own.insert(name.to_owned());
        }
        let mut debs = BTreeMap::new();
        for name in resolution.names() {
            debs.insert(name.to_owned(), self.deb(name)?);
        }
        let mut own = self.debs(own.iter().map(String::as_str).collect())?;
        if let Some(crossing) = self.crossing(package, Purpose::Shell)? {
            // What is linked to is found where the compilers look; what is run is the machine's.
            ToolsOfShell { own, debs } = crossing.shell(package, self.workspace)?;
        }
        Ok(Shell {
            script: self.of(package, source, Purpose::Shell)?,
            own,
            debs,
        })
    }

    /// What the spec calls what the build is given.
    fn names(
        &self,
        package: &Package,
        crossing: Option<&Crossing<'_>>,
    ) -> Result<BTreeMap<Input, String>, Box<Diagnostic>> {
        let given = package.tools.iter().chain(&package.libraries).chain(&package.runtime);
        let named = given.map(|dependency| {
            let input = self.given(package, crossing, &dependency.value)?;
            Ok((input, dependency.value.to_string()))
        });
        named.collect()
    }

    /// What a dependency of `package` is: for the machine that compiles it where it is among the tools alone.
    fn given(
        &self,
        package: &Package,
        crossing: Option<&Crossing<'_>>,
        dependency: &Dependency,
    ) -> Result<Input, Box<Diagnostic>> {
        let linked = [&package.libraries, &package.runtime];
        let is_linked = linked.into_iter().flatten().any(|linked| linked.value == *dependency);
        match crossing.filter(|_| !is_linked) {
            Some(crossing) => crossing.tool(dependency),
            None => self.input(dependency),
        }
    }

    /// Packages as they are, and Debian packages each followed by what it depends on.
    fn libraries(&self, package: &Package, resolution: &Resolution<'_>) -> Result<Vec<Input>, Box<Diagnostic>> {
        let mut libraries = Vec::new();
        for dependency in &package.libraries {
            libraries.push(self.input(&dependency.value)?);
            if let Dependency::Debian(name) = &dependency.value {
                libraries.extend(self.debs(resolution.needed_by(name))?);
            }
        }
        Ok(unique(libraries))
    }

    pub(super) fn declared(
        &self,
        resolution: &Resolution<'_>,
    ) -> Result<BTreeMap<Input, BTreeSet<Input>>, Box<Diagnostic>> {
        let mut declared = BTreeMap::new();
        for name in resolution.ordered() {
            let needed = self.debs(resolution.needed_by(name))?;
            if !needed.is_empty() {
                declared.insert(self.deb(name)?, needed.into_iter().collect());
            }
        }
        Ok(declared)
    }

    /// The inputs of `dependencies`, in their order.
    pub(super) fn all(&self, dependencies: &[Spanned<Dependency>]) -> Result<Vec<Input>, Box<Diagnostic>> {
        dependencies
            .iter()
            .map(|dependency| self.input(&dependency.value))
            .collect()
    }

    fn input(&self, dependency: &Dependency) -> Result<Input, Box<Diagnostic>> {
        match dependency {
            Dependency::Debian(name) => self.deb(name),
            Dependency::Package(name) => {
                let found = self.plan.packages.get(name).cloned();
                found.ok_or_else(|| Box::new(Diagnostic::new(format!("package `{name}` is not in the plan"))))
            }
            Dependency::Nix(path) => Err(Box::new(Diagnostic::new(format!("`{path}` is in no plan")))),
            Dependency::StorePath(path) => Ok(Input::Path(path.store_path().clone())),
        }
    }

    /// Nix's name of the machine that scripts are for.
    pub(super) fn system(&self) -> String {
        system(self.workspace, self.lock)
    }

    pub(super) fn debs(&self, names: Vec<&str>) -> Result<Vec<Input>, Box<Diagnostic>> {
        names.into_iter().map(|name| self.deb(name)).collect()
    }

    fn deb(&self, name: &str) -> Result<Input, Box<Diagnostic>> {
        let found = self.plan.debs.get(name).cloned();
        found.ok_or_else(|| {
            let diagnostic = Diagnostic::new(format!("the Debian package `{name}` is not in the lock"));
            Box::new(diagnostic.help("run `layerize lock`"))
        })
    }
}

/// The variable of `user`'s script that holds where a package is. The package is called as in the file that has both, whoever
/// imports that; what no variable's name can hold is `_`.
fn place_variable(name: &PackageName, user: &PackageName) -> String {
    let import = user.0.rfind(':').map_or("", |end| &user.0[..=end]);
    let name = name.0.strip_prefix(import).unwrap_or(&name.0);
    format!("package_{}", name.replace(|c: char| !c.is_ascii_alphanumeric(), "_"))
}

/// What `wanted` comes to, for `user`.
pub(super) fn resolve<'a>(
    lock: &'a Lock,
    wanted: &[String],
    user: &str,
    place: &Span,
) -> Result<Resolution<'a>, Box<Diagnostic>> {
    Resolution::new(lock, wanted).ok_or_else(|| {
        let message = format!("the Debian packages of {user} are not in the lock");
        let diagnostic = Diagnostic::new(message)
            .at(place.clone(), "not resolved together")
            .note(format!("it needs `deb:{}`", wanted.join("`, `deb:")))
            .help("run `layerize lock`");
        Box::new(diagnostic)
    })
}

/// The inputs without repetition, each where it comes first.
pub(super) fn unique(inputs: Vec<Input>) -> Vec<Input> {
    let mut seen = BTreeSet::new();
    inputs.into_iter().filter(|input| seen.insert(input.clone())).collect()
}

/// Nix's name of the machine that scripts are for. Without Debian packages there is nothing to say so but the
/// machine that layerize itself was compiled for, which is the one that runs the script.
fn system(workspace: &Workspace, lock: &Lock) -> String {
    let architecture = lock.architecture.as_ref().or(workspace.debian.architecture.as_ref());
    let machine = architecture.map_or(spec::own_machine(), |architecture| spec::machine(architecture));
    format!("{machine}-linux")
}
