//! *Churn*: the strategy that minimises the bytes expected to be re-sent.
//!
//! Invariant: always the cheapest merge is done, ties going to the pair whose first members come first by key.
//!
//! Every path begins in a layer of its own, the fewest bytes per change. While there are too many layers, the
//! pair is merged for which the expected bytes grow least: `(sA+sB)·w(A∪B) − sA·w(A) − sB·w(B)`, with s the size and
//! w the expected changes of the closure. All pairs are compared where that is quick; in a larger closure the
//! smallest groups first merge with groups near them in the graph.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::model::{Group, Model};

/// Most groups among which all pairs are compared.
const DENSE: usize = 800;
/// Most groups that one group is compared with before that.
const NEAR: usize = 24;
/// How many groups of the next lower and higher weights are near.
const WINDOW: usize = 4;

/// Merges groups until at most `limit` are left.
pub(super) fn merge_down(model: &Model<'_>, groups: Vec<Group>, limit: usize) -> Vec<Group> {
    merge_down_beyond(DENSE, model, groups, limit)
}

/// The same with another number of groups among which all pairs are compared.
pub(super) fn merge_down_beyond(dense: usize, model: &Model<'_>, groups: Vec<Group>, limit: usize) -> Vec<Group> {
    let few = merge_near(model, groups, limit.max(dense));
    merge_all(model, few, limit.max(1))
}

/// A possible merge; the greatest is the cheapest.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Merge {
    cost: Reverse<i128>,
    /// First members of the two groups: the tie-breaker, and what finds them.
    pair: Reverse<(usize, usize)>,
    /// Indices of the two groups; a merged group has a new index, so that old merges are recognised.
    groups: (usize, usize),
}

fn candidate(model: &Model<'_>, groups: &[Option<Group>], a: usize, b: usize) -> Option<Merge> {
    let (first, second) = (groups[a].as_ref()?, groups[b].as_ref()?);
    let (low, high) = (first.members.first()?, second.members.first()?);
    Some(Merge {
        cost: Reverse(model.merge_cost(first, second)),
        pair: Reverse((*low.min(high), *low.max(high))),
        groups: (a, b),
    })
}

/// Merges with every pair compared.
fn merge_all(model: &Model<'_>, groups: Vec<Group>, limit: usize) -> Vec<Group> {
    let mut left = groups.len();
    let mut groups: Vec<Option<Group>> = groups.into_iter().map(Some).collect();
    if left <= limit {
        return groups.into_iter().flatten().collect();
    }
    let pairs = (0..left).flat_map(|b| (0..b).map(move |a| (a, b)));
    let mut heap: BinaryHeap<Merge> = pairs.filter_map(|(a, b)| candidate(model, &groups, a, b)).collect();
    while left > limit {
        let Some(Merge { groups: (a, b), .. }) = heap.pop() else {
            break;
        };
        if groups[a].is_none() || groups[b].is_none() {
            continue;
        }
        let merged = take_merged(model, &mut groups, a, b);
        left -= 1;
        let new = groups.len();
        groups.push(merged);
        heap.extend((0..new).filter_map(|other| candidate(model, &groups, other, new)));
    }
    groups.into_iter().flatten().collect()
}

fn take_merged(model: &Model<'_>, groups: &mut [Option<Group>], a: usize, b: usize) -> Option<Group> {
    let (first, second) = (groups[a].take()?, groups[b].take()?);
    Some(model.merged(first, &second))
}

/// Merges with only near pairs compared: references, referrers, and groups of about the same weight.
fn merge_near(model: &Model<'_>, groups: Vec<Group>, limit: usize) -> Vec<Group> {
    let mut left = groups.len();
    if left <= limit {
        return groups;
    }
    let mut near = neighbours(model, &groups);
    let mut groups: Vec<Option<Group>> = groups.into_iter().map(Some).collect();
    // What became of each group.
    let mut into: Vec<usize> = (0..groups.len()).collect();
    let mut heap = BinaryHeap::new();
    for (group, others) in near.iter().enumerate() {
        heap.extend(
            others
                .iter()
                .filter(|&&other| other > group)
                .filter_map(|&other| candidate(model, &groups, group, other)),
        );
    }
    while left > limit {
        let Some(Merge { groups: (a, b), .. }) = heap.pop() else {
            break;
        };
        if groups[a].is_none() || groups[b].is_none() {
            continue;
        }
        let merged = take_merged(model, &mut groups, a, b);
        left -= 1;
        let new = groups.len();
        (into[a], into[b]) = (new, new);
        into.push(new);
        groups.push(merged);
        let both = [std::mem::take(&mut near[a]), std::mem::take(&mut near[b])].concat();
        let others: BTreeSet<usize> = both
            .into_iter()
            .map(|other| current(&mut into, other))
            .filter(|&other| other != new)
            .collect();
        let mut others: Vec<usize> = others.into_iter().collect();
        keep_nearest(&groups, new, &mut others);
        heap.extend(others.iter().filter_map(|&other| candidate(model, &groups, other, new)));
        near.push(others);
    }
    groups.into_iter().flatten().collect()
}

/// The group that a group has become part of.
fn current(into: &mut [usize], group: usize) -> usize {
    let mut last = group;
    while into[last] != last {
        into[last] = into[into[last]];
        last = into[last];
    }
    last
}

fn keep_nearest(groups: &[Option<Group>], group: usize, others: &mut Vec<usize>) {
    let weight = |index: usize| groups[index].as_ref().map_or(0, |group| group.weight);
    let own = weight(group);
    others.sort_by_key(|&other| (weight(other).abs_diff(own), other));
    others.truncate(NEAR);
}

fn neighbours(model: &Model<'_>, groups: &[Group]) -> Vec<Vec<usize>> {
    let mut group_of = vec![0; model.graph.len()];
    for (index, group) in groups.iter().enumerate() {
        group.members.iter().for_each(|&node| group_of[node] = index);
    }
    let mut near: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); groups.len()];
    let mut join = |a: usize, b: usize| {
        if a != b {
            near[a].insert(b);
            near[b].insert(a);
        }
    };
    let mut by_weight: Vec<usize> = (0..groups.len()).collect();
    by_weight.sort_by_key(|&index| (groups[index].weight, index));
    for (at, &index) in by_weight.iter().enumerate() {
        by_weight[at + 1..]
            .iter()
            .take(WINDOW)
            .for_each(|&other| join(index, other));
    }
    for node in 0..model.graph.len() {
        let nearest = model.graph.references(node).iter().take(NEAR);
        nearest.for_each(|&reference| join(group_of[node], group_of[reference]));
    }
    near.into_iter().map(|others| others.into_iter().collect()).collect()
}
