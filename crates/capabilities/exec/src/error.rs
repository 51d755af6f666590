//! Errors of a run, classed by whether the tool was reached.

use crate::annotation::AGENT_ANNOTATION;
use crate::ephemeral_error::EphemeralError;
use postern_kube::KubeError;
use postern_wire::{Failure, FailureKind};
use std::io;
use std::time::Duration;

/// Exit codes of our own (a tool's passes through unchanged).
pub mod exit {
    /// The cluster or a provider said no, or what is asked for is not valid.
    pub const DENIED: u8 = 1;
    /// The command line is not right.
    pub const USAGE: u8 = 2;
    /// It broke after the tool had started.
    pub const BROKE: u8 = 126;
    /// The tool was never reached.
    pub const NEVER_REACHED: u8 = 127;
    /// It timed out or was cancelled.
    pub const CANCELLED: u8 = 137;
    /// Our own standard output was closed, as by `head`: what SIGPIPE would have ended us with.
    pub const OUTPUT_CLOSED: u8 = 141;
}

/// A run that did not end with the tool's own exit.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The cluster did not let us start it.
    #[error(transparent)]
    Kube(#[from] KubeError),
    /// The command is longer than can be sent or started.
    #[error("{what} has {bytes} bytes, and at most {limit} can be passed")]
    TooLong {
        /// What is.
        what: &'static str,
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// The pod or container that was named cannot be used.
    #[error("{0}")]
    Target(String),
    /// The agent could not start it.
    #[error("{}", .0.message)]
    NotStarted(Failure),
    /// The runtime could not start it.
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
        /// What the annotation names.
        agent: String,
        /// Why.
        why: String,
    },
    /// What answered is not our agent, or of another release.
    #[error("{0}")]
    NoAgent(String),
    /// An option that only the agent can honour, and no agent.
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
    /// The agent cannot be put into the container.
    #[error("putting the agent into the container: {0}")]
    Inject(String),
    /// No ephemeral container beside the container.
    #[error("reaching container {container} of pod {namespace}/{pod} from an ephemeral container: {why}")]
    Ephemeral {
        /// The pod's namespace.
        namespace: String,
        /// The pod.
        pod: String,
        /// The container that was to be reached.
        container: String,
        /// Why.
        why: Box<EphemeralError>,
    },
    /// A local file cannot be staged.
    #[error("reading {path} to stage it")]
    LocalFile {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The local process cannot be started.
    #[error("starting the local supervisor")]
    Local(#[source] io::Error),
    /// The stream ended, broke or fell silent before the end of the output was known.
    #[error("the output is not whole: {0}")]
    Broke(String),
    /// What arrived is not what was sent.
    #[error("the output is not whole: {stream} had {sent} bytes in the pod and {received} arrived{}", hash_words(*.sent, *.received))]
    Corrupt {
        /// Which stream.
        stream: &'static str,
        /// Bytes the agent counted.
        sent: u64,
        /// Bytes that came.
        received: u64,
    },
    /// The time-out of `--timeout` came.
    #[error("the command did not end within {}{note}", time(.limit))]
    TimedOut {
        /// The limit.
        limit: Duration,
        /// What became of the process.
        note: &'static str,
    },
    /// The user ended it.
    #[error("cancelled{0}")]
    Cancelled(&'static str),
    /// What a target of several said cannot be held until it ends.
    #[error("holding a target's output in a temporary file in {folder}")]
    Hold {
        /// Where temporary files are.
        folder: String,
        /// Why.
        source: io::Error,
    },
    /// Our own input cannot be read.
    #[error("reading our own standard input")]
    Input(#[source] io::Error),
    /// Our own output cannot be written.
    #[error("writing to our own standard output")]
    Output(#[source] io::Error),
}

fn hash_words(sent: u64, received: u64) -> &'static str {
    if sent == received { ", with other content" } else { "" }
}

/// As a user would have written it: `90 s`, `500ms`.
fn time(limit: &Duration) -> String {
    if limit.subsec_nanos() == 0 { format!("{} s", limit.as_secs()) } else { format!("{limit:?}") }
}

impl ExecError {
    /// What to do about it; `None` where the message says all there is.
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
                FailureKind::File => "stage it below /tmp, under a name that is not there yet",
                FailureKind::PermissionDenied
                | FailureKind::BadRequest
                | FailureKind::Workdir
                | FailureKind::System => return None,
            },
            Self::NoAgent(_) => "`postern ops install` puts the agent of this release there",
            Self::Annotation { .. } => "correct the annotation, or remove it",
            Self::NeedsAgent { .. } => "add --inject to put it there",
            Self::Broke(_) | Self::Corrupt { .. } => {
                "run it again; what the command did before the break is done"
            }
            Self::TooLong { .. } => "send what is long through stdin (-i), or as a file with --file",
            Self::Inject(_) => "run it without --inject, or use an image that has the agent",
            _ => return None,
        })
    }

    /// The process exit code that tells it from a tool's own end.
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

    /// The class, as `-o json` names it.
    pub fn kind(&self) -> &'static str {
        match self.exit_code() {
            exit::USAGE => "usage",
            exit::NEVER_REACHED => "never-reached",
            exit::CANCELLED => "timed-out-or-cancelled",
            _ => "broke",
        }
    }

    /// Whether the agent says that the command itself is what is missing or refused.
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
