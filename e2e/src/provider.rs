//! An authorization server and its API on loopback, for what a real one does not do on demand: it fails as it is told,
//! and counts. As faithful as it needs to be to RFC 6749, 7523 and 8693.

use crate::cloud::http::{Request, read};
use crate::cloud::token;
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How the token endpoint answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Behaviour {
    /// A token, with this `expires_in`; `Null` for none.
    Issue(Value),
    /// A status, headers (each ended by CRLF) and a body, as they are.
    Raw(u16, String, String),
    /// Half of a token's answer, then nothing.
    Half,
    /// A body without an end.
    Endless,
    /// No answer.
    Silent,
    /// The connection closed without a word.
    HangUp,
}

#[derive(Default)]
struct State {
    behaviour: Option<Behaviour>,
    /// What it does first, one at a time.
    before: VecDeque<Behaviour>,
    /// What a subject token is checked against; anything goes without it.
    trust: Option<Trust>,
    /// The subject tokens that are taken, when any are named.
    only: Vec<String>,
    tokens: HashMap<String, Instant>,
    asked: Vec<Value>,
    authorizations: Vec<String>,
    api: Vec<(String, u16)>,
    refuse: Vec<String>,
}

/// A cluster's issuer and keys, and the audience that is taken.
#[derive(Debug, Clone)]
pub struct Trust {
    /// The issuer.
    pub issuer: String,
    /// Its keys.
    pub keys: Value,
    /// The audience.
    pub audience: String,
}

/// A status with which a server says that it is busy, and when to come again.
pub fn busy(status: u16) -> Behaviour {
    Behaviour::Raw(status, "Retry-After: 0\r\n".to_owned(), String::new())
}

/// The server.
#[derive(Clone)]
pub struct Provider {
    /// Its address.
    pub address: String,
    state: Arc<Mutex<State>>,
}

impl Provider {
    /// One in this process.
    pub fn start() -> Self {
        Self::at("127.0.0.1:0")
    }

