//! What a workspace *needs* from outside, and so what a lock must hold.
//!
//! Invariant: a function of the workspace alone, in which order does not matter; `plan` asks the lock for
//! exactly the sets named here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::lock::Lock;
use super::types::{DEBIAN_BASE, Dependency, Image, Package, PackageName, Source, Spanned, Workspace};
use crate::graph;

/// Debian's Essential packages, which maintainer scripts may use without saying so (Debian policy §3.8), and what makes
/// accounts. `usr-is-merged` is named so that it is chosen before `usrmerge`, which would change a running system.
const DEBIAN_ESSENTIAL: &[&str] = &[
    "adduser",
    "base-files",
    "base-passwd",
    "bash",
    "bsdutils",
    "coreutils",
    "dash",
    "debconf",
    "debianutils",
    "diffutils",
    "dpkg",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "init-system-helpers",
    "libc-bin",
    "login",
    "ncurses-base",
    "ncurses-bin",
    "perl-base",
    "sed",
    "sysvinit-utils",
    "tar",
    "usr-is-merged",
    "util-linux",
];

/// The sets of Debian packages that are each resolved together, by their sorted names; empty sets left out.
///
/// They are resolved apart because each is laid out apart: what a compiler needs must not decide which
/// alternative an image gets. A set for each
/// - package with a script: its `tools`, `libraries` and `runtime`, and the base environment;
/// - such a package that has Debian packages in `dev`: the same with these, for `layerize shell`;
/// - image: its `root`;
/// - image whose packages are configured: the tools that this takes, the same for all, unless they could not run here;
/// - image: the Debian packages in its `contents`, whose own dependencies are members of its closure.
///
/// What a package's `runtime` depends on when an image holds it was resolved with the package's build, so that
/// the closure of a package is the same in each image.
pub fn deb_sets(workspace: &Workspace) -> BTreeSet<Vec<String>> {
    let builds = workspace.packages.values().flat_map(|package| {
        [
            build_debs(workspace, package),
            shell_debs(workspace, package).unwrap_or_default(),
        ]
    });
    let images = workspace.images.values().flat_map(|image| {
        let debs = |dependencies| sorted(debs(dependencies).map(str::to_owned));
        [debs(&image.root), debs(&image.contents)]
    });
    let tools = needs_tools(workspace) && !is_foreign(workspace);
    (builds.chain(images))
        .filter(|set| !set.is_empty())
        .chain(tools.then(tool_debs))
        .collect()
}

/// The sets that `lock` holds of those that the workspace needs or may have: the tools of another kind of machine, which
/// a lock that was made there has. What was locked so is built so wherever it is built.
pub fn locked_sets(workspace: &Workspace, lock: &Lock) -> BTreeSet<Vec<String>> {
    let mut sets = deb_sets(workspace);
    let tools = tool_debs();
    if needs_tools(workspace) && lock.deb_sets.contains_key(&tools) {
        sets.insert(tools);
    }
    sets
}

/// Whether the maintainer scripts of an image's packages would run where the tools for it are. Over a base they do not: what
/// its package manager knows is not known.
pub fn wants_scripts(image: &Image) -> bool {
    image.configure.is_some() && !image.root.is_empty() && image.base.is_none()
}

/// Whether the maintainer scripts of an image's packages run: a lock that was made on another kind of machine than its
/// packages are for has no tools that they could run with.
pub fn runs_scripts(workspace: &Workspace, lock: &Lock, image: &Image) -> bool {
    wants_scripts(image) && locked_sets(workspace, lock).contains(&tool_debs())
}

fn needs_tools(workspace: &Workspace) -> bool {
    workspace.images.values().any(wants_scripts)
}

/// Whether the packages are for another kind of machine than this one, as the spec says.
fn is_foreign(workspace: &Workspace) -> bool {
    let architecture = workspace.debian.architecture.as_deref();
    architecture.is_some_and(|architecture| machine(architecture) != std::env::consts::ARCH)
}

