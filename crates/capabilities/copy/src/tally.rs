//! What a copy came to, in numbers.

use std::time::Duration;

/// Counts of a copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Files that the source has told of.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether that was all.
    pub complete: bool,
    /// Files written and verified.
    pub written: u64,
    /// Files written as asked without being verified.
    pub unverified: u64,
    /// Files that were there already, by their hash.
    pub same: u64,
    /// Files that were there already, by size and time.
    pub unchanged: u64,
    /// Directories, links and special files.
    pub made: u64,
    /// Directories among those.
    pub directories: u64,
    /// Links among those.
    pub links: u64,
    /// Left alone as asked.
    pub skipped: u64,
    /// Refused as dangerous.
    pub refused: u64,
    /// Failed at either end.
    pub failed: u64,
    /// Of another owner than was asked for; counted besides.
    pub unowned: u64,
    /// That a dry run would write.
    pub planned: u64,
    /// Removed at the destination.
    pub deleted: u64,
    /// Bytes of content dealt with, whether they had to be sent or not.
    pub content: u64,
    /// Bytes that the source sent.
    pub sent: u64,
    /// Connections that were lost and made again.
    pub retries: u32,
    /// Time since the beginning.
    pub took: Duration,
}

impl Tally {
    /// Whether everything that was asked for is done.
    pub fn is_whole(&self) -> bool {
        self.refused == 0 && self.failed == 0 && self.unowned == 0
    }

    /// How much came to its end.
    pub fn settled(&self) -> u64 {
        let done = self.written + self.unverified + self.same + self.unchanged + self.made + self.planned;
        done + self.skipped + self.refused + self.failed + self.deleted
    }

    /// Adds what another copy came to.
    pub fn add(&mut self, other: &Self) {
        let Self {
            files,
            bytes,
            complete,
            written,
            unverified,
            same,
            unchanged,
            made,
            directories,
            links,
            skipped,
            refused,
            failed,
            unowned,
            planned,
            deleted,
            content,
            sent,
            retries,
            took,
        } = other;
        for (own, more) in [
            (&mut self.files, files),
            (&mut self.bytes, bytes),
            (&mut self.written, written),
            (&mut self.unverified, unverified),
            (&mut self.same, same),
            (&mut self.unchanged, unchanged),
            (&mut self.made, made),
            (&mut self.directories, directories),
            (&mut self.links, links),
            (&mut self.skipped, skipped),
            (&mut self.refused, refused),
            (&mut self.failed, failed),
            (&mut self.unowned, unowned),
            (&mut self.planned, planned),
            (&mut self.deleted, deleted),
            (&mut self.content, content),
            (&mut self.sent, sent),
        ] {
            *own += more;
        }
        self.complete &= complete;
        self.retries += retries;
        self.took = self.took.max(*took);
    }
}
