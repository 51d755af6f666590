//! Totals of a copy.

use std::time::Duration;

/// Counts of a copy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Files announced by the source.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether the source has announced everything.
    pub complete: bool,
    /// Files written and verified.
    pub written: u64,
    /// Files written without verification, as requested.
    pub unverified: u64,
    /// Files already there, with the same hash.
    pub same: u64,
    /// Files already there, with the same size and time.
    pub unchanged: u64,
    /// Directories, links and special files.
    pub made: u64,
    /// Directories among those.
    pub directories: u64,
    /// Links among those.
    pub links: u64,
    /// Skipped, as requested.
    pub skipped: u64,
    /// Refused as dangerous.
    pub refused: u64,
    /// Failed at either end.
    pub failed: u64,
    /// With another owner than requested; also counted elsewhere.
    pub unowned: u64,
    /// Files that a dry run would write.
    pub planned: u64,
    /// Removed at the destination.
    pub deleted: u64,
    /// Bytes of processed content, whether they had to be sent or not.
    pub content: u64,
    /// Bytes sent by the source.
    pub sent: u64,
    /// Reconnections.
    pub retries: u32,
    /// Elapsed time.
    pub took: Duration,
}

impl Tally {
    /// Whether everything was done as requested.
    pub fn is_whole(&self) -> bool {
        self.refused == 0 && self.failed == 0 && self.unowned == 0
    }

    /// The number of processed entries.
    pub fn settled(&self) -> u64 {
        let done = self.written + self.unverified + self.same + self.unchanged + self.made + self.planned;
        done + self.skipped + self.refused + self.failed + self.deleted
    }

    /// The number of files that are done, whatever the result.
    pub fn finished_files(&self) -> u64 {
        self.written + self.unverified + self.same + self.unchanged + self.failed
    }

    /// Special files that were created or already exist.
    pub fn specials(&self) -> u64 {
        self.made - self.directories - self.links
    }

    /// Bytes of content per byte sent.
    #[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
    pub fn ratio(&self) -> f64 {
        self.content as f64 / self.sent.max(1) as f64
    }

    /// Bytes of content per second.
    #[allow(clippy::cast_precision_loss, reason = "an estimate")]
    pub fn rate(&self) -> f64 {
        self.content as f64 / self.took.as_secs_f64().max(0.001)
    }

    /// Adds the totals of another copy.
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
