//! What is added to a new Pod.

use crate::cli::Part;
use crate::state::{State, info};
use futures_util::future::join_all;
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod, PodSpec};
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, Operation};
use kube::{Api, Client};
use postern_pullsecret::{NamespaceInfo, ObjectName, PodInfo, secrets_of_pod};
use postern_volume::{Injection, PodToAdmit, VolumeOwnership, admit};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// For what is read meanwhile. The API server waits for three seconds in all.
const READ_LIMIT: Duration = Duration::from_secs(1);

/// Reviews Pods.
pub(crate) struct Reviewer {
    pub(crate) client: Client,
    pub(crate) state: Arc<State>,
    pub(crate) parts: Vec<Part>,
    pub(crate) agent_image: String,
}

impl Reviewer {
    /// Answers an `AdmissionReview`; the error is for the API server, which then lets the Pod pass as it is.
    pub(crate) async fn review(&self, body: &[u8]) -> Result<Vec<u8>, String> {
        let start = Instant::now();
        let request = parse(body)?;
        let (mut patch, mut warnings) = (Vec::new(), Vec::new());
        let pod = request.object.as_ref().filter(|_| request.operation == Operation::Create);
        let namespace = request.namespace.as_deref().unwrap_or_default();
        if let Some((pod, spec)) = pod.and_then(|pod| Some((pod, pod.spec.as_ref()?)))
            && let Some(info) = self.namespace(namespace).await
        {
            self.add_secrets(&info, pod, spec, &mut patch);
            warnings = self.add_containers(&info, pod, spec, &mut patch).await;
        }
        let outcome = if patch.is_empty() { "unchanged" } else { "changed" };
        self.state.metrics.admitted(outcome, start.elapsed());
        tracing::Span::current().record("namespace", namespace).record("outcome", outcome);
        answer(&request, patch, warnings)
    }

    /// The namespace of a Pod. One that was created just now is read.
    async fn namespace(&self, name: &str) -> Option<NamespaceInfo> {
        if let Some(known) = self.state.namespace(name) {
            return Some(known);
        }
        let api: Api<Namespace> = Api::all(self.client.clone());
        let found = tokio::time::timeout(READ_LIMIT, api.get_opt(name)).await;
        found.ok()?.ok()?.map(|namespace| info(&namespace))
    }

    fn add_secrets(&self, namespace: &NamespaceInfo, pod: &Pod, spec: &PodSpec, patch: &mut Vec<Value>) {
        if !self.parts.contains(&Part::PullSecrets) || !self.state.is_built() {
            return;
        }
        let account = spec.service_account_name.clone().unwrap_or_else(|| "default".to_owned());
        let account = ObjectName { namespace: namespace.name.clone(), name: account };
        let account = self.state.accounts.get(&account);
        let (none, rules) = (BTreeMap::new(), self.state.rules());
        let info = PodInfo {
            namespace,
            labels: pod.metadata.labels.as_ref().unwrap_or(&none),
            account_labels: account.as_ref().map_or(&none, |account| &account.labels),
            spec,
        };
        let rules = rules.of_namespace(&namespace.name, &namespace.labels);
        let names = secrets_of_pod(&info, rules, &self.state.sources());
        let has_list = spec.image_pull_secrets.as_ref().is_some_and(|list| !list.is_empty());
        append(patch, "/spec/imagePullSecrets", has_list, names.iter().map(|name| json!({"name": name})));
    }

    async fn add_containers(
        &self,
        namespace: &NamespaceInfo,
        pod: &Pod,
        spec: &PodSpec,
        patch: &mut Vec<Value>,
    ) -> Vec<String> {
        if !self.parts.contains(&Part::Volumes) {
            return Vec::new();
        }
        let none = BTreeMap::new();
        let ownerships = self.state.ownerships.all();
        let ownerships: Vec<Arc<VolumeOwnership>> = ownerships.into_values().collect();
        let pod = PodToAdmit {
            namespace: &namespace.name,
            namespace_labels: &namespace.labels,
            labels: pod.metadata.labels.as_ref().unwrap_or(&none),
            annotations: pod.metadata.annotations.as_ref().unwrap_or(&none),
            spec,
        };
        let Some(ownership) = pod.ownership(&ownerships) else { return Vec::new() };
        let classes = match ownership.needs_classes() {
            true => self.classes(&namespace.name, spec).await,
            false => BTreeMap::new(),
        };
        let Injection { containers, warnings } = admit(&pod, &ownership, &classes, &self.agent_image);
        let first = spec.init_containers.as_ref().is_none_or(Vec::is_empty);
        if first && !containers.is_empty() {
            patch.push(json!({"op": "add", "path": "/spec/initContainers", "value": containers}));
        } else {
            // Before all others, which may need the volumes.
            patch.extend(containers.iter().enumerate().map(|(index, container)| {
                json!({"op": "add", "path": format!("/spec/initContainers/{index}"), "value": container})
            }));
        }
        warnings
    }

