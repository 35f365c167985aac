//! A package's *surroundings* for a shell: what its build has, made, with its `dev` dependencies.
//!
//! Invariant: what a shell is made of is in the store when there is a [`ShellPart`] of it.

use std::collections::BTreeMap;

use crate::build::{self, Activation, BuildError, BuildOptions, EnterOptions, ShellPart, Task};
use crate::derive::{self, BuildPlan, Input};
use crate::event::{Reporter, Silent};
use crate::spec::{PackageName, Source};
use crate::store::Store;
use crate::store_path::StorePath;

use super::environment::{Environment, WorkOptions};
use super::error::ProjectError;
use super::files::Project;
use super::platforms;

/// Makes what the shells of `packages` are made of, which are packages of the project; its lock must be current.
pub fn shell_parts(
    project: &Project,
    packages: &[PackageName],
    store: &Store,
    options: &WorkOptions,
    environment: &Environment<'_>,
) -> Result<Vec<ShellPart>, ProjectError> {
    let mut parts = Vec::new();
    let mut own = Vec::new();
    for name in packages {
        let Some((owner, of)) = project.owner_of(name) else {
            own.push(name.clone());
            continue;
        };
        for part in shell_parts(owner, &[of], store, options, environment)? {
            let name = name.0.clone();
            parts.push(ShellPart { name, ..part });
        }
    }
    if own.is_empty() {
        return Ok(parts);
    }
    let project = &platforms::seen_with(project, &own, &options.platforms)?;
    let plan = project.plan(store, &project.add_sources(store, &Silent)?)?;
    let build_options = environment.build_options(options, Some(project))?;
    for package in &own {
        let mut shell = derive::shell(&project.workspace, &project.lock, &plan, package)?;
        build::choose_emulator(
            &package.0,
            &mut shell.script,
            store,
            &build_options,
            environment.reporter,
        )?;
        let inputs: Vec<Input> = shell.script.inputs().into_iter().cloned().collect();
        let paths = build::realise(store, &plan, &inputs, &build_options, environment.reporter)?;
        parts.push(ShellPart {
            name: package.0.clone(),
            activate: activation(package, project, &plan),
            script: shell.script,
            own: shell.own,
            debs: shell.debs,
            paths,
        });
    }
    Ok(parts)
}

/// What brings the dependencies of the package's language into the shell.
fn activation(package: &PackageName, project: &Project, plan: &BuildPlan) -> Option<Activation> {
    let language = plan.languages.get(package)?;
    let script = &language.shell.activate;
    let package = project.workspace.packages.get(package)?;
    match &package.source.as_ref()?.value {
        // What would be laid out beside the sources has no place where nothing is written to.
        Source::Path { path, .. }
            if !script.is_empty()
                && !project.is_restored()
                && (!project.is_elsewhere || language.shell.views.is_empty()) =>
        {
            Some(Activation {
                script: script.clone(),
                source: package.dir.join(path),
                views: language.shell.views.clone(),
            })
        }
        _ => None,
    }
}

/// A package's build that can be entered: what its script is given is there.
pub struct BuildEntry {
    store: Store,
    plan: BuildPlan,
    step: Input,
    paths: BTreeMap<Input, StorePath>,
    preamble: String,
    options: BuildOptions,
}

impl BuildEntry {
    /// Makes what the script of a package of the project is given; the project's lock must be current.
    pub fn prepare(
        project: &Project,
        package: &PackageName,
        options: &WorkOptions,
        environment: &Environment<'_>,
    ) -> Result<Self, ProjectError> {
        if let Some((owner, name)) = project.owner_of(package) {
            return Self::prepare(owner, &name, options, environment);
        }
        let store = environment.store()?;
        let packages = std::slice::from_ref(package);
        let project = &platforms::seen_with(project, packages, &options.platforms)?;
        let plan = project.plan(&store, &project.add_sources(&store, &Silent)?)?;
        let options = environment.build_options(options, Some(project))?;
        let Some(step @ Input::Step(id)) = plan.packages.get(package).cloned() else {
            return Err(BuildError::NoScript.into());
        };
        let inputs: Vec<Input> = plan.steps[id].inputs().into_iter().cloned().collect();
        let paths = build::realise(&store, &plan, &inputs, &options, environment.reporter)?;
        let language = plan.languages.get(package);
        Ok(Self {
            preamble: language.map(|language| language.preamble.clone()).unwrap_or_default(),
            store,
            plan,
            step,
            paths,
            options,
        })
    }

    /// Does `task` where the script would run, or with `failed` where it failed; gives the status. `terminal`: variables.
    pub fn enter(
        &self,
        task: Task,
        failed: bool,
        terminal: BTreeMap<String, String>,
        reporter: &dyn Reporter,
    ) -> Result<i32, ProjectError> {
        let options = EnterOptions {
            task,
            failed,
            preamble: self.preamble.clone(),
            terminal,
        };
        let options = (&self.options, &options);
        Ok(build::enter(
            &self.store,
            &self.plan,
            &self.step,
            &self.paths,
            options,
            reporter,
        )?)
    }
}
