//! The end that gets the files: decides what it wants, writes beneath its root, and answers every entry.

mod clean;
mod commit;
mod content;
mod decide;
mod delete;
mod foreign;
mod later;
mod nameless;
mod partial;
mod place;
mod tell;
mod trouble;
mod writing;

use crate::link::{Arrived, Incoming, LinkError, Outbox};
use crate::pack::Unpacker;
use crate::share::Share;
use crate::verdict::Surplus;
use crate::{name, pattern, verdict};
use commit::{Batch, Committer};
use delete::{Extras, Seen};
use later::Later;
use nameless::Nameless;
use place::Placed;
use postern_wire::Decoder;
use postern_wire::copy::{Entry, EntryResult, Fate, FromDestination, FromSource, Kind, ReceiveSpec, WINDOW};
use rustix::fs::Stat;
use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::time::Duration;
use tell::{Ahead, Deferred};
use trouble::Trouble;
use writing::Writing;

/// How long an input that has fallen quiet is waited for before finished files are put into place.
const LULL: Duration = Duration::from_millis(20);

/// An entry whose content was asked for.
#[derive(Debug)]
struct Wanted {
    entry: Box<Entry>,
    /// Below the root, by the name it gets.
    path: Vec<u8>,
    /// Bytes of all of its content.
    size: u64,
    /// Bytes that the wanted content may begin after.
    have: u64,
    /// Those are the file's own, under its own name.
    whole: bool,
    partial: Option<Box<partial::Partial>>,
    /// What begins as a copy of the file that it replaces.
    ahead: Option<Ahead>,
    /// Bytes of what was told of that file.
    told: usize,
    /// Its chunks may still be asked for.
    uncut: bool,
    /// The file that it replaces.
    replaces: Option<Box<Stat>>,
}

/// Why something of another kind is not put there.
const DIRECTORY: &str = "a directory has its place";

struct Destination<'a> {
    spec: &'a ReceiveSpec,
    out: &'a Outbox,
    rules: pattern::Rules,
    tops: u32,
    placed: Option<Placed>,
    nameless: Nameless,
    /// What was asked for, in the order in which it comes.
    wanted: VecDeque<Wanted>,
    /// What waits as so much was told already.
    deferred: VecDeque<Deferred>,
    /// Bytes of what was told and is not answered.
    told: usize,
    writing: Option<Writing>,
    /// What was replaced last, open until the end: the system frees a large file when it is closed, and that takes time.
    replaced: Option<File>,
    batch: Batch,
    committer: Option<Committer>,
    later: Later,
    seen: Seen,
    extras: Extras,
    /// Paths that are asked for and not in place yet: one that comes twice would be written by two.
    busy: HashSet<Vec<u8>>,
    /// Files that were not written, though asked for: no other name of them is made.
    bad: HashSet<Vec<u8>>,
    /// The directory that was last found to take new files.
    writable: Option<Vec<u8>>,
    unpacker: Unpacker,
    entries: u64,
    /// What the source has and cannot send.
    faults: u64,
    bytes: u64,
    ended: bool,
}

/// Serves one copy to its end.
pub fn receive(
    spec: &ReceiveSpec,
    input: &mut impl Incoming,
    mut decoder: Decoder,
    out: &Outbox,
    patience: Option<Duration>,
) -> Result<(), LinkError> {
    if let Some(root) = &spec.root {
        trouble::elsewhere(root);
        foreign::begin();
    }
    if spec.clean {
        return clean::clean(spec, out);
    }
    let mut destination = match Destination::new(spec, out) {
        Ok(destination) => destination,
        Err(message) => return fatal(out, message),
    };
    loop {
        loop {
            let taken = match decoder.next_frame() {
                Ok(None) => break,
                Ok(Some((kind, payload))) => FromSource::decode(kind, payload)
                    .map_err(|error| Trouble::Link(error.into()))
                    .and_then(|frame| destination.take(frame)),
                Err(error) => Err(Trouble::Link(error.into())),
            };
            match taken {
                Ok(()) => {}
                Err(Trouble::Link(error)) => return Err(destination.lost(error)),
                Err(Trouble::Fatal(message)) => {
                    destination.abandon();
                    return fatal(out, message);
                }
            }
        }
        if destination.over() {
            destination.finish()?;
            return out.flush();
        }
        if let Err(error) = destination.listen(input, &mut decoder, patience) {
            return Err(destination.lost(error));
        }
    }
}

