//! A container without an agent as the end that gets the files.
//!
//! Requests go to the shell as content comes, and their answers are taken as they arrive, in the same order: what is on
//! its way stands in a queue.

mod decide;
mod deferred;
mod metadata;
mod place;
mod small;
mod writing;

use super::listing::Stat;
use super::quoting::cause;
use super::session::{Lost, Session};
use super::source::walk::{list, look};
use super::{Out, Trouble, Way};
use bytes::Bytes;
use decide::Wanted;
use deferred::Directory;
use place::Placed;
use postern_files::pattern::Rules;
use postern_files::verdict::Surplus;
use postern_files::{name, verdict};
use postern_wire::Decoder;
use postern_wire::copy::{
    Entry, EntryResult, Fate, FromDestination, FromSource, Kind, Owner, ReceiveSpec, UNOWNED, WINDOW,
};
use std::collections::{HashMap, HashSet, VecDeque};
use tokio::sync::mpsc::Receiver;
use writing::Writing;

/// An answer of the shell's that is on its way.
enum Pending {
    /// Hashes of what has a file's place, or of what an earlier copy left.
    Sums { wanted: Box<Wanted> },
    /// Whether what was put of a file so far is there.
    How { id: u32 },
    /// A file gets its name.
    File { id: u32, path: Vec<u8>, settled: EntryResult },
    /// An archive was unpacked.
    Unpack,
    /// A directory was made, of which files inherited their group at the source or not.
    Directory { id: u32, path: Vec<u8>, grouped: bool },
    /// A link or special file was made.
    Other { id: u32 },
    /// A directory got its mode and time.
    Attributes { path: Vec<u8> },
}

/// The error of an entry below a directory that could not be made. The directory has an error of its own.
const UNMADE: &str = "the directory that it lies in could not be made";

/// Answers that may be on their way.
const PENDING: usize = 1_024;

struct Destination<'a> {
    spec: &'a ReceiveSpec,
    way: Way,
    session: Session,
    out: Out,
    rules: Rules,
    tops: u32,
    placed: Option<Placed>,
    pending: VecDeque<Pending>,
    wanted: VecDeque<Wanted>,
    writing: Option<Writing>,
    batch: small::Batch,
    /// What an archive could not be unpacked for.
    unpacked: Option<Bytes>,
    /// The directory that was listed last.
    known: Option<(Vec<u8>, Listed)>,
    /// Directories that things may go into; whether they are ours, and so were empty.
    entered: HashMap<Vec<u8>, bool>,
    /// Names that came in the directory that entries come from now.
    seen: HashSet<Vec<u8>>,
    /// What the source does not have; it is removed at the end, when it is known how much that is.
    extras: Vec<Vec<u8>>,
    surplus: Surplus,
    /// Paths that are asked for and not in place yet.
    busy: HashSet<Vec<u8>>,
    /// Files that were not written, though asked for: no other name of them is made.
    bad: HashSet<Vec<u8>>,
    links: Vec<(Box<Entry>, Vec<u8>)>,
    directories: Vec<Directory>,
    /// Directories that could not be made.
    unmade: HashSet<Vec<u8>>,
    zstd: zstd::bulk::Decompressor<'static>,
    entries: u64,
    bytes: u64,
    ended: bool,
}

/// What a directory holds, by name.
type Listed = HashMap<Vec<u8>, Stat>;

/// Serves one copy to its end.
pub(super) async fn receive(
    spec: &ReceiveSpec,
    way: Way,
    session: Session,
    mut input: Receiver<Bytes>,
    out: Out,
) -> Result<(), Trouble> {
    let mut destination = Destination {
        spec,
        way,
        session,
        out,
        rules: postern_files::rules(&spec.rules).map_err(Trouble::Fatal)?,
        tops: 0,
        placed: None,
        pending: VecDeque::new(),
        wanted: VecDeque::new(),
        writing: None,
        batch: small::Batch::default(),
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
        unmade: HashSet::new(),
        zstd: zstd::bulk::Decompressor::new().map_err(|error| Trouble::Fatal(error.to_string()))?,
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
            destination.session.say_much().await?;
            destination.heard().await?;
            destination.out.much().await?;
            if destination.pending.len() > PENDING {
                destination.answers(PENDING / 2).await?;
            }
        }
        if destination.ended && destination.writing.is_none() {
            // What is asked for and answered by the shell may be wanted yet.
            if destination.wanted.is_empty() && !destination.asks() {
                return destination.finish().await;
            }
        }
        destination.listen(&mut input, &mut decoder).await?;
    }
}

