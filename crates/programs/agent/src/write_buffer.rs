//! Bytes on their way to a descriptor that takes them when it likes.

use rustix::fd::AsFd;
use rustix::io::Errno;

/// Bytes already written that are kept in front of the rest, at most; moving the rest down costs more than they do.
const SPENT: usize = 256 * 1024;

/// What was not yet taken. In a stream that never quite runs dry, what was written is let go all the same.
#[derive(Default)]
pub(crate) struct Outgoing {
    bytes: Vec<u8>,
    written: usize,
}

impl Outgoing {
    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where more is appended.
    pub(crate) fn end(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Writes what is taken now; an error means that nothing more will be.
    pub(crate) fn flush(&mut self, to: impl AsFd) -> Result<(), Errno> {
        let result = loop {
            if self.is_empty() {
                break Ok(());
            }
            match rustix::io::write(&to, &self.bytes[self.written..]) {
                Ok(count) => self.written += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        if self.is_empty() {
            self.bytes.clear();
            self.written = 0;
        } else if self.written > SPENT {
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn a_stream_that_never_runs_dry_takes_no_more_than_what_waits() {
        let (mut reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
        writer.set_nonblocking(true).unwrap();
        let (mut out, mut buffer, mut sent) = (Outgoing::default(), vec![0; 64 * 1024], 0);
        // Ahead of its reader from the beginning, and never caught up with.
        out.end().resize(1024 * 1024, 7);
        for _ in 0..200 {
            out.end().extend_from_slice(&buffer);
            out.flush(&writer).unwrap();
            assert!(!out.is_empty());
            assert!(out.bytes.len() <= out.len() + SPENT + buffer.len());
            reader.read_exact(&mut buffer).unwrap();
            sent += buffer.len();
        }
        assert_eq!(sent, 200 * buffer.len());
    }

    #[test]
    fn who_is_gone_is_an_error() {
        let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
        drop(reader);
        let mut out = Outgoing::default();
        out.end().push(1);
        assert!(out.flush(&writer).is_err());
        out.clear();
        assert_eq!((out.len(), out.flush(&writer)), (0, Ok(())));
    }
}
