//! The *dev image* of a package: what `layerize shell` has of it, as an image for containers that people develop in.
//!
//! Invariant: the spec does not know of it; it is made of what the lock pins for the shell, and of nothing else.
//!
//! What the package's language depends on is brought by the first shell of a container, as its place is in the user's own
//! sources: `/etc/profile.d/layerize.sh` has all shells do so, and find what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::build::{self, Activation, ShellPart};
use crate::event::Silent;
use crate::fsio;
use crate::shell_word;
use crate::spec::{
    self, Dependency, Image, ImageFile, ImageFileKind, LockScope, Package, PackageName, Source, Spanned,
};
use crate::store_path::StoreDir;

use super::environment::{Environment, WorkOptions};
use super::error::ProjectError;
use super::files::Project;
use super::shell::shell_parts;
use super::work::{self, Work};

/// What is added to the package's name.
const SUFFIX: &str = "dev";

/// What the server needs that editors run in a container, by the Debian packages that have it.
const SERVER_DEBS: [&str; 3] = ["libstdc++6", "tar", "ca-certificates"];

/// What shells read when they start.
const VARIABLES: &str = "/etc/profile.d/layerize.sh";
const VARIABLES_TEXT: &str = include_str!("variables.sh");

/// What login shells read.
const PROFILE_TEXT: &str = include_str!("profile.sh");

/// What runs a container's program as if such a shell had started it.
const ENTER: &str = "/usr/libexec/layerize/enter";
const ENTER_TEXT: &str = include_str!("enter.sh");

/// What brings dependencies into a container, and the language's own part of it.
const ACTIVATE: &str = "/usr/libexec/layerize/activate";
const ACTIVATE_TEXT: &str = include_str!("activate.sh");
const LANGUAGE: &str = "/usr/libexec/layerize/language";

/// What is in `/build` of a container from the beginning, by its whole paths.
const BUILD: &str = "/usr/libexec/layerize";

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
    let mut variables: BTreeMap<String, String> = build::shell_variables(&store, &parts)?;
    // The linker of a build has its output find the libraries that it was given; one that nobody has wrapped reads this.
    if let Some(libraries) = variables.get("LIBRARY_PATH") {
        variables.insert("LD_RUN_PATH".to_owned(), libraries.clone());
    }
    image.env = variables;
    // Debian's own would have login shells forget the image's `PATH`.
    add_file(
        &mut image,
        "/etc/profile",
        ImageFileKind::Text(PROFILE_TEXT.to_owned()),
        None,
    );
    for part in &parts {
        add_language(&mut image, project, part);
    }
    Ok(image)
}

/// Has shells bring what the package's language depends on.
fn add_language(image: &mut Image, project: &Project, part: &ShellPart) {
    let Some((activation, source)) = activation_of(project, part) else {
        return;
    };
    for (at, input) in &part.script.mounts {
        let target = part.paths.get(input).map(|path| StoreDir::layerize().join(path));
        // Whoever mounts something at `/build` has them, too.
        add_file(
            image,
            &format!("{BUILD}{at}"),
            target.map_or(ImageFileKind::Directory, ImageFileKind::Symlink),
            None,
        );
    }
    let views: Vec<String> = activation.views.iter().map(shell_word::quoted).collect();
    let activate = format!(
        "#!/bin/bash\nsource={}\nviews=({})\n{ACTIVATE_TEXT}",
        shell_word::quoted(source),
        views.join(" ")
    );
    let text = |text: &str| ImageFileKind::Text(text.to_owned());
    add_file(image, &format!("{BUILD}/build"), ImageFileKind::Directory, None);
    add_file(image, "/build", ImageFileKind::Directory, Some(0o1777));
    add_file(image, LANGUAGE, text(&activation.script), None);
    add_file(image, ACTIVATE, text(&activate), Some(0o755));
    add_file(image, VARIABLES, text(VARIABLES_TEXT), None);
    add_file(image, "/root/.bashrc", text(&format!(". {VARIABLES}\n")), None);
    add_file(image, ENTER, text(ENTER_TEXT), Some(0o755));
    image.entrypoint = vec![ENTER.to_owned()];
    image.env.insert("BASH_ENV".to_owned(), VARIABLES.to_owned());
}

/// What brings a language into a shell, and where the package's source is in the project: what is beside the project is in no
/// container.
fn activation_of<'a>(project: &Project, part: &'a ShellPart) -> Option<(&'a Activation, String)> {
    let activation = part.activate.as_ref()?;
    Some((activation, place_in(project, &activation.source)?))
}

/// `/` and a path in the project, or nothing where that is the project itself.
fn place_in(project: &Project, path: &Path) -> Option<String> {
    let below = fsio::normalize(path);
    let below = below.strip_prefix(fsio::normalize(&project.dir)).ok()?.to_str()?;
    Some(match below.is_empty() {
        true => String::new(),
        false => format!("/{below}"),
    })
}

fn add_file(image: &mut Image, path: &str, kind: ImageFileKind, mode: Option<u32>) {
    let file = ImageFile {
        kind,
        mode,
        owner: None,
        group: None,
    };
    image.files.insert(path.to_owned(), Spanned::nowhere(file));
}

/// The directories of the project, relative to it, in which a shell of the package lays out what its language depends on; the
/// project's lock must be current.
pub fn views(
    project: &Project,
    package: &PackageName,
    environment: &Environment<'_>,
) -> Result<Vec<String>, ProjectError> {
    let store = environment.store()?;
    let plan = project.plan(&store, &project.add_sources(&store, &Silent)?)?;
    let of_language = plan.languages.get(package).map(|language| &language.shell.views);
    let source = project
        .workspace
        .packages
        .get(package)
        .and_then(|package| match &package.source.as_ref()?.value {
            Source::Path { path, .. } => place_in(project, &package.dir.join(path)),
            _ => None,
        });
    let views = of_language.into_iter().flatten();
    Ok(source.map_or_else(Vec::new, |source| {
        views
            .map(|view| format!("{source}/{view}").trim_start_matches('/').to_owned())
            .collect()
    }))
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
