//! Reading a lock: hostile until every value has passed its check.

use std::collections::{BTreeMap, BTreeSet};

use toml::de::{DeTable, DeValue};

use crate::spec::checks::{self, Check, Complaint};
use crate::spec::diagnostics::{Diagnostic, Diagnostics};
use crate::spec::keys::Shape::{Count, Many, Map, Table as TableOf, Text};
use crate::spec::keys::{Key, key, required};
use crate::spec::reader::{Field, Reader, Table};
use crate::spec::syntax;
use crate::spec::{
    Golden, GoldenKey, Lock, LockedArchive, LockedBase, LockedDeb, LockedDebSource, LockedFile, LockedNix,
    LockedPlatform, LockedUrl, PackageName, SourceFile, Span, Spanned,
};

use super::accounts::{self, ACCOUNT};
use super::archives::{self, ARCHIVE};
use super::git::{self, COMMIT, GIT};
use super::python::{self, PYTHON};
use super::values::{alternatives, debian_version, file_name, pool_path, source_and_version};
use super::{FILE_NAME, VERSION};

/// Largest lock in bytes; ten thousand packages make some ten megabytes.
const TEXT_SIZE_MAX: usize = 256 << 20;

/// Largest number of a format.
const FORMAT_MAX: i64 = 1_000_000;

/// Largest file that a lock may pin, in bytes: 256 GiB.
pub(super) const FILE_SIZE_MAX: i64 = 256 << 30;

/// Reads a lock's text. What is wrong comes back all at once; an unknown version alone.
pub fn parse(text: &str) -> Result<Lock, Diagnostics> {
    let text = &*syntax::normalized(text);
    let mut errors = Vec::new();
    let lock = read(text, &mut errors);
    match lock.filter(|_| errors.is_empty()) {
        Some(lock) => Ok(lock),
        None => {
            let file = SourceFile {
                path: FILE_NAME.into(),
                text: text.to_owned(),
            };
            Err(Diagnostics::new(errors, vec![file]))
        }
    }
}

pub(super) const SIZE: Key = required(key("size", Count(0, FILE_SIZE_MAX), "Size in bytes."));
const SHA256: Key = required(key("sha256", Text, "Digest, 64 hexadecimal digits."));
const NAME: Key = required(key("name", Text, "Name."));
const ARCHIVE_NAME: Key = key("archive", Text, "Where it was found: name of an archive.");
const PACKAGE_VERSION: Key = required(key("version", Text, "Debian version."));

