//! Prints one record for each target, for programs.

use super::end::End;
use super::output_buffer::OutputBuffer;
use super::printer::{Outputs, Printer, memory_of_one};
use super::{Id, Stream};
use crate::error::ExecError;
use std::collections::HashMap;

/// At most this many bytes of each of a target's outputs are in its record.
pub const CAPTURED: usize = 1024 * 1024;

/// A target's output.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// Its stdout.
    pub stdout: Vec<u8>,
    /// Its stderr.
    pub stderr: Vec<u8>,
    /// Whether it sent more than is captured.
    pub truncated: bool,
}

struct Capturing {
    buffer: OutputBuffer,
    /// Bytes that may still be captured, of stdout and stderr.
    room: [usize; 2],
    truncated: bool,
}

type Render = dyn FnMut(&Id, &End, Captured) -> Vec<u8> + Send;

/// Prints a record when a target ends.
pub struct Records {
    outputs: Outputs,
    render: Box<Render>,
    memory: usize,
    capturing: HashMap<usize, Capturing>,
}

impl Records {
    /// Writes the records that `render` returns to `outputs`. `parallel` is the number of targets that run at once.
    pub fn new(
        outputs: Outputs,
        parallel: usize,
        render: impl FnMut(&Id, &End, Captured) -> Vec<u8> + Send + 'static,
    ) -> Self {
        let memory = memory_of_one(parallel);
        Self { outputs, render: Box::new(render), memory, capturing: HashMap::new() }
    }
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records").finish_non_exhaustive()
    }
}

impl Printer for Records {
    fn output(&mut self, id: &Id, stream: Stream, data: &[u8]) -> Result<(), ExecError> {
        let memory = self.memory;
        let Capturing { buffer, room, truncated } = self.capturing.entry(id.index).or_insert_with(|| {
            Capturing { buffer: OutputBuffer::new(memory), room: [CAPTURED; 2], truncated: false }
        });
        let room = &mut room[usize::from(stream == Stream::Stderr)];
        let taken = &data[..data.len().min(*room)];
        *room -= taken.len();
        *truncated |= taken.len() < data.len();
        if taken.is_empty() { Ok(()) } else { buffer.push(stream, taken) }
    }

    fn ended(&mut self, id: &Id, end: End) -> Result<(), ExecError> {
        let mut captured = Captured::default();
        if let Some(Capturing { buffer, room: _, truncated }) = self.capturing.remove(&id.index) {
            captured.truncated = truncated;
            buffer.replay(|stream, data| {
                match stream {
                    Stream::Stdout => captured.stdout.extend_from_slice(data),
                    Stream::Stderr => captured.stderr.extend_from_slice(data),
                }
                Ok(())
            })?;
        }
        let record = (self.render)(id, &end, captured);
        self.outputs.write(Stream::Stdout, &record)
    }
}
