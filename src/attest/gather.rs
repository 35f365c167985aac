//! To *gather* an inventory is to look up what the store, the plan and the image know of everything in it.
//!
//! Invariant: the components are the closure and the packages of `root`, and what a debug image has above them, no more and no fewer (what a base holds is not
//! looked up, and the inventory says so); nothing is guessed
//! from file contents. Where there is a plan, what a component was made of is the plan's to say, so that the history
//! of this machine's store changes no document; a store path without a plan is known by the derivation that made it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::configure::ScriptsOutcome;
use crate::derive::{
    Action, BuildPlan, Derivation, Download, Input, LeftOut, Origin as DownloadOrigin, Script, StepId,
};
use crate::digest::{ContentDigest, Digest, FileHash};
use crate::fsio;
use crate::image::{Debug, Image, ImageLayer, PACKAGES_ANNOTATION, Recipe, STORE_PATHS_ANNOTATION};
use crate::store::Store;
use crate::store_path::{LogicalPath, StoreDir, StorePath};

use super::AttestError;
use super::inventory::{
    Component, ComponentOrigin, Extent, ImageFacts, Inventory, InventoryLayer, PinnedFile, split_name,
};
use super::licence::Licence;
use super::npm;
use super::partial::created;
use super::purl;

/// Largest control paragraph of a Debian package, in bytes.
const PARAGRAPH_MAX: u64 = 1 << 20;

/// An image with all that is known of how it was built.
pub struct Gathered<'a> {
    /// What it was made of.
    pub recipe: &'a Recipe,
    /// What was made.
    pub image: &'a Image,
    /// Where the store paths are.
    pub store: &'a Store,
    /// The project's steps; empty for an image of store paths.
    pub plan: &'a BuildPlan,
    /// The steps that made store paths.
    pub steps: BTreeMap<StorePath, StepId>,
    /// Name and version in the spec of the packages at these store paths.
    pub packages: BTreeMap<StorePath, (String, Option<String>)>,
    /// What became of the maintainer scripts of the packages at `/`.
    pub scripts: BTreeMap<String, ScriptsOutcome>,
}

/// The inventory of an image that was just built.
pub fn gather(built: &Gathered<'_>) -> Result<Inventory, AttestError> {
    let mut components = Vec::new();
    let mut relations = Relations::default();
    for member in built.recipe.members() {
        let mut component = built.component(&member.logical, &member.name, &member.physical, &mut relations)?;
        component.nar_hash = Some(member.nar_hash);
        component
            .references
            .extend(member.references.iter().map(ToString::to_string));
        let layers = built.image.layers.iter();
        let holding =
            layers.filter(|layer| listed(layer, STORE_PATHS_ANNOTATION).any(|path| path == member.logical.as_str()));
        component.layers.extend(holding.map(ImageLayer::digest));
        components.push(component);
    }
    let layers_of_packages = layers_of_packages(built.image);
    for package in &built.recipe.root {
        let mut component = built.component(&package.logical, &package.name, &package.physical, &mut relations)?;
        component.nar_hash = Some(package.nar_hash);
        component.at_root = true;
        let name = package.name.strip_prefix("npm:").unwrap_or(&package.name);
        name.clone_into(&mut component.name);
        component.scripts = built.scripts.get(&package.name).map(ScriptsOutcome::word);
        if !package.version.is_empty() {
            component.version = Some(package.version.clone());
        }
        let key = format!("{}={}", package.name, package.version);
        component
            .layers
            .extend(layers_of_packages.get(&key).into_iter().flatten());
        components.push(component);
    }
    for tree in built.recipe.debug.iter().flat_map(Debug::trees) {
        let mut component = built.component(&tree.logical, &tree.name, &tree.physical, &mut relations)?;
        component.nar_hash = Some(tree.nar_hash);
        component.at_root = true;
        let key = format!("{}={}", tree.name, tree.version);
        component
            .layers
            .extend(layers_of_packages.get(&key).into_iter().flatten());
        components.push(component);
    }
    relations.add_to(&mut components);
    let extent = match &built.recipe.base {
        None => Extent::Whole,
        Some(base) => Extent::OverBase {
            base: base.name.clone().unwrap_or_else(|| base.image.digest().to_string()),
        },
    };
    let mut facts = image_facts(built);
    facts.left_out = built.left_out(&components);
    Ok(Inventory::new(facts, components, extent))
}

