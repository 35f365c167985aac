//! The *dev image* of a package: what `layerize shell` has of it, as an image for containers that people develop in.
//!
//! Invariant: the spec does not know of it; it is made of what the lock pins for the shell, and of nothing else.

use std::collections::{BTreeMap, BTreeSet};

use crate::build;
use crate::spec::{self, Dependency, Image, LockScope, Package, PackageName, Spanned};

use super::environment::{Environment, WorkOptions};
use super::error::ProjectError;
use super::files::Project;
use super::shell::shell_parts;
use super::work::{self, Work};

/// What is added to the package's name.
const SUFFIX: &str = "dev";

/// What the server needs that editors run in a container, by the Debian packages that have it.
const SERVER_DEBS: [&str; 3] = ["libstdc++6", "tar", "ca-certificates"];

/// What the dev image of a package is called: images have lowercase names, with a single separator between words.
pub fn name_of(package: &PackageName) -> String {
    let lowercase = package.0.to_ascii_lowercase();
    let words: Vec<&str> = lowercase
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    format!("{}-{SUFFIX}", words.join("-"))
}

/// Makes what the dev image of a package of the spec is made of.
pub fn prepare(
    package: &PackageName,
    options: &WorkOptions,
    environment: &Environment<'_>,
) -> Result<Work, ProjectError> {
    let mut project = Project::load(environment)?;
    project.make_lock_current(LockScope::Whole, options, environment)?;
    let image = image_of(&project, package, options, environment)?;
    let name = image.name.value.clone();
    project.workspace.images.insert(name.clone(), image);
    work::prepare_image(project, &name, options, environment)
}

/// The Debian packages that an editor's server needs and the environment of a package does not have.
pub fn lacks(project: &Project, package: &PackageName) -> Vec<&'static str> {
    let Some(package) = project.workspace.packages.get(package) else {
        return Vec::new();
    };
    let members = project.lock.deb_sets.get(&debs_of(project, package));
    let has = |name: &str| members.is_some_and(|members| members.iter().any(|member| member == name));
    SERVER_DEBS.into_iter().filter(|name| !has(name)).collect()
}

/// The names of the Debian packages of the package's shell, which the lock has resolved together.
fn debs_of(project: &Project, package: &Package) -> Vec<String> {
    let shell = spec::shell_debs(&project.workspace, package);
    shell.unwrap_or_else(|| spec::build_debs(&project.workspace, package))
}

fn image_of(
    project: &Project,
    name: &PackageName,
    options: &WorkOptions,
    environment: &Environment<'_>,
) -> Result<Image, ProjectError> {
    // Of an imported package another lock has the Debian packages.
    let package = project.workspace.packages.get(name);
    let package = package.filter(|package| package.is_built());
    let package = package.ok_or_else(|| ProjectError::Unknown {
        argument: name.0.clone(),
        help: "a dev image is made of a package of this spec that has a script".to_owned(),
    })?;
    let called = name_of(name);
    let debs = debs_of(project, package);
    let debs: Vec<String> = debs.iter().map(|deb| format!("\"deb:{deb}\"")).collect();
    let text = format!(
        "[image.{called}]\nroot = [{}]\nconfigure = false\nutf-8 = false\ncmd = [\"/bin/bash\"]\n[image.{called}.files]\n\
         \"/root\" = {{ directory = true, mode = \"0700\" }}\n\"/tmp\" = {{ directory = true, mode = \"1777\" }}\n",
        debs.join(", ")
    );
    let mut workspace = spec::parse(&text)?;
    let mut image = workspace.images.remove(&called).expect("it is the one of the text");
    image.dir.clone_from(&project.dir);
    image.contents = packages_of(package);
    let store = environment.store()?;
    let parts = shell_parts(project, std::slice::from_ref(name), &store, options, environment)?;
    let variables: BTreeMap<String, String> = build::shell_variables(&store, &parts)?;
    image.env = variables;
    Ok(image)
}

/// The packages of the spec among what a package's shell has, each once.
fn packages_of(package: &Package) -> Vec<Spanned<Dependency>> {
    let lists = [&package.tools, &package.libraries, &package.runtime, &package.dev];
    let mut seen = BTreeSet::new();
    let all = lists.into_iter().flatten();
    let named = all.filter(|dependency| !matches!(dependency.value, Dependency::Debian(_)));
    named
        .filter(|dependency| seen.insert(dependency.value.clone()))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dev_images_of_all_packages_have_names_of_images() {
        for (package, image) in [
            ("thing", "thing-dev"),
            ("My_App", "my-app-dev"),
            ("a+b..c", "a-b-c-dev"),
            ("g++", "g-dev"),
            ("x:api", "x-api-dev"),
        ] {
            assert_eq!(name_of(&PackageName(package.to_owned())), image);
        }
    }
}