const ROOT: &[Key] = &[
    required(key("version", Count(VERSION, VERSION), "Version of the text.")),
    key("architecture", Text, "Debian architecture."),
    key("archive", Many(&TableOf(ARCHIVE)), "Archives, as they were."),
    key("deb", Many(&TableOf(DEB)), "Debian binary packages."),
    key("deb-set", Many(&TableOf(DEB_SET)), "What is resolved together."),
    key("deb-source", Many(&TableOf(DEB_SOURCE)), "Debian source packages."),
    key("url", Many(&TableOf(URL)), "Downloads."),
    key("git", Many(&TableOf(GIT)), "Trees of commits."),
    key(
        "commit",
        Many(&TableOf(COMMIT)),
        "Trees of commits that lock files of languages name.",
    ),
    key("python", Many(&TableOf(PYTHON)), "Files of Python projects."),
    key("nix", Many(&TableOf(NIX)), "Paths of Nix stores."),
    key("base", Many(&TableOf(BASE)), "Bases of images."),
    key("account", Many(&TableOf(ACCOUNT)), "Numbers of users and groups."),
    key("golden", Many(&TableOf(GOLDEN)), "Digests of images."),
    key(
        "platform",
        Map(&TableOf(PLATFORM)),
        "What is for further platforms, by Debian architecture.",
    ),
    key(
        "machine",
        Map(&TableOf(MACHINE)),
        "What machines need to build for other ones, by Debian architecture.",
    ),
];
const MACHINE: &[Key] = &[
    key("archive", Many(&TableOf(ARCHIVE)), "Archives, as they were."),
    key("deb", Many(&TableOf(DEB)), "Debian binary packages."),
    key("deb-set", Many(&TableOf(DEB_SET)), "What is resolved together."),
];
const PLATFORM: &[Key] = &[
    key("archive", Many(&TableOf(ARCHIVE)), "Archives, as they were."),
    key("deb", Many(&TableOf(DEB)), "Debian binary packages."),
    key("deb-set", Many(&TableOf(DEB_SET)), "What is resolved together."),
    key("python", Many(&TableOf(PYTHON)), "Files of Python projects."),
    key("base", Many(&TableOf(BASE)), "Bases of images."),
];
const BASE: &[Key] = &[
    required(key("image", Text, "The image over it.")),
    required(key("reference", Text, "Where it is.")),
    required(key("platform", Text, "`os/arch[/variant]`.")),
    SHA256,
];
const DEB: &[Key] = &[
    NAME,
    ARCHIVE_NAME,
    PACKAGE_VERSION,
    required(key("architecture", Text, "Debian architecture, or `all`.")),
    required(key("filename", Text, "Path in the archive.")),
    SIZE,
    SHA256,
    required(key("depends", Many(&Text), "Names, alternatives separated by ` | `.")),
    required(key("source", Text, "`NAME=VERSION` of its source package.")),
];
const DEB_SET: &[Key] = &[
    required(key("wanted", Many(&Text), "Names.")),
    required(key("resolved", Many(&Text), "Names.")),
];
const DEB_SOURCE: &[Key] = &[
    NAME,
    ARCHIVE_NAME,
    PACKAGE_VERSION,
    required(key("directory", Text, "Directory in the archive.")),
    required(key("files", Many(&TableOf(FILE)), "The `.dsc` and what it lists.")),
];
const FILE: &[Key] = &[NAME, SIZE, SHA256];
const GOLDEN: &[Key] = &[
    required(key("image", Text, "Name.")),
    required(key("platform", Text, "What it is for.")),
    required(key("compression", Text, "How its layers are stored.")),
    required(key("format", Count(1, FORMAT_MAX), "Number of the rules.")),
    required(key("inputs", Text, "Digest, 64 hexadecimal digits.")),
    required(key("digest", Text, "`sha256:` and 64 hexadecimal digits.")),
];
const URL: &[Key] = &[required(key("package", Text, "Qualified name.")), SIZE, SHA256];

const NIX: &[Key] = &[
    required(key("name", Text, "The path, or the link that led to it.")),
    required(key("path", Text, "Path in the Nix store.")),
    required(key("nar-sha256", Text, "Digest of its archive, 64 hexadecimal digits.")),
    required(key(
        "closure-sha256",
        Text,
        "Digest of its closure, 64 hexadecimal digits.",
    )),
];

