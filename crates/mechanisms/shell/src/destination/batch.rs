//! Sends small files in archives, many at a time.

use super::writing::Writing;
use super::{Pending, ShellReceiver};
use crate::archive;
use crate::listing::Stat;
use crate::quoting::assign_path;
use postern_wire::copy::{Entry, EntryResult, Owner};

/// Files up to this size are sent in archives.
const SMALL: u64 = 1024 * 1024;

/// Maximum bytes and files of one archive.
const ARCHIVE: usize = 2 * 1024 * 1024;
const FILES: usize = 256;

/// Small files that wait to be sent in an archive.
#[derive(Default)]
pub(super) struct Batch {
    archive: Vec<u8>,
    files: Vec<Small>,
}

struct Small {
    id: u32,
    path: Vec<u8>,
    sum: String,
    settled: EntryResult,
}

impl ShellReceiver<'_> {
    pub(super) fn goes_in_archive(&self, entry: &Entry, size: u64, old: Option<&Stat>) -> bool {
        // Unpacked files are owned by us.
        let tools = &self.session.tools;
        let ours = |old: &Stat| (Some(old.stamp.user), Some(old.stamp.group)) == (tools.user, tools.group);
        let needs_owner =
            self.spec.preserve || self.spec.owner != Owner::default() || old.is_some_and(|old| !ours(old));
        self.way.tar
            && size <= SMALL
            && !needs_owner
            && !self.spec.inplace
            && (0..=archive::LATEST).contains(&entry.stamp.seconds)
            && archive::is_plain(&entry.path)
            && (self.session.tools.sum.is_some() || !self.way.verify)
    }

    /// Adds a small file to the current archive.
    pub(super) fn add(&mut self, writing: &Writing, content: &[u8], sum: String, settled: EntryResult) {
        let beside = self.temporary_path(&writing.path);
        let old = writing.old.as_ref().filter(|_| !self.spec.preserve);
        let mode = self.bits(old.map_or(writing.entry.stamp.mode, |old| old.stamp.mode));
        archive::put(&mut self.batch.archive, &beside, mode, writing.entry.stamp, content);
        let (id, path) = (writing.entry.id, writing.path.clone());
        self.batch.files.push(Small { id, path, sum, settled });
        if self.batch.archive.len() >= ARCHIVE || self.batch.files.len() >= FILES {
            self.unpack();
        }
    }

    /// Sends the archive, then has its files verified and renamed.
    pub(super) fn unpack(&mut self) {
        if self.batch.files.is_empty() {
            return;
        }
        let Batch { mut archive, files } = std::mem::take(&mut self.batch);
        archive::end(&mut archive);
        // Registered first, so that they are removed when the connection breaks.
        self.session.queue(b"set --\n");
        for Small { path, .. } in &files {
            let mut line = self.names(path);
            line.extend_from_slice(b"set -- \"$@\" \"$p\"\n");
            self.session.queue(&line);
        }
        let mut line = Vec::new();
        let root = self.container_path(b"");
        assign_path(&mut line, 'a', &root);
        line.extend_from_slice(format!("unpack {}\n", archive.len() / 512).as_bytes());
        self.session.queue(&line);
        self.session.content(&archive);
        self.session.queue(b"hashes \"$@\"\n");
        self.pending.push_back(Pending::Unpack);
        for Small { id, path, sum, settled } in files {
            let mut line = self.names(&path);
            line.extend_from_slice(format!("x=;w=;i=;fin {sum} - - - tar -\n").as_bytes());
            self.session.queue(&line);
            self.pending.push_back(Pending::File { id, path, settled });
        }
        self.session.queue(b"set --\n");
    }
}
