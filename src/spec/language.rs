//! The *language* of a package: `rust`, `python`, `node` or `go`, whose own lock file pins what the package depends on.
//!
//! Invariant: a package has at most one; what a language is built with unless the spec says otherwise stands here, and
//! nowhere else.

use std::collections::{BTreeMap, BTreeSet};

use super::checks::{self, Complaint};
use super::diagnostics::Diagnostic;
use super::keys;
use super::package;
use super::reader::{Field, Reader, Table};
use super::types::{DEBIAN_BASE, Dependency, Package, Source, Spanned};

/// What `[package.NAME]` says of the language that it is written in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Language {
    /// The lock file, relative to the source; `None`: the one that the language's tools write.
    pub lock: Option<Spanned<String>>,
    /// What is said of the language alone.
    pub options: LanguageOptions,
}

/// The keys of one language.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LanguageOptions {
    /// `rust = { … }`.
    Rust(RustOptions),
    /// `python = { … }`.
    Python(PythonOptions),
    /// `go = { … }`.
    Go(GoOptions),
    /// `node = { … }`.
    Node(NodeOptions),
}

/// `rust = { … }`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RustOptions {
    /// `features`: those that are switched on.
    pub features: Vec<String>,
    /// `default-features`: whether the default ones are on (default true).
    pub default_features: bool,
    /// `package`: the members of the workspace that are built; none: its default members.
    pub packages: Vec<String>,
    /// `bins`: the programs that are built and installed; none: all.
    pub bins: Vec<String>,
    /// `profile`: Cargo's profile.
    pub profile: Option<String>,
    /// `incremental`: whether dependencies are compiled in a step of their own (default true).
    pub incremental: bool,
}

/// `python = { … }`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PythonOptions {
    /// `groups`: dependency groups that are installed, beside what is needed at all.
    pub groups: Vec<String>,
    /// `extras`: extras of the project that are installed.
    pub extras: Vec<String>,
    /// `project`: the member of the workspace that is installed; `None`: the one beside the lock file.
    pub project: Option<String>,
    /// `paths`: directories of the source in which its modules are; none: `src`, or the source itself.
    pub paths: Vec<String>,
    /// `build`: what projects are built with that are to be taken as source distributions, by their names.
    pub build: BTreeMap<String, Vec<PythonBuildTool>>,
}

/// What a source distribution of Python is built with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PythonBuildTool {
    /// A project that the lock file pins, with what it depends on.
    Project {
        /// Its name, as names are compared.
        name: String,
        /// The versions that will do (`==69.5.1`), of which the lock file has to pin one.
        wanted: Option<String>,
    },
    /// A Debian package.
    Debian(String),
}

impl PythonOptions {
    /// The Debian packages that a source distribution is built with, sorted; `None` for a project that is not built.
    pub fn build_debs(&self, project: &str) -> Option<Vec<String>> {
        let tools = self.build.get(project)?.iter();
        let own = tools.filter_map(|tool| match tool {
            PythonBuildTool::Debian(name) => Some(name.as_str()),
            PythonBuildTool::Project { .. } => None,
        });
        let all: BTreeSet<&str> = own.chain(PYTHON_STEP_DEBS.iter().chain(DEBIAN_BASE).copied()).collect();
        Some(all.into_iter().map(str::to_owned).collect())
    }
}

/// `go = { … }`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GoOptions {
    /// `packages`: what is built, as `go build` takes it; none: all programs of the module.
    pub packages: Vec<String>,
    /// `tags`: build tags that are on.
    pub tags: Vec<String>,
    /// `ldflags`: flags of the linker.
    pub ldflags: Option<String>,
    /// `cgo`: whether C is compiled and linked with; `None`: where a package outside Go's own library has C.
    pub cgo: Option<bool>,
    /// `toolchain`: what has Go; `None`: [`GO_DEB`].
    pub toolchain: Option<Dependency>,
    /// `incremental`: whether Go's library and dependencies are compiled in steps of their own (default true).
    pub incremental: bool,
}

