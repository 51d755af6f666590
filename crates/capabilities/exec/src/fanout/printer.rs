//! Prints the output of targets: each line with its target's name as it arrives, or all output of a target at its
//! end.

use super::end::{Class, End};
use super::lines::Lines;
use super::output_buffer::OutputBuffer;
use super::{Event, Id, Stream};
use crate::error::ExecError;
use std::collections::HashMap;
use std::io::{self, Write};
use tokio::sync::{mpsc, oneshot};

/// Events between the targets and the printer. Each is a chunk of at most a few dozen KiB.
const DEPTH: usize = 32;

/// Memory for the output of all targets that have not ended.
const BUFFER_MEMORY: usize = 8 * 1024 * 1024;

/// The maximum for one target, however few run at once.
const BUFFER_OF_ONE: usize = 1024 * 1024;

/// Prints the events of a fan-out. Its methods may block: they run on their own thread.
pub trait Printer: Send + 'static {
    /// A target sent output.
    fn output(&mut self, id: &Id, stream: Stream, data: &[u8]) -> Result<(), ExecError>;
    /// A target ended.
    fn ended(&mut self, id: &Id, end: End) -> Result<(), ExecError>;
}

/// The printer's thread. It runs until all senders of events are dropped.
#[derive(Debug)]
pub struct PrinterThread(oneshot::Receiver<Result<(), ExecError>>);

impl PrinterThread {
    /// Waits until everything is printed.
    pub async fn end(self) -> Result<(), ExecError> {
        self.0.await.unwrap_or_else(|_| Err(ExecError::Output(io::ErrorKind::BrokenPipe.into())))
    }
}

/// Starts the printer's thread.
pub fn spawn_printer(mut by: impl Printer) -> (mpsc::Sender<Event>, PrinterThread) {
    let (sender, mut events) = mpsc::channel(DEPTH);
    let (done, outcome) = oneshot::channel();
    std::thread::spawn(move || {
        let mut result = Ok(());
        while let Some(event) = events.blocking_recv() {
            result = match event {
                Event::Output(id, stream, data) => by.output(&id, stream, &data),
                Event::Ended(id, end) => by.ended(&id, end),
            };
            if result.is_err() {
                break;
            }
        }
        let _ = done.send(result);
    });
    (sender, PrinterThread(outcome))
}

/// Returns the memory for the buffered output of one target, if `parallel` targets run at once.
pub(super) fn memory_of_one(parallel: usize) -> usize {
    (BUFFER_MEMORY / parallel.max(1)).min(BUFFER_OF_ONE)
}

/// The client's stdout and stderr, unbuffered.
pub struct Outputs {
    /// Stdout.
    pub stdout: Box<dyn Write + Send>,
    /// Stderr.
    pub stderr: Box<dyn Write + Send>,
}

impl std::fmt::Debug for Outputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outputs").finish_non_exhaustive()
    }
}

impl Outputs {
    /// Writes everything with one call, so that whole lines stay whole next to the output of other programs.
    pub(super) fn write(&mut self, stream: Stream, data: &[u8]) -> Result<(), ExecError> {
        if data.is_empty() {
            return Ok(());
        }
        let to = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        to.write_all(data).and_then(|()| to.flush()).map_err(ExecError::Output)
    }
}

/// The outputs on which names are coloured.
#[derive(Debug, Clone, Copy, Default)]
pub struct Colours {
    /// On stdout.
    pub stdout: bool,
    /// On stderr.
    pub stderr: bool,
}

impl Colours {
    fn on(self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        }
    }
}

/// Colours that are readable on light and dark terminals, and differ from those of errors and warnings.
const PALETTE: [&str; 6] = ["36", "35", "34", "32", "96", "95"];

fn prefix(id: &Id, coloured: bool) -> Vec<u8> {
    let name = name(id);
    if coloured {
        let colour = PALETTE[id.index % PALETTE.len()];
        format!("\x1b[{colour}m[{name}]\x1b[0m ").into_bytes()
    } else {
        format!("[{name}] ").into_bytes()
    }
}

