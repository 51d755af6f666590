//! Decides what to do with the existing pod, as a pure function.

use crate::names;
use postern_kube::k8s_openapi::api::core::v1::Pod;
use postern_kube::pods;

/// The properties of the desired pod that decide whether the existing one is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) pod: &'a Pod,
    /// A pod with this UID is replaced even if it is as desired.
    pub(crate) force: Option<&'a str>,
}

/// The next step towards the desired pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Create,
    Keep,
    /// Delete this pod and let its tools finish.
    Replace {
        uid: String,
        why: &'static str,
    },
    /// It is already being deleted.
    WaitGone {
        uid: String,
    },
}

pub(crate) fn next_step(existing: Option<&Pod>, wanted: Wanted<'_>) -> Step {
    let Some(existing) = existing else { return Step::Create };
    let uid = existing.metadata.uid.clone().unwrap_or_default();
    if existing.metadata.deletion_timestamp.is_some() {
        return Step::WaitGone { uid };
    }
    let differs = |key: &str| annotation(existing, key) != annotation(wanted.pod, key);
    let image = |pod: &Pod| pod.spec.as_ref()?.containers.first()?.image.clone();
    let ended = existing
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .is_some_and(|phase| matches!(phase, "Failed" | "Succeeded"));
    let why = if wanted.force == Some(uid.as_str()) {
        "--force"
    } else if ended {
        "it has ended"
    } else if differs(names::SPEC_HASH) || image(existing) != image(wanted.pod) {
        "its specification changed"
    } else if differs(names::CREDENTIAL_VERSION) {
        "the credential changed"
    } else if account_replaced(existing, annotation(wanted.pod, names::ACCOUNT_UID)) {
        "its ServiceAccount was recreated"
    } else {
        return Step::Keep;
    };
    Step::Replace { uid, why }
}

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Whether a pod's tokens belong to a `ServiceAccount` that no longer exists; `account` is the UID of the current
/// one. Tokens are bound to the UID. Creation times cannot show it, because they have a resolution of one second.
pub(crate) fn account_replaced(pod: &Pod, account: Option<&str>) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let mut sources = volumes.filter_map(|volume| volume.projected.as_ref()?.sources.as_ref()).flatten();
    let holds_token = sources.any(|source| source.service_account_token.is_some());
    holds_token
        && annotation(pod, names::ACCOUNT_UID)
            .is_some_and(|made_with| account.is_some_and(|account| account != made_with))
}

/// Returns why waiting will not make a pod ready, if that can be determined.
pub(crate) fn fatal_reason(pod: &Pod) -> Option<String> {
    let mut statuses = pod.status.as_ref()?.container_statuses.iter().flatten();
    statuses.find_map(|container| pods::waits_in_vain(container)?.reason.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(hash: &str, credential: &str, more: &str) -> Pod {
        let json = format!(
            r#"{{"metadata":{{"uid":"u","annotations":{{"postern.dev/spec-hash":"{hash}",
            "postern.dev/credential-version":"{credential}"}}{more}}},
            "spec":{{"containers":[{{"name":"tools","image":"i"}}]}},"status":{{"phase":"Running"}}}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn it_is_replaced_only_for_a_reason() {
        let desired = pod("h", "c", "");
        let wanted = Wanted { pod: &desired, force: None };
        let step = |existing: &Pod| next_step(Some(existing), wanted);
        let replace = |why| Step::Replace { uid: "u".to_owned(), why };
        assert_eq!(next_step(None, wanted), Step::Create);
        assert_eq!(step(&pod("h", "c", "")), Step::Keep);
        assert_eq!(step(&pod("old", "c", "")), replace("its specification changed"));
        assert_eq!(step(&pod("h", "old", "")), replace("the credential changed"));
        let deleted = pod("h", "c", r#","deletionTimestamp":"2026-01-01T00:00:00Z""#);
        assert_eq!(step(&deleted), Step::WaitGone { uid: "u".to_owned() });
        let mut edited = pod("h", "c", "");
        edited.spec.as_mut().unwrap().containers[0].image = Some("other".to_owned());
        assert_eq!(step(&edited), replace("its specification changed"));
        let forced = Wanted { pod: &desired, force: Some("u") };
        assert_eq!(next_step(Some(&pod("h", "c", "")), forced), replace("--force"));
        let other = Wanted { pod: &desired, force: Some("another") };
        assert_eq!(next_step(Some(&pod("h", "c", "")), other), Step::Keep);
        // Tokens are bound to the account's UID.
        let of_account = |mut pod: Pod, uid: &str| {
            pod.metadata
                .annotations
                .get_or_insert_default()
                .insert(names::ACCOUNT_UID.to_owned(), uid.to_owned());
            pod
        };
        let mut existing = of_account(pod("h", "c", ""), "one");
        let anew = of_account(desired.clone(), "another");
        let anew = Wanted { pod: &anew, force: None };
        assert_eq!(next_step(Some(&existing), anew), Step::Keep, "it holds no token");
        existing.spec.as_mut().unwrap().volumes = serde_json::from_str(
            r#"[{"name":"t","projected":{"sources":[{"serviceAccountToken":{"path":"token"}}]}}]"#,
        )
        .unwrap();
        assert_eq!(next_step(Some(&existing), anew), replace("its ServiceAccount was recreated"));
        let same = of_account(desired.clone(), "one");
        assert_eq!(next_step(Some(&existing), Wanted { pod: &same, force: None }), Step::Keep);
        assert_eq!(next_step(Some(&existing), wanted), Step::Keep, "what is not known is no reason");
    }
}
