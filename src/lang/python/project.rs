//! The *projects* of a source: what `pyproject.toml` says of their name, their modules and their commands.
//!
//! Invariant: every name and object that comes back is fit to stand in a script, and every path is inside the source.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::lang::{FileKind, LangError, SourceTree, read_toml};
use crate::spec::normal_python_name;

/// A project whose modules are installed as they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct OwnProject {
    /// Its name; empty where it has no `pyproject.toml`.
    pub(super) name: String,
    pub(super) version: String,
    /// Commands: object by name.
    pub(super) commands: BTreeMap<String, String>,
    /// What it announces to others: object by name, by group.
    pub(super) entry_points: BTreeMap<String, BTreeMap<String, String>>,
    /// Directories of the source that are searched for its modules.
    pub(super) paths: Vec<String>,
}

#[derive(Deserialize, Default)]
struct PyProject {
    project: Option<Table>,
    #[serde(default)]
    tool: Tool,
}

#[derive(Deserialize, Default)]
struct Tool {
    poetry: Option<Table>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
struct Table {
    name: Option<String>,
    version: Option<String>,
    #[serde(default)]
    scripts: BTreeMap<String, toml::Value>,
    #[serde(default)]
    gui_scripts: BTreeMap<String, String>,
    #[serde(default)]
    entry_points: BTreeMap<String, BTreeMap<String, String>>,
}

impl OwnProject {
    /// The project in a directory of the source; `paths` are those that the spec names.
    pub(super) fn read(source: &SourceTree, dir: &str, paths: &[String]) -> Result<Self, LangError> {
        let within = |path: &str| match dir {
            "." => path.to_owned(),
            dir => format!("{dir}/{path}"),
        };
        if dir.starts_with('/') || dir.split('/').any(|part| part == "..") {
            let message = format!("the project in `{dir}` is outside the source");
            let help = "make the directory that holds both the `source`, and name the lock file in it";
            return Err(LangError::at("the lock file", message, help));
        }
        let file = within("pyproject.toml");
        let table = match source.text(&file)? {
            Some(text) => read_table(&text, &file)?,
            None => Table::default(),
        };
        let paths = match paths {
            [] if source.kind(&within("src")) == Some(FileKind::Directory)
                && !source.is_file(&within("src/__init__.py")) =>
            {
                vec![within("src")]
            }
            [] => vec![dir.to_owned()],
            paths => paths.to_vec(),
        };
        for path in &paths {
            if source.kind(path) != Some(FileKind::Directory) {
                let message = format!("the source has no directory `{path}`");
                return Err(LangError::at(
                    "`paths`",
                    message,
                    "name a directory relative to the source",
                ));
            }
        }
        table.check(&file)?;
        let mut commands: BTreeMap<String, String> = table.gui_scripts;
        let scripts = table.scripts.into_iter();
        commands.extend(scripts.filter_map(|(name, object)| Some((name, object.as_str()?.to_owned()))));
        Ok(Self {
            name: table.name.unwrap_or_default(),
            version: table.version.unwrap_or_else(|| "0".to_owned()),
            commands,
            entry_points: table.entry_points,
            paths,
        })
    }
}

fn read_table(text: &str, file: &str) -> Result<Table, LangError> {
    let read: PyProject = read_toml(text, file, "write it as the packaging guide of Python has it")?;
    Ok(read.project.or(read.tool.poetry).unwrap_or_default())
}

impl Table {
    fn check(&self, file: &str) -> Result<(), LangError> {
        let refused = |what: &str, text: &str| {
            let message = format!("{what} `{}` holds what it cannot hold", text.escape_debug());
            let help = "letters, digits, `.`, `_` and `-` for names, `module:object` for objects";
            LangError::at(format!("`{file}`"), message, help)
        };
        let plain = |text: &str| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
                && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-+!".contains(c))
        };
        for (what, text) in [("the name", &self.name), ("the version", &self.version)] {
            if let Some(text) = text.as_ref().filter(|text| !plain(text)) {
                return Err(refused(what, text));
            }
        }
        let strings = self
            .scripts
            .iter()
            .filter_map(|(name, object)| Some((name, object.as_str()?)));
        let windowed = self.gui_scripts.iter().map(|(name, object)| (name, object.as_str()));
        for (name, object) in strings.chain(windowed) {
            if !plain(name) {
                return Err(refused("the command", name));
            }
            if !is_object(object) || !object.contains(':') {
                return Err(refused("the object of a command", object));
            }
        }
        for (group, points) in &self.entry_points {
            let bad = |text: &str| text.contains(|c: char| c.is_control() || "[]=".contains(c)) || text.is_empty();
            if let Some(text) = [group].into_iter().chain(points.keys()).find(|text| bad(text)) {
                return Err(refused("the entry point", text));
            }
            if let Some(object) = points.values().find(|object| !is_object(object)) {
                return Err(refused("the object of an entry point", object));
            }
        }
        Ok(())
    }
}

/// `module.module:object.attribute`, and extras that nobody asks for any more.
fn is_object(text: &str) -> bool {
    let text = text.split('[').next().unwrap_or_default().trim();
    let (module, object) = text.split_once(':').unwrap_or((text, "x"));
    let dotted = |text: &str| {
        text.trim().split('.').all(|part| {
            part.starts_with(|c: char| c.is_alphabetic() || c == '_')
                && part.chars().all(|c| c.is_alphanumeric() || c == '_')
        })
    };
    dotted(module) && dotted(object)
}

/// Whether a project is called so, as names are compared.
pub(super) fn is_named(project: &OwnProject, name: &str) -> bool {
    !project.name.is_empty() && normal_python_name(&project.name) == name
}
