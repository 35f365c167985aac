//! *Places of specs* on the command line: `PLACE#NAME` where a name of the spec here may stand.
//!
//! Invariant: a command is about one spec; of a place's it changes nothing, the lock included.

use crate::project::Project;
use crate::project::spec_place::SpecPlace;
use crate::spec::LockScope;

use super::context::Context;
use super::error::advised;
use super::flags::BuildFlags;

/// Where a verb takes names of the spec.
pub enum Names<'a> {
    /// Exactly one.
    One(&'a mut String),
    /// Any number of them.
    Several(&'a mut Vec<String>),
}

/// Has the command work on the spec of the place that its names give, if they give one, and leaves the names in that spec.
pub fn take(names: Names<'_>, flags: &mut BuildFlags, context: &mut Context) -> anyhow::Result<()> {
    let here = context.environment.here.clone();
    let all: Vec<&String> = match &names {
        Names::One(name) => vec![&**name],
        Names::Several(names) => names.iter().collect(),
    };
    let mut found: Option<SpecPlace> = None;
    let mut meant = Vec::new();
    for text in all {
        let Some(parsed) = SpecPlace::parse(text, &here) else {
            meant.push(Some(text.clone()));
            continue;
        };
        let (place, name) = parsed?;
        if found.as_ref().is_some_and(|found| *found != place) {
            return Err(advised(
                "a command is about one place",
                "name one place, or use a command for each",
            ));
        }
        found = Some(place);
        meant.push(name);
    }
    let Some(place) = found else { return Ok(()) };
    if context.environment.file.is_some() {
        return Err(advised(
            "a spec and a place of one are named",
            "leave out `--file`, or the place",
        ));
    }
    let fetched = place.fetch(&flags.options(), &context.environment)?;
    context.environment.file = Some(fetched.spec);
    context.environment.within = Some(fetched.tree);
    flags.locked = true;
    let project = Project::load(&context.environment)?;
    let reasons = project.lock_reasons(LockScope::Builds, &context.environment)?;
    if !reasons.is_empty() {
        return Err(advised(
            format!("the lock of `{place}` is not current:\n  {}", reasons.join("\n  ")),
            "whoever keeps it runs `layerize lock` there and commits the file",
        ));
    }
    match names {
        Names::One(name) => *name = meant.pop().flatten().map_or_else(|| only(&project, &place), Ok)?,
        Names::Several(names) => *names = meant.into_iter().flatten().collect(),
    }
    Ok(())
}

/// The only image of a spec, or else its only package.
fn only(project: &Project, place: &SpecPlace) -> anyhow::Result<String> {
    let images: Vec<&str> = project.workspace.images.keys().map(String::as_str).collect();
    let packages = project.workspace.packages.keys().map(|name| name.0.as_str());
    let packages: Vec<&str> = packages.filter(|name| !name.contains(':')).collect();
    match (&images[..], &packages[..]) {
        ([only], _) | ([], [only]) => Ok((*only).to_owned()),
        _ => Err(advised(
            format!("`{place}` has {} images and {} packages", images.len(), packages.len()),
            format!("name one behind `#`: {}", [images, packages].concat().join(", ")),
        )),
    }
}
