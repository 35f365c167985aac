//! Layers are *paired* by diffID, in order; what is left over was added, removed, moved, or changed in place.
//!
//! Invariant: each layer of either image has exactly one fate; no layer is read for it.

use std::collections::BTreeSet;
use std::ops::Range;

use super::super::opened::OpenedLayer;
use super::sequence::align;
use super::{LayerPlace, packages};
use crate::digest::{ContentDigest, DiffId};

/// What became of a layer, by its indexes in both images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
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

impl Fate {
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
pub(super) fn together(fates: &[Fate]) -> bool {
    let mut own = (Vec::new(), Vec::new());
    for fate in fates {
        match *fate {
            Fate::Same(..) => {}
            Fate::Moved(..) => return false,
            Fate::Changed(a, b) => {
                own.0.push(a);
                own.1.push(b);
            }
            Fate::Removed(a) => own.0.push(a),
            Fate::Added(b) => own.1.push(b),
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

pub(super) fn fates(a: &[OpenedLayer], b: &[OpenedLayer]) -> Vec<Fate> {
    let identities = |layers: &[OpenedLayer]| -> Vec<Identity> {
        let identity = |layer: &OpenedLayer| {
            layer
                .diff_id
                .map_or(Identity::Blob(layer.descriptor.digest), Identity::Tar)
        };
        layers.iter().map(identity).collect()
    };
    let (ids_a, ids_b) = (identities(a), identities(b));
    let mut fates = Vec::new();
    let mut loose = (Vec::new(), Vec::new());
    let (mut x, mut y) = (0, 0);
    for (to_x, to_y) in align(&ids_a, &ids_b).into_iter().chain([(a.len(), b.len())]) {
        gap((a, x..to_x), (b, y..to_y), &mut fates, &mut loose);
        if to_x < a.len() && to_y < b.len() {
            fates.push(Fate::Same(to_x, to_y));
        }
        (x, y) = (to_x + 1, to_y + 1);
    }
    resolve_moves(&mut fates, &ids_a, &ids_b, &loose);
    fates
}

/// Between two pairs, as many layers on both sides stand for each other; otherwise it cannot be told which do.
fn gap(
    (layers_a, a): (&[OpenedLayer], Range<usize>),
    (layers_b, b): (&[OpenedLayer], Range<usize>),
    fates: &mut Vec<Fate>,
    loose: &mut (Vec<usize>, Vec<usize>),
) {
    loose.0.extend(a.clone());
    loose.1.extend(b.clone());
    if a.len() == b.len() {
        fates.extend(pairs((layers_a, a), (layers_b, b)));
    } else {
        fates.extend(a.map(Fate::Removed));
        fates.extend(b.map(Fate::Added));
    }
}

/// Pairs as many layers on both sides: those that hold the most packages in common, as layerize's layers say, the others
/// in their order.
fn pairs((layers_a, a): (&[OpenedLayer], Range<usize>), (layers_b, b): (&[OpenedLayer], Range<usize>)) -> Vec<Fate> {
    let names = |layers: &[OpenedLayer], range: Range<usize>| -> Vec<(usize, BTreeSet<String>)> {
        range
            .map(|index| (index, packages::names(&layers[index].descriptor)))
            .collect()
    };
    let (mut rest_a, mut free) = (Vec::new(), names(layers_b, b));
    let mut fates = Vec::new();
    for (x, packages) in names(layers_a, a) {
        let common = |(_, other): &(usize, BTreeSet<String>)| other.intersection(&packages).count();
        // Of several the first.
        let best = (0..free.len()).rev().max_by_key(|&index| common(&free[index]));
        match best.filter(|&index| common(&free[index]) > 0) {
            Some(index) => fates.push(Fate::Changed(x, free.remove(index).0)),
            None => rest_a.push(x),
        }
    }
    fates.extend(rest_a.into_iter().zip(free).map(|(x, (y, _))| Fate::Changed(x, y)));
    fates.sort_by_key(|fate| fate.place().a);
    fates
}

/// Layers that are in both images out of order: whatever else was thought of them, they moved.
fn resolve_moves(fates: &mut Vec<Fate>, a: &[Identity], b: &[Identity], loose: &(Vec<usize>, Vec<usize>)) {
    let mut free = loose.1.clone();
    for &x in &loose.0 {
        let Some(found) = free.iter().position(|&y| a[x] == b[y]) else {
            continue;
        };
        let y = free.remove(found);
        let split = |fate: Fate| match fate {
            Fate::Changed(p, q) if p == x && q == y => vec![],
            Fate::Changed(p, q) if p == x => vec![Fate::Added(q)],
            Fate::Changed(p, q) if q == y => vec![Fate::Removed(p)],
            Fate::Removed(p) if p == x => vec![],
            Fate::Added(q) if q == y => vec![],
            other => vec![other],
        };
        *fates = fates.drain(..).flat_map(split).collect();
        fates.push(Fate::Moved(x, y));
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
        use Fate::{Added, Changed, Moved, Removed, Same};
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
            assert_eq!(fates(&layers(a), &layers(b)), expected, "{a} {b}");
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
        let expected = [Fate::Changed(0, 2), Fate::Changed(1, 0), Fate::Changed(2, 1)];
        assert_eq!(fates(&a, &b), expected);
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
            for fate in fates(&layers(a), &layers(b)) {
                match fate {
                    Fate::Same(x, y) | Fate::Changed(x, y) | Fate::Moved(x, y) => {
                        seen.0[x] += 1;
                        seen.1[y] += 1;
                    }
                    Fate::Removed(x) => seen.0[x] += 1,
                    Fate::Added(y) => seen.1[y] += 1,
                }
            }
            assert!(
                seen.0.iter().chain(&seen.1).all(|&count| count == 1),
                "{a} {b}: {seen:?}"
            );
        }
    }
}
