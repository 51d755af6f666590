//! Showing what targets say: each line with its target's name as it comes, or a target's output together at its end.

use super::end::{Class, End};
use super::held::Held;
use super::lines::Lines;
use super::{Event, Id, Stream};
use crate::error::ExecError;
use std::collections::HashMap;
use std::io::{self, Write};
use tokio::sync::{mpsc, oneshot};

/// Events between the targets and whoever shows them; each is a chunk of at most a few dozen KiB.
const DEPTH: usize = 32;

/// Memory for the output of targets that have not ended, all together.
const HELD: usize = 8 * 1024 * 1024;

/// The same for one target, however few there are at a time.
const HELD_OF_ONE: usize = 1024 * 1024;

/// What shows the events of a fan-out. Its methods may block; they are called on a thread of their own.
pub trait Show: Send + 'static {
    /// A target said this.
    fn said(&mut self, id: &Id, stream: Stream, data: &[u8]) -> Result<(), ExecError>;
    /// A target ended.
    fn ended(&mut self, id: &Id, end: End) -> Result<(), ExecError>;
}

/// A thread that shows events until there are no more senders of them.
#[derive(Debug)]
pub struct Showing(oneshot::Receiver<Result<(), ExecError>>);

impl Showing {
    /// Waits until everything is shown.
    pub async fn end(self) -> Result<(), ExecError> {
        self.0.await.unwrap_or_else(|_| Err(ExecError::Output(io::ErrorKind::BrokenPipe.into())))
    }
}

/// Starts the thread.
pub fn show(mut by: impl Show) -> (mpsc::Sender<Event>, Showing) {
    let (sender, mut events) = mpsc::channel(DEPTH);
    let (done, outcome) = oneshot::channel();
    std::thread::spawn(move || {
        let mut result = Ok(());
        while let Some(event) = events.blocking_recv() {
            result = match event {
                Event::Output(id, stream, data) => by.said(&id, stream, &data),
                Event::Ended(id, end) => by.ended(&id, end),
            };
            if result.is_err() {
                break;
            }
        }
        let _ = done.send(result);
    });
    (sender, Showing(outcome))
}

/// Memory for what is held of one target, with so many at a time.
pub(super) fn memory_of_one(parallel: usize) -> usize {
    (HELD / parallel.max(1)).min(HELD_OF_ONE)
}

/// Our stdout and stderr, unbuffered.
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
    /// Writes all at once, so that whole lines stay whole among what others write.
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

/// On which outputs names have colours.
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

/// Colours that read on light and dark terminals, and are not those of errors and warnings.
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

/// A name may be any line of a file: it does not drive the terminal.
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

/// What a target's end has to say that its own output does not.
fn remarks(end: &End) -> String {
    let mut text = String::new();
    if let Some(error) = end.error().filter(|_| end.class() != Class::Cancelled) {
        text.push_str(&format!("error: {error}\n"));
    }
    text
}

/// Each line as it comes, with its target's name before it.
#[derive(Debug)]
pub struct Prefixed {
    outputs: Outputs,
    colours: Colours,
    lines: HashMap<usize, Both>,
    out: Vec<u8>,
}

impl Prefixed {
    /// Shows on these.
    pub fn new(outputs: Outputs, colours: Colours) -> Self {
        Self { outputs, colours, lines: HashMap::new(), out: Vec::new() }
    }

    fn write(&mut self, stream: Stream) -> Result<(), ExecError> {
        let result = self.outputs.write(stream, &self.out);
        self.out.clear();
        result
    }
}

impl Show for Prefixed {
    fn said(&mut self, id: &Id, stream: Stream, data: &[u8]) -> Result<(), ExecError> {
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

/// All of a target's output when it has ended, below a line with its name.
#[derive(Debug)]
pub struct Grouped {
    outputs: Outputs,
    colours: Colours,
    memory: usize,
    held: HashMap<usize, Held>,
}

impl Grouped {
    /// Shows on these, with so many targets at a time.
    pub fn new(outputs: Outputs, colours: Colours, parallel: usize) -> Self {
        Self { outputs, colours, memory: memory_of_one(parallel), held: HashMap::new() }
    }
}

/// As `head` and `tail` name several files, with the end where it is not code 0.
fn heading(id: &Id, end: &End, coloured: bool) -> String {
    let name = name(id);
    let text = match (end.class(), &end.ran.result) {
        (Class::Ok, _) => format!("==> {name} <=="),
        (Class::NotReached, _) => format!("==> {name}: not reached <=="),
        (_, Ok(_)) => format!("==> {name}: {} <==", end.words()),
        (_, Err(_)) => format!("==> {name}: {} <==", end.outcome()),
    };
    if coloured { format!("\x1b[1m{text}\x1b[0m\n") } else { text + "\n" }
}

impl Show for Grouped {
    fn said(&mut self, id: &Id, stream: Stream, data: &[u8]) -> Result<(), ExecError> {
        let memory = self.memory;
        self.held.entry(id.index).or_insert_with(|| Held::new(memory)).push(stream, data)
    }

    fn ended(&mut self, id: &Id, end: End) -> Result<(), ExecError> {
        let Self { outputs, colours, memory: _, held } = self;
        outputs.write(Stream::Stdout, heading(id, &end, colours.stdout).as_bytes())?;
        // Whether the last line of each lacks its newline, which the next heading needs.
        let mut open = [false; 2];
        if let Some(held) = held.remove(&id.index) {
            held.replay(|stream, data| {
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
