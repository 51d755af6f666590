//! Mode, owner and time of what is written.

use super::Destination;
use crate::plain::listing::Stat;
use postern_wire::copy::{Entry, Owner};

impl Destination<'_> {
    /// Mode, time and owner, as `dress` takes them.
    pub(super) fn dress(&self, entry: &Entry, old: Option<&Stat>) -> (String, String, String) {
        let old = old.filter(|_| !self.spec.preserve);
        let bits = self.bits(old.map_or(entry.stamp.mode, |old| old.stamp.mode));
        (format!("{bits:o}"), time(entry), self.owner(entry, old))
    }

    /// The bits that an entry may bring.
    pub(super) fn bits(&self, mode: u32) -> u32 {
        if self.spec.specials { mode & 0o7777 } else { mode & 0o1777 }
    }

    /// Who is to own an entry; nobody in particular where it is us.
    pub(super) fn owner(&self, entry: &Entry, old: Option<&Stat>) -> String {
        let Owner { user, group } = self.spec.owner;
        let (other_user, other_group) = match old {
            Some(old) => (Some(old.stamp.user), Some(old.stamp.group)),
            None if self.spec.preserve => (Some(entry.stamp.user), Some(entry.stamp.group)),
            None => (None, None),
        };
        let (user, group) = (user.or(other_user), group.or(other_group));
        let tools = &self.session.tools;
        match (user, group) {
            (None, None) => "-".to_owned(),
            (user, group) if old.is_some() && (user, group) == (tools.user, tools.group) => "-".to_owned(),
            (user, group) => {
                let text = |id: Option<u32>| id.map(|id| id.to_string()).unwrap_or_default();
                let group = if group.is_some() { format!(":{}", text(group)) } else { String::new() };
                format!("{}{group}", text(user))
            }
        }
    }
}

/// The time of an entry for `touch -d @…`.
pub(super) fn time(entry: &Entry) -> String {
    let stamp = entry.stamp;
    match stamp.nanos {
        // Before 1970 the part counts the other way, and not every tool agrees.
        nanos if nanos > 0 && stamp.seconds >= 0 => format!("{}.{nanos:09}", stamp.seconds),
        _ => stamp.seconds.to_string(),
    }
}
