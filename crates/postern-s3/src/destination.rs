//! The end that gets the files: objects below a prefix.

use crate::error::{Kind as Because, Trouble};
use crate::journal::Record;
use crate::link::{Ended, Inbox, Outbox};
use crate::listing::Found;
use crate::place::{self, Placed, place};
use crate::posix::{Posix, Type};
use crate::store::Store;
use crate::upload::{Multipart, PART, prefix};
use bytes::Bytes;
use postern_files::pack::Unpacker;
use postern_files::{name, pattern};
use postern_wire::Decoder;
use postern_wire::copy::{
    Compare, Entry, Fate, FromDestination, FromSource, Kind, ReceiveSpec, Settled, Stamp, UNSIZED, WINDOW, Want,
};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};

/// Content that is held at a time, in bytes: a part that fills, and others on their way.
const HELD: u64 = 4 * PART;

/// What the permits for content count in.
const UNIT: u64 = 64 * 1024;

/// Requests about small things at a time.
const AT_A_TIME: usize = 16;

/// A file whose content was asked for.
struct Wanted {
    entry: Box<Entry>,
    key: String,
    posix: Posix,
    have: u64,
    /// What there is of it is the object itself.
    whole: bool,
    record: Option<Record>,
}

/// A file whose content is coming.
struct Writing {
    id: u32,
    key: String,
    into: Into,
}

enum Into {
    /// It is there already.
    Same,
    Failed(String),
    Open(Box<Open>),
}

struct Open {
    posix: Posix,
    size: u64,
    came: u64,
    buffer: Vec<u8>,
    /// What the buffer may hold.
    most: u64,
    permit: OwnedSemaphorePermit,
    parts: Option<Multipart>,
}

/// What a task came to.
enum Event {
    Looked(Box<Looked>),
    Settled(String, Settled),
}

struct Looked {
    entry: Box<Entry>,
    key: String,
    found: Result<Option<Found>, Trouble>,
    record: Result<Option<Record>, String>,
}

struct Destination<'a> {
    store: &'a Store,
    spec: &'a ReceiveSpec,
    rules: pattern::Rules,
    tops: u32,
    placed: Option<Placed>,
    wanted: VecDeque<Wanted>,
    writing: Option<Writing>,
    tasks: JoinSet<Event>,
    /// Keys that are asked for and not in place yet.
    busy: HashSet<String>,
    /// Keys of files that were not written: no other name of them is made.
    bad: HashSet<String>,
    /// Other names of files, which wait for the end: by number, key, and the key of the file.
    links: Vec<(u32, String, String)>,
    /// What each directory has, for `--delete`.
    seen: HashMap<Vec<u8>, HashSet<Vec<u8>>>,
    held: Arc<Semaphore>,
    requests: Arc<Semaphore>,
    unpacker: Unpacker,
    entries: u64,
    bytes: u64,
    ended: bool,
}

/// Serves one copy to its end.
pub(crate) async fn receive(
    store: &Store,
    spec: &ReceiveSpec,
    mut input: Inbox,
    out: &mut Outbox,
) -> Result<(), Ended> {
    let mut destination = Destination::new(store, spec)?;
    let served = destination.serve(&mut input, out).await;
    if served.is_err()
        && let Some(Writing { into: Into::Open(open), .. }) = destination.writing.take()
        && let Some(parts) = open.parts
    {
        parts.keep().await;
    }
    served
}

impl<'a> Destination<'a> {
    fn new(store: &'a Store, spec: &'a ReceiveSpec) -> Result<Self, Ended> {
        Ok(Self {
            store,
            spec,
            rules: postern_files::rules(&spec.rules).map_err(Ended::Fatal)?,
            tops: 0,
            placed: None,
            wanted: VecDeque::new(),
            writing: None,
            tasks: JoinSet::new(),
            busy: HashSet::new(),
            bad: HashSet::new(),
            links: Vec::new(),
            seen: HashMap::new(),
            held: Arc::new(Semaphore::new(units(HELD) as usize)),
            requests: Arc::new(Semaphore::new(AT_A_TIME)),
            unpacker: Unpacker::new(),
            entries: 0,
            bytes: 0,
            ended: false,
        })
    }

