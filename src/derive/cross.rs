//! What is *cross-compiled*: scripts that run on this machine, with its tools, and make programs for another one.
//!
//! Invariant: what the target's libraries are does not depend on the machine that compiles; in the root both stand side by side,
//! as Debian's packages for several machines do, and where they have a file of one name, it is the machine's.

use std::collections::{BTreeMap, BTreeSet};

use crate::spec::{self, Dependency, Diagnostic, Diagnostics, Package, Workspace};

use super::debs::Resolution;
use super::make::Maker;
use super::script::{Purpose, Scripts, in_files, unique};
use super::{BuildPlan, Input, MachinePart};

/// The tools with which a package is compiled for another machine.
pub(super) struct Crossing<'a> {
    tools: Resolution<'a>,
    machine: &'a MachinePart,
}

/// What the shell of a package has of the tools.
pub(super) struct ToolsOfShell {
    /// What is there for the package and not as everybody's base.
    pub(super) own: Vec<Input>,
    /// All Debian packages by name.
    pub(super) debs: BTreeMap<String, Input>,
}

impl Maker<'_> {
    /// Adds the steps whose outputs are run here while packages are compiled for another machine.
    pub(super) fn add_machine_part(&mut self) -> Result<(), Diagnostics> {
        let machine = spec::machine_architecture();
        let sets = spec::sets_for(self.workspace, machine);
        if sets.is_empty() {
            return Ok(());
        }
        let (workspace, lock) = (
            spec::machine_tools(self.workspace, machine),
            self.lock.of_machine(machine),
        );
        let mut maker = Maker {
            workspace: &workspace,
            lock: &lock,
            sources: self.sources,
            languages: self.languages,
            plan: BuildPlan::default(),
            known: BTreeMap::new(),
        };
        maker.add_debs(&sets.into_iter().map(|(set, _)| set).collect());
        let errors = maker.add_packages();
        if !errors.is_empty() {
            return Err(in_files(errors, &self.workspace.files));
        }
        self.known = maker.known;
        self.plan.steps = maker.plan.steps;
        self.plan.machine = MachinePart {
            debs: maker.plan.debs,
            packages: maker.plan.packages,
        };
        Ok(())
    }
}

impl<'a> Scripts<'a> {
    /// The tools of a package that is compiled for another machine than this one.
    pub(super) fn crossing(
        &self,
        package: &Package,
        purpose: Purpose,
    ) -> Result<Option<Crossing<'a>>, Box<Diagnostic>> {
        if !spec::is_crossed(self.workspace, package) {
            return Ok(None);
        }
        let wanted = match purpose {
            Purpose::Build => spec::cross_debs(self.workspace, package),
            Purpose::Shell => spec::cross_shell_debs(self.workspace, package),
        };
        let locked = self.lock.machines.get(spec::machine_architecture());
        let tools = match (locked, wanted.is_empty()) {
            (Some(locked), _) => Resolution::on_machine(locked, &wanted),
            (None, true) => Resolution::new(self.lock, &[]),
            (None, false) => None,
        };
        let machine = &self.plan.machine;
        let tools = tools.ok_or_else(|| self.without_tools(package))?;
        Ok(Some(Crossing { tools, machine }))
    }

    fn without_tools(&self, package: &Package) -> Box<Diagnostic> {
        let name = &package.name.value;
        let message = format!(
            "the tools with which this machine ({}) compiles package `{name}` are not in the lock",
            spec::machine_architecture()
        );
        let diagnostic = Diagnostic::new(message).at(package.name.span.clone(), "cross-compiled");
        Box::new(diagnostic.help("run `layerize lock`"))
    }
}

impl Crossing<'_> {
    /// The root in which a package is compiled: what it is linked to below the tools, so that programs found there are this
    /// machine's.
    pub(super) fn root(
        &self,
        mut target: Vec<Input>,
        resolution: &Resolution<'_>,
    ) -> Result<Vec<Input>, Box<Diagnostic>> {
        let names: BTreeSet<&str> = resolution.names().collect();
        let tools = self.tools.ordered().into_iter();
        for name in tools.filter(|name| !spec::is_hidden_by(name, &names)) {
            target.push(self.deb(name)?);
        }
        Ok(unique(target))
    }

    /// What a dependency is that is run.
    pub(super) fn tool(&self, dependency: &Dependency) -> Result<Input, Box<Diagnostic>> {
        match dependency {
            Dependency::Debian(name) => self.deb(name),
            Dependency::Package(name) => {
                let found = self.machine.packages.get(name).cloned();
                found.ok_or_else(|| Box::new(Diagnostic::new(format!("package `{name}` is not in the plan"))))
            }
            Dependency::StorePath(path) => Ok(Input::Path(path.store_path().clone())),
            Dependency::Nix(path) => Err(Box::new(Diagnostic::new(format!("`{path}` is in no plan")))),
        }
    }

    /// What the package's shell has.
    pub(super) fn shell(&self, package: &Package, workspace: &Workspace) -> Result<ToolsOfShell, Box<Diagnostic>> {
        let needed = |names: &[String]| -> BTreeSet<&str> {
            let names = names
                .iter()
                .filter_map(|name| self.tools.names().find(|known| known == name));
            names
                .flat_map(|name| self.tools.needed_by(name).into_iter().chain([name]))
                .collect()
        };
        let base = needed(&spec::base_debs(workspace, package));
        let all = needed(&spec::cross_shell_debs(workspace, package));
        let own = all
            .difference(&base)
            .map(|name| self.deb(name))
            .collect::<Result<_, _>>()?;
        let debs = self.tools.names().map(|name| Ok((name.to_owned(), self.deb(name)?)));
        let debs = debs.collect::<Result<_, Box<Diagnostic>>>()?;
        Ok(ToolsOfShell { own, debs })
    }

    fn deb(&self, name: &str) -> Result<Input, Box<Diagnostic>> {
        let found = self.machine.debs.get(name).cloned();
        found.ok_or_else(|| {
            let diagnostic = Diagnostic::new(format!("the Debian package `{name}` is not in the lock"));
            Box::new(diagnostic.help("run `layerize lock`"))
        })
    }
}
