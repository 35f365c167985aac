//! *Image files*: what a spec itself puts into an image, by absolute path.
//!
//! Invariant: each entry is of exactly one kind, and none stands below another that cannot be a directory.

use std::collections::BTreeMap;

use toml::de::DeValue;

use super::checks;
use super::diagnostics::Diagnostic;
use super::image::KnownAccounts;
use super::image_entries::{ImageFile, ImageFileKind, Permission, PermissionPaths};
use super::keys::{self, ID_MAX};
use super::reader::{Field, Reader, Table};
use super::types::Spanned;
use crate::capability::{CapabilityClauses, FileCapabilities, ParseCapabilitiesError};

/// Reads `files` of an image.
pub(super) fn read(
    reader: &mut Reader<'_>,
    table: &Table<'_>,
    known: &KnownAccounts<'_>,
) -> BTreeMap<String, Spanned<ImageFile>> {
    let mut files = BTreeMap::new();
    for entry in table.entries(reader, "files") {
        reader.accept_key(&entry, "a file's path in the image", checks::file_path(entry.key));
        if let Some(file) = read_file(reader, &entry, known) {
            let span = entry.key_span.clone();
            files.insert(entry.key.to_owned(), Spanned { value: file, span });
        }
    }
    refuse_below_files(reader, &files);
    files
}

/// A string is a path; a table has exactly one of `source`, `text`, `symlink` and `directory`.
fn read_file(reader: &mut Reader<'_>, entry: &Field<'_>, known: &KnownAccounts<'_>) -> Option<ImageFile> {
    if matches!(entry.value, DeValue::String(_)) {
        let path = reader.checked(entry, checks::local_path)?;
        return Some(ImageFile {
            kind: ImageFileKind::Source(path.value),
            mode: None,
            owner: None,
            group: None,
        });
    }
    if !matches!(entry.value, DeValue::Table(_)) {
        let help = "write the path of a file, or `{ text = \"…\" }`".to_owned();
        reader.wrong_type(entry, "a string or a table", Some(help));
        return None;
    }
    let table = reader.table(entry, format!("file `{}`", entry.key), keys::FILE.iter().collect())?;
    let mode = table.get("mode").and_then(|field| read_mode(reader, &field));
    let mut account = |key| table.get(key).and_then(|field| read_account(reader, &field, known));
    let (owner, group) = (account("owner"), account("group"));
    let kind = read_kind(reader, &table)?;
    if entry.key == "/" && !matches!(kind, ImageFileKind::Source(_) | ImageFileKind::Directory) {
        let diagnostic = Diagnostic::new("`/` must be a directory")
            .at(entry.span.clone(), "something else")
            .help("name a path below it: `\"/motd\" = { text = \"…\" }`");
        reader.error(diagnostic);
    }
    if matches!(kind, ImageFileKind::Symlink(_)) {
        for key in ["mode", "owner", "group"] {
            if let Some(field) = table.get(key) {
                let diagnostic = Diagnostic::new(format!("{} has no effect on a symlink", field.title()));
                reader.error(diagnostic.at(field.key_span, "leave it out"));
            }
        }
    }
    Some(ImageFile {
        kind,
        mode,
        owner,
        group,
    })
}

/// Reads `permissions` of an image.
pub(super) fn read_permissions(
    reader: &mut Reader<'_>,
    table: &Table<'_>,
    known: &KnownAccounts<'_>,
) -> Vec<Permission> {
    let elements = table.elements(reader, "permissions");
    let rules = elements
        .iter()
        .filter_map(|element| read_permission(reader, element, known));
    rules.collect()
}

fn read_permission(reader: &mut Reader<'_>, element: &Field<'_>, known: &KnownAccounts<'_>) -> Option<Permission> {
    let table = reader.table(element, element.title(), keys::PERMISSION.iter().collect())?;
    let mode = table.get("mode").and_then(|field| read_mode(reader, &field));
    let mut account = |key| table.get(key).and_then(|field| read_account(reader, &field, known));
    let (owner, group) = (account("owner"), account("group"));
    let capabilities = table
        .get("capabilities")
        .and_then(|field| read_capabilities(reader, &field));
    let changes = ["mode", "owner", "group", "capabilities"];
    if changes.iter().all(|key| table.get(key).is_none()) {
        let diagnostic = Diagnostic::new(format!("{} changes nothing", table.what))
            .at(
                element.span.clone(),
                "`mode`, `owner`, `group` and `capabilities` are missing",
            )
            .help("add for example `mode = \"0750\"`");
        reader.error(diagnostic);
    }
    let paths = match (table.get("path"), table.get("pattern")) {
        (Some(field), None) => PermissionPaths::Path(reader.checked(&field, checks::absolute_path)?.value),
        (None, Some(field)) => PermissionPaths::Pattern(reader.checked(&field, checks::pattern)?.value),
        _ => {
            let diagnostic = Diagnostic::new(format!("{} must have a `path` or a `pattern`", table.what))
                .at(element.span.clone(), "one of them, not both")
                .help("write `{ path = \"/var/lib/app\", … }` or `{ pattern = \"/srv/**\", … }`");
            reader.error(diagnostic);
            return None;
        }
    };
    Some(Permission {
        paths,
        mode,
        owner,
        group,
        capabilities,
    })
}