    async fn serve(&mut self, input: &mut Inbox, out: &mut Outbox) -> Result<(), Ended> {
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

    async fn take(&mut self, frame: FromSource<'_>, out: &mut Outbox) -> Result<(), Ended> {
        match frame {
            FromSource::Begin(tops) => self.tops = tops,
            FromSource::Entry(entry) => self.entry(entry, out).await?,
            FromSource::Fault { .. } | FromSource::Heartbeat => {}
            FromSource::DirectoryEnd(path) => self.directory_end(path, out).await?,
            FromSource::End => self.ended = true,
            FromSource::From { id, offset } => self.begin(id, offset).await?,
            FromSource::Data(bytes) => self.write(bytes).await?,
            FromSource::Packed { length, bytes } => {
                let mut unpacker = std::mem::replace(&mut self.unpacker, Unpacker::new());
                self.write(unpacker.unpack(bytes, length).ok_or(Ended::Gone)?).await?;
                self.unpacker = unpacker;
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
            // Nobody asks for chunks; and why a source gave up is told by the client.
            FromSource::Reuse { .. } | FromSource::Fatal(_) => return Err(Ended::Gone),
        }
        Ok(())
    }

    async fn entry(&mut self, entry: Box<Entry>, out: &mut Outbox) -> Result<(), Ended> {
        self.entries += 1;
        if self.entries > self.spec.limits.entries {
            let limit = self.spec.limits.entries;
            return Err(Ended::Fatal(format!("more than {limit} entries came; raise the limit with --max-entries")));
        }
        if self.wanted.len() + self.tasks.len() > 2 * WINDOW {
            return Err(Ended::Gone);
        }
        if let Err(why) = place::fits(&entry.path, self.spec.limits.depth) {
            return settle(out, entry.id, Fate::Refused, why).await;
        }
        if self.placed.is_none() {
            self.placed = Some(place(self.store, self.spec, self.tops, &entry).await?);
            self.say_where(out).await?;
        }
        let Some(placed) = &self.placed else { return Ok(()) };
        if entry.path.is_empty() {
            return match placed.contents && entry.kind == Kind::Directory {
                true => settle(out, entry.id, self.made(), String::new()).await,
                false => Err(Ended::Gone),
            };
        }
        let (occupied, key) = (placed.occupied, placed.key(&entry.path));
        let key = match key {
            Ok(key) => key,
            Err(why) => return settle(out, entry.id, Fate::Failed, why).await,
        };
        if self.spec.delete {
            let (directory, last) = name::split(&entry.path);
            self.seen.entry(directory.to_vec()).or_default().insert(last.to_vec());
        }
        if self.busy.contains(&key) {
            return settle(out, entry.id, Fate::Refused, "it came twice".to_owned()).await;
        }
        let posix = |kind| Posix { kind, stamp: self.owned(entry.stamp), hash: None, kept: true };
        match &entry.kind {
            Kind::File(size) => {
                let resumes = *size > PART && *size != UNSIZED && self.store.may_resume(&key);
                self.busy.insert(key.clone());
                match occupied || resumes {
                    true => self.look(entry, key, resumes),
                    false => self.decide(Looked { entry, key, found: Ok(None), record: Ok(None) }, out).await?,
                }
            }
            Kind::Directory => {
                let posix = posix(Type::Directory);
                self.put(entry.id, format!("{key}/"), posix, Bytes::new(), occupied);
            }
            Kind::Symlink(target) => {
                let posix = posix(Type::Symlink);
                self.put(entry.id, key, posix, Bytes::copy_from_slice(target), occupied);
            }
            Kind::HardLink(to) => match placed.key(to) {
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

    async fn say_where(&self, out: &mut Outbox) -> Result<(), Ended> {
        let Some(placed) = &self.placed else { return Ok(()) };
        let directory = self.store.show(&placed.prefix);
        let name = placed.rename.as_deref().map(str::as_bytes);
        out.put(|buffer| FromDestination::Placed { directory: directory.as_bytes(), name }.encode(buffer)).await
    }

    /// Writes a small object of ours: a directory, or a link. One that is there as it should be is left.
    fn put(&mut self, id: u32, key: String, posix: Posix, content: Bytes, occupied: bool) {
        let (store, requests, fate) = (self.store.clone(), Arc::clone(&self.requests), self.made());
        let dry = self.spec.dry_run;
        self.tasks.spawn(async move {
            let _turn = requests.acquire().await;
            let same = |found: Found| {
                found.size == content.len() as u64 && found.posix == posix && posix.kind == Type::Directory
            };
            let there = occupied && !dry && store.head(&key).await.ok().flatten().is_some_and(same);
            let done = match dry || there {
                true => Ok(()),
                false => store.put(&key, &posix, content).await,
            };
            Event::Settled(key, settled(id, done.map(|()| (fate, [0; 32]))))
        });
    }

    /// Looks at what is there, before it is decided what is wanted.
    fn look(&mut self, entry: Box<Entry>, key: String, resumes: bool) {
        let (store, requests) = (self.store.clone(), Arc::clone(&self.requests));
        let Kind::File(size) = entry.kind else { return };
        let stamp = entry.stamp;
        self.tasks.spawn(async move {
            let _turn = requests.acquire().await;
            let found = match store.head(&key).await {
                // Who may only write is told this of what is not there.
                Err(Trouble { kind: Because::Denied, .. }) => Ok(None),
                other => other,
            };
            let record = if resumes { store.unfinished(&key, size, stamp).await } else { Ok(None) };
            Event::Looked(Box::new(Looked { entry, key, found, record }))
        });
    }

    async fn event(&mut self, event: Result<Event, JoinError>, out: &mut Outbox) -> Result<(), Ended> {
        match event {
            Ok(Event::Looked(looked)) => self.decide(*looked, out).await,
            Ok(Event::Settled(key, settled)) => {
                self.busy.remove(&key);
                if settled.fate == Fate::Failed {
                    self.bad.insert(key);
                }
                out.put(|buffer| FromDestination::Settled(settled).encode(buffer)).await
            }
            Err(error) => Err(Ended::Fatal(error.to_string())),
        }
    }

    /// A file: what is there, and what is wanted of it.
    async fn decide(&mut self, looked: Looked, out: &mut Outbox) -> Result<(), Ended> {
        let Looked { entry, key, found, record } = looked;
        let Kind::File(size) = entry.kind else { return Ok(()) };
        let mut want = Want { id: entry.id, have: 0, hash: [0; 32], partial: false, chunks: false };
        let (found, record) = match (found, record) {
            (Ok(found), Ok(record)) => (found, record),
            (Err(Trouble { message, .. }), _) | (_, Err(message)) => return self.failed(&key, entry.id, message, out).await,
        };
        let mut posix = Posix { kind: Type::File, stamp: self.owned(entry.stamp), hash: None, kept: true };
        let mut whole = false;
        if let Some(there) = found.filter(|there| there.posix.kind == Type::File) {
            let own = there.posix.stamp;
            let equal = there.size == size && (own.seconds, own.nanos) == (entry.stamp.seconds, entry.stamp.nanos);
            // A large object has no hash of ours: it was not known when its upload began.
            let unknown = there.posix.hash.is_none() && self.spec.compare == Compare::Verify;
            let newer = (own.seconds, own.nanos) > (entry.stamp.seconds, entry.stamp.nanos);
            let left = match () {
                () if equal && (entry.settled || size == 0) => Some(Fate::Same),
                () if equal && (self.spec.compare == Compare::Times || unknown) => Some(Fate::Unchanged),
                () if self.spec.update && newer => Some(Fate::Skipped),
                () => None,
            };
            if let Some(fate) = left {
                self.busy.remove(&key);
                let note = if fate == Fate::Skipped { "it is newer here" } else { "" };
                return settle(out, entry.id, fate, note.to_owned()).await;
            }
            if there.size == size
                && (equal || self.spec.compare == Compare::Hash)
                && let Some(hash) = there.posix.hash
            {
                (want.have, want.hash, whole) = (size, hash, true);
            }
            if there.posix.kept && !self.spec.preserve {
                let Stamp { mode, user, group, .. } = own;
                let owner = self.spec.owner;
                posix.stamp.mode = mode;
                posix.stamp.user = owner.user.unwrap_or(user);
                posix.stamp.group = owner.group.unwrap_or(group);
            }
        }
        if self.spec.dry_run {
            self.busy.remove(&key);
            return settle(out, entry.id, Fate::Planned, String::new()).await;
        }
        if !whole && let Some((have, hash)) = record.as_ref().and_then(prefix) {
            (want.have, want.hash, want.partial) = (have, hash, true);
        }
        out.put(|buffer| FromDestination::Want(want).encode(buffer)).await?;
        self.wanted.push_back(Wanted { entry, key, posix, have: want.have, whole, record });
        Ok(())
    }

    async fn failed(&mut self, key: &str, id: u32, why: String, out: &mut Outbox) -> Result<(), Ended> {
        self.busy.remove(key);
        self.bad.insert(key.to_owned());
        settle(out, id, Fate::Failed, why).await
    }

    /// Content of what was asked for first begins to come.
    async fn begin(&mut self, id: u32, offset: u64) -> Result<(), Ended> {
        let wanted = self.wanted.pop_front().filter(|wanted| wanted.entry.id == id && self.writing.is_none());
        let Some(Wanted { entry, key, posix, have, whole, record }) = wanted else { return Err(Ended::Gone) };
        let Kind::File(size) = entry.kind else { return Err(Ended::Gone) };
        if offset != 0 && offset != have {
            return Err(Ended::Gone);
        }
        if offset > 0 && whole {
            self.writing = Some(Writing { id, key, into: Into::Same });
            return Ok(());
        }
        let parts = match record {
            Some(record) if offset > 0 => Ok(Some(Multipart::resume(self.store, record))),
            other => {
                if let Some(record) = other {
                    Multipart::resume(self.store, record).abort().await;
                }
                match size > PART && size != UNSIZED {
                    true => Multipart::begin(self.store, &key, size, &posix).await.map(Some),
                    false => Ok(None),
                }
            }
        };
        let into = match parts {
            Err(trouble) => Into::Failed(trouble.message),
            Ok(parts) => {
                let most = parts.as_ref().map_or(size.min(PART), Multipart::next_part);
                let permit = self.permit(most).await?;
                let buffer = Vec::with_capacity(usize::try_from(most.min(size - offset)).unwrap_or(0));
                Into::Open(Box::new(Open { posix, size, came: offset, buffer, most, permit, parts }))
            }
        };
        self.writing = Some(Writing { id, key, into });
        Ok(())
    }

    async fn permit(&self, bytes: u64) -> Result<OwnedSemaphorePermit, Ended> {
        let wanted = units(bytes.min(HELD)).max(1);
        Arc::clone(&self.held).acquire_many_owned(wanted).await.map_err(|_| Ended::Gone)
    }

    async fn write(&mut self, mut bytes: &[u8]) -> Result<(), Ended> {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if self.bytes > self.spec.limits.bytes {
            let limit = self.spec.limits.bytes;
            return Err(Ended::Fatal(format!("more than {limit} bytes came; raise the limit with --max-bytes")));
        }
        let Some(mut writing) = self.writing.take() else { return Err(Ended::Gone) };
        if let Into::Open(open) = &mut writing.into {
            open.came += bytes.len() as u64;
            if open.size != UNSIZED && open.came > open.size {
                return Err(Ended::Gone);
            }
            let mut why = None;
            while !bytes.is_empty() {
                let room = usize::try_from(open.most).unwrap_or(usize::MAX) - open.buffer.len();
                if room == 0 {
                    match self.hand_on(open, &writing.key).await? {
                        Ok(()) => continue,
                        Err(trouble) => {
                            why = Some(trouble.message);
                            break;
                        }
                    }
                }
                let (now, later) = bytes.split_at(room.min(bytes.len()));
                open.buffer.extend_from_slice(now);
                bytes = later;
            }
            if let Some(why) = why {
                let failed = Into::Failed(why);
                if let Into::Open(open) = std::mem::replace(&mut writing.into, failed)
                    && let Some(parts) = open.parts
                {
                    parts.keep().await;
                }
            }
        }
        self.writing = Some(writing);
        Ok(())
    }

    /// Sends the part that is full, and makes room for the next.
    async fn hand_on(&self, open: &mut Open, key: &str) -> Result<Result<(), Trouble>, Ended> {
        let mut parts = match open.parts.take() {
            Some(parts) => parts,
            // A stream that turned out long.
            None => match Multipart::begin(self.store, key, open.size, &open.posix).await {
                Ok(parts) => parts,
                Err(trouble) => return Ok(Err(trouble)),
            },
        };
        let content = Bytes::from(std::mem::take(&mut open.buffer));
        // The old permit goes with the part: the next is waited for while that is on its way.
        let none = Arc::clone(&self.held).acquire_many_owned(0).await.map_err(|_| Ended::Gone)?;
        let sent = parts.push(content, std::mem::replace(&mut open.permit, none)).await;
        open.most = parts.next_part();
        open.parts = Some(parts);
        if sent.is_ok() {
            open.permit = self.permit(open.most).await?;
            let left = if open.size == UNSIZED { open.most } else { open.size.saturating_sub(open.came) };
            open.buffer = Vec::with_capacity(usize::try_from(open.most.min(left)).unwrap_or(0));
        }
        Ok(sent)
    }

    /// The source has sent all of a file.
    async fn end(&mut self, id: u32, hash: [u8; 32], out: &mut Outbox) -> Result<(), Ended> {
        let writing = self.writing.take().filter(|writing| writing.id == id).ok_or(Ended::Gone)?;
        let Writing { id, key, into } = writing;
        match into {
            Into::Failed(why) => self.failed(&key, id, why, out).await,
            // The source compared the hashes.
            Into::Same => {
                self.busy.remove(&key);
                let done = Settled { id, fate: Fate::Same, hash, note: String::new() };
                out.put(|buffer| FromDestination::Settled(done).encode(buffer)).await
            }
            Into::Open(open) => {
                let Open { mut posix, size, came, buffer, most: _, permit, parts } = *open;
                let store = self.store.clone();
                let short = size != UNSIZED && came != size;
                match parts {
                    None if short || *blake3::hash(&buffer).as_bytes() != hash => {
                        self.failed(&key, id, DIFFERS.to_owned(), out).await
                    }
                    None => {
                        posix.hash = Some(hash);
                        let requests = Arc::clone(&self.requests);
                        self.tasks.spawn(async move {
                            let _turn = requests.acquire().await;
                            let done = store.put(&key, &posix, Bytes::from(buffer)).await;
                            drop(permit);
                            Event::Settled(key, settled(id, done.map(|()| (Fate::Written, hash))))
                        });
                        Ok(())
                    }
                    Some(mut parts) => {
                        let last = match buffer.is_empty() {
                            true => Ok(()),
                            false => parts.push(Bytes::from(buffer), permit).await,
                        };
                        if short || parts.hash() != Some(hash) {
                            parts.abort().await;
                            return self.failed(&key, id, DIFFERS.to_owned(), out).await;
                        }
                        self.tasks.spawn(async move {
                            let done = match last {
                                Ok(()) => parts.finish().await,
                                Err(trouble) => {
                                    parts.keep().await;
                                    Err(trouble)
                                }
                            };
                            Event::Settled(key, settled(id, done.map(|()| (Fate::Written, hash))))
                        });
                        Ok(())
                    }
                }
            }
        }
    }

    /// The source cannot send a file, or no more of it.
    async fn fault(&mut self, id: u32, message: String, out: &mut Outbox) -> Result<(), Ended> {
        let key = match self.writing.take() {
            Some(Writing { id: of, key, into }) if of == id => {
                if let Into::Open(open) = into
                    && let Some(parts) = open.parts
                {
                    parts.abort().await;
                }
                key
            }
            Some(_) => return Err(Ended::Gone),
            None => match self.wanted.pop_front() {
                Some(wanted) if wanted.entry.id == id => wanted.key,
                _ => return Err(Ended::Gone),
            },
        };
        self.failed(&key, id, message, out).await
    }

    /// All that a directory has was told of: what the bucket has besides is removed, where that was asked for.
    async fn directory_end(&mut self, path: &[u8], out: &mut Outbox) -> Result<(), Ended> {
        place::fits(path, self.spec.limits.depth).map_err(|_| Ended::Gone)?;
        let Some(placed) = self.placed.as_ref().filter(|placed| self.spec.delete && placed.occupied) else {
            return Ok(());
        };
        let below = match path {
            b"" => placed.prefix.clone(),
            path => match placed.key(path) {
                Ok(key) => format!("{key}/"),
                Err(_) => return Ok(()),
            },
        };
        let (inner, seen) = (place::inner(path, placed.contents).to_vec(), self.seen.remove(path).unwrap_or_default());
        let mut next = None;
        loop {
            let page = self.store.page(&below, true, next, None).await?;
            let files = page.objects.into_iter().map(|object| object.key);
            for key in files.chain(page.prefixes) {
                let name = key.strip_prefix(&below).unwrap_or_default();
                let (name, directory) = name.strip_suffix('/').map_or((name, false), |name| (name, true));
                let kept = name.is_empty()
                    || seen.contains(name.as_bytes())
                    || self.rules.excludes(&name::join(&inner, name.as_bytes()), directory);
                if !kept {
                    self.remove(&key, &name::join(path, name.as_bytes()), directory, out).await?;
                }
            }
            next = page.next;
            if next.is_none() {
                return Ok(());
            }
        }
    }

    /// Removes an object, or all below a prefix.
    async fn remove(&self, key: &str, path: &[u8], directory: bool, out: &mut Outbox) -> Result<(), Ended> {
        let removed = async {
            if self.spec.dry_run {
                return Ok(());
            }
            if !directory {
                return self.store.delete(key).await;
            }
            loop {
                // From the beginning each time: what was listed is gone then.
                let page = self.store.page(key, false, None, None).await?;
                for object in &page.objects {
                    self.store.delete(&object.key).await?;
                }
                if page.next.is_none() {
                    return Ok(());
                }
            }
        };
        match removed.await {
            Ok(()) => out.put(|buffer| FromDestination::Deleted(path).encode(buffer)).await,
            Err(Trouble { message, .. }) => {
                out.put(|buffer| FromDestination::NotDeleted { path, message }.encode(buffer)).await
            }
        }
    }

    /// What waits for the end: other names of files.
    async fn finish(&mut self, out: &mut Outbox) -> Result<(), Ended> {
        for (id, key, to) in std::mem::take(&mut self.links) {
            let done = match () {
                () if self.bad.contains(&to) => {
                    Err(Trouble::new("copying it", "the file that it is another name of was not copied"))
                }
                () if self.spec.dry_run => Ok(()),
                () => self.store.copy(&to, &key).await,
            };
            let fate = self.made();
            let settled = settled(id, done.map(|()| (fate, [0; 32])));
            out.put(|buffer| FromDestination::Settled(settled).encode(buffer)).await?;
        }
        out.put(|buffer| FromDestination::Finished.encode(buffer)).await
    }
}

const DIFFERS: &str = "what arrived is not what was sent: its hash differs";

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

fn settled(id: u32, done: Result<(Fate, [u8; 32]), Trouble>) -> Settled {
    match done {
        Ok((fate, hash)) => Settled { id, fate, hash, note: String::new() },
        Err(trouble) => Settled { id, fate: Fate::Failed, hash: [0; 32], note: trouble.message },
    }
}

async fn settle(out: &mut Outbox, id: u32, fate: Fate, note: String) -> Result<(), Ended> {
    let settled = Settled { id, fate, hash: [0; 32], note };
    out.put(|buffer| FromDestination::Settled(settled).encode(buffer)).await
}
