//! A *uv.lock*: every project that could be installed, with what it depends on and where that holds.
//!
//! Invariant: what comes back is what the project, its extras and its groups lead to where the markers hold, and no more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Deserialize;

use super::Selection;
use super::locked::{Locked, LockedFile, LockedProject, file_name};
use super::marker::{self, Environment};
use crate::lang::{LangError, read_toml};
use crate::spec::normal_python_name;

/// The newest format that is known; revisions within it change nothing that is read.
const VERSION_MAX: u32 = 1;

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "requires-python")]
    requires_python: Option<String>,
    #[serde(default)]
    package: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    name: String,
    version: Option<String>,
    source: BTreeMap<String, toml::Value>,
    #[serde(default)]
    resolution_markers: Vec<String>,
    #[serde(default)]
    dependencies: Vec<Dependency>,
    #[serde(default)]
    optional_dependencies: BTreeMap<String, Vec<Dependency>>,
    #[serde(default)]
    dev_dependencies: BTreeMap<String, Vec<Dependency>>,
    sdist: Option<File>,
    #[serde(default)]
    wheels: Vec<File>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    version: Option<String>,
    source: Option<BTreeMap<String, toml::Value>>,
    marker: Option<String>,
    #[serde(default)]
    extra: Vec<String>,
}

#[derive(Deserialize)]
struct File {
    url: Option<String>,
    path: Option<String>,
    filename: Option<String>,
    hash: Option<String>,
}

impl Entry {
    /// Its directory, where it is part of the source.
    fn own_dir(&self) -> Option<&str> {
        ["editable", "virtual", "directory"]
            .iter()
            .find_map(|key| self.source.get(*key)?.as_str())
    }

    /// Whether its code is to be installed: a virtual project is what it depends on.
    fn has_code(&self) -> bool {
        !self.source.contains_key("virtual")
    }
}

/// Reads the text of `file`.
pub(super) fn parse(
    text: &str,
    file: &str,
    selection: &Selection<'_>,
    environment: &Environment,
) -> Result<Locked, LangError> {
    let error = |message: String, help: &str| LangError::at(format!("`{file}`"), message, help);
    let version: Version = read_toml(text, file, "run `uv lock`")?;
    if version.version > VERSION_MAX {
        let message = format!("version {} of the lock file's format is not known", version.version);
        let help = "export it with `uv export --format pylock.toml -o pylock.toml`, or use a newer layerize";
        return Err(error(message, help));
    }
    let document: Document = read_toml(text, file, "run `uv lock`")?;
    if let Some(wanted) = &document.requires_python {
        super::check_python(wanted, environment, file)?;
    }
    let walk = Walk {
        file,
        entries: &document.package,
        environment: with_conflicts(&document.package, selection, environment),
    };
    let mut locked = walk.from(walk.root(selection)?, selection)?;
    for tool in &selection.tools {
        locked.tools.insert((*tool).to_owned(), walk.tool(tool)?);
    }
    Ok(locked)
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// The environment in which the markers of the lock hold: uv writes an extra or group of a project into them as
/// `extra-LENGTH-PROJECT-EXTRA`, where one excludes another.
fn with_conflicts(entries: &[Entry], selection: &Selection<'_>, environment: &Environment) -> Environment {
    let mut environment = environment.clone();
    for entry in entries.iter().filter(|entry| entry.own_dir().is_some()) {
        let name = normal_python_name(&entry.name);
        for (kind, chosen) in [("extra", selection.extras), ("group", selection.groups)] {
            let encoded = chosen
                .iter()
                .map(|chosen| format!("{kind}-{}-{name}-{chosen}", name.len()));
            environment.extras.extend(encoded);
        }
    }
    environment
}

struct Walk<'a> {
    file: &'a str,
    entries: &'a [Entry],
    environment: Environment,
}

impl<'a> Walk<'a> {
    fn error(&self, entry: &str, message: impl Into<String>, help: impl Into<String>) -> LangError {
        LangError::at(format!("`{}`, package `{entry}`", self.file), message, help)
    }

