//! Buffers a target's output until it ends: in memory while it is short, otherwise in an unlinked file.

use super::Stream;
use crate::error::ExecError;
use std::fs::File;
use std::io::{self, BufReader, Seek as _, Write as _};

/// Output in the order in which it arrived.
#[derive(Debug)]
pub(super) struct OutputBuffer {
    /// Pieces: stream, length, bytes.
    pieces: Vec<u8>,
    /// Beyond this many bytes, pieces go to the file.
    memory: usize,
    file: Option<File>,
}

impl OutputBuffer {
    pub(super) fn new(memory: usize) -> Self {
        Self { pieces: Vec::new(), memory, file: None }
    }

    pub(super) fn push(&mut self, stream: Stream, data: &[u8]) -> Result<(), ExecError> {
        let length = u32::try_from(data.len()).map_err(|error| failed(io::Error::other(error)))?;
        self.pieces.push(u8::from(stream == Stream::Stderr));
        self.pieces.extend(length.to_be_bytes());
        self.pieces.extend_from_slice(data);
        if self.pieces.len() > self.memory { self.spill().map_err(failed) } else { Ok(()) }
    }

    fn spill(&mut self) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                // Mode 0600. The file has no name, so the kernel deletes it when its last descriptor is closed.
                let (file, name) = tempfile::NamedTempFile::new()?.into_parts();
                name.close()?;
                none.insert(file)
            }
        };
        file.write_all(&self.pieces)?;
        self.pieces = Vec::new();
        Ok(())
    }

    /// Passes all of the output to `each`.
    pub(super) fn replay(
        self,
        mut each: impl FnMut(Stream, &[u8]) -> Result<(), ExecError>,
    ) -> Result<(), ExecError> {
        let Self { pieces, memory: _, file } = self;
        if let Some(mut file) = file {
            file.rewind().map_err(failed)?;
            replay(BufReader::with_capacity(64 * 1024, file), &mut each)?;
        }
        replay(pieces.as_slice(), &mut each)
    }
}

fn replay(
    mut from: impl io::Read,
    each: &mut impl FnMut(Stream, &[u8]) -> Result<(), ExecError>,
) -> Result<(), ExecError> {
    let mut data = Vec::new();
    loop {
        let mut stream = [0];
        if from.read(&mut stream).map_err(failed)? == 0 {
            return Ok(());
        }
        let mut length = [0; 4];
        from.read_exact(&mut length).map_err(failed)?;
        data.resize(u32::from_be_bytes(length) as usize, 0);
        from.read_exact(&mut data).map_err(failed)?;
        each(if stream == [0] { Stream::Stdout } else { Stream::Stderr }, &data)?;
    }
}

fn failed(source: io::Error) -> ExecError {
    ExecError::Hold { folder: std::env::temp_dir().display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_comes_back_in_order_from_memory_and_file() {
        for memory in [0, 20, 1_000_000] {
            let mut buffer = OutputBuffer::new(memory);
            for at in 0..100_u8 {
                let stream = if at % 3 == 0 { Stream::Stderr } else { Stream::Stdout };
                buffer.push(stream, &[at].repeat(usize::from(at))).unwrap();
                assert!(buffer.pieces.len() <= memory);
            }
            assert_eq!(buffer.file.is_some(), memory < 1_000);
            let mut next = 0_u8;
            buffer
                .replay(|stream, data| {
                    assert_eq!(stream == Stream::Stderr, next.is_multiple_of(3));
                    assert_eq!(data, [next].repeat(usize::from(next)));
                    next += 1;
                    Ok(())
                })
                .unwrap();
            assert_eq!(next, 100);
        }
    }

    #[test]
    fn the_file_has_no_name_and_is_ours_alone() {
        use std::os::unix::fs::MetadataExt as _;
        let mut buffer = OutputBuffer::new(0);
        buffer.push(Stream::Stdout, b"secret").unwrap();
        let metadata = buffer.file.unwrap().metadata().unwrap();
        assert_eq!((metadata.nlink(), metadata.mode() & 0o777), (0, 0o600));
    }
}
