//! Trust in a `ServiceAccount` instead of a key in a Secret: what a cloud is told, and what a pod needs to use it.

use crate::{CallError, ibm};
use std::collections::BTreeMap;
use std::future::Future;

/// The annotation keys by which providers find their grant on a `ServiceAccount`.
pub const ANNOTATIONS: &[&str] = &[ibm::ANNOTATION];

/// The grant, of whichever provider, that a `ServiceAccount`'s annotations name.
pub fn grant_of(annotations: &BTreeMap<String, String>) -> Option<&String> {
    ANNOTATIONS.iter().find_map(|key| annotations.get(*key))
}

/// Whom a provider is to trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// The `ServiceAccount`.
    pub name: &'a str,
}

/// A grant that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// How the provider knows it.
    pub id: String,
    /// How people know it.
    pub name: String,
    /// Whether it was made now.
    pub created: bool,
}

/// What a pod needs to use a grant: nothing of it is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodIdentity {
    /// For its `ServiceAccount`.
    pub annotations: Vec<(String, String)>,
    /// For its containers.
    pub env: Vec<(String, String)>,
    /// The audience of its token.
    pub audience: String,
    /// How long a token lives, in seconds; the kubelet renews it before.
    pub expiration_seconds: i64,
    /// The directory where the token is mounted.
    pub directory: String,
    /// The file in it.
    pub file: String,
}

/// A cloud that can trust a `ServiceAccount`.
pub trait Provider {
    /// What observing found, which granting builds on.
    type Observed;

    /// The cloud's name.
    fn name(&self) -> &'static str;

    /// The credential that we act by, and that a pod with a grant needs no more.
    fn credential(&self) -> &'static str;

    /// What the cloud calls its grant.
    fn grant_noun(&self) -> &'static str;

    /// Looks the cluster up and proves that a grant may be made. Changes nothing.
    fn observe(&self) -> impl Future<Output = Result<Self::Observed, TrustError>>;

    /// The grant that is there already.
    fn existing(observed: &Self::Observed) -> Option<&str>;

    /// How the grant is called, whether it is there or not.
    fn grant_name(&self) -> String;

    /// Makes the grant what it has to be; safe to repeat, and what it made itself goes again if it cannot be finished.
    fn grant(
        &self,
        observed: &Self::Observed,
        subject: Subject<'_>,
    ) -> impl Future<Output = Result<Grant, TrustError>>;

    /// Takes a grant away. `false` when it was gone already.
    fn revoke(&self, id: &str) -> impl Future<Output = Result<bool, TrustError>>;

    /// The grant of this workspace, found by its name.
    fn find(&self) -> impl Future<Output = Result<Option<Grant>, TrustError>>;

    /// What a pod needs to use the grant.
    fn pod(&self, id: &str) -> PodIdentity;

    /// The command with which a person takes a grant away.
    fn by_hand(id: &str) -> String;

    /// What a new grant does not allow yet, and the command that changes that.
    fn reminder(&self, grant: &Grant) -> String;
}

/// Why a cloud does not trust the `ServiceAccount`.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// Nobody said which cluster it is to the cloud.
    #[error("no cluster is registered: {0}")]
    NotRegistered(String),
    /// The cloud does not know the cluster, or could not be asked.
    #[error("looking up the cluster {cluster}")]
    LookUp {
        /// As it is registered.
        cluster: String,
        /// Why.
        source: CallError,
    },
    /// The credential may not manage grants.
    #[error("the IAM permission '{permission}' is missing")]
    Permission {
        /// What it takes.
        permission: &'static str,
        /// The refusal.
        source: CallError,
    },
    /// Anything else.
    #[error("{attempt}")]
    Call {
        /// What was attempted, on what.
        attempt: String,
        /// Why it failed.
        source: CallError,
    },
}

impl TrustError {
    /// What to do about it.
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
            Self::Call { .. } => "run it again; what was made already is found by its name",
        }
    }
}
