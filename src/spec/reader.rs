//! A *reader* takes typed values out of TOML's spanned tree and notes everything that does not fit.
//!
//! Invariant: a wrong value is reported once, at its place, and reading goes on; nothing is returned for it.

use std::ops::Range;

use toml::Spanned as TomlSpanned;
use toml::de::{DeTable, DeValue};

use super::checks::{Complaint, did_you_mean};
use super::diagnostics::Diagnostic;
use super::keys::Key;
use super::types::{Span, Spanned};

/// A value as TOML's parser gives it.
pub(super) type TomlValue<'t> = TomlSpanned<DeValue<'t>>;

/// Reads one file.
pub(super) struct Reader<'e> {
    /// The file's index in the workspace.
    pub(super) file: usize,
    /// Everything that did not fit so far.
    pub(super) errors: &'e mut Vec<Diagnostic>,
}

/// A table whose keys are known.
pub(super) struct Table<'t> {
    /// What it is, for messages: "package `hello`".
    pub(super) what: String,
    /// Where it is named.
    pub(super) span: Span,
    entries: &'t DeTable<'t>,
    keys: Vec<&'static Key>,
}

/// A value with its name, for messages.
#[derive(Clone)]
pub(super) struct Field<'t> {
    /// Its key.
    pub(super) key: &'t str,
    /// What it belongs to: "package `hello`".
    pub(super) owner: String,
    /// Where the key stands.
    pub(super) key_span: Span,
    /// Where the value stands.
    pub(super) span: Span,
    /// The value.
    pub(super) value: &'t DeValue<'t>,
    /// Whether it is one of many under this key.
    element: bool,
}

impl Field<'_> {
    /// "`version` of package `hello`".
    pub(super) fn title(&self) -> String {
        let element = if self.element { "an element of " } else { "" };
        format!("{element}`{}` of {}", self.key, self.owner)
    }
}

impl<'t> Table<'t> {
    /// The value of `name`, if it is there.
    pub(super) fn get(&self, name: &'static str) -> Option<Field<'t>> {
        debug_assert!(
            self.keys.iter().any(|key| key.name == name),
            "`{name}` is missing in keys.rs"
        );
        let (key, value) = self.entries.get_key_value(name)?;
        Some(Field {
            key: key.get_ref(),
            owner: self.what.clone(),
            key_span: self.place(key.span()),
            span: self.place(value.span()),
            value: value.get_ref(),
            element: false,
        })
    }

    /// The text of `name`, if it is there and `check` accepts it.
    pub(super) fn checked<T>(
        &self,
        reader: &mut Reader<'_>,
        name: &'static str,
        check: impl FnOnce(&str) -> Result<T, Complaint>,
    ) -> Option<Spanned<T>> {
        reader.checked(&self.get(name)?, check)
    }

    /// The boolean `name`, if it is there.
    pub(super) fn flag(&self, reader: &mut Reader<'_>, name: &'static str) -> Option<bool> {
        reader.flag(&self.get(name)?)
    }

    /// The elements of the array `name`; none where it is missing.
    pub(super) fn elements(&self, reader: &mut Reader<'_>, name: &'static str) -> Vec<Field<'t>> {
        self.get(name).map_or_else(Vec::new, |field| reader.array(&field))
    }

    /// The entries of the table `name`, whose keys are of the user's choice; none where it is missing.
    pub(super) fn entries(&self, reader: &mut Reader<'_>, name: &'static str) -> Vec<Field<'t>> {
        self.get(name).map_or_else(Vec::new, |field| reader.map(&field))
    }

    fn place(&self, range: Range<usize>) -> Span {
        Span {
            file: self.span.file,
            range,
        }
    }
}

