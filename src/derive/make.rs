//! *Making* a plan: a step for everything that a workspace builds or fetches.
//!
//! Invariant: equal steps are one step, whoever needs them; a step comes after its inputs; the plan is a
//! function of spec, lock and the store paths of local sources.

use std::collections::{BTreeMap, BTreeSet};

use percent_encoding::percent_decode_str;

use crate::graph;
use crate::spec::{
    self, Dependency, Diagnostic, Diagnostics, GitSource, GitTree, Image, Lock, Package, PackageName, Source, Spanned,
    Workspace,
};
use crate::store_path::{NAME_MAX, StorePath};

use super::debs::Resolution;
use super::exclude::DebsOfImage;
use super::resolve::step_key;
use super::script::{Purpose, Scripts, in_files, resolve, unique};
use super::{
    Action, BuildPlan, Configure, ConfiguredDeb, Derivation, Download, ImageInputs, ImportedPlan, Input,
    LanguageSource, Origin, Part, StepId,
};

/// The plan of all packages and images in `workspace`, with the Debian packages that they need.
///
/// `sources` holds the store path of each package's `path` source, added under its [`source_name`], `languages` what the
/// packages take from their languages. Everything that the lock does not hold is reported at once.
pub fn make(
    workspace: &Workspace,
    lock: &Lock,
    sources: &BTreeMap<PackageName, StorePath>,
    languages: &BTreeMap<PackageName, LanguageSource>,
) -> Result<BuildPlan, Diagnostics> {
    make_with(workspace, lock, sources, languages, &[])
}

/// As [`make`], with the plans of the projects that the workspace imports.
pub fn make_with(
    workspace: &Workspace,
    lock: &Lock,
    sources: &BTreeMap<PackageName, StorePath>,
    languages: &BTreeMap<PackageName, LanguageSource>,
    imported: &[ImportedPlan],
) -> Result<BuildPlan, Diagnostics> {
    let mut maker = Maker {
        workspace,
        lock,
        sources,
        languages,
        plan: BuildPlan::default(),
        known: BTreeMap::new(),
    };
    maker.add_machine_part()?;
    let mut errors: Vec<Diagnostic> = check_lock(workspace, lock).into_iter().collect();
    if !errors.is_empty() {
        return Err(in_files(errors, &workspace.files));
    }
    maker.add_debs(&spec::locked_sets(workspace, lock));
    maker.add_emulator();
    imported.iter().for_each(|plan| maker.adopt(plan));
    errors.extend(maker.add_packages());
    // What needs a package that failed would only say so again.
    if errors.is_empty() {
        for (name, image) in &workspace.images {
            match maker.image(image) {
                Ok(inputs) => {
                    maker.plan.images.insert(name.clone(), inputs);
                }
                Err(diagnostic) => errors.push(*diagnostic),
            }
        }
    }
    if errors.is_empty() {
        return Ok(maker.plan);
    }
    Err(in_files(errors, &workspace.files))
}

/// Name part of the store path of what `package` makes: `NAME-VERSION`, or `NAME`.
pub fn output_name(package: &Package) -> String {
    let name = package.name.value.0.rsplit(':').next().unwrap_or_default();
    match &package.version {
        Some(version) => format!("{name}-{}", version.value),
        None => name.to_owned(),
    }
}

/// Name part of the store path of `package`'s source, `is_file` where that is a single file and no tree.
///
/// Without a script the source is the output and named as that. A script finds a single file in its working
/// directory under this name, so it keeps its own; anything else is named by the package, whatever its
/// directory or archive is called.
pub fn source_name(package: &Package, is_file: bool) -> String {
    let own = package
        .source
        .as_ref()
        .and_then(|source| source_file_name(&source.value));
    match (package.is_built(), own) {
        (false, _) => output_name(package),
        (true, Some(own)) if is_file => store_name(&own),
        (true, _) => format!("{}-source", output_name(package)),
    }
}

