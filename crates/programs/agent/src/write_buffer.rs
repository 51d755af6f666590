//! A write buffer for a descriptor.

use rustix::fd::AsFd;
use rustix::io::Errno;

/// Maximum written bytes kept at the front of the buffer; moving the rest costs more than keeping them.
const SPENT: usize = 256 * 1024;

/// Bytes that were not yet written. Memory of written bytes is released even if the buffer is never empty.
#[derive(Default)]
pub(crate) struct WriteBuffer {
    bytes: Vec<u8>,
    written: usize,
}

impl WriteBuffer {
    /// The number of pending bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() - self.written
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The buffer to append to.
    pub(crate) fn end(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Writes what the descriptor accepts now. After an error, nothing more can be written.
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
    fn a_busy_buffer_stays_small() {
        let (mut reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
        writer.set_nonblocking(true).unwrap();
        let (mut out, mut buffer, mut sent) = (WriteBuffer::default(), vec![0; 64 * 1024], 0);
        // The writer is ahead of its reader from the start and never empty.
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
    fn a_closed_reader_is_an_error() {
        let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
        drop(reader);
        let mut out = WriteBuffer::default();
        out.end().push(1);
        assert!(out.flush(&writer).is_err());
        out.clear();
        assert_eq!((out.len(), out.flush(&writer)), (0, Ok(())));
    }
}
