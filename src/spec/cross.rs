//! *Cross compilation*: which packages are compiled for another platform by tools of the machine that builds, and what is
//! taken for which of the two.
//!
//! Invariant: names alone, a function of the workspace and of the machine that builds: `tools` are the machine's, `libraries`
//! and `runtime` the target's. What a lock holds for one of them says nothing of the other.

use std::collections::{BTreeMap, BTreeSet};

use super::language::LanguageOptions;
use super::machine::{gnu_triplet, machine};
use super::needs::{base_debs, debs, native_debs, package_names};
use super::platforms::{architectures, machine_architecture};
use super::types::{Package, PackageName, Workspace};
use crate::graph;

/// The Debian package with headers and link libraries of the C library.
const GLIBC_DEV_DEB: &str = "libc6-dev";

/// Whether a package can be compiled by tools of another machine: what a language lays out as others compiled it cannot.
pub(super) fn can_be_crossed(package: &Package) -> bool {
    let language = package.language.as_ref().map(|language| &language.value.options);
    package.is_built() && !matches!(language, Some(LanguageOptions::Python(_) | LanguageOptions::Node(_)))
}

/// Whether a package is to be compiled by tools of the machine that builds, whichever that is.
pub fn wants_cross(workspace: &Workspace, package: &Package) -> bool {
    can_be_crossed(package) && package.cross.unwrap_or(workspace.build.cross)
}

/// Whether this machine, where it is another than what the workspace is seen from, compiles a package for that.
pub fn is_crossed(workspace: &Workspace, package: &Package) -> bool {
    is_crossed_on(workspace, package, machine_architecture())
}

/// The same of a machine, by its Debian architecture.
pub(super) fn is_crossed_on(workspace: &Workspace, package: &Package, machine: &str) -> bool {
    wants_cross(workspace, package) && target(workspace) != machine
}

/// The Debian architecture of what the workspace is seen from.
fn target(workspace: &Workspace) -> &str {
    let named = workspace.debian.architecture.as_deref();
    named.unwrap_or_else(|| machine_architecture())
}

/// The Debian packages for the target with which a package is compiled for it, sorted: what it is linked to, and what compilers
/// link to by themselves.
pub(super) fn target_debs(package: &Package) -> Vec<String> {
    let named = debs(&package.libraries).chain(debs(&package.runtime));
    let mut all: BTreeSet<String> = named.map(str::to_owned).collect();
    for tool in debs(&package.tools) {
        all.extend(rust_release(tool).map(|release| format!("libstd-rust{release}-dev")));
        let compiler = Compiler::of(tool).filter(|_| !package.libraries.is_empty());
        let libraries = compiler.map(Compiler::libraries).unwrap_or_default();
        all.extend(libraries.iter().map(|name| (*name).to_owned()));
    }
    all.into_iter().collect()
}

/// The Debian packages for the machine that builds, with which it compiles a package for a target, sorted.
pub fn cross_debs(workspace: &Workspace, package: &Package) -> Vec<String> {
    let mut all: BTreeSet<String> = base_debs(workspace, package).into_iter().collect();
    for tool in debs(&package.tools) {
        all.insert(tool.to_owned());
        all.extend(compilers(tool, target(workspace)));
        if Compiler::of(tool).is_some() {
            // What the build itself runs is compiled too: generators, Cargo's build scripts.
            all.insert(GLIBC_DEV_DEB.to_owned());
        }
    }
    all.into_iter().collect()
}

/// The same for the package's shell.
pub fn cross_shell_debs(workspace: &Workspace, package: &Package) -> Vec<String> {
    let dev = debs(&package.dev).map(str::to_owned);
    let all: BTreeSet<String> = cross_debs(workspace, package).into_iter().chain(dev).collect();
    all.into_iter().collect()
}

/// The packages of the C library for the target as cross compilers bring them: what `libraries` names is newer, and is what
/// programs run with, so that these give way to it.
pub fn is_hidden_by(name: &str, target: &BTreeSet<&str>) -> bool {
    let brought = ["libc6-dev-", "libc6-", "linux-libc-dev-"];
    let is_brought = brought.iter().any(|start| name.starts_with(start)) && name.ends_with("-cross");
    is_brought && target.contains(GLIBC_DEV_DEB)
}

/// A kind of compiler, by what it links programs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compiler {
    C,
    Cpp,
    Fortran,
    Rust,
}

impl Compiler {
    /// What kind a Debian package is.
    fn of(tool: &str) -> Option<Self> {
        match tool_name(tool) {
            "gcc" => Some(Self::C),
            "g++" | "build-essential" | "clang" => Some(Self::Cpp),
            "gfortran" => Some(Self::Fortran),
            _ => rust_release(tool).map(|_| Self::Rust),
        }
    }

