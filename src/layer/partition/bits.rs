//! A *set of nodes* as bits, and the sum of weights over such a set.
//!
//! Invariant: all sets of one graph have the same number of words; weights are integers, so that sums are
//! the same on every machine and in every order.

/// A set of node indices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bits(Box<[u64]>);

impl Bits {
    /// The empty set among `nodes` nodes.
    pub fn empty(nodes: usize) -> Self {
        Self(vec![0; nodes.div_ceil(64)].into())
    }

    /// Adds a node.
    pub fn insert(&mut self, node: usize) {
        self.0[node / 64] |= 1 << (node % 64);
    }

    /// Whether a node is in the set.
    pub fn contains(&self, node: usize) -> bool {
        self.0[node / 64] >> (node % 64) & 1 == 1
    }

    /// Adds all nodes of another set.
    pub fn extend(&mut self, other: &Self) {
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            *word |= other;
        }
    }

    /// Number of nodes in the set.
    pub fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The nodes, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        self.0
            .iter()
            .enumerate()
            .flat_map(|(index, &word)| ones(word).map(move |bit| index * 64 + bit))
    }
}

fn ones(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = (word != 0).then(|| word.trailing_zeros() as usize)?;
        word &= word - 1;
        Some(bit)
    })
}

/// Weights of all nodes, quick to sum: most nodes have the least weight.
#[derive(Debug, Clone)]
pub(super) struct Weights {
    least: u64,
    /// Nodes with more than the least weight.
    more: Bits,
    each: Vec<u64>,
}

impl Weights {
    /// Takes each node's weight.
    pub fn new(each: Vec<u64>) -> Self {
        let least = each.iter().copied().min().unwrap_or(0);
        let mut more = Bits::empty(each.len());
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
    pub fn sum(&self, set: &Bits) -> u64 {
        self.sum_words(set.0.iter().copied())
    }

    /// Sum over the union of two sets.
    pub fn sum_union(&self, a: &Bits, b: &Bits) -> u64 {
        self.sum_words(a.0.iter().zip(&b.0).map(|(a, b)| a | b))
    }

    fn sum_words(&self, words: impl Iterator<Item = u64>) -> u64 {
        let mut sum = 0;
        for (index, (word, more)) in words.zip(&self.more.0).enumerate() {
            sum += u64::from(word.count_ones()) * self.least;
            for bit in ones(word & more) {
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
        let (mut a, mut b) = (Bits::empty(200), Bits::empty(200));
        [0, 3, 64, 140, 199].into_iter().for_each(|node| a.insert(node));
        [3, 7, 63].into_iter().for_each(|node| b.insert(node));
        let expected = |set: &Bits| set.iter().map(|node| weights.of(node)).sum::<u64>();
        assert_eq!(weights.sum(&a), expected(&a));
        let mut union = a.clone();
        union.extend(&b);
        assert_eq!(weights.sum_union(&a, &b), expected(&union));
        assert_eq!(union.iter().collect::<Vec<_>>(), [0, 3, 7, 63, 64, 140, 199]);
        assert_eq!((union.count(), union.contains(7), a.contains(7)), (7, true, false));
    }
}
