//! Our stdin as a source of one file, and our stdout as a destination of one.

use crate::channel::ThreadInput;
use postern_files::link::{Arrived, Incoming as _, LinkError, Outbox};
use postern_files::policy;
use postern_wire::Decoder;
use postern_wire::copy::{
    BLOCK, CopyRequest, Entry, EntryResult, Fate, FromDestination, FromSource, Kind, Known, Stamp, UNSIZED,
    Want,
};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Our stdin or stdout.
#[derive(Debug, Clone, Default)]
pub struct Stream(Arc<Mutex<Written>>);

/// What was written to stdout, over all connections.
#[derive(Debug, Default)]
struct Written {
    bytes: u64,
    hasher: blake3::Hasher,
}

/// Serves the stream as the requested end of a copy.
pub(crate) fn serve(stream: &Stream, request: &CopyRequest, input: ThreadInput, out: &Outbox) {
    let served = match request {
        CopyRequest::Send(_) => send(input, out),
        CopyRequest::Receive(_) => receive(stream, input, out),
    };
    if let Err(StreamError::Fatal(message)) = served {
        let said = match request {
            CopyRequest::Send(_) => out.put(|buffer| FromSource::Fatal(message).encode(buffer)),
            CopyRequest::Receive(_) => out.put(|buffer| FromDestination::Fatal(message).encode(buffer)),
        };
        let _ = said.and_then(|()| out.flush()); // the receiver may be gone
    }
}

enum StreamError {
    /// The other end is gone or sent an invalid frame; it sees the stream end.
    Link,
    /// An error to report.
    Fatal(String),
}

impl From<LinkError> for StreamError {
    fn from(_: LinkError) -> Self {
        Self::Link
    }
}

fn send(mut input: ThreadInput, out: &Outbox) -> Result<(), StreamError> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let stamp = Stamp {
        mode: 0o644,
        user: 0,
        group: 0,
        seconds: i64::try_from(now.as_secs()).unwrap_or(0),
        nanos: now.subsec_nanos(),
    };
    out.put(|buffer| FromSource::Begin(1).encode(buffer))?;
    let entry = Entry {
        id: 0,
        path: b"stdin".to_vec(),
        kind: Kind::File(UNSIZED),
        stamp,
        xattrs: Vec::new(),
        settled: false,
    };
    out.put(|buffer| FromSource::Entry(Box::new(entry)).encode(buffer))?;
    out.put(|buffer| FromSource::End.encode(buffer))?;
    out.flush()?;
    let (mut decoder, over) = (Decoder::default(), Arc::new(AtomicBool::new(false)));
    loop {
        while let Some((kind, payload)) = decoder.next_frame().map_err(LinkError::from)? {
            match FromDestination::decode(kind, payload).map_err(LinkError::from)? {
                FromDestination::Want(_) => {
                    let (out, over) = (out.clone(), Arc::clone(&over));
                    // On a thread of its own, because reading stdin may block forever.
                    std::thread::spawn(move || send_stdin(&out, &over));
                }
                FromDestination::Stop(_) => {
                    out.put(|frames| {
                        if !over.swap(true, Ordering::Relaxed) {
                            let message = policy::STOPPED.to_owned();
                            FromSource::FileFault { id: 0, message }.encode(frames);
                        }
                    })?;
                    out.flush()?;
                }
                FromDestination::Finished => return Ok(()),
                _ => {}
            }
        }
        if !matches!(input.read(&mut decoder, None), Ok(Arrived::Bytes)) {
            return Err(StreamError::Link);
        }
    }
}

/// Sends stdin until it ends or `over` is set. `over` changes only within [`Outbox::put`], so that nothing
/// follows the end of the file.
fn send_stdin(out: &Outbox, over: &AtomicBool) {
    if let Err(StreamError::Fatal(message)) = try_send_stdin(out, over) {
        let said = out.put(|frames| FromSource::Fatal(message).encode(frames));
        let _ = said.and_then(|()| out.flush()); // the receiver may be gone
    }
}

fn try_send_stdin(out: &Outbox, over: &AtomicBool) -> Result<(), StreamError> {
    let stdin =
        file(&std::io::stdin()).map_err(|error| StreamError::Fatal(format!("reading stdin: {error}")))?;
    let (mut hasher, mut buffer, mut stdin) = (blake3::Hasher::new(), vec![0; BLOCK], &stdin);
    out.put(|buffer| FromSource::From { id: 0, offset: 0 }.encode(buffer))?;
    loop {
        match stdin.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(&buffer[..count]);
                out.put(|frames| {
                    if !over.load(Ordering::Relaxed) {
                        FromSource::Data(&buffer[..count]).encode(frames);
                    }
                })?;
                if over.load(Ordering::Relaxed) {
                    return Ok(());
                }
                // Flush slow input at once.
                if count < BLOCK / 2 {
                    out.flush()?;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(StreamError::Fatal(format!("reading stdin: {error}"))),
        }
    }
    let hash = hasher.finalize().into();
    out.put(|frames| {
        if !over.swap(true, Ordering::Relaxed) {
            FromSource::FileEnd { id: 0, hash }.encode(frames);
        }
    })?;
    Ok(out.flush()?)
}