    fn libraries(self) -> &'static [&'static str] {
        match self {
            Self::C => &["libatomic1", "libgcc-s1", "libgomp1"],
            Self::Cpp => &["libatomic1", "libgcc-s1", "libgomp1", "libstdc++6"],
            Self::Fortran => &["libgcc-s1", "libgfortran5"],
            Self::Rust => &["libgcc-s1"],
        }
    }
}

/// A compiler's package without the number of its release: `gcc-12` is `gcc`.
fn tool_name(tool: &str) -> &str {
    match tool.rsplit_once('-') {
        Some((name, version)) if version.starts_with(|c: char| c.is_ascii_digit()) => name,
        _ => tool,
    }
}

/// Which of Debian's Rusts a tool is of, as the names of their packages end: in nothing, `-web`, `-1.85`.
fn rust_release(tool: &str) -> Option<&str> {
    let release = tool.strip_prefix("rustc").or_else(|| tool.strip_prefix("cargo"))?;
    let is_numbered = release
        .strip_prefix('-')
        .is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit()));
    (release.is_empty() || release == "-web" || is_numbered).then_some(release)
}

/// The Debian packages that compile for an architecture what a tool compiles for its own machine.
fn compilers(tool: &str, architecture: &str) -> Vec<String> {
    let Some(triplet) = gnu_triplet(machine(architecture)) else {
        return Vec::new();
    };
    // Names of packages have no `_`.
    let triplet = triplet.replace('_', "-");
    let named = |tools: &[&str]| tools.iter().map(|tool| format!("{tool}-{triplet}")).collect();
    match tool_name(tool) {
        "binutils" | "cpp" | "gcc" | "gdc" | "gfortran" | "gnat" | "gobjc" | "gobjc++" | "g++" => named(&[tool]),
        "build-essential" | "clang" => named(&["gcc", "g++"]),
        _ if rust_release(tool).is_some() => named(&["gcc"]),
        _ => Vec::new(),
    }
}

/// The packages of the workspace that are run while others are cross-compiled, with what these are made of, as the machine
/// sees them that builds.
pub fn machine_tools(workspace: &Workspace, machine: &str) -> Workspace {
    let packages = workspace.packages.values();
    let crossed = packages.filter(|package| is_crossed_on(workspace, package, machine));
    let tools = crossed.flat_map(|package| package_names(&package.tools).chain(package_names(&package.dev)));
    let tools: BTreeSet<PackageName> = tools.cloned().collect();
    let mut seen = workspace.only(&tools, &BTreeSet::new());
    let needed = graph::closure(tools.iter(), |name| {
        let package = seen.packages.get(*name).into_iter();
        let lists = package.flat_map(|package| [&package.tools, &package.libraries, &package.runtime]);
        lists.flat_map(|list| package_names(list))
    });
    let needed: BTreeSet<PackageName> = needed.into_iter().cloned().collect();
    seen.packages.retain(|name, _| needed.contains(name));
    seen.debian.architecture = Some(machine.to_owned());
    seen
}

/// The sets of Debian packages that a machine, by its Debian architecture, takes to compile for others, each with what needs
/// it.
pub fn cross_sets(workspace: &Workspace, home: &str, machine: &str) -> BTreeMap<Vec<String>, String> {
    let mut sets = BTreeMap::new();
    for architecture in architectures(workspace, home) {
        for (set, owner) in sets_for(&workspace.at(&architecture, home), machine) {
            sets.entry(set).or_insert(owner);
        }
    }
    sets
}

/// The sets of Debian packages for a machine in a plan of what the workspace is seen from.
pub fn sets_for(seen: &Workspace, machine: &str) -> Vec<(Vec<String>, String)> {
    let mut sets = Vec::new();
    let packages = seen.packages.iter();
    for (name, package) in packages.filter(|(_, package)| is_crossed_on(seen, package, machine)) {
        let owner = format!("package `{name}`, compiled for {}", target(seen));
        sets.push((cross_debs(seen, package), owner.clone()));
        sets.push((cross_shell_debs(seen, package), owner));
    }
    for (name, package) in &machine_tools(seen, machine).packages {
        let steps = package.language.iter().flat_map(|language| language.value.step_debs());
        let own = native_debs(seen, package);
        let all = [own].into_iter().chain(steps);
        sets.extend(all.map(|set| (set, format!("package `{name}`"))));
    }
    sets.retain(|(set, _)| !set.is_empty());
    sets
}

#[cfg(test)]
mod tests;
