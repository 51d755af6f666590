//! Ends of a copy without an agent. A translator on our side exchanges the frames of a copy with the other
//! end and runs the container's tools through its shell.
//!
//! Guarantees: each file is compared by hash with what the container's tools read or wrote, or with what they
//! read back, before it gets its name. Limitation: the tools open paths by name, so a process in the
//! container that replaces directories with symlinks during the copy can redirect it, but only within *its
//! own* container. Files on this machine are written by `postern-files` as usual.

#[macro_use]
mod script;

pub mod archive;
mod checksum;
mod destination;
mod error;
mod inspect;
pub mod listing;
mod quoting;
mod resume;
mod session;
mod source;

pub use error::ShellError;
pub use resume::ResumeMarks;
pub use session::{LOOP, Session, ShellOutput};

use bytes::Bytes;
use postern_wire::copy::CopyRequest;
use session::{Lost, Tools};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How content is transferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferMode {
    /// Small files are sent in archives, many at a time.
    pub tar: bool,
    /// Content is verified by hash.
    pub verify: bool,
}

/// A running translator: one end of a copy.
#[derive(Debug)]
pub struct Translator {
    /// Frames from the translator; an error is the reason why it ended.
    pub from: mpsc::Receiver<Result<Bytes, String>>,
    /// Frames to the translator.
    pub to: mpsc::Sender<Bytes>,
    /// The task of the translator; ends with the copy.
    pub task: JoinHandle<()>,
    /// Bytes sent to the shell since the last read of this counter.
    pub sent: Arc<AtomicU64>,
}

/// Frames to the other end.
pub(crate) struct Outbox {
    sender: mpsc::Sender<Result<Bytes, String>>,
    buffer: Vec<u8>,
}

/// Frames are sent once this many bytes are collected.
const FULL: usize = 64 * 1024;

impl Outbox {
    pub(crate) fn put(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        encode(&mut self.buffer);
    }

    /// Flushes if many bytes are collected.
    pub(crate) async fn flush_if_large(&mut self) -> Result<(), Lost> {
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

/// An error that ends the translator.
#[derive(Debug)]
pub(crate) enum TranslatorError {
    /// A connection was lost.
    Lost(String),
    /// Nothing can be copied; the message is for users.
    Fatal(String),
}

impl From<Lost> for TranslatorError {
    fn from(Lost(why): Lost) -> Self {
        Self::Lost(why)
    }
}

impl From<postern_wire::WireError> for TranslatorError {
    fn from(error: postern_wire::WireError) -> Self {
        Self::Lost(error.to_string())
    }
}

/// Starts the translator on a shell that runs [`LOOP`], within `timeout`. Small files use tar if `tar` says
/// so, or if `tar` is `None` and the container has it; the result contains the choice.
pub async fn open(
    (to, from): (mpsc::Sender<Bytes>, mpsc::Receiver<ShellOutput>),
    timeout: Duration,
    tar: Option<bool>,
    verify: bool,
    marks: &ResumeMarks,
    request: &CopyRequest,
) -> Result<(bool, Translator), ShellError> {
    let hello = Session::greet(to, from, if verify { None } else { Some("-") });
    let session = match tokio::time::timeout(timeout, hello).await {
        Ok(session) => session?,
        Err(_) => return Err(ShellError::Session("its shell did not answer in time".to_owned())),
    };
    let way = TransferMode { tar: tar.unwrap_or(session.tools.tar), verify };
    check(&session.tools, way, request).map_err(ShellError::Tools)?;
    Ok((way.tar, start(session, way, marks.clone(), request.clone())))
}

/// Checks the container's tools before anything is changed.
fn check(tools: &Tools, way: TransferMode, request: &CopyRequest) -> Result<(), String> {
    let sending = matches!(request, CopyRequest::Send(_));
    let needed = |tool: &&String| {
        !sending
            || tool.starts_with("dd")
            || tool.starts_with("stat")
            || ["find", "readlink"].contains(&tool.as_str())
    };
    let missing: Vec<&str> = tools.missing.iter().filter(needed).map(String::as_str).collect();
    if !missing.is_empty() {
        return Err(format!(
            "the container lacks {}, which --via tar and --via shell require",
            missing.join(", ")
        ));
    }
    if way.tar && !tools.tar {
        return Err("the container lacks tar; --via shell does not need it".to_owned());
    }
    Ok(())
}

/// Starts the translator on a session.
pub fn start(session: Session, way: TransferMode, marks: ResumeMarks, request: CopyRequest) -> Translator {
    let (to, input) = mpsc::channel(16);
    let (sender, from) = mpsc::channel(16);
    let sent = Arc::clone(&session.sent);
    let task = tokio::spawn(async move {
        let gone = sender.clone();
        tokio::select! {
            () = serve(session, way, marks, &request, input, sender) => {}
            () = gone.closed() => {}
        }
    });
    Translator { from, to, task, sent }
}

async fn serve(
    session: Session,
    way: TransferMode,
    marks: ResumeMarks,
    request: &CopyRequest,
    input: mpsc::Receiver<Bytes>,
    sender: mpsc::Sender<Result<Bytes, String>>,
) {
    let end = sender.clone();
    let out = Outbox { sender, buffer: Vec::new() };
    let served = match request {
        CopyRequest::Send(spec) => source::send(spec, way, marks, session, input, out).await,
        CopyRequest::Receive(spec) => destination::receive(spec, way, session, input, out).await,
    };
    let last = match served {
        Ok(()) => return,
        Err(TranslatorError::Lost(why)) => Err(why),
        Err(TranslatorError::Fatal(message)) => {
            let mut frame = Vec::new();
            match request {
                CopyRequest::Send(_) => postern_wire::copy::FromSource::Fatal(message).encode(&mut frame),
                CopyRequest::Receive(_) => {
                    postern_wire::copy::FromDestination::Fatal(message).encode(&mut frame);
                }
            }
            Ok(frame.into())
        }
    };
    let _ = end.send(last).await; // the receiver may be gone
}
