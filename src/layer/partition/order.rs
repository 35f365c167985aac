//! The *order* of a plan's layers, lowest first.
//!
//! Invariant: a function of the groups, for any order of its input.
//!
//! A registry takes each layer by itself, but Docker knows a layer only together with all that is below it: a layer that
//! changes is loaded and pulled again with everything above. A layer is therefore expected to cost its bytes times the
//! expected changes of the closures of all layers up to it, its own among them, and the sum of that over all layers is to
//! be small. From the lowest, the layer is taken next whose closure brings the fewest new expected changes for each of
//! its bytes; then neighbours change places while that saves something.
//!
//! Sizes count by their powers of two: a layer that grows a little keeps its place, else everything above it would be loaded
//! again for that alone. Leaving the layers of the plan before below all others, in their old order, was measured too: Docker loads no less.

use std::cmp::Ordering;

use super::model::{Group, Model};
use crate::graph::NodeSet;
use crate::oci::LayerLimit;

/// A group, and why its paths stand together.
pub(super) type Reasoned = (Group, String);

/// Puts layers into their order.
pub(super) fn order(model: &Model<'_>, mut layers: Vec<Reasoned>) -> Vec<Reasoned> {
    layers.sort_by(|(a, _), (b, _)| a.members.cmp(&b.members));
    let layers = choose(model, layers);
    // Docker takes no image of more layers, and to others their order is nothing.
    match layers.len() <= LayerLimit::DOCKER.get() {
        true => settle(model, layers),
        false => layers,
    }
}

/// The power of two below a size.
fn rough(size: u64) -> u64 {
    size.checked_ilog2().map_or(0, |power| 1 << power)
}

/// Takes one layer after another, each time the one that adds least to what all that are still to come cost.
fn choose(model: &Model<'_>, layers: Vec<Reasoned>) -> Vec<Reasoned> {
    // By node: the layers whose closures hold it, for as long as no chosen layer's does.
    let mut holders: Vec<Vec<usize>> = vec![Vec::new(); model.graph.len()];
    for (layer, (group, _)) in layers.iter().enumerate() {
        group.closure.iter().for_each(|node| holders[node].push(layer));
    }
    // By layer: the changes that its closure adds to those of what was chosen so far.
    let mut added: Vec<u64> = layers.iter().map(|(group, _)| group.weight).collect();
    let mut waiting: Vec<usize> = (0..layers.len()).collect();
    let mut order = Vec::with_capacity(layers.len());
    let size = |layer: usize| rough(layers[layer].0.size);
    while let Some(at) = (0..waiting.len()).min_by(|&a, &b| {
        let [a, b] = [waiting[a], waiting[b]];
        compare((added[a], size(a)), (added[b], size(b))).then(a.cmp(&b))
    }) {
        let layer = waiting.swap_remove(at);
        for node in layers[layer].0.closure.iter() {
            for holder in std::mem::take(&mut holders[node]) {
                added[holder] -= model.weights.of(node);
            }
        }
        order.push(layer);
    }
    let mut layers: Vec<Option<Reasoned>> = layers.into_iter().map(Some).collect();
    order.into_iter().filter_map(|layer| layers[layer].take()).collect()
}

/// Compares two layers (new expected changes, bytes) by changes for each byte. Those without bytes come last: nothing is
/// lost by loading them again.
fn compare((changes_a, size_a): (u64, u64), (changes_b, size_b): (u64, u64)) -> Ordering {
    let ratio = |changes: u64, other: u64| u128::from(changes) * u128::from(other);
    (size_a == 0)
        .cmp(&(size_b == 0))
        .then_with(|| ratio(changes_a, size_b).cmp(&ratio(changes_b, size_a)))
}