/// What a source is called where it comes from: the last part of its path or address.
pub(super) fn source_file_name(source: &Source) -> Option<String> {
    match source {
        Source::Path { path, .. } => path.rsplit('/').find(|part| !part.is_empty()).map(str::to_owned),
        Source::Url { url, .. } => Some(url_file_name(url)),
        Source::DebianSource { .. } | Source::Git(_) => None,
    }
}

/// The packages, each after those that its build needs.
fn in_order(workspace: &Workspace) -> Vec<&Package> {
    let packages: Vec<&Package> = workspace.packages.values().collect();
    let names: Vec<&PackageName> = workspace.packages.keys().collect();
    let successors: Vec<Vec<usize>> = (packages.iter())
        .map(|package| {
            let lists = [&package.tools, &package.libraries, &package.runtime];
            let needed = lists.into_iter().flat_map(|list| spec::package_names(list));
            needed.filter_map(|name| names.binary_search(&name).ok()).collect()
        })
        .collect();
    let order = graph::dependency_order(&successors);
    order.into_iter().map(|index| packages[index]).collect()
}

fn check_lock(workspace: &Workspace, lock: &Lock) -> Option<Diagnostic> {
    let (wanted, locked) = (workspace.debian.architecture.as_ref()?, lock.architecture.as_ref()?);
    (wanted != locked).then(|| {
        Diagnostic::new(format!(
            "the lock is for architecture `{locked}`, the spec for `{wanted}`"
        ))
        .help("run `layerize lock`")
    })
}

pub(super) struct Maker<'a> {
    pub(super) workspace: &'a Workspace,
    pub(super) lock: &'a Lock,
    pub(super) sources: &'a BTreeMap<PackageName, StorePath>,
    pub(super) languages: &'a BTreeMap<PackageName, LanguageSource>,
    pub(super) plan: BuildPlan,
    /// Steps by everything in them that is hashed.
    pub(super) known: BTreeMap<String, StepId>,
}