fn image_facts(built: &Gathered<'_>) -> ImageFacts {
    let layers = built.image.layers.iter();
    ImageFacts {
        name: built.recipe.spec.spec_name().to_owned(),
        tag: Some(built.recipe.spec.tag.clone()),
        digest: built.image.digest(),
        platform: Some(built.recipe.platform.clone()),
        created: created(built.image.config.bytes()),
        layers: layers
            .map(|layer| InventoryLayer {
                digest: layer.digest(),
                size: layer.size(),
            })
            .collect(),
        left_out: BTreeMap::new(),
        not_kept: not_kept(&built.scripts),
    }
}

/// What scripts made and the image does not get, a line for each reason.
fn not_kept(scripts: &BTreeMap<String, ScriptsOutcome>) -> Vec<String> {
    let mut by_reason: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for outcome in scripts.values() {
        if let ScriptsOutcome::Ran { left_out, .. } = outcome {
            for (path, reason) in left_out {
                by_reason.entry(reason).or_default().insert(path);
            }
        }
    }
    let line = |(reason, paths): (&str, BTreeSet<&str>)| {
        let first = paths.first().copied().unwrap_or_default();
        match paths.len() {
            1 => format!("/{first}: {reason}"),
            count => format!("/{first} and {} more: {reason}", count - 1),
        }
    };
    by_reason.into_iter().map(line).collect()
}