impl Destination<'_> {
    /// Waits for either conversation to go on.
    async fn listen(&mut self, input: &mut Receiver<Bytes>, decoder: &mut Decoder) -> Result<(), Trouble> {
        if let Ok(bytes) = input.try_recv() {
            decoder.push(&bytes);
            return Ok(());
        }
        // Nothing comes at once: what was collected is sent.
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

    /// Takes answers until no more than so many are on their way.
    async fn answers(&mut self, left: usize) -> Result<(), Trouble> {
        if left == 0 && !self.is_writing() {
            self.unpack();
        }
        while self.pending.len() > left {
            let answer = self.session.answer().await?;
            self.answered(answer)?;
        }
        Ok(())
    }

    /// Takes the answers that are here, and says at once that no more of a file is wanted.
    async fn heard(&mut self) -> Result<(), Trouble> {
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

    /// Whether an answer on its way decides what is wanted.
    fn asks(&self) -> bool {
        self.pending.iter().any(|pending| matches!(pending, Pending::Sums { .. }))
    }

    fn answered(&mut self, answer: Result<Bytes, Bytes>) -> Result<(), Trouble> {
        let Some(pending) = self.pending.pop_front() else {
            return Err(Lost("the shell answers what nobody asked".to_owned()).into());
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
                    Err(_) if self.below_unmade(&path) => self.settle(id, Fate::Failed, UNMADE.to_owned()),
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
                    let note = if lost { verdict::UNGROUPED } else { "" };
                    self.settle(id, Fate::Made, note.to_owned());
                }
                Err(why) => {
                    self.entered.remove(&path);
                    self.unmade.insert(path);
                    let why = self.session.tools.explain("making the directory", &why);
                    self.settle(id, Fate::Failed, why);
                }
            },
            Pending::Other { id } => match answer {
                Ok(said) => self.settle(id, Fate::Made, note(&said)),
                Err(why) => {
                    let why = self.session.tools.explain("making it", &why);
                    self.settle(id, Fate::Failed, why);
                }
            },
            // A directory of someone else's keeps its mode and time; but the owner that was asked for is not to be missed.
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

    async fn take(&mut self, frame: FromSource<'_>) -> Result<(), Trouble> {
        match frame {
            FromSource::Begin(tops) => self.tops = tops,
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
                    return Err(Lost("a block that cannot be unpacked".to_owned()).into());
                };
                self.content(&bytes).await?;
            }
            FromSource::Hole(length) => {
                self.count(length)?;
                self.hole(length).await?;
            }
            FromSource::Reuse { .. } | FromSource::Cut(_) => {
                return Err(Lost("it reuses what it was not told of".to_owned()).into());
            }
            FromSource::FileEnd { id, hash } => self.end(id, hash).await?,
            FromSource::FileFault { id, message } => self.fault(id, message)?,
            FromSource::Fatal(message) => return Err(Lost(message).into()),
        }
        Ok(())
    }

    async fn content(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.count(bytes.len() as u64)?;
        self.data(bytes).await
    }

    /// Content counts against the limit before it is written.
    fn count(&mut self, length: u64) -> Result<(), Trouble> {
        self.bytes = self.bytes.saturating_add(length);
        let limit = self.spec.limits.bytes;
        if self.bytes > limit {
            return Err(Trouble::Fatal(verdict::many_bytes(limit)));
        }
        Ok(())
    }

    async fn entry(&mut self, entry: Box<Entry>) -> Result<(), Trouble> {
        self.entries += 1;
        let limit = self.spec.limits.entries;
        if self.entries > limit {
            return Err(Trouble::Fatal(verdict::many_entries(limit)));
        }
        if self.wanted.len() > WINDOW {
            return Err(Lost("more entries than it may leave unanswered".to_owned()).into());
        }
        if let Err(error) = name::check(&entry.path, self.spec.limits.depth) {
            self.settle(entry.id, Fate::Refused, error.to_string());
            return Ok(());
        }
        if self.placed.is_none() {
            self.placed = Some(place::place(self.spec, &mut self.session, self.tops, &entry).await?);
            if let Some(Placed { shown, rename, .. }) = &self.placed {
                let (directory, name) = (shown.as_slice(), rename.as_deref());
                self.out.put(|buffer| FromDestination::Target { directory, name }.encode(buffer));
            }
        }
        let Some(placed) = &self.placed else { return Ok(()) };
        if entry.path.is_empty() && !(placed.contents && entry.kind == Kind::Directory) {
            return Err(Lost("something without a name".to_owned()).into());
        }
        let path = placed.path(&entry.path);
        self.surplus.source += u64::from(!entry.path.is_empty());
        if self.busy.contains(&path) {
            self.settle(entry.id, Fate::Refused, verdict::TWICE.to_owned());
            return Ok(());
        }
        if self.below_unmade(&path) {
            self.settle(entry.id, Fate::Failed, UNMADE.to_owned());
            return Ok(());
        }
        if self.spec.delete.is_asked() {
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
                self.postpone(entry, path).await
            }
        }
    }

    /// Whether a directory that something lies in could not be made.
    fn below_unmade(&self, path: &[u8]) -> bool {
        let mut parent = name::split(path).0;
        while !parent.is_empty() {
            if self.unmade.contains(parent) {
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
    fn real(&self, path: &[u8]) -> Vec<u8> {
        match &self.placed {
            Some(placed) => name::join(&placed.root, path),
            None => path.to_vec(),
        }
    }

    /// What has the place of something below the root, if anything.
    async fn look(&mut self, path: &[u8]) -> Result<Result<Option<Stat>, String>, Trouble> {
        let (parent, last) = name::split(path);
        if self.placed.as_ref().is_none_or(|placed| placed.missing) {
            return Ok(Ok(None));
        }
        let entered = self.entered.get(parent).copied();
        // Nothing is written through what only looks like a directory.
        if entered.is_none() && !parent.is_empty() {
            return Ok(Err("its directory is not there".to_owned()));
        }
        if self.known.as_ref().is_none_or(|(known, _)| known != parent) {
            let found = if entered == Some(true) {
                Ok(Vec::new())
            } else {
                self.answers(0).await?;
                let real = self.real(parent);
                list(&mut self.session, &real).await?
            };
            let found = match found {
                Ok(found) => found,
                Err(why) if why == "No such file or directory" => Vec::new(), // only planned
                // A directory may be entered and not listed.
                Err(why) => {
                    let real = self.real(path);
                    return Ok(match look(&mut self.session, &real, false).await? {
                        Ok(stat) => Ok(Some(stat)),
                        Err(said) if cause(&said) == "No such file or directory" => Ok(None),
                        Err(_) => Err(format!("looking at its place: {why}")),
                    });
                }
            };
            self.known = Some((parent.to_vec(), found.into_iter().collect()));
        }
        Ok(Ok(self.known.as_ref().and_then(|(_, known)| known.get(last)).cloned()))
    }

    async fn finish(mut self) -> Result<(), Trouble> {
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
