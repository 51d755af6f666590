//! Content-defined chunks. Cut points depend only on the surrounding bytes, so content that an insertion
//! moved is still found (the gear hash of `FastCDC`: Xia et al., USENIX ATC 2016).

use std::sync::OnceLock;

/// Length of the truncated BLAKE3 that identifies a chunk. The whole file is verified in addition.
pub(crate) const NAME: usize = 16;

/// Length of one chunk record in a frame: a length and a name.
pub(crate) const RECORD: usize = 4 + NAME;

/// Maximum number of chunk records sent for one file.
pub(crate) const MOST_RECORDS: usize = 400_000;

/// Splits content of about this size into chunks. Both ends must use the same parameters.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cutter {
    least: usize,
    most: usize,
    mask: u64,
}

fn gear() -> &'static [u64; 256] {
    static GEAR: OnceLock<[u64; 256]> = OnceLock::new();
    GEAR.get_or_init(|| {
        let mut bytes = [0; 2048];
        blake3::Hasher::new().update(b"postern gear 1").finalize_xof().fill(&mut bytes);
        let mut gear = [0; 256];
        for (slot, eight) in gear.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *slot = u64::from_be_bytes(*eight);
        }
        gear
    })
}

impl Cutter {
    /// For a file of `size` bytes: about 8,000 chunks, none on average below 16 KiB or above 1 MiB.
    pub(crate) fn new(size: u64) -> Self {
        let bits = (size / 8_192).checked_ilog2().unwrap_or(0).clamp(14, 20);
        let average = 1_usize << bits;
        // The high bits of the hash depend on the most bytes.
        Self { least: average / 4, most: average * 4, mask: !0 << (64 - bits) }
    }

    /// The length of the first chunk of `bytes`. They contain all remaining bytes or at least as many as the
    /// longest chunk.
    fn cut(self, bytes: &[u8]) -> usize {
        let gear = gear();
        let end = bytes.len().min(self.most);
        let begin = self.least.min(end);
        let mut hash = 0_u64;
        for (at, byte) in bytes[begin..end].iter().enumerate() {
            hash = (hash << 1).wrapping_add(gear[usize::from(*byte)]);
            if hash & self.mask == 0 {
                return begin + at + 1;
            }
        }
        end
    }

    /// Calls `chunk` for each chunk of the bytes that `read` returns, until it returns 0.
    pub(crate) fn each<E>(
        self,
        mut read: impl FnMut(&mut [u8]) -> Result<usize, E>,
        mut chunk: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let (mut buffer, mut start, mut end) = (vec![0; self.most * 4], 0, 0);
        let mut ended = false;
        loop {
            if end - start < self.most && !ended {
                buffer.copy_within(start..end, 0);
                (start, end) = (0, end - start);
                while end < buffer.len() && !ended {
                    let got = read(&mut buffer[end..])?;
                    end += got;
                    ended = got == 0;
                }
            }
            if start == end {
                return Ok(());
            }
            let length = self.cut(&buffer[start..end]);
            chunk(&buffer[start..start + length])?;
            start += length;
        }
    }
}

/// The truncated hash that identifies a chunk.
pub(crate) fn name(chunk: &[u8]) -> [u8; NAME] {
    let mut name = [0; NAME];
    name.copy_from_slice(&blake3::hash(chunk).as_bytes()[..NAME]);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(cutter: Cutter, mut bytes: &[u8]) -> Vec<[u8; NAME]> {
        let mut names = Vec::new();
        while !bytes.is_empty() {
            let (chunk, rest) = bytes.split_at(cutter.cut(bytes));
            names.push(name(chunk));
            bytes = rest;
        }
        names
    }

    #[test]
    fn content_moved_by_an_insertion_is_found() {
        let mut bytes = vec![0; 4 * 1024 * 1024];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        let cutter = Cutter::new(bytes.len() as u64);
        let old = all(cutter, &bytes);
        assert!((100..600).contains(&old.len()), "{}", old.len());
        bytes.insert(1_000_000, 7);
        let new = all(cutter, &bytes);
        let changed = new.iter().filter(|name| !old.contains(name)).count();
        assert!(changed <= 2, "{changed} of {}", new.len());
        // Without a cut point, the maximum length.
        assert!(all(cutter, &vec![0; 1024 * 1024]).len() >= 1024 * 1024 / cutter.most);
        assert_eq!(Cutter::new(0).cut(b"abc"), 3);
    }
}