impl Gathered<'_> {
    /// What the spec excludes, where nothing else brings it.
    fn left_out(&self, components: &[Component]) -> BTreeMap<String, &'static str> {
        let inputs = self.plan.images.get(&self.recipe.spec.name.value);
        let left_out = inputs.into_iter().flat_map(|inputs| &inputs.left_out);
        let absent = left_out.filter(|(name, _)| components.iter().all(|component| component.name != **name));
        let described = absent.map(|(name, why)| {
            let step = match self.plan.debs.get(name) {
                Some(Input::Step(step)) => self.plan.steps.get(*step),
                _ => None,
            };
            let version = step.and_then(|step| match &step.downloads().first()?.origin {
                DownloadOrigin::Deb { version, .. } => Some(format!("={version}")),
                _ => None,
            });
            let why = match why {
                LeftOut::Excluded => "excluded by the spec",
                LeftOut::NeededByExcluded => "needed by nothing but what the spec excludes",
            };
            (format!("deb:{name}{}", version.unwrap_or_default()), why)
        });
        described.collect()
    }

    fn component(
        &self,
        logical: &LogicalPath,
        name: &str,
        physical: &Path,
        relations: &mut Relations,
    ) -> Result<Component, AttestError> {
        let mut component = Component::new(logical.to_string(), String::new());
        (component.name, component.version) = split_name(name);
        let Some(path) = logical.in_store(StoreDir::LAYERIZE) else {
            component.origin = ComponentOrigin::Nix;
            return Ok(component);
        };
        let made = self.made(path)?;
        component.sources = made.files;
        component.origin = made.origin;
        if let Some((name, version)) = self.packages.get(path) {
            component.name.clone_from(name);
            if version.is_some() {
                component.version.clone_from(version);
            }
        }
        if component.published().is_some() {
            component.licence = Licence::of_python(physical);
        }
        if let Some(at) = &made.npm {
            component.licence = npm::licence(&physical.join(at));
        }
        // Packages that are part of something larger say it there.
        if component.sources.iter().any(|file| file.purl.starts_with("pkg:npm/")) {
            let licences = npm::licences(physical);
            let sources = std::mem::take(&mut component.sources).into_iter();
            let with = |file: PinnedFile| PinnedFile {
                licence: licences.get(&file.purl).cloned(),
                ..file
            };
            component.sources = sources.map(with).collect();
        }
        if let Some(package) = made.debian {
            let paragraph = paragraph(physical, &package)?;
            describe(&mut component, &package, &paragraph);
            relations.note(logical.as_str(), &package, &paragraph);
        }
        Ok(component)
    }

    fn made(&self, path: &StorePath) -> Result<Making, AttestError> {
        if let Some(&step) = self.steps.get(path) {
            return Ok(self.made_by_step(step));
        }
        let derivation = self.derivation(path)?;
        let kind = derivation["action"]["kind"].as_str();
        let mut made = Making::of(match kind {
            Some("script") => ComponentOrigin::Built,
            _ => ComponentOrigin::Taken,
        });
        if kind == Some("unpack-deb") {
            made.debian = derivation["action"]["package"].as_str().map(str::to_owned);
        }
        made.files = self.files_of_recorded(&derivation)?;
        Ok(made)
    }

    /// What a recorded derivation was made of, as [`files_of_script`](Self::files_of_script).
    fn files_of_recorded(&self, derivation: &Value) -> Result<BTreeSet<PinnedFile>, AttestError> {
        let action = &derivation["action"];
        let mut files = files_of(derivation);
        let given = ["mounts", "variables"]
            .into_iter()
            .filter_map(|key| action[key].as_object());
        for input in given.flat_map(|named| named.values()).chain([&action["source"]]) {
            let path = input.as_str().and_then(|path| StoreDir::layerize().split(path));
            if let Some((path, _)) = path {
                files.extend(self.files_of_recorded(&self.derivation(&path)?)?);
            }
        }
        Ok(files)
    }

    /// The derivation that made a path, as JSON; null where there is none, or the path is gone.
    pub(super) fn derivation(&self, path: &StorePath) -> Result<Value, AttestError> {
        let text = self.store.info_full(path)?.and_then(|details| details.derivation_json);
        Ok(text
            .and_then(|text| serde_json::from_str(&text).ok())
            .unwrap_or_default())
    }

    /// What a script was run over: its source, and what its language gave it, steps before it included.
    fn files_of_script(&self, script: &Script) -> BTreeSet<PinnedFile> {
        let given = script.mounts.values().chain(script.variables.values());
        let mut files = BTreeSet::new();
        for input in script.source.iter().chain(given) {
            let Input::Step(step) = input else { continue };
            let step = &self.plan.steps[*step];
            files.extend(files_of_step(step));
            if let Action::Script(before) = &step.action {
                files.extend(self.files_of_script(before));
            }
        }
        files
    }

    fn made_by_step(&self, step: StepId) -> Making {
        let derivation = &self.plan.steps[step];
        let mut made = Making::of(ComponentOrigin::Taken);
        match &derivation.action {
            Action::UnpackDeb { package, .. } => made.debian = Some(package.clone()),
            Action::Configure(_) => made.origin = ComponentOrigin::Built,
            Action::DebPart { package, tree, .. } => {
                made.debian = Some(package.clone());
                if let Input::Step(tree) = tree {
                    made.files = pinned(&self.plan.steps[*tree].downloads());
                }
            }
            Action::DebugTools { packages } => {
                made.origin = ComponentOrigin::Built;
                let steps = packages.iter().filter_map(|(_, tree)| match tree {
                    Input::Step(step) => self.plan.steps.get(*step),
                    Input::Path(_) => None,
                });
                made.files = steps.flat_map(|step| pinned(&step.downloads())).collect();
            }
            Action::DebugInfo(_) => made.origin = ComponentOrigin::Built,
            Action::UnpackNpm { at, .. } => made.npm = Some(at.clone().unwrap_or_default()),
            Action::Script(script) => {
                // What was made elsewhere is only laid out.
                if !script.prebuilt {
                    made.origin = ComponentOrigin::Built;
                }
                made.files = self.files_of_script(script);
                let own = self
                    .plan
                    .packages
                    .iter()
                    .filter(|(_, input)| **input == Input::Step(step));
                let languages = own.filter_map(|(name, _)| self.plan.languages.get(name));
                made.files
                    .extend(languages.flat_map(|language| &language.vendored).map(pinned_file));
            }
            Action::Fetch(_)
            | Action::Restore(_)
            | Action::Unpack { .. }
            | Action::UnpackCrate { .. }
            | Action::UnpackGitCrates { .. }
            | Action::UnpackDebControl { .. }
            | Action::UnpackDebSource { .. }
            | Action::UnpackEmulator { .. }
            | Action::UnpackGoModule { .. } => {}
        }
        made.files.extend(files_of_step(derivation));
        made
    }
}

/// What made a component.
struct Making {
    origin: ComponentOrigin,
    /// The Debian binary package that it is.
    debian: Option<String>,
    /// Where the package of npm's is that it is.
    npm: Option<String>,
    files: BTreeSet<PinnedFile>,
}

impl Making {
    fn of(origin: ComponentOrigin) -> Self {
        Self {
            origin,
            debian: None,
            npm: None,
            files: BTreeSet::new(),
        }
    }
}

