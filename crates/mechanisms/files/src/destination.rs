//! The end that receives files: requests content, writes beneath its root, and answers every entry.

mod basis;
mod clean;
mod commit;
mod content;
mod decide;
mod deferred;
mod delete;
mod error;
mod flusher;
mod mount_namespace;
mod partial;
mod target;
mod unnamed;
mod writing;

use crate::compression::Decompressor;
use crate::link::{Arrived, Incoming, LinkError, Outbox};
use crate::open_files::OpenFileShare;
use crate::policy::Surplus;
use crate::{name, pattern, policy};
use basis::{Prefill, Queued};
use commit::{Batch, Committer};
use deferred::Deferred;
use delete::{Extras, ReceivedNames};
use error::ReceiveError;
use postern_wire::Decoder;
use postern_wire::copy::{Entry, EntryResult, Fate, FromDestination, FromSource, Kind, ReceiveSpec, WINDOW};
use rustix::fs::Stat;
use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::time::Duration;
use target::Target;
use unnamed::UnnamedFiles;
use writing::Writing;

/// How long to wait for quiet input before committing finished files.
const LULL: Duration = Duration::from_millis(20);

/// An entry whose content was requested.
#[derive(Debug)]
struct Wanted {
    entry: Box<Entry>,
    /// The path below the root, after renaming.
    path: Vec<u8>,
    /// Size of the whole content.
    size: u64,
    /// The offset at which the source may start sending.
    have: u64,
    /// Those bytes are in the file itself, under its own name.
    whole: bool,
    partial: Option<Box<partial::Partial>>,
    /// A copy of the file being replaced, from which the new one starts.
    prefill: Option<Prefill>,
    /// Bytes of block hashes or chunk records sent about that file.
    basis_bytes: usize,
    /// Its chunks may still be requested.
    may_send_chunks: bool,
    /// The file being replaced.
    replaces: Option<Box<Stat>>,
}

struct FileReceiver<'a> {
    spec: &'a ReceiveSpec,
    out: &'a Outbox,
    rules: pattern::Rules,
    tops: u32,
    target: Option<Target>,
    unnamed: UnnamedFiles,
    /// Entries with requested content, in the order in which it arrives.
    wanted: VecDeque<Wanted>,
    /// Entries that wait because too many basis bytes are unanswered.
    queued: VecDeque<Queued>,
    /// Bytes of basis information sent and not yet answered.
    basis_bytes: usize,
    writing: Option<Writing>,
    /// The file that was replaced last. It stays open until the end: the system frees a large file when it is
    /// closed, which takes time.
    replaced: Option<File>,
    batch: Batch,
    committer: Option<Committer>,
    deferred: Deferred,
    seen: ReceivedNames,
    extras: Extras,
    /// Paths that are requested and not yet in place. If one came twice, two writers would write it.
    busy: HashSet<Vec<u8>>,
    /// Files that were requested but not written: no hard links to them are created.
    bad: HashSet<Vec<u8>>,
    /// The directory last found to be writable.
    writable: Option<Vec<u8>>,
    decompressor: Decompressor,
    entries: u64,
    /// Entries that the source has and cannot send.
    faults: u64,
    bytes: u64,
    ended: bool,
}

/// Serves one copy until it ends.
pub fn receive(
    spec: &ReceiveSpec,
    input: &mut impl Incoming,
    mut decoder: Decoder,
    out: &Outbox,
    idle_timeout: Option<Duration>,
) -> Result<(), LinkError> {
    if let Some(root) = &spec.root {
        error::set_container_root(root);
        mount_namespace::set_foreign();
    }
    if spec.clean {
        return clean::clean(spec, out);
    }
    let mut destination = match FileReceiver::new(spec, out) {
        Ok(destination) => destination,
        Err(message) => return fatal(out, message),
    };
    loop {
        loop {
            let taken = match decoder.next_frame() {
                Ok(None) => break,
                Ok(Some((kind, payload))) => FromSource::decode(kind, payload)
                    .map_err(|error| ReceiveError::Link(error.into()))
                    .and_then(|frame| destination.take(frame)),
                Err(error) => Err(ReceiveError::Link(error.into())),
            };
            match taken {
                Ok(()) => {}
                Err(ReceiveError::Link(error)) => return Err(destination.lost(error)),
                Err(ReceiveError::Fatal(message)) => {
                    destination.abandon();
                    return fatal(out, message);
                }
            }
        }
        if destination.is_finished() {
            destination.finish()?;
            return out.flush();
        }
        if let Err(error) = destination.wait_for_input(input, &mut decoder, idle_timeout) {
            return Err(destination.lost(error));
        }
    }
}

