//! The output of a copy: events, progress and a summary.

use crate::cli::Format;
use crate::failure::Failure;
use crate::printer::{Printer, record};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use postern_copy::ledger::{Done, Observer, Tally};
use postern_exec::exit;
use postern_files::name::show;
use postern_ops::install::Reporter as _;
use postern_wire::copy::Fate;
use serde_json::json;
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// The time between two progress lines without a terminal.
const LINES: Duration = Duration::from_secs(5);

/// The number of problems that are printed; the rest are counted.
const MOST: u64 = 100;

pub(super) struct Show<'a> {
    printer: &'a mut Printer,
    several: bool,
    dry_run: bool,
    problems: u64,
    /// A file changed while it was read.
    changed: bool,
    last_line: Instant,
}

/// The progress of one of several copies.
pub(super) struct Shown<'s, 'p> {
    pub(super) show: &'s RefCell<Show<'p>>,
    pub(super) name: Option<&'s str>,
}

impl<'a> Show<'a> {
    pub(super) fn new(printer: &'a mut Printer, several: bool, dry_run: bool) -> Self {
        Self { printer, several, dry_run, problems: 0, changed: false, last_line: Instant::now() }
    }

    fn event(&mut self, value: &serde_json::Value) {
        let format = self.printer.format();
        if format != Format::Text {
            self.printer.raw(&String::from_utf8_lossy(&record(format, value)));
        }
    }

    fn problem(&mut self, text: &str) {
        self.problems += 1;
        if self.problems <= MOST {
            self.printer.warn(text);
        }
    }

    /// Prints the summary and returns the exit code.
    pub(super) fn finish(self, total: &Tally, mut failed: Vec<Failure>) -> Result<u8, Failure> {
        let Self { printer, several, dry_run, problems, changed, last_line: _ } = self;
        let pods = if several { failed.len() } else { 0 };
        if printer.format() == Format::Text {
            if problems > MOST {
                printer.note(&format!("and {} more", problems - MOST));
            }
            if changed {
                printer.note(
                    "hint: a file that is written to all the time, such as a log, can be streamed: \
                     postern exec POD -- cat FILE >COPY",
                );
            }
            if failed.is_empty() || total.settled() > 0 {
                printer.note(&summary(total, pods, dry_run));
            }
        } else {
            let mut numbers = numbers(total, dry_run);
            if several {
                numbers["podsFailed"] = pods.into();
            }
            let value = json!({ "summary": numbers });
            let format = printer.format();
            printer.raw(&String::from_utf8_lossy(&record(format, &value)));
        }
        if !failed.is_empty() {
            let last = failed.len() - 1;
            for failure in failed.drain(..last) {
                printer.failure(&failure);
            }
        }
        match failed.pop() {
            Some(failure) => Err(failure),
            None if total.is_whole() => Ok(0),
            None => Ok(exit::DENIED),
        }
    }

    pub(super) fn cleaned(self, total: &Tally) {
        let Self { printer, dry_run, .. } = self;
        if printer.format() == Format::Text {
            let word = if dry_run { "would be removed" } else { "removed" };
            printer.note(&format!("{} {word}", counted(total.deleted, "unfinished file")));
        } else {
            let format = printer.format();
            let value = json!({ "summary": { "deleted": total.deleted, "dryRun": dry_run } });
            printer.raw(&String::from_utf8_lossy(&record(format, &value)));
        }
    }
}

impl Shown<'_, '_> {
    fn prefix(&self, several: bool) -> String {
        match self.name {
            Some(name) if several => format!("{name}: "),
            _ => String::new(),
        }
    }
}

impl Observer for Shown<'_, '_> {
    fn done(&mut self, done: &Done) {
        let Done { path, fate, size, hash, unowned, place, note } = done;
        let at = place.as_ref().map(|place| format!("; its place is {}", show(place))).unwrap_or_default();
        let state = &mut *self.show.borrow_mut();
        let prefix = self.prefix(state.several);
        let shown = if path.is_empty() { ".".into() } else { show(path) };
        state.event(&exact(
            path,
            json!({
                "pod": self.name, "path": shown, "fate": word(*fate), "bytes": size,
                "blake3": hash.map(|hash| hash.to_string()), "note": (!note.is_empty()).then_some(note),
                "place": place.as_ref().map(|place| show(place)),
            }),
        ));
        if state.printer.format() != Format::Text {
            return;
        }
        match fate {
            Fate::Failed | Fate::Refused => {
                state.changed |= note.starts_with("it changed while");
                state.problem(&format!("{prefix}{shown}: {} ({note}{at})", word(*fate)));
            }
            _ if *unowned => state.problem(&format!("{prefix}{shown}: {}, but {note}{at}", word(*fate))),
            Fate::Planned => state.printer.line(&format!("{prefix}would write {shown}")),
            // The summary says it of all of them.
            Fate::Written if hash.is_none() => {
                state.printer.verbose(&format!("{prefix}written {shown} ({note})"));
            }
            _ if !note.is_empty() && *fate != Fate::Skipped => {
                state.problem(&format!("{prefix}{shown}: {note}"));
            }
            _ => state.printer.verbose(&format!("{prefix}{} {shown}", word(*fate))),
        }
    }

    fn deleted(&mut self, path: &[u8]) {
        let state = &mut *self.show.borrow_mut();
        let prefix = self.prefix(state.several);
        let shown = show(path);
        state.event(&exact(path, json!({ "pod": self.name, "path": shown, "fate": "deleted" })));
        match state.dry_run {
            true => state.printer.line(&format!("{prefix}would remove {shown}")),
            false if state.printer.format() == Format::Text => {
                state.printer.verbose(&format!("{prefix}removed {shown}"));
            }
            false => {}
        }
    }

