//! The client side of the agent protocol.
//!
//! It has two tasks, joined by a channel. One reads frames and writes the local outputs. The other sends stdin,
//! signals and heartbeats. Neither waits for the other, so a slow reader of the output never stops the heartbeats.

mod sending;

use crate::error::ExecError;
use crate::io::{Control, Sink, Streams};
use crate::transport::{Incoming, Reader, Writer};
use bytes::Bytes;
use postern_wire::{Decoder, Failure, FromAgent, Hello, Outcome, Request, Trailer};
use sending::ToWriter;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// If an agent sends nothing for this long, it is treated as lost: it sends a heartbeat each second.
const AGENT_SILENCE: Duration = Duration::from_secs(10);

/// How long to wait for an agent to start. The runtime starts one command of a container at a time, within the
/// container's CPU limit. Behind many other commands that takes minutes, and an abandoned command stays in the
/// runtime's queue.
pub(crate) const START: Start =
    Start { notice: Duration::from_secs(3), limit: Duration::from_millis(postern_wire::FIRST_SILENCE_MS) };

/// See [`START`].
pub(crate) struct Start {
    /// How often the wait is reported.
    pub(crate) notice: Duration,
    /// The longest wait.
    pub(crate) limit: Duration,
}

impl Start {
    /// Returns the error for an agent that was not started in this time.
    pub(crate) fn timed_out(&self) -> ExecError {
        ExecError::NoAgent(format!("the pod did not start the agent within {} s", self.limit.as_secs()))
    }
}

/// Progress before the command starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice<'a> {
    /// The pod has not started the agent yet; the time waited so far.
    Queued(Duration),
    /// The agent's current step.
    Agent(&'a str),
    /// The command has started.
    Started,
}

/// The limit before the command has started, when the agent may wait for CPU time on a busy node.
const START_SILENCE: Duration = Duration::from_secs(60);

/// After a kill, the time limit for the trailer.
const KILL_LIMIT: Duration = Duration::from_secs(3);

/// The time limit for closing an abandoned session.
const RELEASE_LIMIT: Duration = Duration::from_millis(500);

/// The maximum number of diagnostic bytes kept, which the pod sent outside the protocol.
const DIAGNOSTICS: usize = 2_000;

/// How a command ended by itself. A time-out is [`ExecError::TimedOut`] instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this code.
    Exited(u8),
    /// It was ended by this signal.
    Signaled(u8),
}

impl Ended {
    /// Returns the exit code that a shell would report.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled(number) => number.saturating_add(128),
        }
    }
}

/// How a command ended that the agent supervised; its output is complete and verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How it ended.
    pub outcome: Ended,
    /// Bytes of stdout.
    pub stdout_bytes: u64,
    /// Bytes of stderr.
    pub stderr_bytes: u64,
    /// Processes that the command left behind, and that the agent ended.
    pub left_behind: u32,
    /// The agent's version.
    pub agent_version: String,
}

/// A request, with the local files that its `files` announce, in the same order.
#[derive(Debug)]
pub struct Run {
    /// What to run.
    pub request: Request,
    /// The files' local paths.
    pub files: Vec<PathBuf>,
}

/// The maximum size of a command and its environment: one frame, minus the rest of a request.
const LONGEST_REQUEST: usize = postern_wire::MAX_PAYLOAD - 64 * 1024;

/// The maximum size of one argument or variable, with its NUL (`MAX_ARG_STRLEN`, execve(2)).
const LONGEST_WORD: usize = 128 * 1024;

/// Rejects, before anything is sent, a request that cannot be sent or started.
pub fn check(request: &Request) -> Result<(), ExecError> {
    let variables = request.env.iter().chain(&request.secret_env);
    let variables = variables.map(|(name, value)| name.len() + value.len() + 1);
    let words = request.argv.iter().map(Vec::len).chain(variables).map(|length| length + 1);
    let (all, longest) = words.fold((0, 0), |(all, longest), word| (all + word, word.max(longest)));
    match () {
        () if longest > LONGEST_WORD => {
            Err(ExecError::TooLong { what: "an argument or variable", bytes: longest, limit: LONGEST_WORD })
        }
        () if all > LONGEST_REQUEST => Err(ExecError::TooLong {
            what: "the command with its environment",
            bytes: all,
            limit: LONGEST_REQUEST,
        }),
        () => Ok(()),
    }
}