/// Clauses of libcap's text form, which together say what the files have; none: that they have nothing.
fn read_capabilities(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<FileCapabilities> {
    let complaint = |error: ParseCapabilitiesError| checks::Complaint {
        label: error.to_string(),
        help: error.help(),
    };
    let elements = reader.array(field);
    let DeValue::Array(_) = field.value else { return None };
    if elements.is_empty() {
        return Some(FileCapabilities::default());
    }
    let (mut clauses, mut all_fit) = (CapabilityClauses::default(), true);
    for element in &elements {
        let added = reader.text(element).map(|text| clauses.add(&text.value));
        all_fit &= match added {
            None => false,
            Some(added) => reader.accept(element, added.map_err(complaint)).is_some(),
        };
    }
    match all_fit {
        true => reader.accept(field, clauses.finish().map_err(complaint)),
        false => None,
    }
}

fn read_kind(reader: &mut Reader<'_>, table: &Table<'_>) -> Option<ImageFileKind> {
    let given: Vec<Field<'_>> = ["source", "text", "symlink", "directory"]
        .iter()
        .filter_map(|key| table.get(key))
        .collect();
    let Some((field, others)) = given.split_first() else {
        let diagnostic = Diagnostic::new(format!("{} does not say what it is", table.what))
            .at(table.span.clone(), "one of `source`, `text`, `symlink` and `directory` is missing")
            .help("write `{ source = \"FILE\" }`, `{ text = \"…\" }`, `{ symlink = \"TARGET\" }` or `{ directory = true }`");
        reader.error(diagnostic);
        return None;
    };
    for other in others {
        let diagnostic = Diagnostic::new(format!("{} has both `{}` and `{}`", table.what, field.key, other.key))
            .at(other.key_span.clone(), "an entry is of one kind")
            .help(format!("keep `{}` or `{}`", field.key, other.key));
        reader.error(diagnostic);
    }
    match field.key {
        "source" => reader
            .checked(field, checks::local_path)
            .map(|path| ImageFileKind::Source(path.value)),
        "text" => reader.text(field).map(|text| ImageFileKind::Text(text.value)),
        "symlink" => reader
            .checked(field, checks::nonempty)
            .map(|target| ImageFileKind::Symlink(target.value)),
        _ => {
            if reader.flag(field)? {
                return Some(ImageFileKind::Directory);
            }
            let diagnostic = Diagnostic::new(format!("{} has no content", table.what))
                .at(field.span.clone(), "only `true` has a meaning here");
            reader.error(diagnostic);
            None
        }
    }
}

/// A string in octal, or a TOML integer written in octal; a decimal one is a mistake.
fn read_mode(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<u32> {
    let integer = match field.value {
        DeValue::Integer(integer) => integer,
        DeValue::String(_) => return reader.checked(field, checks::mode).map(|mode| mode.value),
        _ => {
            let help = "write it in octal: `\"0644\"` or `0o644`".to_owned();
            reader.wrong_type(field, "a string or an integer", Some(help));
            return None;
        }
    };
    if integer.radix() == 8 {
        let mode = reader.integer(field, 0, 0o7777)?;
        return u32::try_from(mode).ok();
    }
    let digits = integer.as_str();
    let help = match checks::mode(digits) {
        Ok(_) => format!("write `0o{digits}` or `\"{digits:0>4}\"`"),
        Err(_) => "write `0o644` or `\"0644\"`".to_owned(),
    };
    let diagnostic = Diagnostic::new(format!("{} must be octal", field.title()))
        .at(field.span.clone(), "this integer is not octal")
        .help(help);
    reader.error(diagnostic);
    None
}

/// A name or an ID.
fn read_account(reader: &mut Reader<'_>, field: &Field<'_>, known: &KnownAccounts<'_>) -> Option<String> {
    if matches!(field.value, DeValue::Integer(_)) {
        return reader.integer(field, 0, ID_MAX).map(|id| id.to_string());
    }
    let name = reader.text(field)?.value;
    let checked = match name.split_once(':') {
        Some((owner, group)) => Err(checks::Complaint {
            label: "it contains a `:`".to_owned(),
            help: Some(format!("write `owner = \"{owner}\", group = \"{group}\"`")),
        }),
        None => known.check(&name),
    };
    reader.accept(field, checked).map(|()| name)
}

/// A text or symlink cannot have entries below it.
fn refuse_below_files(reader: &mut Reader<'_>, files: &BTreeMap<String, Spanned<ImageFile>>) {
    for (path, file) in files {
        let ancestors = path.match_indices('/').skip(1).map(|(end, _)| &path[..end]);
        for ancestor in ancestors {
            let Some(above) = files.get(ancestor) else { continue };
            let what = match above.value.kind {
                ImageFileKind::Text(_) => "a file",
                ImageFileKind::Symlink(_) => "a symlink",
                ImageFileKind::Source(_) | ImageFileKind::Directory => continue,
            };
            let diagnostic = Diagnostic::new(format!("`{path}` cannot be below `{ancestor}`, {what}"))
                .at(file.span.clone(), format!("below {what}"))
                .note_at(above.span.clone(), format!("{what}, not a directory"));
            reader.error(diagnostic);
        }
    }
}