/// A name can be any line of a file: control characters are escaped, so that it cannot control the terminal.
fn name(id: &Id) -> String {
    id.name
        .chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

/// The lines of a target's two outputs.
#[derive(Debug, Default)]
struct Both {
    stdout: Lines,
    stderr: Lines,
}

impl Both {
    fn of(&mut self, stream: Stream) -> &mut Lines {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

/// Returns what a target's own output does not show about its end.
fn remarks(end: &End) -> String {
    let mut text = String::new();
    if let Some(error) = end.error().filter(|_| end.class() != Class::Cancelled) {
        text.push_str(&format!("error: {error}\n"));
    }
    text
}

/// Prints each line as it arrives, after its target's name.
#[derive(Debug)]
pub struct Prefixed {
    outputs: Outputs,
    colours: Colours,
    lines: HashMap<usize, Both>,
    out: Vec<u8>,
}

impl Prefixed {
    /// Prints to these outputs.
    pub fn new(outputs: Outputs, colours: Colours) -> Self {
        Self { outputs, colours, lines: HashMap::new(), out: Vec::new() }
    }

    fn write(&mut self, stream: Stream) -> Result<(), ExecError> {
        let result = self.outputs.write(stream, &self.out);
        self.out.clear();
        result
    }
}

impl Printer for Prefixed {
    fn output(&mut self, id: &Id, stream: Stream, data: &[u8]) -> Result<(), ExecError> {
        let prefix = prefix(id, self.colours.on(stream));
        self.lines.entry(id.index).or_default().of(stream).push(data, &prefix, &mut self.out);
        self.write(stream)
    }

    fn ended(&mut self, id: &Id, end: End) -> Result<(), ExecError> {
        let mut lines = self.lines.remove(&id.index).unwrap_or_default();
        let remarks = remarks(&end);
        for stream in [Stream::Stdout, Stream::Stderr] {
            let prefix = prefix(id, self.colours.on(stream));
            lines.of(stream).end(&prefix, &mut self.out);
            if stream == Stream::Stderr {
                lines.of(stream).push(remarks.as_bytes(), &prefix, &mut self.out);
            }
            self.write(stream)?;
        }
        Ok(())
    }
}

/// Prints all of a target's output when it ends, below a line with its name.
#[derive(Debug)]
pub struct Grouped {
    outputs: Outputs,
    colours: Colours,
    memory: usize,
    buffer: HashMap<usize, OutputBuffer>,
}

impl Grouped {
    /// Prints to these outputs. `parallel` is the number of targets that run at once.
    pub fn new(outputs: Outputs, colours: Colours, parallel: usize) -> Self {
        Self { outputs, colours, memory: memory_of_one(parallel), buffer: HashMap::new() }
    }
}

/// The same heading as `head` and `tail` print for several files, with the end unless it is code 0.
fn heading(id: &Id, end: &End, coloured: bool) -> String {
    let name = name(id);
    let text = match (end.class(), &end.ran.result) {
        (Class::Ok, _) => format!("==> {name} <=="),
        (Class::NotReached, _) => format!("==> {name}: not reached <=="),
        (_, Ok(_)) => format!("==> {name}: {} <==", end.description()),
        (_, Err(_)) => format!("==> {name}: {} <==", end.outcome()),
    };
    if coloured { format!("\x1b[1m{text}\x1b[0m\n") } else { text + "\n" }
}

impl Printer for Grouped {
    fn output(&mut self, id: &Id, stream: Stream, data: &[u8]) -> Result<(), ExecError> {
        let memory = self.memory;
        self.buffer.entry(id.index).or_insert_with(|| OutputBuffer::new(memory)).push(stream, data)
    }

    fn ended(&mut self, id: &Id, end: End) -> Result<(), ExecError> {
        let Self { outputs, colours, memory: _, buffer } = self;
        outputs.write(Stream::Stdout, heading(id, &end, colours.stdout).as_bytes())?;
        // Whether the last line of each output has no newline; the next heading needs one.
        let mut open = [false; 2];
        if let Some(buffer) = buffer.remove(&id.index) {
            buffer.replay(|stream, data| {
                if let Some(last) = data.last() {
                    open[usize::from(stream == Stream::Stderr)] = *last != b'\n';
                }
                outputs.write(stream, data)
            })?;
        }
        for (stream, open) in [Stream::Stdout, Stream::Stderr].into_iter().zip(open) {
            if open {
                outputs.write(stream, b"\n")?;
            }
        }
        outputs.write(Stream::Stderr, remarks(&end).as_bytes())
    }
}