impl Maker<'_> {
    /// The step, or the one that is equal to it in everything that is hashed.
    pub(super) fn add(&mut self, derivation: Derivation) -> Input {
        let key = step_key(&derivation);
        if let Some(&step) = self.known.get(&key) {
            if let (Action::Script(known), Action::Script(new)) =
                (&mut self.plan.steps[step].action, &derivation.action)
            {
                // One build must suit all: the longest of their times, and none is longest.
                known.timeout_seconds = known.timeout_seconds.zip(new.timeout_seconds).map(|(a, b)| a.max(b));
                // A cache is a help only where all that share the step have it: then none can be surprised by it.
                known.cache_dirs.retain(|dir| new.cache_dirs.contains(dir));
            }
            return Input::Step(step);
        }
        self.plan.steps.push(derivation);
        self.known.insert(key, self.plan.steps.len() - 1);
        Input::Step(self.plan.steps.len() - 1)
    }

    /// A step for each package; what is wrong with any comes back.
    pub(super) fn add_packages(&mut self) -> Vec<Diagnostic> {
        let mut errors = Vec::new();
        for package in in_order(self.workspace) {
            match self.package(package) {
                Ok(input) => {
                    self.plan.packages.insert(package.name.value.clone(), input);
                }
                Err(diagnostic) => errors.push(*diagnostic),
            }
        }
        errors
    }

    /// A step for each Debian package of each of these sets.
    pub(super) fn add_debs(&mut self, sets: &BTreeSet<Vec<String>>) {
        let lock = self.lock;
        let needed = sets.iter().filter_map(|set| lock.deb_sets.get(set)).flatten();
        let needed: BTreeSet<&String> = needed.collect();
        for name in needed {
            let Some(deb) = lock.debs.get(name) else { continue };
            let derivation = Derivation {
                label: format!("deb:{name}"),
                name: debian_output_name(name, &deb.version),
                action: Action::UnpackDeb {
                    deb: Download::deb(name, deb),
                    package: name.clone(),
                },
            };
            let input = self.add(derivation);
            self.plan.debs.insert(name.clone(), input);
        }
    }

    /// What makes `package`: its script, or its source as it is.
    fn package(&mut self, package: &Package) -> Result<Input, Box<Diagnostic>> {
        let source = match &package.source {
            Some(source) => Some(self.source(package, source)?),
            None => None,
        };
        match (package.is_built(), source) {
            (false, Some(source)) => Ok(source),
            (_, source) => {
                if let Some(language) = self.language(package, source.as_ref())? {
                    self.plan.languages.insert(package.name.value.clone(), language);
                }
                let scripts = self.scripts();
                let script = scripts.of(package, source, Purpose::Build)?;
                Ok(self.add(Derivation {
                    label: package.name.value.0.clone(),
                    name: output_name(package),
                    action: Action::Script(Box::new(script)),
                }))
            }
        }
    }

    fn source(&mut self, package: &Package, source: &Spanned<Source>) -> Result<Input, Box<Diagnostic>> {
        let name = &package.name.value;
        let (label, action) = match &source.value {
            Source::Path { path, .. } => {
                let found = self.sources.get(name).cloned();
                return found.map(Input::Path).ok_or_else(|| {
                    let message = format!("the source `{path}` of package `{name}` is not in the store");
                    Box::new(Diagnostic::new(message).at(source.span.clone(), "not added"))
                });
            }
            Source::Url {
                url,
                sha256,
                unpack: wanted,
                strip,
                ..
            } => {
                let locked = self.lock.urls.get(name);
                let sha256 = sha256
                    .or(locked.map(|locked| locked.sha256))
                    .ok_or_else(|| not_locked(format!("the download for package `{name}`"), source))?;
                let file_name = url_file_name(url);
                let download = Download {
                    name: file_name.clone(),
                    hash: sha256.into(),
                    size: locked
                        .filter(|locked| locked.sha256 == sha256)
                        .map(|locked| locked.size),
                    origin: Origin::Url(url.clone()),
                };
                let unpack = |or_keep| Action::Unpack {
                    archive: download.clone(),
                    strip: *strip,
                    or_keep,
                };
                let action = match wanted.or_else(|| is_archive(&file_name)) {
                    Some(true) => unpack(false),
                    Some(false) => Action::Fetch(download),
                    None => unpack(true),
                };
                (source_label(package), action)
            }
            Source::Git(git) => {
                let action = Action::Restore(self.git_tree(name, git, source)?);
                (source_label(package), action)
            }
            Source::DebianSource { name } => {
                let locked = self.lock.deb_sources.get(name);
                let locked = locked.ok_or_else(|| not_locked(format!("the Debian source package `{name}`"), source))?;
                let action = Action::UnpackDebSource {
                    files: Download::deb_source(name, locked),
                    package: name.clone(),
                };
                (format!("deb-source:{name}"), action)
            }
        };
        Ok(self.add(Derivation {
            label,
            name: source_name(
                package,
                matches!(action, Action::Fetch(_) | Action::Unpack { or_keep: true, .. }),
            ),
            action,
        }))
    }

    fn git_tree(
        &self,
        name: &PackageName,
        git: &GitSource,
        source: &Spanned<Source>,
    ) -> Result<Download, Box<Diagnostic>> {
        let locked = self.lock.git.get(name).filter(|locked| locked.wanted == git.wanted());
        let locked = locked.ok_or_else(|| not_locked(format!("the git source of package `{name}`"), source))?;
        let tree = GitTree {
            address: git.address.clone(),
            commit: locked.commit.clone(),
            submodules: git.submodules,
            lfs: git.lfs,
        };
        Ok(Download::git(name, tree, locked))
    }

    fn image(&mut self, image: &Image) -> Result<ImageInputs, Box<Diagnostic>> {
        let configured = match &image.configure {
            Some(configure) if spec::wants_scripts(image) => Some(self.configured(image, configure)?),
            _ => None,
        };
        let wants_utf8 = image.utf8 && image.base.is_none() && self.lock.deb_sets.contains_key(&spec::utf8_debs());
        let utf8 = wants_utf8
            .then(|| self.part(spec::UTF8_DEB, Part::Utf8Locale))
            .transpose()?;
        let zone = image.timezone.as_ref().map(|zone| Part::Zone(zone.value.clone()));
        let zone = zone.map(|zone| self.part(spec::ZONE_DEB, zone)).transpose()?;
        let authorities = spec::wants_authorities(image)
            .then(|| self.part(spec::CERTIFICATES_DEB, Part::Authorities))
            .transpose()?;
        let unrun = match &image.configure {
            Some(configure) if configured.is_none() => self.unrun(image, configure)?,
            _ => BTreeMap::new(),
        };
        let debs = DebsOfImage::new(self.lock, image)?;
        let debug = image.debug.as_ref().map(|debug| self.debug(image, debug)).transpose()?;
        let laid = self.laid(image)?;
        let scripts = self.scripts();
        // What is in a Nix store is there already.
        let own = image
            .contents
            .iter()
            .filter(|content| !matches!(content.value, Dependency::Nix(_)));
        let contents = unique(scripts.all(&own.cloned().collect::<Vec<_>>())?);
        let declared = scripts.debs(debs.contents.ordered())?;
        Ok(ImageInputs {
            declared: (declared.into_iter())
                .filter(|input| !contents.contains(input))
                .collect(),
            contents,
            root: scripts.debs(debs.root.ordered())?,
            laid,
            configured,
            utf8,
            zone,
            authorities,
            left_out: debs.left_out,
            unrun,
            debug,
        })
    }

    /// The step that takes a few files of a Debian package.
    fn part(&mut self, package: &str, part: Part) -> Result<Input, Box<Diagnostic>> {
        let tree = self.scripts().debs(vec![package])?.remove(0);
        let version = self.lock.debs.get(package).map_or("", |deb| deb.version.as_str());
        let (label, name) = match &part {
            Part::Utf8Locale => ("locale C.UTF-8".to_owned(), "c.utf8".to_owned()),
            Part::Zone(zone) => (format!("time zone {zone}"), format!("zone-{zone}")),
            Part::Authorities => ("Debian's authorities".to_owned(), "authorities".to_owned()),
        };
        Ok(self.add(Derivation {
            label,
            name: debian_output_name(&name, version),
            action: Action::DebPart {
                package: package.to_owned(),
                tree,
                part,
            },
        }))
    }

    /// What says which of an image's packages have scripts, where none of them can run.
    fn unrun(
        &mut self,
        image: &Image,
        configure: &spec::Configure,
    ) -> Result<BTreeMap<String, Input>, Box<Diagnostic>> {
        let of_image = DebsOfImage::new(self.lock, image)?.root;
        let skip = skipped(configure, &of_image, &image.name.value)?;
        let debs = self.configured_debs(&of_image)?.into_iter().flatten();
        let unrun = debs.filter(|deb| !skip.contains(&deb.name));
        Ok(unrun.map(|deb| (deb.name, deb.control)).collect())
    }

    /// The step that configures an image's packages, over the tools, which all images share.
    fn configured(&mut self, image: &Image, configure: &spec::Configure) -> Result<Input, Box<Diagnostic>> {
        let (name, place) = (&image.name.value, &image.name.span);
        let of_tools = resolve(
            self.lock,
            &spec::tool_debs(),
            "the tools that configure packages",
            place,
        )?;
        let of_image = DebsOfImage::new(self.lock, image)?.root;
        let groups = self.configured_debs(&of_tools)?;
        let packages = groups.concat();
        let system = self.scripts().system();
        let tools = self.add(Derivation {
            label: "Debian's tools (configured)".to_owned(),
            name: "debian-tools".to_owned(),
            action: Action::Configure(Box::new(Configure {
                system: system.clone(),
                emulator: self.plan.emulator.clone(),
                tools: None,
                groups,
                ..Configure::default()
            })),
        });
        let groups = self.configured_debs(&of_image)?;
        let locales = self.locales(image)?;
        let skip = skipped(configure, &of_image, name)?;
        Ok(self.add(Derivation {
            label: format!("{} (configured)", image.spec_name()),
            name: "configured".to_owned(),
            action: Action::Configure(Box::new(Configure {
                system,
                tools: Some((tools, packages)),
                groups,
                skip,
                answers: image.debconf.clone(),
                locales,
                certificates: own_certificates(image),
                incomplete: !image.exclude.is_empty(),
                emulator: self.plan.emulator.clone(),
            })),
        }))
    }

    /// The locales that an image asks for, with the package that they are made of.
    fn locales(&self, image: &Image) -> Result<Option<(Input, Vec<String>)>, Box<Diagnostic>> {
        if image.locales.is_empty() {
            return Ok(None);
        }
        let user = format!("`locales` of image `{}`", image.name.value);
        let wanted = spec::locale_debs();
        resolve(self.lock, &wanted, &user, &image.name.span)?;
        let mut packages = self.scripts().debs(wanted.iter().map(String::as_str).collect())?;
        Ok(packages.pop().map(|package| (package, image.locales.clone())))
    }

    /// The packages of a resolution as they are configured: with a step each for what they say to the package manager.
    fn configured_debs(&mut self, resolution: &Resolution<'_>) -> Result<Vec<Vec<ConfiguredDeb>>, Box<Diagnostic>> {
        let mut groups = Vec::new();
        for group in resolution.groups() {
            let trees = self.scripts().debs(group.clone())?;
            let mut debs = Vec::new();
            for (name, tree) in group.into_iter().zip(trees) {
                let Some(deb) = self.lock.debs.get(name) else { continue };
                let control = self.add(Derivation {
                    label: format!("deb:{name} (scripts)"),
                    name: format!("{}-control", debian_output_name(name, &deb.version)),
                    action: Action::UnpackDebControl {
                        deb: Download::deb(name, deb),
                        package: name.to_owned(),
                    },
                });
                let name = name.to_owned();
                debs.push(ConfiguredDeb { name, tree, control });
            }
            groups.push(debs);
        }
        Ok(groups)
    }

    pub(super) fn scripts(&self) -> Scripts<'_> {
        Scripts {
            workspace: self.workspace,
            lock: self.lock,
            plan: &self.plan,
        }
    }
}

