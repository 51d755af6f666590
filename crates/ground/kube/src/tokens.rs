//! Tokens of a `ServiceAccount` from the API server (`TokenRequest`, KEP-1205), for use outside pods.

use crate::connect::Cluster;
use crate::error::KubeError;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;

/// Creates a token for one audience. `seconds` is the requested lifetime, at least 600.
pub async fn request(
    cluster: &Cluster,
    namespace: &str,
    service_account: &str,
    audience: &str,
    seconds: i64,
) -> Result<zeroize::Zeroizing<String>, KubeError> {
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), namespace);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(vec![audience.to_owned()]),
            expiration_seconds: Some(seconds),
            bound_object_ref: None,
        }),
        ..TokenRequest::default()
    };
    let attempt = || format!("creating a token of serviceaccount/{service_account} in {namespace}");
    let answer = accounts
        .create_token_request(service_account, &PostParams::default(), &request)
        .await
        .map_err(|error| cluster.error(attempt(), &error))?;
    Ok(zeroize::Zeroizing::new(answer.status.and_then(|status| status.token).unwrap_or_default()))
}
