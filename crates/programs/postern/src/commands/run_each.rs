//! `postern run --each`: a run for each of several values.

use super::fanout;
use super::session::{QueueNotice, Route, SUPERVISOR, place, within};
use crate::cli::fanout::FanOut;
use crate::failure::Failure;
use crate::printer::Printer;
use postern_exec::fanout::place::unless_stopped;
use postern_exec::fanout::{Job, Ran};
use postern_exec::session::{self, Ended, Run};
use postern_exec::stream::{Connection, by_exec};
use postern_exec::{Control, ExecError, Streams, container_end, transport};
use postern_kube::Cluster;
use postern_ops::OpsPod;
use postern_ops::check::open_for_many;
use postern_wire::Request;
use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc};

/// The placeholder for the value in the command.
const PLACE: &[u8] = b"{}";

/// Checks that the options fit together. `single` are the options for a single run, and whether they were given.
pub(super) fn check(
    each: &[OsString],
    options: &FanOut,
    single: [(&str, bool); 3],
    printer: &Printer,
) -> Result<(), Failure> {
    if each.is_empty() {
        return match options.given() {
            Some(option) => Err(Failure::usage(
                format!("{option} is for several runs"),
                Some("name what each is for with --each VALUE".to_owned()),
            )),
            None => Ok(()),
        };
    }
    match single.into_iter().find_map(|(option, given)| given.then_some(option)) {
        Some(option) => Err(Failure::usage(
            format!("{option} is for one run, not for those of --each"),
            Some(format!("leave out {option}, or run it once without --each")),
        )),
        None => fanout::check(options, printer),
    }
}

/// The values of --each; `None` without it.
pub(super) fn values(each: Vec<OsString>) -> Result<Option<Vec<Vec<u8>>>, Failure> {
    if each.is_empty() {
        return Ok(None);
    }
    let mut values = Vec::new();
    for value in each {
        if value != "-" {
            values.push(value.into_vec());
            continue;
        }
        let mut text = Vec::new();
        let read = std::io::stdin().lock().read_to_end(&mut text);
        read.map_err(|error| {
            Failure::usage(format!("reading the values of --each from stdin: {error}"), None)
        })?;
        values.extend(lines(&text));
    }
    if values.is_empty() {
        return Err(Failure::usage("stdin has no values for --each", None));
    }
    Ok(Some(values))
}

/// The lines that are not empty.
fn lines(text: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec)
}

/// The command for one value.
fn filled(argv: &[Vec<u8>], value: &[u8]) -> Vec<Vec<u8>> {
    argv.iter().map(|argument| fill(argument, value)).collect()
}

fn fill(argument: &[u8], value: &[u8]) -> Vec<u8> {
    let mut filled = Vec::with_capacity(argument.len());
    let mut rest = argument;
    while let Some(at) = rest.windows(PLACE.len()).position(|window| window == PLACE) {
        filled.extend_from_slice(&rest[..at]);
        filled.extend_from_slice(value);
        rest = &rest[at + PLACE.len()..];
    }
    filled.extend_from_slice(rest);
    filled
}

/// Runs the command once for each value.
pub(super) async fn run(
    route: &Route,
    request: &Request,
    timeout: Option<Duration>,
    values: Vec<Vec<u8>>,
    options: &FanOut,
    printer: &mut Printer,
) -> Result<u8, Failure> {
    let way = match route {
        Route::Stream(stream) => Way::Stream(stream),
        Route::Exec(cluster, pod) => {
            let mut queue = QueueNotice::new(printer);
            let opened = within(timeout, Box::pin(shared(cluster, pod, |waited| queue.waited(waited)))).await;
            queue.end();
            Way::Exec(cluster, pod, Mutex::new(opened?))
        }
        Route::Local(own) => Way::Local(own),
    };
    let way = &way;
    let named = |value: Vec<u8>| Job { name: String::from_utf8_lossy(&value).into_owned(), what: value };
    let jobs = values.into_iter().map(named).collect();
    let start = |value: Vec<u8>, streams, control| async move {
        let mut request = request.clone();
        request.argv = filled(&request.argv, &value);
        Ran::from(through(way, Run { request, files: Vec::new() }, timeout, streams, control).await)
    };
    fanout::go(jobs, options, printer, start).await
}

/// How each run reaches its supervisor.
enum Way<'d> {
    Stream(&'d Connection),
    /// By one exec for all runs, because the runtime starts one command of a container at a time. If it breaks, its runs fail, and
    /// the next run opens another.
    Exec(&'d Cluster, &'d OpsPod, Mutex<Arc<Connection>>),
    Local(&'d Path),
}

async fn shared(
    cluster: &Cluster,
    pod: &OpsPod,
    queued: impl FnMut(Duration),
) -> Result<Arc<Connection>, ExecError> {
    by_exec(open_for_many(cluster, pod).await?, queued).await.map(Arc::new)
}

async fn connected(
    cluster: &Cluster,
    pod: &OpsPod,
    held: &Mutex<Arc<Connection>>,
) -> Result<Arc<Connection>, ExecError> {
    let mut held = held.lock().await;
    if held.is_over() {
        *held = shared(cluster, pod, |_| ()).await?;
    }
    Ok(Arc::clone(&held))
}

async fn through(
    way: &Way<'_>,
    run: Run,
    timeout: Option<Duration>,
    streams: Streams,
    mut control: mpsc::Receiver<Control>,
) -> Result<Ended, ExecError> {
    let report = match way {
        Way::Stream(stream) => {
            let (reader, writer) = stream.session();
            session::run(reader, writer, run, streams, control).await
        }
        Way::Exec(cluster, pod, held) => {
            let connection = unless_stopped(connected(cluster, pod, held), timeout, &mut control).await?;
            let (reader, writer) = connection.session();
            let ran = session::run(reader, writer, run, streams, control).await;
            container_end::explain_error(cluster, &place(pod), ran).await
        }
        Way::Local(own) => {
            let (reader, writer) = transport::local(own, &SUPERVISOR).map_err(ExecError::Local)?;
            session::run(reader, writer, run, streams, control).await
        }
    };
    report.map(|report| report.outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_is_put_wherever_it_is_asked_for() {
        let of = |words: &[&str]| words.iter().map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
        assert_eq!(
            filled(&of(&["a", "{}", "x{}y{}", "{", "}{}{"]), b"V"),
            of(&["a", "V", "xVyV", "{", "}V{"])
        );
        // A value is not a command, and not looked through again.
        assert_eq!(filled(&of(&["{}"]), b"{} b"), of(&["{} b"]));
        assert_eq!(lines(b"a\n\nb c\nd").collect::<Vec<_>>(), of(&["a", "b c", "d"]));
    }
}
