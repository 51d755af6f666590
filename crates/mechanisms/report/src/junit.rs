//! The report as JUnit XML, for the test views of CI systems.
//!
//! There is no standard. The elements and attributes are those of the schema that Jenkins uses
//! (`junit-10.xsd` of jenkinsci/xunit-plugin), which GitLab and others read as well.

use crate::clean;
use crate::error::ReportError;
use crate::finding::{Evidence, Finding};
use crate::report::{Report, utc};
use crate::severity::{FailOn, Severity};
use std::fmt::Write;

/// Writes the report as JUnit XML: each finding is a test case of the class that is its rule. What `fail_on` names is a
/// failure. An inconclusive check is an error, because JUnit has no word for it. A warning that does not fail passes,
/// and its text is in `system-out`.
pub fn junit(report: &Report, fail_on: FailOn, out: &mut impl Write) -> Result<(), ReportError> {
    let Report { tool, title, command: _, started_at, generated_at, findings, rules: _, charts: _, notes } =
        report;
    let outcomes: Vec<Outcome> =
        findings.iter().map(|finding| Outcome::of(finding.severity, fail_on)).collect();
    let count = |outcome| outcomes.iter().filter(|found| **found == outcome).count();
    let counts = format!(
        "tests=\"{}\" failures=\"{}\" errors=\"{}\"",
        findings.len(),
        count(Outcome::Failure),
        count(Outcome::Error)
    );
    // The schema's `timestamp` is a date and a time without a zone.
    let at = utc(started_at.unwrap_or(*generated_at));
    let seconds = started_at.map_or(0.0, |start| generated_at.duration_since(start).as_secs_f64().max(0.0));
    writeln!(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>")?;
    writeln!(out, "<testsuites name=\"{}\" time=\"{seconds:.3}\" {counts}>", attribute(&tool.name))?;
    writeln!(
        out,
        "  <testsuite name=\"{}\" timestamp=\"{}\" time=\"{seconds:.3}\" {counts} skipped=\"{}\">",
        attribute(title),
        at.trim_end_matches('Z'),
        count(Outcome::Skipped)
    )?;
    for (finding, outcome) in findings.iter().zip(outcomes) {
        case(finding, outcome, out)?;
    }
    if !notes.is_empty() {
        writeln!(out, "    <system-out>{}</system-out>", escaped(&notes.join("\n")))?;
    }
    writeln!(out, "  </testsuite>\n</testsuites>")?;
    Ok(())
}

/// What becomes of a test case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failure,
    Error,
    Skipped,
}

impl Outcome {
    const fn of(severity: Severity, fail_on: FailOn) -> Self {
        match severity {
            Severity::Inconclusive => Self::Error,
            Severity::Skipped => Self::Skipped,
            Severity::Problem | Severity::Warning | Severity::Ok => match fail_on.fails(severity) {
                true => Self::Failure,
                false => Self::Passed,
            },
        }
    }
}

fn case(finding: &Finding, outcome: Outcome, out: &mut impl Write) -> Result<(), ReportError> {
    let places = finding.whereabouts().into_iter().map(|(_, place)| place);
    let name = std::iter::once(finding.target(true)).chain(places).collect::<Vec<_>>().join(", ");
    let start =
        format!("    <testcase classname=\"{}\" name=\"{}\"", attribute(&finding.rule), attribute(&name));
    let (severity, message) = (finding.severity, attribute(&finding.message));
    let body = match outcome {
        Outcome::Passed if severity == Severity::Ok => return Ok(writeln!(out, "{start}/>")?),
        Outcome::Passed => format!("<system-out>{severity}: {}</system-out>", escaped(&details(finding))),
        Outcome::Skipped => format!("<skipped message=\"{message}\"/>"),
        Outcome::Failure => {
            format!(
                "<failure type=\"{severity}\" message=\"{message}\">{}</failure>",
                escaped(&details(finding))
            )
        }
        Outcome::Error => {
            format!("<error type=\"{severity}\" message=\"{message}\">{}</error>", escaped(&details(finding)))
        }
    };
    Ok(writeln!(out, "{start}>\n      {body}\n    </testcase>")?)
}

/// All that a finding says, in lines.
fn details(finding: &Finding) -> String {
    let mut lines = vec![finding.message.clone()];
    for evidence in &finding.evidence {
        lines.push(match evidence {
            Evidence::Text(text) => text.clone(),
            Evidence::Command(command) => format!("$ {command}"),
        });
    }
    lines.extend(finding.fix.iter().map(|fix| format!("fix: {fix}")));
    lines.extend(finding.reference.iter().map(|reference| format!("see: {reference}")));
    lines.join("\n")
}

/// Text for an element. Characters that XML 1.0 does not allow (its production 2, `Char`) cannot be
/// written as references either; they and all hidden ones become `\u{…}`.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in clean::lines(text).chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Text for an attribute. A newline is a reference: a parser would put a space in its place.
fn attribute(text: &str) -> String {
    escaped(text).replace('\n', "&#10;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn xml(report: &Report, fail_on: FailOn) -> String {
        let mut out = String::new();
        junit(report, fail_on, &mut out).unwrap();
        out
    }

    #[test]
    fn an_example_is_pinned() {
        insta::assert_snapshot!(xml(&sample::report(), FailOn::default()));
    }

    #[test]
    fn failures_are_what_makes_the_command_fail() {
        let report = sample::report();
        let failures = |fail_on| xml(&report, fail_on).matches("<failure ").count();
        let counts = report.counts();
        assert_eq!(failures(FailOn::default()), counts.problem);
        assert_eq!(failures(FailOn { warning: true, inconclusive: false }), counts.problem + counts.warning);
    }

    #[test]
    fn nothing_breaks_out_of_its_element() {
        let text = xml(&sample::hostile(), FailOn::default());
        let allowed =
            |c: char| matches!(c, '\n' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
        assert!(text.chars().all(allowed));
        // Every `<` begins one of our elements, and every `&` one of our references.
        for part in text.split('<').skip(1) {
            let name: String =
                part.chars().take_while(|c| c.is_ascii_alphabetic() || "/?-".contains(*c)).collect();
            let name = name.trim_matches(['/', '?']);
            let known =
                ["xml", "testsuites", "testsuite", "testcase", "failure", "error", "skipped", "system-out"];
            assert!(known.contains(&name), "{part}");
        }
        for part in text.split('&').skip(1) {
            assert!(
                ["amp;", "lt;", "gt;", "quot;", "#10;"].iter().any(|known| part.starts_with(known)),
                "{part}"
            );
        }
    }
}
