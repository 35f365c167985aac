//! A *directed graph*: what is reached, what is strongly connected, and in which order nothing comes before what it
//! leads to.
//!
//! Invariant: results depend on the numbers of the nodes and the order of their edges alone, cycles included; there is
//! no recursion, so that no graph (a hostile one, a chain of a million paths) exhausts the stack.
//!
//! A graph is a list of *successors*: for each node, by its index, the indices of the nodes that it leads to. The
//! crate petgraph does not serve: it leaves the order within a component open, and the order of a step's inputs is
//! part of a hash; its Tarjan recurses; its Kosaraju takes three times as long (50 ms for 50,000 nodes with 500,000
//! edges, where [`components`] takes 16).

mod node_set;

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::convert::Infallible;

pub use node_set::NodeSet;

/// `start` and all that it leads to, by `successors`.
pub fn closure<N: Ord + Clone, I: IntoIterator<Item = N>>(
    start: impl IntoIterator<Item = N>,
    mut successors: impl FnMut(&N) -> I,
) -> BTreeSet<N> {
    let Ok(closure) = try_closure(start, |node| Ok::<_, Infallible>(successors(node)));
    closure
}

/// `start` and all that it leads to; `successors` is asked once for each node, and its first error ends the walk.
pub fn try_closure<N: Ord + Clone, I: IntoIterator<Item = N>, E>(
    start: impl IntoIterator<Item = N>,
    mut successors: impl FnMut(&N) -> Result<I, E>,
) -> Result<BTreeSet<N>, E> {
    let mut reached = BTreeSet::new();
    let mut waiting: Vec<N> = start.into_iter().collect();
    while let Some(node) = waiting.pop() {
        if !reached.contains(&node) {
            waiting.extend(successors(&node)?);
            reached.insert(node);
        }
    }
    Ok(reached)
}

/// The closure of every node, itself included.
pub fn closures(successors: &[Vec<usize>]) -> Vec<NodeSet> {
    let count = successors.len();
    let mut closures = vec![NodeSet::empty(0); count];
    for component in components(successors) {
        let mut closure = NodeSet::empty(count);
        component.iter().for_each(|&node| closure.insert(node));
        for &node in &component {
            // Other members of the component have no closure yet.
            successors[node]
                .iter()
                .for_each(|&next| closure.extend(&closures[next]));
        }
        for &node in &component {
            closures[node] = closure.clone();
        }
    }
    closures
}

/// All nodes, each after everything that it leads to, directly or not, but for those on a common cycle with it: these
/// come one after the other, in the order in which a depth-first search leaves them.
pub fn dependency_order(successors: &[Vec<usize>]) -> Vec<usize> {
    components(successors).concat()
}

/// The strongly connected components, each after all that it leads to (Kosaraju's algorithm).
///
/// A depth-first order alone does not give that: from `a → b → a`, `a → c`, it may finish `b` before `c`, which `b`
/// leads to through `a`.
pub fn components(successors: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut predecessors = vec![Vec::new(); successors.len()];
    for (node, targets) in successors.iter().enumerate() {
        for &target in targets {
            predecessors[target].push(node);
        }
    }
    let mut order = post_order(successors, &mut |_| {});
    // Components are numbered from the users to what they use.
    let mut component = vec![usize::MAX; successors.len()];
    for (number, &root) in order.iter().rev().enumerate() {
        let mut waiting = vec![root];
        while let Some(node) = waiting.pop() {
            if component[node] == usize::MAX {
                component[node] = number;
                waiting.extend(predecessors[node].iter().filter(|&&user| component[user] == usize::MAX));
            }
        }
    }
    order.sort_by_key(|&node| Reverse(component[node]));
    order
        .chunk_by(|&a, &b| component[a] == component[b])
        .map(<[usize]>::to_vec)
        .collect()
}

/// Depth-first post-order: every node after its successors, but for edges that close a cycle. Each such edge
/// is handed to `on_cycle` as the path it closes (its target first, its origin last).
pub fn post_order(successors: &[Vec<usize>], on_cycle: &mut dyn FnMut(&[usize])) -> Vec<usize> {
    #[derive(Clone, Copy, PartialEq)]
    enum VisitState {
        New,
        Open,
        Done,
    }
    let mut state = vec![VisitState::New; successors.len()];
    let mut order = Vec::with_capacity(successors.len());
    for root in 0..successors.len() {
        if state[root] != VisitState::New {
            continue;
        }
        let mut path = vec![root];
        let mut next_edge = vec![0];
        state[root] = VisitState::Open;
        while let (Some(&node), Some(edge)) = (path.last(), next_edge.last_mut()) {
            let target = successors[node].get(*edge).copied();
            *edge += 1;
            match target.map(|target| (target, state[target])) {
                Some((target, VisitState::New)) => {
                    state[target] = VisitState::Open;
                    path.push(target);
                    next_edge.push(0);
                }
                Some((target, VisitState::Open)) => {
                    let start = path.iter().position(|&open| open == target);
                    on_cycle(&path[start.expect("an open node is on the path")..]);
                }
                Some(_) => {}
                None => {
                    state[node] = VisitState::Done;
                    order.push(node);
                    path.pop();
                    next_edge.pop();
                }
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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
        assert_eq!(components(&graph), [vec![2], vec![1, 0]]);
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
        assert_eq!(closure([199_990], |&node| chain[node].iter().copied()).len(), 10);
    }

    #[test]
    fn a_walk_asks_once_and_ends_at_the_first_error() {
        let mut asked = Vec::new();
        let reached = try_closure([1, 1], |&node| {
            asked.push(node);
            if node < 4 { Ok([node + 1, 1]) } else { Err(node) }
        });
        assert_eq!((reached, asked), (Err(4), vec![1, 2, 3, 4]));
    }

    proptest! {
        #[test]
        fn orders_and_closures_agree_with_a_search_from_every_node(
            pairs in proptest::collection::vec((0usize..12, 0usize..12), 0..40),
        ) {
            let mut edges = vec![Vec::new(); 12];
            for (from, to) in pairs {
                edges[from].push(to);
            }
            let reach = |start: usize| closure([start], |&node| edges[node].clone());
            for (node, closure) in closures(&edges).iter().enumerate() {
                prop_assert_eq!(closure.iter().collect::<BTreeSet<_>>(), reach(node));
            }
            let order = components(&edges);
            prop_assert_eq!(order.concat().len(), 12);
            let place = |node: usize| order.iter().position(|component| component.contains(&node)).unwrap();
            for (from, targets) in edges.iter().enumerate() {
                for &to in targets {
                    prop_assert!(place(to) <= place(from));
                    prop_assert_eq!(place(to) == place(from), reach(to).contains(&from));
                }
            }
        }
    }
}
