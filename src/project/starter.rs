//! A *starter* is the first spec of a directory: written by rules that look at the names of the files in it.
//!
//! Invariant: its text is a valid spec, and where something was recognised, one that builds once the named Debian
//! packages are enough for the program. Nothing is run, and no file that exists is touched.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::fsio::{self, PathError};
use crate::lang::{self, NodeSurvey, ProjectSurvey, SourceTree};

use super::files::SPEC_NAME;
use super::image::archive_name;
use super::roots::image_name;

/// Largest file that is looked into.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Largest lock file that is looked into.
const LOCK_BYTES_MAX: u64 = 64 << 20;

/// The program that an empty directory gets.
const HELLO: &str = "#include <stdio.h>\n\nint main(void) {\n    puts(\"Hello from layerize.\");\n    return 0;\n}\n";

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
            files.push((dir.join("hello.c"), HELLO.to_owned()));
        }
        let ignore = dir.join(".gitignore");
        let before = match ignore.exists() {
            true => String::from_utf8_lossy(&fsio::read_limited(&ignore, FILE_BYTES_MAX)?).into_owned(),
            false => String::new(),
        };
        let line = format!("/{}", archive_name(&self.name));
        if !before.lines().any(|known| known.trim() == line) {
            let end = if before.is_empty() || before.ends_with('\n') {
                ""
            } else {
                "\n"
            };
            files.push((ignore, format!("{before}{end}{line}\n")));
        }
        Ok(files)
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
        match &self.found {
            Detected::Python { file } => format!("{head}\n{}", python(name, file)),
            Detected::PythonLocked { lock, command } => format!("{head}\n{}", python_locked(name, lock, command)),
            Detected::Rust(found) => format!("{head}{run}\n{}\n{}", compiled(name, RUST, found), self.image()),
            Detected::Go(found) => format!("{head}{run}\n{}\n{}", compiled(name, GO, found), self.image()),
            Detected::Node(found) => format!("{head}{run}\n{}", node(name, found)),
            _ => format!("{head}{run}\n{}\n{}", self.package(), self.image()),
        }
    }

    fn package(&self) -> String {
        let (tools, script) = self.recipe();
        let tools: Vec<String> = tools.iter().map(|tool| format!("\"deb:{tool}\"")).collect();
        let unknown = match self.found {
            Detected::Other => "# Nothing here says how it is built: write the script, and name its tools.\n",
            _ => "",
        };
        format!(
            "{unknown}[package.{name}]\n\
             # What is here, without what .gitignore leaves out and what layerize itself writes.\n\
             source = {{ path = \".\" }}\n\
             # Needed by the build only: Debian packages.\n\
             tools = [{tools}]\n\
             # Linked against: what the program really uses becomes part of the image.\n\
             libraries = [\"deb:libc6-dev\"]\n\
             # Run in a sandbox without network, in a copy of the source. What is below $out is kept.\n\
             script = \"\"\"\n{script}\"\"\"\n",
            name = self.name,
            tools = tools.join(", "),
        )
    }

    /// The Debian packages that are needed, and the script.
    fn recipe(&self) -> (Vec<&'static str>, String) {
        let name = &self.name;
        let of_c =
            |compiler: &str, files: &str| format!("mkdir -p $out/bin\n{compiler} -O2 -o $out/bin/{name} {files}\n");
        let make = "make -j$LAYERIZE_CORES\nmake install\n";
        match &self.found {
            Detected::Nothing => (vec!["gcc"], of_c("gcc", "hello.c")),
            Detected::C { files, cpp: false } => (vec!["gcc"], of_c("gcc", &quoted(files))),
            Detected::C { files, cpp: true } => (vec!["g++"], of_c("g++", &quoted(files))),
            Detected::Configure => (vec!["gcc", "make"], format!("./configure --prefix=$out\n{make}")),
            Detected::Autotools => (
                vec!["autoconf", "automake", "libtool", "pkgconf", "gcc", "make"],
                format!("autoreconf --install\n./configure --prefix=$out\n{make}"),
            ),
            Detected::CMake => (
                vec!["cmake", "g++", "make"],
                "cmake -B build -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX=$out\n\
                 cmake --build build -j$LAYERIZE_CORES\ncmake --install build\n"
                    .to_owned(),
            ),
            Detected::Meson => (
                vec!["meson", "ninja-build", "g++", "pkgconf"],
                "meson setup build --prefix=$out --buildtype=release\nninja -C build -j$LAYERIZE_CORES\n\
                 ninja -C build install\n"
                    .to_owned(),
            ),
            Detected::Make { installs: true } => (
                vec!["gcc", "make"],
                "make -j$LAYERIZE_CORES\nmake install PREFIX=$out prefix=$out\n".to_owned(),
            ),
            Detected::Make { installs: false } => (
                vec!["gcc", "make"],
                format!(
                    "make -j$LAYERIZE_CORES\n# The Makefile has no target `install`: the program is put where it \
                     belongs here.\nmkdir -p $out/bin\ncp {name} $out/bin/\n"
                ),
            ),
            Detected::Python { .. }
            | Detected::PythonLocked { .. }
            | Detected::Rust(_)
            | Detected::Go(_)
            | Detected::Node(_)
            | Detected::Other => (
                vec![],
                format!("mkdir -p $out/bin\necho 'write how {name} is built' >&2\nexit 1\n"),
            ),
        }
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

fn python(name: &str, file: &str) -> String {
    format!(
        "[image.{name}]\n\
         # Debian packages laid out at /, with what they depend on, what their maintainer scripts make, and nothing\n\
         # else.\n\
         root = [\"deb:python3\"]\n\
         entrypoint = [\"/usr/bin/python3\", \"/app/{file}\"]\n\
         # cmd = [\"--help\"]\n# ports = [8080]\n# users = {{ app = 1000 }}\n# user = \"app\"\n\n\
         [image.{name}.files]\n\
         \"/app/{file}\" = \"{file}\"\n"
    )
}

/// What is built of a lock file, and by what.
const RUST: &str = "# The crates of Cargo.lock, a compiler of Debian's, and `cargo build`: `layerize help languages` says more.\n\
                    rust = {}\n";
const GO: &str =
    "# The modules of go.sum, Debian's Go, and `go build`: `layerize help languages` says more.\ngo = {}\n";

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

fn node(name: &str, found: &NodeSurvey) -> String {
    let build = match found.builds {
        true => "{ build = \"build\" }",
        false => "{}",
    };
    // What starts it has the package's own name.
    let program = match found.programs.first().filter(|_| !found.starts) {
        Some(first) => first,
        None => name,
    };
    let others: Vec<&str> = found
        .programs
        .iter()
        .map(String::as_str)
        .filter(|other| *other != program)
        .collect();
    let others = match others.as_slice() {
        [] => String::new(),
        others => format!("# Its other programs: {}.\n", others.join(", ")),
    };
    format!(
        "[package.{name}]\n\
         # What is here, without what .gitignore leaves out and what layerize itself writes.\n\
         source = {{ path = \".\" }}\n\
         # The packages that the lock file pins, laid out as npm lays them: `layerize help languages` says more.\n\
         node = {build}\n\n\
         [image.{name}]\n\
         # Node, and nothing of npm.\n\
         root = [\"deb:nodejs\"]\n\
         # Real files in a directory of the image: of the layers only those move whose packages changed.\n\
         lay = {{ \"/app\" = \"{name}\" }}\n\
         {others}entrypoint = [\"{program}\"]\n\
         env = {{ NODE_ENV = \"production\" }}\n\
         # cmd = [\"--help\"]\n# ports = [3000]\n# users = {{ app = 1000 }}\n# user = \"app\"\n"
    )
}

fn python_locked(name: &str, lock: &str, command: &[String]) -> String {
    // The servers that are recognised listen there by themselves.
    let ports = match command.first().map(String::as_str) {
        Some("uvicorn" | "gunicorn") => "ports = [8000]\n",
        _ => "# ports = [8000]\n",
    };
    let command: Vec<String> = command.iter().map(|word| format!("\"{word}\"")).collect();
    let command = command.join(", ");
    format!(
        "[package.{name}]\n\
         # What is here, without what .gitignore leaves out and what layerize itself writes.\n\
         source = {{ path = \".\" }}\n\
         # The wheels that the lock file pins, each a store path of its own, and the modules of the source.\n\
         python = {{ lock = \"{lock}\" }}\n\n\
         [image.{name}]\n\
         # The interpreter, and the library of C++ that many wheels need.\n\
         root = [\"deb:python3\", \"deb:libstdc++6\"]\n\
         contents = [\"{name}\"]\n\
         entrypoint = [{command}]\n\
         {ports}# cmd = [\"--help\"]\n# users = {{ app = 1000 }}\n# user = \"app\"\n"
    )
}

/// What a Python project runs: its own command, a server of the application that a module has, or a module.
fn python_command(dir: &Path, lock: &str) -> Result<Vec<String>, PathError> {
    let text = |path: &str| -> Result<String, PathError> {
        let path = dir.join(path);
        match path.is_file() {
            true => Ok(String::from_utf8_lossy(&fsio::read_limited(&path, FILE_BYTES_MAX)?).into_owned()),
            false => Ok(String::new()),
        }
    };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let plain = |word: &str| {
        let ends = |c: char| c.is_ascii_alphanumeric() || c == '_';
        word.starts_with(ends) && word.chars().all(|c| ends(c) || "-.".contains(c))
    };
    let manifest: toml::Table = toml::from_str(&text("pyproject.toml")?).unwrap_or_default();
    let project = manifest.get("project").and_then(toml::Value::as_table);
    let name = project.and_then(|project| project.get("name")?.as_str());
    let scripts = project.and_then(|project| project.get("scripts")?.as_table());
    let scripts: Vec<&str> = scripts
        .into_iter()
        .flat_map(|scripts| scripts.keys())
        .map(String::as_str)
        .collect();
    let own = scripts.iter().find(|script| Some(**script) == name).or(scripts.first());
    if let Some(own) = own.filter(|own| plain(own)) {
        return Ok(words(&[own]));
    }
    let locked = fsio::read_limited(&dir.join(lock), LOCK_BYTES_MAX)?;
    let locked = String::from_utf8_lossy(&locked);
    let required = |line: &str, name: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with("=="));
    let has =
        |name: &str| locked.contains(&format!("name = \"{name}\"")) || locked.lines().any(|line| required(line, name));
    let modules = [
        "main", "app", "app/main", "src/main", "src/app", "server", "wsgi", "asgi",
    ];
    for module in modules {
        let text = text(&format!("{module}.py"))?;
        let dotted = module.strip_prefix("src/").unwrap_or(module).replace('/', ".");
        let object = |class: &str| {
            let call = format!("= {class}(");
            text.lines()
                .find_map(|line| line.split_once(&call))
                .map(|(object, _)| object.trim().to_owned())
        };
        let is_asgi = object("FastAPI").or_else(|| object("Starlette"));
        if let Some(object) = is_asgi.filter(|object| has("uvicorn") && plain(object)) {
            return Ok(words(&["uvicorn", "--host", "0.0.0.0", &format!("{dotted}:{object}")]));
        }
        if let Some(object) = object("Flask").filter(|object| has("gunicorn") && plain(object)) {
            return Ok(words(&[
                "gunicorn",
                "--bind",
                "0.0.0.0:8000",
                &format!("{dotted}:{object}"),
            ]));
        }
        if !text.is_empty() {
            return Ok(words(&["python", "-m", &dotted]));
        }
    }
    let module = name
        .filter(|name| plain(name))
        .unwrap_or("app")
        .replace(['-', '.'], "_");
    Ok(words(&["python", "-m", &module]))
}

