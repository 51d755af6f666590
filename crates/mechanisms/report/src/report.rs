//! The report: findings and all that belongs to them.

use crate::chart::Chart;
use crate::finding::Finding;
use crate::severity::{FailOn, Severity};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use std::collections::BTreeMap;

/// The version of the JSON and YAML form. It grows when something is removed or changes its meaning.
pub const SCHEMA_VERSION: u32 = 1;

/// The exit code for findings that fail the command.
pub const EXIT_FINDINGS: u8 = 1;

/// The exit code if nothing failed, and something that had to be known could not be found out.
pub const EXIT_INCONCLUSIVE: u8 = 3;

/// What a command found. The renderers keep the order of the findings.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The program that made it.
    pub tool: Tool,
    /// What was checked, in a few words.
    pub title: String,
    /// The command line, without secrets.
    pub command: Option<String>,
    /// When the checks began.
    pub started_at: Option<Timestamp>,
    /// When the checks were done.
    pub generated_at: Timestamp,
    /// What was found.
    pub findings: Vec<Finding>,
    /// The rules by id. A finding may have a rule that is not described here.
    pub rules: BTreeMap<String, Rule>,
    /// Numbers that are not findings.
    pub charts: Vec<Chart>,
    /// What a reader has to know of the whole, such as what was not looked at.
    pub notes: Vec<String>,
}

/// The program that made a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// What a rule asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    /// What it asks for, in a sentence.
    pub description: String,
    /// Where it is explained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help_url: Option<String>,
}

/// How many findings there are of each severity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Problems.
    pub problem: usize,
    /// Warnings.
    pub warning: usize,
    /// Checks whose answer could not be found out.
    pub inconclusive: usize,
    /// Checks that were not made.
    pub skipped: usize,
    /// Checks that passed.
    pub ok: usize,
}

impl Counts {
    /// The count of one severity.
    pub const fn of(&self, severity: Severity) -> usize {
        match severity {
            Severity::Problem => self.problem,
            Severity::Warning => self.warning,
            Severity::Inconclusive => self.inconclusive,
            Severity::Skipped => self.skipped,
            Severity::Ok => self.ok,
        }
    }
}

impl Report {
    /// A report without findings.
    pub fn new(tool: Tool, title: impl Into<String>, generated_at: Timestamp) -> Self {
        Self {
            tool,
            title: title.into(),
            command: None,
            started_at: None,
            generated_at,
            findings: Vec::new(),
            rules: BTreeMap::new(),
            charts: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Describes a rule.
    pub fn rule(&mut self, id: impl Into<String>, description: impl Into<String>, help_url: Option<&str>) {
        let rule = Rule { description: description.into(), help_url: help_url.map(str::to_owned) };
        self.rules.insert(id.into(), rule);
    }

    /// Sorts the findings: the worst first, then by subject, place, rule and message. Findings that are equal in all
    /// of these keep their order. A command whose checks depend on one another does not call this: there the order
    /// says which check failed first.
    pub fn sort(&mut self) {
        self.findings.sort_by(Finding::compare);
    }

    /// How many findings there are of each severity.
    pub fn counts(&self) -> Counts {
        let count = |severity| self.findings.iter().filter(|finding| finding.severity == severity).count();
        Counts {
            problem: count(Severity::Problem),
            warning: count(Severity::Warning),
            inconclusive: count(Severity::Inconclusive),
            skipped: count(Severity::Skipped),
            ok: count(Severity::Ok),
        }
    }

    /// The worst severity; none without findings.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    /// What the command exits with: 0, [`EXIT_FINDINGS`] or [`EXIT_INCONCLUSIVE`]. A failure that is certain wins.
    pub fn exit_code(&self, fail_on: FailOn) -> u8 {
        let failed = |severity: Severity| fail_on.fails(severity) && self.counts().of(severity) > 0;
        match () {
            () if failed(Severity::Problem) || failed(Severity::Warning) => EXIT_FINDINGS,
            () if failed(Severity::Inconclusive) => EXIT_INCONCLUSIVE,
            () => 0,
        }
    }

    /// The context, if all objects that name one name the same.
    pub(crate) fn only_context(&self) -> Option<&str> {
        let mut contexts = self.findings.iter().filter_map(|finding| finding.subject.context());
        let first = contexts.next()?;
        contexts.all(|context| context == first).then_some(first)
    }

    /// The counts in words, the worst first, without those that are zero: `1 problem, 12 ok`.
    pub(crate) fn summary(&self) -> String {
        let counts = self.counts();
        let there = Severity::ALL.into_iter().filter(|severity| counts.of(*severity) > 0);
        let words: Vec<String> = there.map(|severity| severity.counted(counts.of(severity))).collect();
        if words.is_empty() { "no findings".to_owned() } else { words.join(", ") }
    }
}

/// A time in UTC to the second, as in RFC 3339.
pub(crate) fn utc(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::{Object, Subject};

    fn report(severities: &[Severity]) -> Report {
        let tool = Tool { name: "postern".to_owned(), version: "0.1.0".to_owned() };
        let mut report = Report::new(tool, "test", Timestamp::UNIX_EPOCH);
        let finding = |severity: &Severity| Finding::new("r", *severity, Object::new("Pod", "p"), "m");
        report.findings = severities.iter().map(finding).collect();
        report
    }

    #[test]
    fn the_exit_code_depends_on_what_is_to_fail() {
        use Severity::{Inconclusive, Ok, Problem, Skipped, Warning};
        let lenient = FailOn::default();
        let strict = FailOn { warning: true, inconclusive: true };
        for (severities, leniently, strictly) in [
            (&[][..], 0, 0),
            (&[Ok, Skipped], 0, 0),
            (&[Warning], 0, 1),
            (&[Inconclusive], 0, 3),
            (&[Inconclusive, Warning], 0, 1),
            (&[Inconclusive, Problem], 1, 1),
        ] {
            let report = report(severities);
            assert_eq!(report.exit_code(lenient), leniently, "{severities:?}");
            assert_eq!(report.exit_code(strict), strictly, "{severities:?}");
        }
    }

    #[test]
    fn the_worst_comes_first_and_lines_are_in_order() {
        use Severity::{Ok, Problem, Warning};
        let mut report = report(&[Severity::Ok, Severity::Problem]);
        let file = |line| Finding::new("r", Severity::Warning, Subject::file("f"), "m").at_line(line, None);
        report.findings.extend([file(10).at_field("a"), file(9).at_field("b")]);
        report.sort();
        let sorted: Vec<_> = report.findings.iter().map(|it| (it.severity, it.place.line)).collect();
        assert_eq!(sorted, [(Problem, None), (Warning, Some(9)), (Warning, Some(10)), (Ok, None)]);
        assert_eq!(report.worst(), Some(Problem));
    }

    #[test]
    fn the_summary_names_what_is_there() {
        use Severity::{Ok, Problem};
        assert_eq!(report(&[Ok, Problem, Ok]).summary(), "1 problem, 2 ok");
        assert_eq!(report(&[]).summary(), "no findings");
    }
}
