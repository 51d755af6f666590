//! `postern run`.

use super::fanout::{FanOut, HEADING};
use clap::{Args, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  postern run -- ibmcloud iam oauth-tokens\n  postern run -i -- kubectl apply -f - < job.yaml\n  \
postern run --file values.yaml=/tmp/values.yaml -- cat /tmp/values.yaml\n  postern run --backend local --timeout 30s -- terraform plan\n  \
postern run --each eu-de --each us-south -- ibmcloud ks clusters --region {}\n  \
postern run --each - --parallel 4 -o json -- dig +short {} < names\n\n\
With --each, each line begins with the value (or use --group, or -o json and -o yaml for a record per value), a summary \
follows on stderr, and the exit code is the highest. By stream, all runs share one connection."
)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) pod: super::ops::Pod,
    /// Where the command runs; there is no fallback from one to the other
    #[arg(long, value_enum, default_value_t)]
    pub(crate) backend: Backend,
    /// How the ops pod is reached [default: `transport` of the config, else exec]
    #[arg(long, value_enum)]
    pub(crate) transport: Option<Transport>,
    /// Your own private key for --transport stream [default: `stream_key` of the config, else the install's]
    #[arg(long, value_name = "FILE")]
    pub(crate) stream_key: Option<PathBuf>,
    /// Run the command once for this value, which replaces {} in CMD; repeatable; - reads one value per line of stdin
    #[arg(long, value_name = "VALUE", help_heading = HEADING, allow_hyphen_values = true)]
    pub(crate) each: Vec<OsString>,
    #[command(flatten)]
    pub(crate) fan_out: FanOut,
    /// An environment variable for the command; repeatable
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = super::pair)]
    pub(crate) env: Vec<(String, String)>,
    /// The command's working directory
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Copy a local file to the pod at mode 0600, and remove it after the run; repeatable
    #[arg(long, value_name = "LOCAL=REMOTE", value_parser = super::pair)]
    pub(crate) file: Vec<(String, String)>,
    /// Log in to a cloud first; implied for `ibmcloud` in an ops pod that has a trusted profile
    #[arg(long, value_enum, value_name = "CLOUD")]
    pub(crate) login: Option<Login>,
    /// A credential for the command with --backend local, optionally from one source only; repeatable
    #[arg(long, value_name = "NAME[=SOURCE]")]
    pub(crate) credential: Vec<String>,
    /// Pass stdin to the command
    #[arg(short = 'i', long)]
    pub(crate) stdin: bool,
    /// Allocate a terminal for the command
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// End the command after this time
    #[arg(long, value_name = "DURATION", value_parser = super::duration)]
    pub(crate) timeout: Option<Duration>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// In the ops pod
    #[default]
    Ops,
    /// In a single-use pod of its own; `postern job` has more options
    Job,
    /// On this machine
    Local,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Login {
    /// IBM Cloud, with the pod's trusted profile, else with its API key
    Ibm,
    /// No login, whatever the tool
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transport {
    /// By the runtime's exec
    Exec,
    /// By a port-forward to the agent, where it was installed with --stream
    Stream,
    /// By stream where that is installed and permitted, else by exec
    Auto,
}
