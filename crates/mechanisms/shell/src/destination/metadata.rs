//! Mode, owner and time of what is written.

use super::{Pending, ShellReceiver};
use crate::listing::Stat;
use crate::quoting::assign_path;
use postern_wire::copy::{Entry, EntryResult, Fate, Owner};

impl ShellReceiver<'_> {
    /// Mode, time and owner, as arguments of `dress`.
    pub(super) fn dress(&self, entry: &Entry, old: Option<&Stat>) -> (String, String, String) {
        let old = old.filter(|_| !self.spec.preserve);
        let bits = self.bits(old.map_or(entry.stamp.mode, |old| old.stamp.mode));
        (format!("{bits:o}"), time(entry), self.owner(entry, old))
    }

    /// The mode bits that an entry may set.
    pub(super) fn bits(&self, mode: u32) -> u32 {
        if self.spec.specials { mode & 0o7777 } else { mode & 0o1777 }
    }

    /// The owner of an entry; unspecified if it is ourselves.
    pub(super) fn owner(&self, entry: &Entry, old: Option<&Stat>) -> String {
        let owner = self.ids(entry, old);
        let tools = &self.session.tools;
        let us = old.is_some() && owner == (tools.user, tools.group);
        if us { "-".to_owned() } else { words(owner) }
    }

    fn ids(&self, entry: &Entry, old: Option<&Stat>) -> (Option<u32>, Option<u32>) {
        let Owner { user, group } = self.spec.owner;
        let (other_user, other_group) = match old {
            Some(old) => (Some(old.stamp.user), Some(old.stamp.group)),
            None if self.spec.preserve => (Some(entry.stamp.user), Some(entry.stamp.group)),
            None => (None, None),
        };
        (user.or(other_user), group.or(other_group))
    }

    /// Answers for a file that is kept, after setting its requested metadata: owner, and with `--preserve`
    /// mode.
    pub(super) fn reapply_metadata(&mut self, entry: &Entry, path: &[u8], old: &Stat, settled: EntryResult) {
        let (mode, time, _) = self.dress(entry, Some(old));
        let mut owner = self.ids(entry, Some(old).filter(|_| !self.spec.preserve));
        if owner == (Some(old.stamp.user), Some(old.stamp.group)) {
            owner = (None, None);
        }
        let moved = (old.stamp.seconds, old.stamp.nanos) != (entry.stamp.seconds, entry.stamp.nanos);
        let time = if moved && settled.fate == Fate::Same { time } else { "-".to_owned() };
        let same = !self.spec.preserve || mode == format!("{:o}", old.stamp.mode);
        let mode = if same { "-".to_owned() } else { mode };
        if owner == (None, None) && mode == "-" && time == "-" {
            return self.answer(settled);
        }
        let mut line = Vec::new();
        assign_path(&mut line, 'a', &self.container_path(path));
        line.extend_from_slice(format!("attr {mode} {time} {}\n", words(owner)).as_bytes());
        self.session.queue(&line);
        self.pending.push_back(Pending::File { id: settled.id, path: path.to_vec(), settled });
    }
}

/// An owner as an argument of chown(1).
fn words(owner: (Option<u32>, Option<u32>)) -> String {
    match owner {
        (None, None) => "-".to_owned(),
        (user, None) => user.map(|id| id.to_string()).unwrap_or_default(),
        (user, Some(group)) => format!("{}:{group}", user.map(|id| id.to_string()).unwrap_or_default()),
    }
}

/// The time of an entry for `touch -d @…`.
pub(super) fn time(entry: &Entry) -> String {
    let stamp = entry.stamp;
    match stamp.nanos {
        // Before 1970 the fraction has the opposite sign, and tools disagree.
        nanos if nanos > 0 && stamp.seconds >= 0 => format!("{}.{nanos:09}", stamp.seconds),
        _ => stamp.seconds.to_string(),
    }
}
