//! The formats by name.

use crate::error::ReportError;
use crate::html::html;
use crate::json::{json, yaml};
use crate::junit::junit;
use crate::report::Report;
use crate::sarif::sarif;
use crate::severity::FailOn;
use crate::text::{Style, text};
use std::fmt::{self, Write};
use std::str::FromStr;

/// A format that a report can be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// A table for a terminal.
    Text,
    /// JSON.
    Json,
    /// YAML, with the same schema as JSON.
    Yaml,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
    /// JUnit XML, for the test views of CI systems.
    Junit,
    /// One HTML page that needs no network.
    Html,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Text, Self::Json, Self::Yaml, Self::Sarif, Self::Junit, Self::Html];

    /// The name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Yaml => "yaml",
            Self::Sarif => "sarif",
            Self::Junit => "junit",
            Self::Html => "html",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Format {
    type Err = ReportError;

    fn from_str(text: &str) -> Result<Self, ReportError> {
        let found = Self::ALL.into_iter().find(|format| format.name() == text);
        found.ok_or_else(|| ReportError::UnknownFormat(text.to_owned()))
    }
}

/// What the renderers need besides the report.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// How the text looks.
    pub style: Style,
    /// What fails; JUnit counts it as a failure.
    pub fail_on: FailOn,
}

/// Writes the report in a format.
pub fn render(
    report: &Report,
    format: Format,
    options: Options,
    out: &mut impl Write,
) -> Result<(), ReportError> {
    let Options { style, fail_on } = options;
    match format {
        Format::Text => text(report, style, out),
        Format::Json => json(report, out),
        Format::Yaml => yaml(report, out),
        Format::Sarif => sarif(report, out),
        Format::Junit => junit(report, fail_on, out),
        Format::Html => html(report, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for format in Format::ALL {
            assert_eq!(format.to_string().parse::<Format>().unwrap(), format);
        }
        let error = "pdf".parse::<Format>().unwrap_err().to_string();
        assert!(Format::ALL.iter().all(|format| error.contains(format.name())), "{error}");
    }

    #[test]
    fn every_format_takes_every_report() {
        let options = Options::default();
        for report in [crate::sample::report(), crate::sample::hostile(), crate::sample::empty()] {
            for format in Format::ALL {
                let mut out = String::new();
                render(&report, format, options, &mut out).unwrap();
                assert!(out.ends_with('\n'), "{format}");
            }
        }
    }
}
