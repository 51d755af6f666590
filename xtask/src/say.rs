//! The one place that prints: results to stdout, progress to stderr.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this module is the gate to the terminal")]

use std::fmt::Display;
use std::time::Instant;

/// A line of the command's result.
pub(crate) fn result(text: impl Display) {
    println!("{text}");
}

/// A line for the person watching.
pub(crate) fn note(text: impl Display) {
    eprintln!("{text}");
}

/// Progress lines that carry the seconds since the command began.
#[derive(Clone, Copy)]
pub(crate) struct Progress(Instant);

impl Progress {
    pub(crate) fn begin() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn step(self, text: impl Display) {
        note(format!("{:6.1}s  {text}", self.0.elapsed().as_secs_f64()));
    }
}
