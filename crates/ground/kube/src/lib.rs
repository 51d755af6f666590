//! The Kubernetes API client. Every request of Postern to an API server uses this crate: connecting, applying,
//! waiting, exec streams, logs, events and access reviews. Its errors say who must act.

pub mod access;
pub mod apply;
mod connect;
pub mod crd;
mod credential_error;
mod credentials;
mod error;
pub mod exec;
mod exec_plugin;
mod hint;
mod kubeconfig;
mod kubeconfig_fields;
mod object_ref;
pub mod pods;
pub mod portforward;
pub mod raw;
mod retry;
pub mod spdy;
pub mod tokens;
mod watch_body;

pub use connect::{Cluster, Target};
pub use credential_error::CredentialCause;
pub use error::{KubeError, Reason};
pub use {k8s_openapi, kube};
