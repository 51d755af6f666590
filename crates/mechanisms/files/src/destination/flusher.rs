//! Flushing a file to disk in the background.

use super::partial::{EVERY, Note};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

/// A flush of the file, optionally followed by writing a trailer at an offset.
type Flush = Option<(Note, u64)>;

/// Flushes a file to disk in the background, then updates its trailer.
pub(super) struct Flusher {
    sender: Sender<Flush>,
    thread: Option<JoinHandle<()>>,
    flushed: u64,
}

impl Flusher {
    pub(super) fn start(file: &File) -> Option<Self> {
        let file = file.try_clone().ok()?;
        let (sender, asked) = channel::<Flush>();
        let thread = std::thread::spawn(move || {
            while let Ok(mut flush) = asked.recv() {
                flush = asked.try_iter().last().unwrap_or(flush);
                if file.sync_data().is_ok()
                    && let Some((note, at)) = flush
                {
                    let _ = file.write_all_at(&note.encode(), at); // the previous trailer stays valid
                }
            }
        });
        Some(Self { sender, thread: Some(thread), flushed: 0 })
    }

    /// Records progress.
    pub(super) fn wrote(&mut self, end: u64) {
        if end - self.flushed >= EVERY {
            self.flushed = end;
            let _ = self.sender.send(None); // it is flushed at the end anyway
        }
    }

    /// Writes a trailer after the next flush.
    pub(super) fn note(&self, note: Note, at: u64) {
        let _ = self.sender.send(Some((note, at))); // without trailers it only starts over
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.sender = channel().0; // the thread ends with the last sender
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
