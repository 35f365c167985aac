//! *Orders* and sums over a graph whose nodes are numbers; it may have cycles.
//!
//! Invariant: results depend on the numbers and edges alone; no recursion, so no graph is too deep.

use std::collections::BTreeSet;

/// The strongly connected components, each sorted, each after all that it leads to; among those that could come
/// next, the one with the smallest member comes first.
pub(super) fn components(edges: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let component = component_of(edges);
    let count = component.iter().map(|number| number + 1).max().unwrap_or(0);
    let mut members = vec![Vec::new(); count];
    let mut needs = vec![BTreeSet::new(); count];
    let mut needed_by = vec![BTreeSet::new(); count];
    for (node, targets) in edges.iter().enumerate() {
        let from = component[node];
        members[from].push(node);
        for to in targets.iter().map(|&target| component[target]).filter(|&to| to != from) {
            needs[from].insert(to);
            needed_by[to].insert(from);
        }
    }
    let mut waiting: Vec<usize> = needs.iter().map(BTreeSet::len).collect();
    let ready = (0..count).filter(|&number| waiting[number] == 0);
    let mut ready: BTreeSet<(usize, usize)> = ready.map(|number| (members[number][0], number)).collect();
    let mut order = Vec::new();
    while let Some((_, number)) = ready.pop_first() {
        for &user in &needed_by[number] {
            waiting[user] -= 1;
            if waiting[user] == 0 {
                ready.insert((members[user][0], user));
            }
        }
        order.push(std::mem::take(&mut members[number]));
    }
    order
}

/// For each node, the sum of `sizes` over all nodes that it leads to, itself among them.
pub(super) fn reachable_sums(edges: &[Vec<usize>], sizes: &[u64]) -> Vec<u64> {
    let words = sizes.len().div_ceil(64);
    let mut reached: Vec<Vec<u64>> = vec![Vec::new(); sizes.len()];
    let mut sums = vec![0; sizes.len()];
    for component in components(edges) {
        let mut set = vec![0u64; words];
        for &node in &component {
            set[node / 64] |= 1 << (node % 64);
            // Members of the same component have no set yet.
            for target in &edges[node] {
                for (word, other) in set.iter_mut().zip(&reached[*target]) {
                    *word |= other;
                }
            }
        }
        let members = (0..sizes.len()).filter(|node| set[node / 64] >> (node % 64) & 1 == 1);
        let sum = members.map(|node| sizes[node]).sum();
        for node in component {
            reached[node].clone_from(&set);
            sums[node] = sum;
        }
    }
    sums
}

/// For each node the number of its strongly connected component (Kosaraju's algorithm).
fn component_of(edges: &[Vec<usize>]) -> Vec<usize> {
    let mut reversed = vec![Vec::new(); edges.len()];
    for (node, targets) in edges.iter().enumerate() {
        for &target in targets {
            reversed[target].push(node);
        }
    }
    let mut component = vec![usize::MAX; edges.len()];
    let mut count = 0;
    for root in finishing_order(edges).into_iter().rev() {
        if component[root] != usize::MAX {
            continue;
        }
        let mut stack = vec![root];
        component[root] = count;
        while let Some(node) = stack.pop() {
            for &next in &reversed[node] {
                if component[next] == usize::MAX {
                    component[next] = count;
                    stack.push(next);
                }
            }
        }
        count += 1;
    }
    component
}

/// All nodes in the order in which a depth-first search leaves them.
fn finishing_order(edges: &[Vec<usize>]) -> Vec<usize> {
    let mut seen = vec![false; edges.len()];
    let mut order = Vec::with_capacity(edges.len());
    for root in 0..edges.len() {
        if std::mem::replace(&mut seen[root], true) {
            continue;
        }
        // A node, and how many of its edges were followed.
        let mut stack = vec![(root, 0)];
        while let Some((node, followed)) = stack.last_mut() {
            let Some(&next) = edges[*node].get(*followed) else {
                order.push(*node);
                stack.pop();
                continue;
            };
            *followed += 1;
            if !std::mem::replace(&mut seen[next], true) {
                stack.push((next, 0));
            }
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cycles_stand_together_after_what_they_need() {
        // 3 ⇄ 1 → 4, 0 → 1, 2 alone.
        let edges = [vec![1], vec![3, 4], vec![], vec![1], vec![]];
        assert_eq!(components(&edges), [vec![2], vec![4], vec![1, 3], vec![0]]);
        assert_eq!(
            reachable_sums(&edges, &[1, 10, 100, 1000, 10000]),
            [11011, 11010, 100, 11010, 10000]
        );
        assert_eq!(components(&[]), Vec::<Vec<usize>>::new());
    }

    #[test]
    fn a_long_chain_is_no_problem() {
        let length = 3000;
        let edges: Vec<Vec<usize>> = (0..length)
            .map(|node| if node + 1 < length { vec![node + 1] } else { vec![] })
            .collect();
        assert_eq!(components(&edges).concat(), (0..length).rev().collect::<Vec<_>>());
        assert_eq!(reachable_sums(&edges, &vec![1; length])[0], length as u64);
    }

    proptest! {
        #[test]
        fn sums_agree_with_a_search_from_every_node(
            pairs in proptest::collection::vec((0usize..12, 0usize..12), 0..40),
        ) {
            let mut edges = vec![Vec::new(); 12];
            for (from, to) in pairs {
                edges[from].push(to);
            }
            let sizes: Vec<u64> = (0..12).map(|node| 1 << node).collect();
            let reach = |start: usize| {
                let mut seen = BTreeSet::from([start]);
                let mut stack = vec![start];
                while let Some(node) = stack.pop() {
                    stack.extend(edges[node].iter().filter(|&&next| seen.insert(next)));
                }
                seen
            };
            let expected: Vec<u64> = (0..12).map(|node| reach(node).iter().map(|&other| sizes[other]).sum()).collect();
            prop_assert_eq!(reachable_sums(&edges, &sizes), expected);
            let order = components(&edges);
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
