//! The sending task: the request with its files, then stdin, signals and heartbeats.

use super::Run;
use crate::error::ExecError;
use crate::io::{Control, next_chunk, read_all};
use crate::transport::Writer;
use bytes::Bytes;
use postern_wire::{CHUNK, HEARTBEAT_MS, STDIN_WINDOW, ToAgent};
use std::collections::VecDeque;
use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;

/// The maximum bytes of stdin in one message, not counting its last chunk.
const MESSAGE: usize = 7 * CHUNK;

/// A message from the receiving task to this one.
pub(super) enum ToWriter {
    Window(u32),
    Done,
}

/// Sends everything; returns only when that fails. After the agent was released, it never returns.
pub(super) async fn send_all(
    mut writer: impl Writer,
    run: Run,
    stdin: Option<Box<dyn std::io::Read + Send>>,
    mut control: mpsc::Receiver<Control>,
    mut from_reader: mpsc::Receiver<ToWriter>,
    (killed, answered): (Arc<AtomicBool>, Arc<AtomicBool>),
) -> ExecError {
    let sends_stdin = run.request.stdin;
    let mut early = VecDeque::new();
    let sent = {
        let sending = send_request(&mut writer, run);
        tokio::pin!(sending);
        // While the pod is busy with other commands, the buffers on the way may be full before the files are sent.
        let mut open = true;
        loop {
            tokio::select! {
                biased;
                sent = &mut sending => break sent,
                action = control.recv(), if open => match action {
                    Some(Control::Signal(_) | Control::Kill) if !answered.load(Ordering::Relaxed) => {
                        break Err(SendError::Near(ExecError::Cancelled(" before the pod started it")));
                    }
                    Some(action) => early.push_back(action),
                    None => open = false,
                },
            }
        }
    };
    match sent {
        Ok(()) => {}
        // The agent refuses more data; the receiving task gets the reason.
        Err(SendError::Far) => return std::future::pending().await,
        Err(SendError::Near(error)) => {
            writer.close().await;
            return error;
        }
    }
    let mut input = stdin.filter(|_| sends_stdin).map(read_all);
    let (mut window, mut waiting, mut unread) = (STDIN_WINDOW, None::<Bytes>, None);
    let mut listening = true;
    let mut heartbeat = tokio::time::interval(Duration::from_millis(HEARTBEAT_MS));
    let mut frames = Vec::with_capacity(CHUNK + 16);
    loop {
        frames.clear();
        tokio::select! {
            biased;
            message = from_reader.recv() => match message {
                Some(ToWriter::Window(bytes)) => window += bytes as usize,
                None => {
                    writer.close().await;
                    return ExecError::Cancelled("");
                }
                Some(ToWriter::Done) => {
                    ToAgent::Done.encode(&mut frames);
                    let _ = writer.send(&frames).await;
                    writer.close().await;
                    drop(from_reader);
                    return std::future::pending().await;
                }
            },
            action = next_action(&mut early, &mut control), if listening => match action {
                // No command runs yet that could receive it.
                Some(Control::Signal(_)) if !answered.load(Ordering::Relaxed) => {
                    writer.close().await;
                    return ExecError::Cancelled(" before the pod started it");
                }
                Some(Control::Signal(number)) => ToAgent::Signal(number).encode(&mut frames),
                Some(Control::Resize(size)) => ToAgent::Resize(size).encode(&mut frames),
                Some(Control::Kill) => {
                    killed.store(true, Ordering::Relaxed);
                    ToAgent::Signal(9).encode(&mut frames);
                }
                None => listening = false,
            },
            chunk = next_chunk(&mut input), if waiting.is_none() => match chunk {
                Some(Ok(chunk)) => waiting = Some(chunk),
                Some(Err(error)) => unread = Some(error),
                None => {
                    input = None;
                    ToAgent::StdinEnd.encode(&mut frames);
                }
            },
            _ = heartbeat.tick() => ToAgent::Heartbeat.encode(&mut frames),
        }
        // Chunks that are already there go into the same message: each message wakes every server on the way.
        while let Some(chunk) = waiting.take_if(|chunk| chunk.len() <= window) {
            window -= chunk.len();
            ToAgent::Stdin(&chunk).encode(&mut frames);
            if frames.len() < MESSAGE {
                match input.as_mut().and_then(|input| input.try_recv().ok()) {
                    Some(Ok(chunk)) => waiting = Some(chunk),
                    Some(Err(error)) => unread = Some(error),
                    None => {}
                }
            }
        }
        if !frames.is_empty() && writer.send(&frames).await.is_err() {
            // The receiving task gets the reason; the stream may still contain a trailer.
            return std::future::pending().await;
        }
        // A read error is not sent as an end of file: a command would then continue with part of its input.
        if let Some(error) = unread {
            writer.close().await;
            return ExecError::Input(error);
        }
    }
}

/// Returns the actions that arrived while the request was sent, and then new ones.
async fn next_action(
    early: &mut VecDeque<Control>,
    control: &mut mpsc::Receiver<Control>,
) -> Option<Control> {
    match early.pop_front() {
        Some(action) => Some(action),
        None => control.recv().await,
    }
}

enum SendError {
    /// The pod accepts no more data.
    Far,
    /// A local error.
    Near(ExecError),
}

async fn send_request(writer: &mut impl Writer, run: Run) -> Result<(), SendError> {
    let Run { request, files } = run;
    let mut frames = Vec::new();
    let sizes: Vec<u64> = request.files.iter().map(|file| file.size).collect();
    ToAgent::Request(Box::new(request)).encode(&mut frames);
    writer.send(&frames).await.map_err(|_| SendError::Far)?;
    let mut buffer = vec![0; CHUNK];
    for (path, size) in files.iter().zip(sizes) {
        let failed =
            |source| SendError::Near(ExecError::LocalFile { path: path.display().to_string(), source });
        let mut file = File::open(path).map_err(failed)?;
        let mut left = size;
        while left > 0 {
            let count = file.read(&mut buffer[..CHUNK.min(usize::try_from(left).unwrap_or(CHUNK))]);
            let count = count.map_err(failed)?;
            if count == 0 {
                return Err(failed(std::io::Error::other("it became shorter while it was read")));
            }
            left -= count as u64;
            frames.clear();
            ToAgent::File(&buffer[..count]).encode(&mut frames);
            writer.send(&frames).await.map_err(|_| SendError::Far)?;
        }
    }
    Ok(())
}
