//! BLAKE3 of content that comes in parts, of which earlier ones may have come in another life of the program.

use postern_files::tree::{self, ChainingValue};

/// Bytes under one leaf: a power of two, and less than the smallest part, so that no prefix of whole parts is one leaf.
pub(crate) const LEAF: usize = 1024 * 1024;

/// The hashes of the leaves of some content: all of [`LEAF`] bytes, but for the last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Leaves(Vec<ChainingValue>);

impl Leaves {
    /// Those of bytes that begin at `offset`, which is a multiple of [`LEAF`].
    pub(crate) fn of(bytes: &[u8], offset: u64) -> Self {
        let starts = (offset..).step_by(LEAF);
        Self(bytes.chunks(LEAF).zip(starts).map(|(leaf, start)| tree::part(leaf, start)).collect())
    }

    /// As they were written down.
    pub(crate) fn from_hashes(hashes: Vec<ChainingValue>) -> Self {
        Self(hashes)
    }

    pub(crate) fn hashes(&self) -> &[ChainingValue] {
        &self.0
    }

    /// Adds those of what follows; what was there has to be whole leaves.
    pub(crate) fn extend(&mut self, next: &Self) {
        self.0.extend_from_slice(&next.0);
    }

    /// The hash of all the content; nothing where it has fewer than two leaves.
    pub(crate) fn root(&self) -> Option<[u8; 32]> {
        tree::root(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_come_to_the_hash_of_the_whole() {
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
