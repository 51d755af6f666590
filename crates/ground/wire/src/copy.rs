//! The frames of a copy. The source has the files, the destination receives them, and the client relays
//! frames between the two.
//!
//! A destination answers every [`Entry`] with exactly one [`EntryResult`], either at once or after it
//! requested the content with a [`Want`]. A source therefore never has more than [`WINDOW`] unanswered
//! entries, whatever the size of the tree, and both ends use bounded memory.

mod codec;
mod frames;
mod spec;

pub use frames::{Entry, EntryResult, Fate, FromDestination, FromSource, Kind, Known, Stamp, Want};
pub use spec::{Compare, Compression, CopyRequest, Delete, Limits, Owner, ReceiveSpec, Rule, SendSpec};

/// Maximum number of entries in flight without an answer.
pub const WINDOW: usize = 8_192;

/// The size of a file whose length is known only at its end, such as a pipe.
pub const UNSIZED: u64 = u64::MAX;

/// Part of an entry's note when its requested owner could not be set.
pub const UNOWNED: &str = "its owner could not be set";

/// Appends a received frame unchanged.
pub fn append_raw(out: &mut Vec<u8>, kind: u8, payload: &[u8]) {
    crate::decode::put_frame(out, kind, |out| out.extend_from_slice(payload));
}

/// Maximum bytes of content in one frame, before compression.
pub const BLOCK: usize = 128 * 1024;
