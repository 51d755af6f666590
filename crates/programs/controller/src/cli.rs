//! The arguments.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Postern's controller: pull Secrets where workloads need them, and volumes owned by the right user
#[derive(Debug, Parser)]
#[command(name = "postern-controller", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the controller, in a cluster or with a kubeconfig outside of it
    Run(Run),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Run {
    /// Reconcile once, print what was changed to the log, and exit; without leader election and webhook
    #[arg(long)]
    pub(crate) once: bool,
    /// What to do; separate several by commas
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Part::PullSecrets, Part::Volumes], value_name = "PART")]
    pub(crate) parts: Vec<Part>,
    /// The controller's own namespace, with its Lease and its certificate
    #[arg(long, env = "POD_NAMESPACE", default_value = "postern-system", value_name = "NAME")]
    pub(crate) namespace: String,
    /// This replica's name, for the Lease and for events
    #[arg(long, env = "POD_NAME", default_value = "postern-controller", value_name = "NAME")]
    pub(crate) name: String,
    /// The image of the init containers that change the owner of volumes
    #[arg(long, env = "POSTERN_AGENT_IMAGE", default_value = concat!("ghcr.io/postern-dev/postern-agent:", env!("CARGO_PKG_VERSION")), value_name = "IMAGE")]
    pub(crate) agent_image: String,
    /// The address of the webhook server
    #[arg(long, default_value = "0.0.0.0:8443", value_name = "ADDRESS")]
    pub(crate) webhook_address: SocketAddr,
    /// The address of /healthz, /readyz and /metrics
    #[arg(long, default_value = "0.0.0.0:8080", value_name = "ADDRESS")]
    pub(crate) health_address: SocketAddr,
    /// A Secret with tls.crt and tls.key that somebody else renews, such as cert-manager, instead of the controller's own
    #[arg(long, value_name = "NAME")]
    pub(crate) certificate_secret: Option<String>,
    /// The kubeconfig file [default: $KUBECONFIG, else the mounted service account]
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The kubeconfig context to use
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// An OpenTelemetry collector that takes traces by OTLP over HTTP, such as <http://collector.observability:4318>
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub(crate) trace_endpoint: Option<String>,
    /// The format of the log
    #[arg(long, value_enum, default_value_t = Log::Json, value_name = "FORMAT")]
    pub(crate) log: Log,
}

/// A part of the controller, with permissions of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Copies of pull Secrets, service accounts that name them, and Pods at admission
    PullSecrets,
    /// Pods that cannot pull are recreated, for objects with restartStuck
    RestartStuck,
    /// Init containers that give volumes to the workload's user
    Volumes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Log {
    /// One object for each line
    Json,
    /// For people
    Text,
}
