//! One finding: which rule, about what, how bad, what shows it, and what to do.

use crate::severity::Severity;
use crate::subject::Subject;
use schemars::JsonSchema;
use serde::Serialize;
use std::cmp::Ordering;

/// What one check found about one subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The id of the rule that was checked. [`Report::rules`](crate::Report::rules) may describe it.
    pub rule: String,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about.
    pub subject: Subject,
    /// Where in the subject.
    #[serde(skip_serializing_if = "Place::is_empty")]
    pub place: Place,
    /// What was seen, in one sentence.
    pub message: String,
    /// What shows it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<Evidence>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
    /// Where to read more: a URL, or the name of a document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// Where in a subject. An object that was read from a manifest has a file and a line and a field.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    /// The file, where the subject itself is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The line in the file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The column in the line, in characters, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// The field of the object, such as `spec.containers[0].image`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Which one of several things that the subject has and that are no fields, such as a permission of an account or a
    /// key of an issuer. It tells findings of the same rule and subject apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
}

impl Place {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        let Self { path, line, column, field, item } = self;
        path.is_none() && line.is_none() && column.is_none() && field.is_none() && item.is_none()
    }
}

/// What shows a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Evidence {
    /// What was read: an excerpt, an answer, an event. May have many lines.
    Text(String),
    /// A command that shows it.
    Command(String),
}

/// A position in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilePosition<'a> {
    /// The file.
    pub path: &'a str,
    /// The line, from 1.
    pub line: Option<u32>,
    /// The column, from 1.
    pub column: Option<u32>,
}

/// `PATH`, `PATH:LINE` or `PATH:LINE:COLUMN`, as compilers write it.
impl std::fmt::Display for FilePosition<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, line, column } = self;
        match (line, column) {
            (Some(line), Some(column)) => write!(f, "{path}:{line}:{column}"),
            (Some(line), None) => write!(f, "{path}:{line}"),
            (None, _) => f.write_str(path),
        }
    }
}

impl Finding {
    /// A finding with nothing but what every finding has.
    pub fn new(
        rule: impl Into<String>,
        severity: Severity,
        subject: impl Into<Subject>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            rule: rule.into(),
            severity,
            subject: subject.into(),
            place: Place::default(),
            message: message.into(),
            evidence: Vec::new(),
            fix: None,
            reference: None,
        }
    }

    /// Sets the line and the column of a subject that is a file.
    #[must_use]
    pub fn at_line(mut self, line: u32, column: Option<u32>) -> Self {
        (self.place.line, self.place.column) = (Some(line), column);
        self
    }

    /// Sets the file that an object was read from.
    #[must_use]
    pub fn in_file(mut self, path: impl Into<String>, line: Option<u32>, column: Option<u32>) -> Self {
        self.place.path = Some(path.into());
        (self.place.line, self.place.column) = (line, column);
        self
    }

    /// Sets the field.
    #[must_use]
    pub fn at_field(mut self, field: impl Into<String>) -> Self {
        self.place.field = Some(field.into());
        self
    }

    /// Sets which one of several things that the subject has.
    #[must_use]
    pub fn at_item(mut self, item: impl Into<String>) -> Self {
        self.place.item = Some(item.into());
        self
    }

    /// Adds evidence that was read.
    #[must_use]
    pub fn text(mut self, text: impl Into<String>) -> Self {
        self.evidence.push(Evidence::Text(text.into()));
        self
    }

    /// Adds a command that shows it.
    #[must_use]
    pub fn command(mut self, command: impl Into<String>) -> Self {
        self.evidence.push(Evidence::Command(command.into()));
        self
    }

    /// Sets what to do.
    #[must_use]
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// Sets where to read more.
    #[must_use]
    pub fn reference(mut self, reference: impl Into<String>) -> Self {
        self.reference = Some(reference.into());
        self
    }

    /// The position in a file: that of the place, or that of the subject if it is a file.
    pub fn file(&self) -> Option<FilePosition<'_>> {
        let subject = match &self.subject {
            Subject::File(file) => Some(file.path.as_str()),
            Subject::Object(_) | Subject::Named(_) => None,
        };
        let path = self.place.path.as_deref().or(subject)?;
        Some(FilePosition { path, line: self.place.line, column: self.place.column })
    }

    /// The subject for people; of a file, with the line.
    pub(crate) fn target(&self, with_context: bool) -> String {
        match (&self.subject, self.file()) {
            (Subject::File(_), Some(position)) => position.to_string(),
            _ if with_context => self.subject.to_string(),
            _ => self.subject.without_context(),
        }
    }

    /// Where in the subject, for people, as far as [`Finding::target`] does not say it: what it is, and its name.
    pub(crate) fn whereabouts(&self) -> Vec<(&'static str, String)> {
        let position = match &self.subject {
            Subject::File(_) => None,
            Subject::Object(_) | Subject::Named(_) => self.file().map(|position| position.to_string()),
        };
        let Place { path: _, line: _, column: _, field, item } = &self.place;
        let parts = [("item", item.clone()), ("field", field.clone()), ("file", position)];
        parts.into_iter().filter_map(|(label, part)| part.map(|part| (label, part))).collect()
    }

    /// The order of findings: the worst first, then by subject, place, rule and message.
    pub(crate) fn compare(&self, other: &Self) -> Ordering {
        // The file and the line come before the field: a person reads a file from top to bottom.
        let position = |finding: &Self| (finding.place.line, finding.place.column);
        (other.severity.cmp(&self.severity))
            .then_with(|| self.subject.cmp(&other.subject))
            .then_with(|| self.place.path.cmp(&other.place.path))
            .then_with(|| position(self).cmp(&position(other)))
            .then_with(|| self.place.cmp(&other.place))
            .then_with(|| self.rule.cmp(&other.rule))
            .then_with(|| self.message.cmp(&other.message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::Object;

    #[test]
    fn a_position_is_that_of_the_place_or_of_the_subject() {
        let file = Finding::new("r", Severity::Ok, Subject::file("a.yaml"), "m").at_line(3, Some(7));
        assert_eq!(file.target(true), "a.yaml:3:7");
        assert!(file.whereabouts().is_empty());
        let object = Finding::new("r", Severity::Ok, Object::new("Pod", "p"), "m");
        assert_eq!(object.file(), None);
        let object = object.in_file("b.yaml", Some(9), None).at_field("spec.x");
        assert_eq!(object.target(true), "Pod p");
        assert_eq!(object.whereabouts(), [("field", "spec.x".to_owned()), ("file", "b.yaml:9".to_owned())]);
    }

    #[test]
    fn what_is_empty_is_not_written() {
        let json = serde_json::to_string(&Finding::new("r", Severity::Ok, Subject::file("a"), "m")).unwrap();
        let expected = r#"{"rule":"r","severity":"ok","subject":{"type":"file","path":"a"},"message":"m"}"#;
        assert_eq!(json, expected);
        let evidence = [Evidence::Text("t".to_owned()), Evidence::Command("c".to_owned())];
        assert_eq!(serde_json::to_string(&evidence).unwrap(), r#"[{"text":"t"},{"command":"c"}]"#);
    }
}
