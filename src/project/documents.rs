//! The *documents* about an image that was just assembled: its bill of materials and its provenance.
//!
//! Invariant: a document describes the very image that `build` with the same options writes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Map;

use crate::attest::{self, AttestError, BuildFacts, Gathered, SbomFormat};
use crate::derive::{Input, StepId};
use crate::digest::Digest;
use crate::oci::{Artifact, MediaType, Subject};
use crate::spec;
use crate::store_path::StorePath;
use crate::transport::Location;

use super::image::NamedImage;
use super::scripts;
use super::trials::Trial;
use super::work::Work;

/// Which documents are made of an image, and where they go.
#[derive(Debug, Clone, Default)]
pub struct DocumentOptions {
    /// Bills of materials in these forms.
    pub sboms: Vec<SbomFormat>,
    /// SLSA provenance.
    pub provenance: bool,
    /// Attach them to the image.
    pub attach: bool,
    /// Write them to files beside the image.
    pub beside: bool,
}

impl DocumentOptions {
    /// Whether any document is made.
    pub fn any(&self) -> bool {
        self.provenance || !self.sboms.is_empty()
    }
}

/// A document about an image.
pub struct NamedDocument {
    /// The file that it is written to, or called when it is attached.
    pub file_name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl NamedDocument {
    /// The document as what is attached to the image that it is about.
    pub fn artifact(&self, named: &NamedImage) -> Artifact {
        let kind = attest::kind_of(&self.bytes).expect("our own documents are known");
        let subject = Subject {
            media_type: MediaType::MANIFEST.to_owned(),
            digest: named.image.digest(),
            size: named.image.manifest.size(),
        };
        attest::artifact(&kind, self.bytes.clone(), subject, &self.file_name)
    }
}

/// Makes documents about one image.
pub struct Documents<'a> {
    work: &'a Work,
    named: &'a NamedImage,
    trials: &'a [Trial],
}

impl<'a> Documents<'a> {
    /// About an image that was made of `work`.
    pub fn new(named: &'a NamedImage, work: &'a Work) -> Self {
        Self {
            work,
            named,
            trials: &[],
        }
    }

    /// With what came of tests, of this image among them.
    pub fn tried(self, trials: &'a [Trial]) -> Self {
        Self { trials, ..self }
    }

    /// Its bill of materials.
    pub fn sbom(&self, format: SbomFormat) -> Result<Vec<u8>, AttestError> {
        Ok(attest::sbom(&attest::gather(&self.gathered()?)?, format))
    }

    /// Its provenance.
    pub fn provenance(&self) -> Result<Vec<u8>, AttestError> {
        let built = self.gathered()?;
        let inventory = attest::gather(&built)?;
        let facts = BuildFacts {
            options: self.named.draft.options.clone(),
            tests: self.tests(),
            ..build_facts(self.work)
        };
        attest::provenance(&built, &inventory, &facts)
    }

    /// The results of the tests of this very image.
    fn tests(&self) -> BTreeMap<String, &'static str> {
        let digest = self.named.image.digest();
        let own = self
            .trials
            .iter()
            .filter(|trial| trial.digest == digest && trial.image == self.named.name);
        own.map(|trial| (trial.test.clone(), trial.result.name())).collect()
    }

    /// All that options ask for, in a fixed order.
    pub fn all(&self, options: &DocumentOptions) -> Result<Vec<NamedDocument>, AttestError> {
        let short = self.named.name.rsplit('/').next().unwrap_or(&self.named.name);
        // One of an image for several platforms says for which it is.
        let project = self.work.project.as_ref();
        let is_part = project.is_some_and(|project| project.elsewhere().contains_key(&self.named.name));
        let platform = self.named.draft.recipe.platform.to_string().replace('/', "-");
        let document = |suffix: &str, bytes: Vec<u8>| NamedDocument {
            file_name: match is_part {
                true => format!("{short}.{platform}.{suffix}"),
                false => format!("{short}.{suffix}"),
            },
            bytes,
        };
        let mut documents = Vec::new();
        for (format, suffix) in [(SbomFormat::Spdx, "spdx.json"), (SbomFormat::CycloneDx, "cdx.json")] {
            if options.sboms.contains(&format) {
                documents.push(document(suffix, self.sbom(format)?));
            }
        }
        if options.provenance {
            documents.push(document("provenance.json", self.provenance()?));
        }
        Ok(documents)
    }

    fn gathered(&self) -> Result<Gathered<'_>, AttestError> {
        let mut steps: BTreeMap<StorePath, StepId> = BTreeMap::new();
        for (input, path) in &self.work.paths {
            // Of steps that made the same path the first in the plan counts: the inputs come in its order.
            if let Input::Step(step) = input {
                steps.entry(path.clone()).or_insert(*step);
            }
        }
        Ok(Gathered {
            recipe: &self.named.draft.recipe,
            image: &self.named.image,
            store: &self.work.store,
            plan: &self.work.plan,
            steps,
            packages: self.packages(),
            scripts: scripts::story(self.work, &self.named.name)?.packages,
        })
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
            let version = project.package(name)?.version.as_ref();
            let own = name.0.rsplit(':').next().unwrap_or(&name.0);
            Some((
                path.clone(),
                (own.to_owned(), version.map(|version| version.value.clone())),
            ))
        });
        packages.collect()
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
        lock: Some(Digest::of(spec::lock::print(&project.whole_lock()).as_bytes())),
        options: Map::new(),
        tests: BTreeMap::new(),
    }
}

/// A spec file's name as it is in every checkout: no path of this machine.
fn relative(file: &Path, project: &Path) -> String {
    let below = file.strip_prefix(project).ok();
    let name = below.or_else(|| file.file_name().map(Path::new)).unwrap_or(file);
    name.display().to_string()
}

/// The directories of the files that an image was written to; without any, the current one.
pub fn dirs_beside(locations: &[Location]) -> BTreeSet<PathBuf> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_is_named_without_the_path_of_this_machine() {
        for (file, project, name) in [
            ("/home/me/app/layerize.toml", "/home/me/app", "layerize.toml"),
            ("/home/me/app/lib/layerize.toml", "/home/me/app", "lib/layerize.toml"),
            ("/opt/shared/layerize.toml", "/home/me/app", "layerize.toml"),
        ] {
            assert_eq!(relative(Path::new(file), Path::new(project)), name, "{file}");
        }
    }

    #[test]
    fn documents_are_written_beside_the_image() {
        let dirs = |texts: &[&str]| {
            let locations: Vec<Location> = texts.iter().map(|text| text.parse().unwrap()).collect();
            dirs_beside(&locations).into_iter().collect::<Vec<_>>()
        };
        assert_eq!(dirs(&[]), [PathBuf::new()]);
        assert_eq!(dirs(&["docker://r.example/a:1"]), [PathBuf::new()]);
        let several = ["docker-archive:out/a.tar", "oci:out/layout:v1", "oci-archive:b.tar"];
        assert_eq!(dirs(&several), [PathBuf::new(), PathBuf::from("out")]);
    }
}
