//! What became of the *maintainer scripts* of an image's packages: which ran and what they made, which did not and why.
//!
//! Invariant: told of an image whose steps are in the store, by what they recorded; that scripts should run and cannot is
//! warned of once for an image, with its packages and a way to accept it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::configure::{self, ConfigureError, Record, ScriptsOutcome};
use crate::derive::{ImageInputs, Input};
use crate::event::{Event, Reporter};
use crate::oci::Platform;
use crate::spec;

use super::target::Target;
use super::work::Work;

/// Most packages that a warning names.
const NAMES_SHOWN: usize = 8;

/// Why scripts do not run that the spec's `configure` does not want.
const OFF: &str = "the image's `configure` says so";

/// Why scripts that should run cannot.
const OVER_BASE: &str = "what the package manager of its base knows is not known";

/// What became of an image's maintainer scripts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ScriptsStory {
    /// The platform of the image, where it is one of several that are told of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The image's name.
    pub image: String,
    /// Whether the spec wants scripts to run.
    pub wanted: bool,
    /// The packages of its `root`; none where scripts are not wanted, as nobody looks whether there are some.
    pub packages: BTreeMap<String, ScriptsOutcome>,
}

/// Tells it of an image of the spec, for each platform that is worked for.
///
/// # Errors
///
/// A record in the store that cannot be read.
pub fn stories(work: &Work, image: &str) -> Result<Vec<ScriptsStory>, ConfigureError> {
    let target = Target::Image(image.to_owned());
    let all = work.everywhere().filter(|work| work.targets.contains(&target));
    let stories: Vec<_> = all.map(|work| story(work, image)).collect::<Result<_, _>>()?;
    Ok(match stories.is_empty() {
        true => vec![ScriptsStory::default()],
        false => stories,
    })
}

/// Tells it for one platform.
pub(super) fn story(work: &Work, image: &str) -> Result<ScriptsStory, ConfigureError> {
    let is_target = work.targets.contains(&Target::Image(image.to_owned()));
    let (Some(project), Some(inputs), true) = (&work.project, work.plan.images.get(image), is_target) else {
        return Ok(ScriptsStory::default());
    };
    let spec = &project.workspace.images[image];
    let names = (inputs.root.iter()).filter_map(|input| name_of(input, work));
    let packages = match (&spec.configure, &inputs.configured) {
        (None, _) => BTreeMap::new(),
        (Some(_), Some(configured)) => {
            let physical = work.store.physical(&work.path(configured));
            Record::read(&physical)?.outcomes(names)
        }
        (Some(_), None) => {
            let unrun = unrun(inputs, work);
            names
                .map(|name| (name.to_owned(), unrun_outcome(name, &unrun, spec)))
                .collect()
        }
    };
    Ok(ScriptsStory {
        platform: project.seen_from().and_then(Platform::from_debian),
        image: image.to_owned(),
        wanted: spec.configure.is_some(),
        packages,
    })
}

fn name_of<'a>(input: &Input, work: &'a Work) -> Option<&'a str> {
    let mut debs = work.plan.debs.iter();
    debs.find(|(_, step)| *step == input).map(|(name, _)| name.as_str())
}

/// The packages whose scripts should run and cannot.
fn unrun<'a>(inputs: &'a ImageInputs, work: &Work) -> Vec<&'a str> {
    let unrun = inputs.unrun.iter();
    unrun
        .filter(|(_, control)| configure::has_scripts(&work.store.physical(&work.path(control))))
        .map(|(name, _)| name.as_str())
        .collect()
}

fn unrun_outcome(name: &str, unrun: &[&str], spec: &spec::Image) -> ScriptsOutcome {
    let skip = spec.configure.iter().flat_map(|configure| &configure.skip);
    let reason = match unrun.contains(&name) {
        true => OVER_BASE,
        false if skip.map(|name| name.value.as_str()).any(|skipped| skipped == name) => OFF,
        false => return ScriptsOutcome::None,
    };
    ScriptsOutcome::Skipped {
        reason: reason.to_owned(),
    }
}

/// Warns of an image's scripts that do not run; an image without any is as it should be.
pub(super) fn warn(spec: &spec::Image, inputs: &ImageInputs, work: &Work, reporter: &dyn Reporter) {
    let names = unrun(inputs, work);
    if !names.is_empty() {
        reporter.report(Event::Warning {
            text: warning(&spec.name.value, &names),
        });
    }
}

fn warning(image: &str, names: &[&str]) -> String {
    let shown: Vec<String> = (names.iter().take(NAMES_SHOWN))
        .map(|name| format!("`deb:{name}`"))
        .collect();
    let more = match names.len().saturating_sub(NAMES_SHOWN) {
        0 => String::new(),
        count => format!(" and {count} more"),
    };
    format!(
        "image `{image}`: the maintainer scripts of {}{more} did not run, as {OVER_BASE}; accounts, enabled modules and caches that \
         only they make may be missing, while alternatives, CA certificates and the directories that an init makes are there: \
         `configure = false` accepts that",
        shown.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_names_packages_and_what_to_type() {
        let told = warning("web", &["a", "b"]);
        assert!(
            told.starts_with(
                "image `web`: the maintainer scripts of `deb:a`, `deb:b` did not run, as what the package"
            ),
            "{told}"
        );
        assert!(told.ends_with("`configure = false` accepts that"), "{told}");
        let names: Vec<String> = (0..20).map(|number| format!("p{number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let told = warning("web", &names);
        assert!(told.contains("`deb:p7` and 12 more did not run, as what"), "{told}");
    }
}
