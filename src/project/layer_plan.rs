//! The *layer plan* of an image: where it comes from, and where it is kept for the next release.
//!
//! Invariant: a kept plan is written after the image was made with it, and only if it changed; one that was written by
//! hand is never touched.
//!
//! `layers.plan` of a spec names the file. Where it is missing it is made; where the closure is another one than the
//! file's, the plan is updated from it, with what was seen to change; `--locked` refuses both.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::audit::{self, InspectOptions};
use crate::event::{Event, Reporter};
use crate::fsio;
use crate::image::{self, RootPackage};
use crate::layer::partition::{History, LayerPlan, PLAN_FORMAT, PlannedLayer};
use crate::oci::LayerStrategy;
use crate::spec;
use crate::store_path::HASH_CHARS;

use super::environment::Environment;
use super::error::ProjectError;
use super::options::ImageOptions;

/// Largest plan file that is read.
const PLAN_BYTES_MAX: u64 = 256 << 20;

/// The file in which an image's plan is kept, and the plan in it.
#[derive(Debug, Clone)]
pub struct PlanFile {
    /// What the spec calls it.
    name: String,
    file: PathBuf,
    /// What the file holds; `None` where it is missing.
    pub plan: Option<LayerPlan>,
    /// Whether flags ask for another plan: builds then neither use nor write this one.
    pub overridden: bool,
}

impl PlanFile {
    /// Refuses a plan that is not the kept one, because only kept ones may be used.
    pub fn refuse_other(&self, plan: Option<&LayerPlan>) -> Result<(), ProjectError> {
        if self.overridden || self.plan.as_ref() == plan {
            return Ok(());
        }
        let state = match self.plan {
            None => "is missing",
            Some(_) => {
                "was made for another closure, or with another strategy, other groups or more layers than the spec asks for"
            }
        };
        let name = self.name.clone();
        Err(ProjectError::StalePlan { name, state })
    }

    /// Writes a plan to the file, if it is not there already.
    pub fn keep(&self, plan: &LayerPlan, reporter: &dyn Reporter) -> Result<(), ProjectError> {
        if self.plan.as_ref() == Some(plan) {
            return Ok(());
        }
        fsio::write_output(&self.file, plan.print().as_bytes())?;
        let before = self.plan.iter().flat_map(|before| &before.layers);
        let before: Vec<&Vec<String>> = before.map(|layer| &layer.paths).collect();
        let new = plan
            .layers
            .iter()
            .filter(|layer| !before.contains(&&layer.paths))
            .count();
        let count = plan.layers.len();
        let text = format!("layer plan `{}` written: {new} of {count} layers are new", self.name);
        reporter.report(Event::Note { text });
        Ok(())
    }
}

/// What flags and spec say of an image's plan: the one to be used as it is, or the one that is kept.
pub fn of_spec(
    spec: &spec::Image,
    options: &ImageOptions,
) -> Result<(Option<LayerPlan>, Option<PlanFile>), ProjectError> {
    if let Some(file) = &options.plan {
        return Ok((Some(read_plan(file)?), None));
    }
    let Some(name) = &spec.layers.plan else {
        return Ok((None, None));
    };
    let overridden = options.previous.is_some() || options.max_layers.is_some() || options.strategy.is_some();
    let file = spec.dir.join(&name.value);
    let plan = file.exists().then(|| read_plan(&file)).transpose()?;
    if plan.as_ref().is_some_and(LayerPlan::is_by_hand) {
        return Ok((plan.filter(|_| !overridden), None));
    }
    let name = name.value.clone();
    Ok((
        None,
        Some(PlanFile {
            name,
            file,
            plan,
            overridden,
        }),
    ))
}

/// Reads a layer plan.
pub fn read_plan(path: &Path) -> Result<LayerPlan, ProjectError> {
    let bytes = fsio::read_limited(path, PLAN_BYTES_MAX)?;
    let text = String::from_utf8(bytes).map_err(|_| ProjectError::NotText { path: path.to_owned() })?;
    LayerPlan::parse(&text).map_err(|source| ProjectError::NoPlan {
        path: path.to_owned(),
        source,
    })
}

/// Reads the plan of the release before: its plan file, or what its image says of its layers. `packages` are the Debian
/// packages that the image has at `/` now.
pub fn read_previous(
    text: Option<&str>,
    packages: &[RootPackage],
    environment: &Environment<'_>,
) -> Result<Option<LayerPlan>, ProjectError> {
    let Some(text) = text else { return Ok(None) };
    let file = Path::new(text);
    if file.is_file()
        && let Ok(plan) = read_plan(file)
    {
        return Ok(Some(plan));
    }
    let image = environment
        .source(text, None)
        .map_err(|source| ProjectError::NoPrevious {
            text: text.to_owned(),
            source: Box::new(source),
        })?;
    let layers = layers_of(&audit::inspect(image.as_ref(), InspectOptions::default())?, packages);
    if layers.is_empty() {
        return Err(ProjectError::SilentLayers { text: text.to_owned() });
    }
    Ok(Some(from_layers(layers)))
}

/// A plan of layers that an image has.
pub fn from_layers(layers: Vec<PlannedLayer>) -> LayerPlan {
    LayerPlan {
        format: PLAN_FORMAT,
        history: History::default(),
        layers,
        strategy: LayerStrategy::default().to_string(),
    }
}

/// What an image says of its layers: which store paths are in them, and which Debian packages. A package that is not one of
/// `packages`, of this very version, gets a path of its name with a hash that nothing has: it is known again and changed.
pub fn layers_of(image: &audit::Report, packages: &[RootPackage]) -> Vec<PlannedLayer> {
    let known: BTreeMap<String, String> = packages
        .iter()
        .map(|package| {
            (
                format!("{}={}", package.name, package.version),
                image::root_path(package),
            )
        })
        .collect();
    let other = |listed: &str| format!("/{}-{}", "0".repeat(HASH_CHARS), listed.replace('=', "-"));
    let layers = image.layers.iter().map(|layer| {
        let listed = layer.annotations.get(image::PACKAGES_ANNOTATION);
        let listed = listed.map_or("", String::as_str).split_whitespace();
        let mut paths: Vec<String> = listed
            .map(|package| known.get(package).cloned().unwrap_or_else(|| other(package)))
            .chain(layer.store_paths.iter().cloned())
            .collect();
        paths.sort();
        PlannedLayer {
            paths,
            reason: String::new(),
            size: 0,
        }
    });
    layers.filter(|layer| !layer.paths.is_empty()).collect()
}
