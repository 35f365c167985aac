//! *Weights* of a graph's nodes, and their sums over sets of them.
//!
//! Invariant: weights are integers, so that sums are the same on every machine and in every order.

use crate::graph::NodeSet;

/// Weights of all nodes, quick to sum: most nodes have the least weight.
#[derive(Debug, Clone)]
pub(super) struct Weights {
    least: u64,
    /// Nodes with more than the least weight.
    more: NodeSet,
    each: Vec<u64>,
}

impl Weights {
    /// Takes each node's weight.
    pub fn new(each: Vec<u64>) -> Self {
        let least = each.iter().copied().min().unwrap_or(0);
        let mut more = NodeSet::empty(each.len());
        for (node, _) in each.iter().enumerate().filter(|&(_, &weight)| weight > least) {
            more.insert(node);
        }
        Self { least, more, each }
    }

    /// Weight of one node.
    pub fn of(&self, node: usize) -> u64 {
        self.each[node]
    }

    /// Sum over a set.
    pub fn sum(&self, set: &NodeSet) -> u64 {
        self.sum_words(set.words())
    }

    /// Sum over the union of two sets.
    pub fn sum_union(&self, a: &NodeSet, b: &NodeSet) -> u64 {
        self.sum_words(a.words().zip(b.words()).map(|(a, b)| a | b))
    }

    fn sum_words(&self, words: impl Iterator<Item = u64>) -> u64 {
        let mut sum = 0;
        for (index, (word, more)) in words.zip(self.more.words()).enumerate() {
            sum += u64::from(word.count_ones()) * self.least;
            for bit in NodeSet::ones(word & more) {
                sum += self.each[index * 64 + bit] - self.least;
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_members() {
        let weights = Weights::new(
            (0..200)
                .map(|node| if node % 7 == 0 { node } else { 3 })
                .map(|weight| weight as u64)
                .collect(),
        );
        let (mut a, mut b) = (NodeSet::empty(200), NodeSet::empty(200));
        [0, 3, 64, 140, 199].into_iter().for_each(|node| a.insert(node));
        [3, 7, 63].into_iter().for_each(|node| b.insert(node));
        let expected = |set: &NodeSet| set.iter().map(|node| weights.of(node)).sum::<u64>();
        assert_eq!(weights.sum(&a), expected(&a));
        let mut union = a.clone();
        union.extend(&b);
        assert_eq!(weights.sum_union(&a, &b), expected(&union));
        assert_eq!(union.iter().collect::<Vec<_>>(), [0, 3, 7, 63, 64, 140, 199]);
        assert_eq!((union.count(), union.contains(7), a.contains(7)), (7, true, false));
    }
}