    fn progress(&mut self, tally: &Tally) {
        let state = &mut *self.show.borrow_mut();
        // Nothing is said of what is over in a moment.
        if tally.took < Duration::from_secs(1) {
            return;
        }
        let text = format!("{}{}", self.prefix(state.several), progress(tally));
        if state.printer.shows_progress() {
            state.printer.progress(&text);
        } else if state.last_line.elapsed() >= LINES && state.printer.format() == Format::Text {
            state.last_line = Instant::now();
            state.printer.note(&text);
        }
    }

    fn detail(&mut self, text: &str) {
        self.show.borrow_mut().printer.verbose(text);
    }

    fn notice(&mut self, text: &str) {
        let state = &mut *self.show.borrow_mut();
        let prefix = self.prefix(state.several);
        state.printer.warn(&format!("{prefix}{text}"));
    }
}

/// An event about a path. If the path is not shown exactly, its bytes are added.
fn exact(path: &[u8], mut event: serde_json::Value) -> serde_json::Value {
    if show(path).as_bytes() != path {
        event["pathBase64"] = BASE64_STANDARD.encode(path).into();
    }
    event
}

fn word(fate: Fate) -> &'static str {
    match fate {
        Fate::Written => "written",
        Fate::Same => "same",
        Fate::Unchanged => "unchanged",
        Fate::Made => "made",
        Fate::Skipped => "skipped",
        Fate::Refused => "refused",
        Fate::Failed => "failed",
        Fate::Planned => "planned",
    }
}

fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// A count of bytes with a unit.
#[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1_000.0 {
            let digits = usize::from(unit != "B" && value < 100.0);
            return format!("{value:.digits$} {unit}");
        }
        value /= 1_024.0;
    }
    format!("{value:.1} TiB")
}

#[allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate"
)]
fn progress(tally: &Tally) -> String {
    let Tally { files, bytes: all, complete, content, .. } = tally;
    let (done, rate) = (tally.finished_files(), tally.rate());
    let more = if *complete { "" } else { "+" };
    let left = all.saturating_sub(*content);
    let eta = match rate > 1.0 && *complete && left > 0 {
        true => format!(", {} s left", (left as f64 / rate).ceil() as u64),
        false => String::new(),
    };
    // Nobody knows how much a stream will be.
    let of = if *all == 0 { String::new() } else { format!(" of {}{more}", bytes(*all)) };
    format!("{done} of {files}{more} files, {}{of}, {}/s{eta}", bytes(*content), bytes(rate as u64))
}

/// `pods` is the number of pods whose copy was abandoned.
fn summary(total: &Tally, pods: usize, dry_run: bool) -> String {
    let Tally {
        written,
        unverified,
        same,
        unchanged,
        made: _,
        directories,
        links,
        skipped,
        refused,
        failed,
        unowned,
        planned,
        deleted,
        content,
        sent,
        retries,
        took,
        files: _,
        bytes: _,
        complete: _,
    } = total;
    let specials = total.specials();
    let mut parts = Vec::new();
    if dry_run {
        parts.push(format!("{planned} would be written"));
    } else if *unverified > 0 {
        parts.push(format!("{} copied and not verified", counted(*unverified, "file")));
        if *written > 0 {
            parts.push(format!("{} and verified", counted(*written, "file")));
        }
    } else {
        parts.push(format!("{} copied and verified", counted(*written, "file")));
    }
    for (count, text) in [
        (*same, "already there, verified"),
        (*unchanged, "unchanged"),
        (*directories, if *directories == 1 { "directory" } else { "directories" }),
        (*links, if *links == 1 { "link" } else { "links" }),
        (specials, if specials == 1 { "special file" } else { "special files" }),
        (*deleted, if dry_run { "would be removed" } else { "removed" }),
        (*skipped, "skipped"),
        (*refused, "refused"),
        (*failed, "failed"),
        (*unowned, "not of the owner that was asked for"),
        ((*retries).into(), if *retries == 1 { "connection made again" } else { "connections made again" }),
    ] {
        if count > 0 {
            parts.push(format!("{count} {text}"));
        }
    }
    if pods > 0 {
        parts.push(format!("{} given up", counted(pods as u64, "pod")));
    }
    let mut text = parts.join(", ");
    if *content > 0 && !dry_run {
        text.push_str(&format!("; {}", bytes(*content)));
        // Of little content, what is sent is mostly the questions and answers around it.
        if content > sent {
            text.push_str(&format!(" by sending {} ({:.1}:1)", bytes(*sent), total.ratio()));
        }
    }
    text.push_str(&format!(" in {:.1} s", took.as_secs_f64()));
    text
}

fn numbers(total: &Tally, dry_run: bool) -> serde_json::Value {
    let Tally {
        files,
        bytes,
        complete: _,
        written,
        unverified,
        same,
        unchanged,
        made,
        directories,
        links,
        skipped,
        refused,
        failed,
        unowned,
        planned,
        deleted,
        content,
        sent,
        retries,
        took,
    } = total;
    json!({
        "files": files, "bytes": bytes, "written": written, "unverified": unverified, "same": same, "unchanged": unchanged, "made": made,
        "directories": directories, "links": links,
        "skipped": skipped, "refused": refused, "failed": failed, "unowned": unowned, "planned": planned, "deleted": deleted,
        "contentBytes": content, "sentBytes": sent, "retries": retries, "seconds": took.as_secs_f64(), "dryRun": dry_run,
    })
}
