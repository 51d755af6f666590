//! The command line: clap types, one file per command group.

pub(crate) mod exec;
pub(crate) mod fanout;
pub(crate) mod ops;
pub(crate) mod run;

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Safe work inside Kubernetes clusters: run tools there as if they were local.
#[derive(Debug, Parser)]
#[command(name = "postern", version, propagate_version = true, max_term_width = 100)]
#[command(
    after_help = "Exit codes: a tool's own code passes through unchanged. Postern's own, always with a message on \
stderr: 1 denied or invalid, 2 usage, 126 broke after the tool had started, 127 never reached the tool, 137 timed out \
or cancelled."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The kubeconfig context to use
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// The kubeconfig file [default: $KUBECONFIG, else ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The configuration file [default: $POSTERN_CONFIG, else ~/.config/postern/config.yaml]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Output format
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Format,
    /// Say more on stderr
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    #[default]
    Text,
    Json,
    Yaml,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Keep a least-privilege pod in the cluster in which tools run
    #[command(subcommand)]
    Ops(ops::Ops),
    /// Run a tool in the ops pod (or on this machine) as if it were local
    Run(run::Run),
    /// Run a command in any pod
    Exec(exec::Exec),
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the reference of all commands as Markdown
    #[command(hide = true)]
    Reference,
    /// The supervisor of local runs
    #[command(hide = true, name = "__agent")]
    Agent,
}

/// `NAME=VALUE`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".to_owned()),
    }
}

/// A duration such as `90s`.
pub(crate) fn duration(text: &str) -> Result<std::time::Duration, String> {
    postern_config::parse_duration(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
