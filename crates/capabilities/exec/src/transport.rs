//! The transport of a session: an exec stream, or a local process.

use bytes::{Bytes, BytesMut};
use postern_kube::exec::{ExecEnd, ExecEvent, ExecReader, ExecWriter};
use std::future::Future;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStdin, ChildStdout, Command};

/// Bytes from the agent, or how the stream ended.
#[derive(Debug)]
pub enum Incoming {
    /// Frames, split at any byte.
    Bytes(Bytes),
    /// Output outside the protocol, such as an error of the dynamic loader.
    Diagnostics(Bytes),
    /// The end, in words.
    Ended(String),
    /// The agent could not be started.
    NotStarted(String),
}

/// The reading half.
pub trait Reader: Send {
    /// Returns what arrives next. Must not be called again after an end.
    fn next(&mut self) -> impl Future<Output = Incoming> + Send;

    /// Whether anything arrived within `_within` on the connection that this session shares with others. This
    /// session's data may be queued behind it.
    fn connection_lives(&self, _within: Duration) -> bool {
        false
    }
}

/// The writing half.
pub trait Writer: Send {
    /// Sends frames. The error says why the agent accepts no more.
    fn send(&mut self, frames: &[u8]) -> impl Future<Output = Result<(), String>> + Send;
    /// Closes the stream in order.
    fn close(&mut self) -> impl Future<Output = ()> + Send;
}

impl Reader for ExecReader {
    async fn next(&mut self) -> Incoming {
        loop {
            return match ExecReader::next(self).await {
                Ok(Some(ExecEvent::Stdout(bytes))) => Incoming::Bytes(bytes),
                Ok(Some(ExecEvent::Stderr(bytes))) => Incoming::Diagnostics(bytes),
                Ok(Some(ExecEvent::Alive)) => continue,
                Ok(Some(ExecEvent::End(ExecEnd::Exited(code)))) => {
                    Incoming::Ended(format!("the agent ended with code {code} before its trailer"))
                }
                Ok(Some(ExecEvent::End(ExecEnd::Failed(message)))) => Incoming::NotStarted(message),
                Ok(None) => Incoming::Ended("the stream was closed".to_owned()),
                Err(error) => Incoming::Ended(error.to_string()),
            };
        }
    }
}

impl Writer for ExecWriter {
    async fn send(&mut self, frames: &[u8]) -> Result<(), String> {
        self.stdin(frames).await.map_err(|error| error.to_string())
    }

    async fn close(&mut self) {
        ExecWriter::close(self).await;
    }
}

/// The reading half of a local supervisor.
#[derive(Debug)]
pub struct LocalReader {
    stdout: ChildStdout,
    // Kept so that the runtime reaps it.
    _process: tokio::process::Child,
}

/// The writing half of a local supervisor.
#[derive(Debug)]
pub struct LocalWriter(Option<ChildStdin>);

/// Starts `program` as a supervisor that exchanges frames on its stdin and stdout. It gets its own process group, so
/// a terminal's Ctrl-C reaches it only through the client.
pub fn local(program: &std::path::Path, arguments: &[&str]) -> std::io::Result<(LocalReader, LocalWriter)> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
    let mut process = command.spawn()?;
    let (Some(stdin), Some(stdout)) = (process.stdin.take(), process.stdout.take()) else {
        return Err(std::io::Error::other("the process has no streams"));
    };
    Ok((LocalReader { stdout, _process: process }, LocalWriter(Some(stdin))))
}

impl Reader for LocalReader {
    async fn next(&mut self) -> Incoming {
        let mut buffer = BytesMut::with_capacity(64 * 1024);
        match self.stdout.read_buf(&mut buffer).await {
            Ok(0) => Incoming::Ended("the local supervisor ended before its trailer".to_owned()),
            Ok(_) => Incoming::Bytes(buffer.freeze()),
            Err(error) => Incoming::Ended(error.to_string()),
        }
    }
}

impl Writer for LocalWriter {
    async fn send(&mut self, frames: &[u8]) -> Result<(), String> {
        match &mut self.0 {
            Some(stdin) => stdin.write_all(frames).await.map_err(|error| error.to_string()),
            None => Err("closed".to_owned()),
        }
    }

    async fn close(&mut self) {
        self.0 = None;
    }
}
