//! The keys of `layers`: how an image's store paths are grouped.
//!
//! Invariant: that of [`super`].

use super::Shape::{Choice, Count, Flag, Many, Map, Probability, Text};
use super::{Key, TEXTS, also, key};
use crate::oci::{LayerLimit, LayerStrategy, TarProfile};

/// `layers = { … }`.
pub(in crate::spec) const LAYERS: &[Key] = &[
    key(
        "strategy",
        Choice(&LayerStrategy::NAMES),
        "How paths are grouped (default `churn`).",
    ),
    also(
        key(
            "max",
            Count(1, LayerLimit::MAX.get() as i64),
            "Most layers the image may have (default 100; more than 125 only with `beyond-docker`).",
        ),
        &["max-layers", "limit"],
    ),
    key(
        "beyond-docker",
        Flag,
        "Whether the image may have more layers than Docker loads (125).",
    ),
    key(
        "groups",
        Many(&TEXTS),
        "Groups of package names that stand together in a layer of their own.",
    ),
    key(
        "weights",
        Map(&Probability),
        "Probability that an update changes a package, by name.",
    ),
    key(
        "plan",
        Text,
        "File that keeps the plan from release to release, or a plan written by hand, relative to this file.",
    ),
    also(
        key(
            "tar-profile",
            Choice(&TarProfile::NAMES),
            "Match another tool's tar bytes (default `layerize`).",
        ),
        &["tar", "profile"],
    ),
];
