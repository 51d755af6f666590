//! Stand-ins for Google's Security Token Service with its IAM credentials API, and for Microsoft Entra ID: neither can be
//! reached from a test. They take no token that the cluster's own keys did not sign for them, refuse as the real ones
//! do, and keep what they were sent.
//!
//! Sources: <https://cloud.google.com/iam/docs/reference/sts/rest/v1/TopLevel/token>,
//! <https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/generateAccessToken>,
//! <https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow>.

use crate::cloud::http::{self, Request, Response};
use crate::cloud::token;
use crate::provider::Trust;
use serde_json::{Value, json};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

/// Google's provider of a pool, by its full name.
pub const POOL: &str =
    "//iam.googleapis.com/projects/7/locations/global/workloadIdentityPools/p/providers/k8s";
/// The service account that may be impersonated.
pub const ACCOUNT: &str = "reports@p.iam.gserviceaccount.com";
/// Microsoft's tenant and application.
pub const TENANT: &str = "11111111-2222-3333-4444-555555555555";
/// The application.
pub const CLIENT: &str = "66666666-7777-8888-9999-000000000000";
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const ACCESS: &str = "urn:ietf:params:oauth:token-type:access_token";

/// Both, at one address.
#[derive(Clone)]
pub struct Federation {
    /// Its address.
    pub address: String,
    asked: Arc<Mutex<Vec<Value>>>,
}

/// What each trusts: a subject of the cluster, with an audience of its own.
struct Trusted {
    google: Trust,
    microsoft: Trust,
    subject: String,
}

impl Federation {
    /// Trusts one `ServiceAccount` of a cluster.
    pub fn start(issuer: &str, keys: &Value, subject: &str) -> Self {
        let trust = |audience: &str| Trust {
            issuer: issuer.to_owned(),
            keys: keys.clone(),
            audience: audience.to_owned(),
        };
        let trusted = Trusted {
            google: trust(&format!("https:{POOL}")),
            microsoft: trust("api://AzureADTokenExchange"),
            subject: subject.to_owned(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let this = Self { address, asked: Arc::default() };
        let asked = this.asked.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                http::answer(&client, |request| {
                    let response = trusted.answer(request);
                    let body = String::from_utf8_lossy(&request.body).into_owned();
                    asked.lock().unwrap().push(json!({
                        "path": request.path, "form": request.form(), "body": body, "status": response.status,
                    }));
                    response
                });
            }
        });
        this
    }

    /// What they were asked, and how they answered.
    pub fn asked(&self) -> Vec<Value> {
        self.asked.lock().unwrap().clone()
    }
}

impl Trusted {
    fn answer(&self, request: &Request) -> Response {
        let path: Vec<&str> = request.path.trim_matches('/').split('/').collect();
        match (request.method.as_str(), path.as_slice()) {
            ("POST", ["v1", "token"]) => self.google(request),
            ("POST", ["v1", "projects", "-", "serviceAccounts", call]) => impersonate(request, call),
            ("POST", [tenant, "oauth2", "v2.0", "token"]) => self.microsoft(request, tenant),
            _ => Response::new(404, &json!({"error": {"code": 404, "message": "Not Found"}})),
        }
    }

    fn google(&self, request: &Request) -> Response {
        let form = request.form();
        let field = |name: &str| value(&form, name);
        let refused =
            |code: &str, why: &str| Response::new(400, &json!({"error": code, "error_description": why}));
        if field("grant_type") != EXCHANGE {
            return refused("unsupported_grant_type", "The grant_type is not supported.");
        }
        if field("audience") != POOL {
            return refused(
                "invalid_target",
                "The target service indicated by the \"audience\" parameters is invalid.",
            );
        }
        if field("requested_token_type") != ACCESS
            || field("subject_token_type") != "urn:ietf:params:oauth:token-type:jwt"
        {
            return refused(
                "invalid_request",
                "Invalid value for \"subject_token_type\" or \"requested_token_type\".",
            );
        }
        if field("scope").is_empty() {
            return refused("invalid_scope", "At least one scope must be given.");
        }
        let Trust { issuer, keys, audience } = &self.google;
        match token::subject(field("subject_token"), issuer, keys, audience) {
            Err(why) if why.contains("audience") => {
                refused("invalid_grant", "The audience in ID Token does not match the expected audience.")
            }
            Err(why) => {
                refused("invalid_grant", &format!("Error connecting to the given credential's issuer: {why}"))
            }
            Ok(subject) if subject != self.subject => {
                refused("unauthorized_client", "The given credential is rejected by the attribute condition.")
            }
            Ok(_) => Response::new(
                200,
                &json!({
                    "access_token": format!("federated-{}", token::now()), "issued_token_type": ACCESS,
                    "token_type": "Bearer", "expires_in": 3599,
                }),
            ),
        }
    }

