//! The end that has the files: objects of a bucket.

use crate::content::Content;
use crate::link::{EndError, Inbox, Outbox};
use crate::listing::Item;
use crate::store::Store;
use crate::walk::{self, Step};
use postern_files::stop_flag::StopFlag;
use postern_wire::Decoder;
use postern_wire::copy::{Entry, FromDestination, FromSource, SendSpec, WINDOW, Want};
use std::collections::HashMap;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Frames from the destination that concern the source.
enum Event {
    Want(Want),
    EntryResult(u32),
    Finished,
    Gone,
}

/// Serves one copy until it ends.
pub(crate) async fn send(
    store: &Store,
    spec: &SendSpec,
    input: Inbox,
    out: &mut Outbox,
) -> Result<(), EndError> {
    let walk = walk::Walk::new(store, spec).await?;
    let (sender, events) = mpsc::unbounded_channel();
    let (steps, walked) = mpsc::channel(64);
    // The tasks end with this function.
    let mut tasks = JoinSet::new();
    let stop = StopFlag::default();
    let stopped = stop.clone();
    tasks.spawn(async move {
        if listen(input, &sender, &stop).await.is_err() {
            let _ = sender.send(Event::Gone); // the receiver is gone
        }
    });
    out.put(|buffer| FromSource::Begin(walk.roots()).encode(buffer)).await?;
    tasks.spawn(walk.run(steps));
    let content = Content::new(store, spec.compression, stopped);
    let open = HashMap::new();
    ObjectSender { walked: Some(walked), events, open, next: 0, content, out }.run().await
}

/// Reads the destination's frames into an unbounded queue. It cannot grow much: the destination answers at
/// most [`WINDOW`] entries.
async fn listen(
    mut input: Inbox,
    events: &mpsc::UnboundedSender<Event>,
    stop: &StopFlag,
) -> Result<(), EndError> {
    let mut decoder = Decoder::default();
    loop {
        while let Some((kind, payload)) = decoder.next_frame()? {
            let next = match FromDestination::decode(kind, payload)? {
                FromDestination::Want(want) => Event::Want(want),
                FromDestination::EntryResult(settled) => Event::EntryResult(settled.id),
                FromDestination::Finished => Event::Finished,
                FromDestination::Fatal(_) => return Err(EndError::Gone),
                FromDestination::Stop(id) => {
                    stop.set(id);
                    continue;
                }
                FromDestination::Chunks(_)
                | FromDestination::Blocks(_)
                | FromDestination::Hashing(_)
                | FromDestination::Target { .. }
                | FromDestination::Deleted(_)
                | FromDestination::NotDeleted { .. }
                | FromDestination::Heartbeat
                | FromDestination::Pong => continue,
            };
            let last = matches!(next, Event::Finished);
            if events.send(next).is_err() || last {
                return Ok(());
            }
        }
        input.read(&mut decoder).await?;
    }
}

struct ObjectSender<'a> {
    walked: Option<mpsc::Receiver<Step>>,
    events: mpsc::UnboundedReceiver<Event>,
    /// Objects that were announced and not answered. `None` after their content was requested.
    open: HashMap<u32, Option<Item>>,
    next: u32,
    content: Content,
    out: &'a mut Outbox,
}

impl ObjectSender<'_> {
    async fn run(mut self) -> Result<(), EndError> {
        loop {
            if let Ok(events) = self.events.try_recv() {
                if self.handle(&events)? {
                    return self.out.flush().await;
                }
                continue;
            }
            // Requested content is sent first: that frees the destination's memory.
            if self.content.serve(self.out).await? {
                continue;
            }
            self.out.flush().await?;
            let room = self.open.len() < WINDOW;
            let events = match self.walked.as_mut().filter(|_| room) {
                None => self.events.recv().await,
                Some(walked) => tokio::select! {
                    biased;
                    events = self.events.recv() => events,
                    step = walked.recv() => {
                        self.announce(step).await?;
                        // Takes all available steps: a flush for each would send a message for each.
                        while self.open.len() < WINDOW
                            && let Some(Ok(step)) = self.walked.as_mut().map(mpsc::Receiver::try_recv)
                        {
                            self.announce(Some(step)).await?;
                        }
                        continue;
                    }
                },
            };
            if self.handle(&events.ok_or(EndError::Gone)?)? {
                return self.out.flush().await;
            }
        }
    }

    /// Returns whether this was the last frame.
    fn handle(&mut self, events: &Event) -> Result<bool, EndError> {
        match events {
            Event::Want(want) => {
                // Requests for unknown content, or repeated ones, are invalid.
                let item = self.open.get_mut(&want.id).and_then(Option::take).ok_or(EndError::Gone)?;
                self.content.want(*want, item);
            }
            Event::EntryResult(id) => drop(self.open.remove(id)),
            Event::Finished => return Ok(true),
            Event::Gone => return Err(EndError::Gone),
        }
        Ok(false)
    }

    async fn announce(&mut self, step: Option<Step>) -> Result<(), EndError> {
        match step {
            Some(Step::Entry { path, kind, stamp, item }) => {
                let id = self.next;
                self.next += 1;
                if let Some(item) = item {
                    self.open.insert(id, Some(*item));
                }
                let entry = Entry { id, path, kind, stamp, xattrs: Vec::new(), settled: false };
                self.out.put(|buffer| FromSource::Entry(Box::new(entry)).encode(buffer)).await
            }
            Some(Step::Fault { path, message }) => {
                self.out.put(|buffer| FromSource::Fault { path: &path, message }.encode(buffer)).await
            }
            Some(Step::DirectoryEnd(path)) => {
                self.out.put(|buffer| FromSource::DirectoryEnd(&path).encode(buffer)).await
            }
            Some(Step::Fatal(message)) => Err(EndError::Fatal(message)),
            Some(Step::End) => {
                self.walked = None;
                self.out.put(|buffer| FromSource::End.encode(buffer)).await
            }
            None => Err(EndError::Fatal("the listing of the bucket ended early".to_owned())),
        }
    }
}
