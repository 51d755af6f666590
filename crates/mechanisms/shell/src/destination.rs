//! A container without an agent as the end that receives files.
//!
//! Requests are sent to the shell as content arrives. Answers are processed as they arrive, in the same
//! order; a queue holds what is pending.

mod batch;
mod decide;
mod deferred;
mod metadata;
mod target;
mod writing;

use super::listing::Stat;
use super::quoting::cause;
use super::session::{Lost, Session};
use super::{Outbox, TransferMode, TranslatorError};
use crate::inspect::{list, stat_path};
use bytes::Bytes;
use decide::Wanted;
use deferred::Directory;
use postern_files::pattern::Rules;
use postern_files::policy::Surplus;
use postern_files::{name, policy};
use postern_wire::Decoder;
use postern_wire::copy::{
    Entry, EntryResult, Fate, FromDestination, FromSource, Kind, Owner, ReceiveSpec, UNOWNED, WINDOW,
};
use std::collections::{HashMap, HashSet, VecDeque};
use target::RemoteTarget;
use tokio::sync::mpsc::Receiver;
use writing::Writing;

/// An expected answer of the shell.
enum Pending {
    /// Hashes of the existing file, or of a partial file.
    Sums { wanted: Box<Wanted> },
    /// Whether the file written so far is intact.
    How { id: u32 },
    /// Renaming a file into place.
    File { id: u32, path: Vec<u8>, settled: EntryResult },
    /// Unpacking an archive.
    Unpack,
    /// Creating a directory; `grouped` if it has a setgid bit at the source.
    Directory { id: u32, path: Vec<u8>, grouped: bool },
    /// Creating a link or special file.
    Other { id: u32 },
    /// Setting the mode and time of a directory.
    Attributes { path: Vec<u8> },
}

/// The error of an entry below a directory that could not be created. The directory has an error of its own.
const PARENT_MISSING: &str = "its directory could not be created";

/// Maximum number of pending answers.
const PENDING: usize = 1_024;

struct ShellReceiver<'a> {
    spec: &'a ReceiveSpec,
    way: TransferMode,
    session: Session,
    out: Outbox,
    rules: Rules,
    roots: u32,
    target: Option<RemoteTarget>,
    pending: VecDeque<Pending>,
    wanted: VecDeque<Wanted>,
    writing: Option<Writing>,
    batch: batch::Batch,
    /// Why an archive could not be unpacked.
    unpacked: Option<Bytes>,
    /// The directory that was listed last.
    known: Option<(Vec<u8>, Listed)>,
    /// Directories that may get entries, and whether we created them, so that they were empty.
    entered: HashMap<Vec<u8>, bool>,
    /// Names received in the current directory.
    seen: HashSet<Vec<u8>>,
    /// Entries that the source does not have. They are removed at the end, when their number is known.
    extras: Vec<Vec<u8>>,
    surplus: Surplus,
    /// Paths that are requested and not yet in place.
    busy: HashSet<Vec<u8>>,
    /// Files that were requested but not written: no hard links to them are created.
    bad: HashSet<Vec<u8>>,
    links: Vec<(Box<Entry>, Vec<u8>)>,
    directories: Vec<Directory>,
    /// Directories that could not be created.
    missing_directories: HashSet<Vec<u8>>,
    zstd: zstd::bulk::Decompressor<'static>,
    entries: u64,
    bytes: u64,
    ended: bool,
}

/// The entries of a directory by name.
type Listed = HashMap<Vec<u8>, Stat>;

