//! Accounts of a copy: what there is to do, what was done, and what failed and why.

use crate::error::CopyError;
use crate::pod::Notification;
pub use crate::tally::Tally;
use crate::verified::Verified;
use postern_files::name;
use postern_wire::copy::{Entry, EntryResult, Fate, Kind, Owner, ReceiveSpec, UNOWNED, UNSIZED};
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::time::Instant;

/// The result of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The path at the source. Bytes, because Linux paths have no encoding.
    pub path: Vec<u8>,
    /// What happened to it.
    pub fate: Fate,
    /// The size of a file.
    pub size: Option<u64>,
    /// BLAKE3 of a verified file.
    pub hash: Option<blake3::Hash>,
    /// The requested owner could not be set.
    pub unowned: bool,
    /// The path at the destination if it failed there, as far as the destination has sent it.
    pub place: Option<Vec<u8>>,
    /// The reason, or other details.
    pub note: String,
}

/// Receives the progress of a copy.
pub trait Observer {
    /// An entry is done.
    fn done(&mut self, done: &Done);
    /// An entry was removed at the destination.
    fn deleted(&mut self, path: &[u8]);
    /// Called periodically.
    fn progress(&mut self, tally: &Tally);
    /// A message for the user, such as a lost connection.
    fn notice(&mut self, text: &str);
    /// A message for verbose output.
    fn detail(&mut self, text: &str);
}

/// A line of a manifest, as written and checked by coreutils' `sha256sum` and by `b3sum`: the name is
/// literal, except for bytes that would end the line or escape others; a backslash at the start of the line
/// announces escapes.
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

/// An entry that was announced and not answered.
#[derive(Debug)]
struct Unanswered {
    path: Vec<u8>,
    kind: EntryKind,
    /// A setuid or setgid file that will not keep that bit.
    privileged: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntryKind {
    File(u64),
    Directory,
    Link,
    Special,
}

/// The accounts of a copy.
pub struct Ledger<'a> {
    observer: &'a mut dyn Observer,
    tally: Tally,
    /// Maximum files and bytes announced on one connection: the next connection announces them again.
    announced: (u64, u64),
    /// A source of unknown length was announced.
    unsized_announced: bool,
    began: Instant,
    open: HashMap<u32, Unanswered>,
    /// Files with verified content, by a hash of their paths. They are not compared again after a lost
    /// connection.
    verified: Verified,
    hasher: std::hash::RandomState,
    /// The target directory, and the new name of the source if it does not keep its own.
    place: Option<(Vec<u8>, Option<Vec<u8>>)>,
    /// The source does not verify that it sends what it has.
    unverified_source: bool,
    /// An owner was requested: entries without it count as incomplete.
    owner: bool,
    /// Setuid and setgid bits were requested.
    specials: bool,
    manifest: Option<BufWriter<File>>,
    broken: Option<std::io::Error>,
}

impl<'a> Ledger<'a> {
    /// An empty ledger.
    pub fn new(observer: &'a mut dyn Observer, manifest: Option<File>) -> Self {
        Self {
            observer,
            tally: Tally::default(),
            announced: (0, 0),
            unsized_announced: false,
            began: Instant::now(),
            open: HashMap::new(),
            verified: Verified::new(),
            hasher: std::hash::RandomState::new(),
            place: None,
            unverified_source: false,
            owner: false,
            specials: false,
            manifest: manifest.map(BufWriter::new),
            broken: None,
        }
    }

    /// Starts a connection. The source starts over, so what failed may now succeed.
    pub(crate) fn begin(&mut self) {
        self.open.clear();
        self.announced = self.most_announced();
        let tally = &mut self.tally;
        for count in [
            &mut tally.files,
            &mut tally.bytes,
            &mut tally.unverified,
            &mut tally.unchanged,
            &mut tally.made,
            &mut tally.directories,
            &mut tally.links,
            &mut tally.skipped,
            &mut tally.refused,
            &mut tally.failed,
            &mut tally.planned,
        ] {
            *count = 0;
        }
        tally.complete = false;
    }

    fn most_announced(&self) -> (u64, u64) {
        (self.tally.files.max(self.announced.0), self.tally.bytes.max(self.announced.1))
    }

    fn key(&self, path: &[u8]) -> u64 {
        use std::hash::BuildHasher as _;
        self.hasher.hash_one(path)
    }

    /// Records an announced entry; returns whether it was verified before.
    pub(crate) fn entry(&mut self, entry: &Entry) -> bool {
        let kind = match entry.kind {
            Kind::File(size) => {
                self.tally.files += 1;
                match size {
                    UNSIZED => self.unsized_announced = true,
                    size => self.tally.bytes = self.tally.bytes.saturating_add(size),
                }
                EntryKind::File(size)
            }
            Kind::Directory => EntryKind::Directory,
            Kind::Symlink(_) | Kind::HardLink(_) => EntryKind::Link,
            Kind::Fifo | Kind::Device { .. } => EntryKind::Special,
        };
        let is_file = matches!(kind, EntryKind::File(_));
        let privileged = is_file && entry.stamp.mode & 0o6000 != 0 && !self.specials;
        self.open.insert(entry.id, Unanswered { path: entry.path.clone(), kind, privileged });
        is_file && self.verified.contains(self.key(&entry.path))
    }

