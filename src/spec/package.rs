//! A *package* as the user wrote it: `[package.NAME]` and its source.
//!
//! Invariant: a package that comes back without a diagnostic has something to do, and every value in it has
//! passed its check; whether the names in it exist is [`super::names`]' business.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use toml::de::DeValue;

use super::checks::{self, Complaint, did_you_mean};
use super::cross;
use super::diagnostics::Diagnostic;
use super::git;
use super::keys::{self, Key};
use super::language;
use super::reader::{Field, Reader, Table};
use super::types::{Dependency, Package, PackageName, Source, Spanned};

/// Reads `[package.NAME]`.
pub(super) fn read(reader: &mut Reader<'_>, field: &Field<'_>, dir: &Path) -> Option<Package> {
    reader.accept_key(field, "a package's name", checks::package_name(field.key));
    let what = format!("package `{}`", field.key);
    let table = reader.table(field, what, keys::PACKAGE.iter().collect())?;
    let source = read_source(reader, &table, dir);
    let package = Package {
        name: Spanned {
            value: PackageName(field.key.to_owned()),
            span: field.key_span.clone(),
        },
        dir: dir.to_owned(),
        version: table.checked(reader, "version", checks::version),
        language: language::read(reader, &table, source.as_ref()),
        source,
        tools: dependencies(reader, &table, "tools"),
        libraries: dependencies(reader, &table, "libraries"),
        runtime: dependencies(reader, &table, "runtime"),
        dev: dependencies(reader, &table, "dev"),
        no_references: dependencies(reader, &table, "no-references"),
        strip_references: dependencies(reader, &table, "strip-references"),
        env: text_map(reader, &table, "env", checks::build_env_name),
        script: table.checked(reader, "script", checks::nonempty),
        timeout_seconds: read_duration(reader, &table, "timeout"),
        cache_dirs: read_cache(reader, &table),
        base: table.flag(reader, "base").unwrap_or(true),
        cross: table.flag(reader, "cross"),
    };
    let package = language::with_defaults(package);
    check_purpose(reader, &table);
    check_references(reader, &table, &package);
    check_cross(reader, &table, &package);
    Some(package)
}

/// A package needs a script or a source, and what only a script can use needs a script.
fn check_purpose(reader: &mut Reader<'_>, table: &Table<'_>) {
    let is_built = |key: &&'static str| table.get(key).is_some();
    if table.get("script").is_some() || keys::LANGUAGES.iter().any(is_built) {
        return;
    }
    if table.get("source").is_none() {
        let diagnostic = Diagnostic::new(format!("{} has neither a `script` nor a `source`", table.what))
            .at(table.span.clone(), "nothing to build")
            .help("add `script = \"…\"` to build something, or `source = \"DIR\"` to take files as they are");
        return reader.error(diagnostic);
    }
    for key in [
        "tools",
        "libraries",
        "runtime",
        "dev",
        "no-references",
        "strip-references",
        "env",
        "timeout",
        "cache",
        "base",
        "cross",
    ] {
        if let Some(field) = table.get(key) {
            let diagnostic = Diagnostic::new(format!("{} has no effect without a `script`", field.title()))
                .at(field.key_span, "used by a script only")
                .help(format!("add `script = \"…\"`, or leave `{key}` out"));
            reader.error(diagnostic);
        }
    }
}

/// What a language lays out as others compiled it cannot be compiled for another platform.
fn check_cross(reader: &mut Reader<'_>, table: &Table<'_>, package: &Package) {
    let (Some(field), Some(true), false) = (table.get("cross"), package.cross, cross::can_be_crossed(package)) else {
        return;
    };
    let key = package.language.as_ref().map_or("", |language| language.value.key());
    let diagnostic = Diagnostic::new(format!("{} cannot be cross-compiled: it is in `{key}`", table.what))
        .at(field.key_span, "its parts are run where they are laid out")
        .help("leave `cross` out: it is built through an emulator, or at a builder (`layerize help emulation`)");
    reader.error(diagnostic);
}

