//! Why a container cannot be reached from an ephemeral one.

use postern_kube::KubeError;

/// Why a container cannot be reached from an ephemeral one.
#[derive(Debug, thiserror::Error)]
pub enum EphemeralError {
    /// There is nothing to reach, or not as it is.
    #[error("{0}")]
    Target(String),
    /// Its user is not known.
    #[error(
        "neither the pod nor its node says which user it runs as, and the agent beside it cannot tell: {0}; name the \
         user as UID:GID, or set runAsUser and runAsGroup in the pod's securityContext"
    )]
    NoUser(String),
    /// The API server does not take it.
    #[error("{error}{}", because(.others))]
    Refused {
        /// The server's words.
        error: KubeError,
        /// Containers of the pod that it objects to, other than ours.
        others: Vec<String>,
    },
    /// It was added and does not run.
    #[error("ephemeral container {name} with image {image} {state}; it stays in the pod's record")]
    NotRunning {
        /// Its name.
        name: String,
        /// Its image.
        image: String,
        /// What became of it.
        state: String,
    },
}

/// What the user can do when it is not our container that is objected to.
pub(crate) fn because(others: &[String]) -> String {
    if others.is_empty() {
        return String::new();
    }
    let others = others.join(", ");
    format!(
        "; this is about {others}, which the pod has already: an update of a pod is judged as a whole, and an ephemeral \
         container cannot be taken away, so none can be added to this pod until it is replaced (kubernetes#118961)"
    )
}