/// The certificates of an image's own, in PEM form, by name.
fn own_certificates(image: &Image) -> BTreeMap<String, String> {
    let own = image.certificates.iter().flat_map(|certificates| &certificates.own);
    own.map(|(name, own)| (name.clone(), own.certificate.pem())).collect()
}

/// What a source that was fetched is called: as the package, where it is all of it.
fn source_label(package: &Package) -> String {
    let name = &package.name.value;
    match package.is_built() {
        true => format!("{name} (source)"),
        false => name.to_string(),
    }
}

fn not_locked(what: String, source: &Spanned<Source>) -> Box<Diagnostic> {
    let diagnostic = Diagnostic::new(format!("{what} is not in the lock"))
        .at(source.span.clone(), "its digest is not known")
        .help("run `layerize lock`");
    Box::new(diagnostic)
}

/// `NAME-VERSION` without the version's epoch, as the files of the archive are named.
fn debian_output_name(name: &str, version: &str) -> String {
    let version = version.split_once(':').map_or(version, |(_, version)| version);
    store_name(&format!("{name}-{version}"))
}

/// The text as the name of a store path: what that cannot hold (`~`, a dot at the start) becomes `_`, what is
/// too long is cut.
pub(super) fn store_name(text: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "+-._?=".contains(c);
    let mut name: String = text.chars().map(|c| if allowed(c) { c } else { '_' }).collect();
    name.truncate(NAME_MAX);
    if name.is_empty() || name.starts_with('.') {
        name.replace_range(..name.len().min(1), "_");
    }
    name
}

