//! Layers are *paired* by diffID, in order; what is left over was added, removed, moved, or changed in place.
//!
//! Invariant: each layer of either image has exactly one match; no layer is read for it.

use std::collections::BTreeSet;
use std::ops::Range;

use super::super::opened::OpenedLayer;
use super::sequence::align;
use super::{LayerPlace, packages};
use crate::digest::{ContentDigest, DiffId};

/// What became of a layer, by its indexes in both images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LayerMatch {
    /// The same blob, or the same tar in another blob, at the same place in the order.
    Same(usize, usize),
    /// Another tar at the same place in the order.
    Changed(usize, usize),
    /// The same tar elsewhere in the order.
    Moved(usize, usize),
    /// Only in the first image.
    Removed(usize),
    /// Only in the second image.
    Added(usize),
}

impl LayerMatch {
    /// The layers it is about.
    pub(super) fn place(self) -> LayerPlace {
        let (a, b) = match self {
            Self::Same(a, b) | Self::Changed(a, b) | Self::Moved(a, b) => (Some(a), Some(b)),
            Self::Removed(a) => (Some(a), None),
            Self::Added(b) => (None, Some(b)),
        };
        LayerPlace { a, b }
    }
}

/// Whether the layers that are not in both images lie together, at the same place between those that are in both:
/// then the images' file systems are the same if what these layers make is the same.
pub(super) fn together(matches: &[LayerMatch]) -> bool {
    let mut own = (Vec::new(), Vec::new());
    for layer_match in matches {
        match *layer_match {
            LayerMatch::Same(..) => {}
            LayerMatch::Moved(..) => return false,
            LayerMatch::Changed(a, b) => {
                own.0.push(a);
                own.1.push(b);
            }
            LayerMatch::Removed(a) => own.0.push(a),
            LayerMatch::Added(b) => own.1.push(b),
        }
    }
    own.0.sort_unstable();
    own.1.sort_unstable();
    let joined = |list: &[usize]| list.windows(2).all(|two| two[0] + 1 == two[1]);
    // Below the first of them lie only common layers, as many as its index says.
    joined(&own.0) && joined(&own.1) && (own.0.is_empty() || own.1.is_empty() || own.0[0] == own.1[0])
}

/// What makes two layers the same: the tar, or the blob where a config does not say the tar.
#[derive(PartialEq, Eq)]
enum Identity {
    Tar(DiffId),
    Blob(ContentDigest),
}

pub(super) fn match_layers(a: &[OpenedLayer], b: &[OpenedLayer]) -> Vec<LayerMatch> {
    let identities = |layers: &[OpenedLayer]| -> Vec<Identity> {
        let identity = |layer: &OpenedLayer| {
            layer
                .diff_id
                .map_or(Identity::Blob(layer.descriptor.digest), Identity::Tar)
        };
        layers.iter().map(identity).collect()
    };
    let (ids_a, ids_b) = (identities(a), identities(b));
    let mut matches = Vec::new();
    let mut loose = (Vec::new(), Vec::new());
    let (mut x, mut y) = (0, 0);
    for (to_x, to_y) in align(&ids_a, &ids_b).into_iter().chain([(a.len(), b.len())]) {
        gap((a, x..to_x), (b, y..to_y), &mut matches, &mut loose);
        if to_x < a.len() && to_y < b.len() {
            matches.push(LayerMatch::Same(to_x, to_y));
        }
        (x, y) = (to_x + 1, to_y + 1);
    }
    resolve_moves(&mut matches, &ids_a, &ids_b, &loose);
    matches
}

/// Between two pairs, as many layers on both sides stand for each other; otherwise it cannot be told which do.
fn gap(
    (layers_a, a): (&[OpenedLayer], Range<usize>),
    (layers_b, b): (&[OpenedLayer], Range<usize>),
    matches: &mut Vec<LayerMatch>,
    loose: &mut (Vec<usize>, Vec<usize>),
) {
    loose.0.extend(a.clone());
    loose.1.extend(b.clone());
    if a.len() == b.len() {
        matches.extend(pairs((layers_a, a), (layers_b, b)));
    } else {
        matches.extend(a.map(LayerMatch::Removed));
        matches.extend(b.map(LayerMatch::Added));
    }
}

/// Pairs as many layers on both sides: those that hold the most packages in common, as layerize's layers say, the others
/// in their order.
fn pairs(
    (layers_a, a): (&[OpenedLayer], Range<usize>),
    (layers_b, b): (&[OpenedLayer], Range<usize>),
) -> Vec<LayerMatch> {
    let names = |layers: &[OpenedLayer], range: Range<usize>| -> Vec<(usize, BTreeSet<String>)> {
        range
            .map(|index| (index, packages::names(&layers[index].descriptor)))
            .collect()
    };
    let (mut rest_a, mut free) = (Vec::new(), names(layers_b, b));
    let mut matches = Vec::new();
    for (x, packages) in names(layers_a, a) {
        let common = |(_, other): &(usize, BTreeSet<String>)| other.intersection(&packages).count();
        // Of several the first.
        let best = (0..free.len()).rev().max_by_key(|&index| common(&free[index]));
        match best.filter(|&index| common(&free[index]) > 0) {
            Some(index) => matches.push(LayerMatch::Changed(x, free.remove(index).0)),
            None => rest_a.push(x),
        }
    }
    matches.extend(
        rest_a
            .into_iter()
            .zip(free)
            .map(|(x, (y, _))| LayerMatch::Changed(x, y)),
    );
    matches.sort_by_key(|layer_match| layer_match.place().a);
    matches
}