impl Reader<'_> {
    /// Notes a diagnostic.
    pub(super) fn error(&mut self, diagnostic: Diagnostic) {
        self.errors.push(diagnostic);
    }

    /// A place in this reader's file.
    pub(super) fn span(&self, range: Range<usize>) -> Span {
        Span { file: self.file, range }
    }

    /// The document's own table.
    pub(super) fn document<'t>(&mut self, entries: &'t DeTable<'t>, what: &str, keys: &'static [Key]) -> Table<'t> {
        let table = Table {
            what: what.to_owned(),
            span: self.span(0..0),
            entries,
            keys: keys.iter().collect(),
        };
        self.refuse_unknown(&table);
        table
    }

    /// Takes a field that must be a table with keys from `keys`; `what` names it in messages.
    pub(super) fn table<'t>(&mut self, field: &Field<'t>, what: String, keys: Vec<&'static Key>) -> Option<Table<'t>> {
        let entries = self.entries(field)?;
        let table = Table {
            what,
            span: field.key_span.clone(),
            entries,
            keys,
        };
        self.refuse_unknown(&table);
        Some(table)
    }

    /// Takes a field that must be a table with keys of the user's choice: a field for each.
    pub(super) fn map<'t>(&mut self, field: &Field<'t>) -> Vec<Field<'t>> {
        let Some(entries) = self.entries(field) else {
            return Vec::new();
        };
        (entries.iter())
            .map(|(key, value)| Field {
                key: key.get_ref(),
                owner: format!("`{}` of {}", field.key, field.owner),
                key_span: self.span(key.span()),
                span: self.span(value.span()),
                value: value.get_ref(),
                element: false,
            })
            .collect()
    }

    /// Takes a field that must be an array: a field for each element.
    pub(super) fn array<'t>(&mut self, field: &Field<'t>) -> Vec<Field<'t>> {
        let DeValue::Array(elements) = field.value else {
            let help = literal(field.value).map(|literal| format!("write `{} = [{literal}]`", field.key));
            self.wrong_type(field, "an array", help);
            return Vec::new();
        };
        (elements.iter())
            .map(|value| Field {
                span: self.span(value.span()),
                value: value.get_ref(),
                element: true,
                ..field.clone()
            })
            .collect()
    }

    /// Takes a string without NUL characters (no path, argument or variable can hold one).
    pub(super) fn text(&mut self, field: &Field<'_>) -> Option<Spanned<String>> {
        let DeValue::String(text) = field.value else {
            let help = literal(field.value).map(|literal| format!("write `\"{literal}\"`"));
            self.wrong_type(field, "a string", help);
            return None;
        };
        if text.contains('\0') {
            let diagnostic = Diagnostic::new(format!("{} holds a NUL character", field.title()));
            self.error(diagnostic.at(field.span.clone(), "`\\u0000` cannot be part of it"));
            return None;
        }
        Some(Spanned {
            value: text.to_string(),
            span: field.span.clone(),
        })
    }

    /// Takes an array of strings.
    pub(super) fn texts(&mut self, field: &Field<'_>) -> Vec<Spanned<String>> {
        let elements = self.array(field);
        elements.iter().filter_map(|element| self.text(element)).collect()
    }

    /// Takes a string that `check` accepts.
    pub(super) fn checked<T>(
        &mut self,
        field: &Field<'_>,
        check: impl FnOnce(&str) -> Result<T, Complaint>,
    ) -> Option<Spanned<T>> {
        let text = self.text(field)?;
        self.accept(field, check(&text.value))
            .map(|value| Spanned { value, span: text.span })
    }

    /// Notes a check's complaint about a field's value.
    pub(super) fn accept<T>(&mut self, field: &Field<'_>, result: Result<T, Complaint>) -> Option<T> {
        result
            .map_err(|complaint| {
                let message = format!("{} is not valid", field.title());
                self.complain(message, field.span.clone(), complaint);
            })
            .ok()
    }

    /// Notes a check's complaint about a key that the user chose.
    pub(super) fn accept_key<T>(&mut self, field: &Field<'_>, what: &str, result: Result<T, Complaint>) -> Option<T> {
        result
            .map_err(|complaint| {
                let message = format!("`{}` cannot be {what}", field.key);
                self.complain(message, field.key_span.clone(), complaint);
            })
            .ok()
    }

    /// Takes a boolean.
    pub(super) fn flag(&mut self, field: &Field<'_>) -> Option<bool> {
        let DeValue::Boolean(flag) = field.value else {
            self.wrong_type(
                field,
                "a boolean",
                Some("write `true` or `false`, without quotes".to_owned()),
            );
            return None;
        };
        Some(*flag)
    }

    /// Takes an integer from `min` to `max`.
    pub(super) fn integer(&mut self, field: &Field<'_>, min: i64, max: i64) -> Option<i64> {
        let DeValue::Integer(integer) = field.value else {
            self.wrong_type(field, "an integer", None);
            return None;
        };
        let value = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let value = value.filter(|value| (min..=max).contains(value));
        if value.is_none() {
            let diagnostic = Diagnostic::new(format!("{} is out of range", field.title()));
            self.error(diagnostic.at(field.span.clone(), format!("it must be from {min} to {max}")));
        }
        value
    }

    /// Notes that a field has another type than it should.
    pub(super) fn wrong_type(&mut self, field: &Field<'_>, expected: &str, help: Option<String>) {
        let label = format!("expected {expected}, found {}", type_name(field.value));
        let mut diagnostic = Diagnostic::new(format!("{} must be {expected}", field.title()));
        diagnostic.help = help;
        self.error(diagnostic.at(field.span.clone(), label));
    }

    fn complain(&mut self, message: String, span: Span, complaint: Complaint) {
        let mut diagnostic = Diagnostic::new(message).at(span, complaint.label);
        diagnostic.help = complaint.help;
        self.error(diagnostic);
    }

    fn entries<'t>(&mut self, field: &Field<'t>) -> Option<&'t DeTable<'t>> {
        let DeValue::Table(entries) = field.value else {
            self.wrong_type(field, "a table", None);
            return None;
        };
        Some(entries)
    }

    fn refuse_unknown(&mut self, table: &Table<'_>) {
        for (key, _) in table.entries {
            let name: &str = key.get_ref();
            if table.keys.iter().any(|key| key.name == name) {
                continue;
            }
            let valid: Vec<String> = table.keys.iter().map(|key| format!("`{}`", key.name)).collect();
            let diagnostic = Diagnostic::new(format!("unknown key `{name}` in {}", table.what))
                .at(self.span(key.span()), "unknown key")
                .note(format!("valid keys: {}", valid.join(", ")));
            let diagnostic = match similar_key(name, &table.keys) {
                Some(similar) => diagnostic.help(format!("did you mean `{similar}`?")),
                None => diagnostic,
            };
            self.error(diagnostic);
        }
    }
}

/// The key that is probably meant by `name`: known under that name elsewhere, or spelt like it.
fn similar_key(name: &str, keys: &[&'static Key]) -> Option<&'static str> {
    let known_as = |key: &&&Key| key.also.iter().any(|also| also.eq_ignore_ascii_case(name));
    let synonym = keys.iter().find(known_as).map(|key| key.name);
    synonym.or_else(|| did_you_mean(name, keys.iter().map(|key| key.name)))
}

/// A scalar as it is written; `None` for others and dates, which nobody writes by mistake.
fn literal(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(format!("{text:?}")),
        DeValue::Integer(integer) => Some(integer.to_string()),
        DeValue::Float(float) => Some(float.to_string()),
        DeValue::Boolean(flag) => Some(flag.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
