//! Errors.

use postern_kube::KubeError;
use postern_kube::apply::ObjectRef;

/// The Job could not be started.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// A request failed.
    #[error(transparent)]
    Kube(#[from] KubeError),
    /// Its pod does not start; waiting would not help.
    #[error("{job} does not start: {cause}")]
    NotStarted {
        /// The Job.
        job: ObjectRef,
        /// The cause in one sentence.
        cause: String,
        /// What to do about it.
        fix: String,
        /// What the cluster said.
        said: String,
    },
}
