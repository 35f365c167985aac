//! What a workspace *needs* from outside, and so what a lock must hold.
//!
//! Invariant: a function of the workspace alone, in which order does not matter; `plan` asks the lock for
//! exactly the sets named here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::certificates::CERTIFICATES_DEB;
use super::cross::{is_crossed, target_debs, wants_cross};
use super::git::GitSource;
use super::imported::ImportedSpec;
use super::lock::Lock;
use super::types::{
    DEBIAN_BASE, DEBIAN_ESSENTIAL, Dependency, Image, Package, PackageName, Source, Spanned, Workspace,
};
use crate::graph;

/// The Debian package that makes accounts: it is among the tools, so that images whose scripts call it share them.
const ACCOUNTS_DEB: &str = "adduser";

/// The Debian package of the C library.
pub const GLIBC_DEB: &str = "libc6";

/// The Debian package with the C library's debug files.
const GLIBC_DEBUG_DEB: &str = "libc6-dbg";

/// How the names of other packages with debug files end.
const DEBUG_DEB_ENDING: &str = "-dbgsym";

/// The Debian package that brings the C library's locale `C.UTF-8`.
pub const UTF8_DEB: &str = "libc-bin";

/// The Debian package of time zones.
pub const ZONE_DEB: &str = "tzdata";

/// The sets of Debian packages that are each resolved together, by their sorted names; empty sets left out.
///
/// They are resolved apart because each is laid out apart: what a compiler needs must not decide which
/// alternative an image gets. A set for each
/// - package with a script: its `tools`, `libraries` and `runtime`, and the base environment;
/// - such a package in a language that has steps of its own: what each kind of these is run with;
/// - such a package that has Debian packages in `dev`: the same with these, for `layerize shell`;
/// - image: its `root`;
/// - image whose packages are configured: the tools that this takes, the same for all;
/// - image with a time zone: the package of all zones, of which it gets one;
/// - image with `certificates` and no `root`: the package of Debian's authorities, of which it gets the bundle;
/// - image with `locales`: what these are made of;
/// - image: the Debian packages in its `contents`, whose own dependencies are members of its closure;
/// - debug image: its tools.
///
/// What a package's `runtime` depends on when an image holds it was resolved with the package's build, so that
/// the closure of a package is the same in each image.
pub fn deb_sets(workspace: &Workspace) -> BTreeSet<Vec<String>> {
    needed_sets(workspace).into_iter().map(|(set, _)| set).collect()
}

/// The sets of [`deb_sets`], each as often as something needs it, with what that is.
pub(super) fn needed_sets(workspace: &Workspace) -> Vec<(Vec<String>, String)> {
    let builds = workspace.packages.iter().flat_map(|(name, package)| {
        let own = [
            (build_debs(workspace, package), format!("package `{name}`")),
            (
                shell_debs(workspace, package).unwrap_or_default(),
                format!("the shell of package `{name}`"),
            ),
        ];
        let language = package.language.iter();
        let steps = language.flat_map(|language| language.value.step_debs());
        own.into_iter()
            .chain(steps.map(move |set| (set, format!("the language of package `{name}`"))))
    });
    let images = workspace.images.iter().flat_map(|(name, image)| {
        let debs = |dependencies| sorted(debs(dependencies).map(str::to_owned));
        let zones = image.timezone.iter().map(|_| ZONE_DEB.to_owned()).collect();
        let certificates = wants_authorities(image).then(certificate_debs).unwrap_or_default();
        let tools = image.debug.iter().flat_map(|debug| debug.tools.clone()).collect();
        let sets = [
            (debs(&image.root), "`root`"),
            (debs(&image.contents), "`contents`"),
            (zones, "`timezone`"),
            (certificates, "`certificates`"),
            (tools, "`debug`"),
        ];
        sets.map(|(set, key)| (set, format!("{key} of image `{name}`")))
    });
    let step = step_sets(workspace);
    (builds.chain(images))
        .filter(|(set, _)| !set.is_empty())
        .chain(step.into_iter().map(|set| (set, "maintainer scripts".to_owned())))
        .collect()
}

/// Whether an image is given the bundle of Debian's authorities. With a `root` it has the package.
pub fn wants_authorities(image: &Image) -> bool {
    image.certificates.is_some() && image.root.is_empty() && image.base.is_none()
}

/// The Debian packages of the authorities.
pub fn certificate_debs() -> Vec<String> {
    vec![CERTIFICATES_DEB.to_owned()]
}