    /// Records an entry that the source cannot send.
    pub(crate) fn fault(&mut self, path: &[u8], message: String) {
        self.tally.failed += 1;
        let path = path.to_vec();
        self.observer.done(&Done {
            path,
            fate: Fate::Failed,
            size: None,
            hash: None,
            unowned: false,
            place: None,
            note: message,
        });
    }

    /// Records that the source has announced everything.
    pub(crate) fn complete(&mut self) {
        self.tally.complete = true;
    }

    pub(crate) fn set_target(&mut self, directory: &[u8], name: Option<&[u8]>) {
        self.place = Some((directory.to_vec(), name.map(<[u8]>::to_vec)));
    }

    /// The path of an entry at the destination.
    fn target_path(&self, path: &[u8]) -> Option<Vec<u8>> {
        let (directory, name) = self.place.as_ref()?;
        let below = match (name, path.iter().position(|byte| *byte == b'/')) {
            (Some(name), Some(slash)) => name::join(name, &path[slash + 1..]),
            (Some(name), None) => name.clone(),
            (None, _) => path.to_vec(),
        };
        let here = directory == b"." || directory.is_empty();
        Some(if here { below } else { name::join(directory, &below) })
    }

    /// Whether an earlier connection gave the source a new name.
    pub(crate) fn named(&self) -> bool {
        matches!(self.place, Some((_, Some(_))))
    }

    /// Whether content from the source is unverified there, whatever the destination reports.
    pub(crate) fn set_unverified_source(&mut self, unverified_source: bool) {
        self.unverified_source = unverified_source;
    }

    /// Records the requested metadata.
    pub(crate) fn set_request(&mut self, receive: &ReceiveSpec) {
        self.owner = receive.owner != Owner::default();
        self.specials = receive.specials;
    }

    pub(crate) fn content(&mut self, bytes: u64) {
        self.tally.content = self.tally.content.saturating_add(bytes);
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.tally.sent += bytes as u64;
    }