fn fatal(out: &Outbox, message: String) -> Result<(), LinkError> {
    out.put(|buffer| FromDestination::Fatal(message).encode(buffer))?;
    out.flush()
}

impl<'a> FileReceiver<'a> {
    fn new(spec: &'a ReceiveSpec, out: &'a Outbox) -> Result<Self, String> {
        Ok(Self {
            spec,
            out,
            rules: crate::rules(&spec.rules)?,
            tops: 0,
            target: None,
            unnamed: UnnamedFiles::default(),
            wanted: VecDeque::new(),
            queued: VecDeque::new(),
            basis_bytes: 0,
            writing: None,
            replaced: None,
            batch: Batch::new(OpenFileShare::new()),
            committer: None,
            deferred: Deferred::default(),
            seen: ReceivedNames::default(),
            extras: Extras::default(),
            faults: 0,
            busy: HashSet::new(),
            bad: HashSet::new(),
            writable: None,
            decompressor: Decompressor::new(),
            entries: 0,
            bytes: 0,
            ended: false,
        })
    }

    /// Waits for the next input. When none arrives, commits finished files and flushes output.
    fn wait_for_input(
        &mut self,
        input: &mut impl Incoming,
        decoder: &mut Decoder,
        idle_timeout: Option<Duration>,
    ) -> Result<(), LinkError> {
        let broken = |error: std::io::Error| LinkError::Lost(error.to_string());
        self.record_committed();
        let mut arrived = input.read(decoder, Some(Duration::ZERO)).map_err(broken)?;
        if arrived == Arrived::TimedOut {
            self.out.flush()?;
            if !self.batch.is_empty() {
                arrived = input.read(decoder, Some(LULL)).map_err(broken)?;
                if arrived == Arrived::TimedOut {
                    self.commit()?;
                    self.out.flush()?;
                }
            }
        }
        if arrived == Arrived::TimedOut {
            arrived = input.read(decoder, idle_timeout).map_err(broken)?;
        }
        match arrived {
            Arrived::Bytes => Ok(()),
            Arrived::TimedOut => Err(LinkError::Lost("it is silent".to_owned())),
            Arrived::Ended => Err(LinkError::Lost("its stream ended".to_owned())),
        }
    }

