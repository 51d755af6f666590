//! Who must write a volume, and whether it can be.
//!
//! Which volumes the kubelet gives to `fsGroup`: <https://kubernetes.io/docs/tasks/configure-pod-container/security-context/>
//! and `pkg/volume` of Kubernetes; CSI drivers by `fsGroupPolicy`
//! (<https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/csi-driver-v1/>).

use crate::pods::PodOf;
use k8s_openapi::api::core::v1::{
    Container, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, PodSpec, Volume,
};
use k8s_openapi::api::storage::v1::{CSIDriver, StorageClass};
use postern_report::{Finding, Severity};
use std::collections::BTreeMap;

/// The rule of every finding.
pub const RULE: &str = "volume-writable";

/// What was read besides Pods. Manifests alone may lack much of it.
#[derive(Debug, Clone, Default)]
pub struct Storage {
    /// Claims, by namespace and name.
    pub claims: BTreeMap<(String, String), PersistentVolumeClaim>,
    /// Volumes, by name.
    pub volumes: BTreeMap<String, PersistentVolume>,
    /// CSI drivers, by name.
    pub drivers: BTreeMap<String, CSIDriver>,
    /// Storage classes, by name.
    pub classes: BTreeMap<String, StorageClass>,
    /// Owners that a probe saw: by namespace, Pod, container and path.
    pub owners: BTreeMap<(String, String, String, String), Seen>,
}

/// What a probe saw of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The permissions, the lowest nine bits.
    pub mode: u32,
}

/// Whether the kubelet gives a volume to `fsGroup`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum FsGroup {
    /// It does.
    Applied,
    /// It does not, and why.
    Ignored(String),
    /// It cannot be said, and why.
    Unknown(String),
    /// The volume is for everyone, or nobody writes it.
    NotNeeded,
}

/// Judges every mount that a container may write.
pub fn judge(pods: &[PodOf], storage: &Storage) -> Vec<Finding> {
    let mut findings = Vec::new();
    for pod in pods {
        for (index, container) in pod.spec.containers.iter().enumerate() {
            for (at, mount) in container.volume_mounts.iter().flatten().enumerate() {
                if mount.read_only == Some(true) {
                    continue;
                }
                let field = format!("containers[{index}].volumeMounts[{at}]");
                findings.extend(judge_mount(pod, container, &mount.name, &mount.mount_path, &field, storage));
            }
        }
    }
    findings
}

fn judge_mount(
    pod: &PodOf,
    container: &Container,
    volume: &str,
    path: &str,
    field: &str,
    storage: &Storage,
) -> Option<Finding> {
    let support = fs_group(pod, volume, storage);
    if support == FsGroup::NotNeeded {
        return None;
    }
    let who = Who::of(&pod.spec, container);
    let what = format!("container {:?} writes volume {volume:?} at {path}", container.name);
    let finding = |severity, why: String| pod.finding(RULE, severity, field, format!("{what}: {why}"));
    if who.uid == Some(0) {
        return Some(finding(Severity::Ok, "it runs as root".to_owned()));
    }
    let key = (pod.namespace.clone(), pod.object.name.clone(), container.name.clone(), path.to_owned());
    if let Some(seen) = storage.owners.get(&key) {
        return Some(judge_seen(&finding, &who, *seen));
    }
    if has_own_container(&pod.spec, volume) {
        return Some(finding(Severity::Ok, "an init container gives it to the user".to_owned()));
    }
    let runs_as = who.text();
    Some(match (who.fs_group, support) {
        (_, FsGroup::NotNeeded) => return None,
        (Some(group), FsGroup::Applied) => {
            finding(Severity::Ok, format!("{runs_as}, and the kubelet gives the volume to fsGroup {group}"))
        }
        (None, FsGroup::Applied) => {
            let why = format!("{runs_as}, and no fsGroup is set, so that the volume keeps its owner");
            finding(Severity::Warning, why)
                .fix("set securityContext.fsGroup of the pod to the group of the user")
        }
        (Some(group), FsGroup::Ignored(why)) => {
            finding(Severity::Problem, format!("{runs_as}, and fsGroup {group} has no effect: {why}"))
                .fix(FIX)
                .reference("https://kubernetes.io/docs/tasks/configure-pod-container/security-context/")
        }
        (None, FsGroup::Ignored(why)) => {
            let why =
                format!("{runs_as}; fsGroup would have no effect: {why}; the owner of the directory decides");
            finding(Severity::Warning, why).fix(FIX)
        }
        (_, FsGroup::Unknown(why)) => finding(Severity::Inconclusive, format!("{runs_as}; {why}")),
    })
}

