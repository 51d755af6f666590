//! Many runs in the ops pod over one connection: its agent starts them itself.
//!
//! [`open`] proves a [`Key`] to the agent over a port-forward. [`by_exec`] starts one agent for all runs with the
//! runtime's exec. Each returns a [`Connection`]. Each [`Connection::session`] is a reader and a writer for one run,
//! with the same frames as an exec. Sessions share the connection and nothing else: each session has its own credit
//! for what the agent sends.

mod key;
mod pem;

pub use key::{Key, KeyError};

use crate::error::ExecError;
use crate::session::START;
use crate::transport::{Incoming, Reader, Writer};
use bytes::Bytes;
use postern_kube::exec::{ExecReader, ExecWriter};
use postern_kube::portforward::{PortBroke, PortReader, PortWriter};
use postern_wire::stream::{Challenge, Nonce, StreamHello, Verdict, signed};
use postern_wire::{CHUNK, Decoder, FromAgent, Mux, SESSION_CREDIT};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// The time limit for each step of the handshake, which takes one round trip.
const STEP_LIMIT: Duration = Duration::from_secs(10);

/// Why there is no stream to the agent.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The connection was lost.
    #[error("{0}")]
    Broke(String),
    /// No answer arrived.
    #[error("the agent's listener did not answer within {} s", STEP_LIMIT.as_secs())]
    Silent,
    /// The peer does not speak the protocol.
    #[error("what listens in the pod is not an agent of this release")]
    NotAnAgent,
    /// The pod does not accept the key.
    #[error("the agent refused the key: it is not authorized in this pod, or meant for another installation")]
    Refused,
    /// The agent has no free connection.
    #[error("the agent has reached its limit of connections")]
    Busy,
    /// The pod is being stopped.
    #[error("the pod is being stopped and takes no more commands")]
    Stopping,
    /// No randomness or no signature.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl From<PortBroke> for StreamError {
    fn from(error: PortBroke) -> Self {
        Self::Broke(error.to_string())
    }
}

/// An authenticated connection to the agent. Dropping it, and every session of it, closes it.
#[derive(Debug)]
pub struct Connection {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// With the number of the last session: the agent accepts the numbers in order only.
    writer: tokio::sync::Mutex<(Out, u32)>,
    /// The receiver of each session's bytes. Bounded by the session's credit.
    sessions: Mutex<HashMap<u32, mpsc::UnboundedSender<Incoming>>>,
    /// How the connection ended.
    ended: Mutex<Option<String>>,
    /// When anything last arrived.
    last_received: Mutex<Instant>,
    reading: Mutex<Option<tokio::task::AbortHandle>>,
}

/// Proves `key` to the agent at the other end, for `audience` (see [`postern_wire::stream::audience`]).
pub async fn open(
    mut reader: PortReader,
    mut writer: PortWriter,
    key: &Key,
    audience: &str,
) -> Result<Connection, StreamError> {
    let hello = StreamHello { key: key.public(), nonce: key::random::<{ size_of::<Nonce>() }>()? };
    writer.send(&hello.encode()).await?;
    let mut received = Received { reader: &mut reader, bytes: Vec::new() };
    let challenge = received.exactly::<{ Challenge::SIZE }>().await?;
    let challenge = Challenge::decode(&challenge).ok_or(StreamError::NotAnAgent)?;
    writer.send(&key.sign(&signed(audience, &hello, &challenge))).await?;
    let [verdict] = received.exactly::<1>().await?;
    match Verdict::decode(verdict) {
        Some(Verdict::Welcome) => {}
        Some(Verdict::Refused) => return Err(StreamError::Refused),
        Some(Verdict::Busy) => return Err(StreamError::Busy),
        Some(Verdict::Stopping) => return Err(StreamError::Stopping),
        None => return Err(StreamError::NotAnAgent),
    }
    let mut decoder = Decoder::default();
    decoder.push(&received.bytes);
    Ok(Connection::new(In::Port(reader), Out::Port(writer), decoder))
}

/// Opens a connection with an exec of `postern-agent multiplex`. The exec waits in the runtime's queue; `queued` gets
/// the time waited so far, every few seconds.
pub async fn by_exec(
    (mut reader, writer): (ExecReader, ExecWriter),
    mut queued: impl FnMut(Duration),
) -> Result<Connection, ExecError> {
    let began = tokio::time::Instant::now();
    let mut decoder = Decoder::default();
    let mut diagnostics = String::new();
    loop {
        match decoder.next_frame() {
            Ok(None) => {}
            Ok(Some((kind, payload))) => match FromAgent::decode(kind, payload) {
                Ok(FromAgent::Hello(_)) => break,
                Ok(_) => {
                    return Err(ExecError::NoAgent("what answered did not begin with a hello".to_owned()));
                }
                Err(error) => return Err(ExecError::NoAgent(error.to_string())),
            },
            Err(error) => return Err(ExecError::NoAgent(error.to_string())),
        }
        let next = tokio::time::timeout(START.notice, Reader::next(&mut reader)).await;
        match next {
            Err(_) if began.elapsed() >= START.limit => return Err(START.timed_out()),
            Err(_) => queued(began.elapsed()),
            Ok(Incoming::Bytes(bytes)) => decoder.push(&bytes),
            Ok(Incoming::Diagnostics(bytes)) if diagnostics.len() < 2_000 => {
                diagnostics.push_str(&String::from_utf8_lossy(&bytes));
            }
            Ok(Incoming::Diagnostics(_)) => {}
            Ok(Incoming::NotStarted(why)) => return Err(ExecError::Runtime(why)),
            Ok(Incoming::Ended(why)) if diagnostics.trim().is_empty() => return Err(ExecError::NoAgent(why)),
            Ok(Incoming::Ended(why)) => {
                return Err(ExecError::NoAgent(format!("{why}; it diagnostics: {}", diagnostics.trim())));
            }
        }
    }
    Ok(Connection::new(In::Exec(Box::new(reader)), Out::Exec(Box::new(writer)), decoder))
}

