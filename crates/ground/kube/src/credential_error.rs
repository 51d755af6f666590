//! Why there is no credential to send.

/// No credential, before anything was sent; for people.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{why}")]
pub(crate) struct CredentialError {
    pub(crate) why: String,
    pub(crate) cause: CredentialCause,
}

/// What is to be corrected where there is no credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialCause {
    /// The kubeconfig's exec plug-in.
    Plugin,
    /// A token that holds a line break or another character that no header may have.
    Characters,
    /// The credentials in the kubeconfig, or the file that it names.
    Kubeconfig,
}
