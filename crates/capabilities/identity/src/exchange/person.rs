//! Grants that need a user: a device code (RFC 8628), or a browser and PKCE (RFC 6749 section 4.1, RFC 7636, RFC
//! 8252).

use super::client::Client;
use super::token_endpoint::{Form, encode, parameter, post, split};
use super::{ExchangeError, Issued, answer, refusal};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use postern_config::providers::Grant;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

/// The time limit for a login in a browser.
const LOGIN_LIMIT: Duration = Duration::from_secs(300);

/// Whether a user can log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Person {
    /// A user at a terminal.
    AtTerminal(Browser),
    /// No user, for this reason.
    Nobody(&'static str),
}

/// Whether Postern may start a browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Browser {
    /// Try to start one.
    Start,
    /// Only print the address.
    Leave,
}

impl Person {
    /// Returns an error if no user is present.
    pub(super) fn require(self, grant: Grant) -> Result<(), ExchangeError> {
        match self {
            Self::AtTerminal(_) => Ok(()),
            Self::Nobody(why) => Err(ExchangeError::NoPerson { grant: grant.name(), why }),
        }
    }
}

pub(super) async fn log_in(client: &Client<'_>, grant: Grant) -> Result<Issued, ExchangeError> {
    match grant {
        Grant::DeviceCode => device(client).await,
        _ => browser(client).await,
    }
}

fn random() -> Result<String, ExchangeError> {
    let mut bytes = [0; 32];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| ExchangeError::Person("the system provides no random bytes".to_owned()))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

#[derive(Deserialize)]
struct DeviceAnswer {
    device_code: zeroize::Zeroizing<String>,
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    #[serde(default)]
    expires_in: Value,
    #[serde(default)]
    interval: Value,
}

async fn device(client: &Client<'_>) -> Result<Issued, ExchangeError> {
    let configured = client.provider().device_authorization_endpoint.clone();
    let endpoint = configured.or_else(|| client.metadata.device_authorization_endpoint.clone());
    let endpoint = endpoint.ok_or_else(|| ExchangeError::Setting {
        key: "device_authorization_endpoint",
        why: "the issuer's metadata names none: name it, or use another grant".to_owned(),
    })?;
    let mut form = Vec::new();
    client.targets(&mut form);
    let own = client.authenticate(&mut form).await?;
    let once = client.signs_for_itself();
    let answer = post(&client.server(&endpoint)?, &endpoint, &form, &own.headers, once, |_| false).await?;
    let wrong = |why: String| ExchangeError::Answer { server: endpoint.clone(), why };
    if answer.status != 200 {
        // Classified like any other refusal of a token.
        let asking =
            super::token_endpoint::Asking { r#type: client.provider().r#type, claims: None, once: false };
        return super::token_endpoint::judge(&endpoint, &answer, asking);
    }
    let started: DeviceAnswer = serde_json::from_slice(&answer.body)
        .map_err(|_| wrong("it is not a device authorization (RFC 8628 section 3.2)".to_owned()))?;
    let life = answer::lifetime(&started.expires_in).map_err(wrong)?.unwrap_or(LOGIN_LIMIT);
    let interval = answer::lifetime(&started.interval).ok().flatten().unwrap_or(Duration::from_secs(5));
    let (uri, code) = (refusal::clean(&started.verification_uri), refusal::clean(&started.user_code));
    let direct = started.verification_uri_complete.as_deref().map(refusal::clean);
    let direct = direct.map(|uri| format!(" (or go to {uri})")).unwrap_or_default();
    client.exchanger.listener.instruct(&format!("to log in, open {uri} and enter the code {code}{direct}"));
    poll(client, &started, life, interval).await
}

/// Polls for the token (RFC 8628 sections 3.4 and 3.5).
async fn poll(
    client: &Client<'_>,
    started: &DeviceAnswer,
    life: Duration,
    mut interval: Duration,
) -> Result<Issued, ExchangeError> {
    let end = Instant::now() + life.min(Duration::from_secs(3_600));
    loop {
        tokio::time::sleep(interval).await;
        if Instant::now() >= end {
            return Err(ExchangeError::Person("the code has expired before anyone entered it".to_owned()));
        }
        let mut form = vec![parameter("grant_type", "urn:ietf:params:oauth:grant-type:device_code")];
        form.push(("device_code".to_owned(), started.device_code.clone()));
        match client.ask(form, None).await {
            Err(ExchangeError::Refused(refused)) => match refused.code.as_deref() {
                Some("authorization_pending") => {}
                Some("slow_down") => interval += Duration::from_secs(5),
                Some("access_denied") => {
                    return Err(ExchangeError::Person("the login was declined".to_owned()));
                }
                Some("expired_token") => {
                    return Err(ExchangeError::Person(
                        "the code has expired before anyone entered it".to_owned(),
                    ));
                }
                _ => return Err(refused.into()),
            },
            // A time-out is not an answer, and the next poll is a new request.
            Err(ExchangeError::Web { .. }) => interval += Duration::from_secs(5),
            other => return other,
        }
    }
}

async fn browser(client: &Client<'_>) -> Result<Issued, ExchangeError> {
    let provider = client.provider();
    let endpoint =
        provider.authorization_endpoint.clone().or_else(|| client.metadata.authorization_endpoint.clone());
    let endpoint = endpoint.ok_or_else(|| ExchangeError::Setting {
        key: "authorization_endpoint",
        why: "the issuer's metadata names none: name it, or use another grant".to_owned(),
    })?;
    let failed = |error: std::io::Error| ExchangeError::Person(format!("waiting for the browser: {error}"));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    let redirect = format!("http://127.0.0.1:{port}/callback");
    let (state, verifier) = (random()?, random()?);
    let challenge = ring::digest::digest(&ring::digest::SHA256, verifier.as_bytes());
    let mut query: Form = vec![
        parameter("response_type", "code"),
        parameter("client_id", provider.client_id.as_deref().unwrap_or_default()),
        parameter("redirect_uri", &redirect),
        parameter("state", &state),
        parameter("code_challenge", URL_SAFE_NO_PAD.encode(challenge)),
        parameter("code_challenge_method", "S256"),
    ];
    client.targets(&mut query);
    let joint = if endpoint.contains('?') { '&' } else { '?' };
    let url = format!("{endpoint}{joint}{}", *encode(&query));
    // The address is opened in a browser on this machine: the same rule applies as for our own requests.
    client.server(split(&endpoint).0)?;
    client.exchanger.listener.instruct(&format!("to log in, open {url}"));
    if client.exchanger.person == Person::AtTerminal(Browser::Start) {
        start_browser(&url);
    }
    let code = tokio::time::timeout(LOGIN_LIMIT, callback(&listener, &state)).await;
    let code = code.map_err(|_| {
        ExchangeError::Person(format!("no login within {} minutes", LOGIN_LIMIT.as_secs() / 60))
    })??;
    let form = vec![
        parameter("grant_type", "authorization_code"),
        parameter("code", code),
        parameter("redirect_uri", redirect),
        parameter("code_verifier", verifier),
    ];
    client.ask(form, None).await
}

fn start_browser(url: &str) {
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let null = std::process::Stdio::null;
    // Without a browser, the user can open the printed address.
    let _ = std::process::Command::new(program).arg(url).stdin(null()).stdout(null()).stderr(null()).spawn();
}

/// Waits for the browser's redirect with our state; any other request gets a 404.
async fn callback(listener: &TcpListener, state: &str) -> Result<String, ExchangeError> {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let one = tokio::time::timeout(Duration::from_secs(5), handle_connection(stream, state)).await;
        if let Ok(Some(end)) = one {
            return end;
        }
    }
}

