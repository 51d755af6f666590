//! Relays frames between the two ends and keeps the accounts.

use crate::channel::{EndReader, EndWriter, OpenEnd};
use crate::flow_control::FlowControl;
use crate::ledger::Ledger;
use crate::rate_limit::RateLimit;
use postern_exec::transport::Incoming;
use postern_wire::Decoder;
use postern_wire::copy::{FromDestination, FromSource, append_raw};
use std::cell::RefCell;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

/// Maximum silence of an agent, which sends something every second.
const SILENCE: Duration = Duration::from_secs(15);

/// How long to wait for the last message of an end that has ended.
const LAST_MESSAGE: Duration = Duration::from_secs(5);

/// Interval of progress reports.
const PROGRESS: Duration = Duration::from_millis(200);

/// One of the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Source,
    Destination,
}

/// Why a relay ended early.
#[derive(Debug)]
pub(crate) enum RelayError {
    /// The connection to an end is lost; a new one may work.
    Lost(Role, String),
    /// An end reports a fatal error.
    Fatal(Role, String),
}

/// Relays frames until the destination has finished.
pub(crate) async fn relay(
    source: &mut OpenEnd,
    destination: &mut OpenEnd,
    ledger: &RefCell<&mut Ledger<'_>>,
    limit: &mut RateLimit,
    flow: &FlowControl,
) -> Result<(), RelayError> {
    let OpenEnd { from: from_source, to: to_source, decoder: source_decoder, .. } = source;
    let OpenEnd {
        from: from_destination,
        to: to_destination,
        decoder: destination_decoder,
        sent: sent_counter,
        ..
    } = destination;
    let sent_counter = sent_counter.as_deref();
    let forward = forward(from_source, source_decoder, (to_destination, sent_counter), ledger, limit, flow);
    let backward = backward(from_destination, destination_decoder, to_source, ledger, flow);
    tokio::pin!(forward, backward);
    // The last message of an end contains the reason why it stopped reading, if it sent one.
    let ended = tokio::select! {
        ended = &mut backward => match ended {
            Err(lost @ RelayError::Lost(Role::Source, _)) => {
                match tokio::time::timeout(LAST_MESSAGE, forward).await {
                    Ok(fatal @ RelayError::Fatal(..)) => Err(fatal),
                    _ => Err(lost),
                }
            }
            other => other,
        },
        error = &mut forward => match error {
            lost @ RelayError::Lost(..) => {
                match tokio::time::timeout(LAST_MESSAGE, backward).await {
                    Ok(Err(RelayError::Lost(..))) | Err(_) => Err(lost),
                    Ok(other) => other,
                }
            }
            fatal @ RelayError::Fatal(..) => Err(fatal),
        },
    };
    ledger.borrow_mut().sent(OpenEnd::sent_bytes(sent_counter, 0));
    ended
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Receives from an end: true for bytes pushed into the decoder, false for a tick; the error is the reason of
/// a loss.
async fn receive(
    from: &mut EndReader,
    decoder: &mut Decoder,
    last_received: &mut Instant,
    beat: &mut Interval,
    diagnostics: &mut String,
) -> Result<bool, String> {
    let incoming = tokio::select! {
        biased;
        incoming = from.next() => incoming,
        _ = beat.tick() => {
            let exec = matches!(from, EndReader::Exec(_));
            return match exec && last_received.elapsed() > SILENCE {
                true => Err(format!("it was silent for {} s", SILENCE.as_secs())),
                false => Ok(false),
            };
        }
    };
    *last_received = Instant::now();
    match incoming {
        Incoming::Bytes(bytes) => {
            decoder.push(&bytes);
            Ok(true)
        }
        Incoming::Diagnostics(bytes) => {
            if diagnostics.len() < 2_000 {
                diagnostics.push_str(&String::from_utf8_lossy(&bytes));
            }
            Ok(true)
        }
        Incoming::Ended(why) | Incoming::NotStarted(why) if diagnostics.trim().is_empty() => Err(why),
        Incoming::Ended(why) | Incoming::NotStarted(why) => {
            Err(format!("{why}; it said: {}", diagnostics.trim()))
        }
    }
}

/// Relays the source's frames to the destination until an error.
async fn forward(
    from: &mut EndReader,
    decoder: &mut Decoder,
    (to, sent_counter): (&mut EndWriter, Option<&AtomicU64>),
    ledger: &RefCell<&mut Ledger<'_>>,
    limit: &mut RateLimit,
    flow: &FlowControl,
) -> RelayError {
    let mut out = Vec::with_capacity(256 * 1024);
    let (mut beat, mut last_received, mut diagnostics) = (ticks(PROGRESS), Instant::now(), String::new());
    let (mut quiet_since, mut shown) = (Instant::now(), Instant::now());
    loop {
        match process_source_frames(decoder, &mut out, ledger, flow) {
            Ok(()) => {}
            Err(RelayError::Fatal(role, why)) => return RelayError::Fatal(role, why),
            Err(lost) => return lost,
        }
        let full = out.len() >= ENOUGH;
        if !out.is_empty() {
            // In pieces that take less time than a heartbeat interval.
            for piece in out.chunks(limit.piece().min(flow.piece())) {
                flow.take(piece.len()).await;
                let sent = OpenEnd::sent_bytes(sent_counter, piece.len());
                limit.take(sent).await;
                ledger.borrow_mut().sent(sent);
                if let Err(why) = to.send(piece).await {
                    return RelayError::Lost(Role::Destination, why);
                }
            }
            out.clear();
            quiet_since = Instant::now();
            // A busy source never waits for a tick.
            if shown.elapsed() >= PROGRESS {
                shown = quiet_since;
                ledger.borrow_mut().progress();
            }
        }
        // More frames may already be buffered, and no further input may follow them.
        if full {
            continue;
        }
        match receive(from, decoder, &mut last_received, &mut beat, &mut diagnostics).await {
            Ok(true) => {}
            Ok(false) => {
                ledger.borrow_mut().progress();
                if quiet_since.elapsed() > Duration::from_secs(1) {
                    FromSource::Heartbeat.encode(&mut out);
                }
            }
            Err(why) => {
                // The destination would wait for more input, and so would we for its last message.
                to.close_with_timeout().await;
                return RelayError::Lost(Role::Source, why);
            }
        }
    }
}

/// Maximum bytes of frames collected before they are sent, approximately.
const ENOUGH: usize = 256 * 1024;

fn process_source_frames(
    decoder: &mut Decoder,
    out: &mut Vec<u8>,
    ledger: &RefCell<&mut Ledger<'_>>,
    flow: &FlowControl,
) -> Result<(), RelayError> {
    let odd = |error: postern_wire::WireError| RelayError::Fatal(Role::Source, error.to_string());
    let mut ledger = ledger.borrow_mut();
    while out.len() < ENOUGH {
        let Some((kind, payload)) = decoder.next_frame().map_err(odd)? else { break };
        match FromSource::decode(kind, payload).map_err(odd)? {
            FromSource::Entry(mut entry) => {
                entry.settled = ledger.entry(&entry);
                FromSource::Entry(entry).encode(out);
                continue;
            }
            FromSource::Fault { path, message } => ledger.fault(path, message),
            FromSource::End => ledger.complete(),
            FromSource::Data(bytes) => ledger.content(bytes.len() as u64),
            FromSource::Compressed { length, bytes: _ } => ledger.content(length.into()),
            FromSource::Hole(length) | FromSource::Reuse { offset: _, length } => ledger.content(length),
            FromSource::Fatal(message) => return Err(RelayError::Fatal(Role::Source, message)),
            FromSource::Begin(_)
            | FromSource::DirectoryEnd(_)
            | FromSource::From { .. }
            | FromSource::Cut(_)
            | FromSource::FileEnd { .. }
            | FromSource::FileFault { .. }
            | FromSource::Heartbeat => {}
            FromSource::Ping => continue, // only we send these
        }
        append_raw(out, kind, payload);
        if flow.ping(out.len()) {
            FromSource::Ping.encode(out);
        }
    }
    Ok(())
}

/// Relays the destination's frames to the source until it has finished.
async fn backward(
    from: &mut EndReader,
    decoder: &mut Decoder,
    to: &mut EndWriter,
    ledger: &RefCell<&mut Ledger<'_>>,
    flow: &FlowControl,
) -> Result<(), RelayError> {
    let mut out = Vec::with_capacity(64 * 1024);
    let (mut beat, mut last_received, mut diagnostics) =
        (ticks(Duration::from_secs(1)), Instant::now(), String::new());
    loop {
        let finished = process_destination_frames(decoder, &mut out, ledger, flow)?;
        if !out.is_empty() {
            if let Err(why) = to.send(&out).await
                && !finished
            {
                return Err(RelayError::Lost(Role::Source, why));
            }
            out.clear();
        }
        if finished {
            return Ok(());
        }
        match receive(from, decoder, &mut last_received, &mut beat, &mut diagnostics).await {
            Ok(true) => {}
            Ok(false) => FromDestination::Heartbeat.encode(&mut out),
            Err(why) => return Err(RelayError::Lost(Role::Destination, why)),
        }
    }
}

fn process_destination_frames(
    decoder: &mut Decoder,
    out: &mut Vec<u8>,
    ledger: &RefCell<&mut Ledger<'_>>,
    flow: &FlowControl,
) -> Result<bool, RelayError> {
    let odd = |error: postern_wire::WireError| RelayError::Fatal(Role::Destination, error.to_string());
    let mut ledger = ledger.borrow_mut();
    while let Some((kind, payload)) = decoder.next_frame().map_err(odd)? {
        let frame = FromDestination::decode(kind, payload).map_err(odd)?;
        if frame != FromDestination::Pong {
            append_raw(out, kind, payload);
        }
        match frame {
            FromDestination::EntryResult(settled) => {
                if !ledger.settled(settled) {
                    let why = "it answered an unknown entry".to_owned();
                    return Err(RelayError::Fatal(Role::Destination, why));
                }
            }
            FromDestination::Deleted(path) => ledger.deleted(path),
            FromDestination::Finished => return Ok(true),
            FromDestination::Fatal(message) => return Err(RelayError::Fatal(Role::Destination, message)),
            FromDestination::NotDeleted { path, message } => ledger.fault(path, message),
            FromDestination::Target { directory, name } => ledger.set_target(directory, name),
            FromDestination::Pong => {
                if !flow.pong() {
                    let why = "it answered a ping that was not sent".to_owned();
                    return Err(RelayError::Fatal(Role::Destination, why));
                }
            }
            FromDestination::Want(_)
            | FromDestination::Hashing(_)
            | FromDestination::Blocks(_)
            | FromDestination::Chunks(_)
            | FromDestination::Stop(_)
            | FromDestination::Heartbeat => {}
        }
    }
    Ok(false)
}

/// Waits until a destination without a source has finished.
pub(crate) async fn wait_until_finished(
    opened: &mut OpenEnd,
    ledger: &RefCell<&mut Ledger<'_>>,
) -> Result<(), RelayError> {
    let OpenEnd { from, to, decoder, .. } = opened;
    let (mut beat, mut last_received, mut diagnostics) =
        (ticks(Duration::from_secs(1)), Instant::now(), String::new());
    let (mut echo, mut frame) = (Vec::new(), Vec::new());
    FromSource::Heartbeat.encode(&mut frame);
    let flow = FlowControl::default();
    while !process_destination_frames(decoder, &mut echo, ledger, &flow)? {
        echo.clear();
        let lost = |why| RelayError::Lost(Role::Destination, why);
        if !receive(from, decoder, &mut last_received, &mut beat, &mut diagnostics).await.map_err(lost)? {
            to.send(&frame).await.map_err(lost)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::tests::NullObserver;
    use bytes::Bytes;
    use tokio::sync::mpsc;

    fn end(from: mpsc::Receiver<Bytes>, to: mpsc::Sender<Bytes>) -> OpenEnd {
        OpenEnd {
            from: EndReader::Thread(from),
            to: EndWriter::Thread(Some(to)),
            decoder: Decoder::default(),
            thread: None,
            sent: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn frames_are_relayed_without_delay() {
        let mut frames = Vec::new();
        let block = vec![0; postern_wire::CHUNK - 64];
        while frames.len() < 5 * ENOUGH {
            FromSource::Data(&block).encode(&mut frames);
        }
        let all = frames.len();
        let (says, from_source) = mpsc::channel(1);
        let (to_source, _hears) = mpsc::channel(1);
        let (to_destination, mut last_received) = mpsc::channel(64);
        let (_answers, from_destination) = mpsc::channel(1);
        says.send(Bytes::from(frames)).await.unwrap();
        let (mut source, mut destination) =
            (end(from_source, to_source), end(from_destination, to_destination));
        let mut observer = NullObserver;
        let mut ledger = Ledger::new(&mut observer, None);
        let books = RefCell::new(&mut ledger);
        let (mut limit, flow) = (RateLimit::new(None), FlowControl::default());
        let began = Instant::now();
        let arrived = async {
            let mut arrived = 0;
            while arrived < all {
                arrived += last_received.recv().await.unwrap().len();
            }
        };
        tokio::select! {
            error = relay(&mut source, &mut destination, &books, &mut limit, &flow) => panic!("{error:?}"),
            () = arrived => {}
        }
        assert_eq!(began.elapsed(), Duration::ZERO, "something waited for more to come");
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_source_is_reported_to_the_destination_at_once() {
        let (to_source, _held) = mpsc::channel(1);
        let (to_destination, mut last_received) = mpsc::channel(1);
        let (says, from_destination) = mpsc::channel(1);
        tokio::spawn(async move {
            while last_received.recv().await.is_some() {}
            drop(says);
        });
        let (mut source, mut destination) =
            (end(mpsc::channel(1).1, to_source), end(from_destination, to_destination));
        let (mut observer, began) = (NullObserver, Instant::now());
        let mut ledger = Ledger::new(&mut observer, None);
        let books = RefCell::new(&mut ledger);
        let (mut limit, flow) = (RateLimit::new(None), FlowControl::default());
        let error = relay(&mut source, &mut destination, &books, &mut limit, &flow).await;
        assert!(matches!(error, Err(RelayError::Lost(Role::Source, _))), "{error:?}");
        assert_eq!(began.elapsed(), Duration::ZERO, "nothing was waited for");
    }
}
