//! *Requirements* as pip reads them: a project, its one version and the hashes of its files on each line.
//!
//! Invariant: what comes back is pinned and has hashes; a line that says less is an error that names it. No file outside the
//! source is read, and nothing of the machine's environment is put into a line.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::marker::{self, Environment};
use super::version::Version;
use crate::digest::FileHash;
use crate::lang::{LangError, SourceTree};
use crate::spec::normal_python_name;

/// Most files that include one another.
const FILES_MAX: usize = 256;

/// How a file that pins everything is made.
const COMPILE: &str = "have it written with `uv pip compile --generate-hashes requirements.in -o requirements.txt`, \
                       `pip-compile --generate-hashes` or `uv export`";

/// What a file of requirements and those that it includes ask for.
#[derive(Debug, Default)]
pub(super) struct Requirements {
    /// Projects of an index where their markers hold, by name as names are compared.
    pub(super) projects: BTreeMap<String, Requirement>,
    /// Directories of the source whose projects are installed.
    pub(super) own: Vec<String>,
    /// The indexes that files name, in their order.
    pub(super) indexes: Vec<String>,
}

/// A project that is required.
#[derive(Debug, Clone)]
pub(super) struct Requirement {
    pub(super) version: String,
    /// What its file may be.
    pub(super) hashes: BTreeSet<FileHash>,
    /// The file and the line.
    pub(super) place: String,
}

/// Whether a lock file of this name is one of requirements.
pub(super) fn is_one(file: &str) -> bool {
    file.rsplit('/').next().is_some_and(|name| name.ends_with(".txt"))
}

/// Reads `file` of the source, and what it includes.
pub(super) fn read(source: &SourceTree, file: &str, environment: &Environment) -> Result<Requirements, LangError> {
    let mut requirements = Requirements::default();
    let mut known = BTreeSet::from([file.to_owned()]);
    let mut queue: VecDeque<(String, Option<Line>)> = VecDeque::from([(file.to_owned(), None)]);
    while let Some((file, from)) = queue.pop_front() {
        let Some(text) = source.text(&file)? else {
            return Err(match from {
                Some(line) => line.error(
                    format!("the source has no file `{file}`"),
                    "what is included must be in the source; see that `include`, `exclude` and `.gitignore` let it through",
                ),
                None => super::no_lock_file(&file),
            });
        };
        for line in lines(&text, &file) {
            if let Some(included) = requirements.take(&line, environment)? {
                let path = within_source(&file, &included);
                if known.len() >= FILES_MAX {
                    return Err(line.error("too many files are included", "put them together"));
                }
                if known.insert(path.clone()) {
                    queue.push_back((path, Some(line)));
                }
            }
        }
    }
    Ok(requirements)
}

/// The path of a file that `from` names relative to itself.
fn within_source(from: &str, path: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    match path.starts_with('/') {
        true => path.to_owned(),
        false => parts.join("/"),
    }
}

/// A line whose continuations are joined and whose comment is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    place: String,
    text: String,
}

impl Line {
    fn error(&self, message: impl Into<String>, help: impl Into<String>) -> LangError {
        LangError::at(&self.place, message, help)
    }
}

/// The lines that say something, as pip joins them: a comment ends a continuation.
fn lines(text: &str, file: &str) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut begun: Option<(usize, String)> = None;
    let mut add = |number: usize, text: &str| {
        let text = without_comment(text).trim();
        if !text.is_empty() {
            lines.push(Line {
                place: format!("`{file}`, line {number}"),
                text: text.to_owned(),
            });
        }
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.lines().enumerate() {
        let is_comment = line.trim_start().starts_with('#');
        match line.strip_suffix('\\').filter(|_| !is_comment) {
            Some(part) => begun.get_or_insert((index + 1, String::new())).1.push_str(part),
            None => {
                let (number, mut whole) = begun.take().unwrap_or((index + 1, String::new()));
                if is_comment {
                    whole.push(' ');
                }
                whole.push_str(line);
                add(number, &whole);
            }
        }
    }
    if let Some((number, whole)) = begun {
        add(number, &whole);
    }
    lines
}

/// What stands before a `#` that begins the line or follows a space.
fn without_comment(line: &str) -> &str {
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        if c == '#' && before.is_whitespace() {
            return &line[..at];
        }
        before = c;
    }
    line
}