/// The last part of an address's path, its percent escapes undone (RFC 3986, 2.1) unless that is not a file name.
fn url_file_name(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let encoded = match path.trim_end_matches('/').rsplit(['/', ':']).next() {
        Some(name) if !name.is_empty() => name,
        _ => return "download".to_owned(),
    };
    match percent_decode_str(encoded).decode_utf8() {
        Ok(name) if is_file_name(&name) => name.into_owned(),
        _ => encoded.to_owned(),
    }
}

fn is_file_name(text: &str) -> bool {
    !text.contains(|c: char| c == '/' || c.is_control()) && !matches!(text, "" | "." | "..")
}

/// Whether a file of this name is unpacked unless the spec says otherwise; `None` where it has no extension (`v1.2` of
/// `…/tarball/v1.2`), so that its content has to tell.
fn is_archive(file_name: &str) -> Option<bool> {
    const SUFFIXES: &[&str] = &[
        ".crate",
        ".tar",
        ".tar.bz2",
        ".tar.gz",
        ".tar.lzma",
        ".tar.xz",
        ".tar.zst",
        ".tbz2",
        ".tgz",
        ".txz",
        ".tzst",
        ".zip",
    ];
    let lower = file_name.to_ascii_lowercase();
    if SUFFIXES.iter().any(|suffix| lower.ends_with(suffix)) {
        return Some(true);
    }
    let (_, extension) = lower.rsplit_once('.')?;
    let is_extension = extension.starts_with(|c: char| c.is_ascii_alphabetic())
        && extension.bytes().all(|b| b.is_ascii_alphanumeric());
    is_extension.then_some(false)
}

