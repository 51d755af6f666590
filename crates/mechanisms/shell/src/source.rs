//! A container without an agent as the end that has the files.

mod batch;
mod content;
mod roots;
mod walk;

use super::session::{Lost, Session};
use super::{Outbox, ResumeMarks, TransferMode, TranslatorError};
use bytes::Bytes;
use content::{Content, Wanted};
use postern_wire::Decoder;
use postern_wire::copy::{FromDestination, FromSource, SendSpec, WINDOW, Want};
use std::collections::{HashMap, VecDeque};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender, unbounded_channel};
use walk::{Item, Step, Walk};

/// Frames from the destination that concern the source.
enum Event {
    Want(Want),
    EntryResult(u32),
    Finished,
}

/// Reads the destination's frames into an unbounded queue; it cannot grow much, because the destination
/// answers at most [`WINDOW`] entries. Otherwise both ends could block, each waiting for the other to read.
async fn listen(mut input: Receiver<Bytes>, events: UnboundedSender<Result<Event, String>>) {
    let mut decoder = Decoder::default();
    loop {
        loop {
            let next = match decoder.next_frame() {
                Ok(None) => break,
                Err(error) => Some(Err(error.to_string())),
                Ok(Some((kind, payload))) => match FromDestination::decode(kind, payload) {
                    Ok(FromDestination::Want(want)) => Some(Ok(Event::Want(want))),
                    Ok(FromDestination::EntryResult(settled)) => Some(Ok(Event::EntryResult(settled.id))),
                    Ok(FromDestination::Finished) => Some(Ok(Event::Finished)),
                    Ok(FromDestination::Fatal(_)) => Some(Err("it gave up".to_owned())),
                    Ok(_) => None,
                    Err(error) => Some(Err(error.to_string())),
                },
            };
            let Some(next) = next else { continue };
            let last = !matches!(next, Ok(Event::Want(_) | Event::EntryResult(_)));
            if events.send(next).is_err() || last {
                return;
            }
        }
        match input.recv().await {
            Some(bytes) => decoder.push(&bytes),
            None => return,
        }
    }
}

/// Serves one copy until it ends.
pub(super) async fn send(
    spec: &SendSpec,
    way: TransferMode,
    marks: ResumeMarks,
    mut session: Session,
    input: Receiver<Bytes>,
    mut out: Outbox,
) -> Result<(), TranslatorError> {
    let (sender, events) = unbounded_channel();
    tokio::spawn(listen(input, sender));
    let rules = postern_files::rules(&spec.rules).map_err(TranslatorError::Fatal)?;
    let (roots, faults) = roots::expand(&mut session, spec, &rules).await?;
    let count = u32::try_from(roots.len() + faults.len()).unwrap_or(u32::MAX);
    out.put(|buffer| FromSource::Begin(count).encode(buffer));
    for (path, message) in faults {
        out.put(|buffer| FromSource::Fault { path: &path, message }.encode(buffer));
    }
    let walk = Walk::new(spec, roots)?;
    let content = Content::new(way, marks);
    ShellSender {
        walk: Some(walk),
        session,
        content,
        out,
        events,
        open: HashMap::new(),
        wanted: VecDeque::new(),
    }
    .run()
    .await
}

struct ShellSender {
    walk: Option<Walk>,
    session: Session,
    content: Content,
    out: Outbox,
    events: UnboundedReceiver<Result<Event, String>>,
    /// Files that were announced and not requested.
    open: HashMap<u32, Option<Item>>,
    wanted: VecDeque<Wanted>,
}

impl ShellSender {
    async fn run(mut self) -> Result<(), TranslatorError> {
        loop {
            while let Ok(next) = self.events.try_recv() {
                if self.take(next)? {
                    return Ok(self.out.flush().await?);
                }
            }
            if !self.wanted.is_empty() {
                self.content.serve(&mut self.session, &mut self.wanted, &mut self.out).await?;
            } else if self.walk.is_some() && self.open.len() < WINDOW {
                self.announce().await?;
            } else {
                self.out.flush().await?;
                let next = self.events.recv().await;
                if self.take(next.unwrap_or_else(|| Err("the other end is gone".to_owned())))? {
                    return Ok(self.out.flush().await?);
                }
            }
            self.out.flush_if_large().await?;
        }
    }

    /// Returns true when the copy is finished.
    fn take(&mut self, next: Result<Event, String>) -> Result<bool, TranslatorError> {
        match next.map_err(Lost)? {
            Event::Want(want) => {
                let item = self.open.get_mut(&want.id).and_then(Option::take);
                let item = item.ok_or_else(|| Lost("it requested an unknown entry".to_owned()))?;
                self.wanted.push_back(Wanted { want, item });
                Ok(false)
            }
            Event::EntryResult(id) => {
                self.open.remove(&id);
                Ok(false)
            }
            Event::Finished => Ok(true),
        }
    }

    async fn announce(&mut self) -> Result<(), TranslatorError> {
        let Some(walk) = &mut self.walk else { return Ok(()) };
        match walk.next(&mut self.session).await? {
            Step::Entry(entry, item) => {
                if let Some(item) = item {
                    self.open.insert(entry.id, Some(item));
                }
                self.out.put(|buffer| FromSource::Entry(entry).encode(buffer));
            }
            Step::Fault(path, message) => {
                self.out.put(|buffer| FromSource::Fault { path: &path, message }.encode(buffer));
            }
            Step::DirectoryEnd(path) => {
                self.out.put(|buffer| FromSource::DirectoryEnd(&path).encode(buffer));
            }
            Step::End => {
                self.walk = None;
                self.out.put(|buffer| FromSource::End.encode(buffer));
            }
        }
        Ok(())
    }
}
