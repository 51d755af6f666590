//! The program inside pods: tiny, static, no async runtime, no TLS.
//!
//! * [`supervise`]: runs one command for a client at the other end of stdin and stdout, and reports its output whole.
//! * [`multiplex`]: many such commands for one client.
//! * [`copy`]: one end of a copy.
//! * [`serve`]: the ops pod's PID 1: reaps, keeps the audit log, lets running commands finish when told to stop.
//! * [`target_root`]: the file system of another container of the pod, from an ephemeral one beside it.
//!
//! It is a library too: `postern run --backend local` is the same supervisor at the other end of a pipe.

pub mod audit;
pub mod closed;
pub mod copy;
pub mod credentials;
pub mod multiplex;
mod outgoing;
pub mod serve;
mod stream;
pub mod supervise;
mod sys;
pub mod target_root;
mod time;

pub use sys::harden;
