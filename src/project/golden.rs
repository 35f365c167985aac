//! A *golden digest* is what an image's digest was when it was recorded in the lock, with what it was made from.
//!
//! Invariant: the digest of the inputs is of texts and trees alone and of no rule of layerize's, so that a release that
//! makes other bytes of the same inputs is found out.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::digest::Digest;
use crate::event::{Event, Silent};
use crate::nar;
use crate::oci::canonical_json;
use crate::spec::{self, Golden, ImageFileKind};

use super::environment::{Environment, WorkOptions};
use super::error::ProjectError;
use super::files::{LOCK_NAME, Project};
use super::image::{self, NamedImage};
use super::options::ImageOptions;
use super::work::{self, Work};

/// Builds every image of the project as the spec has it and writes their digests into the lock.
pub fn record(project: &mut Project, options: &WorkOptions, environment: &Environment<'_>) -> Result<(), ProjectError> {
    let work = work::prepare_images(Project::load(environment)?, options, environment)?;
    let mut golden = BTreeMap::new();
    for image in image::images(&work, &ImageOptions::default(), environment)? {
        for part in image.each() {
            let Some(key) = part.draft.golden_key() else {
                return Err(ProjectError::DatedDigest);
            };
            let inputs = inputs(&key.image, work.of(&part.draft))?;
            let digest = part.image.digest();
            golden.insert(key, Golden { inputs, digest });
        }
    }
    if let Some(built) = &work.project {
        project.lock.accounts = built.lock.accounts.clone();
    }
    if project.lock.golden != golden {
        project.lock.golden = golden;
        project.write_lock()?;
    }
    Ok(())
}

/// Compares an image that was built with what is recorded of it. Other inputs may give another digest: that is said;
/// the same inputs may not: that is an error.
pub fn compare(image: &NamedImage, work: &Work, environment: &Environment<'_>) -> Result<(), ProjectError> {
    let mut parts = image.each();
    parts.try_for_each(|part| compare_part(part, work.of(&part.draft), environment))
}

fn compare_part(image: &NamedImage, work: &Work, environment: &Environment<'_>) -> Result<(), ProjectError> {
    let recorded = match (image.draft.golden_key(), &work.project) {
        (Some(key), Some(project)) => project.lock.golden.get(&key),
        _ => None,
    };
    let Some(recorded) = recorded.filter(|recorded| recorded.digest != image.image.digest()) else {
        return Ok(());
    };
    let (actual, image) = (image.image.digest(), image.name.clone());
    let recorded_digest = recorded.digest;
    if inputs(&image, work)? != recorded.inputs {
        let text = format!(
            "image `{image}` is {actual}, but {LOCK_NAME} records {recorded_digest} for other inputs; `layerize lock --golden` \
             records the new digest"
        );
        environment.reporter.report(Event::Warning { text });
        return Ok(());
    }
    Err(ProjectError::Golden {
        image,
        recorded: recorded_digest,
        actual,
    })
}

/// What an image is made from, as far as it is not layerize's own doing.
#[derive(Serialize)]
struct GoldenInputs {
    specs: Vec<Digest>,
    lock: Digest,
    sources: BTreeMap<String, String>,
    files: BTreeMap<String, Digest>,
    plan: Option<Digest>,
}

fn inputs(name: &str, work: &Work) -> Result<Digest, ProjectError> {
    let project = work.project.as_ref().expect("images of a spec have a project");
    let image = &project.workspace.images[name];
    // What the lock has for other platforms is not in it.
    let mut lock = project.lock.alone();
    lock.golden.clear();
    let mut files = BTreeMap::new();
    for (path, file) in &image.files {
        if let ImageFileKind::Source(source) = &file.value.kind {
            files.insert(path.clone(), nar::hash(&image.dir.join(source))?.0);
        }
    }
    let plan = image.layers.plan.as_ref().map(|file| image.dir.join(&file.value));
    let sources = project.add_sources(&work.store, &Silent)?;
    Ok(Digest::of(&canonical_json(&GoldenInputs {
        specs: project
            .workspace
            .files
            .iter()
            .map(|file| Digest::of(file.text.as_bytes()))
            .collect(),
        lock: Digest::of(spec::lock::print(&lock).as_bytes()),
        sources: sources
            .into_iter()
            .map(|(name, path)| (name.0, path.to_string()))
            .collect(),
        files,
        plan: plan.map(|path| nar::hash(&path)).transpose()?.map(|(hash, _)| hash),
    })))
}
