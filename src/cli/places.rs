//! *Places of specs* on the command line: `PLACE#NAME` where a name of the spec here may stand.
//!
//! Invariant: a command is about one spec; of a place's it changes nothing, the lock included.

use std::collections::BTreeSet;

use crate::project::Project;
use crate::project::spec_place::{FetchedPlace, PlaceForm, SpecPlace};
use crate::spec::{LockScope, PackageName, Workspace};

use super::context::Context;
use super::error::advised;
use super::flags::BuildFlags;

/// Where a verb takes names of the spec.
pub enum Names<'a> {
    /// Each of these is one.
    Each(Vec<&'a mut String>),
    /// Any number of them; where there is none, the verb knows what is meant.
    Several(&'a mut Vec<String>),
    /// Packages, at least one.
    Packages(&'a mut Vec<String>),
}

/// Has the command work on the spec of the place that its names give, if they give one, and leaves the names in that spec.
pub fn take(names: Names<'_>, flags: &mut BuildFlags, context: &mut Context) -> anyhow::Result<()> {
    let all: Vec<&String> = match &names {
        Names::Each(names) => names.iter().map(|name| &**name).collect(),
        Names::Several(names) | Names::Packages(names) => names.iter().collect(),
    };
    let Some(Meant {
        place,
        of_place,
        names: meant,
    }) = split(&all, context)?
    else {
        return Ok(());
    };
    if context.environment.file.is_some() {
        return Err(advised(
            "a spec and a place of one are named",
            "leave out `--file`, or the place",
        ));
    }
    let fetched = place.fetch(&flags.options(), &context.environment)?;
    context.environment = context.environment.clone().with_place(fetched.clone());
    flags.locked = true;
    let project = Project::load(&context.environment)?;
    let reasons = project.lock_reasons(LockScope::Builds, &context.environment)?;
    if !reasons.is_empty() {
        return Err(advised(
            format!("the lock of `{place}` is not current:\n  {}", reasons.join("\n  ")),
            "whoever keeps it runs `layerize lock` there and commits the file",
        ));
    }
    let had = Had::new(&project.workspace, &fetched);
    of_place.iter().try_for_each(|name| had.check(name, &place))?;
    match names {
        Names::Each(names) => {
            for (name, meant) in names.into_iter().zip(meant) {
                *name = meant.map_or_else(|| had.only(&place), Ok)?;
            }
        }
        Names::Several(names) => {
            *names = meant.into_iter().flatten().collect();
            if names.is_empty() {
                names.extend(had.image.iter().map(|name| (*name).to_owned()));
            }
        }
        Names::Packages(names) => {
            *names = meant.into_iter().flatten().collect();
            if names.is_empty() {
                names.push(had.only_package(&place)?);
            }
        }
    }
    Ok(())
}

/// What names mean that give a place.
struct Meant {
    place: SpecPlace,
    /// Those that stand behind the place.
    of_place: Vec<String>,
    /// All in their order, without the place: others may be files and places of images.
    names: Vec<Option<String>>,
}

/// The place that names give, if they give one, and the names in its spec.
fn split(all: &[&String], context: &Context) -> anyhow::Result<Option<Meant>> {
    let mut found: Option<SpecPlace> = None;
    let (mut meant, mut of_place) = (Vec::new(), Vec::new());
    for text in all {
        let Some(parsed) = SpecPlace::parse(text, &context.environment.here) else {
            meant.push(Some((*text).clone()));
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
        of_place.extend(name.clone());
        meant.push(name);
    }
    Ok(found.map(|place| Meant {
        place,
        of_place,
        names: meant,
    }))
}

/// What can be made of the spec of a place.
struct Had<'a> {
    images: Vec<&'a str>,
    packages: Vec<&'a str>,
    own_packages: Vec<&'a str>,
    /// The image that carries the spec, which is what can be made with all that this needs.
    image: Option<&'a str>,
}

impl<'a> Had<'a> {
    fn new(workspace: &'a Workspace, fetched: &'a FetchedPlace) -> Self {
        let image = match &fetched.form {
            PlaceForm::Image(carried) => Some(carried.image.as_str()),
            PlaceForm::Tree { .. } => None,
        };
        let part = image.map(|image| workspace.only(&BTreeSet::new(), &BTreeSet::from([image.to_owned()])));
        let is_had = |name: &&PackageName| part.as_ref().is_none_or(|part| part.packages.contains_key(*name));
        let images = workspace.images.keys().map(String::as_str);
        let own = workspace.own_packages().filter(is_had);
        Self {
            own_packages: own.map(|name| name.0.as_str()).collect(),
            images: images.filter(|name| image.is_none_or(|image| image == *name)).collect(),
            packages: workspace
                .packages
                .keys()
                .filter(is_had)
                .map(|name| name.0.as_str())
                .collect(),
            image,
        }
    }

    /// Of a spec that an image carries, that a name is of what the image is made of.
    fn check(&self, name: &str, place: &SpecPlace) -> anyhow::Result<()> {
        if self.image.is_none() || self.images.contains(&name) || self.packages.contains(&name) {
            return Ok(());
        }
        Err(advised(
            format!("`{place}` carries nothing that is called `{name}`"),
            format!("it carries what the image is made of: {}", self.listed()),
        ))
    }

    fn listed(&self) -> String {
        [self.images.clone(), self.own_packages.clone()].concat().join(", ")
    }

    /// The only image of a spec, or else its only package.
    fn only(&self, place: &SpecPlace) -> anyhow::Result<String> {
        match (&self.images[..], &self.own_packages[..]) {
            ([only], _) | ([], [only]) => Ok((*only).to_owned()),
            (images, packages) => Err(advised(
                format!("`{place}` has {} images and {} packages", images.len(), packages.len()),
                format!("name one behind `#`: {}", self.listed()),
            )),
        }
    }

    fn only_package(&self, place: &SpecPlace) -> anyhow::Result<String> {
        match &self.own_packages[..] {
            [only] => Ok((*only).to_owned()),
            packages => Err(advised(
                format!("`{place}` has {} packages", packages.len()),
                match packages.is_empty() {
                    true => "run or build an image of it instead".to_owned(),
                    false => format!("name one behind `#`: {}", packages.join(", ")),
                },
            )),
        }
    }
}