    fn microsoft(&self, request: &Request, tenant: &str) -> Response {
        let form = request.form();
        let field = |name: &str| value(&form, name);
        let refused = |code: &str, number: u32, why: &str| {
            let error_description = format!("AADSTS{number}: {why} Trace ID: t Correlation ID: c");
            let status = if code == "invalid_client" { 401 } else { 400 };
            Response::new(
                status,
                &json!({"error": code, "error_description": error_description, "error_codes": [number]}),
            )
        };
        if tenant != TENANT {
            return refused("invalid_request", 90_002, &format!("Tenant '{tenant}' not found."));
        }
        if field("client_id") != CLIENT {
            let why = format!(
                "Application with identifier '{}' was not found in the directory.",
                field("client_id")
            );
            return refused("unauthorized_client", 700_016, &why);
        }
        if field("grant_type") != "client_credentials" || field("client_assertion_type") != ASSERTION {
            return refused(
                "invalid_request",
                900_144,
                "The request body must contain 'client_assertion_type'.",
            );
        }
        if !field("scope").ends_with("/.default") {
            let why = "The provided value for scope is not valid. Client credential flows must have a scope value with \
                       /.default suffixed to the resource identifier.";
            return refused("invalid_scope", 1_002_012, why);
        }
        let Trust { issuer, keys, audience } = &self.microsoft;
        match token::subject(field("client_assertion"), issuer, keys, audience) {
            Err(why) if why.contains("audience") => {
                let why = "No matching federated identity record found for presented assertion audience.";
                refused("invalid_client", 700_212, why)
            }
            Err(why) if why.contains("issuer") => {
                let why = "No matching federated identity record found for presented assertion issuer.";
                refused("invalid_client", 700_211, why)
            }
            Err(why) => {
                refused("invalid_client", 50_013, &format!("Assertion failed signature validation: {why}."))
            }
            Ok(subject) if subject != self.subject => {
                let why = format!(
                    "No matching federated identity record found for presented assertion subject '{subject}'."
                );
                refused("invalid_client", 700_213, &why)
            }
            Ok(_) => Response::new(
                200,
                &json!({
                    "token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599,
                    "access_token": format!("entra-{}", token::now()),
                }),
            ),
        }
    }
}

fn impersonate(request: &Request, call: &str) -> Response {
    let refused = |code: u16, status: &str, message: &str| {
        Response::new(code, &json!({"error": {"code": code, "message": message, "status": status}}))
    };
    if !request.authorization.starts_with("Bearer federated-") {
        return refused(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.");
    }
    if call != format!("{ACCOUNT}:generateAccessToken") {
        return refused(
            403,
            "PERMISSION_DENIED",
            "Permission 'iam.serviceAccounts.getAccessToken' denied on resource",
        );
    }
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let seconds = body["lifetime"].as_str().and_then(|text| text.strip_suffix('s')?.parse::<u64>().ok());
    let Some(seconds) = seconds.filter(|seconds| (1..=3_600).contains(seconds)) else {
        return refused(400, "INVALID_ARGUMENT", "The access token lifetime is not valid.");
    };
    if body["scope"].as_array().is_none_or(Vec::is_empty) {
        return refused(400, "INVALID_ARGUMENT", "Scope must be given.");
    }
    let end = humantime(SystemTime::now() + Duration::from_secs(seconds));
    Response::new(200, &json!({"accessToken": format!("impersonated-{}", token::now()), "expireTime": end}))
}

fn value<'a>(form: &'a [(String, String)], name: &str) -> &'a str {
    form.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
}

/// A time as RFC 3339 has it.
fn humantime(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).unwrap().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