    /// The storage class of each volume of a Pod that has one.
    async fn classes(&self, namespace: &str, spec: &PodSpec) -> BTreeMap<String, String> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        let read = spec.volumes.iter().flatten().map(async |volume| {
            let template = volume.ephemeral.as_ref().and_then(|one| one.volume_claim_template.as_ref());
            if let Some(template) = template {
                return Some((volume.name.clone(), template.spec.storage_class_name.clone()?));
            }
            let claim = claims.get_opt(&volume.persistent_volume_claim.as_ref()?.claim_name);
            let claim = tokio::time::timeout(READ_LIMIT, claim).await.ok()?.ok()??;
            Some((volume.name.clone(), claim.spec?.storage_class_name?))
        });
        join_all(read).await.into_iter().flatten().collect()
    }
}

/// Reads the request of an `AdmissionReview`.
fn parse(body: &[u8]) -> Result<AdmissionRequest<Pod>, String> {
    let review: AdmissionReview<Pod> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    review.try_into().map_err(|_| "the review has no request".to_owned())
}

/// Permits the Pod with a patch.
fn answer(
    request: &AdmissionRequest<Pod>,
    patch: Vec<Value>,
    warnings: Vec<String>,
) -> Result<Vec<u8>, String> {
    let mut response = AdmissionResponse::from(request);
    response.warnings = (!warnings.is_empty()).then_some(warnings);
    if !patch.is_empty() {
        let patch = serde_json::from_value(Value::Array(patch)).map_err(|error| error.to_string())?;
        response = response.with_patch(patch).map_err(|error| error.to_string())?;
    }
    serde_json::to_vec(&response.into_review()).map_err(|error| error.to_string())
}

/// Adds items to a list, which may not exist yet.
fn append(operations: &mut Vec<Value>, path: &str, exists: bool, items: impl Iterator<Item = Value>) {
    let items: Vec<_> = items.collect();
    if exists {
        operations.extend(
            items.iter().map(|item| json!({"op": "add", "path": format!("{path}/-"), "value": item})),
        );
    } else if !items.is_empty() {
        operations.push(json!({"op": "add", "path": path, "value": items}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(pod: &Value) -> Vec<u8> {
        let kind = json!({"group": "", "version": "v1", "kind": "Pod"});
        json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "u1", "kind": kind, "resource": {"group": "", "version": "v1", "resource": "pods"},
                "requestKind": kind, "name": "", "namespace": "a", "operation": "CREATE", "userInfo": {},
                "object": pod, "oldObject": null, "dryRun": false, "options": null,
            },
        })
        .to_string()
        .into_bytes()
    }

    #[test]
    fn an_answer_is_of_the_version_and_uid_of_its_request() {
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {"containers": []}});
        let request = parse(&review(&pod)).unwrap();
        let patch = vec![json!({"op": "add", "path": "/spec/imagePullSecrets", "value": [{"name": "a"}]})];
        let answer: Value =
            serde_json::from_slice(&answer(&request, patch, vec!["hm".to_owned()]).unwrap()).unwrap();
        assert_eq!(
            (&answer["apiVersion"], &answer["kind"]),
            (&"admission.k8s.io/v1".into(), &"AdmissionReview".into())
        );
        let response = &answer["response"];
        assert_eq!((&response["uid"], &response["allowed"]), (&"u1".into(), &true.into()));
        assert_eq!((&response["patchType"], &response["warnings"]), (&"JSONPatch".into(), &json!(["hm"])));
        assert!(!response["patch"].is_null());
    }

    #[test]
    fn what_is_no_review_is_an_error() {
        for body in [&b""[..], b"{", b"{}", b"[]", br#"{"request": null}"#, &review(&json!("pod"))] {
            assert!(parse(body).is_err(), "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn items_are_added_to_a_list_or_make_one() {
        let run = |exists, count: usize| {
            let mut operations = Vec::new();
            append(&mut operations, "/spec/x", exists, (0..count).map(|number| json!(number)));
            operations
        };
        assert!(run(true, 0).is_empty() && run(false, 0).is_empty());
        assert_eq!(run(false, 2), [json!({"op": "add", "path": "/spec/x", "value": [0, 1]})]);
        assert_eq!(run(true, 1), [json!({"op": "add", "path": "/spec/x/-", "value": 0})]);
    }
}
