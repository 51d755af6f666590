//! Another client that undoes our changes: each next one waits longer.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// So many repeated additions to one object are normal.
const NORMAL: u32 = 5;
/// After this time without an addition an object is calm again.
const CALM: Duration = Duration::from_secs(600);
/// The first wait; each next one is twice as long.
const FIRST: Duration = Duration::from_secs(10);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(600);

#[derive(Debug, Clone)]
struct Record {
    /// What was added so far. Only what is added again counts.
    names: BTreeSet<String>,
    additions: u32,
    last: Instant,
}

/// Additions to objects, by UID.
#[derive(Debug, Default)]
pub(crate) struct Contests {
    records: HashMap<String, Record>,
}

impl Contests {
    /// How long to wait before something is added to an object again; `None` if it may be added now.
    pub(crate) fn wait(&self, uid: &str, now: Instant) -> Option<Duration> {
        let record = self.records.get(uid)?;
        let excess = record.additions.checked_sub(NORMAL)?;
        let wait = FIRST.saturating_mul(1 << excess.min(16)).min(LONGEST);
        (record.last + wait).checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// Names were added to an object.
    pub(crate) fn added(&mut self, uid: &str, names: &[String], now: Instant) {
        if self.records.len() > 10_000 {
            self.records.retain(|_, record| now.duration_since(record.last) < CALM);
        }
        let new = Record { names: BTreeSet::new(), additions: 0, last: now };
        let record = self.records.entry(uid.to_owned()).or_insert(new);
        // Longer than the longest wait, so that a contest that goes on is not forgotten.
        if now.duration_since(record.last) > CALM + LONGEST {
            (record.additions, record.names) = (0, BTreeSet::new());
        }
        if names.iter().any(|name| record.names.contains(name)) {
            record.additions += 1;
            record.last = now;
        }
        record.names.extend(names.iter().cloned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_next_change_waits_longer_and_a_calm_object_does_not() {
        let mut contests = Contests::default();
        let mut now = Instant::now();
        // New names are no contest, however many.
        for number in 0..20 {
            contests.added("a", &[format!("new-{number}")], now);
        }
        let name = &["new-0".to_owned()][..];
        for _ in 0..NORMAL {
            assert_eq!(contests.wait("a", now), None);
            contests.added("a", name, now);
        }
        let mut waits = Vec::new();
        for _ in 0..9 {
            let wait = contests.wait("a", now).unwrap();
            waits.push(wait.as_secs());
            now += wait;
            assert_eq!(contests.wait("a", now), None);
            contests.added("a", name, now);
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 600, 600, 600]);
        assert_eq!(contests.wait("b", now), None);
        now += CALM + LONGEST + Duration::from_secs(1);
        contests.added("a", name, now);
        assert_eq!(contests.wait("a", now), None);
    }
}
