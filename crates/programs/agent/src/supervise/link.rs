//! The byte streams to and from the client.

use crate::sys;
use crate::write_buffer::WriteBuffer;
use postern_wire::{
    CLIENT_SILENCE_MS, Decoder, FIRST_SILENCE_MS, FromAgent, HEARTBEAT_MS, STDIN_WINDOW, ToAgent, WireError,
};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fd::BorrowedFd;
use std::io;
use std::time::{Duration, Instant};

/// The client is lost: its stream ended, failed, or was silent for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost;

/// The command's output is not read while more than this many bytes are pending for the client.
const FULL: usize = 256 * 1024;

pub(super) struct Link {
    decoder: Decoder,
    /// Complete frames that arrived too early.
    early: Decoder,
    out: WriteBuffer,
    heard: Instant,
    /// How long the client may be silent.
    silence: Duration,
    said: Instant,
    lost: bool,
    scratch: Vec<u8>,
}

impl Link {
    pub(super) fn on_stdio() -> io::Result<Self> {
        rustix::io::ioctl_fionbio(Self::input(), true)?;
        rustix::io::ioctl_fionbio(Self::output(), true)?;
        sys::widen(Self::input());
        sys::widen(Self::output());
        let now = Instant::now();
        Ok(Self {
            decoder: Decoder::default(),
            early: Decoder::default(),
            out: WriteBuffer::default(),
            heard: now,
            silence: Duration::from_millis(FIRST_SILENCE_MS),
            said: now,
            lost: false,
            scratch: vec![0; 128 * 1024],
        })
    }

