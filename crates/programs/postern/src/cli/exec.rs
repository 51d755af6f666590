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
Several TARGETs, --all and each of the options over several targets fan out: every line has its target's name before \
it (or --group, or a record for each with -o json and -o yaml), a summary follows on stderr, and the exit code is the \
highest. A pod that does not run is an error of its own. --timeout is each target's; -i and -t are for one target."
)]
pub(crate) struct Exec {
    /// NAME, pod/NAME, deploy/NAME, sts/NAME, ds/NAME, rs/NAME, job/NAME or svc/NAME
    #[arg(required_unless_present = "selector", conflicts_with = "selector", value_name = "TARGET")]
    pub(crate) targets: Vec<String>,
    /// One running pod that these labels pick; with --all, every one
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub(crate) selector: Option<String>,
    /// Every pod of -l and of workloads, not one of each
    #[arg(long, help_heading = HEADING)]
    pub(crate) all: bool,
    /// Every container of a pod that runs beside the others, sidecars included
    #[arg(long, help_heading = HEADING, conflicts_with = "container")]
    pub(crate) all_containers: bool,
    #[command(flatten)]
    pub(crate) fan_out: FanOut,
    /// The pod's namespace [default: the context's]
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// The container [default: the annotated one, else the first]
    #[arg(short, long, value_name = "NAME")]
    pub(crate) container: Option<String>,
    /// Pass our stdin to it
    #[arg(short = 'i', long)]
    pub(crate) stdin: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Put the agent into the container first; it removes itself
    #[arg(long)]
    pub(crate) inject: bool,
    /// Refuse to run without the agent
    #[arg(long)]
    pub(crate) require_agent: bool,
    /// A variable for its environment (needs the agent); repeatable
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = super::pair)]
    pub(crate) env: Vec<(String, String)>,
    /// The directory it starts in (needs the agent)
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// End it after this long
    #[arg(long, value_name = "DURATION", value_parser = super::duration)]
    pub(crate) timeout: Option<Duration>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}
