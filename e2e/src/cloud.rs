//! A stand-in for IBM Cloud, which cannot be reached from a test: IAM's token endpoint, trusted profiles and their
//! links, and the Kubernetes Service's look-up, as IBM documents them, with what the real ones refuse. It takes no
//! token that the cluster's own keys did not sign. It says what it was asked.

pub(crate) mod http;
pub mod ibmcloud;
pub(crate) mod token;

use http::{Request, Response};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

/// The API key that it takes.
pub const API_KEY: &str = "ibm-canary-8sK2-hv9Wq0LxT4e";
/// The account of that key.
pub const ACCOUNT: &str = "4f1f3e0a9c";
/// The id of the one cluster it knows.
pub const CLUSTER: &str = "c4rt5kdd0p";
/// The same cluster's CRN.
pub const CRN: &str = "crn:v1:bluemix:public:containers-kubernetes:eu-de:a/4f1f3e0a9c:c4rt5kdd0p::";

#[derive(Default)]
struct Profile {
    id: String,
    name: String,
    links: Vec<Value>,
}

/// What it knows and how it behaves.
#[derive(Default)]
struct State {
    /// The cluster's issuer and public keys.
    issuer: String,
    keys: Value,
    profiles: Vec<Profile>,
    made: usize,
    /// What the tests set: `permission` (`403`, `401`), `cluster` (`missing`, `down`, `iks`), `link` (`403`),
    /// `not_eligible` (refused logins before the first that is taken), `lifetime` (seconds).
    behave: Value,
    refused: u64,
    requests: Vec<Value>,
}

/// Answers on `listener` until the process ends.
pub fn serve(listener: &TcpListener) {
    let state = Arc::new(Mutex::new(State::default()));
    for client in listener.incoming() {
        let (Ok(client), state) = (client, state.clone()) else { continue };
        std::thread::spawn(move || {
            http::answer(&client, |request| state.lock().unwrap().answer(request));
        });
    }
}

/// One in this process, for what happens outside the cluster; its address.
pub fn start() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || serve(&listener));
    address
}

/// Sets what the tests set, and returns what it was asked and what it knows.
pub fn control(address: &str, what: &str, body: &Value) -> Value {
    http::post(address, &format!("/_test/{what}"), &body.to_string()).unwrap()
}

fn refused(status: u16, code: &str, message: &str) -> Response {
    Response::new(
        status,
        &json!({"trace": "t", "errors": [{"code": code, "message": message}], "status_code": status}),
    )
}

fn token_refused(code: &str, message: &str) -> Response {
    Response::new(400, &json!({"errorCode": code, "errorMessage": message, "context": {"requestId": "r"}}))
}

impl State {
    fn answer(&mut self, request: &Request) -> Response {
        let path: Vec<&str> = request.path.trim_matches('/').split('/').collect();
        if path[0] == "_test" {
            return self.test(path.get(1).copied().unwrap_or_default(), request);
        }
        let response = match (request.method.as_str(), path.as_slice()) {
            ("POST", ["identity", "token"]) => self.token(request),
            ("GET", ["global", "v2", "getCluster"]) => self.cluster(request),
            (_, ["v1", "profiles", rest @ ..]) => self.profiles(request, rest),
            _ => refused(404, "not_found", "no such endpoint"),
        };
        let body = String::from_utf8_lossy(&request.body).into_owned();
        self.requests.push(json!({
            "method": request.method, "path": request.path, "query": request.query, "status": response.status,
            "body": body,
        }));
        response
    }

    /// What only the tests ask.
    fn test(&mut self, what: &str, request: &Request) -> Response {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        match what {
            "keys" => {
                body["issuer"].as_str().unwrap().clone_into(&mut self.issuer);
                self.keys = body["keys"].clone();
            }
            "behave" => (self.behave, self.refused) = (body, 0),
            "forget" => self.requests.clear(),
            "trust" => {
                self.make(&json!({"name": body["name"], "account_id": ACCOUNT}));
                let id = self.profiles.last().map(|profile| profile.id.clone()).unwrap_or_default();
                self.link(&id, &body);
            }
            _ => {}
        }
        let profiles: Vec<Value> = self
            .profiles
            .iter()
            .map(|Profile { id, name, links }| json!({"id": id, "name": name, "links": links}))
            .collect();
        Response::new(200, &json!({"requests": self.requests, "profiles": profiles}))
    }