/// Serves one copy until it ends.
pub(super) async fn receive(
    spec: &ReceiveSpec,
    way: TransferMode,
    session: Session,
    mut input: Receiver<Bytes>,
    out: Outbox,
) -> Result<(), TranslatorError> {
    let mut destination = ShellReceiver {
        spec,
        way,
        session,
        out,
        rules: postern_files::rules(&spec.rules).map_err(TranslatorError::Fatal)?,
        roots: 0,
        target: None,
        pending: VecDeque::new(),
        wanted: VecDeque::new(),
        writing: None,
        batch: batch::Batch::default(),
        unpacked: None,
        known: None,
        entered: HashMap::new(),
        seen: HashSet::new(),
        extras: Vec::new(),
        surplus: Surplus::default(),
        busy: HashSet::new(),
        bad: HashSet::new(),
        links: Vec::new(),
        directories: Vec::new(),
        missing_directories: HashSet::new(),
        zstd: zstd::bulk::Decompressor::new().map_err(|error| TranslatorError::Fatal(error.to_string()))?,
        entries: 0,
        bytes: 0,
        ended: false,
    };
    if spec.clean {
        return destination.clean().await;
    }
    let mut decoder = Decoder::default();
    loop {
        while let Some((kind, payload)) = decoder.next_frame()? {
            destination.take(FromSource::decode(kind, payload)?).await?;
            destination.session.flush_if_large().await?;
            destination.process_available().await?;
            destination.out.flush_if_large().await?;
            if destination.pending.len() > PENDING {
                destination.answers(PENDING / 2).await?;
            }
        }
        if destination.ended && destination.writing.is_none() {
            // Content that the shell has answered about may still be requested.
            if destination.wanted.is_empty() && !destination.has_deciding_answer() {
                return destination.finish().await;
            }
        }
        destination.wait_for_input(&mut input, &mut decoder).await?;
    }
}

