//! Decides whether a file is kept, compared or requested.

use super::{Pending, ShellReceiver};
use crate::TranslatorError;
use crate::listing::{Stat, Type};
use crate::quoting::assign_path;
use bytes::Bytes;
use postern_files::name;
use postern_wire::copy::{Entry, EntryResult, Fate, FromDestination, Kind, UNSIZED, Want};

/// Partial files of at least this size are kept and resumed.
pub(super) const LARGE: u64 = 8 * 1024 * 1024;

/// An entry whose content was requested.
pub(super) struct Wanted {
    pub(super) entry: Box<Entry>,
    pub(super) path: Vec<u8>,
    /// The file being replaced.
    pub(super) old: Option<Stat>,
    pub(super) there: There,
}

/// What the container has of it, as hashes of its blocks.
pub(super) enum There {
    Nothing,
    /// A complete file under its name.
    Whole(Vec<String>),
    /// A partial file of an earlier copy.
    Partial(Vec<String>),
}

impl ShellReceiver<'_> {
    pub(super) async fn decide(&mut self, entry: Box<Entry>, path: Vec<u8>) -> Result<(), TranslatorError> {
        let Kind::File(size) = entry.kind else { return Ok(()) };
        let old = match self.look(&path).await? {
            Ok(old) => old,
            Err(why) => {
                self.settle(entry.id, Fate::Failed, why);
                return Ok(());
            }
        };
        if let Some(why) = old.as_ref().and_then(|old| old.existing().blocks_file()) {
            self.settle(entry.id, Fate::Failed, why.to_owned());
            return Ok(());
        }
        if let Some(old) = &old
            && let Some((fate, note)) = old.existing().kept(self.spec, &entry, size)
        {
            let settled = EntryResult { id: entry.id, fate, hash: [0; 32], note };
            if fate == Fate::Skipped || self.spec.dry_run {
                self.answer(settled);
            } else {
                self.reapply_metadata(&entry, &path, old, settled);
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
        let (there, of) = self.existing_blocks(&entry, &path, size, old.as_ref());
        let wanted = Wanted { entry, path, old, there };
        let Some(of) = of else {
            self.ask(wanted);
            return Ok(());
        };
        let mut line = Vec::new();
        assign_path(&mut line, 'a', &self.container_path(&of));
        line.extend_from_slice(b"sums\n");
        self.session.queue(&line);
        self.pending.push_back(Pending::Sums { wanted: Box::new(wanted) });
        Ok(())
    }

    /// What the container may have of a file, and the path to hash.
    fn existing_blocks(
        &self,
        entry: &Entry,
        path: &[u8],
        size: u64,
        old: Option<&Stat>,
    ) -> (There, Option<Vec<u8>>) {
        if self.session.tools.sum.is_none() || size == UNSIZED || size == 0 {
            return (There::Nothing, None);
        }
        if let Some(old) = old
            && old.existing().is_compared(self.spec, entry, size)
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

    /// Processes the hashes of the existing file: now the content is requested.
    pub(super) fn want(&mut self, mut wanted: Wanted, answer: Result<Bytes, Bytes>) {
        let sums: Vec<String> = match answer {
            Ok(said) => String::from_utf8_lossy(&said).split_ascii_whitespace().map(str::to_owned).collect(),
            Err(_) => Vec::new(), // replace an unreadable file
        };
        wanted.there = match wanted.there {
            There::Whole(_) => There::Whole(sums),
            There::Partial(_) => There::Partial(sums),
            There::Nothing => There::Nothing,
        };
        self.ask(wanted);
    }

    /// Requests all of the content, whatever exists: the translator compares it and sends only what differs.
    fn ask(&mut self, wanted: Wanted) {
        let want = Want::all(wanted.entry.id);
        self.out.put(|buffer| FromDestination::Want(want).encode(buffer));
        self.wanted.push_back(wanted);
    }
}
