//! The end that receives files: objects below a prefix.

mod decide;
mod delete;
mod writing;

use crate::error::RequestError;
use crate::journal::Record;
use crate::link::{EndError, Inbox, Outbox};
use crate::listing::Found;
use crate::posix::{Posix, Type};
use crate::store::Store;
use crate::target::{self, KeyTarget};
use crate::upload::{Multipart, PART};
use bytes::Bytes;
use delete::{Extras, ReceivedNames};
use postern_files::compression::Decompressor;
use postern_files::{name, pattern, policy};
use postern_wire::Decoder;
use postern_wire::copy::{
    Entry, EntryResult, Fate, FromDestination, FromSource, Kind, ReceiveSpec, Stamp, UNSIZED, WINDOW,
};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};

/// Maximum bytes of content in memory: a part that is being filled, and others in flight.
const HELD: u64 = 4 * PART;

/// The unit of permits for content.
const UNIT: u64 = 64 * 1024;

/// Maximum number of concurrent requests for small objects.
const AT_A_TIME: usize = 16;

/// A file whose content was requested.
struct Wanted {
    entry: Box<Entry>,
    key: String,
    posix: Posix,
    have: u64,
    /// The existing content is the object itself.
    whole: bool,
    record: Option<Record>,
}

/// A file whose content is arriving.
struct Writing {
    id: u32,
    key: String,
    into: Into,
    /// Whether the source was told to stop.
    stopped: bool,
}

enum Into {
    /// It already exists.
    Same,
    Failed(String),
    Open(Box<Open>),
}

struct Open {
    posix: Posix,
    size: u64,
    came: u64,
    buffer: Vec<u8>,
    /// Capacity of the buffer.
    most: u64,
    permit: OwnedSemaphorePermit,
    parts: Option<Multipart>,
}

/// The result of a task.
enum Event {
    Looked(Box<Looked>),
    EntryResult(String, EntryResult),
}

struct Looked {
    entry: Box<Entry>,
    key: String,
    found: Result<Option<Found>, RequestError>,
    record: Result<Option<Record>, String>,
}

struct ObjectReceiver<'a> {
    store: &'a Store,
    spec: &'a ReceiveSpec,
    rules: pattern::Rules,
    roots: u32,
    target: Option<KeyTarget>,
    wanted: VecDeque<Wanted>,
    writing: Option<Writing>,
    tasks: JoinSet<Event>,
    /// Keys that are requested and not yet in place.
    busy: HashSet<String>,
    /// Keys of files that were not written: no hard links to them are created.
    bad: HashSet<String>,
    /// Deferred hard links: entry id, key, and the key of the file.
    links: Vec<(u32, String, String)>,
    /// Received names of each directory, for `--delete`.
    seen: HashMap<Vec<u8>, ReceivedNames>,
    extras: Extras,
    held: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    decompressor: Decompressor,
    entries: u64,
    bytes: u64,
    ended: bool,
}

/// Serves one copy until it ends.
pub(crate) async fn receive(
    store: &Store,
    spec: &ReceiveSpec,
    mut input: Inbox,
    out: &mut Outbox,
) -> Result<(), EndError> {
    let mut destination = ObjectReceiver::new(store, spec)?;
    let served = destination.serve(&mut input, out).await;
    if served.is_err()
        && let Some(Writing { into: Into::Open(open), .. }) = destination.writing.take()
        && let Some(parts) = open.parts
    {
        parts.keep().await;
    }
    served
}

impl<'a> ObjectReceiver<'a> {
    fn new(store: &'a Store, spec: &'a ReceiveSpec) -> Result<Self, EndError> {
        Ok(Self {
            store,
            spec,
            rules: postern_files::rules(&spec.rules).map_err(EndError::Fatal)?,
            roots: 0,
            target: None,
            wanted: VecDeque::new(),
            writing: None,
            tasks: JoinSet::new(),
            busy: HashSet::new(),
            bad: HashSet::new(),
            links: Vec::new(),
            seen: HashMap::new(),
            extras: Extras::default(),
            held: Arc::new(Semaphore::new(units(HELD) as usize)),
            requests: Arc::new(Semaphore::new(AT_A_TIME)),
            decompressor: Decompressor::new(),
            entries: 0,
            bytes: 0,
            ended: false,
        })
    }

    async fn serve(&mut self, input: &mut Inbox, out: &mut Outbox) -> Result<(), EndError> {
        let mut decoder = Decoder::default();
        loop {
            while let Some((kind, payload)) = decoder.next_frame()? {
                self.take(FromSource::decode(kind, payload)?, out).await?;
            }
            while let Some(event) = self.tasks.try_join_next() {
                self.event(event, out).await?;
            }
            if self.ended && self.wanted.is_empty() && self.writing.is_none() && self.tasks.is_empty() {
                self.finish(out).await?;
                return out.flush().await;
            }
            if !input.try_read(&mut decoder) {
                out.flush().await?;
                tokio::select! {
                    read = input.read(&mut decoder) => read?,
                    Some(event) = self.tasks.join_next() => self.event(event, out).await?,
                }
            }
        }
    }

