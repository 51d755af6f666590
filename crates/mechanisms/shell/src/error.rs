//! Why a container's shell cannot be one end of a copy.

/// A container's shell cannot be one end of a copy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShellError {
    /// The shell did not start, did not answer, or answered something else.
    #[error("{0}")]
    Session(String),
    /// The container lacks tools.
    #[error("{0}")]
    Tools(String),
}