    /// The project that is installed.
    fn root(&self, selection: &Selection<'_>) -> Result<&'a Entry, LangError> {
        let own: Vec<&Entry> = self.entries.iter().filter(|entry| entry.own_dir().is_some()).collect();
        let place = format!("`{}`", self.file);
        let names = || {
            own.iter()
                .map(|entry| format!("`{}`", entry.name))
                .collect::<Vec<_>>()
                .join(", ")
        };
        if let Some(wanted) = selection.project {
            let found = own.iter().find(|entry| normal_python_name(&entry.name) == wanted);
            return found.copied().ok_or_else(|| {
                let message = format!("no project `{wanted}` is locked");
                LangError::at(place, message, format!("name one of {}", names()))
            });
        }
        let here = own.iter().find(|entry| entry.own_dir() == Some("."));
        match (here, own.as_slice()) {
            (Some(root), _) | (None, [root]) => Ok(root),
            (None, []) => Err(LangError::at(
                place,
                "it locks no project of its own",
                "run `uv lock` beside `pyproject.toml`",
            )),
            (None, _) => Err(LangError::at(
                place,
                "it locks several projects, and none is beside it",
                format!("write `project = \"…\"` with one of {}", names()),
            )),
        }
    }

    /// What `root` leads to.
    fn from(&self, root: &'a Entry, selection: &Selection<'_>) -> Result<Locked, LangError> {
        let mut locked = Locked::default();
        let mut queue: VecDeque<&'a Dependency> = root.dependencies.iter().collect();
        for (kind, key, chosen, known) in [
            ("group", "dependency-groups", selection.groups, &root.dev_dependencies),
            (
                "extra",
                "project.optional-dependencies",
                selection.extras,
                &root.optional_dependencies,
            ),
        ] {
            for name in chosen {
                let found = known.iter().find(|(key, _)| normal_python_name(key) == **name);
                let (_, dependencies) = found.ok_or_else(|| {
                    let known: Vec<&str> = known.keys().map(String::as_str).collect();
                    let message = format!("`{}` has no {kind} `{name}`", root.name);
                    let help = match known.is_empty() {
                        true => format!("add it to `[{key}]` in `pyproject.toml`, and run `uv lock`"),
                        false => format!("it has `{}`", known.join("`, `")),
                    };
                    self.error(&root.name, message, help)
                })?;
                queue.extend(dependencies);
            }
        }
        locked.own.extend(root.own_dir().map(str::to_owned));
        for entry in self.reached(queue, Some(root))?.into_values() {
            match entry.own_dir() {
                Some(dir) if entry.has_code() => locked.own.push(dir.to_owned()),
                Some(_) => {}
                None => locked.projects.push(self.project(entry)?),
            }
        }
        Ok(locked)
    }

    /// A project that something is built with, and what it depends on.
    fn tool(&self, name: &str) -> Result<Vec<LockedProject>, LangError> {
        if !self.entries.iter().any(|entry| entry.name == name) {
            let message = format!("`{name}`, which `build` names, is not locked");
            let help = format!("`uv add --group build {name}` locks it, and installs it with that group alone");
            return Err(self.error(name, message, help));
        }
        let wanted = Dependency {
            name: name.to_owned(),
            version: None,
            source: None,
            marker: None,
            extra: Vec::new(),
        };
        let (index, entry) = self.entry(&wanted)?;
        let mut found = self.reached(entry.dependencies.iter().collect(), None)?;
        found.insert(index, entry);
        let projects = found.into_values().map(|entry| match entry.own_dir() {
            Some(_) => {
                let message = format!("`{}` is part of the source, and nothing is built with that", entry.name);
                Err(self.error(&entry.name, message, "lock a published version of it"))
            }
            None => self.project(entry),
        });
        projects.collect()
    }

    /// What these dependencies lead to, by the places of the entries; without the root.
    fn reached(
        &self,
        mut queue: VecDeque<&'a Dependency>,
        root: Option<&Entry>,
    ) -> Result<BTreeMap<usize, &'a Entry>, LangError> {
        let is_root = |entry: &Entry| root.is_some_and(|root| std::ptr::eq(entry, root));
        let mut seen: BTreeSet<(usize, Option<&str>)> = BTreeSet::new();
        let mut found: BTreeMap<usize, &Entry> = BTreeMap::new();
        while let Some(dependency) = queue.pop_front() {
            if !self.holds(dependency.marker.as_deref(), &dependency.name)? {
                continue;
            }
            let (index, entry) = self.entry(dependency)?;
            if is_root(entry) && dependency.extra.is_empty() {
                continue;
            }
            if seen.insert((index, None)) {
                queue.extend(&entry.dependencies);
                found.insert(index, entry);
            }
            for extra in &dependency.extra {
                if seen.insert((index, Some(extra))) {
                    queue.extend(entry.optional_dependencies.get(extra).into_iter().flatten());
                }
            }
        }
        found.retain(|_, entry| !is_root(entry));
        Ok(found)
    }

