//! What an image says of Debian packages by a word: `essential`, `exclude`, `debconf`, `locales`.
//!
//! Invariant: `essential` is nothing but a short way to write names of `root`; what `exclude` names, `root` does not; what
//! only a configure step heeds is an error where none can run.

use std::collections::BTreeSet;

use super::checks::{Check, Complaint};
use super::diagnostics::Diagnostic;
use super::needs::wants_scripts;
use super::package::dependencies;
use super::reader::{Reader, Table};
use super::types::{DEBIAN_ESSENTIAL, DEBIAN_REQUIRED, Dependency, Image, Spanned};

/// `root` with the packages that `essential = true` stands for after those that it names.
pub(super) fn with_essential(
    reader: &mut Reader<'_>,
    table: &Table<'_>,
    mut root: Vec<Spanned<Dependency>>,
) -> Vec<Spanned<Dependency>> {
    let Some(field) = table.get("essential") else {
        return root;
    };
    if reader.flag(&field) != Some(true) {
        return root;
    }
    let mut names = [DEBIAN_ESSENTIAL, DEBIAN_REQUIRED].concat();
    names.sort_unstable();
    for name in names {
        let value = Dependency::Debian(name.to_owned());
        if root.iter().all(|named| named.value != value) {
            let span = field.key_span.clone();
            root.push(Spanned { value, span });
        }
    }
    root
}

/// `exclude = ["deb:NAME"]`, sorted; `root` is what the user wrote there.
pub(super) fn read_exclude(
    reader: &mut Reader<'_>,
    table: &Table<'_>,
    root: &[Spanned<Dependency>],
) -> Vec<Spanned<String>> {
    let mut excluded = Vec::new();
    for dependency in dependencies(reader, table, "exclude") {
        let named = root.iter().find(|named| named.value == dependency.value);
        match (&dependency.value, named) {
            (value, Some(named)) => reader.error(
                Diagnostic::new(format!("`{value}` is in `root` and in `exclude`"))
                    .at(dependency.span.clone(), "excluded here")
                    .note_at(named.span.clone(), "asked for here")
                    .help("leave it out of one of them: `exclude` is for what packages bring with them"),
            ),
            (Dependency::Debian(name), None) => excluded.push(Spanned {
                value: name.clone(),
                span: dependency.span,
            }),
            (other, None) => reader.error(
                Diagnostic::new(format!("`{other}` cannot be excluded"))
                    .at(dependency.span, "not a Debian package")
                    .help("write `deb:NAME`; for what a build refers to there is `strip-references` of its package"),
            ),
        }
    }
    excluded.sort_by(|a, b| a.value.cmp(&b.value));
    excluded
}

/// The name of a question of debconf: `tzdata/Areas`.
pub(super) fn question(name: &str) -> Check {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"#\\".contains(&byte);
    let parts = name
        .split_once('/')
        .filter(|(package, rest)| !package.is_empty() && !rest.is_empty());
    match parts {
        Some(_) if name.bytes().all(is_plain) => Ok(()),
        _ => Err(Complaint {
            label: "not the name of a question".to_owned(),
            help: Some("write `\"PACKAGE/QUESTION\" = \"ANSWER\"`, as the package's templates name it".to_owned()),
        }),
    }
}

/// `locales = ["en_US.UTF-8"]`, sorted.
pub(super) fn read_locales(reader: &mut Reader<'_>, table: &Table<'_>) -> Vec<String> {
    let mut names = BTreeSet::new();
    for element in table.elements(reader, "locales") {
        names.extend(reader.checked(&element, locale).map(|name| name.value));
    }
    names.into_iter().collect()
}

/// The name of a locale; whether Debian has it shows when it is made.
fn locale(name: &str) -> Check<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.@-".contains(&byte);
    let is_one = name.starts_with(|c: char| c.is_ascii_lowercase() || c == 'C') && name.bytes().all(allowed);
    match is_one && name.len() <= 64 {
        true => Ok(name.to_owned()),
        false => Err(Complaint {
            label: "not the name of a locale".to_owned(),
            help: Some("write `LANGUAGE_COUNTRY.CHARSET`, such as `en_US.UTF-8`".to_owned()),
        }),
    }
}

/// A base's authorities are the base's: what it trusts is in a file that would be replaced.
pub(super) fn check_certificates(reader: &mut Reader<'_>, table: &Table<'_>, image: &Image) {
    if let Some(field) = table.get("certificates")
        && image.certificates.is_some()
        && image.base.is_some()
    {
        let diagnostic = Diagnostic::new(format!("{} has no effect over a base", field.title()))
            .at(field.key_span, "what a base trusts is the base's")
            .help("add them to the base, or give it a whole bundle: `files = { \"/etc/ssl/certs/ca-certificates.crt\" = \"FILE\" }`");
        reader.error(diagnostic);
    }
}

/// What needs a configure step is refused where there can be none.
pub(super) fn check_scripts(reader: &mut Reader<'_>, table: &Table<'_>, image: &Image) {
    if wants_scripts(image) {
        return;
    }
    let asked = [
        ("debconf", image.debconf.is_empty()),
        ("locales", image.locales.is_empty()),
    ];
    for (key, _) in asked.into_iter().filter(|(_, is_empty)| !is_empty) {
        let Some(field) = table.get(key) else { continue };
        let (label, help) = match (&image.base, image.configure.is_none()) {
            (Some(_), _) => ("over a base no maintainer scripts run", "make it in the base"),
            (None, true) if !image.root.is_empty() => ("`configure` is `false`", "leave out `configure = false`"),
            _ => (
                "there are no packages whose scripts could run",
                "name Debian packages in `root = [\"deb:NAME\"]`",
            ),
        };
        let diagnostic = Diagnostic::new(format!("{} has no effect here", field.title()));
        reader.error(diagnostic.at(field.key_span, label).help(help));
    }
}
