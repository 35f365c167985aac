//! A *starter* is the first spec of a directory: written by rules that look at the names of the files in it.
//!
//! Invariant: its text is a valid spec, and where something was recognised, one that builds once the named Debian
//! packages are enough for the program. Nothing is run, and no file that exists is touched.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::fsio::{self, PathError};
use crate::lang::{self, NodeSurvey, ProjectSurvey, SourceTree};

use super::files::SPEC_NAME;
use super::git_ignore;
use super::image::archive_name;
use super::roots::image_name;

mod go;
mod native;
mod node;
mod python;
mod rust;

/// Largest file that is looked into.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Largest lock file that is looked into.
const LOCK_BYTES_MAX: u64 = 64 << 20;

/// What a directory holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detected {
    /// Nothing: it gets a program in C.
    Nothing,
    /// C files and nothing that says how they are built.
    C {
        /// They, sorted; the first names the program if it is the only one.
        files: Vec<String>,
        /// Whether one of them is C++.
        cpp: bool,
    },
    /// `configure`.
    Configure,
    /// `configure.ac`, from which `configure` is made.
    Autotools,
    /// `CMakeLists.txt`.
    CMake,
    /// `meson.build`.
    Meson,
    /// A Makefile.
    Make {
        /// Whether it has a target `install`.
        installs: bool,
    },
    /// A Python project with a lock file that names its wheels.
    PythonLocked {
        /// The lock file.
        lock: &'static str,
        /// What is run.
        command: Vec<String>,
    },
    /// A Python program.
    Python {
        /// The file that is run.
        file: String,
    },
    /// `Cargo.toml`.
    Rust(ProjectSurvey),
    /// `go.mod` or `go.work`.
    Go(ProjectSurvey),
    /// A Node project with a lock file that names its packages.
    Node(NodeSurvey),
    /// Files of which nothing is known.
    Other,
}

/// The first files of a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Starter {
    /// What the package and the image are called.
    pub name: String,
    /// What the directory holds.
    pub found: Detected,
}

impl Starter {
    /// Looks at a directory; `name` is what the user wants it to be called.
    pub fn of(dir: &Path, name: Option<&str>) -> Result<Self, PathError> {
        let found = look(dir)?;
        let of_dir = || dir.file_name().and_then(|name| image_name(&name.to_string_lossy()));
        let name = match (name, &found) {
            (Some(name), _) => name.to_owned(),
            (None, Detected::Nothing) => of_dir().unwrap_or_else(|| "hello".to_owned()),
            (None, _) => of_dir().unwrap_or_else(|| "app".to_owned()),
        };
        Ok(Self { name, found })
    }

    /// The files that are missing, with their texts; the spec is the first.
    pub fn files(&self, dir: &Path) -> Result<Vec<(PathBuf, String)>, PathError> {
        let mut files = vec![(dir.join(SPEC_NAME), self.spec())];
        if self.found == Detected::Nothing {
            files.push((dir.join("hello.c"), native::HELLO.to_owned()));
        }
        let ignore = dir.join(git_ignore::IGNORE_NAME);
        let before = git_ignore::read(&ignore)?;
        if let Some(text) = git_ignore::with_lines(&before, &self.ignored(dir, &before)?) {
            files.push((ignore, text));
        }
        Ok(files)
    }

    /// What git is to leave alone, and so no part of the source: the archives of all images that the spec will have, or, where
    /// archives are part of the project, that of the first one; and what the language's own tools make in the project.
    fn ignored(&self, dir: &Path, before: &str) -> Result<Vec<String>, PathError> {
        let names = fsio::sorted_names(dir)?;
        let is_archive = |name: &std::ffi::OsString| Path::new(name).extension().is_some_and(|end| end == "tar");
        let archives = match names.iter().any(is_archive) {
            true => format!("/{}", archive_name(&self.name)),
            false => format!("/{}", archive_name("*")),
        };
        let made: &[&str] = match &self.found {
            Detected::Rust(_) => &["/target/"],
            Detected::PythonLocked { .. } => &["__pycache__/", "/.venv/"],
            Detected::Node(_) => &["node_modules/"],
            _ => &[],
        };
        let is_said = |wanted: &str| {
            let mut lines = before.lines().map(|line| line.trim().trim_matches('/'));
            lines.any(|line| line == wanted.trim_matches('/'))
        };
        let made = made.iter().filter(|wanted| !is_said(wanted));
        Ok([archives]
            .into_iter()
            .chain(made.map(|line| (*line).to_owned()))
            .collect())
    }

    /// The spec's text.
    pub fn spec(&self) -> String {
        let name = &self.name;
        let head = format!(
            "# {name}: what is built, and the image of it. `layerize help spec` explains every key.\n#\n\
             #   layerize build          builds the image and writes {archive}\n\
             #   layerize load           gives it to Docker or podman\n",
            archive = archive_name(name)
        );
        let run = format!("#   layerize run {name}    runs the program on this machine\n");
        let rest = match &self.found {
            Detected::Python { file } => return format!("{head}\n{}", python::program(name, file)),
            Detected::PythonLocked { lock, command } => {
                return format!("{head}\n{}", python::locked(name, lock, command));
            }
            Detected::Node(found) => node::spec(name, found),
            Detected::Rust(found) => format!("{}\n{}", rust::package(name, found), self.image()),
            Detected::Go(found) => format!("{}\n{}", go::package(name, found), self.image()),
            found => format!("{}\n{}", native::package(name, found), self.image()),
        };
        format!("{head}{run}\n{rest}")
    }