/// The sets that configuring takes: the tools, and what locales are made of.
fn step_sets(workspace: &Workspace) -> Vec<Vec<String>> {
    let images = || workspace.images.values().filter(|image| wants_scripts(image));
    let tools = images().next().map(|_| tool_debs());
    let locales = images().find(|image| !image.locales.is_empty()).map(|_| locale_debs());
    tools.into_iter().chain(locales).collect()
}

/// The sets that the workspace needs, as far as `lock` shows: with what the resolved ones imply.
pub fn locked_sets(workspace: &Workspace, lock: &Lock) -> BTreeSet<Vec<String>> {
    let mut sets = deb_sets(workspace);
    sets.extend(sets_of_other_machines(workspace, lock));
    if workspace
        .images
        .values()
        .any(|image| lacks_locale(workspace, lock, image))
    {
        sets.insert(utf8_debs());
    }
    sets.extend(debug_sets(workspace, lock));
    sets
}

/// The sets of the lock with which machines of other kinds build what is compiled where it is built.
fn sets_of_other_machines<'a>(workspace: &'a Workspace, lock: &'a Lock) -> impl Iterator<Item = Vec<String>> + 'a {
    let packages = workspace.packages.values();
    let crossed = packages.filter(|package| wants_cross(workspace, package));
    let sets = crossed.flat_map(|package| {
        let shell = native_shell_debs(workspace, package);
        let all = [target_debs(package), native_debs(workspace, package)];
        all.into_iter().chain(shell)
    });
    sets.filter(|set| lock.deb_sets.contains_key(set))
}

/// The sets of the packages with debug files that the lock has: no debug image needs them.
pub fn debug_sets(workspace: &Workspace, lock: &Lock) -> BTreeSet<Vec<String>> {
    let needed = deb_sets(workspace);
    let files = workspace
        .images
        .values()
        .flat_map(|image| debug_files(workspace, lock, image));
    let sets = files.map(|(_, files)| vec![files]);
    sets.filter(|set| lock.deb_sets.contains_key(set) && !needed.contains(set))
        .collect()
}

/// The Debian packages of a debug image whose debug files may be in a package of their own, by that package's name. Which of
/// these there are shows when the lock is made.
pub fn debug_files(workspace: &Workspace, lock: &Lock, image: &Image) -> BTreeMap<String, String> {
    if image.debug.is_none() {
        return BTreeMap::new();
    }
    let names = BTreeSet::from([image.name.value.clone()]);
    let packages = workspace.only(&BTreeSet::new(), &names).packages;
    let linked = linked_packages(workspace, image);
    let linked = linked.iter().filter_map(|name| packages.get(name));
    let wanted = linked.flat_map(|package| {
        let own = debs(&package.libraries).chain(debs(&package.runtime));
        own.map(|name| (build_debs(workspace, package), name.to_owned()))
            .collect::<Vec<_>>()
    });
    let of_image = [root_debs(image), contents_debs(image)].into_iter();
    let of_image = of_image.flat_map(|set| set.clone().into_iter().map(move |name| (set.clone(), name)));
    let mut found = BTreeMap::new();
    for (set, name) in wanted.chain(of_image) {
        let Some(members) = lock.deb_sets.get(&set) else {
            continue;
        };
        let members: BTreeSet<&String> = members.iter().collect();
        let needed = graph::closure([&name], |name| {
            let depends = lock
                .debs
                .get(*name)
                .into_iter()
                .flat_map(|deb| deb.depends.iter().flatten());
            depends.filter(|name| members.contains(name))
        });
        let has_programs = |name: &&&String| lock.debs.get(**name).is_some_and(|deb| deb.architecture != "all");
        found.extend(
            needed
                .iter()
                .filter(has_programs)
                .map(|name| ((*name).clone(), debug_files_deb(name))),
        );
    }
    found
}

/// The package that has the debug files of another one.
fn debug_files_deb(name: &str) -> String {
    match name {
        // The one package whose debug files Debian keeps in the archive itself: debuggers and profilers need them.
        GLIBC_DEB => GLIBC_DEBUG_DEB.to_owned(),
        _ => format!("{name}{DEBUG_DEB_ENDING}"),
    }
}

/// Whether a package is one that [`debug_files_deb`] names.
pub(super) fn is_debug_files_deb(name: &str) -> bool {
    name == GLIBC_DEBUG_DEB || name.ends_with(DEBUG_DEB_ENDING)
}

/// The packages of the spec that an image is made of: its contents, and what these are linked to or name as `runtime`.
pub fn linked_packages(workspace: &Workspace, image: &Image) -> BTreeSet<PackageName> {
    let linked = graph::closure(image.packages(), |name| {
        let package = workspace.packages.get(*name).into_iter();
        let lists = package.flat_map(|package| [&package.libraries, &package.runtime]);
        lists.flat_map(|list| package_names(list))
    });
    linked.into_iter().cloned().collect()
}