/// The name and the value of an option: `--name=value`, `--name value`, `-nvalue`, `-n value`.
fn option(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let (name, value) = match word.split_once('=') {
        Some((name, value)) if name.starts_with("--") => (name, value),
        _ if !word.starts_with("--") && word.len() > 2 && word.is_char_boundary(2) => word.split_at(2),
        _ => (word, rest),
    };
    (name, value.trim().trim_matches(['"', '\'']))
}

impl Requirements {
    /// Takes a line; gives the path of a file that it includes.
    fn take(&mut self, line: &Line, environment: &Environment) -> Result<Option<String>, LangError> {
        if let Some((_, variable)) = line.text.split_once("${") {
            let name = variable.split('}').next().unwrap_or_default();
            let message =
                format!("`${{{name}}}` is a variable of the machine, and what is locked is the same everywhere");
            return Err(line.error(message, "write its value, or leave the line to pip's own configuration"));
        }
        if line.text.starts_with('-') {
            return self.take_option(line);
        }
        let at = line.text.find(" -").unwrap_or(line.text.len());
        let (wanted, options) = line.text.split_at(at);
        let wanted = wanted.trim();
        if is_path(wanted) {
            return self.take_own(wanted, line).map(|()| None);
        }
        let (name, version, holds) = pinned(wanted, line, environment)?;
        let hashes = hashes(options, line)?;
        if holds {
            self.require(name, version, hashes, line)?;
        }
        Ok(None)
    }

    fn take_option(&mut self, line: &Line) -> Result<Option<String>, LangError> {
        let (name, value) = option(&line.text);
        match name {
            "-r" | "--requirement" | "--requirements" if value.contains("://") => Err(line.error(
                "a file of requirements on another machine is not read",
                "put it into the source, and include it from there",
            )),
            "-r" | "--requirement" | "--requirements" => Ok(Some(value.to_owned())),
            "-c" | "--constraint" | "--constraints" => Err(line.error(
                "constraints are not followed",
                format!("{COMPILE}: every line is pinned then, and nothing is left to constrain"),
            )),
            "-e" | "--editable" => self.take_own(value, line).map(|()| None),
            // The machine's own configuration is asked first; of which index a file is makes no difference to its hash.
            "-i" | "--index-url" | "--extra-index-url" => {
                if !self.indexes.iter().any(|known| known == value) {
                    self.indexes.push(value.to_owned());
                }
                Ok(None)
            }
            "--require-hashes" | "--only-binary" | "--prefer-binary" | "--pre" | "--trusted-host" | "--use-feature" => {
                Ok(None)
            }
            "--no-binary" => Err(line.error(
                format!("`{name}` does not say what `{value}` is built with"),
                format!("leave it out, and write `build = {{ \"{value}\" = [\"deb:python3-setuptools\"] }}` with what it is built with"),
            )),
            "-f" | "--find-links" | "--no-index" => Err(line.error(
                format!("`{name}` says where files are, which is for the machine's own configuration to say"),
                "leave it out, and set `PIP_FIND_LINKS` or `find-links` in `pip.conf`",
            )),
            name => Err(line.error(format!("the option `{name}` is not known"), "leave it out")),
        }
    }

    /// A directory of the source whose project is installed.
    fn take_own(&mut self, path: &str, line: &Line) -> Result<(), LangError> {
        let path = path.split(['[', ';']).next().unwrap_or_default().trim();
        let dir = within_source("", path);
        if path.contains("://") || path.ends_with(".whl") || path.ends_with(".gz") || is_outside(&dir) {
            let message = format!("`{path}` is not a directory of the source");
            return Err(line.error(
                message,
                "depend on a version of an index, or make its directory part of the source",
            ));
        }
        let dir = if dir.is_empty() { ".".to_owned() } else { dir };
        if !self.own.contains(&dir) {
            self.own.push(dir);
        }
        Ok(())
    }