/// The files from outside that a step takes; of a repository of crates, each crate; of one of npm's, the package.
fn files_of_step(derivation: &Derivation) -> BTreeSet<PinnedFile> {
    let files = pinned(&derivation.downloads());
    if let Action::UnpackNpm {
        archive,
        repository: Some(version),
        ..
    } = &derivation.action
        && let DownloadOrigin::Git { package, .. } = &archive.origin
    {
        let of_package = |file: PinnedFile| PinnedFile {
            purl: purl::git_npm(package, version, file.location.as_deref()),
            ..file
        };
        return files.into_iter().map(of_package).collect();
    }
    let Action::UnpackGitCrates { crates, .. } = &derivation.action else {
        return files;
    };
    let each = files.iter().flat_map(|file| {
        crates.iter().map(|of| PinnedFile {
            name: format!("{}-{}", of.name, of.version),
            purl: purl::git_cargo(&of.name, &of.version, file.location.as_deref()),
            ..file.clone()
        })
    });
    each.collect()
}

/// The `go.mod` of a module says which others there are, and is no part of what is made.
fn pinned(downloads: &[&Download]) -> BTreeSet<PinnedFile> {
    let parts = downloads.iter().filter(|of| !matches!(of.hash, FileHash::GoMod(_)));
    parts.map(|download| pinned_file(download)).collect()
}

/// A download as documents show it.
pub(super) fn pinned_file(download: &Download) -> PinnedFile {
    let hash = download.hash;
    let (location, purl, binary) = match &download.origin {
        DownloadOrigin::Url(url) => {
            let url = without_password(url);
            let purl = purl::download(&download.name, None, Some(&url), &hash);
            (Some(url), purl, false)
        }
        DownloadOrigin::Crate { name, version, .. } => (Some(download.name.clone()), purl::cargo(name, version), false),
        DownloadOrigin::Python { project, version, .. } => {
            let is_wheel = download.name.ends_with(".whl");
            (Some(download.name.clone()), purl::pypi(project, version), is_wheel)
        }
        DownloadOrigin::Npm { name, version, .. } => (Some(download.name.clone()), purl::npm(name, version), true),
        DownloadOrigin::Go { module, version } => (Some(download.name.clone()), purl::golang(module, version), false),
        DownloadOrigin::Git { package, tree } => {
            // Where a repository of this machine is says nothing to others.
            let location = match tree.address.is_local() {
                true => None,
                false => Some(purl::git_location(&tree.address.to_string(), tree.commit.as_str())),
            };
            let purl = purl::git(package, tree.commit.as_str(), location.as_deref());
            (location, purl, false)
        }
        DownloadOrigin::Deb {
            package,
            version,
            architecture,
            filename,
            ..
        } => {
            let purl = purl::debian(package, Some(version), Some(architecture));
            (Some(filename.clone()), purl, true)
        }
        DownloadOrigin::DebSource {
            package,
            version,
            filename,
            ..
        } => (Some(filename.clone()), purl::debian_source(package, version), false),
    };
    PinnedFile {
        hash,
        commit: match &download.origin {
            DownloadOrigin::Git { tree, .. } => Some(tree.commit.to_string()),
            _ => None,
        },
        name: download.name.clone(),
        location,
        purl,
        binary,
        licence: None,
    }
}

/// Whoever wrote a password into an address did not mean to publish it.
fn without_password(text: &str) -> String {
    match url::Url::parse(text) {
        Ok(mut url) if !url.username().is_empty() || url.password().is_some() => {
            // Neither fails for an address that had them.
            let _ = url.set_username("");
            let _ = url.set_password(None);
            url.to_string()
        }
        _ => text.to_owned(),
    }
}

/// The files that a derivation in the store names by their hashes; where they came from it does not say.
pub(super) fn files_of(derivation: &Value) -> BTreeSet<PinnedFile> {
    let action = &derivation["action"];
    let binary = action["kind"] == "unpack-deb";
    let is_crate = action["kind"] == "unpack-crate";
    let name = derivation["name"].as_str().unwrap_or("file");
    let keys = action.as_object().into_iter().flatten();
    let one = keys.filter_map(|(key, hash)| Some((name.to_owned(), FileHash::from_hex(key, hash.as_str()?)?)));
    let many = action["files"].as_object().into_iter().flatten();
    let many = many.filter_map(|(name, digest)| Some((name.clone(), Digest::from_hex(digest.as_str()?).ok()?.into())));
    one.chain(many)
        .map(|(name, hash)| PinnedFile {
            hash,
            commit: None,
            licence: None,
            purl: match name.strip_prefix("crate-").map(split_name) {
                Some((name, Some(version))) if is_crate => purl::cargo(&name, &version),
                _ => purl::download(&name, None, None, &hash),
            },
            name,
            location: None,
            binary,
        })
        .collect()
}

