//! A container without an agent as the end with the files.

mod content;
mod roots;
mod together;
pub(crate) mod walk;

use super::session::{Lost, Session};
use super::{Memory, Out, Trouble, Way};
use bytes::Bytes;
use content::{Content, Wanted};
use postern_wire::Decoder;
use postern_wire::copy::{FromDestination, FromSource, SendSpec, WINDOW, Want};
use std::collections::{HashMap, VecDeque};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender, unbounded_channel};
use walk::{Item, Step, Walk};

/// What the destination said, as far as it concerns the source.
enum Heard {
    Want(Want),
    EntryResult(u32),
    Finished,
}

/// Reads what the destination says into a queue that is never full: it answers at most [`WINDOW`] entries. Else both
/// ends could wait for the other to read.
async fn listen(mut input: Receiver<Bytes>, heard: UnboundedSender<Result<Heard, String>>) {
    let mut decoder = Decoder::default();
    loop {
        loop {
            let next = match decoder.next_frame() {
                Ok(None) => break,
                Err(error) => Some(Err(error.to_string())),
                Ok(Some((kind, payload))) => match FromDestination::decode(kind, payload) {
                    Ok(FromDestination::Want(want)) => Some(Ok(Heard::Want(want))),
                    Ok(FromDestination::EntryResult(settled)) => Some(Ok(Heard::EntryResult(settled.id))),
                    Ok(FromDestination::Finished) => Some(Ok(Heard::Finished)),
                    Ok(FromDestination::Fatal(_)) => Some(Err("it gave up".to_owned())),
                    Ok(_) => None,
                    Err(error) => Some(Err(error.to_string())),
                },
            };
            let Some(next) = next else { continue };
            let last = !matches!(next, Ok(Heard::Want(_) | Heard::EntryResult(_)));
            if heard.send(next).is_err() || last {
                return;
            }
        }
        match input.recv().await {
            Some(bytes) => decoder.push(&bytes),
            None => return,
        }
    }
}

/// Serves one copy to its end.
pub(super) async fn send(
    spec: &SendSpec,
    way: Way,
    memory: Memory,
    mut session: Session,
    input: Receiver<Bytes>,
    mut out: Out,
) -> Result<(), Trouble> {
    let (sender, heard) = unbounded_channel();
    tokio::spawn(listen(input, sender));
    let rules = postern_files::rules(&spec.rules).map_err(Trouble::Fatal)?;
    let (tops, faults) = roots::expand(&mut session, spec, &rules).await?;
    let count = u32::try_from(tops.len() + faults.len()).unwrap_or(u32::MAX);
    out.put(|buffer| FromSource::Begin(count).encode(buffer));
    for (path, message) in faults {
        out.put(|buffer| FromSource::Fault { path: &path, message }.encode(buffer));
    }
    let walk = Walk::new(spec, tops)?;
    let content = Content::new(way, memory);
    Source { walk: Some(walk), session, content, out, heard, open: HashMap::new(), wanted: VecDeque::new() }
        .run()
        .await
}

struct Source {
    walk: Option<Walk>,
    session: Session,
    content: Content,
    out: Out,
    heard: UnboundedReceiver<Result<Heard, String>>,
    /// Files that were announced and not asked for.
    open: HashMap<u32, Option<Item>>,
    wanted: VecDeque<Wanted>,
}

impl Source {
    async fn run(mut self) -> Result<(), Trouble> {
        loop {
            while let Ok(next) = self.heard.try_recv() {
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
                let next = self.heard.recv().await;
                if self.take(next.unwrap_or_else(|| Err("the other end is gone".to_owned())))? {
                    return Ok(self.out.flush().await?);
                }
            }
            self.out.much().await?;
        }
    }

    /// True when everything is over.
    fn take(&mut self, next: Result<Heard, String>) -> Result<bool, Trouble> {
        match next.map_err(Lost)? {
            Heard::Want(want) => {
                let item = self.open.get_mut(&want.id).and_then(Option::take);
                let item = item.ok_or_else(|| Lost("it wants what it was not told of".to_owned()))?;
                self.wanted.push_back(Wanted { want, item });
                Ok(false)
            }
            Heard::EntryResult(id) => {
                self.open.remove(&id);
                Ok(false)
            }
            Heard::Finished => Ok(true),
        }
    }

    async fn announce(&mut self) -> Result<(), Trouble> {
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