/// What may not be referred to, or is taken out, must be something that the build is given: all else it cannot refer to.
fn check_references(reader: &mut Reader<'_>, table: &Table<'_>, package: &Package) {
    let given = || package.tools.iter().chain(&package.libraries).chain(&package.runtime);
    for (key, named) in [
        ("no-references", &package.no_references),
        ("strip-references", &package.strip_references),
    ] {
        for dependency in named {
            if given().any(|given| given.value == dependency.value) {
                continue;
            }
            let message = format!(
                "`{key}` of {} names `{}`, which it is not given",
                table.what, dependency.value
            );
            let names: Vec<String> = given().map(|given| given.value.to_string()).collect();
            let help = match did_you_mean(&dependency.value.to_string(), names.iter().map(String::as_str)) {
                Some(similar) => format!("did you mean `{similar}`?"),
                None => format!("name one of its `tools`, `libraries` or `runtime`, or leave it out of `{key}`"),
            };
            let diagnostic = Diagnostic::new(message).at(dependency.span.clone(), "no dependency of this package");
            reader.error(diagnostic.help(help));
        }
    }
    for stripped in &package.strip_references {
        if package.runtime.iter().any(|runtime| runtime.value == stripped.value) {
            let message = format!("{} strips `{}`, which is in its `runtime`", table.what, stripped.value);
            let diagnostic = Diagnostic::new(message).at(stripped.span.clone(), "it stays in the closure all the same");
            reader.error(diagnostic.help("leave it out of `runtime` or of `strip-references`"));
        }
    }
}

/// A time in seconds. A number without a unit is a mistake that deserves its own advice.
pub(super) fn read_duration(reader: &mut Reader<'_>, table: &Table<'_>, key: &'static str) -> Option<u64> {
    let field = table.get(key)?;
    if matches!(field.value, DeValue::Integer(_)) {
        let help = "write the unit: `\"90s\"`, `\"30m\"`, `\"2h\"`".to_owned();
        reader.wrong_type(&field, "a string", Some(help));
        return None;
    }
    reader.checked(&field, checks::duration).map(|seconds| seconds.value)
}

/// Reads `cache = { dirs = […] }`: places of which none is in another.
fn read_cache(reader: &mut Reader<'_>, table: &Table<'_>) -> Vec<Spanned<String>> {
    let Some(field) = table.get("cache") else {
        return Vec::new();
    };
    let Some(table) = reader.table(&field, field.title(), keys::CACHE.iter().collect()) else {
        return Vec::new();
    };
    let mut dirs: Vec<Spanned<String>> = Vec::new();
    for element in table.elements(reader, "dirs") {
        let Some(dir) = reader.checked(&element, cache_dir) else {
            continue;
        };
        let path = Path::new(&dir.value);
        let other = dirs
            .iter()
            .find(|other| path.starts_with(&other.value) || Path::new(&other.value).starts_with(path));
        match other {
            Some(other) => {
                let message = format!("`{}` and `{}` are cached twice over", other.value, dir.value);
                let diagnostic = Diagnostic::new(message).at(dir.span, "one is the other, or in it");
                reader.error(diagnostic.help("name the outer one alone"));
            }
            None => dirs.push(dir),
        }
    }
    if dirs.is_empty() && table.get("dirs").is_some_and(|dirs| reader.array(&dirs).is_empty()) {
        let diagnostic = Diagnostic::new(format!("{} names no directory", field.title()))
            .at(field.key_span, "nothing is kept")
            .help("write `cache = { dirs = [\"/build/.ccache\"] }`, or leave it out");
        reader.error(diagnostic);
    }
    dirs
}

/// A directory of the sandbox that can be a cache: below `/build`, where scripts may write.
fn cache_dir(text: &str) -> Result<String, Complaint> {
    let refuse = |label: &str| {
        Err(Complaint {
            label: label.to_owned(),
            help: Some("name a place below `/build`, such as `/build/.ccache` or `/build/source/target`".to_owned()),
        })
    };
    let is_plain = text.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
    match text.strip_prefix("/build/") {
        None => refuse("not below `/build`"),
        Some(_) if !is_plain || text.contains('\0') => refuse("not a plain path"),
        Some("source") => refuse("the source itself"),
        Some(_) => Ok(text.to_owned()),
    }
}