fn read(text: &str, errors: &mut Vec<Diagnostic>) -> Option<Lock> {
    if text.len() > TEXT_SIZE_MAX {
        errors.push(Diagnostic::new(format!(
            "the lock is larger than {TEXT_SIZE_MAX} bytes"
        )));
        return None;
    }
    if let Some(marker) = conflict_marker(text) {
        let diagnostic = Diagnostic::new("the lock contains an unresolved merge conflict")
            .at(marker, "conflict marker")
            .help("keep either side of it, then run `layerize lock`");
        errors.push(diagnostic);
        return None;
    }
    let (document, syntax) = DeTable::parse_recoverable(text);
    if !syntax.is_empty() {
        errors.extend(
            syntax
                .iter()
                .map(|error| syntax::describe(0, text, document.get_ref(), error)),
        );
        return None;
    }
    let mut reader = Reader { file: 0, errors };
    check_version(&mut reader, document.get_ref())?;
    let table = reader.document(document.get_ref(), "the lock", ROOT);
    let mut lock = Lock {
        architecture: (table.checked(&mut reader, "architecture", checks::architecture)).map(|name| name.value),
        ..Lock::default()
    };
    let known = read_archives(&mut reader, &table);
    for entry in table.elements(&mut reader, "deb") {
        let deb = read_deb(&mut reader, &entry, &known);
        insert(&mut reader, &entry, &mut lock.debs, deb);
    }
    for entry in table.elements(&mut reader, "deb-source") {
        let source = read_deb_source(&mut reader, &entry, &known);
        insert(&mut reader, &entry, &mut lock.deb_sources, source);
    }
    fill(&mut reader, &table, "url", &mut lock.urls, read_url);
    fill(&mut reader, &table, "git", &mut lock.git, git::read);
    fill(&mut reader, &table, "commit", &mut lock.commits, git::read_commit);
    fill(&mut reader, &table, "python", &mut lock.python, python::read);
    fill(&mut reader, &table, "nix", &mut lock.nix, read_nix);
    fill(&mut reader, &table, "base", &mut lock.bases, read_base);
    fill(&mut reader, &table, "account", &mut lock.accounts, accounts::read);
    fill(&mut reader, &table, "golden", &mut lock.golden, read_golden);
    if reader.errors.is_empty() {
        check_architectures(&mut reader, &table, lock.architecture.as_deref());
        lock.deb_sets = read_deb_sets(&mut reader, &table, &lock.debs);
    }
    for field in table.entries(&mut reader, "platform") {
        let platform = read_platform(&mut reader, &field, lock.architecture.as_deref());
        lock.elsewhere.extend(platform);
    }
    for field in table.entries(&mut reader, "machine") {
        let machine = read_machine(&mut reader, &field);
        lock.machines.extend(machine);
    }
    Some(lock)
}

/// What is for a further platform.
fn read_platform(reader: &mut Reader<'_>, field: &Field<'_>, own: Option<&str>) -> Option<(String, LockedPlatform)> {
    let architecture = field.key.to_owned();
    reader.accept_key(field, "an architecture", checks::architecture(&architecture))?;
    if own.is_none_or(|own| own == architecture) {
        let message = match own {
            Some(_) => format!("what is for `{architecture}` stands in two places"),
            None => "the lock has several platforms, and no `architecture` of its own".to_owned(),
        };
        let diagnostic = Diagnostic::new(message)
            .at(field.key_span.clone(), "a further platform")
            .help("run `layerize lock --update` to regenerate the lock");
        reader.error(diagnostic);
        return None;
    }
    let table = reader.table(field, format!("platform `{architecture}`"), PLATFORM.iter().collect())?;
    let mut platform = read_debs(reader, &table, &architecture);
    fill(reader, &table, "python", &mut platform.python, python::read);
    fill(reader, &table, "base", &mut platform.bases, read_base);
    Some((architecture, platform)).filter(|(_, platform)| *platform != LockedPlatform::default())
}

/// What machines of one architecture need to build for others.
fn read_machine(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<(String, LockedPlatform)> {
    let architecture = field.key.to_owned();
    reader.accept_key(field, "an architecture", checks::architecture(&architecture))?;
    let table = reader.table(field, format!("machine `{architecture}`"), MACHINE.iter().collect())?;
    let machine = read_debs(reader, &table, &architecture);
    Some((architecture, machine)).filter(|(_, machine)| *machine != LockedPlatform::default())
}

/// Debian packages of one architecture and what they are resolved to.
fn read_debs(reader: &mut Reader<'_>, table: &Table<'_>, architecture: &str) -> LockedPlatform {
    let known = read_archives(reader, table);
    let mut platform = LockedPlatform::default();
    for entry in table.elements(reader, "deb") {
        let deb = read_deb(reader, &entry, &known);
        insert(reader, &entry, &mut platform.debs, deb);
    }
    if reader.errors.is_empty() {
        check_architectures(reader, table, Some(architecture));
        platform.deb_sets = read_deb_sets(reader, table, &platform.debs);
    }
    platform
}

fn read_archives(reader: &mut Reader<'_>, table: &Table<'_>) -> BTreeMap<String, LockedArchive> {
    let mut known = BTreeMap::new();
    for entry in table.elements(reader, "archive") {
        let archive = archives::read(reader, &entry);
        insert(reader, &entry, &mut known, archive);
    }
    known
}

fn read_deb_sets(
    reader: &mut Reader<'_>,
    table: &Table<'_>,
    debs: &BTreeMap<String, LockedDeb>,
) -> BTreeMap<Vec<String>, Vec<String>> {
    let mut sets = BTreeMap::new();
    for entry in table.elements(reader, "deb-set") {
        let set = read_deb_set(reader, &entry, debs);
        insert(reader, &entry, &mut sets, set);
    }
    sets
}

fn conflict_marker(text: &str) -> Option<Span> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if ["<<<<<<< ", "=======", ">>>>>>> "]
            .iter()
            .any(|marker| line.starts_with(marker))
        {
            return Some(Span {
                file: 0,
                range: start..start + line.trim_end().len(),
            });
        }
        start += line.len();
    }
    None
}

