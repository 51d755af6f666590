//! BLAKE3 of content whose parts are hashed separately as subtrees (`blake3::hazmat`). A part with a known
//! hash need not be read again, and subtree hashes can be stored, unlike the state of a hasher.

pub use blake3::hazmat::ChainingValue;
use blake3::hazmat::{HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root};

/// The hash of one part. All parts but the last have the same length, a power of two of at least 1,024 bytes.
pub fn part(bytes: &[u8], offset: u64) -> ChainingValue {
    at(offset).update(bytes).finalize_non_root()
}

fn at(offset: u64) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(offset);
    hasher
}

/// The hash of the whole content; `None` if it has fewer than two parts.
pub fn root(parts: &[ChainingValue]) -> Option<[u8; 32]> {
    let (left, right) = parts.split_at(left(parts.len())?);
    Some(merge_subtrees_root(&join(left), &join(right), Mode::Hash).into())
}

/// The number of parts under the left child: the largest power of two below their number (BLAKE3, section
/// 2.1).
fn left(count: usize) -> Option<usize> {
    (count >= 2).then(|| count.next_power_of_two() / 2)
}

fn join(parts: &[ChainingValue]) -> ChainingValue {
    match (parts, left(parts.len())) {
        (_, Some(middle)) => {
            let (left, right) = parts.split_at(middle);
            merge_subtrees_non_root(&join(left), &join(right), Mode::Hash)
        }
        ([only], None) => *only,
        _ => [0; 32], // no parts; never used
    }
}

/// The length of the parts of a file of this size: at most 16,384 parts, and none below 64 KiB.
pub(crate) fn part_length(size: u64) -> u64 {
    (size / 16_384).next_power_of_two().max(64 * 1024)
}

/// Hashes content incrementally, part by part. Some part hashes may be known already.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    length: u64,
    /// Bytes before the first part.
    from: u64,
    whole: Vec<ChainingValue>,
    next: blake3::Hasher,
    filled: u64,
}

impl Parts {
    /// Starts with parts of this many bytes.
    pub(crate) fn new(length: u64) -> Self {
        Self::after(length, 0)
    }

    /// Starts after this many bytes, which are a multiple of the part length.
    pub(crate) fn after(length: u64, from: u64) -> Self {
        Self { length, from, whole: Vec::new(), next: at(from), filled: 0 }
    }

    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = usize::try_from(self.length - self.filled).unwrap_or(usize::MAX).min(bytes.len());
            let (piece, rest) = bytes.split_at(room);
            self.next.update(piece);
            self.filled += piece.len() as u64;
            bytes = rest;
            if self.filled == self.length {
                let hash = self.next.finalize_non_root();
                self.filled = 0;
                self.known(hash);
            }
        }
    }

    /// Adds the known hash of the next part. Must be called at the start of a part.
    pub(crate) fn known(&mut self, hash: ChainingValue) {
        self.whole.push(hash);
        self.next = at(self.from.saturating_add(self.length.saturating_mul(self.whole.len() as u64)));
    }

    /// The index of the part that starts here, or `None` within a part.
    pub(crate) fn edge(&self) -> Option<usize> {
        (self.filled == 0).then_some(self.whole.len())
    }

    /// The hash of every part; the last may be short.
    pub(crate) fn hashes(mut self) -> Vec<ChainingValue> {
        if self.filled > 0 {
            self.whole.push(self.next.finalize_non_root());
        }
        self.whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_hashes_combine_to_the_whole_hash() {
        const LENGTH: usize = 64 * 1024;
        let content: Vec<u8> = (0..LENGTH * 5 + 4_321).map(|at| (at % 251).to_le_bytes()[0]).collect();
        for size in [LENGTH + 1, 2 * LENGTH, 3 * LENGTH - 1, 3 * LENGTH, 4 * LENGTH + 5, content.len()] {
            let content = &content[..size];
            let mut parts = Parts::new(LENGTH as u64);
            content.chunks(40_000).for_each(|piece| parts.update(piece));
            let hashes = parts.hashes();
            assert_eq!(root(&hashes), Some(*blake3::hash(content).as_bytes()), "{size}");
            let mut parts = Parts::new(LENGTH as u64);
            for (index, bytes) in content.chunks(LENGTH).enumerate() {
                match (parts.edge(), index % 2) {
                    (Some(edge), 0) => parts.known(hashes[edge]),
                    (_, _) => parts.update(bytes),
                }
            }
            assert_eq!(parts.hashes(), hashes, "{size}");
            let starts = (0..).step_by(LENGTH);
            let apart: Vec<_> =
                content.chunks(LENGTH).zip(starts).map(|(bytes, at)| part(bytes, at)).collect();
            assert_eq!(apart, hashes);
        }
        assert_eq!((root(&[]), root(&[[1; 32]])), (None, None));
    }

    #[test]
    fn parts_are_few_however_large_a_file_is() {
        assert_eq!(part_length(0), 64 * 1024);
        assert_eq!(part_length(256 << 20), 64 * 1024);
        assert_eq!(part_length(10 << 30), 1024 * 1024);
        assert!(
            [1, 1 << 30, (1 << 40) + 1, u64::MAX / 4].iter().all(|size| size / part_length(*size) <= 16_384)
        );
    }
}