    fn take(&mut self, frame: FromSource<'_>) -> Result<(), ReceiveError> {
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
            FromSource::Cut(id) => self.handle_cut(id)?,
            FromSource::Data(bytes) => self.write(bytes)?,
            FromSource::Compressed { length, bytes } => {
                let mut decompressor = std::mem::replace(&mut self.decompressor, Decompressor::new());
                let Some(bytes) = decompressor.decompress(bytes, length) else {
                    return Err(LinkError::Protocol("a block that cannot be decompressed").into());
                };
                self.write(bytes)?;
                self.decompressor = decompressor;
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
        self.resume_queued()
    }

    /// Counts content against the limit before it is written.
    fn count(&mut self, length: u64) -> Result<(), ReceiveError> {
        self.bytes = self.bytes.saturating_add(length);
        if self.bytes > self.spec.limits.bytes {
            return Err(ReceiveError::Fatal(policy::many_bytes(self.spec.limits.bytes)));
        }
        Ok(())
    }

    fn writing(&mut self) -> Result<&mut Writing, ReceiveError> {
        self.writing.as_mut().ok_or_else(|| LinkError::Protocol("content that was not requested").into())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ReceiveError> {
        self.count(bytes.len() as u64)?;
        self.writing()?.data(bytes);
        Ok(())
    }

    fn entry(&mut self, entry: Box<Entry>) -> Result<(), ReceiveError> {
        self.entries += 1;
        if self.entries > self.spec.limits.entries {
            return Err(ReceiveError::Fatal(policy::many_entries(self.spec.limits.entries)));
        }
        if self.wanted.len() + self.queued.len() > WINDOW {
            return Err(LinkError::Protocol("too many unanswered entries").into());
        }
        if let Err(error) = name::check(&entry.path, self.spec.limits.depth) {
            return self.settle(entry.id, Fate::Refused, error.to_string());
        }
        if self.target.is_none() {
            self.target = Some(target::resolve(self.spec, self.tops, &entry)?);
            self.send_target()?;
        }
        let Some(target) = &self.target else { return Ok(()) };
        if entry.path.is_empty() && !(target.contents && entry.kind == Kind::Directory) {
            return Err(LinkError::Protocol("an entry without a name").into());
        }
        let path = target.path(&entry.path);
        if self.busy.contains(&path) {
            return self.settle(entry.id, Fate::Refused, policy::DUPLICATE.to_owned());
        }
        if self.spec.delete.is_requested() {
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
                self.defer(entry, path)
            }
        }
    }

    fn send_target(&self) -> Result<(), ReceiveError> {
        if let Some(target) = &self.target {
            let (directory, name) = (target.shown.as_slice(), target.rename.as_deref());
            self.out.put(|buffer| FromDestination::Target { directory, name }.encode(buffer))?;
        }
        Ok(())
    }

    fn settle(&mut self, id: u32, fate: Fate, note: String) -> Result<(), ReceiveError> {
        self.answer(EntryResult { id, fate, hash: [0; 32], note })
    }

    fn answer(&mut self, settled: EntryResult) -> Result<(), ReceiveError> {
        Ok(self.out.put(|buffer| FromDestination::EntryResult(settled).encode(buffer))?)
    }

    fn directory_end(&mut self, path: &[u8]) -> Result<(), ReceiveError> {
        if name::check(path, self.spec.limits.depth).is_err() {
            return Err(LinkError::Protocol("the end of a directory outside the root").into());
        }
        let (Some(target), true) = (&mut self.target, self.spec.delete.is_requested()) else { return Ok(()) };
        if target.missing {
            return Ok(()); // only planned: another directory is used in its place
        }
        let inner = name::inner(path, target.contents).to_vec();
        let below = target.path(path);
        let rules = &self.rules;
        let kept = |path: &[u8], directory: bool| rules.excludes(path, directory);
        self.seen.extra(path, &mut target.root, (&below, &inner), &kept, &mut self.extras);
        Ok(())
    }

    /// Removes what the source does not have; returns the reason if it removes nothing because it would be
    /// too much. A dry run reports what would be removed in any case.
    fn remove_extras(&mut self) -> Result<Option<String>, LinkError> {
        let Extras { paths, going, gone, there } = std::mem::take(&mut self.extras);
        let root = u64::from(self.target.as_ref().is_some_and(|target| target.contents));
        let source = self.entries.saturating_sub(root) + self.faults;
        let surplus = Surplus { extra: going, gone, there, source };
        let kept_for = policy::refuses_deletion(self.spec.delete, surplus);
        let dry_run = self.spec.dry_run;
        let Some(target) = self.target.as_mut().filter(|_| kept_for.is_none() || dry_run) else {
            return Ok(kept_for);
        };
        let rules = &self.rules;
        let kept = |path: &[u8], directory: bool| rules.excludes(path, directory);
        for (path, inner) in paths {
            let removed = match dry_run {
                true => Ok(Some(0)),
                false => delete::clear_path(&mut target.root, (&path, &inner), &kept, u64::MAX, false),
            };
            let message = match removed {
                Ok(Some(_)) => {
                    self.out.put(|buffer| FromDestination::Deleted(&path).encode(buffer))?;
                    continue;
                }
                Ok(None) => "an excluded file was created there meanwhile".to_owned(),
                Err(error) => error::explain("removing it", error),
            };
            self.out.put(|buffer| FromDestination::NotDeleted { path: &path, message }.encode(buffer))?;
        }
        Ok(kept_for)
    }

    /// Whether everything has arrived and is answered, except for deferred entries.
    fn is_finished(&self) -> bool {
        self.ended && self.wanted.is_empty() && self.queued.is_empty() && self.writing.is_none()
    }

    fn finish(&mut self) -> Result<(), LinkError> {
        self.commit_all()?;
        let kept_for = self.remove_extras()?;
        if let Some(target) = &mut self.target {
            for settled in self.deferred.apply(self.spec, target, &self.bad) {
                self.out.put(|buffer| FromDestination::EntryResult(settled).encode(buffer))?;
            }
        }
        self.out.put(|buffer| match kept_for {
            Some(why) => FromDestination::Fatal(why).encode(buffer),
            None => FromDestination::Finished.encode(buffer),
        })
    }

    /// The other end is gone: commits what is complete and keeps the rest so that a later copy can resume it.
    fn lost(&mut self, error: LinkError) -> LinkError {
        self.abandon();
        error
    }

    fn abandon(&mut self) {
        let mut writing = self.writing.take();
        if let Some(Writing { path, sink, .. }) = writing.take_if(|writing| writing.is_useless()) {
            self.remove_useless(&path, sink.close());
        }
        // If it cannot get a name, it only has to be sent again.
        if let Some((path, file)) = writing.and_then(Writing::keep)
            && let Some(target) = &mut self.target
            && let Ok((directory, last)) = target.root.parent(&path)
        {
            let _ = unnamed::link_unfinished(&file, directory, &name::partial(last));
        }
        let _ = self.commit_all(); // errors cannot be reported any more
        for wanted in std::mem::take(&mut self.wanted) {
            let _ = self.discard(wanted);
        }
        for deferred in std::mem::take(&mut self.queued) {
            if let Queued::Cut(wanted) = deferred {
                let _ = self.discard(wanted);
            }
        }
    }
}