/// The version comes first: nothing can be said of the keys of a version that is not known.
fn check_version(reader: &mut Reader<'_>, document: &DeTable<'_>) -> Option<()> {
    let again = "run `layerize lock` to regenerate it";
    let Some(version) = document.get("version") else {
        let diagnostic = Diagnostic::new("the lock has no `version`");
        reader.error(diagnostic.at(reader.span(0..0), "`version = 1` is missing").help(again));
        return None;
    };
    if let DeValue::Integer(integer) = version.get_ref()
        && i64::from_str_radix(integer.as_str(), integer.radix()) == Ok(VERSION)
    {
        return Some(());
    }
    let diagnostic = Diagnostic::new("the lock's version is not known")
        .at(
            reader.span(version.span()),
            format!("this layerize reads version {VERSION}"),
        )
        .help(format!("use a newer layerize, or {again}"));
    reader.error(diagnostic);
    None
}

/// Reads all entries of a kind.
fn fill<K: Ord, V>(
    reader: &mut Reader<'_>,
    table: &Table<'_>,
    kind: &'static str,
    map: &mut BTreeMap<K, V>,
    read: fn(&mut Reader<'_>, &Field<'_>) -> Option<(K, V)>,
) {
    for entry in table.elements(reader, kind) {
        let found = read(reader, &entry);
        insert(reader, &entry, map, found);
    }
}

fn insert<K: Ord, V>(reader: &mut Reader<'_>, entry: &Field<'_>, map: &mut BTreeMap<K, V>, read: Option<(K, V)>) {
    let Some((key, value)) = read else { return };
    if map.insert(key, value).is_some() {
        let diagnostic = Diagnostic::new(format!("two entries of `{}` have the same name", entry.key))
            .at(entry.span.clone(), "named again")
            .help("keep one of them, then run `layerize lock`");
        reader.error(diagnostic);
    }
}

/// Opens an entry of an array of tables; all its keys but optional ones must be there.
pub(super) fn open<'t>(reader: &mut Reader<'_>, entry: &Field<'t>, keys: &'static [Key]) -> Option<Table<'t>> {
    let named = match entry.value {
        DeValue::Table(entries) => ["name", "package", "image", "commit"]
            .iter()
            .find_map(|key| entries.get(*key)?.get_ref().as_str()),
        _ => None,
    };
    let what = match named {
        Some(name) => format!("`{}` entry `{name}`", entry.key),
        None => format!("a `{}` entry", entry.key),
    };
    let place = entry.span.clone();
    let table = reader.table(entry, what, keys.iter().collect())?;
    let missing: Vec<&str> = (keys.iter())
        .filter(|key| key.required && table.get(key.name).is_none())
        .map(|key| key.name)
        .collect();
    if missing.is_empty() {
        return Some(table);
    }
    let diagnostic = Diagnostic::new(format!("{} is incomplete", table.what))
        .at(place, format!("`{}` is missing", missing.join("`, `")))
        .help("run `layerize lock` to regenerate it");
    reader.error(diagnostic);
    None
}

