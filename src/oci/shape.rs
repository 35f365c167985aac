//! The *shape* of a document: which fields it has, and what each of them may hold.
//!
//! Invariant: what passes [`check`] passes the JSON schemas of the OCI image specification (v1.0.2 and v1.1,
//! `schema/`), which tests compare; beyond them digests, times and sizes are checked for what they say. Fields that are
//! not in the tables are nobody's business: the specification lets documents have them.
//!
//! The same tables say where reading is lenient ([`settle`]: what Go's tools leave out or write as `null`) and where it
//! must not be ([`misspelled`]: Go matches the names of fields without regard to case, and other readers do not).

use serde_json::{Map, Value};

use super::INTEGER_MAX;
use super::port::Port;
use crate::digest::ContentDigest;

/// Most characters of a wrong value that are shown.
const TEXT_SHOWN: usize = 80;

/// What a value may be.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    /// A string.
    Text,
    /// A string with something in it.
    NonEmpty,
    /// Exactly this string.
    Word(&'static str),
    /// Exactly this integer.
    Number(u64),
    /// An integer from 0 to 2^53 − 1.
    Size,
    /// `true` or `false`.
    Bool,
    /// A digest by a registered algorithm.
    Digest,
    /// `TYPE/SUBTYPE` (RFC 6838, section 4.2).
    MediaType,
    /// RFC 3339.
    Time,
    /// `NAME=VALUE`.
    Variable,
    /// A signal's name or number.
    Signal,
    /// A list.
    List(&'static Shape),
    /// A list that is not empty.
    Some(&'static Shape),
    /// An object whose keys are free.
    Map(&'static Shape),
    /// An object whose keys are ports: `80`, `80/tcp`.
    Ports,
    /// An object.
    Object(&'static [Field]),
}

/// A field of an object.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    name: &'static str,
    required: bool,
    null: bool,
    /// Whether a reader takes its absence for an empty value.
    filled: bool,
    /// By which name `oci-spec` knows it.
    known_as: &'static str,
    shape: Shape,
}

const fn field(name: &'static str, shape: Shape) -> Field {
    Field {
        name,
        required: false,
        null: false,
        filled: false,
        known_as: name,
        shape,
    }
}

const fn required(field: Field) -> Field {
    Field {
        required: true,
        ..field
    }
}

const fn or_null(field: Field) -> Field {
    Field { null: true, ..field }
}

/// A required field that some tool leaves out.
const fn filled(field: Field) -> Field {
    Field {
        required: true,
        filled: true,
        ..field
    }
}

const fn known_as(known_as: &'static str, field: Field) -> Field {
    Field { known_as, ..field }
}

const ANNOTATIONS: Field = field("annotations", Shape::Map(&Shape::Text));
// Whoever leaves it out means no other version: the one before has other fields.
const SCHEMA_VERSION: Field = filled(field("schemaVersion", Shape::Number(2)));
const MEDIA_TYPE: Field = field("mediaType", Shape::MediaType);
const NO_FIELDS: Shape = Shape::Object(&[]);

/// descriptor.md, with the platform that an entry of an index has (image-index.md).
const DESCRIPTOR: Shape = Shape::Object(&[
    filled(MEDIA_TYPE),
    required(field("digest", Shape::Digest)),
    required(field("size", Shape::Size)),
    field("urls", TEXTS),
    field("artifactType", Shape::MediaType),
    field("data", Shape::Text),
    field(
        "platform",
        Shape::Object(&[
            filled(field("architecture", Shape::NonEmpty)),
            filled(field("os", Shape::NonEmpty)),
            // `oci-spec` 0.10 gives these two no names of their own in a descriptor, though in a config.
            known_as("os_version", field("os.version", Shape::Text)),
            known_as("os_features", field("os.features", TEXTS)),
            field("variant", Shape::Text),
        ]),
    ),
    ANNOTATIONS,
]);

/// manifest.md, with at least one layer.
pub const MANIFEST: Shape = Shape::Object(&[
    SCHEMA_VERSION,
    MEDIA_TYPE,
    field("artifactType", Shape::MediaType),
    required(field("config", DESCRIPTOR)),
    filled(field("layers", Shape::Some(&DESCRIPTOR))),
    field("subject", DESCRIPTOR),
    ANNOTATIONS,
]);

/// Docker's manifest, version 2, schema 2; one without layers has been seen.
pub const DOCKER_MANIFEST: Shape = Shape::Object(&[
    SCHEMA_VERSION,
    MEDIA_TYPE,
    required(field("config", DESCRIPTOR)),
    required(field("layers", Shape::List(&DESCRIPTOR))),
    ANNOTATIONS,
]);

/// image-index.md.
pub const INDEX: Shape = Shape::Object(&[
    SCHEMA_VERSION,
    MEDIA_TYPE,
    field("artifactType", Shape::MediaType),
    filled(field("manifests", Shape::List(&DESCRIPTOR))),
    field("subject", DESCRIPTOR),
    ANNOTATIONS,
]);

const TEXTS: Shape = Shape::List(&Shape::Text);

/// config.md, `config`.
pub const EXECUTION: Shape = Shape::Object(&[
    field("User", Shape::Text),
    field("ExposedPorts", Shape::Ports),
    field("Env", Shape::List(&Shape::Variable)),
    or_null(field("Entrypoint", TEXTS)),
    or_null(field("Cmd", TEXTS)),
    or_null(field("Volumes", Shape::Map(&NO_FIELDS))),
    field("WorkingDir", Shape::Text),
    or_null(field("Labels", Shape::Map(&Shape::Text))),
    field("StopSignal", Shape::Signal),
    field("ArgsEscaped", Shape::Bool),
]);

/// config.md.
pub const CONFIG: Shape = Shape::Object(&[
    field("created", Shape::Time),
    field("author", Shape::Text),
    filled(field("architecture", Shape::NonEmpty)),
    filled(field("os", Shape::NonEmpty)),
    field("os.version", Shape::Text),
    field("os.features", TEXTS),
    field("variant", Shape::Text),
    field("config", EXECUTION),
    required(field(
        "rootfs",
        Shape::Object(&[
            filled(field("type", Shape::Word("layers"))),
            filled(field("diff_ids", Shape::List(&Shape::Digest))),
        ]),
    )),
    field(
        "history",
        Shape::List(&Shape::Object(&[
            field("created", Shape::Time),
            field("author", Shape::Text),
            field("created_by", Shape::Text),
            field("comment", Shape::Text),
            field("empty_layer", Shape::Bool),
        ])),
    ),
]);

/// Compares a document with a shape; `found` is given each field (`layers[1].size`) that does not fit, and why.
///
/// With `null_is_absent` a `null` is as good as no field at all: so Docker writes what Go calls a nil.
pub fn check(value: &Value, shape: Shape, null_is_absent: bool, found: &mut dyn FnMut(&str, String)) {
    let types_only = false;
    let mut checker = ShapeChecker {
        null_is_absent,
        types_only,
        found,
    };
    checker.value(value, shape, "");
}

/// What keeps a document from being read, lenient as reading is: values of another type, and fields that cannot be done
/// without.
pub fn check_types(value: &Value, shape: Shape, found: &mut dyn FnMut(&str, String)) {
    let mut checker = ShapeChecker {
        null_is_absent: true,
        types_only: true,
        found,
    };
    checker.value(value, shape, "");
}

/// Where a document has a field by another case than its own (`Layers`), or beside it: one of `foreign` at its top, or
/// one of the shape's at any depth. Go's `encoding/json` takes both for one, the later one winning.
pub fn misspelled(value: &Value, shape: Shape, foreign: &[&str]) -> Option<String> {
    if let Some(key) = value.as_object().and_then(|object| {
        object
            .keys()
            .find(|key| foreign.iter().any(|name| is_other_case(key, name)))
    }) {
        return Some(key.clone());
    }
    match (shape, value) {
        (Shape::Object(fields), Value::Object(object)) => {
            let other = |key: &&String| fields.iter().any(|field| is_other_case(key, field.name));
            let below = || {
                let present = fields.iter().filter_map(|field| Some((field, object.get(field.name)?)));
                present
                    .filter_map(|(field, value)| misspelled(value, field.shape, &[]))
                    .next()
            };
            object.keys().find(other).cloned().or_else(below)
        }
        (Shape::List(element) | Shape::Some(element), Value::Array(list)) => {
            list.iter().find_map(|value| misspelled(value, *element, &[]))
        }
        _ => None,
    }
}

/// Whether Go takes `key` for `name` though another reader does not: its folding is that of Unicode, in which two more
/// characters fold to ASCII letters.
fn is_other_case(key: &str, name: &str) -> bool {
    let fold = |c: char| match c {
        'ſ' => 's',
        '\u{212a}' => 'k',
        c => c.to_ascii_lowercase(),
    };
    key != name && key.chars().map(fold).eq(name.chars().map(fold))
}

/// Brings a document into the form that `oci-spec`'s types read: what is `null` is left out, as Go reads it, but for the
/// value of an annotation or label, which is an empty text then; and what tools are known to leave out is empty.
pub fn settle(value: &mut Value, shape: Shape) {
    match (shape, value) {
        (Shape::Object(fields), Value::Object(object)) => settle_object(object, fields),
        (Shape::List(element) | Shape::Some(element), Value::Array(list)) => {
            list.iter_mut().for_each(|value| settle(value, *element));
        }
        (Shape::Map(Shape::Text), Value::Object(object)) => {
            let nulls = object.values_mut().filter(|value| value.is_null());
            nulls.for_each(|value| *value = Value::from(""));
        }
        // What stands under the key of a set is never looked at.
        (Shape::Map(_) | Shape::Ports, Value::Object(object)) => {
            object.values_mut().for_each(|value| *value = Value::Object(Map::new()));
        }
        _ => {}
    }
}

fn settle_object(object: &mut Map<String, Value>, fields: &[Field]) {
    for field in fields {
        let value = object.remove(field.name).filter(|value| !value.is_null());
        let empty = || match field.shape {
            Shape::List(_) | Shape::Some(_) => Value::Array(Vec::new()),
            Shape::Word(word) => Value::from(word),
            Shape::Number(number) => Value::from(number),
            _ => Value::from(""),
        };
        let Some(mut value) = value.or_else(|| field.filled.then(empty)) else {
            continue;
        };
        settle(&mut value, field.shape);
        object.insert(field.known_as.to_owned(), value);
    }
}

/// The members of an object that no field of its shape names.
pub fn others(value: &Value, shape: Shape) -> impl Iterator<Item = (&String, &Value)> {
    let fields = match shape {
        Shape::Object(fields) => fields,
        _ => &[],
    };
    let members = value.as_object().into_iter().flatten();
    members.filter(move |(key, _)| fields.iter().all(|field| field.name != key.as_str()))
}

struct ShapeChecker<'a> {
    null_is_absent: bool,
    /// Whether what a text says does not count, nor what a reader fills in.
    types_only: bool,
    found: &'a mut dyn FnMut(&str, String),
}

impl ShapeChecker<'_> {
    fn value(&mut self, value: &Value, shape: Shape, at: &str) {
        match shape {
            Shape::Object(fields) => self.object(value, fields, at),
            Shape::List(element) | Shape::Some(element) => {
                let Some(list) = value.as_array() else {
                    return self.kind(value, "a list", at);
                };
                if matches!(shape, Shape::Some(_)) && list.is_empty() && !self.types_only {
                    (self.found)(at, "it is empty".to_owned());
                }
                for (index, value) in list.iter().enumerate() {
                    self.value(value, *element, &format!("{at}[{index}]"));
                }
            }
            Shape::Map(element) => self.map(value, *element, &|_| true, at),
            Shape::Ports => self.map(value, NO_FIELDS, &|key| key.parse::<Port>().is_ok(), at),
            Shape::Size | Shape::Number(_) | Shape::Bool => self.plain(value, shape, at),
            _ => self.text(value, shape, at),
        }
    }

    fn object(&mut self, value: &Value, fields: &[Field], at: &str) {
        let Some(object) = value.as_object() else {
            return self.kind(value, "an object", at);
        };
        for field in fields {
            let below = match at {
                "" => field.name.to_owned(),
                at => format!("{at}.{}", field.name),
            };
            match object.get(field.name) {
                None if field.required && !(field.filled && self.types_only) => {
                    (self.found)(&below, "it is missing".to_owned())
                }
                None => {}
                Some(Value::Null) if field.null || self.null_is_absent => {}
                Some(value) => self.value(value, field.shape, &below),
            }
        }
    }

    fn map(&mut self, value: &Value, element: Shape, is_key: &dyn Fn(&str) -> bool, at: &str) {
        let Some(object) = value.as_object() else {
            return self.kind(value, "an object", at);
        };
        for (key, value) in object {
            let below = format!("{at}[{key:?}]");
            if !is_key(key) && !self.types_only {
                (self.found)(
                    &below,
                    "its key is not `PORT` or `PORT/PROTOCOL` (config.md)".to_owned(),
                );
            }
            self.value(value, element, &below);
        }
    }

    fn plain(&mut self, value: &Value, shape: Shape, at: &str) {
        match shape {
            Shape::Bool if value.is_boolean() => {}
            Shape::Bool => self.kind(value, "true or false", at),
            Shape::Number(wanted) if value.as_u64() == Some(wanted) => {}
            Shape::Number(wanted) => (self.found)(at, format!("it is {}, and must be {wanted}", shown(value))),
            _ if value.as_u64().is_some_and(|size| size <= INTEGER_MAX) => {}
            _ => self.kind(value, "a number of bytes", at),
        }
    }

    fn text(&mut self, value: &Value, shape: Shape, at: &str) {
        let Some(text) = value.as_str() else {
            return self.kind(value, "a string", at);
        };
        let wanted = match shape {
            Shape::Digest if text.parse::<ContentDigest>().is_err() => {
                "not a digest: `sha256:` and 64, or `sha512:` and 128 hexadecimal digits"
            }
            _ if self.types_only => return,
            Shape::NonEmpty if text.is_empty() => return (self.found)(at, "it is missing".to_owned()),
            Shape::Word(word) if text != word => {
                return (self.found)(at, format!("it is `{}`, and must be `{word}`", shortened(text)));
            }
            Shape::MediaType if !is_media_type(text) => "not a media type (`TYPE/SUBTYPE`)",
            Shape::Time if !is_rfc3339(text) => "not a time of RFC 3339",
            Shape::Variable if text.split_once('=').is_none_or(|(name, _)| name.is_empty()) => "not `NAME=VALUE`",
            Shape::Signal if !is_signal(text) => "not a signal (`SIGTERM`, `SIGRTMIN+3`, `15`)",
            _ => return,
        };
        (self.found)(at, format!("it is `{}`, which is {wanted}", shortened(text)));
    }

    fn kind(&mut self, value: &Value, wanted: &str, at: &str) {
        (self.found)(at, format!("it is {}, and must be {wanted}", shown(value)));
    }
}

/// A value for people, cut short.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) => format!("the string `{}`", shortened(text)),
        other => other.to_string(),
    }
}

