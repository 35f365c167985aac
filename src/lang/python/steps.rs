//! The *steps* of a Python package: what installs a wheel, what builds one of a source distribution, and what makes the
//! environment.
//!
//! Invariant: what installs a wheel knows nothing of the others; each project is installed once, whatever needs it.

use std::collections::BTreeMap;

use serde::Serialize;

use super::locked::{Chosen, LockedProject};
use super::project::OwnProject;
use super::tags::Target;
use crate::lang::{
    Form, LangError, LanguageBuild, LanguageStep, LockedDependency, Part, Recipe, Registry, ShellRecipe, Surroundings,
};
use crate::spec::{PYTHON_STEP_DEBS, PythonBuildTool, PythonOptions};

/// Brings an unpacked wheel to its places.
const INSTALL_WHEEL: &str = include_str!("wheel.py");

/// Makes the environment.
const INSTALL_ENVIRONMENT: &str = include_str!("environment.py");

/// Builds the wheel of a source distribution.
const BUILD_SDIST: &str = include_str!("sdist.py");

/// The variable that holds the store path of a wheel, before its number.
const WHEEL_VARIABLE: &str = "LAYERIZE_WHEEL_";

/// What makes an environment, as the script reads it.
#[derive(Serialize)]
struct Plan<'a> {
    python: String,
    /// The lock file, which says nothing at run time.
    lock: &'a str,
    wheels: Vec<WheelOfPlan<'a>>,
    projects: &'a [OwnProject],
    /// Whether the modules of Debian packages are found too.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    system: bool,
}

/// An installed wheel, as the script reads it.
#[derive(Serialize)]
struct WheelOfPlan<'a> {
    name: &'a str,
    version: &'a str,
    variable: String,
}

/// An installed project: its name and version, and the step that installs it.
pub(super) struct Installed {
    name: String,
    version: String,
    step: usize,
}

/// Collects the steps.
pub(super) struct Steps<'a> {
    pub(super) options: &'a PythonOptions,
    pub(super) target: &'a Target,
    /// What the lock file pins of what source distributions are built with: each with what it depends on, by its name.
    pub(super) tools: &'a BTreeMap<String, Vec<LockedProject>>,
    pub(super) build: LanguageBuild,
    /// The step of each project that is installed.
    done: BTreeMap<String, usize>,
    /// The projects that are being built, one for another.
    doing: Vec<String>,
}

impl<'a> Steps<'a> {
    /// None yet.
    pub(super) fn new(
        options: &'a PythonOptions,
        target: &'a Target,
        tools: &'a BTreeMap<String, Vec<LockedProject>>,
    ) -> Self {
        Self {
            options,
            target,
            tools,
            build: LanguageBuild::default(),
            done: BTreeMap::new(),
            doing: Vec::new(),
        }
    }

    /// Installs a project, once.
    pub(super) fn install(&mut self, project: &LockedProject) -> Result<Installed, LangError> {
        let installed = |step| Installed {
            name: project.name.clone(),
            version: project.version.clone(),
            step,
        };
        if let Some(step) = self.done.get(&project.name) {
            return Ok(installed(*step));
        }
        let wheel = match self.options.build.get(&project.name) {
            None => self.take(project, project.choose(self.target)?, Form::Wheel),
            Some(tools) => {
                let sdist = project.sdist()?;
                let sdist = self.take(project, sdist, Form::Sdist);
                self.build_wheel(project, tools, sdist)?
            }
        };
        let step = self.add(install_wheel(project, wheel, self.target));
        self.done.insert(project.name.clone(), step);
        Ok(installed(step))
    }

    fn take(&mut self, project: &LockedProject, file: Chosen, form: Form) -> Part {
        self.build.dependencies.push(LockedDependency {
            name: project.name.clone(),
            version: project.version.clone(),
            file: file.file,
            hash: file.hash,
            registry: Registry::Python {
                indexes: project.indexes.clone(),
                url: file.url,
            },
            form,
        });
        Part::Dependency(self.build.dependencies.len() - 1)
    }

    fn add(&mut self, step: LanguageStep) -> usize {
        self.build.steps.push(step);
        self.build.steps.len() - 1
    }