const FIX: &str = "postern volumes patch adds an init container that gives it to the user; where the Pod Security Standard restricted \
     is enforced, set runAsUser and runAsGroup to the owner that the provisioner gives";

/// By what a probe saw.
fn judge_seen(finding: &dyn Fn(Severity, String) -> Finding, who: &Who, seen: Seen) -> Finding {
    let Seen { uid, gid, mode } = seen;
    let saw = format!("{}; the directory belongs to {uid}:{gid}, mode {mode:03o}", who.text());
    let is = |one: i64, other: u32| one == i64::from(other);
    let is_owner = who.uid.is_some_and(|one| is(one, uid));
    let is_group = who.groups().any(|one| is(one, gid));
    // The kernel looks at the first class that fits, and at no other.
    let bits = if is_owner {
        mode >> 6
    } else if is_group {
        mode >> 3
    } else {
        mode
    };
    if bits & 0o3 == 0o3 {
        finding(Severity::Ok, saw)
    } else if who.uid.is_none() {
        finding(Severity::Inconclusive, saw).fix("set runAsUser and runAsGroup")
    } else {
        finding(Severity::Problem, format!("{saw}: it cannot write there")).fix(FIX)
    }
}

/// Who a container runs as.
struct Who {
    uid: Option<i64>,
    gid: Option<i64>,
    fs_group: Option<i64>,
    others: Vec<i64>,
}

impl Who {
    fn of(spec: &PodSpec, container: &Container) -> Self {
        let (own, pods) = (container.security_context.as_ref(), spec.security_context.as_ref());
        Self {
            uid: own.and_then(|own| own.run_as_user).or_else(|| pods.and_then(|pods| pods.run_as_user)),
            gid: own.and_then(|own| own.run_as_group).or_else(|| pods.and_then(|pods| pods.run_as_group)),
            fs_group: pods.and_then(|pods| pods.fs_group),
            others: pods.and_then(|pods| pods.supplemental_groups.clone()).unwrap_or_default(),
        }
    }

    fn groups(&self) -> impl Iterator<Item = i64> {
        // Without runAsGroup the primary group is the image's, which is root's unless it says otherwise.
        self.gid.into_iter().chain(self.fs_group).chain(self.others.iter().copied())
    }

    fn text(&self) -> String {
        match (self.uid, self.gid) {
            (Some(uid), Some(gid)) => format!("it runs as {uid}:{gid}"),
            (Some(uid), None) => format!("it runs as user {uid}"),
            (None, _) => "it runs as the image's user".to_owned(),
        }
    }
}

/// Whether an init container that runs as root mounts the volume and changes owners.
fn has_own_container(spec: &PodSpec, volume: &str) -> bool {
    spec.init_containers.iter().flatten().any(|container| {
        let mounts = container.volume_mounts.iter().flatten().any(|mount| mount.name == volume);
        let words = container.command.iter().flatten().chain(container.args.iter().flatten());
        let changes = words.into_iter().any(|word| word == "own" || word.contains("chown"));
        mounts && (changes || container.name.starts_with(postern_volume::NAME))
    })
}

fn fs_group(pod: &PodOf, name: &str, storage: &Storage) -> FsGroup {
    let found = pod.spec.volumes.iter().flatten().find(|volume| volume.name == name);
    if let Some(volume) = found {
        return of_volume(pod, volume, storage);
    }
    match pod.claim_templates.iter().find(|(template, _)| template == name) {
        Some((_, class)) => of_class(class.as_deref(), storage),
        None => FsGroup::Unknown(format!("the pod has no volume {name:?}")),
    }
}

fn of_volume(pod: &PodOf, volume: &Volume, storage: &Storage) -> FsGroup {
    let ignored = |why: &str| FsGroup::Ignored(why.to_owned());
    let is_read_only = volume.secret.is_some()
        || volume.config_map.is_some()
        || volume.projected.is_some()
        || volume.downward_api.is_some()
        || volume.image.is_some();
    // An emptyDir can be written by everyone.
    if is_read_only || volume.empty_dir.is_some() {
        FsGroup::NotNeeded
    } else if volume.host_path.is_some() {
        ignored("it is a hostPath, which the kubelet leaves alone")
    } else if volume.nfs.is_some() {
        ignored("it is NFS, whose server decides about owners")
    } else if volume.cephfs.is_some() || volume.glusterfs.is_some() {
        ignored("it is a network file system, whose server decides about owners")
    } else if let Some(csi) = &volume.csi {
        by_driver(&csi.driver, csi.fs_type.as_deref(), None, storage)
    } else if let Some(claim) = &volume.persistent_volume_claim {
        of_claim(pod, &claim.claim_name, storage)
    } else if let Some(ephemeral) = &volume.ephemeral {
        let template = ephemeral.volume_claim_template.as_ref();
        of_class(template.and_then(|template| template.spec.storage_class_name.as_deref()), storage)
    } else {
        // Block devices of the kubelet's own plug-ins.
        FsGroup::Applied
    }
}

