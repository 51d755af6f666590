//! A source and a destination, joined by two pipes.
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

mod deltas;
mod hostile;
mod resumed;
mod support;
mod trees;