    /// Two lines of one project must agree, as for pip: what both allow is allowed.
    fn require(
        &mut self,
        name: String,
        version: String,
        hashes: BTreeSet<FileHash>,
        line: &Line,
    ) -> Result<(), LangError> {
        let place = line.place.clone();
        let Some(known) = self.projects.get_mut(&name) else {
            let requirement = Requirement { version, hashes, place };
            self.projects.insert(name, requirement);
            return Ok(());
        };
        let shared: BTreeSet<FileHash> = known.hashes.intersection(&hashes).copied().collect();
        let message = match Version::parse(&known.version) == Version::parse(&version) {
            true if !shared.is_empty() => {
                known.hashes = shared;
                return Ok(());
            }
            true => format!("`{name}` has other hashes here than at {}", known.place),
            false => format!(
                "`{name}` is version {version} here and {} at {}",
                known.version, known.place
            ),
        };
        Err(line.error(message, "keep one of the two lines"))
    }
}

/// Whether a path leads out of the source.
fn is_outside(path: &str) -> bool {
    path.starts_with('/') || path.split('/').any(|part| part == "..")
}

/// Whether a requirement names a directory or a file rather than a project.
fn is_path(wanted: &str) -> bool {
    let name = wanted.split([';', '@', ' ']).next().unwrap_or_default();
    name.starts_with('.') || name.contains('/')
}

/// The project and the one version of `NAME[EXTRAS] == VERSION ; MARKER`, and whether it holds.
fn pinned(wanted: &str, line: &Line, environment: &Environment) -> Result<(String, String, bool), LangError> {
    let (wanted, marker) = match wanted.split_once(';') {
        Some((wanted, marker)) => (wanted.trim(), Some(marker.trim())),
        None => (wanted, None),
    };
    let end = wanted.find(|c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c));
    let (name, rest) = wanted.split_at(end.unwrap_or(wanted.len()));
    let rest = match rest.trim_start().strip_prefix('[') {
        Some(extras) => extras.split_once(']').map_or("", |(_, rest)| rest),
        None => rest,
    };
    let rest = rest.trim();
    let name_is_one = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !name_is_one || wanted.contains("://") || rest.starts_with('@') {
        let message = format!("`{}` is not a project and its version", wanted.escape_debug());
        let help = "a dependency must be from an index: `NAME==VERSION --hash=sha256:…`";
        return Err(line.error(message, help));
    }
    let clause = rest.trim_start_matches('(').trim_end_matches(')').trim();
    let version = clause.strip_prefix("===").or_else(|| clause.strip_prefix("=="));
    let version = version.map(str::trim).filter(|text| Version::parse(text).is_some());
    let Some(version) = version else {
        return Err(line.error(format!("`{wanted}` is not pinned to one version"), COMPILE));
    };
    let holds = marker.is_none_or(str::is_empty) || {
        let marker = marker.unwrap_or_default();
        let unclear = |reason| {
            let message = format!("the marker `{marker}` cannot be understood: {reason}");
            line.error(message, COMPILE)
        };
        marker::holds(marker, environment).map_err(unclear)?
    };
    Ok((normal_python_name(name), version.to_owned(), holds))
}

/// The hashes among the options of a requirement.
fn hashes(options: &str, line: &Line) -> Result<BTreeSet<FileHash>, LangError> {
    let (mut hashes, mut others) = (BTreeSet::new(), Vec::new());
    let mut words = options.split_whitespace();
    while let Some(word) = words.next() {
        let value = match word.strip_prefix("--hash") {
            Some("") => words.next().unwrap_or_default(),
            Some(value) => value.strip_prefix('=').unwrap_or(value),
            None => {
                let message = format!("`{word}` is not followed");
                let help = "leave it out; `build` in the spec says what a source distribution is built with";
                return Err(line.error(message, help));
            }
        };
        let value = value.trim_matches(['"', '\'']);
        let (algorithm, hex) = value.split_once(':').unwrap_or((value, ""));
        match FileHash::from_hex(algorithm, &hex.to_ascii_lowercase()).filter(|hash| hash.content().is_some()) {
            Some(hash) => {
                hashes.insert(hash);
            }
            None if ["sha384", "sha224", "sha1", "md5"].contains(&algorithm) => others.push(algorithm.to_owned()),
            None => return Err(line.error(format!("`{value}` is not a hash"), COMPILE)),
        }
    }
    match (hashes.is_empty(), others.is_empty()) {
        (false, _) => Ok(hashes),
        (true, true) => Err(line.error("it has no hash", COMPILE)),
        (true, false) => {
            let message = format!("it has neither a SHA-256 nor a SHA-512 (but `{}`)", others.join("`, `"));
            Err(line.error(message, COMPILE))
        }
    }
}
