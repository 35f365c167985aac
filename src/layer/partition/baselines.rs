//! *Baselines*: the strategies of other tools, as their sources describe them.
//!
//! Invariant: each is a pure function of the graph; where a source leaves ties to a hash or to the order of its
//! input, the key decides.
//!
//! | name | from | rule |
//! |---|---|---|
//! | `popularity` | nixpkgs dockerTools until 2025 | the most referred-to paths alone, the rest together |
//! | `biggest` | Guix | the biggest paths alone, the rest together |
//! | `size-first` | nixpkgs dockerTools | split off the biggest path with what it shares, next biggest, … |
//! | `dominator` | Nixery | subtrees of the dominator tree, the lowest rated merged |

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::graph::Graph;
use crate::graph::post_order;

/// Nixery's threshold for a layer of its own, in bytes of closure.
const LARGE_CLOSURE: u64 = 100_000_000;

/// nixpkgs' `references-by-popularity`: a path counts once for every way in which it is reached, and once more for
/// each step of the way.
pub(super) fn popularity(graph: &Graph, nodes: &[usize], limit: usize) -> Vec<Vec<usize>> {
    let referrers = graph.referrers();
    let order = topological(graph);
    let mut scores: Vec<Option<BTreeMap<usize, u128>>> = vec![None; graph.len()];
    for &node in &order {
        let children = graph.references(node).iter().copied();
        scores[node] = Some(reached(children, &scores));
    }
    let roots = (0..graph.len()).filter(|&node| referrers[node].is_empty());
    let total = reached(roots, &scores);
    let score = |node: &usize| total.get(node).copied().unwrap_or(0);
    let mut sorted = nodes.to_vec();
    sorted.sort_by_key(|node| (Reverse(score(node)), *node));
    first_alone(&sorted, limit)
}

fn reached(children: impl Iterator<Item = usize>, scores: &[Option<BTreeMap<usize, u128>>]) -> BTreeMap<usize, u128> {
    let mut reached: BTreeMap<usize, u128> = BTreeMap::new();
    for child in children {
        // A reference against the order closes a cycle, which the source does not know.
        let Some(below) = &scores[child] else { continue };
        let mut add = |node, count: u128| {
            let score = reached.entry(node).or_default();
            *score = score.saturating_add(count);
        };
        add(child, 1);
        below
            .iter()
            .for_each(|(&node, &count)| add(node, count.saturating_add(1)));
    }
    reached
}

/// Guix's `size-sorted-store-items`.
pub(super) fn biggest(graph: &Graph, nodes: &[usize], limit: usize) -> Vec<Vec<usize>> {
    let mut sorted = nodes.to_vec();
    sorted.sort_by_key(|&node| (Reverse(graph.nodes()[node].size), node));
    first_alone(&sorted, limit)
}

fn first_alone(sorted: &[usize], limit: usize) -> Vec<Vec<usize>> {
    let alone = if sorted.len() <= limit {
        sorted.len()
    } else {
        limit.saturating_sub(1)
    };
    let (first, rest) = sorted.split_at(alone);
    let mut groups: Vec<Vec<usize>> = first.iter().map(|&node| vec![node]).collect();
    if !rest.is_empty() {
        groups.push(rest.to_vec());
    }
    groups
}

/// nixpkgs' `auto-layer.py`. It stops at the first path that would make too many layers.
pub(super) fn size_first(graph: &Graph, nodes: &[usize], limit: usize) -> Vec<Vec<usize>> {
    let mut primaries = nodes.to_vec();
    primaries.sort_by_key(|&node| (Reverse(graph.nodes()[node].size), node));
    let mut split: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); graph.len()];
    for primary in primaries {
        let below: BTreeSet<usize> = graph.closure(primary).iter().filter(|&node| node != primary).collect();
        let is_above = |node: usize| node != primary && graph.closure(node).contains(primary);
        let mut new = split.clone();
        new[primary] = BTreeSet::from([primary]);
        for &node in &below {
            let mut set: BTreeSet<usize> = new[node].iter().copied().filter(|&other| !is_above(other)).collect();
            if set.is_disjoint(&below) {
                set.insert(primary);
            }
            new[node] = set;
        }
        let distinct: BTreeSet<&BTreeSet<usize>> = nodes.iter().map(|&node| &new[node]).collect();
        if distinct.len() > limit {
            break;
        }
        split = new;
    }
    let mut groups: BTreeMap<&BTreeSet<usize>, Vec<usize>> = BTreeMap::new();
    for &node in nodes {
        groups.entry(&split[node]).or_default().push(node);
    }
    groups.into_values().collect()
}

