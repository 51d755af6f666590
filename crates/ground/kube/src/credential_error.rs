//! Why there are no credentials to send.

/// There are no credentials, and nothing was sent; for display.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{why}")]
pub(crate) struct CredentialError {
    pub(crate) why: String,
    pub(crate) cause: CredentialCause,
}

/// What the user must correct if there are no credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialCause {
    /// The kubeconfig's exec plug-in.
    Plugin,
    /// A token that contains a line break or another character that is not allowed in a header.
    Characters,
    /// The credentials in the kubeconfig, or the file that it names.
    Kubeconfig,
}
