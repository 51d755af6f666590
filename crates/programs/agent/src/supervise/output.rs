//! One output stream of the command: read, redacted, counted, hashed, cut into frames.

use super::link::Link;
use postern_secret::redact::{HOLD_MS, Patterns, Redactor};
use postern_wire::{CHUNK, FromAgent};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::OwnedFd;
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    Stdout,
    Stderr,
}

pub(super) struct Output {
    which: Which,
    /// Gone once it has reached its end.
    pub(super) source: Option<OwnedFd>,
    redactor: Redactor,
    release_at: Option<Instant>,
    pub(super) bytes: u64,
    hasher: blake3::Hasher,
}

impl Output {
    pub(super) fn new(which: Which, source: Option<OwnedFd>) -> Self {
        Self {
            which,
            source,
            redactor: Redactor::default(),
            release_at: None,
            bytes: 0,
            hasher: blake3::Hasher::new(),
        }
    }

    /// Reads once and passes on what may be passed on.
    pub(super) fn read(&mut self, scratch: &mut [u8], patterns: &Patterns, link: &mut Link) {
        let Some(source) = &self.source else { return };
        match rustix::io::read(source, &mut *scratch) {
            Ok(count @ 1..) => {
                if patterns.is_empty() {
                    self.pass_on(&scratch[..count], link);
                } else {
                    let mut safe = Vec::with_capacity(count);
                    self.redactor.push(patterns, &scratch[..count], &mut safe);
                    self.pass_on(&safe, link);
                    // The first byte's time counts, however many follow it.
                    let since =
                        self.release_at.unwrap_or_else(|| Instant::now() + Duration::from_millis(HOLD_MS));
                    self.release_at = self.redactor.holds().then_some(since);
                }
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            // A terminal whose last user is gone answers EIO.
            Ok(0) | Err(_) => self.end(patterns, link),
        }
    }

    /// Whether there is something to read now.
    pub(super) fn is_readable(&self) -> bool {
        let Some(source) = &self.source else { return false };
        let mut interest = [PollFd::new(source, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut interest, Some(&now)).is_ok_and(|ready| ready > 0)
            && interest[0].revents().contains(PollFlags::IN)
    }

    /// Passes on a withheld tail whose time has come; returns when that is next.
    pub(super) fn tick(&mut self, patterns: &Patterns, link: &mut Link) -> Option<Instant> {
        if self.release_at.is_some_and(|at| Instant::now() >= at) {
            let mut safe = Vec::new();
            self.redactor.release(patterns, &mut safe);
            self.pass_on(&safe, link);
            self.release_at = None;
        }
        self.release_at
    }

    /// The end of the stream.
    pub(super) fn end(&mut self, patterns: &Patterns, link: &mut Link) {
        if self.source.take().is_some() {
            let mut safe = Vec::new();
            self.redactor.finish(patterns, &mut safe);
            self.pass_on(&safe, link);
            self.release_at = None;
        }
    }

    fn pass_on(&mut self, bytes: &[u8], link: &mut Link) {
        self.bytes += bytes.len() as u64;
        self.hasher.update(bytes);
        for chunk in bytes.chunks(CHUNK) {
            link.send(&match self.which {
                Which::Stdout => FromAgent::Stdout(chunk),
                Which::Stderr => FromAgent::Stderr(chunk),
            });
        }
    }

    pub(super) fn hash(&self) -> [u8; 32] {
        *self.hasher.finalize().as_bytes()
    }
}
