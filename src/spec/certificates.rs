//! `certificates` of an image: authorities that its programs trust, Debian's and those in files beside the spec.
//!
//! Invariant: what the files hold is read when the spec is loaded, as part of it: a file that is wrong is told with the
//! spec's own mistakes, at its line. A name means one certificate, and a certificate that comes twice is there once.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use toml::de::DeValue;

use super::checks;
use super::diagnostics::Diagnostic;
use super::reader::{Reader, Table};
use super::types::{Dependency, Image, SourceFile, Span, Spanned};
use crate::certificate::{self, Certificate, DER_HELP};

/// The Debian package of the authorities that browsers trust.
pub const CERTIFICATES_DEB: &str = "ca-certificates";

/// Largest file of certificates, in bytes. Debian's bundle of all has 0.2 MB.
const FILE_MAX: usize = 1 << 20;

/// Longest name of a certificate, in bytes.
const NAME_MAX: usize = 200;

/// `certificates = true`, or `["corp.pem"]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Certificates {
    /// The files, relative to the spec, as the user wrote them; none: Debian's authorities alone.
    pub files: Vec<Spanned<String>>,
    /// What they hold, by the name that it has in the image.
    pub own: BTreeMap<String, OwnCertificate>,
}

/// A certificate of the user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnCertificate {
    /// The file, as the user wrote it.
    pub file: String,
    /// What it holds.
    pub certificate: Certificate,
}

/// `certificates`: a flag or files. An empty list asks for nothing, as everywhere.
pub(super) fn read(reader: &mut Reader<'_>, table: &Table<'_>) -> Option<Certificates> {
    let field = table.get("certificates")?;
    if matches!(field.value, DeValue::Boolean(_)) {
        return reader.flag(&field)?.then(Certificates::default);
    }
    if !matches!(field.value, DeValue::Array(_)) {
        let help = match field.value {
            DeValue::String(text) => format!("write `certificates = [{text:?}]`"),
            _ => "write `true` for the authorities that Debian trusts, or `[\"FILE.pem\"]` for these and your own"
                .to_owned(),
        };
        reader.wrong_type(&field, "a boolean or an array of strings", Some(help));
        return None;
    }
    let elements = reader.array(&field);
    let is_empty = elements.is_empty();
    let files = elements
        .iter()
        .filter_map(|element| reader.checked(element, checks::local_path));
    let files: Vec<Spanned<String>> = files.collect();
    (!is_empty).then(|| Certificates {
        files,
        own: BTreeMap::new(),
    })
}

/// `root` with the package that has Debian's authorities, where there is anything else in it: an image without Debian packages
/// is given the authorities, and not what their package depends on.
pub(super) fn with_package(
    table: &Table<'_>,
    mut root: Vec<Spanned<Dependency>>,
    is_wanted: bool,
) -> Vec<Spanned<Dependency>> {
    let value = Dependency::Debian(CERTIFICATES_DEB.to_owned());
    if let Some(field) = table.get("certificates")
        && is_wanted
        && !root.is_empty()
        && root.iter().all(|named| named.value != value)
    {
        let span = field.key_span;
        root.push(Spanned { value, span });
    }
    root
}

/// Reads the files of these images by `read`; their texts are added to the spec's.
pub(super) fn load<'i>(
    images: impl Iterator<Item = &'i mut Image>,
    texts: &mut Vec<SourceFile>,
    read: &mut dyn FnMut(&Path) -> io::Result<String>,
) -> Vec<Diagnostic> {
    let mut errors = Vec::new();
    for image in images {
        let Some(certificates) = &mut image.certificates else {
            continue;
        };
        for file in &certificates.files {
            let path = crate::fsio::normalize(&image.dir.join(&file.value));
            match load_file(&path, file, texts, read) {
                Ok(found) => errors.extend(add(file, found, &certificates.files, &mut certificates.own)),
                Err(wrong) => errors.extend(wrong),
            }
        }
    }
    errors
}