fn fatal(out: &Outbox, message: String) -> Result<(), LinkError> {
    out.put(|buffer| FromDestination::Fatal(message).encode(buffer))?;
    out.flush()
}

impl<'a> Destination<'a> {
    fn new(spec: &'a ReceiveSpec, out: &'a Outbox) -> Result<Self, String> {
        Ok(Self {
            spec,
            out,
            rules: crate::rules(&spec.rules)?,
            tops: 0,
            placed: None,
            nameless: Nameless::default(),
            wanted: VecDeque::new(),
            deferred: VecDeque::new(),
            told: 0,
            writing: None,
            replaced: None,
            batch: Batch::new(Share::new()),
            committer: None,
            later: Later::default(),
            seen: Seen::default(),
            extras: Extras::default(),
            faults: 0,
            busy: HashSet::new(),
            bad: HashSet::new(),
            writable: None,
            unpacker: Unpacker::new(),
            entries: 0,
            bytes: 0,
            ended: false,
        })
    }

    /// Waits for what comes next; what is finished is put into place, and what is to say is said, when nothing does.
    fn listen(
        &mut self,
        input: &mut impl Incoming,
        decoder: &mut Decoder,
        patience: Option<Duration>,
    ) -> Result<(), LinkError> {
        let broken = |error: std::io::Error| LinkError::Lost(error.to_string());
        self.reap();
        let mut arrived = input.read(decoder, Some(Duration::ZERO)).map_err(broken)?;
        if arrived == Arrived::Quiet {
            self.out.flush()?;
            if !self.batch.is_empty() {
                arrived = input.read(decoder, Some(LULL)).map_err(broken)?;
                if arrived == Arrived::Quiet {
                    self.commit()?;
                    self.out.flush()?;
                }
            }
        }
        if arrived == Arrived::Quiet {
            arrived = input.read(decoder, patience).map_err(broken)?;
        }
        match arrived {
            Arrived::Bytes => Ok(()),
            Arrived::Quiet => Err(LinkError::Lost("it is silent".to_owned())),
            Arrived::Ended => Err(LinkError::Lost("its stream ended".to_owned())),
        }
    }

    fn take(&mut self, frame: FromSource<'_>) -> Result<(), Trouble> {
        match frame {
            FromSource::Begin(tops) => self.tops = tops,
            FromSource::Entry(entry) => self.entry(entry)?,
            FromSource::Fault { .. } => self.faults += 1,
            FromSource::Heartbeat => {}
            FromSource::Ping => {
                self.out.put(|buffer| FromDestination::Pong.encode(buffer))?;
                self.out.flush()?;
            }
            FromSource::DirectoryEnd(path) => self.directory_end(path)?,
            FromSource::End => self.ended = true,
            FromSource::From { id, offset } => self.begin(id, offset)?,
            FromSource::Cut(id) => self.cut(id)?,
            FromSource::Data(bytes) => self.write(bytes)?,
            FromSource::Compressed { length, bytes } => {
                let mut unpacker = std::mem::replace(&mut self.unpacker, Unpacker::new());
                let Some(bytes) = unpacker.unpack(bytes, length) else {
                    return Err(LinkError::Protocol("a block that cannot be unpacked").into());
                };
                self.write(bytes)?;
                self.unpacker = unpacker;
            }
            FromSource::Hole(length) => {
                self.count(length)?;
                self.writing()?.hole(length);
            }
            FromSource::Reuse { offset, length } => {
                self.count(length)?;
                self.writing()?.reuse(offset, length);
            }
            FromSource::FileEnd { id, hash } => self.end(id, hash)?,
            FromSource::FileFault { id, message } => self.fault(id, message)?,
            FromSource::Fatal(message) => return Err(LinkError::Lost(message).into()),
        }
        if let Some(id) = self.writing.as_mut().and_then(Writing::stops) {
            self.out.put(|buffer| FromDestination::Stop(id).encode(buffer))?;
            self.out.flush()?;
        }
        self.take_up()
    }

