use super::*;
use crate::session::Ended;
use std::cell::Cell;

fn jobs(names: &[&str]) -> Vec<Job<String>> {
    names.iter().map(|name| Job { name: (*name).to_owned(), what: (*name).to_owned() }).collect()
}

fn exited(code: u8) -> Ran {
    Ran::from(Ok(Ended::Exited(code)))
}

/// The printed events, as text.
fn drain(mut events: mpsc::Receiver<Event>) -> Vec<String> {
    let mut printed = Vec::new();
    while let Ok(event) = events.try_recv() {
        printed.push(match event {
            Event::Output(id, stream, data) => {
                format!("{} {stream:?} {}", id.name, String::from_utf8_lossy(&data))
            }
            Event::Ended(id, end) => format!("{} {}", id.name, end.description()),
        });
    }
    printed
}

const LIMITS: Limits = Limits { parallel: 2, fail_fast: false };

#[tokio::test(start_paused = true)]
async fn no_more_than_so_many_at_a_time_and_none_waits_for_a_slow_one() {
    let (events, printed) = mpsc::channel(64);
    let (_control, controls) = mpsc::channel(1);
    let (now, most) = (Cell::new(0), Cell::new(0));
    let start = |what: String, streams: Streams, _controls| {
        let (now, most) = (&now, &most);
        async move {
            now.set(now.get() + 1);
            most.set(most.get().max(now.get()));
            let seconds = if what == "slow" { 100 } else { 1 };
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            if let Output::Feed(feed) = streams.stdout {
                feed.give(Bytes::from_static(b"hi")).await.unwrap();
            }
            now.set(now.get() - 1);
            exited(u8::from(what == "c"))
        }
    };
    let started = Instant::now();
    let tally = run(jobs(&["slow", "a", "b", "c"]), LIMITS, controls, events, start).await;
    assert_eq!(started.elapsed().as_secs(), 100);
    assert_eq!(most.get(), 2);
    assert_eq!((tally.ok, tally.failed, tally.exit_code), (3, 1, 1));
    let printed = drain(printed);
    assert_eq!(printed[..2], ["a Stdout hi", "a exit 0"]);
    assert_eq!(printed[6..], ["slow Stdout hi", "slow exit 0"]);
}

/// Ends when it receives a control, and never otherwise.
async fn until_control(mut controls: mpsc::Receiver<Control>) -> Ran {
    match controls.recv().await {
        Some(Control::Kill) => Ran::cancelled(),
        Some(_) => exited(130),
        None => std::future::pending().await,
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_failure_ends_all_when_asked_to() {
    let (events, printed) = mpsc::channel(64);
    let (_control, controls) = mpsc::channel(1);
    let start = |what: String, _streams, controls| async move {
        if what == "bad" { exited(3) } else { until_control(controls).await }
    };
    let limits = Limits { parallel: 2, fail_fast: true };
    let tally = run(jobs(&["long", "bad", "never"]), limits, controls, events, start).await;
    assert_eq!((tally.failed, tally.cancelled, tally.exit_code), (1, 2, 137));
    assert_eq!(drain(printed), ["bad exit 3", "long cancelled", "never cancelled before it was started"]);
}

#[tokio::test(start_paused = true)]
async fn a_signal_goes_to_all_that_run_and_a_kill_leaves_what_does_not_listen() {
    let (events, printed) = mpsc::channel(64);
    let (control, controls) = mpsc::channel(2);
    control.try_send(Control::Signal(2)).unwrap();
    control.try_send(Control::Kill).unwrap();
    let start = |what: String, _streams, controls| async move {
        if what == "deaf" { std::future::pending().await } else { until_control(controls).await }
    };
    let started = Instant::now();
    let tally = run(jobs(&["deaf", "hears", "never"]), LIMITS, controls, events, start).await;
    assert_eq!(started.elapsed(), STOP_PATIENCE);
    assert_eq!((tally.failed, tally.cancelled, tally.exit_code), (1, 2, 137));
    assert_eq!(drain(printed), ["hears exit 130", "deaf cancelled", "never cancelled before it was started"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_more_is_started_when_nobody_reads() {
    let (events, printed) = mpsc::channel(64);
    drop(printed);
    let (_control, controls) = mpsc::channel(1);
    let start = |_what: String, streams: Streams, _controls| async move {
        let Output::Feed(feed) = streams.stdout else { return exited(0) };
        Ran::from(feed.give(Bytes::from_static(b"x")).await.map(|()| Ended::Exited(0)))
    };
    let names: Vec<_> = (0..100).map(|at| at.to_string()).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let tally = run(jobs(&names), LIMITS, controls, events, start).await;
    assert_eq!((tally.targets, tally.exit_code), (100, 141));
    assert!(tally.cancelled >= 98, "{tally:?}");
}
