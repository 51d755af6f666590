//! The summary of all targets: counts, the exit code, and the first targets that failed.

use super::Id;
use super::end::{Class, End};
use std::collections::BTreeMap;

/// At most this many failed targets are kept by name.
const NAMED: usize = 10;

/// The part of a target's end that the tally keeps.
#[derive(Debug)]
pub(super) struct EndSummary {
    name: String,
    class: Class,
    exit_code: u8,
    words: String,
}

impl EndSummary {
    pub(super) fn of(id: &Id, end: &End) -> Self {
        // Only text that may be printed is kept in memory.
        let words = if matches!(end.class(), Class::Failed | Class::NotReached) {
            end.description()
        } else {
            String::new()
        };
        Self { name: id.name.to_string(), class: end.class(), exit_code: end.exit_code(), words }
    }

    pub(super) fn exit_code(&self) -> u8 {
        self.exit_code
    }
}

/// Options many targets ended in each way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// All of them.
    pub targets: usize,
    /// Ended with code 0.
    pub ok: usize,
    /// Ended with another result.
    pub failed: usize,
    /// The exit codes of the failed targets, and how many targets had each.
    pub exit_codes: BTreeMap<u8, usize>,
    /// Never reached.
    pub not_reached: usize,
    /// Ended, or never started, because the whole fan-out was stopped.
    pub cancelled: usize,
    /// The first targets that failed or were not reached: the name, and how each ended.
    pub named: Vec<(String, String)>,
    /// The highest exit code.
    pub exit_code: u8,
}

impl Tally {
    pub(super) fn add(&mut self, end: EndSummary) {
        let EndSummary { name, class, exit_code, words } = end;
        self.targets += 1;
        self.exit_code = self.exit_code.max(exit_code);
        match class {
            Class::Ok => self.ok += 1,
            Class::Failed => {
                self.failed += 1;
                *self.exit_codes.entry(exit_code).or_default() += 1;
            }
            Class::NotReached => self.not_reached += 1,
            Class::Cancelled => self.cancelled += 1,
        }
        if matches!(class, Class::Failed | Class::NotReached) && self.named.len() < NAMED {
            self.named.push((name, words));
        }
    }

    /// Returns the summary: one line, and one for each target in `named`.
    pub fn lines(&self) -> Vec<String> {
        let Self { targets, ok, failed, exit_codes, not_reached, cancelled, named, exit_code: _ } = self;
        let mut parts = vec![format!("{ok} ok")];
        if *failed > 0 {
            let codes = exit_codes.iter().map(|(code, count)| match count {
                1 => code.to_string(),
                several => format!("{code} ×{several}"),
            });
            let (codes, plural) = (codes.collect::<Vec<_>>(), if *failed == 1 { "" } else { "s" });
            parts.push(format!("{failed} failed (exit code{plural} {})", codes.join(", ")));
        }
        if *not_reached > 0 {
            parts.push(format!("{not_reached} not reached"));
        }
        if *cancelled > 0 {
            parts.push(format!("{cancelled} cancelled"));
        }
        let plural = if *targets == 1 { "" } else { "s" };
        let mut lines = vec![format!("{targets} target{plural}: {}", parts.join(", "))];
        lines.extend(named.iter().map(|(name, words)| format!("  {name}: {words}")));
        let more = (failed + not_reached).saturating_sub(named.len());
        if more > 0 {
            lines.push(format!("  and {more} more"));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(name: &str, class: Class, exit_code: u8, words: &str) -> EndSummary {
        EndSummary { name: name.to_owned(), class, exit_code, words: words.to_owned() }
    }

    #[test]
    fn the_exit_code_is_the_highest_and_the_failed_are_named() {
        let mut tally = Tally::default();
        tally.add(short("a", Class::Ok, 0, ""));
        assert_eq!((tally.exit_code, tally.lines()), (0, vec!["1 target: 1 ok".to_owned()]));
        tally.add(short("b", Class::NotReached, 127, "not reached: there is no pod b"));
        tally.add(short("c", Class::Failed, 3, "exit 3"));
        tally.add(short("d", Class::Failed, 3, "exit 3"));
        tally.add(short("e", Class::Failed, 200, "exit 200"));
        tally.add(short("f", Class::Cancelled, 137, ""));
        assert_eq!(tally.exit_code, 200);
        assert_eq!(
            tally.lines(),
            [
                "6 targets: 1 ok, 3 failed (exit codes 3 ×2, 200), 1 not reached, 1 cancelled",
                "  b: not reached: there is no pod b",
                "  c: exit 3",
                "  d: exit 3",
                "  e: exit 200",
            ]
        );
    }

    #[test]
    fn a_thousand_failures_are_a_few_lines() {
        let mut tally = Tally::default();
        (0..1_000).for_each(|at| tally.add(short(&format!("p{at}"), Class::Failed, 1, "exit 1")));
        let lines = tally.lines();
        assert_eq!((lines.len(), lines.last().map(String::as_str)), (12, Some("  and 990 more")));
    }
}
