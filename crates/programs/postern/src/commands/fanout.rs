//! What `exec` and `run` over many targets have in common: output, signals and the exit code.

use super::streams;
use crate::cli::Format;
use crate::cli::fanout::FanOut;
use crate::failure::Failure;
use crate::printer::{self, Printer};
use crate::signals;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use postern_exec::fanout::{
    self, Captured, End, Grouped, Id, Job, Limits, Outputs, Prefixed, Ran, Records, spawn_printer,
};
use postern_exec::session::Ended;
use postern_exec::{Control, ExecError, Streams};
use serde::Serialize;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::Future;
use tokio::sync::mpsc;

/// Runs every job and shows its output. Returns the highest exit code.
pub(super) async fn go<T, F>(
    jobs: Vec<Job<T>>,
    options: &FanOut,
    printer: &mut Printer,
    start: impl Fn(T, Streams, mpsc::Receiver<Control>) -> F,
) -> Result<u8, Failure>
where
    F: Future<Output = Ran>,
{
    let limits = Limits { parallel: options.parallel(), fail_fast: options.fail_fast };
    let controls = signals::controls(false).map_err(ExecError::Local)?;
    let (stdout, stderr) = streams::outputs().map_err(ExecError::Local)?;
    let outputs = Outputs { stdout: Box::new(stdout), stderr: Box::new(stderr) };
    let (events, showing) = match printer.format() {
        Format::Text if options.group => {
            spawn_printer(Grouped::new(outputs, printer.colours(), limits.parallel))
        }
        Format::Text => spawn_printer(Prefixed::new(outputs, printer.colours())),
        format => {
            let render =
                move |id: &Id, end: &End, captured| printer::record(format, &Record::of(id, end, captured));
            spawn_printer(Records::new(outputs, limits.parallel, render))
        }
    };
    let hints = RefCell::new(BTreeSet::new());
    let hinting = |what, streams, control| {
        let running = start(what, streams, control);
        let hints = &hints;
        async move {
            let ran = running.await;
            hints.borrow_mut().extend(ran.result.as_ref().err().and_then(ExecError::hint).map(str::to_owned));
            ran
        }
    };
    let tally = fanout::run(jobs, limits, controls, events, hinting).await;
    let shown = showing.end().await;
    printer.summary(&tally);
    if printer.format() == Format::Text {
        // The same for many targets is said once.
        hints.take().iter().for_each(|hint| printer.note(&format!("hint: {hint}")));
    }
    match shown {
        Ok(()) => Ok(tally.exit_code),
        Err(error) => Err(error.into()),
    }
}

/// The error for an option that needs a single target.
pub(super) fn only_for_one(option: &str) -> Failure {
    let hint = "name one target, or leave it out: over several targets every command reads an empty stdin";
    Failure::usage(format!("{option} is for one target"), Some(hint.to_owned()))
}

/// Refuses --group with formats other than text.
pub(super) fn check(options: &FanOut, printer: &Printer) -> Result<(), Failure> {
    if options.group && printer.format() != Format::Text {
        let hint = "each target's record has its output together".to_owned();
        return Err(Failure::usage("--group is for text output", Some(hint)));
    }
    Ok(())
}

/// How one target ended, for `-o json` and `-o yaml`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    target: String,
    exit_code: u8,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<u8>,
    duration_ms: u64,
    stdout_bytes: u64,
    stderr_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stdout_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr_base64: Option<String>,
    truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<RecordError>,
}

#[derive(Debug, Serialize)]
struct RecordError {
    kind: &'static str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

impl Record {
    fn of(id: &Id, end: &End, captured: Captured) -> Self {
        let Captured { stdout, stderr, truncated } = captured;
        let (stdout, stdout_base64) = text(stdout, truncated);
        let (stderr, stderr_base64) = text(stderr, truncated);
        let (signal, error) = match &end.ran.result {
            Ok(Ended::Signaled(number)) => (Some(*number), None),
            Ok(Ended::Exited(_)) => (None, None),
            Err(error) => {
                let message = end.error().unwrap_or_default();
                (
                    None,
                    Some(RecordError { kind: error.kind(), message, hint: error.hint().map(str::to_owned) }),
                )
            }
        };
        Self {
            target: id.name.to_string(),
            exit_code: end.exit_code(),
            outcome: end.outcome(),
            signal,
            duration_ms: u64::try_from(end.duration.as_millis()).unwrap_or(u64::MAX),
            stdout_bytes: end.stdout_bytes,
            stderr_bytes: end.stderr_bytes,
            stdout,
            stdout_base64,
            stderr,
            stderr_base64,
            truncated,
            error,
        }
    }
}

/// Bytes as text if they are UTF-8, else as base64, so that a record is complete. A character that was cut off at the end does
/// not make text binary.
fn text(mut bytes: Vec<u8>, truncated: bool) -> (Option<String>, Option<String>) {
    if let Err(error) = std::str::from_utf8(&bytes)
        && error.error_len().is_none()
        && truncated
    {
        bytes.truncate(error.valid_up_to());
    }
    match String::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(STANDARD.encode(error.as_bytes()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_are_base64_and_a_cut_is_no_reason() {
        let of = |text: &str| Some(text.to_owned());
        assert_eq!(text(b"h\xc3\xa4".to_vec(), false), (of("hä"), None));
        assert_eq!(text(b"h\xc3\xa4\xc3".to_vec(), true), (of("hä"), None));
        assert_eq!(text(b"h\xc3".to_vec(), false), (None, of("aMM=")));
        assert_eq!(text(b"\xff\xfe".to_vec(), true), (None, of("//4=")));
    }
}
