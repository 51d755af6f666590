//! The name prefix and the label that identify copies.

/// How the names of copies begin.
pub(crate) const PREFIX: &str = "postern-pull-";
/// The label of copies, by which they are watched.
pub(crate) const COPY_LABEL: &str = "postern.dev/pull-secret-copy";