/// Whether Debian's C library is in an image and the package of its locale `C.UTF-8`, on which nothing depends, is not.
fn lacks_locale(workspace: &Workspace, lock: &Lock, image: &Image) -> bool {
    let has = |set: &Vec<String>, name: &str| {
        let members = lock.deb_sets.get(set);
        members.is_some_and(|members| members.iter().any(|member| member == name))
    };
    let root = root_debs(image);
    let names = BTreeSet::from([image.name.value.clone()]);
    let packages = workspace.only(&BTreeSet::new(), &names).packages;
    let built = packages.values().map(|package| build_debs(workspace, package));
    let mut sets = built.chain([root.clone(), contents_debs(image)]);
    image.utf8 && image.base.is_none() && !has(&root, UTF8_DEB) && sets.any(|set| has(&set, GLIBC_DEB))
}

/// The Debian packages of the locale `C.UTF-8`.
pub fn utf8_debs() -> Vec<String> {
    vec![UTF8_DEB.to_owned()]
}

/// Whether the maintainer scripts of an image's packages run: where nothing can run them, that is an error wherever it is, and no
/// other image. Over a base they do not: what its package manager knows is not known.
pub fn wants_scripts(image: &Image) -> bool {
    image.configure.is_some() && !image.root.is_empty() && image.base.is_none()
}

/// Names of the Debian source packages that are built.
pub fn deb_sources(workspace: &Workspace) -> BTreeSet<String> {
    let sources = workspace
        .packages
        .values()
        .filter_map(|package| match &package.source.as_ref()?.value {
            Source::DebianSource { name } => Some(name.clone()),
            _ => None,
        });
    sources.collect()
}

/// Addresses whose digest the spec does not give, by the package that has them as its source.
pub fn unpinned_urls(workspace: &Workspace) -> BTreeMap<PackageName, String> {
    let urls = (workspace.packages.iter()).filter_map(|(name, package)| match &package.source.as_ref()?.value {
        Source::Url { url, sha256: None, .. } => Some((name.clone(), url.clone())),
        _ => None,
    });
    urls.collect()
}

/// Repositories that packages have as their source.
pub fn git_sources(workspace: &Workspace) -> BTreeMap<PackageName, &GitSource> {
    let sources = (workspace.packages.iter()).filter_map(|(name, package)| match &package.source.as_ref()?.value {
        Source::Git(source) => Some((name.clone(), source.as_ref())),
        _ => None,
    });
    sources.collect()
}

/// What the images take from a Nix store, as the spec names it, with the directories of the specs that do.
pub fn nix_contents(workspace: &Workspace) -> BTreeMap<String, PathBuf> {
    let contents = workspace.images.values().flat_map(|image| {
        let names = image.contents.iter().filter_map(|dependency| match &dependency.value {
            Dependency::Nix(name) => Some(name.clone()),
            _ => None,
        });
        names.map(|name| (name, image.dir.clone()))
    });
    contents.collect()
}

/// Bases of the workspace's images: the image's name and the base as the spec has it.
pub(super) fn bases(workspace: &Workspace) -> BTreeSet<(String, String)> {
    // A debug image has the base of the image that it is of.
    let images = workspace.images.iter().filter(|(_, image)| image.debug.is_none());
    let bases = images.filter_map(|(name, image)| Some((name.clone(), image.base.as_ref()?.value.clone())));
    bases.collect()
}

/// The Debian packages of `package`'s build for the platform that the workspace is seen from, sorted; none where it has no
/// script. Where it is cross-compiled, its tools are among [`cross_debs`](super::cross::cross_debs).
pub fn build_debs(workspace: &Workspace, package: &Package) -> Vec<String> {
    match is_crossed(workspace, package) {
        true => target_debs(package),
        false => native_debs(workspace, package),
    }
}

/// The Debian packages of `package`'s build on a machine that it is for.
pub(super) fn native_debs(workspace: &Workspace, package: &Package) -> Vec<String> {
    if !package.is_built() {
        return Vec::new();
    }
    let own = [&package.tools, &package.libraries, &package.runtime];
    let own = own.into_iter().flat_map(|list| debs(list)).map(str::to_owned);
    sorted(own.chain(base_debs(workspace, package)))
}

/// The Debian packages that a package's build has as every build has them.
pub fn base_debs(workspace: &Workspace, package: &Package) -> Vec<String> {
    match package.base {
        true => base(workspace),
        false => Vec::new(),
    }
}

