//! Pull Secrets where workloads need them.
//!
//! A pull Secret is named once, in a [`ClusterPullSecret`], a [`PullSecret`] or a `CatalogSource` of OLM. From these come
//! [`Rule`]s. For each namespace, [`plan()`] says which copies of Secrets it is to have, and which `ServiceAccounts` are
//! to name them. [`secrets_of_pod()`] says what a new Pod is to name in addition. [`apply`] makes the changes.
//!
//! Everything but [`apply`] is pure.

mod accounts;
pub mod apply;
mod names;
pub mod olm;
mod plan;
mod pod;
mod rule;
mod types;

pub use accounts::{Account, RECORD};

pub use plan::{AccountChange, Copy, CopyChange, DesiredCopy, NamespaceInfo, Observed, Plan, plan};
pub use pod::{PodInfo, secrets_of_pod};
pub use rule::{Consumer, ObjectName, Problem, Rule, Rules, Scope, Secret, SecretState, Sources};
pub use types::{
    Accounts, ClusterPullSecret, ClusterPullSecretSpec, ClusterSource, PullSecret, PullSecretGrant,
    PullSecretGrantSpec, PullSecretSpec, PullSecretStatus, Source, definitions,
};
