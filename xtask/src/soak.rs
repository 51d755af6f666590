//! `cargo xtask soak`: the proofs in full, of which `make test` runs a small part.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Subcommand;

use crate::say::{self, Progress};
use crate::subject::Subject;
use crate::{sh, test, tools};

/// `seq 1 2000000` prints this many bytes, and this last.
const LAST: u32 = 2_000_000;
const BYTES: u64 = 14_888_896;

/// `cargo xtask soak COMMAND`
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Soak,
}

#[derive(Subcommand)]
enum Soak {
    /// Runs of `seq 1 2000000` through `postern run`: every one whole, or non-zero
    Exec {
        /// How many runs
        #[arg(long, default_value_t = 1000)]
        count: u32,
        /// By the runtime's exec, or by stream
        #[arg(long, default_value = "exec", value_parser = ["exec", "stream"])]
        transport: String,
    },
    /// Requests by the proxy in a pod, to Keycloak and Dex, while the kubelet rotates the pod's tokens
    Identity {
        /// How many rotations; each takes eight minutes
        #[arg(long, default_value_t = 3)]
        rotations: u32,
    },
    /// The proofs of copying in full: 10,000 entries each way, 1 GiB over 200 cuts, copies of 5,500 small files
    Copy {
        /// How many copies of small files
        #[arg(long, default_value_t = 1000)]
        count: u32,
    },
    /// Runs that begin together: by one command, then by a process each (three for every ten of the count)
    Burst {
        /// How many values for `run --each`
        #[arg(long, default_value_t = 300)]
        count: u32,
    },
    /// Jobs that begin 20 at a time: no output is lost, and nothing of them stays
    Jobs {
        /// How many
        #[arg(long, default_value_t = 500)]
        count: u32,
    },
    /// The controller: its leader killed again and again, and many Pods created with their `ServiceAccounts`
    Controller {
        /// How many leaders are killed
        #[arg(long, default_value_t = 30)]
        kills: u32,
        /// How many Pods
        #[arg(long, default_value_t = 500)]
        pods: u32,
    },
    /// The connection cut at random points: never exit 0 with partial output, never an orphan
    Cut {
        /// How many cuts
        #[arg(long, default_value_t = 50)]
        count: u32,
    },
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    match args.command {
        Soak::Exec { count, ref transport } => exec(count, transport),
        Soak::Cut { count } => cut(count),
        Soak::Burst { count } => proof("field_faults", "a_burst", "POSTERN_SOAK_BURST", count),
        Soak::Jobs { count } => proof("job", "many_jobs", "POSTERN_SOAK_JOBS", count),
        Soak::Controller { kills, pods } => {
            proof("controller_processes", "leaders", "POSTERN_SOAK_KILLS", kills)?;
            proof("pull_secrets", "many_pods", "POSTERN_SOAK_PODS", pods)
        }
        Soak::Copy { count } => proof("copy", "proof_", "POSTERN_SOAK_COPIES", count),
        Soak::Identity { rotations } => identity(rotations),
    }
}

/// What came of one run.
struct Seen {
    code: Option<i32>,
    bytes: u64,
    whole: bool,
}

fn once(command: &mut Command) -> Result<Seen> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut output = child.stdout.take().context("no pipe")?;
    let (mut bytes, mut tail, mut buffer) = (0, Vec::new(), vec![0; 65536]);
    let end = format!("\n{LAST}\n");
    loop {
        let count = output.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        bytes += count as u64;
        tail.extend_from_slice(&buffer[..count]);
        tail.drain(..tail.len().saturating_sub(end.len()));
    }
    let whole = bytes == BYTES && tail == end.as_bytes();
    Ok(Seen { code: child.wait()?.code(), bytes, whole })
}

fn exec(count: u32, transport: &str) -> Result<ExitCode> {
    let progress = Progress::begin();
    let subject = Subject::ready()?;
    subject.install()?;
    if transport == "stream" {
        let mut install = subject.postern(&["ops", "install", "--stream", "--timeout", "120s"]);
        sh::run(&mut install).context("postern ops install --stream")?;
    }
    progress.step(format!("the ops pod is ready; {count} runs"));
    let begin = Instant::now();
    let last = LAST.to_string();
    let (mut whole, mut lies, mut failed) = (0, 0, BTreeMap::<String, u32>::new());
    for number in 1..=count {
        let seen = once(&mut subject.postern(&["run", "--transport", transport, "--", "seq", "1", &last]))?;
        match seen.code {
            Some(0) if seen.whole => whole += 1,
            Some(0) => {
                lies += 1;
                say::note(format!("run {number}: exit 0 with {} of {BYTES} bytes", seen.bytes));
            }
            code => {
                let name = code.map_or("a signal".to_owned(), |code| format!("exit {code}"));
                *failed.entry(name).or_default() += 1;
            }
        }
        if number % 100 == 0 {
            progress.step(format!("{number} runs, {whole} whole"));
        }
    }
    let each = begin.elapsed().as_secs_f64() / f64::from(count.max(1));
    say::result(format!("{count} runs of {BYTES} bytes by {transport}, {:.0} ms each", each * 1e3));
    say::result(format!("whole, exit 0:      {whole}"));
    failed.iter().for_each(|(code, times)| say::result(format!("not whole, {code}: {times}")));
    say::result(format!("not whole, exit 0:  {lies} (must be 0)"));
    Ok(if lies == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One end-to-end proof with a larger count than `make test` gives it.
fn proof(file: &str, name: &str, variable: &str, count: u32) -> Result<ExitCode> {
    let mut command =
        test::cargo(["test", "-p", "e2e", "--test", file, name, "--", "--nocapture", "--test-threads=1"]);
    test::Testbed::build()?.set(&mut command);
    sh::run_shown(command.env(variable, count.to_string()))?;
    Ok(ExitCode::SUCCESS)
}

/// By each transport, with more cuts.
fn cut(count: u32) -> Result<ExitCode> {
    proof("faults", "proof_2", "POSTERN_SOAK_CUTS", count)
}

/// The kubelet's own rotation of projected tokens.
fn identity(rotations: u32) -> Result<ExitCode> {
    sh::run_shown(&mut sh::command(tools::itself()?, ["providers", "get"]))?;
    proof("servers", "proof_1", "POSTERN_SOAK_ROTATIONS", rotations)
}
