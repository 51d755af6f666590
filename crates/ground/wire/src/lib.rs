//! The frames between `postern` and `postern-agent`: types, encoding, decoding. No I/O.
//!
//! # Goals
//!
//! * Completeness is explicit: output is complete only when a [`Trailer`] with its counts and hashes arrived.
//! * End of input and a lost client are distinct: stdin is sent in frames, and the byte stream under them
//!   shows that the client is alive.
//! * No part of the command is in an argv: the [`Request`] is the first frame.
//! * Hostile bytes from either side use bounded memory and never panic (fuzzed:
//!   `fuzz/fuzz_targets/frames.rs`).
//!
//! # Shape
//!
//! Every frame is `kind: u8`, `length: u32` (big-endian), `length` bytes. Integers are big-endian. A byte
//! string is a `u32` length and its bytes. Both ends must have the same release: the first frame of each
//! direction contains the version, and a mismatch is an error; nothing is negotiated.

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

/// Protocol version; both ends must have the same.
pub const VERSION: u16 = 6;

/// First bytes of the agent's hello. They distinguish an agent from any other program that answers.
pub const MAGIC: [u8; 4] = *b"PSTN";

/// Largest payload of one frame, in bytes. Data is split into frames of at most [`CHUNK`].
pub const MAX_PAYLOAD: usize = 1024 * 1024;

/// Data bytes in one frame.
pub const CHUNK: usize = 32 * 1024;

/// Bytes of stdin that the client may send before the agent grants more with a window frame. Large enough to
/// keep every server on the path busy: with 1 MiB they handle small fragments, and throughput falls by a
/// fifth.
pub const STDIN_WINDOW: usize = 8 * 1024 * 1024;

/// The loopback port of an ops pod installed with `--stream`.
pub const STREAM_PORT: u16 = 7483;

/// Names that a login uses, mostly the pod's environment variables. No value is secret.
pub mod login {
    /// The cloud that trusts the pod's ServiceAccount, such as `ibm`.
    pub const PROVIDER: &str = "POSTERN_LOGIN";
    /// The endpoint that the cloud's own tool logs in to.
    pub const ENDPOINT: &str = "POSTERN_LOGIN_ENDPOINT";
    /// The file with the token that identifies the pod.
    pub const TOKEN: &str = "POSTERN_LOGIN_TOKEN";
    /// IBM Cloud as a provider.
    pub const IBM: &str = "ibm";
    /// The credential that IBM Cloud's own tool uses to log in when there is no profile.
    pub const IBM_KEY: &str = "IBMCLOUD_API_KEY";
    /// The endpoint that the tool logs in to by default.
    pub const IBM_DEFAULT_ENDPOINT: &str = "https://cloud.ibm.com";
    /// The region that the tool targets by default.
    pub const IBM_DEFAULT_REGION: &str = "us-south";
    /// IBM Cloud's trusted profile.
    pub const IBM_PROFILE: &str = "IAM_PROFILE_ID";
    /// IBM Cloud's region.
    pub const IBM_REGION: &str = "IBMCLOUD_REGION";
}

/// Interval of heartbeats from a side that has nothing else to send, in milliseconds.
pub const HEARTBEAT_MS: u64 = 1_000;

/// The agent treats a client as lost after this time without a byte, in milliseconds.
pub const CLIENT_SILENCE_MS: u64 = 5_000;

/// The same limit before the client's first byte: a busy runtime may connect the streams of a command long
/// after it started the command.
pub const FIRST_SILENCE_MS: u64 = 600_000;

/// The time from SIGTERM to SIGKILL, in milliseconds.
pub const KILL_AFTER_MS: u64 = 5_000;