/// The Debian packages of `package`'s shell, sorted; `None` where they are those of its build.
pub fn shell_debs(workspace: &Workspace, package: &Package) -> Option<Vec<String>> {
    match is_crossed(workspace, package) {
        true => None,
        false => native_shell_debs(workspace, package),
    }
}

fn native_shell_debs(workspace: &Workspace, package: &Package) -> Option<Vec<String>> {
    if !package.is_built() {
        return None;
    }
    let build = native_debs(workspace, package);
    let dev = debs(&package.dev).map(str::to_owned);
    let shell = sorted(build.iter().cloned().chain(dev));
    (shell != build).then_some(shell)
}

/// The Debian packages whose programs maintainer scripts use, sorted.
pub fn tool_debs() -> Vec<String> {
    sorted(
        DEBIAN_ESSENTIAL
            .iter()
            .chain([&ACCOUNTS_DEB])
            .map(|name| (*name).to_owned()),
    )
}

/// The Debian packages that locales are made of, sorted.
pub fn locale_debs() -> Vec<String> {
    vec!["locales".to_owned()]
}

/// The Debian packages laid out at an image's `/`, sorted.
pub fn root_debs(image: &Image) -> Vec<String> {
    sorted(debs(&image.root).map(str::to_owned))
}

/// The Debian packages among an image's `contents`, sorted.
pub fn contents_debs(image: &Image) -> Vec<String> {
    sorted(debs(&image.contents).map(str::to_owned))
}

/// The Debian packages among `dependencies`, in their order.
pub fn debs(dependencies: &[Spanned<Dependency>]) -> impl Iterator<Item = &str> {
    dependencies.iter().filter_map(|dependency| match &dependency.value {
        Dependency::Debian(name) => Some(name.as_str()),
        _ => None,
    })
}

fn base(workspace: &Workspace) -> Vec<String> {
    let default = || DEBIAN_BASE.iter().map(|name| (*name).to_owned()).collect();
    workspace.debian.base.clone().unwrap_or_else(default)
}

fn sorted(names: impl Iterator<Item = String>) -> Vec<String> {
    names.collect::<BTreeSet<_>>().into_iter().collect()
}

impl Image {
    /// The packages of the spec that it names.
    pub fn packages(&self) -> impl Iterator<Item = &PackageName> {
        package_names(&self.contents).chain(self.lay.values().map(|package| &package.value))
    }
}

impl Workspace {
    /// The workspace whose shells have nothing that builds lack.
    pub(super) fn without_dev(&self) -> Self {
        let mut workspace = self.clone();
        workspace.packages.values_mut().for_each(|package| package.dev.clear());
        workspace
    }

    /// The part of the workspace that `packages` and `images` need, dev shells included: so that a plan for a
    /// few targets asks for nothing of the others.
    pub fn only(&self, packages: &BTreeSet<PackageName>, images: &BTreeSet<String>) -> Self {
        let images: BTreeMap<String, Image> = (self.images.iter())
            .filter(|(name, _)| images.contains(*name))
            .map(|(name, image)| (name.clone(), image.clone()))
            .collect();
        let contents = images.values().flat_map(Image::packages);
        let needed = graph::closure(packages.iter().chain(contents), |name| {
            let package = self.packages.get(*name).into_iter();
            let lists =
                package.flat_map(|package| [&package.tools, &package.libraries, &package.runtime, &package.dev]);
            lists.flat_map(|list| package_names(list))
        });
        let imports: BTreeMap<String, ImportedSpec> = (self.imports.iter())
            .filter(|(alias, _)| {
                let is_of = |name: &&&PackageName| self.imported(name).is_some_and(|(of, _)| of == *alias);
                needed.contains(&PackageName((*alias).clone())) || needed.iter().any(|name| is_of(&name))
            })
            .map(|(alias, import)| (alias.clone(), import.clone()))
            .collect();
        let is_needed = |name: &PackageName| needed.contains(name) || imports.contains_key(&name.0);
        let packages = self.packages.iter().filter(|(name, _)| is_needed(name));
        Self {
            files: self.files.clone(),
            packages: packages
                .map(|(name, package)| (name.clone(), package.clone()))
                .collect(),
            imports,
            images,
            debian: self.debian.clone(),
            inputs: self.inputs.clone(),
            cache: self.cache.clone(),
            build: self.build,
        }
    }
}

/// The workspace's packages among `dependencies`, in their order.
pub(crate) fn package_names(dependencies: &[Spanned<Dependency>]) -> impl Iterator<Item = &PackageName> {
    dependencies.iter().filter_map(|dependency| match &dependency.value {
        Dependency::Package(name) => Some(name),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