impl ShellReceiver<'_> {
    /// Waits for input from either side.
    async fn wait_for_input(
        &mut self,
        input: &mut Receiver<Bytes>,
        decoder: &mut Decoder,
    ) -> Result<(), TranslatorError> {
        if let Ok(bytes) = input.try_recv() {
            decoder.push(&bytes);
            return Ok(());
        }
        // No input is available: flush what was collected.
        if !self.is_writing() {
            self.unpack();
        }
        self.session.flush().await?;
        self.out.flush().await?;
        let waits = !self.pending.is_empty();
        tokio::select! {
            biased;
            answer = self.session.answer(), if waits => {
                let answer = answer?;
                self.answered(answer)?;
            }
            bytes = input.recv() => match bytes {
                Some(bytes) => decoder.push(&bytes),
                None => return Err(Lost("the other end is gone".to_owned()).into()),
            },
        }
        Ok(())
    }

    /// Processes answers until at most this many are pending.
    async fn answers(&mut self, left: usize) -> Result<(), TranslatorError> {
        if left == 0 && !self.is_writing() {
            self.unpack();
        }
        while self.pending.len() > left {
            let answer = self.session.answer().await?;
            self.answered(answer)?;
        }
        Ok(())
    }

    /// Processes the available answers, and immediately reports that no more of a file is wanted.
    async fn process_available(&mut self) -> Result<(), TranslatorError> {
        while let Some(next) = self.pending.front() {
            let asked_how = matches!(next, Pending::How { .. });
            let Some(answer) = self.session.answered()? else { break };
            let refused = asked_how && answer.is_err();
            self.answered(answer)?;
            if refused {
                self.out.flush().await?;
            }
        }
        Ok(())
    }

    /// Whether a pending answer decides what is requested.
    fn has_deciding_answer(&self) -> bool {
        self.pending.iter().any(|pending| matches!(pending, Pending::Sums { .. }))
    }

    fn answered(&mut self, answer: Result<Bytes, Bytes>) -> Result<(), TranslatorError> {
        let Some(pending) = self.pending.pop_front() else {
            return Err(Lost("the shell sent an unexpected answer".to_owned()).into());
        };
        let note = |said: &Bytes| match said.is_empty() {
            true => String::new(),
            false => name::show(&said[..said.len().min(300)]).into_owned(),
        };
        match pending {
            Pending::Sums { wanted } => self.want(*wanted, answer),
            Pending::How { id } => {
                if let Err(why) = answer {
                    self.stop(id, &why);
                }
            }
            Pending::File { id, path, settled } => {
                self.busy.remove(&path);
                match answer {
                    Ok(said) => {
                        self.bad.remove(&path);
                        let notes = [settled.note.clone(), note(&said)];
                        let notes: Vec<String> = notes.into_iter().filter(|note| !note.is_empty()).collect();
                        self.answer(EntryResult { note: notes.join("; "), ..settled });
                    }
                    Err(_) if self.has_missing_parent(&path) => {
                        self.settle(id, Fate::Failed, PARENT_MISSING.to_owned());
                    }
                    Err(why) => {
                        let why = self.unpacked.clone().unwrap_or(why);
                        let message = writing::trouble(&self.session.tools, &why);
                        self.settle(id, Fate::Failed, message);
                    }
                }
            }
            Pending::Unpack => self.unpacked = answer.err(),
            Pending::Directory { id, path, grouped } => match answer {
                Ok(said) => {
                    let lost = grouped && !self.spec.specials && *said == *b"new";
                    let note = if lost { policy::SETGID_DROPPED } else { "" };
                    self.settle(id, Fate::Made, note.to_owned());
                }
                Err(why) => {
                    self.entered.remove(&path);
                    self.missing_directories.insert(path);
                    let why = self.session.tools.explain("creating the directory", &why);
                    self.settle(id, Fate::Failed, why);
                }
            },
            Pending::Other { id } => match answer {
                Ok(said) => self.settle(id, Fate::Made, note(&said)),
                Err(why) => {
                    let why = self.session.tools.explain("creating it", &why);
                    self.settle(id, Fate::Failed, why);
                }
            },
            // The mode and time of another owner's directory stay; but a missing requested owner must be
            // reported.
            Pending::Attributes { path } => {
                let message = answer.map(|said| note(&said)).unwrap_or_default();
                if self.spec.owner != Owner::default() && message.contains(UNOWNED) {
                    self.out.put(|buffer| {
                        FromDestination::NotDeleted { path: &path, message }.encode(buffer);
                    });
                }
            }
        }
        Ok(())
    }

    async fn take(&mut self, frame: FromSource<'_>) -> Result<(), TranslatorError> {
        match frame {
            FromSource::Begin(roots) => self.roots = roots,
            FromSource::Entry(entry) => self.entry(entry).await?,
            FromSource::Fault { .. } => self.surplus.source += 1,
            FromSource::Heartbeat | FromSource::Ping => {}
            FromSource::DirectoryEnd(path) => self.directory_end(path).await?,
            FromSource::End => self.ended = true,
            FromSource::From { id, offset } => self.begin(id, offset)?,
            FromSource::Data(bytes) => self.content(bytes).await?,
            FromSource::Compressed { length, bytes } => {
                let room = usize::try_from(length).unwrap_or(usize::MAX);
                if room > postern_wire::copy::BLOCK {
                    return Err(Lost("a block that is too large".to_owned()).into());
                }
                let unpacked = self.zstd.decompress(bytes, room);
                let Some(bytes) = unpacked.ok().filter(|bytes| bytes.len() == room) else {
                    return Err(Lost("a block that cannot be decompressed".to_owned()).into());
                };
                self.content(&bytes).await?;
            }
            FromSource::Hole(length) => {
                self.count(length)?;
                self.hole(length).await?;
            }
            FromSource::Reuse { .. } | FromSource::Cut(_) => {
                return Err(Lost("it refers to content that was not offered".to_owned()).into());
            }
            FromSource::FileEnd { id, hash } => self.end(id, hash).await?,
            FromSource::FileFault { id, message } => self.fault(id, message)?,
            FromSource::Fatal(message) => return Err(Lost(message).into()),
        }
        Ok(())
    }

    async fn content(&mut self, bytes: &[u8]) -> Result<(), TranslatorError> {
        self.count(bytes.len() as u64)?;
        self.data(bytes).await
    }

    /// Counts content against the limit before it is written.
    fn count(&mut self, length: u64) -> Result<(), TranslatorError> {
        self.bytes = self.bytes.saturating_add(length);
        let limit = self.spec.limits.bytes;
        if self.bytes > limit {
            return Err(TranslatorError::Fatal(policy::many_bytes(limit)));
        }
        Ok(())
    }

    async fn entry(&mut self, entry: Box<Entry>) -> Result<(), TranslatorError> {
        self.entries += 1;
        let limit = self.spec.limits.entries;
        if self.entries > limit {
            return Err(TranslatorError::Fatal(policy::many_entries(limit)));
        }
        if self.wanted.len() > WINDOW {
            return Err(Lost("too many unanswered entries".to_owned()).into());
        }
        if let Err(error) = name::check(&entry.path, self.spec.limits.depth) {
            self.settle(entry.id, Fate::Refused, error.to_string());
            return Ok(());
        }
        if self.target.is_none() {
            self.target = Some(target::resolve(self.spec, &mut self.session, self.roots, &entry).await?);
            if let Some(RemoteTarget { shown, rename, .. }) = &self.target {
                let (directory, name) = (shown.as_slice(), rename.as_deref());
                self.out.put(|buffer| FromDestination::Target { directory, name }.encode(buffer));
            }
        }
        let Some(target) = &self.target else { return Ok(()) };
        if entry.path.is_empty() && !(target.contents && entry.kind == Kind::Directory) {
            return Err(Lost("an entry without a name".to_owned()).into());
        }
        let path = target.path(&entry.path);
        self.surplus.source += u64::from(!entry.path.is_empty());
        if self.busy.contains(&path) {
            self.settle(entry.id, Fate::Refused, policy::DUPLICATE.to_owned());
            return Ok(());
        }
        if self.has_missing_parent(&path) {
            self.settle(entry.id, Fate::Failed, PARENT_MISSING.to_owned());
            return Ok(());
        }
        if self.spec.delete.is_requested() {
            self.seen.insert(entry.path.clone());
        }
        if self.spec.delete.counts()
            && !entry.path.is_empty()
            && matches!(self.look(&path).await?, Ok(Some(_)))
        {
            self.surplus.there += 1;
        }
        match &entry.kind {
            Kind::File(_) => {
                self.bad.insert(path.clone()); // until it is written
                self.decide(entry, path).await
            }
            Kind::Directory => self.directory(&entry, path).await,
            Kind::Symlink(_) | Kind::HardLink(_) | Kind::Fifo | Kind::Device { .. } => {
                self.defer(entry, path).await
            }
        }
    }

    /// Whether one of its directories could not be created.
    fn has_missing_parent(&self, path: &[u8]) -> bool {
        let mut parent = name::split(path).0;
        while !parent.is_empty() {
            if self.missing_directories.contains(parent) {
                return true;
            }
            parent = name::split(parent).0;
        }
        false
    }

    fn settle(&mut self, id: u32, fate: Fate, note: String) {
        self.answer(EntryResult { id, fate, hash: [0; 32], note });
    }

    fn answer(&mut self, settled: EntryResult) {
        self.out.put(|buffer| FromDestination::EntryResult(settled).encode(buffer));
    }

    /// A path in the container.
    fn container_path(&self, path: &[u8]) -> Vec<u8> {
        match &self.target {
            Some(target) => name::join(&target.root, path),
            None => path.to_vec(),
        }
    }

    /// The current entry at a path below the root, if any.
    async fn look(&mut self, path: &[u8]) -> Result<Result<Option<Stat>, String>, TranslatorError> {
        let (parent, last) = name::split(path);
        if self.target.as_ref().is_none_or(|target| target.missing) {
            return Ok(Ok(None));
        }
        let entered = self.entered.get(parent).copied();
        // Nothing is written through an entry that only looks like a directory.
        if entered.is_none() && !parent.is_empty() {
            return Ok(Err("its directory does not exist".to_owned()));
        }
        if self.known.as_ref().is_none_or(|(known, _)| known != parent) {
            let found = if entered == Some(true) {
                Ok(Vec::new())
            } else {
                self.answers(0).await?;
                let real = self.container_path(parent);
                list(&mut self.session, &real).await?
            };
            let found = match found {
                Ok(found) => found,
                Err(why) if why == "No such file or directory" => Vec::new(), // only planned
                // A directory may be searchable but not readable.
                Err(why) => {
                    let real = self.container_path(path);
                    return Ok(match stat_path(&mut self.session, &real, false).await? {
                        Ok(stat) => Ok(Some(stat)),
                        Err(said) if cause(&said) == "No such file or directory" => Ok(None),
                        Err(_) => Err(format!("checking its path: {why}")),
                    });
                }
            };
            self.known = Some((parent.to_vec(), found.into_iter().collect()));
        }
        Ok(Ok(self.known.as_ref().and_then(|(_, known)| known.get(last)).cloned()))
    }

    async fn finish(mut self) -> Result<(), TranslatorError> {
        self.answers(0).await?;
        let kept_for = self.remove_extras().await?;
        self.links().await?;
        self.answers(0).await?;
        self.out.put(|buffer| match kept_for {
            Some(why) => FromDestination::Fatal(why).encode(buffer),
            None => FromDestination::Finished.encode(buffer),
        });
        Ok(self.out.flush().await?)
    }
}
