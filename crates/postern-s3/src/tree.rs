//! BLAKE3 of content that comes in parts, of which earlier ones may have come in another life of the program: a hasher
//! cannot be written down, the hashes of the subtrees below its root can (`blake3::hazmat`).

use blake3::hazmat::{ChainingValue, HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root};

/// Bytes under one leaf: a power of two, and less than the smallest part, so that no prefix of whole parts is one leaf.
pub(crate) const LEAF: usize = 1024 * 1024;

/// The hashes of the leaves of some content: all of [`LEAF`] bytes, but for the last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Leaves(Vec<ChainingValue>);

impl Leaves {
    /// Those of bytes that begin at `offset`, which is a multiple of [`LEAF`].
    pub(crate) fn of(bytes: &[u8], offset: u64) -> Self {
        let starts = (offset..).step_by(LEAF);
        Self(bytes.chunks(LEAF).zip(starts).map(|(leaf, start)| one(leaf, start)).collect())
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
        let (left, right) = self.0.split_at(left(self.0.len())?);
        Some(merge_subtrees_root(&join(left), &join(right), Mode::Hash).into())
    }
}

fn one(bytes: &[u8], offset: u64) -> ChainingValue {
    blake3::Hasher::new().set_input_offset(offset).update(bytes).finalize_non_root()
}

/// How many leaves are under the left child: the largest power of two below their number (BLAKE3, section 2.1).
fn left(count: usize) -> Option<usize> {
    (count >= 2).then(|| count.next_power_of_two() / 2)
}

fn join(leaves: &[ChainingValue]) -> ChainingValue {
    match (leaves, left(leaves.len())) {
        (_, Some(middle)) => {
            let (left, right) = leaves.split_at(middle);
            merge_subtrees_non_root(&join(left), &join(right), Mode::Hash)
        }
        ([only], None) => *only,
        _ => [0; 32], // of nothing; never asked for
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
