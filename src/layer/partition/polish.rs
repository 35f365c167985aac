//! *Polishing* moves single paths between the layers of a plan while that saves expected bytes.
//!
//! Invariant: every move lowers the plan's cost, so that polishing ends; paths are tried largest first, ties by
//! key, and each goes where it saves most.

use std::cmp::Reverse;

use super::model::{Group, Model};

/// Larger graphs are left as they are: each round tries every path in every layer.
const MAX_NODES: usize = 2000;
/// Rounds after which what is left to save does not matter.
const MAX_ROUNDS: usize = 20;

/// Moves paths between groups, and into new groups while there are fewer than `limit`.
///
/// `standing` are the layers that were there before: a group that becomes one of them costs nothing now.
pub(super) fn polish(model: &Model<'_>, groups: Vec<Group>, limit: usize, standing: &[Vec<usize>]) -> Vec<Group> {
    if model.graph.len() > MAX_NODES {
        return groups;
    }
    let spare = limit.saturating_sub(groups.len());
    let mut table = MoveTable {
        model,
        standing,
        costs: groups.iter().map(|group| model.cost(group)).collect(),
        place: vec![0; model.graph.len()],
        groups,
    };
    for (index, group) in table.groups.iter().enumerate() {
        group.members.iter().for_each(|&node| table.place[node] = index);
    }
    for _ in 0..spare {
        table.groups.push(model.group(Vec::new()));
        table.costs.push(0);
    }
    let mut order: Vec<usize> = table.groups.iter().flat_map(|group| group.members.clone()).collect();
    order.sort_by_key(|&node| (Reverse(model.graph.nodes()[node].size), node));
    for _ in 0..MAX_ROUNDS {
        let moved = order.iter().filter(|&&node| table.improve(node)).count();
        if moved == 0 {
            break;
        }
    }
    table.groups.retain(|group| !group.members.is_empty());
    table.groups
}

struct MoveTable<'m, 'g> {
    model: &'m Model<'g>,
    standing: &'m [Vec<usize>],
    groups: Vec<Group>,
    costs: Vec<i128>,
    /// By node: its group.
    place: Vec<usize>,
}

impl MoveTable<'_, '_> {
    /// Moves a node where it saves most; false where it stands best.
    fn improve(&mut self, node: usize) -> bool {
        let from = self.place[node];
        let mut rest = self.groups[from].members.clone();
        rest.retain(|&other| other != node);
        let rest = self.group(rest);
        let freed = self.costs[from] - self.model.cost(&rest);
        let moved = self.model.single(node);
        let mut best: Option<(i128, usize, Group)> = None;
        let mut tried_new = rest.members.is_empty();
        for to in (0..self.groups.len()).filter(|&to| to != from) {
            // All new groups are the same.
            if self.groups[to].members.is_empty() && std::mem::replace(&mut tried_new, true) {
                continue;
            }
            let mut grown = self.model.merged(self.groups[to].clone(), &moved);
            grown.standing = self.standing.contains(&grown.members);
            let saved = freed + self.costs[to] - self.model.cost(&grown);
            if saved > best.as_ref().map_or(0, |(most, ..)| *most) {
                best = Some((saved, to, grown));
            }
        }
        let Some((_, to, grown)) = best else { return false };
        self.set(from, rest);
        self.set(to, grown);
        self.place[node] = to;
        true
    }

    fn group(&self, members: Vec<usize>) -> Group {
        let mut group = self.model.group(members);
        group.standing = self.standing.contains(&group.members);
        group
    }

    fn set(&mut self, index: usize, group: Group) {
        self.costs[index] = self.model.cost(&group);
        self.groups[index] = group;
    }
}
