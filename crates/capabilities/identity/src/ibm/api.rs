//! Requests to IBM Cloud's APIs, and their answers.

use crate::Subject;
use crate::request::{CallError, call, read};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use form_urlencoded::Serializer;
use http::{Method, Request, header};
use postern_net::error::WebError;
use postern_net::web::Server;
use postern_secret::Secret;
use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

/// IAM and the Kubernetes Service, with an API key.
#[derive(Debug)]
pub(super) struct Api {
    iam: Server,
    containers: Server,
    key: Secret,
}

/// An IAM access token, and its account.
pub(super) struct Token {
    bearer: Zeroizing<String>,
    account: String,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { bearer: _, account } = self;
        f.debug_struct("Token").field("account", account).finish_non_exhaustive()
    }
}

/// A cluster as a compute resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cluster {
    crn: String,
    id: String,
    /// `ROKS_SA` or `IKS_SA`.
    resource: &'static str,
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
}

#[derive(Deserialize)]
struct Claims {
    account: Account,
}

#[derive(Deserialize)]
struct Account {
    bss: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ClusterAnswer {
    id: String,
    crn: String,
    region: String,
    #[serde(rename = "type")]
    kind: String,
    master_kube_version: String,
}

#[derive(Deserialize)]
struct Profile {
    id: String,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Profiles {
    #[serde(default)]
    profiles: Vec<Profile>,
}

impl Api {
    pub(super) fn new(iam: &str, containers: &str, key: Secret) -> Result<Self, WebError> {
        Ok(Self { iam: Server::new(iam)?, containers: Server::new(containers)?, key })
    }

    /// Returns a token for the API key.
    pub(super) async fn token(&self) -> Result<Token, CallError> {
        let key = String::from_utf8_lossy(self.key.expose());
        let form = Serializer::new(String::new())
            .append_pair("grant_type", "urn:ibm:params:oauth:grant-type:apikey")
            .append_pair("apikey", &key)
            .finish();
        let request = request(Method::POST, "/identity/token", None)?
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form.into_bytes());
        let body = Zeroizing::new(self.iam(request).await?);
        let TokenAnswer { access_token } = read(&body)?;
        let access_token = Zeroizing::new(access_token);
        let account = account(&access_token)?;
        Ok(Token { bearer: access_token, account })
    }

    /// Returns the cluster for a CRN or ID.
    pub(super) async fn cluster(&self, token: &Token, registered: &str) -> Result<Cluster, CallError> {
        // crn:v1:bluemix:public:containers-kubernetes:REGION:a/ACCOUNT:ID::
        let id = if registered.starts_with("crn:") {
            registered.split(':').nth(7).unwrap_or_default()
        } else {
            registered
        };
        let query = Serializer::new(String::new()).append_pair("cluster", id).finish();
        let path = format!("/global/v2/getCluster?{query}");
        let request = request(Method::GET, &path, Some(token))?.body(Vec::new());
        let body =
            call(&self.containers, &built(request)?, |status, body| self.refusal(status, body)).await?;
        let answer: ClusterAnswer = read(&body)?;
        Ok(answer.compute_resource(registered, &token.account))
    }

    /// Returns the profile of this name in the token's account.
    pub(super) async fn profile(&self, token: &Token, name: &str) -> Result<Option<String>, CallError> {
        let query = Serializer::new(String::new())
            .append_pair("account_id", &token.account)
            .append_pair("name", name)
            .finish();
        let request = request(Method::GET, &format!("/v1/profiles?{query}"), Some(token))?.body(Vec::new());
        let Profiles { profiles } = read(&self.iam(request).await?)?;
        let found = profiles.into_iter().find(|profile| profile.name == name);
        found.map(|Profile { id, name: _ }| identifier(id)).transpose()
    }