/// `node = { … }`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeOptions {
    /// `omit`: kinds of dependencies that are not part of the package.
    pub omit: NodeOmit,
    /// `build`: the script of `package.json` that builds it.
    pub build: Option<String>,
    /// `scripts`: packages whose install scripts are run.
    pub scripts: Vec<Spanned<String>>,
}

/// `omit` of a Node project, as npm has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeOmit {
    /// What only development needs.
    pub dev: bool,
    /// What it can do without.
    pub optional: bool,
    /// What is there for those that want it beside them.
    pub peer: bool,
}

impl Language {
    /// The key by which a spec names it.
    pub fn key(&self) -> &'static str {
        match &self.options {
            LanguageOptions::Rust(_) => "rust",
            LanguageOptions::Python(_) => "python",
            LanguageOptions::Go(_) => "go",
            LanguageOptions::Node(_) => "node",
        }
    }

    /// What it is built with, beside what the package names.
    pub fn tools(&self) -> Vec<Dependency> {
        match &self.options {
            LanguageOptions::Rust(_) => debian(RUST_TOOLS),
            LanguageOptions::Python(_) => debian(&["python3"]),
            LanguageOptions::Node(_) => debian(&["nodejs"]),
            LanguageOptions::Go(go) => {
                let mut tools = vec![go.toolchain()];
                if go.cgo != Some(false) {
                    tools.extend(debian(CGO_TOOLS));
                }
                tools
            }
        }
    }

    /// The Debian packages that it is linked against where the package names no libraries.
    pub fn libraries(&self) -> &'static [&'static str] {
        match &self.options {
            LanguageOptions::Rust(_) => &["libc6-dev"],
            LanguageOptions::Python(_) | LanguageOptions::Node(_) => &[],
            LanguageOptions::Go(go) if go.cgo == Some(false) => &[],
            LanguageOptions::Go(_) => &["libc6-dev"],
        }
    }

    /// What is done where the package has no script, in a line.
    pub fn script_summary(&self) -> &'static str {
        match &self.options {
            LanguageOptions::Rust(_) => "`cargo build --locked`; programs to `$out/bin`, libraries to `$out/lib`",
            LanguageOptions::Python(_) => {
                "an environment of links to the wheels with the source's modules; its commands to `$out/bin`"
            }
            LanguageOptions::Go(_) => "`go build` of its programs to `$out/bin`",
            LanguageOptions::Node(_) => "sources and `node_modules` in `$out/lib`, programs in `$out/bin`",
        }
    }

    /// The sets of Debian packages, each sorted, of steps that have others than the package: the first is the same for all
    /// packages in the language, so that these share what the steps make.
    pub fn step_debs(&self) -> Vec<Vec<String>> {
        match &self.options {
            LanguageOptions::Rust(_) | LanguageOptions::Node(_) | LanguageOptions::Go(_) => Vec::new(),
            LanguageOptions::Python(options) => {
                let all = PYTHON_STEP_DEBS.iter().map(|name| (*name).to_owned()).collect();
                let built = options.build.keys().filter_map(|project| options.build_debs(project));
                std::iter::once(all).chain(built).collect()
            }
        }
    }
}

impl GoOptions {
    /// What has Go.
    pub fn toolchain(&self) -> Dependency {
        let default = || Dependency::Debian(GO_DEB.to_owned());
        self.toolchain.clone().unwrap_or_else(default)
    }
}

fn debian(names: &[&str]) -> Vec<Dependency> {
    names
        .iter()
        .map(|name| Dependency::Debian((*name).to_owned()))
        .collect()
}

/// The Debian package of Go.
pub const GO_DEB: &str = "golang-go";

/// What compiles C for Go, and finds C libraries.
const CGO_TOOLS: &[&str] = &["gcc", "pkg-config"];

/// A Rust toolchain of today, a linker, and what finds C libraries. Debian's plain `cargo` reads no lock file of today.
const RUST_TOOLS: &[&str] = &["cargo-web", "gcc", "pkg-config", "rustc-web"];

/// What installs a wheel: the interpreter, and a shell that starts it.
pub const PYTHON_STEP_DEBS: &[&str] = &["dash", "python3"];

