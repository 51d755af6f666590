//! What is done about a file: left alone, compared with what is there, or wanted.

use super::{Destination, Pending};
use crate::Trouble;
use crate::listing::{Stat, Type};
use crate::quoting::assign_path;
use bytes::Bytes;
use postern_files::{name, verdict};
use postern_wire::copy::{Compare, Entry, EntryResult, Fate, FromDestination, Kind, Stamp, UNSIZED, Want};

/// An unfinished file is kept and taken up from this size on.
pub(super) const LARGE: u64 = 8 * 1024 * 1024;

/// An entry whose content was asked for.
pub(super) struct Wanted {
    pub(super) entry: Box<Entry>,
    pub(super) path: Vec<u8>,
    /// What is to be replaced.
    pub(super) old: Option<Stat>,
    pub(super) there: There,
}

/// What the container has of it, as hashes of its blocks.
pub(super) enum There {
    Nothing,
    /// Under its name.
    Whole(Vec<String>),
    /// What an earlier copy left.
    Partial(Vec<String>),
}

impl Destination<'_> {
    pub(super) async fn decide(&mut self, entry: Box<Entry>, path: Vec<u8>) -> Result<(), Trouble> {
        let Kind::File(size) = entry.kind else { return Ok(()) };
        let old = match self.look(&path).await? {
            Ok(old) => old,
            Err(why) => {
                self.settle(entry.id, Fate::Failed, why);
                return Ok(());
            }
        };
        match old.as_ref().map(Stat::kind) {
            None | Some(Type::File | Type::Symlink) => {} // a symlink is replaced, not followed
            Some(Type::Directory) => {
                self.settle(entry.id, Fate::Failed, "a directory has its place".to_owned());
                return Ok(());
            }
            Some(Type::Other) => {
                self.settle(entry.id, Fate::Failed, "a device, fifo or socket has its place".to_owned());
                return Ok(());
            }
        }
        if let Some(old) = &old
            && let Some((fate, note)) = self.left_alone(&entry, size, old)
        {
            let settled = EntryResult { id: entry.id, fate, hash: [0; 32], note };
            if fate == Fate::Skipped || self.spec.dry_run {
                self.answer(settled);
            } else {
                self.redress(&entry, &path, old, settled);
            }
            if fate != Fate::Skipped {
                self.bad.remove(&path);
            }
            return Ok(());
        }
        if self.spec.dry_run {
            self.settle(entry.id, Fate::Planned, String::new());
            return Ok(());
        }
        let old = old.filter(|old| old.kind() == Type::File);
        self.busy.insert(path.clone());
        let (there, of) = self.there(&path, size, entry.stamp, old.as_ref());
        let wanted = Wanted { entry, path, old, there };
        let Some(of) = of else {
            self.ask(wanted);
            return Ok(());
        };
        let mut line = Vec::new();
        assign_path(&mut line, 'a', &self.real(&of));
        line.extend_from_slice(b"sums\n");
        self.session.say(&line);
        self.pending.push_back(Pending::Sums { wanted: Box::new(wanted) });
        Ok(())
    }

    /// What the container may have of a file already, and the path that is to be hashed.
    fn there(&self, path: &[u8], size: u64, stamp: Stamp, old: Option<&Stat>) -> (There, Option<Vec<u8>>) {
        if self.session.tools.sum.is_none() || size == UNSIZED || size == 0 {
            return (There::Nothing, None);
        }
        if let Some(old) = old
            && old.size == size
            && (self.spec.compare == Compare::Hash || verdict::same_time(old.stamp, stamp))
        {
            return (There::Whole(Vec::new()), Some(path.to_vec()));
        }
        let (parent, last) = name::split(path);
        let unfinished = name::partial(last);
        let left = self.known.as_ref().and_then(|(_, known)| known.get(&unfinished));
        match left {
            Some(left) if size > LARGE && left.kind() == Type::File => {
                (There::Partial(Vec::new()), Some(name::join(parent, &unfinished)))
            }
            _ => (There::Nothing, None),
        }
    }

    /// The shell's answer to the question for hashes: now the content is asked for.
    pub(super) fn want(&mut self, mut wanted: Wanted, answer: Result<Bytes, Bytes>) {
        let sums: Vec<String> = match answer {
            Ok(said) => String::from_utf8_lossy(&said).split_ascii_whitespace().map(str::to_owned).collect(),
            Err(_) => Vec::new(), // what cannot be read is replaced
        };
        wanted.there = match wanted.there {
            There::Whole(_) => There::Whole(sums),
            There::Partial(_) => There::Partial(sums),
            There::Nothing => There::Nothing,
        };
        self.ask(wanted);
    }

    /// All of the content is asked for, whatever is there: it is compared on its way, and what is there goes no further.
    fn ask(&mut self, wanted: Wanted) {
        let want = Want::all(wanted.entry.id);
        self.out.put(|buffer| FromDestination::Want(want).encode(buffer));
        self.wanted.push_back(wanted);
    }

    /// Whether a file is left as it is, without a look at its content.
    fn left_alone(&self, entry: &Entry, size: u64, old: &Stat) -> Option<(Fate, String)> {
        if old.kind() != Type::File {
            return None;
        }
        verdict::left_alone(self.spec, entry, size, old.size, old.stamp)
    }
}
