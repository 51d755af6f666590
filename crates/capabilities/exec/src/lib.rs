//! Runs commands in containers, and determines how they ended.
//!
//! * [`session`]: the client side of the agent protocol, over any [`transport`].
//! * [`plain`]: an exec in a container without the agent. It ends with a Status, or it is an error.
//! * [`stream`]: sessions over a port-forward to the ops pod's agent, without the runtime's exec.
//! * [`target`]: finds the pod and the container for `exec`.
//! * [`inject`]: copies the agent into a container whose image does not have it.
//! * [`ephemeral`]: runs the agent in an ephemeral container, for a container without a shell.
//! * [`fanout`]: one command over many targets, with a limit on how many run at once.
//!
//! These hold everywhere: memory is bounded by a few chunks, both directions flow at once, a run succeeds only if its
//! output is complete, and the exit code of an [`ExecError`] says whether the command was ever reached.

mod annotation;
pub mod container_end;
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

pub use ephemeral_error::EphemeralError;
pub use error::{ExecError, exit};
pub use io::{Control, Feed, Output, Streams};
