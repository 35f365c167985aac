//! *Canonical JSON*: the one way in which a document that is hashed is written, and the strict way in which one is read.
//!
//! Invariant: one value has one text. The rules are those of RFC 8785 (JSON Canonicalization Scheme) cut down to what
//! OCI documents hold, and they are part of the numbered format:
//!
//! - the keys of an object are sorted by their UTF-8 bytes, whatever order the value iterates in and whatever features
//!   `serde_json` was built with (RFC 8785 sorts by UTF-16 units; the two differ only where a key holds characters
//!   beyond U+FFFF, which no key of an OCI document does);
//! - no white space, no newline at the end;
//! - a string escapes `"`, `\` and the controls below U+0020 and nothing else: `\b \t \n \f \r` by name, the others as
//!   `\u00xx` in lower case; everything above is raw UTF-8 (no `\u003c` for `<`, as Go's encoder writes);
//! - numbers are integers of I-JSON (RFC 7493): at most 2^53 − 1 either way. A fraction is an error, not a rounding.
//!
//! Reading is strict where `serde_json` is lenient: a key that appears twice in one object is refused, because two
//! readers would see two documents.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserializer, Serialize};
use serde_json::{Number, Value};

/// Most values in a document, at all depths: an index of a thousand images has some ten thousand, and the memory that a
/// document takes grows with them and not with its bytes.
const VALUES_MAX: usize = 250_000;

/// Largest integer, either way, that every JSON implementation reads exactly (RFC 7493, section 2.2): 2^53 − 1.
pub const INTEGER_MAX: u64 = (1 << 53) - 1;

/// Why a document cannot be written canonically, or not be read.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// A number that is a fraction or beyond [`INTEGER_MAX`].
    #[error("`{number}` cannot be written in canonical JSON: only integers of at most 2^53 - 1 can")]
    Number {
        /// The number as `serde_json` prints it.
        number: String,
    },
    /// A type that JSON cannot express, such as a map with keys that are no strings.
    #[error("cannot express a value as JSON")]
    Serialize {
        /// What `serde_json` says.
        #[source]
        source: serde_json::Error,
    },
    /// Not JSON, a duplicate key, or not the document that was expected.
    #[error("malformed JSON")]
    Parse {
        /// What is wrong, with line and column where they are known.
        #[source]
        source: serde_json::Error,
    },
}

/// The canonical bytes of a document: keys sorted by bytes, no white space, no trailing newline.
///
/// For our own documents, whose types hold strings, integers, lists and string-keyed maps.
///
/// # Panics
/// Where the type holds something else (a fraction): a mistake in the program, never a matter of data. Use
/// [`try_canonical_json`] for values from outside.
pub fn canonical_json<T: Serialize + ?Sized>(document: &T) -> Vec<u8> {
    try_canonical_json(document).expect("our documents hold strings, small integers, lists and maps only")
}

/// The canonical bytes of any value, or why it has none.
pub fn try_canonical_json<T: Serialize + ?Sized>(document: &T) -> Result<Vec<u8>, JsonError> {
    let value = serde_json::to_value(document).map_err(|source| JsonError::Serialize { source })?;
    let mut out = Vec::new();
    write_value(&value, &mut out)?;
    Ok(out)
}

/// Reads a whole document; a duplicate key at any depth is an error, and so are more than 250,000 values. The caller
/// bounds the size.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    let parse = |source| JsonError::Parse { source };
    let left = Cell::new(VALUES_MAX);
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { left: &left }.deserialize(&mut deserializer).map_err(parse)?;
    deserializer.end().map_err(parse)?;
    T::deserialize(value).map_err(parse)
}

fn write_value(value: &Value, out: &mut Vec<u8>) -> Result<(), JsonError> {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => write_number(number, out)?,
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_value(item, out)?;
            }
            out.push(b']');
        }
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by(|(a, _), (b, _)| a.as_bytes().cmp(b.as_bytes()));
            out.push(b'{');
            for (index, (key, member)) in members.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_string(key, out);
                out.push(b':');
                write_value(member, out)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

