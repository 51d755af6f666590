//! The client between the two ends: passes frames on, and keeps the books by them.

use crate::ends::{FromEnd, Opened, ToEnd};
use crate::flow::Flow;
use crate::ledger::Ledger;
use crate::pace::Pace;
use postern_exec::transport::Incoming;
use postern_wire::Decoder;
use postern_wire::copy::{FromDestination, FromSource, append_raw};
use std::cell::RefCell;
use std::sync::atomic::AtomicU64;
use std::time::Duration;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

/// An agent says something each second.
const SILENCE: Duration = Duration::from_secs(15);

/// How long what an end said before it ended may take to come.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Between two looks at how far it is.
const PROGRESS: Duration = Duration::from_millis(200);

/// Which end something is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Source,
    Destination,
}

/// Why a relay ended early.
#[derive(Debug)]
pub(crate) enum Broke {
    /// The connection to an end is gone; another one may serve.
    Lost(Which, String),
    /// An end says that it is no use.
    Fatal(Which, String),
}

/// Passes frames until the destination has finished.
pub(crate) async fn relay(
    source: &mut Opened,
    destination: &mut Opened,
    ledger: &RefCell<&mut Ledger<'_>>,
    pace: &mut Pace,
    flow: &Flow,
) -> Result<(), Broke> {
    let Opened { from: from_source, to: to_source, decoder: source_decoder, .. } = source;
    let Opened { from: from_destination, to: to_destination, decoder: destination_decoder, said, .. } =
        destination;
    let said = said.as_deref();
    let forward = forward(from_source, source_decoder, (to_destination, said), ledger, pace, flow);
    let backward = backward(from_destination, destination_decoder, to_source, ledger, flow);
    tokio::pin!(forward, backward);
    // Why an end stopped listening is in what it says last, if anything is.
    let ended = tokio::select! {
        ended = &mut backward => match ended {
            Err(lost @ Broke::Lost(Which::Source, _)) => {
                match tokio::time::timeout(LAST_WORDS, forward).await {
                    Ok(fatal @ Broke::Fatal(..)) => Err(fatal),
                    _ => Err(lost),
                }
            }
            other => other,
        },
        broke = &mut forward => match broke {
            lost @ Broke::Lost(..) => {
                match tokio::time::timeout(LAST_WORDS, backward).await {
                    Ok(Err(Broke::Lost(..))) | Err(_) => Err(lost),
                    Ok(other) => other,
                }
            }
            fatal @ Broke::Fatal(..) => Err(fatal),
        },
    };
    ledger.borrow_mut().sent(Opened::went(said, 0));
    ended
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// What comes next from an end: bytes pushed into the decoder, a tick, or why it is lost.
async fn hear(
    from: &mut FromEnd,
    decoder: &mut Decoder,
    heard: &mut Instant,
    beat: &mut Interval,
    diagnostics: &mut String,
) -> Result<bool, String> {
    let incoming = tokio::select! {
        biased;
        incoming = from.next() => incoming,
        _ = beat.tick() => {
            let exec = matches!(from, FromEnd::Exec(_));
            return match exec && heard.elapsed() > SILENCE {
                true => Err(format!("it was silent for {} s", SILENCE.as_secs())),
                false => Ok(false),
            };
        }
    };
    *heard = Instant::now();
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

/// What the source says, to the destination. Ends only by breaking.
async fn forward(
    from: &mut FromEnd,
    decoder: &mut Decoder,
    (to, said): (&mut ToEnd, Option<&AtomicU64>),
    ledger: &RefCell<&mut Ledger<'_>>,
    pace: &mut Pace,
    flow: &Flow,
) -> Broke {
    let mut out = Vec::with_capacity(256 * 1024);
    let (mut beat, mut heard, mut diagnostics) = (ticks(PROGRESS), Instant::now(), String::new());
    let (mut quiet_since, mut shown) = (Instant::now(), Instant::now());
    loop {
        match take_from_source(decoder, &mut out, ledger, flow) {
            Ok(()) => {}
            Err(Broke::Fatal(which, why)) => return Broke::Fatal(which, why),
            Err(lost) => return lost,
        }
        let full = out.len() >= ENOUGH;
        if !out.is_empty() {
            // In pieces that take no longer than a heartbeat.
            for piece in out.chunks(pace.piece().min(flow.piece())) {
                flow.take(piece.len()).await;
                let went = Opened::went(said, piece.len());
                pace.take(went).await;
                ledger.borrow_mut().sent(went);
                if let Err(why) = to.send(piece).await {
                    return Broke::Lost(Which::Destination, why);
                }
            }
            out.clear();
            quiet_since = Instant::now();
            // Where there is always more to send, no tick is ever waited for.
            if shown.elapsed() >= PROGRESS {
                shown = quiet_since;
                ledger.borrow_mut().progress();
            }
        }
        // What was not taken for want of room is there already, and nothing may come after it.
        if full {
            continue;
        }
        match hear(from, decoder, &mut heard, &mut beat, &mut diagnostics).await {
            Ok(true) => {}
            Ok(false) => {
                ledger.borrow_mut().progress();
                if quiet_since.elapsed() > Duration::from_secs(1) {
                    FromSource::Heartbeat.encode(&mut out);
                }
            }
            Err(why) => {
                // It would wait for what does not come, and so would who waits for its last words.
                to.close_soon().await;
                return Broke::Lost(Which::Source, why);
            }
        }
    }
}

/// Frames of at most about this many bytes are collected before they are sent.
const ENOUGH: usize = 256 * 1024;

fn take_from_source(
    decoder: &mut Decoder,
    out: &mut Vec<u8>,
    ledger: &RefCell<&mut Ledger<'_>>,
    flow: &Flow,
) -> Result<(), Broke> {
    let odd = |error: postern_wire::WireError| Broke::Fatal(Which::Source, error.to_string());
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
            FromSource::Fatal(message) => return Err(Broke::Fatal(Which::Source, message)),
            FromSource::Begin(_)
            | FromSource::DirectoryEnd(_)
            | FromSource::From { .. }
            | FromSource::Cut(_)
            | FromSource::FileEnd { .. }
            | FromSource::FileFault { .. }
            | FromSource::Heartbeat => {}
            FromSource::Ping => continue, // those are ours
        }
        append_raw(out, kind, payload);
        if flow.ping(out.len()) {
            FromSource::Ping.encode(out);
        }
    }
    Ok(())
}