/// The package with the tools of its language after its own, and the language's libraries where it names none.
pub(super) fn with_defaults(mut package: Package) -> Package {
    let Some(Spanned { value: language, span }) = &package.language else {
        return package;
    };
    let at_key = |value: Dependency| Spanned {
        value,
        span: span.clone(),
    };
    for tool in language.tools() {
        if package.tools.iter().all(|own| own.value != tool) {
            package.tools.push(at_key(tool));
        }
    }
    if package.libraries.is_empty() {
        let libraries = debian(language.libraries());
        package.libraries = libraries.into_iter().map(at_key).collect();
    }
    package
}

/// Reads the language of a package, whose `source` must be a directory of the user's own.
pub(super) fn read(
    reader: &mut Reader<'_>,
    table: &Table<'_>,
    source: Option<&Spanned<Source>>,
) -> Option<Spanned<Language>> {
    let mut given = keys::LANGUAGES.iter().filter_map(|key| table.get(key));
    let field = given.next()?;
    if let Some(other) = given.next() {
        let diagnostic = Diagnostic::new(format!("{} has both `{}` and `{}`", table.what, field.key, other.key))
            .at(other.key_span, "a package is in one language")
            .help("make a package of each");
        reader.error(diagnostic);
    }
    let value = read_one(reader, &field)?;
    match source.map(|source| &source.value) {
        Some(Source::Path { .. }) => {}
        _ => {
            let diagnostic = Diagnostic::new(format!("{} needs a source of its own files", field.title()))
                .at(field.key_span.clone(), "its lock file is read from the source")
                .help("write `source = { path = \".\" }`");
            reader.error(diagnostic);
        }
    }
    Some(Spanned {
        value,
        span: field.key_span,
    })
}