    fn holds(&self, marker: Option<&str>, name: &str) -> Result<bool, LangError> {
        let Some(marker) = marker else { return Ok(true) };
        marker::holds(marker, &self.environment).map_err(|reason| {
            let message = format!("the marker `{marker}` cannot be understood: {reason}");
            self.error(name, message, "run `uv lock`")
        })
    }

    /// The entry that a dependency means: by version and source where these tell, else by where each holds.
    fn entry(&self, dependency: &Dependency) -> Result<(usize, &'a Entry), LangError> {
        let fits = |entry: &Entry| {
            entry.name == dependency.name
                && dependency
                    .version
                    .as_ref()
                    .is_none_or(|version| entry.version.as_ref() == Some(version))
                && dependency.source.as_ref().is_none_or(|source| entry.source == *source)
        };
        let mut fitting: Vec<(usize, &Entry)> = self
            .entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| fits(entry))
            .collect();
        if fitting.len() > 1 {
            let mut holding = Vec::new();
            for (index, entry) in fitting {
                let mut holds = entry.resolution_markers.is_empty();
                for marker in &entry.resolution_markers {
                    holds |= self.holds(Some(marker), &entry.name)?;
                }
                if holds {
                    holding.push((index, entry));
                }
            }
            fitting = holding;
        }
        match fitting.as_slice() {
            [one] => Ok(*one),
            found => {
                let message = match found.len() {
                    0 => format!("`{}` is needed and not locked", dependency.name),
                    _ => format!("`{}` is locked in several versions that hold here", dependency.name),
                };
                Err(self.error(&dependency.name, message, "run `uv lock`"))
            }
        }
    }

    fn project(&self, entry: &Entry) -> Result<LockedProject, LangError> {
        for (kind, what) in [
            ("git", "from git"),
            ("url", "an address of its own"),
            ("path", "a file of this machine"),
        ] {
            if entry.source.contains_key(kind) {
                let message = format!("a dependency that is {what} is not supported");
                let help = "depend on a version of an index, or make its project a member of the workspace";
                return Err(self.error(&entry.name, message, help));
            }
        }
        let mut project = LockedProject::new(&entry.name, entry.version.as_deref(), self.file)?;
        let index = entry.source.get("registry").and_then(|index| index.as_str());
        project.indexes.extend(index.map(str::to_owned));
        for file in entry.wheels.iter().chain(&entry.sdist) {
            let Some(url) = &file.url else {
                let what = file.path.as_ref().or(file.filename.as_ref());
                let message = format!(
                    "`{}` is a file of the machine that locked it",
                    what.map_or("?", |what| what)
                );
                return Err(self.error(&entry.name, message, "lock it from an index, and run `uv lock`"));
            };
            let Some(name) = file_name(url) else {
                let message = "the address of a file does not end in the file's name";
                return Err(self.error(&entry.name, message, "run `uv lock`"));
            };
            project.files.push(LockedFile {
                name,
                url: Some(url.clone()),
                hashes: file.hash.iter().cloned().collect(),
            });
        }
        Ok(project)
    }
}
