//! Identity without a key: a `ServiceAccount`'s token is what a workload proves itself with.
//!
//! Two sides. [`trust`]: a [`Provider`] is a cloud that can be told to trust the tokens that a cluster issues for one
//! ServiceAccount. What it is told is its *grant*: a trusted profile, a role, a federated credential. Everything that
//! only one cloud knows is behind that trait; who installs a pod knows [`PodIdentity`] and nothing more.
//!
//! And its use: a [`source`] gives the token that the cluster issued, an [`exchange`] turns it into a short-lived
//! credential of a provider, and a [`keeper`] holds that credential: asks once for many, renews it in time, keeps it
//! on disk where that was asked for.

mod call;
pub mod doctor;
pub mod exchange;
pub mod file;
#[doc(hidden)]
pub mod fuzzing;
pub mod ibm;
pub mod issuer;
pub mod jwt;
pub mod keeper;
pub mod proxy;
pub mod render;
pub mod sdk;
pub mod setup;
pub mod source;
pub mod trust;
pub mod workload;

pub use call::CallError;
pub use trust::{ANNOTATIONS, Grant, PodIdentity, Provider, Subject, TrustError, grant_of};
