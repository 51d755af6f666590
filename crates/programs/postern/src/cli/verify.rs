//! `postern verify …`.

use super::Reporting;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum Verify {
    /// Check which Secret each image would be pulled with, and whether the registry gives the image for it
    Images(Images),
    /// Check who must write each volume, and whether fsGroup takes effect for its type and driver
    Volumes(Volumes),
}

/// What to check.
#[derive(Debug, Args)]
pub(crate) struct Source {
    /// Only this namespace [default: all]
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// Check manifests instead of the cluster: a file, or a folder; `-` for stdin; repeatable
    #[arg(short, long, value_name = "FILE")]
    pub(crate) filename: Vec<PathBuf>,
    /// Also read the folders in a folder
    #[arg(short = 'R', long, requires = "filename")]
    pub(crate) recursive: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The request for an image's manifest is sent from this machine, which may reach other registries than the nodes.\n\nExamples:\n  \
postern verify images -n shop\n  postern verify images -n shop --offline -o html > images.html"
)]
pub(crate) struct Images {
    #[command(flatten)]
    pub(crate) source: Source,
    /// Send nothing to registries
    #[arg(long)]
    pub(crate) offline: bool,
    /// A registry without TLS; repeatable
    #[arg(long, value_name = "HOST[:PORT]", conflicts_with = "offline")]
    pub(crate) plain_http: Vec<String>,
    /// Certificates of CAs that registries may have in addition to the system's, PEM; repeatable
    #[arg(long, value_name = "FILE", conflicts_with = "offline")]
    pub(crate) ca_file: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) reporting: Reporting,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  postern verify volumes -n shop --probe\n  postern verify volumes -f manifests/ --fail-on warning"
)]
pub(crate) struct Volumes {
    #[command(flatten)]
    pub(crate) source: Source,
    /// Look at each directory in the running Pods, with their own stat
    #[arg(long, conflicts_with = "filename")]
    pub(crate) probe: bool,
    #[command(flatten)]
    pub(crate) reporting: Reporting,
}
