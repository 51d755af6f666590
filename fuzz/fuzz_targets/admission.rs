//! Admission: a review is answered or refused, never a panic, and what is added fits the Pod.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postern_kube::k8s_openapi::api::core::v1::Pod;
use postern_kube::kube::core::admission::{AdmissionRequest, AdmissionReview};
use postern_pullsecret::{NamespaceInfo, PodInfo, Rule, Rules, Sources, secrets_of_pod};
use postern_volume::{PodToAdmit, VolumeOwnership, admit};
use std::collections::BTreeMap;
use std::sync::Arc;

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (body, object) = input;
    let Ok(review) = serde_json::from_slice::<AdmissionReview<Pod>>(&body) else { return };
    let Ok(request): Result<AdmissionRequest<Pod>, _> = review.try_into() else { return };
    let Some(pod) = request.object else { return };
    let Some(spec) = pod.spec.as_ref() else { return };
    let none = BTreeMap::new();
    let namespace = NamespaceInfo { name: "a".to_owned(), ..NamespaceInfo::default() };
    let mut rules = Rules::default();
    if let Ok(object) = serde_json::from_slice(&object) {
        rules.add("u", Rule::try_from(&object));
    }
    let labels = pod.metadata.labels.as_ref().unwrap_or(&none);
    let info = PodInfo { namespace: &namespace, labels, account_labels: &none, spec };
    let _ = secrets_of_pod(&info, rules.iter(), &Sources::new());
    let ownerships: Vec<Arc<VolumeOwnership>> = serde_json::from_slice(&object).into_iter().map(Arc::new).collect();
    let annotations = pod.metadata.annotations.as_ref().unwrap_or(&none);
    let pod = PodToAdmit { namespace: "a", namespace_labels: &none, labels, annotations, spec };
    if let Some(ownership) = pod.ownership(&ownerships) {
        let injection = admit(&pod, &ownership, &BTreeMap::new(), "agent:1");
        for container in injection.containers {
            let mounts = container.volume_mounts.unwrap_or_default();
            let volumes: Vec<&str> = spec.volumes.iter().flatten().map(|volume| volume.name.as_str()).collect();
            assert!(mounts.iter().all(|mount| volumes.contains(&mount.name.as_str())));
        }
    }
});