/// Reads an array of dependencies, each at most once; none where it is missing.
pub(super) fn dependencies(reader: &mut Reader<'_>, table: &Table<'_>, key: &'static str) -> Vec<Spanned<Dependency>> {
    let elements = table.elements(reader, key);
    let read = elements
        .iter()
        .filter_map(|element| reader.checked(element, dependency))
        .collect();
    unique(reader, table, key, read)
}

/// Reads an image's `contents`, which may also name paths of a Nix store.
pub(super) fn contents(reader: &mut Reader<'_>, table: &Table<'_>) -> Vec<Spanned<Dependency>> {
    let mut read = Vec::new();
    for element in table.elements(reader, "contents") {
        read.extend(match element.value {
            DeValue::Table(_) => read_nix(reader, &element),
            _ => reader.checked(&element, |text| match text.starts_with("/nix/store/") {
                true => checks::nix_path(text).map(|path| Dependency::Nix(path.to_string())),
                false => dependency(text),
            }),
        });
    }
    unique(reader, table, "contents", read)
}

fn read_nix(reader: &mut Reader<'_>, element: &Field<'_>) -> Option<Spanned<Dependency>> {
    let table = reader.table(element, element.title(), keys::NIX.iter().collect())?;
    let Some(field) = table.get("nix") else {
        let diagnostic = Diagnostic::new(format!("{} says nothing", table.what))
            .at(element.span.clone(), "`nix` is missing")
            .help("write `{ nix = \"/nix/store/HASH-NAME\" }` or `{ nix = \"result\" }`");
        reader.error(diagnostic);
        return None;
    };
    reader.checked(&field, |text| match text.starts_with("/nix/store/") {
        true => checks::nix_path(text).map(|path| Dependency::Nix(path.to_string())),
        false => checks::nonempty(text).map(Dependency::Nix),
    })
}

fn unique(
    reader: &mut Reader<'_>,
    table: &Table<'_>,
    key: &'static str,
    read: Vec<Spanned<Dependency>>,
) -> Vec<Spanned<Dependency>> {
    let mut found: Vec<Spanned<Dependency>> = Vec::new();
    for dependency in read {
        match found.iter().find(|earlier| earlier.value == dependency.value) {
            Some(earlier) => {
                let message = format!("`{key}` of {} names `{}` twice", table.what, dependency.value);
                let diagnostic = Diagnostic::new(message).at(dependency.span, "named again");
                reader.error(diagnostic.note_at(earlier.span.clone(), "first named here"));
            }
            None => found.push(dependency),
        }
    }
    found
}

/// `deb:NAME`, `NAME`, `alias:NAME` or `/layerize/store/HASH-NAME`.
pub(super) fn dependency(text: &str) -> Result<Dependency, Complaint> {
    if let Some(name) = text.strip_prefix("deb:") {
        return checks::debian_name(name).map(|()| Dependency::Debian(name.to_owned()));
    }
    if text.starts_with('/') {
        return checks::store_path(text).map(Dependency::StorePath);
    }
    for part in text.split(':') {
        checks::package_name(part).map_err(|complaint| Complaint {
            help: (complaint.help).or_else(|| Some("write `NAME`, `ALIAS:NAME` or `deb:NAME`".to_owned())),
            ..complaint
        })?;
    }
    Ok(Dependency::Package(PackageName(text.to_owned())))
}

/// Reads a table of strings whose keys pass `check_key`; empty where it is missing.
pub(super) fn text_map(
    reader: &mut Reader<'_>,
    table: &Table<'_>,
    key: &'static str,
    check_key: fn(&str) -> Result<(), Complaint>,
) -> BTreeMap<String, Spanned<String>> {
    let mut found = BTreeMap::new();
    for entry in table.entries(reader, key) {
        reader.accept_key(&entry, &format!("a key of {}", entry.owner), check_key(entry.key));
        if let Some(text) = reader.text(&entry) {
            found.insert(entry.key.to_owned(), text);
        }
    }
    found
}

fn read_source(reader: &mut Reader<'_>, table: &Table<'_>, dir: &Path) -> Option<Spanned<Source>> {
    let field = table.get("source")?;
    let value = source(reader, &field, dir)?;
    Some(Spanned {
        value,
        span: field.span,
    })
}