/// The fields of a Debian package's control paragraph, which unpacking leaves in its tree, by lower-case name.
fn paragraph(tree: &Path, package: &str) -> Result<BTreeMap<String, String>, AttestError> {
    let path = tree.join("var/lib/dpkg/status.d").join(package);
    let bytes = match fsio::read_limited(&path, PARAGRAPH_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error.into()),
    };
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    let mut last = None;
    for line in String::from_utf8_lossy(&bytes).lines() {
        match (line.starts_with([' ', '\t']), &last, line.split_once(':')) {
            (true, Some(field), _) => {
                if let Some(value) = fields.get_mut(field) {
                    value.push(' ');
                    value.push_str(line.trim());
                }
            }
            (false, _, Some((field, value))) => {
                let field = field.to_ascii_lowercase();
                fields.insert(field.clone(), value.trim().to_owned());
                last = Some(field);
            }
            _ => {}
        }
    }
    Ok(fields)
}

fn describe(component: &mut Component, package: &str, paragraph: &BTreeMap<String, String>) {
    let field = |name: &str| paragraph.get(name).cloned();
    package.clone_into(&mut component.name);
    if let Some(version) = field("version") {
        component.version = Some(version);
    }
    // `Source: NAME (VERSION)`; what is missing is the binary package's own (Debian policy §5.6.1).
    let source = field("source").unwrap_or_else(|| package.to_owned());
    let (name, version) = match source.split_once('(') {
        Some((name, version)) => (name.trim().to_owned(), Some(version.trim_end_matches(')').to_owned())),
        None => (source, None),
    };
    let version = version.or_else(|| component.version.clone());
    component.origin = ComponentOrigin::Debian {
        architecture: field("architecture"),
        source: version.map(|version| (name, version)),
        maintainer: field("maintainer"),
    };
}

/// Who needs whom among Debian packages, by their names.
#[derive(Default)]
struct Relations {
    /// Components by the names they provide.
    provided: BTreeMap<String, BTreeSet<String>>,
    /// Names that a component needs.
    needed: BTreeMap<String, BTreeSet<String>>,
}

impl Relations {
    fn note(&mut self, key: &str, package: &str, paragraph: &BTreeMap<String, String>) {
        let names = |field: &str| -> BTreeSet<String> {
            let value = paragraph.get(field).map_or("", String::as_str);
            // `name:any (>= 1) [arch]`, separated by `,` and `|`.
            let words = value.split([',', '|']).filter_map(|one| {
                let name = one.trim().split([' ', '(', '[', ':']).next()?;
                (!name.is_empty()).then(|| name.to_owned())
            });
            words.collect()
        };
        for name in names("provides").into_iter().chain([package.to_owned()]) {
            self.provided.entry(name).or_default().insert(key.to_owned());
        }
        let needed = self.needed.entry(key.to_owned()).or_default();
        needed.extend(names("depends"));
        needed.extend(names("pre-depends"));
    }

    /// Of alternatives all that are in the image count: any of them may be the one that is used.
    fn add_to(&self, components: &mut [Component]) {
        for component in components {
            let needed = self.needed.get(&component.key).into_iter().flatten();
            let keys = needed.filter_map(|name| self.provided.get(name)).flatten();
            component.references.extend(keys.cloned());
        }
    }
}

/// The layers that hold Debian packages, by `NAME=VERSION`, as the manifest says.
fn layers_of_packages(image: &Image) -> BTreeMap<String, BTreeSet<ContentDigest>> {
    let mut layers: BTreeMap<String, BTreeSet<ContentDigest>> = BTreeMap::new();
    for layer in &image.layers {
        for package in listed(layer, PACKAGES_ANNOTATION) {
            layers.entry(package.to_owned()).or_default().insert(layer.digest());
        }
    }
    layers
}

/// What an annotation of a layer lists.
fn listed<'a>(layer: &'a ImageLayer, annotation: &str) -> impl Iterator<Item = &'a str> {
    layer
        .descriptor
        .annotation(annotation)
        .unwrap_or_default()
        .split_whitespace()
}
