//! `postern identity …`.

use super::{Output, outputs};
use clap::{Args, Subcommand};
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
    /// Serve the providers' APIs on loopback, with the Authorization header added: a sidecar for unmodified clients
    Proxy(Proxy),
    /// Show each provider's source, audience and what is kept of its tokens; asks nobody
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
The token goes to stdout and nowhere else. With `cache: disk` in the config, processes share it and ask once."
)]
pub(crate) struct Token {
    /// The provider's name in the config; may be left out where there is one only
    pub(crate) provider: Option<String>,
    /// How it is printed
    #[arg(id = "output", short, long, value_parser = outputs(FORMS), default_value = "raw", value_name = "FORM")]
    pub(crate) output: Output,
    /// Ask for a new one, even if the kept one still holds
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
    /// The file; replaced whole, at mode 0600 unless --mode says otherwise
    #[arg(long, value_name = "FILE")]
    pub(crate) to: PathBuf,
    /// What is written
    #[arg(id = "output", short, long, value_parser = outputs(FORMS), default_value = "raw", value_name = "FORM")]
    pub(crate) output: Output,
    /// The file's mode, such as 0640 for a group that reads it
    #[arg(long, value_name = "MODE", value_parser = mode, default_value = "0600")]
    pub(crate) mode: u32,
    /// Stay, and write it again each time it is renewed
    #[arg(long)]
    pub(crate) watch: bool,
    /// Say what would be written, and write nothing
    #[arg(long, conflicts_with = "watch")]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  postern identity proxy &\n  curl http://127.0.0.1:8080/reports/items          # by the provider's name\n  \
http_proxy=http://127.0.0.1:8080 curl http://api.example.com/v1/items   # by the API's host\n\n\
/healthz, /readyz and /metrics are served beside the APIs, and with --probe-listen at an address that probes reach. \
SIGTERM lets requests end first."
)]
pub(crate) struct Proxy {
    /// Where to listen: an address of loopback, or unix:/PATH; repeatable
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) listen: Vec<String>,
    /// The mode of unix sockets
    #[arg(long, value_name = "MODE", value_parser = socket_mode, default_value = "0600")]
    pub(crate) socket_mode: u32,
    /// Serve /healthz, /readyz and /metrics, and nothing else, at this address too, such as 0.0.0.0:8081
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) probe_listen: Option<std::net::SocketAddr>,
    /// Only these providers; repeatable [default: all that have an `api`, and all of type aws]
    #[arg(long = "provider", value_name = "PROVIDER")]
    pub(crate) providers: Vec<String>,
    /// Serve credentials to AWS SDKs at /aws-credentials/PROVIDER, to who shows the secret that is written to this file
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
