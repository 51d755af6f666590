//! The frames of a copy: between the end that has the files (the source), the end that gets them (the destination),
//! and the client between the two, which passes them on.
//!
//! A destination answers every [`Entry`] with exactly one [`Settled`], at once or after it asked for the content by
//! [`Want`]. A source therefore never has more than [`WINDOW`] entries unanswered, whatever the size of the tree, and
//! both ends hold bounded memory.

mod codec;
mod frames;
mod spec;

pub use frames::{Entry, Fate, FromDestination, FromSource, Kind, Known, Settled, Stamp, Want};
pub use spec::{Ask, Compare, Compression, Delete, Limits, Owner, ReceiveSpec, Rule, SendSpec};

/// Entries that may be on their way without an answer.
pub const WINDOW: usize = 8_192;

/// The size of a file that is known only at its end, such as of a pipe.
pub const UNSIZED: u64 = u64::MAX;

/// In the note of what was not given the owner that it was to have.
pub const UNOWNED: &str = "its owner could not be set";

/// Appends a frame that came, as it came.
pub fn pass_on(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    crate::decode::put_frame(out, kind, |out| out.extend_from_slice(payload));
}

/// Bytes of content in one frame, before compression.
pub const BLOCK: usize = 128 * 1024;