/// The kernel's name of the machine for Debian's architecture.
pub(crate) fn machine(architecture: &str) -> &str {
    match architecture {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        "armel" => "armv5tel",
        "armhf" => "armv7l",
        "i386" => "i686",
        "loong64" => "loongarch64",
        "ppc64el" => "powerpc64le",
        other => other,
    }
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
pub fn bases(workspace: &Workspace) -> BTreeSet<(String, String)> {
    let images = workspace.images.iter();
    let bases = images.filter_map(|(name, image)| Some((name.clone(), image.base.as_ref()?.value.clone())));
    bases.collect()
}

/// Whether `lock` holds exactly what `workspace` needs; if not, what is missing and what is too much, a line
/// each.
pub fn lock_is_current(workspace: &Workspace, lock: &Lock) -> Result<(), Vec<String>> {
    let mut wrong = Vec::new();
    let wanted = workspace.debian.architecture.as_ref();
    if let (Some(wanted), Some(locked)) = (wanted, &lock.architecture)
        && wanted != locked
    {
        wrong.push(format!(
            "the lock is for architecture `{locked}`, the spec for `{wanted}`"
        ));
    }
    compare(
        &locked_sets(workspace, lock),
        lock.deb_sets.keys().cloned().collect(),
        |names| match *names == tool_debs() {
            true => "the tools that maintainer scripts need".to_owned(),
            false => format!("the resolution of `deb:{}`", names.join("`, `deb:")),
        },
        &mut wrong,
    );
    compare(
        &deb_sources(workspace),
        lock.deb_sources.keys().cloned().collect(),
        |name| format!("the Debian source package `{name}`"),
        &mut wrong,
    );
    compare(
        &unpinned_urls(workspace).into_keys().collect(),
        lock.urls.keys().cloned().collect(),
        |name| format!("the download for package `{name}`"),
        &mut wrong,
    );
    compare(
        &nix_contents(workspace).into_keys().collect(),
        lock.nix.keys().cloned().collect(),
        |name| format!("the Nix store path of `{name}`"),
        &mut wrong,
    );
    compare(
        &bases(workspace),
        (lock.bases.iter())
            .map(|(image, base)| (image.clone(), base.reference.clone()))
            .collect(),
        |(image, base)| format!("the base `{base}` of image `{image}`"),
        &mut wrong,
    );
    let used: BTreeSet<&String> = lock.deb_sets.values().flatten().collect();
    let unused = lock.debs.keys().filter(|name| !used.contains(name));
    wrong.extend(unused.map(|name| format!("no longer needed: the Debian package `{name}`")));
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// The Debian packages of `package`'s build, sorted; none where it has no script.
pub fn build_debs(workspace: &Workspace, package: &Package) -> Vec<String> {
    if package.script.is_none() {
        return Vec::new();
    }
    let own = [&package.tools, &package.libraries, &package.runtime];
    let own = own.into_iter().flat_map(|list| debs(list)).map(str::to_owned);
    let base = if package.base { base(workspace) } else { Vec::new() };
    sorted(own.chain(base))
}

/// The Debian packages of `package`'s shell, sorted; `None` where they are those of its build.
pub fn shell_debs(workspace: &Workspace, package: &Package) -> Option<Vec<String>> {
    package.script.as_ref()?;
    let build = build_debs(workspace, package);
    let dev = debs(&package.dev).map(str::to_owned);
    let shell = sorted(build.iter().cloned().chain(dev));
    (shell != build).then_some(shell)
}

/// The Debian packages whose programs maintainer scripts use, sorted.
pub fn tool_debs() -> Vec<String> {
    sorted(DEBIAN_ESSENTIAL.iter().map(|name| (*name).to_owned()))
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

fn compare<T: Ord>(needed: &BTreeSet<T>, locked: BTreeSet<T>, name: impl Fn(&T) -> String, wrong: &mut Vec<String>) {
    let missing = needed
        .difference(&locked)
        .map(|item| format!("missing: {}", name(item)));
    wrong.extend(missing);
    let superfluous = locked
        .difference(needed)
        .map(|item| format!("no longer needed: {}", name(item)));
    wrong.extend(superfluous);
}

impl Workspace {
    /// The part of the workspace that `packages` and `images` need, dev shells included: so that a plan for a
    /// few targets asks for nothing of the others.
    pub fn only(&self, packages: &BTreeSet<PackageName>, images: &BTreeSet<String>) -> Self {
        let images: BTreeMap<String, Image> = (self.images.iter())
            .filter(|(name, _)| images.contains(*name))
            .map(|(name, image)| (name.clone(), image.clone()))
            .collect();
        let contents = images.values().flat_map(|image| package_names(&image.contents));
        let needed = graph::closure(packages.iter().chain(contents), |name| {
            let package = self.packages.get(*name).into_iter();
            let lists =
                package.flat_map(|package| [&package.tools, &package.libraries, &package.runtime, &package.dev]);
            lists.flat_map(|list| package_names(list))
        });
        let packages = self.packages.iter().filter(|(name, _)| needed.contains(name));
        Self {
            files: self.files.clone(),
            packages: packages
                .map(|(name, package)| (name.clone(), package.clone()))
                .collect(),
            images,
            debian: self.debian.clone(),
            inputs: self.inputs.clone(),
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
mod tests {
    use super::*;
    use crate::spec::{LockedUrl, parse};

    const SPEC: &str = r#"
        debian.base = ["dash"]

        [package.app]
        source = "."
        tools = ["deb:gcc", "lib", "plain"]
        libraries = ["deb:libc6-dev"]
        runtime = ["deb:tzdata"]
        dev = ["deb:gdb"]
        script = "make"

        [package.lib]
        source = { url = "https://x.invalid/lib.tar.gz" }
        tools = ["deb:make"]
        dev = ["deb:dash", "helper"]
        script = "make"

        [package.bare]
        source = { deb-source = "hello" }
        base = false
        script = "make"

        [package.helper]
        source = { deb-source = "hello" }
        script = "make"

        [package.plain]
        source = { url = "https://x.invalid/plain.tar.gz" }

        [package.pinned]
        source = { url = "https://x.invalid/x", sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" }

        [image.one]
        contents = ["app", "deb:zlib1g", "deb:bash"]
        root = ["deb:nginx"]

        [image.two]
        contents = ["deb:bash", "deb:zlib1g"]
    "#;

    fn workspace() -> Workspace {
        parse(SPEC).unwrap_or_else(|errors| panic!("{errors}"))
    }

    fn current_lock() -> Lock {
        let sets = deb_sets(&workspace());
        let deb = |name: &String| {
            let deb = crate::spec::LockedDeb {
                archive: None,
                version: "1".to_owned(),
                architecture: "amd64".to_owned(),
                filename: "pool/x.deb".to_owned(),
                size: 1,
                sha256: crate::digest::Digest::of(b""),
                depends: Vec::new(),
                source: (name.clone(), "1".to_owned()),
            };
            (name.clone(), deb)
        };
        let url = LockedUrl {
            size: 0,
            sha256: crate::digest::Digest::of(b""),
        };
        let source = crate::spec::LockedDebSource {
            archive: None,
            version: "1".to_owned(),
            directory: "pool".to_owned(),
            files: Vec::new(),
        };
        Lock {
            architecture: Some("amd64".to_owned()),
            debs: sets.iter().flatten().map(deb).collect(),
            deb_sets: sets.iter().map(|set| (set.clone(), set.clone())).collect(),
            deb_sources: [("hello".to_owned(), source)].into(),
            urls: (unpinned_urls(&workspace()).into_keys())
                .map(|name| (name, url.clone()))
                .collect(),
            nix: BTreeMap::new(),
            bases: BTreeMap::new(),
            accounts: BTreeMap::new(),
            golden: Default::default(),
        }
    }

    #[test]
    fn each_way_of_laying_out_has_its_set() {
        let sets: Vec<String> = deb_sets(&workspace()).iter().map(|set| set.join(" ")).collect();
        assert_eq!(
            sets,
            [
                &*tool_debs().join(" "),
                "bash zlib1g",
                "dash",
                "dash gcc gdb libc6-dev tzdata",
                "dash gcc libc6-dev tzdata",
                "dash make",
                "nginx",
            ]
        );
    }

    /// The tools are there for scripts that run: not without packages, where the spec says no, over a base, or for another
    /// kind of machine, unless a lock that was made there has them.
    #[test]
    fn tools_are_needed_where_scripts_run() {
        let native = if std::env::consts::ARCH == "x86_64" {
            "amd64"
        } else {
            "arm64"
        };
        let foreign = if native == "amd64" { "arm64" } else { "amd64" };
        for (debian, image, expected) in [
            ("", "root = [\"deb:ab\"]", true),
            ("", "root = [\"deb:ab\"]\nconfigure = true", true),
            ("", "root = [\"deb:ab\"]\nconfigure = { skip = [\"deb:ab\"] }", true),
            ("", "root = [\"deb:ab\"]\nconfigure = false", false),
            ("", "root = [\"deb:ab\"]\nbase = \"oci:base\"", false),
            ("", "contents = [\"deb:ab\"]", false),
            (native, "root = [\"deb:ab\"]", true),
            (foreign, "root = [\"deb:ab\"]", false),
        ] {
            let head = match debian {
                "" => String::new(),
                architecture => format!("[debian]\narchitecture = \"{architecture}\"\n"),
            };
            let text = format!("{head}[image.x]\n{image}\n");
            let workspace = parse(&text).unwrap_or_else(|errors| panic!("{errors}"));
            assert_eq!(deb_sets(&workspace).contains(&tool_debs()), expected, "{text}");
            let mut lock = Lock::default();
            assert_eq!(
                runs_scripts(&workspace, &lock, &workspace.images["x"]),
                expected,
                "{text}"
            );
            lock.deb_sets.insert(tool_debs(), Vec::new());
            let runs = runs_scripts(&workspace, &lock, &workspace.images["x"]);
            assert_eq!(runs, expected || debian == foreign, "{text}");
            let superfluous = lock_is_current(&workspace, &lock).err().unwrap_or_default();
            let told = "no longer needed: the tools that maintainer scripts need".to_owned();
            assert_eq!(superfluous.contains(&told), !runs, "{text}: {superfluous:?}");
        }
    }

    #[test]
    fn the_base_is_the_machine_independent_default() {
        let text = SPEC.replace("debian.base = [\"dash\"]", "");
        let workspace = parse(&text).unwrap();
        let helper = &workspace.packages[&PackageName("helper".to_owned())];
        assert_eq!(build_debs(&workspace, helper), DEBIAN_BASE);
    }

    #[test]
    fn downloads_without_a_digest_are_to_be_pinned() {
        let urls: Vec<(String, String)> = (unpinned_urls(&workspace()).into_iter())
            .map(|(name, url)| (name.0, url))
            .collect();
        let expected = [
            ("lib", "https://x.invalid/lib.tar.gz"),
            ("plain", "https://x.invalid/plain.tar.gz"),
        ];
        assert_eq!(urls, expected.map(|(name, url)| (name.to_owned(), url.to_owned())));
        assert_eq!(deb_sources(&workspace()), ["hello".to_owned()].into());
    }

    #[test]
    fn a_lock_is_current_or_says_why_not() {
        assert_eq!(lock_is_current(&workspace(), &current_lock()), Ok(()));
        let mut lock = current_lock();
        lock.deb_sets.remove(&vec!["nginx".to_owned()]);
        lock.deb_sets.insert(vec!["old".to_owned()], Vec::new());
        lock.deb_sources.clear();
        let url = lock.urls.remove(&PackageName("lib".to_owned())).unwrap();
        lock.urls.insert(PackageName("gone".to_owned()), url);
        lock.architecture = Some("arm64".to_owned());
        let mut workspace = workspace();
        workspace.debian.architecture = Some("amd64".to_owned());
        assert_eq!(
            lock_is_current(&workspace, &lock).unwrap_err(),
            [
                "the lock is for architecture `arm64`, the spec for `amd64`",
                "missing: the resolution of `deb:nginx`",
                "no longer needed: the resolution of `deb:old`",
                "missing: the Debian source package `hello`",
                "missing: the download for package `lib`",
                "no longer needed: the download for package `gone`",
                "no longer needed: the Debian package `nginx`",
            ]
        );
    }

    #[test]
    fn a_part_holds_what_it_needs_and_no_more() {
        let workspace = workspace();
        let names = |packages: &[&str], images: &[&str]| {
            let packages = packages.iter().map(|name| PackageName((*name).to_owned())).collect();
            let images = images.iter().map(|name| (*name).to_owned()).collect();
            let part = workspace.only(&packages, &images);
            let names = part
                .packages
                .keys()
                .map(ToString::to_string)
                .chain(part.images.into_keys());
            names.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(&[], &[]), "");
        assert_eq!(names(&["plain", "nope"], &[]), "plain");
        assert_eq!(names(&["lib"], &[]), "helper lib");
        assert_eq!(names(&[], &["one"]), "app helper lib plain one");
        assert_eq!(names(&["bare"], &["two"]), "bare two");
    }
}