fn read_one(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Language> {
    match field.key {
        "rust" => read_rust(reader, field),
        "python" => read_python(reader, field),
        "go" => read_go(reader, field),
        "node" => read_node(reader, field),
        _ => None,
    }
}

fn read_rust(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Language> {
    let table = reader.table(field, field.title(), keys::RUST.iter().collect())?;
    let options = RustOptions {
        features: texts(reader, &table, "features", cargo_word),
        default_features: table.flag(reader, "default-features").unwrap_or(true),
        packages: texts(reader, &table, "packages", cargo_word),
        bins: texts(reader, &table, "bins", cargo_word),
        profile: table
            .checked(reader, "profile", cargo_word)
            .map(|profile| profile.value),
        incremental: table.flag(reader, "incremental").unwrap_or(true),
    };
    Some(Language {
        lock: lock(reader, &table),
        options: LanguageOptions::Rust(options),
    })
}

fn read_python(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Language> {
    let table = reader.table(field, field.title(), keys::PYTHON.iter().collect())?;
    let options = PythonOptions {
        groups: texts(reader, &table, "groups", python_name),
        extras: texts(reader, &table, "extras", python_name),
        project: table
            .checked(reader, "project", python_name)
            .map(|project| project.value),
        paths: texts(reader, &table, "paths", inside),
        build: python_build(reader, &table),
    };
    Some(Language {
        lock: lock(reader, &table),
        options: LanguageOptions::Python(options),
    })
}

fn read_go(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Language> {
    let table = reader.table(field, field.title(), keys::GO.iter().collect())?;
    let options = GoOptions {
        packages: texts(reader, &table, "packages", go_package),
        tags: texts(reader, &table, "tags", go_tag),
        ldflags: table.checked(reader, "ldflags", one_line).map(|flags| flags.value),
        cgo: table.flag(reader, "cgo"),
        toolchain: table
            .checked(reader, "toolchain", package::dependency)
            .map(|toolchain| toolchain.value),
        incremental: table.flag(reader, "incremental").unwrap_or(true),
    };
    Some(Language {
        lock: lock(reader, &table),
        options: LanguageOptions::Go(options),
    })
}

fn read_node(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Language> {
    let table = reader.table(field, field.title(), keys::NODE.iter().collect())?;
    let omit = match table.get("omit") {
        Some(_) => {
            let kinds = texts(reader, &table, "omit", omitted);
            let has = |kind: &str| kinds.iter().any(|given| given == kind);
            NodeOmit {
                dev: has("dev"),
                optional: has("optional"),
                peer: has("peer"),
            }
        }
        None => NodeOmit {
            dev: true,
            ..NodeOmit::default()
        },
    };
    let scripts = table.elements(reader, "scripts");
    let options = NodeOptions {
        omit,
        build: table.checked(reader, "build", npm_script).map(|script| script.value),
        scripts: scripts
            .iter()
            .filter_map(|element| reader.checked(element, npm_name))
            .collect(),
    };
    Some(Language {
        lock: lock(reader, &table),
        options: LanguageOptions::Node(options),
    })
}

/// A kind of dependencies that npm can leave out.
fn omitted(text: &str) -> Result<String, Complaint> {
    match keys::NODE_OMIT.contains(&text) {
        true => Ok(text.to_owned()),
        false => Err(Complaint {
            label: "not a kind of dependencies".to_owned(),
            help: Some(format!("one of {}", keys::NODE_OMIT.join(", "))),
        }),
    }
}

/// The name of a script in `package.json`.
fn npm_script(text: &str) -> Result<String, Complaint> {
    match !text.is_empty() && !text.contains(char::is_control) {
        true => Ok(text.to_owned()),
        false => Err(Complaint {
            label: "not the name of a script".to_owned(),
            help: Some("name one of `scripts` in `package.json`".to_owned()),
        }),
    }
}

/// The name of a package of npm's.
fn npm_name(text: &str) -> Result<String, Complaint> {
    match is_npm_name(text) {
        true => Ok(text.to_owned()),
        false => Err(Complaint {
            label: "not a name of npm's".to_owned(),
            help: Some("`NAME` or `@SCOPE/NAME`".to_owned()),
        }),
    }
}

/// Whether a text may name a package of npm's: `NAME` or `@SCOPE/NAME`, with nothing in it that would lead out of a
/// directory. Old packages have names with capital letters and signs that new ones may not have.
pub fn is_npm_name(text: &str) -> bool {
    let part = |part: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.~!'()*".contains(c);
        !part.is_empty() && !part.starts_with('.') && part.chars().all(plain)
    };
    match text.strip_prefix('@').map(|rest| rest.split_once('/')) {
        Some(Some((scope, name))) => part(scope) && part(name),
        Some(None) => false,
        None => part(text) && text != "node_modules",
    }
}

/// A path or version of a module of Go as proxies and caches have it in theirs: `!x` for `X` (golang.org/x/mod/module,
/// `EscapePath`).
pub fn escaped_go_path(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_uppercase() {
            out.push('!');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// The path of the lock file.
fn lock(reader: &mut Reader<'_>, table: &Table<'_>) -> Option<Spanned<String>> {
    table.checked(reader, "lock", inside)
}

/// A path below the source.
fn inside(text: &str) -> Result<String, Complaint> {
    match checks::local_path(text) {
        Ok(path) if path.starts_with('/') || path.split('/').any(|part| part == "..") => Err(Complaint {
            label: "not a path inside the source".to_owned(),
            help: Some("name what is there relative to `source`".to_owned()),
        }),
        other => other,
    }
}

/// A name of a project, an extra or a group, as it is compared (PEP 503, PEP 685, PEP 735).
fn python_name(text: &str) -> Result<String, Complaint> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let ends = |text: &str| text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if ends(text) && text.chars().all(plain) {
        return Ok(normal_python_name(text));
    }
    Err(Complaint {
        label: "not a name that Python's packaging knows".to_owned(),
        help: Some("letters, digits, `_`, `-` and `.`, with a letter or digit first".to_owned()),
    })
}

/// What projects are built with.
fn python_build(reader: &mut Reader<'_>, table: &Table<'_>) -> BTreeMap<String, Vec<PythonBuildTool>> {
    let mut build = BTreeMap::new();
    for entry in table.entries(reader, "build") {
        let Some(project) = reader.accept_key(&entry, "a project of Python's", python_name(entry.key)) else {
            continue;
        };
        let elements = reader.array(&entry);
        let tools = elements
            .iter()
            .filter_map(|element| reader.checked(element, python_build_tool));
        let tools = tools.map(|tool| tool.value).collect();
        if build.insert(project.clone(), tools).is_some() {
            let diagnostic = Diagnostic::new(format!("`{project}` is named twice in {}", entry.owner))
                .at(entry.key_span.clone(), "named again")
                .help("keep one of them: names that differ in case, or by `-`, `_` and `.`, are one");
            reader.error(diagnostic);
        }
    }
    build
}

fn python_build_tool(text: &str) -> Result<PythonBuildTool, Complaint> {
    if let Some(name) = text.strip_prefix("deb:") {
        return checks::debian_name(name).map(|()| PythonBuildTool::Debian(name.to_owned()));
    }
    let project = text.strip_prefix("pypi:").unwrap_or(text);
    let (name, wanted) = project.split_at(project.find(['=', '<', '>', '!', '~']).unwrap_or(project.len()));
    let plain = |c: char| c.is_ascii_alphanumeric() || "=<>!~.*+, ".contains(c);
    match python_name(name.trim_end()) {
        Ok(name) if wanted.chars().all(plain) => Ok(PythonBuildTool::Project {
            name,
            wanted: (!wanted.is_empty()).then(|| wanted.to_owned()),
        }),
        Ok(_) => Err(Complaint {
            label: "not a set of versions".to_owned(),
            help: Some("write it as requirements have it: `setuptools==69.5.1`, `setuptools>=61,<70`".to_owned()),
        }),
        Err(complaint) => Err(Complaint {
            help: Some("write `deb:NAME`, or the name of a project that the lock file pins".to_owned()),
            ..complaint
        }),
    }
}

/// A name of Python's packaging as it is compared: lower case, runs of `-`, `_` and `.` a single `-`.
pub fn normal_python_name(name: &str) -> String {
    let mut normal = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '-' | '_' | '.' if normal.ends_with('-') => {}
            '-' | '_' | '.' => normal.push('-'),
            c => normal.extend(c.to_lowercase()),
        }
    }
    normal
}

/// An array of strings, each of which passes `check`.
fn texts(
    reader: &mut Reader<'_>,
    table: &Table<'_>,
    key: &'static str,
    check: fn(&str) -> Result<String, Complaint>,
) -> Vec<String> {
    let elements = table.elements(reader, key);
    let read = elements.iter().filter_map(|element| reader.checked(element, check));
    read.map(|text| text.value).collect()
}

/// A name that is handed to Cargo: of a feature (`dep/feature`, `dep?/feature`), a package, a program, a profile.
fn cargo_word(text: &str) -> Result<String, Complaint> {
    let plain = |c: char| c.is_alphanumeric() || "_-+./?:".contains(c);
    if !text.is_empty() && !text.starts_with('-') && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    Err(Complaint {
        label: "not a name that Cargo knows".to_owned(),
        help: Some("letters, digits, `_`, `-`, `+`, `.`, `/`, `?` and `:`".to_owned()),
    })
}

/// What `go build` is to build: a directory of the module, with `...` for all below, or a package's import path.
fn go_package(text: &str) -> Result<String, Complaint> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~/+".contains(c);
    let is_outside = text.starts_with('/') || text.split('/').any(|part| part == "..");
    if !text.is_empty() && !text.starts_with('-') && !is_outside && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    Err(Complaint {
        label: "not a package of the module".to_owned(),
        help: Some("write it as `go build` takes it: `./cmd/serve`, or `./...` for all".to_owned()),
    })
}

/// A build tag (`go help buildconstraint`).
fn go_tag(text: &str) -> Result<String, Complaint> {
    if !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '.') {
        return Ok(text.to_owned());
    }
    Err(Complaint {
        label: "not a build tag".to_owned(),
        help: Some("letters, digits, `_` and `.`; each tag is a string of its own".to_owned()),
    })
}

/// Something that is handed on as it is.
fn one_line(text: &str) -> Result<String, Complaint> {
    match text.contains(char::is_control) {
        true => Err(Complaint {
            label: "more than one line".to_owned(),
            help: Some("write it in one line".to_owned()),
        }),
        false => Ok(text.to_owned()),
    }
}
