//! The init containers that a new Pod gets.

use crate::container::{NAME, Program};
use crate::patch::{Options, init_containers};
use crate::plan::Selection;
use crate::types::{ProgramName, VolumeOwnership, VolumeOwnershipSpec};
use crate::workload::Workload;
use k8s_openapi::api::core::v1::{Container, PodSpec};
use kube::ResourceExt as _;
use postern_kube::crd::selects;
use postern_manifest::FieldPath;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The annotation of a Pod: `true` for all volumes that keep data, `false` for none, or the names of volumes, separated
/// by commas.
pub const ANNOTATION: &str = "postern.dev/own-volumes";

/// The label by which a namespace enforces a Pod Security Standard.
const ENFORCE: &str = "pod-security.kubernetes.io/enforce";

/// A Pod at its admission.
#[derive(Debug, Clone, Copy)]
pub struct PodToAdmit<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// The labels of its namespace.
    pub namespace_labels: &'a BTreeMap<String, String>,
    /// Its labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: &'a BTreeMap<String, String>,
    /// Its spec.
    pub spec: &'a PodSpec,
}

/// What applies to a Pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Ownership {
    spec: VolumeOwnershipSpec,
    /// The volumes that the annotation names; all if empty.
    volumes: Vec<String>,
    /// Who asked, for messages.
    by: String,
}

impl Ownership {
    /// Whether the `StorageClasses` of the volumes matter.
    pub fn needs_classes(&self) -> bool {
        self.volumes.is_empty() && !self.spec.storage_classes.is_empty()
    }
}

impl PodToAdmit<'_> {
    /// What applies to the Pod: its annotation, with the options of the first object that selects it. `None` if nothing
    /// does, or if it has the init container already.
    pub fn ownership(&self, objects: &[Arc<VolumeOwnership>]) -> Option<Ownership> {
        let Self { namespace, namespace_labels, labels, annotations, spec } = *self;
        if spec.init_containers.iter().flatten().any(|container| container.name == NAME) {
            return None;
        }
        let mut selecting: Vec<_> = objects
            .iter()
            .filter(|object| object.spec.namespaces.contains(namespace, namespace_labels))
            .filter(|object| object.spec.pods.as_ref().is_none_or(|pods| selects(pods, labels)))
            .collect();
        selecting.sort_by_key(|object| object.name_any());
        let first = selecting.first().map(|object| (object.spec.clone(), object.name_any()));
        let annotation = annotations.get(ANNOTATION).map(|value| value.trim());
        match (annotation, first) {
            (Some("false"), _) | (None, None) => None,
            (None, Some((spec, name))) => {
                Some(Ownership { spec, volumes: Vec::new(), by: format!("VolumeOwnership {name}") })
            }
            (Some(value), first) => {
                let mut spec = first.map(|(spec, _)| spec).unwrap_or_default();
                spec.storage_classes.clear();
                let names =
                    value.split(',').map(str::trim).filter(|name| !name.is_empty() && *name != "true");
                let volumes = names.map(str::to_owned).collect();
                Some(Ownership { spec, volumes, by: format!("annotation {ANNOTATION}") })
            }
        }
    }
}

/// What a Pod gets.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Injection {
    /// Init containers, to run before all others.
    pub containers: Vec<Container>,
    /// For whoever creates the Pod.
    pub warnings: Vec<String>,
}

