//! Frames spoken between `postern` and `postern-agent`: types, encode, decode. No I/O.
//!
//! # Goals
//!
//! * An end that cannot be mistaken: output is only whole when a [`Trailer`] with its counts and hashes came.
//! * End-of-input and a lost client differ: stdin travels in frames, and the byte stream under them is a lifeline.
//! * Nothing of the command is in anyone's argv: the [`Request`] travels as the first frame.
//! * Hostile bytes on either side cost bounded memory and never panic (fuzzed: `fuzz/fuzz_targets/frames.rs`).
//!
//! # Shape
//!
//! Every frame is `kind: u8`, `length: u32` (big-endian), `length` bytes. Integers are big-endian; a byte string is
//! a `u32` length and its bytes. Both ends are of one release: the version is in the first frame of each direction,
//! and a mismatch is an error, not a negotiation.

pub mod copy;
mod decode;
mod fields;
mod frames;
mod mux;
pub mod stream;

pub use decode::{Decoder, WireError};
pub use frames::{
    Failure, FailureKind, FileSpec, FromAgent, Hello, Login, Outcome, Request, TerminalSize, ToAgent, Trailer,
};
pub use mux::{Mux, SESSION_CREDIT};

/// Version of the protocol; both ends must have the same.
pub const VERSION: u16 = 6;

/// First bytes of the agent's hello: tells an agent from any other program that happens to answer.
pub const MAGIC: [u8; 4] = *b"PSTN";

/// Largest payload of one frame, in bytes. Data is cut into frames of at most [`CHUNK`].
pub const MAX_PAYLOAD: usize = 1024 * 1024;

/// Data bytes in one frame as the two ends send them.
pub const CHUNK: usize = 32 * 1024;

/// Bytes of stdin that the client may send before the agent grants more with a window frame. Enough to keep every
/// server between the two at work: with 1 MiB each of them handles crumbs, and the rate falls by a fifth.
pub const STDIN_WINDOW: usize = 8 * 1024 * 1024;

/// Where an ops pod installed with `--stream` listens on its loopback.
pub const STREAM_PORT: u16 = 7483;

/// What an ops pod and its agent call things that a login takes, above all the pod's variables; no value is secret.
pub mod login {
    /// The cloud that its ServiceAccount is trusted by, such as `ibm`.
    pub const PROVIDER: &str = "POSTERN_LOGIN";
    /// What the cloud's own tool logs in to.
    pub const ENDPOINT: &str = "POSTERN_LOGIN_ENDPOINT";
    /// The file with the token that proves who the pod is.
    pub const TOKEN: &str = "POSTERN_LOGIN_TOKEN";
    /// IBM Cloud as a provider.
    pub const IBM: &str = "ibm";
    /// The credential that IBM Cloud's own tool logs in with where there is no profile.
    pub const IBM_KEY: &str = "IBMCLOUD_API_KEY";
    /// What that tool logs in to when nothing else is named.
    pub const IBM_DEFAULT_ENDPOINT: &str = "https://cloud.ibm.com";
    /// The region that it targets when nothing else is named.
    pub const IBM_DEFAULT_REGION: &str = "us-south";
    /// IBM Cloud's trusted profile.
    pub const IBM_PROFILE: &str = "IAM_PROFILE_ID";
    /// IBM Cloud's region.
    pub const IBM_REGION: &str = "IBMCLOUD_REGION";
}

/// A side that has nothing to say sends a heartbeat this often, in milliseconds.
pub const HEARTBEAT_MS: u64 = 1_000;

/// The agent takes a client that was silent for this long for lost, in milliseconds.
pub const CLIENT_SILENCE_MS: u64 = 5_000;

/// The same of a client that nothing was heard of yet: a runtime that is busy connects the streams of a command long after
/// it was started.
pub const FIRST_SILENCE_MS: u64 = 600_000;

/// From SIGTERM to SIGKILL, in milliseconds.
pub const KILL_AFTER_MS: u64 = 5_000;
