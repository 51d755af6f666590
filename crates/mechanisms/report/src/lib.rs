//! Findings of checks: one type for every command that judges something, and the forms it is written in.
//!
//! A command fills a [`Report`] with [`Finding`]s, asks it for the exit code, and gives it to [`render`]. The renderers
//! do no I/O. They treat every string of a report as hostile: names and messages come from clusters and files.

mod chart;
mod clean;
mod error;
mod finding;
mod format;
mod html;
mod json;
mod junit;
mod report;
mod sarif;
mod severity;
mod subject;
mod svg;
mod text;

pub use chart::{Chart, ChartKind, Series};
pub use error::ReportError;
pub use finding::{Evidence, FilePosition, Finding, Place};
pub use format::{Format, Options, render};
pub use html::html;
pub use json::{json, schema, yaml};
pub use junit::junit;
pub use report::{Counts, EXIT_FINDINGS, EXIT_INCONCLUSIVE, Report, Rule, SCHEMA_VERSION, Tool};
pub use sarif::sarif;
pub use severity::{FailOn, Severity};
pub use subject::{File, Named, Object, Subject};
pub use text::{Style, text};

/// The reports of `tests/sample`, which name this crate as other crates do.
#[cfg(test)]
extern crate self as postern_report;
#[cfg(test)]
#[path = "../tests/sample/mod.rs"]
mod sample;
