//! Ends without an agent: a translator of ours speaks the frames of a copy to the other end, and drives the tools of the
//! container through its shell.
//!
//! What such an end promises: each file is compared by hash with what the tools in the container read or wrote, or read
//! back; nothing has its name before that. What it cannot: the tools open paths by name, so that a process in the
//! container which swaps directories for symlinks meanwhile decides where in *its own* container things go. This
//! machine's files are written by `postern-files` as ever.

pub mod archive;
mod destination;
mod exec;
pub mod listing;
mod memory;
mod session;
mod source;
mod sum;
#[cfg(test)]
mod tests;
mod words;

pub use memory::Memory;

use crate::ends::{FromEnd, Opened, ToEnd};
use bytes::Bytes;
use postern_exec::ExecError;
use postern_exec::target::Place;
use postern_kube::Cluster;
use postern_wire::Decoder;
use postern_wire::copy::Ask;
use session::{Lost, Session, Tools};
use tokio::sync::mpsc;

/// How content travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way {
    /// Small files in archives, many at a time.
    pub(crate) tar: bool,
    /// What was written and read is compared by hash.
    pub(crate) verify: bool,
}

/// Frames to the other end.
pub(crate) struct Out {
    sender: mpsc::Sender<Result<Bytes, String>>,
    buffer: Vec<u8>,
}

/// Frames collected before they are sent.
const FULL: usize = 64 * 1024;

impl Out {
    pub(crate) fn put(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        encode(&mut self.buffer);
    }

    /// Sends when there is much.
    pub(crate) async fn much(&mut self) -> Result<(), Lost> {
        if self.buffer.len() >= FULL { self.flush().await } else { Ok(()) }
    }

    pub(crate) async fn flush(&mut self) -> Result<(), Lost> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let frames = Bytes::from(std::mem::take(&mut self.buffer));
        self.sender.send(Ok(frames)).await.map_err(|_| Lost("the other end is gone".to_owned()))
    }
}

/// What ends a translator early.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Either conversation.
    Lost(String),
    /// Nothing can be copied; for people.
    Fatal(String),
}

impl From<Lost> for Trouble {
    fn from(Lost(why): Lost) -> Self {
        Self::Lost(why)
    }
}

impl From<postern_wire::WireError> for Trouble {
    fn from(error: postern_wire::WireError) -> Self {
        Self::Lost(error.to_string())
    }
}

/// Reaches a container's shell and starts the translator on what it is asked. Says whether it is by tar, where that is
/// left open.
pub(crate) async fn open(
    cluster: &Cluster,
    place: &Place,
    tar: Option<bool>,
    verify: bool,
    memory: &Memory,
    ask: &Ask,
) -> Result<(bool, Opened), ExecError> {
    let (to, from) = exec::open(cluster, place).await?;
    let hello = Session::greet(to, from, if verify { None } else { Some("-") });
    let session = match tokio::time::timeout(crate::pod::HELLO, hello).await {
        Ok(session) => session?,
        Err(_) => return Err(ExecError::Runtime("its shell did not answer in time".to_owned())),
    };
    let way = Way { tar: tar.unwrap_or(session.tools.tar), verify };
    check(&session.tools, way, ask).map_err(ExecError::Target)?;
    Ok((way.tar, start(session, way, memory.clone(), ask.clone())))
}

/// What the container has to have; refused before anything is changed.
fn check(tools: &Tools, way: Way, ask: &Ask) -> Result<(), String> {
    let sending = matches!(ask, Ask::Send(_));
    let needed = |tool: &&String| {
        !sending
            || tool.starts_with("dd")
            || tool.starts_with("stat")
            || ["find", "readlink"].contains(&tool.as_str())
    };
    let missing: Vec<&str> = tools.missing.iter().filter(needed).map(String::as_str).collect();
    if !missing.is_empty() {
        return Err(format!(
            "the container has no {}, which the ways tar and shell take",
            missing.join(", ")
        ));
    }
    if way.tar && !tools.tar {
        return Err("the container has no tar; --via shell does without".to_owned());
    }
    Ok(())
}

fn start(session: Session, way: Way, memory: Memory, ask: Ask) -> Opened {
    let (to, input) = mpsc::channel(16);
    let (sender, from) = mpsc::channel(16);
    let said = std::sync::Arc::clone(&session.said);
    let task = tokio::spawn(async move {
        let gone = sender.clone();
        tokio::select! {
            () = serve(session, way, memory, &ask, input, sender) => {}
            () = gone.closed() => {}
        }
    });
    Opened {
        from: FromEnd::Plain(from),
        to: ToEnd::Thread(Some(to)),
        decoder: Decoder::default(),
        thread: Some(task),
        said: Some(said),
    }
}

async fn serve(
    session: Session,
    way: Way,
    memory: Memory,
    ask: &Ask,
    input: mpsc::Receiver<Bytes>,
    sender: mpsc::Sender<Result<Bytes, String>>,
) {
    let end = sender.clone();
    let out = Out { sender, buffer: Vec::new() };
    let served = match ask {
        Ask::Send(spec) => source::send(spec, way, memory, session, input, out).await,
        Ask::Receive(spec) => destination::receive(spec, way, session, input, out).await,
    };
    let last = match served {
        Ok(()) => return,
        Err(Trouble::Lost(why)) => Err(why),
        Err(Trouble::Fatal(message)) => {
            let mut frame = Vec::new();
            match ask {
                Ask::Send(_) => postern_wire::copy::FromSource::Fatal(message).encode(&mut frame),
                Ask::Receive(_) => postern_wire::copy::FromDestination::Fatal(message).encode(&mut frame),
            }
            Ok(frame.into())
        }
    };
    let _ = end.send(last).await; // nobody hears it any more
}