/// Layers that are in both images out of order: whatever else was thought of them, they moved.
fn resolve_moves(matches: &mut Vec<LayerMatch>, a: &[Identity], b: &[Identity], loose: &(Vec<usize>, Vec<usize>)) {
    let mut free = loose.1.clone();
    for &x in &loose.0 {
        let Some(found) = free.iter().position(|&y| a[x] == b[y]) else {
            continue;
        };
        let y = free.remove(found);
        let split = |layer_match: LayerMatch| match layer_match {
            LayerMatch::Changed(p, q) if p == x && q == y => vec![],
            LayerMatch::Changed(p, q) if p == x => vec![LayerMatch::Added(q)],
            LayerMatch::Changed(p, q) if q == y => vec![LayerMatch::Removed(p)],
            LayerMatch::Removed(p) if p == x => vec![],
            LayerMatch::Added(q) if q == y => vec![],
            other => vec![other],
        };
        *matches = matches.drain(..).flat_map(split).collect();
        matches.push(LayerMatch::Moved(x, y));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::oci::Descriptor;

    fn layers(text: &str) -> Vec<OpenedLayer> {
        let layer = |byte: u8| OpenedLayer {
            descriptor: Descriptor::new("", Digest::of(&[byte]), 1),
            diff_id: Some(DiffId::from_bytes([byte; 32])),
        };
        text.bytes().map(layer).collect()
    }

    #[test]
    fn every_layer_has_one_fate() {
        use LayerMatch::{Added, Changed, Moved, Removed, Same};
        for (a, b, expected) in [
            ("abc", "abc", vec![Same(0, 0), Same(1, 1), Same(2, 2)]),
            ("abc", "axc", vec![Same(0, 0), Changed(1, 1), Same(2, 2)]),
            ("abc", "abxc", vec![Same(0, 0), Same(1, 1), Added(2), Same(2, 3)]),
            ("abc", "ac", vec![Same(0, 0), Removed(1), Same(2, 1)]),
            ("abc", "xyz", vec![Changed(0, 0), Changed(1, 1), Changed(2, 2)]),
            ("ab", "ba", vec![Same(1, 0), Moved(0, 1)]),
            ("a", "", vec![Removed(0)]),
            ("", "", vec![]),
        ] {
            assert_eq!(match_layers(&layers(a), &layers(b)), expected, "{a} {b}");
        }
    }

    #[test]
    fn layers_of_the_same_packages_stand_for_each_other_wherever_they_are() {
        let layer = |byte: u8, paths: &str| {
            let mut layer = layers("x").remove(0);
            layer.diff_id = Some(DiffId::from_bytes([byte; 32]));
            let list = (crate::image::STORE_PATHS_ANNOTATION.to_owned(), paths.to_owned());
            layer.descriptor.annotations = std::collections::BTreeMap::from([list]);
            layer
        };
        let a = [
            layer(1, "/s/a-app-1.0"),
            layer(2, "/s/a-libc6-2.36 /s/a-zlib-1"),
            layer(3, ""),
        ];
        let b = [layer(4, "/s/b-libc6-2.37"), layer(5, ""), layer(6, "/s/b-app-1.1")];
        let expected = [
            LayerMatch::Changed(0, 2),
            LayerMatch::Changed(1, 0),
            LayerMatch::Changed(2, 1),
        ];
        assert_eq!(match_layers(&a, &b), expected);
    }

    #[test]
    fn fates_cover_both_images_exactly_once() {
        for (a, b) in [
            ("abcdef", "fabxde"),
            ("aab", "baa"),
            ("abc", "cba"),
            ("abxy", "yxzw"),
            ("aaaa", "aa"),
        ] {
            let mut seen = (vec![0; a.len()], vec![0; b.len()]);
            for layer_match in match_layers(&layers(a), &layers(b)) {
                match layer_match {
                    LayerMatch::Same(x, y) | LayerMatch::Changed(x, y) | LayerMatch::Moved(x, y) => {
                        seen.0[x] += 1;
                        seen.1[y] += 1;
                    }
                    LayerMatch::Removed(x) => seen.0[x] += 1,
                    LayerMatch::Added(y) => seen.1[y] += 1,
                }
            }
            assert!(
                seen.0.iter().chain(&seen.1).all(|&count| count == 1),
                "{a} {b}: {seen:?}"
            );
        }
    }
}