fn read_deb(
    reader: &mut Reader<'_>,
    entry: &Field<'_>,
    known: &BTreeMap<String, LockedArchive>,
) -> Option<(String, LockedDeb)> {
    let table = open(reader, entry, DEB)?;
    let name = table.checked(reader, "name", named(checks::debian_name));
    let archive = archives::of_entry(reader, &table, known);
    let version = table.checked(reader, "version", debian_version);
    let architecture = table.checked(reader, "architecture", |text| match text {
        "all" => Ok(text.to_owned()),
        _ => checks::architecture(text),
    });
    let filename = table.checked(reader, "filename", pool_path);
    let pinned = read_pin(reader, &table);
    let depends: Vec<Spanned<Vec<String>>> = (table.elements(reader, "depends").iter())
        .filter_map(|element| reader.checked(element, alternatives))
        .collect();
    let source = table.checked(reader, "source", source_and_version);
    let (size, sha256) = pinned?;
    Some((
        name?.value,
        LockedDeb {
            archive,
            version: version?.value,
            architecture: architecture?.value,
            filename: filename?.value,
            size,
            sha256,
            depends: depends.into_iter().map(|any| any.value).collect(),
            source: source?.value,
        },
    ))
}

fn read_deb_source(
    reader: &mut Reader<'_>,
    entry: &Field<'_>,
    known: &BTreeMap<String, LockedArchive>,
) -> Option<(String, LockedDebSource)> {
    let table = open(reader, entry, DEB_SOURCE)?;
    let name = table.checked(reader, "name", named(checks::debian_name));
    let archive = archives::of_entry(reader, &table, known);
    let version = table.checked(reader, "version", debian_version);
    let directory = table.checked(reader, "directory", pool_path);
    let mut files: Vec<LockedFile> = Vec::new();
    for element in table.elements(reader, "files") {
        let Some(file) = read_file(reader, &element) else {
            continue;
        };
        if files.iter().any(|earlier| earlier.name == file.name) {
            let diagnostic = Diagnostic::new(format!("file `{}` is named twice", file.name));
            reader.error(diagnostic.at(element.span.clone(), "named again"));
        }
        files.push(file);
    }
    if files.iter().filter(|file| file.name.ends_with(".dsc")).count() != 1 {
        let diagnostic = Diagnostic::new(format!("{} must have one `.dsc` file", table.what));
        reader.error(diagnostic.at(table.get("files")?.key_span, "its files"));
    }
    Some((
        name?.value,
        LockedDebSource {
            archive,
            version: version?.value,
            directory: directory?.value,
            files,
        },
    ))
}

fn read_file(reader: &mut Reader<'_>, element: &Field<'_>) -> Option<LockedFile> {
    let table = open(reader, element, FILE)?;
    let name = table.checked(reader, "name", file_name);
    let (size, sha256) = read_pin(reader, &table)?;
    Some(LockedFile {
        name: name?.value,
        size,
        sha256,
    })
}

fn read_url(reader: &mut Reader<'_>, entry: &Field<'_>) -> Option<(PackageName, LockedUrl)> {
    let table = open(reader, entry, URL)?;
    let package = table.checked(reader, "package", qualified_name);
    let (size, sha256) = read_pin(reader, &table)?;
    Some((package?.value, LockedUrl { size, sha256 }))
}

/// A package's name with the aliases that lead to it.
pub(super) fn qualified_name(text: &str) -> Check<PackageName> {
    text.split(':').try_for_each(checks::package_name)?;
    Ok(PackageName(text.to_owned()))
}

fn read_nix(reader: &mut Reader<'_>, entry: &Field<'_>) -> Option<(String, LockedNix)> {
    let table = open(reader, entry, NIX)?;
    let name = table.checked(reader, "name", checks::nonempty);
    let path = table.checked(reader, "path", checks::nix_path);
    let nar_hash = table.checked(reader, "nar-sha256", checks::sha256);
    let closure = table.checked(reader, "closure-sha256", checks::sha256);
    Some((
        name?.value,
        LockedNix {
            path: path?.value,
            nar_hash: nar_hash?.value,
            closure: closure?.value,
        },
    ))
}

