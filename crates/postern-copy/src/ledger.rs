//! The books of a copy: what there is to do, what was done, and what was not and why.

use crate::error::CopyError;
use crate::pod::News;
use crate::verified::Verified;
use postern_wire::copy::{Entry, Fate, Kind, Owner, ReceiveSpec, Settled, UNOWNED, UNSIZED};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::time::{Duration, Instant};

/// One thing that came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// Its path, as the source has it; bytes, as Linux knows no encoding.
    pub path: Vec<u8>,
    /// What became of it.
    pub fate: Fate,
    /// Its size, of a file.
    pub size: Option<u64>,
    /// BLAKE3 of the content that both ends have, of a file that was verified.
    pub hash: Option<blake3::Hash>,
    /// Its owner was asked for, and is another.
    pub unowned: bool,
    /// Why, or what else there is to say.
    pub note: String,
}

/// Who is told as a copy goes on.
pub trait Observer {
    /// Something came to its end.
    fn done(&mut self, done: &Done);
    /// Something was removed at the destination.
    fn deleted(&mut self, path: &[u8]);
    /// Time has passed.
    fn progress(&mut self, tally: &Tally);
    /// Something to know, such as a lost connection.
    fn notice(&mut self, text: &str);
    /// Something to know for who asks.
    fn detail(&mut self, text: &str);
}

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

/// A line of a manifest as coreutils' `sha256sum` and `b3sum` write and check theirs: the name as it is, but for bytes that would
/// end the line or escape others, which a backslash at its beginning announces.
fn line(hash: &blake3::Hash, path: &[u8]) -> Vec<u8> {
    let escaped = |byte| match byte {
        b'\\' => Some(b"\\\\"),
        b'\n' => Some(b"\\n"),
        b'\r' => Some(b"\\r"),
        _ => None,
    };
    let mut line = Vec::with_capacity(path.len() + 80);
    if path.iter().any(|byte| escaped(*byte).is_some()) {
        line.push(b'\\');
    }
    line.extend_from_slice(format!("{hash}  ").as_bytes());
    for byte in path {
        match escaped(*byte) {
            Some(two) => line.extend_from_slice(two),
            None => line.push(*byte),
        }
    }
    line.push(b'\n');
    line
}

/// What was told and is not answered.
#[derive(Debug)]
struct Open {
    path: Vec<u8>,
    kind: OpenKind,
    /// A file that is run as its owner or group, which it is not to be here.
    privileged: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OpenKind {
    File(u64),
    Other,
}

/// The books.
pub struct Ledger<'a> {
    observer: &'a mut dyn Observer,
    tally: Tally,
    began: Instant,
    open: HashMap<u32, Open>,
    /// Files whose content is known to be the source's, by a hash of their paths; they are not asked about again after
    /// a lost connection.
    verified: Verified,
    hasher: std::hash::RandomState,
    /// The destination gives what was asked for a name of its own, rather than take it into a directory.
    named: bool,
    /// The source does not say whether what it sends is what it has.
    doubted: bool,
    /// The owner was asked for: what does not get it is not done.
    owner: bool,
    /// Setuid and setgid bits were asked for.
    specials: bool,
    manifest: Option<BufWriter<File>>,
    broken: Option<std::io::Error>,
}

impl<'a> Ledger<'a> {
    /// Empty books.
    pub fn new(observer: &'a mut dyn Observer, manifest: Option<File>) -> Self {
        Self {
            observer,
            tally: Tally::default(),
            began: Instant::now(),
            open: HashMap::new(),
            verified: Verified::new(),
            hasher: std::hash::RandomState::new(),
            named: false,
            doubted: false,
            owner: false,
            specials: false,
            manifest: manifest.map(BufWriter::new),
            broken: None,
        }
    }

    /// A connection begins, and with it the source from the beginning: what failed may succeed now.
    pub(crate) fn begin(&mut self) {
        self.open.clear();
        let tally = &mut self.tally;
        for count in [
            &mut tally.files,
            &mut tally.bytes,
            &mut tally.unverified,
            &mut tally.unchanged,
            &mut tally.made,
            &mut tally.skipped,
            &mut tally.refused,
            &mut tally.failed,
            &mut tally.planned,
        ] {
            *count = 0;
        }
        tally.complete = false;
    }

    fn key(&self, path: &[u8]) -> u64 {
        use std::hash::BuildHasher as _;
        self.hasher.hash_one(path)
    }

    /// The source tells of something; true when it was verified before.
    pub(crate) fn entry(&mut self, entry: &Entry) -> bool {
        let kind = match entry.kind {
            Kind::File(size) => {
                self.tally.files += 1;
                self.tally.bytes = self.tally.bytes.saturating_add(if size == UNSIZED { 0 } else { size });
                OpenKind::File(size)
            }
            _ => OpenKind::Other,
        };
        let privileged = kind != OpenKind::Other && entry.stamp.mode & 0o6000 != 0 && !self.specials;
        self.open.insert(entry.id, Open { path: entry.path.clone(), kind, privileged });
        kind != OpenKind::Other && self.verified.contains(self.key(&entry.path))
    }

    /// The source cannot send something.
    pub(crate) fn fault(&mut self, path: &[u8], message: String) {
        self.tally.failed += 1;
        let path = path.to_vec();
        self.observer.done(&Done {
            path,
            fate: Fate::Failed,
            size: None,
            hash: None,
            unowned: false,
            note: message,
        });
    }

