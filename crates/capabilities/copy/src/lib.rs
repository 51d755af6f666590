//! `cp` and `sync`: copies files to and from pods.
//!
//! * [`endpoint`]: parses the arguments.
//! * [`job`]: runs one copy, over as many connections as it needs.
//! * [`ledger`]: the result of each file; a file that was not verified is never counted as verified.
//!
//! Both ends use [`postern_wire::copy`], whether an end is an agent in a pod, this machine's files, or our
//! stdin or stdout. The client relays frames between them and keeps the accounts.

mod channel;
pub mod endpoint;
mod ends;
mod error;
mod flow_control;
pub mod job;
pub mod ledger;
pub mod pod;
mod rate_limit;
mod relay;
mod shell;
pub mod streams;
mod tally;
mod verified;

pub use ends::End;
pub use error::CopyError;
