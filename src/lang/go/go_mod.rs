//! A *go.mod* or *go.work*: the directives that say which modules there are (Go Modules Reference, "go.mod files",
//! "Workspaces").
//!
//! Invariant: paths and versions that come back are fit to be part of a path; directives that change nothing about which of
//! the pinned modules are taken (`exclude`, `retract`, `tool`, …) are read over.

use crate::lang::LangError;

/// What a `go.mod` or `go.work` says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct GoFile {
    /// `module`: the module's own path.
    pub(super) module: Option<String>,
    /// `go`: the oldest Go that it is for.
    pub(super) go: Option<GoVersion>,
    /// `require`: what is needed, in the order of the file.
    pub(super) require: Vec<Module>,
    /// `replace`: what is taken for something else.
    pub(super) replace: Vec<Replacement>,
    /// `use`: directories of the modules of a workspace.
    pub(super) uses: Vec<String>,
}

/// A version of a module.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Module {
    pub(super) path: String,
    pub(super) version: String,
}

/// `replace OLD [VERSION] => NEW`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Replacement {
    pub(super) path: String,
    /// The only version that is replaced; `None`: all.
    pub(super) version: Option<String>,
    pub(super) by: ReplacedBy,
    /// Its line in the file.
    pub(super) line: usize,
}

/// What a module is replaced by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ReplacedBy {
    Module(Module),
    /// A directory, relative to that of the file.
    Directory(String),
}

/// A release of Go: `1.19`, `1.21.3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct GoVersion {
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) patch: u32,
}

impl GoVersion {
    /// The release in the beginning of a text; what is before a release (`1.22rc1`) counts as it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let numbers = text.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
        let mut parts = numbers.trim_end_matches('.').split('.');
        let mut part = || parts.next().map(|number| number.parse::<u32>().ok());
        let (major, minor, patch) = (part()??, part().unwrap_or(Some(0))?, part().unwrap_or(Some(0))?);
        Some(Self { major, minor, patch })
    }

    /// What its archive is called by: since 1.21 the first of a line has a third number too.
    pub(super) fn release(self) -> String {
        let Self { major, minor, patch } = self;
        match patch == 0 && (major, minor) < (1, 21) {
            true => format!("{major}.{minor}"),
            false => format!("{major}.{minor}.{patch}"),
        }
    }

    /// The first of a line of releases.
    pub(super) fn new(major: u32, minor: u32) -> Self {
        Self { major, minor, patch: 0 }
    }
}

impl std::fmt::Display for GoVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        if self.patch > 0 {
            write!(f, ".{}", self.patch)?;
        }
        Ok(())
    }
}

impl GoFile {
    /// Reads the text of `file`.
    pub(super) fn parse(text: &str, file: &str) -> Result<Self, LangError> {
        let mut found = Self::default();
        let mut block: Option<String> = None;
        for (index, line) in text.lines().enumerate() {
            let place = Place { file, line: index + 1 };
            let words = place.words(line)?;
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            match (block.as_deref(), words.as_slice()) {
                (_, []) => {}
                (Some(_), [")"]) => block = None,
                (Some(verb), words) => found.take(verb, words, &place)?,
                (None, [verb, "("]) => block = Some((*verb).to_owned()),
                (None, [verb, "(", ")"]) if !verb.is_empty() => {}
                (None, [verb, words @ ..]) => found.take(verb, words, &place)?,
            }
        }
        match block {
            Some(verb) => Err(LangError::at(
                format!("`{file}`"),
                format!("the block of `{verb}` does not end"),
                "close it by a line with `)`",
            )),
            None => Ok(found),
        }
    }

    fn take(&mut self, verb: &str, words: &[&str], place: &Place<'_>) -> Result<(), LangError> {
        match (verb, words) {
            ("module", [path]) => self.module = Some(place.path(path)?),
            ("go", [version]) => {
                let version = GoVersion::parse(version);
                self.go = Some(version.ok_or_else(|| place.wrong("`go` names no release of Go"))?);
            }
            ("require", [path, version]) => self.require.push(place.module(path, version)?),
            ("use", [dir]) => self.uses.push((*dir).to_owned()),
            ("replace", words) => self.replace.push(place.replacement(words)?),
            ("module" | "go" | "require" | "use", _) => {
                return Err(place.wrong(format!("`{verb}` is not followed by what it needs")));
            }
            _ => {}
        }
        Ok(())
    }

    /// What is taken for a module.
    pub(super) fn replacement(&self, module: &Module) -> Option<&Replacement> {
        let of = |version: Option<&str>| {
            let mut all = self.replace.iter();
            all.find(|replace| replace.path == module.path && replace.version.as_deref() == version)
        };
        of(Some(&module.version)).or_else(|| of(None))
    }
}

/// A line of a file.
struct Place<'a> {
    file: &'a str,
    line: usize,
}

