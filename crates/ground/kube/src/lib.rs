//! The cluster's door. Everything Postern says to an API server goes through here: connecting, applying, waiting,
//! exec streams, logs, events and access reviews, with errors that say who must act.

pub mod access;
pub mod apply;
mod busy;
mod connect;
mod credential_error;
mod credentials;
mod error;
pub mod exec;
mod exec_plugin;
mod fields;
mod hint;
mod kubeconfig;
mod object_ref;
pub mod pods;
pub mod portforward;
pub mod raw;
pub mod spdy;
pub mod tokens;

pub use connect::{Cluster, Target};
pub use credential_error::CredentialCause;
pub use error::{KubeError, Reason};
pub use {k8s_openapi, kube};
