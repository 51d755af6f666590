//! The program inside pods: small, static, no async runtime, no TLS.
//!
//! * [`supervise`]: runs one command for a client connected to stdin and stdout, and reports its complete
//!   output.
//! * [`multiplex`]: runs many such commands for one client.
//! * [`copy`]: one end of a copy.
//! * [`serve`]: the ops pod's PID 1: reaps processes, writes the audit log, lets running commands finish at
//!   shutdown.
//! * `own`: gives trees to one user and group, as an init container.
//! * [`target_root`]: the file system of another container of the pod, for an ephemeral container.
//!
//! It is also a library: `postern run --backend local` uses the same supervisor through a pipe.

pub mod audit;
pub mod closed_stdio;
pub mod copy;
pub mod credentials;
pub mod multiplex;
#[cfg(target_os = "linux")]
pub mod own;
pub mod serve;
mod stream;
pub mod supervise;
mod sys;
pub mod target_root;
mod time;
mod write_buffer;

pub use sys::harden;
