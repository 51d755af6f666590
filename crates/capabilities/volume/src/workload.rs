//! The pod of a workload, wherever it stands in the object.

use postern_kube::k8s_openapi::api::core::v1::PodSpec;
use postern_manifest::FieldPath;
use serde_json::Value;

/// The pod that an object is, or makes.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// The path of the pod's `spec` in the object.
    pub path: FieldPath,
    /// The pod's `spec`.
    pub spec: PodSpec,
    /// The names of the claims that a `StatefulSet` makes for each pod. Each is a volume of the pod too.
    pub claim_templates: Vec<String>,
}

/// A field of a pod's spec has a value of the wrong type.
#[derive(Debug, thiserror::Error)]
#[error("{path} is not the spec of a pod")]
pub struct InvalidWorkload {
    /// The path of the spec.
    pub path: FieldPath,
    /// What is wrong.
    pub source: serde_json::Error,
}

impl Workload {
    /// Finds the pod of an object: in a Pod itself, in the template of a Deployment, `StatefulSet`, `DaemonSet`, Job or
    /// any other kind that has one at `spec.template`, or in a `CronJob`. `None` for an object without a pod.
    pub fn of(object: &Value) -> Result<Option<Self>, InvalidWorkload> {
        let keys: &[&str] = match object["kind"].as_str().unwrap_or_default() {
            "Pod" => &["spec"],
            "CronJob" => &["spec", "jobTemplate", "spec", "template", "spec"],
            _ => &["spec", "template", "spec"],
        };
        let path = keys.iter().fold(FieldPath::root(), |path, key| path.key(*key));
        let Some(spec) = path.find(object).filter(|spec| spec["containers"].is_array()) else {
            return Ok(None);
        };
        let spec = serde_json::from_value(spec.clone())
            .map_err(|source| InvalidWorkload { path: path.clone(), source })?;
        let templates = object["spec"]["volumeClaimTemplates"].as_array().into_iter().flatten();
        let claim_templates = templates.filter_map(|claim| claim["metadata"]["name"].as_str());
        let claim_templates = claim_templates.map(str::to_owned).collect();
        Ok(Some(Self { path, spec, claim_templates }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_pod_of_every_kind_is_found() {
        let spec = json!({"containers": [{"name": "a"}]});
        let template = json!({"template": {"spec": spec}});
        for (object, path) in [
            (json!({"kind": "Pod", "spec": spec}), "spec"),
            (json!({"kind": "Deployment", "spec": template}), "spec.template.spec"),
            (json!({"kind": "Rollout", "spec": template}), "spec.template.spec"),
            (
                json!({"kind": "CronJob", "spec": {"jobTemplate": {"spec": template}}}),
                "spec.jobTemplate.spec.template.spec",
            ),
        ] {
            let found = Workload::of(&object).unwrap().unwrap();
            assert_eq!((found.path.to_string(), found.spec.containers.len()), (path.to_owned(), 1));
        }
        let claims = json!([{"metadata": {"name": "data"}}]);
        let set = json!({"kind": "StatefulSet", "spec": {"volumeClaimTemplates": claims, "template": {"spec": spec}}});
        assert_eq!(Workload::of(&set).unwrap().unwrap().claim_templates, ["data"]);
        for other in [json!({"kind": "Service", "spec": {}}), json!({"kind": "ConfigMap"}), json!(null)] {
            assert_eq!(Workload::of(&other).unwrap(), None);
        }
    }

    #[test]
    fn a_spec_of_the_wrong_type_is_an_error() {
        let wrong = json!({"kind": "Pod", "spec": {"containers": [{"name": 1}]}});
        assert!(Workload::of(&wrong).unwrap_err().to_string().starts_with("spec is not"));
    }
}
