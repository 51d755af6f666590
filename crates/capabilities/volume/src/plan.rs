//! Which mounts of a pod are to belong to whom.

use crate::container::Mount;
use crate::owner::Owner;
use crate::workload::Workload;
use postern_kube::k8s_openapi::api::core::v1::{Container, PodSpec, Volume, VolumeMount};
use std::collections::BTreeMap;

/// What to select of a workload.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only the mounts of this container.
    pub container: Option<String>,
    /// Only these volumes. Without any: all that keep data (claims, NFS, iSCSI and the like), but not `hostPath`, whose
    /// directories belong to the node.
    pub volumes: Vec<String>,
}

/// The mounts, by owner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// For each owner, its mounts in the order of the containers.
    pub mounts: BTreeMap<Owner, Vec<Mount>>,
    /// Containers that run as root, and need nothing.
    pub root: Vec<String>,
}

/// It cannot be said whom a mount is to belong to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// There is no such container.
    #[error("there is no container {name:?}; there are: {}", names.join(", "))]
    NoContainer {
        /// The name.
        name: String,
        /// The existing ones.
        names: Vec<String>,
    },
    /// There is no such volume.
    #[error("there is no volume {name:?}; there are: {}", names.join(", "))]
    NoVolume {
        /// The name.
        name: String,
        /// The existing ones.
        names: Vec<String>,
    },
    /// Nobody writes a volume.
    #[error("no container mounts volume {0:?} for writing")]
    NotWritten(String),
    /// A volume's kind has no owner to change.
    #[error("volume {name:?} is {kind}, which is made by the kubelet and cannot be given to a user")]
    Kubelet {
        /// The volume.
        name: String,
        /// Its kind.
        kind: &'static str,
    },
    /// The security context does not say who the container runs as.
    #[error("container {container:?} mounts volume {volume:?}, but its securityContext has no {field}")]
    NoId {
        /// The container.
        container: String,
        /// The volume.
        volume: String,
        /// `runAsUser` or `runAsGroup`.
        field: &'static str,
    },
    /// An id is negative or too large.
    #[error("container {container:?}: runAsUser {uid} and runAsGroup {gid} are not a valid UID and GID")]
    InvalidId {
        /// The container.
        container: String,
        /// `runAsUser`.
        uid: i64,
        /// `runAsGroup`.
        gid: i64,
    },
    /// Two containers run as different users, and write the same volume.
    #[error("volume {volume:?} is mounted by {} and by {}", of(first), of(second))]
    Disagree {
        /// The volume.
        volume: String,
        /// The first container and its owner.
        first: (String, Owner),
        /// The second.
        second: (String, Owner),
    },
    /// A part of a volume is named by an expression.
    #[error(
        "container {container:?} mounts volume {volume:?} with subPathExpr, which depends on its environment"
    )]
    SubPathExpr {
        /// The container.
        container: String,
        /// The volume.
        volume: String,
    },
    /// The pod is not for Linux.
    #[error("the pod is for {0}, where files have no UID")]
    Os(String),
}

fn of((container, owner): &(String, Owner)) -> String {
    format!("container {container:?} as {owner}")
}

impl PlanError {
    /// What the user can do; `None` if the message says everything.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoContainer { .. } => "check the spelling of --container".to_owned(),
            Self::NoVolume { .. } => "check the spelling of --volume".to_owned(),
            Self::NoId { field, .. } => format!(
                "set {field} in the securityContext of the container or the pod: the image's user is not in the manifest"
            ),
            Self::Disagree { .. } => "run both as the same user, or choose one with --container".to_owned(),
            Self::SubPathExpr { .. } => "use subPath, or name other volumes with --volume".to_owned(),
            Self::NotWritten(_) | Self::Kubelet { .. } => "name another volume with --volume".to_owned(),
            Self::InvalidId { .. } | Self::Os(_) => return None,
        })
    }
}

