//! Identity without a key: a workload authenticates with its `ServiceAccount`'s token.
//!
//! There are two sides. [`trust`]: a [`Provider`] is a cloud that can trust the tokens that a cluster issues for one
//! ServiceAccount. Its *grant* is a trusted profile, a role, or a federated credential. Everything that only one
//! cloud has is behind that trait; code that installs a pod uses only [`PodIdentity`].
//!
//! The other side uses the trust: a [`source`] returns the token that the cluster issued, an [`exchange`] exchanges
//! it for a short-lived credential of a provider, and a [`keeper`] caches that credential: it obtains it once for
//! many callers, renews it in time, and stores it on disk if configured.

pub mod atomic_file;
pub mod doctor;
pub mod exchange;
#[doc(hidden)]
pub mod fuzzing;
pub mod ibm;
pub mod issuer;
pub mod jwt;
pub mod keeper;
pub mod proxy;
pub mod render;
mod request;
pub mod sdk;
pub mod setup;
pub mod source;
pub mod trust;
pub mod workload;

pub use request::CallError;
pub use trust::{ANNOTATIONS, Grant, PodIdentity, Provider, Subject, TrustError, grant_of};
