//! The handshake of an accepted connection, until a key is proved.

use super::keys::Keys;
use super::peer::Origin;
use ed25519_dalek::{Signature, VerifyingKey};
use postern_wire::stream::{Challenge, Nonce, Proof, StreamHello, Verdict, signed};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Maximum time for the whole handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

const PROOF: usize = size_of::<Proof>();

/// A connection without a proved key.
pub(super) struct Waiting {
    pub(super) stream: TcpStream,
    pub(super) origin: Origin,
    pub(super) until: Instant,
    /// Input is available, or the stream has ended.
    pub(super) ready: bool,
    received: [u8; StreamHello::SIZE],
    count: usize,
    challenged: Option<(StreamHello, Challenge)>,
}

/// The next state of a waiting connection.
pub(super) enum Next {
    Wait,
    Gone,
    /// The proved key, as in `authorized_keys`.
    Proved(String),
}

impl Waiting {
    /// `None` if the socket options cannot be set.
    pub(super) fn begin(stream: TcpStream, origin: Origin) -> Option<Self> {
        stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true)).ok()?;
        Some(Self {
            stream,
            origin,
            until: Instant::now() + HANDSHAKE_TIMEOUT,
            // The hello usually arrives with the connection.
            ready: true,
            received: [0; StreamHello::SIZE],
            count: 0,
            challenged: None,
        })
    }

    /// Processes the available bytes. Never reads beyond the proof: the next byte belongs to a frame.
    pub(super) fn advance(&mut self, keys: &Keys, now: Instant) -> Next {
        if now >= self.until {
            return Next::Gone;
        }
        while std::mem::take(&mut self.ready) {
            let wanted = if self.challenged.is_some() { PROOF } else { StreamHello::SIZE };
            match rustix::io::read(&self.stream, &mut self.received[self.count..wanted]) {
                Ok(0) => return Next::Gone,
                Ok(count) => self.count += count,
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return Next::Wait,
                Err(_) => return Next::Gone,
            }
            self.ready = true;
            if self.count < wanted {
                continue;
            }
            self.count = 0;
            match self.challenged.take() {
                None if !self.challenge() => return Next::Gone,
                None => {}
                Some((hello, challenge)) => {
                    return match self.proves(keys, &hello, &challenge) {
                        Some(key) => Next::Proved(key),
                        None => {
                            let _ = rustix::io::write(&self.stream, &[Verdict::Refused.encode()]);
                            Next::Gone
                        }
                    };
                }
            }
        }
        Next::Wait
    }

    fn challenge(&mut self) -> bool {
        let Some(hello) = StreamHello::decode(&self.received) else { return false };
        let Some(nonce) = random() else { return false };
        let challenge = Challenge { nonce };
        self.challenged = Some((hello, challenge));
        // The socket buffer is empty: the write is complete or fails.
        rustix::io::write(&self.stream, &challenge.encode()) == Ok(Challenge::SIZE)
    }

    /// The key's name, if it is authorized and has signed this connection.
    fn proves(&self, keys: &Keys, hello: &StreamHello, challenge: &Challenge) -> Option<String> {
        // Looked up first: unknown keys cost no signature check.
        let (name, audience) = keys.authorized(&hello.key)?;
        let proof = Signature::from_bytes(self.received.first_chunk::<PROOF>()?);
        let key = VerifyingKey::from_bytes(&hello.key).ok()?;
        key.verify_strict(&signed(&audience, hello, challenge), &proof).ok()?;
        Some(name)
    }
}

fn random() -> Option<Nonce> {
    let mut nonce = [0; size_of::<Nonce>()];
    let count = rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty()).ok()?;
    (count == nonce.len()).then_some(nonce)
}
