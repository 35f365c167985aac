//! What an image says of Debian packages by a word: `essential`, `exclude`.
//!
//! Invariant: `essential` is nothing but a short way to write names of `root`; what `exclude` names, `root` does not.

use super::diagnostics::Diagnostic;
use super::package::dependencies;
use super::reader::{Reader, Table};
use super::types::{DEBIAN_REQUIRED, Dependency, Spanned};

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
    for name in DEBIAN_REQUIRED {
        let value = Dependency::Debian((*name).to_owned());
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
