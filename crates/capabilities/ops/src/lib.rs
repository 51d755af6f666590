//! The ops pod: a small, restricted pod that runs tools for users outside the cluster.
//!
//! Each operation has the same steps: *observe* the current state, *validate*, *plan* (pure), *apply*, *report*.
//! [`objects`] has the desired objects, and [`rules`] every permission with its reason; neither uses a client.

pub mod audit;
pub mod check;
mod diagnose;
mod diff;
pub mod identity;
pub mod install;
mod invalid_setting;
pub mod names;
pub mod objects;
mod ops_pod;
mod pod_plan;
mod quota;
mod reporter;
pub mod rules;
pub mod settings;
pub mod show;
pub mod stream;
pub mod uninstall;

pub use ops_pod::OpsPod;
pub use settings::{Access, InvalidSetting, Settings};

/// What the user can do if the cluster refuses something about an ops pod.
pub const FORBIDDEN: &str =
    "ask for the verb and resource named above; `postern ops rbac` prints Roles that hold them";