    /// One at an address.
    pub fn at(address: &str) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let this = Self { address, state: Arc::default() };
        let served = this.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), served) = (client, served.clone()) else { continue };
                std::thread::spawn(move || served.serve(&client));
            }
        });
        this
    }

    /// Sets how the token endpoint answers from now on.
    pub fn behave(&self, behaviour: Behaviour) {
        self.state.lock().unwrap().behaviour = Some(behaviour);
    }

    /// Does each of these once, and then as it did before.
    pub fn first(&self, behaviours: impl IntoIterator<Item = Behaviour>) {
        self.state.lock().unwrap().before.extend(behaviours);
    }

    /// Takes only tokens that a cluster's keys signed for an audience.
    pub fn trust(&self, trust: Trust) {
        self.state.lock().unwrap().trust = Some(trust);
    }

    /// Takes only this subject token, and the one before it: who read that a moment ago may still send it.
    pub fn take_only(&self, token: &str) {
        let only = &mut self.state.lock().unwrap().only;
        only.push(token.to_owned());
        if only.len() > 2 {
            only.remove(0);
        }
    }

    /// Lets the API refuse a token that holds.
    pub fn refuse(&self, token: &str) {
        self.state.lock().unwrap().refuse.push(token.to_owned());
    }

    /// The forms that the token endpoint was sent, as lists of pairs.
    pub fn asked(&self) -> Vec<Value> {
        self.state.lock().unwrap().asked.clone()
    }

    /// The `Authorization` that each of them came with.
    pub fn authorizations(&self) -> Vec<String> {
        self.state.lock().unwrap().authorizations.clone()
    }

    /// How often the API was asked, and how often it answered 401.
    pub fn api(&self) -> (usize, usize) {
        let state = self.state.lock().unwrap();
        (state.api.len(), state.api.iter().filter(|(_, status)| *status == 401).count())
    }

    /// How many tokens have ended.
    pub fn ended(&self) -> usize {
        let state = self.state.lock().unwrap();
        state.tokens.values().filter(|end| **end <= Instant::now()).count()
    }

    fn serve(&self, mut client: &TcpStream) {
        let Some(request) = read(client) else { return };
        let at = &self.address;
        let (status, body) = match request.path.trim_end_matches('/') {
            "/token" => return self.token(client, &request),
            "/device" => {
                self.state.lock().unwrap().asked.push(json!(request.form()));
                let begun = json!({
                    "device_code": "device-1", "user_code": "WDJB-MJHT", "verification_uri": format!("{at}/activate"),
                    "expires_in": 60, "interval": 1,
                });
                (200, begun.to_string())
            }
            "/.well-known/openid-configuration" => {
                let found = json!({
                    "issuer": at, "token_endpoint": format!("{at}/token"),
                    "token_endpoint_auth_methods_supported": ["client_secret_basic"],
                });
                (200, found.to_string())
            }
            "/github" => {
                let token = unsigned(request.parameter("audience").unwrap_or_default(), 300);
                (200, json!({"value": token, "bearer": request.authorization}).to_string())
            }
            _ => self.answer_api(&request),
        };
        let _ = write!(
            client,
            "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
    }

    fn token(&self, mut client: &TcpStream, request: &Request) {
        let form = request.form();
        let behaviour = {
            let mut state = self.state.lock().unwrap();
            state.asked.push(json!(form));
            state.authorizations.push(request.authorization.clone());
            let usual = state.behaviour.clone().unwrap_or(Behaviour::Issue(json!(300)));
            state.before.pop_front().unwrap_or(usual)
        };
        let json = |client: &mut &TcpStream, status: u16, body: &Value| {
            let body = body.to_string();
            let head = "Content-Type: application/json\r\nConnection: close";
            let _ = write!(
                client,
                "HTTP/1.1 {status} X\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
        };
        match behaviour {
            Behaviour::Issue(life) => {
                if let Err(why) = self.judge(&form) {
                    let refusal = json!({"error": "invalid_grant", "error_description": why});
                    return json(&mut client, 400, &refusal);
                }
                json(&mut client, 200, &self.issue(&life));
            }
            Behaviour::Raw(status, headers, body) => {
                let _ = write!(
                    client,
                    "HTTP/1.1 {status} X\r\n{headers}Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
            }
            Behaviour::Half => {
                let _ =
                    write!(client, "HTTP/1.1 200 X\r\nContent-Length: 1000\r\n\r\n{{\"access_token\":\"hal");
            }
            Behaviour::Endless => {
                let _ = write!(client, "HTTP/1.1 200 X\r\nConnection: close\r\n\r\n");
                let block = vec![b' '; 1024 * 1024];
                // A GB, if anyone takes it.
                for _ in 0..1024 {
                    if client.write_all(&block).is_err() {
                        return;
                    }
                }
            }
            // Longer than anyone waits; the client goes away first.
            Behaviour::Silent => std::thread::park_timeout(Duration::from_secs(120)),
            Behaviour::HangUp => {}
        }
    }

    fn judge(&self, form: &[(String, String)]) -> Result<(), String> {
        let field =
            |name: &str| form.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let subject =
            field("assertion").or(field("subject_token")).or(field("client_assertion")).unwrap_or_default();
        let state = self.state.lock().unwrap();
        if let Some(Trust { issuer, keys, audience }) = &state.trust {
            token::subject(subject, issuer, keys, audience)?;
        }
        match state.only.is_empty() || state.only.iter().any(|only| only == subject) {
            true => Ok(()),
            false => Err("this token is not one of the newest".to_owned()),
        }
    }

    fn issue(&self, life: &Value) -> Value {
        let mut state = self.state.lock().unwrap();
        let token = format!("access-{}-{:x}", state.tokens.len() + 1, std::process::id());
        let seconds = life.as_u64().or_else(|| life.as_str()?.parse().ok()).unwrap_or(3_600);
        state.tokens.insert(token.clone(), Instant::now() + Duration::from_secs(seconds));
        let mut answer = json!({
            "access_token": token, "token_type": "Bearer",
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        });
        if !life.is_null() {
            answer["expires_in"] = life.clone();
        }
        answer
    }

    fn answer_api(&self, request: &Request) -> (u16, String) {
        let mut state = self.state.lock().unwrap();
        let token = request.authorization.strip_prefix("Bearer ").unwrap_or_default().to_owned();
        let holds = state.tokens.get(&token).is_some_and(|end| *end > Instant::now());
        let status = if holds && !state.refuse.contains(&token) { 200 } else { 401 };
        state.api.push((token.clone(), status));
        let body = json!({
            "path": request.path, "query": request.query, "token": token, "length": request.body.len(),
            "authorization": request.authorization,
        });
        (status, body.to_string())
    }
}

/// A token that nobody signed, as a kubelet would project it.
pub fn unsigned(jti: &str, seconds: i64) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let now = i64::try_from(now).unwrap();
    let claims = json!({
        "iss": "https://kubernetes.default.svc", "sub": "system:serviceaccount:jobs:runner", "aud": ["https://as"],
        "iat": now, "exp": now + seconds, "jti": jti,
    });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.c2lnbmF0dXJl", part(&json!({"alg": "RS256", "kid": "k"})), part(&claims))
}
