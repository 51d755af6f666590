//! `postern volumes …`.

use clap::{Args, Subcommand, ValueEnum};
use postern_volume::Owner;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum Volumes {
    /// Add an init container to workloads in manifests, so that their volumes belong to the user they run as
    Patch(Patch),
    /// Print the init container of a workload, or one for a given owner and mounts
    InitContainer(InitContainer),
    /// Print the shell command that gives directories to a user, for templates
    ChownCommand(ChownCommand),
}

/// What the init container is to be.
#[derive(Debug, Args)]
pub(crate) struct Own {
    /// What changes the owner: the agent, which needs no shell, or `chown` in the workload's own image
    #[arg(long, value_enum, default_value_t = By::Agent, value_name = "PROGRAM")]
    pub(crate) by: By,
    /// The init container's image [default: the agent's image of this release; with --by chown, the workload's own]
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    /// Keep set-user-ID and set-group-ID bits, which the kernel clears when the owner changes
    #[arg(long)]
    pub(crate) keep_setuid: bool,
    /// Also change files with several hard links; another one may be outside the volume
    #[arg(long)]
    pub(crate) allow_hard_links: bool,
}

/// Which mounts.
#[derive(Debug, Args)]
pub(crate) struct Selection {
    /// Only the mounts of this container
    #[arg(short, long, value_name = "NAME")]
    pub(crate) container: Option<String>,
    /// Only this volume; repeatable [default: all volumes that keep data, without hostPath]
    #[arg(long, value_name = "NAME")]
    pub(crate) volume: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum By {
    /// `postern-agent own`
    Agent,
    /// `chown -R`, by a shell
    Chown,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The new owner is the runAsUser and runAsGroup of the container that mounts the volume. Comments and \
order stay. A repeated patch changes nothing.\n\nExamples:\n  postern volumes patch -f deployment.yaml > patched.yaml\n  \
postern volumes patch -f deployment.yaml --write\n  helm template web ./chart | postern volumes patch -f - | kubectl \
apply -f -"
)]
pub(crate) struct Patch {
    /// A manifest, or a folder of manifests; `-` for stdin; repeatable
    #[arg(short, long, required = true, value_name = "FILE")]
    pub(crate) filename: Vec<PathBuf>,
    /// Also read the folders in a folder
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
    /// Change the files, instead of printing the result
    #[arg(short, long)]
    pub(crate) write: bool,
    /// Print what would be done, without the manifests
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) selection: Selection,
    #[command(flatten)]
    pub(crate) own: Own,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  postern volumes init-container -f deployment.yaml\n  postern volumes init-container \
--owner 1000:1000 --mount data=/var/lib/data"
)]
pub(crate) struct InitContainer {
    /// The manifest of the workload; `-` for stdin
    #[arg(short, long, value_name = "FILE", required_unless_present = "owner", conflicts_with_all = ["owner", "mount"])]
    pub(crate) filename: Option<PathBuf>,
    /// The owner
    #[arg(long, value_name = "UID:GID", requires = "mount")]
    pub(crate) owner: Option<Owner>,
    /// A volume of the pod, and where to mount it; repeatable
    #[arg(long, value_name = "VOLUME=PATH", value_parser = super::pair, requires = "owner", conflicts_with_all = ["container", "volume"])]
    pub(crate) mount: Vec<(String, String)>,
    /// The init container's name
    #[arg(long, value_name = "NAME", default_value = postern_volume::NAME, conflicts_with = "filename")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) selection: Selection,
    #[command(flatten)]
    pub(crate) own: Own,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  postern volumes chown-command 1000:1000 /var/lib/data")]
pub(crate) struct ChownCommand {
    /// The owner
    #[arg(value_name = "UID:GID")]
    pub(crate) owner: Owner,
    /// The directories
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<String>,
}
