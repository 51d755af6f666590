//! Access reviews: what a subject may do, as the API server decides it.

use crate::connect::Cluster;
use crate::error::KubeError;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SelfSubjectRulesReview,
    SelfSubjectRulesReviewSpec, SubjectRulesReviewStatus,
};
use kube::Api;
use kube::api::PostParams;

/// Returns whether the current user may do this. The server decides; nothing is changed.
pub async fn may(cluster: &Cluster, what: ResourceAttributes) -> Result<bool, KubeError> {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(what), non_resource_attributes: None },
        ..SelfSubjectAccessReview::default()
    };
    let api: Api<SelfSubjectAccessReview> = Api::all(cluster.client.clone());
    let answer = api.create(&PostParams::default(), &review).await;
    let answer = answer.map_err(|error| cluster.error("checking the user's permissions", &error))?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// Returns everything that the current user may do in a namespace.
pub async fn rules(cluster: &Cluster, namespace: &str) -> Result<SubjectRulesReviewStatus, KubeError> {
    let review = SelfSubjectRulesReview {
        spec: SelfSubjectRulesReviewSpec { namespace: Some(namespace.to_owned()) },
        ..SelfSubjectRulesReview::default()
    };
    let api: Api<SelfSubjectRulesReview> = Api::all(cluster.client.clone());
    let answer = api.create(&PostParams::default(), &review).await;
    let answer = answer
        .map_err(|error| cluster.error(format!("reading the user's permissions in {namespace}"), &error))?;
    Ok(answer.status.unwrap_or_default())
}