    fn image(&self) -> String {
        let name = &self.name;
        let program = match &self.found {
            Detected::Rust(found) | Detected::Go(found) => found.programs.first().unwrap_or(name),
            _ => name,
        };
        let others = match &self.found {
            Detected::Rust(found) | Detected::Go(found) if found.programs.len() > 1 => {
                format!("# The others: {}.\n", found.programs[1..].join(", "))
            }
            _ => String::new(),
        };
        format!(
            "[image.{name}]\n\
             # The package with all that it needs at run time, and nothing else: no shell, no package manager.\n\
             contents = [\"{name}\"]\n\
             {others}entrypoint = [\"{program}\"]\n{MORE}"
        )
    }
}

/// Keys that most images come to need.
const MORE: &str = "# cmd = [\"--help\"]\n# env = { LANG = \"C.UTF-8\" }\n# ports = [8080]\n\
                    # users = { app = 1000 }\n# user = \"app\"\n# root = [\"deb:ca-certificates\"]\n";

/// A package that a compiler makes of a lock file: `language` is the key of the spec, and what is said of it.
fn compiled(name: &str, language: &str, found: &ProjectSurvey) -> String {
    let libraries = match found.libraries.as_slice() {
        [] => {
            "# A library of the system that something links with: libraries = [\"deb:libc6-dev\", \"deb:libssl-dev\"]\n"
                .to_owned()
        }
        wanted => {
            let wanted = ["libc6-dev"].iter().chain(wanted).map(|deb| format!("\"deb:{deb}\""));
            format!(
                "# Linked against: what the program really uses becomes part of the image.\nlibraries = [{}]\n",
                wanted.collect::<Vec<_>>().join(", ")
            )
        }
    };
    format!(
        "[package.{name}]\n\
         # What is here, without what .gitignore leaves out and what layerize itself writes.\n\
         source = {{ path = \".\" }}\n\
         {language}{libraries}"
    )
}

