//! What the verbs that *attest* share: from a target or a finished image to its inventory and documents.
//!
//! Invariant: a document of a target speaks of the very image that `build` with the same flags writes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Map, json};

use crate::attest::{self, BuildFacts, Gathered, Inventory, SbomFormat};
use crate::derive::{Input, StepId};
use crate::digest::Digest;
use crate::oci::{self, Artifact};
use crate::spec;
use crate::store_path::StorePath;
use crate::transport::registry::{self, PushOptions};
use crate::transport::{Layout, Location, Source};

use super::context::Context;
use super::error::advised;
use super::flags::BuildFlags;
use super::flags::ImageFlags;
use super::output;
use crate::project::Work;
use crate::project::work;
use crate::project::{self, NamedImage};

/// An image that was just assembled, with all that it was made of.
pub struct Subject<'a> {
    work: &'a Work,
    named: &'a NamedImage,
}

impl<'a> Subject<'a> {
    /// An image that was made of `work`.
    pub fn new(named: &'a NamedImage, work: &'a Work) -> Self {
        Self { work, named }
    }

    /// Its bill of materials.
    pub fn sbom(&self, format: SbomFormat) -> anyhow::Result<Vec<u8>> {
        Ok(attest::sbom(&attest::gather(&self.gathered())?, format))
    }

    /// Its provenance.
    pub fn provenance(&self) -> anyhow::Result<Vec<u8>> {
        let built = self.gathered();
        let inventory = attest::gather(&built)?;
        Ok(attest::provenance(&built, &inventory, &self.facts())?)
    }

    fn gathered(&self) -> Gathered<'_> {
        let mut steps: BTreeMap<StorePath, StepId> = BTreeMap::new();
        for (input, path) in &self.work.paths {
            // Of steps that made the same path the first in the plan counts: the inputs come in its order.
            if let Input::Step(step) = input {
                steps.entry(path.clone()).or_insert(*step);
            }
        }
        Gathered {
            recipe: &self.named.draft.recipe,
            image: &self.named.image,
            store: &self.work.store,
            plan: &self.work.plan,
            steps,
            packages: self.packages(),
        }
    }

    /// What the spec calls the packages at store paths.
    fn packages(&self) -> BTreeMap<StorePath, (String, Option<String>)> {
        let Some(project) = &self.work.project else {
            return BTreeMap::new();
        };
        let packages = self.work.plan.packages.iter().filter_map(|(name, input)| {
            let path = match input {
                Input::Path(path) => path,
                Input::Step(_) => self.work.paths.get(input)?,
            };
            let version = project.workspace.packages.get(name)?.version.as_ref();
            let own = name.0.rsplit(':').next().unwrap_or(&name.0);
            Some((
                path.clone(),
                (own.to_owned(), version.map(|version| version.value.clone())),
            ))
        });
        packages.collect()
    }

    fn facts(&self) -> BuildFacts {
        BuildFacts {
            options: self.named.draft.options.clone(),
            ..build_facts(self.work)
        }
    }
}

/// The spec and the lock that an image is made from, by digest.
pub fn build_facts(work: &Work) -> BuildFacts {
    let Some(project) = &work.project else {
        return BuildFacts::default();
    };
    let files = project.workspace.files.iter();
    let files = files.map(|file| (relative(&file.path, &project.dir), Digest::of(file.text.as_bytes())));
    BuildFacts {
        spec: files.collect(),
        lock: Some(Digest::of(spec::lock::print(&project.lock).as_bytes())),
        options: Map::new(),
    }
}

/// A spec file's name as it is in every checkout: no path of this machine.
fn relative(file: &Path, project: &Path) -> String {
    let below = file.strip_prefix(project).ok();
    let name = below.or_else(|| file.file_name().map(Path::new)).unwrap_or(file);
    name.display().to_string()
}

/// The finished image that the only argument names: a transport, or a file or layout that is there and no target.
pub fn finished(arguments: &[String]) -> Option<&str> {
    let [argument] = arguments else { return None };
    let path = Path::new(argument);
    match argument.parse::<Location>() {
        Ok(Location::Path(_)) => (path.is_file() || path.join("oci-layout").is_file()).then_some(argument.as_str()),
        Ok(_) => Some(argument),
        Err(_) => None,
    }
}

/// The inventory of a finished image, as far as its annotations tell.
pub fn partial(source: &str, platform: Option<&str>, context: &Context) -> anyhow::Result<Inventory> {
    let image = context.environment.source(source, platform)?;
    Ok(attest::of_source(image.as_ref())?)
}