/// Nixery's grouping, without its popularity data (every popularity is 1).
pub(super) fn dominator(graph: &Graph, nodes: &[usize], limit: usize) -> Vec<Vec<usize>> {
    let closure_size: Vec<u64> = (0..graph.len())
        .map(|node| graph.closure(node).iter().map(|other| graph.nodes()[other].size).sum())
        .collect();
    let wanted: BTreeSet<usize> = nodes.iter().copied().collect();
    let mut groups: BTreeMap<usize, (u64, Vec<usize>)> = BTreeMap::new();
    for (node, top) in top_dominators(graph, &closure_size).into_iter().enumerate() {
        if wanted.contains(&node) {
            let group = groups.entry(top).or_default();
            group.0 += closure_size[node];
            group.1.push(node);
        }
    }
    // Lowest rating first; a merged group stays at the front, as in the source.
    let mut queue: BTreeSet<(u64, usize)> = groups.iter().map(|(&top, &(rating, _))| (rating, top)).collect();
    while queue.len() > limit.max(1) {
        let (Some((low, into)), Some((next, from))) = (queue.pop_first(), queue.pop_first()) else {
            break;
        };
        let (_, members) = groups.remove(&from).unwrap_or_default();
        groups.entry(into).or_default().1.extend(members);
        queue.insert((low.saturating_add(next), into));
    }
    queue
        .iter()
        .rev()
        .filter_map(|(_, top)| groups.remove(top))
        .map(|(_, members)| members)
        .collect()
}

/// For each node the child of the (synthetic) root in whose dominator subtree it stands: the root itself refers to
/// the graph's roots and to every node with a large closure. (Cooper, Harvey and Kennedy's algorithm.)
fn top_dominators(graph: &Graph, closure_size: &[u64]) -> Vec<usize> {
    let count = graph.len();
    let root = count;
    let referrers = graph.referrers();
    // Referrers before what they refer to; the synthetic root is before all.
    let order: Vec<usize> = topological(graph).into_iter().rev().collect();
    let mut position = vec![0; count + 1];
    order.iter().enumerate().for_each(|(at, &node)| position[node] = at + 1);
    // One pass is enough: references that close a cycle are left out, and without them every referrer comes first.
    let mut dominator = vec![root; count];
    for &node in &order {
        let above = referrers[node]
            .iter()
            .copied()
            .filter(|&other| position[other] < position[node]);
        let from_root = closure_size[node] > LARGE_CLOSURE;
        let met = above.reduce(|a, b| common(&dominator, &position, a, b));
        dominator[node] = met.filter(|_| !from_root).unwrap_or(root);
    }
    (0..count)
        .map(|node| {
            let mut top = node;
            while dominator[top] != root {
                top = dominator[top];
            }
            top
        })
        .collect()
}

/// The nearest node that dominates both; the synthetic root comes before all and dominates itself.
fn common(dominator: &[usize], position: &[usize], mut a: usize, mut b: usize) -> usize {
    while a != b {
        let later = if position[a] > position[b] { &mut a } else { &mut b };
        *later = dominator[*later];
    }
    a
}

/// References before referrers, ties by key; a cycle is cut where it is met.
fn topological(graph: &Graph) -> Vec<usize> {
    post_order(graph.all_references(), &mut |_| {})
}
