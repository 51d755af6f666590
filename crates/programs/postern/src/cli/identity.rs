//! `postern identity …`.

use super::{Output, Reporting, outputs};
use clap::{Args, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum Identity {
    /// Print a short-lived credential of a provider
    Token(Token),
    /// Run a command with credentials of one or more providers in its environment
    Exec(Exec),
    /// Write a credential to a file, and keep it fresh with --watch
    Write(Write),
    /// Serve the providers' APIs on loopback and add the Authorization header: a sidecar for unmodified clients
    Proxy(Proxy),
    /// Check each step from the mounted token to a credential; exit 1 if a step fails
    Doctor(Doctor),
    /// Print manifests of a workload that gets its credentials this way
    #[command(subcommand)]
    Manifest(Manifest),
    /// Print the provider's configuration for trusting a ServiceAccount of this cluster
    #[command(subcommand)]
    Trust(Trust),
    /// Show, publish and compare the documents of this cluster's issuer
    #[command(subcommand)]
    Issuer(Issuer),
    /// Show each provider's token source, audience and cached tokens; sends no request
    Status(Status),
}

/// The forms of a credential.
const FORMS: [&str; 7] = ["raw", "json", "yaml", "header", "exec-credential", "aws-process", "env"];

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  curl -H \"$(postern identity token reports -o header)\" https://api.example.com/v1/reports\n  \
kubectl: users[].user.exec: {apiVersion: client.authentication.k8s.io/v1, command: postern, \
args: [identity, token, cluster, -o, exec-credential], interactiveMode: IfAvailable}\n  \
aws: credential_process = postern identity token aws -o aws-process\n\n\
The token goes to stdout and nowhere else. With `cache: disk` in the config, processes share one token."
)]
pub(crate) struct Token {
    /// The provider's name in the config; optional if there is only one
    pub(crate) provider: Option<String>,
    /// Output form
    #[arg(id = "output", short, long, value_parser = outputs(FORMS), default_value = "raw", value_name = "FORM")]
    pub(crate) output: Output,
    /// Request a new token, even if the cached one is still valid
    #[arg(long)]
    pub(crate) fresh: bool,
    /// Do not start a browser; print the address only
    #[arg(long)]
    pub(crate) no_browser: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  postern identity exec aws -- aws s3 ls\n  postern identity exec gcp -- gcloud storage ls\n  \
postern identity exec reports -- sh -c 'curl -H \"Authorization: Bearer $REPORTS_ACCESS_TOKEN\" https://api.example.com'"
)]
pub(crate) struct Exec {
    /// The providers' names in the config
    #[arg(required = true, value_name = "PROVIDER")]
    pub(crate) providers: Vec<String>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct Write {
    /// The provider's name in the config
    pub(crate) provider: String,
    /// The file; replaced atomically, at mode 0600 unless --mode is given
    #[arg(long, value_name = "FILE")]
    pub(crate) to: PathBuf,
    /// The form that is written
    #[arg(id = "output", short, long, value_parser = outputs(FORMS), default_value = "raw", value_name = "FORM")]
    pub(crate) output: Output,
    /// The file's mode, such as 0640 for a group that reads it
    #[arg(long, value_name = "MODE", value_parser = mode, default_value = "0600")]
    pub(crate) mode: u32,
    /// Keep running, and write the file again at each renewal
    #[arg(long)]
    pub(crate) watch: bool,
    /// Print what would be written, without writing it
    #[arg(long, conflicts_with = "watch")]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  postern identity proxy &\n  curl http://127.0.0.1:8080/reports/items          # by the provider's name\n  \
http_proxy=http://127.0.0.1:8080 curl http://api.example.com/v1/items   # by the API's host\n\n\
/healthz, /readyz and /metrics are served too, and with --probe-listen at an address that probes reach. On SIGTERM, the \
proxy waits for open requests."
)]
pub(crate) struct Proxy {
    /// Where to listen: a loopback address, or `unix:/PATH`; repeatable
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) listen: Vec<String>,
    /// The mode of unix sockets
    #[arg(long, value_name = "MODE", value_parser = socket_mode, default_value = "0600")]
    pub(crate) socket_mode: u32,
    /// Also serve /healthz, /readyz and /metrics, and nothing else, at this address, such as 0.0.0.0:8081
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) probe_listen: Option<std::net::SocketAddr>,
    /// Only these providers; repeatable [default: all that have an `api`, and all of type aws]
    #[arg(long = "provider", value_name = "PROVIDER")]
    pub(crate) providers: Vec<String>,
    /// Serve credentials to AWS SDKs at /aws-credentials/PROVIDER; clients authenticate with the secret that is written to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) aws_token_file: Option<PathBuf>,
    /// How long requests may take to end after SIGTERM
    #[arg(long, value_name = "DURATION", value_parser = super::duration, default_value = "20s")]
    pub(crate) grace: std::time::Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// One provider only
    pub(crate) provider: Option<String>,
}