/// Says which mounts of the workload are to belong to whom.
///
/// The owner is the `runAsUser` and `runAsGroup` of the container that mounts the volume for writing, so that it cannot
/// disagree with the workload. What nobody writes, and what is written by root, is left out.
pub fn plan(workload: &Workload, selection: &Selection) -> Result<Plan, PlanError> {
    let Workload { path: _, spec, claim_templates } = workload;
    let Selection { container, volumes } = selection;
    if let Some(os) = spec.os.as_ref().filter(|os| os.name != "linux") {
        return Err(PlanError::Os(os.name.clone()));
    }
    if let Some(name) = container.as_ref().filter(|name| spec.containers.iter().all(|one| one.name != **name))
    {
        let names = spec.containers.iter().map(|container| container.name.clone()).collect();
        return Err(PlanError::NoContainer { name: name.clone(), names });
    }
    let known = kinds(spec, claim_templates);
    for name in volumes {
        match known.get(name.as_str()) {
            None => {
                let names = known.keys().map(|name| (*name).to_owned()).collect();
                return Err(PlanError::NoVolume { name: name.clone(), names });
            }
            Some(Kind::Kubelet(kind)) => return Err(PlanError::Kubelet { name: name.clone(), kind }),
            Some(Kind::Data | Kind::Scratch | Kind::Host) => {}
        }
    }
    let is_selected = |name: &str| match volumes.as_slice() {
        [] => known.get(name) == Some(&Kind::Data),
        named => named.iter().any(|one| one == name),
    };
    let mut plan = Plan::default();
    let mut owners: BTreeMap<&str, (&str, Owner)> = BTreeMap::new();
    let mut written = Vec::new();
    for one in spec.containers.iter().filter(|one| container.as_ref().is_none_or(|name| *name == one.name)) {
        let mounts = one.volume_mounts.iter().flatten();
        for mount in mounts.filter(|mount| mount.read_only != Some(true) && is_selected(&mount.name)) {
            written.push(mount.name.as_str());
            let Some(owner) = owner(spec, one, mount)? else {
                if plan.root.last() != Some(&one.name) {
                    plan.root.push(one.name.clone());
                }
                continue;
            };
            if mount.sub_path_expr.is_some() {
                return Err(PlanError::SubPathExpr {
                    container: one.name.clone(),
                    volume: mount.name.clone(),
                });
            }
            let (first, other) = *owners.entry(&mount.name).or_insert((&one.name, owner));
            if other != owner {
                return Err(PlanError::Disagree {
                    volume: mount.name.clone(),
                    first: (first.to_owned(), other),
                    second: (one.name.clone(), owner),
                });
            }
            add(plan.mounts.entry(owner).or_default(), mount);
        }
    }
    match volumes.iter().find(|name| !written.contains(&name.as_str())) {
        Some(name) => Err(PlanError::NotWritten(name.clone())),
        None => Ok(plan),
    }
}

/// Adds a mount, unless the same part of the volume is there.
fn add(mounts: &mut Vec<Mount>, mount: &VolumeMount) {
    let sub_path = mount.sub_path.clone().filter(|path| !path.is_empty());
    let is_same = |other: &Mount| other.volume == mount.name && other.sub_path == sub_path;
    // Two containers may mount different volumes at the same path.
    let is_taken = mounts.iter().any(|other| other.path == mount.mount_path);
    if !mounts.iter().any(is_same) {
        let path = if is_taken { format!("/postern-own/{}", mount.name) } else { mount.mount_path.clone() };
        mounts.push(Mount { volume: mount.name.clone(), path, sub_path });
    }
}

/// Who the container runs as; `None` for root.
fn owner(spec: &PodSpec, container: &Container, mount: &VolumeMount) -> Result<Option<Owner>, PlanError> {
    let (own, pods) = (container.security_context.as_ref(), spec.security_context.as_ref());
    let uid = own.and_then(|own| own.run_as_user).or_else(|| pods.and_then(|pods| pods.run_as_user));
    let gid = own.and_then(|own| own.run_as_group).or_else(|| pods.and_then(|pods| pods.run_as_group));
    let missing =
        |field| PlanError::NoId { container: container.name.clone(), volume: mount.name.clone(), field };
    let uid = uid.ok_or_else(|| missing("runAsUser"))?;
    if uid == 0 {
        return Ok(None);
    }
    let gid = gid.ok_or_else(|| missing("runAsGroup"))?;
    let invalid = || PlanError::InvalidId { container: container.name.clone(), uid, gid };
    Owner::new(uid, gid).map(Some).ok_or_else(invalid)
}

/// What a volume is to an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It outlives the pod.
    Data,
    /// It is made for the pod, and anybody can write it.
    Scratch,
    /// It is a directory of the node.
    Host,
    /// The kubelet writes it.
    Kubelet(&'static str),
}

fn kinds<'w>(spec: &'w PodSpec, claim_templates: &'w [String]) -> BTreeMap<&'w str, Kind> {
    let volumes = spec.volumes.iter().flatten().map(|volume| (volume.name.as_str(), kind(volume)));
    volumes.chain(claim_templates.iter().map(|name| (name.as_str(), Kind::Data))).collect()
}

fn kind(volume: &Volume) -> Kind {
    if volume.config_map.is_some() {
        Kind::Kubelet("a ConfigMap")
    } else if volume.secret.is_some() {
        Kind::Kubelet("a Secret")
    } else if volume.projected.is_some() {
        Kind::Kubelet("projected")
    } else if volume.downward_api.is_some() {
        Kind::Kubelet("of the downward API")
    } else if volume.image.is_some() {
        Kind::Kubelet("an image")
    } else if volume.empty_dir.is_some() {
        Kind::Scratch
    } else if volume.host_path.is_some() {
        Kind::Host
    } else if volume.csi.is_some() {
        // Inline CSI volumes are made for the pod by a driver, mostly read-only secrets.
        Kind::Scratch
    } else {
        Kind::Data
    }
}

#[cfg(test)]
mod tests;