    /// Content counts against the limit before it is written.
    fn count(&mut self, length: u64) -> Result<(), Trouble> {
        self.bytes = self.bytes.saturating_add(length);
        if self.bytes > self.spec.limits.bytes {
            return Err(Trouble::Fatal(verdict::many_bytes(self.spec.limits.bytes)));
        }
        Ok(())
    }

    fn writing(&mut self) -> Result<&mut Writing, Trouble> {
        self.writing.as_mut().ok_or_else(|| LinkError::Protocol("content that nobody asked for").into())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.count(bytes.len() as u64)?;
        self.writing()?.data(bytes);
        Ok(())
    }

    fn entry(&mut self, entry: Box<Entry>) -> Result<(), Trouble> {
        self.entries += 1;
        if self.entries > self.spec.limits.entries {
            return Err(Trouble::Fatal(verdict::many_entries(self.spec.limits.entries)));
        }
        if self.wanted.len() + self.deferred.len() > WINDOW {
            return Err(LinkError::Protocol("more entries than it may leave unanswered").into());
        }
        if let Err(error) = name::check(&entry.path, self.spec.limits.depth) {
            return self.settle(entry.id, Fate::Refused, error.to_string());
        }
        if self.placed.is_none() {
            self.placed = Some(place::place(self.spec, self.tops, &entry)?);
            self.say_where()?;
        }
        let Some(placed) = &self.placed else { return Ok(()) };
        if entry.path.is_empty() && !(placed.contents && entry.kind == Kind::Directory) {
            return Err(LinkError::Protocol("something without a name").into());
        }
        let path = placed.path(&entry.path);
        if self.busy.contains(&path) {
            return self.settle(entry.id, Fate::Refused, verdict::TWICE.to_owned());
        }
        if self.spec.delete.is_asked() {
            self.seen.add(&entry.path);
        }
        if self.spec.delete.counts() && !entry.path.is_empty() && matches!(self.look(&path), Ok(Some(_))) {
            self.extras.there += 1;
        }
        match &entry.kind {
            Kind::File(_) => {
                self.bad.insert(path.clone()); // until it is written
                self.decide(entry, path)
            }
            Kind::Directory => self.directory(&entry, path),
            Kind::Symlink(_) | Kind::HardLink(_) | Kind::Fifo | Kind::Device { .. } => {
                self.postpone(entry, path)
            }
        }
    }

    fn say_where(&self) -> Result<(), Trouble> {
        if let Some(placed) = &self.placed {
            let (directory, name) = (placed.shown.as_slice(), placed.rename.as_deref());
            self.out.put(|buffer| FromDestination::Target { directory, name }.encode(buffer))?;
        }
        Ok(())
    }

    fn settle(&mut self, id: u32, fate: Fate, note: String) -> Result<(), Trouble> {
        self.answer(EntryResult { id, fate, hash: [0; 32], note })
    }

    fn answer(&mut self, settled: EntryResult) -> Result<(), Trouble> {
        Ok(self.out.put(|buffer| FromDestination::EntryResult(settled).encode(buffer))?)
    }