/// Bytes from the agent.
enum In {
    Port(PortReader),
    Exec(Box<ExecReader>),
}

impl In {
    /// Returns what arrives next, or why the stream ended.
    async fn next(&mut self) -> Result<Bytes, String> {
        match self {
            Self::Port(reader) => match reader.next().await {
                Ok(Some(bytes)) => Ok(bytes),
                Ok(None) => Err("the connection to the agent was closed".to_owned()),
                Err(error) => Err(error.to_string()),
            },
            Self::Exec(reader) => loop {
                match Reader::next(&mut **reader).await {
                    Incoming::Bytes(bytes) => return Ok(bytes),
                    Incoming::Diagnostics(_) => {} // only frames are expected
                    Incoming::Ended(why) | Incoming::NotStarted(why) => return Err(why),
                }
            },
        }
    }
}

/// Bytes to the agent.
#[derive(Debug)]
enum Out {
    Port(PortWriter),
    Exec(Box<ExecWriter>),
}

impl Out {
    async fn send(&mut self, messages: &[u8]) -> Result<(), String> {
        match self {
            Self::Port(writer) => writer.send(messages).await.map_err(|error| error.to_string()),
            Self::Exec(writer) => Writer::send(&mut **writer, messages).await,
        }
    }
}

struct Received<'a> {
    reader: &'a mut PortReader,
    bytes: Vec<u8>,
}

impl Received<'_> {
    async fn exactly<const N: usize>(&mut self) -> Result<[u8; N], StreamError> {
        loop {
            if let Some((found, rest)) = self.bytes.split_first_chunk::<N>() {
                let found = *found;
                self.bytes = rest.to_vec();
                return Ok(found);
            }
            let next = tokio::time::timeout(STEP_LIMIT, self.reader.next()).await;
            match next.map_err(|_| StreamError::Silent)?? {
                Some(bytes) => self.bytes.extend_from_slice(&bytes),
                None => return Err(StreamError::Broke("the connection to the agent was closed".to_owned())),
            }
        }
    }
}

/// Passes each session its bytes, until the connection ends or no session is left.
async fn read_all(mut reader: In, mut decoder: Decoder, shared: std::sync::Weak<Shared>) {
    let how = loop {
        let Some(alive) = shared.upgrade() else { return };
        if let Ok(mut last_received) = alive.last_received.lock() {
            *last_received = Instant::now();
        }
        if let Err(error) = alive.take(&mut decoder) {
            break format!("the agent's stream is damaged: {error}");
        }
        drop(alive);
        match reader.next().await {
            Ok(bytes) => decoder.push(&bytes),
            Err(why) => break why,
        }
    };
    let Some(shared) = shared.upgrade() else { return };
    if let (Ok(mut ended), Ok(mut sessions)) = (shared.ended.lock(), shared.sessions.lock()) {
        for (_, session) in sessions.drain() {
            let _ = session.send(Incoming::Ended(how.clone()));
        }
        *ended = Some(how);
    }
}

impl Shared {
    fn take(&self, decoder: &mut Decoder) -> Result<(), postern_wire::WireError> {
        while let Some((kind, payload)) = decoder.next_frame()? {
            match Mux::decode(kind, payload)? {
                Mux::Data(id, bytes) => self.give(id, Incoming::Bytes(Bytes::copy_from_slice(bytes))),
                Mux::Close(id) => {
                    self.give(
                        id,
                        Incoming::Ended("the agent ended the session before its trailer".to_owned()),
                    );
                    self.forget(id);
                }
                // Only the client sends these.
                Mux::Open(_) | Mux::Credit(..) => return Err(postern_wire::WireError::UnknownKind(kind)),
            }
        }
        Ok(())
    }

    fn give(&self, id: u32, incoming: Incoming) {
        if let Ok(sessions) = self.sessions.lock()
            && let Some(session) = sessions.get(&id)
        {
            let _ = session.send(incoming);
        }
    }

    fn forget(&self, id: u32) {
        if let Ok(mut sessions) = self.sessions.lock() {
            sessions.remove(&id);
        }
    }

    async fn send(&self, messages: &[u8]) -> Result<(), String> {
        self.writer.lock().await.0.send(messages).await
    }