/// Names as words of a shell.
fn quoted(names: &[String]) -> String {
    let plain = |name: &String| {
        name.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._+-/".contains(&byte))
    };
    let word = |name: &String| match plain(name) && !name.starts_with('-') {
        true => name.clone(),
        false => format!("./'{}'", name.replace('\'', "'\\''")),
    };
    names.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// The lock file of a Python project; requirements without hashes are none.
fn python_lock(dir: &Path, names: &BTreeSet<String>) -> Result<Option<&'static str>, PathError> {
    let has = |name: &str| names.contains(name);
    if let Some(lock) = ["uv.lock", "pylock.toml"].into_iter().find(|name| has(name)) {
        return Ok(Some(lock));
    }
    let requirements = "requirements.txt";
    if !has(requirements) {
        return Ok(None);
    }
    let text = fsio::read_limited(&dir.join(requirements), LOCK_BYTES_MAX)?;
    Ok(String::from_utf8_lossy(&text)
        .contains("--hash")
        .then_some(requirements))
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
    if let Some(lock) = python_lock(dir, &names)? {
        let command = python_command(dir, lock)?;
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

    fn starter(files: &[(&str, &str)]) -> (tempfile::TempDir, Starter) {
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
    fn a_rust_project_starts_its_first_program() {
        let lock = "version = 4\n[[package]]\nname = \"openssl-sys\"\nversion = \"0.9.0\"\n\
                    source = \"registry+https://h.invalid/rust-lang/crates.io-index\"\n\
                    checksum = \"3bd1574e617a9a6c1f8f8181bd7e841e1f20e4277607ef28945765188d6284d4\"\n";
        let manifest = "[package]\nname = \"api\"\ndefault-run = \"serve\"\n[[bin]]\nname = \"serve\"\n\
                        path = \"serve.rs\"\n[[bin]]\nname = \"admin\"\npath = \"admin.rs\"\n";
        let (_dir, starter) = starter(&[("Cargo.toml", manifest), ("Cargo.lock", lock)]);
        let spec = starter.spec();
        for part in [
            "rust = {}",
            "\"deb:libc6-dev\", \"deb:libssl-dev\"",
            "# The others: admin.",
            "entrypoint = [\"serve\"]",
        ] {
            assert!(spec.contains(part), "{part}: {spec}");
        }
        crate::spec::parse(&spec).unwrap_or_else(|error| panic!("{}", error.render(false)));
    }

    #[test]
    fn a_go_project_starts_the_program_of_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let c = "package main\n\n// #cgo linux LDFLAGS: -lm -lsqlite3\n// #cgo pkg-config: zlib\nimport \"C\"\n";
        for (path, text) in [
            ("go.mod", "module a.b/api/v2\n"),
            ("cmd/admin/main.go", "package main\n"),
            ("cmd/api/main.go", c),
            ("examples/one/one.go", "package main\n"),
            ("gen.go", "//go:build ignore\n\npackage main\n"),
            ("api.go", "package api\n"),
        ] {
            let file = dir.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let spec = Starter::of(dir.path(), Some("thing")).unwrap().spec();
        for part in [
            "go = {}",
            "libraries = [\"deb:libc6-dev\", \"deb:libsqlite3-dev\", \"deb:zlib1g-dev\"]",
            "# The others: admin, one.",
            "entrypoint = [\"api\"]",
        ] {
            assert!(spec.contains(part), "{part}: {spec}");
        }
        crate::spec::parse(&spec).unwrap_or_else(|error| panic!("{}", error.render(false)));
    }

    #[test]
    fn a_locked_python_project_runs_its_command_or_what_its_modules_are() {
        let manifest = "[project]\nname = \"web\"\nscripts = { admin = \"web:admin\", web = \"web:main\" }\n";
        let (fastapi, flask) = ("name = \"uvicorn\"\n", "name = \"gunicorn\"\n");
        for (files, command) in [
            (vec![("uv.lock", ""), ("pyproject.toml", manifest)], "\"web\""),
            (
                vec![("uv.lock", fastapi), ("main.py", "api = FastAPI(title=1)\n")],
                "\"uvicorn\", \"--host\", \"0.0.0.0\", \"main:api\"",
            ),
            (
                vec![("pylock.toml", flask), ("app.py", "app = Flask(__name__)\n")],
                "\"gunicorn\", \"--bind\", \"0.0.0.0:8000\", \"app:app\"",
            ),
            (
                vec![("uv.lock", ""), ("main.py", "print()\n")],
                "\"python\", \"-m\", \"main\"",
            ),
            (vec![("uv.lock", "")], "\"python\", \"-m\", \"app\""),
            (
                vec![
                    ("requirements.txt", "gunicorn==1 --hash=sha256:00\n"),
                    ("wsgi.py", "app = Flask(__name__)\n"),
                ],
                "\"gunicorn\", \"--bind\", \"0.0.0.0:8000\", \"wsgi:app\"",
            ),
        ] {
            let (_dir, starter) = starter(&files);
            let text = starter.spec();
            assert!(text.contains(&format!("entrypoint = [{command}]")), "{text}");
            let workspace = crate::spec::parse(&text).unwrap_or_else(|error| panic!("{}", error.render(false)));
            assert!(workspace.packages.values().all(|package| package.language.is_some()));
        }
    }

    #[test]
    fn a_node_project_is_started_as_npm_starts_it_or_by_its_program() {
        let with_start = r#"{"name":"@own/web","scripts":{"start":"node a.js","build":"b"},"bin":{"admin":"b.js"}}"#;
        for (manifest, parts) in [
            (
                with_start,
                &["build = \"build\"", "entrypoint = [\"thing\"]", "programs: admin."] as &[&str],
            ),
            (
                r#"{"name":"@own/web","bin":"b.js"}"#,
                &["node = {}", "entrypoint = [\"web\"]"],
            ),
            ("{", &["node = {}", "entrypoint = [\"thing\"]"]),
        ] {
            let (_dir, starter) = starter(&[("package.json", manifest), ("package-lock.json", "{}")]);
            let spec = starter.spec();
            for part in parts {
                assert!(spec.contains(part), "{part}: {spec}");
            }
            crate::spec::parse(&spec).unwrap_or_else(|error| panic!("{}", error.render(false)));
        }
    }

    #[test]
    fn names_are_words_of_the_shell() {
        let names = ["a.c", "b c.c", "it's.c", "-x.c"].map(str::to_owned);
        assert_eq!(quoted(&names), r"a.c ./'b c.c' ./'it'\''s.c' ./'-x.c'");
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
        assert_eq!(files[2].1, "target\n/my-app-2.tar\n");
        for (path, text) in &files {
            fs::write(path, text).unwrap();
        }
        let again = Starter::of(&dir, None).unwrap();
        assert_eq!(again.files(&dir).unwrap().len(), 1, "the archive is ignored already");
    }
}
