//! Why a container cannot be reached from an ephemeral one.

use postern_kube::KubeError;

/// Why a container cannot be reached from an ephemeral one.
#[derive(Debug, thiserror::Error)]
pub enum EphemeralError {
    /// The target does not exist, or its state does not allow it.
    #[error("{0}")]
    Target(String),
    /// The target's user is not known.
    #[error(
        "neither the pod nor its node reports the user that it runs as, and the agent cannot read it: {0}; give the \
         user as UID:GID, or set runAsUser and runAsGroup in the pod's securityContext"
    )]
    NoUser(String),
    /// The API server rejects it.
    #[error("{error}{}", replacement_hint(.others))]
    Refused {
        /// The server's error.
        error: KubeError,
        /// The pod's other containers that the server rejects.
        others: Vec<String>,
    },
    /// It was added and does not run.
    #[error("ephemeral container {name} with image {image} {state}; it stays in the pod's record")]
    NotRunning {
        /// Its name.
        name: String,
        /// Its image.
        image: String,
        /// Its state.
        state: String,
    },
}

/// Explains what the user can do if the server rejects a container that is not ours.
pub(crate) fn replacement_hint(others: &[String]) -> String {
    if others.is_empty() {
        return String::new();
    }
    let others = others.join(", ");
    format!(
        "; this is about {others}, which the pod already has: the API server validates an updated pod as a whole, and \
         an ephemeral container cannot be removed, so none can be added to this pod until it is replaced \
         (kubernetes#118961)"
    )
}