    /// Records the answer to an entry; false if no such entry was announced.
    pub(crate) fn settled(&mut self, settled: EntryResult) -> bool {
        let EntryResult { id, fate, mut hash, mut note } = settled;
        if self.unverified_source && fate == Fate::Written {
            hash = [0; 32];
            if note.is_empty() {
                "not verified".clone_into(&mut note);
            }
        }
        let Some(Unanswered { path, kind, privileged }) = self.open.remove(&id) else { return false };
        if privileged && fate == Fate::Written && note.is_empty() {
            "without its setuid and setgid bits, which --specials keeps".clone_into(&mut note);
        }
        let unowned = self.owner && note.contains(UNOWNED) && !matches!(fate, Fate::Failed | Fate::Refused);
        let key = self.key(&path);
        let seen = self.verified.contains(key);
        let size = match kind {
            EntryKind::File(UNSIZED) | EntryKind::Directory | EntryKind::Link | EntryKind::Special => None,
            EntryKind::File(size) => Some(size),
        };
        let count = match fate {
            Fate::Written | Fate::Same if seen => return true, // counted before the connection was lost
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
        if fate == Fate::Made {
            self.tally.directories += u64::from(kind == EntryKind::Directory);
            self.tally.links += u64::from(kind == EntryKind::Link);
        }
        self.tally.unowned += u64::from(unowned);
        // Without a hash it was written but not compared.
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
        let place = if fate == Fate::Failed || unowned { self.target_path(&path) } else { None };
        self.observer.done(&Done { path, fate, size, hash, unowned, place, note });
        true
    }

    pub(crate) fn deleted(&mut self, path: &[u8]) {
        self.tally.deleted += 1;
        self.observer.deleted(path);
    }

    pub(crate) fn record_retry(&mut self) {
        self.tally.retries += 1;
    }

    /// The number of reconnections.
    pub(crate) fn retries(&self) -> u32 {
        self.tally.retries
    }

    pub(crate) fn notification(&mut self, notification: Notification) {
        match notification {
            Notification::Notice(text) => self.observer.notice(&text),
            Notification::Detail(text) => self.observer.detail(&text),
        }
    }

    pub(crate) fn notice(&mut self, text: &str) {
        self.observer.notice(text);
    }

    pub(crate) fn progress(&mut self) {
        self.observer.progress(&self.shown());
    }

    /// A measure of progress: a copy that progresses may be retried.
    pub(crate) fn progress_marker(&self) -> (u64, u64) {
        (self.tally.content, self.tally.written + self.tally.unverified + self.tally.same)
    }

    /// Finishes the ledger: returns the totals, and whether the manifest was written to disk.
    pub fn close(mut self) -> (Tally, Result<(), CopyError>) {
        let tally = self.shown();
        let flushed = self.manifest.take().map_or(Ok(()), |mut manifest| {
            manifest.flush()?;
            match manifest.get_ref().sync_all() {
                // A pipe or a device cannot be synced.
                Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => Ok(()),
                other => other,
            }
        });
        let written = self.broken.take().map_or(flushed, Err);
        (tally, written.map_err(CopyError::Manifest))
    }

    /// The current totals. Until a connection has announced everything, the totals of earlier ones count.
    fn shown(&self) -> Tally {
        let mut tally = self.tally.clone();
        tally.took = self.began.elapsed();
        if !tally.complete {
            (tally.files, tally.bytes) = self.most_announced();
        }
        // Bytes in flight when a connection was lost were counted twice.
        if !self.unsized_announced {
            tally.content = tally.content.min(tally.bytes);
        }
        tally
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    #[test]
    fn manifest_lines_are_unambiguous() {
        let hash = blake3::hash(b"x");
        let after = |path: &[u8]| {
            let line = line(&hash, path);
            let at = line.iter().position(|byte| *byte == b' ').unwrap();
            [&line[..at - 64], b"|", &line[at + 2..]].concat()
        };
        assert_eq!(after(b"a b"), b"|a b\n");
        assert_eq!(after(b"a\nb"), b"\\|a\\nb\n");
        assert_eq!(after(b"a\\nb"), b"\\|a\\\\nb\n");
        assert_eq!(after(b"\xff\t"), b"|\xff\t\n");
    }

    /// Ignores everything.
    pub(crate) struct NullObserver;

    impl Observer for NullObserver {
        fn done(&mut self, _: &Done) {}
        fn deleted(&mut self, _: &[u8]) {}
        fn progress(&mut self, _: &Tally) {}
        fn notice(&mut self, _: &str) {}
        fn detail(&mut self, _: &str) {}
    }

    #[test]
    fn failures_name_the_target_path() {
        let mut observer = NullObserver;
        let mut ledger = Ledger::new(&mut observer, None);
        assert_eq!(ledger.target_path(b"set/big"), None);
        for (directory, name, place) in [
            ("/data", None, "/data/set/big"),
            ("/", None, "/set/big"),
            (".", None, "set/big"),
            ("/data", Some("other"), "/data/other/big"),
        ] {
            ledger.set_target(directory.as_bytes(), name.map(str::as_bytes));
            assert_eq!(ledger.target_path(b"set/big"), Some(place.as_bytes().to_vec()));
        }
        assert_eq!(ledger.target_path(b"f"), Some(b"/data/other".to_vec()));
    }

    #[test]
    fn totals_of_earlier_connections_are_kept() {
        let file = |id| Entry {
            id,
            path: id.to_string().into_bytes(),
            kind: Kind::File(10),
            stamp: postern_wire::copy::Stamp { mode: 0o644, user: 0, group: 0, seconds: 0, nanos: 0 },
            xattrs: Vec::new(),
            settled: false,
        };
        let announced = |connections: &[&[u32]], complete| {
            let mut observer = NullObserver;
            let mut ledger = Ledger::new(&mut observer, None);
            for ids in connections {
                ledger.begin();
                for id in *ids {
                    ledger.entry(&file(*id));
                }
            }
            if complete {
                ledger.complete();
            }
            let tally = ledger.close().0;
            (tally.files, tally.bytes)
        };
        assert_eq!(announced(&[&[1, 2, 3], &[1], &[]], false), (3, 30));
        assert_eq!(announced(&[&[1, 2], &[1, 2, 3]], false), (3, 30));
        assert_eq!(announced(&[&[1, 2, 3], &[1, 2]], true), (2, 20), "one was removed meanwhile");
    }

    #[test]
    fn content_sent_twice_is_counted_once() {
        let content = |kind| {
            let stamp = postern_wire::copy::Stamp { mode: 0o644, user: 0, group: 0, seconds: 0, nanos: 0 };
            let entry = Entry { id: 0, path: b"f".to_vec(), kind, stamp, xattrs: Vec::new(), settled: false };
            let mut observer = NullObserver;
            let mut ledger = Ledger::new(&mut observer, None);
            for _ in 0..2 {
                ledger.begin();
                ledger.entry(&entry);
                ledger.content(70);
            }
            ledger.complete();
            ledger.close().0.content
        };
        assert_eq!(content(Kind::File(100)), 100);
        assert_eq!(content(Kind::File(UNSIZED)), 140, "nobody knows how much there is");
    }
}
