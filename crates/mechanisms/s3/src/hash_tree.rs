//! BLAKE3 of content in parts, some of which an earlier run of the program may have uploaded.

use postern_files::hash_tree::{self, ChainingValue};

/// Bytes per leaf: a power of two, and less than the smallest part, so that several whole parts are never a
/// single leaf.
pub(crate) const LEAF: usize = 1024 * 1024;

/// The hashes of the leaves of some content: each of [`LEAF`] bytes, except the last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Leaves(Vec<ChainingValue>);

impl Leaves {
    /// The leaves of bytes that start at `offset`, which is a multiple of [`LEAF`].
    pub(crate) fn of(bytes: &[u8], offset: u64) -> Self {
        let starts = (offset..).step_by(LEAF);
        Self(bytes.chunks(LEAF).zip(starts).map(|(leaf, start)| hash_tree::part(leaf, start)).collect())
    }

    /// From recorded hashes.
    pub(crate) fn from_hashes(hashes: Vec<ChainingValue>) -> Self {
        Self(hashes)
    }

    pub(crate) fn hashes(&self) -> &[ChainingValue] {
        &self.0
    }

    /// Appends the leaves of the following content; the existing ones must be whole.
    pub(crate) fn extend(&mut self, next: &Self) {
        self.0.extend_from_slice(&next.0);
    }

    /// The hash of the whole content; `None` if it has fewer than two leaves.
    pub(crate) fn root(&self) -> Option<[u8; 32]> {
        hash_tree::root(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaf_hashes_combine_to_the_whole_hash() {
        let content: Vec<u8> = (0..LEAF * 5 + 4_321).map(|at| (at % 251).to_le_bytes()[0]).collect();
        for size in [LEAF + 1, 2 * LEAF, 3 * LEAF - 1, 3 * LEAF, 4 * LEAF + 5, content.len()] {
            let content = &content[..size];
            let mut leaves = Leaves::default();
            for (at, part) in content.chunks(2 * LEAF).enumerate() {
                leaves.extend(&Leaves::of(part, (at * 2 * LEAF) as u64));
            }
            assert_eq!(leaves.root(), Some(*blake3::hash(content).as_bytes()), "{size}");
        }
        assert_eq!(Leaves::of(&content[..LEAF], 0).root(), None);
        assert_eq!(Leaves::default().root(), None);
    }
}
