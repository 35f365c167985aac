//! The steps of a *debug image*: its tools, and what a debugger asks for of the image's packages.
//!
//! Invariant: nothing in them is a step of the image that it is of, which are made as if there were no debug image; so a
//! change to a tool moves nothing but the tools.

use crate::spec::{self, DebugImage, Diagnostic, Image, PackageName, Source};

use super::make::{Maker, output_name, source_file_name, store_name};
use super::script::resolve;
use super::{Action, DebugInfo, DebugInputs, Derivation, Input, Script};

/// Copies a source as it is once its Debian patches are applied.
const COPY_SOURCE: &str = "mkdir \"$out\"\ncp -R . \"$out\"\n";

impl Maker<'_> {
    /// What the debug image `image` has above the one that it is of.
    pub(super) fn debug(&mut self, image: &Image, debug: &DebugImage) -> Result<DebugInputs, Box<Diagnostic>> {
        let tools = self.debug_tools(image, debug)?;
        let mut built = Vec::new();
        for name in self.in_order_of_contents(image) {
            if let Some(input) = self.debug_info(&name) {
                built.push((name, input));
            }
        }
        let debs = spec::debug_files(self.workspace, self.lock, image).into_iter();
        let debs = debs.map(|(name, files)| {
            let is_of_version = self.version(&files) == self.version(&name);
            let input = self.plan.debs.get(&files).filter(|_| is_of_version).cloned();
            (name, input.map(|input| (files, input)))
        });
        Ok(DebugInputs {
            tools,
            built,
            debs: debs.collect(),
        })
    }

    fn version(&self, deb: &str) -> Option<&str> {
        self.lock.debs.get(deb).map(|deb| deb.version.as_str())
    }

    fn debug_tools(&mut self, image: &Image, debug: &DebugImage) -> Result<Input, Box<Diagnostic>> {
        let user = format!("the tools of image `{}`", image.name.value);
        let names = resolve(self.lock, &debug.tools, &user, &image.name.span)?.ordered();
        let trees = self.scripts().debs(names.clone())?;
        let packages = names.into_iter().map(str::to_owned).zip(trees).collect();
        Ok(self.add(Derivation {
            label: "debug tools".to_owned(),
            name: "debug-tools".to_owned(),
            action: Action::DebugTools { packages },
        }))
    }

    /// The packages that an image is made of, those that it names itself first.
    fn in_order_of_contents(&self, image: &Image) -> Vec<PackageName> {
        let mut names: Vec<PackageName> = spec::package_names(&image.contents).cloned().collect();
        let others = spec::linked_packages(self.workspace, image);
        let others: Vec<PackageName> = others.into_iter().filter(|name| !names.contains(name)).collect();
        names.extend(others);
        names
    }

    /// What a debugger asks for of a package; `None` where no script made it.
    fn debug_info(&mut self, name: &PackageName) -> Option<Input> {
        let package = self.workspace.packages.get(name)?;
        let output = self.plan.packages.get(name)?.clone();
        let script = match &output {
            Input::Step(step) => match &self.plan.steps.get(*step)?.action {
                Action::Script(script) => (**script).clone(),
                _ => return None,
            },
            Input::Path(_) => return None,
        };
        let source = match script.debian_patches {
            true => Some(self.patched_source(package, script)),
            false => script.source,
        };
        let given = package.source.as_ref().map(|source| &source.value);
        let source_file = given.filter(|given| !matches!(given, Source::DebianSource { .. }));
        Some(
            self.add(Derivation {
                label: format!("{name} (debug files and sources)"),
                name: format!("{}-debug", output_name(package)),
                action: Action::DebugInfo(DebugInfo {
                    output,
                    source,
                    source_file: source_file
                        .and_then(source_file_name)
                        .filter(|name| store_name(name) != *name),
                }),
            }),
        )
    }

    /// The source of a Debian source package as the package's script found it.
    fn patched_source(&mut self, package: &spec::Package, script: Script) -> Input {
        self.add(Derivation {
            label: format!("{} (patched source)", package.name.value),
            name: format!("{}-patched-source", output_name(package)),
            action: Action::Script(Box::new(Script {
                script: COPY_SOURCE.to_owned(),
                system: script.system,
                target: script.target,
                emulator: script.emulator,
                source: script.source,
                debian_patches: true,
                root: script.root,
                ..Script::default()
            })),
        })
    }
}