    async fn take(&mut self, frame: FromSource<'_>, out: &mut Outbox) -> Result<(), EndError> {
        match frame {
            FromSource::Begin(roots) => self.roots = roots,
            FromSource::Entry(entry) => self.entry(entry, out).await?,
            FromSource::Fault { .. } => self.extras.count_source_entry(),
            FromSource::Heartbeat | FromSource::Ping => {}
            FromSource::DirectoryEnd(path) => self.directory_end(path).await?,
            FromSource::End => self.ended = true,
            FromSource::From { id, offset } => self.begin(id, offset).await?,
            FromSource::Data(bytes) => self.write(bytes).await?,
            FromSource::Compressed { length, bytes } => {
                let mut decompressor = std::mem::replace(&mut self.decompressor, Decompressor::new());
                self.write(decompressor.decompress(bytes, length).ok_or(EndError::Gone)?).await?;
                self.decompressor = decompressor;
            }
            FromSource::Hole(mut length) => {
                static ZEROES: [u8; 64 * 1024] = [0; 64 * 1024];
                while length > 0 {
                    let piece = length.min(ZEROES.len() as u64);
                    self.write(&ZEROES[..usize::try_from(piece).unwrap_or(ZEROES.len())]).await?;
                    length -= piece;
                }
            }
            FromSource::FileEnd { id, hash } => self.end(id, hash, out).await?,
            FromSource::FileFault { id, message } => self.fault(id, message, out).await?,
            // Chunks are never requested; the client reports why a source gave up.
            FromSource::Reuse { .. } | FromSource::Cut(_) | FromSource::Fatal(_) => {
                return Err(EndError::Gone);
            }
        }
        if let Some(Writing { id, into: Into::Failed(_), stopped: stopped @ false, .. }) = &mut self.writing {
            *stopped = true;
            let stop = FromDestination::Stop(*id);
            out.put(|buffer| stop.encode(buffer)).await?;
            out.flush().await?;
        }
        Ok(())
    }

    async fn entry(&mut self, entry: Box<Entry>, out: &mut Outbox) -> Result<(), EndError> {
        self.entries += 1;
        if self.entries > self.spec.limits.entries {
            return Err(EndError::Fatal(policy::many_entries(self.spec.limits.entries)));
        }
        if self.wanted.len() + self.tasks.len() > 2 * WINDOW {
            return Err(EndError::Gone);
        }
        if let Err(error) = name::check(&entry.path, self.spec.limits.depth) {
            return settle(out, entry.id, Fate::Refused, error.to_string()).await;
        }
        if self.target.is_none() {
            self.target = Some(target::resolve(self.store, self.spec, self.roots, &entry).await?);
            self.send_target(out).await?;
        }
        let Some(target) = &self.target else { return Ok(()) };
        if entry.path.is_empty() {
            return match target.contents && entry.kind == Kind::Directory {
                true => settle(out, entry.id, self.made(), String::new()).await,
                false => Err(EndError::Gone),
            };
        }
        let (occupied, key) = (target.occupied, target.key(&entry.path));
        let key = match key {
            Ok(key) => key,
            Err(why) => return settle(out, entry.id, Fate::Failed, why).await,
        };
        self.extras.count_source_entry();
        if self.spec.delete.is_requested() {
            let (directory, last) = name::split(&entry.path);
            let is_directory = entry.kind == Kind::Directory;
            self.seen.entry(directory.to_vec()).or_default().insert(last.to_vec(), is_directory);
        }
        if self.busy.contains(&key) {
            return settle(out, entry.id, Fate::Refused, policy::DUPLICATE.to_owned()).await;
        }
        let posix = |kind| Posix { kind, stamp: self.owned(entry.stamp), hash: None, kept: true };
        match &entry.kind {
            Kind::File(size) => {
                let resumes = *size > PART && *size != UNSIZED && self.store.may_resume(&key);
                self.busy.insert(key.clone());
                match occupied || resumes {
                    true => self.look(entry, key, resumes),
                    false => {
                        self.decide(Looked { entry, key, found: Ok(None), record: Ok(None) }, out).await?;
                    }
                }
            }
            Kind::Directory => {
                let posix = posix(Type::Directory);
                self.room(out).await?;
                self.put(entry.id, format!("{key}/"), posix, Bytes::new(), occupied);
            }
            Kind::Symlink(target) => {
                let posix = posix(Type::Symlink);
                self.room(out).await?;
                self.put(entry.id, key, posix, Bytes::copy_from_slice(target), occupied);
            }
            Kind::HardLink(to) => match target.key(to) {
                Ok(to) => self.links.push((entry.id, key, to)),
                Err(why) => return settle(out, entry.id, Fate::Failed, why).await,
            },
            Kind::Fifo | Kind::Device { .. } => {
                let why = "S3 has neither fifos nor devices".to_owned();
                return settle(out, entry.id, Fate::Refused, why).await;
            }
        }
        Ok(())
    }

