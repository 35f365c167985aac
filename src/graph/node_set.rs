//! A *set of nodes* of one graph, a bit for each.
//!
//! Invariant: all sets of one graph have the same number of words.

/// A set of node indices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSet(Box<[u64]>);

impl NodeSet {
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
        self.words()
            .enumerate()
            .flat_map(|(index, word)| Self::ones(word).map(move |bit| index * 64 + bit))
    }

    /// The bits, 64 nodes a word, the lowest bit first.
    pub fn words(&self) -> impl Iterator<Item = u64> {
        self.0.iter().copied()
    }

    /// Positions of the bits that are set in a word, ascending.
    pub fn ones(mut word: u64) -> impl Iterator<Item = usize> {
        std::iter::from_fn(move || {
            let bit = (word != 0).then(|| word.trailing_zeros() as usize)?;
            word &= word - 1;
            Some(bit)
        })
    }
}