    fn directory_end(&mut self, path: &[u8]) -> Result<(), Trouble> {
        if name::check(path, self.spec.limits.depth).is_err() {
            return Err(LinkError::Protocol("the end of a directory that is none below").into());
        }
        let (Some(placed), true) = (&mut self.placed, self.spec.delete.is_asked()) else { return Ok(()) };
        if placed.missing {
            return Ok(()); // only planned: what stands for it is another's
        }
        let inner = name::inner(path, placed.contents).to_vec();
        let below = placed.path(path);
        let rules = &self.rules;
        let kept = |path: &[u8], directory: bool| rules.excludes(path, directory);
        self.seen.extra(path, &mut placed.root, (&below, &inner), &kept, &mut self.extras);
        Ok(())
    }

    /// Removes what the source does not have; why none of it, if it is too much. A dry run says what would go in any case.
    fn remove_extras(&mut self) -> Result<Option<String>, LinkError> {
        let Extras { paths, going, gone, there } = std::mem::take(&mut self.extras);
        let root = u64::from(self.placed.as_ref().is_some_and(|placed| placed.contents));
        let source = self.entries.saturating_sub(root) + self.faults;
        let surplus = Surplus { extra: going, gone, there, source };
        let kept_for = verdict::keeps_surplus(self.spec.delete, surplus);
        let dry_run = self.spec.dry_run;
        let Some(placed) = self.placed.as_mut().filter(|_| kept_for.is_none() || dry_run) else {
            return Ok(kept_for);
        };
        let rules = &self.rules;
        let kept = |path: &[u8], directory: bool| rules.excludes(path, directory);
        for (path, inner) in paths {
            let removed = match dry_run {
                true => Ok(Some(0)),
                false => delete::make_way(&mut placed.root, (&path, &inner), &kept, u64::MAX, false),
            };
            let message = match removed {
                Ok(Some(_)) => {
                    self.out.put(|buffer| FromDestination::Deleted(&path).encode(buffer))?;
                    continue;
                }
                Ok(None) => "something that is excluded was put there meanwhile".to_owned(),
                Err(error) => trouble::explain("removing it", error),
            };
            self.out.put(|buffer| FromDestination::NotDeleted { path: &path, message }.encode(buffer))?;
        }
        Ok(kept_for)
    }

    /// Whether everything has come and is answered, but for what waits for the end.
    fn over(&self) -> bool {
        self.ended && self.wanted.is_empty() && self.deferred.is_empty() && self.writing.is_none()
    }

    fn finish(&mut self) -> Result<(), LinkError> {
        self.commit_all()?;
        let kept_for = self.remove_extras()?;
        if let Some(placed) = &mut self.placed {
            for settled in self.later.apply(self.spec, placed, &self.bad) {
                self.out.put(|buffer| FromDestination::EntryResult(settled).encode(buffer))?;
            }
        }
        self.out.put(|buffer| match kept_for {
            Some(why) => FromDestination::Fatal(why).encode(buffer),
            None => FromDestination::Finished.encode(buffer),
        })
    }

    /// The other end is gone: what is complete is put into place, and what is not stays to be taken up.
    fn lost(&mut self, error: LinkError) -> LinkError {
        self.abandon();
        error
    }

    fn abandon(&mut self) {
        let mut writing = self.writing.take();
        if let Some(Writing { path, into, .. }) = writing.take_if(|writing| writing.is_useless()) {
            self.forget(&path, into.close());
        }
        // Where it cannot get a name, it is only sent again.
        if let Some((path, file)) = writing.and_then(Writing::keep)
            && let Some(placed) = &mut self.placed
            && let Ok((directory, last)) = placed.root.parent(&path)
        {
            let _ = nameless::link_unfinished(&file, directory, &name::partial(last));
        }
        let _ = self.commit_all(); // nobody is there to be told
        for wanted in std::mem::take(&mut self.wanted) {
            let _ = self.let_go(wanted);
        }
        for deferred in std::mem::take(&mut self.deferred) {
            if let Deferred::Cut(wanted) = deferred {
                let _ = self.let_go(wanted);
            }
        }
    }
}
