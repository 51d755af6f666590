//! A compact set of verified files: a million of them take nine megabytes.

/// Hashes are distributed over this many lists by their highest bits.
const LISTS: usize = 4096;

/// A set of hashes as sorted lists, each with a capacity of an eighth more than its length. A hash table
/// would double its size and use both tables while it grows.
#[derive(Debug)]
pub(crate) struct Verified(Vec<Vec<u64>>);

impl Verified {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn contains(&self, hash: u64) -> bool {
        self.0.get(list_of(hash)).is_some_and(|list| list.binary_search(&hash).is_ok())
    }

    pub(crate) fn insert(&mut self, hash: u64) {
        if self.0.is_empty() {
            self.0.resize(LISTS, Vec::new());
        }
        let list = &mut self.0[list_of(hash)];
        if let Err(at) = list.binary_search(&hash) {
            if list.len() == list.capacity() {
                list.reserve_exact(list.len() / 8 + 2);
            }
            list.insert(at, hash);
        }
    }
}

fn list_of(hash: u64) -> usize {
    let [first, second, ..] = hash.to_be_bytes();
    (usize::from(u16::from_be_bytes([first, second])) * LISTS) >> 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inserted_hashes_are_found_and_memory_is_bounded() {
        let mut verified = Verified::new();
        assert!(!verified.contains(0));
        let hash = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for n in (0..400_000).chain(0..1_000) {
            verified.insert(hash(n));
        }
        assert!((0..400_000).all(|n| verified.contains(hash(n))));
        assert!(!(400_000..800_000).any(|n| verified.contains(hash(n))));
        assert_eq!(verified.0.iter().map(Vec::len).sum::<usize>(), 400_000);
        assert!(verified.0.iter().map(Vec::capacity).sum::<usize>() < 480_000);
        verified.insert(u64::MAX);
        assert!(verified.contains(u64::MAX));
    }
}