/// Lets neighbours change places while that makes the whole cheaper.
fn settle(model: &Model<'_>, mut layers: Vec<Reasoned>) -> Vec<Reasoned> {
    loop {
        let mut swapped = false;
        let mut below = NodeSet::empty(model.graph.len());
        for at in 1..layers.len() {
            let [first, second] = [at - 1, at].map(|at| &layers[at].0);
            // What both together expect is the same either way; so the higher layer's own cost is too, but for its size.
            let both = {
                let mut both = below.clone();
                both.extend(&first.closure);
                model.weights.sum_union(&both, &second.closure)
            };
            let cost = |low: &Group, high: &Group| {
                u128::from(rough(low.size)) * u128::from(model.weights.sum_union(&below, &low.closure))
                    + u128::from(rough(high.size)) * u128::from(both)
            };
            if cost(second, first) < cost(first, second) {
                layers.swap(at - 1, at);
                swapped = true;
            }
            below.extend(&layers[at - 1].0.closure);
        }
        if !swapped {
            return layers;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::graph::{Graph, Node};
    use super::super::history::History;
    use super::super::model::Outlook;
    use super::*;

    fn node(name: &str, size: u64, references: &[&str]) -> Node {
        let path = |name: &str| format!("/layerize/store/{name:0>32}-{name}");
        Node {
            size,
            references: references.iter().map(|name| path(name)).collect(),
            ..Node::new(path(name))
        }
    }

    /// Names of the paths in their order, each in a layer of its own.
    fn ordered(nodes: Vec<Node>, given: &[(&str, u64)]) -> Vec<String> {
        let graph = Graph::new(nodes).unwrap();
        let given: BTreeMap<usize, u64> = given
            .iter()
            .map(|(name, weight)| (graph.named(name)[0], *weight))
            .collect();
        let model = Model::new(&graph, &given, &History::default(), Outlook::Once);
        let layers = (0..graph.len()).map(|node| (model.single(node), String::new()));
        let layers = order(&model, layers.collect());
        layers
            .iter()
            .map(|(group, _)| graph.nodes()[group.members[0]].name.clone())
            .collect()
    }

    #[test]
    fn what_is_large_lies_below_what_changes_as_often() {
        let nodes = vec![node("a", 10, &[]), node("b", 1000, &[]), node("c", 100, &[])];
        assert_eq!(ordered(nodes, &[]), ["b", "c", "a"]);
    }

    #[test]
    fn a_little_growth_moves_nothing() {
        for size in [1_000_000, 1_000_008, 1_040_000] {
            let nodes = vec![
                node("a", 1_000_000, &[]),
                node("b", size, &[]),
                node("c", 1_000_000, &[]),
            ];
            assert_eq!(ordered(nodes, &[]), ["a", "b", "c"], "{size}");
        }
    }

    #[test]
    fn what_changes_often_lies_above_even_where_it_is_larger() {
        let nodes = vec![node("app", 200, &[]), node("lib", 100, &[])];
        assert_eq!(ordered(nodes, &[("app", 500_000)]), ["lib", "app"]);
    }

    #[test]
    fn what_is_referred_to_lies_below_what_refers_to_it() {
        let nodes = vec![node("app", 1_000_000, &["lib"]), node("lib", 1, &[])];
        assert_eq!(ordered(nodes, &[]), ["lib", "app"]);
    }

    #[test]
    fn layers_without_bytes_or_changes_are_no_trouble() {
        let nodes = vec![
            node("a", 0, &[]),
            node("b", 0, &[]),
            node("c", 5, &[]),
            node("d", 5, &[]),
        ];
        assert_eq!(ordered(nodes, &[("d", 0), ("b", 0)]), ["d", "c", "a", "b"]);
    }

    proptest::proptest! {
        /// No order of a few layers costs less than half of the chosen one, and that does not depend on how they were given.
        #[test]
        fn the_order_is_near_the_best(
            weights in proptest::collection::vec((0u64..1000, 0u64..1000), 1..6),
            edges in proptest::collection::vec((0usize..6, 0usize..6), 0..8),
        ) {
            let names: Vec<String> = (0..weights.len()).map(|at| format!("p{at}")).collect();
            let nodes: Vec<Node> = weights.iter().enumerate().map(|(at, &(size, _))| {
                let below: Vec<&str> = edges.iter()
                    .filter(|&&(from, to)| from == at && to < at)
                    .map(|&(_, to)| names[to].as_str())
                    .collect();
                node(&names[at], size, &below)
            }).collect();
            let graph = Graph::new(nodes).unwrap();
            let given: BTreeMap<usize, u64> = weights.iter().enumerate()
                .map(|(at, &(_, weight))| (graph.named(&names[at])[0], weight))
                .collect();
            let model = Model::new(&graph, &given, &History::default(), Outlook::Once);
            let cost = |order: &[usize]| {
                let mut below = NodeSet::empty(graph.len());
                order.iter().map(|&node| {
                    below.extend(graph.closure(node));
                    u128::from(graph.nodes()[node].size) * u128::from(model.weights.sum(&below))
                }).sum::<u128>()
            };
            let chosen = |nodes: &mut dyn Iterator<Item = usize>| -> Vec<usize> {
                let layers = nodes.map(|node| (model.single(node), String::new())).collect();
                order(&model, layers).iter().map(|(group, _)| group.members[0]).collect()
            };
            let ours = chosen(&mut (0..graph.len()));
            proptest::prop_assert_eq!(&ours, &chosen(&mut (0..graph.len()).rev()));
            let best = permutations(graph.len()).iter().map(|order| cost(order)).min().unwrap();
            proptest::prop_assert!(cost(&ours) <= best * 2, "{} against {best}", cost(&ours));
        }
    }

    fn permutations(count: usize) -> Vec<Vec<usize>> {
        if count == 0 {
            return vec![Vec::new()];
        }
        let shorter = permutations(count - 1);
        let put = |order: &Vec<usize>, at: usize| {
            let mut longer = order.clone();
            longer.insert(at, count - 1);
            longer
        };
        shorter
            .iter()
            .flat_map(|order| (0..count).map(move |at| put(order, at)))
            .collect()
    }
}
