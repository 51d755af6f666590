//! One command over many targets, with a limit on how many run at once.
//!
//! [`run`] starts a target whenever another one ends. A closure reaches the target. All output goes through one
//! bounded channel to the one thread of [`spawn_printer`]. So a slow reader of the client's output slows all targets
//! down, and a slow or dead target slows only itself. Memory is bounded by the targets in flight, not by their total
//! number.

mod end;
mod lines;
mod output_buffer;
pub mod place;
mod printer;
mod records;
mod tally;

pub use end::{Class, End, Ran};
pub use printer::{Colours, Grouped, Outputs, Prefixed, Printer, PrinterThread, spawn_printer};
pub use records::{CAPTURED, Captured, Records};
pub use tally::Tally;

pub use crate::job::Job;

use crate::error::ExecError;
use crate::io::{Control, Feed, Output, Streams};
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The most targets at once: the number of sessions that the ops pod's agent accepts on one connection.
pub const MOST_AT_A_TIME: u16 = 64;

/// After a stop, targets that are still running after this time are abandoned.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// The limits of a fan-out.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The number of targets that run at once.
    pub parallel: usize,
    /// Whether the first target that fails ends the whole fan-out.
    pub fail_fast: bool,
}

/// Identifies a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Id {
    /// Its index, from 0.
    pub index: usize,
    /// Its name.
    pub name: Arc<str>,
}

/// An output of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Its stdout.
    Stdout,
    /// Its stderr.
    Stderr,
}

/// An event for the printer.
#[derive(Debug)]
pub enum Event {
    /// The target sent output.
    Output(Id, Stream, Bytes),
    /// The target ended; it sends no more events.
    Ended(Id, End),
}

/// One output of one target, as it goes to the printer.
#[derive(Debug)]
struct TargetOutput {
    id: Id,
    stream: Stream,
    events: mpsc::Sender<Event>,
    bytes: Arc<AtomicU64>,
}

impl Feed for TargetOutput {
    fn give(&self, chunk: Bytes) -> Pin<Box<dyn Future<Output = Result<(), ExecError>> + Send + '_>> {
        Box::pin(async move {
            self.bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            let sent = self.events.send(Event::Output(self.id.clone(), self.stream, chunk)).await;
            sent.map_err(|_| ExecError::Output(std::io::ErrorKind::BrokenPipe.into()))
        })
    }
}

/// A target that was started and has not ended.
struct InFlight {
    id: Id,
    started: Instant,
    control: mpsc::Sender<Control>,
    stdout: Arc<AtomicU64>,
    stderr: Arc<AtomicU64>,
}

impl InFlight {
    fn start(id: Id, events: &mpsc::Sender<Event>) -> (Self, Streams, mpsc::Receiver<Control>) {
        let (control, controls) = mpsc::channel(4);
        let (stdout, stderr) = (Arc::default(), Arc::default());
        let feed = |stream, bytes: &Arc<AtomicU64>| {
            let (id, events, bytes) = (id.clone(), events.clone(), bytes.clone());
            Output::Feed(Box::new(TargetOutput { id, stream, events, bytes }))
        };
        let streams = Streams {
            stdin: None,
            stdout: feed(Stream::Stdout, &stdout),
            stderr: feed(Stream::Stderr, &stderr),
        };
        (Self { id, started: Instant::now(), control, stdout, stderr }, streams, controls)
    }

    fn end(&self, ran: Ran) -> End {
        End {
            ran,
            stdout_bytes: self.stdout.load(Ordering::Relaxed),
            stderr_bytes: self.stderr.load(Ordering::Relaxed),
            duration: self.started.elapsed(),
        }
    }
}

/// Runs every job, and returns how each ended. The first signal from `controls` goes to all running targets, and no
/// more are started. A kill ends the running targets.
pub async fn run<T, F>(
    jobs: impl IntoIterator<Item = Job<T>>,
    limits: Limits,
    mut controls: mpsc::Receiver<Control>,
    events: mpsc::Sender<Event>,
    start: impl Fn(T, Streams, mpsc::Receiver<Control>) -> F,
) -> Tally
where
    F: Future<Output = Ran>,
{
    let mut waiting = jobs.into_iter().enumerate();
    let mut running = FuturesUnordered::new();
    let mut in_flight: BTreeMap<usize, Arc<InFlight>> = BTreeMap::new();
    let mut tally = Tally::default();
    let (mut stopping, mut listening, mut limit) = (false, true, None::<Instant>);
    loop {
        while !stopping && running.len() < limits.parallel {
            let Some((index, Job { name, what })) = waiting.next() else { break };
            let id = Id { index, name: name.into() };
            let (target, streams, its_controls) = InFlight::start(id, &events);
            let target = Arc::new(target);
            in_flight.insert(index, target.clone());
            running.push(run_one(target, start(what, streams, its_controls), events.clone()));
        }
        if running.is_empty() {
            break;
        }
        let late = async {
            match limit {
                Some(limit) => tokio::time::sleep_until(limit).await,
                None => std::future::pending().await,
            }
        };
        // No arm may wait: while one waits, no target's heartbeat is sent.
        tokio::select! {
            Some((index, end, output_closed)) = running.next() => {
                in_flight.remove(&index);
                let failed = end.exit_code() != 0;
                tally.add(end);
                if !stopping && (output_closed || (limits.fail_fast && failed)) {
                    stopping = true;
                    limit = Some(Instant::now() + STOP_PATIENCE);
                    send_to_all(&in_flight, Control::Kill);
                }
            }
            control = controls.recv(), if listening => match control {
                Some(control) => {
                    stopping = true;
                    if control == Control::Kill {
                        limit = Some(Instant::now() + STOP_PATIENCE);
                    }
                    send_to_all(&in_flight, control);
                }
                None => listening = false,
            },
            () = late => break,
        }
    }
    drop(running);
    let left_alone = in_flight.into_values().map(|target| (target.id.clone(), target.end(Ran::cancelled())));
    let never_started =
        waiting.map(|(index, Job { name, what: _ })| (Id { index, name: name.into() }, End::never_started()));
    for (id, end) in left_alone.chain(never_started) {
        tally.add(tally::EndSummary::of(&id, &end));
        let _ = events.send(Event::Ended(id, end)).await;
    }
    tally
}

/// Runs a target, and sends its end to the printer. Sending may wait for a slow reader.
async fn run_one(
    target: Arc<InFlight>,
    running: impl Future<Output = Ran>,
    events: mpsc::Sender<Event>,
) -> (usize, tally::EndSummary, bool) {
    let ran = running.await;
    let output_closed = matches!(ran.result, Err(ExecError::Output(_)));
    let end = target.end(ran);
    let short = tally::EndSummary::of(&target.id, &end);
    let sent = events.send(Event::Ended(target.id.clone(), end)).await;
    (target.id.index, short, output_closed || sent.is_err())
}

fn send_to_all(in_flight: &BTreeMap<usize, Arc<InFlight>>, control: Control) {
    // A target whose control channel is full has already received a control that ends it.
    for target in in_flight.values() {
        let _ = target.control.try_send(control);
    }
}

#[cfg(test)]
mod tests;
