//! The command line: clap types, one file per command group.

pub(crate) mod controller;
pub(crate) mod copy;
pub(crate) mod exec;
pub(crate) mod fanout;
pub(crate) mod identity;
pub(crate) mod job;
pub(crate) mod ops;
pub(crate) mod rules;
pub(crate) mod run;
pub(crate) mod verify;
pub(crate) mod volumes;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Args, Parser, Subcommand};
use postern_identity::render::Form;
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
    #[arg(short, long, global = true, value_parser = outputs(["text", "json", "yaml"]), default_value = "text", value_name = "FORMAT")]
    pub(crate) output: Output,
    /// Print more details to stderr
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Format {
    #[default]
    Text,
    Json,
    Yaml,
}

/// What `-o` says: a format of results, or a form of a credential. One type, as it is one argument to clap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    Format(Format),
    Form(Form),
    /// A format that only reports have.
    Report(postern_report::Format),
}

impl Output {
    /// Of results and errors.
    pub(crate) fn format(self) -> Format {
        match self {
            Self::Format(format) => format,
            Self::Form(_) | Self::Report(_) => Format::Text,
        }
    }
}

/// The format that arguments ask for which clap has refused.
pub(crate) fn asked_format(arguments: impl Iterator<Item = std::ffi::OsString>) -> Format {
    let mut arguments = arguments.take_while(|argument| argument != "--");
    while let Some(argument) = arguments.next() {
        let value = match argument.to_str() {
            Some("-o" | "--output") => arguments.next().and_then(|next| next.into_string().ok()),
            Some(text) => {
                let joined = text.strip_prefix("--output=").or_else(|| text.strip_prefix("-o"));
                joined.map(|value| value.trim_start_matches('=').to_owned())
            }
            None => None,
        };
        match value.as_deref() {
            Some("json") => return Format::Json,
            Some("yaml") => return Format::Yaml,
            _ => {}
        }
    }
    Format::Text
}

/// What commands take whose result is a report.
#[derive(Debug, Args)]
pub(crate) struct Reporting {
    /// Output format; sarif is for code scanning, junit for the test views of CI systems, html is one page for a browser
    #[arg(id = "output", short, long, value_parser = outputs(["text", "json", "yaml", "sarif", "junit", "html"]), default_value = "text", value_name = "FORMAT")]
    pub(crate) output: Output,
    /// Exit 1 on findings of this severity, or a worse one
    #[arg(long, value_name = "SEVERITY", value_parser = ["problem", "warning"], default_value = "problem")]
    pub(crate) fail_on: String,
}

pub(crate) fn outputs<const N: usize>(
    names: [&'static str; N],
) -> impl clap::builder::TypedValueParser<Value = Output> {
    PossibleValuesParser::new(names).map(|name| match name.as_str() {
        "json" => Output::Format(Format::Json),
        "yaml" => Output::Format(Format::Yaml),
        "sarif" => Output::Report(postern_report::Format::Sarif),
        "junit" => Output::Report(postern_report::Format::Junit),
        "html" => Output::Report(postern_report::Format::Html),
        "raw" => Output::Form(Form::Raw),
        "header" => Output::Form(Form::Header),
        "exec-credential" => Output::Form(Form::ExecCredential),
        "aws-process" => Output::Form(Form::AwsProcess),
        "env" => Output::Form(Form::Env),
        _ => Output::Format(Format::Text),
    })
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Manage the ops pod: a least-privilege pod in the cluster that tools run in
    #[command(subcommand)]
    Ops(ops::Ops),
    /// Run a tool in the ops pod (or on this machine) as if it were local
    Run(run::Run),
    /// Run a command in any pod
    Exec(exec::Exec),
    /// Run a command in a single-use pod of its own
    Job(job::Job),
    /// Copy files into, out of and between pods; copies are verified, and can be resumed
    Cp(copy::Cp),
    /// Make a directory in a pod or on this machine the same as another; sends only what differs
    Sync(copy::Sync),
    /// Exchange a ServiceAccount's token for short-lived credentials of other providers
    #[command(subcommand)]
    Identity(identity::Identity),
    /// Manage the controller: pull Secrets where workloads need them, and volumes owned by the right user
    #[command(subcommand)]
    Controller(controller::Controller),
    /// Check what workloads can reach: images and volumes
    #[command(subcommand)]
    Verify(verify::Verify),
    /// Make volumes belong to the user that a workload runs as
    #[command(subcommand)]
    Volumes(volumes::Volumes),
    /// Print the JSON schema of the configuration file
    ConfigSchema,
    /// Print the JSON schema of reports, as `ops audit -o json` and others print them
    ReportSchema,
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the reference of all commands as Markdown
    #[command(hide = true)]
    Reference,
    /// Copy this program to a path, such as a pod's volume, from an image without a shell
    #[command(hide = true, name = "__install")]
    InstallSelf {
        /// The path
        to: PathBuf,
    },
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