/// Runs a command through an agent that is being started in the pod.
pub async fn run(
    reader: impl Reader,
    writer: impl Writer,
    run: Run,
    streams: Streams,
    control: mpsc::Receiver<Control>,
) -> Result<Report, ExecError> {
    run_with_notices(reader, writer, run, streams, control, |_| ()).await
}

/// Like [`run`], and reports the progress before the command starts.
pub async fn run_with_notices(
    reader: impl Reader,
    writer: impl Writer,
    run: Run,
    streams: Streams,
    control: mpsc::Receiver<Control>,
    notice: impl FnMut(Notice<'_>),
) -> Result<Report, ExecError> {
    check(&run.request)?;
    let Streams { stdin, stdout, stderr } = streams;
    let (to_writer, from_reader) = mpsc::channel(64);
    let (killed, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let timeout_ms = run.request.timeout_ms;
    let sending =
        sending::send_all(writer, run, stdin, control, from_reader, (killed.clone(), answered.clone()));
    let receiving = Receiving {
        reader,
        decoder: Decoder::default(),
        to_writer,
        stdout: Stream::new("stdout", Sink::new(stdout)),
        stderr: Stream::new("stderr", Sink::new(stderr)),
        hello: None,
        started: false,
        diagnostics: Vec::new(),
        killed: killed.clone(),
        answered,
        timeout_ms,
        notice,
    };
    tokio::pin!(sending);
    let result = tokio::select! {
        biased;
        result = receiving.all() => {
            // A request that is abandoned here must not start later, when the runtime gets to it.
            if result.is_err() {
                let _ = tokio::time::timeout(RELEASE_LIMIT, &mut sending).await;
            }
            result
        }
        // The sender ends first only with an error of its own.
        error = &mut sending => Err(error),
    };
    if killed.load(Ordering::Relaxed) {
        return Err(ExecError::Cancelled(""));
    }
    result
}

struct Stream {
    name: &'static str,
    sink: Sink,
    bytes: u64,
    hasher: blake3::Hasher,
}

impl Stream {
    fn new(name: &'static str, sink: Sink) -> Self {
        Self { name, sink, bytes: 0, hasher: blake3::Hasher::new() }
    }

    async fn take(&mut self, data: Bytes) -> Result<(), ExecError> {
        self.bytes += data.len() as u64;
        self.hasher.update(&data);
        self.sink.write(data).await
    }

    async fn verify(&mut self, sent: u64, hash: [u8; 32]) -> Result<(), ExecError> {
        if sent != self.bytes || hash != *self.hasher.finalize().as_bytes() {
            return Err(ExecError::Corrupt { stream: self.name, sent, received: self.bytes });
        }
        self.sink.finish().await
    }
}

struct Receiving<R, N> {
    reader: R,
    decoder: Decoder,
    to_writer: mpsc::Sender<ToWriter>,
    stdout: Stream,
    stderr: Stream,
    hello: Option<Hello>,
    started: bool,
    diagnostics: Vec<u8>,
    killed: Arc<AtomicBool>,
    /// The agent has sent its hello.
    answered: Arc<AtomicBool>,
    timeout_ms: u64,
    notice: N,
}

/// A frame that the loop must act on after the decoder's borrow has ended.
enum Step {
    Output(bool, Bytes),
    Window(u32),
    Trailer(Trailer),
    Failure(Failure),
    Nothing,
}

impl<R: Reader, N: FnMut(Notice<'_>)> Receiving<R, N> {
    async fn all(mut self) -> Result<Report, ExecError> {
        let began = tokio::time::Instant::now();
        loop {
            if self.hello.is_none() && !self.killed.load(Ordering::Relaxed) {
                match tokio::time::timeout(self.until_notice(began.elapsed()), self.reader.next()).await {
                    Ok(incoming) => {
                        if let Some(report) = self.receive(incoming).await? {
                            return Ok(report);
                        }
                    }
                    Err(_) => self.queued(began.elapsed())?,
                }
                continue;
            }
            let limit = match self.started {
                _ if self.killed.load(Ordering::Relaxed) => KILL_LIMIT,
                false => START_SILENCE,
                true => AGENT_SILENCE,
            };
            let Ok(incoming) = tokio::time::timeout(limit, self.reader.next()).await else {
                if !self.killed.load(Ordering::Relaxed) && self.reader.connection_lives(limit) {
                    continue;
                }
                let seconds = limit.as_secs();
                return Err(self
                    .connection_error(format!("no sign of life from the pod for {seconds} s"))
                    .await);
            };
            if let Some(report) = self.receive(incoming).await? {
                return Ok(report);
            }
        }
    }

    /// Handles `incoming`. Returns how the command ended, if it did.
    async fn receive(&mut self, incoming: Incoming) -> Result<Option<Report>, ExecError> {
        match incoming {
            Incoming::Bytes(bytes) => self.decoder.push(&bytes),
            Incoming::Diagnostics(text) => {
                let room = DIAGNOSTICS.saturating_sub(self.diagnostics.len());
                self.diagnostics.extend_from_slice(&text[..text.len().min(room)]);
            }
            Incoming::Ended(how) => return Err(self.connection_error(how).await),
            Incoming::NotStarted(why) if self.hello.is_none() => return Err(ExecError::Runtime(why)),
            Incoming::NotStarted(why) => return Err(self.connection_error(why).await),
        }
        self.frames().await
    }

    /// Returns the time limit for the start of the agent. The command's own time limit applies too.
    fn start_limit(&self) -> Duration {
        match self.timeout_ms {
            0 => START.limit,
            limit => START.limit.min(Duration::from_millis(limit)),
        }
    }

    fn until_notice(&self, waited: Duration) -> Duration {
        START.notice.min(self.start_limit().saturating_sub(waited))
    }

    /// The agent has not started yet: reports that, or returns the error at the limit.
    fn queued(&mut self, waited: Duration) -> Result<(), ExecError> {
        if waited < self.start_limit() {
            (self.notice)(Notice::Queued(waited));
            return Ok(());
        }
        let limit = self.start_limit();
        if limit == Duration::from_millis(self.timeout_ms) {
            return Err(ExecError::TimedOut { limit, note: "; the pod did not start it" });
        }
        Err(START.timed_out())
    }

    async fn frames(&mut self) -> Result<Option<Report>, ExecError> {
        loop {
            match self.step().map_err(|error| self.protocol_error(&error))? {
                None => return Ok(None),
                Some(Step::Nothing) => {}
                Some(Step::Output(true, data)) => self.stdout.take(data).await?,
                Some(Step::Output(false, data)) => self.stderr.take(data).await?,
                Some(Step::Window(bytes)) => {
                    let _ = self.to_writer.send(ToWriter::Window(bytes)).await;
                }
                Some(Step::Failure(failure)) => {
                    self.release().await;
                    return Err(ExecError::NotStarted(failure));
                }
                Some(Step::Trailer(trailer)) => return self.end(trailer).await.map(Some),
            }
        }
    }

    fn step(&mut self) -> Result<Option<Step>, postern_wire::WireError> {
        let Some((kind, payload)) = self.decoder.next_frame()? else { return Ok(None) };
        let frame = FromAgent::decode(kind, payload)?;
        let step = match frame {
            FromAgent::Hello(hello) => {
                self.hello = Some(hello);
                self.answered.store(true, Ordering::Relaxed);
                Step::Nothing
            }
            // Any output can begin with bytes that look like a frame. Only a hello shows that it is one.
            _ if self.hello.is_none() => {
                return Err(postern_wire::WireError::NotAnAgent("a frame before its hello".to_owned()));
            }
            FromAgent::Started(_) => {
                self.started = true;
                (self.notice)(Notice::Started);
                Step::Nothing
            }
            FromAgent::Stdout(data) => Step::Output(true, Bytes::copy_from_slice(data)),
            FromAgent::Stderr(data) => Step::Output(false, Bytes::copy_from_slice(data)),
            FromAgent::Window(bytes) => Step::Window(bytes),
            FromAgent::Heartbeat => Step::Nothing,
            FromAgent::Notice(text) => {
                if !self.started {
                    (self.notice)(Notice::Agent(text));
                }
                Step::Nothing
            }
            FromAgent::Trailer(trailer) => Step::Trailer(trailer),
            FromAgent::Failure(failure) => Step::Failure(failure),
        };
        Ok(Some(step))
    }

    async fn end(&mut self, trailer: Trailer) -> Result<Report, ExecError> {
        let Trailer { outcome, stdout_bytes, stderr_bytes, stdout_hash, stderr_hash, left_behind } = trailer;
        self.release().await;
        self.stdout.verify(stdout_bytes, stdout_hash).await?;
        self.stderr.verify(stderr_bytes, stderr_hash).await?;
        let outcome = match outcome {
            Outcome::Exited(code) => Ended::Exited(code),
            Outcome::Signaled(number) => Ended::Signaled(number),
            Outcome::TimedOut => {
                let limit = Duration::from_millis(self.timeout_ms);
                return Err(ExecError::TimedOut { limit, note: "; it was ended" });
            }
        };
        let agent_version = self.hello.take().map(|hello| hello.agent_version).unwrap_or_default();
        Ok(Report { outcome, stdout_bytes, stderr_bytes, left_behind, agent_version })
    }

    /// Sends the agent the message that lets it exit. The message must be sent before the client exits, or the agent
    /// would wait.
    async fn release(&mut self) {
        if self.to_writer.send(ToWriter::Done).await.is_ok() {
            let closed = tokio::time::timeout(Duration::from_millis(500), self.to_writer.closed());
            let _ = closed.await;
        }
    }

    /// Writes out what has arrived before it returns the error, so that the error is printed last.
    async fn connection_error(&mut self, how: String) -> ExecError {
        let _ = self.stdout.sink.finish().await;
        let _ = self.stderr.sink.finish().await;
        let diagnostics = String::from_utf8_lossy(&self.diagnostics);
        let diagnostics =
            if diagnostics.is_empty() { String::new() } else { format!(" ({})", diagnostics.trim()) };
        match (&self.hello, self.started) {
            (None, _) => ExecError::NoAgent(format!("the agent did not answer: {how}{diagnostics}")),
            (Some(_), false) => {
                ExecError::NoAgent(format!("the agent did not start the command: {how}{diagnostics}"))
            }
            (Some(_), true) => ExecError::Broke(format!("{how}{diagnostics}")),
        }
    }

    fn protocol_error(&self, error: &postern_wire::WireError) -> ExecError {
        if self.started {
            ExecError::Broke(format!("the agent's stream is damaged: {error}"))
        } else {
            ExecError::NoAgent(error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Output;

    /// An agent that starts a command and then sends nothing, on a connection that other sessions use for `lives`.
    struct Silent {
        frames: Option<Bytes>,
        lives: Duration,
        began: tokio::time::Instant,
    }

    impl Silent {
        fn new(lives: Duration) -> Self {
            let mut frames = Vec::new();
            FromAgent::Hello(Hello { agent_version: String::new() }).encode(&mut frames);
            FromAgent::Started(1).encode(&mut frames);
            Self { frames: Some(frames.into()), lives, began: tokio::time::Instant::now() }
        }
    }

    impl Reader for Silent {
        async fn next(&mut self) -> Incoming {
            match self.frames.take() {
                Some(frames) => Incoming::Bytes(frames),
                None => std::future::pending().await,
            }
        }

        fn connection_lives(&self, within: Duration) -> bool {
            self.began.elapsed() < self.lives + within
        }
    }

    /// Whether the writer was closed.
    #[derive(Default, Clone)]
    struct Sent(Arc<AtomicBool>);

    impl Writer for Sent {
        async fn send(&mut self, _: &[u8]) -> Result<(), String> {
            Ok(())
        }
        async fn close(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_run_is_lost_when_its_connection_is_and_is_let_go() {
        let began = tokio::time::Instant::now();
        let (sent, (_stop, control)) = (Sent::default(), mpsc::channel(1));
        let run = Run {
            request: Request { argv: vec![b"true".to_vec()], ..Request::default() },
            files: Vec::new(),
        };
        let streams =
            Streams { stdin: None, stdout: Output::to(std::io::sink()), stderr: Output::to(std::io::sink()) };
        let reader = Silent::new(Duration::from_secs(60));
        let error = super::run(reader, sent.clone(), run, streams, control).await.unwrap_err();
        assert!(error.to_string().contains("no sign of life"), "{error}");
        assert!(began.elapsed() > Duration::from_secs(60), "others were heard of for so long");
        assert!(sent.0.load(Ordering::Relaxed));
    }

    #[test]
    fn what_is_too_long_is_refused_before_anything_is_sent() {
        let request = |argv: Vec<Vec<u8>>, env| Request { argv, env, ..Request::default() };
        let word = |length| vec![b'x'; length];
        assert!(check(&request(vec![word(LONGEST_WORD - 1)], Vec::new())).is_ok());
        let error = check(&request(vec![word(LONGEST_WORD)], Vec::new())).unwrap_err();
        assert_eq!(error.exit_code(), crate::error::exit::USAGE);
        assert!(error.to_string().contains("131073 bytes, and at most 131072"), "{error}");
        let many = (0..20).map(|_| (b"N".to_vec(), word(60_000))).collect();
        assert!(
            check(&request(vec![b"true".to_vec()], many)).unwrap_err().to_string().contains("environment")
        );
    }
}
