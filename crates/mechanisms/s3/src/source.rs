//! The end that has the files: objects of a bucket.

use crate::content::Content;
use crate::link::{Ended, Inbox, Outbox};
use crate::listing::Found;
use crate::store::Store;
use crate::walk::{self, Step};
use postern_files::stop::Stop;
use postern_wire::Decoder;
use postern_wire::copy::{Entry, FromDestination, FromSource, SendSpec, WINDOW, Want};
use std::collections::HashMap;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// An object that was announced.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) key: String,
    pub(crate) found: Found,
}

/// What the destination said, as far as it concerns the source.
enum Heard {
    Want(Want),
    EntryResult(u32),
    Finished,
    Gone,
}

/// Serves one copy to its end.
pub(crate) async fn send(
    store: &Store,
    spec: &SendSpec,
    input: Inbox,
    out: &mut Outbox,
) -> Result<(), Ended> {
    let walk = walk::Walk::new(store, spec).await?;
    let (sender, heard) = mpsc::unbounded_channel();
    let (steps, walked) = mpsc::channel(64);
    // They end with this function, however it does.
    let mut tasks = JoinSet::new();
    let stop = Stop::default();
    let stopped = stop.clone();
    tasks.spawn(async move {
        if listen(input, &sender, &stop).await.is_err() {
            let _ = sender.send(Heard::Gone); // nobody listens any more
        }
    });
    out.put(|buffer| FromSource::Begin(walk.tops()).encode(buffer)).await?;
    tasks.spawn(walk.run(steps));
    let content = Content::new(store, spec.compression, stopped);
    let open = HashMap::new();
    Source { walked: Some(walked), heard, open, next: 0, content, out }.run().await
}

/// Reads what the destination says into a queue that is never full: it answers at most [`WINDOW`] entries.
async fn listen(mut input: Inbox, heard: &mpsc::UnboundedSender<Heard>, stop: &Stop) -> Result<(), Ended> {
    let mut decoder = Decoder::default();
    loop {
        while let Some((kind, payload)) = decoder.next_frame()? {
            let next = match FromDestination::decode(kind, payload)? {
                FromDestination::Want(want) => Heard::Want(want),
                FromDestination::EntryResult(settled) => Heard::EntryResult(settled.id),
                FromDestination::Finished => Heard::Finished,
                FromDestination::Fatal(_) => return Err(Ended::Gone),
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
            let last = matches!(next, Heard::Finished);
            if heard.send(next).is_err() || last {
                return Ok(());
            }
        }
        input.read(&mut decoder).await?;
    }
}

struct Source<'a> {
    walked: Option<mpsc::Receiver<Step>>,
    heard: mpsc::UnboundedReceiver<Heard>,
    /// Objects that were announced and not answered; without what it takes to read them once they were asked for.
    open: HashMap<u32, Option<Item>>,
    next: u32,
    content: Content,
    out: &'a mut Outbox,
}

impl Source<'_> {
    async fn run(mut self) -> Result<(), Ended> {
        loop {
            if let Ok(heard) = self.heard.try_recv() {
                if self.hear(&heard)? {
                    return self.out.flush().await;
                }
                continue;
            }
            // What is wanted goes first: it frees the destination's memory.
            if self.content.serve(self.out).await? {
                continue;
            }
            self.out.flush().await?;
            let room = self.open.len() < WINDOW;
            let heard = match self.walked.as_mut().filter(|_| room) {
                None => self.heard.recv().await,
                Some(walked) => tokio::select! {
                    biased;
                    heard = self.heard.recv() => heard,
                    step = walked.recv() => {
                        self.announce(step).await?;
                        // As many as are there: a flush for each would be a message for each.
                        while self.open.len() < WINDOW
                            && let Some(Ok(step)) = self.walked.as_mut().map(mpsc::Receiver::try_recv)
                        {
                            self.announce(Some(step)).await?;
                        }
                        continue;
                    }
                },
            };
            if self.hear(&heard.ok_or(Ended::Gone)?)? {
                return self.out.flush().await;
            }
        }
    }

    /// Whether it was the last.
    fn hear(&mut self, heard: &Heard) -> Result<bool, Ended> {
        match heard {
            Heard::Want(want) => {
                // Content of no entry, or twice of one, is nonsense.
                let item = self.open.get_mut(&want.id).and_then(Option::take).ok_or(Ended::Gone)?;
                self.content.want(*want, item);
            }
            Heard::EntryResult(id) => drop(self.open.remove(id)),
            Heard::Finished => return Ok(true),
            Heard::Gone => return Err(Ended::Gone),
        }
        Ok(false)
    }

    async fn announce(&mut self, step: Option<Step>) -> Result<(), Ended> {
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
            Some(Step::Fatal(message)) => Err(Ended::Fatal(message)),
            Some(Step::End) => {
                self.walked = None;
                self.out.put(|buffer| FromSource::End.encode(buffer)).await
            }
            None => Err(Ended::Fatal("the listing of the bucket ended early".to_owned())),
        }
    }
}