    /// The source has told everything.
    pub(crate) fn complete(&mut self) {
        self.tally.complete = true;
    }

    pub(crate) fn placed(&mut self, named: bool) {
        self.named = named;
    }

    /// Whether an earlier connection gave what was asked for a name of its own.
    pub(crate) fn named(&self) -> bool {
        self.named
    }

    /// What comes from the source is not verified there, whatever the destination says.
    pub(crate) fn doubt(&mut self, doubted: bool) {
        self.doubted = doubted;
    }

    /// What was asked for besides content.
    pub(crate) fn asked(&mut self, receive: &ReceiveSpec) {
        self.owner = receive.owner != Owner::default();
        self.specials = receive.specials;
    }

    pub(crate) fn content(&mut self, bytes: u64) {
        self.tally.content = self.tally.content.saturating_add(bytes);
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.tally.sent += bytes as u64;
    }

    /// The destination answers; false when nothing with this number was told.
    pub(crate) fn settled(&mut self, settled: Settled) -> bool {
        let Settled { id, fate, mut hash, mut note } = settled;
        if self.doubted && fate == Fate::Written {
            hash = [0; 32];
            if note.is_empty() {
                "not verified".clone_into(&mut note);
            }
        }
        let Some(Open { path, kind, privileged }) = self.open.remove(&id) else { return false };
        if privileged && fate == Fate::Written && note.is_empty() {
            "without its setuid and setgid bits, which --specials keeps".clone_into(&mut note);
        }
        let unowned = self.owner && note.contains(UNOWNED) && !matches!(fate, Fate::Failed | Fate::Refused);
        let key = self.key(&path);
        let seen = self.verified.contains(key);
        let size = match kind {
            OpenKind::File(UNSIZED) | OpenKind::Other => None,
            OpenKind::File(size) => Some(size),
        };
        let count = match fate {
            Fate::Written | Fate::Same if seen => return true, // told before the connection was lost
            Fate::Written if hash == [0; 32] => &mut self.tally.unverified,
            Fate::Written => &mut self.tally.written,
            Fate::Same => &mut self.tally.same,
            Fate::Unchanged => &mut self.tally.unchanged,
            Fate::Made => &mut self.tally.made,
            Fate::Skipped => &mut self.tally.skipped,
            Fate::Refused => &mut self.tally.refused,
            Fate::Failed => &mut self.tally.failed,
            Fate::Planned => &mut self.tally.planned,
        };
        *count += 1;
        self.tally.unowned += u64::from(unowned);
        // Without a hash it was written and not compared.
        let verified = fate == Fate::Same || fate == Fate::Written && hash != [0; 32];
        if verified {
            self.verified.insert(key);
        }
        if matches!(fate, Fate::Same | Fate::Unchanged) {
            self.content(size.unwrap_or(0));
        }
        let hash = (verified && hash != [0; 32]).then(|| blake3::Hash::from_bytes(hash));
        if let (Some(manifest), Some(hash)) = (&mut self.manifest, hash)
            && let Err(error) = manifest.write_all(&line(&hash, &path))
        {
            self.broken.get_or_insert(error);
        }
        self.observer.done(&Done { path, fate, size, hash, unowned, note });
        true
    }

    pub(crate) fn deleted(&mut self, path: &[u8]) {
        self.tally.deleted += 1;
        self.observer.deleted(path);
    }

    pub(crate) fn retried(&mut self) {
        self.tally.retries += 1;
    }

    /// How often a connection was made again.
    pub(crate) fn tries(&self) -> u32 {
        self.tally.retries
    }

    pub(crate) fn news(&mut self, news: News) {
        match news {
            News::Notice(text) => self.observer.notice(&text),
            News::Detail(text) => self.observer.detail(&text),
        }
    }

    pub(crate) fn notice(&mut self, text: &str) {
        self.observer.notice(text);
    }

    pub(crate) fn progress(&mut self) {
        self.tally.took = self.began.elapsed();
        self.observer.progress(&self.tally);
    }

    /// What says whether something moved: a copy that gets on is worth another try.
    pub(crate) fn moved(&self) -> (u64, u64) {
        (self.tally.content, self.tally.written + self.tally.unverified + self.tally.same)
    }

    /// Closes the books: what it came to, and whether the manifest is on the disk.
    pub fn close(mut self) -> (Tally, Result<(), CopyError>) {
        self.tally.took = self.began.elapsed();
        let flushed = self.manifest.take().map_or(Ok(()), |mut manifest| {
            manifest.flush()?;
            match manifest.get_ref().sync_all() {
                // A pipe or a device has no disk below it.
                Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => Ok(()),
                other => other,
            }
        });
        let written = self.broken.take().map_or(flushed, Err);
        (self.tally, written.map_err(CopyError::Manifest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_manifest_tell_any_two_names_apart() {
        let hash = blake3::hash(b"x");
        let name = |path: &[u8]| {
            let line = line(&hash, path);
            let at = line.iter().position(|byte| *byte == b' ').unwrap();
            [&line[..at - 64], b"|", &line[at + 2..]].concat()
        };
        assert_eq!(name(b"a b"), b"|a b\n");
        assert_eq!(name(b"a\nb"), b"\\|a\\nb\n");
        assert_eq!(name(b"a\\nb"), b"\\|a\\\\nb\n");
        assert_eq!(name(b"\xff\t"), b"|\xff\t\n");
    }
}
