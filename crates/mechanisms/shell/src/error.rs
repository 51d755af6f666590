//! Why a container's shell cannot act as an end of a copy.

/// A container's shell cannot act as an end of a copy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShellError {
    /// The shell did not start, did not answer, or sent an unexpected answer.
    #[error("{0}")]
    Session(String),
    /// The container lacks tools.
    #[error("{0}")]
    Tools(String),
}