    fn token(&mut self, request: &Request) -> Response {
        let form = request.form();
        let field = |name: &str| form.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value);
        let lifetime = self.behave["lifetime"].as_u64().unwrap_or(3_600);
        match field("grant_type") {
            "urn:ibm:params:oauth:grant-type:apikey" => match field("apikey") {
                API_KEY => Response::new(200, &token::issue("IBMid-1", lifetime)),
                _ => token_refused("BXNIM0415E", "Provided API key could not be found."),
            },
            "urn:ibm:params:oauth:grant-type:cr-token" => {
                let subject = match token::subject(field("cr_token"), &self.issuer, &self.keys, "iam") {
                    Ok(subject) => subject,
                    Err(why) => {
                        return token_refused(
                            "BXNIM0440E",
                            &format!("Compute resource token invalid: {why}"),
                        );
                    }
                };
                let (id, name) = (field("profile_id"), field("profile_name"));
                let known = self.profiles.iter().filter(|profile| profile.id == id || profile.name == name);
                let linked = known.into_iter().any(|profile| {
                    profile.links.iter().any(|link| {
                        let part = |name: &str| link["link"][name].as_str().unwrap_or_default();
                        subject == format!("system:serviceaccount:{}:{}", part("namespace"), part("name"))
                    })
                });
                let early = self.refused < self.behave["not_eligible"].as_u64().unwrap_or(0);
                if early || !linked {
                    self.refused += 1;
                    return token_refused("BXNIM0398E", "Selected trusted profile not eligible.");
                }
                Response::new(200, &token::issue(&format!("iam-{id}"), lifetime))
            }
            _ => token_refused("BXNIM0109E", "Property missing or empty: 'grant_type'."),
        }
    }

    fn cluster(&self, request: &Request) -> Response {
        let said = |status, code: &str, text: &str| {
            Response::new(
                status,
                &json!({"incidentID": "i", "code": code, "description": text, "type": "Authentication"}),
            )
        };
        if !request.has_bearer() {
            return said(401, "E0001", "You are not logged in.");
        }
        match self.behave["cluster"].as_str() {
            Some("down") => return said(503, "E0009", "The service is temporarily unavailable."),
            Some("missing") => return said(404, "G0004", "The specified cluster could not be found."),
            _ if request.parameter("cluster") != Some(CLUSTER) => {
                return said(404, "G0004", "The specified cluster could not be found.");
            }
            _ => {}
        }
        let kind = if self.behave["cluster"] == "iks" { "kubernetes" } else { "openshift" };
        Response::new(
            200,
            &json!({"id": CLUSTER, "name": "canada", "crn": CRN, "type": kind, "region": "eu-de"}),
        )
    }

    fn profiles(&mut self, request: &Request, rest: &[&str]) -> Response {
        if !request.has_bearer() {
            return refused(401, "token_missing", "Authorization header is missing.");
        }
        match self.behave["permission"].as_str() {
            Some("403") => {
                return refused(403, "insufficient_permissions", "You are not authorized to use this API.");
            }
            Some("401") => {
                return refused(401, "unauthorized", "The action iam-identity.profile.get is not granted.");
            }
            Some("expired") => return refused(401, "token_expired", "Token is expired."),
            _ => {}
        }
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        match (request.method.as_str(), rest) {
            ("GET", []) => {
                if request.parameter("account_id") != Some(ACCOUNT) {
                    return refused(400, "bad_request", "account_id is missing or not yours.");
                }
                let wanted = request.parameter("name");
                let found =
                    self.profiles.iter().filter(|profile| wanted.is_none_or(|name| profile.name == name));
                let found: Vec<_> =
                    found.map(|p| json!({"id": p.id, "name": p.name, "account_id": ACCOUNT})).collect();
                Response::new(200, &json!({"offset": 0, "limit": 20, "profiles": found}))
            }
            ("POST", []) => self.make(&body),
            ("POST", [id, "links"]) => self.link(id, &body),
            ("DELETE", [id]) => {
                let before = self.profiles.len();
                self.profiles.retain(|profile| profile.id != **id);
                match self.profiles.len() == before {
                    true => refused(404, "not_found", "Profile not found."),
                    false => Response::new(204, &Value::Null),
                }
            }
            _ => refused(404, "not_found", "no such endpoint"),
        }
    }

    fn make(&mut self, body: &Value) -> Response {
        let name = body["name"].as_str().unwrap_or_default().to_owned();
        if body["account_id"] != ACCOUNT || name.is_empty() {
            return refused(400, "bad_request", "name and account_id are needed.");
        }
        if self.profiles.iter().any(|profile| profile.name == name) {
            return refused(409, "conflict", "A profile of this name exists.");
        }
        self.made += 1;
        let id = format!("Profile-94497d0d-2ac3-41bf-a993-{:012}", self.made);
        self.profiles.push(Profile { id: id.clone(), name: name.clone(), links: Vec::new() });
        Response::new(201, &json!({"id": id, "name": name, "account_id": ACCOUNT}))
    }

    fn link(&mut self, id: &str, body: &Value) -> Response {
        if self.behave["link"] == "403" {
            return refused(403, "insufficient_permissions", "You are not authorized to use this API.");
        }
        let Some(profile) = self.profiles.iter_mut().find(|profile| profile.id == id) else {
            return refused(404, "not_found", "Profile not found.");
        };
        let kind = body["cr_type"].as_str().unwrap_or_default();
        let complete = ["crn", "namespace", "name"].iter().all(|part| body["link"][part].is_string());
        if !["ROKS_SA", "IKS_SA"].contains(&kind) || !complete || body["link"]["crn"] != CRN {
            return refused(400, "bad_request", "The link is not valid.");
        }
        if profile.links.iter().any(|link| link["link"] == body["link"]) {
            return refused(409, "conflict", "The link exists.");
        }
        profile.links.push(body.clone());
        Response::new(201, body)
    }
}