    /// Creates a profile; 409 if the name exists.
    pub(super) async fn create_profile(&self, token: &Token, name: &str) -> Result<String, CallError> {
        let body = json!({
            "name": name, "account_id": token.account,
            "description": "The ops pod of a Kubernetes cluster; made and removed by postern.",
        });
        let Profile { id, name: _ } = read(&self.iam(json_request("/v1/profiles", token, &body)?).await?)?;
        identifier(id)
    }

    /// Permits the cluster's `ServiceAccount` to assume the profile; 409 if it already may.
    pub(super) async fn link(
        &self,
        token: &Token,
        profile: &str,
        cluster: &Cluster,
        subject: Subject<'_>,
    ) -> Result<(), CallError> {
        let Cluster { crn, id, resource } = cluster;
        let Subject { namespace, name } = subject;
        let body = json!({
            "name": format!("{name}-{id}"), "cr_type": resource,
            "link": { "crn": crn, "namespace": namespace, "name": name },
        });
        self.iam(json_request(&format!("/v1/profiles/{profile}/links"), token, &body)?).await.map(drop)
    }

    /// Deletes a profile with its links; 404 if it does not exist.
    pub(super) async fn delete_profile(&self, token: &Token, id: &str) -> Result<(), CallError> {
        let id = identifier(id.to_owned())?;
        let request = request(Method::DELETE, &format!("/v1/profiles/{id}"), Some(token))?.body(Vec::new());
        self.iam(request).await.map(drop)
    }

    async fn iam(&self, request: http::Result<Request<Vec<u8>>>) -> Result<Vec<u8>, CallError> {
        call(&self.iam, &built(request)?, |status, body| self.refusal(status, body)).await
    }