async fn handle_connection(stream: TcpStream, state: &str) -> Option<Result<String, ExchangeError>> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    (&mut stream).take(8_192).read_line(&mut line).await.ok()?;
    let found = parse_redirect(&line, state);
    let words = match &found {
        Some(Ok(_)) => "You are logged in. You may close this window.",
        Some(Err(_)) => "The login failed. See the terminal.",
        None => "There is nothing here.",
    };
    let status = if found.is_some() { "200 OK" } else { "404 Not Found" };
    let length = words.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{words}"
    );
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.flush().await;
    found
}

/// Returns the code from a redirect, if it contains our state (RFC 6749 section 10.12).
fn parse_redirect(line: &str, state: &str) -> Option<Result<String, ExchangeError>> {
    let query = line.strip_prefix("GET /callback?")?.split(' ').next()?;
    let find = |name: &str| {
        form_urlencoded::parse(query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    };
    if find("state")? != state {
        return None;
    }
    match (find("code"), find("error")) {
        (Some(code), None) => Some(Ok(code)),
        (_, error) => {
            let words =
                find("error_description").or(error).unwrap_or_else(|| "the redirect has no code".to_owned());
            Some(Err(ExchangeError::Person(format!("the login failed: {}", refusal::clean(&words)))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_browser_that_was_sent_brings_a_code() {
        let code =
            |line: &str| parse_redirect(line, "s1").map(|found| found.map_err(|error| error.to_string()));
        assert_eq!(code("GET /callback?code=a%2Fb&state=s1 HTTP/1.1\r\n"), Some(Ok("a/b".to_owned())));
        assert_eq!(code("GET /callback?code=a&state=s2 HTTP/1.1"), None);
        assert_eq!(code("GET /callback?code=a HTTP/1.1"), None);
        assert_eq!(code("GET /favicon.ico HTTP/1.1"), None);
        assert_eq!(
            code("GET /callback?error=access_denied&state=s1 HTTP/1.1"),
            Some(Err("the login failed: access_denied".to_owned()))
        );
    }
}