fn shortened(text: &str) -> String {
    let clean: String = text.chars().take(TEXT_SHOWN).flat_map(char::escape_debug).collect();
    match text.chars().count() > TEXT_SHOWN {
        true => format!("{clean}…"),
        false => clean,
    }
}

/// RFC 6838, section 4.2, as the schemas have it.
fn is_media_type(text: &str) -> bool {
    let part = |part: &str| {
        let mut bytes = part.bytes();
        part.len() <= 127
            && bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
    };
    text.split_once('/').is_some_and(|(kind, sub)| part(kind) && part(sub))
}

/// `1970-01-01T00:00:01Z`, with an optional fraction and any offset (RFC 3339, section 5.6).
pub fn is_rfc3339(text: &str) -> bool {
    let bytes = text.as_bytes();
    let number = |range: std::ops::Range<usize>| -> Option<u32> {
        let digits = bytes.get(range)?;
        let all = digits.iter().all(u8::is_ascii_digit);
        all.then(|| {
            digits
                .iter()
                .fold(0, |value, digit| value * 10 + u32::from(digit - b'0'))
        })
    };
    let separators = [(4, b"-"), (7, b"-"), (13, b":"), (16, b":")];
    let separated = separators.iter().all(|(at, byte)| bytes.get(*at) == byte.first());
    let is_t = matches!(bytes.get(10), Some(b'T' | b't'));
    let (Some(year), Some(month), Some(day)) = (number(0..4), number(5..7), number(8..10)) else {
        return false;
    };
    let (Some(hour), Some(minute), Some(second)) = (number(11..13), number(14..16), number(17..19)) else {
        return false;
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let in_range = (1..=12).contains(&month) && (1..=days).contains(&day);
    separated && is_t && in_range && hour < 24 && minute < 60 && second <= 60 && is_offset(&text[19..])
}

/// The end of a time: `Z`, `.123+02:00`.
fn is_offset(mut rest: &str) -> bool {
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return false;
        }
        rest = &fraction[digits..];
    }
    let two = |text: &str, below: u32| {
        text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse().is_ok_and(|n: u32| n < below)
    };
    match rest.strip_prefix(['+', '-']).and_then(|offset| offset.split_once(':')) {
        Some((hours, minutes)) => two(hours, 24) && two(minutes, 60),
        None => matches!(rest, "Z" | "z"),
    }
}

