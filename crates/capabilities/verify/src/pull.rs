//! Asks registries for manifests, with the distribution protocol and its tokens.

use crate::request::{Answer, Login, Request};
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::errors::{OciDistributionError, OciErrorCode};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Requests at a time.
const CONCURRENCY: usize = 8;
/// For one image.
const LIMIT: Duration = Duration::from_secs(20);

/// How registries are reached.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Registries without TLS, `HOST[:PORT]`. Loopback addresses always are.
    pub plain: Vec<String>,
    /// Certificates of CAs in addition to the system's, PEM.
    pub authorities: Vec<Vec<u8>>,
}

/// Asks for each image, several at a time.
pub async fn ask(requests: &BTreeSet<Request>, access: &Access) -> BTreeMap<Request, Answer> {
    // The library takes the process's provider. An error means that there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let permits = Arc::new(Semaphore::new(CONCURRENCY));
    let mut tasks = tokio::task::JoinSet::new();
    for request in requests.iter().cloned() {
        let (permits, access) = (permits.clone(), access.clone());
        tasks.spawn(async move {
            // The semaphore is never closed.
            let _permit = permits.acquire().await;
            let answer = match tokio::time::timeout(LIMIT, ask_one(&request, &access)).await {
                Ok(answer) => answer,
                Err(_) => Answer::Unreachable(format!("no answer within {} s", LIMIT.as_secs())),
            };
            (request, answer)
        });
    }
    tasks.join_all().await.into_iter().collect()
}

async fn ask_one(request: &Request, access: &Access) -> Answer {
    let Request { image, logins } = request;
    let reference: Reference = match image.parse() {
        Ok(reference) => reference,
        Err(error) => return Answer::Invalid(error.to_string()),
    };
    let logins =
        logins.iter().map(|Login { user, password }| RegistryAuth::Basic(user.clone(), password.clone()));
    let mut logins: Vec<_> = logins.collect();
    if logins.is_empty() {
        logins.push(RegistryAuth::Anonymous);
    }
    let mut last = Answer::NotFound;
    for login in logins {
        // A client of its own: the library keeps tokens by registry, whoever they are for.
        let client = match Client::try_from(config(&reference, access)) {
            Ok(client) => client,
            Err(error) => return Answer::Unreachable(error.to_string()),
        };
        last = match client.fetch_manifest_digest(&reference, &login).await {
            Ok(_) => return Answer::Found,
            Err(error) => classify(&error),
        };
        if matches!(last, Answer::Unreachable(_)) {
            break;
        }
    }
    last
}

fn config(reference: &Reference, access: &Access) -> ClientConfig {
    let host = reference.resolve_registry();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let is_plain =
        access.plain.iter().any(|one| one == host) || ["localhost", "127.0.0.1", "[::1]"].contains(&name);
    let certificates = access.authorities.iter();
    ClientConfig {
        protocol: if is_plain { ClientProtocol::Http } else { ClientProtocol::Https },
        extra_root_certificates: certificates
            .map(|pem| Certificate { encoding: CertificateEncoding::Pem, data: pem.clone() })
            .collect(),
        ..ClientConfig::default()
    }
}

fn classify(error: &OciDistributionError) -> Answer {
    match error {
        OciDistributionError::AuthenticationFailure(why) => Answer::Denied(short(why)),
        OciDistributionError::UnauthorizedError { .. } => Answer::Denied("401 Unauthorized".to_owned()),
        OciDistributionError::ServerError { code: 401 | 403, .. } => {
            Answer::Denied("not permitted".to_owned())
        }
        OciDistributionError::ServerError { code: 404, .. }
        | OciDistributionError::ImageManifestNotFoundError(_) => Answer::NotFound,
        OciDistributionError::RegistryError { envelope, .. } => {
            let is = |code: &OciErrorCode| envelope.errors.iter().any(|one| one.code == *code);
            if is(&OciErrorCode::ManifestUnknown) || is(&OciErrorCode::NameUnknown) {
                Answer::NotFound
            } else if is(&OciErrorCode::Denied) || is(&OciErrorCode::Unauthorized) {
                Answer::Denied("not permitted".to_owned())
            } else {
                Answer::Unreachable(short(&error.to_string()))
            }
        }
        other => Answer::Unreachable(chain(other)),
    }
}

/// The message with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    short(&last.to_string())
}

/// One line, of what a server may have written.
fn short(text: &str) -> String {
    text.chars().filter(|one| !one.is_control()).take(200).collect()
}
