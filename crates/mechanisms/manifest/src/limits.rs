//! Limits that protect against hostile input.

/// How much input is accepted. [`Limits::default`] is far above what real manifests need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes in one file or on standard input.
    pub bytes: usize,
    /// Nested collections in one document, after aliases are expanded. At most 120 has an effect: JSON is read with
    /// that limit in any case.
    pub depth: usize,
    /// Documents in one file, empty ones included.
    pub documents: usize,
    /// Values that aliases and merge keys may add in one file. A long string counts once per 64 bytes.
    pub alias_nodes: usize,
    /// Files read from one folder.
    pub files: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 32 << 20, depth: 100, documents: 10_000, alias_nodes: 100_000, files: 10_000 }
    }
}

impl Limits {
    /// The nesting depth that is enforced.
    pub(crate) fn nesting(&self) -> usize {
        self.depth.min(120)
    }
}
