//! A *spec file* by itself: its tables read, its imports named, no other file looked at.
//!
//! Invariant: names in it are still the file's own; syntax errors are reported alone, as what follows them
//! in the text cannot be trusted, except for keys given twice.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::checks;
use super::diagnostics::Diagnostic;
use super::imported::{Import, ImportedSpec};
use super::keys;
use super::reader::{Field, Reader, Table};
use super::types::{BuildSettings, Debian, Image, Inputs, Package, SharedCaches, Spanned, Withheld};
use super::{image, image_debug, imported, package, syntax};

/// One file's content.
#[derive(Debug, Default)]
pub(super) struct SpecFile {
    /// Paths of imported files as written, by alias.
    pub(super) imports: BTreeMap<String, Spanned<String>>,
    /// Projects elsewhere, by alias.
    pub(super) elsewhere: BTreeMap<String, ImportedSpec>,
    /// Aliases whose import is itself wrong: names through them are not looked up.
    pub(super) broken_imports: BTreeSet<String>,
    /// Packages by their own names.
    pub(super) packages: BTreeMap<String, Package>,
    /// Names of packages that are themselves wrong.
    pub(super) broken_packages: BTreeSet<String>,
    /// Images by name; none for an imported file.
    pub(super) images: BTreeMap<String, Image>,
    /// The tools of the debug images that are asked for, by the image that they are of.
    pub(super) debug: BTreeMap<String, Spanned<Vec<String>>>,
    /// `[debian]`; empty for an imported file.
    pub(super) debian: Debian,
    /// `[inputs]`; empty for an imported file.
    pub(super) inputs: Inputs,
    /// `[cache]`; empty for an imported file.
    pub(super) cache: SharedCaches,
    /// `[build]`; empty for an imported file.
    pub(super) build: BuildSettings,
    /// Whether the text could not even be taken apart, so that nothing is known of its names.
    pub(super) unreadable: bool,
}

/// Reads the text of file number `index`, whose paths are relative to `dir`. Images, `[debian]`, `[inputs]` and `[cache]`
/// of imported files do not count and are not looked at: they are another project's.
pub(super) fn read(index: usize, dir: &Path, text: &str, errors: &mut Vec<Diagnostic>) -> SpecFile {
    let mut file = SpecFile::default();
    let (document, syntax) = DeTable::parse_recoverable(text);
    file.unreadable = syntax.iter().any(|error| !syntax::is_duplicate(error));
    let described = syntax
        .iter()
        .map(|error| syntax::describe(index, text, document.get_ref(), error));
    errors.extend(described);
    if file.unreadable {
        return file;
    }
    let mut reader = Reader { file: index, errors };
    let table = reader.document(document.get_ref(), "the spec", keys::ROOT);
    read_imports(&mut reader, &table, dir, &mut file);
    for field in table.entries(&mut reader, "package") {
        let name = field.key.to_owned();
        if let Some(package) = package::read(&mut reader, &field, dir) {
            file.packages.insert(name, package);
        } else {
            file.broken_packages.insert(name);
        }
    }
    imported::check_aliases(&mut reader, &file);
    if index == 0 {
        for field in table.entries(&mut reader, "image") {
            let Some((image, debug)) = image::read(&mut reader, &field, dir) else {
                continue;
            };
            file.images.insert(field.key.to_owned(), image);
            file.debug.extend(debug.map(|tools| (field.key.to_owned(), tools)));
        }
        image_debug::check(&mut reader, &file.images, &file.debug);
        if let Some(field) = table.get("debian") {
            file.debian = read_debian(&mut reader, &field).unwrap_or_default();
        }
        if let Some(field) = table.get("inputs") {
            file.inputs = read_inputs(&mut reader, &field, dir).unwrap_or_default();
        }
        if let Some(field) = table.get("cache") {
            file.cache = read_cache(&mut reader, &field, dir).unwrap_or_default();
        }
        if let Some(field) = table.get("build") {
            file.build = read_build(&mut reader, &field).unwrap_or_default();
        }
    }
    file
}

fn read_imports(reader: &mut Reader<'_>, table: &Table<'_>, dir: &Path, file: &mut SpecFile) {
    for entry in table.entries(reader, "imports") {
        reader.accept_key(&entry, "an import's alias", checks::alias(entry.key));
        let import = match entry.value {
            DeValue::String(_) => reader.checked(&entry, checks::local_path).map(Import::File),
            _ => imported::read(reader, &entry, dir),
        };
        let alias = entry.key.to_owned();
        match import {
            Some(Import::File(path)) => drop(file.imports.insert(alias, path)),
            Some(Import::Elsewhere(import)) => drop(file.elsewhere.insert(alias, import)),
            None => drop(file.broken_imports.insert(alias)),
        }
    }
}

