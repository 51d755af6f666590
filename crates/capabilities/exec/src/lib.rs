//! Where a command runs, and how its end is known.
//!
//! * [`session`]: the client's end of the agent protocol, over any [`transport`].
//! * [`plain`]: an exec in a container without the agent; it ends with a Status or it is an error.
//! * [`stream`]: sessions over a port-forward to the ops pod's agent, without the runtime's exec.
//! * [`target`]: which pod and container `exec` means.
//! * [`inject`]: the agent into a container that has it not.
//! * [`ephemeral`]: the agent beside a container that has nothing to run it with.
//! * [`fanout`]: one command over many targets, so many at a time.
//!
//! What is the same everywhere: memory is bounded by a few chunks, both directions flow at once, output is only
//! reported whole when it is, and an [`ExecError`] says by its exit code whether the tool was ever reached.

mod annotation;
pub mod ephemeral;
mod ephemeral_error;
mod error;
pub mod fanout;
pub mod inject;
mod io;
mod job;
pub mod plain;
pub mod session;
pub mod stream;
pub mod target;
pub mod transport;
pub mod vanished;

pub use ephemeral_error::EphemeralError;
pub use error::{ExecError, exit};
pub use io::{Control, Feed, Output, Streams};
