//! Developer commands of Postern: `cargo xtask COMMAND`.

mod apt;
#[cfg(test)]
mod architecture;
mod bench;
mod browser;
mod changed;
mod chart;
mod cluster;
mod cross;
mod debian;
mod dist;
mod docs;
mod e2e;
mod fuzz;
mod images;
mod paths;
mod providers;
mod say;
mod sh;
mod soak;
mod subject;
mod test;
mod testbed;
mod tools;

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
    /// Get the real identity providers that tests start
    Providers(providers::Args),
    /// Build the static programs that people install
    Dist(dist::Args),
    /// Build for other architectures and systems
    Cross(cross::Args),
    /// Everything CI runs
    Test(test::Args),
    /// Write the generated command reference
    Docs(docs::Args),
    /// Measure against kubectl on the testbed
    Bench(bench::Args),
    /// The proofs in full
    Soak(soak::Args),
    /// Run the fuzz targets
    Fuzz(fuzz::Args),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().task {
        Task::Cluster(args) => cluster::run(args),
        Task::Images(args) => images::run(&args),
        Task::Providers(args) => providers::run(&args),
        Task::Dist(args) => dist::run(&args),
        Task::Cross(args) => cross::run(&args),
        Task::Test(args) => test::run(&args),
        Task::Docs(args) => docs::run(&args),
        Task::Bench(args) => bench::run(&args),
        Task::Soak(args) => soak::run(&args),
        Task::Fuzz(args) => fuzz::run(&args),
    };
    outcome.unwrap_or_else(|error| {
        say::note(format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}