/// Assembles the one image that the targets name and hands it on.
pub fn of_one_image<T>(
    targets: &[String],
    image_flags: &ImageFlags,
    flags: &BuildFlags,
    context: &Context,
    then: impl FnOnce(&Subject<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let work = work::prepare(targets, &flags.options(), &context.environment)?;
    let mut drafts = project::drafts(&work, &image_flags.options()?, &context.environment)?;
    let draft = match (drafts.pop(), drafts.len()) {
        (Some(draft), 0) => draft,
        (None, _) => {
            return Err(advised(
                "the targets make no image",
                "name an image of the spec, or store paths with `--name NAME`",
            ));
        }
        (Some(_), more) => {
            return Err(advised(
                format!("the targets make {} images, and a document speaks of one", more + 1),
                "name the image",
            ));
        }
    };
    let named = project::image::assemble(draft, &context.environment)?;
    let result = then(&Subject::new(&named, &work))?;
    context.trim_layer_cache()?;
    Ok(result)
}

/// Forms of a bill of materials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// SPDX 2.3, JSON
    Spdx,
    /// CycloneDX 1.6, JSON
    Cyclonedx,
}

impl From<Format> for SbomFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Spdx => Self::Spdx,
            Format::Cyclonedx => Self::CycloneDx,
        }
    }
}

/// What `build` makes beside an image.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Attestation options")]
pub struct AttestFlags {
    /// Make a bill of materials in this form; repeat or separate by commas
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FORMAT")]
    sbom: Vec<Format>,
    /// Make SLSA v1 provenance
    #[arg(long)]
    provenance: bool,
    /// Attach the documents to the image in its OCI layout or registry, as referrers
    #[arg(long)]
    attach: bool,
    /// Write the documents to files beside the image: NAME.spdx.json, NAME.cdx.json, NAME.provenance.json [default]
    #[arg(long)]
    beside: bool,
}

impl AttestFlags {
    /// Refuses what cannot be done before anything is built for it.
    pub fn check(&self, locations: &[Location]) -> anyhow::Result<()> {
        if !self.any() && (self.attach || self.beside) {
            return Err(advised(
                "there is nothing to attach or to write beside the image",
                "add `--sbom spdx`, `--sbom cyclonedx` or `--provenance`",
            ));
        }
        if self.attach && locations.is_empty() {
            return Err(advised(
                "`--attach` needs a place that holds referrers, and NAME.tar is none",
                "add `-o oci:DIR` or `-o docker://NAME`, or take `--beside`",
            ));
        }
        match self.attach {
            true => locations.iter().try_for_each(can_hold_artifacts),
            false => Ok(()),
        }
    }

    fn any(&self) -> bool {
        self.provenance || !self.sbom.is_empty()
    }

    /// Makes the documents of all images among the targets, which have just been written to `locations`.
    pub fn write(
        &self,
        work: &Work,
        images: &[NamedImage],
        locations: &[Location],
        context: &Context,
    ) -> anyhow::Result<()> {
        if !self.any() {
            return Ok(());
        }
        for named in images {
            let subject = Subject::new(named, work);
            for (suffix, document) in self.documents(&subject)? {
                let short = named.name.rsplit('/').next().unwrap_or(&named.name);
                let file_name = format!("{short}.{suffix}");
                if self.attach {
                    let kind = attest::kind_of(&document).expect("our own documents are known");
                    let subject = oci::Subject {
                        media_type: oci::MediaType::MANIFEST.to_owned(),
                        digest: named.image.digest,
                        size: named.image.manifest.len() as u64,
                    };
                    let artifact = attest::artifact(&kind, document.clone(), subject, &file_name);
                    for location in locations {
                        attach(&artifact, location, context)?;
                    }
                }
                if self.beside || !self.attach {
                    for dir in beside(locations) {
                        let path = dir.join(&file_name);
                        output::write(&document, Some(&path), context)?;
                        context.ui.note(&format!("Wrote {}.", path.display()));
                    }
                }
            }
        }
        Ok(())
    }

    fn documents(&self, subject: &Subject<'_>) -> anyhow::Result<Vec<(&'static str, Vec<u8>)>> {
        let mut documents = Vec::new();
        for (format, suffix) in [(Format::Spdx, "spdx.json"), (Format::Cyclonedx, "cdx.json")] {
            if self.sbom.contains(&format) {
                documents.push((suffix, subject.sbom(format.into())?));
            }
        }
        if self.provenance {
            documents.push(("provenance.json", subject.provenance()?));
        }
        Ok(documents)
    }
}

