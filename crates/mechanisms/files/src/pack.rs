//! Compression of blocks, where it pays.

use postern_wire::copy::{BLOCK, Compression};
use std::time::Duration;

/// Blocks that go as they are after one that did not shrink.
const REST: u32 = 15;

/// A block is worth packing when it loses at least an eighth.
const WORTH: usize = 8;

/// Up to here a better level costs little.
const CHEAP: i32 = 3;

/// Highest level that is chosen by itself: beyond it time is spent for little.
const HIGHEST: i32 = 6;

/// Blocks between two looks at the level.
const PERIOD: u32 = 32;

/// Packs blocks one by one, so that each can be unpacked without another.
pub struct Packer {
    zstd: Option<zstd::bulk::Compressor<'static>>,
    level: i32,
    fixed: bool,
    rest: u32,
    /// Whether the last block was packed, or tried.
    tried: bool,
    blocks: u32,
    packing: Duration,
    sending: Duration,
    out: Vec<u8>,
}

impl Packer {
    /// Packs as was asked for.
    pub fn new(compression: Compression) -> Self {
        let (level, fixed) = match compression {
            Compression::Off => (0, true),
            Compression::Auto => (2, false),
            Compression::Level(level) => (i32::from(level), true),
        };
        let zstd = if level == 0 { None } else { zstd::bulk::Compressor::new(level).ok() };
        let zero = Duration::ZERO;
        Self {
            zstd,
            level,
            fixed,
            rest: 0,
            tried: false,
            blocks: 0,
            packing: zero,
            sending: zero,
            out: Vec::new(),
        }
    }

    /// The block packed, or nothing where it goes better as it is.
    pub fn pack(&mut self, block: &[u8]) -> Option<&[u8]> {
        let zstd = self.zstd.as_mut()?;
        self.tried = false;
        if block.len() < 64 {
            return None;
        }
        if self.rest > 0 && !self.fixed {
            self.rest -= 1;
            return None;
        }
        self.tried = true;
        let began = std::time::Instant::now();
        self.out.clear();
        self.out.reserve(zstd::zstd_safe::compress_bound(block.len()));
        let packed = zstd.compress_to_buffer(block, &mut self.out);
        self.packing += began.elapsed();
        self.blocks += 1;
        match packed {
            Ok(size) if size <= block.len() - block.len() / WORTH => Some(&self.out),
            _ => {
                self.rest = REST;
                None
            }
        }
    }

    /// Takes into account how long the link took over the last block.
    pub fn sent(&mut self, took: Duration) {
        if self.tried {
            self.sending += took;
        }
        if self.fixed || self.blocks < PERIOD {
            return;
        }
        // A link that is waited for leaves time for a better ratio; one that waits for us does not. It may be the other end
        // that is slow, and not the link: the dear levels are for when there is nothing else to do.
        let enough = if self.level < CHEAP { 3 } else { 10 };
        let level = match () {
            () if self.sending > self.packing * enough => (self.level + 1).min(HIGHEST),
            () if self.sending < self.packing / 2 => (self.level - 1).max(1),
            () => self.level,
        };
        if level != self.level
            && let Some(zstd) = &mut self.zstd
            && zstd.set_compression_level(level).is_ok()
        {
            self.level = level;
        }
        (self.blocks, self.packing, self.sending) = (0, Duration::ZERO, Duration::ZERO);
    }
}

/// Unpacks blocks.
#[derive(Default)]
pub struct Unpacker {
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    out: Vec<u8>,
}

impl Unpacker {
    /// Nothing is set up before the first block.
    pub fn new() -> Self {
        Self::default()
    }

    /// The block, which has to have exactly this length.
    pub fn unpack(&mut self, packed: &[u8], length: u32) -> Option<&[u8]> {
        let length = length as usize;
        if length > BLOCK {
            return None;
        }
        if self.zstd.is_none() {
            self.zstd = zstd::bulk::Decompressor::new().ok();
        }
        self.out.clear();
        self.out.reserve(BLOCK);
        let size = self.zstd.as_mut()?.decompress_to_buffer(packed, &mut self.out).ok()?;
        (size == length).then_some(self.out.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shrinks_is_packed_and_comes_back_the_same() {
        let block: Vec<u8> = (0..BLOCK).map(|n| u8::try_from(n % 61).unwrap()).collect();
        let mut packer = Packer::new(Compression::Auto);
        let small = packer.pack(&block).unwrap().to_vec();
        assert!(small.len() < block.len() / 10);
        let mut unpacker = Unpacker::new();
        let length = u32::try_from(block.len()).unwrap();
        assert_eq!(unpacker.unpack(&small, length), Some(block.as_slice()));
        assert_eq!(unpacker.unpack(&small, length - 1), None, "not what was announced");
        assert_eq!(unpacker.unpack(&small[..small.len() - 1], length), None);
        assert_eq!(unpacker.unpack(b"garbage", 7), None);
        assert_eq!(unpacker.unpack(&small, u32::MAX), None, "a bomb");
    }

    #[test]
    fn what_does_not_shrink_is_tried_now_and_then_only() {
        let mut random = vec![0; BLOCK];
        blake3::Hasher::new().finalize_xof().fill(&mut random);
        let mut packer = Packer::new(Compression::Auto);
        assert!((0..100).all(|_| packer.pack(&random).is_none()));
        assert!(packer.blocks <= 100 / REST + 1, "{}", packer.blocks);
        assert!(Packer::new(Compression::Off).pack(&[0; 4096]).is_none());
    }

    #[test]
    fn a_slow_link_gets_a_better_ratio_and_a_quick_one_its_speed() {
        let mut packer = Packer::new(Compression::Auto);
        for _ in 0..PERIOD * 10 {
            packer.pack(&[7; 4096]);
            packer.sent(Duration::from_millis(5));
        }
        assert_eq!(packer.level, HIGHEST);
        for _ in 0..PERIOD * 10 {
            packer.pack(&vec![7; BLOCK]);
            packer.sent(Duration::ZERO);
        }
        assert_eq!(packer.level, 1);
    }
}