/// The packages whose scripts an image leaves out; one that the image does not have is an error.
fn skipped(
    configure: &spec::Configure,
    of_image: &Resolution<'_>,
    image: &str,
) -> Result<BTreeSet<String>, Box<Diagnostic>> {
    for name in &configure.skip {
        if !of_image.contains(&name.value) {
            let message = format!(
                "`configure` skips `deb:{}`, which image `{image}` does not have",
                name.value
            );
            let known = spec::did_you_mean(&name.value, of_image.names());
            let help = match known {
                Some(known) => format!("did you mean `deb:{known}`?"),
                None => "name a package of `root`, or one that they depend on".to_owned(),
            };
            let diagnostic = Diagnostic::new(message)
                .at(name.span.clone(), "not among its packages")
                .help(help);
            return Err(Box::new(diagnostic));
        }
    }
    Ok(configure.skip.iter().map(|name| name.value.clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_store_paths() {
        for (text, expected) in [
            ("a~b:c/ä", "a_b_c__"),
            (".x", "_x"),
            ("", "_"),
            ("ok-1.0+2", "ok-1.0+2"),
        ] {
            assert_eq!(store_name(text), expected);
        }
        assert_eq!(store_name(&"x".repeat(500)).len(), NAME_MAX);
        assert_eq!(debian_output_name("gcc", "4:12.2.0-3~rc"), "gcc-12.2.0-3_rc");
    }

    #[test]
    fn addresses_have_file_names() {
        for (url, name, archive) in [
            ("https://x.invalid/a/b.tar.gz?x=/y#z", "b.tar.gz", Some(true)),
            ("https://x.invalid/a/B.ZIP/", "B.ZIP", Some(true)),
            ("file:b.json", "b.json", Some(false)),
            ("https://x.invalid/?", "x.invalid", Some(false)),
            ("https://x.invalid/tar.gz/v1.2", "v1.2", None),
            ("https://x.invalid/zipball/main", "main", None),
            ("https://x.invalid/x-1.0.3-rc1", "x-1.0.3-rc1", None),
            ("file:a%20b%25.tar.gz", "a b%.tar.gz", Some(true)),
            // What is not a file name once its escapes are undone keeps them.
            ("https://x.invalid/a%2Fb", "a%2Fb", None),
            ("https://x.invalid/%2e%2E", "%2e%2E", None),
            ("https://x.invalid/a%0ab", "a%0ab", None),
            ("https://x.invalid/%ff%zz", "%ff%zz", None),
        ] {
            let found = url_file_name(url);
            assert_eq!((found.as_str(), is_archive(&found)), (name, archive), "{url}");
        }
    }
}
