//! Errors of a run, classified by whether the command was reached.

use crate::annotation::AGENT_ANNOTATION;
use crate::ephemeral_error::EphemeralError;
use postern_kube::KubeError;
use postern_wire::{Failure, FailureKind};
use std::io;
use std::time::Duration;

/// Postern's own exit codes (a command's exit code is passed through unchanged).
pub mod exit {
    /// The cluster or a provider refused, or the request is invalid.
    pub const DENIED: u8 = 1;
    /// The command line is invalid.
    pub const USAGE: u8 = 2;
    /// It failed after the command had started.
    pub const BROKE: u8 = 126;
    /// The command was never reached.
    pub const NEVER_REACHED: u8 = 127;
    /// It timed out or was cancelled.
    pub const CANCELLED: u8 = 137;
    /// Standard output was closed, as by `head`: the code of a process that SIGPIPE ended.
    pub const OUTPUT_CLOSED: u8 = 141;
}

/// The error of a run that did not end with the command's own exit.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The Kubernetes API refused, or could not be reached.
    #[error(transparent)]
    Kube(#[from] KubeError),
    /// The command is longer than can be sent or started.
    #[error("{what} has {bytes} bytes, and at most {limit} can be passed")]
    TooLong {
        /// What is too long.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// The named pod or container cannot be used.
    #[error("{0}")]
    Target(String),
    /// The agent could not start the command.
    #[error("{}", .0.message)]
    NotStarted(Failure),
    /// The runtime could not start the command.
    #[error("the container runtime could not start the command: {0}")]
    Runtime(String),
    /// The runtime could not start the agent that the pod's annotation names.
    #[error(
        "starting {agent}, which is the agent by the annotation {AGENT_ANNOTATION} of pod {namespace}/{pod}: {why}"
    )]
    Annotation {
        /// The pod's namespace.
        namespace: String,
        /// The pod.
        pod: String,
        /// The path in the annotation.
        agent: String,
        /// The reason.
        why: String,
    },
    /// The peer is not Postern's agent, or it has another version.
    #[error("{0}")]
    NoAgent(String),
    /// An option needs the agent, and the container has none.
    #[error(
        "{options} needs the agent, and container {container} of pod {namespace}/{pod} has none (no annotation \
         {AGENT_ANNOTATION} names its path)"
    )]
    NeedsAgent {
        /// The options.
        options: String,
        /// The pod's namespace.
        namespace: String,
        /// The pod.
        pod: String,
        /// The container.
        container: String,
    },
    /// The agent cannot be copied into the container.
    #[error("copying the agent into the container: {0}")]
    Inject(String),
    /// The container cannot be reached from an ephemeral container.
    #[error("reaching container {container} of pod {namespace}/{pod} from an ephemeral container: {why}")]
    Ephemeral {
        /// The pod's namespace.
        namespace: String,
        /// The pod.
        pod: String,
        /// The target container.
        container: String,
        /// The reason.
        why: Box<EphemeralError>,
    },
    /// A local file cannot be staged.
    #[error("reading {path} to stage it")]
    LocalFile {
        /// The file.
        path: String,
        /// The reason.
        source: io::Error,
    },
    /// The local process cannot be started.
    #[error("starting the local supervisor")]
    Local(#[source] io::Error),
    /// The stream ended, failed or went silent before the output was known to be complete.
    #[error("the output is not whole: {0}")]
    Broke(String),
    /// The received output differs from the output that was sent.
    #[error("the output is not whole: {stream} had {sent} bytes in the pod and {received} arrived{}", hash_words(*.sent, *.received))]
    Corrupt {
        /// The stream.
        stream: &'static str,
        /// Bytes that the agent counted.
        sent: u64,
        /// Bytes that arrived.
        received: u64,
    },
    /// The time limit of `--timeout` expired.
    #[error("the command did not end within {}{note}", time(.limit))]
    TimedOut {
        /// The limit.
        limit: Duration,
        /// The state of the process.
        note: &'static str,
    },
    /// The user ended it.
    #[error("cancelled{0}")]
    Cancelled(&'static str),
    /// The output of one of several targets cannot be buffered until it ends.
    #[error("buffering a target's output in a temporary file in {folder}")]
    Hold {
        /// The directory of temporary files.
        folder: String,
        /// The reason.
        source: io::Error,
    },
    /// The client's stdin cannot be read.
    #[error("reading our own standard input")]
    Input(#[source] io::Error),
    /// The client's output cannot be written.
    #[error("writing to our own standard output")]
    Output(#[source] io::Error),
}

fn hash_words(sent: u64, received: u64) -> &'static str {
    if sent == received { ", with different content" } else { "" }
}

/// Formats it as a user would write it: `90 s`, `500ms`.
fn time(limit: &Duration) -> String {
    if limit.subsec_nanos() == 0 { format!("{} s", limit.as_secs()) } else { format!("{limit:?}") }
}

impl ExecError {
    /// Returns what the user can do; `None` if the message says everything.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Kube(error) => return error.hint(),
            Self::NotStarted(failure) => match failure.kind {
                FailureKind::NotFound => "the tool must be in the image, or at the path given",
                FailureKind::Credential => "give the credential a longer value and run `postern ops install`",
                FailureKind::Login => {
                    "nothing was run; if the profile is new, IAM may need another minute; else check its link and its \
                     policies"
                }
                FailureKind::File => "stage it below /tmp, under a name that does not exist yet",
                FailureKind::PermissionDenied
                | FailureKind::BadRequest
                | FailureKind::Workdir
                | FailureKind::System => return None,
            },
            Self::NoAgent(_) => "`postern ops install` installs the agent of this release",
            Self::Annotation { .. } => "correct the annotation, or remove it",
            Self::NeedsAgent { .. } => "add --inject to copy it there",
            Self::Broke(_) | Self::Corrupt { .. } => "run it again; the command's earlier effects remain",
            Self::TooLong { .. } => "send long data through stdin (-i), or as a file with --file",
            Self::Inject(_) => "run it without --inject, or use an image that has the agent",
            _ => return None,
        })
    }

    /// Returns the process exit code, which differs from a command's own.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Kube(_)
            | Self::Target(_)
            | Self::NotStarted(_)
            | Self::Runtime(_)
            | Self::Annotation { .. }
            | Self::NoAgent(_)
            | Self::NeedsAgent { .. }
            | Self::Inject(_)
            | Self::Ephemeral { .. }
            | Self::LocalFile { .. }
            | Self::Local(_) => exit::NEVER_REACHED,
            Self::TooLong { .. } => exit::USAGE,
            Self::TimedOut { .. } | Self::Cancelled(_) => exit::CANCELLED,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => exit::OUTPUT_CLOSED,
            Self::Broke(_) | Self::Corrupt { .. } | Self::Hold { .. } | Self::Input(_) | Self::Output(_) => {
                exit::BROKE
            }
        }
    }

    /// Returns the class, as `-o json` prints it.
    pub fn kind(&self) -> &'static str {
        match self.exit_code() {
            exit::USAGE => "usage",
            exit::NEVER_REACHED => "never-reached",
            exit::CANCELLED => "timed-out-or-cancelled",
            _ => "broke",
        }
    }

    /// Returns the agent's reason if it could not start the command.
    pub fn failure(&self) -> Option<FailureKind> {
        match self {
            Self::NotStarted(failure) => Some(failure.kind),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_without_the_agent_it_needs_is_a_tool_never_reached() {
        let of = |text: &str| text.to_owned();
        let error = ExecError::NeedsAgent {
            options: of("--env"),
            namespace: of("n"),
            pod: of("p"),
            container: of("c"),
        };
        assert_eq!((error.exit_code(), error.kind()), (exit::NEVER_REACHED, "never-reached"));
        assert_eq!(
            error.to_string(),
            "--env needs the agent, and container c of pod n/p has none (no annotation postern.dev/agent names its path)"
        );
    }
}
