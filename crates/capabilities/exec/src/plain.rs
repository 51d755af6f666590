//! An exec in a container without the agent.
//!
//! It guarantees that both directions flow at once in bounded memory, and that success needs a Status. Without an
//! agent it cannot guarantee the rest: the runtime may drop the tail of the output (kubernetes#124571), and a process
//! goes on running after its client has gone (kubernetes#89031).

use crate::error::ExecError;
use crate::io::{Chunk, Control, Sink, Streams, next_chunk, read_all};
use postern_kube::exec::{ExecEnd, ExecEvent, ExecReader, ExecWriter};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The interval of pings to a server that sends nothing, and the longest silence that is accepted.
const PING: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(20);

/// The state of a process that can no longer be reached.
const MAY_RUN_ON: &str = "; without the agent the process may run on in the pod";

/// Runs a command whose exec is already open. Returns its exit code.
pub async fn run(
    reader: ExecReader,
    writer: ExecWriter,
    tty: bool,
    timeout: Option<Duration>,
    streams: Streams,
    control: mpsc::Receiver<Control>,
) -> Result<u8, ExecError> {
    let Streams { stdin, stdout, stderr } = streams;
    let late = async {
        match timeout {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let received = AtomicBool::new(false);
    tokio::select! {
        error = send_all(writer, stdin.map(read_all), tty, control, &received) => Err(error),
        result = receive_all(reader, Sink::new(stdout), Sink::new(stderr), &received) => result,
        () = late => Err(ExecError::TimedOut { limit: timeout.unwrap_or_default(), note: MAY_RUN_ON }),
    }
}

async fn receive_all(
    mut reader: ExecReader,
    mut stdout: Sink,
    mut stderr: Sink,
    received: &AtomicBool,
) -> Result<u8, ExecError> {
    let mut last = Instant::now();
    loop {
        let Ok(event) = tokio::time::timeout_at(last + SILENCE, reader.next()).await else {
            let seconds = SILENCE.as_secs();
            return Err(ExecError::Broke(format!("no sign of life from the server for {seconds} s")));
        };
        match event {
            Ok(Some(ExecEvent::Stdout(data))) => stdout.write(data).await?,
            Ok(Some(ExecEvent::Stderr(data))) => stderr.write(data).await?,
            Ok(Some(ExecEvent::Alive)) => {}
            Ok(Some(ExecEvent::End(end))) => {
                stdout.finish().await?;
                stderr.finish().await?;
                return match end {
                    // Linux has no codes beyond a byte. A runtime that reports one has lost the command.
                    ExecEnd::Exited(code) => Ok(u8::try_from(code).unwrap_or(crate::exit::BROKE)),
                    ExecEnd::Failed(why) => Err(ExecError::Runtime(why)),
                };
            }
            Ok(None) => {
                return Err(ExecError::Broke("the stream was closed without a status".to_owned()));
            }
            Err(error) => return Err(ExecError::Broke(error.to_string())),
        }
        last = Instant::now();
        received.store(true, Ordering::Relaxed);
    }
}

/// Sends stdin and terminal sizes; returns only when the user ends the run.
async fn send_all(
    mut writer: ExecWriter,
    mut input: Option<mpsc::Receiver<Chunk>>,
    tty: bool,
    mut control: mpsc::Receiver<Control>,
    received: &AtomicBool,
) -> ExecError {
    let mut ping = tokio::time::interval_at(Instant::now() + PING, PING);
    let mut listening = true;
    loop {
        let sent = tokio::select! {
            action = control.recv(), if listening => match action {
                Some(Control::Resize(size)) => writer.resize(size.columns, size.rows).await,
                // In a terminal, Ctrl-C is a byte of stdin.
                Some(Control::Signal(2)) if tty => Ok(()),
                Some(Control::Signal(_) | Control::Kill) => {
                    writer.close().await;
                    return ExecError::Cancelled(MAY_RUN_ON);
                }
                None => {
                    listening = false;
                    Ok(())
                }
            },
            chunk = next_chunk(&mut input) => match chunk {
                Some(Ok(chunk)) => writer.stdin(&chunk).await,
                // A read error is not sent as an end of file: a command would then continue with part of its input.
                Some(Err(error)) => {
                    writer.close().await;
                    return ExecError::Input(error);
                }
                None => {
                    input = None;
                    writer.end_stdin().await.map(|_| ())
                }
            },
            // If a server has just closed the stream, it answers a ping with a reset, and the reset can discard its
            // last message. So a server that is sending gets no ping.
            _ = ping.tick() => match received.swap(false, Ordering::Relaxed) {
                true => Ok(()),
                false => writer.ping().await,
            },
        };
        if sent.is_err() {
            // The receiving side gets the reason.
            return std::future::pending().await;
        }
    }
}
