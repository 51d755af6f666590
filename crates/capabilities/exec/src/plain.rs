//! An exec in a container without the agent.
//!
//! What is promised: both directions flow at once in bounded memory, and success needs a Status. What is not, for want
//! of an agent: the runtime may drop the tail of the output (kubernetes#124571), and a process whose client goes away
//! goes on running (kubernetes#89031).

use crate::error::ExecError;
use crate::io::{Chunk, Control, Sink, Streams, next_chunk, read_all};
use postern_kube::exec::{ExecEnd, ExecEvent, ExecReader, ExecWriter};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// How often a server that says nothing is asked for a sign of life, and how long it may owe one.
const PING: Duration = Duration::from_secs(5);
const SILENCE: Duration = Duration::from_secs(20);

/// What became of a process we can no longer reach.
const MAY_RUN_ON: &str = "; without the agent the process may run on in the pod";

/// Runs a command whose exec was opened. Returns its exit code.
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
    let heard = AtomicBool::new(false);
    tokio::select! {
        error = send_all(writer, stdin.map(read_all), tty, control, &heard) => Err(error),
        result = receive_all(reader, Sink::new(stdout), Sink::new(stderr), &heard) => result,
        () = late => Err(ExecError::TimedOut { limit: timeout.unwrap_or_default(), note: MAY_RUN_ON }),
    }
}

async fn receive_all(
    mut reader: ExecReader,
    mut stdout: Sink,
    mut stderr: Sink,
    heard: &AtomicBool,
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
                    // Codes beyond a byte do not exist on Linux; a runtime that reports one has lost the command.
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
        heard.store(true, Ordering::Relaxed);
    }
}

/// Sends stdin and sizes; returns only when the user ends the run.
async fn send_all(
    mut writer: ExecWriter,
    mut input: Option<mpsc::Receiver<Chunk>>,
    tty: bool,
    mut control: mpsc::Receiver<Control>,
    heard: &AtomicBool,
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
                // Not as an end: a command that takes it for one would go on with half of what it was to have.
                Some(Err(error)) => {
                    writer.close().await;
                    return ExecError::Input(error);
                }
                None => {
                    input = None;
                    writer.end_stdin().await.map(|_| ())
                }
            },
            // What reaches a server that has just said its last is answered by a reset, which may take that last with it:
            // so one that is talking is not asked.
            _ = ping.tick() => match heard.swap(false, Ordering::Relaxed) {
                true => Ok(()),
                false => writer.ping().await,
            },
        };
        if sent.is_err() {
            // The reader hears how the stream ended.
            return std::future::pending().await;
        }
    }
}
