//! The program in the cluster.
//!
//! Every replica watches what admission needs and serves the webhook. The replica that holds the Lease also reconciles:
//! it copies pull Secrets, names them in `ServiceAccounts`, writes statuses, and renews the webhook's certificate.

mod cache;
mod certificate;
mod cli;
mod contest;
mod error;
mod events;
mod health;
mod leader;
mod metrics;
mod reconcile;
mod run;
mod sources;
mod state;
mod status;
mod stuck;
mod traces;
mod watches;
mod webhook;

use clap::Parser as _;
use rustix::process::{Resource, Rlimit, setrlimit};
use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli::Cli { command: cli::Command::Run(args) } = cli::Cli::parse();
    // What is read from Secrets is in no core dump.
    let no_dump = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(args, no_dump)),
        Err(error) => Err(run::RunError::Runtime(error)),
    };
    match result {
        Ok(code) => code,
        // There may be no log yet.
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "postern-controller: {}", error::chain(&error));
            ExitCode::FAILURE
        }
    }
}

async fn run(args: cli::Run, no_dump: rustix::io::Result<()>) -> Result<ExitCode, run::RunError> {
    let traces = traces::start(args.log, args.trace_endpoint.as_deref(), &args.name)?;
    if let Err(error) = no_dump {
        tracing::warn!(error = error::chain(&error), "core dumps could not be disabled");
    }
    let result = run::run(args).await;
    if let Err(error) = &result {
        tracing::error!(error = error::chain(error), "the controller ends");
    }
    traces.end().await;
    result
}