fn of_claim(pod: &PodOf, name: &str, storage: &Storage) -> FsGroup {
    let Some(claim) = storage.claims.get(&(pod.namespace.clone(), name.to_owned())) else {
        return FsGroup::Unknown(format!("claim {name:?} is not there, so that its type is not known"));
    };
    let spec = claim.spec.as_ref();
    let bound = spec.and_then(|spec| spec.volume_name.as_deref()).filter(|name| !name.is_empty());
    let volume = bound.and_then(|name| storage.volumes.get(name)).and_then(|volume| volume.spec.as_ref());
    match volume {
        Some(volume) => of_persistent(volume, storage),
        None => of_class(spec.and_then(|spec| spec.storage_class_name.as_deref()), storage),
    }
}

fn of_persistent(volume: &PersistentVolumeSpec, storage: &Storage) -> FsGroup {
    let ignored = |why: &str| FsGroup::Ignored(why.to_owned());
    if volume.host_path.is_some() {
        ignored("its PersistentVolume is a hostPath, which the kubelet leaves alone")
    } else if volume.nfs.is_some() {
        ignored("its PersistentVolume is NFS, whose server decides about owners")
    } else if volume.cephfs.is_some() || volume.glusterfs.is_some() {
        ignored("its PersistentVolume is a network file system, whose server decides about owners")
    } else if let Some(csi) = &volume.csi {
        by_driver(&csi.driver, csi.fs_type.as_deref(), volume.access_modes.as_deref(), storage)
    } else {
        FsGroup::Applied
    }
}

/// Of a volume that does not exist yet.
fn of_class(class: Option<&str>, storage: &Storage) -> FsGroup {
    let named = class.and_then(|name| storage.classes.get(name));
    let is_default = |class: &&StorageClass| {
        let annotations = class.metadata.annotations.as_ref();
        annotations.is_some_and(|all| {
            all.get("storageclass.kubernetes.io/is-default-class").is_some_and(|value| value == "true")
        })
    };
    let found = if class.is_none() { storage.classes.values().find(is_default) } else { named };
    let Some(found) = found else {
        return FsGroup::Unknown("its StorageClass is not known, so that its type is not".to_owned());
    };
    let provisioner = &found.provisioner;
    if storage.drivers.contains_key(provisioner) {
        let parameters = found.parameters.as_ref();
        let fs_type = parameters.and_then(|all| all.get("csi.storage.k8s.io/fstype")).map(String::as_str);
        // Most drivers fill in a type of their own where none is set.
        return by_driver(provisioner, fs_type.or(Some("ext4")), None, storage);
    }
    if provisioner.contains("local-path") {
        return FsGroup::Ignored(format!(
            "provisioner {provisioner} makes hostPath volumes, which the kubelet leaves alone"
        ));
    }
    FsGroup::Unknown(format!(
        "the volume is not bound yet, and provisioner {provisioner} is no known CSI driver"
    ))
}

fn by_driver(driver: &str, fs_type: Option<&str>, modes: Option<&[String]>, storage: &Storage) -> FsGroup {
    let Some(found) = storage.drivers.get(driver) else {
        return FsGroup::Unknown(format!(
            "CSI driver {driver} is not there, so that its fsGroupPolicy is not known"
        ));
    };
    let policy = found.spec.fs_group_policy.as_deref().unwrap_or("ReadWriteOnceWithFSType");
    let ignored =
        |why: &str| FsGroup::Ignored(format!("CSI driver {driver} has fsGroupPolicy {policy}{why}"));
    match policy {
        "File" => FsGroup::Applied,
        "None" => ignored(""),
        _ if fs_type.is_none_or(str::is_empty) => ignored(", and the volume has no fsType"),
        _ if modes.is_some_and(|modes| !modes.iter().any(|mode| mode.starts_with("ReadWriteOnce"))) => {
            ignored(", and the volume is not ReadWriteOnce")
        }
        _ => FsGroup::Applied,
    }
}

#[cfg(test)]
mod tests;