    /// Begins a session with its first messages, which `encode` builds from its number.
    async fn begin(
        &self,
        number: &AtomicU32,
        session: mpsc::UnboundedSender<Incoming>,
        encode: impl FnOnce(u32) -> Vec<u8>,
    ) -> Result<(), String> {
        let (writer, last) = &mut *self.writer.lock().await;
        *last += 1;
        number.store(*last, Ordering::Relaxed);
        if let (Ok(ended), Ok(mut sessions)) = (self.ended.lock(), self.sessions.lock()) {
            match &*ended {
                Some(how) => drop(session.send(Incoming::Ended(how.clone()))),
                None => drop(sessions.insert(*last, session)),
            }
        }
        writer.send(&encode(*last)).await
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The reader has the other half of the socket: without both halves it is closed.
        if let Ok(mut reading) = self.reading.lock()
            && let Some(reading) = reading.take()
        {
            reading.abort();
        }
    }
}

impl Connection {
    fn new(reader: In, writer: Out, decoder: Decoder) -> Self {
        let shared = Arc::new(Shared {
            writer: tokio::sync::Mutex::new((writer, 0)),
            sessions: Mutex::default(),
            ended: Mutex::default(),
            last_received: Mutex::new(Instant::now()),
            reading: Mutex::default(),
        });
        let reading = tokio::spawn(read_all(reader, decoder, Arc::downgrade(&shared))).abort_handle();
        if let Ok(mut slot) = shared.reading.lock() {
            *slot = Some(reading);
        }
        Self { shared }
    }

    /// Whether the connection has ended, so that it can start no more sessions.
    pub fn is_over(&self) -> bool {
        self.shared.ended.lock().map_or(true, |ended| ended.is_some())
    }

    /// Returns a new session for one run. The agent learns of it from its first frame.
    pub fn session(&self) -> (SessionReader, SessionWriter) {
        let (session, incoming) = mpsc::unbounded_channel();
        let (shared, number) = (&self.shared, Arc::new(AtomicU32::new(0)));
        let reader =
            SessionReader { shared: Arc::clone(shared), number: Arc::clone(&number), incoming, unpaid: 0 };
        let session = Some(session);
        (reader, SessionWriter { shared: Arc::clone(shared), number, session, closed: false })
    }
}

/// The reading half of a session.
#[derive(Debug)]
pub struct SessionReader {
    shared: Arc<Shared>,
    /// 0 until it has begun.
    number: Arc<AtomicU32>,
    incoming: mpsc::UnboundedReceiver<Incoming>,
    /// Bytes returned to the caller for which the agent has no credit yet.
    unpaid: usize,
}

/// The writing half of a session.
#[derive(Debug)]
pub struct SessionWriter {
    shared: Arc<Shared>,
    number: Arc<AtomicU32>,
    /// Where its reader gets its bytes, until the session has begun.
    session: Option<mpsc::UnboundedSender<Incoming>>,
    closed: bool,
}

impl Reader for SessionReader {
    async fn next(&mut self) -> Incoming {
        // A caller that reads on has processed what arrived before.
        if self.unpaid >= SESSION_CREDIT / 4 {
            let mut message = Vec::new();
            Mux::Credit(self.number.load(Ordering::Relaxed), u32::try_from(self.unpaid).unwrap_or(u32::MAX))
                .encode(&mut message);
            self.unpaid = 0;
            // If the connection accepts no more, the reader gets the error.
            let _ = self.shared.send(&message).await;
        }
        let incoming = self.incoming.recv().await;
        let incoming = incoming.unwrap_or_else(|| Incoming::Ended("the connection was closed".to_owned()));
        if let Incoming::Bytes(bytes) = &incoming {
            self.unpaid += bytes.len();
        }
        incoming
    }

    fn connection_lives(&self, within: Duration) -> bool {
        self.shared.last_received.lock().is_ok_and(|last_received| last_received.elapsed() < within)
    }
}

impl Drop for SessionReader {
    fn drop(&mut self) {
        self.shared.forget(self.number.load(Ordering::Relaxed));
    }
}

impl Writer for SessionWriter {
    async fn send(&mut self, frames: &[u8]) -> Result<(), String> {
        let mut messages = Vec::with_capacity(frames.len() + 64);
        let data = |number, messages: &mut Vec<u8>| {
            frames.chunks(CHUNK).for_each(|piece| Mux::Data(number, piece).encode(messages));
        };
        if let Some(session) = self.session.take() {
            let first = |number| {
                Mux::Open(number).encode(&mut messages);
                data(number, &mut messages);
                messages
            };
            return self.shared.begin(&self.number, session, first).await;
        }
        data(self.number.load(Ordering::Relaxed), &mut messages);
        self.shared.send(&messages).await
    }

    async fn close(&mut self) {
        if self.session.is_none() && !std::mem::replace(&mut self.closed, true) {
            let mut message = Vec::new();
            Mux::Close(self.number.load(Ordering::Relaxed)).encode(&mut message);
            let _ = self.shared.send(&message).await;
        }
    }
}