fn look(dir: &Path) -> Result<Detected, PathError> {
    let names = fsio::sorted_names(dir)?;
    let names: BTreeSet<String> = names.into_iter().filter_map(|name| name.into_string().ok()).collect();
    let has = |name: &str| names.contains(name);
    let with = |endings: &[&str]| -> Vec<String> {
        let is_one = |name: &&String| endings.iter().any(|ending| name.ends_with(ending));
        names.iter().filter(is_one).cloned().collect()
    };
    // With `pyproject.toml` it is a part of a package of Python's.
    if has("Cargo.toml") && !has("pyproject.toml") {
        return Ok(Detected::Rust(lang::survey_rust(&SourceTree::new(dir.to_owned()))));
    }
    if has("go.mod") || has("go.work") {
        return Ok(Detected::Go(lang::survey_go(&SourceTree::new(dir.to_owned()))));
    }
    if has("configure") {
        return Ok(Detected::Configure);
    }
    if has("configure.ac") || has("configure.in") {
        return Ok(Detected::Autotools);
    }
    if has("CMakeLists.txt") {
        return Ok(Detected::CMake);
    }
    if has("meson.build") {
        return Ok(Detected::Meson);
    }
    if let Some(makefile) = ["GNUmakefile", "makefile", "Makefile"]
        .into_iter()
        .find(|name| has(name))
    {
        let text = fsio::read_limited(&dir.join(makefile), FILE_BYTES_MAX)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let installs = text
            .lines()
            .any(|line| line.starts_with("install:") || line.starts_with("install "));
        return Ok(Detected::Make { installs });
    }
    let (c, cpp) = (with(&[".c"]), with(&[".cc", ".cpp", ".cxx"]));
    if !c.is_empty() || !cpp.is_empty() {
        let cpp_found = !cpp.is_empty();
        let files = c.into_iter().chain(cpp).collect();
        return Ok(Detected::C { files, cpp: cpp_found });
    }
    if let Some(lock) = python::lock_file(dir, &names)? {
        let command = python::command(dir, lock)?;
        return Ok(Detected::PythonLocked { lock, command });
    }
    if has("package.json") {
        let found = lang::survey_node(&SourceTree::new(dir.to_owned()));
        if found.has_lock {
            return Ok(Detected::Node(found));
        }
    }
    let python = with(&[".py"]);
    let main = ["main.py", "app.py", "__main__.py"].into_iter().find(|name| has(name));
    match (main, python.as_slice()) {
        (Some(main), _) => return Ok(Detected::Python { file: main.to_owned() }),
        (None, [only]) => return Ok(Detected::Python { file: only.clone() }),
        (None, _) => {}
    }
    // What every repository has says nothing of what is built.
    let tells = |name: &&String| {
        !name.starts_with('.')
            && !["README", "LICENSE", "COPYING", "CHANGELOG"]
                .iter()
                .any(|word| name.starts_with(word))
    };
    Ok(match names.iter().any(|name| tells(&name)) {
        true => Detected::Other,
        false => Detected::Nothing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// What `files` start.
    pub(super) fn starter(files: &[(&str, &str)]) -> (tempfile::TempDir, Starter) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let starter = Starter::of(dir.path(), Some("thing")).unwrap();
        (dir, starter)
    }

    #[test]
    fn what_is_there_decides_and_every_text_is_a_spec() {
        let c = |files: &[&str], cpp| Detected::C {
            files: files.iter().map(|&file| file.to_owned()).collect(),
            cpp,
        };
        let python = |file: &str| Detected::Python { file: file.to_owned() };
        let cases: Vec<(&[&str], Detected)> = vec![
            (&[], Detected::Nothing),
            (&["README.md", "LICENSE", ".git"], Detected::Nothing),
            (&["a.c"], c(&["a.c"], false)),
            (&["a.c", "b c.c", "a.h"], c(&["a.c", "b c.c"], false)),
            (&["a.c", "b.cpp"], c(&["a.c", "b.cpp"], true)),
            (&["configure", "Makefile", "a.c"], Detected::Configure),
            (&["configure.ac", "Makefile.am"], Detected::Autotools),
            (&["CMakeLists.txt", "Makefile"], Detected::CMake),
            (&["meson.build", "a.c"], Detected::Meson),
            (&["Makefile", "a.c"], Detected::Make { installs: false }),
            (&["one.py"], python("one.py")),
            (&["one.py", "requirements.txt"], python("one.py")),
            (&["main.py", "other.py"], python("main.py")),
            (&["one.py", "two.py"], Detected::Other),
            (
                &["Cargo.toml", "src", "Makefile"],
                Detected::Rust(ProjectSurvey::default()),
            ),
            (&["Cargo.toml", "pyproject.toml"], Detected::Other),
            (
                &["go.mod", "go.sum", "Makefile"],
                Detected::Go(ProjectSurvey::default()),
            ),
            (&["go.work", "a.c"], Detected::Go(ProjectSurvey::default())),
        ];
        for (names, found) in cases {
            let files: Vec<(&str, &str)> = names.iter().map(|&name| (name, "")).collect();
            let (_dir, starter) = starter(&files);
            assert_eq!(starter.found, found, "{names:?}");
            let workspace =
                crate::spec::parse(&starter.spec()).unwrap_or_else(|error| panic!("{}", error.render(false)));
            assert_eq!(workspace.images.keys().collect::<Vec<_>>(), ["thing"], "{names:?}");
        }
        let (_dir, installing) = starter(&[("Makefile", "all:\n\tcc a.c\ninstall: all\n\tcp a $(PREFIX)\n")]);
        assert_eq!(installing.found, Detected::Make { installs: true });
        assert!(
            installing.spec().contains("make install PREFIX=$out"),
            "{}",
            installing.spec()
        );
    }

    #[test]
    fn what_a_language_s_tools_make_is_left_alone() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path();
        fs::write(dir.join("Cargo.toml"), "[package]\nname = \"x\"\nversion = \"1.0.0\"\n").unwrap();
        fs::write(dir.join("Cargo.lock"), "version = 4\n").unwrap();
        fs::create_dir(dir.join("src")).unwrap();
        fs::write(dir.join("src/main.rs"), "fn main() {}").unwrap();
        for (before, expected) in [("", "/*.tar\n/target/\n"), ("/target\n", "/target\n/*.tar\n")] {
            fs::write(dir.join(".gitignore"), before).unwrap();
            let files = Starter::of(dir, None).unwrap().files(dir).unwrap();
            assert_eq!(files.last().unwrap().1, expected, "{before}");
        }
    }

    #[test]
    fn a_directory_names_the_image_and_files_that_exist_stay() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("My App 2");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(".gitignore"), "target").unwrap();
        let starter = Starter::of(&dir, None).unwrap();
        assert_eq!(starter.name, "my-app-2");
        let files = starter.files(&dir).unwrap();
        let names: Vec<_> = files
            .iter()
            .map(|(path, _)| path.file_name().unwrap().to_str().unwrap())
            .collect();
        assert_eq!(names, ["layerize.toml", "hello.c", ".gitignore"]);
        assert_eq!(files[2].1, "target\n/*.tar\n");
        for (path, text) in &files {
            fs::write(path, text).unwrap();
        }
        let again = Starter::of(&dir, None).unwrap();
        assert_eq!(again.files(&dir).unwrap().len(), 1, "archives are ignored already");
        // Archives that are the project's own stay part of it.
        fs::write(dir.join("data.tar"), "").unwrap();
        let files = again.files(&dir).unwrap();
        assert_eq!(files[1].1, "target\n/*.tar\n/my-app-2.tar\n");
    }
}
