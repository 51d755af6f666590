//! What can go wrong in this crate.

use std::fmt;

/// A report cannot be written, or a word is not known.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A format that does not exist.
    #[error("unknown format {0:?}; one of text, json, yaml, sarif, junit, html")]
    UnknownFormat(String),
    /// A severity that does not exist.
    #[error("unknown severity {0:?}; one of ok, skipped, inconclusive, warning, problem")]
    UnknownSeverity(String),
    /// The report cannot be turned into JSON.
    #[error("writing the report as JSON")]
    Json(#[from] serde_json::Error),
    /// The report cannot be turned into YAML.
    #[error("writing the report as YAML: {0}")]
    Yaml(String),
    /// The page's template failed.
    #[error("writing the report as HTML: {0}")]
    Html(String),
    /// The output does not take it.
    #[error("writing the report")]
    Write(#[from] fmt::Error),
}
