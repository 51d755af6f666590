//! Checks of what workloads can reach.
//!
//! - [`volumes`]: who must write a volume, and whether `fsGroup` takes effect for its type and driver
//! - [`images`]: which Secret an image would be pulled with, and whether it can be
//!
//! The judging functions are pure: [`observe`] reads a cluster, and [`manifests`] reads files.

pub mod images;
pub mod manifests;
pub mod observe;
pub mod pods;
pub mod pull;
pub mod request;
pub mod volumes;
