//! How bad a finding is, and what makes a command fail.

use crate::error::ReportError;
use schemars::JsonSchema;
use serde::Serialize;
use std::fmt;
use std::str::FromStr;

/// How bad a finding is. The order is from harmless to bad, so `max` gives the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The rule was checked and holds.
    Ok,
    /// The rule was not checked: it does not apply, or an earlier failure makes the check pointless.
    Skipped,
    /// The rule was checked, and the answer could not be found out (no permission, no network).
    Inconclusive,
    /// It works, and something about it should be looked at.
    Warning,
    /// It is broken or violates the rule.
    Problem,
}

impl Severity {
    /// All of them, the worst first.
    pub const ALL: [Self; 5] = [Self::Problem, Self::Warning, Self::Inconclusive, Self::Skipped, Self::Ok];

    /// The name used in every format.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Inconclusive => "inconclusive",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }

    /// A count in words: `1 problem`, `2 problems`, `3 ok`.
    pub(crate) fn counted(self, count: usize) -> String {
        let plural = matches!(self, Self::Problem | Self::Warning) && count != 1;
        format!("{count} {self}{}", if plural { "s" } else { "" })
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Severity {
    type Err = ReportError;

    fn from_str(text: &str) -> Result<Self, ReportError> {
        let found = Self::ALL.into_iter().find(|severity| severity.name() == text);
        found.ok_or_else(|| ReportError::UnknownSeverity(text.to_owned()))
    }
}

/// What makes a command exit with an error. A problem always does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FailOn {
    /// Whether a warning does too (`--fail-on warning`).
    pub warning: bool,
    /// Whether an inconclusive finding does too (`--inconclusive=fail`).
    pub inconclusive: bool,
}

impl FailOn {
    /// Whether a finding of this severity makes the command fail.
    pub const fn fails(self, severity: Severity) -> bool {
        match severity {
            Severity::Problem => true,
            Severity::Warning => self.warning,
            Severity::Inconclusive => self.inconclusive,
            Severity::Skipped | Severity::Ok => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_is_the_greatest() {
        let mut sorted = Severity::ALL;
        sorted.sort();
        sorted.reverse();
        assert_eq!(sorted, Severity::ALL);
    }

    #[test]
    fn names_are_read_back() {
        for severity in Severity::ALL {
            assert_eq!(severity.to_string().parse::<Severity>().unwrap(), severity);
            assert_eq!(serde_json::to_string(&severity).unwrap(), format!("\"{severity}\""));
        }
        let error = "bad".parse::<Severity>().unwrap_err().to_string();
        assert!(error.contains("bad") && error.contains("inconclusive"), "{error}");
    }

    #[test]
    fn counts_are_words() {
        assert_eq!(Severity::Problem.counted(1), "1 problem");
        assert_eq!(Severity::Warning.counted(0), "0 warnings");
        assert_eq!(Severity::Ok.counted(3), "3 ok");
    }
}