fn is_signal(text: &str) -> bool {
    let name = text.strip_prefix("SIG").unwrap_or(text);
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let word = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"+-".contains(&byte));
    text.is_empty() || digits && text.parse::<u8>().is_ok() || !digits && word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_from_other_texts() {
        for text in [
            "1970-01-01T00:00:01Z",
            "2024-02-29T23:59:60.123456789+13:45",
            "2000-02-29t00:00:00z",
        ] {
            assert!(is_rfc3339(text), "{text}");
        }
        for text in [
            "",
            "1970",
            "1970-01-01",
            "1970-01-01 00:00:01Z",
            "1970-13-01T00:00:01Z",
            "2023-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:00:01",
            "1970-01-01T00:00:01.Z",
            "1970-01-01T00:00:01+1:00",
            "1970-01-01T00:00:01+25:00",
            "1970-01-01T00:00:01Zz",
            "197é-01-01T00:00:01Z",
        ] {
            assert!(!is_rfc3339(text), "{text}");
        }
    }

    #[test]
    fn signals_and_media_types_are_told() {
        for text in ["", "SIGTERM", "TERM", "SIGRTMIN+3", "9"] {
            assert!(is_signal(text), "{text}");
        }
        for text in ["stop", "SIG", "999", "SIG TERM"] {
            assert!(!is_signal(text), "{text}");
        }
        assert!(is_media_type("application/vnd.oci.image.layer.v1.tar+gzip"));
        for text in ["", "text", "text/", "/plain", "text/plain; charset=utf-8", "+x/y"] {
            assert!(!is_media_type(text), "{text}");
        }
    }
}
