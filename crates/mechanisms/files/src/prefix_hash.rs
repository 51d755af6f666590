//! Hashes the prefix of a file that both ends have from an interrupted copy, while the rest is transferred.

use crate::hash_tree::{ChainingValue, Parts};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// A thread that hashes the parts of a prefix. Dropping it cancels it.
pub(crate) struct PrefixHash {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<Vec<ChainingValue>>>>,
}

impl PrefixHash {
    /// Hashes the first `end` bytes in parts of `length` bytes; `end` is a multiple of `length`.
    pub(crate) fn start(file: &File, length: u64, end: u64) -> io::Result<Self> {
        let file = file.try_clone()?;
        let over = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&over);
        let thread =
            std::thread::Builder::new().spawn(move || hash(&file, Parts::new(length), end, &stop))?;
        Ok(Self { over, thread: Some(thread) })
    }

    /// Waits for the hashes.
    pub(crate) fn hashes(mut self) -> io::Result<Vec<ChainingValue>> {
        let ended = self.thread.take().and_then(|thread| thread.join().ok());
        ended.unwrap_or_else(|| Err(io::ErrorKind::Interrupted.into()))
    }
}

impl Drop for PrefixHash {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it holds the lock of the file
        }
    }
}

fn hash(file: &File, mut parts: Parts, end: u64, over: &AtomicBool) -> io::Result<Vec<ChainingValue>> {
    each_up_to(file, end, |piece| {
        parts.update(piece);
        !over.load(Ordering::Relaxed)
    })?;
    Ok(parts.hashes())
}

/// Reads the first bytes of a file in pieces until `each` returns false.
pub(crate) fn each_up_to(file: &File, end: u64, mut each: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut buffer = vec![0; 128 * 1024];
    let mut at = 0;
    while at < end {
        let wanted = usize::try_from(end - at).unwrap_or(buffer.len()).min(buffer.len());
        file.read_exact_at(&mut buffer[..wanted], at)?;
        if !each(&buffer[..wanted]) {
            break;
        }
        at += wanted as u64;
    }
    Ok(())
}