    /// The step that builds a wheel, in an environment of what that takes.
    fn build_wheel(
        &mut self,
        project: &LockedProject,
        tools: &[PythonBuildTool],
        sdist: Part,
    ) -> Result<Part, LangError> {
        let name = &project.name;
        if self.doing.contains(name) {
            let chain = self.doing.join("` for `");
            let message = format!("`{name}` would be built with itself: for `{chain}`");
            return Err(project.error(message, "leave one of them out of `build`: a wheel of it is taken then"));
        }
        self.doing.push(name.clone());
        let mut installed: Vec<Installed> = Vec::new();
        for tool in tools {
            let PythonBuildTool::Project { name, .. } = tool else {
                continue;
            };
            for needed in self.tools.get(name).into_iter().flatten() {
                if installed.iter().all(|known| known.name != needed.name) {
                    installed.push(self.install(needed)?);
                }
            }
        }
        self.doing.pop();
        let (files, variables) = self.environment_files(&installed, &[], "", true);
        let script = format!(
            "{files}cat > /build/sdist.py <<'LAYERIZE'\n{BUILD_SDIST}LAYERIZE\nmkdir /build/none\n\
             (cd /build/none && PYTHONHASHSEED=0 python3 -s -S -B /build/environment.py /build/environment.json \
             /build/environment)\n\
             PATH=/build/environment/venv/bin:$PATH PYTHONHASHSEED=0 SOURCE_DATE_EPOCH=315532800 \
             /build/environment/venv/bin/python3 -s -B /build/sdist.py \"$out\" {name}\n"
        );
        let step = self.add(LanguageStep {
            label: format!("the wheel of {name} {}", project.version),
            name: format!("{name}-{}-wheel", project.version),
            surroundings: Surroundings::Debs(self.options.build_debs(name).unwrap_or_default()),
            source: Some(sdist),
            recipe: Recipe {
                script,
                variables,
                ..Recipe::default()
            },
        });
        Ok(Part::Step(step))
    }

    /// How the package's own environment is made. A function stands for it, so that scripts of the user's own can call it.
    pub(super) fn environment(&self, installed: &[Installed], projects: &[OwnProject], lock: &str) -> Recipe {
        let (files, variables) = self.environment_files(installed, projects, lock, false);
        let preamble = format!(
            "{files}layerize_python() {{\n  PYTHONHASHSEED=0 python3 -s -S -B /build/environment.py \
             /build/environment.json \"$out\"\n}}\n"
        );
        let (of_wheels, _) = self.environment_files(installed, &[], lock, false);
        Recipe {
            preamble,
            shell: ShellRecipe::of(activation(&of_wheels, projects), &variables),
            script: "layerize_python\n".to_owned(),
            variables,
            ..Recipe::default()
        }
    }

    /// The commands that write what makes an environment, and the variables that this finds its wheels in.
    fn environment_files(
        &self,
        installed: &[Installed],
        projects: &[OwnProject],
        lock: &str,
        system: bool,
    ) -> (String, BTreeMap<String, Part>) {
        let (major, minor) = self.target.python;
        let variable = |index: usize| format!("{WHEEL_VARIABLE}{index}");
        let plan = Plan {
            python: format!("{major}.{minor}"),
            lock,
            wheels: (installed.iter().enumerate())
                .map(|(index, wheel)| WheelOfPlan {
                    name: &wheel.name,
                    version: &wheel.version,
                    variable: variable(index),
                })
                .collect(),
            projects,
            system,
        };
        let plan = serde_json::to_string(&plan).expect("strings and maps of strings are JSON");
        let files = format!(
            "cat > /build/environment.json <<'LAYERIZE'\n{plan}\nLAYERIZE\n\
             cat > /build/environment.py <<'LAYERIZE'\n{INSTALL_ENVIRONMENT}LAYERIZE\n"
        );
        let variables = installed.iter().enumerate();
        let variables = variables.map(|(index, wheel)| (variable(index), Part::Step(wheel.step)));
        (files, variables.collect())
    }
}

/// The step that brings a wheel's files to their places.
fn install_wheel(project: &LockedProject, wheel: Part, target: &Target) -> LanguageStep {
    let (major, minor) = target.python;
    let name = &project.name;
    let script = format!(
        "PYTHONHASHSEED=0 python3 -s -S -B - \"$LAYERIZE_WHEEL\" \"$out\" {name} {major}.{minor} <<'LAYERIZE'\n\
         {INSTALL_WHEEL}LAYERIZE\n"
    );
    LanguageStep {
        label: format!("{name} {}", project.version),
        name: format!("{name}-{}", project.version),
        surroundings: Surroundings::Debs(PYTHON_STEP_DEBS.iter().map(|deb| (*deb).to_owned()).collect()),
        source: None,
        recipe: Recipe {
            script,
            variables: BTreeMap::from([("LAYERIZE_WHEEL".to_owned(), wheel)]),
            ..Recipe::default()
        },
    }
}

/// Makes the environment of the wheels alone, and has Python find the project's modules where the user edits them. `files`
/// writes what that takes.
fn activation(files: &str, projects: &[OwnProject]) -> String {
    let paths = projects.iter().flat_map(|project| &project.paths);
    let paths = paths.map(|path| match path.as_str() {
        "." => "$LAYERIZE_SOURCE".to_owned(),
        path => format!("$LAYERIZE_SOURCE/{path}"),
    });
    let paths: Vec<String> = paths.collect();
    format!(
        "{files}mkdir /build/none\n\
         (cd /build/none && PYTHONHASHSEED=0 python3 -s -S -B /build/environment.py /build/environment.json /build) || exit\n\
         export VIRTUAL_ENV=/build/venv PATH=/build/venv/bin:$PATH PYTHONPATH=\"{}\"\n",
        paths.join(":")
    )
}