/// Of a socket: who may write to it may use it.
fn socket_mode(text: &str) -> Result<u32, String> {
    let found = u32::from_str_radix(text.trim_start_matches("0o"), 8).ok();
    found.filter(|mode| mode & !0o777 == 0).ok_or_else(|| "write it as 0600 or 0660".to_owned())
}

fn mode(text: &str) -> Result<u32, String> {
    let found = u32::from_str_radix(text.trim_start_matches("0o"), 8).ok();
    match found.filter(|mode| mode & !0o777 == 0) {
        // A token that anyone may replace is nobody's; one that everybody may read is everybody's.
        Some(mode) if mode & 0o022 == 0 => Ok(mode),
        Some(_) => Err("others may not write it".to_owned()),
        None => Err("write it as 0600 or 0640".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// One provider only
    pub(crate) provider: Option<String>,
    #[command(flatten)]
    pub(crate) reporting: Reporting,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Manifest {
    /// A `CronJob`
    Cronjob {
        /// The schedule, in cron syntax
        #[arg(long, value_name = "CRON", value_parser = schedule)]
        schedule: String,
        /// The schedule's time zone
        #[arg(long, value_name = "ZONE", default_value = "Etc/UTC")]
        time_zone: String,
        #[command(flatten)]
        workload: Workload,
    },
    /// A Job
    Job {
        #[command(flatten)]
        workload: Workload,
    },
    /// A Deployment
    Deployment {
        /// The number of pods
        #[arg(long, value_name = "N", default_value_t = 1)]
        replicas: u32,
        #[command(flatten)]
        workload: Workload,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Workload {
    /// The workload's name
    pub(crate) name: String,
    /// The container's image
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: String,
    /// Its namespace
    #[arg(short, long, value_name = "NAMESPACE", default_value = "default")]
    pub(crate) namespace: String,
    /// The ServiceAccount that is created for it [default: the workload's name]
    #[arg(long, value_name = "NAME")]
    pub(crate) service_account: Option<String>,
    /// A provider of the config; repeatable [default: all]
    #[arg(long = "provider", value_name = "PROVIDER")]
    pub(crate) providers: Vec<String>,
    /// How the container gets the credentials
    #[arg(long, value_enum, default_value_t)]
    pub(crate) way: Way,
    /// The image with postern [default: the one of this release]
    #[arg(long, value_name = "IMAGE")]
    pub(crate) postern_image: Option<String>,
    /// The container's command and its arguments
    #[arg(last = true, value_name = "CMD")]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    /// `identity proxy` beside it, as a native sidecar
    #[default]
    Sidecar,
    /// `identity exec` around its command
    Exec,
}

#[derive(Debug, Args)]
pub(crate) struct Subject {
    /// The ServiceAccount to trust
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = service_account)]
    pub(crate) service_account: (String, String),
    /// An audience other than the provider's usual one
    #[arg(long, value_name = "AUDIENCE")]
    pub(crate) audience: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Trust {
    /// An OIDC provider and a role whose trust policy pins :sub and :aud
    Aws {
        #[command(flatten)]
        subject: Subject,
        /// The account's number
        #[arg(long, value_name = "NUMBER", value_parser = aws_account, default_value = "ACCOUNT_ID")]
        account: String,
        /// The role's name [default: NAMESPACE-NAME]
        #[arg(long, value_name = "NAME")]
        role: Option<String>,
    },
    /// A trusted profile, linked to the ServiceAccount; takes `ibm.cluster` of the config
    Ibm {
        #[command(flatten)]
        subject: Subject,
        /// The cluster's CRN [default: `ibm.cluster` of the config]
        #[arg(long, value_name = "CRN")]
        cluster: Option<String>,
        /// The cluster is OpenShift (ROKS)
        #[arg(long)]
        openshift: bool,
        /// The profile's name [default: NAMESPACE-NAME]
        #[arg(long, value_name = "NAME")]
        profile: Option<String>,
    },
    /// A workload identity pool with a provider, and the right to impersonate a service account
    Gcp {
        #[command(flatten)]
        subject: Subject,
        /// The project's number
        #[arg(long, value_name = "NUMBER", default_value = "PROJECT_NUMBER")]
        project_number: String,
        /// The pool's name
        #[arg(long, value_name = "NAME", default_value = "kubernetes")]
        pool: String,
        /// The provider's name in the pool
        #[arg(long, value_name = "NAME", default_value = "cluster")]
        provider: String,
        /// The Google service account to impersonate
        #[arg(long, value_name = "EMAIL")]
        impersonate: Option<String>,
    },
    /// A federated credential of an app registration
    Azure {
        #[command(flatten)]
        subject: Subject,
        /// The tenant
        #[arg(long, value_name = "ID", default_value = "TENANT_ID")]
        tenant: String,
        /// The app registration's client id
        #[arg(long, value_name = "ID", default_value = "CLIENT_ID")]
        client: String,
    },
    /// An identity provider and a client of a realm
    Keycloak {
        #[command(flatten)]
        subject: Subject,
        /// The realm's address, such as `https://auth.example.com/realms/prod`
        #[arg(long, value_name = "URL")]
        realm: String,
        /// The client's name [default: NAMESPACE-NAME]
        #[arg(long, value_name = "NAME")]
        client: Option<String>,
    },
    /// A connector and a client
    Dex {
        #[command(flatten)]
        subject: Subject,
        /// Dex's issuer, such as `https://dex.example.com`
        #[arg(long, value_name = "URL")]
        issuer: String,
        /// The connector's id
        #[arg(long, value_name = "ID", default_value = "kubernetes")]
        connector: String,
        /// The client's id [default: NAMESPACE-NAME]
        #[arg(long, value_name = "ID")]
        client: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Issuer {
    /// Show the issuer, the address of its keys, and the keys
    Show,
    /// Write the discovery document and the keys below a directory, for publishing at the issuer's address
    Mirror(Mirror),
    /// Compare the cluster's keys with the published keys; exit 1 if they differ
    Diff {
        /// Where the keys are published, if not at the issuer's own address
        #[arg(long, value_name = "URL")]
        at: Option<String>,
        /// A file of trusted CA certificates (PEM) for that server
        #[arg(long, value_name = "FILE")]
        ca_file: Option<PathBuf>,
        #[command(flatten)]
        reporting: Reporting,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Mirror {
    /// The directory
    #[arg(long, value_name = "DIR")]
    pub(crate) to: PathBuf,
    /// Keep running, and write the documents again when they change
    #[arg(long)]
    pub(crate) watch: bool,
    /// How often to check with --watch
    #[arg(long, value_name = "DURATION", value_parser = super::duration, default_value = "60s")]
    pub(crate) interval: std::time::Duration,
    /// Print what would be written, without writing it
    #[arg(long, conflicts_with = "watch")]
    pub(crate) dry_run: bool,
}

/// What the API server takes for a schedule, but for what stands in its fields.
fn schedule(text: &str) -> Result<String, String> {
    if text.split_ascii_whitespace().count() == 5 || text.starts_with('@') {
        Ok(text.to_owned())
    } else {
        Err("write five fields, such as '0 6 * * 1-5': minute, hour, day, month, weekday".to_owned())
    }
}

fn aws_account(text: &str) -> Result<String, String> {
    let number = text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    if number || text == "ACCOUNT_ID" { Ok(text.to_owned()) } else { Err("it has 12 digits".to_owned()) }
}

fn service_account(text: &str) -> Result<(String, String), String> {
    let allowed = |part: &str| {
        (1..=253).contains(&part.len())
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
    };
    match text.split_once('/') {
        Some((namespace, name)) if allowed(namespace) && allowed(name) => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err("write it as NAMESPACE/NAME".to_owned()),
    }
}
