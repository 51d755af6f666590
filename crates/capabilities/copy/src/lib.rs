//! `cp` and `sync`: files in and out of any pod.
//!
//! * [`endpoint`]: what the words of the command line name.
//! * [`job`]: one source and one destination, to the end, over as many connections as it takes.
//! * [`ledger`]: what became of each file; what was not verified is never counted as copied.
//!
//! Both ends speak [`postern_wire::copy`], whatever they are: an agent in a pod, this machine's files, our own stdin or
//! stdout. The client passes frames between them and keeps the books.

pub mod endpoint;
mod ends;
mod error;
mod flow;
pub mod job;
pub mod ledger;
mod pace;
pub mod pod;
mod relay;
mod shell;
pub mod streams;
mod tally;
mod verified;

pub use ends::End;
pub use error::CopyError;
