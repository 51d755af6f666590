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
mod watches;
mod webhook;

use clap::Parser as _;
use rustix::process::{Resource, Rlimit, setrlimit};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli::Cli { command: cli::Command::Run(args) } = cli::Cli::parse();
    run::log(args.log);
    // What is read from Secrets is in no core dump.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        tracing::warn!(error = error::chain(&error), "core dumps could not be disabled");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run::run(args)),
        Err(error) => Err(run::RunError::Runtime(error)),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            tracing::error!(error = error::chain(&error), "the controller ends");
            ExitCode::FAILURE
        }
    }
}