/// Says what a Pod gets. `classes` are the `StorageClasses` of its volumes.
///
/// Where the namespace enforces the Pod Security Standard `restricted`, nothing is added, as the Pod would be refused; the
/// warning says what to set instead.
pub fn admit(
    pod: &PodToAdmit,
    ownership: &Ownership,
    classes: &BTreeMap<String, String>,
    agent_image: &str,
) -> Injection {
    let Ownership { spec, volumes, by } = ownership;
    let mut volumes = volumes.clone();
    if ownership.needs_classes() {
        let written =
            pod.spec.containers.iter().flat_map(|container| container.volume_mounts.iter().flatten());
        let mut names: Vec<String> = written
            .filter(|mount| mount.read_only != Some(true))
            .filter(|mount| {
                classes.get(&mount.name).is_some_and(|class| spec.storage_classes.contains(class))
            })
            .map(|mount| mount.name.clone())
            .collect();
        names.sort();
        names.dedup();
        volumes = names;
        if volumes.is_empty() {
            return Injection::default();
        }
    }
    let (program, image) = match spec.program {
        ProgramName::Agent => (Program::Agent, Some(agent_image.to_owned())),
        ProgramName::Chown => (Program::Shell, None),
    };
    let options = Options {
        program,
        image: spec.image.clone().or(image),
        selection: Selection { container: None, volumes },
        keep_setuid: spec.keep_setuid,
        allow_hard_links: spec.allow_hard_links,
    };
    let workload = Workload { path: FieldPath::root(), spec: pod.spec.clone(), claim_templates: Vec::new() };
    let containers = match init_containers(&workload, &options) {
        Ok(containers) => containers,
        Err(error) => {
            let hint = error.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
            let warnings = vec![format!("postern: {by}: the volumes keep their owner: {error}{hint}")];
            return Injection { containers: Vec::new(), warnings };
        }
    };
    let is_restricted = pod.namespace_labels.get(ENFORCE).is_some_and(|level| level == "restricted");
    if containers.is_empty() || !is_restricted {
        return Injection { containers, warnings: Vec::new() };
    }
    let warning = format!(
        "postern: {by}: the volumes keep their owner: namespace {} enforces the Pod Security Standard restricted, which \
         forbids an init container that runs as root; set runAsUser and runAsGroup to the owner that the provisioner \
         gives to volumes, or set the owner in the provisioner's StorageClass",
        pod.namespace
    );
    Injection { containers: Vec::new(), warnings: vec![warning] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object(name: &str, spec: &Value) -> Arc<VolumeOwnership> {
        let object = json!({
            "apiVersion": "postern.dev/v1alpha1", "kind": "VolumeOwnership", "metadata": {"name": name}, "spec": spec,
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn spec(security: &Value) -> PodSpec {
        serde_json::from_value(json!({
            "securityContext": security,
            "containers": [{"name": "a", "image": "web:1", "volumeMounts": [
                {"name": "data", "mountPath": "/data"}, {"name": "other", "mountPath": "/other"},
                {"name": "cache", "mountPath": "/cache"},
            ]}],
            "volumes": [
                {"name": "data", "persistentVolumeClaim": {"claimName": "d"}},
                {"name": "other", "persistentVolumeClaim": {"claimName": "o"}}, {"name": "cache", "emptyDir": {}},
            ],
        }))
        .unwrap()
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn run(
        objects: &[Arc<VolumeOwnership>],
        annotation: Option<&str>,
        level: &str,
        spec: &PodSpec,
    ) -> Injection {
        let (labels, namespace_labels) = (map(&[("app", "web")]), map(&[(ENFORCE, level)]));
        let annotations = annotation.map(|value| map(&[(ANNOTATION, value)])).unwrap_or_default();
        let pod = PodToAdmit {
            namespace: "b",
            namespace_labels: &namespace_labels,
            labels: &labels,
            annotations: &annotations,
            spec,
        };
        let classes = map(&[("data", "local-path"), ("other", "fast")]);
        let ownership = pod.ownership(objects);
        ownership.map(|ownership| admit(&pod, &ownership, &classes, "agent:1")).unwrap_or_default()
    }

    fn mounts(injection: &Injection) -> Vec<&str> {
        let mounts = injection.containers.iter().flat_map(|one| one.volume_mounts.iter().flatten());
        mounts.map(|mount| mount.name.as_str()).collect()
    }

    #[test]
    fn a_pod_gets_what_the_object_or_the_annotation_says() {
        let user = spec(&json!({"runAsUser": 2000, "runAsGroup": 3000}));
        let all = object("all", &json!({"namespaces": {"selector": {}}}));
        let class =
            object("a-class", &json!({"namespaces": {"names": ["b"]}, "storageClasses": ["local-path"]}));
        let none =
            object("none", &json!({"namespaces": {"selector": {}}, "pods": {"matchLabels": {"app": "db"}}}));
        for (objects, annotation, want) in [
            (vec![], None, &[][..]),
            (vec![none.clone()], None, &[]),
            (vec![all.clone()], None, &["data", "other"]),
            (vec![all.clone(), class.clone()], None, &["data"]),
            (vec![all.clone()], Some("false"), &[]),
            (vec![class], Some("true"), &["data", "other"]),
            (vec![], Some("other, cache"), &["other", "cache"]),
        ] {
            let injection = run(&objects, annotation, "baseline", &user);
            assert_eq!(mounts(&injection), want, "{annotation:?} {objects:?}");
            assert!(injection.warnings.is_empty());
        }
        let injection = run(std::slice::from_ref(&all), None, "", &user);
        assert_eq!(injection.containers[0].image.as_deref(), Some("agent:1"));
        // A second admission adds nothing.
        let mut again = user.clone();
        again.init_containers = Some(injection.containers);
        assert_eq!(run(&[all], None, "", &again), Injection::default());
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        let all = [object("all", &json!({"namespaces": {"selector": {}}}))];
        let warning = |level: &str, security: Value, annotation: Option<&str>| {
            let injection = run(&all, annotation, level, &spec(&security));
            assert!(injection.containers.is_empty());
            injection.warnings.join("\n")
        };
        let user = || json!({"runAsUser": 2000, "runAsGroup": 3000});
        assert!(warning("restricted", user(), None).contains("set runAsUser and runAsGroup to the owner"));
        assert!(warning("", json!({}), None).contains("has no runAsUser"));
        assert!(warning("", user(), Some("nothing")).contains("there is no volume \"nothing\""));
        // Root writes everything.
        assert_eq!(warning("restricted", json!({"runAsUser": 0}), None), "");
    }
}
