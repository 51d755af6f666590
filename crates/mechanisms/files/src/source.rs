//! The end that has the files: walks what was asked for, and sends the content that the destination wants.

mod content;
mod delta;
mod tops;
mod tree;
mod walk;

pub(crate) use content::zeroes;

use crate::link::{Arrived, Incoming, LinkError, Outbox};
use crate::stop::Stop;
use content::{Content, Item, Served};
use postern_wire::Decoder;
use postern_wire::copy::{FromDestination, FromSource, SendSpec, WINDOW, Want};
use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use walk::{Step, Walk};

/// What the destination said, as far as it concerns the source.
enum Heard {
    Hashing(u32),
    Want(Want, Vec<u8>),
    EntryResult(u32),
    Finished,
    Lost(LinkError),
}

/// Serves one copy to its end. `lost` is called where the other end falls silent for longer than `patience`, as the
/// source itself may then be blocked on a stream that nobody reads.
pub fn send(
    spec: &SendSpec,
    input: impl Incoming + 'static,
    decoder: Decoder,
    out: &Outbox,
    patience: Option<Duration>,
    lost: fn(),
) -> Result<(), LinkError> {
    let (sender, heard) = channel();
    let stop = Stop::default();
    let stopped = stop.clone();
    std::thread::spawn(move || {
        if let Err(error) = listen(input, decoder, (&sender, &stop), patience) {
            let _ = sender.send(Heard::Lost(error)); // nobody listens any more
            lost();
        }
    });
    let walk = match Walk::new(spec) {
        Ok(walk) => walk,
        Err(message) => {
            return give_up(out, &heard, message);
        }
    };
    let count = u32::try_from(walk.tops()).unwrap_or(u32::MAX);
    out.put(|buffer| FromSource::Begin(count).encode(buffer))?;
    let content = Content::new(spec.compression, out.clone(), stopped);
    Source { walk: Some(walk), open: HashMap::new(), content, out, heard }.run()
}

/// Reads what the destination says into a queue that is never full: the destination answers at most [`WINDOW`] entries.
fn listen(
    mut input: impl Incoming,
    mut decoder: Decoder,
    (heard, stop): (&Sender<Heard>, &Stop),
    patience: Option<Duration>,
) -> Result<(), LinkError> {
    let mut told = Vec::new();
    loop {
        while let Some((kind, payload)) = decoder.next_frame()? {
            let next = match FromDestination::decode(kind, payload)? {
                FromDestination::Want(want) => Heard::Want(want, std::mem::take(&mut told)),
                FromDestination::Hashing(id) => Heard::Hashing(id),
                FromDestination::EntryResult(settled) => Heard::EntryResult(settled.id),
                FromDestination::Finished => Heard::Finished,
                FromDestination::Fatal(_) => return Err(LinkError::Lost("it gave up".to_owned())),
                FromDestination::Blocks(more) | FromDestination::Chunks(more)
                    if told.len() + more.len() <= content::MOST_BYTES =>
                {
                    told.extend_from_slice(more);
                    continue;
                }
                FromDestination::Blocks(_) | FromDestination::Chunks(_) => {
                    return Err(LinkError::Protocol("too much is told of a file"));
                }
                FromDestination::Stop(id) => {
                    stop.set(id);
                    continue;
                }
                FromDestination::Target { .. }
                | FromDestination::Deleted(_)
                | FromDestination::NotDeleted { .. }
                | FromDestination::Heartbeat
                | FromDestination::Pong => {
                    continue;
                }
            };
            let last = matches!(next, Heard::Finished);
            if heard.send(next).is_err() || last {
                return Ok(());
            }
        }
        match input.read(&mut decoder, patience) {
            Ok(Arrived::Bytes) => {}
            Ok(Arrived::Quiet) => return Err(LinkError::Lost("it is silent".to_owned())),
            Ok(Arrived::Ended) => return Err(LinkError::Lost("its stream ended".to_owned())),
            Err(error) => return Err(LinkError::Lost(error.to_string())),
        }
    }
}

/// Says why nothing can be copied, and stays until that was heard.
fn give_up(out: &Outbox, heard: &Receiver<Heard>, message: String) -> Result<(), LinkError> {
    out.put(|buffer| FromSource::Fatal(message).encode(buffer))?;
    out.flush()?;
    while let Ok(Heard::Hashing(_) | Heard::Want(..) | Heard::EntryResult(_)) = heard.recv() {}
    Ok(())
}

struct Source<'a> {
    walk: Option<Walk>,
    /// Files that were announced and not answered; without what it takes to read them once they were asked for.
    open: HashMap<u32, Option<Item>>,
    content: Content,
    out: &'a Outbox,
    heard: Receiver<Heard>,
}

impl Source<'_> {
    fn run(mut self) -> Result<(), LinkError> {
        loop {
            // What is wanted goes first: it frees the destination's memory.
            let next = match self.heard.try_recv() {
                Ok(next) => Some(next),
                Err(_) if self.walk.is_some() && self.open.len() < WINDOW => None,
                Err(_) => {
                    self.out.flush()?;
                    let gone = || LinkError::Lost("nothing is heard of it".to_owned());
                    Some(self.heard.recv().map_err(|_| gone())?)
                }
            };
            match next {
                None => self.announce()?,
                Some(Heard::Finished) => return self.out.flush(),
                Some(Heard::EntryResult(id)) => drop(self.open.remove(&id)),
                Some(Heard::Hashing(id)) => {
                    if let Some(Some(item)) = self.open.get_mut(&id) {
                        self.content.prepare(id, item);
                    }
                }
                Some(Heard::Want(want, told)) => {
                    let item = self.open.get_mut(&want.id).and_then(Option::take);
                    let mut item = item.ok_or(LinkError::Protocol("content of no entry, or twice of one"))?;
                    if self.content.serve(&mut item, &want, &told)? == Served::Later {
                        self.open.insert(want.id, Some(item));
                    }
                }
                Some(Heard::Lost(error)) => return Err(error),
            }
        }
    }

    /// Takes the next step of the walk.
    fn announce(&mut self) -> Result<(), LinkError> {
        let Some(walk) = &mut self.walk else { return Ok(()) };
        match walk.next() {
            Step::Entry(entry, item) => {
                if let Some(item) = item {
                    self.open.insert(entry.id, Some(item));
                }
                self.out.put(|buffer| FromSource::Entry(entry).encode(buffer))
            }
            Step::Fault(path, message) => {
                self.out.put(|buffer| FromSource::Fault { path: &path, message }.encode(buffer))
            }
            Step::DirectoryEnd(path) => self.out.put(|buffer| FromSource::DirectoryEnd(&path).encode(buffer)),
            Step::End => {
                self.walk = None;
                self.out.put(|buffer| FromSource::End.encode(buffer))
            }
            Step::Fatal(message) => {
                give_up(self.out, &self.heard, message)?;
                Err(LinkError::Lost("nothing more is to be sent".to_owned()))
            }
        }
    }
}
