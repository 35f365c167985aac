//! An *update* starts from the plan of the release before.
//!
//! Invariant: a layer in which nothing changed stands as it is unless taking it apart or merging it saves more, over
//! the releases counted, than it costs now to send it again.
//!
//! A layer that the release touches is sent again anyway, so that its paths are free: they are partitioned
//! anew, with what was learned, together with paths that are new. Standing layers take part as wholes. Then, while
//! that pays, the standing layer is set free whose freedom saves most.

use super::churn::merge_down;
use super::file::LayerPlan;
use super::history::Changes;
use super::model::{Group, Model};
use super::polish::polish;

/// Partitions `nodes` into at most `limit` groups, starting from `previous`.
pub(super) fn update(model: &Model<'_>, previous: &LayerPlan, nodes: &[usize], limit: usize) -> Vec<Group> {
    let changes = Changes::between(previous, model.graph);
    let standing = standing_layers(previous, &changes, nodes);
    let mut stays = vec![true; standing.len()];
    let mut best = arrange(model, nodes, &standing, &stays, limit);
    // Freeing a layer is tried for each of them, and again after each success: too much for a very large graph.
    while nodes.len() <= 2000 {
        let tries = (0..standing.len()).filter(|&layer| stays[layer] && standing[layer].len() > 1);
        let freed = tries.map(|layer| {
            let mut stays = stays.clone();
            stays[layer] = false;
            (arrange(model, nodes, &standing, &stays, limit), layer)
        });
        match freed.min_by_key(|((cost, _), layer)| (*cost, *layer)) {
            Some((better, layer)) if better.0 < best.0 => {
                best = better;
                stays[layer] = false;
            }
            _ => break,
        }
    }
    polish(model, best.1, limit, &standing)
}

/// Layers of the previous plan whose paths are all here unchanged and all among `nodes`.
pub(super) fn standing_layers(previous: &LayerPlan, changes: &Changes, nodes: &[usize]) -> Vec<Vec<usize>> {
    let mut layers = vec![Vec::new(); previous.layers.len()];
    for &node in nodes.iter().filter(|&&node| changes.same[node]) {
        if let Some(layer) = changes.layer[node] {
            layers[layer].push(node);
        }
    }
    let whole = layers.into_iter().zip(&previous.layers);
    let whole = whole.filter(|(found, before)| !found.is_empty() && found.len() == before.paths.len());
    let mut standing: Vec<Vec<usize>> = whole.map(|(found, _)| found).collect();
    standing.iter_mut().for_each(|members| members.sort_unstable());
    standing
}

/// The plan in which these standing layers take part as wholes and all other nodes are free, and its cost.
fn arrange(
    model: &Model<'_>,
    nodes: &[usize],
    standing: &[Vec<usize>],
    stays: &[bool],
    limit: usize,
) -> (i128, Vec<Group>) {
    let mut free = vec![false; model.graph.len()];
    nodes.iter().for_each(|&node| free[node] = true);
    let mut groups = Vec::new();
    for (members, _) in standing.iter().zip(stays).filter(|&(_, &stays)| stays) {
        members.iter().for_each(|&node| free[node] = false);
        let mut group = model.group(members.clone());
        group.standing = true;
        groups.push(group);
    }
    groups.extend(nodes.iter().filter(|&&node| free[node]).map(|&node| model.single(node)));
    let mut groups = merge_down(model, groups, limit);
    for group in &mut groups {
        group.standing = group.standing || standing.contains(&group.members);
    }
    (groups.iter().map(|group| model.cost(group)).sum(), groups)
}
