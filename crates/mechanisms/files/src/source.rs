//! The end that has the files: walks the requested paths and sends the requested content.

mod content;
mod content_error;
mod delta;
mod roots;
mod tree;
mod walk;

pub(crate) use content::zeroes;

use crate::link::{Arrived, Incoming, LinkError, Outbox};
use crate::stop_flag::StopFlag;
use content::{Content, Item, Served};
use postern_wire::Decoder;
use postern_wire::copy::{FromDestination, FromSource, SendSpec, WINDOW, Want};
use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use walk::{Step, Walk};

/// Frames from the destination that concern the source.
enum Event {
    Hashing(u32),
    Want(Want, Vec<u8>),
    EntryResult(u32),
    Finished,
    Lost(LinkError),
}

/// Serves one copy until it ends. `lost` is called if the other end is silent for longer than `idle_timeout`,
/// because the source may then be blocked on a stream that nobody reads.
pub fn send(
    spec: &SendSpec,
    input: impl Incoming + 'static,
    decoder: Decoder,
    out: &Outbox,
    idle_timeout: Option<Duration>,
    lost: fn(),
) -> Result<(), LinkError> {
    let (sender, events) = channel();
    let stop = StopFlag::default();
    let stopped = stop.clone();
    std::thread::spawn(move || {
        if let Err(error) = listen(input, decoder, (&sender, &stop), idle_timeout) {
            let _ = sender.send(Event::Lost(error)); // the receiver is gone
            lost();
        }
    });
    let walk = match Walk::new(spec) {
        Ok(walk) => walk,
        Err(message) => {
            return give_up(out, &events, message);
        }
    };
    let count = u32::try_from(walk.roots()).unwrap_or(u32::MAX);
    out.put(|buffer| FromSource::Begin(count).encode(buffer))?;
    let content = Content::new(spec.compression, out.clone(), stopped);
    FileSender { walk: Some(walk), open: HashMap::new(), content, out, events }.run()
}

/// Reads the destination's frames into an unbounded queue. It cannot grow much: the destination answers at
/// most [`WINDOW`] entries.
fn listen(
    mut input: impl Incoming,
    mut decoder: Decoder,
    (events, stop): (&Sender<Event>, &StopFlag),
    idle_timeout: Option<Duration>,
) -> Result<(), LinkError> {
    let mut basis = Vec::new();
    loop {
        while let Some((kind, payload)) = decoder.next_frame()? {
            let next = match FromDestination::decode(kind, payload)? {
                FromDestination::Want(want) => Event::Want(want, std::mem::take(&mut basis)),
                FromDestination::Hashing(id) => Event::Hashing(id),
                FromDestination::EntryResult(settled) => Event::EntryResult(settled.id),
                FromDestination::Finished => Event::Finished,
                FromDestination::Fatal(_) => return Err(LinkError::Lost("it gave up".to_owned())),
                FromDestination::Blocks(more) | FromDestination::Chunks(more)
                    if basis.len() + more.len() <= content::MOST_BYTES =>
                {
                    basis.extend_from_slice(more);
                    continue;
                }
                FromDestination::Blocks(_) | FromDestination::Chunks(_) => {
                    return Err(LinkError::Protocol("too much basis data for one file"));
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
            let last = matches!(next, Event::Finished);
            if events.send(next).is_err() || last {
                return Ok(());
            }
        }
        match input.read(&mut decoder, idle_timeout) {
            Ok(Arrived::Bytes) => {}
            Ok(Arrived::TimedOut) => return Err(LinkError::Lost("it is silent".to_owned())),
            Ok(Arrived::Ended) => return Err(LinkError::Lost("its stream ended".to_owned())),
            Err(error) => return Err(LinkError::Lost(error.to_string())),
        }
    }
}

/// Sends the reason why nothing can be copied, and waits until the destination has received it.
fn give_up(out: &Outbox, events: &Receiver<Event>, message: String) -> Result<(), LinkError> {
    out.put(|buffer| FromSource::Fatal(message).encode(buffer))?;
    out.flush()?;
    while let Ok(Event::Hashing(_) | Event::Want(..) | Event::EntryResult(_)) = events.recv() {}
    Ok(())
}

struct FileSender<'a> {
    walk: Option<Walk>,
    /// Files that were announced and not answered. `None` after their content was requested.
    open: HashMap<u32, Option<Item>>,
    content: Content,
    out: &'a Outbox,
    events: Receiver<Event>,
}

impl FileSender<'_> {
    fn run(mut self) -> Result<(), LinkError> {
        loop {
            // Requested content is sent first: that frees the destination's memory.
            let next = match self.events.try_recv() {
                Ok(next) => Some(next),
                Err(_) if self.walk.is_some() && self.open.len() < WINDOW => None,
                Err(_) => {
                    self.out.flush()?;
                    let gone = || LinkError::Lost("its input thread ended".to_owned());
                    Some(self.events.recv().map_err(|_| gone())?)
                }
            };
            match next {
                None => self.announce()?,
                Some(Event::Finished) => return self.out.flush(),
                Some(Event::EntryResult(id)) => drop(self.open.remove(&id)),
                Some(Event::Hashing(id)) => {
                    if let Some(Some(item)) = self.open.get_mut(&id) {
                        self.content.prepare(id, item);
                    }
                }
                Some(Event::Want(want, basis)) => {
                    let item = self.open.get_mut(&want.id).and_then(Option::take);
                    let mut item =
                        item.ok_or(LinkError::Protocol("a request for unknown content, or a repeated one"))?;
                    if self.content.serve(&mut item, &want, &basis)? == Served::Retry {
                        self.open.insert(want.id, Some(item));
                    }
                }
                Some(Event::Lost(error)) => return Err(error),
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
                give_up(self.out, &self.events, message)?;
                Err(LinkError::Lost("the stream is closed".to_owned()))
            }
        }
    }
}
