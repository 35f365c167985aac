//! *Adopting* the plan of an imported project: its steps among those of the project that imports it.
//!
//! Invariant: an adopted step is what it is in its own plan but for the numbers of its inputs, so that its build key is the same.

use std::collections::BTreeMap;

use super::configure::{Configure, ConfiguredDeb};
use super::make::Maker;
use super::{Action, BuildPlan, DebugInfo, Derivation, Input, Script};
use crate::spec::PackageName;

/// The plan of an imported project, and what the import is called.
#[derive(Debug, Clone)]
pub struct ImportedPlan {
    /// Its alias, with those of the imports that lead to it: `x`, `lib:x`.
    pub alias: String,
    /// Its plan.
    pub plan: BuildPlan,
}

impl Maker<'_> {
    /// Adds the steps of an imported plan; its packages have the import's alias before their names.
    pub(super) fn adopt(&mut self, imported: &ImportedPlan) {
        let ImportedPlan { alias, plan } = imported;
        let mut places: Vec<Input> = Vec::with_capacity(plan.steps.len());
        for step in &plan.steps {
            let mut step = step.clone();
            step.label = match step.action {
                Action::Script(_) => format!("{alias}:{}", step.label),
                _ => step.label,
            };
            step.move_inputs(&mut |input| moved(input, &places));
            let place = self.add(step);
            places.push(place);
        }
        for (name, input) in &plan.packages {
            let name = PackageName(format!("{alias}:{name}"));
            self.plan.packages.insert(name, moved(input, &places));
        }
    }
}

/// Where an input of an adopted plan is now.
fn moved(input: &Input, places: &[Input]) -> Input {
    match input {
        Input::Step(id) => places[*id].clone(),
        Input::Path(_) => input.clone(),
    }
}

type Move<'a> = &'a mut dyn FnMut(&Input) -> Input;

impl Derivation {
    /// Puts another input in place of each.
    fn move_inputs(&mut self, to: Move<'_>) {
        match &mut self.action {
            Action::Script(script) => script.move_inputs(to),
            Action::Configure(configure) => configure.move_inputs(to),
            Action::DebPart { tree, .. } => *tree = to(tree),
            Action::DebugTools { packages } => packages.iter_mut().for_each(|(_, tree)| *tree = to(tree)),
            Action::DebugInfo(DebugInfo { output, source, .. }) => {
                *output = to(output);
                one(source, to);
            }
            Action::Fetch(_)
            | Action::Restore(_)
            | Action::Unpack { .. }
            | Action::UnpackCrate { .. }
            | Action::UnpackGitCrates { .. }
            | Action::UnpackNpm { .. }
            | Action::UnpackDeb { .. }
            | Action::UnpackDebControl { .. }
            | Action::UnpackDebSource { .. }
            | Action::UnpackEmulator { .. }
            | Action::UnpackGoModule { .. } => {}
        }
    }
}

impl Script {
    fn move_inputs(&mut self, to: Move<'_>) {
        let Self {
            script: _,
            env: _,
            system: _,
            target: _,
            source,
            source_file: _,
            debian_patches: _,
            root,
            tools,
            libraries,
            runtime,
            declared,
            no_references,
            strip_references,
            mounts,
            variables,
            emulator,
            prebuilt: _,
            names,
            timeout_seconds: _,
            units: _,
            cache_dirs: _,
        } = self;
        one(source, to);
        one(emulator, to);
        for list in [root, tools, libraries, runtime, no_references, strip_references] {
            list.iter_mut().for_each(|input| *input = to(input));
        }
        for map in [mounts, variables] {
            map.values_mut().for_each(|input| *input = to(input));
        }
        let all = std::mem::take(declared).into_iter();
        *declared = all
            .map(|(input, others)| (to(&input), others.iter().map(&mut *to).collect()))
            .collect();
        let all: BTreeMap<Input, String> = std::mem::take(names);
        *names = all.into_iter().map(|(input, name)| (to(&input), name)).collect();
    }
}

impl Configure {
    fn move_inputs(&mut self, to: Move<'_>) {
        let Self {
            system: _,
            tools,
            groups,
            skip: _,
            answers: _,
            locales,
            certificates: _,
            incomplete: _,
            emulator,
        } = self;
        one(emulator, to);
        let mut all = |debs: &mut Vec<ConfiguredDeb>| {
            for deb in debs {
                deb.tree = to(&deb.tree);
                deb.control = to(&deb.control);
            }
        };
        groups.iter_mut().for_each(&mut all);
        if let Some((_, debs)) = tools {
            all(debs);
        }
        if let Some((tools, _)) = tools {
            *tools = to(tools);
        }
        if let Some((locales, _)) = locales {
            *locales = to(locales);
        }
    }
}

fn one(input: &mut Option<Input>, to: Move<'_>) {
    if let Some(input) = input {
        *input = to(input);
    }
}
