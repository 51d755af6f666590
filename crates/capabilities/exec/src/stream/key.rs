//! The Ed25519 key that authenticates an operator to an agent's listener.

use postern_wire::stream::{Proof, PublicKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{Ed25519KeyPair, KeyPair as _};

/// The error of a key that cannot be created or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The system provides no random bytes.
    #[error("the system provides no random bytes")]
    Random,
    /// The bytes are not a key.
    #[error("{0} is not an Ed25519 private key (make one with: postern ops authorize --generate FILE)")]
    Invalid(String),
    /// The key is encrypted.
    #[error(
        "{0} has a passphrase, which is not supported; make a key without one: postern ops authorize --generate FILE"
    )]
    Passphrase(String),
}

/// An operator's private key. It is never printed in any form.
pub struct Key(Ed25519KeyPair);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Key").field(&postern_wire::stream::openssh(&self.public())).finish()
    }
}

impl Key {
    /// Generates a new key as PKCS#8 v2 (RFC 5958), DER.
    pub fn generate() -> Result<Vec<u8>, KeyError> {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::Random)?;
        Ok(document.as_ref().to_vec())
    }

    /// Parses PKCS#8, DER; `from` names it in the error. Keys without their public half (RFC 8410, as OpenSSL writes
    /// them) are accepted too.
    pub fn from_pkcs8(der: &[u8], from: &str) -> Result<Self, KeyError> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
            .map(Self)
            .map_err(|_| KeyError::Invalid(from.to_owned()))
    }

    pub(super) fn from_seed(seed: &[u8; 32], public: &PublicKey) -> Option<Self> {
        Ed25519KeyPair::from_seed_and_public_key(seed, public).ok().map(Self)
    }

    #[cfg(test)]
    pub(super) fn from_seed_alone(seed: &[u8; 32]) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(seed).unwrap())
    }

    /// Returns the public half.
    pub fn public(&self) -> PublicKey {
        let mut key = PublicKey::default();
        key.copy_from_slice(self.0.public_key().as_ref());
        key
    }

    pub(super) fn sign(&self, message: &[u8]) -> Proof {
        let mut proof: Proof = [0; size_of::<Proof>()];
        proof.copy_from_slice(self.0.sign(message).as_ref());
        proof
    }
}

pub(super) fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| KeyError::Random)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_was_made_can_be_read() {
        let key = Key::from_pkcs8(&Key::generate().unwrap(), "it").unwrap();
        assert!(!key.sign(b"x").is_empty());
        assert!(format!("{key:?}").contains("AAAAC3NzaC1lZDI1NTE5"));
    }

    #[test]
    fn what_is_no_key_is_named() {
        let error = Key::from_pkcs8(b"nonsense", "the file k.pem").unwrap_err().to_string();
        assert!(error.starts_with("the file k.pem is not an Ed25519 private key"), "{error}");
    }
}
