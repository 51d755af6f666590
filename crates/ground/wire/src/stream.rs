//! The handshake of the stream transport: the messages on a connection to the agent's loopback listener
//! before the first frame.
//!
//! The handshake is hello, challenge, proof, verdict. Each message has a fixed size, so a listener that is
//! open to every process of its pod has nothing to parse. The proof is an Ed25519 signature (RFC 8032) over
//! [`signed`]. Both nonces make it useless on any other connection, and the [`audience`] makes it useless to
//! any other pod that might have requested it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// First bytes of a client's hello and of the agent's challenge; the last one is the version.
const MAGIC: [u8; 8] = *b"POSTERN\x01";

/// Separates our signatures from any other use of the same key.
const CONTEXT: &[u8] = b"postern stream v1\0";

/// An Ed25519 public key.
pub type PublicKey = [u8; 32];

/// Random bytes that are used once.
pub type Nonce = [u8; 32];

/// An Ed25519 signature over [`signed`].
pub type Proof = [u8; 64];

/// The client's first message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamHello {
    /// The key that will sign the proof.
    pub key: PublicKey,
    /// The client's nonce for this connection.
    pub nonce: Nonce,
}

impl StreamHello {
    /// The size of the message, in bytes.
    pub const SIZE: usize = 72;

    /// Encodes the message.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let Self { key, nonce } = self;
        let mut bytes = [0; Self::SIZE];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..40].copy_from_slice(key);
        bytes[40..].copy_from_slice(nonce);
        bytes
    }

    /// Decodes the message; `None` when it is not a hello of this version.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk::<8>()?;
        let (key, rest) = rest.split_first_chunk::<32>()?;
        let nonce = rest.first_chunk::<32>()?;
        (*magic == MAGIC).then_some(Self { key: *key, nonce: *nonce })
    }
}

/// The agent's answer to a hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Challenge {
    /// The agent's nonce; new for every connection.
    pub nonce: Nonce,
}

impl Challenge {
    /// The size of the message, in bytes.
    pub const SIZE: usize = 40;

    /// Encodes the message.
    pub fn encode(&self) -> [u8; Self::SIZE] {
        let Self { nonce } = self;
        let mut bytes = [0; Self::SIZE];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..].copy_from_slice(nonce);
        bytes
    }

    /// Decodes the message; `None` when the listener is not an agent of this version.
    pub fn decode(bytes: &[u8; Self::SIZE]) -> Option<Self> {
        let (magic, nonce) = bytes.split_first_chunk::<8>()?;
        (*magic == MAGIC).then_some(Self { nonce: *nonce.first_chunk()? })
    }
}

/// The pod that a proof is for. Both sides know it in advance: the client from the cluster, the agent from
/// its own mounts. `installation` is random, so that pods of the same name in two clusters differ.
pub fn audience(namespace: &str, pod: &str, installation: &str) -> String {
    format!("{namespace}/{pod}/{installation}")
}

/// The bytes that a proof signs.
pub fn signed(audience: &str, hello: &StreamHello, challenge: &Challenge) -> Vec<u8> {
    let mut bytes = CONTEXT.to_vec();
    crate::fields::put_bytes(&mut bytes, audience.as_bytes());
    bytes.extend_from_slice(&hello.encode());
    bytes.extend_from_slice(&challenge.encode());
    bytes
}

/// The bytes before the key in OpenSSH's encoding (RFC 8709, section 4): the type and the key's length.
const OPENSSH: &[u8] = b"\0\0\0\x0bssh-ed25519\0\0\0\x20";

/// The key as the second field of a line of `authorized_keys` (sshd(8)).
pub fn openssh(key: &PublicKey) -> String {
    STANDARD.encode([OPENSSH, key].concat())
}

/// Parses the second field of such a line; `None` when it is not an Ed25519 key.
pub fn from_openssh(field: &str) -> Option<PublicKey> {
    let blob = STANDARD.decode(field).ok()?;
    blob.strip_prefix(OPENSSH)?.try_into().ok()
}

/// The agent's one-byte answer to a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Frames may follow.
    Welcome,
    /// The key is not authorized, or the proof is invalid. The answer does not say which.
    Refused,
    /// The agent has reached its maximum number of connections.
    Busy,
    /// The pod is shutting down.
    Stopping,
}

const VERDICTS: [(Verdict, u8); 4] =
    [(Verdict::Welcome, b'W'), (Verdict::Refused, b'R'), (Verdict::Busy, b'B'), (Verdict::Stopping, b'S')];

impl Verdict {
    /// Encodes the verdict.
    pub fn encode(self) -> u8 {
        VERDICTS.iter().find(|(verdict, _)| *verdict == self).map_or(b'R', |(_, byte)| *byte)
    }

    /// Decodes the verdict; `None` for an unknown byte.
    pub fn decode(byte: u8) -> Option<Self> {
        VERDICTS.iter().find(|(_, code)| *code == byte).map(|(verdict, _)| *verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: StreamHello = StreamHello { key: [1; 32], nonce: [2; 32] };
    const CHALLENGE: Challenge = Challenge { nonce: [3; 32] };

    #[test]
    fn messages_round_trip() {
        assert_eq!(StreamHello::decode(&HELLO.encode()), Some(HELLO));
        assert_eq!(Challenge::decode(&CHALLENGE.encode()), Some(CHALLENGE));
        for (verdict, byte) in VERDICTS {
            assert_eq!((verdict.encode(), Verdict::decode(byte)), (byte, Some(verdict)));
        }
        assert_eq!(Verdict::decode(0), None);
    }

    #[test]
    fn keys_are_written_as_openssh_writes_them() {
        let line = "AAAAC3NzaC1lZDI1NTE5AAAAIAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB";
        assert_eq!(openssh(&[1; 32]), line);
        assert_eq!(from_openssh(line), Some([1; 32]));
        for wrong in ["", "AAAA", "AAAAB3NzaC1yc2EAAAADAQABAAAAIAEB", "%"] {
            assert_eq!(from_openssh(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn another_protocol_is_not_a_hello() {
        let mut bytes = HELLO.encode();
        bytes[7] = 2;
        assert_eq!(StreamHello::decode(&bytes), None);
        assert_eq!(Challenge::decode(&[b'x'; Challenge::SIZE]), None);
    }

    #[test]
    fn every_part_changes_what_is_signed() {
        let to = |installation| audience("ns", "pod", installation);
        let whole = signed(&to("i"), &HELLO, &CHALLENGE);
        let others = [
            signed(&to("j"), &HELLO, &CHALLENGE),
            signed(&to("i"), &StreamHello { key: [9; 32], ..HELLO }, &CHALLENGE),
            signed(&to("i"), &StreamHello { nonce: [9; 32], ..HELLO }, &CHALLENGE),
            signed(&to("i"), &HELLO, &Challenge { nonce: [9; 32] }),
        ];
        assert!(others.iter().all(|other| *other != whole));
    }
}
