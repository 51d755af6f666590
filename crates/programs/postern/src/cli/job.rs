//! `postern job`.

use clap::Args;
use postern_job::{Amount, Toleration, User};
use std::ffi::OsString;
use std::time::Duration;

#[derive(Debug, Args)]
#[command(
    after_help = "The command runs in a pod of its own, which ends with it. Its arguments, its environment and its files go to the \
pod through an exec session, and are in no object of the cluster.\n\nExamples:\n  postern job -- dig kubernetes.default.svc\n  \
postern job --image alpine:3.22 --user 65534 -- cat /etc/os-release\n  postern job --file main.tf=/tmp/main.tf -w /tmp --timeout 10m -- terraform plan\n  \
postern job --node worker-2 --cpu 2 --memory 1Gi -- fio bench.fio\n\n\
The user needs these permissions in the namespace: create, get and delete Jobs; get, list and watch Pods; create pods/exec; list events."
)]
pub(crate) struct Job {
    /// The namespace [default: the one of the ops pod's tests, postern-test]
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// The image of the command; the agent is brought along [default: the ops pod's image]
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    /// The image with the agent, for images that have none [default: the one of this release]
    #[arg(long, value_name = "IMAGE")]
    pub(crate) agent_image: Option<String>,
    /// A Secret of the namespace to pull the images with
    #[arg(long, value_name = "NAME")]
    pub(crate) image_pull_secret: Option<String>,
    /// CPU to request, which is also the limit [default: 50m requested of at most 500m]
    #[arg(long, value_name = "QUANTITY")]
    pub(crate) cpu: Option<Amount>,
    /// Memory to request, which is also the limit [default: 64Mi requested of at most 256Mi]
    #[arg(long, value_name = "QUANTITY")]
    pub(crate) memory: Option<Amount>,
    /// The node to run on
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,
    /// A label of the nodes to run on; repeatable
    #[arg(long, value_name = "LABEL=VALUE", value_parser = super::pair)]
    pub(crate) selector: Vec<(String, String)>,
    /// A taint to tolerate, * for all; repeatable
    #[arg(long, value_name = "KEY[=VALUE][:EFFECT]")]
    pub(crate) tolerate: Vec<Toleration>,
    /// The ServiceAccount, whose token is mounted [default: no token]
    #[arg(long, value_name = "NAME")]
    pub(crate) service_account: Option<String>,
    /// The user, for an image that runs as root or names its user by name [default: the image's]
    #[arg(long, value_name = "UID[:GID]")]
    pub(crate) user: Option<User>,
    /// An environment variable for the command; repeatable
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = super::pair)]
    pub(crate) env: Vec<(String, String)>,
    /// The command's working directory
    #[arg(short, long, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Copy a local file to the pod at mode 0600; repeatable
    #[arg(long, value_name = "LOCAL=REMOTE", value_parser = super::pair)]
    pub(crate) file: Vec<(String, String)>,
    /// A credential for the command, optionally from one source only; repeatable
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
    /// How long the pod may take to start; a pod that no node takes is given up after 10 s without it [default: 3m]
    #[arg(long, value_name = "DURATION", value_parser = super::duration)]
    pub(crate) start_timeout: Option<Duration>,
    /// Keep the Job afterwards, with what the cluster says of it
    #[arg(long)]
    pub(crate) keep: bool,
    /// Let the API server check the Job, print it, and create nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

impl Job {
    /// A command with the defaults of every option.
    pub(crate) fn of(command: Vec<OsString>) -> Self {
        Self {
            namespace: None,
            image: None,
            agent_image: None,
            image_pull_secret: None,
            cpu: None,
            memory: None,
            node: None,
            selector: Vec::new(),
            tolerate: Vec::new(),
            service_account: None,
            user: None,
            env: Vec::new(),
            workdir: None,
            file: Vec::new(),
            credential: Vec::new(),
            stdin: false,
            tty: false,
            timeout: None,
            start_timeout: None,
            keep: false,
            dry_run: false,
            command,
        }
    }
}
