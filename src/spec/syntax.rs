//! *Syntax errors*: what TOML's parser says, as diagnostics.
//!
//! Invariant: a place the parser names is kept; a key given twice also shows where it was given first.

use std::borrow::Cow;
use std::ops::Range;

use toml::de::{DeTable, DeValue, Error};

use super::diagnostics::Diagnostic;
use super::reader::TomlValue;
use super::types::Span;

/// What the parser says of a key that is given twice.
const DUPLICATE_KEY: &str = "duplicate key";

/// The text without a byte-order mark, its lines ended by `\n` alone.
///
/// TOML leaves it to the reader what a line end in a multi-line string becomes (TOML 1.0, "String"): a script must be the
/// same bytes whether an editor or git's `autocrlf` wrote `\r\n`. No other value can hold a line end, and an escaped
/// `\r` is not one.
pub(super) fn normalized(text: &str) -> Cow<'_, str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match text.contains("\r\n") {
        true => Cow::Owned(text.replace("\r\n", "\n")),
        false => Cow::Borrowed(text),
    }
}

/// Whether the error is a key given twice, after which the rest of the document can be trusted.
pub(super) fn is_duplicate(error: &Error) -> bool {
    error.message() == DUPLICATE_KEY
}

/// The diagnostic for `error` in file number `file`; `document` is what the parser made of `text` all the same.
pub(super) fn describe(file: usize, text: &str, document: &DeTable<'_>, error: &Error) -> Diagnostic {
    let range = error.span().unwrap_or(0..0);
    let span = Span {
        file,
        range: range.clone(),
    };
    if !is_duplicate(error) {
        return not_toml(error.message()).at(span, "");
    }
    let key = text.get(range.clone()).unwrap_or_default();
    let diagnostic = Diagnostic::new(format!("`{key}` is given twice"))
        .at(span, "given again")
        .help("keep one of them");
    match first_given(text, document, range) {
        Some(range) => diagnostic.note_at(Span { file, range }, "first given here"),
        None => diagnostic,
    }
}

fn not_toml(message: &str) -> Diagnostic {
    let message = message.strip_suffix(", expected nothing").unwrap_or(message);
    let diagnostic = Diagnostic::new(format!("this is not TOML: {message}"));
    let unquoted = [
        "invalid float",
        "invalid integer",
        "invalid date",
        "string values must be quoted",
    ];
    match unquoted.iter().any(|start| message.starts_with(start)) {
        true => diagnostic.help("a text, such as a version or a path, is written in quotes"),
        false => diagnostic,
    }
}

/// Where the key at `repeated` stood first, if that can be told.
fn first_given(text: &str, document: &DeTable<'_>, repeated: Range<usize>) -> Option<Range<usize>> {
    let line_start = text.get(..repeated.start)?.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[line_start..].lines().next()?.trim();
    if line.starts_with('[') {
        // The parser keeps the second of two equal table headers.
        let mut lines = text[..line_start].split_inclusive('\n').scan(0, |end, line| {
            let start = *end;
            *end += line.len();
            Some((start, line.trim()))
        });
        let (start, _) = lines.find(|(_, earlier)| *earlier == line)?;
        return Some(start..start + line.len());
    }
    let key = text.get(repeated.clone())?.trim_matches(['"', '\'']);
    let table = innermost(text, document, repeated.start);
    let first = table.get_key_value(key)?.0.span();
    (first.end <= repeated.start).then_some(first)
}

/// The table to which a key at `position` belongs: the innermost inline table around it, else the one whose
/// header was the last before it, else the document.
fn innermost<'t>(text: &str, document: &'t DeTable<'t>, position: usize) -> &'t DeTable<'t> {
    let mut inline: Option<(usize, &DeTable<'t>)> = None;
    let mut header: Option<(usize, &DeTable<'t>)> = None;
    let mut todo: Vec<&TomlValue<'t>> = document.values().collect();
    while let Some(value) = todo.pop() {
        let span = value.span();
        match value.get_ref() {
            DeValue::Array(elements) => todo.extend(elements.iter()),
            DeValue::Table(table) => {
                todo.extend(table.values());
                let is_header = text.as_bytes().get(span.start) == Some(&b'[');
                let found = if is_header { &mut header } else { &mut inline };
                let encloses = span.start <= position && (is_header || position < span.end);
                if encloses && found.is_none_or(|(start, _)| start <= span.start) {
                    *found = Some((span.start, table));
                }
            }
            _ => {}
        }
    }
    inline.or(header).map_or(document, |(_, table)| table)
}
