//! `postern controller …`.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub(crate) enum Controller {
    /// Install or update the controller; safe to repeat
    Install(Install),
    /// Show what is installed, and whether it works
    Show(Show),
    /// Preview the removal of the controller and of everything it made; with --confirm, remove it
    Uninstall(Uninstall),
    /// Print the controller's objects, or write its Helm chart or Kustomize base
    Manifests(Manifests),
}

/// What the controller is to be.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// The controller's namespace
    #[arg(short, long, value_name = "NAMESPACE", default_value = postern_install::NAMESPACE)]
    pub(crate) namespace: String,
    /// The parts to switch on; a part that is off has no permissions
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Part::PullSecrets, Part::Volumes], value_name = "PART")]
    pub(crate) parts: Vec<Part>,
    /// The controller's image [default: the one of this release]
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    /// The image of init containers that change the owner of volumes [default: the one of this release]
    #[arg(long, value_name = "IMAGE")]
    pub(crate) agent_image: Option<String>,
    /// How many replicas; one reconciles, every one serves the webhook
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    pub(crate) replicas: u16,
    /// A Secret with tls.crt and tls.key that somebody else renews, such as cert-manager
    #[arg(long, value_name = "NAME")]
    pub(crate) certificate_secret: Option<String>,
    /// A Secret in the controller's namespace to pull its image with
    #[arg(long, value_name = "NAME")]
    pub(crate) image_pull_secret: Option<String>,
    /// An OpenTelemetry collector that takes traces by OTLP over HTTP, such as <http://collector.observability:4318>
    #[arg(long, value_name = "URL")]
    pub(crate) trace_endpoint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Copies of pull Secrets, service accounts that name them, and Pods at admission
    PullSecrets,
    /// Pods that cannot pull are recreated, for objects with restartStuck
    RestartStuck,
    /// Init containers that give volumes to the workload's user
    Volumes,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The installer needs cluster-admin: nobody may grant permissions that they do not have.\n\nExamples:\n  \
postern controller install\n  postern controller install --parts volumes --dry-run"
)]
pub(crate) struct Install {
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// How long to wait until every replica is available
    #[arg(long, value_name = "DURATION", default_value = "120s", value_parser = super::duration)]
    pub(crate) timeout: Duration,
    /// Print what would change, from a server-side dry run
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The controller's namespace
    #[arg(short, long, value_name = "NAMESPACE", default_value = postern_install::NAMESPACE)]
    pub(crate) namespace: String,
}

#[derive(Debug, Args)]
pub(crate) struct Uninstall {
    /// The controller's namespace
    #[arg(short, long, value_name = "NAMESPACE", default_value = postern_install::NAMESPACE)]
    pub(crate) namespace: String,
    /// Also delete the custom resources, and with them all objects of these kinds
    #[arg(long)]
    pub(crate) custom_resources: bool,
    /// Remove it
    #[arg(long)]
    pub(crate) confirm: bool,
    /// How long to wait for each object to be gone
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = super::duration)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  postern controller manifests | kubectl apply --server-side -f -\n  postern controller \
manifests --helm charts/postern-controller"
)]
pub(crate) struct Manifests {
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// Write a Helm chart to this directory; its values take the place of the other options
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "kustomize")]
    pub(crate) helm: Option<PathBuf>,
    /// Write a Kustomize base to this directory
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) kustomize: Option<PathBuf>,
}
