//! One command over many targets, so many of them at a time.
//!
//! [`run`] starts targets as others end, and knows nothing of how a target is reached: a closure does that. What they
//! say goes through one bounded channel to one thread that [`show`]s it, so a slow reader of our output slows all of
//! them down, and a slow or dead target only itself. Memory is bounded by the targets in flight, whatever their number.

mod end;
mod held;
mod lines;
pub mod place;
mod records;
mod show;
mod tally;

pub use end::{Class, End, Ran};
pub use records::{CAPTURED, Captured, Records};
pub use show::{Colours, Grouped, Outputs, Prefixed, Show, Showing, show};
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

/// The most targets at a time: as many as the ops pod's agent takes on one connection.
pub const MOST_AT_A_TIME: u16 = 64;

/// After a stop, how long what was told to end may take before it is left alone.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// How a fan-out goes about it.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Targets at a time.
    pub parallel: usize,
    /// Whether the first target that does not end well ends all.
    pub fail_fast: bool,
}

/// Which of the targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Id {
    /// Its number, from 0.
    pub index: usize,
    /// Its name.
    pub name: Arc<str>,
}

/// Which of a target's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Its stdout.
    Stdout,
    /// Its stderr.
    Stderr,
}

/// What there is to show.
#[derive(Debug)]
pub enum Event {
    /// It said this.
    Output(Id, Stream, Bytes),
    /// It ended; nothing more comes of it.
    Ended(Id, End),
}

/// One output of one target, on its way to whoever shows it.
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
    begun: Instant,
    control: mpsc::Sender<Control>,
    stdout: Arc<AtomicU64>,
    stderr: Arc<AtomicU64>,
}

impl InFlight {
    fn begin(id: Id, events: &mpsc::Sender<Event>) -> (Self, Streams, mpsc::Receiver<Control>) {
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
        (Self { id, begun: Instant::now(), control, stdout, stderr }, streams, controls)
    }

    fn end(&self, ran: Ran) -> End {
        End {
            ran,
            stdout_bytes: self.stdout.load(Ordering::Relaxed),
            stderr_bytes: self.stderr.load(Ordering::Relaxed),
            duration: self.begun.elapsed(),
        }
    }
}

/// Runs every job, and tells how each ended. The first signal of `controls` goes to what runs, and starts nothing more;
/// a kill ends what runs.
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
            let (target, streams, its_controls) = InFlight::begin(id, &events);
            let target = Arc::new(target);
            in_flight.insert(index, target.clone());
            running.push(one(target, start(what, streams, its_controls), events.clone()));
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
        // Nothing in the arms waits: while one did, no target's heartbeat would be sent.
        tokio::select! {
            Some((index, end, output_closed)) = running.next() => {
                in_flight.remove(&index);
                let failed = end.exit_code() != 0;
                tally.add(end);
                if !stopping && (output_closed || (limits.fail_fast && failed)) {
                    stopping = true;
                    limit = Some(Instant::now() + STOP_PATIENCE);
                    tell(&in_flight, Control::Kill);
                }
            }
            control = controls.recv(), if listening => match control {
                Some(control) => {
                    stopping = true;
                    if control == Control::Kill {
                        limit = Some(Instant::now() + STOP_PATIENCE);
                    }
                    tell(&in_flight, control);
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
        tally.add(tally::Short::of(&id, &end));
        let _ = events.send(Event::Ended(id, end)).await;
    }
    tally
}

/// A target from its start to when its end is on its way to be shown, which may wait for a slow reader.
async fn one(
    target: Arc<InFlight>,
    running: impl Future<Output = Ran>,
    events: mpsc::Sender<Event>,
) -> (usize, tally::Short, bool) {
    let ran = running.await;
    let output_closed = matches!(ran.result, Err(ExecError::Output(_)));
    let end = target.end(ran);
    let short = tally::Short::of(&target.id, &end);
    let sent = events.send(Event::Ended(target.id.clone(), end)).await;
    (target.id.index, short, output_closed || sent.is_err())
}

fn tell(in_flight: &BTreeMap<usize, Arc<InFlight>>, control: Control) {
    // Who has more controls waiting than the channel holds has been told to end already.
    for target in in_flight.values() {
        let _ = target.control.try_send(control);
    }
}

#[cfg(test)]
mod tests;