/// Reads `source`: a path as a string, or a table of exactly one kind.
fn source(reader: &mut Reader<'_>, field: &Field<'_>, dir: &Path) -> Option<Source> {
    if let DeValue::String(_) = field.value {
        return reader.checked(field, source_path).map(|path| Source::Path {
            path: path.value,
            include: Vec::new(),
            exclude: Vec::new(),
            gitignore: true,
        });
    }
    if !matches!(field.value, DeValue::Table(_)) {
        let help = "write `\"DIR\"`, `{ url = \"…\", sha256 = \"…\" }`, `{ git = \"…\", tag = \"…\" }` or `{ deb-source = \"NAME\" }`";
        reader.wrong_type(field, "a string or a table", Some(help.to_owned()));
        return None;
    }
    let kinds = [
        ("path", keys::SOURCE_PATH),
        ("url", keys::SOURCE_URL),
        ("git", keys::SOURCE_GIT),
        ("deb-source", keys::SOURCE_DEBIAN),
    ];
    let all: Vec<&'static Key> = kinds.iter().flat_map(|(_, keys)| keys.iter()).collect();
    let table = reader.table(field, field.title(), all)?;
    let mut given = kinds.iter().filter(|(kind, _)| table.get(kind).is_some());
    let Some((kind, own)) = given.next() else {
        let diagnostic = Diagnostic::new(format!("{} does not say where from", field.title()))
            .at(
                field.span.clone(),
                "one of `path`, `url`, `git` and `deb-source` is missing",
            )
            .help(
                "write `{ path = \"DIR\" }`, `{ url = \"…\", sha256 = \"…\" }`, `{ git = \"…\", tag = \"…\" }` or \
                 `{ deb-source = \"NAME\" }`",
            );
        reader.error(diagnostic);
        return None;
    };
    refuse_foreign_keys(reader, &table, kind, own, &kinds);
    match *kind {
        "path" => path_source(reader, &table),
        "url" => url_source(reader, &table, dir),
        "git" => git::read(reader, &table, dir).map(|source| Source::Git(Box::new(source))),
        _ => {
            let name = table.checked(reader, "deb-source", debian_source_name)?;
            Some(Source::DebianSource { name: name.value })
        }
    }
}

/// Keys of another kind of source than the one that is given.
pub(super) fn refuse_foreign_keys(
    reader: &mut Reader<'_>,
    table: &Table<'_>,
    kind: &'static str,
    own: &[Key],
    kinds: &[(&'static str, &'static [Key])],
) {
    let mut told: Vec<&str> = own.iter().map(|key| key.name).collect();
    for (other, keys) in kinds {
        for key in *keys {
            if told.contains(&key.name) {
                continue;
            }
            told.push(key.name);
            let Some(field) = table.get(key.name) else { continue };
            let has = |keys: &[Key]| keys.iter().any(|other| other.name == key.name);
            let having = kinds.iter().filter(|(_, keys)| has(keys)).map(|(kind, _)| *kind);
            let diagnostic = if key.name == *other {
                Diagnostic::new(format!("{} has both `{kind}` and `{other}`", table.what))
                    .at(field.key_span, "a source comes from one place")
                    .help(format!("keep `{kind}` or `{other}`"))
            } else {
                Diagnostic::new(format!("`{}` does not belong to a `{kind}` source", key.name))
                    .at(
                        field.key_span,
                        format!("a key of `{}` sources", having.collect::<Vec<_>>().join("` and `")),
                    )
                    .help(format!("leave `{}` out", key.name))
            };
            reader.error(diagnostic);
        }
    }
}

fn path_source(reader: &mut Reader<'_>, table: &Table<'_>) -> Option<Source> {
    let mut patterns = |key| {
        let elements = table.elements(reader, key);
        let texts = elements.iter().filter_map(|element| reader.text(element));
        texts.map(|text| text.value).collect()
    };
    let (include, exclude) = (patterns("include"), patterns("exclude"));
    let gitignore = table.flag(reader, "gitignore");
    let path = table.checked(reader, "path", source_path)?;
    Some(Source::Path {
        path: path.value,
        include,
        exclude,
        gitignore: gitignore.unwrap_or(true),
    })
}

fn url_source(reader: &mut Reader<'_>, table: &Table<'_>, dir: &Path) -> Option<Source> {
    let unpack = table.flag(reader, "unpack");
    unpacked_url(reader, table, dir, unpack)
}

