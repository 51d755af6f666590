//! Developer commands of Postern: `cargo xtask COMMAND`.

mod cluster;
mod debian;
mod dist;
mod images;
mod paths;
mod say;
mod sh;
mod testbed;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer commands of Postern")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// The test cluster: a real Kubernetes on this machine
    Cluster(cluster::Args),
    /// Assemble the test images into target/images
    Images(images::Args),
    /// Build the static programs that people install
    Dist(dist::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Cluster(args) => cluster::run(args),
        Task::Images(args) => images::run(&args),
        Task::Dist(args) => dist::run(&args),
    };
    outcome.unwrap_or_else(|error| {
        say::note(format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}