    fn made(&self) -> Fate {
        if self.spec.dry_run { Fate::Planned } else { Fate::Made }
    }

    fn owned(&self, stamp: Stamp) -> Stamp {
        let special = if self.spec.specials { 0o7777 } else { 0o1777 };
        Stamp {
            user: self.spec.owner.user.unwrap_or(stamp.user),
            group: self.spec.owner.group.unwrap_or(stamp.group),
            mode: stamp.mode & special,
            ..stamp
        }
    }

    async fn send_target(&self, out: &mut Outbox) -> Result<(), EndError> {
        let Some(target) = &self.target else { return Ok(()) };
        let directory = self.store.show(&target.prefix);
        let name = target.rename.as_deref().map(str::as_bytes);
        out.put(|buffer| FromDestination::Target { directory: directory.as_bytes(), name }.encode(buffer))
            .await
    }

    /// Waits if many requests are in flight: directories and links arrive without being requested.
    async fn room(&mut self, out: &mut Outbox) -> Result<(), EndError> {
        while self.tasks.len() >= WINDOW
            && let Some(event) = self.tasks.join_next().await
        {
            self.event(event, out).await?;
        }
        Ok(())
    }

    /// Writes a small object: a directory or a link. An identical one is kept and reported as made, also in a
    /// dry run.
    fn put(&mut self, id: u32, key: String, posix: Posix, content: Bytes, occupied: bool) {
        let (store, requests, dry) = (self.store.clone(), Arc::clone(&self.requests), self.spec.dry_run);
        self.tasks.spawn(async move {
            let _turn = requests.acquire().await;
            let done = match occupied && is_there(&store, &key, &posix, &content).await {
                true => Ok(Fate::Made),
                false if dry => Ok(Fate::Planned),
                false => store.put(&key, &posix, content).await.map(|()| Fate::Made),
            };
            Event::EntryResult(key, settled(id, done.map(|fate| (fate, [0; 32]))))
        });
    }

    async fn event(&mut self, event: Result<Event, JoinError>, out: &mut Outbox) -> Result<(), EndError> {
        match event {
            Ok(Event::Looked(looked)) => self.decide(*looked, out).await,
            Ok(Event::EntryResult(key, settled)) => {
                self.busy.remove(&key);
                if settled.fate == Fate::Failed {
                    self.bad.insert(key);
                }
                out.put(|buffer| FromDestination::EntryResult(settled).encode(buffer)).await
            }
            Err(error) => Err(EndError::Fatal(error.to_string())),
        }
    }

    async fn failed(&mut self, key: &str, id: u32, why: String, out: &mut Outbox) -> Result<(), EndError> {
        self.busy.remove(key);
        self.bad.insert(key.to_owned());
        settle(out, id, Fate::Failed, why).await
    }

    /// Creates the deferred hard links.
    async fn finish(&mut self, out: &mut Outbox) -> Result<(), EndError> {
        let kept_for = self.remove_extras(out).await?;
        for (id, key, to) in std::mem::take(&mut self.links) {
            let done = match () {
                () if self.bad.contains(&to) => {
                    Err(RequestError::new("copying it", "the file that it links to was not copied"))
                }
                () if self.spec.dry_run => Ok(()),
                () => self.store.copy(&to, &key).await,
            };
            let fate = self.made();
            let settled = settled(id, done.map(|()| (fate, [0; 32])));
            out.put(|buffer| FromDestination::EntryResult(settled).encode(buffer)).await?;
        }
        out.put(|buffer| match kept_for {
            Some(why) => FromDestination::Fatal(why).encode(buffer),
            None => FromDestination::Finished.encode(buffer),
        })
        .await
    }
}

/// Whether a directory or link already exists as it should be.
async fn is_there(store: &Store, key: &str, posix: &Posix, content: &Bytes) -> bool {
    let size = content.len() as u64;
    let found = store.head(key).await.ok().flatten();
    found.is_some_and(|Found { size: own, etag: _, posix: has }| own == size && has == *posix)
        && (size == 0 || store.read_small(key, size).await.is_ok_and(|target| target == *content))
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

fn settled(id: u32, done: Result<(Fate, [u8; 32]), RequestError>) -> EntryResult {
    match done {
        Ok((fate, hash)) => EntryResult { id, fate, hash, note: String::new() },
        Err(error) => EntryResult { id, fate: Fate::Failed, hash: [0; 32], note: error.message },
    }
}

async fn settle(out: &mut Outbox, id: u32, fate: Fate, note: String) -> Result<(), EndError> {
    let settled = EntryResult { id, fate, hash: [0; 32], note };
    out.put(|buffer| FromDestination::EntryResult(settled).encode(buffer)).await
}