    pub(super) fn input() -> BorrowedFd<'static> {
        rustix::stdio::stdin()
    }

    pub(super) fn output() -> BorrowedFd<'static> {
        rustix::stdio::stdout()
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    /// Whether the client has closed its end, even if earlier input is still unread.
    pub(super) fn is_hung_up() -> bool {
        let input = Self::input();
        let mut asked = [PollFd::new(&input, PollFlags::RDHUP)];
        let gone = PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR;
        rustix::event::poll(&mut asked, Some(&Timespec::default())).is_ok_and(|count| count > 0)
            && asked[0].revents().intersects(gone)
    }

    /// Queues a frame; [`Link::flush`] writes it.
    pub(super) fn send(&mut self, frame: &FromAgent<'_>) {
        if !self.lost {
            frame.encode(self.out.end());
            self.said = Instant::now();
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.out.len() > FULL
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.out.is_empty()
    }

    /// Writes what the client accepts now.
    pub(super) fn flush(&mut self) {
        if !self.lost && self.out.flush(Self::output()).is_err() {
            self.lose();
        }
    }

    pub(super) fn lose(&mut self) {
        self.lost = true;
        self.out.clear();
    }

    /// Reads from the client once.
    pub(super) fn fill(&mut self) {
        match rustix::io::read(Self::input(), &mut self.scratch[..]) {
            Ok(0) => self.lose(),
            Ok(count) => {
                self.heard = Instant::now();
                self.silence = Duration::from_millis(CLIENT_SILENCE_MS);
                self.decoder.push(&self.scratch[..count]);
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Err(_) => self.lose(),
        }
    }

    /// The next complete frame.
    pub(super) fn frame(&mut self) -> Result<Option<ToAgent<'_>>, WireError> {
        let source = if self.early.pending().is_empty() { &mut self.decoder } else { &mut self.early };
        match source.next_frame()? {
            Some((kind, payload)) => ToAgent::decode(kind, payload).map(Some),
            None => Ok(None),
        }
    }

    /// Stores frames that arrived early. A signal is for now, and is returned.
    pub(super) fn store_early_frames(&mut self) -> Option<u8> {
        let mut frames = Vec::new();
        let signal = loop {
            let frame = match self.decoder.next_frame() {
                Ok(Some((kind, payload))) => ToAgent::decode(kind, payload),
                Ok(None) => break None,
                Err(error) => Err(error),
            };
            match frame {
                Ok(ToAgent::Heartbeat) => {}
                Ok(ToAgent::Signal(number)) => break Some(number),
                Ok(frame) => frame.encode(&mut frames),
                Err(_) => {
                    self.lose();
                    break None;
                }
            }
        };
        self.early.push(&frames);
        // The client may send its window of stdin before it learns of the start, and little else.
        if self.early.pending().len() > STDIN_WINDOW + FULL {
            self.lose();
        }
        signal
    }

    /// Detects a silent client, and sends heartbeats. Must be called in every turn.
    pub(super) fn tick(&mut self) {
        let now = Instant::now();
        if now >= self.heard + self.silence {
            self.fill(); // we may have been suspended while its heartbeats queued up
            if now >= self.heard + self.silence {
                self.lose();
            }
        }
        if !self.lost && !self.has_waiting() && now >= self.said + Duration::from_millis(HEARTBEAT_MS) {
            self.send(&FromAgent::Heartbeat);
        }
    }

    /// The next timer of [`Link::tick`].
    pub(super) fn next_tick(&self) -> Instant {
        let silence = self.heard + self.silence;
        silence.min(self.said + Duration::from_millis(HEARTBEAT_MS))
    }

    /// Waits for the first frame accepted by `wanted`; skips heartbeats. The inner error describes an invalid
    /// frame.
    pub(super) fn next<T>(
        &mut self,
        mut wanted: impl FnMut(ToAgent<'_>) -> Option<T>,
    ) -> Result<Result<T, String>, Lost> {
        loop {
            loop {
                match self.frame() {
                    Ok(Some(ToAgent::Heartbeat)) => {}
                    Ok(Some(frame)) => {
                        return Ok(wanted(frame).ok_or_else(|| "a frame came out of order".to_owned()));
                    }
                    Ok(None) => break,
                    Err(error) => return Ok(Err(error.to_string())),
                }
            }
            self.turn()?;
        }
    }

    /// Flushes, then waits until the client confirms that it has everything, or is lost.
    ///
    /// There is no time limit: written output may still be in flight to a slow reader, and would be lost with
    /// our exit. A live client sends heartbeats; a silent one is lost.
    pub(super) fn until_done(&mut self) -> Result<(), Lost> {
        loop {
            loop {
                match self.frame() {
                    Ok(Some(ToAgent::Done)) => return Ok(()),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => return Err(Lost),
                }
            }
            self.turn()?;
        }
    }

    /// Waits once for either direction.
    fn turn(&mut self) -> Result<(), Lost> {
        self.turn_with(&[], None)
    }

    /// Waits once for either direction, for one of `others` to be readable, or until `until`.
    pub(super) fn turn_with(
        &mut self,
        others: &[BorrowedFd<'_>],
        until: Option<Instant>,
    ) -> Result<(), Lost> {
        self.flush();
        self.tick();
        if self.lost {
            return Err(Lost);
        }
        let (input, output) = (Self::input(), Self::output());
        let mut interest = vec![PollFd::new(&input, PollFlags::IN)];
        if self.has_waiting() {
            interest.push(PollFd::new(&output, PollFlags::OUT));
        }
        interest.extend(others.iter().map(|other| PollFd::from_borrowed_fd(*other, PollFlags::IN)));
        wait(&mut interest, until.into_iter().fold(self.next_tick(), Instant::min));
        if !interest[0].revents().is_empty() {
            self.fill();
        }
        Ok(())
    }
}

/// Waits until a descriptor is ready or `until` is reached.
pub(super) fn wait(interest: &mut [PollFd<'_>], until: Instant) {
    // Rounded up: a wait that ends too early would spin.
    let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
    let limit = Timespec::try_from(left).ok();
    if rustix::event::poll(interest, limit.as_ref()).is_err() {
        // Interrupted: nothing is ready.
        interest.iter_mut().for_each(PollFd::clear_revents);
    }
}
