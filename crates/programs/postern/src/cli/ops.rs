//! `postern ops …`.

use super::Reporting;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub(crate) enum Ops {
    /// Install or update the ops pod; safe to repeat
    Install(Install),
    /// Show what is installed and what is missing
    Show(Show),
    /// Preview the removal of the ops pod; with --confirm, remove it
    Uninstall(Uninstall),
    /// Authorize an operator's Ed25519 key to open streams to the ops pod; list and revoke keys
    Authorize(Authorize),
    /// Print the audit lines of past invocations
    Logs(Logs),
    /// Compare what the ops pod's `ServiceAccount` may do with what was declared; exit 1 on any excess
    Audit(Audit),
    /// Print the Roles that people need to install, run, view and audit
    Rbac(Rbac),
}

/// Which ops pod.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Pod {
    /// The ops pod's namespace [default: `POSTERN_OPS_NAMESPACE`, else `ops.namespace` of the config, else postern-ops]
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// The ops pod's name [default: `POSTERN_OPS_NAME`, else `ops.name` of the config, else postern-ops]
    #[arg(long = "name", id = "ops_name", value_name = "NAME")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "In the default namespace, the namespaces postern-ops and postern-test are created if they are missing. With -n, the \
namespace must exist, and no Namespace object is changed: whoever may create pods, Secrets and ServiceAccounts in a \
namespace can have an ops pod in it."
)]
pub(crate) struct Install {
    #[command(flatten)]
    pub(crate) pod: Pod,
    /// The pod's image [default: the one of this release]
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    /// A Secret in the ops pod's namespace to pull the image with
    #[arg(long, value_name = "NAME")]
    pub(crate) image_pull_secret: Option<String>,
    /// A credential for the tools, optionally from one source only (env, keychain, config, prompt); repeatable
    /// [default: `IBMCLOUD_API_KEY`, if it is found without a prompt]
    #[arg(long, value_name = "NAME[=SOURCE]")]
    pub(crate) credential: Vec<String>,
    /// Grant tools access to the cluster's API in these namespaces, or in `all`
    #[arg(long, value_name = "NAMESPACE", num_args = 1.., value_delimiter = ',')]
    pub(crate) cluster_access: Vec<String>,
    /// Let IBM Cloud trust the pod's ServiceAccount (a trusted profile), instead of giving the pod the API key
    /// [default: auto where `IBMCLOUD_API_KEY` is found, else off]
    #[arg(long, value_enum, value_name = "WHEN")]
    pub(crate) trusted_profile: Option<TrustedProfile>,
    /// Also accept runs by port-forward (`run --transport stream`), with a new key; without it, they are not accepted
    #[arg(long)]
    pub(crate) stream: bool,
    /// How long to wait for running tools to finish and for the pod to be ready
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = super::duration)]
    pub(crate) timeout: Duration,
    /// Replace the pod even if nothing changed
    #[arg(long)]
    pub(crate) force: bool,
    /// Print what would change, from a server-side dry run; with -o yaml or json, print the manifests
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TrustedProfile {
    /// If it is available; else use the key, with a warning that gives the reason
    Auto,
    /// Always; fail if it is not available
    On,
    /// Never; use the key, and send no request to IBM Cloud
    Off,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  postern ops authorize --generate ~/.config/postern/stream.key\n  postern ops authorize \
~/.ssh/id_ed25519.pub\n  postern ops authorize --list\n  postern ops authorize --revoke AAAAC3NzaC1lZDI1NTE5AAAAI…"
)]
pub(crate) struct Authorize {
    #[command(flatten)]
    pub(crate) pod: Pod,
    /// A public key as `ssh-keygen -t ed25519` writes it; `-` for stdin
    #[arg(value_name = "FILE", conflicts_with_all = ["generate", "list", "revoke"])]
    pub(crate) file: Option<String>,
    /// Create a private key at this path (PKCS#8 PEM, mode 0600) and authorize it
    #[arg(long, value_name = "PATH", conflicts_with_all = ["list", "revoke"])]
    pub(crate) generate: Option<PathBuf>,
    /// The key's comment, which names its owner [default: the one in the file, or the kubeconfig's user]
    #[arg(long, value_name = "COMMENT", conflicts_with_all = ["list", "revoke"])]
    pub(crate) comment: Option<String>,
    /// Print the authorized keys
    #[arg(long, conflicts_with = "revoke")]
    pub(crate) list: bool,
    /// Revoke a key, named by its base64 field or its comment
    #[arg(long, value_name = "KEY")]
    pub(crate) revoke: Option<String>,
    /// Print what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    #[command(flatten)]
    pub(crate) pod: Pod,
    /// Check everything that `run` depends on; exit 1 if a check fails
    #[arg(long)]
    pub(crate) check: bool,
    /// The tool that --check looks for in the image
    #[arg(long, value_name = "TOOL", default_value = "kubectl", requires = "check")]
    pub(crate) tool: String,
    /// The expected image [default: the one of this release]
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    #[command(flatten)]
    pub(crate) reporting: Reporting,
}

#[derive(Debug, Args)]
pub(crate) struct Uninstall {
    #[command(flatten)]
    pub(crate) pod: Pod,
    /// Remove the ops pod
    #[arg(long)]
    pub(crate) confirm: bool,
    /// Remove only the trusted profile of the config's `workspace`, without a request to the cluster, which may be gone
    #[arg(long)]
    pub(crate) provider_only: bool,
    /// How long to wait for the deletion of each object
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = super::duration)]
    pub(crate) timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    #[command(flatten)]
    pub(crate) pod: Pod,
    /// Print only the last lines
    #[arg(long, value_name = "LINES")]
    pub(crate) tail: Option<i64>,
    /// Print only lines newer than this
    #[arg(long, value_name = "DURATION", value_parser = super::duration)]
    pub(crate) since: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct Audit {
    #[command(flatten)]
    pub(crate) pod: Pod,
    /// The namespaces to audit [default: all that you may list]
    #[arg(long, value_name = "NAMESPACE", num_args = 1.., value_delimiter = ',')]
    pub(crate) within: Vec<String>,
    #[command(flatten)]
    pub(crate) reporting: Reporting,
}

#[derive(Debug, Args)]
pub(crate) struct Rbac {
    #[command(flatten)]
    pub(crate) pod: Pod,
    /// Include what an installer needs to grant --cluster-access to these namespaces
    #[arg(long, value_name = "NAMESPACE", num_args = 1.., value_delimiter = ',')]
    pub(crate) cluster_access: Vec<String>,
}
