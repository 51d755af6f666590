//! The ops pod: a small, restricted pod in which tools run on behalf of people outside.
//!
//! Each operation goes through the same steps: *observe* what is there, *validate*, *plan* (pure), *apply*, *report*.
//! [`objects`] holds what is desired, and [`rules`] every permission with its reason; neither knows a client.

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
mod podstate;
mod quota;
mod reporter;
pub mod rules;
pub mod settings;
pub mod show;
pub mod stream;
pub mod uninstall;

pub use diagnose::Diagnosis;
pub use ops_pod::OpsPod;
pub use settings::{Access, InvalidSetting, Settings};

/// What to do where the cluster refuses something about an ops pod.
pub const FORBIDDEN: &str =
    "ask for the verb and resource named above; `postern ops rbac` prints Roles that hold them";