fn write_number(number: &Number, out: &mut Vec<u8>) -> Result<(), JsonError> {
    let magnitude = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
    if magnitude.is_none_or(|magnitude| magnitude > INTEGER_MAX) {
        return Err(JsonError::Number {
            number: number.to_string(),
        });
    }
    out.extend_from_slice(number.to_string().as_bytes());
    Ok(())
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for &byte in text.as_bytes() {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0..0x20 => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// Reads a JSON value in which no object has a key twice.
#[derive(Clone, Copy)]
struct Strict<'a> {
    /// How many values may still be read.
    left: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let left = self.left.get().checked_sub(1);
        let too_many = || D::Error::custom(format_args!("it has more than {VALUES_MAX} values"));
        self.left.set(left.ok_or_else(too_many)?);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = serde_json::Map::new();
        while let Some(key) = members.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format_args!("the key `{key}` appears twice")));
            }
            let member = members.next_value_seed(self)?;
            object.insert(key, member);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn canonical(value: &Value) -> String {
        String::from_utf8(try_canonical_json(value).unwrap()).unwrap()
    }

    #[test]
    fn golden_texts() {
        let cases = [
            (json!(null), "null"),
            (json!([]), "[]"),
            (json!({}), "{}"),
            (json!([true, false, 0, -1, 42]), "[true,false,0,-1,42]"),
            (json!(INTEGER_MAX), "9007199254740991"),
            (json!(-9_007_199_254_740_991_i64), "-9007199254740991"),
            (
                json!({"b": 1, "a": {"d": [], "c": "x"}}),
                r#"{"a":{"c":"x","d":[]},"b":1}"#,
            ),
            (
                json!({"a": 1, "B": 2, "a.b": 3, "é": 4, "aa": 5}),
                r#"{"B":2,"a":1,"a.b":3,"aa":5,"é":4}"#,
            ),
            (json!("<a href=\"x\">&\u{2028}"), "\"<a href=\\\"x\\\">&\u{2028}\""),
            (
                json!("\u{0}\u{8}\t\n\u{b}\u{c}\r\u{1f}\u{7f}\\/é😀"),
                "\"\\u0000\\b\\t\\n\\u000b\\f\\r\\u001f\u{7f}\\\\/é😀\"",
            ),
        ];
        for (value, expected) in cases {
            assert_eq!(canonical(&value), expected);
        }
    }

    #[test]
    fn what_is_not_an_integer_of_i_json_is_refused() {
        for value in [
            json!(1.5),
            json!(1.0),
            json!(INTEGER_MAX + 1),
            json!(i64::MIN),
            json!([{"a": u64::MAX}]),
        ] {
            assert!(
                matches!(try_canonical_json(&value), Err(JsonError::Number { .. })),
                "{value}"
            );
        }
    }

    #[test]
    fn a_hash_map_gives_the_same_bytes_in_every_order() {
        let members: Vec<(String, u32)> = (0..200).map(|n| (format!("key-{}", n * 7919 % 200), n)).collect();
        let expected = canonical_json(&members.iter().cloned().collect::<std::collections::BTreeMap<_, _>>());
        for run in 0..6 {
            // Each map of the standard library has its own random order.
            #[expect(clippy::disallowed_types, reason = "its order is what is tested")]
            let map: std::collections::HashMap<_, _> =
                members.iter().cycle().skip(run * 31).take(200).cloned().collect();
            assert_eq!(canonical_json(&map), expected);
        }
    }

    #[test]
    fn reading_refuses_what_two_readers_see_differently() {
        let cases = [
            (r#"{"a":1,"a":1}"#, "the key `a` appears twice"),
            (r#"{"x":[{"k":{},"\u006b":{}}]}"#, "the key `k` appears twice"),
            ("{} {}", "trailing characters"),
            ("{", "EOF"),
            ("\u{feff}{}", "expected value"),
            ("[01]", "invalid number"),
            (r#""\ud800""#, "hex escape"),
        ];
        for (text, expected) in cases {
            let error = parse_json::<Value>(text.as_bytes()).unwrap_err();
            let cause = error.source().unwrap().to_string();
            assert!(cause.contains(expected), "{text}: {cause}");
        }
        let deep = "[".repeat(100_000);
        assert!(parse_json::<Value>(deep.as_bytes()).is_err());
        assert!(parse_json::<Value>(b"\"\xff\"").is_err());
        let many = |count: usize| format!("[{}0]", "0,".repeat(count));
        assert!(parse_json::<Value>(many(VALUES_MAX - 2).as_bytes()).is_ok());
        let error = parse_json::<Value>(many(VALUES_MAX - 1).as_bytes()).unwrap_err();
        assert!(error.source().unwrap().to_string().contains("more than 250000 values"));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-(INTEGER_MAX as i64)..=INTEGER_MAX as i64).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..8).prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn canonical_text_reads_back_and_is_a_fixed_point(value in any_json()) {
            let bytes = try_canonical_json(&value).unwrap();
            let read: Value = parse_json(&bytes).unwrap();
            prop_assert_eq!(&read, &value);
            prop_assert_eq!(try_canonical_json(&read).unwrap(), bytes);
        }
    }
}
