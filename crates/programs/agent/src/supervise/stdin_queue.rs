//! Bytes for the command's stdin that it has not read yet.
//!
//! The client's window is large, so that the servers between us stay busy, and a command may stop reading at
//! any time: then up to a whole window is queued here. The first part is kept in memory, the rest in an
//! anonymous kernel file (`memfd_create(2)`), so that the agent itself stays small. The file is a ring: a
//! command that reads almost as fast as input arrives may never empty it, and its pages count as the pod's
//! memory.

use rustix::fd::OwnedFd;
use std::collections::VecDeque;

/// Bytes kept in memory.
const MEMORY: usize = 512 * 1024;

/// Bytes read from the file at a time.
const BLOCK: usize = 128 * 1024;

/// Maximum bytes in the file: the client's window.
const RING: u64 = postern_wire::STDIN_WINDOW as u64;

#[derive(Default)]
pub(super) struct StdinQueue {
    memory: VecDeque<u8>,
    file: Option<OwnedFd>,
    /// The range in the file, as offsets of all bytes ever written: from here …
    head: u64,
    /// … to here. The position of a byte is its offset modulo [`RING`].
    tail: u64,
}

impl StdinQueue {
    pub(super) fn len(&self) -> usize {
        self.memory.len() + usize::try_from(self.tail - self.head).unwrap_or(usize::MAX)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.head == self.tail
    }

    pub(super) fn push(&mut self, data: &[u8]) {
        let in_order = self.head == self.tail;
        if in_order && self.memory.len() + data.len() <= MEMORY || !self.spill(data) {
            self.memory.extend(data);
        }
    }

    /// The next bytes; empty only if there are none.
    pub(super) fn front(&mut self) -> &[u8] {
        if self.memory.is_empty() && self.head < self.tail {
            self.refill();
        }
        self.memory.as_slices().0
    }

    /// Removes bytes returned by [`StdinQueue::front`].
    pub(super) fn consume(&mut self, count: usize) {
        self.memory.drain(..count.min(self.memory.len()));
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Appends to the file. `false` if the file cannot be created or is full: then nothing was added, and
    /// everything in it is back in memory.
    fn spill(&mut self, data: &[u8]) -> bool {
        if self.file.is_none() {
            self.file = anonymous();
        }
        let Some(file) = &self.file else { return false };
        let end = self.tail + data.len() as u64;
        let mut at = self.tail;
        while at < end && end - self.head <= RING {
            let place = at % RING;
            let rest = &data[usize::try_from(at - self.tail).unwrap_or(data.len())..];
            let piece = &rest[..rest.len().min(usize::try_from(RING - place).unwrap_or(usize::MAX))];
            match rustix::io::pwrite(file, piece, place) {
                Ok(count @ 1..) => at += count as u64,
                Err(rustix::io::Errno::INTR) => {}
                Ok(0) | Err(_) => break,
            }
        }
        if at < end {
            while self.head < self.tail && self.refill() {}
            return false;
        }
        self.tail = end;
        true
    }

    /// Moves a block from the file to memory. `false` only if the kernel fails to return what it stored.
    fn refill(&mut self) -> bool {
        let Some(file) = &self.file else { return false };
        let place = self.head % RING;
        let size = usize::try_from((self.tail - self.head).min(RING - place)).unwrap_or(BLOCK).min(BLOCK);
        let mut block = vec![0; size];
        let read = loop {
            match rustix::io::pread(file, &mut block[..], place) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other.unwrap_or(0),
            }
        };
        self.memory.extend(&block[..read]);
        self.head += read as u64;
        if self.head == self.tail {
            // Returns its pages to the pod.
            let _ = rustix::fs::ftruncate(file, 0);
            (self.head, self.tail) = (0, 0);
        }
        read > 0
    }
}

#[cfg(target_os = "linux")]
fn anonymous() -> Option<OwnedFd> {
    rustix::fs::memfd_create("postern-stdin", rustix::fs::MemfdFlags::CLOEXEC).ok()
}

#[cfg(not(target_os = "linux"))]
fn anonymous() -> Option<OwnedFd> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As with a command that is slightly slower than the network: the queue is never empty.
    #[test]
    fn consumed_bytes_free_their_space() {
        let (mut queue, mut received, mut sent) = (StdinQueue::default(), 0_u64, 0_u64);
        let byte = |number: u64| u8::try_from(number % 251).unwrap();
        let mut take = |queue: &mut StdinQueue| {
            let front = queue.front();
            assert!(front.iter().zip(received..).all(|(found, number)| *found == byte(number)));
            let taken = front.len();
            received += taken as u64;
            queue.consume(taken);
        };
        while sent < 6 * RING {
            if u64::try_from(queue.len()).unwrap() < RING / 2 {
                let piece: Vec<u8> = (sent..sent + 57_001).map(byte).collect();
                queue.push(&piece);
                sent += 57_001;
            } else {
                take(&mut queue);
            }
            assert!(!queue.is_empty() && queue.memory.len() <= MEMORY);
        }
        let held = rustix::fs::fstat(queue.file.as_ref().unwrap()).unwrap();
        assert!(u64::try_from(held.st_size).unwrap() <= RING, "{}", held.st_size);
        // More than the ring holds, from a client that ignores its window, also stays in order.
        for _ in 0..5 {
            let piece: Vec<u8> = (sent..sent + RING / 4).map(byte).collect();
            queue.push(&piece);
            sent += RING / 4;
        }
        while !queue.is_empty() {
            take(&mut queue);
        }
        assert_eq!(received, sent);
    }

    #[test]
    fn queued_bytes_keep_their_order() {
        let (mut queue, mut sent, mut received) = (StdinQueue::default(), Vec::new(), Vec::new());
        for turn in 0..300_usize {
            let piece: Vec<u8> =
                (0..turn * 97 % 40_000).map(|at| u8::try_from((at * 7 + turn) % 251).unwrap()).collect();
            queue.push(&piece);
            sent.extend(piece);
            assert_eq!(queue.len(), sent.len() - received.len());
            assert!(queue.memory.len() <= MEMORY);
            // Reads slower than it fills, so that most data passes through the file.
            let taken = queue.front().len().min(turn * 31 % 9_000);
            received.extend_from_slice(&queue.front()[..taken]);
            queue.consume(taken);
        }
        assert!(queue.head < queue.tail, "the file was used");
        while !queue.is_empty() {
            let taken = queue.front().len();
            assert!(taken > 0);
            let front = queue.front().to_vec();
            received.extend(front);
            queue.consume(taken);
        }
        assert!(received == sent);
        assert_eq!((queue.head, queue.tail, queue.len()), (0, 0, 0));
    }
}