impl Place<'_> {
    fn wrong(&self, message: impl Into<String>) -> LangError {
        let help = "`go mod tidy` writes it as Go wants it";
        LangError::at(format!("`{}`, line {}", self.file, self.line), message, help)
    }

    /// The words of a line, without its comment; strings in quotes are words.
    fn words(&self, line: &str) -> Result<Vec<String>, LangError> {
        let mut words = Vec::new();
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next().filter(|_| !rest.starts_with("//")) {
            let (word, after) = match first {
                '"' | '`' => {
                    let end = rest[1..].find(first).filter(|end| !rest[1..=*end].contains('\\'));
                    let end = end.ok_or_else(|| self.wrong("a string in it cannot be read"))?;
                    (&rest[1..=end], &rest[end + 2..])
                }
                '(' | ')' => rest.split_at(1),
                _ => {
                    let ends = |c: char| c.is_whitespace() || "()".contains(c);
                    let end = rest.find(ends).unwrap_or(rest.len());
                    let end = rest.find("//").map_or(end, |comment| comment.min(end));
                    rest.split_at(end)
                }
            };
            words.push(word.to_owned());
            rest = after.trim_start();
        }
        Ok(words)
    }

    fn path(&self, path: &str) -> Result<String, LangError> {
        match is_module_path(path) {
            true => Ok(path.to_owned()),
            false => Err(self.wrong(format!("`{}` is no path of a module", path.escape_debug()))),
        }
    }

    fn version(&self, version: &str) -> Result<String, LangError> {
        match is_version(version) {
            true => Ok(version.to_owned()),
            false => Err(self.wrong(format!("`{}` is no version of a module", version.escape_debug()))),
        }
    }

    fn module(&self, path: &str, version: &str) -> Result<Module, LangError> {
        Ok(Module {
            path: self.path(path)?,
            version: self.version(version)?,
        })
    }

    fn replacement(&self, words: &[&str]) -> Result<Replacement, LangError> {
        let (path, version, by) = match words {
            [path, "=>", by @ ..] => (path, None, by),
            [path, version, "=>", by @ ..] => (path, Some(self.version(version)?), by),
            _ => return Err(self.wrong("`replace` has no `=>`")),
        };
        let by = match by {
            [dir] if dir.starts_with("./") || dir.starts_with("../") || [".", ".."].contains(dir) => {
                ReplacedBy::Directory((*dir).to_owned())
            }
            [dir] if dir.starts_with('/') => ReplacedBy::Directory((*dir).to_owned()),
            [path, version] => ReplacedBy::Module(self.module(path, version)?),
            _ => return Err(self.wrong("`replace` names neither a directory (`./…`) nor a module with its version")),
        };
        Ok(Replacement {
            path: self.path(path)?,
            version,
            by,
            line: self.line,
        })
    }
}

/// Whether a text may be a module's path (golang.org/x/mod/module, `CheckImportPath`).
pub(super) fn is_module_path(path: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~+".contains(c);
    let is_part = |part: &str| !part.is_empty() && !part.ends_with('.') && part != ".." && part.chars().all(plain);
    path.split('/').all(is_part) && !path.starts_with(['-', '.'])
}

/// Whether a text may be a module's version, as Go writes it.
pub(super) fn is_version(version: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-.+".contains(c);
    let number = version
        .strip_prefix('v')
        .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    number && version.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(path: &str, version: &str) -> Module {
        Module {
            path: path.to_owned(),
            version: version.to_owned(),
        }
    }

    #[test]
    fn directives_are_read_in_lines_and_in_blocks() {
        let text = "// A service.\nmodule \"example.com/M\" // own\n\ngo 1.21.3\ntoolchain go1.22.0\n\
                    require golang.org/x/text v0.3.0\nrequire (\n\t\"a.b/c\" v1.0.0-20200101000000-abcdefabcdef // indirect\n\
                    \td.e/f/v2 v2.0.1+incompatible//x\n)\nexclude a.b/c v0.9.0\nretract (\n [v1.0.0, v1.1.0]\n)\n\
                    replace a.b/c v1.0.0 => ./own/c\nreplace (\n x.y/z => x.y/fork v1.2.3\n)\ntool x.y/z/cmd\nignore ./node_modules\n";
        let file = GoFile::parse(text, "go.mod").unwrap();
        assert_eq!(file.module.as_deref(), Some("example.com/M"));
        assert_eq!(file.go.map(|go| go.to_string()).as_deref(), Some("1.21.3"));
        assert_eq!(
            file.require,
            [
                module("golang.org/x/text", "v0.3.0"),
                module("a.b/c", "v1.0.0-20200101000000-abcdefabcdef"),
                module("d.e/f/v2", "v2.0.1+incompatible"),
            ]
        );
        let by = |path: &str, version: &str| file.replacement(&module(path, version)).map(|of| of.by.clone());
        assert_eq!(by("a.b/c", "v1.0.0"), Some(ReplacedBy::Directory("./own/c".to_owned())));
        assert_eq!(by("a.b/c", "v1.0.1"), None);
        assert_eq!(
            by("x.y/z", "v9.0.0"),
            Some(ReplacedBy::Module(module("x.y/fork", "v1.2.3")))
        );
        let work = GoFile::parse("go 1.20\nuse .\nuse (\n ./a\n \"./b c\"\n)\n", "go.work").unwrap();
        assert_eq!(work.uses, [".", "./a", "./b c"]);
    }

    #[test]
    fn what_cannot_be_meant_is_told_with_its_line() {
        for (text, said) in [
            ("module a b\n", "`module` is not followed by what it needs"),
            ("module ../x\n", "no path of a module"),
            ("\nrequire a.b/../c v1.0.0\n", "no path of a module"),
            ("require a.b/c latest\n", "`latest` is no version"),
            ("require a.b/c v1/../../x\n", "is no version"),
            ("require \"a.b/c v1.0.0\n", "a string in it cannot be read"),
            ("replace a.b/c v1.0.0\n", "has no `=>`"),
            ("replace a.b/c => d.e/f\n", "neither a directory"),
            ("go latest\n", "no release of Go"),
            ("require (\n", "does not end"),
        ] {
            let error = GoFile::parse(text, "go.mod").unwrap_err();
            assert!(error.to_string().contains(said), "{text}: {error}");
        }
    }
}