fn receive(stream: &Stream, mut input: ThreadInput, out: &Outbox) -> Result<(), StreamError> {
    let mut written = stream.0.lock().unwrap_or_else(PoisonError::into_inner);
    let mut zstd = zstd::bulk::Decompressor::new().map_err(|error| StreamError::Fatal(error.to_string()))?;
    let mut block = Vec::with_capacity(BLOCK);
    let mut decoder = Decoder::default();
    let mut entries = 0;
    loop {
        while let Some((kind, payload)) = decoder.next_frame().map_err(LinkError::from)? {
            match FromSource::decode(kind, payload).map_err(LinkError::from)? {
                FromSource::Begin(1) => {}
                FromSource::Begin(_) => return Err(StreamError::Fatal("stdout takes one file".to_owned())),
                FromSource::Entry(entry) => {
                    entries += 1;
                    if entries > 1 || !matches!(entry.kind, Kind::File(_)) {
                        return Err(StreamError::Fatal("stdout takes one file, and no directory".to_owned()));
                    }
                    let hash = written.hasher.finalize().into();
                    let (have, partial) = (written.bytes, written.bytes > 0);
                    let want = Want { id: entry.id, have, hash, partial, known: Known::Nothing };
                    out.put(|buffer| FromDestination::Want(want).encode(buffer))?;
                    out.flush()?;
                }
                FromSource::From { id: _, offset } if offset != written.bytes => {
                    return Err(StreamError::Link);
                }
                FromSource::Data(bytes) => written.put(bytes)?,
                FromSource::Compressed { length, bytes } => {
                    block.clear();
                    let unpacked = zstd.decompress_to_buffer(bytes, &mut block);
                    if unpacked.ok() != usize::try_from(length).ok() {
                        return Err(StreamError::Link);
                    }
                    written.put(&block)?;
                }
                FromSource::Hole(mut length) => {
                    while length > 0 {
                        let piece = length.min(BLOCK as u64);
                        written.put(&vec![0; usize::try_from(piece).unwrap_or(BLOCK)])?;
                        length -= piece;
                    }
                }
                FromSource::FileEnd { id, hash } => {
                    let whole = hash == *written.hasher.finalize().as_bytes();
                    let (fate, note) = match whole {
                        true => (Fate::Written, String::new()),
                        false => (Fate::Failed, policy::DIFFERS.to_owned()),
                    };
                    settle(out, EntryResult { id, fate, hash, note })?;
                }
                FromSource::FileFault { id, message } => {
                    settle(out, EntryResult { id, fate: Fate::Failed, hash: [0; 32], note: message })?;
                }
                // Only entries that cannot be copied.
                FromSource::End if entries == 0 => {
                    out.put(|buffer| FromDestination::Finished.encode(buffer))?;
                    return Ok(out.flush()?);
                }
                FromSource::Reuse { .. } | FromSource::Cut(_) => return Err(StreamError::Link),
                FromSource::From { .. }
                | FromSource::Fault { .. }
                | FromSource::DirectoryEnd(_)
                | FromSource::End
                | FromSource::Fatal(_)
                | FromSource::Heartbeat
                | FromSource::Ping => {}
            }
        }
        if !matches!(input.read(&mut decoder, None), Ok(Arrived::Bytes)) {
            return Err(StreamError::Link);
        }
    }
}

fn settle(out: &Outbox, settled: EntryResult) -> Result<(), StreamError> {
    out.put(|buffer| FromDestination::EntryResult(settled).encode(buffer))?;
    out.put(|buffer| FromDestination::Finished.encode(buffer))?;
    Ok(out.flush()?)
}

/// A standard stream as a file: the standard library treats a closed one as empty or as a sink.
fn file(stream: &impl AsFd) -> std::io::Result<File> {
    Ok(File::from(stream.as_fd().try_clone_to_owned()?))
}

/// The error if our stdout was closed, as by `head`.
pub(crate) const CLOSED: &str = "writing to stdout: it was closed";

fn stdout(error: &std::io::Error) -> StreamError {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe => StreamError::Fatal(CLOSED.to_owned()),
        _ => StreamError::Fatal(format!("writing to stdout: {error}")),
    }
}

impl Written {
    fn put(&mut self, bytes: &[u8]) -> Result<(), StreamError> {
        let to = file(&std::io::stdout()).map_err(|error| stdout(&error))?;
        (&to).write_all(bytes).map_err(|error| stdout(&error))?;
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}