    /// Parses a refusal: IAM's token endpoint, IAM's management and the Kubernetes Service each have their own
    /// format. An API key in the message is redacted.
    fn refusal(&self, status: u16, body: &[u8]) -> CallError {
        let said: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
        let first = &said["errors"][0];
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        let code = text(&said["errorCode"]).or_else(|| text(&first["code"])).or_else(|| text(&said["code"]));
        let message = text(&said["errorMessage"])
            .or_else(|| text(&first["message"]))
            .or_else(|| text(&said["description"]))
            .or_else(|| text(&said["message"]));
        let key = String::from_utf8_lossy(self.key.expose());
        let message = message.unwrap_or_else(|| "no reason given".to_owned()).replace(&*key, "[REDACTED]");
        CallError::Refused { status, code, message }
    }
}

impl ClusterAnswer {
    fn compute_resource(self, registered: &str, account: &str) -> Cluster {
        let Self { id, crn, region, kind, master_kube_version } = self;
        let openshift = kind == "openshift" || master_kube_version.contains("openshift");
        let crn = match crn {
            crn if !crn.is_empty() => crn,
            _ if registered.starts_with("crn:") => registered.to_owned(),
            _ => format!("crn:v1:bluemix:public:containers-kubernetes:{region}:a/{account}:{id}::"),
        };
        Cluster { crn, id, resource: if openshift { "ROKS_SA" } else { "IKS_SA" } }
    }
}

fn request(method: Method, path: &str, token: Option<&Token>) -> Result<http::request::Builder, CallError> {
    let builder = Request::builder().method(method).uri(path).header(header::ACCEPT, "application/json");
    let Some(Token { bearer, account: _ }) = token else { return Ok(builder) };
    let mut value = http::HeaderValue::from_str(&format!("Bearer {}", bearer.as_str()))
        .map_err(|_| CallError::Answer("the token is not a valid header value".to_owned()))?;
    value.set_sensitive(true);
    Ok(builder.header(header::AUTHORIZATION, value))
}

fn json_request(
    path: &str,
    token: &Token,
    body: &serde_json::Value,
) -> Result<http::Result<Request<Vec<u8>>>, CallError> {
    let builder = request(Method::POST, path, Some(token))?;
    Ok(builder.header(header::CONTENT_TYPE, "application/json").body(body.to_string().into_bytes()))
}

fn built(request: http::Result<Request<Vec<u8>>>) -> Result<Request<Vec<u8>>, CallError> {
    request.map_err(|error| CallError::Answer(error.to_string()))
}

/// Validates an ID that becomes part of a path and of a manifest.
fn identifier(id: String) -> Result<String, CallError> {
    let fine = !id.is_empty()
        && id.len() <= 128
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && !id.starts_with('.');
    if fine { Ok(id) } else { Err(CallError::Answer("the profile's id is invalid".to_owned())) }
}

/// Returns the account in an access token's claims, which only the issuer needs to verify.
fn account(token: &str) -> Result<String, CallError> {
    let claims = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let claims: Option<Claims> = claims.and_then(|claims| serde_json::from_slice(&claims).ok());
    let account = claims.map(|Claims { account: Account { bss } }| bss).filter(|bss| !bss.is_empty());
    account.ok_or_else(|| CallError::Answer("the access token names no account".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(answer: &str, registered: &str) -> Cluster {
        read::<ClusterAnswer>(answer.as_bytes()).unwrap().compute_resource(registered, "acc")
    }

    #[test]
    fn a_cluster_is_known_by_its_crn_and_its_kind() {
        let crn = "crn:v1:bluemix:public:containers-kubernetes:eu-de:a/acc:abc::";
        let roks = cluster(&format!(r#"{{"id":"abc","crn":"{crn}","type":"openshift"}}"#), "abc");
        assert_eq!(roks, Cluster { crn: crn.to_owned(), id: "abc".to_owned(), resource: "ROKS_SA" });
        let iks = cluster(r#"{"id":"abc","region":"eu-de","masterKubeVersion":"1.33.1_1526"}"#, "abc");
        assert_eq!((iks.crn.as_str(), iks.resource), (crn, "IKS_SA"));
        let roks = cluster(r#"{"id":"abc","masterKubeVersion":"4.18.3_openshift"}"#, crn);
        assert_eq!((roks.crn.as_str(), roks.resource), (crn, "ROKS_SA"));
    }

    #[test]
    fn the_account_is_read_and_nothing_of_a_token_is_told() {
        let token = |claims: &str| format!("h.{}.s", URL_SAFE_NO_PAD.encode(claims));
        assert_eq!(account(&token(r#"{"account":{"valid":true,"bss":"acc"}}"#)).unwrap(), "acc");
        for wrong in [String::new(), "a.b".to_owned(), token("{}"), token(r#"{"account":{"bss":""}}"#)] {
            let error = account(&wrong).unwrap_err().to_string();
            assert_eq!(error, "the answer cannot be used: the access token names no account");
        }
    }

    #[test]
    fn an_id_cannot_lead_elsewhere() {
        assert!(identifier("Profile-94497d0d-2ac3-41bf".to_owned()).is_ok());
        for wrong in ["", "../x", "a/b", "a?b", "a b", "..", "ä"] {
            assert!(identifier(wrong.to_owned()).is_err(), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn each_service_refuses_in_its_own_words_and_the_key_is_not_among_them() {
        let key = Secret::new("K", "the-key-itself").unwrap();
        let api = Api::new("https://iam.example", "https://containers.example", key).unwrap();
        let said = |body: &str| api.refusal(400, body.as_bytes()).to_string();
        let token = r#"{"errorCode":"BXNIM0415E","errorMessage":"the-key-itself could not be found."}"#;
        assert_eq!(said(token), "[REDACTED] could not be found. (400, BXNIM0415E)");
        let iam = r#"{"errors":[{"code":"not_found","message":"Profile not found"}],"status_code":404}"#;
        assert_eq!(said(iam), "Profile not found (400, not_found)");
        assert_eq!(said(r#"{"code":"A0008","description":"no cluster"}"#), "no cluster (400, A0008)");
        assert_eq!(said("<html>"), "no reason given (400)");
    }
}
