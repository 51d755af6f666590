//! Ownership of volumes.
//!
//! A container that does not run as root cannot write a volume that belongs to someone else. The kubelet gives a
//! volume to a group (`fsGroup`) only if the volume's type and driver permit it; it never does for `hostPath`, and so
//! for local-path provisioners. An init container that runs as root can do it instead. This crate says which mounts of
//! a pod belong to whom ([`plan()`]), builds that init container ([`InitContainer`]), and adds it to manifests
//! ([`patch()`]) and to new Pods ([`admit()`]).
//!
//! All of it is pure: nothing here reads a cluster.

mod admission;
mod command;
mod container;
mod owner;
mod patch;
mod plan;
mod types;
mod workload;

pub use admission::{ANNOTATION, Injection, Ownership, PodToAdmit, admit};
pub use command::chown_command;
pub use container::{InitContainer, Mount, NAME, Program, root_chown_init_container};
pub use owner::{InvalidOwner, Owner};
pub use patch::{Change, Options, PatchError, Patched, init_containers, patch};
pub use plan::{Plan, PlanError, Selection, plan};
pub use types::{ProgramName, VolumeOwnership, VolumeOwnershipSpec};
pub use workload::{InvalidWorkload, Workload};