/// What the destination says, to the source, until it has finished.
async fn backward(
    from: &mut FromEnd,
    decoder: &mut Decoder,
    to: &mut ToEnd,
    ledger: &RefCell<&mut Ledger<'_>>,
    flow: &Flow,
) -> Result<(), Broke> {
    let mut out = Vec::with_capacity(64 * 1024);
    let (mut beat, mut heard, mut diagnostics) =
        (ticks(Duration::from_secs(1)), Instant::now(), String::new());
    loop {
        let finished = take_from_destination(decoder, &mut out, ledger, flow)?;
        if !out.is_empty() {
            if let Err(why) = to.send(&out).await
                && !finished
            {
                return Err(Broke::Lost(Which::Source, why));
            }
            out.clear();
        }
        if finished {
            return Ok(());
        }
        match hear(from, decoder, &mut heard, &mut beat, &mut diagnostics).await {
            Ok(true) => {}
            Ok(false) => FromDestination::Heartbeat.encode(&mut out),
            Err(why) => return Err(Broke::Lost(Which::Destination, why)),
        }
    }
}

fn take_from_destination(
    decoder: &mut Decoder,
    out: &mut Vec<u8>,
    ledger: &RefCell<&mut Ledger<'_>>,
    flow: &Flow,
) -> Result<bool, Broke> {
    let odd = |error: postern_wire::WireError| Broke::Fatal(Which::Destination, error.to_string());
    let mut ledger = ledger.borrow_mut();
    while let Some((kind, payload)) = decoder.next_frame().map_err(odd)? {
        let frame = FromDestination::decode(kind, payload).map_err(odd)?;
        if frame != FromDestination::Pong {
            append_raw(out, kind, payload);
        }
        match frame {
            FromDestination::EntryResult(settled) => {
                if !ledger.settled(settled) {
                    let why = "it answers what nobody told of".to_owned();
                    return Err(Broke::Fatal(Which::Destination, why));
                }
            }
            FromDestination::Deleted(path) => ledger.deleted(path),
            FromDestination::Finished => return Ok(true),
            FromDestination::Fatal(message) => return Err(Broke::Fatal(Which::Destination, message)),
            FromDestination::NotDeleted { path, message } => ledger.fault(path, message),
            FromDestination::Target { directory, name } => ledger.placed(directory, name),
            FromDestination::Pong => {
                if !flow.pong() {
                    let why = "it answers a ping that it was not sent".to_owned();
                    return Err(Broke::Fatal(Which::Destination, why));
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

/// Hears a destination that no source speaks to, until it has finished.
pub(crate) async fn listen(opened: &mut Opened, ledger: &RefCell<&mut Ledger<'_>>) -> Result<(), Broke> {
    let Opened { from, to, decoder, .. } = opened;
    let (mut beat, mut heard, mut diagnostics) =
        (ticks(Duration::from_secs(1)), Instant::now(), String::new());
    let (mut echo, mut frame) = (Vec::new(), Vec::new());
    FromSource::Heartbeat.encode(&mut frame);
    let flow = Flow::default();
    while !take_from_destination(decoder, &mut echo, ledger, &flow)? {
        echo.clear();
        let lost = |why| Broke::Lost(Which::Destination, why);
        if !hear(from, decoder, &mut heard, &mut beat, &mut diagnostics).await.map_err(lost)? {
            to.send(&frame).await.map_err(lost)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::tests::Nobody;
    use bytes::Bytes;
    use tokio::sync::mpsc;

    fn end(from: mpsc::Receiver<Bytes>, to: mpsc::Sender<Bytes>) -> Opened {
        Opened {
            from: FromEnd::Thread(from),
            to: ToEnd::Thread(Some(to)),
            decoder: Decoder::default(),
            thread: None,
            said: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_that_came_at_once_goes_on_at_once() {
        let mut frames = Vec::new();
        let block = vec![0; postern_wire::CHUNK - 64];
        while frames.len() < 5 * ENOUGH {
            FromSource::Data(&block).encode(&mut frames);
        }
        let all = frames.len();
        let (says, from_source) = mpsc::channel(1);
        let (to_source, _hears) = mpsc::channel(1);
        let (to_destination, mut heard) = mpsc::channel(64);
        let (_answers, from_destination) = mpsc::channel(1);
        says.send(Bytes::from(frames)).await.unwrap();
        let (mut source, mut destination) =
            (end(from_source, to_source), end(from_destination, to_destination));
        let mut nobody = Nobody;
        let mut ledger = Ledger::new(&mut nobody, None);
        let books = RefCell::new(&mut ledger);
        let (mut pace, flow) = (Pace::new(None), Flow::default());
        let began = Instant::now();
        let arrived = async {
            let mut arrived = 0;
            while arrived < all {
                arrived += heard.recv().await.unwrap().len();
            }
        };
        tokio::select! {
            broke = relay(&mut source, &mut destination, &books, &mut pace, &flow) => panic!("{broke:?}"),
            () = arrived => {}
        }
        assert_eq!(began.elapsed(), Duration::ZERO, "something waited for more to come");
    }

    #[tokio::test(start_paused = true)]
    async fn a_destination_hears_at_once_that_its_source_is_lost() {
        let (to_source, _held) = mpsc::channel(1);
        let (to_destination, mut heard) = mpsc::channel(1);
        let (says, from_destination) = mpsc::channel(1);
        tokio::spawn(async move {
            while heard.recv().await.is_some() {}
            drop(says);
        });
        let (mut source, mut destination) =
            (end(mpsc::channel(1).1, to_source), end(from_destination, to_destination));
        let (mut nobody, began) = (Nobody, Instant::now());
        let mut ledger = Ledger::new(&mut nobody, None);
        let books = RefCell::new(&mut ledger);
        let (mut pace, flow) = (Pace::new(None), Flow::default());
        let broke = relay(&mut source, &mut destination, &books, &mut pace, &flow).await;
        assert!(matches!(broke, Err(Broke::Lost(Which::Source, _))), "{broke:?}");
        assert_eq!(began.elapsed(), Duration::ZERO, "nothing was waited for");
    }
}