fn load_file(
    path: &Path,
    file: &Spanned<String>,
    texts: &mut Vec<SourceFile>,
    read: &mut dyn FnMut(&Path) -> io::Result<String>,
) -> Result<Vec<Certificate>, Vec<Diagnostic>> {
    let at = match texts.iter().position(|text| text.path == path) {
        Some(at) => at,
        None => {
            let text = read(path).and_then(|text| match text.len() {
                0..=FILE_MAX => Ok(text),
                size => Err(io::Error::other(format!(
                    "it has {size} bytes, and certificates no more than {FILE_MAX}"
                ))),
            });
            let text = text.map_err(|error| vec![unreadable(file, &error)])?;
            texts.push(SourceFile {
                path: path.to_owned(),
                text,
            });
            texts.len() - 1
        }
    };
    certificate::parse(&texts[at].text).map_err(|errors| {
        let diagnostic = |error: certificate::CertificateError| {
            let message = format!("`{}` cannot be used as a certificate", file.value);
            let diagnostic = Diagnostic::new(message).help(error.help);
            match error.range.is_empty() {
                true => diagnostic.at(file.span.clone(), error.what),
                false => {
                    let span = Span {
                        file: at,
                        range: error.range,
                    };
                    diagnostic.at(span, error.what).note_at(file.span.clone(), "named here")
                }
            }
        };
        errors.into_iter().map(diagnostic).collect()
    })
}

fn unreadable(file: &Spanned<String>, error: &io::Error) -> Diagnostic {
    let (why, help) = match error.kind() {
        io::ErrorKind::NotFound => (
            "there is no such file".to_owned(),
            "name a file in PEM form, relative to this one".to_owned(),
        ),
        io::ErrorKind::IsADirectory => (
            "it is a directory".to_owned(),
            "name each of its files: `certificates = [\"DIR/a.pem\", \"DIR/b.pem\"]`".to_owned(),
        ),
        io::ErrorKind::InvalidData => ("it is not a text".to_owned(), DER_HELP.to_owned()),
        _ => (
            error.to_string(),
            "name a file in PEM form, relative to this one".to_owned(),
        ),
    };
    let message = format!("the certificate `{}` cannot be read: {why}", file.value);
    Diagnostic::new(message).at(file.span.clone(), "named here").help(help)
}

/// Adds what a file holds under names that are made of the file's, which are those that it has below
/// `/usr/local/share/ca-certificates`.
fn add(
    file: &Spanned<String>,
    found: Vec<Certificate>,
    files: &[Spanned<String>],
    own: &mut BTreeMap<String, OwnCertificate>,
) -> Option<Diagnostic> {
    let base = base_name(&file.value);
    let count = found.len();
    for (index, certificate) in found.into_iter().enumerate() {
        if own.values().any(|known| known.certificate == certificate) {
            continue;
        }
        let name = match count {
            1 => base.clone(),
            _ => format!("{base}-{}", index + 1),
        };
        if let Some(known) = own.get(&name) {
            let first = files.iter().find(|other| other.value == known.file);
            let diagnostic = Diagnostic::new(format!(
                "`{}` and `{}` would both be `{name}.crt` in the image",
                known.file, file.value
            ))
            .at(file.span.clone(), "another certificate of this name")
            .help("rename one of the files");
            return Some(match first {
                Some(first) => diagnostic.note_at(first.span.clone(), "the first is named here"),
                None => diagnostic,
            });
        }
        let file = file.value.clone();
        own.insert(name, OwnCertificate { file, certificate });
    }
    None
}

/// The name of a file without what says its kind, in letters that Debian's scripts leave as they are.
fn base_name(path: &str) -> String {
    let name = path.rsplit('/').find(|part| !part.is_empty()).unwrap_or(path);
    let stem = [".pem", ".crt", ".cer"].iter().find_map(|end| name.strip_suffix(end));
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
    let stem = stem.filter(|stem| !stem.is_empty()).unwrap_or(name);
    let mut stem: String = stem.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    stem.truncate(NAME_MAX);
    match stem.starts_with(['.', '-']) {
        true => format!("_{stem}"),
        false => stem,
    }
}

#[cfg(test)]
mod tests;
