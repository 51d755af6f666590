//! A provider's trust in a `ServiceAccount` instead of a key in a Secret: what a cloud needs, and what a pod needs to
//! use it.

use crate::{CallError, ibm};
use std::collections::BTreeMap;
use std::future::Future;

/// The annotation keys with which providers find their grant on a `ServiceAccount`.
pub const ANNOTATIONS: &[&str] = &[ibm::ANNOTATION];

/// Returns the grant in a `ServiceAccount`'s annotations, of any provider.
pub fn grant_of(annotations: &BTreeMap<String, String>) -> Option<&String> {
    ANNOTATIONS.iter().find_map(|key| annotations.get(*key))
}

/// The ServiceAccount that a provider trusts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// The `ServiceAccount`.
    pub name: &'a str,
}

/// An existing grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Its ID at the provider.
    pub id: String,
    /// Its display name.
    pub name: String,
    /// Whether it was created now.
    pub created: bool,
}

/// The settings of a pod that uses a grant. They contain no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodIdentity {
    /// For its `ServiceAccount`.
    pub annotations: Vec<(String, String)>,
    /// For its containers.
    pub env: Vec<(String, String)>,
    /// The audience of its token.
    pub audience: String,
    /// The lifetime of a token, in seconds; the kubelet renews it before its end.
    pub expiration_seconds: i64,
    /// The directory where the token is mounted.
    pub directory: String,
    /// The file in it.
    pub file: String,
}

/// A cloud that can trust a `ServiceAccount`.
pub trait Provider {
    /// The result of `observe`, which `grant` uses.
    type Observed;

    /// The cloud's name.
    fn name(&self) -> &'static str;

    /// The credential that Postern uses, and that a pod with a grant does not need.
    fn credential(&self) -> &'static str;

    /// The cloud's term for its grant.
    fn grant_noun(&self) -> &'static str;

    /// Looks the cluster up and checks that a grant may be created. Changes nothing.
    fn observe(&self) -> impl Future<Output = Result<Self::Observed, TrustError>>;

    /// Returns the existing grant.
    fn existing(observed: &Self::Observed) -> Option<&str>;

    /// Returns the grant's name, whether it exists or not.
    fn grant_name(&self) -> String;

    /// Creates or completes the grant. Can be repeated. On an error it removes what it created itself.
    fn grant(
        &self,
        observed: &Self::Observed,
        subject: Subject<'_>,
    ) -> impl Future<Output = Result<Grant, TrustError>>;

    /// Revokes a grant. Returns `false` if it did not exist.
    fn revoke(&self, id: &str) -> impl Future<Output = Result<bool, TrustError>>;

    /// Returns the grant of this workspace, found by its name.
    fn find(&self) -> impl Future<Output = Result<Option<Grant>, TrustError>>;

    /// Returns the settings of a pod that uses the grant.
    fn pod(&self, id: &str) -> PodIdentity;

    /// Returns the command with which a user revokes a grant.
    fn by_hand(id: &str) -> String;

    /// Returns what a new grant does not permit yet, and the command that changes that.
    fn reminder(&self, grant: &Grant) -> String;
}

/// Why a cloud does not trust the `ServiceAccount`.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The configuration does not identify the cluster to the cloud.
    #[error("no cluster is registered: {0}")]
    NotRegistered(String),
    /// The cloud does not know the cluster, or could not be reached.
    #[error("looking up the cluster {cluster}")]
    LookUp {
        /// The cluster, as it is registered.
        cluster: String,
        /// The reason.
        source: CallError,
    },
    /// The credential lacks the permission to manage grants.
    #[error("the IAM permission '{permission}' is missing")]
    Permission {
        /// The permission.
        permission: &'static str,
        /// The refusal.
        source: CallError,
    },
    /// Anything else.
    #[error("{attempt}")]
    Call {
        /// What was attempted, on which object.
        attempt: String,
        /// The reason.
        source: CallError,
    },
}

impl TrustError {
    /// Returns what the user can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NotRegistered(_) => {
                "set `workspace` and `ibm.cluster` in the config, or use --trusted-profile=off"
            }
            Self::LookUp { .. } => {
                "check `ibm.cluster` in the config and the API key, or use --trusted-profile=off"
            }
            Self::Permission { .. } => {
                "ask for the Operator role on the IAM Identity service, or use --trusted-profile=off"
            }
            Self::Call { .. } => "run it again; existing objects are found by their names",
        }
    }
}
