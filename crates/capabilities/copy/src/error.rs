//! Errors that end a whole copy.

use postern_exec::{ExecError, exit};

/// The copy did not finish.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// An end could not be reached.
    #[error("reaching {place}")]
    Reach {
        /// The end.
        place: String,
        /// Why.
        source: ExecError,
    },
    /// An end reports that nothing can be copied.
    #[error("{place}: {message}")]
    Refused {
        /// The end.
        place: String,
        /// Its message.
        message: String,
    },
    /// The connection was lost more often than it may be retried.
    #[error("the connection to {place} was lost{}: {message}", tries(*.retries))]
    Lost {
        /// The end.
        place: String,
        /// The reason.
        message: String,
        /// The number of unsuccessful retries.
        retries: u32,
    },
    /// The manifest cannot be written.
    #[error("writing the manifest")]
    Manifest(#[source] std::io::Error),
    /// Our stdout was closed, as by `head`.
    #[error("our own standard output was closed")]
    OutputClosed,
    /// The user cancelled it.
    #[error("cancelled")]
    Cancelled,
}

fn tries(retries: u32) -> String {
    match retries {
        0 => String::new(),
        1 => " again after a retry".to_owned(),
        more => format!(" again after {more} retries"),
    }
}

impl CopyError {
    /// What to do about it; `None` where the message says all there is.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Reach { source: ExecError::Kube(error), .. } => error.hint(),
            Self::Reach { source: ExecError::Inject(_) | ExecError::NeedsAgent { .. }, .. } => {
                Some("an image with the agent or with a shell can be reached")
            }
            Self::Lost { .. } | Self::Cancelled => Some(
                "run the same command again: it goes on where it was cut off; what is unfinished lies at the destination \
                 as .NAME.postern-partial, and `postern cp --clean DST` removes it",
            ),
            Self::Reach { .. } | Self::Refused { .. } | Self::Manifest(_) | Self::OutputClosed => None,
        }
    }

    /// The process exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Reach { source, .. } => source.exit_code(),
            Self::Refused { .. } | Self::Manifest(_) => exit::DENIED,
            Self::Lost { .. } => exit::BROKE,
            Self::OutputClosed => exit::OUTPUT_CLOSED,
            Self::Cancelled => exit::CANCELLED,
        }
    }

    /// The error class in `-o json`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Reach { source, .. } => source.kind(),
            Self::Refused { .. } | Self::Manifest(_) => "denied",
            Self::Lost { .. } | Self::OutputClosed => "error",
            Self::Cancelled => "timed-out-or-cancelled",
        }
    }
}