/// What an address says, where it is known whether the file is unpacked.
pub(super) fn unpacked_url(
    reader: &mut Reader<'_>,
    table: &Table<'_>,
    dir: &Path,
    unpack: Option<bool>,
) -> Option<Source> {
    let sha256 = table.checked(reader, "sha256", checks::sha256);
    let redistribute = table.flag(reader, "redistribute");
    let strip = table.get("strip").and_then(|field| {
        let strip = reader.integer(&field, 0, 64)?;
        if unpack == Some(false) {
            let diagnostic = Diagnostic::new(format!("{} has no effect with `unpack = false`", field.title()))
                .at(field.key_span, "used while unpacking only")
                .help("leave `strip` or `unpack = false` out");
            reader.error(diagnostic);
        }
        u32::try_from(strip).ok()
    });
    let url = table.checked(reader, "url", checks::url)?;
    Some(Source::Url {
        url: from_dir(&url.value, dir),
        sha256: sha256.map(|sha256| sha256.value),
        unpack,
        strip,
        redistribute: redistribute.unwrap_or(true),
    })
}

/// A `file:` address that is relative to the spec's directory, made relative to where that directory is named
/// from; what an address cannot hold of the directory's path is escaped (RFC 3986 §2.1).
fn from_dir(url: &str, dir: &Path) -> String {
    let Some(path) = url.strip_prefix("file:").filter(|path| !path.starts_with('/')) else {
        return url.to_owned();
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte);
    let escape = |byte: &u8| match plain(*byte) {
        true => char::from(*byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    let dir: String = dir.as_os_str().as_bytes().iter().map(escape).collect();
    match dir.as_str() {
        "" => format!("file:{path}"),
        dir => format!("file:{}/{path}", dir.trim_end_matches('/')),
    }
}

/// A path, with advice where an address or a Debian package was meant.
fn source_path(text: &str) -> Result<String, Complaint> {
    let meant = if text.contains("://") {
        let kind = if looks_like_git(text) { "git" } else { "url" };
        Some(format!("write `{{ {kind} = \"{text}\" }}`"))
    } else {
        let name = text.strip_prefix("deb-source:").or_else(|| text.strip_prefix("deb:"));
        name.map(|name| format!("write `{{ deb-source = \"{name}\" }}`"))
    };
    match meant {
        Some(help) => Err(Complaint {
            label: "this is not a path".to_owned(),
            help: Some(help),
        }),
        None => checks::local_path(text),
    }
}

/// Whether an address is that of a repository and of no file.
fn looks_like_git(address: &str) -> bool {
    let scheme = address.split(':').next().unwrap_or_default();
    matches!(scheme, "git" | "ssh") || scheme.starts_with("git+") || address.ends_with(".git")
}

fn debian_source_name(text: &str) -> Result<String, Complaint> {
    let bare = text.strip_prefix("deb:").unwrap_or(text);
    checks::debian_name(bare)?;
    if bare != text {
        return Err(Complaint {
            label: "`deb:` is for binary packages".to_owned(),
            help: Some(format!("write `{bare}`")),
        });
    }
    Ok(text.to_owned())
}

/// Advice for the name of a package that does not exist: one spelt like it, else a Debian package.
pub(super) fn advice_for_unknown(name: &str, known: &[&str]) -> Option<String> {
    if let Some(similar) = did_you_mean(name, known.iter().copied()) {
        return Some(format!("did you mean `{similar}`?"));
    }
    let debian = checks::debian_name(name).is_ok();
    debian.then(|| format!("a Debian package is written `deb:{name}`; a package of your own needs `[package.{name}]`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_addresses_are_relative_to_the_spec() {
        for (url, dir, expected) in [
            ("file:vendor/a.tar", "/a b/ä%", "file:/a%20b/%C3%A4%25/vendor/a.tar"),
            ("file:vendor/a.tar", "/", "file:/vendor/a.tar"),
            ("file:vendor/a.tar", "", "file:vendor/a.tar"),
            ("file:///srv/a.tar", "/a", "file:///srv/a.tar"),
            ("https://x.invalid/a", "/a", "https://x.invalid/a"),
        ] {
            assert_eq!(from_dir(url, Path::new(dir)), expected);
        }
    }
}
