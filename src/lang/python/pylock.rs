//! A *pylock.toml* (PEP 751): what is installed, each with where it holds.
//!
//! Invariant: only what the standard says is read; a package from elsewhere than an index is an error that names it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Selection;
use super::locked::{Locked, LockedFile, LockedProject, file_name};
use super::marker::{self, Environment};
use crate::lang::{LangError, read_toml};
use crate::spec::normal_python_name;

/// What to do with a lock file that is not as it should be.
const ANEW: &str = "let the tool that wrote it (`uv export --format pylock.toml`, `pip lock`) write it anew";

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Document {
    requires_python: Option<String>,
    #[serde(default)]
    environments: Vec<String>,
    #[serde(default)]
    extras: Vec<String>,
    #[serde(default)]
    dependency_groups: Vec<String>,
    #[serde(default)]
    default_groups: Vec<String>,
    packages: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    name: String,
    version: Option<String>,
    marker: Option<String>,
    index: Option<String>,
    requires_python: Option<String>,
    vcs: Option<toml::Value>,
    directory: Option<Directory>,
    archive: Option<toml::Value>,
    sdist: Option<File>,
    #[serde(default)]
    wheels: Vec<File>,
}

#[derive(Deserialize)]
struct Directory {
    path: String,
}

#[derive(Deserialize)]
struct File {
    name: Option<String>,
    url: Option<String>,
    path: Option<String>,
    #[serde(default)]
    hashes: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Version {
    lock_version: String,
}

/// Reads the text of `file`.
pub(super) fn parse(
    text: &str,
    file: &str,
    selection: &Selection<'_>,
    environment: &Environment,
) -> Result<Locked, LangError> {
    let error = |message: String, help: &str| LangError::at(format!("`{file}`"), message, help);
    let Version { lock_version } = read_toml(text, file, ANEW)?;
    if !lock_version.starts_with("1.") {
        let message = format!("version {lock_version} of the lock file's format is not known");
        return Err(error(
            message,
            "let the tool that wrote it write version 1.0, or use a newer layerize",
        ));
    }
    let document: Document = read_toml(text, file, ANEW)?;
    if let Some(wanted) = &document.requires_python {
        super::check_python(wanted, environment, file)?;
    }
    let environment = selected(&document, file, selection, environment)?;
    if !document.environments.is_empty() {
        let mut fits = false;
        for marker in &document.environments {
            fits |= marker::holds(marker, &environment).map_err(|reason| error(unclear(marker, &reason), ANEW))?;
        }
        if !fits {
            let message = "it was locked for other environments than this".to_owned();
            return Err(error(message, "lock it for Linux and the Python of the image"));
        }
    }
    let mut locked = Locked {
        own: vec![".".to_owned()],
        ..Locked::default()
    };
    for entry in &document.packages {
        take(entry, file, &environment, &mut locked)?;
    }
    let mut names: Vec<&str> = locked.projects.iter().map(|project| project.name.as_str()).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(error(
            format!("`{}` is locked in several versions that hold here", pair[0]),
            ANEW,
        )),
        None => Ok(locked),
    }
}

/// The environment with the extras and groups that are installed, which the lock must know.
fn selected(
    document: &Document,
    file: &str,
    selection: &Selection<'_>,
    environment: &Environment,
) -> Result<Environment, LangError> {
    let mut environment = environment.clone();
    environment
        .groups
        .extend(document.default_groups.iter().map(|name| normal_python_name(name)));
    for (kind, chosen, known, into) in [
        ("extra", selection.extras, &document.extras, &mut environment.extras),
        (
            "group",
            selection.groups,
            &document.dependency_groups,
            &mut environment.groups,
        ),
    ] {
        for name in chosen {
            if !known.iter().any(|known| normal_python_name(known) == *name) {
                let message = format!("it was locked without the {kind} `{name}`");
                let help = match known.is_empty() {
                    true => format!("write the lock file with it, and leave `{kind}s` out where the tool knows none"),
                    false => format!("it has `{}`", known.join("`, `")),
                };
                return Err(LangError::at(format!("`{file}`"), message, help));
            }
            into.insert(name.clone());
        }
    }
    Ok(environment)
}

fn unclear(marker: &str, reason: &str) -> String {
    format!("the marker `{marker}` cannot be understood: {reason}")
}

fn take(entry: &Entry, file: &str, environment: &Environment, locked: &mut Locked) -> Result<(), LangError> {
    let place = || format!("`{file}`, package `{}`", entry.name);
    if let Some(marker) = &entry.marker {
        let holds = marker::holds(marker, environment);
        if !holds.map_err(|reason| LangError::at(place(), unclear(marker, &reason), ANEW))? {
            return Ok(());
        }
    }
    if let Some(directory) = &entry.directory {
        let path = directory.path.trim_end_matches('/');
        let path = path.strip_prefix("./").unwrap_or(path);
        if !locked.own.iter().any(|own| own == path) {
            locked.own.push(path.to_owned());
        }
        return Ok(());
    }
    if entry.vcs.is_some() || entry.archive.is_some() {
        let message = "a dependency from a repository or an address of its own is not supported";
        return Err(LangError::at(place(), message, "depend on a version of an index"));
    }
    if let Some(wanted) = &entry.requires_python {
        super::check_python(wanted, environment, file)?;
    }
    let mut project = LockedProject::new(&entry.name, entry.version.as_deref(), file)?;
    project.indexes.extend(entry.index.clone());
    for of_entry in entry.wheels.iter().chain(&entry.sdist) {
        let Some(url) = &of_entry.url else {
            let path = of_entry.path.as_deref().unwrap_or("?");
            let message = format!("`{path}` is a file of the machine that locked it");
            return Err(LangError::at(place(), message, "lock it from an index"));
        };
        let name = of_entry.name.as_deref().map_or_else(|| file_name(url), file_name);
        let name = name.ok_or_else(|| LangError::at(place(), "a file has no name that could be one", ANEW))?;
        project.files.push(LockedFile {
            name,
            url: Some(url.clone()),
            hashes: (of_entry.hashes.iter())
                .map(|(algorithm, hash)| format!("{algorithm}:{hash}"))
                .collect(),
        });
    }
    locked.projects.push(project);
    Ok(())
}
