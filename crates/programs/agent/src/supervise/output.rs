//! One output stream of the command: reads, redacts, counts and hashes it, and splits it into frames.

use super::link::Link;
use postern_secret::redact::{HOLD_MS, Patterns, Redactor};
use postern_wire::{CHUNK, FromAgent};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::OwnedFd;
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamKind {
    Stdout,
    Stderr,
}

pub(super) struct Output {
    kind: StreamKind,
    /// `None` after the end of the stream.
    pub(super) source: Option<OwnedFd>,
    redactor: Redactor,
    release_at: Option<Instant>,
    pub(super) bytes: u64,
    hasher: blake3::Hasher,
}

impl Output {
    pub(super) fn new(kind: StreamKind, source: Option<OwnedFd>) -> Self {
        Self {
            kind,
            source,
            redactor: Redactor::default(),
            release_at: None,
            bytes: 0,
            hasher: blake3::Hasher::new(),
        }
    }

    /// Reads once and forwards what is safe.
    pub(super) fn read(&mut self, scratch: &mut [u8], patterns: &Patterns, link: &mut Link) {
        let Some(source) = &self.source else { return };
        match rustix::io::read(source, &mut *scratch) {
            Ok(count @ 1..) => {
                if patterns.is_empty() {
                    self.forward(&scratch[..count], link);
                } else {
                    let mut safe = Vec::with_capacity(count);
                    self.redactor.push(patterns, &scratch[..count], &mut safe);
                    self.forward(&safe, link);
                    // The time starts with the first withheld byte.
                    let since =
                        self.release_at.unwrap_or_else(|| Instant::now() + Duration::from_millis(HOLD_MS));
                    self.release_at = self.redactor.holds().then_some(since);
                }
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            // A terminal without users returns EIO.
            Ok(0) | Err(_) => self.end(patterns, link),
        }
    }

    /// Whether data is available.
    pub(super) fn is_readable(&self) -> bool {
        let Some(source) = &self.source else { return false };
        let mut interest = [PollFd::new(source, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut interest, Some(&now)).is_ok_and(|ready| ready > 0)
            && interest[0].revents().contains(PollFlags::IN)
    }

    /// Forwards a withheld tail after its time limit; returns the next such time.
    pub(super) fn tick(&mut self, patterns: &Patterns, link: &mut Link) -> Option<Instant> {
        if self.release_at.is_some_and(|at| Instant::now() >= at) {
            let mut safe = Vec::new();
            self.redactor.release(patterns, &mut safe);
            self.forward(&safe, link);
            self.release_at = None;
        }
        self.release_at
    }

    /// Ends the stream.
    pub(super) fn end(&mut self, patterns: &Patterns, link: &mut Link) {
        if self.source.take().is_some() {
            let mut safe = Vec::new();
            self.redactor.finish(patterns, &mut safe);
            self.forward(&safe, link);
            self.release_at = None;
        }
    }

    fn forward(&mut self, bytes: &[u8], link: &mut Link) {
        self.bytes += bytes.len() as u64;
        self.hasher.update(bytes);
        for chunk in bytes.chunks(CHUNK) {
            link.send(&match self.kind {
                StreamKind::Stdout => FromAgent::Stdout(chunk),
                StreamKind::Stderr => FromAgent::Stderr(chunk),
            });
        }
    }

    pub(super) fn hash(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }
}
