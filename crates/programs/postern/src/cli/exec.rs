//! `postern exec`.

use super::fanout::{FanOut, HEADING};
use clap::Args;
use std::ffi::OsString;
use std::time::Duration;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  postern exec deploy/web -- ls /\n  postern exec -n db pod/pg-0 -c postgres -it -- psql\n  \
postern exec -l app=web --inject -- sh -c 'tar c /data' > data.tar\n  postern exec -l app=web --all -- nginx -s reload\n  \
postern exec web-0 web-1 deploy/api --group -- df -h /\n  postern exec deploy/web --all --all-containers -o json -- uptime\n\n\
Several TARGETs, --all and the options for several targets fan out: each line begins with the target's name (or use \
--group, or -o json and -o yaml for a record per target), a summary follows on stderr, and the exit code is the highest. A \
pod that does not run is an error. --timeout applies to each target; -i and -t need a single target."
)]
pub(crate) struct Exec {
    /// NAME, pod/NAME, deploy/NAME, sts/NAME, ds/NAME, rs/NAME, job/NAME or svc/NAME
    #[arg(required_unless_present = "selector", conflicts_with = "selector", value_name = "TARGET")]
    pub(crate) targets: Vec<String>,
    /// One running pod with these labels; with --all, every one
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub(crate) selector: Option<String>,
    /// Every pod of -l and of workloads, instead of one
    #[arg(long, help_heading = HEADING)]
    pub(crate) all: bool,
    /// Every container of a pod, sidecars included; init containers are left out
    #[arg(long, help_heading = HEADING, conflicts_with = "container")]
    pub(crate) all_containers: bool,
    #[command(flatten)]
    pub(crate) fan_out: FanOut,
    /// The pod's namespace [default: the context's]
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// The container [default: the default-container annotation, else the first]
    #[arg(short, long, value_name = "NAME")]
    pub(crate) container: Option<String>,
    /// Pass stdin to the command
    #[arg(short = 'i', long)]
    pub(crate) stdin: bool,
    /// Allocate a terminal for the command
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Inject the agent into the container first; it removes itself
    #[arg(long)]
    pub(crate) inject: bool,
    /// Refuse to run without the agent
    #[arg(long)]
    pub(crate) require_agent: bool,
    /// An environment variable for the command (needs the agent); repeatable
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = super::pair)]
    pub(crate) env: Vec<(String, String)>,
    /// The command's working directory (needs the agent)
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// End the command after this time
    #[arg(long, value_name = "DURATION", value_parser = super::duration)]
    pub(crate) timeout: Option<Duration>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}
