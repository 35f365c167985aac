//! *Dependency order* of a graph given by indices: each node after what it points to.
//!
//! Invariant: the order depends on the numbering and the edges' order alone, cycles included; no recursion,
//! so that a hostile graph cannot exhaust the stack. Every index is that of a node.

use std::cmp::Reverse;

/// All nodes, each after everything that it leads to, directly or not, but for those on a common cycle with it.
///
/// A depth-first order alone does not give that: from `a → b → a`, `a → c`, it may finish `b` before `c`, which
/// `b` leads to through `a`. So the cycles' nodes are gathered first (Kosaraju's strongly connected components)
/// and keep the depth-first order among themselves.
pub(crate) fn dependency_order(successors: &[Vec<usize>]) -> Vec<usize> {
    let mut predecessors = vec![Vec::new(); successors.len()];
    for (node, targets) in successors.iter().enumerate() {
        for &target in targets {
            predecessors[target].push(node);
        }
    }
    let mut order = post_order(successors, &mut |_| {});
    let mut component = vec![None; successors.len()];
    for (number, &root) in order.iter().rev().enumerate() {
        let mut todo = vec![root];
        while let Some(node) = todo.pop() {
            if component[node].is_none() {
                component[node] = Some(number);
                todo.extend(predecessors[node].iter().filter(|&&user| component[user].is_none()));
            }
        }
    }
    // Components are numbered from the users to what they use; the sort is stable.
    order.sort_by_key(|&node| Reverse(component[node]));
    order
}

/// Depth-first post-order: every node after its successors, but for edges that close a cycle. Each such edge
/// is handed to `on_cycle` as the path it closes (its target first, its origin last).
pub(crate) fn post_order(successors: &[Vec<usize>], on_cycle: &mut dyn FnMut(&[usize])) -> Vec<usize> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        New,
        Open,
        Done,
    }
    let mut state = vec![State::New; successors.len()];
    let mut order = Vec::with_capacity(successors.len());
    for root in 0..successors.len() {
        if state[root] != State::New {
            continue;
        }
        let mut path = vec![root];
        let mut next_edge = vec![0];
        state[root] = State::Open;
        while let (Some(&node), Some(edge)) = (path.last(), next_edge.last_mut()) {
            let target = successors[node].get(*edge).copied();
            *edge += 1;
            match target.map(|target| (target, state[target])) {
                Some((target, State::New)) => {
                    state[target] = State::Open;
                    path.push(target);
                    next_edge.push(0);
                }
                Some((target, State::Open)) => {
                    let start = path.iter().position(|&open| open == target);
                    on_cycle(&path[start.expect("an open node is on the path")..]);
                }
                Some(_) => {}
                None => {
                    state[node] = State::Done;
                    order.push(node);
                    path.pop();
                    next_edge.pop();
                }
            }
        }
    }
    order
}

/// All nodes that can be reached from `start` by at least one edge, sorted; `start` is among them only where
/// it is on a cycle.
pub(crate) fn reachable(successors: &[Vec<usize>], start: usize) -> Vec<usize> {
    let mut seen = vec![false; successors.len()];
    let mut todo = vec![start];
    while let Some(node) = todo.pop() {
        for &target in &successors[node] {
            if !std::mem::replace(&mut seen[target], true) {
                todo.push(target);
            }
        }
    }
    (0..seen.len()).filter(|&node| seen[node]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(successors: &[&[usize]]) -> (Vec<usize>, Vec<Vec<usize>>) {
        let successors: Vec<Vec<usize>> = successors.iter().map(|edges| edges.to_vec()).collect();
        let mut cycles = Vec::new();
        let order = post_order(&successors, &mut |cycle| cycles.push(cycle.to_vec()));
        (order, cycles)
    }

    #[test]
    fn nodes_follow_what_they_point_to() {
        assert_eq!(ordered(&[&[1, 2], &[3], &[3], &[]]), (vec![3, 1, 2, 0], vec![]));
        assert_eq!(ordered(&[]), (vec![], vec![]));
    }

    #[test]
    fn cycles_are_told_and_do_not_disturb_others() {
        assert_eq!(ordered(&[&[0]]), (vec![0], vec![vec![0]]));
        assert_eq!(
            ordered(&[&[1], &[2], &[1, 3], &[]]),
            (vec![3, 2, 1, 0], vec![vec![1, 2]])
        );
    }

    #[test]
    fn what_is_reached_through_a_cycle_comes_before_it() {
        let graph = [vec![1, 2], vec![0], vec![]];
        assert_eq!(ordered(&[&[1, 2], &[0], &[]]).0, [1, 2, 0], "depth first alone");
        assert_eq!(dependency_order(&graph), [2, 1, 0]);
        assert_eq!(dependency_order(&[]), [0; 0]);
    }

    #[test]
    fn a_long_chain_needs_no_stack() {
        let mut chain: Vec<Vec<usize>> = (1..200_000).map(|next| vec![next]).collect();
        chain.push(Vec::new());
        let backwards: Vec<usize> = (0..chain.len()).rev().collect();
        assert_eq!(post_order(&chain, &mut |_| panic!("no cycle")), backwards);
        assert_eq!(dependency_order(&chain), backwards);
    }

    #[test]
    fn reachable_nodes_leave_the_start_out_unless_cyclic() {
        let graph = [vec![1], vec![2], vec![1], vec![0]];
        assert_eq!(reachable(&graph, 0), [1, 2]);
        assert_eq!(reachable(&graph, 1), [1, 2]);
        assert_eq!(reachable(&graph, 3), [0, 1, 2]);
    }
}