fn read_debian(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Debian> {
    let table = reader.table(field, "`[debian]`".to_owned(), keys::DEBIAN.iter().collect())?;
    let elements = table.elements(reader, "sources");
    let sources: Vec<String> = (elements.iter())
        .filter_map(|element| reader.checked(element, checks::nonempty))
        .map(|source| source.value)
        .collect();
    let keyring = table.get("keyring").and_then(|field| {
        if elements.is_empty() {
            let diagnostic = Diagnostic::new("`keyring` has no effect without `sources`")
                .at(field.key_span.clone(), "the machine's sources have their own")
                .help("add `sources = [\"deb …\"]`, or leave `keyring` out");
            reader.error(diagnostic);
        }
        reader.checked(&field, checks::local_path)
    });
    Some(Debian {
        sources,
        keyring: keyring.map(|keyring| keyring.value),
        architecture: (table.checked(reader, "architecture", checks::architecture))
            .map(|architecture| architecture.value),
        snapshots: (table.elements(reader, "snapshots").iter())
            .filter_map(|element| reader.checked(element, checks::url))
            .map(|address| address.value)
            .collect(),
        base: read_base(reader, &table),
    })
}

fn read_inputs(reader: &mut Reader<'_>, field: &Field<'_>, dir: &Path) -> Option<Inputs> {
    let table = reader.table(field, "`[inputs]`".to_owned(), keys::INPUTS.iter().collect())?;
    let mut from = Vec::new();
    for element in table.elements(reader, "from") {
        from.extend(reader.checked(&element, checks::input_place));
    }
    let mut withhold: Vec<Spanned<Withheld>> = Vec::new();
    for element in table.elements(reader, "withhold") {
        withhold.extend(reader.checked(&element, withheld));
    }
    Some(Inputs {
        dir: dir.to_owned(),
        from,
        withhold,
    })
}

fn read_cache(reader: &mut Reader<'_>, field: &Field<'_>, dir: &Path) -> Option<SharedCaches> {
    let table = reader.table(field, "`[cache]`".to_owned(), keys::SHARED_CACHE.iter().collect())?;
    let mut checked = |key: &'static str, check: fn(&str) -> checks::Check<String>| -> Vec<Spanned<String>> {
        let elements = table.elements(reader, key);
        let values = elements.iter().filter_map(|element| reader.checked(element, check));
        values.collect()
    };
    Some(SharedCaches {
        dir: dir.to_owned(),
        from: checked("from", checks::cache_place),
        to: checked("to", checks::written_cache_place),
        trusted_keys: checked("trusted-keys", checks::public_key),
    })
}

fn read_build(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<BuildSettings> {
    let table = reader.table(field, "`[build]`".to_owned(), keys::BUILD.iter().collect())?;
    let max_memory = table.get("max-memory").and_then(|field| {
        if matches!(field.value, DeValue::Integer(_)) {
            let help = "write the unit: `\"512MiB\"`, `\"8GB\"`".to_owned();
            reader.wrong_type(&field, "a string", Some(help));
            return None;
        }
        Some(reader.checked(&field, checks::size)?.value)
    });
    let max_processes = table.get("max-processes").and_then(|field| {
        let count = reader.integer(&field, 1, keys::PROCESSES_MAX)?;
        u64::try_from(count).ok()
    });
    Some(BuildSettings {
        max_memory,
        max_processes,
        require: table
            .checked(reader, "require", checks::walls)
            .map(|require| require.value),
        emulate: table
            .checked(reader, "emulate", checks::emulate)
            .map(|emulate| emulate.value)
            .unwrap_or_default(),
        cross: table.flag(reader, "cross").unwrap_or_default(),
    })
}

fn withheld(text: &str) -> checks::Check<Withheld> {
    let (name, kind): (_, fn(String) -> Withheld) = match text.split_once(':') {
        Some(("deb", name)) => (name, Withheld::Deb),
        Some(("deb-source", name)) => (name, Withheld::DebSource),
        _ => {
            return Err(checks::Complaint {
                label: "it names no Debian package".to_owned(),
                help: Some(
                    "write `deb:NAME` or `deb-source:NAME`; a `url` source has `redistribute = false` of its own"
                        .to_owned(),
                ),
            });
        }
    };
    checks::debian_name(name).map(|()| kind(name.to_owned()))
}

fn read_base(reader: &mut Reader<'_>, table: &Table<'_>) -> Option<Vec<String>> {
    let field = table.get("base")?;
    let check = |text: &str| match text.strip_prefix("deb:") {
        Some(bare) => Err(checks::Complaint {
            label: "`deb:` is implied here".to_owned(),
            help: Some(format!("write `{bare}`")),
        }),
        None => checks::debian_name(text).map(|()| text.to_owned()),
    };
    let elements = reader.array(&field);
    let names = elements
        .iter()
        .filter_map(|element| reader.checked(element, check))
        .map(|name| name.value);
    Some(names.collect())
}