/// The directories of the files that an image was written to; without any, the current one.
fn beside(locations: &[Location]) -> BTreeSet<PathBuf> {
    let parent = |path: &Path| path.parent().map(Path::to_owned).unwrap_or_default();
    let dirs: BTreeSet<PathBuf> = locations
        .iter()
        .filter_map(|location| match location {
            Location::DockerArchive { path, .. }
            | Location::OciArchive { path, .. }
            | Location::Layout { path, .. }
            | Location::Path(path) => Some(parent(path)),
            Location::Registry(_) | Location::Daemon(_) | Location::Podman(_) | Location::Stdio => None,
        })
        .collect();
    match dirs.is_empty() {
        true => BTreeSet::from([PathBuf::new()]),
        false => dirs,
    }
}

/// Stores an artifact beside its subject: the one place where transports with referrers are told apart.
pub fn attach(artifact: &Artifact, location: &Location, context: &Context) -> anyhow::Result<()> {
    can_hold_artifacts(location)?;
    match location {
        Location::Layout { path, .. } | Location::Path(path) => Layout::new(path, None).attach(artifact)?,
        Location::Registry(name) => {
            let blobs: Vec<Vec<u8>> = artifact.blobs.iter().map(|(_, bytes)| bytes.clone()).collect();
            let options = PushOptions::default();
            let registries = &context.environment.registries;
            let target: oci::Reference = name.parse()?;
            registry::attach(registries, &target, &artifact.manifest, &blobs, &options, context.ui)?;
        }
        // Refused above.
        Location::DockerArchive { .. }
        | Location::OciArchive { .. }
        | Location::Daemon(_)
        | Location::Podman(_)
        | Location::Stdio => {}
    }
    let (digest, kind) = (&artifact.digest, &artifact.artifact_type);
    let line = match context.ui.json() {
        true => json!({
            "event": "artifact-attached",
            "digest": digest,
            "artifact_type": kind,
            "subject": artifact.subject.digest,
            "destination": location.to_string(),
        })
        .to_string(),
        false => format!("{digest} {kind} {location}"),
    };
    Ok(context.ui.data(&line)?)
}

/// Writes a bundle about `subject` to a file, or attaches it to the image at `location`.
pub fn deliver(
    bundle: Vec<u8>,
    subject: oci::Subject,
    file: Option<&Path>,
    location: &Location,
    context: &Context,
) -> anyhow::Result<()> {
    if file.is_some() {
        return output::write(&bundle, file, context);
    }
    let kind = attest::kind_of(&bundle).expect("our own bundles are known");
    let file_name = format!("sha256-{}.sigstore.json", Digest::of(&bundle).hex());
    attach(&attest::artifact(&kind, bundle, subject, &file_name), location, context)
}

/// Whether [`attach`] can store anything there.
pub fn can_hold_artifacts(location: &Location) -> anyhow::Result<()> {
    match location {
        Location::Layout { .. } | Location::Registry(_) => Ok(()),
        Location::Path(path) if path.is_dir() => Ok(()),
        _ => Err(advised(
            format!("nothing can be attached to an image in `{location}`"),
            "name a layout (`oci:DIR[:TAG]`) or a registry (`docker://NAME`), or write the document to a file with `-o FILE`",
        )),
    }
}

/// The manifest of an image as the subject of an artifact.
pub fn subject_of(source: &dyn Source) -> anyhow::Result<oci::Subject> {
    let (manifest, media_type) = source.manifest()?;
    if source.synthesized() {
        let place = source.place().to_owned();
        return Err(attest::AttestError::NoManifest { place }.into());
    }
    Ok(oci::Subject {
        media_type,
        digest: Digest::of(&manifest),
        size: manifest.len() as u64,
    })
}

/// A document file, and what it is: by `--type`, else by what is in it.
pub fn read_document(path: &Path, kind: Option<&str>) -> anyhow::Result<(attest::DocumentKind, Vec<u8>)> {
    let document = crate::fsio::read_limited(path, attest::BUNDLE_MAX)?;
    let kind = match kind {
        Some("spdx") => Some(attest::DocumentKind::Spdx),
        Some("cyclonedx") => Some(attest::DocumentKind::CycloneDx),
        Some(other) if other.contains('/') => Some(attest::DocumentKind::Other(other.to_owned())),
        Some(other) => {
            return Err(advised(
                format!("`--type {other}` is no media type"),
                "write spdx, cyclonedx or MEDIA/TYPE; what layerize itself writes needs no `--type`",
            ));
        }
        None => attest::kind_of(&document),
    };
    let kind = kind.ok_or_else(|| attest::AttestError::Document {
        path: path.to_owned(),
        reason: "its kind is not known".to_owned(),
    })?;
    Ok((kind, document))
}
