//! Runs a command in a single-use pod of its own, as a Kubernetes Job.
//!
//! * [`Settings`] are what the user chooses; [`job`] is the Job for them, a pure function.
//! * [`create`] and [`wait_until_running`] start it; the error says why it did not start.
//! * The command itself, its environment and its files go through the session of `postern-exec`. They are in no
//!   object of the cluster.
//! * [`explain`] tells apart why a pod ended while the command ran; [`delete`] removes the Job with its pod.
//!
//! Nothing stays if the client is killed: the pod takes one command, ends with it, and ends when nobody sends one. The
//! Job has a deadline and a time to live.

mod diagnose;
mod end;
mod error;
mod names;
mod objects;
mod settings;
mod start;

pub use end::explain;
pub use error::JobError;
pub use names::{CONTAINER, new_name};
pub use objects::job;
pub use settings::{Amount, InvalidSetting, Resources, Settings, Toleration, User};
pub use start::{create, delete, wait_until_running};
