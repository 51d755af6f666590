//! Compression of blocks, where it saves space.

use postern_wire::copy::{BLOCK, Compression};
use std::time::Duration;

/// Blocks sent uncompressed after one that did not shrink.
const REST: u32 = 15;

/// A compressed block is used if it saves at least one eighth.
const WORTH: usize = 8;

/// Up to this level, a higher level costs little.
const CHEAP: i32 = 3;

/// Highest level that is chosen automatically; higher ones take time and gain little.
const HIGHEST: i32 = 6;

/// Number of blocks between adjustments of the level.
const PERIOD: u32 = 32;

/// Compresses blocks one by one, so that each can be decompressed alone.
pub struct Compressor {
    zstd: Option<zstd::bulk::Compressor<'static>>,
    level: i32,
    fixed: bool,
    rest: u32,
    /// Whether compression of the last block was tried.
    tried: bool,
    blocks: u32,
    compressing: Duration,
    sending: Duration,
    out: Vec<u8>,
}

impl Compressor {
    /// Compresses as requested.
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
            compressing: zero,
            sending: zero,
            out: Vec::new(),
        }
    }

    /// The compressed block; `None` if it should be sent uncompressed.
    pub fn compress(&mut self, block: &[u8]) -> Option<&[u8]> {
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
        let compressed = zstd.compress_to_buffer(block, &mut self.out);
        self.compressing += began.elapsed();
        self.blocks += 1;
        match compressed {
            Ok(size) if size <= block.len() - block.len() / WORTH => Some(&self.out),
            _ => {
                self.rest = REST;
                None
            }
        }
    }

    /// Records how long sending the last block took.
    pub fn sent(&mut self, took: Duration) {
        if self.tried {
            self.sending += took;
        }
        if self.fixed || self.blocks < PERIOD {
            return;
        }
        // If we wait for the link, there is time for a better ratio; if the link waits for us, there is not.
        // The other end may be the slow part instead of the link, so the expensive levels are used only when
        // there is nothing else to do.
        let enough = if self.level < CHEAP { 3 } else { 10 };
        let level = match () {
            () if self.sending > self.compressing * enough => (self.level + 1).min(HIGHEST),
            () if self.sending < self.compressing / 2 => (self.level - 1).max(1),
            () => self.level,
        };
        if level != self.level
            && let Some(zstd) = &mut self.zstd
            && zstd.set_compression_level(level).is_ok()
        {
            self.level = level;
        }
        (self.blocks, self.compressing, self.sending) = (0, Duration::ZERO, Duration::ZERO);
    }
}

/// Decompresses blocks.
#[derive(Default)]
pub struct Decompressor {
    zstd: Option<zstd::bulk::Decompressor<'static>>,
    out: Vec<u8>,
}

impl Decompressor {
    /// Allocates nothing before the first block.
    pub fn new() -> Self {
        Self::default()
    }

    /// Decompresses a block that must have exactly this length.
    pub fn decompress(&mut self, compressed: &[u8], length: u32) -> Option<&[u8]> {
        let length = length as usize;
        if length > BLOCK {
            return None;
        }
        if self.zstd.is_none() {
            self.zstd = zstd::bulk::Decompressor::new().ok();
        }
        self.out.clear();
        self.out.reserve(BLOCK);
        let size = self.zstd.as_mut()?.decompress_to_buffer(compressed, &mut self.out).ok()?;
        (size == length).then_some(self.out.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressible_blocks_round_trip() {
        let block: Vec<u8> = (0..BLOCK).map(|n| u8::try_from(n % 61).unwrap()).collect();
        let mut compressor = Compressor::new(Compression::Auto);
        let small = compressor.compress(&block).unwrap().to_vec();
        assert!(small.len() < block.len() / 10);
        let mut decompressor = Decompressor::new();
        let length = u32::try_from(block.len()).unwrap();
        assert_eq!(decompressor.decompress(&small, length), Some(block.as_slice()));
        assert_eq!(decompressor.decompress(&small, length - 1), None, "not what was announced");
        assert_eq!(decompressor.decompress(&small[..small.len() - 1], length), None);
        assert_eq!(decompressor.decompress(b"garbage", 7), None);
        assert_eq!(decompressor.decompress(&small, u32::MAX), None, "a bomb");
    }

    #[test]
    fn incompressible_blocks_are_retried_rarely() {
        let mut random = vec![0; BLOCK];
        blake3::Hasher::new().finalize_xof().fill(&mut random);
        let mut compressor = Compressor::new(Compression::Auto);
        assert!((0..100).all(|_| compressor.compress(&random).is_none()));
        assert!(compressor.blocks <= 100 / REST + 1, "{}", compressor.blocks);
        assert!(Compressor::new(Compression::Off).compress(&[0; 4096]).is_none());
    }

    #[test]
    fn the_level_adapts_to_the_link() {
        let mut compressor = Compressor::new(Compression::Auto);
        for _ in 0..PERIOD * 10 {
            compressor.compress(&[7; 4096]);
            compressor.sent(Duration::from_millis(5));
        }
        assert_eq!(compressor.level, HIGHEST);
        for _ in 0..PERIOD * 10 {
            compressor.compress(&vec![7; BLOCK]);
            compressor.sent(Duration::ZERO);
        }
        assert_eq!(compressor.level, 1);
    }
}
