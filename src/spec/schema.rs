//! The *JSON Schema* (draft 2020-12) of a spec, for editors: completion, documentation, first checks.
//!
//! Invariant: made from the parser's own tables, so it knows the same keys and shapes; whatever the parser
//! accepts it accepts, while names and texts are the parser's to judge.

use serde_json::{Map, Value, json};

use super::keys::{self, Key, Shape};

/// The schema of `layerize.toml`.
pub fn schema() -> Value {
    let mut schema = table(keys::ROOT);
    let head = [
        ("$schema", "https://json-schema.org/draft/2020-12/schema"),
        ("title", "layerize.toml"),
        ("description", "Packages to build and container images to make of them."),
    ];
    schema.extend(head.map(|(key, text)| (key.to_owned(), json!(text))));
    Value::Object(schema)
}

fn table(keys: &[Key]) -> Map<String, Value> {
    let properties: Map<String, Value> = (keys.iter())
        .map(|key| {
            let mut schema = shape(&key.shape);
            schema.insert("description".to_owned(), json!(key.doc));
            (key.name.to_owned(), Value::Object(schema))
        })
        .collect();
    let required: Vec<&str> = keys.iter().filter(|key| key.required).map(|key| key.name).collect();
    object(json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    }))
}

fn shape(shape: &Shape) -> Map<String, Value> {
    let any = |shapes: &[Shape]| -> Vec<Value> {
        let schemas = shapes.iter().map(|inner| Value::Object(self::shape(inner)));
        schemas.collect()
    };
    match shape {
        Shape::Text => object(json!({ "type": "string" })),
        Shape::Flag => object(json!({ "type": "boolean" })),
        Shape::Count(min, max) => object(json!({ "type": "integer", "minimum": min, "maximum": max })),
        Shape::Probability => object(json!({ "type": "number", "minimum": 0, "maximum": 1 })),
        Shape::Choice(names) => object(json!({ "enum": names })),
        Shape::Many(inner) => object(json!({ "type": "array", "items": self::shape(inner) })),
        Shape::Map(inner) => object(json!({ "type": "object", "additionalProperties": self::shape(inner) })),
        Shape::Table(keys) => table(keys),
        Shape::Any(shapes) => object(json!({ "anyOf": any(shapes) })),
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::tests::{cases, check_golden, fixtures};

    /// Checks the parts of draft 2020-12 that the schema uses; a part that it does not know is a failure.
    fn accepts(schema: &Value, value: &Value) -> bool {
        let schema = schema.as_object().expect("a schema is an object");
        schema.iter().all(|(keyword, argument)| match keyword.as_str() {
            "$schema" | "title" | "description" => true,
            "type" => match argument.as_str().unwrap() {
                "object" => value.is_object(),
                "array" => value.is_array(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "integer" => value.is_i64(),
                "number" => value.is_number(),
                other => panic!("unknown type {other}"),
            },
            "enum" => argument.as_array().unwrap().contains(value),
            "minimum" => value.as_f64().is_none_or(|number| number >= argument.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|number| number <= argument.as_f64().unwrap()),
            "items" => value
                .as_array()
                .is_none_or(|items| items.iter().all(|item| accepts(argument, item))),
            "anyOf" => argument.as_array().unwrap().iter().any(|schema| accepts(schema, value)),
            "required" => value.as_object().is_none_or(|object| {
                let names = argument.as_array().unwrap().iter();
                names
                    .map(|name| name.as_str().unwrap())
                    .all(|name| object.contains_key(name))
            }),
            "properties" => value.as_object().is_none_or(|object| {
                let known =
                    |(key, value): (&String, &Value)| argument.get(key).is_none_or(|inner| accepts(inner, value));
                object.iter().all(known)
            }),
            "additionalProperties" => value.as_object().is_none_or(|object| {
                let known = schema.get("properties").and_then(Value::as_object);
                let mut others = object
                    .iter()
                    .filter(|(key, _)| known.is_none_or(|known| !known.contains_key(*key)));
                match argument {
                    Value::Bool(false) => others.next().is_none(),
                    inner => others.all(|(_, value)| accepts(inner, value)),
                }
            }),
            other => panic!("unknown keyword {other}"),
        })
    }

    fn read(folder: &str, case: &str) -> Value {
        let text = std::fs::read_to_string(fixtures().join(folder).join(case)).unwrap();
        serde_json::to_value(toml::from_str::<toml::Value>(&text).unwrap()).unwrap()
    }

    #[test]
    fn the_schema_is_what_it_was() {
        let text = serde_json::to_string_pretty(&schema()).unwrap();
        check_golden("schema.json", &format!("{text}\n"));
    }

    #[test]
    fn right_specs_are_accepted() {
        for case in cases("ok") {
            assert!(accepts(&schema(), &read("ok", &case)), "{case}");
        }
    }

    #[test]
    fn wrong_shapes_are_refused() {
        for case in [
            "unknown-keys.toml",
            "wrong-types.toml",
            "missing-fields.toml",
            "layers.toml",
        ] {
            assert!(!accepts(&schema(), &read("bad", case)), "{case}");
        }
        assert!(!accepts(
            &schema(),
            &json!({ "package": { "a": { "source": { "sha256": "x" } } } })
        ));
        assert!(!accepts(&schema(), &json!({ "debian": { "architecture": "x86_64" } })));
    }

    /// Every key has an example in `ok/full.toml`, and so is read by the parser, which knows no other: it may
    /// ask only for keys of the tables that the schema is made from.
    #[test]
    fn every_key_is_shown_in_the_full_example() {
        fn visit(keys: &'static [Key], tables: &[&Value], path: &str) {
            for key in keys {
                let path = format!("{path}.{}", key.name);
                let found: Vec<&Value> = tables.iter().filter_map(|table| table.get(key.name)).collect();
                assert!(!found.is_empty(), "no example of {path}");
                descend(&key.shape, &found, &path);
            }
        }
        fn descend(shape: &'static Shape, values: &[&Value], path: &str) {
            let inner = || -> Vec<&Value> {
                let arrays = values.iter().filter_map(|value| value.as_array()).flatten();
                let tables = values
                    .iter()
                    .filter_map(|value| value.as_object())
                    .flat_map(Map::values);
                arrays.chain(tables).collect()
            };
            match shape {
                Shape::Many(shape) | Shape::Map(shape) => descend(shape, &inner(), path),
                Shape::Any(shapes) => shapes.iter().for_each(|shape| descend(shape, values, path)),
                Shape::Table(keys) => visit(keys, values, path),
                Shape::Text | Shape::Flag | Shape::Count(..) | Shape::Probability | Shape::Choice(_) => {}
            }
        }
        visit(keys::ROOT, &[&read("ok", "full.toml")], "");
    }
}
