//! Counts, and what goes into the log.

use super::Rules;
use super::entry::Outcome;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Problems that are listed. A tree may have a million of the same kind.
const LISTED: u64 = 20;

/// What happened in one tree.
#[derive(Debug)]
pub(super) struct Report<'a> {
    path: &'a str,
    /// Entries that were looked at.
    pub(super) seen: AtomicU64,
    /// Entries that were changed.
    pub(super) changed: AtomicU64,
    /// Device nodes that have another owner. They are left as they are, as they give access to hardware.
    pub(super) devices: AtomicU64,
    /// Mount points. What is mounted there is left as it is.
    pub(super) mounts: AtomicU64,
    problems: AtomicU64,
    output: Mutex<()>,
}

impl<'a> Report<'a> {
    pub(super) fn new(path: &'a str) -> Self {
        Self {
            path,
            seen: AtomicU64::new(0),
            changed: AtomicU64::new(0),
            devices: AtomicU64::new(0),
            mounts: AtomicU64::new(0),
            problems: AtomicU64::new(0),
            output: Mutex::new(()),
        }
    }

    /// The root of the tree.
    pub(super) fn path(&self) -> &'a str {
        self.path
    }

    /// Counts an entry. A directory is counted when it is entered.
    pub(super) fn count(&self, outcome: Outcome) {
        let kind = match outcome {
            Outcome::Changed => Some(&self.changed),
            Outcome::Device => Some(&self.devices),
            Outcome::Same | Outcome::HardLink => None,
            Outcome::Mount => {
                self.mounts.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Outcome::Directory | Outcome::Gone => return,
        };
        self.seen.fetch_add(1, Ordering::Relaxed);
        if let Some(kind) = kind {
            kind.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Logs something that could not be changed.
    pub(super) fn problem(&self, text: impl AsRef<str>) {
        let before = self.problems.fetch_add(1, Ordering::Relaxed);
        if before < LISTED {
            let _one = self.output.lock().unwrap_or_else(PoisonError::into_inner);
            error(&format!("error: {}\n", text.as_ref()));
        }
    }

    /// Whether something could not be changed.
    pub(super) fn failed(&self) -> bool {
        self.problems.load(Ordering::Relaxed) > 0
    }

    /// Logs how far the walk is.
    pub(super) fn progress(&self) {
        let (seen, changed) = (self.seen.load(Ordering::Relaxed), self.changed.load(Ordering::Relaxed));
        error(&format!("{}: {seen} entries so far, {changed} changed\n", self.path));
    }

    /// Logs the result.
    pub(super) fn summary(&self, rules: Rules, took: Duration, interrupted: bool) {
        error(&self.text(rules, took, interrupted));
    }

    fn text(&self, rules: Rules, took: Duration, interrupted: bool) -> String {
        let Self { path, seen, changed, devices, mounts, problems, output: _ } = self;
        let [seen, changed, devices, mounts, problems] =
            [seen, changed, devices, mounts, problems].map(|count| count.load(Ordering::Relaxed));
        let Rules { uid, gid, .. } = rules;
        let mut text = String::new();
        if problems > LISTED {
            let _ = writeln!(text, "error: {} more errors of this kind are not listed", problems - LISTED);
        }
        let seconds = took.as_secs_f64();
        let _ = write!(text, "{path}: {seen} entries, {changed} changed to {uid}:{gid}, in {seconds:.1} s");
        if devices > 0 {
            let _ = write!(text, "; {devices} device nodes left as they are");
        }
        if mounts > 0 {
            let _ = write!(text, "; {mounts} other mounts not entered");
        }
        if problems > 0 {
            let _ = write!(text, "; {problems} could not be changed, so the root was not changed either");
        }
        if interrupted {
            text.push_str("; interrupted before the end, so the root was not changed");
        }
        text.push('\n');
        text
    }
}

/// Writes to stderr.
pub(super) fn error(text: &str) {
    let _ = rustix::io::write(rustix::stdio::stderr(), text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_says_what_was_left() {
        let report = Report::new("/data");
        report.seen.store(10, Ordering::Relaxed);
        report.changed.store(3, Ordering::Relaxed);
        let rules = Rules { uid: 1, gid: 2, ..Rules::default() };
        let text = || report.text(rules, Duration::from_millis(1500), false);
        assert_eq!(text(), "/data: 10 entries, 3 changed to 1:2, in 1.5 s\n");
        report.devices.store(1, Ordering::Relaxed);
        report.problems.store(LISTED + 5, Ordering::Relaxed);
        assert!(text().starts_with("error: 5 more errors"), "{}", text());
        assert!(text().contains("; 1 device nodes left as they are; 25 could not be changed"), "{}", text());
        assert!(report.failed());
    }
}
