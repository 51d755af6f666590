//! `cargo xtask bench`: figures, never a verdict on a build.

mod agent;
mod controller;
mod copy;
mod fanout;
mod identity;
mod job;
mod measure;
mod own;
mod report;

use std::fs::{self, File};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use clap::Subcommand;

use crate::say::{self, Progress};
use crate::subject::Subject;
use crate::{paths, sh};
use measure::{Sample, Streams, median};
use report::{Row, Wanted};

/// Which kubectl the rows are about.
const PEERS: &str = "The peer is the release's kubectl as a program of its own, as people have it. *All-in-one kubectl* is the same as \
a part of the testbed's
one program, with the servers in it: it takes longer to start, and no target is about it.";

/// Bytes of one stream.
const STREAM: u64 = 256 << 20;
const QUIET: Streams = Streams { stdin: None, stdout: 0 };

/// `cargo xtask bench COMMAND`
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// `postern run` against `kubectl exec` on the same pod of the testbed; writes docs/benchmarks.md
    Exec {
        /// How many pairs of runs
        #[arg(long, default_value_t = 21)]
        runs: usize,
        /// Print only
        #[arg(long)]
        no_write: bool,
    },
    /// `postern identity` against a Node program that reads its cached token, and against nginx; writes the same
    Identity {
        /// How many pairs of runs
        #[arg(long, default_value_t = 11)]
        runs: usize,
        /// Print only
        #[arg(long)]
        no_write: bool,
    },
    /// `postern cp` and `sync` against `kubectl cp`, and against `kubectl exec … cat`; writes the same
    Copy {
        /// How many pairs of runs
        #[arg(long, default_value_t = 11)]
        runs: usize,
        /// Only rows whose name has this in it, such as `text, up`; printed only
        #[arg(long)]
        only: Option<String>,
        /// Print only
        #[arg(long)]
        no_write: bool,
    },
    /// `postern-controller` against a client that makes the same writes, and its admissions; writes the same
    Controller {
        /// How many pairs of runs
        #[arg(long, default_value_t = 11)]
        runs: usize,
        /// Print only
        #[arg(long)]
        no_write: bool,
    },
    /// `postern-agent own` against `chown -R` on 200,000 files; needs root; writes the same
    Own {
        /// How many pairs of runs
        #[arg(long, default_value_t = 11)]
        runs: usize,
        /// Print only
        #[arg(long)]
        no_write: bool,
    },
    /// `postern job` against `kubectl run --rm -i`; writes the same
    Job {
        /// How many pairs of runs
        #[arg(long, default_value_t = 11)]
        runs: usize,
        /// Print only
        #[arg(long)]
        no_write: bool,
    },
    /// `postern exec` over many targets against loops of `kubectl exec`, and runs by stream; writes the same
    Fanout {
        /// How many pairs of runs
        #[arg(long, default_value_t = 11)]
        runs: usize,
        /// Print only
        #[arg(long)]
        no_write: bool,
    },
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    match args.command {
        Bench::Exec { runs, no_write } => exec(runs, !no_write)?,
        Bench::Copy { runs, ref only, no_write } => {
            copy::bench(runs, only.as_deref(), !no_write && only.is_none())?;
        }
        Bench::Identity { runs, no_write } => identity::bench(runs, !no_write)?,
        Bench::Controller { runs, no_write } => controller::bench(runs, !no_write)?,
        Bench::Own { runs, no_write } => own::bench(runs, !no_write)?,
        Bench::Job { runs, no_write } => job::bench(runs, !no_write)?,
        Bench::Fanout { runs, no_write } => fanout::bench(runs, !no_write)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The samples of two programs, run by turns, and how often kubectl's output was not whole.
struct Pairs(Vec<(Sample, Sample)>, usize);

impl Pairs {
    /// Runs A B A B …, after one pair that warms up what there is to warm up.
    fn measure(
        runs: usize,
        streams: Streams,
        mut kubectl: impl FnMut() -> Command,
        mut postern: impl FnMut() -> Command,
    ) -> Result<Self> {
        let (mut pairs, mut cut) = (Vec::new(), 0);
        for turn in 0..=runs {
            let theirs = measure::peer(&mut kubectl, streams, &mut cut)?;
            let pair = (theirs, measure::run(&mut postern(), streams)?);
            if turn > 0 {
                pairs.push(pair);
            }
        }
        Ok(Self(pairs, cut))
    }

    fn row(&self, what: &str, unit: &str, of: impl Fn(&Sample) -> f64, wanted: Wanted) -> Row {
        let kubectl = median(self.0.iter().map(|(k, _)| of(k)));
        let postern = median(self.0.iter().map(|(_, p)| of(p)));
        let ratio = median(self.0.iter().map(|(k, p)| of(p) / of(k)));
        Row::paired(what, unit, (kubectl, postern), ratio, wanted)
    }
}

fn exec(runs: usize, write: bool) -> Result<()> {
    let progress = Progress::begin();
    let subject = Subject::ready()?;
    subject.install()?;
    progress.step("the ops pod is ready");
    let mut rows = Vec::new();

    let pairs =
        Pairs::measure(runs, QUIET, || subject.exec(false, &["true"]), || subject.run(false, &["true"]))?;
    rows.push(pairs.row("`true`: wall", "ms", |s| s.wall * 1e3, Wanted::AtMost(0.55)));
    rows.push(pairs.row("`true`: processor time", "ms", |s| s.cpu * 1e3, Wanted::AtMost(0.1)));
    rows.push(pairs.row("`true`: peak memory", "MiB", |s| s.peak, Wanted::AtMost(0.3)));
    let all_in_one = || subject.exec_by(&subject.all_in_one, false, &["true"]);
    let pairs = Pairs::measure(runs, QUIET, all_in_one, || subject.run(false, &["true"]))?;
    let of = |what: &str| format!("`true`, all-in-one kubectl: {what}");
    rows.push(pairs.row(&of("wall"), "ms", |s| s.wall * 1e3, Wanted::Nothing));
    rows.push(pairs.row(&of("processor time"), "ms", |s| s.cpu * 1e3, Wanted::Nothing));
    rows.push(pairs.row(&of("peak memory"), "MiB", |s| s.peak, Wanted::Nothing));
    progress.step("true");

    let cut = streams(runs, &subject, progress, &mut rows)?;

    let length = sh::output(&mut subject.postern(&["--version"]))?.len() as u64;
    let version =
        || measure::run(&mut subject.postern(&["--version"]), Streams { stdin: None, stdout: length });
    let walls = (0..runs).map(|_| Ok(version()?.wall * 1e3)).collect::<Result<Vec<f64>>>()?;
    rows.push(Row::alone("`postern --version`: wall", "ms", median(walls), Wanted::AtMost(5.0)));
    for (what, path, limit) in [("postern", &subject.postern, 28.0), ("postern-agent", &subject.agent, 2.5)] {
        let kib = u32::try_from(path.metadata()?.len() >> 10)?;
        let row =
            Row::alone(&format!("size of {what}"), "MiB", f64::from(kib) / 1024.0, Wanted::AtMost(limit));
        rows.push(row);
    }
    let (serve, run) = agent::memory(&subject, STREAM)?;
    rows.push(Row::alone("agent's peak memory, waiting (`serve`)", "MiB", serve, Wanted::AtMost(4.0)));
    rows.push(Row::alone("agent's peak memory, 256 MiB out (`run`)", "MiB", run, Wanted::AtMost(4.0)));

    let command = format!("cargo xtask bench exec --runs {runs}");
    let method = format!(
        "How it is measured: `postern run` and `kubectl exec` by turns ({runs} pairs after one to warm up) into the same
container of the testbed's ops pod, with the pod's own limits (half a processor for tool and agent together). Values
are medians; a ratio is the median of the ratios of the pairs, so that what else the machine does weighs on both.
Processor time and memory are the client's own. Every run must exit 0 and every stream must be whole, or there is no
figure; runs of kubectl that lost the end of their output and exited 0 all the same were made again ({cut} of them).
`postern` runs with all it does by default: frames, BLAKE3 over both streams, heartbeats, and redaction of one
credential.

{PEERS}"
    );
    conclude(&versions(&subject)?, "One run", &command, &rows, &method, write, progress)
}

/// Prints the table, and writes it as a section of docs/benchmarks.md. `programs` are those measured, with versions.
fn conclude(
    programs: &str,
    title: &str,
    command: &str,
    rows: &[Row],
    method: &str,
    write: bool,
    progress: Progress,
) -> Result<()> {
    let table = report::table(rows);
    say::result(&table);
    let missed: Vec<&str> = rows.iter().filter(|r| r.met == Some(false)).map(|r| r.what.as_str()).collect();
    let verdict = match missed.as_slice() {
        [] => "Every target is met.".to_owned(),
        some => format!("Not met: {}.", some.join("; ")),
    };
    say::result(&verdict);
    if write {
        let text = format!("{}\n{table}\n{verdict}\n\n{method}\n", circumstances(programs, command)?);
        report::write(&paths::root().join("docs/benchmarks.md"), title, &text)?;
        progress.step("wrote docs/benchmarks.md");
    }
    Ok(())
}

/// 256 MiB each way: zeroes are the easy case, random bytes what redaction has to search in earnest.
fn streams(runs: usize, subject: &Subject, progress: Progress, rows: &mut Vec<Row>) -> Result<usize> {
    const RANDOM: &str = "/tmp/bench-random";
    let megabytes = f64::from(u32::try_from(STREAM >> 20)?);
    let rate = |s: &Sample| megabytes / s.wall;
    let mut cut = 0;
    let mut rate_rows = |what: &str, pairs: &Pairs| {
        cut += pairs.1;
        rows.push(pairs.row(&format!("{what}: rate"), "MiB/s", rate, Wanted::AtLeast(0.95)));
        rows.push(pairs.row(&format!("{what}: processor time"), "ms", |s| s.cpu * 1e3, Wanted::Nothing));
        rows.push(pairs.row(&format!("{what}: peak memory"), "MiB", |s| s.peak, Wanted::Nothing));
        progress.step(what);
    };
    let size = STREAM.to_string();
    let out = Streams { stdin: None, stdout: STREAM };
    let zeroes = ["head", "-c", &size, "/dev/zero"];
    let pairs = Pairs::measure(runs, out, || subject.exec(false, &zeroes), || subject.run(false, &zeroes))?;
    rate_rows("256 MiB out, zeroes", &pairs);

    let make = format!("head -c {} /dev/urandom >{RANDOM}", STREAM / 8);
    sh::run(&mut subject.exec(false, &["sh", "-c", &make])).context("make random bytes in the pod")?;
    let random = [&["cat"], [RANDOM; 8].as_slice()].concat();
    let pairs = Pairs::measure(runs, out, || subject.exec(false, &random), || subject.run(false, &random))?;
    rate_rows("256 MiB out, random", &pairs);
    sh::run(&mut subject.exec(false, &["rm", RANDOM]))?;

    let path = paths::target().join("bench-stdin");
    let file = File::options().create(true).truncate(true).read(true).write(true).open(&path)?;
    file.set_len(STREAM)?; // a hole: reading it costs next to nothing
    let into = Streams { stdin: Some(&file), stdout: 0 };
    let sink = ["sh", "-c", "cat >/dev/null"];
    let pairs = Pairs::measure(runs, into, || subject.exec(true, &sink), || subject.run(true, &sink))?;
    rate_rows("256 MiB in", &pairs);
    fs::remove_file(path)?;
    Ok(cut)
}

/// The versions of postern and kubectl.
fn versions(subject: &Subject) -> Result<String> {
    let version = sh::output(&mut subject.postern(&["--version"]))?;
    let server = sh::output(&mut subject.kubectl(&["version", "--client"]))?;
    let kubectl = server.lines().next().unwrap_or_default().replace("Client Version: ", "kubectl ");
    Ok(format!("{}, {kubectl}", version.trim()))
}

/// What the figures were taken with, and on.
fn circumstances(programs: &str, command: &str) -> Result<String> {
    let date = sh::output(&mut sh::command("date", ["-u", "+%Y-%m-%d"]))?;
    Ok(format!(
        "- date: {}
- machine: {}
- load average when it ended: {} (above the number of cores, others were at work too, and figures are worse)
- command: `{command}`
- programs: {programs}
",
        date.trim(),
        report::machine(),
        report::load(),
    ))
}
