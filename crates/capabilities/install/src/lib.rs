//! The controller in a cluster.
//!
//! [`objects()`] is the one source of its objects: `postern controller install` applies them, `postern controller
//! manifests` prints them, and the Helm chart and the Kustomize base are made from them ([`chart`]).

pub mod chart;
mod install;
mod names;
mod objects;
mod rules;
mod settings;
mod show;
mod uninstall;

pub use install::{InstallError, Installed, install};
pub use names::{NAME, WEBHOOK};
pub use objects::objects;
pub use rules::{Rule, rules};
pub use settings::{InvalidSetting, NAMESPACE, Part, Settings};
pub use show::{Shown, show};
pub use uninstall::{Uninstalled, uninstall};
