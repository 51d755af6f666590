//! Ends without an agent: a translator of ours speaks the frames of a copy to the other end, and drives the tools of the
//! container through its shell.
//!
//! What such an end promises: each file is compared by hash with what the tools in the container read or wrote, or read
//! back; nothing has its name before that. What it cannot: the tools open paths by name, so that a process in the
//! container which swaps directories for symlinks meanwhile decides where in *its own* container things go. This
//! machine's files are written by `postern-files` as ever.

#[macro_use]
mod script;

pub mod archive;
mod destination;
mod error;
pub mod listing;
mod memory;
mod quoting;
mod session;
mod source;
mod sum;

pub use error::ShellError;
pub use memory::Memory;
pub use session::{Heard, LOOP, Session};

use bytes::Bytes;
use postern_wire::copy::CopyRequest;
use session::{Lost, Tools};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How content travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// Small files in archives, many at a time.
    pub tar: bool,
    /// What was written and read is compared by hash.
    pub verify: bool,
}

/// A running translator: one end of a copy.
#[derive(Debug)]
pub struct Translator {
    /// Its frames; an error says why it ended.
    pub from: mpsc::Receiver<Result<Bytes, String>>,
    /// Frames for it.
    pub to: mpsc::Sender<Bytes>,
    /// Ends with the copy.
    pub task: JoinHandle<()>,
    /// Bytes sent to the shell since this was last read.
    pub said: Arc<AtomicU64>,
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

/// Starts the translator on a shell that runs [`LOOP`], within `timeout`. Small files go by tar where `tar` says so, or
/// where that is left open and the container has it; the result says which.
pub async fn open(
    (to, from): (mpsc::Sender<Bytes>, mpsc::Receiver<Heard>),
    timeout: Duration,
    tar: Option<bool>,
    verify: bool,
    memory: &Memory,
    ask: &CopyRequest,
) -> Result<(bool, Translator), ShellError> {
    let hello = Session::greet(to, from, if verify { None } else { Some("-") });
    let session = match tokio::time::timeout(timeout, hello).await {
        Ok(session) => session?,
        Err(_) => return Err(ShellError::Session("its shell did not answer in time".to_owned())),
    };
    let way = Way { tar: tar.unwrap_or(session.tools.tar), verify };
    check(&session.tools, way, ask).map_err(ShellError::Tools)?;
    Ok((way.tar, start(session, way, memory.clone(), ask.clone())))
}

/// What the container has to have; refused before anything is changed.
fn check(tools: &Tools, way: Way, ask: &CopyRequest) -> Result<(), String> {
    let sending = matches!(ask, CopyRequest::Send(_));
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

/// Starts the translator on a session.
pub fn start(session: Session, way: Way, memory: Memory, ask: CopyRequest) -> Translator {
    let (to, input) = mpsc::channel(16);
    let (sender, from) = mpsc::channel(16);
    let said = Arc::clone(&session.said);
    let task = tokio::spawn(async move {
        let gone = sender.clone();
        tokio::select! {
            () = serve(session, way, memory, &ask, input, sender) => {}
            () = gone.closed() => {}
        }
    });
    Translator { from, to, task, said }
}

async fn serve(
    session: Session,
    way: Way,
    memory: Memory,
    ask: &CopyRequest,
    input: mpsc::Receiver<Bytes>,
    sender: mpsc::Sender<Result<Bytes, String>>,
) {
    let end = sender.clone();
    let out = Out { sender, buffer: Vec::new() };
    let served = match ask {
        CopyRequest::Send(spec) => source::send(spec, way, memory, session, input, out).await,
        CopyRequest::Receive(spec) => destination::receive(spec, way, session, input, out).await,
    };
    let last = match served {
        Ok(()) => return,
        Err(Trouble::Lost(why)) => Err(why),
        Err(Trouble::Fatal(message)) => {
            let mut frame = Vec::new();
            match ask {
                CopyRequest::Send(_) => postern_wire::copy::FromSource::Fatal(message).encode(&mut frame),
                CopyRequest::Receive(_) => {
                    postern_wire::copy::FromDestination::Fatal(message).encode(&mut frame);
                }
            }
            Ok(frame.into())
        }
    };
    let _ = end.send(last).await; // nobody hears it any more
}
