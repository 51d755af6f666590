//! Hashes, as computed by the container's tools.

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA512};

/// A tool that computes hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    Sha256,
    Sha512,
    /// Only if there is no other: it has to detect accidental corruption, since the container can lie with
    /// any hash.
    Sha1,
    Blake3,
}

impl Tool {
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "sha256sum" => Some(Self::Sha256),
            "sha512sum" => Some(Self::Sha512),
            "sha1sum" => Some(Self::Sha1),
            "b3sum" => Some(Self::Blake3),
            _ => None,
        }
    }

    pub(crate) fn start(self) -> Sum {
        match self {
            Self::Sha256 => Sum::Ring(Box::new(Context::new(&SHA256))),
            Self::Sha512 => Sum::Ring(Box::new(Context::new(&SHA512))),
            Self::Sha1 => Sum::Ring(Box::new(Context::new(&SHA1_FOR_LEGACY_USE_ONLY))),
            Self::Blake3 => Sum::Blake3(Box::default()),
        }
    }

    pub(crate) fn of(self, bytes: &[u8]) -> String {
        let mut sum = self.start();
        sum.add(bytes);
        sum.end()
    }
}

/// A hash being computed.
#[derive(Clone)]
pub(crate) enum Sum {
    Ring(Box<Context>),
    Blake3(Box<blake3::Hasher>),
}

impl Sum {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        match self {
            Self::Ring(context) => context.update(bytes),
            Self::Blake3(hasher) => {
                hasher.update(bytes);
            }
        }
    }

    /// The hexadecimal hash, as printed by the tool.
    pub(crate) fn end(self) -> String {
        match self {
            Self::Ring(context) => hex(context.finish().as_ref()),
            Self::Blake3(hasher) => hasher.finalize().to_hex().to_string(),
        }
    }
}

/// Encodes bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from_digit(digit.into(), 16).unwrap_or('0')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_match_the_tools() {
        let of_abc = |name| Tool::named(name).unwrap().of(b"abc");
        assert_eq!(of_abc("sha1sum"), "a9993e364706816aba3e25717850c26c9cd0d89d");
        assert!(of_abc("sha256sum").starts_with("ba7816bf8f01cfea"));
        assert!(of_abc("sha512sum").starts_with("ddaf35a193617aba"));
        assert!(of_abc("b3sum").starts_with("6437b3ac38465133"));
        assert_eq!(Tool::named("cksum"), None);
    }
}
