//! What the tables of keys promise each other and the schema.

use super::*;
use crate::oci::LayerLimit;

/// Every table with its keys.
fn tables() -> Vec<&'static [Key]> {
    fn walk(shape: &'static Shape, found: &mut Vec<&'static [Key]>) {
        match shape {
            Table(keys) => {
                found.push(keys);
                keys.iter().for_each(|key| walk(&key.shape, found));
            }
            Many(inner) | Map(inner) => walk(inner, found),
            Any(shapes) => shapes.iter().for_each(|shape| walk(shape, found)),
            Text | Flag | Count(..) | Shape::Probability | Choice(_) => {}
        }
    }
    let mut found = vec![ROOT];
    ROOT.iter().for_each(|key| walk(&key.shape, &mut found));
    found
}

#[test]
fn names_are_unique_and_documented() {
    for keys in tables() {
        let mut names: Vec<&str> = keys.iter().map(|key| key.name).collect();
        for key in keys {
            assert!(key.doc.ends_with('.') || key.doc.ends_with(")."), "{}", key.name);
            assert!(
                !key.also.iter().any(|also| names.contains(also) && *also == key.name),
                "{}",
                key.name
            );
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), keys.len(), "{names:?}");
    }
}

#[test]
fn the_limits_that_are_told_of_layers_are_those_that_hold() {
    let doc = |name: &str| LAYERS.iter().find(|key| key.name == name).unwrap().doc;
    let max = format!(
        "(default {}; more than {} only with `beyond-docker`)",
        LayerLimit::DEFAULT,
        LayerLimit::DOCKER
    );
    assert!(doc("max").contains(&max), "{max}");
    assert!(doc("beyond-docker").contains(&format!("({})", LayerLimit::DOCKER)));
}
