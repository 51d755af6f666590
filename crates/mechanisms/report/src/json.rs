//! The report as JSON and as YAML, in one schema.

use crate::chart::Chart;
use crate::error::ReportError;
use crate::finding::Finding;
use crate::report::{Counts, Report, Rule, SCHEMA_VERSION, Tool, utc};
use crate::severity::Severity;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// A report of Postern, as JSON or YAML.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "Postern report")]
struct Document<'a> {
    /// The version of this form: 1. New properties may be added without a new version.
    #[schemars(range(min = 1, max = 1))]
    schema_version: u32,
    /// The program that made the report.
    tool: &'a Tool,
    /// What was checked, in a few words.
    title: &'a str,
    /// The command line.
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<&'a str>,
    /// When the checks began, in UTC, as in RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    started_at: Option<String>,
    /// When the checks were done, in UTC, as in RFC 3339.
    #[schemars(extend("format" = "date-time"))]
    generated_at: String,
    /// The worst severity of all findings; missing if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    worst: Option<Severity>,
    /// How many findings there are of each severity.
    counts: Counts,
    /// What was found.
    findings: &'a [Finding],
    /// The rules by id. A finding may have a rule that is not described here.
    rules: &'a BTreeMap<String, Rule>,
    /// Numbers that are not findings.
    #[serde(skip_serializing_if = "<[Chart]>::is_empty")]
    charts: &'a [Chart],
    /// What a reader has to know of the whole.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    notes: &'a [String],
}

impl<'a> Document<'a> {
    fn of(report: &'a Report) -> Self {
        let Report { tool, title, command, started_at, generated_at, findings, rules, charts, notes } =
            report;
        Self {
            schema_version: SCHEMA_VERSION,
            tool,
            title,
            command: command.as_deref(),
            started_at: started_at.map(utc),
            generated_at: utc(*generated_at),
            worst: report.worst(),
            counts: report.counts(),
            findings,
            rules,
            charts,
            notes,
        }
    }
}

/// The JSON Schema (draft 2020-12) of what [`json`] and [`yaml`] write.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Document<'_>).to_value()
}

/// Writes the report as JSON.
pub fn json(report: &Report, out: &mut impl Write) -> Result<(), ReportError> {
    let text = serde_json::to_string_pretty(&Document::of(report))?;
    Ok(writeln!(out, "{text}")?)
}

/// Writes the report as YAML.
pub fn yaml(report: &Report, out: &mut impl Write) -> Result<(), ReportError> {
    let text = serde_saphyr::to_string(&Document::of(report))
        .map_err(|error| ReportError::Yaml(error.to_string()))?;
    Ok(out.write_str(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn text(render: impl Fn(&Report, &mut String) -> Result<(), ReportError>, report: &Report) -> String {
        let mut text = String::new();
        render(report, &mut text).unwrap();
        text
    }

    #[test]
    fn the_schema_is_pinned() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&schema()).unwrap());
    }

    #[test]
    fn an_example_is_pinned() {
        insta::assert_snapshot!(text(json, &sample::report()));
    }

    #[test]
    fn yaml_has_what_json_has() {
        for report in [sample::report(), sample::hostile(), sample::empty()] {
            let json: serde_json::Value = serde_json::from_str(&text(json, &report)).unwrap();
            let yaml: serde_json::Value = serde_saphyr::from_str(&text(yaml, &report)).unwrap();
            // Numbers such as 20.0 and 20 are one in YAML.
            assert_eq!(whole(&json), whole(&yaml));
        }
    }

    fn whole(value: &serde_json::Value) -> String {
        serde_json::to_string(value).unwrap().replace(".0,", ",").replace(".0]", "]")
    }
}