fn read_base(reader: &mut Reader<'_>, entry: &Field<'_>) -> Option<(String, LockedBase)> {
    let table = open(reader, entry, BASE)?;
    let image = table.checked(reader, "image", named(checks::image_name));
    let reference = table.checked(reader, "reference", checks::base_image);
    let platform = table.checked(reader, "platform", checks::platform);
    let sha256 = table.checked(reader, "sha256", checks::sha256);
    Some((
        image?.value,
        LockedBase {
            reference: reference?.value,
            platform: platform?.value,
            sha256: sha256?.value,
        },
    ))
}

fn read_golden(reader: &mut Reader<'_>, entry: &Field<'_>) -> Option<(GoldenKey, Golden)> {
    let table = open(reader, entry, GOLDEN)?;
    let image = table.checked(reader, "image", named(checks::image_name));
    let platform = table.checked(reader, "platform", checks::platform);
    let compression = table.checked(reader, "compression", checks::compression);
    let format = reader.integer(&table.get("format")?, 1, FORMAT_MAX);
    let inputs = table.checked(reader, "inputs", checks::sha256);
    let digest = table.checked(reader, "digest", |text| match text.strip_prefix("sha256:") {
        Some(hex) => checks::sha256(hex),
        None => refuse("it must begin with `sha256:`"),
    });
    let key = GoldenKey {
        image: image?.value,
        platform: platform?.value,
        compression: compression?.value,
        format: u32::try_from(format?).ok()?,
    };
    let golden = Golden {
        inputs: inputs?.value,
        digest: digest?.value,
    };
    Some((key, golden))
}

fn read_pin(reader: &mut Reader<'_>, table: &Table<'_>) -> Option<(u64, crate::digest::Digest)> {
    let size = reader.integer(&table.get("size")?, 0, FILE_SIZE_MAX);
    let sha256 = table.checked(reader, "sha256", checks::sha256);
    Some((u64::try_from(size?).ok()?, sha256?.value))
}

/// What is wanted must be among what is resolved, and all of that among the locked packages.
fn read_deb_set(
    reader: &mut Reader<'_>,
    entry: &Field<'_>,
    debs: &BTreeMap<String, LockedDeb>,
) -> Option<(Vec<String>, Vec<String>)> {
    let table = open(reader, entry, DEB_SET)?;
    let mut names = |key, known: &dyn Fn(&str) -> bool, where_: &str| {
        let mut names = BTreeSet::new();
        for element in table.elements(reader, key) {
            let Some(name) = reader.checked(&element, named(checks::debian_name)) else {
                continue;
            };
            if !known(&name.value) {
                let diagnostic = Diagnostic::new(format!("`{}` is not among {where_}", name.value))
                    .at(name.span.clone(), "not there")
                    .help("run `layerize lock` to resolve it again");
                reader.error(diagnostic);
            }
            names.insert(name.value);
        }
        names
    };
    let resolved = names("resolved", &|name| debs.contains_key(name), "the locked packages");
    let wanted = names("wanted", &|name| resolved.contains(name), "what it resolves to");
    Some((wanted.into_iter().collect(), resolved.into_iter().collect()))
}

/// All packages in a table are for its one architecture, or for all.
fn check_architectures(reader: &mut Reader<'_>, table: &Table<'_>, locked: Option<&str>) {
    for element in table.elements(reader, "deb") {
        let DeValue::Table(entries) = element.value else {
            continue;
        };
        let Some(architecture) = entries.get("architecture") else {
            continue;
        };
        let text = architecture.get_ref().as_str();
        if locked.is_none() || (text != Some("all") && text != locked) {
            let label = match locked {
                Some(locked) => format!("{} is for `{locked}`", table.what),
                None => "the lock has no `architecture`".to_owned(),
            };
            let diagnostic = Diagnostic::new("a Debian package for another architecture than the lock")
                .at(reader.span(architecture.span()), label)
                .help("run `layerize lock` to regenerate it");
            reader.error(diagnostic);
        }
    }
}

pub(super) fn named(check: fn(&str) -> Check) -> impl Fn(&str) -> Check<String> {
    move |text| check(text).map(|()| text.to_owned())
}

pub(super) fn refuse<T>(label: &str) -> Check<T> {
    Err(Complaint {
        label: label.to_owned(),
        help: None,
    })
}
